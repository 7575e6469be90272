"""A test bench in Verilog that checks itself: every spike of every layer and every score, by the interpreter.

Inputs come, and scores are taken, at random moments or without a pause; each sample is a sequence of its own.
With pauses the first sequence is broken off by a reset and begins again.
"""

import re
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.verilog.generate import PRIMITIVES, STREAMS, write_verilog
from mfp_neurons.deploy.verilog.streams import ways
from tests.deploy.graphs import Case
from tests.deploy.toolchain import run, tool

_BENCH = """\
`timescale 1ns / 1ps
module bench;
    reg clk = 1'b0;
    reg rst = 1'b1;
    reg in_valid = 1'b0;
    reg [{input_bits}-1:0] in_data = 0;
    wire in_ready;
    integer sample = 0, offered = -1, errors = 0, cycles = 0, checks = 0;
    reg [63:0] inputs [0:{inputs}-1];

    integer in_at = 0;
{declared}

    net dut (.clk(clk), .rst(rst), .in_valid(in_valid), .in_ready(in_ready), .in_data(in_data){outputs});

    initial begin
        $readmemh("inputs.hex", inputs);
{read}
    end

    always #5 clk = !clk;

    // signals change with the falling edge, what moves is counted with the rising one
    always @(negedge clk) begin
        rst = 1'b0;
        if (cycles == 0) rst = 1'b1;
        if (cycles == {discarded}) rst = 1'b1;
        if ({sample_done}) begin
            sample = sample + 1;
            rst = 1'b1;
            if (sample == {samples}) begin
                if (errors == 0) $display("PASS %0d checks, %0d cycles", checks, cycles);
                else $display("FAIL %0d of %0d", errors, checks);
                $finish;
            end
        end
        if (rst || in_at == (sample + 1) * {inputs_a_sample}) in_valid = 1'b0;
        else if (!in_valid || offered != in_at) begin
            in_valid = {throttle} ? $random : 1'b1;
            offered = in_at;
            in_data = inputs[in_at];
        end
{taken}
    end

    always @(posedge clk) begin
        cycles <= cycles + 1;
        if (cycles > {limit}) begin
            $display("FAIL: no end after %0d cycles", cycles);
            $finish;
        end
        if (cycles == {discarded}) in_at <= 0;
        else if (!rst && in_valid && in_ready) in_at <= in_at + 1;
        if (!rst && cycles > {discarded}) begin
{checked}
        end
    end
endmodule
"""


def write_bench(case: Case, folder: Path, lanes: int, *, throttle: bool, limit: int = 2_000_000_000) -> None:
    """The network ``net``, its test bench and what that reads; ``limit`` is of cycles."""
    graph = case.graph
    files = write_verilog(graph, folder, name="net", lanes=lanes)
    assert (folder / PRIMITIVES) in files
    scores, maps = interpret.run(graph, case.levels.astype(np.int64), case.steps)
    samples = case.levels.shape[1]
    frames = np.broadcast_to(case.levels, (case.steps, *case.levels.shape[1:]))
    _write(folder / "inputs.hex", frames)
    streams = {f"{i}": (maps[i], f"dut.valid_{i} && dut.ready_{i}", f"dut.data_{i}") for i in _inner(graph)}
    declared, outputs, taken, read, checked, done = [], [], [], [], [], []
    for port, (name, bits) in enumerate(_outputs(folder)):
        streams[name] = (scores[port], f"{name}_valid && {name}_ready", f"{name}_data")
        declared += [
            f"    reg {name}_ready = 1'b0;",
            f"    wire {name}_valid;",
            f"    wire [{bits - 1}:0] {name}_bits;",
            f"    wire [63:0] {name}_data = {{{{{64 - bits}{{{name}_bits[{bits - 1}]}}}}, {name}_bits}};",
        ]
        outputs += [
            f",\n        .{name}_valid({name}_valid), .{name}_ready({name}_ready)",
            f", .{name}_data({name}_bits)",
        ]
        taken += [f"        {name}_ready = {int(throttle)} ? $random : 1'b1;"]
    for name, (numbers, moves, data) in streams.items():
        steps = case.own_steps[int(name) if name.isdigit() else -1]
        numbers = np.broadcast_to(numbers, (steps, *numbers.shape[1:]))
        _write(folder / f"expected_{name}.hex", numbers)
        declared += [f"    integer at_{name} = 0;", f"    reg [63:0] expected_{name} [0:{numbers.size}-1];"]
        read += [f'        $readmemh("expected_{name}.hex", expected_{name});']
        checked += [
            f"            if ({moves}) begin",
            f"                if (expected_{name}[at_{name}] !== {data}) begin",
            "                    errors = errors + 1;",
            f'                    if (errors < 10) $display("stream {name}, number %0d: %h, not %h",',
            f"                        at_{name}, {data}, expected_{name}[at_{name}]);",
            "                end",
            f"                at_{name} <= at_{name} + 1;",
            "                checks = checks + 1;",
            "            end",
        ]
        done += [f"at_{name} == (sample + 1) * {numbers.size // samples}"]
    text = _BENCH.format(
        input_bits=graph.input.top.bit_length(),
        inputs=frames.size,
        inputs_a_sample=frames.size // samples,
        outputs="".join(outputs),
        taken="\n".join(taken),
        declared="\n".join(declared),
        read="\n".join(read),
        checked="\n".join(checked),
        # all inputs are taken too: the last ones may be seen by no window
        sample_done=" && ".join([*done, f"in_at == (sample + 1) * {frames.size // samples}"]),
        samples=samples,
        throttle=int(throttle),
        discarded=200 if throttle else 0,
        limit=limit,
    )
    (folder / "bench.v").write_text(text)


def _inner(graph: Graph) -> list[int]:
    """The maps that a score depends on."""
    return sorted({way.source for way in ways(graph)} - {0})


def _outputs(folder: Path) -> list[tuple[str, int]]:
    """The names of the streams of scores, and the bits of each."""
    text, _ = (folder / "net.v").read_text().split("endmodule", 1)
    ports = re.findall(r"^    output wire \[(\d+):0\] *(\w+)_data,?$", text, re.M)
    return [(name, int(highest) + 1) for highest, name in ports]


def _write(path: Path, numbers: NDArray[np.integer]) -> None:
    """[T, N, C, H, W] as lines, sample after sample, channels fastest."""
    flat = numbers.transpose(1, 0, 3, 4, 2).reshape(-1)
    path.write_text("".join(f"{int(number) % 2**64:016x}\n" for number in flat))


def icarus(folder: Path) -> str:
    """What the bench says in Icarus Verilog; a warning of the compiler is a failure."""
    command = [tool("iverilog"), "-g2005", "-Wall", "-Wno-timescale", "-o", "bench.vvp", "-s", "bench"]
    run([*command, "bench.v", "net.v", PRIMITIVES, STREAMS], folder)
    return run([tool("vvp"), "-n", "bench.vvp"], folder).decode()


def verilator(folder: Path) -> str:
    """What the bench says in Verilator."""
    flags = ["--binary", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--top-module", "bench"]
    run([tool("verilator"), *flags, "bench.v", "net.v", "-v", PRIMITIVES, "-v", STREAMS], folder)
    return run([folder / "obj_dir" / "Vbench"], folder).decode()


def lint(folder: Path) -> None:
    """Fails with what Verilator warns of."""
    run([tool("verilator"), "--lint-only", "-Wall", "net.v", "-v", PRIMITIVES, "-v", STREAMS], folder)


def checks(case: Case) -> int:
    """How many numbers a bench compares: of all streams, and the scores."""
    graph, samples = case.graph, case.levels.shape[1]
    maps = [prod(graph.map_shape(i)) * case.own_steps[i] for i in _inner(graph)]
    return samples * sum([*maps, *(prod(head.shape) * case.own_steps[-1] for head in graph.heads)])


_SYNTHESIS = """\
read_verilog net.v {parts}
hierarchy -check -top net
proc
flatten
opt
select -assert-none t:$mul t:$div t:$mod t:$pow
select -assert-none t:$dlatch t:$adlatch t:$dlatchsr t:$sr
synth_ice40 -top net
select -assert-none t:SB_MAC16 t:$_DLATCH_*
select -assert-min {rams} t:SB_RAM40_4K
"""


def synthesize(graph: Graph, folder: Path, lanes: int, *, rams: int) -> None:
    """Fails where Yosys finds a latch, a multiplier, or fewer than ``rams`` block RAMs."""
    write_verilog(graph, folder, name="net", lanes=lanes)
    (folder / "script.ys").write_text(_SYNTHESIS.format(parts=f"{PRIMITIVES} {STREAMS}", rams=rams))
    run([tool("yosys"), "-q", "script.ys"], folder)
