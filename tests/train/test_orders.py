"""Orders found on the way: within the budget, in every file that a run writes, and the same after a stop."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mfp_neurons.reporting import report
from mfp_neurons.train import checkpoint
from mfp_neurons.train.config import Config, ConfigError, from_dict
from mfp_neurons.train.engine import BEST, LAST, RESULT, Trainer, load_network

from .test_resume import Killed, ends_alike


def fitted(config: Config, **training: Any) -> Config:
    settings = config.as_dict()
    settings["training"].update({"epochs": 3, "fit_orders_bits": 1.5, "checkpoint_steps": 2, **training})
    settings["network"]["neuron"].update(kind="fir", order=0, kernel_bits="pow2")
    return from_dict(settings)


@pytest.mark.parametrize("by", ["taps", "loss"])
def test_a_run_ends_within_its_budget_and_says_which_orders_it_found(
    tmp_path: Path, small: Config, by: str
) -> None:
    trainer = Trainer(fitted(small, fit_orders_by=by, late_tap_penalty=1e-2), tmp_path, bars=False)
    result = trainer.run()
    assert result["state_bits"] <= 1.5
    assert list(result["orders"]) == [f"hidden.{i}.neuron" for i in range(3)]
    assert json.loads((tmp_path / RESULT).read_text())["orders"] == result["orders"]
    module, data, _, facts = load_network(tmp_path / BEST, data=trainer.data)
    assert facts["orders"] == result["orders"]
    assert {f"hidden.{i}.neuron": b.neuron.kernel.order for i, b in enumerate(module.blocks())} == facts[
        "orders"
    ]
    sample = data.sequence(data.test.samples[:1])
    assert report(module, sample).state_bits_per_neuron == result["state_bits"]


def test_the_best_network_is_one_of_the_epochs_after_the_orders_were_found(
    tmp_path: Path, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = iter([90.0, 50.0, 40.0])
    real = Trainer.accuracies
    monkeypatch.setattr(
        Trainer,
        "accuracies",
        lambda self, split: {1: next(falling)} if split is self.data.validation else real(self, split),
    )
    assert Trainer(fitted(small), tmp_path, bars=False).run()["best_epoch"] == 1


@pytest.mark.parametrize("moment", range(4, 26, 4))
def test_a_stop_at_any_moment_changes_neither_orders_nor_anything_else(
    tmp_path: Path, small: Config, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    config = fitted(small, fit_orders_by="loss")
    Trainer(config, tmp_path / "whole", bars=False).run()
    left, replace, step = moment, os.replace, Trainer.step

    def tick() -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    def ticking_replace(source: Any, target: Any) -> None:
        tick()
        replace(source, target)

    def ticking_step(self: Trainer, picked: torch.Tensor) -> float:
        tick()
        return step(self, picked)

    monkeypatch.setattr(os, "replace", ticking_replace)
    monkeypatch.setattr(Trainer, "step", ticking_step)
    with pytest.raises(Killed):
        Trainer(config, tmp_path / "stopped", bars=False).run()
    monkeypatch.undo()
    torch.manual_seed(1234)
    Trainer(config, tmp_path / "stopped", bars=False).run(resume=True)
    ends_alike(tmp_path / "whole", tmp_path / "stopped")
    _, facts = checkpoint.read(tmp_path / "stopped" / LAST)
    assert facts["progress"]["orders"]


def test_the_penalty_moves_weight_to_the_present(tmp_path: Path, small: Config) -> None:
    from mfp_neurons import late_taps

    def ends_with(penalty: float) -> float:
        config = fitted(small, fit_orders_bits=0, late_tap_penalty=penalty)
        trainer = Trainer(config, tmp_path / str(penalty), bars=False)
        trainer.run()
        return late_taps(trainer.network).item()

    assert ends_with(10.0) < ends_with(0.0)


def test_orders_without_a_neuron_to_fit_or_an_epoch_to_train_are_refused(
    tmp_path: Path, small: Config
) -> None:
    with pytest.raises(ConfigError, match=r"fit_orders_epoch = 3 leaves none of the 3 epochs"):
        fitted(small, fit_orders_epoch=3)
    settings = fitted(small).as_dict()
    settings["network"]["neuron"].update(kind="lif", kernel_bits=0)
    with pytest.raises(ConfigError, match=r"training.fit_orders_bits.*no memory-free neuron"):
        Trainer(from_dict(settings), tmp_path, bars=False)
