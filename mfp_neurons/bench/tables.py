"""A result as Markdown tables, each computed from the JSON alone; :mod:`.page` puts them together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from . import bars
from .text import bullets, markdown, number, unique

Row = dict[str, Any]
Entry = dict[str, Any]
Result = dict[str, Any]
WORKS = {"training": "Forward and backward", "forward": "Forward alone"}


def line(name: str, row: Row) -> str:
    """One row in a line, for whoever watches it run."""
    if "skipped" in row:
        return f"{name}: skipped, {row['skipped']}"
    ran = [e for e in row["entries"] if "ms" in e]
    best = sorted(ran, key=lambda e: e["ms"]["total"]["median"])
    times = ", ".join(f"{e['name']} {number(e['ms']['total']['median'])}" for e in best)
    return f"{name} ({row.get('seconds', 0):.0f} s), ms: {times}"


_SHORT = {  # column: the entries that may stand in it, the best path first
    "ours": ("norm + MFPNode, fused", "MFPNode, fused", "MFPNode"),
    "LIFNode": ("norm + LIFNode", "LIFNode"),
    "snn.Leaky": ("snn.Leaky",),
    "plain recursion, torch.compile": ("plain recursion, torch.compile",),
}


def in_short(result: Result) -> str:
    """Training in float32, a row a line: ours, and those that it stands in for, in ms and in times ours."""
    rows = {
        f"`{name.removesuffix('/training').removesuffix('/float32')}`": row
        for kind in ("neuron/", "norm/", "network/")
        for name, row in sorted(result["rows"].items(), key=lambda item: item[1].get("steps", 0))
        if name.startswith(kind) and name.endswith(("/float32", "/float32/training")) and "skipped" not in row
    }
    lines = []
    for name, row in rows.items():
        ours, *others = (_first_ms(row, names) for names in _SHORT.values())
        if ours is not None:
            lines.append([name, number(ours), *(_beside(one, ours) for one in others)])
    return markdown(["forward and backward, ms", *_SHORT], lines) if lines else ""


def _first_ms(row: Row, names: Sequence[str]) -> float | None:
    ran = {e["name"]: e["ms"]["total"]["median"] for e in row["entries"] if "ms" in e}
    return next((ran[name] for name in names if name in ran), None)


def _beside(ms: float | None, ours: float) -> str:
    return "-" if ms is None else f"{number(ms)} ({ms / ours:,.{0 if ms >= 10 * ours else 1}f}x)"


# --- neurons ----------------------------------------------------------------------------------------------


def neurons(result: Result) -> str:
    """For each dtype and work one table: neurons down, sizes across."""
    rows = _group(result, "neuron/")
    parts = []
    for dtype in unique(row["dtype"] for row in rows):
        for work, title in WORKS.items():
            chosen = [row for row in rows if row["dtype"] == dtype and row["work"] == work]
            if chosen:
                table = _side_by_side(chosen, _size, _time_cell) + _not_run(chosen, _size)
                parts.append(f"### {title}, {dtype}, ms\n\n{table}")
    return "\n\n".join(parts)


def _size(row: Row) -> str:
    return f"T = {row['steps']:,}, N = {row['neurons']:,}"


def _time_cell(entry: Entry, row: Row) -> str:
    ms = entry["ms"]["total"]
    text = f"{number(ms['median'])} [{number(ms['low'])}, {number(ms['high'])}]"
    ratio = _ratio(entry, row)
    return text if ratio is None else f"{text} {ratio:.2f}x"


def _ratio(entry: Entry, row: Row) -> float | None:
    """The entry's time over that of the one it is compared with."""
    other = next((e for e in row["entries"] if e["name"] == entry["against"] and "ms" in e), None)
    if other is None or other is entry:
        return None
    return entry["ms"]["total"]["median"] / other["ms"]["total"]["median"]  # type: ignore[no-any-return]


def _side_by_side(
    rows: Sequence[Row], column: Callable[[Row], str], cell: Callable[[Entry, Row], str | None]
) -> str:
    """Entries down, rows across. An entry without any value has no line; :func:`_not_run` names it."""
    rows = sorted(rows, key=lambda row: (row["steps"], row["neurons"]))
    lines = []
    for name in unique(entry["name"] for row in rows for entry in row["entries"]):
        cells = [_cell_of(name, row, cell) for row in rows]
        if any(cells):
            lines.append([_with_notes(name, rows), *(text or "-" for text in cells)])
    return markdown(["", *map(column, rows)], lines)


def _cell_of(name: str, row: Row, cell: Callable[[Entry, Row], str | None]) -> str | None:
    entry = next((e for e in row["entries"] if e["name"] == name and "ms" in e), None)
    return None if entry is None else cell(entry, row)


def _not_run(rows: Sequence[Row], column: Callable[[Row], str], key: str = "skipped") -> str:
    """Below a table: who is missing from it, where, and why."""
    entries = [(entry, column(row)) for row in rows for entry in row["entries"] if key in entry]
    reasons = [(entry["name"], entry[key], place) for entry, place in entries]
    return f"\n\nNot run:\n\n{bullets(_reasons(reasons, len(rows)))}" if reasons else ""


def _with_notes(name: str, rows: Sequence[Row]) -> str:
    entries = [entry for row in rows for entry in row["entries"] if entry["name"] == name]
    notes = unique(entry["note"] for entry in entries if "note" in entry)
    return f"{name} ({'; '.join(notes)})" if notes else name


def _reasons(reasons: Iterable[tuple[str, str, str]], columns: int) -> list[str]:
    where: dict[tuple[str, str], list[str]] = {}
    for name, why, column in reasons:
        where.setdefault((name, why), []).append(column)
    return [
        f"{name}: {why}" if len(places) == columns else f"{name} at {'; '.join(places)}: {why}"
        for (name, why), places in where.items()
    ]


def copies(result: Result) -> str:
    """Our rows as shares of the bandwidth of a copy, measured among them."""
    lines = []
    for name, row in result["rows"].items():
        if "copies" not in row:
            continue
        copy, fresh = (
            row["copy_bytes"] / 1e6 / row["copies"][k]["median"] for k in ("copy", "copy into new memory")
        )
        for entry in row["entries"]:
            if "copy_share" not in entry:
                continue
            share = entry["copy_share"]
            cells = [_percent(share.get(part)) for part in ("total", "forward", "backward")]
            moved = number(entry["bytes"]["total"] / 1e6)
            lines.append([f"`{name}`", entry["name"], moved, f"{copy:,.1f}", f"{fresh:,.1f}", *cells])
    if not lines:
        return ""
    head = [
        "row",
        "neuron",
        "MB to move",
        "copy, GB/s",
        "into new memory, GB/s",
        "share",
        "forward",
        "backward",
    ]
    words = (
        "MB to move: input read, spikes written; backward the gradient and what was saved read, a gradient "
        "written. Share: those bytes over the time, against the bandwidth of a copy between tensors of the "
        "row's size that exist. A copy into new memory shows what getting fresh pages costs; everybody who "
        "returns a tensor pays it."
    )
    return f"{words}\n\n{markdown(head, lines)}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def neuron_memory(result: Result) -> str:
    """Bytes an element: saved for backward, and at the peak of forward + backward."""
    rows = [r for r in _group(result, "neuron/") if any("memory" in e for e in r["entries"])]
    parts = []
    for dtype in unique(row["dtype"] for row in rows):
        chosen = [row for row in rows if row["dtype"] == dtype]
        table = _side_by_side(chosen, _size, _memory_cell) + _not_run(chosen, _size, "memory_skipped")
        parts.append(f"### {dtype}\n\n{table}")
    words = "Bytes for one element of the input: saved for backward / most held at once in a call."
    return "\n\n".join([words, *parts]) if parts else ""


def _memory_cell(entry: Entry, row: Row) -> str | None:
    found = entry.get("memory")
    if found is None:
        return None
    return f"{found['saved_bytes_per_element']:.3g} / {found['peak_bytes_per_element']:.3g}"


# --- with normalization, and whole networks ---------------------------------------------------------------


def norms(result: Result) -> str:
    """One table a row: time and memory of the pair."""
    head = ["", "ms", "x", "saved, B an element", "peak, B an element"]
    return "\n\n".join(_own_tables(result, "norm/", head, _PAIR))


def networks(result: Result) -> str:
    """One table a network: time of a training step and its memory."""
    head = ["", "ms a step", "x", "saved, MB", "forward's peak, MB", "peak of everything, MB"]
    parts = _own_tables(result, "network/", head, _NETWORK)
    words = (
        "Saved: for backward, parameters left out. Forward's peak: the most that activations take before the "
        "backward begins. Peak of everything: with weights, gradients and the batch, over the whole step."
    )
    return "\n\n".join([words, *parts]) if parts else ""


_PAIR = {"saved_bytes_per_element": 1.0, "peak_bytes_per_element": 1.0}
_NETWORK = {"saved_bytes": 1e6, "activation_peak_bytes": 1e6, "peak_bytes": 1e6}


def _own_tables(result: Result, prefix: str, head: Sequence[str], memory: Mapping[str, float]) -> list[str]:
    """A table for each row: time, ratio, and each number of ``memory`` in the unit that it names."""
    parts = []
    for name, row in result["rows"].items():
        if not name.startswith(prefix) or "skipped" in row:
            continue
        lines = []
        for entry in row["entries"]:
            if "ms" in entry:
                found = entry.get("memory", {})
                numbers = [number(found[key] / unit) if key in found else "" for key, unit in memory.items()]
                lines.append([*_timed(entry, row), *numbers])
        missing = _not_run([row], _nowhere) + _not_run([row], _nowhere, "memory_skipped")
        parts.append(f"### `{name}`\n\n{markdown(head, lines)}{missing}")
    return parts


def _nowhere(row: Row) -> str:
    return ""


def _timed(entry: Entry, row: Row) -> list[str]:
    ms, ratio = entry["ms"]["total"], _ratio(entry, row)
    spread = f"[{number(ms['low'])}, {number(ms['high'])}]"
    return [
        _with_notes(entry["name"], [row]),
        f"{number(ms['median'])} {spread}",
        "" if ratio is None else f"{ratio:.2f}",
    ]


# --- bars -------------------------------------------------------------------------------------------------


def verdicts(results: Iterable[Result]) -> str:
    """Every bar with what was measured; "owed" where the device of it was not there."""
    words = {True: "yes", False: "**no**", None: ""}
    lines = [[v.bar.work, str(v.bar), v.measured, words[v.met]] for v in bars.judge(results)]
    return markdown(["work", "bar", "measured", "met?"], lines)


def _group(result: Result, prefix: str) -> list[Row]:
    return [r for name, r in result["rows"].items() if name.startswith(prefix) and "skipped" not in r]
