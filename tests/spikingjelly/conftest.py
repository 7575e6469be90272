"""The tests in this folder run against whichever version of SpikingJelly is on the path.

``make test`` runs them twice; MFP_SPIKINGJELLY says which version the second run is about, and a run that
finds another one stops here instead of passing for the wrong reason.
"""

import os
from importlib.metadata import distribution
from pathlib import Path

import pytest

spikingjelly = pytest.importorskip("spikingjelly", reason="the 'spikingjelly' extra is not installed")

_installed = distribution("spikingjelly")
_wanted = os.environ.get("MFP_SPIKINGJELLY", _installed.version)

if _installed.version != _wanted:
    raise RuntimeError(
        f"MFP_SPIKINGJELLY={_wanted}, but the SpikingJelly on the path is {_installed.version}"
    )
if (
    Path(spikingjelly.__file__).resolve()
    != Path(str(_installed.locate_file("spikingjelly/__init__.py"))).resolve()
):
    raise RuntimeError(f"imported {spikingjelly.__file__}, which is not the installed {_installed.version}")
