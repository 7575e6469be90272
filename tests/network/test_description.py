"""A description holds what the model computes with, exactly, and one layer for each function."""

import pytest
import torch
from torch import nn

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.deploy import LoweringError
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.network import NetworkError, describe
from mfp_neurons.network.description import BatchNorm, Convolution, Linear, Neurons, Pool
from mfp_neurons.nir import NIRError, to_nir
from mfp_neurons.quantize import codes
from tests.deploy.lowering import Do, Each, events, neuron, norm, prepared

X = events(2, 6, 6).float()


def convolutional() -> nn.Module:
    first = Each(nn.Conv2d(2, 4, 3, padding="same"), norm(nn.BatchNorm2d, 4), nn.MaxPool2d(2))
    model = Do(lambda x, a, fire, out: out(fire(a(x)).flatten(2)).mean(0), first, neuron(), nn.Linear(36, 3))
    return prepared(model, bits=1).eval()


def test_a_printed_description_has_a_line_for_each_layer() -> None:
    lines = [" ".join(line.split()) for line in str(describe(convolutional(), X)).splitlines()]
    assert lines == [
        "T = 4 steps",
        "# layer kind shape reads holds",
        "0 input Input [2, 6, 6] spikes",
        "1 layers.0.0 Convolution [4, 6, 6] 0 4x2x3x3 codes of 8 bits and a bias",
        "2 layers.0.1 BatchNorm [4, 6, 6] 1 4 means and variances",
        "3 layers.0.2 Pool [4, 3, 3] 2 largest of 2x2 every 2x2",
        "4 layers.1 Neurons [4, 3, 3] 3 3 taps, u >= 0.3",
        "5 layers.2 Linear [3] 4 3x36 codes of 8 bits and a bias",
        "output: mean of 5",
    ]


def test_layers_hold_the_numbers_of_the_model() -> None:
    model = convolutional()
    _, conv, batch_norm, pool, fire, linear = describe(model, X).layers
    assert isinstance(conv, Convolution) and isinstance(linear, Linear) and isinstance(pool, Pool)
    assert isinstance(batch_norm, BatchNorm) and isinstance(fire, Neurons)
    for layer, module in ((conv, model.layers[0][0]), (linear, model.layers[2])):
        exact = codes(module)
        assert layer.weights.codes is not None and torch.equal(layer.weights.codes.codes, exact.codes)
        assert torch.equal(layer.weights.values(), exact.codes * exact.scale)
        assert torch.equal(layer.bias, module.bias)
    assert torch.equal(batch_norm.var, model.layers[0][1].running_var) and not batch_norm.of_places
    assert (conv.padding, pool.largest, pool.size) == ((1, 1), True, (2, 2))
    assert torch.equal(fire.kernel.taps, model.layers[1].kernel().taps)
    assert (fire.threshold.item(), fire.strict) == (0.3, False)
    # a flattening is no layer: it is how the linear layer reads the neurons
    assert [len(source.dims) for source in linear.sources] == [1] and fire.shape == (4, 3, 3)


def test_training_changes_no_description() -> None:
    model = nn.Sequential(nn.Linear(6, 4), MFP(0.5, learnable=True), nn.BatchNorm1d(4))[:2]
    network = describe(model, torch.zeros(3, 1, 6))
    before = str(network)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert str(network) == before
    linear, fire = network.layers[1:]
    assert not (linear.bias == model[0].bias).any() and not (linear.weights.values() == model[0].weight).any()
    assert fire.kernel.decay.item() == 0.5 != model[1].kernel.decay.item()


def test_steps_of_a_loop_and_equal_calls_are_one_layer() -> None:
    def forward(x, a, n):
        return torch.stack([2 * a(step) for step in x]) + n(a(x)) + n(a(x))

    network = describe(Do(forward, nn.Linear(6, 6), neuron()), torch.rand(4, 2, 6))
    kinds = [layer.kind for layer in network.layers]
    assert kinds == ["Input", "Linear", "Affine", "Neurons", "Add", "Add"]


def test_what_nobody_reads_is_left_out() -> None:
    model = Do(lambda x, a, n: (n(a(x)), a(n(x)))[0], nn.Linear(6, 6), neuron())
    assert [layer.kind for layer in describe(model, torch.rand(4, 2, 6)).layers] == [
        "Input",
        "Linear",
        "Neurons",
    ]


def test_several_outputs_are_described_and_lowered_one_by_one() -> None:
    model = quantize_weights(Do(lambda x, a, n: (n(a(x)), a(x).mean(0)), nn.Linear(6, 6), neuron()))
    network = describe(model, torch.rand(4, 2, 6))
    assert [(output.form, output.source.layer) for output in network.outputs] == [
        ("every step", 2),
        ("mean", 1),
    ]
    graph = lower_graph(model, torch.rand(4, 2, 6))
    assert [(head.name, head.reduce) for head in graph.heads] == [("layers.1", "none"), ("layers.0", "mean")]


def test_what_cannot_be_read_ends_a_description_that_the_error_holds() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    with pytest.raises(
        NetworkError, match=r"'1' \(ReLU\) calls relu, which no layer of a network is"
    ) as caught:
        describe(model, torch.rand(4, 2, 6))
    assert caught.value.description is not None
    assert [layer.kind for layer in caught.value.description.layers] == ["Input", "Linear", "Unreadable"]


def test_what_an_export_cannot_say_comes_before_what_cannot_be_read_behind_it() -> None:
    model = nn.Sequential(MFP(kernel="matrix", time_steps=4), nn.ReLU())
    with pytest.raises(NIRError, match=r"'0' \(MFP\) has a kernel of its own for every step"):
        to_nir(model, torch.rand(4, 2, 6))
    with pytest.raises(LoweringError, match=r"'0' \(MFP\) has real taps"):
        deploy.lower(nn.Sequential(MFP(0.9), nn.ReLU()), torch.rand(4, 2, 6))
