"""The definition of what an integer network computes, in plain NumPy: whole numbers, unpacked, not fast.

``run`` computes all steps at once, ``Stream`` one step after the other. A map is int64 [T, N, C, H, W] of as
many steps as it has itself; one that is the same at every step may have T = 1. The compiled runtime and the
generated C say the same, bit for bit.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import (
    Concat,
    Currents,
    Gather,
    Graph,
    Ints,
    MatMul,
    Neurons,
    Ones,
    Op,
    Pool,
    Product,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
    planes,
)

Kept = tuple[np.ndarray, tuple[int, ...]]  # bits and their shape
_NOTHING: Ints = np.zeros(0, np.int64)


def run(graph: Graph, levels: Ints, steps: int) -> tuple[list[Ints], list[Ints]]:
    """All steps at once.

    Args:
        graph: a valid network.
        levels: the input [T, N, C, H, W], or [1, N, C, H, W] for one image at every step.
        steps: T of the input, a multiple of ``graph.period``.

    Returns:
        The scores of every head at every step that it has, whole numbers [T, N, C, H, W], and every map, the
        input first.
    """
    maps, periods = [levels], graph.periods
    # layer by layer: without a potential no synapse waits for a step, so what it adds up is computed of all
    # steps at once; with feedback alone a neuron then fires step by step
    for op, period in zip(graph.body, periods[1:], strict=False):
        maps.append(evaluate(op, maps, steps // period))
    return [_scores(head, maps, steps // periods[-1]) for head in graph.heads], maps


def _scores(head: Scores, maps: Sequence[Ints], steps: int) -> Ints:
    """The scores [T, N, C, H, W] of all steps."""
    currents = [
        np.broadcast_to(one, (steps, *one.shape[1:]))
        for one in (accumulate(synapse, maps[synapse.source]) for synapse in head.synapses)
    ]
    return np.stack([score(head, [one[: t + 1] for one in currents], t) for t in range(steps)])


def score(head: Scores, currents: Sequence[Ints], t: int) -> Ints:
    """The scores [N, C, H, W] of step t, from what each synapse accumulated up to and including it."""
    total = head.offset[min(t, len(head.offset) - 1)][:, None, None]
    for s, current in enumerate(currents):
        if head.taps is None:
            total = total + current[-1]
            continue
        for j in range(min(len(current), t + 1, head.order)):
            total = total + head.taps[s, j][:, None, None] * current[-1 - j]
    return total


def evaluate(op: Op, maps: Sequence[Ints], steps: int) -> Ints:
    """The map that one operation makes, of ``steps`` steps."""
    match op:
        case Neurons():
            current = sum_currents(op.synapses, maps)
            current = np.broadcast_to(current, (steps, *current.shape[1:]))
            spikes: Ints = np.zeros(current.shape, np.int64)
            current = current.copy() if op.recurrent else current
            for t in range(steps):
                if op.recurrent and t > 0:
                    current[t] += sum_maps([accumulate(one, spikes[t - 1 : t]) for one in op.recurrent])[0]
                spikes[t] = fire(op, current[: t + 1], spikes[:t], t)
            return spikes
        case Currents():
            return (sum_currents(op.synapses, maps) + op.offset[:, None, None]) >> op.shift
        case Pool():
            return pool(maps[op.source], op.kind, op.window, op.shape[1:])
        case TimePool():
            source = maps[op.source]
            # a map of one step is the same at every step, and so is the largest of any of them
            return (
                source if len(source) == 1 else source.reshape(-1, op.window, *source.shape[1:]).max(axis=1)
            )
        case Sum():
            return sum_maps([weight * maps[i] for i, weight in zip(op.sources, op.weights, strict=True)])
        case Concat():
            parts = [weight * maps[i] for i, weight in zip(op.sources, op.weights, strict=True)]
            # a map that is the same at every step has one, and may stand beside one that has all
            longest = max(len(part) for part in parts)
            return np.concatenate([np.broadcast_to(p, (longest, *p.shape[1:])) for p in parts], axis=2)
        case Gather():
            source = maps[op.source]
            flat = source.reshape(*source.shape[:2], -1)
            return np.where(op.places < 0, op.fill, flat[..., op.places]).reshape(
                *source.shape[:2], *op.shape
            )
        case Ones():
            return np.ones_like(maps[op.source])
        case Product():
            return maps[op.sources[0]] * maps[op.sources[1]]
        case MatMul():
            return maps[op.sources[0]] @ maps[op.sources[1]]
    raise TypeError(f"{type(op).__name__} makes no map")


def fire(op: Neurons, current: Ints, spikes: Ints, t: int) -> Ints:
    """Spikes [N, C, H, W] of step t, the newest last: from the currents up to and including it.

    ``spikes`` are the layer's own of the steps before it, as many as there are or at least ``op.own_steps``.
    """
    taps = op.taps[min(t, len(op.taps) - 1)]
    since, own = _steps_since(op, spikes, t), _own_sum(op, spikes, t)
    potential = np.zeros_like(current[-1])
    # before the first step there was no input, so the first steps reach fewer taps
    for j in range(min(len(current), t + 1, op.order)):
        potential += taps[j][:, None, None] * current[-1 - j] * (j <= since)
    thresholds = op.thresholds.reshape(-1, op.choices, op.shape[0])
    choice: Any = 0
    if op.feedback is not None and op.feedback.kind == "table":
        choice = own + op.feedback.start
    elif op.feedback is not None:
        potential = (potential << op.feedback.shift) + own
    channels = np.arange(op.shape[0])[:, None, None]
    threshold = thresholds[np.minimum(since, len(thresholds) - 1), choice, channels]
    return (potential >= threshold).astype(np.int64)


def _steps_since(op: Neurons, spikes: Ints, t: int) -> Any:
    """How many steps lie between the last own spike and step t; t where none does, or none counts."""
    since: Any = t
    if op.feedback is not None and op.feedback.kind == "age":
        for j in range(min(t, op.own_steps), 0, -1):  # the newest last, as it decides
            since = np.where(spikes[-j] == 1, j - 1, since)
    return since


def _own_sum(op: Neurons, spikes: Ints, t: int) -> Any:
    """What the own spikes of the last R steps add up to, times their taps."""
    total: Any = 0
    if op.feedback is not None and op.feedback.taps is not None:
        for j in range(1, min(t, op.own_steps) + 1):
            total = total + op.feedback.taps[j - 1][:, None, None] * spikes[-j]
    return total


def sum_currents(synapses: tuple[Synapse, ...], maps: Sequence[Ints]) -> Ints:
    """Integer currents [T, N, C, H, W] of synapses that end in the same neurons."""
    return sum_maps([accumulate(synapse, maps[synapse.source]) for synapse in synapses])


def sum_maps(parts: Sequence[Ints]) -> Ints:
    """Their sum; those of one step count for all."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def accumulate(synapse: Synapse, source: Ints) -> Ints:
    """What one synapse adds up, [T, N, out, H, W]."""
    codes = synapse.codes.astype(np.int64)
    out, inner = codes.shape[:2]
    groups = synapse.groups
    acc = np.zeros((*source.shape[:2], *synapse.shape), np.int64)
    # output channels lie group after group, as torch has them; this view of acc shares its memory
    by_group = acc.reshape(*source.shape[:2], groups, out // groups, *synapse.shape[1:])
    weights = codes.reshape(groups, out // groups, inner, *codes.shape[2:])
    for (row, column), part in shifted(source, synapse.window, synapse.shape[1:], fill=0):
        inputs = part.reshape(*part.shape[:2], groups, inner, *part.shape[3:])
        for g in range(groups):
            # float64 holds every number here exactly (they are below 2**31) and has a fast product
            product = np.tensordot(
                weights[g, :, :, row, column].astype(np.float64), inputs[:, :, g].astype(np.float64), (1, 2)
            )
            by_group[:, :, g] += np.moveaxis(product, 0, 2).astype(np.int64)
    if synapse.pool is not None:
        # accumulated numbers can be negative, so padding with 0 would win a maximum
        fill = np.iinfo(np.int64).min if synapse.pool.kind == "max" else 0
        acc = pool(acc, synapse.pool.kind, synapse.pool.window, synapse.pool.shape[1:], fill)
    # pooled before the factor, whose sign would turn a maximum into a minimum
    return acc if synapse.factor is None else acc * synapse.factor[:, None, None]


def pool(source: Ints, kind: str, window: Window, out: tuple[int, ...], fill: int = 0) -> Ints:
    """The largest number, or the sum, of each window."""
    parts = [part for _, part in shifted(source, window, out, fill)]
    return np.maximum.reduce(parts) if kind == "max" else np.add.reduce(parts)


def shifted(
    source: Ints, window: Window, out: tuple[int, ...], fill: int
) -> list[tuple[tuple[int, int], Ints]]:
    """For every place (row, column) of a window, what all outputs see there: [T, N, C, *out]."""
    # a stride may also leave rows that no window sees
    after = window.behind(source.shape[3:], out)
    margins = [(0, 0)] * 3 + list(zip(window.padding, after, strict=True))
    padded = np.pad(source, margins, constant_values=fill)
    places = []
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            y, x = row * window.dilation[0], column * window.dilation[1]
            part = padded[..., y :: window.stride[0], x :: window.stride[1]][..., : out[0], : out[1]]
            places.append(((row, column), part))
    return places


class Stream:
    """One step in, one step out, for ever.

    Keeps the last K - 1 steps of the maps that neurons look back at, and what the open window of a TimePool
    has seen. They are kept as bits: a map of spikes takes one bit an element and step, and nothing else is
    kept but the number of the step.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.t = 0
        self._past: dict[int, deque[Kept]] = {
            index: deque(maxlen=steps) for index, steps in graph.history().items()
        }
        self._open: dict[int, Kept] = {}

    def step(self, levels: NDArray[Any]) -> list[Ints] | None:
        """Scores [N, C, H, W] of each head at one more step, from its input [N, C, H, W].

        None in a step of the input that ends no step of the scores.
        """
        maps: list[Ints] = [levels[None].astype(np.int64)]
        for index, op in enumerate(self.graph.body, start=1):
            maps.append(self._evaluate(index, op, maps))
        scores = None
        if self._ends(-1):
            t = self.t // self.graph.periods[-1]
            scores = [score(head, self._currents(head, maps), t) for head in self.graph.heads]
        # after the scores: until here the oldest step was still looked at
        for index, past in self._past.items():
            if self._ends(index):
                past.append(_to_bits(maps[index][0], self.graph.map_top(index)))
        self.t += 1
        return scores

    def _ends(self, index: int) -> bool:
        """Whether this step of the input is the last of a step of a map."""
        return (self.t + 1) % self.graph.periods[index] == 0

    def _evaluate(self, index: int, op: Op, maps: list[Ints]) -> Ints:
        """Map ``index`` in this step; nothing if it has none there."""
        if isinstance(op, TimePool):
            return self._pool_time(index, op, maps[op.source])
        if not self._ends(index):
            return _NOTHING
        if not isinstance(op, Neurons):
            return evaluate(op, maps, 1)
        currents = self._currents(op, maps)
        own = np.concatenate(
            [_NOTHING.reshape(0, *currents[0].shape[1:]), *self._past_steps(index, op.own_steps)]
        )
        if op.recurrent and (past := self._past_steps(index, op.order)):
            before = np.concatenate(past)  # the newest of them is of the step before this one
            currents += [accumulate(one, before) for one in op.recurrent]
            # the first step had none before it
            count = max(map(len, currents))
            currents = [np.concatenate([np.zeros_like(c[:1])] * (count - len(c)) + [c]) for c in currents]
        return fire(op, sum_maps(currents), own, self.t // self.graph.periods[index])[None]

    def _currents(self, op: Neurons | Scores, maps: Sequence[Ints]) -> list[Ints]:
        """What each synapse adds up in the last K steps, or as many as there were, the newest last."""
        # computed again from the bits that were kept; currents are not kept themselves
        return [
            accumulate(
                synapse,
                np.concatenate([*self._past_steps(synapse.source, op.order - 1), maps[synapse.source]]),
            )
            for synapse in op.synapses
        ]

    def _pool_time(self, index: int, op: TimePool, source: Ints) -> Ints:
        """The largest numbers since the window opened; kept until it is full."""
        if not self._ends(op.source):
            return _NOTHING
        if index in self._open:
            source = np.maximum(source, _from_bits(*self._open.pop(index)))
        if not self._ends(index):
            self._open[index] = _to_bits(source[0], op.top)
        return source

    def _past_steps(self, index: int, steps: int) -> list[Ints]:
        """The ``steps`` steps of a map before this one, or as many as there are, the newest last."""
        past = list(self._past[index])[-steps:] if steps else []
        return [_from_bits(*kept)[None] for kept in past]


def _to_bits(numbers: Ints, top: int) -> Kept:
    bits = (numbers[None] >> np.arange(planes(top)).reshape(-1, *[1] * numbers.ndim)) & 1
    return np.packbits(bits.astype(bool)), bits.shape


def _from_bits(packed: np.ndarray, shape: tuple[int, ...]) -> Ints:
    bits = np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(np.int64)
    return (bits << np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))).sum(axis=0)
