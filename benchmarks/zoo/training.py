"""How a network gets into the zoo: trained from its config, packed, measured, described on a card."""

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine
from mfp_neurons import report
from mfp_neurons._files import write_bytes
from mfp_neurons.deploy.file import to_bytes
from mfp_neurons.history import quantize_taps
from mfp_neurons.quantize import materialize
from mfp_neurons.train import checkpoint
from mfp_neurons.train.config import Config, ConfigError, DataConfig, from_dict, read_toml
from mfp_neurons.train.config import load as load_config
from mfp_neurons.train.data import Data
from mfp_neurons.train.datasets.source import shuffled
from mfp_neurons.train.deployment import Readout
from mfp_neurons.train.engine import BEST, LAST, RESULT, Trainer, load_network
from mfp_neurons.zoo import cards, catalog, packed
from mfp_neurons.zoo.cards import SAMPLE, Card, Original
from mfp_neurons.zoo.catalog import CARD, WEIGHTS, Runnable, Trained
from mfp_neurons.zoo.evaluation import accuracies, load_test
from mfp_neurons.zoo.packed import Facts

CONFIGS = Path(__file__).parent / "configs"
ORIGINALS = "originals.toml"  # beside CONFIGS: what the networks that ours replace have in other ways
COUNTED = 100  # test samples on which operations are counted
ORIGINAL = "-original.json"  # behind a network's name: the file on the network that it replaces
MACHINE = "machine.json"  # in the folder of a run: what it was trained on
_PACKAGES = ("mfp-neurons", "torch", "spikingjelly", "snntorch")


def configs() -> list[str]:
    """Names of the configs that :func:`train` trains; the shipped networks are from some of them."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def config(name: str, overrides: Mapping[str, Any] | None = None, *, original: bool = False) -> Config:
    """The training config of that name; ``overrides`` are dotted keys.

    Args:
        name: one of ``configs()``.
        overrides: settings other than the config's, by dotted keys.
        original: of the network that it replaces, with float weights and its own neurons.

    Raises:
        ConfigError: there is no such config, nothing says what its original is, or a value is not accepted.
    """
    if name not in configs():
        raise ConfigError(f"the zoo has no config {name!r}; it has {', '.join(configs())}")
    settings: dict[str, Any] = {}
    if original:
        originals = read_toml(str(CONFIGS.parent / ORIGINALS))
        if name not in originals:
            known = ", ".join(originals)
            raise ConfigError(f"{ORIGINALS} has no original of {name!r}; it has those of {known}")
        settings = {"network.weight_bits": 32, **originals[name]}
    return load_config(str(CONFIGS / f"{name}.toml"), {**settings, **(overrides or {})})


def summary(name: str) -> str:
    """The description of a config: the comment at its top. Empty where there is no such config."""
    path = CONFIGS / f"{name}.toml"
    if not path.is_file():
        return ""
    lines = path.read_text().splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def train(
    name: str,
    out: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    original: bool = False,
    resume: bool = False,
    bars: bool = True,
) -> Data:
    """Trains the config of that name in the folder ``out``, for :func:`pack` or :func:`describe_original`.

    Args:
        name, overrides, original: as for :func:`config`.
        out: folder for the run's checkpoints.
        resume: go on where the run in ``out`` stopped.
        bars: whether to draw progress bars.

    Returns:
        The data set, which need not be loaded again.

    Raises:
        ConfigError: the config is refused, or ``out`` holds another run.
    """
    trainer = Trainer(config(name, overrides, original=original), out, bars=bars)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / LAST).exists():
        checkpoint.write_json(out / MACHINE, {"trained_on": _machine(trainer.device)})
    trainer.run(resume=resume)
    return trainer.data


def validate(
    name: str,
    rates: Sequence[float],
    out: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    original: bool = False,
    bars: bool = True,
) -> dict[float, float]:
    """Best validation accuracy, in percent, of a run with each learning rate; finished ones are not repeated.

    Args:
        name, overrides, original: as for :func:`config`.
        rates: learning rates.
        out: folder for the runs, each in one of its own.
        bars: whether to draw progress bars.
    """
    accuracies: dict[float, float] = {}
    data = None
    for rate in rates:
        settings = {**(overrides or {}), "training.learning_rate": rate}
        trainer = Trainer(config(name, settings, original=original), out / f"{rate:g}", data, bars=bars)
        data = trainer.data
        accuracies[rate] = trainer.run(resume=True)["validation_accuracy"]
    return accuracies


def pack(
    name: str,
    run: Path,
    out: Path | None = None,
    *,
    trained_on: str | None = None,
    by: str = "",
    data: Data | None = None,
    data_root: str | None = None,
    bars: bool = True,
) -> Trained:
    """Packs the best network of a finished run, measures what comes out of the file, and writes its card.

    Args:
        name: of the network in the zoo.
        run: the folder of the run.
        out: folder for ``NAME.safetensors`` and ``NAME.json``; None: ``run``.
        trained_on: the machine of the training, for a run that ``train`` did not start.
        by: who trained it.
        data: the run's data set, if it is loaded already.
        data_root: where the data set is now, if not where it was in training.
        bars: whether to draw progress bars.

    Raises:
        ConfigError: the run is not finished, or does not say where it was trained and neither do you.
        CheckpointError: ``run`` holds no trained network.
        RuntimeError: what comes out of the file is not what went in.
    """
    out = out or run
    where = _trained_on(run, trained_on)
    module, data, config, facts = load_network(run / BEST, data_root, data)
    module, data = module.cpu(), data.to(torch.device("cpu"))
    result = _result(run)
    if config.data.test_limit:
        raise ConfigError(f"data.test_limit = {config.data.test_limit}: a card is about the whole test set")
    out.mkdir(parents=True, exist_ok=True)
    weights = out / f"{name}{WEIGHTS}"
    described = Facts(
        _published(config), data.features, data.classes, data.steps, facts["readout_steps"], data.scale
    )
    packed.save(weights, module, described)
    restored, _ = packed.load(weights)
    _check_equal(module, restored, data.sequence(data.test.samples[:8]))
    runnable = Runnable(Readout(restored, described.readout_steps).eval(), described)
    training = _training(config, result, run, by, where)
    card = _card(name, weights, runnable, data, training, bars)
    checkpoint.write_json(out / f"{name}{CARD}", card.as_dict())
    return Trained(runnable.model, described, card)


def describe_original(name: str, run: Path, *, by: str = "", data: Data | None = None) -> Original:
    """Writes what the original of a network reaches and costs, as ``NAME-original.json`` into its run.

    Args:
        name: of the network that replaces it.
        run: the folder of a finished run.
        by: who trained it.
        data: the run's data set, if it is loaded already.

    Raises:
        ConfigError: the run is not finished, or does not say where it was trained.
        CheckpointError: ``run`` holds no trained network.
    """
    where = _trained_on(run, None)
    module, data, config, facts = load_network(run / BEST, data=data)
    result = _result(run)
    module = Readout(module.cpu(), facts["readout_steps"]).eval()
    original = Original(
        accuracy=result["test_accuracy"],
        config=_published(config),
        **counted(module, data.to(torch.device("cpu"))),
        **_training(config, result, run, by, where),
    )
    checkpoint.write_json(run / f"{name}{ORIGINAL}", dataclasses.asdict(original))
    return original


def ship(name: str, folder: Path) -> None:
    """Copies ``NAME.safetensors`` and ``NAME.json`` from a folder into the package; the original stays.

    Raises:
        ConfigError: the network was not trained from the zoo's config of that name as it is now.
        CardError: the two files do not belong together.
    """
    trained = catalog.load_files(folder / f"{name}{WEIGHTS}", folder / f"{name}{CARD}")
    if not same_training(from_dict(trained.card.config), config(name)):
        raise ConfigError(
            f"{folder / name}{CARD}: trained with settings other than those of the zoo's config {name!r}; "
            "make the config say what was done, or train again"
        )
    catalog.NETWORKS.mkdir(exist_ok=True)
    shipped = catalog.card(name).original if name in catalog.names() else None
    # an original that was trained with another budget is none of the new network
    kept = shipped is not None and same_training(from_dict(shipped.config), config(name, original=True))
    card = replace(trained.card, original=shipped if kept else None)
    write_bytes(catalog.NETWORKS / f"{name}{WEIGHTS}", (folder / f"{name}{WEIGHTS}").read_bytes())
    checkpoint.write_json(catalog.NETWORKS / f"{name}{CARD}", card.as_dict())


def ship_original(name: str, folder: Path) -> None:
    """Puts what :func:`describe_original` has left in a folder on the card in the package.

    Raises:
        ConfigError: it was trained with settings other than those of ``config(name, original=True)`` now.
        UnknownNetwork: the package has no such network.
    """
    path = catalog.path_of(name, CARD)
    values = json.loads(path.read_text())  # its numbers may be those of an earlier original
    original = Original(**json.loads((folder / f"{name}{ORIGINAL}").read_text()))
    if not same_training(from_dict(original.config), config(name, original=True)):
        raise ConfigError(
            f"{folder / name}{ORIGINAL}: trained with settings other than those of the original of {name!r}; "
            f"make the zoo's config and {ORIGINALS} say what was done, or train again"
        )
    checkpoint.write_json(path, values | {"original": dataclasses.asdict(original)})


def same_training(one: Config, other: Config) -> bool:
    """Whether two configs train the same network; where, and with how many threads, may differ."""
    return _anywhere(one) == _anywhere(other)


def _anywhere(config: Config) -> Config:
    training = replace(
        config.training,
        device="auto",
        threads=0,
        checkpoint_steps=0,
        tensorboard=False,
        wandb="",
        parallel="ddp",
    )
    return replace(config, training=training, data=replace(config.data, root="", download=False))


def _card(
    name: str, weights: Path, runnable: Runnable, data: Data, training: dict[str, Any], bars: bool
) -> Card:
    images = len(data.test)
    chosen = torch.arange(images), sample(images)
    accuracy, accuracy_sample = accuracies(runnable, data, chosen, bars=bars)
    found = machine.facts(torch.device("cpu"))
    versions = {k: found["versions"][k] for k in _PACKAGES if found["versions"][k] is not None}
    return Card(
        name=name,
        summary=summary(name),
        sha256=catalog.sha256(weights),
        dataset=runnable.facts.config["data"]["name"],
        training_images=len(data.train),
        accuracy=accuracy,
        accuracy_sample=accuracy_sample,
        file_bytes=weights.stat().st_size,
        refused=runnable.refused,
        commit=_commit(),
        versions={"python": platform.python_version(), **versions},
        config=runnable.facts.config,
        **cost(runnable, data),
        **training,
    )


def sample(images: int) -> Tensor:
    """Indices of the test images that are left with ``data.test_limit = SAMPLE``."""
    return shuffled(images)[:SAMPLE]


def cost(runnable: Runnable, data: Data) -> dict[str, Any]:
    """The card's fields on bytes, bits and operations, counted from the network on the first test samples."""
    return dict(
        integer_bytes=None if runnable.refused else integer_bytes(runnable),
        **counted(runnable.model, data),
    )


def counted(model: nn.Module, data: Data) -> dict[str, Any]:
    """Bytes, bits and operations of any model, counted on the first test samples."""
    costs = report(model, data.sequence(data.test.samples[:COUNTED]))
    return dict(
        float32_bytes=costs.weight_bytes_stored,
        state_bits=costs.state_bits,
        state_bits_per_neuron=costs.state_bits_per_neuron,
        synaptic_operations=costs.synaptic_operations,
        streaming_synaptic_operations=costs.streaming_synaptic_operations,
        macs=costs.macs,
        energy_joules=costs.energy_joules,
        streaming_energy_joules=costs.streaming_energy_joules,
    )


def measure(name: str, data_root: str | None = None) -> Card:
    """Counts anew what a shipped network costs, and puts that on its card; its accuracy stays what it was.

    Args:
        name: of the network in the zoo.
        data_root: where the data set is now, if not where it was in training.

    Raises:
        ConfigError: the data set is not there.
        UnknownNetwork: the package has no such network.
    """
    path = catalog.path_of(name, CARD)
    values = json.loads(path.read_text())  # a card may lack what is counted here
    module, facts = packed.load(path.with_suffix(WEIGHTS))
    runnable = Runnable(Readout(module, facts.readout_steps).eval(), facts)
    checkpoint.write_json(path, values | cost(runnable, load_test(runnable, data_root)))
    card = cards.read(path)
    checkpoint.write_json(path, card.as_dict())  # again, in the order of a card's fields
    return card


def _published(config: Config) -> dict[str, Any]:
    """The config as it will be read from JSON, with lists for tuples, and without folders of this machine."""
    anywhere = replace(config, data=replace(config.data, root=DataConfig().root))
    settings: dict[str, Any] = json.loads(json.dumps(anywhere.as_dict()))
    return settings


def _training(config: Config, result: dict[str, Any], run: Path, by: str, where: str) -> dict[str, Any]:
    """A card's fields on how a run went."""
    return {
        "trained_on": where,
        "seconds": result["seconds_per_epoch"] * config.training.epochs,
        "epochs": config.training.epochs,
        "date": _date(run / RESULT),
        "by": by,
    }


def integer_bytes(runnable: Runnable) -> int:
    """Size of the file that the integer network is saved as."""
    return len(to_bytes(runnable.network.graph))


def _commit() -> str | None:
    """Of the code: other files, and networks shipped a moment ago, may have changed."""
    found = machine.commit(
        Path(__file__).parents[2], "mfp_neurons", "benchmarks/zoo", ":!mfp_neurons/zoo/networks"
    )
    return None if found is None else found["id"] + (" with changes" if found["dirty"] else "")


def _machine(device: torch.device) -> str:
    found = machine.facts(device)
    threads = f"CPU, {found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    return f"{found['device_name']} ({'GPU' if device.type == 'cuda' else threads})"


def _trained_on(run: Path, given: str | None) -> str:
    if given is not None:
        return given
    if not (run / MACHINE).is_file():
        raise ConfigError(f"{run} does not say on what machine it was trained: give --trained-on")
    where: str = json.loads((run / MACHINE).read_text())["trained_on"]
    return where


def _result(run: Path) -> dict[str, Any]:
    if not (run / RESULT).is_file():
        raise ConfigError(f"{run} holds no finished run: {RESULT} is missing; resume it first")
    result: dict[str, Any] = json.loads((run / RESULT).read_text())
    return result


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d")


@torch.no_grad()
def _check_equal(trained: nn.Module, restored: nn.Module, x_seq: Tensor) -> None:
    """What was packed has come out again: every parameter as it is used, and the scores of an input."""
    before, after = _used(trained), _used(restored)
    lost = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    if lost or not torch.equal(trained(x_seq), restored(x_seq)):
        raise RuntimeError(f"packing has changed the network: {', '.join(lost) or 'its scores'}")


def _used(module: nn.Module) -> dict[str, Tensor]:
    """The state dict, with weights and taps as they are after quantization."""
    kernels = packed.power_of_two_kernels(module).items()
    quantized = {f"{name}.taps": quantize_taps(kernel.taps, "pow2") for name, kernel in kernels}
    return {**materialize(module).state_dict(), **quantized}
