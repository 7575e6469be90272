"""History kernels as values: taps, their quantization, and what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons import MFP
from mfp_neurons.functional import fire
from mfp_neurons.history import FIR, Exponential, Matrix, quantize_taps

FINITE = st.floats(-100, 100, allow_nan=False, width=32)
TAPS = st.lists(FINITE, min_size=1, max_size=20).map(torch.tensor)


@given(decay=st.floats(0, 1), gain=st.floats(-3, 3), order=st.integers(1, 30))
def test_exponential_taps_are_powers_of_the_decay(decay, gain, order):
    taps = Exponential(torch.tensor([decay], dtype=torch.float64), gain, order).taps(order)
    expected = [gain * decay**j for j in range(order)]
    torch.testing.assert_close(taps.flatten(), torch.tensor(expected, dtype=torch.float64))


@given(taps=TAPS)
def test_pow2_taps_are_zero_or_powers_of_two_within_seven_halvings_of_the_largest(taps):
    snapped = quantize_taps(taps, "pow2")
    kept = snapped[snapped != 0].tolist()
    exponents = [math.frexp(abs(v)) for v in kept]
    assert all(mantissa == 0.5 for mantissa, _ in exponents)
    if kept:
        top = max(e for _, e in exponents)
        assert all(top - e <= 7 for _, e in exponents)
    ratio = (snapped / taps)[snapped != 0]
    assert ((ratio >= 2**-0.5 - 1e-6) & (ratio <= 2**0.5 + 1e-6)).all()  # the nearest in log2
    largest = taps.abs().amax()
    assert (taps[snapped == 0].abs() <= largest * 2**-6).all()


@given(taps=TAPS, bits=st.integers(2, 8))
def test_n_bit_taps_are_small_integers_times_one_power_of_two_and_the_nearest_such(taps, bits):
    snapped = quantize_taps(taps, bits)
    top = 2 ** (bits - 1) - 1
    largest = taps.abs().amax().item()
    if largest < 1e-30:
        return
    step = 2.0 ** math.ceil(math.log2(largest / top) - 1e-6)
    codes = snapped / step
    assert torch.equal(codes, codes.round()) and codes.abs().max() <= top
    assert ((snapped - taps).abs() <= step / 2 * (1 + 1e-5)).all()


@given(taps=TAPS, bits=st.sampled_from(["pow2", 2, 3, 8]))
def test_quantization_is_idempotent_odd_and_scales_by_powers_of_two(taps, bits):
    snapped = quantize_taps(taps, bits)
    assert torch.equal(quantize_taps(-taps, bits), -snapped)
    if bits == "pow2":
        assert torch.equal(quantize_taps(snapped, bits), snapped)
    assert torch.equal(quantize_taps(taps * 4, bits), snapped * 4)


@given(taps=TAPS, bits=st.sampled_from([None, "pow2", 2, 8]))
def test_the_gradient_passes_straight_through(taps, bits):
    taps = taps.clone().requires_grad_()
    weight = torch.randn_like(taps)
    (grad,) = torch.autograd.grad((quantize_taps(taps, bits) * weight).sum(), taps)
    assert torch.equal(grad, weight)


def test_each_channel_has_a_grid_of_its_own():
    taps = torch.rand(5, 3) * torch.tensor([1e-3, 1.0, 1e3])
    for bits in ("pow2", 4):
        alone = torch.stack([quantize_taps(taps[:, c], bits) for c in range(3)], 1)
        assert torch.equal(quantize_taps(taps, bits), alone)


@given(
    bits=st.sampled_from(["pow2", 2, 3, 8]),
    value=st.sampled_from([math.nan, math.inf, -math.inf]),
    lag=st.integers(0, 4),
    channel=st.integers(0, 2),
)
def test_a_tap_that_is_no_number_makes_its_whole_channel_nan_and_no_other(bits, value, lag, channel):
    taps = torch.rand(5, 3) + 0.1
    expected = quantize_taps(taps, bits)
    expected[:, channel] = math.nan
    taps[lag, channel] = value
    torch.testing.assert_close(quantize_taps(taps, bits), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bits", [None, "pow2", 4])
@pytest.mark.parametrize("kind", ["fir", "matrix"])
def test_a_neuron_refuses_taps_that_are_no_numbers(kind, bits, value):
    length = {"time_steps": 4} if kind == "matrix" else {"order": 4}
    neuron = MFP(0.5, kernel=kind, kernel_bits=bits, **length)
    next(neuron.kernel.parameters()).data[3].fill_(value)
    with pytest.raises(ValueError, match="must be finite"):
        neuron(torch.ones(4, 1, 3))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_threshold_that_is_no_number_is_refused_in_every_dtype(dtype, value):
    threshold = torch.tensor([1.0, value, math.inf], dtype=dtype)
    with pytest.raises(ValueError, match=f"v_threshold must be finite, or inf .* got {value} in 1 of 3"):
        fire(torch.ones(4, 1, 3, dtype=dtype), Exponential(0.5), threshold)


def test_every_power_of_two_of_float32_is_exact():
    powers = torch.tensor([math.ldexp(1.0, e) for e in range(-120, 121)])
    snapped = torch.stack([quantize_taps(p.reshape(1), "pow2")[0] for p in powers])
    assert torch.equal(snapped, powers)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Exponential(1.5), ValueError, "decay must be from 0 to 1, got 1.5"),
        (lambda: Exponential("x"), TypeError, "decay must be a number"),
        (lambda: Exponential(0.5, float("inf")), ValueError, "gain must be finite"),
        (lambda: Exponential(0.5, order=0), ValueError, "order must be an integer >= 1, got 0"),
        (lambda: Exponential(0.5, order=2.0), TypeError, "order must be an integer >= 1, got 2.0"),
        (lambda: FIR(torch.tensor([float("nan")])), ValueError, "taps must be finite"),
        (lambda: FIR(torch.zeros(0)), ValueError, "at least one tap"),
        (lambda: FIR(torch.ones(2, 2, 2)), TypeError, "taps must be a real floating-point tensor"),
        (lambda: FIR(torch.ones(2, dtype=torch.int64)), TypeError, "int64"),
        (lambda: FIR([1.0]), TypeError, "taps must be"),
        (lambda: Matrix(torch.ones(2, 3)), TypeError, r"matrix must be .* \[T, T\]"),
        (lambda: Matrix(torch.full((2, 2), float("nan"))), ValueError, "matrix must be finite"),
        (lambda: quantize_taps(torch.ones(2), 1), ValueError, "kernel_bits must be .* got 1"),
        (lambda: quantize_taps(torch.ones(2), 9), ValueError, "got 9"),
        (lambda: quantize_taps(torch.ones(2), "pow3"), ValueError, "got 'pow3'"),
    ],
)
def test_bad_values_are_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("bits", ["pow2", 2, 3, 8])
@pytest.mark.parametrize("tap", [1.4e-45, 1e-42, 1e-38])
def test_vanishing_taps_are_quantized_to_finite_ones(bits, tap):
    snapped = quantize_taps(torch.tensor([tap, 0.0, -tap]), bits)
    assert bool(snapped.isfinite().all())
    assert bool((snapped.abs() <= 2 * tap).all())
