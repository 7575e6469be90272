"""The compiled host kernels (kernels/host) as a backend: tensors become addresses and strides, and back.

Twin: :mod:`mfp_neurons.backends.torch`, whose functions these are.
"""

import ctypes
import functools
import math
import os
from dataclasses import replace

import torch
from torch import Tensor

from .._checks import log_once
from ..kernels import host
from ._call import Call, Gradients, accumulate_dtype, in_kernels
from ._rows import Rows, Seen
from ._rows import mask_shape as mask_shape

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_PARALLEL = 1 << 15  # elements from which a second thread pays
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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


# --- the C structs of kernels/host/call.h, field by field -------------------------------------------------


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("time_stride", ctypes.c_int64),
        ("run_stride", ctypes.c_int64),
    )


class _Parameter(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("count", ctypes.c_int64))


_SIZES = ("steps", "outer", "run", "channels", "repeat", "before", "order")
_FLAGS = (
    "dtype", "strict", "surrogate", "threads", "all_steps", "sum_kernel", "sum_threshold", "sum_norm",
)  # fmt: skip
_PARAMETERS = ("decay", "gain", "taps", "threshold", "scale", "shift")
_TENSORS = ("x", "state", "spikes", "u", "mask", "grad_spikes", "grad_u", "grad_x", "grad_state")


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


class _Launch:
    """One call of one kernel: fills the struct, and keeps alive what it points to."""

    def __init__(self, rows: Rows, x: Tensor) -> None:
        self.rows, self.alive = rows, [x]
        self.c = _Call(
            rows.steps, rows.outer, rows.run, rows.channels, rows.repeat,
            dtype=_DTYPES[x.dtype], threads=_threads(x.numel()),
        )  # fmt: skip
        self.copies: list[tuple[Seen, Tensor]] = []

    def read(self, name: str, tensor: Tensor | None) -> None:
        """A tensor [S, N, *] that the kernel reads."""
        if tensor is not None:
            self._point(name, self.rows.see(tensor))

    def write(self, name: str, tensor: Tensor | None) -> None:
        """A tensor [S, N, *] that the kernel fills."""
        if tensor is not None:
            seen = self.rows.see(tensor)
            self._point(name, seen)
            if seen.copied:
                self.copies.append((seen, tensor))

    def _point(self, name: str, seen: Seen) -> None:
        self.alive.append(seen.tensor)
        setattr(self.c, name, _Tensor(seen.tensor.data_ptr(), seen.time_stride, seen.run_stride))

    def parameter(self, name: str, values: Tensor | None) -> None:
        """A parameter [1] or [C], or taps [K, 1] or [K, C]."""
        if values is not None:
            values = values.detach().contiguous()
            self.alive.append(values)
            setattr(self.c, name, _Parameter(values.data_ptr(), values.shape[-1]))

    def mask(self, mask: Tensor) -> None:
        self.alive.append(mask)
        self.c.mask = _Tensor(mask.data_ptr(), mask.stride(0), mask.stride(1))

    def sums(self, *shape: int) -> Tensor:
        """Zeros in float64 that the kernel adds its sums to."""
        made = torch.zeros(shape, dtype=torch.float64)
        self.alive.append(made)
        self.c.sums = made.data_ptr()
        return made

    def run(self, name: str) -> None:
        getattr(_library(), name)(ctypes.byref(self.c))
        for seen, tensor in self.copies:
            self.rows.finish(seen, tensor)


@functools.cache
def _library() -> ctypes.CDLL:
    library = host.library()
    if library.mfp_call_size() != ctypes.sizeof(_Call):
        raise host.Unavailable("the built library and this file disagree on the layout of a call")
    return library


def _launch(x: Tensor, call: Call, like: Tensor | None = None) -> _Launch:
    """A launch with the call's parameters; neurons in the order of ``like`` (x if None)."""
    launch = _Launch(Rows.of_call(x if like is None else like, call.per_channel), x)
    c = launch.c
    c.strict = call.strict
    if call.kind == "exp":
        launch.parameter("decay", call.kernel[0])
        launch.parameter("gain", call.kernel[1])
    else:
        launch.parameter("taps", call.kernel if call.kind == "fir" else call.kernel.reshape(1, -1))
        c.taps.count = call.kernel.shape[1] if call.kind == "fir" else 1
        c.order = len(call.kernel) if call.kind == "fir" else 0
        c.before = 0 if call.state is None else len(call.state)
    for name in ("threshold", "scale", "shift"):
        launch.parameter(name, getattr(call, name))
    if call.surrogate is not None:
        c.surrogate, c.surrogate_a, c.surrogate_b = in_kernels(call.surrogate)
    return launch


def _kernel_of(call: Call) -> str:
    return "mfp_exponential" if call.kind == "exp" else "mfp_finite"


# --- the backend ------------------------------------------------------------------------------------------


def forward(x: Tensor, call: Call, record: bool, potential: bool = True) -> tuple[Tensor | None, Tensor]:
    """As :func:`mfp_neurons.backends.torch.forward`."""
    spikes = None if call.threshold is None else torch.empty_like(x)
    return spikes, _forward(x, call, record, potential, spikes, None)


def forward_masked(
    x: Tensor, call: Call, record: bool, potential: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`mfp_neurons.backends.torch.forward_masked`."""
    spikes = torch.empty_like(x)
    mask = torch.empty(mask_shape(x, call.per_channel), dtype=torch.uint8)
    return spikes, _forward(x, call, record, potential, spikes, mask), mask


def _forward(
    x: Tensor, call: Call, record: bool, potential: bool, spikes: Tensor | None, mask: Tensor | None
) -> Tensor:
    x, call = _in_one_dtype(x, _without_rest(call))
    wide = accumulate_dtype(x.dtype)
    # bits are in the order of the spikes, whose gradient will be all that tells backward of an order
    launch = _launch(x, call, like=spikes if mask is not None else None)
    launch.read("x", x)
    _read_state(launch, call, wide)
    same = spikes is None or spikes.dtype == x.dtype
    fired = spikes if spikes is None or same else torch.empty_like(spikes, dtype=x.dtype)
    launch.write("spikes", fired)
    if potential:
        u = torch.empty_like(x, dtype=wide) if record else torch.empty(x.shape[1:], dtype=wide)
        launch.write("u", u if record else u.unsqueeze(0))
    else:
        u = x.new_empty(0, dtype=wide)
    launch.c.all_steps = record
    if mask is not None:
        launch.mask(mask)
    launch.run(_kernel_of(call) + "_forward")
    if spikes is not None and fired is not None and not same:
        spikes.copy_(fired)
    return u


def backward(
    grad_spikes: Tensor | None,
    grad_u: Tensor | None,
    x: Tensor,
    call: Call,
    record: bool,
    needs: tuple[bool, ...],
) -> Gradients:
    """As :func:`mfp_neurons.backends.torch.backward`."""
    need_x, need_kernel, need_threshold, need_state, need_scale, need_shift = needs
    given, state = x, call.state
    x, call = _in_one_dtype(x, call if need_state else _without_rest(call))
    launch = _launch(x, call)
    launch.read("x", x)
    gx, g_state = _gradient_outputs(launch, x, call, need_x, need_state)
    _read_gradients(launch, grad_spikes, grad_u, x.dtype, record)
    _read_state(launch, call, accumulate_dtype(x.dtype))
    sums = None
    launch.c.sum_kernel, launch.c.sum_threshold = need_kernel, need_threshold
    launch.c.sum_norm = need_scale or need_shift
    if need_kernel or need_threshold or need_scale or need_shift:
        sums = launch.sums(_sums_of_kernel(call, launch.rows.channels) + 3 * launch.rows.channels)
    launch.run(_kernel_of(call) + "_backward")
    found = _Sums(call, sums, launch.rows.channels)
    return Gradients(
        None if gx is None else gx.to(given.dtype),
        found.kernel() if need_kernel else None,
        found.row(0, call.threshold) if need_threshold else None,
        None if g_state is None or state is None else g_state.to(state.dtype),
        found.row(1, call.scale) if need_scale else None,
        found.row(2, call.shift) if need_shift else None,
    )


def backward_masked(
    grad_spikes: Tensor,
    grad_u: Tensor | None,
    mask: Tensor,
    call: Call,
    record: bool,
    needs: tuple[bool, bool],
) -> Gradients:
    """As :func:`mfp_neurons.backends.torch.backward_masked`."""
    given, state = grad_spikes, call.state
    grad_spikes, call = _in_one_dtype(grad_spikes, call if needs[1] else _without_rest(call))
    launch = _launch(grad_spikes, call)
    gx, g_state = _gradient_outputs(launch, grad_spikes, call, *needs)
    _read_gradients(launch, grad_spikes, grad_u, grad_spikes.dtype, record)
    launch.mask(mask)
    launch.run(_kernel_of(call) + "_backward")
    return Gradients(
        None if gx is None else gx.to(given.dtype),
        state=None if g_state is None or state is None else g_state.to(state.dtype),
    )


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`mfp_neurons.backends.torch.channel_moments`; one pass over distances from a first element."""
    wide, channels = accumulate_dtype(x.dtype), x.shape[2]
    count = x.numel() // max(1, channels)
    if count == 0:
        return torch.full((channels,), math.nan, dtype=wide), torch.full((channels,), math.nan, dtype=wide)
    launch = _Launch(Rows(x, channels), x)
    near = x[0, 0].flatten(1)[:, 0].to(wide) if x.dim() > 3 else x[0, 0].to(wide)
    launch.parameter("shift", near)
    launch.read("x", x)
    sums = launch.sums(2, channels)
    launch.run("mfp_moments")
    away, squares = sums / count
    return (near.double() + away).to(wide), (squares - away.square()).clamp_(min=0).to(wide)


def add_channel_affine_(gx: Tensor, x: Tensor, factor: Tensor, offset: Tensor) -> None:
    """As :func:`mfp_neurons.backends.torch.add_channel_affine_`."""
    launch = _Launch(Rows(gx, len(factor)), gx)
    launch.parameter("scale", factor)
    launch.parameter("shift", offset)
    launch.read("x", x)
    launch.write("grad_x", gx)
    launch.run("mfp_add_affine")


# --- parts of it ------------------------------------------------------------------------------------------


def _without_rest(call: Call) -> Call:
    """A state that is one zero seen everywhere, as at the start of a sequence, is not worth reading."""
    state = call.state
    if state is None or call.kind == "matrix" or state.numel() == 0 or any(state.stride()):
        return call
    return replace(call, state=None) if float(state[(0,) * state.dim()]) == 0 else call


def _in_one_dtype(x: Tensor, call: Call) -> tuple[Tensor, Call]:
    """Finite kernels read x and the inputs before it alike: both in the wider of their dtypes."""
    if call.kind == "exp" or call.state is None or call.state.dtype == x.dtype:
        return x, call
    dtype = torch.promote_types(x.dtype, call.state.dtype)
    return x.to(dtype), replace(call, state=call.state.to(dtype))


def _read_state(launch: _Launch, call: Call, wide: torch.dtype) -> None:
    if call.state is None:
        return
    if call.kind == "exp":
        launch.read("state", call.state.detach().to(wide).unsqueeze(0))
    elif len(call.state) > 0:
        launch.read("state", call.state.detach())


def _read_gradients(
    launch: _Launch, grad_spikes: Tensor | None, grad_u: Tensor | None, dtype: torch.dtype, record: bool
) -> None:
    launch.read("grad_spikes", None if grad_spikes is None else grad_spikes.to(dtype))
    if grad_u is not None:
        grad_u = grad_u.to(accumulate_dtype(dtype))
        launch.read("grad_u", grad_u if record else grad_u.unsqueeze(0))
    launch.c.all_steps = record


def _gradient_outputs(
    launch: _Launch, x: Tensor, call: Call, need_x: bool, need_state: bool
) -> tuple[Tensor | None, Tensor | None]:
    gx = torch.empty_like(x) if need_x else None
    launch.write("grad_x", gx)
    if not need_state or call.state is None:
        return gx, None
    if call.kind == "exp":
        g_state = torch.empty(call.state.shape, dtype=accumulate_dtype(x.dtype))
        launch.write("grad_state", g_state.unsqueeze(0))
    else:
        g_state = torch.empty(call.state.shape, dtype=x.dtype)
        if len(g_state) > 0:
            launch.write("grad_state", g_state)
    return gx, g_state


def _sums_of_kernel(call: Call, channels: int) -> int:
    """How many sums come before those of threshold, scale and shift: decay and gain, or the taps."""
    return call.kernel.numel() if call.kind == "matrix" else len(call.kernel) * channels


class _Sums:
    """The kernels' sums, taken apart: those of the kernel first, then threshold, scale, shift."""

    def __init__(self, call: Call, sums: Tensor | None, channels: int) -> None:
        self.call = call
        if sums is not None:
            self.first = sums[: -3 * channels]
            self.rest = sums[-3 * channels :].reshape(3, channels)
            if call.kind != "matrix":
                self.first = self.first.reshape(-1, channels)

    def kernel(self) -> Tensor:
        kernel = self.call.kernel
        if self.call.kind == "matrix":
            return self.first.reshape(kernel.shape).to(kernel.dtype, copy=True)
        return _like(self.first, kernel)

    def row(self, which: int, parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else _like(self.rest[which], parameter)


def _like(sums: Tensor, parameter: Tensor) -> Tensor:
    """Sums of each channel as the gradient of a parameter, which may be one for all of them."""
    if parameter.shape[-1] == 1:
        sums = sums.sum(-1, keepdim=True)
    return sums.to(parameter.dtype, copy=True)  # not a view of all the sums
