"""SpikingJelly's Spikformer with patches of 4 x 4: memory-free neurons and 1-bit weights."""

import torch
from spikingjelly.activation_based import surrogate
from spikingjelly.activation_based.model.spikformer import Spikformer

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 4_000
DIMS, DEPTH = 64, 2  # 384 and 4 are spikformer_cifar10's

print("the swap: spiking_neuron=neuron.LIFNode  ->  spiking_neuron=MFPNode, order=2, reset=None")
torch.manual_seed(0)
lif = {"tau": 2.0, "v_threshold": 0.5, "surrogate_function": surrogate.ATan(), "detach_reset": True}
image = {"in_channels": 1, "img_size_h": 28, "img_size_w": 28, "patch_size": 4, "num_classes": 10}
shape = {"T": 4, "embed_dims": DIMS, "num_heads": 4, "depths": DEPTH}
net = Spikformer(
    **image, **shape, spiking_neuron=MFPNode, order=2, reset=None, **lif
)  # was neuron.LIFNode, **lif
quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits

fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))
loop.fit(net, fashion, epochs=EPOCHS)
print(f"{loop.accuracy(net, fashion, images=IMAGES):.1f} % of the first {IMAGES:,} test images")

x = fashion.sequence(fashion.test.samples[:200])  # [T, N, 1, 28, 28]: the image at every step
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).argmax(1)
with torch.no_grad():
    same = (answers == net(x).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
