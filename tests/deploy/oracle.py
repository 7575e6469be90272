"""What a model computes, in float64: what its integer network is compared with, spike for spike.

Weights are codes times scales, unrounded; potentials are sums over the taps that a neuron has. Where a
potential is closer to its threshold than float64 or a stated error can tell, the comparison goes on with the
spike of the integer network, and counts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from snntorch import Leaky
from spikingjelly.activation_based.neuron import IFNode, LIFNode, ParametricLIFNode
from torch import Tensor, nn

from mfp_neurons import quantize
from mfp_neurons.adapters import describe_neuron
from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import Graph, Neurons, Scores
from mfp_neurons.deploy.host.compiled import Compiled, unavailable
from mfp_neurons.deploy.inputs import read
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.history import Exponential, Matrix
from mfp_neurons.network import describe, description
from mfp_neurons.network.axes import places
from mfp_neurons.spec import NeuronSpec

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
    x = example if x is None else x
    graph = lower_graph(model, example, levels=top)
    return agreement(graph, model, example, x, x.double() / top, rounding=rounding)


def agreement(
    graph: Graph,
    model: nn.Module,
    example: Tensor,
    x: Tensor,
    inputs: Tensor,
    *,
    rounding: float = ROUNDING,
    steps: int | None = None,
    batch_first: Sequence[bool] = (),
) -> Agreement:
    """Compares every spike and all scores of a lowered model with float64, also run compiled.

    Args:
        graph, model, example: what was lowered, from what.
        x: what the integer network is given.
        inputs: what the model gets then, in float64.
        rounding: what may be wrong with a potential, relative to the largest number around.
        steps: T, of a model that takes one step a call.
        batch_first: of each tensor that the model returns, whether it is [N, T, *]; else none is.
    """
    check(graph)
    levels, ran = read(graph, x)
    scores, maps = interpret.run(graph, levels.astype(np.int64), ran)
    neurons = {op.name: (op, map_) for op, map_ in zip(graph.ops, maps[1:], strict=False)}
    calls: dict[str, list[Call]] = {}
    for layer in describe(model, example, steps=steps).layers:
        if not isinstance(layer, description.Neurons) or layer.name not in neurons:
            continue  # neurons whose potential alone is returned are none of the integer network's
        earlier = calls.setdefault(layer.name, [])
        op, numbers = neurons[f"{layer.name} ({len(earlier) + 1})" if earlier else layer.name]
        assert isinstance(op, Neurons)
        # where the module has them: behind attention features lie in another order than those of the map
        order = places([axis for dim in layer.sources[0].dims for axis in dim])
        doubt = np.broadcast_to(op.error[:, None, None], op.shape).reshape(-1)[order]
        fired = torch.from_numpy(numbers.reshape(*numbers.shape[:2], -1)[..., order])
        shaped = fired.reshape(*numbers.shape[:2], *layer.features)
        earlier.append(Call(torch.from_numpy(doubt).reshape(layer.features), shaped))
    reference = exact(model, rounding=rounding, given=calls)
    expected = results(reference, inputs, ran if steps else None)
    watched = {p.removeprefix("model."): m for p, m in reference.named_modules() if isinstance(m, Watched)}
    compared = {path: watched[path] for path in calls}
    for path, layer in compared.items():
        fired = torch.cat([one.spikes for one in calls[path]]).reshape(layer.spikes.shape)
        wrong = (fired != layer.spikes) & ~layer.unsure
        assert not wrong.any(), f"{path}: {int(wrong.sum())} of {wrong.numel()} spikes differ\n{model}"
    assert len(graph.heads) == len(expected)
    for head, numbers, result, swapped in zip(
        graph.heads, scores, expected, batch_first or [False] * len(expected), strict=True
    ):
        _check_scores(head, numbers, result.transpose(0, 1) if swapped else result)
    if not unavailable():
        _check_compiled(Compiled(graph), levels, scores, ran)
    return Agreement(
        graph,
        {path: float(layer.spikes.mean()) for path, layer in compared.items()},
        sum(layer.spikes.numel() for layer in compared.values()),
        sum(int(layer.unsure.sum()) for layer in compared.values()),
    )


def results(model: nn.Module, x: Tensor, steps: int | None = None) -> list[Tensor]:
    """The tensors that a model returns; of ``steps`` calls, one of each step, if its loop stands outside."""
    calls = [model(x)] if steps is None else [model(x[t]) for t in range(steps)]
    several = [list(one.values()) if isinstance(one, dict) else one for one in calls]
    columns = zip(*(one if isinstance(one, tuple | list) else (one,) for one in several), strict=True)
    return [column[0] if steps is None else torch.stack(column) for column in columns]


def reduced(head: Scores, steps: NDArray[Any]) -> NDArray[np.float64]:
    """What a head makes of the scores of every step."""
    kept = steps[head.skip :]
    kept = kept if head.last is None else kept[-head.last :]
    forms: dict[str, Any] = {"none": kept, "sum": kept.sum(0), "mean": kept.mean(0), "max": kept.max(0)}
    result: NDArray[np.float64] = forms[head.reduce]
    return result


def _check_scores(head: Scores, scores: NDArray[Any], expected: Tensor) -> None:
    numbers = reduced(head, scores) * head.unit
    steps = len(scores) - head.skip if head.last is None else head.last
    error = head.error.max() * (steps if head.reduce == "sum" else 1)
    assert tuple(expected.shape[-len(head.features) :]) == head.features
    real = expected.numpy()
    assert real.shape[: numbers.ndim - 3] == numbers.shape[:-3]
    real = real.reshape(numbers.shape)
    difference = np.abs(numbers - real).max()
    assert difference <= error + ROUNDING * (1 + np.abs(real).max()), f"scores differ by {difference}"


def _check_compiled(
    runtime: Compiled, levels: NDArray[np.uint8], scores: Sequence[NDArray[Any]], steps: int
) -> None:
    for mine, expected in zip(runtime.run(levels, steps), scores, strict=True):
        np.testing.assert_array_equal(mine, expected)
    stream = runtime.stream()
    heads = [stream.step(levels[min(t, len(levels) - 1)]) for t in range(steps)]
    for mine, expected in zip(
        zip(*(one for one in heads if one is not None), strict=True), scores, strict=True
    ):
        np.testing.assert_array_equal(np.stack(mine), expected)


def is_neuron(module: nn.Module) -> bool:
    """One of the memory-free neurons."""
    return hasattr(getattr(module, "kernel", None), "state_steps")


def is_own(module: nn.Module) -> bool:
    """One of the frameworks' own that are lowered as they are."""
    return isinstance(module, IFNode | LIFNode | ParametricLIFNode | Leaky)


def threshold(neuron: Any) -> Tensor:
    """Its threshold [1] or [C] in float64."""
    value = neuron.threshold if hasattr(neuron, "spike_grad") else neuron.v_threshold
    return torch.as_tensor(value).detach().double().reshape(-1)


@dataclass(frozen=True)
class Call:
    """What an integer network says of one call of a neuron: ``doubt`` of its potentials, which broadcasts
    over a step [N, *], and ``spikes`` [T, N, *]."""

    doubt: Tensor
    spikes: Tensor


def over_channels(row: Tensor, step: Tensor) -> Tensor:
    """One number, or one for each channel, as it meets a step [N, C, *]."""
    return row.reshape(-1, *[1] * (step.dim() - 2)) if row.numel() > 1 else row.reshape(())


class Watched(nn.Module):
    """A neuron in float64 that keeps what it computed.

    Args:
        neuron: what to evaluate, memory-free or a framework's own, of which each step is a call or all are.
        rounding: what may be wrong with its potential, relative to the largest number around.
        given: of each of its calls, or of all steps of a loop, how far the potential may be off besides, and
            spikes to go on with where it is unsure.

    Attributes:
        unsure: where the potential is so close to the threshold that it may be on the other side.
        spikes: what it fires, [T, N, *], the sequences of several calls one behind the other.
        potentials: what meets the threshold, likewise.
    """

    def __init__(self, neuron: Any, rounding: float, given: Sequence[Call]) -> None:
        super().__init__()
        self.neuron, self.given = [neuron], given  # in a list, no cast reaches it
        self.rounding, self.calls = rounding, 0
        self.spec: NeuronSpec = describe_neuron(neuron)  # type: ignore[assignment]
        self.inputs: list[Tensor] = []
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []  # potential, spikes as computed, unsure
        self._fired: list[Tensor] = []  # spikes as the network goes on with them

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        is_sequence = self.spec.takes_sequences
        if is_sequence:
            self.inputs, self._fired = [], []
        self.calls += is_sequence
        steps = list(x) if is_sequence else [x]
        at = len(self.inputs)
        for step in steps:
            self._step(step)
        joined = torch.stack if is_sequence else (lambda one: one[0])
        fired = joined(self._fired[at:])
        u = joined([one[0] for one in self._steps[-len(steps) :]])
        neuron = self.neuron[0]
        if hasattr(neuron, "v"):  # as SpikingJelly's neurons leave it
            self.v = self._after_reset(self._steps[-1][0], self._fired[-1])
        alone = not hasattr(neuron, "init_hidden") or (neuron.init_hidden and not neuron.output)
        return fired if alone else (fired, u)

    @property
    def potentials(self) -> Tensor:
        return torch.stack([one[0] for one in self._steps])

    @property
    def spikes(self) -> Tensor:
        return torch.stack([one[1] for one in self._steps])

    @property
    def unsure(self) -> Tensor:
        return torch.stack([one[2] for one in self._steps])

    def _step(self, x: Tensor) -> None:
        neuron, t = self.neuron[0], len(self.inputs)
        self.inputs.append(x)
        v = over_channels(threshold(neuron), x)
        u = self._potential(v)
        size = 1 + max(float(one.abs().max()) for one in (x, u, v))
        given = self.given[max(self.calls - 1, 0)] if self.given else None
        doubt = self.rounding * size + (0.0 if given is None else given.doubt)
        strict = getattr(neuron, "strict", hasattr(neuron, "spike_grad"))
        unsure = ((u - v).abs() <= doubt) & torch.as_tensor(doubt > 0)
        spikes = (u > v if strict else u >= v).double()
        self._steps.append((u, spikes, unsure.broadcast_to(u.shape)))
        if given is not None:
            spikes = torch.where(unsure, given.spikes[t].reshape(u.shape).double(), spikes)
        self._fired.append(spikes)

    def _potential(self, v: Tensor) -> Tensor:
        """By the definition: a sum over past inputs, and what own spikes do."""
        reset, t = self.spec.reset, len(self.inputs) - 1
        weights, own = self._weights(t, v)
        u, counts = torch.zeros_like(self.inputs[0]), torch.ones_like(self.inputs[0])
        for j in range(min(t + 1, len(weights))):
            u = u + counts * weights[j] * self.inputs[t - j]
            if reset is not None and reset.kind == "zero" and j < t:
                counts = counts * (1 - self._fired[t - 1 - j])
        for j in range(1, min(t, len(own)) + 1):
            u = u + own[j - 1] * self._fired[t - j]
        return u + (0.0 if reset is None or reset.kind != "zero" else reset.rest)

    def _weights(self, t: int, v: Tensor) -> tuple[list[Any], list[Any]]:
        """Those of step t for its last inputs, and for its last spikes."""
        kernel, reset = self.neuron[0].kernel(), self.spec.reset
        dims = self.inputs[0].dim() - 2
        if isinstance(kernel, Matrix):
            return list(kernel.matrix.detach().double().tril()[t, : t + 1].flip(0)), []

        def rows(taps: Any) -> list[Any]:
            taps = torch.as_tensor(taps).detach().double()
            return [row.reshape(-1, *[1] * dims) if row.numel() > 1 else row.reshape(()) for row in taps]

        if isinstance(kernel, Exponential):  # in float64, of the numbers as they are stored
            stored = [torch.as_tensor(one).detach().double() for one in (kernel.decay, kernel.gain)]
            kernel = Exponential(*stored, kernel.order)
            weights = rows(kernel.taps(kernel.order or t + 1))
        else:
            weights = rows(kernel.taps)
        if reset is None or reset.kind == "zero":
            return weights, []
        if reset.taps is not None:
            return weights, rows(reset.taps)
        decay = rows(torch.as_tensor(kernel.decay).reshape(1, -1))[0]
        return weights, [-v * decay ** (j - int(reset.delay)) for j in range(1, t + 1)]

    def _after_reset(self, u: Tensor, spikes: Tensor) -> Tensor:
        reset, neuron = self.spec.reset, self.neuron[0]
        if reset is None:
            return u
        if reset.kind == "subtract":
            return u - spikes * over_channels(threshold(neuron), u)
        return torch.where(spikes > 0, torch.full_like(u, reset.rest), u)


class Own(Watched):
    """A framework's own neuron, by the equations of its documentation."""

    def _potential(self, v: Tensor) -> Tensor:
        neuron, x = self.neuron[0], self.inputs[-1]
        is_first = len(self.inputs) == 1
        if hasattr(neuron, "spike_grad"):  # snnTorch's Leaky
            if is_first:
                return x
            mem, spikes, beta = self._steps[-1][0], self._fired[-1], neuron.beta.detach().double()
            if neuron.reset_mechanism == "zero":
                mem = mem * (1 - spikes)
            subtracts = neuron.reset_mechanism == "subtract"
            return beta * mem + x - (spikes * v if subtracts else 0.0)
        rest = neuron.v_reset or 0.0
        before = torch.full_like(x, rest)
        if not is_first:
            u, spikes = self._steps[-1][0], self._fired[-1]
            before = u - spikes * v if neuron.v_reset is None else torch.where(spikes > 0, rest, u)
        if not hasattr(neuron, "decay_input"):  # IFNode
            return before + x
        leak = neuron.w.detach().double().sigmoid() if hasattr(neuron, "w") else 1 / neuron.tau
        return before + ((x if neuron.decay_input else x / leak) - (before - rest)) * leak

    def _after_reset(self, u: Tensor, spikes: Tensor) -> Tensor:
        neuron = self.neuron[0]
        if neuron.v_reset is None:
            return u - spikes * over_channels(threshold(neuron), u)
        return torch.where(spikes > 0, torch.full_like(u, neuron.v_reset), u)


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
    given: Mapping[str, Sequence[Call]] | None = None,
) -> nn.Module:
    """A float64 copy: weights are codes times scales, unrounded; neurons are :class:`Watched`.

    ``given`` is theirs, by path.
    """
    copied = unrounded(model)
    for path, module in model.named_modules():
        if hasattr(module, "plain_class"):  # a batch norm whose work the neuron does: its own again
            copied.get_submodule(path).__class__ = module.plain_class
        elif is_neuron(module) or is_own(module):
            kind = Watched if is_neuron(module) else Own
            watched = kind(module, rounding, (given or {}).get(path, ()))
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
