"""snnTorch's surrogates and this package's, each in the other's terms."""

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from snntorch import surrogate as snn_surrogate
from torch import Tensor

from .. import surrogate as fused
from .._checks import describe


@dataclass(frozen=True)
class StrictSpike:
    """A surrogate of ours as a ``spike_grad``: fires on x > 0, gives float32, can be pickled."""

    surrogate: fused.Surrogate

    def __call__(self, x: Tensor) -> Tensor:
        spikes = self.surrogate.spike(x, strict=True)
        return spikes if spikes.dtype == torch.float32 else spikes.float()


# the name of one of snnTorch's factories, that of its parameter, and the fused form of what it makes
_FACTORIES: tuple[tuple[str, str, Callable[[float], fused.Surrogate]], ...] = (
    ("atan", "alpha", fused.ATan),
    ("fast_sigmoid", "slope", lambda slope: fused.SuperSpike(alpha=slope, scale=1.0)),
    ("sigmoid", "slope", fused.Sigmoid),
)


def known_surrogate(spike_grad: Callable[[Tensor], Tensor]) -> fused.Surrogate | None:
    """The fused form of ``spike_grad``, or None where there is none and it has to be called."""
    if isinstance(spike_grad, StrictSpike):
        return spike_grad.surrogate
    for name, parameter, fuse in _FACTORIES:
        factory = getattr(snn_surrogate, name)
        contents = _contents(spike_grad, factory())
        value = contents.get(parameter)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            continue
        if _contents(factory(value), spike_grad) == contents:
            return fuse(float(value))
    return None


def _contents(one: Any, like: Any) -> dict[str, Any]:
    """What ``one`` holds, by name, if it is of the same make as ``like``, else nothing.

    Up to snnTorch 1.0 a surrogate is a closure: all that one factory makes share a code object and differ in
    their cells. Since then it can be an object with attributes, which can be pickled.
    """
    if not isinstance(like, FunctionType):
        return dict(getattr(one, "__dict__", {})) if type(one) is type(like) else {}
    if not isinstance(one, FunctionType) or one.__code__ is not like.__code__:
        return {}
    cells = [cell.cell_contents for cell in one.__closure__ or ()]
    return dict(zip(one.__code__.co_freevars, cells, strict=True))


def own_spike_grad(spike_grad: Any) -> Any:
    """``spike_grad`` as a neuron keeps it: one that is known as :class:`StrictSpike`, any other as it is."""
    if isinstance(spike_grad, fused.Surrogate):
        return StrictSpike(spike_grad)
    if spike_grad is None:
        return None
    if not callable(spike_grad):
        raise TypeError(f"spike_grad must be None or a callable tensor -> spikes, got {describe(spike_grad)}")
    known = known_surrogate(spike_grad)
    return spike_grad if known is None else StrictSpike(known)
