"""The two generated files, NAME.h and NAME.c, put together."""

from math import prod

from ..graph import Graph
from .calls import run_body, step_body
from .memory import (
    counts_steps,
    remembered,
    run_bytes,
    run_places,
    run_scratch,
    scored_steps,
    state_bytes,
    step_bytes,
    step_places,
    step_scratch,
)
from .tables import Tables


def header(graph: Graph, name: str, tables: Tables) -> str:
    """NAME.h: what it is called with, what it returns, what it takes."""
    big, given = name.upper(), graph.input
    size, classes = prod(given.shape), prod(graph.scores.shape)
    frames = 1 if given.static else graph.steps
    period = graph.periods[-1]
    rows = graph.steps // period if graph.scores.reduce == "none" else 1
    refused = f"; -1, with nothing changed, if a byte is above {big}_TOP" if given.top < 255 else ""
    levels = "events, 0 or 1" if given.top == 1 else f"levels 0..{given.top}"
    order = list(given.features or given.shape)
    sequence = f"one image, {levels}" if given.static else f"{graph.steps} steps, each {levels}"
    return f"""\
/* {name}: an integer spiking network for one sample at a time. Written by mfp_neurons; do not edit.
 *
 * Compile {name}.c and mfp_int.c with any C99 compiler. Tables are const (flash), buffers static (RAM);
 * nothing is allocated, and no function may be called while another runs. With -ffunction-sections and
 * -fdata-sections when compiling and -Wl,--gc-sections when linking, only what you call takes memory: a
 * device that streams has no buffers for runs. */
#ifndef {big}_H
#define {big}_H

#include <stdint.h>

#define {big}_STEPS {graph.steps} /* T{", and no other" if graph.fixed_steps() else ""} */
#define {big}_CLASSES {classes} /* scores of one step */
#define {big}_INPUT_BYTES {frames * size} /* that {name}_run reads */
#define {big}_STEP_INPUT_BYTES {size} /* that {name}_step reads */
#define {big}_SCORES {rows * classes} /* that {name}_run writes */
#define {big}_TOP {given.top} /* the largest level of the input */
{_period_macro(big, period)}
/* Memory in bytes. Flash: weights; thresholds, taps, factors and offsets. RAM: what a run uses and keeps
 * nothing of; what a step uses; and what a stream keeps between steps. */
#define {big}_WEIGHT_BYTES {tables.weight_bytes}
#define {big}_PARAMETER_BYTES {tables.parameter_bytes}
#define {big}_RUN_BUFFER_BYTES {run_bytes(graph)}
#define {big}_STEP_BUFFER_BYTES {step_bytes(graph)}
#define {big}_STATE_BYTES {state_bytes(graph)}

#ifdef __cplusplus
extern "C" {{
#endif

/* A whole sequence, layer by layer, all steps of a layer at once.
 *
 * input: {sequence}, row-major {order}.
 * scores: {_scores_text(graph, big)}
 * returns: 1{refused} */
int {name}_run(const uint8_t *input, int64_t scores[]);

/* One more step of a stream{_end_text(graph, name)}.
 *
 * input: {levels}, row-major {order}.
 * scores: [{big}_CLASSES] of this step; {_unit_text(graph)}
 * returns: {_returned_text(big, period)}{refused} */
int {name}_step(const uint8_t *input, int64_t scores[]);

/* Begins a new stream. */
void {name}_reset(void);

/* The class with the largest of {big}_CLASSES scores, the first of several. */
uint32_t {name}_argmax(const int64_t scores[]);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _period_macro(big: str, period: int) -> str:
    if period == 1:
        return ""
    return f"#define {big}_PERIOD {period} /* steps that end in one step of scores: pooled over time */\n"


def _returned_text(big: str, period: int) -> str:
    if period == 1:
        return "1"
    return (
        f"1 in every {big}_PERIOD-th step; 0, scores untouched, in the others, at whose end the\n"
        " * last layer has nothing to compute"
    )


def _unit_text(graph: Graph, divisor: int = 1) -> str:
    over = f" / {divisor}" if divisor > 1 else ""
    return f"times {graph.scores.unit!r}{over} it is the model's"


def _scores_text(graph: Graph, big: str) -> str:
    scores, steps, period = graph.scores, scored_steps(graph), graph.periods[-1]
    if scores.reduce == "none" and period > 1:
        return f"[{big}_STEPS / {big}_PERIOD][{big}_CLASSES], of every {period} steps; {_unit_text(graph)}"
    if scores.reduce == "none":
        return f"[{big}_STEPS][{big}_CLASSES], of every step; {_unit_text(graph)}"
    which = "all" if steps * period == graph.steps else f"the last {steps}"
    which += f" of {graph.steps // period}" if period > 1 else ""
    number = _unit_text(graph, steps if scores.reduce == "mean" else 1)
    return f"[{big}_CLASSES], summed over {which} steps; {number}"


def _end_text(graph: Graph, name: str) -> str:
    if graph.fixed_steps() is None:
        return ", which may go on for ever"
    return f" of {graph.fixed_steps()}, no more: the network is for these alone. Call {name}_reset then"


def _counted_text(graph: Graph) -> str:
    if graph.period == 1:
        return "up to where all later steps are alike"
    alike = remembered(graph)
    return (
        f"with {alike} again behind {alike + graph.period - 1}, as all later steps are alike but for their\n"
        " * place in windows"
    )


def source(graph: Graph, name: str, tables: Tables) -> str:
    """NAME.c."""
    body = "\n".join
    counted = counts_steps(graph)
    number = f"\n/* The number of the step, {_counted_text(graph)}. */\nstatic uint32_t now;\n"
    run, step = run_places(graph), step_places(graph)
    return f"""\
/* {name}: see {name}.h. Written by mfp_neurons; do not edit. Descriptors are explained in mfp_int.h. */
#include "{name}.h"

#include "mfp_int.h"
{body(tables.lines)}

/* Buffers: {4 * run.words:,} bytes for maps, {run_scratch(graph).bytes:,} for the layer at work. */
int {name}_run(const uint8_t *input, int64_t scores[])
{{
{body(run_body(graph))}
}}
{number if counted else ""}
/* Buffers: {4 * step.words:,} bytes for maps, {step_scratch(graph).bytes:,} for the layer at work. */
int {name}_step(const uint8_t *input, int64_t scores[])
{{
{body(step_body(graph))}
}}

void {name}_reset(void)
{{
{"    now = 0;" if counted else "    /* every step stands for itself */"}
}}

uint32_t {name}_argmax(const int64_t scores[])
{{
    return mfp_largest(scores, {name.upper()}_CLASSES);
}}
"""
