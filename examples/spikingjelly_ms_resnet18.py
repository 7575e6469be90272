"""SpikingJelly's MS-ResNet-18, whose shortcuts add up currents: as it is and with memory-free neurons."""

import torch
from spikingjelly.activation_based import neuron, surrogate
from spikingjelly.activation_based.model.ms_resnet import ms_resnet18
from torch import nn

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 4_000
WIDTH = 32  # 64 is ResNet-18's

lif = {"tau": 4 / 3, "decay_input": False, "v_threshold": 0.5, "surrogate_function": surrogate.Rect(2.0)}
shape = {"T": 4, "in_channels": 1, "base_channels": WIDTH, "num_classes": 10}
fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))


def build(spiking_neuron: type, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return ms_resnet18(**shape, spiking_neuron=spiking_neuron, **lif, **options)


def train(net: nn.Module, name: str) -> None:
    loop.fit(net, fashion, epochs=EPOCHS)
    accuracy = loop.accuracy(net, fashion, images=IMAGES)
    print(f"{name}: {accuracy:.1f} % of the first {IMAGES:,} test images")


train(build(neuron.LIFNode), "LIFNode, float weights")
print("the swap: spiking_neuron=neuron.LIFNode  ->  spiking_neuron=MFPNode, order=2, reset=None")
net = build(MFPNode, order=2, reset=None)
quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits
train(net, "MFPNode, 1-bit weights")

x = fashion.sequence(fashion.test.samples[:200])  # [T, N, 1, 28, 28]: the image at every step
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).argmax(1)
with torch.no_grad():
    same = (answers == net(x).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
