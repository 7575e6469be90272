"""Several networks under one budget: tuned alike on a validation split, then trained once a seed.

Each run writes one JSON file, whole or not at all; finished ones are skipped, so a sweep can be stopped and
started again, and several processes may work on one folder: a run is taken by locking a file, and a process
that dies lets go.
"""

import fcntl
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mfp_neurons.train import checkpoint
from mfp_neurons.train import config as config_module
from mfp_neurons.train import data as data_module
from mfp_neurons.train.config import ConfigError
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import Trainer

__all__ = ["Entry", "Sweep", "choices", "load", "only", "run"]

Settings = dict[str, Any]  # dotted keys


@dataclass(frozen=True)
class Entry:
    """One network: its dotted settings over the base config, and the choices that tuning decides."""

    name: str
    label: str
    family: str
    settings: Settings
    tune: dict[str, list[Any]]


@dataclass(frozen=True)
class Sweep:
    """A base config, the networks, the seeds, and the smaller budget on which tuning compares choices."""

    base: str
    common: Settings
    seeds: tuple[int, ...]
    tune: dict[str, list[Any]]
    tuning_budget: Settings
    entries: tuple[Entry, ...]


def load(path: str) -> Sweep:
    """Reads a sweep from TOML: ``base``, ``seeds``, ``common``, ``tune``, ``tuning_budget``, ``[[network]]``.

    Every network is checked here, so that a mistake shows before the first hour is spent.

    Raises:
        ConfigError: a key is missing or unknown, or a network's config is not accepted.
    """
    table = config_module.read_toml(path)
    entries = tuple(_entry(raw, table.get("tune", {})) for raw in table.get("network", []))
    if not entries or not table.get("base"):
        raise ConfigError(f"sweep {path!r}: give base, the name of a config, and at least one [[network]]")
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ConfigError(f"sweep {path!r}: two networks have one name in {names}")
    unknown = set(table) - {"base", "seeds", "common", "tune", "tuning_budget", "network"}
    if unknown:
        raise ConfigError(f"sweep {path!r}: unknown keys {sorted(unknown)}")
    sweep = Sweep(
        table["base"],
        table.get("common", {}),
        tuple(table.get("seeds", [0])),
        table.get("tune", {}),
        table.get("tuning_budget", {}),
        entries,
    )
    for entry in entries:
        for choice in choices(entry):
            config_module.load(sweep.base, {**sweep.common, **entry.settings, **choice})
    return sweep


def _entry(raw: Mapping[str, Any], tune: dict[str, list[Any]]) -> Entry:
    unknown = set(raw) - {"name", "label", "family", "set", "tune"}
    if unknown or "name" not in raw:
        raise ConfigError(f"[[network]] {dict(raw)!r}: give name, and optionally label, family, set, tune")
    name = raw["name"]
    return Entry(
        name,
        raw.get("label", name),
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
    data = data_module.load(config_module.load(sweep.base, common).data)
    for seed in sweep.seeds:
        for entry in sweep.entries:
            (path,) = result_paths(entry, [seed], out)
            with _claimed(path) as mine:
                if mine:
                    _run_one(sweep, entry, seed, common, data, path, bars)
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


def _run_one(
    sweep: Sweep, entry: Entry, seed: int, common: Settings, data: Data, path: Path, bars: bool
) -> None:
    tuned = _tuned(sweep, entry, common, path.parent, bars)
    settings = {**common, **entry.settings, **tuned["best"], "training.seed": seed}
    config = config_module.load(sweep.base, settings)
    result = Trainer(config, path.with_suffix(""), data, bars=bars).run(resume=True)
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


def _tuned(sweep: Sweep, entry: Entry, common: Settings, out: Path, bars: bool) -> Settings:
    """The choice with the best validation accuracy on the tuning budget and first seed; kept in a file."""
    path = out / f"{entry.name}-tuning.json"
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits for the first one's answer
        if path.exists():
            return json.loads(path.read_text())  # type: ignore[no-any-return]
        options, tried = choices(entry), []
        for number, choice in enumerate(options if len(options) > 1 else []):
            settings = {
                **common,
                **sweep.tuning_budget,
                **entry.settings,
                **choice,
                "training.seed": sweep.seeds[0],
            }
            config = config_module.load(sweep.base, settings)
            folder = out / f"{entry.name}-tuning-{number}"
            result = Trainer(config, folder, data_module.load(config.data), bars=bars).run(resume=True)
            tried.append({"choice": choice, "validation_accuracy": result["validation_accuracy"]})
        best = max(tried, key=lambda t: t["validation_accuracy"])["choice"] if tried else options[0]
        answer = {"best": best, "tried": tried}
        checkpoint.write_json(path, answer)
        return answer
