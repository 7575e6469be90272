r"""Where a spike train becomes a spike train: the memory-free neuron as a function.

.. math::
    u[t] &= \sum_{j=0}^{\min(t, K-1)} m_j \, x[t-j]   && \text{membrane potential, never reset} \\
    s[t] &= 1 \text{ if } u[t] \ge v_{threshold} \text{ else } 0

All T steps are computed at once; the derivation is in docs/neuron.md. Twin: :mod:`mfp_neurons.reference`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import ops
from ._checks import check_finite, describe, log_once
from .backends import check_name
from .backends.torch import accumulate_dtype
from .history import FIR, Exponential, Kernel, Matrix, as_row
from .surrogate import ATan, Rect, Surrogate

SpikeFunction = Surrogate | Callable[[Tensor], Tensor]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Chunk(NamedTuple):
    """What :func:`fire_chunk` gives: spikes, potential, and the state that continues the sequence."""

    spikes: Tensor
    potential: Tensor
    state: Tensor


def fire(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    *,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Spike train of memory-free neurons: every time step at once, no state kept.

    Args:
        x_seq: synaptic input [T, N, *], time first, N the batch; 2-D to 6-D with any strides; float16,
            bfloat16, float32 or float64. Sums run in float32 (float64 for float64), also under autocast.
        kernel: :class:`~mfp_neurons.history.Exponential`, :class:`~mfp_neurons.history.FIR` or
            :class:`~mfp_neurons.history.Matrix`. Per-channel parameters [C] run along dim 2 of x_seq.
        v_threshold: a number, or a tensor [1] or [C], in the units of ``x_seq``.
        surrogate: the derivative that stands for the spike's. The classes of :mod:`mfp_neurons.surrogate` run
            inside the operator, which saves ``x_seq`` alone for backward. Any other callable from
            u - v_threshold to spikes works too, slower, and decides ties itself.
        strict: fire on u > v_threshold (snnTorch) rather than on u >= v_threshold (SpikingJelly).
        backend: "auto" or "torch"; "cpu" and "cupy" name compiled kernels of later releases.

    Returns:
        Spikes 0 or 1, with the shape and dtype of ``x_seq``.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: a shape, a device or a number does not fit; the message says which and what would.

    >>> x = torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)  # T = 4, one neuron
    >>> fire(x, Exponential(decay=0.5)).flatten()  # u = 0.5, 0.75, 0.375, 1.1875
    tensor([0., 0., 0., 1.])
    """
    with _full_precision(x_seq):
        call = _prepare(x_seq, kernel, v_threshold, None, backend, carry=False)
        _check_surrogate(surrogate)
        spikes, _ = _run(call, surrogate, strict, record=False)
    return spikes


def fire_chunk(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    state: Tensor | None = None,
    *,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    record: bool = False,
    backend: str = "auto",
) -> Chunk:
    """:func:`fire` on a stretch of a longer sequence: takes the state before it, gives the state after it.

    However a sequence is cut, its chunks give the spikes, potentials and gradients of the whole.

    Args:
        x_seq, kernel, v_threshold, surrogate, strict, backend: as in :func:`fire`.
        state: None at the start of a sequence, else the last chunk's. For an infinite exponential the last
            potential [N, *] (float32 or wider), for K taps the last K - 1 inputs [K-1, N, *], zeros before
            the start, for a matrix every input so far [t, N, *] (its length is the position in time).
        record: return the potential of every step rather than of the last alone.

    Returns:
        Chunk(spikes [T, N, *], potential [T, N, *] if ``record`` else [N, *], state). The potential is
        float32 (float64 for float64 input). All three are differentiable; the state is no view.

    Raises:
        TypeError, ValueError: as :func:`fire`; also a state of the wrong shape, or a matrix run past its T.

    >>> x = torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)
    >>> first = fire_chunk(x[:2], Exponential(decay=0.5))
    >>> fire_chunk(x[2:], Exponential(decay=0.5), state=first.state).potential
    tensor([1.1875])
    """
    with _full_precision(x_seq):
        call = _prepare(x_seq, kernel, v_threshold, state, backend, carry=True)
        _check_surrogate(surrogate)
        if len(x_seq) == 1 and call.kind == "exp" and not torch.compiler.is_compiling():
            return _one_step(call, surrogate, strict, record)
        spikes, u = _run(call, surrogate, strict, record)
        return Chunk(spikes, u, _next_state(call, u[-1] if record else u))


def potential(x_seq: Tensor, kernel: Kernel, state: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """The membrane potential alone, without a threshold.

    Args:
        x_seq, kernel, state, backend: as in :func:`fire_chunk`. Without a state x_seq is a whole sequence,
            which a matrix kernel takes at its full T only; an empty state [0, N, *] starts a chunked one.

    Returns:
        u [T, N, *], float32 (float64 for float64 input), differentiable.

    Raises:
        TypeError, ValueError: as :func:`fire_chunk`.

    >>> potential(torch.tensor([[1.0], [0.0], [0.0]]), FIR(torch.tensor([0.5, 0.25]))).flatten()
    tensor([0.5000, 0.2500, 0.0000])
    """
    with _full_precision(x_seq):
        call = _prepare(x_seq, kernel, 1.0, state, backend, carry=state is not None)
        u: Tensor = ops.potential(call.x, call.kernel, call.state, call.kind, call.backend)
    return u


def _full_precision(x_seq: Any) -> AbstractContextManager[Any]:
    """Autocast would narrow, or refuse to join, the tensors that go around the operators."""
    device = x_seq.device.type if isinstance(x_seq, Tensor) else "cpu"
    if not torch.compiler.is_compiling() and not torch.amp.is_autocast_available(device):
        return nullcontext()  # the meta device, for one; asking breaks a graph on torch 2.6
    return torch.autocast(device, enabled=False)


class _Prepared(NamedTuple):
    """Checked arguments as the operators take them."""

    x: Tensor
    kind: str
    kernel: Tensor
    threshold: Tensor
    state: Tensor | None
    backend: str


def _prepare(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float,
    state: Tensor | None,
    backend: str,
    carry: bool,
) -> _Prepared:
    check_name(backend)
    _check_input(x_seq)
    wide = accumulate_dtype(x_seq.dtype)
    position = 0 if state is None or state.dim() == 0 else len(state)
    kind, tensor = _kernel_tensor(kernel, x_seq, position, carry)
    threshold = _parameter("v_threshold", v_threshold, x_seq)
    _check_channels("kernel", tensor.shape[1] if kind != "matrix" else 1, x_seq)
    _check_channels("v_threshold", threshold.numel(), x_seq)
    _check_device(f"kernel ({type(kernel).__name__})", tensor, x_seq)
    if state is not None:
        _check_state(kind, tensor, state, x_seq)
    return _Prepared(x_seq, kind, tensor.to(wide), threshold.to(wide), state, backend)


def _run(call: _Prepared, surrogate: SpikeFunction, strict: bool, record: bool) -> tuple[Tensor, Tensor]:
    if isinstance(surrogate, Surrogate):
        return _fused(call, surrogate, strict, record)
    log_once(
        f"unfused-{getattr(surrogate, '__qualname__', type(surrogate).__qualname__)}",
        "surrogate %r is not one of mfp_neurons.surrogate, so it runs outside the fused operator: same "
        "results, slower, and it keeps the potential for backward.",
        surrogate,
    )
    u = ops.potential(call.x, call.kernel, call.state, call.kind, call.backend)
    spikes = surrogate(u - _along_channels(call.threshold, u.dim()))
    return spikes.to(call.x.dtype), (u if record else u[-1].clone())


def _fused(call: _Prepared, surrogate: Surrogate, strict: bool, record: bool) -> tuple[Tensor, Tensor]:
    tensors = (call.x, call.kernel, call.threshold, call.state, None, None)
    if isinstance(surrogate, Rect) and _only_the_input_learns(call):
        spikes, u, _ = ops.fire_masked(*tensors, call.kind, surrogate.alpha, strict, record, call.backend)
        return spikes, u
    name, parameters = surrogate.name, surrogate.parameters
    outputs = ops.fire(*tensors, call.kind, name, parameters, strict, record, call.backend)
    return outputs  # type: ignore[no-any-return]


def _only_the_input_learns(call: _Prepared) -> bool:
    """Whether backward needs no value of the input, given a surrogate whose derivative is one bit."""
    learns = call.x.requires_grad or (call.state is not None and call.state.requires_grad)
    fixed = not (call.kernel.requires_grad or call.threshold.requires_grad)
    return learns and fixed and torch.is_grad_enabled()


def _one_step(call: _Prepared, surrogate: SpikeFunction, strict: bool, record: bool) -> Chunk:
    """One step of the recursion. With no time to run in parallel, plain operators have the least overhead."""
    x = call.x[0].to(call.kernel.dtype)
    decay, gain = (_along_channels(row, call.x.dim()) for row in call.kernel)
    u = x * gain if call.state is None else torch.addcmul(x * gain, call.state.to(x.dtype), decay)
    above = u - _along_channels(call.threshold, call.x.dim())
    spikes = surrogate.spike(above, strict) if isinstance(surrogate, Surrogate) else surrogate(above)
    return Chunk(spikes.to(call.x.dtype).unsqueeze(0), u.unsqueeze(0).clone() if record else u, u.clone())


def _next_state(call: _Prepared, last: Tensor) -> Tensor:
    if call.kind == "exp":
        return last.clone()
    seen = call.x if call.state is None else torch.cat([call.state.to(call.x.dtype), call.x])
    if call.kind == "matrix":
        return seen.clone() if call.state is None else seen
    keep = len(call.kernel) - 1
    if len(seen) >= keep:
        return seen[len(seen) - keep :].clone()
    return torch.cat([seen.new_zeros(keep - len(seen), *seen.shape[1:]), seen])


def _kernel_tensor(kernel: Kernel, x_seq: Tensor, position: int, carry: bool) -> tuple[str, Tensor]:
    """A kernel as the operators take it: "exp" [2, G], "fir" [K, G] or "matrix" [T, S]."""
    if isinstance(kernel, Exponential):
        if kernel.order is None or (not carry and kernel.order >= len(x_seq)):
            # a truncation that this sequence never reaches is the recursion, which is cheaper
            rows = torch.broadcast_tensors(
                *(_parameter(n, getattr(kernel, n), x_seq) for n in ("decay", "gain"))
            )
            return "exp", torch.stack(rows)
        return "fir", kernel.taps(kernel.order).to(accumulate_dtype(x_seq.dtype)).to(x_seq.device)
    if isinstance(kernel, FIR):
        taps = kernel.taps if kernel.taps.dim() == 2 else kernel.taps.unsqueeze(1)
        # taps that lie further back than a whole sequence weigh nothing
        return "fir", taps if carry else taps[: max(1, len(x_seq))]
    if isinstance(kernel, Matrix):
        return "matrix", _matrix_rows(kernel.matrix, len(x_seq), position, carry)
    raise TypeError(
        f"kernel must be an Exponential, FIR or Matrix of mfp_neurons.history, got {describe(kernel)}"
    )


def _matrix_rows(matrix: Tensor, steps: int, position: int, carry: bool) -> Tensor:
    total = len(matrix)
    if position + steps > total or (not carry and steps != total):
        came = f"T = {steps}" if position == 0 else f"{steps} steps after {position}"
        raise ValueError(f"a matrix kernel of {total} steps takes x_seq of T = {total}, got {came}")
    return matrix.tril()[position : position + steps, : position + steps]


def _parameter(name: str, value: Tensor | float, x_seq: Tensor) -> Tensor:
    """A per-layer or per-channel argument as a tensor [1] or [C] on x_seq's device."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be a number or a real tensor [1] or [C], got {describe(value)}")
        if value.dim() > 1:
            raise ValueError(f"{name} must be a number or a tensor [1] or [C], got shape {list(value.shape)}")
        check_finite(name, value)
        _check_device(name, value, x_seq)
        return as_row(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor [1] or [C], got {describe(value)}")
    check_finite(name, value)
    return torch.full((1,), float(value), dtype=accumulate_dtype(x_seq.dtype), device=x_seq.device)


def _check_input(x_seq: Any) -> None:
    if not isinstance(x_seq, Tensor) or x_seq.dtype not in _DTYPES:
        raise TypeError(
            f"x_seq must be a float16, bfloat16, float32 or float64 tensor, got {describe(x_seq)}"
        )
    if x_seq.layout != torch.strided:
        raise TypeError(f"x_seq must be a dense (strided) tensor, got layout {x_seq.layout}")
    if not 2 <= x_seq.dim() <= 6:
        raise ValueError(f"x_seq must be [T, N, *] with 2 to 6 dimensions, got shape {list(x_seq.shape)}")
    if len(x_seq) == 0:
        raise ValueError(f"x_seq must hold at least one time step (dim 0), got shape {list(x_seq.shape)}")


def _check_channels(name: str, groups: int, x_seq: Tensor) -> None:
    if groups == 1:
        return
    channels = x_seq.shape[2] if x_seq.dim() > 2 else None
    if channels != groups:
        found = "no channel dimension" if channels is None else f"{channels} channels"
        raise ValueError(
            f"{name} has {groups} channels, but x_seq of shape {list(x_seq.shape)} has {found} "
            "(dim 2 of [T, N, C, *]); give one value a channel, or one for all"
        )


def _check_device(name: str, value: Tensor, x_seq: Tensor) -> None:
    if value.device != x_seq.device:
        raise ValueError(
            f"{name} is on {value.device}, but x_seq is on {x_seq.device}; move one to the other"
        )


def _check_state(kind: str, kernel: Tensor, state: Tensor, x_seq: Tensor) -> None:
    step = list(x_seq.shape[1:])
    expected = {
        "exp": step,
        "fir": [len(kernel) - 1, *step],
        "matrix": [kernel.shape[1] - len(x_seq), *step],
    }[kind]
    if list(state.shape) != expected:
        raise ValueError(
            f"state must have shape {expected} for x_seq of shape {list(x_seq.shape)} and this kernel, "
            f"got {list(state.shape)}"
        )
    if not state.is_floating_point():
        raise TypeError(f"state must be a real floating-point tensor, got {describe(state)}")
    _check_device("state", state, x_seq)


def _check_surrogate(surrogate: Any) -> None:
    if not callable(surrogate):
        raise TypeError(
            f"surrogate must be a Surrogate or a callable tensor -> spikes, got {describe(surrogate)}"
        )


def _along_channels(value: Tensor, dims: int) -> Tensor:
    """[C] as [C, 1, ..., 1], to run along dim 2 of [T, N, C, *]; [1] as it is."""
    return value.reshape(-1, *[1] * (dims - 3)) if value.numel() > 1 else value
