"""Batch normalization and the neuron behind it as one ``torch.library`` operator, for training.

mfp_neurons::norm_fire   input -> spikes and potential, normalized with the input's own moments

It saves for backward its inputs and the moments, so of the input's size the input alone; neither the
normalized input nor the potential is kept. (In evaluation the normalization is a fixed affine map, which
``mfp_neurons::fire`` takes.) With y = scale * x + shift what the neuron gets, and sums over the M elements of
a channel:

    scale = weight * rstd, shift = bias - mean * scale, rstd = (variance + eps)^-1/2
    dweight = sum dL/dy * (x - mean) * rstd, dbias = sum dL/dy
    dL/dx = scale * (dL/dy - dbias / M - (x - mean) * rstd * dweight / M)
"""

# ruff: noqa: UP006, UP035 (torch 2.6 reads typing.List in an operator's signature, not list)

from typing import Any, List, NamedTuple, Optional

import torch
from torch import Tensor

from . import surrogate as _surrogate
from ._operators import (
    along_channels,
    empty_gradient,
    empty_potential,
    in_dtype,
    mark_continued,
    or_empty,
    or_none,
    refuse_double_backward,
    remember_before,
    saved,
)
from .backends import choose
from .backends._call import Call, Gradients, accumulate_dtype


class _Affine(NamedTuple):
    """A normalization by known moments as a map of each channel, [C], in the wide dtype."""

    scale: Tensor
    shift: Tensor
    rstd: Tensor


def affine(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, wide: torch.dtype
) -> _Affine:
    """scale and shift such that scale * x + shift is the normalized x."""
    rstd = (variance.to(wide) + eps).rsqrt()
    scale = rstd if weight is None else weight.to(wide) * rstd
    shift = -mean.to(wide) * scale
    return _Affine(scale, shift if bias is None else shift + bias.to(wide), rstd)


def last_given(x: Tensor, last: int, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * x + shift of the ``last`` steps: what the neuron got there, in the dtype of x."""
    ends = x[len(x) - last :].to(scale.dtype)
    y = torch.addcmul(along_channels(shift, x.dim()), ends, along_channels(scale, x.dim()))
    return y.to(x.dtype)


@torch.library.custom_op("mfp_neurons::norm_fire", mutates_args=())
def norm_fire(
    x: Tensor,
    weight: Optional[Tensor],  # noqa: UP045
    bias: Optional[Tensor],  # noqa: UP045
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    eps: float,
    last: int,
    kind: str,
    surrogate: str,
    parameters: List[float],
    strict: bool,
    record: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes, potential, the ``last`` steps of what the neuron got, mean and biased variance [C]."""
    wide = accumulate_dtype(x.dtype)
    chosen = choose(backend, x.device)
    with torch.autocast(x.device.type, enabled=False):
        mean, variance = chosen.channel_moments(x)
        scale, shift, _ = affine(mean, variance, weight, bias, eps, wide)
        derivative = _surrogate.from_name(surrogate, parameters)
        call = Call(kind, kernel, threshold, state, derivative, strict, scale, shift)
        spikes, u = chosen.forward(x, call, record)
        given = last_given(x, last, scale, shift)
    return spikes, u, given.contiguous(), mean, variance


@norm_fire.register_fake
def _(  # type: ignore[no-untyped-def]
    x, weight, bias, kernel, threshold, state, eps, last, kind, surrogate, parameters, strict, record, backend
):
    given = torch.empty((last, *x.shape[1:]), dtype=x.dtype, device=x.device)
    mean = torch.empty(x.shape[2], dtype=accumulate_dtype(x.dtype), device=x.device)
    return torch.empty_like(x), empty_potential(x, record), given, mean, torch.empty_like(mean)


@torch.library.custom_op("mfp_neurons::norm_fire_backward", mutates_args=())
def norm_fire_backward(
    grad_spikes: Optional[Tensor],  # noqa: UP045
    grad_u: Optional[Tensor],  # noqa: UP045
    grad_given: Optional[Tensor],  # noqa: UP045
    x: Tensor,
    weight: Optional[Tensor],  # noqa: UP045
    bias: Optional[Tensor],  # noqa: UP045
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    mean: Tensor,
    variance: Tensor,
    eps: float,
    kind: str,
    surrogate: str,
    parameters: List[float],
    record: bool,
    backend: str,
    needs: List[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    need_x, need_weight, need_bias, *others = needs
    normalizes = need_x or need_weight or need_bias
    chosen = choose(backend, x.device)
    if grad_spikes is None and grad_u is None:
        grad_spikes = torch.zeros_like(x)
    with torch.autocast(x.device.type, enabled=False):
        map_ = affine(mean, variance, weight, bias, eps, accumulate_dtype(x.dtype))
        derivative = _surrogate.from_name(surrogate, parameters)
        call = Call(kind, kernel, threshold, state, derivative, scale=map_.scale, shift=map_.shift)
        grads = chosen.backward(
            grad_spikes, grad_u, x, call, record, (need_x, *others, normalizes, normalizes)
        )
        g_weight = g_bias = None
        if normalizes:
            g_scale, g_bias = _sums(grads, grad_given, x, map_.scale)
            g_weight = map_.rstd * (g_scale - mean * g_bias)
            if grads.x is not None:
                factor = -map_.scale * map_.rstd * g_weight / (x.numel() // x.shape[2])
                offset = -map_.scale * g_bias / (x.numel() // x.shape[2]) - mean * factor
                chosen.add_channel_affine_(grads.x, x, factor.to(mean.dtype), offset.to(mean.dtype))
    return (
        or_empty(grads.x, x),
        or_empty(in_dtype(g_weight if need_weight else None, weight), x),
        or_empty(in_dtype(g_bias if need_bias else None, bias), x),
        or_empty(grads.kernel, x),
        or_empty(grads.threshold, x),
        or_empty(grads.state, x),
    )


def _sums(grads: Gradients, grad_given: Tensor | None, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of scale and shift in float64; adds to ``grads.x`` what came through the last steps."""
    assert grads.scale is not None and grads.shift is not None
    g_scale, g_shift = grads.scale.double(), grads.shift.double()
    if grad_given is None or len(grad_given) == 0:
        return g_scale, g_shift
    first, others = len(x) - len(grad_given), [d for d in range(x.dim()) if d != 2]
    part = grad_given.to(scale.dtype)
    if grads.x is not None:
        grads.x[first:].add_(part * along_channels(scale, x.dim()))
    return g_scale + (part * x[first:]).sum(others), g_shift + part.sum(others)


@norm_fire_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    gs, gu, gg, x, weight, bias, kernel, threshold, state, mean, variance,
    eps, kind, surrogate, parameters, record, backend, needs,
):  # fmt: skip
    gx = torch.empty_like(x) if needs[0] else x.new_empty(0)
    others = (weight, bias, kernel, threshold, state)
    return gx, *(empty_gradient(tensor, wanted, x) for tensor, wanted in zip(others, needs[1:], strict=True))


def _setup_norm_fire(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    eps, _, kind, surrogate, parameters, _, record, backend = inputs[6:]
    mean, variance = output[3:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, variance)
    ctx.save_for_backward(*inputs[:6], mean, variance)
    remember_before(ctx, inputs[5])
    ctx.rest = (eps, kind, surrogate, parameters, record, backend)


def _backward_norm_fire(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[:6])
    outputs = grads[:3]
    if all(grad is None for grad in outputs):
        return (None,) * 14
    tensors = saved(ctx)
    if needs[5]:
        mark_continued(ctx)
    got = norm_fire_backward(*outputs, *tensors, *ctx.rest, needs)
    return (*map(or_none, got, needs), *[None] * 8)


norm_fire.register_autograd(_backward_norm_fire, setup_context=_setup_norm_fire)
norm_fire_backward.register_autograd(refuse_double_backward)
