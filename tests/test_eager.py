"""The two ways into the kernels, an operator and an autograd function, give the same, bit for bit.

And what is kept from call to call: tensors that follow from numbers alone, never from a parameter.
"""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional as spikingjelly
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mfp_neurons import MFP, MFPNode, functional
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.norm import Norm
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from tests.strategies import BACKENDS, Case, cases, resets

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


class Onlooker(TorchDispatchMode):
    """Sees every operator, and changes none: so that a neuron has to be one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


def assert_the_same(one: list[Tensor | None], other: list[Tensor | None]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.dtype == b.dtype and a.requires_grad == b.requires_grad
            assert torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def gradients(outputs: list[Tensor | None], leaves: list[Tensor]) -> list[Tensor | None]:
    """Of a sum in which every number of the outputs has a weight of its own."""
    wanted = [one for one in outputs if one is not None and one.requires_grad]
    weights = [torch.linspace(-1, 2, one.numel(), dtype=one.dtype).reshape(one.shape) for one in wanted]
    return list(torch.autograd.grad(wanted, leaves, weights, allow_unused=True)) if wanted else []


# --- the same, bit for bit ------------------------------------------------------------------------------


@given(
    case=cases(),
    dtype=st.sampled_from(DTYPES),
    backend=st.sampled_from(BACKENDS),
    record=st.booleans(),
    strict=st.booleans(),
    norm=st.sampled_from([None, "training", "evaluation"]),
    data=st.data(),
)
@settings(max_examples=100)
def test_an_onlooker_changes_no_spike_no_state_and_no_gradient(
    case: Case, dtype, backend, record, strict, norm, data
):
    case = case.to(dtype)
    leaves, wide = case.leaves(), torch.promote_types(dtype, torch.float32)
    options = dict(record=record, strict=strict, backend=backend)
    if case.kind != "matrix" and data.draw(st.booleans(), "reset"):
        options |= data.draw(resets(case, wide))
    fire_chunk = functional.fire_chunk
    if norm is not None:
        assume(case.x.dim() > 2 and case.x.numel() > case.x.shape[2])
        mean, variance, weight, bias = (torch.rand(case.x.shape[2], dtype=wide) + 0.5 for _ in range(4))
        leaves += [weight.requires_grad_(), bias.requires_grad_()]

        def fire_chunk(x, *args, **kwargs):
            averages = Norm(mean.clone(), variance.clone(), weight, bias, training=norm == "training")
            return functional.norm_fire_chunk(x, averages, *args, **kwargs)

    def run():
        first = fire_chunk(case.x, case.kernel(), case.threshold, **options)
        outputs = list(first)
        if case.kind != "matrix":
            own = {"last_spikes": first.last_spikes} if "reset" in options else {}
            outputs += fire_chunk(case.x[:2], case.kernel(), case.threshold, first.state, **own, **options)
        return outputs + gradients(outputs, leaves)

    alone = run()
    with Onlooker() as onlooker:
        watched = run()
    assert_the_same(alone, watched)
    names = {"mfp_neurons.fire.default", "mfp_neurons.norm_fire.default"}
    assert names & onlooker.seen or len(case.x) == 1  # a single step takes stock operators


NODES = [
    {}, {"reset": None}, {"v_reset": None}, {"v_reset": 0.3, "detach_reset": True}, {"learnable": True},
    {"order": 3}, {"order": 3, "reset": None}, {"order": 3, "v_reset": None, "kernel_bits": "pow2"},
    {"kernel": "fir", "order": 3}, {"kernel": "fir", "order": 3, "reset": None, "kernel_bits": 4},
    {"kernel": "fir", "order": 3, "reset": "feedback"}, {"kernel": "fir", "order": 2, "num_channels": 3},
    {"kernel": "matrix", "time_steps": 4},
]  # fmt: skip
LEAKY = [
    {}, {"reset_mechanism": "none"}, {"reset_mechanism": "zero"}, {"learn_beta": True}, {"order": 3},
    {"reset_mechanism": "zero", "reset_delay": False}, {"learn_threshold": True, "gain": 0.5},
]  # fmt: skip


def run_node(node: MFPNode, x: Tensor) -> list[Tensor | None]:
    spikingjelly.reset_net(node)
    if node.step_mode == "m":
        outputs = [node(x)] if node.kernel.kind == "matrix" else [node(x), node(x)]
    else:
        outputs = [node(step) for step in x]
    states = [node.v, *(getattr(node, name, None) for name in ("history", "last_spikes"))]
    return outputs + [one for one in states if isinstance(one, Tensor)]


def run_leaky(neuron: MFPLeaky | MFPLeakyParallel, x: Tensor) -> list[Tensor | None]:
    if isinstance(neuron, MFPLeakyParallel):
        return list(neuron(x))
    mem, outputs = neuron.reset_mem(), []
    for step in x:
        spikes, mem = neuron(step, mem)
        outputs += [spikes, mem]
    return outputs


@given(data=st.data(), dtype=st.sampled_from(DTYPES), batch=st.integers(1, 3), channels_last=st.booleans())
@settings(max_examples=150)
def test_an_onlooker_changes_no_neuron_of_a_framework(data, dtype, batch, channels_last):
    x = torch.randn(4, batch, 3, 2)
    x = x.movedim(2, -1).contiguous().movedim(-1, 2) if channels_last else x
    x = (2 * x).to(dtype).requires_grad_()
    if data.draw(st.booleans(), "MFPNode"):
        step_mode = data.draw(st.sampled_from("sm"), "step_mode")
        neuron, run = MFPNode(**data.draw(st.sampled_from(NODES), "options"), step_mode=step_mode), run_node
    else:
        kind = data.draw(st.sampled_from([MFPLeaky, MFPLeakyParallel]), "class")
        neuron, run = kind(0.7, **data.draw(st.sampled_from(LEAKY), "options")), run_leaky

    def results():
        outputs = run(neuron, x)
        return outputs + gradients(outputs, [x, *neuron.parameters()])

    alone = results()
    with Onlooker():
        assert_the_same(results(), alone)
    with torch.no_grad():
        assert_the_same(run(neuron, x), [one.detach() for one in alone[: len(run(neuron, x))]])


@pytest.mark.parametrize("options", NODES)
def test_a_compiled_sequence_is_the_eager_one(options):
    torch._dynamo.reset()
    node = MFPNode(**options, step_mode="m")
    x = torch.randn(4, 2, 3, requires_grad=True)
    compiled = torch.compile(node, fullgraph=True, backend="aot_eager")

    def results(module):
        spikes = module(x)
        v = node.v
        spikingjelly.reset_net(node)
        return [spikes, v, *gradients([spikes, v], [x, *node.parameters()])]

    assert_the_same(results(compiled), results(node))


# --- whoever has to see an operator does ----------------------------------------------------------------


def test_a_profile_shows_the_operator_only_to_those_who_need_one():
    x = torch.randn(4, 2, 3, requires_grad=True)
    for mode, expected in ((nullcontext(), False), (Onlooker(), True)):
        with torch.autograd.profiler.profile() as profile, mode:
            functional.fire(x, Exponential(0.5)).sum().backward()
        assert any(event.name == "mfp_neurons::fire" for event in profile.function_events) == expected


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_of_torch_jit_holds_the_neuron_and_not_its_spikes():
    module = MFP(0.5)
    traced = torch.jit.trace(module, torch.randn(4, 2, 3))
    for _ in range(3):
        x = torch.randn(4, 2, 3) * 3
        assert torch.equal(traced(x), module(x))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_maps_the_neuron_whatever_was_called_before_it():
    for decay in (0.31, 0.32):  # numbers that no other test uses: nothing is kept of them yet
        x, kernel = torch.randn(5, 4, 2, 3), Exponential(decay)
        mapped = torch.func.vmap(lambda one, kernel=kernel: functional.fire(one, kernel))(x)
        assert torch.equal(mapped, torch.stack([functional.fire(one, kernel) for one in x]))


@given(decay=st.floats(0.01, 0.99))
@settings(max_examples=20)
def test_what_fake_tensors_computed_is_kept_for_nobody(decay):
    with FakeTensorMode():
        x = torch.ones(4, 2, 3)
        assert functional.fire(x, Exponential(decay), decay, reset="subtract").shape == (4, 2, 3)
    x = torch.rand(4, 2, 3)
    spikes = functional.fire(x, Exponential(decay), decay, reset="subtract")
    assert type(spikes) is Tensor and torch.equal(
        spikes,
        functional.fire(x, Exponential(torch.tensor([decay])), torch.tensor([decay]), reset="subtract"),
    )


def test_meta_tensors_get_shapes_from_the_fake_rule():
    spikes = functional.fire(torch.empty(4, 2, 3, device="meta"), Exponential(0.5))
    assert spikes.is_meta and spikes.shape == (4, 2, 3)


class Marked(Tensor):
    """A subclass that keeps its class through every function of torch."""


def test_subclasses_of_tensor_stay_what_they_are():
    x = torch.randn(4, 2, 3)
    spikes = functional.fire(x.as_subclass(Marked), Exponential(0.5))
    assert type(spikes) is Marked
    assert torch.equal(spikes.as_subclass(Tensor), functional.fire(x, Exponential(0.5)))


# --- autograd, as everywhere ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [nullcontext, Onlooker])
def test_a_second_derivative_is_refused_when_it_is_asked_for_and_no_sooner(mode):
    x = torch.randn(4, 2, 3, requires_grad=True)
    with mode():
        (grad,) = torch.autograd.grad(functional.fire(x, FIR(torch.rand(2))).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivative through a spiking neuron"):
            grad.sum().backward()


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
def test_hooks_anomaly_mode_and_a_retained_graph_work():
    x, seen = torch.randn(4, 2, 3, requires_grad=True), []
    with torch.autograd.detect_anomaly(check_nan=True):
        spikes = MFP(0.5, kernel="fir", order=2)(x)
        spikes.register_hook(lambda grad: seen.append(grad.clone()) or 2 * grad)
        spikes.sum().backward(retain_graph=True)
        first = x.grad.clone()
        spikes.sum().backward()
    assert len(seen) == 2 and torch.equal(seen[0], torch.ones_like(x))
    assert torch.equal(x.grad, 2 * first) and bool(first.any())


@given(dtype=st.sampled_from([torch.float32, torch.bfloat16]), options=st.sampled_from(NODES))
@settings(max_examples=20)
def test_autocast_around_forward_and_backward_changes_nothing(dtype, options):
    node = MFPNode(**options, step_mode="m")
    x = torch.randn(4, 2, 3).to(dtype).requires_grad_()

    def results():
        outputs = run_node(node, x)
        return outputs + gradients(outputs, [x, *node.parameters()])

    alone = results()
    with torch.autocast("cpu", torch.bfloat16):
        assert_the_same(results(), alone)


@given(decay=st.floats(0.01, 0.99), order=st.sampled_from([None, 3]))
@settings(max_examples=20)
def test_what_inference_mode_computed_first_can_be_trained_with(decay, order):
    module = MFP(decay, order=order, reset="subtract", v_threshold=decay)
    x = torch.randn(4, 2, 3)
    with torch.inference_mode():
        spikes = module(x)
        assert spikes.is_inference()
    x.requires_grad_()
    trained = module(x)
    trained.sum().backward()
    assert torch.equal(trained, spikes) and bool(x.grad.any())


# --- parameters are read at every call ------------------------------------------------------------------


def write_data(parameter: Tensor, value: Tensor) -> None:
    parameter.data = value.clone()


CHANGES = {
    "in place": lambda module, value: [p.detach().copy_(value) for p in module.parameters()],
    "through .data": lambda module, value: [p.data.copy_(value) for p in module.parameters()],
    "another .data": lambda module, value: [write_data(p, value.expand_as(p)) for p in module.parameters()],
    "a state dict": lambda module, value: module.load_state_dict(
        {name: value.expand_as(p) for name, p in module.state_dict().items()}
    ),
    "a step of an optimizer": lambda module, value: [
        setattr(p, "grad", (p.detach() - value)) or torch.optim.SGD([p], lr=1.0).step()
        for p in module.parameters()
    ],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize(
    "options",
    [
        {"learnable": True}, {"learn_threshold": True}, {"learnable": True, "reset": "subtract", "order": 3},
        {"kernel": "fir", "order": 3}, {"kernel": "fir", "order": 3, "kernel_bits": "pow2"},
        {"kernel": "fir", "order": 3, "reset": "feedback"}, {"kernel": "matrix", "time_steps": 4},
    ],
)  # fmt: skip
def test_a_changed_parameter_counts_from_the_next_call_on(change, options):
    module, x = MFP(0.5, **options), torch.rand(4, 50, 3) * 3
    before = module(x)
    change(module, torch.tensor(0.875))
    fresh = MFP(0.5, **options)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.fill_(0.875)
    for mode in (nullcontext, torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(module(x), fresh(x))
    assert not torch.equal(module(x), before)


def test_a_changed_number_counts_from_the_next_call_on():
    node, x = MFPNode(step_mode="m", v_reset=None), torch.rand(4, 50, 3) * 3
    for tau, threshold in ((2.0, 1.0), (3.0, 1.0), (3.0, 0.5), (2.0, 1.0)):
        node.tau, node.v_threshold = tau, threshold
        fresh = MFPNode(tau, v_threshold=threshold, step_mode="m", v_reset=None)
        spikingjelly.reset_net(node)
        assert torch.equal(node(x), fresh(x)) and torch.equal(node.v, fresh.v)


def test_a_shape_that_was_seen_before_is_checked_all_the_same():
    x, kernel = torch.rand(4, 2, 3), Exponential(0.5)
    state = functional.fire_chunk(x, kernel, reset="zero").state
    functional.fire_chunk(x, kernel, 1.0, state, reset="zero")
    for wrong, error in ((state[:1], ValueError), (state.long(), TypeError), ("rest", TypeError)):
        with pytest.raises(error, match="state must"):
            functional.fire_chunk(x, kernel, 1.0, wrong, reset="zero")
    with pytest.raises(TypeError, match="dense"):
        functional.fire_chunk(x.to_sparse(), kernel, 1.0, reset="zero")
    with pytest.raises(TypeError, match="got True"):
        functional.fire_chunk(x, kernel, True, reset="zero")
    with pytest.raises(ValueError, match="backend"):
        functional.fire_chunk(x, kernel, 1.0, reset="zero", backend="cuda")


@pytest.mark.parametrize("options", NODES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))])
def test_copies_and_other_dtypes_go_their_own_way(options, copied):
    node, x = MFPNode(**options, step_mode="m"), torch.rand(4, 20, 3) * 3
    expected = node(x)
    spikingjelly.reset_net(node)
    double = copied(node).double()
    with torch.no_grad():
        for parameter in double.parameters():
            parameter.zero_()
    assert double(x.double()).dtype == torch.float64
    assert torch.equal(node(x), expected)
