"""Networks of LIFs, trained in their framework and lowered as they are: accuracy before and after.

    python -m benchmarks.trained_lifs --out runs/trained_lifs                      # goes on where it stopped
    python -m benchmarks.trained_lifs --out runs/trained_lifs --only spikingjelly
    python -m benchmarks.trained_lifs --out runs/trained_lifs --set training.epochs=10

SpikingJelly's FashionMNISTNet with LIFNode, and the network of snnTorch's tutorial 6 with Leaky, learn
Fashion-MNIST with 1-bit weights (8 bits in the first and last layer). Nothing of them is changed or trained
again. All three executions of the integer network are run. Writes benchmarks/results/trained_lifs.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from snntorch import Leaky
from snntorch.surrogate import fast_sigmoid
from spikingjelly.activation_based import neuron, surrogate
from spikingjelly.activation_based.model.parametric_lif_net import FashionMNISTNet
from torch import Tensor, nn

from mfp_neurons import report
from mfp_neurons.architectures.layers import Neurons
from mfp_neurons.architectures.spikingjelly_models import FromRest
from mfp_neurons.train import config
from mfp_neurons.train.checkpoint import write_json
from mfp_neurons.train.deployment import agreement, lower_checkpoint
from mfp_neurons.train.engine import BEST, Trainer, batches

RESULTS = Path(__file__).parent / "results"
COMMON = {
    "data": {"name": "fashion-mnist", "validation": 5000},
    "network": {"weight_bits": 1},
    "training": {"loss": "mse", "threads": 1},  # scores are firing rates
}
NETWORKS: dict[str, dict[str, Any]] = {
    "spikingjelly": {
        "data.time_steps": 4,
        "data.limit": 20_000,
        "network.architecture": "benchmarks.trained_lifs:spikingjelly_net",
        "network.options": {"channels": 32},
        "readout.train": 4,
        "readout.candidates": [4],
        "training.epochs": 2,
        "training.learning_rate": 2e-3,
    },
    "snntorch": {
        "data.time_steps": 25,
        "data.limit": 12_000,
        "network.architecture": "benchmarks.trained_lifs:TutorialNet",
        "readout.train": 25,
        "readout.candidates": [25],
        "training.epochs": 2,
        "training.learning_rate": 2e-3,
    },
}


def spikingjelly_net(
    features: tuple[int, ...], classes: int, time_steps: int, neurons: Neurons, *, channels: int
) -> nn.Module:
    """FashionMNISTNet with LIFNodes (tau = 2, hard reset), which ``neurons`` of a config do not replace."""
    return FromRest(
        FashionMNISTNet(
            channels, neuron.LIFNode, tau=2.0, detach_reset=True, surrogate_function=surrogate.ATan()
        )
    )


class TutorialNet(nn.Module):
    """The network of snnTorch's tutorial 6, its loop over time included; soft reset, beta = 0.5."""

    def __init__(self, features: tuple[int, ...], classes: int, time_steps: int, neurons: Neurons) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(features[0], 12, 5), Leaky(0.5, spike_grad=fast_sigmoid(25))
        self.conv2, self.lif2 = nn.Conv2d(12, 64, 5), Leaky(0.5, spike_grad=fast_sigmoid(25))
        self.fc1, self.lif3 = nn.Linear(64 * 4 * 4, classes), Leaky(0.5, spike_grad=fast_sigmoid(25))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Spikes [T, N, classes] of a sequence [T, N, C, 28, 28]."""
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        scores = []
        for x in x_seq:
            spk1, mem1 = self.lif1(self.pool(self.conv1(x)), mem1)
            spk2, mem2 = self.lif2(self.pool(self.conv2(spk1)), mem2)
            spk3, mem3 = self.lif3(self.fc1(spk2.flatten(1)), mem3)
            scores.append(spk3)
        return torch.stack(scores)


def lowered(name: str, out: Path, data_root: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Trains a network, unless that is done, and lowers it; accuracies in percent of the test images."""
    settings = json.loads(json.dumps(COMMON))
    for key, value in {**NETWORKS[name], "data.root": data_root, **overrides}.items():
        config.assign(settings, key, value)
    trainer = Trainer(config.from_dict(settings), out / name)
    before = trainer.run(resume=True)
    deployed = lower_checkpoint(out / name / BEST, data=trainer.data)
    print(agreement(deployed))  # raises where two executions differ in one score
    right = same = 0
    for samples, labels in batches(trainer.data.test, 500):
        with torch.no_grad():
            expected = deployed.model(trainer.data.sequence(samples)).argmax(1)
        answers = torch.from_numpy(deployed.network.run(trainer.data.integer_input(samples))).argmax(1)
        right += int((answers == labels).sum())
        same += int((answers == expected).sum())
    memory = deployed.network.memory()
    costs = report(deployed.model, trainer.data.sequence(trainer.data.test.samples[:1]))
    return {
        "config": before["config"],
        "accuracy_in_the_framework": before["test_accuracy"],
        "accuracy_in_integers": 100 * right / len(trainer.data.test),
        "same_answers": same,
        "test_images": len(trainer.data.test),
        "bytes_of_weights_and_parameters": memory.weights + memory.parameters,
        "bytes_kept_between_steps": memory.state_stream,
        "bytes_of_float_parameters": 4 * sum(p.numel() for p in deployed.model.parameters()),
        "bytes_of_float_potentials": costs.torch_state_bytes,
        "notes": list(deployed.network.notes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", action="append", choices=NETWORKS, help="this network alone")
    parser.add_argument("--data-root", default="data", help="folder that holds FashionMNIST/raw")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides settings")
    args = parser.parse_args()
    path = RESULTS / "trained_lifs.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in args.only or NETWORKS:
        overrides = dict(config.parse_override(s) for s in args.set)
        results[name] = lowered(name, args.out, args.data_root, overrides)
        write_json(path, results)


if __name__ == "__main__":
    main()
