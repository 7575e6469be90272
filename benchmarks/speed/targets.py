"""Targets for speed and memory, as data, and whether the results of a run reach them."""

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Result = dict[str, Any]
_LARGE = 1 << 26  # elements from which the bandwidth targets of a GPU hold


@dataclass(frozen=True)
class Target:
    """One promise: in every row that matches, ``quantity`` of ``ours`` (against ``peer``) is at the limit.

    quantity: "speed", the peer's time over ours; "copy", the share of the copy bandwidth that the bytes which
    must move reach; or the name of a number of bytes, ours over the peer's.
    """

    work: str
    device: str
    row: str
    quantity: str
    limit: float
    ours: str = "MFPNode"
    peer: str = ""
    part: str = "total"
    least_elements: int = 0

    @property
    def at_least(self) -> bool:
        return self.quantity in ("speed", "copy")

    def __str__(self) -> str:
        if self.quantity == "speed":
            named = f"{self.ours}: " if self.row.startswith("reset/") else ""
            if self.limit < 1:
                return f"{named}at most {1 / self.limit:.3g} times the time of {self.peer}"
            return f"{named}{self.limit:g} times as fast as {self.peer}"
        if self.quantity == "copy":
            return f"{self._what}: {100 * self.limit:.0f} % of the copy bandwidth"
        return f"{self.quantity.replace('_', ' ')} at most {self.limit:g} of {self.peer}'s"

    @property
    def _what(self) -> str:
        if self.part != "total" or self.row.endswith("forward"):
            return "forward" if self.part == "total" else self.part
        return "forward + backward"


@dataclass(frozen=True)
class Verdict:
    """measured: a number with its unit, or why there is none; met: None where that is so."""

    target: Target
    measured: str
    met: bool | None


def judge(results: Iterable[Result]) -> list[Verdict]:
    """Every target against the results, of which each is one device's."""
    by_device = {result["facts"]["device"]: result for result in results}
    return [_verdict(target, by_device.get(target.device)) for target in TARGETS]


def _verdict(target: Target, result: Result | None) -> Verdict:
    if result is None:
        return Verdict(target, f"owed: no {'GPU' if target.device == 'cuda' else 'CPU'} at hand", None)
    rows = [row for name, row in result["rows"].items() if fnmatchcase(name, target.row)]
    rows = [row for row in rows if _elements(row) >= target.least_elements]
    if not rows:
        return Verdict(target, "not measured: no such row in this run", None)
    try:
        values = [_value(target, row) for row in rows]
    except _Missing as missing:
        return Verdict(target, f"not measured: {missing}", None)
    worst = (min if target.at_least else max)(values)
    met = (operator.ge if target.at_least else operator.le)(worst, target.limit)
    return Verdict(target, _text(target, worst, rows), met)


def _elements(row: dict[str, Any]) -> float:
    """Of a row that did not run nothing is known: it counts, so that it is missed."""
    return float("inf") if "skipped" in row or "neurons" not in row else row["steps"] * row["neurons"]


class _Missing(Exception):
    pass


def _value(target: Target, row: dict[str, Any]) -> float:
    ours = _entry(row, target.ours)
    if target.quantity == "copy":
        return ours["copy_share"][target.part]  # type: ignore[no-any-return]
    peer = _entry(row, target.peer)
    if target.quantity == "speed":
        return peer["ms"][target.part]["median"] / ours["ms"][target.part]["median"]  # type: ignore[no-any-return]
    for entry in (ours, peer):
        if "memory" not in entry:
            raise _Missing(f"{entry['name']}: {entry.get('memory_skipped', 'no memory in this row')}")
    return ours["memory"][target.quantity] / peer["memory"][target.quantity]  # type: ignore[no-any-return]


def _entry(row: dict[str, Any], name: str) -> dict[str, Any]:
    if "skipped" in row:
        raise _Missing(row["skipped"])
    entry = next((entry for entry in row["entries"] if entry["name"] == name), None)
    if entry is None:
        raise _Missing(f"{name} is not in the row")
    if "skipped" in entry:
        raise _Missing(f"{name}: {entry['skipped']}")
    return entry  # type: ignore[no-any-return]


def _text(target: Target, value: float, rows: list[dict[str, Any]]) -> str:
    if target.quantity == "speed":  # a bar on the time, which has a limit below 1, is read against the time
        number = f"{value if target.limit >= 1 else 1 / value:.2f} times"
    else:
        number = f"{100 * value:.0f} %" if target.quantity == "copy" else f"{value:.2f}"
    peers = [_entry(row, target.peer) for row in rows if target.quantity == "speed"]
    more = [f"worst of {len(rows)} rows"] if len(rows) > 1 else []
    more += dict.fromkeys(f"{peer['name']}: {peer['note']}" for peer in peers if "note" in peer)
    return f"{number} ({'; '.join(more)})" if more else number


# --- the targets ----------------------------------------------------------------------------------------

LEAKY, FUSED, BITS = "MFPLeakyParallel", "MFPNode, fused", "MFPNode, fused, spikes as bits"
FEEDBACK = "4 taps and 4 of feedback"


def _cpu() -> Iterator[Target]:
    work, row = "CPU, T = 4, N = 3200, a small layer", "neuron/T=4,N=3200/float32/training"
    yield Target(work, "cpu", row, "speed", 1, peer="PSN")
    yield Target(work, "cpu", row, "speed", 1 / 0.6, peer="LIFNode")
    row = "reset/T=4,N=3200/float32/*"
    yield Target(work, "cpu", row, "speed", 1 / 0.6, ours="hard reset", peer="LIFNode, hard reset")
    work, row = "CPU, T = 4, N = 1.6 million", "neuron/T=4,N=1600000/float32/training"
    yield Target(work, "cpu", row, "speed", 8, peer="LIFNode")
    yield Target(work, "cpu", row, "speed", 6, peer="PSN")
    yield Target(work, "cpu", row, "copy", 1 / 3)
    work, row = "CPU, T = 64, N = 100,000", "neuron/T=64,N=100000/float32/training"
    yield Target(work, "cpu", row, "speed", 10, peer="LIFNode")
    yield Target(work, "cpu", row, "speed", 10, ours=LEAKY, peer="snn.Leaky")
    work, row = "CPU, T = 1024, N = 4096", "neuron/T=1024,N=4096/float32/training"
    yield Target(work, "cpu", row, "speed", 20, ours=LEAKY, peer="snn.Leaky")
    yield Target(work, "cpu", row, "speed", 5, ours=LEAKY, peer="StateLeaky")
    work, row = "CPU, step of FashionMNISTNet, 32 channels", "network/FashionMNISTNet-32/T=4,batch=32,*"
    yield Target(work, "cpu", row, "speed", 1.5, ours=FUSED, peer="LIFNode")
    for quantity in ("activation_peak_bytes", "saved_bytes"):
        yield Target(work, "cpu", row, quantity, 0.6, ours=FUSED, peer="LIFNode")
    for name in ("FashionMNISTNet-32", "VGG-11-BN"):
        work, row = f"CPU, step of {name}, spikes as bits", f"network/{name}/T=4,*"
        yield Target(work, "cpu", row, "held_bytes", 0.35, ours=BITS, peer="LIFNode")
        yield Target(work, "cpu", row, "speed", 1 / 1.05, ours=BITS, peer=FUSED)


def _gpu() -> Iterator[Target]:
    for dtype in ("float32", "float16"):
        row = f"neuron/T=*/{dtype}/"
        work = f"GPU, {dtype}, T*N >= 2^26"
        yield Target(work, "cuda", row + "forward", "copy", 0.8, least_elements=_LARGE)
        yield Target(work, "cuda", row + "training", "copy", 0.8, part="backward", least_elements=_LARGE)
    for steps in (4, 16):
        for dtype, lif in (("float32", "LIFNode"), ("float16", "LIFNode, float32 state")):
            work, row = f"GPU, T = {steps}, {dtype}", f"neuron/T={steps},N=*/{dtype}/training"
            yield Target(work, "cuda", row, "speed", 1.3, peer=lif)
            yield Target(work, "cuda", row, "speed", 3, peer="PSN")
            yield Target(work, "cuda", row, "speed", 20, ours=LEAKY, peer="snn.Leaky")
    for network in ("VGG-11-BN", "SEW-ResNet-18"):
        work, row = f"GPU, step of {network}, AMP, fused", f"network/{network}/*/amp"
        for peer in ("LIFNode", "LIFNode, float32 state", "LIFNode, half-precision storage"):
            yield Target(work, "cuda", row, "speed", 1.3, ours=FUSED, peer=peer)
            yield Target(work, "cuda", row, "peak_bytes", 0.7, ours=FUSED, peer=peer)
    for work in ("forward", "training"):
        row = f"neuron/T=16384,N=1024/float32/{work}"
        yield Target(f"GPU, T = 16,384, N = 1,024, exp, {work}", "cuda", row, "speed", 10, peer="LIFNode")


def _resets() -> Iterator[Target]:
    for steps, neurons, over_lif in ((4, 1_600_000, 4), (16, 400_000, 4), (64, 100_000, 5)):
        rows = {"cpu": f"reset/T={steps},N={neurons}/float32/*", "cuda": f"reset/T={steps},N=*/float32/*"}
        for device, row in rows.items():
            work = f"{device.upper().replace('CUDA', 'GPU')}, T = {steps}, resets"
            for ours, peer in (("soft reset", "no reset"), ("hard reset", "no reset"), (FEEDBACK, "4 taps")):
                if steps <= 16:
                    yield Target(work, device, row, "speed", 1 / 1.3, ours=ours, peer=peer)
        for ours in ("soft reset", "hard reset"):
            work = f"CPU, T = {steps}, resets"
            yield Target(work, "cpu", rows["cpu"], "speed", over_lif, ours=ours, peer=f"LIFNode, {ours}")


TARGETS = (*_cpu(), *_gpu(), *_resets())
