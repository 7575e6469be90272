"""What networks of the zoo take on FPGAs, how fast they are there, and whether they compute the same.

    python -m benchmarks.fpga                                   # all; a quarter of an hour on a free machine
    python -m benchmarks.fpga digits-rows --lanes 8             # one, with other parameters
    python -m benchmarks.fpga --show                            # the table from the results alone

Each network is written as Verilog twice, with few and with many lanes, and put behind examples/fpga/top.v,
which sends the scores through one pin. Verilator counts cycles and compares every spike of every layer and
every score with the interpreter's, on the samples of the test split: all of them, or 1,000, with many lanes,
and a few with few. Yosys synthesizes for iCE40 and ECP5, nextpnr-ice40 places and routes for an UP5K and, if
that is too small, for an HX8K. Debian has no nextpnr-ecp5: there is no clock of an ECP5 here.

Results of networks and lanes that are not named stay in the file. Writes the table in docs/howto/fpga.md.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence.page import between
from mfp_neurons import zoo
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.graph import Neurons
from mfp_neurons.deploy.inputs import read
from mfp_neurons.train import tables
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.zoo.evaluation import load_test

from .simulation import simulate
from .tools import CHIPS, Chip, place, synthesize, versions

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "fpga.json"
PAGE = ROOT / "docs" / "howto" / "fpga.md"
TOP = ROOT / "examples" / "fpga" / "top.v"
NETWORKS = ("digits-rows", "spoken-digits", "fashion-mnist-rows")
LANES = {16: 10, 64: 1000}  # and how many samples are simulated with so many, which are slow with few
FEW = 10  # samples with other lanes
LIF_BITS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NAME", help=f"of the zoo ({' '.join(NETWORKS)})")
    parser.add_argument(
        "--lanes", type=int, nargs="+", default=list(LANES), help="bits of inputs a cycle (%(default)s)"
    )
    parser.add_argument("--samples", type=int, help=f"simulated at most (by lanes: {LANES}, else {FEW})")
    parser.add_argument("--data-root", help="folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="measure nothing")
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in () if args.show else args.networks or NETWORKS:
        trained = zoo.load(name)
        data = load_test(trained, args.data_root)
        entry = results.setdefault(name, {"builds": []})
        entry |= facts(trained.network)
        for (design, network), lanes in product(designs(trained.network).items(), args.lanes):
            samples = data.test.samples[: args.samples or LANES.get(lanes, FEW)]
            levels, steps = read(network.graph, data.integer_input(samples))
            built = {"design": design, "lanes": lanes, **build(network, levels, steps, lanes)}
            others = [one for one in entry["builds"] if (one["design"], one["lanes"]) != (design, lanes)]
            entry["builds"] = sorted([*others, built], key=lambda one: (one["design"], one["lanes"]))
            write_json(args.out, results)
    print(table(results))
    if args.out == RESULTS:
        page = between(PAGE.read_text(), "fpga", table(results))
        PAGE.write_text(between(page, "fpga-proof", proof_table(results)))


def facts(network: IntegerNetwork) -> dict[str, Any]:
    """What holds of all builds of a network, ready for JSON."""
    neurons = sum(prod(op.shape) for op in network.graph.body if isinstance(op, Neurons))
    return {
        "steps": network.graph.steps,
        "neurons": neurons,
        "lif_state_bits": LIF_BITS * neurons,
    }


def designs(network: IntegerNetwork) -> dict[str, IntegerNetwork]:
    """What is measured, one beside the other, by name: the network, and the same layers of other neurons.

    No integer network stores a potential, so a LIF with one of few bits is not among them yet.
    """
    return {"memory-free": network}


def build(network: IntegerNetwork, levels: NDArray[np.integer], steps: int, lanes: int) -> dict[str, Any]:
    """One network with one number of lanes.

    Raises:
        RuntimeError: a spike or a score of it is another than the interpreter's.
    """
    with tempfile.TemporaryDirectory() as name:
        simulated = simulate(network, levels, steps, Path(name), lanes=lanes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module, *_ = network.to_verilog(folder, lanes=lanes)
        shutil.copy(TOP, folder)
        text = " ".join(module.read_text().replace("//", "").split())
        widths = port_widths(text)
        cells = {family: synthesize(family, widths, folder) for family in ("ice40", "ecp5")}
        placed = []
        for chip in CHIPS:
            placed.append(place(chip, folder))
            if placed[-1]["mhz"] is not None:
                break
    return {
        "tools": versions(),
        "state_bits": stated(text, r"([\d,]+) bits are kept between steps"),
        "rom_bits": stated(text, r"Read-only memories take ([\d,]+) bits"),
        "simulated": asdict(simulated),
        "cells": cells,
        "placed": placed,
    }


def port_widths(module: str) -> dict[str, int]:
    """The parameters of ``top`` for a generated module, whose ports come before all others."""
    ports = {"INPUT_BITS": "in_data", "SCORE_BITS": "out_data"}
    return {
        parameter: int(re.findall(rf"\[(\d+):0\] *{port}\b", module)[0]) + 1
        for parameter, port in ports.items()
    }


def stated(module: str, pattern: str) -> int:
    """A number that the head of a generated module states."""
    (number,) = re.findall(pattern, module)
    return int(number.replace(",", ""))


# --- the table --------------------------------------------------------------------------------------------


def table(results: Mapping[str, Any]) -> str:
    """A row for each build."""
    head = (
        "network, lanes",
        "iCE40: LUTs / flip-flops / RAM blocks",
        "fits",
        "MHz",
        "cycles a step",
        "steps a second",
        "ECP5: LUTs / flip-flops / RAM blocks",
        "state, bits",
        "as 8-bit potentials",
    )
    rows = [_row(name, network, one) for name, network in results.items() for one in network["builds"]]
    return tables.markdown(head, rows)


def proof_table(results: Mapping[str, Any]) -> str:
    """What was compared in simulation, a row for each build."""
    head = ("network, lanes", "test samples", "spikes and scores, all equal", "cycles", "seconds")
    rows = []
    for name, network in results.items():
        for one in network["builds"]:
            simulated = one["simulated"]
            counts = [f"{simulated[kind]:,}" for kind in ("samples", "numbers", "cycles")]
            rows.append([f"`{name}`, {one['lanes']}", *counts, f"{simulated['seconds']:,.0f}"])
    return tables.markdown(head, rows)


def _row(name: str, network: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    ice40, ecp5, placed = one["cells"]["ice40"], one["cells"]["ecp5"], one["placed"][-1]
    cycles = one["simulated"]["cycles_a_step"]
    fits, clock, speed = lacks(CHIPS[-1], placed), "", ""
    if placed["mhz"] is not None:
        fits, clock = placed["chip"], f"{placed['mhz']:.1f}"
        speed = f"{placed['mhz'] * 1e6 / cycles:,.0f}"
    return [
        f"`{name}`, {one['lanes']}",
        f"{ice40['SB_LUT4']:,} / {flip_flops(ice40):,} / {ice40['SB_RAM40_4K']}",
        fits,
        clock,
        f"{cycles:,.0f}",
        speed,
        f"{ecp5_luts(ecp5):,} / {flip_flops(ecp5):,} / {ecp5['DP16KD']}",
        f"{one['state_bits']:,}",
        f"{network['lif_state_bits']:,}",
    ]


def lacks(chip: Chip, placed: Mapping[str, Any]) -> str:
    """By how much a network does not fit."""
    needs = {"cells": (placed["cells"], chip.cells), "RAM blocks": (placed["rams"], chip.rams)}
    over = [f"{need:,} {kind} for {has:,}" for kind, (need, has) in needs.items() if need > has]
    return f"no: {' and '.join(over)} of {chip.name}"


def flip_flops(cells: Mapping[str, int]) -> int:
    return sum(count for kind, count in cells.items() if kind.startswith(("SB_DFF", "TRELLIS_FF")))


def ecp5_luts(cells: Mapping[str, int]) -> int:
    """LUTs of four inputs; a carry cell has two, a memory of 16 by 4 bits takes the place of four."""
    return cells["LUT4"] + 2 * cells.get("CCU2C", 0) + 4 * cells.get("TRELLIS_DPR16X4", 0)


if __name__ == "__main__":
    main()
