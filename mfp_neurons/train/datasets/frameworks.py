"""Data sets that torchvision, SpikingJelly and Tonic read: FAMILY:CLASS."""

import pkgutil
from pathlib import Path
from typing import Any

from mfp_neurons._checks import require
from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets.arrays import gather
from mfp_neurons.train.datasets.source import Source

REFUSALS = (RuntimeError, TypeError, OSError, ValueError, AssertionError, NotImplementedError)


def torchvision(member: str, config: DataConfig) -> tuple[Source, Source]:
    """Images; ``options`` are keyword arguments of the class."""
    cls = _member(require("torchvision.datasets", "spikingjelly"), member)  # torchvision comes with it
    return _both(cls, config, {"download": config.download})


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


def _both(cls: Any, config: DataConfig, options: dict[str, Any]) -> tuple[Source, Source]:
    """Training and test split of a class that takes root, train and options."""
    try:
        train, test = (cls(config.root, **{**options, "train": t, **config.options}) for t in (True, False))
        return gather(train, config.size), gather(test, config.size)
    except REFUSALS as error:
        raise ConfigError(f"data.name = {config.name!r}, data.root = {config.root!r}: {error}") from error
