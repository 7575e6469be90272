"""What the generated NAME_run and NAME_step do: one call of a primitive for each operation."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from ..graph import (
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
    TimePool,
    sources,
)
from .buffers import (
    Buffers,
    is_tapped,
    leading_steps,
    remembered,
    run_steps,
    scored_steps,
    scores_of_run,
    step_words,
    steps_back,
)
from .tables import title

_REDUCTIONS = {
    "none": "MFP_EVERY_STEP",
    "sum": "MFP_SUM_OF_STEPS",
    "mean": "MFP_SUM_OF_STEPS",
    "max": "MFP_MAX_OF_STEPS",
}


@dataclass(frozen=True)
class Time:
    """The steps that one call is about, as C expressions.

    Attributes:
        first: number of the first step since the start.
        steps: how many are looked at.
        start: the first of them whose result is wanted.
        place: where in its window the first lies, of a TimePool.
    """

    first: str
    steps: str
    start: str
    place: str = "0"


def run_body(graph: Graph, buffers: Buffers) -> list[str]:
    """Of a whole sequence: every layer at all steps, then the next."""
    constant, steps = graph.constant_maps(graph.input.static), run_steps(graph)
    strides = [0 if i in constant else step_words(graph, i) for i in range(1 + len(graph.body))]
    leads = [0, *map(leading_steps, graph.body)]
    starts = [
        offset + lead * stride
        for offset, lead, stride in zip(buffers.maps.offsets, leads, strides, strict=True)
    ]

    # levels are refused before anything is written, so that a refused call changes nothing
    lines = [*_refuse(graph, steps[0]), *_memory("buffers", buffers), ""]
    lines += _pack(graph, f"maps + {starts[0]}", steps[0])
    begin = 0
    for index, op in enumerate(graph.ops, start=1):
        if isinstance(op, Neurons) and op.recurrent:
            lines += _block(graph, index, _run_recurrent(graph, index, op, starts, strides))
            continue
        time = Time("0", str(steps[op.source if isinstance(op, TimePool) else index]), "0")
        out = _scores(begin) if isinstance(op, Scores) else f"maps + {starts[index]}"
        skipped = 0
        if isinstance(op, Scores):
            # the last steps alone, and those that their taps reach back to
            scored, back = scored_steps(graph, op), steps_back(graph, op)
            skipped = steps[index] - scored - back
            time = Time(str(skipped), str(scored + back), str(back))
            begin += scores_of_run(graph, op)
        views = [f"{{maps + {starts[i] + skipped * strides[i]}, {strides[i]}}}" for i in sources(op)]
        lines += _block(graph, index, _call(graph, index, views, time, out))
    return [*lines, "    return 1;"]


def _run_recurrent(
    graph: Graph, index: int, op: Neurons, starts: list[int], strides: list[int]
) -> Iterator[str]:
    """Step by step, as all neurons of a layer read what all of them did in the step before."""
    words = step_words(graph, index)
    time = _time(graph, op, "t")
    first = "t" if op.order == 1 else "(t + 1 - steps)"
    views = []
    for i, lag in _reads(index, op):
        moved = f" + {first} * {strides[i]}" if strides[i] else ""
        views.append(f"{{maps + {starts[i] - lag * strides[i]}{moved}, {strides[i]}}}")
    yield f"mfp_clear(maps + {starts[index] - words}, {words});"
    yield f"for (uint32_t t = 0; t < {run_steps(graph)[index]}; t++) {{"
    for line in _call(graph, index, views, time, f"maps + {starts[index]} + t * {words}"):
        yield f"    {line}"
    yield "}"


def step_body(graph: Graph, buffers: Buffers) -> list[str]:
    """Of one step of a stream: every layer looks at the new step of its sources and those it remembers.

    Behind a pooling over time that is so in steps that end one of the layer's own.
    """
    offsets, history, periods = buffers.maps.offsets, graph.history(), graph.periods
    lines = [*_refuse(graph, 1), *_memory("stream", buffers)]
    if buffers.counted:
        lines += ["    const uint32_t now = stream->now;"]
    lines += [""]
    # first of all, so that each map has a free place behind its past when its layer runs
    lines += [
        f"    {_when_new(graph, i)}mfp_shift(maps + {offsets[i]}, {step_words(graph, i)}, {past});"
        for i, past in history.items()
    ]

    def newest(index: int) -> int:
        return offsets[index] + history.get(index, 0) * step_words(graph, index)

    lines += _pack(graph, f"maps + {newest(0)}", 1)
    begin = 0
    for index, op in enumerate(graph.ops, start=1):
        order = op.order if isinstance(op, Neurons | Scores) else 1
        period = periods[next(sources(op))]
        own = "now" if period == 1 else f"now / {period}"
        views = []
        for i, lag in _reads(index, op):
            words = step_words(graph, i)
            back = "" if order == 1 else f" - (steps - 1) * {words}"
            views.append(f"{{maps + {newest(i) - lag * words}{back}, {words}}}")
        out = _scores(begin) if isinstance(op, Scores) else f"maps + {newest(index)}"
        begin += prod(op.shape) if isinstance(op, Scores) else 0
        body = list(_call(graph, index, views, _time(graph, op, own), out))
        if isinstance(op, Neurons) and op.recurrent:
            words = step_words(graph, index)
            # the first step has none before it that it could read
            body.insert(0, f"if ({own} == 0) mfp_clear(maps + {newest(index) - words}, {words});")
        lines += _block(graph, index, body, _when_ends(period))
    return lines + _next_step(graph)


def _reads(index: int, op: Op) -> list[tuple[int, int]]:
    """The maps that an operation reads, and how many steps ago: 1 of recurrent synapses, else 0."""
    recurrent = op.recurrent if isinstance(op, Neurons) else ()
    return [(i, 0) for i in sources(op)] + [(index, 1) for _ in recurrent]


def _scores(begin: int) -> str:
    """Where a head writes, behind the heads before it."""
    return f"scores + {begin}" if begin else "scores"


def _next_step(graph: Graph) -> list[str]:
    """Counts the step, and says whether it had scores."""
    alike, period, of_scores = remembered(graph), graph.period, graph.periods[-1]
    if period == 1:
        # it stops where nothing depends on it any more, so that no stream is too long for 32 bits
        return [*([f"    if (now < {alike}) stream->now++;"] if alike else []), "    return 1;"]
    lines = [f"    stream->now = now < {alike + period - 1} ? now + 1 : {alike};"]
    return [*lines, f"    return (now + 1) % {of_scores} == 0;" if of_scores > 1 else "    return 1;"]


def _when_ends(period: int) -> str:
    """The condition under which a step of the input is the last of a period."""
    return f"if ((now + 1) % {period} == 0) " if period > 1 else ""


def _when_new(graph: Graph, index: int) -> str:
    """The condition under which a map gets another step: of a TimePool when a window opens."""
    op = graph.ops[index - 1] if index else None
    if isinstance(op, TimePool):
        return f"if ((now + 1) % {graph.periods[index]} == {graph.periods[op.source]}) "
    return _when_ends(graph.periods[index])


def _time(graph: Graph, op: Op, own: str) -> Time:
    """The steps of one operation whose sources are at their step ``own``."""
    if isinstance(op, TimePool):
        return Time("0", "1", "0", f"{own} % {op.window}")
    if isinstance(op, Neurons | Scores) and op.order > 1:
        # as many steps as there are; in C, where ``steps`` is the name of that many
        steps = f"{own} < {op.order - 1} ? {own} + 1 : {op.order}"
        return Time(f"{own} + 1 - steps", steps, "steps - 1")
    return Time(own if remembered(graph) else "0", "1", "0")


def _memory(struct: str, buffers: Buffers) -> list[str]:
    """Names for what is in a struct."""
    arrays, scratch = buffers.arrays, buffers.scratch
    pointers = [f"{struct}->{name}" if name in arrays else "0" for name in ("patches", "totals", "sums")]
    pointers += ["seen", *(f"{struct}->{name}" if name in arrays else "0" for name in ("narrow", "wide"))]
    return [
        f"    uint32_t *const maps = {struct}->maps;",
        f"    mfp_seen seen[{scratch.seen}];",
        f"    const mfp_scratch scratch = {{{', '.join(pointers)}}};",
    ]


def _refuse(graph: Graph, steps: int) -> list[str]:
    """Nothing is computed from levels that are none; a byte cannot be above 255."""
    top, size = graph.input.top, prod(graph.input.shape)
    above = f"mfp_above{_of_two_bytes(graph)}"
    return [f"    if ({above}(input, {steps * size}, {top})) return -1;"] if top != 255 else []


def _of_two_bytes(graph: Graph) -> str:
    """The end of a function's name."""
    return "16" if graph.input.dtype.itemsize == 2 else ""


def _pack(graph: Graph, out: str, steps: int) -> list[str]:
    size, pack = prod(graph.input.shape), f"mfp_pack{_of_two_bytes(graph)}"
    if steps == 1:
        return [f"    {pack}(&map0, input, {out});"]
    return [
        f"    for (uint32_t t = 0; t < {steps}; t++)",
        f"        {pack}(&map0, input + t * {size}, {out} + t * {step_words(graph, 0)});",
    ]


def _block(graph: Graph, index: int, body: Iterable[str], when: str = "") -> list[str]:
    """One operation, in a block of its own, under a condition or always."""
    return [f"    {when}{{ {title(graph, index)}", *(f"        {line}" for line in body), "    }"]


def _call(graph: Graph, index: int, views: list[str], time: Time, out: str) -> Iterator[str]:
    """One operation; ``out`` is where its map, or its scores, begin."""
    op, steps = graph.ops[index - 1], time.steps
    if not steps.isdigit():
        yield f"const uint32_t steps = {steps};"
        steps = "steps"
    if not isinstance(op, Ones):
        yield f"const mfp_view from[] = {{{', '.join(views)}}};"
    match op:
        case Neurons():
            arguments = f"{time.first}, {steps}, {time.start}, {out}, &scratch"
            fire = "mfp_fire" if op.feedback is None else "mfp_fire_feedback"
            yield f"{fire}(&layer{index}, from, {arguments});"
        case Scores() if is_tapped(op):
            kind = _REDUCTIONS[op.reduce]
            arguments = f"{time.first}, {steps}, {time.start}, {kind}, {out}, &scratch"
            yield f"mfp_score_tapped(&layer{index}, from, {arguments});"
        case Scores():
            total = int(op.reduce != "none")
            yield f"mfp_score(&layer{index}, from, {steps}, {total}, {out}, &scratch);"
        case Currents():
            arguments = f"&map{index}, {op.shift}, {steps}, {out}, &scratch"
            yield f"mfp_current(&layer{index}, from, {arguments});"
        case Pool():
            yield f"mfp_pool(&map{op.source}, from[0], &layer{index}, &map{index}, {steps}, {out});"
        case TimePool():
            yield f"mfp_join(&map{index}, from[0], {op.window}, {time.place}, {steps}, {out});"
        case Gather():
            arguments = f"&layer{index}, {op.fill}, &map{index}, {steps}, {out}"
            yield f"mfp_gather(&map{op.source}, from[0], {arguments});"
        case Ones():
            yield f"mfp_ones(&map{index}, {steps}, {out});"
        case Product() | MatMul():
            left, right = op.sources
            both = f"&map{left}, from[0], &map{right}, from[1], &map{index}, {steps}, {out}"
            yield f"mfp_matmul({both}, &scratch);" if isinstance(op, MatMul) else f"mfp_multiply({both});"
        case Sum() | Concat():
            # sources are added one by one to what has to begin as 0
            yield f"mfp_clear({out}, {step_words(graph, index)} * {steps});"
            yield from _add(graph, index, op, steps, out)


def _add(graph: Graph, index: int, op: Sum | Concat, steps: str, out: str) -> Iterator[str]:
    channel = 0
    for i, (source, weight) in enumerate(zip(op.sources, op.weights, strict=True)):
        yield f"mfp_add(&map{source}, from[{i}], {weight}, &map{index}, {channel}, {steps}, {out});"
        channel += graph.map_shape(source)[0] if isinstance(op, Concat) else 0
