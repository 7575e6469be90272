"""Which outputs a source position reaches through a window, and sums kept only where something arrived."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .graph import Ints, Window


@dataclass(frozen=True)
class Reached:
    """Whole numbers [places, C] at the places of a layer that something reached; all others are 0."""

    places: Ints  # sorted flat indices over (time, sample, row, column)
    values: Ints


def outputs(
    position: Ints, place: int, axis: int, window: Window, length: int
) -> tuple[Ints, NDArray[np.bool_]]:
    """The output that sees a source position at this place of its window, and whether there is one."""
    start = position + window.padding[axis] - place * window.dilation[axis]
    output = start // window.stride[axis]
    return output, (start % window.stride[axis] == 0) & (output >= 0) & (output < length)


def inside(output: Ints, axis: int, window: Window, length: int) -> Ints:
    """How many places of an output's window lie inside a map of this length."""
    places = np.arange(window.size[axis]) * window.dilation[axis]
    position = output[:, None] * window.stride[axis] - window.padding[axis] + places
    return ((position >= 0) & (position < length)).sum(axis=1)


def gathered(found: list[tuple[Ints, Ints]], channels: int) -> tuple[Ints, NDArray[np.intp], Ints]:
    """Distinct places, the index among them of every row, and all rows [rows, C]."""
    values = np.concatenate([np.zeros((0, channels), np.int64), *(v for _, v in found)])
    places, inverse = np.unique(
        np.concatenate([np.zeros(0, np.int64), *(p for p, _ in found)]), return_inverse=True
    )
    return places, inverse, values


def added(found: list[tuple[Ints, Ints]], channels: int) -> Reached:
    """Rows that fall on the same place, added."""
    places, inverse, values = gathered(found, channels)
    total = np.zeros((len(places), channels), np.int64)
    np.add.at(total, inverse, values)
    return Reached(places, total)
