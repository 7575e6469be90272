"""Layers of Brevitas lower as ours do, if nothing but their weight is quantized."""

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.quantize import codes

from .lowering import Do, Each, events, neuron

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def brevitas() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("brevitas.quant")
        return pytest.importorskip("brevitas.nn")


def forward(x, convolution, fire, out):
    return out(fire(convolution(x)).flatten(2)).mean(0)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("brevitas.quant", "Int8WeightPerChannelFloat"),
        ("brevitas.quant.binary", "SignedBinaryWeightPerTensorConst"),
        ("brevitas.quant.ternary", "SignedTernaryWeightPerTensorConst"),
    ],
)
def test_they_agree_with_float64(brevitas: Any, module: str, name: str) -> None:
    quantizer = getattr(import_module(module), name)
    first = brevitas.QuantConv2d(2, 4, 3, stride=2, padding=1, weight_quant=quantizer)
    last = brevitas.QuantLinear(4 * 9, 3, bias=True, weight_quant=quantizer)
    with torch.no_grad():
        first.weight.copy_(torch.randn_like(first.weight) * 0.2)
        last.weight.copy_(torch.randn_like(last.weight) * 0.2)
    latent = first.weight.clone()
    x = events(2, 6, 6)
    graph = lower_graph(Do(forward, Each(first), neuron(0.1), last), x)
    assert torch.equal(first.weight, latent)
    plain = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Linear(4 * 9, 3)
    for made, of in zip(plain, (first, last), strict=True):
        made.double()
        read = codes(of)
        with torch.no_grad():
            made.weight.copy_(read.codes * read.scale.double())
            made.bias.copy_(torch.zeros_like(made.bias) if of.bias is None else of.bias)
    with torch.no_grad():
        expected = forward(x.double(), Each(plain[0]), neuron(0.1).double(), plain[1])
    assert expected.std() > 0
    np.testing.assert_allclose(IntegerNetwork(graph).run(x.numpy()), expected.numpy(), rtol=1e-9, atol=1e-9)


def test_quantized_outputs_are_refused(brevitas: Any) -> None:
    quantizer = import_module("brevitas.quant").Int8ActPerTensorFloat
    for option in ("input_quant", "output_quant"):
        layer = brevitas.QuantLinear(8, 4, bias=True, **{option: quantizer})
        with pytest.raises(LoweringError, match=rf"'layers.0' \(QuantLinear\).*{option}"):
            lower_graph(Do(lambda x, a, fire: fire(a(x)).mean(0), layer, neuron()), events(8))
