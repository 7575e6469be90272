"""Times contestants in turn: one call of each a round, in an order that changes from round to round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch

Parts = dict[str, float]  # milliseconds of one call, by part of it; "total" is among them
Sample = Callable[[], Parts]
TOTAL = "total"


class Skip(Exception):
    """A contestant cannot run; the message says why."""


@dataclass(frozen=True)
class Effort:
    """How much to measure: ``repeats`` calls of everybody, fewer of the slow.

    ``seconds`` are shared evenly; ``least`` calls are made even of those whose share is too short for them.
    """

    repeats: int = 31
    seconds: float = 10.0
    least: int = 3
    warm_up: int = 2
    patience: float = 20.0  # seconds: a contestant whose calls take longer is not timed


@dataclass
class Outcome:
    """The calls of every contestant that ran, and why the others did not."""

    calls: dict[str, list[Parts]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def alternate(contestants: Mapping[str, Callable[[], Sample]], effort: Effort) -> Outcome:
    """Builds and warms up all contestants, then times one call of each a round (the slow leave early)."""
    outcome = Outcome()
    ready: dict[str, Sample] = {}
    turns: dict[str, int] = {}
    for name, build in contestants.items():
        try:
            ready[name] = build()
            cost = _warm_up(ready[name], effort)
        except Exception as error:  # any peer may fail in any way: the row says how
            ready.pop(name, None)
            outcome.skipped[name] = reason(error)
        else:
            turns[name] = rounds(cost, len(contestants), effort)
            outcome.calls[name] = []
    for number in range(max(turns.values(), default=0)):
        for name in order([name for name in ready if number < turns[name]], number):
            try:
                outcome.calls[name].append(ready[name]())
            except Exception as error:
                del ready[name], outcome.calls[name]
                outcome.skipped[name] = reason(error)
    return outcome


def _warm_up(sample: Sample, effort: Effort) -> float:
    """Seconds of the last of the calls that warm a contestant up (the first may compile)."""
    cost = 0.0
    for _ in range(effort.warm_up):
        start = time.perf_counter()
        sample()
        cost = time.perf_counter() - start
    if cost > effort.patience:
        raise Skip(f"one call takes {cost:.0f} s")
    return cost


def rounds(cost: float, contestants: int, effort: Effort) -> int:
    """In how many rounds a contestant whose call takes ``cost`` seconds takes part.

    >>> [rounds(cost, 10, Effort(repeats=31, seconds=10.0, least=3)) for cost in (0.01, 0.1, 1.0)]
    [31, 10, 3]
    """
    share = effort.seconds / contestants
    if cost * effort.repeats <= share:
        return effort.repeats
    return min(effort.repeats, max(effort.least, int(share / cost)))


def order(names: Sequence[str], number: int) -> list[str]:
    """The order of round ``number``: each goes first in turn, and odd rounds run backwards.

    >>> order(["a", "b", "c"], 0), order(["a", "b", "c"], 1)
    (['a', 'b', 'c'], ['a', 'c', 'b'])
    """
    if not names:
        return []
    start = number // 2 % len(names)
    turned = [*names[start:], *names[:start]]
    return turned if number % 2 == 0 else [turned[0], *reversed(turned[1:])]


def summary(calls: Sequence[Parts]) -> dict[str, dict[str, float]]:
    """Median and quartiles of every part, in milliseconds.

    >>> summary([{"total": 3.0}, {"total": 1.0}, {"total": 2.0}])
    {'total': {'median': 2.0, 'low': 1.5, 'high': 2.5}}
    """
    return {part: _quartiles([call[part] for call in calls]) for part in calls[0]}


def _quartiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def reason(error: BaseException) -> str:
    """One line that says what went wrong."""
    text = str(error).strip().splitlines()
    first = text[0].strip()[:200] if text else ""
    return first if isinstance(error, Skip) else f"{type(error).__name__}: {first}".removesuffix(": ")


# --- clocks ---------------------------------------------------------------------------------------------

_SPIN = 1_500_000  # GPU cycles, about a millisecond: the host queues a call while the GPU spins


class Clock(Protocol):
    """Marks points in a call; afterwards tells the milliseconds between them."""

    def ready(self) -> None:
        """Called before a call's first mark."""

    def mark(self) -> Any: ...

    def gaps(self, marks: list[Any]) -> list[float]:
        """Milliseconds between successive marks, once all that was marked has finished."""


class HostClock:
    def ready(self) -> None:
        pass

    def mark(self) -> float:
        return time.perf_counter()

    def gaps(self, marks: list[Any]) -> list[float]:
        return [1e3 * (b - a) for a, b in pairwise(marks)]


class DeviceClock:
    """CUDA events. The GPU spins before each call, so that what is timed is its work and not the wait for
    the next launch (as long as a call's launches take less than the spin; the same for every contestant)."""

    def ready(self) -> None:
        torch.cuda._sleep(_SPIN)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def gaps(self, marks: list[Any]) -> list[float]:
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(marks)]


def clock_for(device: torch.device) -> Clock:
    return DeviceClock() if device.type == "cuda" else HostClock()


def sample_of(call: Callable[[], object]) -> Sample:
    """A sample that times all of a call on the processor."""
    clock = HostClock()

    def sample() -> dict[str, float]:
        start = clock.mark()
        call()
        return {TOTAL: clock.gaps([start, clock.mark()])[0]}

    return sample
