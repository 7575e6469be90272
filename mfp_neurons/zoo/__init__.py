"""Example networks of both frameworks and of this package, retrained memory-free, with their weights.

``zoo.list()`` names them; ``zoo.load(name)`` gives the torch model, its integer network and the card that
says how it was trained and what it reaches. ``mfp-neurons zoo`` does the same on a command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .catalog import card as card
from .catalog import load as load
from .catalog import names as list

if TYPE_CHECKING:
    from .resnet19 import mfp_qsnn_resnet19 as mfp_qsnn_resnet19
    from .vggsnn import mfp_qsnn_vggsnn as mfp_qsnn_vggsnn

__all__ = ["card", "list", "load", "mfp_qsnn_resnet19", "mfp_qsnn_vggsnn"]

_NETWORKS = {"mfp_qsnn_resnet19": "resnet19", "mfp_qsnn_vggsnn": "vggsnn"}


def __getattr__(name: str) -> Any:
    """The method's own networks are imported on first use."""
    if name in _NETWORKS:
        return getattr(import_module(f".{_NETWORKS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
