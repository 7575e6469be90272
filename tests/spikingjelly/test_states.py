"""Steps and sequences, splitting, reset, and the rules that SpikingJelly's tools rely on for a state."""

import copy
import itertools
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import base, functional, neuron, surrogate
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from mfp_neurons import MFPNode, reset_samples
from tests.spikingjelly.common import COPIES, V2, both_modes, only_v2, parametrized

T = 6
KERNELS = {
    "exp": {},
    "if": {"tau": float("inf"), "decay_input": False},
    "learned": {"learnable": True},
    "learned a channel": {"learnable": True, "num_channels": 3},
    "order 1": {"order": 1},
    "order 3": {"order": 3},
    "order 9": {"order": 9},
    "fir": {"kernel": "fir", "order": 3},
    "fir a channel": {"kernel": "fir", "order": 3, "num_channels": 3},
    "pow2": {"kernel": "fir", "order": 4, "kernel_bits": "pow2"},
    "strided": {"kernel": "fir", "order": 3, "stride": 2},
    "4 bits": {"order": 4, "kernel_bits": 4},
    "matrix": {"kernel": "matrix", "time_steps": T},
    "banded matrix": {"kernel": "matrix", "time_steps": T, "order": 2},
    "soft": {"reset": "subtract"},
    "soft, detached, learned": {"reset": "subtract", "detach_reset": True, "learnable": True},
    "hard": {"reset": "zero"},
    "hard to -0.2": {"reset": "zero", "v_reset": -0.2},
    "soft, order 3": {"reset": "subtract", "order": 3, "learnable": True, "num_channels": 3},
    "soft, pow2": {"reset": "subtract", "order": 4, "kernel_bits": "pow2"},
    "soft, order 1": {"reset": "subtract", "order": 1, "reset_order": 2},
    "hard, order 3": {"reset": "zero", "order": 3},
    "hard to -0.2, fir": {"reset": "zero", "v_reset": -0.2, "kernel": "fir", "order": 4},
    "hard, order 1": {"reset": "zero", "order": 1},
    "feedback": {"reset": "feedback", "kernel": "fir", "order": 4, "num_channels": 3},
    "feedback, order 1": {"reset": "feedback", "order": 1, "reset_order": 2},
    "feedback, 4 bits": {"reset": "feedback", "order": 3, "reset_order": 4, "kernel_bits": 4},
}
every_kernel = parametrized(KERNELS)
FINITE = [name for name, options in KERNELS.items() if "order" in options]
MEMORYLESS = ("order 1", "hard, order 1")


def states_of(node):
    return tuple(getattr(node, name) for name in node.neuron_spec().state.all)


def rest_of(node: MFPNode) -> float:
    reset = node.neuron_spec().reset
    return 0.0 if reset is None else reset.rest


def build(options, **more) -> MFPNode:
    node = MFPNode(
        **{
            "tau": 3.0,
            "v_threshold": 0.3,
            "surrogate_function": surrogate.ATan(),
            "reset": None,
            **options,
            **more,
        }
    )
    with torch.no_grad():
        for parameter in node.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return node


def tensors_of(node: MFPNode) -> dict[str, torch.Tensor]:
    return dict(zip(node.neuron_spec().state.all, states_of(node), strict=True))


def some_input(step_mode: str) -> torch.Tensor:
    return torch.randn(T, 2, 3) if step_mode == "m" else torch.randn(2, 3)


def run_in_pieces(node: MFPNode, x_seq: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    node.step_mode = "m"
    edges = [0, *cuts, len(x_seq)]
    return torch.cat([node(x_seq[a:b]) for a, b in itertools.pairwise(edges)])


@every_kernel
def test_a_sequence_is_its_steps(options):
    x_seq = torch.randn(2, T, 3, 4).transpose(0, 1)
    before = x_seq.clone()
    by_step, at_once = build(options, store_v_seq=True), build(options, store_v_seq=True, step_mode="m")
    spikes = torch.stack([by_step(x) for x in x_seq])
    assert torch.equal(at_once(x_seq), spikes)
    assert torch.allclose(at_once.v_seq, by_step.v_seq, atol=1e-6)
    assert tensors_of(at_once).keys() == tensors_of(by_step).keys()
    for name, value in tensors_of(at_once).items():
        assert torch.allclose(value, tensors_of(by_step)[name], atol=1e-6), name
    assert torch.equal(x_seq, before) and x_seq._version == 0


@settings(max_examples=10)
@pytest.mark.parametrize("name", KERNELS)
@given(cuts=st.sets(st.integers(1, T - 1)).map(sorted), seed=st.integers(0, 2**16))
def test_however_a_sequence_is_cut_spikes_states_and_gradients_are_the_wholes(name, cuts, seed):
    x_seq = torch.randn(T, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weight = torch.randn(T, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    results = []
    for pieces in ([], cuts):
        node, x = build(KERNELS[name]).double(), x_seq.clone().requires_grad_()
        spikes = run_in_pieces(node, x, pieces)
        ((spikes * weight).sum() + node.v.square().sum()).backward()
        results.append([spikes, *tensors_of(node).values(), x.grad, *(p.grad for p in node.parameters())])
    for whole, cut in zip(*results, strict=True):
        assert torch.allclose(whole, cut, atol=1e-10)


@every_kernel
@both_modes
def test_reset_makes_a_fresh_neuron_and_leaves_the_backward_pass_before_it_alone(options, step_mode):
    x = some_input(step_mode).requires_grad_()
    node = build(options, step_mode=step_mode)
    parameters = copy.deepcopy(dict(node.named_parameters()))
    results = []
    for reset_first in (True, False):
        spikes = node(x)
        loss = spikes.square().sum() + node.v.sum()
        if reset_first:  # as the stages of a pipeline do; twice does no harm
            functional.reset_net(node)
            node.reset()
            assert node.v == rest_of(node) and not isinstance(node.v, torch.Tensor)
            assert all(not isinstance(value, torch.Tensor) for value in states_of(node))
        results.append([spikes, torch.autograd.grad(loss, x)[0]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    for name, value in node.named_parameters():
        assert torch.equal(value, parameters[name])


@every_kernel
@both_modes
def test_a_new_batch_size_starts_from_zero(options, step_mode):
    small, large = (torch.randn(T - 1, 2, 3), torch.randn(T - 1, 5, 3))
    if step_mode == "s":
        small, large = small[0], large[0]
    used, fresh = build(options, step_mode=step_mode), build(options, step_mode=step_mode)
    used(small)
    assert torch.equal(used(large), fresh(large))
    for name, value in tensors_of(used).items():
        assert torch.equal(value, tensors_of(fresh)[name])


@every_kernel
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 2, 2)])
@both_modes
def test_states_are_tensors_of_their_own_and_can_be_detached(options, shape, step_mode):
    if options.get("num_channels") and len(shape) < 2:
        pytest.skip("channels need a batch and a channel dimension")
    node = build(options, step_mode=step_mode, store_v_seq=True)
    x = torch.randn((T - 1, *shape) if step_mode == "m" else shape, requires_grad=True)
    spikes = node(x)
    assert spikes.shape == x.shape
    assert node.v.shape == shape and node.v_seq.shape == (len(x) if step_mode == "m" else 1, *shape)
    memories = [value for value in node.memories() if value is not None]
    assert all(isinstance(value, torch.Tensor) and value.requires_grad for value in memories)
    assert not any(value._is_view() for value in memories)
    pointers = [value.untyped_storage().data_ptr() for value in memories if value.numel()]
    assert len(pointers) == len(set(pointers))
    functional.detach_net(node)  # in place: raises on a view
    assert not any(value.requires_grad for value in node.memories() if value is not None)
    assert not node.v_seq.requires_grad
    copy.deepcopy(node._memories)  # private to SpikingJelly, whose online learners do this
    spikes.sum().backward()  # a detached state is not part of this graph
    assert x.grad is not None


@every_kernel
def test_the_names_of_the_memories_never_change(options):
    node = build(options)
    names = [name for name, _ in node.named_memories()]
    assert names == list(node.neuron_spec().state.all)
    assert set(names[1:]) <= {"history", "last_spikes"} and names[0] == "v"
    node.store_v_seq = True
    for node.step_mode, shape in (("s", (2, 3)), ("m", (1, 2, 3))):
        node(torch.randn(shape))
    if V2:
        assert [name for name, _ in node.named_memories()] == names
    else:
        assert [name for name, _ in node.named_memories()] == [*names, "v_seq"]


@both_modes
def test_v_seq_is_kept_while_asked_for_and_cleared_by_reset(step_mode):
    node = MFPNode(step_mode=step_mode, store_v_seq=True, reset=None)
    x = some_input(step_mode)
    steps = T if step_mode == "m" else 1
    node(x)
    assert node.v_seq.shape == (steps, 2, 3)
    node(x)
    assert node.v_seq.shape == (T if step_mode == "m" else 2, 2, 3)  # single steps are appended
    node(torch.cat([x, x], -2))
    assert node.v_seq.shape == (steps, 4, 3)  # until the shape changes
    functional.reset_net(node)
    assert node.v_seq is None
    node(x)
    node.store_v_seq = False
    assert node.v_seq is None
    node(x)
    assert node.v_seq is None
    node.store_v_seq = True
    node(x)
    assert node.v_seq is not None


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_spikes_have_the_inputs_dtype_and_potentials_are_float32_or_wider(options, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(T, 2, 3).to(dtype)
    node = build(options, step_mode="m", store_v_seq=True)
    spikes = node(x.requires_grad_())
    assert spikes.dtype == dtype and set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert node.v.dtype == node.v_seq.dtype == wide
    exact = build(options, step_mode="m", store_v_seq=True)
    exact(x.detach().double())
    assert torch.allclose(node.v_seq.double(), exact.v_seq, atol=1e-5 if wide == torch.float32 else 1e-12)
    spikes.sum().backward()
    assert x.grad.dtype == dtype


@every_kernel
@both_modes
def test_counts_are_taken_as_the_numbers_they_are(options, step_mode):
    x = torch.randint(0, 3, (2, T // 2, 2, 3) if step_mode == "m" else (2, 2, 3))
    node, other = build(options, step_mode=step_mode), build(options, step_mode=step_mode)
    for part in x:  # from rest and from a state
        assert torch.equal(node(part), other(part.float()))
    for name, value in tensors_of(node).items():
        assert torch.equal(value, tensors_of(other)[name]) and value.dtype == torch.float32


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (torch.zeros(T, 2, dtype=torch.complex64), TypeError, "x_seq"),
        (torch.zeros(0, 2, 3), ValueError, r"\[T, N, \*\]"),
        (torch.zeros(()), ValueError, r"\[T, N, \*\]"),
        (torch.ones(2, 2, 4), ValueError, "channels"),
    ],
    ids=["complex", "no steps", "no time", "channels"],
)
def test_an_input_that_does_not_fit_is_refused_and_nothing_changes(bad, error, words):
    node = MFPNode(step_mode="m", learnable=True, num_channels=3, reset=None)
    node(torch.ones(1, 2, 3))
    before = node.v
    with pytest.raises(error, match=words):
        node(bad)
    assert node.v is before


def test_an_empty_batch_gives_an_empty_batch():
    for options in KERNELS.values():
        node = build(options, step_mode="m")
        assert node(torch.zeros(T, 0, 3)).shape == (T, 0, 3) and node.v.shape == (0, 3)


def test_a_matrix_refuses_to_run_past_its_end_until_it_is_reset():
    node = MFPNode(kernel="matrix", time_steps=3, reset=None)
    for _ in range(3):
        node(torch.ones(2, 3))
    before = node.history
    with pytest.raises(ValueError, match="matrix"):
        node(torch.ones(2, 3))
    assert node.history is before
    node.reset()
    node(torch.ones(2, 3))


def test_keyword_calls_work_as_on_lifnode():
    node = MFPNode(reset=None)
    assert node.single_step_forward(x=torch.ones(2)).shape == (2,)
    node.reset()
    assert node.multi_step_forward(x_seq=torch.ones(3, 2)).shape == (3, 2)


@every_kernel
@both_modes
def test_states_move_with_the_module_and_follow_the_input(options, step_mode):
    node = build(options, step_mode=step_mode)
    x = torch.randn(1, 2, 3) if step_mode == "m" else torch.randn(2, 3)

    def dtypes():
        return {value.dtype for value in states_of(node)}

    node(x)
    node.to(torch.float64)
    assert dtypes() == {torch.float64}
    assert node(x).dtype == torch.float32 and dtypes() == {torch.float32}
    node(x.double())
    assert dtypes() == {torch.float64}
    if not list(node.parameters()):  # which stay where they are
        node(x.to("meta"))
        assert all(value.is_meta for value in states_of(node))


@every_kernel
@both_modes
def test_functional_forward_is_pure_and_stands_behind_the_regular_one(options, step_mode):
    node = build(options, step_mode=step_mode, store_v_seq=True)
    x = torch.randn(T - 2, 2, 3) if step_mode == "m" else torch.randn(2, 3)
    node(x if step_mode == "s" else x[:1])
    node.detach()
    states = states_of(node)
    before = [state.clone() for state in states]
    node.v_seq = None
    step = node.single_step_functional_forward if step_mode == "s" else node.multi_step_functional_forward
    outputs, new = step((x,), node.materialize_states((x,), states, step_mode))
    assert isinstance(outputs, tuple) and isinstance(new, tuple) and len(new) == len(states)
    assert all(a is b for a, b in zip(states_of(node), states, strict=True)) and node.v_seq is None
    assert all(torch.equal(a, b) for a, b in zip(states, before, strict=True))
    assert torch.equal(node(x), outputs[0])
    assert all(torch.equal(a, b) for a, b in zip(states_of(node), new, strict=True))


@both_modes
def test_gradients_reach_the_initial_state(step_mode):
    node = MFPNode(step_mode=step_mode, surrogate_function=surrogate.ATan(), reset=None)
    node.v = v = torch.zeros(2, 3, requires_grad=True)
    node(torch.ones(2, 3) if step_mode == "s" else torch.ones(T, 2, 3)).sum().backward()
    assert v.grad is not None and bool(v.grad.all())


@every_kernel
def test_materialize_states_is_pure_and_takes_raw_reset_values(options):
    node = build(options)
    raw = states_of(node)
    x_seq = torch.randn(T, 2, 3)
    by_step = node.materialize_states((x_seq[0],), raw, "s")
    by_sequence = node.materialize_states((x_seq,), raw, "m")
    assert states_of(node) == raw
    for a, b in zip(by_step, by_sequence, strict=True):
        assert a.shape == b.shape and not a.requires_grad
        assert bool((a == (rest_of(node) if a is by_step[0] else 0)).all())
    assert by_step[0].shape == (2, 3)
    again = node.materialize_states((x_seq,), by_sequence, "m")
    assert all(a is b for a, b in zip(again, by_sequence, strict=True))


@only_v2
@every_kernel
@both_modes
def test_to_functional_forward_takes_states_in_and_gives_them_out(options, step_mode):
    node = build(options, step_mode=step_mode)
    x = torch.randn(2, 2, 3) if step_mode == "m" else torch.randn(2, 3)
    twin = copy.deepcopy(node)
    forward = base.to_functional_forward(node)
    (one,), states = forward((x,), tuple(base.extract_memories(node)))
    (two,), _ = forward((x,), states)
    assert node.v == rest_of(node)
    assert torch.equal(one, twin(x)) and torch.equal(two, twin(x))


@only_v2
def test_to_functional_forward_composes_a_network_and_restores_it_after_an_error():
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 3), MFPNode(order=2, reset=None), torch.nn.Linear(3, 3), MFPNode(reset=None)
    )
    twin = copy.deepcopy(net)
    x = torch.randn(2, 3)
    memories = tuple(base.extract_memories(net))
    assert memories == (0.0, 0.0, 0.0)
    (out,), states = base.to_functional_forward(net)((x,), memories)
    assert torch.equal(out, twin(x)) and len(states) == 3
    assert tuple(base.extract_memories(net)) == memories
    with pytest.raises(ValueError):
        base.to_functional_forward(net)((x,), memories[:1])
    nested = torch.nn.ModuleDict({"inner": net})
    nested.forward = lambda x: net(x)
    with pytest.raises(RuntimeError):
        base.to_functional_forward(nested)((torch.randn(2, 7),), memories)
    assert tuple(base.extract_memories(net)) == memories


def test_a_forgotten_reset_says_what_was_forgotten():
    net = torch.nn.Sequential(torch.nn.Linear(7, 3), MFPNode(step_mode="m", reset=None))
    x = torch.randn(T, 2, 7)
    net(x).sum().backward()
    with pytest.raises(RuntimeError, match=r"still holds the state .* functional\.reset_net\(net\)"):
        net(x).sum().backward()
    functional.reset_net(net)
    net(x).sum().backward()


# --- some samples start anew ------------------------------------------------------------------------------

# a matrix has one position in time for all samples
PER_SAMPLE = {name: options for name, options in KERNELS.items() if options.get("kernel") != "matrix"}
per_sample_kernel = parametrized(PER_SAMPLE)
SAMPLES = {
    "mask": torch.tensor([True, False, True]),
    "indices": torch.tensor([0, 2]),
    "negative indices": torch.tensor([0, -1]),
}


@per_sample_kernel
@both_modes
@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES.keys())
def test_samples_that_are_reset_start_anew_and_the_others_go_on(options, step_mode, samples):
    x = torch.randn(2 * T, 3, 3, dtype=torch.float64)
    node, fresh, on = (build(options, step_mode=step_mode, store_v_seq=True).double() for _ in range(3))

    def run(which, x):
        which.v_seq = None
        _ = which(x) if step_mode == "m" else [which(step) for step in x]
        return which.v_seq

    run(node, x[:T]), run(on, x[:T])
    reset_samples(nn.Sequential(nn.Linear(3, 3), nn.Sequential(node)), samples)
    mixed, anew, going_on = run(node, x[T:]), run(fresh, x[T:]), run(on, x[T:])
    torch.testing.assert_close(mixed[:, [0, 2]], anew[:, [0, 2]])
    torch.testing.assert_close(mixed[:, [1]], going_on[:, [1]])


@per_sample_kernel
def test_resetting_samples_cuts_their_gradient_alone_and_leaves_the_graph_usable(options):
    node = build(options, step_mode="m").double()
    x = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    first = node(x)
    before = [value.clone() for value in tensors_of(node).values()]
    kept = list(tensors_of(node).values())
    reset_samples(node, torch.tensor([True, False, False]))
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))  # not in place
    assert node.v[0].eq(rest_of(node)).all()
    node(torch.zeros_like(x))
    if options.get("order") != 1:
        (grad,) = torch.autograd.grad(node.v.sum(), x, retain_graph=True)
        assert not grad[:, 0].any() and grad[-1, 1:].any()
    first.sum().backward()
    functional.detach_net(node)


def test_reset_samples_says_what_it_cannot_do():
    node = MFPNode(order=3, reset=None)
    reset_samples(node, torch.tensor([True]))  # at rest there is nothing to reset
    node(torch.ones(3, 2))
    before = node.history
    for wrong in (torch.tensor([1.0]), [0], torch.tensor([[True]]), 0):
        with pytest.raises(TypeError, match="samples must be a bool mask"):
            reset_samples(node, wrong)
    with pytest.raises(ValueError, match="a mask of the 3 samples of a state, got 2"):
        reset_samples(node, torch.tensor([True, False]))
    for outside in (3, -4):
        with pytest.raises(ValueError, match="samples must be from -3 to 2"):
            reset_samples(node, torch.tensor([outside]))
    assert node.history is before
    lone = MFPNode(reset=None)
    lone(torch.tensor(1.0))
    with pytest.raises(ValueError, match="single number"):
        reset_samples(lone, torch.tensor([0]))
    matrix = MFPNode(kernel="matrix", time_steps=3, reset=None)
    matrix(torch.ones(3, 2))
    with pytest.raises(ValueError, match="one position in time"):
        reset_samples(matrix, torch.tensor([0]))
    both = nn.Sequential(node, neuron.LIFNode())
    both(torch.ones(3, 2))
    with pytest.raises(ValueError, match="does not know the states of '1'"):
        reset_samples(both, torch.tensor([0]))


# --- a potential that somebody changed --------------------------------------------------------------------

CHANGES = {
    "one sample, in place": lambda node: node.v[0].zero_(),
    "all, in place": lambda node: node.v.add_(1.0),
    "by a mask": lambda node: setattr(node, "v", node.v * torch.tensor([[0.0], [1.0]])),
    "another potential": lambda node: setattr(node, "v", torch.full_like(node.v, 0.5)),
    "fewer samples": lambda node: setattr(node, "v", node.v[1:]),
    "a number": lambda node: setattr(node, "v", 0.5),
}
ZEROS = {
    "zero": lambda node: setattr(node, "v", rest_of(node)),
    "zeros": lambda node: setattr(node, "v", torch.full_like(node.v, rest_of(node))),
    "zeros in place": lambda node: node.v.fill_(rest_of(node)),
}
remembers = pytest.mark.parametrize("name", [name for name in FINITE if name not in MEMORYLESS] + ["matrix"])


@remembers
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_finite_kernel_refuses_a_potential_that_was_changed_by_hand(name, mode, change):
    node = build(KERNELS[name])
    with mode():
        node(torch.randn(2, 3))
        change(node)
        samples = len(node.v) if isinstance(node.v, torch.Tensor) else 2
        with pytest.raises(ValueError, match=r"v was changed by hand.*mfp_neurons\.reset_samples"):
            node(torch.randn(samples, 3))
        node.reset()
        node(torch.randn(2, 3))


@every_kernel
@pytest.mark.parametrize("zero", ZEROS.values(), ids=ZEROS.keys())
def test_a_potential_that_is_at_rest_everywhere_starts_every_kernel_anew(options, zero):
    node, fresh = build(options), build(options)
    x = torch.randn(2, 2, 3)
    with torch.no_grad():
        node(x[0])
        zero(node)
        assert torch.equal(node(x[1]), fresh(x[1])) and torch.equal(node.v, fresh.v)


LEGITIMATE = {  # SpikingJelly's own tools replace _memories
    "detached": lambda node: node.detach(),
    "detached by hand": lambda node: setattr(node, "v", node.v.detach()),
    "detached in place": lambda node: node.v.detach_(),
    "moved": lambda node: node.double().float(),
    "copied": lambda node: node.__dict__.update(copy.deepcopy(node).__dict__),
    "memories replaced": lambda node: setattr(node, "_memories", copy.deepcopy(node)._memories),
    "some samples reset": lambda node: reset_samples(node, torch.tensor([], dtype=torch.long)),
}
DETACHING = list(LEGITIMATE.values())[:3]
if V2:
    LEGITIMATE["memories loaded"] = lambda node: base.load_memories(
        node, [value.clone() for value in base.extract_memories(node)]
    )


@every_kernel
@pytest.mark.parametrize("change", LEGITIMATE.values(), ids=LEGITIMATE.keys())
def test_what_replaces_a_state_by_an_equal_one_changes_nothing(options, change):
    if change is LEGITIMATE["some samples reset"] and options.get("kernel") == "matrix":
        pytest.skip("a matrix kernel resets no samples")
    node, other = build(options), build(options)
    x = torch.randn(3, 2, 3, requires_grad=True)
    node(x[0]), other(x[0])
    change(node)
    assert torch.equal(node(x[1]), other(x[1])) and torch.allclose(node.v, other.v)
    if change in DETACHING:
        (grad,) = torch.autograd.grad(node.v.sum(), x)
        assert not grad[0].any()


def test_a_reset_lets_go_of_the_graph():
    node = MFPNode(order=3, reset=None)
    node(torch.ones(2, 3, requires_grad=True))
    v = weakref.ref(node.v)
    node.reset()
    assert v() is None


# --- modes, copies, recomputation -------------------------------------------------------------------------


@every_kernel
@both_modes
def test_a_state_left_by_inference_mode_can_be_trained_from(options, step_mode):
    x = torch.randn(2, 2, 2, 3) if step_mode == "m" else torch.randn(2, 2, 3)
    results = []
    for mode in (torch.inference_mode, torch.no_grad):
        node, leaf = build(options, step_mode=step_mode), x[1].clone().requires_grad_()
        with mode():
            node(x[0])
        spikes = node(leaf)
        spikes.sum().backward()
        results.append([spikes, leaf.grad, *(p.grad for p in node.parameters())])
    torch.testing.assert_close(*results, rtol=0, atol=0)


@every_kernel
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
def test_a_copy_made_between_two_steps_goes_on_from_the_same_state(options, copied):
    net = nn.Sequential(nn.Linear(3, 3), build(options, store_v_seq=True))
    x = torch.randn(3, 2, 3)
    net(x[0])
    other = copied(net)
    assert repr(other) == repr(net)
    assert not any(value.requires_grad for value in tensors_of(other[1]).values())
    for step in x[1:]:
        assert torch.equal(other(step), net(step))
    assert torch.equal(other[1].v_seq, net[1].v_seq)
    net[1].v.sum().backward()  # the original is still in its graph
    with torch.no_grad():
        other[1].v.add_(1.0)
    assert not torch.equal(other[1].v, net[1].v)


@every_kernel
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("reset_first", [True, False])
@both_modes
def test_recomputing_a_call_that_started_from_rest_gives_its_gradients(
    options, reentrant, reset_first, step_mode
):
    x = some_input(step_mode)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 3), build(options, step_mode=step_mode))
        for _ in range(2):
            leaf = x.clone().requires_grad_()
            out = checkpoint(net, leaf, use_reentrant=reentrant) if recompute else net(leaf)
            v = net[1].v
            if reset_first:
                functional.reset_net(net)
            (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
            assert net[1].v is v or reset_first  # the state does not move on twice
            functional.reset_net(net)
        gradients.append([leaf.grad, *(p.grad for p in net.parameters())])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("options", [{}, {"order": 3}, {"kernel": "matrix", "time_steps": T}], ids=str)
def test_recomputing_a_call_whose_first_state_is_gone_is_an_error(options, reentrant):
    net = nn.Sequential(nn.Linear(3, 3), build(options, step_mode="m"))
    x = torch.randn(T, 2, 3, requires_grad=True)
    outs = [checkpoint(net, part, use_reentrant=reentrant) for part in x.split(2)]
    with pytest.raises(RuntimeError) as caught:
        sum(out.sum() for out in outs).backward()
    error = caught.value.__cause__ or caught.value  # an operator that wants what it saved may pass it on
    assert "has been called 3 times since its state was at rest" in str(error)


@every_kernel
@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputing_a_function_that_resets_first_may_take_many_steps(options, reentrant):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        linear, node = nn.Linear(3, 3), build(options)

        def run(x_seq, linear=linear, node=node):
            node.reset()
            return torch.stack([node(linear(x)) for x in x_seq])

        x_seq = torch.linspace(-1, 2, T * 6).reshape(T, 2, 3).requires_grad_()
        parts = [checkpoint(run, x_seq, use_reentrant=reentrant) if recompute else run(x_seq) for _ in "ab"]
        (torch.cat(parts) * torch.linspace(-1, 1, 12 * T).reshape(2 * T, 2, 3)).sum().backward()
        gradients.append([x_seq.grad, *(p.grad for p in (*linear.parameters(), *node.parameters()))])
    torch.testing.assert_close(*gradients)


def test_a_neuron_without_a_state_is_recomputed_in_any_order():
    node = build({"order": 1})
    x = torch.randn(T, 2, 3, requires_grad=True)
    torch.stack([checkpoint(node, step, use_reentrant=False) for step in x]).sum().backward()
    grad, x.grad = x.grad, None
    node.reset()
    torch.stack([node(step) for step in x]).sum().backward()
    assert torch.equal(grad, x.grad)


@every_kernel
def test_the_first_call_of_a_sequence_saves_no_state(options):
    x = torch.randn(T, 50, 3, requires_grad=True)
    node, sizes = build(options, step_mode="m"), {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        node(x)
    assert sum(sizes.values()) <= x.nbytes + 2000


def test_an_order_that_a_sequence_does_not_exceed_computes_what_no_order_does():
    x = torch.randn(T, 2, 3)
    nodes = [
        MFPNode(step_mode="m", store_v_seq=True, **options, reset=None)
        for options in ({}, {"order": T}, {"order": 9})
    ]
    for node in nodes:
        node(x)
    assert all(torch.equal(node.v_seq, nodes[0].v_seq) for node in nodes)


@pytest.mark.parametrize("order", [1, 2, 3, T + 1])
def test_the_next_state_copies_the_inputs_that_it_keeps_and_no_others(order):
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.cat.default, torch.ops.aten.clone.default):
                self.size = max(self.size, len(out))
            return out

    node = MFPNode(kernel="fir", order=order, step_mode="m", reset=None)
    x = torch.randn(T, 2, 3)
    for _ in range(2):
        with Largest() as largest, torch.no_grad():
            node(x)
        assert largest.size == order - 1 == len(getattr(node, "history", ()))


@pytest.mark.parametrize("options", [{}, {"order": 3}], ids=str)
def test_counts_keep_the_state_that_torchs_default_dtype_asks_for(options):
    counts = torch.randint(0, 9, (6, 2, 3))
    torch.set_default_dtype(torch.float64)
    try:
        ours, theirs = (
            MFPNode(tau=3.0, v_threshold=50.0, step_mode="m", **options, reset=None) for _ in range(2)
        )
        for part in (counts[:3], counts[3:]):
            assert torch.equal(ours(part), theirs(part.double()))
        assert torch.equal(ours.v, theirs.v) and ours.v.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
