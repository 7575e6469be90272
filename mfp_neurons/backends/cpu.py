"""The compiled host kernels (kernels/host) as a backend: a call becomes a C struct of addresses and strides.

Twin: :mod:`mfp_neurons.backends.torch`, whose functions these are.
"""

import ctypes
import functools
import math
import os
from collections.abc import Callable
from itertools import accumulate
from struct import Struct

import torch
from torch import Tensor

from .._checks import log_once
from ..history import as_dtype
from ..kernels import host
from ..surrogate import kernel_number
from . import RESETS, Call, Gradients, Pool, accumulate_dtype
from .rows import Rows, RowView

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_PARALLEL = 1 << 15  # elements from which a second thread pays
_NAMES = {"exp": "mfp_exponential", "fir": "mfp_finite", "matrix": "mfp_finite"}  # of the kernels
_forked = False


def forward(call: Call) -> tuple[Tensor | None, Tensor]:
    """As :func:`mfp_neurons.backends.torch.forward`."""
    x_dtype, call = call.x.dtype, _in_one_dtype(_without_rest(call))
    arguments = _Arguments.of_call(call)
    spikes, u = call.empty_outputs()
    arguments.write("spikes", spikes)
    if call.potential:
        arguments.write("u", u, is_step=not call.record)
    arguments.run(_NAMES[call.kind] + "_forward")
    return None if spikes is None else as_dtype(spikes, x_dtype), u


def backward(
    call: Call, grad_spikes: Tensor | None, grad_u: Tensor | None, needs: tuple[bool, ...]
) -> Gradients:
    """As :func:`mfp_neurons.backends.torch.backward`."""
    need_x, need_kernel, need_threshold, need_state, need_scale, need_shift, need_feedback, need_own = needs
    x_dtype, state = call.x.dtype, call.state
    # A state of zeros has a gradient all the same, so it stays where that is wanted.
    call = _in_one_dtype(call if need_state else _without_rest(call))
    x, arguments = call.x, _Arguments.of_call(call)
    wide, has_potential_state = accumulate_dtype(x.dtype), call.kind == "exp"
    if grad_spikes is not None:
        arguments.read("grad_spikes", as_dtype(grad_spikes, x.dtype))
    if grad_u is not None:
        arguments.read("grad_u", as_dtype(grad_u, wide), is_step=not call.record)
    gx = torch.empty_like(x) if need_x else None
    arguments.write("grad_x", gx)
    g_state = None
    if need_state and state is not None:
        # The gradient has the dtype of what the kernel reads as its state: a potential, or inputs.
        g_state = torch.empty(state.shape, dtype=wide if has_potential_state else x.dtype)
        arguments.write("grad_state", g_state, is_step=has_potential_state)
    g_own = None
    if need_own and call.own_spikes is not None:
        g_own = torch.empty(call.own_spikes.shape, dtype=x.dtype)
        arguments.write("grad_own_spikes", g_own)
    arguments.set("sum_kernel", need_kernel, need_threshold, need_scale or need_shift, need_feedback)
    # the sums of each channel: of the kernel first, then of threshold, scale, shift and feedback
    channels = arguments.rows.channels
    of_kernel = call.kernel.numel() if call.kind == "matrix" else len(call.kernel) * channels
    # the kernels of the exponential add up a row of feedback, of zeros if there is none
    of_feedback = int(call.kind == "exp") if call.feedback is None else len(call.feedback)
    sums = None
    if need_kernel or need_threshold or need_scale or need_shift or need_feedback:
        sums = arguments.sums(of_kernel + (3 + of_feedback) * channels)
    arguments.run(_NAMES[call.kind] + "_backward")
    gradients = Gradients(
        x=None if gx is None else as_dtype(gx, x_dtype),
        state=None if g_state is None or state is None else as_dtype(g_state, state.dtype),
        own_spikes=None if g_own is None or call.own_spikes is None else g_own.to(call.own_spikes.dtype),
    )
    if sums is None:
        return gradients
    g_kernel = _kernel_gradient(call, sums[:of_kernel], channels) if need_kernel else None
    if not (need_threshold or need_scale or need_shift or need_feedback):
        return gradients._replace(kernel=g_kernel)
    rows = sums[of_kernel:].reshape(-1, channels)
    return gradients._replace(
        kernel=g_kernel,
        threshold=_like(rows[0], call.threshold) if need_threshold else None,
        scale=_like(rows[1], call.scale) if need_scale else None,
        shift=_like(rows[2], call.shift) if need_shift else None,
        feedback=_like(rows[3:], call.feedback) if need_feedback else None,
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
    if parameter.shape[-1] == 1 and sums.shape[-1] > 1:
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
    arguments = _Arguments(Rows.of(x, channels), x)
    # sums of squares of distances lose no digits to a large mean; any number near it will do as their origin
    near = x[0, 0].flatten(1)[:, 0].to(wide) if x.dim() > 3 else x[0, 0].to(wide)
    arguments.parameter("shift", near)
    sums = arguments.sums(2, channels)
    arguments.run("mfp_moments")
    away, squares = sums / count
    return (near.double() + away).to(wide), (squares - away.square()).clamp_(min=0).to(wide)


def add_channel_affine_(gx: Tensor, x: Tensor, factor: Tensor, offset: Tensor) -> None:
    """As :func:`mfp_neurons.backends.torch.add_channel_affine_`."""
    arguments = _Arguments(Rows.of(gx, len(factor)), x)
    arguments.parameter("scale", factor)
    arguments.parameter("shift", offset)
    arguments.write("grad_x", gx)
    arguments.run("mfp_add_affine")


def max_pool(x: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
    """Max pooling of images, and the place of each maximum within its window, counted in reading order.

    Args:
        x: [N, C, height, width], contiguous; float32, float64, float16 or bfloat16.
        pool: valid for these images.

    Returns:
        Both [N, C, out height, out width]: the first in the dtype of x, the second in uint8.
    """
    y = x.new_empty(*x.shape[:2], *pool.out)
    places = torch.empty(y.shape, dtype=torch.uint8)
    _library().mfp_max_pool_forward(_pool_numbers(pool, x), *map(_address, (x, y, places)))
    return y, places


def max_pool_gradient(grad: Tensor, places: Tensor, pool: Pool) -> Tensor:
    """The gradient of the images, given that of the maxima, contiguous, and their places."""
    grad_x = grad.new_empty(*grad.shape[:2], *pool.image)
    _library().mfp_max_pool_backward(_pool_numbers(pool, grad_x), *map(_address, (grad, places, grad_x)))
    return grad_x


def _pool_numbers(pool: Pool, images: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """The struct Pool of kernels/host/pool.h."""
    sizes = (*pool.image, *pool.out, *pool.window, *pool.stride, *pool.padding)
    numbers = (images.shape[0] * images.shape[1], *sizes, _DTYPES[images.dtype], _threads(images.numel()))
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


# --- the C struct of kernels/host/call.h, field by field ------------------------------------------------

_FIELDS = {  # each by the kinds of its values, in the letters of the module struct
    **dict.fromkeys(("steps", "outer", "run", "channels", "repeat", "before", "order", "held"), "q"),
    **dict.fromkeys(("dtype", "strict", "surrogate", "threads", "all_steps", "reset", "detach"), "i"),
    **dict.fromkeys(("sum_kernel", "sum_threshold", "sum_norm", "sum_feedback"), "i"),
    **dict.fromkeys(("surrogate_a", "surrogate_b"), "d"),
    # a parameter: address, count
    **dict.fromkeys(("decay", "gain", "taps", "threshold", "scale", "shift", "feedback"), "Pq"),
    # a tensor: address, time_stride, run_stride
    **dict.fromkeys(("x", "state", "own_spikes", "spikes", "u", "grad_spikes", "grad_u"), "Pqq"),
    **dict.fromkeys(("grad_x", "grad_state", "grad_own_spikes"), "Pqq"),
    "sums": "P",
}
_LAYOUT = Struct("@" + "".join(_FIELDS.values()))
_PLACES = dict(zip(_FIELDS, accumulate(map(len, _FIELDS.values()), initial=0), strict=False))
_NOTHING: list[float] = [0] * sum(map(len, _FIELDS.values()))


class _Arguments:
    """Those of one call of one kernel; keeps alive what they point to."""

    def __init__(self, rows: Rows, x: Tensor) -> None:
        self.rows, self._alive = rows, [x]
        self._copies: list[tuple[RowView, Tensor]] = []
        self._values: list[float] = _NOTHING.copy()
        self.set("steps", rows.steps, rows.outer, rows.run, rows.channels, rows.repeat)
        self.set("dtype", _DTYPES[x.dtype])
        self.set("threads", _threads(x.numel()))
        self.read("x", x)

    def set(self, name: str, *values: float) -> None:
        """The values of a field, and of those behind it."""
        place = _PLACES[name]
        self._values[place : place + len(values)] = values

    @classmethod
    def of_call(cls, call: Call) -> "_Arguments":
        """With all that a forward and a backward of a call share."""
        x, kernel, state = call.x, call.kernel, call.state
        arguments = cls(Rows.of(x, x.shape[2] if call.per_channel else 1), x)
        arguments.set("strict", call.strict)
        arguments.set("all_steps", call.record)
        if call.kind == "exp":
            arguments.parameter("decay", kernel, row=0)
            arguments.parameter("gain", kernel, row=1)
            if state is not None:
                arguments.read("state", as_dtype(state, accumulate_dtype(x.dtype)), is_step=True)
        else:
            # the kernels tell a matrix, whose rows are the taps, by an order of 0
            arguments.parameter("taps", kernel if call.kind == "fir" else kernel.reshape(-1, 1))
            arguments.set("order", len(kernel) if call.kind == "fir" else 0)
            if state is not None:
                arguments.set("before", len(state))
                arguments.read("state", state)
        arguments.parameter("threshold", call.threshold)
        arguments.parameter("scale", call.scale)
        arguments.parameter("shift", call.shift)
        arguments.parameter("feedback", call.feedback)
        if call.reset:
            arguments.set("reset", RESETS.index(call.reset), call.detach)
            arguments.set("held", call.spikes_held)
        if call.own_spikes is not None:
            arguments.read("own_spikes", as_dtype(call.own_spikes, x.dtype))
        if call.surrogate is not None:
            arguments.set("surrogate", kernel_number(call.surrogate))
            arguments.set("surrogate_a", *call.surrogate.kernel_constants)
        return arguments

    def read(self, name: str, tensor: Tensor, is_step: bool = False) -> None:
        """A tensor [S, N, *] that the kernel reads, or a step [N, *]; a null pointer for no steps."""
        if is_step or tensor.shape[0] > 0:
            self._point(name, self.rows.view_rows(tensor, is_step))

    def write(self, name: str, tensor: Tensor | None, is_step: bool = False) -> None:
        """A tensor [S, N, *] that the kernel fills, or a step [N, *]; a null pointer for nothing."""
        if tensor is not None and (is_step or tensor.shape[0] > 0):
            view = self.rows.view_rows(tensor, is_step)
            self._point(name, view)
            if view.copied:
                self._copies.append((view, tensor.unsqueeze(0) if is_step else tensor))

    def _point(self, name: str, view: RowView) -> None:
        # an address does not keep its tensor alive, and a view may be of a copy that nobody else holds
        self._alive.append(view.tensor)
        self.set(name, view.tensor.data_ptr(), view.time_stride, view.run_stride)

    def parameter(self, name: str, values: Tensor | None, row: int = 0) -> None:
        """A parameter [1] or [C], or from a ``row`` on taps [K, 1] or [K, C]."""
        if values is not None:
            values = values.contiguous()
            self._alive.append(values)
            count = values.shape[-1]
            self.set(name, values.data_ptr() + row * count * values.element_size(), count)

    def sums(self, *shape: int) -> Tensor:
        """Zeros in float64 that the kernel adds its sums to."""
        sums = torch.zeros(shape, dtype=torch.float64)
        self._alive.append(sums)
        self.set("sums", sums.data_ptr())
        return sums

    def run(self, name: str) -> None:
        """Calls the kernel of that name in kernels/host/mfp.cpp."""
        _kernel(name)(_LAYOUT.pack(*self._values))
        for view, tensor in self._copies:
            self.rows.copy_back(view, tensor)


@functools.cache
def _kernel(name: str) -> Callable[[bytes], None]:
    kernel: Callable[[bytes], None] = getattr(_library(), name)
    return kernel


@functools.cache
def _library() -> ctypes.CDLL:
    library = host.library()
    # A field that is added on one side alone would shift all fields behind it.
    if library.mfp_call_size() != _LAYOUT.size:
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
