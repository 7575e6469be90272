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
        run_instructions, step_instructions: of the last sample's run and last step, to some 100; None if not
            counted.
        stack: bytes of stack that were used, those of the printing program included.
    """

    run: NDArray[np.int64]
    step: NDArray[np.int64]
    run_instructions: int | None
    step_instructions: int | None
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
    told = compile_for(machine, folder, "footprint.c", "net.c", "mfp_int.c", optimize=optimize, flags=flags)
    used = dict(re.findall(r"(FLASH|RAM): +(\d+) B", told))
    return Footprint(int(used["FLASH"]), int(used["RAM"]))


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
    command = [tool("qemu-system-arm"), "-M", machine.board, "-display", "none", "-monitor", "none"]
    command += ["-serial", "none", "-chardev", "stdio,id=out", "-kernel", "program.elf"]
    command += ["-semihosting-config", "enable=on,target=native,chardev=out"]
    printed = run(command + (["-icount", "shift=0"] if count else []), folder)
    return _read(printed, machine, graph, len(samples), count)


def _read(printed: bytes, machine: Machine, graph: Graph, samples: int, count: bool) -> Found:
    numbers = np.array([int(line, 16) for line in printed.split()], np.uint64).view(np.int64)
    each, took = numbers[:-3].reshape(samples, -1), numbers[-3:]
    whole, steps = np.split(each, [written(graph)], axis=1)
    # -icount shift=0 takes a nanosecond for an instruction
    ticks = [int(n) * 1_000_000_000 // machine.clock for n in took[:2]]
    return Found(
        whole,
        steps.reshape(samples, -1, classes(graph)),
        ticks[0] if count else None,
        ticks[1] if count else None,
        int(took[2]),
    )
