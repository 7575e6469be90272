"""Batch norm and neuron as one: against torch's batch norm in front of the definition, in float64."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import batch_norm

from mfp_neurons import functional, reference
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.norm import Norm
from mfp_neurons.surrogate import ATan, Rect, Sigmoid
from tests.backend_runs import HOW, OF_BACKEND, case_for, device_of, moved, on_every_backend, run_as
from tests.strategies import BACKENDS, LAYOUTS, SURROGATES, Case, _layout, cases, normalized


class Normed:
    """A case with a batch norm in front: its parameters (leaves) and running averages."""

    def __init__(self, case: Case, data: st.DataObject) -> None:
        device = case.x.device
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
        channels = case.x.shape[2]

        def rows(low: float) -> Tensor:
            return (torch.rand(channels, generator=generator, dtype=torch.float64) + low).to(device)

        affine, tracked = data.draw(st.booleans()), data.draw(st.booleans())
        self.training = data.draw(st.booleans())
        self.weight = rows(-0.5).requires_grad_() if affine else None
        self.bias = rows(-0.5).requires_grad_() if affine and data.draw(st.booleans()) else None
        tracked = tracked or not self.training
        self.mean, self.var = (rows(-0.5), rows(0.1)) if tracked else (None, None)
        self.momentum = data.draw(st.sampled_from([0.0, 0.1, 0.75, 1.0]))

    def norm(self) -> Norm:
        averages = [None if v is None else v.clone() for v in (self.mean, self.var)]
        return Norm(*averages, self.weight, self.bias, self.training, self.momentum, 1e-5)

    def torchs(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The normalized input by the formula, and the running averages of torch's batch norm."""
        norm = self.norm()
        batch_norm(
            x.detach().flatten(0, 1), norm.running_mean, norm.running_var, training=self.training,
            momentum=self.momentum,
        )  # fmt: skip
        return normalized(x, self.norm()), norm.running_mean, norm.running_var

    def leaves(self) -> list[Tensor]:
        return [v for v in (self.weight, self.bias) if v is not None]


@on_every_backend
@given(case=cases(), surrogate=st.sampled_from(SURROGATES), record=st.booleans(), data=st.data())
def test_one_operator_gives_the_spikes_gradients_and_running_averages_of_the_two(
    family, case, surrogate, record, data
):
    how = data.draw(st.sampled_from(OF_BACKEND[family]))
    case = case_for(how, case, torch.float64)
    x = case.x
    assume(x.dim() > 2 and x.numel() > x.shape[2])
    normed = Normed(case, data)
    leaves = [*case.leaves(), *normed.leaves()]

    y, mean, var = normed.torchs(x)
    assume(not normed.training or y.detach().square().mean((0, 1)).min() > 1e-3)  # no constant channel
    above = reference.membrane_potential(y, case.kernel())
    above = above - reference.per_channel(case.threshold, y.dim() - 1)
    assume(above.abs().min() > 1e-7)
    if isinstance(surrogate, Rect):
        assume((above.abs() - 0.5 / surrogate.alpha).abs().min() > 1e-7)
    expected = surrogate(above)
    expected_u = above + reference.per_channel(case.threshold, y.dim() - 1)

    norm = normed.norm()
    weights = torch.randn(y.shape, dtype=torch.float64).to(x.device)
    with run_as(how) as backend:
        chunk = functional.norm_fire_chunk(
            x, norm, case.kernel(), case.threshold, surrogate=surrogate, record=record, backend=backend
        )
        others = torch.randn(chunk.state.shape).to(x.device)
        loss = (chunk.spikes * weights).sum() + chunk.potential.sin().sum() + (chunk.state * others).sum()
        mine = torch.autograd.grad(loss, leaves, allow_unused=True)
    state = _state_after(y, expected_u, case)
    loss = (expected * weights).sum() + (state * others).sum()
    loss = loss + (expected_u if record else expected_u[-1]).sin().sum()
    theirs = torch.autograd.grad(loss, leaves, allow_unused=True)

    assert torch.equal(chunk.spikes, expected)
    torch.testing.assert_close(chunk.state, state, rtol=1e-8, atol=1e-8)
    for a, b in zip((norm.running_mean, norm.running_var), (mean, var), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def _state_after(y: Tensor, u: Tensor, case: Case) -> Tensor:
    """What continues a sequence: the last potential, the last K - 1 inputs, or all of them."""
    if case.kind == "matrix":
        return y
    order = case.order if case.kind == "exp" else len(case.parameters[0])
    if order is None:
        return u[-1]
    padded = torch.cat([y.new_zeros(order, *y.shape[1:]), y])
    return padded[len(padded) - (order - 1) :]


@given(case=cases(kinds=("exp", "fir")), share=st.floats(0, 1))
@settings(max_examples=25)
def test_an_evaluated_sequence_may_be_cut_anywhere(case, share):
    x = case.x
    assume(x.dim() > 2 and len(x) > 1)
    cut = 1 + round(share * (len(x) - 2))
    norm = Norm(*torch.rand(2, x.shape[2], dtype=torch.float64))
    whole = functional.norm_fire_chunk(x, norm, case.kernel(), case.threshold, record=True)
    first = functional.norm_fire_chunk(x[:cut], norm, case.kernel(), case.threshold, record=True)
    second = functional.norm_fire_chunk(
        x[cut:], norm, case.kernel(), case.threshold, first.state, record=True
    )
    torch.testing.assert_close(torch.cat([first.potential, second.potential]), whole.potential)
    torch.testing.assert_close(second.state, whole.state)


@given(
    shape=st.lists(st.integers(1, 5), min_size=3, max_size=6),
    layout=st.sampled_from(LAYOUTS),
    mean=st.sampled_from([0.0, 100.0]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    how=st.sampled_from(list(HOW)),
)
def test_running_averages_become_the_moments_of_each_channel(shape, layout, mean, dtype, how):
    x = _layout((torch.randn(shape, dtype=torch.float64) + mean).to(dtype), layout)
    assume(x.numel() > x.shape[2])
    x = moved(x, device_of(how))
    averages = torch.zeros(2, shape[2], dtype=torch.float64).to(x.device)
    with run_as(how) as backend:
        norm = Norm(*averages, training=True, momentum=1.0)
        functional.norm_fire(x, norm, Exponential(0.5), backend=backend)
    variance, average = torch.var_mean(x.double(), [d for d in range(x.dim()) if d != 2])
    torch.testing.assert_close(averages[0], average, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(averages[1], variance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["cpu", "torch", "cuda"])
def test_a_large_mean_costs_the_variance_no_digits(how):
    x = torch.randn(4, 64, 3, 5) + 1e4
    with run_as(how) as backend:
        norm = Norm(torch.zeros(3), torch.zeros(3), training=True, momentum=1.0)
        functional.norm_fire(x, norm, Exponential(0.5), backend=backend)
    torch.testing.assert_close(norm.running_var.double(), x.double().var((0, 1, 3)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_of_16_bit_inputs_are_float32(dtype, backend):
    x = (torch.randn(5, 3, 4, 7) + 30).to(dtype).requires_grad_()
    norm = Norm(torch.zeros(4), torch.ones(4), torch.rand(4), torch.rand(4), training=True, momentum=1.0)
    kernel = Exponential(0.5, order=3)
    chunk = functional.norm_fire_chunk(x, norm, kernel, surrogate=Sigmoid(), backend=backend)
    assert chunk.spikes.dtype == chunk.state.dtype == dtype and chunk.potential.dtype == torch.float32
    others = (0, 1, 3)
    torch.testing.assert_close(norm.running_mean, x.detach().float().mean(others), rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var, x.detach().float().var(others), rtol=1e-5, atol=0)
    (grad,) = torch.autograd.grad(chunk.spikes.sum() + chunk.potential.sum(), x)
    wide = x.detach().double().requires_grad_()
    y = batch_norm(wide.flatten(0, 1), None, None, norm.weight.double(), norm.bias.double(), True)
    again = functional.fire_chunk(y.unflatten(0, (5, 3)), Exponential(0.5, order=3), surrogate=Sigmoid())
    (expected,) = torch.autograd.grad(again.spikes.sum() + again.potential.sum(), wide)
    assert (grad.double() - expected).abs().max() < 3e-2 * expected.abs().max()


def test_a_foreign_surrogate_gives_the_same_with_torchs_batch_norm():
    def triangle(above):
        return ATan()(above)

    x = torch.randn(5, 3, 4, 7, dtype=torch.float64, requires_grad=True)

    def run(surrogate):
        norm = Norm(torch.zeros(4).double(), torch.ones(4).double(), training=True)
        chunk = functional.norm_fire_chunk(x, norm, FIR(torch.rand(3).double()), surrogate=surrogate)
        torch.manual_seed(0)
        return [*chunk, torch.autograd.grad(chunk.spikes.square().sum(), x)[0], norm.running_var]

    torch.manual_seed(0)
    for a, b in zip(run(triangle), run(ATan()), strict=True):
        torch.testing.assert_close(a, b)


@given(
    shape=st.lists(st.integers(1, 3), min_size=3, max_size=6),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    training=st.booleans(),
)
def test_by_torchs_batch_norm_gradients_are_those_of_the_formula_in_any_memory_format(
    shape, layouts, training
):
    x = _layout(torch.randn(shape, dtype=torch.float64), layouts[0]).requires_grad_()
    assume(x.numel() > x.shape[2])
    weight, bias = (torch.randn(shape[2], dtype=torch.float64, requires_grad=True) for _ in range(2))
    grad = _layout(torch.randn(shape, dtype=torch.float64), layouts[1])
    averages = torch.zeros(shape[2]).double(), torch.ones(shape[2]).double()
    norm, leaves = Norm(*averages, weight, bias, training), (x, weight, bias)
    y = norm.of(x)
    expected = normalized(x, Norm(*(v.clone() for v in averages), weight, bias, training))
    for a, b in zip(
        (y, *torch.autograd.grad(y, leaves, grad)),
        (expected, *torch.autograd.grad(expected, leaves, grad)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-5, check_stride=False)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [True, False])
def test_compiled_it_is_one_graph_with_the_same_averages(backend, training):
    torch._dynamo.reset()
    weight = torch.rand(5, requires_grad=True)

    def run(x, mean, var, momentum):
        norm = Norm(mean, var, weight, None, training, momentum)
        return functional.norm_fire(x, norm, Exponential(0.5))

    compiled = torch.compile(run, fullgraph=True, backend=backend)
    for batch, momentum in ((2, 0.1), (3, 0.1), (5, 0.1), (5, torch.tensor(0.3))):
        x = torch.randn(4, batch, 5, 6, requires_grad=True)
        results = []
        for function in (run, compiled):
            averages = [torch.zeros(5), torch.ones(5)]
            spikes = function(x, *averages, momentum)
            results.append([spikes, *torch.autograd.grad(spikes.square().sum(), (x, weight)), *averages])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)


def test_an_empty_batch_leaves_the_averages_as_they_are():
    norm = Norm(torch.zeros(3), torch.ones(3), training=True)
    assert functional.norm_fire(torch.zeros(4, 0, 3), norm, Exponential(0.5)).shape == (4, 0, 3)
    assert torch.equal(norm.running_mean, torch.zeros(3)) and torch.equal(norm.running_var, torch.ones(3))


def wrong(x=(4, 2, 3), **changed):
    norm = dict(running_mean=torch.zeros(3), running_var=torch.ones(3), training=True) | changed
    return functional.norm_fire(torch.randn(*x), Norm(**norm), Exponential(0.5))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(x=(1, 1, 3)), ValueError, "more than one value a channel"),
        (dict(x=(4, 2)), ValueError, r"\[T, N, C, \*\]"),
        (dict(x=(4, 2, 5)), ValueError, "running_mean has 3 values.*5 channels"),
        (dict(weight=torch.ones(2)), ValueError, "one value a channel, got"),
        (dict(weight=torch.ones(3, 1)), ValueError, "weight must have one value a channel"),
        (dict(weight=torch.ones(3, dtype=torch.int64)), TypeError, "weight must be a real floating"),
        (dict(bias=torch.ones(3, device="meta")), ValueError, "bias is on meta"),
        (dict(running_var=None), ValueError, "given both"),
        (dict(running_mean=None, running_var=None, training=False), ValueError, "training=False"),
        (dict(eps=0.0), ValueError, "eps must be finite and positive"),
        (dict(eps="small"), TypeError, "eps must be a number"),
        (dict(momentum=None), TypeError, "momentum must be a number"),
    ],
)
def test_a_norm_that_does_not_fit_is_refused_with_the_words_that_help(arguments, error, words):
    with pytest.raises(error, match=words):
        wrong(**arguments)


def test_a_refused_call_leaves_the_averages_as_they_are():
    norm = Norm(torch.zeros(3), torch.ones(3), training=True)
    with pytest.raises(TypeError, match="surrogate"):
        functional.norm_fire(torch.randn(4, 2, 3), norm, Exponential(0.5), surrogate="atan")
    with pytest.raises(TypeError, match="norm must be"):
        functional.norm_fire(torch.randn(4, 2, 3), torch.nn.BatchNorm1d(3), Exponential(0.5))
    assert torch.equal(norm.running_mean, torch.zeros(3))
