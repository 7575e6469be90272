"""The history kernel of both neurons, and how it meets the shape of a step."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._checks import check_int, describe
from ..history import FIR, Exponential, Kernel, KernelBits
from ..neuron import HistoryKernel, kernel_of
from ..spec import KernelOptions, KernelParameters


@dataclass(frozen=True)
class BetaKernel(KernelParameters):
    """The exponential history of a neuron whose decay is snnTorch's ``beta``, a tensor of the neuron."""

    beta: Tensor
    gain: Tensor | float
    order: int | None
    kernel_bits: KernelBits
    num_channels: int | None
    learnable: bool
    stride: int = 1
    groups: int | None = None
    kind: str = "exp"
    time_steps: None = None

    def exponential(self) -> Exponential:
        """The exponential with its decay and gain as they are now."""
        gain = self.over_channels(self.gain.reshape(-1)) if isinstance(self.gain, Tensor) else self.gain
        return Exponential(self.over_channels(self.beta.clamp(0, 1).reshape(-1)), gain, self.order)

    def __call__(self) -> Exponential | FIR:
        return self._quantized_exponential()


# --- from the arguments of a constructor ------------------------------------------------------------------


def per_channel(beta: Any, options: KernelOptions) -> Any:
    """beta with one value a channel, or a group, where ``num_channels`` asks for that of an exponential."""
    if options.get("num_channels") is None or options.get("kernel", "exp") != "exp":
        return beta
    name, sets = _parameter_sets(options)
    check_int(name, sets, 1)
    value = torch.as_tensor(beta)
    if value.numel() not in (1, sets):
        raise ValueError(f"beta must have 1 or {sets} ({name}) values, got {list(value.shape)}")
    return value.detach().reshape(-1).expand(sets).clone()


def _parameter_sets(options: KernelOptions) -> tuple[str, Any]:
    """The option that says how many values or tap sets there are, and what it says."""
    if options.get("groups") is not None:
        return "groups", options["groups"]
    return "num_channels", options.get("num_channels")


def checked_kernel(
    neuron: nn.Module, beta: Any, gain: Any, learn_beta: bool, options: KernelOptions
) -> HistoryKernel:
    """The options of a kernel, checked; of "fir" and "matrix" also its taps, which start from beta and gain.

    Of "exp" it holds no more than the options: the decay itself is beta, in snnTorch's own place.
    """
    # read here as numbers, which a default device such as "meta" must not hinder
    start, factor = (torch.as_tensor(value, device="cpu").detach().reshape(-1) for value in (beta, gain))
    start = start.clamp(0, 1)
    if factor.numel() not in (1, start.numel()):
        raise ValueError(f"gain must be one number or have the shape of beta, got {describe(gain)}")
    pairs = list(zip(start.tolist(), factor.expand_as(start).tolist(), strict=True))
    kind = options.get("kernel", "exp")
    if kind == "exp":
        # only taps that are powers of two as they are need no order to be quantized: every beta is looked at
        is_looked_at = options.get("kernel_bits") is not None and options.get("order") is None
        for decay, one_gain in pairs if is_looked_at else [(0.5, 1.0)]:
            kernel = kernel_of(neuron, options, decay=decay, gain=one_gain, learnable=learn_beta)
        return kernel
    if learn_beta:
        raise ValueError(
            f"learn_beta does not apply to kernel={kind!r}, whose free taps only start from beta"
        )
    name, sets = _parameter_sets(options)
    if len(start) > 1 and sets != len(start):
        raise ValueError(
            f"kernel={kind!r} with {len(start)} values of beta needs {name}={len(start)}, got {sets}"
        )
    kernel = kernel_of(neuron, options, decay=pairs[0][0], gain=pairs[0][1])
    if len(start) > 1 and kernel.order is not None:
        steps = (kernel.order - 1) * kernel.stride + 1
        with torch.no_grad():
            kernel.taps.copy_(Exponential(start, factor).taps(steps)[:: kernel.stride])
    return kernel


# --- over a step ------------------------------------------------------------------------------------------
#
# The operators take parameters [1] or [C], along dim 1 of a step [N, C, *]. snnTorch takes whatever
# broadcasts over a step: (C,), (C, 1, 1), one value a neuron, even one a sample. Through the right view of
# the step all of these are channels.


class Operands(NamedTuple):
    """What the operators take: numbers, or one value a channel of the view."""

    view: tuple[int, ...]  #: of a step
    kernel: Kernel
    threshold: Tensor
    feedback: Tensor | None  #: [R, 1] or [R, C]


def operands(
    kernel: Kernel,
    threshold: Tensor,
    spread: tuple[int, ...],
    step: torch.Size,
    steps: int | None,
    feedback: Tensor | None = None,
) -> Operands:
    """What the operators take for steps of shape ``step``.

    ``spread`` is the shape in which the kernel's values broadcast over a step, and those of ``feedback``, the
    weights of own spikes [R] or [R, P]; ``steps`` the length of the whole sequence, None where more of it may
    follow.
    """
    dims = len(step)
    threshold = threshold.reshape((*[1] * (dims - threshold.dim()), *threshold.shape))
    shapes = [threshold.shape]
    if feedback is not None:
        feedback = feedback if feedback.dim() == 2 else feedback.unsqueeze(1)
        feedback = spread_over(feedback, spread, dims, lead=1)
        shapes.append(feedback.shape[1:])

    def fitted(full: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
        return as_columns(threshold, full), None if feedback is None else as_columns(feedback, full, lead=1)

    if isinstance(kernel, FIR):
        taps = spread_over(kernel.taps, spread, dims, lead=1)
        view, full = channel_view(step, *shapes, taps.shape[1:])
        return Operands(view, FIR(as_columns(taps, full, lead=1)), *fitted(full))
    if not isinstance(kernel, Exponential):
        view, full = channel_view(step, *shapes)
        return Operands(view, kernel, *fitted(full))
    if steps and kernel.order is not None and kernel.order >= steps:
        kernel = replace(kernel, order=None)  # not truncated within this sequence: the cheaper recursion
    decay, gain = (  # a number is the same on every device
        spread_over(v, spread, dims) if isinstance(v, Tensor) else v for v in (kernel.decay, kernel.gain)
    )
    shapes += [value.shape for value in (decay, gain) if isinstance(value, Tensor)]
    view, full = channel_view(step, *shapes)
    decay, gain = (as_columns(v, full) if isinstance(v, Tensor) else v for v in (decay, gain))
    return Operands(view, replace(kernel, decay=decay, gain=gain), *fitted(full))


def spread_over(value: Tensor, spread: tuple[int, ...], dims: int, lead: int = 0) -> Tensor:
    """``value`` [.., 1] or [.., P] to broadcast over a step of ``dims``, behind its ``lead`` dimensions."""
    front = value.shape[:lead]
    if value.shape[lead:].numel() == 1:
        return value.reshape((*front, *[1] * dims))  # of a step without dimensions, an empty shape
    return value.reshape((*front, *[1] * (dims - len(spread)), *spread))


def channel_view(step: torch.Size, *shapes: torch.Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The view of a step in which parameters of ``shapes``, which broadcast over it, are one number or [C].

    Returns:
        (view, full): the view, and the shape to expand a parameter to before it is flat; empty for none.
    """
    for shape in shapes:
        pairs = zip(shape[::-1], step[::-1], strict=False)
        if len(shape) > len(step) or any(size not in (1, there) for size, there in pairs):
            raise ValueError(
                f"a parameter of shape {list(shape)} does not broadcast over a step {list(step)}"
            )
    varying = {dim for shape in shapes for dim, size in enumerate(shape) if size > 1}
    if varying <= {1}:  # channels already; the operators take [T, N, *] of up to 6 dimensions
        flat = tuple(step) if len(step) <= 5 else (*step[:2], prod(step[2:]))
        return flat or (1,), ()
    if 0 in varying:
        return (1, prod(step)), tuple(step)
    return (step[0], prod(step[1:])), (1, *step[1:])


def as_columns(value: Tensor, full: tuple[int, ...], lead: int = 0) -> Tensor:
    """``value``, aligned with a step, as [.., 1] or [.., C] in the view that ``full`` belongs to."""
    front = value.shape[:lead]
    if full and value.shape[lead:].numel() > 1:
        value = value.expand(*front, *full)
    return value.reshape(*front, -1)
