"""The compiled runtime against the interpreter, on random networks; also as a process of its own.

``python -m tests.deploy.agreement N`` draws N networks, for runs under another compiler or a sanitizer.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from numpy.typing import NDArray

from mfp_neurons.deploy import events, interpret
from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.host.compiled import Compiled
from tests.deploy.graphs import Case, cases, dense, readout

Arrays = Sequence[NDArray[Any]]


def shared_out(graph: Graph) -> Compiled:
    """A runtime that shares out whatever there is among its threads, be it ever so little."""
    runtime = Compiled(graph)
    runtime.words_a_thread = 1
    return runtime


def up_to(graph: Graph, index: int) -> Graph:
    """A network whose scores are the numbers of map ``index``."""
    channels, *_ = shape = graph.map_shape(index)
    identity = replace(dense(index, np.eye(channels), 1.58), shape=shape)
    scores = replace(readout(identity, reduce="none"), shape=shape, features=shape)
    return replace(graph, ops=(*graph.ops[:index], scores), keys=())


def run_agrees(case: Case, threads: int) -> None:
    """Every number of every map, and the scores."""
    expected, maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    for index, (numbers, steps) in enumerate(zip(maps, case.own_steps, strict=False)):
        observed = shared_out(up_to(case.graph, index)).run(case.levels, case.steps, threads=threads)[0]
        wanted = np.broadcast_to(numbers, (steps, *numbers.shape[1:]))
        np.testing.assert_array_equal(observed, wanted, err_msg=f"map {index}")
    runtime = shared_out(case.graph)
    for _ in range(2):  # the second time in the memory of the first
        assert_same(runtime.run(case.levels, case.steps, threads=threads), expected, "scores")


def stream_agrees(case: Case, threads: int) -> None:
    """Every number of every step; the scores in two streams side by side, which share memory."""
    networks = [*(up_to(case.graph, index) for index in range(len(case.graph.body) + 1)), case.graph]
    runtimes = [shared_out(graph) for graph in networks]
    mine = [runtime.stream(threads=threads) for runtime in [*runtimes, runtimes[-1]]]
    theirs = [interpret.Stream(graph) for graph in [*networks, networks[-1]]]
    for t in range(case.steps):
        levels = case.levels[min(t, len(case.levels) - 1)]
        for index, (stream, reference) in enumerate(zip(mine, theirs, strict=True)):
            assert_same(stream.step(levels), reference.step(levels), f"step {t}, map {index}")


def assert_same(
    mine: Sequence[NDArray[Any]] | None, theirs: Sequence[NDArray[Any]] | None, where: str
) -> None:
    """The same numbers of every head, or none of both."""
    assert (mine is None) == (theirs is None), where
    for head, expected in zip(mine or (), theirs or (), strict=True):
        np.testing.assert_array_equal(head, expected, err_msg=where)


def events_agree(case: Case, seed: int = 0) -> None:
    """Events in any order, added up in Python and compiled: scores, every map, as many operations."""
    expected, maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    samples = case.levels.shape[1]
    inputs = events.of_levels(case.levels, case.steps)
    order = np.random.default_rng(seed).permutation(len(inputs))
    shuffled = events.Events(*(column[order] for column in vars(inputs).values()))
    counted = set()
    for adder in (events.scatter, Compiled(case.graph).scatter):
        scores, fired, counts = events.run(case.graph, shuffled, samples, case.steps, adder)
        assert_same(scores, expected, "scores")
        for index, (mine, numbers) in enumerate(zip(fired, maps, strict=True)):
            steps, shape = case.own_steps[index], case.graph.map_shape(index)
            wanted = np.broadcast_to(numbers, (steps, samples, *shape))
            found = events.dense(mine, shape, samples, steps)
            np.testing.assert_array_equal(found, wanted, err_msg=f"map {index}")
            assert (mine.level > 0).all()
        counted.add(counts)
    assert len(counted) == 1


def main(examples: int) -> None:
    """All three, on ``examples`` networks."""

    @given(case=cases())
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def agree(case: Case) -> None:
        run_agrees(case, threads=2)
        stream_agrees(case, threads=1)
        events_agree(case)

    agree()


if __name__ == "__main__":
    main(int(sys.argv[1]))
