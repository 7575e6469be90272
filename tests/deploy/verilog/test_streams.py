"""Networks whose streams branch, in Verilog: every number of every stream is the interpreter's."""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import (
    Concat,
    Gather,
    Graph,
    Input,
    MatMul,
    Ones,
    Op,
    Pool,
    Product,
    Sum,
    TimePool,
    Window,
)
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.deploy.verilog import generate
from mfp_neurons.deploy.verilog.streams import ways
from tests.deploy.graphs import Case, cases, dense, fires, readout, vectors
from tests.deploy.lowering import Do, Each, events, neuron, norm, prepared
from tests.deploy.toolchain import tool

from .bench import icarus, lint, synthesize, verilator, write_bench
from .test_verilog import simulate

LIMIT = 3_000_000
LANES = 8


def simulated(case: Case) -> bool:
    """Whether a simulation takes no more than seconds."""
    cycles = sum(part.cycles for part in generate.Network(case.graph, "net", LANES).parts.values())
    return cycles * case.steps * case.levels.shape[1] < 100_000


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases().filter(simulated), st.booleans())
def test_every_number_of_random_networks_is_the_interpreters(case, throttle):
    """Over all that an integer network can be."""
    tool("iverilog")
    simulate(case, LANES, icarus, throttle=throttle, limit=LIMIT)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases().filter(simulated))
def test_the_linter_has_nothing_to_say_of_branches(case):
    tool("verilator")
    with TemporaryDirectory() as folder:
        IntegerNetwork(case.graph).to_verilog(folder, name="net", lanes=LANES)
        lint(Path(folder))


# what waits where


def layer(source: int, inputs: int = 4, outputs: int = 4):
    codes = np.random.default_rng(source).choice([-1, 1], (outputs, inputs))
    return fires(dense(source, codes), [2, 1], np.zeros(outputs, np.int64), name=f"layer{source}")


def scores(source: int, inputs: int = 4):
    return readout(dense(source, np.ones((2, inputs), np.int8)))


def added(*sources: int, top: int = 2) -> Sum:
    return Sum("sum", sources, (1,) * len(sources), (4, 1, 1), top)


SMOOTH = Pool("pool", 0, "sum", Window((1, 3), padding=(0, 1)), (1, 1, 4), 3)
LINE = Input((1, 1, 4), (4,), 1)
SKIPPED = vectors(4, layer(0), layer(1), added(0, 2), scores(3), steps=6)
SMOOTHED = Graph(
    LINE,
    (
        SMOOTH,
        Sum("sum", (0, 1), (1, 1), (1, 1, 4), 4),
        Gather("flat", 2, np.arange(4), (4, 1, 1), 4),
        scores(3),
    ),
    3,
)
# by hand: (the map, its reader): how many steps can wait on that way
WAITING = {
    "a chain": (vectors(4, layer(0), layer(1), scores(2), steps=6), {}),
    "two heads": (vectors(4, layer(0), scores(1), scores(0), steps=6), {}),
    "a connection around two layers": (SKIPPED, {(0, 3): 2}),
    "layers of one length": (vectors(4, layer(0), layer(0), added(1, 2), scores(3), steps=6), {}),
    "a layer that is read twice": (
        vectors(4, layer(0), layer(1), added(1, 2), added(1, 3, top=3), scores(4), steps=6),
        {(1, 3): 1, (1, 4): 1, (3, 4): 1},
    ),
    "a pool": (SMOOTHED, {(0, 2): 1, (1, 2): 1}),
}


@pytest.mark.parametrize("name", WAITING)
def test_numbers_wait_where_branches_of_unequal_length_meet(name):
    graph, expected = WAITING[name]
    check(graph)
    assert {(way.source, way.reader): way.steps for way in ways(graph) if way.steps} == expected


def levels(graph: Graph) -> Case:
    shape = (graph.steps, 2, *graph.input.shape)
    drawn = np.random.default_rng(0).integers(0, graph.input.top + 1, shape)
    return Case(graph, drawn.astype(np.uint8), graph.steps)


@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize("throttle", [False, True])
def test_what_waits_is_enough(name, throttle):
    tool("iverilog")
    simulate(levels(WAITING[name][0]), 2, icarus, throttle=throttle, limit=100_000)


def test_without_queues_a_network_would_stand_still(tmp_path, monkeypatch):
    tool("iverilog")
    monkeypatch.setattr(generate, "ways", lambda graph: [replace(way, steps=0) for way in ways(graph)])
    write_bench(levels(SMOOTHED), tmp_path, 2, throttle=False, limit=5_000)
    assert "FAIL: no end" in icarus(tmp_path)


def test_parts_on_all_branches_work_at_the_same_time(tmp_path):
    """A step takes as long as the slowest part, but for the first ones."""
    tool("iverilog")
    steps = 40
    graph = vectors(
        16,
        layer(0, 16, 16),
        layer(1, 16, 16),
        Sum("sum", (0, 2), (1, 1), (16, 1, 1), 2),
        scores(3, 16),
        steps=steps,
    )
    case = levels(graph)
    write_bench(case, tmp_path, 4, throttle=False)
    cycles = int(re.search(r"(\d+) cycles", icarus(tmp_path)).group(1))
    slowest = int(
        re.search(r"slowest of them takes about\s+(?://\s+)?([\d,]+)", (tmp_path / "net.v").read_text())
        .group(1)
        .replace(",", "")
    )
    assert cycles / case.levels.shape[1] < (steps + 5) * (slowest + 10)


# what is synthesized


def everything() -> Graph:
    """All parts that are no layers."""
    image = (4, 6, 6)
    ops: list[Op] = [
        Pool("largest", 0, "max", Window((3, 3), (1, 1), (1, 1)), image, 1),
        Sum("sum", (0, 1), (1, 2), image, 3),
        Concat("concat", (1, 2), (1, 1), (8, 6, 6), 3),
        Pool("count", 3, "sum", Window((2, 2), (2, 2)), (8, 3, 3), 12),
        TimePool("time", 4, 2, (8, 3, 3), 12),
        Ones("ones", 5, (8, 3, 3)),
        Product("product", (5, 5), (8, 3, 3), 144),
        Sum("one more", (7, 6), (1, 1), (8, 3, 3), 145),
        Gather("gather", 8, np.arange(72)[::-1].copy(), (8, 3, 3), 145),
        MatMul("matmul", (9, 5), (8, 3, 3), 5220),
        readout(
            replace(dense(10, np.ones((3, 8))), codes=np.ones((3, 8, 3, 3), np.int8), window=Window((3, 3)))
        ),
    ]
    return Graph(Input(image, image, 1), tuple(ops), 2)


def test_yosys_finds_neither_a_latch_nor_a_multiplier_and_block_ram_in_all_parts(tmp_path):
    graph = everything()
    check(graph)
    synthesize(graph, tmp_path, 16, rams=8)


def test_all_parts_at_once_are_the_interpreters():
    tool("iverilog")
    simulate(levels(everything()), 16, icarus, throttle=False, limit=LIMIT)


def residual_network() -> nn.Module:
    """Convolutions with batch norms, a connection around one of them, channels put together, both pools."""

    def forward(x, first, pool, second, third, last):
        x = pool(first(x))
        x = x + second(x)
        return last(torch.cat([third(x), x[:, :, :2]], 2)).mean(0)

    def spiking(inputs: int, outputs: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(Each(convolution, norm(nn.BatchNorm2d, outputs)), neuron(1.0))

    torch.manual_seed(0)
    read_out = Each(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6 * 4, 10))
    layers = spiking(1, 4), Each(nn.MaxPool2d(2)), spiking(4, 4), spiking(4, 4), read_out
    return prepared(Do(forward, *layers), 3).eval()


def test_a_residual_convolutional_network_is_the_interpreters():
    tool("verilator")
    graph = lower_graph(residual_network(), events(1, 8, 8))
    kinds = {type(op).__name__ for op in graph.ops}
    assert {"Neurons", "Pool", "Sum", "Gather", "Concat", "Scores"} == kinds
    simulate(levels(graph), 64, verilator, throttle=True, limit=LIMIT)
