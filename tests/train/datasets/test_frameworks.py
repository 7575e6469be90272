"""What torchvision, SpikingJelly and Tonic read, from small files in the formats of the real ones."""

import dataclasses
import gc
import math
import pickle
import sys
import time
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.data import load

from ..conftest import write_fashion_mnist

T = 4


def test_torchvisions_mnist_is_read_when_it_is_there_and_never_downloaded(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    written = write_fashion_mnist(tmp_path / "MNIST" / "raw", zipped=False)
    config = DataConfig(name="torchvision:MNIST", root=str(tmp_path), validation=10)
    data = load(config)
    assert torch.equal(data.test.samples[:, 0], written["t10k-images-idx3-ubyte"])
    assert data.sequence(data.test.samples).shape == (4, 30, 1, 28, 28)
    with pytest.raises(ConfigError, match="not found"):
        load(dataclasses.replace(config, root=str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("name", "folder", "key", "train", "test"),
    [
        ("CIFAR10", "cifar-10-batches-py", "labels", "data_batch_1", "test_batch"),
        ("CIFAR100", "cifar-100-python", "fine_labels", "train", "test"),
    ],
)
def test_torchvisions_cifar_is_read_from_its_pickled_batches(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    folder: str,
    key: str,
    train: str,
    test: str,
) -> None:
    cls = getattr(pytest.importorskip("torchvision.datasets"), name)
    (tmp_path / folder).mkdir()
    planes = np.random.default_rng(0).integers(0, 256, (2, 20, 3, 32, 32), dtype=np.uint8)
    for file, images in ((train, planes[0]), (test, planes[1])):
        batch = {"data": images.reshape(20, -1), key: list(range(20))}
        (tmp_path / folder / file).write_bytes(pickle.dumps(batch))
    names = {"label_names": [], "fine_label_names": []}
    (tmp_path / folder / cls.meta["filename"]).write_bytes(pickle.dumps(names))
    # its checksums are those of the real files; None is not compared
    monkeypatch.setattr(cls, "train_list", [[train, None]])
    monkeypatch.setattr(cls, "test_list", [[test, None]])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": None})
    data = load(DataConfig(f"torchvision:{name}", root=str(tmp_path), validation=4))
    assert np.array_equal(data.test.samples.numpy(), planes[1])
    assert np.array_equal(data.train.samples.numpy(), planes[0][data.train.labels.numpy()])
    assert (data.features, data.scale) == ((3, 32, 32), float(planes[0].max()))


# ----------------------------------------------------------------------------------------------- events


def recording(seed: int, side: int, count: int = 40) -> dict[str, Any]:
    """Events of one sample, in the order of time."""
    random = np.random.default_rng(seed)
    return {
        "t": np.sort(random.integers(0, 300_000, count)),
        "x": random.integers(0, side, count),
        "y": random.integers(0, side, count),
        "p": random.integers(0, 2, count),
    }


def counted(events: dict[str, Any], side: int) -> Any:
    """Frames of equally many events each, counted one by one."""
    frames = np.zeros((T, 2, side, side), dtype=np.uint8)
    share = len(events["t"]) // T
    for index, (x, y, p) in enumerate(zip(events["x"], events["y"], events["p"], strict=True)):
        frames[min(index // share, T - 1), p, y, x] += 1
    return frames


@pytest.fixture
def spikingjelly() -> Iterator[None]:
    """SpikingJelly's data sets; its sound ones alone need torchaudio, which refuses some builds of torch."""
    pytest.importorskip("spikingjelly")
    before = set(sys.modules)
    stands_in = False
    try:
        import torchaudio  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        for module in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[module]
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        stands_in = True
    yield
    if stands_in:  # nobody else is to meet it
        for module in set(sys.modules) - before:
            if module.startswith(("torchaudio", "spikingjelly.datasets")):
                del sys.modules[module]


def write_npz(folder: Path, first: int, side: int, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        np.savez(folder / f"{number}.npz", **recording(first + number, side))


@pytest.mark.usefixtures("spikingjelly")
@pytest.mark.parametrize(("name", "side"), [("NMNIST", 34), ("DVS128Gesture", 128)])
def test_spikingjellys_sets_are_read_as_frames_from_events_np(tmp_path: Path, name: str, side: int) -> None:
    config = DataConfig(f"spikingjelly:{name}", root=str(tmp_path), time_steps=T, validation=1)
    with pytest.raises(ConfigError, match="events_np"):  # SpikingJelly would start to download
        load(config)
    for label in range(3):
        write_npz(tmp_path / "events_np" / "train" / str(label), 100 + 10 * label, side)
        write_npz(tmp_path / "events_np" / "test" / str(label), 500 + 10 * label, side)
    data = load(config)
    expected = [counted(recording(500 + 10 * label + n, side), side) for label in range(3) for n in range(3)]
    assert np.array_equal(data.test.samples.numpy(), np.stack(expected))
    assert data.test.samples.dtype == torch.uint8
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.sequence(data.test.samples).shape == (T, 9, 2, side, side)
    assert (len(data.train), len(data.validation), data.classes) == (8, 1, 3)
    smaller = load(dataclasses.replace(config, size=17))
    assert smaller.features == (2, 17, 17)


@pytest.mark.usefixtures("spikingjelly")
def test_a_set_without_a_split_tests_on_the_last_tenth_of_each_class(tmp_path: Path) -> None:
    counts = {"airplane": 10, "cat": 5, "truck": 21}
    for label, (name, count) in enumerate(counts.items()):
        write_npz(tmp_path / "events_np" / name, 100 * label, 128, count)
    config = DataConfig("spikingjelly:CIFAR10DVS", root=str(tmp_path), time_steps=T, validation=1, size=16)
    data = load(config)
    tested = [count - math.ceil(0.9 * count) for count in counts.values()]
    assert data.test.labels.bincount(minlength=3).tolist() == tested == [1, 0, 2]
    assert len(data.train) + len(data.validation) == sum(counts.values()) - sum(tested)


@pytest.fixture
def yielding_collector() -> Iterator[None]:
    """A garbage collector that runs often and lets other threads run, as one with finalizers does."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()

    def let_others_run(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    gc.callbacks.append(let_others_run)
    gc.set_threshold(20)
    sys.setswitchinterval(1e-6)
    yield
    gc.callbacks.remove(let_others_run)
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("spikingjelly", "yielding_collector")
def test_threads_that_convert_events_do_not_disturb_one_another(tmp_path: Path) -> None:
    """Before 3.11.8 Python's parser, which reads the headers of NumPy files, was not safe for threads."""
    for label in range(3):
        write_npz(tmp_path / "events_np" / str(label), 100 * label, 128, 20)
    configure = import_module("spikingjelly.configure")
    threads = configure.max_threads_number_for_datasets_preprocess
    data = load(
        DataConfig("spikingjelly:CIFAR10DVS", root=str(tmp_path), time_steps=T, validation=1, size=16)
    )
    assert len(data.train) + len(data.validation) + len(data.test) == 60
    assert configure.max_threads_number_for_datasets_preprocess == threads


def nmnist_bytes(events: dict[str, Any]) -> bytes:
    """N-MNIST's format: x, y, then the polarity above 23 bits of time."""
    columns = [
        events["x"],
        events["y"],
        events["p"] << 7 | events["t"] >> 16,
        events["t"] >> 8 & 255,
        events["t"] & 255,
    ]
    return bytes(np.stack(columns, 1).astype(np.uint8))


def test_tonics_nmnist_is_read_as_frames_and_never_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tonic = pytest.importorskip("tonic.datasets")
    config = DataConfig("tonic:NMNIST", root=str(tmp_path), time_steps=T, validation=1)
    with pytest.raises(ConfigError, match=r"has no train\.zip.*data\.download = true"):
        load(config)
    for archive, folder, first in (("train.zip", "Train", 0), ("test.zip", "Test", 50)):
        for number in range(6):
            path = tmp_path / "NMNIST" / folder / str(number % 3) / f"{number:05}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(nmnist_bytes(recording(first + number, 34)))
        (tmp_path / "NMNIST" / archive).touch()
    # it wants to see 10,000 files before it believes that the archive was unpacked
    monkeypatch.setattr(tonic.NMNIST, "_folder_contains_at_least_n_files_of_type", lambda *_: True)
    data = load(config)
    expected = [counted(recording(50 + number, 34), 34) for number in (0, 3, 1, 4, 2, 5)]
    assert np.array_equal(data.test.samples.numpy(), np.stack(expected))
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.features == (2, 34, 34)


def test_tonics_gestures_come_by_the_names_of_their_files(tmp_path: Path) -> None:
    pytest.importorskip("tonic.datasets")
    for archive in ("ibmGestureTrain", "ibmGestureTest"):
        for user in range(10):
            folder = tmp_path / "DVSGesture" / archive / f"user{user:02}_led"
            folder.mkdir(parents=True)
            for label in range(10):
                events = recording(10 * user + label, 128)
                columns = [events["x"], events["y"], events["p"], events["t"] // 1000]
                np.save(folder / f"{label}.npy", np.stack(columns, 1))
        (tmp_path / "DVSGesture" / f"{archive}.tar.gz").touch()
    config = DataConfig("tonic:DVSGesture", root=str(tmp_path), time_steps=T, validation=1, size=32)
    data = load(config)
    assert data.test.labels.tolist() == list(range(10)) * 10
    frames = torch.from_numpy(counted(recording(42, 128), 128))
    pooled = torch.nn.functional.max_pool2d(frames.float(), 4)
    assert torch.equal(data.test.samples[42].float(), pooled)


@pytest.mark.parametrize("name", ["tonic:NoSuchSet", "tonic:SHD", "torchvision:NoSuchSet"])
def test_what_a_package_does_not_have_or_no_camera_saw_is_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name.partition(":")[0])
    with pytest.raises(ConfigError, match=r"data\.name"):
        load(DataConfig(name, root=str(tmp_path)))
