r"""A SpikingJelly neuron without reset that runs every time step at once; for 2.0.0 and 0.0.0.0.14 alike.

.. math::
    u[t] = \sum_{j=0}^{\min(t, K-1)} m_j \, x[t-j], \qquad s[t] = 1 \text{ if } u[t] \ge v_\mathrm{threshold}

The arithmetic is :func:`mfp_neurons.functional.fire_chunk`; these files add SpikingJelly's conventions: step
modes, memories, reset, ``store_v_seq``. :data:`RULES` says which SpikingJelly neurons can be replaced.
"""

# ruff: noqa: E402 (the first call turns SpikingJelly's absence into a helpful error, before anything imports it)

from contextlib import suppress
from importlib import import_module
from typing import Any

from .._checks import require

require("spikingjelly.activation_based.neuron", "spikingjelly")

from .counters import FLOP_RULES as FLOP_RULES
from .counters import MEMORY_RULES as MEMORY_RULES
from .counters import STATE_RULES as STATE_RULES
from .node import MFPNode as MFPNode
from .pairs import fuse as fuse
from .pools import compact_pools as compact_pools
from .rules import RULES as RULES
from .rules import neuron_spec as neuron_spec
from .rules import recurrence_spec as recurrence_spec
from .rules import replacement as replacement
from .rules import reset_of as reset_of
from .rules import total_weight as total_weight
from .rules import why_no_layer as why_no_layer
from .surrogates import fused_surrogate as fused_surrogate

__all__ = [
    "FLOP_RULES",
    "MEMORY_RULES",
    "RULES",
    "STATE_RULES",
    "MFPNode",
    "compact_pools",
    "fuse",
    "fused_surrogate",
]

# 2.0.0 has a list of the neurons that a configuration file may name by their paths; other versions have none,
# or lack something that the list needs as well.
with suppress(ImportError):
    _vision: Any = import_module("spikingjelly.activation_based.distributed.vision")
    if hasattr(_vision, "register_neuron_class"):
        _vision.register_neuron_class(MFPNode)
