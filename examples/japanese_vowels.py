"""Who speaks? Nine men say /ae/, 12 cepstral coefficients a frame: LIFNode beside the neuron in its place."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from mfp_neurons import MFPNode, deploy, quantize_weights, report
from mfp_neurons.train import data, loop
from mfp_neurons.train.config import DataConfig

EPOCHS, IMAGES = 40, 243  # the images are recordings here
WIDTH = 64

vowels = data.load(DataConfig("japanese-vowels", limit=IMAGES, download=True))  # a wheel of aeon, in ./data
spiking = {"surrogate_function": surrogate.ATan(), "detach_reset": True}


def lif(order: int) -> nn.Module:  # stores its potential, whatever the order
    return neuron.LIFNode(4.0, **spiking)


def taps(order: int) -> nn.Module:  # learned powers of two; 8 neurons side by side share theirs
    shared = dict(num_channels=WIDTH, groups=8, kernel_bits="pow2")
    return MFPNode(4.0, kernel="fir", order=order, **shared, **spiking, reset=None)


def network(hidden) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(layer.Linear(12, WIDTH, bias=False), layer.BatchNorm1d(WIDTH), hidden(order=1)),
        *(layer.Linear(WIDTH, WIDTH, bias=False), layer.BatchNorm1d(WIDTH), hidden(order=8)),
        layer.Linear(WIDTH, 9),
    )
    functional.set_step_mode(net, "m")
    return net


print("the swap: LIFNode(4.0)  ->  MFPNode(4.0, kernel='fir', order=8, groups=8, kernel_bits='pow2', ...)")
recordings = vowels.sequence(vowels.test.samples)  # [T = 29, N, 12]
net = quantize_weights(network(taps), bits=1)  # the first and the last layer keep 8 bits
for name, model in {"LIFNode, float weights": network(lif), "MFPNode, 1-bit weights": net}.items():
    loop.fit(model, vowels, epochs=EPOCHS, batch_size=32, learning_rate=5e-3)
    costs = report(model, recordings)
    print(
        f"{name}: {loop.accuracy(model, vowels):.1f} % of {len(vowels.test)} recordings, "
        f"{costs.weight_bytes:,} bytes, {costs.state_bits:,} bits of state, "
        f"{costs.energy_joules * 1e9:.0f} nJ a recording"
    )

print(costs)
network = deploy.lower(net, recordings)  # whole numbers alone; save() keeps it, to_c() writes C99
answers = torch.from_numpy(network.run(recordings)).mean(0).argmax(1)
with torch.no_grad():
    same = (answers == net(recordings).mean(0).argmax(1)).sum()
right = 100 * (answers == vowels.test.labels).float().mean()
print(f"as integers: {right:.1f} %, the same answer to {same} of {len(answers)} recordings")
