"""Rules of linear layers, convolutions and batch norms."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import quantize
from ..deploy.lowering.axes import flat, of_features
from ..deploy.lowering.capture import StandIn
from .convolution import can_be_square
from .registry import rule
from .signals import Floats, Norm, Signal, Synapse, Term, Value
from .trace import Tracing


@rule("linear")
def linear(low: Tracing, result: Tensor, x: Any, weight: Tensor, bias: Tensor | None = None) -> Value:
    value = low.value(x, "the input of a linear layer")
    source = low.features(value, len(value.dims) - 1, "a linear layer")
    made = _synapse(low, "Linear", source, (len(weight),), weight, bias, {})
    return replace(value, content=made, dims=(*value.dims[:-1], *of_features((len(weight),))))


@rule("conv1d", "conv2d")
def convolution(
    low: Tracing,
    result: Tensor,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    value, rank = low.value(x, "the input of a convolution"), weight.dim() - 1
    lead = len(value.dims) - rank
    source = low.features(value, lead, "a convolution")
    if rank == 3 and not can_be_square(tuple(weight.shape[2:])):
        low.refuse(
            f"has a window of {list(weight.shape[2:])}, of whose size NIR's reader takes the height alone. "
            "Use a square one, or one that zeros make square: both sizes odd, or both even"
        )
    options = _options(source.shape, weight, stride, padding, dilation, groups)
    shape = tuple(result.shape[-rank:])
    made = _synapse(low, f"Conv{rank - 1}d", source, shape, weight, bias, options)
    return replace(value, content=made, dims=(*value.dims[:lead], *of_features(shape)))


def _options(
    shape: Sequence[int], weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> dict[str, Any]:
    rank = weight.dim() - 2
    spread = numbers(dilation, rank)
    if padding == "same":
        total = [d * (size - 1) for d, size in zip(spread, weight.shape[2:], strict=True)]
        before: Any = "same" if any(n % 2 for n in total) else tuple(n // 2 for n in total)
    else:
        before = numbers(0 if padding == "valid" else padding, rank)
    named = {
        "input_shape": tuple(shape[1:]),
        "stride": numbers(stride, rank),
        "padding": before,
        "dilation": spread,
    }
    if rank == 1:
        named = {name: one if isinstance(one, str) else one[0] for name, one in named.items()}
    return named | {"groups": groups}


def numbers(given: Any, rank: int) -> tuple[int, ...]:
    row = [given] if isinstance(given, int) else list(given)
    return tuple(int(n) for n in (row * rank if len(row) == 1 else row))


def _synapse(
    low: Tracing,
    kind: str,
    source: Signal,
    shape: tuple[int, ...],
    weight: Tensor,
    bias: Tensor | None,
    options: dict[str, Any],
) -> Signal:
    if isinstance(weight, StandIn) or isinstance(bias, StandIn):
        low.refuse("has a weight that is computed from the input. NIR's weights are fixed")
    names, path = low.draft.names(source), low.here()
    own = _array(weight)
    row = None if bias is None else _array(bias)
    key = (kind, path, names, str(options), _hash(own), row is not None and _hash(row))
    made = Synapse(path, kind, names, shape, own, row, options, _codes(low, weight), key)
    return Signal((Term(made),), shape)


def _codes(low: Tracing, weight: Tensor) -> Any:
    """Codes, scale and bits of the weight that the running module hands to a function."""
    module = low.capture.running()
    if not quantize.is_quantized(module):
        return None
    found = quantize.codes(module)
    if not torch.equal(found.codes.to(weight.dtype) * found.scale, weight):
        return None
    return found.codes.cpu().numpy(), _array(found.scale).reshape(-1), found.bits


def _array(tensor: Tensor) -> NDArray[Any]:
    wide = tensor.detach().cpu()
    array: NDArray[Any] = (wide.float() if wide.element_size() < 4 else wide).numpy().copy()
    return array


def _hash(array: NDArray[Any]) -> bytes:
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest()


@rule("batch_norm")
def normalize(
    low: Tracing,
    result: Tensor | None,
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
            "weight: track_running_stats=True"
        )
    rows = [None if t is None else _array(t) for t in (running_mean, running_var, weight, bias)]
    norm = Norm(rows[0], rows[1], rows[2], rows[3], eps)  # type: ignore[arg-type]
    if bool((norm.var.astype(np.float64) + eps <= 0).any()):
        low.refuse("has a batch norm whose variance + eps is not positive")
    shape = value.content.shape
    if value.dims[1] == of_features(shape)[0] and len(running_mean) == shape[0]:
        places: tuple[int, ...] = (shape[0], *[1] * (len(shape) - 1))
    elif value.dims[1] == flat(of_features(shape)):
        places = shape
    else:
        low.refuse("has a batch norm over something else than the channels. Put it right behind its layer")
    scale, offset = (row.reshape(places) for row in norm.affine())
    return replace(value, content=then(low, value.content, scale, offset, norm))


def then(
    low: Tracing, signal: Signal, scale: Floats, offset: Floats | None, norm: Norm | None = None
) -> Signal:
    """scale * signal + offset, folded into layers where it is one number a channel."""
    for array in (scale, offset):
        if array is not None and array.ndim and array.size > 1 and array.size > array.shape[0]:
            return low.draft.settled(signal).then(scale, offset)
    return signal.then(scale, offset, norm)
