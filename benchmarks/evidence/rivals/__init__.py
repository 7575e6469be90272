"""The rivals: networks that an engineer would take instead, for the same training and the same counts.

Each is a builder for ``network.architecture``, with ``network.options`` as keyword arguments:

    [network]
    architecture = "benchmarks.evidence.rivals:gru"
    options = { width = 24, bits = 8 }
    weight_bits = 8
    neuron = { kind = "lif" }    # where the base config has a list of orders, which a GRU has no layers for

``alif`` and ``recurrent_lif`` take their decay, threshold and ``potential_bits`` from ``network.neuron``
(``kind = "lif"``), and weights of any bits. ``gru``, ``conv`` and ``cnn`` have no spikes: their ``bits`` are
those of activations and state, 32 (floats, with ``network.weight_bits = 32``) or 8 (with 8).

Those without spikes have ``costs(x_seq)``, which counts as docs/evidence.md says; the others are counted by
``mfp_neurons.report``. ``python -m benchmarks.evidence.rivals`` prints the bytes of GRUs and convolutions by
width.
"""

from .convolution import cnn as cnn
from .convolution import conv as conv
from .gated import gru as gru
from .spiking import alif as alif
from .spiking import recurrent_lif as recurrent_lif

__all__ = ["alif", "cnn", "conv", "gru", "recurrent_lif"]
