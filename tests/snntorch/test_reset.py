"""The resets of MFPLeaky and MFPLeakyParallel against snn.Leaky, and against loops in float64."""

import copy
import math
import pickle
from itertools import product

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snntorch import surrogate as snn_surrogate
from snntorch.functional import quant
from torch import Tensor, nn

from mfp_neurons import reset_samples
from mfp_neurons.adapters import describe_neuron
from mfp_neurons.history import quantize_taps
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel, detach, reset
from tests.snntorch.loop import unrolled

STEPS = 10
MECHANISMS = ["subtract", "zero", "none"]
RESETS = list(product(MECHANISMS, [True, False]))
FINITE_RESETS = [("subtract", True), ("zero", True), ("zero", False)]
by_reset = pytest.mark.parametrize(("mechanism", "delay"), RESETS)
by_finite_reset = pytest.mark.parametrize(("mechanism", "delay"), FINITE_RESETS)
seeds = st.integers(0, 2**31)


def inputs(seed: int, *shape: int, scale: float = 1.0, double: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    return scale * torch.randn(STEPS, *shape, generator=generator, dtype=dtype) + 0.3 * scale


def dyadic(seed: int, *shape: int) -> Tensor:
    """Numbers whose sums with beta = 0.5 do not round, and meet the threshold often."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 13, (STEPS, *shape), generator=generator).double() / 4


def assert_same_run(ours: nn.Module, theirs: nn.Module, x_seq: Tensor) -> None:
    for a, b in zip(unrolled(ours, x_seq), unrolled(theirs, x_seq), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def gradients(neuron: nn.Module, run: object, x_seq: Tensor) -> list[Tensor]:
    """Of a loss in every spike and every potential, in the input and in each parameter."""
    x = x_seq.clone().requires_grad_()
    spk, mem = run(neuron, x)
    weight = torch.linspace(-1, 2, spk.numel(), dtype=torch.float64).reshape(spk.shape)
    ((spk + 0.3 * mem) * weight).sum().backward()
    return [spk.detach(), mem.detach(), x.grad, *(parameter.grad for parameter in neuron.parameters())]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Close in float32, in which snnTorch's spikes and gradients through them are, whatever the input."""
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6, check_dtype=False)


def truncated(
    x_seq: Tensor, beta: Tensor, threshold: Tensor, order: int, mechanism: str, delay: bool, own_order: int
) -> tuple[Tensor, Tensor]:
    """The sums over the last inputs and the last own spikes, term by term."""
    spikes, own, readings = [], [], []
    for t in range(len(x_seq)):
        u, silent = torch.zeros_like(x_seq[0]), torch.ones_like(x_seq[0])
        for j in range(min(t + 1, order)):
            u = u + beta**j * silent * x_seq[t - j]
            if mechanism == "zero" and j < t:
                silent = silent * (1 - own[t - 1 - j])
        if mechanism == "subtract":
            for j in range(1, min(t, own_order) + 1):
                u = u - threshold * beta ** (j - 1) * own[t - j]
        fired = snn_surrogate.atan()(u - threshold).to(u)
        spikes.append(fired)
        own.append(fired.detach() if delay else fired)
        readings.append(u if delay or mechanism != "zero" else u - fired * u)
    return torch.stack(spikes), torch.stack(readings)


# --- MFPLeaky without an order is snn.Leaky, bit for bit ---


@by_reset
@settings(max_examples=25)
@given(
    beta=st.floats(-0.5, 1.5),
    threshold=st.floats(-1, 2),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=seeds,
    double=st.booleans(),
)
def test_spikes_and_potentials_are_those_of_leaky_bit_for_bit(
    mechanism, delay, beta, threshold, shape, seed, double
):
    options = {"threshold": threshold, "reset_mechanism": mechanism, "reset_delay": delay}
    x_seq = inputs(seed, *shape, double=double)
    assert_same_run(MFPLeaky(beta, **options), snn.Leaky(beta, **options), x_seq)


@by_reset
@settings(max_examples=25)
@given(seed=seeds, quarters=st.integers(1, 8))
def test_ties_too(mechanism, delay, seed, quarters):
    options = {"threshold": quarters / 4, "reset_mechanism": mechanism, "reset_delay": delay}
    assert_same_run(MFPLeaky(0.5, **options), snn.Leaky(0.5, **options), dyadic(seed, 16).float())


@by_reset
@settings(max_examples=15)
@given(seed=seeds)
def test_gradients_are_those_of_leaky(mechanism, delay, seed):
    options = {
        "reset_mechanism": mechanism,
        "reset_delay": delay,
        "learn_beta": True,
        "learn_threshold": True,
        "graded_spikes_factor": 1.5,
        "learn_graded_spikes_factor": True,
    }
    x_seq = inputs(seed, 3, 4)
    ours, theirs = (gradients(make(0.8, **options), unrolled, x_seq) for make in (MFPLeaky, snn.Leaky))
    assert_close(ours, theirs)


@by_reset
@pytest.mark.parametrize(
    "options",
    [
        {"init_hidden": True, "output": True},
        {"inhibition": True},
        {"inhibition": True, "graded_spikes_factor": 2.0},
        {"graded_spikes_factor": torch.tensor([0.5, 2.0, 1.0, 3.0, 1.0])},
        {"surrogate_disable": True},
        {"spike_grad": lambda x: torch.sigmoid(4 * x)},
        {"state_quant": quant.state_quant(num_bits=3, threshold=1.0)},
        {"beta": torch.rand(5), "threshold": torch.rand(5) + 0.2},
        {"beta": torch.rand(3, 5), "threshold": torch.rand(3, 1) + 0.2},
    ],
)
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_every_option_does_what_it_does_in_leaky(mechanism, delay, options):
    options = {"beta": 0.9, "reset_mechanism": mechanism, "reset_delay": delay, **options}
    ours, theirs = MFPLeaky(**options), snn.Leaky(**options)
    for x in inputs(0, 3, 5):
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
        torch.testing.assert_close(ours.mem, theirs.mem, rtol=0, atol=0)


@by_reset
@settings(max_examples=15)
@given(seed=seeds)
def test_any_mem_may_be_handed_over_by_hand(mechanism, delay, seed):
    options = {"reset_mechanism": mechanism, "reset_delay": delay}
    ours, theirs = MFPLeaky(0.7, **options), snn.Leaky(0.7, **options)
    for x, mem in zip(inputs(seed, 5), inputs(seed + 1, 5, scale=2.0), strict=True):
        torch.testing.assert_close(ours(x, mem.clone()), theirs(x, mem.clone()), rtol=0, atol=0)


# --- a finite order ---


@by_finite_reset
@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
@settings(max_examples=15)
@given(seed=seeds, quarters=st.integers(1, 8), spare=st.integers(0, 3))
def test_a_finite_order_is_leaky_for_as_many_steps_ties_included(
    make, mechanism, delay, seed, quarters, spare
):
    options = {"threshold": quarters / 4, "reset_mechanism": mechanism, "reset_delay": delay}
    ours, theirs = make(0.5, order=STEPS + spare, **options).double(), snn.Leaky(0.5, **options).double()
    run = unrolled if make is MFPLeaky else nn.Module.__call__
    for a, b in zip(run(ours, x_seq := dyadic(seed, 2, 8)), unrolled(theirs, x_seq), strict=True):
        assert torch.equal(a, b)


@by_finite_reset
@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
@settings(max_examples=15)
@given(seed=seeds)
def test_its_gradients_are_leakys_for_as_many_steps(make, mechanism, delay, seed):
    options = {
        "reset_mechanism": mechanism,
        "reset_delay": delay,
        "learn_beta": True,
        "learn_threshold": True,
    }
    x_seq = inputs(seed, 2, 4, double=True)
    run = unrolled if make is MFPLeaky else nn.Module.__call__
    ours = gradients(make(0.8, order=STEPS, **options).double(), run, x_seq)
    theirs = gradients(snn.Leaky(0.8, **options).double(), unrolled, x_seq)
    assert_close(ours, theirs)


@by_finite_reset
@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
@settings(max_examples=15)
@given(seed=seeds, order=st.integers(1, STEPS - 1), own_order=st.none() | st.integers(1, STEPS + 1))
def test_beyond_its_order_it_is_the_truncated_sum_with_its_gradients(
    make, mechanism, delay, seed, order, own_order
):
    own_order = own_order if mechanism == "subtract" else None
    options = {"reset_mechanism": mechanism, "reset_delay": delay, "reset_order": own_order}
    neuron = make(0.8, threshold=0.7, order=order, learn_beta=True, learn_threshold=True, **options).double()
    x_seq = inputs(seed, 2, 4, double=True)

    def definition(neuron: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        reach = order - 1 if own_order is None else own_order
        return truncated(x, neuron.beta, neuron.threshold, order, mechanism, delay, reach)

    expected = gradients(copy.deepcopy(neuron), definition, x_seq)
    assert_close(gradients(neuron, unrolled if make is MFPLeaky else nn.Module.__call__, x_seq), expected)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1), (3, 5, 4, 4), (4,), (1,)])
@pytest.mark.parametrize(
    "options", [{}, {"order": 4}, {"order": 3, "stride": 2}, {"order": 4, "kernel_bits": 4}]
)
@by_finite_reset
def test_beta_and_threshold_may_be_any_tensor_that_broadcasts(mechanism, delay, options, shape):
    beta, threshold = torch.rand(shape).double(), torch.rand(shape).double() + 0.3
    x_seq = torch.randn(STEPS, 3, 5, 4, 4).double() + 0.3
    if shape == (5,):
        x_seq = x_seq[..., 0, 0]
    results = []
    given_both = {"reset_mechanism": mechanism, "reset_delay": delay, **options}
    for make, run in ((MFPLeaky, unrolled), (MFPLeakyParallel, nn.Module.__call__)):
        results.append(run(make(beta, threshold, **given_both).double(), x_seq))
    torch.testing.assert_close(*results)
    if not options:
        theirs = snn.Leaky(beta, threshold, reset_mechanism=mechanism, reset_delay=delay)
        torch.testing.assert_close(results[0], unrolled(theirs, x_seq))
    elif options == {"order": 4}:
        expected = truncated(x_seq, beta, threshold, 4, mechanism, delay, 3)
        torch.testing.assert_close(results[0], expected, check_dtype=False)


def test_what_is_subtracted_is_the_threshold_whatever_the_gain_and_fades_by_each_channels_beta():
    beta = torch.tensor([0.5, 0.25])
    for options in ({}, {"order": 6}, {"kernel": "fir", "order": 6, "num_channels": 2}):
        neuron = MFPLeaky(beta, gain=3.0, reset_mechanism="subtract", **options)
        x_seq = torch.tensor([[1.0, 1.0], *[[0.0, 0.0]] * 4]).unsqueeze(1)
        _, mem = unrolled(neuron, x_seq)
        theirs = unrolled(snn.Leaky(beta), 3 * x_seq)[1]
        torch.testing.assert_close(mem, theirs)


@by_finite_reset
@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
def test_the_reset_of_truncated_taps_reaches_as_far_as_they_do(make, mechanism, delay):
    options = {"kernel": "fir", "reset_mechanism": mechanism, "reset_delay": delay}
    neuron, short = make(0.8, 0.6, order=6, **options), make(0.8, 0.6, order=3, **options)
    neuron.kernel.truncate(3)
    run = unrolled if make is MFPLeaky else nn.Module.__call__
    torch.testing.assert_close(run(neuron, inputs(12, 4, 3)), run(short, inputs(12, 4, 3)))
    taps, expected = (describe_neuron(one).reset.taps for one in (neuron, short))
    assert taps is expected is None or torch.equal(taps, expected)


# --- MFPLeakyParallel is T calls of MFPLeaky ---

KERNELS = [
    {},
    {"order": 1},
    {"order": 4},
    {"order": 40},
    {"order": 4, "kernel_bits": "pow2"},
    {"order": 3, "stride": 2},
    {"kernel": "fir", "order": 5},
    {"gain": 0.5},
]


@pytest.mark.parametrize("options", KERNELS, ids=str)
@by_finite_reset
@settings(max_examples=10)
@given(seed=seeds)
def test_a_whole_sequence_is_as_many_steps_gradients_included(mechanism, delay, options, seed):
    options = {
        "reset_mechanism": mechanism,
        "reset_delay": delay,
        "learn_beta": "kernel" not in options,
        "learn_threshold": True,
        "graded_spikes_factor": 2.0,
        **options,
    }
    x_seq = inputs(seed, 3, 4, double=True)
    stepwise = gradients(MFPLeaky(0.8, **options).double(), unrolled, x_seq)
    whole = gradients(MFPLeakyParallel(0.8, **options).double(), nn.Module.__call__, x_seq)
    assert_close(whole, stepwise)


@pytest.mark.parametrize("options", [{}, {"order": 4}], ids=str)
@by_finite_reset
@pytest.mark.parametrize(
    "unfused",
    [{"surrogate_disable": True}, {"spike_grad": snn_surrogate.triangular()}, {"state_quant": True}],
    ids=lambda options: next(iter(options)),
)
def test_spikes_decided_outside_the_operator_run_step_by_step_and_say_so(
    mechanism, delay, options, unfused, said
):
    if unfused == {"state_quant": True}:
        options, unfused = {"order": 4}, {"state_quant": quant.state_quant(num_bits=4, threshold=1.0)}
    options = {"reset_mechanism": mechanism, "reset_delay": delay, **options, **unfused}
    x_seq = inputs(1, 3, 4)
    for _ in range(2):
        whole = MFPLeakyParallel(0.8, **options)(x_seq)
    torch.testing.assert_close(whole, unrolled(MFPLeaky(0.8, **options), x_seq))
    assert said.text.count("one step after the other in stock operators") == 1


def test_a_subtraction_without_delay_runs_step_by_step_and_says_so_once(said):
    options = {"reset_mechanism": "subtract", "reset_delay": False, "threshold": 0.4}
    x_seq = inputs(2, 3, 4)
    for _ in range(2):
        whole = MFPLeakyParallel(0.9, **options)(x_seq)
    assert said.text.count("'subtract' with reset_delay=False") == 1
    torch.testing.assert_close(whole, unrolled(snn.Leaky(0.9, **options), x_seq), rtol=0, atol=0)


def test_a_fused_reset_says_nothing_and_hidden_spikes_are_the_same(said):
    x_seq = inputs(3, 3, 4)
    for mechanism, delay in FINITE_RESETS:
        options = {"reset_mechanism": mechanism, "reset_delay": delay}
        spk, mem = MFPLeakyParallel(0.8, **options)(x_seq)
        hidden = MFPLeakyParallel(0.8, init_hidden=True, **options)
        assert torch.equal(hidden(x_seq), spk) and torch.equal(hidden.mem, mem[-1])
    assert "one step after the other" not in said.text


@by_reset
@settings(max_examples=15)
@given(seed=seeds, cut=st.integers(1, STEPS - 1))
def test_a_sequence_may_be_cut_anywhere(mechanism, delay, seed, cut):
    options = {"reset_mechanism": mechanism, "reset_delay": delay, "learn_beta": True}

    def cut_in_two(neuron: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        spk_1, mem_1 = neuron(x[:cut])
        spk_2, mem_2 = neuron(x[cut:], mem_1[-1])
        return torch.cat((spk_1, spk_2)), torch.cat((mem_1, mem_2))

    x_seq = inputs(seed, 3, 4, double=True)
    results = [
        gradients(MFPLeakyParallel(0.8, **options).double(), run, x_seq)
        for run in (nn.Module.__call__, cut_in_two)
    ]
    assert_close(*results)


@by_reset
@settings(max_examples=15)
@given(seed=seeds)
def test_a_whole_sequence_starts_from_any_mem_as_leaky_does(mechanism, delay, seed):
    options = {"reset_mechanism": mechanism, "reset_delay": delay}
    x_seq, mem = inputs(seed, 5, 3, double=True), inputs(seed + 1, 5, 3, scale=2.0, double=True)[0]
    whole, theirs = MFPLeakyParallel(0.7, **options).double(), snn.Leaky(0.7, **options).double()
    spk_seq, mem_seq = whole(x_seq, mem)
    for x, spk, reading in zip(x_seq, spk_seq, mem_seq, strict=True):
        expected_spk, mem = theirs(x, mem)
        assert torch.equal(spk, expected_spk)
        torch.testing.assert_close(reading, mem)


def test_a_finite_order_has_no_mem_to_start_from_and_the_error_knows_of_own_spikes():
    with pytest.raises(ValueError, match="take MFPLeaky, which keeps its inputs and own spikes"):
        MFPLeakyParallel(0.5, order=3, reset_mechanism="zero")(torch.ones(4, 2), torch.ones(2))


# --- learned taps ---


@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
@pytest.mark.parametrize(
    "options",
    [
        {"order": 3},
        {"order": 3, "reset_order": 5},
        {"order": 1, "reset_order": 2},
        {"order": 4, "num_channels": 4},
        {"order": 4, "kernel_bits": "pow2"},
        {"kernel": "fir", "order": 3, "num_channels": 4, "kernel_bits": 4},
    ],
    ids=str,
)
@settings(max_examples=10)
@given(seed=seeds)
def test_learned_taps_weigh_the_own_spikes(make, options, seed):
    neuron = make(0.8, threshold=0.5, reset_mechanism="feedback", learn_threshold=True, **options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        neuron.feedback.taps.copy_(torch.randn(neuron.feedback.taps.shape, generator=generator).double())

    def definition(neuron: nn.Module, x_seq: Tensor) -> tuple[Tensor, Tensor]:
        kernel = neuron.kernel()
        taps = (
            kernel.taps
            if hasattr(kernel, "taps") and not callable(kernel.taps)
            else kernel.taps(kernel.order)
        )
        own = quantize_taps(neuron.feedback.taps, options.get("kernel_bits"))
        spikes, readings = [], []
        for t in range(len(x_seq)):
            u = torch.zeros_like(x_seq[0])
            for j in range(min(t + 1, len(taps))):
                u = u + taps[j] * x_seq[t - j]
            for j in range(1, min(t, len(own)) + 1):
                u = u + own[j - 1] * spikes[t - j]
            spikes.append(snn_surrogate.atan()(u - neuron.threshold).to(u))
            readings.append(u)
        return torch.stack(spikes), torch.stack(readings)

    x_seq = inputs(seed, 3, 4, double=True)
    expected = gradients(copy.deepcopy(neuron), definition, x_seq)
    assert_close(gradients(neuron, unrolled if make is MFPLeaky else nn.Module.__call__, x_seq), expected)


def test_learned_taps_start_at_zero_are_saved_and_are_trained():
    neuron = MFPLeaky(0.8, order=4, reset_mechanism="feedback")
    assert neuron.feedback.taps.tolist() == [0.0] * 3 and "feedback.taps" in neuron.state_dict()
    without = MFPLeaky(0.8, order=4, reset_mechanism="none")
    torch.testing.assert_close(unrolled(neuron, inputs(0, 3)), unrolled(without, inputs(0, 3)))
    twin = MFPLeaky(0.8, order=4, reset_mechanism="feedback")
    with torch.no_grad():
        neuron.feedback.taps.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    twin.load_state_dict(neuron.state_dict())
    assert twin.reset_mechanism == "feedback"
    assert_same_run(neuron, twin, inputs(0, 3))
    unrolled(neuron, inputs(1, 8))[0].sum().backward()
    assert neuron.feedback.taps.grad.all()


# --- state between steps ---


@pytest.mark.parametrize("options", [{}, {"order": 4}], ids=str)
@by_finite_reset
@settings(max_examples=10)
@given(seed=seeds, at=st.integers(1, STEPS - 1), ended=st.lists(st.booleans(), min_size=3, max_size=3))
def test_samples_that_are_reset_start_anew_and_the_others_go_on(mechanism, delay, options, seed, at, ended):
    neuron = MFPLeaky(
        0.8, init_hidden=True, output=True, reset_mechanism=mechanism, reset_delay=delay, **options
    ).double()
    x_seq, ended = inputs(seed, 3, 4, double=True), torch.tensor(ended)
    whole = torch.stack([neuron(x)[1] for x in x_seq])
    reset(neuron)
    fresh = torch.stack([neuron(x)[1] for x in x_seq[at:]])
    reset(neuron)
    for x in x_seq[:at]:
        neuron(x)
    reset_samples(neuron, ended)
    mixed = torch.stack([neuron(x)[1] for x in x_seq[at:]])
    expected = torch.where(ended[:, None], fresh, whole[at:])
    torch.testing.assert_close(mixed, expected)


STATEFUL = [
    {},
    {"order": 4},
    {"order": 4, "reset_mechanism": "feedback"},
    {"order": 4, "reset_mechanism": "zero", "reset_delay": False},
    {"kernel": "fir", "order": 3, "reset_mechanism": "zero"},
]


def stateful(**options: object) -> nn.Module:
    neuron = MFPLeaky(0.8, init_hidden=True, output=True, **{"reset_mechanism": "subtract", **options})
    if options.get("reset_mechanism") == "feedback":
        nn.init.constant_(neuron.feedback.taps, 0.5)
    return neuron


@pytest.mark.parametrize("options", STATEFUL, ids=str)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_goes_on_from_where_the_original_stood(options, copied):
    net, x_seq = nn.Sequential(nn.Linear(4, 4), stateful(**options)), inputs(5, 3, 4)
    for x in x_seq[:4]:
        net(x)
    twin = copied(net)
    for x in x_seq[4:]:
        torch.testing.assert_close(net(x), twin(x), rtol=0, atol=0)


@pytest.mark.parametrize("options", STATEFUL, ids=str)
def test_detaching_keeps_the_values_and_a_reset_forgets_the_own_spikes(options):
    net, x_seq = stateful(**options), inputs(6, 3, 4).requires_grad_()
    expected = torch.stack([net(x)[1] for x in x_seq])
    reset(net)
    readings = []
    for x in x_seq:
        mem = net(x)[1]
        readings.append(mem)
        mem.sum().backward()  # a second time through the graph raises
        detach(net)
    assert torch.equal(torch.stack(readings), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("options", STATEFUL, ids=str)
def test_a_loop_over_time_compiles_into_one_graph(options):
    torch._dynamo.reset()
    neuron, x_seq = stateful(**options), inputs(7, 3, 4)

    def run(x_seq: Tensor) -> Tensor:
        neuron.reset_mem()
        return torch.stack([neuron(x)[1] for x in x_seq])

    expected = run(x_seq)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x_seq), expected)


@pytest.mark.parametrize("options", STATEFUL, ids=str)
def test_a_whole_sequence_compiles_into_one_graph_and_runs_on_meta(options):
    torch._dynamo.reset()
    neuron, x_seq = MFPLeakyParallel(0.8, **{"reset_mechanism": "subtract", **options}), inputs(7, 3, 4)
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x_seq), neuron(x_seq))
    spk, mem = neuron.to("meta")(x_seq.to("meta"))
    assert spk.shape == mem.shape == x_seq.shape and spk.device.type == "meta"
    step = stateful(**options).to("meta")
    assert [step(x.to("meta"))[1].shape for x in x_seq[:2]] == [x_seq.shape[1:]] * 2


def test_own_spikes_are_a_buffer_that_is_not_saved_and_follows_the_module():
    neuron = stateful(order=4)
    for x in inputs(8, 3, 4):
        neuron(x)
    assert neuron.last_spikes.shape == (3, 3, 4) and neuron.last_spikes.any()
    assert "last_spikes" in dict(neuron.named_buffers()) and "last_spikes" not in neuron.state_dict()
    assert list(neuron.state_dict()) == list(snn.Leaky(0.5).state_dict())
    assert neuron.double().last_spikes.dtype == torch.float64


@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
@pytest.mark.parametrize(
    "options", [{}, {"order": 4}, {"order": 4, "kernel_bits": 4}, {"kernel": "fir", "order": 4}]
)
@by_finite_reset
def test_what_never_fires_is_never_reset(mechanism, delay, options, make):
    """snn.Leaky multiplies the threshold of inf by 0, which is NaN."""
    threshold, x_seq = torch.tensor([0.5, math.inf, math.inf]), inputs(11, 2, 3)
    run = unrolled if make is MFPLeaky else nn.Module.__call__
    options = {"learn_threshold": True, **options}
    neuron = make(0.8, threshold, reset_mechanism=mechanism, reset_delay=delay, **options)
    spk, mem = run(neuron, x_seq)
    _, free_mem = run(make(0.8, threshold, reset_mechanism="none", **options), x_seq)
    torch.testing.assert_close(mem[..., 1:], free_mem[..., 1:])
    assert not spk[..., 1:].any() and spk[..., 0].any()
    (spk + mem).sum().backward()
    assert neuron.threshold.grad.isfinite().all()
    taps = describe_neuron(neuron).reset.taps
    assert taps is None or taps.isfinite().all()


# --- the mechanism is changed, loaded, refused ---


def test_the_mechanism_may_be_assigned():
    neuron, x_seq = MFPLeaky(0.8, reset_mechanism="none"), inputs(9, 3)
    for mechanism in ("subtract", "zero", "none"):
        neuron.reset_mechanism = mechanism
        assert neuron.reset_mechanism == neuron._reset_mechanism == mechanism
        assert int(neuron.reset_mechanism_val) == snn.SpikingNeuron.reset_dict[mechanism]
        assert_same_run(neuron, snn.Leaky(0.8, reset_mechanism=mechanism), x_seq)
    neuron = MFPLeaky(0.8, order=STEPS, reset_mechanism="subtract")
    for x in x_seq[:3]:
        neuron(x)
    neuron.reset_mechanism = "zero"
    assert_same_run(neuron, MFPLeaky(0.8, order=STEPS, reset_mechanism="zero"), x_seq)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("made_with", MECHANISMS)
@pytest.mark.parametrize("saved", MECHANISMS)
def test_a_checkpoint_of_leaky_loads_and_keeps_its_reset(saved, made_with, assign, said):
    theirs = snn.Leaky(0.3, reset_mechanism=saved)
    ours = nn.Sequential(MFPLeaky(0.9, reset_mechanism=made_with))
    ours.load_state_dict({f"0.{key}": value for key, value in theirs.state_dict().items()}, assign=assign)
    assert ours[0].reset_mechanism == saved
    assert_same_run(ours[0], theirs, inputs(10, 4))
    assert ("0.reset_mechanism_val" in said.text) == (saved != made_with)


def test_a_checkpoint_with_a_reset_that_a_neuron_cannot_have_leaves_it_its_own(said):
    matrix = MFPLeaky(0.9, kernel="matrix", time_steps=3, reset_mechanism="none")
    state = {**matrix.state_dict(), "reset_mechanism_val": torch.tensor(0)}
    matrix.load_state_dict(state)
    assert matrix.reset_mechanism == "none" and int(matrix.reset_mechanism_val) == 2
    assert "cannot have" in said.text


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("one of 'none', 'subtract', 'zero', 'feedback'", {"reset_mechanism": "sideways"}),
        ("takes reset_mechanism=.none.", {"kernel": "matrix", "time_steps": 4}),
        ("matrix", {"reset_mechanism": "zero", "kernel": "matrix", "time_steps": 4}),
        ("needs order=None.*Give reset_delay=True", {"order": 3, "reset_delay": False}),
        ("threshold >= 0", {"order": 3, "threshold": -0.5}),
        ("takes no reset_order", {"reset_mechanism": "none", "reset_order": 3}),
        ("takes no reset_order", {"reset_mechanism": "zero", "order": 4, "reset_order": 3}),
        ("needs a finite order", {"reset_order": 3}),
        ("needs a finite order", {"reset_mechanism": "feedback"}),
        ("needs reset_order", {"reset_mechanism": "feedback", "order": 1}),
        ("reset_order", {"order": 4, "reset_order": 0}),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_registered(match, options):
    before = list(snn.SpikingNeuron.instances)
    for make in (MFPLeaky, MFPLeakyParallel):
        with pytest.raises(ValueError, match=match):
            make(0.9, **{"reset_mechanism": "subtract", **options})
    assert snn.SpikingNeuron.instances == before


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_what_is_assigned_later_is_refused_at_the_next_step():
    neuron = MFPLeaky(0.9, order=3, reset_mechanism="subtract")
    neuron.reset_delay = False
    with pytest.raises(ValueError, match="needs order=None"):
        neuron(torch.ones(2))
    with pytest.raises(ValueError, match="inhibition with reset_delay=False"):
        MFPLeaky(0.9, order=3, reset_mechanism="zero", reset_delay=False, inhibition=True)
    with pytest.raises(ValueError, match="threshold >= 0"):
        MFPLeakyParallel(0.9, -1.0, reset_mechanism="zero")
    neuron = MFPLeaky(0.9, order=3, reset_mechanism="none")
    with pytest.raises(ValueError, match="taps of 'feedback' are parameters"):
        neuron.reset_mechanism = "feedback"
    matrix = MFPLeaky(0.9, kernel="matrix", time_steps=3, reset_mechanism="none")
    with pytest.raises(ValueError, match="matrix"):
        matrix.reset_mechanism = "zero"
    assert matrix.reset_mechanism == "none"


# --- its description ---


@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
def test_the_description_says_what_is_fed_back(make):
    spec = describe_neuron(make(0.5, 2.0, reset_mechanism="subtract"))
    assert (spec.reset.kind, spec.reset.order, spec.reset.taps) == ("subtract", None, None)
    assert spec.reset.delay and spec.reset.detach and spec.carried.what == "potential"
    assert spec.carried.spikes == 1 and spec.keeps_potential
    spec = describe_neuron(make(0.5, 2.0, order=4, reset_mechanism="subtract"))
    assert spec.reset.taps.tolist() == [-2.0, -1.0, -0.5] and spec.carried.spikes == 3
    assert spec.is_memory_free
    spec = describe_neuron(make(0.5, order=4, reset_mechanism="zero", reset_delay=False))
    assert spec.reset.kind == "zero" and spec.reset.order == 3 and not spec.reset.detach
    spec = describe_neuron(make(0.5, order=4, reset_mechanism="feedback", num_channels=2))
    assert spec.reset.taps.shape == (3, 2) and spec.reset.order == 3 and not spec.reset.detach
    spec = describe_neuron(make(0.5, reset_mechanism="subtract", reset_delay=False))
    assert spec.kernel is None and spec.reset is None and spec.carried.what == "potential"
    spec = describe_neuron(make(0.5, reset_mechanism="none"))
    assert spec.reset is None and spec.carried.spikes == 0


@pytest.mark.parametrize(
    ("beta", "threshold", "columns"),
    [
        (torch.tensor([0.5, 0.25]), 2.0, 2),
        (0.5, torch.tensor([1.0, 2.0]), 2),
        (torch.tensor([0.5, 0.25]), torch.tensor([1.0, 2.0]), 2),
        (torch.rand(2, 1, 1), torch.rand(2, 1, 1), 2),
        (torch.rand(2, 1, 1), torch.rand(2), 4),
    ],
)
def test_the_description_has_a_column_for_each_value_of_beta_and_threshold(beta, threshold, columns):
    neuron = MFPLeaky(beta, threshold, order=3, reset_mechanism="subtract")
    taps = describe_neuron(neuron).reset.taps
    expected = torch.stack([-neuron.threshold * neuron.beta**j for j in range(2)])
    torch.testing.assert_close(taps, expected.reshape(2, columns))


def test_the_state_that_is_kept_is_named():
    assert describe_neuron(stateful(order=4)).state.all == ("mem", "history", "last_spikes")
    assert describe_neuron(stateful()).state.all == ("mem",)
    assert describe_neuron(MFPLeaky(0.5, order=4, reset_mechanism="none")).state.all == ("mem", "history")
