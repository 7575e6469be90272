"""The neuron, as SpikingJelly's users write it."""

import math
from collections.abc import Callable
from typing import Any

from spikingjelly.activation_based import neuron
from torch import Tensor

from .. import functional
from .._checks import check_threshold, log_once, refuse_tracers
from ..backends import NAMES, check_name, unavailable
from ..history import KernelBits
from ..neuron import HistoryKernel
from ..norm import Norm
from ..surrogate import Surrogate
from .arguments import decay_of, number
from .norms import FusedNorm
from .states import appended, first_step, fit_history, fit_potential
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

    ``convert(model, fuse=True)`` makes a batch norm in front of it part of it: see :meth:`fuse`.

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
    _norm: tuple[FusedNorm, ...] = ()  # the batch norm whose work it does; in a tuple, it is no submodule

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
        kernel: str = "exp",
        order: int | None = None,
        time_steps: int | None = None,
        learnable: bool = False,
        num_channels: int | None = None,
        kernel_bits: KernelBits = None,
        stride: int = 1,
    ) -> None:
        if isinstance(backend, bool):  # LIFNode 2.0.0 has no backend: its eighth argument is store_v_seq
            backend, store_v_seq = "auto", backend
        check_name(backend)
        threshold = number("v_threshold", v_threshold)
        check_threshold("v_threshold", threshold)
        history = HistoryKernel(
            kernel,
            decay=decay_of(tau, decay_input),
            gain="decay_input" if decay_input else None,
            order=order,
            time_steps=time_steps,
            learnable=learnable,
            num_channels=num_channels,
            kernel_bits=kernel_bits,
            stride=stride,
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
            held = "decay_logit" if old.kind == "exp" else "taps" if old.kind == "fir" else "matrix"
            raise ValueError(f"tau of this neuron lies in its parameter kernel.{held}; change that instead")
        self.kernel = HistoryKernel(
            decay=decay_of(value, self.decay_input),
            gain="decay_input" if self.decay_input else None,
            order=old.order,
            num_channels=old.num_channels,
            kernel_bits=old.kernel_bits,
            stride=old.stride,
        )

    @property
    def _carries(self) -> str | None:
        """What the next step depends on: the past in v, the last inputs in history, nothing (K = 1)."""
        kernel = self.kernel
        if kernel.kind == "exp" and kernel.state_steps is None:
            return "v"
        return "history" if kernel.kind == "matrix" or kernel.state_steps else None

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
        step = first_step(inputs[0], step_mode)
        v = fit_potential(states[0], step)
        return (v, fit_history(states[1], step, self.kernel)) if self._carries == "history" else (v,)

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...], **kwargs: object
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        r"""One step: ``((x,), states)`` to ``((spikes,), new states)``. Pure; x and spikes [N, \*]."""
        x = self._normalized(inputs[0])
        spikes, _, states = self._run(x.unsqueeze(0), states, record=False)
        return (spikes.squeeze(0),), states

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...], **kwargs: object
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        r"""All steps at once: ``((x_seq,), states)`` to ``((spikes,), new states)``. Pure; [T, N, \*]."""
        spikes, _, states = self._run_sequence(inputs[0], states, record=False)
        return (spikes,), states

    def single_step_forward(self, x: Tensor) -> Tensor:
        r"""Spikes of one step, [N, \*]; the memories move on by one step."""
        refuse_tracers(self, x)
        states = self.materialize_states((x,), self._states(), "s")
        (spikes,), states = self.single_step_functional_forward((x,), states)
        self._keep(states)
        if self.store_v_seq:
            self.v_seq = appended(self.v_seq, states[0])
        return spikes

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        r"""Spikes of all steps at once, [T, N, \*]; the memories move on by T steps."""
        refuse_tracers(self, x_seq)
        states = self.materialize_states((x_seq,), self._states(), "m")
        if self.store_v_seq:
            spikes, self.v_seq, states = self._run_sequence(x_seq, states, record=True)
        else:
            (spikes,), states = self.multi_step_functional_forward((x_seq,), states)
        self._keep(states)
        return spikes

    def fuse(self, norm: FusedNorm) -> None:
        """Does the work of ``norm``, a batch norm that hands its input on to this neuron, from now on.

        The two then are one operator for whole sequences; step by step, and with a surrogate or a threshold
        that the operator does not know, one runs after the other. ``convert(fuse=True)`` calls this.
        """
        self._norm = (norm,)

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

    @property
    def _state_names(self) -> tuple[str, ...]:
        return ("v", "history") if self._carries == "history" else ("v",)

    def _keep(self, states: tuple[Tensor, ...]) -> None:
        for name, value in zip(self._state_names, states, strict=True):
            self._memories[name] = value

    def _normalized(self, x: Tensor) -> Tensor:
        return self._norm[0].normalized(x) if self._norm else x

    def _run_sequence(
        self, x_seq: Tensor, states: tuple[Tensor, ...], record: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """:meth:`_run`, after its batch norm or in one operator with it."""
        per_element = isinstance(self.v_threshold, Tensor) and self.v_threshold.dim() > 1
        known = isinstance(fused_surrogate(self.surrogate_function), Surrogate)
        if self._norm and known and not per_element and self._norm[0].takes(x_seq):
            return self._run(x_seq, states, record, self._norm[0].value())
        return self._run(self._normalized(x_seq), states, record)

    def _run(
        self, x_seq: Tensor, states: tuple[Tensor, ...], record: bool, norm: Norm | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Spikes [T, N, *], the potential (of every step if ``record``), and the new states."""
        if x_seq.dim() == 1:  # one lone neuron: the core wants a batch
            spikes, u, states = self._run(x_seq.unsqueeze(1), tuple(s.unsqueeze(-1) for s in states), record)
            return spikes.squeeze(1), u.squeeze(-1).clone(), tuple(s.squeeze(-1).clone() for s in states)
        threshold = self.v_threshold
        per_element = isinstance(threshold, Tensor) and threshold.dim() > 1
        if isinstance(threshold, Tensor) and threshold.dim() == 0:
            threshold = threshold.reshape(1)
        arguments = (self.kernel(), 0.0 if per_element else threshold, states[-1] if self._carries else None)
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
        if per_element:  # set_threshold_margin gives every sample and class its own
            spikes = self.surrogate_function(chunk.potential - threshold).to(x_seq.dtype)
        if self._carries == "v":
            return spikes, chunk.potential, (chunk.state,)
        # detach_() wants no view
        last = chunk.potential[-1].clone() if record or per_element else chunk.potential
        return spikes, chunk.potential, (last, chunk.state) if self._carries else (last,)


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():.4g}" if value.numel() == 1 else f"tensor{list(value.shape)}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
