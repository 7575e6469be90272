"""The neuron that takes one step at a time."""

from typing import Any

import snntorch as snn
import torch
from torch import Tensor

from .. import functional
from .._checks import refuse_tracers
from ..history import Matrix
from .arguments import as_real_input
from .memory_free import MemoryFree
from .operands import spread_over


class MFPLeaky(MemoryFree, snn.Leaky):  # type: ignore[misc, name-defined]
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
        refuse_tracers(self, input_)
        self._refuse_mem(mem)
        x = as_real_input(input_)
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
            spread = self._spread(x.dim())
            beta = spread_over(beta, spread, x.dim())
            gain = spread_over(gain, spread, x.dim()) if isinstance(gain, Tensor) else gain
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

    def init_lapicque(self) -> Tensor:
        """``reset_mem`` by the older name that snn.Lapicque has for it; ``init_leaky`` is snn.Leaky's."""
        mem: Tensor = self.reset_mem()
        return mem

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
