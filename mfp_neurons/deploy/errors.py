"""What lowering refuses, and what is not a network."""

from ..network import NetworkError


class LoweringError(NetworkError):
    """A model that cannot become an integer network: which module, its type, why, and what to use instead."""


class InvalidNetworkError(ValueError):
    """A file, or a graph, that is not a network that can be run; the message says what is wrong where."""
