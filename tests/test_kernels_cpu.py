"""The compiled host kernels: tiles, stretches of time, threads, sixteen-bit floats; how they are built.

``host.library`` is cached for the process, so that a build is tried by what it wraps; ``_checks._said`` is
what was logged once.
"""

import dataclasses
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mfp_neurons import backends, functional, reference
from mfp_neurons.backends import cpu
from mfp_neurons.history import FIR, Exponential, Matrix
from mfp_neurons.kernels import host
from mfp_neurons.norm import Norm
from tests.neurons_with_reset import (
    NEURONS,
    STEPS,
    Fed,
    assert_equals_the_loop,
    calls,
    distance_from_threshold,
    many_neurons,
)
from tests.strategies import SURROGATES

DTYPES = {torch.float64: 1e-9, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 2e-1}


def kernel_of(kind: str, steps: int, channels: int) -> tuple[list[torch.Tensor], type]:
    """Parameters in float64 and the kernel class they belong to."""
    if kind == "exp":
        return [torch.rand(channels).double() * 0.9, torch.rand(1).double() + 0.5], Exponential
    if kind == "fir":
        return [torch.randn(min(steps, 7) + 1, channels).double()], FIR
    return [torch.randn(steps, steps).double() / steps], Matrix


@given(
    kind=st.sampled_from(["exp", "fir", "matrix"]),
    steps=st.sampled_from([1, 3, 63, 64, 65, 130]),
    shape=st.sampled_from([(511,), (513,), (2, 3, 100), (3, 5), (2, 70, 7)]),
    per_channel=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
    surrogate=st.sampled_from(SURROGATES),
)
def test_tiles_and_stretches_of_time_agree_with_the_reference(
    kind, steps, shape, per_channel, dtype, surrogate
):
    channels = shape[1] if per_channel and len(shape) > 1 and kind != "matrix" else 1
    given_parameters, make = kernel_of(kind, steps, channels)
    x = torch.randn(steps, *shape).to(dtype)
    threshold = torch.rand(channels)
    grad = torch.randn(steps, *shape).to(dtype)
    mine = [t.to(torch.promote_types(dtype, torch.float32)).requires_grad_() for t in given_parameters]
    leaf = x.clone().requires_grad_()
    chunk = functional.fire_chunk(
        leaf, make(*mine), threshold, surrogate=surrogate, record=True, backend="cpu"
    )
    gradients = torch.autograd.grad(chunk.spikes, [leaf, *mine], grad)
    exact = [t.detach().double().requires_grad_() for t in (x, *mine)]
    u = reference.membrane_potential(exact[0], make(*exact[1:]))
    tolerance = DTYPES[torch.promote_types(dtype, torch.float32)]
    torch.testing.assert_close(chunk.potential.double(), u, rtol=tolerance, atol=tolerance)
    # the surrogate's derivative at the kernels' own potential: near Rect's edge rounding decides
    above = chunk.potential.detach().double() - reference.per_channel(threshold.double(), x.dim() - 1)
    assert torch.equal(chunk.spikes, (above >= 0).to(dtype))
    (u * surrogate.derivative(above) * grad.double()).sum().backward()
    for got, leaf_64 in zip(gradients, exact, strict=True):
        scale = max(1.0, leaf_64.grad.abs().max().item())
        loose = DTYPES[got.dtype] if got.dtype == dtype else tolerance
        torch.testing.assert_close(got.double() / scale, leaf_64.grad / scale, rtol=loose, atol=loose)


@pytest.mark.parametrize("kind", ["exp", "fir", "matrix"])
@pytest.mark.parametrize("channels", [1, 6])
def test_results_do_not_depend_on_the_number_of_threads(kind, channels):
    parameters, make = kernel_of(kind, 9, 1 if kind == "matrix" else channels)
    x, grad = torch.randn(9, 700, 6), torch.randn(9, 700, 6)

    def run(threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        leaves = [x.clone().requires_grad_(), *(p.float().requires_grad_() for p in parameters)]
        spikes = functional.fire(leaves[0], make(*leaves[1:]), backend="cpu")
        return [spikes, *torch.autograd.grad(spikes, leaves, grad)]

    try:
        one, *others = [run(threads) for threads in (1, 2, 5)]
    finally:
        torch.set_num_threads(1)
    assert x.numel() >= cpu._PARALLEL  # with less to do, one thread does it whatever was asked for
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- resets: what a neuron's own spikes change -----------------------------------------------------------


def on_cpu_kernels(call: Fed, dtype: torch.dtype) -> Fed:
    return dataclasses.replace(call.to(dtype, torch.device("cpu")), backend="cpu")


@given(
    call=calls([*STEPS, 64, 130]),
    dtype=st.sampled_from(list(DTYPES)),
    wanted=st.sampled_from(["both", "spikes", "potential"]),
)
@settings(max_examples=60)
def test_outputs_and_every_gradient_with_a_reset_are_those_of_a_loop_over_time(call, dtype, wanted):
    call = on_cpu_kernels(call, dtype)
    assume(distance_from_threshold(call.exact()) > 1e-4)
    assert_equals_the_loop(call, dtype, wanted)


@pytest.mark.parametrize(("kind", "reset"), NEURONS)
@pytest.mark.parametrize("steps", [4, 16, 70])
@pytest.mark.parametrize("layout", ["per layer", "per channel", "channels last"])
def test_neurons_with_a_reset_in_many_tiles_are_those_of_a_loop_over_time(kind, reset, steps, layout):
    call = many_neurons(kind, reset, steps, layout)
    shape, held = call.tensors["x"].shape[1:], {"subtract": 1, "feedback": 3}.get(reset, 4)
    held = 1 if kind == "exp" else held
    call.tensors["own"] = (torch.rand(held, *shape) > 0.7).double()
    call.tensors["state"] = torch.randn(shape if kind == "exp" else (4, *shape)).double()
    assert_equals_the_loop(on_cpu_kernels(call, torch.float64), torch.float64)


@pytest.mark.parametrize(("kind", "reset"), NEURONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["per layer", "channels last"])
def test_whole_rows_of_narrow_numbers_are_those_of_a_loop_over_time(kind, reset, dtype, layout):
    call = many_neurons(kind, reset, 4, layout)
    del call.tensors["scale"], call.tensors["shift"]
    # few enough binary digits that no sum is rounded, and thresholds that no sum meets
    call.tensors = {name: (8 * value).round() / 8 for name, value in call.tensors.items()}
    call.tensors["threshold"] += 2.0**-16
    assert_equals_the_loop(on_cpu_kernels(call, dtype), dtype)


@pytest.mark.parametrize(("kind", "reset"), NEURONS)
@pytest.mark.parametrize("layout", ["per layer", "per channel"])
def test_results_with_a_reset_do_not_depend_on_the_number_of_threads(kind, reset, layout):
    call = on_cpu_kernels(many_neurons(kind, reset, 40, layout), torch.float32)
    grad = torch.randn_like(call.tensors["x"])

    def run(threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        chunk = call.run()
        return [*chunk[:2], *torch.autograd.grad(chunk.spikes, list(call.tensors.values()), grad)]

    try:
        one, *others = [run(threads) for threads in (1, 2, 5)]
    finally:
        torch.set_num_threads(1)
    assert grad.numel() >= cpu._PARALLEL
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("kind", "reset"), NEURONS)
def test_outputs_with_a_reset_too_large_for_the_cache_are_written_whole(kind, reset):
    call = many_neurons(kind, reset, 3, "per layer")
    x = (8 * torch.randn(3, 1, 16, 50_003)).round() / 8  # 9.6 MB; no sum is rounded
    tensors = {
        name: (8 * v).round() / 8 for name, v in call.tensors.items() if name not in ("scale", "shift")
    }
    tensors |= {"x": x.double(), "threshold": tensors["threshold"] + 2.0**-16}
    assert_equals_the_loop(
        on_cpu_kernels(dataclasses.replace(call, tensors=tensors), torch.float32), torch.float32
    )


FORKED = """
import os, torch
from mfp_neurons import MFP
torch.set_num_threads(3)
x, neuron = torch.randn(4, 3, 4096), MFP(0.5)
expected = neuron(x).numpy().tobytes()  # PyTorch's own operators would wait for ever in the child
child = os.fork()
if child == 0:
    os._exit(0 if neuron(x).numpy().tobytes() == expected else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_fires_as_its_parent_did_before_it():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "0\n"
    assert "was forked: the CPU kernels run on one thread" in done.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_sixteen_bit_number_is_read_exactly(dtype):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)[None]
    u = functional.potential(x, Exponential(0.5), backend="cpu")
    torch.testing.assert_close(u, x.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=5)
def test_results_are_rounded_to_sixteen_bits_as_torch_rounds(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randint(-(2**31), 2**31, (1, 4096), generator=generator, dtype=torch.int32).view(
        torch.float32
    )
    edges = torch.tensor([0.0, -0.0, 65504.0, 65519.9, 65520.0, 6e-8, 2.9e-8, 3e-8, 6.1e-5, float("inf")])
    grad = torch.cat([grad, edges[None], -edges[None]], 1)
    x = torch.zeros(grad.shape, dtype=dtype, requires_grad=True)
    (got,) = torch.autograd.grad(functional.potential(x, Exponential(0.5), backend="cpu"), x, grad)
    torch.testing.assert_close(got, grad.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kernel", [Exponential(0.75), FIR(torch.tensor([1.0, 0.5, 0.25]))])
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_outputs_too_large_for_the_cache_are_written_whole(kernel, offset):
    x = torch.randn(3, 800_001)[:, offset:]  # rows start anywhere in a cache line; 9.6 MB
    grad = torch.randn_like(x)

    def run(backend: str) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = x.clone().requires_grad_()
        spikes = functional.fire(leaf, kernel, backend=backend)
        return spikes, torch.autograd.grad(spikes, leaf, grad)[0]

    (mine, my_gradient), (theirs, their_gradient) = run("cpu"), run("torch")
    near = (functional.potential(x, kernel, backend="torch") - 1).abs() < 1e-5
    assert torch.equal(mine[~near], theirs[~near])
    torch.testing.assert_close(my_gradient, their_gradient, rtol=1e-4, atol=1e-5)


def test_a_gradient_in_another_layout_than_the_input_is_read_right():
    x = torch.randn(4, 3, 5, 6, 6).movedim(2, -1).contiguous().movedim(-1, 2).requires_grad_()
    grad = torch.randn(4, 3, 5, 6, 6)
    decay = torch.rand(5)
    (mine,) = torch.autograd.grad(functional.fire(x, Exponential(decay), backend="cpu"), x, grad)
    (theirs,) = torch.autograd.grad(functional.fire(x, Exponential(decay), backend="torch"), x, grad)
    torch.testing.assert_close(mine, theirs)


# --- building and loading ---------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("MFP_NEURONS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_kernels_run_here():
    assert backends.unavailable("cpu") is None
    assert backends.choose("auto", torch.device("cpu")) is cpu


def test_a_missing_compiler_is_named(elsewhere, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(host.Unavailable, match="CXX names, 'no-such-compiler', is not there"):
        host.library.__wrapped__()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(host.Unavailable, match="no C\\+\\+ compiler"):
        host.library.__wrapped__()


def test_a_compiler_that_fails_is_quoted(elsewhere, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", "echo it broke >&2; exit 1"))
    with pytest.raises(host.Unavailable, match="failed: it broke"):
        host.library.__wrapped__()
    assert list(elsewhere.iterdir()) == []


def test_a_compiler_without_threads_makes_a_library_and_the_log_says_so(
    elsewhere, monkeypatch, tmp_path, caplog
):
    refuse = 'case "$*" in *-fopenmp*) exit 1;; esac; exec c++ "$@" -O0'
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", refuse))
    monkeypatch.setattr("mfp_neurons._checks._said", set())
    assert host.library.__wrapped__().mfp_has_threads() == 0
    assert "no OpenMP: the CPU kernels run on one thread" in caplog.text
    monkeypatch.setenv("CXX", "no-such-compiler")  # built once, it needs no compiler
    assert host.library.__wrapped__().mfp_has_threads() == 0


def test_a_file_that_is_no_library_is_reported(elsewhere):
    elsewhere.mkdir()
    (elsewhere / f"host-{host.SOURCE.fingerprint()}.so").write_text("not a library")
    with pytest.raises(host.Unavailable, match=r"does not load .* delete it"):
        host.library.__wrapped__()


def test_a_cache_that_cannot_be_written_is_replaced_for_this_process(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MFP_NEURONS_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("mfp_neurons._checks._said", set())
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", 'exec c++ "$@" -O0'))
    assert host.library.__wrapped__().mfp_call_size() > 0
    assert "cannot be written" in caplog.text


def test_a_user_without_a_home_gets_a_folder_of_this_process(monkeypatch):
    for name in ("MFP_NEURONS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert host.cache_folder().is_dir()


WITHOUT_COMPILER = """
import torch
from mfp_neurons import backends, functional
from mfp_neurons.history import Exponential
for _ in range(2):
    functional.fire(torch.ones(2, 3), Exponential(0.5))
print(backends.choose("auto", torch.device("cpu")).__name__)
try:
    functional.fire(torch.ones(2, 3), Exponential(0.5), backend="cpu")
except RuntimeError as error:
    print(error)
"""


def test_without_a_compiler_the_stock_operators_run_and_the_log_says_so_once(elsewhere):
    environment = {**os.environ, "CXX": "no-such-compiler"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], env=environment, capture_output=True, text=True, check=True
    )
    chosen, refused = done.stdout.splitlines()
    assert chosen == "mfp_neurons.backends.torch"
    assert refused.startswith("backend='cpu' cannot run here: the C++ compiler that CXX names")
    assert done.stderr.count("'cpu' cannot run") == 1


def test_the_sources_compile_without_a_warning():
    command = ["c++", "-std=c++17", "-O1", "-fopenmp", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    entries = [str(part.entry) for part in host.SOURCE.parts]
    done = subprocess.run([*command, *entries], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kernel", "reset"),
    [(Exponential(decay=0.5), None), (Exponential(decay=0.5), "subtract"), (FIR(torch.ones(2)), None)],
)
def test_a_backward_writes_nothing_past_the_sums_of_its_channels(monkeypatch, kernel, reset):
    margin, buffers, zeros = 4096, [], torch.zeros

    def roomy_zeros(shape, **options):
        size = math.prod(shape)
        buffer = torch.full((size + margin,), -0.0, **options)  # whatever is added to a -0.0 changes it
        buffers.append(buffer[size:])
        return buffer[:size].zero_().reshape(shape)

    x = torch.rand(4, 2, 16, 3, requires_grad=True)
    weight = torch.ones(16, requires_grad=True)
    spikes = functional.norm_fire(x, Norm(weight=weight, training=True), kernel, reset=reset, backend="cpu")
    monkeypatch.setattr(torch, "zeros", roomy_zeros)
    spikes.sum().backward()
    monkeypatch.setattr(torch, "zeros", zeros)
    assert buffers
    assert all(torch.signbit(buffer).all() for buffer in buffers)
