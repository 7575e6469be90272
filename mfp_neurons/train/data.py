"""Data sets as tensors in memory, and the rule that turns a batch of them into a sequence over time."""

import gzip
import pkgutil
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfp_neurons._checks import require
from mfp_neurons.train.config import ConfigError, DataConfig

FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
READING = {"digits": "rows", "fashion-mnist": "repeat", "fashion-mnist-rows": "rows"}
SPLIT_SEED = 20250300  # the validation split never changes with the seed of a run


@dataclass(frozen=True)
class Split:
    """Samples [n, C, H, W] (or [n, T, C, H, W] when they are frames), of any real dtype, and labels [n]."""

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
    scale: float  # samples are divided by it

    def sequence(self, samples: Tensor) -> Tensor:
        """A batch of samples as float32: rows [T, N, C*W]; repeated images or frames [T, N, C, H, W]."""
        x = (samples / self.scale).to(torch.float32)
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
    family, _, member = config.name.partition(":")
    if config.name == "digits":
        full, test = _digits()
    elif config.name in ("fashion-mnist", "fashion-mnist-rows"):
        full, test = _fashion_mnist(config)
    elif family == "torchvision" and member:
        full, test = _torchvision(member, config)
    elif family == "spikingjelly" and member:
        full, test = _spikingjelly(member, config)
    else:
        raise ConfigError(
            f"data.name = {config.name!r} is not accepted: give digits, fashion-mnist, fashion-mnist-rows, "
            "torchvision:CLASS or spikingjelly:CLASS"
        )
    reading = (
        config.reading or READING.get(config.name) or ("frames" if family == "spikingjelly" else "repeat")
    )
    _check_reading(reading, full.samples, config)
    train, validation = _hold_out(full, config)
    classes = int(torch.cat([full.labels, test.labels]).max()) + 1
    scale = float(full.samples.max()) or 1.0
    return Data(train, validation, test, classes, reading, config.time_steps, scale)


def _check_reading(reading: str, samples: Tensor, config: DataConfig) -> None:
    if (reading == "frames") != (samples.dim() == 5):
        shape = tuple(samples.shape[1:])
        raise ConfigError(
            f"data.reading = {reading!r}: samples of {config.name!r} have shape {shape}; frames need "
            "[T, C, H, W], rows and repeat need [C, H, W]"
        )


def _hold_out(full: Split, config: DataConfig) -> tuple[Split, Split]:
    order = torch.randperm(len(full), generator=torch.Generator().manual_seed(SPLIT_SEED))
    count = config.validation or max(1, len(full) // 10)
    if count >= len(full):
        raise ConfigError(
            f"data.validation = {count}: the training split has {len(full)} samples, give fewer"
        )
    held, kept = order[:count], order[count:]
    if config.limit:
        kept = kept[: config.limit]
    return Split(full.samples[kept], full.labels[kept]), Split(full.samples[held], full.labels[held])


def _digits() -> tuple[Split, Split]:
    """Scikit-learn's 1,797 digits of 8 x 8; every fifth, class by class as they come, is for testing."""
    bunch = require("sklearn.datasets", "train").load_digits()
    samples = torch.tensor(bunch.images, dtype=torch.uint8).unsqueeze(1)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        test[(labels == digit).nonzero().flatten()[::5]] = True
    return Split(samples[~test], labels[~test]), Split(samples[test], labels[test])


def _fashion_mnist(config: DataConfig) -> tuple[Split, Split]:
    folders = [Path(config.root) / "FashionMNIST" / "raw", Path(config.root), FASHION_DEBIAN]
    for folder in folders:
        if _idx_path(folder, "train-images-idx3-ubyte"):
            return _idx_split(folder, "train"), _idx_split(folder, "t10k")
    if config.download:
        require("torchvision.datasets", "spikingjelly").FashionMNIST(config.root, download=True)
        return _idx_split(folders[0], "train"), _idx_split(folders[0], "t10k")
    raise ConfigError(
        f"data.root = {config.root!r}: no Fashion-MNIST there; looked for train-images-idx3-ubyte[.gz] in "
        + ", ".join(str(f) for f in folders)
        + ". Install Debian's dataset-fashion-mnist, or name in --data-root the folder of FashionMNIST/raw"
    )


def _idx_path(folder: Path, stem: str) -> Path | None:
    return next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)


def _idx_split(folder: Path, prefix: str) -> Split:
    samples = read_idx(folder, f"{prefix}-images-idx3-ubyte").unsqueeze(1)
    labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte").to(torch.int64)
    if len(samples) != len(labels):
        raise ConfigError(f"{folder}: {len(samples)} images but {len(labels)} labels in the {prefix} files")
    return Split(samples, labels)


def read_idx(folder: Path, stem: str) -> Tensor:
    """One IDX file of unsigned bytes, gzipped or not, as a uint8 tensor of the shape in its header."""
    path = _idx_path(folder, stem)
    if path is None:
        raise ConfigError(f"{folder / stem}[.gz]: no such file")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dims = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{dims}I", raw[4 : 4 + 4 * dims])
        body = torch.frombuffer(bytearray(raw[4 + 4 * dims :]), dtype=torch.uint8)
        if (zero, kind) != (0, 8):
            raise ValueError(f"starts with {raw[:4].hex()}, not the mark of unsigned bytes")
        return body.reshape(shape)
    except (ValueError, RuntimeError, struct.error, EOFError, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}: not a whole IDX file ({error})") from None


def _torchvision(member: str, config: DataConfig) -> tuple[Split, Split]:
    cls = _member(require("torchvision.datasets", "spikingjelly"), member)  # torchvision comes with it
    return _both(cls, config, {"download": config.download})


def _spikingjelly(member: str, config: DataConfig) -> tuple[Split, Split]:
    """Frames of a neuromorphic data set; SpikingJelly keeps the events it starts from in events_np."""
    events = Path(config.root) / "events_np"
    if not events.is_dir() and not config.download:
        raise ConfigError(
            f"data.root = {config.root!r}: no {events} there, which SpikingJelly makes; "
            "data.download = true lets it download and convert what it can"
        )
    cls = _member(_spikingjelly_datasets(member), member)
    frames = {"data_type": "frame", "split_by": "number", "frames_number": config.time_steps}
    return _both(cls, config, frames)


def _spikingjelly_datasets(member: str) -> Any:
    """The module that has the class: the package itself, or (0.0.0.0.14) one of those in it."""
    try:
        package = require("spikingjelly.datasets", "spikingjelly")
        names = [f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__)]
        if hasattr(package, member):
            return package
        modules = (require(name, "spikingjelly") for name in names)
        return next((m for m in modules if hasattr(m, member)), package)
    except RuntimeError as error:  # torchaudio, which it imports, refuses some pairs of versions
        raise ConfigError(f"spikingjelly.datasets cannot be imported here: {error}") from error


def _member(module: Any, name: str) -> Any:
    if not isinstance(getattr(module, name, None), type):
        raise ConfigError(f"data.name: {module.__name__} has no data set {name!r}")
    return getattr(module, name)


def _both(cls: Any, config: DataConfig, options: dict[str, Any]) -> tuple[Split, Split]:
    """Training and test split of a class that takes root, train and options."""
    try:
        train, test = (cls(config.root, **{**options, "train": t, **config.options}) for t in (True, False))
    except (RuntimeError, TypeError, OSError, ValueError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"data.name = {config.name!r}, data.root = {config.root!r}: {error}") from error
    return _gather(train), _gather(test)


def _gather(dataset: Any) -> Split:
    """Every sample of an indexable data set, stacked; whole numbers up to 255 are kept as bytes."""
    samples, labels = [], []
    for index in range(len(dataset)):
        sample, label = dataset[index]
        samples.append(_as_tensor(sample))
        labels.append(int(label))
    return Split(torch.stack(samples), torch.tensor(labels))


def _as_tensor(sample: Any) -> Tensor:
    if isinstance(sample, Tensor):
        return sample
    numpy = require("numpy", "train")
    array = numpy.asarray(sample)  # a PIL image is [H, W] or [H, W, C]; frames are [T, C, H, W]
    if array.ndim == 4:
        whole = array.size == 0 or (
            array.min() >= 0 and array.max() <= 255 and (array == array.round()).all()
        )
        return torch.from_numpy(array.astype(numpy.uint8 if whole else numpy.float32))
    tensor = torch.from_numpy(array.copy())
    return tensor.unsqueeze(0) if tensor.dim() == 2 else tensor.permute(2, 0, 1)
