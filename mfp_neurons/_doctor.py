"""Says which backends run on this machine, why the others do not, and which versions are installed."""

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

import torch

from . import backends
from ._checks import MissingDependency
from .kernels import device, host

_PACKAGES = ("mfp-neurons", "torch", "spikingjelly", "snntorch", "cupy-cuda13x", "cupy-cuda12x", "triton")


def doctor() -> str:
    """A table of backends, devices and versions, for a reader in trouble or a report of a bug.

    Builds the CPU kernels if they have not been built yet, and compiles one CUDA kernel if there is a GPU.
    """
    return "\n\n".join(["\n".join(part) for part in (_backends(), _machine(), _versions())])


def _backends() -> Iterator[str]:
    yield "backends"
    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    for name in backends.NAMES[1:]:  # the first is "auto"
        reason = backends.unavailable(name)
        yield _row(name, "runs" if reason is None else f"does not run: {reason}")
    for place in devices:
        chosen = backends.choose("auto", place).__name__.rpartition(".")[2]
        yield _row("auto", f"takes {chosen!r} for tensors on {place}")
    reason = _reason_against_deploy()
    yield _row("deploy", _runs_compiled() if reason is None else f"does not run compiled: {reason}")


def _reason_against_deploy() -> str | None:
    """Why integer networks do not run compiled; None if they do."""
    try:
        from .deploy.host.compiled import unavailable
    except MissingDependency as error:
        return str(error)
    return unavailable()


def _runs_compiled() -> str:
    from .deploy.host.structs import library

    return f"runs compiled, for {library().instructions}"


def _machine() -> Iterator[str]:
    yield "machine"
    yield _row("system", platform.platform())
    yield _row("threads", f"{torch.get_num_threads()} for torch, of {os.cpu_count()} processors")
    yield _row("compiled", f"CPU kernels are kept in {host.cache_folder()}")
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        yield _row(f"cuda:{i}", f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}")
    if not torch.cuda.is_available():
        yield _row("cuda", f"none (this PyTorch was built for {_built_for()})")


def _built_for() -> str:
    if torch.version.hip is not None:
        return f"ROCm {torch.version.hip}"
    return "CPUs alone" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"


def _versions() -> Iterator[str]:
    yield "versions"
    yield _row("python", sys.version.split()[0])
    for name in _PACKAGES:
        try:
            yield _row(name, metadata.version(name) + _remark(name))
        except metadata.PackageNotFoundError:
            yield _row(name, "not installed")


def _remark(package: str) -> str:
    """What to say about a CuPy that is not alone or too old; nothing of other packages."""
    if package not in device.cupy_wheels():
        return ""
    others = [name for name in device.cupy_wheels() if name != package]
    if others:
        return f" (excludes {' and '.join(others)}, also installed: uninstall all, then install one)"
    if tuple(map(int, metadata.version(package).split(".")[:2])) < device.CACHING_CUPY:
        oldest = ".".join(map(str, device.CACHING_CUPY))
        return f" (compiles the kernels again in every process; {oldest} and newer keep them on disk)"
    return ""


def _row(name: str, value: str) -> str:
    return f"  {name:<13} {value}"
