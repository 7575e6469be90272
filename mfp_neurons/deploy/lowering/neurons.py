"""What a memory-free neuron module computes with, as whole numbers: taps, threshold, rule.

Neurons are known by what they are made of, so that no framework is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..._convert import advice
from ...adapters import is_memory_free
from ...history import FIR, Exponential, Kernel, Matrix, as_row
from ...neuron import MFP
from ...surrogate import Surrogate
from ..errors import LoweringError
from ..graph import Ints

_TAP_BITS = 8  # of the widest quantized tap; what is real is far wider


@dataclass(frozen=True, eq=False)
class NeuronValues:
    """A layer of memory-free neurons: u[t] = sum of taps[j] * 2**exponent * x[t-j].

    Attributes:
        path: of the module.
        taps: int64 [1, K, 1 or C]; of a matrix kernel [T, K, 1]: taps[t, j] for step t and the input j steps
            back. No lag is kept that has no tap.
        exponent: what a tap of 1 is worth, 2**exponent.
        v_threshold: float64 [1 or C]; inf is never reached.
        strict: whether it fires on u > v_threshold only, not on equality.
    """

    path: str
    taps: Ints
    exponent: int
    v_threshold: NDArray[np.float64]
    strict: bool


@torch.no_grad()
def read(module: nn.Module, path: str, steps: int, features: tuple[int, ...]) -> NeuronValues:
    """The whole numbers of a neuron module.

    Args:
        module: MFP, MFPNode or MFPLeakyParallel.
        path: where it is in the model, for what is said.
        steps: T, the order that an infinite exponential gets.
        features: the shape of one step of one sample, channels first.

    Raises:
        LoweringError: it is another neuron, takes single steps, or has taps, a threshold or spikes that whole
            numbers a channel do not say.

    >>> values = read(MFP(decay=0.5, order=3), "1", steps=4, features=(8,))
    >>> values.taps.ravel(), values.exponent, values.v_threshold
    (array([4, 2, 1]), -2, array([1.]))
    """
    reader = _Reader(module, path, steps, features)
    reader.check_kind()
    taps, exponent = reader.taps()
    return NeuronValues(path, taps, exponent, reader.threshold(), reader.fires_above_only())


@dataclass(frozen=True)
class _Reader:
    module: Any
    path: str
    steps: int
    features: tuple[int, ...]

    def refuse(self, why: str, instead: str) -> NoReturn:
        raise LoweringError(f"{self.path!r} ({type(self.module).__name__}) {why}. {instead}")

    def check_kind(self) -> None:
        module = self.module
        if not is_memory_free(module):
            self.refuse(
                "keeps a membrane potential, and an integer network has none",
                advice(module),
            )
        if any(kind.__name__ == "MFPLeaky" for kind in type(module).__mro__):
            self.refuse(
                "takes one step at a time in a loop over time, which cannot be captured",
                "Use mfp_neurons.snntorch.MFPLeakyParallel, which takes the whole sequence [T, N, *]",
            )
        if getattr(module, "step_mode", "m") != "m":
            self.refuse(
                'takes one step at a time (step_mode="s")',
                'functional.set_step_mode(model, "m") of SpikingJelly makes it take the whole sequence',
            )
        if getattr(module, "state_quant", False):
            self.refuse("rounds its potential (state_quant)", "Make it with state_quant=False")
        graded = getattr(module, "graded_spikes_factor", None)
        if graded is not None and bool((graded != 1).any()):
            self.refuse(
                f"fires graded spikes (graded_spikes_factor={graded.tolist()})",
                "Spikes are 0 or 1 there: set the factor to 1 and scale the weights behind it",
            )

    def fires_above_only(self) -> bool:
        """The rule at u = v_threshold, which is that of the function that fires."""
        module = self.module
        if isinstance(module, MFP) and isinstance(module.surrogate, Surrogate):
            return module.strict
        names = ("surrogate", "surrogate_function", "spike_grad")
        name = next(name for name in names if hasattr(module, name))
        return self._strictness(name, getattr(module, name))

    def _strictness(self, name: str, fire: Callable[[Tensor], Tensor]) -> bool:
        below, on, above = fire(torch.tensor([-1.0, -1e-3, 0.0, 1e-3, 1.0])).split([2, 1, 2])
        if bool((below != 0).any() or (above != 1).any() or on.item() not in (0, 1)):
            self.refuse(f"does not fire spikes of 0 and 1 ({name}={fire!r})", "Use a surrogate that does")
        return on.item() == 0

    def threshold(self) -> NDArray[np.float64]:
        given = getattr(self.module, "threshold" if hasattr(self.module, "spike_grad") else "v_threshold")
        value = torch.as_tensor(given, dtype=None if isinstance(given, Tensor) else torch.float64)
        if not bool((value > -math.inf).all()):
            self.refuse("has a threshold that is NaN or -inf", "Set a number, or math.inf, which never fires")
        in_channels = value.dim() == 1 and not hasattr(self.module, "spike_grad")
        return self._channels("threshold", value, self._spread(value.numel()) if in_channels else value.shape)

    def taps(self) -> tuple[Ints, int]:
        """Taps [1 or T, K, 1 or C] and their exponent."""
        exact = self._exact_taps(self.module.kernel())
        used = [lag for lag in range(exact.shape[1]) if any(exact[:, lag].ravel())]
        exact = exact[:, : max(used, default=0) + 1]
        exponent = min((_lowest_bit(tap) for tap in exact.ravel() if tap), default=0)
        whole = exact / Fraction(2) ** exponent
        if self.module.kernel.kernel_bits is None and any(
            _odd_part(int(tap)) >> _TAP_BITS for tap in whole.ravel()
        ):
            self.refuse(
                "has real taps (kernel_bits=None), which are no whole numbers times a power of two",
                'Give it kernel_bits="pow2" or 2 to 8 bits and an order, as convert does too, and train with '
                "that; an exponential of tau=2 (beta=0.5) needs neither",
            )
        if max(abs(int(tap)) for tap in whole.ravel()) >= 2**62:
            self.refuse(
                f"has {exact.shape[1]} taps that do not fit 62 bits, the largest against the smallest",
                "Give it a smaller order, such as 32: what is older weighs next to nothing",
            )
        return whole.astype(np.int64), exponent

    def _exact_taps(self, kernel: Kernel) -> NDArray[np.object_]:
        """Fractions [1 or T, K, 1 or C]."""
        if isinstance(kernel, Matrix):
            matrix = _fractions(kernel.matrix)
            lags = np.arange(len(matrix))
            at = lags[:, None] - lags  # row t, lag j: column t - j; later inputs do not count
            aligned = np.take_along_axis(matrix, np.maximum(at, 0), axis=1)
            return np.where(at >= 0, aligned, np.array(Fraction(), object))[..., None]
        if isinstance(kernel, FIR):
            rows = [self._channels("taps", row, self._spread(row.numel())) for row in kernel.taps]
            return _fractions(torch.as_tensor(np.stack(rows)))[None]
        assert isinstance(kernel, Exponential)
        decay, gain = (
            _fractions(torch.as_tensor(self._channels(name, row, self._spread(row.numel()))))
            for name, row in (("decay", as_row(kernel.decay)), ("gain", as_row(kernel.gain)))
        )
        order = self.steps if kernel.order is None else kernel.order
        return np.stack([gain * decay**lag for lag in range(order)])[None]

    def _spread(self, values: int) -> tuple[int, ...]:
        """The shape in which a kernel's parameter of so many values broadcasts over a step."""
        beta = getattr(self.module, "beta", None)
        if isinstance(beta, Tensor) and self.module.num_channels is None:
            return tuple(beta.shape) if beta.numel() == values else (values,)
        return (values, *[1] * (len(self.features) - 1))

    def _channels(self, name: str, value: Tensor, spread: tuple[int, ...]) -> NDArray[np.float64]:
        """A parameter that broadcasts over a step, as float64 [1 or C]."""
        wide = value.detach().double().cpu()
        if wide.numel() == 1:
            return wide.reshape(1).numpy()
        try:
            step = wide.reshape(spread).broadcast_to(1, *self.features)
        except RuntimeError:
            self.refuse(
                f"has a {name} of shape {list(value.shape)}, which does not broadcast over a step "
                f"[N, {', '.join(map(str, self.features))}]",
                "Give it one value, or one a channel",
            )
        rows = step.reshape(self.features[0], -1)
        if bool((rows != rows[:, :1]).any()):
            self.refuse(
                f"has a {name} of its own for each neuron, shape {list(value.shape)}",
                "An integer network has one a channel: use one value, or one a channel",
            )
        return rows[:, 0].numpy().copy()


def _fractions(values: Tensor) -> NDArray[np.object_]:
    """Floats as the exact numbers that they are."""
    wide = values.detach().double().cpu().numpy()
    flat = np.empty(wide.size, object)
    flat[:] = [Fraction(value) for value in wide.ravel().tolist()]
    return flat.reshape(wide.shape)


def _lowest_bit(number: Fraction) -> int:
    """The largest e such that a float's value is a whole number times 2**e."""
    top = number.numerator
    return (top & -top).bit_length() - 1 - (number.denominator.bit_length() - 1)


def _odd_part(number: int) -> int:
    return abs(number) // (number & -number) if number else 0
