"""Runs the compiled runtime of another processor: what a call takes is written to memory of known addresses.

A program for that processor reads it there, runs the call and prints the scores.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mfp_neurons.deploy.host import compiled
from mfp_neurons.deploy.host.structs import FOLDER, STRUCTS
from tests.deploy.agreement import shared_out
from tests.deploy.graphs import Case
from tests.deploy.toolchain import run, tool

BASE = 0x2_0000_0000  # far from where programs and their libraries lie
_PROGRAM = """\
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include "network.h"

void RUN(const Call *call);

int main(void)
{
    int64_t head[4]; /* bytes in all, where the call is, where its scores are, how many */
    while (fread(head, sizeof *head, 4, stdin) == 4) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        char *at = mmap((void *)BASE, (size_t)head[0], PROT_READ | PROT_WRITE, flags, -1, 0);
        if (at != (void *)BASE || fread(at, 1, (size_t)head[0], stdin) != (size_t)head[0]) return 2;
        RUN((const Call *)head[1]);
        fwrite((const void *)head[2], 8, (size_t)head[3], stdout);
        munmap(at, (size_t)head[0]);
    }
    return 0;
}
"""


class Image:
    """A call with all that it points to, as the bytes from BASE on."""

    def __init__(self, call: Any, arrays: Sequence[Any]) -> None:
        self._bytes = bytearray()
        self._arrays = {address(array): array for array in arrays}
        self._samples, self._steps = call.samples, call.count
        maps = [self._map(m) for m in (STRUCTS["Map"] * call.map_count).from_address(call.maps)]
        ops = (STRUCTS["Op"] * call.op_count).from_address(call.ops)
        first = (STRUCTS["Map"] * call.map_count).from_address(call.maps)[0]
        frames = call.samples * first.channels * first.height * first.width * (first.bytes or 1)
        moved = STRUCTS["Call"].from_buffer_copy(call)
        moved.levels = self._place(ctypes.string_at(call.levels, frames * (1 if first.same else call.count)))
        moved.maps = self._place(b"".join(maps))
        moved.ops = self._place(b"".join(map(bytes, map(self._struct, ops))))
        room = call.count * call.samples * sum(op.channels * op.height * op.width for op in ops)
        self.scores = moved.scores = self._place(bytes(8 * room))
        moved.scratch = self._place(bytes(call.threads * call.scratch_bytes))
        self.call = self._place(bytes(moved))

    def given(self, scores: int) -> bytes:
        """What the program reads."""
        size = len(self._bytes) + 64  # the C may read a few bytes behind a map
        head = np.array([size, self.call, self.scores, scores], np.int64)
        return head.tobytes() + bytes(self._bytes) + bytes(64)

    def _place(self, data: bytes) -> int:
        self._bytes += bytes(-len(self._bytes) % 64)
        start = BASE + len(self._bytes)
        self._bytes += data
        return start

    def _map(self, m: Any) -> bytes:
        numbers = m.channels * m.bytes if m.bytes else 8 * m.planes * m.words
        moved = type(m).from_buffer_copy(m)
        moved.data = self._place(bytes(self._samples * m.slots * m.height * m.width * numbers))
        return bytes(moved)

    def _struct(self, struct: Any) -> Any:
        """A copy whose pointers are to copies."""
        moved = type(struct).from_buffer_copy(struct)
        for name, kind in struct._fields_:
            pointer = getattr(struct, name)
            if kind is ctypes.c_void_p and pointer:
                array = self._arrays[pointer]
                structs = isinstance(array, ctypes.Array)
                data = b"".join(map(bytes, map(self._struct, array))) if structs else array.tobytes()
                setattr(moved, name, self._place(data))
        return moved


def address(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else ctypes.addressof(array)


def image(case: Case, threads: int, monkeypatch: pytest.MonkeyPatch) -> Image:
    """What a run of a case takes, as it begins here."""
    made: list[Image] = []
    here = compiled.library()

    def record(call: Any) -> None:
        made.append(Image(call._obj, runtime.layout.arrays))

    with monkeypatch.context() as patch:
        patch.setattr(compiled, "library", lambda: replace(here, run=record))
        runtime = shared_out(case.graph)
        runtime.run(case.levels, case.steps, threads=threads)
    return made[0]


def scores(
    images: Sequence[Image], counts: Sequence[int], instructions: str, folder: Path
) -> list[NDArray[np.int64]]:
    """The first so many scores of each, from an emulated processor of 64-bit ARM."""
    (folder / "main.c").write_text(_PROGRAM)
    flags = [f"-DRUN=mfp_network_run_{instructions}", f"-DBASE={BASE}", f"-I{FOLDER}", "-O2", "-static"]
    made = folder / instructions
    compiler, emulator = tool("aarch64-linux-gnu-gcc"), tool("qemu-aarch64")
    run(
        [compiler, *flags, "-fopenmp-simd", "-pthread", "main.c", FOLDER / f"{instructions}.c", "-o", made],
        folder,
    )
    given = b"".join(one.given(count) for one, count in zip(images, counts, strict=True))
    printed = np.frombuffer(run([emulator, made], folder, given), np.int64)
    return np.split(printed, np.cumsum(counts)[:-1])
