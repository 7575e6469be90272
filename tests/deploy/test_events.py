"""Event by event gives what all steps at once give, whatever the order of events, and counts what it does."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import events, interpret
from mfp_neurons.deploy.events import Events
from mfp_neurons.deploy.graph import Graph, Input, Neurons, Scores, Synapse, Window

from .graphs import Case, cases

FIELDS = ("time", "sample", "channel", "row", "column", "level")


def shuffled(given_events: Events, seed: int) -> Events:
    order = np.random.default_rng(seed).permutation(len(given_events))
    return Events(*(getattr(given_events, name)[order] for name in FIELDS))


@given(case=cases(), seed=st.integers(0, 2**32))
def test_scores_and_every_map_are_those_of_the_interpreter_in_any_order_of_events(
    case: Case, seed: int
) -> None:
    samples = case.levels.shape[1]
    expected, maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    arriving = shuffled(events.of_levels(case.levels, case.steps), seed)
    scores, found, _ = events.run(case.graph, arriving, samples, case.steps)
    np.testing.assert_array_equal(scores, expected)
    for index, (made, map_) in enumerate(zip(found, maps, strict=True)):
        shape = case.graph.map_shape(index)
        steps = case.own_steps[index]
        wanted = np.broadcast_to(map_, (steps, samples, *shape))
        np.testing.assert_array_equal(events.dense(made, shape, samples, steps), wanted)
        assert (made.level > 0).all()


def dense_layer(codes: np.ndarray, top: int = 1) -> Graph:
    out, inner = codes.shape
    zeros = np.zeros(out)
    synapse = Synapse(0, codes.reshape(out, inner, 1, 1).astype(np.int8), 2, Window(), (out, 1, 1))
    neurons = Neurons("n", (synapse,), np.array([[[1]]]), np.full((1, out), 1), (out, 1, 1), zeros + 1, zeros)
    ones = Synapse(1, np.ones((1, out, 1, 1), np.int8), 1, Window(), (1, 1, 1))
    scores = Scores("s", (ones,), np.zeros(1, np.int64), (1, 1, 1), (1,), 1.0, np.zeros(1), "none")
    return Graph(Input((inner, 1, 1), (inner,), top), (neurons, scores), 2)


def test_a_spike_costs_one_operation_for_each_weight_that_is_not_zero() -> None:
    graph = dense_layer(np.array([[1, 0, -1], [1, 1, 0]]))
    levels = np.zeros((2, 1, 3, 1, 1), np.uint8)
    levels[0, 0, 0] = 1  # reaches both neurons, which fire and reach the one score each
    levels[1, 0, 2] = 1  # reaches one neuron, which does not fire
    *_, counts = events.run(graph, events.of_levels(levels, 2), 1, 2)
    assert counts.synaptic_operations == (2 + 2) + 1
    assert counts.multiply_accumulates == 0


def test_a_level_of_an_image_costs_one_multiplication_for_each_weight_that_is_not_zero() -> None:
    graph = dense_layer(np.array([[1, 0, -1], [1, 1, 0]]), top=255)
    levels = np.zeros((2, 1, 3, 1, 1), np.uint8)
    levels[0, 0, 0] = 200
    *_, counts = events.run(graph, events.of_levels(levels, 2), 1, 2)
    assert (counts.multiply_accumulates, counts.synaptic_operations) == (2, 2)


def test_without_events_nothing_is_added() -> None:
    graph = dense_layer(np.array([[1, 0, -1], [1, 1, 0]]))
    none = events.of_levels(np.zeros((2, 1, 3, 1, 1), np.uint8), 2)
    scores, maps, counts = events.run(graph, none, 1, 2)
    assert not scores.any()
    assert [len(made) for made in maps] == [0, 0]
    assert counts == (0, 0)


def test_neurons_that_nothing_reached_fire_where_their_threshold_lets_them() -> None:
    graph = dense_layer(np.array([[1, 0, -1], [1, 1, 0]]))
    neurons = graph.ops[0]
    assert isinstance(neurons, Neurons)
    eager = replace(graph, ops=(replace(neurons, thresholds=np.array([[0, 1]])), graph.ops[1]))
    none = events.of_levels(np.zeros((2, 1, 3, 1, 1), np.uint8), 2)
    _, maps, _ = events.run(eager, none, 1, 2)
    assert list(zip(maps[1].time.tolist(), maps[1].channel.tolist(), strict=True)) == [(0, 0), (1, 0)]
