"""Tables and figures of the evidence, from the committed results into docs/."""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mfp_neurons.reporting.record import AC_JOULES
from mfp_neurons.train import figures, tables

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE, README = DOCS / "evidence.md", ROOT / "README.md"
IN_README = (
    "lif-float",
    "lif-4",
    "lif-2",
    "lif-1",
    "feedback-4-shared",
    "feedback-7-shared",
    "feedback-13",
    "pow2-7",
    "pow2-28",
    "psn-28",
    "lif-pool4-4",
    "lif-pool4-2",
    "pool4-7",
)  # without pooling over time, then pooled alike
# Families of networks that the figures show, with color and marker; the others are in the tables alone
DRAWN = {
    "memory-free, pooled over time": ("#D55E00", "s"),
    "memory-free, power-of-two taps": ("#E69F00", "^"),
    "memory-free": ("#D55E00", "s"),
    "memory-free with feedback, one tap set a layer": ("#882255", "X"),
    "memory-free with feedback": ("#CC79A7", "*"),
    "memory-free, feedback alone": ("#999999", "<"),
    "LIF, 1-bit weights, pooled over time": ("#0072B2", "v"),
    "LIF, 1-bit weights": ("#56B4E9", "o"),
    "LIF, float weights": ("#000000", "D"),
    "SlidingPSN, 1-bit weights": ("#009E73", "P"),
    "SlidingPSN": ("#009E73", "P"),
}
Runs = Sequence[dict[str, Any]]


def write(results: Path) -> None:
    """Puts a table for each task between its markers in docs/evidence.md, a short one into the README, and
    draws the figures."""
    text = PAGE.read_text()
    for path in sorted(results.glob("evidence_*.json")):
        task = path.stem.removeprefix("evidence_")
        found = json.loads(path.read_text())
        if task.endswith("_time"):
            continue
        timed = results / f"{path.stem}_time.json"
        times = json.loads(timed.read_text())["milliseconds_per_step"] if timed.exists() else {}
        text = between(text, task, table(found, times))
        accuracy_against_state(found, DOCS / "figures" / f"evidence_{task}.png")
    PAGE.write_text(text)
    last, chosen = (
        json.loads((results / f"evidence_{t}.json").read_text()) for t in ("rows", "rows_readout")
    )
    README.write_text(between(README.read_text(), "evidence", short_table(last, chosen)))


def accuracy_against_state(found: Runs, path: Path) -> None:
    """Draws mean test accuracy (bars: standard deviation over seeds) against bits of state a neuron.

    Args:
        found: one a network and seed; each family of networks in ``DRAWN`` is a line.
        path: of the PNG.
    """
    plt = figures.pyplot()
    figure, axes = plt.subplots(figsize=(9.0, 4.6), layout="constrained")
    figures.draw_accuracy(axes, [run for run in found if run["family"] in DRAWN], DRAWN)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def between(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced.

    >>> between("a <!-- begin x -->old<!-- end x --> b", "x", "new")
    'a <!-- begin x -->\\n\\nnew\\n\\n<!-- end x --> b'
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{begin} and {end} have to stand there once")
    return re.sub(
        re.escape(begin) + ".*?" + re.escape(end),
        lambda _: f"{begin}\n\n{content}\n\n{end}",
        text,
        flags=re.DOTALL,
    )


def table(found: Runs, times: dict[str, float]) -> str:
    """A row for each network, families together: accuracy over seeds, and the mean cost of an image."""
    head = (
        "network",
        "accuracy, %",
        "state, bits a neuron",
        "bytes: parameters / with state",
        "ms a training step",
        "spikes",
        "synaptic operations, thousands: at once / stream",
        "energy estimate, nJ: at once / stream",
    )
    rows = []
    families = list(dict.fromkeys(run["family"] for run in found))
    ordered = sorted(found, key=lambda run: (families.index(run["family"]), run["state_bits"]))
    for name, runs in tables.by_network(ordered).items():
        mean = _mean_cost(runs)
        rows.append(
            (
                runs[0]["label"] + ("" if len(runs) > 1 else " (one seed)"),
                tables.spread_text([run["test_accuracy"] for run in runs]),
                f"{mean('state_bits_per_neuron'):.3g}",
                _pair(1, mean("weight_bytes"), _all_bytes(mean)),
                f"{times[name]:.1f}" if name in times else "",
                f"{mean('spikes'):,.0f}",
                _pair(1e-3, mean("synaptic_operations"), mean("streaming_synaptic_operations")),
                _pair(1e9, mean("energy_joules"), _streaming_joules(mean)),
            )
        )
    return tables.markdown(head, rows)


def _pair(unit: float, first: float, second: float) -> str:
    return f"{unit * first:,.0f} / {unit * second:,.0f}"


def _all_bytes(mean: Callable[[str], float]) -> float:
    """Parameters and state: all that a device keeps of a network and of a sample between two steps."""
    return mean("weight_bytes") + mean("state_bits") / 8


def _streaming_joules(mean: Callable[[str], float]) -> float:
    """The estimate for a network that works step by step, where remembered spikes repeat operations."""
    repeated = mean("streaming_synaptic_operations") - mean("synaptic_operations")
    return mean("energy_joules") + AC_JOULES * repeated


def short_table(last: Runs, chosen: Runs) -> str:
    """Row by row, the networks of the README: accuracy with both read-outs."""
    answers, averages = tables.by_network(last), tables.by_network(chosen)
    rows = [
        (
            answers[name][0]["label"],
            f"{_mean_cost(answers[name])('state_bits_per_neuron'):.3g}",
            f"{_all_bytes(_mean_cost(answers[name])) / 1e3:,.0f}",
            f"{_mean_cost(answers[name])('streaming_synaptic_operations') / 1e3:,.0f}",
            f"{1e9 * _streaming_joules(_mean_cost(answers[name])):,.0f}",
            tables.spread_text([run["test_accuracy"] for run in answers[name]]),
            tables.spread_text([run["test_accuracy"] for run in averages.get(name, [])]),
        )
        for name in IN_README
    ]
    head = (
        "network",
        "state, bits a neuron",
        "parameters and state, kB",
        "operations of a stream, thousands",
        "energy of a stream, nJ",
        "last row, %",
        "best read-out, %",
    )
    return tables.markdown(head, rows)


def _mean_cost(runs: Runs) -> Callable[[str], float]:
    return lambda key: statistics.fmean(run["costs"][key] for run in runs)
