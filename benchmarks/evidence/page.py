"""Writes docs/evidence.md, its figures and the README's part of it, from the committed results.

The words are Markdown files beside the tasks: ``page.md``, ``TASK.md`` for each task, and ``readme.md``. A
number in them is a value in braces, for which the results stand:

    {rows[lif-2].accuracy}                       81.5
    {rows[pool4-7 against lif-2].accuracy}       6.5 points above, or "level with"
    {rows[pool4-7 against lif-2].total_bytes}    1.1 times

``main`` is the task that the README shows. A paragraph or bullet that asks for a value which the results do
not have is left out, and so is the section of a task without results; the command says what it left out.
"""

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evidence import answers, draw
from benchmarks.evidence.answers import Absent, joules, kilobytes, measured, signed, significant, thousands
from benchmarks.evidence.results import (
    HERE,
    TITLES,
    Cost,
    Match,
    Network,
    Task,
    differences,
    matches,
    read,
)
from mfp_neurons.train import tables

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE, README, FIGURES = DOCS / "evidence.md", ROOT / "README.md", DOCS / "figures"
MAIN = ("spoken_hard", "rows")  # the README shows the first of them that has results


def write(results: Path) -> None:
    """The page, its figures and the README's part, from the results in a folder."""
    tasks = read(results)
    for name, figure in figures_of(tasks).items():
        figure.draw(FIGURES / f"evidence_{name}.png")
    page, page_lacks = render_page(tasks)
    readme, readme_lacks = render_readme(tasks)
    PAGE.write_text(page)
    README.write_text(between(README.read_text(), "evidence", readme))
    for reason in (*page_lacks, *readme_lacks):
        print(f"left out: {reason}")


def render_page(tasks: Mapping[str, Task]) -> tuple[str, list[str]]:
    """The text of docs/evidence.md, and why parts of the words were left out."""
    values = Values(tasks, "figures")
    parts = [fill((HERE / f"{name}.md").read_text(), values) for name in ("page", *tasks)]
    return "\n".join(text for text, _ in parts), [reason for _, reasons in parts for reason in reasons]


def render_readme(tasks: Mapping[str, Task]) -> tuple[str, list[str]]:
    """The README's part, and why parts of the words were left out."""
    text, reasons = fill((HERE / "readme.md").read_text(), Values(tasks, "docs/figures"))
    return text.strip(), reasons


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


# --- figures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """What a figure shows, in words, and what draws it into a file."""

    alt: str
    draw: Callable[[Path], None]


def figures_of(tasks: Mapping[str, Task]) -> dict[str, Figure]:
    """All figures that the results suffice for, by name."""
    shown = list(tasks.values())
    figures = {}
    for name, axis in (("bytes", draw.BYTES), ("energy", draw.ENERGY)):
        if known := [task for task in shown if draw.points(task, axis)]:
            figures[name] = Figure(
                f"Test accuracy against {axis.label}, task by task", partial(draw.over_tasks, known, axis)
            )
    strips = {
        "accuracy": (
            "Points of each family above the network with which the task compares all",
            draw.leads(shown),
        ),
        "worst": (
            "Points of memory-free networks above their rivals, the worst first",
            draw.worst_cases(matches(shown)),
        ),
        "training": ("Time of a training step of each family, task by task", draw.training_times(shown)),
    }
    figures |= {name: Figure(alt, strips.draw) for name, (alt, strips) in strips.items() if strips.rows}
    for name, task in tasks.items():
        figures[name] = Figure(
            f"Test accuracy against bytes and against energy: {task.title}", partial(draw.trade_offs, task)
        )
    return figures


# --- tables -----------------------------------------------------------------------------------------------


def table(task: Task) -> str:
    """A row for each network, families together: accuracy over its runs, and the mean cost of a sample."""
    most = max((len(network.runs) for network in task.networks.values()), default=0)
    ordered = [
        network
        for networks in task.families().values()
        for network in sorted(networks, key=lambda network: network.state_bits or 0.0)
    ]
    head = (
        "network",
        "accuracy, %",
        f"against {_name(task.reference)}, points (pairs)",
        "answer",
        "state, bits a neuron",
        "bytes: parameters / with state",
        "operations, thousands: at once / stream",
        "energy, nJ: at once / stream",
        "spikes",
        "ms a training step",
    )
    rows = [
        (
            network.label + ("" if len(network.runs) == most else f" ({runs_text(network)})"),
            tables.spread_text(network.accuracies),
            paired_text(network, task.reference),
            readout_text(network),
            _text(network.state_bits),
            _two(1, network.weight_bytes, network.total_bytes),
            _two(1e-3, network.operations, network.streaming_operations),
            _two(1e9, network.energy, network.streaming_energy, _text),
            _number(network.spikes, ",.0f"),
            _number(network.milliseconds, ".1f"),
        )
        for network in ordered
    ]
    return tables.markdown(head, rows)


def short_table(task: Task) -> str:
    """The networks that have a short name, those of equal state together."""
    shown = [network for network in task.networks.values() if network.short]
    head = (
        "network",
        "accuracy, %",
        f"against {_name(task.reference)}, points",
        "state, bits a neuron",
        "parameters and state, kB",
        "energy of a sample in a stream, nJ",
    )
    rows = [
        (
            network.label,
            tables.spread_text(network.accuracies),
            paired_text(network, task.reference, count=False),
            _text(network.state_bits),
            _number(network.total_bytes, ",.1f", 1e-3),
            _number(network.streaming_energy, ",.0f", 1e9),
        )
        for network in sorted(shown, key=lambda network: network.state_bits or 0.0)
    ]
    return tables.markdown(head, rows)


def worst_table(tasks: Iterable[Task]) -> str:
    """What memory-free networks are compared with, the worst comparison first."""
    head = (
        "task",
        "compared",
        "rival",
        "memory-free",
        "points (pairs)",
        "its bytes, times",
        "its stream's energy, times",
    )
    rows = [
        (
            pair.task.title,
            pair.terms,
            f"{pair.rival.label}: {pair.rival.accuracy:.1f} %",
            "none" if pair.ours is None else f"{pair.ours.label}: {pair.ours.accuracy:.1f} %",
            paired_text(pair.ours, pair.rival),
            _ratio(pair, lambda network: network.total_bytes),
            _ratio(pair, lambda network: network.streaming_energy),
        )
        for pair in matches(tasks)
    ]
    return tables.markdown(head, rows)


def paired_text(network: Network | None, rival: Network | None, *, count: bool = True) -> str:
    """Mean and spread of the paired differences, and how many there are; nothing beside itself."""
    values = differences(network, rival) if network and rival and network is not rival else []
    if not values:
        return ""
    mean, spread = tables.mean_and_spread(values)
    return (
        signed(mean)
        + (f" ± {spread:.1f}" if len(values) > 1 else "")
        + (f" ({len(values)})" if count else "")
    )


def readout_text(network: Network) -> str:
    """Over how many last steps scores are averaged for an answer; several where the runs differ."""
    steps = tables.readout_text(network.runs)
    return "last step" if steps == "1" else f"mean of last {steps}"


def runs_text(network: Network) -> str:
    return "one run" if len(network.runs) == 1 else f"{len(network.runs)} runs"


def _name(network: Network | None) -> str:
    return "" if network is None else network.short or network.label


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "" if value is None else format(unit * value, form)


def _text(value: float | None) -> str:
    return "" if value is None else significant(value, 3)


def _two(
    unit: float, first: float | None, second: float | None, text: Callable[[float], str] = "{:,.0f}".format
) -> str:
    """Two values that are read together: neither without the other."""
    return "" if first is None or second is None else f"{text(unit * first)} / {text(unit * second)}"


def _ratio(pair: Match, cost: Cost) -> str:
    """A cost of ours over the rival's."""
    ours, rival = None if pair.ours is None else cost(pair.ours), cost(pair.rival)
    return "" if ours is None or rival is None else significant(ours / rival, 2)


# --- words ------------------------------------------------------------------------------------------------


def fill(words: str, values: "Values") -> tuple[str, list[str]]:
    """The paragraphs and bullets whose values the results have, and why the others were left out.

    Raises:
        ValueError, AttributeError: the words ask for what no results can have.
    """
    blocks, reasons = [], []
    for block in re.split(r"\n\n+", words.strip()):
        parts = []
        for part in re.split(r"\n(?=- )", block):
            try:
                parts.append(string.Formatter().vformat(part, (), values))
            except Absent as reason:
                reasons.append(str(reason))
        if parts:
            blocks.append("\n".join(parts))
    return "\n\n".join(_without_empty_sections(blocks)) + "\n", reasons


def _without_empty_sections(blocks: Sequence[str]) -> list[str]:
    """Blocks without those headings below which nothing is left."""
    kept: list[str] = []
    level_below = 1  # of the next heading, if nothing stands before it
    for block in reversed(blocks):
        heading = re.match("#+ ", block)
        level = len(heading[0]) - 1 if heading else 0
        if not level or not level_below or level < level_below:
            kept.append(block)
            level_below = level
    return kept[::-1]


class Values(dict[str, Any]):
    """What words in braces stand for, by their first word."""

    def __init__(self, tasks: Mapping[str, Task], folder: str) -> None:
        """Takes the tasks that have results, and the folder of the figures as the page writes it."""
        super().__init__({name: TaskValues(task) for name, task in tasks.items()})
        self["figures"] = Figures(tasks, folder)
        self["answers"] = Answers(tasks)
        if main := main_task(tasks):
            self["main"] = TaskValues(main)

    def __missing__(self, name: str) -> Any:
        if name not in (*TITLES, "main"):
            accepted = ", ".join((*TITLES, "main", "figures", "answers"))
            raise ValueError(f"{{{name}}} stands for nothing: give one of {accepted}")
        raise Absent(f"{name} has no results")


def main_task(tasks: Mapping[str, Task]) -> Task | None:
    return next((tasks[name] for name in MAIN if name in tasks), None)


class Figures:
    """Each figure as Markdown, by the name of its task or question; ``main`` is the main task's."""

    def __init__(self, tasks: Mapping[str, Task], folder: str) -> None:
        self.figures, self.folder, self.main = figures_of(tasks), folder, main_task(tasks)

    def __getitem__(self, name: str) -> str:
        name = self.main.name if self.main and name == "main" else name
        if name in self.figures:
            return f"![{self.figures[name].alt}]({self.folder}/evidence_{name}.png)"
        if name not in (*TITLES, *QUESTIONS, "main"):
            raise ValueError(f"figures[{name}]: give one of {', '.join((*TITLES, *QUESTIONS, 'main'))}")
        raise Absent(f"figures[{name}] has no results")


class Answers:
    """The answer to each question, by the name of its figure, and the table of the worst cases."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks, self.main = list(tasks.values()), main_task(tasks)

    def __getitem__(self, name: str) -> str:
        if name not in QUESTIONS:
            raise ValueError(f"answers[{name}]: give one of {', '.join(QUESTIONS)}")
        if self.main is None:
            raise Absent(f"answers[{name}]: neither {' nor '.join(MAIN)} has results")
        return QUESTIONS[name](self.main, self.tasks)

    @property
    def worst_table(self) -> str:
        return worst_table(self.tasks)


QUESTIONS: dict[str, Callable[[Task, Sequence[Task]], str]] = {
    "accuracy": answers.accuracy,
    "bytes": answers.memory,
    "energy": answers.energy,
    "worst": answers.rivals,
    "training": answers.training,
}


@dataclass(frozen=True)
class TaskValues:
    """A task in the words of a page: its tables, and its networks by name, or two as "NAME against NAME"."""

    task: Task

    @property
    def table(self) -> str:
        return table(self.task)

    @property
    def short_table(self) -> str:
        return short_table(self.task)

    @property
    def introduction(self) -> str:
        """The first paragraph below the heading of the task's own words; it has no links, which the README
        would not resolve."""
        return (HERE / f"{self.task.name}.md").read_text().split("\n\n")[1]

    def __getitem__(self, name: str) -> "NetworkValues | PairValues":
        first, against, second = name.partition(" against ")
        return (
            PairValues(self._network(first), self._network(second))
            if against
            else NetworkValues(self._network(name))
        )

    def _network(self, name: str) -> Network:
        if name not in self.task.networks:
            raise Absent(f"{self.task.name}: no network {name!r}")
        return self.task.networks[name]


TEXTS: dict[str, Callable[[float], str]] = {
    "accuracy": "{:.1f}".format,
    "state_bits": lambda bits: significant(bits, 3),
    "weight_bytes": kilobytes,
    "total_bytes": kilobytes,
    "operations": thousands,
    "streaming_operations": thousands,
    "energy": joules,
    "streaming_energy": joules,
    "spikes": "{:,.0f}".format,
    "milliseconds": "{:.0f} ms".format,
}


@dataclass(frozen=True)
class NetworkValues:
    """Accuracy and costs of a network, as text with a unit."""

    network: Network

    def __getattr__(self, name: str) -> str:
        value = _value(self.network, name)
        return TEXTS[name](value)


@dataclass(frozen=True)
class PairValues:
    """A network beside another: accuracy as points above or below it, a cost as how many times its own."""

    first: Network
    second: Network

    def __getattr__(self, name: str) -> str:
        if name == "accuracy":
            return answers.points(self.first, self.second)
        return answers.times(_value(self.first, name), _value(self.second, name))


def _value(network: Network, name: str) -> float:
    if name not in TEXTS:
        raise AttributeError(f"{name!r} is no value of a network: give one of {', '.join(TEXTS)}")
    return measured(getattr(network, name), network, name)
