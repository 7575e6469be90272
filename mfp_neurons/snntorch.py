r"""snnTorch neurons without reset: :class:`MFPLeaky`, step by step; :class:`MFPLeakyParallel`, all at once.

.. math::
    mem[t] = \sum_{j=0}^{\min(t, K-1)} m_j \, input[t-j], \qquad spk[t] = 1 \text{ if } mem[t] > threshold

With the default kernel, m_j = beta^j, this is ``snn.Leaky(beta, reset_mechanism="none")``. The rule is
snnTorch's own: a neuron whose potential equals the threshold does not fire.

Also here: :func:`reset` and :func:`detach`, which reach nested neurons; :func:`release`, which takes this
package's neurons off snnTorch's list of instances; :data:`RULES`, which :func:`mfp_neurons.convert` reads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from . import functional
from . import surrogate as fused
from ._broadcast import as_columns, channel_view
from ._checks import check_finite, check_int, describe, log_once, require
from .history import FIR, Exponential, Kernel, KernelBits, Matrix, quantize_taps
from .neuron import MFP, HistoryKernel

require("snntorch", "snntorch")

import snntorch as snn  # noqa: E402 (the line above turns its absence into a helpful error)
from snntorch import surrogate as snn_surrogate  # noqa: E402

__all__ = ["LEFT_ALONE", "RULES", "MFPLeaky", "MFPLeakyParallel", "detach", "release", "reset"]

_NO_INHIBITION = "MFPLeakyParallel has no inhibition; MFPLeaky has, step by step"
_NONE = snn.SpikingNeuron.reset_dict["none"]


# --- surrogates ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StrictSpike:
    """A surrogate of ours as a ``spike_grad``: fires on x > 0, gives float32, can be pickled."""

    surrogate: fused.Surrogate

    def __call__(self, x: Tensor) -> Tensor:
        return _StrictSpike.apply(x, self.surrogate)


class _StrictSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, surrogate: fused.Surrogate) -> Tensor:  # type: ignore[no-untyped-def, override]
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x > 0).float()

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def, override]
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(x), None


# snnTorch's surrogates are closures: all that one factory makes share a code object and differ in one cell
_FUSED: dict[Any, Callable[[float], fused.Surrogate]] = {
    snn_surrogate.atan().__code__: lambda alpha: fused.ATan(alpha),
    snn_surrogate.fast_sigmoid().__code__: lambda slope: fused.SuperSpike(alpha=slope, scale=1.0),
    snn_surrogate.sigmoid().__code__: lambda slope: fused.Sigmoid(slope),
}


def known_surrogate(spike_grad: Callable[[Tensor], Tensor]) -> fused.Surrogate | None:
    """The fused form of ``spike_grad``, or None where there is none and it has to be called."""
    if isinstance(spike_grad, StrictSpike):
        return spike_grad.surrogate
    make = _FUSED.get(getattr(spike_grad, "__code__", None))
    cells: tuple[Any, ...] = getattr(spike_grad, "__closure__", None) or ()
    if make is None or len(cells) != 1:
        return None
    value = cells[0].cell_contents
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return None
    return make(float(value))


# --- arguments ----------------------------------------------------------------------------------------------


def _check_reset_mechanism(value: Any) -> None:
    if value in ("subtract", "zero"):
        raise ValueError(
            f"reset_mechanism must be 'none', got {value!r}: a reset makes every step depend on the spike "
            "before it, which is what a memory-free neuron drops. Keep snn.Leaky where the reset matters. "
            "Without one the potential grows up to input / (1 - beta), so the threshold may need raising."
        )
    if value != "none":
        raise ValueError(f"reset_mechanism must be 'none', got {describe(value)}")


def _real(name: str, value: Any) -> Any:
    """``value`` if snnTorch can store it as a real number or tensor; integers become floats."""
    unreal = value.is_complex() or value.dtype == torch.bool if isinstance(value, Tensor) else False
    if unreal or isinstance(value, bool):
        raise TypeError(f"{name} must be a real number or tensor, got {describe(value)}")
    if isinstance(value, int):
        value = float(value)
    if isinstance(value, Tensor):
        if value.numel() == 0:
            raise ValueError(f"{name} must not be empty, got {describe(value)}")
        value = value if value.is_floating_point() else value.float()
    elif not isinstance(value, float):
        try:
            value = torch.as_tensor(value, dtype=torch.get_default_dtype())
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name} must be a real number or tensor, got {describe(value)}") from None
    check_finite(name, value)
    return value


def _own_spike_grad(spike_grad: Any) -> Any:
    if isinstance(spike_grad, fused.Surrogate):
        return StrictSpike(spike_grad)
    if spike_grad is not None and not callable(spike_grad):
        raise TypeError(f"spike_grad must be None or a callable tensor -> spikes, got {describe(spike_grad)}")
    return spike_grad


# --- what both neurons share --------------------------------------------------------------------------------


@dataclass(frozen=True)
class BetaKernel:
    """The exponential history of a neuron whose decay is snnTorch's ``beta``. Calling it gives its value now.

    It has the attributes of :class:`mfp_neurons.neuron.HistoryKernel`, so that a network can be read alike.
    """

    beta: Tensor
    gain: Tensor | float
    order: int | None
    kernel_bits: KernelBits
    num_channels: int | None
    learnable: bool
    kind: str = "exp"
    time_steps: None = None

    @property
    def state_steps(self) -> int | None:
        """Inputs kept between steps: K - 1, or None for the infinite kernel, which keeps a potential."""
        return None if self.order is None else self.order - 1

    def __call__(self) -> Exponential | FIR:
        decay = self.beta.clamp(0, 1).reshape(-1)
        gain = self.gain.reshape(-1) if isinstance(self.gain, Tensor) else self.gain
        exponential = Exponential(decay, gain, self.order)
        if self.kernel_bits is None or self.order is None:  # unordered ones are powers of two as they are
            return exponential
        return FIR(quantize_taps(exponential.taps(self.order), self.kernel_bits))


class _MemoryFree(snn.LIF):  # type: ignore[misc, name-defined]
    """Arguments, kernel and checkpoint rules of both neurons; snnTorch's constructors do the rest."""

    beta: Tensor
    threshold: Tensor
    graded_spikes_factor: Tensor
    reset_mechanism_val: Tensor
    mem: Tensor
    gain: Tensor | float

    def __init__(
        self,
        beta: Any,
        threshold: Any = 1.0,
        spike_grad: Any = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "none",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: Any = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        *,
        kernel: str = "exp",
        order: int | None = None,
        time_steps: int | None = None,
        num_channels: int | None = None,
        kernel_bits: KernelBits = None,
        gain: Any = 1.0,
    ) -> None:
        # snnTorch lists an instance before it looks at its arguments, so everything is checked before that
        _check_reset_mechanism(reset_mechanism)
        self._check_can_run(inhibition, state_quant, finite=kernel != "exp" or order is not None)
        beta, threshold, gain = _real("beta", beta), _real("threshold", threshold), _real("gain", gain)
        graded_spikes_factor = _real("graded_spikes_factor", graded_spikes_factor)
        spike_grad = _own_spike_grad(spike_grad)
        beta = _per_channel(beta, num_channels, kernel)
        history = _history(kernel, beta, gain, order, time_steps, num_channels, kernel_bits, learn_beta)
        try:
            super().__init__(
                beta,
                threshold,
                spike_grad,
                surrogate_disable,
                init_hidden,
                inhibition,
                learn_beta,
                learn_threshold,
                "none",
                state_quant,
                output,
                graded_spikes_factor,
                learn_graded_spikes_factor,
            )
        except BaseException:  # such as a warning that the user made an error
            _unlist(lambda neuron: neuron is self)
            raise
        self.reset_delay = reset_delay
        self.order, self.num_channels, self.kernel_bits = order, num_channels, kernel_bits
        if isinstance(gain, Tensor) or gain != 1.0:
            self.register_buffer("gain", torch.as_tensor(gain))
        else:
            self.gain = 1.0
        if history is not None:
            self._modules["kernel"] = history  # add_module refuses the name of the property below
        self._init_state()

    @classmethod
    def _check_can_run(cls, inhibition: bool, state_quant: Any, finite: bool) -> None:
        if state_quant and not callable(state_quant):
            raise TypeError(
                f"state_quant must be False or a function of tensors, got {describe(state_quant)}"
            )

    def _init_state(self) -> None:
        """What is kept between calls, besides what snnTorch's constructors registered."""

    @property
    def kernel(self) -> BetaKernel | HistoryKernel:
        """The history kernel; calling it gives its value (:mod:`mfp_neurons.history`) now."""
        free = self._modules.get("kernel")
        if isinstance(free, HistoryKernel):
            return free
        learnable = isinstance(self.beta, nn.Parameter)
        return BetaKernel(self.beta, self.gain, self.order, self.kernel_bits, self.num_channels, learnable)

    @property
    def is_finite(self) -> bool:
        """Whether the kernel has an order or taps of its own: past inputs count then, not a potential."""
        return self.order is not None or "kernel" in self._modules

    @property
    def reset_mechanism(self) -> str:
        """Always "none"; assigning anything else raises ValueError."""
        return "none"

    @reset_mechanism.setter
    def reset_mechanism(self, value: str) -> None:
        _check_reset_mechanism(value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        key = prefix + "reset_mechanism_val"
        if key in state_dict and int(state_dict[key]) != _NONE:
            log_once(
                "snntorch.reset_mechanism_val",
                f"the loaded {key} is that of a neuron with a reset, which this one does not have. Weights "
                "trained with a reset usually want fine-tuning without it.",
            )
            self.reset_mechanism_val = torch.full_like(self.reset_mechanism_val, _NONE)

    def extra_repr(self) -> str:
        kernel = self.kernel
        names = ("order", "time_steps", "num_channels", "kernel_bits")
        named = {name: getattr(kernel, name) for name in names if getattr(kernel, name) is not None}
        return ", ".join([kernel.kind, *(f"{name}={value}" for name, value in named.items())])

    def _spread(self, dims: int) -> tuple[int, ...]:
        """The shape in which a value a channel, or whatever beta holds, broadcasts over a step."""
        if self.num_channels is None:
            return tuple(self.beta.shape)
        return (self.num_channels, *[1] * (dims - 2))

    def _spread_over(self, value: Tensor, step: torch.Size, lead: int = 0) -> Tensor:
        """``value`` [.., 1] or [.., P] to broadcast over a step, behind its ``lead`` leading dimensions."""
        dims, front = len(step), value.shape[:lead]
        if value.shape[lead:].numel() == 1:
            return value.reshape(*front, *[1] * dims)
        spread = self._spread(dims)
        return value.reshape(*front, *[1] * (dims - len(spread)), *spread)

    def _operands(self, step: torch.Size, steps: int | None) -> tuple[tuple[int, ...], Kernel, Tensor]:
        """How the operators see a step of shape ``step``: its view, and kernel and threshold in that view."""
        kernel = self.kernel()
        if isinstance(kernel, Exponential) and steps and kernel.order is not None and kernel.order >= steps:
            kernel = replace(kernel, order=None)  # not truncated within this sequence: the cheaper recursion
        threshold = self.threshold.reshape(*[1] * (len(step) - self.threshold.dim()), *self.threshold.shape)
        if isinstance(kernel, Exponential):
            decay = self._spread_over(torch.as_tensor(kernel.decay), step)
            gain = self._spread_over(torch.as_tensor(kernel.gain), step)
            view, full = channel_view(step, threshold.shape, decay.shape, gain.shape)
            kernel = replace(kernel, decay=as_columns(decay, full), gain=as_columns(gain, full))
            return view, kernel, as_columns(threshold, full)
        if isinstance(kernel, FIR):
            taps = self._spread_over(kernel.taps, step, lead=1)
            view, full = channel_view(step, threshold.shape, taps.shape[1:])
            return view, FIR(as_columns(taps, full, lead=1)), as_columns(threshold, full)
        view, full = channel_view(step, threshold.shape)
        return view, kernel, as_columns(threshold, full)

    def _returned(self, spk: Tensor, mem: Tensor) -> Any:
        """snnTorch's return rule."""
        return spk if self.init_hidden and not self.output else (spk, mem)


def _per_channel(beta: Any, num_channels: int | None, kernel: str) -> Any:
    """beta with one value a channel where ``num_channels`` asks for that of an exponential."""
    if num_channels is None or kernel != "exp":
        return beta
    check_int("num_channels", num_channels, 1)
    value = torch.as_tensor(beta)
    if value.numel() not in (1, num_channels):
        raise ValueError(f"beta must have 1 or {num_channels} (num_channels) values, got {list(value.shape)}")
    return value.detach().reshape(-1).expand(num_channels).clone()


def _history(
    kernel: str,
    beta: Any,
    gain: Any,
    order: int | None,
    time_steps: int | None,
    num_channels: int | None,
    kernel_bits: KernelBits,
    learn_beta: bool,
) -> HistoryKernel | None:
    """Checks the kernel's arguments; the module of its free taps, or None for an exponential."""
    start, factor = (torch.as_tensor(value).detach().reshape(-1) for value in (beta, gain))
    start = start.clamp(0, 1)
    if factor.numel() not in (1, start.numel()):
        raise ValueError(f"gain must be one number or have the shape of beta, got {describe(gain)}")
    options: dict[str, Any] = {"order": order, "time_steps": time_steps, "kernel_bits": kernel_bits}
    if kernel == "exp":  # HistoryKernel knows the rules; the decay is beta itself, in snnTorch's own place
        quantized = kernel_bits is not None and order is None
        for d, g in _pairs(start, factor) if quantized else [(0.5, 1.0)]:
            HistoryKernel(kernel, decay=d, gain=g, learnable=learn_beta, **options)
        return None
    if learn_beta:
        raise ValueError(
            f"learn_beta does not apply to kernel={kernel!r}, whose free taps only start from beta"
        )
    if start.numel() > 1 and num_channels != start.numel():
        raise ValueError(
            f"kernel={kernel!r} with {start.numel()} values of beta needs num_channels={start.numel()}, "
            f"got {num_channels}"
        )
    decay, first_gain = _pairs(start, factor)[0]
    history = HistoryKernel(kernel, decay=decay, gain=first_gain, num_channels=num_channels, **options)
    if start.numel() > 1 and order is not None:
        with torch.no_grad():
            history.taps.copy_(Exponential(start, factor).taps(order))
    return history


def _pairs(start: Tensor, factor: Tensor) -> list[tuple[float, float]]:
    return list(zip(start.tolist(), factor.expand_as(start).tolist(), strict=True))


def _as_real_input(input_: Any) -> Tensor:
    """The input in a floating-point dtype; integers (spike counts) take the default one, as in snn.Leaky."""
    if not isinstance(input_, Tensor) or input_.is_complex() or input_.dtype == torch.bool:
        raise TypeError(f"input_ must be a real tensor, got {describe(input_)}")
    return input_ if input_.is_floating_point() else input_.to(torch.get_default_dtype())


# --- step by step -------------------------------------------------------------------------------------------


class MFPLeaky(_MemoryFree, snn.Leaky):  # type: ignore[misc, name-defined]
    r"""Drop-in for ``snn.Leaky`` without reset: the same arguments, calls, returns and checkpoint keys.

    .. math::
        mem[t] = \mathrm{clamp}(\beta, 0, 1) \, mem[t-1] + input[t], \qquad spk[t] = mem[t] > threshold

    computed as ``snn.Leaky(beta, reset_mechanism="none")`` computes it, except that the potential of a
    float16 or bfloat16 input is kept in float32. A kernel of finite ``order`` keeps its last K - 1 inputs in
    the buffer ``history`` instead: ``mem`` is then a reading, and a sequence goes on from that history.

    Under DistributedDataParallel pass ``broadcast_buffers=False``, as for snn.Leaky: ``mem`` is a buffer, and
    rank 0's would replace the others'. :class:`MFPLeakyParallel` has no such buffer.

    Args:
        beta: decay of the potential, clamped to [0, 1] when used; a number or any tensor that broadcasts over
            an input, such as (C,), (C, 1, 1) or one value a neuron.
        threshold: the neuron fires on mem > threshold; a number or a tensor, as ``beta``.
        spike_grad: a surrogate of ``snntorch.surrogate``, one of :mod:`mfp_neurons.surrogate` (these can be
            pickled), or any callable from mem - threshold to spikes. None is snnTorch's ATan.
        surrogate_disable: spikes without gradient, as in snn.Leaky.
        init_hidden: keep ``mem`` inside; it is then an error to pass one.
        inhibition: only the neuron of the largest potential may fire (dense layers).
        learn_beta, learn_threshold, learn_graded_spikes_factor: make these Parameters.
        reset_mechanism: "none". "subtract" and "zero" raise ValueError.
        state_quant: a function of ``snntorch.functional.quant`` that mem passes through at every step.
        output: return (spk, mem) also with ``init_hidden``.
        graded_spikes_factor: factor on the spikes.
        reset_delay: accepted; without a reset it changes nothing.
        kernel: "exp"; "fir" (``order`` free taps that start as beta**j); "matrix" (free, T x T).
        order: K, how many steps an input is remembered; None for ever ("exp").
        time_steps: T, for "matrix" alone.
        num_channels: C, to give each channel (dim 1 of an input [N, C, \*]) a decay or taps of its own.
        kernel_bits: None, "pow2" or 2..8: the grid that the taps are snapped to.
        gain: factor on the input, a number or of the shape of beta; snn.Lapicque has one.

    Shapes: ``input_`` and ``mem`` [N, \*]; spk, in float32, and mem alike. A ``mem`` of another shape, such
    as the empty one that :meth:`reset_mem` gives before the first step, starts from zero.

    Returns:
        (spk, mem); spk alone with ``init_hidden=True, output=False``.

    Raises:
        ValueError: a reset mechanism other than "none", an unknown kernel, order < 1, NaN, or a ``mem`` that
            this neuron's finite history did not produce.
        TypeError: ``mem`` given in spite of ``init_hidden``, or an argument of the wrong kind.

    >>> import snntorch as snn
    >>> lif = MFPLeaky(beta=0.5)
    >>> mem = lif.reset_mem()
    >>> for x in (0.5, 0.5, 0.25, 1.0):  # mem = 0.5, 0.75, 0.625, 1.3125
    ...     spk, mem = lif(torch.tensor([x]), mem)
    >>> spk, mem
    (tensor([1.]), tensor([1.3125]))
    """

    def _init_state(self) -> None:
        if self.is_finite:
            self.register_buffer("history", torch.zeros(0), persistent=False)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "mem" and "history" in self._buffers:  # snnTorch resets a neuron by setting its mem
            super().__setattr__("history", torch.zeros(0, device=value.device))

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        if mem is not None and self.init_hidden:
            raise TypeError("`mem` should not be passed as an argument while `init_hidden=True`")
        x = _as_real_input(input_)
        if self.is_finite:
            new, history = self._finite_step(x, self._own_history(x, mem))
        else:
            new, history = self._leaky_step(x, self.mem if mem is None else mem), None
        if self.state_quant:
            new = self.state_quant(new).clone()  # it may return a view, which detach_hidden cannot detach
        self.mem = new
        if history is not None:
            self.history = history
        spk = self.fire_inhibition(new.size(0), new) if self.inhibition else self.fire(new)
        return self._returned(spk, new)

    def detach_state(self) -> None:
        """Cuts mem, and the inputs kept by a finite kernel, from the graph; their values stay."""
        history = self.history.detach() if self.is_finite else None
        self.mem = self.mem.detach()
        if history is not None:
            self.history = history

    def _leaky_step(self, x: Tensor, mem: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        fits = mem.shape == x.shape
        before = mem.to(torch.promote_types(mem.dtype, wide)) if fits else torch.zeros_like(x, dtype=wide)
        beta, gain = self.beta.clamp(0, 1), self.gain
        if self.num_channels is not None:
            beta = self._spread_over(beta, x.shape)
            gain = self._spread_over(gain, x.shape) if isinstance(gain, Tensor) else gain
        if isinstance(gain, Tensor):
            x = gain * x.to(wide)
        return beta * before + x

    def _finite_step(self, x: Tensor, history: Tensor | None) -> tuple[Tensor, Tensor]:
        """The potential after x [N, *] and the inputs to keep: the last K - 1, or all of them ("matrix")."""
        view, kernel, _ = self._operands(x.shape, None)
        if isinstance(kernel, Matrix) and history is None:
            history = x.new_zeros((0, *x.shape))  # the start of a sequence, not a whole one
        state = None if history is None else history.reshape(len(history), *view)
        mem = functional.potential(x.reshape(1, *view), kernel, state).reshape(x.shape).clone()
        seen = x.unsqueeze(0) if history is None else torch.cat((history, x.unsqueeze(0)))
        if isinstance(kernel, Matrix):
            return mem, seen.clone()
        keep = self.kernel.state_steps or 0
        if len(seen) < keep:
            seen = torch.cat((seen.new_zeros(keep - len(seen), *x.shape), seen))
        return mem, seen[len(seen) - keep :].clone()

    def _own_history(self, x: Tensor, mem: Tensor | None) -> Tensor | None:
        """The inputs before x that ``mem`` stands for; None at the start of a sequence."""
        history = self.history
        if mem is not None and not self._continues(mem, x):
            return None
        if len(history) == 0 or history.shape[1:] != x.shape:
            return None
        reading = self.mem if mem is None else mem
        return history if reading.requires_grad else history.detach()  # as detach_hidden() left mem

    @property
    def _remembers(self) -> bool:
        """Whether a step depends on earlier ones, or on how many there were."""
        return self.kernel.kind == "matrix" or self.kernel.state_steps != 0

    def _continues(self, mem: Tensor, x: Tensor) -> bool:
        """Whether ``mem`` is where this neuron's history stands; False at a start, ValueError for neither."""
        if mem is self.mem:
            return True
        if mem.shape != x.shape:
            return False
        if not torch.compiler.is_compiling() and mem.data_ptr() == self.mem.data_ptr():
            return True  # the same potential, detached
        if not self._remembers or not bool(mem.any()):
            return False
        raise ValueError(
            "mem is neither the one this neuron returned last nor zero. A kernel of finite order goes on "
            "from the last inputs, which the neuron keeps, and cannot start from a potential: pass back the "
            "mem it returned, pass none, or start anew with reset_mem(). Two states need two neurons."
        )


# --- all steps at once --------------------------------------------------------------------------------------


class MFPLeakyParallel(_MemoryFree):
    r""":class:`MFPLeaky` over a whole sequence [T, B, \*] in one call: no loop over time, no state kept.

    Equal to T calls of :class:`MFPLeaky`; the potential decays by beta**t (``snn.StateLeaky`` decays by
    exp(-t (1 - beta))). Every call starts from zero unless it is given a ``mem``.

    Args:
        beta, threshold, ...: as :class:`MFPLeaky`, in the same order.
        init_hidden: with ``output=False``, return the spikes alone: the potential of each step is then never
            written.
        inhibition: not available (NotImplementedError).
        state_quant: for finite kernels alone. Rounding a potential that feeds the next one is serial over
            time; :class:`MFPLeaky` does it.

    Shapes: ``input_`` [T, B, \*] of any floating-point dtype; spk [T, B, \*] in float32, mem [T, B, \*] in
    float32 (float64 for float64). ``mem``, to start from, [B, \*]. After a call, the attribute ``mem`` is a
    detached copy of the last potential; for gradients across chunks pass on the returned ``mem[-1]`` instead.

    Returns:
        (spk, mem); spk alone with ``init_hidden=True, output=False``.

    Raises:
        ValueError: as MFPLeaky; also a ``mem`` of the wrong shape, or one for a finite kernel, which has no
            potential to start from (put the last K - 1 inputs in front of the sequence instead).
        TypeError: ``mem`` given in spite of ``init_hidden``, or an argument of the wrong kind.
        NotImplementedError: inhibition, or state_quant with an infinite kernel.

    >>> lif = MFPLeakyParallel(beta=0.5)
    >>> spk, mem = lif(torch.tensor([0.5, 0.5, 0.25, 1.0]).reshape(4, 1))
    >>> spk.flatten(), mem.flatten()
    (tensor([0., 0., 0., 1.]), tensor([0.5000, 0.7500, 0.6250, 1.3125]))
    """

    def _init_state(self) -> None:
        self.mem = torch.zeros(0)  # not a buffer: DDP would copy rank 0's to the others

    @classmethod
    def _check_can_run(cls, inhibition: bool, state_quant: Any, finite: bool) -> None:
        super()._check_can_run(inhibition, state_quant, finite)
        if inhibition:
            raise NotImplementedError(_NO_INHIBITION)
        if state_quant and not finite:
            raise NotImplementedError(
                "state_quant with an infinite kernel makes every step wait for the rounded potential before "
                "it. Give an order (mem is then rounded but not fed back), or use MFPLeaky, step by step."
            )

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        if mem is not None and self.init_hidden:
            raise TypeError("`mem` should not be passed as an argument while `init_hidden=True`")
        x = _as_real_input(input_)
        if x.dim() < 2 or len(x) == 0:
            raise ValueError(f"input_ must be [T, B, *] with T >= 1, got shape {list(x.shape)}")
        state = self._start(mem, x)
        view, kernel, threshold = self._operands(x.shape[1:], len(x))
        state = None if state is None else state.reshape(view)
        record = self.output or not self.init_hidden
        surrogate = self._fused_surrogate()
        if surrogate is None:
            potential = functional.potential(x.reshape(len(x), *view), kernel, state).reshape(x.shape)
            potential = self.state_quant(potential) if self.state_quant else potential
            spk = self.fire(potential)
        else:
            chunk = functional.fire_chunk(
                x.reshape(len(x), *view),
                kernel,
                threshold,
                state,
                surrogate=surrogate,
                strict=True,
                record=record,
            )
            spk = chunk.spikes.reshape(x.shape).float() * self.graded_spikes_factor
            potential = chunk.potential.reshape(x.shape if record else (1, *x.shape[1:]))
        self.mem = potential[-1].detach().clone()
        return self._returned(spk, potential)

    def _start(self, mem: Tensor | None, x: Tensor) -> Tensor | None:
        if mem is None or mem.numel() == 0:
            return None
        if self.is_finite:
            raise ValueError(
                "a kernel of finite order has no potential to start from: pass no mem, and put the last "
                "K - 1 inputs in front of input_ (dropping their outputs)"
            )
        if mem.shape != x.shape[1:]:
            raise ValueError(f"mem must be a step {list(x.shape[1:])} of input_, got {describe(mem)}")
        return mem.to(torch.promote_types(x.dtype, torch.float32))

    def _fused_surrogate(self) -> fused.Surrogate | None:
        """The surrogate to run inside the operator; None where something has to see the potential first."""
        if self.surrogate_disable or self.state_quant:
            return None
        known = known_surrogate(self.spike_grad)
        if known is None:
            name = getattr(self.spike_grad, "__qualname__", type(self.spike_grad).__qualname__)
            log_once(
                f"snntorch.unfused.{name}",
                f"spike_grad {name} is called outside the fused operator: same results, slower, and the "
                "potential is kept for backward. atan, fast_sigmoid and sigmoid of snntorch.surrogate run "
                "inside it, and so do the classes of mfp_neurons.surrogate.",
            )
        return known

    def reset_mem(self) -> Tensor:
        """Zeroes and returns the potential that the last call left."""
        self.mem = torch.zeros_like(self.mem)
        return self.mem

    def init_leaky(self) -> Tensor:
        """snn.Leaky's older name of :meth:`reset_mem`."""
        return self.reset_mem()

    def fire_inhibition(self, batch_size: int, mem: Tensor) -> Tensor:
        """Not available: raises NotImplementedError."""
        raise NotImplementedError(_NO_INHIBITION)


# --- a whole network ----------------------------------------------------------------------------------------

_STATES = ("mem", "syn", "syn_exc", "syn_inh", "spk")  # where snnTorch's neurons keep what they carry on


def reset(net: nn.Module) -> None:
    """Resets every snnTorch neuron inside ``net``, however deeply nested, and no other.

    ``snntorch.utils.reset`` sees direct children alone, and resets their kind in the whole process.
    """
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron) and callable(getattr(module, "reset_mem", None)):
            module.reset_mem()


def detach(net: nn.Module) -> None:
    """Cuts the state of every snnTorch neuron inside ``net`` from the graph; its values stay.

    For truncated backpropagation through time. The reach is that of :func:`reset`.
    """
    for module in net.modules():
        if isinstance(module, MFPLeaky):
            module.detach_state()
        elif isinstance(module, snn.SpikingNeuron):
            for name in _STATES:
                if isinstance(module._buffers.get(name), Tensor):
                    setattr(module, name, module._buffers[name].detach())


def release(net: nn.Module | None = None) -> int:
    """Takes this package's neurons off ``SpikingNeuron.instances``, which would keep them alive for ever.

    ``snntorch.utils.reset`` no longer reaches the released neurons; :func:`reset` does. Other neurons stay
    listed, and the list is the same object as before.

    Args:
        net: the network whose neurons to release; None for all of them.

    Returns:
        How many were released.
    """
    inside = None if net is None else {id(module) for module in net.modules()}
    return _unlist(lambda one: isinstance(one, _MemoryFree) and (inside is None or id(one) in inside))


def _unlist(gone: Callable[[Any], bool]) -> int:
    instances = snn.SpikingNeuron.instances
    before = len(instances)
    instances[:] = [neuron for neuron in instances if not gone(neuron)]
    return before - len(instances)


# --- rules for convert --------------------------------------------------------------------------------------

Options = dict[str, Any]


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().clone()


def _common(neuron: Any) -> Options:
    """The arguments that every snnTorch neuron shares with ours, with their present values."""
    return {
        "threshold": _tensor(neuron.threshold),
        "spike_grad": None if neuron.surrogate_disable else neuron.spike_grad,
        "surrogate_disable": neuron.surrogate_disable,
        "init_hidden": neuron.init_hidden,
        "inhibition": neuron.inhibition,
        "learn_threshold": isinstance(neuron.threshold, nn.Parameter),
        "state_quant": neuron.state_quant,
        "output": neuron.output,
        "graded_spikes_factor": _tensor(neuron.graded_spikes_factor),
        "learn_graded_spikes_factor": isinstance(neuron.graded_spikes_factor, nn.Parameter),
    }


def _build(neuron: Any, default: type, options: Options, **kept: Any) -> nn.Module:
    """The new neuron: what all neurons keep, what this rule keeps, and above both what the user asked for."""
    chosen = dict(options)
    to = chosen.pop("to", None) or default
    if "learnable" in chosen:
        chosen["learn_beta"] = chosen.pop("learnable")
    if chosen.get("kernel", "exp") != "exp":  # free taps; beta is where they start
        chosen.setdefault("learn_beta", False)
    arguments = {**_common(neuron), **kept, **chosen}
    if to is MFP:
        return _as_plain(arguments)
    if to not in (MFPLeaky, MFPLeakyParallel):
        raise ValueError(f"to must be MFPLeaky, MFPLeakyParallel or MFP here, got {to!r}")
    new: nn.Module = to(**arguments)
    for name in ("beta", "threshold", "graded_spikes_factor"):
        old = getattr(neuron, name, None)
        if isinstance(old, nn.Parameter) and f"learn_{name}" not in chosen:
            getattr(new, name).requires_grad_(old.requires_grad)  # a frozen one stays frozen
    return new


def _as_plain(arguments: Options) -> MFP:
    """:class:`mfp_neurons.MFP` where it can do the same: one number a layer, spikes alone."""
    for name in ("inhibition", "state_quant", "surrogate_disable", "learn_graded_spikes_factor"):
        if arguments[name]:
            raise ValueError(f"to=MFP: MFP has no {name}")
    for name in ("graded_spikes_factor", "gain"):
        if not bool((torch.as_tensor(arguments.get(name, 1.0)) == 1).all()):
            raise ValueError(f"to=MFP: MFP has no {name}, and it is {arguments[name]}")
    numbers = {name: torch.as_tensor(arguments[name]).reshape(-1) for name in ("beta", "threshold")}
    for name, value in numbers.items():
        if bool((value != value[0]).any()):
            raise ValueError(f"to=MFP: MFP starts from one {name} for the layer, not {value.numel()}")
    names = ("kernel", "order", "time_steps", "num_channels", "kernel_bits")
    return MFP(
        float(numbers["beta"][0].clamp(0, 1)),
        v_threshold=float(numbers["threshold"][0]),
        learnable=arguments["learn_beta"],
        learn_threshold=arguments["learn_threshold"],
        surrogate=known_surrogate(arguments["spike_grad"]) or arguments["spike_grad"],
        strict=True,
        **{name: arguments[name] for name in names if name in arguments},
    )


def _from_leaky(neuron: Any, options: Options) -> nn.Module | str:
    learn = isinstance(neuron.beta, nn.Parameter)
    return _build(neuron, MFPLeaky, options, beta=_tensor(neuron.beta), learn_beta=learn)


def _from_lapicque(neuron: Any, options: Options) -> nn.Module | str:
    """mem = (1 - dt / RC) mem + (dt / C) input, as Lapicque computes it from R, C and dt."""
    leak = _tensor(neuron.time_step / (neuron.R * neuron.C))
    if bool(((leak < 0) | (leak > 1)).any()):
        return f"its leak time_step / (R C) is {leak.tolist()}, and the decay 1 - leak has to lie from 0 to 1"
    gain = _tensor(neuron.R * leak)
    learn = isinstance(neuron.beta, nn.Parameter)
    return _build(neuron, MFPLeaky, options, beta=1 - leak, gain=gain, learn_beta=learn)


def _from_synaptic(neuron: Any, options: Options) -> nn.Module | str:
    """Two decays in a row: taps m[j] = sum over i of alpha**i beta**(j - i), which is no exponential."""
    if neuron.output or not neuron.init_hidden:
        return "it returns (spk, syn, mem); only with init_hidden=True, output=False can it be swapped"
    order = options.get("order")
    if order is None:
        return "its two decays are a kernel of taps, whose number (order) was not given"
    if options.get("kernel", "fir") != "fir":
        return f"its two decays are taps (kernel='fir'), not kernel={options['kernel']!r}"
    alpha, beta = torch.broadcast_tensors(_tensor(neuron.alpha).clamp(0, 1), _tensor(neuron.beta).clamp(0, 1))
    channels = {"num_channels": beta.numel()} if beta.numel() > 1 else {}
    learned = isinstance(neuron.alpha, nn.Parameter) or isinstance(neuron.beta, nn.Parameter)
    wanted = options.get("learnable", learned or "kernel" in options)
    chosen = {name: value for name, value in options.items() if name != "learnable"} | {"kernel": "fir"}
    new = _build(neuron, MFPLeaky, chosen, beta=beta.clone(), **channels)
    taps: nn.Parameter = new.kernel.taps  # type: ignore[operator, union-attr, assignment]
    with torch.no_grad():
        values = _two_decays(alpha.reshape(-1), beta.reshape(-1), order)
        taps.copy_(values if taps.dim() == 2 else values[:, 0])
    taps.requires_grad_(bool(wanted))
    return new


def _two_decays(alpha: Tensor, beta: Tensor, order: int) -> Tensor:
    """Taps [K, C] of syn = alpha syn + input, mem = beta mem + syn: the response to one input of 1."""
    syn, mem, taps = torch.ones_like(alpha), torch.ones_like(alpha), []
    for _ in range(order):
        taps.append(mem)
        syn = alpha * syn
        mem = beta * mem + syn
    return torch.stack(taps)


def _from_state_leaky(neuron: Any, options: Options) -> nn.Module | str:
    """StateLeaky decays by exp(-1 / tau) a step, and multiplies by its graded spikes factor twice."""
    if not neuron.output:
        return "it returns its potential alone and fires no spikes"
    if options.get("to") is MFPLeaky:
        return "it takes whole sequences, MFPLeaky single steps"
    decay = torch.exp(-1 / _tensor(neuron.tau))
    return _build(
        neuron,
        MFPLeakyParallel,
        {"order": neuron.kernel_truncation_steps, **{k: v for k, v in options.items() if v is not None}},
        beta=decay,
        learn_beta=isinstance(neuron.tau, nn.Parameter),
        graded_spikes_factor=_tensor(neuron.graded_spikes_factor) ** 2,
    )


RULES: dict[type, Callable[[Any, Options], nn.Module | str]] = {
    snn.Leaky: _from_leaky,
    snn.Lapicque: _from_lapicque,
    snn.Synaptic: _from_synaptic,
}
"""snnTorch's neurons that :func:`mfp_neurons.convert` can swap: (neuron, options) to the new neuron, or to
the reason (a string) why this one stays."""

LEFT_ALONE: dict[type, str] = {
    MFPLeaky: "it is memory-free already",
    MFPLeakyParallel: "it is memory-free already",
}
"""Neurons that have no rule, and why; a base class speaks for its subclasses."""

_RECURRENT = "its spikes feed back into it, so no step can be computed before the one before it"
_FUSED_LINEAR = "it has its own linear layer inside; write nn.Linear and a neuron instead"
for _name, _rule in {"StateLeaky": _from_state_leaky}.items():
    if hasattr(snn, _name):
        RULES[getattr(snn, _name)] = _rule
for _name, _why in {
    "LinearLeaky": _FUSED_LINEAR,
    "LeakyParallel": _FUSED_LINEAR,
    "RLeaky": _RECURRENT,
    "RSynaptic": _RECURRENT,
    "SLSTM": "it is a gated recurrent cell",
    "SConv2dLSTM": "it is a gated recurrent cell",
    "Alpha": "it subtracts two filters and returns (spk, syn_exc, syn_inh, mem)",
    "AssociativeLeaky": "its state is a matrix that depends on the input",
    "SpikingNeuron": "no rule is known for it",
}.items():
    if hasattr(snn, _name):
        LEFT_ALONE[getattr(snn, _name)] = _why
