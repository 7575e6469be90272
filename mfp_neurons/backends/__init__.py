"""What a backend is asked, what it answers, and the one place that chooses which backend computes a neuron.

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
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch as _torch  # `torch` in this package is the backend of that name
from torch import Tensor

from .._checks import check_choice, log_once
from ..kernels import device as _device
from ..kernels import host as _host
from ..surrogate import Surrogate, from_name

NAMES = ("auto", "torch", "cpu", "cupy")
_COMPILED = {"cpu": "cpu", "cuda": "cupy"}  # device type -> the backend made for it

#: What a neuron's own spikes can change (``Call.reset``), in the order of the enum in kernels/arithmetic.h.
RESETS = ("", "decaying", "zero", "taps")


class Call(NamedTuple):
    """One call of the neuron, checked: how it travels from the public functions to the kernels.

    The first eight fields are its tensors, in the order of :class:`Gradients` and of every operator; the rest
    says what is computed from them. What ``reset`` feeds back of the neuron's own spikes, in the words of
    docs/neuron.md:

    ========== ============ ================================================================================
    reset      kind         potential
    ========== ============ ================================================================================
    ""         all          the weighted inputs alone
    "decaying" "exp"        u[t] = decay u[t-1] + feedback s[t-1] + gain x[t], the LIF with soft reset
    "zero"     "exp"        u[t] = decay (1 - s[t-1]) u[t-1] + gain x[t], the LIF with hard reset
    "taps"     "fir"        adds the sum over j = 1 .. R of feedback[j-1] s[t-j]
    "zero"     "fir"        the sum over the inputs stops at the neuron's last own spike
    ========== ============ ================================================================================
    """

    x: Tensor  #: [T, N, *], time first
    kernel: Tensor  #: "exp": [2, G] (decay, gain); "fir": [K, G]; "matrix": [T, S]; G is 1 or the channels
    threshold: Tensor | None = None  #: [1] or [C]; None: the potential alone is wanted
    state: Tensor | None = None  #: "exp": the last potential [N, *]; else the inputs before, [S, N, *]
    scale: Tensor | None = None  #: [C], with shift: the neuron gets scale[c] * x + shift[c], and a state
    shift: Tensor | None = None  #: of inputs holds what it got, which is not mapped again
    feedback: Tensor | None = None  #: "taps": [R, G], "decaying": [1, G]; weights of the neuron's own spikes
    own_spikes: Tensor | None = None  #: those before the first step, oldest first, [R, N, *]; None: none
    kind: str = "exp"
    surrogate: Any = None  #: a Surrogate; in front of the operators any callable from u - threshold to spikes
    strict: bool = False  #: fire on u > threshold
    record: bool = False  #: the potential of every step, rather than of the last
    potential: bool = True  #: False: nobody reads the potential, which is then empty
    reset: str = ""  #: what the neuron's own spikes change; see above
    detach: bool = False  #: no gradient passes through what the own spikes change
    backend: str = "auto"

    @property
    def tensors(self) -> tuple[Any, ...]:
        return self[:_TENSORS]

    @property
    def options(self) -> tuple[Any, ...]:
        """What is no tensor."""
        return self[_TENSORS:]

    @property
    def per_channel(self) -> bool:
        """Whether any parameter differs between channels."""
        kernel, threshold, feedback = self.kernel, self.threshold, self.feedback
        return (
            (self.kind != "matrix" and kernel.shape[1] > 1)
            or (feedback is not None and feedback.shape[1] > 1)
            or (threshold is not None and threshold.numel() > 1)
            or (self.scale is not None and self.scale.numel() > 1)
        )

    @property
    def spikes_held(self) -> int:
        """R, how many of its own last spikes the neuron's next step depends on."""
        if self.reset == "":
            return 0
        if self.kind == "exp":
            return 1
        return len(self.kernel) - 1 if self.feedback is None else len(self.feedback)

    def empty_outputs(self) -> tuple[Tensor | None, Tensor]:
        """Room for the spikes, and for the potential of every step, of the last, or of none."""
        x, wide = self.x, accumulate_dtype(self.x.dtype)
        spikes = None if self.threshold is None else _torch.empty_like(x)
        if not self.potential:
            return spikes, x.new_empty(0, dtype=wide)
        if self.record:
            return spikes, _torch.empty_like(x, dtype=wide)
        return spikes, _torch.empty(x.shape[1:], dtype=wide, device=x.device)

    def as_steps(self, potential: Tensor) -> Tensor:
        """The potential, or its gradient, as [S, N, *]: of every step, or with a time axis of one."""
        return potential if self.record else potential.unsqueeze(0)

    def arguments(self) -> tuple[Any, ...]:
        """The call as an operator takes it: tensors, words and numbers. The inverse of :meth:`of`."""
        fused: Surrogate | None = self.surrogate
        name, parameters = ("", []) if fused is None else (fused.name, fused.parameters)
        return (*self[:_TENSORS], self.kind, name, parameters, *self[_TENSORS + 2 :])

    @classmethod
    def of(cls, *arguments: Any) -> "Call":
        """The call that an operator was given."""
        kind, name, parameters = arguments[_TENSORS : _TENSORS + 3]
        surrogate = from_name(name, parameters) if name else None
        return cls._make((*arguments[:_TENSORS], kind, surrogate, *arguments[_TENSORS + 3 :]))


class Gradients(NamedTuple):
    """Gradients of a call's eight tensors; None where nobody asked.

    Those of scale and shift may be wider than the call's, as precise as they were summed.
    """

    x: Tensor | None = None
    kernel: Tensor | None = None
    threshold: Tensor | None = None
    state: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    feedback: Tensor | None = None
    own_spikes: Tensor | None = None


_TENSORS = len(Gradients._fields)


class Pool(NamedTuple):
    """Max pooling of images [N, C, height, width], as torch.nn.functional.max_pool2d takes it; pairs (y, x).

    A backend that has a kernel for it has :func:`mfp_neurons.backends.cpu.max_pool` and its gradient.
    """

    image: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        height, width = (
            (size + 2 * padding - window) // stride + 1
            for size, window, stride, padding in zip(*self, strict=True)
        )
        return height, width

    @property
    def is_valid(self) -> bool:
        """Whether torch takes it, and a byte can name each place of a window."""
        return (
            self.window[0] * self.window[1] <= 256
            and min(*self.window, *self.stride) > 0
            and min(self.out) > 0
            and all(0 <= 2 * pad <= size for pad, size in zip(self.padding, self.window, strict=True))
        )


def accumulate_dtype(dtype: _torch.dtype) -> _torch.dtype:
    """The dtype of potentials and sums: float64 for float64, else float32."""
    return _torch.float64 if dtype == _torch.float64 else _torch.float32


def in_full_precision(x: Any) -> AbstractContextManager[Any]:
    """Without autocast, which would narrow, or refuse to join, the tensors around a kernel."""
    device = x.device.type if isinstance(x, Tensor) else "cpu"
    if _torch.compiler.is_compiling():
        return _torch.autocast(device, enabled=False)
    # the meta device, for one, has no autocast; asking breaks a graph on torch 2.6
    if _torch.amp.is_autocast_available(device) and _torch.is_autocast_enabled(device):
        return _torch.autocast(device, enabled=False)
    return nullcontext()


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
