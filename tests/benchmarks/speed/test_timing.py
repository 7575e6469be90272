"""Contestants in turn: who is called when, what is done with what they say, who is left out and why."""

import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed import timing
from benchmarks.speed.timing import Effort, Parts, Sample, Skip, alternate, order, reason, rounds, summary

names = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


@given(names)
def test_every_round_calls_everybody_once_and_everybody_goes_first_equally_often(names: list[str]) -> None:
    turns = [order(names, number) for number in range(2 * len(names))]
    assert all(sorted(turn) == sorted(names) for turn in turns)
    firsts = [turn[0] for turn in turns]
    assert {name: firsts.count(name) for name in names} == dict.fromkeys(names, 2)


def test_the_neighbor_before_changes_from_round_to_round() -> None:
    before = set()
    for number in range(6):
        turn = order(["a", "b", "c"], number)
        before |= {turn[i - 1] for i in range(1, 3) if turn[i] == "b"}
    assert before == {"a", "c"}


def recorder(log: list[str], name: str) -> Callable[[], Sample]:
    def sample() -> Parts:
        log.append(name)
        return {"total": float(len(log))}

    return lambda: sample


def test_calls_alternate_after_the_warm_up() -> None:
    log: list[str] = []
    outcome = alternate({n: recorder(log, n) for n in "ab"}, Effort(repeats=4, seconds=1e9, warm_up=2))
    assert log[:4] == ["a", "a", "b", "b"]
    timed = log[4:]
    assert [sorted(timed[i : i + 2]) for i in range(0, 8, 2)] == [["a", "b"]] * 4
    assert {timed[i] for i in range(0, 8, 2)} == {"a", "b"}
    assert {name: len(calls) for name, calls in outcome.calls.items()} == {"a": 4, "b": 4}
    assert outcome.calls["a"] == [{"total": i + 1.0} for i, name in enumerate(log) if name == "a" and i >= 4]


def test_a_peer_that_fails_is_left_out_with_its_reason_and_the_others_go_on() -> None:
    log: list[str] = []

    def missing() -> Sample:
        raise ImportError("No module named 'peer'")

    def unable() -> Sample:
        raise Skip("quadratic in T")

    def breaks_later() -> Sample:
        calls = iter([{"total": 1.0}, {"total": 1.0}])
        return lambda: next(calls, None) or _out_of_memory()

    def _out_of_memory() -> Parts:
        raise RuntimeError("out of memory\nand a long trace")

    peers = {"missing": missing, "unable": unable, "breaks": breaks_later, "ours": recorder(log, "ours")}
    outcome = alternate(peers, Effort(repeats=3, seconds=1e9, warm_up=1))
    assert outcome.skipped == {
        "missing": "ImportError: No module named 'peer'",
        "unable": "quadratic in T",
        "breaks": "RuntimeError: out of memory",
    }
    assert list(outcome.calls) == ["ours"]
    assert len(outcome.calls["ours"]) == 3


@given(st.floats(0, 1e3), st.integers(1, 20), st.integers(1, 50), st.integers(1, 10))
def test_rounds_stay_between_the_least_and_the_asked(
    cost: float, many: int, repeats: int, least: int
) -> None:
    effort = Effort(repeats=repeats, seconds=8.0, least=least)
    assert min(least, repeats) <= rounds(cost, many, effort) <= repeats


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=20))
def test_together_they_take_the_time_or_the_least_number_of_calls(costs: list[float]) -> None:
    effort = Effort(repeats=31, seconds=8.0, least=3)
    taken = sum(cost * max(0, rounds(cost, len(costs), effort) - effort.least) for cost in costs)
    assert taken <= effort.seconds


def test_the_slow_leave_and_the_fast_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)

    def slow() -> Parts:
        nonlocal now
        now += 5.0
        return {"total": 5e3}

    contestants = {"slow": lambda: slow, "fast": recorder([], "fast")}
    outcome = alternate(contestants, Effort(repeats=9, seconds=10.0, least=3))
    assert {name: len(calls) for name, calls in outcome.calls.items()} == {"slow": 3, "fast": 9}
    outcome = alternate({"slow": recorder([], "slow")}, Effort(patience=-1.0))
    assert outcome.calls == {}
    assert outcome.skipped["slow"].startswith("one call takes")


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=40))
def test_a_summary_is_the_median_and_the_quartiles_of_every_part(values: list[float]) -> None:
    found = summary([{"total": v, "forward": v / 2} for v in values])
    assert found["total"]["median"] == pytest.approx(statistics.median(values))
    assert min(values) <= found["total"]["low"] <= found["total"]["median"] <= found["total"]["high"]
    assert found["total"]["high"] <= max(values)
    assert found["forward"]["median"] == pytest.approx(statistics.median(values) / 2)


def test_a_reason_is_one_line_and_names_the_error() -> None:
    assert reason(ValueError("a\nb")) == "ValueError: a"
    assert reason(MemoryError()) == "MemoryError"
