"""The neuron as operators that autograd knows, and that torch.compile and its like see as one each.

fire         input -> spikes and potential of all time steps at once; without a threshold, the potential
             alone, for spikes decided outside
norm_fire    the same behind a batch normalization with the input's own moments, for training

For backward they keep their input and parameters, of the input's size nothing else: potential and normalized
input are computed again. (A normalization in evaluation is a fixed affine map, which ``fire`` takes as scale
and shift.)

There are two ways in, to the same functions. Whatever traces or transforms a program gets an operator of
``torch.library``, with fake and autograd rules. It takes the fields of a
:class:`~mfp_neurons.backends.Call` one by one, tensors first, because operators take no other values. All
others get a :class:`torch.autograd.Function`, since in a small layer the way through an operator takes longer
than the neurons do.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from ._checks import is_traced
from .backends import Call, Gradients, accumulate_dtype, choose, in_full_precision

# The fields of a Call as every operator takes them (Call.arguments makes them, Call.of reads them).
_TENSORS = (
    "Tensor x, Tensor kernel, Tensor? threshold, Tensor? state, Tensor? scale, Tensor? shift, "
    "Tensor? feedback, Tensor? own_spikes"
)
_OPTIONS = (
    "str kind, str surrogate, float[] parameters, bool strict, bool record, bool potential, str reset, "
    "bool detach, str backend"
)
_CALL = f"{_TENSORS}, {_OPTIONS}"
_TENSOR_COUNT, _COUNT = _TENSORS.count(",") + 1, _CALL.count(",") + 1
_GRADIENTS = f"({', '.join(['Tensor'] * _TENSOR_COUNT)})"


def _operator(name: str, schema: str) -> Callable[[Callable[..., Any]], Any]:
    return torch.library.custom_op(f"mfp_neurons::{name}", mutates_args=(), schema=schema)


def fire(call: Call) -> tuple[Tensor, Tensor]:
    """Spikes, and the potential of every step (``record``), of the last, or none (not ``potential``).

    To be called where autocast is off; what is called from elsewhere, operators and backward, turns it off.
    """
    if is_traced(call.tensors):
        return _fire_operator(*call.arguments())  # type: ignore[no-any-return]
    return _Fire.apply(*call) if _is_differentiated(call) else _fire(call)


def _is_differentiated(call: Call) -> bool:
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in call.tensors)


def _fire(call: Call) -> tuple[Tensor, Tensor]:
    spikes, u = choose(call.backend, call.x.device).forward(call)
    return call.x.new_empty(0) if spikes is None else spikes, u


def _fire_backward(
    call: Call, grad_spikes: Tensor | None, grad_u: Tensor | None, needs: tuple[bool, ...]
) -> Gradients:
    with in_full_precision(call.x):
        grads: Gradients = choose(call.backend, call.x.device).backward(call, grad_spikes, grad_u, needs)
    return _in_dtypes_of(call, grads)


def _remember_fire(ctx: Any, call: Call, outputs: tuple[Tensor, Tensor]) -> None:
    # An output that nobody has used gets None for its gradient, rather than zeros of the input's size.
    ctx.set_materialize_grads(False)
    x, kernel, threshold, state, scale, *others = call.tensors
    _remember_before(ctx, state)
    if threshold is None:
        ctx.mark_non_differentiable(outputs[0])
        if scale is None and not ctx.needs_input_grad[1]:
            # the potential is linear in x: only the kernel's gradient reads the values of x
            x = x.new_empty(()).expand(x.shape)
    ctx.save_for_backward(x, kernel, threshold, state, scale, *others)
    ctx.options = call.options


def _backward_of_fire(ctx: Any, grad_spikes: Tensor | None, grad_u: Tensor | None) -> tuple[Any, ...]:
    if grad_spikes is None and grad_u is None:
        return (None,) * len(ctx.needs_input_grad)
    needs = ctx.needs_input_grad[:_TENSOR_COUNT]
    call = Call(*_saved(ctx, continues=needs[3] or needs[7]), *ctx.options)
    # with a graph of the backward pass itself, it is the operator that refuses second derivatives
    if torch.is_grad_enabled() or is_traced((grad_spikes, grad_u, *call.tensors)):
        grads = _or_none(_fire_backward_operator(grad_spikes, grad_u, needs, *call.arguments()), needs)
    else:
        grads = _fire_backward(call, grad_spikes, grad_u, needs)
    return (*grads, *[None] * (len(ctx.needs_input_grad) - _TENSOR_COUNT))


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *fields: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        call = Call._make(fields)
        outputs = _fire(call)
        _remember_fire(ctx, call, outputs)
        return outputs

    backward = staticmethod(_backward_of_fire)  # type: ignore[assignment]


@_operator("fire", f"({_CALL}) -> (Tensor, Tensor)")
def _fire_operator(*arguments: Any) -> tuple[Tensor, Tensor]:
    call = Call.of(*arguments)
    with in_full_precision(call.x):
        return _fire(call)


@_operator("fire_backward", f"(Tensor? grad_spikes, Tensor? grad_u, bool[] needs, {_CALL}) -> {_GRADIENTS}")
def _fire_backward_operator(
    grad_spikes: Tensor | None, grad_u: Tensor | None, needs: Sequence[bool], *arguments: Any
) -> tuple[Tensor, ...]:
    """Gradients of the call's tensors where ``needs`` asks, elsewhere empty."""
    call = Call.of(*arguments)
    return _or_empty(_fire_backward(call, grad_spikes, grad_u, tuple(needs)), call.x)


# --- with a batch normalization -------------------------------------------------------------------------
#
# With y = scale * x + shift what the neuron gets, and sums over the M elements of a channel:
#
#     scale = weight * rstd, shift = bias - mean * scale, rstd = (variance + eps)^-1/2
#     dweight = sum dL/dy * (x - mean) * rstd, dbias = sum dL/dy
#     dL/dx = scale * (dL/dy - dbias / M - (x - mean) * rstd * dweight / M)


def norm_fire(call: Call, eps: float, last: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes, potential, what the neuron got in the ``last`` steps, mean and biased variance [C].

    The normalization's weight and bias stand where :func:`fire` has scale and shift.
    """
    if is_traced(call.tensors):
        return _norm_fire_operator(*call.arguments(), eps, last)  # type: ignore[no-any-return]
    return _NormFire.apply(*call, eps, last) if _is_differentiated(call) else _norm_fire(call, eps, last)


def _norm_fire(call: Call, eps: float, last: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, chosen = call.x, choose(call.backend, call.x.device)
    mean, variance = chosen.channel_moments(x)
    map_ = affine_map(mean, variance, call.scale, call.shift, eps, accumulate_dtype(x.dtype))
    spikes, u = chosen.forward(call._replace(scale=map_.scale, shift=map_.shift))
    inputs = mapped_end(x, last, map_.scale, map_.shift)
    # The strides have to be those that the fake of the operator promises.
    return spikes, u, inputs.contiguous(), mean, variance


def _norm_fire_backward(
    call: Call,
    eps: float,
    mean: Tensor,
    variance: Tensor,
    grads_of_outputs: Sequence[Tensor | None],
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients of the call's tensors, weight and bias for scale and shift, where ``needs`` asks."""
    grad_spikes, grad_u, grad_inputs = grads_of_outputs
    x, chosen = call.x, choose(call.backend, call.x.device)
    need_x, need_weight, need_bias = needs[0], needs[4], needs[5]
    normalizes = need_x or need_weight or need_bias
    if grad_spikes is None and grad_u is None:
        # Only what the neuron got has a gradient, and backends want one of the spikes or of the potential.
        grad_spikes = torch.zeros_like(x)
    with in_full_precision(x):
        map_ = affine_map(mean, variance, call.scale, call.shift, eps, accumulate_dtype(x.dtype))
        mapped = call._replace(scale=map_.scale, shift=map_.shift)
        grads = chosen.backward(mapped, grad_spikes, grad_u, (*needs[:4], normalizes, normalizes, *needs[6:]))
        g_weight = g_bias = None
        if normalizes:
            g_scale, g_bias = _sums_of_map(grads, grad_inputs, x, map_.scale)
            g_weight = map_.rstd * (g_scale - mean * g_bias)
            if grads.x is not None:
                count = x.numel() // x.shape[2]
                factor = -map_.scale * map_.rstd * g_weight / count
                offset = -map_.scale * g_bias / count - mean * factor
                # What mean and variance add to dL/dx is an affine map of x, by the formula above.
                chosen.add_channel_affine_(grads.x, x, factor.to(mean.dtype), offset.to(mean.dtype))
    grads = grads._replace(scale=g_weight if need_weight else None, shift=g_bias if need_bias else None)
    return _in_dtypes_of(call, grads)


def _remember_norm_fire(ctx: Any, call: Call, eps: float, outputs: tuple[Tensor, ...]) -> None:
    mean, variance = outputs[3:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, variance)
    _remember_before(ctx, call.state)
    ctx.save_for_backward(mean, variance, *call.tensors)
    ctx.options, ctx.eps = call.options, eps


def _backward_of_norm_fire(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    outputs = grads[:3]
    if all(grad is None for grad in outputs):
        return (None,) * len(ctx.needs_input_grad)
    needs = ctx.needs_input_grad[:_TENSOR_COUNT]
    mean, variance, *tensors = _saved(ctx, continues=needs[3] or needs[7])
    call = Call(*tensors, *ctx.options)
    if torch.is_grad_enabled() or is_traced((*outputs, *tensors)):
        arguments = (*outputs, needs, mean, variance, *call.arguments(), ctx.eps)
        gradients = _or_none(_norm_fire_backward_operator(*arguments), needs)
    else:
        gradients = _norm_fire_backward(call, ctx.eps, mean, variance, outputs, needs)
    return (*gradients, *[None] * (len(ctx.needs_input_grad) - _TENSOR_COUNT))


class _NormFire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *fields: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        *of_call, eps, last = fields
        call = Call._make(of_call)
        outputs = _norm_fire(call, eps, last)
        _remember_norm_fire(ctx, call, eps, outputs)
        return outputs

    backward = staticmethod(_backward_of_norm_fire)  # type: ignore[assignment]


@_operator("norm_fire", f"({_CALL}, float eps, int last) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
def _norm_fire_operator(*arguments: Any) -> tuple[Tensor, ...]:
    *fields, eps, last = arguments
    call = Call.of(*fields)
    with in_full_precision(call.x):
        return _norm_fire(call, eps, last)


@_operator(
    "norm_fire_backward",
    "(Tensor? grad_spikes, Tensor? grad_u, Tensor? grad_inputs, bool[] needs, Tensor mean, Tensor variance, "
    f"{_CALL}, float eps) -> {_GRADIENTS}",
)
def _norm_fire_backward_operator(*arguments: Any) -> tuple[Tensor, ...]:
    *outputs, needs, mean, variance = arguments[:6]
    *fields, eps = arguments[6:]
    call = Call.of(*fields)
    return _or_empty(_norm_fire_backward(call, eps, mean, variance, outputs, tuple(needs)), call.x)


class _Map(NamedTuple):
    """A normalization by known moments as a map of each channel, [C], in the wide dtype."""

    scale: Tensor
    shift: Tensor
    rstd: Tensor


def affine_map(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, wide: torch.dtype
) -> _Map:
    """scale and shift such that scale * x + shift is the normalized x."""
    rstd = (variance.to(wide) + eps).rsqrt()
    scale = rstd if weight is None else weight.to(wide) * rstd
    shift = -mean.to(wide) * scale
    return _Map(scale, shift if bias is None else shift + bias.to(wide), rstd)


def mapped_end(x: Tensor, last: int, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * x + shift of the ``last`` steps: what the neuron got there, in the dtype of x."""
    ends = x[len(x) - last :].to(scale.dtype)
    y = torch.addcmul(along_channels(shift, x.dim()), ends, along_channels(scale, x.dim()))
    return y.to(x.dtype)


def _sums_of_map(
    grads: Gradients, grad_inputs: Tensor | None, x: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of scale and shift in float64; adds to ``grads.x`` what came through the last steps."""
    assert grads.scale is not None and grads.shift is not None
    g_scale, g_shift = grads.scale.double(), grads.shift.double()
    if grad_inputs is None or len(grad_inputs) == 0:
        return g_scale, g_shift
    first, others = len(x) - len(grad_inputs), [d for d in range(x.dim()) if d != 2]
    part = grad_inputs.to(scale.dtype)
    if grads.x is not None:
        grads.x[first:].add_(part * along_channels(scale, x.dim()))
    return g_scale + (part * x[first:]).sum(others), g_shift + part.sum(others)


def along_channels(value: Tensor, dims: int) -> Tensor:
    """[C] as [C, 1, ..., 1], to run along dim 2 of [T, N, C, *]; [1] as it is."""
    return value.reshape(-1, *[1] * (dims - 3)) if value.numel() > 1 else value


# --- what both need ---------------------------------------------------------------------------------------


def _in_dtypes_of(call: Call, grads: Gradients) -> Gradients:
    """The gradients of scale and shift, which may be wider, in the dtypes of the two."""
    if grads.scale is not None and call.scale is not None:
        grads = grads._replace(scale=grads.scale.to(call.scale.dtype))
    if grads.shift is not None and call.shift is not None:
        grads = grads._replace(shift=grads.shift.to(call.shift.dtype))
    return grads


def _or_empty(gradients: Gradients, x: Tensor) -> tuple[Tensor, ...]:
    """What an operator returns, which can be no None: an empty tensor says that nobody asked."""
    return tuple(x.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _or_none(gradients: Sequence[Tensor], needs: Sequence[bool]) -> Gradients:
    """What autograd is told of the gradients of an operator."""
    return Gradients(*(one if need else None for one, need in zip(gradients, needs, strict=True)))


def _fake_outputs(*arguments: Any) -> tuple[Tensor, Tensor]:
    call = Call.of(*arguments)
    spikes, u = call.empty_outputs()
    return call.x.new_empty(0) if spikes is None else spikes, u


def _fake_norm_outputs(*arguments: Any) -> tuple[Tensor, ...]:
    x, last = arguments[0], arguments[-1]
    inputs = torch.empty((last, *x.shape[1:]), dtype=x.dtype, device=x.device)
    mean = torch.empty(x.shape[2], dtype=accumulate_dtype(x.dtype), device=x.device)
    return *_fake_outputs(*arguments[:_COUNT]), inputs, mean, torch.empty_like(mean)


def _fake_gradients(needs: list[bool], tensors: Sequence[Any]) -> tuple[Tensor, ...]:
    x, *others = tensors
    gx = torch.empty_like(x) if needs[0] else x.new_empty(0)
    return gx, *(
        torch.empty(tensor.shape, dtype=tensor.dtype, device=x.device)
        if need and tensor is not None
        else x.new_empty(0)
        for tensor, need in zip(others, needs[1:], strict=True)
    )


def _remember_before(ctx: Any, state: Tensor | None) -> None:
    """Keeps, in forward, which operator of ours the state before the sequence came from."""
    node = None if state is None else state.grad_fn
    while node is not None and not isinstance(node, BackwardCFunction):
        # clones and views may stand between the two, each with one input
        node = node.next_functions[0][0] if len(node.next_functions) == 1 else None
    ctx.before = node


def _saved(ctx: Any, continues: bool) -> tuple[Any, ...]:
    """What forward saved; if backward ``continues`` into the sequence before, says so to its operator.

    Raises:
        RuntimeError: an earlier backward pass has freed it and this one came here through the state of the
            sequence after it, so that a reset was forgotten. Any other error of torch's passes as it is.
    """
    try:
        tensors: tuple[Any, ...] = ctx.saved_tensors
    except RuntimeError as error:
        if "backward through the graph a second time" in str(error) and getattr(ctx, "continued", False):
            raise RuntimeError(
                "backward reaches a sequence that has had its backward pass: a neuron still holds the state "
                "from its end. Reset between sequences (SpikingJelly: functional.reset_net(net); snnTorch: "
                "mfp_neurons.snntorch.reset(net)), or detach the state where the next is to go on from it"
            ) from error
        if "modified by an inplace operation" in str(error):
            error.add_note(
                "A spiking neuron of mfp_neurons computes its potential anew in backward, from its input "
                "current and its parameters: change none of them in place between forward and backward "
                "(x = x + y for x += y, ReLU(inplace=False), optimizer.step() after every backward)."
            )
        raise
    if continues and ctx.before is not None:
        ctx.before.continued = True
    return tensors


def _refuse_double_backward(ctx: Any, *grads: Tensor | None) -> Any:
    raise RuntimeError(
        "mfp_neurons: a second derivative through a spiking neuron was asked for (create_graph=True). The "
        "surrogate stands for a first derivative only; for second ones use mfp_neurons.reference."
    )


_fire_operator.register_fake(_fake_outputs)
_norm_fire_operator.register_fake(_fake_norm_outputs)
# in front of a call's tensors: two gradients and needs; with a norm three, needs, mean and variance
_fire_backward_operator.register_fake(lambda *a: _fake_gradients(a[2], a[3 : 3 + _TENSOR_COUNT]))
_norm_fire_backward_operator.register_fake(lambda *a: _fake_gradients(a[3], a[6 : 6 + _TENSOR_COUNT]))
_fire_operator.register_autograd(
    _backward_of_fire, setup_context=lambda ctx, inputs, output: _remember_fire(ctx, Call.of(*inputs), output)
)
_norm_fire_operator.register_autograd(
    _backward_of_norm_fire,
    setup_context=lambda ctx, inputs, output: _remember_norm_fire(
        ctx, Call.of(*inputs[:_COUNT]), inputs[_COUNT], output
    ),
)
_fire_backward_operator.register_autograd(_refuse_double_backward)
_norm_fire_backward_operator.register_autograd(_refuse_double_backward)
