"""Two signals place by place, which torch broadcasts, and rules of matrix products of two of them."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .advice import PRODUCT
from .axes import Dim, Dims, Shape, extended, join, kinds, labels, of_features, places, sizes
from .capture import StandIn
from .description import MatMul, Source, as_map
from .tracing import Tracer, Value, rule

Pairs = Sequence[tuple[int, int]]


def aligned(tracer: Tracer, a: Value, b: Value) -> tuple[Value, Value, Dims] | None:
    """Two values whose layers have one shape and the same places, and the dimensions that both are of.

    Numbers are repeated as torch broadcasts them. None where steps or samples meet features, or others.
    """
    shapes = tracer.layer(a).shape, tracer.layer(b).shape
    dims = join(a.dims, b.dims)
    if dims is not None and as_map(shapes[0]) == as_map(shapes[1]):
        return a, b, dims
    rank = max(len(a.dims), len(b.dims))
    a, b = (replace(one, dims=extended(one.dims, rank)) for one in (a, b))
    leads = tracer.lead(a), tracer.lead(b)
    lead = max(leads)
    outer = join(a.dims[:lead], b.dims[:lead])
    if outer is None or any(kinds(dim) & {"F"} for dim in outer):
        return None
    inner = [one.dims[lead:] for one in (a, b)]
    grid = np.broadcast_shapes(*map(sizes, inner))
    own = [_places(one, grid) for one in inner]
    # One of them is moved to where the other's numbers lie, or both into the order of the tensor.
    for first, second in ((0, 1), (1, 0)):
        values, shape = [a, b], shapes[first]
        if own[first].size == prod(shape) == len(np.unique(own[first])):
            wanted = np.empty(prod(shape), np.int64)
            wanted[own[first].ravel()] = _grid_places(sizes(inner[second]), grid).ravel()
            values[second] = tracer.gathered(values[second], lead, wanted.reshape(shape))
            features = inner[first]
            break
    else:
        values = [
            tracer.gathered(value, lead, _grid_places(sizes(dims), grid))
            for value, dims in zip((a, b), inner, strict=True)
        ]
        features = of_features(grid)
    x, y = (
        replace(value, dims=(*old.dims[:lead], *features)) for value, old in zip(values, (a, b), strict=True)
    )
    return x, y, (*outer, *features)


def _places(dims: Dims, grid: Shape) -> NDArray[np.int64]:
    """The places in their layer that features have along some dimensions, broadcast."""
    own = places([axis for dim in dims for axis in dim])
    return np.broadcast_to(own.reshape(sizes(dims)), grid)


def _grid_places(own: Shape, grid: Shape) -> NDArray[np.int64]:
    """The places in a tensor of a shape, broadcast."""
    return np.broadcast_to(np.arange(prod(own)).reshape(own), grid)


@rule("matmul", "rmatmul", "mm", "bmm")
def matmul(tracer: Tracer, result: Tensor, a: Any, b: Any) -> Value:
    left, right = _signals(tracer, a, b)
    if tracer.name == "rmatmul":  # as __rmatmul__ has it
        left, right = right, left
    if min(len(left.dims), len(right.dims)) < 2:
        tracer.refuse("multiplies with a vector of the network. Give both two dimensions or more")
    rank = max(len(left.dims), len(right.dims))
    left, right = (replace(one, dims=extended(one.dims, rank)) for one in (left, right))
    batch = [(place, place) for place in range(rank - 2)]
    return _contracted(tracer, left, right, batch, [rank - 2], [rank - 1], [(rank - 1, rank - 2)])


@rule("einsum")
def einsum(tracer: Tracer, result: Tensor, equation: Any, *operands: Any) -> Value:
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    text = str(equation).replace(" ", "")
    if len(tensors) != 2 or "->" not in text or "." in text:
        tracer.refuse(
            f"calls einsum({text!r}) of {len(tensors)} tensors. Two tensors, a letter for each dimension "
            "and an arrow are read: einsum('bnd,bmd->bnm', q, k)"
        )
    left, right = _signals(tracer, *tensors)
    terms, output = text.split("->")
    a, b = terms.split(",")
    if any(len(set(term)) < len(term) for term in (a, b, output)) or (set(a) ^ set(b)) - set(output):
        tracer.refuse(
            f"calls einsum({text!r}), which takes a diagonal or a sum of one of the two alone. Do that "
            "in front of it"
        )
    batch = [letter for letter in output if letter in a and letter in b]
    rows, columns = ([letter for letter in output if letter in one and letter not in batch] for one in (a, b))
    summed = [letter for letter in a if letter not in output]
    value = _contracted(
        tracer,
        left,
        right,
        [(a.index(letter), b.index(letter)) for letter in batch],
        [a.index(letter) for letter in rows],
        [b.index(letter) for letter in columns],
        [(a.index(letter), b.index(letter)) for letter in summed],
    )
    order = [*batch, *rows, *columns]
    return replace(value, dims=tuple(value.dims[order.index(letter)] for letter in output))


def _signals(tracer: Tracer, a: Any, b: Any) -> tuple[Value, Value]:
    """Two values of the same steps; fixed numbers among them are those of a layer."""
    if not isinstance(a, StandIn) or not isinstance(b, StandIn):
        tracer.give_up(
            tracer.name,
            f"calls {tracer.name} with fixed numbers",
            "Use a Linear module for a product with weights, which quantize_weights quantizes",
        )
    x, y = a.value, b.value
    tracer.check_equal_periods(x, y)
    if x.is_reduced or y.is_reduced or x.step != y.step:
        tracer.refuse(f"multiplies what was reduced over time, or different steps. {PRODUCT}")
    return x, y


def _contracted(
    tracer: Tracer,
    a: Value,
    b: Value,
    batch: Pairs,
    rows: Sequence[int],
    columns: Sequence[int],
    summed: Pairs,
) -> Value:
    """The sum of products over some pairs of dimensions; its own are ``batch``, ``rows`` and ``columns``."""
    outer: list[Dim] = []
    for i, j in batch:
        dims = a.dims[i], b.dims[j]
        is_outer = bool((kinds(dims[0]) | kinds(dims[1])) - {"F"})
        joined = join(dims[:1], dims[1:])
        if is_outer and (joined is None or "F" in kinds(joined[0])):
            tracer.refuse(
                f"multiplies matrices of unlike steps or samples, or of both and heads in one "
                f"({_both(a, b)}). Keep time, batch and heads in dimensions of their own"
            )
        outer.append(joined[0] if is_outer and joined else ())
    inner = [pair for pair, dim in zip(batch, outer, strict=True) if not dim]
    others = [a.dims[i] for i in (*rows, *(i for i, _ in summed))]
    others += [b.dims[j] for j in (*columns, *(j for _, j in summed))]
    if any(kinds(dim) - {"F"} for dim in others):
        tracer.refuse(
            f"multiplies matrices of time or of the batch ({_both(a, b)}). Rows and columns are features"
        )

    def count(dims: Dims, chosen: Sequence[int]) -> Shape:
        return sizes(tuple(dims[place] for place in chosen))

    of_batch = np.broadcast_shapes(count(a.dims, [i for i, _ in inner]), count(b.dims, [j for _, j in inner]))
    height, width = count(a.dims, rows), count(b.dims, columns)
    depth = prod(count(a.dims, [i for i, _ in summed]))
    matrices = prod(of_batch)
    left = _matrices(
        tracer, a, [i for i, _ in inner], of_batch, [*rows, *(i for i, _ in summed)], (prod(height), depth)
    )
    right = _matrices(
        tracer, b, [j for _, j in inner], of_batch, [*(j for _, j in summed), *columns], (depth, prod(width))
    )
    number = tracer.emit(MatMul, [left, right], (matrices, prod(height), prod(width)))
    features = iter(of_features((*of_batch, *height, *width)))
    leading = [dim or next(features) for dim in outer]
    return replace(a, layer=number, dims=(*leading, *features))


def _matrices(
    tracer: Tracer, value: Value, batch: Sequence[int], grid: Shape, others: Sequence[int], matrix: Shape
) -> Source:
    """A value as matrices [B, *matrix] of its features along some dimensions, repeated as the grid says."""
    lead = tracer.lead(value)
    chosen = [*batch, *others]
    own = sizes(value.dims[lead:])
    # the features of size 1 that belong to no matrix have one place, whatever is done with them
    grouped = (
        np.arange(prod(own))
        .reshape(own)
        .transpose(
            [
                *(place - lead for place in chosen if place >= lead),
                *(place - lead for place in range(lead, len(value.dims)) if place not in chosen),
            ]
        )
    )
    shape = (*sizes(tuple(value.dims[place] for place in batch)), *matrix)
    spread = np.broadcast_to(grouped.reshape(shape), (*grid, *matrix)).reshape(-1, *matrix)
    return tracer.source(tracer.gathered(value, lead, spread), lead)


def _both(a: Value, b: Value) -> str:
    return f"{labels(a.dims)} and {labels(b.dims)}"
