"""Networks written as Verilog: simulated beside the interpreter, looked at by a linter, synthesized."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mfp_neurons import zoo
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import (
    CurrentPool,
    Feedback,
    Graph,
    Input,
    Synapse,
    Window,
)
from mfp_neurons.deploy.inputs import read
from mfp_neurons.deploy.verilog.layers import signed_powers
from mfp_neurons.train.engine import batches
from mfp_neurons.zoo.evaluation import load_test
from tests.deploy.graphs import Case, dense, fires, readout, vectors
from tests.deploy.toolchain import tool

from .bench import checks, icarus, lint, synthesize, verilator, write_bench
from .chains import chains, cycles


def simulate(case: Case, lanes: int, simulator, *, throttle: bool, limit: int = 2_000_000_000) -> None:
    """Fails where one number of a layer or a score differs from the interpreter's; ``limit`` is of cycles."""
    with TemporaryDirectory() as folder:
        write_bench(case, Path(folder), lanes, throttle=throttle, limit=limit)
        said = simulator(Path(folder))
    assert re.search(rf"^PASS {checks(case)} checks", said, re.M), said[-1000:]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(chains(), st.sampled_from([1, 2, 3, 4, 8, 64]), st.booleans())
def test_every_spike_and_score_of_random_networks_is_the_interpreters(case, lanes, throttle):
    tool("iverilog")
    check(case.graph)
    assume(cycles(case, lanes) < 10_000)
    simulate(case, lanes, icarus, throttle=throttle)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(chains(), st.sampled_from([1, 4, 64]))
def test_the_linter_has_nothing_to_say(case, lanes):
    tool("verilator")
    with TemporaryDirectory() as folder:
        IntegerNetwork(case.graph).to_verilog(folder, name="net", lanes=lanes)
        lint(Path(folder))


def test_the_parts_are_not_changed_by_what_is_in_a_network(tmp_path):
    for name, codes in (("one", [[1, -1]]), ("two", [[3, -4], [1, 0]])):
        graph = vectors(2, readout(dense(0, codes, 1 if name == "one" else 3)), steps=2)
        files = IntegerNetwork(graph).to_verilog(tmp_path / name, name=name)
        assert [file.name for file in files[:2]] == [f"{name}.v", "mfp_primitives.v"]
        assert all(file.exists() for file in files)
    assert (tmp_path / "one" / "mfp_primitives.v").read_text() == files[1].read_text()


def digits(images: int) -> Case:
    """The zoo's network of digits row by row, with the first of its 364 test images."""
    trained = zoo.load("digits-rows")
    data = load_test(trained)
    samples, _ = next(batches(data.test, images))
    levels, steps = read(trained.network.graph, data.integer_input(samples))
    assert levels.shape[1] == images
    return Case(trained.network.graph, levels, steps)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [16, 64])
def test_every_test_image_of_digits_is_answered_as_in_integers(lanes):
    tool("verilator")
    simulate(digits(364), lanes, verilator, throttle=False)


def test_some_test_images_of_digits_are_answered_as_in_integers():
    tool("verilator")
    simulate(digits(5), 64, verilator, throttle=True)


def hidden(**fields):
    return replace(fires(dense(0, np.ones((3, 4))), [2, 1], [1, 2, 3], name="features.0"), **fields)


def with_hidden(**fields) -> Graph:
    return vectors(4, hidden(**fields), readout(dense(1, np.ones((2, 3)))), steps=4)


@pytest.mark.parametrize(
    "arguments",
    [dict(name="1net"), dict(name="net.v"), dict(name="mfp_neurons"), dict(lanes=0), dict(lanes=2.5)],
)
def test_names_and_lanes_that_cannot_be_used_are_refused(arguments, tmp_path):
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        IntegerNetwork(with_hidden()).to_verilog(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def windows(bits: float) -> Synapse:
    """2 x 3 x 3 numbers of windows of 3 x 3 over a map of 1 x 5 x 5."""
    return Synapse(0, np.ones((2, 1, 3, 3), np.int8), bits, Window((3, 3)), (2, 3, 3))


# by hand: outputs times taps times words of inputs, or planes of codes
CYCLES = {
    "one bit": (dense(0, np.ones((10, 32))), (32, 1, 1), 1, 8, 10 * 3 * 4),
    "three values": (dense(0, np.ones((10, 32)), 1.58), (32, 1, 1), 1, 8, 10 * 3 * 4),
    "four bits": (dense(0, np.ones((10, 32)), 4), (32, 1, 1), 1, 8, 10 * 3 * 4 * 4),
    "levels": (dense(0, np.ones((10, 32))), (32, 1, 1), 15, 8, 10 * 3 * 16),
    "windows": (windows(1), (1, 5, 5), 1, 8, 18 * 3 * 9),
    "bits of a code one after the other": (windows(4), (1, 5, 5), 15, 8, 18 * 3 * 9 * 4),
    "all bits of a code": (windows(4), (1, 5, 5), 15, 16, 18 * 3 * 9),
    "pooled windows": (
        replace(windows(1), pool=CurrentPool("max", Window((2, 2)), (2, 2, 2))),
        *((1, 5, 5), 1, 8, 8 * 3 * 9 * 4),
    ),
}


@pytest.mark.parametrize("name", CYCLES)
def test_the_head_says_how_many_cycles_a_step_takes(name, tmp_path):
    synapse, shape, top, lanes, cycles = CYCLES[name]
    taps = np.array([4, 2, 1]).reshape(1, 3, 1)
    scores = replace(readout(synapse, taps=taps), features=synapse.out_shape)
    graph = Graph(Input(shape, shape, top), (scores,), 4)
    check(graph)
    head, *_ = IntegerNetwork(graph).to_verilog(tmp_path, lanes=lanes)
    assert f"{cycles:,} cycles a step" in re.sub(r"\s+//\s+", " ", head.read_text())


@given(st.integers(-(2**70), 2**70))
def test_signed_powers_add_up_and_are_few(number):
    powers = signed_powers(number)
    assert sum(sign * 2**exponent for exponent, sign in powers) == number
    exponents = [exponent for exponent, _ in powers]
    assert all(b - a >= 2 for a, b in pairwise(exponents))


def test_yosys_finds_neither_a_latch_nor_a_multiplier_and_uses_block_ram(tmp_path):
    """A padded convolution, pooled; own spikes in all ways; taps of several powers of two; a factor."""
    rng = np.random.default_rng(0)

    def codes(*size, bits=3):
        high = 1 if bits < 2 else 2 ** (bits - 1) - 1
        drawn = rng.integers(-high, high + 1, size)
        return np.where(drawn < 0, -1, 1) if bits == 1 else drawn

    def convolution(source, codes, bits, shape, **fields):
        window = Window(codes.shape[2:], padding=(1, 1), stride=(2, 1))
        return Synapse(source, codes.astype(np.int8), bits, window, shape, **fields)

    shape = (6, 2, 5)
    pool = CurrentPool("max", Window((2, 2), (2, 1)), shape)
    first = fires(convolution(0, codes(6, 1, 3, 3), 3, (6, 5, 6), pool=pool), [8, 5, -3], codes(3, 6))
    first = replace(first, shape=shape, feedback=Feedback("age"))
    second = fires(convolution(1, codes(6, 1, 3, 3, bits=1), 1, (6, 1, 5), groups=6), [4, 2, 1], codes(6))
    second = replace(second, shape=(6, 1, 5), feedback=Feedback("sum", np.array([[5], [-3]])))
    linear = replace(dense(2, codes(8, 30, bits=1)), codes=codes(8, 6, 1, 5, bits=1).astype(np.int8))
    third = fires(replace(linear, window=Window((1, 5))), [2, 1], codes(8, 8).T)
    own = dense(3, codes(8, 8, bits=1.58), 1.58)
    third = replace(third, recurrent=(own,), feedback=Feedback("table", np.array([[1], [2], [4]])))
    scores = readout(dense(3, codes(5, 8, bits=1.58), 1.58, factor=rng.integers(1, 1000, 5)))
    graph = Graph(Input((1, 9, 6), (9, 6), 255), (first, second, third, scores), 4)
    check(graph)
    synthesize(graph, tmp_path, 32, rams=1)
