"""Fashion-MNIST from its own IDX files, wherever torchvision or Debian put them."""

import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor

from mfp_neurons._checks import require
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets.source import Source, fit, held

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist

Labeled = tuple[Tensor, Tensor]  # images uint8 [n, 28, 28], labels int64 [n]


def fashion_mnist(config: DataConfig) -> tuple[Source, Source]:
    """All 70,000 images, [1, 28, 28] unless ``size`` says otherwise."""
    return tuple(  # type: ignore[return-value]
        held(fit(images.unsqueeze(1), config.size, frames=False), labels) for images, labels in read(config)
    )


def read(config: DataConfig) -> tuple[Labeled, Labeled]:
    """Training and test images.

    Raises:
        ConfigError: the files are not where they were looked for, or damaged.
    """
    folders = [Path(config.root) / "FashionMNIST" / "raw", Path(config.root), DEBIAN]
    for folder in folders:
        if _idx_path(folder, "train-images-idx3-ubyte"):
            return _split(folder, "train"), _split(folder, "t10k")
    if config.download:
        require("torchvision.datasets", "spikingjelly").FashionMNIST(config.root, download=True)
        return _split(folders[0], "train"), _split(folders[0], "t10k")
    raise ConfigError(
        f"data.root = {config.root!r}: no Fashion-MNIST there; looked for train-images-idx3-ubyte[.gz] in "
        + ", ".join(str(f) for f in folders)
        + ". Install Debian's dataset-fashion-mnist, or name in --data-root the folder of FashionMNIST/raw"
    )


def _split(folder: Path, prefix: str) -> Labeled:
    images = read_idx(folder, f"{prefix}-images-idx3-ubyte")
    labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte").to(torch.int64)
    if len(images) != len(labels):
        raise ConfigError(f"{folder}: {len(images)} images but {len(labels)} labels in the {prefix} files")
    return images, labels


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


def _idx_path(folder: Path, stem: str) -> Path | None:
    return next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)
