"""A graph as a torch module: whole sequences in, whole sequences out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from ..history import Exponential
from ..neuron import MFP, HistoryKernel


class NIRNetwork(nn.Module):
    r"""What :func:`from_nir` makes of a graph: its nodes as modules, its edges as sums.

    Args:
        parts: a module for each node; :class:`~mfp_neurons.MFP` and the other modules of this file take [T,
            N, \*], any other one step [N, \*].
        sources: the nodes that each one adds up and reads, by name, first to last; "input" is what comes in.
        output: the nodes whose sum goes out.
        input_shape: of one step of one sample, as the first nodes read it.
        repeats: T of a network that is given one input for all steps; None: it is given a sequence.
        readout, readout_steps: "mean", "sum" or "last" over all or the last steps; None: every step goes out.
        steps: T of every sequence, of a model that computes with it; None: any.

    Shape:
        x [T, N, \*] (with ``repeats`` [N, \*]) to [T, N, \*], with a ``readout`` [N, \*].

    Raises:
        ValueError: in the forward, T is another one than ``steps``, or below ``readout_steps``.

    >>> network = NIRNetwork({"gain": Scale(torch.tensor([0.5]))}, {"gain": ["input"]}, ["gain"], (1,))
    >>> network(torch.ones(2, 1, 1)).flatten()
    tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        parts: dict[str, nn.Module],
        sources: Mapping[str, Sequence[str]],
        output: Sequence[str],
        input_shape: tuple[int, ...],
        *,
        repeats: int | None = None,
        readout: str | None = None,
        readout_steps: int | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.sources = {name: list(inputs) for name, inputs in sources.items()}
        self.output, self.input_shape = list(output), tuple(input_shape)
        self.repeats, self.readout, self.readout_steps = repeats, readout, readout_steps
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        if self.repeats:
            # This is a view, so repeating the input takes no memory.
            x = x.expand(self.repeats, *x.shape)
        if self.steps not in (None, len(x)):
            raise ValueError(
                f"x must have T = {self.steps} steps, got {len(x)}. The graph was written for these alone: "
                "its model computes with the number of steps. Export it with an example of the other T"
            )
        if len(x) < (self.readout_steps or 1):
            raise ValueError(f"x must have at least {self.readout_steps} steps, which are read, got {len(x)}")
        values = {"input": x.reshape(*x.shape[:2], *self.input_shape)}
        # The parts come in an order in which all that a part reads has been computed before it.
        for name, part in self.parts.items():
            total = _sum([values[one] for one in self.sources[name]])
            values[name] = part(total) if isinstance(part, _SEQUENCE) else _each_step(part, total)
        return self._read_out(_sum([values[one] for one in self.output]))

    def _read_out(self, y: Tensor) -> Tensor:
        if self.readout is None:
            return y
        if self.readout == "last":
            return y[-1]
        steps = y if self.readout_steps is None else y[-self.readout_steps :]
        return steps.mean(0) if self.readout == "mean" else steps.sum(0)

    def extra_repr(self) -> str:
        named = {
            "input_shape": self.input_shape,
            "repeats": self.repeats,
            "readout": self.readout,
            "steps": self.steps,
        }
        return ", ".join(f"{name}={value}" for name, value in named.items() if value is not None)


class Scale(nn.Module):
    r"""A fixed factor for every place: ``factor`` [\*] times [T, N, \*]."""

    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Delay(nn.Module):
    r"""What came ``steps`` [\*] steps ago, zeros before the first: [T, N, \*] to the same."""

    steps: Tensor

    def __init__(self, steps: Tensor) -> None:
        super().__init__()
        self.register_buffer("steps", steps)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        # Few different lags occur, so one shifted sum for each of them is cheaper than an index for each
        # place.
        for lag in self.steps.unique().tolist():
            if lag < len(x):
                total[lag:] += torch.where(self.steps == lag, x[: len(x) - lag], 0)
        return total


class Integrator(nn.Module):
    r"""The potential alone, without a threshold: [T, N, \*] to the same. ``kernel`` is as an MFP's."""

    def __init__(self, kernel: HistoryKernel) -> None:
        super().__init__()
        self.kernel_of_history = kernel

    def forward(self, x: Tensor) -> Tensor:
        return functional.potential(x, self.kernel_of_history())


class Elementwise(nn.Module):
    r"""Neurons or integrators of which each has parameters of its own: a channel each to ``inner``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        # A neuron knows parameters of one value a channel, so every place becomes a channel.
        y: Tensor = self.inner(x.flatten(2))
        return y.unflatten(2, x.shape[2:])


class FixedExponential(HistoryKernel):
    """An exponential of fixed decays and gains, [1] or [C] each; buffers, so that they follow the module."""

    decays: Tensor
    gains: Tensor

    def __init__(
        self,
        decays: Tensor,
        gains: Tensor,
        *,
        order: int | None = None,
        kernel_bits: Any = None,
        stride: int = 1,
    ) -> None:
        channels = max(decays.numel(), gains.numel())
        super().__init__(
            "exp",
            # A number for the checks of the base class: `decay` and `exponential` below give the buffers.
            decay=0.5,
            order=order,
            num_channels=channels if channels > 1 else None,
            kernel_bits=kernel_bits,
            stride=stride,
        )
        self.register_buffer("decays", decays)
        self.register_buffer("gains", gains)

    @property
    def decay(self) -> Tensor | float:
        """The decays."""
        return self.decays

    def exponential(self) -> Exponential:
        return Exponential(self.decays, self.gains, self.order)


_SEQUENCE = (MFP, Scale, Delay, Integrator, Elementwise)


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for one in tensors[1:]:
        total = total + one
    return total


def _each_step(part: nn.Module, x: Tensor) -> Tensor:
    # A layer of torch has no time: to it, the steps are further samples.
    y: Tensor = part(x.flatten(0, 1))
    return y.unflatten(0, x.shape[:2])
