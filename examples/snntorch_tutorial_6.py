"""snnTorch's tutorial 6, a convolutional network: MFPLeakyParallel in the place of snn.Leaky, and no loop.

It uses Fashion-MNIST instead of MNIST, which DataConfig("torchvision:MNIST", download=True) would read.
"""

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

# %% The tutorial's neuron, without reset: it remembers 4 steps, by taps that are powers of two
bits = dict(order=4, kernel_bits="pow2", reset_mechanism="none")
print("the swap: snn.Leaky(beta=0.5) -> MFPLeakyParallel(beta=0.5, threshold=0.3), with", bits)


def leaky() -> nn.Module:  # a threshold of 0.3 suits the small currents of a layer without batch norm
    return MFPLeakyParallel(0.5, 0.3, surrogate.fast_sigmoid(slope=25), init_hidden=True, **bits)


# %% Its layers. All steps go through synapses and pools as one large batch
class EachStep(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:  # [T, N, *] -> [T, N, *]
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


torch.manual_seed(0)
net = nn.Sequential(
    EachStep(nn.Conv2d(1, 12, 5), nn.MaxPool2d(2)),
    leaky(),
    EachStep(nn.Conv2d(12, 64, 5), nn.MaxPool2d(2)),
    leaky(),
    EachStep(nn.Flatten(), nn.Linear(64 * 4 * 4, 10)),
)
net = quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits

# %% Training on the last layer's scores: spike counts of neurons without reset do not grade a picture
loop.fit(net, fashion, epochs=EPOCHS, loss=SF.ce_rate_loss())
print(f"{loop.accuracy(net, fashion, images=IMAGES):.1f} % of the test images")

# %% What it costs, and the integer network
x, labels = fashion.sequence(fashion.test.samples[:IMAGES]), fashion.test.labels[:IMAGES]
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # save() keeps it, to_c() writes C99
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
print(f"as integers: {100 * (answers == labels).float().mean():.1f} % of them")
