"""Parameters that broadcast over a time step, in the form that the operators take: one number, or [C].

The operators run [C] along dim 1 of a step [N, C, *]. Frameworks accept whatever broadcasts: (C,), (C, 1, 1),
one value a neuron, even one a sample. Seen through the right view of the step, all of these are channels.
"""

from math import prod

import torch
from torch import Tensor


def channel_view(step: torch.Size, *shapes: torch.Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The view of a step in which parameters of ``shapes``, which broadcast over it, are one number or [C].

    The operators take parameters [1] or [C], along dim 1 of a step [N, C, *]; snnTorch takes whatever
    broadcasts: (C,), (C, 1, 1), one a neuron, even one a sample.

    Returns:
        (view, full): the view, and the shape to expand a parameter to before it is flat; empty for none.
    """
    for shape in shapes:
        pairs = zip(shape[::-1], step[::-1], strict=False)
        if len(shape) > len(step) or any(size not in (1, there) for size, there in pairs):
            raise ValueError(
                f"a parameter of shape {list(shape)} does not broadcast over a step {list(step)}"
            )
    varying = {dim for shape in shapes for dim, size in enumerate(shape) if size > 1}
    if varying <= {1}:
        flat = (
            tuple(step) if len(step) <= 5 else (*step[:2], prod(step[2:]))
        )  # the operators take [T, N, *] to 6-D
        return flat or (1,), ()
    if 0 in varying:
        return (1, prod(step)), tuple(step)
    return (step[0], prod(step[1:])), (1, *step[1:])


def as_columns(value: Tensor, full: tuple[int, ...], lead: int = 0) -> Tensor:
    """``value``, aligned with a step, as [.., 1] or [.., C] in the view that ``full`` belongs to."""
    front = value.shape[:lead]
    if full and value.shape[lead:].numel() > 1:
        value = value.expand(*front, *full)
    return value.reshape(*front, -1)
