"""The compiled runtime: equal to the interpreter, run and streamed; what it keeps, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import Graph, Input, Neurons, Scores, Synapse, Window
from mfp_neurons.deploy.host.compiled import Compiled
from tests.deploy.agreement import events_agree, run_agrees, shared_out, stream_agrees
from tests.deploy.graphs import Case, cases


@given(case=cases(), threads=st.sampled_from([1, 1, 3]))
def test_every_map_and_score_is_that_of_the_interpreter(case: Case, threads: int) -> None:
    run_agrees(case, threads)


@given(case=cases(), threads=st.sampled_from([1, 1, 3]))
def test_a_stream_gives_the_same_step_by_step(case: Case, threads: int) -> None:
    stream_agrees(case, threads)


@given(case=cases())
def test_events_add_up_to_the_same_with_as_many_operations(case: Case) -> None:
    events_agree(case)


def network(order: int = 3, top: int = 255, channels: int = 70) -> Graph:
    """An image of 2 channels, ``channels`` neurons with 1-bit weights, two scores."""
    rng = np.random.default_rng(0)
    first = Synapse(
        0, rng.integers(-8, 8, (channels, 2, 3, 3)).astype(np.int8), 4, Window((3, 3)), (channels, 3, 3)
    )
    last = Synapse(1, rng.choice([-1, 1], (2, channels, 3, 3)).astype(np.int8), 1, Window((3, 3)), (2, 1, 1))
    taps = 2 ** np.minimum(20, np.arange(order)[::-1]).reshape(1, order, 1)
    hidden = Neurons(
        "hidden",
        (first,),
        taps,
        np.full((1, channels), 40 * top),
        first.shape,
        np.ones(channels),
        np.zeros(channels),
    )
    scores = Scores("scores", (last,), np.array([3, -4]), (2, 1, 1), (2,), 1.0, np.zeros(2))
    return Graph(Input((2, 5, 5), (2, 5, 5), top), (hidden, scores), 4)


def images(steps: int, samples: int, top: int = 255) -> np.ndarray:
    return np.random.default_rng(1).integers(0, top + 1, (steps, samples, 2, 5, 5)).astype(np.uint8)


@pytest.mark.parametrize("order", [3, 150])
def test_long_sequences_are_taken_in_chunks(order: int) -> None:
    levels = images(200, 2)
    run_agrees(Case(network(order), levels, 200), threads=2)
    stream_agrees(Case(network(order), levels, 200), threads=1)


def test_runs_of_other_sizes_follow_one_another() -> None:
    runtime, graph = Compiled(network()), network()
    for steps, samples in [(4, 3), (4, 1), (1, 3), (9, 2), (4, 3)]:
        levels = images(steps, samples)
        expected, _ = interpret.run(graph, levels.astype(np.int64), steps)
        np.testing.assert_array_equal(runtime.run(levels, steps)[0], expected)


def test_an_input_in_any_memory_order_is_read_right() -> None:
    levels = images(4, 3)
    turned = np.asfortranarray(levels)
    runtime = Compiled(network())
    np.testing.assert_array_equal(runtime.run(turned, 4)[0], runtime.run(levels, 4)[0])


def test_a_stream_keeps_history_and_nothing_else() -> None:
    stream = Compiled(network(order=6)).stream()
    assert stream.state_bytes == 0
    for step in images(4, 3):
        stream.step(step)
        assert 8 * stream.state_bytes == network(order=6).state_bits() * 3
    forgetful = Compiled(network(order=1)).stream()
    forgetful.step(images(1, 3)[0])
    assert forgetful.state_bytes == 0


def test_a_run_keeps_only_the_maps_that_are_still_to_be_read() -> None:
    runtime = Compiled(network())
    few, many = runtime.buffer_bytes(4, 1), runtime.buffer_bytes(4, 9)
    a_sample = 4 * (2 * 5 * 5 + 3 * 3 * 2 * 8)  # bytes of images, two words for 70 channels of 9 places
    assert a_sample * 8 <= many - few <= a_sample * 8 + 128


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (images(4, 1).astype(np.int64), r"uint8 \[T, N, 2, 5, 5\], got int64"),
        (images(4, 1)[:, :, :1], r"got uint8 \[4, 1, 1, 5, 5\]"),
        (images(4, 1)[0], r"got uint8 \[1, 2, 5, 5\]"),
        (images(3, 1), "1 or T = 4 steps, got 3"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(levels: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Compiled(network()).run(levels, 4)


def test_a_level_above_the_top_is_refused_and_changes_nothing() -> None:
    runtime = Compiled(network(top=16))
    good, bad = images(1, 2, 16)[0], np.full((2, 2, 5, 5), 17, np.uint8)
    stream, undisturbed = runtime.stream(), runtime.stream()
    for step in images(3, 2, 16):
        stream.step(step)
        undisturbed.step(step)
    with pytest.raises(ValueError, match="at most 16, got 17"):
        stream.step(bad)
    with pytest.raises(ValueError, match="N = 2, as before, got 1"):
        stream.step(good[:1])
    np.testing.assert_array_equal(stream.step(good), undisturbed.step(good))
    with pytest.raises(ValueError, match="at most 16, got 17"):
        runtime.run(bad[None], 1)


def test_no_samples_give_no_scores() -> None:
    runtime = shared_out(network())
    assert runtime.run(images(4, 0), 4, threads=2)[0].shape == (4, 0, 2, 1, 1)
