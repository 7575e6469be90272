"""What a neuron is, as a value: every reader of a model takes this in place of class names and attributes.

A neuron of this package gives its :class:`NeuronSpec` by the method ``neuron_spec()``; for the frameworks'
own neurons the adapters do. :func:`mfp_neurons.adapters.describe_neuron` asks the one or the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from .history import FIR, Exponential, Kernel, KernelBits


class KernelOptions(TypedDict, total=False):
    """Keyword arguments that all neurons have in common; see :class:`mfp_neurons.neuron.HistoryKernel`."""

    kernel: str
    order: int | None
    time_steps: int | None
    num_channels: int | None
    groups: int | None
    kernel_bits: KernelBits
    stride: int


class KernelParameters:
    """What a neuron's history kernel depends on: options, and numbers or trained parameters.

    Calling it gives the kernel's value as it is now, an ``Exponential``, ``FIR`` or ``Matrix`` that is
    quantized if asked and differentiable in the parameters. The options are those of
    :class:`mfp_neurons.neuron.HistoryKernel`, whose docstring explains them.
    """

    kind: str
    order: int | None
    time_steps: int | None
    learnable: bool
    num_channels: int | None
    groups: int | None = None
    kernel_bits: KernelBits
    stride: int

    def __call__(self) -> Kernel:
        raise NotImplementedError

    def exponential(self) -> Exponential:
        """The exponential with its decay and gain as they are now; for "fir" and "matrix" their start."""
        raise NotImplementedError

    @property
    def gain_follows_decay(self) -> bool:
        """Whether the gain is 1 - decay and changes with it, as of LIFNode's ``decay_input``."""
        return False

    @property
    def parameter_sets(self) -> int | None:
        """How many tap sets or decays there are: G, or C without ``groups``; None: one for the layer."""
        return self.num_channels if self.groups is None else self.groups

    def over_channels(self, values: Tensor) -> Tensor:
        """Values [G] or [K, G] of groups as [C] or [K, C], each repeated for the channels of its group.

        One column serves every channel as it is, and without ``groups`` so do all columns.
        """
        if self.groups is None or values.shape[-1] == 1:
            return values
        assert self.num_channels is not None
        return values.repeat_interleave(self.num_channels // self.groups, -1)

    def _quantized_exponential(self) -> Exponential | FIR:
        """The value of an "exp" kernel: a recursion, or taps where they are quantized or lie apart."""
        exponential = self.exponential()
        if self.order is None or (self.kernel_bits is None and self.stride == 1):
            # with kernel_bits and no order the constructor made sure of power-of-two taps
            return exponential
        return exponential.truncated(self.stride, self.kernel_bits)

    @property
    def state_steps(self) -> int | None:
        """How many past inputs a step needs: as far back as the last tap lies, (K - 1) * stride; T - 1 for an
        unbanded matrix; None for all of them."""
        if self.order is not None:
            return (self.order - 1) * self.stride
        return None if self.time_steps is None else self.time_steps - 1

    @property
    def num_taps(self) -> int | None:
        """K, the number of taps; of an unbanded matrix T; None for all of them."""
        return self.time_steps if self.order is None else self.order

    def carried(self) -> "Carried":
        """What a step of this kernel needs of the steps before it."""
        if self.kind == "matrix":  # also where it is in the sequence
            return Carried("all inputs", self.state_steps)
        if self.state_steps is None:
            return Carried("potential")
        return Carried("inputs", self.state_steps) if self.state_steps else Carried("nothing", 0)

    def options(self) -> dict[str, Any]:
        """The options that are not at their defaults, by name, for a repr; kind and learnable apart."""
        named = {
            "order": self.order,
            "time_steps": self.time_steps,
            "num_channels": self.num_channels,
            "groups": self.groups,
            "kernel_bits": self.kernel_bits,
            "stride": None if self.stride == 1 else self.stride,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Carried:
    """What one step of a neuron needs of the steps before it.

    Attributes:
        what: "nothing"; the last "potential"; the last "inputs"; or "all inputs" since the start, because
            each step has weights of its own.
        steps: how many past inputs weigh in; None for all of them, of which a potential may be the sum.
        bits: of one value; None where it has the bits of its dtype.
        spikes: how many of the neuron's own last spikes weigh in; 1 beside a potential that is reset.
    """

    what: Literal["nothing", "potential", "inputs", "all inputs"]
    steps: int | None = None
    bits: int | None = None
    spikes: int = 0


@dataclass(frozen=True)
class StateNames:
    """Attributes in which a neuron module keeps its state between calls, where it has them.

    Attributes:
        all: every one of them.
        potential: that of the last step.
        history: the past inputs, oldest first.
        last_spikes: its own last spikes, oldest first.
        record: the potential of every step, kept for the user alone.
    """

    all: tuple[str, ...] = ()
    potential: str | None = None
    history: str | None = None
    record: str | None = None
    last_spikes: str | None = None


@dataclass(frozen=True, eq=False)
class ResetSpec:
    r"""What a neuron's own spikes change.

    Attributes:
        kind: "subtract": the potential loses the threshold, and this loss decays. "zero": the sum over the
            inputs stops at the last own spike. "feedback": learned taps weigh the own spikes.
        order: R, how many of its own last spikes count; None for all of them, in a recursion.
        taps: r[1] .. r[R] as they are now, [R] or [R, C], with their sign and on their grid; None for "zero",
            and where ``order`` is None.
        delay: a subtracted threshold decays from the second step on only, as in ``snn.Leaky``.
        detach: no gradient passes through the spikes that are fed back.
        rest: the potential at rest and after a hard reset; the sum over the inputs counts from it.
    """

    kind: Literal["subtract", "zero", "feedback"]
    order: int | None = None
    taps: Tensor | None = None
    delay: bool = False
    detach: bool = False
    rest: float = 0.0


@dataclass(frozen=True)
class StepOperations:
    """What one neuron computes in a step, beside its synapses; what a spike takes away is left out.

    Attributes:
        additions: of potentials, and comparisons.
        multiplications: of potentials by decays.
        bits: of a potential; None for floats.
    """

    additions: int
    multiplications: int
    bits: int | None = None


@dataclass(frozen=True, eq=False)
class NeuronSpec:
    r"""What a layer of neurons computes and keeps, as it is now.

    Attributes:
        kernel: the history kernel: with these weights past inputs add up to the potential, before what
            ``reset`` says. None for a neuron that does more, which no description of a network holds.
        reset: what the neuron's own spikes change; None for nothing.
        carried: what a step needs of the steps before it.
        threshold: in the units of the input; inf never fires. None where there is none, as in SpikingJelly's
            PSN, which has a bias.
        surrogate: from u - threshold to spikes. None where there is none.
        surrogate_argument: what the neuron's class calls it.
        strict: whether it fires on u > threshold alone, not on equality; None where ``surrogate`` decides.
        kernel_shape, threshold_shape: the shape in which the values of kernel and threshold broadcast over a
            step [N, \*], as PyTorch broadcasts. None: there is one value, or one a channel, dim 1 of a step.
        takes_sequences: a call takes a whole sequence [T, N, \*], not one step [N, \*].
        step_mode: SpikingJelly's switch between the two, "s" or "m"; None where the class decides.
        continues: a call goes on from where the call before it ended, unless the state is reset.
        state: where it keeps its state.
        returns_potential: a call returns (spikes, potential), not the spikes alone.
        spike_factor: what spikes are multiplied by; None for 1.
        rounds_potential: the potential passes through a function of the user's at every step.
        inhibition: only the neuron with the largest potential fires.
        stores_potential: it is one of a framework's own, which stores its potential whatever would give it.
        recurrent: the layer inside of it that adds its own spikes of the step before to its input.
        leaves_reset: the potential that it shows is what a reset left of it, not what met the threshold.
        decays: parameters and buffers of the module that a device keeps in 8 bits each: learned decays, or
            what they follow from.
        numbers: those that it keeps in 16 bits each, beside ``threshold`` and ``spike_factor``: scales of
            codes. All that is not named, but taps on a grid, counts as it is stored.
        operations: of a step, where ``kernel`` is None and they are not a decay, an addition and a comparison
            for a carried potential.
    """

    kernel: KernelParameters | None
    carried: Carried
    threshold: Tensor | float | None
    surrogate: Callable[[Tensor], Tensor] | None
    surrogate_argument: str = "surrogate"
    strict: bool | None = None
    kernel_shape: tuple[int, ...] | None = None
    threshold_shape: tuple[int, ...] | None = None
    takes_sequences: bool = True
    step_mode: str | None = None
    continues: bool = False
    state: StateNames = StateNames()
    returns_potential: bool = False
    spike_factor: Tensor | None = None
    rounds_potential: bool = False
    inhibition: bool = False
    reset: ResetSpec | None = None
    stores_potential: bool = False
    recurrent: nn.Module | None = None
    leaves_reset: bool = False
    decays: tuple[Tensor, ...] = ()
    numbers: tuple[Tensor, ...] = ()
    operations: StepOperations | None = None

    @property
    def keeps_potential(self) -> bool:
        """Whether a step needs a stored potential: its last inputs and own spikes do not give it."""
        if self.kernel is None or self.stores_potential:
            return self.carried.what == "potential"
        # without a reset the inputs so far give it; a reset that never ends needs all own spikes as well
        return self.reset is not None and self.kernel.state_steps is None

    @property
    def is_memory_free(self) -> bool:
        """Whether its last inputs, which follow from spikes, and its own last spikes give its potential."""
        return self.kernel is not None and not self.keeps_potential

    @property
    def never_fires(self) -> bool:
        """Whether no potential reaches the threshold: a read-out, whose potential is used."""
        return self.threshold is not None and bool((torch.as_tensor(self.threshold) == torch.inf).all())

    def fires_above_only(self) -> bool:
        """Whether a potential that equals the threshold fires no spike.

        Raises:
            ValueError: ``surrogate`` gives something else than spikes of 0 and 1.
        """
        if self.strict is not None:
            return self.strict
        fire = self.surrogate
        assert fire is not None
        # Two potentials below the threshold, one that equals it and two above it, far from it and near.
        below, on, above = fire(torch.tensor([-1.0, -1e-3, 0.0, 1e-3, 1.0])).split([2, 1, 2])
        if bool((below != 0).any() or (above != 1).any() or on.item() not in (0, 1)):
            raise ValueError(f"does not fire spikes of 0 and 1 ({self.surrogate_argument}={fire!r})")
        return on.item() == 0


@dataclass(frozen=True, eq=False)
class RecurrenceSpec:
    """How a container adds its neuron's spikes of the step before to its input.

    Attributes:
        neuron: the module whose output comes back; it takes single steps.
        linear: the layer over input and last spikes side by side, whose result the neuron gets.
        combine: without a layer: the function of last spikes and input that the neuron gets.
        step_mode: "s" for a call a step, "m" for whole sequences.
        last_spikes: what a call left in the container; None at rest.
    """

    neuron: nn.Module
    linear: nn.Linear | None
    combine: Callable[[Any, Any], Any] | None
    step_mode: str
    last_spikes: Any
