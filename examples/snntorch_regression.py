"""snnTorch's regression, part 1: a network of spikes follows a curve; here one that depends on the past.

Input is a signal of 50 steps, the target what a leak of 0.9 would make of it.
"""

import torch
from torch import Tensor, nn
from tqdm import trange

from mfp_neurons import deploy, quantize_weights, report
from mfp_neurons.snntorch import MFPLeakyParallel

EPOCHS, IMAGES = 20, 2_000  # the images are curves here
STEPS = 50

print("the swap: snn.Leaky(beta, learn_beta=True)  ->  MFPLeakyParallel(beta, order=16, kernel='fir', ...)")
torch.manual_seed(0)


def curves(number: int) -> tuple[Tensor, Tensor]:
    """Signals in 256 levels from 0 to 1 and their decaying averages, [T, N, 1] both."""
    time = torch.linspace(0, 2 * torch.pi, STEPS).reshape(-1, 1, 1)
    speed, phase = 1 + 4 * torch.rand(2, 1, number, 1), 2 * torch.pi * torch.rand(2, 1, number, 1)
    signal = (0.5 + 0.25 * torch.sin(speed * time + phase).sum(0)).mul(255).round() / 255
    average, averages = torch.zeros_like(signal[0]), []
    for value in signal:
        average = 0.9 * average + 0.1 * value
        averages.append(average)
    return signal, torch.stack(averages)


def leaky() -> nn.Module:  # 128 neurons, each with 16 taps of its own that learn
    taps = dict(kernel="fir", order=16, num_channels=128, kernel_bits="pow2")
    return MFPLeakyParallel(beta=0.9, init_hidden=True, reset_mechanism="none", **taps)


net = nn.Sequential(nn.Linear(1, 128), leaky(), nn.Linear(128, 128), leaky(), nn.Linear(128, 1))
quantize_weights(net, bits=1)
signals, targets = curves(IMAGES)
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for _ in (progress := trange(EPOCHS)):
    for batch in torch.randperm(IMAGES).split(50):
        loss = nn.functional.mse_loss(net(signals[:, batch]), targets[:, batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    progress.set_postfix(loss=f"{loss.item():.4f}")

x, y = curves(200)
with torch.no_grad():
    error = (net(x) - y).abs().mean()
print(
    f"mean error {error:.4f} on new curves; of always answering their mean {(y - y.mean()).abs().mean():.4f}"
)
print(report(net, x[:, :1]))
network = deploy.lower(net, x[:, :1])  # save() keeps it, to_c() writes C99
print(f"as integers: mean error {(torch.from_numpy(network.run(x)) - y).abs().mean():.4f}")
