"""Several networks under one budget: tuned alike on a validation split, then trained once a seed.

Each run writes one JSON file, whole or not at all; finished ones are skipped, so a sweep can be stopped and
started again, and several processes may work on one folder: a run is taken by locking a file, and a process
that dies lets go.
"""

import fcntl
import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mfp_neurons.train import checkpoint
from mfp_neurons.train import config as config_module
from mfp_neurons.train import data as data_module
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import Trainer

__all__ = ["Entry", "Sweep", "choices", "load", "load_data", "only", "run"]

Settings = dict[str, Any]  # dotted keys


@dataclass(frozen=True)
class Entry:
    """One network: its dotted settings over the base config, and the choices that tuning decides.

    Attributes:
        label, short: what tables call it, and a name of a few words for figures, which may be empty.
        family: networks that figures show alike.
    """

    name: str
    label: str
    short: str
    family: str
    settings: Settings
    tune: dict[str, list[Any]]


@dataclass(frozen=True)
class Sweep:
    """A base config, the networks, the seeds, and how tuning compares choices.

    Attributes:
        with_seed: settings that change with the seed, a value for each: the fold of the data, for example.
        tune: values to be tuned, the same for all networks; ``Entry.tune`` may have others beside them.
        extend: those of them that are numbers in a geometric row: where the best is the first or the last of
            its row, the next one beyond is tried as well, until the best lies between two others.
        tuning_budget: what makes a tuning run smaller; where it is empty, the best one is the run of the
            first seed.
        reference: name of the network that tables compare the others with; may be empty.
    """

    base: str
    common: Settings
    seeds: tuple[int, ...]
    with_seed: dict[str, list[Any]]
    tune: dict[str, list[Any]]
    extend: tuple[str, ...]
    tuning_budget: Settings
    reference: str
    entries: tuple[Entry, ...]

    def settings(self, entry: Entry, common: Settings, choice: Settings, seed: int) -> Settings:
        """All settings of one run but for those of the tuning budget."""
        number = self.seeds.index(seed)
        own = {key: values[number] for key, values in self.with_seed.items()}
        return {**common, **entry.settings, **choice, **own, "training.seed": seed}


def load(path: str) -> Sweep:
    """Reads a sweep from TOML: the fields of :class:`Sweep`, and a ``[[network]]`` for each entry.

    ``networks`` names another file in the same folder whose ``[[network]]`` come first; ``only`` is a list of
    the names of those that take part, where not all of them do.

    Every network is checked here, so that a mistake shows before the first hour is spent.

    Raises:
        ConfigError: a key is missing or unknown, or a network's config is not accepted.
    """
    table = config_module.read_toml(path)
    shared = (
        config_module.read_toml(str(Path(path).parent / table["networks"])) if "networks" in table else {}
    )
    networks = [*shared.get("network", []), *table.get("network", [])]
    entries = tuple(_entry(raw, table.get("tune", {})) for raw in networks)
    if not entries or not table.get("base"):
        raise ConfigError(f"sweep {path!r}: give base, the name of a config, and at least one [[network]]")
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ConfigError(f"sweep {path!r}: two networks have one name in {names}")
    keys = {field.name for field in fields(Sweep)} - {"entries"} | {"network", "networks", "only"}
    unknown = set(table) - keys
    if unknown:
        raise ConfigError(f"sweep {path!r}: unknown keys {sorted(unknown)}")
    sweep = Sweep(
        table["base"],
        table.get("common", {}),
        tuple(table.get("seeds", [0])),
        table.get("with_seed", {}),
        table.get("tune", {}),
        tuple(table.get("extend", [])),
        table.get("tuning_budget", {}),
        table.get("reference", ""),
        entries,
    )
    sweep = only(sweep, table.get("only", []))
    _check(sweep, path)
    return sweep


def _check(sweep: Sweep, path: str) -> None:
    names = [entry.name for entry in sweep.entries]
    if sweep.reference and sweep.reference not in names:
        raise ConfigError(f"sweep {path!r}: reference = {sweep.reference!r}: give one of {', '.join(names)}")
    for key, values in sweep.with_seed.items():
        if len(values) != len(sweep.seeds):
            raise ConfigError(
                f"sweep {path!r}: with_seed.{key} = {values!r}: give a value for each of the "
                f"{len(sweep.seeds)} seeds"
            )
    for entry in sweep.entries:
        for key in sweep.extend:
            if len(entry.tune.get(key, [])) < 2:
                raise ConfigError(
                    f"sweep {path!r}: extend: {key!r} needs two values or more to be tuned of {entry.name!r}"
                )
        for seed, choice in itertools.product(sweep.seeds, choices(entry)):
            config_module.load(sweep.base, sweep.settings(entry, sweep.common, choice, seed))


def _entry(raw: Mapping[str, Any], tune: dict[str, list[Any]]) -> Entry:
    if set(raw) - {"name", "label", "short", "family", "set", "tune"} or "name" not in raw:
        raise ConfigError(
            f"[[network]] {dict(raw)!r}: give name, and optionally label, short, family, set, tune"
        )
    name = raw["name"]
    return Entry(
        name,
        raw.get("label", name),
        raw.get("short", ""),
        raw.get("family", ""),
        raw.get("set", {}),
        {**tune, **raw.get("tune", {})},
    )


def choices(entry: Entry) -> list[Settings]:
    """Every combination of the values to be tuned."""
    return [dict(zip(entry.tune, values, strict=True)) for values in itertools.product(*entry.tune.values())]


def only(sweep: Sweep, names: Sequence[str]) -> Sweep:
    """The sweep with the networks of these names alone, all of them where there are none.

    Raises:
        ConfigError: a name is no network's.
    """
    known = [entry.name for entry in sweep.entries]
    for name in names:
        if name not in known:
            raise ConfigError(f"network {name!r} is not in the sweep: give one of {', '.join(known)}")
    return replace(sweep, entries=tuple(e for e in sweep.entries if not names or e.name in names))


def run(sweep: Sweep, out: Path, overrides: Settings | None = None, *, bars: bool = True) -> list[Settings]:
    """Works until every run has its result; returns the results, networks in the sweep's order.

    ``overrides`` (dotted keys) apply to every run, over everything else.
    """
    out.mkdir(parents=True, exist_ok=True)
    common = {**sweep.common, **(overrides or {})}
    for seed in sweep.seeds:
        for entry in sweep.entries:
            (path,) = result_paths(entry, [seed], out)
            with _claimed(path) as mine:
                if mine:
                    _run_one(sweep, entry, seed, common, path, bars)
    paths = (path for entry in sweep.entries for path in result_paths(entry, sweep.seeds, out))
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def result_paths(entry: Entry, seeds: Iterable[int], out: Path) -> list[Path]:
    return [out / f"{entry.name}-seed{seed}.json" for seed in seeds]


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process may do the work of ``path``: not done, and nobody else at it."""
    with open(path.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield not path.exists()


def _run_one(sweep: Sweep, entry: Entry, seed: int, common: Settings, path: Path, bars: bool) -> None:
    tuned = _tuned(sweep, entry, common, path.parent, bars)
    settings = sweep.settings(entry, common, tuned["best"], seed)
    result = _train(sweep, settings, path.with_suffix(""), bars)
    checkpoint.write_json(
        path,
        {
            "name": entry.name,
            "label": entry.label,
            "family": entry.family,
            "seed": seed,
            "tuned": tuned,
            **result,
        },
    )


def _train(sweep: Sweep, settings: Settings, folder: Path, bars: bool) -> dict[str, Any]:
    config = config_module.load(sweep.base, settings)
    data = load_data(json.dumps(config.as_dict()["data"]))
    return Trainer(config, folder, data, bars=bars).run(resume=True)


@functools.lru_cache(maxsize=1)  # runs on the same data follow one another
def load_data(settings: str) -> Data:
    """The data of a config, whose table ``data`` is given as JSON."""
    return data_module.load(config_module.from_dict({"data": json.loads(settings)}).data)


def _tuned(sweep: Sweep, entry: Entry, common: Settings, out: Path, bars: bool) -> Settings:
    """The choice with the best validation accuracy on the tuning budget and first seed; kept in a file."""
    path, seed = out / f"{entry.name}-tuning.json", sweep.seeds[0]
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits for the first one's answer
        if path.exists():
            return json.loads(path.read_text())  # type: ignore[no-any-return]
        pending = choices(entry)
        tried: list[dict[str, Any]] = []
        if len(pending) == 1:
            return {"best": pending[0], "tried": []}
        while pending:
            for choice in pending:
                settings = {**sweep.settings(entry, common, choice, seed), **sweep.tuning_budget}
                result = _train(sweep, settings, out / f"{entry.name}-tuning-{len(tried)}", bars)
                tried.append({"choice": choice, "validation_accuracy": result["validation_accuracy"]})
            best = max(tried, key=lambda t: t["validation_accuracy"])
            pending = beyond([t["choice"] for t in tried], best["choice"], sweep.extend)
        answer = {"best": best["choice"], "tried": tried}
        checkpoint.write_json(path, answer)
        if not sweep.tuning_budget:  # after the answer: a kill in between costs a run, not all of tuning
            folder = out / f"{entry.name}-tuning-{tried.index(best)}"
            folder.rename(result_paths(entry, [seed], out)[0].with_suffix(""))
        return answer


def beyond(tried: Sequence[Settings], best: Settings, keys: Sequence[str]) -> list[Settings]:
    """The best choice with each of these settings moved on by one, where it is at an edge of what was tried.

    Args:
        tried: choices.
        best: one of them.
        keys: settings whose values make a geometric row, of two or more; it goes on in six significant
            digits, so that no rounding error of a float becomes a setting.

    >>> beyond([{"rate": 1.0}, {"rate": 4.0}, {"rate": 16.0}], {"rate": 16.0}, ["rate"])
    [{'rate': 64.0}]
    >>> beyond([{"rate": 1.0}, {"rate": 4.0}, {"rate": 16.0}], {"rate": 4.0}, ["rate"])
    []
    >>> beyond([{"rate": 0.006}, {"rate": 0.018}], {"rate": 0.018}, ["rate"])
    [{'rate': 0.054}]
    """
    choices = []
    for key in keys:
        row = sorted({choice[key] for choice in tried})
        for edge, inner in ((row[0], row[1]), (row[-1], row[-2])):
            if best[key] == edge:
                choices.append({**best, key: float(f"{edge * edge / inner:.6g}")})
    return choices
