"""The zoo's configs: each makes the network that it promises for the data that it names."""

import pytest
import torch

from benchmarks.zoo import training
from mfp_neurons.quantize import is_quantized
from mfp_neurons.train import network
from mfp_neurons.train.config import Config, from_dict

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
ROWS = {"digits": ((8,), 8), "fashion-mnist-rows": ((28,), 28)}
CLASSES = {"torchvision:CIFAR100": 100, "tiny-imagenet": 200, "spikingjelly:DVS128Gesture": 11}


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
    features, steps = shape(config)
    classes = CLASSES.get(config.data.name, 10)
    net = network.build(config.network, features, classes, steps).eval()
    assert any(map(is_quantized, net.modules()))
    assert config.readout.candidates[-1] == steps
    if sum(p.numel() for p in net.parameters()) < 3e6:  # the others are too slow here
        with torch.no_grad():
            assert net(torch.zeros(steps, 1, *features)).shape == (steps, 1, classes)
