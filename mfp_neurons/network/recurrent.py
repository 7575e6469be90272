"""Reads the way on which spikes come back to their own layer, a step later, through weights of their own.

SpikingJelly has containers around a neuron for that, snnTorch neurons with a layer inside. The way back is
either a linear layer or a convolution of all last spikes, or a number for each neuron's own one.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor, nn

from .. import quantize
from ..spec import RecurrenceSpec
from .arithmetic import exact_constant, shifted
from .axes import features_of, labels, sizes
from .capture import StandIn
from .description import Add, Affine, Exact, Layer, Linear, NetworkError, Recurrent, Weights, snapshot
from .tracing import Tracer, Value


def side_by_side(tracer: Tracer, spec: RecurrenceSpec, value: Value) -> tuple[Value, Recurrent]:
    """A linear layer over the input and the last spikes: the columns of each are a layer of their own."""
    assert spec.linear is not None
    weights, bias = layer_weights(spec.linear), spec.linear.bias
    out, width = weights.shape
    if sizes(features_of(value.dims)) != (out,) or width != 2 * out:
        tracer.refuse(
            f"feeds {width - out} features back to {out} beside {labels(value.dims)}. "
            "Give it a vector of features, of which as many come back (in_features=out_features)"
        )
    value, leading, _ = tracer.features(value, 1, "a recurrent layer")
    number = tracer.emit(
        Linear,
        [tracer.source(value, len(leading))],
        (out,),
        function=type(spec.linear).__name__,
        weights=_columns(weights, slice(0, out)),
        bias=snapshot(bias),
    )
    return replace(value, layer=number), Recurrent(_columns(weights, slice(out, width)))


def _columns(weights: Weights, chosen: slice) -> Weights:
    if weights.codes is None:
        assert weights.real is not None
        return replace(weights, real=weights.real[:, chosen])
    codes, scale, bits = weights.codes.codes, weights.codes.scale, weights.codes.bits
    return replace(weights, codes=quantize.Codes(codes[:, chosen], scale, bits))


def layer_weights(module: Any) -> Weights:
    """The weight of a layer that is called with numbers, not with the network's tensors."""
    if not quantize.is_quantized(module):
        return Weights(real=snapshot(module.weight))
    codes = quantize.codes(module)
    return Weights(quantize.Codes(codes.codes.cpu(), codes.scale.cpu(), codes.bits))


# --- a function of the input and the last spikes ------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class _LastSpikes(Layer):
    """Stands for the last spikes while the user's function is read; no description holds it."""


def combined(tracer: Tracer, spec: RecurrenceSpec, value: Value) -> tuple[Value, Recurrent | None]:
    """f(y, x), which has to be x, scaled and shifted, plus a number times y."""
    assert spec.combine is not None
    before = len(tracer.layers)
    number = tracer.emit(_LastSpikes, [tracer.source(value)], tracer.layer(value).shape)
    last = replace(value, layer=number)
    wanted = (
        "An integer network reads x + c * y of its input x and its last spikes y, with a number c; use "
        "LinearRecurrentContainer, or a sum like this"
    )
    try:
        result = spec.combine(tracer.stand_in(last), tracer.stand_in(value))
        is_read = isinstance(result, StandIn)
        sides = _sides(tracer, result.value.number, value.number, number) if is_read else None
    except NetworkError:
        sides = None
    finally:
        tracer.drop(before)
    if sides is None:
        tracer.refuse(f"combines its input with its last spikes in a way that no layer says. {wanted}")
    chain, factor = sides
    for layer in chain:
        value = replace(value, layer=tracer.add(layer, [tracer.source(value)]))
    return value, None if factor is None else Recurrent(factor=factor)


def _sides(tracer: Tracer, result: int, x: int, y: int) -> tuple[list[Affine], Exact | None] | None:
    """What is done to x, and what y is multiplied by; None where it is another function."""
    above, number = _chain(tracer, result, (x, y))
    if number == x:
        return above, None
    layer = tracer.layers[number]
    if not isinstance(layer, Add):
        return None
    ends = [_chain(tracer, source.layer, (x, y)) for source in layer.sources]
    chains = {end: chain for chain, end in ends}
    if chains.keys() != {x, y}:
        return None
    factor: Any = np.array([Fraction(1)], object)
    for affine in (*chains[y], *above):
        factor = factor if affine.scale is None else factor * affine.scale
    if any(affine.offset is not None for affine in chains[y]):
        return None
    return chains[x] + above, factor


def _chain(tracer: Tracer, number: int, ends: tuple[int, int]) -> tuple[list[Affine], int]:
    """The factors and offsets above a layer, the first applied first, and the layer."""
    chain: list[Affine] = []
    while number not in ends and isinstance(layer := tracer.layers[number], Affine):
        chain.insert(0, layer)
        number = layer.sources[0].layer
    return chain, number


# --- a layer inside of the neuron ---------------------------------------------------------------------------


def own_way_back(tracer: Tracer, module: Any, value: Value) -> tuple[Value, Recurrent]:
    """What a layer inside of a neuron makes of its last spikes; a bias is added to the neuron's input."""
    shape = tracer.layer(value).shape
    if isinstance(module, nn.Linear):
        weights = layer_weights(module)
        if weights.shape != (*shape, *shape) or value.dims[-1] != tracer.channel_dim(value):
            tracer.refuse(
                f"feeds {module.in_features} features back to a map {list(shape)}. Give it a vector of as "
                "many features"
            )
        return _with_bias(tracer, value, module.bias, 0), Recurrent(weights)
    if isinstance(module, nn.Conv2d):
        weights = layer_weights(module)
        same = tuple(size // 2 for size in module.kernel_size)
        plain = (module.stride, module.dilation, module.groups, module.padding_mode)
        odd = all(size % 2 for size in module.kernel_size)
        if plain != ((1, 1), (1, 1), 1, "zeros") or module.padding != same or not odd:
            tracer.refuse(
                "feeds its spikes back through a convolution that moves them or leaves places out. Give it "
                "an odd kernel_size"
            )
        return _with_bias(tracer, value, module.bias, 2), Recurrent(weights, padding=same)
    factor = getattr(module, "V", None)
    if factor is None or type(module).__name__ != "RecurrentOneToOne":
        tracer.refuse(
            f"feeds its spikes back through {type(module).__name__}. Use a Linear, a Conv2d, or one number "
            "for each (all_to_all=False)"
        )
    return value, Recurrent(factor=exact_constant(tracer, factor, value))


def _with_bias(tracer: Tracer, value: Value, bias: Tensor | None, places: int) -> Value:
    if bias is None:
        return value
    return shifted(tracer, value, exact_constant(tracer, bias.reshape(-1, *[1] * places), value))
