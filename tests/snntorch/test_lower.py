"""Lowering snnTorch's networks: whole sequences through MFPLeakyParallel; through MFPLeaky in a loop."""

from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

from mfp_neurons import deploy, quantize_weights
from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.quantize import codes
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from tests.deploy.oracle import unrounded

T = 6


class Network(nn.Module):
    """Two layers; the second neuron is asked for what ``returned`` says."""

    def __init__(self, returned: str = "spikes", **options: Any) -> None:
        super().__init__()
        self.returned = returned
        self.fc1 = nn.Linear(12, 16)
        self.lif1 = MFPLeakyParallel(
            0.5, threshold=0.25, kernel_bits="pow2", order=4, init_hidden=True, reset_mechanism="none"
        )
        self.fc2 = nn.Linear(16, 5)
        self.lif2 = MFPLeakyParallel(
            0.5, threshold=0.5, kernel_bits="pow2", **options, reset_mechanism="none"
        )
        self.eval()
        quantize_weights(self, 3)

    def forward(self, x: Tensor) -> Any:
        spk = self.lif1(self.fc1(x))
        spk, mem = self.lif2(self.fc2(spk))
        return {"spikes": spk.sum(0), "mem": mem, "both": (spk, mem)}[self.returned]


def events() -> Tensor:
    return torch.rand(T, 3, 12) < 0.4


@pytest.mark.parametrize(
    ("options", "last_taps"),
    [({}, 0.5 ** np.arange(T)), ({"order": 2, "stride": 3}, np.array([1, 0, 0, 0.125]))],
)
def test_spikes_are_those_of_the_equations_and_fire_above_the_threshold_only(
    options: dict[str, int], last_taps: Any
) -> None:
    model = Network(**options)
    with torch.no_grad():
        model.fc2.bias.fill_(0.5)  # alone it reaches the threshold and no more
        model.fc2.weight[0] = 0.0
    x = events()
    graph = lower_graph(model, x)
    spikes = x.double().numpy()
    for layer, neuron, taps in (
        (model.fc1, model.lif1, 0.5 ** np.arange(4)),
        (model.fc2, model.lif2, last_taps),
    ):
        read = codes(layer)
        weight = (read.codes * read.scale.double()).numpy()
        current = spikes @ weight.T + layer.bias.detach().double().numpy()
        potential = [sum(taps[j] * current[t - j] for j in range(min(t + 1, len(taps)))) for t in range(T)]
        spikes = (np.stack(potential) > float(neuron.threshold)).astype(float)
    (scores,), _ = interpret.run(graph, x.numpy().astype(np.int64)[..., None, None], T)
    found = scores.sum(0)[..., 0, 0] * graph.scores.unit
    np.testing.assert_array_equal(found, spikes.sum(0))
    assert graph.scores.reduce == "sum"
    assert found.min() < found.max()


def test_potentials_beside_the_spikes_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        network = deploy.lower(Network("both"), events())
    assert "returns potentials beside other tensors: they are left out" in caplog.text
    spk, _ = Network("both")(events().float())
    assert network.run(events()).shape == spk.shape


def test_nothing_may_read_a_potential() -> None:
    class Reads(Network):
        def forward(self, x):
            _, mem = self.lif2(self.fc2(self.lif1(self.fc1(x))))
            return (mem * mem).mean(0)

    with pytest.raises(LoweringError, match=r"membrane potential of .lif2. .* \(mul\)"):
        lower_graph(Reads(), events())


def test_a_sequence_starts_from_rest() -> None:
    class Starts(Network):
        def forward(self, x):
            return self.lif2(self.fc2(self.lif1(self.fc1(x))), torch.ones(3, 5))[0].mean(0)

    with pytest.raises(LoweringError, match="Every sequence starts from rest"):
        lower_graph(Starts(), events())


class Loop(nn.Module):
    """snnTorch's tutorials: a loop over time, potentials in hand, records of both."""

    def __init__(self, make: Any, steps: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.lif1 = nn.Linear(12, 16), make()
        self.fc2, self.lif2 = nn.Linear(16, 5), make()
        self.steps = steps
        quantize_weights(self.eval(), 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes, potentials = [], []
        for t in range(self.steps or len(x)):
            spk1, mem1 = self.lif1(self.fc1(x if self.steps else x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1.to(x.dtype)), mem2)
            spikes.append(spk2)
            potentials.append(mem2)
        return torch.stack(spikes), torch.stack(potentials)


@pytest.mark.parametrize("steps", [0, T])
@pytest.mark.parametrize(
    "options",
    [
        *({"reset_mechanism": "none", "order": order} for order in (None, 1, 3)),
        *({"reset_mechanism": "subtract", "order": order} for order in (None, T, 3)),
        *({"reset_mechanism": "zero", "order": order} for order in (None, 3)),
        {"reset_mechanism": "zero", "order": 3, "reset_delay": False},
        {"reset_mechanism": "feedback", "order": 3, "reset_order": 2},
    ],
    ids=str,
)
def test_a_loop_over_time_is_the_network_of_whole_sequences(options: dict[str, Any], steps: int) -> None:
    model = Loop(lambda: MFPLeaky(0.5, threshold=0.1, **options), steps)
    if options["reset_mechanism"] == "feedback":
        for neuron in (model.lif1, model.lif2):
            neuron.feedback.taps.data.copy_(torch.tensor([0.25, -0.125]))
    x = torch.randint(0, 256, (3, 12)).double() / 255 if steps else events().double()
    network = deploy.lower(model, x)
    with torch.no_grad():
        expected, _ = unrounded(model)(x)
    np.testing.assert_array_equal(network.run(x), expected.numpy())
    assert 0.02 < expected.mean() < 0.98 and network.graph.steps == T


def test_a_loop_that_stands_outside_is_refused_with_what_to_do() -> None:
    net = nn.Sequential(nn.Linear(12, 5), MFPLeaky(0.5, init_hidden=True, reset_mechanism="none"))
    with pytest.raises(LoweringError, match=r"the loop over time stands outside.*MFPLeakyParallel"):
        lower_graph(quantize_weights(net), torch.rand(3, 12))


LEAKY: dict[str, Any] = {
    "subtract": lambda: snn.Leaky(0.5, threshold=0.1),
    "zero": lambda: snn.Leaky(0.5, threshold=0.1, reset_mechanism="zero"),
    "zero at once": lambda: snn.Leaky(0.5, threshold=0.1, reset_mechanism="zero", reset_delay=False),
    "none": lambda: snn.Leaky(0.5, threshold=0.1, reset_mechanism="none"),
    "never leaking": lambda: snn.Leaky(1.0, threshold=0.4),
    "learned": lambda: snn.Leaky(0.5, threshold=0.1, learn_beta=True, learn_threshold=True),
    "Lapicque": lambda: snn.Lapicque(R=1.0, C=2.0, threshold=0.05),
}


@pytest.mark.parametrize("steps", [0, T])
@pytest.mark.parametrize("name", LEAKY)
def test_a_trained_loop_of_snntorch_is_lowered_as_it_is(name: str, steps: int) -> None:
    model = Loop(LEAKY[name], steps)
    x = torch.randint(0, 256, (3, 12)).double() / 255 if steps else events().double()
    network = deploy.lower(model, x)
    with torch.no_grad():
        expected, _ = unrounded(model)(x)
    np.testing.assert_array_equal(network.run(x), expected.numpy())
    assert 0.02 < expected.mean() < 0.98


def test_real_betas_are_rounded_on_the_way() -> None:
    model, x = Loop(lambda: snn.Leaky(torch.rand(1), threshold=0.1)), events()
    network = deploy.lower(model, x, kernel_bits=8)
    assert (
        "kernel_bits=8 rounded the taps of 'lif1' (Leaky), 'lif2' (Leaky): on 3 samples" in network.notes[0]
    )
    with torch.no_grad():
        expected, _ = model(x.float())
    assert (network.run(x) != expected.numpy()).mean() < 0.05 < expected.mean()


REFUSED = {
    "reset_delay=False.*make it with reset_delay=True": lambda: snn.Leaky(0.5, reset_delay=False),
    "twice for one spike.*make it with reset_delay=True": lambda: MFPLeaky(
        0.5, reset_mechanism="subtract", reset_delay=False
    ),
    "also drops the input of the step after a spike.*Leaky": lambda: snn.Lapicque(
        beta=0.5, reset_mechanism="zero"
    ),
    "before its first spike.*threshold is below 0": lambda: snn.Leaky(0.5, threshold=-0.5),
    "convert leaves it as it is|order=K": lambda: snn.Synaptic(0.9, 0.8),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_neuron_that_is_no_sum_is_refused_with_reason_and_cure(words: str) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = quantize_weights(nn.Linear(12, 5)), REFUSED[words]()

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.lif(self.fc(step))[0] for step in x])

    with pytest.raises(LoweringError, match=rf"'lif' \(\w+\) .*({words})"):
        deploy.lower(One(), events())
