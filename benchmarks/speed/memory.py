"""What a step holds: bytes at its peak, and bytes saved for backward. Runs apart from the timing.

CPU peak: torch's allocator events as torch.profiler records them (memory that kernels take elsewhere is not
seen). GPU peak: ``torch.cuda.max_memory_allocated``. Saved: ``saved_tensors_hooks``, every storage once.
"""

import gc
import os
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

METHODS = {
    "peak on a CPU": "allocator events of torch.profiler, above what was allocated before the step",
    "peak on a GPU": "torch.cuda.max_memory_allocated, less what was allocated before the step",
    "saved": "saved_tensors_hooks: every storage once, parameters left out, the neuron's input counted",
    "held": "what a forward allocated and is still there after it, in whatever form; found as the peaks are",
}


def saved_bytes(forward: Callable[[], Any], parameters: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages that the graph of ``forward()`` keeps for backward, parameters left out.

    >>> x = torch.ones(10, requires_grad=True)
    >>> saved_bytes(lambda: (x * x).exp())  # x, and the output of exp
    80
    """
    ours = {p.untyped_storage().data_ptr() for p in parameters}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    total = sum(storages.values())
    del output
    return total


def peak_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that ``step()`` holds at once, above what was held before it."""
    gc.collect()
    return _device_peak(step, device) if device.type == "cuda" else max(_host_bytes(step))


def held_bytes(forward: Callable[[], Any], device: torch.device) -> int:
    """Bytes that ``forward()`` leaves for backward: saved tensors in any form, states, and its output.

    >>> x = torch.ones(10, requires_grad=True)
    >>> held_bytes(lambda: (x * x).exp(), torch.device("cpu"))  # the output of exp, which it saves
    40
    """
    gc.collect()
    if device.type != "cuda":
        return _host_bytes(forward)[-1]
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    output = forward()
    torch.cuda.synchronize(device)
    after = torch.cuda.memory_allocated(device)
    del output
    return after - before


def _device_peak(step: Callable[[], Any], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _host_bytes(step: Callable[[], Any]) -> list[int]:
    """Bytes held after each event of the allocator, the last while the result of ``step()`` still exists."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it writes of the GPU it did not find
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = step()
    events: Any = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    del result
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return list(accumulate((change for _, change in changes), initial=0))
