"""Rules of time: a loop over steps, steps put together again, and what is read out of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..deploy.lowering.axes import Axis, Dims, kinds, sizes
from .pools import over_features
from .registry import rule
from .signals import Value
from .trace import LOOPS, Tracing


@rule("mean", moves=True)
def mean(
    low: Tracing, result: Tensor, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return _reduced(low, low.value(x, "x"), dim, keepdim, "mean")


@rule("sum", moves=True)
def total(
    low: Tracing, result: Tensor, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return _reduced(low, low.value(x, "x"), dim, keepdim, "sum")


def _reduced(low: Tracing, value: Value, dim: Any, keepdim: bool, how: Any) -> Value:
    rank = len(value.dims)
    chosen: Sequence[int] = range(rank) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    places = {d % rank for d in chosen}
    if any("N" in kinds(value.dims[d]) for d in places):
        low.refuse(f"takes the {how} over the batch. Name the dimension: time is the first of [T, N, *]")
    features = sorted(d for d in places if kinds(value.dims[d]) == {"F"})
    if features:
        value = over_features(low, value, features, how)
    if any(kinds(value.dims[d]) == {"T"} for d in places):
        if value.reduce:
            low.refuse("reduces over time twice")
        value = replace(value, reduce=how)
    left = (() if i in places else d for i, d in enumerate(value.dims))
    return replace(value, dims=tuple(d for i, d in enumerate(left) if keepdim or i not in places))


@rule("__getitem__", view=True)
def item(low: Tracing, result: Tensor, x: Any, index: Any) -> Value:
    value = low.value(x, "x")
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(entry is Ellipsis for entry in entries):
        place = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
        missing = len(value.dims) - sum(entry is not None and entry is not Ellipsis for entry in entries)
        entries[place : place + 1] = [slice(None)] * missing
    place = 0
    for entry in entries:
        if entry is None:
            value = replace(value, dims=(*value.dims[:place], (), *value.dims[place:]))
            place += 1
            continue
        value, stays = _picked(low, value, place, entry)
        place += stays
    return value


@rule("select", view=True)
def select(low: Tracing, result: Tensor, x: Any, dim: int, index: int) -> Value:
    value = low.value(x, "x")
    return _picked(low, value, dim % len(value.dims), index)[0]


@rule("unbind", "__iter__", view=True)
def unbind(low: Tracing, result: Any, x: Any, dim: int = 0) -> Any:
    value = low.value(x, "x")
    steps = range(sizes(value.dims)[dim])
    parts = tuple(low.stand_in(_picked(low, value, dim, t)[0], x.dtype, x.family) for t in steps)
    return iter(parts) if low.name == "__iter__" else parts


def _picked(low: Tracing, value: Value, place: int, entry: Any) -> tuple[Value, bool]:
    """A value at an index of one dimension, and whether the dimension stays."""
    dim, size = value.dims[place], sizes(value.dims)[place]
    if isinstance(entry, slice) and entry.indices(size) == (0, size, 1):
        return value, True
    without = (*value.dims[:place], *value.dims[place + 1 :])
    if isinstance(entry, int) and not dim:
        return replace(value, dims=without), False
    if kinds(dim) != {"T"}:
        low.refuse(
            f"takes a part of a tensor {list(sizes(value.dims))} along dim {place}. NIR reads whole maps: "
            "make two layers that each give one part"
        )
    if isinstance(entry, int) and value.last is None:
        return replace(value, dims=without, step=entry % size), False
    last = _last_steps(entry, size)
    if not last or value.last:
        low.refuse(f"takes some of the steps. {LOOPS}; x[-1] and x[-k:] read out the last ones")
    (time,) = dim
    dims: Dims = (*value.dims[:place], (time._replace(size=last),), *value.dims[place + 1 :])
    return replace(value, dims=dims, last=last), True


def _last_steps(entry: Any, size: int) -> int:
    """k of the index [-k:], of ``size`` steps; 0 of any other."""
    if not isinstance(entry, slice) or entry.stop is not None or entry.step not in (None, 1):
        return 0
    return -entry.start if isinstance(entry.start, int) and -size < entry.start < 0 else 0


@rule("stack", moves=True)
def stack(low: Tracing, result: Tensor, tensors: Any, dim: int = 0) -> Value:
    """The steps of a loop, put together again; or one input, repeated."""
    values = [low.value(one, "x") for one in tensors]
    first, key = values[0], values[0].content.key
    alike = all(one.dims == first.dims and one.content.key == key for one in values)
    steps = [one.step for one in values]
    looped = steps == list(range(len(values))) and low.steps in (None, len(values))
    repeated = set(steps) == {None} and low.steps is None and not first.has_time()
    if not alike or not (looped or repeated):
        low.refuse(f"stacks {len(values)} tensors that are not one signal step by step. {LOOPS}")
    low.repeats = 0 if low.steps else len(values)
    place = dim % (len(first.dims) + 1)
    dims: Dims = (*first.dims[:place], (Axis("T", len(values)),), *first.dims[place:])
    return replace(first, dims=dims, step=None)
