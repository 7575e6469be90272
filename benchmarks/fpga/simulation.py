"""A network's Verilog in Verilator: every spike of every layer and every score beside the interpreter's."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy import IntegerNetwork, interpret
from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.verilog.streams import ways

from .tools import call

Ints = NDArray[np.int64]
HERE = Path(__file__).parent
PART = 100  # samples that a program compares: the numbers of all layers are kept as 64 bits each


class Design(Protocol):
    """What is measured.

    Attributes:
        graph: its layers.
    """

    @property
    def graph(self) -> Graph: ...

    def run(self, levels: Ints, steps: int) -> tuple[Ints, list[Ints]]:
        """Scores and all maps [T, N, C, H, W], the input first, of inputs [T, N, C, H, W]."""

    def to_verilog(self, folder: Path, *, name: str, lanes: int) -> list[Path]:
        """Writes it; returns the files, NAME.v first."""


@dataclass(frozen=True)
class MemoryFree:
    """A network of neurons without a potential, as it is."""

    network: IntegerNetwork

    @property
    def graph(self) -> Graph:
        return self.network.graph

    def run(self, levels: Ints, steps: int) -> tuple[Ints, list[Ints]]:
        (scores,), maps = interpret.run(self.graph, levels, steps)
        return scores, maps

    def to_verilog(self, folder: Path, *, name: str, lanes: int) -> list[Path]:
        return self.network.to_verilog(folder, name=name, lanes=lanes)


@dataclass(frozen=True)
class Simulated:
    """What a simulation of samples, each of which begins with a reset, showed.

    Attributes:
        samples, numbers: how many were compared; all were equal.
        cycles: of all samples together.
        cycles_a_step: clock cycles from one step of inputs to the next, while a sequence goes on.
        cycles_a_sample: from a reset to the last score.
        seconds: of a processor that the simulation took.
    """

    samples: int
    numbers: int
    cycles: int
    cycles_a_step: float
    cycles_a_sample: float
    seconds: float


def simulate(
    design: Design, levels: NDArray[np.integer], steps: int, folder: Path, *, lanes: int
) -> Simulated:
    """Writes a network into ``folder`` and runs it there on inputs [T, N, C, H, W].

    Raises:
        RuntimeError: a spike or a score is not that of ``design.run``, or there is no end.
    """
    graph = design.graph
    files = design.to_verilog(folder, name="net", lanes=lanes)
    program = _build(graph, [file.name for file in files if file.suffix == ".v"], folder)
    samples = levels.shape[1]
    own_steps = [steps // period for period in graph.periods]
    sizes = [own_steps[i] * prod(graph.map_shape(i)) for i in _inner(graph)]
    sizes.append(own_steps[-1] * prod(graph.scores.shape))
    inputs = prod(graph.input.shape) * steps

    def compare(part: NDArray[np.integer]) -> list[int]:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            _write_numbers(design, part, steps, Path(name))
            said = call([program, name, str(part.shape[1]), str(inputs), *map(str, sizes)], folder)
        return [int(number) for number in said.split()]

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = list(pool.map(compare, _parts(levels)))
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    different, cycles, spread = (sum(numbers) for numbers in zip(*counted, strict=True))
    if different:
        raise RuntimeError(f"{different:,} of {samples * sum(sizes):,} numbers are not those expected")
    # the first step of scores comes after as many steps of inputs as pooling over time makes one of
    between = steps - graph.periods[-1]
    return Simulated(
        samples=samples,
        numbers=samples * sum(sizes),
        cycles=cycles,
        cycles_a_step=round(spread / samples / between, 1) if between else cycles / samples,
        cycles_a_sample=round(cycles / samples, 1),
        seconds=round(seconds, 1),
    )


def _build(graph: Graph, modules: Sequence[str], folder: Path) -> str:
    """Compiles net.v and its parts with their probe; returns the program."""
    (folder / "probe.v").write_text(_probe(graph))
    shutil.copy(HERE / "simulation.cpp", folder)
    classes = prod(graph.scores.shape)
    flags = ["--cc", "--exe", "--build", "-O3", "-Wno-lint", "-Wno-style", "--top-module", "probe"]
    sources = ["probe.v", *modules, "simulation.cpp"]
    call(["verilator", *flags, "-CFLAGS", f"-O2 -DSCORES={classes}", *sources], folder)
    return str(folder / "obj_dir" / "Vprobe")


def _inner(graph: Graph) -> list[int]:
    """The maps that a score depends on: those have a stream."""
    return sorted({way.source for way in ways(graph)} - {0})


def _probe(graph: Graph) -> str:
    """A module around net that shows what moves in each of its streams, with 64 bits a number."""
    streams = [(f"net.valid_{i} && net.ready_{i}", f"64'(net.data_{i})") for i in _inner(graph)]
    streams.append(("net.out_valid && net.out_ready", "64'($signed(net.out_data))"))
    last = len(streams) - 1
    lines = [
        "module probe (",
        "    input wire clk, input wire rst, input wire in_valid, output wire in_ready,",
        f"    input wire [{graph.input.top.bit_length() - 1}:0] in_data, input wire out_ready,",
        f"    output wire moves [0:{last}], output wire [63:0] numbers [0:{last}]",
        ");",
        "    net net (.clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_data(in_data),",
        "        .out_valid(), .out_ready(out_ready), .out_data());",
    ]
    for i, (moves, number) in enumerate(streams):
        lines += [f"    assign moves[{i}] = {moves};", f"    assign numbers[{i}] = {number};"]
    return "\n".join([*lines, "endmodule", ""])


def _parts(levels: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
    return (levels[:, start : start + PART] for start in range(0, levels.shape[1], PART))


def _write_numbers(design: Design, levels: NDArray[np.integer], steps: int, folder: Path) -> None:
    graph = design.graph
    scores, maps = design.run(levels.astype(np.int64), steps)
    frames = np.broadcast_to(levels, (steps, *levels.shape[1:]))
    _write(folder / "inputs.bin", frames)
    streams = [(maps[i], graph.periods[i]) for i in _inner(graph)] + [(scores, graph.periods[-1])]
    for i, (numbers, period) in enumerate(streams, start=1):
        own = np.broadcast_to(numbers, (steps // period, *numbers.shape[1:]))
        _write(folder / f"expected_{i}.bin", own)


def _write(path: Path, numbers: NDArray[np.integer]) -> None:
    """[T, N, C, H, W], sample after sample, channels fastest."""
    np.ascontiguousarray(numbers.transpose(1, 0, 3, 4, 2).astype(np.int64)).tofile(path)
