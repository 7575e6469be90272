"""Training images shown a little differently every time: moved, and mirrored."""

import torch
from torch import Tensor


def vary(images: Tensor, shift: int, flip: bool) -> Tensor:
    """Images [N, C, H, W], moved by up to ``shift`` pixels each way; half of them mirrored if ``flip``.

    What comes in from outside is 0. Draws from torch's random generator of the images' device.

    >>> images = torch.arange(1, 5).reshape(1, 1, 2, 2)
    >>> bool((vary(images, 0, False) == images).all())
    True
    """
    count, _, height, width = images.shape
    rows = _moved(count, height, shift, images)
    columns = _moved(count, width, shift, images)
    if flip:
        mirrored = torch.rand(count, 1, device=images.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (shift, shift, shift, shift))
    every = torch.arange(count, device=images.device)[:, None, None]
    return padded.movedim(1, -1)[every, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _moved(count: int, length: int, shift: int, like: Tensor) -> Tensor:
    """Where in an axis padded by ``shift`` each of its ``length`` places is read, [count, length]."""
    offsets = torch.randint(0, 2 * shift + 1, (count, 1), device=like.device)
    return offsets + torch.arange(length, device=like.device)
