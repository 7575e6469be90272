"""Layers of synapses: which modules they are, how many synapses a value reaches, how many bytes they take."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .. import quantize
from ..quantize.layers import FLOAT_LAYERS, TRANSPOSED, convolve_transposed

KINDS = FLOAT_LAYERS


def feature_dims(layer: Any) -> int:
    """How many trailing dimensions of its input belong to one row: 1, or channels and space."""
    return 1 if isinstance(layer, nn.Linear) else 1 + len(layer.kernel_size)


def fan_out(layer: Any, shape: torch.Size) -> Tensor:
    """Synapses of non-zero weight that one input value reaches, for each value of a row. float64, ``shape``.

    The padding of a convolution, its stride and its groups are in it exactly: the layer is linear, so the
    gradient of its summed output, with ones for weights, is the number of outputs that a value reaches.
    """
    present = _weight_of(layer) != 0
    if isinstance(layer, nn.Linear):
        return present.sum(0).double()
    with torch.enable_grad():
        x = torch.zeros(1, *shape, dtype=torch.float64, device=present.device, requires_grad=True)
        # Only how many outputs a value reaches counts, not which, so the outputs of a group become one, whose
        # weights are the numbers of their synapses.
        if isinstance(layer, TRANSPOSED):
            weight = present.sum(1, keepdim=True).double()
            y = convolve_transposed(layer, x, weight, None, layer.output_padding)
        else:
            weight = present.unflatten(0, (layer.groups, -1)).sum(1).double()
            # Called on the class, because a quantized layer's own method uses its own weight.
            kind: Any = next(kind for kind in KINDS if isinstance(layer, kind))
            y = kind._conv_forward(layer, x, weight, None)
        (reached,) = torch.autograd.grad(y.sum(), x)
    return reached.squeeze(0)


@torch.no_grad()
def _weight_of(layer: Any) -> Tensor:
    """The weight that forward uses."""
    if quantize.is_quantized(layer):
        quantized = quantize.codes(layer)
        return quantized.codes.to(quantized.scale.dtype) * quantized.scale
    weight: Tensor = layer.weight
    return weight


def packed_weight_bytes(layer: Any) -> tuple[float, int, int]:
    """(bits a weight, bytes of the weight packed, scales included, bytes of it as stored)."""
    stored = _bytes(layer.weight)
    if not quantize.is_quantized(layer):
        return 8 * layer.weight.element_size(), stored, stored
    quantized = quantize.codes(layer)
    bits_of_a_code = math.ceil(quantized.bits)  # a ternary one takes two
    codes = math.ceil(quantized.codes.numel() * bits_of_a_code / 8)
    return quantized.bits, codes + _bytes(quantized.scale), stored


def weight_bytes(model: nn.Module) -> tuple[int, int]:
    """(packed, stored) bytes of all parameters and persistent buffers, shared ones once.

    Packed: a quantized weight is its codes and scales, and the quantizer's own parameters are gone; all else
    is as stored.
    """
    stored: dict[int, int] = {}
    packed: dict[int, int] = {}
    dropped: set[int] = set()
    for module in model.modules():
        if quantize.is_quantized(module):
            packed[id(module.weight)] = packed_weight_bytes(module)[1]
            # Steps and masks serve training alone: a device needs codes, scales and the bias.
            dropped |= {id(t) for name, t in _tensors(module, recurse=True) if name not in ("weight", "bias")}
        stored |= {id(t): _bytes(t) for _, t in _tensors(module, recurse=False)}
    remaining = {key: size for key, size in stored.items() if key not in dropped}
    return sum({**remaining, **packed}.values()), sum(stored.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(module: nn.Module, recurse: bool) -> list[tuple[str, Tensor]]:
    """Parameters and persistent buffers by name, with those of the modules inside it or without."""
    named: list[tuple[str, Tensor]] = [*module.named_parameters(recurse=recurse)]
    for prefix, owner in module.named_modules() if recurse else [("", module)]:
        for name, buffer in owner._buffers.items():
            if buffer is not None and name not in owner._non_persistent_buffers_set:
                named.append((f"{prefix}.{name}" if prefix else name, buffer))
    return named
