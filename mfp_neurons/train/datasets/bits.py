"""Binary frames at one bit a pixel: bit i of byte j is pixel 8 j + i."""

import functools
import math

import torch
from torch import Tensor


def pack(frames: Tensor) -> Tensor:
    """Frames of 0 and 1, uint8 [*, C, H, W], as uint8 [*, ceil(C H W / 8)].

    >>> pack(torch.tensor([[[[1, 0, 0, 1, 0, 0, 0, 0, 1]]]], dtype=torch.uint8))
    tensor([[9, 1]], dtype=torch.uint8)
    """
    flat = frames.flatten(-3)
    flat = torch.nn.functional.pad(flat, (0, -flat.shape[-1] % 8)).unflatten(-1, (-1, 8))
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=frames.device)
    return (flat * weights).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The frames again, float32 [*, C, H, W], C-contiguous, from uint8 [*, bytes] and their ``shape``."""
    flat = torch.nn.functional.embedding(packed.int(), _table(packed.device)).flatten(-2)
    return flat[..., : math.prod(shape)].unflatten(-1, shape).contiguous()


@functools.lru_cache(maxsize=4)
def _table(device: torch.device) -> Tensor:
    """The eight pixels of every byte, float32 [256, 8]."""
    return (torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device) & 1).float()
