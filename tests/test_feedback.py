"""Resets and feedback against their definition (reference, in float64), and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons import MFP, functional, reference
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.norm import Norm
from mfp_neurons.surrogate import ATan
from tests.backend_runs import OF_BACKEND, assert_close, case_for, on_every_backend, run_as
from tests.strategies import SURROGATES, Case, cases, normalized, resets


def is_clear(spikes: Tensor, again: Tensor) -> bool:
    """Whether rounding decided no spike, so that the two sequences took the same way."""
    return torch.equal(spikes.double(), again.double())


@on_every_backend
@given(
    case=cases(kinds=("exp", "fir")),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    surrogate=st.sampled_from(SURROGATES),
    strict=st.booleans(),
    data=st.data(),
)
def test_spikes_and_every_gradient_are_the_references(family, case: Case, dtype, surrogate, strict, data):
    how = data.draw(st.sampled_from(OF_BACKEND[family]))
    case = case_for(how, case, dtype)
    exact = case.to(torch.float64)
    options = data.draw(resets(case, dtype))
    taps = [options["reset_taps"].requires_grad_()] if "reset_taps" in options else []
    leaves, grad = [*case.leaves(), *taps], torch.randn_like(case.x)
    with run_as(how) as backend:
        mine = functional.fire(
            case.x,
            case.kernel(),
            case.threshold,
            surrogate=surrogate,
            strict=strict,
            backend=backend,
            **options,
        )
        gradients = torch.autograd.grad(mine, leaves, grad, allow_unused=True)
    exact_taps = [tap.detach().double().requires_grad_() for tap in taps]
    exact_options = {**options, **({"reset_taps": exact_taps[0]} if taps else {})}
    exact_leaves = [*exact.leaves(), *exact_taps]
    theirs = reference.fire(
        exact.x, exact.kernel(), exact.threshold, surrogate=lambda above: surrogate.spike(above, strict),
        strict=strict, **exact_options,
    )  # fmt: skip
    if dtype == torch.float64:
        assert torch.equal(mine, theirs)
    elif not is_clear(mine, theirs):
        return
    expected = torch.autograd.grad(theirs, exact_leaves, grad.double(), allow_unused=True)
    for a, b in zip(gradients, expected, strict=True):
        if a is None or b is None:  # taps that no step reaches
            assert all(one is None or not one.any() for one in (a, b))
            continue
        scale = 10 * (1 + b.abs().max().item()) * (1 if dtype == torch.float64 else 30)
        assert_close(a, b, dtype, scale)


@on_every_backend
@given(case=cases(kinds=("exp", "fir")), record=st.booleans(), data=st.data())
def test_a_sequence_cut_anywhere_is_the_reference_with_all_gradients(family, case: Case, record, data):
    how = data.draw(st.sampled_from(OF_BACKEND[family]))
    case = case_for(how, case, torch.float64)
    options, leaves, steps = data.draw(resets(case)), case.leaves(), len(case.x)
    cuts = data.draw(st.sets(st.integers(1, steps - 1))) if steps > 1 else set()
    ends, start, state, own, spikes = [*sorted(cuts), steps], 0, None, None, []
    with run_as(how) as backend:
        for end in ends:
            chunk = functional.fire_chunk(
                case.x[start:end], case.kernel(), case.threshold, state, last_spikes=own, surrogate=ATan(),
                record=record, backend=backend, **options,
            )  # fmt: skip
            start, state, own = end, chunk.state, chunk.last_spikes
            assert state._base is None and own._base is None
            spikes.append(chunk.spikes)
        mine, grad = torch.cat(spikes), torch.randn_like(case.x)
        gradients = torch.autograd.grad(mine, leaves, grad)
    theirs = reference.fire(
        case.x, case.kernel(), case.threshold, surrogate=lambda above: ATan().spike(above, False), **options
    )
    assert torch.equal(mine, theirs)
    for a, b in zip(gradients, torch.autograd.grad(theirs, leaves, grad), strict=True):
        assert_close(a, b, torch.float64, 10 * (1 + b.abs().max().item()))


@on_every_backend
@given(case=cases(kinds=("exp", "fir")), training=st.booleans(), data=st.data())
def test_a_norm_in_front_is_the_two_halves_apart(family, case: Case, training, data):
    how = data.draw(st.sampled_from(OF_BACKEND[family]))
    case = case_for(how, case, torch.float64)
    if case.x.dim() < 3 or case.x.numel() == case.x.shape[2]:
        return
    options, channels = data.draw(resets(case)), case.x.shape[2]
    norm = Norm(
        running_mean=torch.zeros(channels).to(case.x), running_var=torch.ones(channels).to(case.x),
        weight=torch.randn(channels).to(case.x).requires_grad_(),
        bias=torch.randn(channels).to(case.x).requires_grad_(), training=training,
    )  # fmt: skip
    leaves, grad = [*case.leaves(), norm.weight, norm.bias], torch.randn_like(case.x)
    with run_as(how) as backend:
        mine = functional.norm_fire(case.x, norm, case.kernel(), case.threshold, backend=backend, **options)
        gradients = torch.autograd.grad(mine, leaves, grad)
    y = normalized(case.x, norm)
    theirs = reference.fire(
        y, case.kernel(), case.threshold, surrogate=lambda above: ATan().spike(above, False), **options
    )
    if not is_clear(mine, theirs):
        return
    for a, b in zip(gradients, torch.autograd.grad(theirs, leaves, grad), strict=True):
        assert_close(a, b, torch.float64, 1e3 * (1 + b.abs().max().item()))


@given(case=cases(kinds=("exp", "fir")), strict=st.booleans(), data=st.data())
def test_a_surrogate_of_the_users_gives_the_same_more_slowly(case: Case, strict, data):
    options, leaves, grad = data.draw(resets(case)), case.leaves(), torch.randn_like(case.x)
    both = []
    for surrogate in (ATan(), lambda above: ATan().spike(above, strict)):
        spikes = functional.fire(
            case.x, case.kernel(), case.threshold, surrogate=surrogate, strict=strict, **options
        )
        both.append((spikes, *torch.autograd.grad(spikes, leaves, grad)))
    for a, b in zip(*both, strict=True):
        assert_close(a, b, torch.float64, 10 * (1 + b.abs().max().item()))


def test_that_steps_run_one_by_one_is_said_once(said):
    for _ in range(2):
        functional.fire(
            torch.ones(2, 1), Exponential(0.5), reset="zero", surrogate=lambda above: (above > 0).float()
        )
    assert [record.message for record in said.records if "one after the other" in record.message] != []
    assert len(said.records) == 1


@given(
    reset=st.sampled_from(["subtract", "zero"]),
    order=st.none() | st.integers(1, 9),
    data=st.integers(0, 2**31),
)
def test_what_a_hard_reset_or_an_infinite_input_leaves_is_no_number_times_zero(reset, order, data):
    """Nothing that is forgotten counts, be it infinite or NaN."""
    torch.manual_seed(data)
    x = torch.randn(9, 4)
    x[2, 0] = torch.inf
    spikes = functional.fire(x, Exponential(0.5, order=order), reset=reset)
    rest = functional.fire(x[:, 1:], Exponential(0.5, order=order), reset=reset)
    assert torch.equal(spikes[:, 1:], rest)
    if reset == "zero":  # what came before the spike at step 2 is gone
        assert (
            torch.equal(spikes[3:], functional.fire(x[3:], Exponential(0.5, order=order), reset=reset))
            or (spikes[2, 1:] == 0).any()
        )
        after = functional.fire(x[3:, :1], Exponential(0.5, order=order), reset=reset)
        assert torch.equal(spikes[3:, :1], after)


@given(case=cases(kinds=("exp",)), order=st.integers(20, 30))
def test_a_truncation_that_nothing_reaches_is_the_recursion(case: Case, order):
    case.order = None
    for reset in ("subtract", "zero"):
        truncated = Exponential(*case.parameters, order)
        spikes = functional.fire(case.x, case.kernel(), case.threshold, reset=reset)
        assert torch.equal(functional.fire(case.x, truncated, case.threshold, reset=reset), spikes)
        taps = FIR(truncated.taps(order))
        if reset == "zero":
            assert torch.equal(functional.fire(case.x, taps, case.threshold, reset=reset), spikes)


X = torch.ones(4, 2, 3)


@pytest.mark.parametrize(
    ("options", "kernel", "words"),
    [
        ({"reset": "soft"}, Exponential(0.5), "reset must be one of"),
        ({"reset": "subtract"}, Matrix(torch.ones(4, 4)), "Matrix"),
        ({"reset": "subtract"}, FIR(torch.ones(2)), "needs an Exponential"),
        ({"reset": "subtract", "reset_order": 3}, Exponential(0.5), "keeps every reset"),
        ({"reset": "subtract", "reset_order": 0}, Exponential(0.5, order=3), "reset_order"),
        ({"reset": "zero", "reset_order": 3}, Exponential(0.5, order=3), "takes no reset_order"),
        ({"reset": "zero", "reset_taps": torch.ones(2)}, Exponential(0.5), "takes no reset_taps"),
        ({"reset": "zero", "reset_delay": True}, Exponential(0.5), "reset_delay"),
        ({"reset": "feedback"}, Exponential(0.5, order=3), "needs reset_taps"),
        ({"reset": "feedback", "reset_taps": torch.ones(2)}, Exponential(0.5), "finite order"),
        (
            {"reset": "feedback", "reset_taps": torch.ones(2), "reset_order": 3},
            FIR(torch.ones(2)),
            "2, got 3",
        ),
        ({"reset": "feedback", "reset_taps": [1.0]}, FIR(torch.ones(2)), "reset_taps"),
        ({"reset": "feedback", "reset_taps": torch.ones(2, 5)}, FIR(torch.ones(2)), "5 channels"),
        ({"reset": "feedback", "reset_taps": torch.tensor([torch.nan])}, FIR(torch.ones(2)), "reset_taps"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(options, kernel, words):
    with pytest.raises((TypeError, ValueError), match=words):
        functional.fire(X, kernel, **options)


@pytest.mark.parametrize(
    ("last_spikes", "reset", "words"),
    [
        (torch.ones(1, 2, 3), None, "last_spikes"),
        (torch.ones(2, 2, 3), "zero", r"shape \[1, 2, 3\]"),
        ("spikes", "zero", "last_spikes must be"),
    ],
)
def test_spikes_before_that_do_not_fit_are_refused(last_spikes, reset, words):
    with pytest.raises((TypeError, ValueError), match=words):
        functional.fire_chunk(X, Exponential(0.5), last_spikes=last_spikes, reset=reset)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reset": "hard"}, "reset must be one of"),
        ({"reset": None, "reset_order": 2}, "takes no reset_order"),
        ({"reset": "zero", "reset_order": 2, "order": 4}, "takes no reset_order"),
        ({"reset": "feedback"}, "finite order"),
        ({"reset": "feedback", "order": 1}, "needs reset_order"),
        ({"reset": "subtract", "reset_order": 2}, "finite order"),
        ({"reset": "zero", "kernel": "matrix", "time_steps": 4}, "kernel='exp' or 'fir'"),
    ],
)
def test_a_module_refuses_what_has_no_meaning(options, words):
    with pytest.raises(ValueError, match=words):
        MFP(0.5, **options)


def test_learned_taps_start_at_nothing_and_lie_on_the_grid_of_the_kernel():
    x = torch.randn(6, 5, 3)
    free, fed = MFP(0.5, order=4), MFP(0.5, order=4, reset="feedback", num_channels=3, kernel_bits="pow2")
    assert torch.equal(free(x), fed(x)) and fed.feedback.taps.shape == (3, 3)
    with torch.no_grad():
        fed.feedback.taps.copy_(torch.tensor([[0.7], [-0.3], [0.0]]).expand(3, 3))
    assert torch.equal(fed.neuron_spec().reset.taps, torch.tensor([[0.5], [-0.25], [0.0]]).expand(3, 3))
    fed(x).sum().backward()
    assert fed.feedback.taps.grad.abs().sum() > 0


def test_a_latch_remembers_beyond_every_order():
    """One own spike that is fed back with a positive tap keeps the neuron firing."""
    x = torch.zeros(20, 1)
    x[0] = 1
    latch = functional.fire(x, FIR(torch.ones(1)), reset="feedback", reset_taps=torch.ones(1))
    assert latch.sum() == 20
