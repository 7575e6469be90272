"""Spiking rivals that keep a potential: adaptive LIFs, and LIFs with recurrent weights in their layer.

Their networks are those of the architecture "blocks" with another neuron. Both neurons subtract their
threshold after a spike, learn a decay for each channel, and keep floats or codes of few bits, as
:class:`mfp_neurons.baseline.QuantizedMembraneLIF` does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.evidence.rivals.codes import round_to_codes
from benchmarks.evidence.rivals.counts import FLOAT_BITS
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.quantize import is_quantized
from mfp_neurons.spec import Carried, NeuronSpec, StepOperations
from mfp_neurons.surrogate import ATan, Surrogate
from mfp_neurons.train.config import from_dict
from mfp_neurons.train.network import Neurons, SequenceClassifier


class StoredLIF(nn.Module):
    """What the two neurons have in common: a decay for each channel, and how a potential is stored.

    Args:
        num_channels: C, along dim 2 of the input.
        decay: of the potential at the start, 0 .. 1.
        bits: of a stored value, 1 .. 8, or None for floats.
        v_threshold: potential at which a neuron fires.
        surrogate: the spike's derivative.
        detach_reset: whether the reset's spike is a constant for the gradient.
    """

    def __init__(
        self,
        num_channels: int,
        decay: float = 0.5,
        *,
        bits: int | None = None,
        v_threshold: float = 1.0,
        surrogate: Surrogate = ATan(),
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        self.num_channels, self.bits, self.v_threshold = num_channels, bits, v_threshold
        self.surrogate, self.detach_reset = surrogate, detach_reset
        self.decay_logit = _logits(num_channels, decay)
        self.size = None if bits is None else nn.Parameter(torch.ones(num_channels))

    def _stored(self, h: Tensor, threshold: Tensor, spikes: Tensor, scale: Tensor | None) -> Tensor:
        """The potential that is kept of h after a spike, which costs the threshold."""
        v = torch.addcmul(h, threshold, spikes.detach() if self.detach_reset else spikes, value=-1)
        if self.bits is None or scale is None:
            return v
        lowest = 0 if self.bits == 1 else -(2 ** (self.bits - 1))  # the ranges of QuantizedMembraneLIF
        return round_to_codes(v, scale, lowest, lowest + 2**self.bits - 1)

    def _scale(self, axes: tuple[int, ...]) -> Tensor | None:
        """Of the codes of a potential, over a step [N, C, *]."""
        if self.bits is None or self.size is None:
            return None
        return _positive(self.size, axes) * (self.v_threshold / 2 ** (self.bits - 1))

    def neuron_spec(self) -> NeuronSpec:
        """What a neuron keeps between two steps, and computes in one."""
        return NeuronSpec(
            kernel=None,
            carried=Carried("potential", bits=self.state_bits()),
            threshold=self.v_threshold,
            surrogate=self.surrogate,
            strict=False,
            decays=(self.decay_logit,),
            numbers=() if self.size is None else (self.size,),
        )

    def state_bits(self) -> int:
        """Bits that a neuron keeps between two steps."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.num_channels}, bits={self.bits}, v_threshold={self.v_threshold:g}"


class AdaptiveLIF(StoredLIF):
    r"""A LIF whose threshold rises with its own spikes (Bellec et al., NeurIPS 2018, arXiv 1803.09574).

        h[t] = decay v[t-1] + x[t]
        A[t] = v_threshold + beta a[t]
        s[t] = heaviside(h[t] - A[t])
        v[t] = h[t] - A[t] s[t]
        a[t+1] = rho a[t] + (1 - rho) s[t],  a[0] = 0

    With ``bits`` both v and a are codes between two steps, those of a from 0 on. rho and beta are learned as
    well, one of each a channel.

    Args:
        adaptation: beta at the start.
        adaptation_decay: rho at the start, 0 .. 1.
    """

    def __init__(
        self,
        num_channels: int,
        decay: float = 0.5,
        *,
        adaptation: float = 1.8,
        adaptation_decay: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(num_channels, decay, **options)
        self.adaptation = nn.Parameter(torch.full((num_channels,), float(adaptation)))
        self.adaptation_logit = _logits(num_channels, adaptation_decay)
        self.adaptation_size = None if self.bits is None else nn.Parameter(torch.ones(num_channels))

    def forward(self, x_seq: Tensor) -> Tensor:
        """Spikes 0 or 1, [T, N, C, *], of a sequence of synaptic input [T, N, C, *], from rest."""
        dtype, x_seq, axes = x_seq.dtype, x_seq.float(), (1,) * (x_seq.dim() - 3)
        decay = self.decay_logit.sigmoid().reshape(-1, *axes)
        rho = self.adaptation_logit.sigmoid().reshape(-1, *axes)
        beta, lowest = self.adaptation.reshape(-1, *axes), x_seq.new_tensor(self.v_threshold)
        highest = 2 ** (self.bits or 0) - 1
        step = None if self.adaptation_size is None else _positive(self.adaptation_size, axes) / highest
        scale = self._scale(axes)
        v = a = torch.zeros_like(x_seq[0])
        spikes = []
        for x in x_seq:
            h = torch.addcmul(x, v, decay)
            threshold = torch.addcmul(lowest, beta, a)
            s = self.surrogate(h - threshold)
            spikes.append(s)
            v = self._stored(h, threshold, s, scale)
            a = torch.lerp(s, a, rho)
            if step is not None:
                a = round_to_codes(a, step, 0, highest)
        return torch.stack(spikes).to(dtype)

    def neuron_spec(self) -> NeuronSpec:
        """As a LIF; and a second decay, an addition for the threshold, and beta, which is part of a."""
        spec, size = super().neuron_spec(), self.adaptation_size
        return replace(
            spec,
            decays=(*spec.decays, self.adaptation_logit),
            numbers=(*spec.numbers, self.adaptation, *(() if size is None else (size,))),
            operations=StepOperations(additions=3, multiplications=2, bits=self.bits),
        )

    def state_bits(self) -> int:
        return 2 * (self.bits or FLOAT_BITS)


class RecurrentLIF(StoredLIF):
    r"""A LIF that receives the last spikes of its layer through learned weights.

        h[t] = decay v[t-1] + x[t] + W s[t-1]
        s[t] = heaviside(h[t] - v_threshold)
        v[t] = h[t] - v_threshold s[t]

    The recurrent baseline of the Heidelberg digits (Cramer et al., arXiv 1910.07407). W, ``recurrent``, is a
    linear layer, which :func:`mfp_neurons.quantize_weights` quantizes with the others.
    """

    def __init__(self, num_channels: int, decay: float = 0.5, **options: Any) -> None:
        super().__init__(num_channels, decay, **options)
        self.recurrent = nn.Linear(num_channels, num_channels, bias=False)
        # weak at first: from torch's own size, sequences of 40 steps hardly trained at a rate of 0.015
        with torch.no_grad():
            self.recurrent.weight.mul_(0.2)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Spikes 0 or 1, [T, N, C], of a sequence of synaptic input [T, N, C], from rest."""
        dtype, x_seq = x_seq.dtype, x_seq.float()
        decay, threshold = self.decay_logit.sigmoid(), x_seq.new_tensor(self.v_threshold)
        scale, come_back = self._scale(()), self._synapses()
        v = s = torch.zeros_like(x_seq[0])
        spikes = []
        for x in x_seq:
            h = torch.addcmul(x + come_back(s), v, decay)
            s = self.surrogate(h - threshold)
            spikes.append(s)
            v = self._stored(h, threshold, s, scale)
        return torch.stack(spikes).to(dtype)

    def _synapses(self) -> Callable[[Tensor], Tensor]:
        """From last spikes to what they add, for all steps of a sequence."""
        layer: Any = self.recurrent
        if not (self.training and is_quantized(layer)):
            return layer  # a module, at whose calls a report counts
        # in training the weight, which is the same at all steps, is quantized once: a third of the time
        return partial(nn.functional.linear, weight=layer.quantized_weight())

    def neuron_spec(self) -> NeuronSpec:
        """As a LIF, which has a decay, an addition and a comparison; and the synapses within the layer."""
        operations = StepOperations(additions=2, multiplications=1, bits=self.bits)
        return replace(super().neuron_spec(), recurrent=self.recurrent, operations=operations)

    def state_bits(self) -> int:
        """A potential, and the last spike, which the synapses read at the next step."""
        return (self.bits or FLOAT_BITS) + 1


def _logits(number: int, decay: float) -> nn.Parameter:
    if not 0 < decay < 1:
        raise ValueError(f"a learned decay must start between 0 and 1, both excluded, got {decay}")
    return nn.Parameter(torch.full((number,), math.log(decay / (1 - decay))))


def _positive(size: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sizes [C] of codes, in units of their start, that broadcast over a step [N, C, *]."""
    return size.abs().clamp_min(1e-3).reshape(-1, *axes)


def _network(
    kind: Callable[..., StoredLIF],
    features: Sequence[int],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    layers: dict[str, Any],
) -> SequenceClassifier:
    """Blocks with neurons of a kind, which has the settings of ``network.neuron``."""
    config = from_dict({"network": {"neuron": {"kind": "lif"}, **layers}}).network
    network = SequenceClassifier(config, tuple(features), classes, time_steps)
    for block, width in zip(network.blocks(), (*config.channels, *config.hidden), strict=True):
        lif = neurons(width)
        if not isinstance(lif, QuantizedMembraneLIF) or lif.v_reset is not None or not lif.learnable:
            raise ValueError(
                "the adaptive and the recurrent LIF have network.neuron.kind = 'lif', reset = 'subtract' and "
                f"learnable = true, got {lif}"
            )
        block.neuron = kind(
            width,
            lif.decay,
            bits=lif.bits,
            v_threshold=lif.v_threshold,
            surrogate=lif.surrogate,
            detach_reset=lif.detach_reset,
        )
    return network


def alif(
    features: Sequence[int],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    channels: Sequence[int] = (),
    hidden: Sequence[int] = (64, 64, 64),
    time_pool: int | Sequence[int] = 1,
    adaptation: float = 1.8,
    adaptation_decay: float = 0.9,
) -> SequenceClassifier:
    """A network of :class:`AdaptiveLIF`; decay, threshold and bits are those of ``network.neuron``.

    Args:
        features: shape of one step of one sample.
        classes: number of scores.
        time_steps: T.
        neurons: what makes the neurons that the config describes.
        channels, hidden, time_pool: as in :class:`mfp_neurons.train.config.NetworkConfig`.
        adaptation, adaptation_decay: beta and rho at the start.
    """
    kind = partial(AdaptiveLIF, adaptation=adaptation, adaptation_decay=adaptation_decay)
    layers = {"channels": channels, "hidden": hidden, "time_pool": time_pool}
    return _network(kind, features, classes, time_steps, neurons, layers)


def recurrent_lif(
    features: Sequence[int],
    classes: int,
    time_steps: int,
    neurons: Neurons,
    *,
    hidden: Sequence[int] = (64, 64, 64),
    time_pool: int | Sequence[int] = 1,
) -> SequenceClassifier:
    """A network of :class:`RecurrentLIF`; the arguments are those of :func:`alif`."""
    layers = {"hidden": hidden, "time_pool": time_pool}
    return _network(RecurrentLIF, features, classes, time_steps, neurons, layers)
