"""What hypothesis draws for lowering: small torch models over everything that can be lowered.

``models()`` gives a :class:`Case`: a model with its example, as a user has them: an input
(``drawn_inputs.py``), blocks, heads, and what is read out of these, over whole sequences or in a loop over
time. A *dyadic* case has scales, batch norms and thresholds of so few bits that float64 computes without
rounding; its thresholds are potentials that really occur, so that ties are hit.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from typing import Any

import snntorch as snn
import torch
from hypothesis import event
from hypothesis import strategies as st
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import MFP, MFPNode, TimePool, quantize, quantize_weights
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

from .drawn_inputs import inputs
from .lowering import Do, Each
from .oracle import Watched, exact, results

Draw = Callable[[st.SearchStrategy[Any]], Any]


def over_time(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer that takes [N, *] on [T, N, *]."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def shown(x: Tensor, steps: int, by: str) -> Tensor:
    """The same at every step, as a model says it."""
    y = x.unsqueeze(0)
    return y.repeat(steps, *[1] * (y.dim() - 1)) if by == "repeat" else y.expand(steps, *x.shape)


def read_out(y: Tensor, form: str, first: int | None) -> Tensor:
    """Scores of every step, or what a model makes of them; ``first``: of y[first:]."""
    y = y if first is None else y[first:]
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "every step": lambda y: y,
        "as it is": lambda y: y,
        "batch first": lambda y: y.transpose(0, 1),
        "last": lambda y: y[-1],
        "mean": lambda y: y.mean(0),
        "sum": lambda y: y.sum(dim=0),
        "largest": lambda y: y.amax(0),
        "largest, with its step": lambda y: y.max(0)[0],
        "part of the mean": lambda y: y.mean(dim=0) * 0.25,
    }
    return forms[form](y)


@dataclass
class Case:
    """A model in evaluation mode, an input as it is given to lower, and what the model gets of it.

    Attributes:
        model: float32 parameters, quantized weights and taps.
        example: what ``lower`` is given.
        options: keyword arguments of ``lower``.
        x: what the network is run on, which the example is too unless the loop stands outside of the model.
        inputs: what the model gets of ``x``, in float64.
        repeatable: whether the network is that of longer sequences too.
        batch_first: of each tensor that the model returns, whether it is [N, T, *].
        parts: what was drawn, for statistics.
    """

    model: nn.Module
    example: Tensor
    options: dict[str, Any]
    x: Tensor
    inputs: Tensor
    repeatable: bool = True
    batch_first: list[bool] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)


@dataclass
class Maker:
    """Draws one model; ``h`` is what the example is at the point that it has got to, float64 [T, N, *].

    Attributes:
        loop: whether layers take one step a call.
        static: whether the example is one image at every step.
        are_bytes: whether ``h`` is levels in integers, whose scaling is refused.
        narrow: whether all weights of a dyadic case have 1 or 1.58 bits, so that products of two are exact.
        repeatable: whether longer inputs give the same as the model.
    """

    draw: Draw
    dyadic: bool
    steps: int
    h: Tensor
    random: torch.Generator
    loop: bool = False
    static: bool = False
    are_bytes: bool = False
    narrow: bool = True
    repeatable: bool = True
    parts: list[str] = field(default_factory=list)

    @property
    def lead(self) -> int:
        """Dimensions before the features: [T, N], or [N] in a loop."""
        return 1 if self.loop else 2

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
        bits = self.pick(
            1, 1.58, *((2, 1, 1.58, 2, 3, 4, 5, 6, 7, 8) if not (self.dyadic and self.narrow) else ())
        )
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
        mode = self.pick("zeros", "zeros", "zeros", "circular", "reflect", "replicate")
        if any(p >= n for n, p in zip(places, padding, strict=True)):
            mode = "zeros"  # torch does not wrap around a map that is smaller
        return self.quantized(
            kind(channels, out, size, stride, padding, dilation, groups, bias=bias, padding_mode=mode)
        )

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

    def each(self, *layers: nn.Module) -> nn.Module:
        """Layers that take [N, *], at every step."""
        return nn.Sequential(*layers) if self.loop else Each(*layers)

    def through(self, module: nn.Module, x: Tensor) -> Tensor:
        """What a module makes of [T, N, *] in float64."""
        return results(exact(module), x, len(x) if self.loop else None)[0]

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
        return self.each(*layers)

    # neurons

    def neuron(self, current: Tensor) -> nn.Module:
        """A neuron of any kind whose threshold is, or lies near, a potential that ``current`` leads to."""
        return self.with_threshold(self.kind_of_neuron(current.shape[2]), current)

    def with_threshold(self, made: nn.Module, current: Tensor) -> nn.Module:
        """The neuron with a threshold that the potentials of ``current`` are on both sides of."""
        name = "threshold" if hasattr(made, "spike_grad") else "v_threshold"
        old = getattr(made, name)
        per_channel = isinstance(old, Tensor) and old.numel() > 1
        with torch.no_grad():
            self.set_threshold(made, name, 2.0**40)  # no spike, so that no reset takes part
            watched = exact(made)
            results(watched, current, len(current) if self.loop else None)
            (u,) = (one.potentials for one in watched.modules() if isinstance(one, Watched))
            rows = u.transpose(0, 2).reshape(len(u[0, 0]), -1) if per_channel else u.reshape(1, -1)
            chosen = torch.stack([self.near(row) for row in rows])
            if isinstance(made, snn.Leaky):  # below 0 it resets before its first spike, which is refused
                chosen = chosen.abs()
            self.set_threshold(made, name, chosen if per_channel else float(chosen))
        return made

    def set_threshold(self, module: nn.Module, name: str, value: Any) -> None:
        old = getattr(module, name)
        if isinstance(old, Tensor):
            old.copy_(torch.as_tensor(value))
        else:
            setattr(module, name, value)

    def kind_of_neuron(self, channels: int) -> Any:
        mode = "s" if self.loop else "m"
        kinds = ["LIFNode", "IFNode", "ParametricLIFNode", "MFPNode", "MFPNode"]
        kinds += ["Leaky", "Leaky", "MFPLeaky"] if self.loop else ["MFP"] * 9 + ["MFPLeakyParallel"]
        kind = self.pick(*kinds)
        self.parts.append(kind)
        rest = self.pick(None, 0.0, 0.0, -0.25)
        if kind in ("IFNode", "LIFNode", "ParametricLIFNode", "Leaky"):
            self.repeatable = False  # what they remember for ever, the network remembers for T steps
        if kind == "IFNode":
            return neuron.IFNode(v_reset=rest, step_mode=mode)
        if kind in ("LIFNode", "ParametricLIFNode"):
            options: dict[str, Any] = dict(decay_input=self.flip(), v_reset=rest, step_mode=mode)
            return getattr(neuron, kind)(2.0, **options)
        if kind == "Leaky":
            reset = self.pick("subtract", "zero", "none")
            return snn.Leaky(0.5, reset_mechanism=reset, init_hidden=True, learn_threshold=self.flip())
        options = self.kernel(channels)
        if kind == "MFP":
            if options.get("kernel") != "matrix":
                options |= self.reset(options)
            made: Any = MFP(0.5, strict=self.flip(), learn_threshold=self.flip(), **options)
        elif kind == "MFPNode":
            options |= {"reset": None} if options.get("kernel") == "matrix" else self.reset(options)
            v_reset = rest if options["reset"] == "zero" else 0.0
            made = MFPNode(decay_input=self.flip(), v_reset=v_reset or 0.0, step_mode=mode, **options)
            if self.flip():
                made.v_threshold = nn.Parameter(torch.ones(self.pick(1, channels)))
        else:
            reset = self.reset(options) if options.get("kernel") != "matrix" else {}
            options["learn_beta"] = options.pop("learnable", False)
            options["reset_mechanism"] = reset.pop("reset", None) or "none"
            made = (MFPLeaky if self.loop else MFPLeakyParallel)(0.5, init_hidden=True, **options, **reset)
        with torch.no_grad():
            if hasattr(made.feedback, "taps"):
                drawn = torch.randn(made.feedback.taps.shape, generator=self.random)
                made.feedback.taps.copy_((8 * drawn).round() / 8 if self.dyadic else drawn)
            for name, parameter in made.named_parameters():
                if "feedback" not in name and name.endswith(("taps", "matrix")):
                    parameter.copy_(torch.randn(parameter.shape, generator=self.random))
        return made

    def kernel(self, channels: int) -> dict[str, Any]:
        options = [
            dict(),
            dict(order=1),
            dict(order=2),
            dict(order=3, kernel_bits="pow2"),
            dict(order=2, stride=2),
            dict(order=self.steps + 2, kernel_bits=4),
            dict(kernel="fir", order=3, kernel_bits="pow2"),
            dict(kernel="fir", order=2, kernel_bits=3, num_channels=channels),
            dict(kernel="fir", order=4, kernel_bits="pow2", num_channels=channels),
            dict(order=3, kernel_bits=5, num_channels=channels, learnable=True),
            dict(kernel="matrix", time_steps=self.steps, kernel_bits="pow2"),
            dict(kernel="matrix", time_steps=self.steps, kernel_bits=4, order=min(2, self.steps)),
        ]
        chosen: dict[str, Any] = options[self.pick(*range(len(options)))]
        # what forgets, or knows T, is the network of T steps alone
        if not chosen or chosen.get("kernel") == "matrix":
            self.repeatable = False
        return dict(chosen)

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
        neuron = self.neuron(self.through(current, x) * gain)
        return Do(lambda x, current, neuron: neuron(current(x) * gain), current, neuron)

    # blocks, which move ``h`` on

    def block(self) -> nn.Module:
        kinds = ["stage", "stage"]
        if self.loop and not any("Node" in part or "Leaky" in part for part in self.parts):
            return self.add("stage")  # a loop over time has neurons
        kinds += ["currents", "potentials", "spikes", "cat", "dropout", "gated", "normalized"]
        kinds += ["attention", "attention", "masked", "masked", "side_by_side", "recurrent", "twice"]
        if self.narrow:
            kinds += ["in_a_row", "in_a_row", "product"]
        if not self.loop:
            kinds += ["shared"]
        if self.h.dim() > 3 and not (self.dyadic and self.h.shape[-1] not in (1, 2, 4)):
            kinds += ["averaged"]
        if self.windows():
            kinds += ["time_pool", "time_pool"]
        if self.h.dim() > 3:
            kinds += ["flatten"]
        if self.h.dim() > 3 and min(self.h.shape[3:]) > 1:
            kinds += ["pool", "moved", "moved"]
        return self.add(self.pick(*kinds))

    def add(self, kind: str) -> nn.Module:
        self.parts.append(kind)
        made: nn.Module = getattr(self, f"_{kind}")()
        self.h = self.through(made, self.h)
        return made

    def _stage(self) -> nn.Module:
        return self.stage(self.h)

    def _normalized(self) -> nn.Module:
        """A mean and a std in front of a stage, as models normalize their own input."""
        shape = (self.pick(1, self.h.shape[2]), *[1] * (self.h.dim() - 3))
        mean = self.numbers(shape, -0.5, 0.25, 1.0)
        std = self.numbers(shape, 0.5, 1.0, 4.0).abs() + (0.0 if self.dyadic else 0.1)
        ways: list[Callable[[Tensor], Tensor]] = [
            lambda x: (x - mean) / std,
            lambda x: x - mean,
            lambda x: x * std - mean,
            lambda x: 1 - x,
            lambda x: x * 2 - 1,
            lambda x: -0.5 * x,
        ]
        allowed = (0, 1, 3) if self.are_bytes else range(len(ways))
        if self.are_bytes and (mean == 0).all():
            allowed = (1,)
        way = ways[self.pick(*allowed)]
        stage = self.stage(way(self.h))
        return Do(lambda x, stage: stage(way(x)), stage)

    def _in_a_row(self) -> nn.Module:
        """Two synapses without a neuron in between."""
        first = self.current(self.h)
        between = self.through(first, self.h)
        second = self.current(between)
        current = self.through(second, between)
        return nn.Sequential(first, second, self.neuron(current))

    def _product(self) -> nn.Module:
        """Currents times currents, or times spikes."""
        first = self.current(self.h, same=True)
        second = self.stage(self.h, same=True) if self.flip() else self.current(self.h, same=True)
        both = Do(lambda x, first, second: first(x) * second(x), first, second)
        return nn.Sequential(both, self.neuron(self.through(both, self.h)))

    def _twice(self) -> nn.Module:
        """A layer that is called two times, behind each other; neurons of their own."""
        current = self.current(self.h, same=True)
        first = self.neuron(self.through(current, self.h))
        between = self.through(nn.Sequential(current, first), self.h)
        second = self.neuron(self.through(current, between))
        return Do(
            lambda x, current, first, second: second(current(first(current(x)))), current, first, second
        )

    def _shared(self) -> nn.Module:
        """One neuron for two calls: those of MFP start from rest."""
        first = self.current(self.h, same=True)
        options = self.kernel(self.h.shape[2])
        fire = self.with_threshold(MFP(0.5, **options), self.through(first, self.h))
        inner = nn.Sequential(first, fire)
        second = self.current(self.through(inner, self.h), same=True)
        return Do(lambda x, first, second, fire: fire(second(fire(first(x)))), first, second, fire)

    def _averaged(self) -> nn.Module:
        """The mean or sum over columns, or over channels that are kept as a dimension."""
        how = self.pick("mean", "sum")
        mean = Do(lambda x: getattr(x, how)(-1))
        if self.flip():
            stage = self.stage(self.through(mean, self.h))
            return nn.Sequential(mean, stage)
        current = self.current(self.h)
        both = nn.Sequential(current, Do(lambda x: getattr(x, how)(-1, keepdim=True)))
        return nn.Sequential(both, self.neuron(self.through(both, self.h)))

    def _currents(self) -> nn.Module:
        """Spiking-ResNet: two currents into one neuron; the second may be the spikes themselves."""
        same = self.flip()
        first = self.current(self.h, same)
        shape = self.through(first, self.h).shape
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
        norm = self.each(self.norm(shape[2], len(shape) - 3)) if self.flip() else nn.Identity()
        weight = self.pick(1.0, -0.5)

        def added(
            x: Tensor, first: nn.Module, second: nn.Module, norm: nn.Module, *fire: nn.Module
        ) -> Tensor:
            current = norm(first(x) + weight * second(x))
            return fire[0](current) if fire else current

        layers = (first, second, norm)
        return Do(added, *layers, self.neuron(self.through(Do(added, *layers), self.h)))

    def _potentials(self) -> nn.Module:
        """MS-ResNet: currents are added from block to block, each read through a neuron of its own."""
        stem = self.current(self.h)
        current = self.through(stem, self.h)
        parts: list[nn.Module] = []
        for _ in range(self.pick(1, 2, 4)):
            neuron = self.neuron(current)
            spikes = self.through(neuron, current)
            parts += [neuron, self.current(spikes, same=True)]
            current = current + self.through(parts[-1], spikes)

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

    def _gated(self) -> nn.Module:
        """SEW: AND and IAND."""
        ways: list[Callable[[Tensor, Tensor], Tensor]] = [
            lambda x, y: x * y,
            lambda x, y: (1 - y) * x,
            lambda x, y: y * (1.0 - x),
            lambda x, y: x * y + x,
        ]
        way, stage = ways[self.pick(*range(4))], self.stage(self.h, same=True)
        both = Do(lambda x, stage: way(x, stage(x)), stage)
        return nn.Sequential(both, self.stage(self.through(both, self.h)))

    def _cat(self) -> nn.Module:
        """Concatenated channels of what two stages fire."""
        stages, dim = [self.stage(self.h, same=True) for _ in range(self.pick(1, 2))], self.lead
        return Do(
            lambda x, first, second: torch.cat([first(x), second(x)], dim),
            *stages,
            *[nn.Identity()] * (2 - len(stages)),
        )

    def _side_by_side(self) -> nn.Module:
        """Concatenated currents into one neuron."""
        first, dim = self.current(self.h, same=True), self.lead
        second = self.current(self.h, same=True) if self.flip() else nn.Identity()
        both = Do(lambda x, first, second: torch.cat([first(x), second(x)], dim), first, second)
        return nn.Sequential(both, self.neuron(self.through(both, self.h)))

    def _masked(self) -> nn.Module:
        """QKFormer and Spike-driven Transformer: masks of sums over channels or places."""
        q, k = self.stage(self.h, same=True), self.stage(self.h, same=True)
        dim = self.pick(*range(-1, 1 - self.h.dim(), -1))
        fire = self.stage if self.flip() else self.neuron
        mask = Do(lambda x, q, k: q(x) * k(x).sum(dim, keepdim=True), q, k)
        fired = fire(self.through(mask, self.h))
        if self.flip():
            return nn.Sequential(mask, fired)
        inner = Do(lambda x, q: q(x).sum(dim, keepdim=True), q)
        fire_mask = self.neuron(self.through(inner, self.h))
        return Do(lambda x, q, k, fire: fire(q(x).sum(dim, keepdim=True)) * k(x), q, k, fire_mask)

    def _attention(self) -> nn.Module:
        """Q K^T V of spikes, in heads, before a neuron."""
        layers, channels, lead = [self.stage(self.h, same=True) for _ in range(3)], self.h.shape[2], self.lead
        heads = self.pick(*(n for n in (1, 2, 3) if channels % n == 0))
        scale, order = self.pick(1.0, 0.125, 0.25), self.pick(0, 1)
        inner, sign = channels // heads, self.pick(1, -1)

        def split(x: Tensor) -> Tensor:  # [.., heads, channels of a head, places]
            return (
                x.flatten(lead + 1).unflatten(lead, (heads, inner))
                if x.dim() > lead + 1
                else (x.unflatten(lead, (heads, inner)).unsqueeze(-1))
            )

        shape = tuple(self.h.shape[3:])

        def attended(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module) -> Tensor:
            a, b, c = split(q(x)), split(k(x)), split(v(x))
            y = c @ (b.mT @ a) if order else (c @ b.transpose(-1, -2)) @ a
            y = (y * (sign * scale)).flatten(lead, lead + 1)
            return y.unflatten(-1, shape) if shape else y.squeeze(-1)

        both = Do(attended, *layers)
        current = self.through(both, self.h)
        return nn.Sequential(both, self.neuron(current) if self.flip() else self.stage(current))

    def _recurrent(self) -> nn.Module:
        """Spikes that come back, by SpikingJelly's containers."""
        mode = "s" if self.loop else "m"
        channels = self.h.shape[2]
        if self.h.dim() == 3 and self.flip():
            made = layer.LinearRecurrentContainer(
                neuron.IFNode(), channels, channels, bias=self.flip(), step_mode=mode
            )
            made.rc = self.quantized(made.rc)
            inputs = nn.Linear(channels, channels)
            with torch.no_grad():
                codes = quantize.codes(made.rc)
                inputs.weight.copy_((codes.codes * codes.scale)[:, :channels])
                inputs.bias.copy_(torch.zeros(channels) if made.rc.bias is None else made.rc.bias)
                current = inputs.double()(self.h)
            made.sub_module = self.single_steps(current)
            return made
        weight = self.pick(1.0, -0.5, 0.25)
        functions: list[Callable[[Tensor, Tensor], Tensor]] = [lambda x, y: x + y, lambda x, y: y - 0.5 * x]
        function = functions[self.pick(0, 1)]
        current = self.current(self.h)
        x = self.through(current, self.h) * weight
        made = layer.ElementWiseRecurrentContainer(self.single_steps(x), function, step_mode=mode)
        return Do(lambda x, current, made: made(weight * current(x)), current, made)

    def single_steps(self, current: Tensor) -> nn.Module:
        """A neuron inside of a container, which calls it once a step."""
        loop, self.loop = self.loop, True
        made = self.neuron(current)
        while isinstance(made, snn.Leaky | MFPLeaky):  # which SpikingJelly's containers do not hold
            made = self.neuron(current)
        self.loop = loop
        return made

    def _pool(self) -> nn.Module:
        return self.each(self.pooling(tuple(self.h.shape[2:]), of_spikes=True))

    def _moved(self) -> nn.Module:
        """Spikes at other places: padded, shuffled, repeated, cut, or pooled over unequal windows."""
        rank = self.h.dim() - 3
        pads = tuple(self.pick(0, 1, 2) for _ in range(2 * rank))
        few = tuple(self.pick(0, 1) for _ in range(2 * rank))
        mode, target = self.pick("circular", "reflect", "replicate"), self.pick(3, 5)
        height = tuple(n - (i == 0) for i, n in enumerate(self.h.shape[3:]))
        average: Any = nn.AdaptiveAvgPool1d if rank == 1 else nn.AdaptiveAvgPool2d
        moves: list[nn.Module] = [
            Do(lambda x: F.pad(x, pads)),
            Do(lambda x: F.pad(x, few, mode=mode)),
            nn.ChannelShuffle(self.pick(*(n for n in (1, 2, 3) if self.h.shape[2] % n == 0))),
            nn.Upsample(scale_factor=self.pick(1, 2)),
            nn.Upsample(size=self.pick(height, target)),
            Do(lambda x: x[..., 1:].flip(-1)),
            Do(lambda x: torch.cat([x, x[..., :1]], -1)),
            Do(lambda x: torch.roll(x, 1, -1)),
            Do(lambda x: x.chunk(2, 1)[0]),
            Do(lambda x: x.transpose(1, 2)),
            (nn.AdaptiveMaxPool1d if rank == 1 else nn.AdaptiveMaxPool2d)(target),
        ]
        if not self.dyadic:
            pool: Any = nn.AvgPool1d if rank == 1 else nn.AvgPool2d
            moves += [pool(2, 2, 1, ceil_mode=True, count_include_pad=False), average(target)]
        move = self.each(moves[self.pick(*range(len(moves)))])
        if self.flip():
            return move
        # of currents
        current = self.current(self.h, same=True)
        both = nn.Sequential(current, move)
        return nn.Sequential(both, self.neuron(self.through(both, self.h)))

    def windows(self) -> list[int]:
        """Those that divide the steps that are left; none in a loop over time."""
        # what is normalized is no spikes, which alone are pooled over time
        steps = 0 if self.loop or self.static or "normalized" in self.parts[0] else self.steps
        return [window for window in range(2, steps + 1) if steps % window == 0]

    def _time_pool(self) -> nn.Module:
        window = self.pick(*self.windows())
        self.steps //= window
        return TimePool(window)

    def _flatten(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(self.lead), self.stage(self.h.flatten(2)))

    def _dropout(self) -> nn.Module:
        return nn.Dropout(0.5)

    def stem(self, x: Tensor) -> nn.Module:
        """Of a static image [N, *]: the first stage, with the image repeated where it likes."""
        steps, by = self.steps, self.pick("repeat", "expand")
        sequence = shown(x, steps, by)
        if self.flip():
            return Do(lambda x, stage: stage(shown(x, steps, by)), self.stage(sequence))
        current = self.current(sequence)
        neuron, of_image = self.neuron(self.through(current, sequence)), nn.Sequential(*current)
        return Do(lambda x, current, neuron: neuron(shown(current(x), steps, by)), of_image, neuron)

    # heads, and what is read out of them

    def head(self, h: Tensor, kind: str) -> nn.Module:
        """Scores of every step: a linear layer, the neurons behind one, or their potentials."""
        self.parts.append(f"head: {kind}")
        if kind == "nothing":
            return nn.Identity()
        if kind == "reduced":
            return self.reduced(h)
        if kind == "map":
            return self.current(h)
        classes = self.pick(2, 3, 4)
        flat = h.flatten(2)
        linear = self.quantized(nn.Linear(flat.shape[2], classes, self.flip()))
        layers: list[nn.Module] = [nn.Flatten(self.lead), linear]
        current = self.through(nn.Sequential(*layers), h)
        if kind == "potentials":
            return Do(lambda x, layers, neuron: neuron(layers(x))[1], nn.Sequential(*layers), self.reader())
        if kind in ("spikes", "votes"):
            layers.append(self.neuron(current))
        if kind == "votes" and classes % 2 == 0:
            pool = nn.AvgPool1d(2, 2)
            layers.append(Do(self.vote, pool))
        return nn.Sequential(*layers)

    def reduced(self, h: Tensor) -> nn.Module:
        """A layer behind what was reduced over time; behind a sum, one without a bias."""
        how, first = self.pick("mean", "mean", "sum"), self.pick(None, *range(1, self.steps))
        linear = self.quantized(nn.Linear(h[0, 0].numel(), self.pick(2, 3), how == "mean" and self.flip()))
        norm = self.norm(linear.out_features, 0) if how == "mean" and self.flip() else nn.Identity()
        return Do(lambda x, linear, norm: norm(linear(getattr(x[first:], how)(0).flatten(1))), linear, norm)

    def reader(self) -> nn.Module:
        """A neuron whose potential is returned."""
        reset = self.pick("none", "subtract")
        options: dict[str, Any] = {"init_hidden": True, "output": True, "reset_mechanism": reset}
        self.repeatable, kind = False, snn.Leaky if self.loop else MFPLeakyParallel
        # taps of a potential may be any numbers, unless own spikes are fed back
        return kind(self.pick(0.5, 0.9) if reset == "none" else 0.5, threshold=0.75, **options)

    def vote(self, x: Tensor, pool: nn.Module) -> Tensor:
        """The mean of every few neurons."""
        votes = lambda spikes: pool(spikes.unsqueeze(1)).squeeze(1)  # noqa: E731
        return votes(x) if self.loop else over_time(votes, x)

    def form(self, kind: str) -> tuple[str, int | None]:
        """What is read out of one head."""
        if kind == "reduced":
            return "as it is", None
        forms = ["every step", "every step", "batch first", "last", "mean", "mean", "sum", "largest"]
        form = self.pick(*forms, "largest, with its step", "part of the mean")
        self.parts.append(f"read out: {form}")
        if form == "last":
            return form, None
        if form in ("every step", "batch first"):
            return form, self.pick(None, None, *range(1, self.steps))
        return form, self.pick(None, None, *range(1, self.steps), *range(-self.steps, 0))

    def heads(self, blocks: Sequence[nn.Module], hs: Sequence[Tensor]) -> list["Head"]:
        """One or several; a second may read what another block gives, if that has as many steps."""
        last = len(blocks)
        places = [at for at, h in enumerate(hs) if len(h) == len(hs[-1]) and at] or [last]
        count = self.pick(1, 1, 1, 2)
        chosen = [last, *(self.pick(*places) for _ in range(count - 1))]
        # potentials beside other tensors are left out, so that they are all or none
        kinds = ["linear", "linear", "spikes", "votes", "map", "nothing", "potentials"]
        kinds = kinds if self.loop else ["reduced", *kinds]
        kind = self.pick(*kinds)
        others = kinds[:-1] if kind != "potentials" else kinds[-1:]
        drawn = [kind, *(self.pick(*others) for _ in chosen[1:])]
        return [
            Head(at, self.head(hs[at], kind), *self.form(kind))
            for at, kind in zip(chosen, drawn, strict=True)
        ]


@dataclass
class Head:
    """A head behind the first ``place`` blocks, and what is read out: ``form`` of its steps [first:]."""

    place: int
    module: nn.Module
    form: str
    first: int | None


class Network(nn.Module):
    """Blocks, and heads behind some of them, of whole sequences or of one step; gives a list."""

    def __init__(self, blocks: Sequence[nn.Module], heads: Sequence[Head]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.tops = nn.ModuleList(head.module for head in heads)
        self.places = [head.place for head in heads]

    def forward(self, x: Tensor) -> list[Tensor]:
        values = [x]
        for block in self.blocks:
            values.append(block(values[-1]))
        return [head(values[place]) for place, head in zip(self.places, self.tops, strict=True)]


class Whole(nn.Module):
    """A network, the loop over time around it if there is one, and what is read out.

    Args:
        network: of whole sequences, or of a step.
        heads: whose forms are read out.
        loop: None, or how a loop over time is written.
        steps: T of a loop over one image.
        pack: what the returned tensors are put into.
    """

    def __init__(
        self, network: Network, heads: Sequence[Head], loop: str | None, steps: int, pack: str
    ) -> None:
        super().__init__()
        self.network, self.loop, self.steps, self.pack = network, loop, steps, pack
        self.forms = [(head.form, head.first) for head in heads]

    def forward(self, x: Tensor) -> Any:
        if self.loop == "outside":
            return self.packed(self.network(x))
        y = self.network(x) if self.loop is None else self.looped(x)
        return self.packed([read_out(one, *form) for one, form in zip(y, self.forms, strict=True)])

    def looped(self, x: Tensor) -> list[Tensor]:
        records: list[list[Tensor]] = [[] for _ in self.forms]
        steps = range(self.steps) if self.loop == "over one image" else range(x.size(0))
        for t in steps:
            step = self.network(x if self.loop == "over one image" else x[t])
            for record, one in zip(records, step, strict=True):
                record.append(one)
        return [torch.stack(record) for record in records]

    def packed(self, several: list[Tensor]) -> Any:
        if self.pack == "dict":
            return {f"head {i}": one for i, one in enumerate(several)}
        return several[0] if len(several) == 1 else tuple(several)


def run(layers: list[nn.Module]) -> Callable[[Tensor], Tensor]:
    return exact(nn.Sequential(*layers))


@st.composite
def models(draw: Draw, *, dyadic: bool = False, narrow: bool = False) -> Case:
    """A model with its example; ``narrow``: one that float32 computes exactly too, if it is dyadic."""
    pick = lambda *choices: draw(st.sampled_from(choices))  # noqa: E731
    steps, samples = pick(1, 2, 3, 4, 5, 6, 8), 2
    features = pick((3,), (6,), (1, 5), (4, 6), (1, 5, 5), (2, 4, 6), (3, 6, 3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    loop = pick(None, None, "over frames", "over one image", "outside")
    static = loop == "over one image" or (loop is None and pick(True, False, False))
    shape = (samples, *features) if static else (steps, samples, *features)
    drawn = draw(inputs(shape, features, random, dyadic))
    x = drawn.exact
    narrow = narrow or not dyadic or pick(True, False)
    maker = Maker(draw, dyadic, steps, x, random, loop is not None, static, drawn.are_bytes, narrow)
    maker.parts = [drawn.kind, f"loop: {loop}"]
    blocks: list[nn.Module] = []
    hs = [x]
    if static and loop is None:
        blocks.append(maker.stem(x))
        hs.append(maker.through(blocks[0], x))
    elif static:
        hs = [shown(x, steps, "expand")]
    maker.h = hs[-1]
    for _ in range(max(pick(0, 1, 2, 3), loop is not None)):
        blocks.append(maker.block())
        maker.are_bytes = False
        hs.append(maker.h)
    heads = maker.heads(blocks, hs)
    whole = Whole(Network(blocks, heads), heads, loop, steps, pick("tuple", "dict"))
    example = drawn.given[0] if loop == "outside" else drawn.given
    options = drawn.options | ({"steps": steps} if loop == "outside" else {})
    for part in maker.parts:
        event(part)
    repeatable = maker.repeatable and not static
    batch_first = [head.form == "batch first" and loop != "outside" for head in heads]
    return Case(whole.eval(), example, options, drawn.given, x, repeatable, batch_first, maker.parts)
