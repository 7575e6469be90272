"""Layers of synapses: which modules they are, how many synapses a value reaches, how many bytes they take."""

import math
from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import quantize
from ..adapters import describe_neuron
from ..feedback import Feedback
from ..history import KernelBits, quantize_taps
from ..neuron import HistoryKernel
from ..quantize.layers import FLOAT_LAYERS, TRANSPOSED, convolve_transposed
from ..spec import KernelParameters, NeuronSpec

KINDS = FLOAT_LAYERS

# bytes of what a device keeps beside codes and float weights; a norm is a gain and an offset, or one float
_NUMBER, _DECAY, _NORM = 2, 1, 4


def feature_dims(layer: Any) -> int:
    """How many trailing dimensions of its input belong to one row: 1, or channels and space."""
    return 1 if isinstance(layer, nn.Linear) else 1 + len(layer.kernel_size)


def fan_out(layer: Any, shape: torch.Size, channels: range | None = None) -> Tensor:
    """Synapses of non-zero weight that one input value reaches, for each value of a row. float64, ``shape``.

    The padding of a convolution, its stride and its groups are in it exactly: the layer is linear, so the
    gradient of its summed output, with ones for weights, is the number of outputs that a value reaches.

    Args:
        layer: of one of ``KINDS``.
        shape: of a row of its input.
        channels: the output channels whose synapses count, of a layer that is not transposed; None: all.
    """
    present = _weight_of(layer) != 0
    if channels is not None:
        present[: channels.start], present[channels.stop :] = False, False
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


def packed_weight_bytes(layer: Any, normed: bool = False) -> tuple[float, int, int]:
    """(bits a weight, bytes of the weight packed, bytes of it as stored).

    Packed: codes, and a scale of 16 bits for each channel, which is the gain of a batch norm behind it if the
    layer is ``normed``. Float weights are as stored.
    """
    stored = _bytes(layer.weight)
    if not quantize.is_quantized(layer):
        return 8 * layer.weight.element_size(), stored, stored
    quantized = quantize.codes(layer)
    bits_of_a_code = math.ceil(quantized.bits)  # a ternary one takes two
    codes = math.ceil(quantized.codes.numel() * bits_of_a_code / 8)
    scales = 0 if normed else _NUMBER * quantized.scale.numel()
    return quantized.bits, codes + scales, stored


def _quantized_taps(
    module: nn.Module, kernel: KernelParameters | None
) -> Iterator[tuple[Tensor, KernelBits]]:
    """Parameters of a neuron that are taps on a grid, and the bits of the grid."""
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


def weight_bytes(model: nn.Module, normed: Container[nn.Module] = ()) -> tuple[int, int]:
    """(packed, stored) bytes of all parameters and persistent buffers, shared ones once.

    Packed is what is left for a device that computes with the trained network:

    - Quantized weights are codes, with a scale of 16 bits for each output channel and a bias of 16 bits.
    - A batch norm is 4 bytes a channel: a gain and an offset of 16 bits, which take the scales and the bias
      of the layer in front of it into them. Behind float weights it is one float, an offset that takes the
      bias into it, since the gain goes into the weights. Its averages and its counter are gone.
    - A learned decay takes 8 bits; a threshold, and the scale of a potential of few bits, 16.
    - Taps on a grid take its bits, and a byte a column.
    - All else, float weights, their biases and real taps among them, is as stored.

    Args:
        model: the network.
        normed: its layers of synapses behind which a batch norm stands, as a run of the network tells.
    """
    stored: dict[int, int] = {}
    packed: dict[int, int] = {}
    for module in model.modules():
        own = _tensors(module, recurse=False)
        stored |= {id(t): _bytes(t) for _, t in own}
        if isinstance(module, KINDS):
            packed |= _packed_synapses(module, module in normed)
        elif isinstance(module, _BatchNorm) and module.running_var is not None:
            packed |= {id(t): 0 for _, t in own} | {id(module.running_var): _NORM * module.num_features}
        elif (spec := describe_neuron(module)) is not None:
            packed |= _packed_neuron(module, spec)
    return sum({**stored, **packed}.values()), sum(stored.values())


def _packed_synapses(layer: Any, normed: bool) -> dict[int, int]:
    """Bytes by the id of a tensor, where they are not as stored."""
    packed = {}
    if quantize.is_quantized(layer):
        # steps and masks serve training alone
        packed = {id(t): 0 for _, t in _tensors(layer, recurse=True)}
        packed[id(layer.weight)] = packed_weight_bytes(layer, normed)[1]
    if layer.bias is not None and (packed or normed):
        packed[id(layer.bias)] = 0 if normed else _NUMBER * layer.bias.numel()
    return packed


def _packed_neuron(module: nn.Module, spec: NeuronSpec) -> dict[int, int]:
    """Bytes by the id of a tensor, where they are not as stored."""
    sizes = [(t, _DECAY) for t in spec.decays]
    sizes += [
        (t, _NUMBER) for t in (spec.threshold, spec.spike_factor, *spec.numbers) if isinstance(t, Tensor)
    ]
    stored = {id(t) for _, t in _tensors(module, recurse=True)}
    packed = {id(t): size * t.numel() for t, size in sizes if id(t) in stored}
    taps = _quantized_taps(module, spec.kernel)
    return packed | {id(values): _packed_tap_bytes(values, bits) for values, bits in taps}


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
