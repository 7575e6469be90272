"""Random networks whose numbers are fractions of a power of two: every sum is exact, and ties are common."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP
from tests.deploy.lowering import Each

STEPS = 13


class Residual(nn.Module):
    """Neurons over a layer plus what came in, times a factor."""

    def __init__(self, layer: nn.Module, neurons: nn.Module, factor: float) -> None:
        super().__init__()
        self.layer, self.neurons, self.factor = layer, neurons, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.neurons(self.layer(x) + self.factor * x)


def dyadic(*shape: int, quarters: int = 4) -> Tensor:
    return torch.randint(-quarters, quarters + 1, shape) / 4


@torch.no_grad()
def rounded(layer: nn.Module) -> nn.Module:
    """A layer whose parameters and statistics are fractions of 4."""
    for parameter in layer.parameters():
        parameter.copy_(dyadic(*parameter.shape))
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        layer.eps = 0.0
        channels = len(layer.running_mean)
        layer.running_mean.copy_(dyadic(channels))
        layer.running_var.copy_(torch.tensor([0.25, 1.0, 4.0])[torch.randint(3, (channels,))])
        layer.weight.copy_(torch.tensor([-1.0, -0.5, 0.5, 2.0])[torch.randint(4, (channels,))])
    return layer


@st.composite
def neurons(draw: st.DrawFn, channels: int) -> MFP:
    """A layer of neurons whose potentials are exact in float32, by any order of summation."""
    threshold = draw(st.sampled_from([0.0, 0.25, 1.0]))
    options: dict[str, Any] = {"strict": draw(st.booleans()), "v_threshold": threshold}
    kind = draw(st.sampled_from(["infinite", "finite", "fir"]))
    own = channels if draw(st.booleans()) else None
    if kind == "infinite":
        reset = draw(st.sampled_from([None, "zero"]))
        neuron = MFP(draw(st.sampled_from([0.0, 0.5, 1.0])), reset=reset, **options)
    else:
        order, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        bits = draw(st.sampled_from([None, "pow2", 4]))
        options |= {"order": order, "stride": stride, "kernel_bits": bits}
        if kind == "finite":
            neuron = MFP(0.5, **options)
        else:
            neuron = MFP(0.5, kernel="fir", num_channels=own, **options)
            with torch.no_grad():
                neuron.kernel.taps.copy_(dyadic(*neuron.kernel.taps.shape))
    if draw(st.booleans()):
        neuron.v_threshold = nn.Parameter(dyadic(own or 1))
    return neuron


@st.composite
def dense(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Layers over features, and an input [T, N, F]."""
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    width = draw(st.integers(1, 4))
    blocks: list[nn.Module] = []
    x = dyadic(STEPS, 2, width)
    for _ in range(draw(st.integers(1, 3))):
        wider = draw(st.integers(1, 5))
        blocks.append(rounded(nn.Linear(width, wider, bias=draw(st.booleans()))))
        if draw(st.booleans()):
            blocks.append(Each(rounded(nn.BatchNorm1d(wider))))
        blocks.append(draw(neurons(wider)))
        if draw(st.booleans()):
            layer = rounded(nn.Linear(wider, wider))
            blocks.append(Residual(layer, draw(neurons(wider)), draw(st.sampled_from([1.0, 0.5]))))
        width = wider
    if draw(st.booleans()):
        blocks.append(rounded(nn.Linear(width, 2)))
    return nn.Sequential(*blocks).eval(), x


@st.composite
def images(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Convolutions and pools over images, and an input [T, N, C, H, W] of spikes."""
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from([1, 2]))
    channels, out = 2, 2 * draw(st.integers(1, 2))
    sides = draw(st.sampled_from([(4, 4), (6, 4)]))
    blocks: list[nn.Module] = []
    x = torch.randint(2, (STEPS, 2, channels, *sides)).float()
    size = draw(st.sampled_from([3, (1, 3), 1, 2]))
    padding: Any = draw(st.sampled_from([0, 1, "same"]))
    layer = nn.Conv2d(channels, out, size, padding=padding, groups=groups, bias=draw(st.booleans()))
    blocks += [Each(rounded(layer))]
    if draw(st.booleans()):
        blocks.append(Each(rounded(nn.BatchNorm2d(out))))
    blocks.append(draw(neurons(out)))
    pool = draw(st.sampled_from([None, "max", "mean", "padded"]))
    kinds = {"max": nn.MaxPool2d(2, 1), "mean": nn.AvgPool2d(2), "padded": nn.MaxPool2d(2, padding=1)}
    if pool:
        blocks.append(Each(kinds[pool]))
    if draw(st.booleans()):
        blocks.append(Residual(Each(rounded(nn.Conv2d(out, out, 3, padding=1))), draw(neurons(out)), 1.0))
    with torch.no_grad():
        features = nn.Sequential(*blocks).eval()(x).flatten(2).shape[2]
    blocks += [nn.Flatten(2), rounded(nn.Linear(features, 3)), draw(neurons(3))]
    return nn.Sequential(*blocks).eval(), x
