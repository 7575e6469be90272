"""The neuron as torch modules: :class:`HistoryKernel` holds the parameters, :class:`MFP` fires."""

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, Unpack

import torch
from torch import Tensor, nn

from ._checks import cached, check_choice, check_finite, check_int, check_threshold, describe, refuse_tracers
from .backends import check_name
from .feedback import Feedback
from .functional import SpikeFunction, fire
from .history import FIR, Exponential, Kernel, KernelBits, Matrix, at_lags, check_kernel_bits, quantize_taps
from .spec import KernelOptions, KernelParameters, NeuronSpec
from .surrogate import ATan, Surrogate

__all__ = ["MFP", "HistoryKernel"]

KINDS = ("exp", "fir", "matrix")

P = ParamSpec("P")


class HistoryKernel(nn.Module, KernelParameters):
    """Parameters of a history kernel; calling it gives the kernel's value, quantized if asked.

    Args:
        kind: "exp": m[j] = gain * decay**j. "fir": ``order`` free taps. "matrix": one free causal matrix over
            ``time_steps`` steps. The last two start as the exponential and are always parameters.
        decay: d in [0, 1] of the exponential; a trained one must lie strictly inside.
        gain: factor on every tap; None is 1, "decay_input" is 1 - decay (and follows a trained decay).
        order: K, the number of taps kept. None: all for "exp"; "fir" needs one; bands a "matrix".
        time_steps: T of a "matrix", which no other kind takes.
        learnable: train the exponential's decay, as sigmoid(decay_logit).
        num_channels: C parameters, one (set) a channel along dim 2 of [T, N, C, *]; None: one for the layer.
        groups: G, a divisor of ``num_channels``: each group of C / G neighbouring channels shares a parameter
            (set), so that channel c uses c // (C / G), as in a grouped convolution; None: one a channel.
        kernel_bits: None, "pow2" or 2 to 8; see :func:`mfp_neurons.history.quantize_taps`.
        stride: s, steps from one tap to the next: the K taps lie at lags 0, s, .., (K - 1) s and start as the
            exponential is there. Other than 1 only with an ``order``, and not for "matrix".

    Raises:
        TypeError, ValueError: an argument is out of range, or the combination has no meaning.

    Parameters: ``decay_logit`` [1] or [C] ("exp", learnable), ``taps`` [K] or [K, C], ``matrix`` [T, T]; with
    ``groups`` G in the place of C. The kernel's value has a column a channel, or one that serves them all.

    >>> HistoryKernel("fir", decay=0.5, order=3)().taps
    Parameter containing:
    tensor([1.0000, 0.5000, 0.2500], requires_grad=True)
    """

    def __init__(
        self,
        kind: str = "exp",
        *,
        decay: float,
        gain: Literal["decay_input"] | float | None = None,
        order: int | None = None,
        time_steps: int | None = None,
        learnable: bool = False,
        num_channels: int | None = None,
        groups: int | None = None,
        kernel_bits: KernelBits = None,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.kind, self.order, self.time_steps = kind, order, time_steps
        self.learnable, self.num_channels, self.groups = bool(learnable), num_channels, groups
        self.kernel_bits, self.stride = kernel_bits, stride
        self._check(decay, gain)
        self._decay, self._gain = float(decay), gain
        device = torch.get_default_device()  # where torch makes the parameters of other modules too
        sets = self.parameter_sets
        if kind == "fir":
            assert order is not None
            # trained taps start where the exponential is at their lags
            spaced = self.exponential().taps((order - 1) * stride + 1, device)[::stride]
            taps = spaced.float().squeeze(1)
            self.taps = nn.Parameter(taps if sets is None else taps[:, None].repeat(1, sets))
        elif kind == "matrix":
            assert time_steps is not None
            self.matrix = nn.Parameter(_toeplitz(self.exponential().taps(time_steps, device).float(), order))
        elif learnable:
            # the logit can take any value in training, and its sigmoid stays a decay; of shape [1], because
            # FSDP2 refuses scalars
            logit = math.log(decay / (1 - decay))
            self.decay_logit = nn.Parameter(torch.full((sets or 1,), logit, dtype=torch.float32))

    @property
    def decay_parameters(self) -> tuple[Tensor, ...]:
        """The parameter that learned decays follow from, if there is one."""
        return (self.decay_logit,) if self.kind == "exp" and self.learnable else ()

    def _check(self, decay: float, gain: Literal["decay_input"] | float | None) -> None:
        """Raises unless the options and the start of an exponential fit together."""
        kind, order, time_steps, bits = self.kind, self.order, self.time_steps, self.kernel_bits
        check_choice("kernel", kind, KINDS)
        check_finite("decay", decay)
        if isinstance(decay, Tensor) and decay.numel() != 1:
            raise TypeError(
                f"decay must be a number, got {describe(decay)}. learnable=True with num_channels=C trains "
                "one for each channel"
            )
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, got {decay}")
        if self.learnable and kind == "exp" and not 0 < decay < 1:
            raise ValueError(f"a learnable decay must start strictly between 0 and 1, got {decay}")
        if isinstance(gain, str) and gain != "decay_input":
            raise ValueError(f"gain must be None, 'decay_input' or a number, got {describe(gain)}")
        for name, value in (
            ("order", order),
            ("time_steps", time_steps),
            ("num_channels", self.num_channels),
            ("groups", self.groups),
        ):
            if value is not None:
                check_int(name, value, 1)
        if kind == "fir" and order is None:
            raise ValueError("kernel='fir' needs order, the number of its taps, got None")
        if (kind == "matrix") != (time_steps is not None):
            wants = "needs" if kind == "matrix" else "takes no"
            raise ValueError(f"kernel={kind!r} {wants} time_steps, got {time_steps}")
        if order is not None and time_steps is not None and order > time_steps:
            raise ValueError(
                f"order must be at most time_steps ({time_steps}) for kernel='matrix', got {order}"
            )
        for name, count in (("num_channels", self.num_channels), ("groups", self.groups)):
            if kind == "matrix" and count is not None:
                raise ValueError(
                    f"kernel='matrix' is shared by all channels; {name} must be None, got {count}"
                )
        if self.groups is not None:
            if self.num_channels is None:
                raise ValueError(f"groups={self.groups} needs num_channels, which it must divide, got None")
            if self.num_channels % self.groups:
                raise ValueError(
                    f"groups must divide num_channels, got groups={self.groups} and num_channels="
                    f"{self.num_channels}"
                )
        check_kernel_bits(bits)
        if kind == "exp" and bits is not None and order is None:
            self._check_that_taps_are_powers_of_two(decay, gain)
        check_int("stride", self.stride, 1)
        if self.stride > 1 and (kind == "matrix" or order is None):
            wants = "takes no stride" if kind == "matrix" else "needs order, the number of taps, for a stride"
            raise ValueError(f"kernel={kind!r} {wants}, got stride={self.stride}")

    def _check_that_taps_are_powers_of_two(
        self, decay: float, gain: Literal["decay_input"] | float | None
    ) -> None:
        """An exponential without an order is a recursion, which has no taps to quantize: they must fit."""
        factor = 1 - decay if gain == "decay_input" else 1.0 if gain is None else float(gain)
        fits = _is_power_of_two(decay) and _is_power_of_two(factor)
        if self.learnable or self.kernel_bits != "pow2" or not fits:
            raise ValueError(
                f"kernel='exp' with kernel_bits={self.kernel_bits!r} needs order, the number of taps to "
                "quantize, unless every tap is a power of two already (a fixed decay such as 0.5, "
                f"kernel_bits='pow2'); got order=None, decay={decay}, learnable={self.learnable}"
            )

    def exponential(self) -> Exponential:
        """The exponential with its decay and gain as they are now; for "fir" and "matrix" their start."""
        decay = self.decay  # once: a trained one has a sigmoid, whose gradient would be summed in two parts
        order = self.order if self.kind == "exp" else None
        if isinstance(decay, Tensor):
            decay = self.over_channels(decay)
            return Exponential(decay, self._gain_of(decay), order)
        return _exponential(decay, self._gain_of(decay), order)

    def _gain_of(self, decay: Any) -> Any:
        if self._gain == "decay_input":
            return 1 - decay
        return 1.0 if self._gain is None else float(self._gain)

    @property
    def decay(self) -> Tensor | float:
        """The exponential's decay, one a group if there are groups ("fir", "matrix": where they started)."""
        if self.kind == "exp" and self.learnable:
            logit: Tensor = self.decay_logit
            # the sigmoid of a 16-bit logit near 1 would round to 1, a neuron that never forgets
            return torch.sigmoid(logit.float() if logit.dtype in (torch.float16, torch.bfloat16) else logit)
        return self._decay

    @property
    def gain_follows_decay(self) -> bool:
        """Whether the gain is 1 - decay and changes with it, as of LIFNode's ``decay_input``."""
        return self._gain == "decay_input"

    def forward(self) -> Kernel:
        """The kernel's value: Exponential, FIR or Matrix, differentiable in the parameters."""
        if self.kind == "matrix":
            banded = self._banded()  # one grid for all of it
            return Matrix(quantize_taps(banded.reshape(-1), self.kernel_bits).reshape_as(banded))
        if self.kind == "fir":
            taps = self.over_channels(quantize_taps(self.taps, self.kernel_bits))
            return FIR(at_lags(taps, self.stride))
        return self._quantized_exponential()

    @torch.no_grad()
    def truncate(self, order: int) -> None:
        """Drops all but the first ``order`` taps, in place: ``taps`` stays the same Parameter, shorter.

        Raises:
            ValueError: ``order`` is below 1 or above what there is.
        """
        check_int("order", order, 1, self.time_steps if self.order is None else self.order)
        self.order = order
        if self.kind == "fir":
            # the Parameter stays the same object, which optimizers and users hold
            self.taps.grad = None  # it has as many rows as there were taps
            self.taps.data = self.taps[:order].clone()

    def _banded(self) -> Tensor:
        lower = self.matrix.tril()
        return lower if self.order is None else lower.triu(1 - self.order)

    def extra_repr(self) -> str:
        named = {
            "decay": None if self.learnable else self._decay,
            "order": self.order,
            "time_steps": self.time_steps,
            "learnable": self.learnable or None,
            "num_channels": self.num_channels,
            "groups": self.groups,
            "kernel_bits": self.kernel_bits,
            "stride": None if self.stride == 1 else self.stride,
        }
        return ", ".join([self.kind, *(f"{k}={v}" for k, v in named.items() if v is not None)])


@cached
def _exponential(decay: float, gain: float, order: int | None) -> Exponential:
    return Exponential(decay, gain, order)


def kernel_of(neuron: nn.Module, options: KernelOptions, **start: Any) -> HistoryKernel:
    """The kernel that a neuron's constructor was asked for; ``start`` are HistoryKernel's other arguments."""
    for name in options:
        if name not in KernelOptions.__annotations__:
            raise TypeError(f"{type(neuron).__name__}.__init__() got an unexpected keyword argument {name!r}")
    chosen: dict[str, Any] = dict(options)
    return HistoryKernel(chosen.pop("kernel", "exp"), **start, **chosen)


def shows_kernel_options(init: Callable[P, None]) -> Callable[P, None]:
    """Lets ``inspect.signature`` and ``help`` of a constructor show what its ``**options`` stand for."""
    signature, known = inspect.signature(init), inspect.signature(HistoryKernel).parameters
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    options = [
        known["kind" if name == "kernel" else name].replace(name=name, kind=inspect.Parameter.KEYWORD_ONLY)
        for name in KernelOptions.__annotations__
    ]
    init.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return init


class MFP(nn.Module):
    """Memory-free parallel spiking neuron for plain PyTorch: [T, N, *] in, spikes out, no state.

    Args:
        decay: d of the exponential history, from 0 to 1; where "fir" and "matrix" start.
        v_threshold: firing threshold, in the units of the input; ``math.inf`` never fires.
        kernel, order, time_steps, learnable, num_channels, groups, kernel_bits, stride: see
            :class:`HistoryKernel`.
        learn_threshold: train the threshold (a parameter [1], or [C] with num_channels).
        reset, reset_order, detach_reset: what the neuron's own spikes change: None (nothing), "subtract",
            "zero" or "feedback"; see :class:`mfp_neurons.feedback.Feedback`.
        surrogate, strict, backend: see :func:`mfp_neurons.functional.fire`.

    Shape:
        x_seq [T, N, *], spikes of the same shape and dtype.

    Raises:
        TypeError, ValueError: see :class:`HistoryKernel` and :func:`mfp_neurons.functional.fire`.

    >>> MFP(decay=0.5)(torch.tensor([0.5, 0.5, 0.0, 1.0]).reshape(4, 1)).flatten()
    tensor([0., 0., 0., 1.])
    """

    v_threshold: Tensor | float

    @shows_kernel_options
    def __init__(
        self,
        decay: float = 0.5,
        *,
        v_threshold: float = 1.0,
        learnable: bool = False,
        learn_threshold: bool = False,
        surrogate: SpikeFunction = ATan(),
        strict: bool = False,
        backend: str = "auto",
        reset: str | None = None,
        reset_order: int | None = None,
        detach_reset: bool = False,
        **options: Unpack[KernelOptions],
    ) -> None:
        check_name(backend)
        check_threshold("v_threshold", v_threshold)
        if isinstance(v_threshold, Tensor) and v_threshold.numel() != 1:
            raise TypeError(
                f"v_threshold must be a number, got {describe(v_threshold)}. A threshold of each channel, a "
                "tensor [C], may be assigned to the neuron's v_threshold"
            )
        super().__init__()
        self.kernel = kernel_of(self, options, decay=decay, learnable=learnable)
        self.feedback = Feedback(reset, self.kernel, order=reset_order, detach=detach_reset)
        if learn_threshold:
            size = self.kernel.num_channels or 1
            self.v_threshold = nn.Parameter(torch.full((size,), float(v_threshold), dtype=torch.float32))
        else:
            self.v_threshold = float(v_threshold)
        self.surrogate, self.strict, self.backend = surrogate, strict, backend

    def forward(self, x_seq: Tensor) -> Tensor:
        refuse_tracers(self, x_seq)
        kernel, device = self.kernel(), getattr(x_seq, "device", "cpu")  # fire says what x_seq must be
        return fire(
            x_seq,
            kernel,
            self.v_threshold,
            **self.feedback.arguments(self.kernel, kernel, self.v_threshold, device),
            surrogate=self.surrogate,
            strict=self.strict,
            backend=self.backend,
        )

    def neuron_spec(self) -> NeuronSpec:
        """What this neuron computes and keeps, for whoever reads a model."""
        return NeuronSpec(
            kernel=self.kernel,
            reset=self.feedback.spec(self.kernel, self.v_threshold),
            carried=self.feedback.carried(self.kernel),
            threshold=self.v_threshold,
            surrogate=self.surrogate,
            strict=self.strict if isinstance(self.surrogate, Surrogate) else None,
            decays=self.kernel.decay_parameters,
        )

    def extra_repr(self) -> str:
        trained = isinstance(self.v_threshold, Tensor)
        return f"v_threshold={'learned' if trained else self.v_threshold}, surrogate={self.surrogate}"


def _toeplitz(taps: Tensor, order: int | None) -> Tensor:
    """[T, 1] taps as the causal matrix [T, T] that repeats them, banded to ``order``."""
    steps = len(taps)
    lag = torch.arange(steps)[:, None] - torch.arange(steps)
    return torch.where((lag >= 0) & (lag < (order or steps)), taps[lag.clamp(min=0), 0], 0.0)


def _is_power_of_two(value: float) -> bool:
    return value == 0 or math.frexp(value)[0] == 0.5
