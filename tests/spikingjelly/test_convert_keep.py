"""convert(model, reset="keep"): networks of SpikingJelly compute what they did."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import sew_resnet, spiking_vgg
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, convert, quantize_weights
from mfp_neurons.adapters import describe_neuron

T = 9


@st.composite
def lif(draw: st.DrawFn) -> nn.Module:
    options: dict[str, Any] = {
        "v_threshold": draw(st.sampled_from([0.3, 1.0])),
        "v_reset": draw(st.sampled_from([None, 0.0, -0.25, 0.125])),
        "detach_reset": draw(st.booleans()),
        "step_mode": "m",
    }
    kind = draw(st.sampled_from(["IFNode", "LIFNode", "ParametricLIFNode"]))
    if kind == "IFNode":
        return neuron.IFNode(**options)
    tau, decay_input = draw(st.sampled_from([1.5, 2.0, 3.0])), draw(st.booleans())
    if kind == "LIFNode":
        return neuron.LIFNode(tau, decay_input, **options)
    return neuron.ParametricLIFNode(tau, decay_input, **options)


def chain(*neurons: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(7, 5))
    return nn.Sequential(*(part for pair in zip(layers, neurons, strict=False) for part in pair)).double()


@torch.no_grad()
def scores(model: nn.Module, x: Tensor, mode: str = "m") -> Tensor:
    functional.reset_net(model)
    functional.set_step_mode(model, mode)
    return model(x) if mode == "m" else torch.stack([model(step) for step in x])


@settings(max_examples=40, deadline=None)
@given(st.lists(lif(), min_size=3, max_size=3), st.sampled_from([None, T, T + 3]), st.sampled_from("sm"))
def test_a_network_computes_what_it_did_where_the_order_covers_its_steps(
    neurons: list[nn.Module], order: int | None, mode: str
) -> None:
    model, x = chain(*neurons), torch.rand(T, 4, 6, dtype=torch.double) * 2
    expected = scores(model, x, mode)
    convert(model, reset="keep", order=order)
    assert all(isinstance(model[i], MFPNode) for i in (1, 3, 5))
    assert torch.equal(scores(model, x, mode), expected)


def trained(model: nn.Module) -> nn.Module:
    """With the statistics of a network that was trained, and 1-bit weights."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.05, 0.5)
                module.bias.uniform_(0, 0.5)
    functional.set_step_mode(model, "m")
    return quantize_weights(model, 1).double().eval()


@pytest.mark.parametrize("v_reset", [None, 0.0])
@pytest.mark.parametrize("order", [None, 4])
@pytest.mark.parametrize("kind", ["SEW ResNet", "VGG"])
def test_a_model_of_the_zoo_computes_what_it_did(kind: str, order: int | None, v_reset: Any) -> None:
    options = {"spiking_neuron": neuron.LIFNode, "v_reset": v_reset, "v_threshold": 0.5, "num_classes": 5}
    if kind == "VGG":
        model = spiking_vgg.SpikingVGG([8, "M", 8, "M"], None, **options)
        model.avgpool, model.classifier = layer.AdaptiveAvgPool2d(2), layer.Linear(32, 5)
        x = torch.rand(4, 2, 3, 16, 16).double()
    else:
        model = sew_resnet.SEWResNet(sew_resnet.BasicBlock, [1, 1, 1, 1], cnf="ADD", **options)
        x = torch.rand(4, 2, 3, 32, 32).double()
    trained(model)
    expected = scores(model, x)
    convert(model, reset="keep", order=order)
    lifs = [module for module in model.modules() if isinstance(module, neuron.LIFNode)]
    assert not lifs and torch.equal(scores(model, x), expected)
    assert expected.std() > 0


def test_an_order_below_the_steps_is_said_with_what_it_cuts_off(said: Any) -> None:
    options = {"v_threshold": 0.2}
    lifs = neuron.LIFNode(2.0, **options), neuron.IFNode(**options)
    model = chain(*lifs, neuron.ParametricLIFNode(4.0, v_reset=None, **options))
    long, x = deepcopy(model), torch.rand(T, 4, 6, dtype=torch.double) * 2
    convert(model, reset="keep", order=5)
    cut = [one.cut_off for one in model.mfp_conversion.swapped]
    assert cut == pytest.approx([0.5**5, 1.0, 0.75**5], rel=1e-5)
    assert "'1', 3.1 % of its past cut off, '3', 1e+02 % of its past cut off" in said.text
    assert torch.equal(scores(model, x)[:5], scores(long, x)[:5])
    assert not torch.equal(scores(model, x), scores(long, x))
    kinds = [describe_neuron(model[i]).reset.kind for i in (1, 3, 5)]
    assert kinds == ["zero", "zero", "subtract"]


def test_a_reset_is_dropped_unless_it_is_to_be_kept(said: Any) -> None:
    model = convert(chain(neuron.LIFNode(v_reset=-0.5), neuron.IFNode(v_reset=None)))
    assert [describe_neuron(model[i]).reset for i in (1, 3)] == [None, None]
    assert said.text.count("the reset of '1' (LIFNode), '3' (IFNode) was dropped") == 1
    model = convert(chain(neuron.LIFNode(v_reset=-0.5)), reset="zero", order=4)
    assert describe_neuron(model[1]).reset.rest == -0.5
    model = convert(chain(neuron.LIFNode(v_reset=-0.5)), reset="feedback", order=4)
    assert model[1].feedback.taps.shape == (3,)


def test_the_neuron_of_plain_torch_keeps_resets_that_it_has() -> None:
    x = torch.rand(T, 4, 6, dtype=torch.double) * 2
    for v_reset in (None, 0.0):
        model = chain(neuron.LIFNode(3.0, v_threshold=0.3, v_reset=v_reset, step_mode="m"))
        expected = scores(model, x)
        convert(model, reset="keep", to=MFP)
        assert torch.equal(model(x), expected) and expected.any()
    with pytest.raises(ValueError, match=r"counts from 0, that of this neuron from -0\.5"):
        convert(chain(neuron.LIFNode(v_reset=-0.5, step_mode="m")), reset="keep", to=MFP)
