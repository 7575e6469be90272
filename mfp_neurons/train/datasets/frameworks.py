"""Data sets that torchvision, SpikingJelly and Tonic read: FAMILY:CLASS."""

import inspect
import math
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mfp_neurons._checks import log_once, require
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets.source import Source, gather, in_memory

# what the data sets of three packages raise where files are missing or options do not fit
REFUSALS = (RuntimeError, TypeError, OSError, ValueError, AssertionError, NotImplementedError)


def torchvision(member: str, config: DataConfig) -> tuple[Source, Source]:
    """Images; ``options`` are keyword arguments of the class."""
    cls = _member(require("torchvision.datasets", "spikingjelly"), member)  # torchvision comes with it
    return _splits(cls, config, {"download": config.download})


def spikingjelly(member: str, config: DataConfig) -> tuple[Source, Source]:
    """Frames of a neuromorphic data set; SpikingJelly keeps the events it starts from in events_np."""
    events = Path(config.root) / "events_np"
    if not events.is_dir() and not config.download:
        raise ConfigError(
            f"data.root = {config.root!r}: no {events} there, which SpikingJelly makes; "
            "data.download = true lets it download and convert what it can"
        )
    cls = _member(_spikingjelly_datasets(member), member)
    frames = {"data_type": "frame", "split_by": "number", "frames_number": config.time_steps}
    with _reading_headers_safely():
        return _splits(cls, config, frames)


@contextmanager
def _reading_headers_safely() -> Iterator[None]:
    """SpikingJelly converts events in threads, each of which reads NumPy files, whose headers are parsed by
    ``ast.literal_eval``. Before Python 3.11.8 two threads that parse at once can fail with a SystemError
    (python/cpython#106905), so there it gets one thread."""
    if sys.version_info >= (3, 11, 8):
        yield
        return
    configure: Any = require("spikingjelly.configure", "spikingjelly")
    threads = configure.max_threads_number_for_datasets_preprocess
    log_once(
        "datasets.one_thread",
        "SpikingJelly converts this data set's events on one thread, which takes longer: with more, Python "
        "%s can fail while it reads them. Python 3.11.8 and newer use all threads.",
        sys.version.split()[0],
    )
    configure.max_threads_number_for_datasets_preprocess = 1
    try:
        yield
    finally:
        configure.max_threads_number_for_datasets_preprocess = threads


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


def tonic(member: str, config: DataConfig) -> tuple[Source, Source]:
    """Frames of a neuromorphic data set, of equally many events each, made whenever they are loaded."""
    transforms = require("tonic.transforms", "tonic")
    cls = _member(require("tonic.datasets", "tonic"), member)
    sensor = getattr(cls, "sensor_size", ())
    # (width, height, polarities); an artificial cochlea has one row of frequencies
    if len(sensor) != 3 or 1 in sensor[:2]:
        raise ConfigError(f"data.name = {config.name!r} was not seen by an event camera")
    frames = transforms.ToFrame(sensor_size=sensor, n_event_bins=config.time_steps)
    reader = cls if config.download else _never_downloading(cls)
    return _splits(reader, config, {"transform": frames})


def _never_downloading(cls: Any) -> Any:
    """The class, but files that are missing are an error: Tonic's own would download them."""

    def download(self: Any) -> None:
        raise OSError(
            f"{self.location_on_system} has no {self.filename} beside what is in it; "
            "data.download = true lets Tonic download it"
        )

    return type(cls.__name__, (cls,), {"download": download})  # Tonic names its folder after the class


def _member(module: Any, name: str) -> Any:
    if not isinstance(getattr(module, name, None), type):
        raise ConfigError(f"data.name: {module.__name__} has no data set {name!r}")
    return getattr(module, name)


def _splits(cls: Any, config: DataConfig, options: dict[str, Any]) -> tuple[Source, Source]:
    """Training and test split of a class that takes root and options, and ``train`` if it has splits."""
    options = {**options, **config.options}
    try:
        if "train" not in inspect.signature(cls).parameters:
            return _split_each_class(gather(cls(config.root, **options), config.size))
        train, test = (gather(cls(config.root, train=t, **options), config.size) for t in (True, False))
        return train, test
    except REFUSALS as error:
        raise ConfigError(f"data.name = {config.name!r}, data.root = {config.root!r}: {error}") from error


def _split_each_class(source: Source) -> tuple[Source, Source]:
    """A data set without a split of its own: the first nine tenths of every class train, the rest test."""
    training = torch.zeros(len(source), dtype=torch.bool)
    for label in source.labels.unique():
        members = (source.labels == label).nonzero().flatten()
        training[members[: math.ceil(0.9 * len(members))]] = True
    train, test = (in_memory(source.read(m), source.labels[m]) for m in (training, ~training))
    return train, test
