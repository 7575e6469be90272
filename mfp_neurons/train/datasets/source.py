"""Samples of a data set before any are chosen, and how they become tensors of one size."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, embedding, pad

from mfp_neurons._checks import require

SPLIT_SEED = 20250300  # which samples are held out never changes with the seed of a run


@dataclass(frozen=True)
class Source:
    """One split of a data set, not chosen from yet.

    Attributes:
        labels: int64 [n].
        read: the samples of given indices, [k, C, H, W], or [k, T, C, H, W] when they are frames.
        scale: the largest value that a sample holds.
        packed: if ``read`` gives bits (:func:`pack`), the shape [C, H, W] of a frame in them.
        groups: int64 [n], which samples belong together (of one person, say): a validation split holds out
            whole groups. None: every sample stands for itself.
    """

    labels: Tensor
    read: Callable[[Tensor], Tensor]
    scale: float
    packed: tuple[int, ...] = ()
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


def in_memory(samples: Tensor, labels: Tensor) -> Source:
    """The source of samples that are in memory already."""
    scale = float(samples.max()) if samples.numel() else 0.0
    return Source(labels, samples.__getitem__, scale or 1.0)


def shuffled(count: int) -> Tensor:
    """The order in which samples are held out and used: a function of their number alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))


def resize(samples: Tensor, size: int, *, frames: bool) -> Tensor:
    """Samples [*, C, H, W] made ``size`` high and wide; 0 leaves them.

    What is smaller gets a border of zeros. What is larger is pooled: an image to means (bytes stay bytes),
    frames to the largest value in each window, so that counts stay counts and bits stay bits.
    """
    if size == 0:
        return samples
    high, wide = (min(side, size) for side in samples.shape[-2:])
    if (high, wide) != tuple(samples.shape[-2:]):
        pool = adaptive_max_pool2d if frames else adaptive_avg_pool2d
        planes = samples.flatten(0, -3).unsqueeze(1)
        pooled = torch.cat([_pooled(pool, part, high, wide) for part in planes.split(4096)])
        samples = pooled.reshape(*samples.shape[:-2], high, wide)
    top, left = (size - high) // 2, (size - wide) // 2
    return pad(samples, (left, size - wide - left, top, size - high - top))


def _pooled(pool: Callable[..., Tensor], planes: Tensor, high: int, wide: int) -> Tensor:
    pooled = pool(planes.float(), (high, wide))
    return (pooled if planes.is_floating_point() else pooled.round()).to(planes.dtype)


def gather(dataset: Any, size: int) -> Source:
    """Every sample of an indexable data set, made ``size`` high and wide and stacked.

    Tonic lists files as the file system does; here they come by name, so that splits are the same
    everywhere.
    """
    files = getattr(dataset, "data", None)
    order = list(range(len(dataset)))
    if isinstance(files, list) and len(files) == len(order) and all(isinstance(f, str) for f in files):
        order.sort(key=files.__getitem__)
    samples, labels = [], []
    for index in order:
        sample, label = dataset[index]
        tensor = as_tensor(sample)
        samples.append(resize(tensor, size, frames=tensor.dim() == 4))
        labels.append(int(label))
    if not samples:
        raise ValueError("it has no samples")
    return in_memory(torch.stack(samples), torch.tensor(labels))


def as_tensor(sample: Any) -> Tensor:
    """A PIL image [H, W] or [H, W, C] as [C, H, W]; frames [T, C, H, W] as they are, in bytes if they fit."""
    if isinstance(sample, Tensor):
        return sample
    numpy = require("numpy", "train")
    array = numpy.asarray(sample)
    if array.ndim == 4:
        fits_bytes = array.size == 0 or (
            array.min() >= 0 and array.max() <= 255 and (array == array.round()).all()
        )
        return torch.from_numpy(array.astype(numpy.uint8 if fits_bytes else numpy.float32))
    tensor = torch.from_numpy(array.copy())
    return tensor.unsqueeze(0) if tensor.dim() == 2 else tensor.permute(2, 0, 1)


# --- binary frames at one bit a pixel: bit i of byte j is pixel 8 j + i ------------------------------------


def pack(frames: Tensor) -> Tensor:
    """Frames of 0 and 1, uint8 [*, C, H, W], as uint8 [*, ceil(C H W / 8)].

    >>> pack(torch.tensor([[[[1, 0, 0, 1, 0, 0, 0, 0, 1]]]], dtype=torch.uint8))
    tensor([[9, 1]], dtype=torch.uint8)
    """
    flat = frames.flatten(-3)
    flat = pad(flat, (0, -flat.shape[-1] % 8)).unflatten(-1, (-1, 8))
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=frames.device)
    return (flat * weights).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The frames again, float32 [*, C, H, W], C-contiguous, from uint8 [*, bytes] and their ``shape``."""
    flat = embedding(packed.int(), _table(packed.device)).flatten(-2)
    return flat[..., : math.prod(shape)].unflatten(-1, shape).contiguous()


@functools.lru_cache(maxsize=4)
def _table(device: torch.device) -> Tensor:
    """The eight pixels of every byte, float32 [256, 8]."""
    return (torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device) & 1).float()
