"""SpikingJelly's NMNISTNet on simulated events, as it is and with memory-free neurons and 1-bit weights."""

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model.parametric_lif_net import NMNISTNet
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 4_000
CHANNELS = 16  # 128 is the paper's

lif = {"tau": 2.0, "surrogate_function": surrogate.ATan(), "detach_reset": True}
# Fashion-MNIST seen by a simulated event camera; DataConfig("spikingjelly:NMNIST", root=...) is the real one
events = data.load(DataConfig("fashion-mnist-events", time_steps=16, limit=IMAGES))


def build(spiking_neuron: type, **options: object) -> nn.Module:
    torch.manual_seed(0)
    net = NMNISTNet(CHANNELS, spiking_neuron=spiking_neuron, **lif, **options)
    functional.set_step_mode(net, "m")
    return net


def rate_loss(spikes: Tensor, labels: Tensor) -> Tensor:
    """The rate of each class, voted by ten neurons, should be 1 for the label and 0 for the others."""
    return mse_loss(spikes.mean(0), one_hot(labels, 10).float())


def train(net: nn.Module, name: str) -> None:
    loop.fit(net, events, epochs=EPOCHS, loss=rate_loss)
    accuracy = loop.accuracy(net, events, images=IMAGES)
    print(f"{name}: {accuracy:.1f} % of the first {IMAGES:,} test images")


train(build(neuron.LIFNode), "LIFNode, float weights")
print("the swap: spiking_neuron=neuron.LIFNode  ->  spiking_neuron=MFPNode, order=4, reset=None")
net = build(MFPNode, order=4, reset=None)
quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits
train(net, "MFPNode, 1-bit weights")

x = events.sequence(events.test.samples[:200])  # [T, N, 2, 34, 34]: ON and OFF events
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("nmnist_net.safetensors")  # network.to_c("folder") writes C99
