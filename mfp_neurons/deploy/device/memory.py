"""Where the generated C keeps its maps: places in static arrays, shared over time.

Words are of 32 bits. Each bit of the numbers of a C x H x W map takes ceil(C * H * W / 32) words a step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from ..graph import (
    Graph,
    Neurons,
    Op,
    Scores,
    Synapse,
    current_bound,
    planes,
    potential_bound,
    without_repeats,
)

WORD = 32


@dataclass(frozen=True)
class Places:
    """One static array of maps.

    Attributes:
        offset: first word of each map.
        words: of the array.
    """

    offset: list[int]
    words: int


@dataclass(frozen=True)
class Scratch:
    """What one layer needs while it is computed; of a whole network, the most that a layer needs of each.

    Attributes:
        patches, totals: words for what windows see, and for how much that adds up to.
        sums: integers of 32 bits for what one neuron gets from one synapse.
        seen: synapses.
        narrow, wide: integers of 32 and 64 bits for currents and taps.
    """

    patches: int = 0
    totals: int = 0
    sums: int = 0
    seen: int = 0
    narrow: int = 0
    wide: int = 0

    @property
    def bytes(self) -> int:
        return 4 * (self.patches + self.totals + self.sums + 4 * self.seen + self.narrow) + 8 * self.wide


def plane_words(graph: Graph, index: int) -> int:
    """Words of one plane of a map."""
    return -(-prod(graph.map_shape(index)) // WORD)


def step_words(graph: Graph, index: int) -> int:
    """Words of one step of a map."""
    return planes(graph.map_top(index)) * plane_words(graph, index)


def run_places(graph: Graph) -> Places:
    """All steps of every map, for as long as it is read."""
    slots = run_steps(graph)[:-1]
    return _places(graph, slots, kept=())


def step_places(graph: Graph) -> Places:
    """One step of every map, behind the past steps of those that neurons look back at.

    Past steps stay, and so do open windows.
    """
    history = graph.history()
    slots = [1 + history.get(index, 0) for index in range(len(graph.ops))]
    return _places(graph, slots, kept=graph.kept())


def run_steps(graph: Graph) -> list[int]:
    """Steps of each map that a run computes, one if they are all the same; then those of the scores."""
    constant = graph.constant_maps(graph.input.static)
    periods = graph.periods
    return [1 if index in constant else graph.steps // period for index, period in enumerate(periods)]


def _places(graph: Graph, slots: list[int], kept: Iterable[int]) -> Places:
    """Kept maps have a place of their own; the largest of the others choose first, as low as they can."""
    sizes = [steps * step_words(graph, index) for index, steps in enumerate(slots)]
    lives = _lives(graph) | {index: (-1, len(graph.ops)) for index in kept}
    offset = [0] * len(sizes)
    placed: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (i not in kept, -sizes[i])):
        first, last = lives[index]
        beside = [i for i in placed if lives[i][0] <= last and lives[i][1] >= first]
        for other in sorted(beside, key=lambda i: offset[i]):
            if offset[index] + sizes[index] <= offset[other]:
                break
            offset[index] = max(offset[index], offset[other] + sizes[other])
        placed.append(index)
    return Places(offset, max(o + size for o, size in zip(offset, sizes, strict=True)))


def _lives(graph: Graph) -> dict[int, tuple[int, int]]:
    """{map: (operation that makes it, last operation that reads it)}; the input is made by -1."""
    last = graph.last_readers()
    return {index: (index - 1, last.get(index, index - 1)) for index in range(len(graph.ops))}


def is_whole(graph: Graph, synapse: Synapse) -> bool:
    """Whether the one output sees all of the source in the order in which it lies there."""
    _, height, width = graph.map_shape(synapse.source)
    return (
        not in_bytes(graph, synapse)
        and synapse.groups == 1
        and synapse.shape[1:] == (1, 1)
        and synapse.window.size == (height, width)
        and synapse.window.padding == (0, 0)
        and (height == 1 or synapse.window.dilation[0] == 1)
        and (width == 1 or synapse.window.dilation[1] == 1)
    )


def in_bytes(graph: Graph, synapse: Synapse) -> bool:
    """Whether codes are multiplied as bytes: planes against planes take longer where both are many."""
    top = graph.map_top(synapse.source)
    return synapse.bits > 4 and 1 < top <= 255


def row_words(synapse: Synapse) -> int:
    """Words of what one output sees in one plane."""
    return -(-prod(synapse.codes.shape[1:]) // WORD)


def patch_words(graph: Graph, synapse: Synapse) -> int:
    """Words of what one output sees."""
    if in_bytes(graph, synapse):
        return -(-prod(synapse.codes.shape[1:]) // 4)
    return row_words(synapse) * planes(graph.map_top(synapse.source))


def is_wide(graph: Graph, op: Neurons | Scores) -> bool:
    """Whether currents, taps, potentials or thresholds need more than 32 bits."""
    largest = max(current_bound(graph, op.synapses))
    if isinstance(op, Neurons):
        largest = max(
            largest, *potential_bound(graph, op), int(abs(op.taps).max()), int(abs(op.thresholds).max())
        )
    return largest >= 2**31


def remembered(graph: Graph) -> int:
    """The step from which on all steps are alike: every tap and every row of thresholds has been reached.

    Counted in steps of the input. With poolings over time they are alike but for their place in windows, of
    which one of each opens there.
    """
    layers = [
        (op, each) for op, each in zip(graph.ops, graph.periods[1:], strict=True) if isinstance(op, Neurons)
    ]
    rows = [
        (max(op.order, len(op.taps), len(without_repeats(op.thresholds))) - 1) * each for op, each in layers
    ]
    period = graph.period
    return -(-max(rows, default=0) // period) * period


def counts_steps(graph: Graph) -> bool:
    """Whether a stream has to know the number of its step."""
    return remembered(graph) > 0 or graph.period > 1


def scored_steps(graph: Graph) -> int:
    """Steps whose scores a run computes."""
    scores, steps = graph.scores, graph.steps // graph.periods[-1]
    return steps if scores.reduce == "none" else scores.last or steps


def run_scratch(graph: Graph) -> Scratch:
    """For the layers of a run."""
    constant, periods = graph.constant_maps(graph.input.static), graph.periods

    def steps(op: Op, period: int) -> int:
        return scored_steps(graph) if isinstance(op, Scores) else graph.steps // period

    made = zip(graph.ops, periods[1:], strict=True)
    return _most(_scratch(graph, op, steps(op, period), constant) for op, period in made)


def step_scratch(graph: Graph) -> Scratch:
    """For the layers of a step of a stream."""
    return _most(_scratch(graph, op, op.order if isinstance(op, Neurons) else 1, set()) for op in graph.ops)


def _scratch(graph: Graph, op: Op, steps: int, constant: set[int]) -> Scratch:
    if not isinstance(op, Neurons | Scores):
        return Scratch()
    patches = totals = sums = 0
    for synapse in op.synapses:
        windows = prod(synapse.pool.window.size) if synapse.pool else 1
        seen = windows * (1 if synapse.source in constant else steps)
        patches += 0 if is_whole(graph, synapse) else seen * patch_words(graph, synapse)
        totals += seen
        sums = max(sums, seen)
    numbers = steps + (min(op.order, steps) if isinstance(op, Neurons) else 0)
    wide = is_wide(graph, op)
    return Scratch(patches, totals, sums, len(op.synapses), 0 if wide else numbers, numbers if wide else 0)


def _most(needs: Iterable[Scratch]) -> Scratch:
    """The most of each; at least one of each, as C knows no empty arrays."""
    found = list(needs)
    fields = ("patches", "totals", "sums", "seen", "narrow", "wide")
    return Scratch(*(max(1, *(getattr(need, field) for need in found)) for field in fields))


def run_bytes(graph: Graph) -> int:
    """Bytes of static buffers that a run uses."""
    return 4 * run_places(graph).words + run_scratch(graph).bytes


def state_bytes(graph: Graph) -> int:
    """Bytes that a stream keeps between steps: past bits in whole words, and the number of the step."""
    return 4 * _past_words(graph) + (4 if counts_steps(graph) else 0)


def step_bytes(graph: Graph) -> int:
    """Bytes of static buffers that a step uses beyond what it keeps."""
    return 4 * (step_places(graph).words - _past_words(graph)) + step_scratch(graph).bytes


def _past_words(graph: Graph) -> int:
    return sum(steps * step_words(graph, index) for index, steps in graph.kept().items())
