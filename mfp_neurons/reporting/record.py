"""The report as data and as text: a row for each layer, totals over the rows, and a table of both."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

HARDLY_FIRING = 0.02  # spikes a neuron and step below which a layer hardly fires


@dataclass(frozen=True)
class SynapseRow:
    """A layer of synapses. Operations, and their energy, are those of one sample over all steps."""

    name: str
    kind: str
    weights: int
    bits: float  # a weight
    packed_bytes: int  # codes, and scales that no batch norm takes into its gain
    stored_bytes: int
    spikes_in: bool  # whether all it received were spikes (0, 1 or -1)
    input_bits: int  # of a value that it received; 8 at most where all are multiples of one step
    synaptic_operations: float
    streaming_synaptic_operations: float
    macs: float
    streaming_macs: float
    joules: float
    streaming_joules: float


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
    never_fires: bool = False  # by design: its threshold is infinite, and its potential is read
    feedback_bits: float = 0.0  # of the state bits, own spikes that no other layer keeps
    feedback_additions: float = 0.0  # over all steps, as all that follows
    neuron_operations: float = 0.0
    streaming_neuron_operations: float = 0.0
    joules: float = 0.0
    streaming_joules: float = 0.0

    @property
    def hardly_fires(self) -> bool:
        return self.firing_rate is not None and self.firing_rate < HARDLY_FIRING and not self.never_fires


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
        weight_bytes: Packed, as a device needs them: quantized weights are codes, with 16 bits for a scale
            and for a bias. Batch norms are folded: behind quantized weights a gain and an offset of 16 bits
            for each channel, which take scale and bias into them; behind float weights one float bias.
            Learned decays take 8 bits, thresholds 16, taps on a grid its bits; all else is as stored. What a
            network that can be lowered really takes, thresholds of each step included, ``memory()`` of
            :func:`mfp_neurons.deploy.lower` says.
        weight_bytes_stored: All parameters and persistent buffers as they lie in memory now.
        state_bits: What a device that runs step by step keeps between two steps (the rows of ``state``).
        state_bits_per_neuron: The mean over neurons of K-1 for a memory-free neuron of order K (T for an
            infinite one), and what its own spikes need beyond what the next layer keeps of them; and of the
            potential's bits for others. It counts the order of each layer for
            its own neurons; ``state_bits`` counts what is really kept, for the neurons before it.
        torch_state_bytes: What PyTorch keeps in step-by-step mode: float potentials and past inputs.
        peak_activation_bytes: The most bytes that tensors made by the run held at once, in inference. Memory
            that an operator uses inside itself is not in it.
        spikes_per_step: Spikes of all layers in a step.
        hardly_fire: Names of the layers of neurons that fire at less than 2 % of their steps, so that little
            gets through them; those with an infinite threshold left out.
        synaptic_operations: One for each spike through each synapse of non-zero weight (accumulate: AC).
        macs: One for each real value, zeros included, through each synapse of non-zero weight. Padding does
            not count.
        streaming_synaptic_operations, streaming_macs: The same step by step, with nothing kept but what
            ``state`` lists. Where that is spikes, one that a layer of order K remembers goes through its
            synapses again at each of the K-1 steps that follow (of a strided one, at those that have a tap).
            Where all neurons of a layer, or of each of G groups of its channels, have one tap set, a device
            may add up the last spikes of each presynaptic neuron first, and send each such *trace* that is
            not zero once; what takes less energy is counted. Real inputs that are kept repeat their products
            likewise; where a neuron's own inputs are kept instead, nothing is repeated.
        neuron_operations: What neurons compute: at each step a decay and an addition of a potential, or a
            product for each tap; a comparison with the threshold; and ``feedback_additions`` of memory-free
            neurons; or what a neuron of another kind says in its ``neuron_spec().operations``. What resets a
            potential is left out.
        streaming_neuron_operations: The same step by step, where the neurons of a layer whose presynaptic
            traces are added up have no taps of their own; adding up the traces counts here.
        feedback_additions: One for each own spike of a neuron with a reset or feedback and each tap that it
            meets afterwards. A reset to zero adds nothing.
        energy_joules, streaming_energy_joules: An estimate, all steps at once and step by step: the
            operations above, priced by their bits, at 45 nm and 0.9 V (Horowitz, ISSCC 2014; the figures are
            in ``mfp_neurons.reporting.prices``). In pJ: a synaptic operation 0.1 with a weight of up to 8
            bits, 0.9 with a float. A MAC 0.3 with weight and input of up to 8 bits, 4.6 with a float; with a
            weight of less than 2 bits an addition, 0.1 or 0.9. A trace is an input of as many bits as its sum
            takes.
            A neuron and step: a float potential 5.5 (decay, addition, comparison), one of few bits 0.4; a tap
            that is a power of two 0.1, one of n bits 0.3, a real one 4.6; a comparison, and an own spike that
            comes back to a tap, 0.1, and 0.9 where the neuron adds floats. Memory access and normalization
            are not included.
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
    def hardly_fire(self) -> list[str]:
        return [row.name for row in self.neurons if row.hardly_fires]

    @property
    def synaptic_operations(self) -> float:
        return sum(row.synaptic_operations for row in self.synapses)

    @property
    def streaming_synaptic_operations(self) -> float:
        return sum(row.streaming_synaptic_operations for row in self.synapses)

    @property
    def feedback_additions(self) -> float:
        return sum(row.feedback_additions for row in self.neurons)

    @property
    def macs(self) -> float:
        return sum(row.macs for row in self.synapses)

    @property
    def streaming_macs(self) -> float:
        return sum(row.streaming_macs for row in self.synapses)

    @property
    def neuron_operations(self) -> float:
        return sum(row.neuron_operations for row in self.neurons)

    @property
    def streaming_neuron_operations(self) -> float:
        return sum(row.streaming_neuron_operations for row in self.neurons)

    @property
    def energy_joules(self) -> float:
        return sum(row.joules for row in self.synapses) + sum(row.joules for row in self.neurons)

    @property
    def streaming_energy_joules(self) -> float:
        neurons = sum(row.streaming_joules for row in self.neurons)
        return sum(row.streaming_joules for row in self.synapses) + neurons

    def as_dict(self) -> dict[str, Any]:
        """Everything above as numbers, strings, lists and dicts: ready for JSON."""
        fields = asdict(self)
        # The rows are taken out and put behind the totals, so that whoever reads the file meets the summary
        # first.
        rows = {name: list(fields.pop(name)) for name in ("synapses", "neurons", "state")}
        for row, source in zip(rows["state"], self.state, strict=True):
            row["needed_by"] = list(row["needed_by"])
            # This is a property, and asdict copies fields alone.
            row["bits"] = source.bits
        not_counted = fields.pop("not_counted")
        totals = (
            "state_bits",
            "torch_state_bytes",
            "spikes_per_step",
            "hardly_fire",
            "synaptic_operations",
            "streaming_synaptic_operations",
            "macs",
            "streaming_macs",
            "neuron_operations",
            "streaming_neuron_operations",
            "feedback_additions",
            "energy_joules",
            "streaming_energy_joules",
        )
        return fields | {name: getattr(self, name) for name in totals} | rows | {"not_counted": not_counted}

    def __str__(self) -> str:
        """Layers, then what is kept between steps, then totals, then what to look at."""
        parts = [
            _grid(_SYNAPSE_COLUMNS, self.synapses),
            _grid(_NEURON_COLUMNS, self.neurons),
            _grid(_STATE_COLUMNS, self.state),
            "\n".join(f"{name:<34}{value}" for name, value in _totals(self)),
        ]
        if self.hardly_fire:
            parts.append(
                f"hardly fire (less than {HARDLY_FIRING:.0%} of their steps): {', '.join(self.hardly_fire)}\n"
                "  little gets through them: lower their threshold, or normalize in front of them"
            )
        if self.not_counted:
            reasons = (f"  {name}: {reason}" for name, reason in self.not_counted.items())
            parts.append("\n".join(["not counted", *reasons]))
        return "\n\n".join(part for part in parts if part)


Columns = dict[str, Callable[[Any], str]]  # header: what stands in a row's cell

_ENERGY: Columns = {
    "energy": lambda row: _joules(row.joules),
    "streaming": lambda row: _joules(row.streaming_joules),
}
_SYNAPSE_COLUMNS: Columns = {
    "synapses": lambda row: row.name,
    "kind": lambda row: row.kind,
    "weights": lambda row: f"{row.weights:,}",
    "bits": lambda row: f"{row.bits:g}",
    "packed": lambda row: _bytes(row.packed_bytes),
    "stored": lambda row: _bytes(row.stored_bytes),
    "input": lambda row: "spikes" if row.spikes_in else "real",
    "syn. ops": lambda row: _count(row.synaptic_operations),
    "MACs": lambda row: _count(row.macs),
    **_ENERGY,
}
_NEURON_COLUMNS: Columns = {
    "neurons": lambda row: row.name,
    "kind": lambda row: row.kind,
    "number": lambda row: f"{row.neurons:,}",
    "state bits each": lambda row: f"{row.state_bits_per_neuron:g}",
    "spikes a step": lambda row: "-" if row.spikes_per_step is None else _count(row.spikes_per_step),
    "firing rate": lambda row: "-" if row.firing_rate is None else f"{row.firing_rate:.4f}",
    **_ENERGY,
}
_STATE_COLUMNS: Columns = {
    "kept between steps": lambda row: row.of,
    "what": lambda row: row.what,
    "values": lambda row: f"{row.values:,}",
    "bits": lambda row: str(row.bits_per_value),
    "steps": lambda row: str(row.steps),
    "total bits": lambda row: f"{row.bits:,}",
    "needed by": lambda row: ", ".join(row.needed_by),
}
# Words are aligned to the left, numbers to the right.
_LEFT = {"synapses", "neurons", "kind", "kept between steps", "what", "needed by"}


def _grid(columns: Columns, rows: Sequence[Any]) -> str:
    if not rows:
        return ""
    lines = [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    aligned = [
        [
            cell.ljust(width) if header in _LEFT else cell.rjust(width)
            for cell, width, header in zip(line, widths, columns, strict=True)
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def _totals(report: Report) -> list[tuple[str, str]]:
    feedback = ("  of own spikes", f"{_count(report.feedback_additions)} a sample")
    return [
        ("steps, batch", f"{report.steps}, {report.batch}"),
        ("weights, packed", _bytes(report.weight_bytes)),
        ("weights, as stored", _bytes(report.weight_bytes_stored)),
        ("state between steps", f"{report.state_bits:,} bits a sample"),
        ("state, mean over neurons", f"{report.state_bits_per_neuron:.3g} bits"),
        ("state in PyTorch, step by step", f"{_bytes(report.torch_state_bytes)} a sample"),
        ("peak activations, whole batch", _bytes(report.peak_activation_bytes)),
        ("spikes a step", _count(report.spikes_per_step)),
        ("synaptic operations", f"{_count(report.synaptic_operations)} a sample"),
        ("  when streaming", f"{_count(report.streaming_synaptic_operations)} a sample"),
        ("MACs", f"{_count(report.macs)} a sample"),
        ("  when streaming", f"{_count(report.streaming_macs)} a sample"),
        ("operations of neurons", f"{_count(report.neuron_operations)} a sample"),
        ("  when streaming", f"{_count(report.streaming_neuron_operations)} a sample"),
        *([feedback] if report.feedback_additions else []),
        ("energy, estimate (45 nm)", f"{_joules(report.energy_joules)} a sample"),
        ("  when streaming", f"{_joules(report.streaming_energy_joules)} a sample"),
    ]


def _count(value: float) -> str:
    # Counts are means over a batch, and need not be whole.
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _bytes(value: int) -> str:
    for size, unit in ((2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"


def _joules(value: float) -> str:
    for size, unit in ((1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-12:.3g} pJ"
