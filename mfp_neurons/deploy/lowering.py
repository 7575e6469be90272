"""From the description of a network to its integer graph: one function for each kind of layer.

While layers are folded, what a layer gives is a :class:`Map` of whole numbers times one scale, or a
:class:`Current`: real numbers that synapses add up, which neurons compare with thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count
from math import gcd, lcm, prod
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._checks import describe, log_once
from ..adapters import is_neuron
from ..history import Exponential, as_row
from ..network import NetworkDescription, description
from ..network.advice import PRODUCT
from ..network.axes import of_features, sizes
from ..network.capture import named
from ..network.describing import check_example, read_model
from ..network.description import Exact, Layer, as_map
from ..quantize import is_quantized
from ..quantize.layers import FLOAT_LAYERS
from . import fold
from .errors import LoweringError
from .fold import Affine, affine, decimals, with_factors
from .graph import (
    Concat,
    CurrentPool,
    Graph,
    Input,
    Neurons,
    Op,
    Pair,
    Pool,
    Scores,
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
    sources,
    synapse_bound,
)
from .neurons import whole_numbers

_LARGEST_TOP = 2**15

NORMALIZED = (
    "shifts or normalizes its input in front of the first layer, which reads levels from 0 to 1 as they are. "
    "Leave that out of the model, put a batch norm behind the first layer, which learns as much, and train "
    "with that; without training anew, one mean and standard deviation for all channels can be folded into "
    "that batch norm (docs/deployment.md, 'The input')"
)


def lower_graph(model: nn.Module, example: Tensor, *, levels: int | None = None) -> Graph:
    r"""The integer network of a trained, quantized model; see :func:`mfp_neurons.deploy.lower`.

    Returns:
        A graph for :func:`~mfp_neurons.deploy.check.check`; ``steps`` is T of the example, or that of the
        model's own repetition, and ``fixed`` whether the model gives another graph for another T.

    >>> from mfp_neurons import MFP, quantize_weights
    >>> fire = MFP(decay=0.5, order=2, kernel_bits="pow2")
    >>> model = quantize_weights(nn.Sequential(nn.Linear(8, 4), fire, nn.Linear(4, 3)))
    >>> graph = lower_graph(model, torch.zeros(5, 1, 8))
    >>> [(type(op).__name__, op.name, op.shape) for op in graph.ops]
    [('Neurons', '1', (4, 1, 1)), ('Scores', '2', (3, 1, 1))]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {describe(model)}")
    top = _top(example, levels)
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    _check_that_weights_are_quantized(model)
    takes_levels = top > 1 and not example.is_floating_point()
    graph = read_model(
        model,
        example,
        lambda network: Folding(network, top, takes_levels).graph(),
        LoweringError,
        is_binary=top == 1,
        follow_loops=False,
    )
    assert graph is not None
    return graph


def _top(example: Tensor, levels: int | None) -> int:
    """The largest level of the input."""
    check_example(example)
    if example.dtype not in (torch.uint8, torch.bool) and not example.is_floating_point():
        raise TypeError(f"example must be uint8, bool or floating point, got {describe(example)}")
    if levels is not None and (
        isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= 255
    ):
        raise ValueError(f"levels must be an integer from 1 to 255, got {describe(levels)}")
    if example.is_floating_point():
        real = example.detach()
        if not bool(((real >= 0) & (real <= 1)).all()):  # NaN included
            raise ValueError(
                f"example must lie in [0, 1], got numbers from {real.min().item():g} to "
                f"{real.max().item():g}; images of bytes go in as uint8"
            )
        return levels or (1 if bool(((real == 0) | (real == 1)).all()) else 255)
    if example.dtype == torch.bool:
        return levels or 1
    if levels and int(example.max()) > levels:
        raise ValueError(f"example must be at most levels={levels}, got {int(example.max())}")
    return levels or 255


def _check_that_weights_are_quantized(model: nn.Module) -> None:
    units = [module for module in model.modules() if _is_read_as_one(module)]
    inside = {child for unit in units for child in unit.modules()}
    real = [
        named(path, module)
        for path, module in model.named_modules()
        if isinstance(module, FLOAT_LAYERS) and not is_quantized(module) and module not in inside
    ]
    if real:
        raise LoweringError(
            f"{', '.join(real)}: weights that are real numbers, where integer hardware has codes of 1 to 8 "
            "bits. quantize_weights(model, bits=1) quantizes them; train the model with that"
        )


def _is_read_as_one(module: nn.Module) -> bool:
    """Whether the layers inside a module are none of the network: it is read, or refused, as a whole."""
    return is_neuron(module) or isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer)


# --- what a layer gives -------------------------------------------------------------------------------------


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
    """A membrane potential, which a memory-free network never writes down; ``where`` names the neurons."""

    where: str


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
        self.input = Input(as_map(first.shape), first.features, top, static=not first.has_time)
        self.ops: list[Op] = []
        self.forgetful: list[str] = []  # neurons that remember all steps in PyTorch
        self.contents: list[Content] = [Map(0, Fraction(1, top))]
        for number, layer in enumerate(network.layers[1:], start=1):
            # the number of a layer that is refused says how far this reading of the example came
            try:
                self.contents.append(FOLDS[type(layer)](self, layer))
            except LoweringError as error:
                error.layer = number
                raise

    def graph(self) -> Graph | None:
        """The graph; None of a model that was read in part."""
        if not self.network.outputs:
            return None
        graph = Graph(
            self.input, (*self.ops, self._scores()), self.network.steps, fixed=self.network.is_fixed
        )
        # where T is fixed, T of the example is all that there is to remember
        if self.forgetful and not graph.fixed and self.network.input.has_time:
            _say_that_they_forget(self.forgetful, graph.steps)
        return graph

    def _scores(self) -> Scores:
        """What the model returns."""
        where, outputs = self.network.where, self.network.outputs
        if len(outputs) > 1:
            raise LoweringError(
                f"{where} returns a tuple of {len(outputs)}, not one tensor of scores that is computed from "
                "its input. Wrap it in a module that returns the scores alone."
            )
        (output,) = outputs
        layer, content = self.network.layers[output.source.layer], self.contents[output.source.layer]
        if isinstance(content, Potential):
            raise LoweringError(
                f"{where} returns the membrane potential of {content.where}, which is never written. Return "
                "its spikes, or the synapse's scores without a neuron."
            )
        name = content.name if isinstance(content, Current) else self.map_name(content)
        current = self.as_current(layer, content)
        folded = fold.scores([one.affine for one in current.branches], self.bounds(current))
        return Scores(
            name,
            _with_factors(current, folded.factors),
            folded.offset,
            current.shape,
            sizes(output.source.dims),
            folded.unit,
            folded.error,
            "none" if output.form == "every step" else output.form,  # type: ignore[arg-type]
            output.steps,
        )

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
        if all(one.direct and self.is_input(one.synapse.source) for one in content.branches):
            why = f"reads the input behind {content.where}, which {NORMALIZED}"
        return self.refuse(layer, why)

    def add(self, op: Op) -> int:
        """The index of the map that an operation makes; a module that is called twice gets two names."""
        taken = {other.name for other in self.ops}
        names = chain([op.name], (f"{op.name} ({number})" for number in count(2)))
        self.ops.append(replace(op, name=next(name for name in names if name not in taken)))
        return len(self.ops)

    def top(self, index: int) -> int:
        if index == 0:
            return self.input.top
        op = self.ops[index - 1]
        assert not isinstance(op, Scores)
        return op.top

    def map_shape(self, index: int) -> Shape:
        return self.input.shape if index == 0 else self.ops[index - 1].shape

    def map_name(self, content: Map) -> str:
        """The path of the module that made a map."""
        return "input" if content.index == 0 else self.ops[content.index - 1].name

    def is_input(self, index: int) -> bool:
        """Whether a map is the input, or pooled and added up from it alone."""
        if index == 0:
            return True
        op = self.ops[index - 1]
        return not isinstance(op, Neurons) and all(map(self.is_input, sources(op)))

    def bounds(self, current: Current) -> list[Any]:
        """How large what each synapse adds up can be."""
        return [synapse_bound(one.synapse, self.top(one.synapse.source)) for one in current.branches]

    def as_current(self, layer: Layer, content: Numbers) -> Current:
        """Numbers as a current: those of a map go through a synapse of weight 1 each."""
        if isinstance(content, Current):
            return content
        shape = self.map_shape(content.index)
        channels = shape[0]
        codes = np.ones((channels, 1, 1, 1), np.int8)
        synapse = Synapse(content.index, codes, 1, Window(), shape, groups=channels)
        as_it_is = affine([content.scale] * channels, [0] * channels)
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
        offset = [0.0] * len(scale) if bias is None else _list(bias)
        if layer.sources[0].reduce == "sum" and any(offset):
            self.refuse(layer, "adds its bias to a sum over time. Take the mean over time, or bias=False")
        worth = affine(scale, offset).of_units(source.scale)
        return Current((Branch(synapse, worth),), layer.name, layer.where)


def _with_factors(current: Current, factors: Iterable[Any]) -> tuple[Synapse, ...]:
    return tuple(with_factors(b.synapse, f) for b, f in zip(current.branches, factors, strict=True))


def _say_that_they_forget(names: list[str], steps: int) -> None:
    log_once(
        f"deploy.forgets.{names}",
        "%s: without an order a neuron remembers all earlier inputs in PyTorch, and the last %d (T of the "
        "example) in the integer network: in longer runs and streams the two differ. Make it with an order, "
        "such as order=%d (convert(model, order=%d) does), and train with that",
        ", ".join(names),
        steps,
        steps,
        steps,
    )


# --- layers with weights ------------------------------------------------------------------------------------

Codes = tuple[NDArray[np.int8], float, Sequence[float]]  # codes, bits, scale of each output channel


def _codes(folding: Folding, layer: description.Linear | description.Convolution) -> Codes:
    weights = layer.weights
    if weights.altered:
        folding.refuse(
            layer, "changes its quantized weight before it uses it. Let it use the weight as it is"
        )
    if weights.codes is None:
        folding.refuse(
            layer,
            "multiplies with a weight that is no quantized layer's. Use Conv1d, Conv2d or Linear modules "
            "and quantize_weights(model, bits=1)",
        )
    codes = weights.codes
    return codes.codes.numpy(), codes.bits, _list(codes.scale)


def _list(tensor: Tensor) -> list[float]:
    numbers: list[float] = tensor.detach().double().flatten().tolist()
    return numbers


def _linear(folding: Folding, layer: description.Linear) -> Content:
    weights, bits, scale = _codes(folding, layer)
    source = folding.spikes(layer)
    shape, out = folding.map_shape(source.index), len(weights)
    if layer.at_places:
        codes, window = weights[:, :, None, None], Window()
    else:  # a convolution with one window, as large as the map
        codes, window = weights.reshape(out, *shape), Window((shape[1], shape[2]))
    synapse = Synapse(source.index, codes, bits, window, as_map(layer.shape))
    return folding.synapse(layer, source, synapse, scale, layer.bias)


def _convolution(folding: Folding, layer: description.Convolution) -> Content:
    weights, bits, scale = _codes(folding, layer)
    source = folding.spikes(layer)
    codes = weights[:, :, None] if weights.ndim == 3 else weights
    size: Pair = (codes.shape[2], codes.shape[3])
    spread = _pair(layer.dilation, 1)
    if layer.padding == "same":  # torch puts what is odd behind
        before: Pair = (spread[0] * (size[0] - 1) // 2, spread[1] * (size[1] - 1) // 2)
    else:
        before = _pair(layer.padding, 0)
    window = Window(size, _pair(layer.stride, 1), before, spread)
    options = zip(window.size, window.padding, window.dilation, strict=True)
    if any(padding > (size - 1) * dilation for size, padding, dilation in options):
        folding.refuse(
            layer,
            f"pads by {max(window.padding)}, more than its window reaches, so that outputs at the border "
            "see nothing at all. Use less padding",
        )
    synapse = Synapse(source.index, codes, bits, window, as_map(layer.shape), layer.groups)
    return folding.synapse(layer, source, synapse, scale, layer.bias)


def _pair(option: Sequence[int], rows: int) -> Pair:
    """(rows, columns) of an option; of a sequence, whose rows are given."""
    return (option[0], option[1]) if len(option) == 2 else (rows, option[0])


def _group_sum(folding: Folding, layer: description.GroupSum) -> Content:
    """A synapse with codes 0 and 1."""
    source = folding.spikes(layer)
    shape = folding.map_shape(source.index)
    codes = np.zeros((len(layer.places), prod(shape)), np.int8)
    np.put_along_axis(codes, layer.places, np.int8(1), axis=1)
    synapse = Synapse(
        source.index, codes.reshape(-1, *shape), 1.58, Window((shape[1], shape[2])), (len(codes), 1, 1)
    )
    return folding.synapse(layer, source, synapse, [layer.scale] * len(codes), None)


# --- sums, factors, and norms -------------------------------------------------------------------------------


def _batch_norm(folding: Folding, layer: description.BatchNorm) -> Content:
    content, channels = folding.content(layer), as_map(layer.shape)[0]
    if layer.of_places:
        folding.refuse(
            layer,
            f"has a batch norm for each channel of dim 1, but there lie {[len(layer.mean)]} numbers, while "
            f"the map has {channels} channels. Put it before the flattening",
        )
    if layer.sources[0].reduce == "sum":
        folding.refuse(layer, "normalizes a sum over time. Take the mean over time")
    gain = [1.0] * channels if layer.weight is None else _list(layer.weight)
    shift = [0.0] * channels if layer.bias is None else _list(layer.bias)
    after = fold.batch_norm(gain, shift, _list(layer.mean), _list(layer.var), layer.eps)
    current = folding.as_current(layer, content).then(after)
    return Current(current.branches, layer.name, layer.where)


def _affine(folding: Folding, layer: description.Affine) -> Content:
    content = folding.content(layer)
    if layer.scale is not None:
        content = _scaled(folding, layer, content, _by_channel(folding, layer, layer.scale))
    if layer.offset is not None:
        content = _shifted(folding, layer, content, _by_channel(folding, layer, layer.offset))
    return content


def _by_channel(folding: Folding, layer: description.Affine, numbers: Exact) -> list[Fraction]:
    """One number for each channel, or a single one."""
    flat = numbers.ravel().tolist()
    if all(number == flat[0] for number in flat):
        return flat[:1]
    if len(flat) != len(numbers):
        folding.refuse(
            layer,
            f"computes with {list(numbers.shape)} numbers and a map {list(layer.shape)}. Only one number, or "
            "one for each channel, folds into a threshold",
        )
    return flat


def _scaled(
    folding: Folding, layer: description.Affine, content: Numbers, factors: list[Fraction]
) -> Numbers:
    if factors == [1]:
        return content
    if folding.takes_levels and isinstance(content, Map) and folding.is_input(content.index):
        folding.refuse(
            layer,
            f"scales its input ({layer.function}), and levels in integers reach the model as level / "
            f"{folding.input.top} already. Leave the scaling out of the model, so that it takes numbers from "
            "0 to 1; or, if it is to scale these once more, lower it with such an example in floating point",
        )
    # a positive factor leaves a map what it is; its numbers are worth more or less
    if isinstance(content, Map) and len(factors) == 1 and factors[0] > 0:
        return replace(content, scale=content.scale * factors[0])
    current = folding.as_current(layer, content)
    factors = factors if len(factors) > 1 else factors * current.shape[0]
    return current.then(affine(factors, [0] * len(factors)))


def _shifted(
    folding: Folding, layer: description.Affine, content: Numbers, offsets: list[Fraction]
) -> Numbers:
    if folding.takes_levels and isinstance(content, Map) and folding.is_input(content.index):
        folding.refuse(layer, NORMALIZED)
    if layer.sources[0].reduce == "sum":
        folding.refuse(
            layer, "adds a number to a sum over time. Take the mean over time, or add it at every step"
        )
    current = folding.as_current(layer, content)
    offsets = offsets if len(offsets) > 1 else offsets * current.shape[0]
    return current.then(affine([1] * len(offsets), offsets))


def _add(folding: Folding, layer: description.Add) -> Content:
    """Small whole numbers stay a map; all else becomes a current of several synapses."""
    a, b = folding.content(layer, 0), folding.content(layer, 1)
    # a sum of spikes (SEW residuals) is stored as a map of small counts: no factors, and exact
    if isinstance(a, Map) and isinstance(b, Map) and layer.sources[0].reduce is None:
        weights, scale = _common_scale([a, b])
        top = sum(w * folding.top(m.index) for w, m in zip(weights, (a, b), strict=True))
        if top <= _LARGEST_TOP:
            shape = folding.map_shape(a.index)
            index = folding.add(Sum(layer.name, (a.index, b.index), weights, shape, top))
            return Map(index, scale)
    branches = (*folding.as_current(layer, a).branches, *folding.as_current(layer, b).branches)
    return Current(branches, layer.name, layer.where)


def _common_scale(maps: Sequence[Map]) -> tuple[tuple[int, ...], Fraction]:
    """Whole weights and one scale: scale * weight is the scale of each map."""
    numerators = [m.scale.numerator for m in maps]
    denominators = [m.scale.denominator for m in maps]
    common = Fraction(gcd(*numerators), lcm(*denominators))
    return tuple(int(m.scale / common) for m in maps), common


def _multiply(folding: Folding, layer: description.Multiply) -> NoReturn:
    folding.content(layer, 0)
    folding.content(layer, 1)
    folding.refuse(layer, f"multiplies two tensors of the network. {PRODUCT}")


def _concat(folding: Folding, layer: description.Concat) -> Content:
    maps: list[Map] = []
    for place, source in enumerate(layer.sources):
        content = folding.content(layer, place)
        if not isinstance(content, Map) or source.is_reduced:
            folding.refuse(layer, "puts currents side by side. Put a neuron in front of the concatenation")
        maps.append(content)
    weights, scale = _common_scale(maps)
    top = max(w * folding.top(one.index) for w, one in zip(weights, maps, strict=True))
    if top > _LARGEST_TOP:
        folding.refuse(
            layer,
            "puts maps side by side that differ too much in scale. Give each a linear layer of its own, and "
            "add what they give: that is the layer over both side by side",
        )
    indices = tuple(one.index for one in maps)
    return Map(folding.add(Concat(layer.name, indices, weights, as_map(layer.shape), top)), scale)


# --- pools --------------------------------------------------------------------------------------------------


def _pool(folding: Folding, layer: description.Pool) -> Content:
    content = folding.content(layer)
    if layer.largest and layer.sources[0].reduce:
        folding.refuse(
            layer, "takes the largest of numbers that are already reduced over time. Pool at every step"
        )
    window = Window(
        _pair(layer.size, 1), _pair(layer.stride, 1), _pair(layer.padding, 0), _pair(layer.dilation, 1)
    )
    pooled = (
        _pooled_map(folding, layer, content, window)
        if isinstance(content, Map)
        else _pooled_current(folding, layer, content, window)
    )
    if layer.is_partial and not layer.largest:
        folding.refuse(
            layer, "averages fewer numbers in its last windows (ceil_mode=True). Use ceil_mode=False"
        )
    return pooled


def _divisor(layer: description.Pool) -> Fraction:
    """What the sum of a window is divided by."""
    return Fraction(1) if layer.largest else Fraction(layer.divisor or prod(layer.size))


def _pooled_map(folding: Folding, layer: description.Pool, content: Map, window: Window) -> Map:
    top = folding.top(content.index) * (1 if layer.largest else prod(window.size))
    if top > _LARGEST_TOP:
        largest = folding.top(content.index)
        folding.refuse(layer, f"adds up {prod(window.size)} numbers up to {largest}: too many")
    kind = "max" if layer.largest else "sum"
    index = folding.add(Pool(layer.name, content.index, kind, window, as_map(layer.shape), top))  # type: ignore[arg-type]
    return Map(index, content.scale / _divisor(layer))


def _pooled_current(folding: Folding, layer: description.Pool, current: Current, window: Window) -> Current:
    if any(branch.synapse.pool for branch in current.branches):
        folding.refuse(
            layer, f"pools what is pooled already, with no neuron since {current.where}. Put one between"
        )
    if layer.largest and len(current.branches) > 1:
        folding.refuse(
            layer,
            "takes the largest of a sum of several synapses, before a neuron. Put the neuron in front of "
            "the pool",
        )
    if not layer.largest and any(window.padding) and current.has_offset():
        folding.refuse(
            layer, "averages a current with padding, which a bias or a norm does not reach. Use padding=0"
        )
    pool = CurrentPool("max" if layer.largest else "sum", window, as_map(layer.shape))
    scale = 1 / _divisor(layer)
    # the sum of a window has its offset once for every number, as scale * sum * numbers is the mean's
    times = Fraction(1) if layer.largest else scale * prod(window.size)
    branches = []
    for branch in current.branches:
        # the largest current is that of the largest number only where the number's scale is positive
        rising = _rising(folding, layer, branch) if layer.largest else branch
        worth = Affine(rising.affine.times(scale).scale, rising.affine.times(times).offset)
        branches.append(Branch(replace(rising.synapse, pool=pool), worth))
    return Current(tuple(branches), layer.name, layer.where)


def _rising(folding: Folding, layer: Layer, branch: Branch) -> Branch:
    """A branch whose value grows with its number: where its scale is negative, the codes change sign."""
    falling = np.array([scale < 0 for scale in branch.affine.scale])
    if not falling.any():
        return branch
    signs = np.where(falling, -1, 1)
    codes = branch.synapse.codes.astype(np.int64) * signs[:, None, None, None]
    bits = branch.synapse.bits
    if codes.max() > 1 and codes.max() > 2 ** (int(bits) - 1) - 1:
        bits = int(bits) + 1  # the lowest code of its bits has no positive twin
    if bits > 8:
        folding.refuse(
            layer,
            "takes the largest of a current that falls as the codes' sum grows, whose codes are -128. "
            "Quantize the weights to 7 bits or less",
        )
    scale = branch.affine.scale * decimals(signs.tolist())
    synapse: Synapse = replace(branch.synapse, codes=codes.astype(np.int8), bits=bits)
    return Branch(synapse, Affine(scale, branch.affine.offset))


def _time_pool(folding: Folding, layer: description.TimePool) -> Content:
    content = folding.contents[layer.sources[0].layer]
    if isinstance(content, Potential):
        folding.refuse(layer, f"reads the membrane potential of {content.where}. Pool its spikes")
    if not isinstance(content, Map):
        folding.refuse(
            layer,
            f"takes the largest of {layer.window} steps of real numbers: {content.where} stands before it. "
            "Pool spikes, behind the neuron",
        )
    shape, top = folding.map_shape(content.index), folding.top(content.index)
    index = folding.add(TimePool(layer.name, content.index, layer.window, shape, top))
    return Map(index, content.scale)


# --- neurons, and what cannot be said -----------------------------------------------------------------------


def _neurons(folding: Folding, layer: description.Neurons) -> Content:
    content = folding.contents[layer.sources[0].layer]
    if isinstance(content, Potential):
        folding.refuse(layer, f"reads the membrane potential of {content.where}. Use its spikes")
    steps = folding.network.steps // layer.period
    current = folding.as_current(layer, content)
    values = whole_numbers(layer, steps)  # an infinite exponential remembers T steps of its own
    if len(values.taps) not in (1, steps):
        folding.refuse(
            layer,
            f"has a matrix kernel of T = {len(values.taps)} steps, and its input has {steps}. Make it with "
            f"time_steps={steps}",
        )
    kernel = layer.kernel
    if isinstance(kernel, Exponential) and kernel.order is None and bool(as_row(kernel.decay).any()):
        folding.forgetful.append(layer.where)
    channels = of_features(layer.shape)[0]
    if max(values.taps.shape[2], len(values.v_threshold)) > 1 and layer.sources[0].dims[:1] != (channels,):
        folding.refuse(
            layer,
            f"has taps or a threshold for each channel of dim 2, but there lie {list(layer.features[:1])} "
            f"numbers, while the map has {layer.shape[0]} channels. Put it before the flattening",
        )
    folded = fold.thresholds([one.affine for one in current.branches], folding.bounds(current), values)
    op = Neurons(
        layer.name,
        _with_factors(current, folded.factors),
        values.taps,
        folded.thresholds,
        current.shape,
        folded.unit,
        folded.error,
    )
    return Map(folding.add(op), Fraction(1))


def _potential(folding: Folding, layer: description.Potential) -> Content:
    return Potential(layer.where)


def _unreadable(folding: Folding, layer: description.Unreadable) -> NoReturn:
    if layer.keeps_potential:
        folding.refuse(layer, f"keeps a membrane potential, and an integer network has none. {layer.reason}")
    folding.refuse(layer, f"calls {layer.function}, which no integer network has. {layer.reason}")


FOLDS: dict[type[Layer], Callable[[Folding, Any], Content]] = {  # what is done with each kind of layer
    description.Linear: _linear,
    description.Convolution: _convolution,
    description.GroupSum: _group_sum,
    description.BatchNorm: _batch_norm,
    description.Affine: _affine,
    description.Add: _add,
    description.Multiply: _multiply,
    description.Concat: _concat,
    description.Pool: _pool,
    description.TimePool: _time_pool,
    description.Neurons: _neurons,
    description.Potential: _potential,
    description.Unreadable: _unreadable,
}
