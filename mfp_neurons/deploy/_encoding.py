"""A graph as plain JSON and named arrays, and back; what comes back may be wrong in every way (``check``)."""

from dataclasses import fields, is_dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import pack
from ._windows import MAX_NUMBERS
from .errors import InvalidNetworkError
from .graph import Concat, CurrentPool, Graph, Input, Neurons, Pool, Scores, Sum, Synapse, TimePool, Window

Arrays = dict[str, NDArray[Any]]
_MAX_AXES = 4
_KINDS = {
    kind.__name__: kind
    for kind in (Graph, Input, Neurons, Synapse, Window, CurrentPool, Pool, TimePool, Sum, Concat, Scores)
}


def encode(graph: Graph) -> tuple[Any, Arrays]:
    """JSON and arrays of a valid network."""
    arrays: Arrays = {}
    return _plain(graph, "", arrays), arrays


def _plain(value: Any, path: str, arrays: Arrays) -> Any:
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
        return [_plain(item, f"{path}{i}.", arrays) for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and np.unique(value.view(np.int64)).size == 1:
            return {"repeat": float(value[0]), "times": len(value)}
        name = path.removesuffix(".")
        arrays[name] = np.ascontiguousarray(value if value.dtype.kind == "f" else pack.smallest(value))
        return {"array": name}
    return value


def _fields(value: Any, path: str, arrays: Arrays, leave: tuple[str, ...] = ()) -> dict[str, Any]:
    kept = [field.name for field in fields(value) if field.init and field.name not in leave]
    if isinstance(value, Graph) and not value.fixed:
        kept.remove("fixed")  # files are as they were before this field
    described = {name: _plain(getattr(value, name), f"{path}{name}.", arrays) for name in kept}
    return {"type": type(value).__name__} | described


def decode(value: Any, arrays: Arrays) -> Any:
    """The inverse of :func:`_encode`; of wrong types and sizes ``check`` knows more."""
    if isinstance(value, list):
        return tuple(decode(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"}:
        numbers = _take(value["array"], arrays)
        return numbers.astype(np.float64 if numbers.dtype.kind == "f" else np.int64)
    if set(value) == {"repeat", "times"}:
        return _repeat(value["repeat"], value["times"])
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        refuse(f"has something of type {brief(kind)}, which no network has")
    given = {name: item for name, item in value.items() if name != "type"}
    if kind == "Synapse":
        given |= _decode_codes(given.get("codes"), arrays)
    wanted = {field.name for field in fields(_KINDS[kind]) if field.init}
    if kind == "Graph":
        given.setdefault("fixed", False)
    if set(given) != wanted:
        refuse(f"has {kind} with fields {brief(sorted(given))}, not {', '.join(sorted(wanted))}")
    return _KINDS[kind](**{name: decode(item, arrays) for name, item in given.items()})


def _repeat(number: Any, times: Any) -> NDArray[np.float64]:
    """A number many times: a view, which takes no memory however many there are said to be."""
    if type(number) is not float or type(times) is not int or not 1 <= times <= MAX_NUMBERS:
        refuse(f"has {brief(number)} repeated {brief(times)} times")
    return np.broadcast_to(np.float64(number), (times,))


def _take(name: Any, arrays: Arrays) -> NDArray[Any]:
    """An array, which belongs to one place alone: a small file cannot become large by naming it often."""
    if not isinstance(name, str) or name not in arrays:
        refuse(f"lacks the array {brief(name)}, or uses it twice")
    return arrays.pop(name)


def _decode_codes(value: Any, arrays: Arrays) -> dict[str, Any]:
    """The fields ``codes`` and ``bits`` of a synapse."""
    if not isinstance(value, dict) or set(value) != {"codes", "bits", "shape"}:
        refuse(f"has codes described by {brief(value)}")
    bits, shape = value["bits"], value["shape"]
    if bits not in pack.BITS or isinstance(bits, bool):
        refuse(f"has codes of {brief(bits)} bits; 1, 1.58 and 2 to 8 are known")
    if (
        not isinstance(shape, list)
        or not all(type(n) is int and n > 0 for n in shape)
        or len(shape) > _MAX_AXES
    ):
        refuse(f"has codes of shape {brief(shape)}")
    packed = _take(value["codes"], arrays)
    planes = len(pack.plane_weights(bits)[0])
    if packed.dtype != np.uint8 or packed.shape != (-(-planes * prod(shape) // 8),):
        refuse(f"has {packed.dtype} {list(packed.shape)} for codes of {bits} bits and shape {brief(shape)}")
    unpacked = pack.bits_of_words(packed, planes * prod(shape)).reshape(planes, *shape)
    codes = pack.codes_of_planes(unpacked, bits)
    if not np.array_equal(pack.words(pack.code_planes(codes, bits).reshape(-1), 8), packed):
        refuse(f"has bits in {brief(value['codes'])} that belong to no code")
    return {"codes": codes, "bits": bits}


def refuse(what: str) -> NoReturn:
    raise InvalidNetworkError(f"the file {what}")


def brief(value: Any) -> str:
    """What came, for a message; of foreign files it can be anything and long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
