"""Compilers and emulators that some tests need: without one a test skips, or fails where CI requires them."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")


def tool(name: str) -> str:
    """The path of a program; without it the test skips, or fails if MFP_REQUIRE_TOOLS=1."""
    found = shutil.which(name)
    if found is not None:
        return found
    if os.environ.get("MFP_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{name} is not installed, and MFP_REQUIRE_TOOLS=1 requires it")
    pytest.skip(f"{name} is not installed")


def run(command: Sequence[str | Path], folder: Path, given: bytes = b"", **environment: str) -> bytes:
    """What a program prints; its complaints in the failure if it fails."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | environment,
        input=given,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        words = " ".join(map(str, command))
        pytest.fail(f"{words}: exit {done.returncode}\n{done.stderr.decode(errors='replace')[-4000:]}")
    return done.stdout
