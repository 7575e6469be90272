"""Reads the codes and scales of a quantized layer, whether it is one of ours or of Brevitas."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .._undisturbed import undisturbed
from .layers import TRANSPOSED, QuantizedLayer, by_output

_SETS_WEIGHT = (prune.BasePruningMethod, SpectralNorm, WeightNorm)


@dataclass(frozen=True)
class Codes:
    """What a quantized weight is made of: ``codes * scale`` is the weight, bit for bit.

    Attributes:
        codes: int8, the shape of the layer's weight.
        scale: Positive, in the dtype of the layer's weight, a number for each output channel: [out, 1, ...].
            Of a transposed convolution, whose weight is [in, out / groups, ...], it is [1, out, 1, ...], or
            [in, out / groups, 1, ...] with groups.
        bits: 1, 1.58 (ternary), or 2 to 8.
    """

    codes: Tensor
    scale: Tensor
    bits: float


def is_quantized(module: nn.Module) -> bool:
    """Whether ``codes(module)`` can be asked: a layer of ours, or one of Brevitas with a weight quantizer."""
    return isinstance(module, QuantizedLayer) or is_quantized_by_brevitas(module)


@torch.no_grad()
def codes(module: nn.Module) -> Codes:
    """Codes and scale of a quantized layer, from the code that its forward uses.

    Args:
        module: A layer that ``quantize_weights`` has changed, or a Brevitas layer.

    Returns:
        ``Codes``; they share no memory with the layer.

    Raises:
        TypeError: The layer is not quantized.
        ValueError: The weight or the learned step holds NaN or infinity; a layer of one bit is pruned by a
            mask; the weight of a Brevitas layer is not int8 codes times a scale per output channel.

    >>> from mfp_neurons import quantize_weights
    >>> layer = quantize_weights(nn.Linear(2, 1, bias=False), bits=1)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.5, -0.25]])})
    >>> codes(layer)
    Codes(codes=tensor([[ 1, -1]], dtype=torch.int8), scale=tensor([[0.3750]]), bits=1)
    """
    if isinstance(module, QuantizedLayer):
        with undisturbed(module):
            set_weights(module)
            integers, scale = module.encoded()
        # Every weight of a channel has a part in its scale, so NaN in any of them shows here.
        if not bool(scale.isfinite().all()):
            raise ValueError(
                f"weight of this {type(module).__name__}, or its weight_step, holds NaN or infinity"
            )
        integers, scale = integers.to(torch.int8), scale.to(module.weight.dtype)
        if isinstance(module, TRANSPOSED):
            integers, scale = by_output(module, integers), by_output(module, scale)
            # the inputs of a group, one behind the other, have the scales of the group
            scale = scale.repeat_interleave(len(integers) // len(scale), 0) if module.groups > 1 else scale
        return Codes(integers, scale, module.weight_bits)
    if is_quantized_by_brevitas(module):
        return _codes_of_brevitas(module)
    raise TypeError(f"module ({type(module).__name__}) is not quantized; quantize it with quantize_weights")


def sets_weight(hook: Any) -> bool:
    """Whether a forward pre-hook is one of torch that computes a weight from other tensors.

    Pruning does, and so do ``torch.nn.utils.weight_norm`` and ``spectral_norm``.
    """
    return isinstance(hook, _SETS_WEIGHT)


def set_weights(module: nn.Module) -> None:
    """Sets the weights that such hooks compute to those of the next forward.

    After a step of the optimizer, or after a checkpoint was loaded, they are still those of the last forward.
    """
    for hook in module._forward_pre_hooks.values():
        if sets_weight(hook):
            hook(module, ())


def is_brevitas(module: nn.Module) -> bool:
    """Whether the module is a Brevitas layer that has a weight, quantized or not; without an import."""
    packages = {kind.__module__.partition(".")[0] for kind in type(module).__mro__}
    return "brevitas" in packages and hasattr(module, "quant_weight")


def is_quantized_by_brevitas(module: Any) -> bool:
    """Whether the module is a Brevitas layer whose weight quantizer is on."""
    return is_brevitas(module) and bool(module.weight_quant.is_quant_enabled)


def _codes_of_brevitas(module: Any) -> Codes:
    """What the layer's own ``quant_weight()`` says; ValueError if codes * scale is not the weight it uses."""
    latent = module.weight.clone()
    try:
        weight = module.quant_weight()
        value, integers, bits = weight.value, weight.int(), int(weight.bit_width)
    finally:
        module.weight.copy_(latent)  # quantizers with a constant scale clip the latent weight as they read it
    integers = integers.to(torch.int8)
    scale = _scale_per_channel(weight.scale, value, isinstance(module, TRANSPOSED))
    if scale is None or not torch.equal(integers * scale, value):
        raise ValueError(
            f"module: the weight of this {type(module).__name__} ({bits} bits, scale of shape "
            f"{tuple(weight.scale.shape)}) is not int8 codes times a scale per output channel; give it a "
            "symmetric weight quantizer of at most 8 bits"
        )
    return Codes(integers, scale, bits)


def _scale_per_channel(scale: Tensor, value: Tensor, transposed: bool) -> Tensor | None:
    """A copy of the scale, as :class:`Codes` has it; None if there is not one for each output channel."""
    shape = [1] * value.ndim
    shape[int(transposed)] = value.shape[int(transposed)]
    # A scale for the whole tensor is the same scale for every channel.
    if scale.numel() == 1:
        return scale.reshape([1] * value.ndim).expand(shape).clone()
    return scale.clone() if list(scale.shape) == shape else None
