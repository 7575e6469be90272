"""The command line: record what comes out, compare two records."""

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from .book import Book, safe

PARTS = ["models", "networks", "neurons", "adapters", "adapters-old", "refusals"]
SLOW = ["texts"]
ROOT = Path(__file__).parents[2]
OLD = "0.0.0.0.14"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.freeze")
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS + SLOW)}")
    recording.add_argument("--quick", action="store_true", help="a part of each part")
    comparing = commands.add_parser("compare")
    comparing.add_argument("one", type=Path)
    comparing.add_argument("other", type=Path)
    comparing.add_argument("--only", help="parts, with commas")
    comparing.add_argument("--lines", type=int, default=12, help="of a diff (%(default)s)")
    comparing.add_argument("--items", type=int, default=40, help="shown of a part (%(default)s)")
    args = parser.parse_args()
    if args.command == "record":
        for part in args.only.split(","):
            if part not in PARTS + SLOW:
                parser.error(f"no part {part!r}; there are {', '.join(PARTS + SLOW)}")
            start = time.perf_counter()
            words = _record(args.folder, part, args.quick)
            print(f"{part}: {words}, {time.perf_counter() - start:.0f} s", flush=True)  # noqa: T201
        return 0
    return _compare(args)


def _record(folder: Path, part: str, quick: bool) -> str:
    """Records one part in a process of its own, so that none depends on another."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / part, ignore_errors=True)
    (folder / f"{part}.json").unlink(missing_ok=True)
    environment = dict(os.environ)
    if part == "adapters-old":
        old = _old_spikingjelly()
        if old is None:
            return f"left out, no .compat/spikingjelly-{OLD}"
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(old), environment.get("PYTHONPATH", "")])
        )
    code = f"from tests.freeze.__main__ import write; write({str(folder.resolve())!r}, {part!r}, {quick})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
    index = json.loads((folder / f"{part}.json").read_text())
    return f"{len(index)} cases, {sum(map(len, index.values()))} items"


def _old_spikingjelly() -> Path | None:
    """Beside the repository, or beside the one that this is a worktree of."""
    command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    common = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    roots = [ROOT, *([Path(common).parent] if common else [])]
    return next((p for root in roots if (p := root / ".compat" / f"spikingjelly-{OLD}").is_dir()), None)


def write(folder: str, part: str, quick: bool) -> None:
    """One part, in this process."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    book = Book(Path(folder), part)
    module = import_module(f".{part.removesuffix('-old')}", __package__)
    module.record(book, **({"quick": quick} if part not in ("adapters", "adapters-old") else {}))
    book.save()


# --- comparing ---------------------------------------------------------------------------------------------


def _compare(args: argparse.Namespace) -> int:
    names = [{path.stem for path in folder.glob("*.json")} for folder in (args.one, args.other)]
    both = sorted(names[0] & names[1])
    if args.only:
        both = [part for part in both if part in args.only.split(",")]
    if not both:
        print("nothing to compare: the two have no part in common")  # noqa: T201
        return 2
    different = 0
    for part in both:
        different += _compare_part(args, part)
    missing = sorted(names[0] ^ names[1])
    print(f"{different} items differ" if different else "the same", f"in {', '.join(both)}", end="")  # noqa: T201
    print(f"; in one of them alone: {', '.join(missing)}" if missing else "")  # noqa: T201
    return 1 if different else 0


def _compare_part(args: argparse.Namespace, part: str) -> int:
    one, other = (_items(folder, part) for folder in (args.one, args.other))
    keys = sorted(one.keys() | other.keys(), key=lambda key: (key not in one, key not in other, key))
    changed = [key for key in keys if one.get(key) != other.get(key)]
    if changed:
        print(f"=== {part}: {len(changed)} of {len(keys)} items differ")  # noqa: T201
    for case, item in changed[: args.items]:
        print(f"--- {case} | {item}")  # noqa: T201
        print("\n".join(_difference(args, part, case, item, one, other)))  # noqa: T201
    if len(changed) > args.items:
        print(f"... and {len(changed) - args.items} more, in these cases:")  # noqa: T201
        print("\n".join(sorted({f"    {case}" for case, _ in changed[args.items :]})[: args.items]))  # noqa: T201
    return len(changed)


Items = dict[tuple[str, str], str]


def _items(folder: Path, part: str) -> Items:
    index = json.loads((folder / f"{part}.json").read_text())
    return {(case, item): value for case, items in index.items() for item, value in items.items()}


def _difference(
    args: argparse.Namespace, part: str, case: str, item: str, one: Items, other: Items
) -> list[str]:
    key = case, item
    paths = [folder / part / safe(case) / f"{safe(item)}.txt" for folder in (args.one, args.other)]
    if not all(path.exists() for path in paths):
        return [f"    - {one.get(key, '(missing)')}", f"    + {other.get(key, '(missing)')}"]
    texts = [path.read_text().splitlines() for path in paths]
    lines = list(difflib.unified_diff(*texts, lineterm="", n=1))[2:]
    shown = [re.sub(r"(?<=^.{400}).+", " ...", line) for line in lines[: args.lines]]
    return shown + [f"... {len(lines) - args.lines} lines more"] * (len(lines) > args.lines)


if __name__ == "__main__":
    sys.exit(main())
