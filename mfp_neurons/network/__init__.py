"""Reads a torch model once, into a description in exact numbers: the only code that knows a model's layers.

``capture`` runs the model on tensors without numbers; ``tracing`` writes down the layers that it calls, with
one rule for each torch function (``synapses``, ``pools``, ``arithmetic``, ``places``, ``steps``) and one for
neurons (``neurons``). ``description`` says what the layers are. Exports start from there:
:func:`mfp_neurons.deploy.lower` makes whole numbers of it, :func:`mfp_neurons.nir.to_nir` writes a graph, and
each refuses what it cannot say.
"""

# ruff: noqa: E402 (the first call turns NumPy's absence into a helpful error, before anything imports it)

from .._checks import require

require("numpy", "deploy")

from .describing import describe as describe
from .description import NetworkDescription as NetworkDescription
from .description import NetworkError as NetworkError

__all__ = ["NetworkDescription", "NetworkError", "describe"]
