"""The integer network: frozen dataclasses of NumPy arrays, and what follows from them. Knows NumPy alone.

A network is a list of operations. Operation i reads *maps* and makes map i + 1; map 0 is the input. A map
holds, for every step and sample, whole numbers from 0 to ``top`` of shape (C, H, W): channels, rows, columns
(a sequence of length L is (C, 1, L), a vector (F, 1, 1)). Spikes are a map with top 1.

    Neurons   spikes: what the synapses add up, weighted over the last K steps, against thresholds, which own
              spikes may change
    Currents  whole numbers: what the synapses add up, as it is, for other synapses to read
    Pool      the largest number, or the sum, of each window
    TimePool  several steps become one: the largest number
    Sum       sources times whole numbers, added (SEW residuals)
    Concat    sources side by side, channel after channel
    Gather    the numbers of a source in other places: transposed, shuffled, repeated, padded
    Ones      1 everywhere, in the shape of its source
    Product   the numbers of two sources, place by place, multiplied (masks)
    MatMul    products of matrices of two sources, one for each channel (attention)
    Scores    always last, and only there, one for each tensor that the network gives: what the synapses
              add up, read out

Behind a TimePool everything runs less often: a map has a *period*, the steps of the input that one of its own
steps takes, and t counts a map's own steps wherever it stands below. An operation reads maps of one period.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import lcm, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]
Pair = tuple[int, int]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Input:
    """What the network is given: levels from 0 to ``top``, 2**15 at most; 1 is events, 255 images of bytes.

    Attributes:
        shape: (C, H, W).
        features: the shape of one step of one sample as the user gives it; row-major equal to ``shape``.
        top: the largest level.
        static: the network repeats one image [N, *] itself and takes no [T, N, *].
        low, high: the numbers that the levels 0 and ``top`` stand for, in equal steps. Where ``high - low``
            is ``top``, the user gives these numbers themselves: counts, or events of both signs.
    """

    shape: Shape
    features: tuple[int, ...]
    top: int
    static: bool = False
    low: float = 0.0
    high: float = 1.0

    @property
    def dtype(self) -> np.dtype[Any]:
        """What levels are given in to the executors and the C: a byte each, or two above 255."""
        return np.dtype(np.uint8 if self.top <= 255 else np.uint16)

    @property
    def is_whole(self) -> bool:
        """Whether levels stand for whole numbers."""
        return self.high - self.low == self.top

    @property
    def meaning(self) -> str:
        """What levels stand for, in words; nothing where they are fractions of the largest, or events."""
        plain = (self.low, self.high) == (0.0, 1.0)
        return "" if plain else f", which stand for {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Window:
    """Which rows and columns one output sees; what lies outside the map is 0.

    Attributes:
        size, stride, dilation: (rows, columns), as torch has them.
        padding: (rows above, columns to the left); how far it goes on the other side follows from the output.
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def behind(self, lengths: Sequence[int], outputs: Sequence[int]) -> tuple[int, ...]:
        """How many rows and columns the last of the outputs' windows reach behind a map of these lengths.

        >>> Window((3, 3), stride=(2, 2), padding=(1, 1)).behind((4, 5), (2, 3))
        (0, 1)
        """
        axes = zip(lengths, outputs, self.size, self.stride, self.padding, self.dilation, strict=True)
        return tuple(
            max(0, (out - 1) * stride + (size - 1) * dilation + 1 - padding - length)
            for length, out, size, stride, padding, dilation in axes
        )


@dataclass(frozen=True)
class CurrentPool:
    """Pooling of what a synapse has accumulated, before the neuron: "max" or "sum" of each window.

    A window of "max" that reaches outside the map looks at what is inside alone; one of "sum" adds zeros.
    """

    kind: Literal["max", "sum"]
    window: Window
    shape: Shape


@dataclass(frozen=True)
class Synapse:
    """acc[o] = sum of codes[o] * source over the window: an integer convolution, or what is one.

    A linear layer is a window as large as its source. Attributes:
        source: the map it reads.
        codes: int8 [out, C / groups, rows, columns].
        bits: what the codes are stored with: 1 (+1, -1), 1.58 (-1, 0, +1) or 2 to 8.
        window: ``size`` is that of the codes.
        shape: (out, H, W) of what is accumulated.
        groups: as in torch.
        pool: what happens to the accumulated numbers then, if anything.
        factor: int64 [out], what one accumulated unit is worth here; None is 1 everywhere.
    """

    source: int
    codes: NDArray[np.int8]
    bits: float
    window: Window
    shape: Shape
    groups: int = 1
    pool: CurrentPool | None = None
    factor: Ints | None = None

    @property
    def out_shape(self) -> Shape:
        return self.shape if self.pool is None else self.pool.shape


@dataclass(frozen=True)
class Feedback:
    """How the spikes of a layer's own last steps take part in its next ones. P[t] is the sum over inputs.

        "sum"    2**shift P[t] + sum over j = 1 .. R of taps[j] * spikes[t-j] >= thresholds[t]
        "table"  P[t] >= thresholds[t, start + i] with i = sum over j = 1 .. R of taps[j] * spikes[t-j], which
                 is -start at least
        "age"    P[t] >= thresholds[a - 1], where the last own spike is a steps ago and P[t] the sum over the
                 inputs since then, j < a; without such a spike a is t + 1. R is K - 1

    Attributes:
        kind: which of these.
        taps: int64 [R, 1 or C], the newest first; of "table" [R, 1], small ones; None of "age".
        shift: 0 but for a "sum".
    """

    kind: Literal["sum", "table", "age"]
    taps: Ints | None = None
    shift: int = 0

    @property
    def start(self) -> int:
        """Which threshold of a "table" is that of no own spike."""
        if self.kind != "table" or self.taps is None:
            return 0
        return int(-np.minimum(self.taps, 0).sum())


@dataclass(frozen=True)
class Neurons:
    """spikes[t] = 1 where sum over j of taps[j] * current[t-j] >= thresholds[t], in whole numbers.

    ``current`` is the sum of the synapses. Attributes:
        name: the path of the neuron's module.
        synapses: what feeds it, one or more, all of shape ``shape``.
        taps: int64 [1, K, 1 or C]; of a matrix kernel [T, K, 1], whose row t is for step t.
        thresholds: int64 [R, C]; step t uses row min(t, R - 1). They depend on t while t < K - 1, since the
            constant part of a current counts once for every tap that is reached. Of a matrix kernel R = T.
            With a "table" each step has ``choices`` rows, one behind the other.
        shape: (C, H, W).
        unit: what one unit of the potential is worth in the model's own unit, for each channel [C].
        error: a bound on what rounding the factors, and the taps of the own spikes, to whole numbers changes
            in the potential, in the model's unit, [C]; 0 where there was nothing to round.
        feedback: what its own spikes do to the potential; None for nothing.
        recurrent: synapses that read the layer's own spikes of the step before, zeros at the first, and add
            to ``current``; their source is the map of the layer itself.
    """

    name: str
    synapses: tuple[Synapse, ...]
    taps: Ints
    thresholds: Ints
    shape: Shape
    unit: NDArray[np.float64]
    error: NDArray[np.float64]
    feedback: Feedback | None = None
    recurrent: tuple[Synapse, ...] = ()
    top: int = field(default=1, init=False)

    @property
    def order(self) -> int:
        """K, the number of steps that an input is remembered."""
        return self.taps.shape[1]

    @property
    def steps(self) -> int | None:
        """T of a matrix kernel, which ends there; None for all others."""
        return self.taps.shape[0] if self.taps.shape[0] > 1 else None

    @property
    def own_steps(self) -> int:
        """R, the number of steps that an own spike is remembered by the feedback."""
        if self.feedback is None:
            return 0
        return self.order - 1 if self.feedback.taps is None else len(self.feedback.taps)

    @property
    def choices(self) -> int:
        """How many thresholds a step has to choose from."""
        if self.feedback is None or self.feedback.taps is None or self.feedback.kind != "table":
            return 1
        return 1 + int(np.abs(self.feedback.taps).sum())

    @property
    def threshold_table(self) -> Ints:
        """The thresholds as [steps, choices, C], without steps at the end that repeat the one before."""
        return without_repeats(self.thresholds.reshape(-1, self.choices, self.thresholds.shape[1]))


@dataclass(frozen=True)
class Currents:
    """(offset + the sum of the synapses) >> shift: numbers from 0 to ``top``, of which ``zero`` stands for 0.

    Attributes:
        name: path of the last module.
        synapses: as for Neurons.
        offset: int64 [C], ``zero`` << shift and what else is added: a bias, and half a unit for rounding.
        shape: (C, H, W).
        top: no number is larger; none is negative either.
        zero: which of the numbers stands for 0; a reader counts from there.
        shift: how many of the lowest bits are left out, so that a map that reads one has no larger numbers.
    """

    name: str
    synapses: tuple[Synapse, ...]
    offset: Ints
    shape: Shape
    top: int
    zero: int = 0
    shift: int = 0


@dataclass(frozen=True)
class Pool:
    """The largest number of each window ("max": OR for spikes), or the sum ("sum": a count)."""

    name: str
    source: int
    kind: Literal["max", "sum"]
    window: Window
    shape: Shape
    top: int


@dataclass(frozen=True)
class TimePool:
    """The largest number of ``window`` steps, 2 or more ("OR" for spikes): one step out of so many."""

    name: str
    source: int
    window: int
    shape: Shape
    top: int


@dataclass(frozen=True)
class Sum:
    """weights[i] * source[i], added up; all of one shape. Weights are whole and positive."""

    name: str
    sources: tuple[int, ...]
    weights: tuple[int, ...]
    shape: Shape
    top: int


@dataclass(frozen=True)
class Concat:
    """weights[i] * source[i], channel after channel."""

    name: str
    sources: tuple[int, ...]
    weights: tuple[int, ...]
    shape: Shape
    top: int


@dataclass(frozen=True)
class Gather:
    """out[i] = source[places[i]], counted row by row in (C, H, W); ``fill`` where places[i] is -1."""

    name: str
    source: int
    places: Ints  # int64 of as many numbers as ``shape`` has
    shape: Shape
    top: int
    fill: int = 0


@dataclass(frozen=True)
class Ones:
    """1 at every place of its source; synapses with padding read there what lies inside of the map."""

    name: str
    source: int
    shape: Shape
    top: int = field(default=1, init=False)


@dataclass(frozen=True)
class Product:
    """left[i] * right[i], all of one shape."""

    name: str
    sources: tuple[int, int]
    shape: Shape
    top: int


@dataclass(frozen=True)
class MatMul:
    """out[c, i, j] = sum over k of left[c, i, k] * right[c, k, j]: (C, H, K) and (C, K, W) give (C, H, W)."""

    name: str
    sources: tuple[int, int]
    shape: Shape
    top: int


@dataclass(frozen=True)
class Scores:
    """score[t] = unit * (offset[t] + sum of the synapses), whole numbers times one number for all classes.

    Attributes:
        name: path of the last module.
        synapses: as for Neurons.
        offset: int64 [R, C]; step t uses row min(t, R - 1), as it does of thresholds. R = 1 without taps.
        shape: (C, H, W); the user gets ``features``, row-major equal to it.
        unit: float, what 1 is worth.
        error: a bound on what rounding factors and offset changes in one step's score, [C].
        reduce: "none" returns every step, "sum", "mean" and "max" one score over the last ``last`` steps.
        last: how many of the scores' own steps; None is all.
        skip: how many of the scores' own first steps are left out.
        taps: int64 [S, K, 1 or C], of a membrane potential that is read out: synapse s adds the sum over j
            of taps[s, j] times what it accumulated j steps ago. None adds what it accumulates in the step
            itself.
    """

    name: str
    synapses: tuple[Synapse, ...]
    offset: Ints
    shape: Shape
    features: tuple[int, ...]
    unit: float
    error: NDArray[np.float64]
    reduce: Literal["none", "sum", "mean", "max"] = "mean"
    last: int | None = None
    skip: int = 0
    taps: Ints | None = None

    @property
    def order(self) -> int:
        """K, the number of steps that an input is remembered."""
        return 1 if self.taps is None else self.taps.shape[1]


MapOp = Neurons | Currents | Pool | TimePool | Sum | Concat | Gather | Ones | Product | MatMul
Op = MapOp | Scores


@dataclass(frozen=True)
class Graph:
    """A whole network.

    Attributes:
        input: what comes in.
        ops: in the order in which they run; the last ones, one or more, are Scores.
        steps: T of the example it was lowered with, in steps of the input.
        fixed: whether it is for sequences of so many steps alone, since the model computes with T or has a
            matrix kernel.
        keys: a name for each of the last Scores, of a model that returns a dict; () of all others.
    """

    input: Input
    ops: tuple[Op, ...]
    steps: int
    fixed: bool = False
    keys: tuple[str, ...] = ()

    @property
    def scores(self) -> Scores:
        last = self.ops[-1]
        assert isinstance(last, Scores)
        return last

    @property
    def body(self) -> tuple[MapOp, ...]:
        """The operations that make maps: all in front of the first Scores."""
        return tuple(op for op in self.ops if not isinstance(op, Scores))

    @property
    def heads(self) -> tuple[Scores, ...]:
        """What is read out, in the order in which the model returns it."""
        return tuple(op for op in self.ops if isinstance(op, Scores))

    def map_shape(self, index: int) -> Shape:
        return self.input.shape if index == 0 else self.ops[index - 1].shape

    def map_top(self, index: int) -> int:
        if index == 0:
            return self.input.top
        op = self.ops[index - 1]
        assert not isinstance(op, Scores)
        return op.top

    def map_name(self, index: int) -> str:
        return "input" if index == 0 else self.ops[index - 1].name

    @cached_property
    def periods(self) -> tuple[int, ...]:
        """Steps of the input that one step of each map takes; behind the maps, that of the scores."""
        periods = [1]
        for op in self.ops:
            periods.append(period(op, periods))
        return tuple(periods)

    @property
    def period(self) -> int:
        """What T has to be a multiple of, so that no window stays open."""
        return lcm(*self.periods)

    def fixed_steps(self) -> int | None:
        """T where no other can be run."""
        matrices = any(isinstance(op, Neurons) and op.steps for op in self.ops)
        return self.steps if self.fixed or matrices else None

    def history(self) -> dict[int, int]:
        """{map: how many past steps of it a stream keeps}.

        K - 1 of the slowest neuron, or score with taps, that it feeds; R of the neurons that fire it, or K
        where recurrent synapses read it: the largest of them, as all look at the same bits.
        """
        kept: dict[int, int] = {}
        for index, op in enumerate(self.ops, start=1):
            if isinstance(op, Neurons | Scores):
                # bits of what a synapse reads, not currents, are kept: there are fewer of them
                looks = [(synapse.source, op.order - 1) for synapse in op.synapses]
                if isinstance(op, Neurons):
                    looks += [(index, op.own_steps), (index, op.order if op.recurrent else 0)]
                for source, steps in looks:
                    if steps:
                        kept[source] = max(kept.get(source, 0), steps)
        return kept

    def constant_maps(self, static: bool) -> set[int]:
        """Maps that are the same at every step: a ``static`` input, and what is made of such maps alone."""
        constant = {0} if static else set()
        for index, op in enumerate(self.body, start=1):
            # neurons are not among them: what they look back at begins only with the first step
            if not isinstance(op, Neurons) and constant.issuperset(sources(op)):
                constant.add(index)
        return constant

    def kept(self) -> dict[int, int]:
        """{map: how many steps of it a stream keeps}: past ones, and of a TimePool the unfinished one."""
        kept = self.history()
        for index, op in enumerate(self.ops, start=1):
            if isinstance(op, TimePool):
                kept[index] = kept.get(index, 0) + 1
        return kept

    def step_bits(self, index: int) -> int:
        """Bits of one step of a map of one sample."""
        return planes(self.map_top(index)) * prod(self.map_shape(index))

    def state_bits(self) -> int:
        """Bits that a stream of one sample keeps between steps."""
        return sum(steps * self.step_bits(index) for index, steps in self.kept().items())


def synapses(op: Op) -> tuple[Synapse, ...]:
    """The synapses of an operation that has any."""
    recurrent = op.recurrent if isinstance(op, Neurons) else ()
    return (*op.synapses, *recurrent) if isinstance(op, Neurons | Currents | Scores) else ()


def sources(op: Op) -> Iterator[int]:
    """The maps that an operation reads; its own, which recurrent synapses read a step later, is none."""
    if isinstance(op, Neurons | Currents | Scores):
        yield from (synapse.source for synapse in op.synapses)
    elif isinstance(op, Pool | TimePool | Gather | Ones):
        yield op.source
    else:
        yield from op.sources


def period(op: Op, periods: Sequence[int]) -> int:
    """The period of what an operation makes, from those of the maps before it."""
    of_source = periods[next(sources(op))]
    return of_source * op.window if isinstance(op, TimePool) else of_source


def without_groups(synapse: Synapse) -> NDArray[np.int8]:
    """The codes [out, C, rows, columns] by all channels of the source: 0 for those of other groups."""
    out, inner, *size = synapse.codes.shape
    groups = synapse.groups
    codes = np.zeros((groups, out // groups, groups, inner, *size), np.int8)
    for group, of_group in enumerate(synapse.codes.reshape(groups, out // groups, inner, *size)):
        codes[group, :, group] = of_group
    return codes.reshape(out, groups * inner, *size)


def planes(top: int) -> int:
    """How many bits a number of a map takes."""
    return max(1, top.bit_length())


def without_repeats(rows: Ints) -> Ints:
    """Rows of thresholds without those at the end that repeat the one before: the last row holds for ever."""
    count = len(rows)
    # compared from the end: rows before a difference may be alike and still be needed
    while count > 1 and (rows[count - 1] == rows[count - 2]).all():
        count -= 1
    return rows[:count]


def synapse_bound(synapse: Synapse, top: int) -> Ints:
    """The largest size that an accumulated number of each output channel can have, before its factor."""
    # int16 holds every size and needs little memory beside the codes
    sizes: Ints = np.abs(synapse.codes, dtype=np.int16).sum(axis=(1, 2, 3), dtype=np.int64)
    weight = sizes * top
    # a maximum is no larger than its largest number; a sum can have that many of them
    if synapse.pool is not None and synapse.pool.kind == "sum":
        weight = weight * prod(synapse.pool.window.size)
    return weight


def current_bound(graph: Graph, synapses: tuple[Synapse, ...]) -> list[int]:
    """The same for the sum of synapses, times their factors; Python integers, which do not overflow."""
    return [sum(sizes) for sizes in zip(*_current_bounds(graph, synapses), strict=True)]


def _current_bounds(graph: Graph, synapses: tuple[Synapse, ...]) -> Iterator[list[int]]:
    """The largest size of what each synapse adds to each channel."""
    for synapse in synapses:
        # only recurrent synapses may read a map that is not there yet: that of their own neurons
        top = graph.map_top(synapse.source) if synapse.source <= len(graph.ops) else 1
        sizes = synapse_bound(synapse, top).tolist()
        factors = [1] * len(sizes) if synapse.factor is None else synapse.factor.tolist()
        yield [abs(factor) * size for factor, size in zip(factors, sizes, strict=True)]


def current_range(graph: Graph, synapses: tuple[Synapse, ...]) -> tuple[list[int], list[int]]:
    """The smallest and the largest that the sum of synapses, times their factors, can be in each channel.

    Synapses of equal codes that read a map and its Ones are taken together: of a signed map in offset form
    they make f (n - zero), which is a smaller range than that of both added.
    """
    groups: dict[Any, list[Synapse]] = {}
    for number, synapse in enumerate(synapses):
        # a maximum of sums is not the sum of maxima, so what is pooled stands for itself
        alone = number if synapse.pool is not None else -1
        source, _ = _below_ones(graph, synapse)
        key = alone, source, synapse.window, synapse.groups, synapse.codes.tobytes()
        groups.setdefault(key, []).append(synapse)
    channels = range(synapses[0].out_shape[0])
    smallest, largest = [0 for _ in channels], [0 for _ in channels]
    for (_, source, *_), group in groups.items():
        top, (positive, negative) = graph.map_top(source), _code_sums(group[0])
        for c in channels:
            factors = {False: 0, True: 0}  # of the map, and of its Ones
            for synapse in group:
                reads_ones = _below_ones(graph, synapse)[1]
                factors[reads_ones] += 1 if synapse.factor is None else int(synapse.factor[c])
            # a unit of code adds this for a number 0, for the top, and outside of the map
            ends = factors[True], factors[False] * top + factors[True], 0
            smallest[c] += positive[c] * min(ends) + negative[c] * max(ends)
            largest[c] += positive[c] * max(ends) + negative[c] * min(ends)
    return smallest, largest


def _below_ones(graph: Graph, synapse: Synapse) -> tuple[int, bool]:
    """The map that a synapse reads, or whose Ones it reads, and whether it is these."""
    op = graph.ops[synapse.source - 1] if synapse.source else None
    return (op.source, True) if isinstance(op, Ones) else (synapse.source, False)


def _code_sums(synapse: Synapse) -> tuple[list[int], list[int]]:
    """The sum of the codes above 0, and of those below, of each output and all that it pools."""
    codes = synapse.codes.astype(np.int16)
    pool = synapse.pool
    places = prod(pool.window.size) if pool is not None and pool.kind == "sum" else 1
    parts = [part.sum(axis=(1, 2, 3), dtype=np.int64) * places for part in (codes.clip(0), codes.clip(max=0))]
    return parts[0].tolist(), parts[1].tolist()


def score_bound(graph: Graph, head: Scores) -> list[int]:
    """The largest size that a score of each channel can have, in any step."""
    total = [int(offset) for offset in np.abs(head.offset).max(axis=0)]
    for number, sizes in enumerate(_current_bounds(graph, head.synapses)):
        weights = [1]
        if head.taps is not None:
            weights = _sum_of_sizes(head.taps[number]).tolist()
        weights = weights * (len(sizes) // len(weights))
        total = [a + weight * size for a, weight, size in zip(total, weights, sizes, strict=True)]
    return total


def potential_bound(graph: Graph, neurons: Neurons) -> list[int]:
    """The largest size that a potential of each channel can have, with own spikes; decides 32 or 64 bits."""
    currents = current_bound(graph, (*neurons.synapses, *neurons.recurrent))
    sizes = _sum_of_sizes(neurons.taps.swapaxes(0, 1))
    own, unit = np.zeros(1, object), 1
    feedback = neurons.feedback
    if feedback is not None and feedback.kind == "sum" and feedback.taps is not None:
        own, unit = _sum_of_sizes(feedback.taps), 1 << feedback.shift
    taps, added = (row.tolist() * (len(currents) // len(row)) for row in (sizes.max(axis=0), own))
    return [unit * a * int(b) + int(c) for a, b, c in zip(currents, taps, added, strict=True)]


def _sum_of_sizes(rows: Ints) -> NDArray[np.object_]:
    """The sizes of rows of numbers, added up as Python integers, which do not overflow."""
    total = np.zeros(rows.shape[1:], object)
    # one row at a time: Python integers take much more room than the array
    for row in rows:
        total = total + np.abs(row)
    return total
