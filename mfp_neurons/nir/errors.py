"""What cannot be said in NIR, and what cannot be read from it."""


class NIRError(ValueError):
    """A model that NIR cannot say, or a graph that has no place here: which layer, why, and what to do."""
