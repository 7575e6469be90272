"""Whole numbers read from neuron modules, against what the modules themselves fire on exact inputs."""

import numpy as np
import pytest
import snntorch as snn
import torch
from hypothesis import given
from hypothesis import strategies as st
from snntorch.functional import quant
from spikingjelly.activation_based import neuron, surrogate
from torch import nn

from mfp_neurons import MFP, MFPNode, baseline, convert, deploy
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from mfp_neurons.surrogate import Sigmoid

T, C = 4, 3
KERNELS = {
    "exponential of one half": dict(),
    "of finite order": dict(order=2),
    "power-of-two taps": dict(order=3, kernel_bits="pow2"),
    "3-bit taps": dict(order=4, kernel_bits=3),
    "free taps": dict(kernel="fir", order=3, kernel_bits="pow2"),
    "free taps of 4 bits": dict(kernel="fir", order=6, kernel_bits=4),
    "free taps a channel": dict(kernel="fir", order=3, kernel_bits=5, num_channels=C),
    "matrix": dict(kernel="matrix", time_steps=T, kernel_bits="pow2"),
    "banded matrix": dict(kernel="matrix", time_steps=T, order=2, kernel_bits=4),
}
kernels = pytest.mark.parametrize("options", KERNELS.values(), ids=KERNELS)


def taps(module, steps=T):
    """The taps of a layer of neurons [1 or T, K, 1 or C], as whole numbers."""
    return deploy.lower(module, torch.zeros(steps, 1, C)).graph.ops[0].taps


def shuffled(module, seed=0):
    """Free taps and thresholds away from where they start; thresholds stay dyadic so that ties happen."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "threshold" in name:
                parameter.copy_(torch.randint(-4, 8, parameter.shape) / 4)
            elif "taps" in name or "matrix" in name:
                parameter.normal_()
    return module


class Quarters(nn.Module):
    """Neurons on multiples of 1/4 from -3/2 to 5/2, so that every sum is exact and ties happen."""

    def __init__(self, fire):
        super().__init__()
        self.fire = fire

    def forward(self, x):
        fired = self.fire(4 * x - 1.5)
        return fired[0] if isinstance(fired, tuple) else fired


def inputs(seed, *features):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 17, (T, 20, *features), generator=generator) / 16


def check(module, *features):
    """The whole numbers fire where the module does; the layer of neurons."""
    model = Quarters(module)
    network = deploy.lower(model, inputs(0, *features), levels=16)
    for seed in range(5):
        x = inputs(seed, *features)
        if hasattr(module, "reset"):
            module.reset()
        assert np.array_equal(network.run(x), model(x).detach().numpy())
    return network.graph.ops[0]


@kernels
@pytest.mark.parametrize("decay_input", [True, False])
def test_spikingjellys_neuron(options, decay_input):
    check(
        shuffled(
            MFPNode(tau=2.0, decay_input=decay_input, v_threshold=0.5, step_mode="m", **options, reset=None)
        ),
        C,
        2,
    )


@kernels
def test_snntorchs_neuron(options):
    check(
        shuffled(
            MFPLeakyParallel(
                beta=0.5, threshold=0.75, learn_threshold=True, **options, reset_mechanism="none"
            )
        ),
        C,
        2,
        2,
    )


def test_snntorchs_parameters_that_broadcast_are_channels_where_they_are_the_same_inside_one():
    beta = torch.tensor([1.0, 0.5, 0.0])
    assert check(MFPLeakyParallel(beta=beta, reset_mechanism="none"), C).taps.shape == (1, T, C)
    assert check(
        MFPLeakyParallel(
            beta=beta.reshape(C, 1, 1), threshold=beta.reshape(1, C, 1, 1), reset_mechanism="none"
        ),
        C,
        2,
        2,
    )
    check(MFPLeakyParallel(beta=beta, num_channels=C, order=2, reset_mechanism="none"), C, 2, 2)
    check(MFPLeakyParallel(beta=0.5, gain=torch.tensor(0.25), reset_mechanism="none"), C)


def test_a_tensor_as_spikingjellys_threshold_is_one_a_layer_a_channel_or_what_broadcasts():
    node = MFPNode(step_mode="m", reset=None)
    for threshold in (
        torch.tensor(0.5),
        torch.tensor([0.25]),
        torch.tensor([0.5, 0.25, 1.0]),
        torch.tensor([0.5, 0.25, 1.0]).reshape(1, C, 1),
    ):
        node.v_threshold = threshold
        check(node, C, 2)


def test_an_infinite_kernel_gets_the_order_of_the_example():
    assert taps(MFP(0.5), 7).ravel().tolist() == [64, 32, 16, 8, 4, 2, 1]


def test_lags_without_a_tap_are_not_kept():
    assert taps(MFP(0.0, order=5), 7).ravel().tolist() == [1]
    # a power-of-two tap is 2**-7 of the largest at the least
    assert taps(MFP(0.5, order=28, kernel_bits="pow2"), 28).shape == (1, 8, 1)


@given(st.floats(-4, 4, width=32), st.integers(1, 6), st.sampled_from(["pow2", 2, 3, 8]), st.integers(0, 99))
def test_quantized_taps_are_read_exactly(largest, order, bits, seed):
    module = shuffled(MFP(kernel="fir", order=order, kernel_bits=bits, num_channels=C), seed)
    with torch.no_grad():
        module.kernel.taps.mul_(largest)
    op = deploy.lower(module, torch.zeros(T, 1, C)).graph.ops[0]
    real = module.kernel().taps.detach().double().numpy()
    kept = op.taps.shape[1]
    assert np.array_equal(op.taps[0] * op.unit, real[:kept]) and not real[kept:].any()


class Weird(nn.Module):
    spiking = True

    def forward(self, x):
        return torch.sigmoid(x)


@pytest.mark.parametrize(
    ("module", "strict"),
    [
        (MFP(surrogate=lambda x: (x > 0).float()), True),
        (MFP(surrogate=Sigmoid(2.0)), False),
        (MFPLeakyParallel(0.5, init_hidden=True, reset_mechanism="none"), True),
        (MFPLeakyParallel(0.5, spike_grad=Sigmoid(2.0), init_hidden=True, reset_mechanism="none"), True),
    ],
)
def test_the_rule_is_that_of_the_function_that_fires(module, strict):
    graph = deploy.lower(module, torch.ones(1, 1, C)).graph
    assert graph.ops[0].thresholds.tolist() == [[1 + strict] * C]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (MFP(0.9), r"real taps \(kernel_bits=None\).*kernel_bits=\"pow2\""),
        (MFP(0.6, learnable=True), r"real taps"),
        (MFP(kernel="fir", order=3, decay=0.7), r"real taps"),
        (
            MFP(kernel="fir", order=3, kernel_bits="pow2", num_channels=2),
            r"taps of shape \[2\].*does not broadcast",
        ),
        (MFP(0.5, surrogate=Weird()), r"does not fire spikes of 0 and 1"),
        (MFPNode(reset=None), "loop over time stands outside.*set_step_mode"),
        (
            MFPNode(step_mode="m", surrogate_function=surrogate.Sigmoid(spiking=False), reset=None),
            r"does not fire spikes",
        ),
        (MFPLeaky(0.5, reset_mechanism="none"), r"MFPLeakyParallel"),
        (MFPLeakyParallel(0.5, graded_spikes_factor=2.0, reset_mechanism="none"), r"graded spikes"),
        (
            MFPLeakyParallel(0.5, order=2, state_quant=quant.state_quant(4), reset_mechanism="none"),
            r"state_quant",
        ),
        (
            MFPLeakyParallel(torch.tensor([0.5, 1.0]), reset_mechanism="none"),
            r"decay of its own for each neuron",
        ),
        (snn.Leaky(0.5), "one step a call.*MFPLeakyParallel"),
        (neuron.LIFNode(), "one step a call.*set_step_mode"),
        (snn.Leaky(0.5, reset_delay=False), "keeps a membrane potential.*reset_delay=True"),
        (baseline.QuantizedMembraneLIF(), r"keeps a membrane potential.*mfp_neurons.convert"),
        (MFP(kernel="matrix", time_steps=T + 1, kernel_bits="pow2"), rf"T = {T + 1} steps.*has {T}"),
    ],
)
def test_what_cannot_be_read_says_where_it_is_why_and_what_helps(module, words):
    model = nn.Sequential(nn.Identity(), nn.Sequential(module))
    with pytest.raises(LoweringError, match=rf"(?s)'1\.0' \({type(module).__name__}\) .*{words}"):
        deploy.lower(model, torch.zeros(T, 1, C, 2))


def test_a_tap_range_that_is_too_wide_is_refused():
    with pytest.raises(LoweringError, match=r"70 taps that do not fit 62 bits.*smaller order"):
        taps(MFP(0.5), 70)


@pytest.mark.parametrize("old", [neuron.LIFNode(step_mode="m"), snn.StateLeaky(0.5, channels=C, output=True)])
def test_what_convert_makes_can_be_read(old):
    assert check(convert(old, order=3, kernel_bits="pow2"), C).order <= 3
