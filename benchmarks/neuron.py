"""Claim: on two CPU threads MFPNode trains at least 2.5 times as fast as SpikingJelly 2.0.0's LIFNode.

One process, one input, both sides warmed up and timed in turn; the median and the quartiles are printed.
LIFNode is timed as SpikingJelly dispatches it and under torch.compile, its fastest path on a CPU.

    python benchmarks/neuron.py [--steps 4] [--neurons 1600000] [--threads 2] [--repeats 15] [--json FILE]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from spikingjelly.activation_based import functional, neuron, surrogate

from mfp_neurons import MFPNode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--neurons", type=int, default=1_600_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    lif = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")
    ours = MFPNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")
    peers = {"MFPNode": ours, "LIFNode": lif, "LIFNode, compiled": torch.compile(lif)}
    x = torch.randn(options.steps, options.neurons, requires_grad=True)
    grad = torch.randn_like(x)

    def training(node: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x.grad = None
        node(x).backward(grad)

    @torch.no_grad()
    def inference(node: Callable[[torch.Tensor], torch.Tensor]) -> None:
        node(x)

    rows = {}
    for work in (training, inference):
        times = alternate(work, peers, (lif, ours), options.repeats)
        rows[work.__name__] = {name: summary(values) for name, values in times.items()}
        best = rows[work.__name__]["MFPNode"]["median"]
        for name, row in rows[work.__name__].items():
            spread = f"({row['low']:.1f} to {row['high']:.1f})"
            ratio = row["median"] / best
            print(f"{work.__name__:10} {name:18} {row['median']:8.1f} ms {spread:20} {ratio:.2f}x")
    if options.json:
        facts = {"machine": platform.processor() or platform.machine(), "cpus": torch.get_num_threads()}
        facts |= {name: version(name) for name in ("torch", "spikingjelly", "mfp-neurons")}
        facts |= {"steps": options.steps, "neurons": options.neurons, "repeats": options.repeats}
        options.json.write_text(json.dumps({"facts": facts, "milliseconds": rows}, indent=1) + "\n")


def alternate(
    work: Callable, peers: dict[str, Callable], stateful: tuple, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of ``work`` on each peer, in turn, two rounds of warm-up left out."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(repeats + 2):
        for name, node in peers.items():
            for module in stateful:
                functional.reset_net(module)
            start = time.perf_counter()
            work(node)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: values[2:] for name, values in times.items()}


def summary(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


if __name__ == "__main__":
    main()
