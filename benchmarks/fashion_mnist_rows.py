"""Fashion-MNIST read row by row: what a bit of state buys a LIF, and what it buys a memory-free network.

    python benchmarks/fashion_mnist_rows.py --out runs/rows           # trains what is missing
    python benchmarks/fashion_mnist_rows.py --out runs/rows --table   # table and figure of what is there

Start it once a core, on one folder: the processes share the work. Stop it at any time: the next start
goes on. Prints the table as Markdown, and writes the figure and the results beside the runs.
--sweep benchmarks/fashion_mnist_rows_last.toml reads every answer from the last row alone.
"""

import argparse
import json
from pathlib import Path

from mfp_neurons.train import config, figures, sweep, tables

SWEEP = Path(__file__).with_suffix(".toml")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweep", default=str(SWEEP), help="TOML file that lists the networks")
    parser.add_argument("--out", type=Path, required=True, help="folder for results; shared by all processes")
    parser.add_argument("--data-root", default="data", help="folder that holds FashionMNIST/raw")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides every run")
    parser.add_argument("--table", action="store_true", help="train nothing")
    args = parser.parse_args()

    plan = sweep.load(args.sweep)
    if not args.table:
        overrides = dict(config.parse_override(s) for s in args.set)
        sweep.run(plan, args.out, {"data.root": args.data_root, **overrides})
    results = [json.loads(p.read_text()) for p in sweep.result_paths(plan, args.out) if p.exists()]
    print(tables.accuracy_table(results))
    figures.accuracy_against_state(results, args.out / "accuracy-against-state.png")
    facts = [{key: value for key, value in result.items() if key != "history"} for result in results]
    (args.out / "results.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
