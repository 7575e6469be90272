"""The torch.library operators: opcheck, torch.compile, export, meta tensors, and what they keep in memory."""

import copy

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mfp_neurons import MFP, functional, quantize_weights
from mfp_neurons.backends import Call
from mfp_neurons.backends import torch as stock
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.norm import Norm
from mfp_neurons.surrogate import ATan, Rect
from tests.strategies import BACKENDS, Case, cases, resets

OPERATORS = torch.ops.mfp_neurons


class Calls(TorchDispatchMode):
    """The arguments of every operator of ours that runs forward."""

    def __init__(self) -> None:
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (OPERATORS.fire.default, OPERATORS.norm_fire.default):
            self.made.append((func, args))
        return func(*args, **(kwargs or {}))


def as_leaf(value):
    is_real = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().clone().requires_grad_() if is_real else value


# torch's own check reads .grad of a tensor that is no leaf
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@given(
    case=cases(),
    record=st.booleans(),
    backend=st.sampled_from(BACKENDS),
    normalize=st.booleans(),
    data=st.data(),
)
@settings(max_examples=8)
def test_the_operators_pass_opcheck(case: Case, record, backend, normalize, data):
    x, kernel = case.x, case.kernel()
    with Calls() as calls:
        first = functional.fire_chunk(x, kernel, case.threshold, record=record, backend=backend)
        if case.kind != "matrix":
            functional.fire_chunk(x, kernel, case.threshold, first.state, record=record, backend=backend)
        functional.potential(x, kernel, backend=backend)
        if case.kind != "matrix":
            options = dict(record=record, backend=backend, **data.draw(resets(case)))
            chunk = functional.fire_chunk(x, kernel, case.threshold, **options)
            functional.fire_chunk(
                x, kernel, case.threshold, chunk.state, last_spikes=chunk.last_spikes, **options
            )
        if normalize:
            assume(x.dim() > 2 and x.numel() > x.shape[2])
            weight, bias = torch.rand(2, x.shape[2], dtype=torch.float64)
            training = Norm(None, None, weight, bias, training=True)
            functional.norm_fire_chunk(x, training, kernel, case.threshold, record=record, backend=backend)
            averages = Norm(bias, weight, weight, bias)
            functional.norm_fire(x, averages, kernel, case.threshold, backend=backend)
    assert calls.made  # a single step of the exponential takes stock operators; the potential is always one
    for operator, arguments in calls.made:
        torch.library.opcheck(operator, tuple(map(as_leaf, arguments)))


KERNELS = {
    "exp": dict(kernel="exp", learnable=True),
    "exp of finite order": dict(kernel="exp", order=3),
    "fir per channel": dict(kernel="fir", order=3, num_channels=5, kernel_bits="pow2"),
    "matrix": dict(kernel="matrix", time_steps=6, kernel_bits=4),
    "subtract": dict(learnable=True, reset="subtract"),
    "subtract of finite order": dict(order=3, kernel_bits="pow2", reset="subtract", learn_threshold=True),
    "zero": dict(reset="zero", detach_reset=True),
    "feedback": dict(kernel="fir", order=3, reset="feedback", reset_order=2, num_channels=5),
}


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", KERNELS.values(), ids=KERNELS.keys())
def test_compiled_modules_have_one_graph_and_the_eager_results(options, backend):
    torch._dynamo.reset()
    eager = torch.nn.Sequential(torch.nn.Linear(4, 5), MFP(0.7, **options))
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend=backend)
    for batch in (2, 3):
        x = torch.randn(6, batch, 4)
        mine, theirs = compiled(x), eager(x)
        torch.testing.assert_close(mine, theirs)
        mine.sum().backward()
        theirs.sum().backward()
    for a, b in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_an_exported_module_gives_the_same_spikes():
    module, x = MFP(0.7, learnable=True), torch.randn(6, 2, 4)
    exported = torch.export.export(module, (x,), strict=False).module()
    assert torch.equal(exported(x), module(x))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": 3},
        {"kernel": "fir", "order": 8, "num_channels": 4, "kernel_bits": "pow2"},
        {"reset": "zero"},
        {"order": 8, "reset": "subtract"},
    ],
    ids=["infinite", "truncated", "fir", "hard reset", "truncated soft reset"],
)
def test_an_exported_network_takes_any_number_of_steps(options, strict):
    net = nn.Sequential(nn.Linear(3, 4), MFP(0.7, **options), nn.Linear(4, 2))
    quantize_weights(net, first=4, last=1)
    steps = {0: torch.export.Dim("T", min=2, max=64)}
    program = torch.export.export(net, (torch.randn(5, 2, 3),), dynamic_shapes=(steps,), strict=strict)
    for T in (2, 7, 33):
        x = torch.randn(T, 2, 3) * 3
        assert torch.equal(program.module()(x), net(x))


def test_meta_tensors_get_shapes_and_dtypes():
    x = torch.empty(4, 2, 3, 5, device="meta", dtype=torch.float16, requires_grad=True)
    kernel = Exponential(0.5, order=3)
    for chunk in (
        functional.fire_chunk(x, kernel),
        functional.fire_chunk(x, kernel, reset="subtract"),
        functional.norm_fire_chunk(x, Norm(training=True), kernel, reset="zero"),
        functional.norm_fire_chunk(x, Norm(training=True), kernel, record=True),
    ):
        chunk.spikes.sum().backward()
        assert chunk.spikes.shape == x.grad.shape == x.shape and chunk.spikes.dtype == torch.float16
        assert chunk.potential.dtype == torch.float32 and chunk.state.shape == (2, 2, 3, 5)
    assert chunk.potential.shape == x.shape


@pytest.mark.parametrize("norm", [None, Norm(training=True)])
def test_a_second_derivative_is_refused_with_a_word(norm):
    x = torch.randn(4, 2, 3, requires_grad=True)
    kernel = Exponential(0.5)
    spikes = functional.fire(x, kernel) if norm is None else functional.norm_fire(x, norm, kernel)
    (grad,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative through a spiking neuron"):
        grad.sum().backward()


def test_the_input_is_not_modified_and_the_whole_is_deterministic():
    x = torch.randn(9, 300, requires_grad=True)
    before = x.detach().clone()

    def run():
        return torch.autograd.grad(functional.fire(x, Exponential(torch.tensor([0.7]))).sum(), x)[0]

    assert torch.equal(run(), run()) and torch.equal(x, before)


class Largest(TorchDispatchMode):
    """The largest storage that any operator allocates, and how many of full size there were."""

    def __init__(self, full: int) -> None:
        super().__init__()
        self.full, self.sizes = full, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                storage = tensor.untyped_storage()
                self.sizes[storage.data_ptr()] = max(storage.nbytes(), self.sizes.get(storage.data_ptr(), 0))
        return out

    def count_full(self, but: torch.Tensor) -> int:
        own = but.untyped_storage().data_ptr()
        return sum(size >= self.full / 2 for pointer, size in self.sizes.items() if pointer != own)


@pytest.mark.parametrize(
    "kernel",
    [Exponential(0.5), Exponential(0.5, order=3), FIR(torch.rand(4)), FIR(torch.rand(12)),
     FIR(torch.rand(12, 64)), Matrix(torch.rand(16, 16))],
    ids=["exp", "exp order 3", "fir 4", "fir 12", "fir 12 per channel", "matrix"],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["contiguous", "batch first", "channels last"])
def test_inference_allocates_nothing_of_the_inputs_size_but_the_spikes(kernel, layout):
    x = torch.randn(16, 32, 64, 8, 8)
    if layout == "batch first":
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    assert x[:, 0].numel() * 8 > stock._AREA  # otherwise one block would be the whole
    with Calls() as calls:
        functional.fire(x, kernel, backend="torch")
    ((_, arguments),) = calls.made
    with (
        torch.no_grad(),
        Largest(x.nbytes) as allocated,
    ):  # an operator's inside is seen by calling its backend
        stock.forward(Call.of(*arguments))
    assert allocated.count_full(but=x) == 1


def saved_bytes(run) -> list[int]:
    """Bytes of each storage that is kept for backward."""
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sorted(saved.values())


@pytest.mark.parametrize("surrogate", [ATan(), Rect()])
@pytest.mark.parametrize(
    "kernel", [Exponential(torch.tensor([0.5])), FIR(torch.rand(9)), Matrix(torch.rand(8, 8))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_saves_the_input_and_nothing_else_of_its_size(kernel, surrogate, dtype):
    x = torch.randn(8, 2, 6, 40, 40, dtype=dtype, requires_grad=True)
    weight = torch.ones(6, requires_grad=True)
    norms = [Norm(torch.zeros(6), torch.ones(6), weight, None, training) for training in (True, False)]
    runs = [lambda: functional.fire(x * 1.0, kernel, surrogate=surrogate)]
    runs += [lambda n=n: functional.norm_fire(x * 1.0, n, kernel, surrogate=surrogate) for n in norms]
    for run in runs:
        *small, largest = saved_bytes(run)
        assert largest == x.nbytes and sum(small) < 500
        with torch.no_grad():
            assert saved_bytes(run) == []


def test_a_potential_alone_saves_nothing_of_the_inputs_size_unless_its_kernel_learns():
    x = torch.randn(16, 1000, requires_grad=True)
    taps = torch.rand(3, requires_grad=True)
    assert sum(saved_bytes(lambda: functional.potential(x * 1.0, Exponential(0.5)))) < 100
    assert max(saved_bytes(lambda: functional.potential(x * 1.0, FIR(taps)))) == x.nbytes


SEQUENCE = torch.linspace(0, 1, 24).reshape(4, 2, 3)
NODES = {"one operator": ATan(), "its surrogate outside": lambda u: ATan().spike(u)}


@pytest.mark.parametrize("surrogate", NODES.values(), ids=list(NODES))
def test_only_a_sequence_that_was_not_reset_is_called_one(surrogate):
    weight = torch.nn.Linear(3, 3)

    def run(state=None):
        return functional.fire_chunk(weight(SEQUENCE), Exponential(0.5), 0.5, state, surrogate=surrogate)

    first = run()
    first.spikes.sum().backward()
    with pytest.raises(RuntimeError, match="still holds the state"):
        run(first.state).spikes.sum().backward()
    again = run(first.state.detach()).spikes.sum()
    again.backward()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        again.backward()


def test_what_was_changed_in_place_is_said_in_torchs_words_with_a_note():
    current = torch.nn.Linear(3, 3)(SEQUENCE)
    loss = MFP()(current).sum()
    current += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as raised:
        loss.backward()
    assert "computes its potential anew in backward" in "".join(raised.value.__notes__)


def test_an_error_while_saved_tensors_are_unpacked_keeps_its_class():
    def unpack(_):
        raise torch.OutOfMemoryError("out of memory")

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        loss = MFP()(SEQUENCE.clone().requires_grad_()).sum()
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        loss.backward()


@pytest.mark.parametrize("surrogate", NODES.values(), ids=list(NODES))
def test_spikes_may_be_changed_in_place(surrogate):
    def gradient(change):
        leaf = SEQUENCE.clone().requires_grad_()
        return torch.autograd.grad(change(MFP(surrogate=surrogate)(leaf)).sum(), leaf)[0]

    assert torch.equal(
        gradient(lambda spikes: spikes.add_(1).mul_(3)), gradient(lambda spikes: (spikes + 1) * 3)
    )
