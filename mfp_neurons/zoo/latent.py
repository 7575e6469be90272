r"""Float weights that quantize to given codes and scales, bit for bit, on every machine.

A quantized layer computes its scale from its float weights: the mean of their sizes (1 and 1.58 bits), or a
learned step times such a mean (2 to 8 bits). ``codes * scale`` would nearly do for weights, but the mean of
many equal floats is rounded, and in which order they are added is the machine's choice. So every weight is a
multiple of one power of two q, with sizes that add up to less than 2^24 q: whatever the order, no sum is
rounded. What is left free is the total: sum |w| = S, shared out evenly, so each |w| is within q of the scale.

- 1 and 1.58 bits: S is a float for which S / (number of non-zero codes) rounds to the scale. One exists if
  the scale was computed so, as it was; the first or second neighbor of (scale * number) is it.
- 2 to 8 bits: |w| is the multiple of q nearest to |code| * scale, and the step is the float that brings the
  mean to the scale. Where rounding lets none do that, a few weights take one q more and the mean is another.
"""

import torch
from torch import Tensor

from mfp_neurons._quantize.arithmetic import encode, learns_step
from mfp_neurons.quantize import Codes

_TINY = torch.finfo(torch.float32).tiny
_MANTISSA = 24  # bits of a float32: whole numbers below 2^24 add up without rounding
_TRIES = 64


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
    if scale == _TINY:  # the smallest there is, given to whatever is smaller: then so are these
        return codes * (_TINY / 2)
    total = _total(scale, count)
    quantum = _quantum(total)
    share, rest = divmod(round(total / quantum), count)
    sizes = torch.where(codes.abs().cumsum(0) <= rest, share + 1, share) * quantum
    return codes * sizes


def _total(scale: float, count: int) -> float:
    """A float32 whose quotient by ``count`` is ``scale`` in float32."""
    middle = torch.tensor(scale * count, dtype=torch.float32)
    up = torch.nextafter(middle, torch.tensor(torch.inf))
    down = torch.nextafter(middle, torch.tensor(0.0))
    near = torch.stack([middle, up, down])
    exact = near[near / count == scale]
    return float(exact[0] if len(exact) else middle)


def _stepped(codes: Tensor, scale: float, bits: float) -> tuple[Tensor, float]:
    """Weights and step of one channel at 2 to 8 bits."""
    sizes = (
        codes.abs() if codes.any() else torch.full_like(codes, 0.25)
    )  # of none but zeros any size below 1/2
    quantum = _quantum(2 * scale * float(sizes.sum()))
    whole = (sizes * (scale / quantum)).round()
    signs = torch.where(codes < 0, -1.0, 1.0).double()
    wanted = torch.tensor([[scale]], dtype=torch.float32)
    for attempt in range(_TRIES):
        weight = (signs * whole * quantum).float().reshape(1, -1)
        _, base = encode(weight, torch.ones(1, 1), bits)
        nearest = wanted / base
        for step in (
            nearest,
            torch.nextafter(nearest, wanted + torch.inf),
            torch.nextafter(nearest, 0 * wanted),
        ):
            if torch.equal(encode(weight, step, bits)[1], wanted):
                return weight.flatten().double(), float(step)
        whole[attempt % len(whole)] += 1
    return weight.flatten().double(), float(nearest)  # refused above
