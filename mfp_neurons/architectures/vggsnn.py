"""VGGSNN, a network that many papers use for event cameras, memory-free and with weights of 1 bit.

The shape is that of TET (arXiv 2202.11946): 3 x 3 convolutions of 64 and 128 channels, a pool, 256 and 256,
a pool, 512 and 512, a pool, 512 and 512, a pool, and one linear layer. Pools are 2 x 2 averages of spikes,
which deployed are counts.
"""

from torch import Tensor, nn

from mfp_neurons.quantize import quantize_weights

from .layers import Neurons, PerStep, check_maps, conv, memory_free, orders_of

STAGES = ((1, 2), (4, 4), (8, 8), (8, 8))  # channels over width, a pool behind each pair
LAYERS = sum(map(len, STAGES))  # of neurons


class VGGSNN(nn.Module):
    """Scores [T, N, classes] of frames [T, N, C, H, W], H and W 16 or more."""

    def __init__(self, features: tuple[int, int, int], classes: int, width: int, neurons: Neurons) -> None:
        super().__init__()
        channels, height, length = features
        layers: list[nn.Module] = []
        for stage in STAGES:
            for factor in stage:
                layers += [conv(channels, factor * width), neurons(factor * width)]
                channels = factor * width
            layers.append(PerStep(nn.AvgPool2d(2)))
            height, length = height // 2, length // 2
        self.features = nn.Sequential(*layers)
        self.readout = nn.Linear(channels * height * length, classes)

    def forward(self, x_seq: Tensor) -> Tensor:
        scores: Tensor = self.readout(self.features(x_seq).flatten(2))
        return scores


def mfp_qsnn_vggsnn(
    features: tuple[int, int, int] = (2, 48, 48),
    classes: int = 10,
    *,
    width: int = 64,
    order: int | list[int] = 4,
    weight_bits: float = 1,
) -> VGGSNN:
    """VGGSNN with quantized weights (8 bits in the first and last layer) and memory-free neurons.

    Args:
        features: [C, H, W] of one frame, H and W 16 or more.
        classes: number of scores at each step.
        width: channels of the first convolution; the last has 8 times as many. 64 is usual.
        order: power-of-two taps of a neuron: one number, or one for each of the 8 layers of neurons from the
            input on.
        weight_bits: 1, 1.58 or 2 to 8.

    Returns:
        A module of [T, N, C, H, W] to scores [T, N, classes].

    Raises:
        ValueError: frames are too small for four pools, ``order`` has another number of items, or
            ``weight_bits`` is none of these.

    >>> import torch
    >>> net = mfp_qsnn_vggsnn((2, 16, 16), width=4)
    >>> net(torch.ones(4, 1, 2, 16, 16)).shape
    torch.Size([4, 1, 10])
    """
    check_maps("VGGSNN", features, 16, "frames")
    neurons = memory_free(orders_of("VGGSNN", order, LAYERS))
    return quantize_weights(VGGSNN(features, classes, width, neurons), weight_bits)


def build(
    features: tuple[int, ...], classes: int, time_steps: int, neurons: Neurons, *, width: int = 64
) -> nn.Module:
    """VGGSNN for ``network.architecture`` of a config; see :mod:`mfp_neurons.architectures`.

    Raises:
        ValueError: ``features`` are no [C, H, W], or too small for four pools.
    """
    check_maps("VGGSNN", features, 16, "frames")
    return VGGSNN(features, classes, width, neurons)  # type: ignore[arg-type]
