"""Figures of a result, legible in gray, each with a text that says what it shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfp_neurons._checks import require
from mfp_neurons.train.figures import End, label_ends, pyplot

from .tables import number, unique

Row = dict[str, Any]
Result = dict[str, Any]

# Okabe and Ito's colors, told apart by color-blind readers; markers and dashes tell them apart in gray
_OURS = {
    "MFPNode": ("#0072B2", "o", "-"),
    "MFPNode, fused": ("#56B4E9", "D", "-"),
    "MFPLeakyParallel": ("#009E73", "s", "-"),
}
_THEIRS = [
    ("#D55E00", "^", "--"), ("#CC79A7", "v", "--"), ("#E69F00", "P", "--"), ("#000000", "X", "--"),
    ("#999999", "<", ":"), ("#D55E00", ">", ":"), ("#CC79A7", "h", ":"), ("#E69F00", "*", ":"),
    ("#000000", "+", ":"), ("#999999", "x", ":"),
]  # fmt: skip
_TITLES = {"training": "forward and backward", "forward": "forward alone"}


def draw(result: Result, folder: Path, stem: str) -> dict[str, str]:
    """Writes the figures that the rows are enough for; returns {file name: alternative text}."""
    drawn = {}
    for dtype in unique(row.get("dtype", "") for row in _rows(result, "neuron/").values()):
        rows = [row for row in _rows(result, "neuron/").values() if row["dtype"] == dtype]
        drawn[f"{stem}_time_{dtype}.png"] = time_per_element(rows, folder / f"{stem}_time_{dtype}.png")
    networks = _rows(result, "network/")
    if networks:
        drawn[f"{stem}_networks.png"] = training_steps(networks, folder / f"{stem}_networks.png")
    return drawn


def _rows(result: Result, prefix: str) -> dict[str, Row]:
    return {n: row for n, row in result["rows"].items() if n.startswith(prefix) and "skipped" not in row}


# --- the neuron -----------------------------------------------------------------------------------------


def time_per_element(rows: list[Row], path: Path) -> str:
    """Nanoseconds an element against T, ours and the peers, a panel for each kind of work."""
    plt = pyplot()
    works = [work for work in _TITLES if any(row["work"] == work for row in rows)]
    figure, panels = plt.subplots(
        len(works), 1, figsize=(9.0, 4.4 * len(works)), layout="constrained", sharex=True, squeeze=False
    )
    names = unique(e["name"] for row in rows for e in row["entries"] if "ms" in e)
    styles = _styles(names)
    drawn = []
    for axes, work in zip(panels[:, 0], works, strict=True):
        chosen = _largest_of_each_length(row for row in rows if row["work"] == work)
        drawn.append(_draw_times(axes, chosen, styles))
        axes.set_title(_TITLES[work])
        axes.set_ylabel("time an element, ns (log)")
    panels[-1, 0].set_xlabel("time steps T (log)")
    for axes, ends in zip(panels[:, 0], drawn, strict=True):
        label_ends(axes, ends)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return _words(rows)


def _largest_of_each_length(rows: Any) -> list[Row]:
    best: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: row["neurons"]):
        best[row["steps"]] = row
    return [best[steps] for steps in sorted(best)]


def _draw_times(axes: Any, rows: list[Row], styles: Mapping[str, tuple[str, str, str]]) -> list[End]:
    ends = []
    for name, (color, marker, dashes) in styles.items():
        points = [
            (row["steps"], _nanoseconds(entry, row))
            for row in rows
            for entry in row["entries"]
            if entry["name"] == name and "ms" in entry
        ]
        if not points:
            continue
        ours = name in _OURS
        ends.append(End(name, *points[-1], color, marker, color))
        axes.plot(
            *zip(*points, strict=True),
            color=color, marker=marker, linestyle=dashes,
            linewidth=2.0 if ours else 1.1, markersize=7 if ours else 5.5, zorder=3 if ours else 2,
        )  # fmt: skip
    copied = [(r["steps"], 1e6 * r["copies"]["copy"]["median"] / _elements(r)) for r in rows]
    axes.plot(*zip(*copied, strict=True), color="0.7", linewidth=4, zorder=1)
    ends.append(End("a copy of the input", *copied[-1], "0.7", "_", "0.7"))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [row["steps"] for row in rows]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.grid(alpha=0.3)
    return ends


def _elements(row: Row) -> int:
    return row["steps"] * row["neurons"]  # type: ignore[no-any-return]


def _nanoseconds(entry: dict[str, Any], row: Row) -> float:
    return 1e6 * entry["ms"]["total"]["median"] / _elements(row)  # type: ignore[no-any-return]


def _styles(names: list[str]) -> dict[str, tuple[str, str, str]]:
    theirs = iter(_THEIRS * len(names))
    return {name: _OURS[name] if name in _OURS else next(theirs) for name in names}


def _words(rows: list[Row]) -> str:
    """What the picture shows, in a sentence: who is fastest at each length."""
    chosen = _largest_of_each_length(row for row in rows if row["work"] == rows[0]["work"])
    parts = []
    for row in chosen:
        ran = [entry for entry in row["entries"] if "ms" in entry]
        if ran:
            first = min(ran, key=lambda entry: entry["ms"]["total"]["median"])
            parts.append(f"T = {row['steps']:,}: {first['name']}, {number(_nanoseconds(first, row))} ns")
    title = _TITLES[rows[0]["work"]]
    return f"Time an element against T, {rows[0]['dtype']}. Fastest, {title}: {'; '.join(parts)}."


# --- networks -------------------------------------------------------------------------------------------


def training_steps(rows: Mapping[str, Row], path: Path) -> str:
    """Time and peak memory of a training step, a line of dots for each network and variant."""
    plt = pyplot()
    lines = [(name, e) for name, row in rows.items() for e in row["entries"] if "ms" in e]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.2 + 0.38 * len(lines)), layout="constrained", sharey=True
    )
    styles = _styles(unique(entry["name"] for _, entry in lines))
    for place, (_, entry) in enumerate(lines):
        color, marker, _ = styles[entry["name"]]
        ms = entry["ms"]["total"]
        left.plot([ms["low"], ms["high"]], [place, place], color=color, linewidth=3, alpha=0.5)
        left.plot(ms["median"], place, marker, color=color, markersize=8)
        left.annotate(number(ms["median"]), (ms["median"], place), (8, 5), textcoords="offset points", size=8)
        if "memory" in entry:
            _draw_memory(right, entry["memory"], place, color)
    left.set_yticks(range(len(lines)), [f"{_short(name)}: {entry['name']}" for name, entry in lines])
    left.set_ylim(len(lines) - 0.4, -0.7)
    left.set_xlabel("a training step, ms (log; bars: quartiles)")
    right.set_xlabel("memory, MB (log)")
    right.legend(
        *_memory_key(right), loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.8 / len(lines)), ncols=3
    )
    for axes in (left, right):
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(require("matplotlib.ticker", "train").LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    told = "; ".join(f"{_short(n)}, {e['name']} {number(e['ms']['total']['median'])} ms" for n, e in lines)
    return f"Time and memory of a training step. {told}."


_MEMORY = {
    "saved_bytes": ("x", "saved"),
    "activation_peak_bytes": ("o", "forward's peak"),
    "peak_bytes": ("|", "everything"),
}


def _draw_memory(axes: Any, memory: Mapping[str, float], place: int, color: str) -> None:
    for key, (marker, _) in _MEMORY.items():
        if key in memory:
            axes.plot(memory[key] / 1e6, place, marker, color=color, markersize=9, markeredgewidth=2)


def _memory_key(axes: Any) -> tuple[list[Any], list[str]]:
    words = [word for _, word in _MEMORY.values()]
    dots = [
        axes.plot([], [], m, color="black", markersize=8, markeredgewidth=2)[0] for m, _ in _MEMORY.values()
    ]
    return dots, words


def _short(name: str) -> str:
    return name.split("/")[1]
