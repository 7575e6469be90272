"""What a model computes, in float64: what its integer network is compared with, spike for spike.

Weights are codes times scales, unrounded; potentials are sums over the taps that a neuron has. Where a
potential is closer to its threshold than float64 or a stated error can tell, the comparison goes on with the
spike of the integer network, and counts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mfp_neurons import quantize
from mfp_neurons.adapters import describe_neuron
from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import Graph, Neurons
from mfp_neurons.deploy.host.compiled import Compiled, unavailable
from mfp_neurons.deploy.inputs import read
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.history import Exponential, Matrix
from mfp_neurons.network import describe, description
from mfp_neurons.network.axes import places
from mfp_neurons.spec import ResetSpec

ROUNDING = 1e-10  # of float64, relative to the largest number around; some thousand times what it is


@dataclass(frozen=True)
class Agreement:
    """What was compared.

    Attributes:
        graph: the network.
        rates: of the spikes of every layer, by its path.
        spikes: how many neurons and steps.
        undecided: how many of them float64 cannot decide.
    """

    graph: Graph
    rates: dict[str, float]
    spikes: int
    undecided: int


def agree(
    model: nn.Module, example: Tensor, top: int, *, rounding: float = ROUNDING, x: Tensor | None = None
) -> Agreement:
    """Lowers a model and compares every spike and all scores on ``x``, or its example, also run compiled.

    ``rounding`` 0 is for models that float64 computes without any: ties are compared as well.
    """
    graph = lower_graph(model, example, levels=top)
    check(graph)
    x = example if x is None else x
    levels, steps = read(graph, x)
    (scores,), maps = interpret.run(graph, levels.astype(np.int64), steps)
    neurons = [(op, made) for op, made in zip(graph.ops, maps[1:], strict=False) if isinstance(op, Neurons)]
    described = [layer for layer in describe(model, example).layers if isinstance(layer, description.Neurons)]
    spikes, doubts = {}, {}
    for (op, made), layer in zip(neurons, described, strict=True):
        # where the module has them: behind attention features lie in another order than those of the map
        order = places([axis for dim in layer.sources[0].dims for axis in dim])
        doubt = np.broadcast_to(op.error[:, None, None], op.shape).reshape(-1)[order]
        doubts[op.name] = torch.from_numpy(doubt).reshape(layer.features)
        fired = made.reshape(*made.shape[:2], -1)[..., order]
        spikes[op.name] = torch.from_numpy(fired).reshape(*made.shape[:2], *layer.features)
    reference = exact(model, rounding=rounding, doubts=doubts, given=spikes)
    expected = reference(x.double() / top)
    watched = {p.removeprefix("model."): m for p, m in reference.named_modules() if isinstance(m, Watched)}
    assert set(watched) == set(spikes)
    for path, neuron in watched.items():
        fired = spikes[path].reshape(neuron.spikes.shape)
        wrong = (fired != neuron.spikes) & ~neuron.unsure
        assert not wrong.any(), f"{path}: {int(wrong.sum())} of {wrong.numel()} spikes differ\n{model}"
    _check_scores(graph, scores, expected)
    if not unavailable():
        _check_compiled(Compiled(graph), levels, scores, steps)
    return Agreement(
        graph,
        {path: float(neuron.spikes.mean()) for path, neuron in watched.items()},
        sum(neuron.spikes.numel() for neuron in watched.values()),
        sum(int(neuron.unsure.sum()) for neuron in watched.values()),
    )


def _check_scores(graph: Graph, scores: np.ndarray, expected: Tensor) -> None:
    out = graph.scores
    kept = scores if out.last is None else scores[-out.last :]
    reduced = {"none": kept, "sum": kept.sum(axis=0), "mean": kept.mean(axis=0)}[out.reduce] * out.unit
    error = out.error * (len(kept) if out.reduce == "sum" else 1)
    assert tuple(expected.shape[-len(out.features) :]) == out.features
    real = expected.numpy().reshape(reduced.shape)
    assert np.abs(reduced - real).max() <= error.max() + ROUNDING * (1 + np.abs(real).max())


def _check_compiled(runtime: Compiled, levels: np.ndarray, scores: np.ndarray, steps: int) -> None:
    np.testing.assert_array_equal(runtime.run(levels, steps)[0], scores)
    stream = runtime.stream()
    heads = [stream.step(levels[min(t, len(levels) - 1)]) for t in range(steps)]
    np.testing.assert_array_equal(np.stack([head[0] for head in heads if head is not None]), scores)


def is_neuron(module: nn.Module) -> bool:
    """One of the memory-free neurons."""
    return hasattr(getattr(module, "kernel", None), "state_steps")


def threshold(neuron: Any) -> Tensor:
    """Its threshold [1] or [C] in float64."""
    value = neuron.threshold if hasattr(neuron, "spike_grad") else neuron.v_threshold
    return torch.as_tensor(value).detach().double().reshape(-1)


def potential(neuron: Any, current: Tensor) -> Tensor:
    """u[t] = sum of m[j] current[t-j] in float64, by the definition."""
    kernel = neuron.kernel()
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
    """A neuron in float64 that keeps what it saw.

    Args:
        neuron: what to evaluate.
        doubt: what may be wrong with the potential, besides rounding; it broadcasts over a step [N, *].
        rounding: what may be wrong with it, relative to the largest number around.
        given: spikes to go on with where it is unsure.

    Attributes:
        unsure: where the potential is so close to the threshold that it may be on the other side.
        spikes: what it fires, [T, N, *].
    """

    def __init__(self, neuron: Any, doubt: Tensor, rounding: float, given: Tensor | None) -> None:
        super().__init__()
        self.neuron, self.doubt, self.given = [neuron], doubt, given  # in a list, no cast reaches it
        self.rounding = rounding

    def forward(self, x: Tensor) -> Any:
        neuron, rows = self.neuron[0], (-1, *[1] * (x.dim() - 3))
        u, v = potential(neuron, x), threshold(neuron).reshape(rows)
        size = 1 + max(float(one.abs().max()) for one in (x, u, v))
        doubt = self.doubt + self.rounding * size
        strict = getattr(neuron, "strict", hasattr(neuron, "spike_grad"))
        reset = describe_neuron(neuron).reset  # type: ignore[union-attr]
        if reset is not None:
            u = self._fed_back(x, v, doubt, strict, reset)
        self.unsure = ((u - v).abs() <= doubt) & (doubt > 0)
        self.spikes = (u > v if strict else u >= v).double()
        fired = self.spikes
        if self.given is not None:
            fired = torch.where(self.unsure, self.given.reshape(u.shape).double(), fired)
        alone = not hasattr(neuron, "init_hidden") or (neuron.init_hidden and not neuron.output)
        return fired if alone else (fired, u)

    def _fed_back(self, x: Tensor, v: Tensor, doubt: Tensor, strict: bool, reset: ResetSpec) -> Tensor:
        """Potentials with what own spikes do, step after step."""
        neuron = self.neuron[0]
        m = self._taps(len(x), x.dim())
        decay = torch.as_tensor(getattr(neuron.kernel(), "decay", 0.0)).detach().double().reshape(-1)
        if reset.kind == "zero":
            own = x.new_zeros(0, 1)
        elif reset.taps is None:
            powers = torch.arange(1, len(x) + 1).reshape(-1, 1) - int(reset.delay)
            own = -v.reshape(1, -1) * decay**powers
        else:
            own = reset.taps.detach().double()
        own = own.reshape(len(own), own[:1].numel() or 1, *[1] * (x.dim() - 3))
        u, spikes = torch.zeros_like(x), torch.zeros_like(x)
        for t in range(len(x)):
            counts = torch.ones_like(x[t])
            for j in range(min(t + 1, len(m))):
                u[t] += counts * m[j] * x[t - j]
                if reset.kind == "zero" and j < t:
                    counts = counts * (1 - spikes[t - 1 - j])
            for j in range(1, min(t, len(own)) + 1):
                u[t] += own[j - 1] * spikes[t - j]
            spikes[t] = (u[t] > v if strict else u[t] >= v).double()
            if self.given is not None:
                unsure = ((u[t] - v).abs() <= doubt) & (doubt > 0)
                spikes[t] = torch.where(unsure, self.given.reshape(x.shape)[t].double(), spikes[t])
        return u

    def _taps(self, steps: int, dims: int) -> Tensor:
        """m in float64, [K, 1 or C, 1, ..]."""
        kernel = self.neuron[0].kernel()
        taps = kernel.taps(kernel.order or steps) if isinstance(kernel, Exponential) else kernel.taps
        return taps.detach().double().reshape(len(taps), -1, *[1] * (dims - 3))


class NoGrad(nn.Module):
    """Without gradients, in float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.double())


def exact(
    model: nn.Module,
    *,
    rounding: float = 0.0,
    doubts: Mapping[str, Tensor] | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A float64 copy: weights are codes times scales, unrounded; neurons are :class:`Watched`.

    ``doubts`` and ``given`` are theirs, by path.
    """
    copied = unrounded(model)
    for path, module in model.named_modules():
        if hasattr(module, "plain_class"):  # a batch norm whose work the neuron does: its own again
            copied.get_submodule(path).__class__ = module.plain_class
        elif is_neuron(module):
            doubt = (doubts or {}).get(path, torch.zeros(1, dtype=torch.float64))
            watched = Watched(module, doubt, rounding, (given or {}).get(path))
            if not path:
                return NoGrad(watched)
            copied.set_submodule(path, watched)
    return NoGrad(copied)


@torch.no_grad()
def unrounded(model: nn.Module) -> nn.Module:
    """A float64 copy whose weights are codes times scales, unrounded; its neurons are as they are."""
    copied = quantize.materialize(model).double().eval()
    for path, module in model.named_modules():
        if quantize.is_quantized(module):
            codes = quantize.codes(module)
            weight = copied.get_submodule(path).get_parameter("weight")
            weight.copy_(codes.codes.double() * codes.scale.double())
    return copied
