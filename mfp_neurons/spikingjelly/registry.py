"""SpikingJelly's list of neurons that a configuration file may name."""

from spikingjelly.activation_based import neuron

from .._checks import require
from .node import MFPNode


def register() -> None:
    """Makes 2.0.0's ``NeuronConfig`` find MFPNode by its path; 0.0.0.0.14 has no such registry."""
    if hasattr(neuron.BaseNode, "single_step_functional_forward"):
        vision = require("spikingjelly.activation_based.distributed.vision", "spikingjelly")
        vision.register_neuron_class(MFPNode)
