"""Still images: scikit-learn's digits, Fashion-MNIST and Tiny-ImageNet."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfp_neurons._checks import require
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets.source import Source, as_tensor, in_memory, resize

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist

Labeled = tuple[Tensor, Tensor]  # images uint8 [n, 28, 28], labels int64 [n]
ANNOTATIONS = "val_annotations.txt"  # a line: file name, class, and a box that is not used


def digits(config: DataConfig) -> tuple[Source, Source]:
    """Scikit-learn's 1,797 digits of 8 x 8; every fifth, class by class as they come, is for testing."""
    bunch = require("sklearn.datasets", "train").load_digits()
    images = torch.tensor(bunch.images, dtype=torch.uint8).unsqueeze(1)
    samples = resize(images, config.size, frames=False)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        test[(labels == digit).nonzero().flatten()[::5]] = True
    return in_memory(samples[~test], labels[~test]), in_memory(samples[test], labels[test])


def fashion_mnist(config: DataConfig) -> tuple[Source, Source]:
    """Fashion-MNIST's 70,000 images, [1, 28, 28] unless ``size`` says otherwise."""
    train, test = (
        in_memory(resize(images.unsqueeze(1), config.size, frames=False), labels)
        for images, labels in read_fashion_mnist(config)
    )
    return train, test


def read_fashion_mnist(config: DataConfig) -> tuple[Labeled, Labeled]:
    """Training and test images from IDX files, where torchvision or Debian put them.

    Raises:
        ConfigError: the files are not where they were looked for, or damaged.
    """
    folders = [Path(config.root) / "FashionMNIST" / "raw", Path(config.root), DEBIAN]
    for folder in folders:
        if _idx_path(folder, "train-images-idx3-ubyte"):
            return _read_split(folder, "train"), _read_split(folder, "t10k")
    if config.download:
        require("torchvision.datasets", "spikingjelly").FashionMNIST(config.root, download=True)
        return _read_split(folders[0], "train"), _read_split(folders[0], "t10k")
    raise ConfigError(
        f"data.root = {config.root!r}: no Fashion-MNIST there; looked for train-images-idx3-ubyte[.gz] in "
        + ", ".join(str(f) for f in folders)
        + ". Install Debian's dataset-fashion-mnist, or name in --data-root the folder of FashionMNIST/raw"
    )


def _read_split(folder: Path, prefix: str) -> Labeled:
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
        # two bytes of zero, the type (8: unsigned bytes), the number of dimensions, then their sizes
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


def tiny_imagenet(config: DataConfig) -> tuple[Source, Source]:
    """Tiny-ImageNet as its archive unpacks: 200 classes of 500 JPEGs, [3, 64, 64], and 10,000 to test on.

    Read from the folder ``root``/tiny-imagenet-200 or ``root`` itself when asked for. The labels of its test
    images were never published, so its validation images are the test split, as usual.

    Raises:
        ConfigError: the folder is not there or not whole.
        MissingDependency: torchvision is not installed.
    """
    folder = _tiny_imagenet_folder(config)
    datasets = require("torchvision.datasets", "spikingjelly")  # torchvision comes with it
    try:
        train = datasets.ImageFolder(folder / "train")
    except FileNotFoundError as error:
        raise ConfigError(f"data.root = {config.root!r}: {error}") from error
    return (
        _image_files(list(train.samples), train.loader, config),
        _image_files(_validation_images(folder / "val", train.class_to_idx), train.loader, config),
    )


def _tiny_imagenet_folder(config: DataConfig) -> Path:
    folders = [Path(config.root) / "tiny-imagenet-200", Path(config.root)]
    for folder in folders:
        if (folder / "train").is_dir() and (folder / "val" / ANNOTATIONS).is_file():
            return folder
    raise ConfigError(
        f"data.root = {config.root!r}: no Tiny-ImageNet there; looked for train/ and val/{ANNOTATIONS} in "
        + ", ".join(str(f) for f in folders)
        + ". Unpack tiny-imagenet-200.zip there"
    )


def _validation_images(folder: Path, classes: dict[str, int]) -> list[tuple[str, int]]:
    """Paths and labels of the validation images."""
    images = []
    for number, line in enumerate((folder / ANNOTATIONS).read_text().splitlines(), 1):
        name, wordnet, *_ = [*line.split("\t"), ""]
        if wordnet not in classes:
            raise ConfigError(f"{folder / ANNOTATIONS}, line {number}: {wordnet!r} is no class of train/")
        images.append((str(folder / "images" / name), classes[wordnet]))
    if not images:
        raise ConfigError(f"{folder / ANNOTATIONS}: empty")
    return images


def _image_files(
    samples: list[tuple[str, int]], open_image: Callable[[str], Any], config: DataConfig
) -> Source:
    def read(indices: Tensor) -> Tensor:
        try:
            images = [as_tensor(open_image(samples[i][0])) for i in indices.tolist()]
        except OSError as error:  # not there, or no whole picture
            raise ConfigError(f"data.root = {config.root!r}: {error}") from error
        return torch.stack([resize(image, config.size, frames=False) for image in images])

    return Source(torch.tensor([label for _, label in samples]), read, 255.0)
