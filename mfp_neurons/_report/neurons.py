"""Neurons of this package and of both frameworks: which modules they are, and what they keep."""

import sys

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from ..baseline import QuantizedMembraneLIF

_SNNTORCH_STATES = ("mem", "syn", "syn_exc", "syn_inh", "spk", "history")
_WHOLE_SEQUENCE = {"MFPLeakyParallel", "StateLeaky"}  # snnTorch neurons that take [T, N, *]


def is_memory_free(module: nn.Module) -> bool:
    """One of ours: MFP, MFPNode, MFPLeaky, MFPLeakyParallel."""
    return hasattr(getattr(module, "kernel", None), "state_steps")


def is_neuron(module: nn.Module) -> bool:
    """A spiking neuron that this report knows. A framework that is not imported has no neurons here."""
    if is_memory_free(module) or isinstance(module, QuantizedMembraneLIF):
        return True
    return isinstance(module, tuple(_framework_neurons()))


def _framework_neurons() -> list[type]:
    names = {
        "spikingjelly.activation_based.neuron": ("BaseNode", "SimpleBaseNode", *_PSN),
        "snntorch": ("SpikingNeuron",),
    }
    found = []
    for module, classes in names.items():
        loaded = sys.modules.get(module)
        found += [getattr(loaded, name) for name in classes if hasattr(loaded, name)]
    return found


_PSN = ("PSN", "MaskedPSN", "SlidingPSN")


def never_fires(module: nn.Module) -> bool:
    """Whether no potential reaches the threshold, which is infinite: a read-out, whose potential is used."""
    threshold = getattr(module, "v_threshold", getattr(module, "threshold", None))
    return threshold is not None and bool((torch.as_tensor(threshold) == torch.inf).all())


def takes_sequences(module: nn.Module) -> bool:
    """Whether one call is a whole sequence [T, N, *], not one step [N, *]."""
    mode = getattr(module, "step_mode", None)
    if mode is not None:
        return bool(mode == "m")
    snntorch = sys.modules.get("snntorch")
    if snntorch is not None and isinstance(module, snntorch.SpikingNeuron):
        return any(kind.__name__ in _WHOLE_SEQUENCE for kind in type(module).__mro__)
    return True


def kept_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The state tensors that the module holds now, by name."""
    memories = getattr(module, "_memories", None)
    if memories is None:
        memories = {name: getattr(module, name, None) for name in _SNNTORCH_STATES}
    named = [(name, item) for name, value in memories.items() if name != "v_seq" for item in tree_iter(value)]
    return [(name, item) for name, item in named if isinstance(item, Tensor) and item.numel()]


def psn_steps(module: nn.Module, steps: int) -> int | None:
    """Real-valued inputs that SpikingJelly's parallel spiking neurons keep; None for other neurons.

    PSN is not causal and needs all T at once; the masked and the sliding one need the last k, one of them
    the present.
    """
    names = {kind.__name__ for kind in type(module).__mro__}
    if "PSN" in names:
        return steps
    return int(module.k) - 1 if names & {"MaskedPSN", "SlidingPSN"} else None  # type: ignore[arg-type]
