"""torch.compile as a peer: of the plain recursion that anybody would write, and of SpikingJelly's LIFNode."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .timing import Skip

Layer = Callable[[Tensor], Tensor]


class _Spike(torch.autograd.Function):
    """Heaviside forward, the derivative of ATan (alpha = 2) backward."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (v,) = ctx.saved_tensors
        return grad / (1 + (torch.pi * v) ** 2)


def recursion(tau: float) -> Layer:
    """The neuron in the fewest lines: u = (1 - 1/tau) u + x/tau, spikes where u >= 1, no reset.

    >>> recursion(2.0)(torch.tensor([[2.0], [0.0], [2.0]])).flatten()  # u = 1, 0.5, 1.25
    tensor([1., 0., 1.])
    """
    gain = 1 / tau

    def call(x_seq: Tensor) -> Tensor:
        u = torch.zeros_like(x_seq[0], dtype=torch.float32)
        spikes = []
        for x in x_seq.unbind(0):
            u = (1 - gain) * u + gain * x
            spikes.append(_Spike.apply(u - 1).to(x.dtype))
        return torch.stack(spikes)

    return call


def check(steps: int, most: int, dtype: torch.dtype) -> None:
    """Raises :class:`Skip` where compiling takes minutes, or shows nothing new."""
    if steps > most:
        raise Skip(f"the compiler unrolls the loop over time, for minutes: not tried above T = {most}")
    if dtype == torch.bfloat16:
        raise Skip("compiled for float32 and float16 alone: each takes a minute more")


def compile_for_one_shape(layer: Any) -> Layer:
    return torch.compile(layer, dynamic=False)  # type: ignore[no-any-return]


def forget() -> None:
    """Drops what was compiled for the row before."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
