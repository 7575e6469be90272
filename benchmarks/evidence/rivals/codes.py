"""Activations and states of a few bits, trained with the learned step size of arXiv 1902.08153 (LSQ)."""

import math
from typing import Any

import torch
from torch import Tensor, nn


def round_to_codes(x: Tensor, scale: Tensor | float, lowest: int, highest: int) -> Tensor:
    """``scale * clamp(round(x / scale), lowest, highest)``, with LSQ's gradients for x and scale.

    Args:
        x: floating point, any shape.
        scale: positive, broadcasts with x; a number gets no gradient.
        lowest, highest: the codes at the ends.
    """
    rounded: Tensor = _Round.apply(x, scale, lowest, highest)
    return rounded


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | float, lowest: int, highest: int) -> Tensor:  # type: ignore[override]
        position = x / scale
        clamped = position.clamp(lowest, highest)
        inside, codes = clamped == position, clamped.round_()
        ctx.learned = isinstance(scale, Tensor) and scale.requires_grad
        ctx.shape = scale.shape if isinstance(scale, Tensor) else None
        # what LSQ's gradient of the scale multiplies: the rounding error inside, the end code outside
        ctx.save_for_backward(inside, codes - position.mul_(inside) if ctx.learned else None)
        return codes * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inside, error = ctx.saved_tensors
        to_scale = (grad * error).sum_to_size(ctx.shape) if ctx.learned else None
        return grad * inside, to_scale, None, None


class ReLUCodes(nn.Module):
    """ReLU, then 2^bits codes from 0 on of one learned scale; 32 bits leave floats as they are.

    The scale is learned in units of its start, where the codes reach to 6 standard deviations of what a batch
    norm gives: an optimizer such as Adam moves it by a share of itself.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.highest = bits, 2**bits - 1
        self.size = None if bits == 32 else nn.Parameter(torch.ones(1))

    @property
    def scale(self) -> Tensor:
        """Of one code, [1]."""
        assert self.size is not None
        return self.size.abs().clamp_min(1e-3) * (6 / self.highest)

    def forward(self, x: Tensor) -> Tensor:
        if self.size is None:
            return x.relu()
        x, scale = x.float(), self.scale  # bfloat16 would round the codes once more
        # the gradient divided by sqrt(values a sample * highest code), as in LSQ
        ratio = 1 / math.sqrt(x[0].numel() * self.highest)
        return round_to_codes(x, scale.detach() + (scale - scale.detach()) * ratio, 0, self.highest)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
