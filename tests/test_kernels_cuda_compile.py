"""NVRTC, which needs no GPU, compiles what the CUDA backend can ask for: no warnings, no spills.

By default a few instances for the oldest, the newest and one architecture between. All instances and
architectures are slow tests, unless the kernels have changed since all of them were last compiled.
"""

import itertools
import re
from collections.abc import Iterable

import pytest

from mfp_neurons.kernels import device
from mfp_neurons.kernels.device import Kernel
from tests import cuda_instances

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with cuda-bindings")


def architectures() -> list[int]:
    """From the oldest that this NVRTC knows on, but none that CuPy and the kernels are not for."""
    status, known = nvrtc.nvrtcGetSupportedArchs()
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    oldest = device.OLDEST[0] * 10 + device.OLDEST[1]
    return [arch for arch in known if arch >= oldest]


def compile_all(file: str, names: Iterable[str], target: str) -> tuple[str, str]:
    """Compiles instances of one file as CuPy would; returns the compiler's and assembler's log, and PTX."""
    code = (device.FOLDER / "cuda" / file).read_bytes()
    status, program = nvrtc.nvrtcCreateProgram(code, file.encode(), 0, [], [])
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    for name in names:
        nvrtc.nvrtcAddNameExpression(program, name.encode())
    told = [f"--gpu-architecture={target}", *device.options(), "-ftz=true", "--ptxas-options=-v"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(told), [option.encode() for option in told])
    log = text(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log
    ptx = text(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
    nvrtc.nvrtcDestroyProgram(program)
    return log, ptx


def text(program, get_size, get) -> str:
    _, size = get_size(program)
    buffer = bytearray(size)  # written into: of bytes, Python shares those of length 1 with everybody
    get(program, buffer)
    return buffer.decode()


def by_file(kernels: Iterable[Kernel]) -> list[tuple[str, list[str]]]:
    ordered = sorted(kernels)
    groups = itertools.groupby(ordered, key=lambda kernel: kernel.file)
    return [(file, [kernel.name for kernel in group]) for file, group in groups]


def check(file: str, names: list[str], arch: int) -> None:
    log, _ = compile_all(file, names, f"sm_{arch}")
    lines = [line for line in log.splitlines() if "Architectures prior to" not in line]  # CUDA 12.9 of sm_70
    assert "warning" not in "".join(lines), log
    found = re.findall(r"Compiling entry function '(\w+)'[\s\S]*?(\d+) bytes spill stores", log)
    assert len(found) == len(names)  # the log is worded as expected
    assert not [name for name, bytes_ in found if bytes_ != "0"], f"spills on sm_{arch}"


def few_of_each_kernel() -> list[Kernel]:
    """Instances of every kernel, evenly spread over its dtypes, widths and surrogates."""
    by_kernel: dict[str, list[Kernel]] = {}
    for kernel in sorted(cuda_instances.every()):
        by_kernel.setdefault(kernel.name.split("<")[0], []).append(kernel)
    return [kernel for instances in by_kernel.values() for kernel in instances[:: len(instances) // 5 + 1]]


COMPILED = cuda_instances.RECORD.read_text().strip() == cuda_instances.digest()
EVERYTHING = pytest.mark.slow if COMPILED else ()
ALWAYS = {architectures()[0], 90, architectures()[-1]}
PARTS = 12  # so that two workers share the work


@pytest.mark.parametrize(
    "arch",
    [pytest.param(arch, marks=() if arch in ALWAYS else EVERYTHING) for arch in architectures()],
)
def test_a_few_instances_of_each_kernel_compile_for_an_architecture_without_warnings_or_spills(arch):
    for file, names in by_file(few_of_each_kernel()):
        check(file, names, arch)


@pytest.mark.parametrize("part", [pytest.param(part, marks=EVERYTHING) for part in range(PARTS)])
@pytest.mark.parametrize("arch", [80, 90])  # they have differed in what spills
def test_every_instance_compiles_without_warnings_or_spills(arch, part):
    for file, names in by_file(cuda_instances.every()[part::PARTS]):
        check(file, names, arch)


def test_every_instance_of_these_kernels_has_been_compiled_once():
    assert COMPILED, (
        "kernels/ or the table of instances has changed, so this run compiles every instance for every "
        "architecture. When those tests have passed, record it: .venv/bin/python -m tests.cuda_instances"
    )


@pytest.mark.parametrize(
    ("name", "loads", "stores"),
    [
        ("exp_forward<float, 4, 4, false>", "v4.*32", "v4.b32"),
        ("exp_forward<mfp::Half, 8, 4, false>", "v4.*32", "v4.b32"),
        ("exp_backward<float, 4, 4, false, 0, false>", "v4.*32", "v4.b32"),
        ("exp_backward<mfp::Half, 4, 4, false, 0, false>", "v2.*32", "v2.b32"),
        ("exp_forward<float, 2, 16, false>", "v2.*32", "v2.b32"),
        ("exp_feedback_forward<float, 4, 4, false>", "v4.*32", "v4.b32"),
        ("exp_feedback_backward<float, 4, 4, false, 0>", "v4.*32", "v4.b32"),
        ("fir_feedback_forward<mfp::Half, 8, 4, false>", "v4.*32", "v4.b32"),
        ("fir_feedback_backward<float, 4, 4, false, 0>", "v4.*32", "v4.b32"),
    ],
)
def test_accesses_are_as_wide_as_a_threads_neurons(name, loads, stores):
    held = int(name.split(",")[2])
    file = next(kernel.file for kernel in cuda_instances.every() if kernel.name == f"mfp::{name}")
    _, ptx = compile_all(file, [f"mfp::{name}"], "compute_80")
    assert len(re.findall(rf"ld\.global\.{loads}", ptx)) >= held
    assert len(re.findall(rf"st\.global\.{stores}", ptx)) >= held
