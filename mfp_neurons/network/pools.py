"""Rules of pools over rows and columns, and of means and sums over features."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .axes import Axis, Dim, Dims, Shape, flat, kinds, merged, of_features, places, sizes
from .description import GroupSum, Pool
from .synapses import pair
from .tracing import Tracer, Value, rule
from .volumes import unrolled

_MOST_CODES = 2**20  # of a sum that is written as a matrix of 0 and 1


@rule(*(f"max_pool{n}d{end}" for n in (1, 2, 3) for end in ("", "_with_indices")))
def max_pool(
    tracer: Tracer,
    result: Any,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    _check_no_indices(tracer, result)
    rank = _rank(tracer)
    size, step, pad = _window(kernel_size, stride, padding, rank)
    return _pooled(tracer, x, result, size, step, pad, pair(dilation, rank), largest=True)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pool(
    tracer: Tracer,
    result: Tensor,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    value, rank = tracer.value(x, "the input of a pool"), _rank(tracer)
    size, step, pad = _window(kernel_size, stride, padding, rank)
    # torch has one function for a pool over a sequence and for a vote of features; only the shape tells them
    # apart.
    if rank == 1 and _is_vote(tracer, value, size, step, pad):
        return _vote(tracer, value, size[0])
    lengths = sizes(value.dims)[-rank:]
    # as torch counts: a window ends with the padded map, or with the map itself
    reach = pad if count_include_pad else (0,) * rank
    windows = [
        [(o * s - p, min(o * s - p + k, n + p)) for o in range(count)]
        for count, k, s, p, n in zip(result.shape[-rank:], size, step, pad, lengths, strict=True)
    ]
    counts = [
        [min(end, n + r) - max(start, -r) for start, end in row]
        for row, r, n in zip(windows, reach, lengths, strict=True)
    ]
    if divisor_override is None and any(
        count != k for row, k in zip(counts, size, strict=True) for count in row
    ):
        return _unequal(tracer, x, result, windows, counts)
    return _pooled(tracer, x, result, size, step, pad, (1,) * rank, divisor=divisor_override)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_average_pool(tracer: Tracer, result: Tensor, x: Any, output_size: Any) -> Value:
    return _adaptive(tracer, x, result, largest=False)


@rule(*(f"adaptive_max_pool{n}d{end}" for n in (1, 2, 3) for end in ("", "_with_indices")))
def adaptive_max_pool(
    tracer: Tracer, result: Any, x: Any, output_size: Any, return_indices: bool = False
) -> Value:
    _check_no_indices(tracer, result)
    return _adaptive(tracer, x, result, largest=True)


def _rank(tracer: Tracer) -> int:
    """How many dimensions the pool that is running slides over."""
    return int(tracer.name.partition("pool")[2][0])


def _window(size: Any, stride: Any, padding: Any, rank: int) -> tuple[Shape, Shape, Shape]:
    return pair(size, rank), pair(stride or size, rank), pair(padding, rank)


def _check_no_indices(tracer: Tracer, result: Any) -> None:
    if not isinstance(result, Tensor):
        tracer.refuse(
            "returns the places of the largest numbers (return_indices=True). Use return_indices=False"
        )


def _adaptive(tracer: Tracer, x: Any, result: Tensor, largest: bool) -> Value:
    rank = _rank(tracer)
    before = sizes(tracer.value(x, "the input of a pool").dims)[-rank:]
    after = tuple(result.shape[-rank:])
    if not any(a % b for a, b in zip(before, after, strict=True)):
        size = tuple(a // b for a, b in zip(before, after, strict=True))
        return _pooled(tracer, x, result, size, size, (0,) * rank, (1,) * rank, largest=largest)
    # torch's windows: they overlap where the sizes do not divide
    windows = [
        [(o * n // count, -(-(o + 1) * n // count)) for o in range(count)]
        for n, count in zip(before, after, strict=True)
    ]
    counts = [[end - start for start, end in row] for row in windows]
    return _unequal(tracer, x, result, windows, counts, largest=largest)


def _unequal(
    tracer: Tracer,
    x: Any,
    result: Tensor,
    windows: Sequence[Sequence[tuple[int, int]]],
    counts: Sequence[Sequence[int]],
    largest: bool = False,
) -> Value:
    """A pool whose windows are of several sizes: the numbers of each are repeated until all are of one.

    Args:
        windows: (first, behind the last) of each output, for each dimension.
        counts: by how many an average divides there; those outside of the map are 0.
        largest: not the average.
    """
    value, rank = tracer.value(x, "the input of a pool"), len(windows)
    value, leading, shape = tracer.features(value, rank + 1, "a pool")
    places = np.arange(prod(shape)).reshape(shape)
    size = []
    for axis, (row, dividends) in enumerate(zip(windows, counts, strict=True), start=1):
        # an average over 2 and one over 3 numbers are both sums of 6: exact, as a repeated number is
        length = max(dividends) if largest else lcm(*dividends)
        chosen: list[int] = []
        for (start, end), count in zip(row, dividends, strict=True):
            inside = list(range(max(0, start), min(end, shape[axis])))
            if largest:
                chosen += inside + inside[-1:] * (length - len(inside))
                continue
            times = length // count
            chosen += [place for place in inside for _ in range(times)] + [-1] * (
                length - len(inside) * times
            )
        index = np.array(chosen)
        filled = (index < 0).reshape(-1, *[1] * (rank - axis))
        places = np.where(filled, -1, np.take(places, index, axis))
        size.append(length)
    value = tracer.gathered(value, len(leading), places)
    if prod(size) == 1:
        return value
    moved, shape = tracer.stand_in(value), tuple(size)
    return _pooled(tracer, moved, result, shape, shape, (0,) * rank, (1,) * rank, largest=largest)


def _pooled(
    tracer: Tracer,
    x: Any,
    result: Tensor,
    size: Shape,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    *,
    largest: bool = False,
    divisor: int | None = None,
) -> Value:
    value, rank = tracer.value(x, "the input of a pool"), len(size)
    value, leading, before = tracer.features(value, rank + 1, "a pool")
    after = tuple(result.shape[-rank:])
    if largest and _some_see_nothing(before[1:], after, size, stride, padding, dilation):
        tracer.refuse(
            f"has windows that see padding alone (padding={max(padding)}, "
            f"dilation={max(dilation)}), and the largest of nothing is no number. Use less padding, "
            "or dilation=1"
        )
    # With ceil_mode the last window may begin within the padded map and end behind it.
    reach = [
        (out - 1) * s + d * (k - 1) + 1 > length + 2 * p
        for length, out, k, s, p, d in zip(before[1:], after, size, stride, padding, dilation, strict=True)
    ]
    shape = features = (before[0], *after)
    if rank == 3:
        places = np.arange(prod(before)).reshape(before)
        options = (one[:2] for one in (after, size, stride, padding, dilation))
        places = unrolled(places, *options, repeated=largest)
        # depths and rows of a window beneath each other
        height, rows = size[0] * size[1], after[0] * after[1]
        places = np.moveaxis(places, (3, 4), (1, 2)).reshape(before[0], rows * height, before[3])
        value, shape = tracer.gathered(value, len(leading), places), (before[0], rows, after[2])
        size, stride, padding, dilation = (
            (of_rows, one[2])
            for of_rows, one in zip((height, height, 0, 1), (size, stride, padding, dilation), strict=True)
        )
        reach = reach[2:]
    number = tracer.emit(
        Pool,
        [tracer.source(value, len(leading))],
        shape,
        largest=largest,
        size=size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        divisor=divisor,
        is_partial=any(reach),
    )
    return replace(value, layer=number, dims=(*leading, *of_features(features)))


def _some_see_nothing(
    lengths: Shape, counts: Shape, size: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> bool:
    """Whether a window lies on no row, or on no column, of the map."""
    options = zip(lengths, counts, size, stride, padding, dilation, strict=True)
    for length, count, window, step, before, spread in options:
        starts = np.arange(count)[:, None] * step - before
        reached = starts + np.arange(window) * spread
        if not ((reached >= 0) & (reached < length)).any(axis=1).all():
            return True
    return False


def _is_vote(tracer: Tracer, value: Value, size: Shape, stride: Shape, padding: Shape) -> bool:
    """Whether an average over a row of numbers is over groups of features: SpikingJelly's VotingLayer."""
    *_, channels, row = value.dims
    shape = tracer.layer(value).shape
    # A vote comes as a row of all features with a dimension of size 1 for the channels, as avg_pool1d wants
    # it.
    if channels or kinds(row) != {"F"} or row != flat(of_features(shape)):
        return False
    one_channel = shape[0] == 1  # that is a sequence, pooled as such
    return not one_channel and size == stride and not any(padding) and sizes((row,))[0] % size[0] == 0


def _vote(tracer: Tracer, value: Value, size: int) -> Value:
    *others, row = value.dims
    (axis,) = row
    # Neighbors vote together: the groups are the slow part of the row, the members of a group its fast part.
    groups = Axis("F", axis.size // size, axis.stride * size)
    kept: Dims = (*others, (groups,) if groups.size > 1 else ())
    return _group_sum(tracer, value, kept, [Axis("F", size, axis.stride)], Fraction(1, size))


def _group_sum(tracer: Tracer, value: Value, kept: Dims, gone: Sequence[Axis], scale: Fraction) -> Value:
    """scale * the sum over some axes of a layer's features. ``kept`` are the dims that are left."""
    # what is left is numbered anew, in the order in which it lies in the tensor
    features = [axis for dim in kept for axis in dim if axis.kind == "F"]
    summed = places(features)[:, None] + places(gone)[None]
    if len(summed) * prod(tracer.layer(value).shape) > _MOST_CODES:
        number = _pooled_sum(tracer, value, summed, scale)
    else:
        number = tracer.emit(GroupSum, [tracer.source(value)], (len(summed),), places=summed, scale=scale)
    # The sums are a new layer, whose features have the strides of its own order, no longer those of the layer
    # before.
    left = [sizes((tuple(axis for axis in dim if axis.kind == "F"),))[0] for dim in kept]
    dims = tuple(
        new or old if kinds(old) <= {"F"} else old for old, new in zip(kept, of_features(left), strict=True)
    )
    return replace(value, layer=number, dims=dims)


def _pooled_sum(tracer: Tracer, value: Value, summed: NDArray[np.int64], scale: Fraction) -> int:
    """The layer as a pool with one row of ``summed`` in each window, which needs no code for each pair."""
    count, size = summed.shape
    natural = replace(value, dims=of_features(tracer.layer(value).shape))
    row = tracer.gathered(natural, 0, summed.reshape(count, 1, size))
    return tracer.emit(
        Pool,
        [tracer.source(row)],
        (count, 1, 1),
        largest=False,
        size=(1, size),
        stride=(1, size),
        padding=(0, 0),
        dilation=(1, 1),
        divisor=int(1 / scale),
    )


def reduced_features(tracer: Tracer, value: Value, gone: Sequence[int], is_mean: bool) -> Value:
    """The mean, or sum, over some dimensions of features, each of which is of size 1 then."""
    axes = [axis for place in gone for axis in value.dims[place]]
    shape = tracer.layer(value).shape
    rows_and_columns = [axis for dim in of_features(shape)[1:] for axis in dim]
    kept = tuple(() if i in gone else dim for i, dim in enumerate(value.dims))
    # over all rows and columns it is a pool with one window; over anything else, a sum of chosen features
    if not axes or _in_order(axes) != _in_order(rows_and_columns):
        # A fraction, so that a mean over 3 features stays exact.
        scale = Fraction(1, prod(axis.size for axis in axes)) if is_mean else Fraction(1)
        return _group_sum(tracer, value, kept, axes, scale)
    size, rank = shape[1:], len(shape) - 1
    number = tracer.emit(
        Pool,
        [tracer.source(value)],
        (shape[0], *[1] * rank),
        largest=False,
        size=size,
        stride=size,
        padding=(0,) * rank,
        dilation=(1,) * rank,
        divisor=None if is_mean else 1,
    )
    # Without rows and columns the channels are neighbors, so their strides are others afterwards.
    dims = (
        tuple(axis if axis.kind != "F" else axis._replace(stride=axis.stride // prod(size)) for axis in dim)
        for dim in kept
    )
    return replace(value, layer=number, dims=tuple(dims))


def _in_order(axes: Sequence[Axis]) -> Dim:
    return merged(sorted(axes, key=lambda axis: -axis.stride))
