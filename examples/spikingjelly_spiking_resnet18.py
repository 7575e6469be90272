"""SpikingJelly's Spiking-ResNet-18: memory-free neurons, 1-bit weights, then integers."""

import torch
from spikingjelly.activation_based import functional, layer, surrogate
from spikingjelly.activation_based.model.spiking_resnet import spiking_resnet18

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 4_000

print("the swap: spiking_neuron=neuron.LIFNode  ->  spiking_neuron=MFPNode, order=2, reset=None")
torch.manual_seed(0)
lif = {"tau": 2.0, "v_threshold": 0.5, "surrogate_function": surrogate.ATan(), "detach_reset": True}
net = spiking_resnet18(
    num_classes=10, spiking_neuron=MFPNode, order=2, reset=None, **lif
)  # was neuron.LIFNode, **lif
net.conv1 = layer.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)  # gray, not RGB
functional.set_step_mode(net, "m")
quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits

fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES))
loop.fit(net, fashion, epochs=EPOCHS)
print(f"{loop.accuracy(net, fashion, images=IMAGES):.1f} % of the first {IMAGES:,} test images")

x = fashion.sequence(fashion.test.samples[:200])  # [T, N, 1, 28, 28]: the image at every step
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("spiking_resnet18.safetensors")  # network.to_c("folder") writes C99
