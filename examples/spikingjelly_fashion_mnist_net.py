"""SpikingJelly's FashionMNISTNet: memory-free neurons, 1-bit weights, a plain training loop, integers."""

import torch
from spikingjelly.activation_based import functional, surrogate
from spikingjelly.activation_based.model.parametric_lif_net import FashionMNISTNet
from torch.nn.functional import mse_loss, one_hot
from tqdm import tqdm

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 10_000
CHANNELS = 32  # 128 is the paper's

print("the swap: spiking_neuron=neuron.LIFNode  ->  spiking_neuron=MFPNode, order=2, reset=None")
torch.manual_seed(0)
lif = {"tau": 2.0, "surrogate_function": surrogate.ATan(), "detach_reset": True}
net = FashionMNISTNet(
    CHANNELS, spiking_neuron=MFPNode, order=2, reset=None, **lif
)  # was neuron.LIFNode, **lif
functional.set_step_mode(net, "m")  # all time steps in one call
quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits

fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))
images, labels = fashion.train.samples, fashion.train.labels  # [n, 1, 28, 28] bytes, [n]
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(EPOCHS):
    for batch in tqdm(torch.randperm(len(images)).split(64), desc=f"epoch {epoch + 1}/{EPOCHS}"):
        x = fashion.sequence(images[batch])  # [T, N, 1, 28, 28]: the image at every step
        rate = net(x).mean(0)
        loss = mse_loss(rate, one_hot(labels[batch], 10).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(net)

net.eval()
test, labels = fashion.sequence(fashion.test.samples[:IMAGES]), fashion.test.labels[:IMAGES]
right = 0
with torch.no_grad():
    for x, y in zip(test.split(250, dim=1), labels.split(250), strict=True):
        right += (net(x).mean(0).argmax(1) == y).sum().item()
        functional.reset_net(net)
print(f"{100 * right / len(labels):.1f} % of {len(labels):,} test images")
print(report(net, test[:, :1]))

network = deploy.lower(net, test[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(test)).mean(0).argmax(1)
print(f"{100 * (answers == labels).float().mean():.1f} % of them as integers")
network.save("fashion_mnist_net.safetensors")  # network.to_c("folder") writes C99
