"""Rules of what is read out of all steps: means and sums, and the last steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from .axes import kinds, sizes
from .pools import mean_over_features
from .refusals import PART, TIME_LOOP
from .rules import Lowering, rule
from .symbols import Reduction, Value


@rule("mean")
def mean(
    low: Lowering, result: Tensor, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return _reduced(low, low.value(x, "x"), dim, keepdim, "mean")


@rule("sum")
def total(
    low: Lowering, result: Tensor, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return _reduced(low, low.value(x, "x"), dim, keepdim, "sum")


def _reduced(low: Lowering, value: Value, dim: Any, keepdim: bool, how: Reduction) -> Value:
    rank = len(value.dims)
    chosen: Sequence[int] = range(rank) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    places = sorted({d % rank for d in chosen}, reverse=True)
    if any("N" in kinds(value.dims[d]) for d in places):
        low.refuse(f"takes the {how} over the batch. Name the dimension: time is the first of [T, N, *]")
    features = [d for d in places if kinds(value.dims[d]) == {"F"}]
    if features:
        value = mean_over_features(low, value, features, True, how == "mean")
    if any(kinds(value.dims[d]) == {"T"} for d in places):
        value = replace(value, reduce=how)
    left = (() if i in places else dim for i, dim in enumerate(value.dims))
    return replace(value, dims=tuple(dim for i, dim in enumerate(left) if keepdim or i not in places))


@rule("__getitem__", view=True)
def item(low: Lowering, result: Tensor, x: Any, index: Any) -> Value:
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
def select(low: Lowering, result: Tensor, x: Any, dim: int, index: int) -> Value:
    value = low.value(x, "x")
    return _picked(low, value, dim % len(value.dims), index)[0]


def _picked(low: Lowering, value: Value, place: int, entry: Any) -> tuple[Value, bool]:
    """A value at an index of one dimension, and whether the dimension stays."""
    dim, size = value.dims[place], sizes(value.dims)[place]
    if isinstance(entry, slice) and entry.indices(size) == (0, size, 1):
        return value, True
    without = (*value.dims[:place], *value.dims[place + 1 :])
    if isinstance(entry, int) and not dim:
        return replace(value, dims=without), False
    if kinds(dim) != {"T"}:
        low.refuse(f"takes a part of a tensor {list(sizes(value.dims))} along dim {place}. {PART}")
    if isinstance(entry, int) and entry == -1 and value.last is None:
        return replace(value, dims=without, reduce="mean", last=1), False
    last = _last_steps(entry, size)
    if not last or value.last:
        low.refuse(f"takes single steps. {TIME_LOOP}")
    (time,) = dim
    kept = (time._replace(size=last),)
    return replace(value, dims=(*value.dims[:place], kept, *value.dims[place + 1 :]), last=last), True


def _last_steps(entry: Any, size: int) -> int:
    """k of the index [-k:], of ``size`` steps; 0 of any other."""
    if not isinstance(entry, slice) or entry.stop is not None or entry.step not in (None, 1):
        return 0
    return -entry.start if isinstance(entry.start, int) and -size < entry.start < 0 else 0
