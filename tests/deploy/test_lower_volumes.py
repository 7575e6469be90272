"""Convolutions and pools over depth, rows and columns, [T, N, C, D, H, W], against float64."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from mfp_neurons import MFP, quantize_weights
from mfp_neurons.deploy import IntegerNetwork, LoweringError
from mfp_neurons.deploy.lowering import lower_graph

from .lowering import Do, Each, check_agreement, events, images, neuron, norm, prepared
from .oracle import agree

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.")
SHAPE = (2, 3, 4, 4)


def triple(draw: st.DrawFn, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(3))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    torch.manual_seed(draw(st.integers(0, 999)))
    size, stride, dilation = triple(draw, 1, 3), triple(draw, 1, 2), triple(draw, 1, 2)
    groups, bias, out = draw(st.integers(1, 2)), draw(st.booleans()), 2 * draw(st.integers(1, 2))
    padding: Any = tuple(
        min(p, (k - 1) * d) for p, k, d in zip(triple(draw, 0, 2), size, dilation, strict=True)
    )
    if draw(st.booleans()):
        added = tuple(
            min(a, max(s, d) - 1) for a, s, d in zip(triple(draw, 0, 1), stride, dilation, strict=True)
        )
        return nn.ConvTranspose3d(2, out, size, stride, padding, added, groups, bias, dilation)
    mode = draw(st.sampled_from(["zeros", "zeros", "circular"]))
    if mode == "circular":
        padding = tuple(min(p, 2) for p in padding)
    if stride == (1, 1, 1) and draw(st.booleans()):
        padding = "same"
    return nn.Conv3d(2, out, size, stride, padding, dilation, groups, bias, mode)


@st.composite
def pools(draw: st.DrawFn) -> nn.Module:
    size = triple(draw, 1, 3)
    kind = draw(st.sampled_from(["max", "average", "adaptive max", "adaptive average"]))
    if kind.startswith("adaptive"):
        return (nn.AdaptiveMaxPool3d if kind.endswith("max") else nn.AdaptiveAvgPool3d)(size)
    options: dict[str, Any] = dict(stride=triple(draw, 1, 2), padding=tuple(k // 2 for k in size))
    options["ceil_mode"] = draw(st.booleans())
    if kind == "max":
        return nn.MaxPool3d(size, dilation=1, **options)
    return nn.AvgPool3d(size, count_include_pad=draw(st.booleans()), **options)


def shape_of(layer: nn.Module) -> tuple[int, ...]:
    try:
        with torch.no_grad():
            shape = layer(torch.zeros(1, *SHAPE)).shape[1:]
    except RuntimeError:
        shape = torch.Size([0])
    assume(0 < shape.numel() <= 800)
    return tuple(shape)


@given(convolutions(), st.sampled_from([1, 1.58, 4]), st.booleans(), st.booleans())
def test_a_convolution_with_a_depth_is_lowered_to_the_last_spike(layer, bits, with_norm, of_spikes):
    channels, *places = shape_of(layer)
    size = channels * places[0] * places[1] * places[2]
    behind = [norm(nn.BatchNorm3d, channels)] if with_norm else []
    first = [neuron(0.4)] if of_spikes else []
    fire = MFP(0.5, order=3, kernel_bits="pow2", v_threshold=0.1, kernel="fir", num_channels=channels)
    model = nn.Sequential(*first, Each(layer, *behind), fire, nn.Flatten(2), nn.Linear(size, 3))
    quantize_weights(model, bits, first=bits, last=bits)
    assert agree(model.eval(), events(*SHAPE), 1).undecided == 0


@given(pools(), st.booleans())
def test_a_pool_with_a_depth_is_lowered_to_the_last_spike(pool, of_currents):
    size = torch.Size(shape_of(pool)).numel()

    def forward(x, first, pool, fire, out):
        return out(fire(pool(first(x))).flatten(2)).mean(0)

    first = Each(nn.Conv3d(2, 2, 1)) if of_currents else neuron(0.4)
    model = prepared(Do(forward, first, Each(pool), neuron(0.2), nn.Linear(size, 3)))
    agree(model.eval(), events(*SHAPE), 1)


@pytest.mark.parametrize("input_of", [events, images])
def test_a_network_over_volumes_agrees_in_every_execution(input_of):
    def forward(x, stem, fire, pool, second, again, out):
        x = x if x.dim() == 6 else x.expand(4, *x.shape)
        y = again(second(pool(fire(stem(x)))))
        return out(y.mean((3, 4, 5))).mean(0)

    model = prepared(
        Do(
            forward,
            Each(nn.Conv3d(2, 4, 3, padding=1), norm(nn.BatchNorm3d, 4)),
            neuron(0.2),
            Each(nn.MaxPool3d((1, 2, 2))),
            Each(nn.Conv3d(4, 4, (3, 1, 2)), nn.Dropout3d()),
            neuron(0.1),
            nn.Linear(4, 3),
        )
    )
    x = input_of(2, 4, 4, 6)
    graph = check_agreement(model, x)
    network = IntegerNetwork(graph)
    assert (network.run(x) == network.run(x, backend="numpy")).all()
    assert (network.run_events(x).scores == network.run(x)).all()


def test_windows_of_one_depth_and_one_row_need_no_other_places():
    first, second = nn.Conv3d(2, 3, 2), nn.Conv3d(3, 2, (1, 1, 3), padding=(0, 0, 1))
    graph = check_agreement(prepared(nn.Sequential(Each(first), neuron(), Each(second))), events(*SHAPE))
    assert [type(op).__name__ for op in graph.ops] == ["Gather", "Neurons", "Scores"]


def test_a_convolution_over_time_is_refused_with_what_to_do():
    model = prepared(Do(lambda x, conv: conv(x.permute(1, 2, 0, 3, 4)), nn.Conv3d(2, 3, 3)))
    with pytest.raises(LoweringError, match=r"Put time and batch in front of them"):
        lower_graph(model, events(2, 5, 5))
