"""snnTorch's tutorial 5, fully connected: as it is, MFPLeaky step by step, MFPLeakyParallel without the loop.

It uses Fashion-MNIST, not MNIST, which config.DataConfig("torchvision:MNIST", download=True) would read."""

import snntorch as snn
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mfp_neurons import deploy, quantize_weights, report
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from mfp_neurons.train import config, data, loop

EPOCHS, IMAGES = 2, 10_000
fashion = data.load(config.DataConfig("fashion-mnist", time_steps=25, limit=IMAGES))  # an image, 25 times
options = dict(beta=0.95, order=8, kernel_bits="pow2", reset_mechanism="none")


# %% The tutorial's network. Its output is what the loss reads: the potential of the last layer
class Net(nn.Module):
    def __init__(self, lif1: nn.Module, lif2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(784, 1000), lif1
        self.fc2, self.lif2 = nn.Linear(1000, 10), lif2

    def forward(self, x: Tensor) -> Tensor:  # [T, N, 1, 28, 28] -> [T, N, 10]
        mem1, mem2, mem2_rec = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in x.flatten(2):
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            _spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            mem2_rec.append(mem2)
        return torch.stack(mem2_rec)


def train(net: nn.Module, name: str) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)
    for epoch in range(EPOCHS):
        for batch in tqdm(torch.randperm(len(fashion.train)).split(128), f"epoch {epoch + 1}/{EPOCHS}"):
            mem = net(fashion.sequence(fashion.train.samples[batch]))
            loss = sum(nn.functional.cross_entropy(step, fashion.train.labels[batch]) for step in mem)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"{name}: {loop.accuracy(net, fashion, images=IMAGES):.1f} % of the test images")


torch.manual_seed(0)
train(Net(snn.Leaky(beta=0.95), snn.Leaky(beta=0.95)), "snn.Leaky")
print("the swap: snn.Leaky(beta=0.95) -> MFPLeaky, with", options)
net = Net(MFPLeaky(**options), MFPLeaky(beta=0.95, order=1, reset_mechanism="none"))
train(net, "MFPLeaky, step by step")
# %% Without the loop, with 1-bit weights. At order 1 a potential is its input: lif2 is not needed
parallel = nn.Sequential(nn.Flatten(2), net.fc1, MFPLeakyParallel(**options, init_hidden=True), net.fc2)
print(f"all steps at once: {loop.accuracy(parallel, fashion, images=IMAGES):.1f} %")
train(quantize_weights(parallel, bits=1, first=1), "with 1-bit weights")  # the last layer keeps 8 bits
# %% What it costs; then the integer network, which save() stores and to_c() writes as C99
print(report(parallel, fashion.sequence(fashion.test.samples[:1])))
network = deploy.lower(parallel, fashion.sequence(fashion.test.samples[:1]))
answers = network.run(fashion.sequence(fashion.test.samples[:IMAGES])).mean(0).argmax(1)
print(f"as integers: {100 * (answers == fashion.test.labels[:IMAGES].numpy()).mean():.1f} %")
