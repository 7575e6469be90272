"""The exponential neuron on the CUDA kernels (kernels/cuda/exponential.cu)."""

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels import device as cuda
from ..kernels.device import Field, Kernel, Launch
from ._call import Call, Gradients, accumulate_dtype
from ._cuda_call import MASKED, chosen, cpp, packed, surrogate
from ._cuda_launch import (
    NO_SUMS,
    THREADS,
    TYPES,
    Groups,
    Sums,
    finish,
    grouped,
    groups,
    looped,
    per_channel,
    strided,
)
from ._rows import Rows, Seen

FEW, MANY = 4, 16  # steps a thread holds
SEGMENTS = 16  # of a block, at most
SUMS = 4  # of spikes, of the adjoint, of input, of the potential before

# False: one thread goes through all of a neuron's steps, which is what the scan is measured against
TIME_PARALLEL = True


class Tiling(NamedTuple):
    """Steps a thread, lanes and segments a block, chunks of time; as kernels/cuda/scan.cuh has them."""

    held: int
    lanes: int
    segments: int
    chunks: int
    serial: bool

    @classmethod
    def of(cls, steps: int) -> "Tiling":
        """The same for forward and backward: then both compute the very same potential."""
        if steps <= FEW:
            return cls(FEW, THREADS, 1, 1, False)
        if steps <= MANY:
            return cls(MANY, THREADS, 1, 1, False)
        if not TIME_PARALLEL:
            return cls(MANY, 32, 1, ceil(steps / MANY), True)
        segments = 1 << (min(SEGMENTS, ceil(steps / MANY)) - 1).bit_length()  # blocks add up halves
        return cls(MANY, THREADS // segments, segments, ceil(steps / (MANY * segments)), False)


# many steps of neurons with parameters of their own each do not fit the registers: those go one by one
def forward_width(dtype: torch.dtype, held: int) -> int:
    """Neurons a thread at most: 16 bytes' worth, less where many steps fill the registers."""
    if held == FEW:
        return 16 // dtype.itemsize
    return 1 if dtype == torch.float64 else 2


def backward_width(dtype: torch.dtype, held: int, sums: bool) -> int:
    """Neurons a thread at most."""
    if held == FEW:
        return 2 if dtype == torch.float64 else 4
    return 1 if sums or dtype.itemsize > 2 else 2


def forward(
    x: Tensor, call: Call, rows: Rows, spikes: Tensor | None, u: Tensor | None, mask: Tensor | None
) -> None:
    """Writes spikes, u ([T, N, *], or [1, N, *]: the last step's) and the mask, those that are not None."""
    tiling = Tiling.of(len(x))
    wide, masked = accumulate_dtype(x.dtype), mask is not None
    seen_x, seen_u, seen_spikes = rows.see_each(x, u, spikes)
    state = _seen_state(call, rows, wide)
    of = groups(
        rows,
        forward_width(x.dtype, tiling.held),
        (seen_x, seen_u, seen_spikes, state),
        masked,
        tiling.held == FEW,
    )
    name = f"exp_forward<{TYPES[x.dtype]}, {of.width}, {tiling.held}, {cpp(of.along)}>"
    plan = _Plan(x, of, tiling, backward=False, ends=0)
    plan.run(
        name,
        [
            *strided(seen_x), *strided(state), *strided(seen_spikes), *strided(seen_u), *packed(mask),
            *strided(None), *strided(None), *_parameters(call, wide), int(u is not None and len(u) == len(x)),
            int(call.strict), *surrogate(call, masked, masked)[1], *NO_SUMS,
        ],
    )  # fmt: skip
    finish(rows, (seen_u, u), (seen_spikes, spikes))


def backward(
    grad_spikes: Tensor | None,
    grad_u: Tensor | None,
    x: Tensor | None,
    mask: Tensor | None,
    call: Call,
    rows: Rows,
    like: Tensor,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients where ``needs`` asks; grad_u [T, N, *] or [1, N, *]; like: shape, dtype and strides of x."""
    need_x, need_kernel, need_threshold, need_state, need_scale, need_shift = needs
    wide = accumulate_dtype(like.dtype)
    kind, constants = surrogate(call, grad_spikes is not None, mask is not None)
    summing = need_kernel or need_scale or need_shift or (need_threshold and grad_spikes is not None)
    tiling = Tiling.of(rows.steps)
    gx = torch.empty_like(like) if need_x else None
    gstate = torch.empty((1, *like.shape[1:]), dtype=wide, device=like.device) if need_state else None
    reads = x if summing or kind < MASKED else None
    seen_x, seen_ds, seen_du, seen_gx, seen_gstate = rows.see_each(reads, grad_spikes, grad_u, gx, gstate)
    state = _seen_state(call, rows, wide) if reads is not None else None
    of = groups(
        rows,
        backward_width(like.dtype, tiling.held, summing),
        (seen_x, seen_ds, seen_du, seen_gx, seen_gstate, state),
        mask is not None,
        tiling.held == FEW,
    )
    instance = f"{of.width}, {tiling.held}, {cpp(of.along)}, {kind}, {cpp(summing)}"
    name = f"exp_backward<{TYPES[like.dtype]}, {instance}>"
    plan = _Plan(like, of, tiling, backward=True, ends=tiling.chunks - 1 if reads is not None else 0)
    sums = plan.sums(like) if summing else None
    plan.run(
        name,
        [
            *strided(seen_x), *strided(state), *strided(seen_ds), *strided(seen_du), *packed(mask),
            *strided(seen_gx), *strided(seen_gstate), *_parameters(call, wide),
            int(grad_u is not None and len(grad_u) == rows.steps), int(call.strict), *constants,
            *(NO_SUMS if sums is None else sums.fields),
        ],
    )  # fmt: skip
    finish(rows, (seen_gx, gx), (seen_gstate, gstate))
    found = {} if sums is None else _parameter_gradients(call, sums)
    if gstate is not None and call.state is not None:
        found["state"] = gstate[0].to(call.state.dtype)
    return chosen(gx, found, call, needs)


class _Plan:
    """Which block does what: tiles, chunks, and what they hand each other."""

    def __init__(self, like: Tensor, of: Groups, tiling: Tiling, backward: bool, ends: int) -> None:
        self.of, self.tiling, self.device = of, tiling, like.device
        self.steps = of.rows.steps
        self.lanes = tiling.lanes
        if tiling.segments == tiling.chunks == 1 and of.total < 128 * THREADS:
            self.lanes = 64  # few neurons: spread them over the GPU
        self.tiles = ceil(of.total / self.lanes)
        self.blocks, self.rounds = self.tiles, 1
        self.words: Tensor | None = None
        self.ticket: Tensor | None = None
        if tiling.chunks > 1:
            halves = accumulate_dtype(like.dtype).itemsize // 4
            directions = 2 if backward else 1
            words = directions * tiling.chunks * self.tiles * self.lanes * of.width * halves
            both = torch.zeros(words + 1, dtype=torch.int64, device=like.device)
            self.words = both[:words]
            if not tiling.serial:
                self.ticket = both[words:]
                self.blocks = self.tiles * (tiling.chunks + ends)

    def sums(self, like: Tensor) -> Sums:
        """Room for the sums; where a block has no fixed chunk it loops over tiles."""
        if self.ticket is not None:
            return Sums(like, SUMS, self.tiling.chunks, self.tiles, self.lanes, self.of)
        if not self.tiling.serial:
            self.blocks = looped(self.tiles, self.lanes, self.of)
        return Sums(like, SUMS, 1, self.blocks, self.lanes, self.of)

    def run(self, name: str, fields: list[Field]) -> None:
        tiling = self.tiling
        chunks: list[Field] = [
            self.steps, tiling.chunks, self.tiles, int(tiling.serial), self.ticket, self.words,
        ]  # fmt: skip
        cuda.launch(
            self.device,
            Launch(
                Kernel("exponential.cu", "mfp::" + name),
                (self.blocks, 1, 1),
                (self.lanes, tiling.segments, 1),
                [*self.of.fields, *chunks, *fields],
            ),
        )


def _parameters(call: Call, wide: torch.dtype) -> list[Field]:
    decay, gain = call.kernel.unbind(0)
    rows = (decay, gain, call.threshold, call.scale, call.shift)
    return [field for row in rows for field in per_channel(row, wide)]


def _seen_state(call: Call, rows: Rows, wide: torch.dtype) -> Seen | None:
    return None if call.state is None else rows.see_step(call.state.to(wide))


def _parameter_gradients(call: Call, sums: Sums) -> dict[str, Tensor]:
    """All of them, from sums over each channel; in float64."""
    of_spikes, adjoint, of_input, before = sums.totals().unbind(0)
    given = (
        of_input if call.scale is None or call.shift is None else call.scale * of_input + call.shift * adjoint
    )
    groups, gain = call.kernel.shape[1], call.kernel[1].double()
    found = {"kernel": torch.stack([grouped(before, groups), grouped(given, groups)])}
    if call.threshold is not None:
        found["threshold"] = -grouped(of_spikes, call.threshold.numel())
    if call.scale is not None:
        found["scale"] = grouped(gain * of_input, call.scale.numel())
        found["shift"] = grouped(gain * adjoint, call.scale.numel())
    return found
