"""Speed, memory and size of an integer network beside the same network in PyTorch.

    python -m benchmarks.deploy                # some five minutes; writes results/deploy_cpu.json and .md
    python -m benchmarks.deploy --quick        # small and meaningless, into a temporary folder

SpikingJelly's FashionMNISTNet with 128 channels, T = 4, random weights whose layers all fire. Ours: 1-bit
weights (8 bits in the first and last layer), history kernels of order 4. Theirs: the same layers in float32
with SpikingJelly's LIFNode, eager and under torch.compile. If onnx and onnxruntime are installed, networks of
bytes too: the same one unrolled over its steps, and the same layers with ReLU, which have one step. Each
thread count and each peak of memory has a process of its own; in it the contestants take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import onnx_peers
from benchmarks.machine import facts
from benchmarks.speed.__main__ import write
from benchmarks.speed.tables import bullets, number
from benchmarks.speed.timing import TOTAL, Effort, Sample, alternate, sample_of, summary
from mfp_neurons import MFPNode, deploy, quantize_weights
from mfp_neurons.deploy.graph import Graph, synapses
from mfp_neurons.deploy.pack import plane_weights
from mfp_neurons.quantize import materialize
from mfp_neurons.train.tables import markdown

STEPS = 4
OURS, EAGER, COMPILED = "integer network", "LIFNode, eager", "LIFNode, torch.compile"
UNROLLED, RELU = "ONNX Runtime int8, unrolled", "ONNX Runtime int8, ReLU, one pass"
TIMED = {"batch 1, 1 thread": (1, 1), "batch 64, 2 threads": (64, 2)}
BARS = (
    ("batch 1, 1 thread", EAGER, 10.0),
    ("batch 1, 1 thread", COMPILED, 5.0),
    ("batch 1, 1 thread", UNROLLED, 2.0),
    ("batch 64, 2 threads", EAGER, 5.0),
)
SMALLER = 28.0  # times, than the float32 state dict


# --- the network ------------------------------------------------------------------------------------------


def build(node: Callable[..., nn.Module], channels: int, **options: Any) -> nn.Module:
    """FashionMNISTNet with ``node`` as its neuron; the same weights every time."""
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.model.parametric_lif_net import FashionMNISTNet

    torch.manual_seed(0)
    net = FashionMNISTNet(channels, spiking_neuron=node, tau=2.0, **options)
    functional.set_step_mode(net, "m")
    return net.eval()


def lif(channels: int) -> nn.Module:
    from spikingjelly.activation_based.neuron import LIFNode

    return alive(build(LIFNode, channels, detach_reset=True))


def memory_free(channels: int) -> nn.Module:
    net = build(MFPNode, channels, order=STEPS, kernel_bits="pow2", reset=None)
    return alive(quantize_weights(net, bits=1))


@torch.no_grad()
def alive(net: Any) -> nn.Module:
    """Gives batch norms statistics, and linear layers a scale, with which every layer fires."""
    x = frames(8)
    for module in net.conv_fc:
        if isinstance(module, nn.BatchNorm2d):
            over = (0, 1, 3, 4)
            module.running_mean, module.running_var = x.mean(over), x.var(over)
            module.weight.fill_(2.0)
        elif isinstance(module, nn.Linear):
            spread = module(x).std()
            module.weight.mul_(2 / spread)
            module.bias.mul_(2 / spread)
        x = module(x)
    reset(net)
    return net


def levels(batch: int) -> Tensor:
    """Images of noise [T, N, 1, 28, 28], uint8: no pixel is 0 more often than others."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batch, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return images.expand(STEPS, *images.shape).contiguous()


def frames(batch: int) -> Tensor:
    return levels(batch) / 255


def reset(net: nn.Module) -> None:
    from spikingjelly.activation_based import functional

    functional.reset_net(net)


def integer(channels: int) -> deploy.IntegerNetwork:
    return deploy.lower(memory_free(channels), levels(1))


# --- time -------------------------------------------------------------------------------------------------


def contestants(channels: int, batch: int) -> dict[str, Callable[[], Sample]]:
    network, once, streamed = (integer(channels) for _ in range(3))  # buffers are for one size
    given = levels(batch).numpy()

    def torch_call(net: nn.Module, compiled: bool) -> Sample:
        forward = torch.compile(net, dynamic=False) if compiled else net
        x = frames(batch)

        @torch.inference_mode()
        def call() -> None:
            forward(x)
            reset(net)

        return sample_of(call)

    def onnx_call(spiking: bool) -> Sample:
        threads = torch.get_num_threads()
        return sample_of(onnx_peers.session(channels, batch, STEPS, threads, spiking=spiking))

    stream = streamed.stream()
    return {
        OURS: lambda: sample_of(lambda: network.run(given, backend="compiled")),
        f"{OURS}, image given once": lambda: sample_of(lambda: once.run(given[0], backend="compiled")),
        f"{OURS}, one step of a stream": lambda: sample_of(lambda: stream.step(given[0])),
        "MFPNode, eager": lambda: torch_call(materialize(memory_free(channels)), compiled=False),
        EAGER: lambda: torch_call(lif(channels), compiled=False),
        COMPILED: lambda: torch_call(lif(channels), compiled=True),
        UNROLLED: lambda: onnx_call(spiking=True),
        RELU: lambda: onnx_call(spiking=False),
    }


def measure_time(name: str, channels: int, effort: Effort) -> dict[str, Any]:
    batch, threads = TIMED[name]
    torch.set_num_threads(threads)
    outcome = alternate(contestants(channels, batch), effort)
    entries = {
        who: {"calls": len(calls), "ms": summary(calls)[TOTAL]} for who, calls in outcome.calls.items()
    }
    network = integer(channels)
    maps = network.run_events(levels(1).numpy()).spikes
    sizes = [(op.name, int(np.prod(op.shape))) for op in network.graph.ops if op.name in maps]
    rates = {layer: len(maps[layer]) / (STEPS * size) for layer, size in sizes}
    words = batch * counted_words(network.graph)
    return {"entries": entries, "skipped": outcome.skipped, "rates": rates, "words": words}


def counted_words(graph: Graph) -> int:
    """Words of 64 bits that binary synapses combine by AND and count, for all steps of one image."""
    return STEPS * sum(
        prod(one.shape)
        * prod(one.window.size)
        * -(-one.codes.shape[1] // 64)
        * len(plane_weights(one.bits)[0])
        for op in graph.ops
        for one in synapses(op)
        if one.source > 0
    )


# --- memory and size --------------------------------------------------------------------------------------


def measure_memory(who: str, channels: int, file: str) -> dict[str, int]:
    """Peak of this process's memory in bytes, and before there was any network."""
    torch.set_num_threads(1)
    imported = peak()
    if who == OURS:
        network = deploy.IntegerNetwork.load(file)
        network.run(levels(1).numpy(), backend="compiled")
    else:
        net = build(_lif_node(), channels, detach_reset=True)
        net.load_state_dict(torch.load(file, mmap=False))
        with torch.inference_mode():
            net(frames(1))
    return {"imported": imported, "peak": peak()}


def _lif_node() -> Callable[..., nn.Module]:
    from spikingjelly.activation_based.neuron import LIFNode

    return LIFNode


def peak() -> int:
    """The most that this process has held; what getrusage tells includes the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def sizes(channels: int, folder: Path) -> dict[str, int]:
    """Writes both networks and says how large they are."""
    state = lif(channels).state_dict()
    network = integer(channels)
    network.save(folder / "network.safetensors")
    torch.save(state, folder / "state.pt")
    memory = network.memory()
    network.run(levels(1))
    return {
        "float32_state_dict": sum(t.numel() * 4 for t in state.values() if t.is_floating_point()),
        "integer_file": (folder / "network.safetensors").stat().st_size,
        "weights": memory.weights,
        "state_run": memory.state_run,
        "state_stream": memory.state_stream,
        "peak_buffers": memory.peak_buffers,
        "runtime_buffers": network._runtime().buffer_bytes,
    }


# --- the page ---------------------------------------------------------------------------------------------


def page(result: dict[str, Any]) -> str:
    told = result["facts"]
    versions = ", ".join(f"{name} {v}" for name, v in told["versions"].items() if v)
    lines = [
        f"{told['date']}; {told['processor']}, {told['cpus']} processors; {told['system']}; {versions}",
        f"load average before the run: {told['load_average_before']}",
    ]
    parts = [
        f"# Deployment: {told['device_name']}",
        bullets(lines),
        __doc__.partition("\n\n")[2].partition("\n\n")[2],
    ]
    parts += [f"## {name}\n\n{time_table(row)}" for name, row in result["time"].items()]
    parts += ["## Memory and size", size_table(result), "## Bars", bar_table(result)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def time_table(row: dict[str, Any]) -> str:
    ours = row["entries"][OURS]["ms"]["median"]
    lines = [
        [
            who,
            f"{number(ms['median'])} [{number(ms['low'])}, {number(ms['high'])}]",
            f"{ms['median'] / ours:.2f}",
        ]
        for who, ms in ((who, entry["ms"]) for who, entry in row["entries"].items())
    ]
    rates = ", ".join(f"{layer} {100 * rate:.0f} %" for layer, rate in row["rates"].items())
    missing = [f"{who}: {why}" for who, why in row["skipped"].items()]
    table = markdown(["", "ms, median [quartiles]", "times ours"], lines)
    counted = (
        f"AND and popcount of {row['words'] / 1e6:.2f} million words: {row['words'] / ours / 1e6:.2f} a ns."
    )
    return "\n\n".join([table, counted, f"Firing: {rates}.", *([bullets(missing)] if missing else [])])


def size_table(result: dict[str, Any]) -> str:
    size, memory = result["sizes"], result["memory"]
    lines = [
        ["saved (float32: state dict)", size["integer_file"], size["float32_state_dict"]],
        ["process, peak", memory[OURS]["peak"], memory[EAGER]["peak"]],
        ["process, imports alone", memory[OURS]["imported"], memory[EAGER]["imported"]],
        ["between steps of a run", size["state_run"], ""],
        ["between steps of a stream", size["state_stream"], ""],
        ["peak of packed maps", size["peak_buffers"], ""],
        ["peak of maps and scratch, as allocated", size["runtime_buffers"], ""],
    ]
    cells = [[what, *(f"{value:,}" if value != "" else "" for value in values)] for what, *values in lines]
    return markdown(["bytes, one image", OURS, EAGER], cells)


def bar_table(result: dict[str, Any]) -> str:
    lines = [
        [what, f"{bar:g}x", f"{found:.1f}x", "yes" if found >= bar else "**no**"]
        for what, bar, found in judged(result)
    ]
    return markdown(["", "bar", "measured", "met?"], lines)


def judged(result: dict[str, Any]) -> list[tuple[str, float, float]]:
    found = []
    for row, peer, bar in BARS:
        entries = result["time"][row]["entries"]
        if peer == UNROLLED and peer not in entries:
            continue  # not installed
        ratio = entries[peer]["ms"]["median"] / entries[OURS]["ms"]["median"] if peer in entries else 0.0
        found.append((f"{row}: faster than {peer}", bar, ratio))
    size = result["sizes"]
    found.append(("saved: smaller than float32", SMALLER, size["float32_state_dict"] / size["integer_file"]))
    return found


# --- the run ----------------------------------------------------------------------------------------------


def run(out: Path, quick: bool) -> None:
    channels = 8 if quick else 128
    result: dict[str, Any] = {"facts": facts(torch.device("cpu")), "quick": quick, "time": {}, "memory": {}}
    with tempfile.TemporaryDirectory() as folder:
        result["sizes"] = sizes(channels, Path(folder))
        for who, file in ((OURS, "network.safetensors"), (EAGER, "state.pt")):
            told = {"do": "memory", "who": who, "channels": channels, "file": str(Path(folder) / file)}
            result["memory"][who] = elsewhere(told, threads=1)
    for name, (_, threads) in TIMED.items():
        told = {"do": "time", "name": name, "channels": channels, "quick": quick}
        result["time"][name] = elsewhere(told, threads)
        print(f"{name}\n{time_table(result['time'][name])}\n")
    out.mkdir(parents=True, exist_ok=True)
    write(result, out / "deploy_cpu.json")
    (out / "deploy_cpu.md").write_text(page(result))
    print(bar_table(result))


def elsewhere(told: dict[str, Any], threads: int) -> dict[str, Any]:
    """What a process of its own finds."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.deploy", "--do", json.dumps(told)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def do(told: dict[str, Any]) -> dict[str, Any]:
    if told["do"] == "memory":
        return measure_memory(told["who"], told["channels"], told["file"])
    effort = (
        Effort(repeats=3, seconds=1.0, least=2)
        if told["quick"]
        else Effort(repeats=101, seconds=90.0, least=15)
    )
    return measure_time(told["name"], told["channels"], effort)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small and meaningless")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--do", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.do:
        print(json.dumps(do(json.loads(args.do))))
        return
    default = Path(tempfile.mkdtemp()) if args.quick else Path(__file__).parent / "results"
    run(args.out or default, args.quick)


if __name__ == "__main__":
    main()
