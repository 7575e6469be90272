"""Building the MFPNode that replaces one of SpikingJelly's neurons, with the values that one has now."""

from typing import Any

from torch import Tensor

from .node import MFPNode


def _common(old: Any) -> dict[str, Any]:
    """The arguments that every SpikingJelly neuron shares with MFPNode."""
    kept = {"step_mode": "m", "store_v_seq": False, "detach_reset": False, "v_threshold": 1.0}
    found = {name: getattr(old, name) for name in kept if hasattr(old, name)}
    if isinstance(found.get("v_threshold"), Tensor):
        del found["v_threshold"]  # set_threshold_margin's; build carries it over
    return {**kept, **found, "surrogate_function": old.surrogate_function}


def build(old: Any, options: dict[str, Any], **chosen: Any) -> MFPNode:
    """An MFPNode with what ``old`` shares, what the rule chose and, above both, what the user asked for."""
    node = MFPNode(**{**_common(old), **chosen, **options})
    threshold = getattr(old, "v_threshold", None)
    if isinstance(threshold, Tensor) and "v_threshold" not in options:
        node.v_threshold = threshold
    for parameter in old.parameters():
        node.to(device=parameter.device)
    return node.train(old.training)
