r"""History kernels: how much an input that arrived j steps ago still weighs.

.. math::
    u[t] = \sum_{j=0}^{\min(t, K-1)} m_j \, x[t-j]

A kernel is a plain value here, a few tensors and no state. :class:`mfp_neurons.neuron.HistoryKernel` is the
module that holds its parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ._checks import check_finite, check_int, describe, is_traced

KernelBits = int | Literal["pow2"] | None

_POW2_LEVELS = 8  # magnitudes a power-of-two tap can take: its channel's largest and the seven halvings below


@dataclass(frozen=True)
class Exponential:
    """Taps m[j] = gain * decay**j, the trace of a leaky integrator that never resets.

    Args:
        decay: d in [0, 1], a number or a tensor [1] (per layer) or [C] (per channel).
        gain: factor on every tap, of the same forms. LIFNode's ``decay_input`` is gain = 1 - decay.
        order: K, the number of taps kept; None keeps them all (a recursion, never truncated).
    """

    decay: Tensor | float
    gain: Tensor | float = 1.0
    order: int | None = None

    def __post_init__(self) -> None:
        for name in ("decay", "gain"):
            _check_parameter(name, getattr(self, name))
        if isinstance(self.decay, (int, float)) and not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, got {self.decay}")
        if self.order is not None:
            check_int("order", self.order, 1)

    def taps(self, order: int, device: torch.device | str = "cpu") -> Tensor:
        """The first ``order`` taps, [K, 1] or [K, C], differentiable; float64 of numbers, else >= float32.

        Taps of numbers are computed on ``device``, all others where the tensors are.
        """
        decay, gain = (as_row(v) if isinstance(v, Tensor) else float(v) for v in (self.decay, self.gain))
        dtype = torch.float64
        if (like := next((v for v in (decay, gain) if isinstance(v, Tensor)), None)) is not None:
            device, dtype = like.device, like.dtype
        lag = torch.arange(order, device=device, dtype=dtype).unsqueeze(1)
        taps: Tensor = gain * decay**lag
        return taps

    def lagged_taps(
        self, order: int, stride: int, bits: KernelBits, device: torch.device | str = "cpu"
    ) -> Tensor:
        """:meth:`taps`, ``stride`` steps apart and snapped to the grid of ``bits``; zeros between them."""
        taps = self.taps((order - 1) * stride + 1, device)[::stride]
        return at_lags(quantize_taps(taps, bits), stride)

    def truncated(self, stride: int = 1, bits: KernelBits = None) -> "FIR":
        """The ``order`` taps as FIR taps; see :meth:`lagged_taps`."""
        assert self.order is not None
        if isinstance(self.decay, Tensor) or isinstance(self.gain, Tensor):
            return FIR(self.lagged_taps(self.order, stride, bits))
        return FixedTaps(self, stride, bits)


@dataclass(frozen=True)
class FIR:
    """K free taps: ``taps`` [K] (per layer) or [K, C] (per channel); tap j weighs the input j steps back."""

    taps: Tensor

    def __post_init__(self) -> None:
        taps = self.taps
        if not isinstance(taps, Tensor) or not taps.is_floating_point() or taps.dim() not in (1, 2):
            raise TypeError(f"taps must be a real floating-point tensor [K] or [K, C], got {describe(taps)}")
        if taps.numel() == 0:
            raise ValueError(f"taps must hold at least one tap, got shape {list(taps.shape)}")
        check_finite("taps", taps)

    def taps_for(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The taps [K, 1] or [K, C] in ``dtype``, to be used with ``x``."""
        return as_dtype(self.taps if self.taps.dim() == 2 else self.taps.unsqueeze(1), dtype)


class FixedTaps(FIR):
    """Taps that follow from numbers alone and so belong to no device: they go where the input is."""

    _of: tuple[Exponential, int, int, KernelBits]

    def __init__(self, exponential: Exponential, stride: int, bits: KernelBits) -> None:
        assert exponential.order is not None
        object.__setattr__(self, "_of", (exponential, exponential.order, stride, bits))

    def __reduce__(self) -> Any:
        exponential, _, stride, bits = self._of
        return FixedTaps, (exponential, stride, bits)

    @property
    def taps(self) -> Tensor:  # type: ignore[override]
        """[K, 1], float64, on the CPU."""
        return self._computed("cpu")

    def _computed(self, device: torch.device | str) -> Tensor:
        exponential, order, stride, bits = self._of
        return exponential.lagged_taps(order, stride, bits, device)

    def taps_for(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return constant(self._of, x, dtype, self._computed)


@dataclass(frozen=True)
class Matrix:
    """One free matrix [T, T] for a fixed T: row t weighs the inputs 0..t of step t; what is above the
    diagonal is ignored, so no step sees the future."""

    matrix: Tensor

    def __post_init__(self) -> None:
        m = self.matrix
        if not isinstance(m, Tensor) or not m.is_floating_point() or m.dim() != 2 or m.shape[0] != m.shape[1]:
            raise TypeError(f"matrix must be a real floating-point tensor [T, T], got {describe(m)}")
        check_finite("matrix", m)


Kernel = Exponential | FIR | Matrix

_constants: dict[Any, Tensor] = {}
_MOST_CONSTANTS = 4096  # a sweep over decays must not fill the memory


def constant(
    key: tuple[Any, ...], x: Tensor, dtype: torch.dtype, compute: Callable[[torch.device | str], Tensor]
) -> Tensor:
    """A tensor in ``dtype``, where x is, that follows from the numbers in ``key`` alone: computed once.

    Each device keeps a copy, so that no call but the first copies anything from the host.

    Args:
        key: the numbers, and a name for what is computed from them.
        x: the input that the tensor is used with.
        dtype: that of the tensor.
        compute: gives it on a device.
    """
    if is_traced((x,)) or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return as_dtype(compute(x.device), dtype)  # belongs to the graph that is being made
    place = (key, x.device, dtype)
    found = _constants.get(place)
    if found is None:
        if len(_constants) >= _MOST_CONSTANTS:
            _constants.clear()
        with torch.inference_mode(False):  # training may use it later
            found = _constants[place] = compute("cpu").to(x.device, dtype)
    return found


def as_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """``tensor.to(dtype)``, which takes as long as a small layer's arithmetic even where nothing changes."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def as_row(value: Tensor | float) -> Tensor:
    """A per-layer or per-channel parameter as a tensor [1] or [C], float32 or wider; of a number, float64."""
    if not isinstance(value, Tensor):
        return torch.tensor([float(value)], dtype=torch.float64)
    row = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    return row.reshape(-1)


def _check_parameter(name: str, value: Tensor | float) -> None:
    if isinstance(value, Tensor):
        if not value.is_floating_point() or value.dim() > 1:
            raise TypeError(f"{name} must be a number or a real tensor [1] or [C], got {describe(value)}")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a real tensor [1] or [C], got {describe(value)}")
    check_finite(name, value)


def at_lags(taps: Tensor, stride: int) -> Tensor:
    """K taps [K] or [K, C] put at the lags 0, stride, 2 * stride, ..., with zeros between them.

    >>> at_lags(torch.tensor([1.0, 0.5, 0.25]), 2)
    tensor([1.0000, 0.0000, 0.5000, 0.0000, 0.2500])
    """
    if stride == 1:
        return taps
    apart = taps.unsqueeze(1)
    zeros = apart.new_zeros(()).expand(len(taps), stride - 1, *taps.shape[1:])
    return torch.cat((apart, zeros), 1).flatten(0, 1)[: (len(taps) - 1) * stride + 1]


def check_kernel_bits(bits: KernelBits) -> None:
    """Raises unless ``bits`` is None, "pow2" or an integer from 2 to 8."""
    if bits is None or (isinstance(bits, str) and bits == "pow2"):
        return
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ValueError(f"kernel_bits must be None, 'pow2' or an integer from 2 to 8, got {describe(bits)}")


def quantize_taps(taps: Tensor, bits: KernelBits) -> Tensor:
    """Snaps every tap to a grid that integer hardware can add and shift on; gradients pass straight through.

    Args:
        taps: real tensor; dim 0 is the lag, each column of the other dim (a channel) has a grid of its own.
        bits: None leaves the taps real. "pow2" makes each 0 or +/-2^-p, p an integer, within a factor of 2^7
            of its channel's largest. An integer n makes each an n-bit signed integer times one power of two.

    Returns:
        A tensor like ``taps``. A channel with a NaN or an infinity among its taps is NaN as a whole.

    Raises:
        ValueError: ``bits`` is none of these.

    Straight-through estimator: Bengio, Leonard and Courville, arXiv 1308.3432.

    >>> quantize_taps(torch.tensor([1.0, 0.7, 0.3, 0.001]), "pow2")
    tensor([1.0000, 0.5000, 0.2500, 0.0000])
    >>> quantize_taps(torch.tensor([1.0, 0.7, 0.3, 0.001]), 3)  # multiples of 1/2, from -3/2 to 3/2
    tensor([1.0000, 0.5000, 0.5000, 0.0000])
    """
    check_kernel_bits(bits)
    if bits is None:
        return taps
    with torch.no_grad():
        real = taps.float() if taps.dtype in (torch.float16, torch.bfloat16) else taps.detach()
        largest = real.abs().amax(0, keepdim=True)
        snapped = _snap_pow2(real, largest) if bits == "pow2" else _snap_uniform(real, largest, int(bits))
        # A grid that starts at NaN or infinity has no values: say so in every tap, rather than in some.
        snapped = torch.where(largest.isfinite(), snapped, torch.full_like(snapped, torch.nan)).to(taps.dtype)
    return _StraightThrough.apply(taps, snapped)


class _StraightThrough(torch.autograd.Function):
    """Forward gives the snapped value itself (taps + (snapped - taps) would round), backward the identity."""

    @staticmethod
    def forward(ctx, value: Tensor, snapped: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        return snapped.view_as(snapped)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def, override]
        return grad, None


def _snap_pow2(taps: Tensor, largest: Tensor) -> Tensor:
    magnitude = taps.abs()
    exponent = magnitude.log2().round()  # of a zero tap: -inf, and it stays zero
    kept = exponent >= largest.log2().round() - (_POW2_LEVELS - 1)
    return torch.where(kept & (magnitude > 0), taps.sign() * exponent.exp2(), torch.zeros_like(taps))


def _snap_uniform(taps: Tensor, largest: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    step = (largest / top).log2().ceil().exp2()  # a power of two, so that scaling is a shift
    step = step.clamp_min(torch.finfo(step.dtype).tiny)  # of subnormal taps it would be 0
    step = torch.where(largest > 0, step, torch.ones_like(step))
    return (taps / step).round().clamp(-top, top) * step
