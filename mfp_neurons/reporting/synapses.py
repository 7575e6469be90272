"""Layers of synapses: which modules they are, how many synapses a value reaches, how many bytes they take."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import quantize
from ..adapters import describe_neuron
from ..feedback import Feedback
from ..history import KernelBits, quantize_taps
from ..neuron import HistoryKernel
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


def _quantized_taps(module: nn.Module) -> Iterator[tuple[Tensor, KernelBits]]:
    """Parameters of a neuron that are taps on a grid, and the bits of the grid."""
    spec = describe_neuron(module)
    kernel = None if spec is None else spec.kernel
    if kernel is None or kernel.kernel_bits is None:
        return
    if isinstance(kernel, HistoryKernel) and kernel.kind == "fir":
        yield kernel.taps, kernel.kernel_bits
    feedback = getattr(module, "feedback", None)
    if isinstance(feedback, Feedback) and feedback.kind == "feedback":
        yield feedback.taps, kernel.kernel_bits


@torch.no_grad()
def _packed_tap_bytes(taps: Tensor, bits: KernelBits) -> int:
    """Bytes of taps [K] or [K, C] on the grid of ``bits``, and a byte a column for the grid's power of two.

    A power of two is 0 or a sign and one of eight exponents, 17 numbers; four bits say sixteen of them, and
    suffice unless both +2**e and -2**e occur where e is the largest exponent of their column.
    """
    columns = max(taps.numel() // len(taps), 1)
    if bits == "pow2":
        snapped = quantize_taps(taps.double(), bits).reshape(len(taps), columns)
        largest = snapped.abs().amax(0)
        both = ((snapped == largest).any(0) & (snapped == -largest).any(0) & (largest > 0)).any()
        width = 5 if both else 4
    else:
        assert isinstance(bits, int)
        width = bits
    return math.ceil(taps.numel() * width / 8) + columns


def weight_bytes(model: nn.Module) -> tuple[int, int]:
    """(packed, stored) bytes of all parameters and persistent buffers, shared ones once.

    Packed: a quantized weight is its codes and scales, and the quantizer's own parameters are gone; taps take
    the bits of their grid; all else is as stored.
    """
    stored: dict[int, int] = {}
    packed: dict[int, int] = {}
    dropped: set[int] = set()
    for module in model.modules():
        if quantize.is_quantized(module):
            packed[id(module.weight)] = packed_weight_bytes(module)[1]
            # Steps and masks serve training alone: a device needs codes, scales and the bias.
            dropped |= {id(t) for name, t in _tensors(module, recurse=True) if name not in ("weight", "bias")}
        for taps, bits in _quantized_taps(module):
            packed[id(taps)] = _packed_tap_bytes(taps, bits)
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
