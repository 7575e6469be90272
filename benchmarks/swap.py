"""The swap, measured: networks of the frameworks' tutorials, with their own neurons and with ours.

    python -m benchmarks.swap                                              # trains what the results lack
    python -m benchmarks.swap --tutorial spikingjelly-rsnn --form original
    python -m benchmarks.swap --show                                       # the table from the results alone

Each network is built and trained on Fashion-MNIST as its tutorial says (layers, decay, surrogate, loss,
optimizer, batch), for few iterations. All forms of a network start from the same weights and get the same
batches and random spikes. Writes benchmarks/results/swap.json and the table in docs/howto/swap.md.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import snntorch as snn
import torch
from snntorch import functional as leaky_losses
from snntorch import surrogate as leaky_surrogate
from spikingjelly.activation_based import encoding, functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from benchmarks import machine
from benchmarks.evidence.page import between
from mfp_neurons import MFPNode
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from mfp_neurons.train import tables
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.train.config import DataConfig
from mfp_neurons.train.datasets.images import Labeled, read_fashion_mnist

RESULTS = Path(__file__).parent / "results" / "swap.json"
PAGE = Path(__file__).parents[1] / "docs" / "howto" / "swap.md"
SEEDS, CLASSES, TEST_IMAGES, CHUNK = (0, 1, 2), 10, 2000, 500


# --- the neurons ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """Which neurons a network is built of.

    Attributes:
        label: head of the column in the table.
        leaky: takes ``beta`` and ``spike_grad``, as ``snn.Leaky``.
        lif: takes ``tau`` and what every neuron of SpikingJelly takes, as its ``LIFNode``.
        integrator: takes what every neuron of SpikingJelly takes, as its ``IFNode``.
    """

    name: str
    label: str
    leaky: Callable[..., nn.Module]
    lif: Callable[..., nn.Module]
    integrator: Callable[..., nn.Module]


def leaky_with_raised_threshold(beta: float, **options: Any) -> nn.Module:
    """No reset, and a threshold that a constant input of 0.15 just reaches: layers without a batch norm start
    with currents of standard deviation 0.3, whatever their width."""
    threshold = max(1.0, 0.15 / (1 - beta))
    return MFPLeakyParallel(beta, threshold, reset_mechanism="none", **options)


AS_IF_NODE = partial(MFPNode, tau=math.inf, decay_input=False)

FORMS = {
    one.name: one
    for one in (
        Form("original", "the framework's own", snn.Leaky, neuron.LIFNode, neuron.IFNode),
        Form("reset", "ours, reset kept", MFPLeaky, MFPNode, AS_IF_NODE),
        Form(
            "reset-order-8",
            "reset kept, `order=8`",
            partial(MFPLeakyParallel, order=8),
            partial(MFPNode, order=8),
            partial(AS_IF_NODE, order=8),
        ),
        Form(
            "reset-free",
            "no reset, nothing else changed",
            partial(MFPLeakyParallel, reset_mechanism="none"),
            partial(MFPNode, reset=None),
            partial(AS_IF_NODE, reset=None),
        ),
        Form(
            "reset-free-scaled",
            "no reset, scaled",
            leaky_with_raised_threshold,
            partial(MFPNode, decay_input=False, reset=None),
            partial(AS_IF_NODE, reset=None),
        ),
    )
}


# --- the networks -----------------------------------------------------------------------------------------

Output = tuple[
    Tensor, Tensor | None
]  # spikes and, where the neurons return them, potentials: [T, N, classes]


class Layered(nn.Module):
    """Synapses and neurons in turns. A layer computes all T steps before the next; this changes no result.

    A picture that is shown at every step comes as one step, [1, N, *], and meets the first synapses once.
    """

    def __init__(self, steps: int, *layers: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.steps = steps
        self.synapses = nn.ModuleList(synapse for synapse, _ in layers)
        self.neurons = nn.ModuleList(spiking for _, spiking in layers)

    def forward(self, x: Tensor) -> Output:
        potentials = None
        for synapse, spiking in zip(self.synapses, self.neurons, strict=True):
            currents = synapse(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            x, potentials = fire(spiking, currents.expand(self.steps, *currents.shape[1:]))
        return x, potentials


def fire(spiking: nn.Module, currents: Tensor) -> Output:
    """What a neuron makes of a sequence, starting from rest."""
    if isinstance(spiking, snn.Leaky):
        mem = spiking.reset_mem()
        spikes, potentials = [], []
        for current in currents:
            spk, mem = spiking(current, mem)
            spikes.append(spk)
            potentials.append(mem)
        return torch.stack(spikes), torch.stack(potentials)
    if isinstance(spiking, MFPLeakyParallel):
        spk, mem = spiking(currents)
        return spk, mem
    functional.reset_net(spiking)
    return spiking(currents), None


class Recurrent(nn.Module):
    """Reads a picture column by column; the hidden neurons see their own last spikes, through weights."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        hidden = form.integrator(surrogate_function=surrogate.ATan(), detach_reset=True)
        self.layers = nn.Sequential(
            layer.Linear(28, 32),
            layer.LinearRecurrentContainer(hidden, in_features=32, out_features=32, bias=True),
            layer.Linear(32, CLASSES),
            form.integrator(surrogate_function=surrogate.ATan()),
        )
        functional.set_step_mode(self.layers, "m")

    def forward(self, x: Tensor) -> Output:
        functional.reset_net(self.layers)
        return self.layers(x), None


def fully_connected(form: Form) -> nn.Module:
    return Layered(
        25,
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 1000)), form.leaky(beta=0.95)),
        (nn.Linear(1000, CLASSES), form.leaky(beta=0.95)),
    )


def convolutional(form: Form, *, channels: tuple[int, int], beta: float, steps: int) -> nn.Module:
    first, second = channels
    leaky = partial(form.leaky, beta=beta, spike_grad=leaky_surrogate.fast_sigmoid(slope=25))
    return Layered(
        steps,
        (nn.Sequential(nn.Conv2d(1, first, 5), nn.MaxPool2d(2)), leaky()),
        (nn.Sequential(nn.Conv2d(first, second, 5), nn.MaxPool2d(2)), leaky()),
        (nn.Sequential(nn.Flatten(), nn.Linear(second * 4 * 4, CLASSES)), leaky()),
    )


def one_layer(form: Form) -> nn.Module:
    synapse = nn.Sequential(nn.Flatten(), nn.Linear(784, CLASSES, bias=False))
    lif = form.lif(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")
    return Layered(100, (synapse, lif))


# --- the tutorials ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tutorial:
    """A network and its training, as the tutorial has them but for the number of iterations.

    Attributes:
        read: makes inputs [T, N, *] of pictures [N, 1, 28, 28] between 0 and 1.
        loss: of spikes, potentials and labels.
    """

    name: str
    label: str
    network: Callable[[Form], nn.Module]
    read: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Any, Tensor], Tensor]
    iterations: int
    batch: int
    learning_rate: float


def still(pictures: Tensor) -> Tensor:
    return pictures.unsqueeze(0)


def poisson(pictures: Tensor) -> Tensor:
    spikes: Tensor = encoding.PoissonEncoder()(pictures.expand(100, *pictures.shape))
    return spikes


def columns(pictures: Tensor) -> Tensor:
    return pictures.squeeze(1).permute(2, 0, 1)


def sum_over_potentials(spikes: Tensor, potentials: Tensor, labels: Tensor) -> Tensor:
    return sum((cross_entropy(potential, labels) for potential in potentials), torch.zeros(()))


def on_spikes(loss: Callable[..., Tensor]) -> Callable[[Tensor, Any, Tensor], Tensor]:
    return lambda spikes, potentials, labels: loss(spikes, labels).sum()


def rate_error(spikes: Tensor, labels: Tensor) -> Tensor:
    return mse_loss(spikes.mean(0), one_hot(labels, CLASSES).float())


TUTORIALS = {
    one.name: one
    for one in (
        Tutorial(
            "snntorch-5",
            "snnTorch, tutorial 5: 784-1000-10, β = 0.95, 25 steps, loss on potentials",
            fully_connected,
            still,
            sum_over_potentials,
            iterations=40,
            batch=128,
            learning_rate=5e-4,
        ),
        Tutorial(
            "snntorch-6",
            "snnTorch, tutorial 6: two convolutions (12, 64), β = 0.5, 10 of its 50 steps, `ce_rate_loss`",
            partial(convolutional, channels=(12, 64), beta=0.5, steps=10),
            still,
            on_spikes(leaky_losses.ce_rate_loss()),
            iterations=60,
            batch=128,
            learning_rate=1e-2,
        ),
        Tutorial(
            "snntorch-quickstart",
            "snnTorch, quickstart: two convolutions (8, 16), β = 0.9, 25 steps, `mse_count_loss`",
            partial(convolutional, channels=(8, 16), beta=0.9, steps=25),
            still,
            on_spikes(leaky_losses.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)),
            iterations=200,
            batch=128,
            learning_rate=2e-3,
        ),
        Tutorial(
            "spikingjelly-lif-fc",
            "SpikingJelly, `lif_fc_mnist`: 784-10, `tau=2`, 100 steps of random spikes",
            one_layer,
            poisson,
            on_spikes(rate_error),
            iterations=90,
            batch=64,
            learning_rate=1e-3,
        ),
        Tutorial(
            "spikingjelly-rsnn",
            "SpikingJelly, `rsnn_sequential_fmnist`: 28-32-10, recurrent, IF neurons, a column a step",
            Recurrent,
            columns,
            on_spikes(rate_error),
            iterations=234,
            batch=128,
            learning_rate=1e-3,
        ),
    )
}


# --- training ---------------------------------------------------------------------------------------------


def train(
    tutorial: Tutorial, form: Form, seed: int, data: tuple[Labeled, Labeled], iterations: int | None = None
) -> dict[str, Any]:
    """Trains a network and tests it by its spike counts. What is random follows from ``seed``, not the form.

    Args:
        data: pictures [n, 28, 28], 0 to 255, and labels, to train on and to test with.
        iterations: None: the tutorial's.
    """
    (pictures, labels), (test, test_labels) = data

    def read(of: Tensor) -> Tensor:
        return tutorial.read(of.unsqueeze(1) / 255)

    torch.manual_seed(seed)
    net = tutorial.network(form)
    torch.manual_seed(seed)  # a form may have drawn numbers of its own
    order = torch.randperm(len(pictures))
    optimizer = torch.optim.Adam(net.parameters(), lr=tutorial.learning_rate)
    for iteration in range(tutorial.iterations if iterations is None else iterations):
        places = torch.arange(iteration * tutorial.batch, (iteration + 1) * tutorial.batch) % len(order)
        batch = order[places]
        spikes, potentials = net(read(pictures[batch]))
        loss = tutorial.loss(spikes, potentials, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    correct = 0
    with torch.no_grad():
        for chunk in torch.arange(len(test)).split(CHUNK):
            spikes, _ = net(read(test[chunk]))
            correct += int((spikes.sum(0).argmax(1) == test_labels[chunk]).sum())
    accuracy = 100 * correct / len(test)
    return {"tutorial": tutorial.name, "form": form.name, "seed": seed, "test_accuracy": accuracy}


def missing(runs: Sequence[dict[str, Any]], names: Iterable[str], forms: Iterable[str]) -> list[Any]:
    """(tutorial, form, seed) of what is asked for and has no result."""
    done = {(run["tutorial"], run["form"], run["seed"]) for run in runs}
    wanted = [(name, form, seed) for name in names for form in forms for seed in SEEDS]
    return [one for one in wanted if one not in done]


def table(runs: Sequence[dict[str, Any]]) -> str:
    """A row for each tutorial: mean accuracy of each form, behind it that of each seed."""
    rows = []
    for tutorial in TUTORIALS.values():
        cells = [f"{tutorial.label}; {tutorial.iterations} iterations of {tutorial.batch}"]
        for form in FORMS:
            of_form = [r for r in runs if (r["tutorial"], r["form"]) == (tutorial.name, form)]
            each = [run["test_accuracy"] for run in sorted(of_form, key=lambda run: run["seed"])]
            seeds = " ".join(f"{one:.1f}" for one in each)
            cells.append(f"**{statistics.fmean(each):.1f}** ({seeds})" if each else "")
        rows.append(cells)
    return tables.markdown(("network", *(form.label for form in FORMS.values())), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tutorial", action="append", choices=TUTORIALS, help="this one; may be repeated")
    parser.add_argument("--form", action="append", choices=FORMS, help="this one; may be repeated")
    parser.add_argument("--data-root", default="data", help="folder that holds FashionMNIST/raw")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file; its runs are not done again")
    parser.add_argument("--show", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(args.out.read_text()) if args.out.exists() else {"runs": []}
    wanted = [] if args.show else missing(found["runs"], args.tutorial or TUTORIALS, args.form or FORMS)
    if wanted:
        training, (test, labels) = read_fashion_mnist(DataConfig("fashion-mnist", root=args.data_root))
        data = training, (test[:TEST_IMAGES], labels[:TEST_IMAGES])
        found["machine"] = machine.facts(torch.device("cpu"))
    for name, form, seed in wanted:
        found["runs"].append(train(TUTORIALS[name], FORMS[form], seed, data))
        print(found["runs"][-1], flush=True)
        write_json(args.out, found)
    if args.out == RESULTS:
        PAGE.write_text(between(PAGE.read_text(), "tutorials", table(found["runs"])))


if __name__ == "__main__":
    main()
