"""The networks that training makes can be deployed."""

from typing import Any

import pytest
import torch

from mfp_neurons.train.config import NetworkConfig, NeuronConfig
from mfp_neurons.train.network import build

from .lowering import check_agreement, norm


@pytest.mark.parametrize("kind", ["exp", "fir", "matrix"])
@pytest.mark.parametrize(("channels", "features"), [((), (10,)), ((4, 3), (2, 8, 8))])
@pytest.mark.parametrize("windows", [1, 2, "in front of the last layer alone"])
def test_a_configured_network_agrees_with_float64(
    kind: str, channels: tuple[int, ...], features: tuple[int, ...], windows: Any
) -> None:
    layers = len(channels) + 2
    options = {"kind": kind, "kernel_bits": "pow2", "threshold": 0.3, "per_channel": kind != "matrix"}
    config = NetworkConfig(
        channels=channels,
        hidden=(12, 9),
        time_pool=windows if isinstance(windows, int) else (1,) * (layers - 1) + (4,),
        neuron=NeuronConfig(order=(1, 2, 3, 4)[:layers] if windows == 1 else None, **options),
    )
    steps = 4 if windows == 1 else 2**layers
    network = build(config, features, 5, time_steps=steps)
    for block in network.blocks():
        block.norm.load_state_dict(norm(type(block.norm), block.norm.num_features).state_dict())
    x = torch.rand(steps, 2, *features, generator=torch.Generator().manual_seed(0)) < 0.4
    graph = check_agreement(network, x)
    periods = {1: 1, 2: steps}
    assert (graph.steps, graph.periods[-1]) == (steps, periods.get(windows, 4))
    assert graph.scores.reduce == "none"
    names = [op.name for op in graph.ops if op.name.endswith("neuron")]
    assert names == [path for path, module in network.named_modules() if path.endswith("neuron")]
