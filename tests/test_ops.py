"""The torch.library operators: opcheck, torch.compile, export, meta tensors, and what they keep in memory."""

import copy

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mfp_neurons import MFP, functional, ops, quantize_weights
from mfp_neurons._arguments import prepare
from mfp_neurons.backends import torch as stock
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.surrogate import ATan, Rect
from tests.strategies import Case, cases

# torch's own check reads .grad of a tensor that is no leaf
opcheck = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


@opcheck
@given(case=cases())
@settings(max_examples=5)
def test_the_operators_pass_opcheck(case: Case):
    prepared = prepare(case.x, case.kernel(), case.threshold, None, "torch", carry=True)
    x, kind, kernel, threshold, state, backend, *_ = prepared
    for leaf in (x, kernel, threshold):
        leaf.requires_grad_()
    surrogate = ATan()
    for record in (False, True):
        arguments = (
            x,
            kernel,
            threshold,
            state,
            None,
            None,
            kind,
            surrogate.name,
            surrogate.parameters,
            False,
            record,
            backend,
        )
        torch.library.opcheck(ops.fire, arguments)
    torch.library.opcheck(ops.potential, (x, kernel, state, kind, backend))


@opcheck
def test_the_operators_pass_opcheck_with_a_state():
    x, state = torch.randn(4, 2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    kernel = torch.tensor([[0.5], [1.0]], requires_grad=True)
    torch.library.opcheck(ops.potential, (x, kernel, state, "exp", "torch"))
    threshold = torch.ones(3, requires_grad=True)
    arguments = (x, kernel, threshold, state, None, None, "exp", "sigmoid", [4.0], False, False, "torch")
    torch.library.opcheck(ops.fire, arguments)


KERNELS = {
    "exp": dict(kernel="exp", learnable=True),
    "exp of finite order": dict(kernel="exp", order=3),
    "fir per channel": dict(kernel="fir", order=3, num_channels=5, kernel_bits="pow2"),
    "matrix": dict(kernel="matrix", time_steps=6, kernel_bits=4),
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
    [{}, {"order": 3}, {"kernel": "fir", "order": 8, "num_channels": 4, "kernel_bits": "pow2"}],
    ids=["infinite", "truncated", "fir"],
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
    chunk = functional.fire_chunk(torch.empty(4, 2, 3, device="meta", dtype=torch.float16), Exponential(0.5))
    assert chunk.spikes.shape == (4, 2, 3) and chunk.spikes.dtype == torch.float16
    assert chunk.potential.shape == chunk.state.shape == (2, 3) and chunk.state.dtype == torch.float32


def test_a_second_derivative_is_refused_with_a_word():
    x = torch.randn(4, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(functional.fire(x, Exponential(0.5)).sum(), x, create_graph=True)
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
    call = prepare(x, kernel, 1.0, None, "torch", carry=False)
    with torch.no_grad(), Largest(x.nbytes) as allocated:
        inner = stock.forward(x, stock.Call(call.kind, call.kernel, call.threshold), False)
    assert inner[0] is not None
    assert allocated.count_full(but=x) == 1


@pytest.mark.parametrize("kernel", [Exponential(torch.tensor([0.5])), FIR(torch.rand(9))])
def test_training_saves_the_input_and_nothing_else_of_its_size(kernel):
    x = torch.randn(16, 1000, requires_grad=True)
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        functional.fire(x * 1.0, kernel)
    assert sum(size >= x.nbytes for size in saved.values()) == 1
    assert sum(size for size in saved.values() if size < x.nbytes) < 1000


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


@pytest.mark.parametrize("kernel", [dict(kernel="exp"), dict(kernel="exp", order=2)])
def test_a_current_changed_in_place_behind_the_neuron_is_fine_where_backward_needs_it_no_more(kernel):
    def gradient(in_place: bool):
        leaf = SEQUENCE.clone().requires_grad_()
        current = leaf * 2
        spikes = MFP(surrogate=Rect(), v_threshold=0.7, **kernel)(current)
        total = current.add_(spikes) if in_place else current + spikes
        return torch.autograd.grad(total.square().sum(), leaf)[0]

    assert torch.equal(gradient(True), gradient(False)) and gradient(False).any()


@pytest.mark.parametrize("surrogate", NODES.values(), ids=list(NODES))
def test_spikes_may_be_changed_in_place(surrogate):
    def gradient(change):
        leaf = SEQUENCE.clone().requires_grad_()
        return torch.autograd.grad(change(MFP(surrogate=surrogate)(leaf)).sum(), leaf)[0]

    assert torch.equal(
        gradient(lambda spikes: spikes.add_(1).mul_(3)), gradient(lambda spikes: (spikes + 1) * 3)
    )
