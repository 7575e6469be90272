"""Orders found on the way: within the budget, in every file that a run writes, and the same after a stop."""

import json
from pathlib import Path

import pytest

from mfp_neurons import late_taps
from mfp_neurons.reporting import report
from mfp_neurons.train.config import Config
from mfp_neurons.train.engine import BEST, RESULT, Trainer, load_network

from .test_resume import fitted


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


def test_the_penalty_moves_weight_to_the_present(tmp_path: Path, small: Config) -> None:
    def ends_with(penalty: float) -> float:
        config = fitted(small, fit_orders_bits=0, late_tap_penalty=penalty)
        trainer = Trainer(config, tmp_path / str(penalty), bars=False)
        trainer.run()
        return late_taps(trainer.network).item()

    assert ends_with(10.0) < ends_with(0.0)
