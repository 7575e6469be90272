"""What a memory-free neuron module computes with, as whole numbers: taps, threshold, rule."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .graph import Ints


@dataclass(frozen=True, eq=False)
class NeuronValues:
    """A layer of memory-free neurons: u[t] = sum of taps[j] * 2**exponent * x[t-j].

    Attributes:
        path: of the module.
        taps: int64 [1, K, 1 or C]; of a matrix kernel [T, K, 1]: taps[t, j] for step t and the
            input j steps back.
        exponent: what a tap of 1 is worth, 2**exponent.
        v_threshold: float64 [1 or C].
        strict: whether it fires on u > v_threshold only, not on equality.
    """

    path: str
    taps: Ints
    exponent: int
    v_threshold: NDArray[np.float64]
    strict: bool
