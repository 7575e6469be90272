"""How a call's neurons are dealt to CUDA threads: groups, grids, a kernel's struct, and sums over blocks."""

from collections.abc import Sequence
from math import ceil, gcd
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels import device as cuda
from ..kernels.device import Field, Kernel, Launch
from ..surrogate import SURROGATES, kernel_number
from . import Call, accumulate_dtype
from .rows import Rows, RowView

THREADS = 256  # of a block
BLOCKS = 1024  # that fill a GPU several times over: more loop no more, fewer leave it idle
ROUNDS = 32  # neurons a thread sums up at most, so that float32 sums stay short

# what multiplies the spikes' gradient besides surrogates, by number in cuda/common.cuh
NO_SPIKES = len(SURROGATES)
DONE = NO_SPIKES + 1

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "mfp::Half",
    torch.bfloat16: "mfp::BFloat",
}


def cpp(value: bool) -> str:
    """A template argument."""
    return "true" if value else "false"


class Groups(NamedTuple):
    """Neurons in groups of ``width`` that lie side by side; see Columns in kernels/cuda/common.cuh."""

    rows: Rows
    width: int
    groups_per_run: int
    channels_within_group: bool  # whether the channels change within a group

    @classmethod
    def of(
        cls, rows: Rows, width: int, views: Sequence[RowView | None], channels_may_change: bool = True
    ) -> "Groups":
        """The widest groups of up to ``width`` neurons (a power of two) that memory and channels allow."""
        channels_change = rows.channels > 1 and rows.repeat == 1
        if channels_change and not channels_may_change:
            width = 1
        # a group lies within one run, and within one channel or within whole rounds of all of them
        period = rows.run if rows.channels == 1 else rows.channels if channels_change else rows.repeat
        while period % width or not all(_fits(view, width, rows.outer) for view in views if view is not None):
            width //= 2
        return cls(rows, width, rows.run // width, channels_change and width > 1)

    @property
    def total(self) -> int:
        return self.rows.outer * self.groups_per_run

    @property
    def fields(self) -> list[Field]:
        rows = self.rows
        return [rows.outer, rows.run, self.groups_per_run, rows.channels, rows.repeat]

    @property
    def template(self) -> str:
        """The template arguments V and ALONG of a kernel that holds no steps."""
        return f"{self.width}, {cpp(self.channels_within_group)}"

    @property
    def repeat(self) -> int:
        """Numbers side by side of one channel, where each thread has one number a channel of its group."""
        return 1 if self.channels_within_group else max(1, self.rows.repeat // self.width)

    @property
    def period(self) -> int:
        """Neurons after which the channels repeat."""
        return self.rows.channels * self.rows.repeat

    def grid_size(self, tiles: int, lanes: int) -> int:
        """Blocks that go through all tiles such that each of a thread's neurons has the same channels."""
        # a thread goes from tile to tile with one sum a channel: its strides are whole rounds of channels
        unit = self.period // gcd(self.period, lanes * self.width)
        return min(tiles, ceil(max(BLOCKS, tiles // ROUNDS) / unit) * unit)


def _fits(view: RowView, width: int, outer: int) -> bool:
    # an access of up to 16 bytes must be aligned wherever a group starts: in memory, in time, and in each run
    size = min(16, width * view.tensor.element_size())
    runs_fit = view.run_stride % width == 0 or outer == 1
    return view.tensor.data_ptr() % size == 0 and view.time_stride % width == 0 and runs_fit


class Sums:
    """Room for a kernel's sums, which :meth:`totals` adds up for each channel; see Partials in common.cuh."""

    def __init__(self, groups: Groups, dtype: torch.dtype, device: torch.device, count: int, rows: int,
                 blocks: int, lanes: int) -> None:  # fmt: skip
        self.groups, self.count, self.rows, self.left = groups, count, rows, lanes
        # halves of a block may be added up as long as what is left holds whole rounds of channels
        while self.left > 1 and self.left // 2 * groups.width % groups.period == 0:
            self.left //= 2
        self.width = blocks * self.left * (groups.width if groups.channels_within_group else 1)
        self.data = torch.empty(count * rows * self.width, dtype=accumulate_dtype(dtype), device=device)

    @property
    def fields(self) -> list[Field]:
        return [self.data, self.rows, self.width, self.left]

    def totals(self) -> Tensor:
        """[count, C], float64."""
        groups = self.groups
        return total(self.data, self.count, self.rows, self.width, groups.rows.channels, groups.repeat)


NO_SUMS: list[Field] = [None, 0, 0, 1]


def total(data: Tensor, count: int, rows: int, width: int, channels: int, repeat: int) -> Tensor:
    """Sums [count, rows, width] over rows and the numbers of each channel: [count, channels], float64."""
    out = torch.empty(count, channels, dtype=torch.float64, device=data.device)
    across = 32 if repeat == 1 and channels > 1 else 1  # channels side by side are read side by side
    kernel = Kernel("channels.cu", f"mfp::total<{TYPES[data.dtype]}>")
    fields: list[Field] = [data, rows, width, 1, channels, repeat, across, out]
    cuda.launch(data.device, Launch(kernel, (ceil(channels / across), count, 1), (THREADS, 1, 1), fields))
    return out


class Neurons:
    """A call's tensors as the CUDA kernels see them; what a kernel has no part of is None."""

    def __init__(self, call: Call) -> None:
        x, state = call.x, call.state
        self.call, self.dtype, self.wide = call, x.dtype, accumulate_dtype(x.dtype)
        self.rows = Rows(x, x.shape[2] if call.per_channel else 1)
        self.weights = call.kernel.to(self.wide)
        self.x: RowView | None = self.rows.view_rows(x)
        self.state: RowView | None = None
        self.before = 0  # inputs in the state of a finite history
        if state is not None and call.kind == "exp":
            self.state = self.rows.view_rows(state.to(self.wide).unsqueeze(0))
        elif state is not None:
            # inputs before and inputs now pass through the same loads, so in one dtype
            self.state, self.before = self.rows.view_rows(state.to(x.dtype)), len(state)
        self.spikes: RowView | None = None
        self.u: RowView | None = None
        self.gx: RowView | None = None
        self.g_state: RowView | None = None
        self.g_own: RowView | None = None
        self.g: RowView | None = None
        self.own: RowView | None = None
        if call.own_spikes is not None and len(call.own_spikes) > 0:
            self.own = self.rows.view_rows(call.own_spikes.to(x.dtype))
        self._written: list[tuple[RowView, Tensor]] = []

    def view(self, tensor: Tensor | None, written: bool = False) -> RowView | None:
        """A tensor [S, N, *] for a kernel to read, or to be ``written`` by it."""
        if tensor is None:
            return None
        view = self.rows.view_rows(tensor)
        if written:
            self._written.append((view, tensor))
        return view

    def scratch(self, steps: int | None = None, dtype: torch.dtype | None = None) -> RowView:
        """Room for one number a neuron and step, wide unless a dtype is named."""
        across = self.rows.outer * self.rows.run
        shape = (self.rows.steps if steps is None else steps, across)
        tensor = torch.empty(shape, dtype=dtype or self.wide, device=self.call.x.device)
        return RowView(tensor, across, self.rows.run, False)

    def groups(self, width: int, channels_may_change: bool = True) -> Groups:
        views = (self.x, self.state, self.own, self.spikes, self.u, self.gx, self.g_state, self.g_own)
        return Groups.of(self.rows, width, views, channels_may_change)

    def wide_or_single(self, width: int, channels_may_change: bool = True) -> Groups:
        """Groups of ``width`` neurons, or of one: of what is rarely between there are no instances."""
        groups = self.groups(width, channels_may_change)
        return groups if groups.width == width else self.groups(1)

    @property
    def feedback(self) -> list[Field]:
        """What a reset adds to the struct Call."""
        weights = self.call.feedback
        taps: list[Field] = [None, 0, 0]
        if weights is not None:
            weights = weights.to(self.wide)
            taps = [weights, weights.stride(0), weights.stride(1) if weights.shape[1] > 1 else 0]
        return [*taps, *strided(self.own), *strided(self.g_own)]

    def sums(self, groups: Groups, count: int, rows: int, blocks: int, lanes: int) -> Sums:
        return Sums(groups, self.dtype, self.call.x.device, count, rows, blocks, lanes)

    def launch(
        self, file: str, name: str, grid: tuple[int, int, int], block: tuple[int, int, int],
        groups: Groups, order: int, sums: list[Field], own: list[Field],
    ) -> None:  # fmt: skip
        """Runs one kernel on the struct Call of cuda/common.cuh, and what the kernel adds to it."""
        call = self.call
        # in the order of the struct: a new field of a call goes in here and there
        column = self.weights.stride(1) if self.weights.shape[1] > 1 else 0
        a, b = (0.0, 0.0) if call.surrogate is None else map(float, call.surrogate.kernel_constants)
        fields: list[Field] = [
            *groups.fields, self.rows.steps, self.before, order,
            *strided(self.x), *strided(self.state), *strided(self.spikes), *strided(self.u),
            *strided(self.gx), *strided(self.g_state), *strided(self.g),
            self.weights, self.weights.stride(0), column,
            *per_channel(call.threshold, self.wide), *per_channel(call.scale, self.wide),
            *per_channel(call.shift, self.wide),
            int(call.record), int(call.strict), a, b, *sums, *own,
        ]  # fmt: skip
        kernel = Kernel(file, f"mfp::{name}")
        cuda.launch(call.x.device, Launch(kernel, grid, block, fields))

    def copy_back(self) -> None:
        """Brings home what was written to copies of tensors."""
        for view, tensor in self._written:
            self.rows.copy_back(view, tensor)


def strided(view: RowView | None) -> list[Field]:
    """A tensor as the kernels take it; three zeros where a call has none."""
    return [None, 0, 0] if view is None else [view.tensor, view.time_stride, view.run_stride]


def per_channel(value: Tensor | None, wide: torch.dtype) -> list[Field]:
    """A parameter [1] or [C] as the kernels take it."""
    if value is None:
        return [None, 0]
    return [value.to(wide), value.stride(0) if value.numel() > 1 else 0]


def factor_of_spikes(call: Call, grad_spikes: Tensor | None) -> int:
    """The number of what multiplies the spikes' gradient."""
    return NO_SPIKES if grad_spikes is None or call.surrogate is None else kernel_number(call.surrogate)


def of_parameter(totals: Tensor, parameter: Tensor) -> Tensor:
    """Sums [C] as the gradient of a parameter [C], or of one [1] for all channels."""
    return totals if totals.numel() == parameter.numel() else totals.sum().reshape(1)
