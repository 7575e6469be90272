"""MFPNode is SpikingJelly's own neuron whose threshold is never reached: potentials and gradients agree."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import neuron

from mfp_neurons import MFPNode, reference
from mfp_neurons.history import Exponential
from tests.spikingjelly.common import both_modes

FAR = 1e9  # a threshold that nothing reaches: LIFNode never resets


def relative_to_largest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()


@settings(max_examples=40)
@both_modes
@given(
    tau=st.floats(1.01, 100.0) | st.just(math.inf),
    decay_input=st.booleans(),
    is_truncated=st.booleans(),
    steps=st.integers(1, 12),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**16),
)
def test_potentials_are_those_of_lifnode_and_ifnode(
    step_mode, tau, decay_input, is_truncated, steps, dtype, seed
):
    x_seq = torch.randn(steps, 2, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    options = {"order": steps if is_truncated else None, "step_mode": step_mode, "store_v_seq": True}
    if tau == math.inf:
        node = MFPNode(tau, False, **options, reset=None)
        theirs = neuron.IFNode(FAR, 0.0, step_mode="m", store_v_seq=True)
    else:
        node = MFPNode(tau, decay_input, **options, reset=None)
        theirs = neuron.LIFNode(tau, decay_input, FAR, 0.0, step_mode="m", store_v_seq=True)
    theirs(x_seq)
    for x in [x_seq] if step_mode == "m" else x_seq:
        node(x)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert node.v_seq.dtype == dtype and node.v_seq.shape == x_seq.shape
    assert relative_to_largest(node.v_seq, theirs.v_seq) < tolerance
    assert torch.equal(node.v, node.v_seq[-1])


@pytest.mark.parametrize("decay_input", [True, False])
def test_gradients_through_the_potential_are_lifnodes(decay_input):
    x_seq = torch.randn(6, 2, 3, dtype=torch.float64)
    weight = torch.randn_like(x_seq)
    gradients = []
    for node in (
        MFPNode(3.0, decay_input, step_mode="m", store_v_seq=True, reset=None),
        neuron.LIFNode(3.0, decay_input, FAR, 0.0, step_mode="m", store_v_seq=True),
    ):
        x = x_seq.clone().requires_grad_()
        node(x)
        (node.v_seq * weight).sum().backward()  # a loss on v_seq is legal, and so is one on v
        gradients.append(x.grad)
    assert torch.allclose(*gradients, atol=1e-12)


@pytest.mark.parametrize("decay_input", [True, False])
def test_the_learned_decay_has_parametric_lifs_gradient(decay_input):
    x_seq = torch.randn(6, 2, 3)
    weight = torch.randn_like(x_seq)
    ours = MFPNode(3.0, decay_input, step_mode="m", store_v_seq=True, learnable=True, reset=None)
    theirs = neuron.ParametricLIFNode(3.0, decay_input, FAR, 0.0, step_mode="m", store_v_seq=True)
    for node in (ours, theirs):
        node(x_seq)
        (node.v_seq * weight).sum().backward()
    # 1/tau = sigmoid(w) and decay = sigmoid(decay_logit), so that decay_logit = -w
    assert ours.kernel.decay_logit.item() == pytest.approx(-theirs.w.item(), rel=1e-6)
    assert ours.kernel.decay_logit.grad.item() == pytest.approx(-theirs.w.grad.item(), rel=1e-4)


@both_modes
def test_it_fires_at_the_threshold_itself_as_spikingjelly_does(step_mode):
    # tau = 2 without decay_input: u = 0.5, 0.75, 1.0 (a tie), 1.0 (another)
    x_seq = torch.tensor([0.5, 0.5, 0.625, 0.5]).reshape(4, 1)
    node, lif = MFPNode(2.0, False, step_mode=step_mode, reset=None), neuron.LIFNode(2.0, False)
    spikes = node(x_seq) if step_mode == "m" else torch.stack([node(x) for x in x_seq])
    assert spikes.flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
    assert lif(torch.ones(1)).item() == 1.0


@given(
    tau=st.sampled_from([1.25, 2.0, 8.0]),
    threshold=st.floats(0.1, 2.0),
    steps=st.integers(1, 10),
    seed=st.integers(0, 2**16),
)
def test_spikes_are_the_reference_neurons_away_from_ties(tau, threshold, steps, seed):
    x_seq = torch.randn(steps, 2, 5, generator=torch.Generator().manual_seed(seed))
    u = reference.membrane_potential(x_seq.double(), Exponential(1 - 1 / tau, 1 / tau))
    clear = (u - threshold).abs() > 1e-5
    spikes = MFPNode(tau, v_threshold=threshold, step_mode="m", reset=None)(x_seq)
    assert torch.equal(spikes[clear], (u >= threshold).float()[clear])
