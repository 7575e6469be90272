"""Lowering of networks that people use, small: converted, quantized, with statistics as if trained."""

import importlib

import pytest
import torch
from torch import nn

from mfp_neurons import convert, quantize_weights
from mfp_neurons.deploy.graph import Neurons, Sum

from .lowering import Do
from .oracle import Agreement, agree, is_neuron

pytest.importorskip("spikingjelly.activation_based", reason="the 'spikingjelly' extra is not installed")
from spikingjelly.activation_based import functional, layer, neuron, surrogate

T = 3


def zoo(module: str, name: str, **arguments) -> nn.Module:
    """A model of SpikingJelly's zoo with LIF neurons, for sequences."""
    options = {"spiking_neuron": neuron.LIFNode, "surrogate_function": surrogate.ATan(), **arguments}
    model = importlib.import_module(f"spikingjelly.activation_based.model.{module}")
    net = getattr(model, name)(**options)
    functional.set_step_mode(net, "m")
    return net


def mean_over_time(net: nn.Module) -> nn.Module:
    """The zoo's classifiers return every step."""
    return Do(lambda x, net: net(x).mean(0), net)


def memory_free(net: nn.Module, bits: float = 1, **options) -> nn.Module:
    return quantize_weights(convert(net, **{"order": 2, "kernel_bits": "pow2", **options}), bits)


def as_if_trained(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """Batch norms get the statistics of an input and gammas of both signs; thresholds some spikes."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain average
            nn.init.normal_(module.weight, 0.5, 0.8)
            nn.init.normal_(module.bias, 0.2, 0.5)
        if is_neuron(module) and hasattr(module, "v_threshold"):
            module.v_threshold = 0.25
    with torch.no_grad():
        net.train()(x)
    functional.reset_net(net)
    return net.eval()


def image(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def check(net: nn.Module, example: torch.Tensor, top: int = 255) -> Agreement:
    net = as_if_trained(net, example.float() / top)
    seen = agree(net, example, top)
    assert seen.undecided <= seen.spikes // 10_000
    assert all(0 < rate < 1 for rate in seen.rates.values()), seen.rates
    return seen


# --- SpikingJelly's zoo -----------------------------------------------------------------------------------

V2 = hasattr(neuron.BaseNode, "single_step_functional_forward")
CLASSIFIER = {"v_threshold": 0.25, "num_classes": 10}


def parametric(name: str, channels: int, **options) -> nn.Module:
    arguments = {"v_threshold": 1.0, "tau": 2.0, "detach_reset": True}
    return mean_over_time(
        memory_free(zoo("parametric_lif_net", name, channels=channels, **arguments), **options)
    )


def spiking_vgg11_bn() -> nn.Module:
    """Few channels, and one layer in the place of a classifier of 100 million weights."""
    vgg = importlib.import_module("spikingjelly.activation_based.model.spiking_vgg")
    widths = [8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"]
    norms = {"batch_norm": True, "norm_layer": layer.BatchNorm2d, "init_weights": False}
    net = vgg.SpikingVGG(widths, **norms, spiking_neuron=neuron.LIFNode, v_threshold=0.25)
    net.features[0] = layer.Conv2d(3, 8, 3, padding=1)
    net.avgpool, net.classifier = layer.AdaptiveAvgPool2d(1), layer.Linear(64, 10)
    functional.set_step_mode(net, "m")
    return mean_over_time(memory_free(net))


def events(*shape: int) -> torch.Tensor:
    return image(*shape) > 200


ZOO = {
    "MNISTNet": (lambda: parametric("MNISTNet", 4), image(T, 2, 1, 28, 28)),
    "FashionMNISTNet": (lambda: parametric("FashionMNISTNet", 8), image(T, 2, 1, 28, 28)),
    "CIFAR10Net": (lambda: parametric("CIFAR10Net", 4), image(T, 2, 3, 32, 32)),
    "NMNISTNet": (lambda: parametric("NMNISTNet", 4), events(T, 2, 2, 34, 34)),
    "CIFAR10DVSNet": (lambda: parametric("CIFAR10DVSNet", 2), events(T, 1, 2, 128, 128)),
    "DVSGestureNet": (lambda: parametric("DVSGestureNet", 2), events(T, 1, 2, 128, 128)),
    "spiking_vgg11_bn": (spiking_vgg11_bn, image(T, 2, 3, 32, 32)),
    "spiking_resnet18": (
        lambda: mean_over_time(memory_free(zoo("spiking_resnet", "spiking_resnet18", **CLASSIFIER))),
        image(T, 2, 3, 32, 32),
    ),
    "sew_resnet18": (
        lambda: mean_over_time(memory_free(zoo("sew_resnet", "sew_resnet18", cnf="ADD", **CLASSIFIER))),
        image(T, 2, 3, 32, 32),
    ),
}


@pytest.mark.parametrize("name", ZOO)
def test_networks_of_spikingjellys_zoo_agree_with_float64(name):
    make, example = ZOO[name]
    ops = check(make(), example, 1 if example.dtype == torch.bool else 255).graph.ops
    errors = [op.error.max() for op in ops if isinstance(op, Neurons) and op.error.any()]
    if name == "spiking_resnet18":  # residuals of currents have a small error, those of spikes are counted
        assert len(errors) == 8 and max(errors) < 1e-4  # of a threshold of 0.25
    else:
        assert not errors
    if name == "sew_resnet18":
        assert max(op.top for op in ops if isinstance(op, Sum)) == 3  # 1 + 1 of a block, + 1 of the next


@pytest.mark.parametrize(
    "options",
    [
        dict(order=None, kernel_bits=None),
        dict(order=5, kernel_bits="pow2", num_channels="auto", kernel="fir"),
        dict(order=3, kernel_bits=4, learnable=True, bits=1.58),
        dict(order=None, kernel="matrix", time_steps=T, kernel_bits="pow2", bits=4),
        dict(fuse=True),
    ],
    ids=str,
)
def test_kernels_weights_and_fused_norms_of_fashion_mnist_net_agree_with_float64(options):
    check(parametric("FashionMNISTNet", 4, **options), image(T, 2, 1, 28, 28))
