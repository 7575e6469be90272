"""SpikingJelly's own example models with our neurons in them, for ``network.architecture`` of a config.

Each is built by SpikingJelly's constructor with LIFNode, whose places our neurons then take. How a builder is
called: :mod:`mfp_neurons.train.architectures`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mfp_neurons import MFP
from mfp_neurons._checks import require

_PACKAGE = "spikingjelly.activation_based"
Neurons = Callable[[int | None], nn.Module]


class FromRest(nn.Module):
    """A SpikingJelly network over whole sequences that starts every call without a past."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        _jelly("functional").set_step_mode(network, "m")

    def forward(self, x_seq: Tensor) -> Tensor:
        """Scores [T, N, classes] of a sequence [T, N, *]; [1, N, classes] if the network averages itself."""
        scores: Tensor = self.network(x_seq)
        _jelly("functional").reset_net(self.network)
        return scores if scores.dim() == 3 else scores.unsqueeze(0)


def fashion_mnist_net(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    channels: int = 128,
    dropout: float = 0.5,
) -> nn.Module:
    """FashionMNISTNet of ``parametric_lif_net``: images [1, 28, 28], ten classes.

    Raises:
        ValueError: ``features`` or ``classes`` are others than these.
    """
    _check(
        features == (1, 28, 28) and classes == 10, "FashionMNISTNet", "[1, 28, 28] and 10", features, classes
    )
    net = _model("parametric_lif_net").FashionMNISTNet(channels, spiking_neuron=_jelly("neuron").LIFNode)
    return FromRest(swap(_with_dropout(net, dropout), neurons))


def nmnist_net(
    features: tuple[int, ...],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    channels: int = 128,
    dropout: float = 0.5,
) -> nn.Module:
    """NMNISTNet of ``parametric_lif_net``: events [2, 34, 34], ten classes.

    Raises:
        ValueError: ``features`` or ``classes`` are others than these.
    """
    _check(features == (2, 34, 34) and classes == 10, "NMNISTNet", "[2, 34, 34] and 10", features, classes)
    net = _model("parametric_lif_net").NMNISTNet(channels, spiking_neuron=_jelly("neuron").LIFNode)
    return FromRest(swap(_with_dropout(net, dropout), neurons))


def swap(net: nn.Module, neurons: Neurons, shared: str = "") -> nn.Module:
    """Puts our neurons where ``net`` has LIFNodes, in module order and in place.

    A neuron has as many channels as the convolution, linear layer or batch norm before it in module order;
    None, one kernel for all, where the last part of its path is ``shared``.
    """
    old = _jelly("neuron").LIFNode
    channels = None
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
    kernel = neuron.kernel
    node: Any = node_class(
        decay_input=False,
        v_threshold=1.0,
        surrogate_function=neuron.surrogate,
        step_mode="m",
        kernel=kernel.kind,
        order=kernel.order,
        time_steps=kernel.time_steps,
    )
    node.kernel = kernel  # decay, channels and grid of its taps
    node.v_threshold = neuron.v_threshold
    made: nn.Module = node
    return made


def _with_dropout(net: nn.Module, dropout: float) -> nn.Module:
    for module in net.modules():
        if isinstance(module, _jelly("layer").Dropout):
            module.p = dropout
    return net


def _check(right: bool, name: str, accepted: str, features: tuple[int, ...], classes: int) -> None:
    if not right:
        raise ValueError(f"{name} reads steps of {accepted} classes, got {list(features)} and {classes}")


def _jelly(module: str) -> Any:
    return require(f"{_PACKAGE}.{module}", "spikingjelly")


def _model(module: str) -> Any:
    return _jelly(f"model.{module}")
