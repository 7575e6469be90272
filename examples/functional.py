"""The neuron as a function: all steps at once, in pieces, with gradients, and with a history of your own."""

import torch

from mfp_neurons import functional
from mfp_neurons.history import FIR, Exponential

torch.manual_seed(0)
x = torch.randn(16, 4, 100, requires_grad=True)  # synaptic input [T, N, neurons]

# a leaky integrator that never resets: u[t] = 0.5 u[t-1] + x[t], fires where u >= 1
leaky = Exponential(decay=0.5)
spikes = functional.fire(x, leaky, v_threshold=1.0)
print(f"spikes {tuple(spikes.shape)}, firing rate {spikes.mean():.3f}")

# a stream arrives in pieces; the state makes them one sequence
first = functional.fire_chunk(x[:5], leaky)
rest = functional.fire_chunk(x[5:], leaky, state=first.state)
print("in pieces the same:", torch.equal(torch.cat([first.spikes, rest.spikes]), spikes))

# gradients reach the input, the threshold and the taps; any causal kernel will do
taps = torch.tensor([1.0, 0.5, 0.25, 0.125], requires_grad=True)
threshold = torch.ones(1, requires_grad=True)
rate = functional.fire(x, FIR(taps), threshold).mean()
rate.backward()
print("raising the threshold lowers the rate:", bool(threshold.grad < 0))

# the last four spikes of a presynaptic neuron are all that these taps see: three bits of memory, no potential
incoming = (torch.rand(16, 1, 1) < 0.5).float()
trace = functional.potential(incoming, FIR(torch.tensor([1.0, 0.5, 0.25, 0.125])))
register = 0
for spike, u in zip(incoming.flatten().int().tolist(), trace.flatten().tolist(), strict=True):
    register = register >> 1 | spike << 3
    assert register / 8 == u
print("the shift register is the trace")
