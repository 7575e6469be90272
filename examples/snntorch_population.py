"""snnTorch's population coding: 500 output neurons vote for 10 classes, and one step in time is enough."""

import snntorch.functional as SF
import torch
from torch import Tensor, nn

from mfp_neurons import deploy, quantize_weights, report
from mfp_neurons.snntorch import MFPLeakyParallel
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 4, 10_000
fashion = data.load(DataConfig("fashion-mnist", time_steps=1, limit=IMAGES))  # the tutorial's data

print("the swap: snn.Leaky(beta=0.9)  ->  MFPLeakyParallel(beta=0.9, order=1, reset_mechanism='none')")


def leaky() -> nn.Module:  # at one step there is no past: order 1 says so, and nothing is kept
    return MFPLeakyParallel(beta=0.9, order=1, init_hidden=True, reset_mechanism="none")


class Vote(nn.Module):
    """The rate of each class: the mean over the neurons that stand for it."""

    def forward(self, spikes: Tensor) -> Tensor:  # [T, N, 10 * neurons] -> [T, N, 10]
        return spikes.unflatten(2, (10, -1)).mean(3)


def network(outputs: int) -> nn.Sequential:
    torch.manual_seed(0)
    synapses = nn.Linear(784, 128), nn.Linear(128, outputs)
    net = nn.Sequential(nn.Flatten(2), synapses[0], leaky(), synapses[1], leaky(), Vote())
    return quantize_weights(net, bits=1, first=1, last=1)


loss = SF.mse_count_loss(correct_rate=1.0, incorrect_rate=0.0)
for outputs in (10, 500):
    net = loop.fit(network(outputs), fashion, epochs=EPOCHS, batch_size=128, loss=loss)
    print(f"{outputs} output neurons: {loop.accuracy(net, fashion, images=IMAGES):.1f} % of the test images")

x, labels = fashion.sequence(fashion.test.samples[:IMAGES]), fashion.test.labels[:IMAGES]
print(report(net, x[:, :1]))
integers = deploy.lower(net, x[:, :1])  # save() keeps it, to_c() writes C99
answers = torch.from_numpy(integers.run(x)).mean(0).argmax(1)
print(f"as integers: {100 * (answers == labels).float().mean():.1f} % of them")
