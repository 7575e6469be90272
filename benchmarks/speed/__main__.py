"""Speed and memory of the neurons beside their peers, measured side by side in one run.

    python -m benchmarks.speed --device cpu --threads 2 --out benchmarks/results    # what `make bench` runs
    python -m benchmarks.speed --only 'neuron/T=4,*'         # some rows; --only x prints the names of all
    python -m benchmarks.speed --markdown-from RESULT.json   # no run: tables and figures of a result

Writes JSON after every row, and a Markdown page with figures at the end.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import facts
from mfp_neurons._checks import MissingDependency
from mfp_neurons.cli import positive

from . import figures, memory, tables
from .plan import Row, rows
from .timing import Effort, reason
from .worker import Worker


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
        raise BenchError(f"{path} is no result of benchmarks.speed: it has no rows")
    try:
        drawn = figures.draw(result, path.parent, path.stem)
    except MissingDependency as error:
        drawn = {}
        say(f"no figures: {error}")
    written = path.with_suffix(".md")
    written.write_text(tables.page(result, drawn) + "\n")
    return written


def judged(path: Path) -> str:
    """The targets, and whether a result keeps them."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a mistake of the user."""
    args = _parser().parse_args(argv)
    try:
        if args.markdown_from is not None:
            print(f"written: {show(args.markdown_from)}")
            return 0
        path = run(
            args.out,
            device=args.device,
            threads=args.threads,
            only=tuple(args.only),
            quick=args.quick,
            repeats=args.repeats,
            minutes=args.minutes,
        )
        print(f"{judged(path)}\n\nwritten: {path}, {path.with_suffix('.md')}")
    except (BenchError, MissingDependency, OSError) as error:
        print(f"benchmarks.speed: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Measures speed and memory of the neurons against their peers, side by side.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), help="folder for results (%(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (a GPU where there is one)")
    parser.add_argument("--threads", type=positive, help="threads on the CPU (PyTorch's choice)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="rows to run, such as 'neuron/T=4,*'; 'x' prints all names",
    )
    parser.add_argument("--repeats", type=positive, help="rounds at most (31)")
    parser.add_argument("--minutes", type=float, help="skip the rows that this leaves no time for")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few repeats, to check that it runs"
    )
    parser.add_argument(
        "--markdown-from", type=Path, metavar="JSON", help="no run: tables and figures of a result"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
