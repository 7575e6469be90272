"""Surrogates: formulas in float64, values of both frameworks, and numbers that are refused."""

import ctypes
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.kernels import host
from mfp_neurons.surrogate import (
    SURROGATES as KINDS,
)
from mfp_neurons.surrogate import ATan, Erf, PiecewiseQuadratic, Rect, Sigmoid, SuperSpike, from_name
from tests.strategies import SURROGATES

ALPHA = st.floats(0.1, 30)
POINTS = st.lists(st.floats(-20, 20), min_size=1, max_size=20).map(
    lambda v: torch.tensor(v, dtype=torch.float64)
)
# each surrogate is the derivative of a smooth step; the steps, written out
STEPS = {
    ATan: lambda x, a: torch.atan(math.pi / 2 * a * x) / math.pi + 0.5,
    Sigmoid: lambda x, a: torch.sigmoid(a * x),
    Rect: lambda x, a: (a * x).clamp(-0.5, 0.5),
    PiecewiseQuadratic: lambda x, a: (a * x).clamp(-1, 1) * (1 - (a * x).clamp(-1, 1).abs() / 2),
    SuperSpike: lambda x, a: x / (1 + a * x.abs()),
    Erf: lambda x, a: torch.erf(a * x) / 2,
}


@pytest.mark.parametrize("kind", STEPS)
@given(x=POINTS, alpha=ALPHA)
def test_each_is_the_derivative_of_its_smooth_step(kind, x, alpha):
    corners = torch.tensor([0.5, 1.0]) / alpha  # where the two piecewise steps bend
    x = x[((x.abs() - corners[:, None]).abs() > 1e-9).all(0)].requires_grad_()
    (expected,) = torch.autograd.grad(STEPS[kind](x, alpha).sum(), x)
    torch.testing.assert_close(kind(alpha).derivative(x.detach()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_calling_one_fires_at_zero_and_has_its_gradient(surrogate):
    x = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    spikes = surrogate(x)
    assert torch.equal(spikes, (x >= 0).double())
    torch.testing.assert_close(torch.autograd.grad(spikes.sum(), x)[0], surrogate.derivative(x.detach()))
    assert torch.equal(surrogate.spike(x, strict=True), (x > 0).double())


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_name_and_parameters_say_which_it_is(surrogate):
    assert from_name(surrogate.name, surrogate.parameters) == surrogate
    assert not surrogate.derivative(torch.tensor([1e30, -1e30])).isnan().any()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_parameter_must_be_positive_and_finite(bad):
    with pytest.raises(ValueError, match="alpha must be"):
        ATan(bad)


def test_a_tensor_is_no_parameter():
    with pytest.raises(TypeError, match="alpha must be a number"):
        Sigmoid(torch.tensor(1.0))


def test_every_surrogate_has_a_derivative_of_its_number_in_the_kernels():
    library = host.library()
    library.mfp_surrogate_name.restype = ctypes.c_char_p
    names = [library.mfp_surrogate_name(number) for number in range(len(KINDS))]
    assert [name.decode().lower() for name in names] == list(KINDS)
    assert library.mfp_surrogate_name(len(KINDS)) is None
    assert {type(surrogate) for surrogate in SURROGATES} == set(KINDS.values())  # the tests draw all of them
