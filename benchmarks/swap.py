"""The swap, measured: networks of the frameworks' tutorials with their own neurons, and with ours in their place.

    python -m benchmarks.swap                                     # what is not in the results yet: hours, one core
    python -m benchmarks.swap --tutorial snntorch-5 --form original
    python -m benchmarks.swap --show                              # the table of docs/howto/swap.md from the results

Every network is trained on Fashion-MNIST as its page says (layers, decay, surrogate, steps, loss, optimizer,
batch), for few iterations. All forms of a network get the same initial weights, batches and random spikes.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snntorch as snn
import snntorch.functional
import torch
from snntorch import surrogate as leaky_surrogate
from spikingjelly.activation_based import encoding, functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from benchmarks import machine
from mfp_neurons import MFPNode
from mfp_neurons.snntorch import MFPLeakyParallel
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.train.config import DataConfig
from mfp_neurons.train.datasets.images import read_fashion_mnist

RESULTS = Path(__file__).parent / "results" / "swap.json"
PAGE = Path(__file__).parents[1] / "docs" / "howto" / "swap.md"
SEEDS = (0, 1, 2)
CLASSES = 10


# --- the networks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """Which neurons a network is built of.

    Attributes:
        leaky: takes the arguments of ``snn.Leaky``.
        lif: takes those of SpikingJelly's ``LIFNode``.
        integrator: takes those of its ``IFNode``.
    """

    name: str
    label: str
    leaky: Callable[..., nn.Module]
    lif: Callable[..., nn.Module]
    integrator: Callable[..., nn.Module]
    prepare: Any = None


class Layered(nn.Module):
    """Synapses and neurons in turns; every layer computes all time steps before the next one starts.

    A picture that is shown at every step comes as one step: the first synapses compute it once.
    """

    def __init__(self, steps: int, *layers: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.steps = steps
        self.synapses = nn.ModuleList(synapse for synapse, _ in layers)
        self.neurons = nn.ModuleList(neuron for _, neuron in layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """From [T, N, *], or [1, N, *], to the last layer's spikes and potentials [T, N, classes]."""
        potentials = None
        for synapse, one in zip(self.synapses, self.neurons, strict=True):
            current = synapse(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            x, potentials = fire(one, current.expand(self.steps, *current.shape[1:]))
        return x, potentials


def fire(one: nn.Module, currents: Tensor) -> tuple[Tensor, Tensor | None]:
    """Spikes of a neuron from rest, and its potentials where it returns them."""
    if isinstance(one, snn.Leaky):
        mem, steps = one.reset_mem(), []
        for current in currents:
            spk, mem = one(current, mem)
            steps.append((spk, mem))
        one.reset_mem()
        return torch.stack([spk for spk, _ in steps]), torch.stack([mem for _, mem in steps])
    if isinstance(one, snn.LIF):
        return one(currents)
    functional.reset_net(one)
    return one(currents), None


@dataclass(frozen=True)
class Tutorial:
    """A network of a tutorial and how it is trained there; ``iterations`` is our choice.

    Attributes:
        network: from the neurons to a module, from inputs to (spikes, potentials), [T, N, classes].
        read: from pictures [N, 1, 28, 28] in [0, 1] to inputs [T, N, *].
        loss: of (spikes, potentials, labels).
    """

    name: str
    label: str
    network: Callable[[Form], nn.Module]
    read: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Any, Tensor], Tensor]
    iterations: int
    batch: int
    learning_rate: float


def fully_connected(form: Form) -> nn.Module:
    return Layered(
        25,
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 1000)), form.leaky(beta=0.95)),
        (nn.Linear(1000, CLASSES), form.leaky(beta=0.95)),
    )


def convolutional(form: Form, channels: tuple[int, int], steps: int, beta: float) -> nn.Module:
    def spiking() -> nn.Module:
        return form.leaky(beta=beta, spike_grad=leaky_surrogate.fast_sigmoid(slope=25))

    first, second = channels
    return Layered(
        steps,
        (nn.Sequential(nn.Conv2d(1, first, 5), nn.MaxPool2d(2)), spiking()),
        (nn.Sequential(nn.Conv2d(first, second, 5), nn.MaxPool2d(2)), spiking()),
        (nn.Sequential(nn.Flatten(), nn.Linear(second * 4 * 4, CLASSES)), spiking()),
    )


def one_layer(form: Form) -> nn.Module:
    synapse = nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES, bias=False))
    return Layered(100, (synapse, form.lif(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")))


class Recurrent(nn.Module):
    """Rows of a picture in, one a step; the hidden neurons see their own last spikes through weights."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        inner = form.integrator(surrogate_function=surrogate.ATan(), detach_reset=True)
        self.layers = nn.Sequential(
            layer.Linear(28, 32),
            layer.LinearRecurrentContainer(inner, in_features=32, out_features=32, bias=True),
            layer.Linear(32, CLASSES),
            form.integrator(surrogate_function=surrogate.ATan()),
        )
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        functional.reset_net(self.layers)
        return self.layers(x), None


class Plain(Recurrent):
    def __init__(self, form: Form) -> None:
        super().__init__(form)
        self.layers[1] = form.integrator(surrogate_function=surrogate.ATan())
        functional.set_step_mode(self, "m")

def still(images: Tensor) -> Tensor:
    return images.unsqueeze(0)


def poisson(images: Tensor) -> Tensor:
    return encoding.PoissonEncoder()(images.expand(100, *images.shape))


def columns(images: Tensor) -> Tensor:
    return images.squeeze(1).permute(2, 0, 1)


def potentials_at_every_step(spikes: Tensor, potentials: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([cross_entropy(step, labels) for step in potentials]).sum()


def counts(spikes: Tensor, potentials: Any, labels: Tensor) -> Tensor:
    return snntorch.functional.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)(spikes, labels)


def spikes_at_every_step(spikes: Tensor, potentials: Any, labels: Tensor) -> Tensor:
    return snntorch.functional.ce_rate_loss()(spikes, labels).sum()


def rates(spikes: Tensor, potentials: Any, labels: Tensor) -> Tensor:
    return mse_loss(spikes.mean(0), one_hot(labels, CLASSES).float())


def tutorial_6(form: Form) -> nn.Module:
    return convolutional(form, (12, 64), steps=50, beta=0.5)


def quickstart(form: Form) -> nn.Module:
    return convolutional(form, (8, 16), steps=25, beta=0.9)


TUTORIALS = {
    one.name: one
    for one in (
        Tutorial("snntorch-5", "snnTorch 5", fully_connected, still, potentials_at_every_step, 30, 128, 5e-4),
        Tutorial("snntorch-6", "snnTorch 6", tutorial_6, still, spikes_at_every_step, 60, 128, 1e-2),
        Tutorial("snntorch-quickstart", "snnTorch quickstart", quickstart, still, counts, 200, 128, 2e-3),
        Tutorial("spikingjelly-lif-fc", "SpikingJelly lif_fc", one_layer, poisson, rates, 300, 64, 1e-3),
        Tutorial("spikingjelly-rsnn", "SpikingJelly rsnn", Recurrent, columns, rates, 469, 128, 1e-3),
        Tutorial("plain", "SpikingJelly rsnn", Plain, columns, rates, 469, 128, 1e-3),
    )
}


# --- the neurons ------------------------------------------------------------------------------------------


def reset_free_integrator(**options: Any) -> nn.Module:
    return MFPNode(tau=math.inf, decay_input=False, **options)


FORMS = {
    one.name: one
    for one in (
        Form("original", "original", snn.Leaky, neuron.LIFNode, neuron.IFNode),
        Form("reset-free", "no reset", MFPLeakyParallel, MFPNode, reset_free_integrator),
    )
}


# --- training ---------------------------------------------------------------------------------------------


def load(root: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    train, test = read_fashion_mnist(DataConfig("fashion-mnist", root=root))
    return tuple((images.unsqueeze(1).float() / 255, labels) for images, labels in (train, test))


def train(tutorial: Tutorial, form: Form, seed: int, data: Any, test_images: int, iterations=None) -> dict[str, Any]:
    """Trains one network and tests it; everything random follows from ``seed``, and is the same for all forms."""
    (images, labels), (test, test_labels) = data
    torch.manual_seed(seed)
    net = tutorial.network(form)
    torch.manual_seed(seed)
    picked = torch.randperm(len(images))
    optimizer = torch.optim.Adam(net.parameters(), lr=tutorial.learning_rate)
    started = time.perf_counter()
    losses = []
    for i in range(iterations or tutorial.iterations):
        batch = picked[torch.arange(i * tutorial.batch, (i + 1) * tutorial.batch) % len(picked)]
        x = tutorial.read(images[batch])
        if i == 0 and form.prepare:
            form.prepare(net, x)
        spikes, potentials = net(x)
        loss = tutorial.loss(spikes, potentials, labels[batch])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - started
    correct, fired = 0, []
    with torch.no_grad():
        for chunk in torch.arange(test_images).split(500):
            spikes, _ = net(tutorial.read(test[chunk]))
            correct += (spikes.sum(0).argmax(1) == test_labels[chunk]).sum().item()
            fired.append(spikes.mean())
    return {
        "accuracy": 100 * correct / test_images,
        "seconds": round(seconds, 1),
        "loss": sum(losses[-10:]) / 10,
        "rate": torch.stack(fired).mean().item(),
        "total": time.perf_counter() - started,
    }
