"""The baseline against its plain twin, SpikingJelly's LIFNode, and traces worked out by hand."""

import copy
import pickle
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons import _serial, surrogate
from mfp_neurons.baseline import QuantizedMembraneLIF

SETTINGS = st.fixed_dictionaries(
    {
        "decay": st.sampled_from([0.3, 0.5, 0.9]),
        "bits": st.sampled_from([None, 1, 2, 4, 8]),
        "v_threshold": st.sampled_from([1.0, 0.6]),
        "v_reset": st.sampled_from([None, 0.0, -0.3]),
        "learnable": st.booleans(),
        "num_channels": st.sampled_from([None, 3]),
        "surrogate": st.sampled_from(
            [surrogate.ATan(), surrogate.Sigmoid(), surrogate.SuperSpike(alpha=2.0)]
        ),
        "strict": st.booleans(),
        "detach_reset": st.booleans(),
    }
)
SHAPES = st.sampled_from([(1, 2, 3), (2, 1, 3), (7, 2, 3, 2), (12, 2, 3, 2, 2)])


def results(lif: QuantizedMembraneLIF, x: Tensor, weight: Tensor) -> list[Tensor]:
    """Spikes, then the gradients of x and of every parameter."""
    x = x.clone().requires_grad_()
    leaves, spikes = [x, *lif.parameters()], lif(x)
    return [spikes.detach(), *torch.autograd.grad((spikes * weight).sum(), leaves, materialize_grads=True)]


def as_twin() -> mock._patch:
    """Within it the module runs the plain loop under autograd; private, because nobody needs the slow one."""
    return mock.patch.object(_serial, "_Serial", mock.Mock(apply=_serial.reference))


@given(SETTINGS, SHAPES, st.integers(0, 2**16))
def test_spikes_and_all_gradients_agree_with_the_plain_twin(settings, shape, seed):
    torch.manual_seed(seed)
    lif = QuantizedMembraneLIF(**settings).double()
    x, weight = torch.randn(2, *shape, dtype=torch.float64) * 1.5
    found = results(lif, x, weight)
    with as_twin():
        expected = results(lif, x, weight)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1:], expected[1:])
    with torch.no_grad():
        assert torch.equal(lif(x), expected[0])


@given(
    st.sampled_from([1.25, 2.0, 5.0]),
    st.sampled_from([None, 0.0, -0.5]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_a_float_potential_is_spikingjellys_lif_node(tau, v_reset, detach_reset, seed):
    framework = pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import neuron  # noqa: F401

    torch.manual_seed(seed)
    x, weight = torch.randn(2, 9, 4, 5, dtype=torch.float64)
    node = framework.neuron.LIFNode(
        tau,
        False,
        v_reset=v_reset,
        surrogate_function=framework.surrogate.ATan(),
        detach_reset=detach_reset,
        step_mode="m",
    )
    lif = QuantizedMembraneLIF(1 - 1 / tau, bits=None, v_reset=v_reset, detach_reset=detach_reset)
    given_x = x.clone().requires_grad_()
    expected = node(given_x)
    (slope,) = torch.autograd.grad((expected * weight).sum(), given_x)
    spikes, found = results(lif, x, weight)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(found, slope)


def test_many_fine_codes_approach_the_float_potential():
    x = torch.rand(8, 4, 50) * 0.6  # stays within the range of the codes
    fine, exact = QuantizedMembraneLIF(bits=8), QuantizedMembraneLIF(bits=None)
    agreement = (fine(x) == exact(x)).float().mean()
    assert agreement > 0.99


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # codes -2 .. 1 times 0.5; h = 0.7, 0.8+0.25, 0.4+0, 0.3+0.25: kept 0.5, 0 (0.05), 0.5, -
        ({"bits": 2}, [0.0, 1.0, 0.0, 0.0]),
        # codes -1, 0: nothing positive is kept
        ({"bits": 1, "lowest_code": -1}, [0.0, 0.0, 0.0, 0.0]),
        # codes 0, 1 times 1: 0.7 is kept as 1, so the second step sees 0.8 + 0.5
        ({"bits": 1, "lowest_code": 0}, [0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_spikes_worked_out_by_hand(options, expected):
    x = torch.tensor([0.7, 0.8, 0.4, 0.3]).reshape(4, 1)
    assert QuantizedMembraneLIF(**options)(x).flatten().tolist() == expected


@given(st.integers(1, 8), st.integers(0, 2**16))
def test_every_stored_potential_is_one_of_its_codes_and_zero_is_one(bits, seed):
    torch.manual_seed(seed)
    lif = QuantizedMembraneLIF(bits=bits)
    low, high = lif.lowest_code, lif.lowest_code + 2**bits - 1
    assert low <= 0 <= high
    codes = lif.stored_potential(torch.randn(5, 3, 4) * 3) / lif.scale.detach()
    assert torch.equal(codes, codes.round())
    assert codes.min() >= low and codes.max() <= high


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_spikes_and_gradient_have_the_dtype_of_the_input(dtype):
    x = torch.randn(4, 2, 3).to(dtype).requires_grad_()
    spikes = QuantizedMembraneLIF(learnable=True)(x)
    spikes.sum().backward()
    assert spikes.dtype == x.grad.dtype == dtype
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 0, 3)])
def test_empty_inputs_pass_through(shape):
    x = torch.randn(*shape, requires_grad=True)
    spikes = QuantizedMembraneLIF(learnable=True)(x)
    spikes.sum().backward()
    assert spikes.shape == x.grad.shape == shape


def test_strides_do_not_matter():
    lif, weight = QuantizedMembraneLIF(learnable=True, num_channels=3), torch.randn(5, 2, 3, 4)
    strided = torch.randn(4, 3, 5, 2).permute(2, 3, 1, 0)
    expanded = torch.randn(5, 1, 3, 4).expand(5, 2, 3, 4)
    for x in (strided, expanded):
        torch.testing.assert_close(results(lif, x, weight), results(lif, x.contiguous(), weight))


def test_nothing_is_kept_between_calls():
    lif, x = QuantizedMembraneLIF(), torch.randn(5, 2, 3)
    assert torch.equal(lif(x), lif(x))
    assert not list(lif.buffers())


def test_one_tensor_of_the_size_of_the_input_is_saved_for_the_backward():
    saved = []
    lif, x = QuantizedMembraneLIF(learnable=True), torch.randn(16, 4, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        lif(x)
    assert [size for size in saved if size >= x.numel()] == [x.numel()]


def test_compiled_it_gives_the_same_spikes_and_gradients():
    lif = QuantizedMembraneLIF(learnable=True).double()
    x, weight = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    compiled = torch.compile(lif, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(results(compiled, x, weight), results(lif, x, weight))


def test_any_callable_serves_as_surrogate_and_the_log_says_that_it_is_slower(said):
    def spikes(over: Tensor) -> Tensor:
        return surrogate.ATan()(over)

    x, weight = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    slower = results(QuantizedMembraneLIF(surrogate=spikes).double(), x, weight)
    assert "slower" in said.text
    torch.testing.assert_close(slower, results(QuantizedMembraneLIF().double(), x, weight))


def test_state_bits_are_those_that_must_be_stored():
    assert QuantizedMembraneLIF(bits=3).state_bits == 3
    assert QuantizedMembraneLIF(bits=None).state_bits == 32
    assert QuantizedMembraneLIF(decay=0.0).state_bits == 0


def test_copies_and_pickles_are_the_same_neuron():
    lif, x = QuantizedMembraneLIF(learnable=True, num_channels=3), torch.randn(5, 2, 3)
    for other in (copy.deepcopy(lif), pickle.loads(pickle.dumps(lif))):
        assert torch.equal(other(x), lif(x))
        assert set(other.state_dict()) == {"decay_logit", "scale"}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bits": 0}, ValueError, "bits"),
        ({"bits": 9}, ValueError, "1 to 8"),
        ({"bits": 2.0}, TypeError, "bits"),
        ({"bits": True}, TypeError, "bits"),
        ({"decay": 1.5}, ValueError, "decay"),
        ({"decay": 1.0, "learnable": True}, ValueError, "learnable"),
        ({"decay": float("nan")}, ValueError, "decay"),
        ({"decay": "0.5"}, TypeError, "decay"),
        ({"v_threshold": 0.0}, ValueError, "v_threshold"),
        ({"v_threshold": 1.0, "v_reset": 1.0}, ValueError, "v_threshold"),
        ({"v_reset": "0"}, TypeError, "v_reset"),
        ({"num_channels": 0}, ValueError, "num_channels"),
        ({"surrogate": "atan"}, TypeError, "surrogate"),
        ({"lowest_code": 1}, ValueError, "lowest_code"),
        ({"bits": None, "lowest_code": 0}, ValueError, "lowest_code"),
    ],
)
def test_a_wrong_argument_is_named(options, error, words):
    with pytest.raises(error, match=words):
        QuantizedMembraneLIF(**options)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.zeros(3, 4, dtype=torch.int64), TypeError),
        (torch.zeros(3), ValueError),
        (torch.zeros(3, 4, 5), ValueError),
        ([1.0], TypeError),
    ],
)
def test_a_wrong_input_is_named(x, error):
    with pytest.raises(error, match="x_seq"):
        QuantizedMembraneLIF(num_channels=4)(x)


def test_the_potential_shown_is_the_one_that_fires():
    x = torch.randn(6, 2, 3)
    for v_reset in (None, -0.25):
        lif = QuantizedMembraneLIF(bits=2, v_reset=v_reset, learnable=True, num_channels=3)
        potential = lif.potential(x)
        assert torch.equal((potential >= 1).float(), lif(x))
        assert not potential.requires_grad
    exact = QuantizedMembraneLIF(bits=None, v_reset=-0.25)
    # v starts at rest and leaks to it: -0.25 + 0.5 * 0 + 0.5, then -0.25 + 0.5 * 0.5 + 0.5
    assert exact.potential(torch.full((2, 1), 0.5)).flatten().tolist() == [0.25, 0.5]


@given(SETTINGS, SHAPES, st.integers(0, 2**16))
def test_the_stored_potential_decays_into_the_next_one(settings, shape, seed):
    torch.manual_seed(seed)
    lif = QuantizedMembraneLIF(**settings).double()
    x = torch.randn(shape, dtype=torch.float64) * 1.5
    decay = settings["decay"]  # of the distance from v_reset, where there is one
    rest = lif.v_reset or 0.0
    carried = decay * (lif.stored_potential(x)[:-1] - rest)
    torch.testing.assert_close(lif.potential(x)[1:] - rest, carried + x[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["scale", "decay_logit"])
def test_a_learned_number_that_is_none_is_refused(name, value):
    lif = QuantizedMembraneLIF(bits=2, learnable=True, num_channels=3)
    lif.get_parameter(name).data[1] = value
    with pytest.raises(ValueError, match=f"{name} must be finite, got {value}"):
        lif(torch.ones(4, 2, 3))
