"""Generated C on emulated Cortex-M boards: a network of the zoo on every test image, and random networks."""

import re
import tempfile
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from mfp_neurons import zoo
from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.zoo.catalog import Trained
from mfp_neurons.zoo.evaluation import load_test
from tests.deploy.cortex import M0, M0_CODE_ON_M4, M4, TARGET, footprint, score
from tests.deploy.graphs import Case, cases, dense, fires, readout, vectors
from tests.deploy.native import expected, stream_of
from tests.deploy.test_codegen import corner
from tests.deploy.test_codegen_maps import heads, network, recurrent, shifted
from tests.deploy.test_feedback import fed_back
from tests.deploy.toolchain import STRICT, run, tool

# of the compiler's own library: products, quotients and shifts of whole numbers; loops that copy or clear
HELPERS = {
    "__aeabi_lasr",
    "__aeabi_llsl",
    "__aeabi_llsr",
    "__aeabi_lmul",
    "__aeabi_uidiv",
    "__aeabi_uidivmod",
    "memset",
    "memcpy",
    "memmove",
}


@pytest.fixture(scope="module")
def digits() -> Trained:
    tool("arm-none-eabi-gcc"), tool("qemu-system-arm")
    return zoo.load("digits-rows")


@pytest.mark.parametrize("machine", [M4, M0], ids=lambda machine: machine.cpu)
def test_every_test_image_of_the_digits_scores_on_the_board_what_run_says(machine, digits, tmp_path):
    graph, data = digits.network.graph, load_test(digits)
    sequence = data.sequence(data.test.samples)
    levels = sequence.mul(graph.input.top).round().byte().numpy()
    levels = levels.reshape(*levels.shape[:2], *graph.input.shape)
    (scores,), _ = interpret.run(graph, levels.astype(np.int64), graph.steps)
    found = score(machine, graph, np.moveaxis(levels, 1, 0), tmp_path)
    every = np.moveaxis(scores, 1, 0).reshape(len(levels[0]), graph.steps, -1)
    last = graph.scores.last or graph.steps
    np.testing.assert_array_equal(found.run, every[:, -last:].sum(axis=1))
    np.testing.assert_array_equal(found.step, every)
    answers = digits.network.run(sequence)
    np.testing.assert_array_equal(found.run * graph.scores.unit / last, answers)


@pytest.mark.parametrize("machine", [M4, M0_CODE_ON_M4], ids=lambda machine: machine.cpu)
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_random_networks_score_on_the_board_what_the_interpreter_says(machine, case):
    assume(case.steps <= 8)  # every number is printed
    stream = stream_of(case)[: case.steps]
    right = expected(case, stream)
    frames = 1 if case.graph.input.static else case.steps
    samples = np.moveaxis(np.broadcast_to(case.levels, (frames, *case.levels.shape[1:])), 1, 0)
    with tempfile.TemporaryDirectory() as folder:
        found = score(machine, case.graph, samples, Path(folder))
    np.testing.assert_array_equal(found.run, right.run)
    np.testing.assert_array_equal(found.step, right.step[:, right.scored[0] == 1])


@pytest.mark.parametrize("machine", [M4, M0], ids=lambda machine: machine.cpu)
def test_own_spikes_of_every_kind_count_on_the_board_as_in_the_interpreter(machine, tmp_path):
    case = fed_back()
    right = expected(case, case.levels)
    found = score(machine, case.graph, np.moveaxis(case.levels, 1, 0), tmp_path)
    np.testing.assert_array_equal(found.run, right.run)
    np.testing.assert_array_equal(found.step, right.step)
    assert len(np.unique(found.step)) > 5


@pytest.mark.parametrize("machine", [M4, M0], ids=lambda machine: machine.cpu)
def test_recurrent_layers_and_several_heads_count_on_the_board_as_in_the_interpreter(machine, tmp_path):
    layers = recurrent(2, "sum", period=2, static=False, steps=12, seed=1)
    several = heads(3, period=2, wide=True, static=False)
    for number, graph in enumerate([layers, several]):
        shape = (graph.steps, 3, *graph.input.shape)
        given = np.random.default_rng(number).integers(0, graph.input.top + 1, shape).astype(np.uint8)
        right = expected(Case(graph, given, graph.steps), given)
        folder = tmp_path / str(number)
        folder.mkdir()
        found = score(machine, graph, np.moveaxis(given, 1, 0), folder)
        np.testing.assert_array_equal(found.run, right.run)
        np.testing.assert_array_equal(found.step, right.step[:, right.scored[0] == 1])
        assert len(np.unique(found.step)) > 5


@pytest.mark.parametrize("machine", [M4, M0], ids=lambda machine: machine.cpu)
def test_currents_lose_their_lowest_bits_on_the_board_as_in_the_interpreter(machine, tmp_path):
    for shift, most in [(1, 2**24), (39, 2**62)]:
        op = shifted(2**31 - 1 if shift > 32 else 3, shift, most, top=255, shape=(3, 4, 5))
        graph = network((3, 4, 5), [op], steps=3, top=255)
        given = np.random.default_rng(shift).integers(0, 256, (3, 2, 3, 4, 5)).astype(np.uint8)
        right = expected(Case(graph, given, 3), given)
        folder = tmp_path / str(shift)
        folder.mkdir()
        found = score(machine, graph, np.moveaxis(given, 1, 0), folder)
        np.testing.assert_array_equal(found.run, right.run)
        np.testing.assert_array_equal(found.step, right.step)


@pytest.mark.parametrize("stream", [False, True], ids=["run", "step"])
def test_the_linker_finds_the_memory_that_the_header_states(stream, digits, tmp_path):
    found = footprint(M4, digits.network.graph, tmp_path, stream=stream)
    said = dict(re.findall(r"#define NET_(\w+) (\d+)", (tmp_path / "net.h").read_text()))
    size = {name: int(number) for name, number in said.items()}
    header = (tmp_path / "net.h").read_text()
    buffers, of_stream = (int(number) for number in re.findall(r"It takes (\d+) bytes", header))
    if stream:
        static = of_stream + size["STEP_INPUT_BYTES"] + 8 * size["CLASSES"]
    else:
        static = buffers + size["INPUT_BYTES"] + 8 * size["SCORES"]
    assert static <= found.ram < static + 32  # alignment
    assert size["WEIGHT_BYTES"] + size["PARAMETER_BYTES"] < found.flash


def test_a_program_has_only_the_primitives_that_its_network_calls(tmp_path):
    graph = vectors(2, fires(dense(0, [[1, -1]]), [1], [1]), readout(dense(1, [[1]])), steps=4)
    footprint(M4, graph, tmp_path, stream=True)
    names = run([tool("arm-none-eabi-nm"), "program.elf"], tmp_path).decode()
    linked = set(re.findall(r" T mfp_(\w+)", names))
    assert linked == {"above", "pack", "fire", "score", "clear", "largest"}


@pytest.mark.parametrize("machine", [M4, M0], ids=lambda machine: machine.cpu)
def test_the_c_needs_no_library_no_floating_point_and_no_recursion(machine, tmp_path):
    write_c(corner(matrix=False, bits=62).graph, tmp_path, name="net")
    flags = [*TARGET, f"-mcpu={machine.cpu}", *STRICT, "-Os", "-fcallgraph-info=su"]
    run([tool("arm-none-eabi-gcc"), *flags, "-c", "net.c", "mfp_int.c"], tmp_path)
    names = run([tool("arm-none-eabi-nm"), "net.o", "mfp_int.o"], tmp_path).decode()
    missing = set(re.findall(r"^ +U (\w+)", names, re.MULTILINE))
    defined = set(re.findall(r"^[0-9a-f]+ T (\w+)", names, re.MULTILINE))
    assert missing - defined <= HELPERS
    graph = "".join((tmp_path / file).read_text() for file in ("net.ci", "mfp_int.ci"))
    calls: dict[str, set[str]] = {}
    for caller, called in re.findall(r'edge: { sourcename: "([^"]+)" targetname: "([^"]+)"', graph):
        calls.setdefault(caller, set()).add(called)
    assert {"mfp_fire", "mfp_pool", "mfp_score"} <= calls["net_run"]  # or there would be nothing to see
    TopologicalSorter(calls).prepare()  # refuses circles
    assert "dynamic" not in graph  # stack
