"""Sweeps: the same chance for every network, work shared between processes, nothing done twice."""

import fcntl
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sweep
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.engine import Trainer
from tests.train.conftest import SMALL


@pytest.fixture
def plan(tmp_path: Path) -> sweep.Sweep:
    path = tmp_path / "sweep.toml"
    path.write_text("""
base = "digits-mfp"
seeds = [0, 1]
[tune]
"network.neuron.decay" = [0.5, 0.9]
[tuning_budget]
"data.limit" = 64
"training.epochs" = 1
[[network]]
name = "lif"
family = "LIF"
set = { "network.neuron" = { kind = "lif", potential_bits = 2 } }
[[network]]
name = "free"
label = "memory-free"
set = { "network.neuron" = { kind = "fir", order = [1, 1, 4] } }
tune = { "readout.train" = [1, 8] }
""")
    return sweep.load(str(path))


def test_every_run_writes_its_result_and_a_second_start_does_nothing(
    plan: sweep.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep.run(plan, tmp_path / "out", SMALL, bars=False)
    assert [(r["name"], r["seed"]) for r in first] == [("lif", 0), ("lif", 1), ("free", 0), ("free", 1)]
    assert first[0]["config"]["network"]["neuron"]["kind"] == "lif"
    assert first[2]["state_bits"] == pytest.approx((10 * 0 + 12 * 0 + 8 * 3) / 30)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "run", never)
    assert sweep.run(plan, tmp_path / "out", SMALL, bars=False) == first


def test_tuning_tries_every_choice_and_all_seeds_use_the_best_by_validation(
    plan: sweep.Sweep, tmp_path: Path
) -> None:
    results = sweep.run(plan, tmp_path / "out", SMALL, bars=False)
    for runs in (results[:2], results[2:]):
        tuned = runs[0]["tuned"]
        assert len(tuned["tried"]) == (2 if runs[0]["name"] == "lif" else 4)
        best = max(tuned["tried"], key=lambda t: t["validation_accuracy"])
        assert tuned["best"] == best["choice"]
        for r in runs:
            assert r["tuned"] == tuned
            assert r["config"]["network"]["neuron"]["decay"] == best["choice"]["network.neuron.decay"]


def test_a_run_that_another_process_holds_is_left_to_it(plan: sweep.Sweep, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with open(out / "lif-seed0.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        results = sweep.run(plan, out, SMALL, bars=False)
    assert [(r["name"], r["seed"]) for r in results] == [("lif", 1), ("free", 0), ("free", 1)]
    assert len(sweep.run(plan, out, SMALL, bars=False)) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds = [0]", "give base"),
        ('base = "digits-mfp"\n[[network]]\nlabel = "x"', "give name"),
        (
            'base = "digits-mfp"\n[[network]]\nname = "x"\n[[network]]\nname = "x"',
            "two networks have one name",
        ),
        ('base = "digits-mfp"\nseed = 1\n[[network]]\nname = "x"', "unknown keys"),
        (
            'base = "digits-mfp"\n[[network]]\nname = "x"\nset = { "training.epochs" = 0 }',
            "training.epochs = 0",
        ),
        (
            'base = "digits-mfp"\n[tune]\n"network.neuron.decay" = [0.5, 2.0]\n[[network]]\nname = "x"',
            "network.neuron.decay = 2.0 is not accepted",
        ),
    ],
)
def test_a_mistake_in_a_sweep_shows_before_anything_is_trained(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        sweep.load(str(path))
