"""The compiled runtime for each instruction set: the same numbers, and who chooses."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import Graph, Input, Synapse, Window
from mfp_neurons.deploy.host import structs
from mfp_neurons.deploy.host.compiled import Compiled
from tests.deploy import emulated
from tests.deploy.agreement import run_agrees, stream_agrees
from tests.deploy.graphs import Case, cases, examples, fires, readout


@given(case=cases(), instructions=st.sampled_from(list(structs.libraries())), threads=st.sampled_from([1, 3]))
def test_every_instruction_set_gives_the_numbers_of_the_interpreter(
    case: Case, instructions: str, threads: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(structs.INSTRUCTIONS, instructions)
        run_agrees(case, threads)
        stream_agrees(case, threads)


@st.composite
def wide_layers(draw: st.DrawFn) -> Case:
    """Two convolutions of sizes that leave a rest of words, of vectors, of rows or of bytes."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    levels, steps, samples = (
        draw(st.sampled_from([1, 3, 200, 255])),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 3)),
    )
    sizes = st.sampled_from([1, 2, 3, 5, 16, 17, 63, 64, 65, 130])
    into, hidden, out = draw(sizes), draw(sizes), draw(sizes)
    bits = [draw(st.sampled_from([1, 1.58, 2, 8])) for _ in range(2)]
    height, width = draw(st.integers(3, 6)), draw(st.integers(3, 6))
    ops, shape = [], (into, height, width)
    for source, (of, channels, bit) in enumerate([(into, hidden, bits[0]), (hidden, out, bits[1])]):
        dilation, padding, stride = (draw(st.integers(*ends)) for ends in ((1, 2), (0, 2), (1, 2)))
        window = Window((3, 2), (stride, stride), (padding, padding), (dilation, dilation))
        places = [
            n + 2 * padding - (size - 1) * dilation - 1
            for n, size in zip(shape[1:], window.size, strict=True)
        ]
        if min(places) < 0:
            window, places = Window((1, 1), (stride, stride)), [n - 1 for n in shape[1:]]
        shape = (channels, *(n // stride + 1 for n in places))
        codes = drawn_codes(rng, (channels, of, *window.size), bit)
        bound = np.abs(codes.astype(np.int64)).sum((1, 2, 3)) * (levels if source == 0 else 1)
        taps = 2 ** np.arange(draw(st.integers(1, 4)))[::-1]
        ops.append(fires(Synapse(source, codes, bit, window, shape), taps, bound * taps.sum() // 16 + 1))
    read = Synapse(2, drawn_codes(rng, (3, *shape), 1), 1, Window(shape[1:]), (3, 1, 1))
    graph = Graph(
        Input((into, height, width), (into, height, width), levels),
        (*ops, readout(read, reduce="none")),
        steps,
    )
    images = rng.integers(0, levels + 1, (steps, samples, *graph.input.shape)).astype(graph.input.dtype)
    return Case(graph, images, steps)


def drawn_codes(rng: np.random.Generator, size: tuple[int, ...], bits: float) -> np.ndarray:
    if bits == 1:
        return rng.choice(np.array([-1, 1], np.int8), size)
    if bits == 1.58:
        return rng.integers(-1, 2, size).astype(np.int8)
    return rng.integers(-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1), size).astype(np.int8)


@given(case=wide_layers(), threads=st.sampled_from([1, 2]))
def test_rests_of_words_vectors_rows_and_bytes_are_counted_too(case: Case, threads: int) -> None:
    for instructions in structs.libraries():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(structs.INSTRUCTIONS, instructions)
            run_agrees(case, threads)


def long_rows(rows: int) -> Case:
    """As many ones as a layer can count in so many words."""
    codes = np.ones((70, 64 * rows, 1, 1), np.int8)
    read = Synapse(0, codes, 1, Window(), (70, 1, 1))
    graph = Graph(Input((64 * rows, 1, 1), (64 * rows,), 1), (readout(read, reduce="none"),), 3)
    return Case(graph, np.ones((3, 1, 64 * rows, 1, 1), np.uint8), 3)


@pytest.mark.parametrize("rows", [31, 123, 124, 125, 500])
def test_counts_of_long_rows_of_ones_do_not_overflow(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = long_rows(rows)
    for instructions in structs.libraries():
        monkeypatch.setenv(structs.INSTRUCTIONS, instructions)
        assert (Compiled(case.graph).run(case.levels, 3)[0] == 64 * rows).all()


def test_the_best_instruction_set_is_taken_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(structs.INSTRUCTIONS, raising=False)
    names = list(structs.libraries())
    assert structs.library().instructions == names[0]
    assert names[-1] == "baseline"
    for name in names:
        monkeypatch.setenv(structs.INSTRUCTIONS, name)
        assert structs.library().instructions == name


@pytest.mark.parametrize("name", ["sse9", "neon" if "neon" not in structs.libraries() else "avx2"])
def test_what_cannot_run_here_is_refused_with_the_names_that_can(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(structs.INSTRUCTIONS, name)
    words = f"MFP_NEURONS_INSTRUCTIONS is '{name}', .* with {', '.join(structs.libraries())} alone"
    with pytest.raises(ValueError, match=words):
        Compiled(examples(1, 0)[0].graph)


@pytest.mark.parametrize("instructions", ["neon", "baseline"])
def test_an_emulated_arm_processor_gives_the_same(
    instructions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [*examples(60, 7), long_rows(31), long_rows(125)]
    expected = [
        np.concatenate(
            [head.ravel() for head in interpret.run(c.graph, c.levels.astype(np.int64), c.steps)[0]]
        )
        for c in chosen
    ]
    images = [emulated.image(case, 1 + i % 2, monkeypatch) for i, case in enumerate(chosen)]
    found = emulated.scores(images, [len(one) for one in expected], instructions, tmp_path)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
