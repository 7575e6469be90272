"""Fashion-MNIST seen by the simulated camera: simulated when needed, once, by however many processes."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mfp_neurons.train import data, events
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets import simulated

from ..conftest import write_fashion_mnist


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(simulated, "folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Tensor]:
    return write_fashion_mnist(tmp_path / "root", zipped=False)


@pytest.fixture
def config(tmp_path: Path, written: dict[str, Tensor], cache: Path) -> DataConfig:
    return DataConfig("fashion-mnist-events", root=str(tmp_path / "root"), time_steps=5, validation=10)


@pytest.fixture
def simulations(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many images were simulated so far."""
    seen: list[int] = []
    frames = events.frames

    def counting(images: Tensor, time_steps: int, camera: events.Camera | None = None) -> Tensor:
        seen.append(len(images))
        return frames(images, time_steps, camera)

    monkeypatch.setattr(events, "frames", counting)
    return lambda: sum(seen)


def test_a_sample_is_the_frames_of_its_image_and_keeps_its_label(
    config: DataConfig, written: dict[str, Tensor]
) -> None:
    loaded = data.load(config)
    still = data.load(dataclasses.replace(config, name="fashion-mnist"))
    for split, images in ((loaded.train, still.train), (loaded.test, still.test)):
        sequence = loaded.sequence(split.samples)
        assert torch.equal(sequence.transpose(0, 1), events.frames(images.samples[:, 0], 5).float())
        assert torch.equal(split.labels, images.labels)
        assert sequence.is_contiguous()
    assert (loaded.steps, loaded.features, loaded.scale) == (5, (2, 34, 34), 1.0)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (50, 10, 30)
    with pytest.raises(ConfigError, match=r"data.reading = 'rows'.*packed frames of shape \(2, 34, 34\)"):
        data.load(dataclasses.replace(config, reading="rows"))


def test_size_pools_the_frames_before_they_are_kept(config: DataConfig) -> None:
    loaded = data.load(dataclasses.replace(config, size=17))
    full = data.load(config)
    pooled = torch.nn.functional.max_pool2d(full.sequence(full.test.samples).flatten(0, 1), 2)
    assert loaded.features == (2, 17, 17)
    assert torch.equal(loaded.sequence(loaded.test.samples).flatten(0, 1), pooled)


def test_a_limit_simulates_little_more_than_what_is_used(
    config: DataConfig, simulations: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "CHUNK", 4)
    loaded = data.load(dataclasses.replace(config, validation=3, limit=6, test_limit=5))
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (6, 3, 5)
    assert simulations() <= 3 + 6 + 5 + 3 + 3  # each split's last file is simulated whole


@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_how_images_lie_in_files_changes_no_sample(
    config: DataConfig, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = data.load(config).train.samples
    monkeypatch.setattr(simulated, "CHUNK", chunk)
    assert torch.equal(data.load(config).train.samples, expected)


def test_what_was_simulated_once_is_found_again(config: DataConfig, simulations: Callable[[], int]) -> None:
    first = data.load(config)
    done = simulations()
    again = data.load(config)
    assert done == 60 + 30
    assert simulations() == done
    assert torch.equal(first.train.samples, again.train.samples)
    data.load(dataclasses.replace(config, time_steps=6))
    assert simulations() == 2 * done
    data.load(config)  # neither took the other's place
    assert simulations() == 2 * done


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw[:-1] + b"\xaa"])
def test_a_damaged_file_is_made_anew(
    config: DataConfig, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    expected = data.load(config).test.samples
    for file in cache.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(data.load(config).test.samples, expected)
    assert torch.equal(data.load(config).test.samples, expected)


def test_a_cache_that_cannot_be_written_is_said_once_and_done_without(
    config: DataConfig, cache: Path, said: pytest.LogCaptureFixture
) -> None:
    cache.write_bytes(b"a file where the folder should be")
    for _ in range(2):
        assert len(data.load(config).train) == 50
    assert sum("cannot be written" in record.message for record in said.records) == 1


LOADING = """
import hashlib, sys
from mfp_neurons.train import data
from mfp_neurons.train.config import DataConfig
from mfp_neurons.train.datasets import simulated
simulated.CHUNK = 8
loaded = data.load(DataConfig("fashion-mnist-events", root=sys.argv[1], time_steps=4))
print(hashlib.sha256(loaded.train.samples.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_can_fill_the_cache_at_once(
    tmp_path: Path, written: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MFP_NEURONS_CACHE", str(tmp_path / "shared"))
    command = [sys.executable, "-c", LOADING, str(tmp_path / "root")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == printed[1]
    assert len(printed[0].strip()) == 64
    kept = list((tmp_path / "shared" / "simulated-events").iterdir())
    assert len(kept) == 8 + 4  # 60 and 30 images, 8 a file
    assert {file.suffix for file in kept} == {".bits"}
