"""How much of an input is still there j steps later: measured on a neuron by giving it another input there.

Of two runs that differ in the input of one step alone, the potentials differ by r[j], j steps after it. An
input that differs by e leaves, in a neuron that forgets nothing and adds nothing, r[j] = w[j] * e for some
weight w[j]. Rounding, clipping and resets make r[j] depend on all other inputs too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mfp_neurons import functional
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.neuron import MFP
from mfp_neurons.train.network import Block

Potential = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Remains:
    """What is left j = 0, 1, ... steps after an input, each a list over j, mean over channels.

    Attributes:
        any: share of the inputs whose exchange changes the potential at all.
        kept: squared correlation of the potential's change with the input's: 1 where the input can be read
            off that change, 0 where the change says nothing about the input.
        weight: slope of the potential's change over the input's: w[j].
    """

    any: list[float]
    kept: list[float]
    weight: list[float]


@torch.no_grad()
def remains(potential: Potential, x_seq: Tensor, *, lags: int, first: int = 0, seed: int = 0) -> Remains:
    """Exchanges inputs, one step at a time, for those of other samples, and watches the potential.

    Args:
        potential: from inputs [T, N, C] to the potentials [T, N, C] of a neuron at rest before them.
        x_seq: inputs of the neuron, [T, N, C]; N >= 2 different samples.
        lags: how many steps to look ahead; below T - first.
        first: the first step whose input is exchanged, so that the neuron has some input before it.
        seed: of the permutations that pair the samples.

    Raises:
        ValueError: ``x_seq`` has another form, or too few steps.

    >>> found = remains(potential_of(MFP(0.5, order=3)), torch.randn(9, 64, 1), lags=5)
    >>> [round(w, 3) for w in found.weight], [round(k, 3) for k in found.kept]
    ([1.0, 0.5, 0.25, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0])
    """
    if x_seq.dim() != 3 or x_seq.shape[1] < 2:
        raise ValueError(f"x_seq must be [T, N, C] with N >= 2, got shape {list(x_seq.shape)}")
    steps, samples, channels = x_seq.shape
    if not 0 < lags <= steps - first:
        raise ValueError(f"lags must be from 1 to T - first = {steps - first}, got {lags}")
    generator = torch.Generator().manual_seed(seed)
    before = potential(x_seq).double()
    changed, squares, products, inputs = torch.zeros(4, lags, channels, dtype=torch.float64)
    count = torch.zeros(lags, channels, dtype=torch.float64)
    for at in range(first, steps):
        order = torch.randperm(samples, generator=generator)
        exchanged = x_seq.clone()
        exchanged[at, order] = x_seq[at, order.roll(1)]  # a circle: no sample is paired with itself
        given = (exchanged[at] - x_seq[at]).double()
        left = (potential(exchanged).double() - before)[at : at + lags]
        seen = len(left)
        changed[:seen] += ((left != 0) & (given != 0)).sum(1)
        squares[:seen] += left.square().sum(1)
        products[:seen] += (left * given).sum(1)
        inputs[:seen] += given.square().sum(0)
        count[:seen] += (given != 0).sum(0)
    return Remains(
        *(
            value.mean(1).tolist()
            for value in (
                _ratio(changed, count),
                _ratio(products.square(), squares * inputs),
                _ratio(products, inputs),
            )
        )
    )


def potential_of(neuron: nn.Module) -> Potential:
    """What a neuron's threshold sees.

    Raises:
        TypeError: the neuron is neither :class:`MFP` nor :class:`QuantizedMembraneLIF`.
    """
    if isinstance(neuron, QuantizedMembraneLIF):
        return neuron.potential
    if isinstance(neuron, MFP):
        return lambda x_seq: functional.potential(x_seq, neuron.kernel())
    raise TypeError(f"neuron must be MFP or QuantizedMembraneLIF, got {type(neuron).__name__}")


@torch.no_grad()
def inputs_of_neurons(network: nn.Module, x_seq: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """The neuron of each block of a network and what it gets, [T, N, C, *], input first; in eval mode."""
    network.eval()
    caught: list[tuple[nn.Module, Tensor]] = []
    neurons = [module.neuron for module in network.modules() if isinstance(module, Block)]
    hooks = [
        neuron.register_forward_pre_hook(lambda module, args: caught.append((module, args[0])))
        for neuron in neurons
    ]
    try:
        network(x_seq)
    finally:
        for hook in hooks:
            hook.remove()
    return caught


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where there is nothing to divide by."""
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0.0)
