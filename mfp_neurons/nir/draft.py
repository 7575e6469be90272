"""The graph that grows: what a layer gives as sums of nodes, their names, and what folds into a weight.

What NIR has no node for (factors, offsets, batch norms) waits in the terms of a :class:`Signal` until a node
reads it, and is folded into the layer in front of it then.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from mfp_neurons import __version__

from ..network.axes import Shape
from .convolution import widened
from .errors import NIRError

Floats = NDArray[np.float64]


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
        # s2 (s1 x + o1) + o2 = s1 s2 x + (o1 s2 + o2). A batch norm can be restored on import only where it
        # is all that was folded.
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
        # The norm of a sum of several terms is the norm of none of them, so none can be restored from it.
        alone = norm if len(self.terms) == 1 else None
        # Every term is scaled, but the offset belongs to the sum: the first term alone takes it.
        terms = (term.then(scale, None if i else offset, alone) for i, term in enumerate(self.terms))
        return replace(self, terms=tuple(terms))

    def plus(self, other: "Signal") -> "Signal":
        """The sum; a node that is in both is added up here, for a graph has one edge between two nodes."""
        terms = list(self.terms)
        for term in other.terms:
            # x + x has one edge from x, of factor 2.
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
    # a x + b x = (a + b) x.
    one = np.ones(1)
    scale = (one if a.scale is None else a.scale) + (one if b.scale is None else b.scale)
    offsets = [term.offset for term in (a, b) if term.offset is not None]
    return Term(a.of, scale, sum(offsets[1:], offsets[0]) if offsets else None)


class Draft:
    """Nodes and edges so far.

    Args:
        shape: of one step of the input.
        binary: whether the input is spikes.
        dtype: of weights and thresholds.
    """

    def __init__(self, shape: Shape, binary: bool, dtype: type[np.floating[Any]]) -> None:
        self.input_shape, self.dtype = shape, dtype
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.input = Node("input", shape, binary)
        self._names: dict[Any, str] = {}
        self._taken = {"input", "output"}
        self._input_is_read = False

    def add(self, node: Any, base: str, shape: Shape, source: Signal, *, binary: bool = False) -> Node:
        """A node behind ``source``; the same one, if it is there already."""
        # Asking for their names puts all that the source is made of into the graph.
        names = self.names(source)
        # Equal nodes behind the same sources give the same numbers, so one of them is enough.
        key = (type(node), base, names, _digest(node))
        if key not in self._names:
            self._names[key] = self._enter(node, base, names)
        return Node(self._names[key], shape, binary)

    def names(self, signal: Signal) -> tuple[str, ...]:
        """The nodes whose sum a signal is."""
        return tuple(self._name(term, signal.shape) for term in signal.terms)

    def reshape_input(self, shape: Shape) -> Signal | None:
        """The input in another shape, as long as nothing has read it."""
        # A node that is in the graph already expects the input as it is.
        if self._input_is_read:
            return None
        self.input_shape = shape
        self.input = Node("input", shape, self.input.binary)
        return Signal((Term(self.input),), shape)

    def is_input(self, signal: Signal) -> bool:
        term = signal.terms[0]
        plain = term.scale is None and term.offset is None
        return len(signal.terms) == 1 and plain and term.of.key == self.input.key

    def flattened(self, signal: Signal) -> Signal:
        """All features of a signal in one row."""
        names = self.names(signal)
        count = prod(signal.shape)
        node = nir.Flatten({"input": np.array(signal.shape)}, start_dim=0, end_dim=-1)
        return of(self.add(node, f"{names[0]}_flat", (count,), signal, binary=signal.is_binary()))

    def settled(self, signal: Signal) -> Signal:
        """The same with every layer in the graph, so that nothing more is folded into it."""
        nodes = (
            Term(Node(self._name(term, signal.shape), signal.shape, signal.is_binary()))
            for term in signal.terms
        )
        return Signal(tuple(nodes), signal.shape)

    def graph(self, output: Signal, facts: dict[str, Any]) -> Any:
        """The graph that gives ``output``, without the nodes that it does not need."""
        ends = self.names(output)
        if len(ends) > 1:  # nirtorch hands out what meets at an Output one by one, not as a sum
            ends = (self.add(nir.Scale(np.ones(output.shape, self.dtype)), "sum", output.shape, output).name,)
        # From the end to the beginning: a potential, for example, is often drafted and read by nobody.
        needed, left = {"input"}, list(ends)
        while left:
            name = left.pop()
            if name not in needed:
                needed.add(name)
                left += [source for source, target in self.edges if target == name]
        nodes = {"input": nir.Input(np.array(self.input_shape))}
        nodes |= {name: node for name, node in self.nodes.items() if name in needed}
        nodes["output"] = nir.Output(np.array(output.shape))
        edges = [(a, b) for a, b in self.edges if b in needed] + [(name, "output") for name in ends]
        return nir.NIRGraph(nodes, edges, metadata=facts)

    def _enter(self, node: Any, base: str, sources: tuple[str, ...]) -> str:
        # torch refuses a dot in the name of a module, and in a file a slash would open a group.
        wanted = base.replace(".", "_").replace("/", "_") or type(node).__name__.lower()
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def _name(self, term: Term, shape: Shape) -> str:
        self._input_is_read |= term.of.key == "input"
        if isinstance(term.of, Synapse):
            return self._synapse(term.of, term)
        if term.scale is None and term.offset is None:
            return term.of.name
        if term.offset is None or not term.offset.any():
            assert term.scale is not None
            # A factor of 1 needs no node.
            if bool((term.scale == 1).all()):
                return term.of.name
            scale = np.broadcast_to(term.scale, shape).astype(self.dtype)
            return self.add(nir.Scale(scale), f"{term.of.name}_scale", shape, _plain(term, shape)).name
        return self._shifted(term, shape)

    def _shifted(self, term: Term, shape: Shape) -> str:
        """A node plus an offset that no layer in front of it can take: one more layer, of weight 1 each."""
        assert isinstance(term.of, Node) and term.offset is not None
        base, source = f"{term.of.name}_affine", _plain(term, shape)
        scale = np.ones(shape) if term.scale is None else np.broadcast_to(term.scale, shape)
        offset = np.broadcast_to(term.offset, shape)
        # NIR's Scale has no offset. A layer that reads each number or channel by itself says the same, and
        # has a bias.
        if len(shape) == 1:
            node = nir.Affine(np.diag(scale).astype(self.dtype), offset.astype(self.dtype))
            return self.add(node, base, shape, source).name
        # On maps the layer is a convolution with a window of 1, with one factor and one offset for each
        # channel.
        per_channel = [array.reshape(shape[0], -1)[:, 0] for array in (scale, offset)]
        if len(shape) != 3 or any(
            (array.reshape(shape[0], -1) != row[:, None]).any()
            for array, row in zip((scale, offset), per_channel, strict=True)
        ):
            raise NIRError(
                f"{term.of.name!r} is followed by the addition of {offset.size} numbers, one for each place. "
                "NIR adds what a layer has as its bias: one number for each channel"
            )
        weight = np.diag(per_channel[0])[:, :, None, None].astype(self.dtype)
        node = nir.Conv2d(shape[1:], weight, (1, 1), (0, 0), (1, 1), 1, per_channel[1].astype(self.dtype))
        return self.add(node, base, shape, source).name

    def _synapse(self, synapse: Synapse, term: Term) -> str:
        # A layer that is read twice, with different factors behind it, becomes two layers with a weight each.
        key = (synapse.key, *(None if a is None else a.tobytes() for a in (term.scale, term.offset)))
        if key not in self._names:
            weight, bias = folded(
                synapse.weight, synapse.bias, _row(term.scale), _row(term.offset), self.dtype
            )
            facts = _facts(synapse, term)
            self._names[key] = self._enter(
                _layer(synapse, weight, bias, facts), synapse.path, synapse.sources
            )
        return self._names[key]


def folded(
    weight: NDArray[Any], bias: NDArray[Any] | None, scale: Floats | None, offset: Floats | None, dtype: Any
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Weight and bias of a layer followed by scale * y + offset, [out] or [1] each, computed in float64.

    >>> folded(np.float32([[1, 2]]), None, np.array([0.5]), np.array([3.0]), np.float32)
    (array([[0.5, 1. ]], dtype=float32), array([3.], dtype=float32))
    """
    if scale is None and offset is None:
        return weight.astype(dtype), None if bias is None else bias.astype(dtype)
    shift = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    # The numbers are rounded once, at the end.
    product = weight.astype(np.float64)
    if scale is not None:
        row = np.broadcast_to(scale, len(weight))
        product, shift = product * row.reshape(-1, *[1] * (weight.ndim - 1)), shift * row
    shift = shift if offset is None else shift + offset
    return product.astype(dtype), shift.astype(dtype) if bias is not None or offset is not None else None


def _row(array: Floats | None) -> Floats | None:
    return None if array is None else array.reshape(-1)


def _layer(synapse: Synapse, weight: NDArray[Any], bias: NDArray[Any] | None, facts: dict[str, Any]) -> Any:
    if synapse.kind == "Linear":
        if bias is None:
            return nir.Linear(weight, metadata=facts)
        return nir.Affine(weight, bias, metadata=facts)
    if bias is None:
        # NIR's convolutions always have a bias.
        bias = np.zeros(len(weight), weight.dtype)
    wide, options = widened(weight, synapse.options)
    kind = nir.Conv1d if synapse.kind == "Conv1d" else nir.Conv2d
    return kind(weight=wide, bias=bias, metadata=facts, **options)


def _plain(term: Term, shape: Shape) -> Signal:
    return Signal((Term(term.of),), shape)


def _digest(node: Any) -> Any:
    """What tells two nodes of one type and place apart."""
    # Metadata names the module, and types follow from the arrays: neither changes what a node computes.
    facts = ((k, v) for k, v in vars(node).items() if k not in ("metadata", "input_type", "output_type"))
    return tuple((k, v.tobytes() if isinstance(v, np.ndarray) else str(v)) for k, v in facts)


# --- metadata: what the graph says beside its nodes ---------------------------------------------------------


def _facts(synapse: Synapse, term: Term) -> dict[str, Any]:
    """Of a layer: its path, and what its weight was made of."""
    facts: dict[str, Any] = {
        "path": synapse.path,
        "mfp_version": __version__,
        # The node may have a bias that was folded into it, where the layer has none.
        "bias": synapse.bias is not None,
    }
    if synapse.kind != "Linear":
        facts |= {
            "groups": synapse.options["groups"],
            "kernel_size": np.array(synapse.weight.shape[2:]),
            "padding": synapse.options["padding"],
        }
        if isinstance(facts["padding"], tuple):
            # A line's plain number stays one: nir compresses every array, and h5py no array of no dimensions.
            facts["padding"] = np.array(facts["padding"])
    if synapse.codes is not None:
        codes, scale, bits = synapse.codes
        facts |= {"codes": codes, "scale": scale, "bits": bits}
    if term.norm is not None:
        facts |= {"folded": "batch norm", **_norm_facts(term)}
        # The node has the folded bias, from which rounding has lost the layer's own.
        if synapse.codes is not None and synapse.bias is not None:
            facts["layer_bias"] = synapse.bias
    elif term.scale is not None or term.offset is not None:
        parts = {"folded_scale": term.scale, "folded_offset": term.offset}
        facts |= {"folded": "affine"} | {k: v.reshape(-1) for k, v in parts.items() if v is not None}
    return facts


def _norm_facts(term: Term) -> dict[str, Any]:
    norm = term.norm
    assert norm is not None
    named = {"mean": norm.mean, "var": norm.var, "weight": norm.weight, "bias": norm.bias, "eps": norm.eps}
    return {f"norm_{name}": value for name, value in named.items() if value is not None}
