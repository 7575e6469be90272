"""Maps with a depth, as maps without one: what windows see of depths and rows is laid out side by side.

A window of depths, rows and columns over [C, D, H, W] becomes one of columns over rows of their own, one for
each depth and row of what comes out: the numbers of the map at other places, repeated where windows overlap.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


def unrolled(
    places: Places,
    counts: Sequence[int],
    size: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    spread: Sequence[int],
    *,
    repeated: bool = False,
) -> Places:
    """Places [C, depths of a window, rows of a window, D', H', W] of those of [C, D, H, W].

    Args:
        places: of the map.
        counts: D' and H', how many windows there are.
        size, stride, before, spread: of the window in both dimensions; ``before`` is the padding there.
        repeated: what lies outside of the map is a number of the same window, instead of -1.
    """
    for axis, (count, k, s, p, d) in enumerate(zip(counts, size, stride, before, spread, strict=True)):
        at = 1 + 2 * axis  # behind the axes that the dimension before has become
        index = np.arange(k)[:, None] * d + np.arange(count) * s - p
        outside = (index < 0) | (index >= places.shape[at])
        if repeated:
            first = np.take_along_axis(index, outside.argmin(axis=0)[None], axis=0)
            index, outside = np.where(outside, first, index), np.zeros_like(outside)
        seen = np.take(places, np.where(outside, 0, index), at)
        shape = (*[1] * at, *index.shape, *[1] * (seen.ndim - at - 2))
        places = np.where(outside.reshape(shape), -1, seen)
    return places.swapaxes(2, 3)
