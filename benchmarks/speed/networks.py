"""Whole training steps of networks that SpikingJelly ships: forward, loss, backward, SGD, reset."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import convert, save_spikes_as_bits

from . import memory
from .peers import WIDE_STATE, jelly, reset_of
from .timing import (
    TOTAL,
    Clock,
    Effort,
    Outcome,
    Parts,
    Sample,
    Skip,
    alternate,
    clock_for,
    reason,
    summary,
)

OURS, FUSED, BITS = "MFPNode", "MFPNode, fused", "MFPNode, fused, spikes as bits"
_STEPS = 4
_CLASSES = 10
_AMP = torch.float16


@dataclass(frozen=True)
class Network:
    """One network on one size of batch."""

    name: str
    model: str  # module of spikingjelly.activation_based.model
    constructor: str
    batch: int
    image: tuple[int, int, int]
    device: torch.device
    amp: bool = False
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        kind = "amp" if self.amp else "float32"
        return f"network/{self.name}/T={_STEPS},batch={self.batch},{self.image[1]}x{self.image[2]}/{kind}"

    def run(self, effort: Effort, worker: Any = None) -> dict[str, Any]:
        """Memory first, each variant alone; then times, all in turn."""
        clock = clock_for(self.device)
        torch.backends.cudnn.benchmark = True
        contestants: dict[str, Callable[[], Sample]] = {
            name: _timed(self, make, clock) for name, make in VARIANTS.items()
        }
        found = {name: self._memory(make) for name, make in VARIANTS.items()}
        outcome = alternate(contestants, effort)
        entries = [self._entry(name, found[name], outcome) for name in VARIANTS]
        return {"steps": _STEPS, "batch": self.batch, "image": list(self.image), "entries": entries}

    def build(self, node: Callable[..., nn.Module]) -> nn.Module:
        """The network with ``node`` in every place of a neuron; the same weights every time."""
        torch.manual_seed(0)
        constructor = getattr(jelly(f"model.{self.model}"), self.constructor)
        spike = jelly("surrogate").ATan()
        net = constructor(
            spiking_neuron=node, tau=2.0, surrogate_function=spike, detach_reset=True, **self.arguments
        )
        jelly("functional").set_step_mode(net, "m")
        return net.to(self.device)  # type: ignore[no-any-return]

    def _memory(self, make: "Variant") -> dict[str, Any]:
        try:
            found = Step(self, make(self)).memory()
        except Exception as error:
            return {"memory_skipped": reason(error)}
        if make is _bits:  # it has hooks of its own, behind which those that count see nothing
            del found["saved_bytes"]
        return {"memory": found}

    def _entry(self, name: str, found: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
        entry = {"name": name, "against": FUSED, "ours": name in (OURS, FUSED, BITS)}
        if name in outcome.skipped:
            return entry | {"skipped": outcome.skipped[name]}
        calls = outcome.calls[name]
        return entry | {"calls": len(calls), "ms": summary(calls)} | found


Variant = Callable[[Network], nn.Module]


# --- the variants ---------------------------------------------------------------------------------------


def _lif(network: Network) -> nn.Module:
    return network.build(jelly("neuron").LIFNode)


def _lif_wide_state(network: Network) -> nn.Module:
    """Under autocast LIFNode's state is as narrow as its input, and the fused operator refuses it."""
    if not network.amp:
        raise Skip("for AMP; LIFNode itself is the best path of float32")
    lif_node = jelly("neuron").LIFNode

    class WideState(lif_node):  # type: ignore[misc, valid-type]
        def materialize_states(self, inputs: Any, states: Any, step_mode: str) -> Any:
            state = states[0]
            if not isinstance(state, Tensor):
                state = torch.full(inputs[0].shape[1:], float(state), device=inputs[0].device)
            return (state,)

    return network.build(WideState)


def _lif_precision(network: Network) -> nn.Module:
    """SpikingJelly's own way: what a LIFNode saves is stored in half precision."""
    if not network.amp:
        raise Skip("for AMP")
    package = jelly("precision")
    kind = {torch.float16: "fp16", torch.bfloat16: "bf16"}[_AMP]
    config = package.PrecisionConfig(mode=kind, neuron_storage=kind, neuron_fwd="fp32", neuron_bwd="fp32")
    prepared = package.prepare_model_for_precision(_lif(network), network.device, config)
    return prepared.model  # type: ignore[no-any-return]


def _ours(network: Network) -> nn.Module:
    return convert(_lif(network))


def _fused(network: Network) -> nn.Module:
    return convert(_lif(network), fuse=True)


def _bits(network: Network) -> nn.Module:
    net = _fused(network)
    net.forward = save_spikes_as_bits()(net.forward)  # type: ignore[method-assign]
    return net


def _lif_memopt(network: Network) -> nn.Module:
    """SpikingJelly's way to less memory: each layer is checkpointed, and the spikes it gets compressed."""
    package, layers = jelly("memopt"), jelly("layer")
    net = _lif(network).train()
    kinds = (jelly("neuron").LIFNode, layers.Conv2d, layers.Linear)
    x = torch.zeros(_STEPS, network.batch, *network.image, device=network.device)
    net = package.optimize_memory(net, kinds, lambda model: model(x), level=1, compress=True)
    reset_of(net)()
    return net  # type: ignore[no-any-return]


VARIANTS: dict[str, Variant] = {
    OURS: _ours,
    FUSED: _fused,
    BITS: _bits,
    "LIFNode": _lif,
    "LIFNode, memopt": _lif_memopt,
    WIDE_STATE: _lif_wide_state,
    "LIFNode, half-precision storage": _lif_precision,
}


# --- one step -------------------------------------------------------------------------------------------


class Step:
    """A network, its optimizer and one batch."""

    def __init__(self, network: Network, net: nn.Module) -> None:
        self.net, self.device, self.amp = net.train(), network.device, network.amp
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(network.batch, *network.image, generator=generator)
        labels = torch.randint(0, _CLASSES, (network.batch,), generator=generator)
        self.x = images.expand(_STEPS, *images.shape).contiguous().to(self.device)
        self.labels = labels.to(self.device)
        self.parameters = list(net.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.01)
        # a scale at which no gradient overflows: every step updates the weights
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=2.0**10, enabled=self.amp)
        self.reset = reset_of(net)

    def loss(self) -> Tensor:
        with torch.autocast(self.device.type, _AMP, enabled=self.amp):
            return F.cross_entropy(self.net(self.x).mean(0).float(), self.labels)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.reset()

    def timed(self, clock: Clock) -> Parts:
        clock.ready()
        marks = [clock.mark()]
        loss = self.loss()
        marks.append(clock.mark())
        self.backward(loss)
        marks.append(clock.mark())
        self.update()
        marks.append(clock.mark())
        forward, backward, update = clock.gaps(marks)
        total = forward + backward + update
        return {TOTAL: total, "forward": forward, "backward": backward, "update": update}

    def memory(self) -> dict[str, int]:
        """Bytes: of everything at a step's peak, of the forward alone at its peak, saved for backward."""

        def step() -> None:
            self.backward(self.loss())
            self.update()

        step()  # the first step allocates what stays
        held = [*self.parameters, *self.net.buffers(), self.x, self.labels]
        rest = sum(tensor.untyped_storage().nbytes() for tensor in held)
        everything = rest + memory.peak_bytes(step, self.device)
        forward = memory.peak_bytes(self.loss, self.device)
        self.reset()
        left = memory.held_bytes(self.loss, self.device)
        self.reset()
        saved = memory.saved_bytes(self.loss, self.parameters)
        self.reset()
        return {
            "peak_bytes": everything,
            "activation_peak_bytes": forward,
            "held_bytes": left,
            "saved_bytes": saved,
        }


def _timed(network: Network, make: Variant, clock: Clock) -> Callable[[], Sample]:
    def build() -> Sample:
        step = Step(network, make(network))
        return lambda: step.timed(clock)

    return build
