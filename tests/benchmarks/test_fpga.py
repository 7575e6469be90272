"""What the benchmark of FPGAs counts, and the page that shows it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.fpga import __main__ as fpga
from benchmarks.fpga.simulation import simulate
from benchmarks.fpga.tools import CHIPS, place, synthesize
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.graph import Graph
from tests.deploy.graphs import dense, fires, readout, vectors
from tests.deploy.toolchain import tool

RESULTS = json.loads(fpga.RESULTS.read_text())


def small(seed: int, outputs: int = 6) -> Graph:
    """A layer of neurons and scores that sees what they fire, of 5 numbers from 0 to 7 in 8 steps."""
    rng = np.random.default_rng(seed)
    hidden = fires(dense(0, rng.choice([-1, 1], (outputs, 5))), [4, 2, 1], rng.integers(-9, 9, outputs))
    return vectors(5, hidden, readout(dense(1, rng.choice([-1, 1], (3, outputs)))), steps=8, top=7)


def levels(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 8, (8, samples, 5, 1, 1))


def test_a_step_takes_the_cycles_that_the_head_of_the_file_states(tmp_path):
    tool("verilator")
    simulated = simulate(IntegerNetwork(small(0, 12)), levels(3), 8, tmp_path, lanes=4)
    assert (simulated.samples, simulated.numbers) == (3, 3 * 8 * (12 + 3))
    text = " ".join((tmp_path / "net.v").read_text().replace("//", "").split())
    stated = fpga.stated(text, r"The slowest of them takes about ([\d,]+) cycles")
    assert stated <= simulated.cycles_a_step <= stated + 10
    assert 8 * simulated.cycles_a_step <= simulated.cycles_a_sample <= 10 * simulated.cycles_a_step
    assert simulated.cycles == 3 * simulated.cycles_a_sample


def test_a_neuron_that_fires_otherwise_is_found(tmp_path):
    tool("verilator")
    other = small(0)
    other.ops[0].thresholds[0, 0] = -10_000
    mixed = SimpleNamespace(graph=other, to_verilog=IntegerNetwork(small(0)).to_verilog)
    with pytest.raises(RuntimeError, match=r"\d+ of 720 numbers are not the interpreter's"):
        simulate(mixed, levels(10), 8, tmp_path, lanes=4)


def test_a_small_network_fits_and_a_clock_is_found(tmp_path):
    tool("yosys"), tool("nextpnr-ice40")
    module, *_ = IntegerNetwork(small(0)).to_verilog(tmp_path, lanes=4)
    shutil.copy(fpga.TOP, tmp_path)
    cells = synthesize("ice40", fpga.port_widths(module.read_text()), tmp_path)
    placed = place(CHIPS[0], tmp_path)
    assert placed["rams"] == cells.get("SB_RAM40_4K", 0)
    assert cells["SB_LUT4"] <= placed["cells"] <= CHIPS[0].cells
    assert 10 < placed["mhz"] < 200


def test_what_does_not_fit_says_by_how_much():
    chip = CHIPS[1]
    assert fpga.lacks(chip, {"cells": 9000, "rams": 32}) == "no: 9,000 cells for 7,680 of HX8K"
    both = fpga.lacks(chip, {"cells": 9000, "rams": 102})
    assert both == "no: 9,000 cells for 7,680 and 102 RAM blocks for 32 of HX8K"


def test_the_page_shows_the_results():
    page = fpga.PAGE.read_text()
    assert set(RESULTS) <= set(fpga.NETWORKS)
    assert fpga.table(RESULTS) in page and fpga.proof_table(RESULTS) in page


def test_the_digits_fit_the_small_chip_and_all_recordings_and_digits_were_compared():
    (few, *_) = RESULTS["digits-rows"]["builds"]
    assert few["placed"][-1]["chip"] == "UP5K"
    for name, samples in (("digits-rows", 364), ("spoken-digits", 600)):
        assert RESULTS[name]["builds"][-1]["simulated"]["samples"] == samples
