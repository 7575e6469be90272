r"""The memory-free neuron as a function: synaptic input in, spike train out.

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
from torch.nn.functional import batch_norm

from . import ops
from ._arguments import as_norm, check_norm, prepare
from ._checks import is_exporting, log_once
from .backends import Call
from .history import Kernel
from .norm import Norm
from .surrogate import ATan, Surrogate

SpikeFunction = Surrogate | Callable[[Tensor], Tensor]


class Chunk(NamedTuple):
    """What :func:`fire_chunk` gives: spikes, potential, and the state that continues the sequence."""

    spikes: Tensor  #: [T, N, *]
    potential: Tensor  #: of every step [T, N, *], or of the last alone [N, *]
    state: Tensor  #: what the next chunk takes, the last potential or inputs


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
            Integers and booleans (counts of events, spikes) are taken in torch's default dtype.
        kernel: :class:`~mfp_neurons.history.Exponential`, :class:`~mfp_neurons.history.FIR` or
            :class:`~mfp_neurons.history.Matrix`. Per-channel parameters [C] run along dim 2 of x_seq.
        v_threshold: a number, or a tensor [1] or [C], in the units of ``x_seq``; inf never fires.
        surrogate: the derivative that stands for the spike's. The classes of :mod:`mfp_neurons.surrogate` run
            inside the operator, which saves ``x_seq`` alone for backward. Any other callable from
            u - v_threshold to spikes works too, slower, and decides ties itself.
        strict: fire on u > v_threshold (snnTorch) rather than on u >= v_threshold (SpikingJelly).
        backend: "auto" takes the compiled kernels where they run ("cpu" for CPU tensors, "cupy" for CUDA)
            and else "torch", stock operators; the log says once why. A backend that you name is used, or an
            error says why it cannot be.

    Returns:
        Spikes 0 or 1, with the shape and dtype of ``x_seq`` (of integers: in the default dtype).

    A NaN in the input makes the potential of that neuron and sample NaN for as long as the kernel remembers
    it, and a potential that is NaN does not fire, as in LIFNode: see "What a NaN does" in docs/limits.md.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: a shape, a device or a number does not fit; the message says which and what would.

    >>> from mfp_neurons.history import Exponential
    >>> x = torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)  # T = 4, one neuron
    >>> fire(x, Exponential(decay=0.5)).flatten()  # u = 0.5, 0.75, 0.375, 1.1875
    tensor([0., 0., 0., 1.])
    """
    return _run(
        x_seq, kernel, v_threshold, surrogate=surrogate, strict=strict, potential=False, backend=backend
    ).spikes


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
        float32 (float64 for float64 input). All three are differentiable; the state is no view. Without
        ``record`` an infinite exponential's state and potential are one tensor.

    Raises:
        TypeError, ValueError: as :func:`fire`; also a state of the wrong shape, or a matrix run past its T.

    >>> from mfp_neurons.history import Exponential
    >>> x = torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)
    >>> first = fire_chunk(x[:2], Exponential(decay=0.5))
    >>> fire_chunk(x[2:], Exponential(decay=0.5), state=first.state).potential
    tensor([1.1875])
    """
    return _run(
        x_seq, kernel, v_threshold, state, surrogate=surrogate, strict=strict, record=record, carry=True,
        backend=backend,
    )  # fmt: skip


def norm_fire(
    x_seq: Tensor,
    norm: Norm,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    *,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    backend: str = "auto",
) -> Tensor:
    """:func:`fire` of the batch-normalized input: one operator, which keeps ``x_seq`` alone for backward.

    Args:
        x_seq: what is normalized, [T, N, C, *], 3-D to 6-D; strides and dtypes as in :func:`fire`. Moments
            are float32 (float64 for float64 input).
        norm: a :class:`~mfp_neurons.norm.Norm`; where it is ``training``, its running averages are updated.
        kernel, v_threshold, surrogate, strict, backend: as in :func:`fire`. With a surrogate that is not one
            of :mod:`mfp_neurons.surrogate` the two run one after the other.

    Returns:
        Spikes 0 or 1, with the shape and dtype of ``x_seq``.

    Raises:
        TypeError, ValueError: as :func:`fire`; also a norm of another number of channels, or one value a
            channel to train on. The running averages have not changed then.

    Source: Ioffe and Szegedy, ICML 2015; equations in docs/neuron.md.

    >>> from mfp_neurons.history import Exponential
    >>> x = torch.tensor([1.0, 1.0, 3.0, 3.0]).reshape(4, 1, 1)  # normalized: -1, -1, 1, 1
    >>> norm_fire(x, Norm(training=True), Exponential(decay=0.5)).flatten()  # u = -1, -1.5, 0.25, 1.125
    tensor([0., 0., 0., 1.])
    """
    return _run(
        x_seq, kernel, v_threshold, norm=as_norm(norm), surrogate=surrogate, strict=strict, backend=backend
    ).spikes


def norm_fire_chunk(
    x_seq: Tensor,
    norm: Norm,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    state: Tensor | None = None,
    *,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    record: bool = False,
    backend: str = "auto",
) -> Chunk:
    """:func:`norm_fire` on a stretch of a longer sequence, as :func:`fire_chunk` is :func:`fire` on one.

    Args:
        x_seq, norm, surrogate, strict, backend: as in :func:`norm_fire`. Moments are those of this stretch.
        kernel, v_threshold, record: as in :func:`fire_chunk`.
        state: as in :func:`fire_chunk`; the inputs that it holds for a finite kernel are normalized ones.

    Returns:
        Chunk(spikes, potential, state), as :func:`fire_chunk`.

    Raises:
        TypeError, ValueError: as :func:`norm_fire` and :func:`fire_chunk`.

    >>> from mfp_neurons.history import Exponential
    >>> x = torch.tensor([1.0, 1.0, 3.0, 3.0]).reshape(4, 1, 1)
    >>> norm_fire_chunk(x, Norm(training=True), Exponential(decay=0.5)).potential
    tensor([[1.1250]])
    """
    return _run(
        x_seq, kernel, v_threshold, state, norm=as_norm(norm), surrogate=surrogate, strict=strict,
        record=record, carry=True, backend=backend,
    )  # fmt: skip


def potential(x_seq: Tensor, kernel: Kernel, state: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """The membrane potential alone, without a threshold.

    Args:
        x_seq, kernel, state, backend: as in :func:`fire_chunk`. Without a state x_seq is a whole sequence,
            which a matrix kernel takes at its full T only; an empty state [0, N, *] starts a chunked one.

    Returns:
        u [T, N, *], float32 (float64 for float64 input), differentiable.

    Raises:
        TypeError, ValueError: as :func:`fire_chunk`.

    >>> from mfp_neurons.history import FIR
    >>> potential(torch.tensor([[1.0], [0.0], [0.0]]), FIR(torch.tensor([0.5, 0.25]))).flatten()
    tensor([0.5000, 0.2500, 0.0000])
    """
    carry = state is not None
    return _run(x_seq, kernel, 1.0, state, fires=False, record=True, carry=carry, backend=backend).potential


def _run(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float,
    state: Tensor | None = None,
    *,
    fires: bool = True,
    norm: Norm | None = None,
    surrogate: Any = None,
    strict: bool = False,
    record: bool = False,
    potential: bool = True,
    carry: bool = False,
    backend: str = "auto",
) -> Chunk:
    """All of the above: checks, one operator, and the state after it.

    Args:
        fires: False asks for the potential alone; then there are no spikes, and no state is made.
        potential: False where nobody reads the potential, which may then be empty.
        carry: whether this is a stretch of a longer sequence, so that a state comes out.
    """
    with _full_precision(x_seq):
        call, inputs_held = prepare(
            x_seq, kernel, v_threshold, state, fires=fires, surrogate=surrogate, strict=strict, record=record,
            potential=potential, carry=carry, backend=backend,
        )  # fmt: skip
        if norm is not None:
            check_norm(norm, call.x)
            # The state of a finite kernel holds normalized inputs, so the operator returns as many of them.
            last = min(len(call.x), inputs_held or 0) if carry else 0
            spikes, u, inputs = _normalize_and_fire(call, norm, last)
        elif carry and _is_one_short_step(call):  # what a framework's loop over time asks for
            spikes, u = _one_step(call)
            inputs = call.x
        else:
            spikes, u = _fire(call)
            inputs = call.x
        # `fire` carries nothing on, and making a state would copy inputs
        return Chunk(spikes, u, _next_state(call, inputs_held, inputs, u) if carry and fires else u)


def _full_precision(x_seq: Any) -> AbstractContextManager[Any]:
    """Autocast would narrow, or refuse to join, the tensors that go around the operators."""
    device = x_seq.device.type if isinstance(x_seq, Tensor) else "cpu"
    if not torch.compiler.is_compiling() and not torch.amp.is_autocast_available(device):
        return nullcontext()  # the meta device, for one; asking breaks a graph on torch 2.6
    return torch.autocast(device, enabled=False)


def _is_fused(surrogate: Any) -> bool:
    return surrogate is None or isinstance(surrogate, Surrogate)


def _fire(call: Call) -> tuple[Tensor, Tensor]:
    if _is_fused(call.surrogate):
        return ops.fire(*call.arguments())  # type: ignore[no-any-return]
    surrogate = call.surrogate
    log_once(
        f"unfused-{getattr(surrogate, '__qualname__', type(surrogate).__qualname__)}",
        "surrogate %r is not one of mfp_neurons.surrogate, so it runs outside the fused operator: same "
        "results, slower, and it keeps the potential for backward.",
        surrogate,
    )
    assert call.threshold is not None
    # decided outside the operator, the spikes need the potential of every step, also for their gradient
    alone = call._replace(threshold=None, surrogate=None, record=True, potential=True)
    _, u = ops.fire(*alone.arguments())
    # The user's function is differentiated by autograd itself, from here to the operator's potential.
    spikes = surrogate(u - ops.along_channels(call.threshold, u.dim()))
    return spikes.to(call.x.dtype), (u if call.record else u[-1].clone())


_SHORT = 1 << 17  # neurons up to which a compiled kernel takes longer to start than stock operators to run


def _is_one_short_step(call: Call) -> bool:
    if call.x.shape[0] > 1 or call.kind != "exp" or torch.compiler.is_compiling():
        return False
    return call.backend == "torch" or (call.backend == "auto" and call.x.numel() <= _SHORT)


def _one_step(call: Call) -> tuple[Tensor, Tensor]:
    """One step of the recursion. With no time to run in parallel, plain operators have the least overhead."""
    assert call.threshold is not None
    x = call.x[0].to(call.kernel.dtype)
    decay, gain = (ops.along_channels(row, call.x.dim()) for row in call.kernel)
    u = x * gain if call.state is None else torch.addcmul(x * gain, call.state.to(x.dtype), decay)
    above = u - ops.along_channels(call.threshold, call.x.dim())
    fused = isinstance(call.surrogate, Surrogate)
    spikes = call.surrogate.spike(above, call.strict) if fused else call.surrogate(above)
    return spikes.to(call.x.dtype).unsqueeze(0), u.unsqueeze(0).clone() if call.record else u


def _normalize_and_fire(call: Call, norm: Norm, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, potential, and what the neuron got, of the ``last`` steps at least."""
    if not _is_fused(call.surrogate):
        y = _normalized(call.x, norm)
        return *_fire(call._replace(x=y)), y
    if norm.training:
        weighted = call._replace(scale=norm.weight, shift=norm.bias)
        spikes, u, inputs, mean, variance = ops.norm_fire(*weighted.arguments(), norm.eps, last)
        _update_averages(norm, mean, variance, call.x.numel() // call.x.shape[2])
        return spikes, u, inputs
    assert norm.running_mean is not None and norm.running_var is not None
    scale, shift, _ = ops.affine_map(
        norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps, call.kernel.dtype
    )
    spikes, u = _fire(call._replace(scale=scale, shift=shift))
    return spikes, u, ops.mapped_end(call.x, last, scale, shift)


def _normalized(x_seq: Tensor, norm: Norm) -> Tensor:
    """The two halves apart: what the neuron gets, [T, N, C, *], by torch's own batch norm."""
    y = batch_norm(
        x_seq.flatten(0, 1), norm.running_mean, norm.running_var, norm.weight, norm.bias,
        norm.training, float(norm.momentum), norm.eps,
    )  # fmt: skip
    return y.unflatten(0, x_seq.shape[:2])


@torch.no_grad()
def _update_averages(norm: Norm, mean: Tensor, variance: Tensor, count: int) -> None:
    if norm.running_mean is None or norm.running_var is None or count == 0:
        return
    # As in torch, the batch is normalized by its biased variance, and the average is over unbiased ones.
    for average, newest in ((norm.running_mean, mean), (norm.running_var, variance * (count / (count - 1)))):
        momentum = norm.momentum
        if isinstance(momentum, Tensor):
            momentum = momentum.to(average).reshape(())
        average.lerp_(newest.to(average), momentum)


def _next_state(call: Call, inputs_held: int | None, inputs: Tensor, u: Tensor) -> Tensor:
    """What the next chunk takes: the last potential, or the last inputs, zeros before the first.

    Args:
        inputs_held: how many inputs the state holds; None where it is a potential.
        inputs: what the neuron got, of the last steps at least that are held.
    """
    if inputs_held is None:
        return u[-1].clone() if call.record else u
    if is_exporting():  # T is open: a long stretch goes the way of a short one
        before = inputs.new_zeros((inputs_held, *inputs.shape[1:])) if call.state is None else call.state
        inputs = torch.cat((before.to(inputs.dtype), inputs))
    # A stretch shorter than the kernel's memory leaves older inputs in the state.
    newest = inputs[inputs.shape[0] - min(inputs_held, inputs.shape[0]) :]
    missing = inputs_held - newest.shape[0]
    if missing == 0:
        return newest.clone()
    if call.state is None:
        before = newest.new_zeros(()).expand(missing, *newest.shape[1:])
    else:
        before = call.state[len(call.state) - missing :].to(newest.dtype)
    return torch.cat((before, newest))
