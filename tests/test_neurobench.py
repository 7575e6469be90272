"""NeuroBench runs our networks for real; every count is one made by hand, or the report's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mfp_neurons import MFP, quantize_weights, report

pytest.importorskip("neurobench", reason="the 'neurobench' extra is not installed")

from neurobench.benchmarks import Benchmark as TheirBenchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import (
    ActivationSparsity,
    ClassificationAccuracy,
    MembraneUpdates,
    NeuronOperations,
    SynapticOperations,
)
from neurobench.models import TorchModel
from neurobench.processors.postprocessors import ChooseMaxCount

from mfp_neurons.neurobench import Benchmark, MetricError, MFPModel, PackedFootprint, StateFootprint

STATIC = [Footprint, ConnectionSparsity, PackedFootprint]
WORKLOAD = [ActivationSparsity, SynapticOperations, StateFootprint]

# two samples of two steps: [N, T, 3]
X = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 1]]])


def by_hand() -> nn.Sequential:
    """Neuron 0 adds inputs 0 and 1, neuron 1 adds inputs 1 and 2, and half of what they had a step before."""
    net = nn.Sequential(
        nn.Linear(3, 2, bias=False), MFP(decay=0.5, order=2, v_threshold=1.0), nn.Linear(2, 2, bias=False)
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1, 0], [0, 1, 1]]))
        net[2].weight.copy_(torch.eye(2))
    return quantize_weights(net, bits="ternary", first="ternary", last="ternary")


def measured(
    net: nn.Module, x: Tensor, workload: list[Any] = WORKLOAD, batch: int = 1, run: Any = None
) -> dict[str, Any]:
    data = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=batch)
    return Benchmark(MFPModel(net, run), data, [], [], [STATIC, workload]).run(quiet=True)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_network_counted_by_hand(batch: int) -> None:
    found = measured(by_hand(), X, batch=batch)
    assert found["Footprint"] == 10 * 4
    assert found["PackedFootprint"] == (2 + 2 * 2) + (1 + 2 * 2)  # 2 bits a weight; 16 for a scale an output
    assert found["ConnectionSparsity"] == 4 / 10
    # spikes of the hidden layer: sample 0: (1, 0), (1, 1); sample 1: (0, 0), (1, 1)
    assert found["ActivationSparsity"] == 3 / 8
    # inputs meet 1 + 2 and 2 + 1 weights that are not zero, each of the five spikes one
    assert found["SynapticOperations"] == {"Effective_MACs": 0, "Effective_ACs": 11 / 2, "Dense": 20}
    assert found["StateFootprint"] == 3 / 8  # the three inputs of one step, a bit each


def test_real_inputs_are_multiplied() -> None:
    found = measured(by_hand(), X / 2 + 0.25)["SynapticOperations"]
    assert found["Effective_MACs"] == 2 * 4  # no input is zero: 4 weights a step that are not


def linear(bits: float) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), MFP(v_threshold=0.2, order=3), nn.Linear(6, 3))
    return quantize_weights(net, bits=bits, first=bits, last=bits)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, "ternary", 4]), st.integers(1, 5), st.integers(0, 2**16))
def test_operations_are_those_of_the_report(bits: Any, steps: int, seed: int) -> None:
    net = linear(bits)
    x = torch.rand(3, steps, 5, generator=torch.Generator().manual_seed(seed)).round()
    costs = report(net, x.transpose(0, 1))
    found = measured(net, x, batch=3)
    assert found["SynapticOperations"]["Effective_ACs"] == pytest.approx(costs.synaptic_operations)
    spikes = 3 * steps * 6 * (1 - found["ActivationSparsity"])
    assert spikes == pytest.approx(3 * steps * costs.spikes_per_step, abs=1e-6)
    assert found["StateFootprint"] == costs.state_bits / 8
    assert found["PackedFootprint"] == costs.weight_bytes


def test_without_the_wrapper_quantized_zeros_and_our_spikes_are_missed() -> None:
    """Why there is a wrapper: NeuroBench reads latent weights, and knows our neurons as nothing at all."""
    net = linear("ternary")
    x = DataLoader(TensorDataset(torch.ones(2, 4, 5), torch.zeros(2)))
    bare = TheirBenchmark(TorchModel(net), x, [], [], [[ConnectionSparsity], [ActivationSparsity]])
    assert bare.run(quiet=True) == {"ConnectionSparsity": 0.0, "ActivationSparsity": 0.0}
    assert measured(net, torch.ones(2, 4, 5))["ConnectionSparsity"] > 0


def spikingjelly_net() -> tuple[nn.Module, Any]:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer

    from mfp_neurons import MFPNode

    convolution = layer.Conv2d(1, 2, 3, bias=False)
    net = nn.Sequential(
        convolution, MFPNode(2.0, v_threshold=0.2, reset=None), layer.Flatten(), layer.Linear(8, 3)
    )
    functional.set_step_mode(net, "m")
    return net, None


def snntorch_steps() -> tuple[nn.Module, Any]:
    pytest.importorskip("snntorch")
    from mfp_neurons.snntorch import MFPLeaky

    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 6),
        MFPLeaky(0.9, init_hidden=True, reset_mechanism="none"),
        nn.Linear(6, 3),
    )
    return net, lambda net, x_seq: torch.stack([net(x) for x in x_seq])


@pytest.mark.parametrize("make", [spikingjelly_net, snntorch_steps])
def test_networks_of_both_frameworks(make: Callable[[], tuple[nn.Module, Any]]) -> None:
    torch.manual_seed(0)
    net, run = make()
    x = (torch.rand(6, 5, 1, 4, 4) < 0.7).float()
    costs = report(net, x.transpose(0, 1), run=run)
    for batch in (1, 3, 6):  # states do not leak from batch to batch
        found = measured(net, x, batch=batch, run=run)
        assert found["SynapticOperations"]["Effective_ACs"] == pytest.approx(costs.synaptic_operations)
        rate = costs.spikes_per_step / sum(row.neurons for row in costs.neurons)
        assert found["ActivationSparsity"] == pytest.approx(1 - rate)
        assert 0 < found["ActivationSparsity"] < 1


def test_memory_free_networks_update_no_membrane() -> None:
    assert measured(by_hand(), X, [MembraneUpdates])["MembraneUpdates"] == 0


def test_accuracy_through_their_processors() -> None:
    net = linear(1)
    x = torch.rand(20, 4, 5)
    labels = net(x.transpose(0, 1)).sum(0).argmax(-1)
    data = DataLoader(TensorDataset(x, labels), batch_size=8)
    metrics = [[], [ClassificationAccuracy]]
    run = Benchmark(MFPModel(net), data, [], [ChooseMaxCount()], metrics).run(quiet=True)
    assert run["ClassificationAccuracy"] == pytest.approx(1.0)


def test_scores_of_whole_sequences_stay_as_they_are() -> None:
    net = by_hand()
    summed = MFPModel(net, lambda net, x_seq: net(x_seq).sum(0), gives_time=False)
    torch.testing.assert_close(summed(X), net(X.transpose(0, 1)).sum(0))
    with pytest.raises(ValueError, match=r"gives_time=False the network must give \[N, \*\], N = 1"):
        MFPModel(net, gives_time=False)(X[:1])


def test_a_metric_that_fails_is_an_error_and_not_a_zero() -> None:
    data = DataLoader(TensorDataset(X, torch.zeros(2)))
    theirs = TheirBenchmark(MFPModel(by_hand()), data, [], [], [[], [NeuronOperations]])
    assert theirs.run(quiet=True) == {"NeuronOperations": 0.0}
    with pytest.raises(MetricError, match="NeuronOperations"):
        measured(by_hand(), X, [NeuronOperations])


def test_our_metrics_name_the_model_they_need() -> None:
    data = DataLoader(TensorDataset(X, torch.zeros(2)))
    with pytest.raises(MetricError, match=r"PackedFootprint needs an MFPModel, got .*TorchModel"):
        Benchmark(TorchModel(by_hand()), data, [], [], [[PackedFootprint], []]).run(quiet=True)


def test_wrong_uses_are_named() -> None:
    with pytest.raises(TypeError, match=r"net must be a torch\.nn\.Module"):
        MFPModel("net")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data must be \[N, T, \*\]"):
        MFPModel(by_hand())(torch.zeros(3))
    with pytest.raises(TypeError, match="pick one in run="):
        MFPModel(by_hand(), lambda net, x: (net(x), x))(X)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"gives_time=True the network must give \[T, N, \*\], N = 2"):
        MFPModel(by_hand(), lambda net, x: net(x)[:, :1])(X)


def test_the_network_is_left_as_it_was() -> None:
    net = by_hand().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    measured(net, X)
    assert net.training and not net[1]._forward_hooks
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
