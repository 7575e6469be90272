"""Results of several seeds as rows of one Markdown table."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

Result = dict[str, Any]


def by_network(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results grouped by network, in the order in which networks first appear."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["name"], []).append(result)
    return groups


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def spread_text(values: Sequence[float]) -> str:
    """Mean and spread as a table shows them; nothing of no values."""
    if not values:
        return ""
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f} ± {spread:.1f}" if len(values) > 1 else f"{mean:.1f}"


def readout_text(runs: Sequence[Result]) -> str:
    """The chosen numbers of last steps, once if all seeds agree."""
    steps = sorted({r["readout_steps"] for r in runs})
    return " / ".join(map(str, steps))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table padded to be read as it stands."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])
