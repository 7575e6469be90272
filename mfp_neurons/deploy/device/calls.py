"""What the generated NAME_run and NAME_step do: one call of a primitive for each operation."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ..graph import Concat, Graph, Neurons, Op, Pool, Scores, Sum, TimePool, sources
from .buffers import Buffers, remembered, run_steps, scored_steps, step_words
from .tables import title


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
    offsets, constant = buffers.maps.offsets, graph.constant_maps(graph.input.static)
    steps = run_steps(graph)

    def view(index: int, op: Op) -> str:
        """A map from its first step on; the scores look at the last ones alone."""
        skipped = steps[-1] - scored_steps(graph) if isinstance(op, Scores) else 0
        stride = 0 if index in constant else step_words(graph, index)
        return f"{{maps + {offsets[index] + skipped * stride}, {stride}}}"

    # levels are refused before anything is written, so that a refused call changes nothing
    lines = [*_memory(buffers), *_refuse(graph, steps[0])]
    lines += _pack(graph, f"maps + {offsets[0]}", steps[0])
    for index, op in enumerate(graph.ops, start=1):
        count = steps[op.source if isinstance(op, TimePool) else index]
        count = scored_steps(graph) if isinstance(op, Scores) else count
        out = "" if isinstance(op, Scores) else f"maps + {offsets[index]}"
        lines += _call(graph, index, [view(i, op) for i in sources(op)], Time("0", str(count), "0"), out)
    return [*lines, "    return 1;"]


def step_body(graph: Graph, buffers: Buffers) -> list[str]:
    """Of one step of a stream: every layer looks at the new step of its sources and those it remembers.

    Behind a pooling over time that is so in steps that end one of the layer's own.
    """
    offsets, history, periods = buffers.maps.offsets, graph.history(), graph.periods
    lines = [*_memory(buffers), *_refuse(graph, 1)]
    # first of all, so that each map has a free place behind its past when its layer runs
    lines += [
        f"    {_when_new(graph, i)}mfp_shift(maps + {offsets[i]}, {step_words(graph, i)}, {past});"
        for i, past in history.items()
    ]

    def newest(index: int) -> int:
        return offsets[index] + history.get(index, 0) * step_words(graph, index)

    lines += _pack(graph, f"maps + {newest(0)}", 1)
    for index, op in enumerate(graph.ops, start=1):
        order = op.order if isinstance(op, Neurons) else 1
        period = periods[next(sources(op))]
        views = []
        for i in sources(op):
            words = step_words(graph, i)
            back = "" if order == 1 else f" - (steps - 1) * {words}"
            views.append(f"{{maps + {newest(i)}{back}, {words}}}")
        out = "" if isinstance(op, Scores) else f"maps + {newest(index)}"
        lines += _call(graph, index, views, _time(graph, op, period), out, _when_ends(period))
    return lines + _next_step(graph)


def _next_step(graph: Graph) -> list[str]:
    """Counts the step, and says whether it had scores."""
    alike, period, of_scores = remembered(graph), graph.period, graph.periods[-1]
    if period == 1:
        # it stops where nothing depends on it any more, so that no stream is too long for 32 bits
        return [*([f"    if (now < {alike}) now++;"] if alike else []), "    return 1;"]
    lines = [f"    now = now < {alike + period - 1} ? now + 1 : {alike};"]
    # counted, the step is the first of the next period
    return [*lines, f"    return now % {of_scores} == 0;" if of_scores > 1 else "    return 1;"]


def _when_ends(period: int) -> str:
    """The condition under which a step of the input is the last of a period."""
    return f"if ((now + 1) % {period} == 0) " if period > 1 else ""


def _when_new(graph: Graph, index: int) -> str:
    """The condition under which a map gets another step: of a TimePool when a window opens."""
    op = graph.ops[index - 1] if index else None
    if isinstance(op, TimePool):
        return f"if ((now + 1) % {graph.periods[index]} == {graph.periods[op.source]}) "
    return _when_ends(graph.periods[index])


def _time(graph: Graph, op: Op, period: int) -> Time:
    """The steps of one operation, whose sources make one in ``period`` steps of the input."""
    own = "now" if period == 1 else f"now / {period}"
    if isinstance(op, TimePool):
        return Time("0", "1", "0", f"{own} % {op.window}")
    if isinstance(op, Neurons) and op.order > 1:
        # as many steps as there are; in C, where ``steps`` is the name of that many
        return Time(f"{own} + 1 - steps", f"{own} < {op.order - 1} ? {own} + 1 : {op.order}", "steps - 1")
    return Time(own if remembered(graph) else "0", "1", "0")


def _memory(buffers: Buffers) -> list[str]:
    """The static buffers of a function."""
    scratch = buffers.scratch
    return [
        f"    static uint32_t maps[{buffers.maps.size}];",
        f"    static uint32_t patches[{scratch.patches}], totals[{scratch.totals}];",
        f"    static int32_t sums[{scratch.sums}], narrow[{scratch.narrow}];",
        f"    static mfp_seen seen[{scratch.seen}];",
        f"    static int64_t wide[{scratch.wide}];",
        "    static const mfp_scratch scratch = {patches, totals, sums, seen, narrow, wide};",
        "",
    ]


def _refuse(graph: Graph, steps: int) -> list[str]:
    """Nothing is computed from levels that are none; a byte cannot be above 255."""
    top, size = graph.input.top, prod(graph.input.shape)
    return [f"    if (mfp_above(input, {steps * size}, {top})) return -1;"] if top < 255 else []


def _pack(graph: Graph, out: str, steps: int) -> list[str]:
    size = prod(graph.input.shape)
    if steps == 1:
        return [f"    mfp_pack(&map0, input, {out});"]
    return [
        f"    for (uint32_t t = 0; t < {steps}; t++)",
        f"        mfp_pack(&map0, input + t * {size}, {out} + t * {step_words(graph, 0)});",
    ]


def _call(graph: Graph, index: int, views: list[str], time: Time, out: str, when: str = "") -> list[str]:
    """One operation, in a block of its own, under a condition or always."""
    op, steps = graph.ops[index - 1], time.steps
    # where the sources are: constant, so in flash, unless that depends on how many steps there were
    kind = "static const" if time.start == "0" else "const"
    body = [f"{kind} mfp_view from[] = {{{', '.join(views)}}};"]
    match op:
        case Neurons():
            if time.start != "0":
                body.insert(0, f"const uint32_t steps = {steps};")
                steps = "steps"
            arguments = f"{time.first}, {steps}, {time.start}, {out}, &scratch"
            fire = "mfp_fire" if op.feedback is None else "mfp_fire_feedback"
            body += [f"{fire}(&layer{index}, from, {arguments});"]
        case Scores():
            total = int(op.reduce != "none")
            body += [f"mfp_score(&layer{index}, from, {steps}, {total}, scores, &scratch);"]
        case Pool():
            body += [f"mfp_pool(&map{op.source}, from[0], &layer{index}, &map{index}, {steps}, {out});"]
        case TimePool():
            body += [f"mfp_join(&map{index}, from[0], {op.window}, {time.place}, {steps}, {out});"]
        case Sum() | Concat():
            # sources are added one by one to what has to begin as 0
            body += [f"mfp_clear({out}, {step_words(graph, index)} * {steps});"]
            body += _add(graph, index, op, steps, out)
    return [f"    {when}{{ {title(graph, index)}", *(f"        {line}" for line in body), "    }"]


def _add(graph: Graph, index: int, op: Sum | Concat, steps: str, out: str) -> Iterator[str]:
    channel = 0
    for i, (source, weight) in enumerate(zip(op.sources, op.weights, strict=True)):
        yield f"mfp_add(&map{source}, from[{i}], {weight}, &map{index}, {channel}, {steps}, {out});"
        channel += graph.map_shape(source)[0] if isinstance(op, Concat) else 0
