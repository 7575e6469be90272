"""Flash, RAM and instructions of networks of the zoo on a Cortex-M4 and a Cortex-M0; do their scores agree?

    python -m benchmarks.cortex_m digits-rows spoken-digits smartwatch

Beside a network that reads a sequence of rows comes a GRU of 32-bit floats on the same data, trained here in
runs/gru/NAME, for longer than that network, and written in plain C. Results of networks that are not named
stay in the file.

Needs arm-none-eabi-gcc and qemu-system-arm. Every test sample is run and streamed, and every score has to be
the interpreter's; the GRU's scores have to be PyTorch's, up to rounding. Flash and RAM are what the linker
prints of the smallest program around the network: with vectors, start-up code, input and scores, without the
stack. Instructions are QEMU's count; most take a Cortex-M4 one cycle.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import gru
from benchmarks.evidence.rivals.gated import GRUClassifier
from benchmarks.zoo import training
from mfp_neurons import report, zoo
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.interpret import run as interpret
from mfp_neurons.train.config import Config
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import BEST, Trainer, load_network
from mfp_neurons.zoo.evaluation import load_test
from tests.deploy.cortex import (
    M0,
    M4,
    Found,
    Machine,
    compile_for,
    emulate,
    footprint,
    instructions,
    linked,
    score,
)

COUNTED = 10  # samples of which instructions are counted, which takes QEMU longer
LEVELS = ("-Os", "-O2")
BYTES = 150_000  # of samples in a program: a micro:bit has 256 KB of flash
GRU_WIDTH = 32
GRU_EPOCHS, GRU_RATE = 80, 1e-2  # the best of 5e-3 and 20 or 40 epochs, 1e-2 and 40 or 80, by validation
FPU = ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")  # of a Cortex-M4F


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", metavar="NAME", help="of the zoo")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cortex_m.json"))
    parser.add_argument("--data-root", help="folder that holds the data sets")
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.networks:
        trained = zoo.load(name)
        data = load_test(trained, args.data_root)
        results[name] = measure(trained.network, data)
        if data.reading == "rows":
            results[name]["gru"] = measure_gru(name, args.data_root)
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{name}\n{table(results[name])}\n")


def measure(network: IntegerNetwork, data: Data) -> dict[str, Any]:
    """Everything that is found out, ready for JSON."""
    graph = network.graph
    levels = levels_of(graph, data)
    memory = network.memory()
    return {
        "samples": len(levels),
        "steps": graph.steps,
        "accuracy": accuracy(network, data),
        "weight_bytes": memory.weights,
        "state_bits": graph.state_bits(),
        "compiler": version("arm-none-eabi-gcc"),
        "emulator": version("qemu-system-arm"),
        "builds": [build(machine, graph, levels, level) for machine in (M4, M0) for level in LEVELS],
    }


def build(machine: Machine, graph: Graph, levels: NDArray[np.uint8], level: str) -> dict[str, Any]:
    """One machine, one optimization level.

    Raises:
        RuntimeError: a score of the machine is another than the interpreter's.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = 0
        for part in parts(levels):
            found = score(machine, graph, part, folder, optimize=level)
            check(found, graph, part)
            stack = max(stack, found.stack)
        counted = score(machine, graph, levels[:COUNTED], folder, count=True, optimize=level)
        sizes = {
            kind: asdict(footprint(machine, graph, folder, stream=kind == "step", optimize=level))
            for kind in ("run", "step")
        }
    return {
        "cpu": machine.cpu,
        "board": machine.board,
        "optimize": level,
        "equal": len(levels),
        **sizes,
        "stack": stack,
        "run_instructions": counted.run_instructions,
        "step_instructions": counted.step_instructions,
        "last_step_instructions": counted.last_step_instructions,
    }


def parts(levels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Samples, as many at a time as a program has room for."""
    count = max(1, BYTES // levels[0].size)
    return (levels[start : start + count] for start in range(0, len(levels), count))


def check(found: Found, graph: Graph, levels: NDArray[np.uint8]) -> None:
    (scores,), _ = interpret(graph, np.moveaxis(levels, 1, 0).astype(np.int64), graph.steps)
    every: NDArray[np.int64] = np.moveaxis(scores, 1, 0).reshape(found.step.shape)
    summed = graph.scores.reduce != "none"
    last = graph.scores.last or every.shape[1]
    expected = every[:, -last:].sum(axis=1) if summed else every.reshape(found.run.shape)
    if not ((found.run == expected).all() and (found.step == every).all()):
        raise RuntimeError("the machine gives other scores than the interpreter")


def levels_of(graph: Graph, data: Data) -> NDArray[np.uint8]:
    """The test split, uint8 [N, T or 1, C, H, W]."""
    input_ = graph.input
    x = data.integer_input(data.test.samples).mul(input_.top).round().byte().numpy()
    x = x[None] if input_.static else x
    return np.moveaxis(x.reshape(*x.shape[:2], *input_.shape), 1, 0)


def accuracy(network: IntegerNetwork, data: Data) -> float:
    """Percent of the test split."""
    answers = network.run(data.integer_input(data.test.samples)).argmax(1)
    return round(100 * float((answers == data.test.labels.numpy()).mean()), 2)


# --- the GRU beside it --------------------------------------------------------------------------------------


def measure_gru(name: str, data_root: str | None) -> dict[str, Any]:
    """What a GRU reaches and takes on the data of a network of the zoo; it is trained if it was not yet."""
    overrides = {} if data_root is None else {"data.root": data_root}
    settings: Config = gru.config(training.config(name, overrides), GRU_WIDTH, GRU_EPOCHS, GRU_RATE)
    folder = Path("runs") / "gru" / name
    trainer = Trainer(settings, folder)
    result = trainer.run(resume=True)
    module, data, *_ = load_network(folder / BEST, data=trainer.data)
    assert isinstance(module, GRUClassifier)
    costs = report(module, data.sequence(data.test.samples[:100]))
    return {
        "width": GRU_WIDTH,
        "accuracy": round(result["test_accuracy"], 2),
        "weight_bytes": costs.weight_bytes,
        "state_bits": 32 * GRU_WIDTH,
        "config": settings.as_dict(),
        "builds": [
            build_gru(machine, flags, module, data) for machine, flags in ((M4, FPU), (M4, ()), (M0, ()))
        ],
    }


def build_gru(machine: Machine, flags: tuple[str, ...], module: GRUClassifier, data: Data) -> dict[str, Any]:
    """One machine.

    Raises:
        RuntimeError: its scores are away from PyTorch's by more than rounding.
    """
    samples = data.test.samples[:, 0].numpy()  # [N, T, features]
    with torch.no_grad():
        expected = module(data.sequence(data.test.samples))[-1].numpy()
    sources = [str(gru.SOURCES / "gru.c")]
    options: dict[str, Any] = {"optimize": "-O2", "flags": (*flags, f"-I{gru.SOURCES}")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gru.write_weights(module, data.scale, folder / "weights.h")
        told = compile_for(machine, folder, str(gru.SOURCES / "gru_footprint.c"), *sources, **options)
        stack, scores = 0, []
        sources.append(str(gru.SOURCES / "gru_scores.c"))
        for part in parts(samples):
            write_samples(part, folder)
            compile_for(machine, folder, *sources, **options)
            *numbers, _, _, used = emulate(machine, folder, count=False)
            scores.append(np.array(numbers, np.uint32).view(np.float32).reshape(len(part), -1))
            stack = max(stack, int(used))
        write_samples(samples[:COUNTED], folder)
        compile_for(machine, folder, *sources, **options)
        *_, ticks, last, _ = (int(n) for n in emulate(machine, folder, count=True))
    away = float(np.abs(np.concatenate(scores) - expected).max())
    if away > 1e-3:
        raise RuntimeError(f"the machine's scores are {away:g} away from PyTorch's")
    return {
        "cpu": machine.cpu,
        "board": machine.board,
        "optimize": "-O2",
        "float": "unit" if flags else "library",
        "equal": int((np.concatenate(scores).argmax(1) == expected.argmax(1)).sum()),
        "step": asdict(linked(told)),
        "stack": stack,
        "run_instructions": instructions(machine, ticks, COUNTED),
        "step_instructions": instructions(machine, ticks, COUNTED * samples.shape[1]),
        "last_step_instructions": instructions(machine, last, 1),
    }


def write_samples(samples: NDArray[np.uint8], folder: Path) -> None:
    """Writes uint8 [N, T, features] as the samples of ``gru_scores.c``."""
    rows = ",\n".join(
        "{" + ",".join(map(str, row)) + "}" for row in samples.reshape(len(samples), -1).tolist()
    )
    (folder / "samples.h").write_text(
        f"#define SAMPLES {len(samples)}\n#define FRAMES {samples.shape[1]}\n"
        f"static const uint8_t samples[SAMPLES][FRAMES * GRU_INPUTS] = {{\n{rows}}};\n"
    )


def version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0]


def table(found: dict[str, Any]) -> str:
    """The builds in Markdown."""
    head = (
        "| | accuracy | flash, run / step | RAM, run / step | stack "
        "| instructions, run of T / step / last step | equal |"
    )
    rows = [_row(b, found["accuracy"], found["samples"]) for b in found["builds"]]
    beside = found.get("gru", {"builds": [], "accuracy": 0.0})
    rows += [
        _row(b, beside["accuracy"], found["samples"], f"GRU, floats by {b['float']}, ")
        for b in beside["builds"]
    ]
    return "\n".join([head, "| --- " * 7 + "|", *rows])


def _row(b: dict[str, Any], accuracy: float, samples: int, what: str = "") -> str:
    run = b.get("run", b["step"])
    return (
        f"| {what}{b['cpu']} {b['optimize']} | {accuracy} | "
        f"{run['flash']:,} / {b['step']['flash']:,} | "
        f"{run['ram']:,} / {b['step']['ram']:,} | {b['stack']:,} | "
        f"{b['run_instructions']:,} / {b['step_instructions']:,} / {b['last_step_instructions']:,} | "
        f"{b['equal']} of {samples} |"
    )


if __name__ == "__main__":
    main()
