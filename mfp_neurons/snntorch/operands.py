"""How the operators see one step: a view of it, with kernel and threshold as columns of that view."""

from dataclasses import replace

import torch
from torch import Tensor

from .._broadcast import as_columns, channel_view
from ..history import FIR, Exponential, Kernel

Operands = tuple[tuple[int, ...], Kernel, Tensor]


def operands(
    kernel: Kernel, threshold: Tensor, spread: tuple[int, ...], step: torch.Size, steps: int | None
) -> Operands:
    """View, kernel and threshold for steps of shape ``step``.

    ``spread`` is the shape in which the kernel's values broadcast over a step; ``steps`` the length of the
    whole sequence, None where more of it may follow.
    """
    threshold = threshold.reshape((*[1] * (len(step) - threshold.dim()), *threshold.shape))
    if isinstance(kernel, Exponential):
        return _exponential(kernel, threshold, spread, step, steps)
    if isinstance(kernel, FIR):
        taps = spread_over(kernel.taps, spread, len(step), lead=1)
        view, full = channel_view(step, threshold.shape, taps.shape[1:])
        return view, FIR(as_columns(taps, full, lead=1)), as_columns(threshold, full)
    view, full = channel_view(step, threshold.shape)
    return view, kernel, as_columns(threshold, full)


def _exponential(
    kernel: Exponential, threshold: Tensor, spread: tuple[int, ...], step: torch.Size, steps: int | None
) -> Operands:
    if steps and kernel.order is not None and kernel.order >= steps:
        kernel = replace(kernel, order=None)  # not truncated within this sequence: the cheaper recursion
    decay, gain = (  # a number is the same on every device
        spread_over(v, spread, len(step)) if isinstance(v, Tensor) else v for v in (kernel.decay, kernel.gain)
    )
    shapes = [value.shape for value in (threshold, decay, gain) if isinstance(value, Tensor)]
    view, full = channel_view(step, *shapes)
    decay, gain = (as_columns(v, full) if isinstance(v, Tensor) else v for v in (decay, gain))
    kernel = replace(kernel, decay=decay, gain=gain)
    return view, kernel, as_columns(threshold, full)


def spread_over(value: Tensor, spread: tuple[int, ...], dims: int, lead: int = 0) -> Tensor:
    """``value`` [.., 1] or [.., P] to broadcast over a step of ``dims``, behind its ``lead`` dimensions."""
    front = value.shape[:lead]
    if value.shape[lead:].numel() == 1:
        return value.reshape((*front, *[1] * dims))  # of a step without dimensions, an empty shape
    return value.reshape((*front, *[1] * (dims - len(spread)), *spread))
