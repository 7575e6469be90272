"""The evidence: its sweeps are valid, with one budget for all, and earlier results are kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import sweep
from benchmarks.evidence import costs
from benchmarks.evidence.__main__ import HERE, RESULTS, TASKS, collect
from benchmarks.evidence.results import read_runs, write_runs
from mfp_neurons.train import config


def test_every_sweep_is_a_task_of_the_page() -> None:
    sweeps = [path.stem for path in HERE.glob("*.toml") if "base" in config.read_toml(str(path))]
    assert sorted(TASKS) == sorted(sweeps)


@pytest.mark.parametrize("task", TASKS)
def test_no_network_of_a_task_has_a_budget_of_its_own(task: str) -> None:
    plan = sweep.load(str(HERE / f"{task}.toml"))
    assert len(plan.seeds) >= 3
    for entry in plan.entries:
        assert entry.tune.keys() == plan.tune.keys()
        assert all(set(values) <= set(plan.tune[key]) for key, values in entry.tune.items())
        assert not [key for key in entry.settings if key.startswith(("data.", "readout."))]
        assert {key for key in entry.settings if key.startswith("training.")} <= {
            "training.fit_orders_bits",
            "training.late_tap_penalty",
            "training.clip",
        }


def test_results_of_networks_that_are_not_trained_again_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sweep.load(str(HERE / "rows.toml"))
    first, second, third = plan.entries[:3]
    monkeypatch.setattr(costs, "of_run", lambda path: {"spikes": 5.0})

    def result(entry: sweep.Entry, seed: int, accuracy: float, **changes: Any) -> dict[str, Any]:
        best = sweep.choices(entry)[-1]
        settings = plan.settings(entry, plan.common, best, seed) | changes
        trained = config.load(plan.base, settings).as_dict()
        tuned = {"best": best, "tried": []}
        return {
            "name": entry.name, "seed": seed, "label": "old", "test_accuracy": accuracy, "tuned": tuned,
            "config": json.loads(json.dumps(trained)),
        }  # fmt: skip

    for seed in plan.seeds[:2]:
        path = tmp_path / f"{second.name}-seed{seed}.json"
        path.write_text(
            json.dumps(result(second, seed, 90.0, **{"data.root": "elsewhere"}) | {"history": []})
        )
    rows = [(third, 0), (second, 0), (second, 2), (first, 1)]
    kept = [result(*row, 80.0) for row in rows]
    kept += [result(third, 1, 80.0, **{"training.epochs": 1})]  # of another budget
    kept += [result(first, 2, 80.0) | {"name": "gone"}]
    merged = collect(plan, tmp_path, kept)
    assert [(r["name"], r["seed"], r["test_accuracy"]) for r in merged] == [
        (first.name, 1, 80.0),
        (second.name, 0, 90.0),
        (second.name, 1, 90.0),
        (second.name, 2, 80.0),
        (third.name, 0, 80.0),
    ]
    assert [r["label"] for r in merged] == [plan.entries[i].label for i in (0, 1, 1, 1, 2)]
    assert collect(plan, tmp_path, merged) == merged


TABLES = st.recursive(
    st.integers(0, 2) | st.lists(st.integers(0, 1)),
    lambda values: st.dictionaries(st.sampled_from("abc"), values, max_size=3),
    max_leaves=6,
)


@st.composite
def runs_of_networks(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "label": name.upper(),
            "family": "LIF",
            "tuned": {"best": {"a.b": number}},
            "config": {"data": draw(TABLES), "training": {"seed": seed, "epochs": number}},
            "seed": seed,
            "test_accuracy": draw(st.floats(0, 100)),
        }
        for name in draw(st.lists(st.sampled_from("xyz"), unique=True))
        for number in draw(st.lists(st.integers(0, 2), unique=True, min_size=1))
        for seed in draw(st.lists(st.integers(0, 4), unique=True, min_size=1))
    ]


@given(runs_of_networks())
def test_runs_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, runs: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("runs") / "runs.json"
    write_runs(path, runs)
    assert read_runs(path) == runs


def test_what_the_runs_of_a_network_have_in_common_is_said_once(tmp_path: Path) -> None:
    def run(seed: int) -> dict[str, Any]:
        data = {"name": "spoken", "options": {"fold": seed, "noise": 1}}
        settings = {"data": data, "training": {"seed": seed, "epochs": 9}}
        words = {"name": "a", "label": "A", "family": "LIF", "tuned": {"best": {}, "tried": []}}
        return words | {"seed": seed, "config": settings, "test_accuracy": 80.0}

    write_runs(tmp_path / "runs.json", [run(0), run(1)])
    assert json.loads((tmp_path / "runs.json").read_text()) == [
        {
            "name": "a",
            "label": "A",
            "family": "LIF",
            "tuned": {"best": {}, "tried": []},
            "config": {"data": {"name": "spoken", "options": {"noise": 1}}, "training": {"epochs": 9}},
            "runs": [
                {
                    "seed": seed,
                    "settings": {"data.options.fold": seed, "training.seed": seed},
                    "test_accuracy": 80.0,
                }
                for seed in (0, 1)
            ],
        }
    ]


@pytest.mark.parametrize("task", TASKS)
def test_committed_results_are_read_as_runs(task: str, tmp_path: Path) -> None:
    path = RESULTS / f"evidence_{task}.json"
    if not path.exists():
        pytest.skip("not trained yet")
    runs = read_runs(path)
    for run in runs:
        assert config.from_dict(run["config"]).training.seed == run["seed"]
    write_runs(tmp_path / path.name, runs)
    assert read_runs(tmp_path / path.name) == runs
