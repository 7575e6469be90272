"""Own spikes in integer networks: folded exactly or within the stated bound, alike in every execution."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import fold
from mfp_neurons.deploy.neurons import NeuronValues

BOUND = 6  # of what a synapse adds up here
dyadic = st.builds(Fraction, st.integers(-64, 64), st.sampled_from([1, 2, 8, 32]))  # ties are common
floats = st.floats(-8, 8, width=32).map(Fraction)
numbers = dyadic | floats


def decisions(folded, m, potential, own, t):
    """Whether channel 0 fires at step t on a whole potential in units of the taps, with spikes before it."""
    steps = folded.thresholds.shape[0]
    feedback = folded.feedback
    shift = int(folded.taps.ravel()[np.abs(m).argmax()]) // int(m.ravel()[np.abs(m).argmax()])
    total = sum(int(f[0]) * p for f, p in zip(folded.factors, potential, strict=True)) * shift
    added = 0
    if feedback is not None and feedback.taps is not None:
        added = sum(int(tap) * spike for tap, spike in zip(feedback.taps[:, 0], own, strict=True))
    choices, choice = 1, 0
    if feedback is not None and feedback.kind == "table":
        choices, choice = 1 + int(np.abs(feedback.taps).sum()), feedback.start + added
    elif feedback is not None:
        total += added
    row = min(t, steps // choices - 1)
    return total >= int(folded.thresholds[row * choices + choice, 0])


@given(
    scales=st.lists(numbers, min_size=1, max_size=2),
    bias=numbers,
    m=st.lists(st.integers(-4, 4).filter(bool), min_size=1, max_size=3),
    exponent=st.integers(-4, 2),
    own=st.lists(numbers, min_size=1, max_size=6),
    kinds=st.sampled_from(["any", "any", "alike", "halves"]),
    v=numbers,
    rest=numbers,
    strict=st.booleans(),
)
def test_thresholds_decide_with_own_spikes_as_the_real_numbers_do(
    scales, bias, m, exponent, own, kinds, v, rest, strict
):
    if kinds == "alike":
        own = own[:1] * (3 * len(own))
    if kinds == "halves":
        own = [own[0] / 2**j for j in range(min(4, len(own)))]
    own[-1] = own[-1] or Fraction(1)
    taps = np.array(m, np.int64)[None, :, None]
    column = np.array(own, object)[:, None]
    neuron = NeuronValues("n", taps, exponent, np.array([float(v)]), strict, float(rest), column)
    branches = [fold.affine([scale], [bias if i == 0 else 0]) for i, scale in enumerate(scales)]
    folded = fold.thresholds(branches, [np.array([BOUND])] * len(scales), neuron)
    assert folded.feedback is not None
    error, unit = Fraction(float(folded.error[0])), Fraction(2) ** exponent
    if (
        len(scales) == 1
        and len({sum(s) for s in product(*({0, r} for r in own[:4]))}) <= 16
        and len(own) <= 4
    ):
        assert error == 0
    if folded.feedback.kind == "table":
        assert len(scales) > 1 or error == 0
    patterns = list(product([0, 1], repeat=len(own))) if len(own) <= 6 else [(0,) * len(own), (1,) * len(own)]
    for t, reached in enumerate(np.cumsum(m)):
        for potential in product(range(-BOUND, BOUND + 1, 3), repeat=len(scales)):
            for pattern in patterns:
                u = unit * (sum(a * p for a, p in zip(scales, potential, strict=True)) + bias * int(reached))
                u += sum(r * s for r, s in zip(own, pattern, strict=True))
                margin = u - (Fraction(float(v)) - Fraction(float(rest)))
                if error and abs(margin) <= error:
                    continue
                right = margin > 0 if strict else margin >= 0
                assert decisions(folded, taps, potential, pattern, t) == right, (t, potential, pattern)


def folded_with(own, scale=1.0, v=1.0, taps=(4, 2, 1), exponent=-2, bound=100):
    """One channel with own taps [R]."""
    column = np.array([Fraction(r) for r in own], object)[:, None]
    neuron = NeuronValues("n", np.array(taps)[None, :, None], exponent, np.array([v]), False, 0.0, column)
    return fold.thresholds([fold.affine([scale], [0.1])], [np.array([bound])], neuron)


@pytest.mark.parametrize(
    ("own", "scale", "kind", "choices"),
    [
        ([-0.5, -0.25, -0.125], 0.3, "table", 8),  # the first four taps of a LIF
        ([-0.3], 0.7, "table", 2),
        ([-1.0] * 15, 0.3, "table", 16),  # an integrator: spikes are counted
        ([0.3, -0.7, 0.3, -0.7], 0.3, "table", 9),  # of two kinds
        ([1, 2, 3, 4, 5], 0.3, "table", 16),  # multiples of one number
        ([0.5, -0.25, 0.5], 0.3, "table", 6),
        ([-0.5, -0.25, -0.125], 0.25, "sum", 1),  # on the grid of the potential
        ([-(0.5**j) for j in range(1, 28)], 0.125, "sum", 1),  # as fine as float32
    ],
)
def test_few_sums_and_sums_on_the_grid_are_exact(own, scale, kind, choices):
    folded = folded_with(own, scale)
    assert (folded.feedback.kind, folded.error[0]) == (kind, 0)
    assert len(folded.thresholds) % choices == 0
    if kind == "table":
        assert 1 + np.abs(folded.feedback.taps).sum() == choices


def test_more_sums_are_a_fixed_point_with_a_small_bound():
    folded = folded_with([-(0.7**j) for j in range(1, 13)], 0.3)
    assert folded.feedback.kind == "sum"
    assert 0 < folded.error[0] < 12 * folded.unit[0] < 12 * 0.3 / 2**12
    assert int(folded.taps.max()) * 100 * 2 < 2**31  # so 32 bits are enough


def test_a_wide_potential_gets_a_fixed_point_of_62_bits():
    folded = folded_with([-(0.7**j) for j in range(1, 13)], 0.3, bound=2**20)
    assert folded.taps.max() > 2**31
    assert 0 < folded.error[0] < 1e-9


def test_a_synapse_without_weight_counts_as_rounding():
    folded = folded_with([-(0.7**j) for j in range(1, 13)], 1e-30)
    assert folded.factors[0][0] == 0
    assert folded.error[0] < 1e-4
