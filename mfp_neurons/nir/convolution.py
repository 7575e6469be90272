"""Convolutions as NIR's readers take them: dense, with square windows.

NIR has a field for groups, but its types, and every importer seen, take the weight's second dimension for the
number of channels; and it works out the size of what comes out from the window's height alone. Zeros in the
weight say the same thing without either: exactly, for a product with 0 adds nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


def widened(weight: NDArray[Any], options: dict[str, Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    """A weight [out, in / groups, *] made dense and square, and the options that go with it.

    >>> weight, options = widened(np.ones((2, 1, 1, 3)), dict(groups=2, padding=(0, 0), dilation=(1, 1)))
    >>> weight.shape, options["padding"], options["groups"]
    ((2, 2, 3, 3), (1, 0), 1)
    """
    groups, padding, dilation = options["groups"], options["padding"], options["dilation"]
    wide = _dense(weight, groups)
    if weight.ndim == 4:
        sizes = weight.shape[2:]
        # The window grows alike on both sides, and the padding with it, so that every output still reads the
        # same inputs.
        added = [(max(sizes) - size) // 2 for size in sizes]
        wide = np.pad(wide, ((0, 0), (0, 0), *((n, n) for n in added)))
        if not isinstance(padding, str):
            padding = tuple(p + d * n for p, d, n in zip(padding, dilation, added, strict=True))
    return wide, options | {"groups": 1, "padding": padding}


def can_be_square(kernel_size: tuple[int, ...]) -> bool:
    """Whether zeros around a window make it square."""
    return len({size % 2 for size in kernel_size}) == 1


def narrowed(weight: NDArray[Any], groups: int, kernel_size: tuple[int, ...]) -> NDArray[Any] | None:
    """The inverse of :func:`widened`; None where the weight is not made so."""
    cut = [(wide - size) // 2 for wide, size in zip(weight.shape[2:], kernel_size, strict=True)]
    inner = weight[:, :, *(slice(n, n + size) for n, size in zip(cut, kernel_size, strict=True))]
    out, channels = len(weight) // groups, weight.shape[1] // groups
    # Only the blocks on the diagonal belong to a group; outside of them the dense weight is 0.
    parts = [inner[g * out : (g + 1) * out, g * channels : (g + 1) * channels] for g in range(groups)]
    narrow = np.concatenate(parts)
    # What was cut out is widened once more, since a weight that has other numbers around it was not made so.
    padded = np.pad(_dense(narrow, groups), ((0, 0), (0, 0), *((n, n) for n in cut)))
    return narrow if padded.shape == weight.shape and np.array_equal(padded, weight) else None


def _dense(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    if groups == 1:
        return weight
    out, channels = len(weight) // groups, weight.shape[1]
    dense = np.zeros((len(weight), channels * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        rows = slice(g * out, (g + 1) * out)
        dense[rows, g * channels : (g + 1) * channels] = weight[rows]
    return dense
