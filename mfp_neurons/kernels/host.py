"""The host kernels: C++ that is built on first use (see :mod:`.._build`) and called through ctypes."""

import ctypes
import functools
from pathlib import Path

from .. import _build
from .._build import Unavailable, cache_folder

__all__ = ["SOURCE", "Unavailable", "cache_folder", "library", "unavailable"]

_FOLDER = Path(__file__).parent
SOURCE = _build.Source(
    name="host",
    what="the CPU kernels",
    language=_build.CPP,
    parts=(_build.Part(_FOLDER / "host" / "mfp.cpp"),),
    files=(_FOLDER / "arithmetic.h", *sorted((_FOLDER / "host").iterdir())),
    # errno and traps are all that these two give up; every result stays what IEEE arithmetic says
    flags=("-fno-math-errno", "-fno-trapping-math"),
    wanted=("-fopenmp",),
)


@functools.cache
def unavailable() -> str | None:
    """Why the host kernels cannot run here, or None if they can. Builds them if need be."""
    return _build.why_not(library)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        Unavailable: there is no compiler, or it fails, or what it made does not load.
    """
    loaded = SOURCE.load()
    if not loaded.mfp_has_threads():
        SOURCE.say_threads_are_missing()
    return loaded
