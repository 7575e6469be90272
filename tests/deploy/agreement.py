"""The compiled runtime against the interpreter, on random networks; also as a process of its own.

``python -m tests.deploy.agreement N`` draws N networks, for runs under another compiler or a sanitizer.
"""

import sys

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from mfp_neurons.deploy import events, interpret
from mfp_neurons.deploy.graph import Graph, Ints
from mfp_neurons.deploy.host.compiled import Compiled
from mfp_neurons.deploy.host.scatter import Scatter
from tests.deploy.graphs import Case, cases


def shared_out(graph: Graph) -> Compiled:
    """A runtime that shares out whatever there is among its threads, be it ever so little."""
    runtime = Compiled(graph)
    runtime.words_a_thread = 1
    return runtime


def run_agrees(case: Case, threads: int) -> None:
    """Every number of a run; then the scores again, with maps that share memory."""
    runtime = shared_out(case.graph)
    scores, maps = runtime.run(case.levels, case.steps, threads=threads, record=True)
    expected, expected_maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    for index, (mine, theirs) in enumerate(zip(maps, expected_maps, strict=True)):
        np.testing.assert_array_equal(mine, theirs, err_msg=f"map {index}")
    np.testing.assert_array_equal(scores, expected)
    again, none = runtime.run(case.levels, case.steps, threads=threads)
    np.testing.assert_array_equal(again, expected)
    assert none == []


def stream_agrees(case: Case, threads: int) -> None:
    """Every number of every step; also of a second stream beside, whose maps share memory."""
    runtime = shared_out(case.graph)
    mine, beside = (runtime.stream(threads=threads) for _ in range(2))
    theirs = interpret.Stream(case.graph)
    for t in range(case.steps):
        levels = case.levels[min(t, len(case.levels) - 1)]
        scores, recorded = mine.record(levels)
        expected, maps = theirs.step(levels.astype(np.int64))
        for index, (got, wanted) in enumerate(zip(recorded, maps, strict=True)):
            same(got, wanted, f"step {t}, map {index}")
        same(scores, expected, f"step {t}")
        same(beside.step(levels), expected, f"step {t}")


def same(mine: Ints | None, theirs: Ints | None, where: str) -> None:
    """The same numbers, or none of both."""
    assert (mine is None) == (theirs is None), where
    if mine is not None:
        np.testing.assert_array_equal(mine, theirs, err_msg=where)


def events_agree(case: Case) -> None:
    """The compiled addition of events, its result and its count of operations."""
    samples = case.levels.shape[1]
    given_events = events.of_levels(case.levels, case.steps)
    scores, maps, counts = events.run(case.graph, given_events, samples, case.steps, Scatter())
    expected, expected_maps, expected_counts = events.run(case.graph, given_events, samples, case.steps)
    np.testing.assert_array_equal(scores, expected)
    assert counts == expected_counts
    for index, (mine, theirs) in enumerate(zip(maps, expected_maps, strict=True)):
        shape = case.graph.map_shape(index)
        steps = case.own_steps[index]
        dense = [events.dense(made, shape, samples, steps) for made in (mine, theirs)]
        np.testing.assert_array_equal(*dense, err_msg=f"map {index}")


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
