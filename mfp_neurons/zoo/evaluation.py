"""How many test images a network of the zoo answers rightly, in PyTorch and in integers."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mfp_neurons.train import data as data_module
from mfp_neurons.train.config import ConfigError, from_dict
from mfp_neurons.train.data import Data
from mfp_neurons.train.engine import bar, batches

from .cards import Accuracy, AccuracyMoved, Card
from .catalog import Runnable, Trained

BATCH = 250
TOLERANCE = 1.0  # points of accuracy that a network may be away from its card


def load_test(runnable: Runnable, root: str | None = None, images: int = 0) -> Data:
    """The test set of a network, or a fixed choice of ``images`` of it; of the training set next to nothing.

    Raises:
        ConfigError: the data set is not where it was looked for; ``root`` names another place.
    """
    settings = from_dict(runnable.facts.config).data
    # limit and validation of 1: training images are not needed, and reading them may take minutes
    # samples are divided by what training divided by, whatever the largest value in the data set is now
    wanted = replace(settings, root=root or settings.root, limit=1, validation=1, test_limit=images)
    return replace(data_module.load(wanted), scale=runnable.facts.scale)


def right_answers(runnable: Runnable, data: Data, execution: str, *, bars: bool = False) -> Tensor:
    """Whether each test image is answered rightly, bool [n].

    Args:
        runnable: the network.
        data: whose test split is asked.
        execution: "torch", the model in float32, or "integer".
        bars: whether to draw a progress bar.
    """

    def in_torch(samples: Tensor) -> Tensor:
        return runnable.model(data.sequence(samples)).argmax(1)

    def in_integers(samples: Tensor) -> Tensor:
        return torch.from_numpy(runnable.network.run(data.integer_input(samples)).argmax(1))

    answer = {"torch": in_torch, "integer": in_integers}[execution]
    right = []
    with torch.no_grad(), bar(len(data.test), execution, bars) as shown:
        for samples, labels in batches(data.test, BATCH):
            right.append(answer(samples) == labels)
            shown.update(len(labels))
    return torch.cat(right)


def accuracies(
    runnable: Runnable, data: Data, chosen: tuple[Tensor, ...], *, bars: bool = False
) -> list[Accuracy]:
    """Accuracy on each choice of test images, in PyTorch and, if it can be lowered, in integers."""
    of_torch = right_answers(runnable, data, "torch", bars=bars)
    of_integers = None if runnable.refused else right_answers(runnable, data, "integer", bars=bars)
    return [
        Accuracy(len(c), percent(of_torch[c]), None if of_integers is None else percent(of_integers[c]))
        for c in chosen
    ]


def percent(right: Tensor) -> float:
    """Of bool [n], how many are true."""
    return 100 * int(right.sum()) / len(right)


def evaluate(
    trained: Trained, images: int | None = None, *, root: str | None = None, bars: bool = False
) -> str:
    """Measures accuracy again and compares it with the card, where the card speaks of so many images.

    Args:
        trained: a network of the zoo.
        images: so many of the test images, always the same ones; None: all.
        root: the folder of the data set, if not where it was in training.

    Raises:
        AccuracyMoved: in PyTorch or in integers it is more than a point away from the card.
        ConfigError: the data set is not there, or ``images`` is below 1.
    """
    if images is not None and images < 1:
        raise ConfigError(f"images = {images} is not accepted: give 1 or more, or nothing for all")
    data = load_test(trained, root, images or 0)
    (measured,) = accuracies(trained, data, (torch.arange(len(data.test)),), bars=bars)
    expected = trained.card.expected(measured.images)
    if expected is None:
        known = sorted({trained.card.accuracy_sample.images, trained.card.accuracy.images})
        return f"{_text(measured)}\nnot compared: the card speaks of {' and '.join(map(str, known))} images"
    compare(trained.card, expected, measured)
    return f"{_text(measured)}\nthe card says {_text(expected)}"


def compare(card: Card, expected: Accuracy, measured: Accuracy) -> None:
    """Raises :class:`AccuracyMoved` where accuracies are more than :data:`TOLERANCE` points apart."""
    for kind in ("torch", "integer"):
        said, now = getattr(expected, kind), getattr(measured, kind)
        one_is_missing = (said is None) != (now is None)
        if one_is_missing or (said is not None and abs(said - now) > TOLERANCE):
            raise AccuracyMoved(
                f"{card.name}: accuracy ({kind}) on {measured.images:,} test images is {_number(now)}, "
                f"the card says {_number(said)}"
            )


def _text(accuracy: Accuracy) -> str:
    return (
        f"{_number(accuracy.torch)} in PyTorch, {_number(accuracy.integer)} in integers, "
        f"on {accuracy.images:,} test images"
    )


def _number(percent: Any) -> str:
    return "none (not lowered)" if percent is None else f"{percent:.2f} %"
