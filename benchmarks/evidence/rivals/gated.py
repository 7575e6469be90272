"""A GRU (Cho et al., arXiv 1406.1078) with a read-out at every step, in floats or in bytes."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.evidence.rivals.codes import round_to_codes
from benchmarks.evidence.rivals.counts import (
    FLOAT_BITS,
    Operations,
    check_bits,
    graded_costs,
    parameter_bits,
    present,
)
from mfp_neurons.quantize import is_quantized


class ByteGRU(nn.Module):
    """One layer of a GRU whose gates and state are codes of 8 bits; its two linear layers can be quantized.

    With the input's projection normalized over (T, N), which a device folds away:

        r, z = sigmoid(norm(W x[t]) + U h[t-1] + b)       codes 0 .. 255 of scale 1/256
        n    = tanh(norm(W x[t]) + r (U h[t-1] + b))      codes -128 .. 127 of scale 1/128
        h[t] = n + z (h[t-1] - n)                         likewise: all that is kept

    The sums in front of sigmoid and tanh are not rounded: integer kernels keep them in 16 bits or more.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(inputs, 3 * width, bias=False)
        self.norm = nn.BatchNorm1d(3 * width)
        self.recur = nn.Linear(width, 3 * width)

    def forward(self, x_seq: Tensor) -> Tensor:
        """States [T, N, width] of a sequence [T, N, inputs], from a state of zeros."""
        steps, batch = x_seq.shape[:2]
        # gates and state in float32 under autocast as well
        currents = self.norm(self.project(x_seq.flatten(0, 1)).float()).unflatten(0, (steps, batch))
        recur: Any = self.recur
        # once for all steps: the codes do not change within a sequence
        weight = recur.quantized_weight() if is_quantized(recur) else recur.weight
        h, states = currents.new_zeros(batch, self.width), []
        for current in currents:
            fed = nn.functional.linear(h, weight, recur.bias).float()
            into_gates, into_new = current.tensor_split([2 * self.width], dim=1)
            back_to_gates, back_to_new = fed.tensor_split([2 * self.width], dim=1)
            gates = round_to_codes(torch.sigmoid(into_gates + back_to_gates), 2**-8, 0, 255)
            reset, keep = gates.chunk(2, dim=1)
            new = round_to_codes(torch.tanh(torch.addcmul(into_new, reset, back_to_new)), 2**-7, -128, 127)
            h = round_to_codes(torch.addcmul(new, keep, h - new), 2**-7, -128, 127)
            states.append(h)
        return torch.stack(states)


class GRUClassifier(nn.Module):
    """Layers of a GRU and a linear read-out; [T, N, *features] to scores [T, N, classes].

    Floats run in torch's ``nn.GRU``, mostly behind a batch norm of the inputs that a device folds into its
    weights.
    """

    def __init__(self, inputs: int, classes: int, width: int, layers: int, bits: int, norm: bool) -> None:
        super().__init__()
        self.inputs, self.width, self.layers, self.bits = inputs, width, layers, bits
        self.norm = nn.BatchNorm1d(inputs) if norm and bits == FLOAT_BITS else None
        if bits == FLOAT_BITS:
            self.recurrent: nn.Module = nn.GRU(inputs, width, layers)
        else:
            widths = [inputs, *[width] * layers]
            self.recurrent = nn.Sequential(*(ByteGRU(a, width) for a in widths[:-1]))
        self.readout = nn.Linear(width, classes)

    def forward(self, x_seq: Tensor) -> Tensor:
        x_seq = x_seq.flatten(2)
        if self.norm is not None:
            x_seq = self.norm(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])
        states = self.recurrent(x_seq)
        if isinstance(self.recurrent, nn.GRU):
            states, _ = states
        scores: Tensor = self.readout(states)
        return scores

    def costs(self, x_seq: Tensor) -> dict[str, float]:
        """Of one sample of [T, N, *features]; the keys of the evidence.

        A unit computes three look-ups (two sigmoids, a tanh), two multiplications and three additions a step.
        The two biases in front of a gate are one for a device; those of the new state stay two.
        """
        steps, width = len(x_seq), self.width
        units = steps * self.layers * width
        products: list[tuple[nn.Module, float]] = [(self.readout, int(present(self.readout).sum()))]
        parameters = parameter_bits(self.readout)
        if isinstance(self.recurrent, nn.GRU):
            weights = sum(p.numel() for name, p in self.recurrent.named_parameters() if "weight" in name)
            products.append((self.recurrent, weights))
            parameters += FLOAT_BITS * (weights + self.layers * 4 * width)
        for layer in self.recurrent.children():
            assert isinstance(layer, ByteGRU)
            for synapse, biases in ((layer.project, 3 * width), (layer.recur, width)):
                products.append((synapse, int(present(synapse).sum())))
                parameters += parameter_bits(synapse, biases)
        return graded_costs(
            [(layer, steps * macs) for layer, macs in products],
            Operations(additions=3 * units, multiplications=2 * units, look_ups=3 * units),
            bits=self.bits,
            parameters=parameters,
            state=self.layers * width * self.bits,
            neurons=self.layers * width,
        )


def gru(
    features: Sequence[int],
    classes: int,
    time_steps: int,
    neurons: object,
    *,
    width: int,
    layers: int = 1,
    bits: int = FLOAT_BITS,
    norm: bool = True,
) -> GRUClassifier:
    """A GRU and a read-out at every step.

    Args:
        features: shape of one step of one sample.
        classes: number of scores.
        time_steps, neurons: not used; a builder's signature.
        width: units of a layer.
        layers: 1 or more.
        bits: of gates and state: 32, which goes with float weights, or 8.
        norm: whether inputs are normalized over batch and time; bytes need it.
    """
    check_bits(bits)
    if bits != FLOAT_BITS and not norm:
        raise ValueError(f"norm = False with bits = {bits!r} is not accepted: give norm = True, or 32 bits")
    return GRUClassifier(prod(features), classes, width, layers, bits, norm)
