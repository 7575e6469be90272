"""A small Spikformer, trained on Fashion-MNIST and lowered: its scores and its speed beside PyTorch.

    python -m benchmarks.spikformer --out runs/spikformer           # 20 minutes; goes on where it stopped
    python -m benchmarks.spikformer --out runs/spikformer --speed   # times what was trained, 2 minutes
    python -m benchmarks.spikformer --show                          # the page from the results alone

The network is SpikingJelly's own, with two blocks of attention. Its LIFNodes become memory-free neurons, its
weights have 1 bit (8 in the first and last layer). Scores of all test images are compared with the same model
in float64; some images go step by step, event by event and through the C. Writes
benchmarks/results/spikformer.json and the tables of docs/deployment.md.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.layer.attention import SpikingSelfAttention
from spikingjelly.activation_based.model.spikformer import Spikformer
from torch import nn

from benchmarks.evidence.page import between
from benchmarks.machine import facts
from benchmarks.speed.tables import number
from benchmarks.speed.timing import TOTAL, Effort, Sample, alternate, sample_of, summary
from mfp_neurons import convert, report
from mfp_neurons.architectures.layers import Neurons
from mfp_neurons.architectures.spikingjelly_models import FromRest
from mfp_neurons.deploy.device.buffers import run_buffers, step_buffers
from mfp_neurons.quantize import materialize
from mfp_neurons.train import config, tables
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.train.data import Data
from mfp_neurons.train.deployment import Deployed, agreement, lower_checkpoint
from mfp_neurons.train.engine import BEST, Trainer, batches
from tests.deploy import native
from tests.deploy.graphs import Case
from tests.deploy.oracle import unrounded

RESULTS = Path(__file__).parent / "results" / "spikformer.json"
PAGE = Path(__file__).parents[1] / "docs" / "deployment.md"
STEPS = 4
SETTINGS: dict[str, Any] = {
    "data": {"name": "fashion-mnist", "validation": 5000, "limit": 40_000, "time_steps": STEPS},
    "network": {"architecture": "benchmarks.spikformer:spikformer", "weight_bits": 1},
    "readout": {"train": STEPS, "candidates": [STEPS]},
    "training": {"epochs": 2, "batch_size": 64, "learning_rate": 2e-3, "threads": 1, "device": "cpu"},
}
ROUNDING = 1e-9  # of scores in float64, relative to 1 and the largest of them
IN_C = 5  # images
WATCHED = 100  # images whose spikes are counted
INTEGERS, EAGER, COMPILED, LIF = (
    "integers",
    "PyTorch, eager",
    "PyTorch, torch.compile",
    "with LIFNode, eager",
)
BATCHES = (1, 64)
EFFORT = Effort(repeats=51, seconds=20.0, least=5)


# --- the network ------------------------------------------------------------------------------------------


def published(features: tuple[int, ...], classes: int, time_steps: int, **sizes: int) -> nn.Module:
    """SpikingJelly's Spikformer with LIFNodes (tau = 2, hard reset): 7 x 7 patches, 4 heads, 2 blocks."""
    return Spikformer(
        T=time_steps,
        in_channels=features[0],
        img_size_h=features[1],
        img_size_w=features[2],
        patch_size=4,
        num_classes=classes,
        spiking_neuron=neuron.LIFNode,
        tau=2.0,
        detach_reset=True,
        surrogate_function=surrogate.ATan(),
        **{"embed_dims": 64, "num_heads": 4, "depths": 2} | sizes,
    )


def spikformer(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    reset: str | None = None,
    **sizes: int,
) -> nn.Module:
    """The same with its LIFNodes converted, which ``neurons`` of a config do not replace.

    ``reset``: as ``convert`` takes it; None drops the resets, "keep" keeps them.
    """
    net = published(features, classes, time_steps, **sizes)
    return FromRest(convert(net, order=time_steps, reset=reset))


def train(out: Path, data_root: str, overrides: dict[str, Any]) -> tuple[Trainer, dict[str, Any]]:
    """Trains the network, unless that is done; its trainer and its result."""
    settings = json.loads(json.dumps(SETTINGS))
    for key, value in {"data.root": data_root, **overrides}.items():
        config.assign(settings, key, value)
    trainer = Trainer(config.from_dict(settings), out)
    return trainer, trainer.run(resume=True)


# --- its scores -------------------------------------------------------------------------------------------


def lowered(out: Path, data_root: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The trained network beside its integers; accuracies in percent of the test images."""
    trainer, before = train(out, data_root, overrides)
    deployed = lower_checkpoint(trainer.out / BEST, data=trainer.data)
    print(agreement(deployed))  # raises where two executions differ in one score
    test, memory = trainer.data.test, deployed.network.memory()
    costs = report(deployed.model, trainer.data.sequence(test.samples[:WATCHED]))
    return {
        "config": {**before["config"], "data": {**before["config"]["data"], "root": "data"}},
        "accuracy_in_the_framework": before["test_accuracy"],
        "accuracy_without_attention": accuracy_without_attention(deployed),
        **compared(deployed),
        **in_c(deployed),
        "firing_rates": {row.name: row.firing_rate for row in costs.neurons},
        "bytes_of_weights": memory.weights,
        "bytes_of_parameters": memory.parameters,
        "bytes_kept_between_steps": memory.state_stream,
        "bytes_of_maps_of_a_run": memory.peak_buffers,
        "bytes_of_float_parameters": 4 * sum(p.numel() for p in deployed.model.parameters()),
        "bytes_of_float_potentials": 4 * sum(row.neurons for row in costs.neurons),
        "notes": list(deployed.network.notes),
    }


@torch.no_grad()
def accuracy_without_attention(deployed: Deployed) -> float:
    """Percent of the test images right if no block of attention gives a spike, untrained for that."""
    layers = [module for module in deployed.model.modules() if isinstance(module, SpikingSelfAttention)]
    hooks = [module.register_forward_hook(lambda _, x, out: torch.zeros_like(out)) for module in layers]
    data = deployed.data
    right = [
        (deployed.model(data.sequence(samples)).argmax(1) == labels).sum()
        for samples, labels in batches(data.test, 500)
    ]
    for hook in hooks:
        hook.remove()
    return 100 * int(sum(right)) / len(data.test)


@torch.no_grad()
def compared(deployed: Deployed) -> dict[str, Any]:
    """On how many test images the integers say what the model says, in float64 and in its own float32."""
    data, (head,) = deployed.data, deployed.network.graph.heads
    exact = unrounded(deployed.model)
    right, ties, same_classes, same_in_float32, same_scores, largest = 0, 0, 0, 0, 0, 0.0
    differing: list[int] = []
    for samples, labels in batches(data.test, 500):
        x = data.sequence(samples)
        scores = deployed.network.run(data.integer_input(samples))
        expected = exact((samples.double() / 255).reshape(x.shape[1:]).expand(x.shape)).numpy()
        apart = np.abs(scores - expected).max(1)
        agrees = apart <= head.error.max() + ROUNDING * (1 + np.abs(expected).max(1))
        differing += (np.flatnonzero(~agrees) + same_scores + len(differing)).tolist()
        same_scores += int(agrees.sum())
        largest = max(largest, float(apart[agrees].max(initial=0)))
        best = np.sort(scores, 1)
        ties += int((best[:, -1] == best[:, -2]).sum())
        same_classes += int((scores.argmax(1) == expected.argmax(1)).sum())
        same_in_float32 += int((scores.argmax(1) == deployed.model(x).argmax(1).numpy()).sum())
        right += int((scores.argmax(1) == labels.numpy()).sum())
    return {
        "accuracy_in_integers": 100 * right / len(data.test),
        "test_images": len(data.test),
        "same_scores_as_float64": same_scores,
        "same_classes_as_float64": same_classes,
        "same_classes_as_float32": same_in_float32,
        "images_with_two_best_classes": ties,
        "images_that_differ_from_float64": differing,
        "largest_difference_of_equal_scores": float(f"{largest:.0e}"),
    }


def in_c(deployed: Deployed) -> dict[str, Any]:
    """Runs images through the generated C, all steps at once and step by step.

    Raises:
        RuntimeError: a score is another than that of the interpreter.
    """
    graph = deployed.network.graph
    levels = deployed.data.test.samples[:IN_C].numpy().reshape(1, IN_C, *graph.input.shape)
    case = Case(graph, levels, graph.steps)
    stream = native.stream_of(case)
    with tempfile.TemporaryDirectory() as folder:
        (scored,) = native.score([case], [stream], Path(folder), "gcc", "-O2")
        header = (Path(folder) / "net0.h").read_text()
    for what, numbers in vars(native.expected(case, stream)).items():
        if not (getattr(scored, what) == numbers).all():
            raise RuntimeError(f"the C gives other scores than the integer network ({what})")
    sizes = {name.lower(): int(size) for name, size in re.findall(r"NET0_(\w+_BYTES) (\d+)", header)}
    sizes |= {"buffers_bytes": run_buffers(graph).bytes, "stream_bytes": step_buffers(graph).bytes}
    return {"images_in_c": IN_C, "bytes_in_c": sizes}


# --- its speed --------------------------------------------------------------------------------------------


def timed(out: Path, data_root: str) -> dict[str, Any]:
    """Milliseconds of a call on one thread by the number of images: medians and quartiles, taken in turn."""
    deployed = lower_checkpoint(out / BEST, data_root)
    rows = {}
    for images in BATCHES:
        outcome = alternate(contestants(deployed, images), EFFORT)
        rows[str(images)] = {
            "entries": {
                who: {"calls": len(calls), "ms": summary(calls)[TOTAL]}
                for who, calls in outcome.calls.items()
            },
            "skipped": outcome.skipped,
        }
        print(images, rows[str(images)], flush=True)
    return rows


def contestants(deployed: Deployed, images: int) -> dict[str, Callable[[], Sample]]:
    """The integer network, its model, and the published network with the same weights."""
    samples = deployed.data.test.samples[:images]
    x, levels = deployed.data.sequence(samples), samples.numpy().reshape(images, *deployed.data.features)
    net = materialize(deployed.model).get_submodule("network.network").eval()

    def torch_call(net: nn.Module, is_compiled: bool) -> Sample:
        forward = torch.compile(net, dynamic=False) if is_compiled else net

        @torch.no_grad()
        def call() -> None:
            forward(x).mean(0)
            functional.reset_net(net)

        return sample_of(call)

    return {
        INTEGERS: lambda: sample_of(lambda: deployed.network.run(levels, backend="compiled", threads=1)),
        EAGER: lambda: torch_call(net, False),
        COMPILED: lambda: torch_call(net, True),
        LIF: lambda: torch_call(with_lifs(net, deployed.data), False),
    }


def with_lifs(net: Any, data: Data) -> nn.Module:
    """The published network with the weights of ``net``."""
    sizes = {"embed_dims": net.embed_dims, "num_heads": net.num_heads, "depths": net.depths}
    lifs = published(data.features, data.classes, data.steps, **sizes)
    lifs.load_state_dict(net.state_dict())
    return lifs.eval()


# --- the page ---------------------------------------------------------------------------------------------


def score_table(one: dict[str, Any]) -> str:
    """Accuracies, agreement and bytes, a row each."""
    in_c, of = one["bytes_in_c"], f"of {one['test_images']:,}"
    flash = in_c["weight_bytes"] + in_c["parameter_bytes"]
    rows = {
        "accuracy in PyTorch, float32": f"{one['accuracy_in_the_framework']:.2f} %",
        "accuracy as integers": f"{one['accuracy_in_integers']:.2f} %",
        "accuracy with both blocks of attention silenced": f"{one['accuracy_without_attention']:.2f} %",
        "images with the scores of the model in float64": f"{one['same_scores_as_float64']:,} {of}",
        "images with the class of the model in float32": f"{one['same_classes_as_float32']:,} {of}",
        "parameters in float32, kB": kilo(one["bytes_of_float_parameters"]),
        "weights and parameters as integers, kB": f"{kilo(one['bytes_of_weights'])} + "
        f"{kilo(one['bytes_of_parameters'])}",
        "potentials that LIFNodes keep in float32, kB": kilo(one["bytes_of_float_potentials"]),
        "what a stream keeps between steps instead, kB": kilo(one["bytes_kept_between_steps"]),
        "C: tables in flash, kB": kilo(flash),
        "C: RAM of a run; of a stream, kB": f"{kilo(in_c['buffers_bytes'])}; {kilo(in_c['stream_bytes'])}",
    }
    return tables.markdown(("a Spikformer on Fashion-MNIST", ""), rows.items())


def kilo(count: int) -> str:
    return f"{count / 1000:.1f}"


def speed_table(speed: dict[str, Any]) -> str:
    """A row for each number of images: medians in ms [quartiles], and how many times ours."""
    whos = (INTEGERS, EAGER, COMPILED, LIF)
    return tables.markdown(
        ("images", *(f"{who}, ms" for who in whos)),
        (
            (images, *(cell(row["entries"], who) for who in whos))
            for images, row in speed["by_images"].items()
        ),
    )


def cell(entries: dict[str, Any], who: str) -> str:
    if who not in entries:
        return ""
    ms = entries[who]["ms"]
    spread = f"{number(ms['median'])} [{number(ms['low'])}, {number(ms['high'])}]"
    times = ms["median"] / entries[INTEGERS]["ms"]["median"]
    return spread if who == INTEGERS else f"{spread}, {times:.1f}x"


def show() -> None:
    """The tables of the page, from the results."""
    results, text = json.loads(RESULTS.read_text()), PAGE.read_text()
    text = between(text, "spikformer", score_table(results["scores"]))
    PAGE.write_text(between(text, "spikformer-speed", speed_table(results["speed"])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/spikformer"), help="folder for the run")
    parser.add_argument("--data-root", default="data", help="folder that holds FashionMNIST/raw")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides settings")
    parser.add_argument("--speed", action="store_true", help="time the network that was trained")
    parser.add_argument("--show", action="store_true", help="train and run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if args.speed:
        told = facts(torch.device("cpu"))
        results["speed"] = {"facts": told, "by_images": timed(args.out, args.data_root)}
    elif not args.show:
        overrides = dict(config.parse_override(s) for s in args.set)
        results["scores"] = lowered(args.out, args.data_root, overrides)
    write_json(RESULTS, results)
    if results.keys() == {"scores", "speed"}:
        show()


if __name__ == "__main__":
    main()
