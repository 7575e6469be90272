"""Bytes of GRUs and convolutions by width, parameters and state, for a task.

python -m benchmarks.evidence.rivals --features 13 --classes 10 --steps 40 --widths 8 16 24 32
python -m benchmarks.evidence.rivals --features 13 --classes 10 --steps 40 --bytes 3000   # the widest
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.evidence.rivals import conv, gru
from mfp_neurons.quantize import quantize_weights

RIVALS: dict[str, Callable[..., Any]] = {"gru": gru, "conv": conv}


def sizes(rival: str, bits: int, width: int, features: int, classes: int, steps: int) -> tuple[int, float]:
    """Bytes of the parameters and of the state of a rival with weights and activations of so many bits.

    >>> sizes("gru", 32, width=2, features=3, classes=1, steps=4)    # 3 * 2 * (3 + 2) + 4 * 2 + 2 + 1 floats
    (164, 8.0)
    """
    network = RIVALS[rival]((features,), classes, steps, None, width=width, bits=bits)
    if bits == 8:
        quantize_weights(network, 8)
    costs = network.costs(torch.zeros(steps, 1, features))
    return costs["weight_bytes"], costs["state_bits"] / 8


def widest(rival: str, bits: int, limit: int, features: int, classes: int, steps: int) -> int:
    """The largest width whose parameters and state take no more than ``limit`` bytes.

    Raises:
        ValueError: a width of 1 takes more.

    >>> width = widest("gru", 8, 3000, features=13, classes=10, steps=40)
    >>> [sum(sizes("gru", 8, w, 13, 10, 40)) <= 3000 for w in (width, width + 1)]
    [True, False]
    """

    def fits(width: int) -> bool:
        return sum(sizes(rival, bits, width, features, classes, steps)) <= limit

    if not fits(1):
        raise ValueError(f"limit = {limit!r}: a {rival} of width 1 takes more bytes")
    below, above = 1, 2
    while fits(above):
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if fits(middle) else (below, middle)
    return below


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=int, required=True, help="values of a step")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="T")
    widths = parser.add_mutually_exclusive_group(required=True)
    widths.add_argument("--widths", type=int, nargs="+")
    widths.add_argument("--bytes", type=int, help="the widest of so many bytes, parameters and state")
    args = parser.parse_args()
    task = args.features, args.classes, args.steps
    print(f"{'rival':8}{'bits':>5}{'width':>7}{'parameters':>12}{'state':>8}{'all, bytes':>12}")
    for rival in RIVALS:
        for bits in (32, 8):
            for width in args.widths or [widest(rival, bits, args.bytes, *task)]:
                parameters, state = sizes(rival, bits, width, *task)
                print(f"{rival:8}{bits:5}{width:7}{parameters:12}{state:8.0f}{parameters + state:12.0f}")


if __name__ == "__main__":
    main()
