"""What is measured once for each neuron, and not timed."""

from typing import Any

import torch

from . import memory
from .calls import Inputs, Neuron


def probe(neuron: Neuron, inputs: Inputs) -> dict[str, float]:
    """Firing rate, and bytes for one element of the input: saved for backward, and held at the peak."""
    x, grad = inputs.next()
    x.requires_grad_()

    def forward() -> Any:
        neuron.reset()
        return neuron.call(x)

    def training() -> None:
        spikes = forward()
        torch.autograd.grad(spikes, [x, *neuron.parameters], inputs.gradient(spikes, grad))

    with neuron.around():
        with torch.no_grad():
            rate = float(forward().float().mean())
        saved = memory.saved_bytes(forward, neuron.parameters)
        peak = memory.peak_bytes(training, x.device)
    neuron.reset()
    return {
        "firing_rate": rate,
        "saved_bytes_per_element": saved / x.numel(),
        "peak_bytes_per_element": peak / x.numel(),
    }
