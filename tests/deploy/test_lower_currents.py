"""Currents that synapses read without a neuron in between, against float64."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mfp_neurons import deploy, quantize_weights
from mfp_neurons.deploy import IntegerNetwork, fold
from mfp_neurons.deploy.fold import affine
from mfp_neurons.deploy.graph import Currents, Neurons

from .lowering import Do, Each, events, images, neuron, norm, prepared
from .oracle import agree, unrounded


def conv(inner, out, size=3, **options):
    return nn.Conv2d(inner, out, size, padding=size // 2, **options)


def currents(model, example, top=1):
    """The written currents of a model that agrees with float64."""
    agreement = agree(model, example, top)
    assert agreement.undecided < agreement.spikes / 20
    network, x = IntegerNetwork(agreement.graph), example.numpy()
    np.testing.assert_array_equal(network.run_events(x).scores, network.run(x, backend="numpy"))
    return [op for op in agreement.graph.ops if isinstance(op, Currents)]


@pytest.mark.parametrize("steps", [1, 4])
def test_the_error_of_currents_counts_in_a_potential_once_for_each_tap(steps):
    snn = pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")

    def forward(x, first, second, leaky):
        mem, record = leaky.init_leaky(), []
        for step in second(first(x)):
            _, mem = leaky(step, mem)
            record.append(mem)
        return torch.stack(record)

    leaky = snn.Leaky(0.75, reset_mechanism="none")
    model = prepared(Do(forward, nn.Linear(8, 16), nn.Linear(16, 5), leaky))
    x = events(8)[:steps]
    network = deploy.lower(model, x)
    written, scores = network.graph.ops
    with torch.no_grad():
        expected = unrounded(model)(x.double()).numpy()
    off = np.abs(network.run(x, backend="numpy") - expected).max(axis=(0, 1))
    assert written.shift > 0 and off.any() and (off <= scores.error).all()


@pytest.mark.parametrize("bits", [1, 4])
def test_two_convolutions_in_a_row(bits):
    layers = conv(2, 4), norm(nn.BatchNorm2d, 4), conv(4, 6), norm(nn.BatchNorm2d, 6)
    model = nn.Sequential(Each(*layers), neuron(), nn.Flatten(2), nn.Linear(6 * 36, 3))
    (op,) = currents(prepared(model, bits), events(2, 6, 6))
    assert op.zero > 0


def test_a_padded_synapse_pads_with_the_number_for_zero():
    layers = conv(2, 4), norm(nn.BatchNorm2d, 4), conv(4, 4, 5, groups=4), conv(4, 6, 1)
    model = nn.Sequential(Each(*layers), neuron(), nn.Flatten(2), nn.Linear(6 * 36, 3))
    first, second = currents(prepared(model), events(2, 6, 6))
    assert first.zero > 0 and second.shift > 0


def test_equal_scales_are_exact():
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 4, bias=False), neuron(0.1))
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight.sign() / 4)
    (op,) = currents(quantize_weights(model, 4), events(6))
    assert op.shift == 0 and op.top < 2**8


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.Sequential(nn.AvgPool2d(2), nn.MaxPool2d(2)),
        nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2, 1)),
    ],
)
def test_pools_of_currents(pool):
    def forward(x, a, b, pool, fire, last):
        x = a(x)
        return last(fire(pool(x + b(x))).flatten(2)).mean(0)

    size = pool(torch.zeros(1, 4, 6, 6)).numel()
    first = Each(conv(2, 4), norm(nn.BatchNorm2d, 4))
    model = Do(forward, first, Each(conv(4, 4)), Each(pool), neuron(), nn.Linear(size, 3))
    assert currents(prepared(model), events(2, 6, 6))


def test_a_stream_of_residuals_is_written_down_where_it_grows():
    def forward(x, first, *blocks):
        x = first(x)
        for fire, convolve in zip(blocks[0::2], blocks[1::2], strict=True):
            x = x + convolve(fire(x))
        return x.flatten(2).mean(0)

    blocks = [part for _ in range(6) for part in (neuron(), Each(conv(4, 4), norm(nn.BatchNorm2d, 4)))]
    model = Do(forward, Each(conv(2, 4)), *blocks)
    (op,) = currents(prepared(model), events(2, 6, 6))
    assert len(op.synapses) == 5


def test_products_with_currents_subtract_what_their_zero_adds():
    model = Do(
        lambda x, a, b, f, g, last: last(g(a(x) * b(x) + f(a(x)) * b(x)).flatten(2)).mean(0),
        *(Each(conv(2, 4)), Each(conv(2, 4)), neuron(), neuron(), nn.Linear(4 * 36, 3)),
    )
    assert (
        len(currents(prepared(model), images(2, 6, 6)[None].repeat(4, 1, 1, 1, 1), 255)) == 3
    )  # one for each layer and largest number


def test_products_too_large_to_be_added_up_are_written_with_fewer_bits():
    """A row of 8192 codes of 8 bits adds up to more than 2**31 of the squares of bytes."""
    model = Do(lambda x, first, fire: fire(first(x * x)), nn.Linear(8192, 3), neuron(0.1))
    (op,) = currents(prepared(model, 8), images(8192)[None].repeat(2, 1, 1), 255)
    assert 2**14 < op.top < 2**16


finite = st.fractions(-4, 4, max_denominator=1000)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(8, 18), st.data())
def test_written_currents_are_within_their_error(branches, channels, bits, data):
    def draw(of):
        return data.draw(st.lists(of, min_size=channels, max_size=channels))

    affines = [affine(draw(finite), draw(finite)) for _ in range(branches)]
    ranges = [(np.array(draw(st.integers(-50, 0))), np.array(draw(st.integers(0, 50)))) for _ in affines]
    folded = fold.currents(affines, ranges, 2**bits - 1)
    numbers = [
        np.array([data.draw(st.integers(int(a), int(b))) for a, b in zip(*ends, strict=True)])
        for ends in ranges
    ]
    total = folded.offset + sum(f * n for f, n in zip(folded.factors, numbers, strict=True))
    written = total >> folded.shift
    assert (written >= 0).all() and (written <= folded.top).all() and folded.top < 2**bits
    for c in range(channels):
        value = sum(
            Fraction(one.scale[c]) * int(n[c]) + Fraction(one.offset[c])
            for one, n in zip(affines, numbers, strict=True)
        )
        error = abs(folded.unit * (int(written[c]) - folded.zero) - value)
        assert error <= Fraction(folded.error[c]) + Fraction(1, 10**40)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, 1, 1),
        nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=9),
        nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1)),
        nn.Sequential(nn.AvgPool2d((3, 2)), nn.AvgPool2d(2)),
    ],
)
def test_averages_of_a_current_need_no_map(pool):
    size = pool(torch.zeros(1, 4, 6, 6)).numel()
    layers = Each(conv(2, 4, 3), norm(nn.BatchNorm2d, 4), pool), neuron(), nn.Flatten(2), nn.Linear(size, 3)
    assert not currents(prepared(nn.Sequential(*layers)), events(2, 6, 6))


@pytest.mark.parametrize("reset", [None, "subtract", "zero"])
def test_shortcuts_through_stages_of_currents_stay_near_float64(reset):
    """A residual network of membrane shortcuts: each stage adds spikes to a convolution of currents."""

    def forward(x, first, *rest):
        x = first(x)
        for fire, straight, shortcut in zip(rest[0:-2:3], rest[1:-2:3], rest[2:-2:3], strict=True):
            x = straight(fire(x)) + shortcut(x)
        return rest[-1](rest[-2](x).flatten(2)).mean(0)

    def stage():
        return (
            neuron(reset=reset),
            Each(conv(4, 4), norm(nn.BatchNorm2d, 4)),
            Each(conv(4, 4, 1), norm(nn.BatchNorm2d, 4)),
        )

    stages = [part for _ in range(3) for part in stage()]
    model = Do(forward, Each(conv(2, 4), norm(nn.BatchNorm2d, 4)), *stages, neuron(), nn.Linear(4 * 36, 3))
    agreement = agree(prepared(model), images(2, 6, 6)[None].repeat(4, 1, 1, 1, 1), 255)
    assert max(float(op.error.max()) for op in agreement.graph.ops if isinstance(op, Neurons)) < 1e-3
