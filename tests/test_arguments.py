"""Errors about arguments: one short line, whatever was given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mfp_neurons import (
    MFP,
    QuantizedMembraneLIF,
    TimePool,
    convert,
    deploy,
    functional,
    history,
    quantize_weights,
    report,
    surrogate,
)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), MFP(order=2), nn.Linear(4, 2))


def integers() -> deploy.IntegerNetwork:
    return deploy.lower(quantize_weights(network(), bits=1), torch.zeros(3, 1, 4))


LARGE = {
    "a NumPy array": (np.arange(9000.0).reshape(3, 3000), "a float64 ndarray of shape [3, 3000]"),
    "a list": (list(range(9000)), "[0, 1, 2, 3, 4, 5, ...] (list)"),
    "a dictionary": ({i: "x" * i for i in range(900)}, "...} (dict)"),
    "a text": ("x" * 9000, " (str)"),
    "a model": (nn.Sequential(*(nn.Linear(2, 2) for _ in range(300))), "a Sequential (torch.nn.Module)"),
    "lines": (type("Lines", (), {"__repr__": lambda self: "a line\n" * 900})(), "(Lines)"),
}
CALLS: dict[str, Callable[[Any], object]] = {
    "x_seq of MFP": lambda v: MFP()(v),
    "x_seq of a finite MFP": lambda v: MFP(kernel="fir", order=2)(v),
    "x_seq of the baseline": lambda v: QuantizedMembraneLIF()(v),
    "kernel": lambda v: MFP(kernel=v),
    "order": lambda v: MFP(order=v),
    "kernel_bits": lambda v: MFP(kernel_bits=v, order=2),
    "backend": lambda v: MFP(backend=v),
    "alpha": lambda v: surrogate.ATan(alpha=v),
    "taps": lambda v: history.FIR(v),
    "matrix": lambda v: history.Matrix(v),
    "a kernel of functional": lambda v: functional.fire(torch.zeros(2, 1), v),
    "window": lambda v: TimePool(v),
    "bits": lambda v: quantize_weights(network(), bits=v),
    "example of lower": lambda v: deploy.lower(quantize_weights(network(), bits=1), v),
    "levels": lambda v: deploy.lower(quantize_weights(network(), bits=1), torch.zeros(3, 1, 4), levels=v),
    "threads": lambda v: integers().run(torch.zeros(3, 1, 4), threads=v),
    "backend of run": lambda v: integers().run(torch.zeros(3, 1, 4), backend=v),
    "name of C": lambda v: integers().to_c("never", name=v),
}


@pytest.mark.parametrize("what", LARGE)
@pytest.mark.parametrize("call", CALLS)
def test_an_argument_of_another_kind_is_described_in_one_line(call: str, what: str) -> None:
    value, words = LARGE[what]
    with pytest.raises((TypeError, ValueError)) as caught:
        CALLS[call](value)
    message = str(caught.value)
    assert len(message) < 500
    assert "\n" not in message
    assert words in message


@pytest.mark.parametrize(
    "call", [convert, quantize_weights, lambda m: report(m, torch.zeros(1)), deploy.IntegerNetwork]
)
def test_what_is_no_model_is_described_in_one_line(call: Callable[[Any], object]) -> None:
    with pytest.raises((TypeError, ValueError), match="got") as caught:
        call(np.zeros((3, 3000)))
    assert len(str(caught.value)) < 200
