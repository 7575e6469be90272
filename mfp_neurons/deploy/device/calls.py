"""What the generated NAME_run and NAME_step do: one call of a primitive for each operation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from ..graph import Concat, Graph, Neurons, Op, Pool, Scores, Sum, TimePool, sources
from .layers import title
from .memory import (
    Places,
    Scratch,
    remembered,
    run_places,
    run_scratch,
    run_steps,
    scored_steps,
    step_places,
    step_scratch,
    step_words,
)


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


def run_body(graph: Graph) -> list[str]:
    """Of a whole sequence: every layer at all steps, then the next."""
    places, constant = run_places(graph), graph.constant_maps(graph.input.static)
    every = run_steps(graph)

    def view(index: int, op: Op) -> str:
        """A map from its first step on; the scores look at the last ones alone."""
        skipped = every[-1] - scored_steps(graph) if isinstance(op, Scores) else 0
        stride = 0 if index in constant else step_words(graph, index)
        return f"{{maps + {places.offset[index] + skipped * stride}, {stride}}}"

    lines = [*_memory(places, run_scratch(graph)), *_refuse(graph, every[0])]
    lines += _pack(graph, f"maps + {places.offset[0]}", every[0])
    for index, op in enumerate(graph.ops, start=1):
        steps = every[op.source if isinstance(op, TimePool) else index]
        steps = scored_steps(graph) if isinstance(op, Scores) else steps
        out = "" if isinstance(op, Scores) else f"maps + {places.offset[index]}"
        views = [view(i, op) for i in sources(op)]
        lines += _call(graph, index, views, Time("0", str(steps), "0"), out)
    return [*lines, "    return 1;"]


def step_body(graph: Graph) -> list[str]:
    """Of one step of a stream: every layer looks at the new step of its sources and those it remembers.

    Behind a pooling over time that is so in steps that end one of the layer's own.
    """
    places, history, periods = step_places(graph), graph.history(), graph.periods
    lines = [*_memory(places, step_scratch(graph)), *_refuse(graph, 1)]
    lines += [
        f"    {_when_new(graph, i, periods)}"
        f"mfp_shift(maps + {places.offset[i]}, {step_words(graph, i)}, {past});"
        for i, past in history.items()
    ]

    def newest(index: int) -> int:
        return places.offset[index] + history.get(index, 0) * step_words(graph, index)

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
        time = _pooled_time(op, period) if isinstance(op, TimePool) else _time(graph, order, period)
        lines += _call(graph, index, views, time, out, _when_ends(period))
    return lines + _next_step(graph, periods[-1])


def _next_step(graph: Graph, of_scores: int) -> list[str]:
    """Counts the step, and says whether it had scores."""
    alike, period = remembered(graph), graph.period
    if period == 1:
        return [*([f"    if (now < {alike}) now++;"] if alike else []), "    return 1;"]
    lines = [f"    now = now < {alike + period - 1} ? now + 1 : {alike};"]
    # counted, the step is the first of the next period
    return [*lines, f"    return now % {of_scores} == 0;" if of_scores > 1 else "    return 1;"]


def _when_ends(period: int) -> str:
    """The condition under which a step of the input is the last of a period."""
    return f"if ((now + 1) % {period} == 0) " if period > 1 else ""


def _when_new(graph: Graph, index: int, periods: Sequence[int]) -> str:
    """The condition under which a map gets another step: of a TimePool when a window opens."""
    op = graph.ops[index - 1] if index else None
    if isinstance(op, TimePool):
        return f"if ((now + 1) % {periods[index]} == {periods[op.source]}) "
    return _when_ends(periods[index])


def _time(graph: Graph, order: int, period: int) -> Time:
    own = "now" if period == 1 else f"now / {period}"
    if order == 1:
        return Time(own if remembered(graph) else "0", "1", "0")
    return Time(f"{own} + 1 - steps", f"{own} < {order - 1} ? {own} + 1 : {order}", "steps - 1")


def _pooled_time(op: TimePool, period: int) -> Time:
    own = "now" if period == 1 else f"now / {period}"
    return Time("0", "1", "0", f"{own} % {op.window}")


def _memory(places: Places, scratch: Scratch) -> list[str]:
    """The static buffers of a function."""
    return [
        f"    static uint32_t maps[{places.words}];",
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
    op = graph.ops[index - 1]
    match op:
        case Neurons():
            body = list(_fire(index, views, time, out))
        case Scores():
            total = int(op.reduce != "none")
            body = [
                _from(views, time),
                f"mfp_score(&layer{index}, from, {time.steps}, {total}, scores, &scratch);",
            ]
        case Pool():
            body = [
                _from(views, time),
                f"mfp_pool(&map{op.source}, from[0], &layer{index}, &map{index}, {time.steps}, {out});",
            ]
        case TimePool():
            body = [
                _from(views, time),
                f"mfp_join(&map{index}, from[0], {op.window}, {time.place}, {time.steps}, {out});",
            ]
        case Sum() | Concat():
            body = [_from(views, time), f"mfp_clear({out}, {step_words(graph, index)} * {time.steps});"]
            body += _add(graph, index, op, time, out)
    return [f"    {when}{{ {title(graph, index)}", *(f"        {line}" for line in body), "    }"]


def _from(views: list[str], time: Time) -> str:
    """Where the sources are: constant, so in flash, unless that depends on how many steps there were."""
    kind = "static const" if time.start == "0" else "const"
    return f"{kind} mfp_view from[] = {{{', '.join(views)}}};"


def _fire(index: int, views: list[str], time: Time, out: str) -> Iterator[str]:
    steps = time.steps
    if time.start != "0":
        yield f"const uint32_t steps = {time.steps};"
        steps = "steps"
    yield _from(views, time)
    yield f"mfp_fire(&layer{index}, from, {time.first}, {steps}, {time.start}, {out}, &scratch);"


def _add(graph: Graph, index: int, op: Sum | Concat, time: Time, out: str) -> Iterator[str]:
    channel = 0
    for i, (source, weight) in enumerate(zip(op.sources, op.weights, strict=True)):
        yield f"mfp_add(&map{source}, from[{i}], {weight}, &map{index}, {channel}, {time.steps}, {out});"
        channel += graph.map_shape(source)[0] if isinstance(op, Concat) else 0
