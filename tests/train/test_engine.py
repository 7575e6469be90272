"""Training: it learns, it is reproducible, and every option does what it says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons.quantize import is_quantized
from mfp_neurons.train import checkpoint, engine
from mfp_neurons.train.config import Config, ConfigError, load
from mfp_neurons.train.engine import BEST, LAST, RESULT, Trainer

from .conftest import SMALL


def test_a_memory_free_network_learns_digits(tmp_path: Path) -> None:
    config = load("digits-mfp", {"network.hidden": [64] * 3, "training.epochs": 8, "training.threads": 1})
    result = Trainer(config, tmp_path, bars=False).run()
    assert result["test_accuracy"] > 75
    losses = [entry["loss"] for entry in result["history"]]
    assert losses[-1] < 0.5 * losses[0]
    assert result["state_bits"] == pytest.approx(14 / 3)


def test_two_runs_of_one_config_are_equal_and_another_seed_is_not(
    tmp_path: Path, small: Config, trained: Path
) -> None:
    torch.rand(5)
    Trainer(small, tmp_path / "again", bars=False).run()
    Trainer(load("digits-mfp", {**SMALL, "training.seed": 1}), tmp_path / "other", bars=False).run()
    first, again, other = (
        (run / BEST).read_bytes() for run in (trained, tmp_path / "again", tmp_path / "other")
    )
    assert first == again != other


def test_the_best_checkpoint_is_that_of_the_best_epoch_by_validation(
    tmp_path: Path, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([{1: 50.0, 4: 40.0}, {1: 30.0, 4: 45.0}])
    trainer = Trainer(small, tmp_path, bars=False)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "accuracies", lambda self, split: next(found, {1: 7.0, 4: 8.0}))
        result = trainer.run()
    _, facts = checkpoint.read(tmp_path / BEST)
    assert (facts["epoch"], facts["readout_steps"], facts["validation_accuracy"]) == (0, 1, 50.0)
    assert (result["test_accuracy"], result["best_epoch"]) == (
        7.0,
        0,
    )  # at validation's read-out, not test's best


def test_a_loaded_checkpoint_has_the_accuracy_that_was_reported(trained: Path) -> None:
    module, data, config, facts = engine.load_network(trained / BEST)
    accuracies = engine.accuracies(module, module, data, data.test, config)
    assert accuracies[facts["readout_steps"]] == json.loads((trained / RESULT).read_text())["test_accuracy"]
    with pytest.raises(
        checkpoint.CheckpointError, match=r"training state; give the best\.safetensors beside it"
    ):
        engine.load_network(trained / LAST)


def test_accuracy_of_each_read_out_is_that_of_the_mean_over_its_last_steps(
    tmp_path: Path, small: Config
) -> None:
    trainer = Trainer(small, tmp_path, bars=False)
    split = trainer.data.test
    trainer.network.eval()
    with torch.no_grad():
        scores = trainer.network(trainer.data.sequence(split.samples)).double()
    for steps, found in trainer.accuracies(split).items():
        right = (sum(scores[-1 - i] for i in range(steps)).argmax(1) == split.labels).double().mean()
        assert found == pytest.approx(100 * right.item(), abs=0.6)  # float32 against float64: near ties


def test_the_read_out_with_the_fewest_steps_wins_a_tie() -> None:
    assert engine.best_readout({1: 80.0, 4: 90.0, 8: 90.0}) == (4, 90.0)


@given(st.floats(0, 1), st.floats(0, 0.5))
def test_the_schedule_stays_between_zero_and_one_and_ends_at_zero(done: float, warmup: float) -> None:
    assert 0 <= engine.schedule(done, warmup) <= 1
    assert engine.schedule(1.0, warmup) == pytest.approx(0, abs=1e-12)
    assert engine.schedule(warmup, warmup) == pytest.approx(1)


def test_an_epoch_sees_every_sample_once_at_the_rates_of_the_schedule(tmp_path: Path) -> None:
    settings = {"training.weight_decay": 0.5, "training.clip": 1e-3}
    trainer = Trainer(load("digits-mfp", SMALL | settings), tmp_path, bars=False)
    training, rates, order = trainer.config.training, [], trainer.order()
    assert torch.equal(torch.cat(order).sort().values, torch.arange(150))
    for picked in order:
        trainer.step(picked)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.progress.batch += 1
        gradients = [p.grad.norm() for p in trainer.network.parameters() if p.grad is not None]
        assert torch.stack(gradients).norm() <= 1.01e-3  # clipped
    total = 2 * trainer.batches
    expected = [engine.schedule(i / total, training.warmup) for i in range(trainer.batches)]
    assert rates == [training.learning_rate * share for share in expected]
    trainer.progress.epoch = 1
    again = torch.cat(trainer.order())
    assert torch.equal(again.sort().values, torch.arange(150))
    assert not torch.equal(torch.cat(order), again)
    decayed, spared = (group["params"] for group in trainer.optimizer.param_groups)
    assert {p.shape for p in decayed} == {(12, 8), (10, 12), (8, 10), (10, 8)}
    assert len(decayed) + len(spared) == len(list(trainer.network.parameters()))


def test_weights_are_floats_in_the_first_epochs_which_are_never_the_best(tmp_path: Path) -> None:
    settings = {**SMALL, "training.epochs": 4, "training.float_epochs": 2}
    trainer = Trainer(load("digits-mfp", settings), tmp_path, bars=False)
    used = []

    def record(module: nn.Module, args: object, out: Tensor) -> None:
        layer = trainer.network.blocks()[1].synapse
        floats = torch.nn.functional.linear(args[0], layer.weight)
        used.append((trainer.progress.epoch, module.training, torch.equal(out, floats)))

    trainer.network.blocks()[1].synapse.register_forward_hook(record)
    result = trainer.run()
    for epoch, training, is_float in used:
        # an epoch's validation comes before the next one begins; testing comes last
        assert is_float == (epoch < 2), (epoch, training)
    assert result["best_epoch"] >= 2
    late = [entry["validation_accuracy"] for entry in result["history"][2:]]
    assert result["validation_accuracy"] == max(late)
    best, *_ = engine.load_network(tmp_path / BEST)
    assert [m.weight_bits for m in best.modules() if is_quantized(m)] == [8, 1, 1, 8]


def test_the_first_epochs_show_an_image_at_one_step_and_validation_at_all(tmp_path: Path) -> None:
    settings = {"data.reading": "repeat", "data.time_steps": 3, "training.short_epochs": 1}
    trainer = Trainer(load("digits-mfp", {**SMALL, **settings}), tmp_path, bars=False)
    steps = []
    hook = lambda module, args, out: steps.append((trainer.progress.epoch, module.training, len(out)))  # noqa: E731
    trainer.network.register_forward_hook(hook)
    trainer.run()
    seen = set(steps)
    assert {(0, True, 1), (0, False, 3), (1, True, 3), (1, False, 3)} <= seen
    assert not {(0, True, 3), (1, True, 1)} & seen


def test_a_sequence_cannot_be_made_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.short_epochs = 1.*data.reading is 'rows'; give 0"):
        Trainer(load("digits-mfp", {**SMALL, "training.short_epochs": 1}), tmp_path, bars=False)


def test_compiling_is_asked_for_with_the_mode_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    monkeypatch.setattr(torch, "compile", lambda module, mode: modes.append(mode) or module)
    for mode in ("off", "reduce-overhead"):
        Trainer(load("digits-mfp", {**SMALL, "training.compile": mode}), tmp_path, bars=False)
    assert modes == ["reduce-overhead"]


def test_squared_distance_is_that_from_one_hot_labels() -> None:
    scores = torch.tensor([[0.5, 0.0, 1.0], [0.0, 1.0, 0.0]])
    expected = ((0.5 - 1) ** 2 + 0 + 1) / 6
    assert engine.squared_distance(scores, torch.tensor([0, 1])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"training.amp": "bfloat16"},
        {"training.clip": 0.1},
        {
            "data.reading": "repeat",
            "network.channels": [3],
            "network.hidden": [6],
            "network.neuron.order": [1, 4],
        },
        {
            "data.reading": "repeat",
            "network.neuron.order": 2,
            "network.hidden": [16],
            "training.seed": 3,
            "training.shift": 2,
            "training.flip": True,
        },
        {"network.neuron": {"kind": "lif", "potential_bits": 2}},
        {"network.neuron.feedback": [0, 3, 1], "network.neuron.detach_reset": False},
        {"network.weight_bits": 1.58},
        {"readout.train": 0},
        {"training.loss": "mse"},
        {"training.float_epochs": 1, "training.epochs": 3},
        {
            "training.short_epochs": 1,
            "data.reading": "repeat",
            "network.neuron.order": 3,
            "network.hidden": [8],
        },
    ],
    ids=[
        "amp",
        "clip",
        "convolution",
        "moved images",
        "lif",
        "feedback",
        "ternary",
        "all steps",
        "squared distance",
        "float weights first",
        "one step first",
    ],
)
def test_every_option_trains_and_is_repeatable(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = load("digits-mfp", {**SMALL, **settings})
    runs = [Trainer(config, tmp_path / name, bars=False).run() for name in "ab"]
    losses = [epoch["loss"] for epoch in runs[0]["history"]]
    assert losses[1] < losses[0]
    assert runs[0]["history"] == runs[1]["history"]
    assert (tmp_path / "a" / RESULT).exists()
