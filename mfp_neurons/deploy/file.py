"""An integer network as one file: safetensors, with the structure as JSON beside the arrays. No pickle.

The metadata has one key, ``mfp_neurons.network``, and there one JSON object:

    version    1; or 2, of a network with feedback; or 3, of one with anything that ``_version`` lists. A
               program reads the versions it knows and refuses the others by their number
    sha256     of the whole file, with 64 zeros in place of these digits
    network    the dataclasses of :mod:`.graph` by name and field; an array is ``{"array": name}``, one number
               over and over ``{"repeat": number, "times": ..}``, codes are ``{"codes": name, "bits": ..,
               "shape": [..]}``: the planes of :mod:`.pack`, one after the other

Fields that came later are left out where they hold their default. Whole numbers are stored in the smallest
signed type that holds them. What a file says is believed only after it was measured against what the
file holds, and only ``check`` knows whether the graph that comes of it is a network.
"""

import hashlib
import json
import re
from dataclasses import fields, is_dataclass, replace
from math import prod
from typing import Any, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from .._checks import require
from . import pack
from .check import MAX_NUMBERS, brief
from .errors import InvalidNetworkError
from .graph import (
    CurrentPool,
    Currents,
    Feedback,
    Gather,
    Graph,
    Input,
    MatMul,
    Neurons,
    Ones,
    Op,
    Product,
    Scores,
    Synapse,
    Window,
)

VERSIONS = (1, 2, 3)
KEY = "mfp_neurons.network"
MAX_HEADER = 2**22  # bytes; a thousand layers take about one million
_NO_DIGEST = "0" * 64
_MAX_AXES = 4
_DTYPES: dict[str, Any] = {
    "U8": np.uint8,
    "I8": np.int8,
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "F64": "<f8",
}
_KINDS = {
    kind.__name__: kind for kind in (Graph, Input, Feedback, Synapse, Window, CurrentPool, *get_args(Op))
}
# left out where they hold these: files without them are as they were before these fields
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Graph": {"fixed": False, "keys": ()},
    "Input": {"low": 0.0, "high": 1.0},
    "Neurons": {"feedback": None, "recurrent": ()},
    "Scores": {"skip": 0, "taps": None},
}
_OLD_TOP = 2**15  # the largest of a map in versions 1 and 2
Arrays = dict[str, NDArray[Any]]


def to_bytes(graph: Graph) -> bytes:
    """The file of a valid network as bytes; the same network always gives the same.

    Raises:
        InvalidNetworkError: the description of ``graph`` is longer than a file may have it.
    """
    arrays: Arrays = {}
    header = {"version": _version(graph), "sha256": _NO_DIGEST, "network": _encode(graph, "", arrays)}
    # zeros are as long as the checksum that takes their place, so nothing else in the file moves
    unsigned = _serialize(header, arrays)
    return _serialize(header | {"sha256": _digest(unsigned, _NO_DIGEST)}, arrays)


def from_bytes(data: bytes) -> Graph:
    """The graph that :func:`to_bytes` wrote; its fields may be wrong in every way before ``check``.

    Args:
        data: of any origin. Nothing in it is ever executed, and whatever it says, reading it takes no more
            memory than a small multiple of its size.

    Raises:
        InvalidNetworkError: why ``data`` holds no graph.
    """
    try:
        text, arrays = _open(data)
        graph = _decode(_verified(text, data), arrays)
    except RecursionError:
        raise InvalidNetworkError("the file's header is nested too deeply") from None
    if arrays:
        _refuse(f"has arrays that are not part of the network, such as {brief(min(arrays))}")
    return graph


# --- the container


def _version(graph: Graph) -> int:
    """The first version that can say this network."""
    neurons = [op for op in graph.body if isinstance(op, Neurons)]
    later = (
        (graph.input.low, graph.input.high) != (0.0, 1.0) or graph.input.top > 255,
        len(graph.heads) > 1 or bool(graph.keys),
        any(isinstance(op, Currents | Gather | Ones | Product | MatMul) for op in graph.body),
        any(op.top > _OLD_TOP for op in graph.body),
        any(op.recurrent for op in neurons),
        any(head.reduce == "max" or head.skip or head.taps is not None for head in graph.heads),
    )
    if any(later):
        return 3
    return 2 if any(op.feedback is not None for op in neurons) else 1


def _serialize(header: dict[str, Any], arrays: Arrays) -> bytes:
    text = json.dumps(header, ensure_ascii=False)
    data: bytes = require("safetensors.numpy", "deploy").save(arrays, {KEY: text})
    if _header_end(data) > MAX_HEADER:
        raise InvalidNetworkError(
            f"the network's description takes {_header_end(data)} bytes, at most {MAX_HEADER}"
        )
    return data


def _open(data: bytes) -> tuple[str, Arrays]:
    """What stands under the one key, and the arrays."""
    # before anything parses it: a header may say that it is of any length
    if len(data) < 8 or not 8 < _header_end(data) <= min(len(data), MAX_HEADER):
        _refuse("is not safetensors, or is cut off: its header is missing")
    safetensors = require("safetensors", "deploy")
    try:
        tensors = safetensors.deserialize(data)
        metadata = json.loads(data[8 : _header_end(data)].decode()).get("__metadata__")
    except (safetensors.SafetensorError, ValueError) as error:
        _refuse(f"is not safetensors, or is cut off: {str(error)[:200]}")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        _refuse(f"is safetensors, but has no {KEY!r} in its metadata")
    return text, {name: _array(name, tensor) for name, tensor in tensors}


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _array(name: str, tensor: dict[str, Any]) -> NDArray[Any]:
    """One array as it is stored; the container's sizes agree with its bytes already."""
    dtype, shape = tensor["dtype"], tensor["shape"]
    if dtype not in _DTYPES:
        _refuse(f"has {brief(name)} of type {dtype}, which no network has")
    if not 1 <= len(shape) <= _MAX_AXES or 0 in shape:
        _refuse(f"has {brief(name)} of shape {brief(shape)}, which no network has")
    return np.frombuffer(tensor["data"], _DTYPES[dtype]).reshape(shape)


# --- version and checksum


def _verified(text: str, data: bytes) -> Any:
    """The network's JSON, if this release wrote it and no bit has changed since."""
    try:
        header = json.loads(text, parse_constant=lambda word: _refuse(f"has {word} for a number"))
    except InvalidNetworkError:
        raise
    except ValueError as error:
        _refuse(f"describes its network in broken JSON: {error}")
    if not isinstance(header, dict):
        _refuse("describes its network by something else than a JSON object")
    version, digest = header.get("version"), header.get("sha256")
    if type(version) is not int or version not in VERSIONS:
        known = f"{', '.join(map(str, VERSIONS[:-1]))} and {VERSIONS[-1]}"
        _refuse(f"has version {brief(version)}; this release of mfp-neurons reads versions {known}")
    well_formed = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    if not well_formed or _digest(data, str(digest)) != digest:
        _refuse("has changed since it was written: its checksum does not match")
    if set(header) != {"version", "sha256", "network"}:
        _refuse(f"describes its network by {brief(sorted(header))}")
    return header["network"]


def _digest(data: bytes, written: str) -> str:
    """sha256 of a file in whose header the digits ``written`` count as zeros."""
    end = _header_end(data)
    sha256 = hashlib.sha256(data[:end].replace(written.encode(), _NO_DIGEST.encode()))
    sha256.update(memoryview(data)[end:])
    return sha256.hexdigest()


# --- the graph as plain JSON and named arrays


def _encode(value: Any, path: str, arrays: Arrays) -> Any:
    """Plain JSON of a value of the graph; its arrays go into ``arrays``."""
    if isinstance(value, Synapse):
        described = _fields(value, path, arrays, leave=("codes", "bits"))
        planes = pack.code_planes(value.codes, value.bits)
        arrays[f"{path}codes"] = pack.words(planes.reshape(-1), 8)
        shape = list(value.codes.shape)
        return described | {"codes": {"codes": f"{path}codes", "bits": value.bits, "shape": shape}}
    if is_dataclass(value):
        return _fields(value, path, arrays)
    if isinstance(value, tuple):
        return [_encode(item, f"{path}{i}.", arrays) for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        # units and errors are mostly one number; compared by bits, so that 0.0 and -0.0 stay what they are
        if value.dtype.kind == "f" and np.unique(value.view(np.int64)).size == 1:
            return {"repeat": float(value[0]), "times": len(value)}
        name = path.removesuffix(".")
        arrays[name] = np.ascontiguousarray(value if value.dtype.kind == "f" else pack.smallest(value))
        return {"array": name}
    return value


def _fields(value: Any, path: str, arrays: Arrays, leave: tuple[str, ...] = ()) -> dict[str, Any]:
    defaults = _DEFAULTS.get(type(value).__name__, {})
    kept = [field.name for field in fields(value) if field.init and field.name not in leave]
    kept = [name for name in kept if name not in defaults or not _equal(getattr(value, name), defaults[name])]
    if isinstance(value, Scores) and len(value.offset) == 1:
        value = replace(value, offset=value.offset[0])  # as it was when there was one row
    described = {name: _encode(getattr(value, name), f"{path}{name}.", arrays) for name in kept}
    return {"type": type(value).__name__} | described


def _equal(value: Any, default: Any) -> bool:
    # an array, which compares element by element, is never a default
    return type(value) is type(default) and value == default


def _decode(value: Any, arrays: Arrays) -> Any:
    """The inverse of :func:`_encode`; of wrong types and sizes ``check`` knows more."""
    if isinstance(value, list):
        return tuple(_decode(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"}:
        numbers = _take(value["array"], arrays)
        return numbers.astype(np.float64 if numbers.dtype.kind == "f" else np.int64)
    if set(value) == {"repeat", "times"}:
        return _repeat(value["repeat"], value["times"])
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        _refuse(f"has something of type {brief(kind)}, which no network has")
    described = {name: item for name, item in value.items() if name != "type"}
    if kind == "Synapse":
        described |= _decode_codes(described.get("codes"), arrays)
    described = _DEFAULTS.get(kind, {}) | described
    # all fields and no others, so that a dataclass is made with nothing missing and nothing is ignored
    wanted = {field.name for field in fields(_KINDS[kind]) if field.init}
    if set(described) != wanted:
        _refuse(f"has {kind} with fields {brief(sorted(described))}, not {', '.join(sorted(wanted))}")
    decoded = {name: _decode(item, arrays) for name, item in described.items()}
    if kind == "Scores" and isinstance(decoded["offset"], np.ndarray) and decoded["offset"].ndim == 1:
        decoded["offset"] = decoded["offset"][None]
    return _KINDS[kind](**decoded)


def _repeat(number: Any, times: Any) -> NDArray[np.float64]:
    """A number many times: a view, which takes no memory however many there are said to be."""
    if type(number) is not float or type(times) is not int or not 1 <= times <= MAX_NUMBERS:
        _refuse(f"has {brief(number)} repeated {brief(times)} times")
    return np.broadcast_to(np.float64(number), (times,))


def _take(name: Any, arrays: Arrays) -> NDArray[Any]:
    """An array, which belongs to one place alone: a small file cannot become large by naming it often."""
    if not isinstance(name, str) or name not in arrays:
        _refuse(f"lacks the array {brief(name)}, or uses it twice")
    return arrays.pop(name)


def _decode_codes(value: Any, arrays: Arrays) -> dict[str, Any]:
    """The fields ``codes`` and ``bits`` of a synapse."""
    if not isinstance(value, dict) or set(value) != {"codes", "bits", "shape"}:
        _refuse(f"has codes described by {brief(value)}")
    bits, shape = value["bits"], value["shape"]
    if bits not in pack.BITS or isinstance(bits, bool):
        _refuse(f"has codes of {brief(bits)} bits; 1, 1.58 and 2 to 8 are known")
    lengths = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    if not lengths or len(shape) > _MAX_AXES:
        _refuse(f"has codes of shape {brief(shape)}")
    packed = _take(value["codes"], arrays)
    planes = len(pack.plane_weights(bits)[0])
    if packed.dtype != np.uint8 or packed.shape != (-(-planes * prod(shape) // 8),):
        _refuse(f"has {packed.dtype} {list(packed.shape)} for codes of {bits} bits and shape {brief(shape)}")
    unpacked = pack.bits_of_words(packed, planes * prod(shape)).reshape(planes, *shape)
    codes = pack.codes_of_planes(unpacked, bits)
    # one network has one file: bits beyond the last code, or a 1.58-bit code of both signs, are refused
    if not np.array_equal(pack.words(pack.code_planes(codes, bits).reshape(-1), 8), packed):
        _refuse(f"has bits in {brief(value['codes'])} that belong to no code")
    return {"codes": codes, "bits": bits}


def _refuse(what: str) -> NoReturn:
    raise InvalidNetworkError(f"the file {what}")
