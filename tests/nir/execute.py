"""Two executions of a NIR graph that know nothing of this package: by NumPy, and by nirtorch and Norse."""

from collections.abc import Callable
from graphlib import TopologicalSorter
from typing import Any

import nir
import nirtorch
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Array = NDArray[np.float64]


# --- NumPy ------------------------------------------------------------------------------------------------


def by_numpy(graph: Any, x: Array, dt: float) -> Array:
    """What NIR's equations give at each step, x [T, N, *], by forward Euler in float64."""
    sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    order = list(TopologicalSorter(sources).static_order())
    steps = {name: stepper(node, dt) for name, node in graph.nodes.items()}
    out = []
    for now in x.astype(np.float64):
        given: dict[str, Array] = {}
        for name in order:
            total = now if not sources[name] else sum(given[one] for one in sources[name])
            given[name] = steps[name](total)
        out.append(next(given[name] for name, node in graph.nodes.items() if isinstance(node, nir.Output)))
    return np.stack(out)


def stepper(node: Any, dt: float) -> Callable[[Any], Any]:
    """One node as a function of what comes in at a step, which remembers what it has to."""
    if isinstance(node, nir.LI | nir.I | nir.Delay):
        return _Memory(node, dt)
    functions: dict[type, Callable[[Any], Any]] = {
        nir.Input: lambda x: x,
        nir.Output: lambda x: x,
        nir.Scale: lambda x: x * node.scale,
        nir.Threshold: lambda x: (x > node.threshold).astype(np.float64),
        nir.Linear: lambda x: x @ node.weight.T.astype(np.float64),
        nir.Affine: lambda x: x @ node.weight.T.astype(np.float64) + node.bias,
        nir.Flatten: lambda x: x.reshape(*_flat_shape(node, x)),
        nir.Conv1d: lambda x: _convolved(F.conv1d, node, x),
        nir.Conv2d: lambda x: _convolved(F.conv2d, node, x),
        nir.SumPool2d: lambda x: _pooled(node, x) * np.prod(node.kernel_size),
        nir.AvgPool2d: lambda x: _pooled(node, x),
    }
    return functions[type(node)]


class _Memory:
    def __init__(self, node: Any, dt: float) -> None:
        self.node, self.dt = node, dt
        self.past: list[Any] = []
        self.v: Any = 0.0

    def __call__(self, x: Any) -> Any:
        node = self.node
        if isinstance(node, nir.LI):
            self.v = self.v + self.dt / node.tau * (node.v_leak - self.v + node.r * x)
            return self.v
        if isinstance(node, nir.I):
            self.v = self.v + self.dt * node.r * x
            return self.v
        self.past.append(x)
        lags = np.rint(node.delay / self.dt).astype(int)
        gone = [self.past[-1 - lag] if lag < len(self.past) else 0 * x for lag in np.unique(lags)]
        return sum(np.where(lags == lag, one, 0) for lag, one in zip(np.unique(lags), gone, strict=True))


def _flat_shape(node: Any, x: Array) -> tuple[int, ...]:
    assert (node.start_dim, node.end_dim) == (0, -1)
    return (len(x), -1)


def _convolved(function: Any, node: Any, x: Array) -> Array:
    def plain(option: Any) -> Any:
        return option if isinstance(option, str | int) else tuple(int(n) for n in np.atleast_1d(option))

    weight, bias = (torch.from_numpy(array.astype(np.float64)) for array in (node.weight, node.bias))
    options = [plain(option) for option in (node.stride, node.padding, node.dilation)]
    made: Array = function(torch.from_numpy(x), weight, bias, *options, int(node.groups)).numpy()
    return made


def _pooled(node: Any, x: Array) -> Array:
    options = [tuple(int(n) for n in option) for option in (node.kernel_size, node.stride, node.padding)]
    made: Array = F.avg_pool2d(torch.from_numpy(x), *options).numpy()
    return made


# --- nirtorch ---------------------------------------------------------------------------------------------


def by_nirtorch(graph: Any, x: Tensor, dt: float, *, norse: bool = False) -> Tensor:
    """What ``nirtorch.nir_to_torch`` gives, stepped with its state; leaky integrators by Norse on request."""
    network = nirtorch.nir_to_torch(graph, node_map(dt, norse))
    state, out = None, []
    with torch.no_grad():
        for now in x:
            y, state = network(now, state)
            out.append(y)
    return torch.stack(out)


def node_map(dt: float, norse: bool) -> dict[type, Callable[[Any], nn.Module]]:
    def array(values: Any) -> Tensor:
        return torch.from_numpy(np.asarray(values)).float()

    def affine(node: Any) -> nn.Module:
        layer = nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=hasattr(node, "bias"))
        layer.load_state_dict({k: array(v) for k, v in vars(node).items() if k in ("weight", "bias")})
        return layer

    def conv(node: Any) -> nn.Module:
        def pair(option: Any) -> Any:
            return option if isinstance(option, str) else tuple(int(n) for n in np.atleast_1d(option))

        kind = nn.Conv1d if isinstance(node, nir.Conv1d) else nn.Conv2d
        out, channels, *size = node.weight.shape
        options = {name: pair(getattr(node, name)) for name in ("stride", "padding", "dilation")}
        layer = kind(channels, out, tuple(size), **options)
        layer.load_state_dict({"weight": array(node.weight), "bias": array(node.bias)})
        return layer

    def leaky(node: Any) -> nn.Module:
        if not norse:
            return Euler(array(dt / node.tau), array(node.r))
        from norse.torch.functional.leaky_integrator_box import LIBoxParameters
        from norse.torch.module.leaky_integrator_box import LIBoxCell

        assert (node.r == 1).all()
        return LIBoxCell(LIBoxParameters(1 / array(node.tau), array(node.v_leak)), dt=dt)

    def pool(node: Any) -> nn.Module:
        options = [tuple(int(n) for n in option) for option in (node.kernel_size, node.stride, node.padding)]
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return nn.AvgPool2d(*options, divisor_override=divisor)

    return {
        nir.Linear: affine,
        nir.Affine: affine,
        nir.Conv1d: conv,
        nir.Conv2d: conv,
        nir.AvgPool2d: pool,
        nir.SumPool2d: pool,
        nir.Flatten: lambda node: nn.Flatten(1),
        nir.Scale: lambda node: Times(array(node.scale)),
        nir.Threshold: lambda node: Above(array(node.threshold)),
        nir.LI: leaky,
        nir.I: lambda node: Euler(array(0 * node.r), array(dt * node.r), leak=False),
        nir.Delay: lambda node: Line(round(float(node.delay.flat[0]) / dt)),
    }


class Euler(nn.Module):
    def __init__(self, rate: Tensor, r: Tensor, leak: bool = True) -> None:
        super().__init__()
        self.rate, self.r, self.leak = rate, r, leak

    def forward(self, x: Tensor, state: Any = None) -> Any:
        v = torch.zeros_like(x) if state is None else state
        v = v + self.rate * (self.r * x - v) if self.leak else v + self.r * x
        return v, v


class Line(nn.Module):
    """A delay line."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor, state: Any = None) -> Any:
        held = [torch.zeros_like(x)] * self.steps if state is None else state
        first, *rest = [*held, x]
        return first, rest


class Times(nn.Module):
    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Above(nn.Module):
    def __init__(self, threshold: Tensor) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x)
