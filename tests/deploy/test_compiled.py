"""The compiled runtime against the interpreter: every map and score of random networks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfp_neurons.deploy import compiled, interpret
from mfp_neurons.deploy.compiled import Compiled
from tests.deploy.graphs import Case, cases


def agrees(case: Case, threads: int) -> None:
    """Every number of a run."""
    scores, maps = Compiled(case.graph, threads=threads).run(case.levels, case.steps, record=True)
    expected, expected_maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    for index, (mine, theirs) in enumerate(zip(maps, expected_maps, strict=True)):
        np.testing.assert_array_equal(mine, theirs, err_msg=f"map {index}")
    np.testing.assert_array_equal(scores, expected)
    again, none = Compiled(case.graph, threads=threads).run(case.levels, case.steps)
    np.testing.assert_array_equal(again, expected)  # where maps share memory
    assert none == []


@given(case=cases(), threads=st.sampled_from([1, 1, 3]))
@settings(max_examples=250)
def test_every_map_and_score_is_that_of_the_interpreter(case: Case, threads: int) -> None:
    agrees(case, threads)


@given(case=cases())
@settings(max_examples=150)
def test_a_stream_gives_the_same_step_by_step(case: Case) -> None:
    mine, theirs = Compiled(case.graph, threads=1).stream(), interpret.Stream(case.graph)
    for t in range(case.steps):
        levels = case.levels[min(t, len(case.levels) - 1)]
        scores = mine.step(levels)
        expected, maps = theirs.step(levels.astype(np.int64))
        for index, (got, wanted) in enumerate(zip(mine.maps(), maps, strict=True)):
            np.testing.assert_array_equal(got, wanted, err_msg=f"step {t}, map {index}")
        np.testing.assert_array_equal(scores, expected)


def test_it_runs_here() -> None:
    assert compiled.unavailable() is None


pytestmark = pytest.mark.filterwarnings("error")
