"""One bit an element for backward, where the surrogate is rectangular and only the input learns."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons import MFP, functional, ops
from mfp_neurons._arguments import prepare
from mfp_neurons.backends import torch as stock
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.surrogate import ATan, Rect
from tests.strategies import BACKENDS, Case, cases

# torch's own check reads .grad of a tensor that is no leaf
opcheck = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


def saved_bytes(run, *args, **kwargs) -> tuple[dict[int, int], Tensor]:
    """Bytes of each storage that is kept for backward, and the result."""
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run(*args, **kwargs)
    return saved, out


def operands(case: Case, data: st.DataObject) -> tuple[Tensor, ...]:
    """What the operators take, with a state and an affine input where they are drawn."""
    x = case.x
    _, kind, kernel, threshold, *_ = prepare(x, case.kernel(), case.threshold, None, "torch", carry=True)
    earlier = data.draw(st.integers(0, 3)) if kind == "matrix" else 0
    if earlier:  # the steps after some that are past
        kernel = torch.cat([torch.randn(len(x), earlier, dtype=torch.float64), kernel], 1)
    rows = {"exp": [], "fir": [len(kernel) - 1], "matrix": [earlier]}[kind]
    state = (
        torch.randn(*rows, *x.shape[1:], dtype=torch.float64) if earlier or data.draw(st.booleans()) else None
    )
    scale = shift = None
    if x.dim() > 2 and data.draw(st.booleans()):
        scale, shift = torch.randn(2, x.shape[2], dtype=torch.float64)
    return x, kernel, threshold, state, scale, shift, kind


@given(
    case=cases(), alpha=st.sampled_from([0.3, 1.0, 2.0]), backend=st.sampled_from(BACKENDS), data=st.data()
)
def test_masks_give_the_same_spikes_and_the_same_gradients_bit_for_bit(case, alpha, backend, data):
    x, kernel, threshold, state, scale, shift, kind = operands(case, data)
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]))
    wide = stock.accumulate_dtype(dtype)
    x = x.to(dtype)
    fixed = [None if v is None else v.detach().to(wide) for v in (kernel, threshold, scale, shift)]
    state = None if state is None else state.to(wide)
    record, strict = data.draw(st.booleans()), data.draw(st.booleans())
    weights = torch.randn(x.shape).to(dtype)
    through_potential, learned_state = data.draw(st.booleans()), data.draw(st.booleans())

    def run(masked: bool) -> list[Tensor]:
        leaves = [x.detach().requires_grad_()]
        before = None if state is None else state.detach().requires_grad_(learned_state)
        leaves += [before] if before is not None and learned_state else []
        tensors = (leaves[0], fixed[0], fixed[1], before, fixed[2], fixed[3], kind)
        if masked:
            spikes, u, _ = ops.fire_masked(*tensors, alpha, strict, record, backend)
        else:
            spikes, u = ops.fire(*tensors, "rect", [alpha], strict, record, backend)
        loss = (spikes * weights).sum() + (u.square().sum() if through_potential else 0)
        return [spikes, u, *torch.autograd.grad(loss, leaves)]

    for mine, theirs in zip(run(True), run(False), strict=True):
        assert torch.equal(mine, theirs)


@opcheck
@given(case=cases(), backend=st.sampled_from(BACKENDS))
@settings(max_examples=5)
def test_the_masked_operator_passes_opcheck(case, backend):
    x, kind, kernel, threshold, *_ = prepare(case.x, case.kernel(), case.threshold, None, "torch", carry=True)
    state = torch.zeros(x.shape[1:], dtype=torch.float64, requires_grad=True) if kind == "exp" else None
    arguments = (x.requires_grad_(), kernel.detach(), threshold.detach(), state, None, None, kind)
    torch.library.opcheck(ops.fire_masked, (*arguments, 0.7, False, False, backend))


@pytest.mark.parametrize("kernel", [Exponential(0.5), FIR(torch.rand(5)), Matrix(torch.rand(16, 16))])
def test_one_bit_an_element_is_kept_and_nothing_else_of_the_inputs_size(kernel):
    x = torch.randn(16, 10, 1003, requires_grad=True)
    saved, _ = saved_bytes(lambda: functional.fire(x * 1.0, kernel, surrogate=Rect()))
    assert sum(saved.values()) <= x.numel() / 8 + 16 + 4 * (1 + 16 * 16)


def test_a_state_is_not_kept_either():
    x, state = torch.randn(4, 100_000, requires_grad=True), torch.zeros(100_000)
    saved, _ = saved_bytes(
        functional.fire_chunk, x * 1.0, Exponential(0.5), state=state, surrogate=Rect(), record=True
    )
    assert sum(saved.values()) <= x.numel() / 8 + 100


@pytest.mark.parametrize(
    "learned",
    [
        dict(kernel=Exponential(torch.tensor([0.5], requires_grad=True))),
        dict(v_threshold=torch.ones(1, requires_grad=True)),
        dict(surrogate=ATan()),
    ],
    ids=["decay", "threshold", "another surrogate"],
)
def test_the_input_is_kept_where_its_values_are_needed(learned):
    x = torch.randn(16, 1000, requires_grad=True)
    call = dict(kernel=Exponential(0.5), surrogate=Rect()) | learned
    saved, _ = saved_bytes(lambda: functional.fire(x * 1.0, **call))
    assert max(saved.values()) == x.nbytes


def test_nothing_is_kept_where_nothing_learns():
    x = torch.randn(16, 1000)
    assert saved_bytes(functional.fire, x, Exponential(0.5), surrogate=Rect())[0] == {}
    with torch.no_grad():
        saved, _ = saved_bytes(functional.fire, x.requires_grad_(), Exponential(0.5), surrogate=Rect())
    assert saved == {}


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_module_with_a_mask_has_one_graph_and_the_eager_results(backend):
    torch._dynamo.reset()
    eager = torch.nn.Sequential(torch.nn.Linear(4, 5), MFP(0.7, surrogate=Rect()))
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend=backend)
    for batch in (2, 3):
        x = torch.randn(6, batch, 4)
        saved, mine = saved_bytes(compiled, x)
        theirs = eager(x)
        torch.testing.assert_close(mine, theirs)
        mine.sum().backward()
        theirs.sum().backward()
        assert 6 * 2 in saved.values() and theirs.nbytes not in saved.values()
    for a, b in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_meta_tensors_get_a_mask_too():
    x = torch.empty(4, 2, 3, device="meta", requires_grad=True)
    functional.fire(x, Exponential(0.5), surrogate=Rect()).sum().backward()
    assert x.grad.shape == x.shape


def test_autocast_changes_no_bit_of_it():
    x = torch.randn(6, 2, 5, requires_grad=True)

    def run():
        spikes = functional.fire(x, Exponential(0.5), surrogate=Rect())
        return spikes, torch.autograd.grad(spikes.sum(), x)[0]

    plain = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = run()
    assert all(map(torch.equal, plain, cast))


def test_a_second_derivative_through_a_mask_is_refused_with_a_word():
    x = torch.randn(4, 2, requires_grad=True)
    spikes = functional.fire(x, Exponential(0.5), surrogate=Rect())
    (grad,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative through a spiking neuron"):
        grad.sum().backward()


def test_blocks_may_end_inside_a_byte(monkeypatch):
    monkeypatch.setattr(stock, "_AREA", 66)  # 11 neurons a block of 6 steps
    monkeypatch.setattr(stock, "_ROW", 7)
    x = torch.randn(6, 3, 5, 4, requires_grad=True)
    scale, shift = torch.randn(2, 5)
    kernel, threshold = torch.tensor([[0.5], [1.0]]), torch.ones(1)

    def grad(op, *named):
        spikes, u, *_ = op(x, kernel, threshold, None, scale, shift, "exp", *named, False, False, "torch")
        return torch.autograd.grad((spikes * torch.arange(4.0)).sum() + u.sum(), x)[0]

    assert torch.equal(grad(ops.fire_masked, 0.5), grad(ops.fire, "rect", [0.5]))
