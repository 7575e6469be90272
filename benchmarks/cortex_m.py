"""Flash, RAM and instructions of a trained network on a Cortex-M4 and a Cortex-M0; do its scores agree?

    python -m benchmarks.cortex_m CHECKPOINT [--out benchmarks/results/cortex_m.json]

CHECKPOINT is the digits network of `make demo`, or another one that mfp-neurons can deploy. Needs
arm-none-eabi-gcc and qemu-system-arm. Every test sample is run and streamed, and every score has to be the
interpreter's. Flash and RAM are what the linker prints of the smallest program around the network: with
vectors, start-up code, input and scores, without the stack. Instructions are QEMU's count; most take a
Cortex-M4 one cycle.
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.interpret import run as interpret
from mfp_neurons.train.deployment import Deployed, lower_checkpoint
from tests.deploy.cortex import M0, M4, Machine, footprint, score

COUNTED = 10  # samples of which instructions are counted, which takes QEMU longer
LEVELS = ("-Os", "-O2")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cortex_m.json"))
    args = parser.parse_args()
    deployed = lower_checkpoint(args.checkpoint)
    found = measure(deployed)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def measure(deployed: Deployed) -> dict[str, Any]:
    """Everything that is found out, ready for JSON."""
    graph = deployed.network.graph
    levels = levels_of(deployed)
    memory = deployed.network.memory()
    return {
        "samples": len(levels),
        "steps": graph.steps,
        "accuracy": accuracy(deployed),
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
        found = score(machine, graph, levels, folder, optimize=level)
        check(found.run, found.step, graph, levels)
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
        "stack": found.stack,
        "run_instructions": counted.run_instructions,
        "step_instructions": counted.step_instructions,
    }


def check(run: NDArray[np.int64], step: NDArray[np.int64], graph: Graph, levels: NDArray[np.uint8]) -> None:
    (scores,), _ = interpret(graph, np.moveaxis(levels, 1, 0).astype(np.int64), graph.steps)
    every = np.moveaxis(scores, 1, 0).reshape(step.shape)
    summed = graph.scores.reduce != "none"
    expected = (
        every[:, -(graph.scores.last or graph.steps) :].sum(axis=1) if summed else every.reshape(run.shape)
    )
    if not ((run == expected).all() and (step == every).all()):
        raise RuntimeError("the machine gives other scores than the interpreter")


def levels_of(deployed: Deployed) -> NDArray[np.uint8]:
    """The test split, uint8 [N, T or 1, C, H, W]."""
    input_ = deployed.network.graph.input
    x = deployed.data.integer_input(deployed.data.test.samples).mul(input_.top).round().byte().numpy()
    x = x[None] if input_.static else x
    return np.moveaxis(x.reshape(*x.shape[:2], *input_.shape), 1, 0)


def accuracy(deployed: Deployed) -> float:
    """Percent of the test split."""
    answers = deployed.network.run(deployed.data.integer_input(deployed.data.test.samples)).argmax(1)
    return round(100 * float((answers == deployed.data.test.labels.numpy()).mean()), 2)


def version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0]


def table(found: dict[str, Any]) -> str:
    """The builds in Markdown."""
    head = "| | flash, run / step | RAM, run / step | stack | instructions, run of T / step | equal |"
    rows = [
        f"| {b['cpu']} {b['optimize']} | {b['run']['flash']:,} / {b['step']['flash']:,} | "
        f"{b['run']['ram']:,} / {b['step']['ram']:,} | {b['stack']:,} | "
        f"{b['run_instructions']:,} / {b['step_instructions']:,} | {b['equal']} of {found['samples']} |"
        for b in found["builds"]
    ]
    return "\n".join([head, "| --- " * 6 + "|", *rows])


if __name__ == "__main__":
    main()
