"""The one place that chooses what computes a neuron.

A backend is a module with the functions ``forward`` and ``backward`` of :mod:`mfp_neurons.backends.torch`.
Compiled kernels take their place in the table below.
"""

import logging
from types import ModuleType

import torch as _torch

from .._checks import log_once
from . import torch as _stock

NAMES = ("auto", "torch", "cpu", "cupy")


def check_name(name: str) -> None:
    """Raises unless ``name`` is a backend that this build of the package can run."""
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    if name in ("cpu", "cupy"):
        raise NotImplementedError(
            f"backend={name!r} is not available: this release has no compiled kernels. Use 'auto' or 'torch'."
        )


def choose(name: str, device: _torch.device) -> ModuleType:
    """The backend that runs ``name`` on ``device``; says once what it chose and why."""
    check_name(name)
    if name == "auto":
        log_once(
            f"backend-{device.type}",
            f"backend 'auto' on {device.type}: chose 'torch' (stock operators), the only one in this release",
            level=logging.INFO,
        )
    return _stock
