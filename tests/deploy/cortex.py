"""Networks on an emulated Cortex-M: compiled without a C library, run by QEMU, measured by the linker."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy.device.codegen import write_c
from mfp_neurons.deploy.graph import Graph
from tests.deploy.native import classes, written
from tests.deploy.toolchain import STRICT, run, tool

BOARD = Path(__file__).parent / "cortex_m"


@dataclass(frozen=True)
class Machine:
    """A board that QEMU knows: processor, clock in Hz."""

    board: str
    cpu: str
    clock: int


M4 = Machine("mps2-an386", "cortex-m4", 25_000_000)
M0 = Machine("microbit", "cortex-m0", 16_000_000)
M0_CODE_ON_M4 = Machine("mps2-an386", "cortex-m0", 25_000_000)  # has room for large random networks
TARGET = ("-mthumb", "-ffreestanding")


@dataclass(frozen=True)
class Found:
    """What a network did on a machine.

    Attributes:
        run: int64 [N, scores].
        step: int64 [N, T, classes], T being the scores' own steps.
        run_instructions, step_instructions: of a run and of a step, in the mean, to some 100; None if not
            counted.
        last_step_instructions: of the last sample's last step, in which every layer computes.
        stack: bytes of stack that were used, those of the printing program included.
    """

    run: NDArray[np.int64]
    step: NDArray[np.int64]
    run_instructions: int | None
    step_instructions: int | None
    last_step_instructions: int | None
    stack: int


@dataclass(frozen=True)
class Footprint:
    """Bytes that a program takes; the stack is not in them."""

    flash: int
    ram: int


def compile_for(
    machine: Machine, folder: Path, *sources: str, optimize: str = "-Os", flags: tuple[str, ...] = ()
) -> str:
    """Links programs of C files in ``folder`` or beside the board's; returns what the linker prints."""
    files = [folder / s if (folder / s).exists() else BOARD / s for s in (*sources, "board.c")]
    command = [tool("arm-none-eabi-gcc"), f"-mcpu={machine.cpu}", *TARGET, *STRICT, optimize, *flags]
    command += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-Wl,--print-memory-usage"]
    command += [f"-I{folder}", f"-I{BOARD}", *map(str, files), f"-L{BOARD}", f"-T{machine.board}.ld"]
    command += ["-nostdlib", "-lgcc", "-o", "program.elf"]
    return run(command, folder).decode()


def footprint(
    machine: Machine, graph: Graph, folder: Path, *, stream: bool, optimize: str = "-Os"
) -> Footprint:
    """What the linker says of the smallest program that runs, or streams, a network."""
    write_c(graph, folder, name="net")
    flags = ("-DSTREAM",) if stream else ()
    return linked(
        compile_for(machine, folder, "footprint.c", "net.c", "mfp_int.c", optimize=optimize, flags=flags)
    )


def linked(told: str) -> Footprint:
    """From what the linker prints."""
    units = {"B": 1, "KB": 1024, "MB": 1024**2}  # it takes the largest that says it exactly
    used = {
        region: int(number) * units[unit]
        for region, number, unit in re.findall(r"(FLASH|RAM): +(\d+) (B|KB|MB)", told)
    }
    return Footprint(used["FLASH"], used["RAM"])


def score(
    machine: Machine,
    graph: Graph,
    samples: NDArray[np.uint8],
    folder: Path,
    *,
    count: bool = False,
    optimize: str = "-Os",
) -> Found:
    """Runs and streams samples on a machine.

    Args:
        machine: where.
        graph: a network.
        samples: its input for each sample, uint8 [N, T or 1, C, H, W].
        folder: for the sources and the program.
        count: count instructions, which takes longer.
        optimize: the compiler's level.
    """
    write_c(graph, folder, name="net")
    rows = ",\n".join(
        "{" + ",".join(map(str, sample)) + "}" for sample in samples.reshape(len(samples), -1).tolist()
    )
    (folder / "samples.h").write_text(
        f"#define SAMPLES {len(samples)}\n"
        f"static const {graph.input.dtype}_t samples[SAMPLES]"
        f"[NET_INPUT_BYTES / {graph.input.dtype.itemsize}] = {{\n{rows}}};\n"
    )
    compile_for(machine, folder, "scores.c", "net.c", "mfp_int.c", optimize=optimize)
    return _read(emulate(machine, folder, count), graph, len(samples), machine if count else None)


def emulate(machine: Machine, folder: Path, count: bool) -> NDArray[np.uint64]:
    """The numbers that ``program.elf`` prints; with ``count`` a nanosecond is an instruction."""
    command = [tool("qemu-system-arm"), "-M", machine.board, "-display", "none", "-monitor", "none"]
    command += ["-serial", "none", "-chardev", "stdio,id=out", "-kernel", "program.elf"]
    command += ["-semihosting-config", "enable=on,target=native,chardev=out"]
    printed = run(command + (["-icount", "shift=0"] if count else []), folder)
    return np.array([int(line, 16) for line in printed.split()], np.uint64)


def instructions(machine: Machine, ticks: int, calls: int) -> int:
    """Of one of so many calls that took so many ticks together, where a nanosecond was an instruction."""
    return ticks * 1_000_000_000 // machine.clock // calls


def _read(printed: NDArray[np.uint64], graph: Graph, samples: int, counted: Machine | None) -> Found:
    numbers = printed.view(np.int64)
    each, took = numbers[:-4].reshape(samples, -1), [int(n) for n in numbers[-4:]]
    whole, steps = np.split(each, [written(graph)], axis=1)
    calls = (samples, samples * graph.steps, 1)
    counts = [
        None if counted is None else instructions(counted, *one) for one in zip(took, calls, strict=False)
    ]
    return Found(whole, steps.reshape(samples, -1, classes(graph)), *counts, took[3])
