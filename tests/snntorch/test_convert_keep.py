"""convert(model, reset="keep"): networks of snnTorch compute what they did."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, convert
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel, reset

T = 12


class Loop(nn.Module):
    """A loop over time around layers and neurons, as in snnTorch's tutorials."""

    def __init__(self, *neurons: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = [6, 9, 7, 5][: len(neurons) + 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.neurons = nn.ModuleList(neurons)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        reset(self)
        out = []
        for step in x:
            for layer, neuron in zip(self.layers, self.neurons, strict=True):
                step = neuron(layer(step.to(x.dtype)))
                step = step[0] if isinstance(step, tuple) else step
            out.append(step)
        return torch.stack(out)


def inputs(steps: int = T) -> Tensor:
    return torch.rand(steps, 4, 6, dtype=torch.double) * 2


def taken(neuron: nn.Module) -> bool:
    return isinstance(neuron, MFPLeaky | MFPLeakyParallel)


@st.composite
def leaky(draw: st.DrawFn, width: int) -> nn.Module:
    """A neuron of snnTorch over so many features."""
    torch.manual_seed(draw(st.integers(0, 99)))
    how = draw(st.sampled_from(["subtract", "zero", "none"]))
    beta = draw(st.sampled_from([0.0, 0.5, 0.9, 1.0, "each"]))
    threshold = draw(st.sampled_from([0.3, 1.0, "each"]))
    options: dict[str, Any] = {"reset_mechanism": how, "init_hidden": draw(st.booleans())}
    options["threshold"] = torch.rand(width) + 0.1 if threshold == "each" else threshold
    kind = draw(st.sampled_from(["Leaky", "Leaky", "Lapicque", "at once"]))
    if kind == "Lapicque" and how != "zero":
        return snn.Lapicque(R=2.0, C=1.5, **options)
    options["reset_delay"] = kind != "at once" or how == "subtract"
    return snn.Leaky(torch.rand(width) if beta == "each" else beta, **options)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([None, T, T + 3]))
def test_a_network_computes_what_it_did_where_the_order_covers_its_steps(
    data: st.DataObject, order: int | None
) -> None:
    model = Loop(*(data.draw(leaky(width)) for width in (9, 7, 5))).double()
    x = inputs()
    expected = model(x)
    convert(model, reset="keep", order=order)
    assert all(map(taken, model.neurons))
    assert torch.equal(model(x), expected)


def synaptic(**options: Any) -> nn.Module:
    return snn.Synaptic(0.8, torch.rand(9) * 0.9, threshold=torch.rand(9) + 0.3, init_hidden=True, **options)


def alpha(**options: Any) -> nn.Module:
    return snn.Alpha(0.85, 0.6, threshold=0.1, init_hidden=True, **options)


@pytest.mark.parametrize(
    "make",
    [
        synaptic,
        lambda: synaptic(reset_mechanism="none"),
        lambda: alpha(reset_mechanism="none"),
    ],
)
def test_two_exponentials_become_taps_with_their_reset(make: Any) -> None:
    model = Loop(make()).double()
    short, x = deepcopy(model), inputs()
    expected = model(x)
    convert(model, reset="keep", order=T)
    assert torch.equal(model(x), expected) and 0.05 < expected.mean() < 0.95
    convert(short, reset="keep", order=T - 4)
    assert torch.equal(short(x)[: T - 4], expected[: T - 4])
    assert 0 < short.mfp_conversion.swapped[0].cut_off < 1


LEFT = {
    "leaves its synaptic current": lambda: synaptic(reset_mechanism="zero"),
    "subtract its threshold twice": lambda: snn.Leaky(0.5, reset_delay=False),
    "twice for one spike": lambda: synaptic(reset_delay=False),
    "current that decays by alpha": lambda: alpha(reset_mechanism="subtract"),
    "decays by alpha, by what is no sum": lambda: alpha(),
    "also drops the input of the step after": lambda: snn.Lapicque(beta=0.5, reset_mechanism="zero"),
    "before its first spike": lambda: snn.Leaky(0.5, threshold=-0.1),
}


@pytest.mark.parametrize("words", LEFT)
def test_a_reset_that_own_spikes_do_not_say_is_left_with_its_reason(words: str) -> None:
    model = Loop(LEFT[words](), snn.Leaky(0.5))
    convert(model, reset="keep", order=4)
    (left,) = model.mfp_conversion.left
    assert words in left.why and not taken(model.neurons[0]) and taken(model.neurons[1])


def test_without_an_order_a_reset_may_come_twice_as_in_snn_leaky() -> None:
    model = Loop(snn.Leaky(0.9, threshold=0.4, reset_delay=False)).double()
    x = inputs() * 3
    expected = model(x)
    convert(model, reset="keep")
    assert torch.equal(model(x), expected) and taken(model.neurons[0])


def test_whole_sequences_compute_what_the_loop_did() -> None:
    torch.manual_seed(0)
    steps = nn.Sequential(nn.Linear(6, 9), snn.Leaky(0.9, threshold=0.3, init_hidden=True)).double()
    x = inputs()
    expected = torch.stack([steps(step) for step in x])
    convert(steps, reset="keep", to=MFPLeakyParallel)
    assert torch.equal(steps(x), expected) and 0.05 < expected.mean() < 0.95
    plain = convert(snn.Leaky(0.9, reset_mechanism="zero"), reset="keep", to=MFP)
    assert plain.feedback.spec(plain.kernel, 1.0).kind == "zero"
    with pytest.raises(ValueError, match="the threshold that MFP subtracts has decayed by a step"):
        convert(snn.Leaky(0.9), reset="keep", to=MFP)


def test_what_an_order_cuts_off_is_said(said: Any) -> None:
    model = Loop(snn.Leaky(0.5), snn.Leaky(torch.tensor([0.9] * 6 + [0.5]), reset_mechanism="zero"))
    convert(model, reset="keep", order=[3, 5])
    first, second = model.mfp_conversion.swapped
    assert first.cut_off == pytest.approx(0.125) and second.cut_off == pytest.approx(0.9**5, rel=1e-4)
    words = "'neurons.0', 12 % of its past cut off, 'neurons.1', 59 % of its past cut off"
    assert words in said.text and "reset=zero), 59 % of its past cut off" in str(model.mfp_conversion)


def test_a_reset_that_is_dropped_is_said_once(said: Any) -> None:
    convert(Loop(snn.Leaky(0.5), snn.Leaky(0.5, reset_mechanism="none"), snn.Lapicque(beta=0.5)))
    assert "the reset of 'neurons.0' (Leaky), 'neurons.2' (Lapicque) was dropped" in said.text
    assert "convert(model, reset='keep') keeps it" in said.text
    convert(Loop(snn.Leaky(0.5)))
    assert said.text.count("was dropped") == 1
    convert(Loop(snn.Leaky(0.5, reset_mechanism="none")), reset="keep")
    assert said.text.count("was dropped") == 1


def test_learned_feedback_may_take_the_place_of_a_reset() -> None:
    model = convert(Loop(snn.Leaky(0.5)), reset="feedback", order=4)
    assert model.neurons[0].reset_mechanism == "feedback" and model.neurons[0].feedback.taps.shape == (3,)
    with pytest.raises(ValueError, match="reset must be"):
        convert(Loop(snn.Leaky(0.5)), reset="hard")
