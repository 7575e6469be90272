"""Data sets as tensors in memory, and the rule that turns a batch of them into a sequence over time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets import frameworks
from mfp_neurons.train.datasets.images import digits, fashion_mnist, tiny_imagenet
from mfp_neurons.train.datasets.sequences import japanese_vowels, smartwatch, spoken_digits
from mfp_neurons.train.datasets.simulated import fashion_mnist_events
from mfp_neurons.train.datasets.source import Source, shuffled, unpack


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
            return unpack(samples.transpose(0, 1), self.packed)
        x = (samples / self.scale).to(torch.float32)
        if not samples.is_floating_point():  # a recording may hold more events than any in training
            x = x.clamp(max=1)
        if self.reading == "rows":
            return x.permute(2, 0, 1, 3).flatten(2).contiguous()
        if self.reading == "frames":
            return x.transpose(0, 1).contiguous()
        # a view with stride 0 over time: layers that see it compute the image once
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

    def integer_input(self, samples: Tensor) -> Tensor:
        """A batch as an integer network takes it: an image that is shown at every step comes once."""
        sequence = self.sequence(samples)
        return sequence[0] if self.reading == "repeat" else sequence

    def to(self, device: torch.device) -> "Data":
        train, validation, test = (s.to(device) for s in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


# --- which data sets there are: ``data.name``, and what it stands for --------------------------------------

Sources = Callable[[DataConfig], tuple[Source, Source]]


# how a data set is loaded (training and test split), and how its samples are read by habit
_NAMED: dict[str, tuple[Sources, str]] = {
    "digits": (digits, "rows"),
    "fashion-mnist": (fashion_mnist, "repeat"),
    "fashion-mnist-rows": (fashion_mnist, "rows"),
    "fashion-mnist-events": (fashion_mnist_events, "frames"),
    "tiny-imagenet": (tiny_imagenet, "repeat"),
    "spoken-digits": (spoken_digits, "rows"),
    "smartwatch": (smartwatch, "rows"),
    "japanese-vowels": (japanese_vowels, "rows"),
}
_FAMILIES = {  # FAMILY:CLASS
    "torchvision": (frameworks.torchvision, "repeat"),
    "spikingjelly": (frameworks.spikingjelly, "frames"),
    "tonic": (frameworks.tonic, "frames"),
}


def _sources_and_reading(name: str) -> tuple[Sources, str]:
    """What ``data.name`` stands for; ConfigError, which lists what is accepted, if nothing."""
    if name in _NAMED:
        return _NAMED[name]
    family, _, member = name.partition(":")
    if family in _FAMILIES and member:
        sources, reading = _FAMILIES[family]
        return partial(sources, member), reading
    accepted = [*_NAMED, *(f"{family}:CLASS" for family in _FAMILIES)]
    raise ConfigError(f"data.name = {name!r} is not accepted: give {', '.join(accepted)}")


def load(config: DataConfig) -> Data:
    """Reads a data set into memory and holds out the validation split.

    Raises:
        ConfigError: the name is unknown, or the files are not where they were looked for.
        MissingDependency: the data set needs a package that is not installed.
    """
    sources, reading = _sources_and_reading(config.name)
    # pictures on disk and simulated events are read below, where it is known which of them are used
    full, test = sources(config)
    kept, held_out = _hold_out(full, config)
    data = Data(
        train=_take(full, kept),
        validation=_take(full, held_out),
        test=_take(test, _tested(len(test), config.test_limit)),
        # labels of both splits, before any choice: a small ``limit`` must not make the network smaller
        classes=int(torch.cat([full.labels, test.labels]).max()) + 1,
        reading=config.reading or reading,
        time_steps=config.time_steps,
        scale=full.scale,
        packed=full.packed,
    )
    _check_reading(data, config)
    return data


def _take(source: Source, indices: Tensor) -> Split:
    return Split(source.read(indices), source.labels[indices])


def _hold_out(source: Source, config: DataConfig) -> tuple[Tensor, Tensor]:
    """Indices for training and for validation."""
    samples = len(source)
    order = shuffled(samples)  # held out first, so that a smaller ``limit`` leaves validation alone
    count = config.validation or max(1, samples // 10)
    if count >= samples:
        raise ConfigError(f"data.validation = {count}: the training split has {samples} samples, give fewer")
    if source.groups is None:
        held_out, kept = order[:count], order[count:]
    else:  # the groups of the first samples, as many as it takes to have so many
        names = source.groups.unique()
        names = names[shuffled(len(names))]
        sizes = torch.stack([(source.groups == name).sum() for name in names])
        groups = int((sizes.cumsum(0) < count).sum()) + 1
        if groups >= len(names):
            raise ConfigError(
                f"data.validation = {count}: of the {len(names)} groups of {config.name!r}, which are held "
                f"out whole, that takes {groups}: give fewer"
            )
        chosen = torch.isin(source.groups[order], names[:groups])
        held_out, kept = order[chosen], order[~chosen]
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
    # reading each pixel at its own place moves every image by its own offset, in one operation
    padded = torch.nn.functional.pad(images, (shift, shift, shift, shift))
    every = torch.arange(count, device=images.device)[:, None, None]
    return padded.movedim(1, -1)[every, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _moved(count: int, length: int, shift: int, like: Tensor) -> Tensor:
    """Where in an axis padded by ``shift`` each of its ``length`` places is read, [count, length]."""
    offsets = torch.randint(0, 2 * shift + 1, (count, 1), device=like.device)
    return offsets + torch.arange(length, device=like.device)
