"""``mfp-neurons zoo``: arguments in, the zoo's functions called, text out."""

import argparse
from pathlib import Path

from . import catalog, page


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its own commands to the command line."""
    words = "example networks, retrained memory-free: list, show, evaluate, train, pack, ship"
    zoo = commands.add_parser("zoo", help=words, description=f"The zoo: {words}.")
    verbs = zoo.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add_verb in (_add_list, _add_show, _add_evaluate, _add_train, _add_pack, _add_ship):
        add_verb(verbs)


def _add_list(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "the shipped networks in a table, and the configs there are"
    parser = verbs.add_parser("list", help=words, description=f"Shows {words}.")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help=f"put the table into a page, between two lines {page.MARK}"
    )
    parser.set_defaults(command=_list)


def _add_show(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "the card of a shipped network"
    parser = verbs.add_parser("show", help=words, description=f"Shows {words}.")
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(command=_show)


def _add_evaluate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "measure accuracy again and compare it with the card"
    parser = verbs.add_parser(
        "evaluate",
        help=words,
        description="Measures the accuracy of a network in PyTorch and in integers; fails if it is more "
        "than a point away from the card.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--images", type=int, help="so many test images (all)")
    _add_common(parser)
    parser.set_defaults(command=_evaluate)


def _add_train(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "train",
        help="train a network of the zoo again",
        description="Trains a network from its config, packs it, measures it and writes its card.",
        epilog=f"Configs: {', '.join(catalog.configs())}.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--out", type=Path, help="folder for checkpoints, network and card (runs/zoo/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--device", help="cpu, cuda, ...: short for --set training.device=DEVICE")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting: training.epochs=3"
    )
    parser.add_argument("--by", default="", metavar="WHO", help="who trained it, for the card")
    _add_common(parser)
    parser.set_defaults(command=_train)


def _add_pack(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "pack",
        help="pack a finished run and write its card",
        description="Packs the best network of a finished run of train or zoo train, measures it, writes its "
        "card.",
    )
    parser.add_argument("name", metavar="NAME", help="what it is called in the zoo")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder with best.safetensors and result.json")
    parser.add_argument("--out", type=Path, help="folder for network and card (RUN)")
    parser.add_argument(
        "--trained-on", metavar="MACHINE", help="for the card of a run that zoo train did not start"
    )
    parser.add_argument("--by", default="", metavar="WHO", help="who trained it, for the card")
    _add_common(parser)
    parser.set_defaults(command=_pack)


def _add_ship(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "ship",
        help="put a packed network and its card into the package",
        description="Copies a network and its card, as train and pack write them, into the package; refuses "
        "what its config in the package does not make.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where train or pack wrote them")
    parser.set_defaults(command=_ship)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", help="folder that holds the data set now")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _list(args: argparse.Namespace) -> str:
    shipped = [catalog.card(name) for name in catalog.names()]
    if args.into is not None:
        page.write(args.into, shipped)
        return f"written: {args.into}"
    others = sorted(set(catalog.configs()) - set(catalog.names()))
    return (
        f"{page.table(shipped)}\n\n"
        f"to be trained (mfp-neurons zoo train NAME): {', '.join(others) or 'none besides these'}"
    )


def _show(args: argparse.Namespace) -> str:
    return str(catalog.card(args.name))


def _evaluate(args: argparse.Namespace) -> str:
    from . import measuring

    trained = catalog.load(args.name)
    return measuring.evaluate(trained, args.images, root=args.data_root, bars=not args.quiet)


def _train(args: argparse.Namespace) -> str:
    from mfp_neurons.train.config import parse_override

    from . import training

    overrides = dict(parse_override(s) for s in args.set)
    if args.device is not None:
        overrides["training.device"] = args.device
    if args.data_root is not None:
        overrides["data.root"] = args.data_root
    out = args.out or Path("runs") / "zoo" / args.name
    trained = training.train(args.name, out, overrides, resume=args.resume, by=args.by, bars=not args.quiet)
    return _written(trained, out)


def _pack(args: argparse.Namespace) -> str:
    from . import training

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
    from . import training

    training.ship(args.name, args.folder)
    return f"written: {_files(args.name, catalog.NETWORKS)}"


def _written(trained: catalog.Trained, out: Path) -> str:
    return f"{trained.card}\n\nwritten: {_files(trained.card.name, out)}"


def _files(name: str, folder: Path) -> str:
    return f"{folder / name}{catalog.WEIGHTS}, {folder / name}{catalog.CARD}"
