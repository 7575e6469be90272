"""The evidence: three tasks, the methods that compete, three seeds; tables, figures, docs/evidence.md.

    python -m benchmarks.evidence --out runs/evidence              # train what is missing, write the page
    python -m benchmarks.evidence --out runs/evidence --only rows  # one task
    python -m benchmarks.evidence --out runs/evidence --costs      # time the methods side by side as well
    python -m benchmarks.evidence --show                           # the page from benchmarks/results

Start it once a core, on one folder: the processes share the work. Stop it any time: the next start goes on.
Each task is a TOML file here: networks, what is tuned, and the budget, which is the same for all.
"""

import argparse
import json
from pathlib import Path

from benchmarks import sweep
from benchmarks.evidence import costs, page
from mfp_neurons.train import checkpoint, config

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
TASKS = ("rows", "rows_readout", "still", "events")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for the runs; shared by all processes")
    parser.add_argument("--only", action="append", choices=TASKS, help="this task alone; may be repeated")
    parser.add_argument("--data-root", default="data", help="folder that holds FashionMNIST/raw")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides every run")
    parser.add_argument("--costs", action="store_true", help="time a training step of each method, in turns")
    parser.add_argument("--show", action="store_true", help="train nothing")
    args = parser.parse_args()
    if args.out is None and not args.show:
        parser.error("--out: name a folder for the runs, or give --show")

    for task in args.only or TASKS:
        plan = sweep.load(str(HERE / f"{task}.toml"))
        if not args.show:
            overrides = dict(config.parse_override(s) for s in args.set)
            sweep.run(plan, args.out / task, {"data.root": args.data_root, **overrides})
            collect(task, plan, args.out / task)
            if args.costs:
                checkpoint.write_json(
                    RESULTS / f"evidence_{task}_time.json", costs.times(plan, args.out / task)
                )
    page.write(RESULTS)


def collect(task: str, plan: sweep.Sweep, out: Path) -> None:
    """Writes what all finished runs of a task found, with what each network costs, as one JSON file."""
    found = []
    for entry in plan.entries:
        words = {"label": entry.label, "family": entry.family}  # as the plan says now, not when it was run
        for path in sweep.result_paths(entry, plan.seeds, out):
            if path.exists():
                result = json.loads(path.read_text())
                del result["history"]
                found.append(result | words | {"costs": costs.of_run(path)})
    checkpoint.write_json(RESULTS / f"evidence_{task}.json", found)


if __name__ == "__main__":
    main()
