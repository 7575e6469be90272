"""One bit a neuron and step: where the surrogate of a :class:`~mfp_neurons.surrogate.Rect` is not zero.

A mask is uint8 [T, ceil(n / 8)] over the n neurons of a layout, in its order: bit i of byte k is neuron
8k + i. A block of a layout is one run of neurons in that order, which may start and end inside a byte.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._blocks import Block, Layout


def shape(x_shape: Sequence[int]) -> list[int]:
    """The shape of the mask of an input [T, N, *]."""
    return [x_shape[0], (prod(x_shape[1:]) + 7) // 8]


class Run:
    """The bits of one block of neurons in a mask [S, bytes] that starts as zeros."""

    def __init__(self, mask: Tensor, layout: Layout, block: Block) -> None:
        _, n, c, r = block
        sizes = layout.shape[1:]
        start = (n.start * sizes[1] + c.start) * sizes[2] + r.start
        self.sizes = [min(s.stop, size) - s.start for s, size in zip((n, c, r), sizes, strict=True)]
        self.lead, self.count = start % 8, prod(self.sizes)
        self.bytes = mask[:, start // 8 : (start + self.count + 7) // 8]

    def write(self, bits: Tensor, first: int = 0) -> None:
        """Sets the steps from ``first`` on to ``bits`` [S, n, c, r] (bool)."""
        to = self.bytes[first : first + len(bits)]
        ends = (self.lead, to.shape[1] * 8 - self.lead - self.count)
        spread = pad(bits.reshape(len(bits), -1).view(torch.uint8), ends)
        for i in range(8):  # neighboring runs share the byte at their border, so bits are added to it
            to.bitwise_or_(spread[:, i::8] << i)

    def read(self) -> Tensor:
        """All steps as bool [T, n, c, r]."""
        shifts = torch.arange(8, dtype=torch.uint8, device=self.bytes.device)
        bits = (self.bytes.unsqueeze(-1) >> shifts).bitwise_and_(1).view(torch.bool).flatten(1)
        return bits[:, self.lead : self.lead + self.count].unflatten(1, self.sizes)
