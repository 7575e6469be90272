"""Every operation of an integer network as constant tables and a descriptor in C."""

import re
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import (
    Concat,
    CurrentPool,
    Currents,
    Gather,
    Graph,
    Ints,
    MatMul,
    Neurons,
    Ones,
    Pool,
    Product,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
    planes,
    synapses,
)
from ..memory import own_words, rounding
from ..pack import code_planes, plane_weights, smallest, words
from ..parameters import powers_of, tap_sets, threshold_line
from .buffers import WORD, in_bytes, is_tapped, is_whole, is_wide, plane_words, row_words

_WIDTH = 112


class Tables:
    """The tables and descriptors of all operations.

    Attributes:
        lines: the C.
        weight_bytes, parameter_bytes: what the tables of codes, and all others, take.
    """

    def __init__(self, graph: Graph) -> None:
        self.lines: list[str] = []
        self.weight_bytes = self.parameter_bytes = 0
        self._graph = graph
        self._places: dict[bytes, str] = {}  # queries, keys and values of attention are gathered alike
        # only what is used, as strict compilers warn of a constant that nobody reads
        for index in sorted(_described_maps(graph)):
            name, top = comment(graph.map_name(index)), graph.map_top(index)
            self.lines += [
                "",
                f"/* map {index}, {name}: {self._shape(index)}, numbers 0..{top} */",
                f"static const mfp_map map{index} = {self._map(index)};",
            ]
        for index, op in enumerate(graph.ops, start=1):
            if isinstance(op, Neurons | Currents | Scores | Pool | Gather):
                self.lines += ["", title(graph, index)]
            if isinstance(op, Neurons):
                self._neurons(index, op)
            elif isinstance(op, Scores) and is_tapped(op):
                self._tapped(index, op)
            elif isinstance(op, Currents | Scores):
                currents = self._currents(index, op)
                offset = self._parameters("offset", f"{index}", op.offset)
                self.lines += [f"static const mfp_readout layer{index} = {{{currents}, {offset}}};"]
            elif isinstance(op, Pool):
                self.lines += [f"static const mfp_pooling layer{index} = {_pooling(op)};"]
            elif isinstance(op, Gather):
                places = _places(graph, op)
                key = places.tobytes()
                if key not in self._places:
                    self._places[key] = self._parameters("places", f"{index}", places)
                self.lines += [f"static const mfp_table layer{index} = {self._places[key]};"]

    def _neurons(self, index: int, op: Neurons) -> None:
        currents = self._currents(index, op)
        neurons = [
            f"    .currents = {currents},",
            f"    .order = {op.order},",
            *self._taps(index, op),
            *self._thresholds(index, op),
        ]
        if op.feedback is None:
            self.lines += [f"static const mfp_neurons layer{index} = {{", *neurons, "};"]
            return
        own = op.feedback.taps
        own_taps = "{0, 1}" if own is None else self._parameters("feedback", f"{index}", own)
        self.lines += [
            f"static const mfp_feedback layer{index} = {{",
            "    .neurons = {",
            *(f"    {line}" for line in neurons),
            "    },",
            f"    .kind = MFP_OWN_{op.feedback.kind.upper()}, .steps = {op.own_steps},",
            f"    .choices = {op.choices}, .start = {op.feedback.start}, .unit = {1 << op.feedback.shift},",
            f"    .columns = {1 if own is None else own.shape[1]}, .taps = {own_taps},",
            "};",
        ]

    def _taps(self, index: int, op: Neurons) -> list[str]:
        """Writes the taps of neurons; returns the lines of them."""
        sets = tap_sets(op.taps)
        rows, _, columns = sets.shape
        table, small = "{0, 1}", smallest(sets)
        packed = None if rows > 1 or is_wide(self._graph, op) else _packed_powers(sets[0])
        if packed is not None and packed.nbytes < small.nbytes:
            axes = f"[{op.order}][{columns}], half a byte each, behind a byte for each column"
            self._table(f"powers{index}", f"taps {axes}", packed)
            self.parameter_bytes += packed.nbytes
            powers = f"powers{index}"
        else:
            powers, table = "0", self._parameters("taps", f"{index}", sets)
        return [
            f"    .tap_rows = {rows}, .tap_columns = {columns}, .tap_group = {op.shape[0] // columns},",
            f"    .taps = {table}, .powers = {powers},",
        ]

    def _thresholds(self, index: int, op: Neurons) -> list[str]:
        """Writes the thresholds of neurons, or what they follow from; returns the lines of them."""
        rows, slopes, shifts = op.threshold_table, "{0, 1}", (0, 0)
        numbers, steps = rows if op.choices > 1 else rows[:, 0], len(rows)
        # of a layer that computes in 32 bits its thresholds do too
        line = threshold_line(op, 2 ** (61 if is_wide(self._graph, op) else 31))
        if line is not None:
            start = line.start if op.choices > 1 else line.start[0]
            if smallest(start).nbytes + smallest(line.slope).nbytes < smallest(numbers).nbytes:
                numbers, steps, shifts = start, 0, (line.coarse, line.shift)
                slopes = self._parameters("slopes", f"{index}", line.slope)
        thresholds = self._parameters("thresholds", f"{index}", numbers)
        return [
            f"    .threshold_rows = {steps}, .thresholds = {thresholds},",
            f"    .slopes = {slopes}, .coarse = {shifts[0]}, .shift = {shifts[1]},",
        ]

    def _tapped(self, index: int, op: Scores) -> None:
        currents = self._currents(index, op)
        # a maximum of scores without taps: what is accumulated in a step counts once
        taps = np.ones((len(op.synapses), 1, 1), np.int64) if op.taps is None else op.taps
        self.lines += [
            f"static const mfp_tapped layer{index} = {{",
            f"    .currents = {currents},",
            f"    .order = {op.order}, .columns = {taps.shape[2]},",
            f"    .taps = {self._parameters('taps', f'{index}', taps)},",
            f"    .offset_rows = {len(op.offset)},",
            f"    .offset = {self._parameters('offset', f'{index}', op.offset)},",
            "};",
        ]

    def _currents(self, index: int, op: Neurons | Currents | Scores) -> str:
        """Writes the synapses of a layer, the recurrent ones last; returns their mfp_currents."""
        written = [self._synapse(f"{index}_{i}", synapse) for i, synapse in enumerate(synapses(op))]
        self.lines += [f"static const mfp_synapse synapses{index}[{len(written)}] = {{"]
        self.lines += [line for synapse in written for line in synapse]
        self.lines += ["};"]
        sizes = ", ".join(map(str, op.shape))
        return f"{{{sizes}, {len(written)}, synapses{index}, {int(is_wide(self._graph, op))}}}"

    def _synapse(self, suffix: str, synapse: Synapse) -> list[str]:
        """Writes the tables of a synapse; returns the lines of its descriptor."""
        graph, source = self._graph, synapse.source
        codes = _packed_codes(graph, synapse)
        kind = "bytes" if in_bytes(graph, synapse) else "bits"
        # levels are multiplied byte by byte and need no planes
        of_planes = "" if kind == "bytes" else f", {codes.shape[1]} planes"
        what = f"{synapse.codes.size:,} codes of {synapse.bits:g} bits{of_planes}, from map {source}"
        self._table(
            f"codes{suffix}", f"{what}, {comment(graph.map_name(source))} {self._shape(source)}", codes
        )
        self.weight_bytes += codes.nbytes
        factor = "{0, 1}"
        if synapse.factor is not None:
            factor = self._parameters("factor", suffix, synapse.factor)
        # the C counts bits plane by plane; what a plane is worth, pack.plane_weights alone decides
        weights, base = plane_weights(synapse.bits)
        out, inner, *size = synapse.codes.shape
        row, whole = inner * prod(size), int(is_whole(graph, synapse))
        return [
            "    {",
            f"        .source = {self._map(source)},",
            f"        .window = {_window(synapse.window)},",
            f"        .height = {synapse.shape[1]}, .width = {synapse.shape[2]},",
            f"        .group_in = {inner}, .group_out = {out // synapse.groups},",
            f"        .row = {row}, .row_words = {row_words(synapse)}, .whole = {whole},",
            f"        .{kind} = codes{suffix},",
            f"        .planes = {len(weights)}, .weight = {{{_modulo(*weights)}}}, .base = {_modulo(base)},",
            f"        .factor = {factor},",
            f"        .pooling = {_pooling(synapse.pool)},",
            "    },",
        ]

    def _parameters(self, name: str, suffix: str, numbers: Ints) -> str:
        """Writes whole numbers in the smallest type that holds them; returns the mfp_table for them."""
        small = smallest(numbers)
        axes = "".join(f"[{length}]" for length in numbers.shape)
        self._table(f"{name}{suffix}", f"{name} {axes}", small)
        self.parameter_bytes += small.nbytes
        return f"{{{name}{suffix}, {small.itemsize}}}"

    def _table(self, name: str, what: str, numbers: NDArray[Any]) -> None:
        """A table under a line that says what it holds, as many numbers to a line as fit."""
        flat = numbers.reshape(-1).tolist()
        # packed bits say more in hexadecimal
        cells = [f"0x{number:08x}," if numbers.dtype == np.uint32 else f"{number}," for number in flat]
        row = _WIDTH // (1 + max(map(len, cells)))
        self.lines += [
            f"/* {what}: {numbers.nbytes:,} bytes */",
            f"static const {numbers.dtype.name}_t {name}[{numbers.size}] = {{",
            *("    " + " ".join(cells[i : i + row]) for i in range(0, len(cells), row)),
            "};",
        ]

    def _map(self, index: int) -> str:
        sizes = ", ".join(map(str, self._graph.map_shape(index)))
        return f"{{{sizes}, {planes(self._graph.map_top(index))}, {plane_words(self._graph, index)}}}"

    def _shape(self, index: int) -> str:
        return "(" + ", ".join(map(str, self._graph.map_shape(index))) + ")"


def title(graph: Graph, index: int) -> str:
    """One line that says what operation makes map ``index``."""
    op = graph.ops[index - 1]
    size = " x ".join(map(str, op.shape))
    match op:
        case Neurons():
            words = f"neurons {size}, K = {op.order}" + (", recurrent" if op.recurrent else "")
            if op.feedback is not None:
                words += f"{own_words(op)}; {rounding(op)}"
        case Scores():
            words = f"scores {size}" + (f", K = {op.order}" if op.order > 1 else "")
        case Currents():
            words = f"currents {size}, numbers 0..{op.top}, of which {op.zero} stands for 0"
            if op.shift:
                words += f", {op.shift} bits shifted out"
        case Gather():
            words = f"numbers of map {op.source} in other places, {size}, 0..{op.top}"
        case Ones():
            words = f"1 at every place of map {op.source}, {size}"
        case Product() | MatMul():
            left, right = op.sources
            words = f"{type(op).__name__.lower()} {size} of map {left} and map {right}, numbers 0..{op.top}"
        case Pool():
            words = f"{op.kind} pool {size} of map {op.source}, numbers 0..{op.top}"
        case TimePool():
            words = f"{op.window} steps of map {op.source} joined, {size}, numbers 0..{op.top}"
        case Sum() | Concat():
            parts = " ".join(f"{w} x map {i}," for i, w in zip(op.sources, op.weights, strict=True))
            words = f"{type(op).__name__.lower()} {size} of {parts} numbers 0..{op.top}"
    return f"/* {index}. {comment(op.name)}: {words} */"


def comment(text: str) -> str:
    """A name from outside, as it can stand in any comment: other characters become dots."""
    return re.sub(r"[^A-Za-z0-9_.,:()\[\] -]", ".", text) or "(no name)"


def _described_maps(graph: Graph) -> set[int]:
    """Maps that primitives take a descriptor of; a synapse holds that of its source."""
    indices = {0}
    for index, op in enumerate(graph.ops, start=1):
        if isinstance(op, Pool | Gather):
            indices |= {index, op.source}
        elif isinstance(op, TimePool | Currents | Ones):
            indices |= {index}
        elif isinstance(op, Sum | Concat | Product | MatMul):
            indices |= {index, *op.sources}
    return indices


def _places(graph: Graph, op: Gather) -> Ints:
    """The places of a Gather as maps have them: channels last, in what is written and in what is read."""
    channels, height, width = graph.map_shape(op.source)
    lasts = np.arange(channels * height * width).reshape(height, width, channels).transpose(2, 0, 1)
    written = op.places.reshape(op.shape).transpose(1, 2, 0).reshape(-1)
    return np.where(written < 0, -1, lasts.reshape(-1)[written])


def _packed_codes(graph: Graph, synapse: Synapse) -> NDArray[Any]:
    """Codes as they lie in memory: rows in the order (row, column, channel), bytes or planes of words."""
    # channels last, as a place of a map has its channels side by side
    rows = synapse.codes.transpose(0, 2, 3, 1).reshape(len(synapse.codes), -1)
    if in_bytes(graph, synapse):
        return rows
    return words(np.moveaxis(code_planes(rows, synapse.bits), 0, 1), WORD).astype(np.uint32)


def _packed_powers(taps: Ints) -> NDArray[np.uint8] | None:
    """Taps [K, columns] as mfp_neurons has powers of two, if they are any."""
    powers = powers_of(taps)
    if powers is None or powers.exponents.max() >= 8:
        return None
    halves = np.zeros((len(taps) + len(taps) % 2, taps.shape[1]), np.int64)
    halves[: len(taps)] = powers.codes
    header = 32 * powers.exponents + powers.absent
    return np.concatenate([header[None], halves[::2] + 16 * halves[1::2]]).T.astype(np.uint8)


def _window(window: Window) -> str:
    pairs = (window.size, window.stride, window.padding, window.dilation)
    return "{" + ", ".join(f"{{{rows}, {columns}}}" for rows, columns in pairs) + "}"


def _pooling(pool: Pool | CurrentPool | None) -> str:
    """Of one number where nothing is pooled."""
    kind, window = ("sum", Window()) if pool is None else (pool.kind, pool.window)
    return f"{{MFP_{kind.upper()}, {_window(window)}}}"


def _modulo(*numbers: int) -> str:
    """Whole numbers as unsigned ones of 32 bits, in which negative weights wrap around as sums do."""
    return ", ".join(str(number) if number >= 0 else f"{number % 2**32}u" for number in numbers)
