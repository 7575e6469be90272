"""Watches one run of a model by hooks: what flows into every synapse, and what comes out of every neuron."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_iter

from ..adapters import describe_neuron, describe_recurrence
from ..pooling import TimePool
from ..spec import NeuronSpec
from . import synapses
from .prices import REAL
from .trace import Trace

_FEW = 256  # values that 8 bits number


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
    outputs: int = 0  # values given
    rows: int = 0  # of inputs: T * N, or N if they do not change with time
    products: float = 0.0  # synapses that all values reach, zeros included
    # the different values received; None: more of them than 8 bits number
    levels: Tensor | None = field(default_factory=lambda: torch.empty(0))
    trains: list[Tensor] | None = None  # its inputs, [rows, features], as long as they are spikes

    def receive(self, x: Tensor) -> None:
        shape = x.shape[-synapses.feature_dims(self.module) :]
        if shape not in self.fan_out:
            self.fan_out[shape] = synapses.fan_out(self.module, shape).flatten()
        fan_out = self.fan_out[shape]
        rows = x.reshape(-1, fan_out.numel())
        self.values.add(x)
        self._add_levels(x)
        if self.trains is not None:
            self.trains.append(rows.to(torch.int8))
        if not self.values.signed:
            self.trains = None
        self.reached.append((rows != 0).double() @ fan_out)
        self.inputs += x.numel()
        self.rows += len(rows)
        self.products += len(rows) * float(fan_out.sum())

    @property
    def input_bits(self) -> float:
        """Bits of an input as an operand: 1 of a spike; 2 to 8 of whole multiples of one step; else REAL."""
        if self.values.signed:
            return 1
        return REAL if self.levels is None else max(_grid_bits(self.levels), 2)

    def _add_levels(self, x: Tensor) -> None:
        if self.levels is None or not x.numel():
            return
        # spikes are -1, 0 and 1, of which the least and the largest say enough; the first of many real values
        # tell that they are too many, so that not all have to be sorted
        parts = [torch.stack(x.aminmax())] if self.values.signed else [x.flatten()[:4096], x.flatten()]
        for part in parts:
            levels = torch.cat((self.levels, part.detach().cpu().float())).unique()
            if len(levels) > _FEW:
                self.levels = None
                return
        self.levels = levels


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
        self.norms: dict[nn.Module, frozenset[str]] = {}  # what each batch norm was computed from
        self.not_counted: dict[str, str] = {}
        self._model, self._trace = model, trace
        self._specs: dict[nn.Module, NeuronSpec] = {}
        for module in model.modules():
            spec = describe_neuron(module)
            if spec is not None:
                self._specs[module] = spec
        # what a stream does that adds up the last spikes of each neuron first, only the trains tell
        self._keeps_trains = any(spec.is_memory_free for spec in self._specs.values())
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
            elif isinstance(module, _BatchNorm):
                self.norms[module] = self._trace.sources(_first_tensor(args, kwargs))

    def _after(self, name: str, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        products = self._trace.products.pop()
        if isinstance(module, synapses.KINDS):
            self.synapses[name].outputs += _first_tensor((out,), {}).numel()
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
            trains: list[Tensor] | None = [] if self._keeps_trains else None
            values, identity = Values.like(x), self._trace.identity(x)
            self.synapses[name] = Synapse(name, module, values, identity, trains=trains)
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


def _grid_bits(levels: Tensor) -> float:
    """Bits, 8 at most, of the whole numbers by which the values are multiples of one step; else REAL."""
    top, is_signed = float(levels.abs().max()), bool((levels < 0).any())
    for largest in range(1, _FEW):
        multiples = levels.double() * (largest / max(top, math.ulp(0.0)))
        whole = multiples.round()
        if float((multiples - whole).abs().max()) < 1e-4:  # what float32 rounds is less
            # a number and its sign: -2**(b - 1) to 2**(b - 1) - 1
            above, below = int(whole.max()), int(-whole.min()) - 1
            bits = max(above.bit_length(), below.bit_length()) + 1 if is_signed else largest.bit_length()
            return bits if bits <= 8 else REAL
    return REAL


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor))


def _held(module: nn.Module) -> dict[tuple[int, int], Tensor]:
    """The tensors that a module itself holds, parameters apart; a replaced or rewritten one has a new key."""
    holders = [value for name, value in module.__dict__.items() if name not in ("_parameters", "_modules")]
    held = (t for t in tree_iter(holders) if isinstance(t, Tensor) and t.numel())
    return {(id(t), t._version): t for t in held}  # alive here, so that no other can get its id
