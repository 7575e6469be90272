"""The command ``mfp-neurons``: reads arguments, calls public functions and prints the text that they give."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from mfp_neurons import __version__
from mfp_neurons._checks import MissingDependency
from mfp_neurons.train import config as config_module
from mfp_neurons.train import distributed
from mfp_neurons.train.checkpoint import CheckpointError
from mfp_neurons.train.config import ConfigError
from mfp_neurons.zoo import catalog
from mfp_neurons.zoo.cards import AccuracyMoved, CardError, UnknownNetwork, table

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
MISTAKES = CardError, CheckpointError, ConfigError, MissingDependency, OSError, UnknownNetwork


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    0, 1 for a network that no longer reaches its card, 2 for a mistake of the user, 130 after Ctrl-C.
    """
    args = build_parser().parse_args(argv)
    try:
        if distributed.launched() and args.command not in (_train, _evaluate):
            raise ConfigError(
                "only train and evaluate run in several processes: start this one without torchrun"
            )
        with distributed.joined() as processes:
            text = args.command(args)
        # every process computes the same text; the first one prints it
        if processes.first:
            print(text)
    except MISTAKES as error:
        print(f"mfp-neurons: error: {error}", file=sys.stderr)
        return 2
    except AccuracyMoved as error:
        print(f"mfp-neurons: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mfp-neurons: stopped", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfp-neurons",
        description="Spiking networks that keep no membrane potential: train, deploy, measure costs.",
    )
    parser.add_argument("--version", action="version", version=f"mfp-neurons {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_report(commands)
    _add_deploy(commands)
    _add(commands, "doctor", _doctor, "which backends run on this machine, and why the others do not")
    _add_zoo(commands)
    return parser


def _add(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], str],
    summary: str,
    description: str = "",
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """A command; without a description of its own, its line in the list of commands describes it."""
    parser = commands.add_parser(name, help=summary, description=description or summary, epilog=epilog)
    parser.set_defaults(command=run)
    return parser


def _add_demo(commands: Commands) -> None:
    parser = _add(
        commands,
        "demo",
        _demo,
        "train three networks on handwritten digits, compare them and deploy one (under two minutes)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder for results (%(default)s)"
    )
    parser.add_argument("--seeds", type=positive, default=3, help="runs of each network (%(default)s)")
    parser.add_argument("--epochs", type=positive, help="instead of the configs' own number")
    _add_quiet(parser)


def _add_train(commands: Commands) -> None:
    parser = _add(
        commands,
        "train",
        _train,
        "train one network",
        description="Trains the network that a TOML config describes; keeps the best by validation.",
        epilog=f"Shipped configs: {', '.join(config_module.shipped())}.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, or the name of a shipped config")
    parser.add_argument("--out", type=Path, help="folder for checkpoints and result (runs/NAME-seedN)")
    parser.add_argument("--data-root", help="folder that holds the data set (./data)")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting: training.epochs=3"
    )
    _add_quiet(parser)


def _add_evaluate(commands: Commands) -> None:
    parser = _add(commands, "evaluate", _evaluate, "accuracy of a checkpoint on its test split")
    _add_checkpoint(parser)


def _add_report(commands: Commands) -> None:
    parser = _add(commands, "report", _report, "memory, operations and estimated energy of a checkpoint")
    _add_checkpoint(parser)
    parser.add_argument(
        "--samples", type=positive, default=100, help="test samples to measure on (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_deploy(commands: Commands) -> None:
    parser = _add(
        commands,
        "deploy",
        _deploy,
        "a checkpoint as an integer network, as C and as Verilog",
        description="Turns the network of a checkpoint into integers, tries it on the test split, writes it.",
    )
    _add_checkpoint(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the integer network (beside the checkpoint)"
    )
    parser.add_argument("--c", type=Path, metavar="DIR", help="write C99 for small devices there")
    parser.add_argument(
        "--layout",
        choices=("plain", "arduino", "platformio", "cmake", "zephyr"),
        help="what --c writes: the sources alone, or a library of a build system (plain)",
    )
    parser.add_argument("--verilog", type=Path, metavar="DIR", help="write Verilog for FPGAs there")
    parser.add_argument(
        "--lanes",
        type=positive,
        metavar="N",
        help="bits of inputs that a layer of the Verilog adds up in a cycle: more are faster and larger (64)",
    )


def _add_zoo(commands: Commands) -> None:
    summary = "example networks, retrained memory-free: list, show, evaluate"
    parser = commands.add_parser("zoo", help=summary, description=f"The zoo: {summary}.")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    summary = "the shipped networks in a table"
    _add(verbs, "list", _zoo_list, summary, description=f"Shows {summary}.")
    summary = "the card of a shipped network"
    parser = _add(verbs, "show", _zoo_show, summary, description=f"Shows {summary}.")
    parser.add_argument("name", metavar="NAME")
    parser = _add(
        verbs,
        "evaluate",
        _zoo_evaluate,
        "measure accuracy again and compare it with the card",
        description="Measures the accuracy of a network in PyTorch and in integers; fails if it is more "
        "than a point away from the card.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--images", type=int, help="so many test images (all)")
    _add_data_root(parser)
    _add_quiet(parser)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a best.safetensors")
    _add_data_root(parser)


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", help="folder that holds the data set now")


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def positive(argument: str) -> int:
    """An option's value that must be an integer of 1 or more."""
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"{argument}: give an integer of 1 or more")
    return int(argument)


# Commands import what they run when they run: `mfp-neurons --help` works without the extras.


def _demo(args: argparse.Namespace) -> str:
    from mfp_neurons.train import demo

    return demo.run(args.out, seeds=args.seeds, epochs=args.epochs, bars=not args.quiet)


def _train(args: argparse.Namespace) -> str:
    from mfp_neurons.train.engine import BEST, Trainer

    overrides = dict(config_module.parse_override(s) for s in args.set)
    if args.data_root is not None:
        overrides["data.root"] = args.data_root
    config = config_module.load(args.config, overrides)
    out = args.out or Path("runs") / f"{Path(args.config).stem}-seed{config.training.seed}"
    result = Trainer(config, out, bars=not args.quiet).run(resume=args.resume)
    best_epoch = result["best_epoch"] + 1
    return (
        f"test accuracy        {result['test_accuracy']:.2f} %\n"
        f"validation accuracy  {result['validation_accuracy']:.2f} %, best after epoch {best_epoch}\n"
        f"read-out             {_readout(result['readout_steps'])}, chosen by validation\n"
        f"state                {result['state_bits']:.3g} bits a hidden neuron between steps\n"
        f"training             {result['seconds_per_epoch']:.1f} s an epoch\n"
        f"checkpoint           {out / BEST}"
    )


def _evaluate(args: argparse.Namespace) -> str:
    from mfp_neurons.train.engine import accuracies, load_network

    module, data, config, facts = load_network(args.checkpoint, args.data_root)
    by_steps = accuracies(module, module, data, data.test, config)
    chosen = facts["readout_steps"]
    lines = [
        f"{k:>4}  {a:6.2f} %{'  chosen by validation' if k == chosen else ''}" for k, a in by_steps.items()
    ]
    return (
        f"test accuracy {by_steps[chosen]:.2f} % over {len(data.test):,} samples\n"
        f"read-out: {_readout(chosen)}\n\n"
        "last steps averaged, accuracy\n" + "\n".join(lines)
    )


def _report(args: argparse.Namespace) -> str:
    from mfp_neurons.reporting import report
    from mfp_neurons.train.engine import load_network

    module, data, *_ = load_network(args.checkpoint, args.data_root)
    costs = report(module, data.sequence(data.test.samples[: args.samples]))
    return json.dumps(costs.as_dict(), indent=1) if args.json else str(costs)


def _deploy(args: argparse.Namespace) -> str:
    from mfp_neurons.train import deployment

    if args.layout is not None and args.c is None:
        raise ConfigError(f"--layout {args.layout} is about C: give --c DIR too")
    if args.lanes is not None and args.verilog is None:
        raise ConfigError(f"--lanes {args.lanes} is about Verilog: give --verilog DIR too")
    deployed = deployment.lower_checkpoint(args.checkpoint, args.data_root)
    out = args.out or args.checkpoint.with_name(deployment.INTEGERS)
    written = deployment.measured_and_written(deployed, out, args.c, args.layout or "plain")
    verilog = "" if args.verilog is None else deployment.write_verilog(deployed, args.verilog, args.lanes)
    return f"{deployed.network}\n\n{written}{verilog}"


def _doctor(args: argparse.Namespace) -> str:
    from mfp_neurons._doctor import doctor

    return doctor()


def _zoo_list(args: argparse.Namespace) -> str:
    return table(catalog.card(name) for name in catalog.names())


def _zoo_show(args: argparse.Namespace) -> str:
    return str(catalog.card(args.name))


def _zoo_evaluate(args: argparse.Namespace) -> str:
    from mfp_neurons.zoo import evaluation

    trained = catalog.load(args.name)
    return evaluation.evaluate(trained, args.images, root=args.data_root, bars=not args.quiet)


def _readout(steps: int) -> str:
    return "the last step" if steps == 1 else f"the mean of the last {steps} steps"
