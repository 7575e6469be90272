"""snnTorch's tutorial 6, a convolutional network: as it is, and with MFPLeakyParallel and no loop.

It uses Fashion-MNIST instead of MNIST, which DataConfig("torchvision:MNIST", download=True) would read.
"""

from copy import deepcopy

import snntorch as snn
import snntorch.functional as SF
import torch
from snntorch import surrogate
from torch import Tensor, nn

from mfp_neurons import deploy, quantize_weights, report
from mfp_neurons.snntorch import MFPLeakyParallel
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 10_000
fashion = data.load(DataConfig("fashion-mnist", time_steps=8, limit=IMAGES))  # the same image at every step


# %% Its layers. All steps go through synapses and pools as one large batch
class EachStep(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:  # [T, N, *] -> [T, N, *]
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class OneByOne(nn.Sequential):  # the tutorial's loop, here around its neurons
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self[0](step) for step in x])


torch.manual_seed(0)
a = EachStep(nn.Conv2d(1, 12, 5), nn.MaxPool2d(2))
b = EachStep(nn.Conv2d(12, 64, 5), nn.MaxPool2d(2))
c = EachStep(nn.Flatten(), nn.Linear(64 * 4 * 4, 10))


def train(net: nn.Module, name: str) -> None:
    loop.fit(net, fashion, epochs=EPOCHS, loss=SF.ce_rate_loss())
    print(f"{name}: {loop.accuracy(net, fashion, images=IMAGES):.1f} % of the test images")


# %% The tutorial's network, and one whose neurons do not reset: they remember 4 steps, by power-of-two taps
# It is trained on the last layer's scores: spike counts of neurons without reset do not grade a picture
lif = dict(beta=0.5, spike_grad=surrogate.fast_sigmoid(slope=25), init_hidden=True)
leaky = [OneByOne(snn.Leaky(**lif)) for _ in range(3)]
train(deepcopy(nn.Sequential(a, leaky[0], b, leaky[1], c, leaky[2])), "snn.Leaky, float weights")
bits = dict(order=4, kernel_bits="pow2", reset_mechanism="none", threshold=0.3)  # currents are small here
print("the swap: snn.Leaky(beta=0.5) -> MFPLeakyParallel(beta=0.5), with", bits)
net = nn.Sequential(a, MFPLeakyParallel(**lif, **bits), b, MFPLeakyParallel(**lif, **bits), c)
train(quantize_weights(net, bits=1), "the swap, 1-bit weights")  # the first and the last layer keep 8 bits

# %% What it costs, and the integer network
x, labels = fashion.sequence(fashion.test.samples[:IMAGES]), fashion.test.labels[:IMAGES]
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # save() keeps it, to_c() writes C99
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
print(f"as integers: {100 * (answers == labels).float().mean():.1f} % of them")
