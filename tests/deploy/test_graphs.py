"""The networks that hypothesis draws reach what they are there for; every other test here stands on that."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

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


def of_case(case: Case) -> Iterator[Any]:
    graph, periods = case.graph, case.graph.periods
    _, maps = interpret.run(graph, case.levels.astype(np.int64), case.steps)
    top = graph.input.top
    yield "input", "events" if top == 1 else "bytes" if top == 255 else "levels"
    yield "input", "static" if graph.input.static else "T steps"
    yield "an image", "for all steps" if len(case.levels) == 1 and case.steps > 1 else "a step"
    yield "steps", "more than a word has bits" if case.steps > 64 else "in a word"
    yield "samples", min(case.levels.shape[1], 2)
    constant = graph.constant_maps(len(case.levels) == 1)
    for index, (op, steps) in enumerate(zip(graph.ops, case.own_steps[1:], strict=True), start=1):
        pooled = " behind a time pool" if periods[index] > 1 and not isinstance(op, TimePool) else ""
        yield type(op).__name__ + pooled
        yield from of_op(graph, op, pooled)
        if isinstance(op, Neurons):
            yield from of_spikes(op, maps, steps)
        if isinstance(op, TimePool):
            yield "joined", "twice" if periods[op.source] > 1 else "once"
            yield from (("joined", "looked back at") for _ in {index} & set(graph.history()))
            yield from (("joined", "all the same") for _ in {index} & constant)
    if len({every for every in periods if every > 1}) > 1:
        yield "several rates"
    read = Counter(s.source for op in graph.ops if isinstance(op, Neurons) for s in op.synapses)
    yield from ("a map that several synapses read" for times in read.values() if times > 1)


def of_op(graph: Graph, op: Op, pooled: str) -> Iterator[Any]:
    match op:
        case Neurons():
            yield from of_neurons(graph, op, pooled)
        case Pool():
            yield from of_window(f"{op.kind} pool", op.window)
            yield f"{op.kind} pool", graph.map_top(op.source) > 1
        case TimePool():
            yield "joined", "spikes" if graph.map_top(op.source) == 1 else "numbers"
            yield "joined", "the input" if op.source == 0 else "a map"
        case Sum() | Concat():
            yield type(op).__name__, "sources", min(len(op.sources), 2)
            yield type(op).__name__, "weights", set(op.weights) != {1}
            yield "top", "near the limit" if op.top > 2**14 else "small"
        case Scores():
            yield "scores", op.reduce
            yield f"scores{pooled}", "of the last steps" if op.last else "of all steps"
            yield "scores", "wide" if bound_of_scores(graph) >= 2**31 else "narrow"
    if isinstance(op, Neurons | Scores):
        yield "synapses", min(len(op.synapses), 3)
        for synapse in op.synapses:
            yield from of_synapse(graph, synapse)


def of_neurons(graph: Graph, op: Neurons, pooled: str) -> Iterator[Any]:
    bits = max(potential_bound(graph, op)).bit_length()
    yield "potential", "narrow" if bits <= 31 else bits if bits in (32, 62) else "wide"
    yield f"taps{pooled}", "matrix" if op.steps else "one" if op.order == 1 else "several"
    yield "taps", "banded" if op.steps and op.order < op.steps else "full"
    yield "taps", "for each channel" if op.taps.shape[2] > 1 else "for all channels"
    for what, there in [("negative", op.taps < 0), ("zero", op.taps == 0), ("large", op.taps > 2**32)]:
        yield "taps", what if there.any() else f"not {what}"
    rows = len(op.thresholds)
    yield f"rows of thresholds{pooled}", rows > 1
    yield "thresholds", "one" if rows == 1 else "for every tap" if rows == op.order else "some"


def of_synapse(graph: Graph, synapse: Synapse) -> Iterator[Any]:
    channels, *size = graph.map_shape(synapse.source)
    yield "bits", synapse.bits
    yield "lowest byte", synapse.codes.min() == -128
    yield "channels out", len(synapse.codes)
    yield "channels in", channels
    yield "depthwise" if 1 < synapse.groups == channels else "groups" if synapse.groups > 1 else "dense"
    yield "reads", "the input" if synapse.source == 0 else "a map"
    yield "reads", "spikes" if graph.map_top(synapse.source) == 1 else "numbers"
    yield "linear", synapse.window == Window((size[0], size[1])) and max(size) > 1
    yield from of_window("synapse", synapse.window)
    if synapse.pool:
        yield from of_window(f"{synapse.pool.kind} pool of currents", synapse.pool.window)
    if synapse.factor is not None:
        yield "factors", "large" if (abs(synapse.factor) > 2**24).any() else "small"
        yield "factors", "zero" if (synapse.factor == 0).any() else "not zero"
        if synapse.pool and (synapse.factor < 0).any():
            yield f"{synapse.pool.kind} pool of currents", "negative factors"


def of_window(where: str, window: Window) -> Iterator[Any]:
    for name, trivial in [("stride", 1), ("padding", 0), ("dilation", 1)]:
        rows, columns = getattr(window, name)
        yield where, name, "used" if max(rows, columns) > trivial else "not used"
        yield where, name, "alike" if rows == columns else "rows and columns differ"


def of_spikes(op: Neurons, maps: list[np.ndarray], steps: int) -> Iterator[Any]:
    rows = np.minimum(np.arange(steps), len(op.thresholds) - 1)
    over = potentials(op, maps, steps) - op.thresholds[rows][:, None, :, None, None]
    for what, there in [("tie", over == 0), ("spike", over >= 0), ("no spike", over < 0)]:
        if there.any():
            yield what, "much" if there.mean() > 0.2 else "little"
    if (over.max(axis=(0, 1, 3, 4)) == -1).any():
        yield "missed by one"


WINDOWS = ["synapse", *(f"{kind} pool{of}" for kind in ("max", "sum") for of in ("", " of currents"))]
BEHIND = " behind a time pool"
WANTED: list[Any] = [
    *(("input", what) for what in ("events", "bytes", "levels", "static", "T steps")),
    *(("an image", what) for what in ("for all steps", "a step")),
    *(("steps", what) for what in ("more than a word has bits", "in a word")),
    *(("samples", 1), ("samples", 2), "several rates", "a map that several synapses read", "missed by one"),
    *("Neurons", "Pool", "TimePool", "Sum", "Concat", "Scores"),
    *(kind + BEHIND for kind in ("Neurons", "Pool", "Sum", "Concat", "Scores")),
    *(
        ("joined", what)
        for what in ("twice", "once", "looked back at", "all the same", "spikes", "numbers", "the input")
    ),
    *((kind, "sources", 2) for kind in ("Sum", "Concat")),
    *((kind, "weights", weights) for kind in ("Sum", "Concat") for weights in (True, False)),
    *((f"{kind} pool", numbers) for kind in ("max", "sum") for numbers in (True, False)),
    *(("top", what) for what in ("near the limit", "small")),
    *(("scores", what) for what in ("none", "sum", "mean", "of the last steps", "of all steps")),
    *(("scores", "wide"), ("scores", "narrow"), (f"scores{BEHIND}", "of the last steps")),
    *(("potential", what) for what in ("narrow", 32, 62, "wide")),
    *(("taps", what) for what in ("matrix", "one", "several", "banded", "for each channel")),
    *(("taps", what) for what in ("for all channels", "negative", "zero", "large")),
    *((f"taps{BEHIND}", "matrix"), (f"rows of thresholds{BEHIND}", True)),
    *(("thresholds", what) for what in ("one", "for every tap", "some")),
    *(("synapses", count) for count in (1, 2, 3)),
    *(("bits", bits) for bits in BITS),
    *((f"channels {way}", n) for way in ("in", "out") for n in (1, 2, 31, 32, 33, 63, 64, 65)),
    *(("lowest byte", True), "depthwise", "groups", "dense", ("linear", True)),
    *(("reads", what) for what in ("the input", "a map", "spikes", "numbers")),
    *(("factors", what) for what in ("large", "small", "zero")),
    *((f"{kind} pool of currents", "negative factors") for kind in ("max", "sum")),
    *(
        (where, name, how)
        for where in WINDOWS
        for name in ("stride", "padding", "dilation")
        for how in ("used", "rows and columns differ")
    ),
    *((what, "much") for what in ("tie", "spike", "no spike")),
]


@pytest.mark.slow  # other tests draw the same networks, and fail where one is wrong
def test_every_feature_is_among_the_networks_drawn() -> None:
    count = Counter[Any]()

    @seed(0)
    @settings(max_examples=800, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def draw(case: Case) -> None:
        count.update(set(of_case(case)))

    draw()
    rare = {feature: count[feature] for feature in WANTED if count[feature] < 4}
    assert not rare, "drawn too rarely"
