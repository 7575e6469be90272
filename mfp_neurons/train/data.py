"""Data sets as tensors in memory, and the rule that turns a batch of them into a sequence over time."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets import bits, catalog
from mfp_neurons.train.datasets.source import Source, shuffled


@dataclass(frozen=True)
class Split:
    """Samples and labels.

    Attributes:
        samples: [n, C, H, W], or [n, T, C, H, W] when they are frames, of any real dtype; binary frames may
            be packed to uint8 [n, T, bytes].
        labels: int64 [n].
    """

    samples: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        return Split(self.samples.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """Three splits and how to read them."""

    train: Split
    validation: Split
    test: Split
    classes: int
    reading: str
    time_steps: int
    scale: float  # samples are divided by it; whole numbers (levels, counts) above it count as it
    packed: tuple[int, ...] = ()  # shape [C, H, W] of a frame whose pixels are bits

    def sequence(self, samples: Tensor) -> Tensor:
        """A batch of samples as float32: rows [T, N, C*W]; repeated images or frames [T, N, C, H, W]."""
        if self.packed:
            return bits.unpack(samples.transpose(0, 1), self.packed)
        x = (samples / self.scale).to(torch.float32)
        if not samples.is_floating_point():  # a recording may hold more events than any in training
            x = x.clamp(max=1)
        if self.reading == "rows":
            return x.permute(2, 0, 1, 3).flatten(2).contiguous()
        if self.reading == "frames":
            return x.transpose(0, 1).contiguous()
        return x.unsqueeze(0).expand(self.time_steps, *x.shape)

    @property
    def steps(self) -> int:
        """T, the length of a sequence."""
        if self.reading == "repeat":
            return self.time_steps
        return self.train.samples.shape[2 if self.reading == "rows" else 1]

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one step of one sample."""
        return tuple(self.sequence(self.train.samples[:1]).shape[2:])

    def to(self, device: torch.device) -> "Data":
        train, validation, test = (s.to(device) for s in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


def load(config: DataConfig) -> Data:
    """Reads a data set into memory and holds out the validation split.

    Raises:
        ConfigError: the name is unknown, or the files are not where they were looked for.
        MissingDependency: the data set needs a package that is not installed.
    """
    kind = catalog.find(config.name)
    full, test = kind.sources(config)
    kept, held_out = _hold_out(len(full), config)
    data = Data(
        train=_take(full, kept),
        validation=_take(full, held_out),
        test=_take(test, _tested(len(test), config.test_limit)),
        classes=int(torch.cat([full.labels, test.labels]).max()) + 1,
        reading=config.reading or kind.reading,
        time_steps=config.time_steps,
        scale=full.scale,
        packed=full.packed,
    )
    _check_reading(data, config)
    return data


def _take(source: Source, indices: Tensor) -> Split:
    return Split(source.read(indices), source.labels[indices])


def _hold_out(samples: int, config: DataConfig) -> tuple[Tensor, Tensor]:
    """Indices for training and for validation."""
    order = shuffled(samples)
    count = config.validation or max(1, samples // 10)
    if count >= samples:
        raise ConfigError(f"data.validation = {count}: the training split has {samples} samples, give fewer")
    held_out, kept = order[:count], order[count:]
    return kept[: config.limit or samples], held_out


def _tested(samples: int, limit: int) -> Tensor:
    """All test samples, or a fixed choice of ``limit`` of them, in their own order."""
    return shuffled(samples)[: limit or samples].sort().values


def _check_reading(data: Data, config: DataConfig) -> None:
    shape = tuple(data.train.samples.shape[1:])
    framed = bool(data.packed) or len(shape) == 4
    if (data.reading == "frames") != framed:
        raise ConfigError(
            f"data.reading = {data.reading!r}: samples of {config.name!r} "
            + (f"are packed frames of shape {data.packed}" if data.packed else f"have shape {shape}")
            + "; frames need [T, C, H, W], rows and repeat need [C, H, W]"
        )
