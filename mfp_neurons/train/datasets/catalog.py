"""Which data sets there are: ``data.name`` and what it stands for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mfp_neurons.train.config import ConfigError, DataConfig
from mfp_neurons.train.datasets import frameworks, tiny_imagenet
from mfp_neurons.train.datasets.digits import digits
from mfp_neurons.train.datasets.fashion_mnist import fashion_mnist
from mfp_neurons.train.datasets.simulated import fashion_mnist_events
from mfp_neurons.train.datasets.source import Source

Sources = Callable[[DataConfig], tuple[Source, Source]]


@dataclass(frozen=True)
class Kind:
    """How a data set is loaded (training and test split) and how its samples are read by habit."""

    sources: Sources
    reading: str


NAMED = {
    "digits": Kind(digits, "rows"),
    "fashion-mnist": Kind(fashion_mnist, "repeat"),
    "fashion-mnist-rows": Kind(fashion_mnist, "rows"),
    "fashion-mnist-events": Kind(fashion_mnist_events, "frames"),
    "tiny-imagenet": Kind(tiny_imagenet.tiny_imagenet, "repeat"),
}
FAMILIES = {  # FAMILY:CLASS
    "torchvision": (frameworks.torchvision, "repeat"),
    "spikingjelly": (frameworks.spikingjelly, "frames"),
    "tonic": (frameworks.tonic, "frames"),
}


def find(name: str) -> Kind:
    """What a name stands for.

    Raises:
        ConfigError: nothing; the message lists what is accepted.
    """
    if name in NAMED:
        return NAMED[name]
    family, _, member = name.partition(":")
    if family in FAMILIES and member:
        sources, reading = FAMILIES[family]
        return Kind(partial(sources, member), reading)
    accepted = [*NAMED, *(f"{family}:CLASS" for family in FAMILIES)]
    raise ConfigError(f"data.name = {name!r} is not accepted: give {', '.join(accepted)}")
