"""What the operators share: they return tensors, never None, and refuse second derivatives."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .backends._call import accumulate_dtype


def empty_potential(x: Tensor, record: bool, potential: bool = True) -> Tensor:
    """The potential that a fake kernel returns: of every step if ``record``, of the last, or none."""
    wide = accumulate_dtype(x.dtype)
    if not potential:
        return x.new_empty(0, dtype=wide)
    if record:
        return torch.empty_like(x, dtype=wide)
    return torch.empty(x.shape[1:], dtype=wide, device=x.device)


def saved(ctx: Any) -> tuple[Tensor, ...]:
    """What forward saved for backward.

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
    return tensors


def remember_before(ctx: Any, state: Tensor | None) -> None:
    """Keeps, in forward, which operator of ours the state before the sequence came from."""
    node = None if state is None else state.grad_fn
    while node is not None and not isinstance(node, BackwardCFunction):
        # clones and views may stand between the two, each with one input
        node = node.next_functions[0][0] if len(node.next_functions) == 1 else None
    ctx.before = node


def mark_continued(ctx: Any) -> None:
    """Says, in backward, to the operator before that it is reached through the state: see :func:`saved`."""
    if ctx.before is not None:
        ctx.before.continued = True


def or_empty(gradient: Tensor | None, x: Tensor) -> Tensor:
    """A gradient; an empty tensor says that nobody asked."""
    return x.new_empty(0) if gradient is None else gradient


def or_none(gradient: Tensor, wanted: bool) -> Tensor | None:
    """The inverse of :func:`or_empty`."""
    return gradient if wanted else None


def empty_gradient(of: Tensor | None, wanted: bool, x: Tensor) -> Tensor:
    """The gradient of a parameter or state that a fake kernel returns."""
    if not wanted or of is None:
        return x.new_empty(0)
    return torch.empty(of.shape, dtype=of.dtype, device=of.device)


def in_dtype(gradient: Tensor | None, of: Tensor | None) -> Tensor | None:
    """A gradient in the dtype of what it is the gradient of."""
    return None if gradient is None or of is None else gradient.to(of.dtype)


def along_channels(value: Tensor, dims: int) -> Tensor:
    """[C] as [C, 1, ..., 1], to run along dim 2 of [T, N, C, *]; [1] as it is."""
    return value.reshape(-1, *[1] * (dims - 3)) if value.numel() > 1 else value


def refuse_double_backward(ctx: Any, *grads: Tensor | None) -> Any:
    raise RuntimeError(
        "mfp_neurons: a second derivative through a spiking neuron was asked for (create_graph=True). The "
        "surrogate stands for a first derivative only; for second ones use mfp_neurons.reference."
    )
