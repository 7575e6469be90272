"""The site, built once for all tests, whichever worker needs it first."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.browser import browser, visit

__all__ = ["browser", "visit"]  # fixtures

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages; the command is that of `make docs`."""
    workers = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if workers else base
    built = shared / "site"
    with open(shared / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (built / "objects.inv").exists():
            build(built, shared / "doctrees")
    return built


def build(out: Path, doctrees: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", doctrees, DOCS, out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        (out / "objects.inv").unlink(missing_ok=True)
        pytest.fail(f"make docs fails:\n{done.stderr[-4000:]}")
