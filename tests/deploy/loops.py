"""What tests of loops over time share: snnTorch's neurons in float64, and what a network's heads give."""

from typing import Any

import numpy as np
import snntorch as snn
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.inputs import read

from .oracle import reduced, unrounded


@torch.no_grad()
def in_float64(model: nn.Module) -> nn.Module:
    """A float64 copy with unrounded weights, whose snnTorch neurons do not make float32 of their spikes."""
    copied = unrounded(model)
    for module in copied.modules():
        if isinstance(module, snn.SpikingNeuron):
            module.spike_grad = _fired
    return copied


def _fired(u: Tensor) -> Tensor:
    return (u > 0).double()


def heads(graph: Graph, x: Any) -> list[NDArray[np.float64]]:
    """What each head gives for an input, by definition."""
    levels, steps = read(graph, x)
    scores, _ = interpret.run(graph, levels.astype(np.int64), steps)
    read_out = []
    for head, numbers in zip(graph.heads, scores, strict=True):
        shaped = numbers.reshape(*numbers.shape[:2], *head.features)
        read_out.append(reduced(head, shaped) * head.unit)
    return read_out
