"""The neuron as ``torch.library`` operators: opaque to torch.compile, with fake and autograd rules.

mfp_neurons::fire         input -> spikes and potential, all time steps at once
mfp_neurons::fire_masked  the same with a rectangular surrogate and parameters that need no gradient
mfp_neurons::potential    input -> potential alone, for spikes decided outside

They save their inputs for backward and nothing else; fire_masked saves one bit an element instead. Raw
tensors only; :mod:`mfp_neurons.functional` is where arguments are checked and kernels become tensors.
"""

from typing import Any, List, Optional

import torch
from torch import Tensor

from . import surrogate as _surrogate
from ._operators import (
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
from .backends._call import Call

# torch.library reads these annotations; on torch 2.6 it knows Optional and List, not unions by | and not list


@torch.library.custom_op("mfp_neurons::fire", mutates_args=())
def fire(
    x: Tensor,
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    scale: Optional[Tensor],  # noqa: UP045
    shift: Optional[Tensor],  # noqa: UP045
    kind: str,
    surrogate: str,
    parameters: List[float],
    strict: bool,
    record: bool,
    backend: str,
    potential: bool = True,
) -> tuple[Tensor, Tensor]:
    """Spikes and potential: of every step (``record``), of the last, or none at all (an empty tensor)."""
    derivative = _surrogate.from_name(surrogate, parameters)
    call = Call(kind, kernel, threshold, state, derivative, strict, scale, shift)
    with torch.autocast(x.device.type, enabled=False):
        spikes, u = choose(backend, x.device).forward(x, call, record, potential)
    return spikes, u


@fire.register_fake
def _(  # type: ignore[no-untyped-def]
    x, kernel, threshold, state, scale, shift, kind, surrogate, parameters, strict, record, backend,
    potential=True,
):  # fmt: skip
    return torch.empty_like(x), empty_potential(x, record, potential)


@torch.library.custom_op("mfp_neurons::fire_backward", mutates_args=())
def fire_backward(
    grad_spikes: Optional[Tensor],  # noqa: UP045
    grad_u: Optional[Tensor],  # noqa: UP045
    x: Tensor,
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    scale: Optional[Tensor],  # noqa: UP045
    shift: Optional[Tensor],  # noqa: UP045
    kind: str,
    surrogate: str,
    parameters: List[float],
    record: bool,
    backend: str,
    needs: List[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    derivative = _surrogate.from_name(surrogate, parameters)
    call = Call(kind, kernel, threshold, state, derivative, scale=scale, shift=shift)
    with torch.autocast(x.device.type, enabled=False):
        grads = choose(backend, x.device).backward(grad_spikes, grad_u, x, call, record, tuple(needs))
    return (
        or_empty(grads.x, x),
        or_empty(grads.kernel, x),
        or_empty(grads.threshold, x),
        or_empty(grads.state, x),
        or_empty(in_dtype(grads.scale, scale), x),
        or_empty(in_dtype(grads.shift, shift), x),
    )


@fire_backward.register_fake
def _(gs, gu, x, kernel, threshold, state, scale, shift, kind, surrogate, parameters, record, backend, needs):  # type: ignore[no-untyped-def]
    gx = torch.empty_like(x) if needs[0] else x.new_empty(0)
    others = (kernel, threshold, state, scale, shift)
    return gx, *(empty_gradient(tensor, wanted, x) for tensor, wanted in zip(others, needs[1:], strict=True))


def _setup_fire(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    kind, surrogate, parameters, _, record, backend, _ = inputs[6:]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6])
    remember_before(ctx, inputs[3])
    ctx.rest = (kind, surrogate, parameters, record, backend)


def _backward_fire(ctx: Any, grad_spikes: Tensor | None, grad_u: Tensor | None) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[:6])
    if grad_spikes is None and grad_u is None:
        return (None,) * 13
    tensors = saved(ctx)
    if needs[3]:
        mark_continued(ctx)
    grads = fire_backward(grad_spikes, grad_u, *tensors, *ctx.rest, needs)
    return (*map(or_none, grads, needs), *[None] * 7)


fire.register_autograd(_backward_fire, setup_context=_setup_fire)


@torch.library.custom_op("mfp_neurons::fire_masked", mutates_args=())
def fire_masked(
    x: Tensor,
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    scale: Optional[Tensor],  # noqa: UP045
    shift: Optional[Tensor],  # noqa: UP045
    kind: str,
    alpha: float,
    strict: bool,
    record: bool,
    backend: str,
    potential: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`fire` with Rect(alpha), differentiable in x and state alone; the third output is its mask."""
    call = Call(kind, kernel, threshold, state, _surrogate.Rect(alpha), strict, scale, shift)
    with torch.autocast(x.device.type, enabled=False):
        spikes, u, mask = choose(backend, x.device).forward_masked(x, call, record, potential)
    return spikes, u, mask


@fire_masked.register_fake
def _(  # type: ignore[no-untyped-def]
    x, kernel, threshold, state, scale, shift, kind, alpha, strict, record, backend, potential=True
):
    call = Call(kind, kernel, threshold, state, None, strict, scale, shift)
    shape = choose(backend, x.device).mask_shape(x, call.per_channel)
    mask = torch.empty(shape, dtype=torch.uint8, device=x.device)
    return torch.empty_like(x), empty_potential(x, record, potential), mask


@torch.library.custom_op("mfp_neurons::fire_masked_backward", mutates_args=())
def fire_masked_backward(
    grad_spikes: Tensor,
    grad_u: Optional[Tensor],  # noqa: UP045
    mask: Tensor,
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    scale: Optional[Tensor],  # noqa: UP045
    shift: Optional[Tensor],  # noqa: UP045
    kind: str,
    alpha: float,
    record: bool,
    backend: str,
    needs: List[bool],
) -> tuple[Tensor, Tensor]:
    call = Call(kind, kernel, threshold, state, _surrogate.Rect(alpha), scale=scale, shift=shift)
    device = grad_spikes.device
    with torch.autocast(device.type, enabled=False):
        run = choose(backend, device).backward_masked
        grads = run(grad_spikes, grad_u, mask, call, record, tuple(needs))
    return or_empty(grads.x, grad_spikes), or_empty(grads.state, grad_spikes)


@fire_masked_backward.register_fake
def _(gs, gu, mask, kernel, threshold, state, scale, shift, kind, alpha, record, backend, needs):  # type: ignore[no-untyped-def]
    gx = torch.empty_like(gs) if needs[0] else gs.new_empty(0)
    return gx, empty_gradient(state, needs[1], gs)


def _setup_fire_masked(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _x, kernel, threshold, state, scale, shift, kind, alpha, _, record, backend, _ = inputs
    spikes, _, mask = output
    ctx.set_materialize_grads(False)
    remember_before(ctx, state)
    if state is not None:  # backward reads its shape and dtype alone
        state = state.new_empty(()).expand(state.shape)
    ctx.save_for_backward(mask, kernel, threshold, state, scale, shift)
    ctx.spikes = (spikes.shape, spikes.stride(), spikes.dtype)
    ctx.rest = (kind, alpha, record, backend)


def _backward_fire_masked(ctx: Any, grad_spikes: Tensor | None, grad_u: Tensor | None, _: Any) -> Any:
    mask, *rest = saved(ctx)
    needs = [ctx.needs_input_grad[0], ctx.needs_input_grad[3]]
    if grad_spikes is None and grad_u is None:
        return (None,) * 12
    shape, strides, dtype = ctx.spikes
    if grad_spikes is None or grad_spikes.stride() != strides:  # a mask is in the order of the spikes
        came = grad_spikes
        grad_spikes = torch.empty_strided(shape, strides, dtype=dtype, device=mask.device)
        grad_spikes = grad_spikes.zero_() if came is None else grad_spikes.copy_(came)
    if torch.is_grad_enabled() and not grad_spikes.requires_grad:
        # create_graph: no tensor of the mask's leads back to x, and yet a second derivative is to be refused
        grad_spikes = grad_spikes.detach().requires_grad_()
    if needs[1]:
        mark_continued(ctx)
    gx, g_state = fire_masked_backward(grad_spikes, grad_u, mask, *rest, *ctx.rest, needs)
    return (or_none(gx, needs[0]), None, None, or_none(g_state, needs[1]), *[None] * 8)


fire_masked.register_autograd(_backward_fire_masked, setup_context=_setup_fire_masked)


@torch.library.custom_op("mfp_neurons::potential", mutates_args=())
def potential(x: Tensor, kernel: Tensor, state: Optional[Tensor], kind: str, backend: str) -> Tensor:  # noqa: UP045
    with torch.autocast(x.device.type, enabled=False):
        _, u = choose(backend, x.device).forward(x, Call(kind, kernel, state=state), True)
    return u


@potential.register_fake
def _(x, kernel, state, kind, backend):  # type: ignore[no-untyped-def]
    return empty_potential(x, True)


@torch.library.custom_op("mfp_neurons::potential_backward", mutates_args=())
def potential_backward(
    grad_u: Tensor,
    x: Tensor,
    kernel: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    kind: str,
    backend: str,
    needs: List[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(kind, kernel, state=state)
    needed = (needs[0], needs[1], False, needs[2], False, False)
    with torch.autocast(x.device.type, enabled=False):
        grads = choose(backend, x.device).backward(None, grad_u, x, call, True, needed)
    return or_empty(grads.x, x), or_empty(grads.kernel, x), or_empty(grads.state, x)


@potential_backward.register_fake
def _(grad_u, x, kernel, state, kind, backend, needs):  # type: ignore[no-untyped-def]
    gx = torch.empty_like(x) if needs[0] else x.new_empty(0)
    return gx, empty_gradient(kernel, needs[1], x), empty_gradient(state, needs[2], x)


def _setup_potential(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, kernel, state, kind, backend = inputs
    ctx.set_materialize_grads(False)
    remember_before(ctx, state)
    if not ctx.needs_input_grad[1]:  # linear in x: only the taps' gradient reads its values
        x = x.new_empty(()).expand(x.shape)
    ctx.save_for_backward(x, kernel, state)
    ctx.rest = (kind, backend)


def _backward_potential(ctx: Any, grad_u: Tensor | None) -> tuple[Any, ...]:
    if grad_u is None:
        return (None,) * 5
    x, kernel, state = saved(ctx)
    needs = list(ctx.needs_input_grad[:3])
    if needs[2]:
        mark_continued(ctx)
    grads = potential_backward(grad_u, x, kernel, state, *ctx.rest, needs)
    return (*map(or_none, grads, needs), None, None)


potential.register_autograd(_backward_potential, setup_context=_setup_potential)


for _op in (fire_backward, fire_masked_backward, potential_backward):
    _op.register_autograd(refuse_double_backward)
