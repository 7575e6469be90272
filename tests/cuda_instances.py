"""Every template instance that the CUDA backend can ask for, from the backend's own tables.

As a program it records that NVRTC has compiled all of them, which tests/test_kernels_cuda_compile.py does.
"""

import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

# the tables from which the backend makes a kernel's name: there is no public list of instances
from mfp_neurons.backends import cupy
from mfp_neurons.backends.cupy_launch import DONE, NO_SPIKES, TYPES, cpp
from mfp_neurons.kernels import device
from mfp_neurons.kernels.device import Kernel

RECORD = Path(__file__).with_suffix(".sha256")


FACTORS = range(NO_SPIKES + 1)  # of the spikes' gradient: every surrogate, and none


def in_registers() -> Iterator[Kernel]:
    for dtype, held, kind in product(TYPES, (cupy.FEW, cupy.MANY), ("exp", "fir")):
        file, form = {"exp": "exponential.cu", "fir": "fir.cu"}[kind], TYPES[dtype]
        for width, along in _groups(cupy.forward_width(dtype, held), held == cupy.FEW):
            yield Kernel(file, f"mfp::{kind}_forward<{form}, {width}, {held}, {along}>")
        for factor, summing in product(FACTORS, (False, True)):
            if kind == "exp":
                widest = cupy.exponential_backward_width(dtype, held, summing)
            else:
                widest = cupy.fir_backward_width(dtype, held)
            for width, along in _groups(widest, held == cupy.FEW):
                instance = f"{width}, {held}, {along}, {factor}, {cpp(summing)}"
                yield Kernel(file, f"mfp::{kind}_backward<{form}, {instance}>")


def feedback() -> Iterator[Kernel]:
    for dtype, held, kind in product(TYPES, (cupy.FEW, cupy.MANY), ("exp", "fir")):
        file, form = {"exp": "exponential_feedback.cu", "fir": "fir_feedback.cu"}[kind], TYPES[dtype]
        for width, along in _wide_or_single(cupy.forward_width(dtype, held), held == cupy.FEW):
            yield Kernel(file, f"mfp::{kind}_feedback_forward<{form}, {width}, {held}, {along}>")
        if kind == "fir" and not cupy.feeds_back_in_registers(dtype, held):
            continue
        widest = cupy.feedback_width(dtype, held, is_fir=kind == "fir")
        for (width, along), factor in product(_wide_or_single(widest, held == cupy.FEW), range(NO_SPIKES)):
            instance = f"{form}, {width}, {held}, {along}, {factor}"
            yield Kernel(file, f"mfp::{kind}_feedback_backward<{instance}>")
    for form in TYPES.values():
        for factor in range(NO_SPIKES):
            yield Kernel("fir_feedback.cu", f"mfp::feedback_adjoint<{form}, {factor}>")
        yield Kernel("fir_feedback.cu", f"mfp::zero_adjoint<{form}>")
        yield Kernel("fir_feedback.cu", f"mfp::zero_tap_gradient<{form}>")


def finite() -> Iterator[Kernel]:
    factors = {cupy.FORWARD: [0], cupy.LOCAL: [*range(NO_SPIKES)], cupy.ADJOINT: [NO_SPIKES, DONE]}
    for form in TYPES.values():
        for mode, matrix in product(factors, (False, True)):
            for factor in factors[mode]:
                yield Kernel("finite.cu", f"mfp::finite<{form}, {mode}, {cpp(matrix)}, {factor}>")
        yield Kernel("finite.cu", f"mfp::tap_gradient<{form}>")
        yield Kernel("finite.cu", f"mfp::matrix_gradient<{form}>")


def channels() -> Iterator[Kernel]:
    for dtype, form in TYPES.items():
        for width, along in _groups(16 // dtype.itemsize):
            yield Kernel("channels.cu", f"mfp::moments_of_blocks<{form}, {width}, {along}>")
            yield Kernel("channels.cu", f"mfp::add_affine<{form}, {width}, {along}>")
    for form in ("float", "double"):
        yield Kernel("channels.cu", f"mfp::moments_of_channels<{form}>")
        yield Kernel("channels.cu", f"mfp::total<{form}>")


def every() -> list[Kernel]:
    return [*in_registers(), *feedback(), *finite(), *channels()]


def digest() -> str:
    """Of all that decides what NVRTC compiles: sources and options, and the instances."""
    options = [option for option in device.options() if not option.startswith("-I")]  # folders differ
    return hashlib.sha256(repr([options, sorted(every())]).encode()).hexdigest()


def _groups(width: int, may_run_along: bool = True) -> list[tuple[int, str]]:
    """Widths a tensor may allow, and whether channels may run along a group."""
    widths = [1 << i for i in range(1, width.bit_length())]
    return [(1, "false"), *((w, along) for w in widths for along in ("false", "true")[: 1 + may_run_along])]


def _wide_or_single(width: int, may_run_along: bool) -> list[tuple[int, str]]:
    return [(w, along) for w, along in _groups(width, may_run_along) if w in (1, width)]


if __name__ == "__main__":
    RECORD.write_text(digest() + "\n")
