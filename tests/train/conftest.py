"""Small data and small networks, so that training takes a moment."""

import gzip
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mfp_neurons.train.config import Config, load
from mfp_neurons.train.engine import Trainer


def idx_bytes(values: Tensor) -> bytes:
    """Unsigned bytes in the IDX format."""
    header = struct.pack(f">HBB{values.dim()}I", 0, 8, values.dim(), *values.shape)
    return header + bytes(values.to(torch.uint8).flatten().tolist())


def write_fashion_mnist(folder: Path, *, zipped: bool, count: int = 60) -> dict[str, Tensor]:
    """Random images under the names of Fashion-MNIST; returns what was written."""
    folder.mkdir(parents=True)
    written = {}
    for prefix, number in (("train", count), ("t10k", count // 2)):
        images = torch.randint(0, 256, (number, 28, 28), dtype=torch.uint8)
        images[0, 0, 0] = 255
        labels = torch.arange(number, dtype=torch.uint8) % 10
        for stem, values in (
            (f"{prefix}-images-idx3-ubyte", images),
            (f"{prefix}-labels-idx1-ubyte", labels),
        ):
            raw = idx_bytes(values)
            path = folder / (f"{stem}.gz" if zipped else stem)
            path.write_bytes(gzip.compress(raw) if zipped else raw)
            written[stem] = values
    return written


SMALL = {
    "network.hidden": [12, 10, 8],
    "training.epochs": 2,
    "training.batch_size": 32,
    "training.threads": 1,
    "training.device": "cpu",
    "data.limit": 150,
}


@pytest.fixture
def small() -> Config:
    """A memory-free network on a few digits."""
    return load("digits-mfp", SMALL)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that config's finished run, for tests that only read it."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    Trainer(load("digits-mfp", SMALL), folder, bars=False).run()
    return folder
