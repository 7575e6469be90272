"""The CUDA kernels of neurons with a reset: outputs and every gradient against a loop over time in float64.

They run on a GPU if there is one, else on the host.
"""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mfp_neurons import functional
from mfp_neurons.backends import cupy_launch
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.kernels import device as cuda
from tests.backend_runs import CUDA_DEVICE as DEVICE
from tests.backend_runs import on_cuda_kernels
from tests.neurons_with_reset import (
    NEURONS,
    assert_equals_the_loop,
    calls,
    distance_from_threshold,
    many_neurons,
)
from tests.test_ops import Calls, as_leaf

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True, scope="module")
def _on_cuda_kernels():
    with on_cuda_kernels():
        yield


@given(call=calls(), dtype=st.sampled_from(DTYPES), wanted=st.sampled_from(["both", "spikes", "potential"]))
@settings(max_examples=60, deadline=None)
def test_outputs_and_every_gradient_are_those_of_a_loop_over_time(call, dtype, wanted):
    call = call.to(dtype, DEVICE)
    assume(distance_from_threshold(call.exact()) > 1e-4)
    assert_equals_the_loop(call, dtype, wanted)


@pytest.mark.parametrize(("kind", "reset"), NEURONS)
@pytest.mark.parametrize("steps", [4, 16, 40])
@pytest.mark.parametrize("layout", ["per layer", "per channel", "channels last"])
def test_sums_are_of_all_neurons_where_a_block_takes_many(kind, reset, steps, layout):
    call = many_neurons(kind, reset, steps, layout)
    # fewer blocks than tiles, which otherwise takes more neurons than the host can go through
    with mock.patch.multiple(cupy_launch, BLOCKS=2, ROUNDS=1000):
        assert_equals_the_loop(call.to(torch.float64, DEVICE), torch.float64)


@pytest.mark.parametrize(("kind", "reset"), NEURONS)
@pytest.mark.parametrize("steps", [16, 40])
def test_runs_repeat_bit_for_bit_whatever_order_blocks_take(kind, reset, steps):
    call = many_neurons(kind, reset, steps, "per channel").to(torch.float32, DEVICE)
    leaves, grad = list(call.tensors.values()), torch.randn(steps, 5, 16, 12, device=DEVICE)

    def run():
        chunk = call.run()
        return *chunk[:2], *torch.autograd.grad(chunk.spikes, leaves, grad)

    first, second = run(), run()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("kind", "reset"), NEURONS)
@pytest.mark.parametrize("shape", [(4, 0), (4, 0, 3)])
def test_no_neurons_have_no_spikes_and_gradients_of_zero(kind, reset, shape):
    call = many_neurons(kind, reset, 4, "per layer").to(torch.float32, DEVICE)
    tensors = {name: v for name, v in call.tensors.items() if name not in ("scale", "shift")}
    tensors["x"] = torch.empty(shape, device=DEVICE, requires_grad=True)
    chunk = replace(call, tensors=tensors).run()
    assert chunk.spikes.shape == shape
    grads = torch.autograd.grad(chunk.spikes.sum() + chunk.potential.sum(), list(tensors.values()))
    assert all((grad == 0).all() for grad in grads)


@pytest.mark.parametrize("steps", [3, 9, 40])
def test_what_is_forgotten_may_be_no_number(steps):
    """Inputs beyond the order, and inputs and potentials before an own spike."""
    x = torch.ones(steps, 2, device=DEVICE)
    x[0] = torch.nan
    taps, feedback = torch.ones(1, device=DEVICE), torch.zeros(3, device=DEVICE)
    options = dict(record=True, reset="feedback", reset_taps=feedback)
    u = functional.fire_chunk(x, FIR(taps), 1.0, **options).potential
    assert u[0].isnan().all() and (u[1:] == 1).all()
    x[0] = torch.inf
    for kernel in (FIR(torch.ones(5, device=DEVICE)), Exponential(1.0)):
        leaf = x.clone().requires_grad_()
        chunk = functional.fire_chunk(leaf, kernel, 1.0, record=True, reset="zero")
        assert (chunk.potential[1:] == 1).all() and chunk.spikes.all()
        (grad,) = torch.autograd.grad(chunk.potential[2:].sum(), leaf, retain_graph=True)
        assert (grad[2:] == grad[2:]).all()


LAUNCHES = {  # forward, backward with all gradients: the kernel, and that which adds up its sums
    ("exp", "subtract", 16): (1, 2),
    ("exp", "zero", 16): (1, 2),
    ("exp", "subtract", 70): (1, 2),
    ("fir", "feedback", 16): (1, 2),
    ("fir", "zero", 16): (1, 2),
    ("fir", "feedback", 70): (1, 9),
}


@pytest.mark.parametrize(("kind", "reset", "steps"), LAUNCHES)
def test_a_reset_takes_one_launch(kind, reset, steps):
    call, launches = many_neurons(kind, reset, steps, "per layer").to(torch.float32, DEVICE), []
    launch = cuda.launch

    def counted(device, what):
        launches.append(what.kernel.name)
        launch(device, what)

    with mock.patch.object(cuda, "launch", counted):
        chunk = call.run()
        forward = len(launches)
        torch.autograd.grad(chunk.spikes.sum(), list(call.tensors.values()))
    assert (forward, len(launches) - forward) == LAUNCHES[kind, reset, steps]


# torch's own check reads .grad of a tensor that is no leaf
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(("kind", "reset"), NEURONS)
@pytest.mark.parametrize("steps", [3, 18])
@pytest.mark.parametrize("continues", [False, True])
def test_the_operator_passes_opcheck(kind, reset, steps, continues):
    call = many_neurons(kind, reset, steps, "per channel")
    tensors = {name: v for name, v in call.tensors.items() if name not in ("scale", "shift")}
    tensors["x"] = tensors["x"][:, :1, :, :2].contiguous()
    if continues:
        step = tensors["x"].shape[1:]
        held = 1 if kind == "exp" else 4
        tensors["state"] = torch.randn(step if kind == "exp" else (held, *step), dtype=torch.float64)
        tensors["own"] = torch.ones(3 if reset == "feedback" else held, *step, dtype=torch.float64)
    with Calls() as calls:
        replace(call, tensors=tensors).to(torch.float64, DEVICE).run()
    for operator, arguments in calls.made:
        torch.library.opcheck(operator, tuple(map(as_leaf, arguments)))
