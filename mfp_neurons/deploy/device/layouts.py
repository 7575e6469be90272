"""Generated C as a library of Arduino, PlatformIO, CMake or Zephyr: what lies around it, and an example.

The example streams levels that a small generator makes, and compares the last scores with those of the
interpreter: whoever runs it on a new board, or with a new compiler, knows that both agree.
"""

import json
from collections.abc import Callable
from math import prod
from typing import Literal, get_args

import numpy as np

from .. import interpret
from ..graph import Graph, Ints

Layout = Literal["plain", "arduino", "platformio", "cmake", "zephyr"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_SENTENCE = "An integer spiking network, written by mfp_neurons."
_PARAGRAPH = (
    "No floating point, no allocation, no dependencies. Weights are const: they stay in flash, but for AVR "
    "boards, which hold constants in RAM."
)
_URL = "https://arxiv.org/abs/2503.00040"
_AGREES = "the scores are those of the interpreter in Python"


def lay_out(layout: Layout, graph: Graph, name: str, sources: dict[str, str]) -> dict[str, str]:
    """The files of a library, by their paths in it.

    Args:
        layout: "plain" for the sources alone.
        graph: the network.
        name: its name in C.
        sources: the generated C, by file names.
    """
    if layout == "plain":
        return sources
    return {f"src/{file}": text for file, text in sources.items()} | _AROUND[layout](graph, name)


def _arduino(graph: Graph, name: str) -> dict[str, str]:
    """A library of the format of Arduino IDE 1.5 and later."""
    # several networks each bring mfp_int.c; of archives (dot_a_linkage) the linker takes the first one alone
    properties = {
        "name": name,
        "version": "1.0.0",
        "author": "mfp_neurons",
        "maintainer": "mfp_neurons",
        "sentence": _SENTENCE,
        "paragraph": _PARAGRAPH,
        "category": "Data Processing",
        "url": _URL,
        "architectures": "*",
        "includes": f"{name}.h",
        "dot_a_linkage": "true",
    }
    return {
        "library.properties": "".join(f"{key}={text}\n" for key, text in properties.items()),
        f"examples/{name}_check/{name}_check.ino": _sketch(graph, name),
    }


def _platformio(graph: Graph, name: str) -> dict[str, str]:
    manifest = {
        "name": name,
        "version": "1.0.0",
        "description": f"{_SENTENCE} {_PARAGRAPH}",
        "keywords": ["neural network", "spiking"],
        "homepage": _URL,
        "frameworks": "*",
        "platforms": "*",
        "headers": f"{name}.h",
        "examples": [{"name": "check", "base": "examples/check", "files": ["platformio.ini", "src/main.c"]}],
    }
    return {
        "library.json": json.dumps(manifest, indent=2) + "\n",
        "examples/check/platformio.ini": (
            "; pio run -t exec: on this computer; for a board, its platform, board and framework\n"
            "[env:native]\nplatform = native\nlib_deps = symlink://../..\n"
        ),
        "examples/check/src/main.c": _program(graph, name),
    }


def _cmake(graph: Graph, name: str) -> dict[str, str]:
    lists = f"""\
# {name}: an integer spiking network, written by mfp_neurons; do not edit. In a project of yours:
#
#     add_subdirectory({name})
#     target_link_libraries(app PRIVATE mfp_neurons::{name})
cmake_minimum_required(VERSION 3.13)
project({name} LANGUAGES C)

# the same for all networks: the first one that a project adds brings it
if(NOT TARGET mfp_neurons_int)
  add_library(mfp_neurons_int STATIC src/mfp_int.c)
  target_include_directories(mfp_neurons_int PUBLIC src)
  set_target_properties(mfp_neurons_int PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON)
endif()

add_library(mfp_neurons_{name} STATIC src/{name}.c)
add_library(mfp_neurons::{name} ALIAS mfp_neurons_{name})
target_include_directories(mfp_neurons_{name} PUBLIC src)
target_link_libraries(mfp_neurons_{name} PUBLIC mfp_neurons_int)
set_target_properties(mfp_neurons_{name} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON)

# built on its own: the example is a test
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  enable_testing()
  add_executable({name}_check examples/check.c)
  target_link_libraries({name}_check PRIVATE mfp_neurons::{name})
  add_test(NAME {name}_check COMMAND {name}_check)
endif()
"""
    return {"CMakeLists.txt": lists, "examples/check.c": _program(graph, name)}


def _zephyr(graph: Graph, name: str) -> dict[str, str]:
    """A module of Zephyr, which every application can switch on by one option."""
    option = f"MFP_NEURONS_{name.upper()}"
    module = f"""\
name: {name}
build:
  cmake: zephyr
  kconfig: zephyr/Kconfig
samples:
  - samples
"""
    lists = f"""\
if(CONFIG_{option})
  set(sources ${{CMAKE_CURRENT_SOURCE_DIR}}/../src)
  zephyr_include_directories(${{sources}})
  zephyr_library_named(mfp_neurons_{name})
  zephyr_library_sources(${{sources}}/{name}.c)
  # the same for all networks: the first module that is switched on brings it
  if(NOT TARGET mfp_neurons_int)
    zephyr_library_named(mfp_neurons_int)
    zephyr_library_sources(${{sources}}/mfp_int.c)
  endif()
endif()
"""
    kconfig = f"""\
config {option}
    bool "{name}, an integer spiking network"
    help
      Builds the network: its header is {name}.h. Nothing is allocated, and no
      floating point is used.
"""
    application = f"""\
cmake_minimum_required(VERSION 3.20.0)
list(APPEND ZEPHYR_EXTRA_MODULES ${{CMAKE_CURRENT_SOURCE_DIR}}/../..)
find_package(Zephyr REQUIRED HINTS $ENV{{ZEPHYR_BASE}})
project({name}_check LANGUAGES C)
target_sources(app PRIVATE src/main.c)
"""
    sample = f"""\
sample:
  name: {name} check
tests:
  sample.mfp_neurons.{name}:
    harness: console
    harness_config:
      type: one_line
      regex:
        - "{_AGREES}"
    integration_platforms:
      - qemu_cortex_m3
"""
    return {
        "zephyr/module.yml": module,
        "zephyr/CMakeLists.txt": lists,
        "zephyr/Kconfig": kconfig,
        "samples/check/CMakeLists.txt": application,
        "samples/check/prj.conf": f"CONFIG_{option}=y\n",
        "samples/check/sample.yaml": sample,
        "samples/check/src/main.c": _program(graph, name),
    }


_AROUND: dict[str, Callable[[Graph, str], dict[str, str]]] = {
    "arduino": _arduino,
    "platformio": _platformio,
    "cmake": _cmake,
    "zephyr": _zephyr,
}


# --- the example


def _program(graph: Graph, name: str) -> str:
    """A whole program in C, which prints a line for every step."""
    big = name.upper()
    return f"""\
{_example(graph, name, "<stdio.h>")}
int main(void)
{{
    uint32_t seed = 1, different = 0;
    {name}_reset(&stream);
{_once(graph)}\
    for (uint32_t t = 0; t < {big}_STEPS; t++) {{
{_each(graph)}\
        if ({name}_step(&stream, input, scores) == 1)
            printf("step %lu: class %lu\\n", (unsigned long)t, (unsigned long){name}_argmax(scores));
    }}
    for (uint32_t c = 0; c < {big}_CLASSES; c++) different += scores[c] != expected[c];
    if (different)
        printf("%lu scores are not those of the interpreter in Python\\n", (unsigned long)different);
    else
        printf("{_AGREES}\\n");
    return different != 0;
}}
"""


def _sketch(graph: Graph, name: str) -> str:
    """The same for Arduino."""
    big = name.upper()
    return f"""\
{_example(graph, name, "<Arduino.h>")}
void setup()
{{
    uint32_t seed = 1, different = 0;
    Serial.begin(115200);
    while (!Serial) {{}}
    {name}_reset(&stream);
{_once(graph)}\
    for (uint32_t t = 0; t < {big}_STEPS; t++) {{
{_each(graph)}\
        if ({name}_step(&stream, input, scores) != 1) continue;
        Serial.print("class ");
        Serial.println((unsigned long){name}_argmax(scores));
    }}
    for (uint32_t c = 0; c < {big}_CLASSES; c++) different += scores[c] != expected[c];
    Serial.println(different ? "the scores are others than in Python" : "{_AGREES}");
}}

void loop() {{}}
"""


def _example(graph: Graph, name: str, header: str) -> str:
    """What both begin with: the stream, its input, and the scores to expect."""
    big, kind = name.upper(), f"{graph.input.dtype}_t"
    numbers = _expected(graph)
    # scores are below 2**63 - 1 in size, so each has a literal
    cells = "".join(f"\n    INT64_C({number})," for number in numbers.tolist())
    return f"""\
/* Streams {graph.steps} steps of random levels through {name} and compares the last scores with those of the
 * interpreter in Python. In your program a sensor fills `input`. Written by mfp_neurons. */
#include {header}

#include "{name}.h"

static {name}_stream stream;
static {kind} input[{big}_STEP_INPUT_BYTES / sizeof({kind})];
static int64_t scores[{big}_CLASSES];
static const int64_t expected[{big}_CLASSES] = {{{cells}
}};

/* Levels of a linear congruential generator. */
static void fill_input(uint32_t *seed)
{{
    for (uint32_t i = 0; i < sizeof input / sizeof *input; i++) {{
        *seed = *seed * UINT32_C(1664525) + UINT32_C(1013904223);
        input[i] = ({kind})((*seed >> 16) % ({big}_TOP + UINT32_C(1)));
    }}
}}
"""


def _once(graph: Graph) -> str:
    return "    fill_input(&seed); /* an image, the same at every step */\n" if graph.input.static else ""


def _each(graph: Graph) -> str:
    return "" if graph.input.static else "        fill_input(&seed);\n"


def _expected(graph: Graph) -> Ints:
    """The scores of all heads at their last step, of the levels that the example makes."""
    inputs = graph.input
    frames, seed = 1 if inputs.static else graph.steps, 1
    levels = np.empty(frames * prod(inputs.shape), np.int64)
    for i in range(len(levels)):
        seed = (seed * 1664525 + 1013904223) % 2**32
        levels[i] = (seed >> 16) % (inputs.top + 1)
    scores, _ = interpret.run(graph, levels.reshape(frames, 1, *inputs.shape), graph.steps)
    return np.concatenate([of_head[-1].reshape(-1) for of_head in scores])
