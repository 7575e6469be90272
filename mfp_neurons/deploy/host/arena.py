"""Places in one block of memory for buffers that are not all needed at the same time."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A buffer of ``size`` bytes, needed from operation ``first`` to operation ``last``."""

    size: int
    first: int
    last: int


def offsets(spans: Sequence[Span], alignment: int) -> tuple[list[int], int]:
    """Where each buffer begins, and the size of the whole: the largest first, each in the first gap.

    >>> offsets([Span(64, 0, 1), Span(128, 1, 2), Span(64, 2, 3)], 64)
    ([128, 0, 128], 192)
    """
    placed: dict[int, int] = {}
    for index in sorted(range(len(spans)), key=lambda i: -spans[i].size):
        span = spans[index]
        taken = sorted(
            (start, start + spans[i].size)
            for i, start in placed.items()
            if spans[i].first <= span.last and span.first <= spans[i].last
        )
        start = 0
        for begin, end in taken:
            if start + span.size <= begin:
                break
            start = max(start, -(-end // alignment) * alignment)
        placed[index] = start
    total = max((placed[i] + span.size for i, span in enumerate(spans)), default=0)
    return [placed[i] for i in range(len(spans))], total
