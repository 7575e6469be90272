"""The loop over time that snnTorch's users write."""

import torch
from torch import Tensor, nn


def unrolled(neuron: nn.Module, x_seq: Tensor) -> tuple[Tensor, Tensor]:
    """The user's loop: mem handed back at every step."""
    mem, spk_rec, mem_rec = neuron.reset_mem(), [], []
    for x in x_seq:
        spk, mem = neuron(x, mem)
        spk_rec.append(spk)
        mem_rec.append(mem)
    return torch.stack(spk_rec), torch.stack(mem_rec)
