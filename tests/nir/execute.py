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
    if isinstance(node, nir.LI | nir.I | nir.LIF | nir.IF | nir.Delay):
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
        if isinstance(node, nir.LIF | nir.IF):
            leak = node.v_leak - self.v if isinstance(node, nir.LIF) else 0
            self.v = self.v + self.dt / getattr(node, "tau", 1) * (leak + node.r * x)
            fired = self.v > node.v_threshold
            self.v = np.where(fired, node.v_reset, self.v)
            return fired.astype(np.float64)
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
    """The same by the wiring that ``nirtorch.nir_to_torch`` makes; leaky integrators by Norse on request."""
    modules: dict[type, Callable[[Any], nn.Module]] = {
        type(node): lambda node: Node(stepper(node, dt))
        for node in graph.nodes.values()
        if not isinstance(node, nir.Input | nir.Output)
    }
    if norse:
        modules[nir.LI] = lambda node: norse_leak(node, dt)
    network, state, out = nirtorch.nir_to_torch(graph, modules), None, []
    with torch.no_grad():
        for now in x:
            y, state = network(now, state)
            out.append(y)
    return torch.stack(out)


class Node(nn.Module):
    """A node of the equations above, in float64 and back."""

    def __init__(self, step: Callable[[Any], Any]) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(self.step(x.double().numpy()))).to(x)


def norse_leak(node: Any, dt: float) -> nn.Module:
    from norse.torch.functional.leaky_integrator_box import LIBoxParameters
    from norse.torch.module.leaky_integrator_box import LIBoxCell

    assert (node.r == 1).all()
    tau, leak = (torch.from_numpy(np.asarray(values)).float() for values in (node.tau, node.v_leak))
    return LIBoxCell(LIBoxParameters(1 / tau, leak), dt=dt)
