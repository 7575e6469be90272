"""Spikes that autograd saves, kept as one bit each until backward reads them.

A convolution behind a neuron saves its input, the neuron's spikes, for the gradient of its weights. Which
saved tensors are spikes is known from the neuron that made them: it marks the memory (the torch storage) of
its output, together with the number of times that this had been written into. A saved tensor is spikes if it
lies in marked memory that nobody has written into since. So views of spikes (flattened, permuted, split) are
known too, and values are never looked at.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _modules

from ._checks import log_once, replaced_method

_INT16_PLACES = 1 << 15  # so many places of a plane have numbers that int16 holds
_ALIGNED = 64  # elements from which an unpacked view starts anew: as aligned as the tensor was, in any dtype
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_SHAPE_ALONE = ("cpu", "cuda")  # where a max pool needs no more than the shape of its input for backward
_FRAMEWORKS = ("torch", "spikingjelly", "mfp_neurons")  # whose classes of pools are known
_COMPILED = (
    "save_spikes_as_bits has no effect inside of what torch.compile made, and such a module runs within it: "
    "the compiler chooses what is saved there. Spikes of other modules are kept as bits."
)


@contextmanager
def save_spikes_as_bits() -> Iterator[None]:
    """Within it, what autograd saves of spikes takes 1 bit each, not 32 or 16; gradients stay the same.

    Run the forward pass in it; backward may run outside. It also decorates a function. It knows as spikes the
    outputs of this package's neurons whose surrogate is known to them, views of those, and what
    ``nn.MaxPool1d`` to ``nn.MaxPool3d`` make of them. Such a pool keeps the shape of its spikes alone, and
    the places of its maxima, of spikes or other numbers, in 16 bits (in 32 where maps have over 2^15 places).

    What it does not know is saved as ever: spikes that were copied, added, dropped out or written into.
    Inside ``torch.compile`` the compiler chooses what is saved, and spikes stay what it makes of them; inside
    ``torch.utils.checkpoint`` nothing is saved. See docs/howto/memory.md for what it gains and costs.

    >>> import torch
    >>> from mfp_neurons import MFP, save_spikes_as_bits
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 64), MFP(), torch.nn.Linear(64, 8))
    >>> with save_spikes_as_bits():
    ...     loss = net(torch.rand(4, 2, 8)).sum()
    >>> loss.backward()
    """
    with ExitStack() as stack:
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_pack, _unpack))
        for handle in (
            _modules.register_module_forward_pre_hook(_enter_module),
            _modules.register_module_forward_hook(_leave_module, always_call=True),
        ):
            stack.callback(handle.remove)
        _here.contexts += 1
        try:
            yield
        finally:
            _here.contexts -= 1


class _Here(threading.local):
    """What runs in this thread; saved_tensors_hooks hold for one thread too."""

    contexts = 0
    pooled_places = 0  # of a plane of the max pool whose forward runs; 0 outside of one


_here = _Here()


def follows_spikes() -> bool:
    """Whether somebody wants to know which tensors are spikes."""
    return not torch.compiler.is_compiling() and _here.contexts > 0


def mark_spikes(tensor: Tensor) -> None:
    """Says that all of ``tensor`` is 0 or 1, as it is now; costs next to nothing where nobody follows."""
    if not follows_spikes() or not _has_plain_memory(tensor) or not tensor.is_floating_point():
        return
    storage = tensor.untyped_storage()
    if storage.nbytes() == tensor.numel() * tensor.itemsize:  # nothing else lies there
        # torch keeps this object as long as the memory that it stands for
        storage.mfp_spikes = _Mark(tensor)  # type: ignore[attr-defined]


class _Mark:
    """What is known of memory that holds spikes and nothing else."""

    def __init__(self, spikes: Tensor) -> None:
        self.dtype, self.version, self.count = spikes.dtype, spikes._version, spikes.numel()
        self._bits: Tensor | None = None

    def bits(self, tensor: Tensor) -> Tensor:
        """The bits of all of the memory in which ``tensor`` lies, [ceil(count / 8)]: packed once for all."""
        if self._bits is None:
            self._bits = pack_bits(tensor.as_strided((self.count,), (1,), 0))
        return self._bits


def _mark_of(tensor: Tensor) -> _Mark | None:
    """The mark of the memory of ``tensor``, if that still holds what was marked."""
    if not _has_plain_memory(tensor):
        return None
    mark: _Mark | None = getattr(tensor.untyped_storage(), "mfp_spikes", None)
    if mark is None or mark.version != tensor._version or mark.dtype != tensor.dtype:
        return None
    return mark


def _has_plain_memory(tensor: Tensor) -> bool:
    if type(tensor) is not Tensor or tensor.layout != torch.strided:
        return False
    return not (tensor.is_inference() or tensor.is_neg())


# --- what autograd calls --------------------------------------------------------------------------------


class _SavedSpikes(NamedTuple):
    """A view of memory whose bits are kept."""

    bits: Tensor
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: Any  # an int; to mypy it might be a SymInt


class _SavedShape(NamedTuple):
    """A tensor of which backward reads no value."""

    device: torch.device
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]


class _SavedPlaces(NamedTuple):
    """The places of maxima, as small integers."""

    places: Tensor


class _SavedAsItIs(NamedTuple):
    """Any other tensor, and how often it had been written into, which autograd leaves to its hooks."""

    tensor: Tensor
    version: int | None


def _pack(tensor: Tensor) -> Any:
    mark = _mark_of(tensor)
    if mark is not None and _here.pooled_places and tensor.device.type in _SHAPE_ALONE:
        return _SavedShape(tensor.device, tensor.dtype, tensor.size(), tensor.stride())
    if mark is not None:
        bits = mark.bits(tensor.detach())
        return _SavedSpikes(bits, tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset())
    if _here.pooled_places and tensor.dtype == torch.int64:
        dtype = torch.int16 if _here.pooled_places <= _INT16_PLACES else torch.int32
        return _SavedPlaces(tensor.to(dtype))
    # detached, because an output that its own graph held would never be freed
    return _SavedAsItIs(tensor.detach(), None if tensor.is_inference() else tensor._version)


def _unpack(saved: Any) -> Tensor:
    if isinstance(saved, _SavedSpikes):
        return _view_of_bits(saved)
    if isinstance(saved, _SavedShape):
        return torch.empty_strided(saved.size, saved.stride, dtype=saved.dtype, device=saved.device)
    if isinstance(saved, _SavedPlaces):
        return saved.places.to(torch.int64)
    tensor, version = saved
    if version is not None and tensor._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"[{tensor.type()} {list(tensor.shape)}] is at version {tensor._version}; expected version "
            f"{version} instead. It was saved within mfp_neurons.save_spikes_as_bits()"
        )
    return tensor  # type: ignore[no-any-return]


def _view_of_bits(saved: _SavedSpikes) -> Tensor:
    """The view as it was saved, of its own part of the memory alone."""
    bits, dtype, size, stride, offset = saved
    if 0 in size:
        return torch.empty_strided(size, stride, dtype=dtype, device=bits.device)
    start = offset // _ALIGNED * _ALIGNED
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    spikes = unpack_bits(bits[start // 8 : -(-end // 8)], dtype)
    return spikes.as_strided(size, stride, offset - start)


# --- what torch.nn calls before and after every module ---------------------------------------------------


def _enter_module(module: nn.Module, inputs: Any) -> None:
    if not follows_spikes():
        return
    if type(module).__name__ == "OptimizedModule":
        log_once("save_spikes_as_bits.compile", _COMPILED)
    if _is_known_pool(module) and inputs and isinstance(inputs[0], Tensor):
        dims = next(dims for dims, pool in enumerate(_POOLS, 1) if isinstance(module, pool))
        _here.pooled_places = prod(inputs[0].shape[-dims:])


def _leave_module(module: nn.Module, inputs: Any, output: Any) -> None:
    if not (follows_spikes() and _is_known_pool(module)):
        return
    _here.pooled_places = 0
    pooled = output[0] if isinstance(output, tuple) else output
    if isinstance(pooled, Tensor) and inputs and isinstance(inputs[0], Tensor) and _mark_of(inputs[0]):
        mark_spikes(pooled)


def _is_known_pool(module: nn.Module) -> bool:
    """Whether the module takes maxima and does nothing else, as a subclass or a hook of a user's might."""
    if not isinstance(module, _POOLS) or type(module).__module__.split(".")[0] not in _FRAMEWORKS:
        return False
    return not (module._forward_pre_hooks or module._forward_hooks or replaced_method(module))


# --- bits -----------------------------------------------------------------------------------------------


def pack_bits(spikes: Tensor) -> Tensor:
    """Spikes [n] as bytes [ceil(n / 8)], the first of eight in the lowest bit.

    >>> pack_bits(torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]))
    tensor([9, 1], dtype=torch.uint8)
    """
    fired = spikes.to(torch.bool)
    if len(fired) % 8:
        fired = nn.functional.pad(fired, (0, -len(fired) % 8))
    # Eight bytes of 0 or 1, b[0] first, are one integer. The factor, the sum of 2^(7k) over k = 1 .. 8, moves
    # each b[i] to bit 56 + i, and no two bits to one place: the last byte of the product holds all eight.
    product = fired.view(torch.int64).mul_(0x0102_0408_1020_4080)
    return product.view(torch.uint8)[7::8].clone()


def unpack_bits(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes [n] of :func:`pack_bits` as 0 and 1 of that dtype, [8 n]."""
    one_of_each = torch.arange(256, dtype=torch.int32, device=bits.device).unsqueeze(1)
    spikes_of_byte = (one_of_each >> torch.arange(8, dtype=torch.int32, device=bits.device)) & 1
    return spikes_of_byte.to(dtype).index_select(0, bits.to(torch.int32)).flatten()
