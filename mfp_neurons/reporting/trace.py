"""Follows every tensor of a run: how many bytes live at once, and which layers a tensor was computed from."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# Operators whose work is synaptic: they belong inside a layer of synapses.
_PRODUCTS = {
    *("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "linear", "convolution", "_trilinear"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer", "_cudnn_rnn"),
    *("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
}


@dataclass
class _Storage:
    """One storage that is alive."""

    serial: int  # never used twice, unlike its address
    reference: weakref.ref[Any]  # kept, so that it can tell when the storage is gone
    sources: frozenset[str]


class Trace(TorchDispatchMode):
    """Follows each operator that runs inside it.

    The sources of a tensor are the layers (synapses, neurons, "input") that it was computed from with nothing
    but stateless operators in between. Sources belong to storages, so that views and writes into a part of a
    tensor carry them too. Memory that an operator uses inside itself is not counted.

    Attributes:
        bytes, peak_bytes: of the tensors that operators have made and that are alive; the most so far.
        products: a stack with an entry for each module that is running: the matrix products in it so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak_bytes = 0, 0
        self.products = [0]
        self._alive: dict[int, _Storage] = {}  # by address
        self._serial = 0
        self._paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._paused:
            return out
        inputs = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
        sources = frozenset[str]().union(*(self.sources(t) for t in inputs))
        # A view, or what an operator wrote in place, is in the memory of an input: it takes no new bytes.
        reused = {_address(t) for t in inputs}
        for t in tree_iter(out):
            if isinstance(t, Tensor) and t.layout is torch.strided:
                self._add_sources(t, sources, is_new=_address(t) not in reused)
        name = func.overloadpacket.__name__
        if name in _PRODUCTS or name.startswith("_scaled_dot_product"):
            self.products[-1] += 1
        return out

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it, operators leave no trace."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def sources(self, tensor: Tensor) -> frozenset[str]:
        """The layers that ``tensor`` was computed from."""
        storage = self._alive.get(_address(tensor))
        return frozenset() if storage is None else storage.sources

    def mark(self, tensor: Tensor, name: str) -> None:
        """From here on, ``tensor`` comes from ``name`` alone."""
        if tensor.layout is torch.strided:
            # A tensor that no operator of the run has made gets an entry too, with no bytes.
            self._add_sources(tensor, frozenset(), is_new=False)
            self._alive[_address(tensor)].sources = frozenset([name])

    def identity(self, tensor: Tensor) -> tuple[int, int, int] | None:
        """Equal for two tensors only if they are the same values in the same memory."""
        storage = self._alive.get(_address(tensor))
        return None if storage is None else (storage.serial, int(tensor.storage_offset()), tensor.numel())

    def _add_sources(self, tensor: Tensor, sources: frozenset[str], is_new: bool) -> None:
        address = _address(tensor)
        if address in self._alive:
            self._alive[address].sources |= sources
            return
        nbytes = tensor.untyped_storage().nbytes() if is_new else 0

        def forget(_: object) -> None:
            self.bytes -= nbytes
            del self._alive[address]

        self._serial += 1
        self._alive[address] = _Storage(self._serial, weakref.ref(tensor.untyped_storage(), forget), sources)
        self.bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.bytes)


def _address(tensor: Tensor) -> int:
    """Where the tensor's storage is; -1 for a sparse tensor, which has none."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else -1
