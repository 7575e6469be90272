"""Memories from one call to the next: fitted to the input that comes, or started anew."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..neuron import HistoryKernel


def first_step(x: Tensor, step_mode: str) -> Tensor:
    if step_mode == "s":
        return x
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"step_mode='m' takes x_seq [T, N, *] with T >= 1, got shape {list(x.shape)}")
    return x[0]


def fit_potential(v: Tensor | float, step: Tensor) -> Tensor:
    dtype = torch.promote_types(step.dtype, torch.float32) if step.is_floating_point() else torch.float32
    if isinstance(v, Tensor):
        if v.shape == step.shape:
            return v.to(device=step.device, dtype=dtype)
        v = 0.0
    return _one_value(float(v), step, step.shape, dtype)


def _one_value(value: float, step: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """One number seen in every place of ``shape``: a state at rest costs nothing to make, read or save."""
    if step.numel() == 0 or step.device.type == "meta":  # no first element, or no memory to save
        whole = torch.full_like(step, value, dtype=dtype, requires_grad=False)
        return whole if whole.shape == torch.Size(shape) else whole.expand(shape)
    # full_like is what SpikingJelly's counters of state traffic look for
    one = torch.full_like(step.detach()[(0,) * step.dim()], value, dtype=dtype)
    seen = one.expand(shape)
    if not torch.compiler.is_compiling():
        seen.holds = one  # type: ignore[attr-defined]  # the counters keep a weak reference to it
    return seen


def fit_history(history: Tensor | float, step: Tensor, kernel: HistoryKernel) -> Tensor:
    """A matrix remembers every input since the reset, a kernel of K taps the last K - 1."""
    grows = kernel.kind == "matrix"
    steps = 0 if grows else int(kernel.state_steps or 0)
    if isinstance(history, Tensor) and history.shape[1:] == step.shape and (grows or len(history) == steps):
        return history.to(device=step.device, dtype=step.dtype)
    return _one_value(0.0, step, (steps, *step.shape), step.dtype)


def appended(v_seq: Tensor | None, v: Tensor) -> Tensor:
    """v_seq [T, N, *] with one step more; started anew where the step no longer fits."""
    step = v.unsqueeze(0)
    if not isinstance(v_seq, Tensor) or v_seq.shape[1:] != v.shape or v_seq.dtype != v.dtype:
        return step.clone()
    return torch.cat([v_seq, step.to(v_seq.device)])
