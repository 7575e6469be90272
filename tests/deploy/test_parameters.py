"""Parameters take the bits that they need, and memory counts what the file has."""

import re
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise
from math import ceil, floor, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfp_neurons.deploy import IntegerNetwork, interpret
from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.deploy.file import from_bytes, to_bytes
from mfp_neurons.deploy.graph import Feedback, Gather, Graph, Neurons
from mfp_neurons.deploy.parameters import Line, parameters, threshold_line
from mfp_neurons.history import quantize_taps
from tests.deploy.graphs import Case, cases, dense, fires, readout, vectors
from tests.deploy.mutations import parts
from tests.deploy.native import SANITIZED, check_scores
from tests.deploy.test_file import assert_same


def stored(graph: Graph) -> int:
    """Bytes of whole numbers in the file of a network, which comes back from it as it was."""
    data = to_bytes(graph)
    assert_same(from_bytes(data), graph)
    return parts(data)[1]["numbers"].size


def layer(taps: Any, thresholds: Any, **fields: Any) -> Graph:
    """Neurons with taps [K, C] behind 100 inputs."""
    channels = len(thresholds[0])
    fire = fires(dense(0, np.ones((channels, 100))), [1], np.array(thresholds, np.int64))
    fire = replace(fire, taps=np.array(taps, np.int64)[None], **fields)
    return vectors(100, fire, readout(dense(1, np.ones((1, channels)))), steps=4)


@given(cases())
def test_memory_counts_the_bytes_of_the_file(case: Case) -> None:
    assert IntegerNetwork(case.graph).memory().parameters == stored(case.graph)


def test_places_that_several_operations_have_are_stored_once() -> None:
    places = np.random.default_rng(0).permutation(256)
    moves = [Gather(name, i, places, (256, 1, 1), 1) for i, name in enumerate("abc")]
    last = readout(dense(3, np.ones((1, 256))))
    graph = vectors(256, *moves, last, steps=2)
    assert stored(graph) == IntegerNetwork(graph).memory().parameters == 256 + 1  # of 8 bits; an offset


def folded(rng: np.random.Generator, order: int, channels: int, strict: bool) -> tuple[Any, Any]:
    """Taps, and the thresholds of a current a A + b: the least P with a P + b M >= v, in exact fractions."""
    taps = rng.choice([-1, 1, 1], (order, channels)) * 2 ** rng.integers(0, 8, (order, channels))
    scale, offset, limit = (rng.uniform(low, high, channels) for low, high in [(0.01, 1), (-2, 2), (-50, 99)])
    rows = []
    for t in range(order):
        sums = taps[: t + 1].sum(axis=0).tolist()
        needed = [
            (Fraction(v) - Fraction(b) * m) / Fraction(a)
            for v, b, m, a in zip(limit, offset, sums, scale, strict=True)
        ]
        rows.append([floor(z) + 1 if strict else ceil(z) for z in needed])
    return taps, np.array(rows)


@settings(max_examples=30)
@given(
    st.integers(0, 2**32),
    st.sampled_from([2, 3, 8, 28]),
    st.sampled_from([1, 5, 64]),
    st.booleans(),
    st.booleans(),
)
def test_thresholds_of_a_batch_norm_come_back_from_two_numbers_a_channel(
    seed: int, order: int, channels: int, strict: bool, negative: bool
) -> None:
    taps, thresholds = folded(np.random.default_rng(seed), order, channels, strict)
    graph = layer(-taps if negative else taps, thresholds)
    taken = stored(graph)
    assert taken == IntegerNetwork(graph).memory().parameters
    if order == 28 and channels > 1 and not negative:
        # 14 to 20 bits each for start and slope, instead of 28 numbers of 16 bits or more
        assert taken <= channels * (order / 2 + 1 + 7) + 2


def has_slope(thresholds: list[int], sums: list[int]) -> bool:
    """Whether thresholds are floor(A - B sum) for some A and B: each pair of steps bounds B."""
    low, high = -inf, inf
    for t, u in combinations(range(len(sums)), 2):
        rise, run = thresholds[u] - thresholds[t], sums[t] - sums[u]
        if run < 0:
            rise, run = -rise, -run
        if run == 0 and rise:
            return False
        if run:
            low, high = max(low, Fraction(rise - 1, run)), min(high, Fraction(rise + 1, run))
    return low < high


@settings(max_examples=200)
@given(st.data())
def test_a_line_is_found_if_and_only_if_there_is_one(data: st.DataObject) -> None:
    order, channels = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 2))
    numbers = st.lists(st.integers(-3, 3), min_size=order * channels, max_size=order * channels)
    taps = np.array(data.draw(numbers)).reshape(order, channels)
    slope, start = data.draw(st.integers(-20, 20)), data.draw(st.integers(-99, 99))
    off = np.array(data.draw(st.just([0] * order * channels) | numbers)).reshape(order, channels)
    thresholds = ((start - slope * taps.cumsum(axis=0)) >> 3) + off // 3
    fire = layer(taps, thresholds).ops[0]
    assert isinstance(fire, Neurons)
    line = threshold_line(fire)
    columns = zip(thresholds.T.tolist(), taps.cumsum(axis=0).T.tolist(), strict=True)
    assert (line is not None) == all(has_slope(*column) for column in columns)


def test_the_line_of_thousands_of_steps_is_found() -> None:
    rng = np.random.default_rng(0)
    taps = rng.integers(-127, 128, (3000, 64))
    slopes, starts = rng.uniform(-20, 20, 64), rng.uniform(-50, 99, 64)
    fire = layer(taps, np.ceil(starts - slopes * taps.cumsum(axis=0))).ops[0]
    assert isinstance(fire, Neurons)
    assert isinstance(parameters(fire).thresholds, Line)


def test_thresholds_that_follow_from_nothing_are_stored_as_they_are() -> None:
    rng = np.random.default_rng(0)
    graph = layer(np.ones((4, 16)), rng.integers(-128, 128, (4, 16)))
    assert stored(graph) == 4 * 16 + 1 + 1  # a byte each; taps that are alike, and an offset


@pytest.mark.parametrize("bits", [17, 40, 61])
def test_thresholds_of_many_bits_come_back(bits: int) -> None:
    line = 2**bits - 3 * np.arange(1, 5)[:, None] * np.array([[5, 2 ** (bits - 6)]])
    graph = layer(np.ones((4, 2)), line)
    assert stored(graph) <= -(-4 * 2 * bits // 8) + 2
    limits = np.array([[2**62, -(2**62)], [-(2**62), 2**62], [0, 0], [1, 1]])
    stored(layer(np.ones((4, 2)), limits))


def test_equal_rows_of_thresholds_are_stored_once() -> None:
    row = np.arange(-64, 64)
    taps = np.array([[4], [2], [1], [1], [-1], [3]])
    graph = layer(taps, np.tile(row, (6, 1)))
    assert stored(graph) == 128 * 7 // 8 + 3 + 1  # six taps of 4 bits, and an offset
    assert stored(graph) == stored(layer(taps, [row]))


def test_powers_of_two_take_four_bits() -> None:
    real = torch.randn(28, 256, generator=torch.Generator().manual_seed(0))
    taps = (quantize_taps(real, "pow2") * 2**9).numpy().astype(np.int64)
    assert np.isin(np.abs(taps), [0, *(2 ** np.arange(14)).tolist()]).all()
    graph = layer(taps, np.zeros((1, 256)))
    columns = 28 / 2 + 1  # and in a byte the exponent of the column, and which of 17 numbers it lacks
    assert stored(graph) <= 256 * columns + 256 / 8 + 1


def test_a_column_with_all_seventeen_numbers_takes_more_bits_and_comes_back() -> None:
    powers = 2 ** np.arange(8)
    every = np.concatenate([[0], powers, -powers])[:, None]
    graph = layer(every, np.zeros((1, 1)))
    assert stored(graph) == IntegerNetwork(graph).memory().parameters
    assert stored(layer(np.delete(every, 3, 0), np.zeros((1, 1)))) < stored(graph)


@pytest.mark.parametrize("groups", [1, 4, 8, 32])
def test_channels_with_the_same_taps_store_them_once(groups: int) -> None:
    rng = np.random.default_rng(groups)
    sets = rng.integers(-128, 128, (8, groups))
    graph = layer(sets.repeat(32 // groups, axis=1), np.zeros((1, 32)))
    assert stored(graph) <= 8 * groups + 32 // 8 + 1
    # another order is none of groups of neighbours
    if 1 < groups < 32:
        other = layer(np.tile(sets, 32 // groups), np.zeros((1, 32)))
        assert stored(other) > stored(graph)


def test_own_taps_take_their_bits_as_other_taps_do() -> None:
    own = np.array([[-8], [-4], [-2], [-1]]).repeat(64, axis=1)
    graph = layer(np.ones((4, 64)), np.zeros((1, 64)), feedback=Feedback("sum", own))
    assert stored(graph) == IntegerNetwork(graph).memory().parameters <= 2 + 64 // 8 + 1 + 1


def test_a_table_of_thresholds_follows_from_a_start_for_each_choice() -> None:
    taps = np.array([[4], [2], [1], [1], [-2], [1], [3], [1]])
    reached = taps.cumsum(axis=0)[:, None]
    starts = np.random.default_rng(0).integers(0, 2**14, (1, 3, 64))
    slopes = np.random.default_rng(1).integers(-200, 200, 64)
    table = (starts - slopes * reached) >> 4
    feedback = Feedback("table", np.array([[1], [1]]))
    graph = layer(taps, table.reshape(-1, 64), feedback=feedback)
    assert stored(graph) < 64 * (3 * 2 + 2) + 8  # instead of 8 * 3 numbers a channel


def test_neurons_of_a_matrix_kernel_come_back_and_run_in_c() -> None:
    matrix = np.tril(np.random.default_rng(0).integers(-9, 9, (6, 6)))
    taps = np.array([[row[t - j] if j <= t else 0 for j in range(6)] for t, row in enumerate(matrix)])
    rows = (5 - 3 * taps.sum(axis=1))[:, None] + np.arange(4)
    graph = layer(np.ones((6, 4)), rows)
    fire = replace(graph.ops[0], taps=taps[..., None])
    assert isinstance(fire, Neurons)
    graph = replace(graph, ops=(fire, *graph.ops[1:]), steps=6, fixed=True)
    assert stored(graph) == IntegerNetwork(graph).memory().parameters
    levels = np.random.default_rng(1).integers(0, 2, (6, 3, 100, 1, 1)).astype(np.uint8)
    check_scores([Case(graph, levels, 6)], "gcc", *SANITIZED["gcc"])


# and the generated C, which reads them as they are stored


def on_a_line(taps: Any, channels: int, choices: int, seed: int, *, shift: int = 6) -> Any:
    """Thresholds [K * choices, C] that follow from a start and a slope, near potentials that occur."""
    rng = np.random.default_rng(seed)
    reached = np.cumsum(taps, axis=0)[:, None]
    starts = rng.integers(-(2**10), 2**10, (choices, channels))
    return ((starts - rng.integers(-90, 90, channels) * reached) >> shift).reshape(-1, channels)


def lines(seed: int) -> Case:
    """Taps of powers of two in groups, own spikes of each kind, and thresholds that follow from lines."""
    rng = np.random.default_rng(seed)
    sizes, layers = [6, 24, 40, 9, 12], []
    for i, (inner, channels) in enumerate(pairwise(sizes)):
        groups = [channels, channels // 4, channels, 1][i]
        powers = 2 ** rng.integers(0, 8, (7, groups)) * rng.choice([-1, 0, 1, 1], (7, groups))
        powers[0] = 128  # so that columns without it are not divided
        taps = powers.repeat(channels // groups, axis=1)
        feedback = [
            None,
            Feedback("sum", rng.integers(-90, 40, (3, 1))),
            Feedback("table", np.array([[2], [-1]])),
            Feedback("age"),
        ][i]
        rows = on_a_line(taps, channels, 4 if i == 2 else 1, seed + i)
        fire = fires(dense(i, rng.choice([-1, 1], (channels, inner))), [1], rows)
        layers.append(replace(fire, name=f"layer{i}", taps=taps[None], feedback=feedback))
    last = readout(dense(4, rng.choice([-1, 1], (3, sizes[-1]))), reduce="none")
    graph = vectors(sizes[0], *layers, last, steps=12)
    return Case(graph, rng.integers(0, 2, (12, 4, sizes[0], 1, 1)).astype(np.uint8), 12)


def test_c_reads_powers_of_two_and_thresholds_on_a_line_as_the_interpreter_does(tmp_path: Path) -> None:
    networks = [lines(seed) for seed in range(4)]
    text = write_c(networks[0].graph, tmp_path)[1].read_text()
    for index in range(1, 5):
        assert f".powers = powers{index}" in text
        assert re.search(
            rf"\.threshold_rows = 0, .*thresholds{index}, .*\n +\.slopes = {{slopes{index}", text
        )
    for case in networks:
        _, maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
        assert all(0 < layer.mean() < 1 for layer in maps[1:])  # some fire, some do not
    check_scores(networks, "gcc", *SANITIZED["gcc"])


def wide(bits: int) -> Case:
    """Thresholds of so many bits that follow from lines, of potentials that meet them."""
    taps = np.array([[4], [2], [1], [-1]]) << (bits - 8)
    rows = on_a_line(taps >> (bits - 8), 16, 1, bits, shift=4) << (bits - 8)
    fire = fires(dense(0, np.random.default_rng(bits).choice([-1, 1], (16, 5))), [1], rows)
    last = readout(dense(1, np.ones((2, 16))), reduce="none")
    graph = vectors(5, replace(fire, taps=taps[None]), last, steps=9)
    levels = np.random.default_rng(1).integers(0, 2, (9, 3, 5, 1, 1)).astype(np.uint8)
    return Case(graph, levels, 9)


def test_c_computes_thresholds_in_as_many_bits_as_potentials() -> None:
    check_scores([wide(bits) for bits in (12, 24, 28, 30, 34, 50, 58)], "gcc", *SANITIZED["gcc"])


def test_taps_whose_sum_fits_nowhere_run_where_no_code_reaches_them() -> None:
    networks = []
    for bits, feedback in [(30, None), (30, Feedback("age")), (61, None), (61, Feedback("age"))]:
        taps = np.full((1, 6, 8), 2**bits)
        codes = np.zeros((8, 5))
        fire = fires(dense(0, codes, 2), [1], np.arange(-24, 24).reshape(6, 8))
        fire = replace(fire, taps=taps, feedback=feedback)
        graph = vectors(5, fire, readout(dense(1, np.ones((2, 8))), reduce="none"), steps=9)
        networks.append(Case(graph, np.ones((9, 2, 5, 1, 1), np.uint8), 9))
    for case in networks:
        assert stored(case.graph) == IntegerNetwork(case.graph).memory().parameters
    check_scores(networks, "gcc", *SANITIZED["gcc"])
