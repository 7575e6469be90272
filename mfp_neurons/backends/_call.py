"""What backends are asked, and what they answer: plain values."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..surrogate import Surrogate


@dataclass(frozen=True)
class Call:
    """What one call computes. kernel: "exp" [2, G] (decay, gain), "fir" [K, G] or "matrix" [T, S]."""

    kind: str
    kernel: Tensor
    threshold: Tensor | None = None  # [1] or [C]; None: the potential alone
    state: Tensor | None = None  # "exp": the last potential [N, *]; else the inputs before, [S, N, *]
    surrogate: Surrogate | None = None
    strict: bool = False
    scale: Tensor | None = None  # [C], with shift: the neuron's input is scale[c] * x + shift[c]; so is the
    shift: Tensor | None = None  # state's of finite kernels, which holds what the neuron got

    @property
    def per_channel(self) -> bool:
        wide = self.kind != "matrix" and self.kernel.shape[1] > 1
        return wide or any(row is not None and row.numel() > 1 for row in (self.threshold, self.scale))


@dataclass(frozen=True)
class Gradients:
    """Gradients of a call's tensors; None where nobody asked."""

    x: Tensor | None
    kernel: Tensor | None = None
    threshold: Tensor | None = None
    state: Tensor | None = None
    scale: Tensor | None = None  # may be wider than the call's, as precise as it was summed; so may shift
    shift: Tensor | None = None


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of potentials and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


SURROGATES = ("atan", "sigmoid", "rect", "piecewise_quadratic", "super_spike", "erf")


def in_kernels(surrogate: Surrogate) -> tuple[int, float, float]:
    """A surrogate's number in kernels/arithmetic.h, and the constants a, b of its derivative there."""
    name, (alpha, *others) = surrogate.name, surrogate.parameters
    a, b = {
        "atan": (math.pi**2 * alpha / 2, 2 / alpha),
        "sigmoid": (alpha, 0.0),
        "rect": (alpha, 0.5 / alpha),
        "piecewise_quadratic": (alpha, alpha * alpha),
        "super_spike": (alpha, others[0] if others else 1.0),
        "erf": (alpha, alpha / math.sqrt(math.pi)),
    }[name]
    return SURROGATES.index(name), a, b
