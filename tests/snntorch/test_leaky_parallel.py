"""MFPLeakyParallel against T calls of MFPLeaky, snn.Leaky and the definition in float64."""

import copy
import importlib.util
import inspect

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snntorch import surrogate as snn_surrogate
from snntorch.functional import quant
from torch import Tensor, nn

from mfp_neurons import convert, functional, reference
from mfp_neurons import surrogate as fused
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel, known_surrogate
from tests.snntorch.loop import unrolled

STEPS = 11

KERNELS = [
    {},
    {"order": 1},
    {"order": 4},
    {"order": 40},
    {"order": 4, "kernel_bits": "pow2"},
    {"order": 9, "kernel_bits": 4},
    {"kernel": "fir", "order": 5},
    {"kernel": "matrix", "time_steps": STEPS},
    {"gain": 0.5},
]


def pair(*args: object, **options: object) -> tuple[MFPLeaky, MFPLeakyParallel]:
    return MFPLeaky(*args, **options, reset_mechanism="none"), MFPLeakyParallel(
        *args, **options, reset_mechanism="none"
    )


# --- equal to T calls of the stepwise neuron ---


@pytest.mark.parametrize("options", KERNELS)
@given(
    seed=st.integers(0, 2**31),
    quarters=st.integers(1, 6),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_exact_numbers_give_the_stepwise_spikes_and_potentials_bit_for_bit_ties_included(
    options, seed, quarters, shape
):
    generator = torch.Generator().manual_seed(seed)
    x_seq = torch.randint(-4, 9, (STEPS, *shape), generator=generator) / 4  # dyadic, so that no sum rounds
    step, whole = pair(0.5, threshold=quarters / 4, **options)
    spk, mem = whole(x_seq)
    expected_spk, expected_mem = unrolled(step, x_seq)
    assert torch.equal(mem, expected_mem)
    assert torch.equal(spk, expected_spk)
    assert torch.equal(spk, (mem > quarters / 4).float())


@pytest.mark.parametrize("options", KERNELS)
@given(seed=st.integers(0, 2**31), beta=st.floats(0, 1))
def test_potentials_equal_to_rounding_and_spikes_away_from_the_threshold(options, seed, beta):
    generator = torch.Generator().manual_seed(seed)
    x_seq = torch.randn(STEPS, 3, 5, generator=generator)
    step, whole = pair(beta, **options)
    spk, mem = whole(x_seq)
    expected_spk, expected_mem = unrolled(step, x_seq)
    bound = 1e-5 * (1 + expected_mem.abs().max())
    assert (mem - expected_mem).abs().max() < bound
    clear = (expected_mem - 1).abs() > bound
    assert torch.equal(spk[clear], expected_spk[clear])


@pytest.mark.parametrize("options", KERNELS)
def test_gradients_are_those_of_the_stepwise_neuron(options):
    x_seq, weight = torch.randn(STEPS, 3, 4, dtype=torch.float64), torch.randn(STEPS, 3, 4)
    learn_beta = options.get("kernel", "exp") == "exp"
    grads = []
    for neuron, run in zip(
        pair(0.8, learn_beta=learn_beta, learn_threshold=True, **options),
        (unrolled, nn.Module.__call__),
        strict=True,
    ):
        neuron.double()
        x = x_seq.clone().requires_grad_()
        spk, mem = run(neuron, x)
        ((spk + 0.1 * mem) * weight).sum().backward()
        grads.append([x.grad, *(p.grad for p in neuron.parameters())])
    assert len(grads[0]) == 3
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("beta", "threshold"),
    [
        *((shape, shape) for shape in [(5,), (5, 1, 1), (3, 5, 4, 4), (5, 4, 4), (3, 1, 1, 1), (4,)]),
        ((5, 1, 1), (4,)),
        ((3, 5, 1, 4), (1,)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"order": 3}, {"order": 3, "kernel_bits": "pow2"}])
def test_beta_and_threshold_may_be_any_tensor_that_broadcasts(beta, threshold, options):
    beta, threshold = torch.rand(beta), torch.rand(threshold) + 0.5
    x_seq = torch.randn(STEPS, 3, 5, 4, 4)
    if beta.shape == (5,):
        x_seq = x_seq[..., 0, 0]
    step, whole = pair(beta, threshold=threshold, **options)
    spk, mem = whole(x_seq)
    torch.testing.assert_close(mem, unrolled(step, x_seq)[1])
    assert torch.equal(spk, (mem > threshold).float())
    if "kernel_bits" not in options:
        expected = x_seq.clone()
        for lag in range(1, options.get("order", STEPS)):
            expected[lag:] += beta**lag * x_seq[:-lag]
        torch.testing.assert_close(mem, expected, rtol=1e-4, atol=1e-5)


def test_a_beta_that_does_not_broadcast_is_refused():
    with pytest.raises(ValueError, match=r"shape \[1, 7\] does not broadcast over a step \[3, 5\]"):
        MFPLeakyParallel(torch.rand(7), reset_mechanism="none")(torch.randn(STEPS, 3, 5))


# --- returns and state ---


def test_hidden_without_output_gives_the_spikes_alone_and_never_records_the_potential(monkeypatch):
    recorded = []

    def spy(*args, record, **options):
        recorded.append(record)
        return original(*args, record=record, **options)

    original = functional.fire_chunk
    monkeypatch.setattr(functional, "fire_chunk", spy)
    x_seq = torch.randn(STEPS, 2, 3)
    spk = MFPLeakyParallel(0.5, init_hidden=True, reset_mechanism="none")(x_seq)
    assert torch.equal(spk, MFPLeakyParallel(0.5, reset_mechanism="none")(x_seq)[0])
    assert recorded == [False, True]


def test_every_call_starts_from_zero():
    whole = MFPLeakyParallel(0.9, reset_mechanism="none")
    x_seq = torch.randn(STEPS, 2, 3)
    first = whole(x_seq)[1]
    assert torch.equal(whole(x_seq)[1], first)
    hidden = MFPLeakyParallel(0.9, init_hidden=True, output=True, reset_mechanism="none")
    hidden(x_seq)
    assert torch.equal(hidden(x_seq)[1], first)


@given(cut=st.integers(1, STEPS - 1))
def test_a_sequence_may_be_cut_anywhere(cut):
    whole = MFPLeakyParallel(0.9, learn_beta=True, reset_mechanism="none")
    x_seq = torch.randn(STEPS, 2, 3, requires_grad=True)
    spk, mem = whole(x_seq)
    (expected,) = torch.autograd.grad(mem.square().sum() + spk.sum(), x_seq)
    spk_1, mem_1 = whole(x_seq[:cut], torch.zeros(0))
    assert torch.equal(whole.mem, mem_1[-1])
    spk_2, mem_2 = whole(x_seq[cut:], mem_1[-1])
    assert torch.equal(torch.cat((spk_1, spk_2)), spk)
    loss = mem_1.square().sum() + mem_2.square().sum() + spk_1.sum() + spk_2.sum()
    torch.testing.assert_close(torch.autograd.grad(loss, x_seq)[0], expected)


def test_the_last_potential_is_kept_as_a_detached_clone():
    for options in ({}, {"init_hidden": True}, {"surrogate_disable": True}, {"order": 3}):
        whole = MFPLeakyParallel(0.9, **options, reset_mechanism="none")
        assert whole.mem.shape == (0,)
        whole(torch.randn(STEPS, 2, 3, requires_grad=True))
        assert whole.mem.shape == (2, 3) and not whole.mem.requires_grad and not whole.mem._is_view()
        copy.deepcopy(whole)
        for name in ("reset_mem", "init_leaky"):
            mem = getattr(whole, name)()
            assert mem is whole.mem and not mem.any()


def test_a_wrong_mem_is_refused():
    with pytest.raises(TypeError, match="init_hidden=True"):
        MFPLeakyParallel(0.5, init_hidden=True, reset_mechanism="none")(torch.ones(4, 2), torch.ones(2))
    with pytest.raises(ValueError, match=r"mem must be a step \[2\]"):
        MFPLeakyParallel(0.5, reset_mechanism="none")(torch.ones(4, 2), torch.ones(3))
    with pytest.raises(ValueError, match="no potential to start from"):
        MFPLeakyParallel(0.5, order=3, reset_mechanism="none")(torch.ones(4, 2), torch.ones(2))
    with pytest.raises(ValueError, match=r"input_ must be \[T, B, \*\]"):
        MFPLeakyParallel(0.5, reset_mechanism="none")(torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("init_hidden", [False, True])
def test_spikes_are_float32_whatever_the_input_and_sums_are_wide(dtype, init_hidden):
    x_seq = (torch.rand(100, 6) * 4).to(dtype)
    whole = MFPLeakyParallel(
        0.99, threshold=90.0, init_hidden=init_hidden, output=True, reset_mechanism="none"
    )
    spk, mem = whole(x_seq)
    assert spk.dtype == torch.float32 and set(spk.unique().tolist()) == {0.0, 1.0}
    assert mem.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = unrolled(MFPLeaky(0.99, reset_mechanism="none").double(), x_seq.double())[1]
    assert (mem - expected).abs().max() < 1e-5 * expected.abs().max()


def test_it_is_a_spiking_neuron_but_not_a_leaky_which_nir_would_export_with_a_reset():
    whole = MFPLeakyParallel(0.5, reset_mechanism="none")
    assert isinstance(whole, snn.SpikingNeuron) and not isinstance(whole, snn.Leaky)
    assert any(neuron is whole for neuron in snn.SpikingNeuron.instances)
    assert list(inspect.signature(MFPLeakyParallel).parameters) == list(
        inspect.signature(MFPLeaky).parameters
    )
    assert list(whole.state_dict()) == list(snn.Leaky(0.5).state_dict())


def test_what_is_serial_over_time_is_refused():
    for make in (
        lambda: MFPLeakyParallel(0.5, inhibition=True, reset_mechanism="none"),
        lambda: MFPLeakyParallel(0.5, reset_mechanism="none").fire_inhibition(1, None),
    ):
        with pytest.raises(NotImplementedError, match="inhibition"):
            make()
    before = len(snn.SpikingNeuron.instances)
    with pytest.raises(NotImplementedError, match="state_quant"):
        MFPLeakyParallel(0.5, state_quant=quant.state_quant(num_bits=4), reset_mechanism="none")
    assert len(snn.SpikingNeuron.instances) == before


def test_state_quant_rounds_what_a_finite_kernel_sums():
    rounded = {"state_quant": quant.state_quant(num_bits=4, threshold=1.0), "order": 3}
    step, whole = pair(0.5, **rounded)
    x_seq = torch.randint(-4, 5, (STEPS, 2, 3)) / 4
    torch.testing.assert_close(whole(x_seq), unrolled(step, x_seq), rtol=0, atol=0)


# --- surrogates ---


@pytest.mark.parametrize(
    ("spike_grad", "expected"),
    [
        (snn_surrogate.atan(), fused.ATan(2.0)),
        (snn_surrogate.atan(alpha=3), fused.ATan(3.0)),
        (snn_surrogate.fast_sigmoid(), fused.SuperSpike(25.0, 1.0)),
        (snn_surrogate.fast_sigmoid(slope=10), fused.SuperSpike(10.0, 1.0)),
        (snn_surrogate.sigmoid(slope=5), fused.Sigmoid(5.0)),
        (MFPLeaky(0.5, reset_mechanism="none").spike_grad, fused.ATan(2.0)),
        (MFPLeaky(0.5, spike_grad=fused.Erf(1.0), reset_mechanism="none").spike_grad, fused.Erf(1.0)),
        (snn_surrogate.triangular(), None),
        (snn_surrogate.atan(alpha=torch.tensor(2.0)), None),
        (snn_surrogate.atan(alpha=-1.0), None),
        (snn_surrogate.atan(alpha=float("inf")), None),
        (snn_surrogate.custom_surrogate(lambda x, grad, spikes: grad), None),
        (lambda x: (x > 0).float(), None),
        (nn.Sigmoid(), None),
    ],
)
def test_surrogates_that_the_operator_knows_are_recognised_and_no_others(spike_grad, expected):
    assert known_surrogate(spike_grad) == expected


class SurrogateObject:
    """What snnTorch's factories give from the release after 1.0 on: an object that can be pickled."""

    def __init__(self, function: type, **parameters: float) -> None:
        vars(self).update(function=function, **parameters)

    def __call__(self, x: Tensor) -> Tensor:
        function, *parameters = vars(self).values()
        return function.apply(x, *parameters)


def test_surrogates_that_are_objects_are_recognised_as_closures_are(monkeypatch):
    kinds = {
        "atan": ("alpha", snn_surrogate.ATan, fused.ATan),
        "fast_sigmoid": ("slope", snn_surrogate.FastSigmoid, fused.SuperSpike),
        "sigmoid": ("slope", snn_surrogate.Sigmoid, fused.Sigmoid),
    }
    for name, (parameter, function, _) in kinds.items():
        monkeypatch.setattr(
            snn_surrogate,
            name,
            lambda value=2.0, f=function, p=parameter: SurrogateObject(f, **{p: value}),
        )
    spec = importlib.util.find_spec("mfp_neurons.snntorch.surrogates")
    imported_anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported_anew)
    for recognise in (known_surrogate, imported_anew.known_surrogate):
        for name, (_, _, ours) in kinds.items():
            assert recognise(getattr(snn_surrogate, name)(3)) == ours(3.0)
        assert recognise(SurrogateObject(snn_surrogate.StraightThroughEstimator, alpha=3.0)) is None
    neuron = MFPLeakyParallel(0.5, spike_grad=snn_surrogate.sigmoid(3), reset_mechanism="none")
    assert neuron.spike_grad.surrogate == fused.Sigmoid(3.0)


@pytest.mark.parametrize("make", [snn_surrogate.atan, snn_surrogate.fast_sigmoid, snn_surrogate.sigmoid])
def test_a_fused_surrogate_has_the_gradient_of_the_called_one(make):
    x_seq = torch.randn(STEPS, 2, 3) / 4
    grads = []
    for spike_grad in (make(), lambda x: make()(x)):
        x = x_seq.clone().requires_grad_()
        MFPLeakyParallel(0.7, spike_grad=spike_grad, reset_mechanism="none")(x)[0].sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_an_unknown_surrogate_is_called_and_said_once(said):
    def doubled(x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(x)

    for _ in range(2):
        spk, mem = MFPLeakyParallel(0.5, spike_grad=doubled, reset_mechanism="none")(torch.randn(STEPS, 2))
    assert said.text.count("outside the fused operator") == 1 and "doubled" in said.text
    assert torch.equal(spk, doubled(mem - 1))


def test_surrogate_disable_gives_the_spikes_without_a_gradient():
    x_seq = torch.randn(STEPS, 2, requires_grad=True)
    spk, _ = MFPLeakyParallel(0.5, surrogate_disable=True, reset_mechanism="none")(x_seq)
    assert not spk.requires_grad and torch.equal(spk, MFPLeakyParallel(0.5, reset_mechanism="none")(x_seq)[0])


def test_a_matrix_and_free_taps_have_the_defined_potential():
    x_seq = torch.randn(STEPS, 2, 3, dtype=torch.float64)
    for options in (
        {"kernel": "matrix", "time_steps": STEPS},
        {"kernel": "fir", "order": 4, "num_channels": 3},
    ):
        whole = MFPLeakyParallel(0.6, **options, reset_mechanism="none").double()
        nn.init.normal_(next(whole.parameters()))
        torch.testing.assert_close(whole(x_seq)[1], reference.membrane_potential(x_seq, whole.kernel()))


# --- a threshold that is never reached ---

SURROGATES = {  # tests/test_functional.py has all of ours
    "default": None,
    "Sigmoid": fused.Sigmoid(),
    "fast_sigmoid": snn_surrogate.fast_sigmoid(),
    "spike_rate_escape": snn_surrogate.spike_rate_escape(),
    "SFS": snn_surrogate.SFS(),
}


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("options", [{}, {"order": 3}, {"init_hidden": True, "output": True}])
def test_an_infinite_threshold_never_fires_and_passes_no_gradient_through_the_spikes(surrogate, options):
    x_seq, weight = torch.randn(STEPS, 3, 4), torch.randn(STEPS, 3, 4)
    finite = MFPLeakyParallel(0.8, learn_beta=True, **options, reset_mechanism="none")
    leaf = x_seq.clone().requires_grad_()
    (weight * finite(leaf)[1]).sum().backward()
    step, whole = pair(
        0.8, float("inf"), SURROGATES[surrogate], learn_beta=True, learn_threshold=True, **options
    )
    for neuron, run in ((step, stepped), (whole, nn.Module.__call__)):
        x = x_seq.clone().requires_grad_()
        spk, mem = run(neuron, x)
        assert spk.dtype == torch.float32 and not spk.any()
        (weight * mem + spk).sum().backward()
        torch.testing.assert_close(x.grad, leaf.grad)
        torch.testing.assert_close(neuron.beta.grad, finite.beta.grad)
        assert neuron.threshold.grad.abs() < 1e-30  # e^-infinity is a tiny number in the compiled kernels


def stepped(neuron: nn.Module, x_seq: Tensor) -> tuple[Tensor, Tensor]:
    spk, mem = zip(*[neuron(x) for x in x_seq], strict=True)
    return torch.stack(spk), torch.stack(mem)


@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
def test_some_neurons_of_a_layer_may_have_an_infinite_threshold(make):
    threshold = torch.tensor([0.5, float("inf")])
    x = torch.full((2, 3, 2), 0.75, requires_grad=True)
    spk, _ = make(0.0, threshold, reset_mechanism="none")(x)
    assert torch.equal(spk[..., 0], torch.ones(2, 3)) and not spk[..., 1].any()
    spk.sum().backward()
    assert x.grad[..., 0].all() and torch.equal(x.grad[..., 1], torch.zeros(2, 3))


def test_the_usual_read_out_of_a_whole_model_is_converted():
    net = nn.Sequential(
        nn.Linear(4, 8),
        snn.Leaky(0.9, init_hidden=True),
        nn.Linear(8, 2),
        snn.Leaky(0.9, threshold=float("inf"), init_hidden=True, output=True, reset_mechanism="none"),
    )
    x, states = torch.randn(3, 4), net.state_dict()
    expected = [net(x)[1] for _ in range(2)]
    assert sum(isinstance(one, MFPLeaky) for one in convert(net)) == 2
    assert list(net.state_dict()) == list(states) and net[3].threshold == float("inf")
    assert net(x)[1].shape == expected[0].shape and not net(x)[0].any()


# --- what is accepted ---


@pytest.mark.parametrize("options", KERNELS)
@given(
    steps=st.integers(1, 4),
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=20)
def test_every_shape_gives_what_that_many_steps_give_empty_ones_and_single_steps_too(
    options, steps, shape, seed
):
    if "time_steps" in options:
        options = {**options, "time_steps": steps}
    generator = torch.Generator().manual_seed(seed)
    x_seq = torch.randint(-4, 9, (steps, *shape), generator=generator) / 4
    step, whole = pair(0.5, **options)
    for a, b in zip(whole(x_seq), unrolled(step, x_seq), strict=True):
        assert a.shape == x_seq.shape and torch.equal(a, b)
    assert torch.equal(whole.mem, step.mem)


@pytest.mark.parametrize("options", [{}, {"surrogate_disable": True}, {"order": 2}])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_matrix_takes_its_own_number_of_steps_alone(options, steps):
    with pytest.raises(ValueError, match="matrix kernel of 4 steps takes input_ of T = 4"):
        MFPLeakyParallel(0.5, kernel="matrix", time_steps=4, **options, reset_mechanism="none")(
            torch.rand(steps, 2, 3)
        )


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@pytest.mark.filterwarnings("ignore:.*assigned during export")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", [{}, {"order": 3}, {"kernel": "fir", "order": 8}])
def test_an_exported_neuron_takes_any_number_of_steps(options, strict):
    neuron = MFPLeakyParallel(0.5, **options, reset_mechanism="none")
    steps = {0: torch.export.Dim("T", min=2, max=64)}
    program = torch.export.export(neuron, (torch.randn(5, 2, 3),), dynamic_shapes=(steps,), strict=strict)
    for T in (2, 7, 33):
        x = torch.randn(T, 2, 3)
        torch.testing.assert_close(program.module()(x), neuron(x), rtol=0, atol=0)
