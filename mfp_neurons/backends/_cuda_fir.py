"""A FIR neuron at rest of few steps on the CUDA kernels that hold them in registers (kernels/cuda/fir.cu)."""

from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..kernels import device as cuda
from ..kernels.device import Field, Kernel, Launch
from ._call import Call, Gradients, accumulate_dtype
from ._cuda_call import MASKED, chosen, cpp, packed, surrogate
from ._cuda_exp import FEW, MANY, forward_width
from ._cuda_launch import (
    NO_SUMS,
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

LANES = 128  # of a block
OTHER_SUMS = 3  # beside the taps: of spikes, of the adjoint, of input


def takes(call: Call, steps: int) -> bool:
    """Whether the registers hold the call."""
    return call.kind == "fir" and call.state is None and steps <= MANY


def backward_width(dtype: torch.dtype, held: int) -> int:
    """Neurons a thread at most."""
    if held == MANY:
        return 1
    return 2 if dtype == torch.float64 else 4


def forward(
    x: Tensor, call: Call, rows: Rows, spikes: Tensor | None, u: Tensor | None, mask: Tensor | None
) -> None:
    """Writes spikes, u ([T, N, *], or [1, N, *]: the last step's) and the mask, those that are not None."""
    held, masked = _held(rows), mask is not None
    seen = rows.see_each(x, spikes, u)
    of = groups(rows, forward_width(x.dtype, held), seen, masked, held == FEW)
    name = f"fir_forward<{TYPES[x.dtype]}, {of.width}, {held}, {cpp(of.along)}>"
    constants = surrogate(call, masked, masked)[1]
    _run(name, x, call, of, (*seen, None), mask, constants, None)
    finish(rows, (seen[1], spikes), (seen[2], u))


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
    need_x, need_kernel, need_threshold, _, need_scale, need_shift = needs
    held = _held(rows)
    kind, constants = surrogate(call, grad_spikes is not None, mask is not None)
    summing = need_kernel or need_scale or need_shift or (need_threshold and grad_spikes is not None)
    gx = torch.empty_like(like) if need_x else None
    reads = x if summing or kind < MASKED else None
    seen = rows.see_each(reads, grad_spikes, grad_u, gx)
    of = groups(rows, backward_width(like.dtype, held), seen, mask is not None, held == FEW)
    instance = f"{of.width}, {held}, {cpp(of.along)}, {kind}, {cpp(summing)}"
    sums = None
    if summing:
        blocks = looped(ceil(of.total / LANES), LANES, of)
        sums = Sums(like, _reached(call, rows) + OTHER_SUMS, 1, blocks, LANES, of)
    _run(f"fir_backward<{TYPES[like.dtype]}, {instance}>", like, call, of, seen, mask, constants, sums)
    finish(rows, (seen[3], gx))
    return chosen(gx, {} if sums is None else _parameter_gradients(call, sums), call, needs)


def _reached(call: Call, rows: Rows) -> int:
    """The taps that reach back no further than to the first step; from rest the others weigh nothing."""
    return min(len(call.kernel), rows.steps)


def _held(rows: Rows) -> int:
    return FEW if rows.steps <= FEW else MANY


def _run(
    name: str,
    like: Tensor,
    call: Call,
    of: Groups,
    seen: tuple[Seen | None, ...],
    mask: Tensor | None,
    constants: list[Field],
    sums: Sums | None,
) -> None:
    wide, steps = accumulate_dtype(like.dtype), of.rows.steps
    x, spikes, u, gx = seen
    taps = call.kernel.to(wide)
    every = u is not None and u.tensor.shape[0] == steps
    tiles = ceil(of.total / LANES)
    blocks = tiles if sums is None else looped(tiles, LANES, of)
    fields: list[Field] = [
        *of.fields, steps, tiles, _reached(call, of.rows), *strided(x), *strided(spikes), *strided(u),
        *packed(mask), *strided(gx), taps, taps.stride(0), taps.stride(1) if taps.shape[1] > 1 else 0,
        *per_channel(call.threshold, wide), *per_channel(call.scale, wide), *per_channel(call.shift, wide),
        int(every), int(call.strict), *constants, *(NO_SUMS if sums is None else sums.fields),
    ]  # fmt: skip
    cuda.launch(like.device, Launch(Kernel("fir.cu", "mfp::" + name), (blocks, 1, 1), (LANES, 1, 1), fields))


def _parameter_gradients(call: Call, sums: Sums) -> dict[str, Tensor]:
    """All of them, from sums over each channel; in float64."""
    totals = sums.totals()
    reached = len(totals) - OTHER_SUMS
    taps, (of_spikes, adjoint, of_input) = totals[:reached], totals[reached:].unbind(0)
    taps = taps if call.kernel.shape[1] == totals.shape[1] else taps.sum(1, keepdim=True)
    found = {"kernel": pad(taps, (0, 0, 0, len(call.kernel) - reached))}
    if call.threshold is not None:
        found["threshold"] = -grouped(of_spikes, call.threshold.numel())
    if call.scale is not None:
        found["scale"] = grouped(of_input, call.scale.numel())
        found["shift"] = grouped(adjoint, call.scale.numel())
    return found
