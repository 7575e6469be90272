"""Runs generated C on this machine: a program that feeds networks from its input and prints their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.deploy.graph import Graph, Ints, Scores
from tests.deploy.graphs import Case
from tests.deploy.toolchain import STRICT, run, tool

UNTOUCHED = -(2**62)
LONGER = 3  # steps that a stream goes on after T
# clang's sanitizer library is often not installed with it: there undefined behavior traps without a word
SANITIZED = {
    "gcc": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "clang": ("-O1", "-g", "-fsanitize=undefined", "-fsanitize-trap=undefined"),
}

# of every sample: a stream with a run of the whole sequence in its middle, as neither may disturb the other;
# what a step leaves untouched is UNTOUCHED
_PROGRAM = """\
#include <stdio.h>
#include <stdlib.h>
{includes}

/* heap buffers of the exact size, so that a sanitizer sees a byte too many */
static void *room(size_t bytes)
{{
    void *found = malloc(bytes ? bytes : 1);
    if (!found) exit(2);
    return found;
}}

static void get(uint8_t *to, size_t bytes) {{ if (fread(to, 1, bytes, stdin) != bytes) exit(3); }}
static void put(const int64_t *from, size_t count) {{ if (fwrite(from, 8, count, stdout) != count) exit(4); }}

/* levels are of one byte or two */
typedef int call(const void *, int64_t *);
{wrapped}

static void sample(call *run, call *step, void (*reset)(void), uint32_t (*argmax)(const int64_t *),
                   size_t input, size_t step_input, size_t scores, size_t classes, size_t steps)
{{
    uint8_t *given = room(input), *one = room(step_input);
    int64_t *found = room(8 * scores), *now = room(8 * classes), ran = 0;
    get(given, input);
    reset();
    for (size_t t = 0; t < steps; t++) {{
        get(one, step_input);
        for (size_t c = 0; c < classes; c++) now[c] = {untouched};
        const int64_t stepped = step(one, now);
        put(now, classes);
        put(&(const int64_t){{argmax(now)}}, 1);
        put(&stepped, 1);
        if (t == steps / 2) {{
            for (size_t i = 0; i < scores; i++) found[i] = {untouched};
            ran = run(given, found);
        }}
    }}
    put(found, scores);
    put(&ran, 1);
    free(given), free(one), free(found), free(now);
}}

int main(void)
{{
{calls}
    return 0;
}}
"""


@dataclass(frozen=True)
class Scored:
    """int64 scores of one network, sample by sample.

    Attributes:
        run: [N, what NAME_run writes].
        step: [N, steps, classes].
        best: [N, steps], the class with the largest of them.
        scored: [N, steps], what NAME_step returned: 1 with scores, 0 without, -1 if it refused its input.
        ran: [N], what NAME_run returned: 1, or -1 likewise.
    """

    run: NDArray[np.int64]
    step: NDArray[np.int64]
    best: NDArray[np.int64]
    scored: NDArray[np.int64]
    ran: NDArray[np.int64]


def stream_of(case: Case) -> NDArray[np.uint8]:
    """The input of a case, step by step, and a few steps more."""
    steps = case.steps + LONGER
    return case.levels[np.minimum(np.arange(steps), len(case.levels) - 1)]


def expected(case: Case, stream: NDArray[np.uint8]) -> Scored:
    """What the interpreter says."""
    heads, samples = case.graph.heads, stream.shape[1]
    scores, _ = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    reduced = [reduce(head, of_head) for head, of_head in zip(heads, scores, strict=True)]
    whole = np.concatenate([np.moveaxis(one, 1, 0).reshape(samples, -1) for one in reduced], axis=1)
    session = interpret.Stream(case.graph)
    each = list(map(session.step, stream))
    untouched = np.full((samples, classes(case.graph)), UNTOUCHED)
    steps = np.stack(
        [
            untouched if step is None else np.concatenate([one.reshape(samples, -1) for one in step], axis=1)
            for step in each
        ],
        axis=1,
    )
    scored = np.broadcast_to([int(step is not None) for step in each], steps.shape[:2])
    best = steps[..., : prod(heads[0].shape)].argmax(axis=2)
    return Scored(whole, steps, best, scored, np.ones(samples, np.int64))


def reduce(head: Scores, scores: Ints) -> Ints:
    """What a run writes of the scores [T, N, C, H, W] of a head, all steps or one, by the words of Scores."""
    scores = scores[head.skip :]
    if head.reduce == "none":
        return scores
    counted = scores[-head.last :] if head.last else scores
    return (counted.max if head.reduce == "max" else counted.sum)(axis=0, keepdims=True)


def classes(graph: Graph) -> int:
    """How many scores a step writes."""
    return sum(prod(head.shape) for head in graph.heads)


def written(graph: Graph) -> int:
    """How many scores a run writes."""
    steps = graph.steps // graph.periods[-1]
    return sum(prod(head.shape) * (steps - head.skip if head.reduce == "none" else 1) for head in graph.heads)


def score(
    cases: Sequence[Case], streams: Sequence[NDArray[np.uint8]], folder: Path, compiler: str, *flags: str
) -> list[Scored]:
    """Writes, compiles and runs networks.

    Args:
        cases: networks with an input for NAME_run.
        streams: what NAME_step gets of each, uint8 [steps, N, C, H, W].
        folder: an empty one.
        compiler: "gcc" or "clang".
        flags: besides those that must never warn.
    """
    names = [f"net{i}" for i in range(len(cases))]
    for name, case in zip(names, cases, strict=True):
        write_c(case.graph, folder, name=name)
    calls = [
        f"    for (int i = 0; i < {stream.shape[1]}; i++)\n"
        f"        sample(run_{name}, step_{name}, {name}_reset, {name}_argmax, {name.upper()}_INPUT_BYTES, "
        f"{name.upper()}_STEP_INPUT_BYTES, {name.upper()}_SCORES, {name.upper()}_CLASSES, {len(stream)});"
        for name, stream in zip(names, streams, strict=True)
    ]
    includes = "\n".join(f'#include "{name}.h"' for name in names)
    wrapped = "\n".join(
        f"static int {call}_{name}(const void *in, int64_t *out) {{ return {name}_{call}(in, out); }}"
        for name in names
        for call in ("run", "step")
    )
    text = _PROGRAM.format(
        includes=includes, wrapped=wrapped, calls="\n".join(calls), untouched=f"INT64_C({UNTOUCHED})"
    )
    (folder / "main.c").write_text(text)
    sources = [f"{name}.c" for name in (*names, "mfp_int", "main")]
    run([tool(compiler), *STRICT, *flags, *sources, "-o", "main"], folder)
    given = b"".join(map(_given, cases, streams))
    return _read(run([folder / "main"], folder, given), cases, streams)


def check_scores(networks: Sequence[Case], compiler: str, *flags: str) -> None:
    """Compares what the C of several networks, in one program, gives with what the interpreter does."""
    streams = [stream_of(case) for case in networks]
    with TemporaryDirectory() as folder:
        found = score(networks, streams, Path(folder), compiler, *flags)
    for case, stream, mine in zip(networks, streams, found, strict=True):
        right = expected(case, stream)
        for name in vars(right):
            np.testing.assert_array_equal(getattr(mine, name), getattr(right, name), err_msg=name)


def _given(case: Case, stream: NDArray[np.uint8]) -> bytes:
    """Of each sample the input of a run, then those of the steps."""
    graph, levels = case.graph, case.levels
    frames = 1 if graph.input.static else graph.steps
    whole = np.broadcast_to(levels, (frames, *levels.shape[1:]))
    samples = range(stream.shape[1])
    return b"".join(whole[:, n].tobytes() + stream[:, n].tobytes() for n in samples)


def _read(printed: bytes, cases: Sequence[Case], streams: Sequence[NDArray[np.uint8]]) -> list[Scored]:
    numbers = np.frombuffer(printed, np.int64)
    found = []
    for case, stream in zip(cases, streams, strict=True):
        per_step = len(stream) * (classes(case.graph) + 2)
        mine, numbers = np.split(numbers, [stream.shape[1] * (per_step + written(case.graph) + 1)])
        steps, whole = np.split(mine.reshape(stream.shape[1], -1), [per_step], axis=1)
        steps = steps.reshape(stream.shape[1], len(stream), -1)
        found.append(Scored(whole[:, :-1], steps[..., :-2], steps[..., -2], steps[..., -1], whole[:, -1]))
    assert not numbers.size
    return found
