"""Currents, moved numbers, products, recurrent synapses and several heads in the generated C, up close."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.deploy.graph import (
    Currents,
    Feedback,
    Gather,
    Graph,
    Input,
    Ints,
    MatMul,
    Neurons,
    Ones,
    Op,
    Product,
    Scores,
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
    current_bound,
)
from mfp_neurons.deploy.memory import memory
from tests.deploy.graphs import Case, dense, fires, readout, vectors
from tests.deploy.native import SANITIZED, expected, score, stream_of


def agree(*networks: Case) -> None:
    """Run and stream give the interpreter's scores; what sanitizers find fails. All in one program."""
    streams = [stream_of(case) for case in networks]
    with tempfile.TemporaryDirectory() as folder:
        found = score(networks, streams, Path(folder), "gcc", *SANITIZED["gcc"])
    for number, (case, stream, mine) in enumerate(zip(networks, streams, found, strict=True)):
        right = expected(case, stream)
        for name in vars(right):
            message = f"{name} of network {number}"
            np.testing.assert_array_equal(getattr(mine, name), getattr(right, name), err_msg=message)


def levels(shape: Shape, steps: int, *, top: int = 1, samples: int = 2, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, top + 1, (steps, samples, *shape)).astype(np.uint8)


def every_number(index: int, shape: Shape) -> Scores:
    """Scores that are the numbers of a map, at every step."""
    identity = replace(dense(index, np.eye(shape[0]), 1.58), shape=shape)
    return replace(readout(identity, reduce="none"), shape=shape, features=shape)


def network(shape: Shape, ops: list[Op], *, steps: int = 4, top: int = 1, static: bool = False) -> Graph:
    """Maps made of an input, the last of them written as scores."""
    return Graph(Input(shape, shape, top, static), (*ops, every_number(len(ops), ops[-1].shape)), steps)


def signed(index: int, shape: Shape, source: Shape, top: int, seed: int, factor: int = 1) -> Currents:
    """A convolution of 3 x 3 in offset form, whose zero is the middle of its numbers."""
    random = np.random.default_rng(seed)
    codes = random.integers(-8, 8, (shape[0], source[0], 3, 3)).astype(np.int8)
    factors = np.full(shape[0], factor) if factor != 1 else None
    synapse = Synapse(index, codes, 4, Window((3, 3), padding=(1, 1)), shape, factor=factors)
    bound = max(factor * int(np.abs(codes).sum(axis=(1, 2, 3)).max()) * top, 1)
    return Currents("conv", (synapse,), np.full(shape[0], bound), shape, 2 * bound, bound)


@pytest.mark.parametrize("factor", [1, 20_000])  # numbers of 10 bits and of 24
@pytest.mark.parametrize("static", [False, True])
def test_currents_are_read_by_synapses_and_neurons_as_numbers(factor, static):
    shape, wide = (3, 4, 5), (33 if factor == 1 else 4, 4, 5)
    first = signed(0, wide, shape, 3, 1, factor)
    ones = Ones("ones", 1, wide)
    codes = np.random.default_rng(2).choice([-1, 1], (2, wide[0], 3, 3)).astype(np.int8)
    window, out = Window((3, 3), padding=(1, 1)), (2, 4, 5)
    zero = np.full(2, -first.zero)
    second = (Synapse(1, codes, 1, window, out), Synapse(2, codes, 1, window, out, factor=zero))
    taps = np.array([4, 2, 1]).reshape(1, 3, 1)
    floats = np.zeros(2)
    neurons = Neurons("sn", second, taps, np.zeros((1, 2), np.int64), out, floats, floats)
    graph = Graph(Input(shape, shape, 3, static), (first, ones, neurons, every_number(3, out)), 5)
    assert first.top.bit_length() == (10 if factor == 1 else 24)
    given = levels(shape, 1 if static else 5, top=3)
    alone = network(shape, [first], steps=5, top=3, static=static)
    agree(Case(graph, given, 5), Case(alone, given, 5))


def shifted(factor: int, shift: int, most: int, top: int, shape: Shape) -> Currents:
    """Currents without their lowest bits, whose sums before that are 0 at least and ``most`` at most."""
    first = signed(0, shape, shape, top, 3, factor)
    synapse = replace(first.synapses[0], factor=np.array([factor, -factor, factor - 1]))
    bound = first.zero
    offset = np.array([bound, (bound + most) // 2, most - bound])
    zero = bound >> shift
    return replace(first, synapses=(synapse,), offset=offset, top=most >> shift, zero=zero, shift=shift)


@pytest.mark.parametrize("static", [False, True])
def test_currents_lose_their_lowest_bits_only_after_all_is_added(static):
    shape, top = (3, 4, 5), 255
    chosen = [(2, 0, 2**22), (3, 1, 2**24), (100, 13, 2**31 - 1), (9_000, 9, 2**32), (9_000, 17, 2**40)]
    chosen += [(2**31 - 1, 37, 2**60 - 1), (2**31 - 1, 39, 2**62)]
    maps = [shifted(factor, shift, most, top, shape) for factor, shift, most in chosen]
    graphs = [network(shape, [op], top=top, static=static) for op in maps]
    for graph in graphs:
        check(graph)
    wide = {max(current_bound(graph, op.synapses)) >= 2**31 for graph, op in zip(graphs, maps, strict=True)}
    assert wide == {False, True}
    given = levels(shape, 1 if static else 4, top=top)
    agree(*(Case(graph, given, 4) for graph in graphs))


def gathered(seed: int) -> Case:
    """Numbers of one shape at places of another."""
    rng = np.random.default_rng(seed)
    source, shape = (
        (int(rng.choice(channels)), *rng.integers(1, 5, 2).tolist())
        for channels in ([1, 3, 33], [1, 2, 32, 65])
    )
    top, fill = int(rng.choice([1, 6, 255])), int(rng.choice([0, 1, 9, 300]))
    places, static = rng.integers(-1, np.prod(source), np.prod(shape)), seed % 3 == 0
    graph = network(source, [Gather("moved", 0, places, shape, max(top, fill), fill)], top=top, static=static)
    return Case(graph, levels(source, 1 if static else 4, top=top, seed=seed), 4)


def test_numbers_go_to_any_place_in_any_order():
    agree(*map(gathered, range(16)))


def test_places_of_several_maps_stand_once_in_memory_and_in_the_tables():
    shape = (3, 4, 5)
    places = np.random.default_rng(0).permutation(60)
    moves = [Gather(f"moved {i}", i, places, shape, 1) for i in range(3)]
    turned = Gather("turned", 3, places[::-1].copy(), shape, 1)
    graph = network(shape, [*moves, turned])
    agree(Case(graph, levels(shape, 4), 4))
    apart = network(shape, [moves[0]])
    # the turned places alone are new: 60 numbers below 64, of 6 bits each in a file, and a byte each in C
    assert memory(graph, 1, 4).parameters - memory(apart, 1, 4).parameters == 60 * 6 // 8
    stated = []
    for written, tables in ((graph, 2), (apart, 1)):
        with tempfile.TemporaryDirectory() as folder:
            header, source, *_ = write_c(written, folder)
            assert len(re.findall(r"int8_t places\d+\[60\]", source.read_text())) == tables
            stated += map(int, re.findall(r"PARAMETER_BYTES (\d+)\n", header.read_text()))
    assert stated[0] - stated[1] == 60


def test_ones_are_one_everywhere_and_beyond_the_end_of_a_map_nothing_is():
    networks = []
    for shape in [(1, 1, 1), (32, 1, 1), (3, 4, 5), (65, 1, 2)]:
        # a sum over all places would count bits that are not of the map
        total = Synapse(1, np.ones((2, *shape), np.int8), 1, Window(shape[1:]), (2, 1, 1))
        graph = Graph(Input(shape, shape, 3), (Ones("ones", 0, shape), readout(total, reduce="none")), 3)
        networks.append(Case(graph, levels(shape, 3, top=3), 3))
    agree(*networks)


def test_products_are_those_of_whole_numbers():
    tops = [(1, 1), (1, 255), (255, 1), (5, 9), (255, 200)]
    agree(*(case for pair in tops for static in (False, True) for case in products(*pair, static)))


def products(top: int, weight: int, static: bool) -> tuple[Case, Case]:
    """Levels up to ``top`` times spikes that count ``weight``; levels times themselves."""
    shape = (5, 3, 3)
    # neurons at every step beside a map that is the same at all steps, where the input is static
    spikes = replace(fires(dense(0, np.eye(5), 1.58), [2, 1], np.full((1, 5), top)), shape=shape)
    spikes = replace(spikes, synapses=(replace(spikes.synapses[0], shape=shape),))
    several = Sum("several", (1,), (weight,), shape, weight)
    product = Product("masked", (0, 2), shape, top * weight)
    graph = network(shape, [spikes, several, product], top=top, static=static)
    squared = network(shape, [Product("squared", (0, 0), shape, top * top)], top=top, static=static)
    given = levels(shape, 1 if static else 4, top=top)
    return Case(graph, given, 4), Case(squared, given, 4)


def test_matrices_are_multiplied_channel_by_channel():
    sizes = [(1, 1, 1, 1), (2, 3, 4, 5), (8, 5, 33, 2), (3, 2, 64, 9), (1, 7, 31, 1)]
    agree(*(product(size, top) for size in sizes for top in (1, 2, 7)))


def product(sizes: tuple[int, int, int, int], top: int) -> Case:
    """The first part of the input times the rest, as matrices."""
    channels, height, depth, width = sizes
    count = height * depth + depth * width
    source, last = (channels, 1, count), height * depth
    everything = np.arange(channels * count).reshape(channels, count)
    left = Gather("q", 0, everything[:, :last].ravel(), (channels, height, depth), top)
    right = Gather("k", 0, everything[:, last:].ravel(), (channels, depth, width), top)
    product = MatMul("attention", (1, 2), (channels, height, width), top * top * depth)
    return Case(network(source, [left, right, product], top=top), levels(source, 4, top=top), 4)


def recurrent(order: int, kind: str, *, period: int, static: bool, steps: int, seed: int) -> Graph:
    """Two layers that read themselves, the second through a window; taps and own spikes as asked."""
    random = np.random.default_rng(seed)
    channels, shape = 9, (3, 3, 1)

    def signs(out: int, inner: int) -> Ints:
        return random.choice([-1, 1], (out, inner))

    ops: list[Op] = [TimePool("joined", 0, period, (6, 1, 1), 2)] if period > 1 else []
    own = len(ops) + 1
    taps = random.integers(1, 5, order)
    rows = random.integers(-3, 12, (order, channels))
    first = fires(dense(own - 1, signs(channels, 6)), taps, rows)
    feedback = {
        "none": None,
        "sum": Feedback("sum", random.integers(-9, 4, (3, channels)), 1),
        "table": Feedback("table", np.array([[2], [-1]])),
        "age": Feedback("age"),
    }[kind]
    rows = random.integers(-3, 12, (order * 4, channels)) if kind == "table" else first.thresholds
    first = replace(
        first,
        recurrent=(dense(own, signs(channels, channels), factor=random.integers(-3, 4, channels)),),
        feedback=feedback,
        thresholds=rows,
    )
    image = Gather("image", own, np.arange(9), shape, 1)
    codes = random.integers(-1, 2, (3, 3, 3, 1)).astype(np.int8)
    window = Window((3, 1), padding=(1, 0))
    seen = Synapse(own + 1, codes, 1.58, window, shape)
    second = fires(seen, taps[::-1], random.integers(-2, 4, (1, 3)), "second")
    second = replace(second, recurrent=(replace(seen, source=own + 2), replace(seen, source=own + 2)))
    scores = readout(Synapse(own + 2, codes, 1.58, window, shape), reduce="none")
    scores = replace(scores, shape=shape, features=shape)
    return Graph(Input((6, 1, 1), (6,), 2, static), (*ops, first, image, second, scores), steps)


KINDS = [(k, order) for k in ("none", "sum", "table", "age") for order in (1, 2, 4)]
KINDS.remove(("age", 1))  # an order of 1 forgets anyway


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_recurrent_synapses_read_the_spikes_of_the_step_before(order, kind):
    networks = []
    for period, static, steps in [(1, False, 7), (1, True, 3), (2, False, 12), (1, False, 1)]:
        graph = recurrent(order, kind, period=period, static=static, steps=steps, seed=order)
        given = levels((6, 1, 1), 1 if static else steps, top=2, samples=3)
        networks.append(Case(graph, given, steps))
        _, maps = interpret.run(graph, given.astype(np.int64), steps)
        assert steps < 7 or 0.05 < maps[-1].mean() < 0.95
    agree(*networks)


def test_recurrent_neurons_of_a_second_stream_have_forgotten_the_first():
    """The harness streams sample after sample; a layer that fires once it fired shows what was left."""
    latch = replace(fires(dense(0, [[1]]), [1], [1]), recurrent=(dense(1, [[1]]),))
    graph = vectors(1, latch, readout(dense(1, [[1]]), reduce="none"), steps=3)
    given = np.array([[1, 0], [0, 0], [0, 1]], np.uint8).reshape(3, 2, 1, 1, 1)
    agree(Case(graph, given, 3))
    assert interpret.run(graph, given.astype(np.int64), 3)[0][0].ravel().tolist() == [1, 0, 1, 0, 1, 1]


def heads(order: int, *, period: int, wide: bool, static: bool) -> Graph:
    """Six heads: every reduction, skipped steps, taps for each class and for all."""
    random = np.random.default_rng(order)
    ops: list[Op] = [TimePool("joined", 0, period, (5, 1, 1), 3)] if period > 1 else []
    fire = fires(dense(len(ops), random.choice([-1, 1], (7, 5))), [2, 1], np.full((1, 7), 2))
    own = len(ops) + 1
    scale = 2**30 if wide else 1

    def read(classes: int, *, taps: bool, columns: int = 1, **fields: Any) -> Scores:
        parts = (
            dense(
                own, random.integers(-8, 8, (classes, 7)), 4, factor=random.integers(-scale, scale, classes)
            ),
            dense(own - 1, random.choice([-1, 1], (classes, 5))),
        )
        head = readout(*parts, **fields)
        if not taps:
            return replace(head, offset=random.integers(-9, 9, (1, classes)))
        rows = random.integers(-4, 5, (2, order, columns))
        return replace(head, taps=rows, offset=random.integers(-99, 99, (order, classes)))

    named = [
        read(3, taps=True, reduce="none"),
        read(4, taps=False, reduce="max"),
        read(2, taps=True, columns=2, reduce="max", last=2),
        read(5, taps=False, reduce="none", skip=1),
        read(1, taps=True, reduce="mean", skip=1),
        read(2, taps=True, reduce="sum", last=1),
    ]
    return Graph(Input((5, 1, 1), (5,), 3, static), (*ops, fire, *named), 3 * period)


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("wide", [False, True])
def test_heads_are_written_one_behind_the_other_with_taps_maxima_and_skipped_steps(order, wide):
    networks = []
    for period, static in [(1, False), (2, False), (1, True)]:
        graph = heads(order, period=period, wide=wide, static=static)
        assert (max(current_bound(graph, graph.heads[0].synapses)) >= 2**31) == wide
        frames = 1 if static else graph.steps
        networks.append(Case(graph, levels((5, 1, 1), frames, top=3, samples=3), graph.steps))
    agree(*networks)


def test_the_header_says_where_each_head_begins(tmp_path):
    graph = replace(heads(2, period=1, wide=False, static=False), keys=tuple("abcdef"))
    write_c(graph, tmp_path, name="net")
    header = (tmp_path / "net.h").read_text()
    said = {name: int(n) for name, n in re.findall(r"#define NET_(\w+) (\d+)", header)}
    assert [said[f"HEAD{i}_CLASSES"] for i in range(6)] == [3, 4, 2, 5, 1, 2]
    assert [said[f"HEAD{i}_STEP"] for i in range(6)] == [0, 3, 7, 9, 14, 15]
    assert [said[f"HEAD{i}_RUN"] for i in range(6)] == [0, 9, 13, 15, 25, 26]
    assert (said["CLASSES"], said["SCORES"]) == (17, 28)
    assert "from NET_HEAD1_RUN on [NET_HEAD1_CLASSES], the largest of all steps" in header
    assert "from NET_HEAD3_RUN on [NET_STEPS - 1][NET_HEAD3_CLASSES]" in header
    assert "#define NET_HEAD1_CLASSES 4 /* b: readout */" in header
    assert "Of other heads mfp_largest of mfp_int.h says it" in header
