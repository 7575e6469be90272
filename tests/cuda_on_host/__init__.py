"""CUDA kernels on the host: each is built with g++ (emulation.h) and run on CPU tensors, for tests alone."""

import ctypes
import hashlib
import os
import random
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mfp_neurons.kernels.device import FOLDER, Kernel, Launch, pack

HERE = Path(__file__).parent
FLAGS = ["g++", "-std=c++17", "-O1", "-g0", "-fno-strict-aliasing", "-fPIC", "-shared", "-Wall",
         "-Wno-unknown-pragmas"]  # fmt: skip
WATCHED = ["-fsanitize=kernel-address", "--param=asan-instrumentation-with-call-threshold=0",
           "--param=asan-stack=0", "--param=asan-globals=0"]  # fmt: skip


def launch(device: torch.device, what: Launch) -> None:
    """Takes the place of kernels.device.launch; raises AssertionError on what a GPU would not forgive."""
    library = _library(what.kernel)
    packed = ctypes.create_string_buffer(pack(what.fields))
    assert library.argument_size() == len(packed) - 1, f"{what.kernel.name}: the struct has other fields"
    assert what.block[0] * what.block[1] * what.block[2] <= 1024
    tensors = [field for field in what.fields if isinstance(field, Tensor) and field.numel() > 0]
    ranges = [end for tensor in tensors for end in _extent(tensor)]
    ranges += [ctypes.addressof(packed), ctypes.addressof(packed) + len(packed)]
    error = library.run_kernel(
        packed, _array(what.grid), _array(what.block), (ctypes.c_ulong * len(ranges))(*ranges),
        len(ranges) // 2, random.randint(1, 4), random.getrandbits(31),
    )  # fmt: skip
    assert error is None, f"{what.kernel.name}: {error.decode()}"


def _extent(tensor: Tensor) -> tuple[int, int]:
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + reach * tensor.element_size()


def _array(values: tuple[int, ...]) -> ctypes.Array:
    return (ctypes.c_uint * 3)(*values)


@cache
def _digest() -> str:
    sources = [*FOLDER.glob("cuda/*.cu*"), FOLDER / "arithmetic.h", *HERE.iterdir()]
    contents = b"".join(path.read_bytes() for path in sorted(sources) if path.is_file())
    return hashlib.sha256(contents).hexdigest()[:16]


def _build(name: str, arguments: list[str]) -> Path:
    """Compiles a library once, whoever else compiles it at the same time."""
    folder = Path(tempfile.gettempdir()) / f"mfp-neurons-cuda-on-host-{os.getuid()}-{_digest()}"
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        own = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*FLAGS, *arguments, "-o", str(own)], check=True)
        own.rename(path)
    return path


@cache
def _machine() -> ctypes.CDLL:
    path = _build("emulation", [str(HERE / "emulation.cpp")])
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


@cache
def _library(kernel: Kernel) -> ctypes.CDLL:
    _machine()
    arguments = [
        *WATCHED, f"-I{FOLDER}", f"-I{FOLDER / 'cuda'}", f'-DMFP_FILE="{kernel.file}"',
        f"-DMFP_KERNEL={kernel.name}", str(HERE / "kernel.cpp"),
    ]  # fmt: skip
    library = ctypes.CDLL(str(_build(f"{kernel.file} {kernel.name}", arguments)))
    library.argument_size.restype = ctypes.c_ulong
    library.run_kernel.restype = ctypes.c_char_p
    return library
