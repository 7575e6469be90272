"""Counts what has to be kept between two steps when a network runs step by step on a device, bit by bit."""

from dataclasses import dataclass, replace
from operator import mul
from typing import Any

from torch import Tensor

from ..adapters import kept_tensors
from .record import StateRow
from .watch import Neuron, Synapse, Values, Watch


@dataclass(frozen=True)
class _Kept:
    """Values from which the past inputs of a neuron follow."""

    key: Any  # equal for values that are the same for all who need them, so that they are kept once
    of: str
    values: int  # a sample
    bits: int  # of one value
    what: str
    once: bool = False  # whether one copy will do, however many steps back one looks
    through: frozenset[str] = frozenset()  # synapses that lie between them and the neuron

    def cost(self, steps: int) -> int:
        return self.values * self.bits * (1 if self.once else steps)


class StateCount:
    """Applies the rules to a finished :class:`Watch`.

    A neuron with a potential keeps that: 32 bits (its dtype), or the bits that it says it has. So does one
    whose reset has no order.
    A memory-free neuron of order K keeps what it can compute its last K-1 inputs from: K-1 values of each
    presynaptic neuron, a bit each if they are spikes. Where two layers read the same spikes, those are kept
    once, for the longer order; and where a neuron's own spikes feed back, these are its own outputs, kept
    once for both uses. Where real numbers flow into the synapse, the cheapest is kept of: those
    numbers, the spikes that they were computed from (behind an average pooling), the neuron's own inputs,
    and, for an infinite exponential, its potential. Otherwise an infinite kernel counts as one of order T,
    the steps of the example. A pooling over time keeps what its window has seen so far, a bit if it is
    spikes, and a neuron behind it counts in its own, longer steps.
    """

    def __init__(self, watch: Watch, steps: int, batch: int) -> None:
        self._watch, self._steps, self._batch = watch, steps, max(batch, 1)
        self._rows: dict[Any, StateRow] = {}
        self._beside: dict[str, int] = {}  # steps of own spikes that are kept for their own neuron alone
        self._repeated: dict[str, frozenset[str]] = {}
        for neuron in watch.neurons.values():
            if neuron.spec.is_memory_free:
                self._add_history(neuron)
            else:
                self._rows |= {(neuron.name, row.what): row for row in self._own_state(neuron)}
        # after the histories, which may keep them already
        for neuron in watch.neurons.values():
            self._add_own_spikes(neuron)
        for name in watch.recurrent:  # their last spikes come back to them, also without a reset
            if name in watch.neurons and not self._beside.get(name):
                row = StateRow(name, "spikes that come back", watch.neurons[name].features, 1, 1, (name,))
                self._rows.setdefault(("output", name), row)
        for pool in watch.pools.values():
            what = "a spike so far" if pool.values.binary else "maximum so far"
            row = StateRow(pool.name, what, pool.features, pool.values.packed, 1, (pool.name,))
            self._rows[pool.name, "window"] = row

    @property
    def rows(self) -> list[StateRow]:
        return list(self._rows.values())

    def history(self, neuron: Neuron) -> int:
        """K - 1: how many past inputs a memory-free neuron needs, T - 1 at most."""
        assert neuron.spec.kernel is not None
        longest = max(min(self._steps, neuron.steps) - 1, 0)
        order_less_one = neuron.spec.kernel.state_steps
        return longest if order_less_one is None else min(order_less_one, longest)

    def lags(self, neuron: Neuron) -> range:
        """How many steps back the taps of a memory-free neuron lie."""
        assert neuron.spec.kernel is not None
        return range(0, self.history(neuron) + 1, neuron.spec.kernel.stride)

    def repeated(self, neuron: Neuron) -> frozenset[str]:
        """The synapses that a stream goes through again for the past inputs of a memory-free neuron.

        There are none where those inputs themselves are kept, or their sum.
        """
        return self._repeated.get(neuron.name, frozenset())

    def potentials(self, neuron: Neuron) -> int:
        """How many potentials a neuron that keeps one has: snnTorch's Synaptic has two, say."""
        if neuron.spec.is_memory_free:
            return 1
        return max(sum(row.what != "spk" for row in self._own_state(neuron)), 1)

    def own_spikes(self, neuron: Neuron) -> int:
        """R: how many of its own last spikes a memory-free neuron needs, T - 1 at most."""
        if not neuron.spec.is_memory_free:
            return 0
        return min(neuron.spec.carried.spikes, max(min(self._steps, neuron.steps) - 1, 0))

    def own_spikes_beside(self, neuron: Neuron) -> int:
        """How many of them no other layer keeps, in bits a neuron."""
        return self._beside.get(neuron.name, 0)

    def feedback_additions(self, neuron: Neuron) -> float:
        """What adding up its own spikes costs, of one sample: an addition for each spike and tap it meets."""
        reset, fired = neuron.spec.reset, neuron.spikes_of_steps
        if reset is None or reset.kind == "zero":  # which leaves out, and adds nothing
            return 0.0
        taps = None if reset.taps is None else reset.taps.detach().reshape(len(reset.taps), -1)
        # a recursion subtracts a threshold once, in the step behind the spike
        lags = [1] if taps is None else [lag for lag, row in enumerate(taps, start=1) if bool(row.any())]
        times = [sum(t + lag < len(fired) for lag in lags) for t in range(len(fired))]
        return sum(map(mul, fired, times)) / max(neuron.batch, 1)

    def bits_a_neuron(self, neuron: Neuron) -> float:
        """Bits that each neuron of the layer is charged: K-1, or its potential's; and a pooling's window.

        Own spikes that the next layer's history keeps are charged there.
        """
        synapses = [self._watch.synapses[name] for name in neuron.sources if name in self._watch.synapses]
        read = neuron.sources.union(*(synapse.sources for synapse in synapses))
        pooled = sum(pool.values.packed for name, pool in self._watch.pools.items() if name in read)
        if neuron.spec.is_memory_free:
            return self.history(neuron) + self.own_spikes_beside(neuron) + pooled
        return sum(row.bits for row in self._own_state(neuron)) / max(neuron.features, 1) + pooled

    def torch_bytes(self, neuron: Neuron) -> int:
        """What the module holds after the run; of a stateless one, what it would hold step by step."""
        held = kept_tensors(neuron.module)
        if held:
            return sum(t.numel() * t.element_size() for _, t in held) // max(neuron.batch, 1)
        if neuron.spec.kernel is None:  # PyTorch has floats alone for a potential of a few bits
            return 0 if neuron.spec.carried.bits is None else neuron.features * 4
        width = neuron.values.bits // 8
        own = neuron.features * neuron.spec.carried.spikes * width
        if neuron.spec.kernel.state_steps is None:  # a potential, in float32 or wider
            return neuron.features * max(width, 4) + own
        return neuron.features * self.history(neuron) * width + own

    def steps_of(self, synapse: Synapse) -> int | None:
        """How many steps a synapse has seen: T, fewer behind a pooling over time; None if outside of time."""
        # A synapse on [T, N, *] has received T rows a sample. Which T that is, its neurons tell: behind a
        # pooling over time they have taken fewer steps than those in front of it.
        taken = {self._steps, *(neuron.steps for neuron in self._watch.neurons.values())}
        fits = [steps for steps in taken if steps and synapse.rows % (self._batch * steps) == 0]
        return max(fits, default=None)

    def _add_history(self, neuron: Neuron) -> None:
        """What a memory-free neuron needs, beside or together with what others need of the same values."""
        # Without a past (order 1, or a single step) nothing is kept.
        past = self.history(neuron)
        if not past:
            return
        cheapest = self._cheapest(neuron, past)
        self._repeated[neuron.name] = frozenset[str]().union(*(kept.through for kept in cheapest))
        for kept in cheapest:
            # own spikes that come back are in its inputs one step later than they were fired
            comes_back = kept.key == ("output", neuron.name)
            steps, needed_by = 1 if kept.once else past + comes_back, (neuron.name,)
            row = StateRow(kept.of, kept.what, kept.values, kept.bits, steps, needed_by)
            old = self._rows.get(kept.key)
            if old is not None:
                row = replace(row, steps=max(old.steps, steps), needed_by=old.needed_by + needed_by)
            self._rows[kept.key] = row

    def _add_own_spikes(self, neuron: Neuron) -> None:
        """What a memory-free neuron needs of its own spikes, beside or together with the next layer."""
        steps, name = self.own_spikes(neuron), neuron.name
        if not steps:
            return
        key = ("output", name)
        row, old = StateRow(name, "spikes", neuron.features, 1, steps, (name,)), self._rows.get(key)
        kept = 0 if old is None else old.steps
        self._beside[name] = max(steps - kept, 0)
        if old is not None:
            row = replace(old, steps=max(kept, steps), needed_by=(*old.needed_by, name))
        self._rows[key] = row

    def _own_state(self, neuron: Neuron) -> list[StateRow]:
        """State of a neuron that is not memory-free."""
        name, carried, spec = neuron.name, neuron.spec.carried, neuron.spec
        if carried.what == "nothing":
            return []
        if carried.what in ("inputs", "all inputs"):
            steps = self._steps if carried.steps is None else carried.steps
            return [StateRow(name, "inputs", neuron.features, neuron.values.bits, steps, (name,))]
        if carried.bits is not None:
            return [StateRow(name, "potential", neuron.features, carried.bits, 1, (name,))]
        if spec.kernel is not None and spec.recurrent is None:
            # behind the reset it says all, so that a device keeps no own spike beside it
            tensor = dict(kept_tensors(neuron.module)).get(spec.state.potential or "")
            bits = max(neuron.values.bits, 32) if tensor is None else Values.like(tensor).bits
            what = "potential" if tensor is None else str(spec.state.potential)
            return [StateRow(name, what, neuron.features, bits, 1, (name,))]
        return [
            StateRow(name, what, tensor.numel() // max(neuron.batch, 1), _bits(what, tensor), 1, (name,))
            for what, tensor in kept_tensors(neuron.module)
        ]

    def _cheapest(self, neuron: Neuron, steps: int) -> list[_Kept]:
        """The values to keep for a memory-free neuron: spikes wherever they will do."""
        spikes = self._origins(neuron.sources, frozenset())
        if spikes is not None and all(kept.bits <= 2 for kept in spikes):
            return spikes
        name, features = neuron.name, neuron.features
        own = _Kept(neuron.identity or name, name, features, neuron.values.packed, "inputs")
        # Of real values, whatever takes the fewest bits: the neuron's own inputs, what the synapses received,
        # or the potential, which is the sum of all past inputs where the taps are an infinite exponential.
        choices = [[own]]
        if spikes is not None:
            choices.append(spikes)
        if neuron.spec.carried.what == "potential":
            choices.append([_Kept((name, "potential"), name, features, 32, "potential", once=True)])
        return min(choices, key=lambda choice: sum(kept.cost(steps) for kept in choice))

    def _origins(self, sources: frozenset[str], visited: frozenset[str]) -> list[_Kept] | None:
        """The values that everything computed from ``sources`` follows from; None if they are not known."""
        origins: dict[Any, _Kept] = {}
        for name in sorted(sources):
            # A layer that is its own source is a loop over time, which no past input breaks.
            values = None if name in visited else self._outputs(name, visited | {name})
            if values is None:
                return None
            for kept in values:
                through = origins[kept.key].through if kept.key in origins else frozenset()
                origins[kept.key] = replace(kept, through=kept.through | through)
        return list(origins.values()) if sources else None

    def _outputs(self, name: str, visited: frozenset[str]) -> list[_Kept] | None:
        """The values that the output of a layer follows from; None if they are not known."""
        if name in self._watch.neurons:
            neuron = self._watch.neurons[name]
            if neuron.output is None:
                return None
            bits = neuron.output.packed if neuron.spikes is None else 1
            return [_Kept(("output", name), name, neuron.features, bits, _words(bits))]
        if name in self._watch.pools:
            pool = self._watch.pools[name]
            bits = pool.values.packed
            return [_Kept(("output", name), name, pool.features, bits, _words(bits))]
        if name not in self._watch.synapses:
            return None
        synapse = self._watch.synapses[name]
        bits, steps = synapse.values.packed, self.steps_of(synapse)
        values = synapse.inputs // (self._batch * (steps or 1))
        of = " + ".join(sorted(synapse.sources)) or f"input of {name}"
        # A synapse that has received its input outside of time has a constant one.
        constant = steps is None
        direct = [_Kept(self._key(synapse), of, values, bits, _words(bits), once=constant)]
        origins = None if bits == 1 else self._origins(synapse.sources, visited)
        choice = min((direct, origins or direct), key=lambda choice: sum(kept.cost(1) for kept in choice))
        # what comes from a constant does not change, so that nothing is computed again
        return [kept if constant else replace(kept, through=kept.through | {name}) for kept in choice]

    def _key(self, synapse: Synapse) -> Any:
        """Spikes straight from a neuron are its own; what two layers read from a tensor is one thing."""
        if len(synapse.sources) == 1:
            (name,) = synapse.sources
            neuron = self._watch.neurons.get(name)
            # As many values as the neurons have sent, so they were not pooled or padded on their way.
            if neuron is not None and neuron.features * neuron.batch * neuron.steps == synapse.inputs:
                return "output", name
        return synapse.identity or ("input of", synapse.name)


def _bits(what: str, tensor: Tensor) -> int:
    """Bits of one element of a state; spikes that a recurrent neuron feeds back to itself are a bit each."""
    values = Values.like(tensor)
    if what == "spk":
        values.add(tensor)
        return values.packed
    return values.bits


def _words(bits: int) -> str:
    return "spikes" if bits <= 2 else "real values"
