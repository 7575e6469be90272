"""Whether what was read from a model follows the number of steps.

A capture sees one T. What the model's own Python computes with it (``x.sum(0) / x.shape[0]``) is a number by
then, and a window as long as the example (``x[-4:]`` with T = 4) looks like all steps. So a model is captured
a second time, with more steps of stand-ins, for which nothing is computed: what is equal in both follows T.
"""

from dataclasses import is_dataclass
from typing import Any

import numpy as np

_AT_LEAST = 16  # so that windows and divisors of some steps show too, however short the example is


def other_steps(steps: int, period: int = 1) -> int:
    """Another T, with which nothing that was computed from ``steps`` agrees: odd in units of ``period``.

    >>> other_steps(4), other_steps(100), other_steps(8, period=4)
    (33, 201, 36)
    """
    windows = -(-max(steps, _AT_LEAST) // period)
    return (2 * windows + 1) * period


def same(a: Any, b: Any) -> bool:
    """Whether two values of one kind are equal: arrays, plain values, and what holds them.

    >>> same({"taps": (np.ones(2), 3)}, {"taps": (np.ones(2), 3)}), same(np.ones(2), np.ones(3))
    (True, False)
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return same(vars(a), vars(b)) if is_dataclass(a) else bool(a == b)
