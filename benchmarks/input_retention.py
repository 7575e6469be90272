"""How much of an input is still in a potential j steps later: potentials of few bits, memory-free neurons.

    python -m benchmarks.input_retention --out runs/retention    # trains five small networks first: minutes
    python -m benchmarks.input_retention --out runs/retention --published    # and writes what the docs show

Of two runs that differ in the input of one step alone, the potentials differ by r[j], j steps after it. An
input that differs by e leaves, in a neuron that forgets nothing and adds nothing, r[j] = w[j] * e for some
weight w[j]. Rounding, clipping and resets make r[j] depend on all other inputs too.

Above in the figure: neurons of one decay, driven by normally distributed inputs, such as a batch norm gives.
Below: the last hidden layer of networks trained on Fashion-MNIST row by row (input_retention.toml), driven by
what test images make of it. Writes input_retention.json and .png into the folder.
"""

import argparse
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import sweep
from mfp_neurons import MFP, QuantizedMembraneLIF
from mfp_neurons._plot import pyplot
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.train.engine import BEST, load_network
from mfp_neurons.train.figures import STYLES, Potential, inputs_of_neurons, potential_of

HERE = Path(__file__).parent
SWEEP = HERE / "input_retention.toml"
DECAY, LAGS, SAMPLES, IMAGES = 0.9, 28, 4000, 500


@dataclass(frozen=True)
class InputRetention:
    """What is left j = 0, 1, ... steps after an input, each a list over j, mean over channels.

    Attributes:
        any: share of the inputs whose exchange changes the potential at all.
        kept: squared correlation of the potential's change with the input's: 1 where the input can be read
            off that change, 0 where the change says nothing about the input.
        weight: slope of the potential's change over the input's: w[j].
    """

    any: list[float]
    kept: list[float]
    weight: list[float]


@torch.no_grad()
def input_retention(
    potential: Potential, x_seq: Tensor, *, lags: int, first: int = 0, seed: int = 0
) -> InputRetention:
    """Exchanges inputs, one step at a time, for those of other samples, and watches the potential.

    Args:
        potential: from inputs [T, N, C] to the potentials [T, N, C] of a neuron at rest before them.
        x_seq: inputs of the neuron, [T, N, C]; N >= 2 different samples.
        lags: how many steps to look ahead; below T - first.
        first: the first step whose input is exchanged, so that the neuron has some input before it.
        seed: of the permutations that pair the samples.

    Raises:
        ValueError: ``x_seq`` has another form, or too few steps.

    >>> found = input_retention(potential_of(MFP(0.5, order=3)), torch.randn(9, 64, 1), lags=5)
    >>> [round(w, 3) for w in found.weight], [round(k, 3) for k in found.kept]
    ([1.0, 0.5, 0.25, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0])
    """
    if x_seq.dim() != 3 or x_seq.shape[1] < 2:
        raise ValueError(f"x_seq must be [T, N, C] with N >= 2, got shape {list(x_seq.shape)}")
    steps, samples, channels = x_seq.shape
    if not 0 < lags <= steps - first:
        raise ValueError(f"lags must be from 1 to T - first = {steps - first}, got {lags}")
    generator = torch.Generator().manual_seed(seed)
    before = potential(x_seq).double()
    changed, squares, products, inputs = torch.zeros(4, lags, channels, dtype=torch.float64)
    count = torch.zeros(lags, channels, dtype=torch.float64)
    for at in range(first, steps):
        order = torch.randperm(samples, generator=generator)
        exchanged = x_seq.clone()
        exchanged[at, order] = x_seq[at, order.roll(1)]  # a circle: no sample is paired with itself
        difference = (exchanged[at] - x_seq[at]).double()
        left = (potential(exchanged).double() - before)[at : at + lags]
        lag = slice(len(left))  # near the end of the sequence only the first lags can be watched
        changed[lag] += ((left != 0) & (difference != 0)).sum(1)
        squares[lag] += left.square().sum(1)
        products[lag] += (left * difference).sum(1)
        inputs[lag] += difference.square().sum(0)
        count[lag] += (difference != 0).sum(0)
    return InputRetention(
        *(
            value.mean(1).tolist()
            for value in (
                _ratio(changed, count),
                _ratio(products.square(), squares * inputs),
                _ratio(products, inputs),
            )
        )
    )


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where there is nothing to divide by."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0.0)


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
        {"label": label, **asdict(input_retention(potential_of(neuron), drive, lags=LAGS, first=LAGS))}
        for label, neuron in neurons().items()
    ]


def of_trained_networks(plan: sweep.Sweep, out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    data = None
    for entry in plan.entries:
        (path,) = sweep.result_paths(entry, plan.seeds, out)
        module, data, *_ = load_network(path.with_suffix("") / BEST, data=data)
        neuron, inputs = inputs_of_neurons(module, data.sequence(data.test.samples[:IMAGES]))[-1]
        measured = input_retention(potential_of(neuron), inputs, lags=LAGS)
        accuracy = json.loads(path.read_text())["test_accuracy"]
        found.append({"label": entry.label, "test_accuracy": accuracy, **asdict(measured)})
    return found


def draw(measured: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws what is left of an input against the steps since.

    Args:
        measured: title to rows of :class:`InputRetention` with labels; each title is a row of two panels.
        path: of the PNG.
    """
    plt = pyplot()
    figure, grid = plt.subplots(
        len(measured), 2, figsize=(11, 3.6 * len(measured)), layout="constrained", squeeze=False, sharey=True
    )
    labels = list(dict.fromkeys(curve["label"] for curves in measured.values() for curve in curves))
    styles = dict(zip(labels, itertools.cycle(STYLES)))
    for row, (title, curves) in zip(grid, measured.items(), strict=True):
        for axes, key, words in zip(
            row,
            ("kept", "any"),
            ("can be read off the potential", "changes the potential at all"),
            strict=True,
        ):
            for curve in curves:
                color, marker = styles[curve["label"]]
                axes.plot(curve[key], color=color, marker=marker, markersize=4, label=curve["label"])
            axes.set_title(f"{title}: {words}", fontsize="small")
            axes.set_xlabel("steps since the input, j")
            axes.grid(alpha=0.3)
        row[0].set_ylabel("share of the input that is still there")
        row[1].legend(fontsize="small", loc="best")
    figure.savefig(path, dpi=130)
    plt.close(figure)


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
    write_json(
        args.out / "input_retention.json", {"decay": DECAY, "normal inputs": driven, "trained": trained}
    )
    titles = (f"normally distributed inputs, decay {DECAY}", "trained, last hidden layer, its own inputs")
    draw(dict(zip(titles, (driven, trained), strict=True)), args.out / "input_retention.png")
    if args.published:
        copyfile(args.out / "input_retention.json", HERE / "results" / "input_retention.json")
        copyfile(args.out / "input_retention.png", HERE.parent / "docs" / "figures" / "input_retention.png")


if __name__ == "__main__":
    main()
