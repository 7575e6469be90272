"""Asynchronous execution: every spike updates what it reaches, in whatever order the spikes of a step come.

The work goes with the spikes: a synapse adds one row of codes for each spike and place that it reaches, and
only neurons that something reached in the last K steps, or that fired themselves in the last R, are compared
with their thresholds. All others have a potential of zero; whether that fires is the same for a whole
channel. Sums of whole numbers do not depend on the order of their terms, so the result is that of
:mod:`.interpret`, bit for bit. A layer with feedback, or with synapses from itself, takes its steps one after
the other; what its other synapses add up does not wait for them.

What costs an operation:

    synapse   one for each event and code that is not 0 that it reaches: an addition, one for each unit of its
              level, where levels count spikes; a multiplication where they do not, as of input levels,
              Currents, Products, MatMuls and what is made of these
    Product   one for each place where both numbers are above 0
    MatMul    one for each pair of numbers above 0 that meet, left[c, i, k] and right[c, k, j]

One of a Product or MatMul is an addition where one of its two maps is of spikes, else a multiplication.
Nothing else is counted. A signed map has its ``zero`` at every place where nothing came, so all of it is
events, and so is a map of Ones: behind them the work no longer goes with the spikes.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .graph import (
    Concat,
    CurrentPool,
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
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
    sources,
    without_groups,
)

Rows = tuple[Ints, Ints, Ints, Ints]  # time, sample, row, column: one entry a place


@dataclass(frozen=True)
class Events:
    """Numbers above 0 of a map, in any order: arrays of one length, ``level`` at (time, sample, ...).

    Time counts the map's own steps, of which there are fewer behind a pooling over time.
    """

    time: Ints
    sample: Ints
    channel: Ints
    row: Ints
    column: Ints
    level: Ints

    def __len__(self) -> int:
        return len(self.level)

    @property
    def places(self) -> Rows:
        """Where they are, without channels."""
        return self.time, self.sample, self.row, self.column

    @property
    def elements(self) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Their indices in a map [T, N, C, H, W]."""
        return self.time, self.sample, self.channel, self.row, self.column


class Reached(NamedTuple):
    """Whole numbers [places, C] at the places of a layer that something reached; all others are 0.

    Attributes:
        places: sorted flat indices over (time, sample, row, column).
        values: one row a place.
    """

    places: Ints
    values: Ints


class Counts(NamedTuple):
    """Operations: additions for spikes, and multiplications of numbers that are no counts of spikes."""

    synaptic_operations: int
    multiply_accumulates: int


Adder = Callable[[Synapse, Events, int, int, bool], tuple[Reached, int]]


def run(
    graph: Graph, events: Events, samples: int, steps: int, adder: Adder | None = None
) -> tuple[list[Ints], list[Events], Counts]:
    """All steps of a network, driven by events.

    Args:
        graph: a valid network.
        events: the input's.
        samples, steps: N and T of the input, a multiple of ``graph.period``.
        adder: what adds codes up; None is :func:`scatter`, :meth:`.Compiled.scatter` the same compiled.

    Returns:
        The scores of every head at every step that it has, whole numbers [T, N, C, H, W]; the events of every
        map, the input's first; the operations that the spikes caused.
    """
    maps, scores = [events], []
    additions = multiplications = 0
    multiplied = _multiplied(graph)
    for op, period in zip(graph.ops, graph.periods[1:], strict=True):
        layer = _Layer(graph, maps, samples, steps // period, adder or scatter, multiplied)
        if isinstance(op, Scores):
            scores.append(layer.scores(op))
        else:
            maps.append(layer.events(op))
        additions += layer.additions
        multiplications += layer.multiplications
    return scores, maps, Counts(additions, multiplications)


def of_levels(levels: NDArray[Any], steps: int) -> Events:
    """The events of a dense input [T, N, C, H, W], or [1, N, C, H, W] for the same at every step."""
    shown = np.broadcast_to(levels, (steps, *levels.shape[1:]))
    time, sample, channel, row, column = np.nonzero(shown)
    return Events(time, sample, channel, row, column, shown[shown > 0].astype(np.int64))


def dense(events: Events, shape: Shape, samples: int, steps: int) -> Ints:
    """The map [T, N, C, H, W] that events stand for; ``steps`` are its own."""
    numbers = np.zeros((steps, samples, *shape), np.int64)
    numbers[events.elements] = events.level
    return numbers


def scatter(
    synapse: Synapse, source: Events, samples: int, steps: int, by_level: bool
) -> tuple[Reached, int]:
    """What the events of a map add up to, and how many operations that takes.

    One for each code that is not 0 that an event reaches, or ``by_level`` one for each unit of its level.
    """
    # by the channel that an event comes from
    by_source = np.moveaxis(without_groups(synapse), 0, 1)
    rows: list[tuple[Ints, Ints]] = []
    operations = 0
    for (i, j), hit, places in _reach(source.places, samples, synapse.window, synapse.shape):
        codes = by_source[source.channel[hit], :, i, j]
        rows.append((places, codes * source.level[hit, None]))
        operations += int((np.count_nonzero(codes, axis=1) * (source.level[hit] if by_level else 1)).sum())
    return _add_rows(rows, synapse.shape[0]), operations


def _multiplied(graph: Graph) -> set[int]:
    """Maps whose numbers are multiplied: those of all others are so many spikes."""
    multiplied = {0} if graph.input.top > 1 else set()
    for index, op in enumerate(graph.body, start=1):
        # pools and sums of input levels have always counted as those of spikes do
        inherits = not isinstance(op, Neurons) and any(source in multiplied - {0} for source in sources(op))
        if op.top > 1 and (inherits or isinstance(op, Currents | Product | MatMul)):
            multiplied.add(index)
    return multiplied


class _Layer:
    """One operation of ``steps`` steps of its own, which makes events of the ``maps`` before it.

    It counts the additions and multiplications that these cause.
    """

    def __init__(
        self,
        graph: Graph,
        maps: list[Events],
        samples: int,
        steps: int,
        adder: Adder,
        multiplied: Collection[int],
    ) -> None:
        self.graph, self.maps, self.samples, self.steps, self.adder = graph, maps, samples, steps, adder
        self.multiplied = multiplied
        self.additions = self.multiplications = 0

    def events(self, op: Op) -> Events:
        match op:
            case Neurons():
                in_turn = op.feedback is not None or op.recurrent
                return self._fire_in_turn(op) if in_turn else self._fire(op)
            case Currents():
                return self._numbers(op)
            case Pool():
                return self._pool(op)
            case TimePool():
                source = self.maps[op.source]
                # the largest number of a window that has events is that of one of them; 0 makes no event
                joined = replace(source, time=source.time // op.window)
                return self._merge([joined], op.shape, largest=True)
            case Sum():
                return self._merge(self._weighed(op), op.shape)
            case Concat():
                channels = [self.graph.map_shape(index)[0] for index in op.sources]
                firsts = np.cumsum([0, *channels[:-1]])
                parts = zip(self._weighed(op), firsts, strict=True)
                return _join([replace(part, channel=part.channel + first) for part, first in parts])
            case Gather():
                return self._gather(op)
            case Ones():
                places = np.arange(self._count_places(op.shape))
                return self._events(places, np.ones((len(places), op.shape[0]), np.bool_), op.shape)
            case Product():
                return self._product(op)
            case MatMul():
                return self._matmul(op)
        raise TypeError(f"{type(op).__name__} makes no map")

    def scores(self, op: Scores) -> Ints:
        channels, *size = op.shape
        if op.taps is None:
            reached = self._current(op)
        else:
            parts = [self._accumulate(synapse) for synapse in op.synapses]
            spread = [self._spread(op.taps[s : s + 1], part, op.shape) for s, part in enumerate(parts)]
            reached = _add_rows(spread, channels)
        scores = np.zeros((self.steps, self.samples, *size, channels), np.int64)
        # places count (time, sample, row, column), so channels come last until the end
        scores.reshape(-1, channels)[reached.places] = reached.values
        offset = op.offset[np.minimum(np.arange(self.steps), len(op.offset) - 1)]
        return np.moveaxis(scores + offset[:, None, None, None], -1, 2)

    # --- synapses

    def _current(self, op: Neurons | Currents | Scores) -> Reached:
        """What the synapses of an operation add up where they add up anything."""
        return _add_rows([self._accumulate(synapse) for synapse in op.synapses], op.shape[0])

    def _accumulate(self, synapse: Synapse) -> Reached:
        return self._accumulate_of(synapse, self.maps[synapse.source], self.steps)

    def _accumulate_of(self, synapse: Synapse, source: Events, steps: int) -> Reached:
        """What a synapse adds up of events that lie in ``steps`` steps."""
        spikes = synapse.source not in self.multiplied
        reached, operations = self.adder(synapse, source, self.samples, steps, spikes)
        self._add_operations(operations, spikes)
        if synapse.pool is not None:
            reached = self._pool_current(synapse.pool, reached, synapse.shape)
        return reached if synapse.factor is None else Reached(reached.places, reached.values * synapse.factor)

    def _pool_current(self, pool: CurrentPool, reached: Reached, shape: Shape) -> Reached:
        at, channels = self._rows(reached.places, shape), shape[0]
        rows = [
            (places, reached.values[hit])
            for _, hit, places in _reach(at, self.samples, pool.window, pool.shape)
        ]
        if pool.kind == "sum":
            return _add_rows(rows, channels)
        places, inverse, values = _distinct(rows, channels)
        largest = np.full((len(places), channels), np.iinfo(np.int64).min)
        np.maximum.at(largest, inverse, values)
        # where fewer places were reached than the window has inside the map, the others count 0
        _, _, y, x = self._rows(places, pool.shape)
        size = _places_inside(y, 0, pool.window, shape[1]) * _places_inside(x, 1, pool.window, shape[2])
        partly = np.bincount(inverse, minlength=len(places)) < size
        largest[partly] = np.maximum(largest[partly], 0)
        return Reached(places, largest)

    def _add_operations(self, count: int, additions: bool) -> None:
        if additions:
            self.additions += count
        else:
            self.multiplications += count

    def _count_places(self, shape: Shape) -> int:
        return self.steps * self.samples * shape[1] * shape[2]

    def _rows(self, places: Ints, shape: Shape) -> Rows:
        time, sample, row, column = np.unravel_index(places, (self.steps, self.samples, shape[1], shape[2]))
        return time, sample, row, column

    # --- neurons

    def _fire(self, op: Neurons) -> Events:
        current = self._current(op)
        potential = _add_rows([self._spread(op.taps, current, op.shape)], op.shape[0])
        time = self._rows(potential.places, op.shape)[0]
        fires = potential.values >= op.thresholds[np.minimum(time, len(op.thresholds) - 1)]
        reached = self._events(potential.places, fires, op.shape)
        # all other potentials are 0, which fires where a threshold is not above it
        rows = np.minimum(np.arange(self.steps), len(op.thresholds) - 1)
        eager = op.thresholds[rows] <= 0  # [T, C]
        if not eager.any():
            return reached
        all_places = np.arange(self._count_places(op.shape))
        places = np.setdiff1d(all_places, potential.places, assume_unique=True)
        return _join([reached, self._events(places, eager[self._rows(places, op.shape)[0]], op.shape)])

    def _fire_in_turn(self, op: Neurons) -> Events:
        """The same step after step, since a spike takes part in those that follow it."""
        feedback, size = op.feedback, self.samples * op.shape[1] * op.shape[2]
        kind, start = ("", 0) if feedback is None else (feedback.kind, feedback.start)
        currents = self._by_step(self._current(op), size)  # those of later steps without own spikes
        table, channels = op.threshold_table, np.arange(op.shape[0])
        # where nothing came and nothing fired, a potential of 0 meets the first threshold of a step
        eager = bool((table[:, start] <= 0).any())
        spikes = np.zeros((self.steps, size, op.shape[0]), np.bool_)  # the layer's own, by place of a step
        since = np.zeros((size, op.shape[0]), np.int64)  # steps since the last of them, or the start
        for t in range(self.steps):
            if op.recurrent and t > 0:
                # the spikes of one step, as if there were no other
                fired = self._events(np.arange(size), spikes[t - 1], op.shape)
                rows = [self._accumulate_of(synapse, fired, 1) for synapse in op.recurrent]
                currents[t] = _add_rows([currents[t], *rows], op.shape[0])
            reached, potential = self._potential_of(op, currents, t, since)
            places, own = self._own_sums(op, spikes[:t])
            at = np.arange(size) if eager else np.unique(np.concatenate([reached, places]))
            values = np.zeros((2, len(at), op.shape[0]), np.int64)
            values[0, np.searchsorted(at, reached)] = potential
            values[1, np.searchsorted(at, places)] = own
            choice = values[1] + start if kind == "table" else 0
            if feedback is not None and kind == "sum":
                values[0] = (values[0] << feedback.shift) + values[1]
            row = np.minimum(since[at] if kind == "age" else t, len(table) - 1)
            spikes[t, at] = values[0] >= table[row, choice, channels]
            if kind == "age":
                since = np.where(spikes[t], 0, since + 1)
        return self._events(np.arange(self.steps * size), spikes.reshape(-1, op.shape[0]), op.shape)

    def _by_step(self, current: Reached, size: int) -> list[Reached]:
        """Step by step, with places counted from where the step begins; each has ``size`` of them."""
        starts = np.searchsorted(current.places, size * np.arange(self.steps + 1))
        return [
            Reached(current.places[a:b] - t * size, current.values[a:b])
            for t, (a, b) in enumerate(pairwise(starts))
        ]

    def _potential_of(self, op: Neurons, currents: list[Reached], t: int, since: Ints) -> tuple[Ints, Ints]:
        """Places of step t whose last K steps had a current, and their potentials."""
        rows = []
        aged = op.feedback is not None and op.feedback.kind == "age"
        taps = op.taps[min(t, len(op.taps) - 1)]
        for j in range(min(op.order, t + 1)):
            places, values = currents[t - j]
            counts = since[places] >= j if aged else 1
            rows.append((places, taps[j] * values * counts))
        return _add_rows(rows, op.shape[0])

    def _own_sums(self, op: Neurons, spikes: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Places that fired in the last R steps, and what their spikes add up to."""
        rows = []
        if op.feedback is not None and op.feedback.taps is not None:
            for taps, fired in zip(op.feedback.taps, spikes[::-1], strict=False):
                places = np.nonzero(fired.any(axis=1))[0]
                rows.append((places, taps * fired[places]))
        return _add_rows(rows, op.shape[0])

    def _spread(self, taps: Ints, current: Reached, shape: Shape) -> tuple[Ints, Ints]:
        """What currents add, with taps [1 or T, K, 1 or C], to the steps that look back at them."""
        time = self._rows(current.places, shape)[0]
        places_a_step = self.samples * shape[1] * shape[2]
        places, values = [], []
        # a current goes to the potentials of its own step and of the K - 1 that follow, each with its tap
        for j in range(min(taps.shape[1], self.steps)):
            hit = np.nonzero(time + j < self.steps)[0]
            places.append(current.places[hit] + j * places_a_step)
            values.append(taps[np.minimum(time[hit] + j, len(taps) - 1), j] * current.values[hit])
        return np.concatenate(places), np.concatenate(values)

    def _numbers(self, op: Currents) -> Events:
        """Currents and their offset, which is also where nothing came."""
        places, values = self._current(op)
        if (op.offset > 0).any():
            numbers = np.zeros((self._count_places(op.shape), op.shape[0]), np.int64)
            numbers[places] = values
            places, values = np.arange(len(numbers)), numbers
        return self._events(places, (values + op.offset) >> op.shift, op.shape)

    def _events(self, places: Ints, values: NDArray[Any], shape: Shape) -> Events:
        """Where ``values`` [places, C] are not 0: numbers, or True for a spike."""
        time, sample, row, column = self._rows(places, shape)
        # a row of ``values`` is a place; each of its channels that is not 0 becomes an event
        which, channel = np.nonzero(values)
        level = values[which, channel].astype(np.int64)
        return Events(time[which], sample[which], channel, row[which], column[which], level)

    # --- maps

    def _pool(self, op: Pool) -> Events:
        source, parts = self.maps[op.source], []
        for _, hit, places in _reach(source.places, self.samples, op.window, op.shape):
            # windows overlap: an event becomes one for each output that sees it, and these are merged
            time, sample, row, column = self._rows(places, op.shape)
            parts.append(Events(time, sample, source.channel[hit], row, column, source.level[hit]))
        return self._merge(parts, op.shape, largest=op.kind == "max")

    def _gather(self, op: Gather) -> Events:
        """Every event at all places that show its own; ``fill`` at the others, in every step."""
        source, sizes = self.maps[op.source], (self.steps, self.samples)
        flat = np.ravel_multi_index(source.elements[2:], self.graph.map_shape(op.source))
        which, place = _pairs(flat, op.places)
        channel, row, column = np.unravel_index(place, op.shape)
        moved = Events(source.time[which], source.sample[which], channel, row, column, source.level[which])
        filled = np.nonzero(op.places < 0)[0] if op.fill else np.zeros(0, np.int64)
        time, sample, number = np.indices((*sizes, len(filled))).reshape(3, -1)
        channel, row, column = np.unravel_index(filled[number], op.shape)
        return _join([moved, Events(time, sample, channel, row, column, np.full(len(time), op.fill))])

    def _product(self, op: Product) -> Events:
        left, right = (self.maps[source] for source in op.sources)
        sizes = self.steps, self.samples, *op.shape
        one, other = _pairs(*(np.ravel_multi_index(part.elements, sizes) for part in (left, right)))
        self._add_products(op, len(one))
        level = left.level[one] * right.level[other]
        return replace(Events(*(column[one] for column in vars(left).values())), level=level)

    def _matmul(self, op: MatMul) -> Events:
        left, right = (self.maps[source] for source in op.sources)
        # what meets: of one step, sample and channel, where a column of the left is a row of the right
        sizes = self.steps, self.samples, op.shape[0], self.graph.map_shape(op.sources[1])[1]
        keys = (*left.elements[:3], left.column), (*right.elements[:3], right.row)
        one, other = _pairs(*(np.ravel_multi_index(key, sizes) for key in keys))
        self._add_products(op, len(one))
        met = Events(*(column[one] for column in vars(left).values()))
        met = replace(met, column=right.column[other], level=met.level * right.level[other])
        return self._merge([met], op.shape)

    def _add_products(self, op: Product | MatMul, count: int) -> None:
        self._add_operations(count, any(self.graph.map_top(source) == 1 for source in op.sources))

    def _weighed(self, op: Sum | Concat) -> list[Events]:
        """The sources times their weights."""
        sources = [self.maps[index] for index in op.sources]
        return [replace(s, level=s.level * weight) for s, weight in zip(sources, op.weights, strict=True)]

    def _merge(self, parts: list[Events], shape: Shape, largest: bool = False) -> Events:
        """One event for each element: the sum of all that fell on it, or the largest."""
        events = _join(parts)
        sizes = self.steps, self.samples, *shape
        # unique puts events of one element side by side, whatever order they came in
        elements, inverse = np.unique(np.ravel_multi_index(events.elements, sizes), return_inverse=True)
        level = np.zeros(len(elements), np.int64)
        (np.maximum if largest else np.add).at(level, inverse, events.level)
        time, sample, channel, row, column = np.unravel_index(elements, sizes)
        return Events(time, sample, channel, row, column, level)


def _reach(
    at: Rows, samples: int, window: Window, shape: Shape
) -> Iterator[tuple[tuple[int, int], NDArray[np.intp], Ints]]:
    """For each place of a window: which rows of ``at`` are seen there, and the output places that see it."""
    time, sample, row, column = at
    for i in range(window.size[0]):
        y, in_rows = _outputs(row, i, 0, window, shape[1])
        for j in range(window.size[1]):
            x, in_columns = _outputs(column, j, 1, window, shape[2])
            hit = np.nonzero(in_rows & in_columns)[0]
            places = ((time[hit] * samples + sample[hit]) * shape[1] + y[hit]) * shape[2] + x[hit]
            yield (i, j), hit, places


def _outputs(
    position: Ints, place: int, axis: int, window: Window, length: int
) -> tuple[Ints, NDArray[np.bool_]]:
    """The output that sees a source position at this place of its window, and whether there is one."""
    start = position + window.padding[axis] - place * window.dilation[axis]
    output = start // window.stride[axis]
    return output, (start % window.stride[axis] == 0) & (output >= 0) & (output < length)


def _places_inside(output: Ints, axis: int, window: Window, length: int) -> Ints:
    """How many places of an output's window lie inside a map of this length."""
    places = np.arange(window.size[axis]) * window.dilation[axis]
    position = output[:, None] * window.stride[axis] - window.padding[axis] + places
    return ((position >= 0) & (position < length)).sum(axis=1)


def _pairs(left: Ints, right: Ints) -> tuple[Ints, Ints]:
    """The indices of all pairs of equal numbers, one of each array."""
    order = np.argsort(right, kind="stable")
    first, end = (np.searchsorted(right[order], left, side) for side in ("left", "right"))
    counts = end - first
    # of the pairs of one number on the left, in order: how many stand before them, and which one this is
    before = np.repeat(np.cumsum(counts) - counts, counts)
    number = np.arange(len(before)) - before
    return np.repeat(np.arange(len(left)), counts), order[np.repeat(first, counts) + number]


def _distinct(rows: list[tuple[Ints, Ints]], channels: int) -> tuple[Ints, NDArray[np.intp], Ints]:
    """Distinct places of (places, values), the index among them of every row, and all values [rows, C]."""
    values = np.concatenate([np.zeros((0, channels), np.int64), *(values for _, values in rows)])
    all_places = np.concatenate([np.zeros(0, np.int64), *(places for places, _ in rows)])
    places, inverse = np.unique(all_places, return_inverse=True)
    return places, inverse, values


def _add_rows(rows: list[tuple[Ints, Ints]], channels: int) -> Reached:
    """Values that fall on the same place, added."""
    places, inverse, values = _distinct(rows, channels)
    total = np.zeros((len(places), channels), np.int64)
    np.add.at(total, inverse, values)
    return Reached(places, total)


def _join(parts: list[Events]) -> Events:
    """The events of all parts."""
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Events)}
    return Events(**{name: np.concatenate([np.zeros(0, np.int64), *c]) for name, c in columns.items()})
