"""Runs the rows and writes what they found: JSON after every row, Markdown and figures at the end."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .._checks import MissingDependency
from . import figures, memory, tables
from .facts import facts
from .page import page
from .plan import Row, rows
from .remote import Worker
from .timing import Effort, reason


class BenchError(ValueError):
    """What was asked for is not there; the message says what is."""


QUICK = Effort(repeats=3, seconds=2.0, least=2, warm_up=1)


def run(
    out: Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    only: tuple[str, ...] = (),
    quick: bool = False,
    repeats: int | None = None,
    minutes: float | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Measures on ``device`` (a GPU, where there is one) and returns the JSON file, bench_cpu or bench_gpu.

    Rows that ``minutes`` leave no time for are in the result as skipped. ``only`` are patterns of row names.
    """
    place = _place(device)
    torch.set_num_threads(threads or torch.get_num_threads())
    effort = QUICK if quick else Effort(seconds=5.0) if place.type == "cuda" else Effort()
    effort = replace(effort, repeats=repeats or effort.repeats)
    todo = rows(place, quick=quick, only=only)
    if not todo:
        known = "\n".join(row.id for row in rows(place, quick=quick))
        raise BenchError(f"no row matches {', '.join(only)}; there are:\n{known}")
    result: dict[str, Any] = {
        "facts": facts(place),
        "options": {"quick": quick, "repeats": effort.repeats, "only": list(only), "minutes": minutes},
        "memory_methods": memory.METHODS,
        "rows": {},
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{stem(result)}.json"
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    worker = Worker(torch.get_num_threads())
    try:
        for row in todo:
            result["rows"][row.id] = _one(row, effort, worker, deadline)
            say(tables.line(row.id, result["rows"][row.id]))
            write(result, path)
    finally:
        worker.close()
    show(path, say=say)
    return path


def _place(name: str | None) -> torch.device:
    there = torch.cuda.is_available()
    try:
        place = torch.device(name or ("cuda" if there else "cpu"))
    except RuntimeError as error:
        raise BenchError(f"device must be cpu, cuda or cuda:N, got {name!r}") from error
    if place.type not in ("cpu", "cuda") or (place.type == "cuda" and not there):
        raise BenchError(f"device {name!r} is not here; there is {'cpu and cuda' if there else 'cpu'}")
    if place.type == "cuda":
        place = torch.device("cuda", place.index or 0)
        torch.cuda.set_device(place)
    return place


def stem(result: dict[str, Any]) -> str:
    """The name that the files of a result share."""
    return "bench_gpu" if result["facts"]["device"] == "cuda" else "bench_cpu"


def write(result: dict[str, Any], path: Path) -> None:
    """Either the whole new result is in the file or the one before."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)


def show(path: Path, *, say: Callable[[str], None] = print) -> Path:
    """Writes Markdown and figures beside a JSON file, from what is in it; returns the Markdown's path."""
    try:
        result = json.loads(path.read_text())
    except ValueError as error:
        raise BenchError(f"{path} is no JSON: {error}") from None
    if not isinstance(result, dict) or "rows" not in result:
        raise BenchError(f"{path} is no result of mfp-neurons bench: it has no rows")
    try:
        drawn = figures.draw(result, path.parent, path.stem)
    except MissingDependency as error:
        drawn = {}
        say(f"no figures: {error}")
    written = path.with_suffix(".md")
    written.write_text(page(result, drawn) + "\n")
    return written


def judged(path: Path) -> str:
    """The bars, as a result keeps them."""
    return tables.verdicts([json.loads(path.read_text())])


def _one(row: Row, effort: Effort, worker: Worker, deadline: float | None) -> dict[str, Any]:
    if deadline is not None and time.monotonic() > deadline:
        return {"skipped": "no time left (--minutes)"}
    start = time.monotonic()
    try:
        found = row.run(effort, worker)
    except Exception as error:
        return {"skipped": reason(error)}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found | {"seconds": round(time.monotonic() - start, 1)}
