"""Counts what synapses and neurons compute, all steps at once and as a stream, and prices it by its bits.

All steps at once, every value goes through its synapses once. A stream that keeps past spikes, or past inputs
of the network, needs what the synapses make of them again at every step that looks back at them. It can send
each of them through the synapses again. Or, where the neurons behind the synapses have one tap set, it adds
up the last values of each presynaptic neuron, weighed by the taps, and sends this *trace* through the
synapses once. What takes less energy is counted. G groups of channels with a tap set each take G traces, each
of them sent to the synapses of its group.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..quantize.layers import TRANSPOSED
from . import synapses
from .prices import REAL, accumulation, addition, multiplication
from .state import StateCount
from .taps import tap_bits, tap_sets, trace_bits, traces, uses
from .watch import Neuron, Synapse, Watch

_DECAY_BITS = 8


@dataclass(frozen=True)
class Cost:
    """Operations of one sample over all steps, and their energy."""

    operations: float = 0.0
    joules: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.operations + other.operations, self.joules + other.joules)


class OperationCount:
    """Costs by name of layer, of a finished :class:`Watch`.

    Attributes:
        synapses, neurons: all steps at once.
        streaming_synapses, streaming_neurons: as a stream. Adding up traces counts with the neurons behind.
    """

    def __init__(self, watch: Watch, state: StateCount, batch: int) -> None:
        self._watch, self._state, self._batch = watch, state, max(batch, 1)
        self._readers: dict[str, list[Neuron]] = {name: [] for name in watch.synapses}
        for neuron in watch.neurons.values():
            for name in state.repeated(neuron):
                self._readers[name].append(neuron)
        self.synapses = {synapse.name: self._once(synapse) for synapse in watch.synapses.values()}
        self.neurons = {neuron.name: self._neuron(neuron) for neuron in watch.neurons.values()}
        self.streaming_synapses, self.streaming_neurons = dict(self.synapses), dict(self.neurons)
        for neuron in watch.neurons.values():
            if state.repeated(neuron):
                self._count_stream(neuron)

    def _count_stream(self, neuron: Neuron) -> None:
        """The synapses in front of a neuron that looks back, and the neuron: repeated, or with traces."""
        read = [self._watch.synapses[name] for name in sorted(self._state.repeated(neuron))]
        sent = {synapse.name: self._again(synapse) for synapse in read}
        added = self._taps(neuron)
        taps = self._tap_sets(neuron, read)
        if taps is not None:
            traced = {synapse.name: self._traced(synapse, neuron, taps) for synapse in read}
            formed = sum((self._forming(synapse, neuron, taps) for synapse in read), Cost())
            # at equal energy, but for rounding, the traces: they are fewer
            if _joules(*traced.values(), formed) <= _joules(*sent.values(), added) * (1 + 1e-9):
                sent, added = traced, formed
        self.streaming_synapses |= sent
        self.streaming_neurons[neuron.name] = added + self._firing(neuron)

    # --- synapses: an operation for each value and each synapse that it goes through

    def _cost(self, operations: float, joules_each: float) -> Cost:
        """Of one sample, where the operations are those of the whole batch."""
        each = operations / self._batch
        return Cost(each, each * joules_each)

    def _once(self, synapse: Synapse) -> Cost:
        values = float(torch.cat(synapse.reached).sum()) if synapse.values.signed else synapse.products
        return self._cost(values, accumulation(_weight_bits(synapse), synapse.input_bits))

    def _again(self, synapse: Synapse) -> Cost:
        """Each value at its own step, and at each later one at which a neuron behind has a tap for it."""
        readers = self._readers[synapse.name]
        steps = readers[0].steps
        if synapse.rows % steps:  # whatever lies in between makes other steps of them
            steps = self._state.steps_of(synapse) or 1
        lags = {0}.union(*(self._state.lags(neuron) for neuron in readers))
        if synapse.values.signed:
            values = torch.cat(synapse.reached).reshape(steps, -1).sum(1).cpu()
        else:
            values = torch.full((steps,), synapse.products / steps, dtype=torch.float64)
        joules = accumulation(_weight_bits(synapse), synapse.input_bits)
        return self._cost(float(values @ uses(lags, steps)), joules)

    def _traced(self, synapse: Synapse, neuron: Neuron, taps: Tensor) -> Cost:
        """Each trace that is not zero; of real inputs every trace."""
        assert neuron.spec.kernel is not None
        bits = trace_bits(taps, tap_bits(neuron.spec.kernel, neuron.steps), synapse.input_bits)
        joules = accumulation(_weight_bits(synapse), bits)
        if synapse.trains is None:
            return self._cost(synapse.products, joules)
        (shape,) = synapse.fan_out
        trains = torch.cat(synapse.trains).reshape(neuron.steps, -1, shape.numel())
        groups = taps.shape[1]
        width = len(synapse.module.weight) // groups
        values = 0.0
        for group, column in enumerate(taps.T):
            channels = range(group * width, (group + 1) * width) if groups > 1 else None
            fan_out = synapses.fan_out(synapse.module, shape, channels).flatten()
            for trace in traces(trains, column):
                values += float((trace != 0).sum((0, 1)).double() @ fan_out)
        return self._cost(values, joules)

    def _forming(self, synapse: Synapse, neuron: Neuron, taps: Tensor) -> Cost:
        """Adding up the traces: once for each remembered spike, or real value, and each tap that it meets."""
        assert neuron.spec.kernel is not None
        steps = neuron.steps
        if synapse.trains is None:
            values = torch.full((steps,), synapse.inputs / steps, dtype=torch.float64)
        else:
            spikes = torch.cat([rows.count_nonzero(1) for rows in synapse.trains])
            values = spikes.reshape(steps, -1).sum(1).double().cpu()
        times = sum((uses(column.nonzero().flatten().tolist(), steps) for column in taps.T), torch.zeros(()))
        joules = accumulation(tap_bits(neuron.spec.kernel, neuron.steps), synapse.input_bits)
        return self._cost(float(values @ times), joules)

    def _tap_sets(self, neuron: Neuron, read: Iterable[Synapse]) -> Tensor | None:
        """Taps [L, G] of G groups of channels; None where what traces make of the synapses is another sum."""
        kernel = neuron.spec.kernel
        assert kernel is not None
        taps = tap_sets(kernel, neuron.steps)
        currents = neuron.features * neuron.steps * self._batch
        for synapse in read:
            # Others may need the past inputs themselves, and a pooling in between is not linear.
            alone = len(self._readers[synapse.name]) == 1 and synapse.outputs == currents
            if taps is None or not alone or len(synapse.fan_out) > 1 or synapse.rows % neuron.steps:
                return None
            by_rows = not isinstance(synapse.module, TRANSPOSED)  # whether a row of the weight is an output
            if taps.shape[1] > 1 and not (by_rows and len(synapse.module.weight) == kernel.num_channels):
                return None
        return taps

    # --- neurons

    def _neuron(self, neuron: Neuron) -> Cost:
        """All steps at once: what the neuron says that it computes, or what follows from what it keeps."""
        step = neuron.spec.operations
        if step is None:
            return self._potential(neuron) + self._firing(neuron)
        updates = neuron.features * neuron.steps
        bits = REAL if step.bits is None or self._current_bits(neuron) == REAL else step.bits
        joules = step.additions * addition(bits) + step.multiplications * multiplication(_DECAY_BITS, bits)
        return Cost(updates * (step.additions + step.multiplications), updates * joules)

    def _potential(self, neuron: Neuron) -> Cost:
        """All steps at once: a decay and an addition at each step of a kept potential, else the taps."""
        if neuron.spec.carried.what != "potential":
            return self._taps(neuron)
        updates = self._state.potentials(neuron) * neuron.features * neuron.steps
        bits = self._sum_bits(neuron)
        return Cost(2 * updates, updates * (multiplication(_DECAY_BITS, bits) + addition(bits)))

    def _taps(self, neuron: Neuron) -> Cost:
        """A product, added to a sum, for each tap and the input that it weighs."""
        kernel, carried = neuron.spec.kernel, neuron.spec.carried
        if kernel is not None:
            bits, lags = tap_bits(kernel, neuron.steps), self._state.lags(neuron)
        else:  # of a neuron whose taps are not told: as floats
            past = neuron.steps - 1 if carried.steps is None else min(carried.steps, neuron.steps - 1)
            bits, lags = REAL, range(0 if carried.what == "nothing" else past + 1)
        products = neuron.features * float(uses(lags, neuron.steps).sum())
        return Cost(products, products * accumulation(bits, self._current_bits(neuron)))

    def _firing(self, neuron: Neuron) -> Cost:
        """A comparison at each step, and an addition for each own spike that a memory-free neuron gets."""
        joules = addition(self._sum_bits(neuron))
        compared = 0 if neuron.spec.never_fires else neuron.features * neuron.steps
        own = self._state.feedback_additions(neuron) if neuron.spec.is_memory_free else 0.0
        return Cost(compared + own, (compared + own) * joules)

    def _current_bits(self, neuron: Neuron) -> float:
        """Bits of what a neuron receives: REAL if a weight or an input before it is, else 8."""
        before = [self._watch.synapses[name] for name in neuron.sources if name in self._watch.synapses]
        widths = [bits for synapse in before for bits in (_weight_bits(synapse), synapse.input_bits)]
        return REAL if REAL in widths else 8

    def _sum_bits(self, neuron: Neuron) -> float:
        """Bits of the potential, 32 of a sum of whole numbers; REAL if it, its taps or its inputs are."""
        kernel, carried = neuron.spec.kernel, neuron.spec.carried
        if carried.what == "potential":
            own = REAL if carried.bits is None or carried.bits > 8 else carried.bits
        elif kernel is not None:
            own = 32 if tap_bits(kernel, neuron.steps) != REAL else REAL
        else:
            own = 32 if carried.what == "nothing" else REAL
        return REAL if self._current_bits(neuron) == REAL else own


def _joules(*costs: Cost) -> float:
    return sum(cost.joules for cost in costs)


def _weight_bits(synapse: Synapse) -> float:
    """Bits of a weight as an operand, REAL of a float."""
    bits = synapses.packed_weight_bytes(synapse.module)[0]
    return bits if bits <= 8 else REAL
