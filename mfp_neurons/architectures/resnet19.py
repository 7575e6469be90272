"""ResNet-19, a residual network that many papers use for CIFAR, memory-free and with weights of 1 bit.

The shape is that of tdBN (arXiv 2011.05280): a stem of 3 x 3, three stages of 3, 3 and 2 basic blocks with
128, 256 and 512 channels, maps halved by the first block of the second and the third, average pool, and two
linear layers of 256 units and the classes: 19 layers without the shortcuts.

A block is norm(conv(neuron(norm(conv(x))))) plus its shortcut, and the sum of these two currents drives its
second neuron: nothing but spikes leaves a block. The shortcut is x itself, the spikes of the block before, or
a 1 x 1 convolution of it with a batch norm where the shape changes.
"""

from torch import Tensor, nn

from mfp_neurons.quantize import quantize_weights

from .layers import Neurons, PerStep, conv, linear, memory_free, orders_of

STAGES = ((1, 3, 1), (2, 3, 2), (4, 2, 2))  # (channels over width, blocks, stride of the first)
LAYERS = 1 + 2 * sum(blocks for _, blocks, _ in STAGES) + 1  # of neurons


class Block(nn.Module):
    """Two convolutions around a neuron; a shortcut joins before the second neuron."""

    def __init__(self, inputs: int, outputs: int, stride: int, neurons: Neurons) -> None:
        super().__init__()
        self.first, self.first_neuron = conv(inputs, outputs, stride=stride), neurons(outputs)
        self.second = conv(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride)
        self.second_neuron = neurons(outputs)

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes [T, N, C, H, W] of spikes [T, N, C_in, H * stride, W * stride]."""
        current = self.second(self.first_neuron(self.first(spikes)))
        fired: Tensor = self.second_neuron(current + self.shortcut(spikes))
        return fired


class ResNet19(nn.Module):
    """Scores [T, N, classes] of images or frames [T, N, C, H, W]."""

    def __init__(self, in_channels: int, classes: int, width: int, neurons: Neurons) -> None:
        super().__init__()
        self.stem, self.stem_neuron = conv(in_channels, width), neurons(width)
        blocks: list[Block] = []
        inputs = width
        for factor, count, stride in STAGES:
            for index in range(count):
                blocks.append(Block(inputs, factor * width, stride if index == 0 else 1, neurons))
                inputs = factor * width
        self.blocks = nn.Sequential(*blocks)
        self.pool = PerStep(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.hidden, self.hidden_neuron = linear(inputs, 2 * width), neurons(2 * width)
        self.readout = nn.Linear(2 * width, classes)

    def forward(self, x_seq: Tensor) -> Tensor:
        spikes = self.blocks(self.stem_neuron(self.stem(x_seq)))
        scores: Tensor = self.readout(self.hidden_neuron(self.hidden(self.pool(spikes))))
        return scores


def mfp_qsnn_resnet19(
    in_channels: int = 3,
    classes: int = 10,
    *,
    width: int = 128,
    order: int | list[int] = 2,
    weight_bits: float = 1,
) -> ResNet19:
    """ResNet-19 with quantized weights (8 bits in the first and last layer) and memory-free neurons.

    Args:
        in_channels: channels of the input [T, N, in_channels, H, W].
        classes: number of scores at each step.
        width: channels of the first stage; the others have 2 and 4 times as many. 128 is usual.
        order: power-of-two taps of a neuron: one number, or one for each of the 18 layers of neurons from the
            input on. An image that is shown at every step needs 1 in the first.
        weight_bits: 1, 1.58 or 2 to 8.

    Returns:
        A module of [T, N, in_channels, H, W] to scores [T, N, classes].

    Raises:
        ValueError: ``order`` has another number of items, or ``weight_bits`` is none of these.

    >>> import torch
    >>> net = mfp_qsnn_resnet19(1, 10, width=4)
    >>> net(torch.rand(2, 1, 1, 8, 8)).shape
    torch.Size([2, 1, 10])
    """
    neurons = memory_free(orders_of("ResNet-19", order, LAYERS))
    return quantize_weights(ResNet19(in_channels, classes, width, neurons), weight_bits)


def build(
    features: tuple[int, ...], classes: int, time_steps: int, neurons: Neurons, *, width: int = 128
) -> nn.Module:
    """ResNet-19 for ``network.architecture`` of a config; see :mod:`mfp_neurons.architectures`.

    Raises:
        ValueError: ``features`` are no [C, H, W].
    """
    if len(features) != 3:
        raise ValueError(f"ResNet-19 reads steps of [C, H, W], got {list(features)}")
    return ResNet19(features[0], classes, width, neurons)
