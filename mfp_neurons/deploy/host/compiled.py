"""The compiled runtime: portable C behind ctypes. Same numbers as ``interpret``, bit for bit.

A map is kept as bits, 64 channels a word, or as integers if its numbers are multiplied, not counted. A run
keeps nothing; a stream keeps the bits that neurons look back at, without gaps. The memory that both work in
is kept for the next call of the same size; a call that comes while another has it works in memory of its own.
"""

import ctypes
import functools
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ... import _build
from ..events import Events, Reached
from ..graph import Graph, Ints, Neurons, Scores, Synapse, TimePool, planes
from ..inputs import Levels
from ..plan import plan
from .structs import BLOCK, STRUCTS, Layout, Library, library, window_struct

_ALIGNED = 64  # bytes: a cache line


@functools.cache
def unavailable() -> str | None:
    """Why integer networks cannot run compiled here, or None if they can. Builds them if need be."""
    return _build.why_not(library)


class Compiled:
    """A graph, ready to run.

    Args:
        graph: a valid network.

    Raises:
        Unavailable: it cannot be built here; :func:`unavailable` says why without raising.

    >>> from mfp_neurons.deploy.graph import Input, Scores, Synapse, Window
    >>> codes = np.array([1, -1, 1], np.int8).reshape(1, 3, 1, 1)
    >>> synapse = Synapse(0, codes, 1, Window(), (1, 1, 1))
    >>> scores = Scores("scores", (synapse,), np.array([[5]]), (1, 1, 1), (1,), 1.0, np.zeros(1))
    >>> runtime = Compiled(Graph(Input((3, 1, 1), (3,), top=1), (scores,), steps=2))
    >>> events = np.array([[1, 1, 1], [0, 1, 0]], np.uint8).reshape(2, 1, 3, 1, 1)  # [T, N, C, H, W]
    >>> runtime.run(events, steps=2)[0].flatten()
    array([6, 4])
    """

    # A layer is shared out among no more threads than have so many words each to count: some 25 us of work,
    # about as long as a sleeping thread takes to wake.
    words_a_thread = 1 << 18

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layout = Layout(graph)
        self._scores = [head.shape for head in graph.heads]
        self._library = library()
        # of the last run, and of the last step of a stream; a call takes them out while it works in them
        self._buffers: dict[bool, _Buffers] = {}
        self._codes: dict[int, tuple[NDArray[np.int8], Ints]] = {}  # laid out for events

    def __reduce__(self) -> tuple[type["Compiled"], tuple[Graph]]:
        return type(self), (self.graph,)

    def run(self, levels: Levels, steps: int, *, threads: int | None = None) -> list[Ints]:
        """All steps at once.

        Args:
            levels: [T, N, C, H, W], or [1, N, C, H, W] for one image at every step, in the input's dtype.
            steps: T of the input, a multiple of ``graph.period``.
            threads: as many at most, this one among them; None is as many as PyTorch uses now.

        Returns:
            The scores of every head at every step that it has, int64 [T, N, C, H, W].
        """
        size = _Size(levels.shape[1], steps, self.threads(threads), static=len(levels) == 1)
        return self.call(size, levels, 0)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of maps and scratch that are kept for the next call of the same size."""
        return sum(buffers.memory.nbytes + buffers.scratch.nbytes for buffers in self._buffers.values())

    def stream(self, *, threads: int | None = None) -> "Stream":
        """A session that takes one step at a time; for ``threads`` see :meth:`run`."""
        return Stream(self, threads)

    def call(
        self, size: "_Size", levels: Levels, first: int, past: NDArray[np.uint8] | None = None
    ) -> list[Ints]:
        """Scores of every head, of the steps from ``first`` on."""
        buffers = self._buffers.pop(size.stream, None)
        if buffers is None or buffers.size != size:
            buffers = None  # freed before the next are allocated
            buffers = _Buffers(self.layout, self._library, size)
        levels = np.ascontiguousarray(levels, self.graph.input.dtype)
        # the scores have a step of their own in every so many of the input
        period = self.graph.periods[-1]
        scored = (first + size.steps) // period - first // period
        scores = np.empty(scored * size.samples * sum(map(prod, self._scores)), np.int64)
        call = buffers.call
        call.first, call.words_a_thread = first, self.words_a_thread
        call.levels, call.scores = levels.ctypes.data, scores.ctypes.data
        call.past = None if past is None else past.ctypes.data
        self._library.run(ctypes.byref(call))
        self._buffers[size.stream] = buffers
        ends = np.cumsum([scored * size.samples * prod(shape) for shape in self._scores])
        heads = zip(np.split(scores, ends[:-1]), self._scores, strict=True)
        return [head.reshape(scored, size.samples, *shape) for head, shape in heads]

    def scatter(
        self, synapse: Synapse, source: Events, samples: int, steps: int, by_level: bool
    ) -> tuple[Reached, int]:
        """The compiled twin of :func:`.events.scatter`, for the synapses of this network."""
        codes, nonzero = self._by_source(synapse)
        channels, height, width = synapse.shape
        acc = np.zeros((steps * samples * height * width, channels), np.int32)
        reached = np.zeros(len(acc), np.uint8)
        columns = [np.ascontiguousarray(column, np.int64) for column in (*source.elements, source.level)]
        call = STRUCTS["Scatter"](*(column.ctypes.data for column in columns))
        call.count, call.samples, call.window = len(source), samples, window_struct(synapse.window)
        call.channels, call.height, call.width = synapse.shape
        call.inner, call.outputs = synapse.codes.shape[1], channels // synapse.groups
        call.codes, call.nonzero, call.by_level = codes.ctypes.data, nonzero.ctypes.data, by_level
        call.acc, call.reached = acc.ctypes.data, reached.ctypes.data
        operations = self._library.scatter(ctypes.byref(call))
        places = np.flatnonzero(reached)
        return Reached(places, acc[places].astype(np.int64)), operations

    def _by_source(self, synapse: Synapse) -> tuple[NDArray[np.int8], Ints]:
        """Codes [C, rows, columns, outputs of a group], and how many of those outputs are not 0."""
        if id(synapse) not in self._codes:  # no other object's, as the graph keeps its synapses
            out, inner, *window = synapse.codes.shape
            groups = synapse.groups
            grouped = synapse.codes.reshape(groups, out // groups, inner, *window)
            codes = np.ascontiguousarray(np.moveaxis(grouped, 1, -1)).reshape(groups * inner, *window, -1)
            self._codes[id(synapse)] = codes, np.count_nonzero(codes, axis=-1).astype(np.int64)
        return self._codes[id(synapse)]

    def threads(self, threads: int | None) -> int:
        """How many share the work of a call; None is as many as PyTorch uses now."""
        threads = torch.get_num_threads() if threads is None else threads
        return min(threads, self._library.max_threads())


class Stream:
    """One step in, one step out. Keeps, as bits, what :meth:`.graph.Graph.kept` says, and nothing else."""

    def __init__(self, compiled: Compiled, threads: int | None = None) -> None:
        self.t = 0
        self._compiled, self._threads = compiled, threads
        self._past = np.zeros(0, np.uint8)

    def step(self, levels: Levels) -> list[Ints] | None:
        """Scores int64 [N, C, H, W] of every head at one more step; None in one that ends no step of theirs.

        ``levels`` is its input, [N, C, H, W] in its dtype; N stays that of the first step.
        """
        compiled = self._compiled
        if not self.t:  # before the first step N is not known
            _, bytes_kept = _places_of_past(compiled.graph, len(levels))
            self._past = np.zeros(bytes_kept, np.uint8)
        size = _Size(len(levels), 1, compiled.threads(self._threads), stream=True)
        scores = compiled.call(size, levels[None], self.t, self._past)
        self.t += 1
        return [one[0] for one in scores] if len(scores[0]) else None


# --- memory


@dataclass(frozen=True)
class _Size:
    """What a call computes: ``steps`` steps of ``samples`` samples.

    Attributes:
        threads: share the work, each with scratch of its own.
        static: one image is shown at every step.
        stream: one step, with the past of a stream.
    """

    samples: int
    steps: int
    threads: int
    static: bool = False
    stream: bool = False


class _Buffers:
    """Maps and scratch for calls of one size, and the call that knows where they are."""

    def __init__(self, layout: Layout, library: Library, size: _Size) -> None:
        self.size = size
        graph = layout.graph
        self._structs = maps = _map_structs(layout, size)  # kept, as the call only holds its address
        # what a stream recalls is there before the first operation
        recalled = graph.kept() if size.stream else ()
        places = plan(graph, [_bytes(m, size) for m in maps], permanent=recalled, alignment=_ALIGNED)
        self.memory = aligned(places.size)
        for m, offset in zip(maps, places.offsets, strict=True):
            m.data = self.memory.ctypes.data + offset
        call = STRUCTS["Call"](op_count=len(graph.ops), map_count=len(maps), samples=size.samples)
        call.ops, call.maps = ctypes.addressof(layout.ops), ctypes.addressof(maps)
        call.count, call.threads = size.steps, size.threads
        if size.stream:  # it needs most when there is a whole past
            layers = zip(graph.ops, graph.periods[1:], strict=True)
            call.first = max(op.order * every for op, every in layers if isinstance(op, Neurons | Scores))
        needed = library.scratch(ctypes.byref(call))
        call.scratch_bytes = -(-needed // _ALIGNED) * _ALIGNED
        self.scratch = aligned(size.threads * call.scratch_bytes)
        call.scratch = self.scratch.ctypes.data
        self.call = call


def _map_structs(layout: Layout, size: _Size) -> Any:
    """The maps and their slots: all steps, one if all are the same; of a stream its past and one more."""
    graph = layout.graph
    same = set() if size.stream else graph.constant_maps(size.static)
    history, (past, _) = graph.history(), _places_of_past(graph, size.samples)
    maps = (STRUCTS["Map"] * (1 + len(graph.body)))()
    for index, m in enumerate(maps):
        op = graph.ops[index - 1] if index else None
        m.period, m.window = graph.periods[index], op.window if isinstance(op, TimePool) else 1
        m.channels, m.height, m.width = graph.map_shape(index)
        m.planes, m.words = planes(graph.map_top(index)), -(-m.channels // BLOCK)
        m.bytes, m.same = layout.number_bytes[index], index in same
        steps = 1 if m.same else size.steps // m.period
        # a stream goes round: step t is in slot t % slots, where it replaces the oldest
        m.slots = history.get(index, 0) + 1 if size.stream else steps
        m.past, m.past_bytes = past.get(index, (0, 0))
    return maps


def _bytes(m: Any, size: _Size) -> int:
    """Bytes of a map in the C's memory."""
    place = m.channels * m.bytes if m.bytes else 8 * m.planes * m.words
    return size.samples * m.slots * m.height * m.width * place


def _places_of_past(graph: Graph, samples: int) -> tuple[dict[int, tuple[int, int]], int]:
    """{map: (where a stream keeps its past, bytes of one step)}, its bits without gaps; and bytes in all."""
    places, end = {}, 0
    for index, steps in graph.kept().items():
        places[index] = end, -(-samples * graph.step_bits(index) // 8)
        end += steps * places[index][1]
    return places, end


def aligned(size: int) -> NDArray[np.uint8]:
    """Memory that begins where a cache line does; the C may read a few bytes behind it."""
    raw = np.empty(size + 2 * _ALIGNED, np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    return raw[start : start + size]
