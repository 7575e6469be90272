"""Figures, drawn without a display and legible in grey."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mfp_neurons._checks import require
from mfp_neurons.train.tables import Result, by_network, mean_and_spread

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell them apart in grey
STYLES = [
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P"),
    ("#000000", "*"),
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
    for family, (colour, marker) in zip(families, _cycle(len(families)), strict=True):
        points = sorted(_point(runs) for runs in by_network(r for r in results if r["family"] == family).values())
        bits, means, spreads = zip(*points, strict=True)
        axes.errorbar(
            bits, means, spreads, label=family, color=colour, marker=marker, capsize=3, linewidth=1.2, markersize=6
        )
    axes.set_xscale("symlog", base=2, linthresh=LINEAR_BELOW)
    ticks = [0, 1, 2, 4, 8, 16, 32]
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_xlim(-0.15, 40)
    axes.set_xlabel("state a hidden neuron keeps between steps, bits (mean)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")


def _point(runs: list[Result]) -> tuple[float, float, float]:
    return (runs[0]["state_bits"], *mean_and_spread([r["test_accuracy"] for r in runs]))


def _cycle(count: int) -> list[tuple[str, str]]:
    return [STYLES[i % len(STYLES)] for i in range(count)]
