"""What every executor relies on: ``check`` proves it of a graph, or says what is wrong where.

After it no executor can read outside an array, divide by 0 or overflow: an accumulated number stays below
2**31, what factors and taps make of it below 2**62, and a score below 2**46.
"""

from dataclasses import replace
from math import isfinite, prod
from typing import Any

import numpy as np

from ._demand import array, demand, describe, refuse, whole, wholes, within
from ._windows import MAX_NUMBERS, check_shape, check_window
from .errors import InvalidNetworkError
from .graph import (
    Concat,
    CurrentPool,
    Graph,
    Input,
    Neurons,
    Op,
    Pool,
    Scores,
    Shape,
    Sum,
    Synapse,
    TimePool,
    current_bound,
    period,
    potential_bound,
    sources,
    synapse_bound,
)

MAX_OPS = 4096
MAX_STEPS = 2**16
MAX_TOP = 2**15
MAX_NAME = 1000
MAX_FEATURES = 16
MAX_FACTOR = 2**31 - 1
MAX_POTENTIAL = 2**62
MAX_SCORE = 2**46  # a sum of them over 2**16 steps stays below 2**62
MAX_ACCUMULATED = 2**31
_RANGES: dict[float, tuple[int, int]] = {1: (-1, 1), 1.58: (-1, 1)} | {
    bits: (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in range(2, 9)
}


def check(graph: Graph) -> None:
    """Proves that every executor can run a network.

    Args:
        graph: of any origin: a lowered model, a file, a program.

    Raises:
        InvalidNetworkError: what is wrong: the operation, the field, what came and what is accepted.

    >>> import numpy as np
    >>> from mfp_neurons.deploy.graph import Graph, Input
    >>> check(Graph(Input((1, 4, 4), (4, 4), 256), (), 8))
    Traceback (most recent call last):
    ...
    mfp_neurons.deploy.errors.InvalidNetworkError: input: top must be an integer from 1 to 255, got 256
    """
    if not isinstance(graph, Graph):
        raise InvalidNetworkError(f"the network must be a Graph, got {describe(graph)}")
    whole("network", "steps", graph.steps, 1, MAX_STEPS)
    demand(isinstance(graph.fixed, bool), "network", "fixed", graph.fixed, "True or False")
    _check_input(graph.input)
    ops = graph.ops
    demand(isinstance(ops, tuple) and 1 <= len(ops) <= MAX_OPS, "network", "ops", ops, "a tuple of 1 to 4096")
    periods = [1]
    for index, op in enumerate(ops):
        if isinstance(op, Scores) != (index == len(ops) - 1):
            refuse(f"operation {index}", "type", type(op).__name__, "Scores at the end, and only there")
        _check_op(graph, index, op, periods)
        periods.append(period(op, periods))


def _check_input(given: Any) -> None:
    if not isinstance(given, Input):
        refuse("network", "input", given, "an Input")
    check_shape("input", "shape", given.shape)
    _check_features("input", given.features, given.shape)
    whole("input", "top", given.top, 1, 255)
    demand(isinstance(given.static, bool), "input", "static", given.static, "True or False")


def _check_features(where: str, features: Any, shape: Shape) -> None:
    demand(
        isinstance(features, tuple) and len(features) <= MAX_FEATURES,
        where,
        "features",
        features,
        f"a tuple of at most {MAX_FEATURES}",
    )
    wholes(where, "features", features, 1, MAX_NUMBERS, len(features))
    demand(
        prod(features) == prod(shape), where, "features", features, f"of {prod(shape)} elements, as shape is"
    )


def _check_op(graph: Graph, index: int, op: Op, periods: list[int]) -> None:
    """Checks operation ``index``; those before it are known to be right, and so are their periods."""
    where = f"operation {index} ({type(op).__name__})"
    if not isinstance(op, Neurons | Pool | TimePool | Sum | Concat | Scores):
        refuse(
            f"operation {index}", "type", type(op).__name__, "Neurons, Pool, TimePool, Sum, Concat or Scores"
        )
    name = op.name
    # a name ends up in listings and in comments of generated code, so it has to be one line of text
    ok = isinstance(name, str) and len(name) <= MAX_NAME and name.isprintable()
    demand(ok, where, "name", name, f"at most {MAX_NAME} printable characters")
    where = f"operation {index} ({type(op).__name__} {describe(name)})"
    check_shape(where, "shape", op.shape)
    match op:
        case Neurons():
            _check_synapses(graph, where, index, op)
            _check_neurons(graph, where, op, _steps(graph, where, op, periods))
        case Scores():
            _check_synapses(graph, where, index, op)
            _check_scores(graph, where, op, _steps(graph, where, op, periods))
        case Pool():
            _check_pool(graph, where, index, op)
        case TimePool():
            _check_time_pool(graph, where, index, op, periods)
        case Sum() | Concat():
            _check_join(graph, where, index, op)
            _steps(graph, where, op, periods)


def _check_source(where: str, source: Any, index: int) -> None:
    whole(where, "source", source, 0, index)  # map ``index`` is what the operation before has made


def _steps(graph: Graph, where: str, op: Op, periods: list[int]) -> int:
    """How many steps the sources of an operation have, which must be as many of each."""
    steps = tuple(graph.steps // periods[source] for source in sources(op))
    accepted = "equal, since what meets is pooled over time alike"
    demand(len(set(steps)) == 1, where, "numbers of steps of the sources", steps, accepted)
    return steps[0]


# synapses


def _check_synapses(graph: Graph, where: str, index: int, op: Neurons | Scores) -> None:
    synapses = op.synapses
    demand(
        isinstance(synapses, tuple) and 1 <= len(synapses) <= MAX_OPS,
        where,
        "synapses",
        synapses,
        f"a tuple of 1 to {MAX_OPS}",
    )
    for number, synapse in enumerate(synapses):
        here = f"{where}, synapse {number}"
        if not isinstance(synapse, Synapse):
            refuse(here, "type", synapse, "a Synapse")
        _check_source(here, synapse.source, index)
        _check_synapse(graph, here, synapse)
        demand(
            synapse.out_shape == op.shape, here, "shape", synapse.out_shape, f"{op.shape}, as the neurons' is"
        )
    largest = max(current_bound(graph, synapses))
    demand(largest < MAX_POTENTIAL, where, "currents", largest, "always below 2**62")


def _check_synapse(graph: Graph, where: str, synapse: Synapse) -> None:
    source = graph.map_shape(synapse.source)
    check_shape(where, "shape", synapse.shape)
    check_window(where, synapse.window, source, synapse.shape[1:])
    out = synapse.shape[0]
    whole(where, "groups", synapse.groups, 1, source[0])
    demand(
        source[0] % synapse.groups == 0 and out % synapse.groups == 0,
        where,
        "groups",
        synapse.groups,
        f"a divisor of {source[0]} channels in and {out} out",
    )
    array(where, "codes", synapse.codes, np.int8, (out, source[0] // synapse.groups, *synapse.window.size))
    _check_codes(where, synapse.codes, synapse.bits)
    if synapse.pool is not None:
        _check_current_pool(where, synapse.pool, synapse.shape)
    if synapse.factor is not None:
        array(where, "factor", synapse.factor, np.int64, (out,))
        within(where, "factor", synapse.factor, -MAX_FACTOR, MAX_FACTOR)
    top = graph.map_top(synapse.source)
    for stage in (replace(synapse, pool=None), synapse):  # in this order no bound overflows itself
        largest = int(synapse_bound(stage, top).max())
        demand(largest < MAX_ACCUMULATED, where, "accumulated numbers", largest, "always below 2**31")


def _check_codes(where: str, codes: np.ndarray, bits: Any) -> None:
    known = isinstance(bits, int | float) and not isinstance(bits, bool) and bits in _RANGES
    demand(known, where, "bits", bits, "1, 1.58 or 2 to 8")
    within(where, f"codes of {bits} bits", codes, *_RANGES[bits])
    if bits == 1:
        demand(bool(codes.all()), where, "codes of 1 bit", 0, "+1 or -1")


def _check_current_pool(where: str, pool: Any, shape: Shape) -> None:
    where = f"{where}, pool"
    if not isinstance(pool, CurrentPool):
        refuse(where, "type", pool, "a CurrentPool")
    _check_pooling(where, pool, shape)


def _check_pooling(where: str, pool: CurrentPool | Pool, source: Shape) -> None:
    demand(pool.kind in ("max", "sum"), where, "kind", pool.kind, "'max' or 'sum'")
    check_shape(where, "shape", pool.shape)
    demand(pool.shape[0] == source[0], where, "shape", pool.shape, f"of {source[0]} channels")
    check_window(where, pool.window, source, pool.shape[1:], seen=pool.kind == "max")


# what is done with their currents


def _check_neurons(graph: Graph, where: str, op: Neurons, own_steps: int) -> None:
    channels = op.shape[0]
    array(where, "taps", op.taps, np.int64, ("1 or T", "K", "1 or C"))
    steps, order, columns = op.taps.shape
    demand(columns in (1, channels), where, "taps", op.taps, f"int64 [1 or T, K, 1 or {channels}]")
    if steps > 1:
        demand(
            steps == own_steps and columns == 1,
            where,
            "taps",
            op.taps,
            f"int64 [{own_steps}, K, 1] or [1, K, C]",
        )
    whole(where, "order", order, 1, steps if steps > 1 else MAX_STEPS)
    within(where, "taps", op.taps, 1 - MAX_POTENTIAL, MAX_POTENTIAL - 1)
    array(where, "thresholds", op.thresholds, np.int64, ("R", channels))
    rows = len(op.thresholds)
    if steps > 1:
        whole(where, "rows of thresholds", rows, steps, steps)
    else:
        whole(where, "rows of thresholds", rows, 1, order)
    within(where, "thresholds", op.thresholds, -MAX_POTENTIAL, MAX_POTENTIAL)
    _check_floats(where, "unit", op.unit, channels)
    _check_floats(where, "error", op.error, channels)
    demand(op.top == 1, where, "top", op.top, "1")
    largest = max(potential_bound(graph, op))
    demand(largest < MAX_POTENTIAL, where, "potentials", largest, "always below 2**62")


def _check_scores(graph: Graph, where: str, op: Scores, own_steps: int) -> None:
    channels = op.shape[0]
    array(where, "offset", op.offset, np.int64, (channels,))
    within(where, "offset", op.offset, 1 - MAX_SCORE, MAX_SCORE - 1)
    sizes = zip(current_bound(graph, op.synapses), op.offset.tolist(), strict=True)
    largest = max(current + abs(offset) for current, offset in sizes)
    demand(largest < MAX_SCORE, where, "scores", largest, "always below 2**46")
    _check_features(where, op.features, op.shape)
    demand(isinstance(op.unit, float), where, "unit", op.unit, "a float")
    demand(isfinite(op.unit) and op.unit >= 0, where, "unit", op.unit, "finite and >= 0")
    _check_floats(where, "error", op.error, channels)
    demand(op.reduce in ("none", "sum", "mean"), where, "reduce", op.reduce, "'none', 'sum' or 'mean'")
    if op.last is not None:
        whole(where, "last", op.last, 1, own_steps)


def _check_floats(where: str, field: str, value: Any, channels: int) -> None:
    array(where, field, value, np.float64, (channels,))
    demand(bool((np.isfinite(value) & (value >= 0)).all()), where, field, "another number", "finite and >= 0")


# maps made of maps


def _check_pool(graph: Graph, where: str, index: int, op: Pool) -> None:
    _check_source(where, op.source, index)
    _check_pooling(where, op, graph.map_shape(op.source))
    top = graph.map_top(op.source)
    _check_top(where, op.top, top * prod(op.window.size) if op.kind == "sum" else top)


def _check_time_pool(graph: Graph, where: str, index: int, op: TimePool, periods: list[int]) -> None:
    _check_source(where, op.source, index)
    steps = graph.steps // periods[op.source]
    whole(where, "window", op.window, 2, MAX_STEPS)
    demand(
        steps % op.window == 0, where, "window", op.window, f"a divisor of the {steps} steps of its source"
    )
    source = graph.map_shape(op.source)
    demand(op.shape == source, where, "shape", op.shape, f"{source}, as its source's is")
    _check_top(where, op.top, graph.map_top(op.source))


def _check_join(graph: Graph, where: str, index: int, op: Sum | Concat) -> None:
    count = len(op.sources) if isinstance(op.sources, tuple) else 0
    demand(1 <= count <= MAX_OPS, where, "sources", op.sources, f"a tuple of 1 to {MAX_OPS}")
    wholes(where, "sources", op.sources, 0, index, count)
    wholes(where, "weights", op.weights, 1, MAX_TOP, count)
    tops = [weight * graph.map_top(i) for i, weight in zip(op.sources, op.weights, strict=True)]
    shapes = [graph.map_shape(i) for i in op.sources]
    if isinstance(op, Sum):
        _check_top(where, op.top, sum(tops))
        demand(all(shape == op.shape for shape in shapes), where, "shape", op.shape, "that of every source")
    else:
        _check_top(where, op.top, max(tops))
        wanted = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        demand(
            len({shape[1:] for shape in shapes}) == 1,
            where,
            "sources",
            op.sources,
            "of equal rows and columns",
        )
        demand(op.shape == wanted, where, "shape", op.shape, f"{wanted}, its sources side by side")


def _check_top(where: str, top: Any, wanted: int) -> None:
    whole(where, "top", top, 1, MAX_TOP)
    demand(top == wanted, where, "top", top, f"{wanted}, as follows from its sources")
