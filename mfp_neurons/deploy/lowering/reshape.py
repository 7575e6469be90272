"""Rules of the functions that only give numbers another place or shape."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from .axes import Axis, Dim, Dims, kinds, merged, regroup, sizes
from .refusals import TIME_LOOP
from .rules import Lowering, rule
from .symbols import Map, Value


def _placed(low: Lowering, value: Value, wanted: Sequence[int]) -> Value:
    dims = regroup(value.dims, wanted)
    if dims is None:
        low.refuse(
            f"makes {list(wanted)} of {list(sizes(value.dims))}, which mixes time or batch with each other "
            "or with features. Flatten and unflatten features alone, or time and batch alone"
        )
    return replace(value, dims=dims)


@rule("view", "reshape", "view_as", "reshape_as", view=True)
def view(low: Lowering, result: Tensor, x: Any, *shape: Any, **named: Any) -> Value:
    if any(isinstance(one, torch.dtype) for one in (*shape, *named.values())):
        low.refuse("view(dtype) reads bits as other numbers")
    return _placed(low, low.value(x, "x"), result.shape)


@rule("flatten", view=True)
def flatten(low: Lowering, result: Tensor, x: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
    value = low.value(x, "x")
    rank = len(value.dims)
    first, last = start_dim % rank, end_dim % rank
    one = merged([axis for dim in value.dims[first : last + 1] for axis in dim])
    return replace(value, dims=(*value.dims[:first], one, *value.dims[last + 1 :]))


@rule("unflatten", view=True)
def unflatten(
    low: Lowering, result: Tensor, x: Any, dim: int, unflattened: Any = None, sizes: Any = None
) -> Value:
    value = low.value(x, "x")
    place = dim % len(value.dims)
    behind = len(value.dims) - place - 1
    part = replace(value, dims=value.dims[place : place + 1])
    split = _placed(low, part, result.shape[place : result.dim() - behind])
    return replace(value, dims=(*value.dims[:place], *split.dims, *value.dims[place + 1 :]))


@rule("squeeze", view=True)
def squeeze(low: Lowering, result: Tensor, x: Any, dim: Any = None) -> Value:
    value = low.value(x, "x")
    chosen = range(len(value.dims)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % len(value.dims) for d in chosen}
    gone = {d for d in gone if prod(axis.size for axis in value.dims[d]) == 1}
    if any("N" in kinds(value.dims[d]) for d in gone):
        low.refuse("squeeze removes the batch. Name the dimension that it is to remove")
    single = any("T" in kinds(value.dims[d]) for d in gone)  # T = 1: that step is the mean of all
    kept = tuple(d for i, d in enumerate(value.dims) if i not in gone)
    return replace(value, dims=kept, reduce="mean" if single else value.reduce)


@rule("unsqueeze", view=True)
def unsqueeze(low: Lowering, result: Tensor, x: Any, dim: int) -> Value:
    value = low.value(x, "x")
    place = dim % (len(value.dims) + 1)
    return replace(value, dims=(*value.dims[:place], (), *value.dims[place:]))


@rule("permute", view=True)
def permute(low: Lowering, result: Tensor, x: Any, *dims: Any, **named: Any) -> Value:
    value = low.value(x, "x")
    order = named.get("dims", dims)
    order = order[0] if len(order) == 1 and not isinstance(order[0], int) else order
    return replace(value, dims=tuple(value.dims[d] for d in order))


@rule("transpose", "swapaxes", "swapdims", view=True)
def transpose(low: Lowering, result: Tensor, x: Any, dim0: int, dim1: int) -> Value:
    dims = list(low.value(x, "x").dims)
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return replace(low.value(x, "x"), dims=tuple(dims))


@rule("T", "mT", "t", view=True)
def transposed(low: Lowering, result: Tensor, x: Any) -> Value:
    return transpose(low, result, x, -2, -1)


@rule("movedim", "moveaxis", view=True)
def movedim(low: Lowering, result: Tensor, x: Any, source: int, destination: int) -> Value:
    dims = list(low.value(x, "x").dims)
    moved = dims.pop(source)
    dims.insert(destination % (len(dims) + 1), moved)
    return replace(low.value(x, "x"), dims=tuple(dims))


@rule("expand", "expand_as", "broadcast_to", "repeat", "tile", view=True)
def expand(low: Lowering, result: Tensor, x: Any, *shape: Any, **named: Any) -> Value:
    """Repeating: the one dimension that grows becomes time."""
    value = low.value(x, "x")
    dims: Dims = ((),) * (result.dim() - len(value.dims)) + value.dims
    grown = [i for i, size in enumerate(result.shape) if size != prod(axis.size for axis in dims[i])]
    for place in grown:
        dims = (
            *dims[:place],
            _time(low, replace(value, dims=dims), dims[place], result.shape[place]),
            *dims[place + 1 :],
        )
    return replace(value, dims=dims)


@rule("stack")
def stack(low: Lowering, result: Tensor, tensors: Any, dim: int = 0) -> Value:
    """Repeating, if all are the same; a loop over time otherwise."""
    values = [low.value(one, "x") for one in tensors]
    first = values[0]
    if any(one.content is not first.content or one.dims != first.dims for one in values):
        low.refuse(f"puts the steps of a loop together. {TIME_LOOP}")
    place = dim % (len(first.dims) + 1)
    time = _time(low, first, (), len(values))
    return replace(first, dims=(*first.dims[:place], time, *first.dims[place:]))


def _time(low: Lowering, value: Value, dim: Dim, size: int) -> Dim:
    """A dimension of nothing, repeated: time, of a model that repeats its input."""
    if low.steps is not None or value.has_time() or value.reduce or kinds(dim):
        low.refuse(
            f"repeats a tensor {list(sizes(value.dims))} along one of its dimensions, {size} times. Only an "
            "input without time is repeated, over time"
        )
    low.repeats = size
    return (Axis("T", size),)


@rule(
    "contiguous",
    "detach",
    "alias",
    "positive",
    "requires_grad",
    "cpu",
    "cuda",
    "pin_memory",
    "data",
    view=True,
)
def same(low: Lowering, result: Any, x: Any, *anything: Any, **named: Any) -> Value:
    return low.value(x, "x")


@rule("clone")
def copied(low: Lowering, result: Any, x: Any, *anything: Any, **named: Any) -> Value:
    return low.value(x, "x")


@rule(
    "to",
    "float",
    "double",
    "half",
    "bfloat16",
    "type",
    "type_as",
    "int",
    "long",
    "short",
    "char",
    "byte",
    "bool",
    view=True,
)
def to(low: Lowering, result: Any, x: Any, *others: Any, **named: Any) -> Any:
    """Another dtype: that of spikes and levels changes nothing, as long as it is a real one."""
    value = low.value(x, "x")
    dtype = getattr(result, "dtype", None)
    for other in (*others, *named.values()):
        dtype = (
            other if isinstance(other, torch.dtype) else other.dtype if isinstance(other, Tensor) else dtype
        )
    if dtype is not None and not dtype.is_floating_point:
        whole = isinstance(value.content, Map) and value.content.scale.denominator == 1
        if not whole or dtype == torch.bool:
            low.refuse(f"makes {dtype} of numbers that are not whole. Leave them in floating point")
    return low.stand_in(value, dtype or x.dtype, x.family)


@rule(
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_dropout",
    "feature_alpha_dropout",
    view=True,
)
def dropout(
    low: Lowering, result: Tensor, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    if training and p > 0:
        low.refuse("drops spikes in evaluation too (training=True). Pass training=self.training")
    return low.value(x, "x")


@rule("zeros_like", "new_zeros", "ones_like", "new_ones")
def filled(low: Lowering, result: Tensor, x: Any, *anything: Any, **named: Any) -> Tensor:
    """Numbers that do not depend on the input, and take no memory."""
    number = torch.full((), "ones" in low.name, dtype=result.dtype, device=low.capture.device)
    return number.expand(result.shape)
