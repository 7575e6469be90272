"""Rules of pooling: of maps, of what a synapse has added up, and of steps."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ..graph import CurrentPool, Pair, Pool, Shape, Synapse, TimePool, Window
from .axes import Axis, Dim, Dims, flat, kinds, merged, of_features, sizes
from .capture import StandIn
from .fold import Affine, decimals
from .rules import Lowering, rule
from .symbols import Branch, Current, Map, Potential, Value
from .synapses import pair, spikes, sum_of_groups


@rule("max_pool1d", "max_pool2d", "max_pool1d_with_indices", "max_pool2d_with_indices")
def max_pool(
    low: Lowering,
    result: Any,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    _no_indices(low, result)
    value, rank = low.value(x, "the input of a pool"), _rank(low)
    stride = stride or kernel_size
    window = Window(
        pair(kernel_size, rank, 1), pair(stride, rank, 1), pair(padding, rank, 0), pair(dilation, rank, 1)
    )
    return _pooled(low, value, "max", window, result, rank)


@rule("avg_pool1d", "avg_pool2d")
def average_pool(
    low: Lowering,
    result: Tensor,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    value, rank = low.value(x, "the input of a pool"), _rank(low)
    stride = stride or kernel_size
    window = Window(pair(kernel_size, rank, 1), pair(stride, rank, 1), pair(padding, rank, 0))
    if rank == 2 and _is_voting(low, value, window):
        return _vote(low, value, window.size[1])
    if any(window.padding) and not count_include_pad:
        low.refuse(
            "averages fewer numbers at the border (count_include_pad=False). Use count_include_pad=True"
        )
    made = _pooled(low, value, "sum", window, result, rank, divisor_override)
    if ceil_mode and _has_partial_windows(value, window, result, rank):
        low.refuse("averages fewer numbers in its last windows (ceil_mode=True). Use ceil_mode=False")
    return made


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def adaptive_average_pool(low: Lowering, result: Tensor, x: Any, output_size: Any) -> Value:
    value, rank = low.value(x, "the input of a pool"), _rank(low)
    return _pooled(low, value, "sum", _even(low, value, result, rank), result, rank)


@rule(
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d_with_indices",
)
def adaptive_max_pool(
    low: Lowering, result: Any, x: Any, output_size: Any, return_indices: bool = False
) -> Value:
    _no_indices(low, result)
    value, rank = low.value(x, "the input of a pool"), _rank(low)
    return _pooled(low, value, "max", _even(low, value, result, rank), result, rank)


def _rank(low: Lowering) -> int:
    """How many dimensions the pool that is running sees: channels and what it slides over."""
    return 2 if low.name.partition("pool")[2].startswith("1d") else 3


def _no_indices(low: Lowering, result: Any) -> None:
    if not isinstance(result, Tensor):
        low.refuse(
            "returns the places of the largest numbers (return_indices=True). Use return_indices=False"
        )


def _even(low: Lowering, value: Value, result: Tensor, rank: int) -> Window:
    """The window of an adaptive pool, where it is the same everywhere."""
    before, after = sizes(value.dims)[1 - rank :], tuple(result.shape[1 - rank :])
    if any(a % b for a, b in zip(before, after, strict=True)):
        low.refuse(
            f"pools {list(before)} to {list(after)} with windows of different sizes. Use an output size "
            "that divides the input"
        )
    size = pair([a // b for a, b in zip(before, after, strict=True)], rank, 1)
    return Window(size, size)


def _has_partial_windows(value: Value, window: Window, result: Tensor, rank: int) -> bool:
    lengths, outs = sizes(value.dims)[1 - rank :], result.shape[1 - rank :]
    options = zip(window.size[3 - rank :], window.stride[3 - rank :], window.padding[3 - rank :], strict=True)
    return any(
        (out - 1) * stride + size > length + 2 * padding
        for length, out, (size, stride, padding) in zip(lengths, outs, options, strict=True)
    )


def _pooled(
    low: Lowering,
    value: Value,
    kind: Literal["max", "sum"],
    window: Window,
    result: Tensor,
    rank: int,
    divisor: int | None = None,
) -> Value:
    if value.reduce and kind == "max":
        low.refuse("takes the largest of numbers that are already reduced over time. Pool at every step")
    leading, shape = low.features(value, rank, "a pool")
    if kind == "max" and _some_see_nothing(window, shape[1:], result.shape[1 - rank :]):
        low.refuse(
            f"has windows that see padding alone (padding={max(window.padding)}, "
            f"dilation={max(window.dilation)}), and the largest of nothing is no number. Use less padding, "
            "or dilation=1"
        )
    lengths = tuple(result.shape[1 - rank :])
    out: Shape = (shape[0], *((1, *lengths) if rank == 2 else lengths))  # type: ignore[assignment]
    scale = Fraction(1, divisor or prod(window.size)) if kind == "sum" else Fraction(1)
    dims = (*leading, *of_features((shape[0], *lengths)))
    return replace(value, content=pool_content(low, value, kind, window, out, scale), dims=dims)


def _some_see_nothing(window: Window, lengths: Pair, out: Sequence[int]) -> bool:
    """Whether a window lies on no row, or on no column, of the map."""
    outs = (1, *out) if len(out) == 1 else out
    for axis, (length, count) in enumerate(zip(lengths, outs, strict=True)):
        starts = np.arange(count)[:, None] * window.stride[axis] - window.padding[axis]
        places = starts + np.arange(window.size[axis]) * window.dilation[axis]
        if not ((places >= 0) & (places < length)).any(axis=1).all():
            return True
    return False


def pool_content(
    low: Lowering, value: Value, kind: Literal["max", "sum"], window: Window, out: Shape, scale: Fraction
) -> Map | Current:
    """scale * the largest, or the sum, of every window."""
    content = value.content
    assert not isinstance(content, Potential)
    if isinstance(content, Map) and (value.reduce is None or kind == "sum"):
        top = low.draft.top(content.index) * (prod(window.size) if kind == "sum" else 1)
        if top > 2**15:
            low.refuse(f"adds up {prod(window.size)} numbers up to {low.draft.top(content.index)}: too many")
        low.draft.read(content)
        made = Pool(low.here(), content.index, kind, window, out, top)
        return Map(low.draft.add(made), content.scale * scale)
    assert isinstance(content, Current)
    return _pooled_current(low, content, kind, window, out, scale)


def pool_time(low: Lowering, module: Any, x: Any) -> StandIn:
    """A :class:`mfp_neurons.TimePool`."""
    value, window = low.value(x, "the input of a pooling over time"), module.window
    content = value.content
    if value.reduce or value.last:
        low.refuse("pools over time what was already reduced over time. Put it in front of that")
    if isinstance(content, Potential):
        low.refuse(f"reads the membrane potential of {content.behind}. Pool its spikes")
    if not isinstance(content, Map):
        low.refuse(
            f"takes the largest of {window} steps of real numbers: {content.behind} stands before it. Pool "
            "spikes, behind the neuron"
        )
    if not value.dims or kinds(value.dims[0]) != {"T"} or len(value.dims[0]) > 1:
        low.refuse(f"reads {list(sizes(value.dims))}, which does not begin with time. Give it [T, N, *]")
    steps = sizes(value.dims)[0]
    if steps % window:
        low.refuse(
            f"makes one step out of every {window} steps, and its input has {steps}. Use a T, and with it an "
            "example, that the windows divide, one behind the other"
        )
    if window == 1:
        return low.stand_in(value, x.dtype)
    shape = low.draft.read(content)
    made = TimePool(low.here(), content.index, window, shape, low.draft.top(content.index))
    joined = Map(low.draft.add(made), content.scale)
    dims = ((Axis("T", steps // window),), *value.dims[1:])
    return low.stand_in(replace(value, content=joined, dims=dims), x.dtype)


def _pooled_current(
    low: Lowering, current: Current, kind: Literal["max", "sum"], window: Window, out: Shape, scale: Fraction
) -> Current:
    if any(branch.synapse.pool for branch in current.branches):
        low.refuse(f"pools what is pooled already, with no neuron since {current.behind}. Put one between")
    if kind == "max" and len(current.branches) > 1:
        low.refuse(
            "takes the largest of a sum of several synapses, before a neuron. Put the neuron in front of "
            "the pool"
        )
    if kind == "sum" and any(window.padding) and current.has_offset():
        low.refuse("averages a current with padding, which a bias or a norm does not reach. Use padding=0")
    pool = CurrentPool(kind, window, out)
    branches = []
    for branch in current.branches:
        rising = _rising(low, branch) if kind == "max" else branch
        synapse = replace(rising.synapse, pool=pool)
        # the sum of a window has its offset once for every number, as scale * sum * numbers is the mean's
        count = scale * prod(window.size) if kind == "sum" else Fraction(1)
        affine = rising.affine
        branches.append(Branch(synapse, Affine(affine.times(scale).scale, affine.times(count).offset)))
    return low.made(*branches)


def _rising(low: Lowering, branch: Branch) -> Branch:
    """A branch whose value grows with its number: where its scale is negative, the codes change sign."""
    falling = np.array([scale < 0 for scale in branch.affine.scale])
    if not falling.any():
        return branch
    signs = np.where(falling, -1, 1)
    codes = branch.synapse.codes.astype(np.int64) * signs[:, None, None, None]
    bits = branch.synapse.bits
    if codes.max() > 1 and codes.max() > 2 ** (int(bits) - 1) - 1:
        bits = int(bits) + 1  # the lowest code of its bits has no positive twin
    if bits > 8:
        low.refuse(
            "takes the largest of a current that falls as the codes' sum grows, whose codes are -128. "
            "Quantize the weights to 7 bits or less"
        )
    scale = branch.affine.scale * decimals(signs.tolist())
    synapse: Synapse = replace(branch.synapse, codes=codes.astype(np.int8), bits=bits)
    return Branch(synapse, Affine(scale, branch.affine.offset))


def _is_voting(low: Lowering, value: Value, window: Window) -> bool:
    """Whether an average over a row of numbers is over groups of features: SpikingJelly's VotingLayer."""
    *_, channels, row = value.dims
    if not isinstance(value.content, Map) or channels or kinds(row) != {"F"}:
        return False
    shape = low.draft.shape(value.content)
    whole = row == flat(of_features(shape)) and shape[0] > 1  # one channel is a sequence, pooled as such
    size, stride, padding = window.size[1], window.stride[1], window.padding[1]
    return whole and size == stride and not padding and sizes((row,))[0] % size == 0


def _vote(low: Lowering, value: Value, size: int) -> Value:
    *others, row = value.dims
    (axis,) = row
    groups = Axis("F", axis.size // size, axis.stride * size)
    kept: Dims = (*others, (groups,) if groups.size > 1 else ())
    return sum_of_groups(low, value, kept, [Axis("F", size, axis.stride)], Fraction(1, size))


def _in_order(axes: Sequence[Axis]) -> Dim:
    return merged(sorted(axes, key=lambda axis: -axis.stride))


def mean_over_features(
    low: Lowering, value: Value, places: Sequence[int], keepdim: bool, mean: bool
) -> Value:
    """The mean, or sum, over some dimensions of features."""
    gone = [axis for place in places for axis in value.dims[place]]
    count = prod(axis.size for axis in gone)
    scale = Fraction(1, count) if mean else Fraction(1)
    assert not isinstance(value.content, Potential)
    shape = low.draft.shape(value.content)
    rows_and_columns = [axis for dim in of_features(shape)[1:] for axis in dim]
    kept = tuple(() if i in places else dim for i, dim in enumerate(value.dims))
    if gone and _in_order(gone) == _in_order(rows_and_columns):
        size: Pair = shape[1:]
        content = pool_content(low, value, "sum", Window(size, size), (shape[0], 1, 1), scale)
        channels = of_features((shape[0], 1, 1))[0]
        old = of_features(shape)[0]
        if any(dim != old and kinds(dim) == {"F"} for dim in kept):
            low.refuse("takes a mean over rows and columns of channels that were cut up. Take it before that")
        made = replace(
            value, content=content, dims=tuple(channels if dim == old and dim else dim for dim in kept)
        )
    else:
        spikes(low, value)
        made = sum_of_groups(low, value, kept, gone, scale)
    return (
        made if keepdim else replace(made, dims=tuple(d for i, d in enumerate(made.dims) if i not in places))
    )
