"""Figures of the evidence: accuracy against a cost with its frontier, and families side by side."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence.results import (
    OURS,
    Cost,
    Match,
    Network,
    Task,
    differences,
    frontier,
    most_accurate,
)
from mfp_neurons.train import figures, tables

# Okabe and Ito's colors, told apart by color-blind readers. Rivals are hollow, our networks are filled.
COLORS = {
    "LIF, float weights": ("#000000", "D"),
    "LIF, 1-bit weights": ("#0072B2", "o"),
    "LIF, pooled over time": ("#56B4E9", "v"),
    "adaptive or recurrent LIF": ("#0072B2", "p"),
    "SlidingPSN": ("#666666", "<"),
    "GRU": ("#009E73", "P"),
    "convolution over time": ("#009E73", "h"),
    "ReLUs without time": ("#000000", "X"),
    "memory-free": ("#D55E00", "s"),
    "memory-free, pooled over time": ("#E69F00", "^"),
    "memory-free with feedback": ("#CC79A7", "*"),
}
WIDTH = 9.0  # inches; at this width a font of 10 points is 9 points where a page shows 800 pixels
FONT = 10


@dataclass(frozen=True)
class Axis:
    """A cost: how to have it of a network, in units of the axis, and how the axis is called."""

    cost: Cost
    unit: float
    label: str


BYTES = Axis(lambda network: network.total_bytes, 1e-3, "parameters and state, kB")
ENERGY = Axis(lambda network: network.streaming_energy, 1e9, "energy of a sample in a stream, nJ")


def style(family: str) -> dict[str, Any]:
    color, marker = COLORS[family]
    face = color if family in OURS else "white"
    size = 11 if marker == "*" else 7
    return {"color": color, "marker": marker, "markerfacecolor": face, "markersize": size, "linestyle": ""}


# --- accuracy against a cost ------------------------------------------------------------------------------


def trade_offs(task: Task, path: Path) -> None:
    """Writes test accuracy against total bytes and against the energy of a stream, side by side."""
    plt = figures.pyplot()
    shown = [axis for axis in (BYTES, ENERGY) if points(task, axis)]
    with plt.rc_context({"font.size": FONT}):
        figure, panels = plt.subplots(
            1, len(shown), figsize=(WIDTH, 5.4), layout="constrained", sharey=True, squeeze=False
        )
        for axes, axis in zip(panels[0], shown, strict=True):
            _trade_off(axes, task, axis, ticks=7)
        panels[0][0].set_ylabel("test accuracy, %")
        bottom, top = panels[0][0].get_ylim()
        panels[0][0].set_ylim(top=top + 0.12 * (top - bottom))  # room for names
        _legend(figure, task.families())
        for axes, axis in zip(panels[0], shown, strict=True):
            _label_points(axes, task, axis)
        _save(figure, path)


def over_tasks(tasks: Sequence[Task], axis: Axis, path: Path) -> None:
    """Writes test accuracy against one cost, a panel for each task that knows it."""
    plt = figures.pyplot()
    shown = [task for task in tasks if points(task, axis)]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    with plt.rc_context({"font.size": FONT}):
        figure, panels = plt.subplots(
            rows, columns, figsize=(WIDTH, 0.8 + 2.7 * rows), layout="constrained", squeeze=False
        )
        for axes in panels.flat[len(shown) :]:
            axes.axis("off")
        for axes, task in zip(panels.flat, shown, strict=False):
            _trade_off(axes, task, axis, ticks=5)
            axes.set_title(task.title, fontsize=FONT)
        figure.supylabel("test accuracy, %", fontsize=FONT)
        _legend(figure, [family for task in shown for family in task.families()])
        _save(figure, path)


def points(task: Task, axis: Axis) -> list[tuple[Network, float]]:
    """The networks whose cost is known, and the cost in the unit of the axis."""
    costs = [(network, axis.cost(network)) for network in task.networks.values()]
    return [(network, axis.unit * cost) for network, cost in costs if cost is not None]


def _trade_off(axes: Any, task: Task, axis: Axis, ticks: int) -> None:
    shown = points(task, axis)
    places = [(cost, network.accuracy) for network, cost in shown]
    best = [places[index] for index in frontier(places)]
    axes.set_xscale("log")
    for family in task.families():
        for network, cost in shown:
            if network.family == family:
                mean, spread = tables.mean_and_spread(network.accuracies)
                axes.errorbar(cost, mean, spread, elinewidth=0.8, zorder=3, **style(family))
    least, most = (choose(cost for cost, _ in places) for choose in (min, max))
    margin = max(1.1, (most / least) ** 0.06)
    axes.set_xlim(least / margin, most * margin)
    _ticks(axes.xaxis, axes.get_xlim(), ticks)
    steps = [*best, (most * margin, best[-1][1])]
    axes.step(*zip(*steps, strict=True), where="post", color="0.7", linewidth=1.2, zorder=1)
    axes.set_xlabel(axis.label)
    axes.grid(color="0.92", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(axis: Any, limits: tuple[float, float], most: int) -> None:
    """Round numbers on a logarithmic axis, written out: as many as may be."""
    from matplotlib import ticker

    decades = range(math.floor(math.log10(limits[0])), math.ceil(math.log10(limits[1])) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if limits[0] <= tick <= limits[1]]
        if len(ticks) <= most:
            break
    axis.set_major_locator(ticker.FixedLocator(ticks))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axis.set_minor_locator(ticker.NullLocator())


# --- names beside points ----------------------------------------------------------------------------------

Box = tuple[float, float, float, float]  # left, bottom, right, top; pixels
ALIGN = {-1: ("right", "top"), 0: ("center", "center"), 1: ("left", "bottom")}  # across, up
DIRECTIONS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (8, 18, 30, 44, 60, 80)  # from a point to its name, in points
ROUNDS = 3  # in which each name may move again, now that the others have a place


@dataclass(frozen=True)
class Place:
    """Where a name may stand."""

    offset: tuple[float, float]  # from its point, in points
    across: int
    up: int
    boxes: tuple[Box, ...]  # what the name and the line to its point cover


def _label_points(axes: Any, task: Task, axis: Axis) -> None:
    """Writes the short name of each network that has one where it covers least, joined to its point.

    Call it last: names are placed by the layout that the figure has then.
    """
    from matplotlib.patheffects import withStroke

    axes.figure.draw_without_rendering()
    pixels = axes.figure.dpi / 72
    frame = axes.get_window_extent().extents
    shown = points(task, axis)
    markers = [axes.transData.transform((cost, network.accuracy)) for network, cost in shown]
    occupied = [_around(x, y, 0, 0, 9 * pixels, 9 * pixels) for x, y in markers]
    options = {}
    for (network, cost), marker in zip(shown, markers, strict=True):
        if network.short:
            probe = axes.text(0, 0, network.short, fontsize=FONT)
            options[network.short, cost, network.accuracy] = _places(
                marker, probe.get_window_extent(), pixels
            )
            probe.remove()
    chosen: dict[tuple[str, float, float], Place] = {}
    for _ in range(ROUNDS):
        for name, places in options.items():
            others = [box for other, place in chosen.items() if other != name for box in place.boxes]
            chosen[name] = min(places, key=lambda place: _badness(place, [*occupied, *others], frame))
    for (text, cost, accuracy), place in chosen.items():
        axes.annotate(
            text, (cost, accuracy), place.offset, textcoords="offset points", fontsize=FONT,
            ha=ALIGN[place.across][0], va=ALIGN[place.up][1], zorder=4,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5},
        )  # fmt: skip


def _places(marker: tuple[float, float], extent: Any, pixels: float) -> list[Place]:
    """Places for a name of this extent around its point, the nearest first."""
    places = []
    for distance in DISTANCES:
        for across, up in DIRECTIONS:
            x, y = (
                start + distance * pixels * step for start, step in zip(marker, (across, up), strict=True)
            )
            line = [
                _around(x - share * (x - marker[0]), y - share * (y - marker[1]), 0, 0, 6, 6)
                for share in (0.0, 0.2, 0.4, 0.6)  # not up to the point, which has others beside it
            ]
            boxes = (_around(x, y, across, up, extent.width, extent.height), *line)
            places.append(Place((distance * across, distance * up), across, up, boxes))
    return places


def _badness(place: Place, occupied: Sequence[Box], frame: Sequence[float]) -> float:
    """Area that is covered or outside of the frame, and a little for the distance."""
    name = place.boxes[0]
    outside = (name[2] - name[0]) * (name[3] - name[1]) - _overlap(name, frame)
    covered = sum(_overlap(box, other) for box in place.boxes for other in occupied)
    return covered + 2 * outside + 2 * max(abs(place.offset[0]), abs(place.offset[1]))


def _around(x: float, y: float, across: int, up: int, width: float, height: float) -> Box:
    """A box to the right of x (``across`` 1), to its left (-1) or around it (0), and so above y or below."""
    left, bottom = x + (across - 1) * width / 2, y + (up - 1) * height / 2
    return left, bottom, left + width, bottom + height


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


# --- families side by side --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A value of a row, with its spread."""

    family: str
    value: float
    spread: float = 0.0


@dataclass(frozen=True)
class Strips:
    """Rows of marks on one axis, the first row on top, and a line where nobody is ahead."""

    label: str
    neutral: float
    rows: Mapping[str, Sequence[Mark]]

    def draw(self, path: Path) -> None:
        plt = figures.pyplot()
        with plt.rc_context({"font.size": FONT}):
            figure, axes = plt.subplots(figsize=(WIDTH, 1.4 + 0.45 * len(self.rows)), layout="constrained")
            axes.axvline(self.neutral, color="0.5", linewidth=1)
            for height, marks in enumerate(self.rows.values()):
                for mark in marks:
                    spread = mark.spread or None
                    axes.errorbar(
                        mark.value, height, xerr=spread, elinewidth=0.8, zorder=3, **style(mark.family)
                    )
            axes.set_yticks(range(len(self.rows)), self.rows)
            axes.set_ylim(len(self.rows) - 0.5, -0.5)
            axes.set_xlabel(self.label)
            axes.grid(color="0.92", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            _legend(figure, [mark.family for marks in self.rows.values() for mark in marks])
            _save(figure, path)


def leads(tasks: Sequence[Task]) -> Strips:
    """By how many points the most accurate of each family is above the reference of its task."""
    rows = {
        task.title: [mark for network in _best_of_families(task) for mark in _lead(network, task.reference)]
        for task in tasks
    }
    return Strips(f"points above {_references(tasks)}, test accuracy", 0.0, _with_marks(rows))


def worst_cases(pairs: Iterable[Match]) -> Strips:
    """By how many points a memory-free network is above the rival that it stands against."""
    rows = {f"{pair.task.title}:\n{pair.terms}": _lead(pair.ours, pair.rival) for pair in pairs}
    return Strips("points of the memory-free network above its rival, test accuracy", 0.0, _with_marks(rows))


def training_times(tasks: Sequence[Task]) -> Strips:
    """How long a training step of the most accurate of each family takes, in steps of the reference."""
    rows = {}
    for task in tasks:
        unit = task.reference.milliseconds if task.reference else None
        rows[task.title] = [
            Mark(network.family, network.milliseconds / unit)
            for network in _best_of_families(task)
            if network.milliseconds and unit
        ]
    return Strips(f"time of a training step, times that of {_references(tasks)}", 1.0, _with_marks(rows))


def _best_of_families(task: Task) -> list[Network]:
    best = (most_accurate(networks) for networks in task.families().values())
    return [network for network in best if network]


def _lead(network: Network | None, rival: Network | None) -> list[Mark]:
    values = differences(network, rival) if network and rival else []
    return [Mark(network.family, *tables.mean_and_spread(values))] if network and values else []


def _references(tasks: Iterable[Task]) -> str:
    networks = [task.reference for task in tasks if task.reference]
    return " or ".join(dict.fromkeys(f"“{network.short or network.label}”" for network in networks))


def _with_marks(rows: Mapping[str, Sequence[Mark]]) -> dict[str, Sequence[Mark]]:
    return {name: marks for name, marks in rows.items() if marks}


def _legend(figure: Any, families: Iterable[str]) -> None:
    """Below the figure, the families in the order of ``COLORS``."""
    from matplotlib.lines import Line2D

    shown = set(families)
    handles = [Line2D([], [], label=family, **style(family)) for family in COLORS if family in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=150, metadata={"Software": None})
    figures.pyplot().close(figure)
