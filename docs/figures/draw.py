"""Draws the figures of the idea, each for light and for dark pages: python docs/figures/draw.py

What is plotted is computed by the package; the diagrams are drawn by hand. Results are committed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor

from mfp_neurons import QuantizedMembraneLIF, functional
from mfp_neurons.history import FIR, Exponential, quantize_taps

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Colors:
    """One palette; contrast with its page is 4.5 or more for everything that is read."""

    ink: str
    faint: str
    ours: str
    theirs: str
    third: str
    fill: str


SCHEMES = {
    "light": Colors("#1f2328", "#6b7280", "#00639c", "#b34a00", "#00735a", "#e8f1f7"),
    "dark": Colors("#e6edf3", "#9aa5b1", "#6cbcf0", "#f5a35c", "#4fd0ac", "#1d3040"),
}


# --- building blocks --------------------------------------------------------------------------------------


def plain(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes without a frame, one unit an inch, for a diagram."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes, x: float, y: float, w: float, h: float, text: str, color: str, fill: str = "none"
) -> None:
    patch = FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=0.06", ec=color, fc=fill, lw=1.5)
    axes.add_patch(patch)
    axes.text(x + w / 2, y + h / 2, text, ha="center", va="center", color=color, fontsize=10.5)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, **options: Any
) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=color, lw=1.4, **options)
    )


def bits(axes: Axes, x: float, y: float, values: str, color: str, size: float = 0.26) -> None:
    """A register, the newest bit first."""
    for place, value in enumerate(values):
        filled = value == "1"
        axes.add_patch(
            Rectangle((x + place * size, y), size, size, ec=color, fc=color if filled else "none", lw=1.2)
        )


# --- the figures ------------------------------------------------------------------------------------------


def lif(c: Colors) -> Figure:
    """A LIF neuron: what is kept between two steps is a potential."""
    figure, axes = titled("LIF: a potential is kept", "step t waits for the spike of step t − 1", c)
    box(axes, 0.78, 1.15, 0.86, 0.55, "weights", c.ink)
    box(axes, 2.0, 0.98, 1.0, 0.88, "potential\nb bits", c.theirs)
    box(axes, 3.36, 1.15, 0.5, 0.55, "≥ θ", c.ink)
    for start, end in ((0.5, 0.76), (1.66, 1.98), (3.02, 3.34), (3.88, 4.1)):
        arrow(axes, (start, 1.42), (end, 1.42), c.ink)
    arrow(axes, (2.25, 1.9), (2.75, 1.9), c.theirs, connectionstyle="arc3,rad=-1.2")
    axes.text(2.5, 2.34, "decay, round", ha="center", color=c.theirs, fontsize=9.5)
    arrow(axes, (3.61, 1.1), (2.5, 0.93), c.theirs, connectionstyle="arc3,rad=-0.45")
    axes.text(3.05, 0.4, "reset", ha="center", color=c.theirs, fontsize=9.5)
    return figure


def memory_free(c: Colors) -> Figure:
    """A memory-free neuron: what is kept are past spikes."""
    figure, axes = titled("memory-free: past spikes are kept", "nothing comes back: all steps at once", c)
    for row, values in enumerate(("1011", "0100", "1001")):
        bits(axes, 0.78, 1.72 - 0.4 * row, values, c.ours)
    axes.text(1.3, 0.6, "the last K spikes", ha="center", color=c.ours, fontsize=9.5)
    box(axes, 2.14, 1.05, 1.0, 0.75, "weights,\ntaps", c.ink)
    box(axes, 3.44, 1.15, 0.5, 0.55, "≥ θ", c.ink)
    for start, end in ((0.5, 0.76), (1.86, 2.12), (3.16, 3.42), (3.96, 4.12)):
        arrow(axes, (start, 1.42), (end, 1.42), c.ink)
    return figure


def titled(title: str, below: str, c: Colors) -> tuple[Figure, Axes]:
    """A neuron's diagram with its input and its output."""
    figure, axes = plain(4.6, 3.0)
    axes.text(2.3, 2.9, title, ha="center", va="top", color=c.ink, fontsize=12, weight="bold")
    axes.text(0.0, 1.42, "spikes\nin", ha="left", va="center", color=c.faint, fontsize=10)
    axes.text(4.6, 1.42, "spikes\nout", ha="right", va="center", color=c.faint, fontsize=10)
    axes.text(2.3, 0.04, below, ha="center", color=c.faint, fontsize=9.5)
    return figure, axes


def forgetting(c: Colors) -> Figure:
    """Two inputs, one step, and the difference between them that is left in the potential later."""
    decay, steps, inputs = 0.8, 12, (0.95, 0.5)
    x = torch.zeros(steps, 2)
    x[0] = torch.tensor(inputs)

    def difference(potential: Tensor) -> list[float]:
        return (potential[:, 0] - potential[:, 1]).tolist()

    figure, axes = plt.subplots(figsize=(7.2, 3.3), layout="constrained")
    exact = functional.potential(x, Exponential(decay))
    axes.plot(difference(exact), color=c.faint, lw=1.2, label="float potential")
    for n, marker in ((4, "^"), (3, "D"), (2, "s")):
        stored = QuantizedMembraneLIF(decay, bits=n).potential(x)
        axes.plot(
            difference(stored),
            marker=marker,
            ms=5,
            lw=1.2,
            ls="--",
            color=c.theirs,
            label=f"{n}-bit potential",
        )
    taps = functional.potential(x, FIR(decay ** torch.arange(8.0)))
    axes.plot(difference(taps), marker="o", ms=6, lw=0, color=c.ours, label="memory-free, K = 8: 7 bits")
    axes.set(
        xlabel="steps since the input",
        ylabel="difference that is left",
        xlim=(-0.3, steps - 0.7),
        ylim=(-0.02, 0.49),
    )
    frame(axes, c)
    legend(axes, c)
    return figure


FREE = torch.tensor([0.9, 0.3, -0.2, -0.35, 0.1, 0.55, 0.3, 0.05])  # taps as training may leave them


def exponential(c: Colors) -> Figure:
    return stems(0.5 ** torch.arange(8.0), 'kernel="exp", decay 0.5', c.ours, c)


def free(c: Colors) -> Figure:
    return stems(FREE, 'kernel="fir", eight free taps', c.third, c)


def powers(c: Colors) -> Figure:
    return stems(quantize_taps(FREE, "pow2"), 'the same, kernel_bits="pow2"', c.third, c, named=True)


def stems(taps: Tensor, title: str, color: str, c: Colors, named: bool = False) -> Figure:
    """Taps against their lag."""
    figure, axes = plt.subplots(figsize=(3.6, 2.8), layout="constrained")
    lags = range(len(taps))
    axes.axhline(0, color=c.faint, lw=0.8)
    axes.vlines(lags, 0, taps, color=color, lw=2.5)
    axes.plot(lags, taps, "o", color=color, ms=5)
    for lag, tap in zip(lags, taps.tolist(), strict=True):
        if named:
            axes.text(
                lag, tap + (0.08 if tap > 0 else -0.2), power(tap), ha="center", fontsize=8.5, color=c.ink
            )
    axes.set_title(title, color=c.ink, fontsize=10.5)
    axes.set(xlabel="steps back, j", ylabel="tap, $m_j$", ylim=(-0.72, 1.22))
    frame(axes, c)
    return figure


def power(tap: float) -> str:
    exponent = torch.tensor(abs(tap)).log2().round().int().item()
    return ("−" if tap < 0 else "") + f"$2^{{{exponent}}}$"


def register(c: Colors) -> Figure:
    """A register of four bits, step by step: read as a number, it is the trace."""
    spikes = [1, 0, 1, 1, 0, 0, 1, 0, 0]
    trace = (
        functional.potential(torch.tensor(spikes).float()[:, None], FIR(0.5 ** torch.arange(4.0)))
        .flatten()
        .tolist()
    )
    figure, axes = plain(9.2, 2.75)
    left, pitch, size = 1.75, 0.83, 0.17
    for y, text, color in (
        (2.4, "spike in", c.ink),
        (1.62, "register", c.ours),
        (0.98, "as a number", c.ours),
        (0.42, "decayed trace", c.third),
    ):
        axes.text(left - 0.25, y, text, ha="right", va="center", color=color, fontsize=10.5)
    value = 0
    for t, (spike, level) in enumerate(zip(spikes, trace, strict=True)):
        value = value >> 1 | spike << 3
        assert value / 8 == level
        x = left + t * pitch
        middle = x + 2 * size
        axes.text(middle, 2.4, str(spike), ha="center", va="center", color=c.ink, fontsize=12, weight="bold")
        arrow(axes, (x + size / 2, 2.24), (x + size / 2, 1.76), c.faint)
        bits(axes, x, 1.53, f"{value:04b}", c.ours, size)
        axes.text(middle, 0.98, f"{value}/8", ha="center", va="center", color=c.ours, fontsize=10.5)
        axes.text(middle, 0.42, f"{level:g}", ha="center", va="center", color=c.third, fontsize=10.5)
    axes.text(left + 4.35 * pitch, 0.02, "time →", ha="center", color=c.faint, fontsize=9.5)
    return figure


def feedback(c: Colors) -> Figure:
    """One register of own spikes, which the next layer reads as its history and the neuron as feedback."""
    figure, axes = plain(9.2, 2.4)
    box(axes, 1.05, 1.25, 1.05, 0.62, "weights,\ntaps m", c.ink)
    box(axes, 2.62, 1.25, 0.5, 0.62, "+", c.ink)
    box(axes, 3.52, 1.25, 0.62, 0.62, "≥ θ", c.ink)
    bits(axes, 5.0, 1.43, "1011", c.ours)
    box(axes, 6.8, 1.25, 1.25, 0.62, "next layer:\nweights, taps", c.ink)
    box(axes, 4.2, 0.28, 1.0, 0.55, "taps r", c.third)
    for start, end in ((0.62, 1.03), (2.12, 2.6), (3.14, 3.5), (4.16, 4.98), (6.06, 6.78), (8.07, 8.45)):
        arrow(axes, (start, 1.56), (end, 1.56), c.ink)
    arrow(axes, (5.52, 1.4), (5.22, 0.56), c.third, connectionstyle="arc3,rad=-0.35")
    arrow(axes, (4.18, 0.56), (2.87, 1.22), c.third, connectionstyle="arc3,rad=-0.35")
    axes.text(0.0, 1.56, "spikes\nin", ha="left", va="center", color=c.faint, fontsize=10)
    axes.text(8.52, 1.56, "spikes\nout", ha="left", va="center", color=c.faint, fontsize=10)
    axes.text(4.57, 1.66, "spike", ha="center", color=c.faint, fontsize=9.5)
    axes.text(5.52, 2.0, "the neuron's last spikes", ha="center", color=c.ours, fontsize=10.5)
    axes.text(7.42, 2.0, "read as a history", ha="center", color=c.ink, fontsize=9.5)
    axes.text(5.35, 0.42, "read as feedback", ha="left", color=c.third, fontsize=9.5)
    return figure


def run(c: Colors) -> Figure:
    return order_of(
        "run: all steps at once", "layer after layer, nothing kept", c, lambda layer, t: str(layer + 1)
    )


def stream(c: Colors) -> Figure:
    return order_of("stream: as steps come", "K − 1 bits a neuron kept", c, lambda layer, t: str(t + 1))


def events(c: Colors) -> Figure:
    spiking = {(0, 0), (0, 2), (0, 5), (1, 2), (1, 3), (2, 3), (2, 5)}
    words = "work follows the spikes"
    return order_of(
        "run_events: spike by spike", words, c, lambda layer, t: "spike" * ((layer, t) in spiking)
    )


def order_of(title: str, below: str, c: Colors, mark: Callable[[int, int], str]) -> Figure:
    """Layers against steps; each cell says when it is computed, or that something spikes there."""
    figure, axes = plain(3.2, 2.6)
    axes.text(1.6, 2.5, title, ha="center", va="top", color=c.ink, fontsize=10.5, weight="bold")
    axes.text(1.6, 0.04, below, ha="center", color=c.faint, fontsize=9.5)
    left, bottom, size, pitch = 0.7, 0.72, 0.36, 0.48
    for layer in range(3):
        y = bottom + layer * pitch
        axes.text(
            left - 0.08,
            y + size / 2,
            f"layer {layer + 1}",
            ha="right",
            va="center",
            color=c.faint,
            fontsize=9,
        )
        for t in range(6):
            word = mark(layer, t)
            face = c.ours if word == "spike" else c.fill if word else "none"
            axes.add_patch(Rectangle((left + t * size, y), size, size, ec=c.faint, fc=face, lw=0.7))
            if word and word != "spike":
                middle = left + (t + 0.5) * size, y + size / 2
                axes.text(*middle, word, ha="center", va="center", color=c.ink, fontsize=9)
    axes.text(left + 3 * size, bottom - 0.1, "time →", ha="center", va="top", color=c.faint, fontsize=9)
    return figure


def data_path(c: Colors) -> Figure:
    """A layer in hardware: the memories that it reads, and what a word of inputs goes through."""
    figure, axes = plain(9.2, 3.5)
    axes.text(4.6, 3.4, "a layer in hardware", ha="center", va="top", color=c.ink, fontsize=12, weight="bold")
    memories = (
        (0.95, 1.62, "history", "RAM: inputs of\nK + 1 steps", c.ours),
        (0.95, 0.35, "codes", "ROM: weights,\n1 to 8 bits", c.third),
        (5.25, 0.35, "coefficients", "ROM: powers\nof two", c.third),
        (6.85, 0.35, "starts", "ROM: minus\nthresholds", c.third),
    )
    for x, y, name, holds, color in memories:
        box(axes, x, y, 1.35, 0.92, "", color, c.fill)
        axes.text(x + 0.675, y + 0.68, name, ha="center", va="center", color=color, fontsize=10.5)
        axes.text(x + 0.675, y + 0.28, holds, ha="center", va="center", color=c.ink, fontsize=9)
    for x, w, does in (
        (2.75, 0.62, "AND"),
        (3.72, 0.92, "count\nof ones"),
        (4.99, 0.62, "× 2, +"),
        (5.96, 0.72, "shift"),
        (7.03, 0.62, "±, +"),
        (8.0, 0.55, "sign"),
    ):
        box(axes, x, 1.8, w, 0.56, does, c.ink)
    for start, end in ((0.55, 0.93), (2.32, 2.73), (3.39, 3.7), (4.66, 4.97), (5.63, 5.94), (6.7, 7.01)):
        arrow(axes, (start, 2.08), (end, 2.08), c.ink)
    for start, end in ((7.67, 7.98), (8.57, 8.77)):
        arrow(axes, (start, 2.08), (end, 2.08), c.ink)
    corner = "angle,angleA=0,angleB=90,rad=6"
    arrow(axes, (2.32, 0.81), (3.06, 1.78), c.third, connectionstyle=corner)
    arrow(axes, (6.32, 1.29), (6.32, 1.78), c.third)
    arrow(axes, (7.34, 1.29), (7.34, 1.78), c.third)
    # what comes back within a step: partial sums, one register each
    for x in (5.3, 7.34):
        arrow(axes, (x + 0.18, 2.38), (x - 0.18, 2.38), c.faint, connectionstyle="arc3,rad=0.9")
    axes.text(5.3, 2.66, "over planes", ha="center", color=c.faint, fontsize=9)
    axes.text(7.34, 2.66, "over taps", ha="center", color=c.faint, fontsize=9)
    axes.text(3.06, 2.5, "LANES bits\na cycle", ha="center", color=c.faint, fontsize=9)
    axes.text(0.0, 2.08, "stream\nin", ha="left", va="center", color=c.faint, fontsize=10)
    axes.text(9.2, 2.08, "spike", ha="right", va="center", color=c.faint, fontsize=10)
    axes.text(
        3.9,
        0.81,
        "kept between steps:\nthe history alone",
        ha="center",
        va="center",
        color=c.ours,
        fontsize=9.5,
    )
    return figure


def architecture(c: Colors) -> Figure:
    """Which part of the package hands what to which: training above, what leaves PyTorch below."""
    figure, axes = plain(8.98, 5.2)

    def part(x: float, y: float, name: str, does: str, color: str, w: float = 1.5) -> None:
        box(axes, x, y, w, 0.92, "", color)
        axes.text(x + w / 2, y + 0.62, name, ha="center", va="center", color=color, fontsize=10.5)
        axes.text(x + w / 2, y + 0.27, does, ha="center", va="center", color=c.ink, fontsize=9.5)

    def title(y: float, text: str) -> None:
        axes.text(0.1, y, text, ha="left", va="center", color=c.ink, fontsize=11, weight="bold")

    title(5.02, "a spike train becomes a spike train")
    across = (0.1, 1.92, 3.74, 5.56, 7.38)
    training = (
        ("adapters", "neuron classes"),
        ("functional.py", "checks, one call"),
        ("ops.py", "one operator"),
        ("backends/", "which one runs"),
        ("kernels/", "C++ and CUDA"),
    )
    for x, (name, does) in zip(across, training, strict=True):
        part(x, 3.82, name, does, c.ours)
    for x in across[1:]:
        arrow(axes, (x - 0.3, 4.28), (x - 0.02, 4.28), c.faint)

    title(3.32, "a trained model leaves PyTorch")
    part(0.1, 2.12, "model", "of torch modules", c.ink)
    part(1.92, 2.12, "network/", "reads it once", c.third)
    part(3.74, 2.12, "description", "exact numbers", c.third)
    part(5.56, 2.12, "deploy/", "folds and checks", c.theirs)
    part(7.38, 2.12, "executions", "run, stream, C", c.theirs)
    part(5.56, 0.92, "nir/", "writes a NIR graph", c.theirs)
    for x in across[1:]:
        arrow(axes, (x - 0.3, 2.58), (x - 0.02, 2.58), c.faint)
    arrow(axes, (4.49, 2.1), (5.54, 1.38), c.faint, connectionstyle="angle,angleA=-90,angleB=180,rad=6")
    axes.text(
        0.1,
        1.38,
        "spec.py says what a neuron is,\nquantize/ what a weight is:\neverything here asks them",
        ha="left",
        va="center",
        color=c.faint,
        fontsize=9.5,
    )
    axes.plot((0.1, 8.88), (0.66, 0.66), color=c.faint, lw=0.8)
    axes.text(
        4.49,
        0.3,
        "above both: convert, reporting/, orders, zoo/, train/; outside the wheel: benchmarks/",
        ha="center",
        va="center",
        color=c.ink,
        fontsize=9.5,
    )
    return figure


# --- paint and write --------------------------------------------------------------------------------------


def frame(axes: Axes, c: Colors) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(c.faint)
    axes.tick_params(colors=c.ink, labelsize=9)
    axes.xaxis.label.set_color(c.ink)
    axes.yaxis.label.set_color(c.ink)


def legend(axes: Axes, c: Colors) -> None:
    axes.legend(frameon=False, labelcolor=c.ink, fontsize=9.5)


FIGURES: tuple[Callable[[Colors], Figure], ...] = (
    lif, memory_free, forgetting, exponential, free, powers, register, feedback, run, stream, events,
    data_path,
)  # fmt: skip


def main() -> None:
    mpl.use("Agg")
    plt.rcParams |= {"svg.hashsalt": "mfp-neurons", "font.size": 10, "mathtext.default": "regular"}
    for draw in FIGURES:
        for scheme, colors in SCHEMES.items():
            figure = draw(colors)
            figure.savefig(
                FOLDER / f"{draw.__name__}_{scheme}.svg", transparent=True, metadata={"Date": None}
            )
            plt.close(figure)
    # one for every page, as Markdown outside the site can't choose: with a background of its own
    architecture(SCHEMES["light"]).savefig(FOLDER / "architecture.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
