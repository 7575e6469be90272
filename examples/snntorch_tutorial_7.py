"""snnTorch's tutorial 7, events: as it is, and with MFPLeakyParallel, which takes all frames at once.

The tutorial reads N-MNIST. Here a simulated event camera sees Fashion-MNIST in three saccades;
DataConfig("tonic:NMNIST", root=..., time_steps=16) reads the recorded events.
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

EPOCHS, IMAGES = 2, 4_000
events = data.load(DataConfig("fashion-mnist-events", time_steps=16, limit=IMAGES))  # [n, 16, 2, 34, 34]


class EachStep(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:  # synapses and pools: all steps as one large batch
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class FrameByFrame(nn.Sequential):  # the tutorial's loop, here around its neurons
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self[0](frame) for frame in x])


def train(net: nn.Module, name: str) -> None:
    loop.fit(net, events, epochs=EPOCHS, loss=SF.ce_rate_loss())  # what comes last, at every frame
    print(
        f"{name}: {loop.accuracy(net, events, images=IMAGES):.1f} % of the test images, as simulated events"
    )


torch.manual_seed(0)
a = EachStep(nn.Conv2d(2, 12, 5))
b = EachStep(nn.MaxPool2d(2), nn.Conv2d(12, 32, 5))
c = EachStep(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 5 * 5, 10))
lif = dict(beta=0.5, spike_grad=surrogate.atan(), init_hidden=True)
leaky = [FrameByFrame(snn.Leaky(**lif)) for _ in range(3)]
train(deepcopy(nn.Sequential(a, leaky[0], b, leaky[1], c, leaky[2])), "snn.Leaky, float weights")
bits = dict(order=4, kernel_bits="pow2", reset_mechanism="none", threshold=0.3)  # remembers 4 frames
print("the swap: snn.Leaky(beta=0.5) -> MFPLeakyParallel(beta=0.5), with", bits)
net = nn.Sequential(a, MFPLeakyParallel(**lif, **bits), b, MFPLeakyParallel(**lif, **bits), c)
train(quantize_weights(net, bits=1), "the swap, 1-bit weights")  # the first and the last layer keep 8 bits

x = events.sequence(events.test.samples[:200])
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1], levels=1)  # save() keeps it, to_c() writes C99
driven = network.run_events(x)  # event by event: nothing waits for the end of a frame
with torch.no_grad():
    same = (torch.from_numpy(driven.scores).mean(0).argmax(1) == net(x).mean(0).argmax(1)).sum()
print(f"as integers, event by event: the same answer to {same} of {x.shape[1]}")
print(f"{driven.synaptic_operations / x.shape[1]:,.0f} additions an image")
