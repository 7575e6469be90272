"""The one place that chooses what computes a neuron.

A backend is a module with the functions of :mod:`mfp_neurons.backends.torch`:

===== ======================================= ==============================
name  what it is                              where it runs
===== ======================================= ==============================
torch stock PyTorch operators                 every device
cpu   compiled host kernels (C++, OpenMP)     CPU tensors, with a compiler
cupy  the same arithmetic in CUDA, by CuPy    CUDA tensors, with CuPy
===== ======================================= ==============================
"""

import functools
import logging
from importlib import import_module
from types import ModuleType

import torch as _torch

from .._checks import check_choice, log_once
from ..kernels import device as _device
from ..kernels import host as _host

NAMES = ("auto", "torch", "cpu", "cupy")
_COMPILED = {"cpu": "cpu", "cuda": "cupy"}  # device type -> the backend made for it


def check_name(name: str) -> None:
    """Raises unless ``name`` is the name of a backend."""
    check_choice("backend", name, NAMES)


def unavailable(name: str, device: _torch.device | str | None = None) -> str | None:
    """Why backend ``name`` cannot run here (on ``device``, if given), in words; None if it can."""
    check_name(name)
    if name in ("auto", "torch"):
        return None
    made_for = "cpu" if name == "cpu" else "cuda"
    if device is not None and _torch.device(device).type != made_for:
        return f"it computes on {made_for} tensors, and these are on {_torch.device(device)}"
    if name == "cpu":
        return _host.unavailable()
    return _device.unavailable(_torch.device(device or "cuda"))


@functools.cache
def choose(name: str, device: _torch.device) -> ModuleType:
    """The backend that runs ``name`` on ``device``; says once what "auto" chose, and why no compiled one.

    Raises:
        ValueError: there is no such backend, or it cannot compute on ``device``.
        MissingDependency: "cupy" without CuPy.
        RuntimeError: the backend cannot run here; the message says why.
    """
    if device.type == "meta":
        return _module("torch")  # shapes alone: nothing is computed
    if name != "auto":
        _refuse(name, device)
        return _module(name)
    best = _COMPILED.get(device.type, "torch")
    why = unavailable(best, device)
    if why is not None:
        log_once(
            f"backend-{device}",
            f"backend 'auto' on {device}: {best!r} cannot run ({why}); 'torch' does, slower",
        )
        return _module("torch")
    log_once(f"backend-{device}", f"backend 'auto' on {device}: {best!r}", level=logging.INFO)
    return _module(best)


def _refuse(name: str, device: _torch.device) -> None:
    why = unavailable(name, device)
    if why is None:
        return
    if name == "cupy":
        _device.check(device if device.type == "cuda" else _torch.device("cuda"))
    elif device.type == "cpu" or unavailable(name) is not None:
        raise RuntimeError(f"backend={name!r} cannot run here: {why}. backend='auto' takes one that can.")
    raise ValueError(f"backend={name!r}: {why}. Move the tensors, or let backend='auto' follow them.")


def _module(name: str) -> ModuleType:
    return import_module(f".{name}", __package__)
