"""What MFPLeaky and MFPLeakyParallel keep between steps: ended by hand, copied, left by inference mode."""

import copy
import pickle
from collections.abc import Callable
from itertools import product

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mfp_neurons import reference, reset_samples
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel, reset
from tests.snntorch.loop import unrolled

STEPS, SAMPLES = 8, 4
FINITE = [{"order": 3}, {"kernel": "fir", "order": 3}, {"order": 2, "stride": 3}]
KERNELS = [{}, *FINITE]
MATRIX = {"kernel": "matrix", "time_steps": STEPS}


def sequence(seed: int = 0) -> Tensor:
    return torch.randn(STEPS, SAMPLES, 3, generator=torch.Generator().manual_seed(seed))


# --- the sequences of some samples end ---


@pytest.mark.parametrize("options", [*KERNELS, {"order": 1}])
@settings(max_examples=20)
@given(
    at=st.integers(1, STEPS - 1),
    ended=st.lists(st.booleans(), min_size=SAMPLES, max_size=SAMPLES),
    as_indices=st.booleans(),
    init_hidden=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_reset_samples_starts_those_anew_and_lets_the_others_go_on(
    options, at, ended, as_indices, init_hidden, seed
):
    x_seq, mask = sequence(seed).double(), torch.tensor(ended)
    neuron = MFPLeaky(0.8, init_hidden=init_hidden, output=True, **options, reset_mechanism="none").double()
    mem, readings = neuron.reset_mem(), []
    for t, x in enumerate(x_seq):
        if t == at:
            mem = neuron.reset_samples(mask.nonzero().flatten() if as_indices else mask)
            assert mem is neuron.mem and not mem[mask].any()
        mem = neuron(x)[1] if init_hidden else neuron(x, mem)[1]
        readings.append(mem)
    forgotten = x_seq.clone()
    forgotten[:at, mask] = 0
    expected = reference.membrane_potential(forgotten, neuron.kernel())
    torch.testing.assert_close(torch.stack(readings)[at:], expected[at:])


@pytest.mark.parametrize("options", KERNELS)
def test_no_gradient_reaches_back_behind_the_end_of_a_sample(options):
    neuron, x_seq = MFPLeaky(0.8, **options, reset_mechanism="none"), sequence().requires_grad_()
    mem = neuron.reset_mem()
    for x in x_seq[:3]:
        _, mem = neuron(x, mem)
    _, mem = neuron(x_seq[3], neuron.reset_samples(torch.tensor([0, -1])))
    mem.sum().backward()
    assert not x_seq.grad[:3, [0, 3]].any() and x_seq.grad[:3, 1:3].any()


@pytest.mark.parametrize("options", KERNELS)
def test_a_nan_of_an_ended_sample_is_gone_and_that_of_another_stays(options):
    neuron, x = MFPLeaky(0.8, **options, reset_mechanism="none"), torch.ones(SAMPLES, 3)
    x[:2] = float("nan")
    neuron(x)
    neuron.reset_samples(torch.tensor([0]))
    _, mem = neuron(torch.ones(SAMPLES, 3))
    assert mem[0].isfinite().all() and mem[2:].isfinite().all()
    assert mem[1].isnan().all() or "stride" in options  # between two taps it is out of reach


@pytest.mark.parametrize(
    "neuron",
    [
        MFPLeaky(0.5, reset_mechanism="none"),
        MFPLeaky(0.5, order=3, reset_mechanism="none"),
        MFPLeakyParallel(0.5, reset_mechanism="none"),
    ],
)
def test_before_the_first_step_there_is_nothing_to_end_and_samples_are_checked_before_and_after(neuron):
    assert neuron.reset_samples(torch.tensor([True])).shape == (0,)
    for _ in range(2):
        mem = neuron.mem
        with pytest.raises(TypeError, match="samples must be a bool mask"):
            neuron.reset_samples([True, False])
        assert neuron.mem is mem
        neuron(torch.ones(SAMPLES, 2))
    with pytest.raises(ValueError, match="samples"):
        neuron.reset_samples(torch.tensor([SAMPLES]))


def test_a_matrix_cannot_start_some_samples_anew():
    neuron, x = MFPLeaky(0.5, **MATRIX, reset_mechanism="none"), torch.ones(2, 3)
    neuron(x)
    with pytest.raises(ValueError, match="one position in time for all samples"):
        neuron.reset_samples(torch.tensor([0]))
    neuron.reset_mem()
    neuron.reset_samples(torch.tensor([0]))
    assert torch.equal(neuron(x)[1], MFPLeaky(0.5, **MATRIX, reset_mechanism="none")(x)[1])


def test_the_samples_of_a_whole_model_are_started_anew_at_once():
    x_seq = sequence()
    net = nn.Sequential(
        MFPLeaky(0.8, order=3, init_hidden=True, reset_mechanism="none"),
        MFPLeaky(0.9, init_hidden=True, output=True, reset_mechanism="none"),
    )
    for x in x_seq[:3]:
        net(x)
    reset_samples(net, torch.tensor([1]))
    _, mem = net(x_seq[3])
    reset(net)
    assert torch.equal(mem[1], net(x_seq[3])[1][1])


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_a_whole_sequence_goes_on_from_a_mem_whose_ended_samples_are_zero(seed):
    x_seq, whole = sequence(seed), MFPLeakyParallel(0.8, reset_mechanism="none")
    whole(x_seq)
    mem = whole.reset_samples(torch.tensor([True, False, False, True]))
    assert mem is whole.mem
    stepwise = MFPLeaky(0.8, reset_mechanism="none")
    unrolled(stepwise, x_seq)
    expected = stepwise(x_seq[0], stepwise.reset_samples(torch.tensor([0, 3])))[1]
    torch.testing.assert_close(whole(x_seq[:1], mem)[1][0], expected)


# --- mem changed by hand ---

ZEROES = {
    "mem.mul_(0)": lambda mem: mem.mul_(0),
    "mem.zero_()": lambda mem: mem.zero_(),
    "mem.detach().zero_()": lambda mem: mem.detach().zero_(),
    "mem * 0": lambda mem: mem * 0,
    "zeros_like(mem)": torch.zeros_like,
}
IN_PLACE = {
    "mem[0] = 0": lambda mem: mem.index_fill_(0, torch.tensor([0]), 0),
    "mem.detach()[0] = 0": lambda mem: mem.detach().index_fill_(0, torch.tensor([0]), 0),
    "mem.add_(1)": lambda mem: mem.add_(1),
    "mem[0] = nan": lambda mem: mem.index_fill_(0, torch.tensor([0]), float("nan")),
}
CHANGES = {
    **IN_PLACE,
    "mem * mask": lambda mem: mem * torch.tensor([[0.0]] + [[1.0]] * (SAMPLES - 1)),
    "mem + 1": lambda mem: mem + 1,
    "mem * nan": lambda mem: mem * float("nan"),
    "mem.flip(0)": lambda mem: mem.flip(0),
}


def handed_over(neuron: nn.Module, x: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    return neuron(x, change(neuron.mem))


def assigned(neuron: nn.Module, x: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    neuron.mem = change(neuron.mem)
    return neuron(x)


def left_inside(neuron: nn.Module, x: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    change(neuron.mem)
    return neuron(x)


@pytest.mark.parametrize("way", [handed_over, assigned])
@pytest.mark.parametrize("change", ZEROES)
@pytest.mark.parametrize("options", [*KERNELS, MATRIX])
def test_a_mem_that_is_all_zero_starts_anew(way, change, options):
    neuron, x_seq = MFPLeaky(0.8, **options, reset_mechanism="none"), sequence()
    with torch.no_grad():
        for x in x_seq[:3]:
            neuron(x)
        _, mem = way(neuron, x_seq[3], ZEROES[change])
    assert torch.equal(mem, MFPLeaky(0.8, **options, reset_mechanism="none")(x_seq[3])[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("way", "change"),
    [*product((handed_over, assigned), CHANGES), *product((left_inside,), IN_PLACE)],
)
def test_a_finite_order_refuses_a_mem_changed_otherwise_and_the_infinite_one_follows_it(mode, way, change):
    x_seq, theirs = sequence(), snn.Leaky(0.8, reset_mechanism="none")
    for options in (*FINITE, MATRIX):
        neuron = MFPLeaky(0.8, **options, reset_mechanism="none")
        with mode():
            neuron(x_seq[0])
            with pytest.raises(ValueError, match=r"mem = neuron.reset_samples\(samples\)"):
                way(neuron, x_seq[1], CHANGES[change])
    results = []
    for neuron in (MFPLeaky(0.8, reset_mechanism="none"), theirs):
        with mode():
            neuron(x_seq[0])
            results.append(way(neuron, x_seq[1], CHANGES[change]))
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("options", FINITE)
def test_a_mem_cut_from_the_graph_by_hand_goes_on(options):
    x_seq = sequence().requires_grad_()
    expected = unrolled(MFPLeaky(0.8, **options, reset_mechanism="none"), x_seq.detach())[1]
    neuron, readings = MFPLeaky(0.8, **options, reset_mechanism="none"), []
    for x in x_seq:
        readings.append(neuron(x)[1].detach())
        neuron.mem = neuron.mem.detach()
    assert torch.equal(torch.stack(readings), expected)
    neuron(x_seq[0])[1].sum().backward()  # nothing of the sequence is left to go through


def test_a_square_mem_transposed_in_place_is_another_mem():
    neuron, x = MFPLeaky(0.8, order=3, reset_mechanism="none"), torch.randn(3, 3)
    _, mem = neuron(x)
    with pytest.raises(ValueError, match="unchanged"):
        neuron(x, mem.t())


def test_a_nan_handed_to_a_neuron_without_memory_is_refused_too():
    neuron, x = MFPLeaky(0.8, order=1, reset_mechanism="none"), torch.ones(2)
    assert torch.equal(neuron(x, torch.rand(2))[1], x)  # no earlier step counts
    with pytest.raises(ValueError, match="mem is neither"):
        neuron(x, torch.tensor([float("nan"), 0.0]))


def test_a_nan_handed_to_a_whole_sequence_comes_out():
    for beta in (0.0, 0.8):
        _, mem = MFPLeakyParallel(beta, reset_mechanism="none")(
            torch.ones(3, 2), torch.tensor([float("nan"), 0.0])
        )
        assert mem[:, 0].isnan().all() and mem[:, 1].isfinite().all()


# --- copies ---


@pytest.mark.parametrize("options", [*KERNELS, MATRIX])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_made_in_the_middle_of_a_sequence_goes_on_from_there_without_the_graph(options, copied):
    net = nn.Sequential(
        nn.Linear(3, 4), MFPLeaky(0.8, init_hidden=True, output=True, **options, reset_mechanism="none")
    )
    x_seq = sequence()
    for x in x_seq[:4]:
        net(x)
    twin = copied(net)
    torch.testing.assert_close(net(x_seq[4]), twin(x_seq[4]), rtol=0, atol=0)
    twin[1].mem.sum().backward()
    assert net[0].weight.grad is None
    torch.testing.assert_close(twin[0].weight.grad, x_seq[4].sum(0).expand(4, 3))  # of this step alone
    for x in x_seq[5:]:
        assert torch.equal(net(x)[1], twin(x)[1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_of_a_changed_mem_is_refused_as_the_original_is(copied):
    neuron = MFPLeaky(0.8, order=3, reset_mechanism="none")
    with torch.no_grad():
        neuron(torch.ones(2, 3))
        before = copied(neuron)
        neuron.mem[0] = 0
        after = copied(neuron)
        before(torch.ones(2, 3))
        for one in (neuron, after):
            with pytest.raises(ValueError, match="mem is neither"):
                one(torch.ones(2, 3))


# --- inference mode, checkpointing ---


@pytest.mark.parametrize("options", [{"learn_beta": True}, {"learn_beta": True, "order": 3}, *FINITE, MATRIX])
def test_what_inference_mode_left_can_be_trained_from(options):
    neuron, plain = (
        MFPLeaky(0.8, init_hidden=True, output=True, **options, reset_mechanism="none") for _ in range(2)
    )
    x_seq = sequence()
    with torch.inference_mode():
        neuron(x_seq[0])
        neuron.reset_mem()
        for x in x_seq[1:3]:
            neuron(x)
        if options != MATRIX:
            neuron.reset_samples(torch.tensor([1]))
    with torch.no_grad():
        for x in x_seq[1:3]:
            plain(x)
        if options != MATRIX:
            plain.reset_samples(torch.tensor([1]))
    results = []
    for one in (neuron, plain):
        x = x_seq[3].clone().requires_grad_()
        _, mem = one(x)
        mem.sum().backward()
        results.append([mem.detach(), x.grad, *(p.grad for p in one.parameters())])
    torch.testing.assert_close(*results)


def test_a_mem_that_inference_mode_left_starts_a_sequence_to_train():
    whole = MFPLeakyParallel(0.8, learn_beta=True, reset_mechanism="none")
    with torch.inference_mode():
        whole(sequence())
    whole(sequence(), whole.mem)[1].sum().backward()
    assert whole.beta.grad.isfinite()


@pytest.mark.parametrize("options", KERNELS)
def test_checkpointed_sequences_have_the_gradients_of_plain_ones(options):
    neuron, layer, x_seq = MFPLeaky(0.8, **options, reset_mechanism="none"), nn.Linear(3, 3), sequence()

    def run(x_seq: Tensor) -> Tensor:
        spk, mem = unrolled(neuron, layer(x_seq))
        snn.Leaky.reset_hidden.__func__(type("Only", (), {"instances": [neuron]}))
        hidden = sum(neuron(x)[0].sum() for x in layer(x_seq))  # a second time, handing nothing over
        return spk.sum() + mem.sum() + hidden

    (expected,) = torch.autograd.grad(run(x_seq), layer.weight)
    (grad,) = torch.autograd.grad(checkpoint(run, x_seq, use_reentrant=False), layer.weight)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("options", KERNELS)
def test_a_checkpointed_step_is_recomputed_from_its_own_mem_or_refused(options):
    neuron, layer, x_seq = MFPLeaky(0.8, **options, reset_mechanism="none"), nn.Linear(3, 3), sequence()

    def loss(step: object) -> Tensor:
        mem, total = neuron.reset_mem(), torch.zeros(())
        for x in x_seq:
            spk, mem = step(x, mem)
            total = total + spk.sum()
        return total

    def step(x: Tensor, mem: Tensor) -> tuple[Tensor, Tensor]:
        return neuron(layer(x), mem)

    (expected,) = torch.autograd.grad(loss(step), layer.weight)
    checkpointed = loss(lambda x, mem: checkpoint(step, x, mem, use_reentrant=False))
    if options:
        with pytest.raises(ValueError, match=r"torch\.utils\.checkpoint goes back to an earlier mem"):
            torch.autograd.grad(checkpointed, layer.weight)
    else:
        torch.testing.assert_close(torch.autograd.grad(checkpointed, layer.weight)[0], expected)


@pytest.mark.parametrize("options", KERNELS)
def test_a_checkpointed_step_of_a_hidden_state_is_refused_where_backward_would_start_from_the_end(options):
    neuron, layer, x_seq = (
        MFPLeaky(0.8, init_hidden=True, **options, reset_mechanism="none"),
        nn.Linear(3, 3),
        sequence(),
    )
    for x in x_seq[:3]:
        spk = checkpoint(lambda x: neuron(layer(x)), x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="from the state that the last step left"):
        spk.sum().backward()
