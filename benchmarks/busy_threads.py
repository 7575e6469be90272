"""One image, and 64, through an integer network while other processes keep the processors busy.

    python -m benchmarks.busy_threads [--others N] [--threads N]

FashionMNISTNet with 128 channels, T = 4, as in benchmarks/deploy.py. The others are N processes that multiply
matrices. What counts is the mean and the slowest tenth: a call that waits for a thread without a processor
takes tens or hundreds of milliseconds, once in a while.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks import deploy
from mfp_neurons.train.tables import markdown

BUSY = "import torch; torch.set_num_threads(1); a = torch.rand(800, 800)\nwhile True: a @ a"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--others", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    network, rows = deploy.integer(128), []
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(args.others)]
    try:
        time.sleep(3 if others else 0)  # until they have imported PyTorch
        for batch, calls in ((1, 400), (64, 20)):
            x = deploy.levels(batch).numpy()
            network.run(x, threads=args.threads)
            taken = sorted(timed(partial(network.run, x, threads=args.threads)) for _ in range(calls))
            middle, mean = statistics.median(taken), statistics.mean(taken)
            rows.append(
                (str(batch), *(f"{ms:.2f}" for ms in (taken[0], middle, mean, taken[calls * 9 // 10])))
            )
    finally:
        for other in others:
            other.kill()
            other.wait()
    print(f"{args.threads} threads, {args.others} busy processes, {os.cpu_count()} processors\n")
    print(markdown(("images", "fastest, ms", "median", "mean", "slowest tenth from"), rows))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
