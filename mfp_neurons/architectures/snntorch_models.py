"""The networks of snnTorch's tutorials 5, 6 and 7 with our neurons, for ``network.architecture`` of a config.

Layers and sizes are the tutorials'; :class:`mfp_neurons.snntorch.MFPLeakyParallel` takes all steps at once
where they loop. Scores are the spikes of the last layer, [T, N, classes]. How a builder is called:
:mod:`mfp_neurons.architectures`.
"""

import math

from torch import Tensor, nn

from mfp_neurons._checks import describe, require
from mfp_neurons.neuron import MFP

from .layers import Neurons, PerStep, check_maps


def fully_connected(
    features: tuple[int, ...], classes: int, time_steps: int, neurons: Neurons, *, hidden: int = 1000
) -> nn.Module:
    """Tutorial 5: linear, neuron, linear, neuron, on steps of any shape."""
    return nn.Sequential(
        PerStep(nn.Flatten(), nn.Linear(math.prod(features), hidden)),
        as_leaky(neurons(hidden)),
        PerStep(nn.Linear(hidden, classes)),
        as_leaky(neurons(classes)),
    )


def convolutional(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    channels: tuple[int, int] = (12, 64),
) -> nn.Module:
    """Tutorial 6: two 5 x 5 convolutions, each max-pooled in front of its neuron, and a linear layer.

    Raises:
        ValueError: ``features`` are no [C, H, W] of 16 x 16 or more.
    """
    maps = _maps(features)
    first, second = channels
    return nn.Sequential(
        PerStep(nn.Conv2d(features[0], first, 5), nn.MaxPool2d(2)),
        as_leaky(neurons(first)),
        PerStep(nn.Conv2d(first, second, 5), nn.MaxPool2d(2)),
        as_leaky(neurons(second)),
        PerStep(nn.Flatten(), nn.Linear(second * maps, classes)),
        as_leaky(neurons(classes)),
    )


def events(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    channels: tuple[int, int] = (12, 32),
) -> nn.Module:
    """Tutorial 7: two 5 x 5 convolutions, whose neurons' spikes are max-pooled, and a linear layer.

    Raises:
        ValueError: ``features`` are no [C, H, W] of 16 x 16 or more.
    """
    maps = _maps(features)
    first, second = channels
    return nn.Sequential(
        PerStep(nn.Conv2d(features[0], first, 5)),
        as_leaky(neurons(first)),
        PerStep(nn.MaxPool2d(2), nn.Conv2d(first, second, 5)),
        as_leaky(neurons(second)),
        PerStep(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(second * maps, classes)),
        as_leaky(neurons(classes)),
    )


def as_leaky(neuron: nn.Module) -> nn.Module:
    """An MFP as the MFPLeakyParallel that snnTorch's users know, spikes out; any other neuron as it is.

    Raises:
        ValueError: it learns its threshold, which snnTorch's networks keep fixed here, or has a reset, which
            is not snnTorch's.
    """
    if not isinstance(neuron, MFP):
        return neuron
    kernel, feedback = neuron.kernel, neuron.feedback
    if feedback.kind not in (None, "feedback") or feedback.detached:
        raise ValueError(
            "a neuron in the place of snnTorch's has feedback with gradients through it, or no reset, got "
            f"{feedback}, detach_reset={feedback.detached}"
        )
    if not isinstance(neuron.v_threshold, float):
        raise ValueError(f"v_threshold must be fixed, got {describe(neuron.v_threshold)}")
    decay = (
        kernel.decay.detach()[0].item() if isinstance(kernel.decay, Tensor) else kernel.decay
    )  # as it starts
    leaky: nn.Module = require("mfp_neurons.snntorch", "snntorch").MFPLeakyParallel(
        decay,
        neuron.v_threshold,
        neuron.surrogate,
        init_hidden=True,
        learn_beta=kernel.learnable,
        reset_mechanism=feedback.kind or "none",
        reset_order=feedback.order(kernel) or None,
        kernel=kernel.kind,
        **kernel.options(),
    )
    return leaky


def _maps(features: tuple[int, ...]) -> int:
    """Places of a map after two 5 x 5 convolutions and two pools."""
    check_maps("the network", features, 16)
    return math.prod(((size - 4) // 2 - 4) // 2 for size in features[1:])
