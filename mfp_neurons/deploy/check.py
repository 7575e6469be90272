"""What every executor relies on: ``check`` proves it of a graph, or says what is wrong where.

After it no executor can read outside an array, divide by 0 or overflow: an accumulated number stays below
2**31, what factors and taps make of it below 2**62, a score below 2**46, and a number of a map between 0 and
its top. A graph is checked once, when an
:class:`~mfp_neurons.deploy.IntegerNetwork` is made of it: files are written, C is generated and networks are
run of valid graphs alone.
"""

from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Any, NoReturn, get_args

import numpy as np

from .errors import InvalidNetworkError
from .graph import (
    Concat,
    CurrentPool,
    Currents,
    Feedback,
    Gather,
    Graph,
    Input,
    MatMul,
    Neurons,
    Ones,
    Op,
    Pool,
    Product,
    Scores,
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
    current_bound,
    current_range,
    period,
    potential_bound,
    score_bound,
    sources,
    synapse_bound,
)

MAX_OPS = 4096
MAX_STEPS = 2**16
MAX_TOP = 2**24 - 1  # of a map
MAX_WEIGHT = 2**15  # of a source of a Sum or Concat
MAX_NAME = 1000
MAX_FEATURES = 16
MAX_LEVEL = 2**15  # of the input
MAX_LENGTH = 2**16  # of a window, its stride, padding and dilation
MAX_NUMBERS = 2**26  # in one map, with what its windows reach beyond it
MAX_FACTOR = 2**31 - 1
MAX_POTENTIAL = 2**62
MAX_CHOICES = 2**8  # thresholds that own spikes choose from
MAX_SCORE = 2**46  # a sum of them over 2**16 steps stays below 2**62
MAX_ACCUMULATED = 2**31
_KINDS = [kind.__name__ for kind in get_args(Op)]
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
    >>> check(Graph(Input((1, 4, 4), (4, 4), 0), (), 8))
    Traceback (most recent call last):
    ...
    mfp_neurons.deploy.errors.InvalidNetworkError: input: top must be an integer from 1 to 2**15, got 0
    """
    if not isinstance(graph, Graph):
        raise InvalidNetworkError(f"the network must be a Graph, got {describe(graph)}")
    place, ops = _Place("network"), graph.ops
    place.require_int("steps", graph.steps, 1, MAX_STEPS)
    place.require(isinstance(graph.fixed, bool), "fixed", graph.fixed, "True or False")
    _check_input(graph.input)
    place.require(isinstance(ops, tuple) and 1 <= len(ops) <= MAX_OPS, "ops", ops, "a tuple of 1 to 4096")
    heads = _count_heads(ops)
    periods = [1]
    # in the order in which they run: what an operation reads has been checked before its bounds are computed
    for index, op in enumerate(ops):
        # scores make no map
        _check_op(graph, index, min(index, len(ops) - heads), op, periods)
        periods.append(period(op, periods))
    slowest = max(periods[-heads:])
    accepted = "one for all Scores, since what meets is pooled over time alike"
    place.require(min(periods[-heads:]) == slowest, "steps that one of the scores takes", slowest, accepted)
    _check_keys(place, graph.keys, heads)


def _count_heads(ops: tuple[Any, ...]) -> int:
    """How many Scores there are at the end, after a check that there are none in front of it."""
    for index, op in enumerate(ops):
        kind, place = type(op).__name__, _Place(f"operation {index}")
        place.require(isinstance(op, Op), "type", kind, f"{', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
        ends = index == len(ops) - 1 or (isinstance(ops[index - 1], Scores) and index > 0)
        place.require(isinstance(op, Scores) or not ends, "type", kind, "Scores at the end, and only there")
    return sum(isinstance(op, Scores) for op in ops)


def _check_keys(place: "_Place", keys: Any, heads: int) -> None:
    accepted = f"(), or a tuple of {heads} different names, each at most {MAX_NAME} printable characters"
    ok = isinstance(keys, tuple) and len(keys) in (0, heads) and all(map(_is_name, keys))
    place.require(ok and len(set(keys)) == len(keys), "keys", keys, accepted)


def _is_name(name: Any) -> bool:
    # a name ends up in listings and in comments of generated code, so it has to be one line of text
    return isinstance(name, str) and len(name) <= MAX_NAME and name.isprintable()


def _check_input(inputs: Any) -> None:
    if not isinstance(inputs, Input):
        _Place("network").refuse("input", inputs, "an Input")
    place = _Place("input")
    _check_shape(place, inputs.shape)
    _check_features(place, inputs.features, inputs.shape)
    place.require_int("top", inputs.top, 1, MAX_LEVEL)
    place.require(isinstance(inputs.static, bool), "static", inputs.static, "True or False")
    for field, value in (("low", inputs.low), ("high", inputs.high)):
        ok = isinstance(value, float) and value.is_integer() and abs(value) <= MAX_LEVEL
        place.require(ok, field, value, f"a whole float from -{MAX_LEVEL} to {MAX_LEVEL}")
    place.require(inputs.low < inputs.high, "high", inputs.high, f"above low, which is {inputs.low:g}")


def _check_op(graph: Graph, index: int, maps: int, op: Op, periods: list[int]) -> None:
    """Checks operation ``index``, which may read maps 0 to ``maps``.

    Those before it are known to be right, and so are their periods.
    """
    kind = type(op).__name__
    accepted = f"at most {MAX_NAME} printable characters"
    _Place(f"operation {index} ({kind})").require(_is_name(op.name), "name", op.name, accepted)
    place = _Place(f"operation {index} ({kind} {describe(op.name)})")
    _check_shape(place, op.shape)
    if isinstance(op, Neurons | Currents | Scores):
        _check_synapses(graph, place, maps, op)
    elif isinstance(op, Pool | TimePool | Gather | Ones):
        place.require_int("source", op.source, 0, maps)
    else:
        _check_sources(place, maps, op)
    steps = _steps(graph, place, op, periods)
    match op:
        case Neurons():
            _check_neurons(graph, place, op, steps)
        case Currents():
            _check_currents(graph, place, op)
        case Scores():
            _check_scores(graph, place, op, steps)
        case Pool():
            _check_pooling(place, op, graph.map_shape(op.source))
            top = graph.map_top(op.source)
            _check_top(place, op.top, top * prod(op.window.size) if op.kind == "sum" else top)
        case TimePool():
            _check_time_pool(graph, place, op, steps)
        case Gather():
            _check_gather(graph, place, op)
        case Ones():
            source = graph.map_shape(op.source)
            place.require(op.shape == source, "shape", op.shape, f"{source}, as its source's is")
        case Sum() | Concat():
            _check_join(graph, place, op)
        case Product() | MatMul():
            _check_product(graph, place, op)


def _steps(graph: Graph, place: "_Place", op: Op, periods: list[int]) -> int:
    """How many steps the sources of an operation have, which must be as many of each."""
    steps = tuple(graph.steps // periods[source] for source in sources(op))
    accepted = "equal, since what meets is pooled over time alike"
    place.require(len(set(steps)) == 1, "numbers of steps of the sources", steps, accepted)
    return steps[0]


# --- synapses, and what is done with their currents


def _check_synapses(graph: Graph, place: "_Place", maps: int, op: Neurons | Currents | Scores) -> None:
    # the newest map, ``maps``, is what the operation before has made; recurrent synapses read the next one
    kinds = [("synapse", op.synapses, 0, maps)]
    if isinstance(op, Neurons):
        kinds.append(("recurrent synapse", op.recurrent, maps + 1, maps + 1))
    for kind, synapses, first, last in kinds:
        fewest = 0 if kind.startswith("recurrent") else 1
        ok = isinstance(synapses, tuple) and fewest <= len(synapses) <= MAX_OPS
        field = "synapses" if fewest else "recurrent"
        place.require(ok, field, synapses, f"a tuple of {fewest} to {MAX_OPS}")
        for number, synapse in enumerate(synapses):
            here = _Place(f"{place.name}, {kind} {number}")
            if not isinstance(synapse, Synapse):
                here.refuse("type", synapse, "a Synapse")
            here.require_int("source", synapse.source, first, last)
            _check_synapse(graph, here, synapse)
            fits = synapse.out_shape == op.shape
            here.require(fits, "shape", synapse.out_shape, f"{op.shape}, as the neurons' is")
    largest = max(current_bound(graph, tuple(synapse for _, group, *_ in kinds for synapse in group)))
    place.require(largest < MAX_POTENTIAL, "currents", largest, "always below 2**62")


def _check_synapse(graph: Graph, place: "_Place", synapse: Synapse) -> None:
    source, top = graph.map_shape(synapse.source), graph.map_top(synapse.source)
    _check_shape(place, synapse.shape)
    _check_window(place, synapse.window, source, synapse.shape[1:])
    out, groups = synapse.shape[0], synapse.groups
    place.require_int("groups", groups, 1, source[0])
    divides = source[0] % groups == 0 and out % groups == 0
    place.require(divides, "groups", groups, f"a divisor of {source[0]} channels in and {out} out")
    # the window before the codes, whose shape follows from it
    place.require_array("codes", synapse.codes, np.int8, (out, source[0] // groups, *synapse.window.size))
    _check_codes(place, synapse.codes, synapse.bits)
    if synapse.pool is not None:
        here = _Place(f"{place.name}, pool")
        if not isinstance(synapse.pool, CurrentPool):
            here.refuse("type", synapse.pool, "a CurrentPool")
        _check_pooling(here, synapse.pool, synapse.shape)
    if synapse.factor is not None:
        place.require_array("factor", synapse.factor, np.int64, (out,))
        place.require_range("factor", synapse.factor, -MAX_FACTOR, MAX_FACTOR)
    for stage in (replace(synapse, pool=None), synapse):  # in this order no bound overflows itself
        largest = int(synapse_bound(stage, top).max())
        accepted = "always below 2**31, with codes of fewer bits or neurons in front"
        place.require(largest < MAX_ACCUMULATED, "accumulated numbers", largest, accepted)


def _check_codes(place: "_Place", codes: np.ndarray, bits: Any) -> None:
    known = isinstance(bits, int | float) and not isinstance(bits, bool) and bits in _RANGES
    place.require(known, "bits", bits, "1, 1.58 or 2 to 8")
    place.require_range(f"codes of {bits} bits", codes, *_RANGES[bits])
    if bits == 1:
        place.require(bool(codes.all()), "codes of 1 bit", 0, "+1 or -1")


def _check_neurons(graph: Graph, place: "_Place", op: Neurons, own_steps: int) -> None:
    channels = op.shape[0]
    place.require_array("taps", op.taps, np.int64, ("1 or T", "K", "1 or C"))
    steps, order, columns = op.taps.shape
    place.require(columns in (1, channels), "taps", op.taps, f"int64 [1 or T, K, 1 or {channels}]")
    matrix = steps > 1
    # a row for each step of the layer, which behind a TimePool has fewer of them than the input
    if matrix:
        ok = steps == own_steps and columns == 1
        place.require(ok, "taps", op.taps, f"int64 [{own_steps}, K, 1] or [1, K, C]")
    place.require_int("order", order, 1, steps if matrix else MAX_STEPS)
    place.require_range("taps", op.taps, 1 - MAX_POTENTIAL, MAX_POTENTIAL - 1)
    if op.feedback is not None:
        _check_feedback(place, op, matrix)
    place.require_array("thresholds", op.thresholds, np.int64, ("R", channels))
    # from step K - 1 on all taps are reached, so a row for a later step would repeat the last one
    fewest, most = (steps, steps) if matrix else (1, order)
    rows, choices = len(op.thresholds), op.choices
    accepted = f"a multiple of the {choices} sums of own spikes"
    place.require(rows % choices == 0, "rows of thresholds", rows, accepted)
    place.require_int("steps with rows of thresholds", rows // choices, fewest, most)
    place.require_range("thresholds", op.thresholds, -MAX_POTENTIAL, MAX_POTENTIAL)
    _check_floats(place, "unit", op.unit, channels)
    _check_floats(place, "error", op.error, channels)
    largest = max(potential_bound(graph, op))
    place.require(largest < MAX_POTENTIAL, "potentials", largest, "always below 2**62")


def _check_feedback(place: "_Place", op: Neurons, matrix: bool) -> None:
    feedback, channels = op.feedback, op.shape[0]
    if not isinstance(feedback, Feedback):
        place.refuse("feedback", feedback, "a Feedback or None")
    here, kind = _Place(f"{place.name}, feedback"), feedback.kind
    here.require(kind in ("sum", "table", "age"), "kind", kind, "'sum', 'table' or 'age'")
    here.require(not matrix, "kind", kind, "None of a matrix kernel")
    here.require_int("shift", feedback.shift, 0, 61 if kind == "sum" else 0)
    if kind == "age":
        here.require(feedback.taps is None, "taps", feedback.taps, "None of 'age'")
        here.require(
            op.order > 1, "order of the neurons", op.order, "2 or more, as an order of 1 forgets anyway"
        )
        return
    here.require_array("taps", feedback.taps, np.int64, ("R", "1 or C"))
    taps: Any = feedback.taps
    here.require_int("steps of own spikes", len(taps), 1, MAX_STEPS)
    if kind == "sum":
        here.require(taps.shape[1] in (1, channels), "taps", taps, f"int64 [R, 1 or {channels}]")
        here.require_range("taps", taps, 1 - MAX_POTENTIAL, MAX_POTENTIAL - 1)
    else:
        here.require(taps.shape[1] == 1, "taps", taps, "int64 [R, 1] of 'table'")
        here.require_range("taps", taps, 1 - MAX_CHOICES, MAX_CHOICES - 1)
        here.require_int("sizes of taps, added up", int(np.abs(taps).sum()), 0, MAX_CHOICES - 1)


def _check_currents(graph: Graph, place: "_Place", op: Currents) -> None:
    place.require_array("offset", op.offset, np.int64, (op.shape[0],))
    place.require_range("offset", op.offset, 1 - MAX_POTENTIAL, MAX_POTENTIAL - 1)
    place.require_int("top", op.top, 1, MAX_TOP)
    place.require_int("zero", op.zero, 0, op.top)
    place.require_int("shift", op.shift, 0, 61)
    ends = zip(*current_range(graph, op.synapses), op.offset.tolist(), strict=True)
    numbers = [((low + offset) >> op.shift, (high + offset) >> op.shift) for low, high, offset in ends]
    accepted = f"always from 0 to top, which is {op.top}"
    for worst in (min(low for low, _ in numbers), max(high for _, high in numbers)):
        place.require(0 <= worst <= op.top, "numbers", worst, accepted)


def _check_scores(graph: Graph, place: "_Place", op: Scores, own_steps: int) -> None:
    channels, count = op.shape[0], len(op.synapses)
    if op.taps is not None:
        place.require_array("taps", op.taps, np.int64, (count, "K", "1 or C"))
        accepted = f"int64 [{count}, K, 1 or {channels}]"
        place.require(op.taps.shape[2] in (1, channels), "taps", op.taps, accepted)
        place.require_int("order", op.order, 1, MAX_STEPS)
        place.require_range("taps", op.taps, 1 - MAX_POTENTIAL, MAX_POTENTIAL - 1)
    place.require_array("offset", op.offset, np.int64, ("R", channels))
    # as of thresholds: from step K - 1 on all taps are reached
    place.require_int("rows of offset", len(op.offset), 1, op.order)
    place.require_range("offset", op.offset, 1 - MAX_SCORE, MAX_SCORE - 1)
    largest = max(score_bound(graph, op))
    place.require(largest < MAX_SCORE, "scores", largest, "always below 2**46")
    _check_features(place, op.features, op.shape)
    place.require(isinstance(op.unit, float), "unit", op.unit, "a float")
    place.require(isfinite(op.unit) and op.unit >= 0, "unit", op.unit, "finite and >= 0")
    _check_floats(place, "error", op.error, channels)
    known = ("none", "sum", "mean", "max")
    place.require(op.reduce in known, "reduce", op.reduce, "'none', 'sum', 'mean' or 'max'")
    place.require_int("skip", op.skip, 0, own_steps - 1)
    if op.last is not None:
        place.require_int("last", op.last, 1, own_steps - op.skip)


def _check_floats(place: "_Place", field: str, value: Any, channels: int) -> None:
    place.require_array(field, value, np.float64, (channels,))
    ok = bool((np.isfinite(value) & (value >= 0)).all())
    place.require(ok, field, "another number", "finite and >= 0")


# --- maps made of maps


def _check_sources(place: "_Place", maps: int, op: Sum | Concat | Product | MatMul) -> None:
    count = 2
    if isinstance(op, Sum | Concat):
        count = len(op.sources) if isinstance(op.sources, tuple) else 0
        place.require(1 <= count <= MAX_OPS, "sources", op.sources, f"a tuple of 1 to {MAX_OPS}")
        place.require_ints("weights", op.weights, 1, MAX_WEIGHT, count)
    place.require_ints("sources", op.sources, 0, maps, count)


def _check_time_pool(graph: Graph, place: "_Place", op: TimePool, steps: int) -> None:
    place.require_int("window", op.window, 2, MAX_STEPS)
    divides = steps % op.window == 0
    place.require(divides, "window", op.window, f"a divisor of the {steps} steps of its source")
    source = graph.map_shape(op.source)
    place.require(op.shape == source, "shape", op.shape, f"{source}, as its source's is")
    _check_top(place, op.top, graph.map_top(op.source))


def _check_gather(graph: Graph, place: "_Place", op: Gather) -> None:
    place.require_array("places", op.places, np.int64, (prod(op.shape),))
    place.require_range("places", op.places, -1, prod(graph.map_shape(op.source)) - 1)
    place.require_int("fill", op.fill, 0, MAX_TOP)
    _check_top(place, op.top, max(graph.map_top(op.source), op.fill))


def _check_join(graph: Graph, place: "_Place", op: Sum | Concat) -> None:
    tops = [weight * graph.map_top(i) for i, weight in zip(op.sources, op.weights, strict=True)]
    shapes = [graph.map_shape(i) for i in op.sources]
    if isinstance(op, Sum):
        _check_top(place, op.top, sum(tops))
        alike = all(shape == op.shape for shape in shapes)
        place.require(alike, "shape", op.shape, "that of every source")
    else:
        _check_top(place, op.top, max(tops))
        alike = len({shape[1:] for shape in shapes}) == 1
        place.require(alike, "sources", op.sources, "of equal rows and columns")
        wanted = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        place.require(op.shape == wanted, "shape", op.shape, f"{wanted}, its sources side by side")


def _check_product(graph: Graph, place: "_Place", op: Product | MatMul) -> None:
    left, right = (graph.map_shape(source) for source in op.sources)
    top = prod(graph.map_top(source) for source in op.sources)
    if isinstance(op, Product):
        place.require(left == right, "sources", op.sources, f"of one shape, not {left} and {right}")
        wanted = left
    else:
        fits = left[0] == right[0] and left[2] == right[1]
        accepted = f"of shapes (C, H, K) and (C, K, W), not {left} and {right}"
        place.require(fits, "sources", op.sources, accepted)
        wanted, top = (*left[:2], right[2]), left[2] * top
    place.require(op.shape == wanted, "shape", op.shape, f"{wanted}, as follows from its sources")
    _check_top(place, op.top, top)


def _check_top(place: "_Place", top: Any, wanted: int) -> None:
    place.require_int("top", top, 1, MAX_TOP)
    place.require(top == wanted, "top", top, f"{wanted}, as follows from its sources")


# --- shapes and windows: nothing is read that is not there, and nothing grows without bound


def _check_shape(place: "_Place", shape: Any) -> None:
    """(C, H, W) of at least one and at most 2**26 numbers."""
    place.require_ints("shape", shape, 1, MAX_NUMBERS, 3)
    place.require(prod(shape) <= MAX_NUMBERS, "shape", shape, "at most 2**26 numbers in all")


def _check_features(place: "_Place", features: Any, shape: Shape) -> None:
    ok = isinstance(features, tuple) and len(features) <= MAX_FEATURES
    place.require(ok, "features", features, f"a tuple of at most {MAX_FEATURES}")
    place.require_ints("features", features, 1, MAX_NUMBERS, len(features))
    ok = prod(features) == prod(shape)
    place.require(ok, "features", features, f"of {prod(shape)} elements, as shape is")


def _check_pooling(place: "_Place", pool: CurrentPool | Pool, source: Shape) -> None:
    place.require(pool.kind in ("max", "sum"), "kind", pool.kind, "'max' or 'sum'")
    _check_shape(place, pool.shape)
    place.require(pool.shape[0] == source[0], "shape", pool.shape, f"of {source[0]} channels")
    # the largest of nothing is undefined
    _check_window(place, pool.window, source, pool.shape[1:], may_miss=pool.kind == "sum")


def _check_window(
    place: "_Place", window: Any, source: Shape, out: tuple[int, int], *, may_miss: bool = True
) -> None:
    """Whether a window over a map ``source`` can have ``out`` outputs, rows and columns.

    Unless outputs ``may_miss`` the map, each has to see an element of it.
    """
    if not isinstance(window, Window):
        place.refuse("window", window, "a Window")
    for field, low in (("size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        place.require_ints(f"window.{field}", getattr(window, field), low, MAX_LENGTH, 2)
    padded = [_padded_length(place, window, axis, source[1 + axis], out[axis], may_miss) for axis in (0, 1)]
    if source[0] * prod(padded) > MAX_NUMBERS:
        place.refuse("window.size", window.size, "such that the padded map has at most 2**26 numbers")


def _padded_length(place: "_Place", window: Window, axis: int, length: int, out: int, may_miss: bool) -> int:
    """The length of a map with its padding, after a check of this axis."""
    size, stride = window.size[axis], window.stride[axis]
    padding, dilation = window.padding[axis], window.dilation[axis]
    extent = (size - 1) * dilation + 1
    name = ("rows", "columns")[axis]
    place.require_int(f"window.padding ({name})", padding, 0, extent - 1)
    last = (out - 1) * stride - padding
    place.require(last < length, f"shape ({name})", out, f"such that the last window begins before {length}")
    if not may_miss:
        # windows that begin in the padding have to reach the map; dilated ones may step over a short one
        starts = np.arange(-padding, min(0, last + 1), stride)
        places = -(starts // dilation)  # until the first one at or after 0
        inside = (places < size) & (starts + places * dilation < length)
        accepted = f"one that all {len(starts)} see through"
        place.require(bool(inside.all()), f"window ({name})", int(inside.sum()), accepted)
    return max(padding + length, (out - 1) * stride + extent)


# --- one way to say what is wrong: the place, the field, what came, what is accepted


@dataclass(frozen=True)
class _Place:
    """Where in a network something is checked; ``name`` begins every message."""

    name: str

    def refuse(self, field: str, value: Any, accepted: str) -> NoReturn:
        raise InvalidNetworkError(f"{self.name}: {field} must be {accepted}, got {describe(value)}")

    def require(self, ok: bool, field: str, value: Any, accepted: str) -> None:
        if not ok:
            self.refuse(field, value, accepted)

    def require_int(self, field: str, value: Any, low: int, high: int) -> None:
        """A Python integer from ``low`` to ``high``."""
        ok = _is_int(value, low, high)
        self.require(ok, field, value, f"an integer from {_short(low)} to {_short(high)}")

    def require_ints(self, field: str, value: Any, low: int, high: int, count: int) -> None:
        """A tuple of ``count`` Python integers from ``low`` to ``high``."""
        ok = isinstance(value, tuple) and len(value) == count and all(_is_int(n, low, high) for n in value)
        self.require(ok, field, value, f"a tuple of {count} integers from {_short(low)} to {_short(high)}")

    def require_array(self, field: str, value: Any, dtype: type, shape: tuple[int | str, ...]) -> None:
        """An array of ``dtype`` and ``shape``; a word there stands for any length >= 1."""
        ok = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == len(shape)
        ok = ok and all(
            length == wanted if isinstance(wanted, int) else length >= 1
            for length, wanted in zip(value.shape, shape, strict=True)
        )
        self.require(ok, field, value, f"{np.dtype(dtype)} [{', '.join(map(str, shape))}]")

    def require_range(self, field: str, value: np.ndarray, low: int, high: int) -> None:
        """An array of numbers from ``low`` to ``high``."""
        if value.size and (int(value.min()) < low or int(value.max()) > high):
            worst = int(value.min()) if int(value.min()) < low else int(value.max())
            self.refuse(field, worst, f"from {_short(low)} to {_short(high)}")


def describe(value: Any) -> str:
    """A short description; never long, whatever came."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"  # Python does not write out very long ones
    if isinstance(value, list | tuple):
        if len(value) > 8 or not all(isinstance(item, int | float | str) for item in value):
            return f"a {type(value).__name__} of {len(value)}"
        items = ", ".join(map(describe, value))
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    if isinstance(value, str | int | float | None):
        return brief(value)
    return f"a {type(value).__name__}"


def brief(value: Any) -> str:
    """At most 60 characters of how Python writes a value."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _short(n: int) -> str:
    """2**62 rather than 4611686018427387904."""
    for less in (0, 1):
        power = abs(n) + less
        if power >= 2**15 and power.bit_count() == 1:
            text = f"2**{power.bit_length() - 1}" + " - 1" * less
            return text if n > 0 else f"-({text})" if less else f"-{text}"
    return str(n)
