"""What cannot be said in NIR, and what cannot be read from it."""

from ..network import NetworkError


class NIRError(NetworkError):
    """A model that NIR cannot say, or a graph that has no place here: which layer, why, and what to do."""
