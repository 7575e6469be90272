"""``python -m benchmarks.zoo``: what it prints and writes, and how it says no."""

import json
from pathlib import Path

import pytest

from benchmarks.zoo.__main__ import MARK, insert, main
from mfp_neurons import zoo as front
from mfp_neurons.zoo import catalog
from mfp_neurons.zoo.cards import CardError
from tests.train.conftest import SMALL

SETS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
DOCS = Path(__file__).parents[3] / "docs" / "zoo.md"


def test_train_writes_a_network_and_its_card(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = zoo / "run"
    assert main(["train", "tiny", "--quiet", "--out", str(run), "--by", "me", *SETS]) == 0
    said = capsys.readouterr().out
    assert "seed 0, on" in said
    assert ", by me" in said
    assert json.loads((run / "tiny.json").read_text())["sha256"] == catalog.sha256(run / "tiny.safetensors")
    assert main(["pack", "other", str(run), "--quiet", "--out", str(zoo / "out")]) == 0
    assert (zoo / "out" / "other.safetensors").read_bytes() == (run / "tiny.safetensors").read_bytes()
    assert main(["ship", "tiny", str(run)]) == 2
    assert "settings other than those" in capsys.readouterr().err
    assert not list((zoo / "networks").iterdir())


def test_originals_and_learning_rates_are_trained_by_command(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = zoo / "original"
    assert main(["train", "tiny", "--original", "--quiet", "--out", str(run), *SETS]) == 0
    said = capsys.readouterr().out
    assert "LIFNode and float weights" in said
    assert f"written: {run / 'tiny-original.json'}" in said
    rates = ["--rates", "0.01", "0.001"]
    assert main(["validate", "tiny", "--quiet", "--out", str(zoo / "out"), *rates, *SETS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0.01", "0.001"]
    assert all(line.endswith("%") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nonsense"], "no config 'nonsense'; it has tiny"),
        (["train", "tiny", "--set", "training.epochs=0"], "training.epochs = 0 is not accepted"),
        (["train", "tiny", "--device", "toaster"], "training.device = 'toaster' is not usable here"),
        (["ship", "tiny", "gone"], "No such file"),
        (["pack", "tiny", "gone", "--trained-on", "x"], "no such file"),
        (["ship", "tiny", "gone", "--original"], "no network 'tiny'"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_status_2(
    arguments: list[str], words: str, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_the_table_in_the_docs_is_that_of_the_cards() -> None:
    text = DOCS.read_text()
    assert insert(text, map(front.card, front.list())) == text, "python -m benchmarks.zoo table docs/zoo.md"


def test_the_table_goes_between_two_marks_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{MARK}\nold\n{MARK}\nafter\n")
    assert main(["table", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == ("before", MARK, MARK, "after")
    assert "`digits-rows`" in path.read_text()
    assert "old" not in path.read_text()
    for text in ("none", f"one {MARK}"):
        with pytest.raises(CardError, match="the table goes between two"):
            insert(text, [])
