"""Power-of-two taps, a byte each: which of the eight powers of its channel, and the sign.

``quantize_taps(taps, "pow2")`` gives 0 or +/-2^e with e from the channel's largest exponent down to seven
below it, and leaves such taps as they are: what is unpacked computes the same, to the last bit.
"""

import torch
from torch import Tensor, nn

from mfp_neurons.history import quantize_taps
from mfp_neurons.neuron import HistoryKernel

_LEVELS = 8


def power_of_two_kernels(module: nn.Module) -> dict[str, HistoryKernel]:
    """Kernels of free power-of-two taps by path; one that has several paths comes with each."""
    named = module.named_modules(remove_duplicate=False)
    kernels = {name: kernel for name, kernel in named if isinstance(kernel, HistoryKernel)}
    return {name: k for name, k in kernels.items() if k.kind == "fir" and k.kernel_bits == "pow2"}


@torch.no_grad()
def pack(kernel: HistoryKernel) -> tuple[Tensor, Tensor]:
    """Taps [K] or [K, C] as bytes of that shape, and each channel's largest exponent, int16 [1] or [C].

    A byte is 0 for a tap of 0, else its sign times 8 for the largest exponent, 7 for the next, down to 1.
    """
    taps: Tensor = quantize_taps(kernel.taps, "pow2")
    exponent = taps.frexp().exponent.int() - 1  # of 2^e, frexp is (1/2, e + 1)
    lowest = torch.full_like(exponent, torch.iinfo(torch.int16).min)
    largest = torch.where(taps == 0, lowest, exponent).amax(0)
    codes = torch.where(taps == 0, 0, taps.sign() * (_LEVELS - largest + exponent))
    return codes.to(torch.int8), largest.reshape(-1).to(torch.int16)


def unpack(codes: Tensor, largest: Tensor) -> Tensor:
    """The taps, float32, that :func:`pack` has packed.

    Raises:
        ValueError: these are no packed taps.
    """
    if codes.dim() not in (1, 2) or largest.shape != (codes[0].numel(),) or int(codes.abs().amax()) > _LEVELS:
        raise ValueError(f"taps: {list(codes.shape)} codes and {list(largest.shape)} exponents fit no kernel")
    exponent = codes.abs().int() - _LEVELS + largest.int().reshape(codes.shape[1:])
    return torch.where(codes == 0, 0.0, torch.ldexp(codes.sign().float(), exponent))
