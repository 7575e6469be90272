"""Event by event gives what all steps at once give, whatever the order of events, and counts what it does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import events
from mfp_neurons.deploy.graph import Graph
from tests.deploy.agreement import events_agree
from tests.deploy.graphs import Case, cases, dense, fires, readout, vectors


@given(case=cases(), seed=st.integers(0, 2**32))
def test_scores_and_every_map_are_those_of_the_interpreter_in_any_order_of_events(
    case: Case, seed: int
) -> None:
    events_agree(case, seed)


def layer(top: int = 1, thresholds: Any = (1, 1)) -> Graph:
    """Three inputs, two neurons without memory, one score of both."""
    hidden = fires(dense(0, [[1, 0, -1], [1, 1, 0]], 2), [1], thresholds)
    return vectors(3, hidden, readout(dense(1, [[1, 1]]), reduce="none"), steps=2, top=top)


@pytest.mark.parametrize(
    ("top", "events_of_input", "operations"),
    [
        # the first reaches both neurons, which fire and reach a score each; the second one that does not
        (1, {(0, 0): 1, (1, 2): 1}, ((2 + 2) + 1, 0)),
        (255, {(0, 0): 200}, (2, 2)),  # a level is multiplied, spikes are added
        (1, {}, (0, 0)),
    ],
)
def test_an_event_costs_one_operation_for_each_weight_that_is_not_zero(
    top: int, events_of_input: Any, operations: Any
) -> None:
    levels = np.zeros((2, 1, 3, 1, 1), np.uint8)
    for (time, channel), level in events_of_input.items():
        levels[time, 0, channel] = level
    (scores,), maps, counts = events.run(layer(top), events.of_levels(levels, 2), 1, 2)
    assert (counts.synaptic_operations, counts.multiply_accumulates) == operations
    if not events_of_input:
        assert not scores.any()
        assert [len(made) for made in maps] == [0, 0]


def test_neurons_that_nothing_reached_fire_where_their_threshold_lets_them() -> None:
    none = events.of_levels(np.zeros((2, 1, 3, 1, 1), np.uint8), 2)
    _, maps, _ = events.run(layer(thresholds=(0, 1)), none, 1, 2)
    assert list(zip(maps[1].time.tolist(), maps[1].channel.tolist(), strict=True)) == [(0, 0), (1, 0)]
