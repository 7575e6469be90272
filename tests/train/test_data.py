"""Data sets: found where the user has them, split once and for all, and turned into sequences."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.data import Data, Split, load
from mfp_neurons.train.datasets import fashion_mnist, frameworks

from .conftest import write_fashion_mnist


@pytest.fixture
def no_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no such place")


@pytest.mark.usefixtures("no_debian")
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


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path / "debian", zipped=True)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    assert len(load(DataConfig(name="fashion-mnist", root=str(tmp_path / "empty"))).test) == 30


@pytest.mark.usefixtures("no_debian")
def test_missing_files_are_an_error_that_says_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Fashion-MNIST there.*FashionMNIST/raw.*dataset-fashion-mnist"):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path)))


@pytest.mark.usefixtures("no_debian")
@pytest.mark.parametrize("damage", [b"", b"\0\0\x0d\x03", b"\x1f\x8b broken"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    write_fashion_mnist(tmp_path / "root", zipped=damage.startswith(b"\x1f"))
    path = next((tmp_path / "root").glob("train-images*"))
    path.write_bytes(damage)
    with pytest.raises(ConfigError, match=path.name):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path / "root")))


@pytest.mark.usefixtures("no_debian")
def test_a_cut_file_is_named(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "root", zipped=False)
    path = tmp_path / "root" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ConfigError, match=r"train-images-idx3-ubyte: not a whole IDX file"):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path / "root")))


def test_digits_are_scikit_learns_each_once_and_every_class_in_every_split() -> None:
    data = load(DataConfig(name="digits"))
    splits = (data.train, data.validation, data.test)
    assert sum(map(len, splits)) == 1797
    assert all(set(s.labels.tolist()) == set(range(10)) for s in splits)
    assert torch.equal(data.test.labels.bincount(), torch.tensor([36, 37, 36, 37, 37, 37, 37, 36, 35, 36]))


def test_the_validation_split_is_the_same_every_time_and_apart_from_training() -> None:
    first, again = (load(DataConfig(name="digits", validation=100, limit=n)) for n in (0, 50))
    assert torch.equal(first.validation.samples, again.validation.samples)
    assert torch.equal(first.train.samples[:50], again.train.samples)
    assert len(again.train) == 50


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.validation = 5000: the training split has 1433 samples"):
        load(DataConfig(name="digits", validation=5000))


def make(samples: torch.Tensor, reading: str, time_steps: int = 3) -> Data:
    split = Split(samples, torch.zeros(len(samples), dtype=torch.int64))
    return Data(split, split, split, 10, reading, time_steps, scale=2.0)


def test_rows_are_steps_and_channels_lie_side_by_side() -> None:
    samples = torch.randint(0, 256, (5, 2, 4, 6), dtype=torch.uint8)  # n, C, H, W
    data = make(samples, "rows")
    sequence = data.sequence(samples)
    assert sequence.shape == (4, 5, 12)
    assert (data.steps, data.features) == (4, (12,))
    for t in range(4):
        assert torch.equal(sequence[t, :, 6:], samples[:, 1, t].float() / 2)


def test_a_repeated_image_is_the_same_at_every_step() -> None:
    samples = torch.rand(5, 1, 4, 4)
    data = make(samples, "repeat")
    assert torch.equal(data.sequence(samples), torch.stack([samples / 2] * 3))
    assert (data.steps, data.features) == (3, (1, 4, 4))


def test_frames_bring_their_own_time() -> None:
    samples = torch.rand(5, 7, 2, 4, 4)
    data = make(samples, "frames")
    assert torch.equal(data.sequence(samples), samples.transpose(0, 1) / 2)
    assert (data.steps, data.features) == (7, (2, 4, 4))


def test_reading_samples_in_place_of_a_copy_never_changes_them() -> None:
    samples = torch.rand(5, 1, 4, 4)  # float32 already: `to` makes no copy
    before = samples.clone()
    make(samples, "rows").sequence(samples)
    assert torch.equal(samples, before)


@pytest.mark.parametrize("name", ["mnist", "torchvision:", "torchvision:NoSuchSet", "nonsense:MNIST"])
def test_an_unknown_data_set_is_refused(name: str) -> None:
    if name.startswith("torchvision:N"):
        pytest.importorskip("torchvision")
    with pytest.raises(ConfigError, match=r"data\.name"):
        load(DataConfig(name=name))


def test_a_reading_that_does_not_fit_the_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.reading = 'frames'.*frames need \[T, C, H, W\]"):
        load(DataConfig(name="digits", reading="frames"))


def test_torchvisions_sets_are_read_when_they_are_there_and_never_downloaded(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    written = write_fashion_mnist(tmp_path / "MNIST" / "raw", zipped=False)
    config = DataConfig(name="torchvision:MNIST", root=str(tmp_path), validation=10)
    data = load(config)
    assert torch.equal(data.test.samples[:, 0], written["t10k-images-idx3-ubyte"])
    assert data.sequence(data.test.samples).shape == (4, 30, 1, 28, 28)
    with pytest.raises(ConfigError, match="not found"):
        load(dataclasses.replace(config, root=str(tmp_path / "empty")))


class Frames(torch.utils.data.Dataset[Any]):
    """Stands for a class of spikingjelly.datasets: NumPy frames, and their arguments."""

    def __init__(self, root: str, train: bool, data_type: str, split_by: str, frames_number: int) -> None:
        assert (data_type, split_by) == ("frame", "number")
        self.train, self.steps = train, frames_number

    def __len__(self) -> int:
        return 20 if self.train else 10

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index >= len(self):
            raise IndexError
        return torch.full((self.steps, 2, 3, 3), float(index)).numpy(), index % 4


def test_spikingjellys_sets_are_read_as_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type("module", (), {"Frames": Frames, "__name__": "spikingjelly.datasets"})
    monkeypatch.setattr(frameworks, "_spikingjelly_datasets", lambda member: module)
    config = DataConfig(name="spikingjelly:Frames", root=str(tmp_path), time_steps=5)
    with pytest.raises(ConfigError, match="events_np"):  # SpikingJelly would start to download
        load(config)
    (tmp_path / "events_np").mkdir()
    data = load(config)
    assert data.test.samples.dtype == torch.uint8
    assert data.sequence(data.test.samples).shape == (5, 10, 2, 3, 3)
    assert data.classes == 4
