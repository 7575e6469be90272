"""Rules of functions that only give numbers another place, shape or dtype."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from .axes import kinds, merged, regroup, sizes
from .description import Add, Affine, Concat, Input, Neurons, Pool, TimePool
from .tracing import Tracer, Value, rule


def _placed(tracer: Tracer, value: Value, wanted: Sequence[int]) -> Value:
    dims = regroup(value.dims, wanted)
    if dims is None:
        tracer.refuse(
            f"makes {list(wanted)} of {list(sizes(value.dims))}, which mixes time or batch with each other "
            "or with features. Flatten and unflatten features alone, or time and batch alone"
        )
    return replace(value, dims=dims)


@rule("view", "reshape", "view_as", "reshape_as", view=True)
def view(tracer: Tracer, result: Tensor, x: Any, *shape: Any, **named: Any) -> Value:
    if any(isinstance(one, torch.dtype) for one in (*shape, *named.values())):
        tracer.refuse("view(dtype) reads bits as other numbers")
    return _placed(tracer, tracer.value(x, "x"), result.shape)


@rule("flatten", view=True)
def flatten(tracer: Tracer, result: Tensor, x: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
    value = tracer.value(x, "x")
    rank = len(value.dims)
    first, last = start_dim % rank, end_dim % rank
    # The axes stay what they are, so that time and batch in one dimension can be taken apart again.
    one = merged([axis for dim in value.dims[first : last + 1] for axis in dim])
    return replace(value, dims=(*value.dims[:first], one, *value.dims[last + 1 :]))


@rule("unflatten", view=True)
def unflatten(
    tracer: Tracer, result: Tensor, x: Any, dim: int, unflattened: Any = None, sizes: Any = None
) -> Value:
    value = tracer.value(x, "x")
    place = dim % len(value.dims)
    behind = len(value.dims) - place - 1
    # Only this dimension is regrouped, so that nothing moves between it and its neighbors.
    part = replace(value, dims=value.dims[place : place + 1])
    split = _placed(tracer, part, result.shape[place : result.dim() - behind])
    return replace(value, dims=(*value.dims[:place], *split.dims, *value.dims[place + 1 :]))


@rule("squeeze", view=True)
def squeeze(tracer: Tracer, result: Tensor, x: Any, dim: Any = None) -> Value:
    value = tracer.value(x, "x")
    chosen = range(len(value.dims)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % len(value.dims) for d in chosen}
    gone = {d for d in gone if prod(axis.size for axis in value.dims[d]) == 1}
    if any("N" in kinds(value.dims[d]) for d in gone):
        tracer.refuse("squeeze removes the batch. Name the dimension that it is to remove")
    single = any("T" in kinds(value.dims[d]) for d in gone)  # T = 1: that step is the mean of all
    remaining = tuple(d for i, d in enumerate(value.dims) if i not in gone)
    return replace(value, dims=remaining, reduce="mean" if single else value.reduce)


@rule("unsqueeze", view=True)
def unsqueeze(tracer: Tracer, result: Tensor, x: Any, dim: int) -> Value:
    value = tracer.value(x, "x")
    place = dim % (len(value.dims) + 1)
    return replace(value, dims=(*value.dims[:place], (), *value.dims[place:]))


@rule("permute", view=True)
def permute(tracer: Tracer, result: Tensor, x: Any, *dims: Any, **named: Any) -> Value:
    value = tracer.value(x, "x")
    order = named.get("dims", dims)
    # torch takes both permute(0, 1) and permute((0, 1)).
    order = order[0] if len(order) == 1 and not isinstance(order[0], int) else order
    return replace(value, dims=tuple(value.dims[d] for d in order))


@rule("transpose", "swapaxes", "swapdims", view=True)
def transpose(tracer: Tracer, result: Tensor, x: Any, dim0: int, dim1: int) -> Value:
    dims = list(tracer.value(x, "x").dims)
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return replace(tracer.value(x, "x"), dims=tuple(dims))


@rule("T", "mT", "t", view=True)
def transposed(tracer: Tracer, result: Tensor, x: Any) -> Value:
    return transpose(tracer, result, x, -2, -1)


@rule("movedim", "moveaxis", view=True)
def movedim(tracer: Tracer, result: Tensor, x: Any, source: int, destination: int) -> Value:
    dims = list(tracer.value(x, "x").dims)
    moved = dims.pop(source)
    # The dimension has been taken out already, so there is one place more than there are dimensions.
    dims.insert(destination % (len(dims) + 1), moved)
    return replace(tracer.value(x, "x"), dims=tuple(dims))


@rule(
    *["contiguous", "detach", "alias", "positive", "requires_grad", "cpu", "cuda", "pin_memory", "data"],
    view=True,
)
def same(tracer: Tracer, result: Any, x: Any, *anything: Any, **named: Any) -> Value:
    return tracer.value(x, "x")


@rule("clone")
def copied(tracer: Tracer, result: Any, x: Any, *anything: Any, **named: Any) -> Value:
    return tracer.value(x, "x")


@rule(
    *[
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
    ],
    view=True,
)
def to(tracer: Tracer, result: Any, x: Any, *others: Any, **named: Any) -> Any:
    """Another dtype: that of spikes and levels changes nothing, as long as it is a real one."""
    value = tracer.value(x, "x")
    dtype = getattr(result, "dtype", None)
    for other in (*others, *named.values()):
        dtype = (
            other if isinstance(other, torch.dtype) else other.dtype if isinstance(other, Tensor) else dtype
        )
    # An integer dtype cuts fractions off, and bool makes a 1 of a 2. Only numbers that are whole anyway are
    # unchanged by the former.
    real = dtype is None or dtype.is_floating_point
    if not real and (dtype == torch.bool or not _is_whole(tracer, value.layer)):
        tracer.refuse(f"makes {dtype} of numbers that are not whole. Leave them in floating point")
    return tracer.stand_in(value, dtype or x.dtype, x.family)


def _is_whole(tracer: Tracer, number: int | None) -> bool:
    """Whether a layer gives whole numbers: spikes, their sums, and what is chosen of them."""
    assert number is not None
    layer = tracer.layers[number]
    match layer:
        case Input():
            return layer.is_binary
        case Neurons():
            return layer.spike_factor is None
        case Affine():
            # A whole factor and a whole offset keep whole numbers whole.
            arrays = [array for array in (layer.scale, layer.offset) if array is not None]
            is_whole = all(number.denominator == 1 for array in arrays for number in array.ravel().tolist())
        case Pool():
            is_whole = layer.largest or layer.divisor == 1
        case _:
            is_whole = isinstance(layer, TimePool | Add | Concat)
    return is_whole and all(_is_whole(tracer, source.layer) for source in layer.sources)


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
    tracer: Tracer, result: Tensor, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    if training and p > 0:
        tracer.refuse("drops spikes in evaluation too (training=True). Pass training=self.training")
    return tracer.value(x, "x")


@rule("zeros_like", "new_zeros", "ones_like", "new_ones", "empty_like", "new_empty")
def filled(tracer: Tracer, result: Tensor, x: Any, *anything: Any, **named: Any) -> Tensor:
    """Numbers that do not depend on the input, and take no memory."""
    # what an empty tensor holds nobody knows, and NaN is refused where it is computed with
    is_empty = "empty" in tracer.name and result.is_floating_point()
    number = torch.nan if is_empty else "ones" in tracer.name
    filling = torch.full((), number, dtype=result.dtype, device=tracer.capture.device)
    return filling.expand(result.shape)
