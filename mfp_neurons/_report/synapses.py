"""Layers of synapses: which modules they are, how far a spike reaches, what their weights weigh."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import quantize

KINDS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_TRANSPOSED: list[tuple[type[nn.Module], Any]] = [
    (nn.ConvTranspose1d, F.conv_transpose1d),
    (nn.ConvTranspose2d, F.conv_transpose2d),
    (nn.ConvTranspose3d, F.conv_transpose3d),
]


def feature_dims(module: nn.Module) -> int:
    """How many trailing dimensions of its input belong to one row: 1, or channels and space."""
    return 1 if isinstance(module, nn.Linear) else 1 + len(module.kernel_size)  # type: ignore[arg-type]


@torch.no_grad()
def weight_of(module: nn.Module) -> Tensor:
    """The weight that forward uses."""
    if quantize.is_quantized(module):
        found = quantize.codes(module)
        return found.codes.to(found.scale.dtype) * found.scale
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def fan_out(module: nn.Module, shape: torch.Size) -> Tensor:
    """Synapses of non-zero weight that one input value reaches, for each value of a row. float64, ``shape``.

    The padding of a convolution, its stride and its groups are in it exactly: the layer is linear, so the
    gradient of its summed output, with ones for weights, is the number of outputs that a value reaches.
    """
    present = weight_of(module) != 0
    if isinstance(module, nn.Linear):
        return present.sum(0).double()
    transposed = next((function for kind, function in _TRANSPOSED if isinstance(module, kind)), None)
    layer: Any = module
    with torch.enable_grad():
        x = torch.zeros(1, *shape, dtype=torch.float64, device=present.device, requires_grad=True)
        if transposed is not None:
            weight = present.sum(1, keepdim=True).double()
            y = transposed(
                x,
                weight,
                None,
                layer.stride,
                layer.padding,
                layer.output_padding,
                layer.groups,
                layer.dilation,
            )
        else:
            weight = (
                present.unflatten(0, (layer.groups, -1)).sum(1).double()
            )  # an output a group: sums matter
            base: Any = next(kind for kind in KINDS if isinstance(module, kind))
            y = base._conv_forward(layer, x, weight, None)
        (reached,) = torch.autograd.grad(y.sum(), x)
    return reached.squeeze(0)


def packed_bits(bits: float) -> int:
    """Bits that a code takes in memory; a ternary one takes two."""
    return math.ceil(bits)


def packed_weight_bytes(module: nn.Module) -> tuple[float, int, int]:
    """(bits a weight, bytes of the weight packed, scales included, bytes of it as stored)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    stored = weight.numel() * weight.element_size()
    if not quantize.is_quantized(module):
        return 8 * weight.element_size(), stored, stored
    found = quantize.codes(module)
    codes = math.ceil(found.codes.numel() * packed_bits(found.bits) / 8)
    return found.bits, codes + found.scale.numel() * found.scale.element_size(), stored


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
            weight = module.weight
            assert isinstance(weight, Tensor)
            packed[id(weight)] = packed_weight_bytes(module)[1]
            dropped |= {id(t) for name, t in _tensors(module, recurse=True) if name not in ("weight", "bias")}
        for _, tensor in _tensors(module, recurse=False):
            stored[id(tensor)] = tensor.numel() * tensor.element_size()
    kept = {key: size for key, size in stored.items() if key not in dropped}
    return sum({**kept, **packed}.values()), sum(stored.values())


def _tensors(module: nn.Module, recurse: bool) -> list[tuple[str, Tensor]]:
    named: list[tuple[str, Tensor]] = [*module.named_parameters(recurse=recurse)]
    for prefix, owner in module.named_modules() if recurse else [("", module)]:
        for name, buffer in owner._buffers.items():
            if buffer is not None and name not in owner._non_persistent_buffers_set:
                named.append((f"{prefix}.{name}" if prefix else name, buffer))
    return named
