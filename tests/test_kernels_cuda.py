"""The CUDA kernels against the definition: on the host (tests/cuda_on_host), or on a GPU if there is one."""

import itertools
from importlib.util import find_spec
from unittest import mock

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from mfp_neurons import functional, norm_ops, ops, reference
from mfp_neurons._arguments import prepare
from mfp_neurons._operators import along_channels
from mfp_neurons.backends import _cuda_exp, _cuda_launch, cupy
from mfp_neurons.backends.torch import Call
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.kernels import device as cuda
from mfp_neurons.surrogate import ATan, Rect, Sigmoid
from tests import cuda_instances, cuda_on_host
from tests.strategies import SURROGATES, Case, cases

GPU = cuda.unavailable(torch.device("cuda")) is None
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INSTANCES = set(cuda_instances.every())


@pytest.fixture(autouse=True, scope="module")
def _on_cuda_kernels():
    """All operators run on the CUDA kernels, and what they leave unwritten is NaN."""
    launch = cuda.launch if GPU else cuda_on_host.launch

    def known(device: torch.device, what: cuda.Launch) -> None:
        assert what.kernel in INSTANCES, f"{what.kernel} is not among the instances that are compiled in CI"
        launch(device, what)

    def choose(name: str, device: torch.device):
        return cupy

    torch.use_deterministic_algorithms(True)
    with (
        mock.patch.object(cuda, "launch", known),
        mock.patch.object(ops, "choose", choose),
        mock.patch.object(norm_ops, "choose", choose),
    ):
        yield
    torch.use_deterministic_algorithms(False)


def test_where_pytorch_and_cupy_have_a_gpu_it_is_the_gpu_that_is_tested():
    if not torch.cuda.is_available() or find_spec("cupy") is None:
        pytest.skip("no GPU, or no CuPy: the kernels run on the host")
    assert cuda.unavailable(torch.device("cuda")) is None


def moved(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """On the device, with the same strides, also where no elementwise operation keeps them."""
    whole = torch.as_strided(
        tensor.detach(), (tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0
    )
    whole = whole.to(DEVICE, dtype or tensor.dtype)
    return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def on_device(case: Case, dtype: torch.dtype) -> Case:
    parameters = [moved(p, dtype) for p in case.parameters]
    return Case(moved(case.x, dtype), case.kind, parameters, case.order, moved(case.threshold, dtype))


def assert_close(mine: Tensor, theirs: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    """theirs in float64; within the rounding of dtype, and of float32 sums for the narrow ones."""
    rounding = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 0, torch.float64: 0}[dtype]
    of_sums = 1e-9 if dtype == torch.float64 else 2e-5
    tolerance = dict(rtol=rounding + of_sums, atol=of_sums * scale)
    torch.testing.assert_close(mine.detach().double(), theirs.detach(), check_stride=False, **tolerance)


def along(value: Tensor, like: Tensor) -> Tensor:
    return value.detach().reshape(-1, *[1] * (like.dim() - 3)) if value.numel() > 1 else value.detach()


@given(
    case=cases(),
    dtype=st.sampled_from(DTYPES),
    surrogate=st.sampled_from(SURROGATES),
    strict=st.booleans(),
)
def test_spikes_and_every_gradient_agree_with_the_reference(case: Case, dtype, surrogate, strict):
    case = on_device(case, dtype)
    exact = case.to(torch.float64)
    above = reference.membrane_potential(exact.x, exact.kernel()) - along(exact.threshold, exact.x)
    if isinstance(surrogate, Rect) and dtype != torch.float64:  # a jump that rounding decides
        assume(((above.abs() - 0.5 / surrogate.alpha).abs() > 1e-3).all())
    leaves, exact_leaves, grad = case.leaves(), exact.leaves(), torch.randn_like(case.x)
    arguments = dict(surrogate=surrogate, strict=strict)
    mine = functional.fire(case.x, case.kernel(), case.threshold, **arguments)
    theirs = reference.fire(exact.x, exact.kernel(), exact.threshold, **arguments)
    bound = 1e-12 if dtype == torch.float64 else 1e-4
    clear = above.abs() > bound * (1 + above.abs().max())
    assert torch.equal(mine[clear].double(), theirs[clear])
    found = torch.autograd.grad(mine, leaves, grad)
    expected = torch.autograd.grad(theirs, exact_leaves, grad.double())
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, dtype, 10 * (1 + b.abs().max().item()) * (1 if dtype == torch.float64 else 3))


@given(
    case=cases(), dtype=st.sampled_from([torch.float32, torch.float64]), record=st.booleans(), data=st.data()
)
def test_a_sequence_cut_anywhere_gives_the_whole_with_all_gradients(case: Case, dtype, record, data):
    case = on_device(case, dtype)
    exact = case.to(torch.float64)
    leaves, exact_leaves = case.leaves(), exact.leaves()
    steps = len(case.x)
    cuts = sorted(data.draw(st.sets(st.integers(1, steps - 1)))) if steps > 1 else []
    ends = [*cuts, steps]
    state, potentials = None, []
    for start, end in itertools.pairwise([0, *ends]):
        chunk = functional.fire_chunk(
            case.x[start:end], case.kernel(), case.threshold, state, record=record, surrogate=Sigmoid()
        )
        state = chunk.state
        potentials.append(chunk.potential if record else chunk.potential.unsqueeze(0))
    mine = torch.cat(potentials)
    theirs = reference.membrane_potential(exact.x, exact.kernel())
    theirs = theirs if record else theirs[[end - 1 for end in ends]]
    assert_close(mine, theirs, dtype, 10)
    weights = torch.randn_like(mine)
    wanted = [i for i in range(len(leaves)) if i != 1]  # the threshold has no part in the potential
    found = torch.autograd.grad((mine * weights).sum(), [leaves[i] for i in wanted], allow_unused=True)
    expected = torch.autograd.grad(
        (theirs * weights.double()).sum(), [exact_leaves[i] for i in wanted], allow_unused=True
    )
    for a, b in zip(found, expected, strict=True):
        if b is not None:
            assert_close(a, b, dtype, 30 * (1 + b.abs().max().item()))


def recursion(x: Tensor, decay: Tensor, gain: Tensor, state: Tensor | None) -> Tensor:
    """u[t] = decay u[t-1] + gain x[t], a step at a time; channels along dim 2."""
    decay, gain = along_leaf(decay, x), along_leaf(gain, x)
    u, rows = torch.zeros_like(x[0]) if state is None else state, []
    for step in x:
        u = decay * u + gain * step
        rows.append(u)
    return torch.stack(rows)


def along_leaf(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.dim() - 3)) if value.numel() > 1 else value


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
    above = potential - along_leaf(exact[3], potential)
    spikes = ATan()(above)
    clear = above.abs() > 1e-4
    assert torch.equal(mine.spikes[clear].double(), spikes[clear])
    assert_close(mine.potential, potential, dtype, 10)
    ds, du = torch.randn_like(mine.spikes), torch.randn_like(mine.potential)
    found = torch.autograd.grad((mine.spikes, mine.potential), leaves, (ds, du))
    expected = torch.autograd.grad((spikes, potential), exact, (ds.double(), du.double()))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, dtype, 10 * (1 + b.abs().max().item()))


@pytest.mark.parametrize("steps", [33, 300])
def test_one_thread_a_neuron_gives_what_the_scan_gives(steps):
    x = torch.randn(steps, 3, 5, dtype=torch.float64, device=DEVICE)
    state = torch.randn(3, 5, dtype=torch.float64, device=DEVICE)
    kernel = torch.rand(2, 5, dtype=torch.float64, device=DEVICE)
    call = Call("exp", kernel, torch.ones(1, dtype=torch.float64, device=DEVICE), state, ATan())
    grad = torch.randn_like(x)

    def run():
        gradients = cupy.backward(grad, None, x, call, False, (*(True,) * 4, False, False))
        return cupy.forward(x, call, True)[1], gradients.x, gradients.kernel, gradients.state

    scanned = run()
    with mock.patch.object(_cuda_exp, "TIME_PARALLEL", False):
        looped = run()
    for a, b in zip(scanned, looped, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@given(case=cases(), dtype=st.sampled_from(DTYPES), record=st.booleans(), data=st.data())
def test_a_mask_gives_the_spikes_and_exactly_the_gradients_of_the_input(case: Case, dtype, record, data):
    case = on_device(case, dtype)
    prepared = prepare(case.x, case.kernel(), case.threshold, None, "auto", carry=False)
    rect = Rect(data.draw(st.sampled_from([0.3, 0.7])))
    state = torch.randn_like(case.x[0]).to(prepared.kernel.dtype) if prepared.kind == "exp" else None
    call = Call(prepared.kind, prepared.kernel, prepared.threshold, state, rect)
    spikes, u = cupy.forward(case.x, call, True)
    masked_spikes, masked_u, mask = cupy.forward_masked(case.x, call, True)
    assert torch.equal(spikes, masked_spikes) and torch.equal(u, masked_u)
    assert list(mask.shape) == cupy.mask_shape(case.x, call.per_channel)
    ds = torch.randn_like(spikes)
    du = torch.randn_like(u) if record else torch.randn_like(u[-1])
    for own in (du, None):
        plain = cupy.backward(
            ds, own, case.x, call, record, (True, False, False, state is not None, False, False)
        )
        masked = cupy.backward_masked(ds, own, mask, call, record, (True, state is not None))
        assert torch.equal(plain.x, masked.x)
        assert state is None or torch.equal(plain.state, masked.state)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [40, 300])
@pytest.mark.parametrize("neurons", [16, 21])
def test_a_mask_of_a_long_sequence_gives_exactly_the_gradients_too(dtype, steps, neurons):
    x = torch.randn(steps, 3, neurons, device=DEVICE).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    kernel = torch.tensor([[0.9], [0.7]], device=DEVICE, dtype=wide)
    call = Call("exp", kernel, torch.ones(1, device=DEVICE, dtype=wide), None, Rect(0.5))
    _, _, mask = cupy.forward_masked(x, call, False)
    grad = torch.randn_like(x)
    plain = cupy.backward(grad, None, x, call, False, (True, False, False, False, False, False))
    assert torch.equal(plain.x, cupy.backward_masked(grad, None, mask, call, False, (True, False)).x)
    assert plain.x.any()


@pytest.mark.parametrize("kind", ["exp", "fir", "fir of many steps"])
@pytest.mark.parametrize("layout", ["per layer", "per channel", "channels last"])
def test_blocks_that_go_through_many_neurons_sum_them_all(kind, layout):
    x = torch.randn(20 if "many" in kind else 4, 9, 16, 12, dtype=torch.float64, device=DEVICE)
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    channels = 1 if layout == "per layer" else 16
    weights = torch.rand(2 if kind == "exp" else 3, channels, dtype=torch.float64, device=DEVICE) * 0.5
    threshold = torch.rand(channels, dtype=torch.float64, device=DEVICE)
    maps = torch.rand(2, channels, dtype=torch.float64, device=DEVICE) + 0.5
    call = Call(kind[:3], weights, threshold, None, ATan(), scale=maps[0], shift=maps[1])
    grad = torch.randn_like(x)
    leaves = [weights.clone().requires_grad_(), threshold.clone().requires_grad_()]
    leaves += [maps[0].clone().requires_grad_(), maps[1].clone().requires_grad_()]
    y = along_leaf(leaves[2], x) * x + along_leaf(leaves[3], x)
    if kind == "exp":
        potential = recursion(y, leaves[0][0], leaves[0][1], None)
    else:
        potential = reference.membrane_potential(y, FIR(leaves[0]))
    above = potential - along_leaf(leaves[1], x)
    expected = torch.autograd.grad(ATan()(above), leaves, grad)
    variance, mean = torch.var_mean(x, (0, 1, 3), correction=0)
    with mock.patch.multiple(_cuda_launch, BLOCKS=2, ROUNDS=1000):
        found = cupy.backward(grad, None, x, call, False, (False, True, True, False, True, True))
        moments = cupy.channel_moments(x)
    assert found.x is None
    for a, b in zip((found.kernel, found.threshold, found.scale, found.shift), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    for a, b in zip(moments, (mean, variance), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 2, 4, 5, 2), (4, 8, 16), (2, 3, 8, 1, 4), (40, 1, 3), (5, 70, 2, 3)])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "sliced"])
def test_moments_of_channels_are_those_of_float64(dtype, shape, layout):
    x = torch.randn(shape, device=DEVICE) * 2 + torch.arange(shape[2], device=DEVICE).reshape(
        -1, *[1] * (len(shape) - 3)
    )
    x = x.to(dtype)
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "sliced":
        x = torch.stack([x, x + 1], 1)[:, 0]
    dims = [d for d in range(x.dim()) if d != 2]
    variance, mean = torch.var_mean(x.double(), dims, correction=0)
    mine = cupy.channel_moments(x)
    tolerance = dict(rtol=1e-10, atol=1e-12) if dtype == torch.float64 else dict(rtol=3e-6, atol=1e-6)
    for a, b in zip(mine, (mean, variance), strict=True):
        torch.testing.assert_close(a.double(), b, **tolerance)


def test_a_large_mean_costs_the_variance_no_digits():
    x = torch.randn(4, 64, 3, 5, device=DEVICE) + 1e4
    _, variance = cupy.channel_moments(x)
    torch.testing.assert_close(variance.double(), x.double().var((0, 1, 3), correction=0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 2, 4, 5, 2), (4, 8, 16), (40, 1, 3)])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_an_affine_map_of_each_channel_is_added_in_place(dtype, shape, layout):
    x, gx = (torch.randn(shape, device=DEVICE).to(dtype) for _ in range(2))
    if layout == "channels last":
        gx = gx.movedim(2, -1).contiguous().movedim(-1, 2)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    factor, offset = torch.randn(2, shape[2], dtype=wide, device=DEVICE)
    expected = gx.double() + along_channels(factor, x.dim()) * x.double() + along_channels(offset, x.dim())
    cupy.add_channel_affine_(gx, x, factor, offset)
    assert_close(gx, expected, dtype)


@given(
    case=cases(),
    dtype=st.sampled_from(DTYPES),
    surrogate=st.sampled_from([ATan(), Sigmoid()]),
    per_channel=st.booleans(),
)
def test_an_affine_map_of_the_input_is_the_references_with_all_gradients(
    case: Case, dtype, surrogate, per_channel
):
    assume(case.x.dim() > 2)
    case = on_device(case, dtype)
    prepared = prepare(case.x, case.kernel(), case.threshold, None, "auto", carry=False)
    wide, channels = prepared.kernel.dtype, case.x.shape[2] if per_channel else 1
    scale, shift = torch.rand(channels, device=DEVICE) + 0.5, torch.randn(channels, device=DEVICE)
    scale, shift = scale.to(wide), shift.to(wide)
    call = Call(prepared.kind, prepared.kernel, prepared.threshold, None, surrogate, scale=scale, shift=shift)
    ds = torch.randn_like(case.x)
    _, u = cupy.forward(case.x, call, True)
    found = cupy.backward(ds, None, case.x, call, False, (True, True, True, False, True, True))
    given = [found.x, found.kernel, found.threshold, found.scale, found.shift]
    assert len({gradient.untyped_storage().data_ptr() for gradient in given}) == len(given)
    exact = case.to(torch.float64)
    maps = [scale.double().requires_grad_(), shift.double().requires_grad_()]
    leaves = exact.leaves()
    y = along_leaf(maps[0], exact.x) * exact.x + along_leaf(maps[1], exact.x)
    theirs = reference.membrane_potential(y, exact.kernel())
    spikes = reference.fire(y, exact.kernel(), exact.threshold, surrogate=surrogate)
    expected = torch.autograd.grad(spikes, [*leaves[:2], *maps], ds.double())
    assert_close(u, theirs, torch.float32 if dtype != torch.float64 else dtype, 10)
    mine = (found.x, found.threshold, found.scale, found.shift)
    for a, b, name in zip(mine, expected, ("x", "threshold", "scale", "shift"), strict=True):
        precision = dtype if name == "x" else wide
        assert_close(a, b.reshape(a.shape), precision, 30 * (1 + b.abs().max().item()))


@pytest.mark.parametrize("kernel", ["exp", "fir", "matrix"])
def test_runs_repeat_bit_for_bit_whatever_order_blocks_take(kernel):
    steps = {"exp": 600, "fir": 70, "matrix": 20}[kernel]
    x = torch.randn(steps, 9, 4, device=DEVICE)
    weights = {"exp": (2, 4), "fir": (11, 4), "matrix": (steps, steps)}[kernel]
    call = Call(kernel, torch.rand(weights, device=DEVICE) * 0.9, torch.ones(4, device=DEVICE), None, ATan())
    grad = torch.randn_like(x)

    def run():
        gradients = cupy.backward(grad, None, x, call, False, (True, True, True, False, False, False))
        return *cupy.forward(x, call, True), gradients.x, gradients.kernel, gradients.threshold

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


@pytest.mark.parametrize("kind", ["exp", "fir", "matrix"])
@pytest.mark.parametrize("shape", [(4, 0), (4, 0, 3), (4, 2, 0, 5)])
def test_an_empty_batch_gives_empty_spikes_and_zero_gradients(kind, shape):
    x = torch.zeros(shape, device=DEVICE)
    call = Call(kind, torch.rand(4 if kind == "matrix" else 2, 4 if kind == "matrix" else 1, device=DEVICE),
                torch.ones(1, device=DEVICE), None, ATan())  # fmt: skip
    spikes, u = cupy.forward(x, call, True)
    found = cupy.backward(spikes, None, x, call, True, (True, True, True, False, False, False))
    assert spikes.shape == u.shape == found.x.shape == x.shape
    assert not found.kernel.any() and not found.threshold.any()


def test_strides_beyond_32_bits_are_reached():
    stride = 2**31 + 8
    memory = torch.empty(stride + 8, dtype=torch.float16, device=DEVICE) if GPU else _untouched(stride + 8)
    x = memory.as_strided((2, 8), (stride, 1))
    x.copy_(torch.randn(2, 8))
    call = Call("exp", torch.tensor([[0.5], [1.0]], device=DEVICE))
    _, u = cupy.forward(x, call, True)
    assert_close(
        u,
        recursion(x.double(), torch.tensor([0.5]).to(DEVICE), torch.ones(1).to(DEVICE), None),
        torch.float32,
    )


def _untouched(count: int) -> Tensor:
    """Memory that is only addresses until it is written."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        return torch.empty(count, dtype=torch.float16)
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.parametrize("shape", [(2, 1), (9, 3), (40, 2)])
def test_what_is_older_than_the_order_is_forgotten_even_if_it_is_no_number(shape):
    x = torch.ones(shape, device=DEVICE)
    x[0] = torch.nan
    u = functional.potential(x, FIR(torch.ones(1, device=DEVICE)))
    assert u[0].isnan().all() and (u[1:] == 1).all()
