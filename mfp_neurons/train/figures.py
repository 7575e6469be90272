"""Figures of trained networks: accuracy against state, and what the neurons of a layer do on one input."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons import functional
from mfp_neurons._checks import require
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.neuron import MFP
from mfp_neurons.train.network import Block
from mfp_neurons.train.tables import Result, by_network, mean_and_spread

# Okabe and Ito's colors, told apart by color-blind readers; markers tell them apart in gray
STYLES = [
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"),
    ("#56B4E9", "v"), ("#E69F00", "P"), ("#000000", "*"), ("#777777", "X"),
]  # fmt: skip
Potential = Callable[[Tensor], Tensor]
LINEAR_BELOW = 1.0  # bits: the axis is linear up to here, so that 0 has a place


def draw_accuracy(
    axes: Any, results: list[Result], styles: Mapping[str, tuple[str, str]] | None = None
) -> None:
    """A line for each family, its name at the right edge, level with its last point."""
    families = list(dict.fromkeys(r["family"] for r in results))
    styles = styles or dict(zip(families, itertools.cycle(STYLES), strict=False))
    ends = []
    for number, family in enumerate(families):
        color, marker = styles[family]
        points = sorted(
            (runs[0]["state_bits"], *mean_and_spread([r["test_accuracy"] for r in runs]))
            for runs in by_network(r for r in results if r["family"] == family).values()
        )
        bits, means, spreads = zip(*points, strict=True)
        # a line says "the same with more state": not where two networks of a family keep the same
        line = "-" if len(set(bits)) == len(bits) else ""
        face = color if number < len(STYLES) else "white"  # hollow the second time round
        axes.errorbar(
            bits, means, spreads, color=color, marker=marker, markerfacecolor=face,
            capsize=3, linestyle=line, linewidth=1.4, markersize=6,
        )  # fmt: skip
        ends.append(End(family, bits[-1], means[-1], color, marker, face))
    axes.set_xscale("symlog", base=2, linthresh=LINEAR_BELOW)
    most = max(32.0, *(float(r["state_bits"]) for r in results))
    ticks = [0, *(2**power for power in range(math.ceil(math.log2(most)) + 1))]
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_xlim(-0.15, 1.25 * most)
    axes.set_xlabel("state that a hidden neuron keeps between steps, bits (mean over the neurons)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    label_ends(axes, ends)


def demo(
    results: Iterable[Result], modules: Mapping[str, nn.Module], sequence: Tensor, label: int, path: Path
) -> None:
    """Writes accuracy against state, and the last hidden layer of each network on one digit [T, 1, *]."""
    plt = pyplot()
    figure = plt.figure(figsize=(11, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.0, 1.6))
    panels = below.subplots(2, len(modules), sharex=True)
    for name, module, (raster, potential) in zip(modules, modules.values(), panels.T, strict=True):
        layer = last_layer(module, sequence)
        steps, neurons = layer.spikes[:, 0].nonzero(as_tuple=True)
        raster.plot(steps.tolist(), neurons.tolist(), "|", color="black", markersize=3)
        raster.set_xlim(-0.5, len(layer.spikes) - 0.5)
        raster.set_title(name, fontsize="small")
        _draw_potential(potential, layer)
    panels[0, 0].set_ylabel("neuron that fires")
    below.suptitle(f"the last hidden layer reads a {label}, one row of pixels a step", fontsize="medium")
    draw_accuracy(above.subplots(), list(results))
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


@dataclass(frozen=True)
class Layer:
    """A layer of neurons on one input, [T, N, C] each."""

    spikes: Tensor
    potential: Tensor  # what the threshold sees, before any reset
    stored: Tensor | None  # what is kept after each step: codes, or floats; None: no potential is kept
    bits: int | None  # of a code


def _draw_potential(axes: Any, layer: Layer) -> None:
    """Every neuron's potential in gray, the three that change most in color."""
    shown = (layer.potential if layer.stored is None else layer.stored)[:, 0]
    time = list(range(len(shown)))
    axes.plot(time, shown.tolist(), color="0.85", linewidth=0.6)
    most = shown.float().std(0).topk(3).indices
    for number, ((color, _), neuron) in enumerate(zip(STYLES, most.tolist(), strict=False)):
        # equal codes side by side, so that all are visible
        apart = 0.0 if layer.bits is None else 0.05 * number
        axes.plot(time, (shown[:, neuron] + apart).tolist(), color=color, linewidth=1.4, marker=".")
    axes.set_xlabel("step")
    if layer.bits is not None:
        axes.set_yticks(sorted(set(shown.flatten().tolist())))
        axes.set_ylabel(f"kept potential (codes of {layer.bits} bits)")
    elif layer.stored is not None:
        axes.set_ylabel("kept potential (float)")
    else:
        axes.axhline(1.0, color="black", linestyle="--", linewidth=0.8)
        axes.set_xlabel("step (dashes: threshold)")
        axes.set_ylabel("potential (not kept)")


@torch.no_grad()
def last_layer(module: nn.Module, sequence: Tensor) -> Layer:
    """The last hidden layer of a network on [T, N, *]."""
    neuron, x_seq = inputs_of_neurons(module, sequence)[-1]
    stored = bits = None
    if isinstance(neuron, QuantizedMembraneLIF):
        stored, bits = neuron.stored_potential(x_seq), neuron.bits
        if neuron.scale is not None:
            stored = (stored / neuron.scale.abs()).round()
    return Layer(neuron(x_seq), potential_of(neuron)(x_seq), stored, bits)


def potential_of(neuron: nn.Module) -> Potential:
    """What a neuron's threshold sees.

    Raises:
        TypeError: the neuron is neither :class:`MFP` nor :class:`QuantizedMembraneLIF`.
    """
    if isinstance(neuron, QuantizedMembraneLIF):
        return neuron.potential
    if isinstance(neuron, MFP):
        return lambda x_seq: functional.potential(x_seq, neuron.kernel())
    raise TypeError(f"neuron must be MFP or QuantizedMembraneLIF, got {type(neuron).__name__}")


@torch.no_grad()
def inputs_of_neurons(network: nn.Module, x_seq: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """The neuron of each block of a network and what it gets, [T, N, C, *], input first; in eval mode."""
    network.eval()
    inputs: list[tuple[nn.Module, Tensor]] = []
    neurons = [module.neuron for module in network.modules() if isinstance(module, Block)]
    hooks = [
        neuron.register_forward_pre_hook(lambda module, args: inputs.append((module, args[0])))
        for neuron in neurons
    ]
    try:
        network(x_seq)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


# --- drawing without a display ----------------------------------------------------------------------------


def pyplot() -> Any:
    """matplotlib.pyplot on a backend that needs no display."""
    matplotlib = require("matplotlib", "train")
    matplotlib.use("Agg")
    return require("matplotlib.pyplot", "train")


@dataclass(frozen=True)
class End:
    """The last point of a series, in data coordinates, and how the series looks."""

    name: str
    x: float
    y: float
    color: str
    marker: str
    face: str


def label_ends(axes: Any, ends: Sequence[End]) -> None:
    """Writes the name of each series beside the axes, joined to its last point, no name over another.

    Call it last: names are placed by the limits and the scale that the axes have then.
    """
    figure = axes.figure.canvas.figure  # the whole one, if the axes are in a subfigure
    figure.draw_without_rendering()  # lays the figure out, so that heights are known
    to_axes = axes.transData + axes.transAxes.inverted()
    points_high = axes.get_window_extent().height * 72 / figure.dpi
    level = [(float(to_axes.transform((end.x, end.y))[1]), end) for end in ends]
    level.sort(key=lambda pair: pair[0])
    heights = spread_out([height for height, _ in level], 13.0 / points_high)
    for height, (_, end) in zip(heights, level, strict=True):
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 5}
        axes.annotate(
            end.name, (end.x, end.y), (1.045, height),
            textcoords="axes fraction", fontsize=9, va="center", arrowprops=line,
        )  # fmt: skip
        axes.plot(
            1.025, height, end.marker, color=end.color, markerfacecolor=end.face,
            markersize=6, transform=axes.transAxes, clip_on=False,
        )  # fmt: skip


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights from 0 to 1, moved as little as leaves ``gap`` between neighbors.

    >>> spread_out([0.0, 0.25, 0.25, 1.0], 0.25)
    [0.0, 0.25, 0.5, 1.0]
    >>> spread_out([0.75, 1.0, 1.0], 0.25)
    [0.5, 0.75, 1.0]
    """
    # up from the bottom, each name as high as the one below it asks; then down from the top, for those that
    # were pushed out above 1
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    top = 1.0
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], top)
        top = places[index] - gap
    return places
