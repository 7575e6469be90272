"""Where and with what a result was measured: device, processor, versions, commit."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mfp_neurons.backends import choose

_PACKAGES = ("mfp-neurons", "torch", "spikingjelly", "snntorch", "triton", "cupy-cuda12x", "cupy-cuda13x")


def facts(device: torch.device) -> dict[str, Any]:
    """Device, processor, threads, versions, commit, date; None for what is not there."""
    found: dict[str, Any] = {
        "device": device.type,
        "device_name": _processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "backend": choose("auto", device).__name__.rpartition(".")[2],
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": commit(Path(__file__).parents[1]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["cuda"] = torch.version.cuda
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["memory_gib"] = round(properties.total_memory / 2**30, 1)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit(root: Path, *paths: str) -> dict[str, Any] | None:
    """{"id", "dirty"} of a checkout; None elsewhere. The results that a run writes make nothing dirty.

    Args:
        root: the checkout.
        paths: what may be dirty, as git takes it (pathspecs); empty: everything but results.
    """
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", *(paths or (".", ":!benchmarks/results")))
        return {"id": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None
