"""What a layer of memory-free neurons computes with as whole numbers: taps, threshold, rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..history import FIR, Exponential, Matrix, as_row
from ..network.axes import Shape
from ..network.description import NeuronReset, Neurons
from .errors import LoweringError
from .graph import Ints

_TAP_BITS = 8  # of the widest quantized tap; what is real is far wider


@dataclass(frozen=True, eq=False)
class NeuronValues:
    """A layer of memory-free neurons: u[t] = sum of taps[j] * 2**exponent * x[t-j], and own_taps[j] s[t-j].

    Attributes:
        path: of the module.
        taps: int64 [1, K, 1 or C]; of a matrix kernel [T, K, 1]: taps[t, j] for step t and the input j steps
            back. No lag is kept that has no tap.
        exponent: what a tap of 1 is worth, 2**exponent.
        v_threshold: float64 [1 or C]; inf is never reached.
        rest: what u counts from.
        strict: whether it fires on u > v_threshold only, not on equality.
        own_taps: Fractions [R, 1 or C], what an own spike 1 .. R steps ago adds; None for nothing.
        forgets: whether inputs before the last own spike do not count.
    """

    path: str
    taps: Ints
    exponent: int
    v_threshold: NDArray[np.float64]
    strict: bool
    rest: float = 0.0
    own_taps: NDArray[np.object_] | None = None
    forgets: bool = False


def whole_numbers(layer: Neurons, steps: int) -> NeuronValues:
    """The whole numbers of a layer of neurons.

    Args:
        layer: of a description.
        steps: T, the order that an infinite exponential gets, and a reset that never ends.

    Raises:
        LoweringError: it has taps, a threshold or spikes that whole numbers a channel do not say.

    >>> from mfp_neurons import MFP
    >>> from mfp_neurons.network import describe
    >>> network = describe(MFP(decay=0.5, order=3), torch.zeros(4, 1, 8))
    >>> values = whole_numbers(network.layers[1], steps=4)
    >>> values.taps.ravel(), values.exponent, values.v_threshold
    (array([4, 2, 1]), -2, array([1.]))
    """
    if layer.spike_factor is not None:
        _refuse(
            layer,
            f"fires graded spikes (graded_spikes_factor={layer.spike_factor.tolist()})",
            "Spikes are 0 or 1 there: set the factor to 1 and scale the weights behind it",
        )
    taps, exponent = _whole_taps(layer, steps)
    threshold = channels_of(layer, "threshold", layer.threshold, layer.threshold_shape)
    values = NeuronValues(layer.name, taps, exponent, threshold, layer.strict)
    reset = layer.reset
    if reset is None:
        return values
    if layer.is_fixed:
        _refuse(layer, "has a matrix kernel and a reset", "Take another kernel, or no reset")
    own = None if reset.kind == "zero" else _own_taps(layer, reset, threshold, steps)
    # where K is 1 every step forgets all before it anyway
    forgets = reset.kind == "zero" and taps.shape[1] > 1
    return replace(values, rest=reset.rest, own_taps=own, forgets=forgets)


@dataclass(frozen=True, eq=False)
class PotentialValues:
    """A potential that is read out: rest + sum of taps[j] x[t-j] + sum of own_taps[j] s[t-j], j = 0 and more.

    Attributes:
        taps: Fractions [K, 1 or C].
        own_taps: Fractions [R + 1, 1 or C]; None for nothing.
        rest: what it counts from.
        forgets: whether inputs before the last own spike do not count.
    """

    taps: NDArray[np.object_]
    own_taps: NDArray[np.object_] | None
    rest: Fraction
    forgets: bool


def potential_values(layer: Neurons, steps: int, after_reset: bool) -> PotentialValues:
    """What the potential of a layer of neurons is made of, real taps too.

    Args:
        layer: of a description, without a matrix kernel.
        steps: T, the order that an infinite exponential gets, and a reset that never ends.
        after_reset: whether it is what a reset by the threshold left of it.
    """
    taps, reset = _exact_taps(layer, steps)[0], layer.reset
    used = [lag for lag, row in enumerate(taps) if any(row)]
    taps = taps[: max(used, default=0) + 1]
    if reset is None:
        return PotentialValues(taps, None, Fraction(), False)
    threshold = channels_of(layer, "threshold", layer.threshold, layer.threshold_shape)
    own = None if reset.kind == "zero" else _own_taps(layer, reset, threshold, steps)
    now = np.where(
        np.isfinite(threshold), -threshold if after_reset and reset.kind == "subtract" else 0.0, 0.0
    )
    if own is not None or now.any():
        rows = [_fractions(now), *([] if own is None else own)]
        own = np.stack(np.broadcast_arrays(*rows))
    return PotentialValues(taps, own, Fraction(reset.rest), reset.kind == "zero" and layer.fires)


def _own_taps(
    layer: Neurons, reset: NeuronReset, threshold: NDArray[np.float64], steps: int
) -> NDArray[np.object_] | None:
    """What own spikes add, Fractions [R, 1 or C] up to the last one that adds anything; None if none does."""
    # a neuron that never fires has no own spikes, whatever they would add
    fires = np.isfinite(threshold)
    if reset.taps is None:
        kernel = layer.kernel
        assert isinstance(kernel, Exponential)
        decay = _fractions(channels_of(layer, "decay", as_row(kernel.decay), layer.kernel_shape))
        size = _fractions(np.where(fires, threshold, 0.0))
        first = 0 if reset.delay else 1
        # from rest, no spike lies further back than T - 1 steps
        rows = [-size * decay ** (lag + first) for lag in range(steps - 1)]
        exact = np.stack(rows) if rows else np.zeros((0, 1), object)
    else:
        rows = [channels_of(layer, "feedback", row.reshape(-1), layer.kernel_shape) for row in reset.taps]
        exact = _fractions(np.where(fires, np.stack(rows), 0.0))
    used = [lag for lag, row in enumerate(exact) if any(row)]
    return exact[: used[-1] + 1] if used else None


def _refuse(layer: Neurons, why: str, instead: str) -> NoReturn:
    raise LoweringError(f"{layer.where} {why}. {instead}")


def _whole_taps(layer: Neurons, steps: int) -> tuple[Ints, int]:
    """Taps [1 or T, K, 1 or C] and their exponent."""
    exact = _exact_taps(layer, steps)
    # Zeros behind the last tap would only lengthen the memory of the neuron.
    used = [lag for lag in range(exact.shape[1]) if any(exact[:, lag].ravel())]
    exact = exact[:, : max(used, default=0) + 1]
    # In units of the lowest bit that any tap has, all taps are whole.
    exponent = min((_lowest_bit(tap) for tap in exact.ravel() if tap), default=0)
    integers = exact / Fraction(2) ** exponent
    if "kernel_bits" not in layer.options and _are_real(integers):
        _refuse(
            layer,
            "has real taps (kernel_bits=None), which are no whole numbers times a power of two",
            "deploy.lower(model, example, kernel_bits=8) rounds them, and says what that changes; or give "
            'the neuron kernel_bits="pow2" or 2 to 8 bits and an order, as convert does too, and train with '
            "that. An exponential of tau=2 (beta=0.5) needs neither",
        )
    if max(abs(int(tap)) for tap in integers.ravel()) >= 2**62:
        _refuse(
            layer,
            f"has {exact.shape[1]} taps that do not fit 62 bits, the largest against the smallest",
            "Give it a smaller order, such as 32: what is older weighs next to nothing",
        )
    return integers.astype(np.int64), exponent


def _are_real(integers: NDArray[np.object_]) -> bool:
    """Whether taps, in units of their lowest bit, were never quantized."""
    # Every float is a whole number times a power of two. Quantized taps are told by how short that number is.
    return any(_odd_part(int(tap)) >> _TAP_BITS for tap in integers.ravel())


def has_real_taps(layer: Neurons, steps: int) -> bool:
    """Whether a layer's taps over inputs are no whole numbers times a power of two."""
    if "kernel_bits" in layer.options:
        return False
    exact = _exact_taps(layer, steps)
    exponent = min((_lowest_bit(tap) for tap in exact.ravel() if tap), default=0)
    return _are_real(exact / Fraction(2) ** exponent)


def _exact_taps(layer: Neurons, steps: int) -> NDArray[np.object_]:
    """Fractions [1 or T, K, 1 or C]."""
    kernel = layer.kernel
    if isinstance(kernel, Matrix):
        matrix = _fractions(kernel.matrix)
        lags = np.arange(len(matrix))
        at = lags[:, None] - lags  # row t, lag j: column t - j; later inputs do not count
        aligned = np.take_along_axis(matrix, np.maximum(at, 0), axis=1)
        return np.where(at >= 0, aligned, np.array(Fraction(), object))[..., None]
    if isinstance(kernel, FIR):
        rows = [channels_of(layer, "taps", row, layer.kernel_shape) for row in kernel.taps]
        return _fractions(np.stack(rows))[None]
    assert isinstance(kernel, Exponential)
    decay, gain = (
        _fractions(channels_of(layer, name, as_row(number), layer.kernel_shape))
        for name, number in (("decay", kernel.decay), ("gain", kernel.gain))
    )
    # From rest, no input lies further back than T steps.
    order = steps if kernel.order is None else kernel.order
    return np.stack([gain * decay**lag for lag in range(order)])[None]


def channels_of(layer: Neurons, name: str, value: Tensor, shape: Shape | None) -> NDArray[np.float64]:
    """A parameter that broadcasts over a step, as float64 [1 or C]."""
    placed = layer.spread(value.double(), shape)
    if placed.numel() == 1:
        return placed.reshape(1).numpy()
    rows = placed.broadcast_to(1, *layer.features).reshape(layer.features[0], -1)
    if bool((rows != rows[:, :1]).any()):
        _refuse(
            layer,
            f"has a {name} of its own for each neuron, shape {list(value.shape)}",
            "An integer network has one a channel: use one value, or one a channel",
        )
    return rows[:, 0].numpy().copy()


def _fractions(values: Tensor | NDArray[np.float64]) -> NDArray[np.object_]:
    """Floats as the exact numbers that they are."""
    wide = torch.as_tensor(values).double().numpy()
    flat = np.empty(wide.size, object)
    flat[:] = [Fraction(value) for value in wide.ravel().tolist()]
    return flat.reshape(wide.shape)


def _lowest_bit(number: Fraction) -> int:
    """The largest e such that a float's value is a whole number times 2**e."""
    top = number.numerator
    # The denominator of a float is a power of two.
    return (top & -top).bit_length() - 1 - (number.denominator.bit_length() - 1)


def _odd_part(number: int) -> int:
    return abs(number) // (number & -number) if number else 0
