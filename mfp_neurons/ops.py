"""The neuron as ``torch.library`` operators: opaque to torch.compile, with fake and autograd rules.

mfp_neurons::fire         input -> spikes and potential of all time steps at once; without a threshold, the
                          potential alone, for spikes decided outside
mfp_neurons::norm_fire    the same behind a batch normalization with the input's own moments, for training

Both take the fields of a :class:`~mfp_neurons.backends.Call` one by one, tensors first, because operators
take no other values. For backward they keep their input and parameters, of the input's size nothing else:
potential and normalized input are computed again. (A normalization in evaluation is a fixed affine map, which
``fire`` takes as scale and shift.)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .backends import Call, Gradients, accumulate_dtype, choose

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


@_operator("fire", f"({_CALL}) -> (Tensor, Tensor)")
def fire(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Spikes, and the potential of every step (``record``), of the last, or none (not ``potential``)."""
    call = Call.of(*arguments)
    with torch.autocast(call.x.device.type, enabled=False):
        spikes, u = choose(call.backend, call.x.device).forward(call)
    return _or_empty(spikes, call.x), u


@_operator("fire_backward", f"(Tensor? grad_spikes, Tensor? grad_u, bool[] needs, {_CALL}) -> {_GRADIENTS}")
def fire_backward(
    grad_spikes: Tensor | None, grad_u: Tensor | None, needs: list[bool], *arguments: Any
) -> tuple[Tensor, ...]:
    """Gradients of the call's tensors where ``needs`` asks, elsewhere empty."""
    call = Call.of(*arguments)
    with torch.autocast(call.x.device.type, enabled=False):
        grads = choose(call.backend, call.x.device).backward(call, grad_spikes, grad_u, tuple(needs))
    return _in_dtypes_of(call, grads)


def _setup_fire(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, _, threshold, state, scale, *_ = inputs
    # An output that nobody has used gets None for its gradient, rather than zeros of the input's size.
    ctx.set_materialize_grads(False)
    _remember_before(ctx, state)
    if threshold is None:
        ctx.mark_non_differentiable(output[0])
        if scale is None and not ctx.needs_input_grad[1]:
            # the potential is linear in x: only the kernel's gradient reads the values of x
            x = x.new_empty(()).expand(x.shape)
    ctx.save_for_backward(x, *inputs[1:_TENSOR_COUNT])
    ctx.options = inputs[_TENSOR_COUNT:]


def _backward_fire(ctx: Any, grad_spikes: Tensor | None, grad_u: Tensor | None) -> tuple[Any, ...]:
    if grad_spikes is None and grad_u is None:
        return (None,) * _COUNT
    needs = list(ctx.needs_input_grad[:_TENSOR_COUNT])
    tensors = _saved(ctx, continues=needs[3] or needs[7])
    grads = fire_backward(grad_spikes, grad_u, needs, *tensors, *ctx.options)
    return (*_or_none(grads, needs), *[None] * (_COUNT - _TENSOR_COUNT))


# --- with a batch normalization -------------------------------------------------------------------------
#
# With y = scale * x + shift what the neuron gets, and sums over the M elements of a channel:
#
#     scale = weight * rstd, shift = bias - mean * scale, rstd = (variance + eps)^-1/2
#     dweight = sum dL/dy * (x - mean) * rstd, dbias = sum dL/dy
#     dL/dx = scale * (dL/dy - dbias / M - (x - mean) * rstd * dweight / M)


@_operator("norm_fire", f"({_CALL}, float eps, int last) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
def norm_fire(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes, potential, what the neuron got in the ``last`` steps, mean and biased variance [C].

    The normalization's weight and bias stand where :func:`fire` has scale and shift.
    """
    *fields, eps, last = arguments
    call = Call.of(*fields)
    x, chosen = call.x, choose(call.backend, call.x.device)
    with torch.autocast(x.device.type, enabled=False):
        mean, variance = chosen.channel_moments(x)
        map_ = affine_map(mean, variance, call.scale, call.shift, eps, accumulate_dtype(x.dtype))
        spikes, u = chosen.forward(call._replace(scale=map_.scale, shift=map_.shift))
        inputs = mapped_end(x, last, map_.scale, map_.shift)
    # The strides have to be those that the fake of this operator promises.
    return spikes, u, inputs.contiguous(), mean, variance


@_operator(
    "norm_fire_backward",
    "(Tensor? grad_spikes, Tensor? grad_u, Tensor? grad_inputs, bool[] needs, Tensor mean, Tensor variance, "
    f"{_CALL}, float eps) -> {_GRADIENTS}",
)
def norm_fire_backward(
    grad_spikes: Tensor | None,
    grad_u: Tensor | None,
    grad_inputs: Tensor | None,
    needs: list[bool],
    mean: Tensor,
    variance: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    """Gradients of the call's tensors, weight and bias for scale and shift, where ``needs`` asks."""
    *fields, eps = arguments
    call = Call.of(*fields)
    x, chosen = call.x, choose(call.backend, call.x.device)
    need_x, need_weight, need_bias = needs[0], needs[4], needs[5]
    normalizes = need_x or need_weight or need_bias
    if grad_spikes is None and grad_u is None:
        # Only what the neuron got has a gradient, and backends want one of the spikes or of the potential.
        grad_spikes = torch.zeros_like(x)
    with torch.autocast(x.device.type, enabled=False):
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


def _setup_norm_fire(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    mean, variance = output[3:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, variance)
    ctx.save_for_backward(mean, variance, *inputs[:_TENSOR_COUNT])
    _remember_before(ctx, inputs[3])
    ctx.options = inputs[_TENSOR_COUNT:-1]


def _backward_norm_fire(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    argument_count = _COUNT + 2  # eps and last
    outputs = grads[:3]
    if all(grad is None for grad in outputs):
        return (None,) * argument_count
    needs = list(ctx.needs_input_grad[:_TENSOR_COUNT])
    tensors = _saved(ctx, continues=needs[3] or needs[7])
    inputs = norm_fire_backward(*outputs, needs, *tensors, *ctx.options)
    return (*_or_none(inputs, needs), *[None] * (argument_count - _TENSOR_COUNT))


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


# --- what both need: operators return tensors, never None -----------------------------------------------


def _or_empty(tensor: Tensor | None, x: Tensor) -> Tensor:
    """A tensor; an empty one says that nobody asked."""
    return x.new_empty(0) if tensor is None else tensor


def _or_none(gradients: Sequence[Tensor], needs: list[bool]) -> list[Tensor | None]:
    """What autograd is told of the gradients of an operator."""
    return [gradient if need else None for gradient, need in zip(gradients, needs, strict=True)]


def _in_dtypes_of(call: Call, grads: Gradients) -> Any:
    """All gradients, empty where nobody asked; those of scale and shift in the dtypes of the two."""
    if grads.scale is not None and call.scale is not None:
        grads = grads._replace(scale=grads.scale.to(call.scale.dtype))
    if grads.shift is not None and call.shift is not None:
        grads = grads._replace(shift=grads.shift.to(call.shift.dtype))
    return tuple(_or_empty(gradient, call.x) for gradient in grads)


def _fake_outputs(*arguments: Any) -> tuple[Tensor, Tensor]:
    call = Call.of(*arguments)
    spikes, u = call.empty_outputs()
    return _or_empty(spikes, call.x), u


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


def _saved(ctx: Any, continues: bool) -> tuple[Tensor, ...]:
    """What forward saved; if backward ``continues`` into the sequence before, says so to its operator.

    Raises:
        RuntimeError: an earlier backward pass has freed it and this one came here through the state of the
            sequence after it, so that a reset was forgotten. Any other error of torch's passes as it is.
    """
    try:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
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


fire.register_fake(_fake_outputs)
norm_fire.register_fake(_fake_norm_outputs)
# in front of a call's tensors: two gradients and needs; with a norm three, needs, mean and variance
fire_backward.register_fake(lambda *a: _fake_gradients(a[2], a[3 : 3 + _TENSOR_COUNT]))
norm_fire_backward.register_fake(lambda *a: _fake_gradients(a[3], a[6 : 6 + _TENSOR_COUNT]))
fire.register_autograd(_backward_fire, setup_context=_setup_fire)
norm_fire.register_autograd(_backward_norm_fire, setup_context=_setup_norm_fire)
fire_backward.register_autograd(_refuse_double_backward)
norm_fire_backward.register_autograd(_refuse_double_backward)
