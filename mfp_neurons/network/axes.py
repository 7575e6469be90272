"""What the dimensions of a tensor in a model stand for: time, batch, and places of a layer's features.

A dimension is a tuple of axes, the slowest first; none at all where its size is 1. An axis of features knows
its stride: how far apart its neighbors are in the row-major order of the features [C, H, W] that it belongs
to. So a dimension can be split and merged, as ``view`` and ``flatten`` do, and moved, as ``permute`` does,
and it still says which numbers of the layer it holds.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Axis(NamedTuple):
    """Attributes: kind, "T", "N" or "F" (features); size; stride, of features."""

    kind: str
    size: int
    stride: int = 0


Dim = tuple[Axis, ...]
Dims = tuple[Dim, ...]


def of_features(sizes: Sequence[int]) -> Dims:
    """Dimensions of these sizes that together are a layer's features, in row-major order."""
    dims: list[Dim] = []
    stride = 1
    for size in reversed(sizes):
        # A dimension of size 1 holds no axis. So one that is added or dropped changes nothing, as in torch.
        dims.append((Axis("F", size, stride),) if size > 1 else ())
        stride *= size
    return tuple(reversed(dims))


def sizes(dims: Sequence[Dim]) -> Shape:
    """The shape of a tensor."""
    return tuple(prod(axis.size for axis in dim) for dim in dims)


def kinds(dim: Dim) -> set[str]:
    """What a dimension is made of."""
    return {axis.kind for axis in dim}


def has_time(dims: Dims) -> bool:
    """Whether one of the dimensions is time."""
    return any("T" in kinds(dim) for dim in dims)


def labels(dims: Dims) -> str:
    """Dimensions for messages: [T*N, 16]."""
    names = [
        "*".join(axis.kind if axis.kind != "F" else str(axis.size) for axis in dim) if dim else "1"
        for dim in dims
    ]
    return f"[{', '.join(names)}]"


def flat(dims: Dims) -> Dim | None:
    """All dimensions as one, if they are axes of features; None if others are among them."""
    axes = merged([axis for dim in dims for axis in dim])
    return axes if all(axis.kind == "F" for axis in axes) else None


def merged(axes: Sequence[Axis]) -> Dim:
    """Axes of features that follow each other in memory as one; those of size 1 dropped."""
    joined: list[Axis] = []
    for axis in axes:
        if axis.kind == "F" and axis.size == 1:
            continue
        last = joined[-1] if joined else None
        # Two neighbors are one axis where a step along the slower one is as long as all of the faster one.
        if last and axis.kind == last.kind == "F" and last.stride == axis.stride * axis.size:
            joined[-1] = Axis("F", last.size * axis.size, axis.stride)
        else:
            joined.append(axis)
    return tuple(joined)


def regroup(dims: Dims, wanted: Sequence[int]) -> Dims | None:
    """What dimensions become under ``reshape(wanted)``; None where time or batch would be cut up."""
    # A reshape keeps the order in memory, so axes are taken from the left until their product is the wanted
    # size.
    left = [axis for dim in dims for axis in dim]
    regrouped: list[Dim] = []
    for size in wanted:
        taken: list[Axis] = []
        if size == 1 and left and left[0].size == 1:
            taken.append(left.pop(0))  # a single step, or a single sample
        while size > 1:
            if not left:
                return None
            axis = left.pop(0)
            if size % axis.size == 0:
                taken.append(axis)
                size //= axis.size
            # An axis of features may be cut in two, since its stride says where both parts lie. Half of time,
            # or of the batch, would be nothing that a layer knows.
            elif axis.kind == "F" and axis.size % size == 0:
                rest = axis.size // size
                taken.append(Axis("F", size, axis.stride * rest))
                left.insert(0, Axis("F", rest, axis.stride))
                size = 1
            else:
                return None
        regrouped.append(merged(taken))
    if any(axis.size > 1 for axis in left):
        return None
    if left and regrouped:  # single steps or samples at the end
        regrouped[-1] = (*regrouped[-1], *left)
    return tuple(regrouped)


def features_of(dims: Sequence[Dim]) -> Dims:
    """The dimensions without those of steps and samples."""
    return tuple(dim for dim in dims if not kinds(dim) & {"T", "N"})


def extended(dims: Dims, rank: int) -> Dims:
    """As many dimensions as ``rank``: those of size 1 that torch puts in front of the shorter shape."""
    return ((),) * (rank - len(dims)) + dims


def join(first: Dims, second: Dims) -> Dims | None:
    """The dimensions of two tensors of the same places combined; None where they are of different ones.

    One of them may lack the time axis: it is the same at every step.
    """
    rank = max(len(first), len(second))
    joined: list[Dim] = []
    for a, b in zip(extended(first, rank), extended(second, rank), strict=True):
        if a != b and not (a == () and kinds(b) == {"T"}) and not (b == () and kinds(a) == {"T"}):
            return None
        joined.append(a or b)
    return tuple(joined)


def places(axes: Sequence[Axis]) -> NDArray[np.int64]:
    """The place in the row-major features of every element along axes of features, in their order.

    >>> places([Axis("F", 2, 1), Axis("F", 3, 2)])
    array([0, 2, 4, 1, 3, 5])
    """
    offsets = np.zeros(1, np.int64)
    for axis in axes:
        offsets = (offsets[:, None] + np.arange(axis.size) * axis.stride).ravel()
    return offsets
