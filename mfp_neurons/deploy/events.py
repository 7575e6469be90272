"""Asynchronous execution: every spike updates what it reaches, in whatever order the spikes of a step come.

The work goes with the spikes: a synapse adds one row of codes for each spike and place that it reaches, and
only neurons that something reached in the last K steps are compared with their thresholds. All others have a
potential of zero; whether that fires is the same for a whole channel. Sums of whole numbers do not depend on
the order of their terms, so the result is that of :mod:`.interpret`, bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from .graph import (
    Concat,
    CurrentPool,
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
from .reached import Reached, added, gathered, inside, outputs

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


@dataclass(frozen=True)
class Counts:
    """Operations: additions of a code for a spike, multiplications of a code with an input level above 1."""

    synaptic_operations: int = 0
    multiply_accumulates: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.synaptic_operations + other.synaptic_operations,
            self.multiply_accumulates + other.multiply_accumulates,
        )


Adder = Callable[[Synapse, Events, int, int, bool], tuple[Reached, int]]


def run(
    graph: Graph, events: Events, samples: int, steps: int, adder: Adder | None = None
) -> tuple[Ints, list[Events], Counts]:
    """All steps of a network, driven by events.

    Args:
        graph: a valid network.
        events: the input's.
        samples, steps: N and T of the input, a multiple of ``graph.period``.
        adder: what adds codes up; None is :func:`scatter`, :class:`.scatter.Scatter` the same compiled.

    Returns:
        The scores of every step that has any, whole numbers [T, N, C, H, W]; the events of every map, the
        input's first; the operations that the spikes caused.
    """
    return _Run(graph, samples, steps, adder or scatter).run(events)


def of_levels(levels: NDArray[np.uint8], steps: int) -> Events:
    """The events of a dense input [T, N, C, H, W], or [1, N, C, H, W] for the same at every step."""
    shown = np.broadcast_to(levels, (steps, *levels.shape[1:]))
    time, sample, channel, row, column = np.nonzero(shown)
    return Events(time, sample, channel, row, column, shown[np.nonzero(shown)].astype(np.int64))


def dense(events: Events, shape: Shape, samples: int, steps: int) -> Ints:
    """The map [T, N, C, H, W] that events stand for; ``steps`` are its own."""
    numbers = np.zeros((steps, samples, *shape), np.int64)
    where = events.time, events.sample, events.channel, events.row, events.column
    numbers[where] = events.level
    return numbers


def scatter(
    synapse: Synapse, source: Events, samples: int, steps: int, by_level: bool
) -> tuple[Reached, int]:
    """What the events of a map add up to, and how many operations that takes.

    One for each code that is not 0 that an event reaches, or ``by_level`` one for each unit of its level.
    """
    wide = _ungrouped(synapse)  # [C, out, rows, columns]
    found: list[tuple[Ints, Ints]] = []
    used = 0
    for place, (hit, places) in reach(source.places, samples, synapse.window, synapse.shape):
        codes = wide[source.channel[hit], :, place[0], place[1]]
        found.append((places, codes * source.level[hit, None]))
        used += int((np.count_nonzero(codes, axis=1) * (source.level[hit] if by_level else 1)).sum())
    return added(found, synapse.shape[0]), used


def reach(
    at: Rows, samples: int, window: Window, shape: Shape
) -> Iterator[tuple[tuple[int, int], tuple[NDArray[np.intp], Ints]]]:
    """For each place of a window: which rows of ``at`` are seen there, and the output places that see it."""
    time, sample, row, column = at
    for i in range(window.size[0]):
        y, in_rows = outputs(row, i, 0, window, shape[1])
        for j in range(window.size[1]):
            x, in_columns = outputs(column, j, 1, window, shape[2])
            hit = np.nonzero(in_rows & in_columns)[0]
            place = ((time[hit] * samples + sample[hit]) * shape[1] + y[hit]) * shape[2] + x[hit]
            yield (i, j), (hit, place)


class _Run:
    def __init__(self, graph: Graph, samples: int, steps: int, adder: Adder) -> None:
        self.graph, self.samples, self.steps, self.adder = graph, samples, steps, adder
        self.maps: list[Events] = []
        self.counts = Counts()

    def run(self, events: Events) -> tuple[Ints, list[Events], Counts]:
        self.maps.append(events)
        *periods, of_scores = self.graph.periods
        total = self.steps
        for op, period in zip(self.graph.ops[:-1], periods[1:], strict=True):
            self.steps = total // period  # of what the operation makes
            self.maps.append(self._events(op))
        self.steps = total // of_scores
        last = self.graph.scores
        reached = self._current(last)
        scores = np.zeros(
            (self.steps * self.samples * last.shape[1] * last.shape[2], last.shape[0]), np.int64
        )
        scores[reached.places] = reached.values
        shape = self.steps, self.samples, *last.shape[1:], last.shape[0]
        return np.moveaxis(scores.reshape(shape) + last.offset, -1, 2), self.maps, self.counts

    def _events(self, op: Op) -> Events:
        match op:
            case Neurons():
                return self._fire(op)
            case Pool():
                return self._pool(op)
            case TimePool():
                source = self.maps[op.source]
                joined = replace(source, time=source.time // op.window)
                return self._merged([joined], op.shape, largest=True)
            case Sum():
                return self._merged(
                    [self._weighed(i, w) for i, w in zip(op.sources, op.weights, strict=True)], op.shape
                )
            case Concat():
                return self._concatenated(op)
        raise TypeError(f"{type(op).__name__} makes no map")

    # --- synapses

    def _current(self, op: Neurons | Scores) -> Reached:
        """What the synapses of an operation add up where they add up anything."""
        parts = [self._accumulate(synapse) for synapse in op.synapses]
        places = reduce(np.union1d, [part.places for part in parts])
        total = np.zeros((len(places), op.shape[0]), np.int64)
        for part in parts:
            total[np.searchsorted(places, part.places)] += part.values
        return Reached(places, total)

    def _accumulate(self, synapse: Synapse) -> Reached:
        source = self.maps[synapse.source]
        spikes = self.graph.map_top(synapse.source) == 1 or synapse.source > 0
        reached, used = self.adder(synapse, source, self.samples, self.steps, spikes)
        self.counts += Counts(used, 0) if spikes else Counts(0, used)
        if synapse.pool is not None:
            reached = self._pool_current(synapse.pool, reached, synapse.shape)
        return reached if synapse.factor is None else replace(reached, values=reached.values * synapse.factor)

    def _pool_current(self, chosen: CurrentPool, reached: Reached, shape: Shape) -> Reached:
        at = self._rows(reached.places, shape)
        found = [
            (places, reached.values[hit])
            for _, (hit, places) in reach(at, self.samples, chosen.window, chosen.shape)
        ]
        channels = reached.values.shape[1]
        if chosen.kind == "sum":
            return added(found, channels)
        places, inverse, values = gathered(found, channels)
        largest = np.full((len(places), channels), np.iinfo(np.int64).min)
        np.maximum.at(largest, inverse, values)
        _, _, y, x = self._rows(places, chosen.shape)
        seen = inside(y, 0, chosen.window, shape[1]) * inside(x, 1, chosen.window, shape[2])
        partly = np.bincount(inverse, minlength=len(places)) < seen  # the rest of the window is 0
        largest[partly] = np.maximum(largest[partly], 0)
        return Reached(places, largest)

    def _rows(self, places: Ints, shape: Shape) -> Rows:
        time, sample, row, column = np.unravel_index(places, (self.steps, self.samples, shape[1], shape[2]))
        return time, sample, row, column

    # --- neurons

    def _fire(self, op: Neurons) -> Events:
        potential = self._potential(op, self._current(op))
        time, sample, row, column = self._rows(potential.places, op.shape)
        threshold = op.thresholds[np.minimum(time, len(op.thresholds) - 1)]
        which, channel = np.nonzero(potential.values >= threshold)
        ones = np.ones(len(channel), np.int64)
        fired = Events(time[which], sample[which], channel, row[which], column[which], ones)
        return _joined([fired, self._unreached(op, potential.places)])

    def _potential(self, op: Neurons, current: Reached) -> Reached:
        """Taps times currents, wherever one of the last K steps had any."""
        time = self._rows(current.places, op.shape)[0]
        a_step = self.samples * op.shape[1] * op.shape[2]
        found = []
        for j in range(min(op.order, self.steps)):
            hit = np.nonzero(time + j < self.steps)[0]
            taps = op.taps[np.minimum(time[hit] + j, len(op.taps) - 1), j]
            found.append((current.places[hit] + j * a_step, taps * current.values[hit]))
        return added(found, op.shape[0])

    def _unreached(self, op: Neurons, reached: Ints) -> Events:
        """Neurons that nothing reached fire where their threshold is not above 0."""
        rows = np.minimum(np.arange(self.steps), len(op.thresholds) - 1)
        fires = op.thresholds[rows] <= 0  # [T, C]
        if not fires.any():
            return _joined([])
        places = np.setdiff1d(
            np.arange(self.steps * self.samples * op.shape[1] * op.shape[2]), reached, assume_unique=True
        )
        time, sample, row, column = self._rows(places, op.shape)
        which, channel = np.nonzero(fires[time])
        ones = np.ones(len(channel), np.int64)
        return Events(time[which], sample[which], channel, row[which], column[which], ones)

    # --- maps

    def _pool(self, op: Pool) -> Events:
        source = self.maps[op.source]
        found = [
            self._placed(source, hit, places, op.shape)
            for _, (hit, places) in reach(source.places, self.samples, op.window, op.shape)
        ]
        return self._merged(found, op.shape, largest=op.kind == "max")

    def _placed(self, source: Events, hit: NDArray[np.intp], places: Ints, shape: Shape) -> Events:
        """Some events, moved to other places."""
        time, sample, row, column = self._rows(places, shape)
        return Events(time, sample, source.channel[hit], row, column, source.level[hit])

    def _weighed(self, index: int, weight: int) -> Events:
        return replace(self.maps[index], level=self.maps[index].level * weight)

    def _concatenated(self, op: Concat) -> Events:
        parts, first = [], 0
        for index, weight in zip(op.sources, op.weights, strict=True):
            part = self._weighed(index, weight)
            parts.append(replace(part, channel=part.channel + first))
            first += self.graph.map_shape(index)[0]
        return _joined(parts)

    def _merged(self, parts: list[Events], shape: Shape, largest: bool = False) -> Events:
        """One event for each element: the sum of all that fell on it, or the largest."""
        events = _joined(parts)
        sizes = self.steps, self.samples, *shape
        where = events.time, events.sample, events.channel, events.row, events.column
        elements, inverse = np.unique(np.ravel_multi_index(where, sizes), return_inverse=True)
        level = np.zeros(len(elements), np.int64)
        (np.maximum if largest else np.add).at(level, inverse, events.level)
        time, sample, channel, row, column = np.unravel_index(elements, sizes)
        return Events(time, sample, channel, row, column, level)


def _ungrouped(synapse: Synapse) -> Ints:
    """Codes by the channel that a spike comes from, [C, out, rows, columns]; 0 across groups."""
    out, inner = synapse.codes.shape[:2]
    each = out // synapse.groups
    wide = np.zeros((inner * synapse.groups, out, *synapse.codes.shape[2:]), np.int64)
    for g in range(synapse.groups):
        codes = synapse.codes[g * each : (g + 1) * each].astype(np.int64)
        wide[g * inner : (g + 1) * inner, g * each : (g + 1) * each] = np.moveaxis(codes, 0, 1)
    return wide


def _joined(parts: list[Events]) -> Events:
    def column(name: str) -> Ints:
        return np.concatenate([np.zeros(0, np.int64), *(getattr(part, name) for part in parts)])

    return Events(**{field.name: column(field.name) for field in fields(Events)})
