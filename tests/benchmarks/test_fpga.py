"""What the benchmark of FPGAs counts, and the page that shows it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fpga import __main__ as fpga
from benchmarks.fpga.lif import PART, LIFNetwork
from benchmarks.fpga.simulation import MemoryFree, simulate
from benchmarks.fpga.tools import CHIPS, place, synthesize
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.graph import Feedback, Graph, Neurons, TimePool
from tests.deploy.graphs import dense, fires, readout, vectors
from tests.deploy.toolchain import run, tool

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
    simulated = simulate(MemoryFree(IntegerNetwork(small(0, 12))), levels(3), 8, tmp_path, lanes=4)
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
    expected, written = MemoryFree(IntegerNetwork(other)), IntegerNetwork(small(0))
    mixed = SimpleNamespace(graph=other, run=expected.run, to_verilog=written.to_verilog)
    with pytest.raises(RuntimeError, match=r"\d+ of 720 numbers are not those expected"):
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


def test_what_does_not_fit_says_what_it_needs():
    chip = CHIPS[1]
    assert fpga.lacks(chip, {"cells": 9000, "rams": 32}) == "too large: 9,000 cells"
    both = fpga.lacks(chip, {"cells": 9000, "rams": 102})
    assert both == "too large: 9,000 cells and 102 RAM blocks"


# --- LIF neurons


_LIF_BENCH = """\
module bench;
    reg clk = 0, rst = 1, dot_valid = 0, out_ready = 0;
    reg  [{dot_bits}-1:0] dots [0:{count}-1];
    reg  expected [0:{count}-1];
    integer offered = 0, at = 0, cycles = 0, errors = 0;
    wire dot_ready, out_valid, out_data;

    lif_neurons #(
        .NEURONS({neurons}), .DOT_BITS({dot_bits}), .CURRENT_BITS({current_bits}), .SHIFT({shift}),
        .LEAK({leak}), .CONSTANT_FILE("constants.hex")
    ) dut (
        .clk(clk), .rst(rst), .dot_valid(dot_valid), .dot_ready(dot_ready), .dot(dots[offered]),
        .out_valid(out_valid), .out_ready(out_ready), .out_data(out_data)
    );

    initial begin
        $readmemh("dots.hex", dots);
        $readmemh("expected.hex", expected);
    end
    always #5 clk = !clk;

    // a sequence is broken off and begins again; then all is offered and taken at once for a while
    always @(negedge clk) begin
        cycles = cycles + 1;
        rst = cycles < 3 || cycles == 100;
        if (rst) dot_valid = 0;
        else if (!dot_valid) dot_valid = offered < {count} && (cycles > 500 || $random % 2);
        out_ready = cycles > 500 || $random % 2;
    end
    always @(posedge clk) begin
        if (rst) begin
            offered <= 0;
            at <= 0;
        end else begin
            if (dot_valid && dot_ready) begin
                offered <= offered + 1;
                if (cycles <= 500 || offered + 1 == {count}) dot_valid <= 0;
            end
            if (out_valid && out_ready) begin
                if (out_data !== expected[at]) errors = errors + 1;
                at <= at + 1;
                if (at == {count} - 1) begin
                    $display("%0d wrong in %0d cycles", errors, cycles);
                    $finish;
                end
            end
        end
    end
endmodule
"""


def one_neuron(currents: list[int], leak: int, bias: int, threshold: int) -> list[int]:
    """What a LIF of whole numbers from -128 to 127 fires, as the head of lif_neurons.v defines it."""
    v, spikes = 0, []
    for current in currents:
        total = v - v // 2**leak + bias + current
        spikes.append(int(total >= threshold))
        v = 0 if spikes[-1] else max(total, -128)
    return spikes


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(3, 20), st.integers(1, 7), st.integers(2, 12), st.integers(0, 5)
)
def test_lif_neurons_fire_as_they_say_with_pauses_and_without(
    tmp_path_factory, seed, neurons, leak, current_bits, shift
):
    iverilog, vvp = tool("iverilog"), tool("vvp")
    rng, folder, steps = np.random.default_rng(seed), tmp_path_factory.mktemp("lif"), 60
    dot_bits = current_bits + shift
    dots = rng.integers(-(2 ** (dot_bits - 1)), 2 ** (dot_bits - 1), (steps, neurons))
    biases = rng.integers(-128, 128, neurons)
    thresholds = rng.integers(1, 128, neurons)
    columns = [
        one_neuron([int(dot) // 2**shift for dot in dots[:, n]], leak, int(biases[n]), int(thresholds[n]))
        for n in range(neurons)
    ]
    for name, words, bits in (
        ("dots", dots.flatten(), dot_bits),
        ("expected", np.array(columns).T.flatten(), 1),
        ("constants", thresholds * 256 + biases % 256, 15),
    ):
        text = "\n".join(f"{int(word) % 2**bits:x}" for word in words)
        (folder / f"{name}.hex").write_text(text)
    sizes = {"neurons": neurons, "dot_bits": dot_bits, "current_bits": current_bits, "shift": shift}
    (folder / "bench.v").write_text(_LIF_BENCH.format(**sizes, leak=leak, count=dots.size))
    parts = Path(fpga.ROOT, "mfp_neurons", "deploy", "verilog", "mfp_primitives.v")
    flags = ["-g2005", "-Wall", "-Wno-timescale", "-s", "bench", "-o", "bench.vvp"]
    run([iverilog, *flags, "bench.v", PART, parts], folder)
    said = run([vvp, "-n", "bench.vvp"], folder).decode()
    assert said.startswith("0 wrong in "), said


def layers(*, pooled: bool = True) -> Graph:
    """Two layers of neurons behind each other, steps pooled between them, of 5 numbers from 0 to 7."""
    rng = np.random.default_rng(0)
    first = fires(dense(0, rng.integers(-128, 128, (9, 5)), 8), [4, 2, 1], rng.integers(-9, 9, 9))
    second = fires(dense(1 + pooled, rng.choice([-1, 1], (4, 9))), [2, 1], rng.integers(-9, 9, 4))
    pool = (TimePool("pool", 1, 2, (9, 1, 1), 1),) if pooled else ()
    head = readout(dense(2 + pooled, rng.integers(-128, 128, (3, 4)), 8))
    return vectors(5, first, *pool, second, head, steps=8, top=7)


def test_layers_of_lif_neurons_fire_in_hardware_what_they_fire_here(tmp_path):
    tool("verilator")
    network = LIFNetwork(layers())
    numbers = levels(6)
    scores, maps = network.run(numbers, 8)
    assert all(0.02 < maps[index].mean() < 0.98 for index in network.neurons)
    simulated = simulate(network, numbers, 8, tmp_path, lanes=8)
    assert simulated.numbers == 6 * (8 * 9 + 4 * 9 + 4 * 4 + 4 * 3)
    assert scores.shape == (4, 6, 3, 1, 1)
    # inputs are added up once: of 9 neurons, by 8 planes of codes, in 3 words of 2 numbers of 3 bits
    assert 9 * 8 * 3 <= simulated.cycles_a_step <= 9 * 8 * 3 + 10


def test_what_lif_neurons_fire_follows_from_what_each_of_them_hears():
    network = LIFNetwork(layers(pooled=False))
    numbers = levels(3, seed=1)
    _, maps = network.run(numbers, 8)
    for index, neurons in network.neurons.items():
        (synapse,) = network.graph.ops[index - 1].synapses
        dots = maps[synapse.source][..., 0, 0] @ synapse.codes[:, :, 0, 0].astype(np.int64).T
        for n, (bias, threshold) in enumerate(zip(neurons.biases, neurons.thresholds, strict=True)):
            for sample in range(3):
                currents = [int(dot) // 2**neurons.shift for dot in dots[:, sample, n]]
                expected = one_neuron(currents, 3, int(bias), int(threshold))
                assert maps[index][:, sample, n, 0, 0].tolist() == expected


def test_lif_neurons_keep_8_bits_each_and_what_is_pooled(tmp_path):
    module, *_ = LIFNetwork(layers()).to_verilog(tmp_path, name="net", lanes=8)
    kept = fpga.stated(module.read_text(), r"([\d,]+) bits are kept between steps")
    assert kept == 8 * (9 + 4) + 9  # bits of a step that waits for the next
    assert "mfp_neurons" in module.read_text()  # the scores
    assert module.read_text().count("lif_neurons #(") == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feedback": Feedback("age")}, "must be linear, of one synapse without factors or feedback"),
        ({"shape": (2, 1, 1)}, "must have 3 neurons or more, got 2"),
    ],
)
def test_layers_that_lif_neurons_do_not_have_are_refused(change, reason):
    graph = small(0)
    hidden, head = graph.ops
    assert isinstance(hidden, Neurons)
    changed = Graph(graph.input, (replace(hidden, **change), head), graph.steps)
    with pytest.raises(ValueError, match=f"hidden: a LIF layer {reason}"):
        LIFNetwork(changed)


# --- what is stored and shown


def test_a_build_replaces_what_it_says_anew_and_stands_at_its_place():
    builds = []
    for lanes, kind in ((64, fpga.LIF), (64, fpga.MEMORY_FREE), (16, fpga.LIF)):
        fpga.keep(builds, {"design": kind, "lanes": lanes, "simulated": 1, "cells": lanes})
    fpga.keep(builds, {"design": fpga.MEMORY_FREE, "lanes": 64, "simulated": 2})
    assert [(one["lanes"], one["design"]) for one in builds] == [
        (16, fpga.LIF),
        (64, fpga.MEMORY_FREE),
        (64, fpga.LIF),
    ]
    assert builds[1] == {"design": fpga.MEMORY_FREE, "lanes": 64, "simulated": 2, "cells": 64}


def test_what_is_simulated_alone_stands_in_the_proof_alone():
    simulated = {"samples": 2, "numbers": 3_000, "cycles": 70_000, "seconds": 1.2, "cycles_a_step": 9.0}
    results = {"convolutions": {"builds": [{"design": "memory-free", "lanes": 64, "simulated": simulated}]}}
    assert "convolutions" not in fpga.size_table(results) + fpga.speed_table(results)
    row = "".join(fpga.proof_table(results).split())
    assert "|`convolutions`,64|2|3,000|70,000|1|" in row


def test_the_page_shows_the_results():
    page = fpga.PAGE.read_text()
    assert set(RESULTS) <= {*fpga.NETWORKS, *fpga.SIMULATED}
    assert all(table(RESULTS) in page for table in fpga.TABLES.values())


def build_of(name: str, kind: str, lanes: int) -> dict:
    (one,) = [b for b in RESULTS[name]["builds"] if (b["design"], b["lanes"]) == (kind, lanes)]
    return one


def test_the_digits_fit_the_small_chip():
    up5k, *_ = build_of("digits-rows", fpga.MEMORY_FREE, 16)["placed"]
    assert up5k["chip"] == "UP5K" and up5k["mhz"] is not None


@pytest.mark.parametrize(
    ("name", "samples"),
    [("digits-rows", 364), ("spoken-digits", 600), ("fashion-mnist-rows", 1000), ("snntorch-csnn", 200)],
)
def test_all_samples_or_many_were_compared(name, samples):
    assert build_of(name, fpga.MEMORY_FREE, 64)["simulated"]["samples"] == samples
