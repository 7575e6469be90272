"""The contents of the zoo: configs that can be trained, and networks that are shipped."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cards
from .cards import Card, CardError
from .runnable import Runnable

if TYPE_CHECKING:
    from mfp_neurons.train.config import Config

_HERE = Path(str(resources.files(__package__)))
CONFIGS, NETWORKS = _HERE / "configs", _HERE / "networks"
WEIGHTS, CARD = ".safetensors", ".json"


@dataclass(frozen=True, repr=False)
class Trained(Runnable):
    r"""A trained network with its card.

    Attributes:
        model: the torch model in eval mode: sequences [T, N, \*features] to scores [N, classes], averaged
            over the last steps as validation chose; ``model.network`` gives the scores of every step. Its
            weights are floats that quantize to what was trained, so it can be trained on.
        network: the same in integers, lowered from ``model`` on first use; raises LoweringError where a part
            has no integer form (``card.refused`` says which).
        card: what it reaches and costs.
        facts: shapes and scale of its input, and its config.
    """

    card: Card

    def __repr__(self) -> str:
        return f"Trained({self.card.name!r})"


def names() -> list[str]:
    """Names of the networks that come with the package, for :func:`load`.

    Returns:
        Sorted names.

    >>> from mfp_neurons import zoo
    >>> "digits-rows" in zoo.list()
    True
    """
    return sorted(path.stem for path in NETWORKS.glob(f"*{WEIGHTS}"))


def configs() -> list[str]:
    """Names of the configs that :func:`mfp_neurons.zoo.training.train` trains, shipped ones among them."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def card(name: str) -> Card:
    """The card of a shipped network, without loading the network.

    Args:
        name: one of :func:`names`.

    Returns:
        :class:`mfp_neurons.zoo.cards.Card`; ``print`` shows it.

    Raises:
        ValueError: there is no such network; the message lists those there are.

    >>> from mfp_neurons import zoo
    >>> zoo.card("digits-rows").accuracy.images
    364
    """
    return cards.read(_file(name, CARD))


def load(name: str) -> Trained:
    """A shipped network: the torch model, the integer network and the card.

    Args:
        name: one of :func:`names`.

    Returns:
        :class:`Trained`, with ``.model``, ``.network`` and ``.card``.

    Raises:
        ValueError: there is no such network; the message lists those there are.
        CardError: its file is not the one that the card is about.
        MissingDependency: a framework that it is built with is not installed.

    >>> import torch
    >>> from mfp_neurons import zoo
    >>> digits = zoo.load("digits-rows")
    >>> digits.model(torch.zeros(8, 1, 8)).shape  # [T, N, pixels of a row]
    torch.Size([1, 10])
    >>> digits.network.run(torch.zeros(8, 1, 8)).shape
    (1, 10)
    """
    return load_files(_file(name, WEIGHTS), _file(name, CARD))


def load_files(weights: Path, card_file: Path) -> Trained:
    """What :func:`load` does, from two files anywhere: ``zoo train`` writes them to its ``--out``."""
    from mfp_neurons.train.deployment import Readout

    from . import packed

    found = cards.read(card_file)
    if sha256(weights) != found.sha256:
        raise CardError(f"{weights} is not the file that {card_file.name} is about: their sha256 differ")
    module, facts = packed.load(weights)
    return Trained(Readout(module, facts.readout_steps).eval(), facts, found)


def config(name: str, overrides: Mapping[str, Any] | None = None) -> "Config":
    """The training config of that name; ``overrides`` are dotted keys.

    Raises:
        ConfigError: there is no such config, or a value is not accepted.
    """
    from mfp_neurons.train.config import ConfigError
    from mfp_neurons.train.config import load as load_config

    if name not in configs():
        raise ConfigError(f"the zoo has no config {name!r}; it has {', '.join(configs())}")
    return load_config(str(CONFIGS / f"{name}.toml"), overrides)


def summary(name: str) -> str:
    """The description of a config: the comment at its top. Empty where there is no such config."""
    path = CONFIGS / f"{name}.toml"
    if not path.is_file():
        return ""
    lines = path.read_text().splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _file(name: str, suffix: str) -> Path:
    if name not in names():
        raise UnknownNetwork(f"the zoo has no network {name!r}; it has {', '.join(names()) or 'none yet'}")
    return NETWORKS / f"{name}{suffix}"


class UnknownNetwork(ValueError):
    """A name that no shipped network has."""
