"""The evidence: its sweeps are valid, one budget for all, and its page shows what the results say."""

import json
from pathlib import Path

import pytest

from benchmarks import sweep
from benchmarks.evidence import costs, page
from benchmarks.evidence.__main__ import HERE, RESULTS, TASKS, collect

SWEEPS = [task for task in TASKS if (HERE / f"{task}.toml").exists()]
SHOWN = sorted(path for path in RESULTS.glob("evidence_*.json") if not path.stem.endswith("_time"))


def test_every_task_has_a_sweep() -> None:
    assert list(TASKS) == SWEEPS


@pytest.mark.parametrize("task", SWEEPS)
def test_no_network_of_a_task_has_a_budget_of_its_own(task: str) -> None:
    plan = sweep.load(str(HERE / f"{task}.toml"))
    assert len(plan.seeds) == 3
    for entry in plan.entries:
        assert entry.tune.keys() == plan.tune.keys()
        assert all(set(values) <= set(plan.tune[key]) for key, values in entry.tune.items())
        assert not [key for key in entry.settings if key.startswith(("data.", "readout."))]
        assert {key for key in entry.settings if key.startswith("training.")} <= {
            "training.fit_orders_bits",
            "training.late_tap_penalty",
            "training.clip",
        }


def run(seed: int, accuracy: float) -> dict[str, object]:
    measured = {
        "weight_bytes": 1000,
        "state_bits": 1600,
        "state_bits_per_neuron": 2.0,
        "spikes": 10.0,
        "synaptic_operations": 500e3,
        "streaming_synaptic_operations": 2500e3,
        "energy_joules": 460e-9,
    }
    facts = {"name": "a", "label": "A", "family": "F", "state_bits": 2.0}
    return {**facts, "seed": seed, "test_accuracy": accuracy, "costs": measured}


def test_a_row_has_the_mean_and_spread_over_seeds_and_the_mean_costs() -> None:
    text = page.table([run(0, 80.0), run(1, 82.0)], {"a": 3.14})
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]
    assert cells == ["A", "81.0 ± 1.4", "2", "1,000 / 1,200", "3.1", "10", "500 / 2,500", "460 / 2,260"]
    assert "A (one seed)" in page.table([run(0, 80.0)], {})


def test_the_figure_draws_the_families_that_it_names(tmp_path: Path) -> None:
    runs = [{**run(0, 80.0), "family": family} for family in ("memory-free", "LIF, float weights", "other")]
    page.accuracy_against_state(runs, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_results_of_networks_that_are_not_trained_again_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sweep.load(str(HERE / "rows.toml"))
    first, second, third = (entry.name for entry in plan.entries[:3])
    monkeypatch.setattr(costs, "of_run", lambda path: {"spikes": 5.0})
    for seed in plan.seeds[:2]:
        found = {"name": second, "seed": seed, "test_accuracy": 90.0, "history": []}
        (tmp_path / f"{second}-seed{seed}.json").write_text(json.dumps(found))
    names = [(third, 0), (second, 0), (second, 2), (first, 1), ("gone", 0)]
    kept = [{"name": name, "seed": seed, "label": "old", "test_accuracy": 80.0} for name, seed in names]
    merged = collect(plan, tmp_path, kept)
    assert [(r["name"], r["seed"], r["test_accuracy"]) for r in merged] == [
        (first, 1, 80.0),
        (second, 0, 90.0),
        (second, 1, 90.0),
        (second, 2, 80.0),
        (third, 0, 80.0),
    ]
    assert [r["label"] for r in merged] == [plan.entries[i].label for i in (0, 1, 1, 1, 2)]
    assert collect(plan, tmp_path, merged) == merged


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_the_page_shows_the_committed_results(path: Path) -> None:
    timed = path.with_name(f"{path.stem}_time.json")
    times = json.loads(timed.read_text())["milliseconds_per_step"] if timed.exists() else {}
    shown = page.table(json.loads(path.read_text()), times)
    assert shown in page.PAGE.read_text(), "python -m benchmarks.evidence --show"


def test_the_readme_shows_the_committed_results() -> None:
    paths = [RESULTS / f"evidence_{task}.json" for task in ("rows", "rows_readout")]
    last, chosen = (json.loads(path.read_text()) for path in paths)
    assert page.short_table(last, chosen) in page.README.read_text(), "python -m benchmarks.evidence --show"
