"""Checks and their wording: what was asked, what came, what is accepted."""

import functools
import logging
import math
from collections.abc import Callable, Iterable
from importlib import import_module
from numbers import Real
from reprlib import Repr
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

logger = logging.getLogger("mfp_neurons")
_said: set[str] = set()
T = TypeVar("T")
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class MissingDependency(ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Imports ``module``, or raises :class:`MissingDependency` naming the ``extra`` that brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise  # the package is there; something in it, or that it needs, is not
        raise MissingDependency(
            f"{module} is not installed. Install it with: pip install 'mfp-neurons[{extra}]'", name=module
        ) from error


def log_once(key: str, message: str, *values: object, level: int = logging.WARNING) -> None:
    """Logs ``message % values`` the first time ``key`` is seen; silent while torch.compile traces."""
    if torch.compiler.is_compiling() or key in _said:
        return
    _said.add(key)
    logger.log(level, message, *values)


def refuse_tracers(module: torch.nn.Module, x: Any) -> None:
    """Raises TypeError where torch.fx, or nirtorch's older tracer, runs a neuron to see what it is.

    SpikingJelly's NIR exporter uses the one; snnTorch's, Norse's and sinabs's the other. snnTorch would
    write MFPLeaky, an ``snn.Leaky`` to it, as a neuron that resets, and Norse nothing at all in its place.
    """
    if torch.compiler.is_compiling():
        return
    to_nir = "To export a model to NIR, use mfp_neurons.nir.to_nir(model, example)"
    if isinstance(x, torch.fx.Proxy):
        raise TypeError(
            f"{type(module).__name__} cannot be traced by torch.fx: make it a leaf of the tracer. {to_nir}"
        )
    if torch.nn.Module.__call__.__module__ == "nirtorch.graph":
        raise TypeError(
            f"{type(module).__name__} is no neuron of this exporter, which would write one that resets "
            f"differently, or none. {to_nir}"
        )


def describe(value: Any) -> str:
    """A short description of an argument for an error message: one line, whatever came."""
    name = type(value).__name__
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {list(value.shape)} on {value.device}"
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):  # an array of NumPy, or like those
        return f"a {value.dtype} {name} of shape {list(value.shape)}"
    if isinstance(value, torch.nn.Module):
        return f"a {name} (torch.nn.Module)"
    return f"{' '.join(_SHORT.repr(value).split())} ({name})"


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless ``value`` is one of some words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {describe(value)}")


def check_module(name: str, value: Any) -> None:
    """Raises TypeError unless ``value`` is a module of torch."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {describe(value)}")


_PLAIN = (Tensor, nn.Parameter)


def is_traced(tensors: Iterable[Any]) -> bool:
    """Whether anybody but autograd sees, or changes, what is computed from these tensors (or None).

    The compiler and its like, the transforms of torch.func, forward derivatives, modes, tensors that stand
    for others: all of them need operators that they know.
    """
    if torch.compiler.is_compiling():
        return True
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or any(one is not None and (type(one) not in _PLAIN or one.is_meta) for one in tensors)
    )


def cached(make: Callable[..., T]) -> Callable[..., T]:
    """``functools.lru_cache``, around which torch.compile goes."""
    remembered = functools.lru_cache(maxsize=1024)(make)

    @functools.wraps(make)
    def made(*args: Any) -> T:
        return make(*args) if torch.compiler.is_compiling() else remembered(*args)

    return made


def is_readable(value: Tensor) -> bool:
    """Whether values can be looked at here without a device synchronization or a graph break."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return type(value) in _PLAIN and value.is_cpu


def is_exporting() -> bool:
    """Whether torch.export traces, for which T can be any number. torch 2.6 cannot say: then, never."""
    is_exporting = getattr(torch.compiler, "is_exporting", None)
    return bool(is_exporting and is_exporting())


NO_BACKWARD = -1


def backward_pass() -> int:
    """The number of the backward pass that is running, or NO_BACKWARD."""
    return NO_BACKWARD if torch.compiler.is_compiling() else torch._C._current_graph_task_id()


def check_finite(name: str, value: Tensor | float) -> None:
    """Raises ValueError if ``value`` holds a NaN or an infinity and can be read at no cost."""
    _check_range(name, value, "finite", below=math.inf)


def check_threshold(name: str, value: Tensor | float) -> None:
    """Raises ValueError if ``value`` holds a NaN or -inf and can be read at no cost.

    An infinite threshold is that of a neuron that never fires: the usual read-out of a potential.
    """
    _check_range(name, value, "finite, or inf for a neuron that never fires", below=None)


_FEW = 64  # numbers up to which Python looks at them in less time than it takes to call operators


def _check_range(name: str, value: Tensor | float, accepted: str, below: float | None) -> None:
    if not isinstance(value, Tensor):
        if type(value) is not float and (isinstance(value, bool) or not isinstance(value, Real)):
            raise TypeError(f"{name} must be a number, got {describe(value)}")
        if not (value > -math.inf and (below is None or value < below)):
            raise ValueError(f"{name} must be {accepted}, got {value}")
    elif is_readable(value):
        values = value.detach()
        if values.numel() <= _FEW and all(
            number > -math.inf and (below is None or number < below) for number in values.flatten().tolist()
        ):
            return
        # compared with infinities, because the largest float64 is one in float32
        inside = values > -math.inf if below is None else (values > -math.inf) & (values < below)
        if not bool(inside.all()):
            outside = values[~inside]
            others = f" in {len(outside)} of {values.numel()} values" if values.numel() > 1 else ""
            raise ValueError(f"{name} must be {accepted}, got {outside[0].item()}{others}")


def check_int(name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """Returns ``value`` if it is an integer in [lowest, highest], else raises."""
    accepted = f"an integer >= {lowest}" if highest is None else f"an integer from {lowest} to {highest}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {accepted}, got {describe(value)}")
    if value < lowest or (highest is not None and value > highest):
        raise ValueError(f"{name} must be {accepted}, got {value}")
    return value


def replaced_method(module: torch.nn.Module) -> str | None:
    """The name of a method that was replaced on this very object."""
    names = (name for name, value in vars(module).items() if callable(value))
    return next((name for name in names if callable(getattr(type(module), name, None))), None)
