"""What is drawn for Verilog: networks of layers of all kinds, with inputs.

Each layer reads the one before it, and some read other maps too.

Thresholds are potentials that occur, so that ties are hit.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.check import MAX_SCORE
from mfp_neurons.deploy.graph import (
    CurrentPool,
    Currents,
    Feedback,
    Graph,
    Input,
    Ints,
    Neurons,
    Op,
    Pair,
    Scores,
    Shape,
    Synapse,
    TimePool,
    Window,
    current_range,
    score_bound,
)
from mfp_neurons.deploy.verilog.layers import layer
from tests.deploy.graphs import BITS, Case, axes, potentials

LENGTHS = [1, 2, 3, 5, 8, 9, 17]
SIDES = [1, 2, 3, 4]
TOPS = [1, 1, 1, 2, 3, 16, 255, 1000]
NEVER = 2**62


def chains() -> st.SearchStrategy[Case]:
    """Valid networks with an input [T, N, C, H, W]."""
    # of one seed: what is drawn piece by piece is often the same again, and a simulation is slow
    return st.integers(0, 2**32 - 1).map(chain)


def chain(seed: int) -> Case:
    """The network of a seed."""
    return _Chain(seed).case()


def cycles(case: Case, lanes: int) -> int:
    """How many clock cycles a simulation takes, about."""
    fed = [
        (layer(case.graph, op, lanes).cycles, steps)
        for op, steps in zip(case.graph.ops, case.own_steps[1:], strict=True)
        if isinstance(op, Neurons | Currents | Scores)
    ]
    return case.levels.shape[1] * sum(each * steps for each, steps in fed)


class _Chain:
    """One network under construction."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.ops: list[Op] = []
        self.steps = self.pick([1, 2, 3, 4, 6])
        self.shape: Shape = self.pick([*[(n, 1, 1) for n in LENGTHS], *[None] * 6]) or self.image()
        self.top = self.pick(TOPS)
        self.input = Input(self.shape, self.pick([self.shape, (prod(self.shape),)]), self.top)
        size = (self.steps, 1 if self.shape[1] > 1 else self.pick([1, 2]), *self.shape)
        silent = self.rng.random((self.steps, 1, *self.shape)) < 0.2
        self.maps: list[Ints] = [np.where(silent, 0, self.rng.integers(0, self.top + 1, size))]

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[self.rng.integers(len(choices))]

    def image(self) -> Shape:
        return self.pick(SIDES), self.pick(SIDES), self.pick(SIDES)

    @property
    def own_steps(self) -> int:
        """Of the newest map."""
        return len(self.maps[-1])

    def case(self) -> Case:
        levels = self.maps[0]
        for _ in range(self.pick([0, 1, 1, 2, 3])):
            kind = self.pick(["time pool", "currents", *["neurons"] * 4])
            windows = [w for w in (2, 3, 4) if self.own_steps % w == 0]
            if kind == "time pool" and windows:
                self.add(TimePool("pool", len(self.ops), self.pick(windows), self.shape, self.top))
            elif kind == "currents":
                self.add(self.currents())
            else:
                self.add(self.neurons())
        self.ops.append(self.scores())
        dtype = np.uint8 if self.input.top <= 255 else np.uint16
        return Case(self.graph(), levels.astype(dtype), self.steps)

    def graph(self) -> Graph:
        return Graph(self.input, tuple(self.ops), self.steps)

    def add(self, op: Neurons | Currents | TimePool) -> None:
        self.maps.append(interpret.evaluate(op, self.maps, self.own_steps))
        self.ops.append(op)
        self.shape, self.top = op.shape, op.top

    # what feeds a layer

    def synapses(self) -> tuple[Synapse, ...]:
        """One of the newest map, and as often as not others beside it that end in the same shape."""
        first = self.synapse(len(self.ops), self.shape)
        beside = [i for i, one in enumerate(self.maps) if len(one) == self.own_steps]
        others = [self.pick(beside) for _ in range(self.pick([0, 0, 0, 1, 2]))]
        return (first, *(self.synapse(i, self.maps[i].shape[2:], first.out_shape) for i in others))

    def synapse(self, source: int, shape: Shape, out: Shape | None = None) -> Synapse:
        """A linear layer or a convolution, pooled or not, of a map of a shape, that ends in a shape."""
        bits, pool = self.pick(BITS), None
        if out is None and self.pick([True, False]):
            outputs, places, window, groups = self.pick(LENGTHS), (1, 1), Window(shape[1:]), 1
        else:
            pooled = self.pick([True, False, False])
            window, places = self.window(shape[1:], None if pooled or out is None else out[1:])
            outputs = out[0] if out else self.pick([1, 2, 3, 4, 6])
            groups = self.pick([g for g in range(1, shape[0] + 1) if shape[0] % g == 0 and outputs % g == 0])
            if pooled:
                kind = self.pick(["max", "sum"])
                pool_window, ends = self.window(places, out[1:] if out else None, seen=kind == "max")
                pool = CurrentPool(kind, pool_window, (outputs, *ends))
        codes = _codes(self.rng, (outputs, shape[0] // groups, *window.size), bits)
        factor = self.rng.integers(-1000, 1001, outputs) if self.pick([True, False, False]) else None
        return Synapse(source, codes, bits, window, (outputs, *places), groups, pool, factor)

    def window(
        self, lengths: Sequence[int], out: Sequence[int] | None, *, seen: bool = False
    ) -> tuple[Window, Pair]:
        """A window over a map of these lengths, and the lengths of what it gives: ``out``, or any."""
        chosen = []
        for length, wanted in zip(lengths, (None, None) if out is None else out, strict=True):
            found = [a for a in axes(length, wanted) if a.size <= 3 and a.out <= 4 and (a.seen or not seen)]
            usual = [axis for axis in found if axis.natural]
            chosen.append(self.pick(usual if usual and self.pick([True, True, False]) else found))
        row, column = chosen
        pairs = ("size", "stride", "padding", "dilation")
        window = Window(*((getattr(row, name), getattr(column, name)) for name in pairs))
        return window, (row.out, column.out)

    def taps(self, rows: int = 1, order: int | None = None) -> Ints:
        """[rows, K, 1]: powers of two, whole numbers, or large ones; negative and 0 among them."""
        order = order or self.pick([1, 2, 2, 3, 3, 4, 5, self.own_steps + 2])
        order = min(order, rows) if rows > 1 else order
        size = (rows, order, 1)
        match self.pick(["one", "halving", "powers", "powers", "whole", "large", "zeros"]):
            case "one":
                taps = np.ones(size, np.int64)
            case "halving":
                taps = np.broadcast_to(2 ** np.arange(order)[::-1, None], size)
            case "powers":
                taps = 2 ** self.rng.integers(0, 9, size) * self.rng.choice([-1, 0, 1, 1], size)
            case "whole":
                taps = self.rng.integers(-9, 10, size)
            case "large":
                taps = self.rng.integers(-(2**25), 2**25, size)
            case _:
                taps = np.zeros(size, np.int64)
        return taps.astype(np.int64)

    # layers

    def neurons(self) -> Neurons:
        """Of taps for all outputs, for each its own, or for each step."""
        synapses = self.synapses()
        shape = synapses[0].out_shape
        matrix = self.own_steps > 1 and self.pick([True, *[False] * 5])
        taps = self.taps(self.own_steps if matrix else 1)
        if not matrix and self.pick([True, False]):
            taps = np.repeat(taps, shape[0], axis=2) * self.rng.choice([1, 2, -1, 9], (1, 1, shape[0]))
        recurrent = ()
        if self.pick([True, *[False] * 3]):
            own = len(self.maps)
            recurrent = tuple(self.synapse(own, shape, shape) for _ in range(self.pick([1, 1, 2])))
        feedback = None if matrix else self.feedback(shape[0], taps)
        unit = np.ones(shape[0])
        zeros = np.zeros((1, shape[0]), np.int64)
        made = Neurons("hidden", synapses, taps, zeros, shape, unit, 0 * unit, feedback, recurrent)
        return replace(made, thresholds=self.thresholds(made))

    def feedback(self, outputs: int, taps: Ints) -> Feedback | None:
        match self.pick([*["none"] * 4, "sum", "table", "age"]):
            case "sum":
                size = (self.pick([1, 2, 3, 7]), self.pick([1, outputs]))
                high = int(np.abs(taps).max()) * 4 + 2
                own = self.rng.integers(-high, high, size)
                return Feedback("sum", own, self.pick([0, 0, 1, 5]))
            case "table":
                own = self.pick([2 ** np.arange(3), np.ones(4, np.int64), self.rng.integers(-3, 4, 5)])
                return Feedback("table", own.astype(np.int64)[:, None])
            case "age" if taps.shape[1] > 1:
                return Feedback("age")
        return None

    def thresholds(self, made: Neurons) -> Ints:
        """Potentials, or what none reaches."""
        outputs, steps, choices = made.shape[0], self.own_steps, made.choices
        rows = steps if made.steps else int(self.rng.integers(1, made.order + 1))
        potential = potentials(made, self.maps, steps).swapaxes(2, 4)
        thresholds = np.empty((rows, choices, outputs), np.int64)
        for row in range(rows):
            values = potential[min(row, steps - 1) :].reshape(-1, outputs)
            picked = self.rng.integers(0, len(values), (choices, outputs))
            thresholds[row] = values[picked, np.arange(outputs)]
        thresholds += self.rng.choice([0, 0, 0, 1, -1], thresholds.shape)
        if self.rng.integers(2) == 0 and rows > 1 and not made.steps:
            # as a bias moves them: a line through the potentials, rounded down
            shift, reached = self.rng.integers(0, 6), made.taps[0].cumsum(axis=0)[:rows, None]
            slope = self.rng.integers(-40, 41, outputs) << max(0, int(shift) - 2)
            thresholds = ((thresholds[-1:] << shift) - slope * (reached - reached[-1])) >> shift
        else:
            far = self.rng.integers(0, 20, thresholds.shape)
            thresholds = np.select([far == 0, far == 1], [NEVER, -NEVER], thresholds)
        if made.feedback is not None:
            thresholds = np.where(abs(thresholds) < NEVER, thresholds << made.feedback.shift, thresholds)
        return thresholds.reshape(-1, outputs)

    def currents(self) -> Currents:
        synapses = tuple(replace(one, factor=None) for one in self.synapses())
        outputs, *_ = shape = synapses[0].out_shape
        low, high = map(np.array, current_range(self.graph(), synapses))
        shift = max(0, int((high - low).max()).bit_length() - self.pick([2, 4, 8]))
        offset = (-low + self.rng.integers(0, 9, outputs)).astype(np.int64)
        top = int((high + offset).max()) >> shift
        return Currents("currents", synapses, offset, shape, max(1, top + self.pick([0, 3])), 0, shift)

    def scores(self) -> Scores:
        synapses = self.synapses()
        outputs, *_ = shape = synapses[0].out_shape
        order = self.taps().shape[1]
        taps = (
            np.concatenate([self.taps(order=order) for _ in synapses]) if self.pick([True, False]) else None
        )
        if taps is not None and self.pick([True, False]):
            taps = np.repeat(taps, outputs, axis=2) * self.rng.integers(0, 3, outputs)
        rows = 1 if taps is None else self.pick(range(1, taps.shape[1] + 1))
        offset = self.rng.integers(-(2 ** self.pick([1, 10, 40])), 2**10, (rows, outputs))
        features = self.pick([shape, (prod(shape),)])
        zeros = np.zeros(outputs)
        made = Scores("scores", synapses, offset, shape, features, 0.5, zeros, reduce="none", taps=taps)
        small = taps is None or max(score_bound(self.graph(), made)) < MAX_SCORE
        return made if small else replace(made, taps=np.sign(taps))


def _codes(rng: np.random.Generator, size: tuple[int, ...], bits: float) -> NDArray[np.int8]:
    if bits == 1:
        return rng.choice(np.array([-1, 1], np.int8), size)
    high = 1 if bits == 1.58 else 2 ** (int(bits) - 1) - 1
    low = -1 if bits == 1.58 else -high - 1
    return rng.integers(low, high + 1, size).astype(np.int8)
