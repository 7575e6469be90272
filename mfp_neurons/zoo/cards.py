"""Model cards: how a network was trained, what it reaches and what it costs. JSON beside the weights."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfp_neurons.train.tables import markdown

SAMPLE = 1000  # test images, a fixed choice, on which a card gives the accuracy as well: a quick check


class CardError(ValueError):
    """A model card that cannot be read, or that does not belong to the weights beside it."""


class UnknownNetwork(ValueError):
    """A name that no shipped network has."""


class AccuracyMoved(ValueError):
    """A network no longer reaches what its card says."""


@dataclass(frozen=True)
class Accuracy:
    """Percent of test images answered rightly: in PyTorch (float32) and in integers (None: not lowered)."""

    images: int
    torch: float
    integer: float | None

    def __str__(self) -> str:
        integer = "" if self.integer is None else f", {self.integer:.2f} % in integers"
        return f"{self.torch:.2f} % in PyTorch{integer}"


@dataclass(frozen=True)
class Original:
    """The network that one of the zoo replaces: the same layers as the framework has them, trained alike.

    Float weights and the framework's own neurons; the same data, epochs, batches and augmentation. The
    learning rate was chosen by validation. What is not listed here is as on the card itself.

    Attributes:
        accuracy: percent of the whole test set, in PyTorch.
        config: the training config, which differs from the card's in the network, the learning rate and the
            read-out.
    """

    accuracy: float
    float32_bytes: int
    state_bits: int
    state_bits_per_neuron: float
    synaptic_operations: float
    streaming_synaptic_operations: float
    macs: float
    energy_joules: float
    streaming_energy_joules: float
    trained_on: str
    seconds: float
    epochs: int
    date: str
    by: str
    config: dict[str, Any]

    @property
    def neuron(self) -> str:
        """Class of its neurons, in the framework."""
        neuron = self.config["network"]["neuron"]
        if neuron["kind"] == "snntorch-leaky":
            return "snn.Leaky"
        return "ParametricLIFNode" if neuron["learnable"] else "LIFNode"

    def __str__(self) -> str:
        lines = [
            ("original", f"{self.neuron} and float weights, trained alike"),
            ("accuracy", f"{self.accuracy:.2f} % in PyTorch, on all test images"),
            ("weights", f"{self.float32_bytes:,} bytes in float32"),
            *_costs(self),
            *_training(self),
        ]
        return _lines(lines)


@dataclass(frozen=True)
class Card:
    """Everything that was measured of a shipped network, and everything needed to train it again.

    Attributes:
        name: in the zoo; ``summary`` says what it is.
        sha256: of the packed file, the weights that all this is about.
        dataset: name in the config; ``training_images`` of it were trained on, validation left out.
        accuracy: on the whole test set; ``accuracy_sample`` on a fixed choice of it.
        file_bytes: the packed file. ``integer_bytes``: the saved integer network, None if not lowered.
            ``float32_bytes``: the state dict of the float network.
        state_bits: what a device keeps between two steps, for one sample; ``state_bits_per_neuron`` the mean
            over neurons (:func:`mfp_neurons.report`).
        synaptic_operations: one for each spike through each synapse, one sample, all steps;
            ``streaming_synaptic_operations`` where only past spikes are kept; ``macs`` of real inputs.
        energy_joules: an estimate, priced by bits at 45 nm, for all steps at once;
            ``streaming_energy_joules`` step by step (:func:`mfp_neurons.report`).
        refused: why the network cannot be lowered to integers, None if it can.
        trained_on: the machine; ``seconds`` of training on it, evaluation left out, ``epochs``, ``date`` when
            it was done, ``by`` whom (empty: not said).
        commit: of the code that packed and measured the accuracy; ``versions`` of the packages that it used.
        config: the training config; its ``training.seed`` is the seed.
        original: the network that this one replaces. None: it was not trained.
    """

    name: str
    summary: str
    sha256: str
    dataset: str
    training_images: int
    accuracy: Accuracy
    accuracy_sample: Accuracy
    file_bytes: int
    integer_bytes: int | None
    float32_bytes: int
    state_bits: int
    state_bits_per_neuron: float
    synaptic_operations: float
    streaming_synaptic_operations: float
    macs: float
    energy_joules: float
    streaming_energy_joules: float
    refused: str | None
    trained_on: str
    seconds: float
    epochs: int
    date: str
    by: str
    commit: str | None
    versions: dict[str, str]
    config: dict[str, Any]
    original: Original | None = None

    @property
    def seed(self) -> int:
        seed: int = self.config["training"]["seed"]
        return seed

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)

    def expected(self, images: int) -> Accuracy | None:
        """What the card says of so many test images; None if it says nothing of them."""
        return next((a for a in (self.accuracy, self.accuracy_sample) if a.images == images), None)

    def __str__(self) -> str:
        all_, few = self.accuracy, self.accuracy_sample
        integers = (
            f"{self.integer_bytes:,} bytes saved" if self.refused is None else f"refused: {self.refused}"
        )
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            ("name", self.name),
            ("what", self.summary),
            ("data", f"{self.dataset}, {self.training_images:,} images for training"),
            ("accuracy", f"{all_}, on all {all_.images:,} test images"),
            *([] if few.images == all_.images else [("", f"{few}, on {few.images:,} of them")]),
            ("weights", f"{self.file_bytes:,} bytes packed; {self.float32_bytes:,} in float32"),
            ("integers", integers),
            *_costs(self),
            *_training(self),
            ("code", f"{self.commit or 'not from a checkout'}; {versions}"),
            ("sha256", self.sha256),
        ]
        beside = "" if self.original is None else f"\n\n{self.original}"
        return _lines(lines) + beside


def _costs(costs: "Card | Original") -> list[tuple[str, str]]:
    return [
        (
            "state",
            f"{costs.state_bits:,} bits between steps, {costs.state_bits_per_neuron:.3g} a neuron on average",
        ),
        (
            "operations",
            f"{costs.synaptic_operations:,.0f} synaptic operations and {costs.macs:,.0f} MACs a sample; "
            f"{costs.streaming_synaptic_operations:,.0f} synaptic operations when streaming",
        ),
        (
            "energy",
            f"{1e6 * costs.energy_joules:.3g} µJ a sample, {1e6 * costs.streaming_energy_joules:.3g} when "
            "streaming, an estimate (45 nm)",
        ),
    ]


def _training(run: "Card | Original") -> list[tuple[str, str]]:
    settings = run.config["training"]
    return [
        (
            "trained",
            f"{run.date}, {duration(run.seconds)}, {run.epochs} epochs, seed {settings['seed']}, "
            f"on {run.trained_on}" + (f", by {run.by}" if run.by else ""),
        )
    ]


def _lines(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<12}{value}" for name, value in lines)


def read(path: Path) -> Card:
    """The card in a JSON file.

    Raises:
        CardError: the file is no model card; a field is missing or unknown.
    """
    try:
        values = json.loads(path.read_text())
        parts = {name: Accuracy(**values[name]) for name in ("accuracy", "accuracy_sample")}
        original = values.get("original")
        return Card(**{**values, **parts, "original": None if original is None else Original(**original)})
    except json.JSONDecodeError as error:
        raise CardError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise CardError(f"{path}: model card: {error}") from error


def duration(seconds: float) -> str:
    """In the unit that fits: ``42 s``, ``7 min``, ``1.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_HEAD = (
    "network",
    "data",
    "test accuracy, PyTorch / integers, %",
    "bytes packed / float32",
    "state, bits a neuron",
    "synaptic operations",
    "energy estimate, µJ: at once / stream",
    "trained",
)


def table(shipped: Iterable[Card]) -> str:
    """One row a network, and under it one for the original, in Markdown."""
    return markdown(_HEAD, [row for card in shipped for row in _rows(card)])


def _rows(card: Card) -> list[tuple[str, ...]]:
    return [_row(card)] if card.original is None else [_row(card), _row_of_original(card.original)]


def _row_of_original(original: Original) -> tuple[str, ...]:
    return (
        f"its original, `{original.neuron}`",
        "",
        f"{original.accuracy:.2f}",
        f"{original.float32_bytes:,}",
        *_costs_in_cells(original),
    )


def _row(card: Card) -> tuple[str, ...]:
    integer = card.accuracy.integer
    return (
        f"`{card.name}`",
        card.dataset,
        f"{card.accuracy.torch:.2f} / " + ("not lowered" if integer is None else f"{integer:.2f}"),
        f"{card.file_bytes:,} / {card.float32_bytes:,}",
        *_costs_in_cells(card),
    )


def _costs_in_cells(costs: Card | Original) -> tuple[str, ...]:
    return (
        f"{costs.state_bits_per_neuron:.3g}",
        f"{costs.synaptic_operations:,.0f}",
        f"{1e6 * costs.energy_joules:.3g} / {1e6 * costs.streaming_energy_joules:.3g}",
        f"{duration(costs.seconds)}, {costs.trained_on}",
    )
