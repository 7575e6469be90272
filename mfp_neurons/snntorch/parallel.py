"""MFPLeakyParallel: the memory-free neuron that takes a whole sequence at once."""

from typing import Any

import torch
from torch import Tensor

from .. import functional
from .. import surrogate as fused
from .._arguments import as_real
from .._checks import describe, is_exporting, log_once, refuse_tracers
from .memory_free import MemoryFree, is_one
from .surrogates import StrictSpike

_NO_INHIBITION = "MFPLeakyParallel has no inhibition; MFPLeaky has, step by step"


class MFPLeakyParallel(MemoryFree):
    r""":class:`MFPLeaky` over a whole sequence [T, B, \*] in one call: no loop over time, no state kept.

    Equal to T calls of :class:`MFPLeaky`; the potential decays by beta**t (``snn.StateLeaky`` decays by
    exp(-t (1 - beta))). Every call starts from zero unless it is given a ``mem``. A reset makes a step wait
    for the spikes of the one before it, inside one operator. It runs step by step, and the log says so once,
    with ``reset_mechanism="subtract", reset_delay=False``; with a spike_grad that the operator does not know,
    ``surrogate_disable`` or ``state_quant``; and from a ``mem`` above the threshold with "zero" and
    ``reset_delay=False``, which only a user writes (torch.compile does not look at it).

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
            potential to start from (put the last K - 1 inputs in front of the sequence instead; with a reset
            give the whole sequence).
        TypeError: ``mem`` given in spite of ``init_hidden``, or an argument of the wrong kind.
        NotImplementedError: inhibition, or state_quant with an infinite kernel.

    >>> x = torch.tensor([0.5, 1.0, 0.25, 1.0]).reshape(4, 1)
    >>> spk, mem = MFPLeakyParallel(beta=0.5)(x)
    >>> spk.flatten(), mem.flatten()
    (tensor([0., 1., 0., 0.]), tensor([ 0.5000,  1.2500, -0.1250,  0.9375]))
    >>> MFPLeakyParallel(beta=0.5, reset_mechanism="none")(x)[1].flatten()
    tensor([0.5000, 1.2500, 0.8750, 1.4375])
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
        refuse_tracers(self, input_)
        self._refuse_mem(mem)
        x = as_real("input_", input_)
        if x.dim() < 2 or x.shape[0] == 0:
            raise ValueError(f"input_ must be [T, B, *] with T >= 1, got shape {list(x.shape)}")
        steps = self.kernel.time_steps
        if steps is not None and x.shape[0] != steps:
            raise ValueError(
                f"a matrix kernel of {steps} steps takes input_ of T = {steps}, got T = {x.shape[0]}"
            )
        with self._in_normal_mode():
            start = self._start(mem, x)
            run = self._run_step_by_step if self._is_serial(start) else self._run
            spk, potential = run(x, start)
            # a copy: a view of one step would keep the potentials of all steps alive
            self.mem = potential[-1].detach().clone()
        return self._returned(spk, potential)

    def _run(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Spikes and potential; the last step's [1, B, *] where no other is asked for."""
        steps = None if is_exporting() else x.shape[0]  # an exported T can be any
        (view, kernel, threshold, _), reset = self._operands(x.shape[1:], steps)
        inputs = x.reshape(x.shape[0], *view)
        own = None
        if state is not None:
            if reset and self.reset_delay:  # the step before state fired where it lies above the threshold
                own = self.mem_reset(state).reshape(1, *view)
            state = state.reshape(view)
        surrogate = self._fused_surrogate()
        if surrogate is None:  # the spikes are those of a function that has to see every potential
            potential = functional.potential(inputs, kernel, state).reshape(x.shape)
            potential = self.state_quant(potential) if self.state_quant else potential
            return self.fire(potential), potential
        # potentials that nobody gets are not written: they would be as large as the spikes
        record = self.output or not self.init_hidden
        chunk = functional.fire_chunk(
            inputs, kernel, threshold, state, last_spikes=own, surrogate=surrogate, strict=True,
            record=record, **reset,
        )  # fmt: skip
        spk = chunk.spikes.reshape(x.shape).float()
        potential = chunk.potential.reshape(x.shape if record else (1, *x.shape[1:]))
        if self.feedback.kind == "zero" and not self.reset_delay:
            potential = potential - spk[-len(potential) :] * potential
        if not is_one(self.graded_spikes_factor):
            spk = spk * self.graded_spikes_factor
        return spk, potential

    def _is_serial(self, start: Tensor | None) -> bool:
        """Whether a reset asks for one step after the other in stock operators."""
        reset = self.feedback.kind
        if reset is None:
            return False
        if self._resets_twice:
            why = "reset_mechanism='subtract' with reset_delay=False, whose resets no own spike says"
        elif self._fused_surrogate() is None:
            why = "a reset after spikes that have to be decided outside the fused operator"
        elif reset == "zero" and not self.reset_delay and start is not None and self._is_above(start):
            why = "a mem above the threshold with reset_delay=False, which no call of the neuron returns"
        else:
            return False
        log_once(
            f"snntorch.serial.{why}",
            f"MFPLeakyParallel runs one step after the other in stock operators, much slower, for {why}.",
        )
        return True

    def _is_above(self, mem: Tensor) -> bool:
        is_captured = mem.is_cuda and torch.cuda.is_current_stream_capturing()
        if torch.compiler.is_compiling() or mem.device.type == "meta" or is_captured:
            return False  # what cannot be looked at is taken for a mem that the neuron returned
        return bool((mem > self.threshold).any())

    def _run_step_by_step(self, x: Tensor, mem: Tensor | None) -> tuple[Tensor, Tensor]:
        rows, history, own = [], None, None
        mem = torch.zeros(0, device=x.device) if mem is None else mem
        for step in x:
            if self.is_finite:
                spk, mem, history, own = self._finite_step(step, history, own)
            else:
                spk, mem = self._leaky_step(step, mem)
            rows.append((spk, mem))
        spikes, potentials = zip(*rows, strict=True)
        return torch.stack(spikes), torch.stack(potentials)

    def _start(self, mem: Tensor | None, x: Tensor) -> Tensor | None:
        if mem is None or mem.numel() == 0:
            return None
        if self.is_finite:
            cure = (
                "put the last K - 1 inputs in front of input_ (dropping their outputs)"
                if self.feedback.kind is None
                else "give the whole sequence, or take MFPLeaky, which keeps its inputs and own spikes"
            )
            raise ValueError(
                f"a kernel of finite order has no potential to start from: pass no mem, and {cure}"
            )
        if mem.shape != x.shape[1:]:
            raise ValueError(f"mem must be a step {list(x.shape[1:])} of input_, got {describe(mem)}")
        return mem.to(torch.promote_types(x.dtype, torch.float32))

    def _fused_surrogate(self) -> fused.Surrogate | None:
        """The surrogate to run inside the operator; None where something has to see the potential first."""
        if self.surrogate_disable or self.state_quant:
            return None
        if not isinstance(self.spike_grad, StrictSpike):  # a function of the user's, which stays what it is
            name = getattr(self.spike_grad, "__qualname__", type(self.spike_grad).__qualname__)
            log_once(
                f"snntorch.unfused.{name}",
                f"spike_grad {name} is called outside the fused operator: same results, slower, and the "
                "potential is kept for backward. atan, fast_sigmoid and sigmoid of snntorch.surrogate run "
                "inside it, and so do the classes of mfp_neurons.surrogate.",
            )
            return None
        return self.spike_grad.surrogate

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
