"""Rules of sums, differences, products and concatenation."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from .advice import LOOPS
from .axes import Dims, flat, has_time, kinds, labels, of_features, sizes
from .capture import StandIn
from .description import Add, Affine, Concat, Exact, Layer, Multiply, as_map
from .products import aligned
from .steps import stacked
from .tracing import Tracer, Value, rule


@rule("add")
def add(tracer: Tracer, result: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> Value:
    return _added(tracer, a, b if alpha == 1 else _times(tracer, b, Fraction(alpha)))


@rule("sub", "subtract")
def subtract(tracer: Tracer, result: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> Value:
    return _added(tracer, a, _times(tracer, b, -Fraction(alpha)))


@rule("rsub")
def subtract_from(tracer: Tracer, result: Tensor, b: Any, a: Any, alpha: Any = 1) -> Value:
    return _added(tracer, a, _times(tracer, b, -Fraction(alpha)))


@rule("neg", "negative")
def negate(tracer: Tracer, result: Tensor, a: Any) -> Value:
    return _affine(tracer, tracer.value(a, "x"), scale=_one(Fraction(-1)))


@rule("mul", "multiply")
def multiply(tracer: Tracer, result: Tensor, a: Any, b: Any) -> Value:
    if isinstance(a, StandIn) and isinstance(b, StandIn):
        return _joined(tracer, Multiply, "multiplies", a.value, b.value)
    if not isinstance(a, StandIn):
        a, b = b, a
    value = tracer.value(a, "x")
    return _affine(tracer, value, scale=exact_constant(tracer, b, value))


@rule("div", "divide", "true_divide")
def divide(tracer: Tracer, result: Tensor, a: Any, b: Any, *, rounding_mode: Any = None) -> Value:
    if isinstance(b, StandIn):
        tracer.refuse("divides by a tensor of the network. Divide by a number")
    if rounding_mode is not None:
        tracer.refuse(f"divides with rounding_mode={rounding_mode!r}. Leave the numbers as they are")
    value = tracer.value(a, "x")
    # Scales are fractions, so that the reciprocal (of 3, for example) is exact.
    by = exact_constant(tracer, b, value)
    if (by == 0).any():
        tracer.refuse("divides by 0")
    return _affine(tracer, value, scale=1 / by)


def _times(tracer: Tracer, operand: Any, factor: Fraction) -> Any:
    """A number, a tensor of numbers or a value, times a number."""
    if isinstance(operand, StandIn):
        return _affine(tracer, tracer.value(operand, "x"), scale=_one(factor))
    return operand * float(factor)


def _affine(
    tracer: Tracer, value: Value, *, scale: Exact | None = None, offset: Exact | None = None
) -> Value:
    source = tracer.source(value)
    return replace(
        value, layer=tracer.emit(Affine, [source], tracer.layer(value).shape, scale=scale, offset=offset)
    )


def shifted(tracer: Tracer, value: Value, offset: Exact) -> Value:
    """A value plus numbers."""
    return _affine(tracer, value, offset=offset)


def _added(tracer: Tracer, a: Any, b: Any) -> Value:
    first, second = (one.value if isinstance(one, StandIn) else one for one in (a, b))
    if isinstance(first, Value) and isinstance(second, Value):
        return _joined(tracer, Add, "adds", first, second)
    value, number = (first, second) if isinstance(first, Value) else (second, first)
    if not isinstance(value, Value):
        tracer.refuse("adds tensors that are not computed from the input")
    offset = exact_constant(tracer, number, value)
    if not (offset != 0).any():  # sum() of Python begins with 0
        return value
    return _affine(tracer, value, offset=offset)


def _joined(tracer: Tracer, kind: type[Layer], does: str, a: Value, b: Value) -> Value:
    """The layer that adds, or multiplies, two signals place by place."""
    tracer.check_equal_periods(a, b)
    if a.step is not None and b.step is not None and (a.step, a.reduce) != (b.step, b.reduce):
        total = (_one_more_step(a, b) or _one_more_step(b, a)) if kind is Add else None
        if total is None:
            tracer.refuse(
                f"{does} step {a.step} of {tracer.layer(a).where} and step {b.step} of "
                f"{tracer.layer(b).where}, and no layer has a sum over some steps. Add up one "
                "signal, all of its steps from some step on, or take x.sum(0) of the sequence"
            )
        return total
    # one step of a sequence does not meet all of its steps
    mixed = (a.step is None) != (b.step is None) and has_time((*a.dims, *b.dims))
    alike = (a.reduce, a.last, a.skip) == (b.reduce, b.last, b.skip)
    pair = aligned(tracer, a, b) if alike and not mixed else None
    if pair is None:
        tracer.refuse(
            f"{does} tensors of different places or times, {list(sizes(a.dims))} and {list(sizes(b.dims))}. "
            "Both must have the same channels, rows, columns and steps"
        )
    a, b, dims = pair
    number = tracer.emit(kind, [tracer.source(a), tracer.source(b)], tracer.layer(a).shape)
    return replace(a, layer=number, dims=dims, step=b.step if a.step is None else a.step)


def _one_more_step(total: Value, one: Value) -> Value | None:
    """The steps of a signal so far, added up by a loop, and the next one; None if they are others."""
    is_total = total.reduce in (None, "sum") and one.reduce is None and total.last is None
    if (
        not is_total
        or (total.layer, total.dims) != (one.layer, one.dims)
        or one.step != (total.step or 0) + 1
    ):
        return None
    first = total.skip if total.reduce else total.step
    return replace(total, reduce="sum", step=one.step, skip=first or 0)


def _one(number: Fraction) -> Exact:
    array = np.empty(1, object)
    array[0] = number
    return array


def exact_constant(tracer: Tracer, number: Any, value: Value) -> Exact:
    """A number, or numbers that broadcast over the shape of a value's layer; read exactly."""
    if isinstance(number, bool | int | float):
        return _exact(tracer, np.array([number], object))
    if not isinstance(number, Tensor) or number.is_complex():
        tracer.refuse(f"computes with {type(number).__name__}, which is neither number nor tensor")
    # what expand has repeated is one number along that dimension
    number = number[tuple(slice(None) if stride else slice(0, 1) for stride in number.stride())]
    # float64 holds every number of the smaller floating dtypes, so nothing is rounded before it is a
    # fraction.
    array = _exact(tracer, number.detach().cpu().double().numpy().astype(object))
    if array.size == 1:
        return array.reshape(1)
    tracer.settle(value)
    shape = tracer.layer(value).shape
    # in the layer's own order, numbers of any shape broadcast over it as torch does it
    own = array.reshape(array.shape[max(0, array.ndim - len(shape)) :]) if _fits(array, shape) else None
    if own is not None and value.dims[len(value.dims) - len(shape) :] == of_features(shape):
        return own.reshape((1,) * (len(shape) - own.ndim) + own.shape)
    if (array == array.flat[0]).all():
        return array.reshape(-1)[:1]
    # elsewhere one number a channel can still be told, by the one dimension that they lie along
    place = [len(value.dims) - array.ndim + i for i, size in enumerate(array.shape) if size > 1]
    if len(place) == 1 and kinds(value.dims[place[0]]) == {"T"}:
        tracer.refuse(
            "computes with a number for each step, as TemporalEffectiveBatchNorm does, while a neuron weighs "
            "an input by how many steps ago it came. Use BatchNorm, or one number for all steps "
            "(norm.scale.data.fill_(norm.scale.mean()); norm.scale.requires_grad_(False)), and train on with "
            "that"
        )
    if len(place) != 1 or place[0] < 0 or value.dims[place[0]] != tracer.channel_dim(value):
        tracer.refuse(
            f"computes with {list(number.shape)} numbers and {list(sizes(value.dims))}. Only one number, or "
            "one for each channel, folds into a threshold"
        )
    return array.reshape(-1, *[1] * (len(shape) - 1))


def _fits(array: Exact, shape: tuple[int, ...]) -> bool:
    """Whether an array has no dimension in front of those of the features."""
    return all(size == 1 for size in array.shape[: max(0, array.ndim - len(shape))])


def _exact(tracer: Tracer, array: Exact) -> Exact:
    """Numbers as the fractions that they are."""
    exact = np.empty(array.shape, object)
    for place, number in np.ndenumerate(array):
        if number != number or number in (float("inf"), float("-inf")):
            tracer.refuse(f"computes with {float(number)}. Numbers must be finite")
        exact[place] = Fraction(number)
    return exact


@rule("cat", "concat", "concatenate")
def concatenate(tracer: Tracer, result: Tensor, tensors: Any, dim: int = 0) -> Value:
    values = [tracer.value(one, "every tensor") for one in tensors]
    tracer.check_equal_periods(*values)
    first, place = values[0], dim % len(values[0].dims)
    if len({value.step for value in values if value.step is not None}) > 1:
        # a dimension of size 1 for the time of each step, which is stacking them
        if all(len(value.dims) > place and value.dims[place] == () for value in values):
            without = ((*value.dims[:place], *value.dims[place + 1 :]) for value in values)
            steps = [replace(value, dims=dims) for value, dims in zip(values, without, strict=True)]
            return stacked(tracer, steps, place)
        tracer.refuse(f"puts different steps side by side. {LOOPS}")
    shapes = [tracer.layer(value).shape for value in values]
    lead = tracer.lead(first)
    if place < lead or any(value.dims[:lead] != first.dims[:lead] for value in values):
        named = ", ".join(labels(value.dims) for value in values)
        tracer.refuse(
            f"puts tensors side by side that differ in steps or samples, or along these ({named}). Features "
            "alone are put side by side"
        )
    # Whole maps, or whole rows of flattened maps, follow each other in the order in which a layer has its
    # channels.
    of_channels = [
        value.dims[place] in (tracer.channel_dim(value), flat(of_features(shape)))
        for value, shape in zip(values, shapes, strict=True)
    ]
    outside = {(*v.dims[:place], (), *v.dims[place + 1 :]) for v in values}
    if not all(of_channels) or len({as_map(shape)[1:] for shape in shapes}) > 1 or len(outside) > 1:
        return _joined_rows(tracer, result, values, lead, place - lead)
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    by_channel = first.dims[place] == tracer.channel_dim(first)
    number = tracer.emit(Concat, [tracer.source(value) for value in values], shape)
    joined = of_features(shape)[0] if by_channel else flat(of_features(shape))
    assert joined is not None
    dims: Dims = (*first.dims[:place], joined, *first.dims[place + 1 :])
    return replace(first, layer=number, dims=dims)


def _joined_rows(tracer: Tracer, result: Tensor, values: Sequence[Value], lead: int, axis: int) -> Value:
    """Features along any dimension: the tensors as rows, behind each other, and then in their places."""
    counts = [prod(sizes(value.dims[lead:])) for value in values]
    rows = [
        tracer.gathered(value, lead, np.arange(count)) for value, count in zip(values, counts, strict=True)
    ]
    number = tracer.emit(Concat, [tracer.source(row, lead) for row in rows], (sum(counts),))
    starts = np.cumsum([0, *counts[:-1]])
    places = [
        start + np.arange(count).reshape(sizes(value.dims[lead:]))
        for value, start, count in zip(values, starts, counts, strict=True)
    ]
    row = replace(rows[0], layer=number, dims=(*values[0].dims[:lead], *of_features((sum(counts),))))
    return tracer.gathered(row, lead, np.concatenate(places, axis))
