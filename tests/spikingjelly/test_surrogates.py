"""Every surrogate of SpikingJelly trains an MFPNode as it would train its own neurons."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.activation_based import surrogate

from mfp_neurons import MFPNode, reference
from mfp_neurons import surrogate as ours
from mfp_neurons.history import Exponential
from mfp_neurons.spikingjelly import fused_surrogate

FUSED = ["ATan", "Sigmoid", "PiecewiseQuadratic", "Erf", "SoftSign"]
OTHER = [
    "PiecewiseExp",
    "LeakyKReLU",
    "S2NN",
    "QPseudoSpike",
    "SquarewaveFourierSeries",
    "PiecewiseLeakyReLU",
]
OTHER += ["FakeNumericalGradient", "LogTailedReLU"]
if hasattr(surrogate, "Rect"):  # 2.0.0
    FUSED += ["Rect", "SuperSpike"]
    OTHER += ["DeterministicPass"]


def gradients(function, x_seq, weight, dtype):
    """Input gradient of an MFPNode, and of the float64 reference around the same SpikingJelly function."""
    node = MFPNode(3.0, surrogate_function=function, step_mode="m", reset=None)
    x = x_seq.to(dtype).requires_grad_()
    spikes = node(x)
    (spikes * weight).sum().backward()
    exact = x_seq.double().requires_grad_()
    kernel = Exponential(1 - 1 / 3.0, 1 / 3.0)
    expected = reference.fire(exact, kernel, 1.0, surrogate=function)
    (expected * weight.double()).sum().backward()
    return spikes, expected, x.grad, exact.grad


def randoms(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 2, 3, generator=generator) * 3, torch.randn(5, 2, 3, generator=generator)


@pytest.mark.parametrize("name", FUSED)
@given(alpha=st.floats(0.5, 5.0), seed=st.integers(0, 2**16))
def test_a_known_surrogate_has_its_own_gradient_in_the_fused_operator(name, alpha, seed):
    function = getattr(surrogate, name)(alpha)
    assert isinstance(fused_surrogate(function), ours.Surrogate)
    x_seq, weight = randoms(seed)
    spikes, expected, gradient, exact = gradients(function, x_seq, weight, torch.float64)
    assert torch.equal(spikes, expected.detach())
    assert torch.allclose(gradient, exact, atol=1e-6)


@pytest.mark.parametrize("name", FUSED)
def test_a_known_surrogates_gradient_at_the_threshold_is_its_own(name):
    function = getattr(surrogate, name)()
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    function(x).backward()
    assert fused_surrogate(function).derivative(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(
        x.grad.item()
    )


class Steeper(surrogate.ATan):
    """Not to be taken for its parent."""

    @staticmethod
    def spiking_function(x, alpha):
        return surrogate.ATan.spiking_function(x, 10 * alpha)


@pytest.mark.parametrize("make", [*(getattr(surrogate, name) for name in OTHER), lambda: Steeper(2.0)])
def test_any_other_surrogate_works_outside_it(make):
    function = make()
    assert fused_surrogate(function) is function
    x_seq, weight = randoms(3)
    spikes, expected, gradient, exact = gradients(function, x_seq, weight, torch.float64)
    assert torch.equal(spikes, expected.detach())
    assert torch.allclose(gradient, exact, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["ATan", "PiecewiseExp"])
def test_half_inputs_train_too(name, dtype):
    x_seq, weight = randoms(5)
    x_seq = x_seq.to(dtype).float()
    _, _, gradient, exact = gradients(getattr(surrogate, name)(), x_seq, weight.to(dtype), dtype)
    assert gradient.dtype == dtype
    assert torch.allclose(gradient.double(), exact, atol=0.05)


def test_an_unfused_surrogate_is_announced_once(said):
    node = MFPNode(surrogate_function=surrogate.PiecewiseExp(), step_mode="m", reset=None)
    for _ in range(3):
        node(torch.ones(4, 2))
    assert sum("fused" in message for message in said.messages) == 1


def test_editing_alpha_takes_effect_at_the_next_call():
    node = MFPNode(surrogate_function=surrogate.ATan(2.0), reset=None)
    slopes = []
    for alpha in (2.0, 6.0):
        node.surrogate_function.alpha = alpha
        node.reset()
        x = torch.full((1,), 2.0, requires_grad=True)  # u = 1: the threshold, where the slope is alpha / 2
        node(x).sum().backward()
        slopes.append(x.grad.item())
    assert slopes == pytest.approx([0.5, 1.5])


def test_spiking_false_gives_the_primitive_function_of_the_potential():
    function = surrogate.Sigmoid(4.0, spiking=False)
    x = torch.tensor([[0.5], [2.0]])
    node = MFPNode(2.0, surrogate_function=function, step_mode="m", store_v_seq=True, reset=None)
    out = node(x)
    assert torch.allclose(out, torch.sigmoid(4.0 * (node.v_seq - 1.0)))


def test_our_own_surrogates_and_plain_functions_are_welcome():
    x = torch.randn(4, 2, 3)
    mine = MFPNode(surrogate_function=ours.ATan(3.0), step_mode="m", reset=None)
    theirs = MFPNode(surrogate_function=surrogate.ATan(3.0), step_mode="m", reset=None)
    assert torch.equal(mine(x), theirs(x))
    plain = MFPNode(surrogate_function=lambda above: (above > 0).to(above), step_mode="m", reset=None)
    assert torch.equal(plain(x), (theirs.reset() or theirs(x)))


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("order", [None, 2])
@pytest.mark.parametrize("threshold", [0.2, [0.2], [0.1, 0.2, 0.3], [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]])
def test_a_threshold_may_become_a_tensor_that_broadcasts_with_a_step(step_mode, order, threshold):
    x_seq = torch.randn(4 if step_mode == "m" else 1, 2, 3)
    node = MFPNode(
        step_mode=step_mode, store_v_seq=True, surrogate_function=surrogate.ATan(), order=order, reset=None
    )
    node.v_threshold = torch.tensor(threshold)
    leaf = x_seq.clone().requires_grad_()
    spikes = node(leaf if step_mode == "m" else leaf[0])
    spikes.sum().backward()
    exact = x_seq.double().requires_grad_()
    u = reference.membrane_potential(exact, Exponential(0.5, 0.5, order))
    expected = surrogate.ATan()(u - torch.tensor(threshold))
    expected.sum().backward()
    assert torch.equal(spikes.double().reshape(expected.shape), expected)
    assert torch.allclose(leaf.grad.double(), exact.grad, atol=1e-6)
    assert torch.allclose(node.v_seq.double(), u, atol=1e-6)
    assert node.v.shape == (2, 3) and not node.v._is_view()


def test_a_threshold_may_become_a_parameter_and_learn():
    node = MFPNode(step_mode="m", surrogate_function=surrogate.ATan(), reset=None)
    node.v_threshold = torch.nn.Parameter(torch.ones(1))
    assert dict(node.named_parameters()).keys() == {"v_threshold"}
    node(torch.randn(4, 2, 3)).sum().backward()
    assert node.v_threshold.grad.item() < 0
