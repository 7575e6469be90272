"""From training to C: a network that reads digits row by row, as integers and as C99 for a small device."""

import torch
from sklearn.datasets import load_digits

from mfp_neurons import MFP, deploy, quantize_weights

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images / 16).float().transpose(0, 1)  # [T, N, 8]: one row of pixels a step
y = torch.tensor(digits.target)
train, test = slice(0, 1500), slice(1500, None)

net = torch.nn.Sequential(
    torch.nn.Linear(8, 128),
    MFP(order=1, v_threshold=0.3),  # keeps nothing
    torch.nn.Linear(128, 128),
    MFP(kernel="fir", order=8, num_channels=128, kernel_bits="pow2", v_threshold=0.3),  # looks 8 rows back
    torch.nn.Linear(128, 10),
)
quantize_weights(net, bits=1)
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(100):
    loss = torch.nn.functional.cross_entropy(net(x[:, train])[-1], y[train])  # the answer after the last row
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

network = deploy.lower(net, x[:, :1], levels=16)  # pixels are 0 to 16
print(network)

scores = network.run(x[:, test])  # all steps at once, on all cores; NumPy or torch, floats or levels
right = (torch.from_numpy(scores[-1]).argmax(1) == y[test]).float().mean().item()
print(f"\n{100 * right:.1f} % of the test digits")

stream = network.stream()  # one step at a time: a device that sees row after row
steps = [stream.step(row) for row in x[:, test]]
print("step by step, the same to the last bit:", (steps[-1] == scores[-1]).all())

driven = network.run_events(x[:, test])  # spike by spike
print("spike by spike, the same:", (driven.scores == scores).all())
print(f"{driven.synaptic_operations / len(y[test]):,.0f} additions a digit")

for file in network.to_c("digits_c"):
    print("written:", file)
