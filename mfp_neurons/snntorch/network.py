"""What is done to all neurons of a network at once: reset, detach, release."""

from collections.abc import Callable
from typing import Any

import snntorch as snn
from torch import Tensor, nn

STATES = ("mem", "syn", "syn_exc", "syn_inh", "spk")  # where snnTorch's neurons keep what they carry on


def reset(net: nn.Module) -> None:
    """Resets every snnTorch neuron inside ``net``, however deeply nested, and no other.

    ``snntorch.utils.reset`` sees direct children alone, and resets their kind in the whole process.
    """
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron) and callable(getattr(module, "reset_mem", None)):
            module.reset_mem()


def detach(net: nn.Module) -> None:
    """Cuts the state of every snnTorch neuron inside ``net`` from the graph; its values stay.

    For truncated backpropagation through time. The reach is that of :func:`reset`.
    """
    for module in net.modules():
        if not isinstance(module, snn.SpikingNeuron):
            continue
        if hasattr(module, "detach_state"):  # MFPLeaky, whose inputs go with its potential
            module.detach_state()
            continue
        for name in STATES:
            if isinstance(module._buffers.get(name), Tensor):
                setattr(module, name, module._buffers[name].detach())


def release(net: nn.Module | None = None) -> int:
    """Takes this package's neurons off ``SpikingNeuron.instances``, which would keep them alive for ever.

    ``snntorch.utils.reset`` no longer reaches the released neurons; :func:`reset` does. Other neurons stay
    listed, and the list is the same object as before.

    Args:
        net: the network whose neurons to release; None for all of them.

    Returns:
        How many were released.
    """
    inside = None if net is None else {id(module) for module in net.modules()}
    return unlist(lambda one: hasattr(one, "neuron_spec") and (inside is None or id(one) in inside))


def unlist(is_gone: Callable[[Any], bool]) -> int:
    """Takes neurons off snnTorch's list, which stays the same object; returns how many they were."""
    instances = snn.SpikingNeuron.instances
    before = len(instances)
    instances[:] = [neuron for neuron in instances if not is_gone(neuron)]
    return before - len(instances)
