"""Networks by name: what ``network.architecture`` of a config can be, and how each is built.

A builder is a function

    build(features, classes, time_steps, neurons, **options) -> nn.Module

``features`` is the shape of one step of one sample, ``options`` are the config's ``network.options``. For
every layer of neurons, from the input on, the builder calls ``neurons(num_channels)``, which gives the next
one; None stands for channels that cannot have kernels of their own. The module maps [T, N, *features] to
scores [T, N, classes], or [1, N, classes] where it averages over time itself, keeps nothing from one call to
the next, and has float weights: ``network.build`` quantizes them.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from mfp_neurons.train.config import BLOCKS, ConfigError, NeuronConfig, check_neuron

# the zoo is named, not imported: it stands above training
BUILDERS = {
    "resnet19": "mfp_neurons.zoo.resnet19:build",
    "vggsnn": "mfp_neurons.zoo.vggsnn:build",
    "fashion-mnist-net": "mfp_neurons.zoo.spikingjelly_models:fashion_mnist_net",
    "nmnist-net": "mfp_neurons.zoo.spikingjelly_models:nmnist_net",
    "spiking-vgg11-bn": "mfp_neurons.zoo.spikingjelly_models:spiking_vgg11_bn",
    "spiking-resnet18": "mfp_neurons.zoo.spikingjelly_models:spiking_resnet18",
    "sew-resnet18": "mfp_neurons.zoo.spikingjelly_models:sew_resnet18",
    "ms-resnet18": "mfp_neurons.zoo.spikingjelly_models:ms_resnet18",
    "spikformer": "mfp_neurons.zoo.spikingjelly_models:spikformer",
    "snntorch-fcn": "mfp_neurons.zoo.snntorch_models:fully_connected",
    "snntorch-csnn": "mfp_neurons.zoo.snntorch_models:convolutional",
    "snntorch-events": "mfp_neurons.zoo.snntorch_models:events",
}
Make = Callable[[NeuronConfig, int | None, int], nn.Module]


class Neurons:
    """Makes the neurons of one network, one after the other, as its settings say.

    Args:
        config: the settings; a list in them has one item a layer.
        time_steps: T.
        make: makes one neuron of (its settings, its channels or None, T).
    """

    def __init__(self, config: NeuronConfig, time_steps: int, make: Make) -> None:
        self._config, self._time_steps, self._make = config, time_steps, make
        self._made = 0

    def __call__(self, num_channels: int | None) -> nn.Module:
        """The next layer's neuron, for [T, N, num_channels, *]; None: one kernel for all channels."""
        index = self._made
        self._made += 1
        shortest = min(map(len, self._lists().values()), default=self._made)
        # a list that is too short is refused once all neurons are made
        settings = self._config.layer(min(index, shortest - 1))
        check_neuron(settings, index)
        return self._make(settings, num_channels, self._time_steps)

    def check_all_used(self, architecture: str) -> None:
        """Raises ConfigError unless every list had one item for each neuron made."""
        for name, value in self._lists().items():
            if len(value) != self._made:
                raise ConfigError(
                    f"network.neuron.{name} = {value!r} has {len(value)} items: give one value, or one for "
                    f"each of the {self._made} layers of neurons of {architecture!r}"
                )

    def _lists(self) -> dict[str, tuple[Any, ...]]:
        values = {f.name: getattr(self._config, f.name) for f in dataclasses.fields(self._config)}
        return {name: value for name, value in values.items() if isinstance(value, tuple)}


def build(
    architecture: str,
    options: Mapping[str, Any],
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
) -> nn.Module:
    """The network of that name with float weights.

    Raises:
        ConfigError: there is no such architecture, it has no such option, or it cannot read ``features``.
        MissingDependency: the framework that it comes from is not installed.
    """
    builder = find(architecture)
    try:
        inspect.signature(builder).bind(features, classes, time_steps, neurons, **options)
    except TypeError as error:
        accepted = ", ".join(list(inspect.signature(builder).parameters)[4:]) or "none"
        raise ConfigError(
            f"network.options = {dict(options)!r}: {error}; {architecture!r} accepts {accepted}"
        ) from None
    network: nn.Module = builder(features, classes, time_steps, neurons, **options)
    neurons.check_all_used(architecture)
    return network


def find(architecture: str) -> Callable[..., nn.Module]:
    """The builder of an architecture: a name in the table, or "module:function" of your own."""
    module, colon, function = BUILDERS.get(architecture, architecture).partition(":")
    if not colon:
        raise ConfigError(
            f"network.architecture = {architecture!r} is not accepted: give one of "
            f"{', '.join([BLOCKS, *BUILDERS])}, or 'module:function' of your own builder"
        )
    try:
        found = getattr(import_module(module), function)
    except (AttributeError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name or "?"):
            raise  # the module is there; something that it needs is not
        raise ConfigError(f"network.architecture = {architecture!r}: {error}") from None
    builder: Callable[..., nn.Module] = found
    return builder
