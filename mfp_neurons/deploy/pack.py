"""How numbers become bits: the one definition that the file, the compiled runtime and the generated C share.

Codes are split into *planes* of single bits, so that with ``source`` a plane of spikes

    sum of codes * source = sum over planes of weight * popcount(plane & source) + base * popcount(source)

    bits    planes                              weights                    base
    1       code > 0                            2                          -1
    1.58    code > 0, code < 0                  1, -1                      0
    2..8    two's complement, lowest bit first  1, 2, .., -2**(bits - 1)   0

A word holds consecutive channels of one place of a map, the first in its lowest bit; what is left over at the
end is 0. Numbers above 1 have several planes of words, lowest bit first.

Other whole numbers are their least one and how far each is above it, in planes too: n numbers of b bits take
ceil(n b / 8) bytes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = (1, 1.58, 2, 3, 4, 5, 6, 7, 8)


def plane_weights(bits: float) -> tuple[tuple[int, ...], int]:
    """What each plane of ``bits``-bit codes counts, and the base."""
    if bits == 1:
        return (2,), -1
    if bits == 1.58:
        return (1, -1), 0
    high = int(bits) - 1
    return (*(1 << i for i in range(high)), -(1 << high)), 0


def code_planes(codes: NDArray[np.int8], bits: float) -> NDArray[np.bool_]:
    """The planes of codes, [planes, *codes.shape]."""
    if bits == 1:
        return (codes > 0)[None]
    if bits == 1.58:
        return np.stack([codes > 0, codes < 0])
    pattern = codes.astype(np.uint8)
    return np.stack([(pattern >> i) & 1 for i in range(int(bits))]).view(bool)


def codes_of_planes(planes: NDArray[np.bool_], bits: float) -> NDArray[np.int8]:
    """The inverse of :func:`code_planes`."""
    weights, base = plane_weights(bits)
    codes = np.full(planes.shape[1:], base % 256, np.uint8)  # modulo 256 all the way: a byte a code, no more
    for weight, plane in zip(weights, planes, strict=True):
        codes += plane * np.uint8(weight % 256)
    return codes.view(np.int8)


def words(bits: NDArray[np.bool_], width: int) -> NDArray[Any]:
    """Bits [..., n] as words [..., ceil(n / width)] of 8, 16, 32 or 64 bits, the first bit lowest."""
    length = -(-bits.shape[-1] // width) * width
    padded = np.zeros((*bits.shape[:-1], length), bool)
    padded[..., : bits.shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view(np.dtype(f"<u{width // 8}"))


def bits_of_words(packed: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """The inverse of :func:`words`: the first ``count`` bits of each row."""
    flat = np.ascontiguousarray(packed).view(np.uint8)
    return np.unpackbits(flat, axis=-1, count=count, bitorder="little").view(bool)


@dataclass(frozen=True)
class Numbers:
    """Whole numbers in the bits that they need.

    Attributes:
        least: the least of them.
        bits: planes of how far each is above it, 1 or more.
        data: uint8, the planes one after the other, the lowest bit first.
    """

    least: int
    bits: int
    data: NDArray[np.uint8]


def number_bits(numbers: NDArray[np.int64]) -> int:
    """Bits that each of the numbers takes in a file; there is at least one number."""
    return max(1, (int(numbers.max()) - int(numbers.min())).bit_length())


def number_bytes(count: int, bits: int) -> int:
    """Bytes of so many numbers of so many bits."""
    return -(-count * bits // 8)


def pack_numbers(numbers: NDArray[np.int64]) -> Numbers:
    """Whole numbers of any shape."""
    least, bits = int(numbers.min()), number_bits(numbers)
    # modulo 2**64, as the largest may be further from the least than a signed number says
    above = numbers.reshape(-1).astype(np.uint64) - np.int64(least).astype(np.uint64)
    planes = np.stack([(above >> np.uint64(i)) & np.uint64(1) != 0 for i in range(bits)])
    return Numbers(least, bits, words(planes.reshape(-1), 8))


def unpack_numbers(packed: Numbers, count: int) -> NDArray[np.int64]:
    """The inverse of :func:`pack_numbers`: int64 [count]."""
    numbers = np.full(count, packed.least, np.int64).view(np.uint64)
    # plane by plane, as all bits at once would take a byte each
    for i in range(packed.bits):
        begin = i * count
        part = packed.data[begin // 8 : -(-(begin + count) // 8)]
        plane = np.unpackbits(part, bitorder="little")[begin % 8 :][:count]
        np.add(numbers, np.uint64(1 << i), out=numbers, where=plane.view(bool))
    return numbers.view(np.int64)


def smallest(numbers: NDArray[Any]) -> NDArray[Any]:
    """The same whole numbers in the smallest signed integer type that holds them; there is at least one."""
    low, high = numbers.min(), numbers.max()
    types = (np.int8, np.int16, np.int32, np.int64)
    return numbers.astype(next(t for t in types if np.iinfo(t).min <= low and high <= np.iinfo(t).max))
