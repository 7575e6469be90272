"""The memory that the generated C computes in: the places of its maps, and room for the layer at work.

Words are of 32 bits. Each bit of the numbers of a C x H x W map takes ceil(C * H * W / 32) words a step.
"""

from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass
from math import prod

import numpy as np

from ..graph import (
    Currents,
    Graph,
    MatMul,
    Neurons,
    Op,
    Scores,
    Synapse,
    current_bound,
    planes,
    potential_bound,
    synapses,
)
from ..plan import Plan, plan

WORD = 32


@dataclass(frozen=True)
class Scratch:
    """What one layer needs while it is computed; of a whole network, the most that a layer needs of each.

    Attributes:
        patches, totals: words for what windows see, and for how much that adds up to; for matrices, words of
            rows and a column.
        sums: integers of 32 bits for what one neuron gets from one synapse, where these are not its currents.
        seen: synapses; it is on the stack.
        narrow, wide: integers of 32 and 64 bits for currents and taps.
    """

    patches: int = 0
    totals: int = 0
    sums: int = 0
    seen: int = 0
    narrow: int = 0
    wide: int = 0


@dataclass(frozen=True)
class Buffers:
    """What one generated function works in.

    Attributes:
        maps: the places of all maps in one array, in words.
        scratch: shared by its layers.
        counted: whether the number of the step is kept with them.
    """

    maps: Plan
    scratch: Scratch
    counted: bool = False

    @property
    def arrays(self) -> dict[str, tuple[str, int]]:
        """Type and length of each array of the struct that holds them; C knows no empty ones."""
        scratch = self.scratch
        # the largest type comes first, so that there are no gaps
        arrays = {
            "wide": ("int64_t", scratch.wide),
            "maps": ("uint32_t", self.maps.size),
            "patches": ("uint32_t", scratch.patches),
            "totals": ("uint32_t", scratch.totals),
            "sums": ("int32_t", scratch.sums),
            "narrow": ("int32_t", scratch.narrow),
        }
        return {name: (kind, length) for name, (kind, length) in arrays.items() if length}

    @property
    def bytes(self) -> int:
        """Of the struct, where integers of 64 bits are aligned to 8 bytes."""
        words = sum((2 if name == "wide" else 1) * length for name, (_, length) in self.arrays.items())
        words += self.counted
        return 4 * (words + words % 2 if self.scratch.wide else words)


def run_buffers(graph: Graph) -> Buffers:
    """Of NAME_run: all steps of every map, for as long as it is read."""
    steps, constant = run_steps(graph), graph.constant_maps(graph.input.static)
    slots = [steps[0], *(n + leading_steps(op) for op, n in zip(graph.body, steps[1:], strict=False))]
    layers = (
        _scratch(graph, op, _steps_at_once(graph, op, n), constant)
        for op, n in zip(graph.ops, steps[1:], strict=True)
    )
    return Buffers(_plan(graph, slots, ()), _most(layers))


def leading_steps(op: Op) -> int:
    """Steps in front of the first one in the map of a run: zeros, which recurrent synapses read there."""
    return int(isinstance(op, Neurons) and bool(op.recurrent))


def _steps_at_once(graph: Graph, op: Op, steps: int) -> int:
    """How many of its ``steps`` steps one call for a layer of a run looks at."""
    if isinstance(op, Scores):
        return scored_steps(graph, op) + steps_back(graph, op)
    # recurrent neurons run step by step, as those of a stream do
    return min(op.order, steps) if isinstance(op, Neurons) and op.recurrent else steps


def step_buffers(graph: Graph) -> Buffers:
    """Of NAME_step: one step of every map, behind the past steps of those that neurons look back at.

    Past steps stay where they are between two calls, and so do open windows.
    """
    history = graph.history()
    # past steps are moved up before each step, so that what a layer looks at lies side by side, oldest first
    slots = [1 + history.get(index, 0) for index in range(1 + len(graph.body))]
    layers = ((op, op.order if isinstance(op, Neurons | Scores) else 1) for op in graph.ops)
    scratch = _most(_scratch(graph, op, n, set()) for op, n in layers)
    return Buffers(_plan(graph, slots, graph.kept()), scratch, counts_steps(graph))


def _plan(graph: Graph, slots: list[int], permanent: Collection[int]) -> Plan:
    sizes = [steps * step_words(graph, index) for index, steps in enumerate(slots)]
    return plan(graph, sizes, permanent=permanent)


def _scratch(graph: Graph, op: Op, steps: int, constant: set[int]) -> Scratch:
    if isinstance(op, MatMul):
        left, right = (planes(graph.map_top(i)) for i in op.sources)
        _, height, depth = graph.map_shape(op.sources[0])
        return Scratch(patches=(height * left + right) * -(-depth // WORD))
    if not isinstance(op, Neurons | Currents | Scores):
        return Scratch()
    patches = totals = sums = 0
    wide, count = is_wide(graph, op), len(synapses(op))
    for synapse in synapses(op):
        # before a pool one output needs what is accumulated at every place of the pool's window
        windows = prod(synapse.pool.window.size) if synapse.pool else 1
        # one output place is gathered at a time, at all steps, and shared by the channels of its group
        seen = windows * (1 if synapse.source in constant else steps)
        patches += 0 if is_whole(graph, synapse) else seen * _patch_words(graph, synapse)
        totals += seen
        # what a synapse accumulates can be the currents as they are, as add_up of mfp_int.c has it
        alone = count == 1 and not wide and synapse.factor is None and seen == steps and not synapse.pool
        sums = max(sums, 0 if alone else seen)
    # the currents of one neuron at all steps; behind them the taps that these can reach, or scores with taps
    numbers = steps + (min(op.order, steps) if isinstance(op, Neurons) else 0)
    if isinstance(op, Scores) and is_tapped(op):
        numbers += steps
    return Scratch(patches, totals, sums, count, 0 if wide else numbers, numbers if wide else 0)


def _most(layers: Iterable[Scratch]) -> Scratch:
    """The most of each."""
    return Scratch(*(max(numbers) for numbers in zip(*map(astuple, layers), strict=True)))


def kept_words(graph: Graph) -> int:
    """Words of past steps and open windows that a stream keeps."""
    return sum(steps * step_words(graph, index) for index, steps in graph.kept().items())


# --- steps


def run_steps(graph: Graph) -> list[int]:
    """Steps of each map that a run computes, one if they are all the same; then those of the scores."""
    constant = graph.constant_maps(graph.input.static)
    return [1 if index in constant else graph.steps // period for index, period in enumerate(graph.periods)]


def scored_steps(graph: Graph, head: Scores) -> int:
    """Steps whose scores a run computes, the last ones."""
    steps = graph.steps // graph.periods[-1] - head.skip
    return steps if head.reduce == "none" or head.last is None else min(head.last, steps)


def scores_of_run(graph: Graph, head: Scores) -> int:
    """How many scores of a head a run writes."""
    return prod(head.shape) * (scored_steps(graph, head) if head.reduce == "none" else 1)


def steps_back(graph: Graph, head: Scores) -> int:
    """Steps before those that a run looks at, or as many as there are."""
    return min(head.order - 1, graph.steps // graph.periods[-1] - scored_steps(graph, head))


def remembered(graph: Graph) -> int:
    """The step from which on all steps are alike: every tap, threshold and own spike has been reached.

    Counted in steps of the input. With poolings over time they are alike but for their place in windows, of
    which one of each opens there.
    """
    ends = [0]
    for op, period in zip(graph.ops, graph.periods[1:], strict=True):
        if isinstance(op, Neurons):
            rows = max(len(op.taps), len(op.threshold_table))
            # recurrent synapses look one step further back
            ends.append(max(op.order - 1 + bool(op.recurrent), rows - 1, op.own_steps) * period)
        elif isinstance(op, Scores):
            ends.append((max(op.order, len(op.offset)) - 1) * period)
    # whole periods, so that the place in a window follows from the counter
    return -(-max(ends) // graph.period) * graph.period


def counts_steps(graph: Graph) -> bool:
    """Whether a stream has to know the number of its step."""
    return remembered(graph) > 0 or graph.period > 1


# --- sizes


def plane_words(graph: Graph, index: int) -> int:
    """Words of one plane of a map."""
    return -(-prod(graph.map_shape(index)) // WORD)


def step_words(graph: Graph, index: int) -> int:
    """Words of one step of a map."""
    return planes(graph.map_top(index)) * plane_words(graph, index)


def row_words(synapse: Synapse) -> int:
    """Words of what one output sees in one plane."""
    return -(-prod(synapse.codes.shape[1:]) // WORD)


def _patch_words(graph: Graph, synapse: Synapse) -> int:
    """Words of what one output sees."""
    if in_bytes(graph, synapse):
        return -(-prod(synapse.codes.shape[1:]) // 4)
    return row_words(synapse) * planes(graph.map_top(synapse.source))


def in_bytes(graph: Graph, synapse: Synapse) -> bool:
    """Whether codes are multiplied as bytes: planes against planes take longer where both are many."""
    top = graph.map_top(synapse.source)
    return synapse.bits > 4 and 1 < top <= 255


def is_whole(graph: Graph, synapse: Synapse) -> bool:
    """Whether the one output sees all of the source in the order in which it lies there.

    Then nothing has to be gathered before bits are counted.
    """
    _, height, width = graph.map_shape(synapse.source)
    window = synapse.window
    return (
        not in_bytes(graph, synapse)
        and synapse.groups == 1
        and synapse.shape[1:] == (1, 1)
        and window.size == (height, width)
        and window.padding == (0, 0)
        and (height == 1 or window.dilation[0] == 1)
        and (width == 1 or window.dilation[1] == 1)
    )


def is_tapped(head: Scores) -> bool:
    """Whether scores are computed step by step of their own: with taps, or to find the largest."""
    return head.taps is not None or head.reduce == "max"


def is_wide(graph: Graph, op: Neurons | Currents | Scores) -> bool:
    """Whether currents, sums of taps, potentials or thresholds need more than 32 bits."""
    if isinstance(op, Scores) and is_tapped(op):
        return True
    largest = max(current_bound(graph, synapses(op)))
    if isinstance(op, Neurons):
        # taps of codes that are all 0 can be of any size, and are still added up
        taps = max(map(sum, np.abs(op.taps).swapaxes(1, 2).reshape(-1, op.order).tolist()))
        largest = max(largest, *potential_bound(graph, op), taps, int(abs(op.thresholds).max()))
    return largest >= 2**31
