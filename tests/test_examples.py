"""The programs in examples/ and the Python in README.md run as they are printed."""

import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_runs_and_what_it_trains_beats_chance(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(program), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed
    for accuracy in re.findall(r"([\d.]+) % of the test digits", printed):
        assert float(accuracy) > 60  # chance is 10


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_is_one_short_idea(program: Path) -> None:
    text = program.read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 60
    assert "argparse" not in text


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_of_the_readme_runs_as_printed(number: int) -> None:
    torch.manual_seed(0)
    exec(compile(BLOCKS[number], f"README.md block {number + 1}", "exec"), {})


def test_the_readme_shows_both_swaps() -> None:
    text = "\n".join(BLOCKS)
    assert "from mfp_neurons import MFPNode" in text
    assert "from mfp_neurons.snntorch import MFPLeaky" in text


def test_the_readme_names_only_targets_that_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([\w-]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
