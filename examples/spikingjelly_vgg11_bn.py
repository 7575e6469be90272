"""SpikingJelly's VGG-11 with batch norm, as it is and with memory-free neurons and 1-bit weights."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.spiking_vgg import SpikingVGG
from torch import nn

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 10_000
WIDTH = 16  # 64 is VGG-11's

cfg = [WIDTH * n if n != "M" else n for n in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M")]
lif = {"tau": 2.0, "v_threshold": 0.5, "surrogate_function": surrogate.ATan(), "detach_reset": True}
norms = {"batch_norm": True, "norm_layer": layer.BatchNorm2d, "init_weights": False}
fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES, size=32))


def build(spiking_neuron: type, **options: object) -> nn.Module:
    torch.manual_seed(0)
    net = SpikingVGG(cfg, **norms, spiking_neuron=spiking_neuron, **lif, **options)
    net.features[0] = layer.Conv2d(1, WIDTH, 3, padding=1)  # gray, not RGB
    net.avgpool, net.classifier = layer.AdaptiveAvgPool2d(1), layer.Linear(8 * WIDTH, 10)  # for 32 x 32
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

x = fashion.sequence(fashion.test.samples[:200])  # [T, N, 1, 32, 32]: the image at every step
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("vgg11_bn.safetensors")  # network.to_c("folder") writes C99
