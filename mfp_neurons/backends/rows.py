"""How compiled kernels see tensors: [T, A, B], B neurons in a run without gaps, A runs apart from each other.

The neurons of a dense tensor are one run (A = 1) in the order in which they lie in memory; a slice or a
transposed batch gives several. Channels repeat along a run: neuron b belongs to channel (b // R) % C.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor


class RowView(NamedTuple):
    """One tensor as kernels see it; strides in elements. ``tensor`` is the one they see, maybe a copy."""

    tensor: Tensor
    time_stride: int
    run_stride: int
    copied: bool


class Rows:
    """The [T, A, B] view that all tensors of one call on ``x`` [T, N, *] share."""

    _seen: ClassVar[dict[Any, "Rows"]] = {}
    _MOST_SEEN: ClassVar[int] = 4096  # shapes of one run may be many

    @classmethod
    def of(cls, x: Tensor, channels: int = 1) -> "Rows":
        """The view of x, made once for all tensors of its shape and strides."""
        key = x.shape, x.stride(), channels
        rows = cls._seen.get(key)
        if rows is None:
            if len(cls._seen) >= cls._MOST_SEEN:
                cls._seen.clear()
            rows = cls._seen[key] = cls(x, channels)
        return rows

    def __init__(self, x: Tensor, channels: int = 1) -> None:
        self.steps, self.channels = x.shape[0], channels
        sizes, strides = x.shape[1:], x.stride()[1:]
        self._in_order = x.is_contiguous()
        self._axes = list(range(len(sizes)))
        if not self._in_order:
            self._axes.sort(key=lambda d: strides[d], reverse=True)
        self._sizes = [sizes[d] for d in self._axes]
        # axes before the split are A, the others B; one run of everything is the best there is
        self._split = 0
        if not self._in_order:
            self._split = self._where_to_split([strides[d] for d in self._axes])
        self.outer, self.run = prod(self._sizes[: self._split]), prod(self._sizes[self._split :])
        self.repeat = 1 if channels == 1 else prod(self._sizes[self._axes.index(1) + 1 :])

    def _where_to_split(self, strides: list[int]) -> int:
        expected, first = 1, len(strides)
        # From the innermost axis outwards, for as long as memory has no gaps.
        while first > 0 and (self._sizes[first - 1] == 1 or strides[first - 1] == expected):
            first -= 1
            expected *= self._sizes[first]
        if self.channels > 1:
            first = min(first, self._axes.index(1))  # a run holds whole rounds of channels
        # one run of a copy is better than runs of one neuron, or runs that no single stride joins
        joined = _joined_stride(self._sizes[:first], strides[:first]) is not None
        return first if joined and first < len(strides) else 0

    def view_rows(self, tensor: Tensor, is_step: bool = False) -> RowView:
        """A tensor [S, N, *], S any number of steps, or a step [N, *]; copied only if its strides allow no
        such view."""
        # The usual case needs no look at the strides.
        if self._in_order and tensor.is_contiguous():
            return RowView(tensor, self.run, self.run, False)
        moved = self._moved(tensor.unsqueeze(0) if is_step else tensor)
        strides = moved.stride()[1:]
        apart = _joined_stride(self._sizes[: self._split], strides[: self._split])
        inner = _joined_stride(self._sizes[self._split :], strides[self._split :])
        copied = apart is None or not (inner == 1 or self.run == 1)
        if copied:
            moved, apart = moved.contiguous(), self.run
        assert apart is not None
        return RowView(moved, moved.stride(0), apart, copied)

    def copy_back(self, view: RowView, tensor: Tensor) -> None:
        """Brings what was written to a view home to its tensor [S, N, *], if it is a view of a copy."""
        if view.copied:
            self._moved(tensor).copy_(view.tensor)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor if self._in_order else tensor.permute(0, *(d + 1 for d in self._axes))


def _joined_stride(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride of several axes seen as one (0 if they hold one element); None if they can't be."""
    stride, expected = 0, None
    for size, own in zip(reversed(sizes), reversed(strides), strict=True):
        if size == 1:
            continue
        if expected is None:
            stride = own
        elif own != expected:
            return None
        expected = own * size
    return stride
