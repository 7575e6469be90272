"""The integer graph while it grows, and what the layers of a description give until neurons read it.

What a layer gives is a :class:`Map` of whole numbers times one scale, or a :class:`Current`: real numbers
that synapses add up, which neurons compare with thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count
from math import nextafter, prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._checks import log_once
from ..network import NetworkDescription
from ..network.axes import sizes
from ..network.description import Gather as PlacesLayer
from ..network.description import Layer, Output, as_map
from ..network.description import Neurons as Fires
from . import fold
from .check import MAX_ACCUMULATED, MAX_TOP
from .errors import LoweringError
from .fold import Affine, affine, decimals, with_factors
from .graph import (
    Currents,
    Gather,
    Graph,
    Input,
    Ints,
    Neurons,
    Ones,
    Op,
    Pair,
    Scores,
    Shape,
    Synapse,
    Window,
    current_range,
    sources,
    synapse_bound,
)
from .neurons import potential_values

_MOST_SYNAPSES = 8  # in which a synapse that reads shifted and scaled channels is taken apart
_FEWEST_BITS = 8  # of written currents, so that they are nearly what they stand for

# the last step is the mean over one
_REDUCE: dict[str, Any] = {"every step": "none", "mean": "mean", "sum": "sum", "max": "max", "last": "mean"}


@dataclass(frozen=True, eq=False)
class Levels:
    """What the input is, as the user gives it and as the model gets it.

    Attributes:
        top: the largest level.
        low, high: what the levels 0 and ``top`` stand for.
        are_integers: whether the example holds levels, in an integer dtype, and not these numbers.
        mean, std: what is subtracted, and then divided by, before the model gets it: [1] or [C].
    """

    top: int
    low: float = 0.0
    high: float = 1.0
    are_integers: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def are_spikes(self) -> bool:
        """Whether the model gets 0 and 1 alone."""
        return (self.top, self.low, self.mean, self.std) == (1, 0.0, (0.0,), (1.0,))


@dataclass(frozen=True, eq=False)
class Map:
    """scale * (number - zero), of the numbers of map ``index`` of the graph.

    ``error`` bounds how far that may be from what the model computes, float64 [C]; None: it is that.
    """

    index: int
    scale: Fraction
    zero: int = 0
    error: NDArray[np.float64] | None = None


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

    @property
    def index(self) -> int:
        """The map, or one of the maps, that synapses read of a sum of maps."""
        return self.branches[0].synapse.source

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
        scale: what it is multiplied by.
    """

    where: str
    neurons: Fires
    current: Current
    spikes: int | None
    after_reset: bool = False
    scale: Fraction = Fraction(1)


@dataclass(frozen=True, eq=False)
class Padded:
    """Numbers with rows and columns of zeros around them, which a window can take for its own padding.

    Attributes:
        layer: the layer that pads.
        numbers: what stands between the zeros.
        before: how many rows and columns of zeros stand in front of it.
    """

    layer: PlacesLayer
    numbers: Map | Current
    before: Pair


Content = Map | Current | Potential | Padded
Numbers = Map | Current


class Folding:
    """The operations of a graph so far, and what the layers of the description give.

    Args:
        network: the description, or the part of it that could be read.
        levels: what the input is.
    """

    def __init__(self, network: NetworkDescription, levels: Levels) -> None:
        first = network.input
        self.network, self.takes_levels = network, levels.are_integers and levels.top > 1
        static = not first.has_time
        inputs = Input(as_map(first.shape), first.features, levels.top, static, levels.low, levels.high)
        self.so_far = Graph(inputs, (), network.steps, fixed=network.is_fixed)  # no Scores yet
        self.forgetful: list[str] = []  # neurons that remember all steps in PyTorch
        self.currents: dict[int, Current] = {}  # what neurons read, by their map
        self._written: dict[Current, Map] = {}
        self._ones: dict[int, int] = {}
        self.contents: list[Content] = [self._input(levels)]

    def _input(self, levels: Levels) -> Map | Current:
        """What the model gets: a map, or numbers that are shifted or scaled by channel."""
        scale = Fraction(levels.high - levels.low) / levels.top
        zero = -Fraction(levels.low) / scale
        is_normalized = (levels.mean, levels.std) != ((0.0,), (1.0,))
        if zero.denominator == 1 and not is_normalized:
            return Map(0, scale, int(zero))
        first = self.network.input
        channels = as_map(first.shape)[0]
        counts = {len(levels.mean), len(levels.std)} - {1}
        is_flat = channels == prod(first.features)  # the channels one behind the other, place by place
        if counts and not (counts == {first.features[0]} and (is_flat or channels == first.features[0])):
            error = LoweringError(
                f"{self.network.where} reads its input {list(first.features)} as {list(first.shape)}, where "
                f"{max(counts)} numbers of mean or std have no place. Give one for each channel, and an "
                "example in the shape in which the first layer reads it"
            )
            error.layer = 0  # with another reading of the example's dimensions they may fit
            raise error
        mean, std = (np.repeat(row, channels // len(row)).tolist() for row in (levels.mean, levels.std))
        numbers = self.as_current(first, Map(0, scale)).then(affine([1] * channels, [levels.low] * channels))
        factors = [1 / Fraction(one) for one in std]
        offsets = [-Fraction(a) * b for a, b in zip(mean, factors, strict=True)]
        return numbers.then(affine(factors, offsets))

    def graph(self) -> Graph | None:
        """The graph; None of a model that was read in part."""
        if not self.network.outputs:
            return None
        if self.network.input.time:
            log_once(
                f"deploy.batch_first.{self.network.where}",
                "%s is given [N, T, *]; the integer network takes the same numbers as [T, N, *]",
                self.network.where,
            )
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
        layer, content = self.network.layers[output.source.layer], self.held(output.source.layer)
        if output.form == "single step":
            neurons = next((one.where for one in self.network.layers if isinstance(one, Fires)), where)
            raise LoweringError(
                f"{neurons} takes one step a call, and the loop over time stands outside of {where}. Give T: "
                "deploy.lower(model, example, steps=T), with one step [N, *] as the example; or lower a "
                "module that has the loop, or whose neurons take sequences: functional.set_step_mode(model, "
                '"m") of SpikingJelly, MFPLeakyParallel for snnTorch.'
            )
        if output.time:
            log_once(
                f"deploy.time_first.{where}",
                "%s returns steps along dimension %d; the integer network gives the same scores as [T, N, *]",
                where,
                output.time,
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
            synapses, taps = in_whole_factors(current.branches, folded.factors), None
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
        if neurons.recurrent is not None:
            self.refuse(
                neurons,
                "reads its own last spikes through weights, and its potential is returned. Return its spikes",
            )
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
            branches += self.as_current(neurons, Map(content.spikes, Fraction(1))).branches
        bounds = [synapse_bound(one.synapse, self.so_far.map_top(one.synapse.source)) for one in branches]
        values = replace(values, rest=values.rest * content.scale)
        folded = fold.potential([one.affine.times(content.scale) for one in branches], bounds, values)
        return tuple(one.synapse for one in branches), folded

    def in_place_of(self, layer: Layer) -> Map:
        """Spikes in the shape of a layer that was refused, so that what reads it is checked as well."""
        nothing = np.zeros((1, 1, 1), np.int64)
        channels = np.zeros(as_map(layer.shape)[0])
        spikes = Neurons(layer.name, (), nothing, nothing[0], as_map(layer.shape), channels, channels)
        content = Map(self.add(spikes), Fraction(1))
        self.currents[content.index] = self.as_current(layer, content)  # of which a potential may be read
        return content

    # --- for the kinds of layers ----------------------------------------------------------------------------

    def refuse(self, layer: Layer, why: str) -> NoReturn:
        raise LoweringError(f"{layer.where} {why}.")

    def content(self, layer: Layer, place: int = 0) -> Numbers:
        """What a layer reads; potentials are refused."""
        content = self.held(layer.sources[place].layer)
        if isinstance(content, Potential):
            self.refuse(
                layer,
                f"computes with the membrane potential of {content.where} ({layer.function}), and an integer "
                "network writes no potential down. Use the spikes; as scores, what the last synapse "
                "gives without a neuron behind it",
            )
        return content

    def shape_of(self, numbers: Numbers) -> Shape:
        """(C, H, W) of a map or a current."""
        return numbers.shape if isinstance(numbers, Current) else self.so_far.map_shape(numbers.index)

    def top_of(self, numbers: Map) -> int:
        """The largest number of a map."""
        return self.so_far.map_top(numbers.index)

    def held(self, number: int) -> Numbers | Potential:
        """What a layer gives, its zeros written down if it pads."""
        content = self.contents[number]
        if isinstance(content, Padded):
            content = self.contents[number] = self.moved(content.layer, content.numbers)
        return content

    def moved(self, layer: PlacesLayer, content: Numbers) -> Map:
        """The numbers that a layer reads, at its places."""
        source = content if isinstance(content, Map) else self.written(layer, content, MAX_TOP)
        return self.gathered(layer, source, layer.places, as_map(layer.shape), layer.fill)

    def inside(self, layer: Layer, window: Window, *, of_counts: bool = False) -> tuple[Numbers, Window]:
        """What the windows of a layer read, and the windows over it: zeros around it become their padding.

        They stay where they are if some window sees nothing else; and, for windows ``of_counts``, around
        numbers that may be below 0.
        """
        padded = self.contents[layer.sources[0].layer]
        if not isinstance(padded, Padded):
            return self.content(layer), window
        numbers = padded.numbers
        shape = self.shape_of(numbers)
        before = (window.padding[0] + padded.before[0], window.padding[1] + padded.before[1])
        axes = zip(
            shape[1:],
            as_map(layer.shape)[1:],
            before,
            window.size,
            window.stride,
            window.dilation,
            strict=True,
        )
        is_seen = all(
            margin <= (size - 1) * dilation and (count - 1) * stride - margin < length
            for length, count, margin, size, stride, dilation in axes
        )
        is_count = isinstance(numbers, Map) and not numbers.zero and window.dilation == (1, 1)
        if is_seen and (is_count or not of_counts):
            return numbers, replace(window, padding=before)
        return self.content(layer), window

    def addable(self, layer: Layer, content: Numbers, times: int) -> Numbers:
        """What a layer reads, as a map that can be added up ``times`` over.

        Currents are written down, but for maps that are shifted and scaled by few numbers, as images are that
        the model normalizes: a synapse for each number is exact, without another map.
        """
        if isinstance(content, Map):
            if self.top_of(content) * times < MAX_ACCUMULATED:
                return content
        elif all(map(_is_exact, content.branches)) and _synapses_needed(content) <= _MOST_SYNAPSES:
            return content
        return self.written(layer, self.as_current(layer, content), (MAX_ACCUMULATED - 1) // max(times, 1))

    def readers(self, layer: Layer) -> int:
        """How many layers read this one, or the model's output."""
        number = self.network.layers.index(layer)
        read = [source.layer for other in self.network.layers for source in other.sources]
        return read.count(number) + sum(output.source.layer == number for output in self.network.outputs)

    def unsigned(self, layer: Layer, content: Map, what: str) -> Map:
        """The map, if its numbers count from 0 and are exact; refused, with what the layer does, if not."""
        if content.zero or content.error is not None:
            self.refuse(
                layer,
                f"{what} of currents, real numbers of both signs without a neuron behind them. Put a neuron "
                "in front of it",
            )
        return content

    def written(self, layer: Layer, current: Current, largest: int) -> Map:
        """Currents as a map of whole numbers, none of them beyond ``largest``."""
        largest = min(largest, MAX_TOP)
        known = self._written.get(current)
        if known is not None and self.top_of(known) <= largest:
            return known
        if largest < 2**_FEWEST_BITS:
            self.refuse(
                layer,
                f"reads {current.where} without a neuron between them, and adds up so much of it that its "
                f"numbers would be left with less than {_FEWEST_BITS} bits. Put a neuron between the two, or "
                "quantize the weights to fewer bits",
            )
        branches = current.branches
        folded = self._folded(branches, largest)
        far = [branch for branch, is_far in zip(branches, folded.far, strict=True) if is_far]
        if far:
            # an own map of theirs is worth a power of two, which is a factor without rounding
            branches = tuple(self._alone(layer, one) if one in far else one for one in branches)
            folded = self._folded(branches, largest)
        op = Currents(
            current.name,
            in_whole_factors(branches, folded.factors),
            folded.offset,
            current.shape,
            folded.top,
            folded.zero,
            folded.shift,
        )
        error = folded.error if folded.error.any() else None
        self._written[current] = Map(self.add(op), folded.unit, folded.zero, error)
        return self._written[current]

    def _folded(self, branches: Sequence[Branch], largest: int) -> fold.FoldedCurrents:
        ranges = [self._range(branch.synapse) for branch in branches]
        return fold.currents([one.affine for one in branches], ranges, largest)

    def _alone(self, layer: Layer, branch: Branch) -> Branch:
        """What a branch gives, written down as a map of its own, and its offset."""
        zeros = [0] * len(branch.affine.scale)
        without = replace(branch, affine=replace(branch.affine, offset=decimals(zeros)))
        own = self.written(layer, Current((without,), layer.name, layer.where), MAX_TOP)
        (read,) = self.as_current(layer, own).branches
        return replace(
            read, affine=read.affine.then(Affine(decimals([1] * len(zeros)), branch.affine.offset))
        )

    def _range(self, synapse: Synapse) -> tuple[Ints, Ints]:
        """The smallest and the largest that a synapse adds up, before its factor."""
        low, high = current_range(self.so_far, (replace(synapse, factor=None),))
        return np.array(low, np.int64), np.array(high, np.int64)

    def gathered(
        self, layer: Layer, source: Map, places: Ints, shape: Shape, fill: Fraction = Fraction(0)
    ) -> Map:
        """The numbers of a map at other places, and ``fill`` where a place is -1."""
        if self.shape_of(source) == shape and bool((places == np.arange(prod(shape))).all()):
            return source
        top, number = self.top_of(source), Fraction(0)
        if (places < 0).any():
            number = fill / source.scale + source.zero
            if number.denominator > 1 or not 0 <= number <= MAX_TOP:
                self.refuse(
                    layer,
                    f"pads with {float(fill):g}, and the numbers there are multiples of "
                    f"{float(source.scale):g}, none below {float(-source.zero * source.scale):g}. Pad with 0",
                )
        error = None if source.error is None else np.full(shape[0], source.error.max())
        op = Gather(layer.name, source.index, places, shape, max(top, int(number)), int(number))
        return replace(source, index=self.add(op), error=error)

    def padded(self, layer: Layer, source: Map, window: Window, out: Shape) -> tuple[Map, Window]:
        """A map whose padding is written down, where 0 is another number than 0, and the window over it."""
        shape = self.shape_of(source)
        if not source.zero or not _sees_beyond(window, shape, out):
            return source, window
        behind = window.behind(shape[1:], out[1:])
        margins = ((0, 0), *zip(window.padding, behind, strict=True))
        places = np.pad(np.arange(prod(shape)).reshape(shape), margins, constant_values=-1)
        padded = self.gathered(layer, source, places.ravel(), (shape[0], *places.shape[1:]))
        # every channel stays where it was, and so does its error
        return replace(padded, error=source.error), replace(window, padding=(0, 0))

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
        if isinstance(content, Current):
            return content
        shape = self.shape_of(content)
        channels = shape[0]
        # A depthwise convolution with a window of 1 hands on every number as it is.
        codes = np.ones((channels, 1, 1, 1), np.int8)
        synapse = Synapse(content.index, codes, 1, Window(), shape, groups=channels)
        as_it_is = affine([content.scale] * channels, [0] * channels).counting_from([content.zero] * channels)
        if content.error is not None:
            as_it_is = replace(as_it_is, error=decimals(content.error))
        return Current((Branch(synapse, as_it_is, direct=True),), layer.name, layer.where)

    def synapse(
        self,
        layer: Layer,
        source: Map | Current,
        synapse: Synapse,
        scale: Sequence[float | Fraction],
        bias: Tensor | None,
    ) -> Current:
        """What a synapse adds up, with the scales of its codes and a bias."""
        offset = [0.0] * len(scale) if bias is None else numbers_of(bias)
        # A bias added to a sum over time counts once; folded into every step it would count T times.
        if layer.sources[0].reduce == "sum" and any(offset):
            self.refuse(layer, "adds its bias to a sum over time. Take the mean over time, or bias=False")
        if isinstance(source, Current):
            branches = self._of_normalized(source, synapse, scale)
            return Current(branches, layer.name, layer.where).then(affine([1] * len(offset), offset))
        # The synapse adds up whole numbers, each of which is worth the scale of the map that it reads.
        worth = affine(scale, offset)
        if source.error is not None:
            worth = worth.off_by(_spread_error(synapse, source.error))
        worth = worth.of_units(source.scale)
        if source.zero:
            source, window = self.padded(layer, source, synapse.window, synapse.shape)
            synapse = replace(synapse, source=source.index, window=window)
            # every window lies within the map now, so each output has counted the zero of all its codes
            counted = synapse.codes.sum(axis=(1, 2, 3), dtype=np.int64) * source.zero
            worth = worth.counting_from(counted.tolist())
        return Current((Branch(synapse, worth),), layer.name, layer.where)

    def _of_normalized(
        self, source: Current, synapse: Synapse, scale: Sequence[float | Fraction]
    ) -> tuple[Branch, ...]:
        """What a synapse adds up of maps times a number, and plus one, of each channel.

            sum of w (s n + d) over the window  =  sum over s of s (sum of w n)  +  sum over d of d (sum of w)

        The last sum is that over the codes where the whole window lies within the map; with padding, a
        synapse that reads ones there.
        """
        out, zeros = len(scale), [0] * len(scale)
        weights, constant = affine(scale, zeros), affine([1] * out, zeros)
        branches: list[Branch] = []
        for one in source.branches:
            index = one.synapse.source
            for number, codes, bits in _by_number(synapse, one.affine.scale):
                part = replace(synapse, source=index, codes=codes, bits=bits)
                branches.append(Branch(part, weights.then(affine(number, zeros))))
            for number, codes, bits in _by_number(synapse, one.affine.offset):
                if _sees_beyond(synapse.window, self.so_far.map_shape(index), synapse.shape):
                    part = replace(synapse, source=self._ones_of(index), codes=codes, bits=bits)
                    branches.append(Branch(part, weights.then(affine(number, zeros))))
                    continue
                sums = codes.sum(axis=(1, 2, 3), dtype=np.int64).tolist()
                added = weights.then(affine(number, zeros)).then(affine(sums, zeros)).scale
                constant = constant.then(affine([1] * out, added))
        if not any(branch.synapse.source == source.index for branch in branches):  # all is scaled by 0
            branches.insert(0, Branch(replace(synapse, source=source.index), affine(zeros, zeros)))
        first = replace(branches[0], affine=branches[0].affine.then(constant))
        return (first, *branches[1:])

    def _ones_of(self, index: int) -> int:
        """The map that is 1 everywhere in that of ``index``."""
        if index not in self._ones:
            shape = self.so_far.map_shape(index)
            self._ones[index] = self.add(Ones(f"{self.so_far.map_name(index)}, ones", index, shape))
        return self._ones[index]

    def ones(self, layer: Layer, index: int, shape: Shape) -> int:
        """A map of ``shape`` that is 1 everywhere, in the steps of map ``index``."""
        source = Map(self._ones_of(index), Fraction(1))
        return self.gathered(layer, source, np.zeros(prod(shape), np.int64), shape).index


def _sees_beyond(window: Window, source: Shape, out: Shape) -> bool:
    """Whether a window lies partly beside the map."""
    return any((*window.padding, *window.behind(source[1:], out[1:])))


def _is_exact(branch: Branch) -> bool:
    """Whether a branch hands on a map whose numbers are what the model computes."""
    return branch.direct and not np.any(np.asarray(branch.affine.error))


def _synapses_needed(current: Current) -> int:
    """How many synapses read a current that hands on maps, one for each of its numbers."""
    rows = [row for one in current.branches for row in (one.affine.scale, one.affine.offset)]
    return sum(len({number for number in row if number}) for row in rows)


def _by_number(
    synapse: Synapse, numbers: NDArray[np.object_]
) -> Iterator[tuple[list[Any], NDArray[np.int8], float]]:
    """A synapse whose inputs are worth ``numbers`` by channel, as synapses whose outputs are: (worth of each
    output, codes, their bits).

    Codes of channels with other numbers are 0; there are as many synapses as a group has different numbers.
    """
    table = numbers.reshape(synapse.groups, -1)
    each = len(synapse.codes) // synapse.groups
    kinds = [list(dict.fromkeys(number for number in row if number)) for row in table.tolist()]
    for place in range(max(map(len, kinds))):
        chosen = [row[place] if place < len(row) else 0 for row in kinds]
        mask = np.array([[n == c for n in row] for row, c in zip(table.tolist(), chosen, strict=True)], bool)
        mask &= np.array([[bool(c)] for c in chosen])
        codes = synapse.codes * np.repeat(mask, each, axis=0)[:, :, None, None]
        bits = synapse.bits if mask.all() or synapse.bits != 1 else 1.58  # one bit has no 0
        yield [c for c in chosen for _ in range(each)], codes, bits


def _spread_error(synapse: Synapse, error: NDArray[np.float64]) -> list[float]:
    """How far what a synapse adds up may be off, in units of its codes, where its source is off by [C]."""
    sizes = np.abs(synapse.codes.astype(np.float64)).sum(axis=(2, 3))
    groups, out = synapse.groups, len(sizes)
    by_group = sizes.reshape(groups, out // groups, -1) @ error.reshape(groups, -1, 1)
    # the products are rounded, which must not make the bound smaller
    return [
        nextafter(one * (1 + 2.0**-40), float("inf")) if one else 0.0 for one in by_group.ravel().tolist()
    ]


def in_whole_factors(branches: Sequence[Branch], factors: Iterable[Any]) -> tuple[Synapse, ...]:
    return tuple(with_factors(b.synapse, f) for b, f in zip(branches, factors, strict=True))


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
