"""A batch norm whose work the neuron behind it does, both in one operator.

Both stay where they are in the model, with their names and state. The batch norm gets a class of its own, a
subclass of what it was, that hands its input on; the neuron holds a reference to it.
"""

from functools import cache
from typing import Any, cast

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from ..norm import Norm

# [T, N, C, *] of how many dimensions each takes in step mode "m"
_DIMS = {layer.BatchNorm1d: (3, 4), layer.BatchNorm2d: (5,), layer.BatchNorm3d: (6,)}
NORMS = tuple(_DIMS)


class FusedNorm(nn.Module):
    """What every fused batch norm can do; in the method resolution order right before what it was."""

    plain_class: Any  # what it was
    fused_into: str  # the neuron's path in the model
    _has_run = False

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self._has_run = True
        return x

    def normalized(self, x: Tensor) -> Tensor:
        """What its forward gave before it was fused, running averages and all."""
        self._check_that_it_runs()
        y: Tensor = self.plain_class.forward(self, x)
        return y

    def takes(self, x_seq: Tensor) -> bool:
        """Whether a fused operator on ``x_seq`` does what :meth:`normalized` would."""
        return self.step_mode == "m" and x_seq.dim() in _DIMS[self.plain_class]

    def value(self) -> Norm:
        """What normalizes the next input; counts it as one more batch where averages are tracked."""
        self._check_that_it_runs()
        norm: Any = self
        momentum = 0.0 if norm.momentum is None else norm.momentum
        if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:  # the average of all batches
                momentum = norm.num_batches_tracked.to(norm.running_mean.dtype).reciprocal()
        mean, var = norm.running_mean, norm.running_var
        of_the_batch = norm.training or (mean is None and var is None)
        if norm.training and not norm.track_running_stats:
            mean = var = None
        return Norm(mean, var, norm.weight, norm.bias, of_the_batch, momentum, norm.eps)

    def _check_that_it_runs(self) -> None:
        """The neuron relies on it; a batch norm that something else replaced would be applied twice."""
        if not (self._has_run or torch.compiler.is_compiling()):
            raise RuntimeError(
                f"the batch norm that is fused into neuron {self.fused_into!r} has never been called itself: "
                "was it replaced, or the neuron called alone? Change the norms first, then convert(fuse=True)"
            )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fused into {self.fused_into}"


def become_fused(norm: nn.Module, path: str) -> None:
    """Makes a batch norm hand its input on to the neuron at ``path``, in place."""
    norm.__class__ = cast(Any, _fused_class(cast(Any, type(norm))))
    cast(FusedNorm, norm).fused_into = path


@cache
def _fused_class(plain_class: Any) -> type[nn.Module]:
    """The fused subclass of a batch norm: one for each, made on first use."""
    members = {
        "__doc__": f"{plain_class.__name__} whose work the neuron behind it does.",
        "__module__": __name__,
        "__reduce_ex__": _reduce,
        "plain_class": plain_class,
    }
    return type(f"Fused{plain_class.__name__}", (FusedNorm, plain_class), members)


def _reduce(self: FusedNorm, protocol: Any) -> Any:
    # the class has no name to import it by, so pickle and deepcopy make it again from the plain one
    if type(self) is not _fused_class(self.plain_class):
        return object.__reduce_ex__(self, protocol)
    return _blank, (self.plain_class,), self.__getstate__()


def _blank(plain_class: Any) -> nn.Module:
    made = _fused_class(plain_class)
    return made.__new__(made)
