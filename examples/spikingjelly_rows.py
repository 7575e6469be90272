"""SpikingJelly's sequential Fashion-MNIST, a row of pixels a step: its feedback loop, swapped for taps."""

import time

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 4, 10_000
WIDTH = 128

rows = data.load(DataConfig("fashion-mnist-rows", limit=IMAGES))
spiking = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


def feedback() -> nn.Module:  # as in SpikingJelly's rsnn_sequential_fmnist: step by step
    return layer.LinearRecurrentContainer(neuron.IFNode(**spiking), WIDTH, WIDTH)


def taps() -> nn.Module:  # a learned power of two for each of the last 28 rows: all steps at once
    return MFPNode(4.0, kernel="fir", order=28, num_channels=WIDTH, kernel_bits="pow2", **spiking, reset=None)


def train(hidden) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(layer.Linear(28, WIDTH, bias=False), layer.BatchNorm1d(WIDTH), hidden()),
        *(layer.Linear(WIDTH, WIDTH, bias=False), layer.BatchNorm1d(WIDTH), hidden()),
        layer.Linear(WIDTH, 10),
    )
    functional.set_step_mode(net, "m")
    quantize_weights(net, bits=1)  # the first and the last layer keep 8 bits
    start = time.perf_counter()
    loop.fit(net, rows, epochs=EPOCHS, learning_rate=5e-3)
    seconds, accuracy = time.perf_counter() - start, loop.accuracy(net, rows, images=IMAGES)
    print(
        f"{hidden.__name__}: {accuracy:.1f} % of the first {IMAGES:,} test images, trained in {seconds:.1f} s"
    )
    return net


print("the swap: LinearRecurrentContainer(IFNode(), WIDTH, WIDTH)  ->  MFPNode(kernel='fir', order=28, ...)")
train(feedback)
net = train(taps)

x = rows.sequence(rows.test.samples[:200])  # [T, N, 28]
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # whole numbers alone; print it to see the layers
answers = torch.from_numpy(network.run(x)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(x).mean(0).argmax(1)).sum()
print(f"as integers: the same answer to {same} of {len(answers)} images")
network.save("rows.safetensors")  # network.to_c("folder") writes C99
