"""A LIF neuron with a quantized potential as functions: the plain twin, and the loop written by hand.

Shapes: x [T, N, *]; decay and scale broadcast with one step [N, *], and a fixed decay is a number.
The equations are in :mod:`mfp_neurons.baseline`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._checks import describe, log_once
from .surrogate import Surrogate


@dataclass(frozen=True)
class Rule:
    """What one step does, apart from its tensors. Potentials are measured from ``v_reset``."""

    threshold: float
    hard: bool
    codes: tuple[int, int] | None  # lowest and highest code; None keeps a float potential
    detach_reset: bool
    strict: bool
    surrogate: Callable[[Tensor], Tensor]

    def fire(self, h: Tensor, out: Tensor) -> Tensor:
        """1 where h fires, else 0."""
        return (torch.gt if self.strict else torch.ge)(h, self.threshold, out=out)

    def reset(self, h: Tensor, s: Tensor, out: Tensor) -> Tensor:
        """The potential after the reset."""
        if self.hard:
            return torch.addcmul(h, h, s, value=-1, out=out)
        return torch.sub(h, s, alpha=self.threshold, out=out)

    def round_(self, v: Tensor, scale: Tensor) -> Tensor:
        """The potential as it is stored: the nearest code, times the scale; in place."""
        assert self.codes is not None
        return v.div_(scale).round_().clamp_(*self.codes).mul_(scale)


def fire(x: Tensor, decay: float | Tensor, scale: Tensor | None, rule: Rule) -> Tensor:
    """Spikes [T, N, *] from a potential at rest; fast where the surrogate is one of ours."""
    if torch.compiler.is_compiling():  # the compiler fuses the plain loop by itself
        return reference(x, decay, scale, rule)
    if not isinstance(rule.surrogate, Surrogate):
        log_once(
            "baseline.surrogate",
            f"QuantizedMembraneLIF: {describe(rule.surrogate)} is not one of mfp_neurons.surrogate, so "
            "autograd records every step: the same spikes and gradients, several times slower",
        )
        return reference(x, decay, scale, rule)
    tracked = [t for t in (x, decay, scale) if isinstance(t, Tensor) and t.requires_grad]
    if torch.is_grad_enabled() and tracked:
        return _Serial.apply(x, decay, scale, rule)
    return steps(x, decay, scale, rule, None)


def reference(x: Tensor, decay: float | Tensor, scale: Tensor | None, rule: Rule) -> Tensor:
    """The neuron as one reads it, step by step under autograd: the twin of the loop written by hand."""
    v = torch.zeros_like(x[0]) if len(x) else x.sum(0)
    spikes = []
    for x_t in x:
        h = decay * v + x_t
        s = _spike(h, rule)
        spikes.append(s)
        reset = s.detach() if rule.detach_reset else s
        v = h * (1 - reset) if rule.hard else h - rule.threshold * reset
        if scale is not None and rule.codes is not None:
            z = v / scale
            clamped = z.clamp(*rule.codes)
            z = torch.where(clamped == z, z, clamped.detach())  # the ends are inside, in every torch version
            v = (z + (z.round() - z).detach()) * scale
    return torch.stack(spikes) if spikes else torch.empty_like(x)


def _spike(h: Tensor, rule: Rule) -> Tensor:
    over = h - rule.threshold
    if not isinstance(rule.surrogate, Surrogate):
        return rule.surrogate(over).to(h.dtype)
    slope = rule.surrogate.derivative(over.detach())
    fired = h > rule.threshold if rule.strict else h >= rule.threshold
    return fired.to(h.dtype) + (h - h.detach()) * slope


class _Serial(torch.autograd.Function):
    """The loop over T with its backward written out; saves h [T, N, *] and nothing else of that size."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, decay: float | Tensor, scale: Tensor | None, rule: Rule
    ) -> Tensor:
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        spikes = steps(x, decay, scale, rule, h)
        ctx.save_for_backward(h, scale, decay if isinstance(decay, Tensor) else None)
        ctx.decay, ctx.rule = decay, rule
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        h, scale, decay_tensor = ctx.saved_tensors
        decay = ctx.decay if decay_tensor is None else decay_tensor
        return *_steps_backward(grad, h, decay, scale, ctx.rule), None


def _steps_backward(
    grad: Tensor, h_seq: Tensor, decay: float | Tensor, scale: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of x, decay and scale, from the last step to the first.

    With g_v = decay * g_h[t+1], which arrives at the stored potential, and the surrogate's derivative G:

        g_r = g_v where the code is inside its range, else 0
        g_h = g_r + G * (g_s - threshold * g_r)              soft reset
        g_h = g_r * (1 - s) + G * (g_s - h * g_r)            hard reset

    without the product in the bracket when the reset is detached; dL/dx[t] = g_h[t].
    """
    assert isinstance(rule.surrogate, Surrogate)  # fire sends the others to the twin
    grad_x = torch.empty_like(h_seq)
    g_v = torch.zeros(h_seq.shape[1:], dtype=h_seq.dtype, device=h_seq.device)
    s, r, clamped, G = (torch.empty_like(g_v) for _ in range(4))  # reused at every step
    sum_decay = torch.zeros_like(g_v) if isinstance(decay, Tensor) else None
    sum_scale = None if scale is None else torch.zeros_like(g_v)
    for t in range(len(h_seq) - 1, -1, -1):
        h, g_h = h_seq[t], grad_x[t]
        rule.fire(h, out=s)
        v = rule.reset(h, s, out=r)
        if scale is not None and sum_scale is not None and rule.codes is not None:
            z = r.div_(scale)
            inside = torch.clamp(z, *rule.codes, out=clamped).eq(z)
            codes = clamped.round_()
            sum_scale.addcmul_(g_v, codes).addcmul_(g_v, z.mul_(inside), value=-1)
            g_v.mul_(inside)
            v = codes.mul_(scale)
        if sum_decay is not None and t + 1 < len(h_seq):
            sum_decay.addcmul_(grad_x[t + 1], v)
        rule.surrogate.derivative_(torch.sub(h, rule.threshold, out=G))
        if rule.detach_reset:
            torch.mul(G, grad[t], out=g_h)
        elif rule.hard:
            torch.addcmul(grad[t], h, g_v, value=-1, out=g_h).mul_(G)
        else:
            torch.sub(grad[t], g_v, alpha=rule.threshold, out=g_h).mul_(G)
        g_h.add_(g_v)
        if rule.hard:
            g_h.addcmul_(g_v, s, value=-1)
        torch.mul(g_h, decay, out=g_v)
    return (
        grad_x,
        sum_decay.sum_to_size(decay.shape) if isinstance(decay, Tensor) and sum_decay is not None else None,
        sum_scale.sum_to_size(scale.shape) if scale is not None and sum_scale is not None else None,
    )


def steps(x: Tensor, decay: float | Tensor, scale: Tensor | None, rule: Rule, h_seq: Tensor | None) -> Tensor:
    """Runs the neuron over x [T, N, *] and returns its spikes; fills ``h_seq`` with h if it is given."""
    spikes = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    v = torch.zeros(x.shape[1:], dtype=x.dtype, device=x.device)
    h = torch.empty_like(v)
    for t in range(len(x)):
        if h_seq is not None:
            h = h_seq[t]
        if isinstance(decay, Tensor):
            torch.addcmul(x[t], v, decay, out=h)
        else:
            torch.add(x[t], v, alpha=decay, out=h)
        rule.reset(h, rule.fire(h, out=spikes[t]), out=v)
        if scale is not None:
            rule.round_(v, scale)
    return spikes
