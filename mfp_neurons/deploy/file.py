"""An integer network as one file: safetensors, with the structure as JSON beside the arrays. No pickle.

The metadata has one key, ``mfp_neurons.network``, and there one JSON object:

    version    1
    sha256     of the whole file, with 64 zeros in place of these digits
    network    the dataclasses of :mod:`.graph` by name and field; an array is ``{"array": name}``, one number
               over and over ``{"repeat": number, "times": ..}``, codes are ``{"codes": name, "bits": ..,
               "shape": [..]}``: the planes of :mod:`.pack`, one after the other

A network that is not ``fixed`` to its number of steps has no such field. Whole numbers are stored in the
smallest signed type that holds them. What a file says is believed only after
it was measured against what the file holds, and a network leaves here only after ``check``.
"""

import hashlib
import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import require
from .._files import write_bytes
from ._encoding import Arrays, brief, decode, encode, refuse
from .check import check
from .errors import InvalidNetworkError
from .graph import Graph

VERSION = 1
KEY = "mfp_neurons.network"
MAX_HEADER = 2**22  # bytes; a thousand layers take about one million
_NO_DIGEST = "0" * 64
_DTYPES: dict[str, Any] = {
    "U8": np.uint8,
    "I8": np.int8,
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "F64": "<f8",
}
_MAX_AXES = 4


def save(graph: Graph, path: str | PathLike[str]) -> None:
    """Writes a network to a file; an older one at ``path`` stays whole until the new one is.

    Raises:
        InvalidNetworkError: ``graph`` is not a network that can be run.
        OSError: ``path`` cannot be written.
    """
    write_bytes(Path(path), to_bytes(graph))


def load(path: str | PathLike[str]) -> Graph:
    """Reads a network that ``save`` wrote; nothing in a file is ever executed.

    Args:
        path: of any origin. Whatever the file says, reading it takes no more memory than a small multiple of
            its size.

    Raises:
        InvalidNetworkError: why the file is not a network that can be run.
        OSError: ``path`` cannot be read.
    """
    return from_bytes(Path(path).read_bytes())


def to_bytes(graph: Graph) -> bytes:
    """The file as bytes; the same network always gives the same.

    Raises:
        InvalidNetworkError: ``graph`` is not a network that can be run.
    """
    check(graph)
    network, arrays = encode(graph)
    unsigned = _serialize(network, arrays, _NO_DIGEST)
    return _serialize(network, arrays, _digest(unsigned, _NO_DIGEST))


def from_bytes(data: bytes) -> Graph:
    """The network that :func:`to_bytes` wrote.

    Raises:
        InvalidNetworkError: why ``data`` is not a network that can be run.
    """
    try:
        text, arrays = _open(data)
        network = decode(_verified(text, data), arrays)
    except RecursionError:
        raise InvalidNetworkError("the file's header is nested too deeply") from None
    if arrays:
        refuse(f"has arrays that are not part of the network, such as {brief(min(arrays))}")
    check(network)
    return network


# the container


def _serialize(network: Any, arrays: Arrays, digest: str) -> bytes:
    text = json.dumps({"version": VERSION, "sha256": digest, "network": network}, ensure_ascii=False)
    data: bytes = require("safetensors.numpy", "deploy").save(arrays, {KEY: text})
    if _header_end(data) > MAX_HEADER:
        raise InvalidNetworkError(
            f"the network's description takes {_header_end(data)} bytes, at most {MAX_HEADER}"
        )
    return data


def _open(data: bytes) -> tuple[str, Arrays]:
    """What stands under the one key, and the arrays."""
    if len(data) < 8 or not 8 < _header_end(data) <= min(len(data), MAX_HEADER):
        refuse("is not safetensors, or is cut off: its header is missing")
    safetensors = require("safetensors", "deploy")
    try:
        tensors = safetensors.deserialize(data)
        metadata = json.loads(data[8 : _header_end(data)].decode()).get("__metadata__")
    except (safetensors.SafetensorError, ValueError) as error:
        refuse(f"is not safetensors, or is cut off: {str(error)[:200]}")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        refuse(f"is safetensors, but has no {KEY!r} in its metadata")
    return text, {name: _array(name, tensor) for name, tensor in tensors}


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _array(name: str, tensor: dict[str, Any]) -> NDArray[Any]:
    """One array as it is stored; the container's sizes agree with its bytes already."""
    dtype, shape = tensor["dtype"], tensor["shape"]
    if dtype not in _DTYPES:
        refuse(f"has {brief(name)} of type {dtype}, which no network has")
    if not 1 <= len(shape) <= _MAX_AXES or 0 in shape:
        refuse(f"has {brief(name)} of shape {brief(shape)}, which no network has")
    return np.frombuffer(tensor["data"], _DTYPES[dtype]).reshape(shape)


# version and checksum


def _verified(text: str, data: bytes) -> Any:
    """The network's JSON, if this release wrote it and no bit has changed since."""
    try:
        header = json.loads(text, parse_constant=lambda word: refuse(f"has {word} for a number"))
    except InvalidNetworkError:
        raise
    except ValueError as error:
        refuse(f"describes its network in broken JSON: {error}")
    if not isinstance(header, dict):
        refuse("describes its network by something else than a JSON object")
    version, digest = header.get("version"), header.get("sha256")
    if type(version) is not int or version != VERSION:
        refuse(f"has version {brief(version)}; this release of mfp-neurons reads version {VERSION}")
    well_formed = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    if not well_formed or _digest(data, str(digest)) != digest:
        refuse("has changed since it was written: its checksum does not match")
    if set(header) != {"version", "sha256", "network"}:
        refuse(f"describes its network by {brief(sorted(header))}")
    return header["network"]


def _digest(data: bytes, written: str) -> str:
    """sha256 of a file in whose header the digits ``written`` count as zeros."""
    end = _header_end(data)
    digest = hashlib.sha256(data[:end].replace(written.encode(), _NO_DIGEST.encode()))
    digest.update(memoryview(data)[end:])
    return digest.hexdigest()
