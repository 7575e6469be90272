"""Pools whose windows differ in size, of spikes and of currents, against float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from .lowering import Do, Each, check_agreement, events, images, neuron, prepared
from .oracle import agree

POOLS = {
    "ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    "ceil and padding": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "largest of ceil": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "without padding": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "ceil without padding": nn.AvgPool2d((2, 3), 2, (1, 1), ceil_mode=True, count_include_pad=False),
    "a divisor": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False, divisor_override=5),
    "adaptive": nn.AdaptiveAvgPool2d((4, 3)),
    "adaptive to more": nn.AdaptiveAvgPool2d(7),
    "adaptive largest": nn.AdaptiveMaxPool2d((4, 5)),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
@pytest.mark.parametrize("before", ["spikes", "images"])
def test_windows_of_several_sizes_are_averaged_exactly(pool, before):
    size = pool(torch.zeros(1, 2, 5, 6)).numel()
    model = prepared(
        Do(
            lambda x, pool, linear, fire, out: out(fire(linear(pool(x).flatten(2)))).mean(0),
            Each(pool),
            nn.Linear(size, 6),
            neuron(0.1),
            nn.Linear(6, 3),
        )
    )
    example = events(2, 5, 6) if before == "spikes" else images(2, 5, 6)[None].repeat(4, 1, 1, 1, 1)
    check_agreement(model, example)


def test_an_average_is_over_more_bytes_than_16_bits_count():
    model = prepared(Each(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(1, 3)))
    assert agree(model, images(1, 32, 32)[None], 255).graph.map_top(1) == 255 * 32 * 32


def test_a_network_for_large_images_takes_small_ones():
    """VGG at 32 x 32: its head averages one place to 7 x 7."""
    model = prepared(
        Do(
            lambda x, conv, fire, pool, out: out(pool(fire(conv(x))).flatten(2)).mean(0),
            Each(nn.Conv2d(2, 3, 3)),
            neuron(0.1),
            Each(nn.AdaptiveAvgPool2d(7)),
            nn.Linear(3 * 49, 4),
        )
    )
    graph = check_agreement(model, events(2, 3, 3))
    assert [type(op).__name__ for op in graph.ops] == ["Neurons", "Gather", "Scores"]


@given(
    kind=st.sampled_from([nn.AvgPool1d, nn.AvgPool2d]),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    pad=st.integers(0, 2),
    ceil=st.booleans(),
    include=st.booleans(),
    length=st.integers(4, 7),
)
def test_averages_of_any_options_are_those_of_torch(kind, size, stride, pad, ceil, include, length):
    pool = kind(size, stride, min(pad, size // 2), ceil, include)
    places = (length,) if kind is nn.AvgPool1d else (length, 5)
    count = pool(torch.zeros(1, 2, *places)).numel()
    model = prepared(
        Do(lambda x, pool, out: out(pool(x).flatten(2)).mean(0), Each(pool), nn.Linear(count, 3))
    )
    check_agreement(model, events(2, *places))
