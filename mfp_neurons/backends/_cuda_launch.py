"""How a call's neurons are dealt to CUDA threads, and the second stage of its sums."""

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels import device as cuda
from ..kernels.device import Field, Kernel, Launch
from ._rows import Rows, Seen

THREADS = 256  # of a block
BLOCKS = 1024  # that fill a GPU several times over: more loop no more, fewer leave it idle
ROUNDS = 32  # neurons a thread sums up at most, so that float32 sums stay short

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "mfp::Half",
    torch.bfloat16: "mfp::BFloat",
}


class Groups(NamedTuple):
    """Neurons in groups of ``width`` that lie side by side; see Columns in kernels/cuda/common.cuh."""

    rows: Rows
    width: int
    each: int  # groups a run
    along: bool  # the channels change within a group

    @property
    def total(self) -> int:
        return self.rows.outer * self.each

    @property
    def fields(self) -> list[Field]:
        rows = self.rows
        return [rows.outer, rows.run, self.each, rows.channels, rows.repeat]

    @property
    def unit(self) -> int:
        """Numbers side by side of one channel, where each thread has one number a channel of its group."""
        return 1 if self.along else max(1, self.rows.repeat // self.width)

    @property
    def period(self) -> int:
        """Neurons after which the channels repeat."""
        return self.rows.channels * self.rows.repeat

    @property
    def numbers(self) -> int:
        """Channels of a group."""
        return self.width if self.along else 1


def groups(
    rows: Rows, width: int, seen: Sequence[Seen | None], masked: bool = False, may_run_along: bool = True
) -> Groups:
    """The widest groups of up to ``width`` neurons, a power of two, that places in memory and channels allow."""
    along = rows.channels > 1 and rows.repeat == 1
    if along and not may_run_along:
        width = 1
    period = rows.run if rows.channels == 1 else rows.channels if along else rows.repeat
    while period % width or not all(_fits(s, width, rows.outer) for s in seen if s is not None):
        width //= 2
    run = -(-rows.run // 8) * 8 if masked else rows.run  # the threads of a mask's byte sit side by side
    return Groups(rows, width, run // width, along and width > 1)


def _fits(seen: Seen, width: int, outer: int) -> bool:
    tensor, time, run, _ = seen
    size = min(16, width * tensor.element_size())
    apart = run % width == 0 or outer == 1
    return tensor.data_ptr() % size == 0 and time % width == 0 and apart


def strided(seen: Seen | None) -> list[Field]:
    """A tensor as the kernels take it; three zeros where a call has none."""
    return [None, 0, 0] if seen is None else [seen.tensor, seen.time_stride, seen.run_stride]


def finish(rows: Rows, *written: tuple[Seen | None, Tensor | None]) -> None:
    """Brings home what was written to a copy of a tensor."""
    for seen, tensor in written:
        if seen is not None and tensor is not None:
            rows.finish(seen, tensor)


def per_channel(value: Tensor | None, wide: torch.dtype) -> list[Field]:
    """A parameter [1] or [C] as the kernels take it."""
    if value is None:
        return [None, 0]
    return [value.to(wide), value.stride(0) if value.numel() > 1 else 0]


def looped(tiles: int, lanes: int, of: Groups) -> int:
    """Blocks that go through all tiles such that each of a thread's neurons has the same channels."""
    whole = of.period // gcd(of.period, lanes * of.width)
    return min(tiles, -(-max(BLOCKS, tiles // ROUNDS) // whole) * whole)


class Sums:
    """Room for a kernel's sums, which :meth:`totals` adds up for each channel; see kernels/cuda/sums.cuh."""

    def __init__(self, x: Tensor, count: int, rows: int, blocks: int, lanes: int, of: Groups) -> None:
        self.of, self.count, self.rows, self.left = of, count, rows, lanes
        while self.left > 1 and self.left // 2 * of.width % of.period == 0:
            self.left //= 2
        self.width = blocks * self.left * of.numbers
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.data = torch.empty(count * rows * self.width, dtype=wide, device=x.device)

    @property
    def fields(self) -> list[Field]:
        return [self.data, self.rows, self.width, self.left]

    def totals(self) -> Tensor:
        """[count, C], float64."""
        return total(self.data, self.count, self.rows, self.width, self.of.rows.channels, self.of.unit)


NO_SUMS: list[Field] = [None, 0, 0, 1]


def total(data: Tensor, count: int, rows: int, width: int, channels: int, unit: int) -> Tensor:
    """Sums [count, rows, width] over rows and the numbers of each channel: [count, channels], float64."""
    out = torch.empty(count, channels, dtype=torch.float64, device=data.device)
    across = 32 if unit == 1 and channels > 1 else 1  # channels side by side are read side by side
    kernel = Kernel("sums.cu", f"mfp::total<{TYPES[data.dtype]}>")
    fields: list[Field] = [data, rows, width, 1, channels, unit, across, out]
    cuda.launch(data.device, Launch(kernel, (-(-channels // across), count, 1), (THREADS, 1, 1), fields))
    return out


def grouped(total: Tensor, count: int) -> Tensor:
    """[C] summed to [1] for a parameter of all channels, else as it is."""
    return total if total.numel() == count else total.sum().reshape(1)
