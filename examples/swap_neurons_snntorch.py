"""snnTorch: the same loop with snn.Leaky and with MFPLeaky, then without the loop, then without a reset."""

import snntorch as snn
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

digits = load_digits()
images = (
    torch.tensor(digits.data, dtype=torch.float32).div(16).expand(8, -1, -1)
)  # [T = 8, N, 64]: shown 8 times
labels = torch.tensor(digits.target)
train = 1400  # samples; the rest is the test split


class Net(nn.Module):
    def __init__(self, leaky: type[nn.Module], reset_mechanism: str) -> None:
        super().__init__()
        self.fc1, self.hidden = nn.Linear(64, 128), leaky(beta=0.8, reset_mechanism=reset_mechanism)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:  # [T, N, 64] -> [N, 10]
        if isinstance(self.hidden, MFPLeakyParallel):
            spikes, _ = self.hidden(self.fc1(x))  # every step at once
            return self.fc2(spikes).mean(0)
        mem, outputs = self.hidden.reset_mem(), []
        for step in x:  # the habit, step by step
            spikes, mem = self.hidden(self.fc1(step), mem)
            outputs.append(self.fc2(spikes))
        return torch.stack(outputs).mean(0)


def trained(net: Net) -> Net:
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(6):
        for batch in torch.randperm(train).split(100):
            loss = nn.functional.cross_entropy(net(images[:, batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


neurons = [(snn.Leaky, "subtract"), (MFPLeaky, "subtract")]  # the default of both
neurons += [(MFPLeakyParallel, "subtract"), (MFPLeakyParallel, "none")]
for leaky, reset in neurons:
    torch.manual_seed(0)
    net = trained(Net(leaky, reset))
    with torch.no_grad():
        guess = net(images[:, train:]).argmax(1)
    right = 100 * (guess == labels[train:]).float().mean()
    print(f"{leaky.__name__}, reset {reset}: {right:.1f} % of the test digits")
