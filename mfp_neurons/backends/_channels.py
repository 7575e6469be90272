"""What batch normalization needs of [T, N, C, *]: the moments of each channel, and an affine map added."""

import torch
from torch import Tensor

from ._blocks import Layout, Output

_BLOCK = 1 << 18  # elements a block


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel (dim 2) over all other dims: [C], float32 or wider.

    Two passes, the second over distances from the mean, so that a large mean costs no digits.
    """
    layout, limit = _layout(x)
    xs = layout.seen(x)
    channels, count = layout.shape[2], x.numel() // max(1, x.shape[2])
    wide = torch.promote_types(x.dtype, torch.float32)
    total = torch.zeros(channels, dtype=torch.float64, device=x.device)
    for block in layout.blocks(limit):
        total[block[2]] += xs[block].sum((0, 1, 3), dtype=wide)
    mean = total / count
    squares = torch.zeros_like(total)
    center = mean.to(wide).unsqueeze(-1)
    for block in layout.blocks(limit):
        squares[block[2]] += (xs[block] - center[block[2]]).square_().sum((0, 1, 3))
    # the center is the rounded mean: the distances' own mean is what rounding left over
    variance = squares / count - (mean - center.squeeze(-1)).square()
    return mean.to(wide), variance.clamp_(min=0).to(wide)


def add_channel_affine_(gx: Tensor, x: Tensor, factor: Tensor, offset: Tensor) -> None:
    """gx += factor[c] * x + offset[c], in place; gx, x [T, N, C, *] of any strides, factor, offset [C]."""
    layout, limit = _layout(gx)
    out, xs = Output(layout, gx), layout.seen(x)
    factor, offset = factor.unsqueeze(-1), offset.unsqueeze(-1)
    for block in layout.blocks(limit):
        part = torch.addcmul(offset[block[2]], xs[block].to(factor.dtype), factor[block[2]])
        out.seen[block].add_(part)
    out.done()


def _layout(x: Tensor) -> tuple[Layout, int]:
    """How x is seen by channels, and how many neurons make a block."""
    return Layout(x, per_channel=True), max(1, _BLOCK // max(1, len(x)))
