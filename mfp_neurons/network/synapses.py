"""Rules of layers with weights and of batch norms."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import quantize
from ..quantize.arithmetic import exchanged
from ..quantize.layers import TRANSPOSED, convolve_transposed
from .axes import Dims, Shape, flat, kinds, of_features, sizes
from .capture import StandIn
from .description import BatchNorm, Convolution, Linear, Weights, snapshot
from .tracing import Tracer, Value, rule
from .volumes import unrolled


@rule("linear")
def linear(tracer: Tracer, result: Tensor, x: Any, weight: Tensor, bias: Tensor | None = None) -> Value:
    """Over all features in one row, or over the channels at every place."""
    value, weights = tracer.value(x, "the input of a linear layer"), _weights(tracer, weight, bias)
    *others, last = value.dims
    over_all = last == flat(of_features(tracer.layer(value).shape))
    if over_all:  # also where the features are a map [C, H, W] that was flattened
        tracer.fits(value, weights.shape[1:])  # of an input that nothing has read, the best shape
    shape, out = tracer.layer(value).shape, weights.shape[0]
    # A layer over the channels at every place reads each number of the map once: channels last, nothing left
    # out.
    all_places = prod(sizes(value.dims)) == _count(value.dims) * prod(shape)
    out_shape: Shape = (out,)
    at_places = False
    if over_all and all(kinds(dim) <= {"T", "N"} for dim in others):
        source = tracer.source(value, len(others))
    elif last == tracer.channel_dim(value) and all_places:
        source, out_shape, at_places = tracer.source(value), (out, *shape[1:]), True
    else:
        # laid out anew: the last dimension becomes the channels, those before it the places
        lead = tracer.lead(value)
        counts = sizes(value.dims[lead:])
        value = tracer.gathered(
            replace(value, dims=(*value.dims[:lead], value.dims[-1], *value.dims[lead:-1])),
            lead,
            np.arange(prod(counts)).reshape(counts[-1], *counts[:-1]),
        )
        others = [*value.dims[:lead], *value.dims[lead + 1 :]]
        source, at_places = tracer.source(value, lead), len(counts) > 1
        out_shape = (out, *counts[:-1])
    number = tracer.emit(
        Linear, [source], out_shape, weights=weights, bias=snapshot(bias), at_places=at_places
    )
    return replace(value, layer=number, dims=(*others, of_features(out_shape)[0]))


def _count(dims: Dims) -> int:
    """Steps times samples."""
    return prod(axis.size for dim in dims for axis in dim if axis.kind != "F")


@rule("conv1d", "conv2d", "conv3d")
def convolution(
    tracer: Tracer,
    result: Tensor,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    value, weights = tracer.value(x, "the input of a convolution"), _weights(tracer, weight, bias)
    rank = weight.dim() - 1
    spread = pair(dilation, rank - 1)
    padded = _padding(padding, weight.shape[2:], spread)
    sees_places_alone = (*weight.shape[2:], *pair(stride, rank - 1)) == (1,) * (2 * rank - 2)
    if sees_places_alone and padded == (0,) * (rank - 1) and _are_flattened(tracer, value, rank):
        return _pointwise(tracer, value, weights, bias, groups)
    return _convolved(tracer, value, result, weights, bias, pair(stride, rank - 1), padded, spread, groups)


def _convolved(
    tracer: Tracer,
    value: Value,
    result: Tensor,
    weights: Weights,
    bias: Tensor | None,
    stride: Shape,
    padding: Any,
    spread: Shape,
    groups: int,
) -> Value:
    """A convolution over one, two or three dimensions; the depth of three becomes channels and rows."""
    rank = len(stride) + 1
    value, leading, before = tracer.features(value, rank, "a convolution")
    shape = features = tuple(result.shape[-rank:])
    if rank == 4:
        window = weights.shape[2:]
        if padding == "same":  # torch puts the odd one behind
            padding = tuple(d * (k - 1) // 2 for k, d in zip(window, spread, strict=True))
        places = np.arange(prod(before)).reshape(before)
        places = unrolled(places, shape[1:3], window[:2], stride[:2], padding[:2], spread[:2])
        shape = (shape[0], shape[1] * shape[2], shape[3])
        value = tracer.gathered(value, len(leading), places.reshape(-1, shape[1], before[3]))
        weights = _reshaped(weights, (weights.shape[0], -1, 1, window[2]))
        stride, padding, spread = (1, stride[2]), (0, padding[2]), (1, spread[2])
    number = tracer.emit(
        Convolution,
        [tracer.source(value, len(leading))],
        shape,
        weights=weights,
        bias=snapshot(bias),
        stride=stride,
        padding=padding,
        dilation=spread,
        groups=groups,
    )
    return replace(value, layer=number, dims=(*leading, *of_features(features)))


def _reshaped(weights: Weights, shape: Shape) -> Weights:
    """The same numbers of each output in another shape."""
    codes, real = weights.codes, weights.real
    if codes is not None:
        scale = codes.scale.reshape(-1, *(1,) * (len(shape) - 1))
        codes = replace(codes, codes=codes.codes.reshape(shape), scale=scale)
    return Weights(codes, None if real is None else real.reshape(shape), weights.altered)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    tracer: Tracer,
    result: Tensor,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """A convolution of the input, zeros between its numbers, whose windows are turned around.

    Every input adds its number times the window to the outputs from where it stands on. So an output adds up
    the inputs that stand before it, the nearest times the first weight: a convolution, read from behind.
    """
    value, weights = tracer.value(x, "the input of a convolution"), _weights(tracer, weight, bias)
    rank = weight.dim() - 1
    value, leading, shape = tracer.features(value, rank, "a transposed convolution")
    spread = pair(dilation, rank - 1)
    places, before = np.arange(prod(shape)).reshape(shape), []
    options = zip(
        pair(stride, rank - 1), pair(padding, rank - 1), pair(output_padding, rank - 1), strict=True
    )
    for axis, (step, cut, added) in enumerate(options, start=1):
        between = list(places.shape)
        between[axis] = (between[axis] - 1) * step + 1 + added
        wide = np.full(between, -1)
        wide[(slice(None),) * axis + (slice(0, between[axis] - added, step),)] = places
        # torch's padding takes away from what comes out: of all that any window reaches so much is left
        margin = spread[axis - 1] * (weight.shape[axis + 1] - 1) - cut
        outside = max(0, -margin)
        places = np.take(wide, range(outside, between[axis] - outside), axis)
        before.append(max(0, margin))
    value, stride = tracer.gathered(value, len(leading), places), (1,) * (rank - 1)
    turned = _turned(weights, groups)
    return _convolved(tracer, value, result, turned, bias, stride, tuple(before), spread, groups)


def _turned(weights: Weights, groups: int) -> Weights:
    """The weight of a transposed convolution as that of the convolution that it is."""

    def turned(weight: Tensor) -> Tensor:
        return exchanged(weight, groups).flip(tuple(range(2, weight.dim())))

    codes, real = weights.codes, weights.real
    if codes is not None:
        # all inputs of an output have one scale
        codes = replace(codes, codes=turned(codes.codes), scale=turned(codes.scale)[:, :1])
    return Weights(codes, None if real is None else turned(real), weights.altered)


def _are_flattened(tracer: Tracer, value: Value, rank: int) -> bool:
    """Whether the last dimensions are the channels of a map, and all of its rows and columns as one."""
    shape, lead = tracer.layer(value).shape, len(value.dims) - rank
    channels, *others = value.dims[lead:]
    return (
        len(shape) > rank
        and (channels, *others) == (tracer.channel_dim(value), flat(of_features(shape)[1:]))
        and all(kinds(dim) <= {"T", "N"} for dim in value.dims[:lead])
        and not tracer.fits(value, sizes(value.dims[lead:]))  # of an input that nothing has read, the shape
    )


def _pointwise(tracer: Tracer, value: Value, weights: Weights, bias: Tensor | None, groups: int) -> Value:
    """A convolution over flattened places, which it sees one by one, as one over the rows and columns."""
    shape = tracer.layer(value).shape
    rank = len(shape) - 1
    window = (*weights.shape[:2], *(1,) * rank)
    number = tracer.emit(
        Convolution,
        [replace(tracer.source(value), dims=of_features(shape))],
        (weights.shape[0], *shape[1:]),
        weights=_reshaped(weights, window),
        bias=snapshot(bias),
        stride=(1,) * rank,
        padding=(0,) * rank,
        dilation=(1,) * rank,
        groups=groups,
    )
    channels = of_features((weights.shape[0], *shape[1:]))[0]
    return replace(value, layer=number, dims=(*value.dims[:-2], channels, value.dims[-1]))


def _padding(padding: Any, window: Sequence[int], spread: Sequence[int]) -> Any:
    """Numbers, or "same" where they are others before and behind."""
    if padding != "same":
        return pair(0 if padding == "valid" else padding, len(window))
    # torch puts the odd one of an odd total behind, and a single number for both sides cannot say that.
    total = [d * (size - 1) for d, size in zip(spread, window, strict=True)]
    return "same" if any(n % 2 for n in total) else tuple(n // 2 for n in total)


def pair(option: Any, rank: int) -> tuple[int, ...]:
    """An option of a layer, one number a dimension.

    >>> pair(2, 2), pair([3], 2), pair((1, 2), 2)
    ((2, 2), (3, 3), (1, 2))
    """
    numbers = [option] if isinstance(option, int) else list(option)
    return tuple(int(n) for n in (numbers * rank if len(numbers) == 1 else numbers))


def _weights(tracer: Tracer, weight: Any, bias: Any) -> Weights:
    """The weight that the running module hands to a function, as codes where it is quantized."""
    if isinstance(weight, StandIn) or isinstance(bias, StandIn):
        tracer.refuse("has a weight that is computed from the input. Weights are fixed numbers")
    module = tracer.capture.running()
    if not quantize.is_quantized(module):
        return Weights(real=snapshot(weight))
    codes = quantize.codes(module)
    # What the module hands over may be its quantized weight times something. The codes stand for it only
    # where they give these very numbers.
    if torch.equal(codes.codes.to(weight.dtype) * codes.scale, weight):
        return Weights(quantize.Codes(codes.codes.cpu(), codes.scale.cpu(), codes.bits))
    return Weights(real=snapshot(weight), altered=True)


def brevitas_layer(tracer: Tracer, module: Any, x: Any) -> Any:
    """A layer of Brevitas, whose own forward is not for stand-ins."""
    for name in ("input_quant", "output_quant", "bias_quant"):
        if getattr(getattr(module, name, None), "is_quant_enabled", False):
            tracer.refuse(f"quantizes more than its weight ({name}). Give it a weight quantizer only")
    if getattr(module, "padding_mode", "zeros") != "zeros":
        tracer.refuse(f"pads with {module.padding_mode!r}. Use padding_mode='zeros'")
    # The call comes back to the rules above through torch's function, where the codes are compared with this
    # weight.
    weight = Weights(quantize.codes(module)).values()
    if isinstance(module, nn.Linear):
        return F.linear(x, weight, module.bias)
    if isinstance(module, TRANSPOSED):
        return convolve_transposed(module, x, weight, module.bias, module.output_padding)
    convolve = getattr(F, f"conv{len(module.stride)}d")
    return convolve(x, weight, module.bias, module.stride, module.padding, module.dilation, module.groups)


@rule("batch_norm")
def batch_norm(
    tracer: Tracer,
    result: Tensor,
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    value = tracer.value(x, "the input of a batch norm")
    if running_mean is None or running_var is None or training:
        tracer.refuse(
            "normalizes with the statistics of its input, in evaluation too. Only fixed ones fold into a "
            "threshold or a weight: track_running_stats=True"
        )
    tracer.settle(value)
    shape = tracer.layer(value).shape
    # A norm behind a flattening has statistics for every place, where a norm of a map has them for every
    # channel.
    of_places = value.dims[1] == flat(of_features(shape)) != tracer.channel_dim(value)
    if not of_places:
        tracer.check_channels(value, 1, "a batch norm")
    if bool((running_var.double() + eps <= 0).any()):
        least = float((running_var.double() + eps).min())
        tracer.refuse(
            "has a batch norm that does not fold: variance + eps of a batch norm must be positive, got "
            f"{least:.6g}"
        )
    number = tracer.emit(
        BatchNorm,
        [tracer.source(value)],
        shape,
        mean=snapshot(running_mean),
        var=snapshot(running_var),
        weight=snapshot(weight),
        bias=snapshot(bias),
        eps=eps,
        of_places=of_places,
    )
    return replace(value, layer=number)
