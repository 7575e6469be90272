"""Networks: what a config asks for is what is built."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mfp_neurons.quantize import is_quantized
from mfp_neurons.reporting import report
from mfp_neurons.train import network
from mfp_neurons.train.config import ConfigError, NetworkConfig, NeuronConfig, from_dict

KINDS = {
    "lif": NeuronConfig(kind="lif"),
    "lif in 2 bits": NeuronConfig(kind="lif", potential_bits=2),
    "lif with a reset to zero": NeuronConfig(kind="lif", reset="zero", detach_reset=False),
    "exp": NeuronConfig(kind="exp", order=3),
    "exp of all the past": NeuronConfig(kind="exp"),
    "fir": NeuronConfig(kind="fir", kernel_bits="pow2", order=4),
    "fir of all the past, one set a layer": NeuronConfig(kind="fir", per_channel=False),
    "fir, a stride apart": NeuronConfig(kind="fir", stride=2),
    "exp, a stride apart": NeuronConfig(kind="exp", stride=3),
    "sliding PSN": NeuronConfig(kind="sliding-psn", order=3),
    "SpikingJelly's LIF": NeuronConfig(kind="spikingjelly-lif", learnable=False, reset="zero"),
    "SpikingJelly's LIF, learned": NeuronConfig(kind="spikingjelly-lif", detach_reset=False),
    "snnTorch's Leaky": NeuronConfig(kind="snntorch-leaky", learnable=False),
    "snnTorch's Leaky, learned": NeuronConfig(kind="snntorch-leaky", reset="zero"),
    "feedback": NeuronConfig(kernel_bits="pow2", order=(1, 1, 3), feedback=(0, 2, 9), detach_reset=False),
    "feedback without a history, one set a layer": NeuronConfig(
        "exp", order=1, feedback=1, per_channel=False
    ),
    "matrix": NeuronConfig(kind="matrix", per_channel=False),
    "mixed": NeuronConfig(kind=("exp", "fir", "lif"), order=(1, 4, 0), potential_bits=(32, 32, 2)),
}


@pytest.mark.parametrize("neuron", KINDS.values(), ids=KINDS)
def test_every_kind_of_neuron_gives_scores_at_every_step_and_gradients_everywhere(
    neuron: NeuronConfig,
) -> None:
    torch.manual_seed(1)
    net = network.build(NetworkConfig(hidden=(16, 16, 16), neuron=neuron), (6,), 4, 5)
    scores = net(torch.rand(5, 8, 6) * 4)
    assert scores.shape == (5, 8, 4)
    scores.square().mean().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


@given(
    decay=st.floats(0.1, 0.95),
    threshold=st.floats(0.2, 2.0),
    reset=st.sampled_from(["zero", "subtract"]),
    learnable=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_the_frameworks_own_neurons_follow_their_equations_from_rest(
    decay: float, threshold: float, reset: str, learnable: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    for kind in ("spikingjelly-lif", "snntorch-leaky"):
        settings = NeuronConfig(kind, decay=decay, threshold=threshold, reset=reset, learnable=learnable)
        neuron = network.build_neuron(settings, 3, 6).double()
        for size in (2, 4):  # the second batch, of another size, knows nothing of the first
            x = torch.randn(6, size, 3, generator=generator, dtype=torch.float64) * 2
            potential, spike, expected, nearest = torch.zeros_like(x[0]), torch.zeros_like(x[0]), [], 1.0
            for step in x:
                if kind == "spikingjelly-lif":  # the input is weighed by 1 - decay, and the reset is at once
                    potential = decay * potential + (1 - decay) * step
                else:  # the reset comes a step later: to zero before the leak, by the threshold after it
                    kept = potential * (1 - spike) if reset == "zero" else potential
                    potential = decay * kept + step - (spike * threshold if reset == "subtract" else 0)
                spike = (potential >= threshold).double()
                nearest = min(nearest, float((potential - threshold).abs().min()))
                expected.append(spike)
                if kind == "spikingjelly-lif":
                    potential = potential * (1 - spike) if reset == "zero" else potential - spike * threshold
            if nearest > 1e-5:  # beta and tau are kept in float32
                assert torch.equal(neuron(x), torch.stack(expected))


@pytest.mark.parametrize("kind", ["spikingjelly-lif", "snntorch-leaky"])
def test_the_report_counts_the_float_potential_of_the_frameworks_own_neurons(kind: str) -> None:
    neuron = NeuronConfig(kind, learnable=False)
    net = network.build(NetworkConfig(hidden=(5, 4), weight_bits=32, neuron=neuron), (6,), 4, 7)
    costs = report(net.eval(), torch.rand(7, 2, 6) * 9)
    assert costs.state_bits == 32 * 9
    assert [row.steps for row in costs.neurons] == [7, 7]
    assert costs.macs == 7 * 6 * 5
    assert costs.synaptic_operations == costs.streaming_synaptic_operations > 0


@pytest.mark.parametrize(("order", "taps"), [(0, 3), (2, 2), (9, 3)])
def test_strided_taps_reach_as_far_as_the_sequence_and_no_further(order: int, taps: int) -> None:
    kernel = network.build_neuron(NeuronConfig(order=order, stride=2), 4, time_steps=6).kernel
    assert kernel.order == taps and kernel.stride == 2


@given(feedback=st.integers(0, 9), steps=st.integers(1, 6), per_channel=st.booleans(), detach=st.booleans())
def test_own_spikes_are_fed_back_through_as_many_taps_as_there_are_steps_for(
    feedback: int, steps: int, per_channel: bool, detach: bool
) -> None:
    settings = NeuronConfig(order=1, feedback=feedback, per_channel=per_channel, detach_reset=detach)
    spec = network.build_neuron(settings, 4, steps).neuron_spec()
    taps = min(feedback, steps - 1)
    if taps == 0:
        assert spec.reset is None
    else:
        assert (spec.reset.kind, spec.reset.order, spec.reset.detach) == ("feedback", taps, detach)
        assert spec.reset.taps.shape == ((taps, 4) if per_channel else (taps,))


def test_feedback_over_bits_that_are_kept_for_the_next_layer_costs_none() -> None:
    for feedback, bits in (((0, 6, 0), 2), ((6, 6, 0), 4), ((0, 7, 0), 7 / 3)):
        neuron = NeuronConfig(order=(1, 1, 7), feedback=feedback)
        net = network.build(NetworkConfig(hidden=(16, 16, 16), neuron=neuron), (6,), 4, 28)
        assert report(net, torch.rand(28, 1, 6)).state_bits_per_neuron == pytest.approx(bits)


def test_first_and_last_layer_keep_eight_bits_and_float_networks_stay_float() -> None:
    net = network.build(NetworkConfig(hidden=(8, 8)), (6,), 4, 5)
    bits = [m.weight_bits for m in net.modules() if isinstance(m, nn.Linear)]
    assert bits == [8, 1, 8]
    real = network.build(NetworkConfig(hidden=(8, 8), weight_bits=32), (6,), 4, 5)
    assert not any(is_quantized(m) for m in real.modules())
    edges = network.build(NetworkConfig(hidden=(8, 8), first_bits=32, last_bits=1), (6,), 4, 5)
    assert [is_quantized(m) for m in edges.modules() if isinstance(m, nn.Linear)] == [False, True, True]


def test_convolutions_come_first_and_are_pooled() -> None:
    config = NetworkConfig(channels=(4, 6), hidden=(8,), neuron=NeuronConfig(kind="fir", order=(1, 2, 3)))
    net = network.build(config, (1, 8, 8), 10, 3)
    assert net(torch.rand(3, 2, 1, 8, 8)).shape == (3, 2, 10)
    assert [b.neuron.kernel.order for b in net.blocks()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("neuron", "bits"),
    [
        (NeuronConfig(kind="fir", order=(1, 1, 7)), 2),
        (NeuronConfig(kind="fir", order=(1, 28, 28)), 18),
        (NeuronConfig(kind="exp", order=1), 0),
        (NeuronConfig(kind="lif"), 32),
    ],
)
def test_neurons_keep_the_bits_of_the_design(neuron: NeuronConfig, bits: int) -> None:
    net = network.build(NetworkConfig(hidden=(16, 16, 16), neuron=neuron), (6,), 4, 28)
    assert report(net, torch.rand(28, 1, 6)).state_bits_per_neuron == bits


def test_a_window_in_front_of_a_layer_makes_its_steps_fewer() -> None:
    settings = {"hidden": [6, 5], "time_pool": [1, 4], "neuron": {"order": [1, 0]}}
    config = from_dict({"network": settings}).network
    module = network.build(config, (3,), 10, 8)
    assert module(torch.rand(8, 2, 3)).shape == (2, 2, 10)
    assert [block.neuron.kernel.order for block in module.blocks()] == [1, 2]  # all that there are behind it


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (NetworkConfig(channels=(4,)), r"network.channels: a convolution needs steps of \[C, H, W\]"),
        # one matrix for all channels, asked for one a channel
        (NetworkConfig(neuron=NeuronConfig(kind="matrix")), "network: kernel='matrix'"),
        (
            NetworkConfig(neuron=NeuronConfig(kind="spikingjelly-lif", decay=0)),
            "network: neuron.decay = 0: SpikingJelly's LIFNode needs a decay above 0",
        ),
        *(
            (NetworkConfig(hidden=(6, 5), time_pool=windows), r"time_pool.*product divides T = 8")
            for windows in ((1, 3), (1, 1, 2), 3)
        ),
    ],
)
def test_settings_that_make_no_network_together_are_refused(config: NetworkConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        network.build(config, (3,), 10, 8)
