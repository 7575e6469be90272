"""The networks that training makes can be deployed."""

from typing import Any

import pytest
import torch

from mfp_neurons.train.config import NetworkConfig, NeuronConfig
from mfp_neurons.train.network import build

from .lowering import check_agreement, events, norm, prepared


@pytest.mark.parametrize("kind", ["exp", "fir", "matrix"])
@pytest.mark.parametrize(("channels", "features"), [((), (10,)), ((4, 3), (2, 8, 8))])
def test_a_configured_network_agrees_with_float64(
    kind: str, channels: tuple[int, ...], features: tuple[int, ...]
) -> None:
    options: dict[str, Any] = {
        "kernel_bits": "pow2",
        "order": (1, 2, 3, 4)[: len(channels) + 2],
        "kind": kind,
    }
    config = NetworkConfig(
        channels=channels,
        hidden=(12, 9),
        neuron=NeuronConfig(threshold=0.3, per_channel=kind != "matrix", **options),
    )
    network = build(config, features, 5, time_steps=4)
    for block in network.blocks():
        block.norm.load_state_dict(norm(type(block.norm), block.norm.num_features).state_dict())
    graph = check_agreement(network, events(*features))
    assert graph.steps == 4
    assert graph.scores.reduce == "none"
    names = [op.name for op in graph.ops if op.name.endswith("neuron")]
    assert names == [path for path, module in network.named_modules() if path.endswith("neuron")]


@pytest.mark.parametrize("kind", ["exp", "fir", "matrix"])
@pytest.mark.parametrize(("channels", "features"), [((), (10,)), ((4, 3), (2, 8, 8))])
@pytest.mark.parametrize("windows", [2, "in front of the last layer alone"])
def test_a_network_that_pools_over_time_agrees_with_float64(
    kind: str, channels: tuple[int, ...], features: tuple[int, ...], windows: Any
) -> None:
    layers = len(channels) + 2
    config = NetworkConfig(
        channels=channels,
        hidden=(12, 9),
        time_pool=windows if windows == 2 else (1,) * (layers - 1) + (4,),
        neuron=NeuronConfig(kind=kind, kernel_bits="pow2", threshold=0.3, per_channel=kind != "matrix"),
    )
    steps = 2**layers
    network = build(config, features, 5, time_steps=steps)
    for block in network.blocks():
        block.norm.load_state_dict(norm(type(block.norm), block.norm.num_features).state_dict())
    x = torch.rand(steps, 2, *features, generator=torch.Generator().manual_seed(0)) < 0.4
    graph = check_agreement(network, x)
    assert (graph.steps, graph.periods[-1]) == (steps, steps if windows == 2 else 4)


def test_the_steps_of_its_readout_can_be_averaged() -> None:
    class Last(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)[-2:].mean(0)

    config = NetworkConfig(hidden=(12,), neuron=NeuronConfig(kernel_bits=4, threshold=0.3))
    graph = check_agreement(prepared(Last(build(config, (6,), 3, time_steps=4))), events(6))
    assert (graph.scores.reduce, graph.scores.last) == ("mean", 2)
