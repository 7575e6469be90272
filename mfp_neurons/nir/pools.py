"""Rules of pools, which NIR has over rows and columns: averages and sums, and of spikes the largest."""

from dataclasses import replace
from typing import Any

import nir
import numpy as np
from torch import Tensor

from ..deploy.lowering.axes import flat, of_features, sizes
from .layers import numbers
from .registry import rule
from .signals import Shape, Signal, Synapse, Term, Value, of
from .trace import Tracing

Pair = tuple[int, ...]


@rule("avg_pool2d")
def average_pool(
    low: Tracing,
    result: Tensor,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    size, step, pad = numbers(kernel_size, 2), numbers(stride or kernel_size, 2), numbers(padding, 2)
    if any(pad) and not count_include_pad:
        low.refuse(
            "averages fewer numbers at the border (count_include_pad=False). Use count_include_pad=True"
        )
    value, source, shape = _maps(low, x, result)
    _check_whole_windows(low, source.shape, shape, size, step, pad)
    average = divisor_override is None
    made = pool_node(low, source, size, step, pad, shape, average=average)
    if divisor_override:
        made = made.then(np.full(1, 1 / divisor_override), None)
    return _placed(value, made)


@rule("adaptive_avg_pool2d")
def adaptive_average_pool(low: Tracing, result: Tensor, x: Any, output_size: Any) -> Value:
    value, source, shape = _maps(low, x, result)
    size = _even(low, source.shape, shape)
    return _placed(value, pool_node(low, source, size, size, (0, 0), shape, average=True))


@rule("max_pool2d", "max_pool2d_with_indices")
def max_pool(
    low: Tracing,
    result: Any,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if not isinstance(result, Tensor) or set(numbers(dilation, 2)) != {1}:
        low.refuse(
            "returns the places of the largest numbers, or spreads its window (dilation); NIR cannot say it"
        )
    size, step, pad = numbers(kernel_size, 2), numbers(stride or kernel_size, 2), numbers(padding, 2)
    value, source, shape = _maps(low, x, result)
    _check_whole_windows(low, source.shape, shape, size, step, pad)
    return _placed(value, _any_spike(low, source, size, step, pad, shape))


@rule("adaptive_max_pool2d", "adaptive_max_pool2d_with_indices")
def adaptive_max_pool(
    low: Tracing, result: Any, x: Any, output_size: Any, return_indices: bool = False
) -> Value:
    if not isinstance(result, Tensor):
        low.refuse("returns the places of the largest numbers, which NIR cannot say")
    value, source, shape = _maps(low, x, result)
    size = _even(low, source.shape, shape)
    return _placed(value, _any_spike(low, source, size, size, (0, 0), shape))


@rule("avg_pool1d")
def vote(
    low: Tracing,
    result: Tensor,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    """SpikingJelly's VotingLayer, an average over groups of features: a linear layer."""
    value = low.value(x, "the input of a pool")
    (size,), (step,) = numbers(kernel_size, 1), numbers(stride or kernel_size, 1)
    *others, channels, row = value.dims
    votes = not channels and row == flat(of_features(value.content.shape)) and size == step
    if not votes or padding or sizes((row,))[0] % size:
        low.refuse(
            "pools a sequence, and NIR has pools over rows and columns only. Use Conv1d, or pool images"
        )
    source = low.features(replace(value, dims=(*others, row)), len(others), "a vote")
    groups = source.shape[0] // size
    weight = np.kron(np.eye(groups), np.full((1, size), 1 / size)).astype(low.draft.dtype)
    node = nir.Linear(weight, metadata={"path": low.here(), "operation": "vote"})
    made = of(low.draft.add(node, low.here(), (groups,), source))
    return replace(value, content=made, dims=(*others, (), *of_features((groups,))))


@rule("max_pool1d", "max_pool1d_with_indices", "adaptive_avg_pool1d", "adaptive_max_pool1d")
def sequence_pool(low: Tracing, result: Any, x: Any, *anything: Any, **named: Any) -> Value:
    low.refuse("pools a sequence, and NIR has pools over rows and columns only. Use a stride, or pool images")


def pool_node(
    low: Tracing, source: Signal, size: Pair, stride: Pair, padding: Pair, shape: Shape, *, average: bool
) -> Signal:
    """An AvgPool2d or a SumPool2d behind ``source``."""
    kind = nir.AvgPool2d if average else nir.SumPool2d
    node = kind(np.array(size), np.array(stride), np.array(padding), metadata={"path": low.here()})
    node.input_type = {"input": np.array(source.shape)}
    node.output_type = {"output": np.array(shape)}
    return of(low.draft.add(node, low.here(), shape, source))


def over_features(low: Tracing, value: Value, places: list[int], how: str) -> Value:
    """The mean or sum over rows and columns."""
    shape, rank = value.content.shape, len(value.dims)
    if value.reduce or len(shape) != 3 or places != [rank - 2, rank - 1]:
        low.refuse(
            f"takes the {how} over some features. Only over all rows and columns is that a pool of NIR's"
        )
    source = low.features(value, rank - 3, f"a {how} over rows and columns")
    made = pool_node(low, source, shape[1:], shape[1:], (0, 0), (shape[0], 1, 1), average=how == "mean")
    return replace(value, content=made, dims=(*value.dims[: rank - 3], *of_features((shape[0], 1, 1))))


def _any_spike(low: Tracing, source: Signal, size: Pair, stride: Pair, padding: Pair, shape: Shape) -> Signal:
    """The largest of spikes is 1 where their sum is above 1/2; the padding of either adds no spike."""
    if not source.is_binary():
        behind = source.terms[0].of
        name = behind.path if isinstance(behind, Synapse) else behind.name
        low.refuse(
            f"takes the largest of numbers that are not spikes ({name!r} stands before it), which NIR cannot "
            "say. Put the pool behind the neuron, or take the average"
        )
    count = pool_node(low, source, size, stride, padding, shape, average=False)
    node = nir.Threshold(
        np.full(shape, 0.5, low.draft.dtype), metadata={"path": low.here(), "operation": "max"}
    )
    spikes = low.draft.add(node, f"{low.here()}_any", shape, count, binary=True)
    return Signal((Term(spikes),), shape)


def _maps(low: Tracing, x: Any, result: Tensor) -> tuple[Value, Signal, Shape]:
    value = low.value(x, "the input of a pool")
    return value, low.features(value, len(value.dims) - 3, "a pool"), tuple(result.shape[-3:])


def _placed(value: Value, made: Signal) -> Value:
    return replace(value, content=made, dims=(*value.dims[:-3], *of_features(made.shape)))


def _even(low: Tracing, before: Shape, after: Shape) -> Pair:
    """The window of an adaptive pool, where it is the same everywhere."""
    if any(a % b for a, b in zip(before[1:], after[1:], strict=True)):
        low.refuse(
            f"pools {list(before[1:])} to {list(after[1:])} with windows of different sizes. Use an output "
            "size that divides the input"
        )
    return tuple(a // b for a, b in zip(before[1:], after[1:], strict=True))


def _check_whole_windows(
    low: Tracing, before: Shape, after: Shape, size: Pair, stride: Pair, pad: Pair
) -> None:
    """NIR's pools round down."""
    places = zip(before[1:], after[1:], size, stride, pad, strict=True)
    if any((length + 2 * p - k) // s + 1 != out for length, out, k, s, p in places):
        low.refuse("has windows that reach over the border (ceil_mode=True). Use ceil_mode=False")
