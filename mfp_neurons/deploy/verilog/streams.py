"""How streams run between the layers of a network: who reads which, where they wait, and the parts that pool,
join and reorder them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ..graph import (
    Concat,
    Gather,
    Graph,
    Ints,
    MatMul,
    Ones,
    Op,
    Pool,
    Product,
    Scores,
    Shape,
    Sum,
    TimePool,
    planes,
    sources,
)
from .layers import Memory, address_bits, packed

Joint = Pool | TimePool | Sum | Concat | Gather | Ones | Product | MatMul


@dataclass(frozen=True)
class Part:
    """What an operation without synapses becomes.

    Attributes:
        module: of mfp_streams.v.
        parameters: of the module, as Verilog has them.
        words: what it does, for a comment.
        cycles: clock cycles that a step takes.
        state_bits: what is kept between steps.
        memories: read-only ones.
    """

    module: str
    parameters: dict[str, int | str]
    words: str
    cycles: int
    state_bits: int = 0
    memories: dict[str, Memory] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """The way of a stream to one of its readers.

    Attributes:
        source: the map.
        reader: the number of the operation.
        port: which of its sources it is, the first one 0.
        steps: how many steps can wait in front of the reader; 0 is no queue.
    """

    source: int
    reader: int
    port: int
    steps: int


def ways(graph: Graph) -> list[Way]:
    """The ways of all streams that a score depends on, with queues so that the network never stands still."""
    # A *step holder* is a part that takes a step in whatever becomes of what it gives out: it has room for
    # the step that is read and for the one that comes. All others (pools, joins) take in only as fast as
    # they give out, and a join takes a number of one source only when it has that of the others, or when it
    # is its turn. So each source of a join has a queue of one step at least, unless a step holder has this
    # reader alone.
    #
    # No deadlock: let all numbers of the steps before t have arrived everywhere. From the end of the graph
    # to its beginning, every way then takes all numbers of step t: an output by agreement; a step holder
    # and a queue, as their room for a step is empty; a pool, as what it gives out is taken; a fork, as all
    # its readers take them. The one way left out is that from a step holder to a join without a queue, and
    # nobody but this holder waits for it. So from the beginning of the graph to its end, every stream gets
    # all numbers of step t, and with those of all its sources a join gives out its own and frees the way of
    # the holder. By induction over t everything arrives.
    #
    # Beyond that, a source waits as many steps as the slowest source of the same reader lags behind it, so
    # that the parts on both ways work at the same time.
    used = _used(graph)
    readers = [
        (source, index, port)
        for index, op in enumerate(graph.ops, start=1)
        if index in used
        for port, source in enumerate(sources(op))
    ]
    count = [sum(source == index for source, _, _ in readers) for index in range(len(graph.ops) + 1)]
    lags = [0]
    for op in graph.ops:
        lag = max(lags[source] for source in sources(op)) + _holds_step(op)
        # counted in own steps, of which there are fewer behind a pooling over time
        lags.append(-(-lag // op.window) if isinstance(op, TimePool) else lag)
    all_ways = []
    for source, reader, port in readers:
        op = graph.ops[reader - 1]
        several = len(list(sources(op))) > 1
        steps = max(lags[other] for other in sources(op)) - lags[source]
        is_held = source > 0 and _holds_step(graph.ops[source - 1]) and count[source] == 1
        if several and not _holds_step(op) and not is_held:
            steps = max(steps, 1)
        all_ways.append(Way(source, reader, port, steps))
    return all_ways


def _used(graph: Graph) -> set[int]:
    """The operations that a score depends on."""
    used: set[int] = set()
    for index in range(len(graph.ops), 0, -1):
        op = graph.ops[index - 1]
        if isinstance(op, Scores) or index in used:
            used |= {index, *sources(op)}
    return used - {0}


def _holds_step(op: Op) -> bool:
    return not isinstance(op, Pool | TimePool | Sum | Concat | Ones | Product)


def part(graph: Graph, op: Op) -> Part:
    """The part for an operation without synapses."""
    match op:
        case Pool():
            return _pool(graph, op)
        case TimePool():
            parameters = {"CHANNELS": prod(op.shape), "PLANES": planes(op.top), "WINDOW": op.window}
            words = f"the largest of {op.window} steps, {_times(op.shape)}"
            kept = prod(op.shape) * planes(op.top)
            return Part("mfp_time_pool", {**parameters}, words, 2 * prod(op.shape), kept)
        case Sum() | Concat():
            return _join(graph, op)
        case Gather():
            return _gather(graph, op)
        case Ones():
            bits = planes(graph.map_top(op.source))
            return Part("mfp_ones", {"PLANES": bits}, f"ones, {_times(op.shape)}", prod(op.shape))
        case Product():
            tops = sorted(planes(graph.map_top(source)) for source in op.sources)
            parameters = {"LEFT_PLANES": tops[0], "RIGHT_PLANES": tops[1], "OUT_PLANES": planes(op.top)}
            cycles = prod(op.shape) * tops[0]
            return Part("mfp_product", {**parameters}, f"products, {_times(op.shape)}", cycles)
        case MatMul():
            return _matmul(graph, op)
    raise TypeError(f"{type(op).__name__} is no part of mfp_streams.v")


def narrow_first(graph: Graph, op: Product) -> list[int]:
    """Which of the two sources has fewer bits, and which is the other one."""
    return sorted([0, 1], key=lambda number: planes(graph.map_top(op.sources[number])))


def _pool(graph: Graph, op: Pool) -> Part:
    channels, *lengths = graph.map_shape(op.source)
    window = op.window
    extents = [(size - 1) * gap + 1 for size, gap in zip(window.size, window.dilation, strict=True)]
    # how far rows and columns are counted: to the end of the map, and of the last window
    ends = [
        max(padding + length, (out - 1) * stride + extent)
        for padding, length, out, stride, extent in zip(
            window.padding, lengths, op.shape[1:], window.stride, extents, strict=True
        )
    ]
    # rows of one window, and those that the next one needs more, so that they come in meanwhile
    line_bits = (min(lengths[0], extents[0] + window.stride[0]) - 1).bit_length()
    parameters: dict[str, int | str] = {
        "CHANNELS": channels,
        "ROWS": lengths[0],
        "COLUMNS": lengths[1],
        "OUT_ROWS": op.shape[1],
        "OUT_COLUMNS": op.shape[2],
    }
    for name in ("size", "stride", "padding", "dilation"):
        rows, columns = getattr(window, name)
        parameters |= {f"{name.upper()}_ROWS": rows, f"{name.upper()}_COLUMNS": columns}
    parameters |= {
        "ROW_BITS": max(ends[0], 1 << line_bits).bit_length(),
        "NUMBER_BITS": (ends[1] * channels).bit_length(),
        "LINE_BITS": line_bits,
        "PLACE_BITS": address_bits(lengths[1] * channels),
        "SUM": int(op.kind == "sum"),
        "PLANES": planes(graph.map_top(op.source)),
        "OUT_PLANES": planes(op.top),
    }
    what = "sum" if op.kind == "sum" else "largest"
    words = f"the {what} of each window of {_times(window.size)}, {_times(op.shape)}"
    return Part("mfp_pool", parameters, words, prod(op.shape) * prod(window.size))


def _join(graph: Graph, op: Sum | Concat) -> Part:
    weight_bits = max(op.weights).bit_length()
    parameters: dict[str, int | str] = {
        "SOURCES": len(op.sources),
        "PLANES": max(planes(graph.map_top(source)) for source in op.sources),
        "OUT_PLANES": planes(op.top),
        "WEIGHT_BITS": weight_bits,
        "WEIGHTS": packed(op.weights, weight_bits),
    }
    # one source side by side with nothing is its sum
    if isinstance(op, Sum) or len(op.sources) == 1:
        return Part("mfp_sum", parameters, f"the sum, {_times(op.shape)}", prod(op.shape))
    channels = [graph.map_shape(source)[0] for source in op.sources]
    bits = address_bits(max(channels))
    parameters |= {"CHANNEL_BITS": bits, "LAST_CHANNELS": packed([n - 1 for n in channels], bits)}
    return Part("mfp_concat", parameters, f"side by side, {_times(op.shape)}", prod(op.shape))


def _gather(graph: Graph, op: Gather) -> Part:
    source = graph.map_shape(op.source)
    # places count [C, H, W]; numbers come [H, W, C]
    numbers = np.arange(prod(source)).reshape(*source[1:], source[0]).transpose(2, 0, 1).reshape(-1)
    places: Ints = np.where(op.places < 0, -1, numbers[op.places])
    bits, fill = address_bits(prod(source)), 1 << address_bits(prod(source))
    words = [fill if place < 0 else place for place in channels_last(places.reshape(op.shape)).tolist()]
    kept = planes(graph.map_top(op.source))
    parameters: dict[str, int | str] = {
        "NUMBERS": prod(source),
        "OUTPUTS": prod(op.shape),
        "PLANES": kept,
        "OUT_PLANES": planes(op.top),
        "ADDRESS_BITS": bits,
        "FILL": op.fill,
    }
    text = f"numbers in other places, {_times(op.shape)}"
    return Part(
        "mfp_gather", parameters, text, prod(op.shape) + 3, memories={"places": Memory(words, bits + 1)}
    )


def _matmul(graph: Graph, op: MatMul) -> Part:
    left, right = (graph.map_shape(source) for source in op.sources)
    tops = [planes(graph.map_top(source)) for source in op.sources]
    parameters: dict[str, int | str] = {
        "CHANNELS": left[0],
        "ROWS": left[1],
        "INNER": left[2],
        "COLUMNS": right[2],
        "LEFT_PLANES": tops[0],
        "RIGHT_PLANES": tops[1],
        "OUT_PLANES": planes(op.top),
        "LEFT_BITS": address_bits(prod(left)),
        "RIGHT_BITS": address_bits(prod(right)),
    }
    words = f"a product of matrices, {_times(left)} and {_times(right)}"
    return Part("mfp_matmul", parameters, words, prod(op.shape) * left[2] * min(tops))


def channels_last(numbers: Ints) -> Ints:
    """Numbers [C, H, W] in the order in which a step of them comes."""
    return numbers.transpose(1, 2, 0).reshape(-1)


def _times(lengths: Sequence[int] | Shape) -> str:
    """Lengths in words: 2 x 3."""
    return " x ".join(map(str, lengths))
