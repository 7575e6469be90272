"""What remains of an input j steps later, in potentials of few bits and in memory-free neurons.

    python benchmarks/what_remains.py --out runs/remains     # trains five small networks first: minutes
    python benchmarks/what_remains.py --out runs/remains --published   # and writes what the docs show

Above: neurons of one decay, driven by normally distributed inputs, such as a batch norm gives. Below: the
last hidden layer of networks trained on Fashion-MNIST row by row (what_remains.toml), driven by what test
images make of it. Writes remains.json and remains.png into the folder.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import nn

from mfp_neurons import MFP, QuantizedMembraneLIF
from mfp_neurons.train import figures, sweep
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.train.engine import BEST, load_network
from mfp_neurons.train.remains import inputs_of_neurons, potential_of, remains

HERE = Path(__file__).parent
SWEEP = HERE / "what_remains.toml"
DECAY, LAGS, SAMPLES, IMAGES = 0.9, 28, 4000, 500


def neurons() -> dict[str, nn.Module]:
    """The neurons of the upper half."""
    potentials = {f"{bits}-bit potential": QuantizedMembraneLIF(DECAY, bits=bits) for bits in (2, 4, 8)}
    return {
        **potentials,
        "float potential": QuantizedMembraneLIF(DECAY, bits=None),
        "memory-free, K = 8": MFP(DECAY, kernel="fir", order=8, kernel_bits="pow2"),
        f"memory-free, K = {LAGS}": MFP(DECAY, kernel="fir", order=LAGS, kernel_bits="pow2"),
    }


def of_normal_inputs() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    drive = torch.randn(3 * LAGS, SAMPLES, 1)
    return [
        {"label": label, **asdict(remains(potential_of(neuron), drive, lags=LAGS, first=LAGS))}
        for label, neuron in neurons().items()
    ]


def of_trained_networks(plan: sweep.Sweep, out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    data = None
    for entry in plan.entries:
        (path,) = sweep.result_paths(entry, plan.seeds, out)
        module, data, *_ = load_network(path.with_suffix("") / BEST, data=data)
        neuron, given = inputs_of_neurons(module, data.sequence(data.test.samples[:IMAGES]))[-1]
        measured = remains(potential_of(neuron), given, lags=LAGS)
        accuracy = json.loads(path.read_text())["test_accuracy"]
        found.append({"label": entry.label, "test_accuracy": accuracy, **asdict(measured)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for networks and results")
    parser.add_argument("--data-root", default="data", help="folder that holds FashionMNIST/raw")
    parser.add_argument(
        "--published", action="store_true", help="copy the results to where the docs have them"
    )
    args = parser.parse_args()

    plan = sweep.load(str(SWEEP))
    sweep.run(plan, args.out, {"data.root": args.data_root})
    driven, trained = of_normal_inputs(), of_trained_networks(plan, args.out)
    write_json(args.out / "remains.json", {"decay": DECAY, "normal inputs": driven, "trained": trained})
    titles = (f"normally distributed inputs, decay {DECAY}", "trained, last hidden layer, its own inputs")
    figures.what_remains(dict(zip(titles, (driven, trained), strict=True)), args.out / "remains.png")
    if args.published:
        copyfile(args.out / "remains.json", HERE / "results" / "what_remains.json")
        copyfile(args.out / "remains.png", HERE.parent / "docs" / "figures" / "what_remains.png")


if __name__ == "__main__":
    main()
