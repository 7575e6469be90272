"""Tiny-ImageNet as its archive unpacks: 200 classes of 500 JPEGs for training, 10,000 for validation.

The labels of its test images were never published, so its validation images are the test split, as usual.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfp_neurons._checks import require
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets.arrays import as_tensor
from mfp_neurons.train.datasets.source import Source, fit

ANNOTATIONS = "val_annotations.txt"  # a line: file name, class, and a box that is not used


def tiny_imagenet(config: DataConfig) -> tuple[Source, Source]:
    """Images [3, 64, 64], read from the folder ``root``/tiny-imagenet-200 or ``root`` itself when asked for.

    Raises:
        ConfigError: the folder is not there or not whole.
        MissingDependency: torchvision is not installed.
    """
    folder = _folder(config)
    datasets = require("torchvision.datasets", "spikingjelly")  # torchvision comes with it
    try:
        train = datasets.ImageFolder(folder / "train")
    except FileNotFoundError as error:
        raise ConfigError(f"data.root = {config.root!r}: {error}") from error
    return (
        _source(list(train.samples), train.loader, config),
        _source(_validation(folder / "val", train.class_to_idx), train.loader, config),
    )


def _folder(config: DataConfig) -> Path:
    folders = [Path(config.root) / "tiny-imagenet-200", Path(config.root)]
    for folder in folders:
        if (folder / "train").is_dir() and (folder / "val" / ANNOTATIONS).is_file():
            return folder
    raise ConfigError(
        f"data.root = {config.root!r}: no Tiny-ImageNet there; looked for train/ and val/{ANNOTATIONS} in "
        + ", ".join(str(f) for f in folders)
        + ". Unpack tiny-imagenet-200.zip there"
    )


def _validation(folder: Path, classes: dict[str, int]) -> list[tuple[str, int]]:
    """Paths and labels of the validation images."""
    found = []
    for number, line in enumerate((folder / ANNOTATIONS).read_text().splitlines(), 1):
        name, wordnet, *_ = [*line.split("\t"), ""]
        if wordnet not in classes:
            raise ConfigError(f"{folder / ANNOTATIONS}, line {number}: {wordnet!r} is no class of train/")
        found.append((str(folder / "images" / name), classes[wordnet]))
    if not found:
        raise ConfigError(f"{folder / ANNOTATIONS}: empty")
    return found


def _source(samples: list[tuple[str, int]], open_image: Callable[[str], Any], config: DataConfig) -> Source:
    def read(indices: Tensor) -> Tensor:
        try:
            images = [as_tensor(open_image(samples[i][0])) for i in indices.tolist()]
        except OSError as error:  # not there, or no whole picture
            raise ConfigError(f"data.root = {config.root!r}: {error}") from error
        return torch.stack([fit(image, config.size, frames=False) for image in images])

    return Source(torch.tensor([label for _, label in samples]), read, 255.0)
