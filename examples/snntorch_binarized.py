"""snnTorch's binarized network: quantize_weights in the place of binary layers written by hand.

One call makes ordinary layers 1-bit (codes -1 and +1, a scale a channel, gradients straight through), and the
neurons without reset need no potential, so what is left is bits.
"""

import snntorch.functional as SF
import torch
from torch import Tensor, nn

from mfp_neurons import deploy, quantize_weights, report
from mfp_neurons.quantize import codes
from mfp_neurons.snntorch import MFPLeakyParallel
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 10_000
fashion = data.load(DataConfig("fashion-mnist", time_steps=10, limit=IMAGES))  # the tutorial's data

print("the swap: BinaryConv2d, BinaryLinear  ->  nn.Conv2d, nn.Linear and quantize_weights(net, bits=1)")
print("          snn.Leaky(beta=0.44)  ->  MFPLeakyParallel(beta=0.44, order=4, ..., reset_mechanism='none')")


def leaky() -> nn.Module:  # remembers the last 4 steps
    return MFPLeakyParallel(beta=0.44, init_hidden=True, order=4, kernel_bits="pow2", reset_mechanism="none")


class EachStep(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:  # synapses, norms and pools: all steps as one large batch
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


torch.manual_seed(0)
net = nn.Sequential(
    EachStep(nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.MaxPool2d(2)),
    leaky(),
    EachStep(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32), nn.MaxPool2d(2)),
    leaky(),
    EachStep(nn.Flatten(), nn.Linear(32 * 5 * 5, 10)),
)
quantize_weights(net, bits=1, first=1, last=1)  # every layer, as in the tutorial
loop.fit(net, fashion, epochs=EPOCHS, learning_rate=7e-3, loss=SF.ce_rate_loss())
print(f"{loop.accuracy(net, fashion, images=IMAGES):.1f} % of the test images")
print("codes of the second convolution:", codes(net[2][0]).codes.unique().tolist())

x, labels = fashion.sequence(fashion.test.samples[:IMAGES]), fashion.test.labels[:IMAGES]
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # batch norms become thresholds of whole numbers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
print(f"as integers: {100 * (answers == labels).float().mean():.1f} % of them")
network.save("binarized.safetensors")  # network.to_c("folder") writes C99
