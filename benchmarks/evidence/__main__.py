"""The evidence: tasks, the methods that compete, several seeds; tables, figures, docs/evidence.md.

    python -m benchmarks.evidence --out runs/evidence              # train what is missing, write the page
    python -m benchmarks.evidence --out runs/evidence --only rows  # one task
    python -m benchmarks.evidence --out runs/evidence --only rows --network lif-2    # one network of it
    python -m benchmarks.evidence --out runs/evidence --costs      # time the methods side by side as well
    python -m benchmarks.evidence --show                           # the page from benchmarks/results
    python -m benchmarks.evidence --show --costs                   # time the methods, train nothing

Start it once a core, on one folder: the processes share the work. Stop it any time: the next start goes on.
Each task is a TOML file here: networks, what is tuned, and the budget, which is the same for all. Its
``reference`` is the network that the others are compared with; networks with a ``short`` name are labelled in
the figure, and are the README's if the task is. A Markdown file beside it has the words of the page. Networks
whose runs are not in the folder keep the results that benchmarks/results has of them, while the plan has the
settings of those.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import sweep
from benchmarks.evidence import costs, page
from benchmarks.evidence.results import HERE, TITLES, Run, read_runs, write_runs
from benchmarks.zoo.training import same_training
from mfp_neurons.train import checkpoint, config

RESULTS = HERE.parent / "results"
TASKS = tuple(TITLES)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for the runs; shared by all processes")
    parser.add_argument("--only", action="append", choices=TASKS, help="this task alone; may be repeated")
    parser.add_argument("--network", action="append", default=[], help="of one task; may be repeated")
    parser.add_argument("--data-root", default="data", help="folder that holds FashionMNIST/raw")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides every run")
    parser.add_argument("--costs", action="store_true", help="time a training step of each method, in turns")
    parser.add_argument("--show", action="store_true", help="train nothing")
    args = parser.parse_args()
    if args.out is None and not args.show:
        parser.error("--out: name a folder for the runs, or give --show")
    if args.network and len(args.only or TASKS) > 1:
        parser.error("--network: name its task as well, with --only")

    for task in args.only or TASKS:
        plan = sweep.load(str(HERE / f"{task}.toml"))
        set_by_hand = dict(config.parse_override(s) for s in args.set)
        overrides = {"data.root": args.data_root, **set_by_hand}
        path = RESULTS / f"evidence_{task}.json"
        results = read_runs(path) if path.exists() else []
        if not args.show:
            sweep.run(sweep.only(plan, args.network), args.out / task, overrides)
            results = collect(plan, args.out / task, results, overrides)
            write_runs(path, results)
        if args.costs:
            path = RESULTS / f"evidence_{task}_time.json"
            checkpoint.write_json(path, costs.times(plan, results, overrides))
    page.write(RESULTS)


def collect(
    plan: sweep.Sweep, out: Path, kept: Sequence[Run], overrides: sweep.Settings | None = None
) -> list[Run]:
    """The results of all finished runs of a task, with what each network costs.

    Those that were trained with other settings than the plan's, of an earlier budget say, are left out: they
    would stand beside networks that had another chance.

    Args:
        plan: networks and seeds, in whose order the results are returned.
        out: folder of the runs.
        kept: results of earlier runs, which stand in for those that are not in the folder.
        overrides: settings over those of the plan, by dotted key.
    """
    earlier = {(result["name"], result["seed"]): result for result in kept}
    results = []
    for entry in plan.entries:
        words = {"label": entry.label, "family": entry.family}  # as the plan says now, not when it was run
        for seed, path in zip(plan.seeds, sweep.result_paths(entry, plan.seeds, out), strict=True):
            if path.exists():
                result = json.loads(path.read_text())
                del result["history"]
            elif (entry.name, seed) in earlier:
                result = earlier[entry.name, seed]
            else:
                continue
            settings = plan.settings(
                entry, {**plan.common, **(overrides or {})}, result["tuned"]["best"], seed
            )
            if not same_training(config.from_dict(result["config"]), config.load(plan.base, settings)):
                print(f"left out: {entry.name}, seed {seed}: trained with other settings than the plan's")
                continue
            results.append(result | words | ({"costs": costs.of_run(path)} if path.exists() else {}))
    return results


if __name__ == "__main__":
    main()
