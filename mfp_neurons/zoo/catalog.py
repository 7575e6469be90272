"""The networks that come with the package: their names, their cards, and the networks themselves."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from . import cards
from .cards import Card, CardError, UnknownNetwork

if TYPE_CHECKING:
    from mfp_neurons.deploy import IntegerNetwork

    from .packed import Facts

NETWORKS = Path(str(resources.files(__package__))) / "networks"
WEIGHTS, CARD = ".safetensors", ".json"


@dataclass(frozen=True)
class Runnable:
    r"""A model in eval mode that maps [T, N, \*features] to scores [N, classes], and its facts."""

    model: nn.Module
    facts: "Facts"

    @cached_property
    def network(self) -> "IntegerNetwork":
        """The same network in integers, lowered from ``model`` on first use.

        Raises:
            LoweringError: a part of it has no integer form, or its input is not levels of up to 8 bits.
        """
        from mfp_neurons import deploy

        facts = self.facts
        levels = int(facts.scale)
        if levels != facts.scale or not 1 <= levels <= 255:
            raise deploy.LoweringError(
                f"samples go up to {facts.scale:g}; a deployed network takes whole levels up to 255"
            )
        # of the example only the range of its numbers matters
        shape = facts.time_steps, 1, *facts.features
        example = torch.full(shape, 0.5) if levels > 1 else torch.zeros(shape)  # images, or events
        return deploy.lower(self.model, example, levels=levels)

    @cached_property
    def refused(self) -> str | None:
        """Why ``network`` raises, None if it does not."""
        from mfp_neurons.deploy import LoweringError

        try:
            _ = self.network
        except LoweringError as error:
            return str(error)
        return None


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
    return cards.read(path_of(name, CARD))


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
    return load_files(path_of(name, WEIGHTS), path_of(name, CARD))


def load_files(weights: Path, card_file: Path) -> Trained:
    """What :func:`load` does, from two files anywhere."""
    # imported here, for the names and cards of networks need neither NumPy nor safetensors
    from mfp_neurons.train.deployment import Readout

    from . import packed

    card = cards.read(card_file)
    # a card speaks of one file: accuracy and costs were measured of these very bytes
    if sha256(weights) != card.sha256:
        raise CardError(f"{weights} is not the file that {card_file.name} is about: their sha256 differ")
    module, facts = packed.load(weights)
    return Trained(Readout(module, facts.readout_steps).eval(), facts, card)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def path_of(name: str, suffix: str) -> Path:
    """The file of a shipped network, ``suffix`` WEIGHTS or CARD.

    Raises:
        UnknownNetwork: there is no such network; the message lists those there are.
    """
    if name not in names():
        raise UnknownNetwork(f"the zoo has no network {name!r}; it has {', '.join(names()) or 'none yet'}")
    return NETWORKS / f"{name}{suffix}"
