"""One timed call: the input that goes in, and the parts that are timed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .clock import Clock
from .timing import TOTAL, Parts, Sample

FORWARD, TRAINING = "forward", "training"
WORKS = (FORWARD, TRAINING)
_HOST_CACHE = 128 << 20  # bytes: more than the last-level cache of one socket's share
_MOST_BUFFERS = 8


def _nothing() -> None:
    pass


@dataclass
class Neuron:
    """Something that maps an input to spikes, and how to make it forget."""

    call: Callable[[Tensor], Tensor]
    reset: Callable[[], Any] = _nothing
    parameters: Sequence[Tensor] = ()
    note: str = ""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext  # holds during forward and backward


class Inputs:
    """Inputs and upstream gradients of one shape, as many as it takes to find none in the cache."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(0)
        self.bytes = torch.Size(shape).numel() * dtype.itemsize
        self._pairs = []
        for _ in range(_buffers(self.bytes, device)):
            x, grad = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
            self._pairs.append((x.normal_(generator=generator), grad.normal_(generator=generator)))
        self._cast: dict[torch.dtype, Tensor] = {dtype: self._pairs[0][1]}
        self._turn = 0

    def next(self) -> tuple[Tensor, Tensor]:
        """The next input, a leaf, and an upstream gradient of its dtype."""
        self._turn = (self._turn + 1) % len(self._pairs)
        return self._pairs[self._turn]

    def gradient(self, like: Tensor, own: Tensor) -> Tensor:
        """``own``, or the same gradient in the dtype of spikes that are wider than their input."""
        if own.dtype == like.dtype:
            return own
        if like.dtype not in self._cast:
            self._cast[like.dtype] = own.to(like.dtype)
        return self._cast[like.dtype]


def _buffers(size: int, device: torch.device) -> int:
    cache = _HOST_CACHE
    if device.type == "cuda":
        cache = 4 * torch.cuda.get_device_properties(device).L2_cache_size
    return min(_MOST_BUFFERS, 1 + cache // max(1, size))


def sample(neuron: Neuron, inputs: Inputs, work: str, clock: Clock) -> Sample:
    """A call of the forward alone, without a graph, or of forward and backward and both together."""
    timed = _forward if work == FORWARD else _training

    def call() -> Parts:
        with neuron.around():
            return timed(neuron, inputs, clock)

    return call


@torch.no_grad()
def _forward(neuron: Neuron, inputs: Inputs, clock: Clock) -> Parts:
    x, _ = inputs.next()
    neuron.reset()
    clock.ready()
    marks = [clock.mark()]
    spikes = neuron.call(x)
    marks.append(clock.mark())
    (total,) = clock.gaps(marks)
    del spikes  # freed outside of what is timed, for everyone
    return {TOTAL: total}


def _training(neuron: Neuron, inputs: Inputs, clock: Clock) -> Parts:
    x, grad = inputs.next()
    x.requires_grad_()
    neuron.reset()
    clock.ready()
    marks = [clock.mark()]
    spikes = neuron.call(x)
    marks.append(clock.mark())
    grad = inputs.gradient(spikes, grad)
    grads = torch.autograd.grad(spikes, [x, *neuron.parameters], grad)  # into fresh tensors: adds to no .grad
    marks.append(clock.mark())
    forward, backward = clock.gaps(marks)
    del grads
    return {TOTAL: forward + backward, "forward": forward, "backward": backward}


def copy(inputs: Inputs, clock: Clock, *, fresh: bool = False) -> Sample:
    """A copy of an input, into memory in use or into fresh memory."""
    target = torch.empty_like(inputs.next()[0])

    @torch.no_grad()
    def call() -> Parts:
        x, _ = inputs.next()
        clock.ready()
        marks = [clock.mark()]
        copied = x.clone() if fresh else target.copy_(x)
        marks.append(clock.mark())
        (total,) = clock.gaps(marks)
        del copied
        return {TOTAL: total}

    return call
