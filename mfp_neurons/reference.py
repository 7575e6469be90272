"""The definition, in plain PyTorch that autograd differentiates. Nothing here may be fast.

Shapes: x_seq [T, N, *], time first; per-channel parameters [C] run along dim 2. Run it in float64 to judge
the operators in :mod:`mfp_neurons.functional`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .history import Exponential, Kernel, Matrix, as_row


def membrane_potential(x_seq: Tensor, kernel: Kernel) -> Tensor:
    """u[t] = sum over j = 0 .. min(t, K-1) of m[j] * x[t-j].   [T, N, *] -> [T, N, *]"""
    rows = []
    for t in range(len(x_seq)):
        u = torch.zeros_like(x_seq[0])
        for j in range(t + 1):
            u = u + tap(kernel, t, j, x_seq) * x_seq[t - j]
        rows.append(u)
    return torch.stack(rows)


def tap(kernel: Kernel, t: int, j: int, x_seq: Tensor) -> Tensor:
    """The weight at step t of the input j steps back, shaped to multiply one step [N, *]."""
    if isinstance(kernel, Matrix):
        return kernel.matrix[t, t - j].to(x_seq)
    if isinstance(kernel, Exponential):
        within = kernel.order is None or j < kernel.order
        m = as_row(kernel.gain) * as_row(kernel.decay) ** j if within else torch.zeros(1)
    else:
        m = kernel.taps[j] if j < len(kernel.taps) else torch.zeros(1)
    return per_channel(m.to(x_seq), x_seq.dim() - 1)


def per_channel(value: Tensor, step_dims: int) -> Tensor:
    """[C] as [C, 1, ..., 1], to run along dim 1 of one step [N, C, *]; [1] and scalars as they are."""
    return value.reshape(-1, *[1] * (step_dims - 2)) if value.numel() > 1 else value.reshape(())


def fire(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float = 1.0,
    *,
    surrogate: Callable[[Tensor], Tensor],
    strict: bool = False,
    reset: str | None = None,
    reset_order: int | None = None,
    reset_taps: Tensor | None = None,
    reset_delay: bool = False,
    detach_reset: bool = False,
) -> Tensor:
    """s[t] = 1 if u[t] >= v_threshold (strict: u[t] > v_threshold) else 0, with the surrogate's gradient.

    With ``reset="zero"`` the sum over j stops at the neuron's last own spike; with "subtract" and "feedback"
    u[t] is what :func:`membrane_potential` gives plus the sum over j = 1 .. min(t, R) of r[j] * s[t-j].
    """
    threshold = per_channel(as_row(v_threshold).to(x_seq), x_seq.dim() - 1)
    spikes: list[Tensor] = []
    for t in range(len(x_seq)):
        u, silent = torch.zeros_like(x_seq[0]), torch.ones_like(x_seq[0])
        own = [spike.detach() if detach_reset else spike for spike in reversed(spikes)]  # own[j-1] is s[t-j]
        for j in range(t + 1):
            u = u + silent * tap(kernel, t, j, x_seq) * x_seq[t - j]
            if reset == "zero" and j < t:
                silent = silent * (1 - own[j])
        for j in range(1, t + 1):
            if reset == "feedback" and reset_taps is not None and j <= len(reset_taps):
                u = u + per_channel(reset_taps[j - 1].to(x_seq), x_seq.dim() - 1) * own[j - 1]
            if (
                reset == "subtract"
                and isinstance(kernel, Exponential)
                and j <= _reset_order(kernel, reset_order, t)
            ):
                decay = per_channel(as_row(kernel.decay).to(x_seq), x_seq.dim() - 1)
                u = u - threshold * decay ** (j - 1 if reset_delay else j) * own[j - 1]
        smooth = surrogate(
            u - threshold
        )  # its value is discarded where it fires on other ties; its gradient stays
        fires = (u > threshold if strict else u >= threshold).to(x_seq.dtype)
        spikes.append(fires + (smooth - smooth.detach()))
    return torch.stack(spikes)


def _reset_order(kernel: Exponential, reset_order: int | None, t: int) -> int:
    if reset_order is not None:
        return reset_order
    return t if kernel.order is None else kernel.order - 1
