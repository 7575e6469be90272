"""Hooks that watch one run: what flows into every synapse, what comes out of every neuron."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from ..pooling import TimePool
from . import neurons, synapses
from .trace import Trace


@dataclass
class Values:
    """Which values have been seen."""

    bits: int  # of one element as stored
    binary: bool = True  # 0 and 1 alone
    signed: bool = True  # -1, 0 and 1 alone

    def see(self, x: Tensor) -> None:
        self.signed = self.signed and bool(((x == 0) | (x.abs() == 1)).all())
        self.binary = self.binary and self.signed and bool((x >= 0).all())

    @property
    def packed(self) -> int:
        """Bits that a device needs to keep one of them."""
        return 1 if self.binary else 2 if self.signed else self.bits


@dataclass
class Synapse:
    """What one layer of synapses has received."""

    name: str
    module: nn.Module
    values: Values
    identity: Any  # of its first input
    sources: frozenset[str] = frozenset()
    fan_out: dict[torch.Size, Tensor] = field(default_factory=dict)
    # synapses that the non-zero values of each row reach, [rows]
    reached: list[Tensor] = field(default_factory=list)
    inputs: int = 0  # values received
    rows: int = 0  # of inputs: T * N, or N if they do not change with time
    products: float = 0.0  # synapses that all values reach, zeros included

    def see(self, x: Tensor) -> None:
        shape = x.shape[-synapses.feature_dims(self.module) :]
        if shape not in self.fan_out:
            self.fan_out[shape] = synapses.fan_out(self.module, shape).flatten()
        fan_out = self.fan_out[shape]
        rows = x.reshape(-1, fan_out.numel())
        self.values.see(x)
        self.reached.append((rows != 0).double() @ fan_out)
        self.inputs += x.numel()
        self.rows += len(rows)
        self.products += len(rows) * float(fan_out.sum())


@dataclass
class Neuron:
    """What one layer of neurons has received and sent."""

    name: str
    module: nn.Module
    values: Values  # of its input
    sources: frozenset[str]
    identity: Any  # of its first input
    batch: int
    features: int
    steps: int = 0
    output: Values | None = None
    spikes: float | None = 0.0  # None where the output is no spike train

    def see(self, out: Tensor) -> None:
        fired = out[out != 0]
        if self.spikes is None or (fired.numel() and bool((fired != fired[0]).any())):
            self.spikes = None  # a potential, or graded
        else:
            self.spikes += fired.numel()
        self.output = self.output or Values(8 * out.element_size())
        self.output.see(out)


@dataclass
class Pool:
    """What one pooling over time has sent."""

    name: str
    window: int
    values: Values  # of its output
    features: int


class Watch:
    """Records of the layers of ``model`` in the order in which they are first called."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.synapses: dict[str, Synapse] = {}
        self.neurons: dict[str, Neuron] = {}
        self.pools: dict[str, Pool] = {}
        self.not_counted: dict[str, str] = {}
        self._model, self._trace = model, trace
        inside = {child for owner in model.modules() if neurons.is_neuron(owner) for child in owner.modules()}
        self._others = {name: module for name, module in model.named_modules() if module not in inside}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within it the run is recorded; then unknown modules that keep a state are listed."""
        handles = []
        held = {name: _held(module) for name, module in self._others.items()}
        try:
            for name, module in self._model.named_modules():
                before, after = self._hooks(name or type(module).__name__, module)
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(after, with_kwargs=True))
            yield
            for name, module in self._others.items():
                if _held(module).keys() - held[name].keys():
                    self._leave_out(name or type(module).__name__, module, "tensors kept between calls")
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, name: str, module: nn.Module) -> tuple[Any, Any]:
        if isinstance(module, synapses.KINDS):
            return self._watch_synapse(name, module)
        if neurons.is_neuron(module):
            return self._watch_neuron(name, module)
        if isinstance(module, TimePool) and module.window > 1:
            return self._watch_pool(name, module)
        return self._watch_other(name, module)

    def _watch_synapse(self, name: str, module: nn.Module) -> tuple[Any, Any]:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            x = _first_tensor(args, kwargs)
            self._trace.products.append(0)
            with self._trace.paused():
                if name not in self.synapses:
                    values = Values(8 * x.element_size())
                    self.synapses[name] = Synapse(name, module, values, self._trace.identity(x))
                self.synapses[name].sources |= self._trace.sources(x)
                self.synapses[name].see(x)

        def after(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self._trace.products.pop()
            self._mark(out, name)

        return before, after

    def _watch_neuron(self, name: str, module: nn.Module) -> tuple[Any, Any]:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            x = _first_tensor(args, kwargs)
            self._trace.products.append(0)
            with self._trace.paused():
                self._record(name, module, x)

        def after(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            with self._trace.paused():
                self.neurons[name].see(out[0] if isinstance(out, tuple) else out)
            self._trace.products.pop()
            self._mark(out, name)

        return before, after

    def _record(self, name: str, module: nn.Module, x: Tensor) -> None:
        whole = neurons.takes_sequences(module)
        steps, step = (len(x), x.shape[1:]) if whole else (1, x.shape)
        batch = step[0] if len(step) else 1
        if name not in self.neurons:
            values, features = Values(8 * x.element_size()), step.numel() // max(batch, 1)
            identity = self._trace.identity(x)
            self.neurons[name] = Neuron(name, module, values, frozenset(), identity, batch, features)
        known = self.neurons[name]
        known.sources |= self._trace.sources(x)
        known.values.see(x)
        known.steps += steps

    def _watch_pool(self, name: str, module: TimePool) -> tuple[Any, Any]:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            pass

        def after(module: nn.Module, args: Any, kwargs: Any, out: Tensor) -> None:
            with self._trace.paused():
                values = Values(8 * out.element_size())
                pool = Pool(name, module.window, values, out[0, 0].numel())  # type: ignore[arg-type]
                self.pools.setdefault(name, pool).values.see(out)
            self._mark(out, name)

        return before, after

    def _watch_other(self, name: str, module: nn.Module) -> tuple[Any, Any]:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._trace.products.append(0)

        def after(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            if self._trace.products.pop():
                self._leave_out(name, module, "a matrix product outside of the layers that are counted")

        return before, after

    def _leave_out(self, name: str, module: nn.Module, what: str) -> None:
        kind = type(module).__name__
        self.not_counted.setdefault(name, what if name == kind else f"{kind}: {what}")

    def _mark(self, out: Any, name: str) -> None:
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._trace.mark(tensor, name)


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor))


def _held(module: nn.Module) -> dict[tuple[int, int], Tensor]:
    """The tensors that a module itself holds, parameters apart; a replaced or rewritten one has a new key."""
    holders = [value for name, value in module.__dict__.items() if name not in ("_parameters", "_modules")]
    held = (t for t in tree_iter(holders) if isinstance(t, Tensor) and t.numel())
    return {(id(t), t._version): t for t in held}  # alive here, so that no other can get its id
