"""The zoo's configs: each makes the network that it promises for the data that it names."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.zoo import training
from mfp_neurons import zoo
from mfp_neurons.adapters import describe_neuron
from mfp_neurons.quantize import is_quantized
from mfp_neurons.train import network
from mfp_neurons.train.config import Config, from_dict, read_toml

# channels, and pixels along a side unless data.size says otherwise; rows have neither
IMAGES = {
    "fashion-mnist": (1, 28),
    "fashion-mnist-events": (2, 34),
    "torchvision:CIFAR10": (3, 32),
    "torchvision:CIFAR100": (3, 32),
    "tiny-imagenet": (3, 64),
    "spikingjelly:NMNIST": (2, 34),
    "spikingjelly:CIFAR10DVS": (2, 128),
    "spikingjelly:DVS128Gesture": (2, 128),
}
ROWS = {
    "digits": ((8,), 8),
    "fashion-mnist-rows": ((28,), 28),
    "spoken-digits": ((13,), 40),
    "smartwatch": ((6,), 64),
}
CLASSES = {
    "smartwatch": 7,
    "torchvision:CIFAR100": 100,
    "tiny-imagenet": 200,
    "spikingjelly:DVS128Gesture": 11,
}


def originals() -> list[str]:
    return list(read_toml(str(training.CONFIGS.parent / training.ORIGINALS)))


def shape(config: Config) -> tuple[tuple[int, ...], int]:
    """Features of a step, and T."""
    data = config.data
    if data.name in ROWS:
        return ROWS[data.name]
    channels, side = IMAGES[data.name]
    return (channels, data.size or side, data.size or side), data.time_steps


@pytest.mark.parametrize("name", training.configs())
def test_a_config_makes_a_quantized_network_for_its_data(name: str) -> None:
    config = training.config(name)
    assert len(training.summary(name)) > 80
    assert from_dict(config.as_dict()) == config
    net, features, steps = built(config)
    assert any(map(is_quantized, net.modules()))
    check_scores(net, config, features, steps)


@pytest.mark.parametrize("name", originals())
def test_an_original_is_the_same_network_of_floats_with_its_frameworks_neurons(name: str) -> None:
    ours, original = training.config(name), training.config(name, original=True)
    assert original.data == ours.data
    rate = ours.training.learning_rate
    assert replace(original.training, learning_rate=rate) == ours.training
    for part in ("architecture", "options", "channels", "hidden"):
        assert getattr(original.network, part) == getattr(ours.network, part)
    framework = "snntorch" if "snntorch" in ours.network.architecture else "spikingjelly"
    assert original.network.neuron.kind.startswith(framework)
    net, features, steps = built(original)
    assert not any(map(is_quantized, net.modules()))
    potentials = [spec.carried.what for module in net.modules() if (spec := describe_neuron(module))]
    assert potentials and set(potentials) == {"potential"}
    check_scores(net, original, features, steps)
    with_ours = built(ours)[0]
    assert weights(net) == weights(with_ours)


def weights(net: nn.Module) -> int:
    """In synapses."""
    return sum(p.numel() for name, p in net.named_parameters() if name.endswith("weight") and p.dim() > 1)


def test_every_shipped_network_has_an_original() -> None:
    assert set(zoo.list()) <= set(originals())


def built(config: Config) -> tuple[nn.Module, tuple[int, ...], int]:
    """The network, features of a step, and T."""
    features, steps = shape(config)
    return network.build(config.network, features, classes(config), steps).eval(), features, steps


def classes(config: Config) -> int:
    return CLASSES.get(config.data.name, 10)


def check_scores(net: nn.Module, config: Config, features: tuple[int, ...], steps: int) -> None:
    pooled = config.network.time_pool
    last = steps // (math.prod(pooled) if isinstance(pooled, tuple) else pooled)
    assert config.readout.candidates[-1] == last
    if sum(p.numel() for p in net.parameters()) < 3e6:  # the others are too slow here
        with torch.no_grad():
            assert net(torch.zeros(steps, 1, *features)).shape == (last, 1, classes(config))
