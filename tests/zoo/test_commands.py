"""``mfp-neurons zoo``: what it prints and writes, and how it says no."""

import json
from pathlib import Path

import pytest

from mfp_neurons import zoo as front
from mfp_neurons.cli import main
from mfp_neurons.zoo import catalog, page
from mfp_neurons.zoo.cards import CardError, duration

from .conftest import SMALL

SETS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
DOCS = Path(__file__).parents[2] / "docs" / "zoo.md"


def test_train_writes_a_network_and_its_card(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = zoo / "run"
    assert main(["zoo", "train", "tiny", "--quiet", "--out", str(run), "--by", "me", *SETS]) == 0
    said = capsys.readouterr().out
    assert "seed 0, on" in said
    assert ", by me" in said
    assert json.loads((run / "tiny.json").read_text())["sha256"] == catalog.sha256(run / "tiny.safetensors")
    assert main(["zoo", "pack", "other", str(run), "--quiet", "--out", str(zoo / "out")]) == 0
    assert (zoo / "out" / "other.safetensors").read_bytes() == (run / "tiny.safetensors").read_bytes()


def test_a_shipped_network_is_listed_shown_and_evaluated(
    trained: catalog.Trained, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ship(zoo)
    capsys.readouterr()
    assert main(["zoo", "list"]) == 0
    assert "| `tiny`" in capsys.readouterr().out
    assert main(["zoo", "show", "tiny"]) == 0
    assert capsys.readouterr().out.strip() == str(trained.card)
    assert main(["zoo", "evaluate", "tiny", "--quiet"]) == 0
    assert "the card says" in capsys.readouterr().out


def test_ship_puts_into_the_package_what_its_config_makes(
    trained: catalog.Trained, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "ship", "tiny", str(zoo / "run")]) == 2
    assert "settings other than those" in capsys.readouterr().err
    assert not list((zoo / "networks").iterdir())


def test_a_network_that_misses_its_card_is_status_1(
    trained: catalog.Trained, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ship(zoo)
    card = json.loads((zoo / "networks" / "tiny.json").read_text())
    card["accuracy"]["torch"] -= 2
    (zoo / "networks" / "tiny.json").write_text(json.dumps(card))
    assert main(["zoo", "evaluate", "tiny", "--quiet"]) == 1
    assert "tiny: accuracy (torch) on 364 test images" in capsys.readouterr().err


def ship(zoo: Path) -> None:
    for suffix in (catalog.WEIGHTS, catalog.CARD):
        (zoo / "networks" / f"tiny{suffix}").write_bytes((zoo / "run" / f"tiny{suffix}").read_bytes())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nonsense"], "no network 'nonsense'; it has none yet"),
        (["evaluate", "nonsense"], "no network 'nonsense'"),
        (["train", "nonsense"], "no config 'nonsense'; it has tiny"),
        (["train", "tiny", "--set", "training.epochs=0"], "training.epochs = 0 is not accepted"),
        (["train", "tiny", "--device", "toaster"], "training.device = 'toaster' is not usable here"),
        (["ship", "tiny", "gone"], "No such file"),
        (["pack", "tiny", "gone", "--trained-on", "x"], "no such file"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_status_2(
    arguments: list[str], words: str, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_the_table_in_the_docs_is_that_of_the_cards() -> None:
    text = DOCS.read_text()
    assert page.insert(text, map(front.card, front.list())) == text, (
        "renew it: mfp-neurons zoo list --into docs/zoo.md"
    )


def test_the_table_goes_between_two_marks_and_nowhere_else(
    trained: catalog.Trained, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ship(zoo)
    path = zoo / "page.md"
    path.write_text(f"before\n{page.MARK}\nold\n{page.MARK}\nafter\n")
    assert main(["zoo", "list", "--into", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == ("before", page.MARK, page.MARK, "after")
    assert "`tiny`" in path.read_text()
    assert "old" not in path.read_text()
    for text in ("none", f"one {page.MARK}"):
        with pytest.raises(CardError, match="the table goes between two"):
            page.insert(text, [])


def test_a_broken_card_is_refused(trained: catalog.Trained, zoo: Path) -> None:
    ship(zoo)
    path = zoo / "networks" / "tiny.json"
    card = json.loads(path.read_text())
    for text in ("{", json.dumps(card | {"more": 1}), json.dumps({"name": "tiny"}), "[]"):
        path.write_text(text)
        with pytest.raises(CardError, match=r"tiny\.json"):
            catalog.card("tiny")


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42 s"), (119, "119 s"), (420, "7 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_a_duration_is_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
