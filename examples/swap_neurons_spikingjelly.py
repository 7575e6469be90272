"""SpikingJelly: train the same small network twice, with LIFNode and with MFPNode in its place."""

import functools
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from mfp_neurons import MFPNode

digits = load_digits()
rows = torch.tensor(digits.images, dtype=torch.float32).div(16).transpose(0, 1)  # [T = 8 rows, N, 8 pixels]
labels = torch.tensor(digits.target)
train = 1400  # samples; the rest is the test split


def network(neuron_class: Callable[..., nn.Module]) -> nn.Sequential:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        spikes = neuron_class(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True)
        return [layer.Linear(inputs, outputs, bias=False), layer.BatchNorm1d(outputs), spikes]

    net = nn.Sequential(*block(8, 64), *block(64, 64), layer.Linear(64, 10))
    functional.set_step_mode(net, "m")  # all time steps in one call
    return net


def accuracy_after_training(net: nn.Module) -> float:
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(15):
        for batch in torch.randperm(train).split(100):
            loss = nn.functional.cross_entropy(net(rows[:, batch]).mean(0), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            functional.reset_net(net)
    net.eval()
    with torch.no_grad():
        guess = net(rows[:, train:]).mean(0).argmax(1)
    return 100 * (guess == labels[train:]).float().mean().item()


neurons = {
    "LIFNode": neuron.LIFNode,
    "MFPNode, reset=None": functools.partial(MFPNode, reset=None),  # without reset= it is LIFNode
}
for name, make in neurons.items():
    torch.manual_seed(0)
    accuracy = accuracy_after_training(network(make))
    print(f"{name}: {accuracy:.1f} % of the test digits")
