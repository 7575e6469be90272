"""MFPNode: the memory-free neuron with the arguments and habits of SpikingJelly's own."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from .. import functional
from .._arguments import RESETS, ResetOptions, subtracted
from .._checks import (
    NO_BACKWARD,
    backward_pass,
    check_choice,
    check_finite,
    check_threshold,
    describe,
    log_once,
    refuse_tracers,
)
from .._reset import check_samples, refuse_matrix, sample_mask
from ..backends import NAMES, check_name, unavailable
from ..feedback import Feedback
from ..history import FIR, Exponential, Kernel, as_dtype
from ..neuron import HistoryKernel, kernel_of, shows_kernel_options
from ..norm import Norm
from ..ops import along_channels
from ..spec import KernelOptions, NeuronSpec, StateNames
from ..surrogate import Surrogate
from .norms import take
from .states import (
    appended,
    filled,
    fit_past,
    fit_potential,
    past_at_rest,
    potential_dtype,
    step_shape,
)
from .surrogates import DEFAULT_SURROGATE, fused_surrogate, own_surrogate


class MFPNode(neuron.BaseNode):  # type: ignore[misc]
    r"""Drop-in for ``LIFNode``: the same arguments with the same defaults, shapes, step modes and memories.

    With LIFNode's arguments alone it is a ``LIFNode``, which keeps a potential from step to step. ``order=K``
    makes it memory-free: the last K inputs are summed, the last K - 1 own spikes reset the sum, and the two
    agree for K steps. ``reset=None`` leaves the reset out. The potential, counted from its value at rest:

    .. math::
        u[t] = \Bigl(1 - \frac{1}{\tau}\Bigr) v[t-1] + g \, x[t], \qquad
        g = \tfrac{1}{\tau} \text{ if decay\_input else } 1

    v[t] is what the reset leaves of u[t]: without one all of it, so that no step depends on the spikes of
    another, and all are computed at once. With a reset they run one after the other, in one operator.

    Args:
        tau: time constant in steps, > 1; ``math.inf`` with ``decay_input=False`` never leaks (IFNode).
        decay_input: scale the input by 1/tau, as LIFNode does by default.
        v_threshold: the neuron fires on u >= v_threshold, so never at ``math.inf``. A tensor ([1], [C], or
            one that broadcasts with a time step [N, \*]) or an ``nn.Parameter`` may be assigned to the
            attribute later.
        v_reset: the potential at rest and after a hard reset; None is the soft reset. Only "zero" takes
            another number than 0; without a reset it is ignored, which is said once.
        surrogate_function: SpikingJelly's surrogates, ours, or any callable from u - v_threshold to spikes.
        detach_reset: no gradient passes through the spikes that reset the neuron, or are fed back.
        step_mode: "s" takes one step [N, \*], "m" a sequence [T, N, \*], time first.
        backend: "auto", "torch", "cpu" or "cupy"; see :func:`mfp_neurons.functional.fire`.
        store_v_seq: keep v[t] of every step, [T, N, \*], in ``v_seq``.
        reset: what the neuron's own spikes change. "auto" is LIFNode's rule: "subtract" for ``v_reset=None``
            and "zero" for a number; nothing for ``kernel="matrix"``, which takes no reset. "subtract": the
            potential loses the threshold, the soft reset. "zero": the sum over the inputs starts anew, the
            hard reset. "feedback": the potential gets r[1] s[t-1] + .. + r[R] s[t-R]; the taps r are learned,
            start at 0 (the parameter ``feedback.taps``) and need an ``order``. None: nothing.
        reset_order: R, how many own spikes "subtract" and "feedback" feed back; None is as far back as the
            kernel reaches, order - 1.
        kernel: "exp", "fir" (``order`` free taps) or "matrix" (one free causal matrix over ``time_steps``).
        order: K, the number of steps an input is remembered; None for ever ("exp").
        time_steps: T, for "matrix" alone.
        learnable: learn the decay of "exp".
        num_channels: C, for a decay or taps of each channel (dim 1 of a step [N, C, \*]); None shares them.
        groups: G, a divisor of C, for those of each group of C / G neighbouring channels instead.
        kernel_bits: None, "pow2" or 2..8: the grid that the taps are snapped to.
        stride: steps from one of the ``order`` taps to the next.

    Shapes: floating-point input [N, \*] ("s") or [T, N, \*] ("m"); spikes in {0, 1} of its shape and dtype.
    Memories: ``v``, what the reset left of the last potential, [N, \*] in float32 (float64 for float64
    input); for finite kernels also ``history``, the inputs that may still matter, [K-1, N, \*], and with a
    reset ``last_spikes``, the neuron's own, [R, N, \*], both oldest first and in the dtype of the input. They
    stay attached to the graph until :meth:`reset` or :meth:`detach`; an input of another shape starts from
    rest. A step of a finite kernel goes on from ``history`` and ``last_spikes``; a ``v`` written by hand
    restarts it if it is at rest (0, or ``v_reset``) everywhere, and is a ValueError otherwise.
    :func:`mfp_neurons.reset_samples` starts some samples anew.

    ``convert(model, fuse=True)`` lets it run a batch norm in front of it as part of its operator.

    Raises:
        TypeError: an argument is not of the kind named above.
        ValueError: tau <= 1, order < 1, an unknown backend, kernel, reset or step mode, or NaN; arguments of
            the reset that contradict each other.

    >>> import torch
    >>> from mfp_neurons import MFPNode
    >>> node = MFPNode(tau=2.0, decay_input=False, reset=None, step_mode="m")
    >>> node(torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)).flatten()   # u = 0.5, 0.75, 0.375, 1.1875
    tensor([0., 0., 0., 1.])
    >>> node.v
    tensor([1.1875])
    >>> node = MFPNode(tau=2.0, decay_input=False, reset="subtract", order=4, step_mode="m")
    >>> node(torch.tensor([1.5, 1.0, 0.5, 1.0]).reshape(4, 1)).flatten()   # u = 1.5, 1.25, 0.625, 1.3125
    tensor([1., 1., 0., 1.])
    >>> node.v
    tensor([0.3125])
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
        v_reset: float | None = 0.0,
        surrogate_function: Callable[[Tensor], Tensor] | None = DEFAULT_SURROGATE,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        reset: str | None = "auto",
        reset_order: int | None = None,
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
        kind = _kind_of_reset(reset, v_reset, history.kind)
        super().__init__(  # keywords: the positional order differs between SpikingJelly's versions
            v_threshold=threshold,
            v_reset=None if v_reset is None or kind != "zero" else float(v_reset),
            surrogate_function=own_surrogate(surrogate_function),
            detach_reset=bool(detach_reset),
            step_mode=step_mode,
            store_v_seq=False,
        )
        self.kernel = history
        self.feedback = Feedback(kind, history, order=reset_order, detach=bool(detach_reset))
        self.decay_input = bool(decay_input)
        self.backend = backend
        for name in self._past:
            self.register_memory(name, 0.0)
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
    def _goes_on_from_v(self) -> bool:
        """Whether the potential is a recursion, as LIFNode's."""
        kernel: Any = self._modules["kernel"]
        return kernel.kind == "exp" and kernel.order is None

    @property
    def _past(self) -> dict[str, int | None]:
        """The memories beside v, which a finite kernel goes on from, and how many steps each holds.

        None for every step since the reset. Nothing is held where nothing is remembered (K = 1, no reset).
        """
        if self._goes_on_from_v:
            return {}
        kernel: Any = self._modules["kernel"]
        feedback: Any = self._modules["feedback"]
        inputs, spikes = None if kernel.kind == "matrix" else kernel.state_steps, feedback.order(kernel)
        past = {} if inputs == 0 else {"history": inputs}
        return past if spikes == 0 else past | {"last_spikes": spikes}

    @property
    def _rest(self) -> float:
        """The potential at rest and after a hard reset, from which the sums over the inputs count."""
        return self.v_reset or 0.0

    def neuron_spec(self) -> NeuronSpec:
        """What this neuron computes and keeps, for whoever reads a model."""
        threshold, carried = self.v_threshold, self.feedback.carried(self.kernel)
        subtracts = None if self._is_per_element else threshold
        return NeuronSpec(
            kernel=self.kernel,
            reset=self.feedback.spec(self.kernel, subtracts, self._rest),
            carried=carried,
            threshold=threshold,
            surrogate=self.surrogate_function,
            surrogate_argument="surrogate_function",
            threshold_shape=tuple(threshold.shape) if self._is_per_element else None,
            takes_sequences=self.step_mode == "m",
            step_mode=self.step_mode,
            continues=self._goes_on_from_v or bool(self._past),
            state=StateNames(
                self._state_names,
                potential="v",
                history="history" if "history" in self._past else None,
                record="v_seq" if self.store_v_seq else None,
                last_spikes="last_spikes" if "last_spikes" in self._past else None,
            ),
            leaves_reset=True,
            decays=self.kernel.decay_parameters,
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
            states: ``v`` and, where the neuron has them, ``history`` and ``last_spikes``, in this order:
                tensors, or the numbers that :meth:`reset` leaves.
            step_mode: "s" or "m".

        Returns:
            The states on the input's device, v in float32 or wider, the others in the input's dtype; at rest
            where a tensor's shape no longer fits (the batch size changed).
        """
        x, _ = take(inputs[0])
        step = step_shape(x, step_mode)
        v = fit_potential(states[0], x, step, self._rest)
        v = filled(self._rest, x, step, potential_dtype(x)) if v is None else v
        past = []
        for state, steps in zip(states[1:], self._past.values(), strict=True):
            fitted = fit_past(state, x, step, steps)
            past.append(past_at_rest(x, step, steps) if fitted is None else fitted)
        return v, *past

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor | None, ...], **kwargs: object
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        r"""One step: ``((x,), states)`` to ``((spikes,), new states)``. Pure; x and spikes [N, \*].

        A state may be None: at rest. Where there are other states than ``v``, the step goes on from those.
        """
        x, norm = take(inputs[0])
        x = x if norm is None else norm.normalized(x)
        before = self._before(states)
        if self._goes_on_from_v and x.dim() > 1 and not self._is_per_element:
            return self._step(x, before[0])
        spikes, _, states = self._run(x.unsqueeze(0), *before)
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
        v = self.v
        if self.kernel.kind == "matrix" and isinstance(self.history, Tensor):
            refuse_matrix("reset()")
        if isinstance(v, Tensor):
            mask = sample_mask(samples, v)
            rest = self._memories_rv["v"] if self._goes_on_from_v else self._rest
            self._memories["v"] = torch.where(mask, v.new_full((), rest), v)
            for name in self._past:
                past = self._memories[name]
                if isinstance(past, Tensor):
                    self._memories[name] = torch.where(mask, past.new_zeros(()), past)
        self._note_reading()

    def extra_repr(self) -> str:
        parts: dict[str, Any] = (
            {"tau": self.tau, "decay_input": self.decay_input} if self.kernel.kind == "exp" else {}
        )
        parts |= {"v_threshold": self.v_threshold}
        if self.feedback.kind == "zero":
            parts["v_reset"] = self.v_reset
        if self.feedback.kind is not None and self.detach_reset:
            parts["detach_reset"] = True
        parts |= {"step_mode": self.step_mode, "backend": self.backend}
        if self.store_v_seq:
            parts["store_v_seq"] = True
        return ", ".join(f"{name}={_brief(value)}" for name, value in parts.items())

    # --- from one call to the next -------------------------------------------------------------------------
    #
    # An infinite exponential goes on from v, as LIFNode does, so v may be set to anything. A finite kernel
    # goes on from history and last_spikes, and v is a reading that no kernel can start from. People set v all
    # the same, to end episodes or to detach: so a v that is still the last reading goes with the two, a v at
    # rest everywhere starts anew, and anything else is an error rather than silently ignored.

    @property
    def _state_names(self) -> tuple[str, ...]:
        return ("v", *self._past)

    def _before(self, states: tuple[Any, ...]) -> tuple[Tensor | None, Tensor | None]:
        """What a step goes on from, as the functions take it: potential or inputs, and its own spikes."""
        v, *past = states
        if self._goes_on_from_v:  # v is what the reset left, so that no spike is still to be fed back
            return (v if v is None or self._rest == 0 else v - self._rest), None
        held = dict(zip(self._past, past, strict=True))
        return held.get("history"), held.get("last_spikes")

    def _start(self, x: Tensor, step_mode: str) -> tuple[tuple[Any, ...], bool]:
        """The states that a call starts from, None at rest, and whether the memories move on with it."""
        x, _ = take(x)
        step = step_shape(x, step_mode)
        recomputes, past = self._recomputes(), self._past
        states: tuple[Any, ...]
        if recomputes:  # the call that is run again started from rest, and its end is in the memories already
            states = (None,) * (1 + len(past))
        elif past:
            states = (self.v, *self._own_past(x, step, past))
        else:
            states = (fit_potential(self.v, x, step, self._rest),)
        if not (recomputes or torch.compiler.is_compiling()):
            starts = all(state is None for state in (states[1:] or states))
            self._calls = 1 if starts else max(self._calls, 1) + 1
        if self._overrides_functional or _is_counted():
            return self.materialize_states((x,), states, step_mode), not recomputes
        return states, not recomputes

    def _own_past(self, x: Tensor, step: torch.Size, past: dict[str, int | None]) -> list[Tensor | None]:
        """The inputs and spikes that a finite kernel goes on from, as long as ``v`` is what it left there."""
        v = self.v
        at_rest: list[Tensor | None] = [None] * len(past)
        if isinstance(v, Tensor) and v.shape != step:
            return at_rest
        if torch.compiler.is_compiling() or self._is_reading(v):
            fitted = [fit_past(self._memories[name], x, step, steps) for name, steps in past.items()]
            if isinstance(v, Tensor) and not v.requires_grad:  # v.detach_() by hand
                fitted = [None if one is None else one.detach() for one in fitted]
            return fitted
        if bool((v != self._rest).any()) if isinstance(v, Tensor) else float(v) != self._rest:
            rest = "zero" if self._rest == 0 else f"v_reset={self._rest:g}"
            raise ValueError(
                "v was changed by hand. A kernel of finite order goes on from its last inputs and spikes "
                f"({', '.join(past)}), which no v can replace. To start some samples anew: mfp_neurons"
                f".reset_samples(net, samples); to start all of them anew: reset(), or a v that is {rest} "
                "everywhere"
            )
        return at_rest

    def _is_reading(self, v: Any) -> bool:
        """Whether v is the last potential of this neuron, unchanged; it may be detached since."""
        kept, version = self._reading
        if not isinstance(v, Tensor) or not isinstance(kept, Tensor):
            return False
        # v.detach() is another tensor over the same memory, and PyTorch counts the writes into it with v's
        same = v is kept or (v.shape == kept.shape and v.data_ptr() == kept.data_ptr())
        return same and (version is None or version == _version(v))

    def _note_reading(self) -> None:
        """Takes v as it is for the potential that goes with ``history`` and ``last_spikes``."""
        if not self._goes_on_from_v:
            v = self._memories["v"]
            self._reading = (v, None if torch.compiler.is_compiling() else _version(v))

    def _recomputes(self) -> bool:
        """Whether activation checkpointing runs a call again, in backward, that started from rest.

        Raises:
            RuntimeError: it runs one of several calls, and which of their states it started from is unknown.
        """
        if backward_pass() in (NO_BACKWARD, self._set_in):
            return False
        if not (self._goes_on_from_v or self._past):
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
        names = self._state_names
        if len(names) > 1 and not torch.compiler.is_compiling() and states[0].is_inference():
            with torch.inference_mode(False):  # an inference tensor does not tell that it was written into
                states = (states[0].clone(), *states[1:])
        self._memories.update(zip(names, states, strict=True))
        self._note_reading()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_calls", "_set_in", "_reading"):
            self.__dict__[name] = value  # torch would look first whether it is a parameter, at every call
            return
        if name == "v_reset" and self._is_another_reset(value):
            raise ValueError(
                f"v_reset of a neuron with reset={self.feedback.kind!r} stays {self.v_reset}, got {value}; "
                "build another neuron"
            )
        super().__setattr__(name, value)
        if name == "detach_reset" and "feedback" in self._modules:
            self.feedback.detached = bool(value)
        if name in ("v", "history", "last_spikes", "_memories") and "v" in self.__dict__.get("_memories", ()):
            self._calls, self._set_in = 0, backward_pass()
            if name != "v":  # whoever loads memories sets the others after v, or all at once
                self._note_reading()

    def _is_another_reset(self, v_reset: float | None) -> bool:
        feedback: Any = self.__dict__.get("_modules", {}).get("feedback")
        return feedback is not None and feedback.kind is not None and v_reset != self.v_reset

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
        before = self._before(states)
        if norm is None:
            return self._run(x_seq, *before, record)
        # the operator that normalizes too takes thresholds a channel, and surrogates that it knows
        if self._is_per_element or not isinstance(fused_surrogate(self.surrogate_function), Surrogate):
            return self._run(norm.normalized(x_seq), *before, record)
        return self._run(x_seq, *before, record, norm.value())

    @property
    def _is_per_element(self) -> bool:
        """Whether there is a threshold for each element, which ``set_threshold_margin`` sets."""
        return isinstance(self.v_threshold, Tensor) and self.v_threshold.dim() > 1

    def _run(
        self,
        x_seq: Tensor,
        state: Tensor | None,
        last_spikes: Tensor | None,
        record: bool = False,
        norm: Norm | None = None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Spikes [T, N, *], the potential (of every step if ``record``), and the new states."""
        if x_seq.dim() == 1:  # one lone neuron: the core wants a batch
            state, last_spikes = (None if b is None else b.unsqueeze(-1) for b in (state, last_spikes))
            spikes, v, new = self._run(x_seq.unsqueeze(1), state, last_spikes, record)
            return spikes.squeeze(1), v.squeeze(-1).clone(), tuple(s.squeeze(-1).clone() for s in new)
        chunk = self._fire(x_seq, state, last_spikes, record, norm)
        v = chunk.potential
        if self.feedback.kind is not None:
            v = self._after_reset(v, chunk.spikes, x_seq.dim(), is_last=not record)
        elif self._goes_on_from_v:
            return chunk.spikes, v, (chunk.state,)
        last = v[-1].clone() if record else v  # detach_() wants no view
        past = {"history": chunk.state, "last_spikes": chunk.last_spikes}
        return chunk.spikes, v, (last, *(past[name] for name in self._past))  # type: ignore[arg-type]

    def _step(self, x: Tensor, state: Tensor | None) -> tuple[tuple[Tensor], tuple[Tensor]]:
        """Spikes and potential [N, *] of a recursion, whose state is what a reset has left: no spikes."""
        surrogate: Any = fused_surrogate(self.surrogate_function)
        kernel: Any = self.kernel()
        spikes, u = functional.step(
            x, kernel, self._threshold, state, surrogate=surrogate, backend=self.backend
        )
        return (spikes,), (u if self.feedback.kind is None else self._after_reset(u, spikes, x.dim() + 1),)

    def _fire(
        self,
        x_seq: Tensor,
        state: Tensor | None,
        last_spikes: Tensor | None,
        record: bool,
        norm: Norm | None,
    ) -> functional.Chunk:
        history: Any = self._modules["kernel"]  # what self.kernel is, several calls later
        feedback: Any = self._modules["feedback"]
        kernel, threshold = history(), self._threshold
        options: dict[str, Any] = {
            "surrogate": fused_surrogate(self.surrogate_function),
            "record": record,
            "backend": self.backend,
        }
        if norm is not None or not self._is_per_element:
            fed_back = feedback.arguments(history, kernel, threshold, x_seq.device)
            return functional.run(
                x_seq, kernel, threshold, state, last_spikes, feedback=ResetOptions.of(**fed_back),
                norm=norm, carry=True, carry_spikes=not self._goes_on_from_v, **options,
            )  # fmt: skip
        if feedback.kind is not None:
            return self._fire_elements(x_seq, kernel, state, last_spikes, options)
        # A threshold for each element is none that the operator takes: it gives the potential, and the spikes
        # are those of the surrogate called on it.
        chunk = functional.fire_chunk(x_seq, kernel, 0.0, state, **{**options, "record": True})
        spikes = self.surrogate_function(chunk.potential - threshold).to(chunk.spikes.dtype)
        u = chunk.potential if record else chunk.potential[-1].clone()
        return chunk._replace(spikes=spikes, potential=u)

    def _fire_elements(
        self,
        x_seq: Tensor,
        kernel: Kernel,
        state: Tensor | None,
        last_spikes: Tensor | None,
        options: dict[str, Any],
    ) -> functional.Chunk:
        """A threshold for each element, with a reset: the elements run as the channels of one sample."""
        step = x_seq.shape[1:]

        def fold(value: Tensor | None) -> Any:
            return None if value is None else value.reshape(*value.shape[: -len(step)], 1, -1)

        def unfold(value: Tensor) -> Tensor:
            return value.reshape(*value.shape[:-2], *step).clone()  # a state is no view

        threshold = torch.as_tensor(self._threshold).expand(step).reshape(-1)
        fed_back = self.feedback.arguments(self.kernel, kernel, 1.0, x_seq.device)
        if "reset_taps" in fed_back:
            taps = fed_back["reset_taps"]
            taps = _for_elements(taps if taps.dim() == 2 else taps.unsqueeze(1), step)
            subtracts = self.feedback.kind == "subtract"
            fed_back["reset_taps"] = taps * subtracted(threshold) if subtracts else taps
        chunk = functional.fire_chunk(
            fold(x_seq), _kernel_for_elements(kernel, step), threshold, fold(state),
            last_spikes=fold(last_spikes), **fed_back, **options,
        )  # fmt: skip
        return functional.Chunk(*map(unfold, chunk))  # type: ignore[arg-type]

    @property
    def _threshold(self) -> Any:
        """The threshold, counted from the potential at rest."""
        threshold = self.v_threshold
        if isinstance(threshold, Tensor) and threshold.dim() == 0:
            threshold = threshold.reshape(1)
        return threshold if self._rest == 0 else threshold - self._rest

    def _after_reset(self, u: Tensor, spikes: Tensor, dims: int, is_last: bool = False) -> Tensor:
        """LIFNode's v: what a reset leaves of a potential.

        Args:
            u: the potential.
            spikes: those that were fired on it, or ``is_last``: of all steps up to it.
            dims: those of an input [T, N, *].
            is_last: see ``spikes``.
        """
        kind = self.feedback.kind
        if kind == "feedback":
            return u  # what is fed back changes the steps to come
        spikes = spikes.detach() if self.detach_reset else spikes
        if kind == "zero" and isinstance(fused_surrogate(self.surrogate_function), Surrogate):
            if torch.is_grad_enabled():
                return _HardReset.apply(u, spikes, self._rest, is_last)  # type: ignore[no-any-return]
            return _at_rest_where(spikes[-1] if is_last else spikes, u, self._rest)[0]
        own = as_dtype(spikes[-1] if is_last else spikes, u.dtype)
        if kind == "zero":
            return self._rest + (1 - own) * u.clamp(max=torch.finfo(u.dtype).max)
        amount = subtracted(self._threshold)
        if isinstance(amount, Tensor):
            amount = (amount if self._is_per_element else along_channels(amount, dims)).to(u.dtype)
        return u - amount * own


def _at_rest_where(own: Tensor, u: Tensor, rest: float) -> tuple[Tensor, Tensor]:
    """The potential that a hard reset leaves, counted from 0, and where it has fired."""
    fired = own.bool()
    v = u.masked_fill(fired, 0)
    return v + rest if rest else v, fired


class _HardReset(torch.autograd.Function):
    """rest + (1 - own) * u, of spikes 0 or 1: a potential that fired is forgotten, infinite or not."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, spikes: Tensor, rest: float, is_last: bool) -> Tensor:  # type: ignore[override]
        v, fired = _at_rest_where(spikes[-1] if is_last else spikes, u, rest)
        ctx.save_for_backward(u, fired)  # rather than the spikes of all steps
        ctx.shape, ctx.dtype, ctx.is_last = spikes.shape, spikes.dtype, is_last
        return v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        u, fired = ctx.saved_tensors
        g_u = g_spikes = None
        if ctx.needs_input_grad[0]:
            g_u = grad * fired.logical_not()
        if ctx.needs_input_grad[1]:
            g_spikes = as_dtype((grad * u.clamp(max=torch.finfo(u.dtype).max)).neg_(), ctx.dtype)
            if ctx.is_last:
                last, g_spikes = g_spikes, g_spikes.new_zeros(ctx.shape)
                g_spikes[-1] = last
        return g_u, g_spikes, None, None


# the methods of step mode "s" and of "m" that a subclass overrides together
_FORWARD = ("single_step_forward", "multi_step_forward")
_FUNCTIONAL = ("single_step_functional_forward", "multi_step_functional_forward")
_NO_PHASES = (
    "MFPNode does not charge, fire and reset one after the other: it computes all steps in one operator. "
    "Call super().single_step_forward(x) or super().multi_step_forward(x_seq), and read the potential from v"
)


def _for_elements(value: Tensor, step: torch.Size) -> Tensor:
    """Rows [*, C] of parameters a channel, dim 1 of a step, as rows [*, elements]; [*, 1] as they are."""
    if value.shape[-1] == 1:
        return value
    rows = value.shape[:-1]
    return value.reshape(*rows, 1, -1, *[1] * (len(step) - 2)).expand(*rows, *step).reshape(*rows, -1)


def _kernel_for_elements(kernel: Kernel, step: torch.Size) -> Kernel:
    if isinstance(kernel, FIR) and kernel.taps.dim() == 2:
        return FIR(_for_elements(kernel.taps, step)) if kernel.taps.shape[1] > 1 else kernel
    if isinstance(kernel, Exponential):
        rows = {
            name: _for_elements(value, step)
            for name, value in (("decay", kernel.decay), ("gain", kernel.gain))
            if isinstance(value, Tensor)
        }
        return dataclasses.replace(kernel, **rows)  # type: ignore[arg-type]
    return kernel


def _kind_of_reset(reset: Any, v_reset: Any, kernel: str) -> str | None:
    """What ``reset`` and ``v_reset`` ask for together.

    Raises:
        TypeError, ValueError: one of them is none, or they contradict each other.
    """
    if v_reset is not None:
        check_finite("v_reset", _number("v_reset", v_reset))
    if reset == "auto":
        reset = None if kernel == "matrix" else "subtract" if v_reset is None else "zero"
    if reset is not None:
        check_choice("reset", reset, ("auto", *RESETS))
    if reset == "zero" and v_reset is None:
        raise ValueError("reset='zero' takes a number for v_reset, got None, which is LIFNode's soft reset")
    if reset != "zero" and v_reset:
        if reset is not None:
            raise ValueError(
                f"v_reset={v_reset} is the potential after a hard reset, reset='zero', got reset={reset!r}"
            )
        log_once(
            "spikingjelly.v_reset",
            f"MFPNode ignores v_reset={v_reset!r}: its potential is never reset. Leave v_reset out then.",
        )
    return reset  # type: ignore[no-any-return]


def _is_counted() -> bool:
    """Whether one of SpikingJelly's counters looks at every operation: they look for a state at rest too."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() == 0:
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
