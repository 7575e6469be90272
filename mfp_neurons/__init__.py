"""Memory-free, time-parallel quantized spiking neurons."""

import importlib
from typing import TYPE_CHECKING, Any

from . import functional as functional
from ._convert import convert as convert
from ._reset import reset_samples as reset_samples
from ._saved_spikes import save_spikes_as_bits as save_spikes_as_bits
from .baseline import QuantizedMembraneLIF as QuantizedMembraneLIF
from .neuron import MFP as MFP
from .orders import fit_orders as fit_orders
from .orders import late_taps as late_taps
from .pooling import TimePool as TimePool
from .quantize import quantize_weights as quantize_weights
from .reporting import report as report

if TYPE_CHECKING:
    from . import deploy as deploy
    from . import nir as nir
    from . import zoo as zoo
    from .spikingjelly import MFPNode as MFPNode

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """Adapters and nir import what they adapt on first use, deploy imports NumPy, the zoo needs all."""
    if name in ("deploy", "nir", "zoo"):
        return importlib.import_module(f".{name}", __name__)
    if name == "MFPNode":
        return importlib.import_module(".spikingjelly", __name__).MFPNode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
