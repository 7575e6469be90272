"""A neuron whose input is scale[c] * x + shift[c], and the channel sums that batch normalization needs."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mfp_neurons import ops, reference
from mfp_neurons._arguments import prepare
from mfp_neurons.backends import choose
from mfp_neurons.backends import torch as stock
from mfp_neurons.surrogate import Sigmoid
from tests.strategies import BACKENDS, LAYOUTS, Case, _layout, cases


@given(
    case=cases(),
    record=st.booleans(),
    seed=st.integers(0, 999),
    limit=st.sampled_from([5, 64, 1 << 18]),
    backend=st.sampled_from(BACKENDS),
)
def test_an_affine_input_gives_the_spikes_and_every_gradient_of_the_same_input_made_beforehand(
    case: Case, record: bool, seed: int, limit: int, backend: str
):
    assume(case.x.dim() > 2)
    generator = torch.Generator().manual_seed(seed)
    leaves = case.leaves()
    scale, shift = torch.randn(2, case.x.shape[2], generator=generator, dtype=torch.float64).unbind()
    leaves += [scale.requires_grad_(), shift.requires_grad_()]
    _, kind, kernel, threshold, *_ = prepare(
        case.x, case.kernel(), case.threshold, None, "torch", carry=False
    )
    along = [1] * (case.x.dim() - 3)
    y = case.x * scale.reshape(-1, *along) + shift.reshape(-1, *along)
    expected_u = reference.membrane_potential(y, case.kernel())
    above = expected_u - reference.per_channel(case.threshold, y.dim() - 1)
    assume(above.abs().min() > 1e-9)
    expected = Sigmoid()(above)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "_AREA", limit)
        patch.setattr(stock, "_ROW", limit)
        spikes, u = ops.fire(
            case.x, kernel, threshold, None, scale, shift, kind, "sigmoid", [4.0], False, record, backend
        )
        weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        mine = torch.autograd.grad((spikes * weights).sum() + u.sin().sum(), leaves)
    theirs = torch.autograd.grad(
        (expected * weights).sum() + (expected_u if record else expected_u[-1]).sin().sum(), leaves
    )
    assert torch.equal(spikes, expected)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


shapes = st.lists(st.integers(1, 5), min_size=3, max_size=6)


@given(
    shape=shapes,
    layout=st.sampled_from(LAYOUTS),
    mean=st.sampled_from([0.0, 100.0]),
    backend=st.sampled_from(BACKENDS),
    data=st.data(),
)
def test_channel_moments_are_those_of_the_channel(shape, layout, mean, backend, data):
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]))
    x = _layout((torch.randn(shape, dtype=torch.float64) + mean).to(dtype), layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mfp_neurons.backends._channels._BLOCK", data.draw(st.sampled_from([3, 40, 1 << 18])))
        got = choose(backend, x.device).channel_moments(x)
    others = [d for d in range(x.dim()) if d != 2]
    variance, average = torch.var_mean(x.double(), others, correction=0)
    wide = stock.accumulate_dtype(dtype)
    assert [m.dtype for m in got] == [wide, wide]
    torch.testing.assert_close(got[0].double(), average, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[1].double(), variance, rtol=1e-5, atol=1e-6)


@given(
    shape=shapes,
    layout=st.sampled_from(LAYOUTS[:-1]),
    other=st.sampled_from(LAYOUTS),
    backend=st.sampled_from(BACKENDS),
    data=st.data(),
)
def test_an_affine_map_of_each_channel_is_added_in_place(shape, layout, other, backend, data):
    dtype = data.draw(st.sampled_from([torch.float64, torch.float16]))
    gx, x = _layout(torch.randn(shape).to(dtype), layout), _layout(torch.randn(shape).to(dtype), other)
    factor, offset = torch.randn(2, shape[2], dtype=stock.accumulate_dtype(dtype))
    along = [1] * (len(shape) - 3)
    expected = gx.double() + x.double() * factor.reshape(-1, *along) + offset.reshape(-1, *along)
    pointer, strides = gx.data_ptr(), gx.stride()
    choose(backend, x.device).add_channel_affine_(gx, x, factor, offset)
    assert (gx.data_ptr(), gx.stride()) == (pointer, strides)
    tight = dtype == torch.float64
    torch.testing.assert_close(
        gx.double(), expected, rtol=1e-12 if tight else 2e-3, atol=1e-12 if tight else 4e-3
    )
