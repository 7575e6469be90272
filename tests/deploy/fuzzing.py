"""Broken files and random inputs by the thousand; what became of them is counted, the unexpected raises.

``files`` feeds mutated files to the loader. Each is refused with InvalidNetworkError, or is a network that
the interpreter, the compiled runtime, streams and events run with one result, and that C can be written of.
``inputs`` compares the same on random networks.
"""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy import InvalidNetworkError, interpret
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.deploy.file import from_bytes, to_bytes
from mfp_neurons.deploy.graph import Graph, MatMul, Pool, Window, synapses
from mfp_neurons.deploy.inputs import read
from tests.deploy.agreement import assert_same, events_agree, shared_out, stream_agrees
from tests.deploy.graphs import Case
from tests.deploy.mutations import KINDS

_OFTEN = ["numbers flipped, signed"] + ["rewritten, signed"] * 8  # these get past the container
_MOST_STEPS = 6
_MOST_NUMBERS = 2**17  # in a map with its padding
_MOST_WORK = 2**24  # additions of a step of one sample


@dataclass
class Tally:
    """What came of mutated files.

    Attributes:
        outcomes: how many of each kind of mutation were refused, ran, or were networks too large to try here.
        reasons: how often each reason was given, without its names and numbers.
        slowest: seconds of the processor that the slowest file took to read, and its number.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)


def files(bases: Sequence[bytes], numbers: Sequence[int], tally: Tally | None = None) -> Tally:
    """Mutated files through the loader; each number is a file, the same on every run.

    Raises:
        Exception: whatever the loader, the interpreter or the runtime raised but should not have, with a note
            of the file's number.
    """
    tally = Tally() if tally is None else tally
    for number in numbers:
        rng = random.Random(number)
        kind = rng.choice([*sorted(KINDS), *_OFTEN])
        base = rng.choice(bases)
        data = KINDS[kind](base, rng)
        try:
            outcome = read_file(data, number, tally)
            assert outcome == "refused" or data == base or kind.endswith("signed"), "a change went unnoticed"
            outcome = "nothing had changed" if data == base else outcome
        except BaseException as error:
            error.add_note(f"file {number} ({kind})")
            raise
        tally.outcomes[kind, outcome] += 1
    return tally


def read_file(data: bytes, number: int, tally: Tally) -> str:
    """What became of one file."""
    start = time.process_time()
    try:
        graph = from_bytes(data)
        check(graph)
    except InvalidNetworkError as error:
        tally.reasons[re.sub(r"'[^']*'|\"[^\"]*\"|\(.*?\)|\[.*?\]|-?\d[\d.]*", "_", str(error))] += 1
        return "refused"
    finally:
        tally.slowest = max(tally.slowest, (time.process_time() - start, number))
    assert to_bytes(from_bytes(to_bytes(graph))) == to_bytes(graph)
    if too_large(graph):
        return "a network too large to run here"
    rng = np.random.default_rng(number)
    period = graph.period
    steps = graph.fixed_steps() or max(period, min(graph.steps, _MOST_STEPS) // period * period)
    frames = 1 if graph.input.static else steps
    levels = rng.integers(0, graph.input.top + 1, (frames, 2, *graph.input.shape))
    levels = levels.astype(graph.input.dtype)
    agree(graph, levels, steps)
    if number % 8 == 0:  # the slow ones
        agree_otherwise(Case(graph, levels, steps))
        with TemporaryDirectory() as folder:
            assert write_c(graph, folder)
    return "ran"


def work_of(graph: Graph) -> tuple[int, int]:
    """Additions of a step of one sample; and the largest map with its padding, or window."""
    work, largest = 0, max(prod(graph.map_shape(index)) for index in range(len(graph.ops) + 1))
    seen: list[tuple[Window, tuple[int, ...], int, int]] = []  # and channels: of one output, in all
    for op in graph.ops:
        if isinstance(op, Pool):
            seen.append((op.window, op.shape, 1, op.shape[0]))
        if isinstance(op, MatMul):
            work += prod(op.shape) * graph.map_shape(op.sources[0])[2]
        for s in synapses(op):
            seen.append((s.window, s.shape, s.codes.shape[1], s.codes.shape[1] * s.groups))
            if s.pool:
                seen.append((s.pool.window, s.pool.shape, 1, s.shape[0]))
    for window, shape, of_one, channels in seen:
        axes = zip(shape[1:], window.stride, window.size, window.dilation, window.padding, strict=True)
        reach = [(n - 1) * stride + (size - 1) * dilation + pad for n, stride, size, dilation, pad in axes]
        work += prod(shape) * prod(window.size) * of_one
        largest = max(largest, prod(reach) * channels, prod(window.size) * 2**5)
    return work, largest


def too_large(graph: Graph) -> bool:
    """Whether the interpreter would take more than some hundredths of a second."""
    work, largest = work_of(graph)
    return work > _MOST_WORK or largest > _MOST_NUMBERS or (graph.fixed_steps() or graph.period) > 100


def agree(graph: Graph, levels: NDArray[np.uint8], steps: int, threads: int = 1) -> None:
    """The compiled runtime gives the interpreter's scores, and neither overflows."""
    with np.errstate(all="raise"):
        expected, maps = interpret.run(graph, levels.astype(np.int64), steps)
    for index, numbers in enumerate(maps):
        assert numbers.min() >= 0
        assert numbers.max() <= graph.map_top(index)
    assert_same(shared_out(graph).run(levels, steps, threads=threads), expected, "scores")


def agree_otherwise(case: Case) -> None:
    """The same step by step, and driven by events, which are slow in Python."""
    stream_agrees(case, threads=1)
    events_agree(case)


def inputs(
    draw: Callable[[int], Sequence[Case]], numbers: Sequence[int], samples: int
) -> tuple[int, int, int]:
    """Random inputs of random networks through all executions, and through the reader of what users give.

    Args:
        draw: cases for a number, the same on every run.
        numbers: what to draw.
        samples: inputs for each network, at most.

    Returns:
        Networks, inputs that ran, and inputs that were rightly refused.
    """
    networks = ran = refused = 0
    for number in numbers:
        for place, case in enumerate(draw(number)):
            rng = np.random.default_rng([number, place])
            try:
                ran += _compare(case, samples, rng)
                refused += _misuse(case, rng)
            except BaseException as error:
                error.add_note(f"network {place} of draw {number}")
                raise
            networks += 1
    return networks, ran, refused


def _compare(case: Case, samples: int, rng: np.random.Generator) -> int:
    """Runs inputs around the one that met the thresholds: its samples with some places changed."""
    graph = case.graph
    samples = max(1, min(samples, 2**25 // (1 + work_of(graph)[0] * case.steps)))  # more where they cost less
    chosen = rng.integers(0, case.levels.shape[1], samples)
    levels = case.levels[:, chosen].copy()
    rate = rng.choice([0.0, 0.01, 0.1, 0.5, 1.0], (1, samples, 1, 1, 1))
    changed = rng.random(levels.shape) < rate
    levels[changed] = rng.integers(0, graph.input.top + 1, int(changed.sum()))
    agree(graph, levels, case.steps, threads=2 if rng.random() < 0.1 else 1)
    agree_otherwise(replace(case, levels=levels[:, :2]))
    return samples


def _misuse(case: Case, rng: np.random.Generator) -> int:
    """Inputs that are none: too high levels, wrong shapes and types, NaN. Returns how many were refused."""
    graph, refused = case.graph, 0
    x = case.levels.reshape(*case.levels.shape[:2], *graph.input.features)
    high = x.copy()
    most = int(np.iinfo(graph.input.dtype).max)
    high.reshape(-1)[rng.integers(0, high.size)] = rng.integers(min(graph.input.top + 1, most), most + 1)
    wrong = [high, x / 7.0, x - 1.0, x * np.nan, x + np.inf, x[..., None], x[..., :0], x.astype(object)]
    for given in wrong:
        try:
            levels, steps = read(replace(graph, steps=case.steps), given)
            agree(graph, levels, steps)
        except (ValueError, TypeError):
            refused += 1
    return refused
