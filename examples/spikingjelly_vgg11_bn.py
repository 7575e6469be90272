"""SpikingJelly's spiking VGG-11 with batch norm: memory-free neurons, 1-bit weights, then integers."""

import torch
from spikingjelly.activation_based import functional, layer, surrogate
from spikingjelly.activation_based.model.spiking_vgg import SpikingVGG

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 2, 10_000
WIDTH = 16  # 64 is VGG-11's

print("the swap: spiking_neuron=neuron.LIFNode  ->  spiking_neuron=MFPNode, order=2, reset=None")
torch.manual_seed(0)
cfg = [WIDTH * n if n != "M" else n for n in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M")]
lif = {"tau": 2.0, "v_threshold": 0.5, "surrogate_function": surrogate.ATan(), "detach_reset": True}
norms = {"batch_norm": True, "norm_layer": layer.BatchNorm2d, "init_weights": False}
net = SpikingVGG(
    cfg, **norms, spiking_neuron=MFPNode, order=2, reset=None, **lif
)  # was neuron.LIFNode, **lif
net.features[0] = layer.Conv2d(1, WIDTH, 3, padding=1)  # gray, not RGB
net.avgpool, net.classifier = layer.AdaptiveAvgPool2d(1), layer.Linear(8 * WIDTH, 10)  # for 32 x 32
functional.set_step_mode(net, "m")
quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits

fashion = data.load(DataConfig("fashion-mnist", time_steps=4, limit=IMAGES, size=32))
loop.fit(net, fashion, epochs=EPOCHS)
print(f"{loop.accuracy(net, fashion, images=IMAGES):.1f} % of the first {IMAGES:,} test images")

x = fashion.sequence(fashion.test.samples[:200])  # [T, N, 1, 32, 32]: the image at every step
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("vgg11_bn.safetensors")  # network.to_c("folder") writes C99
