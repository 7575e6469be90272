"""Example networks of both frameworks and of this package, retrained memory-free, with their weights.

``zoo.list()`` names them; ``zoo.load(name)`` gives the torch model, its integer network and the card that
says how it was trained and what it reaches. ``mfp-neurons zoo`` does the same on a command line.
"""

from mfp_neurons.architectures.resnet19 import mfp_qsnn_resnet19 as mfp_qsnn_resnet19
from mfp_neurons.architectures.vggsnn import mfp_qsnn_vggsnn as mfp_qsnn_vggsnn

from .catalog import card as card
from .catalog import load as load
from .catalog import names as list

__all__ = ["card", "list", "load", "mfp_qsnn_resnet19", "mfp_qsnn_vggsnn"]
