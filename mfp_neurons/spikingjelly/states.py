"""Memories from one call to the next: fitted to the input that comes, or started anew."""

import torch
from torch import Tensor

from ..neuron import HistoryKernel


def first_step(x: Tensor, step_mode: str) -> Tensor:
    if step_mode == "s":
        return x
    if x.dim() == 0 or len(x) == 0:
        raise ValueError(f"step_mode='m' takes x_seq [T, N, *] with T >= 1, got shape {list(x.shape)}")
    return x[0]


def fit_potential(v: Tensor | float, step: Tensor) -> Tensor:
    dtype = torch.promote_types(step.dtype, torch.float32) if step.is_floating_point() else torch.float32
    if isinstance(v, Tensor):
        fits = v.shape == step.shape
        return v.to(device=step.device, dtype=dtype) if fits else torch.zeros_like(step, dtype=dtype)
    return torch.full_like(step, float(v), dtype=dtype, requires_grad=False)


def fit_history(history: Tensor | float, step: Tensor, kernel: HistoryKernel) -> Tensor:
    """A matrix remembers every input since the reset, a kernel of K taps the last K - 1."""
    grows = kernel.kind == "matrix"
    steps = 0 if grows else int(kernel.state_steps or 0)
    if isinstance(history, Tensor) and history.shape[1:] == step.shape and (grows or len(history) == steps):
        return history.to(device=step.device, dtype=step.dtype)
    return step.new_zeros((steps, *step.shape))


def appended(v_seq: Tensor | None, v: Tensor) -> Tensor:
    """v_seq [T, N, *] with one step more; started anew where the step no longer fits."""
    step = v.unsqueeze(0)
    if not isinstance(v_seq, Tensor) or v_seq.shape[1:] != v.shape or v_seq.dtype != v.dtype:
        return step.clone()
    return torch.cat([v_seq, step.to(v_seq.device)])
