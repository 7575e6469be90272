"""The CUDA kernels: compiled by NVRTC through CuPy on first use, once a device, launched on torch's stream.

CuPy 14.2 and newer keep what they compiled in their cache on disk. CuPy is imported on first use only, and of
it nothing but the compiler and the driver's launch is used: memory is torch's. (CuPy always adds
``-ftz=true``: numbers below 1.2e-38 count as zero. The reciprocal in a surrogate's derivative is within 1
unit in the last place. No other shortcut is taken.)
"""

import ctypes
import hashlib
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._checks import MissingDependency, require

FOLDER = Path(__file__).parent
OLDEST = (7, 0)  # compute capability
CACHING_CUPY = (14, 2)  # the first CuPy whose cache on disk finds template instances again

Field = Tensor | int | float | None


class Kernel(NamedTuple):
    """One template instance: the source file in ``cuda/`` and its name in C++."""

    file: str
    name: str


class Launch(NamedTuple):
    """A kernel and what it is launched with. The fields are its struct's, eight bytes each, in order:
    tensors as their addresses, None as a null pointer, floats as doubles, all else as integers."""

    kernel: Kernel
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    fields: list[Field]


@cache
def unavailable(device: torch.device) -> str | None:
    """Why the CUDA kernels cannot run on ``device``, in words, or None if they can."""
    if device.type != "cuda":
        return f"they run on CUDA devices, not on {device.type!r}"
    if torch.version.hip is not None:
        return "this PyTorch is a ROCm build"
    if not torch.cuda.is_available():
        return f"PyTorch finds no CUDA device: {_why_no_cuda()}"
    index = _index(device)
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        return f"compute capability {capability[0]}.{capability[1]} is older than {OLDEST[0]}.{OLDEST[1]}"
    try:
        _load(index, Kernel("channels.cu", "mfp::total<float>"))
    except MissingDependency as error:
        return str(error)
    except Exception as error:  # whatever the compiler or the driver says is the reason
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return f"CuPy cannot compile or load a kernel. {_cure()}It says: {words[:400]}"
    return None


def _why_no_cuda() -> str:
    """PyTorch's own first sentence: a build for CPUs alone, no driver, one that is too old, no GPU."""
    try:
        torch.cuda.init()
    except Exception as error:  # AssertionError of a build without CUDA, else RuntimeError
        return str(error).split(". ")[0].rstrip(".")
    return "none is visible (CUDA_VISIBLE_DEVICES)"


def _cure() -> str:
    """What is wrong between CuPy, PyTorch and the driver, and what to do; empty if nothing is known to be."""
    right, install = f"cupy-{extra()}x", f"pip install 'mfp-neurons[{extra()}]'"
    wheels = cupy_wheels()
    if len(wheels) > 1:
        return (
            f"{' and '.join(wheels)} exclude one another: pip uninstall {' '.join(wheels)}, then {install}. "
        )
    if wheels and wheels[0] != right:
        return (
            f"{wheels[0]} is for another CUDA than this PyTorch ({torch.version.cuda}): "
            f"pip uninstall {wheels[0]}, then {install}. "
        )
    known = _driver_knows()
    if known is not None and torch.version.cuda is not None and known < _version(torch.version.cuda):
        return (
            f"The driver knows CUDA up to {known[0]}.{known[1]}, PyTorch was built for "
            f"{torch.version.cuda}: update the driver. "
        )
    return ""


def cupy_wheels() -> list[str]:
    """The names of the installed CuPy packages; more than one exclude one another."""
    return sorted(
        name
        for name in ("cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
        if any(True for _ in metadata.distributions(name=name))
    )


def _driver_knows() -> tuple[int, int] | None:
    try:
        number = int(_cuda().runtime.driverGetVersion())
    except Exception:  # CuPy does not get that far
        return None
    return number // 1000, number % 1000 // 10


def _version(words: str) -> tuple[int, int]:
    major, minor = words.split(".")[:2]
    return int(major), int(minor)


def extra() -> str:
    """The extra of this package that brings the CuPy for this PyTorch's CUDA."""
    return "cuda12" if (torch.version.cuda or "").startswith("12") else "cuda13"


def check(device: torch.device) -> None:
    """Raises MissingDependency if CuPy is missing, RuntimeError if ``device`` cannot run the kernels."""
    reason = unavailable(device)
    if reason is None:
        return
    if torch.cuda.is_available() and find_spec("cupy") is None:
        require("cupy", extra())
    raise RuntimeError(f"backend 'cupy': the CUDA kernels cannot run on {device}: {reason}")


def launch(device: torch.device, what: Launch) -> None:
    """Puts one kernel on torch's current stream of ``device``. Waits for nothing, allocates nothing."""
    index = _index(device)
    key = (index, what.kernel)
    function = _functions.get(key) or _load(*key)
    packed = ctypes.create_string_buffer(pack(what.fields))
    arguments = ctypes.c_void_p(ctypes.addressof(packed))
    stream = torch.cuda.current_stream(index).cuda_stream
    with _current(index):
        _cuda().driver.launchKernel(
            function.ptr, *what.grid, *what.block, 0, stream, ctypes.addressof(arguments), 0
        )  # the driver has read the arguments when this returns


def pack(fields: list[Field]) -> bytes:
    """The bytes of a kernel's struct."""
    form, values = "", []
    for field in fields:
        if field is None:
            form, field = form + "q", 0
        elif type(field) is int:
            form += "q"
        elif type(field) is float:
            form += "d"
        else:
            form, field = form + "q", field.data_ptr()  # type: ignore[union-attr]
        values.append(field)
    return _packer(form).pack(*values)


@cache
def _packer(form: str) -> struct.Struct:
    return struct.Struct("=" + form)


@cache
def options() -> tuple[str, ...]:
    """What the compiler is told. The digest is of all sources: CuPy's cache does not look into includes."""
    digest = hashlib.sha256()
    for path in sorted([*FOLDER.glob("cuda/*.cu*"), FOLDER / "arithmetic.h"]):
        digest.update(path.read_bytes())
    return (
        "-std=c++17",
        f"-I{FOLDER}",
        f"-I{FOLDER / 'cuda'}",
        f"-DMFP_SOURCES=0x{digest.hexdigest()[:15]}",
    )


_functions: dict[tuple[int, Kernel], Any] = {}
_lock = threading.Lock()


def _load(index: int, kernel: Kernel) -> Any:
    """The compiled kernel on one device; it keeps its module alive."""
    with _lock:
        if (index, kernel) not in _functions:
            cupy = require("cupy", extra())
            code = (FOLDER / "cuda" / kernel.file).read_text()
            with _current(index):
                module = cupy.RawModule(
                    code=code, options=options(), backend="nvrtc", name_expressions=(kernel.name,)
                )
                _functions[index, kernel] = module.get_function(kernel.name).kernel
    return _functions[index, kernel]


@contextmanager
def _current(index: int) -> Iterator[None]:
    """Makes a device the current one of this thread, and its context that of the driver.

    Going back is left to PyTorch: it waits until the device before is used, where ``cudaSetDevice``, and so
    CuPy's own context manager, would put a context of hundreds of MB on it.
    """
    with torch.cuda.device(index):
        _cuda().runtime.setDevice(index)  # a thread of autograd's that is new has no context yet
        yield


@cache
def _cuda() -> Any:
    return require("cupy", extra()).cuda


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
