"""Lowering snnTorch's networks: whole sequences through MFPLeakyParallel; loops get a clear word."""

from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

from mfp_neurons import quantize_weights
from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.quantize import codes
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

T = 6


class Network(nn.Module):
    """Two layers; the second neuron is asked for what ``returned`` says."""

    def __init__(self, returned: str = "spikes", **options: Any) -> None:
        super().__init__()
        self.returned = returned
        self.fc1 = nn.Linear(12, 16)
        self.lif1 = MFPLeakyParallel(0.5, threshold=0.25, kernel_bits="pow2", order=4, init_hidden=True)
        self.fc2 = nn.Linear(16, 5)
        self.lif2 = MFPLeakyParallel(0.5, threshold=0.5, kernel_bits="pow2", **options)
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
    scores, _ = interpret.run(graph, x.numpy().astype(np.int64)[..., None, None], T)
    found = scores.sum(0)[..., 0, 0] * graph.scores.unit
    np.testing.assert_array_equal(found, spikes.sum(0))
    assert graph.scores.reduce == "sum"
    assert found.min() < found.max()


def test_a_potential_is_never_written() -> None:
    for returned, words in (("mem", "returns the membrane potential of 'lif2'"), ("both", "a tuple of 2")):
        with pytest.raises(LoweringError, match=words):
            lower_graph(Network(returned), events())


def test_nothing_may_read_a_potential() -> None:
    class Reads(Network):
        def forward(self, x):
            _, mem = self.lif2(self.fc2(self.lif1(self.fc1(x))))
            return (mem * 2).mean(0)

    with pytest.raises(LoweringError, match=r"membrane potential of .lif2. .* \(mul\)"):
        lower_graph(Reads(), events())


def test_a_sequence_starts_from_rest() -> None:
    class Starts(Network):
        def forward(self, x):
            return self.lif2(self.fc2(self.lif1(self.fc1(x))), torch.ones(3, 5))[0].mean(0)

    with pytest.raises(LoweringError, match="Every sequence starts from rest"):
        lower_graph(Starts(), events())


@pytest.mark.parametrize("kind", [MFPLeaky, snn.Leaky])
def test_the_usual_loop_over_time_gets_a_clear_word(kind: Any) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(12, 5), kind(0.5)

        def forward(self, x):
            mem = self.lif.init_leaky()
            recorded = []
            for _ in range(T):
                spk, mem = self.lif(self.fc(x), mem)
                recorded.append(spk)
            return torch.stack(recorded).mean(0)

    model = quantize_weights(Loop())
    with pytest.raises(LoweringError, match=r"'lif'") as caught:
        lower_graph(model, torch.rand(3, 12))
    assert ("MFPLeakyParallel" if kind is MFPLeaky else "convert") in str(caught.value)
    with pytest.raises(LoweringError):
        lower_graph(model, events())
