"""Checks of the arguments, all made before snnTorch sees any of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._checks import check_finite, check_int, describe


def check_reset_mechanism(value: Any) -> None:
    """Raises ValueError for anything but "none"."""
    if value in ("subtract", "zero"):
        raise ValueError(
            f"reset_mechanism must be 'none', got {value!r}: a reset makes every step depend on the spike "
            "before it, which is what a memory-free neuron drops. Keep snn.Leaky where the reset matters. "
            "Without one the potential grows up to input / (1 - beta), so the threshold may need raising."
        )
    if value != "none":
        raise ValueError(f"reset_mechanism must be 'none', got {describe(value)}")


def real(name: str, value: Any, check: Callable[[str, Any], None] = check_finite) -> Any:
    """``value`` if snnTorch can store it as a real number or tensor; integers become floats."""
    unreal = value.is_complex() or value.dtype == torch.bool if isinstance(value, Tensor) else False
    if unreal or isinstance(value, bool):
        raise TypeError(f"{name} must be a real number or tensor, got {describe(value)}")
    if isinstance(value, int):
        value = float(value)
    if isinstance(value, Tensor):
        if value.numel() == 0:
            raise ValueError(f"{name} must not be empty, got {describe(value)}")
        value = value if value.is_floating_point() else value.float()
    elif not isinstance(value, float):
        try:
            value = torch.as_tensor(value, dtype=torch.get_default_dtype())
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name} must be a real number or tensor, got {describe(value)}") from None
    check(name, value)
    return value


def per_channel(beta: Any, num_channels: int | None, kernel: str) -> Any:
    """beta with one value a channel where ``num_channels`` asks for that of an exponential."""
    if num_channels is None or kernel != "exp":
        return beta
    check_int("num_channels", num_channels, 1)
    value = torch.as_tensor(beta)
    if value.numel() not in (1, num_channels):
        raise ValueError(f"beta must have 1 or {num_channels} (num_channels) values, got {list(value.shape)}")
    return value.detach().reshape(-1).expand(num_channels).clone()
