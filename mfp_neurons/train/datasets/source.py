"""What every loader gives: labels at once, samples when they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, pad

SPLIT_SEED = 20250300  # which samples are held out never changes with the seed of a run


@dataclass(frozen=True)
class Source:
    """One split of a data set, not chosen from yet.

    Attributes:
        labels: int64 [n].
        read: the samples of given indices, [k, C, H, W], or [k, T, C, H, W] when they are frames.
        scale: the largest value that a sample holds.
        packed: if ``read`` gives bits (:mod:`.bits`), the shape [C, H, W] of a frame in them.
    """

    labels: Tensor
    read: Callable[[Tensor], Tensor]
    scale: float
    packed: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def held(samples: Tensor, labels: Tensor) -> Source:
    """A source of samples that are in memory already."""
    scale = float(samples.max()) if samples.numel() else 0.0
    return Source(labels, samples.__getitem__, scale or 1.0)


def shuffled(count: int) -> Tensor:
    """The order in which samples are held out and used: a function of their number alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))


def fit(samples: Tensor, size: int, *, frames: bool) -> Tensor:
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
    made = pool(planes.float(), (high, wide))
    return (made if planes.is_floating_point() else made.round()).to(planes.dtype)
