"""SpikingJelly's layers go on doing what they do when their weights are quantized."""

import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer, monitor, neuron
from spikingjelly.activation_based.model import parametric_lif_net
from torch import Tensor, nn

from mfp_neurons.quantize import materialize, quantize_weights

widths = pytest.mark.parametrize("bits", [1, 1.58, 2, 8])


def layers() -> list[tuple[nn.Module, Tensor]]:
    """Each layer of SpikingJelly that has a weight, with an input [T, N, *]."""
    return [
        (layer.Linear(6, 5), torch.randn(3, 2, 6)),
        (layer.Conv1d(2, 4, 3), torch.randn(3, 2, 2, 7)),
        (layer.Conv2d(2, 4, 3, padding=1), torch.randn(3, 2, 2, 5, 5)),
        (layer.Conv3d(2, 4, 2), torch.randn(3, 2, 2, 3, 3, 3)),
        (layer.ConvTranspose1d(2, 3, 2), torch.randn(3, 2, 2, 5)),
        (layer.ConvTranspose2d(2, 4, 3, 2, groups=2), torch.randn(3, 2, 2, 3, 3)),
    ]


def network() -> nn.Sequential:
    model = nn.Sequential(
        layer.Conv2d(1, 4, 3),
        neuron.LIFNode(),
        layer.Flatten(),
        layer.Linear(36, 8),
        neuron.LIFNode(),
        layer.Linear(8, 2),
    )
    functional.set_step_mode(model, "m")
    return model


@widths
def test_both_step_modes_use_the_quantized_weight(bits: float) -> None:
    for module, x in layers():
        before = type(module)
        quantize_weights(module, bits)
        plain = materialize(module)
        assert type(plain) is before and isinstance(module, before)
        steps = torch.stack([module(step) for step in x])
        module.step_mode = plain.step_mode = "m"
        torch.testing.assert_close(module(x), steps)
        assert torch.equal(module(x), plain(x))
        with torch.no_grad():
            plain.weight.copy_(module.weight)
        assert not torch.allclose(plain(x), steps)


@widths
def test_monitors_find_quantized_layers(bits: float) -> None:
    model = quantize_weights(network(), bits)
    seen = monitor.OutputMonitor(model, instance=(layer.Conv2d, layer.Linear))
    model(torch.randn(4, 2, 1, 5, 5))
    assert [tuple(y.shape) for y in seen.records] == [(4, 2, 4, 3, 3), (4, 2, 8), (4, 2, 2)]


@widths
def test_a_network_trains_is_reset_copied_and_run_step_by_step(bits: float) -> None:
    model, x = quantize_weights(network(), bits), torch.randn(4, 2, 1, 5, 5)
    whole = model(x)
    whole.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    functional.reset_net(model)
    copied = copy.deepcopy(model)
    functional.set_step_mode(copied, "s")
    torch.testing.assert_close(torch.stack([copied(step) for step in x]), whole)


def test_a_zoo_model_is_quantized_but_for_its_ends() -> None:
    model = quantize_weights(parametric_lif_net.FashionMNISTNet(8, neuron.IFNode), 1)
    functional.set_step_mode(model, "m")
    found = [m.weight_bits for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert found[0] == found[-1] == 8 and set(found[1:-1]) == {1}
    model(torch.randn(2, 2, 1, 28, 28)).sum().backward()


@pytest.mark.parametrize("name", ["WSConv2d", "WSLinear"])
def test_layers_that_standardize_their_weight_are_refused(name: str) -> None:
    if not hasattr(layer, name):
        pytest.skip(f"this SpikingJelly has no {name}")
    odd = getattr(layer, name)(2, 2, *[3] * (name == "WSConv2d"))
    with pytest.raises(ValueError, match=f"{name} uses its weight"):
        quantize_weights(nn.Sequential(odd, nn.Linear(2, 2)), 1)
