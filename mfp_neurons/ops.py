"""The neuron as ``torch.library`` operators: opaque to torch.compile, with fake and autograd rules.

mfp_neurons::fire        input -> spikes and potential, all time steps at once
mfp_neurons::potential   input -> potential alone, for spikes decided outside

Both save their inputs for backward and nothing else. Raw tensors only; :mod:`mfp_neurons.functional` is
where arguments are checked and kernels become tensors.
"""

from typing import Any, List, Optional

import torch
from torch import Tensor

from . import surrogate as _surrogate
from .backends import choose
from .backends.torch import Call, Gradients, accumulate_dtype

# torch.library reads these annotations; on torch 2.6 it knows Optional and List, not unions by | and not list


def _empty_potential(x: Tensor, record: bool) -> Tensor:
    wide = accumulate_dtype(x.dtype)
    if record:
        return torch.empty_like(x, dtype=wide)
    return torch.empty(x.shape[1:], dtype=wide, device=x.device)


def _or_empty(gradient: Tensor | None, like: Tensor) -> Tensor:
    """Operators return tensors, never None: an empty one says that nobody asked."""
    return like.new_empty(0) if gradient is None else gradient


def _or_none(gradient: Tensor, wanted: bool) -> Tensor | None:
    return gradient if wanted else None


@torch.library.custom_op("mfp_neurons::fire", mutates_args=())
def fire(
    x: Tensor,
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    kind: str,
    surrogate: str,
    parameters: List[float],
    strict: bool,
    record: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    call = Call(kind, kernel, threshold, state, _surrogate.from_name(surrogate, parameters), strict)
    with torch.autocast(x.device.type, enabled=False):
        spikes, u = choose(backend, x.device).forward(x, call, record)
    return spikes, u


@fire.register_fake
def _(x, kernel, threshold, state, kind, surrogate, parameters, strict, record, backend):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), _empty_potential(x, record)


@torch.library.custom_op("mfp_neurons::fire_backward", mutates_args=())
def fire_backward(
    grad_spikes: Optional[Tensor],  # noqa: UP045
    grad_u: Optional[Tensor],  # noqa: UP045
    x: Tensor,
    kernel: Tensor,
    threshold: Tensor,
    state: Optional[Tensor],  # noqa: UP045
    kind: str,
    surrogate: str,
    parameters: List[float],
    record: bool,
    backend: str,
    needs: List[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = Call(kind, kernel, threshold, state, _surrogate.from_name(surrogate, parameters))
    with torch.autocast(x.device.type, enabled=False):
        grads = choose(backend, x.device).backward(grad_spikes, grad_u, x, call, record, tuple(needs))
    return _as_outputs(grads, x)


def _as_outputs(grads: Gradients, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        _or_empty(grads.x, x),
        _or_empty(grads.kernel, x),
        _or_empty(grads.threshold, x),
        _or_empty(grads.state, x),
    )


@fire_backward.register_fake
def _(gs, gu, x, kernel, threshold, state, kind, surrogate, parameters, record, backend, needs):  # type: ignore[no-untyped-def]
    def like(tensor: Tensor | None, wanted: bool) -> Tensor:
        if not wanted or tensor is None:
            return x.new_empty(0)
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    gx = torch.empty_like(x) if needs[0] else x.new_empty(0)
    return gx, like(kernel, needs[1]), like(threshold, needs[2]), like(state, needs[3])


def _setup_fire(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, kernel, threshold, state, kind, surrogate, parameters, _, record, backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, kernel, threshold, state)
    ctx.rest = (kind, surrogate, parameters, record, backend)


def _backward_fire(ctx: Any, grad_spikes: Tensor | None, grad_u: Tensor | None) -> tuple[Any, ...]:
    x, kernel, threshold, state = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:4])
    if grad_spikes is None and grad_u is None:
        return (None,) * 10
    grads = fire_backward(grad_spikes, grad_u, x, kernel, threshold, state, *ctx.rest, needs)
    return (*map(_or_none, grads, needs), *[None] * 6)


fire.register_autograd(_backward_fire, setup_context=_setup_fire)


@torch.library.custom_op("mfp_neurons::potential", mutates_args=())
def potential(x: Tensor, kernel: Tensor, state: Optional[Tensor], kind: str, backend: str) -> Tensor:  # noqa: UP045
    with torch.autocast(x.device.type, enabled=False):
        _, u = choose(backend, x.device).forward(x, Call(kind, kernel, state=state), True)
    return u


@potential.register_fake
def _(x, kernel, state, kind, backend):  # type: ignore[no-untyped-def]
    return _empty_potential(x, True)


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
    needed = (needs[0], needs[1], False, needs[2])
    with torch.autocast(x.device.type, enabled=False):
        grads = choose(backend, x.device).backward(None, grad_u, x, call, True, needed)
    return _or_empty(grads.x, x), _or_empty(grads.kernel, x), _or_empty(grads.state, x)


@potential_backward.register_fake
def _(grad_u, x, kernel, state, kind, backend, needs):  # type: ignore[no-untyped-def]
    gx = torch.empty_like(x) if needs[0] else x.new_empty(0)
    gk = torch.empty_like(kernel) if needs[1] else x.new_empty(0)
    gs = torch.empty(state.shape, dtype=state.dtype, device=x.device) if needs[2] else x.new_empty(0)
    return gx, gk, gs


def _setup_potential(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, kernel, state, kind, backend = inputs
    ctx.set_materialize_grads(False)
    if not ctx.needs_input_grad[1]:  # linear in x: only the taps' gradient reads its values
        x = x.new_empty(()).expand(x.shape)
    ctx.save_for_backward(x, kernel, state)
    ctx.rest = (kind, backend)


def _backward_potential(ctx: Any, grad_u: Tensor | None) -> tuple[Any, ...]:
    if grad_u is None:
        return (None,) * 5
    x, kernel, state = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:3])
    grads = potential_backward(grad_u, x, kernel, state, *ctx.rest, needs)
    return (*map(_or_none, grads, needs), None, None)


potential.register_autograd(_backward_potential, setup_context=_setup_potential)


def _refuse_double_backward(ctx: Any, *grads: Tensor | None) -> Any:
    raise RuntimeError(
        "mfp_neurons: a second derivative through a spiking neuron was asked for (create_graph=True). The "
        "surrogate stands for a first derivative only; for second ones use mfp_neurons.reference."
    )


for _op in (fire_backward, potential_backward):
    _op.register_autograd(_refuse_double_backward)
