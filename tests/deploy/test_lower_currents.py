"""Currents that synapses read without a neuron in between, against float64."""

import pytest
from torch import nn

from mfp_neurons.deploy.graph import Currents

from .lowering import Each, events, neuron, norm, prepared
from .oracle import agree


def conv(inner, out, size=3, **options):
    return nn.Conv2d(inner, out, size, padding=size // 2, **options)


def currents(model, example, top=1):
    """The written currents of a model that agrees with float64."""
    agreement = agree(model, example, top)
    assert agreement.undecided < agreement.spikes / 20
    return [op for op in agreement.graph.ops if isinstance(op, Currents)]


@pytest.mark.parametrize("bits", [1, 4])
def test_two_convolutions_in_a_row(bits):
    layers = conv(2, 4), norm(nn.BatchNorm2d, 4), conv(4, 6), norm(nn.BatchNorm2d, 6)
    model = nn.Sequential(Each(*layers), neuron(), nn.Flatten(2), nn.Linear(6 * 36, 3))
    (op,) = currents(prepared(model, bits), events(2, 6, 6))
    assert op.zero > 0
