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

# All samples of all networks at once, each with a stream of its own: step by step they take turns, and a run
# of the whole sequence comes in the middle, as none may disturb another. What a step leaves untouched is
# UNTOUCHED. Memory holds other numbers than 0 at first, as nothing but NAME_reset may be needed.
_PROGRAM = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{includes}

/* heap buffers of the exact size, so that a sanitizer sees a byte too many */
static void *room(size_t bytes)
{{
    void *found = malloc(bytes ? bytes : 1);
    if (!found) exit(2);
    memset(found, 0xa5, bytes);
    return found;
}}

static void *get(size_t bytes)
{{
    uint8_t *found = room(bytes);
    if (fread(found, 1, bytes, stdin) != bytes) exit(3);
    return found;
}}

static void put(const int64_t *from, size_t count) {{ if (fwrite(from, 8, count, stdout) != count) exit(4); }}

/* levels are of one byte or two */
typedef int call(void *, const void *, int64_t *);
{wrapped}

typedef struct {{
    call *run, *step;
    void (*reset)(void *);
    uint32_t (*argmax)(const int64_t *);
    size_t stream, buffers, input, step_input, scores, classes, steps;
}} network;

static const network networks[] = {{
{networks}
}};
static const int samples[] = {{{samples}}};

typedef struct {{
    const network *of;
    void *stream;
    uint8_t *input, **rows;
    int64_t *now; /* [step][classes, argmax, returned] */
    int64_t *whole, ran;
}} instance;

static instance begin(const network *of)
{{
    instance new = {{of, room(of->stream), get(of->input), room(of->steps * sizeof(uint8_t *)),
                     room(8 * of->steps * (of->classes + 2)), room(8 * of->scores), 0}};
    for (size_t t = 0; t < of->steps; t++) new.rows[t] = get(of->step_input);
    of->reset(new.stream);
    return new;
}}

static void advance(instance *one, size_t t)
{{
    const network *of = one->of;
    if (t >= of->steps) return;
    int64_t *scores = room(8 * of->classes), *now = one->now + t * (of->classes + 2);
    for (size_t c = 0; c < of->classes; c++) scores[c] = {untouched};
    now[of->classes + 1] = of->step(one->stream, one->rows[t], scores);
    now[of->classes] = of->argmax(scores);
    memcpy(now, scores, 8 * of->classes);
    free(scores);
    if (t == of->steps / 2) {{
        void *buffers = room(of->buffers);
        for (size_t i = 0; i < of->scores; i++) one->whole[i] = {untouched};
        one->ran = of->run(buffers, one->input, one->whole);
        free(buffers);
    }}
}}

static void end(const instance *one)
{{
    const network *of = one->of;
    put(one->now, of->steps * (of->classes + 2));
    put(one->whole, of->scores);
    put(&one->ran, 1);
    for (size_t t = 0; t < of->steps; t++) free(one->rows[t]);
    free(one->stream), free(one->input), free(one->rows), free(one->now), free(one->whole);
}}

int main(void)
{{
    size_t count = 0, longest = 0;
    static instance instances[{count}];
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {{
        for (int n = 0; n < samples[i]; n++) instances[count++] = begin(&networks[i]);
        if (networks[i].steps > longest) longest = networks[i].steps;
    }}
    for (size_t t = 0; t < longest; t++)
        for (size_t i = 0; i < count; i++) advance(&instances[i], t);
    for (size_t i = 0; i < count; i++) end(&instances[i]);
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
    sizes = ("INPUT_BYTES", "STEP_INPUT_BYTES", "SCORES", "CLASSES")
    networks = [
        f"    {{run_{name}, step_{name}, reset_{name}, {name}_argmax, "
        f"sizeof({name}_stream), sizeof({name}_buffers), "
        f"{', '.join(f'{name.upper()}_{size}' for size in sizes)}, {len(stream)}}},"
        for name, stream in zip(names, streams, strict=True)
    ]
    wrapped = [
        f"static int {call}_{name}(void *at, const void *in, int64_t *out) "
        f"{{ return {name}_{call}(at, in, out); }}"
        for name in names
        for call in ("run", "step")
    ]
    wrapped += [f"static void reset_{name}(void *net) {{ {name}_reset(net); }}" for name in names]
    samples = [stream.shape[1] for stream in streams]
    text = _PROGRAM.format(
        includes="\n".join(f'#include "{name}.h"' for name in names),
        wrapped="\n".join(wrapped),
        networks="\n".join(networks),
        samples=", ".join(map(str, samples)),
        count=sum(samples),
        untouched=f"INT64_C({UNTOUCHED})",
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
