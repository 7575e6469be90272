"""Models as users of SpikingJelly and snnTorch write them: steps, whole sequences, and loops."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import MFP, convert, quantize_weights
from mfp_neurons.adapters import describe_neuron
from mfp_neurons.nir import NIRError, from_nir, to_nir

from .execute import by_numpy

STEPS = 15


def check(model: nn.Module, x: Tensor, example: Tensor | None = None) -> Any:
    """What comes back of a model gives its first output, spike for spike; the graph."""
    graph = to_nir(model, x if example is None else example)
    with torch.no_grad():
        expected = model(x) if example is None else torch.stack([first(model(step)) for step in x])
        assert torch.equal(from_nir(graph)(x), first(expected))
    assert 0 < first(expected).mean() < 1
    return graph


def first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


# --- SpikingJelly -----------------------------------------------------------------------------------------


def spikingjelly_model(step_mode: str, **options: Any) -> nn.Module:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer

    from mfp_neurons import MFPNode

    torch.manual_seed(0)
    model = nn.Sequential(
        layer.Conv2d(2, 6, 3, padding=1, bias=False),
        layer.BatchNorm2d(6),
        MFPNode(tau=2.0, v_threshold=0.3, **options, reset=None),
        layer.MaxPool2d(2),
        layer.Conv2d(6, 6, 3, padding=1, groups=3),
        MFPNode(tau=3.0, learnable=True, num_channels=6, v_threshold=0.1, reset=None),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Dropout(0.5),
        layer.Linear(24, 20),
        MFPNode(tau=4.0, decay_input=False, order=4, v_threshold=0.2, reset=None),
        layer.VotingLayer(10),
    )
    functional.set_step_mode(model, step_mode)
    with torch.no_grad():
        model[1].running_mean.normal_(0, 0.1)
        model[1].weight.uniform_(-1, 1)
    return model


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("weight_bits", [None, 1])
def test_spikingjelly_models_come_back_spike_for_spike(step_mode: str, weight_bits: int | None) -> None:
    model = spikingjelly_model(step_mode)
    if weight_bits:
        quantize_weights(model, weight_bits)
    x = torch.rand(STEPS, 3, 2, 8, 8)
    example = x if step_mode == "m" else x[0]
    graph = to_nir(model, example)
    model.eval()
    with torch.no_grad():
        expected = model(x) if step_mode == "m" else torch.stack([model(step) for step in x])
        found = from_nir(graph)(x)
    if weight_bits:
        assert torch.equal(found, expected)  # quantized layers come back with their batch norms
    else:
        assert (found - expected).abs().mean() < 1e-3  # a float layer comes back with it folded in
    assert expected.std() > 0


def test_a_fused_batch_norm_is_folded_too() -> None:
    model = convert(spikingjelly_model("m"), weight_bits=1, fuse=True).eval()
    graph = check(model, torch.rand(STEPS, 3, 2, 8, 8))
    assert "norm_mean" in graph.nodes["0"].metadata


def test_input_that_is_scaled_by_one_over_tau_needs_no_scale() -> None:
    graph = to_nir(spikingjelly_model("m"), torch.rand(STEPS, 1, 2, 8, 8))
    assert "2_gain" not in graph.nodes
    assert "2_leak" in graph.nodes


def lifs(v_reset: float) -> list[nn.Module]:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import neuron

    return [
        neuron.LIFNode(tau=2.0, v_threshold=0.25, v_reset=v_reset, step_mode="m"),
        neuron.IFNode(v_threshold=0.5, v_reset=v_reset, step_mode="m"),
        neuron.ParametricLIFNode(2.0, False, v_threshold=0.25, v_reset=v_reset, step_mode="m"),
    ]


@pytest.mark.parametrize("v_reset", [0.0, -0.25])
def test_spikingjelly_s_own_lifs_are_written_as_nodes_that_reset(v_reset: float) -> None:
    torch.manual_seed(0)
    fire = lifs(v_reset)
    model = nn.Sequential(nn.Linear(3, 8), fire[0], nn.Linear(8, 8), fire[1], nn.Linear(8, 3), fire[2])
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.copy_(torch.randint(-4, 5, layer.weight.shape) / 4)
            layer.bias.copy_(torch.randint(0, 3, layer.bias.shape) / 8)
    x = torch.randint(0, 5, (STEPS, 4, 3)) / 4
    graph = check(model, x)
    for node in fire:
        node.reset()
    assert (by_numpy(graph, x.numpy(), graph.metadata["dt"]) == model(x).detach().numpy()).all()
    assert [type(graph.nodes[name]).__name__ for name in ("1", "3", "5")] == ["LIF", "IF", "LIF"]
    again = from_nir(graph)
    assert {one.reset.kind for one in map(describe_neuron, again.modules()) if one is not None} == {"zero"}


# --- snnTorch ---------------------------------------------------------------------------------------------


@pytest.fixture
def leaky() -> Any:
    pytest.importorskip("snntorch")
    from mfp_neurons import snntorch

    return snntorch


class Looped(nn.Module):
    """snnTorch's tutorials: a loop over time, potentials in hand."""

    def __init__(self, leaky: Any, steps: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(5, 8), nn.Linear(8, 3)
        self.lif1 = leaky.MFPLeaky(beta=torch.rand(8), threshold=0.2, reset_mechanism="none")
        self.lif2 = leaky.MFPLeaky(0.8, order=3, threshold=0.1, reset_mechanism="none")
        self.steps = steps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.reset_mem()
        spikes, potentials = [], []
        for t in range(self.steps or len(x)):
            spk1, mem1 = self.lif1(self.fc1(x if self.steps else x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            potentials.append(mem2)
        return torch.stack(spikes), torch.stack(potentials)


def test_a_loop_over_the_steps_of_the_input_is_one_graph(leaky: Any) -> None:
    parts = from_nir(check(Looped(leaky), torch.rand(STEPS, 4, 5))).parts.values()
    assert [type(part).__name__ for part in parts] == ["Linear", "MFP", "Linear", "MFP"]


def test_a_loop_that_repeats_its_input_is_one_graph(leaky: Any) -> None:
    assert check(Looped(leaky, STEPS), torch.rand(4, 5)).metadata["repeats"] == STEPS


def test_one_step_of_a_sequential_model_is_a_graph(leaky: Any) -> None:
    torch.manual_seed(0)
    hidden = {"init_hidden": True, "threshold": 0.2}
    fire, last = (
        leaky.MFPLeaky(0.9, **hidden, reset_mechanism="none"),
        leaky.MFPLeaky(0.7, **hidden, output=True, reset_mechanism="none"),
    )
    x = torch.rand(STEPS, 4, 5)
    check(nn.Sequential(nn.Linear(5, 8), fire, nn.Linear(8, 3), last), x, x[0])


def test_whole_sequences_and_graded_spikes_come_back(leaky: Any) -> None:
    torch.manual_seed(0)
    graded = leaky.MFPLeakyParallel(
        0.9, init_hidden=True, threshold=0.2, graded_spikes_factor=0.5, reset_mechanism="none"
    )
    taps = leaky.MFPLeakyParallel(
        0.9, kernel="fir", order=4, num_channels=3, threshold=0.1, reset_mechanism="none"
    )
    check(nn.Sequential(nn.Linear(5, 8), graded, nn.Linear(8, 3), taps), torch.rand(STEPS, 4, 5))


def test_a_neuron_of_its_own_decay_for_every_place_comes_back(leaky: Any) -> None:
    torch.manual_seed(0)
    model = leaky.MFPLeakyParallel(
        torch.rand(2, 3, 3), threshold=torch.rand(2, 3, 3), init_hidden=True, reset_mechanism="none"
    )
    check(model, torch.rand(STEPS, 4, 2, 3, 3))


def test_a_loop_over_a_leaky_that_resets_to_zero_is_one_graph(leaky: Any) -> None:
    import snntorch as snn

    model = Looped(leaky)
    model.lif1 = snn.Leaky(torch.rand(8), threshold=0.2, reset_mechanism="zero")
    model.lif2 = snn.Leaky(0.8, threshold=0.1, reset_mechanism="none")
    graph = check(model, torch.rand(STEPS, 4, 5))
    assert type(graph.nodes["lif1"]).__name__ == "LIF"

    class Reads(Looped):
        def forward(self, x: Tensor) -> Any:
            _, mem = super().forward(x)
            return mem

    model = Reads(leaky)
    model.lif2 = snn.Leaky(0.8, reset_mechanism="zero")
    with pytest.raises(NIRError, match=r"the potential of 'lif2' \(Leaky\), which resets"):
        to_nir(model, torch.rand(STEPS, 4, 5))
    model.lif2 = snn.Leaky(0.8)
    with pytest.raises(NIRError, match=r"'lif2' \(Leaky\) subtracts its threshold.*reset_mechanism='zero'"):
        to_nir(model, torch.rand(STEPS, 4, 5))


@pytest.mark.parametrize(
    ("neuron", "words"),
    [
        (MFP(0.5, reset="subtract"), "subtracts its threshold when it fires"),
        (MFP(0.5, order=4, reset="feedback"), r"weighs its own spikes by taps \(reset='feedback'\)"),
        (MFP(0.5, order=STEPS - 1, reset="zero"), "resets a sum of taps.*one that covers all steps"),
        (MFP(kernel="fir", order=STEPS, reset="zero"), "resets a sum of taps"),
    ],
)
def test_a_reset_that_nir_does_not_have_is_refused_with_what_to_do(neuron: MFP, words: str) -> None:
    with pytest.raises(NIRError, match=words):
        to_nir(neuron, torch.rand(STEPS, 2, 3))


def test_an_order_that_covers_all_steps_is_none_in_nir() -> None:
    x = torch.rand(STEPS, 4, 3)
    check(MFP(0.75, order=STEPS, reset="zero", v_threshold=1.5), x)
