"""An integer network as text: its layers with shapes, bits and bytes."""

from math import prod

from .graph import Concat, Graph, Neurons, Op, Pool, Scores, Sum, Synapse, TimePool, planes, synapses
from .memory import memory, parameter_bytes, weight_bytes

_HEAD = ("layer", "operation", "output", "weights", "bits", "bytes", "K", "state, bits")


def describe(graph: Graph) -> str:
    """A table of the operations, then the totals."""
    rows, periods = [_HEAD, _input_row(graph)], graph.periods
    for index, op in enumerate(graph.ops, start=1):
        rows += [_synapse_row(graph, synapse) for synapse in synapses(op)]
        rows.append(_op_row(graph, index, op, periods[index]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", str(memory(graph, 1, graph.steps)), *_errors(graph)])


def _input_row(graph: Graph) -> tuple[str, ...]:
    given = graph.input
    kind = "events" if given.top == 1 else f"levels 0..{given.top}"
    alone = " alone" if graph.fixed_steps() else ""
    time = "one image" if given.static else f"T = {graph.steps}{alone}"
    return ("input", f"{kind}, {time}", _shape(given.shape), "", "", "", "", _state(graph, 0))


def _synapse_row(graph: Graph, synapse: Synapse) -> tuple[str, ...]:
    rows, columns = synapse.window.size
    groups = f", {synapse.groups} groups" if synapse.groups > 1 else ""
    pooled = f", {synapse.pool.kind} pool" if synapse.pool else ""
    return (
        f"  from {graph.map_name(synapse.source)}",
        f"{rows} x {columns} synapses{groups}{pooled}",
        _shape(synapse.out_shape),
        f"{synapse.codes.size:,}",
        f"{synapse.bits:g}",
        f"{weight_bytes(synapse):,}",
        "",
        "",
    )


def _op_row(graph: Graph, index: int, op: Op, period: int) -> tuple[str, ...]:
    state = "" if isinstance(op, Scores) else _state(graph, index)
    order = str(op.order) if isinstance(op, Neurons) else ""
    own = f"{parameter_bytes(op):,}" if synapses(op) else ""
    words = _words(op) if period == 1 else f"{_words(op)}; every {period} steps"
    return (op.name, words, _shape(op.shape), "", "", own, order, state)


def _words(op: Op) -> str:
    match op:
        case Neurons():
            return "neurons"
        case Pool():
            return f"{op.kind} pool, 0..{op.top}"
        case TimePool():
            return f"{op.window} steps joined, 0..{op.top}"
        case Sum():
            return f"sum, 0..{op.top}"
        case Concat():
            return f"concat, 0..{op.top}"
        case Scores():
            if op.reduce == "none":
                return "scores of each step"
            steps = f"the last {op.last} steps" if op.last else "all steps"
            return "scores of the last step" if op.last == 1 else f"{op.reduce} of scores over {steps}"


def _state(graph: Graph, index: int) -> str:
    """Bits of this map that a stream keeps."""
    kept = graph.kept().get(index, 0)
    return f"{kept * planes(graph.map_top(index)) * prod(graph.map_shape(index)):,}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _errors(graph: Graph) -> list[str]:
    rounded = [op for op in graph.ops if isinstance(op, Neurons | Scores) and op.error.any()]
    words = "factors rounded to whole numbers, at most"
    return [f"{op.name}: {words} {op.error.max():.2g} off" for op in rounded]
