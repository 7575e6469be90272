"""What makes a window valid on a map: it reads nothing that is not there, and nothing grows without bound."""

from math import prod
from typing import Any

import numpy as np

from ._demand import demand, refuse, whole, wholes
from .graph import Shape, Window

MAX_LENGTH = 2**16  # of a window, its stride, padding and dilation
MAX_NUMBERS = 2**26  # in one map, with what its windows reach beyond it


def check_shape(where: str, field: str, shape: Any) -> None:
    """Raises unless ``shape`` is (C, H, W) of at least one and at most 2**26 numbers."""
    wholes(where, field, shape, 1, MAX_NUMBERS, 3)
    demand(prod(shape) <= MAX_NUMBERS, where, field, shape, "at most 2**26 numbers in all")


def check_window(where: str, window: Any, source: Shape, out: tuple[int, int], *, seen: bool = False) -> None:
    """Raises unless a window over a map ``source`` can have ``out`` outputs.

    Args:
        where: the operation, for the error.
        window: what came.
        source: (C, H, W) of the map.
        out: rows and columns of the outputs.
        seen: every output has to see an element of the map, as the largest of nothing is undefined.
    """
    if not isinstance(window, Window):
        refuse(where, "window", window, "a Window")
    for field, low in (("size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        wholes(where, f"window.{field}", getattr(window, field), low, MAX_LENGTH, 2)
    padded = [_check_axis(where, window, axis, source[1 + axis], out[axis], seen) for axis in (0, 1)]
    if source[0] * padded[0] * padded[1] > MAX_NUMBERS:
        refuse(where, "window.size", window.size, "such that the padded map has at most 2**26 numbers")


def _check_axis(where: str, window: Window, axis: int, length: int, out: int, seen: bool) -> int:
    """The length of the map with its padding."""
    size, stride, padding, dilation = (
        getattr(window, field)[axis] for field in ("size", "stride", "padding", "dilation")
    )
    extent = (size - 1) * dilation + 1
    name = ("rows", "columns")[axis]
    whole(where, f"window.padding ({name})", padding, 0, extent - 1)
    last = (out - 1) * stride - padding
    demand(last < length, where, f"shape ({name})", out, f"such that the last window begins before {length}")
    if seen:
        _check_seen(where, name, range(-padding, min(0, last + 1), stride), size, dilation, length)
    return max(padding + length, (out - 1) * stride + extent)


def _check_seen(where: str, name: str, starts: range, size: int, dilation: int, length: int) -> None:
    """Windows that begin in the padding, at ``starts``, have to reach the map; dilated ones may step over."""
    start = np.array(starts, np.int64)
    steps = -(start // dilation)  # to the first place at or after 0
    inside = (steps < size) & (start + steps * dilation < length)
    demand(
        bool(inside.all()),
        where,
        f"window ({name})",
        int(inside.sum()),
        f"one that all {len(start)} see through",
    )
