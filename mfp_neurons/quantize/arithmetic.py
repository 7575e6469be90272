"""The arithmetic of quantized weights: codes and scale of a weight, and the straight-through gradient.

With v = w / scale and codes c(v), one rule serves every number of bits. Inside the range of the codes, c is
given the derivative 1 (straight-through estimator, arXiv 1308.3432), outside it 0; the chain rule does the
rest:

    d(scale c) = inside dw + (c - inside v) dscale

At 1 and 1.58 bits the scale is a mean of abs(w), so dscale = sum_i c_i dw_i / (number of non-zero codes),
and every v is inside. At 2 to 8 bits the scale is a parameter, and the rule is LSQ's (arXiv 1902.08153,
equations 3 and 5). XNOR-Net's own rule multiplies the first term by the scale and clips it at abs(w) = 1,
so that learning depends on the unit of the weights; with SGD it trained clearly worse.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from .._checks import is_traced

TERNARY = 1.58
OFFERED = (1, TERNARY, *range(2, 9))


def code_range(bits: float) -> tuple[int, int]:
    """Smallest and largest code of ``bits`` bits.

    Symmetric from 3 bits on, which costs nothing in training. At 2 bits that would leave three codes of four,
    so -2 is used there: small networks trained to a lower loss with it. The price is that a channel of 2 bits
    times -1 need not be one of 2 bits again: see :func:`channels_without_opposite`.
    """
    if bits in (1, TERNARY):
        return -1, 1
    largest = 2 ** (int(bits) - 1) - 1
    return (-2 if bits == 2 else -largest), largest


def learns_step(bits: float) -> bool:
    """Whether the scale is learned (2 to 8 bits) rather than computed from the weight."""
    return bits not in (1, TERNARY)


def encode(weight: Tensor, step: Tensor | None, bits: float) -> tuple[Tensor, Tensor]:
    """Codes and scale of a weight [out, ...]; the only place that decides them.

    Args:
        weight: Any floating-point dtype.
        step: The learned step [out, 1, ...], relative to ``_first_step``; None at 1 and 1.58 bits.
        bits: 1, 1.58, or 2 to 8.

    Returns:
        Codes, whole numbers, and a positive scale [out, 1, ...] that the dtype of ``weight`` can hold; both
        are in float32 or wider.
    """
    dtype, weight = weight.dtype, _wide(weight)
    if bits == 1:
        codes = weight.sign().add_(0.5).sign_()  # +1 for both zeros; torch.where takes ten times as long
        return codes, _storable(_channel_mean(weight.abs()), dtype)
    if bits == TERNARY:
        size = weight.abs()
        nonzero = size > 0.7 * _channel_mean(size)
        scale = _channel_sum(size * nonzero) / _channel_sum(nonzero).clamp_min(1)
        return _without_minus_zero(weight.sign() * nonzero), _storable(scale, dtype)
    assert step is not None
    smallest, largest = code_range(bits)
    # A step that training has pushed below 0 counts by its size; its gradient changes sign with it.
    scale = _storable(_wide(step).abs() * _first_step(weight, largest), dtype)
    return _without_minus_zero((weight / scale).round_().clamp_(smallest, largest)), scale


def fake_quantize(weight: Tensor, step: Tensor | None, bits: float) -> Tensor:
    """``codes * scale`` in the shape and dtype of ``weight``, with gradients for weight and step.

    The arithmetic is in float32 or wider whatever the dtype of the weight and whatever autocast says.
    """
    value: Tensor = _StraightThrough.apply(weight, step, bits)
    return value


def channels_without_opposite(weight: Tensor, step: Tensor | None, bits: float) -> Tensor:
    """Which channels change more than their sign when the weight does, [out] booleans.

    At 2 bits those that reach beyond code 1 on either side, for -2 has no opposite; at 1 bit those that hold
    a zero, for both of its signs are +1. None at other numbers of bits.
    """
    codes, _ = encode(weight, step, bits)
    opposite, _ = encode(-weight, step, bits)
    return (codes != -opposite).flatten(1).any(1)


def exchanged(weight: Tensor, groups: int) -> Tensor:
    """A weight [in, out / groups, ...] as [out, in / groups, ...], or back.

    >>> exchanged(torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]]), groups=2)
    tensor([[1, 3],
            [2, 4],
            [5, 7],
            [6, 8]])
    """
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def share_of_zeros(weight: Tensor) -> float:
    """Exact zeros among the weights, channels of nothing but zeros left out."""
    zero = weight.flatten(1) == 0
    return float((zero & ~zero.all(1, keepdim=True)).double().mean())


def turned_channels(new: Tensor, old: Tensor) -> Tensor:
    """Which channels of ``new`` are those of ``old`` times a negative number, to rounding: [out] booleans.

    A channel of one weight is a multiple of any other and says nothing; it never counts.
    """
    tolerance = max(torch.finfo(new.dtype).eps ** 2, 1e-12)
    ours, theirs = new.flatten(1).double(), old.flatten(1).double().to(new.device)
    product = (ours * theirs).sum(1)
    sizes = ours.square().sum(1) * theirs.square().sum(1)
    # Cauchy-Schwarz: <a, b>^2 = |a|^2 |b|^2 exactly where one is a multiple of the other.
    parallel = sizes - product.square() <= tolerance * sizes
    return (product < 0) & parallel & (ours.count_nonzero(1) > 1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _channel_sum(values: Tensor) -> Tensor:
    return values.sum(dim=tuple(range(1, values.ndim)), keepdim=True)


def _channel_mean(values: Tensor) -> Tensor:
    return values.mean(dim=tuple(range(1, values.ndim)), keepdim=True)


def _storable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale rounded to what ``dtype`` holds; positive, also for a channel of zeros."""
    return scale.clamp_min(torch.finfo(dtype).tiny).to(dtype).to(scale.dtype)


def _without_minus_zero(codes: Tensor) -> Tensor:
    return codes.add_(0.0)  # integers have one zero: with two here, codes * scale would differ in its sign


def _first_step(weight: Tensor, largest: int) -> Tensor:
    """LSQ's initial step, 2 mean|w| / sqrt(largest): the scale that a step parameter of 1 stands for."""
    return _channel_mean(weight.abs()) * (2 / sqrt(largest))


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, step: Tensor | None, bits: float) -> Tensor:
        def quantized(weight: Tensor, step: Tensor | None) -> tuple[Tensor]:
            codes, scale = encode(weight, step, bits)
            return ((codes * scale).to(weight.dtype),)

        (value,) = _in_blocks(quantized, weight, step)
        assert value is not None
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, float], output: Tensor) -> None:
        weight, step, ctx.bits = inputs
        ctx.save_for_backward(weight, step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        bits = ctx.bits

        def gradients(weight: Tensor, step: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor | None]:
            codes, scale = encode(weight, step, bits)  # again, so that nothing else is kept for it
            if step is None:
                return _gradient_of_mean(_wide(grad), _wide(weight), codes, scale).to(weight.dtype), None
            to_weight, to_step = _gradients_of_step(
                _wide(grad), _wide(weight), _wide(step), codes, scale, bits
            )
            return to_weight.to(weight.dtype), to_step.to(step.dtype)

        to_weight, to_step = _in_blocks(gradients, *ctx.saved_tensors, grad)
        assert to_weight is not None
        return to_weight, to_step, None


_BLOCK = 1 << 18  # numbers a thread: with all that is computed from them on the way, they fit the last cache


def _in_blocks(
    compute: Callable[..., tuple[Tensor | None, ...]], *tensors: Tensor | None
) -> tuple[Tensor | None, ...]:
    """``compute(*tensors)``, a block of rows at a time on CPUs: large tensors would pass through memory.

    No row depends on another, and sums over a row are the same in a block.
    """
    first = tensors[0]
    assert first is not None
    present = [tensor for tensor in tensors if tensor is not None]
    if is_traced(present) or not (first.is_cpu and all(tensor.is_contiguous() for tensor in present)):
        return compute(*tensors)
    # torch adds up a lone row, on several threads, in an order of its own
    rows_each = max(2, _BLOCK * torch.get_num_threads() * len(first) // max(1, first.numel()))
    blocks = len(first) // rows_each
    if blocks < 2:
        return compute(*tensors)
    wholes: list[Tensor | None] = []
    for i in range(blocks):
        rows = slice(len(first) * i // blocks, len(first) * (i + 1) // blocks)
        parts = compute(*(None if tensor is None else tensor[rows] for tensor in tensors))
        if i == 0:
            wholes = [None if part is None else part.new_empty(len(first), *part.shape[1:]) for part in parts]
        for whole, part in zip(wholes, parts, strict=True):
            if whole is not None and part is not None:
                whole[rows] = part
    return tuple(wholes)


def _gradient_of_mean(grad: Tensor, weight: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """1 and 1.58 bits: the scale is the mean of |w| over the non-zero codes."""
    to_scale = _channel_sum(grad * (codes - weight / scale))
    nonzero = _channel_sum(codes.abs()).clamp_min(1)  # all of them at 1 bit
    return torch.addcmul(grad, codes, to_scale / nonzero)


def _gradients_of_step(
    grad: Tensor, weight: Tensor, step: Tensor, codes: Tensor, scale: Tensor, bits: float
) -> tuple[Tensor, Tensor]:
    """2 to 8 bits: the scale is a parameter times the weight's mean size, which counts as a constant."""
    smallest, largest = code_range(bits)
    position = weight / scale
    inside = (position >= smallest) & (position <= largest)
    # torch.where, not a product: far outside, where a tiny step leaves a weight, position can be infinite
    to_scale = _channel_sum(grad * (codes - torch.where(inside, position, 0.0)))
    # LSQ's gradient scale, 1/sqrt(n largest), is for a step in the weight's unit. Ours is in units of the
    # first step; dividing by that makes SGD change it by the same factor.
    # That is kept from vanishing with the weights. (A literal: as a global of the module, which would be an
    # input of the graph, the number stops torch.compile(dynamic=True) at a second layer, in torch 2.14.)
    first = _first_step(weight, largest).clamp_min(1e-3)
    to_step = to_scale / sqrt(weight[0].numel() * largest) / first
    return grad * inside, torch.where(step < 0, -to_step, to_step)
