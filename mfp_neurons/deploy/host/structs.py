"""An integer network as the structs of network.h: weights in the order in which the C's loops read them."""

import ctypes
import functools
import os
import platform
import re
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import _build
from ..._build import Unavailable
from ..graph import (
    Concat,
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
    Sum,
    Synapse,
    TimePool,
    Window,
    planes,
    potential_bound,
    sources,
    synapses,
)
from ..pack import code_planes, plane_weights, words

BLOCK, VECTOR, QUAD = 64, 16, 4  # as in network.h

_COUNT, _BYTES, _MULTIPLY, _GROUPED = range(4)  # enum SynapseKind
_POOLS = {None: 0, "max": 1, "sum": 2}  # enum PoolKind
_FEEDBACK = {"sum": 1, "table": 2, "age": 3}  # enum FeedbackKind
# enum OpKind
_OPS = (Neurons, Currents, Pool, TimePool, Sum, Concat, Gather, Ones, Product, MatMul, Scores)

FOLDER = Path(__file__).parent

# the runtime is compiled once for each; the flags of AVX-512 are those that processor.c asks for
_AVX2 = ("-mavx2", "-mpopcnt")
_EXTENSIONS = ("f", "bw", "dq", "vl", "vpopcntdq", "vnni")
# GCC takes half of the vectors where nobody asks for more
_AVX512 = (*_AVX2, *(f"-mavx512{name}" for name in _EXTENSIONS), "-mprefer-vector-width=512")
_X86: dict[str, tuple[str, ...]] = {"avx512": _AVX512, "avx2": _AVX2}
_ARM: dict[str, tuple[str, ...]] = {"neon": ()}
_FLAGS = {"x86_64": _X86, "AMD64": _X86, "aarch64": _ARM, "arm64": _ARM}
INSTRUCTIONS = "MFP_NEURONS_INSTRUCTIONS"  # a variable of the environment


def source(machine: str) -> _build.Source:
    """The library for all processors of a kind, by the name that ``platform.machine`` has for it."""
    flags = {"processor": (), **_FLAGS.get(machine, {}), "baseline": ()}
    return _build.Source(
        name="network",
        what="integer networks",
        language=_build.C,
        parts=tuple(_build.Part(FOLDER / f"{name}.c", own) for name, own in flags.items()),
        files=tuple(sorted(FOLDER.glob("*.[ch]"))),
        flags=("-pthread",),
        wanted=("-fopenmp-simd",),
    )


SOURCE = source(platform.machine())


def _read_structs(*headers: str) -> dict[str, Any]:
    """The structs of C headers as ctypes, field by field as they stand there, so that both sides agree.

    A field is a pointer, whatever it points to, or a number or a struct before it, or an array of them.
    """
    types: dict[str, Any] = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64}
    for header in headers:
        text = re.sub(r"/\*.*?\*/", "", (FOLDER / header).read_text(), flags=re.DOTALL)
        for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", text, re.DOTALL):
            fields: list[tuple[str, Any]] = []
            for kind, declarators in re.findall(r"(?:const )?(\w+) ([^;]+);", body):
                for pointer, field, length in re.findall(r"(\*?)(\w+)(?:\[(\d+)\])?", declarators):
                    one = ctypes.c_void_p if pointer else types[kind]
                    fields.append((field, one * int(length) if length else one))
            types[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return types


STRUCTS = _read_structs("network.h", "scatter.h")


@dataclass(frozen=True)
class Library:
    """The functions of the runtime for one instruction set; runtime.h has them.

    Attributes:
        instructions: "avx512", "avx2", "neon" or "baseline".
    """

    instructions: str
    run: Any
    scatter: Any
    scratch: Any
    max_threads: Any


@functools.cache
def libraries() -> dict[str, Library]:
    """The runtime for each instruction set that this processor has and the compiler knew, the best first.

    Raises:
        Unavailable: there is no compiler, or it fails, or the machine is big-endian.
    """
    if sys.byteorder != "little":
        raise Unavailable("the compiled runtime is for little-endian processors")
    loaded = SOURCE.load()
    loaded.mfp_network_instructions.restype = ctypes.c_char_p
    names = loaded.mfp_network_instructions().decode().split()
    return {name: _library(loaded, name) for name in names if hasattr(loaded, f"mfp_network_run_{name}")}


def _library(loaded: ctypes.CDLL, name: str) -> Library:
    functions = [
        getattr(loaded, f"mfp_network_{function}_{name}")
        for function in ("run", "scatter", "scratch", "max_threads")
    ]
    functions[0].restype = None
    for function in functions[1:]:
        function.restype = ctypes.c_int64
    return Library(name, *functions)


def library() -> Library:
    """The runtime for the best instruction set, or for the one that MFP_NEURONS_INSTRUCTIONS names.

    Raises:
        ValueError: it names none that can run here.
        Unavailable: as :func:`libraries`.
    """
    known = libraries()
    named = os.environ.get(INSTRUCTIONS)
    if not named:
        return next(iter(known.values()))
    if named not in known:
        raise ValueError(
            f"{INSTRUCTIONS} is {named!r}, but integer networks can run here with {', '.join(known)} alone. "
            "Name one of these, or none to take the first."
        )
    return known[named]


class Layout:
    """The operations of a graph as an array of structs ``ops``, with the arrays that they point to."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.arrays: list[Any] = []  # what the structs point to
        self.number_bytes = _number_bytes(graph)
        self.ops = (STRUCTS["Op"] * len(graph.ops))(*(self._op(i, op) for i, op in enumerate(graph.ops)))

    def _op(self, index: int, op: Op) -> Any:
        channels, height, width = op.shape
        struct = STRUCTS["Op"](
            kind=_OPS.index(type(op)), target=index + 1, channels=channels, height=height, width=width
        )
        if isinstance(op, Neurons | Currents | Scores):
            struct.synapses, struct.synapse_count = self._synapses(op.synapses), len(op.synapses)
            struct.order = 1
        else:
            indices = list(sources(op))
            weights = op.weights if isinstance(op, Sum | Concat) else (1,)
            struct.source_count = len(indices)
            struct.sources = self._address(np.array(indices, np.int64))
            struct.source_weights = self._address(np.array(weights, np.int64))
        if isinstance(op, Neurons):
            self._neurons(struct, op)
        elif isinstance(op, Scores):
            struct.wide, struct.order = 1, op.order
            struct.offset, struct.offset_rows = self._address(_pad_channels(op.offset)), len(op.offset)
            heads = self.graph.heads
            struct.before = sum(prod(head.shape) for head in heads[: index - len(self.graph.body)])
            if op.taps is not None:
                struct.taps_per_channel = op.taps.shape[2] > 1
                struct.taps = self._address(_pad_taps(op.taps))
        elif isinstance(op, Currents):
            struct.offset, struct.offset_rows = self._address(_pad_channels(op.offset)), 1
            # what is shifted is below (top + 1) << shift, however large the sums are on the way to it
            struct.shift, struct.wide = op.shift, (op.top + 1) << op.shift > 2**32
        elif isinstance(op, Gather):
            self._gather(struct, op)
        elif isinstance(op, Pool):
            struct.pool, struct.window = _POOLS[op.kind], window_struct(op.window)
        return struct

    def _neurons(self, struct: Any, op: Neurons) -> None:
        # one less than 32 bits hold, so that a threshold no potential reaches has a number of its own
        wide = max(potential_bound(self.graph, op)) >= 2**31 - 1
        dtype = np.int64 if wide else np.int32
        limits = np.iinfo(dtype)
        taps = _pad_taps(op.taps)
        struct.order, struct.wide, struct.taps_rows = op.order, wide, len(taps)
        struct.taps_per_channel = op.taps.shape[2] > 1
        struct.taps = self._address(taps.astype(dtype))  # wraps around, as the sums do
        # where the current is the same at every step, one product with the sum of its taps is the potential
        sums = _sums_of_taps(taps)
        struct.sums, struct.sums_rows = self._address(sums.astype(dtype)), len(sums)
        thresholds = np.clip(op.thresholds, limits.min, limits.max)
        # channels that are not there never fire
        struct.thresholds = self._address(_pad_channels(thresholds, limits.max).astype(dtype))
        struct.threshold_rows, struct.choices = len(op.thresholds) // op.choices, op.choices
        if op.recurrent:
            struct.recurrent, struct.recurrent_count = self._synapses(op.recurrent), len(op.recurrent)
        if op.feedback is not None:
            struct.feedback, struct.own_steps = _FEEDBACK[op.feedback.kind], op.own_steps
            # a sum that fits 32 bits with a larger shift is 0
            struct.own_start, struct.own_shift = op.feedback.start, min(op.feedback.shift, 63 if wide else 31)
            if op.feedback.taps is not None:
                own = op.feedback.taps
                struct.own_per_channel = own.shape[1] > 1
                own = own if own.shape[1] == 1 else _pad_channels(own)
                struct.own_taps = self._address(
                    own.astype(np.int32 if op.feedback.kind == "table" else dtype)
                )

    def _gather(self, struct: Any, op: Gather) -> None:
        channels, height, width = self.graph.map_shape(op.source)
        area, number_bytes = height * width, self.number_bytes[op.source]
        # of every place of the target, its channels side by side, as both maps have them
        places = op.places.reshape(op.shape[0], -1).T
        channel, place = places // area, places % area
        if number_bytes:
            index = place * channels + channel
        else:
            words = -(-channels // BLOCK)
            index = (place * planes(self.graph.map_top(op.source)) * words + channel // BLOCK) * BLOCK
            index += channel % BLOCK
        struct.origins = self._address(np.where(places < 0, -1, index))
        struct.fill = op.fill
        alike = number_bytes == self.number_bytes[struct.target] and op.shape[0] == channels
        alike = alike and planes(op.top) == planes(self.graph.map_top(op.source))
        copies = (place == place[:, :1]).all(1) & (channel == np.arange(op.shape[0])).all(1) & alike
        copies &= (places >= 0).all(1)
        struct.copied = self._address(np.where(copies, place[:, 0], -1))

    def _synapses(self, synapses: tuple[Synapse, ...]) -> int:
        """The address of their structs."""
        structs = (STRUCTS["Synapse"] * len(synapses))(*map(self._synapse, synapses))
        self.arrays.append(structs)  # ctypes keeps no reference behind an address
        return ctypes.addressof(structs)

    def _synapse(self, synapse: Synapse) -> Any:
        channels, height, width = synapse.shape
        struct = STRUCTS["Synapse"](source=synapse.source, channels=channels, height=height, width=width)
        struct.window, struct.kind = window_struct(synapse.window), self._kind(synapse)
        if synapse.pool is not None:
            struct.pool, struct.pooling = _POOLS[synapse.pool.kind], window_struct(synapse.pool.window)
        if synapse.factor is not None:
            struct.factor = self._address(_pad_channels(synapse.factor))
        weights = (
            self._counted(struct, synapse) if struct.kind == _COUNT else self._multiplied(struct, synapse)
        )
        if struct.kind == _BYTES:
            weights = _in_quads(weights)
        struct.rows = weights.shape[1]
        vector = VECTOR if struct.kind in (_COUNT, _BYTES) else BLOCK
        struct.weights = self._address(_in_blocks(weights, vector))
        return struct

    def _kind(self, synapse: Synapse) -> int:
        if synapse.groups > 1:
            return _GROUPED
        if not self.number_bytes[synapse.source] and _is_counted(self.graph, synapse):
            return _COUNT
        return _BYTES if self.graph.map_top(synapse.source) < 2**8 else _MULTIPLY

    def _counted(self, struct: Any, synapse: Synapse) -> NDArray[Any]:
        """Words [plane, row, out]; a row is a word of a place of the window, or of several places."""
        weights, struct.base = plane_weights(synapse.bits)
        struct.planes = len(weights)
        struct.plane_weight[: len(weights)] = weights
        out, inner, *size = synapse.codes.shape
        struct.joined = max(1, min(BLOCK // inner, prod(size)))
        # channels last, as a word of a map holds channels of one place: a row of weights meets one such word
        bits = np.moveaxis(code_planes(synapse.codes, synapse.bits), 2, -1).reshape(
            len(weights), out, -1, inner
        )
        bits = np.pad(bits, [(0, 0), (0, 0), (0, -bits.shape[2] % struct.joined), (0, 0)])
        packed = words(bits.reshape(len(weights), out, -1, struct.joined * inner), BLOCK)
        return np.moveaxis(packed.reshape(len(weights), out, -1), 1, 2)

    def _multiplied(self, struct: Any, synapse: Synapse) -> NDArray[Any]:
        """int8 [1, row, out]; a row is a channel, or one of a group, at a place of the window."""
        out, inner = synapse.codes.shape[:2]
        struct.planes, struct.inner = 1, inner
        if synapse.groups > 1:
            outputs = out // synapse.groups
            struct.aligned = inner == outputs == 1  # depthwise: no index has to be looked up
            index = np.arange(out) // outputs * inner + np.arange(inner)[:, None]
            struct.index = self._address(_pad_channels(index).astype(np.int32))
        return np.moveaxis(synapse.codes, 1, -1).reshape(out, -1).T[None]

    def _address(self, array: NDArray[Any]) -> int:
        """The address of an array, which lives as long as this layout."""
        array = np.ascontiguousarray(array)
        self.arrays.append(array)
        return array.ctypes.data


def _number_bytes(graph: Graph) -> list[int]:
    """Bytes of a number of each map that holds integers instead of bits: 1, 2 or 4; 0 where it holds bits.

    Levels of images are multiplied, not counted; so are numbers of many bits, unless a synapse counts them.
    """
    counted = {one.source for op in graph.ops for one in synapses(op) if _is_counted(graph, one)}
    sizes = [graph.input.dtype.itemsize if graph.input.top > 1 else 0]
    for index, op in enumerate(graph.body, start=1):
        top = graph.map_top(index)
        # a pool or a sum of levels is of few bits and often counted
        integers = isinstance(op, Currents | Product | MatMul) or any(
            sizes[source] for source in sources(op) if source > 0 or isinstance(op, Gather)
        )
        size = 1 if top < 2**8 else 2 if top < 2**16 else 4
        sizes.append(size if integers and top > 1 and index not in counted else 0)
    return sizes


def _is_counted(graph: Graph, synapse: Synapse) -> bool:
    """Whether counting the bits of words is faster than multiplying; they may be too few for that."""
    inner = synapse.codes.shape[1]
    counts = -(-inner // 64) * planes(graph.map_top(synapse.source)) * len(plane_weights(synapse.bits)[0])
    return synapse.groups == 1 and inner >= 2 * counts


def window_struct(window: Window) -> Any:
    return STRUCTS["Window"](window.size, window.stride, window.padding, window.dilation)


def _pad_channels(array: Ints, value: int = 0) -> Ints:
    """The same number after the last axis, to whole blocks."""
    margins = [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % BLOCK)]
    return np.pad(array, margins, constant_values=value)


def _pad_taps(taps: Ints) -> Ints:
    """Taps [row, K, 1 or C] in whole blocks if each channel has its own."""
    return taps if taps.shape[2] == 1 else _pad_channels(taps)


def _sums_of_taps(taps: Ints) -> Ints:
    """Sums [row, 1 or C] of the taps that step ``row`` reaches, whole numbers that may wrap around."""
    rows = np.arange(max(taps.shape[:2]))
    sums = np.cumsum(taps, axis=1)
    return sums[np.minimum(rows, taps.shape[0] - 1), np.minimum(rows, taps.shape[1] - 1)]


def _in_quads(weights: NDArray[Any]) -> NDArray[Any]:
    """int8 [1, row, out] as int32 [1, row / QUAD, out], each of QUAD bytes."""
    padded = np.pad(weights[0], [(0, -weights.shape[1] % QUAD), (0, 0)])
    quads = padded.reshape(-1, QUAD, padded.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(quads).view("<i4")[None, ..., 0]


def _in_blocks(weights: NDArray[Any], vector: int) -> NDArray[Any]:
    """[plane, row, out] as [block][plane][row][lane], flat; the last block is as wide as whole vectors."""
    # a block is read from its first plane to its last while its sums stay in registers
    padded = np.pad(weights, [(0, 0), (0, 0), (0, -weights.shape[2] % vector)])
    blocks = [padded[..., i : i + BLOCK] for i in range(0, padded.shape[2], BLOCK)]
    return np.concatenate([block.reshape(-1) for block in blocks])
