"""The history kernel of both neurons: an exponential whose decay is ``beta``, or free taps."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._checks import describe
from ..history import FIR, Exponential, KernelBits
from ..neuron import HistoryKernel
from ..spec import KernelParameters


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
    kind: str = "exp"
    time_steps: None = None

    def exponential(self) -> Exponential:
        """The exponential with its decay and gain as they are now."""
        gain = self.gain.reshape(-1) if isinstance(self.gain, Tensor) else self.gain
        return Exponential(self.beta.clamp(0, 1).reshape(-1), gain, self.order)

    def __call__(self) -> Exponential | FIR:
        return self._quantized_exponential()


def free_taps(
    kernel: str, beta: Any, gain: Any, learn_beta: bool, num_channels: int | None, options: dict[str, Any]
) -> HistoryKernel | None:
    """Checks the kernel's arguments; the module of its free taps, or None for an exponential.

    ``options`` are HistoryKernel's order, time_steps, kernel_bits and stride.
    """
    # read here as numbers, which a default device such as "meta" must not hinder
    start, factor = (torch.as_tensor(value, device="cpu").detach().reshape(-1) for value in (beta, gain))
    start = start.clamp(0, 1)
    if factor.numel() not in (1, start.numel()):
        raise ValueError(f"gain must be one number or have the shape of beta, got {describe(gain)}")
    if kernel == "exp":
        _check_exponential(start, factor, learn_beta, options)
        return None
    if learn_beta:
        raise ValueError(
            f"learn_beta does not apply to kernel={kernel!r}, whose free taps only start from beta"
        )
    if start.numel() > 1 and num_channels != start.numel():
        raise ValueError(
            f"kernel={kernel!r} with {start.numel()} values of beta needs num_channels={start.numel()}, "
            f"got {num_channels}"
        )
    return _taps_from(kernel, start, factor, num_channels, options)


def _check_exponential(start: Tensor, factor: Tensor, learn_beta: bool, options: dict[str, Any]) -> None:
    """HistoryKernel knows the rules; the decay itself is beta, in snnTorch's own place."""
    quantized = options["kernel_bits"] is not None and options["order"] is None
    for decay, gain in _pairs(start, factor) if quantized else [(0.5, 1.0)]:
        HistoryKernel("exp", decay=decay, gain=gain, learnable=learn_beta, **options)


def _taps_from(
    kernel: str, start: Tensor, factor: Tensor, num_channels: int | None, options: dict[str, Any]
) -> HistoryKernel:
    decay, gain = _pairs(start, factor)[0]
    history = HistoryKernel(kernel, decay=decay, gain=gain, num_channels=num_channels, **options)
    if start.numel() > 1 and options["order"] is not None:
        order, stride = options["order"], options["stride"]
        with torch.no_grad():
            history.taps.copy_(Exponential(start, factor).taps((order - 1) * stride + 1)[::stride])
    return history


def _pairs(start: Tensor, factor: Tensor) -> list[tuple[float, float]]:
    return list(zip(start.tolist(), factor.expand_as(start).tolist(), strict=True))
