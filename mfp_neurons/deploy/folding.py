"""The integer graph while it grows, and what the layers of a description give until neurons read it.

What a layer gives is a :class:`Map` of whole numbers times one scale, or a :class:`Current`: real numbers
that synapses add up, which neurons compare with thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from .._checks import log_once
from ..network import NetworkDescription
from ..network.axes import sizes
from ..network.description import Layer, Output, as_map
from ..network.description import Neurons as Fires
from . import fold
from .errors import LoweringError
from .fold import Affine, affine, with_factors
from .graph import (
    Graph,
    Input,
    Neurons,
    Op,
    Scores,
    Shape,
    Synapse,
    Window,
    sources,
    synapse_bound,
)
from .neurons import potential_values

NORMALIZED = (
    "shifts or normalizes its input in front of the first layer, which reads levels from 0 to 1 as they are. "
    "Leave that out of the model, put a batch norm behind the first layer, which learns as much, and train "
    "with that; without training anew, one mean and standard deviation for all channels can be folded into "
    "that batch norm (docs/deployment.md, 'The input')"
)


# the last step is the mean over one
_REDUCE: dict[str, Any] = {"every step": "none", "mean": "mean", "sum": "sum", "max": "max", "last": "mean"}


@dataclass(frozen=True, eq=False)
class Map:
    """Whole numbers of map ``index`` of the graph times ``scale``."""

    index: int
    scale: Fraction


@dataclass(frozen=True, eq=False)
class Branch:
    """What one synapse adds up, as the real number that it stands for.

    ``direct``: the synapse is none of the model's, it hands on a map as it is.
    """

    synapse: Synapse
    affine: Affine
    direct: bool = False


@dataclass(frozen=True, eq=False)
class Current:
    """The sum of branches, all of one shape; ``name`` and ``where`` are those of the layer that gives it."""

    branches: tuple[Branch, ...]
    name: str
    where: str

    @property
    def shape(self) -> Shape:
        return self.branches[0].synapse.out_shape

    def then(self, after: Affine) -> Current:
        """after.scale * current + after.offset."""
        # The offset belongs to the sum, so one branch takes it; the others are scaled alone.
        nothing = affine(after.scale, [0] * len(after.scale))
        changed = (
            replace(branch, affine=branch.affine.then(nothing if i else after))
            for i, branch in enumerate(self.branches)
        )
        return replace(self, branches=tuple(changed))

    def has_offset(self) -> bool:
        return any(bool(branch.affine.offset.any()) for branch in self.branches)


@dataclass(frozen=True)
class Potential:
    """A membrane potential, which a memory-free network never writes down, but can give as scores.

    Attributes:
        where: the neurons.
        neurons: what they compute with.
        current: what they read.
        spikes: their map; None of neurons whose spikes nobody needs.
        after_reset: whether it is what a reset left of the potential.
    """

    where: str
    neurons: Fires
    current: Current
    spikes: int | None
    after_reset: bool = False


Content = Map | Current | Potential
Numbers = Map | Current


class Folding:
    """The operations of a graph so far, and what the layers of the description give.

    Args:
        network: the description, or the part of it that could be read.
        top: the largest level of the input.
        takes_levels: whether the model is given the levels themselves, in an integer dtype.
    """

    def __init__(self, network: NetworkDescription, top: int, takes_levels: bool) -> None:
        first = network.input
        self.network, self.takes_levels = network, takes_levels
        inputs = Input(as_map(first.shape), first.features, top, static=not first.has_time)
        self.so_far = Graph(inputs, (), network.steps, fixed=network.is_fixed)  # no Scores yet
        self.forgetful: list[str] = []  # neurons that remember all steps in PyTorch
        self.currents: dict[int, Current] = {}  # what neurons read, by their map
        # Levels from 0 to top stand for numbers from 0 to 1.
        self.contents: list[Content] = [Map(0, Fraction(1, top))]

    def graph(self) -> Graph | None:
        """The graph; None of a model that was read in part."""
        if not self.network.outputs:
            return None
        returned = self._read_out()
        heads = [self._scores(output, key) for output, key in returned]
        keys = tuple(key for _, key in returned) if self.network.keys else ()
        graph = replace(self.so_far, ops=(*self.so_far.ops, *heads), keys=keys)
        # where T is fixed, T of the example is all that there is to remember
        if self.forgetful and not graph.fixed and self.network.input.has_time:
            _say_that_they_forget(self.forgetful, graph.steps)
        return graph

    def _read_out(self) -> list[tuple[Output, str]]:
        """What the model returns, as far as scores are made of it, and the names that it gives them."""
        where, outputs = self.network.where, self.network.outputs
        named = list(zip(outputs, self.network.keys or ("",) * len(outputs), strict=True))
        spikes = [one for one in named if not isinstance(self.contents[one[0].source.layer], Potential)]
        # A loop over time returns what it recorded: spikes, and beside them the potentials.
        if 0 < len(spikes) < len(named):
            log_once(
                f"deploy.potentials.{where}",
                "%s returns potentials beside other tensors: they are left out. For the scores of potentials "
                "return them alone",
                where,
            )
            named = spikes
        periods = {self.network.layers[output.source.layer].period for output, _ in named}
        if len(periods) > 1:
            raise LoweringError(
                f"{where} returns tensors of unlike steps, one for every "
                f"{' and '.join(map(str, sorted(periods)))} of the input's. Return those "
                "of equal steps, or lower one model for each."
            )
        return named

    def _scores(self, output: Output, key: str) -> Scores:
        """The scores of one tensor that the model returns."""
        where = f"{self.network.where} ({key!r})" if key else self.network.where
        layer, content = self.network.layers[output.source.layer], self.contents[output.source.layer]
        if output.form == "single step":
            neurons = next((one.where for one in self.network.layers if isinstance(one, Fires)), where)
            raise LoweringError(
                f"{neurons} takes one step a call, and the loop over time stands outside of {where}. Give T: "
                "deploy.lower(model, example, steps=T), with one step [N, *] as the example; or lower a "
                "module that has the loop."
            )
        if output.batch_first:
            log_once(
                f"deploy.batch_first.{where}",
                "%s returns [N, T, *]; the integer network gives the same scores as [T, N, *]",
                where,
            )
        if isinstance(content, Potential):
            name, current = content.neurons.name, content.current
            synapses, potential = self._potential(content)
            taps, offset, unit, error = potential.taps, potential.offset, potential.unit, potential.error
        else:
            # The scores have the name of the layer that gives them, since the model itself has none.
            name = content.name if isinstance(content, Current) else self.so_far.map_name(content.index)
            current = self.as_current(layer, content)
            folded = fold.scores([one.affine for one in current.branches], self.bounds(current))
            synapses, taps = in_whole_factors(current, folded.factors), None
            offset, unit, error = folded.offset[None], folded.unit, folded.error
        return Scores(
            name,
            synapses,
            offset,
            current.shape,
            sizes(output.source.dims),
            unit,
            error,
            _REDUCE[output.form],
            1 if output.form == "last" else output.steps,
            output.skip,
            taps,
        )

    def _potential(self, content: Potential) -> tuple[tuple[Synapse, ...], fold.FoldedPotential]:
        """Synapses, and what is folded, of a membrane potential that is read out."""
        neurons, branches = content.neurons, list(content.current.branches)
        if neurons.is_fixed:
            self.refuse(neurons, "has a matrix kernel, and its potential is returned. Return its spikes")
        values = potential_values(neurons, self.network.steps // neurons.period, content.after_reset)
        if values.forgets:
            self.refuse(
                neurons,
                "resets to a number, and its potential is returned: how far back that reaches depends on its "
                "own spikes, which no sum of scores does. Return its spikes, or use the reset 'subtract' or "
                "none (reset_mechanism='none', v_reset=None)",
            )
        if values.own_taps is not None:
            assert content.spikes is not None
            branches += self._as_it_is(content.spikes, Fraction(1), neurons).branches
        bounds = [synapse_bound(one.synapse, self.so_far.map_top(one.synapse.source)) for one in branches]
        folded = fold.potential([one.affine for one in branches], bounds, values)
        return tuple(one.synapse for one in branches), folded

    def in_place_of(self, layer: Layer) -> Map:
        """Spikes in the shape of a layer that was refused, so that what reads it is checked as well."""
        nothing = np.zeros((1, 1, 1), np.int64)
        channels = np.zeros(as_map(layer.shape)[0])
        spikes = Neurons(layer.name, (), nothing, nothing[0], as_map(layer.shape), channels, channels)
        return Map(self.add(spikes), Fraction(1))

    # --- for the kinds of layers ----------------------------------------------------------------------------

    def refuse(self, layer: Layer, why: str) -> NoReturn:
        raise LoweringError(f"{layer.where} {why}.")

    def content(self, layer: Layer, place: int = 0) -> Numbers:
        """What a layer reads; potentials are refused."""
        content = self.contents[layer.sources[place].layer]
        if isinstance(content, Potential):
            self.refuse(
                layer,
                f"computes with the membrane potential of {content.where} ({layer.function}), and an integer "
                "network writes no potential down. Use the spikes; as scores, what the last synapse "
                "gives without a neuron behind it",
            )
        return content

    def spikes(self, layer: Layer) -> Map:
        """The map that a synapse reads."""
        content = self.content(layer)
        if isinstance(content, Map):
            return content
        why = (
            f"reads real numbers: {content.where} stands before it, and there is no neuron between them. A "
            "synapse reads spikes; put a neuron between the two, and a normalization between the synapse "
            "before it and that neuron"
        )
        # A model that normalizes its own input is common, and there is other advice for it.
        if all(one.direct and self.is_input(one.synapse.source) for one in content.branches):
            why = f"reads the input behind {content.where}, which {NORMALIZED}"
        return self.refuse(layer, why)

    def add(self, op: Op) -> int:
        """The index of the map that an operation makes; a module that is called twice gets two names."""
        before = self.so_far.ops
        taken = {other.name for other in before}
        names = chain([op.name], (f"{op.name} ({number})" for number in count(2)))
        named = replace(op, name=next(name for name in names if name not in taken))
        self.so_far = replace(self.so_far, ops=(*before, named))
        # Map 0 is the input, and every operation adds one.
        return len(self.so_far.ops)

    def is_input(self, index: int) -> bool:
        """Whether a map is the input, or pooled and added up from it alone."""
        if index == 0:
            return True
        op = self.so_far.ops[index - 1]
        return not isinstance(op, Neurons) and all(map(self.is_input, sources(op)))

    def bounds(self, current: Current) -> list[Any]:
        """How large what each synapse adds up can be."""
        top = self.so_far.map_top
        return [synapse_bound(one.synapse, top(one.synapse.source)) for one in current.branches]

    def as_current(self, layer: Layer, content: Numbers) -> Current:
        """Numbers as a current: those of a map go through a synapse of weight 1 each."""
        return (
            content if isinstance(content, Current) else self._as_it_is(content.index, content.scale, layer)
        )

    def _as_it_is(self, index: int, scale: Fraction, layer: Layer) -> Current:
        """The numbers of a map, times a scale."""
        shape = self.so_far.map_shape(index)
        channels = shape[0]
        # A depthwise convolution with a window of 1 hands on every number as it is.
        codes = np.ones((channels, 1, 1, 1), np.int8)
        synapse = Synapse(index, codes, 1, Window(), shape, groups=channels)
        as_it_is = affine([scale] * channels, [0] * channels)
        return Current((Branch(synapse, as_it_is, direct=True),), layer.name, layer.where)

    def synapse(
        self,
        layer: Layer,
        source: Map,
        synapse: Synapse,
        scale: Sequence[float | Fraction],
        bias: Tensor | None,
    ) -> Current:
        """What a synapse adds up, with the scales of its codes and a bias."""
        offset = [0.0] * len(scale) if bias is None else numbers_of(bias)
        # A bias added to a sum over time counts once; folded into every step it would count T times.
        if layer.sources[0].reduce == "sum" and any(offset):
            self.refuse(layer, "adds its bias to a sum over time. Take the mean over time, or bias=False")
        # The synapse adds up whole numbers, each of which is worth the scale of the map that it reads.
        worth = affine(scale, offset).of_units(source.scale)
        return Current((Branch(synapse, worth),), layer.name, layer.where)


def in_whole_factors(current: Current, factors: Iterable[Any]) -> tuple[Synapse, ...]:
    return tuple(with_factors(b.synapse, f) for b, f in zip(current.branches, factors, strict=True))


def _say_that_they_forget(names: list[str], steps: int) -> None:
    log_once(
        f"deploy.forgets.{names}",
        "%s: without an order a neuron remembers all earlier inputs in PyTorch, and the last %d (T of the "
        "example) in the integer network: in longer runs and streams the two differ. Make it with an order, "
        "such as order=%d (convert(model, order=%d) does, of a LIF with reset='keep'), and train with that",
        ", ".join(names),
        steps,
        steps,
        steps,
    )


def numbers_of(tensor: Tensor) -> list[float]:
    numbers: list[float] = tensor.detach().double().flatten().tolist()
    return numbers
