"""Follows every tensor that a run makes: how many bytes live at once, and which layers it came from."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# operators whose work is synaptic: they belong inside a layer of synapses
_PRODUCTS = frozenset(
    (
        *(
            "mm",
            "addmm",
            "bmm",
            "baddbmm",
            "addbmm",
            "mv",
            "addmv",
            "dot",
            "linear",
            "convolution",
            "_trilinear",
        ),
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer", "_cudnn_rnn"),
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
    )
)


@dataclass
class _Memory:
    """One storage that lives now."""

    serial: int  # never used twice, unlike its address
    reference: Any = None
    sources: frozenset[str] = field(default_factory=frozenset)


class Trace(TorchDispatchMode):
    """Sees each operator that runs inside it.

    The source of a tensor is the set of layers (synapses, neurons, "input") that it was computed from with
    nothing but stateless operators in between. Sources belong to storages, so that views and writes into a
    part of a tensor carry them too. Memory that an operator uses inside itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak_bytes = 0, 0
        self.products = [0]  # matrix products seen; a stack, an entry for each module that is running
        self._live: dict[int, _Memory] = {}
        self._serial = 0
        self._paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._paused:
            return out
        given = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
        sources = frozenset[str]().union(*(self.sources(t) for t in given))
        before = {t.untyped_storage()._cdata for t in given if t.layout is torch.strided}
        for t in tree_iter(out):
            if isinstance(t, Tensor) and t.layout is torch.strided:
                self._see(t, sources, counted=t.untyped_storage()._cdata not in before)
        name = func.overloadpacket.__name__
        if name in _PRODUCTS or name.startswith("_scaled_dot_product"):
            self.products[-1] += 1
        return out

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it, operators leave no trace."""
        was, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = was

    def sources(self, tensor: Tensor) -> frozenset[str]:
        """The layers that ``tensor`` was computed from."""
        memory = self._memory(tensor)
        return frozenset() if memory is None else memory.sources

    def mark(self, tensor: Tensor, name: str) -> None:
        """From here on, ``tensor`` comes from ``name`` alone."""
        if self._memory(tensor) is None:
            self._see(tensor, frozenset(), counted=False)
        memory = self._memory(tensor)
        if memory is not None:
            memory.sources = frozenset([name])

    def identity(self, tensor: Tensor) -> tuple[int, int, int] | None:
        """Equal for two tensors only if they are the same values in the same memory."""
        memory = self._memory(tensor)
        return None if memory is None else (memory.serial, int(tensor.storage_offset()), tensor.numel())

    def _memory(self, tensor: Tensor) -> _Memory | None:
        if tensor.layout is not torch.strided:
            return None
        return self._live.get(tensor.untyped_storage()._cdata)

    def _see(self, tensor: Tensor, sources: frozenset[str], counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            self._live[key].sources |= sources
            return
        nbytes = storage.nbytes() if counted else 0

        def gone(_: object) -> None:
            self.bytes -= nbytes
            del self._live[key]

        self._serial += 1
        self._live[key] = _Memory(self._serial, weakref.ref(storage, gone), sources)
        self.bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.bytes)
