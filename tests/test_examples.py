"""The programs in examples/ and the Python in README.md and docs/ run as they are printed."""

import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


README = blocks(ROOT / "README.md")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page), start=1)
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files


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


@pytest.mark.parametrize("block", BLOCKS)
def test_a_printed_python_block_runs(block: str) -> None:
    torch.manual_seed(0)
    exec(compile(block, "a block", "exec"), {})


def test_the_readme_goes_from_training_to_c_in_under_15_lines() -> None:
    (block,) = (block for block in README if "to_c" in block)
    assert "backward" in block
    assert len([line for line in block.splitlines() if line]) < 15


def test_the_readme_shows_both_swaps() -> None:
    text = "\n".join(README)
    assert "from mfp_neurons import MFPNode" in text
    assert "from mfp_neurons.snntorch import MFPLeaky" in text


def test_the_readme_names_only_targets_that_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([\w-]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
