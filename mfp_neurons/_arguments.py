"""Checks what a caller gave, and turns kernels, numbers and states into the tensors of a call."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._checks import (
    check_choice,
    check_finite,
    check_int,
    check_threshold,
    describe,
    is_exporting,
    is_readable,
    is_traced,
)
from .backends import Call, accumulate_dtype, check_name
from .history import FIR, Exponential, Kernel, Matrix, as_dtype, as_row, constant
from .norm import Norm
from .surrogate import Surrogate

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


RESETS = ("subtract", "zero", "feedback")


class ResetOptions(NamedTuple):
    """What a neuron's own spikes change, as the functions of :mod:`mfp_neurons.functional` were asked."""

    reset: str | None
    order: int | None
    taps: Tensor | None
    delay: bool
    detach: bool

    @classmethod
    def of(
        cls,
        reset: str | None = None,
        reset_order: int | None = None,
        reset_taps: Tensor | None = None,
        reset_delay: bool = False,
        detach_reset: bool = False,
    ) -> "ResetOptions":
        """By the names that the functions have for them."""
        return cls(reset, reset_order, reset_taps, reset_delay, detach_reset)


class Carry(NamedTuple):
    """What the state after a call holds."""

    inputs: int | None  #: so many inputs; None where it is a potential
    spikes: int | None  #: so many of the neuron's own last spikes; None without a reset


_prepared: dict[Any, tuple[Call, Carry]] = {}
_MOST_PREPARED = 1024  # shapes and numbers of one run may be many


def prepare(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float,
    state: Tensor | None,
    feedback: ResetOptions | None = None,
    own_spikes: Tensor | None = None,
    **options: Any,
) -> tuple[Call, Carry]:
    """The call that the arguments of :mod:`mfp_neurons.functional` ask for, and what its state holds.

    Where all but input and state are numbers and words, it is worked out once for all inputs of a shape: in a
    small layer that takes longer than the neurons do. The arguments are those of :func:`_prepare`.
    """
    is_known = (
        type(kernel) is Exponential
        and type(kernel.decay) is type(kernel.gain) is type(v_threshold) is float
        and (feedback is None or feedback.taps is None)
        and own_spikes is None
        and isinstance(options["surrogate"], Surrogate)
        and isinstance(x_seq, Tensor)
        and x_seq.is_floating_point()
        and not is_traced((x_seq, state))
        and not (x_seq.is_cuda and torch.cuda.is_current_stream_capturing())
    )
    if not is_known:
        return _prepare(x_seq, kernel, v_threshold, state, feedback, own_spikes, **options)
    of_input = x_seq.shape, x_seq.dtype, x_seq.device, x_seq.layout, state is None
    key = (of_input, kernel, v_threshold, feedback, *options.values())
    known = _prepared.get(key)
    if known is None:
        known = _prepare(x_seq, kernel, v_threshold, state, feedback, **options)
        if len(_prepared) >= _MOST_PREPARED:
            _prepared.clear()
        _prepared[key] = known[0]._replace(x=None, state=None), known[1]  # type: ignore[arg-type]
        return known
    call, carry = known
    if state is not None:
        _check_state(call.kind, call.kernel, state, x_seq)
    return Call(x_seq, call.kernel, call.threshold, state, *call[4:]), carry


def _prepare(
    x_seq: Tensor,
    kernel: Kernel,
    v_threshold: Tensor | float,
    state: Tensor | None,
    feedback: ResetOptions | None = None,
    own_spikes: Tensor | None = None,
    *,
    fires: bool,
    surrogate: Any,
    strict: bool,
    record: bool,
    potential: bool,
    carry: bool,
    backend: str,
) -> tuple[Call, Carry]:
    """:func:`prepare`, with every check.

    Args:
        feedback: what the own spikes change; None for nothing.
        own_spikes: those before the first step, as the last chunk gave them.
        fires: False where the potential alone is wanted; threshold and surrogate have no part in that.
        strict, record, potential: as in :class:`~mfp_neurons.backends.Call`.
        carry: whether this is a stretch of a longer sequence.

    Returns:
        The call, and what the state after it holds.
    """
    check_name(backend)
    x_seq = as_real("x_seq", x_seq)
    _check_shape(x_seq)
    if state is not None and not isinstance(state, Tensor):
        raise TypeError(f"state must be a real floating-point tensor, or None, got {describe(state)}")
    wide = accumulate_dtype(x_seq.dtype)
    feedback = None if feedback is None or feedback.reset is None else feedback
    if feedback is not None:
        _check_feedback(feedback, kernel)
    spikes_held = _own_spikes_held(feedback, kernel)
    starts = state is None and own_spikes is None and _reaches_all(feedback, spikes_held, x_seq)
    kind, tensor, inputs_held = _kernel_tensor(kernel, x_seq, starts, state, carry)
    threshold = None
    if fires:
        threshold = as_dtype(_parameter("v_threshold", v_threshold, x_seq, check_threshold), wide)
    _check_channels("kernel", tensor.shape[1] if kind != "matrix" else 1, x_seq)
    if threshold is not None:
        _check_channels("v_threshold", threshold.numel(), x_seq)
    _check_device(f"kernel ({type(kernel).__name__})", tensor, x_seq)
    if state is not None:
        _check_state(kind, tensor, state, x_seq)
    if fires:
        check_surrogate(surrogate)
    tensor = as_dtype(tensor, wide)
    taps, reset = None, ""
    if feedback is not None:
        thresholds = v_threshold, threshold
        taps, reset = _fed_back(feedback, kernel, kind, tensor, thresholds, spikes_held, x_seq, carry)
    if own_spikes is not None:
        if feedback is None:
            raise ValueError("last_spikes are for a neuron with a reset; give reset, or last_spikes=None")
        _check_own_spikes(own_spikes, spikes_held, x_seq)
        own_spikes = as_dtype(own_spikes, x_seq.dtype) if reset else None
    call = Call(
        x_seq, tensor, threshold, state, None, None, taps, own_spikes, kind, surrogate, strict, record,
        potential, reset, bool(reset) and feedback is not None and feedback.detach, backend,
    )  # fmt: skip
    return call, Carry(inputs_held, None if feedback is None else spikes_held)


def _check_feedback(feedback: ResetOptions, kernel: Kernel) -> None:
    reset, taps = feedback.reset, feedback.taps
    check_choice("reset", reset, RESETS)
    if isinstance(kernel, Matrix):
        raise ValueError(
            f"reset={reset!r} takes an exponential or FIR kernel, got a Matrix, whose weights differ from "
            "step to step"
        )
    if (reset == "feedback") != (taps is not None):
        wants = "needs" if reset == "feedback" else "takes no"
        raise ValueError(f"reset={reset!r} {wants} reset_taps, got {describe(taps)}")
    if taps is not None:
        if not isinstance(taps, Tensor) or not taps.is_floating_point() or taps.dim() not in (1, 2):
            raise TypeError(
                f"reset_taps must be a real floating-point tensor [R] or [R, C], got {describe(taps)}"
            )
        check_finite("reset_taps", taps)
    if feedback.order is not None:
        check_int("reset_order", feedback.order, 1)
    is_infinite = isinstance(kernel, Exponential) and kernel.order is None
    if reset == "feedback":
        assert taps is not None
        if is_infinite:
            raise ValueError(
                "reset='feedback' needs a kernel of finite order, got Exponential(order=None). Give it an "
                "order, or take reset='subtract' or 'zero', which make it a leaky integrate-and-fire neuron"
            )
        if feedback.order not in (None, len(taps)):
            raise ValueError(
                f"reset_order must be the number of reset_taps, {len(taps)}, got {feedback.order}"
            )
    elif reset == "zero" and feedback.order is not None:
        raise ValueError(
            f"reset='zero' takes no reset_order, got {feedback.order}: the sum stops at the last own spike, "
            "however old that is"
        )
    elif reset == "subtract":
        if not isinstance(kernel, Exponential):
            raise ValueError(
                "reset='subtract' needs an Exponential, whose decay says how a reset fades, got "
                f"{type(kernel).__name__}; for other kernels give reset='feedback' and the taps"
            )
        if is_infinite and feedback.order is not None:
            raise ValueError(
                "reset='subtract' takes a reset_order where the kernel has an order, got reset_order="
                f"{feedback.order} and Exponential(order=None), whose potential keeps every reset"
            )
    if feedback.delay and reset != "subtract":
        raise ValueError(f"reset_delay is for reset='subtract', got reset={reset!r}")


def _own_spikes_held(feedback: ResetOptions | None, kernel: Kernel) -> int:
    """R, how many of its own last spikes the neuron's next step depends on."""
    if feedback is None:
        return 0
    if feedback.taps is not None:
        return len(feedback.taps)
    order = kernel.order if isinstance(kernel, Exponential) else len(kernel.taps)  # type: ignore[union-attr]
    if order is None:
        return 1
    return order - 1 if feedback.order is None else feedback.order


def _reaches_all(feedback: ResetOptions | None, spikes_held: int, x_seq: Tensor) -> bool:
    """Whether a recursion, which forgets no own spike, feeds back what the feedback asks for."""
    if feedback is None or feedback.reset == "zero":
        return True
    return feedback.reset == "subtract" and covers(spikes_held + 1, x_seq)


def _fed_back(
    feedback: ResetOptions,
    kernel: Kernel,
    kind: str,
    tensor: Tensor,
    thresholds: tuple[Tensor | float, Tensor | None],
    spikes_held: int,
    x_seq: Tensor,
    carry: bool,
) -> tuple[Tensor | None, str]:
    """The taps of the own spikes, if they have any, and what a :class:`Call` calls the reset; "" for none.

    ``thresholds``: as it was given, and as a call takes it.
    """
    v_threshold, threshold = thresholds
    taps, reset = feedback.taps, "zero" if feedback.reset == "zero" else "taps"
    wide = accumulate_dtype(x_seq.dtype)
    if taps is not None:
        _check_device("reset_taps", taps, x_seq)
        taps = as_dtype(taps if taps.dim() == 2 else taps.unsqueeze(1), wide)
        _check_channels("reset_taps", taps.shape[1], x_seq)
    elif feedback.reset == "subtract":
        assert isinstance(kernel, Exponential)
        decay = kernel.decay
        if kind == "exp":  # one tap, which the recursion makes decay
            reset = "decaying"

        def subtracting(_: Any) -> Tensor:
            amount, rate = subtracted(threshold), as_dtype(_parameter("decay", decay, x_seq), wide)
            if kind == "exp":
                return -(amount if feedback.delay else amount * rate).unsqueeze(0)
            lags = torch.arange(spikes_held, device=rate.device, dtype=wide).unsqueeze(1)
            return -amount * rate ** (lags if feedback.delay else lags + 1)

        if isinstance(v_threshold, Tensor) or isinstance(decay, Tensor):
            taps = subtracting(None)
        else:
            numbers = ("subtract", v_threshold, decay, kind, spikes_held, feedback.delay)
            taps = constant(numbers, x_seq, wide, subtracting)
    if kind == "fir":
        if taps is not None and not carry and covers(len(taps) + 1, x_seq):
            taps = taps[: x_seq.shape[0] - 1]  # as the kernel's own taps that reach back too far
        if (len(tensor) == 1) if taps is None else (len(taps) == 0):
            return None, ""  # nothing is fed back
    return taps, reset


def subtracted(threshold: Any) -> Any:
    """What a soft reset subtracts of a number or a tensor: nothing where inf keeps the neuron from firing."""
    if isinstance(threshold, Tensor):
        if threshold.numel() == 1 and is_readable(threshold) and threshold.item() < math.inf:
            return threshold
        return threshold.masked_fill(threshold.isinf(), 0)
    return 0.0 if math.isinf(threshold) else threshold


def _check_own_spikes(own_spikes: Tensor, held: int, x_seq: Tensor) -> None:
    if not isinstance(own_spikes, Tensor) or not own_spikes.is_floating_point():
        raise TypeError(
            f"last_spikes must be a real floating-point tensor, or None, got {describe(own_spikes)}"
        )
    expected = [held, *x_seq.shape[1:]]
    if list(own_spikes.shape) != expected:
        raise ValueError(
            f"last_spikes must have shape {expected} for x_seq of shape {list(x_seq.shape)} and this reset, "
            f"got {list(own_spikes.shape)}"
        )
    _check_device("last_spikes", own_spikes, x_seq)


def _kernel_tensor(
    kernel: Kernel, x_seq: Tensor, starts: bool, state: Tensor | None, carry: bool
) -> tuple[str, Tensor, int | None]:
    """A kernel as the operators take it, and how many inputs the state after the call holds.

    "exp" [2, G] (decay and gain), "fir" [K, G] or "matrix" [T, S]. ``starts``: the call starts from rest, and
    a recursion may stand for a truncated sum.
    """
    if isinstance(kernel, Exponential):
        inputs_held = None if kernel.order is None else kernel.order - 1
        if kernel.order is None or (starts and covers(kernel.order, x_seq)):
            # from rest, a truncation that no step of this sequence reaches is the recursion, which is cheaper
            return "exp", _recursion(kernel, x_seq), inputs_held
        # From here on an exponential of finite order is a row of taps like any other.
        kernel = kernel.truncated()
    if isinstance(kernel, FIR):
        taps = kernel.taps_for(x_seq, accumulate_dtype(x_seq.dtype))
        inputs_held = len(taps) - 1
        if not carry and covers(len(taps), x_seq):
            taps = taps[: x_seq.shape[0]]  # taps that lie further back than a whole sequence weigh nothing
        return "fir", taps, inputs_held
    if isinstance(kernel, Matrix):
        # The state of a matrix holds every input so far, so their number is the position in time.
        position = 0 if state is None or state.dim() == 0 else len(state)
        rows_of_steps = _matrix_rows(kernel.matrix, x_seq.shape[0], position, carry)
        return "matrix", rows_of_steps, rows_of_steps.shape[1]
    raise TypeError(
        f"kernel must be an Exponential, FIR or Matrix of mfp_neurons.history, got {describe(kernel)}"
    )


def _recursion(kernel: Exponential, x_seq: Tensor) -> Tensor:
    """Decay and gain, [2, 1] or [2, C]."""

    def rows(_: Any) -> Tensor:
        pair = (_parameter(name, getattr(kernel, name), x_seq) for name in ("decay", "gain"))
        return torch.stack(torch.broadcast_tensors(*pair))

    if isinstance(kernel.decay, Tensor) or isinstance(kernel.gain, Tensor):
        return rows(None)
    return constant(("exp", kernel.decay, kernel.gain), x_seq, accumulate_dtype(x_seq.dtype), rows)


def covers(order: int, x_seq: Tensor) -> bool:
    """Whether so many taps reach back over all of a sequence; False where torch.export leaves T open."""
    return not is_exporting() and order >= x_seq.shape[0]


def _matrix_rows(matrix: Tensor, steps: int, position: int, carry: bool) -> Tensor:
    total = len(matrix)
    if position + steps > total or (not carry and steps != total):
        actual = f"T = {steps}" if position == 0 else f"{steps} steps after {position}"
        raise ValueError(f"a matrix kernel of {total} steps takes x_seq of T = {total}, got {actual}")
    # from this position on; columns of later steps are above the diagonal, and no step sees the future
    return matrix.tril()[position : position + steps, : position + steps]


def _parameter(
    name: str,
    value: Tensor | float,
    x_seq: Tensor,
    check: Callable[[str, Tensor | float], None] = check_finite,
) -> Tensor:
    """A per-layer or per-channel argument as a tensor [1] or [C] on x_seq's device."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be a number or a real tensor [1] or [C], got {describe(value)}")
        if value.dim() > 1:
            raise ValueError(f"{name} must be a number or a tensor [1] or [C], got shape {list(value.shape)}")
        check(name, value)
        _check_device(name, value, x_seq)
        return as_row(value)
    # In Python a bool is an int, but as a threshold or a decay it is a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor [1] or [C], got {describe(value)}")
    check(name, value)
    # The number is rounded to the dtype of the sums, not to the 16 bits that the input may have.
    number, wide = float(value), accumulate_dtype(x_seq.dtype)
    return constant(
        ("number", number), x_seq, wide, lambda device: torch.full((1,), number, dtype=wide, device=device)
    )


def as_real(name: str, x: Any) -> Tensor:
    """An input; integers and booleans (counts of events, spikes) in torch's default dtype, as LIFNode's."""
    if not isinstance(x, Tensor) or (x.dtype not in _REAL and x.dtype not in _WHOLE):
        raise TypeError(
            f"{name} must be a float16, bfloat16, float32 or float64 tensor, or one of integers or booleans, "
            f"got {describe(x)}"
        )
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {x.layout}")
    return as_dtype(x, real_dtype(x))


def real_dtype(x: Tensor) -> torch.dtype:
    """The dtype that an input is taken in: its own, or of integers and booleans torch's default one."""
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


def _check_shape(x_seq: Tensor) -> None:
    if not 2 <= x_seq.dim() <= 6:
        raise ValueError(f"x_seq must be [T, N, *] with 2 to 6 dimensions, got shape {list(x_seq.shape)}")
    if x_seq.shape[0] == 0:  # not len(), which would fix T in torch.export
        raise ValueError(f"x_seq must hold at least one time step (dim 0), got shape {list(x_seq.shape)}")


def _check_channels(name: str, groups: int, x_seq: Tensor) -> None:
    if groups == 1:
        return
    channels = x_seq.shape[2] if x_seq.dim() > 2 else None
    if channels != groups:
        actual = "no channel dimension" if channels is None else f"{channels} channels"
        raise ValueError(
            f"{name} has {groups} channels, but x_seq of shape {list(x_seq.shape)} has {actual} "
            "(dim 2 of [T, N, C, *]); give one value a channel, or one for all"
        )


def _check_device(name: str, value: Tensor, x_seq: Tensor) -> None:
    if value.device != x_seq.device:
        raise ValueError(
            f"{name} is on {value.device}, but x_seq is on {x_seq.device}; move one to the other"
        )


def _check_state(kind: str, kernel: Tensor, state: Tensor, x_seq: Tensor) -> None:
    step = list(x_seq.shape[1:])
    expected = {
        "exp": step,
        "fir": [len(kernel) - 1, *step],
        "matrix": [kernel.shape[1] - x_seq.shape[0], *step],
    }[kind]
    if list(state.shape) != expected:
        raise ValueError(
            f"state must have shape {expected} for x_seq of shape {list(x_seq.shape)} and this kernel, "
            f"got {list(state.shape)}"
        )
    if not state.is_floating_point():
        raise TypeError(f"state must be a real floating-point tensor, got {describe(state)}")
    _check_device("state", state, x_seq)


def check_surrogate(surrogate: Any) -> None:
    if not callable(surrogate):
        raise TypeError(
            f"surrogate must be a Surrogate or a callable tensor -> spikes, got {describe(surrogate)}"
        )


def as_norm(norm: Any) -> Norm:
    """Raises TypeError unless ``norm`` is one."""
    if not isinstance(norm, Norm):
        raise TypeError(f"norm must be a mfp_neurons.norm.Norm, got {describe(norm)}")
    return norm


def check_norm(norm: Norm, x_seq: Tensor) -> None:
    """Raises ValueError unless ``norm`` fits [T, N, C, *]."""
    if x_seq.dim() < 3:
        raise ValueError(f"x_seq must be [T, N, C, *] to be normalized, got shape {list(x_seq.shape)}")
    for name, tensor in norm.tensors.items():
        if len(tensor) != x_seq.shape[2]:
            raise ValueError(
                f"{name} has {len(tensor)} values, but x_seq of shape {list(x_seq.shape)} has "
                f"{x_seq.shape[2]} channels (dim 2 of [T, N, C, *])"
            )
        _check_device(name, tensor, x_seq)
    # The unbiased variance divides by the number of values less one.
    if norm.training and x_seq.numel() == x_seq.shape[2]:
        raise ValueError(
            f"norm with training=True needs more than one value a channel, got x_seq of shape "
            f"{list(x_seq.shape)}"
        )
