"""What SpikingJelly's counters of memory traffic cannot see by themselves."""

from typing import Any

from torch import nn

from .node import MFPNode

# which argument of each operator is the state
_STATE_AT = {
    "mfp_neurons::fire": 3,
    "mfp_neurons::fire_masked": 3,
    "mfp_neurons::norm_fire": 5,
    "mfp_neurons::potential": 2,
}


def _count_state(
    node: nn.Module, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, state_keys: set[Any]
) -> dict[str, int] | None:
    """Bytes of state that a call of our operator reads and writes: once for all T steps, as it runs."""
    at = _STATE_AT.get(func.name())
    if at is None:
        return None  # any other operator: count as usual
    size = 0 if args[at] is None else args[at].numel() * args[at].element_size()
    return {"state_reads": size, "state_writes": size, "neuron_logical_steps": args[0].numel()}


#: For 2.0.0's ``NeuronStateCounter(extra_state_rules=STATE_RULES)``, which cannot look into an operator.
STATE_RULES = {MFPNode: _count_state}
