"""Rules of sums, differences, and products with numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ..deploy.lowering.axes import join, of_features, sizes
from ..deploy.lowering.capture import StandIn
from .layers import then
from .registry import rule
from .signals import Floats, Value
from .trace import LOOPS, Tracing


@rule("add")
def add(low: Tracing, result: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> Value:
    return _added(low, a, b if alpha == 1 else _times(low, b, alpha))


@rule("sub", "subtract")
def subtract(low: Tracing, result: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> Value:
    return _added(low, a, _times(low, b, -alpha))


@rule("rsub")
def subtract_from(low: Tracing, result: Tensor, b: Any, a: Any, alpha: Any = 1) -> Value:
    return _added(low, a, _times(low, b, -alpha))


@rule("neg", "negative")
def negate(low: Tracing, result: Tensor, a: Any) -> Value:
    value: Value = _times(low, a, -1)
    return value


@rule("mul", "multiply")
def multiply(low: Tracing, result: Tensor, a: Any, b: Any) -> Value:
    if isinstance(a, StandIn) and isinstance(b, StandIn):
        low.refuse(
            "multiplies two tensors of the network, and NIR multiplies with fixed numbers only. Add them"
        )
    if not isinstance(a, StandIn):
        a, b = b, a
    value = low.value(a, "x")
    return replace(value, content=then(low, value.content, _constant(low, b, value), None))


@rule("div", "divide", "true_divide")
def divide(low: Tracing, result: Tensor, a: Any, b: Any, *, rounding_mode: Any = None) -> Value:
    if isinstance(b, StandIn) or rounding_mode is not None:
        low.refuse("divides by a tensor of the network, or rounds. Divide by a number")
    value = low.value(a, "x")
    by = _constant(low, b, value)
    if not by.all():
        low.refuse("divides by 0")
    return replace(value, content=then(low, value.content, 1 / by, None))


def _times(low: Tracing, operand: Any, factor: float) -> Any:
    """A number, a tensor of numbers or a value, times a number."""
    if not isinstance(operand, StandIn):
        return operand * factor
    value = low.value(operand, "x")
    return replace(value, content=value.content.then(np.full(1, float(factor)), None))


def _added(low: Tracing, a: Any, b: Any) -> Value:
    first, second = (one.value if isinstance(one, StandIn) else one for one in (a, b))
    if isinstance(first, Value) and isinstance(second, Value):
        return _sum(low, first, second)
    value, number = (first, second) if isinstance(first, Value) else (second, first)
    if not isinstance(value, Value):
        low.refuse("adds tensors that are not computed from the input")
    by = _constant(low, number, value)
    if not by.any():  # sum() of Python begins with 0
        return value
    return replace(value, content=then(low, value.content, np.ones(1), by))


def _sum(low: Tracing, a: Value, b: Value) -> Value:
    dims = join(a.dims, b.dims)
    if a.step is not None and b.step is not None and a.step != b.step:
        low.refuse(f"adds step {a.step} to step {b.step}, and NIR has no sum over time. {LOOPS}")
    if dims is None or a.content.shape != b.content.shape:
        low.refuse(
            f"adds tensors of different places or times, {list(sizes(a.dims))} and {list(sizes(b.dims))}. "
            "Both must have the same channels, rows, columns and steps"
        )
    step = a.step if b.step is None else b.step
    return replace(a, content=a.content.plus(b.content), dims=dims, step=step)


def _constant(low: Tracing, number: Any, value: Value) -> Floats:
    """A number, or an array that broadcasts over a step's shape."""
    if isinstance(number, bool | int | float):
        array: Floats = np.full(1, float(number))
    elif isinstance(number, Tensor) and not number.is_complex():
        array = number.detach().cpu().double().numpy()
    else:
        low.refuse(f"computes with {type(number).__name__}, which is neither number nor tensor")
    if not np.isfinite(array).all():
        low.refuse(f"computes with {array[~np.isfinite(array)][0]}. Numbers must be finite")
    if array.size == 1:
        return array.reshape(1).copy()
    shape = value.content.shape
    trailing = value.dims[len(value.dims) - len(shape) :]
    own = array.shape[len(array.shape) - len(shape) :] if array.ndim > len(shape) else array.shape
    own = (1,) * (len(shape) - len(own)) + tuple(own)
    if trailing != of_features(shape) or int(np.prod(own)) != array.size:
        low.refuse(
            f"computes with {list(array.shape)} numbers and {list(sizes(value.dims))}. Use one number, or "
            "one for each channel"
        )
    return array.reshape(own).copy()
