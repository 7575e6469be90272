"""Where the maps of a network lie in one block of memory, which they share over time.

The compiled runtime, the C code generator and the count of peak memory all take the plan made here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .graph import Graph, sources


@dataclass(frozen=True)
class Plan:
    """Places for the maps of a network, in the unit in which their sizes were given.

    Attributes:
        offsets: where each map begins.
        size: of the block; at least ``peak``, as gaps can remain between the maps.
        peak: the most that maps which are needed at the same time take together.
    """

    offsets: tuple[int, ...]
    size: int
    peak: int


def plan(graph: Graph, sizes: Sequence[int], *, permanent: Collection[int] = (), alignment: int = 1) -> Plan:
    """Places every map so that no two overlap which are needed at the same time.

    Args:
        graph: the network.
        sizes: of each map, the input first.
        permanent: maps that never give up their place: what a stream keeps between steps.
        alignment: every map begins at a multiple of it.
    """
    lives = _lifetimes(graph, permanent)
    offsets = [0] * len(sizes)
    placed: list[int] = []
    # permanent maps at the bottom, where what a stream keeps lies together; then the largest first, since
    # small maps find room in the gaps that large ones leave
    for index in sorted(range(len(sizes)), key=lambda i: (i not in permanent, -sizes[i])):
        first, last = lives[index]
        beside = [i for i in placed if lives[i][0] <= last and first <= lives[i][1]]
        for other in sorted(beside, key=lambda i: offsets[i]):
            if offsets[index] + sizes[index] <= offsets[other]:
                break  # a gap that is large enough
            end = offsets[other] + sizes[other]
            offsets[index] = max(offsets[index], -(-end // alignment) * alignment)
        placed.append(index)
    loads = [0] * len(graph.ops)
    for size, (first, last) in zip(sizes, lives, strict=True):
        for number in range(max(first, 0), min(last, len(loads) - 1) + 1):
            loads[number] += size
    end = max(offset + size for offset, size in zip(offsets, sizes, strict=True))
    return Plan(tuple(offsets), end, max(loads))


def _lifetimes(graph: Graph, permanent: Collection[int]) -> list[tuple[int, int]]:
    """The first and the last operation that needs each map; operation -1 makes the input."""
    last = {source: number for number, op in enumerate(graph.ops) for source in sources(op)}
    always = -1, len(graph.ops)
    return [
        always if index in permanent else (index - 1, last.get(index, index - 1))
        for index in range(len(graph.body) + 1)
    ]
