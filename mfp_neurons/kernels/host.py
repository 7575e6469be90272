"""Builds the host kernels with the system's C++ compiler, once, and loads them through ctypes.

The library is built for this machine's processor and kept in a cache folder (``MFP_NEURONS_CACHE``, else
``mfp_neurons`` in the user's cache folder) under a name made of the sources, the flags and the processor.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .._checks import log_once

_SOURCES = Path(__file__).parent
_ENTRY = _SOURCES / "host" / "mfp.cpp"
_COMPILERS = ("c++", "g++", "clang++")
# errno and traps are all that these two give up; every result stays what IEEE arithmetic says
_COMMON = ("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_THREADS, _NATIVE = "-fopenmp", "-march=native"
_FLAGS = ((_NATIVE, _THREADS), (_THREADS,), (_NATIVE,), ())  # the first that the compiler can take


class Unavailable(RuntimeError):
    """The host kernels cannot run here; the message says why."""


@functools.cache
def unavailable() -> str | None:
    """Why the host kernels cannot run here, or None if they can. Builds them if need be."""
    try:
        library()
    except Unavailable as error:
        return str(error)
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        Unavailable: there is no compiler, or it fails, or what it made does not load.
    """
    path = cache_folder() / f"host-{_fingerprint()}.so"
    if not path.exists():
        path = _build(path)
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"{path} does not load ({error}); delete it to have it built again") from error
    if not loaded.mfp_has_threads():
        log_once(
            "host-threads",
            "the C++ compiler has no OpenMP: the CPU kernels run on one thread, slower. A compiler that "
            "takes -fopenmp (GCC, or Clang with libomp), named in CXX, gives them all.",
        )
    return loaded


def cache_folder() -> Path:
    """Where built libraries are kept."""
    named = os.environ.get("MFP_NEURONS_CACHE")
    if named:
        return Path(named)
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "mfp_neurons"
    try:
        return Path.home() / ".cache" / "mfp_neurons"
    except RuntimeError:  # a user without a home
        return _process_folder()


def _fingerprint() -> str:
    """What a built library depends on: the sources, the flags, the processor."""
    found = hashlib.sha256(repr((_COMMON, _FLAGS, _processor())).encode())
    for source in _sources():
        found.update(source.read_bytes())
    return found.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    yield _SOURCES / "arithmetic.h"
    yield from sorted((_SOURCES / "host").iterdir())


def _processor() -> str:
    """The processor's model and what it can do; a cache folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = sorted(
        {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    )
    return "\n".join([platform.machine(), platform.processor(), *told])


def _build(path: Path) -> Path:
    compiler = _compiler()
    log_once(
        "host-build",
        f"compiling the CPU kernels with {compiler[0]} into {path.parent} (once, some 10 seconds)",
    )
    folder = _writable(path.parent)
    handle, made = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        _compile(compiler, made)
        os.replace(made, folder / path.name)  # whole or not at all, if several processes build at once
    finally:
        Path(made).unlink(missing_ok=True)
    return folder / path.name


def _compiler() -> list[str]:
    named = os.environ.get("CXX")
    if named:
        command = shlex.split(named)
        if shutil.which(command[0]) is None:
            raise Unavailable(f"the C++ compiler that CXX names, {command[0]!r}, is not there")
        return command
    found = next((name for name in _COMPILERS if shutil.which(name)), None)
    if found is None:
        raise Unavailable(f"there is no C++ compiler (looked for {', '.join(_COMPILERS)}; CXX can name one)")
    return [found]


def _writable(folder: Path) -> Path:
    """``folder``, or one for this process alone where that cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        log_once(
            "host-cache",
            f"the cache folder {folder} cannot be written ({error}): every process compiles the CPU kernels "
            "anew. MFP_NEURONS_CACHE can name another folder.",
        )
        return _process_folder()


@functools.cache
def _process_folder() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="mfp_neurons-", ignore_cleanup_errors=True)
    _kept.append(holder)
    return Path(holder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def _compile(compiler: list[str], made: str) -> None:
    for flags in _FLAGS:
        command = [*compiler, *_COMMON, *flags, "-o", made, str(_ENTRY)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise Unavailable(f"{shlex.join(command)} failed: {done.stderr.strip()[-2000:]}")
