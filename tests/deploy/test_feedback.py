"""Own spikes in integer networks: folded exactly or within the stated bound, alike in every execution."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.deploy import IntegerNetwork, fold, interpret
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.file import from_bytes, to_bytes
from mfp_neurons.deploy.graph import Feedback
from mfp_neurons.deploy.neurons import NeuronValues, whole_numbers
from mfp_neurons.network import describe
from mfp_neurons.network.description import NeuronReset
from tests.deploy.agreement import events_agree, run_agrees, stream_agrees
from tests.deploy.graphs import Case, dense, fires, readout, vectors

BOUND = 6  # of what a synapse adds up here
dyadic = st.builds(Fraction, st.integers(-64, 64), st.sampled_from([1, 2, 8, 32]))  # ties are common
floats = st.floats(-8, 8, width=32).map(Fraction)
numbers = dyadic | floats


def decides(folded, potential, own, t):
    """Whether channel 0 fires at step t on a whole potential in units of the taps, with spikes before it."""
    steps = folded.thresholds.shape[0]
    feedback = folded.feedback
    total = sum(int(f[0]) * p for f, p in zip(folded.factors, potential, strict=True))
    total <<= feedback.shift
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
                assert decides(folded, potential, pattern, t) == right, (t, potential, pattern)


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
    assert folded.feedback.shift >= 12
    assert 100 * 7 << folded.feedback.shift < 2**31  # so 32 bits are enough


def test_a_wide_potential_gets_a_fixed_point_of_62_bits():
    folded = folded_with([-(0.7**j) for j in range(1, 13)], 0.3, bound=2**20)
    assert folded.feedback.shift > 31
    assert 0 < folded.error[0] < 1e-9


def test_a_synapse_without_weight_counts_as_rounding():
    folded = folded_with([-(0.7**j) for j in range(1, 13)], 1e-30)
    assert folded.factors[0][0] == 0
    assert folded.error[0] < 1e-4


def fed_back(steps=9):
    """Three layers, one of each kind of feedback."""
    rng = np.random.default_rng(3)

    def signs(out, inner):
        return rng.choice([-1, 1], (out, inner))

    own = rng.integers(-9, 4, (5, 12))
    layers = [
        replace(fires(dense(0, signs(12, 6)), [4, 2, 1], np.full((3, 12), 3)), feedback=Feedback("sum", own)),
        replace(
            fires(dense(1, signs(70, 12)), [2, 1], rng.integers(-2, 9, (2 * 4, 70))),
            feedback=Feedback("table", np.array([[2], [-1]])),
        ),
        replace(
            fires(dense(2, signs(9, 70)), [4, 2, 1, 1], rng.integers(0, 9, (4, 9))), feedback=Feedback("age")
        ),
    ]
    graph = vectors(6, *layers, readout(dense(3, signs(3, 9)), reduce="none"), steps=steps)
    check(graph)
    return Case(graph, rng.integers(0, 2, (steps, 5, 6, 1, 1)).astype(np.uint8), steps)


@pytest.mark.parametrize("steps", [1, 9, 70])
def test_all_executions_agree_where_own_spikes_of_every_kind_count(steps):
    case = fed_back(steps)
    run_agrees(case, threads=2)
    stream_agrees(case, threads=1)
    events_agree(case)
    assert to_bytes(from_bytes(to_bytes(case.graph))) == to_bytes(case.graph)
    _, maps = interpret.run(case.graph, case.levels.astype(np.int64), steps)
    if steps > 1:
        assert all(0.05 < spikes.mean() < 0.9 for spikes in maps[1:])


def test_an_example_worked_out_by_hand():
    """One input that is always there, taps 2 and 1: what each kind makes of it."""
    x = np.ones((6, 1, 1, 1, 1), np.int64)

    def spikes(feedback, thresholds, taps=(2, 1)):
        op = replace(fires(dense(0, [[1]]), taps, thresholds), feedback=feedback)
        return interpret.evaluate(op, [x], 6).ravel().tolist()

    assert spikes(None, [[2], [3]]) == [1, 1, 1, 1, 1, 1]
    # u = 2, 3 - 2, 3 - 1, 3 - 0, 3 - 2, 3 - 1 against 2 and then 3
    assert spikes(Feedback("sum", np.array([[-2], [-1]])), [[2], [3]]) == [1, 0, 0, 1, 0, 0]
    # after a spike one more is needed than there is
    assert spikes(Feedback("table", np.array([[1]])), [[2], [4], [3], [4]]) == [1, 0, 1, 0, 1, 0]
    # 2 right after a spike, 3 one step later; against 3 from the second step on
    assert spikes(Feedback("age"), [[3], [3]]) == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(("order", "reach", "kept"), [(1, 3, 3), (4, 3, 3), (6, 3, 5)])
def test_a_map_of_spikes_is_kept_once_for_both_uses(order, reach, kept):
    own = replace(
        fires(dense(0, np.ones((8, 4))), [1], np.full(8, 2)),
        feedback=Feedback("sum", -np.ones((reach, 1), np.int64)),
    )
    after = fires(dense(1, np.ones((8, 8))), [1] * order, np.full(8, 2), "after")
    network = IntegerNetwork(vectors(4, own, after, readout(dense(2, np.ones((2, 8)))), steps=8))
    assert network.graph.kept() == {1: kept}
    assert network.memory().state_stream == kept
    assert "R = 3 (added)" in str(network)
    assert "hidden: own spikes fed back, exact" in str(network)


def test_a_stream_keeps_the_own_spikes_of_a_lif_and_nothing_else():
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), MFP(0.5, order=4, reset="zero"), torch.nn.Linear(16, 2))
    network = deploy.lower(quantize_weights(net, first=1, last=1), torch.zeros(6, 1, 8))
    assert network.graph.kept() == {0: 3, 1: 3}
    stream = network.stream()
    stream.step(torch.zeros(2, 8))
    assert stream.state_bits == 2 * 3 * (8 + 16)


def lif(**options):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 64), MFP(**options), torch.nn.Linear(64, 3))
    return deploy.lower(quantize_weights(net), torch.zeros(12, 1, 8))


def test_what_is_exact_and_what_is_rounded_is_printed_and_stands_in_the_c(tmp_path):
    few = lif(decay=0.5, order=4, reset="subtract", v_threshold=0.5)
    assert (few.graph.ops[0].feedback.kind, few.graph.ops[0].error.max()) == ("table", 0)
    assert "R = 3 (8 thresholds)" in str(few)
    assert "1: own spikes fed back, exact" in str(few)
    many = lif(decay=0.5, reset="subtract", v_threshold=0.3)
    feedback, error = many.graph.ops[0].feedback, many.graph.ops[0].error.max()
    assert (feedback.kind, many.graph.ops[0].own_steps) == ("sum", 11)
    assert 0 < error < 1e-4
    words = f"own taps rounded to whole numbers, at most {error:.2g} off"
    assert f"1: {words}" in str(many)
    many.to_c(tmp_path)
    assert words in (tmp_path / "mfp_net.c").read_text()
    assert f" * 1, R = 11 (added): {words}." in (tmp_path / "mfp_net.h").read_text()


def test_a_matrix_kernel_with_a_reset_is_refused():
    network = describe(MFP(kernel="matrix", time_steps=4, kernel_bits="pow2"), torch.zeros(4, 1, 8))
    layer = replace(network.layers[1], reset=NeuronReset("zero"))
    with pytest.raises(LoweringError, match="has a matrix kernel and a reset"):
        whole_numbers(layer, 4)
