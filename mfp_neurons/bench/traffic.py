"""Bytes that a neuron has to move for one element, whatever its code: the floor that a copy stands for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Forward: input in, spikes out. Backward: what was saved and the gradient in, a gradient out."""

    forward: float
    backward: float

    def parts(self, elements: int, *, training: bool) -> dict[str, int]:
        """Bytes by part of a call, as the timing names them."""
        forward, backward = round(self.forward * elements), round(self.backward * elements)
        if not training:
            return {"total": forward}
        return {"total": forward + backward, "forward": forward, "backward": backward}


def neuron(width: int, training: bool) -> Traffic:
    """``width``: bytes of one number. The input is saved.

    >>> neuron(4, training=True)
    Traffic(forward=8, backward=12)
    """
    return Traffic(2 * width, 3 * width)


def wide_spikes(width: int, training: bool) -> Traffic:
    """Spikes are float32 whatever the input is, and so is their gradient."""
    return Traffic(width + 4, 2 * width + 4)


def masked(width: int, training: bool) -> Traffic:
    """One bit is saved in place of the input."""
    return Traffic(2 * width + (1 / 8 if training else 0), 2 * width + 1 / 8)


def norm_and_neuron(width: int, training: bool) -> Traffic:
    """Training has to pass over everything once for the statistics and once more to use them."""
    return Traffic((3 if training else 2) * width, 5 * width)
