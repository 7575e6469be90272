"""The generated C on this machine: the interpreter's scores, no warnings, no errors that sanitizers see."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfp_neurons.deploy import interpret
from tests.deploy.graphs import Case, cases
from tests.deploy.native import SANITIZED, Scored, score

TOGETHER = 6  # networks in one program: the compiler's start is what costs
LONGER = 3  # steps that a stream goes on after T


def stream_of(case: Case) -> NDArray[np.uint8]:
    """The input of a case, step by step, and a few steps more."""
    steps = case.steps + LONGER
    return case.levels[np.minimum(np.arange(steps), len(case.levels) - 1)]


def expected(case: Case, stream: NDArray[np.uint8]) -> Scored:
    """What the interpreter says."""
    scores, _ = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    last = case.graph.scores
    if last.reduce != "none":
        scores = scores[case.steps - (last.last or case.steps) :].sum(axis=0, keepdims=True)
    session = interpret.Stream(case.graph)
    steps = np.stack([session.step(levels.astype(np.int64))[0] for levels in stream])
    samples = stream.shape[1]
    return Scored(
        np.moveaxis(scores, 1, 0).reshape(samples, -1),
        np.moveaxis(steps, 1, 0).reshape(samples, len(stream), -1),
    )


def check_scores(networks: list[Case], compiler: str, *flags: str) -> None:
    streams = [stream_of(case) for case in networks]
    with tempfile.TemporaryDirectory() as folder:
        found = score(networks, streams, Path(folder), compiler, *flags)
    for case, stream, mine in zip(networks, streams, found, strict=True):
        right = expected(case, stream)
        np.testing.assert_array_equal(mine.run, right.run)
        np.testing.assert_array_equal(mine.step, right.step)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@settings(max_examples=6, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(networks=st.lists(cases(), min_size=TOGETHER, max_size=TOGETHER))
def test_c_gives_the_interpreters_scores_under_sanitizers(compiler, networks):
    check_scores(networks, compiler, *SANITIZED)
