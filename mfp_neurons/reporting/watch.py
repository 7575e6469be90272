"""Watches one run of a model by hooks: what flows into every synapse, and what comes out of every neuron."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from ..adapters import describe_neuron, describe_recurrence
from ..pooling import TimePool
from ..spec import NeuronSpec
from . import synapses
from .trace import Trace


@dataclass
class Values:
    """What is known of the values that have passed at one place."""

    bits: int  # of one element as stored
    binary: bool = True  # 0 and 1 alone
    signed: bool = True  # -1, 0 and 1 alone

    @classmethod
    def like(cls, x: Tensor) -> "Values":
        """For values of the dtype of ``x``, none of which has passed yet."""
        return cls(8 * x.element_size())

    def add(self, x: Tensor) -> None:
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
    module: Any  # of one of synapses.KINDS
    values: Values
    identity: Any  # of its first input
    sources: frozenset[str] = frozenset()
    fan_out: dict[torch.Size, Tensor] = field(default_factory=dict)  # by shape of a row
    # synapses that the non-zero values of each row reach, [rows]
    reached: list[Tensor] = field(default_factory=list)
    inputs: int = 0  # values received
    rows: int = 0  # of inputs: T * N, or N if they do not change with time
    products: float = 0.0  # synapses that all values reach, zeros included

    def receive(self, x: Tensor) -> None:
        shape = x.shape[-synapses.feature_dims(self.module) :]
        if shape not in self.fan_out:
            self.fan_out[shape] = synapses.fan_out(self.module, shape).flatten()
        fan_out = self.fan_out[shape]
        rows = x.reshape(-1, fan_out.numel())
        self.values.add(x)
        self.reached.append((rows != 0).double() @ fan_out)
        self.inputs += x.numel()
        self.rows += len(rows)
        self.products += len(rows) * float(fan_out.sum())


@dataclass
class Neuron:
    """What one layer of neurons has received and sent."""

    name: str
    module: nn.Module
    spec: NeuronSpec
    values: Values  # of its input
    identity: Any  # of its first input
    batch: int
    features: int
    sources: frozenset[str] = frozenset()
    steps: int = 0
    output: Values | None = None
    spikes: float | None = 0.0  # None where the output is no spike train
    spikes_of_steps: list[int] = field(default_factory=list)  # of all samples

    def send(self, out: Tensor) -> None:
        fired = out[out != 0]
        if self.spikes is None or (fired.numel() and bool((fired != fired[0]).any())):
            self.spikes = None  # a potential, or graded
        else:
            self.spikes += fired.numel()
        steps = out.flatten(1) if self.spec.takes_sequences and out.dim() > 1 else out.reshape(1, -1)
        self.spikes_of_steps += steps.count_nonzero(1).tolist()
        self.output = self.output or Values.like(out)
        self.output.add(out)


@dataclass
class Pool:
    """What one pooling over time has sent."""

    name: str
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
        self._specs: dict[nn.Module, NeuronSpec] = {}
        for module in model.modules():
            spec = describe_neuron(module)
            if spec is not None:
                self._specs[module] = spec
        returning = {module: describe_recurrence(module) for module in model.modules()}
        paths = {module: name for name, module in model.named_modules()}
        # neurons in containers that feed their last spikes back, by path
        self.recurrent = [paths[one.neuron] for one in returning.values() if one is not None]
        inside = {child for neuron in self._specs for child in neuron.modules()}
        self._others = {
            name: module
            for name, module in model.named_modules()
            if module not in inside and returning[module] is None
        }

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within it the run is recorded; then unknown modules that keep a state are listed."""
        handles = []
        held = {name: _held(module) for name, module in self._others.items()}
        try:
            for path, module in self._model.named_modules():
                name = path or type(module).__name__
                before, after = partial(self._before, name), partial(self._after, name)
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(after, with_kwargs=True))
            yield
            for name, module in self._others.items():
                if _held(module).keys() - held[name].keys():
                    self._leave_out(name or type(module).__name__, module, "tensors kept between calls")
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._trace.products.append(0)
        with self._trace.paused():
            if isinstance(module, synapses.KINDS):
                self._receive_by_synapse(name, module, _first_tensor(args, kwargs))
            elif module in self._specs:
                self._receive_by_neuron(name, module, _first_tensor(args, kwargs))

    def _after(self, name: str, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        products = self._trace.products.pop()
        if isinstance(module, synapses.KINDS):
            pass
        elif module in self._specs:
            with self._trace.paused():
                self.neurons[name].send(out[0] if isinstance(out, tuple) else out)
        elif isinstance(module, TimePool) and module.window > 1:
            with self._trace.paused():
                pool = self.pools.setdefault(name, Pool(name, Values.like(out), out[0, 0].numel()))
                pool.values.add(out)
        else:
            if products:
                self._leave_out(name, module, "a matrix product outside of the layers that are counted")
            return  # what it gives comes from the layers in front of it
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._trace.mark(tensor, name)

    def _receive_by_synapse(self, name: str, module: nn.Module, x: Tensor) -> None:
        if name not in self.synapses:
            self.synapses[name] = Synapse(name, module, Values.like(x), self._trace.identity(x))
        synapse = self.synapses[name]
        synapse.sources |= self._trace.sources(x)
        synapse.receive(x)

    def _receive_by_neuron(self, name: str, module: nn.Module, x: Tensor) -> None:
        spec = self._specs[module]
        steps, step = (len(x), x.shape[1:]) if spec.takes_sequences else (1, x.shape)
        batch = step[0] if len(step) else 1
        if name not in self.neurons:
            features, identity = step.numel() // max(batch, 1), self._trace.identity(x)
            self.neurons[name] = Neuron(name, module, spec, Values.like(x), identity, batch, features)
        neuron = self.neurons[name]
        neuron.sources |= self._trace.sources(x)
        neuron.values.add(x)
        neuron.steps += steps

    def _leave_out(self, name: str, module: nn.Module, reason: str) -> None:
        kind = type(module).__name__
        self.not_counted.setdefault(name, reason if name == kind else f"{kind}: {reason}")


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor))


def _held(module: nn.Module) -> dict[tuple[int, int], Tensor]:
    """The tensors that a module itself holds, parameters apart; a replaced or rewritten one has a new key."""
    holders = [value for name, value in module.__dict__.items() if name not in ("_parameters", "_modules")]
    held = (t for t in tree_iter(holders) if isinstance(t, Tensor) and t.numel())
    return {(id(t), t._version): t for t in held}  # alive here, so that no other can get its id
