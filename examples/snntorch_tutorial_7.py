"""snnTorch's tutorial 7, events: MFPLeakyParallel in the place of snn.Leaky takes all frames at once.

The tutorial reads N-MNIST. Here a simulated event camera sees Fashion-MNIST in three saccades;
DataConfig("tonic:NMNIST", root=..., time_steps=16) reads the recorded events.
"""

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

bits = dict(order=4, kernel_bits="pow2", reset_mechanism="none")
print("the swap: snn.Leaky(beta=0.5) -> MFPLeakyParallel(beta=0.5, threshold=0.3), with", bits)


def leaky() -> nn.Module:  # remembers the last 4 frames
    return MFPLeakyParallel(0.5, 0.3, surrogate.atan(), init_hidden=True, **bits)


class EachStep(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:  # synapses and pools: all steps as one large batch
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


torch.manual_seed(0)
net = nn.Sequential(
    EachStep(nn.Conv2d(2, 12, 5)),
    leaky(),
    EachStep(nn.MaxPool2d(2), nn.Conv2d(12, 32, 5)),
    leaky(),
    EachStep(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 5 * 5, 10)),
)
quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits
loop.fit(net, events, epochs=EPOCHS, loss=SF.ce_rate_loss())  # what the last layer gives at every frame
print(f"{loop.accuracy(net, events, images=IMAGES):.1f} % of the test images, as simulated events")

x = events.sequence(events.test.samples[:200])
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1], levels=1)  # save() keeps it, to_c() writes C99
driven = network.run_events(x)  # event by event: nothing waits for the end of a frame
with torch.no_grad():
    same = (torch.from_numpy(driven.scores).mean(0).argmax(1) == net(x).mean(0).argmax(1)).sum()
print(f"as integers, event by event: the same answer to {same} of {x.shape[1]}")
print(f"{driven.synaptic_operations / x.shape[1]:,.0f} additions an image")
