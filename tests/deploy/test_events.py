"""Event by event gives what all steps at once give, whatever the order of events, and counts what it does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import events
from mfp_neurons.deploy.graph import Currents, Gather, Graph, MatMul, Product, Sum
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


def of_numbers(*levels: int) -> events.Events:
    """One step of one sample."""
    return events.of_levels(np.array(levels, np.uint8).reshape(1, 1, -1, 1, 1), 1)


@pytest.mark.parametrize(
    ("top", "inputs", "operations"),
    [
        # left [1, 2] times right [2, 1]: what meets where both are above 0, and then a weight for the product
        (1, (1, 1, 1, 1), (2, 1)),
        (1, (1, 0, 1, 1), (1, 1)),
        (1, (1, 0, 0, 1), (0, 0)),
        (9, (5, 3, 2, 9), (0, 3)),
    ],
)
def test_a_product_costs_one_operation_for_each_pair_that_meets(
    top: int, inputs: Any, operations: Any
) -> None:
    halves = [Gather("", 0, np.arange(2), (1, 1, 2), top), Gather("", 0, np.arange(2, 4), (1, 2, 1), top)]
    product = MatMul("product", (1, 2), (1, 1, 1), 2 * top**2)
    graph = vectors(4, *halves, product, readout(dense(3, [[1]])), steps=1, top=top)
    (scores,), _, counts = events.run(graph, of_numbers(*inputs), 1, 1)
    left, right = np.array(inputs).reshape(2, 2)
    assert scores.item() == left @ right
    # a product is no count of spikes: one multiplication however large it is
    assert counts == operations


@pytest.mark.parametrize(("spikes", "operations"), [((1, 0, 1), (2, 0)), ((0, 0, 0), (0, 0))])
def test_a_mask_of_spikes_costs_an_addition_for_each_number_that_it_lets_through(
    spikes: Any, operations: Any
) -> None:
    numbers = Sum("numbers", (0, 0), (1, 2), (3, 1, 1), 3)
    mask = Product("mask", (0, 1), (3, 1, 1), 3)
    graph = vectors(3, numbers, mask, readout(dense(2, [[0, 0, 0]], 2)), steps=1)
    _, maps, counts = events.run(graph, of_numbers(*spikes), 1, 1)
    assert events.dense(maps[2], (3, 1, 1), 1, 1).ravel().tolist() == [3 * spike for spike in spikes]
    assert counts == operations


def test_a_spike_that_comes_back_to_its_layer_costs_one_operation_for_each_weight() -> None:
    """Two neurons hand one spike to and fro; that of the last step comes back to nobody."""
    hidden = fires(dense(0, [[1], [0]], 1.58), [1], [1, 1])
    hidden = replace(hidden, recurrent=(dense(1, [[0, 1], [1, 0]], 1.58),))
    graph = vectors(1, hidden, readout(dense(1, [[0, 0]], 1.58)), steps=4)
    levels = np.array([1, 0, 0, 0], np.uint8).reshape(4, 1, 1, 1, 1)
    _, maps, counts = events.run(graph, events.of_levels(levels, 4), 1, 4)
    assert events.dense(maps[1], (2, 1, 1), 1, 4)[:, 0, :, 0, 0].tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert counts == (1 + 3, 0)


def test_a_signed_current_costs_a_multiplication_for_each_weight_also_where_it_is_zero() -> None:
    signed = Currents("signed", (dense(0, [[1], [-1]]),), np.array([1, 1]), (2, 1, 1), 2, 1)
    graph = vectors(1, signed, readout(dense(1, [[1, 1]])), steps=1)
    (scores,), maps, counts = events.run(graph, of_numbers(0), 1, 1)
    assert maps[1].level.tolist() == [1, 1]
    assert scores.item() == 2
    assert counts == (0, 2)


def test_neurons_that_nothing_reached_fire_where_their_threshold_lets_them() -> None:
    none = events.of_levels(np.zeros((2, 1, 3, 1, 1), np.uint8), 2)
    _, maps, _ = events.run(layer(thresholds=(0, 1)), none, 1, 2)
    assert list(zip(maps[1].time.tolist(), maps[1].channel.tolist(), strict=True)) == [(0, 0), (1, 0)]
