"""Long time axes: chunks with a state carried on, recomputed in backward. Exact, and flat in T."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import snntorch
import torch
from spikingjelly.activation_based import base
from spikingjelly.activation_based import functional as jelly
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.memory import held_bytes, peak_bytes
from mfp_neurons import MFPNode, functional, save_spikes_as_bits
from mfp_neurons.history import FIR
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

T, CHUNK, CPU = 4096, 256, torch.device("cpu")


class Network:
    """Two layers and a read-out, as (loss, states) of a stretch of time and the states before it."""

    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float64) -> None:
        self.layers = nn.ModuleList([nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2)]).to(
            dtype
        )

    def neurons(self) -> Sequence[nn.Module]:
        return []

    def parameters(self) -> list[Tensor]:
        return [p for part in (self.layers, *self.neurons()) for p in part.parameters()]

    def start(self) -> list[Any]:
        """The states at rest."""
        raise NotImplementedError

    def run(self, x: Tensor, target: Tensor, *states: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def loss(self, y: Tensor, target: Tensor) -> Tensor:
        return ((self.layers[2](y) - target) ** 2).sum()


class Jelly(Network):
    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float64, **options: Any) -> None:
        super().__init__(width, dtype)
        one, two, _ = self.layers
        self.net = nn.Sequential(one, self.node(options), two, self.node(options)).to(dtype)

    def node(self, options: dict[str, Any]) -> nn.Module:
        return MFPNode(v_threshold=0.3, step_mode="m", learnable="order" not in options, **options)

    def neurons(self) -> Sequence[nn.Module]:
        return [self.net[1], self.net[3]]

    def start(self) -> list[Any]:
        jelly.reset_net(self.net)
        return base.extract_memories(self.net)

    def run(self, x: Tensor, target: Tensor, *states: Any) -> tuple[Any, ...]:
        base.load_memories(self.net, list(states))
        return self.loss(self.net(x), target), *base.extract_memories(self.net)


class Parallel(Network):
    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float64, **options: Any) -> None:
        super().__init__(width, dtype)
        self.lifs = [MFPLeakyParallel(0.8, threshold=0.3, learn_beta=True, **options).to(dtype) for _ in "ab"]

    def neurons(self) -> Sequence[nn.Module]:
        return self.lifs

    def start(self) -> list[Any]:
        return [None, None]

    def run(self, x: Tensor, target: Tensor, *mems: Any) -> tuple[Any, ...]:
        ends = []
        for layer, lif, mem in zip(self.layers, self.lifs, mems, strict=False):
            spikes, potential = lif(layer(x), mem)
            # a copy of the last step, because a view would keep the potentials of all
            x, ends = spikes.to(x.dtype), [*ends, potential[-1].clone()]
        return self.loss(x, target), *ends


class Steps(Parallel):
    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float64, **options: Any) -> None:
        Network.__init__(self, width, dtype)
        self.lifs = [MFPLeaky(0.8, threshold=0.3, learn_beta=True, **options).to(dtype) for _ in "ab"]

    def start(self) -> list[Any]:
        return [lif.reset_mem() for lif in self.lifs]

    def run(self, x: Tensor, target: Tensor, *mems: Any) -> tuple[Any, ...]:
        outputs, ends = [], list(mems)
        for step in x:
            for k, lif in enumerate(self.lifs):
                spikes, ends[k] = lif(self.layers[k](step), ends[k])
                step = spikes.to(x.dtype)
            outputs.append(step)
        return self.loss(torch.stack(outputs), target), *ends


class Functions(Network):
    def __init__(self, width: int = 8, dtype: torch.dtype = torch.float64, reset: str | None = None) -> None:
        super().__init__(width, dtype)
        self.taps = nn.Parameter(torch.tensor([1.0, 0.5, 0.25, -0.125], dtype=dtype))
        self.reset = reset

    def parameters(self) -> list[Tensor]:
        return [*super().parameters(), self.taps]

    def start(self) -> list[Any]:
        return [None] * 4

    def run(self, x: Tensor, target: Tensor, *states: Any) -> tuple[Any, ...]:
        ends = []
        for layer, state, own in zip(self.layers, states[::2], states[1::2], strict=False):
            chunk = functional.fire_chunk(
                layer(x), FIR(self.taps), 0.3, state, last_spikes=own, reset=self.reset
            )
            x, ends = chunk.spikes, [*ends, chunk.state, chunk.last_spikes]
        return self.loss(x, target), *ends


NETWORKS: dict[str, Callable[..., Network]] = {
    "MFPNode, a LIF": Jelly,
    "MFPNode, soft reset": lambda *a: Jelly(*a, v_reset=None),
    "MFPNode, no reset": lambda *a: Jelly(*a, reset=None),
    "MFPNode, order 4": lambda *a: Jelly(*a, order=4),
    "MFPNode, order 4, feedback": lambda *a: Jelly(*a, order=4, reset="feedback", reset_order=2),
    "MFPNode, taps, no reset": lambda *a: Jelly(*a, order=4, kernel="fir", reset=None),
    "MFPLeakyParallel": Parallel,
    "MFPLeakyParallel, no reset": lambda *a: Parallel(*a, reset_mechanism="none"),
    "MFPLeakyParallel, hard reset": lambda *a: Parallel(*a, reset_mechanism="zero"),
    "MFPLeaky": Steps,
    "fire_chunk": Functions,
    "fire_chunk, hard reset": lambda *a: Functions(*a, reset="zero"),
}


@pytest.fixture(autouse=True)
def _no_snntorch_neurons() -> Any:
    yield
    snntorch.SpikingNeuron.instances.clear()


def data(steps: int, dtype: torch.dtype, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(steps, batch, n, generator=generator).to(dtype) for n in (4, 2))
    return x, y


def in_chunks(network: Network, x: Tensor, target: Tensor, chunk: int = CHUNK) -> Tensor:
    total, states = x.new_zeros(()), network.start()
    for part, wanted in zip(x.split(chunk), target.split(chunk), strict=True):
        loss, *states = checkpoint(network.run, part, wanted, *states, use_reentrant=False)
        total = total + loss
    return total


def at_once(network: Network, x: Tensor, target: Tensor) -> Tensor:
    return network.run(x, target, *network.start())[0]


def results(network: Network, run: Callable[..., Tensor], x: Tensor, target: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    loss = run(network, leaf, target)
    return [loss.detach(), *torch.autograd.grad(loss, [leaf, *network.parameters()])]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("saving", [False, True])
def test_gradients_of_chunks_are_those_of_one_call(name: str, saving: bool) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    steps = T // 16 if name == "MFPLeaky" else T  # which takes one step at a time
    chunk = CHUNK // 16 if name == "MFPLeaky" else 250  # the last is a shorter one
    x, target = data(steps, torch.float64)

    def chunked(*arguments: Any) -> Tensor:
        return in_chunks(*arguments, chunk)

    expected = results(network, at_once, x, target)
    found = results(network, save_spikes_as_bits()(chunked) if saving else chunked, x, target)
    for ours, wanted in zip(found, expected, strict=True):
        size = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12 * size)
    assert all(float(wanted.abs().max()) > 0 for wanted in expected)
    # what was carried on mattered: without it the gradients are others
    with torch.no_grad():
        parts = zip(x.split(chunk), target.split(chunk), strict=True)
        alone = sum(float(at_once(network, *part)) for part in parts)
    assert not math.isclose(alone, float(expected[0]), rel_tol=1e-9)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "MFPLeaky"])
def test_memory_does_not_grow_with_time(name: str) -> None:
    """What is kept for backward, of the forward alone and at the peak of both; inputs are not counted."""
    torch.manual_seed(0)
    network = NETWORKS[name](64, torch.float32)
    held, peaks = [], []
    for steps in (T, 4 * T):
        x, target = data(steps, torch.float32)

        def step(x: Tensor = x, target: Tensor = target) -> None:
            torch.autograd.grad(in_chunks(network, x, target), network.parameters())

        step()
        held.append(held_bytes(lambda: in_chunks(network, x, target), CPU))  # noqa: B023
        peaks.append(peak_bytes(step, CPU))
    assert peaks[1] <= 1.5 * peaks[0]
    chunks, layer = T // CHUNK, CHUNK * 2 * 64 * 4  # bytes of what one layer gives in a chunk
    assert held[1] - held[0] <= 3 * chunks * layer / 10  # a state a chunk, and nothing of its steps
    x, target = data(T, torch.float32)
    assert held[0] < held_bytes(lambda: at_once(network, x, target), CPU) / 8
