"""Sweeps: the same chance for every network, work shared between processes, nothing done twice."""

import fcntl
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sweep
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.engine import Trainer
from tests.train.conftest import SMALL

BASE, NETWORK = 'base = "digits-mfp"\n', '[[network]]\nname = "x"\n'


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


def test_all_seeds_use_the_best_choice_by_validation_and_a_second_start_does_nothing(
    plan: sweep.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = sweep.run(plan, tmp_path / "out", SMALL, bars=False)
    assert [(r["name"], r["seed"]) for r in results] == [("lif", 0), ("lif", 1), ("free", 0), ("free", 1)]
    assert results[0]["config"]["network"]["neuron"]["kind"] == "lif"
    assert results[2]["state_bits"] == pytest.approx((10 * 0 + 12 * 0 + 8 * 3) / 30)
    for runs in (results[:2], results[2:]):
        tuned = runs[0]["tuned"]
        assert len(tuned["tried"]) == (2 if runs[0]["name"] == "lif" else 4)
        best = max(tuned["tried"], key=lambda t: t["validation_accuracy"])
        assert tuned["best"] == best["choice"]
        for r in runs:
            assert r["tuned"] == tuned
            assert r["config"]["network"]["neuron"]["decay"] == best["choice"]["network.neuron.decay"]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "run", never)
    assert sweep.run(plan, tmp_path / "out", SMALL, bars=False) == results


def test_the_best_of_a_row_of_rates_has_another_on_either_side(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text("""
base = "digits-mfp"
seeds = [3, 4]
extend = ["training.learning_rate"]
[with_seed]
"data.limit" = [400, 300]
[tune]
"training.learning_rate" = [1e-6, 1e-5]
[[network]]
name = "free"
set = { "network.neuron" = { kind = "fir", order = [1, 1, 4] }, "training.epochs" = 1 }
""")
    out = tmp_path / "out"
    own = {key: value for key, value in SMALL.items() if key not in ("data.limit", "training.epochs")}
    first, second = sweep.run(sweep.load(str(path)), out, own, bars=False)
    tried = {t["choice"]["training.learning_rate"]: t["validation_accuracy"] for t in first["tuned"]["tried"]}
    rates, best = sorted(tried), first["tuned"]["best"]["training.learning_rate"]
    assert len(rates) > 2
    assert rates[0] < best < rates[-1]
    assert tried[best] == max(tried.values()) == first["validation_accuracy"]
    assert [r["training_samples"] for r in (first, second)] == [400, 300]
    assert [r["config"]["training"]["learning_rate"] for r in (first, second)] == [best, best]
    # the tuning run of the best is the run of the first seed: one folder for each other rate, and two runs
    folders = [path.name for path in out.iterdir() if path.is_dir()]
    assert len(folders) == len(rates) - 1 + 2


def test_a_row_of_rates_goes_on_without_rounding_errors() -> None:
    tried = [{"rate": 0.002}, {"rate": 0.006}, {"rate": 0.018}]
    (up,) = sweep.beyond(tried, tried[2], ["rate"])
    assert up == {"rate": 0.054}  # 0.018 * 0.018 / 0.006 is 0.05399999999999999
    (further,) = sweep.beyond([*tried, up], up, ["rate"])
    assert further == {"rate": 0.162}


def test_a_stop_behind_tuning_costs_no_more_than_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(f'{BASE}[tune]\n"network.neuron.decay" = [0.5, 0.9]\n{NETWORK}')

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            sweep.run(sweep.load(str(path)), out, SMALL, bars=False)
    (result,) = sweep.run(sweep.load(str(path)), out, SMALL, bars=False)
    tried = {t["choice"]["network.neuron.decay"]: t["validation_accuracy"] for t in result["tuned"]["tried"]}
    assert result["validation_accuracy"] == max(tried.values())


def test_networks_may_be_those_of_another_file(plan: sweep.Sweep, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(f'{BASE}networks = "sweep.toml"\n[tune]\n"training.clip" = [0.0, 1.0]\n{NETWORK}')
    names = {entry.name: set(entry.tune) for entry in sweep.load(str(path)).entries}
    own = {"training.clip"}  # what is tuned is said by the file that is loaded, and by each network
    assert names == {"lif": own, "free": {*own, "readout.train"}, "x": own}


def test_some_networks_of_another_file_take_part(plan: sweep.Sweep, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(f'{BASE}networks = "sweep.toml"\nonly = ["free", "x"]\n{NETWORK}')
    assert [entry.name for entry in sweep.load(str(path)).entries] == ["free", "x"]
    path.write_text(f'{BASE}networks = "sweep.toml"\nonly = ["fre"]\n{NETWORK}')
    with pytest.raises(ConfigError, match="'fre' is not in the sweep: give one of lif, free, x"):
        sweep.load(str(path))


def test_some_networks_of_a_sweep_by_name(plan: sweep.Sweep, tmp_path: Path) -> None:
    results = sweep.run(sweep.only(plan, ["free"]), tmp_path / "out", SMALL, bars=False)
    assert [(r["name"], r["seed"]) for r in results] == [("free", 0), ("free", 1)]
    assert sweep.only(plan, []) == plan
    with pytest.raises(ConfigError, match="'fre' is not in the sweep: give one of lif, free"):
        sweep.only(plan, ["fre"])


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
        (f'{BASE}[[network]]\nlabel = "x"', "give name"),
        (f"{BASE}{NETWORK}{NETWORK}", "two networks have one name"),
        (f"{BASE}seed = 1\n{NETWORK}", "unknown keys"),
        (f'{BASE}{NETWORK}set = {{ "training.epochs" = 0 }}', "training.epochs = 0"),
        (f'{BASE}[tune]\n"network.neuron.decay" = [0.5, 2.0]\n{NETWORK}', "decay = 2.0 is not accepted"),
        (f'{BASE}[with_seed]\n"data.limit" = [1, 2]\n{NETWORK}', "a value for each of the 1 seeds"),
        (f'{BASE}extend = ["training.clip"]\n{NETWORK}', "needs two values or more"),
    ],
)
def test_a_mistake_in_a_sweep_shows_before_anything_is_trained(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        sweep.load(str(path))
