"""An integer network as Verilog-2005: NAME.v, which says how it is used, its memories, and its parts.

The parts, ``mfp_primitives.v`` and ``mfp_streams.v``, are written by hand and the same for all networks.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from textwrap import wrap

from ..._checks import check_int, describe
from ..._files import write_bytes
from ..device.tables import comment
from ..graph import Currents, Graph, MatMul, Neurons, Product, Scores, Shape, planes
from .layers import Layer, layer
from .modules import PRIMITIVES, STREAMS, bit_range, instance, layer_module
from .streams import Part, Way, narrow_first, part, ways


def write_verilog(
    graph: Graph, directory: str | os.PathLike[str], *, name: str = "mfp_net", lanes: int = 64
) -> list[Path]:
    """Writes a network as Verilog; the head of NAME.v says how it is used.

    Args:
        graph: a valid network.
        directory: made if need be; files of the same names in it are replaced.
        name: of the module, and what the names of its files begin with: a letter, then letters, digits, _.
        lanes: how many bits of inputs a synapse adds up in a cycle, 1 or more.

    Returns:
        The files: NAME.v, mfp_primitives.v, mfp_streams.v, and memories NAME_LAYER_*.hex.

    Raises:
        ValueError: ``name`` or ``lanes`` can't be used; nothing has been written then.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name):
        raise ValueError(
            "name must be a Verilog identifier of at most 63 letters, digits and _ that begins with a "
            f"letter, got {describe(name)}"
        )
    lanes = check_int("lanes", lanes, 1)
    sources = {file: (Path(__file__).parent / file).read_text() for file in (PRIMITIVES, STREAMS)}
    for file, text in sources.items():
        if name in (Path(file).stem, *re.findall(r"^module (\w+)", text, re.M)):
            raise ValueError(f"name must not be that of a part in {file}, got {name!r}")
    network = Network(graph, name, lanes)
    texts = {f"{name}.v": network.text(), **sources}
    for index, each in network.parts.items():
        for kind, memory in each.memories.items():
            texts[_file(name, index, kind)] = memory.text()
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_bytes(folder / file, text.encode("ascii"))
    return [folder / file for file in texts]


def _file(name: str, index: int, kind: str) -> str:
    return f"{name}_{index}_{kind}.hex"


@dataclass(frozen=True)
class _Stream:
    """The names of the signals of a stream."""

    valid: str
    ready: str
    data: str

    @staticmethod
    def inner(name: str, data: str | None = None) -> "_Stream":
        """Of wires; the data are those of ``data`` if they are not its own."""
        return _Stream(f"valid_{name}", f"ready_{name}", data or f"data_{name}")

    @staticmethod
    def port(name: str) -> "_Stream":
        return _Stream(f"{name}_valid", f"{name}_ready", f"{name}_data")

    def wires(self, bits: int) -> list[str]:
        return [
            f"    wire        {self.valid}, {self.ready};",
            f"    wire {bit_range(bits):7s}{self.data};",
        ]


class Network:
    """NAME.v: the parts in the order of the graph, each with the stream that it makes.

    Stream i is what operation i makes, and stream 0 is the input. On its way to reader j, one of several, it
    is i_to_j, and behind a queue i_at_j.
    """

    def __init__(self, graph: Graph, name: str, lanes: int) -> None:
        self.graph, self.name, self.ways = graph, name, ways(graph)
        used = {way.reader for way in self.ways}
        self.parts: dict[int, Layer | Part] = {}
        for index, op in enumerate(graph.ops, start=1):
            if index in used and isinstance(op, Neurons | Currents | Scores):
                self.parts[index] = layer(graph, op, lanes)
            elif index in used:
                self.parts[index] = part(graph, op)

    def text(self) -> str:
        lines = [*self._head(), "", *self._ports(), *self._branch(0)]
        for index in self.parts:
            lines += [*self._part(index), *self._branch(index)]
        # the file is not named after the modules of the layers
        lines += ["endmodule", "", "// verilator lint_off DECLFILENAME"]
        for index, each in self.parts.items():
            if isinstance(each, Layer):
                file = partial(_file, self.name, index)
                lines += [
                    "",
                    f"// Layer {index}: {self._words(index)}.",
                    layer_module(each, self._module(index), file),
                ]
        return "\n".join(lines)

    def _module(self, index: int) -> str:
        """The module of a part."""
        each = self.parts[index]
        return f"{self.name}_layer_{index}" if isinstance(each, Layer) else each.module

    def _bits(self, index: int) -> int:
        """Of a number of a stream."""
        if index <= len(self.graph.body):
            return planes(self.graph.map_top(index))
        head = self.parts[index]
        assert isinstance(head, Layer)
        return int(head.neurons.parameters["OUT_BITS"])

    def _output(self, index: int) -> str:
        """What the ports of a head begin with."""
        return "out" if len(self.graph.heads) == 1 else f"out{index - len(self.graph.body)}"

    def _stream(self, index: int) -> _Stream:
        """The stream that an operation makes."""
        if index > len(self.graph.body):
            return _Stream.port(self._output(index))
        return _Stream.inner(str(index)) if index else _Stream.port("in")

    def _is_forked(self, index: int) -> bool:
        return sum(way.source == index for way in self.ways) > 1

    def _sent(self, way: Way, word: str = "to") -> str:
        twins = [one for one in self.ways if (one.source, one.reader) == (way.source, way.reader)]
        port = f"_{way.port + 1}" if len(twins) > 1 else ""
        return f"{way.source}_{word}_{way.reader}{port}"

    def _forked(self, way: Way) -> _Stream:
        """A stream on its way, in front of a queue."""
        source = self._stream(way.source)
        return _Stream.inner(self._sent(way), source.data) if self._is_forked(way.source) else source

    def _arriving(self, way: Way) -> _Stream:
        """A stream as its reader has it."""
        return _Stream.inner(self._sent(way, "at")) if way.steps else self._forked(way)

    def _ports(self) -> list[str]:
        heads = range(len(self.graph.body) + 1, len(self.graph.ops) + 1)
        ports = ["input  wire        clk", "input  wire        rst"]
        for stream, bits, forward, backward in (
            (self._stream(0), self._bits(0), "input ", "output"),
            *((self._stream(head), self._bits(head), "output", "input ") for head in heads),
        ):
            ports += [
                f"{forward} wire        {stream.valid}",
                f"{backward} wire        {stream.ready}",
                f"{forward} wire {bit_range(bits):7s}{stream.data}",
            ]
        return [f"module {self.name} (", *(f"    {port}," for port in ports[:-1]), f"    {ports[-1]}", ");"]

    def _part(self, index: int) -> list[str]:
        """The part that makes stream ``index``."""
        op, each, target = self.graph.ops[index - 1], self.parts[index], self._stream(index)
        sources = [self._arriving(way) for way in self.ways if way.reader == index]
        lines = ["", f"    // {index}. {comment(op.name)}: {self._words(index)}"]
        if index <= len(self.graph.body):
            lines += target.wires(self._bits(index))
        module, parameters, label = self._module(index), {}, f"layer_{index}"
        if isinstance(each, Part):
            label = f"{module.removeprefix('mfp_')}_{index}"
            parameters = each.parameters | {
                f"{kind[:-1].upper()}_FILE": f'"{_file(self.name, index, kind)}"' for kind in each.memories
            }
        ports = [".clk(clk), .rst(rst)"] if module not in _WITHOUT_CLOCK else []
        if isinstance(op, Product | MatMul):
            if isinstance(op, Product):
                sources = [sources[number] for number in narrow_first(self.graph, op)]
            for name, source in zip(("left", "right"), sources, strict=True):
                ports.append(_connected(name, source))
        elif module in _VECTORS or len(sources) > 1:
            ports.append(_connected("in", self._side_by_side(index, sources)))
        else:
            ports.append(_connected("in", sources[0]))
        ports.append(_connected("out", target))
        return [*lines, *instance(module, label, parameters, ports)]

    def _side_by_side(self, index: int, sources: Sequence[_Stream]) -> _Stream:
        """Several streams as one of vectors, the first one in the lowest bits."""
        bits = [self._bits(way.source) for way in self.ways if way.reader == index]
        # a layer takes each as wide as it is, all else take all as wide as the widest
        is_exact = isinstance(self.parts[index], Layer)
        data = [
            each.data if is_exact or width == max(bits) else f"{max(bits) - width}'d0, {each.data}"
            for each, width in zip(sources, bits, strict=True)
        ]
        columns = [s.valid for s in sources], [s.ready for s in sources], data
        return _Stream(*("{" + ", ".join(reversed(column)) + "}" for column in columns))

    def _branch(self, index: int) -> list[str]:
        """What stands between a stream and its readers: a fork if they are several, and queues."""
        lines, own = [], [way for way in self.ways if way.source == index]
        source, bits = self._stream(index), self._bits(index)
        name = f"stream {index}" if index else "the input"
        if self._is_forked(index):
            branches = [self._forked(way) for way in own]
            lines += ["", f"    // {name.capitalize()} goes to {_listed([str(way.reader) for way in own])}."]
            lines += [f"    wire        {each.valid}, {each.ready};" for each in branches]
            branches.reverse()  # the first one in the lowest bit
            outputs = {"valid": [b.valid for b in branches], "ready": [b.ready for b in branches]}
            ports = [
                ".clk(clk), .rst(rst)",
                f".in_valid({source.valid}), .in_ready({source.ready})",
                *(f".out_{kind}({{{', '.join(names)}}})" for kind, names in outputs.items()),
            ]
            lines += instance("mfp_fork", f"fork_{index}", {"READERS": len(own)}, ports)
        for way in own:
            if way.steps:
                queued = self._arriving(way)
                steps = "a step" if way.steps == 1 else f"{way.steps} steps"
                lines += ["", f"    // {steps.capitalize()} of {name} can wait for {way.reader}."]
                lines += queued.wires(bits)
                parameters = {"PLANES": bits, "DEPTH": self._depth(way)}
                ports = [
                    ".clk(clk), .rst(rst)",
                    _connected("in", self._forked(way)),
                    _connected("out", queued),
                ]
                lines += instance("mfp_fifo", f"fifo_{self._sent(way)}", parameters, ports)
        return lines

    def _depth(self, way: Way) -> int:
        """How many numbers wait in a queue."""
        return way.steps * prod(self.graph.map_shape(way.source))

    def _words(self, index: int) -> str:
        op, each = self.graph.ops[index - 1], self.parts[index]
        if isinstance(each, Part):
            return each.words
        kind = {Neurons: "neurons", Scores: "scores"}.get(type(op), "currents")
        return f"{prod(op.shape)} {kind}, {each.words}; {each.cycles:,} cycles a step"

    def _head(self) -> list[str]:
        """The comment in front of the module, for somebody who has the Verilog alone."""
        graph, parts, name = self.graph, self.parts.values(), self.name
        inputs, heads, end = graph.input, graph.heads, graph.fixed_steps()
        what = "0 or 1" if inputs.top == 1 else f"a whole number from 0 to {inputs.top}, none larger"
        memories = sum(len(m.words) * m.bits for each in parts for m in each.memories.values())
        kept = sum(each.state_bits for each in parts)
        queued = sum(self._depth(way) * self._bits(way.source) for way in self.ways)
        cycles = max(each.cycles for each in parts)
        period = graph.periods[-1]
        every = "each step" if period == 1 else f"every {period} steps, which are pooled to one,"
        scores = f"{_listed([str(prod(head.shape)) for head in heads])} scores"
        if len(heads) == 1:
            scores += (
                ", one for each class: the class with the largest score, or the largest sum of scores over "
                "the steps, is the answer"
            )
        else:
            scores += f", in {len(heads)} streams; all of them have to be taken, or the network waits"
        ports = [
            (
                "clk, rst",
                "one clock; after rst, which is synchronous, the next step is the first of a sequence.",
            ),
            (
                "in_*",
                f"the inputs of a step, one after the other{_order(inputs.shape)}; each is {what}"
                f"{inputs.meaning}.",
            ),
        ]
        for number, head in enumerate(heads, start=len(graph.body) + 1):
            words = (
                f"the scores, one after the other{_order(head.shape)}, signed (two's complement); a score "
                f"times {head.unit!r} is the one of the trained model."
            )
            if len(heads) > 1:
                key = graph.keys[number - len(graph.body) - 1] if graph.keys else head.name
                words = words.replace("the scores", f"the scores of {comment(key)}", 1)
            ports.append((f"{self._output(number)}_*", words))
        rows = [
            f"{name}: a spiking neural network of whole numbers. Written by mfp_neurons; do not edit.",
            "",
            *wrap(
                f"The network takes a sequence of time steps. A step is {prod(inputs.shape)} inputs, and "
                f"{every} gives {scores}.",
                _WIDTH,
            ),
            "",
        ]
        for port, words in ports:
            rows += wrap(words, _WIDTH, initial_indent=f"    {port:12s}", subsequent_indent=" " * 16)
        moves = (
            "A number moves in each cycle in which valid and ready are both 1. Steps follow without a gap; "
            "in_ready is 0 while the network is not ready for more. Scores come without further inputs."
        )
        if end is not None:
            moves += f" The network is for sequences of {end} steps: rst behind each."
        speed = (
            "Speed: the parts work at the same time, each on another step. The slowest of them takes about "
            f"{cycles:,} cycles a step, whatever the inputs are. Read-only memories take {memories:,} bits; "
            f"{kept:,} bits are kept between steps (inputs and spikes of the last steps; no potential is)."
        )
        if queued:
            speed += f" Queues, where branches of unequal length meet, take {queued:,} bits more."
        files = (
            f"Files: this one; {PRIMITIVES} and {STREAMS}, which explain the parts; {name}_*.hex, which the "
            "tools have to find in the folder in which they run."
        )
        for paragraph in (moves, speed, files):
            rows += ["", *wrap(paragraph, _WIDTH)]
        return [f"// {row}".rstrip() for row in rows]


_WIDTH = 100
_WITHOUT_CLOCK = {"mfp_sum", "mfp_ones"}
_VECTORS = {"mfp_sum", "mfp_concat"}


def _connected(name: str, stream: _Stream) -> str:
    return f".{name}_valid({stream.valid}), .{name}_ready({stream.ready}), .{name}_data({stream.data})"


def _listed(words: Sequence[str]) -> str:
    """ "1", "1 and 2", "1, 2 and 3"."""
    return " and ".join([*filter(None, [", ".join(words[:-1])]), words[-1]])


def _order(shape: Shape) -> str:
    """In which order the numbers of a map come, where more than one is possible."""
    channels, rows, columns = shape
    if channels == 1 or rows * columns == 1:
        return ""
    places = f"{rows} x {columns} places, row by row" if rows > 1 else f"{columns} places"
    return f": {places}, and {channels} channels of each"
