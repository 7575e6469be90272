"""The compiled runtime: equal to the interpreter, run and streamed; what it keeps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import Currents, Gather, Graph, Input, MatMul, Op, Sum, Synapse, Window
from mfp_neurons.deploy.host.compiled import Compiled
from tests.deploy.agreement import run_agrees, stream_agrees
from tests.deploy.graphs import Case, cases, dense, fires, readout, vectors


@given(case=cases(), threads=st.sampled_from([1, 1, 3]))
def test_every_map_and_score_is_that_of_the_interpreter(case: Case, threads: int) -> None:
    run_agrees(case, threads)


@given(case=cases(), threads=st.sampled_from([1, 1, 3]))
def test_a_stream_gives_the_same_step_by_step(case: Case, threads: int) -> None:
    stream_agrees(case, threads)


def network(order: int = 3) -> Graph:
    """An image of 2 channels, 70 neurons, two scores."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (70, 2, 3, 3)).astype(np.int8)
    first = Synapse(0, codes, 4, Window((3, 3)), (70, 3, 3))
    signs = rng.choice([-1, 1], (2, 70, 3, 3)).astype(np.int8)
    last = Synapse(1, signs, 1, Window((3, 3)), (2, 1, 1))
    hidden = fires(first, 2 ** np.minimum(20, np.arange(order)[::-1]), np.full(70, 40 * 255))
    return Graph(Input((2, 5, 5), (2, 5, 5), 255), (hidden, readout(last, offset=[3, -4])), 4)


def images(steps: int, samples: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (steps, samples, 2, 5, 5)).astype(np.uint8)


@pytest.mark.parametrize("order", [3, 150])
def test_long_sequences_are_taken_in_chunks(order: int) -> None:
    case = Case(network(order), images(200, 2), 200)
    run_agrees(case, threads=2)
    stream_agrees(case, threads=1)


def test_runs_of_other_sizes_follow_one_another_in_any_memory_order() -> None:
    runtime, graph = Compiled(network()), network()
    for steps, samples in [(4, 3), (4, 1), (1, 3), (9, 2), (4, 3)]:
        levels = np.asfortranarray(images(steps, samples))
        (expected,), _ = interpret.run(graph, levels.astype(np.int64), steps)
        np.testing.assert_array_equal(runtime.run(levels, steps)[0], expected)


@pytest.mark.parametrize("order", [1, 6])
def test_a_stream_keeps_history_and_nothing_else(order: int) -> None:
    stream, graph = Compiled(network(order)).stream(), replace(network(order), steps=1)
    for step in images(4, 3):
        stream.step(step)
        # the one array that it holds; what a stream says of itself is counted from the graph
        assert 8 * stream._past.nbytes == graph.state_bits() * 3


def compares(graph: Graph, levels: np.ndarray, threads: int = 1) -> None:
    """A run and a stream of it beside the interpreter."""
    case = Case(graph, levels, len(levels))
    run_agrees(case, threads)
    stream_agrees(case, threads)


# both matrices as words of bits, one of them numbers, numbers too large to be counted, and the largest sums
@pytest.mark.parametrize(
    ("length", "tops"),
    [
        (1, (1, 1)),
        (64, (1, 1)),
        (65, (1, 1)),
        (196, (7, 1)),
        (65, (255, 9)),
        (1, (4095, 4097)),
        (65, (509, 507)),
    ],
)
@pytest.mark.parametrize(("channels", "rows", "columns"), [(3, 2, 3), (66, 2, 3), (3, 5, 70)])
def test_products_of_matrices_are_those_of_whole_numbers(
    length: int, tops: tuple[int, int], channels: int, rows: int, columns: int
) -> None:
    left, right = (channels, rows, length), (channels, length, columns)
    places = np.arange(channels * rows * length)
    more = np.arange(channels * length * columns) % len(places)
    parts: list[Op] = [Sum("left", (0,), (tops[0],), left, tops[0]), Gather("places", 0, more, right, 1)]
    parts += [Sum("right", (2,), (tops[1],), right, tops[1])]
    top = tops[0] * tops[1] * length
    matrices = MatMul("products", (1, 3), (channels, rows, columns), top)
    codes = np.zeros((1, *matrices.shape), np.int8)
    codes[..., -1, -1] = 1  # of all products together the sum may be too large
    read = Synapse(4, codes, 1.58, Window((rows, columns)), (1, 1, 1))
    graph = Graph(Input(left, left, 1), (*parts, matrices, readout(read, reduce="none")), 2)
    levels = np.random.default_rng(length).integers(0, 2, (2, 2, *left)).astype(np.uint8)
    levels[0, 0] = 1
    check(graph)
    compares(graph, levels, threads=2)


@pytest.mark.parametrize(
    ("top", "channels"), [(200, 3), (60_000, 3), (2**23, 3), (200, 130), (60_000, 130), (2**20, 130)]
)
def test_currents_of_any_size_are_read_by_synapses_and_kept_by_a_stream(top: int, channels: int) -> None:
    rng = np.random.default_rng(top)
    codes = rng.integers(-1, 2, (channels, 4, 1, 1)).astype(np.int8)
    factor = np.full(channels, max(1, top // (2 * 4 * 3)))
    first = Synapse(0, codes, 1.58, Window(), (channels, 2, 3), factor=factor)
    currents = Currents("currents", (first,), np.full(channels, top // 2), (channels, 2, 3), top, top // 2)
    # few numbers are multiplied, many counted; each channel by itself reads them as they are
    dense_codes = rng.integers(-1, 2, (5, channels, 2, 3)).astype(np.int8)
    fires_on = Synapse(1, dense_codes, 1.58, Window((2, 3)), (5, 1, 1))
    depthwise = Synapse(1, rng.integers(-8, 8, (channels, 1, 1, 1)).astype(np.int8), 4, Window(), first.shape)
    neurons = fires(
        fires_on, [2, 1, 1], np.full(5, (dense_codes.sum((1, 2, 3)) * 4 * (top // 2)).mean()).astype(int)
    )
    other = fires(replace(depthwise, groups=channels), [3, -1], np.zeros(channels, int))
    scores = readout(dense_of(2, 5, 1), dense_of(3, channels, 6))
    graph = Graph(Input((4, 2, 3), (4, 2, 3), 3), (currents, neurons, other, scores), 5)
    check(graph)
    compares(graph, rng.integers(0, 4, (5, 2, 4, 2, 3)).astype(np.uint8))


@pytest.mark.parametrize("channels", [3, 70])
@pytest.mark.parametrize("shift", [1, 8, 9, 20, 37])
def test_currents_leave_out_their_lowest_bits(shift: int, channels: int) -> None:
    # up to 2**24 - 1 as far as factors go: with a shift of 8 sums just fit 32 bits, with 9 they do not
    factor = 2 ** min(10 + shift, 30)
    signs = np.where(np.arange(channels) % 2, -1, 1)
    first = replace(dense(0, np.diag(64 * signs), 8), factor=np.full(channels, factor))
    rng = np.random.default_rng(shift)
    offset = rng.integers(0, 64 * factor, channels) + np.where(signs < 0, 255 * 64 * factor, 0)
    offset[0] = 64 * factor - 1
    top = (256 * 64 * factor - 1) >> shift
    currents = Currents("currents", (first,), offset, (channels, 1, 1), top, top // 2, shift)
    scores = readout(dense(1, np.eye(channels), 1.58), reduce="none")
    graph = vectors(channels, currents, scores, steps=3, top=255)
    check(graph)
    levels = rng.integers(0, 256, (3, 2, channels, 1, 1)).astype(np.uint8)
    levels[:, 0] = np.array([0, 255, 1])[:, None, None, None]
    sums = offset.astype(object) + 64 * factor * signs * levels[..., 0, 0]  # integers of any size
    assert sums.max() == 256 * 64 * factor - 1
    np.testing.assert_array_equal(Compiled(graph).run(levels, 3)[0][..., 0, 0], sums >> shift)
    compares(graph, levels)


def dense_of(source: int, channels: int, places: int) -> Synapse:
    """One number: all of a map, added up."""
    window = Window((2, 3) if places > 1 else (1, 1))
    return Synapse(source, np.ones((1, channels, *window.size), np.int8), 1, window, (1, 1, 1))


@pytest.mark.parametrize("order", [1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_recurrent_neurons_hear_their_own_spikes_a_step_later(order: int, threads: int) -> None:
    rng = np.random.default_rng(order)
    codes, own = rng.integers(-4, 4, (2, 70, 70)).astype(np.int8)
    hidden = fires(dense(0, codes, 3), 2 ** np.arange(order)[::-1], np.full(70, -20 * order))
    recurrent = replace(hidden, recurrent=(dense(1, own, 3),))
    graph = vectors(70, recurrent, readout(dense(1, np.ones((3, 70))), reduce="none"), steps=150)
    check(graph)
    # longer than what is gathered at one time
    compares(graph, rng.integers(0, 2, (150, 4, 70, 1, 1)).astype(np.uint8), threads)


def test_every_head_has_its_scores_in_the_order_of_the_model() -> None:
    hidden = fires(dense(0, np.eye(4), 1.58), [1], np.ones(4, int))
    second = readout(dense(1, np.ones((2, 4))), dense(0, np.ones((2, 4))), reduce="none", offset=[5, -7])
    tapped = replace(second, taps=np.array([[[1], [-2]], [[0], [100]]]), offset=np.array([[0, 1], [2, 3]]))
    graph = vectors(4, hidden, readout(dense(1, np.ones((1, 4)))), tapped, second, steps=3)
    check(graph)
    levels = np.random.default_rng(0).integers(0, 2, (3, 2, 4, 1, 1)).astype(np.uint8)
    compares(graph, levels)
    spikes = levels.sum((2, 3, 4))  # [T, N], as every neuron repeats its input
    first, taps, last = (head[..., 0, 0] for head in Compiled(graph).run(levels, 3))
    np.testing.assert_array_equal(first[..., 0], spikes)
    before = np.concatenate([np.zeros((1, 2), int), spikes[:-1]])
    offsets = np.array([[0, 1], [2, 3], [2, 3]])[:, None]
    np.testing.assert_array_equal(taps, (spikes + 98 * before)[..., None] + offsets)
    np.testing.assert_array_equal(last, 2 * spikes[..., None] + [5, -7])
