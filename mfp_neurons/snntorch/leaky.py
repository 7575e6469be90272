"""MFPLeaky: the memory-free neuron that takes one step at a time, as snn.Leaky does."""

from dataclasses import replace
from typing import Any

import snntorch as snn
import torch
from torch import Tensor

from .._arguments import as_real
from .._checks import NO_BACKWARD, backward_pass, refuse_tracers
from .._reset import refuse_matrix
from ..spec import NeuronSpec, StateNames
from .memory_free import MemoryFree

_WRITTEN = -1  # a version that every tensor's is above
_NOT_ITS_OWN = (
    "mem is neither the one this neuron returned last, unchanged, nor zero. A kernel of finite order goes on "
    "from the last inputs and own spikes, which the neuron keeps, and cannot start from a potential. To end "
    "the sequences of some samples use mem = neuron.reset_samples(samples), or "
    "mfp_neurons.reset_samples(model, samples); to end all of them reset_mem(). Two states need two neurons. "
    "torch.utils.checkpoint goes back to an earlier mem: checkpoint whole sequences, from reset_mem() on, or "
    "use MFPLeakyParallel. DistributedDataParallel overwrites buffers unless broadcast_buffers=False."
)

_RECOMPUTED = (
    "a step is run again inside a backward pass, by torch.utils.checkpoint, and would start from the state "
    "that the last step left. Hand mem over (init_hidden=False), which an infinite order can start from; "
    "checkpoint whole sequences, from reset_mem() on; or use MFPLeakyParallel."
)


class MFPLeaky(MemoryFree, snn.Leaky):  # type: ignore[misc, name-defined]
    r"""Drop-in for ``snn.Leaky``: the same arguments, calls, returns, resets and checkpoint keys.

    .. math::
        mem[t] = \mathrm{clamp}(\beta, 0, 1) \, mem[t-1] + input[t] - reset[t], \qquad
        spk[t] = mem[t] > threshold

    computed as ``snn.Leaky`` computes it, except that the potential of a float16 or bfloat16 input is kept in
    float32. A kernel of finite ``order`` has no potential to reset. It keeps its last K - 1 inputs in the
    buffer ``history`` and, with a reset, its last R own spikes in ``last_spikes``; ``mem`` is then a reading
    of both. It equals snn.Leaky for the first K steps of a sequence, and forgets what is older.

    Under DistributedDataParallel pass ``broadcast_buffers=False``, as for snn.Leaky: the state is in buffers,
    and rank 0's would replace the others'. :class:`MFPLeakyParallel` has no such buffer.

    Args:
        beta: decay of the potential, clamped to [0, 1] when used; a number or any tensor that broadcasts over
            an input, such as (C,), (C, 1, 1) or one value a neuron.
        threshold: the neuron fires on mem > threshold; a number or a tensor, as ``beta``. With inf it never
            fires, is never reset, and passes no gradient through spk: a read-out of mem.
        spike_grad: a surrogate of ``snntorch.surrogate``, one of :mod:`mfp_neurons.surrogate` (these can be
            pickled), or any callable from mem - threshold to spikes. None is snnTorch's ATan. Its atan,
            fast_sigmoid and sigmoid are kept as those of this package, so that they can be pickled too.
        surrogate_disable: spikes without gradient, as in snn.Leaky.
        init_hidden: keep ``mem`` inside; it is then an error to pass one.
        inhibition: only the neuron of the largest potential may fire (dense layers).
        learn_beta, learn_threshold, learn_graded_spikes_factor: make these Parameters.
        reset_mechanism: snn.Leaky's "subtract" (the threshold, whatever the gain), "zero" and "none", with
            which all steps are free of one another; "feedback": R learned taps, which weigh the neuron's last
            own spikes, start at 0 and stand in ``feedback.taps`` [R], with ``num_channels`` [R, C], with
            ``groups`` [R, G]. kernel="matrix" takes "none" alone. It may be assigned, but not to or from
            "feedback", and a loaded checkpoint sets it to its own.
        state_quant: a function of ``snntorch.functional.quant`` that mem passes through at every step.
        output: return (spk, mem) also with ``init_hidden``.
        graded_spikes_factor: factor on the spikes.
        reset_delay: a spike resets the potential of the next step, and no gradient passes through that. With
            False it resets the ``mem`` that is returned with it. "subtract" takes False with an infinite
            order alone, since snn.Leaky then fires by more than the own spikes say. Without a reset, and for
            "feedback", it changes nothing.
        kernel: "exp"; "fir" (``order`` free taps that start as beta**j); "matrix" (free, T x T).
        order: K, how many steps an input is remembered; None for ever ("exp").
        time_steps: T, for "matrix" alone.
        num_channels: C, to give each channel (dim 1 of an input [N, C, \*]) a decay or taps of its own.
        groups: G, a divisor of C, to give one to each group of C / G neighbouring channels instead.
        kernel_bits: None, "pow2" or 2..8: the grid that the taps are snapped to.
        gain: factor on the input, a number or of the shape of beta; snn.Lapicque has one.
        reset_order: R, for "subtract" and "feedback" with an ``order``; None is as far back as the kernel
            reaches, K - 1. "subtract" takes threshold * beta**(j - 1) for a spike j steps ago.
        stride: steps from one tap to the next: the K taps lie at lags 0, stride, .., (K - 1) * stride.

    Shapes: ``input_`` and ``mem`` [N, \*], or any other; spk, in float32, and mem alike. Integers and
    booleans are read as torch's default dtype. A ``mem`` of another shape, such as the empty one that
    :meth:`reset_mem` gives before the first step, starts from zero.

    With a finite ``order`` a mem that is all zero starts anew, and one that was changed by hand is refused,
    in place too (but torch counts no writes to ``mem.data``, nor inside torch.compile): to end the sequences
    of some samples alone, use :meth:`reset_samples`. Copies and pickles take the state along, cut from its
    graph, and what ``torch.inference_mode`` left can be trained from.

    Returns:
        (spk, mem); spk alone with ``init_hidden=True, output=False``.

    Raises:
        ValueError: an unknown kernel or reset mechanism, or one that the other options leave no meaning,
            order < 1, NaN, or a ``mem`` that this neuron's finite history did not produce.
        TypeError: ``mem`` given in spite of ``init_hidden``, or an argument of the wrong kind.

    >>> import snntorch as snn
    >>> lif, leaky = MFPLeaky(beta=0.5, order=4), snn.Leaky(beta=0.5)
    >>> mem, expected = lif.reset_mem(), leaky.reset_mem()
    >>> for x in (0.5, 1.0, 0.25, 1.0):  # mem = 0.5, 1.25, 0.625 + 0.25 - 1, 1.0 - 0.0625
    ...     spk, mem = lif(torch.tensor([x]), mem)
    ...     spk, expected = leaky(torch.tensor([x]), expected)
    >>> mem, expected
    (tensor([0.9375]), tensor([0.9375]))
    """

    def neuron_spec(self) -> NeuronSpec:
        """What this neuron computes and keeps, for whoever reads a model."""
        spec = super().neuron_spec()
        history = ("history",) if self.is_finite else ()
        own = ("last_spikes",) if self.is_finite and spec.carried.spikes else ()
        return replace(
            spec,
            takes_sequences=False,
            continues=spec.carried.what != "nothing" or bool(own),
            state=StateNames(
                ("mem", *history, *own),
                potential="mem",
                history="history" if history else None,
                last_spikes="last_spikes" if own else None,
            ),
        )

    def _init_state(self) -> None:
        self._set_in = NO_BACKWARD  # the backward pass, by torch's number, in which mem was set from outside
        if self.is_finite:
            self.register_buffer("history", torch.zeros(0), persistent=False)
            self.register_buffer("last_spikes", torch.zeros(0), persistent=False)
            self._mem_version = 0  # what torch counts of writes into mem when it and history belong together

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "mem" and isinstance(value, Tensor):
            self._set(value)
        else:
            super().__setattr__(name, value)

    def _set(self, mem: Tensor) -> None:
        """snnTorch resets a neuron by setting its mem; and users cut it from a graph, or try to change it."""
        kept: tuple[Tensor, ...] = ()
        if self.is_finite and not torch.compiler.is_compiling():
            if self._is_own(mem) and not self._mem_was_written():
                kept = (self.history, self.last_spikes)
            elif bool(mem.any()):
                raise ValueError(_NOT_ITS_OWN)
        self._keep(mem, *kept)
        self._set_in = backward_pass()

    def _keep(self, mem: Tensor, history: Tensor | None = None, last_spikes: Tensor | None = None) -> None:
        """Sets the state: a potential, and the inputs and own spikes it stands for; None for the start."""
        self._buffers["mem"] = mem
        if self.is_finite:
            self.history = torch.zeros(0, device=mem.device) if history is None else history
            self.last_spikes = torch.zeros(0, device=mem.device) if last_spikes is None else last_spikes
            uncounted = torch.compiler.is_compiling() or mem.is_inference()
            self._mem_version = 0 if uncounted else mem._version

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which take the values of a state and leave its graph behind."""
        state = self.__dict__.copy()
        state["_buffers"] = {
            name: buffer if buffer is None or buffer.is_leaf else buffer.detach()
            for name, buffer in self._buffers.items()
        }
        if self.is_finite and self._mem_was_written():
            state["_mem_version"] = _WRITTEN
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.is_finite and self._mem_version != _WRITTEN:
            self._mem_version = self.mem._version

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        refuse_tracers(self, input_)
        self._refuse_mem(mem)
        with self._in_normal_mode():
            return self._returned(*self._step(as_real("input_", input_), mem))

    def _step(self, x: Tensor, mem: Tensor | None) -> tuple[Tensor, Tensor]:
        """Spikes and potential after x; the state is kept."""
        # A forward inside a backward pass is a checkpoint that runs a step again. Handed no mem, it would go
        # on from the last step's; a reset within that same backward pass makes it a sequence from rest.
        if mem is None and self.mem.shape == x.shape and backward_pass() not in (NO_BACKWARD, self._set_in):
            raise RuntimeError(_RECOMPUTED)
        if self.is_finite:
            spk, new, *kept = self._finite_step(x, *self._own_state(x, mem))
            self._keep(new, *kept)
        else:
            spk, new = self._leaky_step(x, self.mem if mem is None else mem)
            self._keep(new)
        return spk, new

    def reset_mem(self) -> Tensor:
        """Starts all sequences anew; the potential, zero now, as snn.Leaky returns it."""
        with self._in_normal_mode():
            self._keep(torch.zeros_like(self.mem))
        self._set_in = backward_pass()
        return self.mem

    def _zero(self, ended: Tensor) -> None:
        if not self.is_finite:
            super()._zero(ended)
            return
        if self._mem_was_written():
            raise ValueError(_NOT_ITS_OWN)
        if self.kernel.kind == "matrix" and len(self.history):
            refuse_matrix("reset_mem()")
        kept = (one.masked_fill(ended, 0) if len(one) else one for one in (self.history, self.last_spikes))
        self._keep(self.mem.masked_fill(ended, 0), *kept)

    def _forget_own_spikes(self) -> None:
        if self.is_finite:
            self.last_spikes = torch.zeros(0, device=self.mem.device)

    def detach_state(self) -> None:
        """Cuts mem, and the inputs and own spikes kept by a finite kernel, from the graph; values stay."""
        self.mem = self.mem.detach()
        if self.is_finite:
            self.history, self.last_spikes = self.history.detach(), self.last_spikes.detach()

    def _own_state(self, x: Tensor, mem: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The inputs and own spikes that ``mem`` (None: the neuron's own) stands for; None at rest."""
        mem = self.mem if mem is None else mem
        if not self._continues(mem, x):
            return None, None

        def kept(steps: Tensor) -> Tensor | None:
            if len(steps) == 0 or steps.shape[1:] != x.shape:
                return None
            return steps if mem.requires_grad else steps.detach()  # as detach_hidden() left mem

        return kept(self.history), kept(self.last_spikes)

    @property
    def _remembers(self) -> bool:
        """Whether a step depends on earlier ones, or on how many there were."""
        return self.kernel.kind == "matrix" or self.kernel.state_steps != 0 or self._own_steps != 0

    def init_lapicque(self) -> Tensor:
        """``reset_mem`` by the older name that snn.Lapicque has for it; ``init_leaky`` is snn.Leaky's."""
        mem: Tensor = self.reset_mem()
        return mem

    def _continues(self, mem: Tensor, x: Tensor) -> bool:
        """Whether ``mem`` is where this neuron's history stands; False at a start, ValueError for neither."""
        if mem.shape != x.shape:
            return False  # as snn.Leaky
        if self._is_own(mem) and (torch.compiler.is_compiling() or not self._mem_was_written()):
            return True
        if not bool(mem.any() if self._remembers else mem.isnan().any()):
            return False
        raise ValueError(_NOT_ITS_OWN)

    def _is_own(self, mem: Tensor) -> bool:
        """Whether ``mem`` is the potential that stands in this neuron, perhaps cut from its graph."""
        own = self.mem
        if mem is own:
            return True
        # mem.detach() is another tensor over the same memory; what it holds is checked by _mem_was_written
        if torch.compiler.is_compiling() or mem.dtype != own.dtype or mem.shape != own.shape:
            return False
        return mem.stride() == own.stride() and mem.data_ptr() == own.data_ptr()

    def _mem_was_written(self) -> bool:
        """Whether mem was, or may have been, changed in place since it was computed (not in mem.data)."""
        return self.mem.is_inference() or self.mem._version > self._mem_version
