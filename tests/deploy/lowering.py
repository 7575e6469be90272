"""What tests of lowering share: models from a function, and the comparison with float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mfp_neurons import MFP, quantize_weights
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.lowering import lower_graph

from .oracle import exact

T, N = 4, 2


class Do(nn.Module):
    """A model whose forward is given; its layers are arguments."""

    def __init__(self, forward: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.does = forward

    def forward(self, x: Tensor) -> Any:
        return self.does(x, *self.layers)


class Each(nn.Sequential):
    """Layers that take [N, *], at every step."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def neuron(threshold: float = 0.3, **options: Any) -> MFP:
    return MFP(0.5, v_threshold=threshold, order=options.pop("order", 3), kernel_bits="pow2", **options)


def norm(kind: type, channels: int) -> nn.Module:
    made = kind(channels)
    with torch.no_grad():
        made.running_mean.normal_(0, 0.3)
        made.running_var.uniform_(0.05, 0.5)
        made.weight.normal_(0.5, 0.7)  # some negative
        made.bias.normal_(0, 0.3)
    return made


def prepared(model: nn.Module, bits: float = 3) -> nn.Module:
    torch.manual_seed(1)
    return quantize_weights(model, bits)


def check_agreement(model: nn.Module, example: Tensor) -> Graph:
    """Lowers, and compares the scores with those that the model has in float64."""
    graph = lower_graph(model, example)
    expected = exact(model)(example.double() / (255 if example.dtype == torch.uint8 else 1)).numpy()
    scores = IntegerNetwork(graph).run(example.numpy(), backend="numpy")
    assert scores.shape == expected.shape
    assert np.abs(expected).max() > 0, "a model that says nothing tests nothing"
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)
    return graph


def events(*shape: int) -> Tensor:
    return torch.rand(T, N, *shape, generator=torch.Generator().manual_seed(0)) < 0.4


def images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (N, *shape), dtype=torch.uint8, generator=generator)
