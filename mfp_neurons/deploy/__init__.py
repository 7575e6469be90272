"""From a trained, quantized network to whole numbers that run anywhere."""

# ruff: noqa: E402 (the first call turns NumPy's absence into a helpful error, before anything imports it)

from .._checks import require

require("numpy", "deploy")

from .errors import InvalidNetworkError as InvalidNetworkError
from .errors import LoweringError as LoweringError
from .memory import Memory as Memory
from .network import EventRun as EventRun
from .network import IntegerNetwork as IntegerNetwork
from .network import Stream as Stream

__all__ = ["EventRun", "IntegerNetwork", "InvalidNetworkError", "LoweringError", "Memory", "Stream"]
