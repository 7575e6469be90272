"""The memory that a compiled run works in: its maps, and scratch for its threads."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Ints, Neurons, TimePool, planes
from ..pack import bits_of_words
from . import structs as c
from .arena import Span, offsets
from .layout import Layout

_ALIGNED = 64  # bytes: a cache line


@dataclass(frozen=True)
class Size:
    """What a call computes: ``steps`` steps of ``samples`` samples.

    Attributes:
        threads: share the work, each with scratch of its own.
        static: one image is shown at every step.
        record: all maps are read afterwards, so none may share memory.
        stream: one step, with the past of a stream.
    """

    samples: int
    steps: int
    threads: int
    static: bool = False
    record: bool = False
    stream: bool = False


class Buffers:
    """Maps and scratch for calls of one size, and the call that knows where they are."""

    def __init__(self, layout: Layout, library: Any, size: Size) -> None:
        self.size = size
        self._layout, graph = layout, layout.graph
        self._maps = self._map_structs()
        places, total = offsets(self._lifetimes(), _ALIGNED)
        self._arena = aligned(total)
        for m, place in zip(self._maps, places, strict=True):
            m.data = self._arena.ctypes.data + place
        call = c.CallStruct(ops=layout.ops, maps=self._maps, op_count=len(graph.ops), samples=size.samples)
        call.top, call.count, call.threads = graph.input.top, size.steps, size.threads
        if size.stream:  # it needs most when there is a whole past
            layers = zip(graph.ops, graph.periods[1:], strict=True)
            call.first = max((op.order * each for op, each in layers if isinstance(op, Neurons)), default=0)
        needed = library.mfp_network_scratch(ctypes.byref(call))
        call.scratch_bytes = -(-needed // _ALIGNED) * _ALIGNED
        self._scratch = aligned(size.threads * call.scratch_bytes)
        call.scratch = self._scratch.ctypes.data
        self.call = call

    @property
    def nbytes(self) -> int:
        return self._arena.nbytes + self._scratch.nbytes

    def maps(self, first: int) -> list[Ints]:
        """Every map as numbers [T or 1, N, C, H, W] from step ``first`` on; T is 0 of one that none ends."""
        return [self._numbers(m, first) for m in self._maps]

    def _map_structs(self) -> Any:
        """The maps and their slots: all steps, one if all are the same; of a stream its past and one more."""
        graph, size = self._layout.graph, self.size
        same = set() if size.stream else graph.constant_maps(size.static)
        history, past, periods = graph.history(), self._layout.past(size.samples), graph.periods
        windows = {
            index: op.window for index, op in enumerate(graph.ops, start=1) if isinstance(op, TimePool)
        }
        made = (c.MapStruct * len(graph.ops))()
        for index, m in enumerate(made):
            m.period, m.window = periods[index], windows.get(index, 1)
            m.channels, m.height, m.width = graph.map_shape(index)
            m.planes, m.words = planes(graph.map_top(index)), -(-m.channels // c.BLOCK)
            m.bytes, m.same = self._layout.is_bytes(index), index in same
            every = 1 if m.same else size.steps // m.period
            m.slots = history.get(index, 0) + 1 if size.stream else every
            m.past, m.past_bytes = past.get(index, (0, 0))
        return made

    def _lifetimes(self) -> list[Span]:
        """From which operation to which each map is needed."""
        graph = self._layout.graph
        end = len(graph.ops)
        last = graph.last_readers()
        spans = []
        for index, m in enumerate(self._maps):
            first = max(0, index - 1)
            lives = (first, max(first, last.get(index, 0)))
            recalled = self.size.stream and (m.slots > 1 or m.window > 1)
            if self.size.record or recalled:  # filled before the first operation
                lives = (0, end)
            spans.append(Span(self._bytes(m), *lives))
        return spans

    def _bytes(self, m: c.MapStruct) -> int:
        place = m.channels if m.bytes else 8 * m.planes * m.words
        return self.size.samples * m.slots * m.height * m.width * place

    def _numbers(self, m: c.MapStruct, first: int) -> Ints:
        start = m.data - self._arena.ctypes.data
        raw = self._arena[start : start + self._bytes(m)]
        places = (self.size.samples, m.slots, m.height, m.width)
        if m.bytes:
            numbers = raw.reshape(*places, m.channels).astype(np.int64)
        else:
            packed = raw.view(np.uint64).reshape(*places, m.planes, m.words)
            bits = bits_of_words(packed, m.channels).astype(np.int64)
            numbers = (bits << np.arange(m.planes)[:, None]).sum(axis=-2)
        now, ended = first // m.period, (first + 1) % m.period == 0
        steps = [now % m.slots][:ended] if self.size.stream else slice(None)
        return numbers[:, steps].transpose(1, 0, 4, 2, 3)


def aligned(size: int) -> NDArray[np.uint8]:
    """Memory that begins where a cache line does."""
    raw = np.empty(size + _ALIGNED, np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    return raw[start : start + size]
