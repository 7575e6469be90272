"""RULES: which SpikingJelly neurons an MFPNode can replace, and what it keeps of them."""

import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate

from mfp_neurons import MFPNode
from mfp_neurons.spikingjelly import RULES
from tests.spikingjelly.common import V2, both_modes, only_v2

FAR = 1e9


def swap(old, **options) -> MFPNode | str:
    return RULES[type(old)](old, options)


def potentials(node, x_seq):
    node.store_v_seq = True
    node.step_mode = "m"
    node(x_seq)
    return node.v_seq


def test_there_is_a_rule_for_each_neuron_of_this_version():
    names = {kind.__name__ for kind in RULES}
    assert names >= {"IFNode", "LIFNode", "ParametricLIFNode"}
    assert (names >= {"PSN", "MaskedPSN", "SlidingPSN"}) == V2
    assert all(kind is getattr(neuron, kind.__name__) for kind in RULES)


@pytest.mark.parametrize(
    "old",
    [
        lambda **k: neuron.IFNode(**k),
        lambda **k: neuron.LIFNode(tau=3.0, decay_input=True, **k),
        lambda **k: neuron.LIFNode(tau=3.0, decay_input=False, **k),
        lambda **k: neuron.ParametricLIFNode(init_tau=3.0, decay_input=True, **k),
        lambda **k: neuron.ParametricLIFNode(init_tau=3.0, decay_input=False, **k),
    ],
    ids=["if", "lif", "lif without decay_input", "plif", "plif without decay_input"],
)
def test_the_potential_below_threshold_and_everything_else_is_kept(old):
    function = surrogate.ATan(3.0)
    before = old(
        v_threshold=FAR, surrogate_function=function, step_mode="m", detach_reset=True, store_v_seq=True
    )
    after = swap(before.eval())
    assert type(after) is MFPNode and not after.training
    assert after.v_threshold == FAR and after.surrogate_function is function
    assert (after.step_mode, after.detach_reset, after.store_v_seq) == ("m", True, True)
    x_seq = torch.randn(6, 2, 3)
    assert torch.allclose(potentials(after, x_seq), potentials(before, x_seq), atol=1e-5)


def test_a_learned_time_constant_is_kept_bit_for_bit_and_learns_on():
    old = neuron.ParametricLIFNode(2.5)
    with torch.no_grad():
        old.w.add_(0.7)
    node = swap(old)
    assert node.kernel.learnable and node.kernel.decay_logit.item() == -old.w.item()
    assert swap(old, num_channels=4).kernel.decay_logit.tolist() == [-old.w.item()] * 4
    fixed = swap(old, learnable=False)
    assert not list(fixed.parameters()) and fixed.tau == pytest.approx(1 / old.w.sigmoid().item())


def test_options_win_over_what_the_neuron_says():
    node = swap(
        neuron.LIFNode(tau=4.0),
        order=5,
        kernel="fir",
        kernel_bits="pow2",
        num_channels=3,
        v_threshold=0.25,
        tau=2.0,
    )
    assert node.kernel.taps.shape == (5, 3) and node.kernel.kernel_bits == "pow2"
    assert node.v_threshold == 0.25 and node.tau == 2.0
    assert torch.allclose(node.kernel.taps[:, 0], 0.5 ** torch.arange(1.0, 6.0))
    assert swap(neuron.LIFNode(), kernel="matrix", time_steps=4).kernel.matrix.shape == (4, 4)
    assert swap(neuron.ParametricLIFNode(), kernel="fir", order=3).kernel.kind == "fir"


def test_an_impossible_option_is_refused_in_the_neurons_words():
    with pytest.raises(ValueError, match="order"):
        swap(neuron.LIFNode(), kernel="fir")
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        swap(neuron.IFNode(), learnable=True)


def test_a_tensor_threshold_comes_along():
    old = neuron.LIFNode()
    old.v_threshold = torch.tensor([0.1, 0.2, 0.3])
    assert swap(old).v_threshold is old.v_threshold


@only_v2
@pytest.mark.parametrize("exp_init", [True, False])
@both_modes
def test_a_sliding_psn_gives_the_same_spikes_and_gradients(exp_init, step_mode):
    old = neuron.SlidingPSN(k=4, exp_init=exp_init, step_mode=step_mode)
    with torch.no_grad():
        old.weight.add_(torch.randn(4) * 0.1)
        old.bias.fill_(-0.3)
    node = swap(old)
    assert node.kernel.order == 4 and node.step_mode == step_mode
    x_seq = torch.randn(6, 2, 3)
    results = []
    for each in (old, node):
        spikes = each(x_seq) if step_mode == "m" else torch.stack([each(x) for x in x_seq])
        (spikes * torch.arange(36.0).reshape(6, 2, 3)).sum().backward()
        results.append(spikes)
    assert torch.equal(*results)
    assert torch.allclose(node.kernel.taps.grad, old.weight.grad.flip(0), atol=1e-3)
    assert torch.allclose(
        -node.v_threshold.grad, old.bias.grad, atol=1e-3
    )  # the threshold -b learns as b did


@only_v2
def test_a_sliding_psn_may_be_shortened_lengthened_or_spread_over_channels():
    old = neuron.SlidingPSN(k=4)
    assert swap(old, order=2).kernel.taps.tolist() == [1.0, 0.5]
    assert swap(old, order=6).kernel.taps.tolist() == [1.0, 0.5, 0.25, 0.125, 0.0, 0.0]
    assert swap(old, num_channels=3).kernel.taps.shape == (4, 3)
    with pytest.raises(ValueError, match="kernel='fir'"):
        swap(old, kernel="exp")


@only_v2
def test_a_masked_psn_that_sees_no_future_is_taken_over_exactly():
    old = neuron.MaskedPSN(k=2, T=4, lambda_init=1.0, step_mode="m")
    node = swap(old)
    x_seq = torch.randn(4, 2, 3)
    assert torch.equal(node(x_seq), old(x_seq))
    assert node.kernel.order == 2 and node.v_threshold.item() == 1.0


@only_v2
@pytest.mark.parametrize(
    "old", [lambda: neuron.PSN(T=4), lambda: neuron.MaskedPSN(k=2, T=4, step_mode="m")], ids=["PSN", "masked"]
)
def test_a_psn_that_sees_the_future_stays_unless_its_causal_part_will_do(old):
    old = old()
    assert swap(old).startswith("it weighs future steps, ")
    assert swap(old, order=2) == swap(old)
    with pytest.raises(ValueError, match="kernel='matrix'"):
        swap(old, kernel="exp")
    node = swap(old, kernel="matrix")
    weight = old.masked_weight() if hasattr(old, "masked_weight") else old.weight
    x_seq = torch.randn(4, 2, 3)
    causal = torch.einsum("ts,snc->tnc", weight.tril(), x_seq)
    if hasattr(old, "k"):
        causal = torch.einsum("ts,snc->tnc", weight.tril().triu(1 - old.k), x_seq)
    assert torch.equal(node(x_seq), (causal >= 1.0).float()) and node.step_mode == "m"


@only_v2
def test_a_psn_with_a_bias_for_each_step_stays_unless_their_mean_will_do():
    old, both = neuron.MaskedPSN(k=2, T=4, lambda_init=1.0, step_mode="m"), neuron.PSN(T=4)
    with torch.no_grad():
        old.bias[2] = both.bias[2] = -0.5
    assert swap(old).startswith("it has a bias for each step, ")
    assert swap(both).startswith("it weighs future steps and has a bias for each step, ")
    assert swap(old, kernel="matrix").v_threshold.item() == 0.875
    assert swap(old, kernel="matrix", v_threshold=0.5).v_threshold == 0.5
