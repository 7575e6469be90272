"""Networks whose neurons reset or feed their spikes back: integers fire as float64 does."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.network import describe

from .oracle import unrounded

T = 9


@st.composite
def neurons(draw: st.DrawFn, channels: int) -> MFP:
    reset = draw(st.sampled_from(["subtract", "zero", "feedback"]))
    order = draw(st.sampled_from([1, 2, 4, T] if reset == "feedback" else [None, 1, 2, 4, T]))
    options: dict[str, Any] = {
        "v_threshold": draw(st.sampled_from([0.1, 0.4])),
        "reset": reset,
        "order": order,
    }
    options["strict"] = draw(st.booleans())
    if reset == "feedback" or (reset == "subtract" and order not in (None, 1) and draw(st.booleans())):
        options["reset_order"] = draw(st.integers(1, T))
    if order is not None:
        options["kernel_bits"] = draw(st.sampled_from(["pow2", 3]))
        options["kernel"] = draw(st.sampled_from(["exp", "fir"]))
        if options["kernel"] == "fir" and draw(st.booleans()):
            options["num_channels"] = channels
    neuron = MFP(draw(st.sampled_from([0.5, 0.25])), **options)
    if reset == "feedback":
        with torch.no_grad():
            neuron.feedback.taps.copy_(torch.randn(neuron.feedback.taps.shape) / 2)
    return neuron


class Residual(nn.Module):
    """Neurons over the currents of two synapses."""

    def __init__(self, one: nn.Module, other: nn.Module, fire: nn.Module) -> None:
        super().__init__()
        self.one, self.other, self.fire = one, other, fire

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(self.one(x) + self.other(x))


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(draw(st.integers(0, 2**20)))
    widths = [draw(st.integers(2, 9)) for _ in range(draw(st.integers(2, 4)))]
    blocks: list[nn.Module] = []
    for a, b in pairwise(widths):
        fire = draw(neurons(b))
        if draw(st.booleans()):
            blocks.append(Residual(nn.Linear(a, b), nn.Linear(a, b), fire))
        else:
            blocks += [nn.Linear(a, b), fire]
    model = quantize_weights(nn.Sequential(*blocks), draw(st.sampled_from([1, 3])))
    return model.eval(), (torch.rand(T, 4, widths[0]) < 0.4).float()


@settings(max_examples=60, deadline=None)
@given(networks())
def test_integers_fire_as_float64_does_and_every_execution_agrees(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    network = deploy.lower(model, x)
    with torch.no_grad():
        expected = unrounded(model)(x.double()).numpy()
    scores = network.run(x)
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(network.run(x, backend="numpy"), scores)
    stream = network.stream()
    np.testing.assert_array_equal(np.stack([stream.step(step) for step in x]), scores)
    np.testing.assert_array_equal(network.run_events(x).scores, scores)


def test_a_description_says_what_resets() -> None:
    model = nn.Sequential(
        nn.Linear(6, 4),
        MFP(0.5, reset="subtract"),
        MFP(0.5, order=3, reset="zero"),
        MFP(0.5, order=3, reset="feedback", reset_order=5),
        MFP(0.5, order=4, reset="subtract"),
    )
    words = [layer.holds().partition(", u ")[2] for layer in describe(model, torch.zeros(T, 1, 6)).layers[2:]]
    assert words == [
        ">= 1, threshold subtracted",
        ">= 1, reset to zero",
        ">= 1, feedback, 5 own spikes",
        ">= 1, threshold subtracted, 3 own spikes",
    ]
