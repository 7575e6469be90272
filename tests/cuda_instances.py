"""Every template instance that the CUDA backend can ask for, from the backend's own tables.

As a program it records that NVRTC has compiled all of them, which tests/test_kernels_cuda_compile.py does.
"""

import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from mfp_neurons.backends import _cuda_exp, _cuda_finite, _cuda_fir
from mfp_neurons.backends._call import SURROGATES
from mfp_neurons.backends._cuda_call import DONE, MASKED, NO_SPIKES, cpp
from mfp_neurons.backends._cuda_launch import TYPES
from mfp_neurons.kernels import device
from mfp_neurons.kernels.device import Kernel

RECORD = Path(__file__).with_suffix(".sha256")


def exponential() -> Iterator[Kernel]:
    for dtype, held in product(TYPES, (_cuda_exp.FEW, _cuda_exp.MANY)):
        for width, along in _groups(_cuda_exp.forward_width(dtype, held), held == _cuda_exp.FEW):
            yield _exp(f"exp_forward<{TYPES[dtype]}, {width}, {held}, {along}>")
        for kind, summing in product([*range(len(SURROGATES)), MASKED, NO_SPIKES], (False, True)):
            if kind == MASKED and summing:
                continue
            for width, along in _groups(
                _cuda_exp.backward_width(dtype, held, summing), held == _cuda_exp.FEW
            ):
                instance = f"{width}, {held}, {along}, {kind}, {cpp(summing)}"
                yield _exp(f"exp_backward<{TYPES[dtype]}, {instance}>")


def fir() -> Iterator[Kernel]:
    for dtype, held in product(TYPES, (_cuda_exp.FEW, _cuda_exp.MANY)):
        may_run_along = held == _cuda_exp.FEW
        for width, along in _groups(_cuda_exp.forward_width(dtype, held), may_run_along):
            yield Kernel("fir.cu", f"mfp::fir_forward<{TYPES[dtype]}, {width}, {held}, {along}>")
        for kind, summing in product([*range(len(SURROGATES)), MASKED, NO_SPIKES], (False, True)):
            if kind == MASKED and summing:
                continue
            for width, along in _groups(_cuda_fir.backward_width(dtype, held), may_run_along):
                instance = f"{width}, {held}, {along}, {kind}, {cpp(summing)}"
                yield Kernel("fir.cu", f"mfp::fir_backward<{TYPES[dtype]}, {instance}>")


def finite() -> Iterator[Kernel]:
    kinds = {
        _cuda_finite.FORWARD: [0],
        _cuda_finite.LOCAL: [*range(len(SURROGATES))],
        _cuda_finite.ADJOINT: [MASKED, NO_SPIKES, DONE],
    }
    for form in TYPES.values():
        for mode, matrix in product(kinds, (False, True)):
            for kind in kinds[mode]:
                yield Kernel("finite.cu", f"mfp::finite<{form}, {mode}, {cpp(matrix)}, {kind}>")
        yield Kernel("finite.cu", f"mfp::tap_gradient<{form}>")
        yield Kernel("finite.cu", f"mfp::matrix_gradient<{form}>")


def channels() -> Iterator[Kernel]:
    for dtype, form in TYPES.items():
        for width, along in _groups(16 // dtype.itemsize):
            yield Kernel("channels.cu", f"mfp::moments_of_blocks<{form}, {width}, {along}>")
            yield Kernel("channels.cu", f"mfp::add_affine<{form}, {width}, {along}>")
    for form in ("float", "double"):
        yield Kernel("channels.cu", f"mfp::moments_of_channels<{form}>")


def sums() -> Iterator[Kernel]:
    for form in ("float", "double"):
        yield Kernel("sums.cu", f"mfp::total<{form}>")


def every() -> list[Kernel]:
    return [*exponential(), *fir(), *finite(), *channels(), *sums()]


def digest() -> str:
    """Of all that decides what NVRTC compiles: sources and options, and the instances."""
    options = [option for option in device.options() if not option.startswith("-I")]  # folders differ
    return hashlib.sha256(repr([options, sorted(every())]).encode()).hexdigest()


def _groups(width: int, may_run_along: bool = True) -> list[tuple[int, str]]:
    """Widths a tensor may allow, and whether channels may run along a group."""
    widths = [1 << i for i in range(1, width.bit_length())]
    return [(1, "false"), *((w, along) for w in widths for along in ("false", "true")[: 1 + may_run_along])]


def _exp(name: str) -> Kernel:
    return Kernel("exponential.cu", "mfp::" + name)


if __name__ == "__main__":
    RECORD.write_text(digest() + "\n")
