"""A neuron that takes part: how it is built, the input it gets, and one call of it, timed or measured."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import memory
from .timing import TOTAL, Clock, Parts, Sample

FORWARD, TRAINING = "forward", "training"
WORKS = (FORWARD, TRAINING)
_HOST_CACHE = 128 << 20  # bytes: more than the last-level cache of one socket's share
_MOST_BUFFERS = 8


@dataclass(frozen=True)
class Size:
    """An input [T, *step] of one kind of number on one device."""

    steps: int
    step: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        return self.steps, *self.step

    @property
    def neurons(self) -> int:
        return torch.Size(self.step).numel()

    @property
    def elements(self) -> int:
        return self.steps * self.neurons

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


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


# --- bytes that a neuron has to move for one element, whatever its code: the floor that a copy stands for


@dataclass(frozen=True)
class Traffic:
    """Forward: input in, spikes out. Backward: what was saved and the gradient in, a gradient out."""

    forward: float
    backward: float

    def parts(self, elements: int, *, training: bool) -> dict[str, int]:
        """Bytes by part of a call, as the timing names them."""
        forward, backward = round(self.forward * elements), round(self.backward * elements)
        if not training:
            return {"total": forward}
        return {"total": forward + backward, "forward": forward, "backward": backward}


def neuron_traffic(width: int, training: bool) -> Traffic:
    """``width``: bytes of one number. The input is saved.

    >>> neuron_traffic(4, training=True)
    Traffic(forward=8, backward=12)
    """
    return Traffic(2 * width, 3 * width)


def wide_spikes_traffic(width: int, training: bool) -> Traffic:
    """Spikes are float32 whatever the input is, and so is their gradient."""
    return Traffic(width + 4, 2 * width + 4)


def norm_and_neuron_traffic(width: int, training: bool) -> Traffic:
    """Training has to pass over everything once for the statistics and once more to use them."""
    return Traffic((3 if training else 2) * width, 5 * width)


# --- who takes part -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """One line of the tables."""

    name: str
    against: str  # the neuron of ours that it is compared with
    build: Callable[[Size], Neuron]
    traffic: Callable[[int, bool], Traffic] | None = None  # for ours: what it must move
    worker: bool = False  # runs beside the other version of SpikingJelly, in a process of its own

    @property
    def ours(self) -> bool:
        return self.traffic is not None


# --- calls ----------------------------------------------------------------------------------------------


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


def probe(neuron: Neuron, inputs: Inputs) -> dict[str, float]:
    """Firing rate, and bytes for one element of the input: saved for backward, and held at the peak."""
    x, grad = inputs.next()
    x.requires_grad_()

    def forward() -> Any:
        neuron.reset()
        return neuron.call(x)

    def training() -> None:
        spikes = forward()
        torch.autograd.grad(spikes, [x, *neuron.parameters], inputs.gradient(spikes, grad))

    with neuron.around():
        with torch.no_grad():
            rate = float(forward().float().mean())
        saved = memory.saved_bytes(forward, neuron.parameters)
        peak = memory.peak_bytes(training, x.device)
    neuron.reset()
    return {
        "firing_rate": rate,
        "saved_bytes_per_element": saved / x.numel(),
        "peak_bytes_per_element": peak / x.numel(),
    }
