"""MFPNode in every zoo model that takes a neuron class: build, forward, backward, reset, a new batch size."""

import importlib

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from mfp_neurons import MFPNode
from tests.spikingjelly.common import V2, only_v2

COMMON = {"spiking_neuron": MFPNode, "v_threshold": 0.1, "num_classes": 10}
SMALL = {**COMMON, "T": 2, "in_channels": 1}


def zoo(module: str, name: str, **arguments) -> nn.Module:
    arguments.setdefault("surrogate_function", surrogate.ATan())
    model = importlib.import_module(f"spikingjelly.activation_based.model.{module}")
    return getattr(model, name)(**arguments)


def parametric(name: str, channels: int) -> nn.Module:
    options = {"v_threshold": 0.1, "tau": 2.0, "detach_reset": True}
    return zoo("parametric_lif_net", name, channels=channels, spiking_neuron=MFPNode, **options)


def spiking_vgg(batch_norm: bool) -> nn.Module:
    """Its 100 million classifier weights stay on the meta device; small ones take their place."""
    norm = layer.BatchNorm2d if batch_norm else None
    with torch.device("meta"):
        net = zoo("spiking_vgg", "SpikingVGG", cfg=[4, "M", 512, "M"], batch_norm=batch_norm, norm_layer=norm,
                  init_weights=False, decay_input=True, v_reset=None, **COMMON)  # fmt: skip
        net.avgpool = layer.AdaptiveAvgPool2d((1, 1))
        linears = [i for i, module in enumerate(net.classifier) if isinstance(module, nn.Linear)]
        for i, (inputs, outputs) in zip(linears, [(512, 8), (8, 8), (8, 10)], strict=True):
            net.classifier[i] = layer.Linear(inputs, outputs)
    net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            module.reset_parameters()
    return net


OLD_STYLE = {  # both versions: neurons are built without step_mode
    "MNISTNet": (lambda: parametric("MNISTNet", 4), (2, 2, 1, 28, 28)),
    "FashionMNISTNet": (lambda: parametric("FashionMNISTNet", 4), (2, 2, 1, 28, 28)),
    "NMNISTNet": (lambda: parametric("NMNISTNet", 4), (2, 2, 2, 34, 34)),
    "CIFAR10Net": (lambda: parametric("CIFAR10Net", 4), (2, 2, 3, 32, 32)),
    "CIFAR10DVSNet": (lambda: parametric("CIFAR10DVSNet", 2), (2, 2, 2, 128, 128)),
    "DVSGestureNet": (lambda: parametric("DVSGestureNet", 2), (2, 2, 2, 128, 128)),
    "SpikingVGG": (lambda: spiking_vgg(False), (2, 2, 3, 32, 32)),
    "SpikingVGG with batch norm": (lambda: spiking_vgg(True), (2, 2, 3, 32, 32)),
    "spiking_resnet18": (lambda: zoo("spiking_resnet", "spiking_resnet18", **COMMON), (2, 2, 3, 16, 16)),
    "sew_resnet18": (lambda: zoo("sew_resnet", "sew_resnet18", cnf="ADD", **COMMON), (2, 2, 3, 16, 16)),
    "sew_resnet AND": (
        lambda: zoo("sew_resnet", "SEWResNet", cnf="AND", layers=[1, 1, 1, 1], width_per_group=8,
                    block=importlib.import_module("spikingjelly.activation_based.model.sew_resnet").Bottleneck,
                    **COMMON),
        (2, 2, 3, 16, 16),
    ),
}  # fmt: skip

RESNET = {"layers": (1, 1, 1, 1), "base_channels": 8, **SMALL}
NEW_STYLE = {  # 2.0.0: neurons are built with step_mode="m"
    "MSResNet": (lambda: zoo("ms_resnet", "MSResNet", **RESNET), (2, 2, 1, 28, 28)),
    "MaxResNet": (lambda: zoo("ms_resnet", "MaxResNet", **RESNET), (2, 2, 1, 28, 28)),
    "Spikformer": (
        lambda: zoo("spikformer", "Spikformer", img_size_h=16, img_size_w=16, patch_size=4, embed_dims=16,
                    num_heads=2, depths=1, **SMALL),
        (2, 2, 1, 16, 16),
    ),
    "QKFormer": (
        lambda: zoo("qkformer", "QKFormer", embed_dims=16, num_heads=(1, 2, 2), depths=(1, 1, 1), **SMALL),
        (2, 2, 1, 28, 28),
    ),
    "MaxFormer": (
        lambda: zoo("maxformer", "MaxFormer", embed_dims=16, depths=(1, 1, 1), **SMALL),
        (2, 2, 1, 28, 28),
    ),
    "MaxFormer for CIFAR": (
        lambda: zoo("maxformer", "MaxFormer", embed_dims=16, depths=(1, 1, 1), cifar=True, **SMALL),
        (2, 2, 1, 28, 28),
    ),
    "SpikeDrivenTransformer": (
        lambda: zoo("spike_driven_transformer", "SpikeDrivenTransformer", embed_dims=16, num_heads=2,
                    depths=1, **SMALL),
        (2, 2, 1, 28, 28),
    ),
    "MASNN": (
        lambda: zoo("masnn", "MASNN", input_size=(28, 28), channels=(8, 8, 8), fc_hidden=8, reduction_c=4,
                    **{**SMALL, "T": 5}),
        (5, 2, 1, 28, 28),
    ),
    "AttMSResNet": (lambda: zoo("masnn", "AttMSResNet", **RESNET), (2, 2, 1, 32, 32)),
}  # fmt: skip


def check(net: nn.Module, x: torch.Tensor) -> None:
    nodes = [module for module in net.modules() if isinstance(module, MFPNode)]
    assert nodes and not any(isinstance(m, neuron.LIFNode) for m in net.modules())
    out = net(x)
    out.square().mean().backward()
    assert torch.isfinite(out).all() and out.shape[-1] in (10, 11)
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert sum(bool(g.any()) for g in gradients) > len(gradients) / 2  # it trains: signal reaches the weights
    functional.reset_net(net)
    assert all(node.v == 0.0 for node in nodes)

    net.eval()
    with torch.no_grad():
        larger = torch.cat([x, x[:, :1]], 1)
        fresh = net(larger)
        functional.reset_net(net)
        net(x)
        assert torch.equal(net(larger), fresh)  # a new batch size without a reset starts from zero
        functional.reset_net(net)
        assert torch.equal(net(larger), fresh)


@pytest.mark.parametrize("name", OLD_STYLE)
def test_models_that_leave_the_step_mode_to_the_caller(name):
    build, shape = OLD_STYLE[name]
    net = build()
    functional.set_step_mode(net, "m")
    check(net, torch.rand(shape))


@only_v2
@pytest.mark.parametrize("name", NEW_STYLE)
def test_models_that_ask_for_multi_step_neurons(name):
    build, shape = NEW_STYLE[name]
    check(build(), torch.rand(shape))


@only_v2
def test_the_online_learning_vgg_step_by_step():
    net = zoo("spiking_vggws_ottt", "OTTTSpikingVGG", cfg=[4, "M", 512], **COMMON)
    x = torch.rand(2, 3, 32, 32)
    for _ in range(2):
        net(x).square().mean().backward()
        functional.detach_net(net)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    functional.reset_net(net)
    net.eval()
    fresh = net(torch.cat([x, x]))
    functional.reset_net(net)
    net(x)
    assert torch.equal(net(torch.cat([x, x])), fresh)


@pytest.mark.parametrize(
    "options",
    [{"learnable": True}, {"order": 2}, {"kernel": "fir", "order": 2, "kernel_bits": "pow2"}, {"tau": 4}],
    ids=str,
)
def test_a_model_hands_our_own_options_on(options):
    net = zoo(
        "parametric_lif_net", "MNISTNet", channels=4, spiking_neuron=MFPNode, v_threshold=0.1, **options
    )
    functional.set_step_mode(net, "m")
    check(net, torch.rand(2, 2, 1, 28, 28))


def test_channels_last_models_give_the_same_spikes():
    net = parametric("MNISTNet", 4).eval()
    functional.set_step_mode(net, "m")
    x = torch.rand(2, 2, 1, 28, 28)
    expected = net(x)
    functional.reset_net(net)
    assert torch.allclose(net.to(memory_format=torch.channels_last)(x), expected, atol=1e-5)


@pytest.mark.skipif(V2, reason="2.0.0 has no set_backend")
def test_a_model_with_an_unavailable_backend_keeps_running():
    net = parametric("MNISTNet", 4)
    functional.set_step_mode(net, "m")
    functional.set_backend(net, "lava")
    check(net, torch.rand(2, 2, 1, 28, 28))
