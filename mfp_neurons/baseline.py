"""The baseline: a leaky integrate-and-fire neuron that keeps its potential in a few bits between steps.

This is what the memory-free neuron replaces, here to be measured against; nothing else in the package
needs it. One step of it, with codes n .. p and a learned scale:

    h[t] = decay * v[t-1] + x[t]                         charge
    s[t] = heaviside(h[t] - v_threshold)                 fire
    r[t] = h[t] - v_threshold * s[t]   or   h[t] * (1 - s[t])    reset, soft or hard
    v[t] = scale * clamp(round(r[t] / scale), n, p)      all that is kept: one b-bit code

The rounding is trained with the learned step size of Esser et al., "Learned Step Size Quantization"
(ICLR 2020, arXiv 1902.08153): straight-through inside the range, a gradient for the scale everywhere.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import _serial
from ._checks import check_finite, check_int, describe
from ._saved_spikes import mark_spikes
from .spec import Carried, NeuronSpec
from .surrogate import ATan, Surrogate


class QuantizedMembraneLIF(nn.Module):
    r"""A LIF neuron whose potential is stored in ``bits`` bits between steps: the baseline.

    It resets, it must run step by step, and what it keeps is one b-bit code a neuron. Codes are
    n .. n + 2^bits - 1 around an exact zero, where n is ``lowest_code``: unless given, two's complement,
    -2^(bits-1) .. 2^(bits-1) - 1, and 0 and 1 for a single bit. After normalization the input is as often
    negative as positive, so potentials spread to both sides of zero; one bit must choose a side, and what
    excites is worth more than what inhibits. Of the ranges tried on Fashion-MNIST row by row (1-bit weights,
    three layers) these were the best for their bits. The scale is learned, one for the layer or one for each
    channel, and starts where the codes reach from about -v_threshold to v_threshold.

    Over long sequences try a slow ``decay``, such as 0.9, for a start as well; a learned one moves little.

    ``v_reset=None`` subtracts the threshold after a spike, a number resets to that number, which is
    also where the potential starts and leaks to (as SpikingJelly's LIFNode has it); potentials are
    stored as their distance from it. With ``bits=None`` the potential is a float and this is
    SpikingJelly's ``LIFNode(tau=1 / (1 - decay), decay_input=False)``.

    ``detach_reset=True``, the usual choice when training LIF networks, sends no gradient through the
    reset's spike.

    Args:
        decay: What is left of the potential after one step, 0 .. 1 (inside, if ``learnable``).
        bits: Bits a stored potential takes, 1 .. 8, or None for a float.
        v_threshold: Potential at which the neuron fires.
        v_reset: None for a soft reset, or the potential (below the threshold) that a spike resets to.
        learnable: Whether the decay is trained (as ``decay_logit``, its logit).
        num_channels: C, for a decay and a scale of each channel; None for one of each.
        surrogate: The spike's derivative: one of ``mfp_neurons.surrogate``, or any callable from
            potential - threshold to spikes (slower; said once in the log).
        strict: Whether it fires on potential > threshold only (snnTorch), not on equality (SpikingJelly).
        detach_reset: Whether the reset's spike is a constant for the gradient.
        lowest_code: n above, -(2^bits - 1) .. 0.

    Raises:
        TypeError, ValueError: An argument is not as described.

    >>> lif = QuantizedMembraneLIF(decay=0.5, bits=2)               # codes -2 .. 1, scale 0.5
    >>> x = torch.tensor([0.9, 0.6, 0.3, 0.7]).reshape(4, 1)        # T = 4, one neuron
    >>> lif(x).detach().flatten()           # h = 0.9, 0.85, 0.55, 0.95: the stored 0.5 is all it has
    tensor([0., 0., 0., 0.])
    >>> QuantizedMembraneLIF(decay=0.5, bits=None)(x).flatten()     # h = 0.9, 1.05, 0.325, 0.8625
    tensor([0., 1., 0., 0.])
    """

    decay_logit: nn.Parameter | None
    scale: nn.Parameter | None

    def __init__(
        self,
        decay: float = 0.5,
        *,
        bits: int | None = 2,
        v_threshold: float = 1.0,
        v_reset: float | None = None,
        learnable: bool = False,
        num_channels: int | None = None,
        surrogate: Callable[[Tensor], Tensor] = ATan(),
        strict: bool = False,
        detach_reset: bool = True,
        lowest_code: int | None = None,
    ) -> None:
        super().__init__()
        self.decay = _check_decay(decay, learnable)
        self.bits = None if bits is None else check_int("bits", bits, 1, 8)
        if num_channels is not None:
            check_int("num_channels", num_channels, 1)
        if not callable(surrogate):
            raise TypeError(f"surrogate must be callable, got {describe(surrogate)}")
        self.v_threshold, self.v_reset = _check_threshold(v_threshold, v_reset)
        self.learnable, self.num_channels = learnable, num_channels
        self.surrogate, self.strict, self.detach_reset = surrogate, strict, detach_reset
        self.lowest_code = _check_lowest(lowest_code, self.bits)
        size = num_channels or 1
        logit = math.log(decay / (1 - decay)) if learnable else 0.0
        self.decay_logit = nn.Parameter(torch.full((size,), logit)) if learnable else None
        self.scale = None if self.bits is None else nn.Parameter(torch.full((size,), self._first_scale()))

    @property
    def state_bits(self) -> int:
        """Bits a neuron keeps between steps: ``bits``, 32 for a float potential, 0 for a fixed decay of 0."""
        if self.decay == 0 and not self.learnable:
            return 0
        return 32 if self.bits is None else self.bits

    def forward(self, x_seq: Tensor) -> Tensor:
        """Spikes of a whole sequence, from a potential at rest; nothing is kept for the next call.

        Args:
            x_seq: Synaptic input [T, N, *], floating point; channels along dim 2.

        Returns:
            Spikes 0 or 1, [T, N, *], in the dtype of ``x_seq``.

        Raises:
            TypeError: ``x_seq`` is not a floating-point tensor.
            ValueError: ``x_seq`` has fewer than two dimensions, or its dim 2 is not ``num_channels``; the
                learned scale or decay holds NaN or infinity, and lies on the CPU.
        """
        spikes = _serial.fire(*self._operands(x_seq), self._rule()).to(x_seq.dtype)
        if isinstance(self.surrogate, Surrogate):
            mark_spikes(spikes)
        return spikes

    @torch.no_grad()
    def potential(self, x_seq: Tensor) -> Tensor:
        """Potential of every step before its reset, what the threshold sees; without gradients.

        Args:
            x_seq: As for :meth:`forward`, which also says what is raised.

        Returns:
            [T, N, *], float32 or wider.

        >>> lif = QuantizedMembraneLIF(decay=0.5, bits=None)
        >>> lif.potential(torch.tensor([0.9, 0.6, 0.3]).reshape(3, 1)).flatten()
        tensor([0.9000, 1.0500, 0.3250])
        """
        x, decay, scale = self._operands(x_seq)
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        _serial.steps(x, decay, scale, self._rule(), h)
        return h.add_(self.v_reset or 0.0)

    @torch.no_grad()
    def stored_potential(self, x_seq: Tensor) -> Tensor:
        """Potential that is kept after every step: reset, and rounded to one of the 2^bits codes.

        Args:
            x_seq: As for :meth:`forward`, which also says what is raised.

        Returns:
            [T, N, *], float32 or wider, without gradients.

        >>> lif = QuantizedMembraneLIF(decay=0.5, bits=2)               # codes -2 .. 1, scale 0.5
        >>> lif.stored_potential(torch.tensor([0.9, -0.6, -2.0]).reshape(3, 1)).flatten()
        tensor([ 0.5000, -0.5000, -1.0000])
        """
        x, decay, scale = self._operands(x_seq)
        rule, h = self._rule(), torch.empty_like(x)
        v = rule.reset(h, _serial.steps(x, decay, scale, rule, h), out=h)
        if scale is not None:
            rule.round_(v, scale)
        return v.add_(self.v_reset or 0.0)

    def neuron_spec(self) -> NeuronSpec:
        """What this neuron computes and keeps, for whoever reads a model."""
        bits = self.state_bits
        return NeuronSpec(
            kernel=None,
            carried=Carried("potential", bits=bits) if bits else Carried("nothing", 0, bits=0),
            threshold=self.v_threshold,
            surrogate=self.surrogate,
            strict=self.strict if isinstance(self.surrogate, Surrogate) else None,
            decays=() if self.decay_logit is None else (self.decay_logit,),
            numbers=() if self.scale is None else (self.scale,),
        )

    def _operands(self, x_seq: Tensor) -> tuple[Tensor, float | Tensor, Tensor | None]:
        """Input, decay and scale in float32 or wider, shaped to meet one step."""
        self._check_input(x_seq)
        for name, value in self.named_parameters():
            check_finite(name, value)
        wide = torch.promote_types(x_seq.dtype, torch.float32)
        x = x_seq.to(wide)
        decay: float | Tensor = self.decay
        if self.decay_logit is not None:
            decay = _over_channels(self.decay_logit.to(wide).sigmoid(), x)
        scale = None
        if self.scale is not None:
            scale = _over_channels(self._trained_scale(x).to(wide), x)
        return x, decay, scale

    def _rule(self) -> _serial.Rule:
        codes = None if self.bits is None else (self.lowest_code, self.lowest_code + 2**self.bits - 1)
        # Potentials are computed as distances from rest, where 0 is a code and a leak leads.
        rest = self.v_reset or 0.0
        return _serial.Rule(
            threshold=self.v_threshold - rest,
            hard=self.v_reset is not None,
            codes=codes,
            detach_reset=self.detach_reset,
            strict=self.strict,
            surrogate=self.surrogate,
        )

    def _first_scale(self) -> float:
        return (self.v_threshold - (self.v_reset or 0.0)) / 2 ** ((self.bits or 1) - 1)

    def _trained_scale(self, x: Tensor) -> Tensor:
        """The scale, positive, its gradient divided by sqrt(values a sample * highest code), as in LSQ."""
        assert self.scale is not None and self.bits is not None
        # A scale that many values share gets the sum of their gradients: LSQ divides it by the square root of
        # their number, so that its steps are of the size of a weight's.
        shared = x[0, 0].numel() // self.scale.numel() if x.numel() else 1
        ratio = 1 / math.sqrt(max(shared, 1) * max(2 ** (self.bits - 1) - 1, 1))
        scale = self.scale.abs().clamp_min(1e-6)
        # the value of scale, and ratio times its gradient
        return scale.detach() + (scale - scale.detach()) * ratio

    def _check_input(self, x_seq: Tensor) -> None:
        if not isinstance(x_seq, Tensor) or not x_seq.is_floating_point():
            raise TypeError(f"x_seq must be a floating-point tensor [T, N, *], got {describe(x_seq)}")
        if x_seq.dim() < 2:
            raise ValueError(f"x_seq must be [T, N, *], got {describe(x_seq)}")
        if self.num_channels is not None and (x_seq.dim() < 3 or x_seq.shape[2] != self.num_channels):
            raise ValueError(
                f"x_seq must have num_channels = {self.num_channels} along dim 2, got {describe(x_seq)}"
            )

    def extra_repr(self) -> str:
        decay = "learnable" if self.learnable else f"{self.decay:g}"
        shown = f"decay={decay}, bits={self.bits}, v_threshold={self.v_threshold:g}, v_reset={self.v_reset}"
        return shown if self.num_channels is None else f"{shown}, num_channels={self.num_channels}"


def _over_channels(value: Tensor, x: Tensor) -> Tensor:
    """[C] -> [C, 1, ..], which broadcasts over one step [N, C, *]; [1] stays as it is."""
    return value if value.numel() == 1 else value.reshape(-1, *[1] * (x.dim() - 3))


def _check_decay(decay: float, learnable: bool) -> float:
    if isinstance(decay, bool) or not isinstance(decay, (int, float)):
        raise TypeError(f"decay must be a number, got {describe(decay)}")
    check_finite("decay", decay)
    if not 0 <= decay <= 1 or (learnable and decay in (0, 1)):
        accepted = "between 0 and 1, both excluded, when learnable" if learnable else "from 0 to 1"
        raise ValueError(f"decay must be {accepted}, got {decay}")
    return float(decay)


def _check_threshold(v_threshold: float, v_reset: float | None) -> tuple[float, float | None]:
    for name, value in (("v_threshold", v_threshold), ("v_reset", v_reset)):
        if name == "v_reset" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, got {describe(value)}")
        check_finite(name, value)
    if v_threshold <= (v_reset or 0.0):
        rest = f"the resting potential {v_reset or 0.0}"
        raise ValueError(f"v_threshold must be above {rest}, got {v_threshold}")
    return float(v_threshold), None if v_reset is None else float(v_reset)


def _check_lowest(lowest_code: int | None, bits: int | None) -> int:
    if bits is None:
        if lowest_code is not None:
            raise ValueError(f"lowest_code needs bits, got lowest_code={lowest_code} with bits=None")
        return 0
    if lowest_code is None:  # of one bit's two ranges the one that keeps what excites
        return 0 if bits == 1 else -(2 ** (bits - 1))
    return check_int("lowest_code", lowest_code, 1 - 2**bits, 0)
