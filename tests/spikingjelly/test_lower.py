"""Lowering SpikingJelly's models, as their users write them."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from mfp_neurons import MFPNode, convert, deploy, quantize_weights
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.graph import Neurons
from mfp_neurons.deploy.lowering import lower_graph
from tests.deploy.lowering import check_agreement
from tests.deploy.oracle import unrounded

T = 4
NEURON: dict[str, Any] = {"kernel_bits": "pow2", "order": 3, "v_threshold": 0.3}


class Shown(nn.Module):
    """A network in multi-step mode that sees one image T times."""

    def __init__(self, network: nn.Module, mode: str = "m") -> None:
        super().__init__()
        self.network = network
        functional.set_step_mode(self, mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.unsqueeze(0).repeat(T, 1, 1, 1, 1)).mean(0)


def settled(model: nn.Module, bits: float = 1) -> nn.Module:
    """Quantized, and with the batch norms of a trained network."""
    quantize_weights(model, bits)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.05, 0.5)
                module.weight.normal_(0.7, 0.6)
                module.bias.normal_(0.2, 0.4)
    return model


def image(*shape: int) -> Tensor:
    return torch.randint(0, 256, (2, *shape)).double() / 255


def small(convolution: type = layer.Conv2d) -> nn.Module:
    return nn.Sequential(
        convolution(1, 6, kernel_size=3, padding=1, bias=False),
        layer.BatchNorm2d(6),
        MFPNode(**NEURON, reset=None),
        layer.MaxPool2d(2, 2),
        layer.Conv2d(6, 6, kernel_size=3, padding=1, bias=False),
        layer.BatchNorm2d(6),
        layer.MaxPool2d(2, 2),
        MFPNode(**NEURON, reset=None),
        layer.Flatten(),
        layer.Dropout(0.5),
        layer.Linear(54, 20),
        MFPNode(**NEURON, reset=None),
        layer.VotingLayer(10),
    )


def test_a_network_of_multi_step_layers_agrees_with_float64() -> None:
    graph = check_agreement(settled(Shown(small())), image(1, 12, 12))
    assert graph.input.static
    assert [op.name for op in graph.ops if isinstance(op, Neurons)] == [f"network.{i}" for i in (2, 7, 11)]


def test_memories_and_masks_stay_as_they_were() -> None:
    model = settled(Shown(small())).train()
    model(image(1, 12, 12).float())
    memories = [list(m.memories()) for m in model.modules() if isinstance(m, MFPNode)]
    norms = [m.running_mean.clone() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    lower_graph(model, image(1, 12, 12))
    after = [list(m.memories()) for m in model.modules() if isinstance(m, MFPNode)]
    for before, now in zip(memories, after, strict=True):
        assert all(a is b for a, b in zip(before, now, strict=True))
    left = [m.running_mean for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(a, b) for a, b in zip(norms, left, strict=True))


def test_a_fused_batch_norm_is_the_plain_one() -> None:
    plain = settled(Shown(small()))
    with torch.no_grad():
        plain.network[2].v_threshold = 0.25
    fused = convert(deepcopy(plain), fuse=True)
    assert "FusedBatchNorm2d" in {type(m).__name__ for m in fused.modules()}
    one, other = (lower_graph(model, image(1, 12, 12)) for model in (plain, fused))
    for a, b in zip(one.ops, other.ops, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Neurons):
            assert (a.thresholds == b.thresholds).all()
            assert (a.synapses[0].codes == b.synapses[0].codes).all()


def test_layers_in_a_sequence_container_agree() -> None:
    model = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.AvgPool2d(2)),
        MFPNode(step_mode="m", **NEURON, reset=None),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(6 * 9, 5)),
    )
    check_agreement(settled(model, 3), (torch.rand(T, 2, 2, 8, 8) < 0.4).float())


def refusal(model: nn.Module, example: Tensor | None = None) -> str:
    with pytest.raises(LoweringError) as caught:
        lower_graph(settled(model), image(1, 12, 12) if example is None else example)
    return str(caught.value)


def test_neurons_with_a_potential_are_named_with_what_to_do() -> None:
    model = small()
    model[7] = type("Mine", (neuron.LIFNode,), {})(surrogate_function=surrogate.ATan())
    words = refusal(Shown(model))
    assert "'network.7' (Mine)" in words
    assert "convert" in words


REAL = [(layer.SynapseFilter(tau=2.0, step_mode="m"), "decays at steps without a spike alone")]
if issubclass(layer.TemporalWiseAttention, nn.Module):  # which it is not in 0.0.0.0.14
    REAL.append((layer.TemporalWiseAttention(T, reduction=2), "real numbers times real numbers"))


@pytest.mark.parametrize(("module", "words"), REAL)
def test_layers_that_compute_with_real_numbers_are_named_with_what_to_do(module, words) -> None:
    model = nn.Sequential(layer.Conv2d(2, 2, 3, padding=1), module, MFPNode(**NEURON), layer.Conv2d(2, 2, 3))
    functional.set_step_mode(model, "m")
    said = refusal(model, (torch.rand(T, 2, 2, 8, 8) < 0.4).float())
    assert f"'1' ({type(module).__name__})" in said and words in said and "Leave it out" in said


class Loop(nn.Module):
    """The loop over time of SpikingJelly's step mode "s"."""

    def __init__(self, network: nn.Module, read: Any) -> None:
        super().__init__()
        self.network, self.read = network, read

    def forward(self, x: Tensor) -> Tensor:
        return self.read([self.network(x) for _ in range(T)])


@pytest.mark.skipif(not hasattr(neuron, "SLTTLIFNode"), reason="SpikingJelly 0.0.0.0.14 has none")
@pytest.mark.parametrize("name", ["OTTTLIFNode", "SLTTLIFNode"])
def test_a_neuron_for_online_learning_is_the_lif_that_it_is_in_evaluation(name: str) -> None:
    fire = getattr(neuron, name)(v_threshold=0.2)
    model = quantize_weights(Loop(nn.Sequential(nn.Linear(8, 6), fire, nn.Linear(6, 3)), sum)).eval()
    check_as_it_is(model, (torch.rand(2, 8) < 0.4).float())


@torch.no_grad()
def check_as_it_is(model: nn.Module, x: Tensor) -> None:
    """The integer network against the model's own forward in float64."""
    expected = unrounded(model)(x.double()).numpy()
    np.testing.assert_allclose(deploy.lower(model, x).run(x), expected, atol=1e-9)
    assert expected.std() > 0


def test_a_loop_over_single_steps_agrees_with_float64() -> None:
    model = settled(Loop(small(), lambda steps: torch.stack(steps).mean(0)))
    check_as_it_is(model, image(1, 12, 12))


def test_a_single_step_is_no_network_over_time() -> None:
    assert "the loop over time stands outside" in refusal(small())


def test_a_container_that_loops_over_time_agrees_with_float64() -> None:
    part = layer.MultiStepContainer(nn.Conv2d(1, 6, 3), MFPNode(**NEURON, reset=None))
    check_as_it_is(settled(nn.Sequential(part)), (torch.rand(T, 2, 1, 8, 8) < 0.4).float())


# --- neurons that reset -------------------------------------------------------------------------------------


def soft(tau: float = 2.0, **options: Any) -> nn.Module:
    return neuron.LIFNode(tau, v_threshold=0.3, v_reset=None, step_mode="m", **options)


LIFS: dict[str, Any] = {
    "soft": soft,
    "soft, its input as it is": lambda: soft(decay_input=False),
    "hard": lambda: neuron.LIFNode(v_threshold=0.3, step_mode="m"),
    "to another number": lambda: neuron.LIFNode(v_threshold=0.3, v_reset=-0.2, step_mode="m"),
    "an integrator": lambda: neuron.IFNode(v_threshold=0.7, v_reset=None, step_mode="m"),
    "an integrator, hard": lambda: neuron.IFNode(v_threshold=0.7, v_reset=0.1, step_mode="m"),
    "a learned decay": lambda: neuron.ParametricLIFNode(v_threshold=0.3, v_reset=None, step_mode="m"),
}


def lif_network(make: Any, steps: int) -> tuple[nn.Module, Tensor]:
    """A quantized network of LIFs, and events [T, N, *] for it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        layer.Conv2d(2, 6, 3, padding=1, bias=False, step_mode="m"),
        layer.BatchNorm2d(6, step_mode="m"),
        make(),
        layer.MaxPool2d(2, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(6 * 9, 12, step_mode="m"),
        make(),
        layer.Linear(12, 5, step_mode="m"),
    )
    return settled(model, 1), (torch.rand(steps, 4, 2, 6, 6) < 0.3).float()


@pytest.mark.parametrize("steps", [4, 11])
@pytest.mark.parametrize("name", LIFS)
def test_a_network_of_lifs_is_lowered_as_it_is(name: str, steps: int) -> None:
    """Every execution gives the scores of the network itself, evaluated in float64."""
    model, x = lif_network(LIFS[name], steps)
    network = deploy.lower(model, x)
    with torch.no_grad():
        reference = unrounded(model)
        expected = reference(x.double()).numpy()
    scores = network.run(x)
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    np.testing.assert_array_equal(network.run(x, backend="numpy"), scores)
    stream = network.stream()
    np.testing.assert_array_equal(np.stack([stream.step(step) for step in x]), scores)
    found = network.run_events(x)
    np.testing.assert_array_equal(found.scores, scores)
    fired = [
        len(events) / (steps * 4 * size)
        for events, size in zip(found.spikes.values(), (216, 12), strict=True)
    ]
    assert all(0.01 < rate < 0.9 for rate in fired), fired


def test_the_state_of_such_a_network_is_bits_alone() -> None:
    model, x = lif_network(soft, 4)
    # 3 steps of the input, and of both layers of neurons their last 3 spikes, which the next layer reads too
    assert deploy.lower(model, x).stream().state_bits == 0
    stream = deploy.lower(model, x).stream()
    stream.step(x[0, :1])
    assert stream.state_bits >= 3 * (72 + 216 + 12)


@pytest.mark.parametrize("bits", [8, "pow2"])
@pytest.mark.parametrize("v_reset", [None, 0.0])
def test_real_taps_are_rounded_on_the_way_and_what_that_changes_is_measured(v_reset: Any, bits: Any) -> None:
    model, x = lif_network(lambda: neuron.LIFNode(3.0, v_threshold=0.3, v_reset=v_reset, step_mode="m"), 6)
    with pytest.raises(
        LoweringError, match=r"'2' \(LIFNode\) has real taps.*deploy\.lower\(model, example, kernel_b"
    ):
        deploy.lower(model, x)
    network = deploy.lower(model, x, kernel_bits=bits)
    (note,) = network.notes
    spikes = network.run_events(x).spikes
    seen: dict[str, Tensor] = {}
    for path in ("2", "6"):
        model[int(path)].register_forward_hook(lambda m, a, out, path=path: seen.update({path: out}))
    with torch.no_grad():
        model.eval()(x)
    functional.reset_net(model)
    differ = 0
    for path, events in spikes.items():
        dense = torch.zeros(seen[path].shape).reshape(6, 4, *((6, 6, 6) if path == "2" else (12, 1, 1)))
        dense[tuple(torch.from_numpy(one) for one in events.elements)] = 1
        differ += int((dense.reshape_as(seen[path]) != seen[path]).sum())
    total = 6 * 4 * (216 + 12)
    assert note == (
        f"kernel_bits={bits!r} rounded the taps of '2' (LIFNode), '6' (LIFNode): on 4 samples of the example "
        f"{differ:,} of {total:,} spikes are others ({differ / total:.2%})"
    )
    assert 0 < differ < 0.2 * total or bits == 8
