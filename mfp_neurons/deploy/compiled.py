"""The compiled runtime: portable C behind ctypes. Same numbers as :mod:`.interpret`, bit for bit.

A map is kept as bits, 64 channels a word (levels of images as bytes); nothing else is stored between
operations, and between the steps of a stream nothing but the bits that neurons look back at.
"""

import ctypes
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _structs as c
from ._arena import Span, offsets
from ._layout import Layout
from ._structs import unavailable
from .graph import Graph, Ints, Neurons, planes, sources
from .pack import bits_of_words

__all__ = ["Compiled", "Stream", "unavailable"]

_ALIGNED = 64  # bytes: a cache line


class Compiled:
    """A graph, ready to run.

    Args:
        graph: a valid network.
        threads: how many to use; None asks OpenMP, which reads ``OMP_NUM_THREADS``.

    Raises:
        Unavailable: it cannot be built here; :func:`unavailable` says why without raising.
        ValueError: ``threads`` is below 1.
    """

    def __init__(self, graph: Graph, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.graph = graph
        self._library = c.library()
        self.threads = threads or self._library.mfp_network_threads()
        self._layout = Layout(graph)
        self._last: tuple[tuple[int, int, bool, bool], _Buffers] | None = None
        self._lock = threading.Lock()  # the buffers are for one call at a time

    def run(self, levels: NDArray[np.uint8], steps: int, *, record: bool = False) -> tuple[Ints, list[Ints]]:
        """All steps at once.

        Args:
            levels: uint8 [T, N, C, H, W], or [1, N, C, H, W] for one image at every step.
            steps: T.
            record: whether to return the maps.

        Returns:
            The scores of every step, int64 [T, N, C, H, W], and every map, the input first (none if not
            asked for).

        Raises:
            ValueError: ``levels`` has another dtype or shape, or a level above the input's top.
        """
        levels = self._checked(levels, 5)
        frames, samples = levels.shape[:2]
        if steps < 1 or frames not in (1, steps):
            raise ValueError(f"levels must have 1 or T = {steps} steps, got {frames}")
        with self._lock:
            buffers = self._buffers(samples, steps, frames == 1, record)
            scores = buffers.call(levels, 0, steps)
            return scores, buffers.maps() if record else []

    def stream(self) -> "Stream":
        """A session that takes one step at a time."""
        return Stream(self)

    def buffer_bytes(self, steps: int, batch: int, *, static: bool | None = None) -> int:
        """Bytes that a run of ``batch`` samples allocates: maps, and what its threads work in.

        ``static`` is whether one image is shown at every step; None means as the graph's input has it.
        """
        same = self.graph.input.static if static is None else static
        return _Buffers(self._layout, self._library, self.threads, batch, steps, same, False).nbytes

    def _buffers(self, *key: Any) -> "_Buffers":
        if self._last is None or self._last[0] != key:
            self._last = None  # freed before the next are allocated
            self._last = key, _Buffers(self._layout, self._library, self.threads, *key)
        return self._last[1]

    def _checked(self, levels: NDArray[np.uint8], axes: int) -> NDArray[np.uint8]:
        shape = self.graph.input.shape
        if levels.dtype != np.uint8 or levels.ndim != axes or levels.shape[-3:] != shape:
            wanted = "T, N" if axes == 5 else "N"
            raise ValueError(
                f"levels must be uint8 [{wanted}, {', '.join(map(str, shape))}], "
                f"got {levels.dtype} {list(levels.shape)}"
            )
        return np.ascontiguousarray(levels)


class Stream:
    """One step in, one step out. Keeps the last K - 1 steps of maps that neurons look back at, as bits."""

    def __init__(self, compiled: Compiled) -> None:
        self.t = 0
        self._compiled = compiled
        self._buffers: _Buffers | None = None

    def step(self, levels: NDArray[np.uint8]) -> Ints:
        """Scores int64 [N, C, H, W] of one more step.

        Args:
            levels: its input, uint8 [N, C, H, W]; N stays that of the first step.

        Raises:
            ValueError: as :meth:`Compiled.run`, or another N. Nothing has changed then.
        """
        levels = self._compiled._checked(levels, 4)
        if self._buffers is None:
            self._buffers = _Buffers.of_stream(self._compiled, len(levels))
        if len(levels) != self._buffers.samples:
            raise ValueError(f"levels must have N = {self._buffers.samples}, as before, got {len(levels)}")
        scores = self._buffers.call(levels[None], self.t, 1)[0]
        self.t += 1
        return scores

    def maps(self) -> list[Ints]:
        """Every map of the last step, the input first, [N, C, H, W]."""
        if self._buffers is None:
            raise ValueError("there has been no step yet")
        return [numbers[0] for numbers in self._buffers.maps(self.t - 1)]

    @property
    def state_bytes(self) -> int:
        """Bytes kept between steps, whole words."""
        return 0 if self._buffers is None else self._buffers.kept_bytes


class _Buffers:
    """Maps and scratch for runs of one size, and the call that knows where they are."""

    def __init__(
        self,
        layout: Layout,
        library: Any,
        threads: int,
        samples: int,
        steps: int,
        static: bool,
        record: bool,
        *,
        history: dict[int, int] | None = None,
    ) -> None:
        self._layout, self._run = layout, library.mfp_network_run
        graph = layout.graph
        self.samples, self._graph = samples, graph
        same = [static] if history is None else [False]
        for op in graph.ops[:-1]:
            same.append(not isinstance(op, Neurons) and all(same[i] for i in sources(op)))
        slots = [1 if s else steps for s in same]
        if history is not None:
            slots = [history.get(i, 0) + 1 for i in range(len(slots))]
        self._maps = (c.MapStruct * len(slots))(*map(self._map, range(len(slots)), slots, same))
        sizes = [map_bytes(m, samples) for m in self._maps]
        self.kept_bytes = sum(size - size // m.slots for size, m in zip(sizes, self._maps, strict=True))
        spans = _lifetimes(graph, sizes, forever=record or history is not None)
        places, total = offsets(spans, _ALIGNED)
        self._arena = aligned(total)
        for m, place in zip(self._maps, places, strict=True):
            m.data = self._arena.ctypes.data + place
        call = c.CallStruct(ops=layout.ops, maps=self._maps, op_count=len(graph.ops), samples=samples)
        call.top, call.count, call.threads = graph.input.top, steps, threads
        if history is not None:  # a stream needs most when the past is full
            call.first = max((op.order for op in graph.ops if isinstance(op, Neurons)), default=0)
        call.scratch_bytes = -(-library.mfp_network_scratch(ctypes.byref(call)) // _ALIGNED) * _ALIGNED
        self._scratch = aligned(threads * call.scratch_bytes)
        call.scratch = self._scratch.ctypes.data
        self._call = call

    @classmethod
    def of_stream(cls, compiled: Compiled, samples: int) -> "_Buffers":
        history = compiled.graph.history()
        threads = compiled.threads
        return cls(compiled._layout, compiled._library, threads, samples, 1, False, False, history=history)

    @property
    def nbytes(self) -> int:
        return self._arena.nbytes + self._scratch.nbytes

    def call(self, levels: NDArray[np.uint8], first: int, count: int) -> Ints:
        """Scores of ``count`` steps from ``first`` on."""
        scores = np.empty((count, self.samples, *self._graph.scores.shape), np.int64)
        call = self._call
        call.levels, call.scores, call.first, call.count = (
            levels.ctypes.data,
            scores.ctypes.data,
            first,
            count,
        )
        if self._run(ctypes.byref(call)):
            raise ValueError(f"levels must be at most {call.top}, got {levels.max()}")
        return scores

    def maps(self, step: int | None = None) -> list[Ints]:
        """Every map as numbers [T or 1, N, C, H, W], or [1, N, C, H, W] of one step."""
        return [self._numbers(m, step) for m in self._maps]

    def _map(self, index: int, slots: int, same: bool) -> c.MapStruct:
        channels, height, width = self._graph.map_shape(index)
        made = c.MapStruct(channels=channels, height=height, width=width, slots=slots, same=same)
        made.planes, made.words = planes(self._graph.map_top(index)), -(-channels // c.BLOCK)
        made.bytes = self._layout.is_bytes(index)
        return made

    def _numbers(self, m: c.MapStruct, step: int | None) -> Ints:
        start = m.data - self._arena.ctypes.data
        raw = self._arena[start : start + map_bytes(m, self.samples)]
        places = (self.samples, m.slots, m.height, m.width)
        if m.bytes:
            numbers = raw.reshape(*places, m.channels).astype(np.int64)
        else:
            packed = raw.view(np.uint64).reshape(*places, m.planes, m.words)
            bits = bits_of_words(packed, m.channels).astype(np.int64)
            numbers = (bits << np.arange(m.planes)[:, None]).sum(axis=-2)
        chosen = numbers if step is None else numbers[:, [step % m.slots]]
        return chosen.transpose(1, 0, 4, 2, 3)


def map_bytes(m: c.MapStruct, samples: int) -> int:
    """Bytes of a map."""
    place = m.channels if m.bytes else 8 * m.planes * m.words
    return samples * m.slots * m.height * m.width * place


def aligned(size: int) -> NDArray[np.uint8]:
    """Memory that begins where a cache line does."""
    raw = np.empty(size + _ALIGNED, np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    return raw[start : start + size]


def _lifetimes(graph: Graph, sizes: list[int], *, forever: bool) -> list[Span]:
    """From which operation to which each map is needed."""
    end = len(graph.ops)
    if forever:
        return [Span(size, 0, end) for size in sizes]
    last = {index: number for number, op in enumerate(graph.ops) for index in sources(op)}
    first = [max(0, index - 1) for index in range(len(sizes))]
    return [
        Span(size, begin, max(begin, last.get(index, 0)))
        for index, (size, begin) in enumerate(zip(sizes, first, strict=True))
    ]
