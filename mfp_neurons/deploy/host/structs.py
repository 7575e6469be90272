"""The structs of host/network.h, field by field, and the library that takes them."""

import ctypes
import functools
import sys
from pathlib import Path

from ... import _build
from ..._build import Unavailable

BLOCK, VECTOR = 64, 16  # as in host/network.h

COUNT, MULTIPLY, GROUPED = range(3)  # enum SynapseKind
POOLS = {None: 0, "max": 1, "sum": 2}  # enum PoolKind
NEURONS, POOL, TIME_POOL, SUM, CONCAT, SCORES = range(6)  # enum OpKind

_Long, _Pointer = ctypes.c_int64, ctypes.c_void_p


class WindowStruct(ctypes.Structure):
    _fields_ = [(name, _Long * 2) for name in ("size", "stride", "padding", "dilation")]


class MapStruct(ctypes.Structure):
    _fields_ = [
        ("data", _Pointer),
        *((name, _Long) for name in ("channels", "height", "width", "planes", "words")),
        *((name, _Long) for name in ("bytes", "slots", "same", "period", "window", "past", "past_bytes")),
    ]


class SynapseStruct(ctypes.Structure):
    _fields_ = [
        ("source", _Long),
        ("kind", _Long),
        ("window", WindowStruct),
        ("height", _Long),
        ("width", _Long),
        ("pool", _Long),
        ("pooling", WindowStruct),
        *((name, _Long) for name in ("channels", "rows", "inner", "aligned", "planes", "base")),
        ("plane_weight", ctypes.c_int32 * 8),
        ("weights", _Pointer),
        ("index", _Pointer),
        ("factor", _Pointer),
    ]


class OpStruct(ctypes.Structure):
    _fields_ = [
        *((name, _Long) for name in ("kind", "target", "channels", "height", "width")),
        ("synapses", ctypes.POINTER(SynapseStruct)),
        *((name, _Long) for name in ("synapse_count", "order", "wide", "taps_rows", "taps_per_channel")),
        ("taps", _Pointer),
        ("sums_rows", _Long),
        ("sums", _Pointer),
        ("threshold_rows", _Long),
        ("thresholds", _Pointer),
        ("offset", _Pointer),
        ("sources", _Pointer),
        ("source_weights", _Pointer),
        ("source_count", _Long),
        ("pool", _Long),
        ("window", WindowStruct),
    ]


class CallStruct(ctypes.Structure):
    _fields_ = [
        ("maps", ctypes.POINTER(MapStruct)),
        ("ops", ctypes.POINTER(OpStruct)),
        *((name, _Long) for name in ("op_count", "samples", "first", "count")),
        ("levels", _Pointer),
        ("top", _Long),
        ("scores", _Pointer),
        ("scratch", _Pointer),
        ("scratch_bytes", _Long),
        ("threads", _Long),
        ("words_a_thread", _Long),
        ("past", _Pointer),
    ]


class ScatterStruct(ctypes.Structure):
    _fields_ = [
        *((name, _Pointer) for name in ("time", "sample", "channel", "row", "column", "level")),
        ("count", _Long),
        ("samples", _Long),
        ("window", WindowStruct),
        *((name, _Long) for name in ("channels", "height", "width", "inner", "each")),
        ("codes", _Pointer),
        ("nonzero", _Pointer),
        ("by_level", _Long),
        ("acc", _Pointer),
        ("reached", _Pointer),
    ]


_FOLDER = Path(__file__).parent
SOURCE = _build.Source(
    name="network",
    what="integer networks",
    language=_build.C,
    entry=_FOLDER / "network.c",
    files=tuple(sorted(_FOLDER.glob("*.[ch]"))),
    flags=("-pthread",),
    # GCC takes half of an x86 processor's vectors where nobody asks for more
    wanted=("-fopenmp-simd", "-mprefer-vector-width=512"),
)


@functools.cache
def unavailable() -> str | None:
    """Why integer networks cannot run compiled here, or None if they can. Builds them if need be."""
    return _build.why_not(library)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        Unavailable: there is no compiler, or it fails, or the machine is big-endian.
    """
    if sys.byteorder != "little":
        raise Unavailable("the compiled runtime is for little-endian processors")
    loaded = SOURCE.load()
    for name in ("run", "scatter", "scratch", "max_threads", "size"):
        getattr(loaded, f"mfp_network_{name}").restype = _Long
    loaded.mfp_network_run.argtypes = loaded.mfp_network_scratch.argtypes = [ctypes.POINTER(CallStruct)]
    loaded.mfp_network_size.argtypes = [_Long]
    loaded.mfp_network_scatter.argtypes = [ctypes.POINTER(ScatterStruct)]
    structs = (MapStruct, SynapseStruct, OpStruct, CallStruct, ScatterStruct)
    if any(loaded.mfp_network_size(i) != ctypes.sizeof(struct) for i, struct in enumerate(structs)):
        raise Unavailable("the structs of host/network.h are not those of structs.py")
    return loaded
