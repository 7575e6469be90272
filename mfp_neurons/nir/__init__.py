r"""Neuromorphic Intermediate Representation: a network as a graph that other tools read, and back.

Our neurons never reset, so none of them is NIR's LIF, which does. What they are in NIR:

- exponential: Scale -> LI(r = 1, tau = dt / (1 - decay)) -> Threshold; I instead of LI where the decay is 1;
- an order K, or free taps: K - 1 Delays, one behind the other, a Scale from each place, summed into a
Threshold.

``export`` takes the description of a model (:mod:`mfp_neurons.network`) and grows a graph (``draft``,
``neurons``); ``load`` finds the layers of neurons in a graph (``patterns``) and makes modules (``nodes``,
``weights``, ``network``). How to use it, what is exact, and what NIR cannot say: docs/howto/export.md. The
format: Pedersen et al., Nature Communications 15, 8122 (2024)."""

# ruff: noqa: E402 (the first call turns nir's absence into a helpful error, before anything imports it)

from .._checks import require

require("nir", "nir")

from .errors import NIRError as NIRError
from .export import to_nir as to_nir
from .load import from_nir as from_nir
from .network import NIRNetwork as NIRNetwork

__all__ = ["NIRError", "NIRNetwork", "from_nir", "to_nir"]
