"""From the description of a network to its integer graph: one function for each kind of layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import gcd, isfinite, isqrt, lcm, prod
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._checks import describe
from ..adapters import is_neuron, why_no_layer
from ..history import Exponential, KernelBits, as_row, check_kernel_bits
from ..network import NetworkDescription, description
from ..network.axes import of_features
from ..network.capture import named
from ..network.describing import check_example, check_model, check_steps, read_model, takes_single_steps
from ..network.description import Exact, Layer, as_map
from ..quantize import is_quantized
from ..quantize.layers import FLOAT_LAYERS
from . import fold
from .check import MAX_ACCUMULATED, MAX_LEVEL, MAX_TOP
from .errors import LoweringError
from .fold import Affine, affine, decimals
from .folding import (
    Branch,
    Content,
    Current,
    Folding,
    Levels,
    Map,
    Numbers,
    Padded,
    Potential,
    in_whole_factors,
    numbers_of,
)
from .graph import (
    Concat,
    CurrentPool,
    Graph,
    MatMul,
    Neurons,
    Pair,
    Pool,
    Product,
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
    synapse_bound,
    without_groups,
)
from .neurons import whole_numbers
from .rounding import rounded

_LARGEST_SUM = 2**15  # of maps that are added up or set side by side; beyond it, currents are
_NEAR = 12  # numbers whose scales are 2**12 apart have factors that are exact enough
Channels = float | Sequence[float] | Tensor  # one number for all channels, or one for each
_MOST_BRANCHES = 4  # of a sum that several layers read before it is written down


def lower_graph(
    model: nn.Module,
    example: Tensor,
    *,
    levels: int | None = None,
    kernel_bits: KernelBits = None,
    steps: int | None = None,
    mean: Channels = 0.0,
    std: Channels = 1.0,
) -> Graph:
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
    return lower_rounded(model, example, levels, kernel_bits, steps, mean, std)[0]


def lower_rounded(
    model: nn.Module,
    example: Tensor,
    levels: int | None,
    kernel_bits: KernelBits,
    steps: int | None,
    mean: Channels,
    std: Channels,
) -> tuple[Graph, tuple[str, ...], bool]:
    """The graph, the layers whose taps were rounded to ``kernel_bits``, and whether the batch came first."""
    check_kernel_bits(kernel_bits)
    check_steps(steps)
    model = check_model(model)
    read = levels_of(example, levels, mean, std)
    _check_that_weights_are_quantized(model)

    def export(network: NetworkDescription) -> tuple[Graph | None, tuple[str, ...], bool]:
        names: tuple[str, ...] = ()
        if kernel_bits is not None:
            network, names = rounded(network, kernel_bits)
        return _graph(network, read), names, network.input.time == 1

    graph, names, batch_first = read_model(
        model,
        example,
        export,
        LoweringError,
        is_binary=read.are_spikes,
        follow_loops=takes_single_steps(model),
        steps=steps,
    )
    assert graph is not None
    return graph, names, batch_first


def refusals_of(network: NetworkDescription, levels: Levels) -> list[LoweringError]:
    """All that folding refuses: a layer that is refused gives spikes to those behind it."""
    folding, refusals = Folding(network, levels), []
    for layer in network.layers[1:]:
        try:
            folding.contents.append(FOLDS[type(layer)](folding, layer))
        except LoweringError as refusal:
            if not isinstance(layer, description.Unreadable):  # which was refused when it was read
                refusals.append(refusal)
            folding.contents.append(folding.in_place_of(layer))
        except (IndexError, ValueError):
            # behind a layer that was taken for one that does nothing, shapes need not fit
            if not any(isinstance(one, description.Unreadable) for one in network.layers):
                raise
            return refusals
    try:
        folding.graph()
    except LoweringError as refusal:
        refusals.append(refusal)
    return refusals


def _graph(network: NetworkDescription, levels: Levels) -> Graph | None:
    """The graph of a description; None of a model that was read in part."""
    folding = Folding(network, levels)
    for number, layer in enumerate(network.layers[1:], start=1):
        try:
            folding.contents.append(FOLDS[type(layer)](folding, layer))
        except LoweringError as error:
            error.layer = number  # how far this reading of the example came
            raise
    return folding.graph()


def levels_of(example: Tensor, levels: int | None, mean: Channels, std: Channels) -> Levels:
    """What the example's dtype and range say about the input."""
    read = _levels_of(example, levels, mean, std)
    # most often a mean of bytes, which reach the model as level / 255
    if max(read.mean) > read.high:
        raise ValueError(
            f"mean must be at most {read.high:g}, the largest number that reaches the model, got "
            f"{max(read.mean):g}; bytes are divided by 255 first, and so are their mean and std"
        )
    return read


def _levels_of(example: Tensor, levels: int | None, mean: Channels, std: Channels) -> Levels:
    check_example(example)
    if example.is_complex() or example.is_quantized:
        raise TypeError(f"example must hold real numbers, got {describe(example)}")
    if levels is not None and (
        isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MAX_LEVEL
    ):
        raise ValueError(f"levels must be an integer from 1 to {MAX_LEVEL}, got {describe(levels)}")
    norm = _per_channel("mean", mean, example), _per_channel("std", std, example)
    if any(number <= 0 for number in norm[1]):
        raise ValueError(f"std must be positive, got {min(norm[1]):g}")
    if example.dtype == torch.bool:
        return Levels(levels or 1, 0.0, 1.0, True, *norm)
    smallest, largest = example.detach().min().item(), example.detach().max().item()
    if example.dtype == torch.uint8:
        if levels and largest > levels:
            raise ValueError(f"example must be at most levels={levels}, got {largest}")
        return Levels(levels or 255, 0.0, 1.0, True, *norm)
    if example.is_floating_point():
        real = example.detach()
        is_whole = bool((real == real.round()).all())  # of NaN too, not so
        if smallest >= 0 and largest <= 1:
            return Levels(levels or (1 if is_whole else 255), 0.0, 1.0, False, *norm)
        if not is_whole:
            if smallest >= -1 and largest <= 1:
                return Levels(levels or 255, -1.0, 1.0, False, *norm)
            raise ValueError(
                "example must lie in [0, 1] or [-1, 1], or hold whole numbers, got numbers from "
                f"{smallest:g} to {largest:g}; images of bytes go in as uint8, and a normalization outside "
                "of the model as mean= and std="
            )
    return _counts(int(smallest), int(largest), levels, norm)


def _counts(smallest: int, largest: int, levels: int | None, norm: tuple[Any, Any]) -> Levels:
    """Whole numbers that reach the model as they are, of both signs if there are any below 0."""
    size = max(-smallest, largest, 1)
    if levels and size > levels:
        raise ValueError(f"example must be at most levels={levels} in size, got {size}")
    # counts of other inputs may be larger: as many as the same bits hold
    size = levels or (max(size, min((1 << size.bit_length()) - 1, MAX_LEVEL)) if smallest >= 0 else size)
    top = 2 * size if smallest < 0 else size
    if top > MAX_LEVEL:
        raise ValueError(
            f"example must hold whole numbers up to {MAX_LEVEL}, of both signs up to {MAX_LEVEL // 2}, got "
            f"{smallest} to {largest}. Clip counts, or divide them by the largest, and train with that"
        )
    return Levels(top, -float(size) if smallest < 0 else 0.0, float(size), False, *norm)


def _per_channel(name: str, numbers: Channels, example: Tensor) -> tuple[float, ...]:
    """A mean or std as numbers, one or as many as there are channels."""
    accepted = "one number, or one for each channel"
    try:
        row = tuple(torch.as_tensor(numbers, dtype=torch.float64).flatten().tolist())
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be {accepted}, got {describe(numbers)}") from None
    # the example may have time or not, so that its channels are its second or its third dimension
    if len(row) != 1 and len(row) not in example.shape[1:3]:
        raise ValueError(f"{name} must be {accepted}, got {len(row)}")
    if not all(map(isfinite, row)):
        raise ValueError(f"{name} must be finite, got {row}")
    return row


def _check_that_weights_are_quantized(model: nn.Module) -> None:
    real = [named(path, model.get_submodule(path)) for path in real_weights(model)]
    if real:
        raise LoweringError(
            f"{', '.join(real)}: weights that are real numbers, where integer hardware has codes of 1 to 8 "
            "bits. quantize_weights(model, bits=1) quantizes them; train the model with that"
        )


def real_weights(model: nn.Module) -> list[str]:
    """The paths of the layers whose weights are not quantized."""
    units = [module for module in model.modules() if _is_read_as_one(module)]
    inside = {child for unit in units for child in unit.modules()}
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, FLOAT_LAYERS) and not is_quantized(module) and module not in inside
    ]


def _is_read_as_one(module: nn.Module) -> bool:
    """Whether the layers inside a module are none of the network: it is read, or refused, as a whole."""
    fused = isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer)
    return fused or is_neuron(module) or bool(why_no_layer(module))


# --- layers with weights ------------------------------------------------------------------------------------

Codes = tuple[NDArray[np.int8], float, Sequence[float]]  # codes, bits, scale of each output channel


def _codes(folding: Folding, layer: Layer, weights: description.Weights) -> Codes:
    if weights.altered:
        folding.refuse(
            layer, "changes its quantized weight before it uses it. Let it use the weight as it is"
        )
    if weights.codes is None:
        folding.refuse(
            layer,
            "multiplies with a weight that is no quantized layer's. Use convolutions and Linear modules "
            "and quantize_weights(model, bits=1)",
        )
    codes = weights.codes
    return codes.codes.numpy(), codes.bits, numbers_of(codes.scale)


def _largest_row(codes: NDArray[np.int8]) -> int:
    """How much of its source the largest output of a layer adds up."""
    return int(np.abs(codes.reshape(len(codes), -1).astype(np.int64)).sum(axis=1).max())


def _linear(folding: Folding, layer: description.Linear) -> Content:
    weights, bits, scale = _codes(folding, layer, layer.weights)
    source = folding.addable(layer, folding.content(layer), _largest_row(weights))
    shape, out = folding.shape_of(source), len(weights)
    if layer.at_places:
        # A linear layer at every place is a convolution with a window of 1.
        codes, window = weights[:, :, None, None], Window()
    else:  # a convolution with one window, as large as the map
        codes, window = weights.reshape(out, *shape), Window((shape[1], shape[2]))
    synapse = Synapse(source.index, codes, bits, window, as_map(layer.shape))
    return folding.synapse(layer, source, synapse, scale, layer.bias)


def _convolution(folding: Folding, layer: description.Convolution) -> Content:
    weights, bits, scale = _codes(folding, layer, layer.weights)
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
    content, window = folding.inside(layer, window)
    source = folding.addable(layer, content, _largest_row(weights))
    synapse = Synapse(source.index, codes, bits, window, as_map(layer.shape), layer.groups)
    return folding.synapse(layer, source, synapse, scale, layer.bias)


def _pair(option: Sequence[int], rows: int) -> Pair:
    """(rows, columns) of an option; of a sequence, whose rows are given."""
    return (option[0], option[1]) if len(option) == 2 else (rows, option[0])


def _group_sum(folding: Folding, layer: description.GroupSum) -> Content:
    """A synapse with codes 0 and 1."""
    source = folding.addable(layer, folding.content(layer), layer.places.shape[1])
    shape = folding.shape_of(source)
    # 1.58 bits are the codes -1, 0 and 1, the fewest that have a 0.
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
    # The norm of a sum adds its offset once; folded into every step it would be added T times.
    if layer.sources[0].reduce == "sum":
        folding.refuse(layer, "normalizes a sum over time. Take the mean over time")
    gain = [1.0] * channels if layer.weight is None else numbers_of(layer.weight)
    shift = [0.0] * channels if layer.bias is None else numbers_of(layer.bias)
    after = fold.batch_norm(gain, shift, numbers_of(layer.mean), numbers_of(layer.var), layer.eps)
    current = folding.as_current(layer, content).then(after)
    return Current(current.branches, layer.name, layer.where)


def _affine(folding: Folding, layer: description.Affine) -> Content:
    read = folding.contents[layer.sources[0].layer]
    # a potential that is returned may be multiplied by a number, such as 1 / T of a mean
    is_factor = layer.offset is None and layer.scale is not None and layer.scale.size == 1
    if isinstance(read, Potential) and layer.scale is not None and is_factor:
        return replace(read, scale=read.scale * layer.scale.item())
    content = folding.content(layer)
    if layer.scale is not None:
        content = _scaled(folding, layer, content, _by_channel(folding, layer, layer.scale))
    if layer.offset is not None:
        content = _shifted(folding, layer, content, _by_channel(folding, layer, layer.offset))
    return content


def _by_channel(folding: Folding, layer: Layer, numbers: Exact) -> list[Fraction]:
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
            f"{folding.so_far.input.top} already. Leave the scaling out of the model, so that it takes "
            "numbers from 0 to 1; or, if it is to scale these once more, lower it with such an example in "
            "floating point",
        )
    # a positive factor leaves a map what it is; its numbers are worth more or less
    if isinstance(content, Map) and len(factors) == 1 and factors[0] > 0:
        error = None if content.error is None else np.nextafter(content.error * float(factors[0]), np.inf)
        return replace(content, scale=content.scale * factors[0], error=error)
    current = folding.as_current(layer, content)
    factors = factors if len(factors) > 1 else factors * current.shape[0]
    return current.then(affine(factors, [0] * len(factors)))


def _shifted(
    folding: Folding, layer: description.Affine, content: Numbers, offsets: list[Fraction]
) -> Numbers:
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
        # Scales with little in common have large weights, and the map would no longer hold small counts.
        weights, scale = _common_scale([a, b])
        top = sum(w * folding.top_of(m) for w, m in zip(weights, (a, b), strict=True))
        if top <= _LARGEST_SUM:
            shape = folding.shape_of(a)
            index = folding.add(Sum(layer.name, (a.index, b.index), weights, shape, top))
            zero = sum(w * m.zero for w, m in zip(weights, (a, b), strict=True))
            return Map(index, scale, zero, _sum_of_errors(a, b))
    branches = (*folding.as_current(layer, a).branches, *folding.as_current(layer, b).branches)
    current = Current(branches, layer.name, layer.where)
    # A stream of residuals that several layers read would be added up by each of them, from all of its
    # synapses. Written down, each of these runs once.
    if len(branches) > _MOST_BRANCHES and folding.readers(layer) > 1:
        return folding.written(layer, current, MAX_TOP)
    return current


def _sum_of_errors(a: Map, b: Map) -> NDArray[np.float64] | None:
    errors = [one.error for one in (a, b) if one.error is not None]
    return np.nextafter(sum(errors), np.inf) if errors else None


def _common_scale(maps: Sequence[Map]) -> tuple[tuple[int, ...], Fraction]:
    """Whole weights and one scale: scale * weight is the scale of each map."""
    numerators = [m.scale.numerator for m in maps]
    denominators = [m.scale.denominator for m in maps]
    # The greatest common divisor of fractions: of the numerators over the least common multiple of the
    # denominators.
    common = Fraction(gcd(*numerators), lcm(*denominators))
    return tuple(int(m.scale / common) for m in maps), common


def _factors(folding: Folding, layer: Layer) -> tuple[Map, Map]:
    """The two maps of a product; currents are written down so that what they give fits."""
    contents = [folding.content(layer, 0), folding.content(layer, 1)]
    if any(source.is_reduced for source in layer.sources):
        folding.refuse(layer, "multiplies what is already reduced over time. Multiply at every step")
    tops = [folding.top_of(one) for one in contents if isinstance(one, Map)]
    largest = MAX_TOP // prod(tops) if tops else isqrt(MAX_TOP)
    a, b = (one if isinstance(one, Map) else folding.written(layer, one, largest) for one in contents)
    return a, b


def _check_product(folding: Folding, layer: Layer, top: int) -> int:
    if top > MAX_TOP:
        folding.refuse(
            layer,
            f"makes products that add up to {top}, more than the {MAX_TOP} that a map holds. Put a "
            "neuron in front of it, or pool before it",
        )
    return top


def _multiply(folding: Folding, layer: description.Multiply) -> Content:
    """A map of products. Numbers of both signs count from others than 0, which is subtracted afterwards."""
    a, b = _factors(folding, layer)
    tops = [folding.top_of(one) for one in (a, b)]
    top, shape = _check_product(folding, layer, prod(tops)), folding.shape_of(a)
    product = Map(folding.add(Product(layer.name, (a.index, b.index), shape, top)), a.scale * b.scale)
    if a.zero == b.zero == 0 and a.error is b.error is None:
        return product
    # (p - x)(q - y) = pq - y p - x q + x y
    parts = [product, replace(a, scale=-product.scale * b.zero), replace(b, scale=-product.scale * a.zero)]
    branches = [
        folding.as_current(layer, replace(one, zero=0, error=None)).branches[0] for one in parts if one.scale
    ]
    errors = [np.zeros(shape[0]) if one.error is None else one.error for one in (a, b)]
    sizes = [float(one.scale * max(one.zero, top - one.zero)) for one, top in zip((a, b), tops, strict=True)]
    error = np.nextafter(
        (sizes[0] * errors[1] + sizes[1] * errors[0] + errors[0] * errors[1]) * (1 + 2**-40), np.inf
    )
    constant = product.scale * a.zero * b.zero
    after = replace(affine([1] * shape[0], [constant] * shape[0]), error=decimals(error))
    return Current(tuple(branches), layer.name, layer.where).then(after)


def _matmul(folding: Folding, layer: description.MatMul) -> Content:
    a, b = (folding.unsigned(layer, one, "makes a product of matrices") for one in _factors(folding, layer))
    left, right = (folding.shape_of(one) for one in (a, b))
    top = left[2] * prod(folding.top_of(one) for one in (a, b))
    shape = (left[0], left[1], right[2])
    op = MatMul(layer.name, (a.index, b.index), shape, _check_product(folding, layer, top))
    return Map(folding.add(op), a.scale * b.scale)


def _gather(folding: Folding, layer: description.Gather) -> Content:
    content = folding.content(layer)
    if layer.fill and layer.sources[0].reduce == "sum":
        folding.refuse(layer, "pads a sum over time with a number. Take the mean over time, or pad with 0")
    fills = bool(layer.fill)
    before = None if fills else _zeros_before(layer.places, folding.shape_of(content), as_map(layer.shape))
    return folding.moved(layer, content) if before is None else Padded(layer, content, before)


def _zeros_before(places: NDArray[np.int64], source: Shape, shape: Shape) -> Pair | None:
    """How many rows and columns of zeros stand in front of a map that is padded; None if it is moved too."""
    inside = np.argwhere(places.reshape(shape) >= 0)
    if len(inside) != prod(source) or shape[0] != source[0]:
        return None
    before = inside[0].tolist()
    behind = [total - length - front for total, length, front in zip(shape, source, before, strict=True)]
    if min(behind) < 0:
        return None
    numbers = np.arange(prod(source)).reshape(source)
    padded = np.pad(numbers, list(zip(before, behind, strict=True)), constant_values=-1)
    return (before[1], before[2]) if np.array_equal(padded.ravel(), places) else None


def _concat(folding: Folding, layer: description.Concat) -> Content:
    contents = [folding.content(layer, place) for place in range(len(layer.sources))]
    maps = [one for one in contents if isinstance(one, Map) and not one.zero and one.error is None]
    if len(maps) == len(contents) and not any(source.is_reduced for source in layer.sources):
        weights, scale = _common_scale(maps)
        top = max(w * folding.top_of(one) for w, one in zip(weights, maps, strict=True))
        if top <= _LARGEST_SUM:
            indices = tuple(one.index for one in maps)
            return Map(folding.add(Concat(layer.name, indices, weights, as_map(layer.shape), top)), scale)
    return _side_by_side(folding, layer, [folding.as_current(layer, one) for one in contents])


def _side_by_side(folding: Folding, layer: Layer, currents: Sequence[Current]) -> Current:
    """Currents one behind the other: each synapse has outputs for all of them, with codes of 0 elsewhere."""
    widths = [one.shape[0] for one in currents]
    total, branches = sum(widths), []
    for number, current in enumerate(currents):
        before = sum(widths[:number])
        behind = total - before - widths[number]
        for branch in current.branches:
            synapse = branch.synapse
            codes = np.pad(without_groups(synapse), ((before, behind), (0, 0), (0, 0), (0, 0)))
            pool = synapse.pool and replace(synapse.pool, shape=(total, *synapse.pool.shape[1:]))
            widened = replace(
                synapse,
                codes=codes,
                bits=1.58 if synapse.bits == 1 else synapse.bits,  # one bit has no 0
                shape=(total, *synapse.shape[1:]),
                groups=1,
                pool=pool,
            )
            worth = branch.affine
            rows = [
                np.broadcast_to(np.asarray(row), (widths[number],))
                for row in (worth.scale, worth.offset, worth.error)
            ]
            zeros = decimals([0] * before), decimals([0] * behind)
            affines = [np.concatenate([zeros[0], row, zeros[1]]) for row in rows]
            branches.append(Branch(widened, Affine(*affines)))
    return Current(tuple(branches), layer.name, layer.where)


# --- pools --------------------------------------------------------------------------------------------------


def _pool(folding: Folding, layer: description.Pool) -> Content:
    if layer.largest and layer.sources[0].reduce:
        folding.refuse(
            layer, "takes the largest of numbers that are already reduced over time. Pool at every step"
        )
    window = Window(
        _pair(layer.size, 1), _pair(layer.stride, 1), _pair(layer.padding, 0), _pair(layer.dilation, 1)
    )
    content, window = folding.inside(layer, window, of_counts=True)
    if isinstance(content, Map):
        return _pooled_map(folding, layer, content, window)
    return _pooled_current(folding, layer, content, window)


def _divisor(layer: description.Pool) -> Fraction:
    """What the sum of a window is divided by."""
    return Fraction(1) if layer.largest else Fraction(layer.divisor or prod(layer.size))


def _pooled_map(folding: Folding, layer: description.Pool, content: Map, window: Window) -> Map:
    # The largest of a window is no larger than the map's; the sum is up to as many times larger as the window
    # has places.
    count = 1 if layer.largest else prod(window.size)
    if folding.top_of(content) * count > MAX_TOP:
        content = folding.written(layer, folding.as_current(layer, content), MAX_TOP // count)
    if not layer.largest:  # the largest is never the padding, which is the smallest number there is
        content, window = folding.padded(layer, content, window, as_map(layer.shape))
    top = folding.top_of(content) * count
    kind = "max" if layer.largest else "sum"
    index = folding.add(Pool(layer.name, content.index, kind, window, as_map(layer.shape), top))  # type: ignore[arg-type]
    divisor = _divisor(layer)
    error = None if content.error is None else np.nextafter(content.error * float(count / divisor), np.inf)
    return Map(index, content.scale / divisor, content.zero * count, error)


def _pooled_current(
    folding: Folding, layer: description.Pool, current: Current, window: Window
) -> Map | Current:
    windows = [_over(folding, branch.synapse, layer.largest, window) for branch in current.branches]
    if None in windows or (layer.largest and len(windows) > 1):
        largest = MAX_TOP // (1 if layer.largest else prod(window.size))
        return _pooled_map(folding, layer, folding.written(layer, current, largest), window)
    # a bias or a norm does not reach the padding
    beyond = not layer.largest and (layer.is_partial or any(window.padding))
    padded = beyond and current.has_offset()
    # The pool is applied to what the synapse has added up, before that meets a threshold.
    kind, shape = "max" if layer.largest else "sum", as_map(layer.shape)
    scale = 1 / _divisor(layer)
    # the sum of a window has its offset once for every number, as scale * sum * numbers is the mean's
    times = Fraction(1) if layer.largest else scale * prod(window.size)
    branches = []
    for branch, over in zip(current.branches, windows, strict=True):
        # the largest current is that of the largest number only where the number's scale is positive
        rising = _rising(folding, layer, branch) if layer.largest else branch
        worth = replace(rising.affine.times(times), scale=rising.affine.times(scale).scale)
        if padded:
            worth = replace(worth, offset=worth.offset * 0)
        pool = CurrentPool(kind, over, shape)  # type: ignore[arg-type]
        branches.append(Branch(replace(rising.synapse, pool=pool), worth))
    if padded:
        branches.append(_offset_within(folding, layer, current, window, scale))
    return Current(tuple(branches), layer.name, layer.where)


def _over(folding: Folding, synapse: Synapse, largest: bool, window: Window) -> Window | None:
    """The one window that pools what a synapse adds up, pooled already or not; None if there is none."""
    first = synapse.pool
    bound = int(synapse_bound(synapse, folding.so_far.map_top(synapse.source)).max())
    if not largest and bound * prod(window.size) >= MAX_ACCUMULATED:
        return None
    if first is None:
        return window
    tiles, (rows, columns) = first.window, first.window.size
    # tiles that cover all of the map: a window over sums of them is a larger one, with as much padding
    covers = (first.shape[1] * rows, first.shape[2] * columns) == synapse.shape[1:]
    if largest or first.kind != "sum" or tiles != Window(tiles.size, tiles.size) or not covers:
        return None
    if window.dilation != (1, 1):
        return None
    size, stride, padding = ((a * rows, b * columns) for a, b in (window.size, window.stride, window.padding))
    return Window(size, stride, padding)


def _offset_within(
    folding: Folding, layer: description.Pool, current: Current, window: Window, scale: Fraction
) -> Branch:
    """The offset of a current once for each place of a window that lies within the map."""
    channels, rows, columns = current.shape
    ones = folding.ones(layer, current.index, (1, rows, columns))
    codes = np.ones((channels, 1, *window.size), np.int8)
    offset: Any = sum(branch.affine.offset for branch in current.branches)
    synapse = Synapse(ones, codes, 1, window, as_map(layer.shape))
    return Branch(synapse, affine(offset, [0] * channels).times(scale))


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
    return Branch(synapse, replace(branch.affine, scale=scale))


def _time_pool(folding: Folding, layer: description.TimePool) -> Content:
    content = folding.held(layer.sources[0].layer)
    if isinstance(content, Potential):
        folding.refuse(layer, f"reads the membrane potential of {content.where}. Pool its spikes")
    if isinstance(content, Current):
        content = folding.written(layer, content, MAX_TOP)
    shape, top = folding.shape_of(content), folding.top_of(content)
    return replace(content, index=folding.add(TimePool(layer.name, content.index, layer.window, shape, top)))


# --- neurons, and what cannot be said -----------------------------------------------------------------------


def _neurons(folding: Folding, layer: description.Neurons) -> Content:
    content = folding.held(layer.sources[0].layer)
    if isinstance(content, Potential):
        folding.refuse(layer, f"reads the membrane potential of {content.where}. Use its spikes")
    # Behind a pooling over time a layer takes fewer, longer steps.
    steps = folding.network.steps // layer.period
    current = folding.as_current(layer, content)
    kernel = layer.kernel
    # A decay of 0 remembers nothing, so that nothing can be forgotten.
    if isinstance(kernel, Exponential) and kernel.order is None and bool(as_row(kernel.decay).any()):
        folding.forgetful.append(layer.where)
    # Number of the layer: contents has one of each layer before it.
    if not folding.network.reads_spikes(len(folding.contents)):
        return Potential(layer.where, layer, current, None)
    values = whole_numbers(layer, steps)  # an infinite exponential remembers T steps of its own
    if len(values.taps) not in (1, steps):
        folding.refuse(
            layer,
            f"has a matrix kernel of T = {len(values.taps)} steps, and its input has {steps}. Make it with "
            f"time_steps={steps}",
        )
    columns = 1 if values.own_taps is None else values.own_taps.shape[1]
    if max(values.taps.shape[2], len(values.v_threshold), columns) > 1:
        _check_channels(folding, layer)
    way_back = [] if layer.recurrent is None else [_way_back(folding, layer, layer.recurrent, current)]
    folded = fold.thresholds(
        [one.affine for one in (*current.branches, *way_back)],
        [*folding.bounds(current), *(synapse_bound(one.synapse, 1) for one in way_back)],
        values,
    )
    own = len(current.branches)
    # What was real so far (scales, norms, biases) is now in the thresholds, and spikes are worth 1.
    op = Neurons(
        layer.name,
        in_whole_factors(current.branches, folded.factors[:own]),
        values.taps,
        folded.thresholds,
        current.shape,
        folded.unit,
        folded.error,
        folded.feedback,
        in_whole_factors(way_back, folded.factors[own:]),
    )
    index = folding.add(op)
    folding.currents[index] = current
    return Map(index, Fraction(1))


def _check_channels(folding: Folding, layer: description.Neurons) -> None:
    """Refuses parameters for each channel where a step no longer begins with the channels."""
    if layer.sources[0].dims[:1] != (of_features(layer.shape)[0],):
        folding.refuse(
            layer,
            f"has taps or a threshold for each channel of dim 2, but there lie {list(layer.features[:1])} "
            f"numbers, while the map has {layer.shape[0]} channels. Put it before the flattening",
        )


def _way_back(
    folding: Folding, layer: description.Neurons, recurrent: description.Recurrent, current: Current
) -> Branch:
    """The synapse through which the layer reads its own spikes of the step before."""
    own = len(folding.so_far.ops) + 1  # the map that the neurons are about to make
    shape, channels = current.shape, current.shape[0]
    window, bits, groups = Window(), 1.0, 1
    if recurrent.weights is None:
        # one number each: a depthwise convolution with a window of 1, whose scale is the number
        assert recurrent.factor is not None
        factor = _by_channel(folding, layer, recurrent.factor)
        scale: Sequence[Any] = factor if len(factor) > 1 else factor * channels
        codes, groups = np.ones((channels, 1, 1, 1), np.int8), channels
    else:
        codes, bits, scale = _codes(folding, layer, recurrent.weights)
        if recurrent.padding:
            window = Window((codes.shape[2], codes.shape[3]), padding=_pair(recurrent.padding, 0))
        else:
            codes = codes.reshape(channels, *shape)
    worth = affine(scale, [0] * channels)
    codes, bits, worth = _in_smaller_units(codes, bits, worth, current)
    return Branch(Synapse(own, codes, bits, window, shape, groups), worth)


def _in_smaller_units(
    codes: NDArray[np.int8], bits: float, worth: fold.Affine, current: Current
) -> tuple[NDArray[np.int8], float, fold.Affine]:
    """The same weights as larger codes, where one spike is worth far more than a number beside it.

    The factors of both have 31 bits, and what is left for the smaller one would round the sum too much.
    """
    beside = [abs(a) for branch in current.branches for a in branch.affine.scale if a]
    largest = int(np.abs(codes.astype(np.int64)).max())
    shift = 0
    while (
        beside
        and largest << shift + 1 <= 127
        and max(map(abs, worth.scale)) > min(beside) * 2 ** (_NEAR + shift)
    ):
        shift += 1
    if not shift:
        return codes, bits, worth
    wide = (codes.astype(np.int64) << shift).astype(np.int8)
    return wide, (largest << shift).bit_length() + 1, worth.times(Fraction(1, 2**shift))


def _potential(folding: Folding, layer: description.Potential) -> Content:
    number = layer.sources[0].layer
    neurons, content = folding.network.layers[number], folding.contents[number]
    assert isinstance(neurons, description.Neurons)
    if isinstance(content, Potential):  # of neurons whose spikes nobody needs
        return content
    assert isinstance(content, Map)
    current = folding.currents[content.index]
    return Potential(neurons.where, neurons, current, content.index, layer.after_reset)


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
    description.MatMul: _matmul,
    description.Concat: _concat,
    description.Gather: _gather,
    description.Pool: _pool,
    description.TimePool: _time_pool,
    description.Neurons: _neurons,
    description.Potential: _potential,
    description.Unreadable: _unreadable,
}
