"""The torch modules: parameters, initial kernels, quantization, training, and what is refused."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from mfp_neurons import MFP
from mfp_neurons.history import FIR, Exponential, quantize_taps
from mfp_neurons.neuron import HistoryKernel
from mfp_neurons.reference import membrane_potential

ALL = {
    "exp": dict(),
    "learned exp per channel": dict(learnable=True, num_channels=3),
    "exp, order 4, 3 bits": dict(order=4, kernel_bits=3, learnable=True),
    "exp, pow2 without order": dict(kernel_bits="pow2"),
    "fir": dict(kernel="fir", order=4),
    "fir pow2 per channel": dict(kernel="fir", order=4, num_channels=3, kernel_bits="pow2"),
    "matrix": dict(kernel="matrix", time_steps=6),
    "banded matrix": dict(kernel="matrix", time_steps=6, order=4, kernel_bits="pow2"),
}
each_kernel = pytest.mark.parametrize("options", ALL.values(), ids=ALL.keys())


@each_kernel
def test_every_kernel_starts_as_the_exponential(options):
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    expected = Exponential(
        0.5, order=options.get("order")
    )  # powers of 1/2: quantization to "pow2" keeps them
    if isinstance(options.get("kernel_bits"), int):
        expected = FIR(quantize_taps(expected.taps(4), options["kernel_bits"]))
    mine = membrane_potential(x, MFP(0.5, **options).kernel())
    torch.testing.assert_close(mine, membrane_potential(x, expected), rtol=1e-6, atol=1e-6)


@each_kernel
def test_training_moves_every_parameter_and_lowers_the_loss(options):
    module = torch.nn.Sequential(MFP(0.5, learn_threshold=True, **options), torch.nn.Linear(3, 2))
    x, target = torch.randn(6, 40, 3), torch.randn(6, 40, 2)
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    losses = []
    for _ in range(30):
        loss = (module(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(not torch.equal(p, start[name]) for name, p in module.named_parameters())


@each_kernel
def test_copies_pickles_and_state_dicts_keep_the_behavior(options):
    module, x = MFP(0.5, **options), torch.randn(6, 2, 3)
    for parameter in module.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    loaded = MFP(0.5, **options)
    loaded.load_state_dict(torch.load(buffer))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(twin(x), module(x))
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()}
    assert all(p.dim() > 0 for p in module.parameters())


@each_kernel
def test_parameters_stay_float32_whatever_the_default_dtype(options):
    torch.set_default_dtype(torch.float64)
    try:
        module = MFP(0.5, learn_threshold=True, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(p.dtype == torch.float32 for p in module.parameters())


@each_kernel
def test_half_precision_modules_compute_in_float32(options):
    module = MFP(0.5, **options)
    x = torch.randn(6, 50, 3).half()
    expected = module(x)
    spikes = module.half()(x)
    assert spikes.dtype == torch.float16
    assert (spikes != expected).float().mean() < 0.02  # the parameters themselves were rounded


def test_a_matrix_never_sees_the_future():
    module = MFP(0.5, kernel="matrix", time_steps=5)
    module.kernel.matrix.data.normal_()
    x = torch.randn(5, 1)
    later = x.clone()
    later[3:] += 10
    assert torch.equal(
        membrane_potential(x, module.kernel())[:3], membrane_potential(later, module.kernel())[:3]
    )


def test_decay_input_gives_taps_that_sum_to_one():
    taps = HistoryKernel("exp", decay=0.5, gain="decay_input")().taps(60)
    torch.testing.assert_close(taps.sum().float(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (dict(decay=1.5), ValueError, "decay must be from 0 to 1, got 1.5"),
        (dict(decay=float("nan")), ValueError, "decay must be finite"),
        (dict(decay=1.0, learnable=True), ValueError, "strictly between 0 and 1"),
        (dict(kernel="iir"), ValueError, "kernel must be one of 'exp', 'fir', 'matrix', got 'iir'"),
        (dict(kernel="fir"), ValueError, "needs order"),
        (dict(kernel="fir", order=0), ValueError, "order must be an integer >= 1, got 0"),
        (dict(kernel="matrix"), ValueError, "needs time_steps"),
        (dict(time_steps=4), ValueError, "takes no time_steps, got 4"),
        (dict(kernel="matrix", time_steps=4, order=5), ValueError, r"at most time_steps \(4\)"),
        (dict(kernel="matrix", time_steps=4, num_channels=5), ValueError, "num_channels must be None"),
        (dict(num_channels=0), ValueError, "num_channels must be an integer >= 1"),
        (dict(kernel_bits=1), ValueError, "kernel_bits must be"),
        (dict(decay=0.9, kernel_bits="pow2"), ValueError, "needs order"),
        (dict(kernel_bits=4), ValueError, "needs order"),
        (dict(learnable=True, kernel_bits="pow2"), ValueError, "needs order"),
        (dict(v_threshold=float("nan")), ValueError, "v_threshold must be finite"),
        (dict(backend="gpu"), ValueError, "backend must be one of"),
        (dict(stride=0, order=2), ValueError, "stride must be an integer >= 1, got 0"),
        (dict(stride=1.5, order=2), TypeError, "stride must be an integer >= 1"),
        (dict(stride=2), ValueError, "needs order, the number of taps, for a stride"),
        (dict(stride=2, kernel="matrix", time_steps=4), ValueError, "takes no stride"),
        (dict(strides=2), TypeError, r"MFP.__init__\(\) got an unexpected keyword argument 'strides'"),
    ],
)
def test_bad_options_are_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        MFP(**options)


@pytest.mark.parametrize("value", [np.ones(3), "1", True, None, torch.ones(3), [1.0]], ids=str)
@pytest.mark.parametrize("name", ["decay", "v_threshold"])
def test_what_is_no_number_is_refused_in_one_line(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a number, got"):
        MFP(**{name: value})


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), 1])
def test_numbers_of_numpy_and_whole_ones_are_taken(number):
    neuron = MFP(number, v_threshold=number)
    assert neuron.v_threshold == float(number) and type(neuron.v_threshold) is float
