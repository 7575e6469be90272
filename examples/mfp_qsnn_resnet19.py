"""ResNet-19 on still images: 1-bit weights, memory-free neurons, then integers."""

import torch

from mfp_neurons import deploy, report, zoo
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 4, 5_000
WIDTH = 16  # the literature has 128, for CIFAR and a GPU

print("the swap: neuron.LIFNode() in each block  ->  MFP(kernel='fir', order=2, kernel_bits='pow2')")
torch.manual_seed(0)
net = zoo.mfp_qsnn_resnet19(1, 10, width=WIDTH, order=2)

# CIFAR-10, where you have it: DataConfig("torchvision:CIFAR10", root=..., time_steps=4), and 3 channels above
fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))
loop.fit(net, fashion, epochs=EPOCHS, learning_rate=5e-3)
print(f"{loop.accuracy(net, fashion, images=IMAGES):.1f} % of the first {IMAGES:,} test images")

x = fashion.sequence(fashion.test.samples[:200])  # [T, N, 1, 28, 28]: the image at every step
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("mfp_qsnn_resnet19.safetensors")  # network.to_c("folder") writes C99
