"""SpikingJelly's Spikformer with patches of 4 x 4, as it is and memory-free with 1-bit weights."""

import torch
from spikingjelly.activation_based import neuron, surrogate
from spikingjelly.activation_based.model.spikformer import Spikformer
from torch import nn

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 4_000
DIMS, DEPTH = 64, 2  # 384 and 4 are spikformer_cifar10's

lif = {"tau": 2.0, "v_threshold": 0.5, "surrogate_function": surrogate.ATan(), "detach_reset": True}
image = {"in_channels": 1, "img_size_h": 28, "img_size_w": 28, "patch_size": 4, "num_classes": 10}
shape = {"T": 4, "embed_dims": DIMS, "num_heads": 4, "depths": DEPTH}
fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))


def build(spiking_neuron: type, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return Spikformer(**image, **shape, spiking_neuron=spiking_neuron, **lif, **options)


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
