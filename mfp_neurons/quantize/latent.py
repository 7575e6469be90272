r"""Makes float weights that quantize to given codes and scales, bit for bit, on every machine.

A file of codes and scales is loaded by this: a quantized layer has float weights, and computes its scale from
them, as the mean of their sizes (1 and 1.58 bits) or as a learned step times that mean (2 to 8 bits).
``codes * scale`` would nearly do for weights, but the mean of many equal floats is rounded, and the machine
chooses the order in which they are added. So every weight here is a multiple of one power of two q, with
sizes that add up to less than 2^24 q: no sum is rounded, whatever its order. What can still be chosen is the
total, sum |w| = S. It is shared out evenly, so that each |w| is within q of the scale.

- 1 and 1.58 bits: with n non-zero codes, S is the float nearest to n * scale. The scale came from a division
  by n of some float, which was no nearer, so S / n rounds to the scale as well.
- 2 to 8 bits: |w| is |code| * scale to within q, and the step is the float that brings the mean to the scale.
  Where rounding lets none do that, all weights are made a little larger, and the mean is another.
"""

import torch
from torch import Tensor

from .arithmetic import encode, learns_step
from .reading import Codes

_MANTISSA = 24  # bits of a float32: whole numbers below 2^24 add up without rounding
_TRIES = 64


def latent(target: Codes) -> tuple[Tensor, Tensor | None]:
    """Float32 weight and, at 2 to 8 bits, learned step of a layer with these codes and scales.

    Args:
        target: as :func:`mfp_neurons.quantize.codes` reads it from a float32 layer on a CPU.

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
    bits = target.bits
    codes = target.codes.flatten(1).double()  # float64 holds every number below exactly
    channels = list(zip(codes, target.scale.flatten().tolist(), strict=True))
    step = None
    if learns_step(bits):
        pairs = [_weights_and_step(row, scale, bits) for row, scale in channels]
        rows = [row for row, _ in pairs]
        step = torch.tensor([value for _, value in pairs]).reshape(target.scale.shape)
    else:
        rows = [_weights_of_mean(row, scale) for row, scale in channels]
    weight = torch.stack(rows).float().reshape(target.codes.shape)
    encoded, scale = encode(weight, step, bits)
    if not (torch.equal(encoded, target.codes.float()) and torch.equal(scale, target.scale)):
        raise ValueError(f"no float32 weight has these codes of {bits:g} bits and these scales")
    return weight, step


def _quantum(total: float) -> float:
    """The smallest power of two q with total < 2^24 q."""
    return 2.0 ** (torch.frexp(torch.tensor(total, dtype=torch.float64)).exponent.item() - _MANTISSA)


def _weights_of_mean(codes: Tensor, scale: float) -> Tensor:
    """Weights of one channel at 1 or 1.58 bits: signs are the codes', the mean of the sizes is the scale."""
    count = int(codes.count_nonzero())
    if count == 0:
        return codes
    total = float(torch.tensor(scale * count, dtype=torch.float32))
    quantum = _quantum(total)
    # The first ``rest`` weights are one quantum larger, so that all together are exactly the total.
    share, rest = divmod(round(total / quantum), count)
    sizes = torch.where(codes.abs().cumsum(0) <= rest, share + 1, share) * quantum
    return codes * sizes


def _weights_and_step(codes: Tensor, scale: float, bits: float) -> tuple[Tensor, float]:
    """Weights and step of one channel at 2 to 8 bits."""
    sizes = codes.abs()
    if not codes.any():
        sizes += 0.25  # weights of any size below 1/2 have such codes; a mean of 0 would have no step
    quantum = _quantum(1.5 * scale * float(sizes.sum()))  # there is room for more
    for attempt in range(_TRIES):
        # larger by up to 2^-10: less than 1/8 of a code
        ideal = sizes * (scale / quantum * (1 + attempt / (1024 * _TRIES)))
        # Rounding the running sums, not the sizes, makes their sum the nearest integer to the ideal sum, too.
        multiples = torch.diff(ideal.cumsum(0).round(), prepend=ideal.new_zeros(1))
        weight = torch.where(codes < 0, -multiples, multiples) * quantum
        step = _step(weight, scale, bits)
        if step is not None:
            return weight, step
    raise ValueError(f"no float32 step of {bits:g} bits found for a scale of {scale}")


def _step(weight: Tensor, scale: float, bits: float) -> float | None:
    """The step that gives these weights this scale; None if rounding lets none do it."""
    row, target = weight.float().reshape(1, -1), torch.tensor([[scale]], dtype=torch.float32)
    nearest = target / encode(row, torch.ones(1, 1), bits)[1]
    for step in (nearest, nearest.nextafter(torch.tensor(torch.inf)), nearest.nextafter(torch.tensor(0.0))):
        if torch.equal(encode(row, step, bits)[1], target):
            return float(step)
    return None
