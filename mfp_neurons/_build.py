"""Builds this package's C and C++ with the system's compiler, once, and loads them through ctypes.

A library is built for this machine's processor, or in parts for several, of which one is chosen when it is
loaded. It is kept in a cache folder (``MFP_NEURONS_CACHE``, else ``mfp_neurons`` in the user's cache folder)
under a name made of the sources, the flags and the processor.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ._checks import log_once

_SHARED = ("-O3", "-shared", "-fPIC")
_NATIVE = "-march=native"
_Done = subprocess.CompletedProcess[str]


class Unavailable(RuntimeError):
    """What is compiled cannot run here; the message says why."""


@dataclass(frozen=True)
class Language:
    """Which compilers there are; ``variable`` of the environment can name another, with arguments."""

    name: str
    variable: str
    compilers: tuple[str, ...]
    standard: str

    def compiler(self) -> list[str]:
        """The command to call.

        Raises:
            Unavailable: there is none.
        """
        named = os.environ.get(self.variable)
        if named:
            command = shlex.split(named)
            if shutil.which(command[0]) is None:
                raise Unavailable(
                    f"the {self.name} compiler that {self.variable} names, {command[0]!r}, is not there"
                )
            return command
        found = next((name for name in self.compilers if shutil.which(name)), None)
        if found is None:
            raise Unavailable(
                f"there is no {self.name} compiler (looked for {', '.join(self.compilers)}; "
                f"{self.variable} can name one)"
            )
        return [found]


C = Language("C", "CC", ("cc", "gcc", "clang"), "-std=c11")
CPP = Language("C++", "CXX", ("c++", "g++", "clang++"), "-std=c++17")


@dataclass(frozen=True)
class Part:
    """A file that is compiled with ``flags`` of its own; left out if the compiler does not know them."""

    entry: Path
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One library: how it is called, what it is to a reader, where it is, what it takes.

    Attributes:
        name: what file names and log keys begin with.
        what: in words, for messages.
        parts: the files that are compiled. One is made for this machine's processor alone; several say by
            their flags for which processors they are, and the library runs on all machines of a kind.
        files: all that it is made of.
        flags: beside those for every library.
        wanted: flags that a compiler need not know, the most important first.
    """

    name: str
    what: str
    language: Language
    parts: tuple[Part, ...]
    files: tuple[Path, ...]
    flags: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """What a built library depends on: the sources, the flags, the processor."""
        flags = (
            self.language.standard,
            _SHARED,
            self.flags,
            self._choices(),
            [part.flags for part in self.parts],
        )
        processor = _processor() if self._is_native() else platform.machine()
        found = hashlib.sha256(repr((flags, processor)).encode())
        for file in self.files:
            found.update(file.read_bytes())
        return found.hexdigest()[:16]

    def load(self) -> ctypes.CDLL:
        """The library, built if need be.

        Raises:
            Unavailable: there is no compiler, or it fails, or what it made does not load.
        """
        path = cache_folder() / f"{self.name}-{self.fingerprint()}.so"
        if not path.exists():
            path = self._build(path)
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            raise Unavailable(f"{path} does not load ({error}); delete it to have it built again") from error

    def say_threads_are_missing(self) -> None:
        """For a library that finds itself built without OpenMP."""
        language = self.language
        log_once(
            f"{self.name}-threads",
            f"the {language.name} compiler has no OpenMP: {self.what} run on one thread, slower. A compiler "
            f"that takes -fopenmp (GCC, or Clang with libomp), named in {language.variable}, gives them all.",
        )

    def _is_native(self) -> bool:
        """Whether the library is for the processor of this machine alone."""
        return len(self.parts) == 1

    def _choices(self) -> tuple[tuple[str, ...], ...]:
        """Sets of flags, the best first; the first that the compiler takes is used."""
        known = [self.wanted[:count] for count in range(len(self.wanted), -1, -1)]
        if not self._is_native():
            return tuple(known)
        return tuple(flags for wanted in known for flags in ((_NATIVE, *wanted), wanted))

    def _build(self, path: Path) -> Path:
        compiler = self.language.compiler()
        log_once(
            f"{self.name}-build",
            f"compiling {self.what} with {compiler[0]} into {path.parent} (once, some 20 seconds)",
        )
        folder = self._writable(path.parent)
        handle, made = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
        try:
            with tempfile.TemporaryDirectory(dir=folder) as objects:
                self._compile(compiler, Path(objects), made)
            os.replace(made, folder / path.name)  # whole or not at all, if several processes build at once
        finally:
            Path(made).unlink(missing_ok=True)
        return folder / path.name

    def _compile(self, compiler: list[str], folder: Path, made: str) -> None:
        """Makes the library ``made`` by way of one object for each part, in an empty folder."""
        fixed = [*compiler, self.language.standard, *_SHARED, *self.flags]
        empty = folder / "empty.c"
        empty.touch()

        def knows(part: Part) -> bool:
            command = [*fixed, *part.flags, "-c", "-o", str(folder / "empty.o"), str(empty)]
            return not part.flags or _call(command).returncode == 0

        objects = {part: str(folder / f"{part.entry.stem}.o") for part in self.parts if knows(part)}
        for flags in self._choices():

            def compile_part(part: Part, flags: tuple[str, ...] = flags) -> _Done:
                return _call([*fixed, *part.flags, *flags, "-c", "-o", objects[part], str(part.entry)])

            with ThreadPoolExecutor() as pool:
                calls = list(pool.map(compile_part, objects))
            if all(call.returncode == 0 for call in calls):
                calls.append(_call([*fixed, *flags, "-o", made, *objects.values()]))
            failed = [call for call in calls if call.returncode != 0]
            if not failed:
                return
        raise Unavailable(f"{shlex.join(failed[0].args)} failed: {failed[0].stderr.strip()[-2000:]}")

    def _writable(self, folder: Path) -> Path:
        """``folder``, or one for this process alone where that cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            log_once(
                f"{self.name}-cache",
                f"the cache folder {folder} cannot be written ({error}): every process compiles {self.what} "
                "anew. MFP_NEURONS_CACHE can name another folder.",
            )
            return _process_folder()


def _call(command: list[str]) -> _Done:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def why_not(library: Callable[[], object]) -> str | None:
    """Why a library cannot be loaded, or None if it can. Builds it if need be."""
    try:
        library()
    except Unavailable as error:
        return str(error)
    return None


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


@functools.cache
def _process_folder() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="mfp_neurons-", ignore_cleanup_errors=True)
    _kept.append(holder)
    return Path(holder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends
