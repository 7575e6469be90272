"""SpikingJelly's own example models with our neurons in them, for ``network.architecture`` of a config.

Each is built by SpikingJelly's constructor with LIFNode, whose places our neurons then take. How a builder is
called: :mod:`mfp_neurons.architectures`.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mfp_neurons._checks import require
from mfp_neurons.neuron import MFP

from .layers import Neurons, StillImageSequential, check_maps

_PACKAGE = "spikingjelly.activation_based"


class FromRest(nn.Module):
    """A network or neuron of SpikingJelly over whole sequences that starts every call without a past."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        _jelly("functional").set_step_mode(network, "m")

    def forward(self, x_seq: Tensor) -> Tensor:
        """What the network makes of a sequence [T, N, *]; of one that averages over time, [1, N, classes]."""
        out: Tensor = self.network(x_seq)
        _jelly("functional").reset_net(self.network)
        return out if out.dim() > 2 else out.unsqueeze(0)


def fashion_mnist_net(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    channels: int = 128,
    dropout: float = 0.5,
    pool: str = "max",
) -> nn.Module:
    """FashionMNISTNet of ``parametric_lif_net``: images [1, 28, 28], ten classes.

    ``pool`` "average" averages spikes where it takes their maximum.

    Raises:
        ValueError: ``features`` or ``classes`` are others than these, or ``pool`` is neither.
    """
    _check(
        features == (1, 28, 28) and classes == 10, "FashionMNISTNet", "[1, 28, 28] and 10", features, classes
    )
    net = _model("parametric_lif_net").FashionMNISTNet(channels, spiking_neuron=_lif())
    swap(_with_pool(_with_dropout(net, dropout), pool), neurons)
    net.conv_fc = StillImageSequential(*net.conv_fc)
    return FromRest(net)


def nmnist_net(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    channels: int = 128,
    dropout: float = 0.5,
    pool: str = "max",
) -> nn.Module:
    """NMNISTNet of ``parametric_lif_net``: events [2, 34, 34], ten classes.

    ``pool`` "average" averages spikes where it takes their maximum.

    Raises:
        ValueError: ``features`` or ``classes`` are others than these, or ``pool`` is neither.
    """
    _check(features == (2, 34, 34) and classes == 10, "NMNISTNet", "[2, 34, 34] and 10", features, classes)
    net = _model("parametric_lif_net").NMNISTNet(channels, spiking_neuron=_lif())
    return FromRest(swap(_with_pool(_with_dropout(net, dropout), pool), neurons))


def spiking_vgg11_bn(features: tuple[int, ...], classes: int, time_steps: int, neurons: Neurons) -> nn.Module:
    """VGG-11 with batch norm: images [C, H, W] of 32 x 32 or more, 128 million weights.

    Raises:
        ValueError: ``features`` are smaller.
    """
    check_maps("VGG-11", features, 32)
    net = _model("spiking_vgg").spiking_vgg11_bn(spiking_neuron=_lif(), num_classes=classes)
    net.features[0] = _for_channels(net.features[0], features[0])
    return FromRest(swap(net, neurons))


def spiking_resnet18(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    layers: Sequence[int] = (2, 2, 2, 2),
) -> nn.Module:
    """Spiking ResNet-18, whose residuals add currents; ``layers``: blocks of each of the four stages.

    Raises:
        ValueError: ``features`` are no [C, H, W].
    """
    check_maps("Spiking ResNet-18", features, 1)
    model = _model("spiking_resnet")
    net = model.SpikingResNet(model.BasicBlock, list(layers), num_classes=classes, spiking_neuron=_lif())
    net.conv1 = _for_channels(net.conv1, features[0])
    return FromRest(swap(net, neurons))


def sew_resnet18(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    layers: Sequence[int] = (2, 2, 2, 2),
) -> nn.Module:
    """SEW-ResNet-18, whose residuals ADD spikes; ``layers``: blocks of each of the four stages.

    Raises:
        ValueError: ``features`` are no [C, H, W].
    """
    check_maps("SEW-ResNet-18", features, 1)
    model = _model("sew_resnet")
    net = model.SEWResNet(
        model.BasicBlock, list(layers), num_classes=classes, cnf="ADD", spiking_neuron=_lif()
    )
    net.conv1 = _for_channels(net.conv1, features[0])
    return FromRest(swap(net, neurons))


def ms_resnet18(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    layers: Sequence[int] = (2, 2, 2, 2),
    base_channels: int = 64,
) -> nn.Module:
    """MS-ResNet-18 of SpikingJelly 2: convolutions between neurons, currents from block to block.

    Its shortcuts convolve currents where the shape changes; an integer network rounds these to whole numbers.

    Raises:
        ValueError: ``features`` are no [C, H, W].
    """
    check_maps("MS-ResNet-18", features, 1)
    net = _model("ms_resnet").MSResNet(
        T=time_steps,
        in_channels=features[0],
        num_classes=classes,
        layers=tuple(layers),
        base_channels=base_channels,
        spiking_neuron=_lif(),
    )
    return FromRest(swap(net, neurons))


def spikformer(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    patch_size: int = 4,
    embed_dims: int = 384,
    num_heads: int = 12,
    depths: int = 4,
) -> nn.Module:
    """Spikformer of SpikingJelly 2: attention between spikes, whose products are whole numbers.

    Raises:
        ValueError: ``features`` are no [C, H, W], or ``patch_size`` does not divide them.
    """
    check_maps("Spikformer", features, patch_size)
    net = _model("spikformer").Spikformer(
        T=time_steps,
        in_channels=features[0],
        img_size_h=features[1],
        img_size_w=features[2],
        patch_size=patch_size,
        num_classes=classes,
        embed_dims=embed_dims,
        num_heads=num_heads,
        depths=depths,
        spiking_neuron=_lif(),
    )
    return FromRest(swap(net, neurons, shared="attn_lif"))  # its channels are spread over heads


def swap(net: nn.Module, neurons: Neurons, shared: str = "") -> nn.Module:
    """Puts our neurons where ``net`` has LIFNodes, in module order and in place.

    A neuron has as many channels as the convolution, linear layer or batch norm before it in module order;
    None, one kernel for all, where the last part of its path is ``shared``.
    """
    old = _lif()
    channels = None
    # a copy of the list: modules are replaced while it is walked
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            channels = module.num_features
        elif isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            channels = module.weight.shape[0]
        elif isinstance(module, old):
            own = None if shared and path.rpartition(".")[2] == shared else channels
            net.set_submodule(path, as_node(neurons(own)))
    return net


def as_node(neuron: nn.Module) -> nn.Module:
    """An MFP as the MFPNode that SpikingJelly's users know; any other neuron as it is."""
    if not isinstance(neuron, MFP):
        return neuron
    node_class = require("mfp_neurons.spikingjelly", "spikingjelly").MFPNode
    kernel, feedback = neuron.kernel, neuron.feedback
    own_steps = feedback.order(kernel) if feedback.kind in ("subtract", "feedback") else None
    node: Any = node_class(
        decay_input=False,
        v_threshold=1.0,
        surrogate_function=neuron.surrogate,
        detach_reset=feedback.detached,
        step_mode="m",
        kernel=kernel.kind,
        reset=feedback.kind,
        reset_order=own_steps,
        **kernel.options(),
    )
    # the parameters of the MFP themselves (decay, taps, channels, grid), in place of those just made
    node.kernel, node.feedback = kernel, feedback
    node.v_threshold = neuron.v_threshold
    return node  # type: ignore[no-any-return]


def _with_dropout(net: nn.Module, dropout: float) -> nn.Module:
    for module in net.modules():
        if isinstance(module, _jelly("layer").Dropout):
            module.p = dropout
    return net


def _with_pool(net: nn.Module, pool: str) -> nn.Module:
    if pool not in ("max", "average"):
        raise ValueError(f"pool must be 'max' or 'average', got {pool!r}")
    layers: Any = _jelly("layer")
    for path, module in list(net.named_modules()) if pool == "average" else []:
        if isinstance(module, layers.MaxPool2d):
            net.set_submodule(path, layers.AvgPool2d(module.kernel_size, module.stride, module.padding))
    return net


def _check(right: bool, name: str, accepted: str, features: tuple[int, ...], classes: int) -> None:
    if not right:
        raise ValueError(f"{name} reads steps of {accepted} classes, got {list(features)} and {classes}")


def _for_channels(stem: Any, channels: int) -> nn.Module:
    """The first convolution of a model for color images, for so many channels."""
    return _jelly("layer").Conv2d(  # type: ignore[no-any-return]
        channels, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=stem.bias is not None
    )


def _lif() -> Any:
    return _jelly("neuron").LIFNode


def _jelly(module: str) -> Any:
    return require(f"{_PACKAGE}.{module}", "spikingjelly")


def _model(module: str) -> Any:
    return _jelly(f"model.{module}")
