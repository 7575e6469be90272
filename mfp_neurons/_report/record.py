"""The report: its rows, its totals, its table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

# 32-bit floating point in 45 nm: Horowitz, "Computing's energy problem (and what we can do about it)",
# ISSCC 2014: 3.7 pJ a multiplication and 0.9 pJ an addition
MAC_JOULES = 4.6e-12
AC_JOULES = 0.9e-12


@dataclass(frozen=True)
class SynapseRow:
    """A layer of synapses. Operations are those of one sample over all steps."""

    name: str
    kind: str
    weights: int
    bits: float  # a weight
    packed_bytes: int  # codes and scales
    stored_bytes: int
    spikes_in: bool  # whether all it received were spikes (0, 1 or -1)
    synaptic_operations: float
    streaming_synaptic_operations: float
    macs: float


@dataclass(frozen=True)
class NeuronRow:
    """A layer of neurons. Spikes are those of one sample; None where the output is not a spike train."""

    name: str
    kind: str
    neurons: int
    steps: int
    state_bits_per_neuron: float
    torch_state_bytes: int
    spikes_per_step: float | None
    firing_rate: float | None


@dataclass(frozen=True)
class StateRow:
    """Values kept between two steps, for one sample: ``steps`` past ones of each, of ``bits`` bits."""

    of: str
    what: str
    values: int
    bits_per_value: int
    steps: int
    needed_by: tuple[str, ...]

    @property
    def bits(self) -> int:
        return self.values * self.bits_per_value * self.steps


@dataclass(frozen=True)
class Report:
    """What a model on an input costs. ``str()`` gives the table, :meth:`as_dict` plain data.

    State, spikes, operations and energy are those of one sample (the mean of the batch), operations and
    energy over all its steps; weights are the model's; activation bytes are the whole batch's.

    Attributes:
        steps, batch: T and N, as the neurons saw them.
        weight_bytes: Packed: codes, scales, and every other parameter and persistent buffer as stored.
        weight_bytes_stored: All parameters and persistent buffers as they lie in memory now.
        state_bits: What a device that runs step by step keeps between two steps (the rows of ``state``).
        state_bits_per_neuron: The mean over neurons of K-1 for a memory-free neuron of order K (T for an
            infinite one) and of the potential's bits for others. It counts the order of each layer for
            its own neurons; ``state_bits`` counts what is really kept, for the neurons before it.
        torch_state_bytes: What PyTorch keeps in step-by-step mode: float potentials and past inputs.
        peak_activation_bytes: The most bytes that tensors made by the run held at once, in inference. Memory
            that an operator uses inside itself is not in it.
        spikes_per_step: Spikes of all layers in a step.
        synaptic_operations: One for each spike through each synapse of non-zero weight (accumulate: AC).
        streaming_synaptic_operations: The same where nothing but past spikes is kept: a spike that a layer
            of order K remembers goes through its synapses again at each of the K-1 steps that follow (of a
            strided one, at those that have a tap).
        macs: One for each real value, zeros included, through each synapse of non-zero weight. Padding does
            not count.
        energy_joules: An estimate, for all steps at once: 4.6 pJ a MAC and 0.9 pJ a synaptic operation, the
            45 nm prices of 32-bit floats, also where weights have few bits and additions cost less.
            Normalization, neurons and memory access are not included.
        synapses, neurons, state: The rows.
        not_counted: Name of each module that could not be counted, and the reason.
    """

    steps: int
    batch: int
    weight_bytes: int
    weight_bytes_stored: int
    state_bits_per_neuron: float
    peak_activation_bytes: int
    synapses: Sequence[SynapseRow]
    neurons: Sequence[NeuronRow]
    state: Sequence[StateRow]
    not_counted: dict[str, str]

    @property
    def state_bits(self) -> int:
        return sum(row.bits for row in self.state)

    @property
    def torch_state_bytes(self) -> int:
        return sum(row.torch_state_bytes for row in self.neurons)

    @property
    def spikes_per_step(self) -> float:
        return sum(row.spikes_per_step or 0.0 for row in self.neurons)

    @property
    def synaptic_operations(self) -> float:
        return sum(row.synaptic_operations for row in self.synapses)

    @property
    def streaming_synaptic_operations(self) -> float:
        return sum(row.streaming_synaptic_operations for row in self.synapses)

    @property
    def macs(self) -> float:
        return sum(row.macs for row in self.synapses)

    @property
    def energy_joules(self) -> float:
        return MAC_JOULES * self.macs + AC_JOULES * self.synaptic_operations

    def as_dict(self) -> dict[str, Any]:
        """Everything above as numbers, strings, lists and dicts: ready for JSON."""
        fields = asdict(self)
        rows = {name: list(fields.pop(name)) for name in ("synapses", "neurons", "state")}
        for row, source in zip(rows["state"], self.state, strict=True):
            row["needed_by"] = list(row["needed_by"])
            row["bits"] = source.bits
        not_counted = fields.pop("not_counted")
        totals = (
            "state_bits",
            "torch_state_bytes",
            "spikes_per_step",
            "synaptic_operations",
            "streaming_synaptic_operations",
            "macs",
            "energy_joules",
        )
        return fields | {name: getattr(self, name) for name in totals} | rows | {"not_counted": not_counted}

    def __str__(self) -> str:
        from .table import table

        return table(self)
