"""A batch norm that leaves its work to the neuron behind it, so that both run as one operator.

The batch norm stays where it is in the model, with its name and state, and gets a subclass of its own class.
That returns its output as a :class:`Normalized`, a tensor that is not computed yet. A neuron takes the input
and the batch norm out of it; anything else that reads it gets the normalized values, computed then. So
neither half knows where the other one is, and whatever takes the place of one of them gives right results.
"""

from functools import cache
from typing import Any, NamedTuple, cast

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..norm import Norm

# [T, N, C, *] of how many dimensions each takes in step mode "m"
_DIMS = {layer.BatchNorm1d: (3, 4), layer.BatchNorm2d: (5,), layer.BatchNorm3d: (6,)}
NORMS = tuple(_DIMS)


class FusedNorm(nn.Module):
    """What every fused batch norm can do; in the method resolution order right before what it was."""

    plain_class: Any  # what it was
    fused_into: str  # the neuron's path in the model

    def forward(self, x: Tensor) -> Any:
        # stand-ins for tensors, of which lowered and exported networks are made, see a plain norm
        if self.step_mode != "m" or type(x) is not Tensor or x.dim() not in _DIMS[self.plain_class]:
            return self.normalized(x)
        if torch.compiler.is_compiling():  # it traces no new tensor of a class of ours
            return Pending(x, self)
        if torch._C._are_functorch_transforms_active():
            return self.normalized(x)
        return Normalized.of(Pending(x, self))

    def normalized(self, x: Tensor) -> Tensor:
        """What its forward gave before it was fused, running averages and all."""
        y: Tensor = self.plain_class.forward(self, x)
        return y

    def uses_moments_of_the_batch(self) -> bool:
        norm: Any = self
        return bool(norm.training or (norm.running_mean is None and norm.running_var is None))

    def value(self) -> Norm:
        """What normalizes the next input; counts it as one more batch where averages are tracked."""
        norm: Any = self
        momentum = 0.0 if norm.momentum is None else norm.momentum
        if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:  # the average of all batches
                momentum = norm.num_batches_tracked.to(norm.running_mean.dtype).reciprocal()
        mean, var = norm.running_mean, norm.running_var
        if norm.training and not norm.track_running_stats:
            mean = var = None
        return Norm(mean, var, norm.weight, norm.bias, self.uses_moments_of_the_batch(), momentum, norm.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fused into {self.fused_into}"


class Pending(NamedTuple):
    """An input [T, N, C, *] and the batch norm that is still to be applied to it."""

    x: Tensor
    norm: FusedNorm


class Normalized(Tensor):
    """What a fused batch norm returns: ``pending``, and as soon as an operation reads it, its values."""

    pending: Pending
    _computed: Tensor | None

    @staticmethod
    def of(pending: Pending) -> "Normalized":
        norm: Any = pending.norm
        y: Normalized = _Normalize.apply(pending.x, norm.weight, norm.bias, norm)
        y.pending = pending
        return y

    @staticmethod
    def empty(x: Tensor) -> "Normalized":
        y: Normalized = Tensor._make_wrapper_subclass(
            Normalized, x.shape, strides=x.stride(), dtype=x.dtype, device=x.device
        )
        y._computed = None
        return y

    # a tensor that PyTorch's own functions take as any other, down to where its numbers are read
    # (with __torch_function__ on, every function of torch would be a Python call that changes nothing)
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(cls, cls.compute, (args, kwargs or {}))
        return func(*args, **kwargs)

    def compute(self) -> Tensor:
        """The normalized input, computed once."""
        if self._computed is None:
            with torch.no_grad():
                self._computed = self.pending.norm.normalized(self.pending.x.detach())
        return self._computed

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().__reduce_ex__(protocol)


def take(x: Any) -> tuple[Tensor, FusedNorm | None]:
    """The input of a neuron, and the batch norm that the neuron has to apply to it; most often none."""
    if isinstance(x, Normalized) and x._computed is None:
        x = x.pending
    return x if isinstance(x, Pending) else (x, None)


class _Normalize(torch.autograd.Function):
    """Batch normalization whose result is not computed before it is read."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: Any) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.eps = norm.eps
        # in evaluation the running averages as they are now; in training those of the batch, taken again
        ctx.moments = None if norm.uses_moments_of_the_batch() else (norm.running_mean, norm.running_var)
        return Normalized.empty(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # Only where somebody else than the neuron read the norm's output: the norm is run again, with the
        # moments it had, and differentiated by autograd.
        needed = ctx.needs_input_grad[:3]
        inputs = [
            None if value is None else value.detach().requires_grad_(needs)
            for value, needs in zip(ctx.saved_tensors, needed, strict=True)
        ]
        x, weight, bias = inputs
        assert x is not None
        mean, var = ctx.moments or (None, None)
        with torch.enable_grad():
            y = Norm(mean, var, weight, bias, ctx.moments is None, 0.0, ctx.eps).of(x)
        leaves = [value for value, needs in zip(inputs, needed, strict=True) if value is not None and needs]
        gradients = iter(torch.autograd.grad(y, leaves, grads[0]))
        return (*(next(gradients) if needs else None for needs in needed), None)


def become_fused(norm: nn.Module, path: str) -> None:
    """Makes a batch norm leave its work to the neuron at ``path``, in place."""
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
    kind = _fused_class(plain_class)
    return kind.__new__(kind)
