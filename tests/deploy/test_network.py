"""The integer network as its user meets it: three executions, one answer; what it keeps; how it says no."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import IntegerNetwork, InvalidNetworkError, interpret
from mfp_neurons.deploy.graph import Currents, Gather, Graph
from tests.deploy.agreement import assert_same
from tests.deploy.graphs import Case, cases, dense, fires, readout, vectors


def small(steps: int = 5, top: int = 1, static: bool = False, **scores: Any) -> Graph:
    """Three inputs, four neurons that remember three steps, two scores of a half."""
    rng = np.random.default_rng(0)
    first = dense(0, rng.choice([-1, 1], (4, 3)))
    hidden = fires(first, [4, 2, 1], rng.integers(-3, 4, (3, 4)))
    last = dense(1, rng.integers(-7, 8, (2, 4)), 4)
    end = readout(last, offset=[1, -1], unit=0.5, **{"reduce": "mean", **scores})
    return vectors(3, hidden, end, steps=steps, top=top, static=static)


EVENTS = np.random.default_rng(1).integers(0, 2, (5, 6, 3)).astype(np.uint8)


def given_x(case: Case) -> np.ndarray:
    """The input in the shape that the user gives."""
    frames, samples = case.levels.shape[:2]
    shaped = case.levels.reshape(frames, samples, *case.graph.input.features)
    return shaped if frames == case.steps and not case.graph.input.static else shaped[0]


def arrays(outputs: Any) -> list[np.ndarray]:
    """One array for each head, whether they come alone, as a tuple or as a dict."""
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@given(case=cases(), seed=st.integers(0, 2**32))
def test_all_at_once_step_by_step_and_event_by_event_are_equal_bit_for_bit(case: Case, seed: int) -> None:
    steps_wanted = case.graph.fixed_steps() or case.graph.steps
    heads = [replace(head, reduce="none", last=None, skip=0) for head in case.graph.heads]
    graph = replace(case.graph, steps=steps_wanted, ops=(*case.graph.body, *heads))
    network = IntegerNetwork(graph)
    x = given_x(replace(case, steps=steps_wanted))
    expected = arrays(network.run(x, backend="numpy"))
    assert_same(arrays(network.run(x, backend="compiled")), expected, "compiled")
    assert_same(arrays(network.run_events(x).scores), expected, "events")
    frames = x if x.ndim == len(graph.input.features) + 2 else np.broadcast_to(x, (steps_wanted, *x.shape))
    for backend in ("numpy", "compiled"):
        stream = network.stream(backend=backend)
        each = [stream.step(frame) for frame in frames]
        period = graph.periods[-1]
        assert [scores is not None for scores in each] == [(t + 1) % period == 0 for t in range(steps_wanted)]
        steps = [arrays(scores) for scores in each[period - 1 :: period]]
        assert_same([np.stack(of_head) for of_head in zip(*steps, strict=True)], expected, backend)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"reduce": "none"}, lambda s: s),
        ({"reduce": "sum"}, lambda s: s.sum(0)),
        ({"reduce": "mean"}, lambda s: s.sum(0) / 5),
        ({"reduce": "mean", "last": 1}, lambda s: s[-1]),
        ({"reduce": "sum", "last": 3}, lambda s: s[-3:].sum(0)),
        ({"reduce": "mean", "last": 3}, lambda s: s[-3:].sum(0) / 3),
        ({"reduce": "max"}, lambda s: s.max(0)),
        ({"reduce": "max", "last": 2}, lambda s: s[-2:].max(0)),
        ({"reduce": "none", "skip": 2}, lambda s: s[2:]),
        ({"reduce": "mean", "skip": 2}, lambda s: s[2:].sum(0) / 3),
        ({"reduce": "max", "skip": 1, "last": 3}, lambda s: s[2:].max(0)),
    ],
)
def test_scores_are_read_out_over_the_steps_that_the_model_reads(scores: Any, expected: Any) -> None:
    (every,), _ = interpret.run(small(), EVENTS.astype(np.int64)[..., None, None], 5)
    found = IntegerNetwork(small(**scores)).run(EVENTS)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected(0.5 * every[..., 0, 0]))


def two_heads(**fields: Any) -> Graph:
    """The small network, which returns the scores of every step, and the largest of its potentials."""
    graph = small(reduce="none")
    last = graph.scores
    largest = replace(last, reduce="max", taps=np.array([[[2], [1]]]), offset=np.array([[0, 0], [7, -7]]))
    return replace(graph, ops=(*graph.ops, largest), **fields)


@pytest.mark.parametrize("backend", ["numpy", "compiled"])
def test_several_tensors_come_as_the_model_returns_them(backend: str) -> None:
    every = IntegerNetwork(small(reduce="none")).run(EVENTS)
    plain = every - [0.5, -0.5]  # without the offset
    potentials = 2 * plain
    potentials[1:] += plain[:-1] + np.array([3.5, -3.5])
    outputs = IntegerNetwork(two_heads()).run(EVENTS, backend=backend)
    assert isinstance(outputs, tuple)
    assert_same(list(outputs), [every, potentials.max(0)], "a tuple")
    named = IntegerNetwork(two_heads(keys=("spikes", "potential")))
    ran = named.run(EVENTS, backend=backend)
    assert list(ran) == ["spikes", "potential"]
    assert_same([*ran.values()], [*outputs], "a dict")
    assert_same([*named.run_events(EVENTS, backend=backend).scores.values()], [*outputs], "events")
    stream = named.stream(backend=backend)
    steps = [stream.step(frame) for frame in EVENTS]
    assert_same([np.stack([step["potential"] for step in steps])], [potentials], "a stream")


def test_one_tensor_in_a_dict_comes_in_a_dict() -> None:
    outputs = IntegerNetwork(replace(small(), keys=("logits",))).run(EVENTS)
    assert list(outputs) == ["logits"]
    np.testing.assert_array_equal(outputs["logits"], IntegerNetwork(small()).run(EVENTS))


@pytest.mark.parametrize(
    ("scores", "steps", "message"),
    [
        ({"skip": 3}, 3, "at least 4 steps, the first 3 of which the scores leave out, got 3"),
        ({"skip": 1, "last": 3}, 3, "at least 4 steps, the first 1 of which the scores leave out, got 3"),
        ({"last": 3}, 2, "at least 3 steps, which the scores average, got 2"),
    ],
)
def test_fewer_steps_than_the_scores_need_are_refused(scores: Any, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegerNetwork(small(**scores)).run(EVENTS[:steps])


def test_print_shows_what_a_layer_reads_of_itself_and_how_each_head_is_read_out() -> None:
    graph = two_heads(keys=("spikes", "potential"))
    hidden = graph.ops[0]
    recurrent = dense(1, np.eye(4), 1.58)
    lines = str(IntegerNetwork(replace(graph, ops=(replace(hidden, recurrent=(recurrent,)), *graph.ops[1:]))))
    assert "  from hidden, a step before" in lines
    assert "'spikes': scores of each step" in lines
    assert "'potential': max of scores over all steps" in lines


def test_events_of_one_sample_come_as_times_and_addresses() -> None:
    network = IntegerNetwork(small())
    x = EVENTS[:, :1]
    times, _, addresses = np.nonzero(x)
    order = np.random.default_rng(0).permutation(len(times))
    ran = network.run_events((times[order], addresses[order]))
    np.testing.assert_array_equal(ran.scores, network.run(x))
    assert list(ran.spikes) == ["hidden"]
    assert ran.synaptic_operations > 4 * len(times)
    assert ran.multiply_accumulates == 0


def test_a_stream_goes_on_past_the_steps_of_the_example_and_keeps_k_minus_1_bits_a_neuron() -> None:
    network = IntegerNetwork(small())
    stream = network.stream()
    assert stream.state_bits == 0  # nothing has come yet
    long = np.random.default_rng(2).integers(0, 2, (40, 2, 3))
    found = np.stack([stream.step(frame) for frame in long])
    assert stream.t == 40
    assert stream.state_bits == 2 * 2 * 3  # samples, K - 1 bits, presynaptic neurons
    longer = IntegerNetwork(small(steps=40, reduce="none"))
    np.testing.assert_array_equal(found, longer.run(long))


def test_a_stream_refuses_another_batch_and_stays_where_it_was() -> None:
    stream = IntegerNetwork(small()).stream()
    stream.step(EVENTS[0])
    with pytest.raises(ValueError, match="N = 6, as the steps before, got 2"):
        stream.step(EVENTS[1, :2])
    twin = IntegerNetwork(small()).stream()
    twin.step(EVENTS[0])
    np.testing.assert_array_equal(stream.step(EVENTS[1]), twin.step(EVENTS[1]))


def test_a_stream_of_a_matrix_kernel_ends() -> None:
    graph = small()
    taps = np.tril(np.ones((5, 5), np.int64))[:, :, None]
    matrix = replace(graph.ops[0], taps=taps, thresholds=np.zeros((5, 4), np.int64))
    stream = IntegerNetwork(replace(graph, ops=(matrix, graph.ops[1]))).stream()
    for frame in EVENTS:
        stream.step(frame)
    with pytest.raises(ValueError, match=r"all T = 5 steps of the sequence have passed.*matrix kernel"):
        stream.step(EVENTS[0])


def test_memory_counts_bits_and_nothing_is_kept_between_the_steps_of_a_run() -> None:
    memory = IntegerNetwork(small()).memory(batch=2)
    assert memory.weights == 2 + 4  # 12 codes of 1 bit, 8 of 4 bits
    # 3 taps from 1 to 4 take 2 bits each, 12 thresholds from -3 to 3 three, 2 offsets of -1 and 1 two
    assert memory.parameters == 1 + 5 + 1
    assert memory.state_run == 0
    assert memory.state_stream == 2 * 1  # 6 bits a sample
    assert memory.peak_buffers == 2 * 5 * (8 + 8)  # input and spikes: a word a step each


def test_memory_counts_what_numbers_and_potentials_take() -> None:
    """A current of 3 bits that a score looks two steps back at, and places that are all the same."""
    signed = Currents("signed", (dense(0, [[1, -1, 1]]),), np.array([1]), (1, 1, 1), 5, 1)
    places = Gather("places", 1, np.zeros(4, np.int64), (4, 1, 1), 5)
    last = readout(dense(2, np.ones((2, 4))), taps=np.ones((1, 3, 1), np.int64), reduce="max")
    memory = IntegerNetwork(vectors(3, signed, places, last, steps=5)).memory()
    assert memory.weights == 1 + 1
    assert memory.parameters == 1 + 1 + 1 + 1  # an offset, places, taps and the scores' offsets: a bit each
    assert memory.state_stream == -(-2 * 3 * 4 // 8)  # two steps of four numbers
    # the input and the current, and later the current and what is gathered of it: a word for each bit
    assert memory.peak_buffers == 5 * 8 * (3 + 3)


def test_a_layer_with_synapses_from_itself_keeps_k_bits_of_itself() -> None:
    graph = small()
    hidden = replace(graph.ops[0], recurrent=(dense(1, np.eye(4), 1.58),))
    memory = IntegerNetwork(replace(graph, ops=(hidden, *graph.ops[1:]))).memory(batch=8)
    assert memory.state_stream == 8 * -(-(2 * 3 + 3 * 4) // 8)


def test_an_image_of_levels_takes_a_byte_each() -> None:
    assert IntegerNetwork(small(top=255)).memory().peak_buffers == 5 * (3 + 8)
    assert IntegerNetwork(small(top=255, static=True)).memory().peak_buffers == 3 + 5 * 8


def test_print_shows_every_layer_with_shape_bits_and_bytes() -> None:
    lines = str(IntegerNetwork(small())).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["input", "from", "hidden", "from", "readout"]
    assert "events, T = 5" in lines[1]
    assert "weights 6 bytes" in lines[-1]


def test_a_graph_that_cannot_run_is_refused_at_once() -> None:
    hidden, scores = small().ops
    broken = replace(hidden, taps=np.zeros((1, 0, 1), np.int64))
    with pytest.raises(InvalidNetworkError, match="hidden"):
        IntegerNetwork(replace(small(), ops=(broken, scores)))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="'auto', 'compiled', 'numpy', got 'gpu'"):
        IntegerNetwork(small()).run(EVENTS, backend="gpu")


def test_without_a_compiler_the_interpreter_says_once_that_it_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = IntegerNetwork(small())
    expected = network.run(EVENTS)
    monkeypatch.setattr("mfp_neurons.deploy.integer_network.unavailable", lambda: "there is no C compiler")
    monkeypatch.setattr("mfp_neurons._checks._said", set())  # what this process has said already
    for _ in range(2):
        np.testing.assert_array_equal(network.run(EVENTS), expected)
    assert [record.message for record in caplog.records] == [
        "integer networks run in NumPy, same results, far slower: there is no C compiler"
    ]
    with pytest.raises(RuntimeError, match="cannot run here: there is no C compiler"):
        network.run(EVENTS, backend="compiled")


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_network_that_has_run_is_copied_and_pickled(copied: Any) -> None:
    network = IntegerNetwork(small())
    expected = network.run(EVENTS)
    network.run_events(EVENTS)  # what these compiled stays behind
    np.testing.assert_array_equal(copied(network).run(EVENTS), expected)
    np.testing.assert_array_equal(copied(network).run_events(EVENTS).scores, expected)


@pytest.mark.parametrize("backend", ["numpy", "compiled"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_stream_goes_on_by_itself(copied: Any, backend: str) -> None:
    stream = IntegerNetwork(small()).stream(backend=backend)
    stream.step(EVENTS[0])
    twin = copied(stream)
    expected = [stream.step(step) for step in EVENTS[1:]]
    for step, scores in zip(EVENTS[1:], expected, strict=True):
        np.testing.assert_array_equal(twin.step(step), scores)
