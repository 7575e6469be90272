"""Memories from one call to the next: fitted to the input that comes, or started anew."""

from typing import Any

import torch
from torch import Tensor

from .._arguments import real_dtype
from ..backends import accumulate_dtype


def step_shape(x: Tensor, step_mode: str) -> torch.Size:
    r"""[N, \*] of an input [N, \*] ("s") or [T, N, \*] ("m")."""
    if step_mode == "s":
        return x.shape
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"step_mode='m' takes x_seq [T, N, *] with T >= 1, got shape {list(x.shape)}")
    return x.shape[1:]


def potential_dtype(x: Tensor) -> torch.dtype:
    """In which the potential of a neuron with input ``x`` is kept."""
    return accumulate_dtype(real_dtype(x))


def fit_potential(v: Tensor | float | None, x: Tensor, step: torch.Size, rest: float) -> Tensor | None:
    """v as it enters a step of that shape; None where v is None, ``rest`` or of another shape."""
    if isinstance(v, Tensor):
        return _own(v).to(device=x.device, dtype=potential_dtype(x)) if v.shape == step else None
    return None if v is None or float(v) == rest else filled(float(v), x, step, potential_dtype(x))


def fit_past(past: Any, x: Tensor, step: torch.Size, steps: int | None) -> Tensor | None:
    """The inputs or own spikes that a step of that shape goes on from; None at rest.

    Args:
        past: what the memory holds.
        x: the input that comes.
        step: the shape of one step of it.
        steps: how many steps are remembered; None for every step since the reset (a matrix).
    """
    if not isinstance(past, Tensor) or past.shape[1:] != step or steps not in (None, len(past)):
        return None
    return _own(past).to(device=x.device, dtype=real_dtype(x))


def past_at_rest(x: Tensor, step: torch.Size, steps: int | None) -> Tensor:
    """The inputs or spikes before the first step, as a tensor: zeros, of a matrix none."""
    return filled(0.0, x, torch.Size((steps or 0, *step)), real_dtype(x))


def filled(value: float, x: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """One number in every place of ``shape``, on the device of ``x``: it takes the memory of one."""
    if x.device.type == "meta":
        return torch.full_like(torch.empty(shape, device=x.device), value, dtype=dtype)
    # full_like is what SpikingJelly's counters of state traffic look for
    one = torch.full_like(torch.empty((), device=x.device), value, dtype=dtype)
    spread = one.expand(shape)
    if not torch.compiler.is_compiling():
        spread.holds = one  # type: ignore[attr-defined]  # the counters keep a weak reference to it
    return spread


def appended(v_seq: Tensor | None, v: Tensor) -> Tensor:
    """v_seq [T, N, *] with one step more; started anew where the step no longer fits."""
    step = v.unsqueeze(0)
    if not isinstance(v_seq, Tensor) or v_seq.shape[1:] != v.shape or v_seq.dtype != v.dtype:
        return step.clone()
    return torch.cat([v_seq, step.to(v_seq.device)])


def _own(state: Tensor) -> Tensor:
    """A state that torch.inference_mode left cannot be saved for backward; its copy can."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or not state.is_inference():
        return state
    return state.clone()
