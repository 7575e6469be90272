"""The compiled runtime: equal to the interpreter, run and streamed; what it keeps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import Graph, Input, Synapse, Window
from mfp_neurons.deploy.host.compiled import Compiled
from tests.deploy.agreement import run_agrees, stream_agrees
from tests.deploy.graphs import Case, cases, fires, readout


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
