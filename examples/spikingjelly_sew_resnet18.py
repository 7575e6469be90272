"""SpikingJelly's SEW-ResNet-18, as it is and with memory-free neurons and 1-bit weights, then integers."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import sew_resnet18
from torch import nn

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 4_000

lif = {"tau": 2.0, "v_threshold": 0.5, "surrogate_function": surrogate.ATan(), "detach_reset": True}
fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))


def build(spiking_neuron: type, **options: object) -> nn.Module:
    torch.manual_seed(0)
    net = sew_resnet18(num_classes=10, cnf="ADD", spiking_neuron=spiking_neuron, **lif, **options)
    net.conv1 = layer.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)  # gray, not RGB
    functional.set_step_mode(net, "m")
    return net


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
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("sew_resnet18.safetensors")  # network.to_c("folder") writes C99
