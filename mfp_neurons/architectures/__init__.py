"""Networks by name: what ``network.architecture`` of a training config can be, and how each is built.

A builder is a function

    build(features, classes, time_steps, neurons, **options) -> nn.Module

``features`` is the shape of one step of one sample, ``options`` are the config's ``network.options``. For
every layer of neurons, from the input on, the builder calls ``neurons(num_channels)``, which gives the next
one; None stands for channels that cannot have kernels of their own. The module maps [T, N, *features] to
scores [T, N, classes], or [1, N, classes] where it averages over time itself, keeps nothing from one call to
the next, and has float weights, which :func:`mfp_neurons.train.network.build` quantizes.
"""

from collections.abc import Callable

from torch import nn

from . import resnet19, snntorch_models, spikingjelly_models, vggsnn

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "resnet19": resnet19.build,
    "vggsnn": vggsnn.build,
    "fashion-mnist-net": spikingjelly_models.fashion_mnist_net,
    "nmnist-net": spikingjelly_models.nmnist_net,
    "spiking-vgg11-bn": spikingjelly_models.spiking_vgg11_bn,
    "spiking-resnet18": spikingjelly_models.spiking_resnet18,
    "sew-resnet18": spikingjelly_models.sew_resnet18,
    "ms-resnet18": spikingjelly_models.ms_resnet18,
    "spikformer": spikingjelly_models.spikformer,
    "snntorch-fcn": snntorch_models.fully_connected,
    "snntorch-csnn": snntorch_models.convolutional,
    "snntorch-events": snntorch_models.events,
}
