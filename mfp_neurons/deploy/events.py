"""Asynchronous execution: every spike updates what it reaches, in whatever order the spikes of a step come.

The work goes with the spikes: a synapse adds one row of codes for each spike and place that it reaches, and
only neurons that something reached in the last K steps, or that fired themselves in the last R, are compared
with their thresholds. All others have a potential of zero; whether that fires is the same for a whole
channel. Sums of whole numbers do not depend on the order of their terms, so the result is that of
:mod:`.interpret`, bit for bit. A layer with feedback takes its steps one after the other; what its synapses
add up does not wait for them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .graph import (
    Concat,
    CurrentPool,
    Feedback,
    Graph,
    Ints,
    Neurons,
    Op,
    Pool,
    Scores,
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
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
    """Operations: additions of a code for a spike, multiplications of a code with an input level above 1."""

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
    for op, period in zip(graph.ops, graph.periods[1:], strict=True):
        layer = _Layer(graph, maps, samples, steps // period, adder or scatter)
        if isinstance(op, Scores):
            scores.append(layer.scores(op))
        else:
            maps.append(layer.events(op))
        additions += layer.additions
        multiplications += layer.multiplications
    return scores, maps, Counts(additions, multiplications)


def of_levels(levels: NDArray[np.uint8], steps: int) -> Events:
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
    by_source = _by_source(synapse)
    rows: list[tuple[Ints, Ints]] = []
    operations = 0
    for (i, j), hit, places in _reach(source.places, samples, synapse.window, synapse.shape):
        codes = by_source[source.channel[hit], :, i, j]
        rows.append((places, codes * source.level[hit, None]))
        operations += int((np.count_nonzero(codes, axis=1) * (source.level[hit] if by_level else 1)).sum())
    return _add_rows(rows, synapse.shape[0]), operations


class _Layer:
    """One operation of ``steps`` steps of its own, which makes events of the ``maps`` before it.

    It counts the additions and multiplications that these cause.
    """

    def __init__(self, graph: Graph, maps: list[Events], samples: int, steps: int, adder: Adder) -> None:
        self.graph, self.maps, self.samples, self.steps, self.adder = graph, maps, samples, steps, adder
        self.additions = self.multiplications = 0

    def events(self, op: Op) -> Events:
        match op:
            case Neurons():
                return self._fire(op) if op.feedback is None else self._fire_in_turn(op, op.feedback)
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
        raise TypeError(f"{type(op).__name__} makes no map")

    def scores(self, op: Scores) -> Ints:
        reached = self._current(op)
        channels, *size = op.shape
        scores = np.zeros((self.steps, self.samples, *size, channels), np.int64)
        # places count (time, sample, row, column), so channels come last until the end
        scores.reshape(-1, channels)[reached.places] = reached.values
        return np.moveaxis(scores + op.offset, -1, 2)

    # --- synapses

    def _current(self, op: Neurons | Scores) -> Reached:
        """What the synapses of an operation add up where they add up anything."""
        return _add_rows([self._accumulate(synapse) for synapse in op.synapses], op.shape[0])

    def _accumulate(self, synapse: Synapse) -> Reached:
        # levels of the input are multiplied; counts of spikes, of pools and sums, are that many spikes
        spikes = self.graph.map_top(synapse.source) == 1 or synapse.source > 0
        source = self.maps[synapse.source]
        reached, operations = self.adder(synapse, source, self.samples, self.steps, spikes)
        if spikes:
            self.additions += operations
        else:
            self.multiplications += operations
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

    def _rows(self, places: Ints, shape: Shape) -> Rows:
        time, sample, row, column = np.unravel_index(places, (self.steps, self.samples, shape[1], shape[2]))
        return time, sample, row, column

    # --- neurons

    def _fire(self, op: Neurons) -> Events:
        potential = self._potential(op, self._current(op))
        time = self._rows(potential.places, op.shape)[0]
        fires = potential.values >= op.thresholds[np.minimum(time, len(op.thresholds) - 1)]
        reached = self._spikes(potential.places, fires, op.shape)
        # all other potentials are 0, which fires where a threshold is not above it
        rows = np.minimum(np.arange(self.steps), len(op.thresholds) - 1)
        eager = op.thresholds[rows] <= 0  # [T, C]
        if not eager.any():
            return reached
        all_places = np.arange(self.steps * self.samples * op.shape[1] * op.shape[2])
        places = np.setdiff1d(all_places, potential.places, assume_unique=True)
        return _join([reached, self._spikes(places, eager[self._rows(places, op.shape)[0]], op.shape)])

    def _fire_in_turn(self, op: Neurons, feedback: Feedback) -> Events:
        """The same step after step, since a spike takes part in those that follow it."""
        current, size = self._current(op), self.samples * op.shape[1] * op.shape[2]
        starts = np.searchsorted(current.places, size * np.arange(self.steps + 1))
        table, channels, aged = op.threshold_table, np.arange(op.shape[0]), feedback.kind == "age"
        # where nothing came and nothing fired, a potential of 0 meets the first threshold of a step
        eager = bool((table[:, feedback.start] <= 0).any())
        spikes = np.zeros((self.steps, size, op.shape[0]), np.bool_)  # the layer's own, by place of a step
        since = np.zeros((size, op.shape[0]), np.int64)  # steps since the last of them, or the start
        for t in range(self.steps):
            reached, potential = self._potential_of(op, current, starts, t, since)
            places, own = self._own_sums(op, feedback, spikes[:t])
            at = np.arange(size) if eager else np.unique(np.concatenate([reached, places]))
            values = np.zeros((2, len(at), op.shape[0]), np.int64)
            values[0, np.searchsorted(at, reached)] = potential
            values[1, np.searchsorted(at, places)] = own
            choice = values[1] + feedback.start if feedback.kind == "table" else 0
            if feedback.kind == "sum":
                values[0] = (values[0] << feedback.shift) + values[1]
            row = np.minimum(since[at] if aged else t, len(table) - 1)
            spikes[t, at] = values[0] >= table[row, choice, channels]
            if aged:
                since = np.where(spikes[t], 0, since + 1)
        return self._spikes(np.arange(self.steps * size), spikes.reshape(-1, op.shape[0]), op.shape)

    def _potential_of(
        self, op: Neurons, current: Reached, starts: NDArray[np.intp], t: int, since: Ints
    ) -> tuple[Ints, Ints]:
        """Places of step t whose last K steps had a current, and their potentials."""
        size, rows = len(since), []
        aged = op.feedback is not None and op.feedback.kind == "age"
        for j in range(min(op.order, t + 1)):
            part = slice(starts[t - j], starts[t - j + 1])
            places = current.places[part] - (t - j) * size
            counts = since[places] >= j if aged else 1
            rows.append((places, op.taps[0, j] * current.values[part] * counts))
        return _add_rows(rows, op.shape[0])

    def _own_sums(self, op: Neurons, feedback: Feedback, spikes: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Places that fired in the last R steps, and what their spikes add up to."""
        rows = []
        if feedback.taps is not None:
            for taps, fired in zip(feedback.taps, spikes[::-1], strict=False):
                places = np.nonzero(fired.any(axis=1))[0]
                rows.append((places, taps * fired[places]))
        return _add_rows(rows, op.shape[0])

    def _potential(self, op: Neurons, current: Reached) -> Reached:
        """Taps times currents, wherever one of the last K steps had any."""
        time = self._rows(current.places, op.shape)[0]
        places_a_step = self.samples * op.shape[1] * op.shape[2]
        rows = []
        # a current goes to the potentials of its own step and of the K - 1 that follow, each with its tap
        for j in range(min(op.order, self.steps)):
            hit = np.nonzero(time + j < self.steps)[0]
            taps = op.taps[np.minimum(time[hit] + j, len(op.taps) - 1), j]
            rows.append((current.places[hit] + j * places_a_step, taps * current.values[hit]))
        return _add_rows(rows, op.shape[0])

    def _spikes(self, places: Ints, fires: NDArray[np.bool_], shape: Shape) -> Events:
        """Where ``fires`` [places, C] is true."""
        time, sample, row, column = self._rows(places, shape)
        # a row of ``fires`` is a place; its neurons that fire become one event each
        which, channel = np.nonzero(fires)
        ones = np.ones(len(channel), np.int64)
        return Events(time[which], sample[which], channel, row[which], column[which], ones)

    # --- maps

    def _pool(self, op: Pool) -> Events:
        source, parts = self.maps[op.source], []
        for _, hit, places in _reach(source.places, self.samples, op.window, op.shape):
            # windows overlap: an event becomes one for each output that sees it, and these are merged
            time, sample, row, column = self._rows(places, op.shape)
            parts.append(Events(time, sample, source.channel[hit], row, column, source.level[hit]))
        return self._merge(parts, op.shape, largest=op.kind == "max")

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


def _by_source(synapse: Synapse) -> Ints:
    """Codes by the channel that a spike comes from, [C, out, rows, columns]; 0 across groups."""
    groups, inner = synapse.groups, synapse.codes.shape[1]
    out = len(synapse.codes) // groups
    by_source = np.zeros((inner * groups, out * groups, *synapse.window.size), np.int64)
    for g in range(groups):
        codes = synapse.codes[g * out : (g + 1) * out].astype(np.int64)
        by_source[g * inner : (g + 1) * inner, g * out : (g + 1) * out] = np.moveaxis(codes, 0, 1)
    return by_source


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
