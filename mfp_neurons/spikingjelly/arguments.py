"""Checks of the arguments, all made before SpikingJelly sees any of them."""

import math
from typing import Any

from .._checks import describe


def decay_of(tau: float, decay_input: bool) -> float:
    """1 - 1/tau, LIFNode's decay."""
    tau = number("tau", tau)
    if not tau > 1:
        raise ValueError(f"tau must be > 1 (in steps), so that the decay 1 - 1/tau is positive, got {tau}")
    if math.isinf(tau) and decay_input:
        raise ValueError("tau=inf needs decay_input=False (an IFNode); 1/tau would scale every input to 0")
    return 1 - 1 / tau


def number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {describe(value)}")
    return float(value)
