"""What is known of a tensor while a model is lowered, and the network that grows meanwhile."""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count
from typing import Literal

import numpy as np

from ..graph import (
    Graph,
    Input,
    Neurons,
    Op,
    Pool,
    Scores,
    Shape,
    Sum,
    Synapse,
    TimePool,
    Window,
    period,
    sources,
)
from .axes import Dim, Dims, of_features
from .fold import Affine, affine

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True, eq=False)
class Map:
    """Whole numbers of map ``index`` times ``scale``."""

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
    """The sum of branches, all of one shape; ``path`` is that of the module that made it, ``behind`` "
    "its name."""

    branches: tuple[Branch, ...]
    path: str
    behind: str

    @property
    def shape(self) -> Shape:
        return self.branches[0].synapse.out_shape

    def then(self, after: Affine) -> "Current":
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
    """A membrane potential, which a memory-free network never writes down."""

    behind: str


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the model.

    Attributes:
        content: what its numbers are.
        dims: where they are.
        reduce: how the steps were reduced; None while there are steps.
        last: over how many of the last steps; None for all.
    """

    content: Map | Current | Potential
    dims: Dims
    reduce: Reduction | None = None
    last: int | None = None

    def has_time(self) -> bool:
        return any(axis.kind == "T" for dim in self.dims for axis in dim)


class Draft:
    """The operations so far."""

    def __init__(self, given: Input) -> None:
        self.input = given
        self.ops: list[Op] = []
        self._periods = [1]  # of the maps
        self._input_is_read = False

    def add(self, op: Op) -> int:
        """The index of the map that an operation makes; a module that is called twice gets two names."""
        taken = {made.name for made in self.ops}
        names = chain([op.name], (f"{op.name} ({number})" for number in count(2)))
        self.ops.append(replace(op, name=next(name for name in names if name not in taken)))
        self._periods.append(period(op, self._periods))
        return len(self.ops)

    def period(self, content: Map | Current) -> int:
        """Steps of the input that one step of it takes."""
        if isinstance(content, Current):
            return self._periods[content.branches[0].synapse.source]
        return self._periods[content.index]

    def shape(self, content: Map | Current) -> Shape:
        if isinstance(content, Current):
            return content.shape
        return self.input.shape if content.index == 0 else self.ops[content.index - 1].shape

    def top(self, index: int) -> int:
        if index == 0:
            return self.input.top
        op = self.ops[index - 1]
        assert not isinstance(op, Scores)
        return op.top

    def fits(self, content: Map | Current, shape: Shape) -> bool:
        """Whether it has this shape; that of the input is up to its first reader."""
        if isinstance(content, Map) and content.index == 0:
            if not self._input_is_read:
                self.input = replace(self.input, shape=shape)
            self._input_is_read = True
        return self.shape(content) == shape

    def is_input(self, index: int) -> bool:
        """Whether a map is the input, or pooled and added up from it alone."""
        if index == 0:
            return True
        op = self.ops[index - 1]
        return not isinstance(op, Neurons) and all(map(self.is_input, sources(op)))

    def name(self, content: Map) -> str:
        """The path of the module that made a map."""
        return "input" if content.index == 0 else self.ops[content.index - 1].name

    def read(self, content: Map) -> Shape:
        """The shape of a map, which stays from now on."""
        self._input_is_read |= content.index == 0
        return self.shape(content)

    def channel_dim(self, content: Map | Current) -> Dim:
        """The dimension of the channels."""
        return of_features(self.shape(content))[0]

    def current(self, content: Map | Current, path: str, behind: str) -> Current:
        """Numbers as a current: those of a map go through a synapse of weight 1 each."""
        if isinstance(content, Current):
            return content
        shape = self.read(content)
        channels = shape[0]
        codes = np.ones((channels, 1, 1, 1), np.int8)
        synapse = Synapse(content.index, codes, 1, Window(), shape, groups=channels)
        as_it_is = affine([content.scale] * channels, [0] * channels)
        return Current((Branch(synapse, as_it_is, direct=True),), path, behind)

    def graph(self, scores: Scores, steps: int, fixed: bool) -> Graph:
        """The network, without the operations that nobody reads."""
        ops: list[Op] = [*self.ops, scores]
        needed = {len(ops)}
        for index in range(len(ops), 0, -1):
            if index in needed:
                needed.update(sources(ops[index - 1]))
        kept = [index for index in range(1, len(ops) + 1) if index in needed]
        new = {0: 0} | {old: place for place, old in enumerate(kept, start=1)}
        return Graph(self.input, tuple(_moved(ops[index - 1], new) for index in kept), steps, fixed)


def _moved(op: Op, new: dict[int, int]) -> Op:
    """An operation that reads its sources at their new places."""
    if isinstance(op, Neurons | Scores):
        synapses = tuple(replace(synapse, source=new[synapse.source]) for synapse in op.synapses)
        return replace(op, synapses=synapses)
    if isinstance(op, Pool | TimePool):
        return replace(op, source=new[op.source])
    assert isinstance(op, Sum) or op.sources
    return replace(op, sources=tuple(new[source] for source in op.sources))
