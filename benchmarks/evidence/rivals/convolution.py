"""Networks of convolutions and ReLUs without spikes: over time for streams, over space for still images."""

from collections.abc import Sequence
from itertools import count, pairwise
from math import prod

import torch
from torch import Tensor, nn

from benchmarks.evidence.rivals.codes import ReLUCodes
from benchmarks.evidence.rivals.counts import (
    FLOAT_BITS,
    Operations,
    check_bits,
    graded_costs,
    parameter_bits,
    present,
)
from mfp_neurons.architectures.layers import PerStep

INPUT_BITS = 8  # the data sets hold bytes


class CausalLayer(nn.Module):
    """A dilated convolution over the last steps, batch norm and ReLU: [N, C, T] in and out."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, bits: int) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation  # steps back to the first tap
        self.synapse = nn.Conv1d(inputs, width, kernel, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.activation = ReLUCodes(bits)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm(self.synapse(nn.functional.pad(x, (self.past, 0)))))
        return y

    def macs(self, steps: int) -> int:
        """Over so many steps from rest: what lies before the first one is known to be zero."""
        weights = present(self.synapse).sum((0, 1)).tolist()  # of each tap, the oldest first
        lags = range(self.past, -1, -self.synapse.dilation[0])
        return sum(number * max(steps - lag, 0) for number, lag in zip(weights, lags, strict=True))


class TemporalConvolutions(nn.Module):
    """Causal layers (Bai, Kolter and Koltun, arXiv 1803.01271, without their skips) and a linear read-out.

    [T, N, *features] to scores [T, N, classes].
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        width: int,
        kernel: int,
        dilations: Sequence[int],
        bits: int,
    ):
        super().__init__()
        self.bits = bits
        widths = [inputs, *[width] * len(dilations)]
        self.layers = nn.Sequential(
            *(CausalLayer(a, width, kernel, d, bits) for a, d in zip(widths, dilations, strict=False))
        )
        self.readout = nn.Linear(width, classes)

    def forward(self, x_seq: Tensor) -> Tensor:
        y = self.layers(x_seq.flatten(2).permute(1, 2, 0))
        scores: Tensor = self.readout(y.permute(2, 0, 1))
        return scores

    def costs(self, x_seq: Tensor) -> dict[str, float]:
        """Of one sample of [T, N, *features]; the keys of the evidence.

        A stream keeps, in front of each layer, as many past steps as the layer looks back, and computes every
        step once. A ReLU is one comparison.
        """
        steps = len(x_seq)
        layers = [layer for layer in self.layers if isinstance(layer, CausalLayer)]
        kept = [layer.past * layer.synapse.in_channels for layer in layers]
        # the first layer keeps inputs, which are bytes for a float network as well
        value_bits = [INPUT_BITS, *[self.bits] * (len(layers) - 1)]
        synapses: list[tuple[nn.Module, float]] = [(layer.synapse, layer.macs(steps)) for layer in layers]
        return graded_costs(
            [*synapses, (self.readout, steps * int(present(self.readout).sum()))],
            Operations(additions=steps * sum(layer.synapse.out_channels for layer in layers)),
            bits=self.bits,
            parameters=sum(
                parameter_bits(layer) for layer in (*(one.synapse for one in layers), self.readout)
            ),
            state=sum(values * bits for values, bits in zip(kept, value_bits, strict=True)),
            neurons=sum(layer.synapse.out_channels for layer in layers),
        )


def conv(
    features: Sequence[int],
    classes: int,
    time_steps: int,
    neurons: object,
    *,
    width: int,
    kernel: int = 4,
    layers: int = 3,
    bits: int = FLOAT_BITS,
) -> TemporalConvolutions:
    """Causal convolutions over time and a read-out at every step.

    The dilations are the powers of the smallest number with which the last step sees all ``time_steps``.

    Args:
        features: shape of one step of one sample.
        classes: number of scores.
        time_steps: T.
        neurons: not used; a builder's signature.
        width: channels of a layer.
        kernel: taps of a layer.
        layers: 1 or more.
        bits: of activations: 32, which goes with float weights, or 8.
    """
    check_bits(bits)
    if kernel < 2 or layers < 1:
        raise ValueError(f"kernel = {kernel!r}, layers = {layers!r}: give 2 or more and 1 or more")
    dilations = dilations_over(time_steps, kernel, layers)
    return TemporalConvolutions(prod(features), classes, width, kernel, dilations, bits)


def dilations_over(time_steps: int, kernel: int, layers: int) -> list[int]:
    """1, d, d^2, .. of the smallest d with which so many layers of a kernel see ``time_steps`` steps.

    Raises:
        ValueError: there is one layer, and its kernel is too short.

    >>> dilations_over(40, kernel=4, layers=3)          # 1 + 3 * (1 + 3 + 9) = 40
    [1, 3, 9]
    """
    if layers == 1 and kernel < time_steps:
        raise ValueError(f"kernel = {kernel!r}: one layer needs one of {time_steps} taps, all steps")
    for base in count(1):
        dilations = [base**layer for layer in range(layers)]
        if 1 + (kernel - 1) * sum(dilations) >= time_steps:
            return dilations
    raise AssertionError


class ImageClassifier(nn.Module):
    """3 x 3 convolutions with 2 x 2 max pools, linear layers, ReLUs: the still image's network without time.

    [T, N, C, H, W] to scores [T, N, classes]; an image that is shown at every step is computed once.
    """

    def __init__(
        self,
        features: Sequence[int],
        classes: int,
        channels: Sequence[int],
        hidden: Sequence[int],
        bits: int,
    ) -> None:
        super().__init__()
        self.bits = bits
        layers: list[nn.Module] = []
        inputs, height, width = features
        for outputs in channels:
            synapse = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers += [synapse, nn.BatchNorm2d(outputs), ReLUCodes(bits), nn.MaxPool2d(2)]
            inputs, height, width = outputs, height // 2, width // 2
        layers.append(nn.Flatten())
        for a, b in pairwise([inputs * height * width, *hidden]):
            layers += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), ReLUCodes(bits)]
        self.layers = PerStep(*layers, nn.Linear(hidden[-1], classes))

    def forward(self, x_seq: Tensor) -> Tensor:
        scores: Tensor = self.layers(x_seq)
        return scores

    def costs(self, x_seq: Tensor) -> dict[str, float]:
        """Of one sample of [T, N, C, H, W], which counts once if all steps are one image in memory.

        The keys of the evidence. A ReLU is one comparison; padding and pools are left out.
        """
        steps = 1 if x_seq.stride(0) == 0 else len(x_seq)
        shape = x_seq.shape[2:]
        products: list[tuple[nn.Module, float]] = []
        activations = 0
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                shape = torch.Size([layer.out_channels, *shape[1:]])
                # the middle row of a kernel meets all rows, the other two all but one; so do its columns
                rows, columns = (torch.tensor([side - 1, side, side - 1]) for side in shape[1:])
                places = present(layer).sum((0, 1)) * torch.outer(rows, columns)
                products.append((layer, steps * int(places.sum())))
            elif isinstance(layer, nn.MaxPool2d):
                shape = torch.Size([shape[0], *(side // 2 for side in shape[1:])])
            elif isinstance(layer, nn.Linear):
                shape = torch.Size([layer.out_features])
                products.append((layer, steps * int(present(layer).sum())))
            elif isinstance(layer, ReLUCodes):
                activations += shape.numel()
        return graded_costs(
            products,
            Operations(additions=steps * activations),
            bits=self.bits,
            parameters=sum(parameter_bits(layer) for layer, _ in products),
            state=0,
            neurons=activations,
        )


def cnn(
    features: Sequence[int],
    classes: int,
    time_steps: int,
    neurons: object,
    *,
    channels: Sequence[int] = (16, 32),
    hidden: Sequence[int] = (128,),
    bits: int = 8,
) -> ImageClassifier:
    """The layers of the still task with ReLUs in place of spikes.

    Args:
        features: shape [C, H, W] of an image.
        classes: number of scores.
        time_steps, neurons: not used; a builder's signature.
        channels: of the convolutions.
        hidden: widths of the linear layers, one or more.
        bits: of activations: 32, which goes with float weights, or 8.
    """
    check_bits(bits)
    if len(features) != 3 or not hidden:
        raise ValueError(f"cnn reads images [C, H, W] and has hidden layers, got {features!r}, {hidden!r}")
    return ImageClassifier(features, classes, channels, hidden, bits)
