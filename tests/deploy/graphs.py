"""What hypothesis draws for deployment: small valid integer networks, with inputs that meet their thresholds.

``cases()`` gives a network with an input; its thresholds are potentials that really occur on that input, so
that ties are hit. ``graphs()`` is the network alone, ``examples()`` a list for where hypothesis cannot be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import (
    Concat,
    CurrentPool,
    Currents,
    Feedback,
    Gather,
    Graph,
    Input,
    Ints,
    MatMul,
    Neurons,
    Ones,
    Op,
    Pool,
    Product,
    Scores,
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
    current_range,
    period,
    potential_bound,
    score_bound,
    synapse_bound,
)

CHANNELS = [1, 1, 2, 3, 4, 6, 31, 32, 33, 63, 64, 65]
LENGTHS = [1, 2, 3, 5, 6]
STEPS = [1, 2, 3, 4, 4, 5, 6, 8, 12, 12]  # some of many divisors
LONG = [31, 32, 33, 63, 64, 65, 66, 66]  # around a machine word; the maps are tiny then
TOPS = [1, 1, 1, 2, 3, 15, 16, 127, 128, 255, 256, 1000, 2**15]
BITS = [1, 1, 1.58, 1.58, 2, 3, 4, 5, 6, 7, 8]
MAX_TOP = 2**24 - 1
MAX_WEIGHT = 2**15
MAX_ACCUMULATED = 2**31
MAX_CHANNELS = 130
MAX_NUMBERS = 2000  # of a map with its axes in another order
# names come from outside: no comment, string or format of generated code may end in one
NAMES = ["", "layers.0.sn", "é", 'a"b', "*/ int x; /*", "\\", "??/", "%s%n", "n" * 1000]


@dataclass(frozen=True)
class Case:
    """A network, an input for it (uint8 [T or 1, N, C, H, W]) and T."""

    graph: Graph
    levels: NDArray[np.uint8]
    steps: int

    def __repr__(self) -> str:  # not the arrays, which can be long
        ops = ", ".join(type(op).__name__ for op in self.graph.ops)
        return f"Case({ops}, {self.levels.shape}, {self.steps})"

    @property
    def own_steps(self) -> list[int]:
        """Steps of every map; behind them those of the scores."""
        return [self.steps // each for each in self.graph.periods]


@dataclass(frozen=True)
class Axis:
    """How one axis of a map is seen through a window: and how many outputs there are."""

    size: int
    stride: int
    padding: int
    dilation: int
    out: int
    natural: bool  # as many outputs as torch makes with equal padding
    seen: bool  # every output sees an element of the map


@cache
def axes(length: int, out: int | None = None) -> list[Axis]:
    """Every window over a map of ``length``, with ``out`` outputs or as many as it likes."""
    found = []
    for size in range(1, 8):
        for stride in (1, 2, 3):
            for dilation in (1, 2) if size > 1 else (1,):
                extent = (size - 1) * dilation + 1
                for padding in range(extent):
                    natural = (length + 2 * padding - extent) // stride + 1
                    for o in range(1, 7) if out is None else (out,):
                        starts = [i * stride - padding for i in range(o)]
                        if starts[-1] >= length:
                            continue
                        seen = all(any(0 <= s + k * dilation < length for k in range(size)) for s in starts)
                        found.append(Axis(size, stride, padding, dilation, o, o == natural, seen))
    return found


# networks of vectors, to look at closely


def dense(source: int, codes: Any, bits: float = 1, **fields: Any) -> Synapse:
    """A linear layer of codes [out, in] on a vector."""
    codes = np.asarray(codes).astype(np.int8)
    return Synapse(source, codes[:, :, None, None], bits, Window(), (len(codes), 1, 1), **fields)


def fires(synapse: Synapse, taps: Any, thresholds: Any, name: str = "hidden") -> Neurons:
    """Neurons with taps [K] and thresholds [C] or [R, C]."""
    channels = synapse.out_shape[0]
    rows, taps = np.atleast_2d(thresholds), np.array(taps, np.int64).reshape(1, -1, 1)
    return Neurons(name, (synapse,), taps, rows, synapse.out_shape, np.ones(channels), np.zeros(channels))


def readout(*synapses: Synapse, offset: Any = 0, unit: float = 1.0, **fields: Any) -> Scores:
    """The scores of every synapse."""
    channels, *_ = shape = synapses[0].out_shape
    offsets = np.broadcast_to(np.array(offset, np.int64), (1, channels))
    return Scores("readout", synapses, offsets, shape, (channels,), unit, np.zeros(channels), **fields)


def vectors(length: int, *ops: Op, steps: int, top: int = 1, static: bool = False) -> Graph:
    """A network on vectors."""
    return Graph(Input((length, 1, 1), (length,), top, static), ops, steps)


# networks at random


def cases(*, max_ops: int = 5) -> st.SearchStrategy[Case]:
    """Valid networks with an input: up to ``max_ops`` operations, what these need, and the scores."""
    return st.composite(lambda draw: _Builder(draw).case(max_ops))()


def graphs(*, max_ops: int = 5) -> st.SearchStrategy[Graph]:
    """Valid networks alone."""
    return cases(max_ops=max_ops).map(lambda case: case.graph)


def _levels(
    draw: st.DrawFn, generator: np.random.Generator, top: int, shape: Sequence[int]
) -> NDArray[np.uint8]:
    density = draw(st.sampled_from([0.5, 0.9, 0.1, 0.0, 1.0]))
    drawn = generator.integers(1, top + 1, shape)
    if density == 1.0:
        drawn[:] = top
    return (drawn * (generator.random(shape) < density)).astype(np.uint8 if top <= 255 else np.uint16)


class _Builder:
    """One network under construction: structure from ``draw``, numbers from a generator that draw seeds."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        self.ops: list[Op] = []
        self.maps: list[Ints] = []
        self.periods = [1]  # of the maps

    def case(self, max_ops: int) -> Case:
        long = self.draw(st.sampled_from([False] * 6 + [True]))
        self.small = long
        self.steps = self.draw(st.sampled_from(LONG if long else STEPS))
        self.batch = 1 if long else self.draw(st.integers(1, 3))
        shape = self.pick_shape()
        static = self.draw(st.booleans())
        self.input = Input(shape, self.features(shape), self.draw(st.sampled_from(TOPS)), static)
        frames = 1 if static or self.draw(st.integers(0, 4)) == 0 else self.steps
        given = _levels(self.draw, self.rng, self.input.top, (frames, self.batch, *shape))
        self.maps = [given.astype(np.int64)]
        makers = [self.neurons] * 6 + [self.time_pool, self.pool, self.currents] * 4
        makers += [self.concat, self.gather, self.product, self.matmul] * 2 + [self.sum] * 3 + [self.ones]
        for _ in range(self.draw(st.integers(0, max_ops))):
            self.add(self.draw(st.sampled_from(makers))())
        head = self.scores(self.source())
        heads = [head]
        for _ in range(self.draw(st.sampled_from([0, 0, 0, 1, 2]))):
            heads.append(self.scores(self.source(beside=head.synapses[0].source)))
        self.ops += heads
        keys = tuple(f"{self.name()[:9]} {number}" for number in range(len(heads)))
        graph = replace(self.graph(), keys=keys if self.draw(st.integers(0, 3)) == 0 else ())
        return Case(graph, given, self.steps)

    def add(self, op: Op) -> int:
        """The map that it makes."""
        self.ops.append(op)
        self.periods.append(period(op, self.periods))
        self.maps.append(interpret.evaluate(op, self.maps, self.steps_of(-1)))
        return len(self.ops)

    def graph(self) -> Graph:
        return Graph(self.input, tuple(self.ops), self.steps)

    # shapes

    def pick_shape(self) -> Shape:
        """A vector, a sequence or an image."""
        channels = self.channels()
        lengths = st.sampled_from(LENGTHS[:3] if self.small else LENGTHS)
        kind = self.draw(st.sampled_from(["vector", "sequence", "image", "image"]))
        height = self.draw(lengths) if kind == "image" else 1
        return channels, height, 1 if kind == "vector" else self.draw(lengths)

    def channels(self) -> int:
        return self.draw(st.sampled_from([n for n in CHANNELS if n <= 4] if self.small else CHANNELS))

    def features(self, shape: Shape) -> tuple[int, ...]:
        """One step as the user sees it: with or without axes of one, or flat."""
        kept = tuple(n for n in shape if n > 1)
        return self.draw(st.sampled_from([shape, shape[:1] + shape[2:] if shape[1] == 1 else shape, kept]))

    def window(self, shape: Shape, out: Shape | None = None, *, seen: bool = False) -> tuple[Window, Shape]:
        """A window over a map, and the rows and columns that it gives (with the channels of ``shape``)."""
        chosen = []
        for length, wanted in zip(shape[1:], (None, None) if out is None else out[1:], strict=True):
            fitting = [axis for axis in axes(length, wanted) if axis.seen or not seen]
            if self.draw(st.integers(0, 3)) == 0:
                fitting = [axis for axis in fitting if axis.padding == 0] or fitting
            usual = [a for a in fitting if a.natural and a.size <= 3]
            chosen.append(
                self.draw(st.sampled_from(usual if usual and self.draw(st.booleans()) else fitting))
            )
        row, column = chosen
        window = Window(
            (row.size, column.size),
            (row.stride, column.stride),
            (row.padding, column.padding),
            (row.dilation, column.dilation),
        )
        return window, (shape[0], row.out, column.out)

    def source(self, beside: int | None = None) -> int:
        """A map: the newest as often as not; one ``beside`` another has as many steps."""
        fitting = list(range(len(self.maps))) if beside is None else self.beside(beside)
        return fitting[-1] if self.draw(st.booleans()) else self.draw(st.sampled_from(fitting))

    def steps_of(self, index: int) -> int:
        return self.steps // self.periods[index]

    def shape_of(self, index: int) -> Shape:
        return self.graph().map_shape(index)

    def top_of(self, index: int) -> int:
        return self.graph().map_top(index)

    def name(self) -> str:
        return self.draw(st.sampled_from(NAMES))

    # operations

    def neurons(self) -> Neurons:
        synapses = self.synapses()
        shape, steps = synapses[0].out_shape, self.steps_of(synapses[0].source)
        others = [False] if steps < self.steps else [False] * 4  # there are few behind a pooling over time
        matrix = self.draw(st.sampled_from([*others, True]))
        taps = self.taps(shape[0], matrix, steps)
        thresholds = np.zeros((1, shape[0]), np.int64)
        floats = self.rng.random((2, shape[0]))
        recurrent = self.recurrent(shape) if self.draw(st.integers(0, 3)) == 0 else ()
        made = Neurons(
            self.name(), synapses, taps, thresholds, shape, floats[0], floats[1], recurrent=recurrent
        )
        if max(potential_bound(self.graph(), made)) >= 2**62:
            made = replace(made, taps=np.sign(taps))
        made = replace(made, taps=self.scaled(made))
        made = replace(made, feedback=None if matrix else self.feedback(made, steps))
        return replace(made, thresholds=self.thresholds(made, matrix, steps))

    def recurrent(self, shape: Shape) -> tuple[Synapse, ...]:
        """One or two synapses from the layer to itself."""
        count = self.draw(st.sampled_from([1, 1, 2]))
        own = len(self.maps)
        return tuple(self.synapse(own, shape, 2**52, with_factor=True, source=shape) for _ in range(count))

    def feedback(self, neurons: Neurons, steps: int) -> Feedback | None:
        """What own spikes do: nothing as often as not."""
        kind = self.draw(st.sampled_from(["none", "none", "sum", "table", "age"]))
        if kind == "none" or (kind == "age" and neurons.order == 1):
            return None
        if kind == "age":
            return Feedback("age")
        lags = self.draw(st.sampled_from([1, 2, 3, 4, 7, steps]))
        if kind == "table":
            powers = 2 ** np.arange(min(lags, 4))
            chosen = [powers, np.ones(min(lags, 15), np.int64), self.rng.integers(-3, 4, min(lags, 7))]
            return Feedback("table", chosen[self.draw(st.integers(0, 2))].astype(np.int64)[:, None])
        columns = self.draw(st.sampled_from([1, neurons.shape[0]]))
        bounds = potential_bound(self.graph(), neurons)
        shift = self.draw(st.sampled_from([0, 0, 1, 5]))
        shift = min(shift, max(0, 61 - max(bounds).bit_length()))
        bounds = [bound << shift for bound in bounds]
        # about as large as the potentials are, as far as there is room for them
        high = max(1, min(max(bounds) // 8, (2**62 - 1 - max(bounds)) // lags))
        taps = self.rng.integers(-high, high + 1, (lags, columns))
        if max(bounds) + lags * high >= 2**62:
            return None
        signs = self.draw(st.sampled_from([-1, 0, 1]))
        return Feedback("sum", signs * np.abs(taps) if signs else taps, shift)

    def taps(self, channels: int, matrix: bool, steps: int) -> Ints:
        """Small whole numbers; powers of two, negative ones and zeros among them."""
        order = steps if matrix else self.draw(st.sampled_from([1, 2, 3, 4, 7, steps]))
        if matrix and self.draw(st.booleans()):
            order = self.draw(st.integers(1, steps))  # banded
        columns = 1 if matrix else self.draw(st.sampled_from([1, channels]))
        size = (steps if matrix else 1, order, columns)
        match self.draw(st.sampled_from(["halving", "powers", "whole", "last alone"])):
            case "halving":
                falling = 2 ** np.maximum(0, min(order, 20) - 1 - np.arange(order))
                taps = np.broadcast_to(falling[:, None], size).copy()
            case "powers":
                taps = 2 ** self.rng.integers(0, 6, size) * self.rng.choice([-1, 0, 1, 1], size)
            case "whole":
                taps = self.rng.integers(-9, 10, size)
            case _:
                taps = np.zeros(size, np.int64)
                taps[:, -1] = 1
        return taps.astype(np.int64)

    def scaled(self, neurons: Neurons) -> Ints:
        """Its taps, or them times the power of two that brings the potential to where a register ends."""
        bits = max(potential_bound(self.graph(), neurons)).bit_length()
        wanted = self.draw(st.sampled_from([bits, bits, 31, 32, 62]))
        largest = int(np.abs(neurons.taps).max()).bit_length()
        return neurons.taps << max(0, min(wanted - bits, 61 - largest))

    def thresholds(self, neurons: Neurons, matrix: bool, steps: int) -> Ints:
        """Rows of potentials that occur (ties), their neighbours, and numbers that no potential reaches."""
        rows = steps if matrix else self.draw(st.integers(1, min(neurons.order, steps)))
        potential = potentials(neurons, self.maps, steps)  # [T, N, C, H, W]; without feedback
        out = np.empty((rows, neurons.choices, neurons.shape[0]), np.int64)
        for r in range(rows):
            of_row = potential[r:] if r == rows - 1 else potential[r : r + 1]
            flat = np.moveaxis(of_row, 2, 0).reshape(neurons.shape[0], -1)
            for choice in range(neurons.choices):
                picked = flat[np.arange(len(flat)), self.rng.integers(0, flat.shape[1], len(flat))]
                out[r, choice] = picked << (neurons.feedback.shift if neurons.feedback else 0)
        out = out.reshape(-1, neurons.shape[0])
        nudge = self.rng.choice([0, 0, 0, 1, -1], out.shape)
        bound = np.array(potential_bound(self.graph(), neurons), dtype=np.int64)
        never, always, far = bound + 1, -bound - 1, np.full_like(bound, 2**62)
        kind = self.rng.integers(0, 40, out.shape)
        return np.select([kind == i for i in range(4)], [never, always, far, -far], out + nudge)

    def currents(self) -> Currents:
        shift = self.draw(st.sampled_from([0, 0, 0, 3, 20]))  # with the last one sums need 64 bits
        synapses = self.synapses(room=2**22 << shift, limit=2**22)
        shape = synapses[0].out_shape
        low, high = map(np.array, current_range(self.graph(), synapses))
        # no more room than there has to be, as often as not
        most = self.draw(st.sampled_from([0, 0, 1, 100]))
        offset = self.rng.integers(-low, -low + most + 1)
        top = max(1, (int((high + offset).max()) >> shift) + self.draw(st.sampled_from([0, 0, 3])))
        zero = self.draw(st.sampled_from([0, int(offset.max()) >> shift, top // 2]))
        return Currents(self.name(), synapses, offset, shape, top, min(zero, top), shift)

    def scores(self, first: int) -> Scores:
        """Scores of a map, and of others beside it."""
        kind = self.draw(st.sampled_from(["own step", "own step", "potential"]))
        synapses = self.synapses(room=2**44 if kind == "own step" else 2**30, first=first)
        shape, steps = synapses[0].out_shape, self.steps_of(first)
        high = int(self.draw(st.sampled_from([1, 9, 2**40])))
        taps = None
        if kind == "potential":
            each = [self.taps(shape[0], False, steps)[0] for _ in synapses]
            order = min(len(one) for one in each)
            each = [np.broadcast_to(one[:order], (order, shape[0])) for one in each]
            taps = np.stack(each)
            if self.draw(st.booleans()):
                taps = taps[..., :1].copy()
            if self.draw(st.booleans()):
                taps[-1, 0] = 0  # as of own spikes, which are those of the steps before
        rows = 1 if taps is None else self.draw(st.integers(1, taps.shape[1]))
        skip = self.draw(st.sampled_from([0, 0, 0, 1, steps - 1]))
        skip = min(skip, steps - 1)
        made = Scores(
            self.name(),
            synapses,
            self.rng.integers(-high, high, (rows, shape[0])),
            shape,
            self.features(shape),
            float(self.rng.random()),
            self.rng.random(shape[0]),
            self.draw(st.sampled_from(["none", "sum", "mean", "max"])),
            self.draw(st.none() | st.integers(1, steps - skip)),
            skip,
            taps,
        )
        if taps is not None and max(score_bound(self.graph(), made)) >= 2**46:
            made = replace(made, taps=np.sign(taps))
        return made

    def synapses(
        self, room: int = 2**52, limit: int = MAX_ACCUMULATED, first: int | None = None
    ) -> tuple[Synapse, ...]:
        """One to three that end in the same shape, each from a map of its own choice; the ``first`` of one.

        With its factor none adds up more than ``room``: that leaves some for the others and 65 taps of one.
        """
        count = self.draw(st.sampled_from([1, 1, 1, 2, 3]))
        index = self.source() if first is None else first
        made = [self.synapse(index, None, room, limit, with_factor=count > 1)]
        for _ in range(count - 1):
            source = self.source(beside=made[0].source)
            made.append(self.synapse(source, made[0].out_shape, room, limit, with_factor=True))
        return (*made, *self.twins(made, room))

    def twins(self, made: Sequence[Synapse], room: int) -> list[Synapse]:
        """Synapses that take the zero of signed maps back, inside of them, as often as not."""
        added = []
        for synapse in made:
            op = self.ops[synapse.source - 1] if synapse.source else None
            if not isinstance(op, Currents) or op.zero == 0 or self.draw(st.booleans()):
                continue
            reads = [i for i, one in enumerate(self.ops, 1) if isinstance(one, Ones)]
            reads = [i for i in reads if self.ops[i - 1].source == synapse.source]
            ones = reads[0] if reads else self.add(Ones(self.name(), synapse.source, op.shape))
            factor = np.ones(len(synapse.codes), np.int64) if synapse.factor is None else synapse.factor
            back = replace(synapse, source=ones, factor=-op.zero * factor)
            largest = int(np.abs(back.factor).max())
            if largest < 2**31 and largest * int(synapse_bound(back, 1).max()) <= room:
                added.append(back)
        return added

    def synapse(
        self,
        index: int,
        out: Shape | None,
        room: int,
        limit: int = MAX_ACCUMULATED,
        *,
        with_factor: bool,
        source: Shape | None = None,
    ) -> Synapse:
        """Of a map, or of one that is not there yet, whose spikes have the shape ``source``."""
        top = self.top_of(index) if source is None else 1
        source = self.shape_of(index) if source is None else source
        channels = self.channels() if out is None else out[0]
        groups = self.groups(source[0], channels)
        if groups == source[0] and out is None and self.draw(st.booleans()):
            channels = source[0]  # depthwise
        pooled = self.draw(st.integers(0, 3)) == 0
        if out is None and source[1:] != (1, 1) and self.draw(st.integers(0, 4)) == 0:
            window, shape = Window(source[1:]), (channels, 1, 1)  # linear
            groups = 1
        else:
            window, shape = self.window(source, None if pooled else out)
            shape = (channels, *shape[1:])
        pool = self.current_pool(shape, out) if pooled else None
        size = (channels, source[0] // groups, *window.size)
        bits = self.draw(st.sampled_from(BITS))
        made = Synapse(index, self.codes(size, bits), bits, window, shape, groups, pool)
        if int(synapse_bound(made, top).max()) >= limit:  # too many high numbers for an accumulator
            made = replace(made, codes=self.codes(size, 1), bits=1)
        if int(synapse_bound(made, top).max()) >= limit:
            one = int(synapse_bound(replace(made, codes=np.ones((1, 1, 1, 1), np.int8)), top)[0])
            few = self.codes(size, 1.58).reshape(channels, -1)
            few[:, (limit - 1) // one :] = 0
            few = self.rng.permuted(few, axis=1)
            made = replace(made, codes=few.reshape(size), bits=1.58)
        return (
            replace(made, factor=self.factor(made, top, room))
            if with_factor or self.rng.random() < 0.2
            else made
        )

    def groups(self, inner: int, out: int) -> int:
        common = [g for g in range(1, inner + 1) if inner % g == 0 and out % g == 0]
        return self.draw(st.sampled_from([1, 1, *common[-2:]]))

    def current_pool(self, shape: Shape, out: Shape | None) -> CurrentPool:
        kind = self.draw(st.sampled_from(["max", "sum"]))
        window, made = self.window(shape, out, seen=kind == "max")
        return CurrentPool(kind, window, made)

    def codes(self, size: tuple[int, ...], bits: float) -> NDArray[np.int8]:
        if bits == 1:
            drawn = self.rng.choice([-1, 1], size)
        elif bits == 1.58:
            drawn = self.rng.integers(-1, 2, size)
        else:
            drawn = self.rng.integers(-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1), size)
        return drawn.astype(np.int8)

    def factor(self, synapse: Synapse, top: int, room: int) -> Ints:
        """Worth of each output: small or near 2**31, of both signs; 0 sometimes."""
        high = self.draw(st.sampled_from([3, 1000, 2**31 - 1]))
        bound = max(1, int(synapse_bound(synapse, top).max()))
        high = min(high, room // bound)
        return self.rng.integers(-high, high + 1, synapse.out_shape[0])

    def pool(self) -> Pool:
        index = self.source()
        shape, top = self.shape_of(index), self.top_of(index)
        kind = self.draw(st.sampled_from(["max", "sum"]))
        window, out = self.window(shape, seen=kind == "max")
        if kind == "sum" and top * prod(window.size) > MAX_TOP:
            window, out = Window(), shape
        return Pool(self.name(), index, kind, window, out, top * (prod(window.size) if kind == "sum" else 1))

    def time_pool(self) -> TimePool | Neurons:
        """With a window that divides the steps; neurons where there is none."""
        index = self.source()
        steps = self.steps_of(index)
        windows = [w for w in range(2, steps + 1) if steps % w == 0]
        if not windows:
            return self.neurons()
        window = self.draw(st.sampled_from(windows))
        return TimePool(self.name(), index, window, self.shape_of(index), self.top_of(index))

    def sum(self) -> Sum:
        first = self.source()
        shape = self.shape_of(first)
        equal = [i for i in self.beside(first) if self.shape_of(i) == shape]
        chosen = (first, *self.draw(st.lists(st.sampled_from(equal), max_size=2)))
        tops = [self.top_of(i) for i in chosen]
        weights = self.weights(chosen)
        top = sum(w * t for w, t in zip(weights, tops, strict=True))
        if top > MAX_TOP:
            chosen, weights, top = chosen[:1], weights[:1], weights[0] * tops[0]
        return Sum(self.name(), chosen, weights, shape, top)

    def concat(self) -> Concat:
        first = self.source()
        shape = self.shape_of(first)
        equal = [i for i in self.beside(first) if self.shape_of(i)[1:] == shape[1:]]
        chosen = (first, *self.draw(st.lists(st.sampled_from(equal), min_size=1, max_size=2)))
        while len(chosen) > 1 and sum(self.shape_of(i)[0] for i in chosen) > MAX_CHANNELS:
            chosen = chosen[:-1]
        weights = self.weights(chosen)
        top = max(w * self.top_of(i) for i, w in zip(chosen, weights, strict=True))
        channels = sum(self.shape_of(i)[0] for i in chosen)
        return Concat(self.name(), chosen, weights, (channels, *shape[1:]), top)

    def ones(self) -> Ones:
        """Of a signed map if there is one."""
        signed = [i for i, op in enumerate(self.ops, 1) if isinstance(op, Currents)]
        index = self.draw(st.sampled_from(signed)) if signed else self.source()
        return Ones(self.name(), index, self.shape_of(index))

    def gather(self, index: int | None = None, shape: Shape | None = None) -> Gather:
        """Numbers in other places: moved in the ways that models move them, or anyhow."""
        index = self.source() if index is None else index
        source = self.shape_of(index)
        places = np.arange(prod(source)).reshape(source)
        kinds = ["channels", "transposed", "repeated", "padded", "reflected", "flat", "anyhow", "anyhow"]
        match "anyhow" if shape else self.draw(st.sampled_from(kinds)):
            case "channels":
                places = places[self.rng.integers(0, source[0], self.channels())]
            case "transposed" if max(source) <= MAX_CHANNELS and prod(source) <= MAX_NUMBERS:
                places = places.transpose(self.draw(st.permutations(range(3))))
            case "repeated":
                places = places.repeat(2, axis=1).repeat(2, axis=2)[:, :6, :6]
            case "padded":
                margins = self.draw(st.tuples(*[st.integers(0, 2)] * 4))
                margins = [(0, 0), margins[:2], margins[2:]]
                places = np.pad(places, margins, constant_values=-1)[:, -6:, :6]
            case "reflected":
                places = np.pad(places, [(0, 0), (1, 1), (1, 1)], "wrap")[:, :6, :6]
            case "flat" if prod(source) <= MAX_CHANNELS:
                places = places.reshape(-1, 1, 1)
            case _:
                shape = self.pick_shape() if shape is None else shape
                places = self.rng.integers(self.draw(st.sampled_from([-1, 0])), prod(source), shape)
        top = self.top_of(index)
        fill = self.draw(st.sampled_from([0, 0, 1, top // 2, top]))
        return Gather(
            self.name(), index, places.reshape(-1).astype(np.int64), places.shape, max(top, fill), fill
        )

    def product(self) -> Product | Sum:
        """Of maps of one shape, of spikes as often as not; a sum where all numbers are too large."""
        spikes = [i for i in range(len(self.maps)) if self.top_of(i) == 1]
        first = self.draw(st.sampled_from(spikes)) if spikes and self.draw(st.booleans()) else self.source()
        shape, top = self.shape_of(first), self.top_of(first)
        fitting = [i for i in self.beside(first) if self.shape_of(i) == shape]
        fitting = [i for i in fitting if self.top_of(i) * top <= MAX_TOP]
        if not fitting:
            return self.sum()
        second = self.draw(st.sampled_from(fitting))
        return Product(self.name(), (first, second), shape, top * self.top_of(second))

    def matmul(self) -> MatMul | Sum:
        """Of maps that fit; of one whose numbers were gathered so that it does, where there is none."""
        left = self.source()
        (channels, rows, inner), top = self.shape_of(left), self.top_of(left)
        beside = [i for i in self.beside(left) if self.top_of(i) * top * inner <= MAX_TOP]
        if not beside:
            return self.sum()
        fitting = [i for i in beside if self.shape_of(i)[:2] == (channels, inner)]
        if fitting and self.draw(st.booleans()):
            right = self.draw(st.sampled_from(fitting))
        else:
            columns = self.draw(st.sampled_from(LENGTHS))
            right = self.draw(st.sampled_from(beside))
            gathered = self.gather(right, (channels, inner, columns))
            right = self.add(replace(gathered, fill=0, top=self.top_of(right)))
        top *= inner * self.top_of(right)
        return MatMul(self.name(), (left, right), (channels, rows, self.shape_of(right)[2]), top)

    def beside(self, index: int) -> list[int]:
        """Maps of as many steps."""
        return [i for i, each in enumerate(self.periods) if each == self.periods[index]]

    def weights(self, chosen: Sequence[int]) -> tuple[int, ...]:
        """1 to 3, or as much as a map can hold."""
        most = [min(MAX_WEIGHT, MAX_TOP // self.top_of(i)) for i in chosen]
        high = self.draw(st.sampled_from([1, 3, 3, 3, None]))
        if high is None:
            return tuple(most)
        return tuple(min(m, self.draw(st.integers(1, high))) for m in most)


def potentials(neurons: Neurons, maps: Sequence[Ints], steps: int, spikes: Ints | None = None) -> Ints:
    """Potentials int64 [T, N, C, H, W] that the thresholds are compared with; ``steps`` are their own.

    With the layer's ``spikes`` these take part.
    """
    current = interpret.sum_currents(neurons.synapses, maps)
    current = np.broadcast_to(current, (steps, *current.shape[1:]))
    if spikes is not None and neurons.recurrent:
        # the same by hand: what they make of all spikes, one step later
        later = sum(interpret.accumulate(synapse, spikes[:-1]) for synapse in neurons.recurrent)
        current = current + np.concatenate([np.zeros_like(current[:1]), later])
    out = np.zeros(current.shape, np.int64)
    feedback = None if spikes is None else neurons.feedback
    for t in range(steps):
        row = neurons.taps[min(t, len(neurons.taps) - 1)]
        silent = np.ones_like(current[t])
        for j in range(min(t + 1, len(row))):
            out[t] += row[j][:, None, None] * current[t - j] * silent
            if feedback is not None and feedback.kind == "age" and j < t:
                silent &= 1 - spikes[t - 1 - j]
        if feedback is not None and feedback.kind == "sum":
            out[t] <<= feedback.shift
            for j, taps in enumerate(feedback.taps[:t], start=1):
                out[t] += taps[:, None, None] * spikes[t - j]
    return out


def rows_of(neurons: Neurons, spikes: Ints) -> Ints:
    """The thresholds int64 [T, N, C, H, W] that potentials are compared with, by the rules in words."""
    table = neurons.thresholds.reshape(-1, neurons.choices, neurons.shape[0])
    out = np.zeros_like(spikes)
    for at in np.ndindex(spikes.shape):
        t, n, c, y, x = at
        before = spikes[:t, n, c, y, x]
        row, choice = t, 0
        if neurons.feedback is not None and neurons.feedback.kind == "age" and before.any():
            row = t - 1 - int(np.flatnonzero(before)[-1])
        if neurons.feedback is not None and neurons.feedback.kind == "table":
            taps = neurons.feedback.taps[:, 0]
            choice = sum(int(tap) for tap, spike in zip(taps, before[::-1], strict=False) if spike)
            choice -= int(taps[taps < 0].sum())
        out[at] = table[min(row, len(table) - 1), choice, c]
    return out


def examples(count: int, number: int, *, max_ops: int = 5) -> list[Case]:
    """``count`` cases, the same for the same ``number`` in one version of hypothesis."""
    found: list[Case] = []

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases(max_ops=max_ops))
    def draw(case: Case) -> None:
        found.append(case)

    draw()
    return found
