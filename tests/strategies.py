"""What hypothesis draws for the neuron: shapes, kernels, thresholds and memory layouts."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons.history import FIR, Exponential, Kernel, Matrix
from mfp_neurons.norm import Norm
from mfp_neurons.surrogate import ATan, Erf, PiecewiseQuadratic, Rect, Sigmoid, SuperSpike

SURROGATES = [
    ATan(),
    ATan(3.0),
    Sigmoid(),
    Rect(0.7),
    PiecewiseQuadratic(0.8),
    SuperSpike(25.0),
    SuperSpike(1.0, 2.0),
    Erf(),
]


def normalized(x: Tensor, norm: Norm) -> Tensor:
    """x [T, N, C, *] by the formula of ``norm``, whose running averages stay as they are."""
    others = [0, 1, *range(3, x.dim())]

    def row(values: Tensor | None, default: float) -> Tensor | float:
        return default if values is None else values.reshape(-1, *[1] * (x.dim() - 3))

    mean, var = row(norm.running_mean, 0.0), row(norm.running_var, 1.0)
    if norm.training:
        mean, var = x.mean(others, keepdim=True), x.var(others, correction=0, keepdim=True)
    return (x - mean) / (var + norm.eps) ** 0.5 * row(norm.weight, 1.0) + row(norm.bias, 0.0)


@dataclass
class Case:
    """One call in float64: x_seq, the kernel's parameters (leaves) and how they become a kernel."""

    x: Tensor
    kind: str
    parameters: list[Tensor]
    order: int | None
    threshold: Tensor

    def kernel(self) -> Kernel:
        if self.kind == "exp":
            return Exponential(self.parameters[0], self.parameters[1], self.order)
        return (FIR if self.kind == "fir" else Matrix)(self.parameters[0])

    def to(self, dtype: torch.dtype) -> "Case":
        return Case(
            self.x.to(dtype),
            self.kind,
            [p.to(dtype) for p in self.parameters],
            self.order,
            self.threshold.to(dtype),
        )

    def leaves(self) -> list[Tensor]:
        tensors = [self.x, self.threshold, *self.parameters]
        for tensor in tensors:
            tensor.requires_grad_()
        return tensors


def _layout(x: Tensor, how: str) -> Tensor:
    """The same numbers, in another order in memory."""
    if how == "batch first":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if how == "channels last" and x.dim() > 3:
        return x.movedim(2, -1).contiguous().movedim(-1, 2)
    if how == "sliced":
        return torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)[..., ::2]
    if how == "reversed axes":
        back = list(range(x.dim()))[::-1]
        return x.permute(back).contiguous().permute(back)
    if how == "expanded time":
        return x[:1].expand_as(x)
    return x


BACKENDS = ["cpu", "torch"]
LAYOUTS = ["contiguous", "batch first", "channels last", "sliced", "reversed axes", "expanded time"]


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[str, ...] = ("exp", "fir", "matrix")) -> Case:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    steps = draw(st.sampled_from([1, 2, 3, 5, 9, 20]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = _layout(randn(steps, *shape), draw(st.sampled_from(LAYOUTS)))
    channels = shape[1] if len(shape) > 1 and draw(st.booleans()) else 1
    kind = draw(st.sampled_from(kinds))
    order = draw(st.none() | st.integers(1, 12)) if kind == "exp" else None
    if kind == "exp":
        parameters = [randn(channels).sigmoid(), randn(draw(st.sampled_from([1, channels]))).sigmoid()]
    elif kind == "fir":
        taps = randn(draw(st.integers(1, 12)), channels)
        parameters = [taps if channels > 1 or draw(st.booleans()) else taps[:, 0]]
    else:
        parameters = [randn(steps, steps)]
    thresholds = shape[1] if len(shape) > 1 and draw(st.booleans()) else 1
    return Case(x, kind, parameters, order, randn(thresholds))


@st.composite
def resets(draw: st.DrawFn, case: Case, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Keyword arguments of functional.fire that fit the case."""
    possible = ["zero"]
    if case.kind == "exp":
        possible.append("subtract")
    if case.kind == "fir" or case.order is not None:
        possible.append("feedback")
    reset = draw(st.sampled_from(possible))
    options: dict[str, Any] = {"reset": reset, "detach_reset": draw(st.booleans())}
    if reset == "subtract":
        options["reset_delay"] = draw(st.booleans())
        if case.order is not None:
            options["reset_order"] = draw(st.none() | st.integers(1, 12))
    if reset == "feedback":
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        channels = case.x.shape[2] if case.x.dim() > 2 and draw(st.booleans()) else 1
        taps = torch.randn(draw(st.integers(1, 12)), channels, generator=generator, dtype=torch.float64)
        taps = taps if channels > 1 or draw(st.booleans()) else taps[:, 0]
        options["reset_taps"] = taps.to(case.x.device, dtype)
    return options
