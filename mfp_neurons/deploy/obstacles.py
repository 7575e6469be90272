"""All that keeps a model from becoming an integer network, at once, before it is trained for that."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from .._undisturbed import deep_copy
from ..history import KernelBits, check_kernel_bits
from ..network import NetworkError
from ..network.capture import named
from ..network.describing import Attempt, attempt, check_model, check_steps, takes_single_steps
from ..quantize import quantize_weights
from ..quantize.selection import reasons_against
from .errors import InvalidNetworkError, LoweringError
from .folding import Levels
from .integer_network import IntegerNetwork
from .lowering import Channels, levels_of, lower_rounded, real_weights, refusals_of
from .rounding import rounded

_BITS = 4  # of the weights with which a model is checked whose own are real; any others give the same layers
# which quantize_weights may do, and lower may not
_SKIP = re.compile("[;,] (?:or )?name (?:it|that) in skip")
_REAL = "has weights that are real numbers, where integer hardware has codes of 1 to 8 bits"


@dataclass(frozen=True)
class Obstacle:
    """One thing that keeps a model from being lowered.

    Attributes:
        where: the module: its path and its type.
        reason: what it does.
        advice: what to do instead.
    """

    where: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where} {self.reason}." + (f" {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Check:
    """What :func:`mfp_neurons.deploy.check` finds. ``print`` shows one obstacle a line.

    Attributes:
        obstacles: in the order in which the model comes to them; none of a model that can be lowered.
        is_complete: whether the model was read to its end. What stands behind an obstacle that changes the
            shape of a tensor can be checked only once that is gone.
    """

    obstacles: tuple[Obstacle, ...]
    is_complete: bool

    @property
    def ok(self) -> bool:
        """Whether ``deploy.lower`` takes the model, with the same arguments."""
        return not self.obstacles

    def __str__(self) -> str:
        if self.ok:
            return "the model can be lowered"
        count = len(self.obstacles)
        lines = ["1 obstacle" if count == 1 else f"{count} obstacles", *map(str, self.obstacles)]
        if not self.is_complete:
            lines.append("what comes behind the last of them could not be read yet")
        return "\n".join(lines)


def check(
    model: nn.Module,
    example: Tensor,
    *,
    levels: int | None = None,
    kernel_bits: KernelBits = None,
    steps: int | None = None,
    mean: Channels = 0.0,
    std: Channels = 1.0,
) -> Check:
    r"""All obstacles between a model and an integer network, where :func:`lower` says the first alone.

    Weights need not be quantized and nothing needs to be trained: it tells what to change before that. A
    layer that is refused is taken for one that does nothing, or for a neuron, and the rest is checked behind
    it. The model is left as it is.

    Args:
        model, example, levels, kernel_bits, steps, mean, std: as of :func:`lower`.

    Returns:
        :class:`Check`; its ``ok`` says whether :func:`lower` takes the model.

    Raises:
        TypeError, ValueError: as :func:`lower`, of arguments that no model could have.

    >>> import torch
    >>> from mfp_neurons import MFP
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), MFP(0.9), nn.Linear(16, 4))
    >>> result = check(net, torch.rand(5, 1, 8))
    >>> result.ok, len(result.obstacles)
    (False, 4)
    >>> result.obstacles[2].where, result.obstacles[2].advice[:42]
    ("'1' (LayerNorm)", 'It normalizes with statistics of its input')
    """
    check_kernel_bits(kernel_bits)
    check_steps(steps)
    model, inputs = check_model(model), levels_of(example, levels, mean, std)
    advice = "quantize_weights(model, bits=1) quantizes them; train the model with that"
    against = reasons_against(model, _BITS)
    obstacles = [
        Obstacle(
            named(path, model.get_submodule(path)),
            f"cannot be quantized: {_SKIP.split(against[path])[0]}",
            "",
        )
        if path in against
        else Obstacle(named(path, model.get_submodule(path)), _REAL, advice)
        for path in real_weights(model)
    ]
    quantized = quantize_weights(deep_copy(model), _BITS, skip=list(against)) if obstacles else model
    attempts = attempt(
        quantized,
        example,
        is_binary=inputs.are_spikes,
        follow_loops=takes_single_steps(model),
        steps=steps,
    )
    # what a reading refuses leaves stand-ins of shapes that only the right reading is sure to follow
    clean = [one for one in attempts if one.is_complete and not one.refusals]
    attempts = clean or attempts
    read = [_with_refusals(one, inputs, kernel_bits) for one in attempts]
    refusals: list[Exception]
    furthest = max(one.handled for one in attempts)
    best, refusals = max(
        read,
        key=lambda one: (
            one[0].fits or one[0].handled == furthest,
            one[0].is_complete,
            *_progress(*one),
        ),
    )
    if not refusals:
        try:  # what a second number of steps shows, and what needs too many bits
            IntegerNetwork(lower_rounded(quantized, example, levels, kernel_bits, steps, mean, std)[0])
        except (NetworkError, InvalidNetworkError) as error:
            refusals = [error]
    said = {one.where for one in obstacles if one.reason != _REAL}
    obstacles += (one for one in _told_apart(model, refusals) if one.where not in said)
    return Check(tuple(obstacles), best.is_complete)


def _progress(one: Attempt, refusals: list[Exception]) -> tuple[int, int]:
    """What makes a reading the better one: few refusals, if both came to the end, else how far it came."""
    fewest = -len(refusals)
    return (fewest, one.handled) if one.is_complete else (one.handled, fewest)


def _with_refusals(one: Attempt, inputs: Levels, kernel_bits: KernelBits) -> tuple[Attempt, list[Exception]]:
    """A reading, and all that reading and folding refuse."""
    network = one.network if kernel_bits is None else rounded(one.network, kernel_bits)[0]
    try:
        return one, [*one.refusals, *refusals_of(network, inputs)]
    except LoweringError as error:  # the input itself: its means have no place in this reading
        return replace(one, fits=False), [*one.refusals, error]


def _told_apart(model: nn.Module, refusals: Iterable[Exception]) -> list[Obstacle]:
    """Messages as modules, reasons and advice; what a loop repeats at every step stands there once."""
    paths = dict(model.named_modules())
    obstacles = []
    for text in dict.fromkeys(map(str, refusals)):
        # A message begins with its module, whose type is another once its weights are quantized.
        path = next((path for path in paths if path and text.startswith(f"{path!r} (")), "")
        start = text.index(")") + 1 if path or text.startswith("the model (") else 0
        reason, _, advice = text[start:].strip().partition(". ")
        obstacles.append(Obstacle(named(path, paths[path]), reason.rstrip("."), advice))
    return obstacles
