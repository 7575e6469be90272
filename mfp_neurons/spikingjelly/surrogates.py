"""SpikingJelly's surrogates: a node's own default, and those that the operator knows."""

from collections.abc import Callable
from typing import Any

from spikingjelly.activation_based import surrogate
from torch import Tensor

from .. import surrogate as fused
from .._checks import cached, describe

DEFAULT_SURROGATE = surrogate.Sigmoid()


def own_surrogate(function: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    """The default is an object of each node's own, so that editing its alpha stays with that node."""
    if function is None or function is DEFAULT_SURROGATE:
        return surrogate.Sigmoid()
    if not callable(function):
        raise TypeError(f"surrogate_function must be a callable tensor -> spikes, got {describe(function)}")
    return function


_FUSED: dict[str, Callable[[float], fused.Surrogate]] = {
    "ATan": fused.ATan,
    "Sigmoid": fused.Sigmoid,
    "PiecewiseQuadratic": fused.PiecewiseQuadratic,
    "Erf": fused.Erf,
    "Rect": fused.Rect,
    "SuperSpike": lambda alpha: fused.SuperSpike(alpha=1.0, scale=alpha),
    "SoftSign": lambda alpha: fused.SuperSpike(alpha=alpha, scale=alpha / 2),
}


def fused_surrogate(function: Any) -> Any:
    """The operator's own surrogate where it knows SpikingJelly's ``function``, else ``function`` itself."""
    kind = type(function)
    if kind.__module__ != surrogate.__name__ or kind.__name__ not in _FUSED:
        return function
    alpha = function.alpha
    if not function.spiking or not isinstance(alpha, (int, float)) or alpha <= 0:
        return function
    return _fused(kind.__name__, float(alpha))


@cached
def _fused(name: str, alpha: float) -> fused.Surrogate:
    return _FUSED[name](alpha)
