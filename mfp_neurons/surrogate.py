"""Surrogate derivatives of the spike, known to the fused operator.

A spike is heaviside(u - v_threshold); its derivative is zero almost everywhere, so training puts a
surrogate in its place (Neftci, Mostafa and Zenke, 2019). Each class here is one derivative, with the
parameters that SpikingJelly and snnTorch give it. Any other callable from tensor to spikes works with
:func:`mfp_neurons.functional.fire` too, outside the fused operator.

To add one, write a class here, put it at the end of ``SURROGATES``, and give ``kernels/arithmetic.h`` a
derivative at the same place of its list. Nothing else names surrogates one by one.
"""

import functools
import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from ._checks import check_finite, describe


@dataclass(frozen=True)
class Surrogate:
    """A spike whose derivative is replaced by :meth:`derivative`. Calling it fires on ``x >= 0``."""

    name: ClassVar[str]  # with the parameters, what an operator is told
    alpha: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) or not isinstance(value, (int, float)):
                raise TypeError(
                    f"{type(self).__name__}: {field.name} must be a number, got {describe(value)}"
                )
            check_finite(field.name, value)
            if value <= 0:
                raise ValueError(f"{type(self).__name__}: {field.name} must be positive, got {value}")

    def derivative_(self, x: Tensor) -> Tensor:
        """Overwrites x = u - v_threshold (floating point, any shape) with the derivative at x."""
        raise NotImplementedError

    def derivative(self, x: Tensor) -> Tensor:
        """The surrogate derivative at x = u - v_threshold; floating point, any shape."""
        return self.derivative_(x.clone())

    @property
    def parameters(self) -> list[float]:
        """The numbers that, with ``name``, say which derivative this is."""
        return [float(getattr(self, field.name)) for field in fields(self)]

    @property
    def kernel_constants(self) -> tuple[float, float]:
        """The constants a and b that the derivative of the same name in ``kernels/arithmetic.h`` takes."""
        raise NotImplementedError

    def spike(self, x: Tensor, strict: bool = False) -> Tensor:
        """heaviside(x), which is 0 at 0 if ``strict``, else 1; its gradient is :meth:`derivative`."""
        return _Spike.apply(x, self, strict) if torch.is_grad_enabled() else _fire(x, strict)

    def __call__(self, x: Tensor) -> Tensor:
        return self.spike(x)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, surrogate, strict):  # type: ignore[no-untyped-def, override]
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return _fire(x, strict)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def, override]
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(x), None, None


def _fire(x: Tensor, strict: bool) -> Tensor:
    return (x > 0 if strict else x >= 0).to(x.dtype)


@dataclass(frozen=True)
class ATan(Surrogate):
    r"""(alpha/2) / (1 + (pi alpha x / 2)^2). Fang et al., ICCV 2021; snnTorch's default.

    >>> ATan(alpha=2.0).derivative(torch.tensor([0.0]))
    tensor([1.])
    """

    name: ClassVar[str] = "atan"
    alpha: float = 2.0

    @property
    def kernel_constants(self) -> tuple[float, float]:
        return math.pi**2 * self.alpha / 2, 2 / self.alpha

    def derivative_(self, x: Tensor) -> Tensor:
        # (a/2) / (1 + c^2 x^2), one division: b / (b c^2 x^2 + b) scaled so that the numerator is 1
        half = self.alpha / 2
        return x.square_().mul_((math.pi * half) ** 2 / half).add_(1 / half).reciprocal_()


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """alpha s (1 - s), s = sigmoid(alpha x). SpikingJelly's default surrogate, alpha = 4.

    >>> Sigmoid(alpha=4.0).derivative(torch.tensor([0.0]))
    tensor([1.])
    """

    name: ClassVar[str] = "sigmoid"
    alpha: float = 4.0

    @property
    def kernel_constants(self) -> tuple[float, float]:
        return self.alpha, 0.0

    def derivative_(self, x: Tensor) -> Tensor:
        s = x.mul_(self.alpha).sigmoid_()
        return s.sub_(s.square()).mul_(self.alpha)


@dataclass(frozen=True)
class Rect(Surrogate):
    """alpha where |x| < 0.5 / alpha, else 0. Wu et al., Frontiers in Neuroscience 2018.

    >>> Rect().derivative(torch.tensor([0.0, 0.5]))
    tensor([1., 0.])
    """

    name: ClassVar[str] = "rect"

    @property
    def kernel_constants(self) -> tuple[float, float]:
        return self.alpha, 0.5 / self.alpha

    def derivative_(self, x: Tensor) -> Tensor:
        return x.abs_().lt_(0.5 / self.alpha).mul_(self.alpha)


@dataclass(frozen=True)
class PiecewiseQuadratic(Surrogate):
    """max(0, alpha - alpha^2 |x|), the triangle. Esser et al., PNAS 2016.

    >>> PiecewiseQuadratic().derivative(torch.tensor([0.0, 0.5, 2.0]))
    tensor([1.0000, 0.5000, 0.0000])
    """

    name: ClassVar[str] = "piecewise_quadratic"

    @property
    def kernel_constants(self) -> tuple[float, float]:
        return self.alpha, self.alpha * self.alpha

    def derivative_(self, x: Tensor) -> Tensor:
        return x.abs_().mul_(-self.alpha * self.alpha).add_(self.alpha).clamp_(min=0)


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    """scale / (1 + alpha |x|)^2. Zenke and Ganguli, Neural Computation 2018.

    snnTorch's ``fast_sigmoid(slope)`` is alpha = slope, scale = 1; SpikingJelly's ``SuperSpike(alpha)``
    is alpha = 1, scale = alpha.

    >>> SuperSpike(alpha=25.0).derivative(torch.tensor([0.0]))
    tensor([1.])
    """

    name: ClassVar[str] = "super_spike"
    scale: float = 1.0

    @property
    def kernel_constants(self) -> tuple[float, float]:
        return self.alpha, self.scale

    def derivative_(self, x: Tensor) -> Tensor:
        return x.abs_().mul_(self.alpha).add_(1).square_().reciprocal_().mul_(self.scale)


@dataclass(frozen=True)
class Erf(Surrogate):
    """alpha / sqrt(pi) exp(-(alpha x)^2), a Gaussian.

    >>> Erf(alpha=math.sqrt(math.pi)).derivative(torch.tensor([0.0], dtype=torch.float64)).item()
    1.0
    """

    name: ClassVar[str] = "erf"
    alpha: float = 2.0

    @property
    def kernel_constants(self) -> tuple[float, float]:
        return self.alpha, self.alpha / math.sqrt(math.pi)

    def derivative_(self, x: Tensor) -> Tensor:
        return x.square_().mul_(-self.alpha * self.alpha).exp_().mul_(self.alpha / math.sqrt(math.pi))


#: Every surrogate by its name; its place here is its number in ``kernels/arithmetic.h``.
SURROGATES: dict[str, type[Surrogate]] = {
    kind.name: kind for kind in (ATan, Sigmoid, Rect, PiecewiseQuadratic, SuperSpike, Erf)
}
_NUMBERS = {name: number for number, name in enumerate(SURROGATES)}


def from_name(name: str, parameters: list[float]) -> Surrogate:
    """The surrogate that ``name`` and ``parameters`` describe; the inverse of the two attributes."""
    return _from_name(name, tuple(parameters))


@functools.lru_cache(maxsize=64)  # every call of an operator asks
def _from_name(name: str, parameters: tuple[float, ...]) -> Surrogate:
    return SURROGATES[name](*parameters)


def kernel_number(surrogate: Surrogate) -> int:
    """The number by which ``kernels/arithmetic.h`` knows a surrogate."""
    return _NUMBERS[surrogate.name]
