"""A call of a neuron with a reset: what hypothesis draws, and the loop over time in float64 that it is.

For the compiled kernels, which tests/test_kernels_cpu.py and tests/test_kernels_cuda_feedback.py run.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons import functional
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.norm import Norm
from mfp_neurons.surrogate import ATan, Surrogate
from tests.backend_runs import assert_close, moved
from tests.strategies import LAYOUTS, SURROGATES, _layout

SHAPES = [(1,), (3,), (8,), (2, 1), (2, 3), (3, 8), (2, 4, 2), (1, 8, 3), (2, 3, 2, 4)]
NEURONS = [("exp", "subtract"), ("exp", "zero"), ("fir", "feedback"), ("fir", "zero")]
STEPS = [1, 2, 4, 5, 15, 16, 17, 32, 33, 70]


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
    backend: str = "auto"

    def to(self, dtype: torch.dtype, device: torch.device) -> "Fed":
        """On a device: what is of the input's dtype in ``dtype``, all else in that of sums."""
        wide, leaves = torch.float64 if dtype == torch.float64 else torch.float32, {}
        narrow = ("x", "own", "state") if self.kind == "fir" else ("x", "own")
        for name, value in self.tensors.items():
            leaves[name] = moved(value, device, dtype if name in narrow else wide).requires_grad_()
        return replace(self, tensors=leaves)

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
            record=True, backend=self.backend,
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


def distance_from_threshold(call: Fed) -> float:
    """The smallest |u - v_threshold| of all neurons and steps: where rounding decides nothing is compared."""
    _, potential = loop(call)
    threshold = call.tensors["threshold"]
    channels = threshold.reshape(-1, *[1] * (potential.dim() - 3)) if threshold.numel() > 1 else threshold
    return (potential - channels).abs().min().item()


def assert_equals_the_loop(mine: Fed, dtype: torch.dtype, wanted: str = "both") -> None:
    exact = mine.exact()
    spikes, potential = loop(exact)
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


def many_neurons(kind: str, reset: str, steps: int, layout: str) -> Fed:
    x = torch.randn(steps, 5, 16, 12, dtype=torch.float64)
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    rand = partial(torch.rand, dtype=torch.float64)
    channels = 1 if layout == "per layer" else 16
    tensors = {"x": x, "threshold": rand(channels) + 0.2, "scale": rand(16) + 0.5, "shift": rand(16) - 0.5}
    if kind == "exp":
        tensors |= {"decay": rand(channels), "gain": rand(channels)}
    else:
        tensors |= {"taps": rand(5, channels) - 0.3}
        if reset == "feedback":
            tensors |= {"feedback": rand(3, channels) - 0.5}
    return Fed(kind, reset, tensors, ATan())
