"""An integer network as C99 for small devices: NAME.c with tables and calls, NAME.h that says how to use it.

The primitives that they call, ``mfp_int.c`` and ``mfp_int.h``, are written by hand and the same for all
networks.
"""

import os
import re
from math import prod
from pathlib import Path

from ..._checks import check_choice, describe
from ..._files import write_bytes
from ..graph import Gather, Graph, Neurons, Scores
from ..memory import own_words, rounding
from .buffers import (
    Buffers,
    kept_words,
    run_buffers,
    scored_steps,
    scores_of_run,
    step_buffers,
)
from .calls import run_body, step_body
from .layouts import LAYOUTS, Layout, lay_out
from .tables import Tables, comment

_PRIMITIVES = Path(__file__).parent
_TAKEN = ("mfp_int", "stdint")
_MOST_BYTES = 2**31 - 1  # the C counts in 32 bits


def write_c(
    graph: Graph, directory: str | os.PathLike[str], *, name: str = "mfp_net", layout: Layout = "plain"
) -> list[Path]:
    """Writes a network as C99 that needs ``<stdint.h>`` alone; its header says how to use it.

    Args:
        graph: a valid network.
        directory: made if need be; files of the same names in it are replaced.
        name: of the two generated files, and the prefix of what they define: a C identifier.
        layout: "plain" for the sources alone, or the library of a build system around them, with an
            example: "arduino", "platformio", "cmake" or "zephyr".

    Returns:
        The files: NAME.h, NAME.c, mfp_int.h, mfp_int.c, then those of the layout.

    Raises:
        ValueError: ``name`` or ``layout`` can't be used, or tables or buffers are too large for the C.
            Nothing has been written then.

    >>> import tempfile
    >>> import numpy as np
    >>> from mfp_neurons.deploy.graph import Graph, Input, Scores, Synapse, Window
    >>> codes = np.array([[1, -1], [-1, 1]], np.int8).reshape(2, 2, 1, 1)
    >>> shape, zeros = (2, 1, 1), np.zeros(2)
    >>> synapse = Synapse(0, codes, 1, Window(), shape)
    >>> scores = Scores("fc", (synapse,), zeros.astype(int), shape, (2,), 1.0, zeros)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in write_c(Graph(Input(shape, (2,), 1), (scores,), 4), folder, name="tiny")]
    ['tiny.h', 'tiny.c', 'mfp_int.h', 'mfp_int.c']
    """
    _check_name(name)
    check_choice("layout", layout, LAYOUTS)
    run, step = run_buffers(graph), step_buffers(graph)
    _check_bytes("the buffers of a run", run.bytes)
    _check_bytes("a stream", step.bytes)
    tables = Tables(graph)
    _check_bytes("the tables", tables.weight_bytes + tables.parameter_bytes)
    texts = {
        f"{name}.h": _header(graph, name, tables, run, step),
        f"{name}.c": _source(graph, name, tables, run, step),
    }
    texts |= {file: (_PRIMITIVES / file).read_text() for file in ("mfp_int.h", "mfp_int.c")}
    # all text exists before the first file is written, so that a refusal leaves nothing behind
    files = {Path(directory, file): text for file, text in lay_out(layout, graph, name, texts).items()}
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, text.encode("ascii"))
    return list(files)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name):
        raise ValueError(
            "name must be a C identifier of at most 63 characters that begins with a letter, got "
            f"{describe(name)}"
        )
    if name.lower() in _TAKEN:
        raise ValueError(f"name must be other than {' and '.join(_TAKEN)}, whose headers the C includes")


def _check_bytes(what: str, count: int) -> None:
    if count > _MOST_BYTES:
        raise ValueError(f"{what} would take {count:,} bytes; the C counts up to {_MOST_BYTES:,}")


def _header(graph: Graph, name: str, tables: Tables, run: Buffers, step: Buffers) -> str:
    """NAME.h: what it is called with, what it returns, what it takes."""
    big, inputs = name.upper(), graph.input
    size, classes = prod(inputs.shape), sum(prod(head.shape) for head in graph.heads)
    frames = 1 if inputs.static else graph.steps
    period, kept = graph.periods[-1], 4 * kept_words(graph)
    scores = sum(scores_of_run(graph, head) for head in graph.heads)
    kind, size_of_level = f"{inputs.dtype}_t", inputs.dtype.itemsize
    number = "byte" if size_of_level == 1 else "level"
    refused = f"; -1, with nothing changed, if a {number} is above {big}_TOP" if inputs.top != 255 else ""
    levels = ("events, 0 or 1" if inputs.top == 1 else f"levels 0..{inputs.top}") + inputs.meaning
    order = list(inputs.features or inputs.shape)
    sequence = f"one image, {levels}" if inputs.static else f"{graph.steps} steps, each {levels}"
    return f"""\
/* {name}: an integer spiking network for one sample at a time. Written by mfp_neurons; do not edit.
 *
 * Compile {name}.c and mfp_int.c with any C99 compiler; several networks share one mfp_int.c. Tables are
 * const (flash). All that is written to is the struct that the caller passes (RAM), and the stack: nothing
 * is allocated, there are no static variables, and calls with different structs may run at the same time.
 * With -ffunction-sections and -fdata-sections when compiling and -Wl,--gc-sections when linking, only what
 * you call takes flash.{_feedback_text(graph)} */
#ifndef {big}_H
#define {big}_H

#include <stdint.h>

#define {big}_STEPS {graph.steps} /* T{", and no other" if graph.fixed_steps() else ""} */
#define {big}_CLASSES {classes} /* scores of one step{_all_heads(graph)} */
#define {big}_INPUT_BYTES {frames * size * size_of_level} /* that {name}_run reads */
#define {big}_STEP_INPUT_BYTES {size * size_of_level} /* that {name}_step reads */
#define {big}_SCORES {scores} /* that {name}_run writes{_all_heads(graph)} */
#define {big}_TOP {inputs.top} /* the largest level of the input */
{_period_macro(big, period)}{_head_macros(graph, big)}
/* Bytes: weights, and {_parameter_words(graph)}, in flash; and those of a
 * {name}_stream that outlive a step. */
#define {big}_WEIGHT_BYTES {tables.weight_bytes}
#define {big}_PARAMETER_BYTES {tables.parameter_bytes}
#define {big}_STATE_BYTES {kept + 4 * step.counted}

/* What a run computes in; nothing of it outlives the call. It takes {run.bytes:,} bytes. */
{_struct(f"{name}_buffers", run)}

/* A stream of its own: what it keeps between steps, and what a step computes in. All zeros stand for one that
 * has been reset. It takes {step.bytes:,} bytes. */
{_struct(f"{name}_stream", step)}

#ifdef __cplusplus
extern "C" {{
#endif

/* A whole sequence, layer by layer, all steps of a layer at once.
 *
 * input: {sequence}, row-major {order}.
 * scores: {_scores_text(graph, big)}
 * returns: 1{refused} */
int {name}_run({name}_buffers *buffers, const {kind} *input, int64_t scores[]);

/* One more step of a stream{_end_text(graph, name)}.
 *
 * input: {levels}, row-major {order}.
 * scores: {_step_scores_text(graph, big)}
 * returns: {_returned_text(big, period)}{refused} */
int {name}_step({name}_stream *stream, const {kind} *input, int64_t scores[]);

/* The next step is the first one. A struct that is not static, and so not 0, needs this before it. */
void {name}_reset({name}_stream *stream);

{_argmax_text(graph, big)}
uint32_t {name}_argmax(const int64_t scores[]);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _struct(name: str, buffers: Buffers) -> str:
    fields = [f"    {kind} {array}[{length}];" for array, (kind, length) in buffers.arrays.items()]
    if buffers.counted:
        fields.append("    uint32_t now; /* the number of the step, as far as it matters */")
    return "\n".join(["typedef struct {", *fields, f"}} {name};"])


def _feedback_text(graph: Graph) -> str:
    """Of every layer with feedback, whether its own spikes count exactly."""
    layers = [op for op in graph.ops if isinstance(op, Neurons) and op.feedback is not None]
    return "".join(f"\n *\n * {comment(op.name)}{own_words(op)}: {rounding(op)}." for op in layers)


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


def _all_heads(graph: Graph) -> str:
    return ", of all heads" if len(graph.heads) > 1 else ""


def _head_macros(graph: Graph, big: str) -> str:
    """Where the scores of each head begin, if there are several."""
    if len(graph.heads) == 1:
        return ""
    lines = [
        "",
        "/* The heads, one behind the other: how many scores each has in one step, and how many lie before",
        " * its first one in what a run writes, and in what a step writes. */",
    ]
    of_run = of_step = 0
    for i, head in enumerate(graph.heads):
        classes = prod(head.shape)
        name = f"{graph.keys[i]}: {head.name}" if graph.keys else head.name
        lines += [
            f"#define {big}_HEAD{i}_CLASSES {classes} /* {comment(name)} */",
            f"#define {big}_HEAD{i}_RUN {of_run}",
            f"#define {big}_HEAD{i}_STEP {of_step}",
        ]
        of_run, of_step = of_run + scores_of_run(graph, head), of_step + classes
    return "\n".join([*lines, ""])


def _parameter_words(graph: Graph) -> str:
    """What counts as parameters."""
    places = any(isinstance(op, Gather) for op in graph.ops)
    return f"thresholds, taps, factors{', places' if places else ''} and offsets"


def _unit_text(head: Scores, divisor: int = 1) -> str:
    over = f" / {divisor}" if divisor > 1 else ""
    return f"times {head.unit!r}{over} it is the model's"


def _scores_text(graph: Graph, big: str) -> str:
    """What a run writes."""
    if len(graph.heads) == 1:
        return _head_text(graph, graph.scores, big, f"{big}_CLASSES")
    lines = [f"[{big}_SCORES], head after head:"]
    for i, head in enumerate(graph.heads):
        text = _head_text(graph, head, big, f"{big}_HEAD{i}_CLASSES")
        lines.append(f" *     from {big}_HEAD{i}_RUN on {text}")
    return "\n".join(lines)


def _head_text(graph: Graph, head: Scores, big: str, classes: str) -> str:
    """What a run writes of one head; ``classes`` is the macro that counts its scores of a step."""
    steps, period = scored_steps(graph, head), graph.periods[-1]
    if head.reduce == "none":
        rows = f"{big}_STEPS / {big}_PERIOD" if period > 1 else f"{big}_STEPS"
        rows += f" - {head.skip}" if head.skip else ""
        every = f"every {period} steps" if period > 1 else "every step"
        every += f", without the first {head.skip} scores" if head.skip else ""
        return f"[{rows}][{classes}], of {every}; {_unit_text(head)}"
    which = "all" if steps * period == graph.steps else f"the last {steps}"
    which += f" of {graph.steps // period}" if period > 1 else ""
    number = _unit_text(head, steps if head.reduce == "mean" else 1)
    how = "the largest of" if head.reduce == "max" else "summed over"
    return f"[{classes}], {how} {which} steps; {number}"


def _step_scores_text(graph: Graph, big: str) -> str:
    """What a step writes."""
    if len(graph.heads) == 1:
        return f"[{big}_CLASSES] of this step; {_unit_text(graph.scores)}"
    lines = [f"[{big}_CLASSES] of this step, head after head:"]
    for i, head in enumerate(graph.heads):
        text = f"from {big}_HEAD{i}_STEP on [{big}_HEAD{i}_CLASSES]; {_unit_text(head)}"
        lines.append(f" *     {text}")
    return "\n".join(lines)


def _argmax_text(graph: Graph, big: str) -> str:
    if len(graph.heads) == 1:
        return f"/* The class with the largest of {big}_CLASSES scores, the first of several. */"
    return (
        f"/* The class with the largest of the {big}_HEAD0_CLASSES scores of the first head, the first of\n"
        " * several. Of other heads mfp_largest of mfp_int.h says it. */"
    )


def _end_text(graph: Graph, name: str) -> str:
    if graph.fixed_steps() is None:
        return ", which may go on for ever"
    return f" of {graph.fixed_steps()}, no more: the network is for these alone. Call {name}_reset then"


def _source(graph: Graph, name: str, tables: Tables, run: Buffers, step: Buffers) -> str:
    """NAME.c: the tables, then the functions."""
    body, kind = "\n".join, f"{graph.input.dtype}_t"
    reset = "stream->now = 0;" if step.counted else "(void)stream; /* every step stands for itself */"
    return f"""\
/* {name}: see {name}.h. Written by mfp_neurons; do not edit. Descriptors are explained in mfp_int.h. */
#include "{name}.h"

#include "mfp_int.h"
{body(tables.lines)}

int {name}_run({name}_buffers *buffers, const {kind} *input, int64_t scores[])
{{
{body(run_body(graph, run))}
}}

int {name}_step({name}_stream *stream, const {kind} *input, int64_t scores[])
{{
{body(step_body(graph, step))}
}}

void {name}_reset({name}_stream *stream)
{{
    {reset}
}}

uint32_t {name}_argmax(const int64_t scores[])
{{
    return mfp_largest(scores, {name.upper()}_{"HEAD0_" if len(graph.heads) > 1 else ""}CLASSES);
}}
"""
