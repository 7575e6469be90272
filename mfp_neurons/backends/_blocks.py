"""Cutting [T, N, *] into blocks of neurons small enough for the cache, whatever the strides.

All stock-operator code works on blocks [T, n, c, r]: batch, channel, the rest. Per-layer parameters need no
channel axis, so there the neurons are one flat axis (n = c = 1) in the order in which they lie in memory.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

Block = tuple[slice, slice, slice, slice]


class Layout:
    """How tensors shaped like ``x`` [T, N, *] are seen as [T, N, C, R] without moving them."""

    def __init__(self, x: Tensor, per_channel: bool) -> None:
        shape, neurons = list(x.shape), list(range(1, x.dim()))
        self.shapes: list[list[int]]
        if per_channel:
            self.order = neurons
            self.shapes = [[shape[0], shape[1], shape[2], prod(shape[3:])]]
        else:
            self.order = sorted(neurons, key=lambda d: x.stride()[d], reverse=True)
            outer = shape[self.order[0]]
            rest = prod(shape[d] for d in self.order[1:])
            self.shapes = [[shape[0], 1, 1, outer * rest], [shape[0], outer, 1, rest]]
        # one logical shape for every tensor of the call: the first that all the outputs can take as a view
        out = torch.empty_like(x, device="meta")
        self.shape = next((s for s in self.shapes if self._viewable(out, s)), self.shapes[-1])

    def _permuted(self, tensor: Tensor) -> Tensor:
        """The neuron axes in this layout's order; leading axes (time, if any) stay in front."""
        lead = tensor.dim() - len(self.order)
        return tensor.permute(*range(lead), *(d - 1 + lead for d in self.order))

    def _viewable(self, tensor: Tensor, shape: list[int]) -> bool:
        try:
            self._permuted(tensor).view(shape)
        except RuntimeError:
            return False
        return True

    def seen(self, tensor: Tensor) -> Tensor:
        """[S, N, *] as [S, N, C, R]; copied only if its strides allow no view."""
        return self._permuted(tensor).reshape(tensor.shape[0], *self.shape[1:])

    def step(self, tensor: Tensor) -> Tensor:
        """One step [N, *] as [N, C, R]; copied only if its strides allow no view."""
        return self._permuted(tensor).reshape(self.shape[1:])

    def blocks(self, limit: int) -> Iterator[Block]:
        """Index blocks of at most about ``limit`` neurons each that cover all neurons."""
        _, n_all, c_all, r_all = self.shape
        r = max(1, min(r_all, limit))
        c = max(1, min(c_all, limit // r))
        n = max(1, min(n_all, limit // (r * c)))
        for i in range(0, n_all, n):
            for j in range(0, c_all, c):
                for k in range(0, r_all, r):
                    yield slice(None), slice(i, i + n), slice(j, j + c), slice(k, k + r)


class Output:
    """A new tensor that blocks are written into, through ``seen``; ``done()`` gives it, never as a view."""

    def __init__(self, layout: Layout, tensor: Tensor, *, is_step: bool = False) -> None:
        self.tensor, self.layout = tensor, layout
        self.seen = layout.step(tensor) if is_step else layout.seen(tensor)
        self._is_view = self.tensor.numel() == 0 or self.seen.data_ptr() == self.tensor.data_ptr()

    def done(self) -> Tensor:
        if not self._is_view:  # strides that no [T, N, C, R] view can express
            permuted = self.layout._permuted(self.tensor)
            permuted.copy_(self.seen.reshape(permuted.shape))
        return self.tensor
