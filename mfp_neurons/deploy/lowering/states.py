"""What neurons keep between calls, while their model is captured.

A neuron that would go on from its state in its next call gets stand-ins for it, in the place where the state
itself would be. So a second call notices the first, a reset in between undoes it, and a forward that reads
``node.v`` or ``mem`` reads a potential, not the number that a reset left there.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from torch import Tensor, nn

from ...adapters import describe_neuron
from .capture import StandIn

Refuse = Callable[[str], NoReturn]


def carries_state(module: nn.Module) -> bool:
    """Whether a call of one of our neurons depends on the calls before it.

    MFP and MFPLeakyParallel start every call from rest, and so does what looks back at no earlier step.
    """
    spec = describe_neuron(module)
    return spec is not None and spec.is_memory_free and spec.continues


def state_of(module: Any) -> Any:
    """Where a neuron stands: its potential, a stand-in once it was called."""
    memories = getattr(module, "_memories", None)
    return module.mem if memories is None else memories["v"]


def is_at_rest(state: Any) -> bool:
    """Whether a state is nothing, or zero everywhere."""
    if isinstance(state, StandIn):
        return False
    return not (bool(state.any()) if isinstance(state, Tensor) else bool(state))


def check_start(module: nn.Module, refuse: Refuse) -> None:
    """Refuses a call of a neuron for whole sequences that does not start from rest."""
    if not carries_state(module):
        return
    state = state_of(module)
    if isinstance(state, StandIn):
        refuse(
            "is called twice in one forward, and the second call goes on from where the first one ended. Use "
            "a neuron for each call, or MFP, which starts every call from rest"
        )
    if not is_at_rest(state):
        refuse("starts from a potential that is not 0. Every sequence starts from rest: set none")


def keep(module: Any, last: StandIn, every: StandIn, history: StandIn) -> None:
    """Puts stand-ins where a call leaves the last potential, that of every step, and the past inputs."""
    memories = getattr(module, "_memories", None)
    if memories is None:
        if hasattr(module, "mem"):  # past the checks of setting it, which look at numbers
            (module._buffers if "mem" in module._buffers else vars(module))["mem"] = last
        return
    memories["v"] = last
    if "history" in memories:
        memories["history"] = history
    if module.store_v_seq:
        module.v_seq = every
