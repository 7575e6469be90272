"""MFPLeaky against snn.Leaky(reset_mechanism="none") and against the definition in float64."""

import inspect

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snntorch import surrogate as snn_surrogate
from snntorch.functional import quant
from torch import Tensor, nn

from mfp_neurons import reference
from mfp_neurons import surrogate as fused
from mfp_neurons.history import FIR
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from tests.snntorch.loop import unrolled

STEPS = 12


def leaky(*args: object, **options: object) -> nn.Module:
    return snn.Leaky(*args, reset_mechanism="none", **options)


def assert_same_run(ours: nn.Module, theirs: nn.Module, x_seq: Tensor) -> None:
    (spk, mem), (expected_spk, expected_mem) = unrolled(ours, x_seq), unrolled(theirs, x_seq)
    assert torch.equal(spk, expected_spk) and spk.dtype == expected_spk.dtype
    assert torch.equal(mem, expected_mem) and mem.dtype == expected_mem.dtype


# --- the same numbers as snn.Leaky without reset ---


@given(
    beta=st.floats(-0.5, 1.5),
    threshold=st.floats(-1, 2),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    double=st.booleans(),
)
def test_potentials_and_spikes_are_those_of_leaky_bit_for_bit(beta, threshold, shape, seed, double):
    generator = torch.Generator().manual_seed(seed)
    x_seq = torch.randn(STEPS, *shape, generator=generator, dtype=torch.float64 if double else torch.float32)
    assert_same_run(
        MFPLeaky(beta, threshold=threshold, reset_mechanism="none"), leaky(beta, threshold=threshold), x_seq
    )


@given(seed=st.integers(0, 2**31), quarters=st.integers(1, 8))
def test_a_potential_equal_to_the_threshold_does_not_fire(seed, quarters):
    generator = torch.Generator().manual_seed(seed)
    x_seq = torch.randint(-4, 9, (STEPS, 64), generator=generator) / 4  # dyadic: no rounding, many ties
    threshold = quarters / 4
    ours, theirs = MFPLeaky(0.5, threshold=threshold, reset_mechanism="none"), leaky(0.5, threshold=threshold)
    spk, mem = unrolled(ours, x_seq)
    assert (mem == threshold).any(), "this example has no tie"
    assert not spk[mem == threshold].any()
    assert_same_run(ours, theirs, x_seq)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1), (3, 5, 4, 4), (5, 4, 4), (4,), (1,)])
def test_beta_and_threshold_may_be_any_tensor_that_broadcasts(shape):
    beta, threshold = torch.rand(shape), torch.rand(shape) + 0.5
    x_seq = torch.randn(STEPS, 3, 5, 4, 4)
    if shape == (5,):
        x_seq = x_seq[..., 0, 0]
    assert_same_run(
        MFPLeaky(beta, threshold=threshold, reset_mechanism="none"), leaky(beta, threshold=threshold), x_seq
    )


def test_a_double_beta_does_not_widen_a_float_potential():
    beta = torch.tensor(0.9, dtype=torch.float64)
    assert_same_run(MFPLeaky(beta, reset_mechanism="none"), leaky(beta), torch.randn(STEPS, 3, 4))
    assert_same_run(
        MFPLeaky(0.9, reset_mechanism="none").double(), leaky(0.9).double(), torch.randn(STEPS, 3, 4)
    )


def test_an_integer_threshold_can_be_learned():
    neuron = MFPLeaky(1, threshold=2, learn_threshold=True, learn_beta=True, reset_mechanism="none")
    unrolled(neuron, torch.rand(STEPS, 3))[0].sum().backward()
    assert neuron.threshold.item() == 2.0 and neuron.threshold.grad.abs() > 0


@pytest.mark.parametrize("learned", ["learn_beta", "learn_threshold", "learn_graded_spikes_factor"])
def test_gradients_reach_every_learned_parameter_and_equal_those_of_leaky(learned):
    x_seq, weight = torch.randn(STEPS, 4, 6), torch.randn(STEPS, 4, 6)
    grads = []
    for make in (MFPLeaky, snn.Leaky):
        neuron = make(0.8, reset_mechanism="none", graded_spikes_factor=1.5, **{learned: True})
        x = x_seq.clone().requires_grad_()
        spk, mem = unrolled(neuron, x)
        ((spk + 0.1 * mem) * weight).sum().backward()
        (parameter,) = neuron.parameters()
        grads.append((x.grad, parameter.grad))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("options", [{}, {"init_hidden": True, "output": True}, {"inhibition": True}])
@pytest.mark.parametrize("surrogate_disable", [False, True])
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_options_do_what_they_do_in_leaky(options, surrogate_disable):
    given_both = {"graded_spikes_factor": 2.0, "surrogate_disable": surrogate_disable, **options}
    ours, theirs = MFPLeaky(0.9, **given_both, reset_mechanism="none"), leaky(0.9, **given_both)
    for x in torch.randn(STEPS, 3, 7):
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_state_quant_rounds_the_potential_as_leaky_does_and_stays_detachable():
    rounded = {"state_quant": quant.state_quant(num_bits=3, threshold=1.0)}
    ours, theirs = MFPLeaky(0.9, **rounded, reset_mechanism="none"), leaky(0.9, **rounded)
    x_seq = torch.randn(STEPS, 5, requires_grad=True)
    assert_same_run(ours, theirs, x_seq)
    snn.Leaky.detach_hidden.__func__(_only(ours))  # raises on a view, as snn.Leaky's own state does
    assert not ours.mem.requires_grad


def _only(neuron: nn.Module) -> object:
    """Something whose list of instances is one neuron."""
    return type("Only", (), {"instances": [neuron]})


@pytest.mark.parametrize("make", [snn_surrogate.atan, snn_surrogate.fast_sigmoid, snn_surrogate.sigmoid])
def test_snntorchs_surrogates_have_their_gradient_wherever_that_is_a_number(make):
    x = torch.randn(STEPS, 4)
    grads = []
    for neuron in (MFPLeaky(0.7, spike_grad=make(), reset_mechanism="none"), leaky(0.7, spike_grad=make())):
        leaf = x.clone().requires_grad_()
        unrolled(neuron, leaf)[0].sum().backward()
        grads.append(leaf.grad)
    ours, theirs = grads
    assert ours.isfinite().all()
    number = theirs.isfinite()  # snnTorch's sigmoid overflows to NaN far below the threshold
    assert number.any()
    torch.testing.assert_close(ours[number], theirs[number], rtol=1e-4, atol=1e-6)


def test_surrogates_are_kept_in_one_form_that_fires_strictly_whoever_they_are_from_and_whenever_given():
    neuron = MFPLeaky(0.5, spike_grad=fused.ATan(), reset_mechanism="none")
    assert neuron.spike_grad == MFPLeaky(0.5, reset_mechanism="none").spike_grad
    assert neuron(torch.tensor([1.0, 1.1]))[0].tolist() == [0.0, 1.0]
    neuron.spike_grad = snn_surrogate.fast_sigmoid(slope=10)
    assert (
        neuron.spike_grad
        == MFPLeaky(0.5, spike_grad=fused.SuperSpike(10.0, 1.0), reset_mechanism="none").spike_grad
    )


def test_any_callable_is_a_spike_grad():
    spk, _ = unrolled(
        MFPLeaky(0.5, spike_grad=lambda x: torch.sigmoid(4 * x), reset_mechanism="none"),
        torch.randn(STEPS, 3),
    )
    assert ((spk > 0) & (spk < 1)).all()


# --- calling convention ---


def test_every_argument_of_leaky_comes_first_and_in_its_order():
    ours = list(inspect.signature(MFPLeaky).parameters.values())
    theirs = list(inspect.signature(snn.Leaky).parameters.values())
    assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs]
    differing = {a.name for a, b in zip(ours, theirs, strict=False) if a.default != b.default}
    assert not differing
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours[len(theirs) :])


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("init_hidden", [False, True])
def test_what_is_returned_follows_leakys_rule(init_hidden, output):
    x = torch.randn(2, 3)
    ours = MFPLeaky(0.5, init_hidden=init_hidden, output=output, reset_mechanism="none")(x)
    theirs = leaky(0.5, init_hidden=init_hidden, output=output)(x)
    assert type(ours) is type(theirs)


def test_a_mem_with_init_hidden_is_a_type_error_and_changes_nothing():
    neuron = MFPLeaky(0.5, init_hidden=True, reset_mechanism="none")
    neuron(torch.ones(3))
    with pytest.raises(TypeError, match="init_hidden=True"):
        neuron(torch.ones(3), torch.full((3,), 7.0))
    assert neuron.mem.tolist() == [1.0, 1.0, 1.0]


def test_spikes_are_float32_whatever_the_input():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8):
        for options in ({}, {"order": 3}):
            spk, mem = MFPLeaky(0.5, **options, reset_mechanism="none")(torch.full((2, 3), 2, dtype=dtype))
            assert spk.dtype == torch.float32 and spk.all()
            assert mem.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_input_is_summed_in_float32(dtype):
    x_seq = torch.rand(200, 8).to(dtype)
    for options in ({}, {"order": 150}):
        _, mem = unrolled(MFPLeaky(0.99, **options, reset_mechanism="none"), x_seq)
        taps = 0.99 ** torch.arange(options.get("order", 200), dtype=torch.float64)
        expected = reference.membrane_potential(x_seq.double(), FIR(taps))
        assert (mem.double() - expected).abs().max() < 1e-5 * expected.abs().max()


WHOLE = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("options", [{}, {"order": 3}])
def test_integers_and_booleans_are_read_as_the_default_dtype(dtype, options):
    x_seq = torch.randint(0, 2, (STEPS, 2, 3)).to(dtype)
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            stepwise = unrolled(MFPLeaky(0.9, **options, reset_mechanism="none"), x_seq)
            whole = MFPLeakyParallel(0.9, **options, reset_mechanism="none")(x_seq)
            expected = unrolled(MFPLeaky(0.9, **options, reset_mechanism="none"), x_seq.to(default))
        finally:
            torch.set_default_dtype(torch.float32)
        for spk, mem in (stepwise, whole):
            assert mem.dtype == default and spk.dtype == torch.float32
            torch.testing.assert_close(mem, expected[1])
        assert torch.equal(stepwise[0], expected[0])


@pytest.mark.parametrize(
    "wrong",
    [
        torch.ones(2, 2, dtype=torch.complex64),
        torch.ones(2, 2).to(torch.float8_e4m3fn),
        torch.ones(2, 2).to_sparse(),
        [1.0, 2.0],
    ],
)
@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
@pytest.mark.parametrize("options", [{}, {"order": 3}])
def test_an_input_that_is_no_real_dense_tensor_is_refused(wrong, make, options):
    with pytest.raises(TypeError, match="input_ must be a"):
        make(0.5, **options)(wrong)


def test_a_beta_that_would_enlarge_the_step_is_refused():
    with pytest.raises(ValueError, match=r"beta \[5, 3\] does not broadcast over a step of input_, \[3\]"):
        MFPLeaky(torch.rand(5, 3), reset_mechanism="none")(torch.rand(3))


@pytest.mark.parametrize("options", [{}, {"kernel": "fir", "order": 3}])
def test_channels_are_counted_along_dim_one_and_nowhere_else(options):
    for neuron, x in ((MFPLeaky, torch.rand(3)), (MFPLeakyParallel, torch.rand(4, 3))):
        with pytest.raises(ValueError, match="channels along dim 1"):
            neuron(0.5, num_channels=3, **options)(x)


@pytest.mark.parametrize("options", [{}, {"order": 3}])
def test_a_new_shape_starts_from_zero_and_the_same_shape_goes_on(options):
    neuron = MFPLeaky(0.5, init_hidden=True, output=True, **options, reset_mechanism="none")
    neuron(torch.ones(4, 2))
    assert torch.equal(neuron(torch.ones(4, 2))[1], torch.full((4, 2), 1.5))
    assert torch.equal(neuron(torch.ones(3, 2))[1], torch.ones(3, 2))


# --- arguments that are refused, before anything is registered ---


@pytest.mark.parametrize(
    ("error", "named", "options"),
    [
        (ValueError, "beta", {"beta": float("nan")}),
        (ValueError, "beta", {"beta": torch.tensor([0.5, float("nan")])}),
        (TypeError, "beta", {"beta": "0.5"}),
        (TypeError, "beta", {"beta": True}),
        (TypeError, "beta", {"beta": torch.tensor([1j])}),
        (ValueError, "beta", {"beta": torch.zeros(0)}),
        (ValueError, "threshold", {"threshold": float("nan")}),
        (ValueError, "threshold", {"threshold": float("-inf")}),
        (ValueError, "threshold", {"threshold": torch.tensor([float("inf"), float("nan")])}),
        (ValueError, "stride", {"stride": 2}),
        (ValueError, "stride", {"order": 3, "stride": 0}),
        (ValueError, "stride", {"kernel": "matrix", "time_steps": 4, "order": 2, "stride": 2}),
        (TypeError, "threshold", {"threshold": None}),
        (ValueError, "graded_spikes_factor", {"graded_spikes_factor": float("inf")}),
        (TypeError, "spike_grad", {"spike_grad": "atan"}),
        (TypeError, "state_quant", {"state_quant": 8}),
        (ValueError, "kernel", {"kernel": "gamma"}),
        (ValueError, "order", {"order": 0}),
        (TypeError, "order", {"order": 2.0}),
        (ValueError, "order", {"kernel": "fir"}),
        (ValueError, "time_steps", {"kernel": "matrix"}),
        (ValueError, "time_steps", {"time_steps": 4}),
        (ValueError, "kernel_bits", {"kernel_bits": 9, "order": 4}),
        (ValueError, "order", {"kernel_bits": "pow2"}),
        (ValueError, "order", {"kernel_bits": 4, "beta": 0.5}),
        (ValueError, "learn_beta", {"kernel": "fir", "order": 3, "learn_beta": True}),
        (ValueError, "num_channels", {"num_channels": 0}),
        (ValueError, "num_channels", {"num_channels": 3, "beta": torch.rand(4)}),
        (ValueError, "num_channels", {"kernel": "fir", "order": 3, "beta": torch.rand(4)}),
        (ValueError, "gain", {"gain": torch.rand(3)}),
    ],
)
def test_a_bad_argument_is_named_and_leaves_no_half_built_neuron_behind(error, named, options):
    before = list(snn.SpikingNeuron.instances)
    with pytest.raises(error, match=named):
        MFPLeaky(**{"beta": 0.9, **options}, reset_mechanism="none")
    assert snn.SpikingNeuron.instances == before


def test_a_warning_made_an_error_leaves_no_half_built_neuron_behind():
    before = list(snn.SpikingNeuron.instances)
    with pytest.raises(UserWarning, match="Inhibition"):
        MFPLeaky(0.5, inhibition=True, reset_mechanism="none")
    assert snn.SpikingNeuron.instances == before


def test_without_a_reset_its_delay_changes_nothing():
    x_seq = torch.randn(STEPS, 5)
    with_delay, without = (
        unrolled(MFPLeaky(0.9, reset_delay=delay, reset_mechanism="none"), x_seq) for delay in (True, False)
    )
    assert torch.equal(with_delay[0], without[0]) and torch.equal(with_delay[1], without[1])


def test_power_of_two_taps_need_no_order_where_they_are_exact():
    x_seq = torch.randn(STEPS, 5)
    exact = unrolled(MFPLeaky(0.5, kernel_bits="pow2", reset_mechanism="none"), x_seq)
    assert torch.equal(exact[1], unrolled(MFPLeaky(0.5, reset_mechanism="none"), x_seq)[1])


# --- checkpoints ---


def test_checkpoints_have_leakys_keys_and_go_both_ways():
    options = {"learn_beta": True, "learn_threshold": True}
    ours, theirs = MFPLeaky(0.9, **options, reset_mechanism="none"), leaky(0.3, threshold=2.0, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert ours.beta.item() == theirs.beta.item() and ours.threshold.item() == 2.0
    theirs.load_state_dict(MFPLeaky(0.7, **options, reset_mechanism="none").state_dict())
    assert theirs.beta.item() == pytest.approx(0.7)


def test_state_is_never_saved():
    for options in ({}, {"order": 3}):
        neuron = MFPLeaky(0.5, **options, reset_mechanism="none")
        neuron(torch.ones(3))
        assert not {"mem", "history"} & set(neuron.state_dict())
        assert "mem" in dict(neuron.named_buffers())


# --- state between steps ---


def test_mem_is_an_empty_buffer_when_fresh_and_both_reset_names_return_it():
    neuron = MFPLeaky(0.5, reset_mechanism="none")
    assert neuron.mem.shape == (0,)
    for name in ("reset_mem", "init_leaky"):
        mem = getattr(neuron, name)()
        assert mem is neuron.mem and not mem.any()
        neuron(torch.ones(2, 3), mem)
        assert neuron.mem.shape == (2, 3)


@pytest.mark.parametrize("options", [{}, {"order": 3}, {"kernel": "matrix", "time_steps": STEPS}])
def test_mem_is_never_none_and_never_a_view(options):
    neuron = MFPLeaky(0.5, **options, reset_mechanism="none")
    for x in torch.randn(4, 2, 3, requires_grad=True):
        _, mem = neuron(x)
        assert mem is neuron.mem and not mem._is_view()
        mem.detach_()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": 1},
        {"order": 4},
        {"order": 100},
        {"order": 4, "kernel_bits": "pow2"},
        {"order": 4, "kernel_bits": 3},
        {"kernel": "fir", "order": 5},
        {"kernel": "fir", "order": 9, "kernel_bits": "pow2"},
        {"kernel": "matrix", "time_steps": STEPS},
        {"kernel": "matrix", "time_steps": STEPS, "order": 3},
        {"gain": 0.25},
        {"gain": 0.25, "order": 6},
        {"order": 3, "stride": 4},
        {"order": 3, "stride": 2, "kernel_bits": "pow2", "gain": 0.3},
        {"kernel": "fir", "order": 3, "stride": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "shape", [(3, 4), (), (1,), (0,), (2, 0), (0, 3), (2, 1, 3), (2, 1, 3, 1, 2, 2), (2, 1, 1, 1, 2, 1, 2)]
)
def test_every_kernel_has_the_defined_potential_in_every_shape_that_leaky_takes(options, shape):
    neuron = MFPLeaky(0.8, **options, reset_mechanism="none").double()
    x_seq = torch.randn(STEPS, *shape, dtype=torch.float64)
    spk, mem = unrolled(neuron, x_seq)
    assert unrolled(leaky(0.8).double(), x_seq)[1].shape == mem.shape == spk.shape == x_seq.shape
    torch.testing.assert_close(mem, reference.membrane_potential(x_seq, neuron.kernel()))


@pytest.mark.parametrize("kernel", ["exp", "fir"])
@settings(max_examples=20)
@given(order=st.integers(1, 4), stride=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_taps_a_stride_apart_start_as_the_exponential_is_there(kernel, order, stride, seed):
    beta = torch.tensor([0.3, 0.9], dtype=torch.float64)
    channels = {"num_channels": 2} if kernel == "fir" else {}
    neuron = MFPLeaky(
        beta, kernel=kernel, order=order, stride=stride, **channels, reset_mechanism="none"
    ).double()
    x_seq = torch.randn(STEPS, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = torch.zeros_like(x_seq)
    for lag in range(0, min(order * stride, STEPS), stride):
        expected[lag:] += beta**lag * x_seq[: STEPS - lag]
    _, mem = unrolled(neuron, x_seq)
    torch.testing.assert_close(mem, expected, rtol=1e-6, atol=1e-6)  # fir's taps are float32
    torch.testing.assert_close(mem, reference.membrane_potential(x_seq, neuron.kernel()))
    assert neuron.kernel.state_steps == (order - 1) * stride == len(neuron.history)
    whole = MFPLeakyParallel(
        beta, kernel=kernel, order=order, stride=stride, **channels, reset_mechanism="none"
    ).double()
    torch.testing.assert_close(whole(x_seq)[1], mem)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2)])
@pytest.mark.parametrize("options", [{}, {"order": 3}, {"kernel": "fir", "order": 3}])
def test_num_channels_runs_along_dim_one(shape, options):
    beta = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    neuron = MFPLeaky(beta, num_channels=3, **options, reset_mechanism="none").double()
    _, mem = unrolled(neuron, torch.ones(STEPS, *shape, dtype=torch.float64))
    for channel, decay in enumerate(beta):
        expected = sum(decay**j for j in range(options.get("order", STEPS)))
        torch.testing.assert_close(mem[-1, :, channel], expected.expand_as(mem[-1, :, channel]))


@pytest.mark.parametrize(
    "options", [{}, {"order": STEPS}, {"kernel": "fir", "order": STEPS, "num_channels": 3}]
)
def test_gain_scales_the_input_of_each_neuron(options):
    beta, gain = torch.tensor([0.5, 0.25, 0.9]), torch.tensor([2.0, 0.5, 1.5])
    x_seq = torch.randn(STEPS, 4, 3)
    _, mem = unrolled(MFPLeaky(beta, gain=gain, **options, reset_mechanism="none"), x_seq)
    torch.testing.assert_close(mem, unrolled(leaky(beta), gain * x_seq)[1])


def test_learn_beta_reaches_through_a_finite_kernel():
    for options in ({"order": 3}, {"order": 3, "kernel_bits": "pow2"}):
        neuron = MFPLeaky(0.7, learn_beta=True, **options, reset_mechanism="none")
        unrolled(neuron, torch.rand(STEPS, 4))[1].sum().backward()
        assert neuron.beta.grad.abs() > 0


def test_free_taps_are_parameters_under_kernel():
    assert [
        name for name, _ in MFPLeaky(0.5, kernel="fir", order=3, reset_mechanism="none").named_parameters()
    ] == ["kernel.taps"]
    neuron = MFPLeaky(
        torch.tensor([0.5, 0.25]), kernel="fir", order=3, num_channels=2, gain=2.0, reset_mechanism="none"
    )
    assert neuron.kernel.taps.T.tolist() == [[2.0, 1.0, 0.5], [2.0, 0.5, 0.125]]


FINITE = {"kernel": "fir", "order": 4}


def test_a_finite_history_is_dropped_by_every_way_to_reset_and_kept_by_every_way_to_detach():
    x_seq = torch.randn(6, 2, 3)
    expected = unrolled(MFPLeaky(0.7, **FINITE, reset_mechanism="none"), x_seq)[1]
    neuron = MFPLeaky(0.7, **FINITE, reset_mechanism="none")
    only = _only(neuron)
    resets = [neuron.reset_mem, neuron.init_leaky, lambda: snn.Leaky.reset_hidden.__func__(only)]
    for again in [*resets, lambda: setattr(neuron, "mem", torch.zeros(2, 3))]:
        neuron(torch.randn(2, 3))
        again()
        assert torch.equal(torch.stack([neuron(x)[1] for x in x_seq]), expected)
    for start in (torch.zeros(2, 3), torch.zeros(0)):
        mem, rec = start, []
        for x in x_seq:
            _, mem = neuron(x, mem)
            rec.append(mem)
        assert torch.equal(torch.stack(rec), expected)
    neuron.reset_mem()
    rec = []
    for x in x_seq:
        rec.append(neuron(x.clone().requires_grad_())[1].detach())
        snn.Leaky.detach_hidden.__func__(only)
    assert torch.equal(torch.stack(rec), expected.detach())


def test_detaching_mem_by_hand_cuts_a_finite_history_too():
    neuron = MFPLeaky(0.7, order=4, reset_mechanism="none")
    first = torch.randn(2, 3, requires_grad=True)
    _, mem = neuron(first)
    _, mem = neuron(torch.randn(2, 3, requires_grad=True), mem.detach())
    mem.sum().backward()
    assert first.grad is None


def test_a_matrix_is_refused_past_its_last_step():
    neuron = MFPLeaky(0.7, kernel="matrix", time_steps=2, reset_mechanism="none")
    neuron(torch.ones(3)), neuron(torch.ones(3))
    with pytest.raises(ValueError, match="matrix kernel of 2 steps"):
        neuron(torch.ones(3))
    neuron.reset_mem()
    neuron(torch.ones(3))


def test_a_finite_history_follows_the_module_to_another_dtype():
    x_seq = torch.randn(6, 2, 3)
    neuron = MFPLeaky(0.7, order=4, reset_mechanism="none")
    for x in x_seq[:3]:
        neuron(x)
    neuron.double()
    for x in x_seq[3:]:
        _, mem = neuron(x.double())
    torch.testing.assert_close(
        mem, unrolled(MFPLeaky(0.7, order=4, reset_mechanism="none"), x_seq.double())[1][-1]
    )
