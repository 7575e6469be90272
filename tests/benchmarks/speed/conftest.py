"""A result written by hand: small, with everything in it that a result may have."""

from typing import Any

import pytest

Entry = dict[str, Any]
T4, T64, T1024 = (
    f"neuron/{size}/float32/training" for size in ("T=4,N=1600000", "T=64,N=100000", "T=1024,N=4096")
)
STEP = "network/FashionMNISTNet-32/T=4,batch=32,28x28/float32"


def times(median: float) -> dict[str, Any]:
    return {"total": {"median": median, "low": 0.9 * median, "high": 1.25 * median}}


def entry(name: str, median: float, **more: Any) -> Entry:
    against = "MFPLeakyParallel" if name in ("MFPLeakyParallel", "snn.Leaky", "StateLeaky") else "MFPNode"
    return {"name": name, "against": against, "calls": 5, "ms": times(median), **more}


def row(steps: int, neurons: int, *entries: Entry) -> dict[str, Any]:
    copies = {"copy": times(2.0)["total"], "copy into new memory": times(4.0)["total"]}
    facts = {"steps": steps, "neurons": neurons, "dtype": "float32", "work": "training"}
    return {**facts, "copy_bytes": 8 * steps * neurons, "copies": copies, "entries": list(entries)}


@pytest.fixture
def result() -> dict[str, Any]:
    saved = {"firing_rate": 0.1, "saved_bytes_per_element": 4.0, "peak_bytes_per_element": 8.5}
    share = {"bytes": {"total": 128_000_000}, "copy_share": {"total": 0.5, "forward": 0.4, "backward": 0.6}}
    memory = {"peak_bytes": 9e6, "activation_peak_bytes": 6e6, "saved_bytes": 4e6}
    less = {key: value / 2 for key, value in memory.items()}
    return {
        "facts": {
            "device": "cpu", "device_name": "A processor", "processor": "A processor", "cpus": 2,
            "threads": 2, "load_average_before": 0.1, "system": "Linux", "backend": "cpu",
            "versions": {"torch": "2.15.0", "triton": None}, "date": "2026-11-23 12:00 UTC",
            "commit": {"id": "0123456789abcdef", "dirty": True},
        },
        "options": {"quick": False, "repeats": 31, "only": [], "minutes": None},
        "memory_methods": {"saved": "by hooks"},
        "rows": {
            T4: row(
                4, 1_600_000,
                entry("MFPNode", 5.0, ours=True, memory=saved, **share),
                entry("LIFNode", 40.0, note="loop", memory_skipped="RuntimeError: no"),
                entry("PSN", 29.0),
                {"name": "SlidingPSN", "against": "MFPNode", "skipped": "too slow"},
            ),
            T64: row(
                64, 100_000,
                entry("MFPNode", 4.0),
                {"name": "LIFNode", "against": "MFPNode", "skipped": "gone"},
            ),
            STEP: {
                "steps": 4, "batch": 32, "image": [1, 28, 28],
                "entries": [
                    entry("MFPNode, fused", 100.0, ours=True, memory=less),
                    entry("LIFNode", 151.0, memory=memory),
                ],
            },
            T1024: {"skipped": "no time left (--minutes)"},
        },
    }  # fmt: skip
