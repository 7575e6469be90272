"""PyTorch alone: memory-free neurons, trained with float and with 1-bit weights, and the integers inside."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from mfp_neurons import MFP, quantize_weights
from mfp_neurons.quantize import codes

digits = load_digits()
rows = torch.tensor(digits.images, dtype=torch.float32).div(16).transpose(0, 1)  # [T = 8 rows, N, 8 pixels]
labels = torch.tensor(digits.target)
train = 1400  # samples; the rest is the test split


class Norm(nn.BatchNorm1d):
    """Batch norm over [T, N, C]: time and batch are averaged alike."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)


def network() -> nn.Sequential:
    def block(inputs: int, outputs: int, order: int) -> list[nn.Module]:
        # the last 8 inputs in the last layer, where the answer lies in the past; the present alone before it
        spikes = MFP(decay=0.5, kernel="fir", order=order, num_channels=outputs, kernel_bits="pow2")
        return [nn.Linear(inputs, outputs, bias=False), Norm(outputs), spikes]

    return nn.Sequential(*block(8, 64, 1), *block(64, 64, 8), nn.Linear(64, 10))


def accuracy_after_training(net: nn.Module) -> float:
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(15):
        for batch in torch.randperm(train).split(100):
            loss = nn.functional.cross_entropy(net(rows[:, batch])[-1], labels[batch])  # read at the last row
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        guess = net(rows[:, train:])[-1].argmax(1)
    return 100 * (guess == labels[train:]).float().mean().item()


for name, bits in (("float", None), ("1-bit", 1)):
    torch.manual_seed(0)
    net = network() if bits is None else quantize_weights(network(), bits)
    print(f"{name} weights: {accuracy_after_training(net):.1f} % of the test digits")

hidden = codes(net[3])  # the first and the last layer keep 8 bits
print(f"the hidden weights are {hidden.codes.unique().tolist()} times {hidden.scale.numel()} scales")
