"""Real taps that deploy.lower rounds: the network is that of neurons made with these kernel_bits."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, TimePool, deploy, quantize_weights
from mfp_neurons.deploy.graph import Graph, Neurons

T = 8


def network(*neurons: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    widths = [6, 9, 7, 5]
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)][: len(neurons)]
    model = nn.Sequential(*(part for pair in zip(layers, neurons, strict=True) for part in pair))
    return quantize_weights(model, 2).eval()


def events() -> Tensor:
    return (torch.rand(T, 5, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def assert_equal(one: Graph, other: Graph) -> None:
    for a, b in zip(one.ops, other.ops, strict=True):
        if isinstance(a, Neurons) and isinstance(b, Neurons):
            assert np.array_equal(a.taps, b.taps) and np.array_equal(a.thresholds, b.thresholds)
            own = [None if op.feedback is None else op.feedback.taps for op in (a, b)]
            assert (a.feedback is None) == (b.feedback is None)
            assert own[0] is own[1] is None or np.array_equal(*own)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"decay": draw(st.sampled_from([0.3, 0.9, 0.77])), "v_threshold": 0.4}
    found["reset"] = draw(st.sampled_from([None, "subtract", "zero", "feedback"]))
    found["order"] = draw(st.sampled_from([2, 5, T]))
    if found["reset"] in (None, "zero"):
        found["kernel"] = draw(st.sampled_from(["exp", "fir"]))
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(options(), min_size=3, max_size=3), st.sampled_from(["pow2", 2, 4, 8]))
def test_the_network_is_that_of_neurons_with_these_bits(made: list[dict[str, Any]], bits: Any) -> None:
    real, gridded = ([MFP(**one, kernel_bits=b) for one in made] for b in (None, bits))
    for a, b in zip(real, gridded, strict=True):
        if a.feedback.kind == "feedback":
            with torch.no_grad():
                a.feedback.taps.uniform_(-1, 1)
        b.load_state_dict(a.state_dict())
    x = events()
    rounded = deploy.lower(network(*real), x, kernel_bits=bits)
    assert_equal(rounded.graph, deploy.lower(network(*gridded), x).graph)
    assert rounded.notes and not deploy.lower(network(*gridded), x, kernel_bits=bits).notes


@pytest.mark.parametrize("bits", ["pow2", 4, 8])
@pytest.mark.parametrize("framework", ["spikingjelly", "snntorch"])
def test_it_is_the_network_of_the_model_that_convert_makes_with_these_bits(framework: str, bits: Any) -> None:
    pytest.importorskip(framework)
    from mfp_neurons import convert

    if framework == "spikingjelly":
        from spikingjelly.activation_based import neuron

        soft, hard = {"v_reset": None, "step_mode": "m"}, {"v_reset": -0.1, "step_mode": "m"}
        model = network(
            neuron.LIFNode(3.0, v_threshold=0.3, **soft),
            neuron.LIFNode(1.7, False, v_threshold=0.5, **hard),
            neuron.ParametricLIFNode(2.5, v_threshold=0.2, **soft),
        )
    else:
        import snntorch as snn

        from mfp_neurons.snntorch import MFPLeakyParallel

        class Steps(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: Tensor) -> Tensor:
                return torch.stack([self.inner(step) for step in x])

        each = {"beta": torch.rand(9), "threshold": torch.rand(9) + 0.2}
        leaky = network(
            snn.Leaky(**each, init_hidden=True),
            snn.Leaky(0.8, threshold=0.4, reset_mechanism="zero", init_hidden=True),
            snn.Leaky(0.9, threshold=0.3, reset_mechanism="none", init_hidden=True),
        )
        model, kept = Steps(leaky), deepcopy(leaky)
        convert(kept, to=MFPLeakyParallel, reset="keep", order=T, kernel_bits=bits)
    if framework == "spikingjelly":
        kept = convert(deepcopy(model), reset="keep", order=T, kernel_bits=bits, learnable=False)
    x = events()
    rounded, other = deploy.lower(model, x, kernel_bits=bits), deploy.lower(kept, x)
    if framework == "spikingjelly":  # snnTorch's thresholds are float32, and so is what MFPLeaky subtracts
        assert_equal(rounded.graph, other.graph)
    np.testing.assert_array_equal(rounded.run(x), other.run(x))
    assert rounded.run(x).any()


@pytest.mark.parametrize("decays", [1, 9])
@pytest.mark.parametrize("thresholds", [1, 9])
def test_decays_and_thresholds_of_each_channel_or_of_all(decays: int, thresholds: int) -> None:
    snn = pytest.importorskip("snntorch")
    from mfp_neurons import convert
    from mfp_neurons.snntorch import MFPLeakyParallel

    torch.manual_seed(2)
    beta, threshold = torch.rand(decays), torch.rand(thresholds) * 0.3 + 0.2
    model, x = network(snn.Leaky(beta, threshold=threshold, init_hidden=True)), events()
    keep = {"to": MFPLeakyParallel, "reset": "keep", "order": T}
    rounded = deploy.lower(convert(deepcopy(model), **keep), x, kernel_bits=8)
    scores = deploy.lower(convert(deepcopy(model), **keep, kernel_bits=8), x).run(x)
    np.testing.assert_array_equal(rounded.run(x), scores)
    assert scores.any() and rounded.notes


def test_a_lag_behind_a_pooling_over_time_counts_in_its_own_steps() -> None:
    def made(**options: Any) -> nn.Module:
        first, second, third = MFP(0.9, **options), MFP(0.9, reset="subtract", **options), MFP(order=1)
        model = network(first, second, third)
        return nn.Sequential(*model[:2], TimePool(2), *model[2:])

    x = events()
    rounded = deploy.lower(made(), x, kernel_bits=8)
    assert [len(op.taps[0]) for op in rounded.graph.ops if isinstance(op, Neurons)] == [8, 4, 1]


def test_what_is_no_grid_is_refused() -> None:
    for bits in (1, 9, "pow3"):
        with pytest.raises(ValueError, match="kernel_bits must be None, 'pow2' or an integer from 2 to 8"):
            deploy.lower(network(MFP(0.9)), events(), kernel_bits=bits)


def test_a_compiled_model_is_measured_as_the_model_itself() -> None:
    model, x = network(MFP(0.9, v_threshold=0.3), MFP(0.7, reset="subtract", v_threshold=0.3)), events()
    notes = deploy.lower(model, x, kernel_bits=2).notes
    assert notes == deploy.lower(torch.compile(model), x, kernel_bits=2).notes
    assert f"of {T * 5 * (9 + 7)} spikes are others" in notes[0]
