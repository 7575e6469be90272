"""The generated C on this machine: the interpreter's scores, no warnings, no errors that sanitizers see."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mfp_neurons.deploy import IntegerNetwork, interpret
from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.deploy.graph import (
    Graph,
    Input,
    Neurons,
    Pool,
    Synapse,
    TimePool,
    Window,
    potential_bound,
)
from tests.deploy.graphs import Case, cases, dense, fires, graphs, potentials, readout, vectors
from tests.deploy.native import SANITIZED, UNTOUCHED, check_scores, expected, score
from tests.deploy.toolchain import STRICT, run, tool

TOGETHER = 6  # networks in one program: the compiler's start is what costs
LARGE = [HealthCheck.data_too_large, HealthCheck.too_slow]  # several networks are
ARM = ("arm-none-eabi-gcc", "-mthumb", "-ffreestanding")
COMPILERS = [("gcc",), ("clang",), (*ARM, "-mcpu=cortex-m4"), (*ARM, "-mcpu=cortex-m0")]


CODES = [[1, -1], [-1, 1]]


def small(**scores: Any) -> Graph:
    """Two inputs, two classes."""
    return vectors(2, readout(dense(0, CODES), **scores), steps=4, top=3)


@pytest.mark.parametrize(
    "compiler",
    [
        ("gcc", *SANITIZED["gcc"]),
        ("gcc", "-O3"),
        pytest.param(("clang", *SANITIZED["clang"]), marks=pytest.mark.slow),
    ],
    ids=lambda compiler: " ".join(compiler[:2]),
)
@settings(max_examples=4, suppress_health_check=LARGE)
@given(networks=st.lists(cases(), min_size=TOGETHER, max_size=TOGETHER))
def test_c_gives_the_interpreters_scores(compiler, networks):
    check_scores(networks, *compiler)


def corner(*, matrix: bool, bits: int) -> Case:
    """Maxima of levels feed neurons whose potentials need ``bits`` bits, of a matrix kernel or not."""
    random = np.random.default_rng(bits)
    levels = random.integers(0, 201, (5, 2, 3, 4, 4)).astype(np.uint8)
    levels[:, 1] = 200  # with weights of one sign, the largest potential
    codes, taps = random.choice([-1, 1], (4, 3, 5, 2)), random.integers(1, 9, (5 if matrix else 1, 3, 1))
    codes[0] = 1
    shape, zeros = (4, 1, 1), np.zeros(4)
    pooled = Pool("pool", 0, "max", Window((2, 3), (1, 2), (1, 1)), (3, 5, 2), 200)
    synapse = Synapse(1, codes.astype(np.int8), 1, Window((5, 2)), shape)
    neurons = Neurons("sn", (synapse,), taps, np.zeros((1, 4), np.int64), shape, zeros, zeros)
    scores = readout(dense(2, np.ones((2, 4))), reduce="none")
    graph = Graph(Input((3, 4, 4), (3, 4, 4), 200), (pooled, neurons, scores), 5)
    spare = bits - max(potential_bound(graph, neurons)).bit_length()
    neurons = replace(neurons, taps=taps << spare)
    maps = [levels.astype(np.int64)]
    maps.append(interpret.evaluate(pooled, maps, 5))
    rows = potentials(neurons, maps, 5)[:, 0, :, 0, 0][: 5 if matrix else 3]  # ties in the first sample
    return Case(replace(graph, ops=(pooled, replace(neurons, thresholds=rows), scores)), levels, 5)


def test_corners_that_random_networks_rarely_meet_give_the_interpreters_scores():
    chosen = [corner(matrix=matrix, bits=bits) for matrix in (False, True) for bits in (20, 31, 32, 33, 62)]
    check_scores(chosen, "gcc", *SANITIZED["gcc"])


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_levels_of_two_bytes_are_read_and_refused_as_in_python(compiler, tmp_path):
    cases, streams = [], []
    for top in (256, 1000, 2**15):
        fire = fires(dense(0, CODES), [4, 2, 1], [3 * top, 5 * top])
        graph = vectors(2, fire, readout(dense(1, CODES), reduce="none"), steps=4, top=top)
        levels = np.array([[top, 0], [1, top], [255, 256], [0, top]], np.uint16).reshape(4, 1, 2, 1, 1)
        cases.append(Case(graph, levels, 4))
        streams.append(levels)
    wrong = streams[-1].copy()
    wrong[2, 0, 1] = 2**15 + 1
    for observed, case, stream in zip(score(cases, streams, tmp_path, compiler), cases, streams, strict=True):
        right = expected(case, stream)
        np.testing.assert_array_equal(observed.run, right.run)
        np.testing.assert_array_equal(observed.step, right.step)
    (tmp_path / "wrong").mkdir()
    (observed,) = score([Case(cases[-1].graph, wrong, 4)], [wrong], tmp_path / "wrong", compiler)
    assert observed.ran.tolist() == [-1] and observed.scored.tolist() == [[1, 1, -1, 1]]


@pytest.mark.parametrize("level", [4, 255])
@pytest.mark.parametrize("period", [1, 2])
def test_a_level_above_the_top_is_refused_as_in_python_and_changes_nothing(level, period, tmp_path):
    fire = fires(dense(0, CODES), [4, 2, 1], [3, 3])
    joined = [TimePool("joined", 1, 2, (2, 1, 1), 1)] if period == 2 else []
    graph = vectors(2, fire, *joined, readout(dense(period, CODES), reduce="none"), steps=4, top=3)
    good = np.array([[3, 0], [1, 3], [1, 2], [0, 2]], np.uint8).reshape(4, 1, 2, 1, 1)
    bad = good.copy()
    bad[-1, 0, 1] = level
    stream = np.concatenate([good[:2], bad[-1:], good[2:]])
    (found,) = score([Case(graph, bad, 4)], [stream], tmp_path, "gcc")
    assert found.ran.tolist() == [-1]
    assert (found.run == UNTOUCHED).all()
    assert found.scored[0, 2] == -1
    assert (found.step[0, 2] == UNTOUCHED).all()
    right = expected(Case(graph, good, 4), good)
    np.testing.assert_array_equal(np.delete(found.scored, 2, axis=1), right.scored)
    np.testing.assert_array_equal(np.delete(found.step, 2, axis=1), right.step)
    network = IntegerNetwork(graph)
    for backend in ("numpy", "compiled"):
        session = network.stream(backend=backend)
        for call in (lambda: network.run(bad[..., 0, 0]), lambda: session.step(bad[-1, ..., 0, 0])):  # noqa: B023
            with pytest.raises(ValueError, match=f"levels from 0 to 3, got 0 to {level}"):
                call()


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3", "-Os"])
@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: " ".join(compiler[::3]))
def test_the_primitives_compile_without_a_warning(compiler, level, tmp_path):
    write_c(small(), tmp_path, name="net")
    run([tool(compiler[0]), *compiler[1:], *STRICT, level, "-c", "mfp_int.c", "net.c"], tmp_path)


def test_the_header_is_also_one_for_cpp(tmp_path):
    write_c(small(), tmp_path, name="net")
    (tmp_path / "main.cpp").write_text(
        '#include "net.h"\nint main() { net_stream s; net_reset(&s); return NET_STEPS != 4; }\n'
    )
    run([tool("gcc"), *STRICT[1:], "-std=c99", "-c", "net.c", "mfp_int.c"], tmp_path)
    run([tool("g++"), *STRICT[1:], "-std=c++11", "main.cpp", "net.o", "mfp_int.o", "-o", "main"], tmp_path)
    run([tmp_path / "main"], tmp_path)


@settings(max_examples=10)
@given(graph=graphs())
def test_the_macros_say_how_many_bytes_the_arrays_take(graph):
    with tempfile.TemporaryDirectory() as folder:
        write_c(graph, folder, name="net")
        (Path(folder) / "sizes.c").write_text(
            '#include "net.h"\n'
            "const char buffers[sizeof(net_buffers)] = {1}, stream[sizeof(net_stream)] = {1};\n"
        )
        run([tool("gcc"), "-std=c99", "-fno-pie", "-c", "net.c", "sizes.c"], Path(folder))
        symbols = run([tool("nm"), "-S", "net.o", "sizes.o"], Path(folder)).decode()
        header = (Path(folder) / "net.h").read_text()
    said = dict(re.findall(r"#define NET_(\w+) (\d+)", header))
    sized = re.findall(r"^\w+ (\w+) (\w) (\w+)", symbols, re.MULTILINE)
    structs = {name: int(size, 16) for size, _, name in sized if name in ("buffers", "stream")}
    tables = ("codes", "taps", "powers", "feedback", "thresholds", "slopes", "factor", "offset", "places")
    named = dict.fromkeys(tables, 0)
    for size, kind, name in sized:
        family = re.match("[a-z]*", name)[0]
        if kind in "rR" and family in named:
            named[family] += int(size, 16)
    stated = [int(number.replace(",", "")) for number in re.findall(r"It takes ([\d,]+) bytes", header)]
    assert [structs["buffers"], structs["stream"]] == stated
    assert int(said["STATE_BYTES"]) <= structs["stream"]
    assert named.pop("codes") == int(said["WEIGHT_BYTES"])
    assert sum(named.values()) == int(said["PARAMETER_BYTES"])


@settings(max_examples=10)
@given(graph=graphs())
def test_the_c_has_no_variables_of_its_own(graph):
    with tempfile.TemporaryDirectory() as folder:
        write_c(graph, folder, name="net")
        run([tool("gcc"), "-std=c99", "-fno-pie", "-c", "net.c", "mfp_int.c"], Path(folder))
        symbols = run([tool("nm"), "net.o", "mfp_int.o"], Path(folder)).decode()
    assert not re.findall(r" [bBdDsSC] (\w+)", symbols)


INTERLEAVED = """\
#include "first.h"
#include "second.h"

/* Scores of two streams of one network and one of another, step by step in turns, and of each on its own. */
int main(void)
{
    static const uint8_t a[6][2] = {{3, 0}, {1, 2}, {0, 3}, {2, 2}, {3, 1}, {0, 0}};
    static const uint8_t b[6][2] = {{0, 3}, {3, 3}};
    static first_stream left, right, alone;
    static second_stream other, other_alone;
    int64_t scores[6][3][2], now[2];
    for (int t = 0; t < 6; t++) {
        first_step(&left, a[t], scores[t][0]);
        first_step(&right, b[t], scores[t][1]);
        second_step(&other, a[t], scores[t][2]);
    }
    for (int t = 0; t < 6; t++) {
        first_step(&alone, a[t], now);
        if (now[0] != scores[t][0][0] || now[1] != scores[t][0][1]) return 1;
        second_step(&other_alone, a[t], now);
        if (now[0] != scores[t][2][0] || now[1] != scores[t][2][1]) return 2;
    }
    first_reset(&alone);
    for (int t = 0; t < 6; t++) {
        const first_stream before = alone; /* a copy goes on as the original does */
        first_step(&alone, b[t], now);
        if (now[0] != scores[t][1][0] || now[1] != scores[t][1][1]) return 3;
        alone = before;
        first_step(&alone, b[t], now);
        if (now[0] != scores[t][1][0] || now[1] != scores[t][1][1]) return 4;
    }
    return 0;
}
"""


def test_streams_in_turns_give_what_each_gives_alone(tmp_path):
    for name, taps in (("first", [4, 2, 1]), ("second", [1, 2, 4, 8])):
        fire = fires(dense(0, CODES), taps, [3, 5])
        write_c(
            vectors(2, fire, readout(dense(1, CODES), reduce="none"), steps=4, top=3), tmp_path, name=name
        )
    (tmp_path / "main.c").write_text(INTERLEAVED)
    sources = ["first.c", "second.c", "mfp_int.c", "main.c"]
    run([tool("gcc"), *STRICT, *SANITIZED["gcc"], *sources, "-o", "main"], tmp_path)
    run([tmp_path / "main"], tmp_path)


@settings(max_examples=20)
@given(graph=graphs())
def test_the_c_includes_stdint_alone_and_knows_no_floating_point(graph):
    with tempfile.TemporaryDirectory() as folder:
        files = write_c(graph, folder, name="net")
        text = "\n".join(file.read_text(encoding="ascii") for file in files)
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    assert set(re.findall(r"#include (.*)", code)) == {"<stdint.h>", '"net.h"', '"mfp_int.h"'}
    assert not re.search(r"\b(float|double|malloc|alloca)\b|\d\.\d", code)


def test_files_are_replaced_whole(tmp_path):
    write_c(small(), tmp_path, name="net")
    (tmp_path / "net.c").write_text("x" * 100_000)
    write_c(small(), tmp_path, name="net")
    write_c(small(), tmp_path / "deep" / "er", name="net")
    for file in ("net.c", "net.h", "mfp_int.c", "mfp_int.h"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "deep" / "er" / file).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "deep",
        "mfp_int.c",
        "mfp_int.h",
        "net.c",
        "net.h",
    ]


NO_IDENTIFIERS = ["", "1net", "a-b", "a b", "_net", "é", "net.c", "../net", "a\n", None, 3]
WORDS = dict.fromkeys(NO_IDENTIFIERS, r"name must be a C identifier .* got")
WORDS |= dict.fromkeys(["mfp_int", "MFP_INT", "stdint"], "name must be other than mfp_int and stdint")


@pytest.mark.parametrize("name", WORDS)
def test_a_name_that_is_no_identifier_or_that_of_an_included_header_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=WORDS[name]):
        write_c(small(), tmp_path / "new", name=name)
    assert not (tmp_path / "new").exists()


def test_buffers_that_32_bits_cannot_count_are_refused(tmp_path):
    graph = small()
    large = replace(graph, input=Input((2, 1024, 1024), (2, 2**20), 1), steps=2**16)
    with pytest.raises(ValueError, match=r"the buffers of a run would take 17,180,\d+,\d+ bytes"):
        write_c(large, tmp_path / "new")
    assert not (tmp_path / "new").exists()
