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
    Currents,
    Gather,
    Graph,
    MatMul,
    Neurons,
    Ones,
    Op,
    Pool,
    Product,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
    potential_bound,
    score_bound,
    synapses,
)
from tests.deploy.graphs import BITS, Case, cases, potentials, rows_of


def traits(case: Case) -> Iterator[tuple[str, Any]]:
    """Names with values; most are questions, which networks have to answer by yes and by no."""
    graph, periods, top = case.graph, case.graph.periods, case.graph.input.top
    _, maps = interpret.run(graph, case.levels.astype(np.int64), case.steps)
    kinds = "events" if top == 1 else "bytes" if top == 255 else "levels"
    yield "input", kinds if top <= 255 else "levels of two bytes"
    yield "static", graph.input.static
    yield "one image for all steps", len(case.levels) == 1 and case.steps > 1
    yield "more steps than a word has bits", case.steps > 64
    yield "one sample", case.levels.shape[1] == 1
    yield "several rates", len({period for period in periods if period > 1}) > 1
    readers = Counter(s.source for op in graph.ops if isinstance(op, Neurons) for s in op.synapses)
    yield "a map that several synapses read", max(readers.values(), default=0) > 1
    yield "several heads", len(graph.heads) > 1
    yield "heads by name", bool(graph.keys)
    constant = graph.constant_maps(len(case.levels) == 1)
    for index, (op, steps) in enumerate(zip(graph.ops, case.own_steps[1:], strict=True), start=1):
        late = (periods[op.source] if isinstance(op, TimePool) else periods[index]) > 1
        yield f"{type(op).__name__} behind a time pool", late
        yield from of_op(graph, op, late)
        for synapse in synapses(op):
            yield from of_synapse(graph, synapse)
        if isinstance(op, Neurons):
            if op.feedback is not None:
                yield "readers look back further than own spikes", graph.history()[index] > op.own_steps
            yield from of_spikes(op, maps, steps, maps[index])
        if isinstance(op, TimePool):
            yield "joined: looked back at", index in graph.history()
            yield "joined: all the same", index in constant


def of_op(graph: Graph, op: Op, late: bool) -> Iterator[tuple[str, Any]]:
    match op:
        case Neurons():
            bits = max(potential_bound(graph, op)).bit_length()
            yield "potential", "narrow" if bits <= 31 else bits if bits in (32, 62) else "wide"
            yield f"matrix, {late=}", op.steps is not None
            yield "order of one", op.order == 1
            yield "banded", bool(op.steps and op.order < op.steps)
            yield "taps for each channel", op.taps.shape[2] > 1
            yield "feedback", op.feedback and op.feedback.kind
            yield f"with feedback, {late=}", op.feedback is not None
            if op.feedback is not None and op.feedback.taps is not None:
                yield f"negative own taps of a {op.feedback.kind}", bool((op.feedback.taps < 0).any())
                yield "own taps for each channel", op.feedback.taps.shape[1] > 1
            yield f"recurrent, {late=}", bool(op.recurrent)
            if op.recurrent:
                yield "several recurrent synapses", len(op.recurrent) > 1
                yield "recurrent with taps", op.order > 1
                yield "recurrent with feedback", op.feedback is not None
                yield "recurrent with a matrix", op.steps is not None
            for what, there in [
                ("negative", op.taps < 0),
                ("zero", op.taps == 0),
                ("large", op.taps > 2**32),
            ]:
                yield f"{what} taps", bool(there.any())
            yield f"several rows of thresholds, {late=}", len(op.thresholds) > 1
            yield "a row of thresholds for every tap", len(op.thresholds) == op.order
        case Pool():
            yield from of_window(f"{op.kind} pool", op.window)
            yield f"{op.kind} pool of numbers", graph.map_top(op.source) > 1
        case TimePool():
            yield "joined: numbers", graph.map_top(op.source) > 1
            yield "joined: the input", op.source == 0
        case Sum() | Concat():
            if isinstance(op, Sum):  # a Concat always has several
                yield "Sum of several", len(op.sources) > 1
            yield f"{type(op).__name__} with weights", set(op.weights) != {1}
            yield "top near the limit", op.top > 2**14
        case Scores():
            yield "scores", op.reduce
            yield f"scores of the last steps, {late=}", op.last is not None
            yield "wide scores", max(score_bound(graph, op)) >= 2**31
            yield f"scores without the first steps, {late=}", op.skip > 0
            yield f"scores that are potentials, {late=}", op.order > 1
            yield "scores with several rows of offset", len(op.offset) > 1
            if op.taps is not None:
                yield "scores with taps for each channel", op.taps.shape[2] > 1
                yield "scores of steps before alone", bool((op.taps[-1, 0] == 0).all())
        case Currents():
            yield "signed currents", op.zero > 0
            yield "currents above a byte", op.top > 255
            yield "currents of currents", any(_made_by(graph, s.source, Currents) for s in op.synapses)
        case Gather():
            yield "gathered: some from nowhere", bool((op.places < 0).any())
            yield "gathered: others than 0 from nowhere", op.fill > 0
            yield "gathered: numbers", op.top > 1
            yield "gathered: some twice", len(set(op.places[op.places >= 0])) < (op.places >= 0).sum()
        case Ones():
            yield "Ones of a signed map", _made_by(graph, op.source, Currents)
        case Product() | MatMul():
            yield f"{type(op).__name__} of a map with itself", op.sources[0] == op.sources[1]
            yield f"{type(op).__name__} of numbers", op.top > 1
            yield "MatMul above two bytes", isinstance(op, MatMul) and op.top > 2**16
    if isinstance(op, Neurons | Currents | Scores):
        yield "synapses", min(len(op.synapses), 3)
        ones = {graph.ops[s.source - 1].source for s in op.synapses if _made_by(graph, s.source, Ones)}
        yield f"{type(op).__name__} of a map and its Ones", bool(ones & {s.source for s in op.synapses})


def _made_by(graph: Graph, index: int, kind: type[Op]) -> bool:
    """Whether such an operation makes a map."""
    return index > 0 and isinstance(graph.ops[index - 1], kind)


def of_synapse(graph: Graph, synapse: Synapse) -> Iterator[tuple[str, Any]]:
    channels, *size = graph.map_shape(synapse.source)
    yield "bits", synapse.bits
    yield "lowest byte", synapse.codes.min() == -128
    yield "channels out", len(synapse.codes)
    yield "channels in", channels
    yield "groups", synapse.groups > 1
    yield "depthwise", 1 < synapse.groups == channels
    yield "a synapse of the input", synapse.source == 0
    yield "a synapse of numbers", graph.map_top(synapse.source) > 1
    yield "linear", synapse.window == Window((size[0], size[1])) and max(size) > 1
    yield from of_window("synapse", synapse.window)
    if synapse.pool:
        yield from of_window(f"{synapse.pool.kind} pool of currents", synapse.pool.window)
    if synapse.factor is not None:
        yield "large factors", bool((abs(synapse.factor) > 2**24).any())
        yield "factors of zero", bool((synapse.factor == 0).any())
        if synapse.pool:
            yield f"negative factors behind a {synapse.pool.kind} pool", bool((synapse.factor < 0).any())


def of_window(where: str, window: Window) -> Iterator[tuple[str, Any]]:
    for name, trivial in [("stride", 1), ("padding", 0), ("dilation", 1)]:
        rows, columns = getattr(window, name)
        yield f"{where}: {name}", max(rows, columns) > trivial
        yield f"{where}: {name} of rows and columns differ", rows != columns


def of_spikes(
    op: Neurons, maps: list[np.ndarray], steps: int, spikes: np.ndarray
) -> Iterator[tuple[str, Any]]:
    over = potentials(op, maps, steps, spikes) - rows_of(op, spikes)
    for what, there in [("ties", over == 0), ("spikes", over >= 0), ("silence", over < 0)]:
        yield f"much {what}", bool(there.mean() > 0.2)
    yield "missed by one", bool((over.max(axis=(0, 1, 3, 4)) == -1).any())


VALUES: dict[str, list[Any]] = {
    "input": ["events", "bytes", "levels"],
    "potential": ["narrow", 32, 62, "wide"],
    "scores": ["none", "sum", "mean", "max"],
    "synapses": [1, 2, 3],
    "feedback": [None, "sum", "table", "age"],
    "bits": BITS,
    "channels in": [1, 2, 31, 32, 33, 63, 64, 65],
    "channels out": [1, 2, 31, 32, 33, 63, 64, 65],
}
QUESTIONS = 122


@pytest.mark.slow  # other tests draw the same networks, and fail where one is wrong
def test_every_feature_is_among_the_networks_drawn() -> None:
    count = Counter[Any]()

    @settings(max_examples=1200, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def draw(case: Case) -> None:
        count.update(set(traits(case)))

    def rare() -> dict[Any, int]:
        questions = {name for name, _ in count} - set(VALUES)
        assert len(questions) == QUESTIONS  # or one is never asked
        wanted = [(name, answer) for name in questions for answer in (True, False)]
        wanted += [(name, value) for name, values in VALUES.items() for value in values]
        return {trait: count[trait] for trait in wanted if count[trait] < 4}

    # networks of one seed resemble each other, and every version of hypothesis draws others
    for number in range(5):
        seed(number)(draw)()
        if not rare():
            break
    assert not rare(), "drawn too rarely"
