"""The result of a run as a Markdown page: every table is computed from the JSON file alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mfp_neurons.train.tables import markdown

from . import targets

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


# --- neurons --------------------------------------------------------------------------------------------


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


def resets(result: Result) -> str:
    """For each dtype one table of forward and backward: what a reset costs, and the LIF that has the same."""
    rows = _group(result, "reset/")
    parts = []
    for dtype in unique(row["dtype"] for row in rows):
        chosen = [row for row in rows if row["dtype"] == dtype]
        table = _side_by_side(chosen, _size, _time_cell) + _not_run(chosen, _size)
        parts.append(f"### {WORKS['training']}, {dtype}, ms\n\n{table}")
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


# --- with normalization, and whole networks -------------------------------------------------------------


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


# --- targets --------------------------------------------------------------------------------------------


def verdicts(results: Iterable[Result]) -> str:
    """Every target with what was measured; "owed" where the device of it was not there."""
    words = {True: "yes", False: "**no**", None: ""}
    lines = [[v.target.work, str(v.target), v.measured, words[v.met]] for v in targets.judge(results)]
    return markdown(["work", "bar", "measured", "met?"], lines)


def _group(result: Result, prefix: str) -> list[Row]:
    return [r for name, r in result["rows"].items() if name.startswith(prefix) and "skipped" not in r]


# --- the page -------------------------------------------------------------------------------------------


def page(result: Result, figures: Mapping[str, str] | None = None) -> str:
    """The whole page. ``figures``: file name of each, with its alternative text."""
    parts = [f"# Benchmark: {result['facts']['device_name']}", _facts(result)]
    parts += [f"![{text}]({name})" for name, text in (figures or {}).items()]
    parts += [
        f"## {title}\n\n{text}"
        for title, text in (
            ("In short", in_short(result)),
            ("Neuron alone", neurons(result)),
            ("Resets", resets(result)),
            ("Bytes that must move, against a copy", copies(result)),
            ("Memory of the neuron", neuron_memory(result)),
            ("Batch normalization and neuron", norms(result)),
            ("Training steps", networks(result)),
            ("Bars", verdicts([result])),
        )
        if text
    ]
    skipped = {name: row["skipped"] for name, row in result["rows"].items() if "skipped" in row}
    if skipped:
        parts.append("## Rows that did not run\n\n" + bullets(f"{n}: {why}" for n, why in skipped.items()))
    return "\n\n".join(parts)


_METHOD = """\
All neurons are measured in one run and take turns: every round calls each of them once, the order changes
from round to round, all are warmed up, and states are reset between calls. Input, upstream gradient, dtype
and threads are the same for all. Times are medians with quartiles in brackets. "x" is the time divided by
that of the neuron of this package for users of the same framework. Neurons of SpikingJelly return spikes and
keep the last potential, as MFPNode does; of snnTorch's neurons only the spikes are kept."""

_ON_A_GPU = """\
On the GPU the times are between CUDA events, and before every call the GPU spins for about a millisecond, so
that launches are queued and the time measured is that of the GPU's work (for loops over time, whose launches
take longer than that, also the launches). Inputs that fit the L2 cache take turns with others. SpikingJelly
0.0.0.0.14 cannot be imported beside 2.0.0: it runs in a worker process, which is asked for one call at a
time, in turn with all others; "MFPNode, worker process" is our neuron over there, and shows what the process
changes."""


def _facts(result: Result) -> str:
    facts, commit = result["facts"], result["facts"]["commit"]
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items() if v)
    place = "no checkout" if commit is None else commit["id"][:12] + (", changed" if commit["dirty"] else "")
    text = [
        f"{facts['date']}; {facts['processor']}, {facts['threads']} threads of {facts['cpus']} processors",
        f"{facts['system']}; {versions}; commit {place}; backend {facts['backend']}",
    ]
    if facts["load_average_before"] is not None:
        text.append(f"load average before the run: {facts['load_average_before']}")
    if result["options"]["quick"]:
        text.append("**A quick run on small sizes: its numbers mean nothing.**")
    method = [_METHOD, *([_ON_A_GPU] if facts["device"] == "cuda" else [])]
    memory = [f"{what}: {how}" for what, how in result["memory_methods"].items()]
    return "\n\n".join([bullets(text), *method, "Memory, in calls apart from the timing:", bullets(memory)])


# --- pieces of Markdown ---------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three significant digits, never in powers of ten.

    >>> number(1234.5), number(12.345), number(0.012345)
    ('1,234', '12.3', '0.0123')
    """
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
