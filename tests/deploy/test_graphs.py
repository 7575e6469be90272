"""The networks that hypothesis draws reach what they are there for; every other test here stands on that."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import (
    Concat,
    Graph,
    Neurons,
    Op,
    Pool,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
    potential_bound,
)
from tests.deploy.graphs import BITS, Case, bound_of_scores, cases, potentials


def of_case(case: Case) -> Iterator[str]:
    graph = case.graph
    yield f"input of top {'1' if graph.input.top == 1 else '255' if graph.input.top == 255 else 'between'}"
    yield "static input" if graph.input.static else "input of T steps"
    yield "one image for all steps" if len(case.levels) == 1 and case.steps > 1 else "an image a step"
    yield "more steps than a word has bits" if case.steps > 64 else "steps in a word"
    yield f"{min(case.levels.shape[1], 2)} samples or more"
    for op in graph.ops:
        yield from of_op(graph, op)
    _, maps = interpret.run(graph, case.levels.astype(np.int64), case.steps)
    for op, steps in zip(graph.ops, case.own_steps[1:], strict=True):
        if isinstance(op, Neurons):
            yield from of_spikes(op, maps, steps)
    yield from of_time(case)
    read_twice = Counter(s.source for op in graph.ops if isinstance(op, Neurons) for s in op.synapses)
    yield from ("a map that several synapses read" for count in read_twice.values() if count > 1)


def of_time(case: Case) -> Iterator[str]:
    graph, periods = case.graph, case.graph.periods
    constant = graph.constant_maps(len(case.levels) == 1)
    for index, op in enumerate(graph.ops, start=1):
        if isinstance(op, TimePool):
            yield f"steps joined of {'spikes' if graph.map_top(op.source) == 1 else 'numbers'}"
            yield "steps joined of the input" if op.source == 0 else "steps joined of a map"
            yield "steps joined twice" if periods[op.source] > 1 else "steps joined"
            if index in graph.history():
                yield "joined steps that are looked back at"
            if index in constant:
                yield "joined steps that are all the same"
        elif periods[index] > 1:
            yield f"{type(op).__name__} of joined steps"
            if isinstance(op, Neurons) and op.steps:
                yield "matrix taps of joined steps"
            if isinstance(op, Neurons) and len(op.thresholds) > 1:
                yield "rows of thresholds of joined steps"
            if isinstance(op, Scores) and op.last:
                yield "scores of the last joined steps"
    if len({each for each in periods if each > 1}) > 1:
        yield "several rates"


def of_op(graph: Graph, op: Op) -> Iterator[str]:
    yield type(op).__name__
    match op:
        case Neurons():
            yield from of_neurons(graph, op)
        case Pool():
            yield f"{op.kind} pool"
            yield from of_window(f"{op.kind} pool", op.window)
            yield f"{op.kind} pool of {'spikes' if graph.map_top(op.source) == 1 else 'numbers'}"
        case Sum() | Concat():
            yield f"{type(op).__name__} of {min(len(op.sources), 2)} or more"
            yield f"{type(op).__name__} {'of weight 1' if set(op.weights) == {1} else 'with weights'}"
            yield "a top near the limit" if op.top > 2**14 else "a small top"
        case Scores():
            yield f"scores: {op.reduce}"
            yield "scores of the last steps" if op.last else "scores of all steps"
            yield "scores beyond 32 bits" if bound_of_scores(graph) >= 2**31 else "scores in 32 bits"
    if isinstance(op, Neurons | Scores):
        yield f"{min(len(op.synapses), 3)} synapses"
        for synapse in op.synapses:
            yield from of_synapse(graph, synapse)


def of_neurons(graph: Graph, op: Neurons) -> Iterator[str]:
    bits = max(potential_bound(graph, op)).bit_length()
    yield "potential of 32 bits" if bits <= 31 else "potential just above 32 bits" if bits <= 32 else "more"
    if bits == 62:
        yield "potential of 62 bits"
    yield "matrix taps" if op.steps else "one tap" if op.order == 1 else "several taps"
    if op.steps and op.order < op.steps:
        yield "banded matrix taps"
    yield "taps a channel" if op.taps.shape[2] > 1 else "taps for all channels"
    for what, there in [("negative", op.taps < 0), ("zero", op.taps == 0), ("large", op.taps > 2**32)]:
        if there.any():
            yield f"{what} taps"
    if (op.taps[0, :-1] == 2 * op.taps[0, 1:]).all() and op.order > 1 and op.taps[0, -1].all():
        yield "halving taps"
    rows = len(op.thresholds)
    yield "one row of thresholds" if rows == 1 else "a row for every tap" if rows == op.order else "some rows"


def of_synapse(graph: Graph, synapse: Synapse) -> Iterator[str]:
    channels, *size = graph.map_shape(synapse.source)
    yield f"{synapse.bits} bits"
    yield f"codes of {synapse.bits} bits {'at' if synapse.codes.min() == -128 else 'above'} the lowest byte"
    yield f"{min(len(synapse.codes), 65)} channels out"
    yield f"{channels} channels in"
    yield "depthwise" if 1 < synapse.groups == channels else "groups" if synapse.groups > 1 else "dense"
    yield "reads the input" if synapse.source == 0 else "reads a map"
    yield f"reads {'spikes' if graph.map_top(synapse.source) == 1 else 'numbers'}"
    if synapse.window == Window((size[0], size[1])) and max(size) > 1:
        yield "linear"
    yield from of_window("synapse", synapse.window)
    if synapse.pool:
        yield f"{synapse.pool.kind} pool of currents"
        yield from of_window(f"{synapse.pool.kind} pool of currents", synapse.pool.window)
        if synapse.factor is not None and (synapse.factor < 0).any():
            yield f"{synapse.pool.kind} pool of currents with negative factors"
    if synapse.factor is not None:
        yield "large factors" if (abs(synapse.factor) > 2**24).any() else "factors"
        if (synapse.factor == 0).any():
            yield "zero factors"


def of_window(where: str, window: Window) -> Iterator[str]:
    for name, trivial in [("stride", 1), ("padding", 0), ("dilation", 1)]:
        rows, columns = getattr(window, name)
        if max(rows, columns) > trivial:
            yield f"{where}: {name}"
        if rows != columns:
            yield f"{where}: {name} of rows and columns differ"


def of_spikes(op: Neurons, maps: list[np.ndarray], steps: int) -> Iterator[str]:
    rows = np.minimum(np.arange(steps), len(op.thresholds) - 1)
    over = potentials(op, maps, steps) - op.thresholds[rows][:, None, :, None, None]
    for what, there in [("tie", over == 0), ("spike", over >= 0), ("no spike", over < 0)]:
        if there.any():
            yield what
        if there.mean() > 0.2:
            yield f"much {what}"
    if (over.max(axis=(0, 1, 3, 4)) == -1).any():
        yield "missed by one"


WANTED = [
    *("input of top 1", "input of top 255", "input of top between", "static input", "input of T steps"),
    *("one image for all steps", "an image a step", "more steps than a word has bits", "steps in a word"),
    *("1 samples or more", "2 samples or more", "Neurons", "Pool", "Sum", "Concat", "Scores"),
    *("max pool of spikes", "max pool of numbers", "sum pool of spikes", "sum pool of numbers"),
    *("Sum of 2 or more", "Concat of 2 or more", "Sum with weights", "Concat with weights"),
    *("Sum of weight 1", "Concat of weight 1", "a top near the limit", "a small top"),
    *("scores: none", "scores: sum", "scores: mean", "scores of the last steps", "scores of all steps"),
    *("scores beyond 32 bits", "scores in 32 bits", "1 synapses", "2 synapses", "3 synapses"),
    *("potential of 32 bits", "potential just above 32 bits", "potential of 62 bits"),
    *("matrix taps", "banded matrix taps", "one tap", "several taps", "taps a channel"),
    *("negative taps", "zero taps", "large taps", "halving taps", "taps for all channels"),
    *("one row of thresholds", "a row for every tap", "some rows"),
    *(f"{bits} bits" for bits in BITS),
    *(f"{n} channels in" for n in (1, 2, 31, 32, 33, 63, 64, 65)),
    *(f"{n} channels out" for n in (1, 2, 31, 32, 33, 63, 64, 65)),
    *("codes of 8 bits at the lowest byte", "depthwise", "groups", "dense", "linear"),
    *("reads the input", "reads a map", "reads spikes", "reads numbers", "a map that several synapses read"),
    *("max pool of currents", "sum pool of currents", "factors", "large factors", "zero factors"),
    *(f"{kind} pool of currents with negative factors" for kind in ("max", "sum")),
    *(
        f"{where}: {name}{which}"
        for where in ("synapse", "max pool", "sum pool", "max pool of currents", "sum pool of currents")
        for name in ("stride", "padding", "dilation")
        for which in ("", " of rows and columns differ")
    ),
    *(
        f"steps joined{which}"
        for which in ("", " twice", " of spikes", " of numbers", " of the input", " of a map")
    ),
    *("joined steps that are looked back at", "joined steps that are all the same", "several rates"),
    *(f"{kind} of joined steps" for kind in ("Neurons", "Pool", "Sum", "Concat", "Scores")),
    *("matrix taps of joined steps", "rows of thresholds of joined steps", "scores of the last joined steps"),
    *("tie", "much tie", "spike", "no spike", "much spike", "much no spike", "missed by one"),
]


@pytest.mark.slow  # other tests draw the same networks, and fail where one is wrong
def test_every_feature_is_among_the_networks_drawn() -> None:
    count = Counter[str]()

    @seed(0)
    @settings(max_examples=800, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def draw(case: Case) -> None:
        count.update(set(of_case(case)))

    draw()
    rare = {feature: count[feature] for feature in WANTED if count[feature] < 4}
    assert not rare, "drawn too rarely"
