"""Folding against exact rational arithmetic: whatever a potential can be, it fires where real numbers say."""

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import fold
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.graph import CurrentPool, Synapse, Window
from mfp_neurons.deploy.interpret import accumulate
from mfp_neurons.deploy.neurons import NeuronValues

BOUND = 30  # of what a synapse adds up here
signs = pytest.mark.parametrize("sign", [1, -1, 0], ids=["gamma > 0", "gamma < 0", "gamma = 0"])
rules = pytest.mark.parametrize("strict", [False, True], ids=["fires on equality", "strict"])

dyadic = st.builds(Fraction, st.integers(-64, 64), st.sampled_from([1, 2, 8, 32]))  # ties are common
floats = st.floats(-8, 8, width=32).map(Fraction)
numbers = dyadic | floats


def positive(strategy):
    return strategy.map(abs).filter(lambda x: x > Fraction(1, 2**40))


@dataclass
class Root:
    """p + q sqrt(r), exactly; its sign is that of rational numbers."""

    p: Fraction
    q: Fraction = Fraction(0)
    r: Fraction = Fraction(0)

    def sign(self) -> int:
        root = _sign(self.q) * (self.r > 0)
        if _sign(self.p) * root >= 0:
            return _sign(self.p) or root
        return _sign(self.p) * _sign(self.p**2 - self.q**2 * self.r)


def _sign(x: Fraction) -> int:
    return (x > 0) - (x < 0)


@st.composite
def taps(draw):
    """[1, K, 1] or, of a matrix kernel, [T, T, 1] with an exponent."""
    order = draw(st.integers(1, 4))
    values = st.integers(-4, 4)
    if draw(st.booleans()):
        m = np.array(draw(st.lists(values, min_size=order, max_size=order)))[None, :, None]
    else:
        m = np.array([draw(st.lists(values, min_size=order, max_size=order)) for _ in range(order)])
        m = np.where(np.arange(order) <= np.arange(order)[:, None], m, 0)[..., None]
    return m.astype(np.int64), draw(st.integers(-4, 2))


def reached(m, steps):
    """Sum of the taps that each of the first steps reaches."""
    return [int(m[min(t, len(m) - 1), : t + 1, 0].sum()) for t in range(steps)]


def potentials(m):
    limit = BOUND * int(np.abs(m).sum(axis=1).max())
    return range(-limit, limit + 1)


def fires(folded, potential, t, channel=0):
    row = folded.thresholds[min(t, len(folded.thresholds) - 1), channel]
    return int(folded.factors[0][channel]) * potential >= int(row)


norms = st.tuples(
    numbers,
    numbers,
    positive(dyadic | floats | st.sampled_from([Fraction(1), Fraction(9, 4), Fraction(1, 16)])),
    st.sampled_from([0.0, 1e-5, 0.25]),
)


@signs
@rules
@given(
    scale=positive(numbers),
    bias=numbers,
    weight=positive(numbers),
    norm=st.none() | norms,
    kernel=taps(),
    v=numbers,
)
def test_a_threshold_decides_as_the_real_numbers_do(sign, strict, scale, bias, weight, norm, kernel, v):
    """With a batch norm behind the synapse or without."""
    (m, exponent), weight = kernel, sign * weight
    neuron = NeuronValues("n", m, exponent, np.array([float(v)]), strict)
    branch = fold.affine([scale * weight], [bias])
    beta, mean, variance, eps = norm or (bias, Fraction(0), Fraction(1), 0.0)
    if norm:
        branch = fold.affine([scale], [bias]).then(fold.batch_norm([weight], [beta], [mean], [variance], eps))
    folded = fold.thresholds([branch], [np.array([BOUND])], neuron)
    spread, shift = variance + Fraction(eps), bias - mean if norm else Fraction(0)
    for t, total in enumerate(reached(m, m.shape[1])):
        for potential in potentials(m):
            factor = weight * (scale * potential + shift * total) / spread
            margin = Root(beta * total - Fraction(float(v)) / Fraction(2) ** exponent, factor, spread).sign()
            assert fires(folded, potential, t) == (margin > 0 if strict else margin >= 0), (t, potential)


@pytest.mark.parametrize(
    ("taps", "offset", "rows"),
    [
        ([[[4], [2], [1]]], Fraction(1, 2), [[2], [1]]),  # 4 - 2, 4 - 3 and 4 - 3.5, rounded up
        ([[[4], [2], [1]]], 0, [[4]]),  # with no constant part, all steps have one threshold
        ([[[4], [0]], [[4], [0]]], 0, [[4], [4]]),  # but those of a matrix kernel
    ],
)
def test_there_are_as_many_rows_of_thresholds_as_differ(taps, offset, rows):
    neuron = NeuronValues("n", np.array(taps), -2, np.array([1.0]), False)
    folded = fold.thresholds([fold.affine([1], [offset])], [np.array([9])], neuron)
    assert folded.thresholds.tolist() == rows


def test_thresholds_out_of_reach_stay_next_to_what_can_be():
    neuron = NeuronValues("n", np.array([[[3]]]), 0, np.array([1e30, -1e30, 1e-30]), False)
    folded = fold.thresholds([fold.affine([1e-9] * 3, [0] * 3)], [np.array([5, 5, 5])], neuron)
    assert folded.thresholds.tolist() == [[16, -16, 1]]


@st.composite
def branches(draw, values):
    count = draw(st.integers(2, 3))
    scales = [draw(values) for _ in range(count)]
    bounds = [draw(st.sampled_from([0, 1, 7, 500])) for _ in range(count)]
    return scales, [draw(values) for _ in range(count)], bounds


def several(case, kernel, v, strict):
    (scales, offsets, bounds), (m, exponent) = case, kernel
    neuron = NeuronValues("n", m, exponent, np.array([float(v)]), strict)
    made = [fold.affine([a], [b]) for a, b in zip(scales, offsets, strict=True)]
    return fold.thresholds(made, [np.array([bound]) for bound in bounds], neuron)


def sequence(data, case, steps):
    """What the synapses add up at each step, within their bounds."""
    draw = st.sampled_from
    return [[data.draw(draw([-b, b, b // 2, -(b // 3), 0])) for b in case[2]] for _ in range(steps)]


def potential(m, t, currents):
    return sum(int(m[min(t, len(m) - 1), j, 0]) * currents[t - j] for j in range(min(t + 1, m.shape[1])))


def exact_and_whole(folded, case, kernel, added, t):
    """The potential in the model's unit without its constant part, exactly; and the integer one."""
    (scales, _, _), (m, exponent) = case, kernel
    real = [sum(a * n for a, n in zip(scales, row, strict=True)) for row in added]
    whole = [sum(int(f[0]) * n for f, n in zip(folded.factors, row, strict=True)) for row in added]
    return Fraction(2) ** exponent * potential(m, t, real), potential(m, t, whole)


reals = st.builds(Fraction, st.integers(-(10**9), 10**9), st.integers(1, 10**6))


@rules
@given(data=st.data(), is_dyadic=st.booleans(), kernel=taps())
def test_several_synapses_stay_within_the_stated_error_which_is_none_of_dyadic_scales(
    strict, data, is_dyadic, kernel
):
    case = data.draw(branches(dyadic if is_dyadic else reals))
    v = data.draw(dyadic if is_dyadic else numbers)
    m, exponent = kernel
    folded = several(case, kernel, v, strict)
    factors, reach = [abs(int(f[0])) for f in folded.factors], int(np.abs(m).sum(axis=1).max())
    assert max(factors) < 2**31
    assert sum(f * b for f, b in zip(factors, case[2], strict=True)) * reach < 2**62
    unit, error = Fraction(float(folded.unit[0])), Fraction(float(folded.error[0]))
    assert not is_dyadic or error == 0
    added = sequence(data, case, m.shape[1])
    for t, total in enumerate(reached(m, m.shape[1])):
        real, whole = exact_and_whole(folded, case, kernel, added, t)
        assert is_dyadic or abs(whole * unit - real) <= error
        margin = real + Fraction(2) ** exponent * sum(case[1]) * total - Fraction(float(v))
        spikes = whole >= int(folded.thresholds[min(t, len(folded.thresholds) - 1), 0])
        if is_dyadic or abs(margin) > error:
            assert spikes == (margin > 0 or (margin == 0 and not strict))


def test_the_error_of_irrational_scales_is_small():
    third, root = Fraction(1, 3), Fraction(isqrt(2 * 10**40), 10**20)
    folded = several(
        ([third, root], [third, third], [1152, 1152]), (np.array([[[8], [4], [2], [1]]]), -3), 1, 0
    )
    assert 0 < folded.error[0] < 1e-5  # of a threshold of 1


@given(data=st.data(), case=branches(reals | dyadic), classes=st.integers(1, 3))
def test_scores_stay_within_the_stated_error(data, case, classes):
    scales, offsets, bounds = case
    made = [
        fold.affine([a * (c + 1) for c in range(classes)], [b - c for c in range(classes)])
        for a, b in zip(scales, offsets, strict=True)
    ]
    folded = fold.scores(made, [np.full(classes, bound) for bound in bounds])
    (added,) = sequence(data, case, 1)
    for c in range(classes):
        real = sum(a * (c + 1) * n + b - c for a, b, n in zip(scales, offsets, added, strict=True))
        whole = sum(int(f[c]) * n for f, n in zip(folded.factors, added, strict=True)) + int(folded.offset[c])
        rounding = abs(Fraction(whole)) * Fraction(folded.unit) * Fraction(1, 2**53)  # of the unit, a float
        assert abs(whole * Fraction(folded.unit) - real) <= Fraction(float(folded.error[c])) + rounding
        assert abs(whole) < 2**46


def test_counts_over_a_number_need_no_fixed_point():
    folded = fold.scores([fold.affine([Fraction(1, 10)] * 3, [0] * 3)], [np.array([7, 7, 7])])
    assert [f.tolist() for f in folded.factors] == [[1, 1, 1]]
    assert folded.unit == 0.1 and not folded.error.any() and not folded.offset.any()


def test_a_potential_that_does_not_fit_says_which_order_would():
    long = np.array([[[2**j] for j in reversed(range(62))]])
    neuron = NeuronValues("layers.3", long, -61, np.array([1.0]), False)
    with pytest.raises(LoweringError, match=r"'layers.3'.*62 bits.*order=52 or less"):
        fold.thresholds([fold.affine([1], [0])], [np.array([1000])], neuron)
    kept = NeuronValues("layers.3", long[:, -52:], -51, np.array([1.0]), False)
    assert fold.thresholds([fold.affine([1], [0])], [np.array([1000])], kept).thresholds[0, 0] == 2**51


def test_several_synapses_need_room_for_factors_that_say_something():
    """Within 62 bits the factors would come down to 0 and 1, with an error as large as the current."""
    long = np.array([[[2**j] for j in reversed(range(52))]])
    neuron = NeuronValues("layers.3", long, -51, np.array([1.0]), False)
    third, seventh = fold.affine([Fraction(1, 3)], [0]), fold.affine([Fraction(1, 7)], [0])
    bounds = [np.array([500]), np.array([500])]
    with pytest.raises(LoweringError, match=r"'layers.3'.*62 bits.*order=36 or less"):
        fold.thresholds([third, seventh], bounds, neuron)
    kept = NeuronValues("layers.3", long[:, -36:], -35, np.array([1.0]), False)
    assert 0 < fold.thresholds([third, seventh], bounds, kept).error[0] < 0.02
    assert fold.thresholds([third, third], bounds, kept).factors[0] >= 2**15


def test_what_cannot_fold_says_so():
    with pytest.raises(ValueError, match="must be finite, got nan"):
        fold.affine([float("nan")], [0])
    with pytest.raises(ValueError, match=r"variance \+ eps of a batch norm must be positive, got -1"):
        fold.batch_norm([1], [0], [0], [-1], 0)


# --- signs ------------------------------------------------------------------------------------------------


def synapse(codes, bits, kind=None):
    pool = None if kind is None else CurrentPool(kind, Window((1, 2), (1, 2)), (2, 1, 1))
    shaped = np.array(codes, np.int8).reshape(2, -1, 1, 1)
    return Synapse(0, shaped, bits, Window(), (2, 1, 2), pool=pool)


@pytest.mark.parametrize(
    ("codes", "bits", "kind", "moves"),
    [
        ([[1, -1], [-1, -1]], 1, None, True),
        ([[1, 0], [-1, 0]], 1.58, None, True),
        ([[1, 0], [-2, 1]], 2, None, False),
        ([[127, -127], [5, -128]], 8, None, False),
        ([[127, -127], [5, -127]], 8, "sum", True),
        ([[127, -127], [5, -127]], 8, "max", False),
    ],
)
def test_signs_go_into_the_codes_where_they_can(codes, bits, kind, moves):
    before = synapse(codes, bits, kind)
    factors = np.array([1, -1])
    after = fold.with_factors(before, factors)
    assert (after.factor is None) == moves
    source = np.random.default_rng(0).integers(0, 2, (3, 1, before.codes.shape[1], 1, 2))
    assert np.array_equal(accumulate(after, source), accumulate(before, source) * factors[:, None, None])


@given(codes=st.lists(st.integers(-3, 3), min_size=2, max_size=2), a=numbers, b=numbers, data=st.data())
def test_a_max_pool_of_currents_sees_the_affine_map_before_or_after_it(codes, a, b, data):
    """Behind the pool a negative scale is a factor; before it, it is one of the codes."""
    source = np.array(data.draw(st.lists(st.integers(0, 1), min_size=8, max_size=8))).reshape(4, 1, 1, 1, 2)
    neuron = NeuronValues("n", np.array([[[2], [1]]]), -1, np.array([1.0, 1.0]), False)
    pooled = synapse([[c] for c in codes], 3, "max")
    folded = fold.thresholds([fold.affine([a, a], [b, b])], [np.array([3, 3])], neuron)
    acc = accumulate(fold.with_factors(pooled, folded.factors[0]), source)[:, 0, :, 0, 0]
    flat = fold.with_factors(synapse([[c] for c in codes], 3), folded.factors[0])
    before = accumulate(flat, source).max(axis=-1)[:, 0, :, 0]
    for c, code in enumerate(codes):
        after_pool = [a * max(code * int(s) for s in row) + b for row in source[:, 0, 0, 0]]
        before_pool = [max(a * code * int(s) + b for s in row) for row in source[:, 0, 0, 0]]
        for t in range(4):
            threshold = folded.thresholds[min(t, len(folded.thresholds) - 1), c]
            for whole, real in ((acc, after_pool), (before, before_pool)):
                total = 2 * int(whole[t, c]) + (int(whole[t - 1, c]) if t else 0)
                u = real[t] + (real[t - 1] / 2 if t else 0)
                assert (total >= threshold) == (u >= 1)
