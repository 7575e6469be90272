"""Taps as a report counts them: their bits, how often each is used, and the traces that they weigh."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import gcd, lcm

import torch
from torch import Tensor

from ..history import Exponential, Matrix
from ..spec import KernelParameters
from .prices import REAL

_CHUNK = 2**22  # values of a trace that are in memory at a time


@torch.no_grad()
def taps_of(kernel: KernelParameters, steps: int) -> Tensor:
    """Taps by their lag, [L, 1] or [L, C], float64, zeros between those of a stride; of a matrix its rows."""
    value = kernel()
    if isinstance(value, Matrix):
        return value.matrix.double().cpu()
    taps = value.taps(value.order or steps) if isinstance(value, Exponential) else value.taps
    return taps.double().cpu().reshape(len(taps), -1)


def tap_sets(kernel: KernelParameters, steps: int) -> Tensor | None:
    """Taps [L, G] of each of G groups of channels; None where every channel, or every step, has its own."""
    if isinstance(kernel(), Matrix):
        return None
    taps = taps_of(kernel, steps)
    channels = taps.shape[1]
    if channels == 1:
        return taps
    return None if kernel.groups is None else taps[:, :: channels // kernel.groups]


def tap_bits(kernel: KernelParameters, steps: int) -> float:
    """Bits of a tap as an operand: 1 of powers of two, which only shift; those of its grid; else REAL."""
    if kernel.kernel_bits is not None:
        return 1 if kernel.kernel_bits == "pow2" else kernel.kernel_bits
    if kernel.kind != "exp" or kernel.learnable:
        return REAL
    taps = taps_of(kernel, steps)
    return 1 if bool((taps[taps != 0].frexp().mantissa.abs() == 0.5).all()) else REAL


def trace_bits(taps: Tensor, bits: float, input_bits: float) -> float:
    """Bits of a sum of inputs weighed by taps [L, G], with a sign if taps or inputs have one.

    Args:
        taps: real tensor.
        bits: what :func:`tap_bits` says of them.
        input_bits: of the inputs.
    """
    if REAL in (bits, input_bits) or not bool(taps.any()):
        return REAL
    exact = [Fraction(tap) for tap in taps.abs().flatten().tolist()]
    unit = Fraction(gcd(*(tap.numerator for tap in exact)), lcm(*(tap.denominator for tap in exact)))
    largest = max(sum(map(Fraction, column)) for column in taps.abs().T.tolist()) / unit
    return (int(largest) * (2 ** int(input_bits) - 1)).bit_length() + int(bool((taps < 0).any()))


def uses(lags: Iterable[int], steps: int) -> Tensor:
    """[T], float64: how many of these lags later than each step still lie within the sequence."""
    times = torch.zeros(steps, dtype=torch.float64)
    for lag in lags:
        times[: max(steps - lag, 0)] += 1
    return times


def traces(trains: Tensor, taps: Tensor) -> Iterator[Tensor]:
    """Sums of the last values weighed by their taps, in float64, some rows at a time.

    Args:
        trains: [T, rows, features].
        taps: [L].
    """
    steps, _, features = trains.shape
    for part in trains.split(max(_CHUNK // (steps * features), 1), 1):
        trace = torch.zeros(part.shape, dtype=torch.float64, device=part.device)
        for lag, tap in enumerate(taps.tolist()[:steps]):
            if tap:
                trace[lag:] += tap * part[: steps - lag]
        yield trace
