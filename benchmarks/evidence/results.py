"""What the committed results say: costs of networks, paired differences, frontiers, who is compared."""

import copy
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import sweep
from mfp_neurons.train import checkpoint, tables
from mfp_neurons.train.config import assign

HERE = Path(__file__).parent
TITLES = {  # of the tasks, in the page's order
    "spoken_hard": "spoken digits in a stream",
    "spoken": "spoken digits, whole words",
    "smartwatch": "smartwatch exercises",
    "rows": "Fashion-MNIST by rows",
    "still": "still images",
    "events": "simulated events",
}
OURS = ("memory-free", "memory-free, pooled over time", "memory-free with feedback")
FAMILIES = (  # in the order of tables and figures
    "LIF, float weights",
    "LIF, 1-bit weights",
    "LIF, pooled over time",
    "adaptive or recurrent LIF",
    "SlidingPSN",
    "GRU",
    "convolution over time",
    "ReLUs without time",
    *OURS,
)
SHARED = ("name", "label", "family", "tuned")  # by the runs of a network, beside most of their settings
Run = dict[str, Any]  # of one network with one seed, as the sweep writes it


@dataclass(frozen=True)
class Network:
    """The runs of one network. Costs are means over the runs, None where a run does not say them."""

    name: str
    label: str
    family: str
    short: str  # a name of a few words, for figures; may be empty
    runs: tuple[Run, ...]
    milliseconds: float | None = None  # of a training step, taken in turns with the other networks

    @property
    def is_ours(self) -> bool:
        return self.family in OURS

    @property
    def accuracies(self) -> list[float]:
        """Of each run, on the test split, %."""
        return [run["test_accuracy"] for run in self.runs]

    @property
    def accuracy(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def validation(self) -> float:
        """Mean validation accuracy, %: by it networks are chosen, so that test accuracy chooses nothing."""
        return statistics.fmean(run["validation_accuracy"] for run in self.runs)

    def cost(self, key: str) -> float | None:
        """Mean of one of the costs."""
        values = [run.get("costs", {}).get(key) for run in self.runs]
        return None if None in values else statistics.fmean(values)

    @property
    def state_bits(self) -> float | None:
        """A hidden neuron, mean over all hidden neurons."""
        return self.cost("state_bits_per_neuron")

    @property
    def weight_bytes(self) -> float | None:
        return self.cost("weight_bytes")

    @property
    def total_bytes(self) -> float | None:
        """All that a device keeps: parameters, and the state of a sample between two steps."""
        bits = self.cost("state_bits")
        return None if self.weight_bytes is None or bits is None else self.weight_bytes + bits / 8

    @property
    def spikes(self) -> float | None:
        """Of a sample, over all steps."""
        return self.cost("spikes")

    @property
    def operations(self) -> float | None:
        """Synaptic operations and multiply-accumulates of a sample, all steps at once."""
        return _sum(self.cost("synaptic_operations"), self.cost("macs"))

    @property
    def streaming_operations(self) -> float | None:
        """The same, step by step. A stream repeats no multiply-accumulate unless the costs say so."""
        macs = self.cost("streaming_macs")
        return _sum(self.cost("streaming_synaptic_operations"), self.cost("macs") if macs is None else macs)

    @property
    def energy(self) -> float | None:
        """Joules of a sample, all steps at once."""
        return self.cost("energy_joules")

    @property
    def streaming_energy(self) -> float | None:
        """Joules of a sample, step by step."""
        return self.cost("streaming_energy_joules")


def _sum(*terms: float | None) -> float | None:
    values = [term for term in terms if term is not None]
    return sum(values) if len(values) == len(terms) else None


Cost = Callable[[Network], float | None]


@dataclass(frozen=True)
class Task:
    """The networks of a task, in the order of its sweep, and the one that all are compared with."""

    name: str
    networks: Mapping[str, Network]
    reference_name: str = ""

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def reference(self) -> Network | None:
        return self.networks.get(self.reference_name)

    @property
    def ours(self) -> list[Network]:
        return [network for network in self.networks.values() if network.is_ours]

    @property
    def rivals(self) -> list[Network]:
        return [network for network in self.networks.values() if not network.is_ours]

    def families(self) -> dict[str, list[Network]]:
        """Networks by family, in the order in which the figures name the families."""
        groups: dict[str, list[Network]] = {family: [] for family in FAMILIES}
        for network in self.networks.values():
            groups[network.family].append(network)
        return {family: networks for family, networks in groups.items() if networks}

    def within(self, *costs: Cost) -> list[Network] | None:
        """Our networks that cost no more than the reference in each of these; None where the reference does
        not say what it costs."""
        limits: list[tuple[Cost, float]] = []
        for cost in costs:
            limit = None if self.reference is None else cost(self.reference)
            if limit is None:
                return None
            limits.append((cost, limit))
        return [
            network
            for network in self.ours
            if all((value := cost(network)) is not None and value <= limit for cost, limit in limits)
        ]


def most_accurate(networks: Iterable[Network]) -> Network | None:
    """By validation; None of none."""
    return max(networks, key=lambda network: network.validation, default=None)


def read(folder: Path, plans: Path = HERE) -> dict[str, Task]:
    """The tasks whose results are in the folder. What networks are called, the task's TOML file says; results
    of networks that it does not have are left out.

    Args:
        folder: holds ``evidence_TASK.json`` and, where steps were timed, ``evidence_TASK_time.json``.
        plans: holds ``TASK.toml``.

    Raises:
        ValueError: a network's family is none of those that the figures have.
    """
    tasks = {}
    for name in TITLES:
        path, timed = folder / f"evidence_{name}.json", folder / f"evidence_{name}_time.json"
        if path.exists():
            times = json.loads(timed.read_text())["milliseconds_per_step"] if timed.exists() else {}
            plan = sweep.load(str(plans / f"{name}.toml"))
            tasks[name] = join(name, plan, read_runs(path), times)
    return tasks


def write_runs(path: Path, runs: Iterable[Run]) -> None:
    """Writes a file of results, in which what the runs of a network share is said once.

        [{"name": .., "label": .., "family": .., "tuned": .., "config": ..,
          "runs": [{"seed": 0, "settings": {"training.seed": 0}, "test_accuracy": .., ..}, ..]}, ..]

    ``config`` has the settings that are the same in all runs of the network, and ``settings`` of a run has
    the others, by dotted key.
    """
    networks: dict[str, list[Run]] = {}
    for run in runs:
        networks.setdefault(json.dumps([run[key] for key in SHARED]), []).append(run)
    checkpoint.write_json(path, [_network(group) for group in networks.values()])


def _network(runs: Sequence[Run]) -> dict[str, Any]:
    settings = [dict(_settings(run["config"])) for run in runs]
    common = {
        key: value for key, value in settings[0].items() if all((key, value) in s.items() for s in settings)
    }
    return {
        **{key: runs[0][key] for key in SHARED},
        "config": _with_settings({}, common),
        "runs": [
            {
                "seed": run["seed"],
                "settings": {key: value for key, value in own.items() if key not in common},
                **{key: value for key, value in run.items() if key not in (*SHARED, "seed", "config")},
            }
            for run, own in zip(runs, settings, strict=True)
        ],
    }


def read_runs(path: Path) -> list[Run]:
    """The runs of a file that :func:`write_runs` has written, each with all its settings."""
    runs = []
    for network in json.loads(path.read_text()):
        shared = {key: network[key] for key in SHARED}
        for run in network["runs"]:
            settings = _with_settings(network["config"], run["settings"])
            own = {key: value for key, value in run.items() if key != "settings"}
            runs.append({**shared, "config": settings, **own})
    return runs


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """By dotted key; an empty table is a value."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _with_settings(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(config)
    for key, value in settings.items():
        assign(config, key, value)
    return config


def join(name: str, plan: sweep.Sweep, results: Sequence[Run], times: Mapping[str, float]) -> Task:
    """Joins results to the words of the plan."""
    runs = tables.by_network(results)
    networks = {}
    for entry in plan.entries:
        if entry.family not in FAMILIES:
            accepted = "; ".join(FAMILIES)
            raise ValueError(
                f"{name}: network {entry.name!r}: family = {entry.family!r}: give one of {accepted}"
            )
        if entry.name in runs:
            networks[entry.name] = Network(
                entry.name,
                entry.label,
                entry.family,
                entry.short,
                tuple(runs[entry.name]),
                times.get(entry.name),
            )
    return Task(name, networks, plan.reference)


# --- comparisons ------------------------------------------------------------------------------------------


def differences(first: Network, second: Network) -> list[float]:
    """Test accuracy of the first less that of the second, points, for each seed and fold that both have."""
    of_second = {_pair(run): run["test_accuracy"] for run in second.runs}
    return [run["test_accuracy"] - of_second[_pair(run)] for run in first.runs if _pair(run) in of_second]


def _pair(run: Run) -> tuple[int, int | None]:
    """What two runs have in common that are compared: seed, and fold of the data."""
    return run["seed"], run["config"]["data"]["options"].get("fold")


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of those points (cost, accuracy) than which no other costs less and is as accurate, or is more
    accurate and costs as much, or both; in order of cost.

    >>> frontier([(3.0, 80.0), (1.0, 70.0), (2.0, 90.0), (2.0, 85.0)])
    [1, 2]
    """
    best = -math.inf
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if points[index][1] > best or (kept and points[index] == points[kept[-1]]):
            kept.append(index)
            best = points[index][1]
    return kept


@dataclass(frozen=True)
class Match:
    """A rival and the memory-free network that stands against it."""

    task: Task
    terms: str  # on which the two are compared
    rival: Network
    ours: Network | None  # None: no network meets the terms

    @property
    def lead(self) -> float:
        """Points of ours above the rival, mean over pairs; no network at all is the worst case."""
        values = [] if self.ours is None else differences(self.ours, self.rival)
        return statistics.fmean(values) if values else -math.inf


def matches(tasks: Iterable[Task]) -> list[Match]:
    """For each task the most accurate of both sides, and the reference beside the most accurate of our
    networks that take no more bytes and energy in a stream than it; the worst for ours first."""
    pairs = []
    for task in tasks:
        ours, rival = most_accurate(task.ours), most_accurate(task.rivals)
        if ours and rival:
            pairs.append(Match(task, "both the most accurate of their side", rival, ours))
        fitting = task.within(lambda network: network.total_bytes, lambda network: network.streaming_energy)
        if task.reference and fitting is not None:
            terms = "with no more bytes and no more energy in a stream"
            pairs.append(Match(task, terms, task.reference, most_accurate(fitting)))
    return sorted(pairs, key=lambda pair: pair.lead)
