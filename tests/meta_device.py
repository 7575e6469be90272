"""Runs a module on the meta device: a tensor that stays on the CPU there would do so beside a GPU too."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _NothingOfTheHost(TorchDispatchMode):
    """Refuses operators that read or make a tensor on the CPU: on a GPU each is a copy that waits."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, outputs)):
            if isinstance(value, Tensor) and value.device.type != "meta":
                raise AssertionError(f"{func} takes or makes a tensor on {value.device}")
        return outputs


def check_on_meta(
    module: nn.Module, inputs: list[Tensor], reset: Callable[[nn.Module], Any] = lambda module: None
) -> None:
    """Trains ``module`` on the meta device for two sequences of one call an input.

    In the first, constants may go to the device; in the second, the CPU has no part.
    """
    module.to("meta")
    inputs = [x.to("meta").requires_grad_() for x in inputs]
    for guard in (nullcontext(), _NothingOfTheHost()):
        with guard:
            outputs = [y for x in inputs for y in tree_leaves(module(x)) if isinstance(y, Tensor)]
            sum(y.sum() for y in outputs).backward()
        assert all(x.grad is not None for x in inputs)
        reset(module)


def rotated(options: Iterable[Any], start: int, count: int) -> list[Any]:
    """``count`` of the options, others for each ``start``: over many starts every one has its turn."""
    every = list(options)
    return [every[(start * count + i) % len(every)] for i in range(count)]
