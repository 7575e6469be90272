"""Trains, packs and ships the networks of the zoo, and writes their table in the docs.

python -m benchmarks.zoo train fashion-mnist-rows            # trained, packed, measured: runs/zoo/NAME
python -m benchmarks.zoo pack NAME RUN                       # a finished run of mfp-neurons train
python -m benchmarks.zoo ship NAME FOLDER                    # into the package
python -m benchmarks.zoo train NAME --original               # what it replaces: runs/zoo/NAME-original
python -m benchmarks.zoo ship NAME FOLDER --original         # its numbers, on the card in the package
python -m benchmarks.zoo validate NAME --rates 2e-3 4e-3     # which learning rate is best by validation
python -m benchmarks.zoo measure NAME ..                     # what shipped networks cost, on their cards
python -m benchmarks.zoo table docs/zoo.md                   # the table of all cards
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mfp_neurons._checks import MissingDependency
from mfp_neurons.train.checkpoint import CheckpointError
from mfp_neurons.train.config import ConfigError, parse_override
from mfp_neurons.zoo import catalog
from mfp_neurons.zoo.cards import Card, CardError, UnknownNetwork, table

from . import training

MARK = "<!-- the zoo's cards -->"  # the table stands between two of these lines
MISTAKES = CardError, CheckpointError, ConfigError, MissingDependency, OSError, UnknownNetwork


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for a mistake of the user."""
    args = _parser().parse_args(argv)
    try:
        print(args.command(args))
    except MISTAKES as error:
        print(f"benchmarks.zoo: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo", description="Trains, packs and ships the networks of the zoo."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_train, _add_validate, _add_pack, _add_ship, _add_measure, _add_table):
        add(commands)
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "train",
        help="train a network of the zoo again",
        description="Trains a network from its config, packs it, measures it and writes its card.",
        epilog=f"Configs: {', '.join(training.configs())}.",
    )
    _add_run(parser)
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--by", default="", metavar="WHO", help="who trained it, for the card")
    parser.set_defaults(command=_train)


def _add_validate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "validate",
        help="compare learning rates by validation",
        description="Trains a network with each learning rate and prints what validation says; finished runs "
        "are not repeated, and one that was stopped goes on.",
    )
    _add_run(parser)
    parser.add_argument("--rates", type=float, nargs="+", required=True, metavar="RATE")
    parser.set_defaults(command=_validate)


def _add_run(parser: argparse.ArgumentParser) -> None:
    """What a command that trains takes."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--original", action="store_true", help="the network that it replaces: float weights, its own neurons"
    )
    parser.add_argument("--out", type=Path, help="folder for all that is written (one in runs/zoo)")
    parser.add_argument("--device", help="cpu, cuda, ...: short for --set training.device=DEVICE")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting: training.epochs=3"
    )
    _add_common(parser)


def _add_pack(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "pack",
        help="pack a finished run and write its card",
        description="Packs the best network of a finished run, measures it, writes its card.",
    )
    parser.add_argument("name", metavar="NAME", help="what it is called in the zoo")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder with best.safetensors and result.json")
    parser.add_argument("--out", type=Path, help="folder for network and card (RUN)")
    parser.add_argument(
        "--trained-on", metavar="MACHINE", help="for the card of a run that train did not start"
    )
    parser.add_argument("--by", default="", metavar="WHO", help="who trained it, for the card")
    _add_common(parser)
    parser.set_defaults(command=_pack)


def _add_ship(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "ship",
        help="put a packed network and its card into the package",
        description="Copies a network and its card, as train and pack write them, into the package; refuses "
        "what its config in the package does not make.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where train or pack wrote them")
    parser.add_argument(
        "--original", action="store_true", help="what train --original wrote, on the card in the package"
    )
    parser.set_defaults(command=_ship)


def _add_measure(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "measure",
        help="count anew what shipped networks cost",
        description="Counts bytes, state, operations and energy of shipped networks, and puts them on their "
        "cards; accuracies stay.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--data-root", help="folder that holds the data set now")
    parser.set_defaults(command=_measure)


def _add_table(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "put the table of all shipped networks into a page"
    parser = commands.add_parser("table", help=words, description=f"Puts the table between two lines {MARK}.")
    parser.add_argument("page", type=Path, metavar="PAGE")
    parser.set_defaults(command=_table)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", help="folder that holds the data set now")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _train(args: argparse.Namespace) -> str:
    out, bars = _out(args), not args.quiet
    data = training.train(
        args.name, out, _overrides(args), original=args.original, resume=args.resume, bars=bars
    )
    if args.original:
        original = training.describe_original(args.name, out, by=args.by, data=data)
        return f"{original}\n\nwritten: {out / args.name}{training.ORIGINAL}"
    return _written(training.pack(args.name, out, by=args.by, data=data, bars=bars), out)


def _validate(args: argparse.Namespace) -> str:
    accuracies = training.validate(
        args.name,
        args.rates,
        _out(args) / "rates",
        _overrides(args),
        original=args.original,
        bars=not args.quiet,
    )
    return "\n".join(f"{rate:<10g}{accuracy:.2f} %" for rate, accuracy in accuracies.items())


def _out(args: argparse.Namespace) -> Path:
    folder: Path = args.out or Path("runs") / "zoo" / (args.name + ("-original" if args.original else ""))
    return folder


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    overrides = dict(parse_override(s) for s in args.set)
    if args.device is not None:
        overrides["training.device"] = args.device
    if args.data_root is not None:
        overrides["data.root"] = args.data_root
    return overrides


def _pack(args: argparse.Namespace) -> str:
    out = args.out or args.run
    trained = training.pack(
        args.name,
        args.run,
        out,
        trained_on=args.trained_on,
        by=args.by,
        data_root=args.data_root,
        bars=not args.quiet,
    )
    return _written(trained, out)


def _ship(args: argparse.Namespace) -> str:
    if args.original:
        training.ship_original(args.name, args.folder)
        return f"written: {catalog.NETWORKS / args.name}{catalog.CARD}"
    training.ship(args.name, args.folder)
    return f"written: {_files(args.name, catalog.NETWORKS)}"


def _measure(args: argparse.Namespace) -> str:
    return "\n\n".join(str(training.measure(name, args.data_root)) for name in args.names)


def _written(trained: catalog.Trained, out: Path) -> str:
    return f"{trained.card}\n\nwritten: {_files(trained.card.name, out)}"


def _files(name: str, folder: Path) -> str:
    return f"{folder / name}{catalog.WEIGHTS}, {folder / name}{catalog.CARD}"


def _table(args: argparse.Namespace) -> str:
    shipped = [catalog.card(name) for name in catalog.names()]
    args.page.write_text(insert(args.page.read_text(), shipped))
    return f"written: {args.page}"


def insert(page: str, shipped: Iterable[Card]) -> str:
    """A page with the table of these cards between its two marks.

    Raises:
        CardError: it has not exactly two marks.
    """
    parts = page.split(MARK)
    if len(parts) != 3:
        raise CardError(f"the page has {len(parts) - 1} lines {MARK}; the table goes between two")
    return MARK.join([parts[0], f"\n{table(shipped)}\n", parts[2]])


if __name__ == "__main__":
    sys.exit(main())
