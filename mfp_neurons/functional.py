r"""The memory-free neuron as a function: synaptic input in, spike train out.

.. math::
    u[t] &= \sum_{j=0}^{\min(t, K-1)} m_j \, x[t-j]   && \text{membrane potential, never reset} \\
    s[t] &= 1 \text{ if } u[t] \ge v_{threshold} \text{ else } 0

All T steps are computed at once; the derivation is in docs/neuron.md. Twin: :mod:`mfp_neurons.reference`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import ops
from ._arguments import Carry, ResetOptions, as_norm, as_real, check_norm, prepare
from ._checks import is_exporting, log_once
from ._saved_spikes import mark_spikes
from .backends import Call, in_full_precision
from .history import Exponential, Kernel, as_dtype
from .norm import Norm
from .surrogate import ATan, Surrogate

__all__ = ["Chunk", "fire", "fire_chunk", "norm_fire", "norm_fire_chunk", "potential"]

SpikeFunction = Surrogate | Callable[[Tensor], Tensor]


class Chunk(NamedTuple):
    """What :func:`fire_chunk` gives: spikes, potential, and the state that continues the sequence."""

    spikes: Tensor  #: [T, N, *]
    potential: Tensor  #: of every step [T, N, *], or of the last alone [N, *]
    state: Tensor  #: what the next chunk takes, the last potential or inputs
    last_spikes: Tensor | None = None  #: with a reset what it takes beside: its own last spikes [R, N, *]


def fire(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    *,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    reset: str | None = None,
    reset_order: int | None = None,
    reset_taps: Tensor | None = None,
    reset_delay: bool = False,
    detach_reset: bool = False,
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
        reset: what the neuron's own spikes change. None: nothing, and all steps are free of one another.
            "subtract": u[t] gets the sum over j = 1 .. R of -v_threshold * decay**j * s[t-j], the soft reset
            of a LIF (``kernel`` is an Exponential). "zero": the sum over the inputs stops at the neuron's
            last own spike, the hard reset. "feedback": u[t] gets the sum over j = 1 .. R of
            reset_taps[j-1] * s[t-j]. With an Exponential of order None the first two are the LIF itself.
        reset_order: R, for "subtract" with a kernel of order K; None is K - 1, with which the LIF and the
            neuron agree for K steps.
        reset_taps: r[1] .. r[R], [R] or [R, C], in the units of ``x_seq``; for "feedback" alone, whose
            kernel has a finite order.
        reset_delay: a subtracted threshold decays from the second step on only: -v_threshold *
            decay**(j-1), as in snn.Leaky.
        detach_reset: no gradient passes through the spikes that are fed back.
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
    feedback = ResetOptions(reset, reset_order, reset_taps, reset_delay, detach_reset)
    return run(
        x_seq, kernel, v_threshold, feedback=feedback, surrogate=surrogate, strict=strict, potential=False,
        backend=backend,
    ).spikes  # fmt: skip


def fire_chunk(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    state: Tensor | None = None,
    *,
    last_spikes: Tensor | None = None,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    reset: str | None = None,
    reset_order: int | None = None,
    reset_taps: Tensor | None = None,
    reset_delay: bool = False,
    detach_reset: bool = False,
    record: bool = False,
    backend: str = "auto",
) -> Chunk:
    """:func:`fire` on a stretch of a longer sequence: takes the state before it, gives the state after it.

    However a sequence is cut, its chunks give the spikes, potentials and gradients of the whole.

    Args:
        x_seq, kernel, v_threshold, surrogate, strict, backend: as in :func:`fire`.
        reset, reset_order, reset_taps, reset_delay, detach_reset: as in :func:`fire`.
        last_spikes: with a reset the last chunk's own, [R, N, *]; None for none fired.
        state: None at the start of a sequence, else the last chunk's. For an infinite exponential the last
            potential [N, *] (float32 or wider), for K taps the last K - 1 inputs [K-1, N, *], zeros before
            the start, for a matrix every input so far [t, N, *] (its length is the position in time).
        record: return the potential of every step rather than of the last alone.

    Returns:
        Chunk(spikes [T, N, *], potential [T, N, *] if ``record`` else [N, *], state, last_spikes). The
        potential is float32 (float64 for float64 input), and the one that is compared with the threshold,
        before any reset. All are differentiable; states are no views. Without ``record`` an infinite
        exponential's state and potential are one tensor.

    Raises:
        TypeError, ValueError: as :func:`fire`; also a state of the wrong shape, or a matrix run past its T.

    >>> from mfp_neurons.history import Exponential
    >>> x = torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)
    >>> first = fire_chunk(x[:2], Exponential(decay=0.5))
    >>> fire_chunk(x[2:], Exponential(decay=0.5), state=first.state).potential
    tensor([1.1875])
    """
    feedback = ResetOptions(reset, reset_order, reset_taps, reset_delay, detach_reset)
    return run(
        x_seq, kernel, v_threshold, state, last_spikes, feedback=feedback, surrogate=surrogate, strict=strict,
        record=record, carry=True, backend=backend,
    )  # fmt: skip


def norm_fire(
    x_seq: Tensor,
    norm: Norm,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    *,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    reset: str | None = None,
    reset_order: int | None = None,
    reset_taps: Tensor | None = None,
    reset_delay: bool = False,
    detach_reset: bool = False,
    backend: str = "auto",
) -> Tensor:
    """:func:`fire` of the batch-normalized input: one operator, which keeps ``x_seq`` alone for backward.

    Args:
        x_seq: what is normalized, [T, N, C, *], 3-D to 6-D; strides and dtypes as in :func:`fire`. Moments
            are float32 (float64 for float64 input).
        norm: a :class:`~mfp_neurons.norm.Norm`; where it is ``training``, its running averages are updated.
        kernel, v_threshold, surrogate, strict, backend: as in :func:`fire`. With a surrogate that is not one
            of :mod:`mfp_neurons.surrogate` the two run one after the other.
        reset, reset_order, reset_taps, reset_delay, detach_reset: as in :func:`fire`.

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
    feedback = ResetOptions(reset, reset_order, reset_taps, reset_delay, detach_reset)
    return run(
        x_seq, kernel, v_threshold, feedback=feedback, norm=as_norm(norm), surrogate=surrogate,
        strict=strict, backend=backend,
    ).spikes  # fmt: skip


def norm_fire_chunk(
    x_seq: Tensor,
    norm: Norm,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    state: Tensor | None = None,
    *,
    last_spikes: Tensor | None = None,
    surrogate: SpikeFunction = ATan(),
    strict: bool = False,
    reset: str | None = None,
    reset_order: int | None = None,
    reset_taps: Tensor | None = None,
    reset_delay: bool = False,
    detach_reset: bool = False,
    record: bool = False,
    backend: str = "auto",
) -> Chunk:
    """:func:`norm_fire` on a stretch of a longer sequence, as :func:`fire_chunk` is :func:`fire` on one.

    Args:
        x_seq, norm, surrogate, strict, backend: as in :func:`norm_fire`. Moments are those of this stretch.
        kernel, v_threshold, last_spikes, record: as in :func:`fire_chunk`.
        reset, reset_order, reset_taps, reset_delay, detach_reset: as in :func:`fire`.
        state: as in :func:`fire_chunk`; the inputs that it holds for a finite kernel are normalized ones.

    Returns:
        Chunk, as :func:`fire_chunk`.

    Raises:
        TypeError, ValueError: as :func:`norm_fire` and :func:`fire_chunk`.

    >>> from mfp_neurons.history import Exponential
    >>> x = torch.tensor([1.0, 1.0, 3.0, 3.0]).reshape(4, 1, 1)
    >>> norm_fire_chunk(x, Norm(training=True), Exponential(decay=0.5)).potential
    tensor([[1.1250]])
    """
    feedback = ResetOptions(reset, reset_order, reset_taps, reset_delay, detach_reset)
    return run(
        x_seq, kernel, v_threshold, state, last_spikes, feedback=feedback, norm=as_norm(norm),
        surrogate=surrogate, strict=strict, record=record, carry=True, backend=backend,
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
    return run(x_seq, kernel, 1.0, state, fires=False, record=True, carry=carry, backend=backend).potential


def run(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float,
    state: Tensor | None = None,
    own_spikes: Tensor | None = None,
    *,
    fires: bool = True,
    feedback: ResetOptions | None = None,
    norm: Norm | None = None,
    surrogate: Any = None,
    strict: bool = False,
    record: bool = False,
    potential: bool = True,
    carry: bool = False,
    carry_spikes: bool = True,
    backend: str = "auto",
) -> Chunk:
    """All of the above: checks, one operator, and the state after it.

    Args:
        fires: False asks for the potential alone; then there are no spikes, and no state is made.
        potential: False where nobody reads the potential, which may then be empty.
        carry: whether this is a stretch of a longer sequence, so that a state comes out.
        carry_spikes: False where nobody reads ``last_spikes``, which are then None.
    """
    with in_full_precision(x_seq):
        call, held = prepare(
            x_seq, kernel, v_threshold, state, feedback, own_spikes, fires=fires, surrogate=surrogate,
            strict=strict, record=record, potential=potential, carry=carry, backend=backend,
        )  # fmt: skip
        if norm is not None:
            check_norm(norm, call.x)
            # The state of a finite kernel holds normalized inputs, so the operator returns as many of them.
            last = min(len(call.x), held.inputs or 0) if carry else 0
            spikes, u, inputs = _normalize_and_fire(call, norm, last)
        elif carry and _is_one_short_step(call):  # what a framework's loop over time asks for
            spike, u = _one_step(call, call.x[0])
            spikes, u, inputs = spike.unsqueeze(0), u.unsqueeze(0).clone() if record else u, call.x
        else:
            spikes, u = _fire(call)
            inputs = call.x
        if fires and _is_fused(call.surrogate):
            mark_spikes(spikes)
        if not (carry and fires):  # nothing is carried on, and making a state would copy inputs
            return Chunk(spikes, u, u)
        own = None
        if carry_spikes and held.spikes is not None:
            own = _newest(spikes, call.own_spikes, held.spikes)
        return Chunk(spikes, u, _next_state(call, held, inputs, u), own)


def step(
    x: Tensor,
    kernel: Exponential,
    v_threshold: Tensor | float,
    state: Tensor | None,
    *,
    surrogate: SpikeFunction,
    backend: str,
) -> tuple[Tensor, Tensor]:
    r"""Spikes and potential of one step [N, \*] of a recursion, from the potential before it.

    What :func:`fire_chunk` gives of a sequence of one step, without the views that make one of a step: in a
    small layer they take as long as the neurons.
    """
    with in_full_precision(x):
        call, _ = prepare(
            x.detach().unsqueeze(0), kernel, v_threshold, state, fires=True, surrogate=surrogate,
            strict=False, record=False, potential=True, carry=True, backend=backend,
        )  # fmt: skip
        if _is_one_short_step(call):
            spikes, u = _one_step(call, as_dtype(x, call.x.dtype))
        else:
            spikes_seq, u = _fire(call._replace(x=as_real("x", x).unsqueeze(0)))
            spikes = spikes_seq.squeeze(0)
        if _is_fused(surrogate):
            mark_spikes(spikes)
        return spikes, u


def _is_fused(surrogate: Any) -> bool:
    return surrogate is None or isinstance(surrogate, Surrogate)


def _fire(call: Call) -> tuple[Tensor, Tensor]:
    if _is_fused(call.surrogate):
        return ops.fire(call)
    if call.reset:
        return _fire_step_by_step(call)
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
    _, u = ops.fire(alone)
    # The user's function is differentiated by autograd itself, from here to the operator's potential.
    spikes = surrogate(u - ops.along_channels(call.threshold, u.dim()))
    return spikes.to(call.x.dtype), (u if call.record else u[-1].clone())


_SHORT = 1 << 17  # neurons up to which a compiled kernel takes longer to start than stock operators to run


def _is_one_short_step(call: Call) -> bool:
    if call.x.shape[0] > 1 or call.kind != "exp" or torch.compiler.is_compiling():
        return False
    return call.backend == "torch" or (call.backend == "auto" and call.x.numel() <= _SHORT)


def _one_step(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the recursion. With no time to run in parallel, plain operators have the least overhead."""
    own = None if call.own_spikes is None else call.own_spikes[0]
    u = _recursion_step(call, as_dtype(x, call.kernel.dtype), call.state, own)
    return as_dtype(_spikes_of(call, u), x.dtype), u


def _recursion_step(call: Call, x: Tensor, before: Tensor | None, own: Tensor | None) -> Tensor:
    """The potential of an exponential after x, from the one before and the spikes fired on that."""
    decay, gain = (ops.along_channels(row, call.x.dim()) for row in call.kernel.unbind(0))
    own = None if own is None or not call.reset else own.detach() if call.detach else own
    if before is not None and own is not None and call.reset == "zero":
        differs = own.requires_grad or not _is_fused(call.surrogate)  # a user's spikes may be graded
        before = before * (1 - own) if differs else before.masked_fill(own > 0, 0)
    u = x * gain if before is None else torch.addcmul(x * gain, as_dtype(before, x.dtype), decay)
    if call.feedback is None or own is None:
        return u
    return torch.addcmul(u, own.to(x.dtype), ops.along_channels(call.feedback[0], call.x.dim()))


def _spikes_of(call: Call, u: Tensor) -> Tensor:
    assert call.threshold is not None
    threshold = ops.along_channels(call.threshold, call.x.dim())
    if not isinstance(call.surrogate, Surrogate):
        return call.surrogate(u - threshold)  # type: ignore[no-any-return]
    if torch.is_grad_enabled():
        return call.surrogate.spike(u - threshold, call.strict)
    return (u > threshold if call.strict else u >= threshold).to(u.dtype)


def _fire_step_by_step(call: Call) -> tuple[Tensor, Tensor]:
    """Spikes that a function of the user's decides, and that the next step depends on."""
    log_once(
        "unfused-reset",
        "surrogate %r is not one of mfp_neurons.surrogate, and the neuron has a reset: its steps run one "
        "after the other in stock operators, which is much slower.",
        call.surrogate,
    )
    dims, wide = call.x.dim(), call.kernel.dtype
    own = [] if call.own_spikes is None else list(call.own_spikes)
    inputs = [] if call.state is None or call.kind == "exp" else list(call.state.to(wide))
    before = call.state if call.kind == "exp" else None
    us: list[Tensor] = []
    for x in call.x.to(wide):
        fed_back = [spike.detach() if call.detach else spike for spike in reversed(own)]
        if call.kind == "exp":
            u = before = _recursion_step(call, x, before, own[-1] if own else None)
        else:
            inputs.append(x)
            u, silent = torch.zeros_like(x), torch.ones_like(x)
            for j, tap in enumerate(call.kernel[: len(inputs)]):
                if call.reset == "zero" and 0 < j <= len(fed_back):
                    silent = silent * (1 - fed_back[j - 1])
                u = u + ops.along_channels(tap, dims) * silent * inputs[-1 - j]
            for tap, spike in zip(() if call.feedback is None else call.feedback, fed_back, strict=False):
                u = u + ops.along_channels(tap, dims) * spike
        us.append(u)
        own.append(_spikes_of(call, u))
    spikes = torch.stack(own[-len(us) :]).to(call.x.dtype)
    return spikes, torch.stack(us) if call.record else us[-1].clone()


def _normalize_and_fire(call: Call, norm: Norm, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, potential, and what the neuron got, of the ``last`` steps at least."""
    if not _is_fused(call.surrogate):
        y = norm.of(call.x)
        return *_fire(call._replace(x=y)), y
    if norm.training:
        weighted = call._replace(scale=norm.weight, shift=norm.bias)
        spikes, u, inputs, mean, variance = ops.norm_fire(weighted, norm.eps, last)
        _update_averages(norm, mean, variance, call.x.numel() // call.x.shape[2])
        return spikes, u, inputs
    assert norm.running_mean is not None and norm.running_var is not None
    scale, shift, _ = ops.affine_map(
        norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps, call.kernel.dtype
    )
    spikes, u = _fire(call._replace(scale=scale, shift=shift))
    return spikes, u, ops.mapped_end(call.x, last, scale, shift)


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


def _next_state(call: Call, held: Carry, inputs: Tensor, u: Tensor) -> Tensor:
    """What the next chunk takes: the last potential, or the last inputs, zeros before the first.

    ``inputs`` are what the neuron got, of the last steps at least that are held.
    """
    if held.inputs is None:
        return u[-1].clone() if call.record else u
    return _newest(inputs, call.state, held.inputs)


def _newest(inputs: Tensor, state: Tensor | None, held: int) -> Tensor:
    """The last ``held`` steps of a state [S, N, *], or zeros, followed by ``inputs`` [T, N, *]; no view."""
    if is_exporting():  # T is open: a long stretch goes the way of a short one
        before = inputs.new_zeros((held, *inputs.shape[1:])) if state is None else state
        inputs = torch.cat((before.to(inputs.dtype), inputs))
    # A stretch shorter than the kernel's memory leaves older inputs in the state.
    newest = inputs[inputs.shape[0] - min(held, inputs.shape[0]) :]
    missing = held - newest.shape[0]
    if missing == 0:
        return newest.clone()
    if state is None:
        before = newest.new_zeros(()).expand(missing, *newest.shape[1:])
    else:
        before = state[len(state) - missing :].to(newest.dtype)
    return torch.cat((before, newest))
