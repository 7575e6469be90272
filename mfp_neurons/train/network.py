"""The networks that configs describe: blocks of synapse, batch norm and neuron, then scores at every step."""

import inspect
import itertools
import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons._checks import require
from mfp_neurons.architectures import BUILDERS
from mfp_neurons.architectures.spikingjelly_models import FromRest
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.neuron import MFP
from mfp_neurons.pooling import TimePool
from mfp_neurons.quantize import quantize_weights
from mfp_neurons.surrogate import ATan
from mfp_neurons.train.config import BLOCKS, ConfigError, NetworkConfig, NeuronConfig, check_neuron

FLOAT_BITS = 32


class Block(nn.Module):
    """Synapse, batch norm over (T, N) together, neuron and, after a convolution, a 2 x 2 max pool.

    With ``window`` above 1, that many steps of the input become one first.
    """

    def __init__(
        self,
        synapse: nn.Module,
        norm: nn.Module,
        neuron: nn.Module,
        pool: nn.Module | None = None,
        window: int = 1,
    ) -> None:
        super().__init__()
        self.time_pool = TimePool(window) if window > 1 else None
        self.synapse, self.norm, self.neuron, self.pool = synapse, norm, neuron, pool

    def forward(self, x_seq: Tensor) -> Tensor:
        """Spikes [T / window, N, C, *] of a sequence [T, N, C_in, *]."""
        x_seq = x_seq if self.time_pool is None else self.time_pool(x_seq)
        steps, batch = x_seq.shape[:2]
        x = self.norm(self.synapse(x_seq.flatten(0, 1)))  # steps and samples as one batch
        spikes: Tensor = self.neuron(x.unflatten(0, (steps, batch)))
        return spikes if self.pool is None else self.pool(spikes.flatten(0, 1)).unflatten(0, (steps, batch))


class SequenceClassifier(nn.Module):
    """Spiking blocks and a linear read-out; ``forward`` maps [T, N, *features] to scores [T, N, classes]."""

    def __init__(self, config: NetworkConfig, features: tuple[int, ...], classes: int, time_steps: int):
        super().__init__()
        windows = _windows(config, time_steps)
        neurons, steps = [], time_steps
        for index, width in enumerate((*config.channels, *config.hidden)):
            steps //= windows[index]  # the sequence is shorter for this layer and for all behind it
            neurons.append(build_neuron(config.neuron.layer(index), width, steps))
        # neurons before synapses: the random generator draws parameters in this order, and a seed of an old
        # run must give the same network
        convolutions: list[Block] = []
        shape = features
        for width, neuron, window in zip(config.channels, neurons, windows, strict=False):
            if len(shape) != 3 or min(shape[1:]) < 2:
                raise ValueError(
                    f"network.channels: a convolution needs steps of [C, H, W] >= 2 x 2, got {shape}"
                )
            synapse = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
            convolutions.append(Block(synapse, nn.BatchNorm2d(width), neuron, nn.MaxPool2d(2), window))
            shape = (width, shape[1] // 2, shape[2] // 2)
        self.convolutions = nn.Sequential(*convolutions)
        sizes = [math.prod(shape), *config.hidden]
        first = len(convolutions)
        self.hidden = nn.Sequential(
            *(
                Block(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), neuron, window=window)
                for (a, b), neuron, window in zip(
                    itertools.pairwise(sizes), neurons[first:], windows[first:], strict=True
                )
            )
        )
        self.readout = nn.Linear(sizes[-1], classes)

    def forward(self, x_seq: Tensor) -> Tensor:
        spikes = self.hidden(self.convolutions(x_seq).flatten(2))
        scores: Tensor = self.readout(spikes)
        return scores

    def blocks(self) -> list[Block]:
        """The spiking blocks, from the input on."""
        return [*self.convolutions, *self.hidden]  # type: ignore[list-item]


def build(config: NetworkConfig, features: tuple[int, ...], classes: int, time_steps: int) -> nn.Module:
    """The network of a config, its weights quantized if the config says so.

    Raises:
        ConfigError: the settings, each accepted by itself, do not make a network together.
    """
    try:
        make = SequenceClassifier if config.architecture == BLOCKS else _named_network
        network: nn.Module = make(config, features, classes, time_steps)
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"network: {error}") from error
    # quantized after building, so that every builder, also a user's own, makes plain float layers
    if config.weight_bits != FLOAT_BITS:
        first, last = (None if b == FLOAT_BITS else b for b in (config.first_bits, config.last_bits))
        quantize_weights(network, config.weight_bits, first=first, last=last)
    return network


def _windows(config: NetworkConfig, time_steps: int) -> tuple[int, ...]:
    """Steps joined in front of each hidden layer."""
    layers = len(config.channels) + len(config.hidden)
    setting = config.time_pool
    windows: tuple[int, ...] = setting if isinstance(setting, tuple) else (setting,) * layers
    if len(windows) != layers or time_steps % math.prod(windows):
        raise ValueError(
            f"time_pool = {setting!r}: give one window, or one for each of the {layers} hidden layers, whose "
            f"product divides T = {time_steps}"
        )
    return windows


def _named_network(
    config: NetworkConfig, features: tuple[int, ...], classes: int, time_steps: int
) -> nn.Module:
    """The network of another architecture than "blocks", with float weights."""
    architecture, options = config.architecture, config.options
    neurons = Neurons(config.neuron, time_steps)
    builder = _builder(architecture)
    try:  # a wrong option is a mistake in the config; a TypeError within the builder is none
        inspect.signature(builder).bind(features, classes, time_steps, neurons, **options)
    except TypeError as error:
        accepted = ", ".join(list(inspect.signature(builder).parameters)[4:]) or "none"
        raise ConfigError(
            f"network.options = {options!r}: {error}; {architecture!r} accepts {accepted}"
        ) from None
    network: nn.Module = builder(features, classes, time_steps, neurons, **options)
    config.neuron.check_lists(neurons.count, f"layers of neurons of {architecture!r}")
    return network


def _builder(architecture: str) -> Callable[..., nn.Module]:
    """The builder of an architecture: a name in the table, or "module:function" of your own."""
    if architecture in BUILDERS:
        return BUILDERS[architecture]
    module, colon, function = architecture.partition(":")
    if not colon:
        raise ConfigError(
            f"network.architecture = {architecture!r} is not accepted: give one of "
            f"{', '.join([BLOCKS, *BUILDERS])}, or 'module:function' of your own builder"
        )
    try:
        builder: Callable[..., nn.Module] = getattr(import_module(module), function)
    except (AttributeError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name or "?"):
            raise  # the module is there; something that it needs is not
        raise ConfigError(f"network.architecture = {architecture!r}: {error}") from None
    return builder


class Neurons:
    """Makes the neurons of one network, one after the other, as its settings say.

    Args:
        config: the settings; a list in them has one item a layer.
        time_steps: T.
    """

    def __init__(self, config: NeuronConfig, time_steps: int) -> None:
        self._config, self._time_steps = config, time_steps
        self.count = 0

    def __call__(self, num_channels: int | None) -> nn.Module:
        """The next layer's neuron, for [T, N, num_channels, *]; None: one kernel for all channels."""
        # a list that is too short is refused once it is known how many neurons there are
        shortest = min(map(len, self._config.lists().values()), default=self.count + 1)
        settings = self._config.layer(min(self.count, shortest - 1))
        check_neuron(settings, self.count)
        self.count += 1
        return build_neuron(settings, num_channels, self._time_steps)


def build_neuron(config: NeuronConfig, width: int | None, time_steps: int) -> nn.Module:
    """One layer's neuron: the LIF baseline, or a memory-free one."""
    channels = width if config.per_channel else None
    surrogate = ATan(alpha=config.surrogate_alpha)
    if config.kind == "lif":
        bits = None if config.potential_bits == FLOAT_BITS else config.potential_bits
        return QuantizedMembraneLIF(
            config.decay,
            bits=bits,
            v_threshold=config.threshold,
            v_reset=0.0 if config.reset == "zero" else None,
            detach_reset=config.detach_reset,
            learnable=config.learnable,
            num_channels=channels,
            surrogate=surrogate,
        )
    if config.kind == "spikingjelly-lif":
        return FromRest(_spikingjelly_lif(config))
    if config.kind == "snntorch-leaky":
        return StepByStep(_snntorch_leaky(config))
    # a tap that reaches back beyond the first step would never see an input, but would cost state
    reached = (time_steps - 1) // config.stride + 1  # taps that lie within the sequence
    order = min(config.order or reached, reached)
    if config.kind == "sliding-psn":  # SpikingJelly's neuron for whole sequences; arXiv 2304.12760
        psn: nn.Module = _jelly("neuron").SlidingPSN(
            order, surrogate_function=_jelly("surrogate").ATan(alpha=config.surrogate_alpha), step_mode="m"
        )
        return psn
    feedback = min(config.feedback, time_steps - 1)  # the first step has no spike behind it
    return MFP(
        config.decay,
        v_threshold=config.threshold,
        kernel=config.kind,
        order=order,
        time_steps=time_steps if config.kind == "matrix" else None,
        learnable=config.learnable and config.kind == "exp" and order != 1,  # one tap has no decay
        num_channels=channels,
        groups=config.groups or None,
        kernel_bits=config.kernel_bits or None,
        stride=config.stride,
        reset="feedback" if feedback else None,
        reset_order=feedback or None,
        detach_reset=config.detach_reset if feedback else False,
        surrogate=surrogate,
    )


class StepByStep(nn.Module):
    """A neuron of snnTorch, which takes a step a call, for sequences [T, N, *], each from rest."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron: Any = neuron

    def forward(self, x_seq: Tensor) -> Tensor:
        spikes = [self.neuron(x)[0] for x in x_seq]
        self.neuron.mem = self.neuron.mem.new_zeros(0)  # as it is built: the next batch may have another size
        return torch.stack(spikes)


def _spikingjelly_lif(config: NeuronConfig) -> nn.Module:
    neurons = _jelly("neuron")
    if config.decay == 0:  # tau = 1, which LIFNode refuses
        raise ValueError("neuron.decay = 0: SpikingJelly's LIFNode needs a decay above 0")
    learned, tau = config.learnable, 1 / (1 - config.decay)
    neuron: nn.Module = (neurons.ParametricLIFNode if learned else neurons.LIFNode)(
        tau,
        v_threshold=config.threshold,
        v_reset=0.0 if config.reset == "zero" else None,
        surrogate_function=_jelly("surrogate").ATan(alpha=config.surrogate_alpha),
        detach_reset=config.detach_reset,
    )
    return neuron


def _snntorch_leaky(config: NeuronConfig) -> nn.Module:
    snntorch = require("snntorch", "snntorch")
    neuron: nn.Module = snntorch.Leaky(
        config.decay,
        threshold=config.threshold,
        spike_grad=snntorch.surrogate.atan(alpha=config.surrogate_alpha),
        learn_beta=config.learnable,
        reset_mechanism=config.reset,
    )
    return neuron


def _jelly(module: str) -> Any:
    return require(f"spikingjelly.activation_based.{module}", "spikingjelly")
