"""Clocks: the processor's, and the GPU's own, which its queue of launches does not disturb."""

import time
from itertools import pairwise
from typing import Any, Protocol

import torch

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
