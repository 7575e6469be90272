"""The host build of CUDA kernels notices mistakes; the launcher tells CUDA what it should.

There is no driver here, so private parts of kernels/device.py are stood in for: what it imports, loads and
has loaded. ``_checks._said`` is what was logged once in this process.
"""

import ctypes
import struct
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from mfp_neurons import _checks, backends, functional
from mfp_neurons._checks import MissingDependency
from mfp_neurons.backends.cupy_launch import Groups
from mfp_neurons.backends.rows import Rows
from mfp_neurons.history import Exponential
from mfp_neurons.kernels import device
from mfp_neurons.kernels.device import Kernel, Launch
from tests import cuda_on_host

MISTAKES = {
    "reads_past_the_end": "a read of 4 bytes outside every tensor",
    "writes_past_the_end": "a write of 4 bytes outside every tensor",
    "forgets_a_barrier": "race|nothing wrote",
    "overwrites_what_is_read": "a race: shared memory another",
    "reads_what_nothing_wrote": "shared memory is read that nothing wrote",
    "waits_at_two_barriers": "threads wait at different barriers",
    "is_not_aligned": "not aligned",
    "waits_for_a_later_block": "every block waits",
}


def run(name: str, blocks: int = 1) -> torch.Tensor:
    x, words = torch.arange(64.0), torch.zeros(1, dtype=torch.int64)
    kernel = Kernel(str(cuda_on_host.HERE / "broken.cu"), f"{name}<0>")
    cuda_on_host.launch(x.device, Launch(kernel, (blocks, 1, 1), (64, 1, 1), [x, 64, words]))
    return x


def test_a_kernel_without_mistakes_runs():
    assert torch.equal(run("right"), torch.arange(64.0).flip(0))


@pytest.mark.parametrize(("name", "words"), MISTAKES.items())
def test_the_host_build_notices(name, words):
    with pytest.raises(AssertionError, match=words):
        run(name, 8 if "later" in name else 1)


def test_a_struct_of_other_fields_is_refused():
    kernel = Kernel(str(cuda_on_host.HERE / "broken.cu"), "right<0>")
    with pytest.raises(AssertionError, match="the struct has other fields"):
        cuda_on_host.launch(torch.device("cpu"), Launch(kernel, (1, 1, 1), (64, 1, 1), [torch.zeros(64)]))


def test_fields_are_packed_as_addresses_integers_and_doubles():
    x = torch.zeros(3)
    assert device.pack([x, None, 7, 0.5, -1]) == struct.pack("=qqqdq", x.data_ptr(), 0, 7, 0.5, -1)


def test_a_launch_names_the_device_the_stream_and_the_struct():
    """CuPy and the driver are stood in for: what reaches cuLaunchKernel is what a GPU would get."""
    calls = []

    class Driver:
        @staticmethod
        def launchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, arguments, extra):
            first = ctypes.c_void_p.from_address(arguments).value
            calls.append(((gx, gy, gz), (bx, by, bz), shared, stream, ctypes.string_at(first, 16), extra))

    class Runtime:
        setDevice = staticmethod(calls.append)

    @contextmanager
    def torch_guard(index):
        calls.append(f"torch takes {index}")
        yield
        calls.append("torch goes back")

    kernel = Kernel("channels.cu", "mfp::total<float>")
    x = torch.zeros(1)
    with (
        mock.patch.object(device, "_cuda", return_value=SimpleNamespace(runtime=Runtime, driver=Driver)),
        mock.patch.object(torch.cuda, "device", torch_guard),
        mock.patch.dict(device._functions, {(1, kernel): SimpleNamespace(ptr=5)}),
        mock.patch.object(
            torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=70 + index)
        ),
    ):
        device.launch(torch.device("cuda", 1), Launch(kernel, (2, 3, 1), (32, 8, 1), [x, 9]))
    packed = struct.pack("=qq", x.data_ptr(), 9)
    # cudaSetDevice, back to where the thread was, would put a context on a device that nobody uses
    launched = ((2, 3, 1), (32, 8, 1), 0, 71, packed, 0)
    assert calls == ["torch takes 1", 1, launched, "torch goes back"]


def test_the_compiler_is_told_of_every_source():
    told = device.options()
    assert "-std=c++17" in told and f"-I{device.FOLDER / 'cuda'}" in told
    assert not [option for option in told if "fast" in option]
    digest = next(option for option in told if option.startswith("-DMFP_SOURCES="))
    device.options.cache_clear()
    with mock.patch.object(device.Path, "read_bytes", return_value=b"changed"):
        assert digest not in device.options()
    device.options.cache_clear()


def test_why_the_kernels_cannot_run_is_said_in_words():
    assert device.unavailable(torch.device("cpu")) == "they run on CUDA devices, not on 'cpu'"
    with pytest.raises(RuntimeError, match="cannot run on cpu: they run on CUDA devices"):
        device.check(torch.device("cpu"))
    if not torch.cuda.is_available():
        assert device.unavailable(torch.device("cuda")) is not None


@pytest.mark.parametrize(("version", "extra"), [("12.8", "cuda12"), ("13.0", "cuda13"), (None, "cuda13")])
def test_the_extra_follows_torchs_cuda(version, extra):
    with mock.patch.object(torch.version, "cuda", version):
        assert device.extra() == extra


def test_without_cupy_the_extra_is_named():
    gpu = torch.device("cuda", 0)
    with (
        mock.patch.dict(sys.modules, {"cupy": None}),
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)),
        mock.patch.dict(device._functions, clear=True),
    ):
        device.unavailable.cache_clear()
        why = device.unavailable(gpu)
        with pytest.raises(MissingDependency, match=r"mfp-neurons\[cuda1[23]\]"):
            device.check(gpu)
    device.unavailable.cache_clear()
    assert why is not None and "mfp-neurons[cuda1" in why


def test_cupys_interface_is_as_the_launcher_uses_it():
    pytest.importorskip("cupy", reason="CuPy is optional; it imports without a GPU")
    code = """
import warnings; warnings.simplefilter("ignore")
import cupy
assert callable(cupy.cuda.runtime.setDevice)
assert cupy.cuda.driver.launchKernel.__doc__.count(",") in (0, 10)  # eleven arguments
module = cupy.RawModule(code="", options=("-std=c++17",), backend="nvrtc", name_expressions=("f<1>",))
assert hasattr(cupy.RawKernel, "kernel") and hasattr(cupy.cuda.function.Function, "ptr")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("neurons", "channels", "start", "width"),
    [
        *((64, 1, 0, 4), (6, 1, 0, 2), (7, 1, 0, 1)),
        *((12, 12, 0, 4), (6, 6, 0, 2), (5, 5, 0, 1), (20, 5, 0, 4), (30, 5, 0, 2)),
        *((16, 1, 2, 2), (16, 1, 1, 1)),
    ],
)
def test_a_thread_takes_as_many_neurons_as_lie_together(neurons, channels, start, width):
    """How wide a thread's accesses are shows in no result, so the backend's own table of groups is asked."""
    memory = torch.empty(3 * neurons + 4)[start : start + 3 * neurons]
    x = memory.reshape(3, 1, channels, neurons // channels)
    rows = Rows(x, channels)
    assert Groups.of(rows, 4, [rows.view_rows(x), None]).width == width


@pytest.fixture
def other_machine():
    """What is cached about this machine is forgotten before and after."""
    device.unavailable.cache_clear()
    backends.choose.cache_clear()
    yield
    device.unavailable.cache_clear()
    backends.choose.cache_clear()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError("Torch not compiled with CUDA enabled"), "Torch not compiled with CUDA enabled"),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update"),
            "11040)",
        ),
    ],
)
def test_without_a_gpu_pytorchs_own_reason_is_given_and_nobody_is_told_to_move_tensors(
    other_machine, error, words
):
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=False),
        mock.patch.object(torch.cuda, "init", side_effect=error),
        pytest.raises(RuntimeError, match="PyTorch finds no CUDA device") as refused,
    ):
        functional.fire(torch.ones(2, 3), Exponential(0.5), backend="cupy")
    assert str(refused.value).endswith(words)


@pytest.mark.parametrize(
    ("wheels", "driver", "words"),
    [
        (
            ["cupy-cuda12x"],
            None,
            "cupy-cuda12x is for another CUDA than this PyTorch (13.0): pip uninstall cupy-cuda12x",
        ),
        (
            ["cupy-cuda12x", "cupy-cuda13x"],
            None,
            "exclude one another: pip uninstall cupy-cuda12x cupy-cuda13x, then",
        ),
        (
            ["cupy-cuda13x"],
            (12, 8),
            "The driver knows CUDA up to 12.8, PyTorch was built for 13.0: update the driver",
        ),
        (["cupy-cuda13x"], (13, 0), "load a kernel. It says: RuntimeError: no libnvrtc"),
    ],
)
def test_a_cupy_that_cannot_load_is_diagnosed(other_machine, wheels, driver, words):
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)),
        mock.patch.object(torch.version, "cuda", "13.0"),
        mock.patch.object(device, "_load", side_effect=RuntimeError("no libnvrtc")),
        mock.patch.object(device, "cupy_wheels", return_value=wheels),
        mock.patch.object(device, "_driver_knows", return_value=driver),
    ):
        assert words in str(device.unavailable(torch.device("cuda", 0)))


def test_a_cuda_tensor_without_cupy_takes_stock_operators_and_is_told_why_once(other_machine, caplog):
    with (
        mock.patch.dict(sys.modules, {"cupy": None}),
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)),
        mock.patch.object(_checks, "_said", set()),
    ):
        for _ in range(2):
            backends.choose.cache_clear()
            assert backends.choose("auto", torch.device("cuda", 0)).__name__.endswith("torch")
    (said,) = [record.getMessage() for record in caplog.records]
    assert "'torch' does, slower" in said and "pip install 'mfp-neurons[cuda1" in said


def test_any_backend_may_be_named_where_nothing_is_computed():
    for name in backends.NAMES:
        x = torch.empty(4, 2, 3, device="meta", requires_grad=True)
        functional.fire(x, Exponential(0.5), backend=name).sum().backward()
        assert x.grad.shape == x.shape
