"""The operator against its definition (reference, float64), and the errors it raises."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mfp_neurons import functional, reference
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.surrogate import ATan, Rect, Sigmoid
from tests.backend_runs import HOW, OF_BACKEND, assert_close, case_for, on_every_backend, run_as
from tests.strategies import SURROGATES, Case, cases

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ANY_WAY = st.sampled_from(list(HOW))
BACKENDS = st.sampled_from(["cpu", "torch"])


def _along(value, like):
    return value.detach().reshape(-1, *[1] * (like.dim() - 3)) if value.numel() > 1 else value.detach()


def _has_layout_of(like, tensor):
    """Whether a tensor lies in memory as torch's own result of an elementwise operation would."""
    strides = zip(like.shape, tensor.stride(), torch.empty_like(like).stride(), strict=True)
    return all(mine == theirs for size, mine, theirs in strides if size > 1)


@on_every_backend
@given(
    case=cases(),
    dtype=st.sampled_from(DTYPES),
    surrogate=st.sampled_from(SURROGATES),
    strict=st.booleans(),
    data=st.data(),
)
def test_spikes_and_every_gradient_agree_with_the_reference(
    family, case: Case, dtype, surrogate, strict, data
):
    how = data.draw(st.sampled_from(OF_BACKEND[family]))
    case = case_for(how, case, dtype)
    exact = case.to(torch.float64)
    above = reference.membrane_potential(exact.x, exact.kernel()) - _along(exact.threshold, exact.x)
    if isinstance(surrogate, Rect) and dtype != torch.float64:  # a jump that rounding decides
        assume(((above.abs() - 0.5 / surrogate.alpha).abs() > 1e-3).all())
    leaves, exact_leaves, grad = case.leaves(), exact.leaves(), torch.randn_like(case.x)
    options = dict(surrogate=surrogate, strict=strict)
    with run_as(how) as backend:
        mine = functional.fire(case.x, case.kernel(), case.threshold, backend=backend, **options)
        gradients = torch.autograd.grad(mine, leaves, grad)
    assert mine.dtype == dtype and _has_layout_of(case.x, mine)
    theirs = reference.fire(exact.x, exact.kernel(), exact.threshold, **options)
    bound = 1e-12 if dtype == torch.float64 else 1e-4
    clear = above.abs() > bound * (1 + above.abs().max())
    assert torch.equal(mine[clear].double(), theirs[clear])
    expected = torch.autograd.grad(theirs, exact_leaves, grad.double())
    for a, b in zip(gradients, expected, strict=True):
        assert_close(a, b, dtype, 10 * (1 + b.abs().max().item()) * (1 if dtype == torch.float64 else 3))


@on_every_backend
@given(
    case=cases(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    record=st.booleans(),
    data=st.data(),
)
def test_a_sequence_cut_anywhere_is_the_reference_with_all_gradients(family, case: Case, dtype, record, data):
    how = data.draw(st.sampled_from(OF_BACKEND[family]))
    case = case_for(how, case, dtype)
    exact = case.to(torch.float64)
    leaves, exact_leaves = case.leaves(), exact.leaves()
    steps = len(case.x)
    ends = [*sorted(data.draw(st.sets(st.integers(1, steps - 1)))), steps] if steps > 1 else [1]
    state, spikes, potentials = None, [], []
    weights = torch.randn_like(exact.x)
    with run_as(how) as backend:
        for start, end in itertools.pairwise([0, *ends]):
            chunk = functional.fire_chunk(
                case.x[start:end], case.kernel(), case.threshold, state, record=record, surrogate=Sigmoid(),
                backend=backend,
            )  # fmt: skip
            state = chunk.state
            assert state._base is None
            spikes.append(chunk.spikes)
            potentials.append(chunk.potential if record else chunk.potential.unsqueeze(0))
        mine_s, mine_u = torch.cat(spikes), torch.cat(potentials)
        loss = (mine_s * weights.to(dtype)).sum() + mine_u.sin().sum()
        gradients = torch.autograd.grad(loss, leaves)
    potential = reference.membrane_potential(exact.x, exact.kernel())
    theirs_s = reference.fire(exact.x, exact.kernel(), exact.threshold, surrogate=Sigmoid())
    theirs_u = potential if record else potential[[end - 1 for end in ends]]
    assert mine_u.dtype == dtype
    assert_close(mine_u, theirs_u, dtype, 10)
    above = potential - _along(exact.threshold, potential)
    clear = above.abs() > (1e-12 if dtype == torch.float64 else 1e-4 * (1 + above.abs().max()))
    assert torch.equal(mine_s[clear].double(), theirs_s[clear])
    loss = (theirs_s * weights).sum() + theirs_u.sin().sum()
    for a, b in zip(gradients, torch.autograd.grad(loss, exact_leaves), strict=True):
        assert_close(a, b, dtype, 30 * (1 + b.abs().max().item()))


@given(case=cases(), how=ANY_WAY)
def test_the_potential_alone_is_the_references_with_its_gradients(case: Case, how):
    case = case_for(how, case, torch.float64)
    leaves = case.leaves()
    wanted = [leaves[0], *leaves[2:]]
    grad = torch.randn_like(case.x)
    with run_as(how) as backend:
        mine = functional.potential(case.x, case.kernel(), backend=backend)
        gradients = torch.autograd.grad(mine, wanted, grad)
    assert _has_layout_of(case.x, mine)
    theirs = reference.membrane_potential(case.x, case.kernel())
    assert_close(mine, theirs, torch.float64)
    for a, b in zip(gradients, torch.autograd.grad(theirs, wanted, grad), strict=True):
        assert_close(a, b, torch.float64, 10)


@given(case=cases(), dtype=st.sampled_from(DTYPES), backend=BACKENDS)
def test_autocast_changes_nothing(case: Case, dtype, backend):
    case = case.to(dtype)
    leaves = case.leaves()

    def run():
        spikes, potential, *_ = functional.fire_chunk(
            case.x, case.kernel(), case.threshold, record=True, backend=backend
        )
        return spikes, potential, *torch.autograd.grad(spikes.sum() + potential.sum(), leaves)

    plain = run()
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(plain, run(), strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_the_first_step_of_a_sixteen_bit_input_is_not_rounded_to_sixteen_bits(dtype, backend):
    x = torch.randn(1, 100).to(dtype)
    u = functional.potential(x, Exponential(0.5, gain=0.3), backend=backend)
    torch.testing.assert_close(u, x.float() * 0.3)


def test_a_lower_matmul_precision_does_not_reach_the_sums():
    x, taps = torch.randn(40, 64), torch.randn(20)
    expected = functional.potential(x.double(), FIR(taps.double()))
    torch.set_float32_matmul_precision("medium")
    try:
        u = functional.potential(x, FIR(taps), backend="torch")
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(u, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kernel", [Exponential(0.5), FIR(torch.randn(3)), FIR(torch.randn(9)), Matrix(torch.eye(4))]
)
@pytest.mark.parametrize("shape", [(4, 0), (4, 0, 3), (4, 2, 0, 5)])
@pytest.mark.parametrize("how", ["cpu", "torch", "cuda"])
def test_an_empty_batch_gives_empty_spikes_and_zero_gradients(kernel, shape, how):
    x, threshold = torch.zeros(shape, requires_grad=True), torch.ones(1, requires_grad=True)
    with run_as(how) as backend:
        spikes = functional.fire(x, kernel, threshold, backend=backend)
        gradients = torch.autograd.grad(spikes.sum(), (x, threshold))
    assert spikes.shape == gradients[0].shape == x.shape and not gradients[1].any()


def test_equality_fires_unless_strict():
    x = torch.tensor([[1.0], [0.5], [0.75]])  # decay 0.5 puts every potential on the threshold
    assert functional.potential(x, Exponential(0.5)).flatten().tolist() == [1.0, 1.0, 1.25]
    assert functional.fire(x, Exponential(0.5)).flatten().tolist() == [1, 1, 1]
    assert functional.fire(x, Exponential(0.5), strict=True).flatten().tolist() == [0, 0, 1]


def test_a_nan_input_never_fires():
    x = torch.tensor([[float("nan")], [float("inf")]])
    assert functional.fire(x, FIR(torch.ones(1))).flatten().tolist() == [0, 1]


def test_any_callable_surrogate_gives_its_own_gradient(caplog):
    def soft(x):
        return torch.sigmoid(x)

    x = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    kernel = Exponential(torch.tensor([0.7], dtype=torch.float64))
    mine = functional.fire(x, kernel, 0.3, surrogate=soft)
    theirs = torch.sigmoid(reference.membrane_potential(x, kernel) - 0.3)
    torch.testing.assert_close(mine, theirs)
    grad = torch.randn_like(mine)
    torch.testing.assert_close(torch.autograd.grad(mine, x, grad), torch.autograd.grad(theirs, x, grad))
    assert "outside the fused operator" in caplog.text
    caplog.clear()
    functional.fire(x, kernel, 0.3, surrogate=soft)
    assert caplog.text == ""


X = torch.zeros(4, 2, 3)
ERRORS = [
    (dict(x_seq=torch.zeros(4, 2, dtype=torch.complex64)), TypeError, "complex64"),
    (dict(x_seq=[1.0]), TypeError, "x_seq must be .* got \\[1.0\\]"),
    (dict(x_seq=torch.zeros(4)), ValueError, "2 to 6 dimensions, got shape \\[4\\]"),
    (dict(x_seq=torch.zeros(0, 4)), ValueError, "at least one time step"),
    (dict(kernel=0.5), TypeError, "kernel must be an Exponential, FIR or Matrix"),
    (
        dict(kernel=Matrix(torch.eye(5))),
        ValueError,
        "matrix kernel of 5 steps takes x_seq of T = 5, got T = 4",
    ),
    (dict(kernel=FIR(torch.ones(2, 7))), ValueError, "kernel has 7 channels, but x_seq .* has 3 channels"),
    (dict(kernel=Exponential(torch.ones(7))), ValueError, "kernel has 7 channels"),
    (dict(x_seq=torch.zeros(4, 2), kernel=FIR(torch.ones(2, 7))), ValueError, "no channel dimension"),
    (dict(v_threshold=torch.ones(2)), ValueError, "v_threshold has 2 channels"),
    (dict(v_threshold=torch.ones(2, 2)), ValueError, "v_threshold must be a number or a tensor"),
    (dict(v_threshold=float("nan")), ValueError, "v_threshold must be finite, or inf for .* got nan"),
    (dict(v_threshold=-math.inf), ValueError, "v_threshold must be finite, or inf for .* got -inf"),
    (dict(v_threshold=torch.tensor([float("nan")])), ValueError, "v_threshold must be finite"),
    (dict(v_threshold="1"), TypeError, "v_threshold must be a number"),
    (dict(v_threshold=None), TypeError, "v_threshold must be a number or a tensor .* got None"),
    (
        dict(v_threshold=torch.ones(1, device="meta")),
        ValueError,
        "v_threshold is on meta, but x_seq is on cpu",
    ),
    (dict(kernel=FIR(torch.ones(2, device="meta"))), ValueError, "kernel \\(FIR\\) is on meta"),
    (dict(surrogate=3), TypeError, "surrogate must be"),
    (dict(backend="cuda"), ValueError, "backend must be one of 'auto', 'torch', 'cpu', 'cupy', got 'cuda'"),
]


@pytest.mark.parametrize(("changed", "error", "words"), ERRORS, ids=[e[2][:40] for e in ERRORS])
def test_bad_arguments_are_named_with_what_came_and_what_is_accepted(changed, error, words):
    arguments = dict(x_seq=X, kernel=Exponential(0.5), v_threshold=1.0, surrogate=ATan()) | changed
    with pytest.raises(error, match=words):
        functional.fire(**arguments)


def test_a_gpu_backend_for_tensors_on_the_cpu_says_to_move_them_only_where_there_is_a_gpu():
    with pytest.raises((RuntimeError, ValueError), match="cupy") as raised:
        functional.fire(X, Exponential(0.5), backend="cupy")
    advised = "Move the tensors" in str(raised.value)
    assert advised == torch.cuda.is_available() or "CuPy" in str(raised.value)


@pytest.mark.parametrize(
    ("kernel", "state", "words"),
    [
        (Exponential(0.5), torch.zeros(2, 4), r"state must have shape \[2, 3\]"),
        (FIR(torch.ones(3)), torch.zeros(1, 2, 3), r"state must have shape \[2, 2, 3\]"),
        (Matrix(torch.eye(5)), torch.zeros(2, 2, 3), "got 4 steps after 2"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(kernel, state, words):
    with pytest.raises(ValueError, match=words):
        functional.fire_chunk(X, kernel, state=state)
    with pytest.raises(TypeError, match=r"state must be a real floating-point tensor, or None, got \[0.0\]"):
        functional.fire_chunk(X, kernel, state=[0.0])


@given(case=cases(kinds=("exp",)), strict=st.booleans(), surrogate=st.sampled_from(SURROGATES))
def test_single_steps_on_their_short_path_agree_with_the_reference(case: Case, strict, surrogate):
    leaves = case.leaves()
    arguments = dict(surrogate=surrogate, strict=strict)
    mine, state = [], None
    for step in case.x:
        chunk = functional.fire_chunk(step.unsqueeze(0), case.kernel(), case.threshold, state, **arguments)
        mine.append(chunk.spikes)
        state = chunk.state
        assert state._base is None and (case.order is not None or state is chunk.potential)
    theirs = reference.fire(case.x, case.kernel(), case.threshold, **arguments)
    potential = reference.membrane_potential(case.x, case.kernel())
    away = (potential - _along(case.threshold, potential)).abs() > 1e-12
    assert torch.equal(torch.cat(mine)[away], theirs[away])
    grad = torch.randn_like(case.x)
    expected = torch.autograd.grad(theirs, leaves, grad)
    for a, b in zip(torch.autograd.grad(torch.cat(mine), leaves, grad), expected, strict=True):
        assert_close(a, b, torch.float64)


@given(case=cases(), surrogate=st.sampled_from(SURROGATES), backend=BACKENDS, data=st.data())
def test_an_infinite_threshold_never_fires_and_sends_back_no_gradient(case: Case, surrogate, backend, data):
    silent = torch.tensor([data.draw(st.booleans()) for _ in case.threshold])
    threshold = case.threshold.masked_fill(silent, math.inf)
    leaves = [*case.leaves()[:1], threshold.requires_grad_(), *case.parameters]
    spikes = functional.fire(case.x, case.kernel(), threshold, surrogate=surrogate, backend=backend)
    never = _along(silent, spikes)
    assert not spikes.where(never, 0).any()
    gradients = torch.autograd.grad(spikes, leaves, torch.ones_like(spikes))
    assert all(gradient.isfinite().all() for gradient in gradients)
    # e^-infinity is the smallest normal number in the compiled kernels
    assert gradients[0].where(never, 0).abs().max() < 1e-30
    assert not silent.any() or gradients[1][silent].abs().max() < 1e-30


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64])
def test_whole_numbers_are_taken_in_the_default_dtype(dtype, backend):
    counts = torch.randint(0, 4, (5, 2, 3)).to(dtype)
    for kernel in (Exponential(0.5), FIR(torch.tensor([1.0, 0.5])), Matrix(torch.rand(5, 5))):
        spikes = functional.fire(counts, kernel, backend=backend)
        assert spikes.dtype == torch.get_default_dtype()
        assert torch.equal(spikes, functional.fire(counts.float(), kernel, backend=backend))
        chunk = functional.fire_chunk(counts, kernel, backend=backend)
        assert torch.equal(chunk.spikes, spikes) and chunk.state.is_floating_point()


@given(case=cases(kinds=("exp", "fir")), backend=BACKENDS, data=st.data())
def test_a_nan_silences_the_steps_of_its_neuron_that_remember_it_and_nothing_else(case: Case, backend, data):
    kernel = case.kernel()
    memory = len(case.x) if isinstance(kernel, Exponential) else len(kernel.taps)
    memory = kernel.order or memory if isinstance(kernel, Exponential) else memory
    where = tuple(data.draw(st.integers(0, size - 1)) for size in case.x.shape)
    x = case.x.clone()
    x[where] = math.nan
    case.x = x
    leaves = case.leaves()
    chunk = functional.fire_chunk(x, kernel, case.threshold, record=True, backend=backend)
    reached = torch.zeros_like(x, dtype=torch.bool)
    reached[(slice(where[0], where[0] + memory), *where[1:])] = True
    assert torch.equal(chunk.potential.isnan(), reached)
    clean = functional.fire(x.nan_to_num(), kernel, case.threshold, backend=backend)
    assert torch.equal(chunk.spikes, clean.where(~reached, 0))
    gradient = torch.autograd.grad(chunk.spikes, leaves[0], torch.ones_like(x))[0]
    own = torch.zeros_like(reached)
    own[(slice(None), *where[1:])] = True
    assert gradient[where].isnan() and gradient[~own].isfinite().all()
