"""A trained network that runs: its torch model, what its input looks like, and its integer network."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from mfp_neurons.deploy import IntegerNetwork


@dataclass(frozen=True)
class Facts:
    r"""What has to be known to build a network again and to give it its input, besides its weights.

    Attributes:
        config: the training config, as JSON has it.
        features, classes, time_steps: what the network was built for; its input is [T, N, \*features].
        readout_steps: scores are averaged over so many last steps.
        scale: samples of the data set were divided by it.
    """

    config: dict[str, Any]
    features: tuple[int, ...]
    classes: int
    time_steps: int
    readout_steps: int
    scale: float


@dataclass(frozen=True)
class Runnable:
    r"""A model in eval mode that maps [T, N, \*features] to scores [N, classes], and its facts."""

    model: nn.Module
    facts: Facts

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
