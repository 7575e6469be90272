"""The CUDA kernels of neurons with a reset: outputs and every gradient against a loop over time in float64.

They run on a GPU if there is one, else on the host.
"""

from dataclasses import dataclass, replace
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons import functional
from mfp_neurons.backends import cupy_launch
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.norm import Norm
from mfp_neurons.surrogate import ATan, Surrogate
from tests.backend_runs import CUDA_DEVICE as DEVICE
from tests.backend_runs import assert_close, moved, on_cuda_kernels
from tests.strategies import LAYOUTS, SURROGATES, _layout

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1,), (3,), (8,), (2, 1), (2, 3), (3, 8), (2, 4, 2), (1, 8, 3), (2, 3, 2, 4)]
STEPS = [1, 2, 4, 5, 15, 16, 17, 32, 33, 70]


@pytest.fixture(autouse=True, scope="module")
def _on_cuda_kernels():
    with on_cuda_kernels():
        yield


@dataclass
class Fed:
    """One call of a neuron with a reset, in float64; ``tensors`` by name are its leaves."""

    kind: str
    reset: str
    tensors: dict[str, Tensor]
    surrogate: Surrogate
    strict: bool = False
    detach: bool = False
    delay: bool = False

    def to(self, dtype: torch.dtype) -> "Fed":
        """What is of the input's dtype in ``dtype``, parameters in the dtype of sums, on the tested device."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        narrow = {"x", "own", *(["state"] if self.kind == "fir" else [])}
        leaves = {
            name: moved(v, DEVICE, dtype if name in narrow else wide) for name, v in self.tensors.items()
        }
        return replace(self, tensors={name: v.requires_grad_() for name, v in leaves.items()})

    def exact(self) -> "Fed":
        """The same numbers in float64."""
        doubles = {name: v.detach().double().requires_grad_() for name, v in self.tensors.items()}
        return replace(self, tensors=doubles)

    def run(self) -> functional.Chunk:
        tensors = dict(self.tensors)
        kernel = (
            Exponential(tensors["decay"], tensors["gain"]) if self.kind == "exp" else FIR(tensors["taps"])
        )
        options = dict(
            surrogate=self.surrogate, strict=self.strict, reset=self.reset, detach_reset=self.detach,
            reset_delay=self.delay, reset_taps=tensors.get("feedback"), last_spikes=tensors.get("own"),
            record=True,
        )  # fmt: skip
        x, threshold, state = tensors["x"], tensors["threshold"], tensors.get("state")
        if "scale" not in tensors:
            return functional.fire_chunk(x, kernel, threshold, state, **options)
        zeros = torch.zeros_like(tensors["scale"])
        norm = Norm(zeros, torch.ones_like(zeros), tensors["scale"], tensors["shift"], eps=0.0)
        return functional.norm_fire_chunk(x, norm, kernel, threshold, state, **options)


def loop(call: Fed) -> tuple[Tensor, Tensor]:
    """Spikes and potential [T, N, *], a step at a time, as the equations have it."""
    tensors = call.tensors
    dims = tensors["x"].dim()

    def rows(value: Tensor) -> Tensor:
        return value.reshape(-1, *[1] * (dims - 3)) if value.numel() > 1 else value

    x = tensors["x"]
    y = rows(tensors["scale"]) * x + rows(tensors["shift"]) if "scale" in tensors else x
    none = torch.zeros_like(x[0])
    own = [] if "own" not in tensors else list(tensors["own"])
    earlier = [] if "state" not in tensors or call.kind == "exp" else list(tensors["state"])
    inputs, spikes, potential = [*earlier, *y], own, []
    u = tensors["state"] if "state" in tensors and call.kind == "exp" else none
    threshold = rows(tensors["threshold"])
    for t in range(len(x)):
        before = [s.detach() if call.detach else s for s in spikes]  # the latest is the last
        if call.kind == "exp":
            decay, gain = rows(tensors["decay"]), rows(tensors["gain"])
            last = before[-1] if before else none
            if call.reset == "zero":
                u = decay * (1 - last) * u + gain * y[t]
            else:
                u = decay * u - threshold * (1 if call.delay else decay) * last + gain * y[t]
        else:
            u, silent = none, torch.ones_like(none)
            for j, tap in enumerate(tensors["taps"]):
                if j > 0 and call.reset == "zero" and len(before) >= j:
                    silent = silent * (1 - before[-j])
                if len(earlier) + t - j >= 0:
                    u = u + silent * rows(tap) * inputs[len(earlier) + t - j]
            for j, tap in enumerate(tensors.get("feedback", []), 1):
                if len(before) >= j:
                    u = u + rows(tap) * before[-j]
        spikes = [*spikes, call.surrogate.spike(u - threshold, call.strict)]
        potential.append(u)
    return torch.stack(spikes[len(own) :]), torch.stack(potential)


@st.composite
def calls(draw: st.DrawFn, steps: list[int] = STEPS) -> Fed:
    shape, count = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(steps))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    def channels() -> int:
        return shape[1] if len(shape) > 1 and draw(st.booleans()) else 1

    kind = draw(st.sampled_from(["exp", "fir"]))
    reset = draw(st.sampled_from(["subtract", "zero"] if kind == "exp" else ["feedback", "zero"]))
    tensors = {
        "x": _layout(randn(count, *shape), draw(st.sampled_from(LAYOUTS))),
        "threshold": randn(channels()) * 0.3 + 0.5,
    }
    held, continues = 1, draw(st.booleans())
    if kind == "exp":
        group = channels()
        tensors |= {"decay": randn(group).sigmoid(), "gain": randn(group).sigmoid() + 0.3}
        if continues:
            tensors["state"] = randn(*shape)
    else:
        order = draw(st.sampled_from([1, 2, 3, 7, 16, 17, 20, 40]))
        tensors["taps"] = randn(order, channels()) / order**0.5
        held = order - 1
        if reset == "feedback":
            held = draw(st.sampled_from([1, 2, 3, 9, 15, 16, 17, 40]))
            tensors["feedback"] = randn(held, channels()) / held**0.5
        if continues:
            tensors["state"] = randn(order - 1, *shape)
    if held > 0 and (continues if draw(st.booleans()) else draw(st.booleans())):
        tensors["own"] = (randn(held, *shape) > 0.5).double()
    if len(shape) > 1 and draw(st.booleans()):
        tensors |= {"scale": randn(shape[1]) * 0.3 + 1, "shift": randn(shape[1]) * 0.3}
    delay = reset == "subtract" and draw(st.booleans())
    surrogate = draw(st.sampled_from(SURROGATES))
    return Fed(kind, reset, tensors, surrogate, draw(st.booleans()), draw(st.booleans()), delay)


def assert_equals_the_loop(call: Fed, dtype: torch.dtype, wanted: str = "both") -> None:
    mine = call.to(dtype)
    exact = mine.exact()
    spikes, potential = loop(exact)
    dims, threshold = potential.dim(), exact.tensors["threshold"]
    above = potential - (threshold.reshape(-1, *[1] * (dims - 3)) if threshold.numel() > 1 else threshold)
    assume(bool((above.abs() > 1e-4).all()))  # what rounding decides is not compared
    chunk = mine.run()
    assert torch.equal(chunk.spikes.double(), spikes)
    assert_close(chunk.potential, potential, dtype, 10)
    ds, du = torch.randn_like(chunk.spikes), torch.randn_like(chunk.potential)
    outputs = {"spikes": (0,), "potential": (1,), "both": (0, 1)}[wanted]
    grads = tuple((ds, du)[i] for i in outputs)
    options = dict(allow_unused=True, materialize_grads=True)
    leaves = list(mine.tensors.values())
    got = torch.autograd.grad([chunk[i] for i in outputs], leaves, grads, **options)
    of_loop = [(spikes, potential)[i] for i in outputs]
    expected = torch.autograd.grad(
        of_loop, list(exact.tensors.values()), [grad.double() for grad in grads], **options
    )
    for name, a, b in zip(mine.tensors, got, expected, strict=True):
        try:
            assert_close(a, b, a.dtype, 10 * (1 + b.abs().max().item() if b.numel() else 1))
        except AssertionError as error:
            raise AssertionError(f"gradient of {name}: {error}") from None


@given(call=calls(), dtype=st.sampled_from(DTYPES), wanted=st.sampled_from(["both", "spikes", "potential"]))
@settings(max_examples=60, deadline=None)
def test_outputs_and_every_gradient_are_those_of_a_loop_over_time(call, dtype, wanted):
    assert_equals_the_loop(call, dtype, wanted)
