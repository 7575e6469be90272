"""What has to be kept between two steps when a network runs step by step on a device, in bits a sample."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..baseline import QuantizedMembraneLIF
from . import neurons
from .record import StateRow
from .watch import Neuron, Pool, Synapse, Values, Watch


@dataclass(frozen=True)
class _Held:
    """Values that are the same for everyone who needs them."""

    key: Any
    of: str
    values: int  # a sample
    bits: int  # each
    what: str
    once: bool = False  # whether one copy will do, however many steps back one looks

    def cost(self, steps: int) -> int:
        return self.values * self.bits * (1 if self.once else steps)


class StateCount:
    """Applies the rules to a finished :class:`Watch`.

    A neuron with a potential keeps that: 32 bits (its dtype), or the bits of a ``QuantizedMembraneLIF``.
    A memory-free neuron of order K keeps what it can compute its last K-1 inputs from: K-1 values of each
    presynaptic neuron, a bit each if they are spikes. Where two layers read the same spikes, those are kept
    once, for the longer order. Where real numbers flow into the synapse, the cheapest is kept of: those
    numbers, the spikes that they were computed from (behind an average pooling), the neuron's own inputs,
    and, for an infinite exponential, its potential. Otherwise an infinite kernel counts as one of order T,
    the steps of the example. A pooling over time keeps what its window has seen so far, a bit if it is
    spikes, and a neuron behind it counts in its own, longer steps.
    """

    def __init__(self, watch: Watch, steps: int, batch: int) -> None:
        self._watch, self._steps, self._batch = watch, steps, max(batch, 1)
        self._rows: dict[Any, StateRow] = {}
        for neuron in watch.neurons.values():
            self._add(neuron)
        for pool in watch.pools.values():
            self._rows[pool.name, "window"] = _window(pool)

    @property
    def rows(self) -> list[StateRow]:
        return list(self._rows.values())

    def history(self, neuron: Neuron) -> int:
        """K - 1: how many past inputs a memory-free neuron needs, T - 1 at most."""
        declared: int | None = neuron.module.kernel.state_steps  # type: ignore[union-attr, assignment]
        longest = max(min(self._steps, neuron.steps) - 1, 0)
        return longest if declared is None else min(declared, longest)

    def lags(self, neuron: Neuron) -> range:
        """How many steps back the taps of a memory-free neuron lie."""
        return range(0, self.history(neuron) + 1, getattr(neuron.module.kernel, "stride", 1))

    def bits_a_neuron(self, neuron: Neuron) -> float:
        """Bits that each neuron of the layer is charged: K-1, or its potential's; and a pooling's window."""
        pooled = sum(pool.values.packed for pool in self._pools_before(neuron))
        if neurons.is_memory_free(neuron.module):
            return self.history(neuron) + pooled
        return sum(row.bits for row in self._potential(neuron)) / max(neuron.features, 1) + pooled

    def steps_of(self, synapse: Synapse) -> int | None:
        """How many steps a synapse has seen: T, fewer behind a pooling over time; None if outside of time."""
        taken = {self._steps, *(neuron.steps for neuron in self._watch.neurons.values())}
        fits = [steps for steps in taken if steps and synapse.rows % (self._batch * steps) == 0]
        return max(fits, default=None)

    def _pools_before(self, neuron: Neuron) -> list[Pool]:
        """The poolings over time that this neuron's synapses read."""
        synapses = [self._watch.synapses[name] for name in neuron.sources if name in self._watch.synapses]
        read = neuron.sources.union(*(synapse.sources for synapse in synapses))
        return [pool for name, pool in self._watch.pools.items() if name in read]

    def _add(self, neuron: Neuron) -> None:
        if not neurons.is_memory_free(neuron.module):
            for row in self._potential(neuron):
                self._rows[neuron.name, row.what] = row
            return
        steps = self.history(neuron)
        if not steps:
            return
        for held in self._cheapest(neuron, steps):
            kept_steps = 1 if held.once else steps
            old = self._rows.get(held.key)
            row = StateRow(held.of, held.what, held.values, held.bits, kept_steps, (neuron.name,))
            if old is not None:
                row = replace(row, steps=max(old.steps, kept_steps), needed_by=(*old.needed_by, neuron.name))
            self._rows[held.key] = row

    def _potential(self, neuron: Neuron) -> list[StateRow]:
        """State of a neuron that is not memory-free."""
        module, name = neuron.module, neuron.name
        if isinstance(module, QuantizedMembraneLIF):
            kept = [(neuron.features, module.state_bits, 1, "potential")] if module.state_bits else []
        elif (inputs := neurons.psn_steps(module, self._steps)) is not None:
            kept = [(neuron.features, neuron.values.bits, inputs, "inputs")]
        else:
            kept = [
                (tensor.numel() // max(neuron.batch, 1), _bits(memory, tensor), 1, memory)
                for memory, tensor in neurons.kept_tensors(module)
            ]
        return [StateRow(name, what, values, bits, steps, (name,)) for values, bits, steps, what in kept]

    def _cheapest(self, neuron: Neuron, steps: int) -> list[_Held]:
        spikes = self._behind(neuron.sources, frozenset())
        if spikes is not None and all(held.bits <= 2 for held in spikes):
            return spikes
        own = _Held(
            neuron.identity or neuron.name, neuron.name, neuron.features, neuron.values.packed, "inputs"
        )
        choices = [[own]]
        if spikes is not None:
            choices.append(spikes)
        if neuron.module.kernel.state_steps is None:  # type: ignore[union-attr]
            choices.append(
                [_Held((neuron.name, "potential"), neuron.name, neuron.features, 32, "potential", once=True)]
            )
        return min(choices, key=lambda choice: sum(held.cost(steps) for held in choice))

    def _behind(self, sources: frozenset[str], seen: frozenset[str]) -> list[_Held] | None:
        """The values that everything computed from ``sources`` follows from; None if they are not known."""
        found: dict[Any, _Held] = {}
        for name in sorted(sources):
            held = None if name in seen else self._source(name, seen | {name})
            if held is None:
                return None
            found |= {one.key: one for one in held}
        return list(found.values()) if sources else None

    def _source(self, name: str, seen: frozenset[str]) -> list[_Held] | None:
        if name in self._watch.neurons:
            neuron = self._watch.neurons[name]
            if neuron.output is None:
                return None
            bits = neuron.output.packed if neuron.spikes is None else 1
            return [_Held(("output", name), name, neuron.features, bits, _words(bits))]
        if name in self._watch.pools:
            pool = self._watch.pools[name]
            bits = pool.values.packed
            return [_Held(("output", name), name, pool.features, bits, _words(bits))]
        if name not in self._watch.synapses:
            return None
        synapse = self._watch.synapses[name]
        bits = synapse.values.packed
        steps = self.steps_of(synapse)
        static = steps is None  # it saw its input once, outside of time
        values = synapse.inputs // (self._batch * (steps or 1))
        of = " + ".join(sorted(synapse.sources)) or f"input of {name}"
        direct = [_Held(self._key(synapse), of, values, bits, _words(bits), once=static)]
        behind = None if bits == 1 else self._behind(synapse.sources, seen)
        return min((direct, behind or direct), key=lambda choice: sum(held.cost(1) for held in choice))

    def _key(self, synapse: Synapse) -> Any:
        """Spikes straight from a neuron are its own; what two layers read from a tensor is one thing."""
        if len(synapse.sources) == 1:
            (name,) = synapse.sources
            neuron = self._watch.neurons.get(name)
            if neuron is not None and neuron.features * neuron.batch * neuron.steps == synapse.inputs:
                return "output", name
        return synapse.identity or ("input of", synapse.name)


def _window(pool: Pool) -> StateRow:
    what = "a spike so far" if pool.values.binary else "maximum so far"
    return StateRow(pool.name, what, pool.features, pool.values.packed, 1, (pool.name,))


def _bits(memory: str, tensor: Tensor) -> int:
    """Bits of one element of a state; spikes that a recurrent neuron feeds back to itself are a bit each."""
    values = Values(8 * tensor.element_size())
    if memory == "spk":
        values.see(tensor)
        return values.packed
    return values.bits


def _words(bits: int) -> str:
    return "spikes" if bits <= 2 else "real values"
