"""The neuron on CUDA kernels, compiled and launched through CuPy. Twin: :mod:`mfp_neurons.backends.torch`.

Every tensor is read where it lies unless its strides allow no [T, A, B] view (see ``_rows``). Nothing waits
for the device; memory is torch's, so that CUDA graphs can be captured; all sums have a fixed order.
"""

from types import ModuleType

import torch
from torch import Tensor

from . import _cuda_exp, _cuda_finite, _cuda_fir
from ._call import Call, Gradients, accumulate_dtype
from ._cuda_channels import add_affine_ as add_channel_affine_
from ._cuda_channels import moments as channel_moments
from ._rows import Rows, mask_shape

__all__ = [
    "add_channel_affine_",
    "backward",
    "backward_masked",
    "channel_moments",
    "forward",
    "forward_masked",
    "mask_shape",
]


def forward(x: Tensor, call: Call, record: bool, potential: bool = True) -> tuple[Tensor | None, Tensor]:
    """Spikes (None without a threshold) and the potential, of every step if ``record``, else of the last.

    Without ``potential`` nobody asks for it: then it is empty, and its bytes are not moved.
    """
    spikes = None if call.threshold is None else torch.empty_like(x)
    return spikes, _forward(x, call, record, potential, _rows(x, call), spikes, None)


def forward_masked(
    x: Tensor, call: Call, record: bool, potential: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`forward`, and one bit a neuron and step: where its Rect surrogate's derivative is not zero."""
    spikes = torch.empty_like(x)
    rows = _rows(spikes, call)
    mask = torch.empty(rows.mask_shape, dtype=torch.uint8, device=x.device)
    return spikes, _forward(x, call, record, potential, rows, spikes, mask), mask


def backward(
    grad_spikes: Tensor | None,
    grad_u: Tensor | None,
    x: Tensor,
    call: Call,
    record: bool,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients for (x, kernel, threshold, state, scale, shift) where ``needs`` asks for them."""
    return _backward(grad_spikes, grad_u, x, None, call, record, needs)


def backward_masked(
    grad_spikes: Tensor,
    grad_u: Tensor | None,
    mask: Tensor,
    call: Call,
    record: bool,
    needs: tuple[bool, bool],
) -> Gradients:
    """The gradients for (x, state) that :func:`backward` gives, bit for bit, from the mask instead of x.

    ``grad_spikes`` must have the strides of the spikes; of ``call.state`` the shape and dtype are read alone.
    """
    return _backward(
        grad_spikes, grad_u, None, mask, call, record, (needs[0], False, False, needs[1], False, False)
    )


def _rows(tensor: Tensor, call: Call) -> Rows:
    return Rows.of_call(tensor, call.per_channel)


def _kernels(call: Call, steps: int) -> ModuleType:
    if call.kind == "exp":
        return _cuda_exp
    return _cuda_fir if _cuda_fir.takes(call, steps) else _cuda_finite


def _forward(
    x: Tensor,
    call: Call,
    record: bool,
    potential: bool,
    rows: Rows,
    spikes: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    wide = accumulate_dtype(x.dtype)
    if not potential:
        u = torch.empty(0, dtype=wide, device=x.device)
    elif record:
        u = torch.empty_like(x, dtype=wide)
    else:
        u = torch.empty(x.shape[1:], dtype=wide, device=x.device)
    if x.numel() > 0:
        written = None if not potential else u if record else u.unsqueeze(0)
        _kernels(call, len(x)).forward(x, call, rows, spikes, written, mask)
    return u


def _backward(
    grad_spikes: Tensor | None,
    grad_u: Tensor | None,
    x: Tensor | None,
    mask: Tensor | None,
    call: Call,
    record: bool,
    needs: tuple[bool, ...],
) -> Gradients:
    like = x if x is not None else grad_spikes
    assert like is not None
    if like.numel() == 0:
        return _of_nothing(like, call, needs)
    du = grad_u if grad_u is None or record else grad_u.unsqueeze(0)
    kernels = _kernels(call, len(like))
    return kernels.backward(grad_spikes, du, x, mask, call, _rows(like, call), like, needs)


def _of_nothing(like: Tensor, call: Call, needs: tuple[bool, ...]) -> Gradients:
    """Of an empty batch: empty for the input and the state, zero for the parameters."""
    tensors = (like, call.kernel, call.threshold, call.state, call.scale, call.shift)
    return Gradients(
        *(
            torch.zeros_like(t) if need and t is not None else None
            for need, t in zip(needs, tensors, strict=True)
        )
    )
