"""What the kernels are told about a call, and which gradients go back."""

import torch
from torch import Tensor

from ..kernels.device import Field
from ._call import Call, Gradients, in_kernels

# what multiplies the spikes' gradient besides surrogates, by number in cuda/common.cuh
MASKED, NO_SPIKES, DONE = 6, 7, 8


def surrogate(call: Call, spikes: bool, masked: bool) -> tuple[int, list[Field]]:
    """The number of what multiplies the spikes' gradient, and its constants a, b (see arithmetic.h)."""
    if not spikes or call.surrogate is None:
        return NO_SPIKES, [0.0, 0.0]
    number, a, b = in_kernels(call.surrogate)
    return MASKED if masked else number, [a, b]


def packed(mask: Tensor | None) -> list[Field]:
    """A mask [T, A, bytes] as the kernels take it."""
    return [None, 0, 0] if mask is None else [mask, mask.shape[1] * mask.shape[2], mask.shape[2]]


def cpp(value: bool) -> str:
    return "true" if value else "false"


def chosen(gx: Tensor | None, found: dict[str, Tensor], call: Call, needs: tuple[bool, ...]) -> Gradients:
    """What ``needs`` asks for; kernel and threshold in their own dtypes, scale and shift as summed."""
    _, need_kernel, need_threshold, need_state, need_scale, need_shift = needs
    threshold = None
    if need_threshold and call.threshold is not None:  # no gradient reaches it but through spikes
        threshold = found.get("threshold", torch.zeros_like(call.threshold)).to(call.threshold.dtype)
    return Gradients(
        gx,
        _own(found["kernel"].to(call.kernel.dtype)) if need_kernel else None,
        threshold,
        found.get("state") if need_state else None,
        _own(found["scale"]) if need_scale else None,
        _own(found["shift"]) if need_shift else None,
    )


def _own(gradient: Tensor) -> Tensor:
    """In memory of its own: what an operator returns may share none with what else it returns."""
    return gradient.clone() if gradient.untyped_storage().nbytes() > gradient.nbytes else gradient
