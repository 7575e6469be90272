"""Rules of sums, differences, and products with numbers."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from torch import Tensor

from ..graph import Concat, Sum
from .axes import Dims, flat, join, of_features, sizes
from .capture import StandIn
from .fold import affine
from .refusals import NORMALIZED, PRODUCT
from .rules import Lowering, constant, rule
from .symbols import Map, Potential, Value

_LARGEST_TOP = 2**15


@rule("add")
def add(low: Lowering, result: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> Value:
    return _added(low, a, b if alpha == 1 else _times(low, b, Fraction(alpha)))


@rule("sub", "subtract")
def subtract(low: Lowering, result: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> Value:
    return _added(low, a, _times(low, b, -Fraction(alpha)))


@rule("rsub")
def subtract_from(low: Lowering, result: Tensor, b: Any, a: Any, alpha: Any = 1) -> Value:
    return _added(low, a, _times(low, b, -Fraction(alpha)))


@rule("neg", "negative")
def negate(low: Lowering, result: Tensor, a: Any) -> Value:
    return _scaled(low, low.value(a, "x"), Fraction(-1))


@rule("mul", "multiply")
def multiply(low: Lowering, result: Tensor, a: Any, b: Any) -> Value:
    if isinstance(a, StandIn) and isinstance(b, StandIn):
        low.refuse(f"multiplies two tensors of the network. {PRODUCT}")
    if not isinstance(a, StandIn):
        a, b = b, a
    value = low.value(a, "x")
    return _scaled(low, value, constant(low, b, value))


@rule("div", "divide", "true_divide")
def divide(low: Lowering, result: Tensor, a: Any, b: Any, *, rounding_mode: Any = None) -> Value:
    if isinstance(b, StandIn):
        low.refuse("divides by a tensor of the network. Divide by a number")
    if rounding_mode is not None:
        low.refuse(f"divides with rounding_mode={rounding_mode!r}. Leave the numbers as they are")
    value = low.value(a, "x")
    by = constant(low, b, value)
    if 0 in (by if isinstance(by, list) else [by]):
        low.refuse("divides by 0")
    return _scaled(low, value, [1 / one for one in by] if isinstance(by, list) else 1 / by)


def _times(low: Lowering, operand: Any, factor: Fraction) -> Any:
    """A number, a tensor of numbers or a value, times a number."""
    if isinstance(operand, StandIn):
        return _scaled(low, low.value(operand, "x"), factor)
    return operand * float(factor)


def _scaled(low: Lowering, value: Value, factor: Fraction | list[Fraction]) -> Value:
    content = value.content
    assert not isinstance(content, Potential)
    if factor == 1:
        return value
    if low.whole and isinstance(content, Map) and low.draft.is_input(content.index):
        top = low.draft.input.top
        low.refuse(
            f"scales its input ({low.name}), and levels in integers reach the model as level / {top} "
            "already. Leave the scaling out of the model, so that it takes numbers from 0 to 1; or, if it is "
            "to scale these once more, lower it with such an example in floating point"
        )
    if isinstance(content, Map) and isinstance(factor, Fraction) and factor > 0:
        return replace(value, content=replace(content, scale=content.scale * factor))
    current = low.current(value)
    factors = factor if isinstance(factor, list) else [factor] * current.shape[0]
    return replace(value, content=current.then(affine(factors, [0] * len(factors))))


def _added(low: Lowering, a: Any, b: Any) -> Value:
    first, second = (one.value if isinstance(one, StandIn) else one for one in (a, b))
    if isinstance(first, Value) and isinstance(second, Value):
        return _sum(low, first, second)
    value, number = (first, second) if isinstance(first, Value) else (second, first)
    if not isinstance(value, Value):
        low.refuse("adds tensors that are not computed from the input")
    return _shifted(low, value, constant(low, number, value))


def _shifted(low: Lowering, value: Value, by: Fraction | list[Fraction]) -> Value:
    if by == 0:  # sum() of Python begins with it
        return value
    if low.whole and isinstance(value.content, Map) and low.draft.is_input(value.content.index):
        low.refuse(NORMALIZED)
    if value.reduce == "sum":
        low.refuse("adds a number to a sum over time. Take the mean over time, or add it at every step")
    current = low.current(value)
    offsets = by if isinstance(by, list) else [by] * current.shape[0]
    return replace(value, content=current.then(affine([1] * len(offsets), offsets)))


def _sum(low: Lowering, a: Value, b: Value) -> Value:
    low.check_equal_periods(a, b)
    dims = join(a.dims, b.dims)
    assert not isinstance(a.content, Potential) and not isinstance(b.content, Potential)
    same = low.draft.shape(a.content) == low.draft.shape(b.content)
    if dims is None or not same or (a.reduce, a.last) != (b.reduce, b.last):
        low.refuse(
            f"adds tensors of different places or times, {list(sizes(a.dims))} and {list(sizes(b.dims))}. "
            "Both must have the same channels, rows, columns and steps"
        )
    if isinstance(a.content, Map) and isinstance(b.content, Map) and a.reduce is None:
        weights, scale = _common_scale([a.content, b.content])
        top = sum(w * low.draft.top(m.index) for w, m in zip(weights, (a.content, b.content), strict=True))
        if top <= _LARGEST_TOP:
            shape = low.draft.read(a.content)
            low.draft.read(b.content)
            made = Sum(low.here(), (a.content.index, b.content.index), weights, shape, top)
            return replace(a, content=Map(low.draft.add(made), scale), dims=dims)
    one, other = low.current(a), low.current(b)
    current = low.made(*one.branches, *other.branches)
    return replace(a, content=current, dims=dims)


def _common_scale(maps: Sequence[Map]) -> tuple[tuple[int, ...], Fraction]:
    """Whole weights and one scale: scale * weight is the scale of each map."""
    numerators = [m.scale.numerator for m in maps]
    denominators = [m.scale.denominator for m in maps]
    common = Fraction(gcd(*numerators), lcm(*denominators))
    return tuple(int(m.scale / common) for m in maps), common


@rule("cat", "concat", "concatenate")
def concatenate(low: Lowering, result: Tensor, tensors: Any, dim: int = 0) -> Value:
    values = [low.value(one, "every tensor") for one in tensors]
    low.check_equal_periods(*values)
    place = dim % len(values[0].dims)
    contents = [_joined_map(low, value, place) for value in values]
    rest = [low.draft.read(one)[1:] for one in contents]
    outside = {(*v.dims[:place], (), *v.dims[place + 1 :]) for v in values}
    weights, scale = _common_scale(contents)
    top = max(w * low.draft.top(one.index) for w, one in zip(weights, contents, strict=True))
    if len(set(rest)) > 1 or len(outside) > 1 or top > _LARGEST_TOP:
        shapes = ", ".join(
            f"{list(sizes(v.dims))} of a map {list(low.draft.shape(one))}"
            for v, one in zip(values, contents, strict=True)
        )
        low.refuse(
            "puts maps side by side that differ in rows and columns, in steps, or too much in scale "
            f"({shapes}). Give each a linear layer of its own, and add what they give: that is the layer "
            "over both side by side"
        )
    shape = (sum(low.draft.read(one)[0] for one in contents), *rest[0])
    index = low.draft.add(Concat(low.here(), tuple(c.index for c in contents), weights, shape, top))
    made = Map(index, scale)
    by_channel = values[0].dims[place] == low.draft.channel_dim(contents[0])
    along = low.draft.channel_dim(made) if by_channel else flat(of_features(shape))
    assert along is not None
    dims: Dims = (*values[0].dims[:place], along, *values[0].dims[place + 1 :])
    return replace(values[0], content=made, dims=dims)


def _joined_map(low: Lowering, value: Value, place: int) -> Map:
    """The map of a value that can be put beside others along a dimension."""
    content = value.content
    if not isinstance(content, Map) or value.reduce or value.last:
        low.refuse("puts currents side by side. Put a neuron in front of the concatenation")
    all_features = flat(of_features(low.draft.read(content)))
    if value.dims[place] not in (low.draft.channel_dim(content), all_features):
        low.refuse("puts maps side by side along another dimension than that of their channels")
    return content
