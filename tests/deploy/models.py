"""What hypothesis draws for lowering: small torch models over everything that can be lowered.

``models()`` gives a :class:`Case`: a model with its example, as a user has them. A *dyadic* case has scales,
batch norms and thresholds of so few bits that float64 computes without rounding; its thresholds are
potentials that really occur, so that ties are hit.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, TimePool, quantize, quantize_weights

from .lowering import Do, Each
from .oracle import exact, potential

Draw = Callable[[st.SearchStrategy[Any]], Any]


def over_time(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer that takes [N, *] on [T, N, *]."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def shown(x: Tensor, steps: int, by: str) -> Tensor:
    """The same at every step, as a model says it."""
    y = x.unsqueeze(0)
    return y.repeat(steps, *[1] * (y.dim() - 1)) if by == "repeat" else y.expand(steps, *x.shape)


def read_out(y: Tensor, readout: str, last: int | None) -> Tensor:
    """Scores of every step, or what a model makes of them."""
    if readout == "every step":
        return y
    if readout == "last":
        return y[-1]
    y = y if last is None else y[-last:]
    return y.mean(0) if readout == "mean" else y.sum(dim=0)


@dataclass
class Case:
    """A model in evaluation mode, an input as it is given to lower, and what the model sees of it.

    Attributes:
        model: float32 parameters, quantized weights and taps.
        example: uint8 [T, N, *] or [N, *] levels, or boolean events.
        top: the largest level; the model sees example / top.
    """

    model: nn.Module
    example: Tensor
    top: int


@dataclass
class Maker:
    """Draws one model; ``h`` is what the example is at the point that it has got to, float64 [T, N, *]."""

    draw: Draw
    dyadic: bool
    steps: int
    h: Tensor
    random: torch.Generator

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def flip(self) -> bool:
        return bool(self.draw(st.booleans()))

    # parameters

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

    # layers

    def synapse(self, features: tuple[int, ...], same: bool = False) -> nn.Module:
        """A convolution of any kind, or a linear layer; ``same`` keeps the shape."""
        channels, places = features[0], features[1:]
        bias = self.flip()
        if not places:
            return self.quantized(nn.Linear(channels, channels if same else self.pick(1, 3, 5), bias))
        if not same and self.pick(True, False, False):
            flat = nn.Linear(prod(features), self.pick(2, 4), bias)
            return nn.Sequential(nn.Flatten(), self.quantized(flat))
        if not same and self.pick(True, *[False] * 5):
            return self.transposed(channels, len(places), bias)
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

    def transposed(self, channels: int, dims: int, bias: bool) -> nn.Module:
        """A transposed convolution that gives as many places as it has, or twice as many."""
        kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d)[dims - 1]
        size, stride, padding, added = self.pick(
            (2, 2, 0, 0), (3, 2, 1, 1), (3, 1, 1, 0), (1, 2, 0, 1), (4, 2, 1, 0)
        )
        groups = self.pick(1, channels)
        out = groups * self.pick(1, 2)
        return self.quantized(kind(channels, out, size, stride, padding, added, groups, bias))

    def pooling(self, features: tuple[int, ...], of_spikes: bool = False) -> nn.Module:
        """Max or average, with overlap and padding too; windows of 2 or 4 places in a dyadic case.

        Averages of currents have no padding: what is constant in a current does not reach it.
        """
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
            return tuple(over_time(run(layers), x).shape[2:])

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
            dict(kernel="fir", order=3, kernel_bits="pow2"),
            dict(kernel="fir", order=2, kernel_bits=3, num_channels=channels),
            dict(kernel="fir", order=4, kernel_bits="pow2", num_channels=channels),
            dict(order=3, kernel_bits=5, num_channels=channels, learnable=True),
            dict(kernel="matrix", time_steps=self.steps, kernel_bits="pow2"),
            dict(kernel="matrix", time_steps=self.steps, kernel_bits=4, order=min(2, self.steps)),
        )
        learned = self.flip()
        if options.get("kernel") != "matrix":
            options |= self.reset(options)
        neuron = MFP(0.5, strict=self.flip(), learn_threshold=learned, **options)
        with torch.no_grad():
            if hasattr(neuron.feedback, "taps"):
                drawn = torch.randn(neuron.feedback.taps.shape, generator=self.random)
                eighths = (8 * drawn).round() / 8
                neuron.feedback.taps.copy_(eighths if self.dyadic else drawn)
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

    def reset(self, options: dict[str, Any]) -> dict[str, Any]:
        """What own spikes do: nothing as often as not."""
        order, kind = options.get("order"), self.pick(None, None, None, "subtract", "zero", "feedback")
        if kind == "feedback" and order is None:
            return {"reset": "subtract"}
        if kind != "feedback" or order == 1:
            return {"reset": None if order == 1 else kind}
        return {"reset": kind, "reset_order": self.pick(1, 2, 4, 6, 9)}

    def near(self, potentials: Tensor) -> Tensor:
        """A threshold that many of these potentials are on both sides of."""
        ordered = potentials.sort().values
        at = ordered[int(len(ordered) * self.pick(0.3, 0.6, 0.9))]
        shift = 0.0 if self.dyadic else 0.01 * torch.randn((), generator=self.random)
        return (at + shift).float()  # exact in a dyadic case: few bits

    def stage(self, x: Tensor, same: bool = False) -> nn.Module:
        """Synapse, norm, pooling, neuron."""
        current, gain = self.current(x, same), self.pick(1.0, 1.0, 2.0, -0.5)
        neuron = self.neuron(exact(current)(x) * gain)
        return Do(lambda x, current, neuron: neuron(current(x) * gain), current, neuron)

    # blocks, which move ``h`` on

    def block(self) -> nn.Module:
        kinds = ["stage", "stage", "currents", "potentials", "spikes", "cat", "dropout"]
        if self.windows():
            kinds += ["time_pool", "time_pool"]
        if self.h.dim() > 3 and min(self.h.shape[3:]) > 1:
            kinds += ["pool", "flatten", "moved"]
        made: nn.Module = getattr(self, f"_{self.pick(*kinds)}")()
        self.h = exact(made)(self.h)
        return made

    def _stage(self) -> nn.Module:
        return self.stage(self.h)

    def _currents(self) -> nn.Module:
        """Spiking-ResNet: two currents into one neuron; the second may be the spikes themselves."""
        same = self.flip()
        first = self.current(self.h, same)
        shape = exact(first)(self.h).shape
        fitting = list(self.h.shape) == list(shape)
        second: nn.Module
        if fitting and self.flip():
            second = nn.Identity()
        else:
            second = deepcopy(first)  # another one of the same shape
            for module in second.modules():
                if quantize.is_quantized(module):
                    with torch.no_grad():
                        weight = module.get_parameter("weight")
                        weight.copy_(weight.flip(0) * (0.5 if self.flip() else -1.0))
        norm = Each(self.norm(shape[2], len(shape) - 3)) if self.flip() else nn.Identity()
        weight = self.pick(1.0, -0.5)

        def added(
            x: Tensor, first: nn.Module, second: nn.Module, norm: nn.Module, *fire: nn.Module
        ) -> Tensor:
            current = norm(first(x) + weight * second(x))
            return fire[0](current) if fire else current

        layers = (first, second, norm)
        return Do(added, *layers, self.neuron(exact(Do(added, *layers))(self.h)))

    def _potentials(self) -> nn.Module:
        """MS-ResNet: currents are added from block to block, each seen through a neuron of its own."""
        stem = self.current(self.h)
        current = exact(stem)(self.h)
        parts: list[nn.Module] = []
        for _ in range(self.pick(1, 2)):
            neuron = self.neuron(current)
            spikes = exact(neuron)(current)
            parts += [neuron, self.current(spikes, same=True)]
            current = current + exact(parts[-1])(spikes)

        def added(x: Tensor, stem: nn.Module, last: nn.Module, *parts: nn.Module) -> Tensor:
            current = stem(x)
            for neuron, block in zip(parts[::2], parts[1::2], strict=True):
                current = current + block(neuron(current))
            return last(current)

        return Do(added, stem, self.neuron(current), *parts)

    def _spikes(self) -> nn.Module:
        """SEW: spikes plus spikes."""
        weight = self.pick(1, 2)
        return Do(lambda x, stage: weight * stage(x) + x, self.stage(self.h, same=True))

    def _cat(self) -> nn.Module:
        """Concatenated channels of what two stages fire."""
        stages = [self.stage(self.h, same=True) for _ in range(self.pick(1, 2))]
        return Do(
            lambda x, first, second: torch.cat([first(x), second(x)], 2),
            *stages,
            *[nn.Identity()] * (2 - len(stages)),
        )

    def _pool(self) -> nn.Module:
        return Each(self.pooling(tuple(self.h.shape[2:]), of_spikes=True))

    def _moved(self) -> nn.Module:
        """Spikes at other places: padded, shuffled, repeated, cut, or pooled over unequal windows."""
        rank = self.h.dim() - 3
        pads = tuple(self.pick(0, 1, 2) for _ in range(2 * rank))
        moves: list[nn.Module] = [
            Do(lambda x: torch.nn.functional.pad(x, pads)),
            nn.ChannelShuffle(self.pick(1, self.h.shape[2])),
            nn.Upsample(scale_factor=self.pick(1, 2)),
            Do(lambda x: x[..., 1:].flip(-1)),
            Do(lambda x: torch.cat([x, x[..., :1]], -1)),
            (nn.AdaptiveMaxPool1d if rank == 1 else nn.AdaptiveMaxPool2d)(3),
        ]
        if not self.dyadic:
            average = nn.AvgPool1d if rank == 1 else nn.AvgPool2d
            moves += [average(2, 2, 1, ceil_mode=True, count_include_pad=False)]
        move = self.pick(*range(len(moves)))
        return Each(moves[move])

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
        steps, by = self.steps, self.pick("repeat", "expand")
        sequence = shown(x, steps, by)
        if self.flip():
            return Do(lambda x, stage: stage(shown(x, steps, by)), self.stage(sequence))
        current = self.current(sequence)
        neuron, of_image = self.neuron(exact(current)(sequence)), nn.Sequential(*current)
        return Do(lambda x, current, neuron: neuron(shown(current(x), steps, by)), of_image, neuron)

    def head(self) -> nn.Module:
        """Scores [T, N, classes]: a linear layer, or the neurons behind one."""
        classes = self.pick(2, 3, 4)
        flat = self.h.flatten(2)
        linear = self.quantized(nn.Linear(flat.shape[2], classes, self.flip()))
        layers: list[nn.Module] = [nn.Flatten(2), linear]
        if self.flip():
            layers.append(self.neuron(exact(linear)(flat)))
            if self.flip():
                layers.append(Do(vote, nn.AvgPool1d(2, 2)) if classes % 2 == 0 else nn.Identity())
        return nn.Sequential(*layers)


def vote(x: Tensor, pool: nn.Module) -> Tensor:
    """The mean of every few neurons."""
    return over_time(lambda spikes: pool(spikes.unsqueeze(1)).squeeze(1), x)


def run(layers: list[nn.Module]) -> Callable[[Tensor], Tensor]:
    return exact(nn.Sequential(*layers))


@st.composite
def models(draw: Draw, *, dyadic: bool = False) -> Case:
    """A model with its example."""
    pick = lambda *choices: draw(st.sampled_from(choices))  # noqa: E731
    steps, samples = pick(1, 2, 3, 4, 5, 6, 8), 2
    features = pick((3,), (6,), (1, 5), (4, 6), (1, 5, 5), (2, 4, 6), (3, 6, 3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    kind = pick("events", "images", "static")
    top = 1 if kind == "events" else 16 if dyadic else pick(255, 255, 16)
    shape = (samples, *features) if kind == "static" else (steps, samples, *features)
    example = torch.randint(0, top + 1, shape, generator=random, dtype=torch.uint8)
    seen = example.double() / top
    maker = Maker(draw, dyadic, steps, seen, random)
    blocks: list[nn.Module] = []
    if kind == "static":
        blocks.append(maker.stem(seen))
        maker.h = exact(blocks[0])(seen)
    elif kind == "images":
        if maker.windows() and pick(True, False, False):
            blocks.append(maker._time_pool())
            maker.h = seen = blocks[0](seen)
        blocks.append(maker.stage(seen))
        maker.h = exact(blocks[-1])(seen)
    blocks += [maker.block() for _ in range(pick(0, 1, 2, 3))]
    head = maker.head()
    readout = pick("mean", "mean", "sum", "last", "every step")
    last = pick(None, 1, maker.steps) if readout in ("mean", "sum") else None
    model = Do(
        lambda x, *parts: read_out(reduce(lambda y, part: part(y), parts, x), readout, last), *blocks, head
    )
    return Case(model.eval(), example.bool() if kind == "events" else example, top)
