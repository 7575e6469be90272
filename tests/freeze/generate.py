"""Random models over everything that can be lowered, the same for a number on every run.

A copy of what the tests of lowering draw, with a plain random generator in the place of hypothesis, so that
it stays as it is while the tests change.
"""

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons import MFP, TimePool, quantize, quantize_weights
from mfp_neurons.history import Exponential, Matrix


def over_time(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer that takes [N, *] on [T, N, *]."""
    y = module(x.flatten(0, 1))
    return y.unflatten(0, x.shape[:2])


class Each(nn.Sequential):
    """Layers that take [N, *], at every step."""

    def forward(self, x):
        return over_time(super().forward, x)


class Stage(nn.Module):
    """Synapse, norm, pooling, neuron."""

    def __init__(self, current, neuron, gain=1.0):
        super().__init__()
        self.current, self.neuron, self.gain = current, neuron, gain

    def forward(self, x):
        return self.neuron(self.current(x) * self.gain)


class Repeated(nn.Module):
    """A static image: shown at every step before the first synapse, or after it."""

    def __init__(self, before, after, steps, by):
        super().__init__()
        self.before, self.after, self.steps, self.by = before, after, steps, by

    def forward(self, x):
        y = self.before(x).unsqueeze(0)
        times = (self.steps, *[1] * (y.dim() - 1))
        y = y.repeat(*times) if self.by == "repeat" else y.expand(self.steps, *y.shape[1:])
        return self.after(y)


class AddedCurrents(nn.Module):
    """Spiking-ResNet: two currents into one neuron; the second may be the spikes themselves."""

    def __init__(self, first, second, neuron, norm, minus):
        super().__init__()
        self.first, self.second, self.neuron, self.norm, self.minus = first, second, neuron, norm, minus

    def forward(self, x):
        a, b = self.first(x), self.second(x)
        return self.neuron(self.norm(a - 0.5 * b if self.minus else a + b))


class AddedPotentials(nn.Module):
    """MS-ResNet: currents are added from block to block, each seen through a neuron of its own."""

    def __init__(self, stem, blocks, neurons, last):
        super().__init__()
        self.stem, self.last = stem, last
        self.blocks, self.neurons = nn.ModuleList(blocks), nn.ModuleList(neurons)

    def forward(self, x):
        current = self.stem(x)
        for block, neuron in zip(self.blocks, self.neurons, strict=True):
            current = current + block(neuron(current))
        return self.last(current)


class AddedSpikes(nn.Module):
    """SEW: spikes plus spikes."""

    def __init__(self, stage, twice):
        super().__init__()
        self.stage, self.twice = stage, twice

    def forward(self, x):
        y = self.stage(x)
        return 2 * y + x if self.twice else y + x


class SideBySide(nn.Module):
    """Concatenated channels of what two stages fire."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return torch.cat([self.first(x), self.second(x)], dim=2)


class Voting(nn.Module):
    """The mean of every few neurons."""

    def __init__(self, size):
        super().__init__()
        self.pool = nn.AvgPool1d(size, size)

    def forward(self, x):
        return over_time(lambda each: self.pool(each.unsqueeze(1)).squeeze(1), x)


class Network(nn.Module):
    """Blocks, then scores of every step, reduced over time."""

    def __init__(self, blocks, head, readout, last):
        super().__init__()
        self.blocks, self.head, self.readout, self.last = nn.Sequential(*blocks), head, readout, last

    def forward(self, x):
        y = self.head(self.blocks(x))
        if self.readout == "every step":
            return y
        if self.readout == "last":
            return y[-1]
        y = y if self.last is None else y[-self.last :]
        return y.mean(0) if self.readout == "mean" else y.sum(dim=0)


# --- float64, to put thresholds where the potentials are ---------------------------------------------------


def potential(neuron: MFP, current: Tensor) -> Tensor:
    """u[t] = sum of m[j] current[t-j] in float64, by the definition."""
    kernel: Any = neuron.kernel()
    if isinstance(kernel, Matrix):
        weights = kernel.matrix.detach().double().tril()
        return torch.einsum("ts,s...->t...", weights, current)
    steps = len(current)
    taps = kernel.taps(kernel.order or steps) if isinstance(kernel, Exponential) else kernel.taps
    rows = taps.detach().double().reshape(len(taps), -1)
    u = torch.zeros_like(current)
    for j, row in enumerate(rows[:steps]):
        u[j:] += row.reshape(-1, *[1] * (current.dim() - 3)) * current[: steps - j]
    return u


class Watched(nn.Module):
    """A neuron in float64."""

    def __init__(self, neuron: MFP) -> None:
        super().__init__()
        self.neuron = [neuron]  # in a list, no cast reaches it

    def forward(self, x: Tensor) -> Tensor:
        neuron = self.neuron[0]
        v = torch.as_tensor(neuron.v_threshold).detach().double().reshape(-1)
        u, v = potential(neuron, x), v.reshape(-1, *[1] * (x.dim() - 3))
        return (u > v if neuron.strict else u >= v).double()


class NoGrad(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.double())


def exact(model: nn.Module) -> nn.Module:
    """A float64 copy whose weights are codes times scales, unrounded."""
    if isinstance(model, MFP):
        return NoGrad(Watched(model))
    copied = quantize.materialize(model).double().eval()
    for path, module in model.named_modules():
        if quantize.is_quantized(module):
            codes = quantize.codes(module)
            with torch.no_grad():
                weight = copied.get_submodule(path).get_parameter("weight")
                weight.copy_(codes.codes.double() * codes.scale.double())
        elif isinstance(module, MFP):
            copied.set_submodule(path, Watched(module))
    return NoGrad(copied)


# --- drawing ----------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A model in evaluation mode, an example as it is given to lower, and the largest level."""

    model: nn.Module
    example: Tensor
    top: int


@dataclass
class Maker:
    """Draws one model; ``h`` is what the example is at the point that it has got to, float64 [T, N, *]."""

    rng: random.Random
    dyadic: bool
    steps: int
    h: Tensor
    random: torch.Generator

    def pick(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def flip(self) -> bool:
        return self.rng.random() < 0.5

    def numbers(self, shape: tuple[int, ...], *few: float) -> Tensor:
        """Normal numbers, or in a dyadic case some of a few."""
        if self.dyadic:
            chosen = torch.randint(len(few), shape, generator=self.random)
            return torch.tensor(few)[chosen]
        return torch.randn(shape, generator=self.random)

    def quantized(self, layer: Any) -> nn.Module:
        """With weights of 1 to 8 bits."""
        bits = self.pick(1, 1.58, 2, 1, 1.58, 2, 3, 4, 5, 6, 7, 8)
        with torch.no_grad():
            weight = torch.randn(layer.weight.shape, generator=self.random)
            if self.dyadic and bits in (1, 1.58):  # so is the scale then
                weight = weight.sign() * 2.0 ** self.pick(-2, -1, 0)
                weight *= (torch.rand(weight.shape, generator=self.random) < 0.8) | (bits == 1)
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(self.numbers(layer.bias.shape, -0.5, -0.25, 0.0, 0.125, 1.0))
        return quantize_weights(layer, bits)

    def norm(self, channels: int, dims: int) -> nn.Module:
        """A batch norm with statistics; gamma of both signs and 0."""
        layer: Any = (nn.BatchNorm1d if dims < 2 else nn.BatchNorm2d)(channels, affine=self.flip())
        if self.dyadic:
            layer.eps = 0.0
        with torch.no_grad():
            layer.running_mean.copy_(self.numbers((channels,), -1.0, -0.5, 0.0, 0.25, 1.0))
            layer.running_var.copy_(self.numbers((channels,), 0.25, 1.0, 4.0).abs() + 0.0)
            if layer.affine:
                weight = self.numbers((channels,), -2.0, -0.5, 0.0, 0.5, 1.0, 1.5)
                layer.weight.copy_(weight * (torch.rand(channels, generator=self.random) < 0.9))
                layer.bias.copy_(self.numbers((channels,), -0.5, 0.0, 0.25, 1.0))
        return layer

    def synapse(self, features: tuple[int, ...], same: bool = False) -> nn.Module:
        """A convolution of any kind, or a linear layer; ``same`` keeps the shape."""
        channels, places = features[0], features[1:]
        bias = self.flip()
        if not places:
            return self.quantized(nn.Linear(channels, channels if same else self.pick(1, 3, 5), bias))
        if not same and self.pick(True, False, False):
            flat = nn.Linear(prod(features), self.pick(2, 4), bias)
            return nn.Sequential(nn.Flatten(), self.quantized(flat))
        kind: Any = nn.Conv1d if len(places) == 1 else nn.Conv2d
        size = tuple(self.pick(*(k for k in (1, 2, 3) if not same or k % 2)) for _ in places)
        dilation = tuple(self.pick(1, 1, 2) for _ in places)
        reach = tuple((k - 1) * d for k, d in zip(size, dilation, strict=True))
        padding = tuple(r // 2 if same else min(r, self.pick(0, 1)) for r in reach)
        fits = all(n + 2 * p > r for n, p, r in zip(places, padding, reach, strict=True))
        if not fits:
            size, padding = (1,) * len(places), (0,) * len(places)
        stride = 1 if same else self.pick(1, 1, 2)
        groups = self.pick(1, 1, channels, *(2 for _ in range(channels % 2 == 0)))
        out = channels if same else groups * self.pick(1, 2)
        return self.quantized(kind(channels, out, size, stride, padding, dilation, groups, bias=bias))

    def pooling(self, features: tuple[int, ...], of_spikes: bool = False) -> nn.Module:
        """Max or average, with overlap and padding too; windows of 2 or 4 places in a dyadic case."""
        dims = len(features) - 1
        smallest = min(features[1:])
        if smallest < 2:
            return nn.Identity()
        if self.pick(True, False, False):
            pools: Any = (
                nn.AdaptiveAvgPool1d,
                nn.AdaptiveMaxPool1d,
                nn.AdaptiveAvgPool2d,
                nn.AdaptiveMaxPool2d,
            )
            chosen = pools[2 * dims - 2 + (self.dyadic or self.flip())]
            return chosen(1)
        pool: Any = self.pick(*((nn.MaxPool1d, nn.AvgPool1d) if dims == 1 else (nn.MaxPool2d, nn.AvgPool2d)))
        size = 2 if self.dyadic else self.pick(2, 2, min(3, smallest))
        pads = of_spikes or pool in (nn.MaxPool1d, nn.MaxPool2d)
        return pool(size, self.pick(size, 1), self.pick(0, 0, 1) if pads else 0)

    def current(self, x: Tensor, same: bool = False) -> nn.Module:
        """From spikes to a current, at every step: a synapse, perhaps with norm and pooling, in any order."""
        layers = [self.synapse(tuple(x.shape[2:]), same)]

        def features() -> tuple[int, ...]:
            return tuple(over_time(exact(nn.Sequential(*layers)), x).shape[2:])

        def normed() -> None:
            if self.flip():
                layers.append(self.norm(features()[0], len(features()) - 1))

        normed()
        if not same and len(features()) > 1 and self.pick(True, False, False):
            layers.append(self.pooling(features()))
            normed()
        return Each(*layers)

    def neuron(self, current: Tensor) -> MFP:
        """A neuron of any kernel whose threshold is, or lies near, a potential that ``current`` leads to."""
        channels = current.shape[2]
        options: dict[str, Any] = self.pick(
            dict(),
            dict(order=1),
            dict(order=2),
            dict(order=3, kernel_bits="pow2"),
            dict(order=self.steps + 2, kernel_bits=4),
            dict(order=3, kernel_bits="pow2", stride=2),
            dict(kernel="fir", order=3, kernel_bits="pow2"),
            dict(kernel="fir", order=2, kernel_bits=3, num_channels=channels),
            dict(kernel="fir", order=4, kernel_bits="pow2", num_channels=channels),
            dict(kernel="fir", order=2, kernel_bits="pow2", num_channels=channels, stride=3),
            dict(order=3, kernel_bits=5, num_channels=channels, learnable=True),
            dict(kernel="matrix", time_steps=self.steps, kernel_bits="pow2"),
            dict(kernel="matrix", time_steps=self.steps, kernel_bits=4, order=min(2, self.steps)),
        )
        learned = self.flip()
        neuron = MFP(0.5, strict=self.flip(), learn_threshold=learned, **options)
        with torch.no_grad():
            for name, parameter in neuron.kernel.named_parameters():
                if name in ("taps", "matrix"):
                    parameter.copy_(torch.randn(parameter.shape, generator=self.random))
            u = potential(neuron, current)
            if isinstance(neuron.v_threshold, Tensor):
                per_channel = neuron.v_threshold.numel() > 1
                rows = u.transpose(0, 2).reshape(channels, -1) if per_channel else u.reshape(1, -1)
                neuron.v_threshold.copy_(torch.stack([self.near(row) for row in rows]))
            else:
                neuron.v_threshold = float(self.near(u.ravel()))
        return neuron

    def near(self, potentials: Tensor) -> Tensor:
        """A threshold that many of these potentials are on both sides of."""
        ordered = potentials.sort().values
        at = ordered[int(len(ordered) * self.pick(0.3, 0.6, 0.9))]
        shift = 0.0 if self.dyadic else 0.01 * torch.randn((), generator=self.random)
        return (at + shift).float()

    def stage(self, x: Tensor, same: bool = False) -> Stage:
        current = self.current(x, same)
        gain = self.pick(1.0, 1.0, 2.0, -0.5)
        return Stage(current, self.neuron(exact(current)(x) * gain), gain)

    # blocks, which move ``h`` on

    def block(self) -> nn.Module:
        kinds = ["stage", "stage", "currents", "potentials", "spikes", "cat", "dropout"]
        if self.windows():
            kinds += ["time_pool", "time_pool"]
        if self.h.dim() > 3 and min(self.h.shape[3:]) > 1:
            kinds += ["pool", "flatten"]
        made: nn.Module = getattr(self, f"_{self.pick(*kinds)}")()
        self.h = exact(made)(self.h)
        return made

    def _stage(self) -> nn.Module:
        return self.stage(self.h)

    def _currents(self) -> nn.Module:
        same = self.flip()
        first = self.current(self.h, same)
        shape = exact(first)(self.h).shape
        second: nn.Module
        if list(self.h.shape) == list(shape) and self.flip():
            second = nn.Identity()
        else:
            second = deepcopy(first)  # another one of the same shape
            for module in second.modules():
                if quantize.is_quantized(module):
                    with torch.no_grad():
                        weight = module.get_parameter("weight")
                        weight.copy_(weight.flip(0) * (0.5 if self.flip() else -1.0))
        norm = Each(self.norm(shape[2], len(shape) - 3)) if self.flip() else nn.Identity()
        added = AddedCurrents(first, second, nn.Identity(), norm, self.flip())
        added.neuron = self.neuron(exact(added)(self.h))
        return added

    def _potentials(self) -> nn.Module:
        stem = self.current(self.h)
        current = exact(stem)(self.h)
        blocks, neurons = [], []
        for _ in range(self.pick(1, 2)):
            neurons.append(self.neuron(current))
            spikes = exact(neurons[-1])(current)
            blocks.append(self.current(spikes, same=True))
            current = current + exact(blocks[-1])(spikes)
        return AddedPotentials(stem, blocks, neurons, self.neuron(current))

    def _spikes(self) -> nn.Module:
        return AddedSpikes(self.stage(self.h, same=True), self.flip())

    def _cat(self) -> nn.Module:
        return SideBySide(
            self.stage(self.h, same=True), nn.Identity() if self.flip() else self.stage(self.h, same=True)
        )

    def _pool(self) -> nn.Module:
        return Each(self.pooling(tuple(self.h.shape[2:]), of_spikes=True))

    def windows(self) -> list[int]:
        """Those that divide the steps that are left."""
        return [window for window in range(2, self.steps + 1) if self.steps % window == 0]

    def _time_pool(self) -> nn.Module:
        window = self.pick(*self.windows())
        self.steps //= window
        return TimePool(window)

    def _flatten(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(2), self.stage(self.h.flatten(2)))

    def _dropout(self) -> nn.Module:
        return nn.Dropout(0.5)

    def stem(self, x: Tensor) -> nn.Module:
        """Of a static image [N, *]: the first stage, with the image repeated where it likes."""
        once = self.stage(x.unsqueeze(0).expand(self.steps, *x.shape))
        by = self.pick("repeat", "expand")
        if self.flip():
            return Repeated(nn.Identity(), once, self.steps, by)
        current, once.current = once.current, nn.Identity()
        return Repeated(nn.Sequential(*current), once, self.steps, by)

    def head(self) -> nn.Module:
        """Scores [T, N, classes]: a linear layer, or the neurons behind one."""
        classes = self.pick(2, 3, 4)
        flat = self.h.flatten(2)
        linear = self.quantized(nn.Linear(flat.shape[2], classes, self.flip()))
        layers: list[nn.Module] = [nn.Flatten(2), linear]
        if self.flip():
            layers.append(self.neuron(exact(linear)(flat)))
            if self.flip():
                layers.append(Voting(2) if classes % 2 == 0 else nn.Identity())
        return nn.Sequential(*layers)


def model(number: int) -> Case:
    """The model of that number with its example; every third is dyadic: its potentials reach thresholds."""
    rng, dyadic = random.Random(number), number % 3 == 0
    steps, samples = rng.choice([1, 2, 3, 4, 5, 6, 8]), 2
    features = rng.choice([(3,), (6,), (1, 5), (4, 6), (1, 5, 5), (2, 4, 6), (3, 6, 3)])
    generator = torch.Generator().manual_seed(number)
    kind = rng.choice(["events", "images", "static"])
    top = 1 if kind == "events" else 16 if dyadic else rng.choice([255, 255, 16])
    shape = (samples, *features) if kind == "static" else (steps, samples, *features)
    example = torch.randint(0, top + 1, shape, generator=generator, dtype=torch.uint8)
    seen = example.double() / top
    maker = Maker(rng, dyadic, steps, seen, generator)
    blocks: list[nn.Module] = []
    if kind == "static":
        blocks.append(maker.stem(seen))
        maker.h = exact(blocks[0])(seen)
    elif kind == "images":
        if maker.windows() and rng.random() < 0.3:
            blocks.append(maker._time_pool())
            maker.h = seen = blocks[0](seen)
        blocks.append(maker.stage(seen))
        maker.h = exact(blocks[-1])(seen)
    blocks += [maker.block() for _ in range(rng.choice([0, 1, 2, 3]))]
    head = maker.head()
    readout = rng.choice(["mean", "mean", "sum", "last", "every step"])
    last = rng.choice([None, 1, maker.steps]) if readout in ("mean", "sum") else None
    made = Network(blocks, head, readout, last).eval()
    return Case(made, example.bool() if kind == "events" else example, top)
