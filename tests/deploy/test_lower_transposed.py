"""Transposed convolutions against float64, which computes them with torch's own function."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from mfp_neurons import quantize_weights
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.graph import Gather, Neurons
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.network import describe, description

from .lowering import Do, Each, check_agreement, events, images, neuron, norm, prepared
from .oracle import agree


@st.composite
def transposed(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer of any options that torch takes, and the shape of its input."""
    torch.manual_seed(draw(st.integers(0, 999)))
    dims, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d)[dims - 1]
    size, stride, dilation, padding = (
        tuple(draw(st.integers(low, high)) for _ in range(dims))
        for low, high in ((1, 4), (1, 3), (1, 2), (0, 3))
    )
    added = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    inner, shape = groups * draw(st.integers(1, 2)), (4, 3)[:dims]
    axes = zip(shape, size, stride, dilation, padding, added, strict=True)
    assume(all((n - 1) * s - 2 * p + d * (k - 1) + a + 1 > 0 for n, k, s, d, p, a in axes))
    out = groups * draw(st.integers(1, 3))
    layer = kind(inner, out, size, stride, padding, added, groups, draw(st.booleans()), dilation)
    return layer, (inner, *shape)


@given(transposed(), st.sampled_from([1, 1.58, 2, 8]), st.booleans())
def test_a_transposed_convolution_is_lowered_to_the_last_spike(case, bits, with_norm):
    """Behind neurons, and in front of neurons, with a batch norm of either sign between them."""
    layer, shape = case
    with torch.no_grad():
        *_, channels, _ = layer(torch.zeros(1, *shape)).flatten(2).shape
        size = layer(torch.zeros(1, *shape)).numel()
    dims = len(shape) - 1
    behind = [norm((nn.BatchNorm1d, nn.BatchNorm2d)[dims - 1], channels)] if with_norm else []
    model = quantize_weights(
        nn.Sequential(
            neuron(0.4), Each(layer, *behind), neuron(0.1), nn.Flatten(2), nn.Linear(size, 3, bias=False)
        ),
        bits,
        first=bits,
        last=bits,
    )
    compared = agree(model.eval(), events(*shape), 1)
    assert compared.undecided == 0


@pytest.mark.parametrize("input_of", [events, images])
def test_a_decoder_agrees_from_its_input_to_its_scores(input_of):
    """As autoencoders have it: the scores are the picture."""

    def forward(x, up, fire, out):
        x = x if x.dim() == 5 else x.expand(4, *x.shape)
        return out(fire(up(x))).mean(0)

    model = prepared(
        Do(
            forward,
            Each(nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1), norm(nn.BatchNorm2d, 4)),
            neuron(0.2),
            Each(nn.ConvTranspose2d(4, 1, 2, stride=2)),
        )
    )
    graph = check_agreement(model, input_of(2, 3, 4))
    assert graph.scores.features == (1, 12, 16)


def test_with_a_stride_of_one_it_is_a_convolution_and_nothing_else():
    def ops(layer: nn.Module) -> list[str]:
        model = prepared(nn.Sequential(neuron(0.3), Each(layer), neuron(0.3)))
        return [type(op).__name__ for op in check_agreement(model, events(2, 4, 4)).ops]

    assert ops(nn.ConvTranspose2d(2, 3, 3, padding=1)) == ops(nn.Conv2d(2, 3, 3, padding=1))
    assert "Gather" in ops(nn.ConvTranspose2d(2, 3, 3, padding=3, bias=False, stride=2))


def test_a_current_is_spread_too():
    """Two synapses in a row, the second one transposed: its zeros are those of signed numbers."""

    def forward(x, down, up, fire, out):
        return out(fire(up(down(x))).flatten(2)).mean(0)

    model = prepared(
        Do(
            forward,
            Each(nn.Conv2d(2, 3, 3, padding=1)),
            Each(nn.ConvTranspose2d(3, 2, 3, stride=2)),
            neuron(0.2),
            nn.Linear(2 * 9 * 9, 3),
        ),
        1,
    )
    graph = lower_graph(model, events(2, 4, 4))
    assert any(isinstance(op, Gather) and op.fill for op in graph.ops)
    agree(model.eval(), events(2, 4, 4), 1)


def test_a_description_holds_the_turned_weight_real_or_as_codes():
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2)
    x = torch.zeros(5, 2, 4, 7)
    real = describe(Each(layer), x).layers[-1]
    quantized = describe(Each(quantize_weights(layer, 2)), x).layers[-1]
    for convolution in (real, quantized):
        assert isinstance(convolution, description.Convolution)
        assert convolution.weights.shape == (6, 2, 3) and convolution.stride == (1,)
    torch.testing.assert_close(real.weights.values()[4, 1], layer.weight[3, 1].flip(0))
    expected = layer.quantized_weight()
    assert torch.equal(quantized.weights.values()[4, 1], expected[3, 1].flip(0))
    assert quantized.weights.codes.scale.shape == (6, 1, 1)


def test_a_transposed_convolution_whose_weights_are_real_is_named():
    with pytest.raises(ValueError, match=r"'1\.0' \(ConvTranspose2d\): weights that are real numbers"):
        lower_graph(nn.Sequential(neuron(), Each(nn.ConvTranspose2d(2, 2, 2))), events(2, 3, 3))


def test_a_layer_of_brevitas_is_read_with_one_scale_for_each_channel_that_it_gives():
    brevitas = pytest.importorskip("brevitas.nn")
    quantizers = pytest.importorskip("brevitas.quant")
    torch.manual_seed(0)
    for quantizer in (quantizers.Int8WeightPerTensorFloat, quantizers.Int8WeightPerChannelFloat):
        layer = brevitas.QuantConvTranspose2d(2, 3, 3, stride=2, weight_quant=quantizer)
        model = nn.Sequential(neuron(0.3), Each(layer)).eval()
        x = events(2, 3, 4)
        graph = lower_graph(model, x)
        assert isinstance(graph.ops[0], Neurons)
        with torch.no_grad():
            expected = model(x.float()).double().numpy()
        np.testing.assert_allclose(IntegerNetwork(graph).run(x.numpy()), expected, rtol=1e-5, atol=1e-5)
