"""The ways in which a neuron is run: every backend, and those of their paths that small inputs would miss.

The CUDA kernels run on a GPU if there is one, else on the host (tests/cuda_on_host). Memory that they leave
unwritten is NaN.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch
from torch import Tensor

from mfp_neurons import ops
from mfp_neurons.backends import cupy
from mfp_neurons.backends import torch as stock
from mfp_neurons.kernels import device as cuda
from tests import cuda_instances, cuda_on_host
from tests.strategies import Case

GPU = cuda.unavailable(torch.device("cuda")) is None
CUDA_DEVICE = torch.device("cuda" if GPU else "cpu")
INSTANCES = set(cuda_instances.every())

# Block sizes and the place of numbers are the stock backend's own: no public option reaches these paths.
HOW = {
    "cpu": ("cpu", {}),
    "torch": ("torch", {}),
    "torch in many blocks": ("torch", {"_ROW": 3, "_AREA": 7}),
    "torch as on a device whose numbers are not read": ("torch", {"_HOST_DEVICE": ""}),
    "cuda": ("auto", {}),
}


# How each backend is run, to be drawn from.
OF_BACKEND = {
    "cpu": ["cpu"],
    "torch": [how for how in HOW if how.startswith("torch")],
    "cuda": ["cuda"],
}
on_every_backend = pytest.mark.parametrize("family", OF_BACKEND)


def device_of(how: str) -> torch.device:
    return CUDA_DEVICE if how == "cuda" else torch.device("cpu")


@contextmanager
def run_as(how: str) -> Iterator[str]:
    """The name of the backend to ask for."""
    backend, changes = HOW[how]
    with ExitStack() as stack:
        if changes:
            stack.enter_context(mock.patch.multiple(stock, **changes))
        if how == "cuda":
            stack.enter_context(on_cuda_kernels())
        yield backend


@contextmanager
def on_cuda_kernels() -> Iterator[None]:
    """All operators run on the CUDA kernels, in instances that CI compiles."""
    launch = cuda.launch if GPU else cuda_on_host.launch

    def known(device: torch.device, what: cuda.Launch) -> None:
        assert what.kernel in INSTANCES, f"{what.kernel} is not among the instances that are compiled in CI"
        launch(device, what)

    torch.use_deterministic_algorithms(True)
    try:
        with mock.patch.object(cuda, "launch", known), mock.patch.object(ops, "choose", return_value=cupy):
            yield
    finally:
        torch.use_deterministic_algorithms(False)


def moved(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """With the same strides on another device, also where no elementwise operation keeps them."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = torch.as_strided(tensor.detach(), (size,), (1,), 0).to(device, dtype or tensor.dtype)
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def case_for(how: str, case: Case, dtype: torch.dtype) -> Case:
    """The case in a dtype, on the device of a way to run."""
    to = device_of(how)
    parameters = [moved(p, to, dtype) for p in case.parameters]
    return Case(moved(case.x, to, dtype), case.kind, parameters, case.order, moved(case.threshold, to, dtype))


def assert_close(mine: Tensor, exact: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    """Equal to ``exact``, in float64, within the rounding of dtype, and of float32 sums for narrow ones."""
    rounding = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 0, torch.float64: 0}[dtype]
    of_sums = 1e-9 if dtype == torch.float64 else 2e-5
    bounds = dict(rtol=rounding + of_sums, atol=of_sums * scale)
    torch.testing.assert_close(mine.detach().double(), exact.detach(), check_stride=False, **bounds)
