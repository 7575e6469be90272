"""What an integer network keeps in memory, counted from its packed arrays, and its layers as a table."""

from dataclasses import dataclass
from math import prod
from typing import Any

from .graph import (
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
    planes,
    synapses,
)
from .pack import code_planes, words
from .parameters import parameters, repeated_places, stored_bytes
from .plan import plan

_HEAD = ("layer", "operation", "output", "weights", "bits", "bytes", "K", "state, bits")


@dataclass(frozen=True)
class Memory:
    """Bytes, for ``batch`` samples of ``steps`` steps.

    Attributes:
        weights: codes, packed into bits.
        parameters: thresholds, taps, factors, offsets and places that numbers are gathered from, in the bits
            in which a file has them (``mfp_neurons.deploy.parameters``); equal places once. Generated C
            states its own tables, which are larger where that makes it faster.
        state_run: between the steps of ``run``, which keeps nothing.
        state_stream: between the steps of ``stream``: K - 1 bits a presynaptic neuron, or R of a neuron with
            feedback, or K of one with synapses from its own layer, if these are more; and one for each that
            a window of a pooling over time is open for. A number above 1 takes as many bits as its map's
            largest.
        peak_buffers: the most that the packed maps of ``run`` take at one time, the input included.
        batch, steps: what the last two were counted for.
    """

    weights: int
    parameters: int
    state_run: int
    state_stream: int
    peak_buffers: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return (
            f"weights {self.weights:,} bytes, parameters {self.parameters:,}; between steps {self.state_run} "
            f"(run), {self.state_stream:,} (stream); buffers {self.peak_buffers:,} for T = {self.steps}, "
            f"N = {self.batch}"
        )


def memory(graph: Graph, batch: int, steps: int) -> Memory:
    """Counts; see :class:`Memory`."""
    maps, repeated = range(len(graph.body) + 1), repeated_places(graph)
    sizes = [_map_bytes(graph, i, steps // graph.periods[i]) for i in maps]
    return Memory(
        weights=sum(_weight_bytes(s) for op in graph.ops for s in synapses(op)),
        parameters=sum(_parameter_bytes(op) for i, op in enumerate(graph.ops) if i not in repeated),
        state_run=0,
        state_stream=-(-graph.state_bits() // 8) * batch,
        peak_buffers=plan(graph, sizes).peak * batch,
        batch=batch,
        steps=steps,
    )


def describe(graph: Graph) -> str:
    """A table of the operations, then the totals."""
    rows = [_HEAD, _input_row(graph)]
    for index, op in enumerate(graph.ops, start=1):
        rows += [_synapse_row(graph, index, synapse) for synapse in synapses(op)]
        rows.append(_op_row(graph, index, op))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    errors = [f"{op.name}: {words}" for op in graph.ops if (words := rounding(op))]
    return "\n".join([*lines, "", str(memory(graph, 1, graph.steps)), *errors])


def rounding(op: Op) -> str:
    """What was rounded to whole numbers, and how far off that is at most; nothing where nothing can be."""
    if not isinstance(op, Neurons | Scores):
        return ""
    feedback = op.feedback if isinstance(op, Neurons) else None
    if op.error.any():
        what = "own taps" if feedback is not None and feedback.kind == "sum" else "factors"
        if what == "own taps" and len(op.synapses) > 1:
            what = "factors and own taps"
        return f"{what} rounded to whole numbers, at most {op.error.max():.2g} off"
    return "" if feedback is None else "own spikes fed back, exact"


# --- bytes


def _weight_bytes(synapse: Synapse) -> int:
    """Bytes of the packed codes."""
    # packed and measured, as the file packs them: nothing here can say another number than the file
    return words(code_planes(synapse.codes, synapse.bits).reshape(-1), 8).nbytes


def _parameter_bytes(op: Op) -> int:
    """Bytes of an operation's whole numbers besides its codes."""
    forms: list[Any] = [s.factor for s in synapses(op) if s.factor is not None]
    if isinstance(op, Neurons):
        forms += [parameters(op)]
    if isinstance(op, Currents | Scores):
        forms += [op.offset]
    if isinstance(op, Scores) and op.taps is not None:
        forms += [op.taps]
    if isinstance(op, Gather):
        forms += [op.places]
    return sum(map(stored_bytes, forms))


def _map_bytes(graph: Graph, index: int, steps: int) -> int:
    """Bytes of a packed map of one sample: words of 64 channels at every place; of images, their bytes.

    ``steps`` are the map's own.
    """
    channels, *places = graph.map_shape(index)
    # levels are multiplied, not counted bit by bit, so they stay bytes and are not packed
    if index == 0 and graph.input.top > 1:
        return graph.input.dtype.itemsize * channels * prod(places) * (1 if graph.input.static else steps)
    return 8 * planes(graph.map_top(index)) * -(-channels // 64) * prod(places) * steps


# --- rows of the table


def _input_row(graph: Graph) -> tuple[str, ...]:
    top = graph.input.top
    kind = ("events" if top == 1 else f"levels 0..{top}") + graph.input.meaning
    alone = " alone" if graph.fixed_steps() else ""
    time = "one image" if graph.input.static else f"T = {graph.steps}{alone}"
    return ("input", f"{kind}, {time}", _size(graph.input.shape), "", "", "", "", _state(graph, 0))


def _synapse_row(graph: Graph, index: int, synapse: Synapse) -> tuple[str, ...]:
    # what an operation reads of itself are the spikes of the step before
    own = ", a step before" if synapse.source == index else ""
    rows, columns = synapse.window.size
    groups = f", {synapse.groups} groups" if synapse.groups > 1 else ""
    pooled = f", {synapse.pool.kind} pool" if synapse.pool else ""
    return (
        f"  from {graph.map_name(synapse.source)}{own}",
        f"{rows} x {columns} synapses{groups}{pooled}",
        _size(synapse.out_shape),
        f"{synapse.codes.size:,}",
        f"{synapse.bits:g}",
        f"{_weight_bytes(synapse):,}",
        "",
        "",
    )


def _op_row(graph: Graph, index: int, op: Op) -> tuple[str, ...]:
    period = graph.periods[index]
    words = _words(op) if period == 1 else f"{_words(op)}; every {period} steps"
    if graph.keys and isinstance(op, Scores):
        words = f"{graph.keys[index - 1 - len(graph.body)]!r}: {words}"
    parameters = f"{_parameter_bytes(op):,}" if synapses(op) or isinstance(op, Gather) else ""
    order = str(op.order) if isinstance(op, Neurons) or (isinstance(op, Scores) and op.order > 1) else ""
    state = "" if isinstance(op, Scores) else _state(graph, index)
    return (op.name, words, _size(op.shape), "", "", parameters, order, state)


def _words(op: Op) -> str:
    match op:
        case Neurons():
            return "neurons" + own_words(op)
        case Pool():
            return f"{op.kind} pool, 0..{op.top}"
        case TimePool():
            return f"{op.window} steps joined, 0..{op.top}"
        case Sum() | Concat():
            return f"{type(op).__name__.lower()}, 0..{op.top}"
        case Currents():
            return f"currents, {-op.zero}..{op.top - op.zero}"
        case Gather() | Ones() | Product() | MatMul():
            return f"{type(op).__name__.lower()}, 0..{op.top}"
        case Scores():
            behind = f" but the first {op.skip}" if op.skip else ""
            if op.reduce == "none":
                return f"scores of each step{behind}"
            steps = f"the last {op.last} steps" if op.last else f"all steps{behind}"
            return "scores of the last step" if op.last == 1 else f"{op.reduce} of scores over {steps}"


def own_words(op: Neurons) -> str:
    """What own spikes do, in a few words."""
    if op.feedback is None:
        return ""
    does = {"sum": "added", "table": f"{op.choices} thresholds", "age": "reset to zero"}
    return f", R = {op.own_steps} ({does[op.feedback.kind]})"


def _state(graph: Graph, index: int) -> str:
    """Bits of this map that a stream keeps."""
    return f"{graph.kept().get(index, 0) * graph.step_bits(index):,}"


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
