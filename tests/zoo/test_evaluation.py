"""``mfp-neurons zoo`` and ``zoo.evaluation``: what they say of shipped networks, and how they say no."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mfp_neurons import zoo
from mfp_neurons.cli import main
from mfp_neurons.train.config import ConfigError
from mfp_neurons.zoo import catalog, evaluation
from mfp_neurons.zoo.cards import Accuracy, AccuracyMoved, CardError, duration

NAME = "digits-rows"  # its data set comes with scikit-learn


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a zoo that has this network alone, to be changed."""
    for suffix in (catalog.WEIGHTS, catalog.CARD):
        shutil.copy(catalog.NETWORKS / f"{NAME}{suffix}", tmp_path)
    monkeypatch.setattr(catalog, "NETWORKS", tmp_path)
    return tmp_path


def test_a_shipped_network_is_listed_shown_and_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "list"]) == 0
    assert f"| `{NAME}`" in capsys.readouterr().out
    assert main(["zoo", "show", NAME]) == 0
    assert capsys.readouterr().out.strip() == str(zoo.card(NAME))
    assert main(["zoo", "evaluate", NAME, "--quiet"]) == 0
    assert "the card says" in capsys.readouterr().out
    for command in ("show", "evaluate"):
        assert main(["zoo", command, "nonsense"]) == 2
        assert f"no network 'nonsense'; it has {NAME}" in capsys.readouterr().err


def test_a_network_that_misses_its_card_is_status_1(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / f"{NAME}.json"
    card = json.loads(path.read_text())
    card["accuracy"]["torch"] -= 2
    path.write_text(json.dumps(card))
    assert main(["zoo", "evaluate", NAME, "--quiet"]) == 1
    assert f"{NAME}: accuracy (torch) on 364 test images" in capsys.readouterr().err


def test_evaluating_agrees_with_the_card() -> None:
    trained = zoo.load(NAME)
    assert "the card says" in evaluation.evaluate(trained)
    assert "not compared" in evaluation.evaluate(trained, 10)
    with pytest.raises(ConfigError, match="images = 0"):
        evaluation.evaluate(trained, 0)


@pytest.mark.parametrize(
    ("torch", "integer", "kind"),
    [(88.9, 90.0, "torch"), (91.1, 90.0, "torch"), (90.0, 88.9, "integer"), (90.0, None, "integer")],
)
def test_accuracy_is_compared_to_a_point(torch: float, integer: float | None, kind: str) -> None:
    said = Accuracy(1000, 90.0, 90.0)
    card = replace(zoo.card(NAME), accuracy=said)
    evaluation.compare(card, said, Accuracy(1000, 89.0, 91.0))
    with pytest.raises(AccuracyMoved, match=rf"{NAME}: accuracy \({kind}\) on 1,000 test images"):
        evaluation.compare(card, said, Accuracy(1000, torch, integer))


def test_a_broken_card_and_weights_of_another_card_are_refused(copied: Path) -> None:
    path = copied / f"{NAME}.json"
    text = path.read_text()
    card = json.loads(text)
    for broken in ("{", json.dumps(card | {"more": 1}), json.dumps({"name": NAME}), "[]"):
        path.write_text(broken)
        with pytest.raises(CardError, match=rf"{NAME}\.json"):
            zoo.card(NAME)
    path.write_text(text)
    weights = copied / f"{NAME}.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CardError, match="sha256"):
        zoo.load(NAME)


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42 s"), (119, "119 s"), (420, "7 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_a_duration_is_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
