"""The training loop of the examples: ``fit`` trains any model in place, ``accuracy`` tests it.

Runs from a config, with validation, checkpoints and resuming, are
:class:`mfp_neurons.train.engine.Trainer`'s.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mfp_neurons._checks import check_int
from mfp_neurons._undisturbed import reset
from mfp_neurons.train.data import Data, Split
from mfp_neurons.train.engine import bar, batches, schedule

WARMUP = 0.1  # share of all steps in which the learning rate rises to its peak


def classification_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of scores [N, classes], or of the mean over time of scores [T, N, classes]."""
    return nn.functional.cross_entropy(_over_time(scores), labels)


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    loss: Callable[[Tensor, Tensor], Tensor] = classification_loss,
    bars: bool = True,
) -> nn.Module:
    r"""Trains a model on ``data.train``: Adam, a learning rate that rises to its peak and falls by a cosine.

    The states of SpikingJelly's and snnTorch's neurons are reset before each batch.

    Args:
        model: maps a sequence, float32 [T, N, \*], to scores [N, classes] or [T, N, classes]; trained in
            place, on the device where its parameters are.
        data: a data set as ``train.data.load`` gives it.
        epochs: passes over the training samples, in an order drawn from torch's random generator.
        batch_size: samples of a step.
        learning_rate: the peak.
        loss: of what the model returns and of labels [N].
        bars: whether to draw a progress bar for each epoch on standard error.

    Returns:
        The model, in eval mode.

    Raises:
        TypeError, ValueError: epochs or batch_size is no integer of 1 or more; the model has no parameters.
        FloatingPointError: the loss is not a number, or infinite.

    >>> from mfp_neurons import MFP
    >>> from mfp_neurons.train import data
    >>> from mfp_neurons.train.config import DataConfig
    >>> digits = data.load(DataConfig("digits"))  # handwritten digits, a row of 8 pixels a step
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(8, 64), MFP(order=8, v_threshold=0.5), nn.Linear(64, 10))
    >>> accuracy(fit(net, digits, epochs=5, learning_rate=0.02, bars=False), digits) > 60  # percent
    True
    """
    check_int("epochs", epochs, 1)
    check_int("batch_size", batch_size, 1)
    device = _device(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps = -(-len(data.train) // batch_size)
    model.train()
    for epoch in range(epochs):
        with bar(steps, f"epoch {epoch + 1}/{epochs}", bars) as shown:
            for step, picked in enumerate(torch.randperm(len(data.train)).split(batch_size)):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * schedule((epoch + step / steps) / epochs, WARMUP)
                _forget(model)
                scores = model(data.sequence(data.train.samples[picked]).to(device))
                value = loss(scores, data.train.labels[picked].to(device))
                if not value.isfinite():
                    raise FloatingPointError(
                        f"the loss is {value.item()} in epoch {epoch + 1}, step {step + 1}: "
                        f"try a learning_rate below {learning_rate:g}"
                    )
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                shown.set_postfix(loss=f"{value.item():.3f}", refresh=False)
                shown.update()
    _forget(model)
    return model.eval()


@torch.no_grad()
def accuracy(
    model: nn.Module,
    data: Data,
    split: Split | None = None,
    *,
    images: int | None = None,
    batch_size: int = 250,
) -> float:
    """Percent of samples whose label gets the highest score, averaged over time where it is one a step.

    Args:
        model: as for :func:`fit`; put into eval mode.
        data: the data set that says how samples become sequences.
        split: which samples; None is ``data.test``.
        images: only the first so many of them; None is all.
        batch_size: samples at a time.

    Raises:
        TypeError, ValueError: images or batch_size is no integer of 1 or more; the model has no parameters.
    """
    split = data.test if split is None else split
    if images is not None:
        check_int("images", images, 1)
        split = Split(split.samples[:images], split.labels[:images])
    check_int("batch_size", batch_size, 1)
    device = _device(model)
    model.eval()
    right = 0
    for samples, labels in batches(split, batch_size):
        _forget(model)
        scores = _over_time(model(data.sequence(samples).to(device)))
        right += int((scores.argmax(1).cpu() == labels.cpu()).sum())
    _forget(model)
    return 100 * right / len(split)


def _over_time(scores: Tensor) -> Tensor:
    return scores.mean(0) if scores.dim() == 3 else scores


def _forget(model: nn.Module) -> None:
    for module in model.modules():
        reset(module)


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise ValueError("model must have parameters to train, got none")
    return parameter.device
