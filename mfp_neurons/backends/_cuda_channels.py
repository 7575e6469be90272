"""Moments of channels, and an affine map of each added, on the CUDA kernels (kernels/cuda/channels.cu)."""

from math import ceil

import torch
from torch import Tensor

from ..kernels import device as cuda
from ..kernels.device import Field, Kernel, Launch
from ._call import accumulate_dtype
from ._cuda_call import cpp
from ._cuda_launch import BLOCKS, THREADS, TYPES, Sums, groups, looped, per_channel, strided
from ._rows import Rows


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel (dim 2) over all other dims: [C], wide."""
    rows, wide = Rows(x, x.shape[2]), accumulate_dtype(x.dtype)
    channels = x.shape[2]
    mean, variance = (torch.empty(channels, dtype=wide, device=x.device) for _ in range(2))
    if x.numel() == 0:
        return mean.fill_(torch.nan), variance.fill_(torch.nan)
    seen = rows.see(x)
    of = groups(rows, 16 // x.dtype.itemsize, (seen,))
    tiles = ceil(of.total / THREADS)
    blocks = looped(tiles, THREADS, of)
    span = _span(rows.steps, blocks)
    spans = ceil(rows.steps / span)
    sums = Sums(x, 3, spans, blocks, THREADS, of)
    fields: list[Field] = [
        *of.fields, rows.steps, tiles, span, *strided(seen), *sums.fields, channels, of.unit,
        x.numel() // channels, mean, variance,
    ]  # fmt: skip
    form = TYPES[x.dtype]
    first = Kernel("channels.cu", f"mfp::moments_of_blocks<{form}, {of.width}, {cpp(of.along)}>")
    second = Kernel("channels.cu", f"mfp::moments_of_channels<{TYPES[wide]}>")
    cuda.launch(x.device, Launch(first, (blocks, spans, 1), (THREADS, 1, 1), fields))
    cuda.launch(x.device, Launch(second, (channels, 1, 1), (THREADS, 1, 1), fields))
    return mean, variance


def add_affine_(gx: Tensor, x: Tensor, factor: Tensor, offset: Tensor) -> None:
    """gx += factor[c] * x + offset[c], in place; gx and x [T, N, C, *] of any strides, the others [C]."""
    if gx.numel() == 0:
        return
    rows, wide = Rows(gx, gx.shape[2]), accumulate_dtype(gx.dtype)
    seen, seen_x = rows.see(gx), rows.see(x)
    of = groups(rows, 16 // gx.dtype.itemsize, (seen, seen_x))
    blocks = ceil(of.total / THREADS)
    span = _span(rows.steps, blocks)
    fields: list[Field] = [
        *of.fields, rows.steps, span, *strided(seen_x), *strided(seen), *per_channel(factor, wide),
        *per_channel(offset, wide),
    ]  # fmt: skip
    kernel = Kernel("channels.cu", f"mfp::add_affine<{TYPES[gx.dtype]}, {of.width}, {cpp(of.along)}>")
    cuda.launch(gx.device, Launch(kernel, (blocks, ceil(rows.steps / span), 1), (THREADS, 1, 1), fields))
    rows.finish(seen, gx)


def _span(steps: int, blocks: int) -> int:
    """Steps a block, such that time is shared out where neurons are too few to fill the GPU."""
    spans = min(steps, ceil(BLOCKS / blocks), 65535)
    return ceil(steps / spans)
