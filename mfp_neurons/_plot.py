"""Drawing without a display: matplotlib, and names of series at the edge of their axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._checks import require


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
    by_height = [(float(to_axes.transform((end.x, end.y))[1]), end) for end in ends]
    by_height.sort(key=lambda pair: pair[0])
    heights = spread_out([height for height, _ in by_height], 13.0 / points_high)
    for height, (_, end) in zip(heights, by_height, strict=True):
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
    # Upwards, each is moved away from the one below it; then, from the top down, back below 1.
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    top = 1.0
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], top)
        top = places[index] - gap
    return places
