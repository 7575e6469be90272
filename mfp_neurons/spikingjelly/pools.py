"""Max pooling that keeps for backward a byte of each window, and neither its input nor eight bytes."""

from typing import Any

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .._checks import is_traced
from ..backends import Pool, choose

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_SMALL = 64  # numbers an image up to which torch's own pooling takes as long


class CompactMaxPool2d(layer.MaxPool2d):  # type: ignore[misc]
    """SpikingJelly's MaxPool2d, bit for bit, with a kernel of this package for images on CPUs.

    Spikes of 0 and 1 are equal in most windows; as in torch, the gradient goes to the first of the largest.
    """

    def forward(self, x: Tensor) -> Any:
        images = x.flatten(0, 1) if self.step_mode == "m" and x.dim() == 5 else x
        pool = self._pool(images)
        if pool is None:
            return super().forward(x)
        y: Tensor = _MaxPool.apply(images, pool)
        return y if images is x else y.unflatten(0, x.shape[:2])

    def _pool(self, x: Tensor) -> Pool | None:
        """What the kernel is asked for, or None where torch's own max pooling does it."""
        if is_traced((x,)) or not (x.is_cpu and x.dim() == 4 and x.is_contiguous() and x.dtype in _FLOATS):
            return None
        if self.ceil_mode or self.return_indices or _pair(self.dilation) != (1, 1):
            return None
        height, width = x.shape[2:]
        pool = Pool((height, width), _pair(self.kernel_size), _pair(self.stride), _pair(self.padding))
        is_small = height * width < _SMALL or x.numel() == 0
        if is_small or not pool.is_valid or not hasattr(choose("auto", x.device), "max_pool"):
            return None
        return pool


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: Pool) -> Tensor:
        y, places = choose("auto", x.device).max_pool(x, pool)
        ctx.save_for_backward(places)
        ctx.pool = pool
        return y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (places,) = ctx.saved_tensors
        return choose("auto", grad.device).max_pool_gradient(grad.contiguous(), places, ctx.pool), None


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)  # type: ignore[return-value]


def compact_pools(model: nn.Module) -> tuple[str, ...]:
    """Makes SpikingJelly's max pools compact, in place; returns their paths. A subclass stays what it is."""
    found = {path: module for path, module in model.named_modules() if type(module) is layer.MaxPool2d}
    for pool in found.values():
        pool.__class__ = CompactMaxPool2d
    return tuple(found)
