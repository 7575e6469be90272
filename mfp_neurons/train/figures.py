"""Figures, drawn without a display and legible in gray."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons._checks import require
from mfp_neurons.train.remains import inputs_of_neurons, potential_of
from mfp_neurons.train.tables import Result, by_network, mean_and_spread

# Okabe and Ito's colors, told apart by color-blind readers; markers tell them apart in gray
STYLES = [
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"),
    ("#56B4E9", "v"), ("#E69F00", "P"), ("#000000", "*"), ("#777777", "X"),
]  # fmt: skip
LINEAR_BELOW = 1.0  # bits: the axis is linear up to here, so that 0 has a place


def pyplot() -> Any:
    """matplotlib.pyplot on a backend that needs no display."""
    matplotlib = require("matplotlib", "train")
    matplotlib.use("Agg")
    return require("matplotlib.pyplot", "train")


def accuracy_against_state(results: Iterable[Result], path: Path) -> None:
    """Writes mean test accuracy (bars: standard deviation over seeds) against bits of state a neuron."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    draw_accuracy(axes, list(results))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_accuracy(axes: Any, results: list[Result]) -> None:
    families = list(dict.fromkeys(r["family"] for r in results))
    for number, (family, (color, marker)) in enumerate(zip(families, _cycle(len(families)), strict=True)):
        points = sorted(
            _point(runs) for runs in by_network(r for r in results if r["family"] == family).values()
        )
        bits, means, spreads = zip(*points, strict=True)
        # a line says "the same with more state": not where two networks of a family keep the same
        line = "-" if len(set(bits)) == len(bits) else ""
        axes.errorbar(
            bits,
            means,
            spreads,
            label=family,
            color=color,
            marker=marker,
            markerfacecolor=color if number < len(STYLES) else "white",  # hollow the second time round
            capsize=3,
            linestyle=line,
            linewidth=1.2,
            markersize=6,
        )
    axes.set_xscale("symlog", base=2, linthresh=LINEAR_BELOW)
    most = max(32.0, *(float(r["state_bits"]) for r in results))
    ticks = [0, *(2**power for power in range(math.ceil(math.log2(most)) + 1))]
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_xlim(-0.15, 1.25 * most)
    axes.set_xlabel("state a hidden neuron keeps between steps, bits (mean)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")


def _point(runs: list[Result]) -> tuple[float, float, float]:
    return (runs[0]["state_bits"], *mean_and_spread([r["test_accuracy"] for r in runs]))


def _cycle(count: int) -> list[tuple[str, str]]:
    return [STYLES[i % len(STYLES)] for i in range(count)]


def demo(
    results: Iterable[Result], modules: Mapping[str, nn.Module], sequence: Tensor, label: int, path: Path
) -> None:
    """Writes accuracy against state, and the last hidden layer of each network on one digit [T, 1, *]."""
    plt = pyplot()
    figure = plt.figure(figsize=(11, 9), layout="constrained")
    grid = figure.add_gridspec(3, len(modules), height_ratios=(1.3, 1.0, 1.0))
    draw_accuracy(figure.add_subplot(grid[0, :]), list(results))
    for column, (name, module) in enumerate(modules.items()):
        spikes, potential = last_layer(module, sequence)
        raster = figure.add_subplot(grid[1, column])
        _draw_raster(raster, spikes[:, 0])
        raster.set_title(name, fontsize="small")
        _draw_potential(figure.add_subplot(grid[2, column], sharex=raster), potential[:, 0])
    figure.suptitle(
        f"the last hidden layer reads a {label}, one row of pixels a step", fontsize="medium", y=0.0
    )
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def _draw_raster(axes: Any, spikes: Tensor) -> None:
    steps, neurons = spikes.nonzero(as_tuple=True)
    axes.plot(steps.tolist(), neurons.tolist(), "|", color="black", markersize=3)
    axes.set_xlim(-0.5, len(spikes) - 0.5)
    axes.set_ylabel("neuron that fires")


def _draw_potential(axes: Any, potential: Tensor) -> None:
    """Every neuron's potential in gray, the three that swing most in color."""
    time = list(range(len(potential)))
    axes.plot(time, potential.tolist(), color="0.85", linewidth=0.6)
    most = potential.std(0).topk(3).indices
    for (color, _), neuron in zip(STYLES, most.tolist(), strict=False):
        axes.plot(time, potential[:, neuron].tolist(), color=color, linewidth=1.4)
    axes.axhline(1.0, color="black", linestyle="--", linewidth=0.8)
    axes.set_xlabel("step (dashes: threshold)")
    axes.set_ylabel("potential")


@torch.no_grad()
def last_layer(module: nn.Module, sequence: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes, and potential before the reset, [T, N, C] each, of the last hidden layer on [T, N, *]."""
    neuron, x_seq = inputs_of_neurons(module, sequence)[-1]
    return neuron(x_seq), potential_of(neuron)(x_seq)


def what_remains(measured: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Writes what is left of an input against the steps since, from rows of ``remains.Remains`` with labels.

    Args:
        measured: title to what was measured; each title is a row of two panels.
        path: of the PNG.
    """
    plt = pyplot()
    figure, grid = plt.subplots(
        len(measured), 2, figsize=(11, 3.6 * len(measured)), layout="constrained", squeeze=False, sharey=True
    )
    labels = list(dict.fromkeys(curve["label"] for curves in measured.values() for curve in curves))
    styles = dict(zip(labels, _cycle(len(labels)), strict=True))
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
