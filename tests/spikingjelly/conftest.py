"""The tests in this folder run against either version of SpikingJelly that is on the path.

``make test`` runs them twice; MFP_SPIKINGJELLY says which version the second run is about, and a run that
found another one stops here instead of passing for the wrong reason.
"""

import os
from importlib.metadata import version

import pytest

pytest.importorskip("spikingjelly", reason="the 'spikingjelly' extra is not installed")

WANTED = os.environ.get("MFP_SPIKINGJELLY")


def pytest_report_header() -> str:
    return f"spikingjelly {version('spikingjelly')}"


def pytest_configure(config: pytest.Config) -> None:
    found = version("spikingjelly")
    if WANTED is not None and WANTED != found:
        raise pytest.UsageError(f"MFP_SPIKINGJELLY={WANTED}, but the SpikingJelly on the path is {found}")
