"""Each operation of an integer network as constant tables and a descriptor in C."""

from math import prod

from ..graph import (
    Concat,
    CurrentPool,
    Graph,
    Neurons,
    Pool,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
    planes,
    without_repeats,
)
from ..pack import plane_weights, smallest
from .memory import in_bytes, is_whole, is_wide, plane_words, row_words
from .tables import Tables, comment, packed_codes


def write_layers(graph: Graph) -> Tables:
    """The tables and descriptors of all operations."""
    tables = Tables()
    for index in sorted(_named_maps(graph)):
        words = f"{comment(graph.map_name(index))}: {shape(graph, index)}, numbers 0..{graph.map_top(index)}"
        tables.lines += ["", f"/* map {index}, {words} */"]
        tables.lines += [f"static const mfp_map map{index} = {_map(graph, index)};"]
    for index, op in enumerate(graph.ops, start=1):
        if isinstance(op, Neurons):
            _neurons(graph, index, op, tables)
        elif isinstance(op, Scores):
            _scores(graph, index, op, tables)
        elif isinstance(op, Pool):
            tables.lines += ["", title(graph, index)]
            tables.lines += [f"static const mfp_pooling layer{index} = {_pooling(op)};"]
    return tables


def shape(graph: Graph, index: int) -> str:
    return "(" + ", ".join(map(str, graph.map_shape(index))) + ")"


def title(graph: Graph, index: int) -> str:
    """One line that says what operation makes map ``index``."""
    op = graph.ops[index - 1]
    match op:
        case Neurons():
            words = f"neurons {_size(op.shape)}, K = {op.order}"
        case Scores():
            words = f"scores {_size(op.shape)}"
        case Pool():
            words = f"{op.kind} pool {_size(op.shape)} of map {op.source}, numbers 0..{op.top}"
        case TimePool():
            words = f"{op.window} steps of map {op.source} joined, {_size(op.shape)}, numbers 0..{op.top}"
        case Sum() | Concat():
            parts = " ".join(f"{w} x map {i}," for i, w in zip(op.sources, op.weights, strict=True))
            words = f"{type(op).__name__.lower()} {_size(op.shape)} of {parts} numbers 0..{op.top}"
    return f"/* {index}. {comment(op.name)}: {words} */"


def _size(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))


def _named_maps(graph: Graph) -> set[int]:
    """Maps that primitives take a descriptor of; a synapse holds that of its source."""
    found = {0}
    for index, op in enumerate(graph.ops, start=1):
        if isinstance(op, Pool):
            found |= {index, op.source}
        elif isinstance(op, TimePool):
            found |= {index}
        elif isinstance(op, Sum | Concat):
            found |= {index, *op.sources}
    return found


def _neurons(graph: Graph, index: int, op: Neurons, tables: Tables) -> None:
    tables.lines += ["", title(graph, index)]
    currents = _currents(graph, index, op, tables)
    thresholds = without_repeats(op.thresholds)
    tap_rows, order, tap_columns = op.taps.shape
    _say(tables, f"taps [{tap_rows}][{order}][{tap_columns}]", smallest(op.taps).nbytes)
    taps = tables.parameters(f"taps{index}", op.taps)
    _say(tables, f"thresholds [{len(thresholds)}][{op.shape[0]}]", smallest(thresholds).nbytes)
    levels = tables.parameters(f"thresholds{index}", thresholds)
    tables.lines += [
        f"static const mfp_neurons layer{index} = {{",
        f"    .currents = {currents},",
        f"    .order = {order},",
        f"    .tap_rows = {tap_rows}, .tap_columns = {tap_columns}, .taps = {taps},",
        f"    .threshold_rows = {len(thresholds)}, .thresholds = {levels},",
        "};",
    ]


def _scores(graph: Graph, index: int, op: Scores, tables: Tables) -> None:
    tables.lines += ["", title(graph, index)]
    currents = _currents(graph, index, op, tables)
    _say(tables, f"offset [{op.shape[0]}]", smallest(op.offset).nbytes)
    offset = tables.parameters(f"offset{index}", op.offset)
    tables.lines += [f"static const mfp_readout layer{index} = {{{currents}, {offset}}};"]


def _currents(graph: Graph, index: int, op: Neurons | Scores, tables: Tables) -> str:
    """Writes the synapses of a layer; returns their mfp_currents."""
    synapses = [_synapse(graph, f"{index}_{i}", s, tables) for i, s in enumerate(op.synapses)]
    tables.lines += [f"static const mfp_synapse synapses{index}[{len(synapses)}] = {{"]
    tables.lines += [line for synapse in synapses for line in synapse]
    tables.lines += ["};"]
    sizes = ", ".join(map(str, op.shape))
    return f"{{{sizes}, {len(synapses)}, synapses{index}, {int(is_wide(graph, op))}}}"


def _synapse(graph: Graph, suffix: str, synapse: Synapse, tables: Tables) -> list[str]:
    """Writes the tables of a synapse; returns the lines of its descriptor."""
    codes = packed_codes(graph, synapse)
    kind = "bytes" if in_bytes(graph, synapse) else "bits"
    wide = "" if kind == "bytes" else f", {codes.shape[1]} planes"
    words = f"{synapse.codes.size:,} codes of {synapse.bits:g} bits{wide}, from map {synapse.source}"
    _say(
        tables,
        f"{words}, {comment(graph.map_name(synapse.source))} {shape(graph, synapse.source)}",
        codes.nbytes,
    )
    tables.weights(f"codes{suffix}", codes)
    factor = "{0, 1}"
    if synapse.factor is not None:
        _say(tables, f"factor [{len(synapse.factor)}]", smallest(synapse.factor).nbytes)
        factor = tables.parameters(f"factor{suffix}", synapse.factor)
    weights, base = plane_weights(synapse.bits)
    row = prod(synapse.codes.shape[1:])
    return [
        "    {",
        f"        .source = {_map(graph, synapse.source)},",
        f"        .window = {_window(synapse.window)},",
        f"        .height = {synapse.shape[1]}, .width = {synapse.shape[2]},",
        f"        .group_in = {synapse.codes.shape[1]}, .group_out = {synapse.shape[0] // synapse.groups},",
        f"        .row = {row}, .row_words = {row_words(synapse)}, .whole = {int(is_whole(graph, synapse))},",
        f"        .{kind} = codes{suffix},",
        f"        .planes = {len(weights)}, .weight = {{{_modulo(weights)}}}, .base = {_modulo((base,))},",
        f"        .factor = {factor},",
        f"        .pooling = {_pooling(synapse.pool)},",
        "    },",
    ]


def _say(tables: Tables, what: str, count: int) -> None:
    tables.lines += [f"/* {what}: {count:,} bytes */"]


def _map(graph: Graph, index: int) -> str:
    sizes = ", ".join(map(str, graph.map_shape(index)))
    return f"{{{sizes}, {planes(graph.map_top(index))}, {plane_words(graph, index)}}}"


def _window(window: Window) -> str:
    pairs = (window.size, window.stride, window.padding, window.dilation)
    return "{" + ", ".join(f"{{{rows}, {columns}}}" for rows, columns in pairs) + "}"


def _pooling(pool: Pool | CurrentPool | None) -> str:
    """Of one number where there is none."""
    kind, window = ("sum", Window()) if pool is None else (pool.kind, pool.window)
    return f"{{MFP_{kind.upper()}, {_window(window)}}}"


def _modulo(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) if number >= 0 else f"{number % 2**32}u" for number in numbers)
