"""Yosys and nextpnr: what a module takes on a chip, and how fast its clock may be."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLOCK = 48  # MHz that nextpnr aims at


@dataclass(frozen=True)
class Chip:
    """An FPGA that nextpnr-ice40 knows.

    Attributes:
        name: for readers.
        option: of nextpnr.
        package: the largest that the tools know.
        cells: of logic: a LUT of four inputs and a flip-flop each.
        rams: blocks of 4,096 bits.
    """

    name: str
    option: str
    package: str
    cells: int
    rams: int


CHIPS = (Chip("UP5K", "--up5k", "sg48", 5280, 30), Chip("HX8K", "--hx8k", "ct256", 7680, 32))


def call(command: Sequence[str], folder: Path, *, allow_failure: bool = False) -> str:
    """What a program prints.

    Raises:
        RuntimeError: it fails; the message ends with its complaints.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not allow_failure:
        raise RuntimeError(
            f"{' '.join(command)}: exit {done.returncode}\n{(done.stderr or done.stdout)[-4000:]}"
        )
    return done.stdout + (done.stderr if allow_failure else "")


def versions() -> dict[str, str]:
    """The first line that each tool says of itself."""
    told = {"verilator": "--version", "yosys": "-V", "nextpnr-ice40": "--version"}
    found = {}
    for program, option in told.items():
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not installed; Debian has it under that name")
        done = subprocess.run([program, option], capture_output=True, text=True, check=True)
        found[program] = (done.stdout or done.stderr).splitlines()[0]
    return found


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
    """Places and routes ice40.json: what it takes, and its highest clock in MHz, None if it is too large."""
    command = ["nextpnr-ice40", chip.option, "--package", chip.package, "--json", "ice40.json", "--seed", "1"]
    command += ["--freq", str(CLOCK), "--timing-allow-fail", "--asc", f"{chip.name}.asc"]
    said = call(command, folder, allow_failure=True)
    used = {kind: int(count) for kind, count in re.findall(r"(\w+): +(\d+)/ *\d+ +\d+%", said)}
    # the last one is that after routing
    clocks = re.findall(r"Max frequency for clock .*?: ([\d.]+) MHz", said)
    fits = (folder / f"{chip.name}.asc").exists()
    if not fits and used["ICESTORM_LC"] <= chip.cells and used["ICESTORM_RAM"] <= chip.rams:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said[-2000:]}")
    return {
        "chip": chip.name,
        "cells": used["ICESTORM_LC"],
        "rams": used["ICESTORM_RAM"],
        "mhz": float(clocks[-1]) if fits else None,
    }
