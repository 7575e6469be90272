"""Compiles the digits network for the page: C99 from ``deploy``, WebAssembly from clang and lld.

``python docs/interactive/build.py`` writes digits_network.js again. It is in the repository, so that the site
builds without a compiler; tests/docs/test_interactive_digits.py says whether it is current.
"""

import base64
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from mfp_neurons import zoo
from mfp_neurons.deploy.graph import Graph, Neurons
from mfp_neurons.zoo.catalog import Trained
from mfp_neurons.zoo.evaluation import load_test

HERE = Path(__file__).parent
GENERATED = HERE / "digits_network.js"
NETWORK = "digits-rows"
EXAMPLES = 3  # of each digit, the first of the test set

COMPILE = (
    "clang", "--target=wasm32", "-std=c99", "-Os", "-nostdlib", "-ffreestanding", "-fno-builtin",
    "-ffunction-sections", "-fdata-sections", "-fvisibility=hidden",
)  # fmt: skip
LINK = (
    "-Wl,--no-entry", "-Wl,--gc-sections", "-Wl,--strip-all", "-Wl,--wrap=mfp_fire",
    "-Wl,--stack-first", "-Wl,-z,stack-size=8192",
)  # fmt: skip
SOURCES = ("digits.c", "mfp_int.c", "wasm.c")


def generate() -> str:
    """The text of digits_network.js."""
    trained = zoo.load(NETWORK)
    graph = trained.network.graph
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [*COMPILE, f"-DSPIKE_WORDS={spike_words(graph)}", *SOURCES, *LINK, "-o", "digits.wasm"]
        write_sources(trained, folder)
        subprocess.run(command, cwd=folder, check=True)
        wasm = (folder / "digits.wasm").read_bytes()
    facts = {
        **describe(graph),
        "network": NETWORK,
        "accuracy": trained.card.accuracy.integer,
        "images": trained.card.accuracy.images,
        "stateBits": trained.card.state_bits,
        "compiler": compiler(),
        "examples": examples(trained),
        "wasm": base64.b64encode(wasm).decode(),
    }
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items())
    return (
        "/* Written by docs/interactive/build.py; do not edit. Examples: E. Alpaydin and C. Kaynak, Optical\n"
        " * Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, CC BY 4.0. */\n"
        f"const digitsNetwork = {{\n{lines}\n}};\n"
    )


def write_sources(trained: Trained, folder: Path) -> None:
    """Writes all C into ``folder``."""
    trained.network.to_c(folder, name="digits")
    (folder / "wasm.c").write_bytes((HERE / "wasm.c").read_bytes())


def describe(graph: Graph) -> dict[str, Any]:
    """What the page has to know of the network."""
    layers = [
        {"neurons": op.shape[0], "order": op.order, "bits": op.synapses[0].bits}
        for op in graph.ops
        if isinstance(op, Neurons)
    ]
    return {"steps": graph.steps, "unit": graph.scores.unit, "layers": layers}


def spike_words(graph: Graph) -> int:
    """Words of 32 bits that the spikes of all layers take, all steps."""
    return graph.steps * sum(-(-op.shape[0] // 32) for op in graph.ops if isinstance(op, Neurons))


def examples(trained: Trained) -> list[dict[str, Any]]:
    """Test images as text, one letter a level: 0 to 9, then a to g."""
    test = load_test(trained).test
    found = []
    for digit in range(10):
        for sample in test.samples[test.labels == digit][:EXAMPLES]:
            levels = "".join("0123456789abcdefg"[int(level)] for level in sample.flatten())
            found.append({"digit": digit, "levels": levels})
    return found


def compiler() -> str:
    """Clang and lld, by their versions alone."""
    return f"clang {version('clang')}, lld {version('wasm-ld')}"


def version(tool: str) -> str:
    said = subprocess.check_output([tool, "--version"], text=True)
    return re.findall(r"[0-9]+\.[0-9.]*[0-9]", said)[0]


if __name__ == "__main__":
    GENERATED.write_text(generate())
