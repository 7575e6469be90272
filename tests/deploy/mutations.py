"""Files of integer networks, broken in every way: cut, flipped, or rewritten and signed again.

A checksum alone would turn every broken file away, and nothing behind it would be tried. ``signed`` gives a
file whose structure or arrays were changed a checksum that is right.
"""

import copy
import hashlib
import json
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from mfp_neurons.deploy.file import KEY

Arrays = dict[str, NDArray[Any]]
ZEROS = "0" * 64
_SIGNATURE = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')


def parts(data: bytes) -> tuple[Any, Arrays]:
    """The network's JSON, and the arrays."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.loads(data[8:end])["__metadata__"][KEY]
    return json.loads(text)["network"], load_arrays(data)


def version_of(data: bytes) -> Any:
    """The version that a file says it has."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8:end])["__metadata__"][KEY])["version"]


def signed(network: Any, arrays: Arrays, *, version: Any = 1) -> bytes:
    """A file of any structure and arrays with the checksum that it should have."""
    text = json.dumps({"version": version, "sha256": ZEROS, "network": network}, ensure_ascii=False)
    return signed_again(
        save_arrays({name: np.array(a, order="C") for name, a in arrays.items()}, {KEY: text})
    )


def signed_again(data: bytes) -> bytes:
    """The same bytes with the checksum that they should have, if there still is a place for one."""
    found = _SIGNATURE.search(data)
    if found is None:
        return data
    start, end = found.span(1)
    unsigned = data[:start] + ZEROS.encode() + data[end:]
    return data[:start] + hashlib.sha256(unsigned).hexdigest().encode() + data[end:]


# the bytes


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def splice(data: bytes, rng: random.Random) -> bytes:
    """A piece goes, comes twice, or comes where another was."""
    a, b, to = (rng.randrange(len(data)) for _ in range(3))
    a, b = min(a, b), min(max(a, b), min(a, b) + 200)
    return rng.choice([data[:a] + data[b:], data[:b] + data[a:], data[:to] + data[a:b] + data[to:]])


def digits(data: bytes, rng: random.Random) -> bytes:
    """Numbers of the container's own header: sizes and offsets."""
    changed = bytearray(data)
    end = min(len(data), 8 + int.from_bytes(data[:8], "little"))
    places = [i for i in range(end) if i < 8 or chr(data[i]).isdigit()]
    for _ in range(rng.choice([1, 1, 2, 3])):
        place = rng.choice(places)
        changed[place] = rng.randrange(256) if place < 8 else ord(rng.choice("0123456789-.e"))
    return bytes(changed)


def flip_numbers(data: bytes, rng: random.Random) -> bytes:
    """Bits of the arrays alone."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(8 + int.from_bytes(data[:8], "little"), len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# the structure

_NUMBERS = [0, 1, 2, 3, 7, 8, 9, 64, 255, 256, 2**15, 2**16, 2**16 + 1, 2**26, 2**31, 2**62, 2**63, 2**64]
_NUMBERS += [-1, -2, -(2**63), 10**40]
_FLOATS = [0.5, 1.0, 1.58, -0.0, 1e308, float("nan"), float("inf")]
_WORDS = [
    "",
    "max",
    "sum",
    "none",
    "codes",
    "type",
    "Scores",
    "Neurons",
    "Ones",
    "Product",
    "\u0000",
    "\ud7ff",
    "x" * 2000,
]
_OBJECTS = [{}, {"type": "Window"}, {"repeat": 0.5, "times": 1}, {"array": "input"}]
_OBJECTS += [{"codes": 1, "bits": 1, "shape": [1]}, {"numbers": [1], "least": 0, "bits": 1}]
_OBJECTS += [{"type": "Rows", "values": {"numbers": [1, 1, 1], "least": 1, "bits": 8}, "steps": 2**20}]
_VALUES: list[Any] = [*_NUMBERS, *_FLOATS, *_WORDS, *_OBJECTS, True, False, None, [], [[]], [1, 1], [1, 1, 1]]


def restructure(network: Any, rng: random.Random) -> Any:
    """One place of the JSON is something else."""
    network = copy.deepcopy(network)
    holder, key = rng.choice(_places(network))
    value = holder[key]
    kind = rng.randrange(8)
    if isinstance(value, int) and kind < 4:
        holder[key] = value + rng.choice([-1, 1, 1, 2])
    elif kind == 0:
        del holder[key]
    elif kind == 1:
        other, from_key = rng.choice(_places(network))
        holder[key] = copy.deepcopy(other[from_key])
    elif kind == 2 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(value))
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice(["bits", "codes", "extra", "type", "factor", "taps", "skip", "keys", ""])] = value
    elif kind == 4:
        holder[key] = [value]
    else:
        holder[key] = copy.deepcopy(rng.choice(_VALUES))
    return network


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object or list, key) below ``value``."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


# the arrays


def rearray(arrays: Arrays, rng: random.Random) -> Arrays:
    """One array holds other numbers, has another type, shape or name, is gone or one too many."""
    arrays = dict(arrays)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    match rng.randrange(9):
        case 0:
            del arrays[name]
        case 1:
            arrays[rng.choice(["", "extra", name + "."])] = array
        case 2:
            arrays[name] = arrays[rng.choice(sorted(arrays))]
        case 3:
            dtype = rng.choice([np.int8, np.uint8, np.int64, np.uint64, np.float32, np.float64, bool])
            arrays[name] = array.astype(dtype)
        case 4:
            shape = rng.choice([(-1,), (1, *array.shape), (*array.shape, 1), array.shape[::-1]])
            arrays[name] = array.reshape(shape)
        case 5:
            arrays[name] = rng.choice([array[:-1], array[:0], array.repeat(2, -1), array[..., :1]])
        case _:
            arrays[name] = _other_numbers(array, rng)
    return arrays


def _other_numbers(array: NDArray[Any], rng: random.Random) -> NDArray[Any]:
    extremes: list[Any] = [np.nan, np.inf, -1.0, 1e308]
    if array.dtype.kind != "f":
        extremes = [0, 1, 2, 85, 127, 2**31 - 1, 2**31, 2**61, 2**62, 2**62 + 1, 2**63 - 1]
        extremes += [-n for n in extremes] + [-(2**63)]
        array = array if array.dtype == np.uint8 else array.astype(np.int64)
        if array.dtype == np.uint8:
            extremes = list(range(256))
    if array.size == 0:
        return array
    changed = array.copy()
    for _ in range(rng.choice([1, 1, 2, 9])):
        with np.errstate(over="ignore"):  # of float32
            changed.reshape(-1)[rng.randrange(array.size)] = rng.choice(extremes)
    return changed


def rewrite(data: bytes, rng: random.Random) -> bytes:
    """Structure and arrays, one to three times."""
    network, arrays = parts(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if rng.random() < 0.6:
            network = restructure(network, rng)
        else:
            arrays = rearray(arrays, rng)
    return signed(network, arrays, version=version_of(data))


def _again(change: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    return lambda data, rng: signed_again(change(data, rng))


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": cut,
    "bits flipped": flip,
    "spliced": splice,
    "header's digits": digits,
    "bits flipped, signed": _again(flip),
    "spliced, signed": _again(splice),
    "header's digits, signed": _again(digits),
    "numbers flipped, signed": _again(flip_numbers),
    "rewritten, signed": rewrite,
}
