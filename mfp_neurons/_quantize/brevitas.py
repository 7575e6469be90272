"""Codes and scales of Brevitas layers, by their own ``quant_weight()``; Brevitas is not imported."""

from typing import Any

import torch
from torch import Tensor, nn


def is_brevitas(module: nn.Module) -> bool:
    """Whether the module is a Brevitas layer that has a weight, quantized or not."""
    ours = any(cls.__module__.partition(".")[0] == "brevitas" for cls in type(module).__mro__)
    return ours and hasattr(module, "quant_weight")


def quantizes(module: Any) -> bool:
    """Whether the module is a Brevitas layer whose weight quantizer is on."""
    return is_brevitas(module) and bool(module.weight_quant.is_quant_enabled)


@torch.no_grad()
def read(module: Any) -> tuple[Tensor, Tensor, int]:
    """int8 codes, scale [out, 1, ...] and bits of a Brevitas layer; ValueError if they are not its weight."""
    latent = module.weight.clone()
    try:
        weight = module.quant_weight()
        value, codes, bits = weight.value, weight.int(), int(weight.bit_width)
    finally:
        module.weight.copy_(latent)  # quantizers with a constant scale clip the latent weight as they read it
    small = codes.to(torch.int8)
    scale = _per_channel(weight.scale, value)
    if scale is None or not torch.equal(small * scale, value):
        raise ValueError(
            f"module: the weight of this {type(module).__name__} ({bits} bits, scale of shape "
            f"{tuple(weight.scale.shape)}) is not int8 codes times a scale per output channel; give it a "
            "symmetric weight quantizer of at most 8 bits"
        )
    return small, scale, bits


def _per_channel(scale: Tensor, value: Tensor) -> Tensor | None:
    shape = value.shape[0], *[1] * (value.ndim - 1)
    if scale.numel() == 1:
        return scale.reshape([1] * value.ndim).expand(shape).clone()
    return scale.clone() if scale.shape == shape else None
