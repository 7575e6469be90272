"""Rules of synapses and batch norms: convolutions, linear layers, and what else adds up numbers of a map."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ... import quantize
from ...quantize.reading import is_quantized_by_brevitas
from ..graph import Pair, Synapse, Window
from .axes import Axis, Dims, flat, kinds, of_features, sizes
from .capture import StandIn
from .fold import affine, batch_norm
from .refusals import NORMALIZED
from .rules import Lowering, rule
from .symbols import Branch, Current, Map, Value

Codes = tuple[NDArray[np.int8], float, Sequence[float]]  # codes, bits, scale of each output channel


@rule("conv1d", "conv2d")
def convolution(
    low: Lowering,
    result: Tensor,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    return convolve(low, result, x, _codes(low, weight), bias, (stride, padding, dilation), groups)


@rule("linear")
def linear(low: Lowering, result: Tensor, x: Any, weight: Tensor, bias: Tensor | None = None) -> Value:
    return connect(low, low.value(x, "the input of a linear layer"), _codes(low, weight), bias)


def brevitas_layer(low: Lowering, module: Any, x: Any) -> Any:
    """A layer of Brevitas, whose own forward is not for stand-ins."""
    for name in ("input_quant", "output_quant", "bias_quant"):
        if getattr(getattr(module, name, None), "is_quant_enabled", False):
            low.refuse(f"quantizes more than its weight ({name}). Give it a weight quantizer only")
    if getattr(module, "padding_mode", "zeros") != "zeros":
        low.refuse(f"pads with {module.padding_mode!r}. Use padding_mode='zeros'")
    codes = _numbers(quantize.codes(module))
    if isinstance(module, nn.Linear):
        return low.stand_in(connect(low, low.value(x, "x"), codes, module.bias))
    function = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
    options = module.stride, module.padding, module.dilation
    shape = tuple(x.shape), tuple(module.weight.shape)
    given, weight = (torch.empty(one, device="meta") for one in shape)
    result = function(given, weight, None, *options, module.groups)
    return low.stand_in(convolve(low, result, x, codes, module.bias, options, module.groups))


def _codes(low: Lowering, weight: Any) -> Codes:
    """Codes of the weight that the module which is running hands to a function."""
    module = low.capture.running()
    if not quantize.is_quantized(module):
        low.refuse(
            "multiplies with a weight that is no quantized layer's. Use Conv1d, Conv2d or Linear modules "
            "and quantize_weights(model, bits=1)"
        )
    found = quantize.codes(module)
    if not torch.equal(found.codes.to(weight.dtype) * found.scale, weight):
        low.refuse("changes its quantized weight before it uses it. Let it use the weight as it is")
    return _numbers(found)


def _numbers(found: quantize.Codes) -> Codes:
    return found.codes.cpu().numpy(), found.bits, found.scale.detach().double().flatten().tolist()


def convolve(
    low: Lowering, result: Tensor, x: Any, codes: Codes, bias: Tensor | None, options: Any, groups: int
) -> Value:
    """A convolution with given codes; ``options`` are stride, padding and dilation as torch takes them."""
    value = low.value(x, "the input of a convolution")
    source = spikes(low, value)
    weights, bits, scale = codes
    rank = weights.ndim - 1
    leading, _ = low.features(value, rank, "a convolution")
    weights = weights[:, :, None] if rank == 2 else weights
    stride, padding, dilation = options
    size: Pair = (weights.shape[2], weights.shape[3])
    spread = pair(dilation, rank, 1)
    if padding == "same":  # torch puts what is odd behind
        before: Pair = (spread[0] * (size[0] - 1) // 2, spread[1] * (size[1] - 1) // 2)
    else:
        before = pair(0 if padding == "valid" else padding, rank, 0)
    window = Window(size, pair(stride, rank, 1), before, spread)
    _check_padding(low, window)
    shape = (len(weights), *((1, *result.shape[-1:]) if rank == 2 else result.shape[-2:]))
    synapse = Synapse(source.index, weights, bits, window, shape, groups)
    dims = (*leading, *of_features(result.shape[-rank:]))
    return _current(low, value, synapse, scale, bias, dims)


def _check_padding(low: Lowering, window: Window) -> None:
    options = zip(window.size, window.padding, window.dilation, strict=True)
    if any(padding > (size - 1) * dilation for size, padding, dilation in options):
        low.refuse(
            f"pads by {max(window.padding)}, more than its window reaches, so that outputs at the border "
            "see nothing at all. Use less padding"
        )


def connect(low: Lowering, value: Value, codes: Codes, bias: Tensor | None) -> Value:
    """A linear layer: over all features, or over the channels at every place."""
    source = spikes(low, value)
    weights, bits, scale = codes
    *others, last = value.dims
    out = len(weights)
    over_all = last == flat(of_features(low.draft.shape(source)))
    if over_all:
        low.draft.fits(source, (weights.shape[1], 1, 1))  # of an input that nothing has read, the best shape
    shape = low.draft.read(source)
    if over_all and all(kinds(dim) <= {"T", "N"} for dim in others):
        by_place = weights.reshape(out, *shape)
        made = Synapse(source.index, by_place, bits, Window((shape[1], shape[2])), (out, 1, 1))
    elif last == low.draft.channel_dim(source) and prod(sizes(value.dims)) == _count(value.dims) * prod(
        shape
    ):
        made = Synapse(source.index, weights[:, :, None, None], bits, Window(), (out, *shape[1:]))
    else:
        low.refuse(
            f"sees {sizes(value.dims)[-1]} numbers of each step that are neither all features nor the "
            f"channels (its input is {list(sizes(value.dims))}, the map {list(shape)}). Flatten all of them"
        )
    channels = of_features(made.shape)[0]
    return _current(low, value, made, scale, bias, (*others, channels))


def _count(dims: Dims) -> int:
    """Steps times samples."""
    return prod(axis.size for dim in dims for axis in dim if axis.kind != "F")


def spikes(low: Lowering, value: Value) -> Map:
    """The map that a synapse reads."""
    content = value.content
    if not isinstance(content, Map):
        assert isinstance(content, Current)
        low.refuse(_no_spikes(low, content))
    return content


def _no_spikes(low: Lowering, content: Current) -> str:
    if all(branch.direct and low.draft.is_input(branch.synapse.source) for branch in content.branches):
        return f"reads the input behind {content.behind}, which {NORMALIZED}"
    return (
        f"reads real numbers: {content.behind} stands before it, and there is no neuron between them. A "
        "synapse reads spikes; put a neuron between the two, and a normalization between the synapse before "
        "it and that neuron"
    )


def _current(
    low: Lowering,
    value: Value,
    synapse: Synapse,
    scale: Sequence[float | Fraction],
    bias: Tensor | None,
    dims: Dims,
) -> Value:
    assert isinstance(value.content, Map)
    offset = [0.0] * len(scale) if bias is None else bias.detach().double().flatten().tolist()
    if value.reduce == "sum" and any(offset):
        low.refuse("adds its bias to a sum over time. Take the mean over time, or bias=False")
    made = affine(scale, offset).of_units(value.content.scale)
    return replace(value, content=low.made(Branch(synapse, made)), dims=dims)


def sum_of_groups(low: Lowering, value: Value, kept: Dims, gone: Sequence[Axis], scale: Fraction) -> Value:
    """scale * the sum over some axes of a map, by codes 0 and 1. ``kept`` are the dims that are left."""
    source = spikes(low, value)
    shape = low.draft.read(source)
    features = [axis for dim in kept for axis in dim if axis.kind == "F"]
    places = _places(features)[:, None] + _places(gone)[None]
    codes = np.zeros((len(places), prod(shape)), np.int8)
    np.put_along_axis(codes, places, np.int8(1), axis=1)
    by_place = codes.reshape(-1, *shape)
    synapse = Synapse(source.index, by_place, 1.58, Window((shape[1], shape[2])), (len(codes), 1, 1))
    left = [sizes((tuple(axis for axis in dim if axis.kind == "F"),))[0] for dim in kept]
    renumbered = of_features(left)
    dims = tuple(
        new or old if kinds(old) <= {"F"} else old for old, new in zip(kept, renumbered, strict=True)
    )
    return _current(low, value, synapse, [scale] * len(codes), None, dims)


def _places(axes: Sequence[Axis]) -> NDArray[np.int64]:
    """The place in a map of every element along axes, in their order."""
    places = np.zeros(1, np.int64)
    for axis in axes:
        places = (places[:, None] + np.arange(axis.size) * axis.stride).ravel()
    return places


def pair(given: Any, rank: int, other: int) -> Pair:
    """(rows, columns) of an option of a layer over (C, H, W) or (C, L), whose rows are ``other``."""
    numbers = [given] if isinstance(given, int) else list(given)
    numbers = numbers * (rank - 1) if len(numbers) == 1 else numbers
    return (other, int(numbers[0])) if rank == 2 else (int(numbers[0]), int(numbers[1]))


@rule("batch_norm")
def normalize(
    low: Lowering,
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
    value = low.value(x, "the input of a batch norm")
    if running_mean is None or running_var is None or training:
        low.refuse(
            "normalizes with the statistics of its input, in evaluation too. Only fixed ones fold into a "
            "threshold: track_running_stats=True"
        )
    channels = low.check_channels(value, 1, "a batch norm")
    if value.reduce == "sum":
        low.refuse("normalizes a sum over time. Take the mean over time")
    gain = [1.0] * channels if weight is None else _list(weight)
    shift = [0.0] * channels if bias is None else _list(bias)
    try:
        after = batch_norm(gain, shift, _list(running_mean), _list(running_var), eps)
    except ValueError as error:
        low.refuse(f"has a batch norm that does not fold: {error}")
    return replace(value, content=low.made(*low.current(value).then(after).branches))


def _list(tensor: Tensor) -> list[float]:
    numbers: list[float] = tensor.detach().double().flatten().tolist()
    return numbers


def is_brevitas(module: nn.Module) -> bool:
    """Whether a module is a layer of Brevitas with a quantized weight."""
    return is_quantized_by_brevitas(module)


__all__ = ["StandIn", "brevitas_layer", "is_brevitas", "pair", "spikes", "sum_of_groups"]
