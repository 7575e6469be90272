"""VGGSNN on simulated events: 1-bit weights, memory-free neurons, then integers."""

import torch

from mfp_neurons import deploy, report, zoo
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 4_000
WIDTH = 8  # the literature has 64, for CIFAR10-DVS and a GPU

print(
    "the swap: neuron.LIFNode() behind each convolution  ->  MFP(kernel='fir', order=4, kernel_bits='pow2')"
)
torch.manual_seed(0)
net = zoo.mfp_qsnn_vggsnn((2, 34, 34), 10, width=WIDTH, order=4)

# Fashion-MNIST seen by a simulated event camera; DataConfig("spikingjelly:CIFAR10DVS", root=...) is real
events = data.load(DataConfig("fashion-mnist-events", time_steps=16, limit=IMAGES))
loop.fit(net, events, epochs=EPOCHS)
print(f"{loop.accuracy(net, events, images=IMAGES):.1f} % of the first {IMAGES:,} test images")

x = events.sequence(events.test.samples[:200])  # [T, N, 2, 34, 34]: ON and OFF events
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("mfp_qsnn_vggsnn.safetensors")  # network.to_c("folder") writes C99
