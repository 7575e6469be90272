"""SpikingJelly's list of neurons that a configuration file may name."""

from importlib import import_module

from .node import MFPNode


def register() -> None:
    """Makes 2.0.0's ``NeuronConfig`` find MFPNode by its path, where this version of SpikingJelly has one."""
    try:
        vision = import_module("spikingjelly.activation_based.distributed.vision")
    except ImportError:  # there is none, or it lacks something that NeuronConfig needs as well
        return
    if hasattr(vision, "register_neuron_class"):
        vision.register_neuron_class(MFPNode)
