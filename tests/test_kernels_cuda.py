"""What the CUDA kernels do beyond what small inputs show: scans, loops over tiles, large strides, repetition.

Their outputs and gradients on small inputs are in test_functional.py and test_norm.py, as of every backend.
They run on a GPU if there is one, else on the host.
"""

from importlib.util import find_spec
from unittest import mock

import pytest
import torch
from torch import Tensor

from mfp_neurons import functional
from mfp_neurons.backends import cupy_launch
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.kernels import device as cuda
from mfp_neurons.norm import Norm
from mfp_neurons.reference import membrane_potential
from mfp_neurons.surrogate import ATan
from tests.backend_runs import CUDA_DEVICE as DEVICE
from tests.backend_runs import assert_close, on_cuda_kernels


@pytest.fixture(autouse=True, scope="module")
def _on_cuda_kernels():
    with on_cuda_kernels():
        yield


def test_where_pytorch_and_cupy_have_a_gpu_it_is_the_gpu_that_is_tested():
    if not torch.cuda.is_available() or find_spec("cupy") is None:
        pytest.skip("no GPU, or no CuPy: the kernels run on the host")
    assert cuda.unavailable(torch.device("cuda")) is None


def along(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.dim() - 3)) if value.numel() > 1 else value


def recursion(x: Tensor, decay: Tensor, gain: Tensor, state: Tensor | None) -> Tensor:
    """u[t] = decay u[t-1] + gain x[t], a step at a time; channels along dim 2."""
    u, rows = torch.zeros_like(x[0]) if state is None else state, []
    for step in x:
        u = along(decay, x) * u + along(gain, x) * step
        rows.append(u)
    return torch.stack(rows)


LONG = [17, 40, 64, 256, 257, 300, 600, 1030]


@pytest.mark.parametrize("steps", LONG)
@pytest.mark.parametrize("layout", ["per layer", "per channel", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_sequences_are_the_recursion_with_all_gradients(steps, layout, dtype):
    channels = 1 if layout == "per layer" else 6
    x = torch.randn(steps, 2, 6, 4)
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    decay, gain, threshold = torch.rand(channels) * 0.2 + 0.8, torch.rand(channels), torch.rand(channels)
    state = torch.randn(x.shape[1:])
    leaves = [v.to(DEVICE, dtype).requires_grad_() for v in (x, decay, gain, threshold, state)]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    kernel = Exponential(leaves[1], leaves[2])
    mine = functional.fire_chunk(leaves[0], kernel, leaves[3], leaves[4], surrogate=ATan(), record=True)
    potential = recursion(exact[0], exact[1], exact[2], exact[4])
    above = potential - along(exact[3], potential)
    spikes = ATan()(above)
    clear = above.abs() > 1e-4
    assert torch.equal(mine.spikes[clear].double(), spikes[clear])
    assert_close(mine.potential, potential, dtype, 10)
    ds, du = torch.randn_like(mine.spikes), torch.randn_like(mine.potential)
    found = torch.autograd.grad((mine.spikes, mine.potential), leaves, (ds, du))
    expected = torch.autograd.grad((spikes, potential), exact, (ds.double(), du.double()))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, dtype, 10 * (1 + b.abs().max().item()))


@pytest.mark.parametrize("kind", ["exp", "fir", "fir of many steps"])
@pytest.mark.parametrize("layout", ["per layer", "per channel", "channels last"])
def test_blocks_that_go_through_many_neurons_sum_them_all(kind, layout):
    x = torch.randn(20 if "many" in kind else 4, 9, 16, 12, dtype=torch.float64, device=DEVICE)
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    channels = 1 if layout == "per layer" else 16
    weights = torch.rand(2 if kind == "exp" else 3, channels, dtype=torch.float64, device=DEVICE) * 0.5
    threshold = torch.rand(channels, dtype=torch.float64, device=DEVICE)
    scale, shift = torch.rand(2, 16, dtype=torch.float64, device=DEVICE) + 0.5
    leaves = [v.requires_grad_() for v in (weights, threshold, scale, shift)]
    kernel = Exponential(weights[0], weights[1]) if kind == "exp" else FIR(weights)
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    grad = torch.randn_like(x)
    # fewer blocks than tiles, which otherwise takes more neurons than the host can go through
    with mock.patch.multiple(cupy_launch, BLOCKS=2, ROUNDS=1000):
        norm = Norm(zeros, ones, scale, shift, eps=0.0)
        found = torch.autograd.grad(functional.norm_fire(x, norm, kernel, threshold), leaves, grad)
        averages = Norm(zeros.clone(), ones.clone(), training=True, momentum=1.0)
        functional.norm_fire(x, averages, kernel, threshold)
    y = along(scale, x) * x + along(shift, x)
    u = recursion(y, weights[0], weights[1], None) if kind == "exp" else membrane_potential(y, kernel)
    expected = torch.autograd.grad(ATan()(u - along(threshold, x)), leaves, grad)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    variance, mean = torch.var_mean(x, (0, 1, 3))
    torch.testing.assert_close(averages.running_mean, mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(averages.running_var, variance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "kernel"),
    [(600, Exponential(torch.rand(4) * 0.9)), (70, FIR(torch.rand(11, 4))), (20, Matrix(torch.rand(20, 20)))],
)
def test_runs_repeat_bit_for_bit_whatever_order_blocks_take(steps, kernel):
    parameter = next(v for v in vars(kernel).values() if isinstance(v, Tensor)).requires_grad_()
    x, threshold = torch.randn(steps, 9, 4, requires_grad=True), torch.ones(4, requires_grad=True)
    grad = torch.randn(steps, 9, 4)

    def run():
        chunk = functional.fire_chunk(x, kernel, threshold, record=True)
        return *chunk[:2], *torch.autograd.grad(chunk.spikes, (x, threshold, parameter), grad)

    first = run()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_many_taps_of_a_long_sequence_are_shifted_sums():
    x = torch.randn(300, 5, dtype=torch.float64, device=DEVICE, requires_grad=True)
    taps = torch.randn(100, dtype=torch.float64, device=DEVICE, requires_grad=True)
    mine = functional.potential(x, FIR(taps))
    padded = torch.cat([x.new_zeros(99, 5), x])
    theirs = sum(taps[j] * padded[99 - j : 399 - j] for j in range(100))
    grad = torch.randn_like(x)
    torch.testing.assert_close(mine, theirs)
    for a, b in zip(
        torch.autograd.grad(mine, (x, taps), grad), torch.autograd.grad(theirs, (x, taps), grad), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_strides_beyond_32_bits_are_reached():
    stride = 2**31 + 8
    # memory that is only addresses until it is written
    torch.utils.deterministic.fill_uninitialized_memory = False
    x = torch.empty(stride + 8, dtype=torch.float16, device=DEVICE).as_strided((2, 8), (stride, 1))
    torch.utils.deterministic.fill_uninitialized_memory = True
    x.copy_(torch.randn(2, 8))
    u = functional.potential(x, Exponential(0.5))
    exact = recursion(x.double(), torch.tensor([0.5], device=DEVICE), torch.ones(1, device=DEVICE), None)
    assert_close(u, exact, torch.float32)


@pytest.mark.parametrize("shape", [(2, 1), (9, 3), (40, 2)])
def test_what_is_older_than_the_order_is_forgotten_even_if_it_is_no_number(shape):
    x = torch.ones(shape, device=DEVICE)
    x[0] = torch.nan
    u = functional.potential(x, FIR(torch.ones(1, device=DEVICE)))
    assert u[0].isnan().all() and (u[1:] == 1).all()
