"""From a config to a packed network with a card, and into the package."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mfp_neurons import deploy, report
from mfp_neurons.train import engine
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.engine import BEST, RESULT, Trainer, load_network
from mfp_neurons.zoo import cards, catalog, measuring, packed, training
from mfp_neurons.zoo.cards import AccuracyMoved, CardError

from .conftest import SMALL


def test_the_packed_network_answers_as_the_best_checkpoint_does(trained: catalog.Trained, zoo: Path) -> None:
    module, data, _, facts = load_network(zoo / "run" / BEST)
    sequence = data.sequence(data.test.samples)
    with torch.no_grad():
        expected = module(sequence)[-facts["readout_steps"] :].mean(0)
        assert torch.equal(trained.model(sequence), expected)


def test_the_card_says_what_was_measured(trained: catalog.Trained, zoo: Path) -> None:
    card = trained.card
    result = json.loads((zoo / "run" / RESULT).read_text())
    assert card.accuracy.torch == pytest.approx(result["test_accuracy"])
    assert card.accuracy.images == card.accuracy_sample.images == 364
    assert (card.training_images, card.epochs, card.seed, card.by) == (150, 2, 0, "somebody")
    assert card.seconds == pytest.approx(result["seconds_per_epoch"] * 2)
    assert "CPU, 1 thread" in card.trained_on
    assert card.versions["torch"] == torch.__version__.split("+")[0]
    weights = zoo / "run" / "tiny.safetensors"
    assert card.file_bytes == weights.stat().st_size
    assert card.refused is None
    trained.network.save(zoo / "integer.safetensors")
    assert card.integer_bytes == (zoo / "integer.safetensors").stat().st_size
    data = measuring.load_test(trained, None)
    found = report(trained.model, data.sequence(data.test.samples[: measuring.COUNTED]))
    assert card.state_bits == found.state_bits
    assert card.energy_joules == found.energy_joules
    scores = trained.network.run(data.sequence(data.test.samples)).argmax(1)
    assert card.accuracy.integer == pytest.approx(100 * (scores == data.test.labels.numpy()).mean())


def test_the_files_load_as_what_was_trained(trained: catalog.Trained, zoo: Path) -> None:
    loaded = catalog.load_files(zoo / "run" / "tiny.safetensors", zoo / "run" / "tiny.json")
    assert loaded.card == trained.card
    x = torch.rand(8, 3, 8)
    with torch.no_grad():
        assert torch.equal(loaded.model(x), trained.model(x))


def test_weights_that_the_card_is_not_about_are_refused(trained: catalog.Trained, zoo: Path) -> None:
    weights = zoo / "run" / "tiny.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CardError, match="sha256"):
        catalog.load_files(weights, zoo / "run" / "tiny.json")


def test_a_finished_run_of_train_is_packed_where_its_machine_is_told(zoo: Path) -> None:
    Trainer(catalog.config("tiny", SMALL), zoo / "plain", bars=False).run()
    with pytest.raises(ConfigError, match="--trained-on"):
        training.pack("mine", zoo / "plain", bars=False)
    made = training.pack("mine", zoo / "plain", zoo / "out", trained_on="a toaster", bars=False)
    assert (made.card.name, made.card.trained_on, made.card.summary) == ("mine", "a toaster", "")
    assert (zoo / "out" / "mine.safetensors").is_file()
    assert not (zoo / "plain" / "mine.safetensors").exists()


def test_a_run_that_is_not_finished_is_not_packed(trained: catalog.Trained, zoo: Path) -> None:
    (zoo / "run" / RESULT).unlink()
    with pytest.raises(ConfigError, match="no finished run"):
        training.pack("tiny", zoo / "run", bars=False)


def test_training_goes_on_where_it_stopped_and_ends_with_the_same_file(
    trained: catalog.Trained, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_epoch, ended = Trainer._end_epoch, []

    def stop(self: Trainer) -> None:
        end_epoch(self)
        ended.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.Trainer, "_end_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        training.train("tiny", zoo / "again", SMALL, bars=False)
    monkeypatch.setattr(engine.Trainer, "_end_epoch", end_epoch)
    with pytest.raises(ConfigError, match="--resume"):
        training.train("tiny", zoo / "again", SMALL, bars=False)
    again = training.train("tiny", zoo / "again", SMALL, resume=True, bars=False)
    assert again.card.sha256 == trained.card.sha256


def test_shipping_puts_both_files_into_the_package_if_the_config_made_them(
    trained: catalog.Trained, zoo: Path
) -> None:
    with pytest.raises(ConfigError, match="settings other than"):
        training.ship("tiny", zoo / "run")
    assert catalog.names() == []
    from_config_alone(zoo)
    training.train("tiny", zoo / "honest", {"training.threads": 1, "training.device": "cpu"}, bars=False)
    training.ship("tiny", zoo / "honest")
    assert catalog.names() == ["tiny"]
    assert catalog.load("tiny").card == catalog.card("tiny")


def from_config_alone(zoo: Path) -> None:
    """Makes the small settings those of the config."""
    path = zoo / "configs" / "tiny.toml"
    text = path.read_text().replace("hidden = [128, 128, 128]", "hidden = [12, 10, 8]")
    path.write_text(text.replace("epochs = 25", "epochs = 1"))


def test_a_packing_that_changed_the_network_is_noticed(
    trained: catalog.Trained, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = packed.load

    def worn(path: Path) -> tuple[torch.nn.Module, object]:
        module, facts = load(path)
        with torch.no_grad():
            next(p for n, p in module.named_parameters() if n.endswith("synapse.weight")).mul_(1.001)
        return module, facts

    monkeypatch.setattr(packed, "load", worn)
    with pytest.raises(RuntimeError, match="packing has changed the network"):
        training.pack("tiny", zoo / "run", bars=False)


def test_evaluating_agrees_with_the_card_and_fails_when_it_does_not(trained: catalog.Trained) -> None:
    assert "the card says" in measuring.evaluate(trained)
    assert "not compared" in measuring.evaluate(trained, 10)
    for kind in ("torch", "integer"):
        said = replace(trained.card.accuracy, **{kind: getattr(trained.card.accuracy, kind) + 1.5})
        moved = replace(trained, card=replace(trained.card, accuracy=said))
        with pytest.raises(AccuracyMoved, match=rf"tiny: accuracy \({kind}\) on 364 test images"):
            measuring.evaluate(moved)
    with pytest.raises(ConfigError, match="images = 0"):
        measuring.evaluate(trained, 0)


def test_a_quick_check_is_on_the_same_images_as_the_cards(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SAMPLE", 50)
    made = training.train("tiny", zoo / "run", SMALL, bars=False)
    assert made.card.accuracy_sample.images == 50
    monkeypatch.setattr(measuring, "TOLERANCE", 0.0)
    assert "on 50 test images" in measuring.evaluate(made, 50)


def test_a_part_of_the_test_set_makes_no_card(zoo: Path) -> None:
    with pytest.raises(ConfigError, match="whole test set"):
        training.train("tiny", zoo / "run", SMALL | {"data.test_limit": 50}, bars=False)


def test_accuracy_is_compared_to_a_point() -> None:
    said = cards.Accuracy(1000, 90.0, None)
    card = replace(CARD, accuracy=said)
    measuring.compare(card, said, replace(said, torch=89.0))
    for found in (replace(said, torch=88.9), replace(said, torch=91.1), replace(said, integer=90.0)):
        with pytest.raises(AccuracyMoved):
            measuring.compare(card, said, found)


CARD = cards.Card(
    name="x",
    summary="",
    sha256="",
    dataset="digits",
    training_images=1,
    accuracy=cards.Accuracy(364, 1.0, 1.0),
    accuracy_sample=cards.Accuracy(364, 1.0, 1.0),
    file_bytes=1,
    integer_bytes=None,
    float32_bytes=1,
    state_bits=1,
    state_bits_per_neuron=1.0,
    synaptic_operations=1.0,
    streaming_synaptic_operations=1.0,
    macs=1.0,
    energy_joules=1e-6,
    refused="because",
    trained_on="x",
    seconds=1.0,
    epochs=1,
    date="2026-01-01",
    by="",
    commit=None,
    versions={},
    config={"training": {"seed": 3}},
)


def test_a_network_that_cannot_be_lowered_says_why_on_its_card(zoo: Path) -> None:
    path = zoo / "configs" / "lif.toml"
    shutil.copy(Path(catalog.__file__).parents[1] / "train" / "configs" / "digits-lif-2bit.toml", path)
    made = training.train("lif", zoo / "lif", SMALL, bars=False)
    assert made.card.accuracy.integer is None
    assert made.card.integer_bytes is None
    assert made.card.refused is not None
    assert "QuantizedMembraneLIF" in made.card.refused
    with pytest.raises(deploy.LoweringError, match="QuantizedMembraneLIF"):
        _ = made.network
    assert "refused" in str(made.card)
    assert "none (not lowered)" in measuring.evaluate(made)
