"""What neurons, scores and currents become in hardware: a module of synapses and what they feed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import (
    CurrentPool,
    Currents,
    Graph,
    Ints,
    Neurons,
    Scores,
    Shape,
    Synapse,
    Window,
    planes,
    synapse_bound,
    synapses,
    without_repeats,
)
from ..pack import code_planes
from ..parameters import Line, threshold_line

Fed = Neurons | Scores | Currents


@dataclass(frozen=True)
class Memory:
    """Words that a read-only memory is filled with.

    Attributes:
        words: whole numbers, the first at address 0; those below 0 are stored in two's complement.
        bits: of each.
    """

    words: Sequence[int]
    bits: int

    def text(self) -> str:
        """The file for ``$readmemh``: a word a line, in hexadecimal."""
        digits = -(-self.bits // 4)
        return "".join(f"{word % (1 << self.bits):0{digits}x}\n" for word in self.words)


@dataclass(frozen=True)
class Instance:
    """An instance of a part.

    Attributes:
        parameters: of the module, as Verilog has them, without its files.
        memories: by the parameter that names the file of each.
    """

    parameters: dict[str, int | str]
    memories: dict[str, Memory]


@dataclass(frozen=True)
class Layer:
    """Synapses, and the neurons, scores or currents that they feed.

    Attributes:
        synapses: an ``mfp_synapse`` each; the last ones, ``recurrent`` of them, read the own spikes.
        recurrent: how many.
        neurons: an ``mfp_neurons``.
        words: what it is, for a comment.
        cycles: clock cycles that a step takes.
        state_bits: what is kept between steps.
    """

    synapses: tuple[Instance, ...]
    recurrent: int
    neurons: Instance
    words: str
    cycles: int
    state_bits: int

    @property
    def memories(self) -> dict[str, Memory]:
        """By what the name of its file ends in."""
        found = {}
        for number, synapse in enumerate(self.synapses, start=1):
            found[f"codes_{number}"] = synapse.memories["CODE_FILE"]
        for key, memory in self.neurons.memories.items():
            found[KINDS[key]] = memory
        return found


# what the names of the files of an mfp_neurons end in
KINDS = {"COEFFICIENT_FILE": "coefficients", "START_FILE": "starts", "BIAS_FILE": "biases"}


def layer(graph: Graph, op: Fed, lanes: int) -> Layer:
    """The parts of an operation that nothing refuses.

    Args:
        graph: a valid network.
        op: one of its operations.
        lanes: how many bits of inputs a synapse adds up in a cycle; it takes fewer where it has fewer.
    """
    feeds = synapses(op)
    order = 1 if isinstance(op, Currents) else op.order
    recurrent = len(feeds) - len(op.synapses)
    bounds = [[int(b) for b in synapse_bound(one, graph.map_top(one.source))] for one in feeds]
    coefficients = _coefficients(op, order)
    starts = _starts(op, coefficients, bounds)
    values = [
        [(size << starts.shift) + abs(bias) for size, bias in zip(bound, starts.biases, strict=True)]
        for bound in bounds
    ]
    # what synapses hear is as wide for all, as one adder takes it
    geometries = [_geometry(graph, one, order, lanes) for one in feeds]
    dot_bits = max(
        *(1 + max(bound).bit_length() for bound in bounds),
        *map(_sum_bits, geometries),
    )
    heard = [
        _synapse(one, geometry, dot_bits, late=number >= len(op.synapses))
        for number, (one, geometry) in enumerate(zip(feeds, geometries, strict=True))
    ]
    fed, terms = _neurons(op, coefficients, starts, values, order, dot_bits)
    items = [_items(one, geometry) for one, geometry in zip(feeds, geometries, strict=True)]
    numbers = sum(order * max(each, terms) for each in items)
    own = 0
    if isinstance(op, Neurons) and op.feedback is not None:
        # what comes out is written, and what the next neuron fired is read
        numbers += _READ_CYCLES + (op.own_steps * terms if op.feedback.kind == "sum" else 0)
        own = op.own_steps * prod(op.shape)
    looks = [(one, order - 1) for one in op.synapses] + [(one, order) for one in feeds[len(op.synapses) :]]
    kept = sum(steps * graph.step_bits(one.source) for one, steps in looks)
    words = f"{_words(graph, op)}, K = {order}"
    return Layer(tuple(heard), recurrent, fed, words, prod(op.shape) * numbers, own + kept)


_READ_CYCLES = 6


def _words(graph: Graph, op: Fed) -> str:
    """What feeds an operation."""
    parts = []
    for number, synapse in enumerate(synapses(op)):
        channels, *lengths = graph.map_shape(synapse.source)
        if _is_linear(lengths, synapse):
            what = f"{channels * prod(lengths)} inputs"
        else:
            what = "windows of {} x {}".format(*synapse.window.size)
        if synapse.pool is not None:
            what += ", pooled over {} x {}".format(*synapse.pool.window.size)
        own = " of own spikes" if number >= len(op.synapses) else ""
        parts.append(f"{what}{own}, {synapse.bits:g}-bit codes")
    if isinstance(op, Neurons) and op.feedback is not None:
        parts.append(_FEEDBACK_WORDS[op.feedback.kind])
    return "; ".join(parts)


_FEEDBACK_WORDS = {
    "sum": "own spikes are added",
    "table": "own spikes choose the threshold",
    "age": "own spikes reset to zero",
}


def signed_powers(number: int) -> list[tuple[int, int]]:
    """A whole number as the fewest powers of two added or subtracted, lowest first: (exponent, +1 or -1).

    >>> signed_powers(-64), signed_powers(7)
    ([(6, -1)], [(0, -1), (3, 1)])
    """
    powers, exponent = [], 0
    while number:
        if number & 1:
            # of two neighbouring digits at most one is not 0: 3 is 4 - 1, and 7 is 8 - 1
            digit = 2 - number % 4
            powers.append((exponent, digit))
            number -= digit
        number >>= 1
        exponent += 1
    return powers


# --- synapses


def _geometry(graph: Graph, synapse: Synapse, order: int, lanes: int) -> dict[str, int | str]:
    """The parameters of an ``mfp_synapse`` that say where its inputs lie, and how many it takes at once."""
    channels, *lengths = graph.map_shape(synapse.source)
    window, groups = synapse.window, synapse.groups
    if _is_linear(lengths, synapse):
        # one place, so that words are full
        channels, lengths, window = channels * prod(lengths), [1, 1], Window()
    bits, channels = planes(graph.map_top(synapse.source)), channels // groups
    taken = min(max(1, lanes // bits), channels)
    in_turn, at_once = {1: (1, 1), 1.58: (1, 2)}.get(synapse.bits, (int(synapse.bits), 1))
    # all bits of a code at once where that is faster, as of an image of one channel
    fewer = min(lanes // (bits * in_turn), channels)
    if fewer and -(-channels // fewer) < -(-channels // taken) * in_turn:
        taken, in_turn, at_once = fewer, 1, in_turn
    parameters: dict[str, int | str] = {
        "PLANES": bits,
        "LANES": taken,
        "CHANNELS": channels,
        "GROUPS": groups,
        "WORDS": -(-channels // taken),
        "MAP_ROWS": lengths[0],
        "MAP_COLUMNS": lengths[1],
        "ROWS": window.size[0],
        "COLUMNS": window.size[1],
    }
    parameters |= _moves(window)
    if synapse.pool is not None:
        parameters |= _pool(synapse.pool, synapse.shape)
    return parameters | {
        "OUT_ROWS": synapse.out_shape[1],
        "OUT_COLUMNS": synapse.out_shape[2],
        "OUTPUTS": synapse.shape[0] // groups,
        "TAPS": order,
        "CODE_PLANES": in_turn,
        "WORD_PLANES": at_once,
        "BINARY": int(synapse.bits == 1),
        "TERNARY": int(synapse.bits == 1.58),
    }


def _pool(pool: CurrentPool, shape: Shape) -> dict[str, int | str]:
    """The parameters that say what is pooled of what a synapse adds up, which has a shape."""
    return {
        "POOL": 1 if pool.kind == "max" else 2,
        "DOT_ROWS": shape[1],
        "DOT_COLUMNS": shape[2],
        "POOL_ROWS": pool.window.size[0],
        "POOL_COLUMNS": pool.window.size[1],
        **_moves(pool.window, "POOL_"),
    }


def _moves(window: Window, prefix: str = "") -> dict[str, int]:
    """The parameters that say how a window moves and what it leaves out."""
    parameters: dict[str, int] = {}
    for name in ("stride", "dilation", "padding"):
        rows, columns = getattr(window, name)
        parameters |= {f"{prefix}ROW_{name.upper()}": rows, f"{prefix}COLUMN_{name.upper()}": columns}
    return parameters


def _is_linear(lengths: Sequence[int], synapse: Synapse) -> bool:
    """Whether the one output of a synapse looks at all places of its map."""
    window = synapse.window
    spread = [d > 1 and size > 1 for d, size in zip(window.dilation, window.size, strict=True)]
    looks_at_all = window.size == tuple(lengths) and window.padding == (0, 0) and not any(spread)
    return looks_at_all and synapse.shape[1:] == (1, 1) and synapse.groups == 1 and synapse.pool is None


def _sum_bits(geometry: dict[str, int | str]) -> int:
    """Of the inputs of a cycle, times their codes, added up."""
    lanes, bits, code_bits = (int(geometry[name]) for name in ("LANES", "PLANES", "WORD_PLANES"))
    signed = geometry["BINARY"] or code_bits > 1
    return bits + max(3, lanes.bit_length()) + bool(signed) + (0 if geometry["TERNARY"] else code_bits - 1)


def _items(synapse: Synapse, geometry: dict[str, int | str]) -> int:
    """Cycles that a synapse takes for an output and a tap."""
    places = 1 if synapse.pool is None else prod(synapse.pool.window.size)
    return places * prod(int(geometry[name]) for name in ("CODE_PLANES", "ROWS", "COLUMNS", "WORDS"))


def _synapse(synapse: Synapse, geometry: dict[str, int | str], dot_bits: int, *, late: bool) -> Instance:
    parameters = geometry | {"LATE": int(late), "DOT_BITS": dot_bits}
    words = _code_words(synapse.codes, synapse.bits, geometry)
    return Instance(
        parameters, {"CODE_FILE": Memory(words, int(geometry["WORD_PLANES"]) * int(geometry["LANES"]))}
    )


def _code_words(codes: NDArray[np.int8], bits: float, geometry: dict[str, int | str]) -> list[int]:
    """Words of codes [output][plane, the highest first][row][column][word], one behind the other.

    Planes that lie in one word have the lowest one in its lowest bits.
    """
    lanes, words, channels = (int(geometry[name]) for name in ("LANES", "WORDS", "CHANNELS"))
    places = int(geometry["ROWS"]) * int(geometry["COLUMNS"])
    # inputs come place by place, channels fastest
    rows = codes.transpose(0, 2, 3, 1).reshape(len(codes), places, channels)
    split = code_planes(rows, bits)
    padded: NDArray[np.bool_] = np.zeros((*split.shape[:-1], words * lanes), bool)
    full, rest = (words - 1) * lanes, channels - (words - 1) * lanes
    # the last word has its inputs in its highest lanes, as they are shifted in from there
    padded[..., :full] = split[..., :full]
    padded[..., words * lanes - rest :] = split[..., full:]
    by_word = padded.reshape(len(split), len(codes), places, words, lanes)
    if int(geometry["WORD_PLANES"]) > 1:
        by_word = np.concatenate([*by_word], axis=-1)[None]
    ordered = by_word[::-1].swapaxes(0, 1).reshape(-1, by_word.shape[-1])
    packed = np.packbits(ordered, axis=-1, bitorder="little")
    return [int.from_bytes(word.tobytes(), "little") for word in packed]


# --- what they feed


def _coefficients(op: Fed, order: int) -> NDArray[Any]:
    """What each number is multiplied with, Python integers [1 or T, 1 or outputs, synapses * K + own].

    Own spikes are those that a "sum" adds; all others only choose.
    """
    outputs = op.shape[0]
    ones: Ints = np.ones((1, 1, 1), np.int64)
    columns = []
    for number, synapse in enumerate(synapses(op)):
        if isinstance(op, Neurons):
            taps = op.taps
        elif isinstance(op, Scores) and op.taps is not None:
            taps = op.taps[number : number + 1]
        else:
            taps = ones
        # a factor of the synapse is one of its taps
        factor = np.ones(outputs, object) if synapse.factor is None else synapse.factor.astype(object)
        columns.append((taps.astype(object) * factor).swapaxes(1, 2))
    feedback = op.feedback if isinstance(op, Neurons) else None
    if feedback is not None and feedback.kind == "sum" and feedback.taps is not None:
        columns = [column * (1 << feedback.shift) for column in columns]
        own = np.broadcast_to(feedback.taps, (len(feedback.taps), outputs)).T.astype(object)
        columns.append(own[None])
    numbers = np.concatenate(columns, axis=2)
    return numbers[:, :1] if (numbers == numbers[:, :1]).all() else numbers


@dataclass(frozen=True)
class _Starts:
    """What sums begin with, 2**ones * rows[step][choice][output] + 2**ones - 1, and what currents get added.

    Attributes:
        rows: of the first steps; the last one holds for all later ones.
        ones: bits that are all 1, below what is stored.
        shift: currents, and what own spikes add, count 2**shift, so that biases can be finer.
        biases: of each output; 0 where there are none.
    """

    rows: list[list[list[int]]]
    ones: int
    shift: int
    biases: list[int]

    def numbers(self) -> list[int]:
        return [number for row in self.rows for choice in row for number in choice]


def _starts(op: Fed, coefficients: NDArray[Any], bounds: Sequence[Sequence[int]]) -> _Starts:
    """Minus the thresholds, or the offsets; as one row and a bias where that takes less memory than rows."""
    none = [0] * op.shape[0]
    if isinstance(op, Currents):
        return _Starts([[op.offset.tolist()]], 0, 0, none)
    if isinstance(op, Scores):
        return _Starts([[row] for row in without_repeats(op.offset).tolist()], 0, 0, none)
    # what no potential reaches, or every one does, needs no more bits than the potentials
    sizes = _potentials(coefficients, bounds, op.order)
    table = op.threshold_table
    if op.feedback is not None and op.feedback.kind == "age":
        # a row for each number of steps since the last own spike is a choice
        table = table[np.minimum(np.arange(op.order), len(table) - 1)].swapaxes(0, 1)
    rows = [
        [
            [-min(max(threshold, -size), size + 1) for threshold, size in zip(choice, sizes, strict=True)]
            for choice in row
        ]
        for row in table.tolist()
    ]
    plain = _Starts(rows, 0, 0, none)
    line = _line(op)
    if line is None:
        return plain
    # threshold[t] = (start 2**coarse - slope M[t]) >> shift, M the sum of the taps reached; P meets it where
    #     2**shift P + slope M[t] >= start 2**coarse - 2**shift + 1,
    # and slope M[t] is what a bias of ``slope`` in each current adds to the potential
    ones = (1 << line.shift - line.coarse) - 1
    start = [[-number + ones for number in choice] for choice in line.start.tolist()]
    short = _Starts([start], line.coarse, line.shift, line.slope.tolist())
    return short if _stored_bits(short) < _stored_bits(plain) else plain


def _line(op: Neurons) -> Line | None:
    """A line that thresholds lie on, if a bias of the one synapse can stand for it."""
    scaled = op.feedback is not None and op.feedback.shift > 0
    if op.steps or scaled or len(synapses(op)) > 1 or op.synapses[0].factor is not None:
        return None
    line = threshold_line(op, 2**31)
    return None if line is None or line.coarse > line.shift else line


def _stored_bits(starts: _Starts) -> int:
    groups = (starts.numbers(), starts.biases)
    return sum(len(group) * (1 + max(map(abs, group)).bit_length()) for group in groups if any(group))


def _potentials(coefficients: NDArray[Any], values: Sequence[Sequence[int]], order: int) -> list[int]:
    """The largest size of a potential of each output, from those of its currents."""
    sizes = np.abs(coefficients)
    total = np.zeros(len(values[0]), object)
    for number, bound in enumerate(values):
        weights = sizes[:, :, number * order : (number + 1) * order].sum(axis=2).max(axis=0)
        total = total + weights * np.array(bound, object)
    total = total + sizes[:, :, len(values) * order :].sum(axis=2).max(axis=0)
    return [int(size) for size in total]


_FEEDBACK = {"sum": 1, "table": 2, "age": 3}


def _neurons(
    op: Fed,
    coefficients: NDArray[Any],
    starts: _Starts,
    values: Sequence[Sequence[int]],
    order: int,
    dot_bits: int,
) -> tuple[Instance, int]:
    """The ``mfp_neurons``, and how many powers of two its coefficients take."""
    count = len(values) * order
    if starts.shift:
        coefficients = coefficients.copy()
        coefficients[:, :, count:] = coefficients[:, :, count:] * (1 << starts.shift)
    powers = [signed_powers(int(number)) for number in coefficients.reshape(-1)]
    terms = max(1, *map(len, powers))
    exponent_bits = max(1, max((e for each in powers for e, _ in each), default=0).bit_length())

    rows, sets, _ = coefficients.shape
    largest_start = max(map(abs, starts.numbers()))
    sizes = _potentials(coefficients, values, order)
    bias_bits = 1 + max(map(abs, starts.biases)).bit_length()
    value_bits = max(1 + max(map(max, values)).bit_length(), dot_bits, bias_bits)
    start_bits = 1 + largest_start.bit_length()
    largest = (largest_start + 1 << starts.ones) + max(sizes)
    sum_bits = max(1 + largest.bit_length(), value_bits, start_bits + starts.ones)
    if isinstance(op, Currents):
        out_bits, out_shift = planes(op.top), op.shift
        sum_bits = max(sum_bits, out_bits + out_shift)
    else:
        out_bits, out_shift = 1 if isinstance(op, Neurons) else sum_bits, 0
    choices = len(starts.rows[0])
    parameters: dict[str, int | str] = {
        "SPIKES": int(isinstance(op, Neurons)),
        "OUTPUTS": op.shape[0],
        "PLACES": op.shape[1] * op.shape[2],
        "SYNAPSES": len(values),
        "TAPS": order,
        "TERMS": terms,
        "EXPONENT_BITS": exponent_bits,
        "SETS": sets,
        "SET_ROWS": rows,
        "ROWS": len(starts.rows),
        "CHOICES": choices,
        "START_BITS": start_bits,
        "START_ONES": starts.ones,
        "BIASED": int(any(starts.biases)),
        "SHIFT": starts.shift,
        "BIAS_BITS": bias_bits,
        "DOT_BITS": dot_bits,
        "VALUE_BITS": value_bits,
        "SUM_BITS": sum_bits,
        "OUT_SHIFT": out_shift,
        "OUT_BITS": out_bits,
    }
    if isinstance(op, Neurons) and op.feedback is not None:
        parameters |= _feedback(op, choices)
    memories = {
        "COEFFICIENT_FILE": Memory(
            [w for each in powers for w in _term_words(each, terms, exponent_bits)], exponent_bits + 2
        ),
        "START_FILE": Memory(_start_words(starts), start_bits),
    }
    if parameters["BIASED"]:
        memories["BIAS_FILE"] = Memory(starts.biases, bias_bits)
    return Instance(parameters, memories), terms


def _feedback(op: Neurons, choices: int) -> dict[str, int | str]:
    """The parameters that say what own spikes do."""
    assert op.feedback is not None
    bits = address_bits(choices)
    parameters: dict[str, int | str] = {
        "FEEDBACK": _FEEDBACK[op.feedback.kind],
        "OWN_STEPS": op.own_steps,
        "CHOICE_BITS": bits,
    }
    if op.feedback.kind == "table" and op.feedback.taps is not None:
        counts = [int(tap) % (1 << bits) for tap in op.feedback.taps[:, 0]]
        parameters |= {"NO_CHOICE": op.feedback.start, "OWN_TAPS": packed(counts, bits)}
    return parameters


def _start_words(starts: _Starts) -> list[int]:
    """Rows one behind the other; choices, which are part of an address, are padded to a power of two."""
    outputs = len(starts.biases)
    padding = (1 << address_bits(outputs)) - outputs if len(starts.rows[0]) > 1 else 0
    return [number for row in starts.rows for choice in row for number in [*choice, *[0] * padding]]


def _term_words(powers: Sequence[tuple[int, int]], terms: int, exponent_bits: int) -> list[int]:
    """{is 0, is negative, exponent} of each power, and of those that are missing."""
    zero, negative = 2 << exponent_bits, 1 << exponent_bits
    return [(negative if sign < 0 else 0) + e for e, sign in powers] + [zero] * (terms - len(powers))


def address_bits(count: int) -> int:
    """Bits that count to ``count`` - 1, one at least."""
    return max(1, (count - 1).bit_length())


def packed(numbers: Sequence[int], bits: int) -> str:
    """A Verilog vector, the first number in the lowest bits."""
    return "{" + ", ".join(f"{bits}'d{number}" for number in reversed(numbers)) + "}"
