"""Layers of Brevitas lower as ours do, if nothing but their weight is quantized."""

import warnings
from importlib import import_module
from typing import Any

import pytest
import torch

from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.lowering import lower_graph

from .lowering import Do, Each, check_agreement, events, neuron

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
    check_agreement(Do(forward, Each(first), neuron(0.1), last), events(2, 6, 6))
    assert torch.equal(first.weight, latent)


def test_quantized_outputs_are_refused(brevitas: Any) -> None:
    quantizer = import_module("brevitas.quant").Int8ActPerTensorFloat
    for option in ("input_quant", "output_quant"):
        layer = brevitas.QuantLinear(8, 4, bias=True, **{option: quantizer})
        with pytest.raises(LoweringError, match=rf"'layers.0' \(QuantLinear\).*{option}"):
            lower_graph(Do(lambda x, a, fire: fire(a(x)).mean(0), layer, neuron()), events(8))
