"""What a network of the zoo reaches on its test set, in PyTorch and in integers, and what it costs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mfp_neurons import report
from mfp_neurons.deploy.file import to_bytes
from mfp_neurons.train import data as data_module
from mfp_neurons.train.config import ConfigError, from_dict
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import bar

from .cards import FIRST, Accuracy, AccuracyMoved, Card
from .catalog import Trained
from .runnable import Runnable

BATCH = 250
COUNTED = 100  # test samples on which operations are counted
TOLERANCE = 1.0  # points of accuracy that a network may be away from its card


def load_test(trained: Runnable, root: str | None = None) -> Data:
    """The test set that a network was measured on, and next to nothing of the training set.

    Raises:
        ConfigError: the data set is not where it was looked for; ``root`` names another place.
    """
    settings = from_dict(trained.facts.config).data
    found = data_module.load(replace(settings, root=root or settings.root, limit=1, validation=1))
    return replace(found, scale=trained.facts.scale)


def accuracies(
    trained: Runnable, data: Data, images: tuple[int, ...], *, bars: bool = False
) -> list[Accuracy]:
    """Accuracy on the first so many test images, for each number; None in integers if it can't be lowered."""
    most = max(images)

    def in_torch(samples: Tensor) -> Tensor:
        return trained.model(data.sequence(samples)).argmax(1)

    def in_integers(samples: Tensor) -> Tensor:
        sequence = data.sequence(samples)
        given = sequence[0] if data.reading == "repeat" else sequence  # a still image is given once
        return torch.from_numpy(trained.network.run(given).argmax(1))

    torch_right = _right(in_torch, data, most, "PyTorch", bars)
    integer_right = None if trained.refused else _right(in_integers, data, most, "integers", bars)
    return [
        Accuracy(n, _percent(torch_right[:n]), None if integer_right is None else _percent(integer_right[:n]))
        for n in images
    ]


def counted(data: Data) -> tuple[int, ...]:
    """The numbers of test images that a card speaks of: all of them, and the first."""
    return len(data.test), min(FIRST, len(data.test))


@torch.no_grad()
def _right(answer: Callable[[Tensor], Tensor], data: Data, images: int, name: str, bars: bool) -> Tensor:
    """Whether each of the first test images is answered rightly, bool [images]."""
    found = []
    with bar(images, name, bars) as shown:
        for start in range(0, images, BATCH):
            stop = min(start + BATCH, images)
            found.append(answer(data.test.samples[start:stop]) == data.test.labels[start:stop])
            shown.update(stop - start)
    return torch.cat(found)


def _percent(right: Tensor) -> float:
    return 100 * int(right.sum()) / len(right)


def cost(trained: Runnable, data: Data) -> dict[str, Any]:
    """The card's fields on bytes, bits and operations, counted from the network on the first test samples."""
    found = report(trained.model, data.sequence(data.test.samples[:COUNTED]))
    return dict(
        integer_bytes=None if trained.refused else len(to_bytes(trained.network.graph)),
        float32_bytes=sum(t.numel() * t.element_size() for t in trained.model.state_dict().values()),
        state_bits=found.state_bits,
        state_bits_per_neuron=found.state_bits_per_neuron,
        synaptic_operations=found.synaptic_operations,
        streaming_synaptic_operations=found.streaming_synaptic_operations,
        macs=found.macs,
        energy_joules=found.energy_joules,
    )


def evaluate(
    trained: Trained, images: int | None = None, *, root: str | None = None, bars: bool = False
) -> str:
    """Measures accuracy again and compares it with the card, where the card speaks of so many images.

    Args:
        trained: a network of the zoo.
        images: how many test images, from the first; None: all.
        root: the folder of the data set, if not where it was in training.

    Raises:
        AccuracyMoved: in PyTorch or in integers it is more than a point away from the card.
        ConfigError: the data set is not there, or ``images`` is below 1.
    """
    if images is not None and images < 1:
        raise ConfigError(f"images = {images} is not accepted: give 1 or more, or nothing for all")
    data = load_test(trained, root)
    count = min(images or len(data.test), len(data.test))
    (found,) = accuracies(trained, data, (count,), bars=bars)
    expected = trained.card.expected(count)
    if expected is None:
        known = sorted({trained.card.accuracy_first.images, trained.card.accuracy.images})
        return f"{_text(found)}\nnot compared: the card speaks of {' and '.join(map(str, known))} images"
    compare(trained.card, expected, found)
    return f"{_text(found)}\nthe card says {_text(expected)}"


def compare(card: Card, expected: Accuracy, found: Accuracy) -> None:
    """Raises :class:`AccuracyMoved` where accuracies are more than :data:`TOLERANCE` points apart."""
    for kind in ("torch", "integer"):
        said, measured = getattr(expected, kind), getattr(found, kind)
        gone = (said is None) != (measured is None)
        if gone or (said is not None and abs(said - measured) > TOLERANCE):
            raise AccuracyMoved(
                f"{card.name}: accuracy ({kind}) on {found.images:,} test images is {_number(measured)}, "
                f"the card says {_number(said)}"
            )


def _text(accuracy: Accuracy) -> str:
    return (
        f"{_number(accuracy.torch)} in PyTorch, {_number(accuracy.integer)} in integers, "
        f"on {accuracy.images:,} test images"
    )


def _number(percent: Any) -> str:
    return "none (not lowered)" if percent is None else f"{percent:.2f} %"
