"""The compiled runtime: portable C behind ctypes. Same numbers as ``interpret``, bit for bit.

A map is kept as bits, 64 channels a word (levels of images as bytes). A run keeps nothing; a stream keeps the
bits that neurons look back at, without gaps. The memory that both work in is kept for the next call of the
same size; a call that comes while another has it works in memory of its own.
"""

import ctypes

import numpy as np
import torch
from numpy.typing import NDArray

from ..graph import Graph, Ints
from . import structs as c
from .buffers import Buffers, Size
from .layout import Layout
from .structs import unavailable

__all__ = ["Compiled", "Stream", "unavailable"]


class Compiled:
    """A graph, ready to run.

    Args:
        graph: a valid network.

    Raises:
        Unavailable: it cannot be built here; :func:`unavailable` says why without raising.

    >>> from mfp_neurons.deploy.graph import Input, Scores, Synapse, Window
    >>> codes = np.array([1, -1, 1], np.int8).reshape(1, 3, 1, 1)
    >>> synapse = Synapse(0, codes, 1, Window(), (1, 1, 1))
    >>> scores = Scores("scores", (synapse,), np.array([5]), (1, 1, 1), (1,), 1.0, np.zeros(1))
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
        self._library = c.library()
        self._layout = Layout(graph)
        self._period, self._scores_period = graph.period, graph.periods[-1]
        # of the last run, and of the last step of a stream; a call takes them out while it works in them
        self._buffers: dict[bool, Buffers] = {}

    def __reduce__(self) -> tuple[type["Compiled"], tuple[Graph]]:
        return type(self), (self.graph,)

    def run(
        self, levels: NDArray[np.uint8], steps: int, *, threads: int | None = None, record: bool = False
    ) -> tuple[Ints, list[Ints]]:
        """All steps at once.

        Args:
            levels: uint8 [T, N, C, H, W], or [1, N, C, H, W] for one image at every step.
            steps: T of the input, a multiple of ``graph.period``.
            threads: as many at most, this one among them; None is as many as PyTorch uses now.
            record: whether to return the maps.

        Returns:
            The scores of every step that has any, int64 [T, N, C, H, W], and every map, the input first (none
            if not asked for).

        Raises:
            ValueError: ``levels`` has another dtype or shape, or a level above the input's top; or a window
                of a pooling over time stays open.
        """
        levels = self._checked(levels, 5)
        frames, samples = levels.shape[:2]
        if steps < 1 or frames not in (1, steps):
            raise ValueError(f"levels must have 1 or T = {steps} steps, got {frames}")
        if steps % self._period:
            raise ValueError(f"steps must be a multiple of {self._period}, got {steps}")
        return self._call(self._size(samples, steps, threads, static=frames == 1, record=record), levels, 0)

    def stream(self, *, threads: int | None = None) -> "Stream":
        """A session that takes one step at a time; for ``threads`` see :meth:`run`."""
        return Stream(self, threads)

    def buffer_bytes(
        self, steps: int, batch: int, *, static: bool | None = None, threads: int | None = None
    ) -> int:
        """Bytes that a run of ``batch`` samples allocates: maps, and what its threads work in.

        ``static`` is whether one image is shown at every step; None means as the graph's input has it.
        """
        same = self.graph.input.static if static is None else static
        return self._sized(self._size(batch, steps, threads, static=same)).nbytes

    def _call(
        self, size: Size, levels: NDArray[np.uint8], first: int, past: NDArray[np.uint8] | None = None
    ) -> tuple[Ints, list[Ints]]:
        """Scores and recorded maps of the steps from ``first`` on."""
        buffers = self._buffers.pop(size.stream, None)
        if buffers is None or buffers.size != size:
            buffers = None  # freed before the next are allocated
            buffers = self._sized(size)
        scored = (first + size.steps) // self._scores_period - first // self._scores_period
        scores = np.empty((scored, size.samples, *self.graph.scores.shape), np.int64)
        call = buffers.call
        call.first, call.count = first, size.steps
        call.words_a_thread = self.words_a_thread
        call.levels, call.scores = levels.ctypes.data, scores.ctypes.data
        call.past = None if past is None else past.ctypes.data
        refused = self._library.mfp_network_run(ctypes.byref(call))
        maps = buffers.maps(first) if size.record and not refused else []
        self._buffers[size.stream] = buffers
        if refused:
            raise ValueError(f"levels must be at most {call.top}, got {levels.max()}")
        return scores, maps

    def _size(self, samples: int, steps: int, threads: int | None, **kind: bool) -> Size:
        threads = torch.get_num_threads() if threads is None else threads
        return Size(samples, steps, min(threads, self._library.mfp_network_max_threads()), **kind)

    def _sized(self, size: Size) -> Buffers:
        return Buffers(self._layout, self._library, size)

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
    """One step in, one step out. Keeps, as bits, what :meth:`.graph.Graph.kept` says, and nothing else."""

    def __init__(self, compiled: Compiled, threads: int | None = None) -> None:
        self.t = 0
        self._compiled, self._threads = compiled, threads
        self._samples = 0
        self._past = np.zeros(0, np.uint8)

    def step(self, levels: NDArray[np.uint8]) -> Ints | None:
        """Scores int64 [N, C, H, W] of one more step; None in a step that ends none of the scores' own.

        Args:
            levels: its input, uint8 [N, C, H, W]; N stays that of the first step.

        Raises:
            ValueError: as :meth:`Compiled.run`, or another N. Nothing has changed then.
        """
        return self._step(levels, record=False)[0]

    def record(self, levels: NDArray[np.uint8]) -> tuple[Ints | None, list[Ints | None]]:
        """As :meth:`step`, and every map of the step, the input first, [N, C, H, W], or None likewise."""
        return self._step(levels, record=True)

    def _step(self, levels: NDArray[np.uint8], record: bool) -> tuple[Ints | None, list[Ints | None]]:
        levels = self._compiled._checked(levels, 4)
        if self.t and len(levels) != self._samples:
            raise ValueError(f"levels must have N = {self._samples}, as before, got {len(levels)}")
        if not self.t:
            self._samples = len(levels)
            self._past = self._compiled._layout.empty_past(self._samples)
        size = self._compiled._size(self._samples, 1, self._threads, stream=True, record=record)
        scores, maps = self._compiled._call(size, levels[None], self.t, self._past)
        self.t += 1
        return _one(scores), [_one(numbers) for numbers in maps]

    @property
    def state_bytes(self) -> int:
        """Bytes kept between steps: the history's bits, whole bytes for each step of a map."""
        return self._past.nbytes


def _one(steps: Ints) -> Ints | None:
    """The one step of an array, if it has any."""
    return steps[0] if len(steps) else None
