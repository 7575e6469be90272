"""What a tensor of the model is while it is exported: a sum of nodes, each times a scale plus an offset."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..deploy.lowering.axes import Dims

Floats = NDArray[np.float64]
Shape = tuple[int, ...]
Reduction = Literal["mean", "sum"]


@dataclass(frozen=True, eq=False)
class Node:
    """A node that is in the graph already.

    Attributes:
        name: in the graph.
        shape: of one step of one sample.
        binary: whether its numbers are 0 or 1.
    """

    name: str
    shape: Shape
    binary: bool = False

    @property
    def key(self) -> Any:
        return self.name


@dataclass(frozen=True, eq=False)
class Synapse:
    """A layer with a weight, which enters the graph once it is known what is folded into it.

    Attributes:
        path: of the module.
        kind: "Linear", "Conv1d" or "Conv2d".
        sources: names of the nodes that it adds up and reads.
        shape: of what it gives.
        weight, bias: the layer's own; [out, in / groups, *] and [out] or None.
        options: stride, padding, dilation, groups and input_shape of a convolution.
        codes: int8 codes, scale [out] and bits of a quantized layer.
        key: equal for equal computations.
    """

    path: str
    kind: str
    sources: tuple[str, ...]
    shape: Shape
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    options: dict[str, Any]
    codes: tuple[NDArray[np.int8], NDArray[Any], float] | None
    key: Any


@dataclass(frozen=True, eq=False)
class Norm:
    """An evaluated batch norm as its module holds it: statistics and affine map [C], and eps."""

    mean: NDArray[Any]
    var: NDArray[Any]
    weight: NDArray[Any] | None
    bias: NDArray[Any] | None
    eps: float

    def affine(self) -> tuple[Floats, Floats]:
        """Scale and offset, computed in float64.

        >>> Norm(np.float32([1]), np.float32([4]), None, np.float32([3]), 0.0).affine()
        (array([0.5]), array([2.5]))
        """
        scale = 1 / np.sqrt(self.var.astype(np.float64) + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.astype(np.float64)
        shift = 0.0 if self.bias is None else self.bias.astype(np.float64)
        return scale, shift - self.mean.astype(np.float64) * scale


@dataclass(frozen=True, eq=False)
class Term:
    """scale * numbers of a node + offset.

    Attributes:
        of: the node.
        scale, offset: broadcast over its shape; None for 1 and 0.
        norm: the one batch norm that scale and offset are; None if there is none, or more was done.
    """

    of: Node | Synapse
    scale: Floats | None = None
    offset: Floats | None = None
    norm: Norm | None = None

    def then(self, scale: Floats, offset: Floats | None, norm: Norm | None = None) -> "Term":
        first = self.scale is None and self.offset is None
        shift = None if self.offset is None else self.offset * scale
        if offset is not None:
            shift = offset if shift is None else shift + offset
        return Term(
            self.of, scale if self.scale is None else self.scale * scale, shift, norm if first else None
        )


@dataclass(frozen=True, eq=False)
class Signal:
    """The sum of terms, all of one shape."""

    terms: tuple[Term, ...]
    shape: Shape

    def then(self, scale: Floats, offset: Floats | None, norm: Norm | None = None) -> "Signal":
        """scale * this + offset; both broadcast over the shape."""
        alone = norm if len(self.terms) == 1 else None
        made = [term.then(scale, None if i else offset, alone) for i, term in enumerate(self.terms)]
        return replace(self, terms=tuple(made))

    def plus(self, other: "Signal") -> "Signal":
        """The sum; a node that is in both is added up here, for a graph has one edge between two nodes."""
        terms = list(self.terms)
        for term in other.terms:
            places = [i for i, one in enumerate(terms) if one.of.key == term.of.key]
            if places:
                terms[places[0]] = _added(terms[places[0]], term)
            else:
                terms.append(term)
        return replace(self, terms=tuple(terms))

    def is_binary(self) -> bool:
        """Whether all of its numbers are 0 or 1."""
        first = self.terms[0]
        plain = first.scale is None and first.offset is None
        return len(self.terms) == 1 and plain and isinstance(first.of, Node) and first.of.binary

    @property
    def key(self) -> Any:
        return tuple(
            (t.of.key, *(None if a is None else a.tobytes() for a in (t.scale, t.offset))) for t in self.terms
        )


def of(node: Node | Synapse) -> Signal:
    """A node as it is."""
    return Signal((Term(node),), node.shape)


def _added(a: Term, b: Term) -> Term:
    one = np.ones(1)
    scale = (one if a.scale is None else a.scale) + (one if b.scale is None else b.scale)
    offsets = [term.offset for term in (a, b) if term.offset is not None]
    return Term(a.of, scale, sum(offsets[1:], offsets[0]) if offsets else None)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the model.

    Attributes:
        content: what its numbers are.
        dims: where they are.
        reduce: how the steps were reduced; None while there are steps.
        last: over how many of the last steps; None for all.
        step: the one step that it is of, in a model that loops over time; None elsewhere.
    """

    content: Signal
    dims: Dims
    reduce: Reduction | None = None
    last: int | None = None
    step: int | None = None

    def has_time(self) -> bool:
        return any(axis.kind == "T" for dim in self.dims for axis in dim)
