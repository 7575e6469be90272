"""The text of Verilog modules: instances of parts, and the module of a layer, made of several of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from .layers import KINDS, Layer

PRIMITIVES = "mfp_primitives.v"
STREAMS = "mfp_streams.v"


def bit_range(bits: int) -> str:
    """What stands in front of a name of so many bits."""
    return f"[{bits - 1}:0]"


def instance(module: str, name: str, parameters: Mapping[str, int | str], ports: Sequence[str]) -> list[str]:
    """Lines that make an instance of a module; ports come as lines."""
    usual = _defaults().get(module, {})
    settings = [f".{key}({value})" for key, value in parameters.items() if str(value) != usual.get(key)]
    head = [f"    {module} #(", *(f"        {line}" for line in _filled(settings)), f"    ) {name} ("]
    return [
        *(head if settings else [f"    {module} {name} ("]),
        *(f"        {port}," for port in ports[:-1]),
        f"        {ports[-1]}",
        "    );",
    ]


@cache
def _defaults() -> dict[str, dict[str, str]]:
    """The parameters of each of the parts, as they are if an instance does not say anything else."""
    texts = [(Path(__file__).parent / file).read_text() for file in (PRIMITIVES, STREAMS)]
    _, *modules = re.split(r"^module ", "".join(texts), flags=re.M)
    parameter = re.compile(r"^    parameter (?:\[31:0\] )?(\w+) = (\w+)", re.M)
    return {text.split()[0]: dict(parameter.findall(text)) for text in modules}


def _filled(items: list[str], width: int = 100) -> list[str]:
    """Items with commas, as many to a line as fit."""
    lines = [""]
    for number, item in enumerate(items):
        text = item + ("," if number < len(items) - 1 else "")
        if lines[-1] and len(lines[-1]) + 1 + len(text) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {text}".lstrip()
    return lines


def layer_module(layer: Layer, name: str, file: Callable[[str], str]) -> str:
    """The module of a layer: its synapses, and the neurons, scores or currents that they feed.

    Args:
        layer: the parts.
        name: of the module.
        file: the name of the file of a memory of the layer.
    """
    count, inputs = len(layer.synapses), len(layer.synapses) - layer.recurrent
    widths = [int(synapse.parameters["PLANES"]) for synapse in layer.synapses]
    dot_bits = int(layer.neurons.parameters["DOT_BITS"])
    out = "fired" if layer.recurrent else "out"
    lines = [
        f"module {name} (",
        "    input  wire        clk,",
        "    input  wire        rst,",
        f"    input  wire {_vector(inputs)}in_valid,",
        f"    output wire {_vector(inputs)}in_ready,",
        f"    input  wire {bit_range(sum(widths[:inputs])):7s}in_data,",
        "    output wire        out_valid,",
        "    input  wire        out_ready,",
        f"    output wire {bit_range(int(layer.neurons.parameters['OUT_BITS'])):7s}out_data",
        ");",
        f"    wire {_vector(count)}dot_valid, dot_ready;",
        f"    wire {bit_range(count * dot_bits):7s}dots;",
    ]
    if layer.recurrent:
        lines += _recurrence(layer.recurrent)
    for number, (synapse, width) in enumerate(zip(layer.synapses, widths, strict=True)):
        at, own = _at(number, count), number - inputs
        if own < 0:
            at_input = _at(number, inputs)
            data = f"in_data[{sum(widths[:number])} +: {width}]"
            ports = [f".in_valid(in_valid{at_input}), .in_ready(in_ready{at_input}), .in_data({data})"]
        else:
            at_own = _at(own, layer.recurrent)
            ports = [f".in_valid(back_valid{at_own}), .in_ready(back_ready{at_own}), .in_data(out_data)"]
        lines += [
            "",
            *instance(
                "mfp_synapse",
                f"synapse_{number + 1}",
                synapse.parameters | {"CODE_FILE": f'"{file(f"codes_{number + 1}")}"'},
                [
                    ".clk(clk), .rst(rst)",
                    *ports,
                    f".dot_valid(dot_valid{at}), .dot_ready(dot_ready{at}), "
                    f".dot(dots[{number * dot_bits} +: {dot_bits}])",
                ],
            ),
        ]
    dot = "dot_valid", "dot_ready", "dots"
    if count > 1:
        dot = "turn_valid", "turn_ready", "turn"
        lines += [
            "",
            "    // The synapses take turns.",
            "    wire        turn_valid, turn_ready;",
            f"    wire {bit_range(dot_bits):7s}turn;",
            *instance(
                "mfp_turns",
                "turns",
                {"SOURCES": count, "TAPS": layer.neurons.parameters["TAPS"], "BITS": dot_bits},
                [
                    ".clk(clk), .rst(rst), .in_valid(dot_valid), .in_ready(dot_ready), .in_data(dots)",
                    ".out_valid(turn_valid), .out_ready(turn_ready), .out_data(turn)",
                ],
            ),
        ]
    lines += [
        "",
        *instance(
            "mfp_neurons",
            "neurons",
            layer.neurons.parameters | {key: f'"{file(KINDS[key])}"' for key in layer.neurons.memories},
            [
                ".clk(clk), .rst(rst)",
                ".dot_valid({}), .dot_ready({}), .dot({})".format(*dot),
                f".out_valid({out}_valid), .out_ready({out}_ready), .out_data(out_data)",
            ],
        ),
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _recurrence(count: int) -> list[str]:
    """Own spikes go on, and to the synapses that take them back."""
    return [
        "",
        "    // Spikes go on, and come back as inputs of the next step.",
        "    wire        fired_valid, fired_ready;",
        f"    wire {_vector(count)}back_valid, back_ready;",
        *instance(
            "mfp_fork",
            "fork_spikes",
            {"READERS": 1 + count},
            [
                ".clk(clk), .rst(rst), .in_valid(fired_valid), .in_ready(fired_ready)",
                ".out_valid({back_valid, out_valid}), .out_ready({back_ready, out_ready})",
            ],
        ),
    ]


def _vector(count: int) -> str:
    return f"{bit_range(count) if count > 1 else '':7s}"


def _at(number: int, count: int) -> str:
    return f"[{number}]" if count > 1 else ""
