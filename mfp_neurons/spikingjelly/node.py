"""MFPNode: the memory-free neuron with the arguments and habits of SpikingJelly's own."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from .. import functional
from .._checks import NO_BACKWARD, backward_pass, check_threshold, describe, log_once, refuse_tracers
from .._reset import check_samples, refuse_matrix, sample_mask
from ..backends import NAMES, check_name, unavailable
from ..neuron import HistoryKernel, kernel_of, shows_kernel_options
from ..norm import Norm
from ..spec import KernelOptions, NeuronSpec, StateNames
from ..surrogate import Surrogate
from .norms import take
from .states import (
    appended,
    filled,
    fit_history,
    fit_potential,
    history_at_rest,
    potential_dtype,
    step_shape,
)
from .surrogates import DEFAULT_SURROGATE, fused_surrogate, own_surrogate


class MFPNode(neuron.BaseNode):  # type: ignore[misc]
    r"""Drop-in for ``LIFNode`` without reset: the same arguments, shapes, step modes and memories.

    The potential is ``LIFNode``'s whose threshold is never reached, because nothing is reset:

    .. math::
        u[t] = \Bigl(1 - \frac{1}{\tau}\Bigr) u[t-1] + g \, x[t], \qquad
        g = \tfrac{1}{\tau} \text{ if decay\_input else } 1

    Args:
        tau: time constant in steps, > 1; ``math.inf`` with ``decay_input=False`` never leaks (IFNode).
        decay_input: scale the input by 1/tau, as LIFNode does by default.
        v_threshold: the neuron fires on u >= v_threshold, so never at ``math.inf``. A tensor ([1], [C], or
            one that broadcasts with a time step [N, \*]) or an ``nn.Parameter`` may be assigned to the
            attribute later.
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
        stride: steps from one of the ``order`` taps to the next.

    Shapes: floating-point input [N, \*] ("s") or [T, N, \*] ("m"); spikes in {0, 1} of its shape and dtype.
    Memories: ``v``, the last potential [N, \*] in float32 (float64 for float64 input); for finite kernels
    also ``history``, the inputs that may still matter, [K-1, N, \*] in the dtype of the input. Both stay
    attached to the graph until :meth:`reset` or :meth:`detach`; an input of another shape starts from zeros.
    A step of a finite kernel goes on from ``history``; a ``v`` written by hand restarts it if it is zero
    everywhere, and is a ValueError otherwise. :func:`mfp_neurons.reset_samples` starts some samples anew.

    ``convert(model, fuse=True)`` lets it run a batch norm in front of it as part of its operator.

    Raises:
        TypeError: an argument is not of the kind named above.
        ValueError: tau <= 1, order < 1, an unknown backend, kernel, or step mode, or NaN.

    >>> import torch
    >>> from mfp_neurons import MFPNode
    >>> node = MFPNode(tau=2.0, decay_input=False, step_mode="m")
    >>> node(torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)).flatten()   # u = 0.5, 0.75, 0.375, 1.1875
    tensor([0., 0., 0., 1.])
    >>> node.v
    tensor([1.1875])
    """

    __module__ = "mfp_neurons.spikingjelly"  # the path that pickles and configuration files keep
    v_seq: Tensor | None
    # v as the last call left it, and how often it had been written into: see _is_reading
    _reading: tuple[Any, int | None] = (None, None)
    _calls = 0  # since the state was at rest; 0 also once somebody assigned it
    _set_in = NO_BACKWARD  # the backward pass in which the state was reset or assigned, by PyTorch's number
    _overrides_functional: ClassVar[bool] = False
    _lacks: ClassVar[dict[str, str]] = {}

    @shows_kernel_options
    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = None,
        surrogate_function: Callable[[Tensor], Tensor] | None = DEFAULT_SURROGATE,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        learnable: bool = False,
        **options: Unpack[KernelOptions],
    ) -> None:
        if isinstance(backend, bool):  # LIFNode 2.0.0 has no backend: its eighth argument is store_v_seq
            backend, store_v_seq = "auto", backend
        check_name(backend)
        threshold = _number("v_threshold", v_threshold)
        check_threshold("v_threshold", threshold)
        gain = "decay_input" if decay_input else None
        history = kernel_of(self, options, decay=_decay_of(tau, decay_input), gain=gain, learnable=learnable)
        if v_reset is not None:
            log_once(
                "spikingjelly.v_reset",
                f"MFPNode ignores v_reset={v_reset!r}: its potential is never reset, which is what lets all "
                "time steps run at once. Pass v_reset=None to say so.",
            )
        super().__init__(  # keywords: the positional order differs between SpikingJelly's versions
            v_threshold=threshold,
            v_reset=None,
            surrogate_function=own_surrogate(surrogate_function),
            detach_reset=bool(detach_reset),
            step_mode=step_mode,
            store_v_seq=False,
        )
        self.kernel = history
        self.decay_input = bool(decay_input)
        self.backend = backend
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
            parameter = "decay_logit" if old.kind == "exp" else "taps" if old.kind == "fir" else "matrix"
            raise ValueError(
                f"tau of this neuron lies in its parameter kernel.{parameter}; change that instead"
            )
        gain: Any = "decay_input" if self.decay_input else None
        self.kernel = HistoryKernel(decay=_decay_of(value, self.decay_input), gain=gain, **old.options())

    @property
    def _carries(self) -> str | None:
        """What the next step depends on: the past in v, the last inputs in history, nothing (K = 1)."""
        kernel = self.kernel
        if kernel.kind == "exp" and kernel.state_steps is None:
            return "v"
        return "history" if kernel.kind == "matrix" or kernel.state_steps else None

    def neuron_spec(self) -> NeuronSpec:
        """What this neuron computes and keeps, for whoever reads a model."""
        threshold, carried = self.v_threshold, self.kernel.carried()
        return NeuronSpec(
            kernel=self.kernel,
            carried=carried,
            threshold=threshold,
            surrogate=self.surrogate_function,
            surrogate_argument="surrogate_function",
            threshold_shape=tuple(threshold.shape) if self._is_per_element else None,
            takes_sequences=self.step_mode == "m",
            step_mode=self.step_mode,
            continues=carried.what != "nothing",
            state=StateNames(
                self._state_names,
                potential="v",
                history="history" if self._carries == "history" else None,
                record="v_seq" if self.store_v_seq else None,
            ),
        )

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends that this installation can run; SpikingJelly 0.0.0.0.14's ``set_backend`` asks."""
        return tuple(name for name in NAMES if unavailable(name) is None)

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

    # --- what SpikingJelly calls ---------------------------------------------------------------------------

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
        x, _ = take(inputs[0])
        step = step_shape(x, step_mode)
        v = fit_potential(states[0], x, step)
        v = filled(0.0, x, step, potential_dtype(x)) if v is None else v
        if self._carries != "history":
            return (v,)
        history = fit_history(states[1], x, step, self.kernel)
        return v, history_at_rest(x, step, self.kernel) if history is None else history

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor | None, ...], **kwargs: object
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        r"""One step: ``((x,), states)`` to ``((spikes,), new states)``. Pure; x and spikes [N, \*].

        A state may be None: at rest. Of ``(v, history)`` the step goes on from ``history``.
        """
        x, norm = take(inputs[0])
        x = x if norm is None else norm.normalized(x)
        spikes, _, states = self._run(x.unsqueeze(0), self._state(states))
        return (spikes.squeeze(0),), states

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor | None, ...], **kwargs: object
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        r"""All steps at once: ``((x_seq,), states)`` to ``((spikes,), new states)``. Pure; [T, N, \*].

        States as in :meth:`single_step_functional_forward`.
        """
        spikes, _, states = self._run_sequence(inputs[0], states)
        return (spikes,), states

    def single_step_forward(self, x: Tensor) -> Tensor:
        r"""Spikes of one step, [N, \*]; the memories move on by one step."""
        self._refuse_half_a_subclass("s")
        refuse_tracers(self, x)
        states, moves_on = self._start(x, "s")
        (spikes,), states = self.single_step_functional_forward((x,), states)
        if moves_on:
            self._keep(states)
            if self.store_v_seq:
                self.v_seq = appended(self.v_seq, states[0])
        return spikes

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        r"""Spikes of all steps at once, [T, N, \*]; the memories move on by T steps."""
        self._refuse_half_a_subclass("m")
        refuse_tracers(self, x_seq)
        states, moves_on = self._start(x_seq, "m")
        v_seq = None
        if self.store_v_seq:
            spikes, v_seq, states = self._run_sequence(x_seq, states, record=True)
        else:
            (spikes,), states = self.multi_step_functional_forward((x_seq,), states)
        if moves_on:
            self._keep(states)
            if v_seq is not None:
                self.v_seq = v_seq
        return spikes

    def reset(self) -> None:
        """Puts the memories to rest, as ``functional.reset_net`` asks; may be called twice."""
        super().reset()
        self._reading = (None, None)
        self._set_in = backward_pass()

    def reset_samples(self, samples: Tensor) -> None:
        """Starts some samples of the batch anew: see :func:`mfp_neurons.reset_samples`."""
        check_samples(samples)
        v, history = self.v, self._memories.get("history")
        if self.kernel.kind == "matrix" and isinstance(history, Tensor):
            refuse_matrix("reset()")
        if isinstance(v, Tensor):
            rest = self._memories_rv["v"] if self._carries == "v" else 0.0
            self._memories["v"] = torch.where(sample_mask(samples, v), torch.as_tensor(rest).to(v), v)
        if isinstance(history, Tensor) and isinstance(v, Tensor):
            zero = history.new_zeros(())
            self._memories["history"] = torch.where(sample_mask(samples, v), zero, history)
        self._note_reading()

    def extra_repr(self) -> str:
        parts: dict[str, Any] = (
            {"tau": self.tau, "decay_input": self.decay_input} if self.kernel.kind == "exp" else {}
        )
        parts |= {"v_threshold": self.v_threshold, "step_mode": self.step_mode, "backend": self.backend}
        if self.store_v_seq:
            parts["store_v_seq"] = True
        return ", ".join(f"{name}={_brief(value)}" for name, value in parts.items())

    # --- from one call to the next -------------------------------------------------------------------------
    #
    # An infinite exponential goes on from v, as LIFNode does, so v may be set to anything. A finite kernel
    # goes on from history, and v is a reading that no kernel can start from. People set v all the same, to
    # end episodes or to detach: so a v that is still the last reading goes with history, zeros start anew,
    # and anything else is an error rather than silently ignored.

    @property
    def _state_names(self) -> tuple[str, ...]:
        return ("v", "history") if self._carries == "history" else ("v",)

    def _state(self, states: tuple[Any, ...]) -> Tensor | None:
        """Of all states, the one that a step goes on from."""
        return states[-1] if self._carries else None

    def _start(self, x: Tensor, step_mode: str) -> tuple[tuple[Any, ...], bool]:
        """The states that a call starts from, None at rest, and whether the memories move on with it."""
        x, _ = take(x)
        step = step_shape(x, step_mode)
        recomputes = self._recomputes()
        states: tuple[Any, ...]
        if recomputes:  # the call that is run again started from rest, and its end is in the memories already
            states = (None,) * len(self._state_names)
        elif self._carries == "history":
            states = (self.v, self._own_history(x, step))
        else:
            states = (fit_potential(self.v, x, step),)
        if not (recomputes or torch.compiler.is_compiling()):
            self._calls = 1 if states[-1] is None else max(self._calls, 1) + 1
        if self._overrides_functional or _is_counted():
            return self.materialize_states((x,), states, step_mode), not recomputes
        return states, not recomputes

    def _own_history(self, x: Tensor, step: torch.Size) -> Tensor | None:
        """The inputs that a finite kernel goes on from, as long as ``v`` is what it left there."""
        v, history = self.v, self.history
        if isinstance(v, Tensor) and v.shape != step:
            return None
        if torch.compiler.is_compiling() or self._is_reading(v):
            fitted = fit_history(history, x, step, self.kernel)
            return fitted if fitted is None or v.requires_grad else fitted.detach()  # v.detach_() by hand
        if bool(v.any()) if isinstance(v, Tensor) else float(v) != 0:
            raise ValueError(
                "v was changed by hand. A kernel of finite order goes on from its last inputs (history), "
                "which no v can replace. To start some samples anew: mfp_neurons.reset_samples(net, "
                "samples); to start all of them anew: reset(), or a v that is zero everywhere"
            )
        return None

    def _is_reading(self, v: Any) -> bool:
        """Whether v is the last potential of this neuron, unchanged; it may be detached since."""
        kept, version = self._reading
        if not isinstance(v, Tensor) or not isinstance(kept, Tensor):
            return False
        # v.detach() is another tensor over the same memory, and PyTorch counts the writes into it with v's
        same = v is kept or (v.shape == kept.shape and v.data_ptr() == kept.data_ptr())
        return same and (version is None or version == _version(v))

    def _note_reading(self) -> None:
        """Takes v as it is for the potential that goes with ``history``."""
        if self._carries == "history":
            v = self._memories["v"]
            self._reading = (v, None if torch.compiler.is_compiling() else _version(v))

    def _recomputes(self) -> bool:
        """Whether activation checkpointing runs a call again, in backward, that started from rest.

        Raises:
            RuntimeError: it runs one of several calls, and which of their states it started from is unknown.
        """
        if backward_pass() in (NO_BACKWARD, self._set_in):
            return False
        if self._carries is None:
            return True
        if self._calls == 0 and isinstance(self.v, Tensor):
            return False  # somebody assigned the state to start from
        if self._calls <= 1:
            return True
        raise RuntimeError(
            "activation checkpointing runs a call of this MFPNode again, which has been called "
            f"{self._calls} times since its state was at rest: the state that call started from is gone. "
            "Run each sequence in one call from rest (step_mode='m', reset_net between sequences), leave the "
            "neuron out of the checkpoint, or use SpikingJelly's memopt, which passes the states along"
        )

    def _keep(self, states: tuple[Tensor, ...]) -> None:
        if self._carries == "history" and not torch.compiler.is_compiling() and states[0].is_inference():
            with torch.inference_mode(False):  # an inference tensor does not tell that it was written into
                states = (states[0].clone(), *states[1:])
        for name, value in zip(self._state_names, states, strict=True):
            self._memories[name] = value
        self._note_reading()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("v", "history", "_memories") and "v" in self.__dict__.get("_memories", ()):
            self._calls, self._set_in = 0, backward_pass()
            if name != "v":  # whoever loads memories sets history after v, or both at once
                self._note_reading()

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> "MFPNode":
        unchanged = self._is_reading(self._memories["v"])
        super()._apply(fn)  # to another dtype or device makes another tensor of v
        if unchanged:
            self._note_reading()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: the states' values, cut from the graph that computed them."""
        state = dict(self.__dict__)
        state["_memories"] = {name: _detached(value) for name, value in self._memories.items()}
        if "v_seq" in state:
            state["v_seq"] = _detached(state["v_seq"])
        unchanged = self._is_reading(self._memories["v"])
        state["_reading"] = (state["_memories"]["v"] if unchanged else None, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._reading[0] is self._memories["v"]:
            self._note_reading()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Only what a class between MFPNode and this one defines counts as overridden.
        own = {name for kind in cls.__mro__[: cls.__mro__.index(MFPNode)] for name in vars(kind)}
        unused = sorted(own & {"neuronal_charge", "neuronal_fire", "neuronal_reset"})
        if unused:
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(unused)}, which MFPNode never calls: it computes all "
                "steps in one operator. Override single_step_forward and multi_step_forward, or derive from "
                "one of SpikingJelly's neurons"
            )
        cls._overrides_functional = any(name in own for name in _FUNCTIONAL)
        cls._lacks = {}
        for one_step, all_steps in (_FORWARD, _FUNCTIONAL):
            if one_step in own and all_steps not in own:
                cls._lacks["m"] = f"{all_steps}, which step_mode='m' calls, beside {one_step}"
            if all_steps in own and one_step not in own:
                cls._lacks["s"] = f"{one_step}, which step_mode='s' calls, beside {all_steps}"

    def _refuse_half_a_subclass(self, step_mode: str) -> None:
        """What a subclass overrides for one step mode alone would be left out in the other."""
        if step_mode in self._lacks:
            raise NotImplementedError(f"{type(self).__name__} must override {self._lacks[step_mode]}")
        if self._overrides_functional and self.store_v_seq and step_mode == "m":
            raise NotImplementedError(
                f"{type(self).__name__} overrides the functional forward, from which store_v_seq gets no "
                "potentials in step_mode='m'; override multi_step_forward, or run it in step_mode='s'"
            )

    def _refuse_phase(self, *args: Any) -> None:
        """Not available: raises NotImplementedError."""
        raise NotImplementedError(_NO_PHASES)

    neuronal_charge = neuronal_fire = neuronal_reset = _refuse_phase

    # --- the operator --------------------------------------------------------------------------------------

    def _run_sequence(
        self, x_seq: Tensor, states: tuple[Tensor | None, ...], record: bool = False
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """:meth:`_run`, after the batch norm that waits for this neuron or in one operator with it."""
        x_seq, norm = take(x_seq)
        state = self._state(states)
        if norm is None:
            return self._run(x_seq, state, record)
        # the operator that normalizes too takes thresholds a channel, and surrogates that it knows
        if self._is_per_element or not isinstance(fused_surrogate(self.surrogate_function), Surrogate):
            return self._run(norm.normalized(x_seq), state, record)
        return self._run(x_seq, state, record, norm.value())

    @property
    def _is_per_element(self) -> bool:
        """Whether there is a threshold for each element, which ``set_threshold_margin`` sets."""
        return isinstance(self.v_threshold, Tensor) and self.v_threshold.dim() > 1

    def _run(
        self, x_seq: Tensor, state: Tensor | None, record: bool = False, norm: Norm | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Spikes [T, N, *], the potential (of every step if ``record``), and the new states."""
        if x_seq.dim() == 1:  # one lone neuron: the core wants a batch
            state = None if state is None else state.unsqueeze(-1)
            spikes, u, new = self._run(x_seq.unsqueeze(1), state, record)
            return spikes.squeeze(1), u.squeeze(-1).clone(), tuple(s.squeeze(-1).clone() for s in new)
        # A threshold for each element is none that the operator takes: it gives the potential, and the spikes
        # are those of the surrogate called on it.
        threshold, per_element = self.v_threshold, self._is_per_element
        if isinstance(threshold, Tensor) and threshold.dim() == 0:
            threshold = threshold.reshape(1)
        arguments = (self.kernel(), 0.0 if per_element else threshold, state)
        options: dict[str, Any] = {
            "surrogate": fused_surrogate(self.surrogate_function),
            "record": record or per_element,
            "backend": self.backend,
        }
        if norm is None:
            chunk = functional.fire_chunk(x_seq, *arguments, **options)
        else:
            chunk = functional.norm_fire_chunk(x_seq, norm, *arguments, **options)
        spikes = chunk.spikes
        if per_element:
            spikes = self.surrogate_function(chunk.potential - threshold).to(chunk.spikes.dtype)
        if self._carries == "v":
            return spikes, chunk.potential, (chunk.state,)
        # detach_() wants no view
        last = chunk.potential[-1].clone() if record or per_element else chunk.potential
        return spikes, chunk.potential, (last, chunk.state) if self._carries else (last,)


# the methods of step mode "s" and of "m" that a subclass overrides together
_FORWARD = ("single_step_forward", "multi_step_forward")
_FUNCTIONAL = ("single_step_functional_forward", "multi_step_functional_forward")
_NO_PHASES = (
    "MFPNode does not charge, fire and reset one after the other: it computes all steps in one operator. "
    "Call super().single_step_forward(x) or super().multi_step_forward(x_seq), and read the potential from v"
)


def _is_counted() -> bool:
    """Whether one of SpikingJelly's counters looks at every operation: they look for a state at rest too."""
    if torch.compiler.is_compiling():
        return False
    return any(
        type(mode).__module__.startswith("spikingjelly.") for mode in _get_current_dispatch_mode_stack()
    )


def _version(v: Any) -> int | None:
    return v._version if isinstance(v, Tensor) and not v.is_inference() else None


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():.4g}" if value.numel() == 1 else f"tensor{list(value.shape)}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _decay_of(tau: float, decay_input: bool) -> float:
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
