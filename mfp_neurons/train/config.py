"""What a training run is: typed settings, read from TOML, each value checked before anything starts."""

import copy
import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "NetworkConfig",
    "NeuronConfig",
    "ReadoutConfig",
    "TrainingConfig",
    "from_dict",
    "load",
    "parse_override",
    "shipped",
]

# kinds of neurons that keep a potential and reset it
POTENTIALS = ("lif", "spikingjelly-lif", "snntorch-leaky")
BLOCKS = "blocks"  # the architecture that is made of channels and hidden


class ConfigError(ValueError):
    """A setting that cannot be used: the message names the key, the value and what is accepted."""


@dataclass(frozen=True)
class Rule:
    """One sentence saying what is accepted, and the test that decides."""

    accepts: str
    test: Callable[[Any], bool]

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(f"{self.accepts}, or {other.accepts}", lambda v: self.test(v) or other.test(v))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def integer(least: int, most: int | None = None) -> Rule:
    words = f"an integer of {least} or more" if most is None else f"an integer from {least} to {most}"
    return Rule(words, lambda v: _is_int(v) and v >= least and (most is None or v <= most))


def number(least: float, below: float | None = None, *, inclusive: bool = True) -> Rule:
    words = f"a number {'>=' if inclusive else '>'} {least}"
    words += "" if below is None else f" and below {below}"

    def test(value: Any) -> bool:
        if not (_is_int(value) or isinstance(value, float)):
            return False
        return (value >= least if inclusive else value > least) and (below is None or value < below)

    return Rule(words, test)


def choice(*names: Any) -> Rule:
    # type() as well: True == 1 in Python, and neither means the other here
    return Rule(
        "one of " + ", ".join(repr(n) for n in names),
        lambda v: any(type(v) is type(n) and v == n for n in names),
    )


def list_of(rule: Rule) -> Rule:
    return Rule(
        f"a list, each item {rule.accepts}",
        lambda v: isinstance(v, tuple) and len(v) > 0 and all(rule.test(x) for x in v),
    )


def per_layer(rule: Rule) -> Rule:
    return Rule(
        f"{rule.accepts} (or a list of them, one a hidden layer)",
        lambda v: list_of(rule).test(v) or rule.test(v),
    )


text = Rule("a string", lambda v: isinstance(v, str))
boolean = Rule("true or false", lambda v: isinstance(v, bool))
table = Rule("a table", lambda v: isinstance(v, dict))


def option(default: Any, rule: Rule) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"rule": rule})
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class DataConfig:
    """Which data, and how a sample becomes a sequence over time.

    ``name`` is one of those in docs/data.md: ``digits``, ``fashion-mnist``, ``fashion-mnist-rows``,
    ``fashion-mnist-events`` (a simulated event camera), ``tiny-imagenet``, ``spoken-digits``,
    ``smartwatch``, ``japanese-vowels``, or ``torchvision:CLASS``, ``spikingjelly:CLASS``, ``tonic:CLASS``;
    ``options`` are keyword arguments of such a class, or of the last three of these. ``reading``
    says how a sample becomes a sequence: its ``rows`` one a step, the same sample at every one of
    ``time_steps`` (``repeat``), or its own first axis (``frames``: of events, ``time_steps`` of them); empty
    is the data set's default. ``size`` makes images and frames that high and wide.
    """

    name: str = option("digits", text)
    root: str = option("data", text)
    reading: str = option("", choice("", "rows", "repeat", "frames"))
    time_steps: int = option(4, integer(1))
    size: int = option(0, integer(0))  # pixels along a side; 0: as they come
    validation: int = option(0, integer(0))  # samples held out of the training split; 0: a tenth
    limit: int = option(0, integer(0))  # training samples used; 0: all
    test_limit: int = option(0, integer(0))  # test samples used; 0: all
    download: bool = option(False, boolean)
    options: dict[str, Any] = option({}, table)


@dataclass(frozen=True)
class NeuronConfig:
    """The hidden neurons; each value may be a list, one item a hidden layer.

    ``kind`` "lif" resets and stores its potential in ``potential_bits`` (32: a float); "exp", "fir" and
    "matrix" are the memory-free kernels, which see the last ``order`` inputs (0: all of them); "sliding-psn"
    is SpikingJelly's SlidingPSN of that order, which learns a threshold and one set of taps a layer. "exp"
    and "fir" also see their own last ``feedback`` spikes, through as many learned taps.

    "spikingjelly-lif" and "snntorch-leaky" are the frameworks' own neurons, with one decay a layer and a
    float potential: LIFNode, or ParametricLIFNode if ``learnable``, with tau = 1 / (1 - decay), and snn.Leaky
    with beta = decay.
    """

    kind: Any = option("fir", per_layer(choice(*POTENTIALS, "exp", "fir", "matrix", "sliding-psn")))
    decay: Any = option(0.5, per_layer(number(0.0, 1.0, inclusive=True)))
    order: Any = option(0, per_layer(integer(0)))
    stride: Any = option(1, per_layer(integer(1)))  # steps from one of the taps to the next
    kernel_bits: Any = option(0, per_layer(choice(0, "pow2") | integer(2, 8)))  # 0: real taps
    potential_bits: Any = option(32, per_layer(integer(1, 8) | choice(32)))
    feedback: Any = option(0, per_layer(integer(0)))  # own last spikes that count; 0: none
    reset: Any = option("subtract", per_layer(choice("subtract", "zero")))  # of a potential
    detach_reset: Any = option(True, per_layer(boolean))  # no gradient through the reset, or the feedback
    learnable: Any = option(True, per_layer(boolean))
    per_channel: Any = option(True, per_layer(boolean))
    groups: Any = option(0, per_layer(integer(0)))  # of channels that share parameters; 0: one a channel
    threshold: Any = option(1.0, per_layer(number(0.0, inclusive=False)))
    surrogate_alpha: Any = option(2.0, per_layer(number(0.0, inclusive=False)))

    def layer(self, index: int) -> "NeuronConfig":
        """The settings of one hidden layer, every one of them a single value."""
        values = vars(self).items()
        return NeuronConfig(**{k: v[index] if isinstance(v, tuple) else v for k, v in values})

    def lists(self) -> dict[str, tuple[Any, ...]]:
        """The settings that are lists, by name."""
        return {k: v for k, v in vars(self).items() if isinstance(v, tuple)}

    def check_lists(self, layers: int, of: str) -> None:
        """Raises ConfigError unless every list has one item for each of so many layers."""
        for name, values in self.lists().items():
            if len(values) != layers:
                raise ConfigError(
                    f"network.neuron.{name} = {values!r} has {len(values)} items: give one value, or one for "
                    f"each of the {layers} {of}"
                )


@dataclass(frozen=True)
class NetworkConfig:
    """The network: its ``architecture`` is "blocks", or a name or "module:function" as in ``architectures``.

    "blocks" are synapse, batch norm and neuron, then a linear read-out at every step: ``channels`` (3 x 3
    convolutions, a 2 x 2 max pool behind each) come before ``hidden`` (linear layers). Another architecture
    takes keyword arguments of its own, in ``options``, in their place. ``weight_bits`` 32 leaves weights
    real; otherwise the first and last layer have ``first_bits`` and ``last_bits`` (32: real).
    """

    architecture: str = option(BLOCKS, text)
    options: dict[str, Any] = option({}, table)
    channels: tuple[int, ...] = option((), list_of(integer(1)) | Rule("an empty list", lambda v: v == ()))
    hidden: tuple[int, ...] = option((64, 64, 64), list_of(integer(1)))
    time_pool: Any = option(1, per_layer(integer(1)))  # steps that become one in front of each hidden layer
    weight_bits: float = option(1, choice(1, 1.58, 32) | integer(2, 8))
    first_bits: int = option(8, integer(1, 8) | choice(32))
    last_bits: int = option(8, integer(1, 8) | choice(32))
    neuron: NeuronConfig = field(default_factory=NeuronConfig)


@dataclass(frozen=True)
class ReadoutConfig:
    """Scores are averaged over the last steps: ``train`` of them in the loss (0: all).

    ``candidates`` are tried on the validation split after every epoch and the best is kept; an entry above
    T counts as T.
    """

    train: int = option(1, integer(0))
    candidates: tuple[int, ...] = option((1, 2, 4, 8, 14, 28), list_of(integer(1)))


@dataclass(frozen=True)
class TrainingConfig:
    """The optimization: AdamW, a linear warm-up and a cosine down to zero.

    ``loss`` "mse" is the squared distance of the scores from one-hot labels, for networks whose scores are
    firing rates. ``shift`` and ``flip`` show each training image moved by up to that many pixels in both
    directions, and mirrored every other time.

    With ``fit_orders_bits`` the orders are found on the way: after ``fit_orders_epoch`` epochs every layer
    gets one (:func:`mfp_neurons.fit_orders`, by its taps or by the loss on some training samples), so that a
    neuron keeps that many bits between steps, in the mean; ``late_tap_penalty`` times
    :func:`mfp_neurons.late_taps` is added to the loss until then.

    In the first ``float_epochs`` epochs quantized layers compute with float weights; the best network is one
    of a later epoch. In the first ``short_epochs`` training shows an image at one step, validation at all.

    Under ``torchrun``, ``batch_size`` is the batch of all processes together, and ``parallel`` says what each
    keeps: the whole network ("ddp"), or its part of the parameters ("fsdp").
    """

    epochs: int = option(5, integer(1))
    batch_size: int = option(128, integer(1))
    learning_rate: float = option(2e-3, number(0.0, inclusive=False))
    weight_decay: float = option(0.0, number(0.0))
    loss: str = option("cross-entropy", choice("cross-entropy", "mse"))
    shift: int = option(0, integer(0))
    flip: bool = option(False, boolean)
    warmup: float = option(0.05, number(0.0, 1.0))  # share of all steps
    clip: float = option(0.0, number(0.0))  # largest gradient norm; 0: no clipping
    fit_orders_bits: float = option(0.0, number(0.0))  # 0: orders stay as the neurons have them
    fit_orders_epoch: int = option(1, integer(0))
    fit_orders_by: str = option("taps", choice("taps", "loss"))
    late_tap_penalty: float = option(0.0, number(0.0))
    float_epochs: int = option(0, integer(0))
    short_epochs: int = option(0, integer(0))
    seed: int = option(0, integer(0))
    device: str = option("auto", text)
    threads: int = option(0, integer(0))  # CPU threads of PyTorch; 0: as they are
    amp: str = option("off", choice("off", "bfloat16", "float16"))
    compile: str = option("off", choice("off", "default", "reduce-overhead", "max-autotune"))
    checkpoint_steps: int = option(0, integer(0))  # optimizer steps between checkpoints; 0: one an epoch
    parallel: str = option("ddp", choice("ddp", "fsdp"))
    tensorboard: bool = option(False, boolean)
    wandb: str = option("", text)  # project of Weights & Biases; empty: not used


@dataclass(frozen=True)
class Config:
    """Everything a run depends on; two runs of equal configs on one CPU end with equal weights."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_dict(settings: Mapping[str, Any]) -> Config:
    """A checked :class:`Config` from nested tables.

    Raises:
        ConfigError: an unknown key or a value that is not accepted; the message names both.

    >>> from_dict({"training": {"epochs": 0}})
    Traceback (most recent call last):
    ...
    mfp_neurons.train.config.ConfigError: training.epochs = 0 is not accepted: give an integer of 1 or more
    """
    config: Config = _build(Config, settings, "")
    if config.network.architecture == BLOCKS:
        _check_layers(config.network)
    else:
        _check_no_blocks(config.network)
    _check_orders(config.training)
    _check_float_epochs(config.training)
    return config


def load(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """A config shipped with the package, by name, or a TOML file, by path; ``overrides`` are dotted keys."""
    settings = read_toml(name_or_path)
    for key, value in (overrides or {}).items():
        assign(settings, key, copy.deepcopy(value))  # a later key may write into this table
    return from_dict(settings)


def shipped() -> list[str]:
    """Names of the configs that come with the package."""
    folder = resources.files("mfp_neurons.train") / "configs"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def read_toml(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix == ".toml" or path.exists():
        if path.is_dir():
            raise ConfigError(
                f"config {name_or_path!r} is a folder: give a TOML file, or the name of a shipped config"
            )
        if not path.is_file():
            raise ConfigError(f"config {name_or_path!r}: no such file")
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"config {name_or_path!r} is not valid TOML, which is UTF-8: {error}") from None
    elif name_or_path in shipped():
        source = (resources.files("mfp_neurons.train") / "configs" / f"{name_or_path}.toml").read_text()
    else:
        raise ConfigError(
            f"config {name_or_path!r} is neither a file nor a shipped config; shipped: {', '.join(shipped())}"
        )
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config {name_or_path!r} is not valid TOML: {error}") from None


def parse_override(argument: str) -> tuple[str, Any]:
    """``"training.epochs=3"`` as ``("training.epochs", 3)``; a bare word is a string."""
    key, equals, value = argument.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {argument!r}: give KEY=VALUE, for example training.epochs=3")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def assign(settings: dict[str, Any], key: str, value: Any) -> None:
    """Sets one dotted key in nested tables, making tables on the way."""
    *parents, last = key.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a table")
    settings[last] = value


def _build(cls: Any, settings: Any, path: str) -> Any:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{path.rstrip('.')} = {settings!r} is not accepted: give a table")
    # all keys are checked before any value: a misspelled one is the likelier mistake
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in settings:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            meant = f" (did you mean {path}{near[0]}?)" if near else ""
            raise ConfigError(f"{path}{key} is not a setting{meant}; accepted here: {', '.join(fields)}")
    return cls(**{k: _value(fields[k], v, path + k) for k, v in settings.items()})


def _value(spec: "dataclasses.Field[Any]", value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(spec.type):
        return _build(spec.type, value, key + ".")
    value = tuple(value) if isinstance(value, list) else value  # a config is frozen, down to its lists
    rule: Rule = spec.metadata["rule"]
    if not rule.test(value):
        raise ConfigError(f"{key} = {value!r} is not accepted: give {rule.accepts}")
    return value


def _check_orders(training: TrainingConfig) -> None:
    if training.fit_orders_bits and training.fit_orders_epoch >= training.epochs:
        raise ConfigError(
            f"training.fit_orders_epoch = {training.fit_orders_epoch} leaves none of the {training.epochs} "
            "epochs to train with the orders that are found: give fewer"
        )


def _check_float_epochs(training: TrainingConfig) -> None:
    if training.float_epochs >= training.epochs:
        raise ConfigError(
            f"training.float_epochs = {training.float_epochs} leaves none of the {training.epochs} epochs to "
            "train the quantized weights: give fewer"
        )


def _check_no_blocks(network: NetworkConfig) -> None:
    """The settings of "blocks" mean nothing to another architecture, which alone knows its layers."""
    for name in ("channels", "hidden", "time_pool"):
        value, default = getattr(network, name), getattr(NetworkConfig(), name)
        if value != default:
            raise ConfigError(
                f"network.{name} = {value!r} is a setting of architecture {BLOCKS!r}; what "
                f"{network.architecture!r} takes goes into network.options"
            )


def _check_layers(network: NetworkConfig) -> None:
    layers = len(network.channels) + len(network.hidden)
    network.neuron.check_lists(layers, "hidden layers")
    for index in range(layers):
        check_neuron(network.neuron.layer(index), index)


def check_neuron(neuron: NeuronConfig, index: int) -> None:
    """Raises ConfigError if settings of one layer, each accepted by itself, contradict one another."""
    where = f"in hidden layer {index}"
    if neuron.stride > 1 and neuron.kind not in ("exp", "fir"):
        raise ConfigError(
            f"network.neuron.stride = {neuron.stride!r} {where}: a {neuron.kind!r} neuron has no taps to set "
            "apart; give 1, or kind = 'fir' or 'exp'"
        )
    if neuron.feedback and neuron.kind not in ("exp", "fir"):
        raise ConfigError(
            f"network.neuron.feedback = {neuron.feedback!r} {where}: only kind = 'exp' or 'fir' has taps for "
            f"its own spikes, not {neuron.kind!r}; give 0"
        )
    if neuron.groups and not (neuron.per_channel and neuron.kind in ("exp", "fir")):
        raise ConfigError(
            f"network.neuron.groups = {neuron.groups!r} {where}: groups of channels share the parameters of "
            f"kind = 'exp' or 'fir' with per_channel = true, not of {neuron.kind!r} with per_channel = "
            f"{str(neuron.per_channel).lower()}; give 0"
        )
    if neuron.kind in POTENTIALS and (neuron.order or neuron.kernel_bits):
        raise ConfigError(
            f"network.neuron.order = {neuron.order!r}, kernel_bits = {neuron.kernel_bits!r} {where}: "
            f"a {neuron.kind!r} neuron keeps its potential and has neither; give 0 and 0"
        )
    if neuron.kind == "snntorch-leaky" and not neuron.detach_reset:
        raise ConfigError(
            f"network.neuron.detach_reset = {neuron.detach_reset!r} {where}: snn.Leaky has no gradient "
            "through its reset; give true"
        )
    if neuron.kind == "lif":
        return
    if neuron.kind == "sliding-psn" and neuron.kernel_bits:
        raise ConfigError(
            f"network.neuron.kernel_bits = {neuron.kernel_bits!r} {where}: a 'sliding-psn' neuron has real "
            "taps; give 0"
        )
    if neuron.potential_bits != 32:
        raise ConfigError(
            f"network.neuron.potential_bits = {neuron.potential_bits!r} {where}: a {neuron.kind!r} neuron "
            "stores no potential of few bits; give 32, or kind = 'lif'"
        )
