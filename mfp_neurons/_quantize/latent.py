r"""Float weights that quantize to given codes and scales, bit for bit, on every machine.

A quantized layer computes its scale from its float weights: the mean of their sizes (1 and 1.58 bits), or a
learned step times such a mean (2 to 8 bits). ``codes * scale`` would nearly do for weights, but the mean of
many equal floats is rounded, and in which order they are added is the machine's choice. So every weight is a
multiple of one power of two q, with sizes that add up to less than 2^24 q: whatever the order, no sum is
rounded. What is left free is the total: sum |w| = S, shared out evenly, so each |w| is within q of the scale.

- 1 and 1.58 bits: with n non-zero codes, S is the float nearest to n * scale. The scale came from a division
  by n of some float, which was no nearer, so S / n rounds to the scale as well.
- 2 to 8 bits: |w| is |code| * scale to within q, and the step is the float that brings the mean to the scale.
  Where rounding lets none do that, all weights are made a little larger, and the mean is another.
"""

from typing import Protocol

import torch
from torch import Tensor

from .arithmetic import encode, learns_step

_MANTISSA = 24  # bits of a float32: whole numbers below 2^24 add up without rounding
_TRIES = 64


class Codes(Protocol):
    """What :class:`mfp_neurons.quantize.Codes` is."""

    @property
    def codes(self) -> Tensor: ...
    @property
    def scale(self) -> Tensor: ...
    @property
    def bits(self) -> float: ...


def latent(wanted: Codes) -> tuple[Tensor, Tensor | None]:
    """Float32 weight and, at 2 to 8 bits, learned step of a layer with these codes and scales.

    Args:
        wanted: as :func:`mfp_neurons.quantize.codes` reads it from a float32 layer on a CPU.

    Returns:
        The weight, in the shape of the codes, and the step, in that of the scale; None where the scale is
        computed from the weight alone.

    Raises:
        ValueError: no float32 weight has these codes and scales.

    >>> from mfp_neurons.quantize import codes, quantize_weights
    >>> layer = quantize_weights(torch.nn.Linear(100, 3), bits=1)
    >>> weight, _ = latent(codes(layer))
    >>> before, layer.weight.data = layer.quantized_weight(), weight
    >>> torch.equal(layer.quantized_weight(), before)
    True
    """
    shape, bits = wanted.codes.shape, wanted.bits
    codes = wanted.codes.flatten(1).double()  # float64 holds every number below exactly
    scale = wanted.scale.flatten().double()
    if learns_step(bits):
        rows = [_stepped(row, float(size), bits) for row, size in zip(codes, scale, strict=True)]
        weight = torch.stack([row for row, _ in rows]).float().reshape(shape)
        step = torch.tensor([value for _, value in rows]).reshape(wanted.scale.shape)
    else:
        rows_of_weights = [_averaged(row, float(size)) for row, size in zip(codes, scale, strict=True)]
        weight, step = torch.stack(rows_of_weights).float().reshape(shape), None
    found, size = encode(weight, step, bits)
    if not (torch.equal(found, wanted.codes.float()) and torch.equal(size, wanted.scale)):
        raise ValueError(f"no float32 weight has these codes of {bits:g} bits and these scales")
    return weight, step


def _quantum(total: float) -> float:
    """The smallest power of two q with total < 2^24 q."""
    return 2.0 ** (torch.frexp(torch.tensor(total, dtype=torch.float64)).exponent.item() - _MANTISSA)


def _averaged(codes: Tensor, scale: float) -> Tensor:
    """Weights of one channel at 1 or 1.58 bits: signs are the codes', the mean of the sizes is the scale."""
    count = int(codes.count_nonzero())
    if count == 0:
        return codes
    total = float(torch.tensor(scale * count, dtype=torch.float32))
    quantum = _quantum(total)
    share, rest = divmod(round(total / quantum), count)
    sizes = torch.where(codes.abs().cumsum(0) <= rest, share + 1, share) * quantum
    return codes * sizes


def _stepped(codes: Tensor, scale: float, bits: float) -> tuple[Tensor, float]:
    """Weights and step of one channel at 2 to 8 bits."""
    sizes = codes.abs()
    if not codes.any():
        sizes += 0.25  # weights of any size below 1/2 have such codes; a mean of 0 would have no step
    quantum = _quantum(1.5 * scale * float(sizes.sum()))  # there is room for more
    for attempt in range(_TRIES):
        # larger by up to 2^-10: less than 1/8 of a code
        ideal = sizes * (scale / quantum * (1 + attempt / (1024 * _TRIES)))
        whole = torch.diff(
            ideal.cumsum(0).round(), prepend=ideal.new_zeros(1)
        )  # their sum is the nearest, too
        weight = torch.where(codes < 0, -whole, whole) * quantum
        step = _step(weight, scale, bits)
        if step is not None:
            return weight, step
    raise ValueError(f"no float32 step of {bits:g} bits found for a scale of {scale}")


def _step(weight: Tensor, scale: float, bits: float) -> float | None:
    """The step that gives these weights this scale; None if rounding lets none do it."""
    row, wanted = weight.float().reshape(1, -1), torch.tensor([[scale]], dtype=torch.float32)
    nearest = wanted / encode(row, torch.ones(1, 1), bits)[1]
    for step in (nearest, nearest.nextafter(torch.tensor(torch.inf)), nearest.nextafter(torch.tensor(0.0))):
        if torch.equal(encode(row, step, bits)[1], wanted):
            return float(step)
    return None
