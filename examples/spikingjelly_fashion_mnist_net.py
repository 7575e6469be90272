"""SpikingJelly's FashionMNISTNet, as it is and with memory-free neurons and 1-bit weights: a plain loop."""

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model.parametric_lif_net import FashionMNISTNet
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot
from tqdm import tqdm

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 10_000
CHANNELS = 32  # 128 is the paper's

lif = {"tau": 2.0, "surrogate_function": surrogate.ATan(), "detach_reset": True}
fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))
images, labels = fashion.train.samples, fashion.train.labels  # [n, 1, 28, 28] bytes, [n]
test, right = fashion.sequence(fashion.test.samples[:IMAGES]), fashion.test.labels[:IMAGES]


def train(net: nn.Module) -> None:
    functional.set_step_mode(net, "m")  # all time steps in one call
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        for batch in tqdm(torch.randperm(len(images)).split(64), desc=f"epoch {epoch + 1}/{EPOCHS}"):
            rate = net(fashion.sequence(images[batch])).mean(0)  # [T, N, 1, 28, 28]: the image at every step
            loss = mse_loss(rate, one_hot(labels[batch], 10).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            functional.reset_net(net)


@torch.no_grad()
def answers(net: nn.Module) -> Tensor:
    scores = []
    for x in test.split(250, dim=1):
        scores.append(net.eval()(x).mean(0))
        functional.reset_net(net)
    return torch.cat(scores).argmax(1)


torch.manual_seed(0)
train(original := FashionMNISTNet(CHANNELS, spiking_neuron=neuron.LIFNode, **lif))
print(f"LIFNode, float weights: {100 * (answers(original) == right).float().mean():.1f} % of the test images")
print("the swap: spiking_neuron=neuron.LIFNode  ->  spiking_neuron=MFPNode, order=2, reset=None")
torch.manual_seed(0)
net = FashionMNISTNet(CHANNELS, spiking_neuron=MFPNode, order=2, reset=None, **lif)
train(quantize_weights(net, bits=1))  # the first and the last layer keep 8 bits
print(f"MFPNode, 1-bit weights: {100 * (answers(net) == right).float().mean():.1f} %")
print(report(net, test[:, :1]))
network = deploy.lower(net, test[:, :1])  # whole numbers alone; print it to see the layers
integers = torch.from_numpy(network.run(test)).mean(0).argmax(1)
print(f"as integers: {100 * (integers == right).float().mean():.1f} %")
network.save("fashion_mnist_net.safetensors")  # network.to_c("folder") writes C99
