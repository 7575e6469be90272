"""From a config to a packed network with a card, and into the package."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.zoo import training
from mfp_neurons import deploy, report
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.engine import BEST, RESULT, Trainer, load_network
from mfp_neurons.zoo import catalog, evaluation, packed
from mfp_neurons.zoo.cards import UnknownNetwork, table
from tests.train.conftest import SMALL

from .conftest import CONFIGS, train_and_pack

HERE = {"training.threads": 1, "training.device": "cpu"}


def honest_config(zoo: Path) -> None:
    """Makes the small settings those of the config itself."""
    path = zoo / "configs" / "tiny.toml"
    text = path.read_text().replace("hidden = [128, 128, 128]", "hidden = [12, 10, 8]")
    path.write_text(text.replace("epochs = 25", "epochs = 1"))


def test_the_packed_network_answers_as_the_best_checkpoint_does(trained: catalog.Trained, zoo: Path) -> None:
    module, data, _, facts = load_network(zoo / "run" / BEST)
    sequence = data.sequence(data.test.samples)
    loaded = catalog.load_files(zoo / "run" / "tiny.safetensors", zoo / "run" / "tiny.json")
    assert loaded.card == trained.card
    with torch.no_grad():
        expected = module(sequence)[-facts["readout_steps"] :].mean(0)
        for made in (trained, loaded):
            assert torch.equal(made.model(sequence), expected)


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
    data = evaluation.load_test(trained, None)
    found = report(trained.model, data.sequence(data.test.samples[: training.COUNTED]))
    assert card.state_bits == found.state_bits
    assert card.energy_joules == found.energy_joules
    assert card.streaming_energy_joules == found.streaming_energy_joules
    scores = trained.network.run(data.sequence(data.test.samples)).argmax(1)
    assert card.accuracy.integer == pytest.approx(100 * (scores == data.test.labels.numpy()).mean())


def test_a_finished_run_on_the_whole_test_set_is_packed_where_its_machine_is_told(zoo: Path) -> None:
    plain = zoo / "plain"
    Trainer(training.config("tiny", SMALL), plain, bars=False).run()
    with pytest.raises(ConfigError, match="--trained-on"):
        training.pack("mine", plain, bars=False)
    made = training.pack("mine", plain, zoo / "out", trained_on="a toaster", bars=False)
    assert (made.card.name, made.card.trained_on, made.card.summary) == ("mine", "a toaster", "")
    assert (zoo / "out" / "mine.safetensors").is_file()
    assert not (plain / "mine.safetensors").exists()
    (plain / RESULT).unlink()
    with pytest.raises(ConfigError, match="no finished run"):
        training.pack("mine", plain, trained_on="a toaster", bars=False)
    with pytest.raises(ConfigError, match="whole test set"):
        train_and_pack(zoo / "part", SMALL | {"data.test_limit": 50})


def test_training_goes_on_where_it_stopped_and_ends_with_the_same_file(
    trained: catalog.Trained, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def stop_in_the_second_epoch(self: Trainer, picked: torch.Tensor) -> float:
        if self.progress.epoch == 1:
            raise KeyboardInterrupt
        return step(self, picked)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stop_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train_and_pack(zoo / "again", SMALL)
    with pytest.raises(ConfigError, match="--resume"):
        train_and_pack(zoo / "again", SMALL)
    again = train_and_pack(zoo / "again", SMALL, resume=True)
    assert again.card.sha256 == trained.card.sha256


def test_shipping_puts_both_files_into_the_package_if_the_config_made_them(
    trained: catalog.Trained, zoo: Path
) -> None:
    with pytest.raises(ConfigError, match="settings other than"):
        training.ship("tiny", zoo / "run")
    assert catalog.names() == []
    honest_config(zoo)
    train_and_pack(zoo / "honest", HERE)
    training.ship("tiny", zoo / "honest")
    assert catalog.names() == ["tiny"]
    assert catalog.load("tiny").card == catalog.card("tiny")


def test_what_is_shipped_names_no_folder_of_the_machine_that_trained_it(zoo: Path) -> None:
    settings = SMALL | {"data.root": str(zoo / "somewhere")}
    card = train_and_pack(zoo / "run", settings).card
    original = training.train("tiny", zoo / "original", settings, original=True, bars=False)
    described = training.describe_original("tiny", zoo / "original", data=original)
    assert card.config["data"]["root"] == described.config["data"]["root"] == "data"
    for file in ("run/tiny.safetensors", "run/tiny.json", "original/tiny-original.json"):
        assert b"somewhere" not in (zoo / file).read_bytes()


def test_costs_are_counted_anew_and_nothing_else_on_the_card_changes(
    trained: catalog.Trained, zoo: Path
) -> None:
    for suffix in (catalog.WEIGHTS, catalog.CARD):
        shutil.copy(zoo / "run" / f"tiny{suffix}", catalog.NETWORKS / f"tiny{suffix}")
    path = catalog.NETWORKS / f"tiny{catalog.CARD}"
    values = json.loads(path.read_text())
    del values["streaming_energy_joules"]  # as on a card of an earlier version
    path.write_text(json.dumps(values | {"energy_joules": 1.0, "seconds": 5.0}))
    assert training.measure("tiny") == replace(trained.card, seconds=5.0)
    assert catalog.card("tiny") == replace(trained.card, seconds=5.0)
    with pytest.raises(UnknownNetwork, match="'none'"):
        training.measure("none")


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


def test_a_quick_check_is_on_the_same_images_as_the_cards(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAMPLE", 50)
    made = train_and_pack(zoo / "run", SMALL)
    assert made.card.accuracy_sample.images == 50
    monkeypatch.setattr(evaluation, "TOLERANCE", 0.0)
    assert "on 50 test images" in evaluation.evaluate(made, 50)


def test_a_network_that_cannot_be_lowered_says_why_on_its_card(zoo: Path) -> None:
    path = zoo / "configs" / "lif.toml"
    shutil.copy(CONFIGS / "digits-lif-2bit.toml", path)
    made = train_and_pack(zoo / "lif", SMALL, "lif")
    assert made.card.accuracy.integer is None
    assert made.card.integer_bytes is None
    assert made.card.refused is not None
    assert "QuantizedMembraneLIF" in made.card.refused
    with pytest.raises(deploy.LoweringError, match="QuantizedMembraneLIF"):
        _ = made.network
    assert "refused" in str(made.card)
    assert "none (not lowered)" in evaluation.evaluate(made)


def test_an_original_is_trained_alike_and_its_numbers_go_onto_the_card(zoo: Path) -> None:
    honest_config(zoo)
    train_and_pack(zoo / "run", HERE)
    data = training.train("tiny", zoo / "original", HERE, original=True, bars=False)
    training.describe_original("tiny", zoo / "original", by="me", data=data)
    with pytest.raises(UnknownNetwork):
        training.ship_original("tiny", zoo / "original")
    training.ship("tiny", zoo / "run")
    assert catalog.card("tiny").original is None
    training.ship_original("tiny", zoo / "original")
    card = catalog.card("tiny")
    original = card.original
    assert original is not None
    result = json.loads((zoo / "original" / RESULT).read_text())
    assert original.accuracy == result["test_accuracy"]
    assert (original.neuron, original.by, original.epochs) == ("LIFNode", "me", 1)
    assert original.state_bits == 32 * (12 + 10 + 8)
    assert original.float32_bytes > 4 * (8 * 12 + 12 * 10 + 10 * 8 + 8 * 10)
    shown = str(card)
    assert all(word in shown for word in ("LIFNode", f"{original.accuracy:.2f} %", "32 a neuron"))
    assert "its original, `LIFNode`" in table([card])
    # a network that is shipped again keeps it, one that was trained longer does not
    training.ship("tiny", zoo / "run")
    assert catalog.card("tiny").original == original
    path = zoo / "configs" / "tiny.toml"
    path.write_text(path.read_text().replace("epochs = 1", "epochs = 2"))
    with pytest.raises(ConfigError, match="settings other than those of the original"):
        training.ship_original("tiny", zoo / "original")
    train_and_pack(zoo / "longer", HERE)
    training.ship("tiny", zoo / "longer")
    assert catalog.card("tiny").original is None


def test_an_original_that_nothing_is_said_of_is_asked_for_in_vain(zoo: Path) -> None:
    (zoo / training.ORIGINALS).write_text("[other]\n")
    with pytest.raises(ConfigError, match="has no original of 'tiny'; it has those of other"):
        training.config("tiny", original=True)
    with pytest.raises(ConfigError, match="no config 'other'; it has tiny"):
        training.config("other", original=True)


@pytest.mark.parametrize("original", [False, True])
def test_learning_rates_are_compared_by_validation_and_no_run_is_made_twice(
    original: bool, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = training.validate("tiny", [1e-2, 1e-6], zoo / "rates", SMALL, original=original, bars=False)
    assert list(accuracies) == [1e-2, 1e-6]
    result = json.loads((zoo / "rates" / "0.01" / RESULT).read_text())
    assert accuracies[1e-2] == result["validation_accuracy"]
    assert result["config"]["network"]["weight_bits"] == (32 if original else 1)

    def refuse(self: Trainer, picked: torch.Tensor) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "step", refuse)
    again = training.validate("tiny", [1e-6, 1e-2], zoo / "rates", SMALL, original=original, bars=False)
    assert again == accuracies
