"""The compiled runtime whatever compiles it: other processors, other compilers, sanitizers, none."""

import sys
from pathlib import Path

import pytest

from mfp_neurons import _build
from mfp_neurons.deploy.host import compiled, structs
from tests.deploy.toolchain import STRICT, run, tool

ROOT = Path(__file__).parents[2]


def test_it_runs_here() -> None:
    assert compiled.unavailable() is None


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFP_NEURONS_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    words = "the C compiler that CC names, 'no-such-compiler', is not there"
    with pytest.raises(_build.Unavailable, match=words):
        structs.libraries.__wrapped__()  # built anew, not what this process has loaded already


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_sources_compile_without_a_warning(compiler: str) -> None:
    strict = ["-std=c11", *STRICT[1:], "-Wshadow", "-fopenmp-simd", "-O2"]
    for part in structs.SOURCE.parts:
        run([tool(compiler), *strict, *part.flags, "-fsyntax-only", part.entry], ROOT)


def elsewhere(folder: Path, compiler: str, flags: str, **environment: str) -> None:
    """Draws networks in another process, with a library that another compiler call has made."""
    wrapper = folder / "cc"
    wrapper.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {compiler} "$@" {flags}\n')
    wrapper.chmod(0o755)
    environment |= {"MFP_NEURONS_CACHE": str(folder), "CC": str(wrapper)}
    run([sys.executable, "-m", "tests.deploy.agreement", "20"], ROOT, **environment)


@pytest.mark.parametrize("compiler", [pytest.param("gcc", marks=pytest.mark.slow), "clang"])
def test_a_plain_processor_and_another_compiler_give_the_same(tmp_path: Path, compiler: str) -> None:
    elsewhere(tmp_path, tool(compiler), "", **{structs.INSTRUCTIONS: "baseline"})


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    runtime = Path(run([tool("gcc"), "-print-file-name=libasan.so"], ROOT).decode().strip())
    if not runtime.is_absolute():
        pytest.skip("no address sanitizer")
    flags = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"
    quiet = {"LD_PRELOAD": str(runtime), "ASAN_OPTIONS": "detect_leaks=0"}  # Python leaks on its way out
    for instructions in structs.libraries():
        elsewhere(tmp_path, "gcc", flags, **quiet, **{structs.INSTRUCTIONS: instructions})
