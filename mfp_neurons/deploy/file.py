"""An integer network as one file: safetensors, with the structure as JSON beside the arrays. No pickle.

The metadata has one key, ``mfp_neurons.network``, and there one JSON object:

    version    4. A program reads the versions it knows and refuses the others by their number
    sha256     of the whole file, with 64 zeros in place of these digits
    network    the dataclasses of :mod:`.graph` by name and field, with those of :mod:`.parameters` in place
               of arrays. An array of floats is ``{"array": name}``, one number over and over
               ``{"repeat": number, "times": ..}``, codes are ``{"codes": name, "bits": .., "shape": [..]}``
               and whole numbers ``{"numbers": [shape], "least": .., "bits": ..}``: both are planes of
               :mod:`.pack`, one after the other. All whole numbers lie in one array, in the order in which
               they stand here. Places that an earlier Gather has too are the number of that operation

Versions 1 to 3 have arrays of whole numbers in the smallest signed type that holds them, as ``{"array":
name}``, and no forms of :mod:`.parameters`. Fields that came later are left out where they hold their
default. What a file says is believed only after it was measured against what the file holds, and only
``check`` knows whether the graph that comes of it is a network.
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
    Feedback,
    Gather,
    Graph,
    Input,
    Ints,
    Neurons,
    Op,
    Scores,
    Synapse,
    Window,
)
from .parameters import (
    FORMS,
    Line,
    Palette,
    Parameters,
    Powers,
    Rows,
    numbers_of,
    parameters,
    repeated_places,
    stored,
    unpack,
)

VERSIONS = (1, 2, 3, 4)
KEY = "mfp_neurons.network"
NUMBERS = "numbers"  # the array of all whole numbers
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
    kind.__name__: kind
    for kind in (Graph, Input, Feedback, Synapse, Window, CurrentPool, *get_args(Op), *FORMS)
}
# left out where they hold these: files without them are as they were before these fields
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Graph": {"fixed": False, "keys": ()},
    "Input": {"low": 0.0, "high": 1.0},
    "Neurons": {"feedback": None, "recurrent": ()},
    "Scores": {"skip": 0, "taps": None},
}
Arrays = dict[str, NDArray[Any]]


def to_bytes(graph: Graph) -> bytes:
    """The file of a valid network as bytes; the same network always gives the same.

    Raises:
        InvalidNetworkError: the description of ``graph`` is longer than a file may have it.
    """
    writer = _Writer()
    header = {"version": VERSIONS[-1], "sha256": _NO_DIGEST, "network": writer.encode(graph)}
    arrays = writer.arrays | ({NUMBERS: np.concatenate(writer.numbers)} if writer.numbers else {})
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
        reader = _Reader(arrays)
        graph: Graph = reader.decode(_verified(text, data))
        reader.finish()
    except RecursionError:
        raise InvalidNetworkError("the file's header is nested too deeply") from None
    return graph


# --- the container


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


# --- the graph as plain JSON and arrays


class _Writer:
    """Plain JSON of the values of a graph.

    Attributes:
        arrays: codes and floats by the names that stand in their place.
        numbers: whole numbers, in the order in which these stand in the JSON.
    """

    def __init__(self) -> None:
        self.arrays: Arrays = {}
        self.numbers: list[NDArray[np.uint8]] = []

    def encode(self, value: Any, path: str = "") -> Any:
        match value:
            case Graph():
                return self._graph(value, path)
            case Synapse():
                return self._fields(value, path, leave=("codes", "bits")) | self._codes(value, path)
            case Neurons():
                return self._neurons(value, path)
            case Palette():
                # as they are: none of the two has a smaller form
                both = {"values": self._numbers(value.values), "places": self._numbers(value.places)}
                return {"type": "Palette"} | both
            case np.ndarray():
                return self._array(value, path)
            case tuple():
                return [self.encode(item, f"{path}{i}.") for i, item in enumerate(value)]
        return self._fields(value, path) if is_dataclass(value) else value

    def _fields(
        self, value: Any, path: str, instead: dict[str, Any] | None = None, leave: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The fields of a dataclass but those to ``leave``, or what stands in a file ``instead`` of one."""
        names = [field.name for field in fields(value) if field.init and field.name not in leave]
        held = {name: getattr(value, name) for name in names} | (instead or {})
        defaults = _DEFAULTS.get(type(value).__name__, {})
        kept = [name for name in held if name not in defaults or not _equal(held[name], defaults[name])]
        inner = {name: self.encode(held[name], f"{path}{name}.") for name in kept}
        return {"type": type(value).__name__} | inner

    def _graph(self, graph: Graph, path: str) -> dict[str, Any]:
        earlier = repeated_places(graph)
        described = self._fields(graph, path, leave=("ops",))
        described["ops"] = [
            self._fields(op, f"{path}ops.{i}.", {"places": earlier[i]})
            if i in earlier
            else self.encode(op, f"{path}ops.{i}.")
            for i, op in enumerate(graph.ops)
        ]
        return described

    def _neurons(self, op: Neurons, path: str) -> dict[str, Any]:
        forms = parameters(op)
        smaller = {"taps": forms.taps, "thresholds": forms.thresholds}
        described = self._fields(op, path, smaller, leave=("feedback",))
        if op.feedback is not None:
            described["feedback"] = self._fields(op.feedback, f"{path}feedback.", {"taps": forms.own})
        return described

    def _codes(self, synapse: Synapse, path: str) -> dict[str, Any]:
        name = f"{path}codes"
        planes = pack.code_planes(synapse.codes, synapse.bits)
        self.arrays[name] = pack.words(planes.reshape(-1), 8)
        return {"codes": {"codes": name, "bits": synapse.bits, "shape": list(synapse.codes.shape)}}

    def _array(self, array: NDArray[Any], path: str) -> Any:
        if array.dtype.kind != "f":
            form = stored(array)
            return self.encode(form, path) if isinstance(form, Palette) else self._numbers(form)
        # units and errors are mostly one number; compared by bits, so that 0.0 and -0.0 stay what they are
        if np.unique(array.view(np.int64)).size == 1:
            return {"repeat": float(array[0]), "times": len(array)}
        name = path.removesuffix(".")
        self.arrays[name] = np.ascontiguousarray(array)
        return {"array": name}

    def _numbers(self, numbers: Ints) -> dict[str, Any]:
        packed = pack.pack_numbers(numbers)
        self.numbers.append(packed.data)
        return {"numbers": list(numbers.shape), "least": packed.least, "bits": packed.bits}


def _equal(value: Any, default: Any) -> bool:
    # an array, which compares element by element, is never a default
    return type(value) is type(default) and value == default


class _Reader:
    """The inverse of :class:`_Writer`; of wrong types and sizes ``check`` knows more."""

    def __init__(self, arrays: Arrays) -> None:
        self._numbers = arrays.pop(NUMBERS, np.zeros(0, np.uint8))
        self._read = 0
        self._arrays = arrays
        if self._numbers.dtype != np.uint8 or self._numbers.ndim != 1:
            _refuse(f"has whole numbers as {self._numbers.dtype} {list(self._numbers.shape)}")

    def finish(self) -> None:
        """Refuses a file that holds more than was read."""
        if self._arrays:
            names = brief(min(self._arrays))
            _refuse(f"has arrays that are not part of the network, such as {names}")
        if self._read != self._numbers.size:
            _refuse(f"has {self._numbers.size} bytes of whole numbers, of which {self._read} are part of it")

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(self.decode(item) for item in value)
        if not isinstance(value, dict):
            return value
        if set(value) == {"array"}:
            array = self._take(value["array"])
            return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        if set(value) == {"numbers", "least", "bits"}:
            return self._whole(value["numbers"], value["least"], value["bits"])
        if set(value) == {"repeat", "times"}:
            return _repeat(value["repeat"], value["times"])
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in _KINDS:
            _refuse(f"has something of type {brief(kind)}, which no network has")
        described = {name: item for name, item in value.items() if name != "type"}
        if kind == "Synapse":
            described |= self._codes(described.get("codes"))
        # in the order of the file, which is that of its whole numbers
        described = {name: self.decode(item) for name, item in described.items()}
        described = _DEFAULTS.get(kind, {}) | described
        # all fields and no others, so that a dataclass is made with nothing missing and nothing is ignored
        wanted = {field.name for field in fields(_KINDS[kind]) if field.init}
        if set(described) != wanted:
            _refuse(f"has {kind} with fields {brief(sorted(described))}, not {', '.join(sorted(wanted))}")
        return _resolved(_KINDS[kind](**described))

    def _take(self, name: Any) -> NDArray[Any]:
        """An array, which belongs to one place alone: a small file cannot become large by naming it often."""
        if not isinstance(name, str) or name not in self._arrays:
            _refuse(f"lacks the array {brief(name)}, or uses it twice")
        return self._arrays.pop(name)

    def _whole(self, shape: Any, least: Any, bits: Any) -> Ints:
        """The next whole numbers."""
        known = type(least) is int and type(bits) is int and 1 <= bits <= 64
        if not known or not -(2**63) <= least < 2**63:
            _refuse(f"has numbers from {brief(least)} of {brief(bits)} bits")
        shape = _shape(shape)
        count = prod(shape)
        begin, size = self._read, pack.number_bytes(count, bits)
        self._read += size
        if self._read > self._numbers.size:
            _refuse(f"has {self._numbers.size} bytes of whole numbers, and its network more")
        data = self._numbers[begin : self._read]
        # one network has one file, as below
        if count * bits % 8 and data[-1] >> (count * bits % 8):
            _refuse(f"has a bit behind {count} numbers that belongs to none of them")
        return pack.unpack_numbers(pack.Numbers(least, bits, data), count).reshape(shape)

    def _codes(self, value: Any) -> dict[str, Any]:
        """The fields ``codes`` and ``bits`` of a synapse."""
        if not isinstance(value, dict) or set(value) != {"codes", "bits", "shape"}:
            _refuse(f"has codes described by {brief(value)}")
        bits, shape = value["bits"], list(_shape(value["shape"]))
        if bits not in pack.BITS or isinstance(bits, bool):
            _refuse(f"has codes of {brief(bits)} bits; 1, 1.58 and 2 to 8 are known")
        packed = self._take(value["codes"])
        planes = len(pack.plane_weights(bits)[0])
        if packed.dtype != np.uint8 or packed.shape != (-(-planes * prod(shape) // 8),):
            _refuse(
                f"has {packed.dtype} {list(packed.shape)} for codes of {bits} bits and shape {brief(shape)}"
            )
        unpacked = pack.bits_of_words(packed, planes * prod(shape)).reshape(planes, *shape)
        codes = pack.codes_of_planes(unpacked, bits)
        # one network has one file: bits beyond the last code, or a 1.58-bit code of both signs, are refused
        if not np.array_equal(pack.words(pack.code_planes(codes, bits).reshape(-1), 8), packed):
            _refuse(f"has bits in {brief(value['codes'])} that belong to no code")
        return {"codes": codes, "bits": bits}


def _resolved(value: Any) -> Any:
    """What was decoded with arrays in place of the forms that it holds."""
    match value:
        case Palette() | Powers():
            return numbers_of(value)
        case Scores(offset=np.ndarray(ndim=1)):  # of versions 1 to 3, of one row
            return replace(value, offset=value.offset[None])
        case Neurons(thresholds=Rows() | Line() as thresholds):
            return _with_arrays(value, thresholds)
        case Graph(ops=tuple() as ops):
            return replace(value, ops=tuple(_with_places(op, i, ops) for i, op in enumerate(ops)))
    return value


def _with_arrays(op: Neurons, rows: Any) -> Neurons:
    """Neurons with the numbers of their taps and thresholds, which were decoded as forms."""
    feedback = op.feedback if isinstance(op.feedback, Feedback) else None
    parts = [part for part in (op.synapses, op.recurrent) if isinstance(part, tuple)]
    layers = [synapse for part in parts for synapse in part if isinstance(synapse, Synapse)]
    forms = Parameters(op.taps, rows, None if feedback is None else feedback.taps)
    taps, thresholds, own = unpack(forms, layers)
    if feedback is not None:
        op = replace(op, feedback=replace(feedback, taps=own))
    return replace(op, taps=taps, thresholds=thresholds)


def _with_places(op: Any, index: int, ops: tuple[Any, ...]) -> Any:
    """Operation ``index``; one that has the places of an earlier one gets them."""
    number: Any = op.places if isinstance(op, Gather) else None
    if type(number) is not int:
        return op
    same = ops[number] if 0 <= number < index else None
    if not isinstance(same, Gather):
        _refuse(f"has a Gather with the places of operation {brief(number)}, which is no earlier one")
    return replace(op, places=same.places)


def _repeat(number: Any, times: Any) -> NDArray[np.float64]:
    """A number many times: a view, which takes no memory however many there are said to be."""
    if type(number) is not float or type(times) is not int or not 1 <= times <= MAX_NUMBERS:
        _refuse(f"has {brief(number)} repeated {brief(times)} times")
    return np.broadcast_to(np.float64(number), (times,))


def _shape(shape: Any) -> tuple[int, ...]:
    lengths = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    if not lengths or len(shape) > _MAX_AXES:
        _refuse(f"has codes or numbers of shape {brief(shape)}")
    return tuple(shape)


def _refuse(what: str) -> NoReturn:
    raise InvalidNetworkError(f"the file {what}")
