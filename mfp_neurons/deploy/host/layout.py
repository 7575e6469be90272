"""A graph as the compiled runtime wants it: weights in the order in which its loops read them."""

import ctypes
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import (
    Concat,
    Graph,
    Ints,
    Neurons,
    Op,
    Pool,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
    planes,
    potential_bound,
    sources,
)
from ..pack import code_planes, plane_weights, words
from . import structs as c


class Layout:
    """The operations of a graph as an array of structs, with the arrays that they point to."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._kept: list[Any] = []  # what the structs point to
        self.ops = (c.OpStruct * len(graph.ops))(*(self._op(i, op) for i, op in enumerate(graph.ops)))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._kept if isinstance(array, np.ndarray))

    def is_bytes(self, index: int) -> bool:
        """Whether a map holds bytes instead of bits: levels of images, which are multiplied."""
        return index == 0 and self.graph.input.top > 1

    def past(self, samples: int) -> dict[int, tuple[int, int]]:
        """{map: (where a stream keeps its past, bytes of one step)}: its bits, without gaps."""
        places, end = {}, 0
        for index, steps in self.graph.kept().items():
            bits = samples * planes(self.graph.map_top(index)) * prod(self.graph.map_shape(index))
            places[index] = end, -(-bits // 8)
            end += steps * places[index][1]
        return places

    def empty_past(self, samples: int) -> NDArray[np.uint8]:
        """What a stream keeps, before its first step."""
        kept = self.graph.kept()
        return np.zeros(sum(kept[i] * size for i, (_, size) in self.past(samples).items()), np.uint8)

    def _op(self, index: int, op: Op) -> c.OpStruct:
        channels, height, width = op.shape
        made = c.OpStruct(target=index + 1, channels=channels, height=height, width=width)
        match op:
            case Neurons():
                made.kind = c.NEURONS
                self._synapses(made, op.synapses)
                self._neurons(made, op)
            case Scores():
                made.kind, made.wide, made.order = c.SCORES, 1, 1
                self._synapses(made, op.synapses)
                made.offset = self._keep(pad_channels(op.offset))
            case Pool():
                made.kind, made.pool, made.window = c.POOL, c.POOLS[op.kind], window_struct(op.window)
                self._sources(made, op, (1,))
            case TimePool():
                made.kind = c.TIME_POOL
                self._sources(made, op, (1,))
            case Sum():
                made.kind = c.SUM
                self._sources(made, op, op.weights)
            case Concat():
                made.kind = c.CONCAT
                self._sources(made, op, op.weights)
        return made

    def _neurons(self, made: c.OpStruct, op: Neurons) -> None:
        # one less than 32 bits hold, so that a threshold no potential reaches has a number of its own
        wide = max(potential_bound(self.graph, op)) >= 2**31 - 1
        dtype = np.int64 if wide else np.int32
        limits = np.iinfo(dtype)
        taps = op.taps if op.taps.shape[2] == 1 else pad_channels(op.taps)
        made.order, made.wide, made.taps_rows = op.order, wide, len(taps)
        made.taps_per_channel = op.taps.shape[2] > 1
        made.taps = self._keep(taps.astype(dtype))  # wraps around, as the sums do
        sums = sums_of(taps)
        made.sums, made.sums_rows = self._keep(sums.astype(dtype)), len(sums)
        thresholds = np.clip(op.thresholds, limits.min, limits.max)
        # channels that are not there never fire
        made.thresholds = self._keep(pad_channels(thresholds, limits.max).astype(dtype))
        made.threshold_rows = len(op.thresholds)

    def _sources(self, made: c.OpStruct, op: Op, weights: tuple[int, ...]) -> None:
        read = list(sources(op))
        made.sources, made.source_count = self._keep(np.array(read, np.int64)), len(read)
        made.source_weights = self._keep(np.array(weights, np.int64))

    def _synapses(self, made: c.OpStruct, synapses: tuple[Synapse, ...]) -> None:
        structs = (c.SynapseStruct * len(synapses))(*map(self._synapse, synapses))
        self._kept.append(structs)
        made.synapses, made.synapse_count = structs, len(synapses)

    def _synapse(self, synapse: Synapse) -> c.SynapseStruct:
        channels, height, width = synapse.shape
        made = c.SynapseStruct(source=synapse.source, channels=channels, height=height, width=width)
        made.window = window_struct(synapse.window)
        if synapse.pool is not None:
            made.pool, made.pooling = c.POOLS[synapse.pool.kind], window_struct(synapse.pool.window)
        if synapse.factor is not None:
            made.factor = self._keep(pad_channels(synapse.factor))
        made.kind = self._kind(synapse)
        weights = self._counted(made, synapse) if made.kind == c.COUNT else self._multiplied(made, synapse)
        made.rows = weights.shape[1]
        made.weights = self._keep(in_blocks(weights, c.VECTOR if made.kind == c.COUNT else c.BLOCK))
        return made

    def _kind(self, synapse: Synapse) -> int:
        """Counting the bits of words, unless they would be too few to be worth it."""
        if synapse.groups > 1:
            return c.GROUPED
        top, inner = self.graph.map_top(synapse.source), synapse.codes.shape[1]
        counts = -(-inner // 64) * planes(top) * len(plane_weights(synapse.bits)[0])
        return c.MULTIPLY if self.is_bytes(synapse.source) or inner < 2 * counts else c.COUNT

    def _counted(self, made: c.SynapseStruct, synapse: Synapse) -> NDArray[Any]:
        """Words [plane, row, out]; a row is a word of a place of the window."""
        weights, made.base = plane_weights(synapse.bits)
        made.planes = len(weights)
        made.plane_weight[: len(weights)] = weights
        packed = words(np.moveaxis(code_planes(synapse.codes, synapse.bits), 2, -1), 64)
        return np.moveaxis(packed.reshape(*packed.shape[:2], -1), 1, 2)

    def _multiplied(self, made: c.SynapseStruct, synapse: Synapse) -> NDArray[Any]:
        """int8 [1, row, out]; a row is a channel, or one of a group, at a place of the window."""
        out, inner = synapse.codes.shape[:2]
        made.planes, made.inner = 1, inner
        if synapse.groups > 1:
            each = out // synapse.groups
            made.aligned = inner == each == 1
            index = np.arange(out) // each * inner + np.arange(inner)[:, None]
            made.index = self._keep(pad_channels(index).astype(np.int32))
        return np.moveaxis(synapse.codes, 1, -1).reshape(out, -1).T[None]

    def _keep(self, array: NDArray[Any]) -> int:
        """The address of an array, which lives as long as this layout."""
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        return array.ctypes.data


def pad_channels(array: Ints, value: int = 0) -> Ints:
    """The same number after the last axis, to whole blocks."""
    margins = [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % c.BLOCK)]
    return np.pad(array, margins, constant_values=value)


def sums_of(taps: Ints) -> Ints:
    """Sums [row, 1 or C] of the taps that step ``row`` reaches, whole numbers that may wrap around."""
    rows = np.arange(max(taps.shape[:2]))
    sums = np.cumsum(taps, axis=1)
    return sums[np.minimum(rows, taps.shape[0] - 1), np.minimum(rows, taps.shape[1] - 1)]


def in_blocks(weights: NDArray[Any], vector: int) -> NDArray[Any]:
    """[plane, row, out] as [block][plane][row][lane], flat; the last block is as wide as whole vectors."""
    out = weights.shape[2]
    full = out - out % c.BLOCK
    blocks = [weights[..., i : i + c.BLOCK] for i in range(0, full, c.BLOCK)]
    if out > full:
        blocks.append(np.pad(weights[..., full:], [(0, 0), (0, 0), (0, -(out - full) % vector)]))
    return np.concatenate([block.reshape(-1) for block in blocks])


def window_struct(window: Window) -> c.WindowStruct:
    pair = ctypes.c_int64 * 2
    return c.WindowStruct(*(pair(*p) for p in (window.size, window.stride, window.padding, window.dilation)))
