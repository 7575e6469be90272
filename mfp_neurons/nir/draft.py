"""The graph that grows: nodes and their names, edges, and what is folded into a layer's weight."""

from math import prod
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from . import metadata
from .convolution import widened
from .errors import NIRError
from .signals import Floats, Node, Shape, Signal, Synapse, Term, of


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
        self._made: dict[Any, str] = {}
        self._taken = {"input", "output"}
        self._input_is_read = False

    def add(self, node: Any, base: str, shape: Shape, source: Signal, *, binary: bool = False) -> Node:
        """A node behind ``source``; the same one, if it is there already."""
        given = self.names(source)
        key = (type(node), base, given, _digest(node))
        if key not in self._made:
            self._made[key] = self._enter(node, base, given)
        return Node(self._made[key], shape, binary)

    def names(self, signal: Signal) -> tuple[str, ...]:
        """The nodes whose sum a signal is."""
        return tuple(self._name(term, signal.shape) for term in signal.terms)

    def reshape_input(self, shape: Shape) -> Signal | None:
        """The input in another shape, as long as nothing has read it."""
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
        if len(shape) == 1:
            node = nir.Affine(np.diag(scale).astype(self.dtype), offset.astype(self.dtype))
            return self.add(node, base, shape, source).name
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
        key = (synapse.key, *(None if a is None else a.tobytes() for a in (term.scale, term.offset)))
        if key not in self._made:
            weight, bias = folded(
                synapse.weight, synapse.bias, _row(term.scale), _row(term.offset), self.dtype
            )
            facts = metadata.of_synapse(synapse, term)
            self._made[key] = self._enter(_layer(synapse, weight, bias, facts), synapse.path, synapse.sources)
        return self._made[key]


def folded(
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    scale: Floats | None,
    offset: Floats | None,
    dtype: Any,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Weight and bias of a layer followed by scale * y + offset, [out] or [1] each, computed in float64.

    >>> folded(np.float32([[1, 2]]), None, np.array([0.5]), np.array([3.0]), np.float32)
    (array([[0.5, 1. ]], dtype=float32), array([3.], dtype=float32))
    """
    if scale is None and offset is None:
        return weight.astype(dtype), None if bias is None else bias.astype(dtype)
    shift = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    made = weight.astype(np.float64)
    if scale is not None:
        row = np.broadcast_to(scale, len(weight))
        made, shift = made * row.reshape(-1, *[1] * (weight.ndim - 1)), shift * row
    shift = shift if offset is None else shift + offset
    return made.astype(dtype), shift.astype(dtype) if bias is not None or offset is not None else None


def _row(array: Floats | None) -> Floats | None:
    return None if array is None else array.reshape(-1)


def _layer(synapse: Synapse, weight: NDArray[Any], bias: NDArray[Any] | None, facts: dict[str, Any]) -> Any:
    if synapse.kind == "Linear":
        if bias is None:
            return nir.Linear(weight, metadata=facts)
        return nir.Affine(weight, bias, metadata=facts)
    if bias is None:
        bias = np.zeros(len(weight), weight.dtype)
    wide, options = widened(weight, synapse.options)
    kind = nir.Conv1d if synapse.kind == "Conv1d" else nir.Conv2d
    return kind(weight=wide, bias=bias, metadata=facts, **options)


def _plain(term: Term, shape: Shape) -> Signal:
    return Signal((Term(term.of),), shape)


def _digest(node: Any) -> Any:
    """What tells two nodes of one type and place apart."""
    facts = ((k, v) for k, v in vars(node).items() if k not in ("metadata", "input_type", "output_type"))
    return tuple((k, v.tobytes() if isinstance(v, np.ndarray) else str(v)) for k, v in facts)
