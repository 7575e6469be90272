r"""A SpikingJelly neuron without reset that runs every time step at once; for 2.0.0 and 0.0.0.0.14 alike.

.. math::
    u[t] = \sum_{j=0}^{\min(t, K-1)} m_j \, x[t-j], \qquad s[t] = 1 \text{ if } u[t] \ge v_\mathrm{threshold}

The arithmetic is :func:`mfp_neurons.functional.fire_chunk`; this file only speaks SpikingJelly's language:
step modes, memories, reset, ``store_v_seq``. :data:`RULES` says which SpikingJelly neurons can be replaced.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import functional
from . import surrogate as fused
from ._checks import check_finite, describe, log_once, require
from .backends import NAMES, check_name
from .history import KernelBits
from .neuron import HistoryKernel

base = require("spikingjelly.activation_based.base", "spikingjelly")
neuron = require("spikingjelly.activation_based.neuron", "spikingjelly")
surrogate = require("spikingjelly.activation_based.surrogate", "spikingjelly")

__all__ = ["RULES", "STATE_RULES", "MFPNode"]

_DEFAULT_SURROGATE = surrogate.Sigmoid()


class MFPNode(neuron.BaseNode):  # type: ignore[misc, name-defined]
    r"""Drop-in for ``LIFNode`` without reset: the same arguments, shapes, step modes and memories.

    The potential is ``LIFNode``'s whose threshold is never reached, because nothing is reset:

    .. math::
        u[t] = \Bigl(1 - \frac{1}{\tau}\Bigr) u[t-1] + g \, x[t], \qquad
        g = \tfrac{1}{\tau} \text{ if decay\_input else } 1

    Args:
        tau: time constant in steps, > 1; ``math.inf`` with ``decay_input=False`` never leaks (IFNode).
        decay_input: scale the input by 1/tau, as LIFNode does by default.
        v_threshold: the neuron fires on u >= v_threshold. A tensor ([1], [C], or one that broadcasts with a
            time step [N, \*]) or an ``nn.Parameter`` may be assigned to the attribute later.
        v_reset: there is no reset. Anything but None is ignored, and said once.
        surrogate_function: SpikingJelly's surrogates, ours, or any callable from u - v_threshold to spikes.
        detach_reset: accepted for LIFNode's sake; there is no reset to detach.
        step_mode: "s" takes one step [N, \*], "m" a sequence [T, N, \*], time first.
        backend: "auto", "torch", "cpu" or "cupy"; see :func:`mfp_neurons.functional.fire`.
        store_v_seq: keep the potential of every step, [T, N, \*], in ``v_seq``.
        kernel: "exp", "fir" (``order`` free taps) or "matrix" (one free causal matrix over ``time_steps``).
        order: K, the number of steps an input is remembered; None for ever ("exp").
        time_steps: T, for "matrix" alone.
        learnable: learn the decay of "exp".
        num_channels: C, for a decay or taps of each channel (dim 1 of a step [N, C, \*]); None shares them.
        kernel_bits: None, "pow2" or 2..8: the grid that the taps are snapped to.

    Shapes: floating-point input [N, \*] ("s") or [T, N, \*] ("m"); spikes in {0, 1} of its shape and dtype.
    Memories: ``v``, the last potential [N, \*] in float32 (float64 for float64 input); for finite kernels
    also ``history``, the inputs that may still matter, [K-1, N, \*] in the dtype of the input. Both stay
    attached to the graph until :meth:`reset` or :meth:`detach`; an input of another shape starts from zeros.

    Raises:
        TypeError: an argument is not of the kind named above.
        ValueError: tau <= 1, order < 1, an unknown backend, kernel, or step mode, or NaN.

    >>> from mfp_neurons import MFPNode
    >>> node = MFPNode(tau=2.0, decay_input=False, step_mode="m")
    >>> node(torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)).flatten()   # u = 0.5, 0.75, 0.375, 1.1875
    tensor([0., 0., 0., 1.])
    >>> node.v
    tensor([1.1875])
    """

    v_seq: Tensor | None

    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = None,
        surrogate_function: Callable[[Tensor], Tensor] | None = _DEFAULT_SURROGATE,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        kernel: str = "exp",
        order: int | None = None,
        time_steps: int | None = None,
        learnable: bool = False,
        num_channels: int | None = None,
        kernel_bits: KernelBits = None,
    ) -> None:
        if isinstance(backend, bool):  # LIFNode 2.0.0 has no backend: its eighth argument is store_v_seq
            backend, store_v_seq = "auto", backend
        check_name(backend)
        threshold = _number("v_threshold", v_threshold)
        check_finite("v_threshold", threshold)
        history = HistoryKernel(
            kernel,
            decay=_decay(tau, decay_input),
            gain="decay_input" if decay_input else None,
            order=order,
            time_steps=time_steps,
            learnable=learnable,
            num_channels=num_channels,
            kernel_bits=kernel_bits,
        )
        if v_reset is not None:
            log_once(
                "spikingjelly.v_reset",
                f"MFPNode ignores v_reset={v_reset!r}: its potential is never reset, which is what lets all "
                "time steps run at once. Pass v_reset=None to say so.",
            )
        super().__init__(  # keywords: the positional order differs between SpikingJelly's versions
            v_threshold=threshold,
            v_reset=None,
            surrogate_function=_own_surrogate(surrogate_function),
            detach_reset=bool(detach_reset),
            step_mode=step_mode,
            store_v_seq=False,
        )
        self.kernel = history
        self.decay_input = bool(decay_input)
        self.backend = backend
        # what the next step depends on: all of the past in v, the last inputs in history, or nothing (K = 1)
        recursive = history.kind == "exp" and history.state_steps is None
        self._carries = (
            "v" if recursive else "history" if history.kind == "matrix" or history.state_steps else None
        )
        self._state_names = ("v", "history") if self._carries == "history" else ("v",)
        if self._carries == "history":
            self.register_memory("history", 0.0)
        self.store_v_seq = store_v_seq

    @property
    def tau(self) -> float | Tensor:
        """The time constant, in steps: 1 / (1 - decay); a detached tensor if the decay is learned.

        A "fir" or "matrix" kernel shows the one it started from. Assigning changes a fixed exponential.
        """
        decay = self.kernel.decay
        if isinstance(decay, Tensor):
            return 1 / (1 - decay.detach())
        return 1 / (1 - decay) if decay < 1 else math.inf

    @tau.setter
    def tau(self, value: float) -> None:
        old = self.kernel
        if old.kind != "exp" or old.learnable:
            held = "decay_logit" if old.kind == "exp" else "taps" if old.kind == "fir" else "matrix"
            raise ValueError(f"tau of this neuron lies in its parameter kernel.{held}; change that instead")
        self.kernel = HistoryKernel(
            decay=_decay(value, self.decay_input),
            gain="decay_input" if self.decay_input else None,
            order=old.order,
            num_channels=old.num_channels,
            kernel_bits=old.kernel_bits,
        )

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends that this installation can run; SpikingJelly 0.0.0.0.14's ``set_backend`` asks."""
        return tuple(name for name in NAMES if _runs_here(name))

    @property
    def backend(self) -> str:
        """What computes the neuron, one of :attr:`supported_backends`."""
        return self._backend

    @backend.setter
    def backend(self, value: str) -> None:
        check_name(value)
        self._backend = value

    @property
    def store_v_seq(self) -> bool:
        """Whether ``v_seq`` keeps the potential of every step."""
        return self._store_v_seq

    @store_v_seq.setter
    def store_v_seq(self, value: bool) -> None:
        # v_seq becomes a memory in 0.0.0.0.14 and an attribute in 2.0.0
        neuron.BaseNode.store_v_seq.fset(self, bool(value))
        if not value and "v_seq" in self._memories:
            self.v_seq = None

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
    ) -> tuple[Tensor, ...]:
        r"""Turns raw states into tensors that fit the input; changes neither ``self`` nor ``states``.

        Args:
            inputs: the one input, [N, \*] or [T, N, \*].
            states: ``(v,)`` or ``(v, history)``: tensors, or the numbers that :meth:`reset` leaves.
            step_mode: "s" or "m".

        Returns:
            The states on the input's device, v in float32 or wider, history in the input's dtype; zeros where
            a tensor's shape no longer fits (the batch size changed).
        """
        step = _first_step(inputs[0], step_mode)
        v = _fit_potential(states[0], step)
        return (v, _fit_history(states[1], step, self.kernel)) if self._carries == "history" else (v,)

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...], **kwargs: object
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        r"""One step: ``((x,), states)`` to ``((spikes,), new states)``. Pure; x and spikes [N, \*]."""
        spikes, _, states = self._run(inputs[0].unsqueeze(0), states, record=False)
        return (spikes.squeeze(0),), states

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...], **kwargs: object
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        r"""All steps at once: ``((x_seq,), states)`` to ``((spikes,), new states)``. Pure; [T, N, \*]."""
        spikes, _, states = self._run(inputs[0], states, record=False)
        return (spikes,), states

    def single_step_forward(self, x: Tensor) -> Tensor:
        r"""Spikes of one step, [N, \*]; the memories move on by one step."""
        states = self.materialize_states((x,), self._states(), "s")
        (spikes,), states = self.single_step_functional_forward((x,), states)
        self._keep(states)
        if self.store_v_seq:
            self.v_seq = _appended(self.v_seq, states[0])
        return spikes

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        r"""Spikes of all steps at once, [T, N, \*]; the memories move on by T steps."""
        states = self.materialize_states((x_seq,), self._states(), "m")
        if self.store_v_seq:
            spikes, self.v_seq, states = self._run(x_seq, states, record=True)
        else:
            (spikes,), states = self.multi_step_functional_forward((x_seq,), states)
        self._keep(states)
        return spikes

    def extra_repr(self) -> str:
        parts: dict[str, Any] = (
            {"tau": self.tau, "decay_input": self.decay_input} if self.kernel.kind == "exp" else {}
        )
        parts |= {"v_threshold": self.v_threshold, "step_mode": self.step_mode, "backend": self.backend}
        if self.store_v_seq:
            parts["store_v_seq"] = True
        return ", ".join(f"{name}={_brief(value)}" for name, value in parts.items())

    def _states(self) -> tuple[Any, ...]:
        return tuple(self._memories[name] for name in self._state_names)

    def _keep(self, states: tuple[Tensor, ...]) -> None:
        for name, value in zip(self._state_names, states, strict=True):
            self._memories[name] = value

    def _run(
        self, x_seq: Tensor, states: tuple[Tensor, ...], record: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Spikes [T, N, *], the potential (of every step if ``record``), and the new states."""
        if x_seq.dim() == 1:  # one lone neuron: the core wants a batch
            spikes, u, states = self._run(x_seq.unsqueeze(1), tuple(s.unsqueeze(-1) for s in states), record)
            return spikes.squeeze(1), u.squeeze(-1).clone(), tuple(s.squeeze(-1).clone() for s in states)
        threshold = self.v_threshold
        per_element = isinstance(threshold, Tensor) and threshold.dim() > 1
        if isinstance(threshold, Tensor) and threshold.dim() == 0:
            threshold = threshold.reshape(1)
        chunk = functional.fire_chunk(
            x_seq,
            self.kernel(),
            0.0 if per_element else threshold,
            states[-1] if self._carries else None,
            surrogate=fused_surrogate(self.surrogate_function),
            record=record or per_element,
            backend=self.backend,
        )
        spikes = chunk.spikes
        if per_element:  # set_threshold_margin gives every sample and class its own
            spikes = self.surrogate_function(chunk.potential - threshold).to(x_seq.dtype)
        if self._carries == "v":
            return spikes, chunk.potential, (chunk.state,)
        last = (
            chunk.potential[-1] if record or per_element else chunk.potential
        ).clone()  # detach_() wants no view
        return spikes, chunk.potential, (last, chunk.state) if self._carries else (last,)


def _runs_here(backend: str) -> bool:
    try:
        check_name(backend)
    except NotImplementedError:
        return False
    return True


def _decay(tau: float, decay_input: bool) -> float:
    """1 - 1/tau, LIFNode's decay."""
    tau = _number("tau", tau)
    if not tau > 1:
        raise ValueError(f"tau must be > 1 (in steps), so that the decay 1 - 1/tau is positive, got {tau}")
    if math.isinf(tau) and decay_input:
        raise ValueError("tau=inf needs decay_input=False (an IFNode); 1/tau would scale every input to 0")
    return 1 - 1 / tau


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {describe(value)}")
    return float(value)


def _own_surrogate(function: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    """The default is an object of each node's own, so that editing its alpha stays with that node."""
    if function is None or function is _DEFAULT_SURROGATE:
        return surrogate.Sigmoid()  # type: ignore[no-any-return]
    if not callable(function):
        raise TypeError(f"surrogate_function must be a callable tensor -> spikes, got {describe(function)}")
    return function


_FUSED: dict[str, Callable[[float], fused.Surrogate]] = {
    "ATan": fused.ATan,
    "Sigmoid": fused.Sigmoid,
    "PiecewiseQuadratic": fused.PiecewiseQuadratic,
    "Erf": fused.Erf,
    "Rect": fused.Rect,
    "SuperSpike": lambda alpha: fused.SuperSpike(alpha=1.0, scale=alpha),
    "SoftSign": lambda alpha: fused.SuperSpike(alpha=alpha, scale=alpha / 2),
}


def fused_surrogate(function: Any) -> Any:
    """The operator's own surrogate where it knows SpikingJelly's ``function``, else ``function`` itself."""
    kind = type(function)
    if kind.__module__ != surrogate.__name__ or kind.__name__ not in _FUSED:
        return function
    alpha = function.alpha
    if not function.spiking or not isinstance(alpha, (int, float)) or alpha <= 0:
        return function
    return _FUSED[kind.__name__](float(alpha))


def _first_step(x: Tensor, step_mode: str) -> Tensor:
    if step_mode == "s":
        return x
    if x.dim() == 0 or len(x) == 0:
        raise ValueError(f"step_mode='m' takes x_seq [T, N, *] with T >= 1, got shape {list(x.shape)}")
    return x[0]


def _fit_potential(v: Tensor | float, step: Tensor) -> Tensor:
    dtype = torch.promote_types(step.dtype, torch.float32) if step.is_floating_point() else torch.float32
    if isinstance(v, Tensor):
        fits = v.shape == step.shape
        return v.to(device=step.device, dtype=dtype) if fits else torch.zeros_like(step, dtype=dtype)
    return torch.full_like(step, float(v), dtype=dtype, requires_grad=False)


def _fit_history(history: Tensor | float, step: Tensor, kernel: HistoryKernel) -> Tensor:
    """A matrix remembers every input since the reset, a kernel of K taps the last K - 1."""
    grows = kernel.kind == "matrix"
    steps = 0 if grows else int(kernel.state_steps or 0)
    if isinstance(history, Tensor) and history.shape[1:] == step.shape and (grows or len(history) == steps):
        return history.to(device=step.device, dtype=step.dtype)
    return step.new_zeros((steps, *step.shape))


def _appended(v_seq: Tensor | None, v: Tensor) -> Tensor:
    """v_seq [T, N, *] with one step more; started anew where the step no longer fits."""
    step = v.unsqueeze(0)
    if not isinstance(v_seq, Tensor) or v_seq.shape[1:] != v.shape or v_seq.dtype != v.dtype:
        return step.clone()
    return torch.cat([v_seq, step.to(v_seq.device)])


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():.4g}" if value.numel() == 1 else f"tensor{list(value.shape)}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _common(old: Any) -> dict[str, Any]:
    """The arguments that every SpikingJelly neuron shares with MFPNode."""
    kept = {"step_mode": "m", "store_v_seq": False, "detach_reset": False, "v_threshold": 1.0}
    found = {name: getattr(old, name) for name in kept if hasattr(old, name)}
    if isinstance(found.get("v_threshold"), Tensor):
        del found["v_threshold"]  # set_threshold_margin's; _build carries it over
    return {**kept, **found, "surrogate_function": old.surrogate_function}


def _build(old: Any, options: dict[str, Any], **chosen: Any) -> MFPNode:
    """An MFPNode with what ``old`` shares, what the rule chose and, above both, what the user asked for."""
    node = MFPNode(**{**_common(old), **chosen, **options})
    threshold = getattr(old, "v_threshold", None)
    if isinstance(threshold, Tensor) and "v_threshold" not in options:
        node.v_threshold = threshold
    for parameter in old.parameters():
        node.to(device=parameter.device)
    return node.train(old.training)


def _from_if(old: Any, options: dict[str, Any]) -> MFPNode:
    return _build(old, options, tau=math.inf, decay_input=False)


def _from_lif(old: Any, options: dict[str, Any]) -> MFPNode:
    return _build(old, options, tau=old.tau, decay_input=old.decay_input)


def _from_parametric_lif(old: Any, options: dict[str, Any]) -> MFPNode:
    """1/tau = sigmoid(w), so that the decay is sigmoid(-w)."""
    w = old.w.detach()
    chosen = {"tau": 1 / float(w.double().sigmoid()), "decay_input": old.decay_input}
    if options.get("kernel", "exp") == "exp":
        chosen["learnable"] = True
    node = _build(old, options, **chosen)
    if node.kernel.kind == "exp" and node.kernel.learnable and "tau" not in options:
        with torch.no_grad():
            node.kernel.decay_logit.copy_(-w)  # tau is a rounded number, w is what was learned
    return node


def _from_sliding_psn(old: Any, options: dict[str, Any]) -> MFPNode:
    """The same taps, newest first; a learned bias b is a learned threshold -b."""
    _refuse_other_kernel(old, options, "fir")
    taps = old.weight.detach().flip(0)
    node = _build(old, {"order": len(taps), **options, "kernel": "fir"}, decay_input=False)
    with torch.no_grad():
        wanted = torch.zeros(len(node.kernel.taps), device=taps.device)
        wanted[: len(taps)] = taps[: len(wanted)]  # a smaller order forgets the oldest taps
        node.kernel.taps.copy_(wanted if node.kernel.taps.dim() == 1 else wanted.unsqueeze(1))
    _learn_threshold(node, old, options, old.bias)
    return node


def _from_psn(old: Any, options: dict[str, Any]) -> MFPNode:
    """A causal matrix of PSN or MaskedPSN; exact only if it looks into no future and has one bias."""
    weight = (old.masked_weight() if hasattr(old, "masked_weight") else old.weight).detach()
    exact = not bool(weight.triu(1).any()) and bool((old.bias == old.bias[0]).all())
    if not exact and "kernel" not in options:
        raise ValueError(
            f"{type(old).__name__}(T={old.T}) weighs future steps or has a bias for each step, which no "
            "neuron that runs in time has. Pass kernel='matrix' to keep the causal part of its matrix and "
            "the mean of its biases, and train on; or leave it alone."
        )
    _refuse_other_kernel(old, options, "matrix")
    order = {"order": old.k} if hasattr(old, "k") else {}
    node = _build(old, {**order, **options, "kernel": "matrix", "time_steps": old.T}, decay_input=False)
    with torch.no_grad():
        node.kernel.matrix.copy_(weight.tril())
    _learn_threshold(node, old, options, old.bias.mean())
    return node


def _learn_threshold(node: MFPNode, old: Any, options: dict[str, Any], bias: Tensor) -> None:
    if "v_threshold" not in options:
        node.v_threshold = nn.Parameter(-bias.detach().reshape(1))


def _refuse_other_kernel(old: Any, options: dict[str, Any], kernel: str) -> None:
    if options.get("kernel", kernel) != kernel:
        raise ValueError(
            f"{type(old).__name__}'s weights can only become kernel={kernel!r}, got {options['kernel']!r}; "
            "leave the option out, or build an MFPNode of your own"
        )


Rule = Callable[[Any, dict[str, Any]], MFPNode]

_RULES: dict[str, Rule] = {
    "IFNode": _from_if,
    "LIFNode": _from_lif,
    "ParametricLIFNode": _from_parametric_lif,
    "PSN": _from_psn,
    "MaskedPSN": _from_psn,
    "SlidingPSN": _from_sliding_psn,
}

#: SpikingJelly's neuron class -> function(neuron, options) that returns the MFPNode in its place. ``options``
#: are MFPNode's keyword arguments and win over what the neuron says. 0.0.0.0.14 has no PSN family.
RULES: dict[type, Rule] = {
    getattr(neuron, name): rule for name, rule in _RULES.items() if hasattr(neuron, name)
}


def _count_state(
    node: nn.Module, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, state_keys: set[Any]
) -> dict[str, int] | None:
    """Bytes of state that a call of our operator reads and writes: once for all T steps, as it runs."""
    at = {"mfp_neurons::fire": 3, "mfp_neurons::potential": 2}.get(func.name())
    if at is None:
        return None  # any other operator: count as usual
    size = 0 if args[at] is None else args[at].numel() * args[at].element_size()
    return {"state_reads": size, "state_writes": size, "neuron_logical_steps": args[0].numel()}


#: For 2.0.0's ``NeuronStateCounter(extra_state_rules=STATE_RULES)``, which cannot look into an operator.
STATE_RULES = {MFPNode: _count_state}


def _register() -> None:
    """Makes 2.0.0's ``NeuronConfig`` find MFPNode by its path; 0.0.0.0.14 has no such registry."""
    if hasattr(neuron.BaseNode, "single_step_functional_forward"):
        vision = require("spikingjelly.activation_based.distributed.vision", "spikingjelly")
        vision.register_neuron_class(MFPNode)


_register()
