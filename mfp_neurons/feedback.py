r"""Feedback: what a neuron's own last spikes change, as parameters of a module.

.. math::
    u[t] = \sum_{j=0}^{\min(t, K-1)} m_j \, x[t-j] + \sum_{j=1}^{\min(t, R)} r_j \, s[t-j]

It stands beside :class:`mfp_neurons.neuron.HistoryKernel`, which holds m; :mod:`mfp_neurons.functional`
computes with both.
"""

from dataclasses import replace
from typing import TypedDict

import torch
from torch import Tensor, nn

from ._arguments import RESETS, subtracted
from ._checks import check_choice, check_int
from .history import Exponential, Kernel, quantize_taps
from .spec import Carried, KernelParameters, ResetSpec


class ResetArguments(TypedDict, total=False):
    """Keyword arguments of :func:`mfp_neurons.functional.fire` and its relatives."""

    reset: str
    reset_order: int | None
    reset_taps: Tensor
    reset_delay: bool
    detach_reset: bool


class Feedback(nn.Module):
    """Parameters of a reset, or of learned feedback taps.

    Args:
        reset: None feeds nothing back. "subtract" and "zero" are the resets of a leaky integrate-and-fire
            neuron, soft and hard. "feedback": learned taps r[1] .. r[R], which start at zero.
        kernel: the neuron's history kernel.
        order: R. None is as far back as the kernel reaches, K - 1 steps; "zero" takes no other.
        delay: a subtracted threshold decays from the second step on only, as in ``snn.Leaky``.
        detach: no gradient passes through the spikes that are fed back.
        argument: what the neuron's class calls ``reset``, for the messages of errors.

    Parameters: ``taps`` [R], with the kernel's ``num_channels`` C [R, C], with its ``groups`` G [R, G]; on
    the grid of its ``kernel_bits`` when used.

    Raises:
        TypeError, ValueError: an argument is out of range, or the combination has no meaning.

    >>> from mfp_neurons.neuron import HistoryKernel
    >>> Feedback("feedback", HistoryKernel(decay=0.5, order=4)).taps
    Parameter containing:
    tensor([0., 0., 0.], requires_grad=True)
    """

    def __init__(
        self,
        reset: str | None,
        kernel: KernelParameters,
        *,
        order: int | None = None,
        delay: bool = False,
        detach: bool = False,
        argument: str = "reset",
    ) -> None:
        super().__init__()
        if reset is not None:
            check_choice(argument, reset, RESETS)
        if order is not None:
            check_int("reset_order", order, 1)
        # no attributes named reset or detach: SpikingJelly 0.0.0.0.14 would call them
        self.kind, self.delay, self.detached = reset, bool(delay), bool(detach)
        self._order = order
        self._check(kernel, order, argument)
        if reset == "feedback":
            steps = kernel.state_steps if order is None else order
            assert steps is not None
            sets = kernel.parameter_sets
            shape = (steps,) if sets is None else (steps, sets)
            self.taps = nn.Parameter(torch.zeros(shape, dtype=torch.float32))

    @property
    def follows_kernel(self) -> bool:
        """Whether R is as far back as the kernel reaches, and changes with it."""
        return self.kind in ("subtract", "zero") and self._order is None

    def order(self, kernel: KernelParameters) -> int | None:
        """R, how many own spikes count; None for all of them, in a recursion. 0 without a reset.

        It follows the kernel, which may be truncated, where no order was asked for.
        """
        if self.kind is None:
            return 0
        if self.kind == "feedback":
            return len(self.taps)
        return kernel.state_steps if self._order is None else self._order

    def _check(self, kernel: KernelParameters, order: int | None, argument: str) -> None:
        reset = self.kind
        if order is not None and reset in (None, "zero"):
            raise ValueError(f"{argument}={reset!r} takes no reset_order, got {order}")
        if reset is None:
            return
        if kernel.kind == "matrix":
            raise ValueError(
                f"{argument}={reset!r} takes kernel='exp' or 'fir': the weights of a matrix differ between "
                "steps"
            )
        if kernel.state_steps is None:  # an exponential that forgets nothing
            if reset == "feedback":
                raise ValueError(
                    f"{argument}='feedback' needs a finite order: give order=K, or take {argument}="
                    "'subtract' or 'zero'"
                )
            if order is not None:
                raise ValueError(
                    f"reset_order={order} needs a finite order: without one the potential keeps every reset"
                )
        if reset == "feedback" and order is None and kernel.state_steps == 0:
            raise ValueError(f"{argument}='feedback' with order=1 needs reset_order, the number of its taps")

    def arguments(
        self,
        kernel: KernelParameters,
        value: Kernel,
        v_threshold: Tensor | float,
        device: torch.device | str = "cpu",
    ) -> ResetArguments:
        """What the functions are told.

        Args:
            kernel: the neuron's history kernel.
            value: its value now.
            v_threshold: what "subtract" subtracts, a number or a tensor [1] or [C].
            device: that of the input.
        """
        if self.kind is None:
            return {}
        if self.kind == "zero":
            return {"reset": "zero", "detach_reset": self.detached}
        if self.kind == "subtract" and isinstance(value, Exponential):
            return {
                "reset": "subtract",
                "reset_order": None if value.order is None else self._order,
                "reset_delay": self.delay,
                "detach_reset": self.detached,
            }
        taps = self.values(kernel, v_threshold, device)
        assert taps is not None
        return {"reset": "feedback", "reset_taps": taps, "detach_reset": self.detached}

    def values(
        self,
        kernel: KernelParameters,
        v_threshold: Tensor | float | None,
        device: torch.device | str = "cpu",
    ) -> Tensor | None:
        """r[1] .. r[R] as they are now, [R] or [R, C]; None where no taps say what is fed back.

        Those that follow from numbers alone are computed on ``device``, all others where the tensors are.
        """
        if self.kind == "feedback":
            return kernel.over_channels(quantize_taps(self.taps, kernel.kernel_bits))
        order = self.order(kernel)
        if self.kind != "subtract" or order is None or v_threshold is None:
            return None
        # a subtracted threshold fades as an input of that size does, on the same grid
        fading = Exponential(kernel.exponential().decay).taps(order + 1, device)
        fading = quantize_taps(fading, kernel.kernel_bits)
        fading = fading[:-1] if self.delay else fading[1:]
        taps = -subtracted(v_threshold) * fading
        return taps.squeeze(1) if taps.shape[1] == 1 else taps

    def spec(
        self, kernel: KernelParameters, v_threshold: Tensor | float | None, rest: float = 0.0
    ) -> ResetSpec | None:
        """What is fed back, for whoever reads a model; None where nothing is."""
        if self.kind is None:
            return None
        taps, order = self.values(kernel, v_threshold), self.order(kernel)
        return ResetSpec(self.kind, order, taps, self.delay, self.detached, rest)  # type: ignore[arg-type]

    def carried(self, kernel: KernelParameters) -> Carried:
        """What a step of the neuron needs of the steps before it."""
        order = self.order(kernel)
        return replace(kernel.carried(), spikes=1 if order is None else order)

    def extra_repr(self) -> str:
        order = len(self.taps) if self.kind == "feedback" else self._order
        return f"reset={self.kind!r}" + ("" if order is None else f", order={order}")
