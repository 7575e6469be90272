"""Generated C as libraries of build systems: what these require is there, and the example agrees here."""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from mfp_neurons import cli
from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.deploy.device.layouts import LAYOUTS
from mfp_neurons.deploy.graph import Graph
from tests.deploy.graphs import dense, fires, graphs, readout, vectors
from tests.deploy.toolchain import STRICT, run, tool

AGREES = b"the scores are those of the interpreter in Python"
EXAMPLES = {
    "arduino": "examples/{name}_check/{name}_check.ino",
    "platformio": "examples/check/src/main.c",
    "cmake": "examples/check.c",
    "zephyr": "samples/check/src/main.c",
}
SOURCES = ["mfp_int.c", "mfp_int.h", "net.c", "net.h"]
# what a board's core has of the Arduino language, as far as the sketch uses it
ARDUINO_H = """\
#pragma once
#include <stdint.h>
#include <stdio.h>
struct Console {
    void begin(unsigned long) {}
    explicit operator bool() const { return true; }
    void print(const char *text) { fputs(text, stdout); }
    void println(const char *text) { puts(text); }
    void println(unsigned long number) { printf("%lu\\n", number); }
};
static Console Serial;
"""
# Zephyr's functions, as far as a module of this kind uses them
ZEPHYR_CMAKE = """\
cmake_minimum_required(VERSION 3.13)
project(zephyr_stand_in LANGUAGES C)
macro(zephyr_include_directories)
  include_directories(${ARGV})
endmacro()
macro(zephyr_library_named name)
  add_library(${name} STATIC)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
endmacro()
macro(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGV})
endmacro()
"""


def net(*taps: int) -> Graph:
    codes = [[1, -1, 1], [-1, 1, 1]]
    fire = fires(dense(0, codes), list(taps), [3, 5])
    return vectors(3, fire, readout(dense(1, [[1, -1], [-1, 1]]), reduce="none"), steps=12, top=16)


FIRST, SECOND = net(4, 2, 1), net(1, 2, 4, 8)


def configure(folder: Path, *options: str) -> None:
    flags = f"-DCMAKE_C_FLAGS={' '.join(flag for flag in STRICT if not flag.startswith('-std'))}"
    run([tool("cmake"), "-S", ".", "-B", "build", flags, *options], folder)
    run([tool("cmake"), "--build", "build"], folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_sources_and_names_all_its_files(layout, tmp_path):
    plain = {path.name: path.read_bytes() for path in write_c(FIRST, tmp_path / "plain", name="net")}
    files = write_c(FIRST, tmp_path / layout, name="net", layout=layout)
    assert sorted(files) == sorted(path for path in (tmp_path / layout).rglob("*") if path.is_file())
    assert [path.name for path in files[:4]] == ["net.h", "net.c", "mfp_int.h", "mfp_int.c"]
    folder = tmp_path / layout / ("" if layout == "plain" else "src")
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == SOURCES
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == plain


@pytest.mark.parametrize("layout", ["make", "", None, "Arduino"])
def test_another_layout_is_refused_with_nothing_written(layout, tmp_path):
    words = "layout must be one of 'plain', 'arduino', 'platformio', 'cmake', 'zephyr', got"
    with pytest.raises(ValueError, match=words):
        write_c(FIRST, tmp_path / "new", layout=layout)
    assert not (tmp_path / "new").exists()


def test_the_command_line_knows_all_layouts(capsys):
    with pytest.raises(SystemExit):
        cli.main(["deploy", "--help"])
    assert "{" + ",".join(LAYOUTS) + "}" in capsys.readouterr().out


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs())
def test_the_example_of_a_random_network_agrees_with_the_interpreter(graph):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_c(graph, folder, name="net", layout="cmake")
        program = ["src/net.c", "src/mfp_int.c", "examples/check.c", "-Isrc", "-o", "check"]
        run([tool("gcc"), *STRICT, *program], folder)
        assert run([folder / "check"], folder).splitlines()[-1] == AGREES


@pytest.mark.parametrize("layout", ["platformio", "cmake", "zephyr"])
@pytest.mark.parametrize("cpu", ["cortex-m4", "cortex-m0"])
def test_the_program_compiles_for_boards_without_a_warning(layout, cpu, tmp_path):
    write_c(FIRST, tmp_path, name="net", layout=layout)
    # the compiler comes without a C library
    (tmp_path / "stdio.h").write_text("int printf(const char *, ...);\n")
    sources = ["src/net.c", "src/mfp_int.c", EXAMPLES[layout]]
    flags = ["-mthumb", f"-mcpu={cpu}", "-ffreestanding", *STRICT, "-I.", "-Isrc"]
    run([tool("arm-none-eabi-gcc"), *flags, "-c", *sources], tmp_path)


def test_the_example_notices_a_score_that_is_another(tmp_path):
    write_c(FIRST, tmp_path, name="net", layout="cmake")
    source = tmp_path / "src" / "net.c"
    text = re.sub(r"(offset2\[2\] = \{\s*)0,", r"\g<1>1,", source.read_text())
    assert text != source.read_text()
    source.write_text(text)
    program = ["src/net.c", "src/mfp_int.c", "examples/check.c", "-Isrc", "-o", "check"]
    run([tool("gcc"), *STRICT, *program], tmp_path)
    words = run(["sh", "-c", "./check; test $? = 1"], tmp_path).decode()
    assert re.search(r"1 scores are not those of the interpreter in Python\n$", words)


def test_cmake_builds_it_alone_and_its_example_is_a_test(tmp_path):
    write_c(FIRST, tmp_path, name="net", layout="cmake")
    configure(tmp_path)
    said = run([tool("ctest"), "--test-dir", "build", "--output-on-failure"], tmp_path)
    assert b"100% tests passed" in said


TWO = """\
#include "first.h"
#include "second.h"

int main(void)
{
    static const uint8_t input[3] = {1, 2, 3};
    static first_stream first;
    static second_stream second;
    int64_t scores[2];
    return first_step(&first, input, scores) + second_step(&second, input, scores) - 2;
}
"""


def test_two_libraries_of_cmake_share_the_primitives_in_one_project(tmp_path):
    for name, graph in (("first", FIRST), ("second", SECOND)):
        write_c(graph, tmp_path / name, name=name, layout="cmake")
    (tmp_path / "main.c").write_text(TWO)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(two LANGUAGES C)\n"
        "add_subdirectory(first)\nadd_subdirectory(second)\nadd_executable(two main.c)\n"
        "target_link_libraries(two PRIVATE mfp_neurons::first mfp_neurons::second)\n"
    )
    configure(tmp_path)
    run([tmp_path / "build" / "two"], tmp_path)
    assert not list((tmp_path / "build").rglob("first_check*"))  # examples only where a library is alone


def test_two_archives_that_both_hold_the_primitives_link(tmp_path):
    """As Arduino (dot_a_linkage) and PlatformIO build libraries."""
    archives = []
    for name, graph in (("first", FIRST), ("second", SECOND)):
        folder = tmp_path / name / "src"
        write_c(graph, tmp_path / name, name=name, layout="arduino")
        run([tool("gcc"), *STRICT, "-c", f"{name}.c", "mfp_int.c"], folder)
        run([tool("ar"), "rcs", f"lib{name}.a", f"{name}.o", "mfp_int.o"], folder)
        archives.append(folder / f"lib{name}.a")
    (tmp_path / "main.c").write_text(TWO)
    includes = ["-Ifirst/src", "-Isecond/src"]
    run([tool("gcc"), *STRICT, *includes, "main.c", *archives, "-o", "main"], tmp_path)
    run([tmp_path / "main"], tmp_path)


def test_arduino_finds_the_fields_that_it_requires_and_the_sketch_agrees(tmp_path):
    write_c(FIRST, tmp_path, name="net", layout="arduino")
    text = (tmp_path / "library.properties").read_text(encoding="ascii")
    fields = dict(line.split("=", 1) for line in text.splitlines())
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url"}
    assert required | {"architectures"} <= fields.keys()
    assert all(fields.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", fields["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["category"] == "Data Processing"  # one of nine
    assert fields["dot_a_linkage"] == "true"
    assert (tmp_path / "src" / fields["includes"]).is_file()
    sketch = tmp_path / EXAMPLES["arduino"].format(name="net")
    assert sketch.stem == sketch.parent.name  # or the IDE does not open it
    (tmp_path / "Arduino.h").write_text(ARDUINO_H)
    (tmp_path / "main.cpp").write_text(f'#include "{sketch}"\nint main() {{ setup(); loop(); }}\n')
    run([tool("gcc"), "-std=c99", "-Isrc", "-c", "src/net.c", "src/mfp_int.c"], tmp_path)
    warnings = [flag for flag in STRICT if not flag.startswith("-std")]
    command = [tool("g++"), "-std=c++11", *warnings, "-I.", "-Isrc", "main.cpp", "net.o", "mfp_int.o"]
    run([*command, "-o", "main"], tmp_path)
    assert run([tmp_path / "main"], tmp_path).splitlines()[-1] == AGREES


def test_platformio_finds_the_fields_that_it_requires(tmp_path):
    write_c(FIRST, tmp_path, name="net", layout="platformio")
    manifest = json.loads((tmp_path / "library.json").read_text())
    assert re.fullmatch(r"[^:;/,@<>]{1,50}", manifest["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert 0 < len(manifest["description"]) <= 255
    assert all(re.fullmatch(r"[a-z\d+. -]{1,50}", word) for word in manifest["keywords"])
    assert (tmp_path / "src" / manifest["headers"]).is_file()
    (example,) = manifest["examples"]
    assert re.fullmatch(r"[a-zA-Z\d_/-]{1,100}", example["name"])
    assert all((tmp_path / example["base"] / file).is_file() for file in example["files"])


def test_zephyr_finds_what_a_module_has_and_its_sample_agrees(tmp_path):
    yaml = pytest.importorskip("yaml")
    module = tmp_path / "module"
    write_c(FIRST, module, name="net", layout="zephyr")
    meta = yaml.safe_load((module / "zephyr" / "module.yml").read_text())
    assert meta.keys() <= {"name", "build", "tests", "samples", "boards", "blobs", "security"}
    assert (module / meta["build"]["cmake"] / "CMakeLists.txt").is_file()
    kconfig = (module / meta["build"]["kconfig"]).read_text()
    assert re.search(r"^config MFP_NEURONS_NET\n    bool \".+\"\n    help\n      \S", kconfig, re.MULTILINE)
    sample = module / meta["samples"][0] / "check"
    assert (sample / "prj.conf").read_text() == "CONFIG_MFP_NEURONS_NET=y\n"
    tests = yaml.safe_load((sample / "sample.yaml").read_text())
    (expected,) = tests["tests"]["sample.mfp_neurons.net"]["harness_config"]["regex"]
    assert expected.encode() == AGREES
    write_c(SECOND, tmp_path / "second", name="second", layout="zephyr")
    (tmp_path / "CMakeLists.txt").write_text(
        f"{ZEPHYR_CMAKE}add_subdirectory(module/zephyr first)\nadd_subdirectory(second/zephyr second)\n"
        "include_directories(module/src second/src)\n"
        "add_executable(app module/samples/check/src/main.c)\n"
        "target_link_libraries(app mfp_neurons_net mfp_neurons_second mfp_neurons_int)\n"
    )
    configure(tmp_path, "-DCONFIG_MFP_NEURONS_NET=y", "-DCONFIG_MFP_NEURONS_SECOND=y")
    assert run([tmp_path / "build" / "app"], tmp_path).splitlines()[-1] == AGREES


def test_an_image_of_levels_of_two_bytes_is_the_same_at_every_step_of_the_example(tmp_path):
    fire = fires(dense(0, np.ones((2, 3))), [2, 1], [700, 1400])
    head = readout(dense(1, [[1, -1], [-1, 1]]), reduce="none")
    write_c(vectors(3, fire, head, steps=5, top=300, static=True), tmp_path, name="net", layout="cmake")
    assert "uint16_t input[" in (tmp_path / "examples" / "check.c").read_text()
    program = ["src/net.c", "src/mfp_int.c", "examples/check.c", "-Isrc", "-o", "check"]
    run([tool("gcc"), *STRICT, *program], tmp_path)
    assert run([tmp_path / "check"], tmp_path).splitlines()[-1] == AGREES
