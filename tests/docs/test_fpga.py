"""The how-to for FPGAs does what it says: its commands run, one after the other, and print what is shown."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mfp_neurons import zoo
from tests.deploy.toolchain import run, tool

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "fpga.md").read_text()


def follow(page: str, folder: Path) -> int:
    """Runs the Python and the commands of a page in a folder; returns how many commands there were."""
    shutil.copytree(ROOT / "examples" / "fpga", folder / "examples" / "fpga")
    names: dict[str, Any] = {"__name__": "page"}
    here, count = folder, 0
    for language, text in re.findall(r"^```(python|console)\n(.*?)^```", page, re.M | re.S):
        if language == "python":
            exec(text, names)
            continue
        for command, shown in re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", text, re.M):
            if command.startswith("mfp-neurons"):  # of a checkpoint that is not there
                continue
            if command.startswith("cd "):
                here = here / command.removeprefix("cd ")
            else:
                printed = run(["bash", "-o", "pipefail", "-c", command], here).decode()
                assert not shown or printed == shown, command
            count += 1
    return count


def test_the_simulation_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool("iverilog")
    monkeypatch.chdir(tmp_path)
    until, rest = PAGE.split("\n## Make a bitstream\n")
    assert follow(until, tmp_path) == until.count("\n$ ") - 1
    shown = capsys.readouterr().out.splitlines()
    # the integer network prints the same numbers as the Verilog
    assert until.count(shown[-1]) == 2 and "\n$ " in rest


def test_the_linter_has_nothing_to_say_of_what_stands_around_a_network(tmp_path: Path) -> None:
    zoo.load("digits-rows").network.to_verilog(tmp_path)
    shutil.copy(ROOT / "examples" / "fpga" / "top.v", tmp_path)
    parts = ["-v", "mfp_primitives.v", "-v", "mfp_streams.v"]
    lint = [tool("verilator"), "--lint-only", "-Wall", "--top-module", "top"]
    run([*lint, "top.v", "mfp_net.v", *parts], tmp_path)


@pytest.mark.slow
def test_the_commands_end_in_a_bitstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("iverilog", "yosys", "nextpnr-ice40", "icepack"):
        tool(name)
    monkeypatch.chdir(tmp_path)
    until, _ = PAGE.split("\n## What it takes\n")
    follow(until, tmp_path)
    # the size of an UP5K's configuration, whatever it holds
    assert (tmp_path / "fpga" / "top.bin").stat().st_size == 104_090
