"""snnTorch's list of every neuron that was ever made."""

from collections.abc import Callable
from typing import Any

import snntorch as snn


def unlist(gone: Callable[[Any], bool]) -> int:
    """Takes the neurons for which ``gone`` holds off the list, which stays the same object; how many."""
    instances = snn.SpikingNeuron.instances
    before = len(instances)
    instances[:] = [neuron for neuron in instances if not gone(neuron)]
    return before - len(instances)
