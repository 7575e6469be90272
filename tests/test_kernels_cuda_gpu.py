"""What only a GPU can show: streams, graphs, several devices, no waiting, sizes beyond 32 bits."""

import pytest
import torch

from mfp_neurons import MFP, functional
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.kernels import device as cuda
from mfp_neurons.surrogate import ATan, Rect

why_not = cuda.unavailable(torch.device("cuda"))
pytestmark = pytest.mark.skipif(why_not is not None, reason=f"needs a GPU and CuPy: {why_not}")

KERNELS = [
    (Exponential(0.9), {}),
    (FIR(torch.rand(3)), {}),
    (Matrix(torch.rand(40, 40)), {}),
    (Exponential(torch.tensor([0.9])), {}),
    (Exponential(0.9), {"reset": "subtract"}),
    (Exponential(torch.tensor([0.9])), {"reset": "zero"}),
    (FIR(torch.rand(3)), {"reset": "feedback", "reset_taps": torch.tensor([-0.5, 0.2, 0.1])}),
    (FIR(torch.rand(3)), {"reset": "zero"}),
]


def on_gpu(kernel):
    if isinstance(kernel, Exponential):
        decay = kernel.decay
        return Exponential(decay.cuda().requires_grad_() if isinstance(decay, torch.Tensor) else decay)
    if isinstance(kernel, FIR):
        return FIR(kernel.taps.cuda().requires_grad_())
    return Matrix(kernel.matrix.cuda().requires_grad_())


def taps_on_gpu(options):
    if "reset_taps" in options:
        return {**options, "reset_taps": options["reset_taps"].cuda().requires_grad_()}
    return options


def train(x, kernel, surrogate=ATan(), **options):
    spikes = functional.fire(x, kernel, 0.7, surrogate=surrogate, backend="cupy", **options)
    return spikes, torch.autograd.grad(spikes.float().sum(), x)[0]


@pytest.mark.parametrize(("kernel", "options"), KERNELS)
@pytest.mark.parametrize("surrogate", [ATan(), Rect()])
def test_a_captured_graph_replays_on_new_inputs(kernel, options, surrogate):
    kernel, options = on_gpu(kernel), taps_on_gpu(options)
    x = torch.randn(40, 300, device="cuda", requires_grad=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            train(x, kernel, surrogate, **options)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = train(x, kernel, surrogate, **options)
    for _ in range(3):
        new = torch.randn_like(x)
        with torch.no_grad():
            x.copy_(new)
        graph.replay()
        expected = train(new.requires_grad_(), kernel, surrogate, **options)
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def test_a_graph_of_many_chunks_replays():
    """The words that blocks hand each other start from zero in every replay."""
    x = torch.randn(2000, 64, device="cuda")
    kernel = Exponential(0.99)
    expected = functional.potential(x, kernel, backend="cupy")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        u = functional.potential(x, kernel, backend="cupy")
    for _ in range(3):
        u.zero_()
        graph.replay()
        assert torch.equal(u, expected)


@pytest.mark.parametrize(("kernel", "options"), KERNELS)
@pytest.mark.parametrize("steps", [4, 40])
def test_nothing_waits_for_the_device(kernel, options, steps):
    if isinstance(kernel, Matrix) and steps != len(kernel.matrix):
        pytest.skip("this matrix is of 40 steps")
    kernel, options = on_gpu(kernel), taps_on_gpu(options)
    x = torch.randn(steps, 300, device="cuda", requires_grad=True)
    train(x, kernel, **options)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(x, kernel, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_kernels_run_on_the_current_stream():
    x = torch.randn(4, 1 << 22, device="cuda")
    expected = functional.fire(x, Exponential(0.5), backend="cupy")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # the default stream would overtake this one
        late = x.clone()
        spikes = functional.fire(late, Exponential(0.5), backend="cupy")
    side.synchronize()
    assert torch.equal(spikes, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_every_device_has_its_own_kernels():
    for index in (1, 0, 1):
        x = torch.randn(40, 300, device=f"cuda:{index}", requires_grad=True)
        spikes, gradient = train(x, Exponential(0.9))
        on_host = functional.fire(x.detach().cpu(), Exponential(0.9), 0.7, backend="torch")
        assert torch.equal(spikes.cpu(), on_host) and gradient.device == x.device
        assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("options", [dict(kernel="exp", learnable=True), dict(kernel="fir", order=3)])
def test_compiled_modules_have_one_graph_and_the_eager_results(options):
    torch._dynamo.reset()
    module = MFP(0.7, **options).cuda()
    compiled = torch.compile(module, fullgraph=True)
    x = torch.randn(6, 2, 4, device="cuda")
    with torch.autocast("cuda", torch.float16):
        mine, theirs = compiled(x), module(x)
    torch.testing.assert_close(mine, theirs)
    mine.sum().backward()


@pytest.mark.parametrize(
    ("kernel", "options"), [one for one in KERNELS if one[1]], ids=lambda one: str(one)[:40]
)
@pytest.mark.parametrize("steps", [4, 16])
def test_a_reset_adds_no_bytes_of_the_inputs_size(kernel, options, steps):
    """What a call with a reset holds at its peak is what it holds without: input, spikes, two gradients."""
    kernel, options = on_gpu(kernel), taps_on_gpu(options)
    x = torch.randn(steps, 1 << 20, device="cuda", requires_grad=True)
    size = x.nbytes

    def peak(**reset):
        train(x, kernel, **reset)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train(x, kernel, **reset)
        return torch.cuda.max_memory_allocated() - before

    assert peak(**options) <= peak() + size / 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_long_and_thin_is_the_recursion_of_float64(dtype):
    x = torch.randn(16384, 1024, device="cuda").to(dtype)
    u = functional.potential(x, Exponential(0.97), backend="cupy")
    row = torch.zeros(1024, device="cuda", dtype=torch.float64)
    for t in range(len(x)):
        row = 0.97 * row + x[t].double()
        if t % 1000 == 0 or t == len(x) - 1:
            torch.testing.assert_close(u[t].double(), row, rtol=1e-5, atol=1e-4)


def test_more_neurons_than_32_bits_count_are_all_reached():
    free, _ = torch.cuda.mem_get_info()
    neurons = 2**31 + 24
    if free < 14 * neurons:
        pytest.skip(f"needs {14 * neurons >> 30} GiB of GPU memory")
    x = torch.empty(1, neurons, device="cuda", dtype=torch.float16)
    x.normal_()
    x.requires_grad_()
    spikes = functional.fire(x, Exponential(0.5), backend="cupy")
    for start in range(0, neurons, 1 << 28):
        part = slice(start, start + (1 << 28))
        assert torch.equal(spikes[0, part], (x[0, part] >= 1).half())
    (gx,) = torch.autograd.grad(spikes, x, spikes.detach())
    tail = x[0, -1000:].float()
    expected = spikes[0, -1000:].float() / (1 + (torch.pi * (tail - 1)).square())
    torch.testing.assert_close(gx[0, -1000:].float(), expected, rtol=1e-3, atol=1e-4)
