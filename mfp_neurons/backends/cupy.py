"""The neuron on CUDA kernels, compiled and launched through CuPy. Twin: :mod:`mfp_neurons.backends.torch`.

Every tensor is read where it lies unless its strides allow no [T, A, B] view (see ``rows.py``). Nothing waits
for the device; memory is torch's, so that CUDA graphs can be captured; all sums have a fixed order.

An exponential takes ``exponential.cu`` for every T. A FIR neuron at rest of few steps takes ``fir.cu``, which
holds them in registers: trained with fixed taps in float32 it moves 12 bytes an element backward where the
tiles of ``finite.cu`` move 20, with learned taps 28, and in 16 bits 6 where they move 14 and 20. Longer
sequences, states and matrices take ``finite.cu``.

With a reset time is a loop in the thread. An exponential takes ``exponential_feedback.cu`` for every T and
moves the bytes that it moves without one; beyond 16 steps a backward reads the input once more, and the
potential before every sixteenth step goes through memory. FIR neurons take ``fir_feedback.cu``: one kernel
forward, and backward at rest up to 16 steps (4 in float64); else potential and spikes of every step go
through memory.
"""

from copy import copy
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..kernels import device as cuda
from ..kernels.device import Field, Kernel, Launch
from ..surrogate import kernel_number
from . import RESETS, Call, Gradients, accumulate_dtype
from .cupy_launch import (
    BLOCKS,
    DONE,
    NO_SPIKES,
    NO_SUMS,
    THREADS,
    TYPES,
    Groups,
    Neurons,
    Sums,
    cpp,
    factor_of_spikes,
    of_parameter,
    per_channel,
    strided,
    total,
)
from .rows import Rows, RowView

FEW, MANY = 4, 16  # steps that a thread of exponential.cu or fir.cu holds in registers


def forward(call: Call) -> tuple[Tensor | None, Tensor]:
    """As :func:`mfp_neurons.backends.torch.forward`."""
    spikes, u = call.empty_outputs()
    if call.x.numel() == 0:
        return spikes, u
    neurons = Neurons(call)
    neurons.spikes = neurons.view(spikes, written=True)
    neurons.u = neurons.view(call.as_steps(u) if call.potential else None, written=True)
    if call.reset:
        (_exponential_feedback_forward if call.kind == "exp" else _fir_feedback_forward)(neurons)
    elif call.kind == "exp":
        _exponential_forward(neurons)
    elif _holds_in_registers(call):
        _fir_forward(neurons)
    else:
        _finite(neurons, FORWARD, 0)
    neurons.copy_back()
    return spikes, u


def backward(
    call: Call, grad_spikes: Tensor | None, grad_u: Tensor | None, needs: tuple[bool, ...]
) -> Gradients:
    """As :func:`mfp_neurons.backends.torch.backward`."""
    if call.x.numel() == 0:  # empty for the input and the state, zero for the parameters
        tensors: Any = zip(call[: len(needs)], needs, strict=True)
        return Gradients(*(torch.zeros_like(t) if need and t is not None else None for t, need in tensors))
    neurons, state = Neurons(call), call.state
    neurons.spikes = neurons.view(grad_spikes)
    neurons.u = neurons.view(None if grad_u is None else call.as_steps(grad_u))
    gx = torch.empty_like(call.x) if needs[0] else None
    neurons.gx = neurons.view(gx, written=True)
    g_state = None
    if needs[3] and state is not None:
        has_potential = call.kind == "exp"
        dtype = neurons.wide if has_potential else call.x.dtype
        g_state = torch.empty(state.shape, dtype=dtype, device=state.device)
        neurons.g_state = neurons.view(g_state.unsqueeze(0) if has_potential else g_state, written=True)
    g_own = None
    if needs[7] and call.own_spikes is not None:
        g_own = torch.empty(call.own_spikes.shape, dtype=call.x.dtype, device=call.x.device)
        neurons.g_own = neurons.view(g_own, written=True)
    factor = factor_of_spikes(call, grad_spikes)
    if call.reset and call.kind == "exp":
        grads = _exponential_feedback_backward(neurons, needs)
    elif call.reset:
        grads = _fir_feedback_backward(neurons, needs)
    elif call.kind == "exp":
        grads = _exponential_backward(neurons, factor, needs)
    elif _holds_in_registers(call):
        grads = _fir_backward(neurons, factor, needs)
    else:
        grads = _finite_backward(neurons, factor, needs)
    neurons.copy_back()
    return Gradients(
        gx,
        _own(grads.kernel, call.kernel.dtype) if needs[1] else None,
        _threshold_gradient(call, grads) if needs[2] else None,
        None if g_state is None or state is None else g_state.to(state.dtype),
        _own(grads.scale) if needs[4] else None,
        _own(grads.shift) if needs[5] else None,
        _own(grads.feedback, neurons.wide) if needs[6] else None,
        None if g_own is None or call.own_spikes is None else g_own.to(call.own_spikes.dtype),
    )


def _threshold_gradient(call: Call, grads: Gradients) -> Tensor | None:
    if call.threshold is None:
        return None
    if grads.threshold is None:  # no gradient reaches it but through spikes
        return torch.zeros_like(call.threshold)
    return grads.threshold.to(call.threshold.dtype)


def _own(gradient: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    """In memory of its own: what an operator returns may share none with what else it returns."""
    if gradient is None:
        return None
    gradient = gradient.to(dtype or gradient.dtype)
    return gradient.clone() if gradient.untyped_storage().nbytes() > gradient.nbytes else gradient


def forward_width(dtype: torch.dtype, held: int) -> int:
    """Neurons a thread at most, forward: 16 bytes' worth, less where many steps fill the registers."""
    if held == FEW:
        return 16 // dtype.itemsize
    return 1 if dtype == torch.float64 else 2


# --- exponential.cu -------------------------------------------------------------------------------------


class Tiling(NamedTuple):
    """Steps a thread, lanes and segments a block, chunks of time; as kernels/cuda/scan.cuh has them."""

    held: int
    lanes: int
    segments: int
    chunks: int

    @classmethod
    def of(cls, steps: int) -> "Tiling":
        """The same for forward and backward: then both compute the very same potential."""
        if steps <= FEW:
            return cls(FEW, THREADS, 1, 1)
        if steps <= MANY:
            return cls(MANY, THREADS, 1, 1)
        segments = 1 << (min(SEGMENTS, ceil(steps / MANY)) - 1).bit_length()  # blocks add up halves
        return cls(MANY, THREADS // segments, segments, ceil(steps / (MANY * segments)))


SEGMENTS = 16  # of a block, at most
SUMS = 4  # of spikes, of the adjoint, of input, of the potential before


def exponential_backward_width(dtype: torch.dtype, held: int, sums: bool) -> int:
    """Neurons a thread at most."""
    if held == FEW:
        return 2 if dtype == torch.float64 else 4
    return 1 if sums or dtype.itemsize > 2 else 2


def _exponential_forward(neurons: Neurons) -> None:
    tiling = Tiling.of(neurons.rows.steps)
    # many steps of neurons with parameters of their own each do not fit the registers: those go one by one
    groups = neurons.groups(forward_width(neurons.dtype, tiling.held), tiling.held == FEW)
    name = f"exp_forward<{TYPES[neurons.dtype]}, {_held(groups, tiling.held)}>"
    plan = _ScanPlan(neurons, groups, tiling, directions=1, ends=0)
    plan.launch(name, NO_SUMS)


def _exponential_backward(neurons: Neurons, factor: int, needs: tuple[bool, ...]) -> Gradients:
    tiling = Tiling.of(neurons.rows.steps)
    summing = _needs_sums(factor, needs)
    recomputes = summing or factor != NO_SPIKES
    if not recomputes:  # linear in the potential's gradient: neither input nor state is read
        neurons.x = neurons.state = None
    width = exponential_backward_width(neurons.dtype, tiling.held, summing)
    groups = neurons.groups(width, tiling.held == FEW)
    instance = f"{_held(groups, tiling.held)}, {factor}, {cpp(summing)}"
    ends = tiling.chunks - 1 if recomputes else 0
    plan = _ScanPlan(neurons, groups, tiling, directions=2, ends=ends)
    sums = plan.sums() if summing else None
    plan.launch(f"exp_backward<{TYPES[neurons.dtype]}, {instance}>", NO_SUMS if sums is None else sums.fields)
    if sums is None:
        return Gradients()
    return _recursion_gradients(neurons.call, sums.totals())


def _recursion_gradients(call: Call, totals: Tensor) -> Gradients:
    # four sums a channel give all gradients: y = scale x + shift, so sum a y = scale sum a x + shift sum a
    of_spikes, adjoint, of_input, before, *of_own = totals.unbind(0)
    of_gain = of_input
    if call.scale is not None and call.shift is not None:
        of_gain = call.scale * of_input + call.shift * adjoint
    gain, feedback = call.kernel[1].double(), call.feedback
    return Gradients(
        kernel=torch.stack([of_parameter(before, call.kernel[0]), of_parameter(of_gain, call.kernel[0])]),
        threshold=None if call.threshold is None else -of_parameter(of_spikes, call.threshold),
        scale=None if call.scale is None else of_parameter(gain * of_input, call.scale),
        shift=None if call.shift is None else of_parameter(gain * adjoint, call.shift),
        feedback=None if feedback is None else of_parameter(of_own[0], feedback[0]).unsqueeze(0),
    )


def _needs_sums(factor: int, needs: tuple[bool, ...]) -> bool:
    _, need_kernel, need_threshold, _, need_scale, need_shift, need_feedback, _ = needs
    need_threshold = need_threshold and factor != NO_SPIKES
    return need_kernel or need_scale or need_shift or need_feedback or need_threshold


def _held(groups: Groups, held: int) -> str:
    """The template arguments V, S and ALONG."""
    return f"{groups.width}, {held}, {cpp(groups.channels_within_group)}"


def _lanes(groups: Groups) -> int:
    """Threads of a block that shares no time: few neurons are spread over the GPU."""
    return 64 if groups.total < 128 * THREADS else THREADS


class _ScanPlan:
    """Which block does what: tiles, chunks, and what they hand each other."""

    def __init__(self, neurons: Neurons, groups: Groups, tiling: Tiling, directions: int, ends: int) -> None:
        self.neurons, self.groups, self.tiling = neurons, groups, tiling
        self.lanes = tiling.lanes
        if tiling.segments == tiling.chunks == 1:
            self.lanes = _lanes(groups)
        self.tiles = ceil(groups.total / self.lanes)
        self.blocks = self.tiles
        self.ticket: Tensor | None = None
        self.words: Tensor | None = None
        if tiling.chunks > 1:
            # chunks hand on what they end with in words of 32 bits and a flag; tickets number the blocks
            halves = neurons.wide.itemsize // 4
            words = directions * tiling.chunks * self.tiles * self.lanes * groups.width * halves
            both = torch.zeros(words + 1, dtype=torch.int64, device=neurons.call.x.device)
            self.words, self.ticket = both[:words], both[words:]
            self.blocks = self.tiles * (tiling.chunks + ends)

    def sums(self) -> Sums:
        """Room for the sums; where a block has no fixed chunk it loops over tiles."""
        if self.ticket is not None:
            return self.neurons.sums(self.groups, SUMS, self.tiling.chunks, self.tiles, self.lanes)
        self.blocks = self.groups.grid_size(self.tiles, self.lanes)
        return self.neurons.sums(self.groups, SUMS, 1, self.blocks, self.lanes)

    def launch(self, name: str, sums: list[Field]) -> None:
        grid, block = (self.blocks, 1, 1), (self.lanes, self.tiling.segments, 1)
        chunks: list[Field] = [self.tiling.chunks, self.tiles, self.ticket, self.words]
        self.neurons.launch("exponential.cu", name, grid, block, self.groups, 0, sums, chunks)


# --- fir.cu ---------------------------------------------------------------------------------------------

FIR_LANES = 128  # of a block
FIR_SUMS = 3  # beside the taps: of spikes, of the adjoint, of input


def _holds_in_registers(call: Call) -> bool:
    return call.kind == "fir" and call.state is None and len(call.x) <= MANY


def fir_backward_width(dtype: torch.dtype, held: int) -> int:
    """Neurons a thread at most."""
    if held == MANY:
        return 1
    return 2 if dtype == torch.float64 else 4


def _fir_forward(neurons: Neurons) -> None:
    held = FEW if neurons.rows.steps <= FEW else MANY
    groups = neurons.groups(forward_width(neurons.dtype, held), held == FEW)
    name = f"fir_forward<{TYPES[neurons.dtype]}, {_held(groups, held)}>"
    _launch_fir(neurons, name, groups, ceil(groups.total / FIR_LANES), NO_SUMS)


def _fir_backward(neurons: Neurons, factor: int, needs: tuple[bool, ...]) -> Gradients:
    held = FEW if neurons.rows.steps <= FEW else MANY
    summing = _needs_sums(factor, needs)
    if not summing and factor == NO_SPIKES:
        neurons.x = None
    groups = neurons.groups(fir_backward_width(neurons.dtype, held), held == FEW)
    name = f"fir_backward<{TYPES[neurons.dtype]}, {_held(groups, held)}, {factor}, {cpp(summing)}>"
    tiles = ceil(groups.total / FIR_LANES)
    if not summing:
        _launch_fir(neurons, name, groups, tiles, NO_SUMS)
        return Gradients()
    call, reached = neurons.call, _reached(neurons)
    blocks = groups.grid_size(tiles, FIR_LANES)
    sums = neurons.sums(groups, reached + FIR_SUMS, 1, blocks, FIR_LANES)
    _launch_fir(neurons, name, groups, blocks, sums.fields)
    totals = sums.totals()
    taps, (of_spikes, adjoint, of_input) = totals[:reached], totals[reached:].unbind(0)
    return Gradients(
        kernel=_of_taps(taps, call.kernel),
        threshold=None if call.threshold is None else -of_parameter(of_spikes, call.threshold),
        scale=None if call.scale is None else of_parameter(of_input, call.scale),
        shift=None if call.shift is None else of_parameter(adjoint, call.shift),
    )


def _reached(neurons: Neurons) -> int:
    """The taps that reach back no further than to the first step; from rest the others weigh nothing."""
    return min(len(neurons.call.kernel), neurons.rows.steps)


def _launch_fir(neurons: Neurons, name: str, groups: Groups, blocks: int, sums: list[Field]) -> None:
    tiles = ceil(groups.total / FIR_LANES)
    grid, block = (blocks, 1, 1), (FIR_LANES, 1, 1)
    neurons.launch("fir.cu", name, grid, block, groups, _reached(neurons), sums, [tiles])


# --- finite.cu ------------------------------------------------------------------------------------------

FORWARD, LOCAL, ADJOINT = 0, 1, 2  # what the kernel `finite` computes
ROWS, FINITE_SEGMENTS = 8, 8  # steps a thread sums for, threads of a block along time at most
TAP_LANES, TAP_SPAN = 32, 256  # neurons and steps of a block that sums taps' gradients
SIDE = 64  # of a tile of a matrix's gradient


def _finite_backward(neurons: Neurons, factor: int, needs: tuple[bool, ...]) -> Gradients:
    call = neurons.call
    _, need_kernel, need_threshold, _, need_scale, need_shift, *_ = needs
    g_kernel = g_threshold = g_scale = g_shift = None
    if factor != NO_SPIKES:
        # g needs the potential, a sum over inputs; gx is a sum over g: two kernels, and g goes through memory
        neurons.g = neurons.scratch()
        totals = _finite(neurons, LOCAL, factor, 1 if need_threshold else 0)
        # What the first kernel wrote is the product with the surrogate, which the second must not apply
        # again.
        factor = DONE
        if totals is not None and call.threshold is not None:
            g_threshold = -of_parameter(totals[0], call.threshold)
    elif need_kernel:
        neurons.g = _own_gradient(neurons)
    if need_kernel:
        g_kernel = _tap_gradient(neurons) if call.kind == "fir" else _matrix_gradient(neurons)
    needs_map = need_scale or need_shift
    if neurons.gx is not None or neurons.g_state is not None or needs_map:
        totals = _finite(neurons, ADJOINT, factor, 2 if needs_map else 0)
        if totals is not None and call.scale is not None:
            g_shift, g_scale = (of_parameter(row, call.scale) for row in totals.unbind(0))
    return Gradients(kernel=g_kernel, threshold=g_threshold, scale=g_scale, shift=g_shift)


def _order(neurons: Neurons) -> int:
    """Taps, or the inputs that a matrix weighs."""
    return len(neurons.weights) if neurons.call.kind == "fir" else neurons.weights.shape[1]


def _finite(neurons: Neurons, mode: int, factor: int, count: int = 0) -> Tensor | None:
    """Runs the kernel `finite`; gives its ``count`` sums [count, C], float64, or None of none."""
    # The adjoint also gives the gradient of the inputs before the first step.
    lines = neurons.rows.steps + (neurons.before if mode == ADJOINT else 0)
    segments = min(FINITE_SEGMENTS, 1 << (ceil(lines / ROWS) - 1).bit_length())
    lanes = THREADS // segments
    groups = Groups.of(neurons.rows, 1, ())
    tiles, time_tiles = ceil(groups.total / lanes), ceil(lines / (ROWS * segments))
    sums = neurons.sums(groups, count, time_tiles, tiles, lanes) if count > 0 else None
    is_matrix = cpp(neurons.call.kind == "matrix")
    name = f"finite<{TYPES[neurons.dtype]}, {mode}, {is_matrix}, {factor}>"
    grid, block = (tiles * time_tiles, 1, 1), (lanes, segments, 1)
    partials = NO_SUMS if sums is None else sums.fields
    own: list[Field] = [tiles, time_tiles]
    neurons.launch("finite.cu", name, grid, block, groups, _order(neurons), partials, own)
    return None if sums is None else sums.totals()


def _own_gradient(neurons: Neurons) -> RowView:
    """dL/du where no spikes add to it: as it came, or the last step's alone."""
    u = neurons.u
    if u is not None and neurons.call.record:
        return u
    g = neurons.scratch()
    g.tensor.zero_()
    if u is not None:
        g.tensor[-1].copy_(u.tensor.reshape(-1))
    return g


def _tap_gradient(neurons: Neurons) -> Tensor:
    """[K, G], float64."""
    groups, order = Groups.of(neurons.rows, 1, ()), _order(neurons)
    segments = min(FINITE_SEGMENTS, 1 << (ceil(order / ROWS) - 1).bit_length())
    tiles, spans = ceil(groups.total / TAP_LANES), ceil(neurons.rows.steps / TAP_SPAN)
    blocks = groups.grid_size(tiles, TAP_LANES)
    sums = neurons.sums(groups, order, spans, blocks, TAP_LANES)
    grid, block = (blocks, ceil(order / (ROWS * segments)), spans), (TAP_LANES, segments, 1)
    name = f"tap_gradient<{TYPES[neurons.dtype]}>"
    neurons.launch("finite.cu", name, grid, block, groups, order, sums.fields, [tiles, TAP_SPAN])
    taps = sums.totals()
    return taps if neurons.call.kernel.shape[1] > 1 else taps.sum(1, keepdim=True)


def _matrix_gradient(neurons: Neurons) -> Tensor:
    """[T, S], float64."""
    groups, steps, across = Groups.of(neurons.rows, 1, ()), neurons.rows.steps, _order(neurons)
    sides = (ceil(steps / SIDE), ceil(across / SIDE))
    # A small matrix has few tiles, so the sum over neurons is shared out among blocks, and `total` adds up
    # their parts in a fixed order.
    splits = max(1, min(ceil(groups.total / 1024), ceil(BLOCKS / (sides[0] * sides[1]))))
    split, cells = ceil(groups.total / splits), steps * across
    partials = torch.empty(splits * cells, dtype=neurons.wide, device=neurons.call.x.device)
    name = f"matrix_gradient<{TYPES[neurons.dtype]}>"
    own: list[Field] = [groups.total, split]
    sums: list[Field] = [partials, splits, cells, 1]
    neurons.launch("finite.cu", name, (*sides, splits), (16, 16, 1), groups, across, sums, own)
    return total(partials, 1, splits, cells, cells, 1).reshape(steps, across)


# --- exponential_feedback.cu ----------------------------------------------------------------------------

FEEDBACK_SUMS = 5  # those of exponential.cu, and of the spike before


def feedback_width(dtype: torch.dtype, held: int, is_fir: bool = False) -> int:
    """Neurons a thread, backward; where memory does not allow as many, a thread has one."""
    if held == FEW:
        return 2 if dtype == torch.float64 else 4
    return 1 if is_fir or dtype.itemsize > 2 else 2


def _exponential_feedback_forward(neurons: Neurons) -> None:
    held = FEW if neurons.rows.steps <= FEW else MANY
    groups = neurons.wide_or_single(forward_width(neurons.dtype, held), held == FEW)
    lanes = _lanes(groups)
    name = f"exp_feedback_forward<{TYPES[neurons.dtype]}, {_held(groups, held)}>"
    _launch_exponential_feedback(neurons, name, groups, ceil(groups.total / lanes), lanes, NO_SUMS)


def _exponential_feedback_backward(neurons: Neurons, needs: tuple[bool, ...]) -> Gradients:
    steps, number = neurons.rows.steps, kernel_number(neurons.call.surrogate)
    held = FEW if steps <= FEW else MANY
    if steps > held:
        neurons.g = neurons.scratch(ceil(steps / held) - 1)
    groups = neurons.wide_or_single(feedback_width(neurons.dtype, held), held == FEW)
    lanes = _lanes(groups)
    tiles = ceil(groups.total / lanes)
    name = f"exp_feedback_backward<{TYPES[neurons.dtype]}, {_held(groups, held)}, {number}>"
    if not _needs_sums(number, needs):
        _launch_exponential_feedback(neurons, name, groups, tiles, lanes, NO_SUMS)
        return Gradients()
    blocks = groups.grid_size(tiles, lanes)
    sums = neurons.sums(groups, FEEDBACK_SUMS, 1, blocks, lanes)
    _launch_exponential_feedback(neurons, name, groups, blocks, lanes, sums.fields)
    return _recursion_gradients(neurons.call, sums.totals())


def _launch_exponential_feedback(
    neurons: Neurons, name: str, groups: Groups, blocks: int, lanes: int, sums: list[Field]
) -> None:
    call, grid, block = neurons.call, (blocks, 1, 1), (lanes, 1, 1)
    own = [*neurons.feedback, RESETS.index(call.reset), int(call.detach), ceil(groups.total / lanes)]
    neurons.launch("exponential_feedback.cu", name, grid, block, groups, 0, sums, own)


# --- fir_feedback.cu ------------------------------------------------------------------------------------


def _fir_feedback_forward(neurons: Neurons) -> None:
    steps, call = neurons.rows.steps, neurons.call
    held = FEW if steps <= FEW else MANY
    if call.reset == "taps" and steps > held and call.spikes_held > held:
        neurons.g = neurons.scratch(ceil(steps / held), torch.int32)
    groups = neurons.wide_or_single(forward_width(neurons.dtype, held), held == FEW)
    name = f"fir_feedback_forward<{TYPES[neurons.dtype]}, {_held(groups, held)}>"
    _launch_fir_feedback(neurons, name, groups, ceil(groups.total / FIR_LANES), NO_SUMS, [])


def feeds_back_in_registers(dtype: torch.dtype, steps: int) -> bool:
    """Whether the registers hold a FIR neuron's steps and all their sums."""
    return steps <= (FEW if dtype == torch.float64 else MANY)


def _fir_feedback_backward(neurons: Neurons, needs: tuple[bool, ...]) -> Gradients:
    call, steps = neurons.call, neurons.rows.steps
    at_rest = call.state is None and call.own_spikes is None
    if not (at_rest and feeds_back_in_registers(neurons.dtype, steps)):
        return _fir_feedback_backward_by_steps(neurons, needs)
    held, number = FEW if steps <= FEW else MANY, kernel_number(call.surrogate)
    groups = neurons.wide_or_single(feedback_width(neurons.dtype, held, is_fir=True), held == FEW)
    tiles = ceil(groups.total / FIR_LANES)
    name = f"fir_feedback_backward<{TYPES[neurons.dtype]}, {_held(groups, held)}, {number}>"
    if not _needs_sums(number, needs):
        _launch_fir_feedback(neurons, name, groups, tiles, NO_SUMS, [])
        return Gradients()
    blocks = groups.grid_size(tiles, FIR_LANES)
    sums = neurons.sums(groups, 2 * held + FIR_SUMS, 1, blocks, FIR_LANES)
    _launch_fir_feedback(neurons, name, groups, blocks, sums.fields, [])
    totals = sums.totals()
    of_spikes, adjoint, of_input = totals[2 * held :].unbind(0)
    return Gradients(
        kernel=_of_taps(totals[:held], call.kernel),
        threshold=None if call.threshold is None else -of_parameter(of_spikes, call.threshold),
        scale=None if call.scale is None else of_parameter(of_input, call.scale),
        shift=None if call.shift is None else of_parameter(adjoint, call.shift),
        feedback=None if call.feedback is None else _of_taps(totals[held + 1 : 2 * held], call.feedback),
    )


def _of_taps(totals: Tensor, taps: Tensor) -> Tensor:
    """Sums [S, C] of the first S lags as the gradient of taps [K, G]; lags beyond have multiplied nothing."""
    totals = totals[: len(taps)]
    if taps.shape[1] != totals.shape[1]:
        totals = totals.sum(1, keepdim=True)
    return pad(totals, (0, 0, 0, len(taps) - len(totals)))


def _fir_feedback_backward_by_steps(neurons: Neurons, needs: tuple[bool, ...]) -> Gradients:
    """The potential and the spikes of every step go through memory; then sums over what they give."""
    call = neurons.call
    _, need_kernel, need_threshold, _, need_scale, need_shift, need_feedback, _ = needs
    forward_again = copy(neurons)
    forward_again.call = call._replace(record=True)
    forward_again.gx = forward_again.g_state = forward_again.g_own = None
    neurons.g = forward_again.u = neurons.scratch()
    fired = forward_again.spikes = neurons.scratch(dtype=neurons.dtype)
    _fir_feedback_forward(forward_again)
    history: list[Field] = [*strided(fired), None, 0, 0]
    if call.reset == "zero":
        pending = neurons.scratch(neurons.rows.steps + call.spikes_held)
        pending.tensor.zero_()
        history[3:] = strided(pending)
    elif call.detach and neurons.g_own is not None:
        neurons.g_own.tensor.zero_()
    groups, name = Groups.of(neurons.rows, 1, ()), TYPES[neurons.dtype]
    tiles = ceil(groups.total / FIR_LANES)
    blocks = groups.grid_size(tiles, FIR_LANES) if need_threshold else tiles
    sums = neurons.sums(groups, 1, 1, blocks, FIR_LANES) if need_threshold else None
    fields = NO_SUMS if sums is None else sums.fields
    adjoint = f"feedback_adjoint<{name}, {kernel_number(call.surrogate)}>"
    _launch_fir_feedback(neurons, adjoint, groups, blocks, fields, history)
    g_threshold = g_kernel = g_feedback = g_scale = g_shift = totals = None
    if sums is not None and call.threshold is not None:
        g_threshold = -of_parameter(sums.totals()[0], call.threshold)
    if need_feedback and call.feedback is not None:
        g_feedback = _feedback_tap_gradient(neurons, fired)
    needs_map = need_scale or need_shift
    needs_inputs = neurons.gx is not None or neurons.g_state is not None or needs_map
    if call.reset == "taps":
        if need_kernel:
            g_kernel = _tap_gradient(neurons)
        if needs_inputs:
            totals = _finite(neurons, ADJOINT, DONE, 2 if needs_map else 0)
    else:
        if need_kernel:
            g_kernel = _zero_tap_gradient(neurons, history)
        if needs_inputs:
            totals = _zero_adjoint(neurons, history, needs_map)
    if totals is not None and call.scale is not None:
        g_shift, g_scale = (of_parameter(row, call.scale) for row in totals.unbind(0))
    return Gradients(
        kernel=g_kernel, threshold=g_threshold, scale=g_scale, shift=g_shift, feedback=g_feedback
    )


def _feedback_tap_gradient(neurons: Neurons, fired: RowView) -> Tensor:
    """[R, G], float64: the taps' own kernel with spikes for inputs, whose lags start at 1."""
    feedback = neurons.call.feedback
    assert feedback is not None
    of_spikes = copy(neurons)
    of_spikes.x, of_spikes.state = fired, neurons.own
    of_spikes.before = 0 if neurons.own is None else len(feedback)
    of_spikes.weights = pad(feedback, (0, 0, 1, 0))
    of_spikes.call = neurons.call._replace(kernel=of_spikes.weights, scale=None, shift=None)
    return _tap_gradient(of_spikes)[1:]


def _zero_adjoint(neurons: Neurons, history: list[Field], needs_map: bool) -> Tensor | None:
    """What `finite` does as ADJOINT, up to the next own spike."""
    groups = Groups.of(neurons.rows, 1, ())
    tiles, lines = ceil(groups.total / THREADS), neurons.rows.steps + neurons.before
    blocks = groups.grid_size(tiles, THREADS)
    span = _span(lines, blocks)
    spans = ceil(lines / span)
    sums = neurons.sums(groups, 2, spans, blocks, THREADS) if needs_map else None
    fields = NO_SUMS if sums is None else sums.fields
    own, name = [*history, span], f"zero_adjoint<{TYPES[neurons.dtype]}>"
    _launch_fir_feedback(neurons, name, groups, blocks, fields, own, THREADS, (spans, 1))
    return None if sums is None else sums.totals()


def _zero_tap_gradient(neurons: Neurons, history: list[Field]) -> Tensor:
    """[K, G], float64."""
    groups, order = Groups.of(neurons.rows, 1, ()), _weighed(neurons)
    tiles, spans = ceil(groups.total / THREADS), ceil(neurons.rows.steps / TAP_SPAN)
    blocks = groups.grid_size(tiles, THREADS)
    sums = neurons.sums(groups, order, spans, blocks, THREADS)
    own, name = [*history, TAP_SPAN], f"zero_tap_gradient<{TYPES[neurons.dtype]}>"
    across = (spans, ceil(order / ROWS))
    _launch_fir_feedback(neurons, name, groups, blocks, sums.fields, own, THREADS, across)
    return _of_taps(sums.totals(), neurons.call.kernel)


def _weighed(neurons: Neurons) -> int:
    """The taps that reach back to an input."""
    return _reached(neurons) if neurons.call.state is None else _order(neurons)


def _launch_fir_feedback(
    neurons: Neurons, name: str, groups: Groups, blocks: int, sums: list[Field], own: list[Field],
    lanes: int = FIR_LANES, across: tuple[int, int] = (1, 1),
) -> None:  # fmt: skip
    call = neurons.call
    fields: list[Field] = [
        *neurons.feedback, call.spikes_held, RESETS.index(call.reset), int(call.detach),
        ceil(groups.total / lanes), *own,
    ]  # fmt: skip
    grid, block = (blocks, *across), (lanes, 1, 1)
    neurons.launch("fir_feedback.cu", name, grid, block, groups, _weighed(neurons), sums, fields)


# --- channels.cu ----------------------------------------------------------------------------------------


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`mfp_neurons.backends.torch.channel_moments`."""
    rows, wide, channels = Rows(x, x.shape[2]), accumulate_dtype(x.dtype), x.shape[2]
    mean, variance = (torch.empty(channels, dtype=wide, device=x.device) for _ in range(2))
    if x.numel() == 0:
        return mean.fill_(torch.nan), variance.fill_(torch.nan)
    view = rows.view_rows(x)
    groups = Groups.of(rows, 16 // x.dtype.itemsize, (view,))
    tiles = ceil(groups.total / THREADS)
    blocks = groups.grid_size(tiles, THREADS)
    span = _span(rows.steps, blocks)
    spans = ceil(rows.steps / span)
    sums = Sums(groups, x.dtype, x.device, 3, spans, blocks, THREADS)
    fields: list[Field] = [
        *groups.fields, rows.steps, tiles, span, *strided(view), *sums.fields, channels, groups.repeat,
        x.numel() // channels, mean, variance,
    ]  # fmt: skip
    first = Kernel("channels.cu", f"mfp::moments_of_blocks<{TYPES[x.dtype]}, {groups.template}>")
    second = Kernel("channels.cu", f"mfp::moments_of_channels<{TYPES[wide]}>")
    cuda.launch(x.device, Launch(first, (blocks, spans, 1), (THREADS, 1, 1), fields))
    cuda.launch(x.device, Launch(second, (channels, 1, 1), (THREADS, 1, 1), fields))
    return mean, variance


def add_channel_affine_(gx: Tensor, x: Tensor, factor: Tensor, offset: Tensor) -> None:
    """As :func:`mfp_neurons.backends.torch.add_channel_affine_`."""
    if gx.numel() == 0:
        return
    rows, wide = Rows(gx, gx.shape[2]), accumulate_dtype(gx.dtype)
    view, view_x = rows.view_rows(gx), rows.view_rows(x)
    groups = Groups.of(rows, 16 // gx.dtype.itemsize, (view, view_x))
    blocks = ceil(groups.total / THREADS)
    span = _span(rows.steps, blocks)
    fields: list[Field] = [
        *groups.fields, rows.steps, span, *strided(view_x), *strided(view), *per_channel(factor, wide),
        *per_channel(offset, wide),
    ]  # fmt: skip
    kernel = Kernel("channels.cu", f"mfp::add_affine<{TYPES[gx.dtype]}, {groups.template}>")
    cuda.launch(gx.device, Launch(kernel, (blocks, ceil(rows.steps / span), 1), (THREADS, 1, 1), fields))
    rows.copy_back(view, gx)


def _span(steps: int, blocks: int) -> int:
    """Steps a block, such that time is shared out where neurons are too few to fill the GPU."""
    spans = min(steps, ceil(BLOCKS / blocks), 65535)
    return ceil(steps / spans)
