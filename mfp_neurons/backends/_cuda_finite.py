"""FIR and matrix histories on the CUDA kernels (kernels/cuda/finite.cu)."""

from math import ceil

import torch
from torch import Tensor

from ..kernels import device as cuda
from ..kernels.device import Field, Kernel, Launch
from ._call import Call, Gradients, accumulate_dtype
from ._cuda_call import DONE, MASKED, chosen, cpp, packed, surrogate
from ._cuda_launch import (
    BLOCKS,
    NO_SUMS,
    THREADS,
    TYPES,
    Sums,
    finish,
    grouped,
    groups,
    looped,
    per_channel,
    strided,
    total,
)
from ._rows import Rows, Seen

ROWS, SEGMENTS = 8, 8  # steps a thread sums for, threads of a block along time at most
TAP_LANES, TAP_SPAN = 32, 256  # neurons and steps of a block that sums taps' gradients
SIDE = 64  # of a tile of a matrix's gradient
FORWARD, LOCAL, ADJOINT = 0, 1, 2


def forward(
    x: Tensor, call: Call, rows: Rows, spikes: Tensor | None, u: Tensor | None, mask: Tensor | None
) -> None:
    """Writes spikes, u ([T, N, *], or [1, N, *]: the last step's) and the mask, those that are not None."""
    finite = _Finite(x, call, rows, x.dtype)
    finite.spikes, finite.u = rows.see_each(spikes, u)
    finite.mask = mask
    _, finite.constants = surrogate(call, mask is not None, mask is not None)
    finite.run(FORWARD, 0)
    finish(rows, (finite.u, u), (finite.spikes, spikes))


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
    finite = _Finite(x, call, rows, like.dtype)
    finite.spikes, finite.u = rows.see_each(grad_spikes, grad_u)
    finite.mask = mask
    kind, finite.constants = surrogate(call, grad_spikes is not None, mask is not None)
    found: dict[str, Tensor] = {}
    if kind < MASKED:
        sums = finite.local(like, kind, need_threshold)
        kind = DONE
        if sums is not None and call.threshold is not None:
            found["threshold"] = -grouped(sums.totals()[0], call.threshold.numel())
    elif need_kernel:
        finite.g = _own_gradient(like, rows, finite.u)
    if need_kernel:
        found["kernel"] = finite.kernel_gradient(like)
    gx = torch.empty_like(like) if need_x else None
    gstate = None if call.state is None or not need_state else torch.empty_like(call.state, dtype=like.dtype)
    if gx is not None or gstate is not None or need_scale or need_shift:
        sums = finite.adjoint(like, kind, gx, gstate, need_scale or need_shift)
        if sums is not None and call.scale is not None:
            adjoint, of_input = sums.totals().unbind(0)
            found["scale"] = grouped(of_input, call.scale.numel())
            found["shift"] = grouped(adjoint, call.scale.numel())
    if gstate is not None and call.state is not None:
        found["state"] = gstate.to(call.state.dtype)
    return chosen(gx, found, call, needs)


class _Finite:
    """One call's tensors, and the kernels that go over them."""

    def __init__(self, x: Tensor | None, call: Call, rows: Rows, dtype: torch.dtype) -> None:
        self.call, self.rows, self.wide, self.dtype = call, rows, accumulate_dtype(dtype), dtype
        self.before = 0 if call.state is None else len(call.state)
        self.weights = call.kernel.to(self.wide)
        self.order = len(self.weights) if call.kind == "fir" else self.weights.shape[1]
        self.x = None if x is None else rows.see(x)
        self.state = None if call.state is None else rows.see(call.state.to(dtype))
        self.constants: list[Field] = [0.0, 0.0]
        self.spikes: Seen | None = None
        self.u: Seen | None = None
        self.mask: Tensor | None = None
        self.g: Seen | None = None
        self.gx: Seen | None = None
        self.gstate: Seen | None = None

    def local(self, like: Tensor, kind: int, summing: bool) -> Sums | None:
        """g = dL/du, and the sums for the threshold's gradient."""
        self.g = _scratch(like, self.rows)
        return self.run(LOCAL, kind, 1 if summing else 0, like)

    def adjoint(
        self, like: Tensor, kind: int, gx: Tensor | None, gstate: Tensor | None, summing: bool
    ) -> Sums | None:
        """Writes gx and gstate; gives the sums for the gradients of scale and shift."""
        self.gx = None if gx is None else self.rows.see(gx)
        self.gstate = None if gstate is None else self.rows.see(gstate)
        sums = self.run(ADJOINT, kind, 2 if summing else 0, like)
        finish(self.rows, (self.gx, gx), (self.gstate, gstate))
        return sums

    def run(self, mode: int, kind: int, count: int = 0, like: Tensor | None = None) -> Sums | None:
        rows, call = self.rows, self.call
        lines = rows.steps + (self.before if mode == ADJOINT else 0)
        segments = min(SEGMENTS, 1 << (ceil(lines / ROWS) - 1).bit_length())
        lanes = THREADS // segments
        of = groups(rows, 1, (), self.mask is not None)
        tiles, time_tiles = ceil(of.total / lanes), ceil(lines / (ROWS * segments))
        sums = None if like is None or count == 0 else Sums(like, count, time_tiles, tiles, lanes, of)
        every = self.u is not None and self.u.tensor.shape[0] == rows.steps
        matrix = call.kind == "matrix"
        weights: list[Field] = [self.weights, self.order, self.weights.stride(0), self._across()]
        fields: list[Field] = [
            *of.fields, rows.steps, self.before, tiles, time_tiles, *strided(self.x), *strided(self.state),
            *strided(self.spikes), *strided(self.u), *packed(self.mask), *strided(self.g), *strided(self.gx),
            *strided(self.gstate), *weights, *per_channel(call.threshold, self.wide), *self._affine(),
            int(every), int(call.strict), *self.constants, *(NO_SUMS if sums is None else sums.fields),
        ]  # fmt: skip
        name = f"mfp::finite<{TYPES[self.dtype]}, {mode}, {cpp(matrix)}, {kind}>"
        grid, block = (tiles * time_tiles, 1, 1), (lanes, segments, 1)
        cuda.launch(self.weights.device, Launch(Kernel("finite.cu", name), grid, block, fields))
        return sums

    def kernel_gradient(self, like: Tensor) -> Tensor:
        """[K, G] or [T, S], float64."""
        return self._tap_gradient(like) if self.call.kind == "fir" else self._matrix_gradient(like)

    def _tap_gradient(self, like: Tensor) -> Tensor:
        rows = self.rows
        of = groups(rows, 1, ())
        segments = min(SEGMENTS, 1 << (ceil(self.order / ROWS) - 1).bit_length())
        tiles, spans = ceil(of.total / TAP_LANES), ceil(rows.steps / TAP_SPAN)
        blocks = looped(tiles, TAP_LANES, of)
        sums = Sums(like, self.order, spans, blocks, TAP_LANES, of)
        fields: list[Field] = [
            *of.fields, rows.steps, self.before, tiles, TAP_SPAN, self.order, *strided(self.x),
            *strided(self.state), *strided(self.g), *self._affine(), *sums.fields,
        ]  # fmt: skip
        kernel = Kernel("finite.cu", f"mfp::tap_gradient<{TYPES[self.dtype]}>")
        grid = (blocks, ceil(self.order / (ROWS * segments)), spans)
        cuda.launch(like.device, Launch(kernel, grid, (TAP_LANES, segments, 1), fields))
        taps = sums.totals()
        return taps if self.call.kernel.shape[1] > 1 else taps.sum(1, keepdim=True)

    def _matrix_gradient(self, like: Tensor) -> Tensor:
        rows = self.rows
        of = groups(rows, 1, ())
        across = self.before + rows.steps
        sides = (ceil(rows.steps / SIDE), ceil(across / SIDE))
        splits = max(1, min(ceil(of.total / 1024), ceil(BLOCKS / (sides[0] * sides[1]))))
        split = ceil(of.total / splits)
        partials = torch.empty(splits * rows.steps * across, dtype=self.wide, device=like.device)
        fields: list[Field] = [
            *of.fields, rows.steps, self.before, of.total, split, *strided(self.x), *strided(self.state),
            *strided(self.g), *self._affine(), partials, splits, rows.steps * across, 1,
        ]  # fmt: skip
        kernel = Kernel("finite.cu", f"mfp::matrix_gradient<{TYPES[self.dtype]}>")
        cuda.launch(like.device, Launch(kernel, (*sides, splits), (16, 16, 1), fields))
        cells = rows.steps * across
        return total(partials, 1, splits, cells, cells, 1).reshape(rows.steps, across)

    def _affine(self) -> list[Field]:
        return [*per_channel(self.call.scale, self.wide), *per_channel(self.call.shift, self.wide)]

    def _across(self) -> int:
        """What separates the columns of the weights: channels of taps, or a matrix's."""
        return 0 if self.weights.shape[1] == 1 and self.call.kind == "fir" else self.weights.stride(1)


def _scratch(like: Tensor, rows: Rows) -> Seen:
    """Room for one number a neuron and step, wide."""
    across = rows.outer * rows.run
    wide = accumulate_dtype(like.dtype)
    return Seen(torch.empty(rows.steps, across, dtype=wide, device=like.device), across, rows.run, False)


def _own_gradient(like: Tensor, rows: Rows, u: Seen | None) -> Seen:
    """dL/du where no spikes add to it: as it came, or the last step's alone."""
    if u is not None and u.tensor.shape[0] == rows.steps:
        return u
    g = _scratch(like, rows)
    g.tensor.zero_()
    if u is not None:
        g.tensor[-1].copy_(u.tensor.reshape(-1))
    return g
