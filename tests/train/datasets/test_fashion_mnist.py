"""Fashion-MNIST's own files: found where the user has them, and refused when they are not whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.data import load
from mfp_neurons.train.datasets import images

from ..conftest import write_fashion_mnist


@pytest.fixture(autouse=True)
def debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "DEBIAN", tmp_path / "debian")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "."])
def test_fashion_mnist_is_read_where_torchvision_would_put_it(
    tmp_path: Path, zipped: bool, folder: str
) -> None:
    root = tmp_path / "root"
    written = write_fashion_mnist(root / folder, zipped=zipped)
    data = load(DataConfig(name="fashion-mnist-rows", root=str(root), validation=10))
    assert torch.equal(data.test.samples[:, 0], written["t10k-images-idx3-ubyte"])
    assert torch.equal(data.test.labels, written["t10k-labels-idx1-ubyte"].long())
    assert (len(data.train), len(data.validation), data.classes) == (50, 10, 10)


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "debian", zipped=True)
    assert len(load(DataConfig(name="fashion-mnist", root=str(tmp_path / "empty"))).test) == 30


def test_missing_files_are_an_error_that_says_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Fashion-MNIST there.*FashionMNIST/raw.*dataset-fashion-mnist"):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path)))


@pytest.mark.parametrize(
    ("zipped", "damage"),
    [
        (False, lambda raw: b""),
        (False, lambda raw: b"\0\0\x0d\x03"),
        (False, lambda raw: raw[:-5]),
        (True, lambda raw: b"\x1f\x8b broken"),
    ],
    ids=["empty", "other type", "cut", "broken gzip"],
)
def test_a_damaged_file_is_named(tmp_path: Path, zipped: bool, damage: Callable[[bytes], bytes]) -> None:
    write_fashion_mnist(tmp_path / "root", zipped=zipped)
    path = next((tmp_path / "root").glob("train-images*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=rf"{path.name}: not a whole IDX file"):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path / "root")))


def test_images_can_be_given_the_border_that_a_network_needs(tmp_path: Path) -> None:
    written = write_fashion_mnist(tmp_path / "root", zipped=False)
    data = load(DataConfig(name="fashion-mnist", root=str(tmp_path / "root"), size=32))
    assert data.features == (1, 32, 32)
    assert torch.equal(data.test.samples[:, 0, 2:-2, 2:-2], written["t10k-images-idx3-ubyte"])
