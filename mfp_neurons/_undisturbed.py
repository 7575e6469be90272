"""Runs a model and leaves it exactly as it was: its states, its buffers, and torch's random numbers."""

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Within it the model is in eval mode, starts from reset states, and changes copies of what it holds.

    Buffers, SpikingJelly's memories, snnTorch's ``mem`` and any tensor or container that a module holds are
    copies inside; the originals, never touched, come back at the end, with the training flags and torch's
    random generators. Parameters are shared: a forward does not change them.
    """
    modules = list(model.modules())
    attributes = [dict(module.__dict__) for module in modules]
    copies: dict[int, Tensor] = {}
    devices = {t.device.index for t in model.parameters() if t.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=[index for index in devices if index is not None]):
            for module in modules:
                for name, value in module.__dict__.items():
                    if name not in ("_parameters", "_modules") and "hooks" not in name:
                        module.__dict__[name] = _copied(value, copies)
            model.eval()
            for module in modules:
                reset(module)
            yield
    finally:
        for module, saved in zip(modules, attributes, strict=True):
            module.__dict__.clear()
            module.__dict__.update(saved)


def deep_copy(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the model.

    torch copies no tensor that a forward computed, and after a step of training a model holds some: states of
    neurons, records, weights that a hook computes. The copy has their numbers, cut from the graph.
    """
    held = (leaf for module in model.modules() for leaf in tree_iter(vars(module)))
    cut = {id(one): one.detach().clone() for one in held if isinstance(one, Tensor) and not one.is_leaf}
    return copy.deepcopy(model, cut)


def _copied(value: Any, copies: dict[int, Tensor], depth: int = 0) -> Any:
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        return copies.setdefault(id(value), value.detach().clone())
    if not isinstance(value, (dict, list, deque, set)) or depth > 2:
        return value
    copied: Any = copy.copy(value)
    if not isinstance(value, set):
        places = value if isinstance(value, dict) else range(len(value))
        for place in places:
            copied[place] = _copied(value[place], copies, depth + 1)
    return copied


def reset(module: nn.Module) -> None:
    """What SpikingJelly's ``reset_net`` and snnTorch's ``reset_mem`` do to this one module."""
    reset = getattr(module, "reset" if hasattr(module, "_memories") else "reset_mem", None)
    if callable(reset):
        reset()
