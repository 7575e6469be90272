"""The compiled host kernels (kernels/host) as a backend: a call becomes a C struct of addresses and strides.

Twin: :mod:`mfp_neurons.backends.torch`, whose functions these are.
"""

import ctypes
import functools
import math
import os

import torch
from torch import Tensor

from .._checks import log_once
from ..kernels import host
from ..surrogate import kernel_number
from . import RESETS, Call, Gradients, accumulate_dtype
from .rows import Rows, RowView

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_PARALLEL = 1 << 15  # elements from which a second thread pays
_NAMES = {"exp": "mfp_exponential", "fir": "mfp_finite", "matrix": "mfp_finite"}  # of the kernels
_forked = False


def forward(call: Call) -> tuple[Tensor | None, Tensor]:
    """As :func:`mfp_neurons.backends.torch.forward`."""
    x_dtype, call = call.x.dtype, _in_one_dtype(_without_rest(call))
    struct = _Struct.of_call(call)
    spikes, u = call.empty_outputs()
    struct.write("spikes", spikes)
    struct.write("u", call.as_steps(u) if call.potential else None)
    struct.run(_NAMES[call.kind] + "_forward")
    return None if spikes is None else spikes.to(x_dtype), u


def backward(
    call: Call, grad_spikes: Tensor | None, grad_u: Tensor | None, needs: tuple[bool, ...]
) -> Gradients:
    """As :func:`mfp_neurons.backends.torch.backward`."""
    need_x, need_kernel, need_threshold, need_state, need_scale, need_shift, need_feedback, need_own = needs
    x_dtype, state = call.x.dtype, call.state
    # A state of zeros has a gradient all the same, so it stays where that is wanted.
    call = _in_one_dtype(call if need_state else _without_rest(call))
    x, struct = call.x, _Struct.of_call(call)
    wide, has_potential_state = accumulate_dtype(x.dtype), call.kind == "exp"
    if grad_spikes is not None:
        struct.read("grad_spikes", grad_spikes.to(x.dtype))
    if grad_u is not None:
        struct.read("grad_u", call.as_steps(grad_u.to(wide)))
    gx = torch.empty_like(x) if need_x else None
    struct.write("grad_x", gx)
    g_state = None
    if need_state and state is not None:
        # The gradient has the dtype of what the kernel reads as its state: a potential, or inputs.
        g_state = torch.empty(state.shape, dtype=wide if has_potential_state else x.dtype)
        struct.write("grad_state", g_state.unsqueeze(0) if has_potential_state else g_state)
    g_own = None
    if need_own and call.own_spikes is not None:
        g_own = torch.empty(call.own_spikes.shape, dtype=x.dtype)
        struct.write("grad_own_spikes", g_own)
    struct.c.sum_kernel, struct.c.sum_threshold = need_kernel, need_threshold
    struct.c.sum_norm, struct.c.sum_feedback = need_scale or need_shift, need_feedback
    # the sums of each channel: of the kernel first, then of threshold, scale, shift and feedback
    channels = struct.rows.channels
    of_kernel = call.kernel.numel() if call.kind == "matrix" else len(call.kernel) * channels
    # the kernels of the exponential add up a row of feedback, of zeros if there is none
    of_feedback = int(call.kind == "exp") if call.feedback is None else len(call.feedback)
    sums = torch.empty(0)
    if need_kernel or need_threshold or need_scale or need_shift or need_feedback:
        sums = struct.sums(of_kernel + (3 + of_feedback) * channels)
    struct.run(_NAMES[call.kind] + "_backward")
    rows = sums[of_kernel:].reshape(-1, channels)
    return Gradients(
        None if gx is None else gx.to(x_dtype),
        _kernel_gradient(call, sums[:of_kernel], channels) if need_kernel else None,
        _like(rows[0], call.threshold) if need_threshold else None,
        None if g_state is None or state is None else g_state.to(state.dtype),
        _like(rows[1], call.scale) if need_scale else None,
        _like(rows[2], call.shift) if need_shift else None,
        _like(rows[3:], call.feedback) if need_feedback else None,
        None if g_own is None or call.own_spikes is None else g_own.to(call.own_spikes.dtype),
    )


def _kernel_gradient(call: Call, sums: Tensor, channels: int) -> Tensor | None:
    if call.kind == "matrix":
        return sums.reshape(call.kernel.shape).to(call.kernel.dtype, copy=True)
    return _like(sums.reshape(-1, channels), call.kernel)


def _like(sums: Tensor, parameter: Tensor | None) -> Tensor | None:
    """Sums of each channel as the gradient of a parameter, which may be one for all of them."""
    if parameter is None:
        return None
    # One number for the whole layer gets the gradients of all channels.
    if parameter.shape[-1] == 1:
        sums = sums.sum(-1, keepdim=True)
    return sums.to(parameter.dtype, copy=True)  # not a view of all the sums


def _without_rest(call: Call) -> Call:
    """A state that is one zero seen everywhere, as at the start of a sequence, is not worth reading."""
    state = call.state
    if state is None or call.kind == "matrix" or state.numel() == 0 or any(state.stride()):
        return call
    return call._replace(state=None) if float(state[(0,) * state.dim()]) == 0 else call


def _in_one_dtype(call: Call) -> Call:
    """Finite kernels read x and the inputs before it alike: both in the wider of their dtypes."""
    if call.kind == "exp" or call.state is None or call.state.dtype == call.x.dtype:
        return call
    dtype = torch.promote_types(call.x.dtype, call.state.dtype)
    return call._replace(x=call.x.to(dtype), state=call.state.to(dtype))


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`mfp_neurons.backends.torch.channel_moments`; one pass over distances from a first element."""
    wide, channels = accumulate_dtype(x.dtype), x.shape[2]
    count = x.numel() // max(1, channels)
    if count == 0:
        return torch.full((channels,), math.nan, dtype=wide), torch.full((channels,), math.nan, dtype=wide)
    struct = _Struct(Rows(x, channels), x)
    # sums of squares of distances lose no digits to a large mean; any number near it will do as their origin
    near = x[0, 0].flatten(1)[:, 0].to(wide) if x.dim() > 3 else x[0, 0].to(wide)
    struct.parameter("shift", near)
    sums = struct.sums(2, channels)
    struct.run("mfp_moments")
    away, squares = sums / count
    return (near.double() + away).to(wide), (squares - away.square()).clamp_(min=0).to(wide)


def add_channel_affine_(gx: Tensor, x: Tensor, factor: Tensor, offset: Tensor) -> None:
    """As :func:`mfp_neurons.backends.torch.add_channel_affine_`."""
    struct = _Struct(Rows(gx, len(factor)), x)
    struct.parameter("scale", factor)
    struct.parameter("shift", offset)
    struct.write("grad_x", gx)
    struct.run("mfp_add_affine")


# --- the C structs of kernels/host/call.h, field by field -----------------------------------------------


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("time_stride", ctypes.c_int64),
        ("run_stride", ctypes.c_int64),
    )


class _Parameter(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("count", ctypes.c_int64))


_SIZES = ("steps", "outer", "run", "channels", "repeat", "before", "order", "held")
_FLAGS = (
    "dtype", "strict", "surrogate", "threads", "all_steps", "reset", "detach",
    "sum_kernel", "sum_threshold", "sum_norm", "sum_feedback",
)  # fmt: skip
_PARAMETERS = ("decay", "gain", "taps", "threshold", "scale", "shift", "feedback")
_TENSORS = (
    "x", "state", "own_spikes", "spikes", "u", "grad_spikes", "grad_u", "grad_x", "grad_state",
    "grad_own_spikes",
)  # fmt: skip


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_int32) for name in _FLAGS),
        ("surrogate_a", ctypes.c_double),
        ("surrogate_b", ctypes.c_double),
        *((name, _Parameter) for name in _PARAMETERS),
        *((name, _Tensor) for name in _TENSORS),
        ("sums", ctypes.c_void_p),
    )


class _Struct:
    """The C struct of one call of one kernel; keeps alive what it points to."""

    def __init__(self, rows: Rows, x: Tensor) -> None:
        self.rows, self._alive = rows, [x]
        self._copies: list[tuple[RowView, Tensor]] = []
        self.c = _Call(
            rows.steps, rows.outer, rows.run, rows.channels, rows.repeat,
            dtype=_DTYPES[x.dtype], threads=_threads(x.numel()),
        )  # fmt: skip
        self.read("x", x)

    @classmethod
    def of_call(cls, call: Call) -> "_Struct":
        """With all that a forward and a backward of a call share."""
        x, kernel, state = call.x, call.kernel, call.state
        struct = cls(Rows(x, x.shape[2] if call.per_channel else 1), x)
        c = struct.c
        c.strict, c.all_steps = call.strict, call.record
        if call.kind == "exp":
            struct.parameter("decay", kernel[0])
            struct.parameter("gain", kernel[1])
            if state is not None:
                struct.read("state", state.to(accumulate_dtype(x.dtype)).unsqueeze(0))
        else:
            # the kernels tell a matrix, whose rows are the taps, by an order of 0
            struct.parameter("taps", kernel if call.kind == "fir" else kernel.reshape(-1, 1))
            c.order = len(kernel) if call.kind == "fir" else 0
            if state is not None:
                c.before = len(state)
                struct.read("state", state)
        for name in ("threshold", "scale", "shift", "feedback"):
            struct.parameter(name, getattr(call, name))
        c.reset, c.detach, c.held = RESETS.index(call.reset), call.detach, call.spikes_held
        if call.own_spikes is not None:
            struct.read("own_spikes", call.own_spikes.to(x.dtype))
        if call.surrogate is not None:
            c.surrogate = kernel_number(call.surrogate)
            c.surrogate_a, c.surrogate_b = call.surrogate.kernel_constants
        return struct

    def read(self, name: str, tensor: Tensor) -> None:
        """A tensor [S, N, *] that the kernel reads; where there are no steps it gets a null pointer."""
        if len(tensor) > 0:
            self._point(name, self.rows.view_rows(tensor))

    def write(self, name: str, tensor: Tensor | None) -> None:
        """A tensor [S, N, *] that the kernel fills; a null pointer where nobody wants it."""
        if tensor is not None and len(tensor) > 0:
            view = self.rows.view_rows(tensor)
            self._point(name, view)
            if view.copied:
                self._copies.append((view, tensor))

    def _point(self, name: str, view: RowView) -> None:
        # an address does not keep its tensor alive, and a view may be of a copy that nobody else holds
        self._alive.append(view.tensor)
        setattr(self.c, name, _Tensor(view.tensor.data_ptr(), view.time_stride, view.run_stride))

    def parameter(self, name: str, values: Tensor | None) -> None:
        """A parameter [1] or [C], or taps [K, 1] or [K, C]."""
        if values is not None:
            values = values.contiguous()
            self._alive.append(values)
            setattr(self.c, name, _Parameter(values.data_ptr(), values.shape[-1]))

    def sums(self, *shape: int) -> Tensor:
        """Zeros in float64 that the kernel adds its sums to."""
        sums = torch.zeros(shape, dtype=torch.float64)
        self._alive.append(sums)
        self.c.sums = sums.data_ptr()
        return sums

    def run(self, name: str) -> None:
        """Calls the kernel of that name in kernels/host/mfp.cpp."""
        getattr(_library(), name)(ctypes.byref(self.c))
        for view, tensor in self._copies:
            self.rows.copy_back(view, tensor)


@functools.cache
def _library() -> ctypes.CDLL:
    library = host.library()
    # A field that is added on one side alone would shift all fields behind it.
    if library.mfp_call_size() != ctypes.sizeof(_Call):
        raise host.Unavailable("the built library and this file disagree on the layout of a call")
    return library


def _threads(elements: int) -> int:
    """How many threads a kernel uses: PyTorch's, or one if there is little to do, or in a forked process."""
    threads = torch.get_num_threads() if elements >= _PARALLEL else 1
    if threads == 1 or not _forked:
        return threads
    log_once(
        "cpu.forked",
        "this process was forked: the CPU kernels run on one thread in it, since OpenMP would wait for ever "
        "for the threads that its parent had. Processes that are spawned use them all.",
    )
    return 1


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
