"""Feeds broken files to the loader of integer networks, and random inputs to the compiled runtime.

    python -m benchmarks.fuzz_deploy files --count 100000
    python -m benchmarks.fuzz_deploy inputs --count 1000000 --sanitize

Start it in the root of a checkout. A mutated file has to be refused with InvalidNetworkError, or to be a
network that the interpreter and the compiled runtime run with equal results. Inputs of random networks have
to give equal results too, and what is no input has to be refused. --sanitize builds the runtime under
AddressSanitizer and UndefinedBehaviorSanitizer, every buffer between poisoned margins. Anything else ends the
run with the number that brings it back: --first NUMBER --count 1.
"""

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfp_neurons.deploy.file import to_bytes
from mfp_neurons.deploy.host import compiled
from mfp_neurons.deploy.plan import Plan
from tests.deploy import fuzzing
from tests.deploy.graphs import examples

_SPARE = 2 * 2**30  # bytes of address space beside what is in use; a file that asks for more ends the run
_BASES = 200  # networks whose files are mutated
_AT_ONCE = 50  # networks in a draw
_SAMPLES = 4000  # inputs for each of them, at most
_MARGIN = 64  # poisoned bytes after every buffer
_SANITIZERS = "-g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
_UNDER = "MFP_FUZZ_SANITIZED"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["files", "inputs"])
    parser.add_argument("--count", type=int, required=True, help="files, or inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first file, or of the first draw")
    parser.add_argument("--sanitize", action="store_true", help="with GCC's sanitizers")
    args = parser.parse_args()
    if args.sanitize and _UNDER not in os.environ:
        sys.exit(_sanitized())
    start = time.perf_counter()
    report = _files(args.first, args.count) if args.what == "files" else _inputs(args.first, args.count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{report}\n{time.perf_counter() - start:.0f} s, at most {peak:.0f} MiB of memory")


def _files(first: int, count: int) -> str:
    bases = [to_bytes(case.graph) for case in examples(_BASES, 0, max_ops=3)]
    _limit_memory()
    tally = fuzzing.Tally()
    for begin in range(first, first + count, 10_000):
        fuzzing.files(bases, range(begin, min(begin + 10_000, first + count)), tally)
        print(f"{sum(tally.outcomes.values())} files", file=sys.stderr, flush=True)
    outcomes: Counter[str] = Counter()
    for (_, outcome), times in tally.outcomes.items():
        outcomes[outcome] += times
    lines = [f"{times:8d}  {kind}: {outcome}" for (kind, outcome), times in sorted(tally.outcomes.items())]
    told = ", ".join(f"{times} {outcome}" for outcome, times in outcomes.most_common())
    return "\n".join(
        [
            *lines,
            f"{count} files: {told}; {len(tally.reasons)} different reasons; "
            f"the slowest took {1000 * tally.slowest[0]:.0f} ms to read (file {tally.slowest[1]})",
        ]
    )


def _limit_memory() -> None:
    if _UNDER in os.environ:
        return  # the sanitizer takes terabytes of addresses for itself
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE, used + _SPARE))


def _inputs(first: int, count: int) -> str:
    if _UNDER in os.environ:
        _guard()
    networks = ran = refused = 0
    number = first
    while ran < count:
        done = fuzzing.inputs(lambda n: examples(_AT_ONCE, n), [number], _SAMPLES)
        networks, ran, refused = networks + done[0], ran + done[1], refused + done[2]
        number += 1
        print(f"draw {number - 1}: {ran} inputs", file=sys.stderr, flush=True)
    how = "sanitizers on" if _UNDER in os.environ else "no sanitizers"
    return f"{ran} inputs of {networks} networks ({how}): no disagreement; {refused} others refused"


def _sanitized() -> int:
    """This program again, with the runtime built under sanitizers."""
    asan = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip()
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            _UNDER: "1",
            "CC": f"gcc {_SANITIZERS}",
            "MFP_NEURONS_CACHE": cache,
            "LD_PRELOAD": asan,
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16",  # the leaks are Python's own
        }
        again = [sys.executable, "-m", "benchmarks.fuzz_deploy", *sys.argv[1:]]
        return subprocess.run(again, env=environment, check=False).returncode


def _guard() -> None:
    """Maps no longer share memory, and between them lies what AddressSanitizer lets nobody touch."""
    poison = ctypes.CDLL(None).__asan_poison_memory_region
    poison.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    gaps: list[tuple[int, int]] = []

    def plan(_: Any, sizes: Sequence[int], *, alignment: int, **permanent: Any) -> Plan:
        places, end = [], 0
        for size in sizes:
            places.append(end)
            begin = end + size
            end = -(-(begin + _MARGIN) // alignment) * alignment
            gaps.append((begin, end))
        return Plan(tuple(places), end, end)

    def aligned(size: int) -> NDArray[Any]:
        raw = np.empty(size + 2 * _MARGIN + 4096, np.uint8)  # NumPy keeps small ones for later use, poisoned
        start = -raw.ctypes.data % 64
        for begin, end in [*gaps, (size, size + _MARGIN)]:
            poison(raw.ctypes.data + start + begin, end - begin)
        gaps.clear()
        return raw[start : start + size]

    # no public way leads here: this is where the runtime gets its memory from
    for replacement in (plan, aligned):
        assert hasattr(compiled, replacement.__name__), "the runtime gets its memory elsewhere"
        setattr(compiled, replacement.__name__, replacement)


if __name__ == "__main__":
    main()
