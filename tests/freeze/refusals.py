"""What is refused, and in which words: by arguments, lowering, NIR, files and the command line."""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import snntorch as snn
import torch
import torch.nn.functional as F
from snntorch.functional import quant
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn
from torch.nn.utils import prune

from mfp_neurons import (
    MFP,
    MFPNode,
    QuantizedMembraneLIF,
    TimePool,
    cli,
    convert,
    deploy,
    fit_orders,
    functional,
    late_taps,
    quantize,
    quantize_weights,
    report,
    reset_samples,
    zoo,
)
from mfp_neurons.history import FIR, Exponential, Matrix, quantize_taps
from mfp_neurons.nir import from_nir, to_nir
from mfp_neurons.norm import Norm
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from mfp_neurons.surrogate import ATan, Rect, Sigmoid

from . import generate
from .book import Book, refusal
from .exports import nir_text
from .networks import Do, EachStep, events, image

Attempts = dict[str, Callable[[], Any]]
NAN, INF = float("nan"), float("inf")
X = torch.linspace(-1, 1, 24).reshape(4, 2, 3)
CLIPPED = torch.rand(12, 2, 3, generator=torch.Generator().manual_seed(0))
IMAGES = (torch.rand(12, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
DT = 1e-3


def record(book: Book, quick: bool = False) -> None:
    said = _Said()
    logger = logging.getLogger("mfp_neurons")
    logger.addHandler(said)
    logger.propagate = False
    for make in (
        *(neurons, modules, node_arguments, leaky_arguments, layers, conversions, reports, orders, lowering),
        *(lowered_neurons, running, to_graphs, from_graphs, zoo_names, command_line),
    ):
        for name, function in make().items():
            torch.manual_seed(0)
            said.lines.clear()
            book.put(f"{make.__name__}, {name}", "refused", outcome(function))
            if said.lines:
                book.put(f"{make.__name__}, {name}", "said", "\n".join(said.lines) + "\n")
    for number in (12, 33) if quick else (4, 5, 12, 33):
        book.put(f"files, {number}", "refused", broken_files(number))


class _Said(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


def outcome(function: Callable[[], Any]) -> str:
    """The type and the words of what is raised; else that nothing was."""
    try:
        value = function()
    except Exception as error:
        return refusal(error)
    return value if isinstance(value, str) else f"nothing was refused: {type(value).__name__}\n"


def calls(function: Callable[..., Any], values: list[Any]) -> Attempts:
    return {repr(value)[:80]: (lambda v=value: function(v)) for value in values}


def named(prefix: str, attempts: Attempts) -> Attempts:
    return {f"{prefix} {name}": function for name, function in attempts.items()}


# --- functions and modules ---------------------------------------------------------------------------------


def neurons() -> Attempts:
    half = Exponential(0.5)
    fire = functional.fire
    inputs = {
        "list": [1.0],
        "array": np.ones((3, 2)),
        "1-D": torch.ones(3),
        "7-D": torch.ones(1, 1, 1, 1, 1, 1, 1),
        "no steps": torch.ones(0, 2),
        "complex": torch.ones(3, 2, dtype=torch.complex64),
        "sparse": torch.ones(3, 2).to_sparse(),
        "float8": torch.ones(3, 2).to(torch.float8_e4m3fn),
        "meta": torch.ones(3, 2, 3, device="meta"),
    }
    options: dict[str, dict[str, Any]] = {
        "kernel": {"kernel": 0.5},
        "kernel module": {"kernel": nn.Linear(2, 2)},
        "channels of decay": {"kernel": Exponential(torch.full((4,), 0.5))},
        "channels of taps": {"kernel": FIR(torch.ones(2, 5))},
        "matrix of another T": {"kernel": Matrix(torch.eye(3))},
        "taps on meta": {"kernel": FIR(torch.ones(2, device="meta"))},
        "threshold on meta": {"v_threshold": torch.ones(1, device="meta")},
        "threshold of other channels": {"v_threshold": torch.ones(5)},
        "threshold 2-D": {"v_threshold": torch.ones(2, 2)},
        "threshold text": {"v_threshold": "1"},
        "threshold None": {"v_threshold": None},
        "threshold NaN": {"v_threshold": NAN},
        "threshold -inf": {"v_threshold": -INF},
        "threshold NaN inside": {"v_threshold": torch.tensor([1.0, NAN, INF])},
        "threshold of integers": {"v_threshold": torch.ones(1, dtype=torch.int64)},
        "surrogate": {"surrogate": 3},
        "surrogate class": {"surrogate": ATan},
        "backend": {"backend": "cuda"},
        "backend None": {"backend": None},
        "cupy": {"backend": "cupy"},
    }
    states: dict[str, tuple[Any, Any]] = {
        "shape": (half, torch.zeros(2, 4)),
        "of K taps": (FIR(torch.ones(3)), torch.zeros(1, 2, 3)),
        "of a matrix": (Matrix(torch.eye(5)), torch.zeros(2, 2, 3)),
        "list": (half, [0.0]),
        "complex": (half, torch.zeros(2, 3, dtype=torch.complex64)),
        "meta": (half, torch.zeros(2, 3, device="meta")),
        "past the matrix": (Matrix(torch.eye(4)), torch.zeros(4, 2, 3)),
    }
    norms: dict[str, Callable[[], Norm]] = {
        "other channels": lambda: Norm(torch.zeros(5), torch.ones(5)),
        "two sizes": lambda: Norm(torch.zeros(3), torch.ones(3), torch.ones(2)),
        "2-D": lambda: Norm(torch.zeros(3), torch.ones(3), torch.ones(3, 1)),
        "integers": lambda: Norm(torch.zeros(3), torch.ones(3), torch.ones(3, dtype=torch.int64)),
        "one average": lambda: Norm(torch.zeros(3)),
        "no averages": lambda: Norm(),
        "eps": lambda: Norm(training=True, eps=0.0),
        "eps text": lambda: Norm(training=True, eps="small"),  # type: ignore[arg-type]
        "eps inf": lambda: Norm(training=True, eps=INF),
        "momentum": lambda: Norm(training=True, momentum=None),  # type: ignore[arg-type]
        "momentum NaN": lambda: Norm(training=True, momentum=NAN),
        "meta": lambda: Norm(torch.zeros(3), torch.ones(3), bias=torch.ones(3, device="meta")),
        "a module": lambda: nn.BatchNorm1d(3),  # type: ignore[return-value]
        "one value": lambda: Norm(training=True),
    }
    made = named("fire, x", {name: lambda x=x: fire(x, half) for name, x in inputs.items()})
    made |= named(
        "chunk, x", {name: lambda x=x: functional.fire_chunk(x, half) for name, x in inputs.items()}
    )
    made |= named(
        "potential, x", {name: lambda x=x: functional.potential(x, half) for name, x in inputs.items()}
    )
    made |= named(
        "fire,", {name: lambda o=o: fire(**{"x_seq": X, "kernel": half, **o}) for name, o in options.items()}
    )
    made |= named(
        "chunk,",
        {
            name: lambda o=o: functional.fire_chunk(**{"x_seq": X, "kernel": half, **o})
            for name, o in options.items()
        },
    )
    made |= named(
        "chunk, state",
        {name: lambda k=k, s=s: functional.fire_chunk(X, k, state=s) for name, (k, s) in states.items()},
    )
    made |= named(
        "potential, state",
        {name: lambda k=k, s=s: functional.potential(X, k, s) for name, (k, s) in states.items()},
    )
    for name, norm in norms.items():
        x = X[:1, :1] if name == "one value" else X
        made[f"norm_fire, {name}"] = lambda n=norm, x=x: functional.norm_fire(x, n(), half)
        made[f"norm_fire_chunk, {name}"] = lambda n=norm, x=x: functional.norm_fire_chunk(x, n(), half)
    made["norm_fire, 2-D"] = lambda: functional.norm_fire(torch.ones(4, 2), Norm(training=True), half)
    made["second derivative"] = lambda: _second(lambda x: fire(x, half))
    made["second derivative, norm"] = lambda: _second(
        lambda x: functional.norm_fire(x, Norm(training=True), half)
    )
    made |= named(
        "Exponential",
        calls(
            Exponential,
            [
                1.5,
                -0.1,
                "0.5",
                True,
                NAN,
                None,
                torch.ones(2, 2),
                torch.ones(2, dtype=torch.int64),
                torch.tensor([0.5, NAN]),
            ],
        ),
    )
    made |= named("Exponential gain", calls(lambda v: Exponential(0.5, v), ["1", INF, None]))
    made |= named("Exponential order", calls(lambda v: Exponential(0.5, 1.0, v), [0, 2.0, "2", True]))
    made |= named(
        "FIR",
        calls(
            FIR,
            [
                [1.0],
                torch.zeros(0),
                torch.ones(2, 2, 2),
                torch.ones(2, dtype=torch.int64),
                torch.tensor([NAN]),
            ],
        ),
    )
    made |= named("Matrix", calls(Matrix, [torch.ones(2, 3), torch.ones(2), torch.full((2, 2), NAN), 3]))
    made |= named("taps", calls(lambda v: quantize_taps(torch.ones(2), v), [1, 9, "pow3", True, 2.5]))
    for kind in (ATan, Sigmoid, Rect):
        made |= named(kind.__name__, calls(kind, [0.0, -1.0, NAN, INF, torch.tensor(1.0), "1", None]))
    return made


def _second(fire: Callable[[Tensor], Tensor]) -> None:
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(fire(x).sum(), x, create_graph=True)
    grad.sum().backward()


KERNEL_MISTAKES: dict[str, dict[str, Any]] = {
    "kernel": {"kernel": "sinc"},
    "kernel None": {"kernel": None},
    "order 0": {"order": 0},
    "order float": {"order": 2.5},
    "order text": {"order": "2"},
    "fir without order": {"kernel": "fir"},
    "matrix without time_steps": {"kernel": "matrix"},
    "time_steps": {"time_steps": 4},
    "time_steps 0": {"kernel": "matrix", "time_steps": 0},
    "order above time_steps": {"kernel": "matrix", "time_steps": 4, "order": 5},
    "matrix of channels": {"kernel": "matrix", "time_steps": 4, "num_channels": 5},
    "num_channels 0": {"num_channels": 0},
    "num_channels text": {"num_channels": "auto"},
    "kernel_bits 1": {"kernel_bits": 1},
    "kernel_bits 9": {"kernel_bits": 9, "order": 2},
    "kernel_bits text": {"kernel_bits": "4", "order": 2},
    "kernel_bits without order": {"kernel_bits": 4},
    "stride 0": {"stride": 0, "order": 2},
    "stride float": {"stride": 1.5, "order": 2},
    "stride without order": {"stride": 2},
    "stride of a matrix": {"stride": 2, "kernel": "matrix", "time_steps": 4},
    "unknown": {"no_such": 1},
}


def modules() -> Attempts:
    made: Attempts = {name: lambda o=o: MFP(**o) for name, o in KERNEL_MISTAKES.items()}
    others: dict[str, dict[str, Any]] = {
        "decay above": {"decay": 1.5},
        "decay NaN": {"decay": NAN},
        "decay text": {"decay": "0.5"},
        "decay tensor": {"decay": torch.ones(3)},
        "decay array": {"decay": np.ones(3)},
        "decay True": {"decay": True},
        "decay None": {"decay": None},
        "decay not a power of two": {"decay": 0.9, "kernel_bits": "pow2"},
        "learnable at the end": {"decay": 1.0, "learnable": True},
        "learnable grid": {"learnable": True, "kernel_bits": "pow2"},
        "threshold NaN": {"v_threshold": NAN},
        "threshold text": {"v_threshold": "1"},
        "threshold tensor": {"v_threshold": torch.ones(3)},
        "threshold None": {"v_threshold": None},
        "backend": {"backend": "gpu"},
    }
    made |= {name: lambda o=o: MFP(**o) for name, o in others.items()}
    made["surrogate"] = lambda: MFP(surrogate="atan")(X)
    made["matrix of another T"] = lambda: MFP(kernel="matrix", time_steps=5)(X)
    made["channels"] = lambda: MFP(kernel="fir", order=2, num_channels=5)(X)
    made["threshold of other channels"] = lambda: MFP(learn_threshold=True, num_channels=5, learnable=True)(X)
    made["traced"] = lambda: torch.fx.symbolic_trace(MFP())
    for kind in ("fir", "matrix"):

        def spoiled(kind: str = kind) -> Tensor:
            neuron = MFP(0.5, kernel=kind, **({"order": 4} if kind == "fir" else {"time_steps": 4}))
            next(neuron.kernel.parameters()).data[3].fill_(NAN)
            return neuron(X)

        made[f"NaN in {kind}"] = spoiled
    made |= named("truncate", calls(lambda v: MFP(kernel="fir", order=3).kernel.truncate(v), [0, 4, 1.5]))
    made |= named("TimePool", calls(TimePool, [0, -1, 2.0, True, "2"]))
    made["TimePool of a part"] = lambda: TimePool(3)(X)
    baseline: dict[str, dict[str, Any]] = {
        "decay": {"decay": 1.5},
        "decay learnable": {"decay": 1.0, "learnable": True},
        "decay NaN": {"decay": NAN},
        "decay text": {"decay": "0.5"},
        "bits 0": {"bits": 0},
        "bits 9": {"bits": 9},
        "bits float": {"bits": 2.5},
        "threshold": {"v_threshold": 0.0},
        "threshold inf": {"v_threshold": INF},
        "reset": {"v_threshold": 1.0, "v_reset": 1.0},
        "reset text": {"v_reset": "0"},
        "num_channels": {"num_channels": 0},
        "surrogate": {"surrogate": "atan"},
        "lowest_code": {"lowest_code": 1},
        "lowest_code of floats": {"bits": None, "lowest_code": 0},
    }
    made |= named("baseline", {name: lambda o=o: QuantizedMembraneLIF(**o) for name, o in baseline.items()})
    wrong = [
        torch.zeros(3, 4, dtype=torch.int64),
        torch.zeros(3),
        torch.zeros(3, 4, 5),
        [1.0],
        torch.zeros(0, 4),
    ]
    made |= named(
        "baseline on",
        {f"{i}": lambda x=x: QuantizedMembraneLIF(num_channels=4)(x) for i, x in enumerate(wrong)},
    )
    return made


def node_arguments() -> Attempts:
    made: Attempts = {name: lambda o=o: MFPNode(**o) for name, o in KERNEL_MISTAKES.items()}
    others: dict[str, dict[str, Any]] = {
        "tau 1": {"tau": 1.0},
        "tau NaN": {"tau": NAN},
        "tau text": {"tau": "2"},
        "tau inf": {"tau": INF},
        "tau tensor": {"tau": torch.ones(2)},
        "threshold NaN": {"v_threshold": NAN},
        "threshold text": {"v_threshold": "1"},
        "threshold None": {"v_threshold": None},
        "v_reset": {"v_reset": 0.0},
        "v_reset text": {"v_reset": "0"},
        "step_mode": {"step_mode": "x"},
        "backend": {"backend": "gpu"},
        "surrogate": {"surrogate_function": 3},
        "surrogate class": {"surrogate_function": surrogate.ATan},
        "tau with a grid": {"tau": 3.0, "kernel_bits": "pow2"},
        "learnable at the end": {"tau": INF, "decay_input": False, "learnable": True},
    }
    made |= {name: lambda o=o: MFPNode(**o) for name, o in others.items()}
    x = torch.ones(2, 4, 3)

    def after(change: Callable[[Any], Any], **options: Any) -> Callable[[], Any]:
        def done() -> Any:
            node = MFPNode(**options)
            node(x)
            change(node)
            return node(x)

        return done

    made["complex"] = lambda: MFPNode(step_mode="m")(torch.zeros(3, 2, dtype=torch.complex64))
    made["no steps"] = lambda: MFPNode(step_mode="m")(torch.zeros(0, 2))
    made["1-D"] = lambda: MFPNode(step_mode="m")(torch.zeros(3))
    made["list"] = lambda: MFPNode(step_mode="m")([1.0])
    made["channels"] = lambda: MFPNode(learnable=True, num_channels=5)(x)
    made["past the matrix"] = after(lambda n: n(x), kernel="matrix", time_steps=2)
    made["v written"] = after(lambda n: setattr(n, "v", torch.ones(2, 4, 3)), order=3)
    made["v of another kind"] = after(lambda n: setattr(n, "v", "0"))
    made["v NaN"] = after(lambda n: setattr(n, "v", NAN), order=3)
    made["history written"] = after(lambda n: setattr(n, "history", torch.ones(5)), order=3)
    made["history text"] = after(lambda n: setattr(n, "history", "x"), order=3)
    made["threshold"] = after(lambda n: setattr(n, "v_threshold", torch.ones(7)))
    made["threshold None later"] = after(lambda n: setattr(n, "v_threshold", None))
    made["backend later"] = after(lambda n: setattr(n, "backend", "x"))
    made["tau of fir"] = after(lambda n: setattr(n, "tau", 3.0), kernel="fir", order=2)
    made["tau learned"] = after(lambda n: setattr(n, "tau", 3.0), learnable=True)
    made["tau later"] = after(lambda n: setattr(n, "tau", 0.5))
    made["traced"] = lambda: torch.fx.symbolic_trace(MFPNode())
    samples = [
        [0],
        torch.tensor([0.5]),
        torch.tensor(1),
        torch.tensor([True]),
        torch.tensor([2]),
        torch.tensor([-3]),
    ]
    made |= named("reset_samples", {f"{s}": after(lambda n, s=s: reset_samples(n, s)) for s in samples})
    made["reset_samples of a matrix"] = after(
        lambda n: reset_samples(n, torch.tensor([0])), kernel="matrix", time_steps=4
    )

    def other() -> None:
        net = nn.Sequential(neuron.LIFNode(), MFPNode())
        net(x)
        reset_samples(net, torch.tensor([0]))

    made["reset_samples of others"] = other

    class Doubled(MFPNode):
        def single_step_forward(self, x: Tensor) -> Tensor:
            return 2 * super().single_step_forward(x)

    class Whole(MFPNode):
        def multi_step_forward(self, x_seq: Tensor) -> Tensor:
            return x_seq

    def overrides(phase: str) -> None:
        type("Own", (MFPNode,), {phase: lambda self, x: None})

    made["half a subclass"] = lambda: Doubled(step_mode="m")(x)
    made["the other half"] = lambda: Whole()(x)
    for phase in ("neuronal_charge", "neuronal_fire", "neuronal_reset"):
        made[f"overrides {phase}"] = lambda p=phase: overrides(p)
        made[phase] = lambda p=phase: getattr(MFPNode(), p)(*([torch.ones(1)] * (p != "neuronal_fire")))
    return made


def leaky_arguments() -> Attempts:
    made: Attempts = {}
    common: dict[str, dict[str, Any]] = {
        "beta text": {"beta": "0.5"},
        "beta NaN": {"beta": NAN},
        "beta None": {"beta": None},
        "beta of each, fir": {"beta": torch.rand(4), "kernel": "fir", "order": 3},
        "beta of others": {"beta": torch.rand(4), "num_channels": 3},
        "threshold NaN": {"threshold": NAN},
        "threshold text": {"threshold": "1"},
        "spike_grad": {"spike_grad": 3},
        "subtract": {"reset_mechanism": "subtract"},
        "zero": {"reset_mechanism": "zero"},
        "reset unknown": {"reset_mechanism": "x"},
        "inhibition": {"inhibition": True},
        "state_quant": {"state_quant": 4},
        "state_quant, infinite": {"state_quant": quant.state_quant(num_bits=4)},
        "graded text": {"graded_spikes_factor": "2"},
        "gain text": {"gain": "2"},
        "learn_beta of fir": {"kernel": "fir", "order": 3, "learn_beta": True},
        **KERNEL_MISTAKES,
    }
    for kind in (MFPLeaky, MFPLeakyParallel):
        for name, options in common.items():
            made[f"{kind.__name__}, {name}"] = lambda k=kind, o=options: k(**{"beta": 0.9, **o})
        inputs = {
            "complex": torch.ones(2, 2, dtype=torch.complex64),
            "float8": torch.ones(2, 2).to(torch.float8_e4m3fn),
            "sparse": torch.ones(2, 2).to_sparse(),
            "list": [1.0, 2.0],
            "1-D": torch.ones(4),
            "no steps": torch.ones(0, 2),
        }
        for name, x in inputs.items():
            made[f"{kind.__name__} on {name}"] = lambda k=kind, x=x: k(0.5)(x)
            made[f"{kind.__name__}, order 3, on {name}"] = lambda k=kind, x=x: k(0.5, order=3)(x)
        made[f"{kind.__name__}, mem in spite"] = lambda k=kind: k(0.5, init_hidden=True)(
            torch.ones(4, 2), torch.ones(2)
        )
        made[f"{kind.__name__}, mem"] = lambda k=kind: k(0.5)(torch.ones(4, 2), torch.ones(3))
        made[f"{kind.__name__}, mem of order 3"] = lambda k=kind: k(0.5, order=3)(
            torch.ones(4, 2), torch.ones(4, 2)
        )
        made[f"{kind.__name__}, beta broad"] = lambda k=kind: k(torch.rand(5, 3))(torch.rand(4, 2, 3))
        made[f"{kind.__name__}, channels"] = lambda k=kind: k(0.5, num_channels=3)(torch.rand(5, 2, 4))
        made[f"{kind.__name__}, channels of fir"] = lambda k=kind: k(
            0.5, kernel="fir", order=2, num_channels=3
        )(torch.rand(5, 2, 4))
        made[f"{kind.__name__}, threshold broad"] = lambda k=kind: k(0.5, torch.rand(7))(torch.rand(4, 2, 3))
        made[f"{kind.__name__}, matrix"] = lambda k=kind: k(0.5, kernel="matrix", time_steps=3)(
            torch.rand(4, 2, 3)
        )
        made[f"{kind.__name__}, mechanism later"] = lambda k=kind: setattr(k(0.5), "reset_mechanism", "zero")
        made[f"{kind.__name__}, traced"] = lambda k=kind: torch.fx.symbolic_trace(k(0.5))

        def loaded(kind: Any = kind) -> Any:
            return kind(0.5, kernel="fir", order=3).load_state_dict(snn.Leaky(0.5).state_dict())

        made[f"{kind.__name__}, checkpoint"] = loaded

    def past_the_matrix() -> Any:
        lif = MFPLeaky(0.7, kernel="matrix", time_steps=2)
        return [lif(torch.ones(3)) for _ in range(3)]

    def written(**options: Any) -> Any:
        lif = MFPLeaky(0.8, order=3, **options)
        lif(torch.ones(2, 3))
        lif.mem[0] = 7.0
        return lif(torch.ones(2, 3))

    def samples(value: Any, **options: Any) -> Any:
        lif = MFPLeaky(0.5, **options)
        lif(torch.ones(3, 2))
        return lif.reset_samples(value)

    made["past the matrix"] = past_the_matrix
    made["written into mem"] = written
    made["written into hidden mem"] = lambda: written(init_hidden=True)
    for value in ([0], torch.tensor([0.0]), torch.tensor(1), torch.tensor([True]), torch.tensor([3])):
        made[f"reset_samples {value}"] = lambda v=value: samples(v, order=3)
    made["reset_samples of a matrix"] = lambda: samples(torch.tensor([0]), kernel="matrix", time_steps=3)
    return made


# --- layers, conversion, report, orders --------------------------------------------------------------------


class Detouring(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.abs(), self.bias)


class Stateful(nn.Linear):
    def get_extra_state(self) -> int:
        return 1


def layers() -> Attempts:
    def network(odd: nn.Module | None = None) -> nn.Module:
        net = nn.Sequential()
        net.add_module("fc1", nn.Linear(4, 4))
        net.add_module("odd", nn.Linear(4, 4) if odd is None else odd)
        net.add_module("head", nn.Linear(4, 4))
        return net

    def patched() -> nn.Module:
        layer: Any = nn.Linear(4, 4)
        layer.forward = lambda x: x
        return layer

    odd: dict[str, Callable[[], nn.Module]] = {
        "spectral": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
        "pruned": lambda: prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=0.5),
        "pruned for good": lambda: prune.remove(
            prune.l1_unstructured(nn.Linear(64, 4), "weight", amount=0.4), "weight"
        ),
        "extra state": lambda: Stateful(4, 4),
        "lazy": lambda: nn.LazyLinear(4),
        "complex": lambda: nn.Conv2d(2, 2, 3, dtype=torch.complex64),
        "detour": lambda: Detouring(4, 4),
        "patched": patched,
        "attention": lambda: nn.MultiheadAttention(4, 2),
        "transformer": lambda: nn.TransformerEncoderLayer(4, 2, batch_first=True),
        "empty": lambda: nn.Linear(0, 4),
        "integers": lambda: nn.Linear(4, 4).to(torch.float8_e4m3fn),
        "NaN": lambda: _filled(nn.Linear(4, 4), NAN),
        "recurrent": lambda: nn.LSTM(4, 4),
    }
    made: Attempts = {}
    for bits in (1, 4):
        for name, make in odd.items():
            made[f"{name}, {bits} bits"] = lambda m=make, b=bits: quantize_weights(network(m()), b)
    options: list[dict[str, Any]] = [
        *({"bits": bits} for bits in (9, 0, 1.5, True, None, "two", NAN, [1])),
        *({"first": 0}, {"last": NAN}, {"first": "x"}),
        *(
            {"skip": "fc3"},
            {"skip": ("fc1", "conv*")},
            {"skip": 3},
            {"skip": [nn.Linear(1, 1)]},
            {"skip": int},
        ),
    ]
    made |= {f"{o}": lambda o=o: quantize_weights(network(), **{"bits": 1, **o}) for o in options}
    made["list"] = lambda: quantize_weights([nn.Linear(2, 2)])  # type: ignore[type-var]
    made["no layer"] = lambda: quantize_weights(nn.ReLU())
    made["codes of floats"] = lambda: quantize.codes(nn.Linear(2, 2))
    made["codes of NaN"] = lambda: quantize.codes(_filled(quantize_weights(nn.Linear(2, 2), 4), NAN))
    made["materialize a list"] = lambda: quantize.materialize([nn.Linear(2, 2)])  # type: ignore[type-var]
    for ours, theirs in ((1, 4), (4, 1), (2, 3), (8, 1.58), (1.58, 8)):
        made[f"checkpoint of {theirs} bits for {ours}"] = lambda a=ours, b=theirs: quantize_weights(
            network(), a, first=a, last=a
        ).load_state_dict(quantize_weights(network(), b, first=b, last=b).state_dict())
    made["checkpoint for floats"] = lambda: nn.Linear(4, 3).load_state_dict(
        quantize_weights(nn.Linear(4, 3), 2).state_dict()
    )
    made["checkpoint without weight"] = lambda: quantize_weights(nn.Linear(2, 2), 4).load_state_dict({})
    made["checkpoint with zeros"] = lambda: quantize_weights(nn.Linear(64, 4), 1).load_state_dict(
        odd["pruned for good"]().state_dict()
    )

    def opposite() -> None:
        layer: Any = quantize_weights(nn.Linear(3, 2, bias=False), 1)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[0.0, 1.0, -1.0], [0.5, 1.0, -1.0]]))
        layer.weight = nn.Parameter(-layer.weight)

    made["a zero has no opposite"] = opposite
    return made


def _filled(layer: nn.Module, value: float) -> nn.Module:
    layer.get_parameter("weight").data[0, 0] = value
    return layer


def conversions() -> Attempts:
    def snn_net() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 6), snn.Leaky(0.8), nn.Linear(6, 6), snn.Leaky(0.7), nn.Linear(6, 3), snn.Leaky(0.9)
        )

    def sj_net() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 6),
            neuron.IFNode(),
            nn.Linear(6, 6),
            neuron.LIFNode(),
            nn.Linear(6, 3),
            neuron.LIFNode(),
        )

    def hooked() -> nn.Module:
        net = snn_net()
        net[3].register_forward_hook(lambda *_: None)  # type: ignore[index]
        return net

    def in_a_list() -> nn.Module:
        net: Any = snn_net()
        net.spiking = [net[1], net[3]]
        return net

    class Mine(neuron.LIFNode):
        pass

    class Ours(snn.Leaky):
        pass

    options: list[dict[str, Any]] = [
        *({"order": 0}, {"order": 2.5}, {"order": [1, 2]}, {"order": [1, 2, 0]}, {"order": {"7": 1}}),
        *(
            {"order": {"0": 1}},
            {"order": {"3": 0}},
            {"order": "2"},
            {"kernel": "fir"},
            {"kernel_bits": "pow2"},
        ),
        *({"no_such": 1}, {"weight_bits": 77}, {"to": "MFP"}, {"to": nn.ReLU}, {"num_channels": "auto"}),
        *({"kernel": "matrix"}, {"kernel": "sinc"}, {"stride": 2}, {"fuse": True}, {"backend": "gpu"}),
        *(
            {"v_threshold": NAN},
            {"threshold": NAN},
            {"order": 3, "kernel_bits": 9},
            {"reset_mechanism": "zero"},
        ),
    ]
    made: Attempts = {}
    for name, net in (("snnTorch", snn_net), ("SpikingJelly", sj_net)):
        for one in options:
            made[f"{name}, {one}"] = lambda n=net, o=one: convert(n(), **o)
    alone: dict[str, Callable[[], nn.Module]] = {
        "hooks": hooked,
        "in a list": in_a_list,
        "no neuron": lambda: nn.Sequential(nn.Linear(2, 2)),
        "DataParallel": lambda: nn.DataParallel(snn_net()),
        "list": lambda: [snn.Leaky(0.5)],  # type: ignore[return-value]
        "Mine": lambda: nn.Sequential(Mine(), neuron.LIFNode()),
        "Ours": lambda: nn.Sequential(Ours(0.5), snn.Leaky(0.5)),
        "PSN": lambda: neuron.PSN(4),
        "MaskedPSN": lambda: neuron.MaskedPSN(2, 4, step_mode="m"),
        "QIF": lambda: nn.Sequential(neuron.QIFNode(), neuron.IFNode()),
        "RLeaky": lambda: nn.Sequential(snn.RLeaky(0.5, linear_features=3), snn.Leaky(0.5)),
        "RSynaptic": lambda: snn.RSynaptic(0.5, 0.5, linear_features=3),
        "SLSTM": lambda: snn.SLSTM(3, 3),
        "Alpha": lambda: snn.Alpha(0.9, 0.8),
        "LeakyParallel": lambda: snn.LeakyParallel(3, 4),
        "Lapicque": lambda: nn.Sequential(snn.Lapicque(R=0.1, C=0.1), snn.Leaky(0.5)),
        "inhibition": lambda: snn.Leaky(0.5, inhibition=True),
        "state_quant": lambda: snn.Leaky(0.5, state_quant=torch.round),
        "reset kept": lambda: neuron.LIFNode(v_reset=0.0),
    }
    for name, make in alone.items():
        made[name] = lambda m=make: str(convert(m())) + "\n"
        made[f"{name}, fused"] = lambda m=make: str(convert(m(), fuse=True)) + "\n"
    to: list[tuple[Callable[[], nn.Module], Any]] = [
        (lambda: snn.Leaky(0.5), MFPNode),
        (lambda: neuron.LIFNode(), MFPLeaky),
        (lambda: neuron.LIFNode(), MFP),
        (lambda: neuron.LIFNode(step_mode="m", store_v_seq=True), MFP),
        (lambda: snn.Leaky(torch.rand(3)), MFP),
        (lambda: snn.Leaky(0.5, graded_spikes_factor=2.0), MFP),
        (lambda: snn.Leaky(0.5, state_quant=torch.round), MFP),
        (lambda: snn.Leaky(0.5, state_quant=torch.round), MFPLeakyParallel),
        (lambda: snn.Leaky(0.5, surrogate_disable=True), MFP),
        (lambda: snn.Lapicque(0.5), MFP),
        (lambda: snn.Synaptic(0.5, 0.5), MFP),
    ]
    for number, (make, kind) in enumerate(to):
        made[f"to {number}"] = lambda m=make, k=kind: convert(nn.Sequential(nn.Linear(3, 3), m()), to=k)
    return made


def reports() -> Attempts:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 3), MFP(order=2), nn.Linear(3, 2))

    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    made: Attempts = {
        "no model": lambda: report(torch.zeros(1), torch.zeros(1)),  # type: ignore[arg-type]
        "lazy": lambda: report(nn.Sequential(nn.LazyLinear(3)), torch.zeros(1, 2)),
        "array": lambda: report(net(), np.zeros((3, 300))),
        "None": lambda: report(net(), None),
        "wrong shape": lambda: report(net(), torch.zeros(4, 2, 5)),
        "no neuron": lambda: report(nn.Linear(3, 2), torch.zeros(4, 2, 3)),
        "raises": lambda: report(Do(fails), torch.zeros(4, 2, 3)),
        "run": lambda: report(net(), torch.zeros(4, 2, 3), run=3),  # type: ignore[arg-type]
        "empty": lambda: report(net(), torch.zeros(0, 2, 3)),
    }
    odd = {
        "bilinear": (nn.Bilinear(3, 3, 2), lambda x, m: m(x, x)),
        "LSTM": (nn.LSTM(3, 3), lambda x, m: m(x)[0]),
        "attention": (nn.MultiheadAttention(3, 1), lambda x, m: m(x, x, x)[0]),
        "transposed": (nn.ConvTranspose1d(4, 4, 3), lambda x, m: m(x.transpose(0, 1)).transpose(0, 1)),
        "embedding": (nn.Embedding(4, 3), lambda x, m: m((x > 0).long())),
    }
    for name, (layer, does) in odd.items():
        made[f"counts {name}"] = lambda m=layer, d=does: str(report(Do(d, m), X)) + "\n"
    return made


def orders() -> Attempts:
    def firs(*which: int) -> nn.Module:
        layers: list[nn.Module] = []
        for order in which:
            layers += [nn.Linear(6, 6), MFP(0.5, kernel="fir", order=order, num_channels=6)]
        return nn.Sequential(*layers)

    x = torch.rand(5, 1, 6, generator=torch.Generator().manual_seed(0))
    return {
        **named(
            "bits", calls(lambda v: fit_orders(firs(4, 4), x, state_bits=v), [-1, NAN, "2", None, INF, True])
        ),
        "loss": lambda: fit_orders(firs(4), x, state_bits=1, loss=lambda _: math.nan),
        "no neuron": lambda: fit_orders(nn.Linear(6, 6), x, state_bits=1),
        "infinite": lambda: fit_orders(MFP(0.5), x, state_bits=1),
        "no model": lambda: fit_orders(3, x, state_bits=1),  # type: ignore[arg-type]
        "late infinite": lambda: late_taps(MFP(0.5)),
        "late of none": lambda: late_taps(nn.Linear(2, 2)),
        "not enough": lambda: fit_orders(
            nn.Sequential(nn.Linear(6, 6), QuantizedMembraneLIF(bits=2), *firs(4)), x, state_bits=0.5
        ),
        "a pool": lambda: fit_orders(nn.Sequential(*firs(4), TimePool(5), *firs(4)), x, state_bits=0.1),
    }


# --- lowering and NIR --------------------------------------------------------------------------------------


class Louder(MFP):
    def forward(self, x_seq: Tensor) -> Tensor:
        return 2 * super().forward(x_seq)


def block() -> nn.Module:
    return EachStep(nn.Conv2d(4, 4, 3, padding=1))


def fires(threshold: float = 0.3, **options: Any) -> MFP:
    return MFP(0.5, **{"v_threshold": threshold, "order": 3, "kernel_bits": "pow2", **options})


def odd_modules() -> dict[str, nn.Module]:
    each = EachStep
    return {
        "layer norm": nn.LayerNorm(6),
        "group norm": each(nn.GroupNorm(2, 4)),
        "instance norm": each(nn.InstanceNorm2d(4)),
        "a norm of the batch": each(nn.BatchNorm2d(4, track_running_stats=False)),
        "relu": nn.ReLU(),
        "relu in place": nn.ReLU(inplace=True),
        "sigmoid": nn.Sigmoid(),
        "softmax": nn.Softmax(-1),
        "a transposed convolution": each(nn.ConvTranspose2d(4, 4, 3)),
        "upsampling": each(nn.Upsample(scale_factor=2)),
        "a circular border": each(quantize_weights(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))),
        "too much padding": each(quantize_weights(nn.Conv2d(4, 4, 1, padding=1))),
        "a 3-D convolution": Do(
            lambda x, c: c(x.transpose(0, 1).transpose(1, 2)), quantize_weights(nn.Conv3d(4, 4, 3))
        ),
        "an average without its border": each(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)),
        "an average over partial windows": each(nn.AvgPool2d(4, 4, ceil_mode=True)),
        "another divisor": each(nn.AvgPool2d(2, divisor_override=3)),
        "uneven adaptive windows": each(nn.AdaptiveAvgPool2d(4)),
        "places of the largest": each(nn.MaxPool2d(2, return_indices=True)),
        "windows of padding": each(nn.MaxPool2d((1, 2), 1, (0, 1), dilation=(1, 7))),
        "an Lp pool": each(nn.LPPool2d(2, 2)),
        "a cut channel": each(nn.PixelShuffle(2)),
        "zeros around": each(nn.ZeroPad2d(1)),
        "recurrence": Do(lambda x, r: r(x.flatten(2)), nn.LSTM(144, 4)),
        "attention module": Do(lambda x, a: a(x, x, x), nn.MultiheadAttention(6, 2)),
        "a transformer": nn.TransformerEncoderLayer(6, 2),
        "a plain threshold": Do(lambda x: (x > 0.5).float()),
        "a product": Do(lambda x: x * x),
        "SEW IAND": Do(lambda x: x * (1.0 - x)),
        "attention": Do(lambda x: x @ x.transpose(-1, -2)),
        "a value that is looked at": Do(lambda x: x if x.any() else -x),
        "a number taken out": Do(lambda x: x * x.item()),
        "half of the channels": Do(lambda x: x[:, :, :2]),
        "halves of the channels": Do(lambda x: x.chunk(2, 2)[0]),
        "repeated channels": Do(lambda x: x.repeat(1, 1, 2, 1, 1)),
        "a mean over the batch": Do(lambda x: x.mean(1)),
        "a mean of everything": Do(lambda x: x.mean()),
        "channels that move": Do(
            lambda x, c: c(x.transpose(2, 3)), each(quantize_weights(nn.Conv2d(6, 4, 3)))
        ),
        "numbers that repeat it": Do(lambda x: x + torch.zeros(3, 1, 1, 1, 1, 1)),
        "a neuron that does more": Louder(),
        "numbers for each place": Do(lambda x: x * torch.ones(6)),
        "a view that is written": Do(lambda x: (x.flatten(2), x.add_(1))[0]),
        "vmap": Do(lambda x: torch.vmap(lambda y: y + 1)(x)),
        "an attribute that is set": Do(lambda x: setattr(x, "data", x + 1) or x),
        "a baseline": QuantizedMembraneLIF(0.5),
        "unknown words": Do(lambda x: torch.fft.rfft(x).real),
        "NaN": Do(lambda x: x * NAN),
        "raises": Do(lambda x: {}["nothing here"]),
        "flipped": Do(lambda x: x.flip(0)),
        "rolled": Do(lambda x: x.roll(1, 0)),
        "max over time": Do(lambda x: x.amax(0)),
        "cumulated": Do(lambda x: x.cumsum(0)),
        "where": Do(lambda x: torch.where(x > 0, x, -x)),
        "clamped": Do(lambda x: x.clamp(0, 1)),
        "by index": Do(lambda x: x[:, :, torch.tensor([0, 2])]),
        "einsum": Do(lambda x: torch.einsum("tnchw,tnchw->tnc", x, x)),
        "cast to integers": Do(lambda x: x.long()),
        "random": Do(lambda x: x + torch.rand_like(x)),
        "concatenated in time": Do(lambda x: torch.cat([x, x], 0)),
        "time pool": TimePool(3),
        "permuted": Do(lambda x: x.permute(1, 0, 2, 3, 4)),
        "a power": Do(lambda x: x**2),
        "a root": Do(lambda x: x.sqrt()),
        "divided by itself": Do(lambda x: x / x),
        "LIF": neuron.LIFNode(step_mode="m"),
        "PSN": neuron.PSN(4),
        "Leaky": snn.Leaky(0.5, init_hidden=True),
    }


def forwards() -> dict[str, Callable[..., Any]]:
    return {
        "tuple": lambda x, a, fire, out: (out(fire(a(x.flatten(2)))).mean(0), x),
        "dict": lambda x, a, fire, out: {"scores": a(x.flatten(2))},
        "constant": lambda x, a, fire, out: torch.zeros(3),
        "a number": lambda x, a, fire, out: 3,
        "batch first": lambda x, a, fire, out: fire(a(x.flatten(2))).transpose(0, 1),
        "two steps": lambda x, a, fire, out: fire(a(x.flatten(2)))[-2:],
        "all but one": lambda x, a, fire, out: fire(a(x.flatten(2)))[1:].mean(0),
        "a step in between": lambda x, a, fire, out: fire(a(x.flatten(2)))[1],
        "neurons batch first": lambda x, a, fire, out: fire(a(x.flatten(2)).transpose(0, 1)),
        "neurons without time": lambda x, a, fire, out: fire(a(x.flatten(2)).flatten(0, 1)),
        "neurons of some steps": lambda x, a, fire, out: fire(a(x.flatten(2))[-2:]).mean(0),
        "a layer of a sum": lambda x, a, fire, out: out(fire(a(x.flatten(2))).sum(0)),
        "a number behind a sum": lambda x, a, fire, out: fire(a(x.flatten(2))).sum(0) + 1,
        "functional linear": lambda x, a, fire, out: F.linear(x.flatten(2), torch.ones(3, 20)),
        "functional dropout": lambda x, a, fire, out: F.dropout(fire(a(x.flatten(2)))).mean(0),
        "by zero": lambda x, a, fire, out: fire(a(x.flatten(2))).div(0),
        "a part": lambda x, a, fire, out: a(x[:, :, 0]),
        "currents beside the input": lambda x, a, fire, out: torch.cat([a(x.flatten(2)), x.flatten(2)], 2),
        "twice the neuron": lambda x, a, fire, out: out(fire(fire(a(x.flatten(2))))),
        "no neuron": lambda x, a, fire, out: out(a(x.flatten(2))),
        "loop": lambda x, a, fire, out: torch.stack([out(fire(a(s)[None])[0]) for s in x.flatten(2)]).mean(0),
        "indexed": lambda x, a, fire, out: sum(out(fire(a(x[t].flatten(1))[None])[0]) for t in range(len(x))),
        "unbound": lambda x, a, fire, out: sum(out(fire(a(s.flatten(1))[None])[0]) for s in x.unbind(0)),
        "normalized": lambda x, a, fire, out: out(fire(a((x.flatten(2) - 0.3) / 0.4))).mean(0),
        "scaled": lambda x, a, fire, out: out(fire(a(x.flatten(2) / 255))).mean(0),
        "scores of a maximum": lambda x, a, fire, out: out(fire(a(x.flatten(2)))).max(0).values,
        "argmax": lambda x, a, fire, out: out(fire(a(x.flatten(2)))).mean(0).argmax(1),
        "softmax": lambda x, a, fire, out: out(fire(a(x.flatten(2)))).mean(0).softmax(1),
        "the input alone": lambda x, a, fire, out: x,
        "printed": lambda x, a, fire, out: out(fire(a(x.flatten(2)))) * float(x.sum()),
        "a mean of a mean": lambda x, a, fire, out: out(fire(a(x.flatten(2)))).mean(0).mean(0),
        "spikes times currents": lambda x, a, fire, out: fire(a(x.flatten(2))) * a(x.flatten(2)),
    }


def mlp(x: Tensor, a: Any, fire: Any, out: Any) -> Tensor:
    return out(fire(a(x.flatten(2)))).mean(0)


def parts() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(20, 12), fires(), nn.Linear(12, 3)]


def prepared(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return quantize_weights(model, 3)


def lowering() -> Attempts:
    example = events(4, 2, 4, 6, 6)
    made: Attempts = {}
    for name, module in odd_modules().items():
        inner = nn.Sequential(nn.Identity(), nn.Sequential(module))
        made[name] = lambda m=inner: lowered(m, example)
        made[f"{name}, behind a neuron"] = lambda m=module: lowered(
            nn.Sequential(prepared(block()), fires(), nn.Sequential(m)), example
        )
    for name, forward in forwards().items():
        model = prepared(Do(forward, *parts()))
        made[f"forward, {name}"] = lambda m=model: lowered(m, events(4, 2, 4, 5))
        made[f"forward, {name}, of an image"] = lambda m=model: lowered(m, image(2, 4, 5))
    made["real weights"] = lambda: lowered(
        quantize_weights(
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)), nn.Linear(2, 2)),
            skip=["0", "1.0"],
        ),
        example,
    )
    made["two synapses"] = lambda: lowered(
        prepared(nn.Sequential(block(), EachStep(nn.Conv2d(4, 2, 3)))), example
    )
    made["norm before a synapse"] = lambda: lowered(
        prepared(nn.Sequential(fires(), EachStep(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)))), example
    )
    made["norm of the input"] = lambda: lowered(
        prepared(nn.Sequential(EachStep(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)), fires())),
        image(4, 2, 4, 6, 6),
    )
    made["pooled twice"] = lambda: lowered(
        prepared(EachStep(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2), nn.MaxPool2d(2))), example
    )
    made["pooled sum"] = lambda: lowered(
        prepared(Do(lambda x, a, b, p: p(a(x) + b(x)), block(), block(), EachStep(nn.MaxPool2d(2)))), example
    )
    made["padded average"] = lambda: lowered(
        prepared(EachStep(nn.Conv2d(4, 4, 3), nn.AvgPool2d(3, 1, padding=1))), example
    )
    made["wrong size"] = lambda: lowered(prepared(nn.Sequential(EachStep(nn.Linear(7, 3)))), example)

    def beside(x: Tensor, first: Any, fire: Any, other: Any, second: Any, out: Any) -> Tensor:
        return out(torch.cat((fire(first(x)).flatten(2), second(other(x.flatten(2)))), 2)).mean(0)

    made["maps beside vectors"] = lambda: lowered(
        prepared(Do(beside, block(), fires(), nn.Linear(144, 5), fires(), nn.Linear(149, 3))), example
    )
    examples: dict[str, Any] = {
        "list": [1.0],
        "integers": torch.ones(4, 2, 20, dtype=torch.int64),
        "1-D": torch.ones(4),
        "empty": torch.ones(0, 2, 20),
        "NaN": torch.full((4, 2, 20), NAN),
        "above": torch.full((4, 2, 20), 1.5),
        "below": torch.full((4, 2, 20), -0.5),
        "complex": torch.ones(4, 2, 20, dtype=torch.complex64),
        "meta": torch.ones(4, 2, 20, device="meta"),
    }
    made |= named(
        "example", {name: lambda x=x: lowered(prepared(Do(mlp, *parts())), x) for name, x in examples.items()}
    )
    for levels in (0, 256, True, 2.0, "16"):
        made[f"levels {levels!r}"] = lambda v=levels: deploy.lower(
            prepared(Do(mlp, *parts())), events(4, 2, 4, 5), levels=v
        )
    made["levels below"] = lambda: deploy.lower(prepared(Do(mlp, *parts())), image(4, 2, 4, 5), levels=16)
    made["no model"] = lambda: deploy.lower(lambda x: x, events(4, 5))  # type: ignore[arg-type]
    for name, value in (("weight NaN", NAN), ("weight inf", INF)):
        made[name] = lambda v=value: lowered(
            Do(mlp, _filled(prepared(nn.Linear(20, 12)), v), fires(), prepared(nn.Linear(12, 3))),
            events(4, 2, 4, 5),
        )
    for value in (NAN, -INF, INF):

        def spoiled(value: float = value) -> Any:
            model = prepared(Do(mlp, *parts()))
            model.layers[1].v_threshold = value  # type: ignore[union-attr, index]
            return lowered(model, events(4, 2, 4, 5))

        made[f"threshold {value}"] = spoiled
    for name in ("running_mean", "running_var", "weight", "bias"):

        def norm(name: str = name) -> Any:
            model = prepared(nn.Sequential(EachStep(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), fires()))
            getattr(model[0][1], name).data[1] = -5.0 if name == "running_var" else NAN  # type: ignore[index]
            return lowered(model, example)

        made[f"norm with {name}"] = norm
    return made


def lowered(model: nn.Module, example: Any) -> str:
    with torch.no_grad():
        return f"{deploy.lower(model.eval(), example)}\n"


class Weird(nn.Module):
    spiking = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


def odd_neurons() -> dict[str, Callable[[], nn.Module]]:
    def held() -> nn.Module:
        node = MFPNode(step_mode="m", order=2, v_threshold=0.3)
        node(torch.ones(2, 2, 5))
        return node

    def of_each() -> nn.Module:
        node = MFPNode(step_mode="m", order=2)
        node.v_threshold = torch.rand(7)
        return node

    return {
        "real taps": lambda: MFP(0.9),
        "real taps, order": lambda: MFP(0.9, order=3),
        "real taps, learnable": lambda: MFP(0.6, learnable=True),
        "real fir": lambda: MFP(kernel="fir", order=3, decay=0.7),
        "real matrix": lambda: MFP(0.7, kernel="matrix", time_steps=4),
        "other channels": lambda: MFP(kernel="fir", order=3, kernel_bits="pow2", num_channels=2),
        "other T": lambda: MFP(kernel="matrix", time_steps=6, kernel_bits="pow2"),
        "sigmoid": lambda: MFP(0.5, surrogate=Weird()),
        "a function": lambda: MFP(0.5, surrogate=lambda x: (x > 0).float()),
        "step mode": lambda: MFPNode(),
        "not spiking": lambda: MFPNode(step_mode="m", surrogate_function=surrogate.Sigmoid(spiking=False)),
        "decay_input": lambda: MFPNode(3.0, step_mode="m", order=3, kernel_bits="pow2"),
        "a state": held,
        "threshold of others": of_each,
        "stored": lambda: MFPNode(step_mode="m", order=2, store_v_seq=True),
        "MFPLeaky": lambda: MFPLeaky(0.5),
        "MFPLeaky, hidden": lambda: MFPLeaky(0.5, init_hidden=True),
        "graded": lambda: MFPLeakyParallel(0.5, graded_spikes_factor=2.0, init_hidden=True),
        "disabled": lambda: MFPLeakyParallel(0.5, surrogate_disable=True, init_hidden=True),
        "state_quant": lambda: MFPLeakyParallel(
            0.5, order=2, state_quant=quant.state_quant(4), init_hidden=True
        ),
        "beta of each": lambda: MFPLeakyParallel(torch.rand(5), init_hidden=True),
        "two outputs": lambda: MFPLeakyParallel(0.5),
        "Leaky": lambda: snn.Leaky(0.5, init_hidden=True),
        "LIFNode": lambda: neuron.LIFNode(step_mode="m"),
        "baseline": lambda: QuantizedMembraneLIF(),
        "long": lambda: MFP(0.5, order=70),
        "inf": lambda: MFP(0.5, order=2, v_threshold=INF),
        "huge": lambda: MFP(0.5, order=2, v_threshold=1e30),
    }


def lowered_neurons() -> Attempts:
    made: Attempts = {}
    for name, make in odd_neurons().items():

        def model(make: Any = make) -> nn.Module:
            torch.manual_seed(0)
            return nn.Sequential(prepared(nn.Linear(6, 5)), make(), prepared(nn.Linear(5, 3)))

        for steps in (4, 70):
            made[f"{name}, T = {steps}"] = lambda m=model, t=steps: lowered(m(), events(t, 2, 6))
        made[f"{name}, NIR"] = lambda m=model: graph_of(m(), events(4, 2, 6).float())

    def twice(node: nn.Module) -> nn.Module:
        return Do(lambda x, a, f: f(a(f(a(x)))), prepared(nn.Linear(6, 6)), node)

    made["called twice"] = lambda: lowered(twice(MFPNode(step_mode="m", order=2)), events(4, 2, 6))
    made["called twice, MFP"] = lambda: lowered(twice(fires()), events(4, 2, 6))
    made["starts"] = lambda: lowered(
        Do(lambda x, a, f: f(a(x), torch.ones(2, 6))[0], prepared(nn.Linear(6, 6)), MFPLeakyParallel(0.5)),
        events(4, 2, 6),
    )
    made["potential"] = lambda: lowered(
        Do(lambda x, a, f: f(a(x))[1], prepared(nn.Linear(6, 6)), MFPLeakyParallel(0.5)), events(4, 2, 6)
    )
    made["potential read"] = lambda: lowered(
        Do(lambda x, a, f: f(a(x))[1] * 2, prepared(nn.Linear(6, 6)), MFPLeakyParallel(0.5)), events(4, 2, 6)
    )
    made["v read"] = lambda: lowered(
        Do(lambda x, a, f: f(a(x)) * f.v, prepared(nn.Linear(6, 6)), MFPNode(step_mode="m", order=2)),
        events(4, 2, 6),
    )
    return made


def graph_of(model: nn.Module, x: Tensor, **options: Any) -> str:
    return nir_text(to_nir(model.eval(), x, **options))


def to_graphs() -> Attempts:
    each = EachStep
    models: dict[str, tuple[nn.Module, Tensor]] = {
        "matrix": (nn.Sequential(MFP(kernel="matrix", time_steps=12)), CLIPPED),
        "time pool": (nn.Sequential(MFP(), TimePool(2)), CLIPPED),
        "max pool of numbers": (each(nn.MaxPool2d(2)), IMAGES + 0.5),
        "max pool of currents": (nn.Sequential(each(nn.Conv2d(2, 2, 1)), each(nn.MaxPool2d(2))), IMAGES),
        "ceil": (each(nn.MaxPool2d(3, ceil_mode=True)), IMAGES),
        "dilation": (each(nn.MaxPool2d(2, dilation=2)), IMAGES),
        "border": (each(nn.AvgPool2d(3, padding=1, count_include_pad=False)), IMAGES),
        "adaptive": (each(nn.AdaptiveAvgPool2d(3)), IMAGES),
        "oblong": (each(nn.Conv2d(2, 2, (2, 3))), IMAGES),
        "circular": (each(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")), IMAGES),
        "layer norm": (each(nn.LayerNorm(3)), CLIPPED),
        "batch norm": (each(nn.BatchNorm1d(3, track_running_stats=False)), CLIPPED),
        "product": (Do(lambda x: x * x), CLIPPED),
        "by zero": (Do(lambda x: x / 0), CLIPPED),
        "a part": (Do(lambda x: x[:, :, 1:]), CLIPPED),
        "some steps": (Do(lambda x: x[2:5]), CLIPPED),
        "two steps": (Do(lambda x: x[0] + x[1]), CLIPPED),
        "one step": (Do(lambda x: x[3]), CLIPPED),
        "behind a mean": (Do(lambda x: x.mean(0) * 2), CLIPPED),
        "over the batch": (Do(lambda x: x.mean(1)), CLIPPED),
        "batch first": (Do(lambda x: x.transpose(0, 1)), CLIPPED),
        "a number": (Do(lambda x: 3), CLIPPED),
        "a tuple": (Do(lambda x: (x, x)), CLIPPED),
        "weight of the input": (Do(lambda x, f: F.linear(x, x[0]), nn.Linear(3, 3)), CLIPPED),
        "matmul": (Do(lambda x: x.flatten(2) @ torch.ones(3, 3)), CLIPPED),
        "beside": (Do(lambda x: torch.cat([x, x], 2)), CLIPPED),
        "a threshold of inf": (MFP(v_threshold=INF), CLIPPED),
        "leaky loop": (Do(lambda x, f: torch.stack([f(s)[0] for s in x]), MFPLeaky(0.5)), CLIPPED),
        "node": (MFPNode(), CLIPPED[0]),
        "repeats": (Do(lambda x, f: f(x.repeat(5, 1, 1)).mean(0), MFP()), CLIPPED[0]),
    }
    made: Attempts = {name: lambda m=m, x=x: graph_of(m, x) for name, (m, x) in models.items()}
    x = events(4, 2, 4, 6, 6).float()
    made |= {f"odd, {name}": lambda m=m: graph_of(m, x) for name, m in odd_modules().items()}
    y = events(4, 2, 4, 5).float()
    for name, forward in forwards().items():
        made[f"forward, {name}"] = lambda f=forward: graph_of(Do(f, *parts()), y)
    made["no model"] = lambda: to_nir(3, CLIPPED)  # type: ignore[arg-type]
    made["example"] = lambda: to_nir(MFP(), [1])  # type: ignore[arg-type]
    made["1-D"] = lambda: to_nir(MFP(), torch.zeros(3))
    made["empty"] = lambda: to_nir(MFP(), torch.zeros(3, 0))
    made |= named("dt", calls(lambda v: to_nir(MFP(), CLIPPED, dt=v), [0, -1e-3, NAN, INF, True, "1ms"]))
    made["folder"] = lambda: to_nir(MFP(), CLIPPED, path="/nonexistent/folder/graph.nir")
    return made


def _full(value: float, *shape: int) -> Any:
    return np.full(shape or (2,), value, np.float32)


def _li(tau: float, v_leak: float = 0.0) -> Any:
    return nir.LI(tau=np.full(2, tau), r=np.full(2, 2.0), v_leak=np.full(2, v_leak))


def from_graphs() -> Attempts:
    full = _full
    nodes: dict[str, Callable[[], list[Any]]] = {
        "LIF": lambda: [nir.LIF(full(DT), full(1), full(0), full(1))],
        "IF": lambda: [nir.IF(full(1), full(1))],
        "CubaLIF": lambda: [nir.CubaLIF(*(full(1) for _ in range(5)))],
        "CubaLI": lambda: [nir.CubaLI(*(full(1) for _ in range(4)))],
        "leak": lambda: [_li(2 * DT, 0.5), nir.Threshold(full(1))],
        "time constant": lambda: [_li(DT / 2), nir.Threshold(full(1))],
        "delay": lambda: [nir.Delay(np.full(2, 1.5 * DT)), nir.Threshold(full(1))],
        "negative delay": lambda: [nir.Delay(np.full(2, -DT)), nir.Threshold(full(1))],
        "NaN": lambda: [nir.Threshold(full(NAN))],
        "NaN weight": lambda: [nir.Linear(full(NAN, 2, 2))],
        "integrator": lambda: [nir.I(full(1)), nir.Threshold(full(1))],
        "I alone": lambda: [nir.I(full(1))],
        "plain": lambda: [nir.Linear(full(0.5, 2, 2)), _li(2 * DT), nir.Threshold(full(0.25))],
    }
    made: Attempts = {
        name: lambda m=make: f"{from_nir(nir.NIRGraph.from_list(*m()), dt=DT)}\n"
        for name, make in nodes.items()
    }

    def graph(middle: dict[str, Any], edges: list[tuple[str, str]], **options: Any) -> Any:
        ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
        return nir.NIRGraph({**ends, **middle}, edges, **options)

    fire = {"fire": nir.Threshold(full(1))}
    back = {**fire, "back": nir.Linear(full(0.5, 2, 2))}
    cycle = [("input", "fire"), ("fire", "back"), ("back", "fire"), ("fire", "output")]
    inner = {"inner": nir.NIRGraph.from_list(nir.Threshold(full(1)))}
    made["cycle"] = lambda: from_nir(graph(back, cycle))
    made["graph within"] = lambda: from_nir(
        graph(inner, [("input", "inner"), ("inner", "output")], type_check=False)
    )
    made["two inputs"] = lambda: from_nir(
        graph({**fire, "b": nir.Input(np.array([2]))}, [("input", "fire"), ("b", "fire"), ("fire", "output")])
    )
    made["two outputs"] = lambda: from_nir(
        graph(
            {**fire, "b": nir.Output(np.array([2]))}, [("input", "fire"), ("fire", "b"), ("fire", "output")]
        )
    )
    made["unreached"] = lambda: from_nir(graph(fire, [("input", "output")]))
    made |= named("graph", calls(from_nir, [3, None, nn.Linear(2, 2), "/nonexistent/graph.nir"]))
    one = nir.NIRGraph.from_list(nir.Threshold(full(1)))
    made |= named("dt", calls(lambda v: from_nir(one, dt=v), [0, -1.0, NAN, True, "1"]))

    def changed(change: Callable[[Any], Any], x: Tensor = CLIPPED) -> Callable[[], str]:
        def done() -> str:
            torch.manual_seed(0)
            model = nn.Sequential(quantize_weights(nn.Linear(3, 2), 4), MFP(0.5, order=3))
            exported = to_nir(model, CLIPPED, dt=DT)
            change(exported)
            network = from_nir(exported)
            network(x)
            return f"{network}\n"

        return done

    made["metadata, order"] = changed(lambda g: g.nodes["1"].metadata.update(order="many", kernel="sinc"))
    made["metadata, codes"] = changed(lambda g: g.nodes["0"].metadata.update(codes=np.zeros(7, np.int8)))
    made["metadata, threshold"] = changed(lambda g: g.nodes["1"].threshold.__setitem__(0, 0.1))
    made["metadata, weight"] = changed(lambda g: g.nodes["0"].weight.__setitem__((0, 0), 9.0))
    made["metadata, dt"] = changed(lambda g: g.metadata.update(dt="x"))
    made["metadata, readout"] = changed(lambda g: g.metadata.update(readout="x"))
    made["metadata, steps"] = changed(lambda g: g.metadata.update(steps=5))
    made["metadata, readout_steps"] = changed(lambda g: g.metadata.update(readout="mean", readout_steps=50))
    made["metadata, repeats"] = changed(lambda g: g.metadata.update(repeats=0))
    return made


# --- what is deployed --------------------------------------------------------------------------------------


def running() -> Attempts:
    def network(**options: Any) -> deploy.IntegerNetwork:
        torch.manual_seed(0)
        layers = nn.Linear(6, 5), fires(0.1, **options), nn.Linear(5, 3)
        return deploy.lower(prepared(nn.Sequential(*layers)), events(4, 2, 6))

    def images() -> deploy.IntegerNetwork:
        torch.manual_seed(0)
        return deploy.lower(
            prepared(nn.Sequential(nn.Linear(6, 5), fires(), nn.Linear(5, 3))), image(4, 2, 6)
        )

    def pooled() -> deploy.IntegerNetwork:
        torch.manual_seed(0)
        layers = nn.Linear(6, 5), fires(), TimePool(2), nn.Linear(5, 3)
        return deploy.lower(prepared(nn.Sequential(*layers)), events(4, 2, 6))

    def last() -> deploy.IntegerNetwork:
        torch.manual_seed(0)
        model = Do(lambda x, a, f, o: o(f(a(x)))[-4:].mean(0), nn.Linear(6, 5), fires(), nn.Linear(5, 3))
        return deploy.lower(prepared(model), events(6, 2, 6))

    def still() -> deploy.IntegerNetwork:
        torch.manual_seed(0)
        model = Do(
            lambda x, a, f, o: o(f(a(x.repeat(4, 1, 1)))).mean(0), nn.Linear(6, 5), fires(), nn.Linear(5, 3)
        )
        return deploy.lower(prepared(model), image(2, 6))

    def fixed() -> deploy.IntegerNetwork:
        return network(kernel="matrix", time_steps=4, order=None)

    inputs = {
        "list": [[1, 2]],
        "complex": np.zeros((4, 2, 6), complex),
        "1-D": np.zeros(6),
        "features": np.zeros((4, 2, 7)),
        "no steps": np.zeros((0, 2, 6)),
        "no samples": np.zeros((4, 0, 6)),
        "NaN": np.full((4, 2, 6), np.nan),
        "above": np.full((4, 2, 6), 1.5),
        "inf": np.full((4, 2, 6), np.inf),
        "levels above": np.full((4, 2, 6), 256),
        "levels below": np.full((4, 2, 6), -1),
        "unsigned": np.full((4, 2, 6), 2**63, np.uint64),
        "half": np.full((4, 2, 6), 1.01, np.float16),
        "negative": np.full((4, 2, 6), -0.1),
        "fraction": np.full((4, 2, 6), 0.5),
        "objects": np.zeros((4, 2, 6), object),
        "bfloat16 NaN": torch.full((4, 2, 6), NAN, dtype=torch.bfloat16),
        "complex tensor": torch.zeros(4, 2, 6, dtype=torch.complex64),
        "meta": torch.zeros(4, 2, 6, device="meta"),
        "three steps": np.zeros((3, 2, 6)),
        "too many": np.zeros((2**16 + 1, 1, 6), bool),
    }
    kinds = {
        "events": network,
        "images": images,
        "pooled": pooled,
        "last": last,
        "still": still,
        "fixed": fixed,
    }
    made: Attempts = {}
    for (kind, make), (name, x) in ((k, i) for k in kinds.items() for i in inputs.items()):
        made[f"{kind}, run, {name}"] = lambda m=make, x=x: m().run(x)
    for kind, make in kinds.items():
        for name in ("1-D", "features", "NaN", "above", "levels above", "fraction", "list"):
            x = inputs[name]
            step = x[0] if name in ("features", "NaN", "above", "levels above", "fraction") else x
            made[f"{kind}, step, {name}"] = lambda m=make, x=step: m().stream().step(x)
        tuples: dict[str, Any] = {
            "address": ([0], [6]),
            "negative time": ([-1], [0]),
            "late": ([2**40], [0]),
            "lengths": ([0, 1], [0]),
            "twice": ([1, 1], [3, 3]),
            "floats": ([0.5], [3]),
            "three": ([0], [0], [0]),
            "text": (["x"], [0]),
            "past": ([70000], [0]),
            "fine": ([3], [0]),
        }
        for name, pair in tuples.items():
            made[f"{kind}, events, {name}"] = lambda m=make, p=pair: m().run_events(p)
        made[f"{kind}, memory"] = lambda m=make: m().memory(steps=3)
    made |= named(
        "threads", calls(lambda v: network().run(events(4, 2, 6), threads=v), [0, -1, 2.5, "2", True])
    )
    made |= named("backend", calls(lambda v: network().run(events(4, 2, 6), backend=v), ["gpu", None]))
    made |= named("stream backend", calls(lambda v: network().stream(backend=v), ["gpu", 3]))
    made |= named("stream threads", calls(lambda v: network().stream(threads=v), [0, "x"]))
    made |= named("batch", calls(lambda v: network().memory(batch=v), [0, 1.5, "2"]))
    made |= named("steps", calls(lambda v: network().memory(steps=v), [0, 1.5, "2"]))
    made |= named(
        "name",
        calls(lambda v: network().to_c("never", name=v), ["1a", "a b", "", "mfp_int", "stdint", None, 3]),
    )
    made["graph"] = lambda: deploy.IntegerNetwork(3)  # type: ignore[arg-type]

    def another() -> Any:
        stream = network().stream()
        stream.step(np.zeros((2, 6)))
        return stream.step(np.zeros((3, 6)))

    def past() -> Any:
        stream = fixed().stream()
        return [stream.step(np.zeros((2, 6))) for _ in range(5)]

    made["another N"] = another
    made["past the end"] = past
    made["save"] = lambda: network().save("/nonexistent/folder/network")
    made["load"] = lambda: deploy.IntegerNetwork.load("/nonexistent/network")
    return made


# files

KEY = "mfp_neurons.network"


def _opened(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    return header, json.loads(header["__metadata__"][KEY]), data[end:]


def _closed(header: dict[str, Any], text: str, arrays: bytes) -> bytes:
    changed = {**header, "__metadata__": {**header["__metadata__"], KEY: text}}
    written = json.dumps(changed, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + arrays


def _signed(header: dict[str, Any], inside: dict[str, Any], arrays: bytes) -> bytes:
    """With the checksum that belongs to it."""
    unsigned = _closed(header, json.dumps({**inside, "sha256": "0" * 64}, ensure_ascii=False), arrays)
    digest = hashlib.sha256(unsigned).hexdigest()
    return _closed(header, json.dumps({**inside, "sha256": digest}, ensure_ascii=False), arrays)


def broken_files(number: int) -> str:
    """A file with one thing changed after the other, and what is said of it."""
    case = generate.model(number)
    network = deploy.lower(case.model, case.example, levels=case.top)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "network"

        def loaded(data: bytes) -> str:
            path.write_bytes(data)
            try:
                deploy.IntegerNetwork.load(path)
            except Exception as error:
                return refusal(error).strip()
            return "is a network"

        network.save(path)
        data = path.read_bytes()
        lines = [f"nothing changed: {loaded(data)}"]
        for end in (0, 5, 8, 40, len(data) // 2, len(data) - 1):
            lines.append(f"cut at {end}: {loaded(data[:end])}")
        rng = random.Random(number)
        for _ in range(20):
            place = rng.randrange(len(data))
            lines.append(
                f"byte {place}: {loaded(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])}"
            )
        header, inside, arrays = _opened(data)
        not_a_number = '{"version": NaN}'
        lines.append(f"signed again: {loaded(_signed(header, inside, arrays))}")
        for value in (0, 2, "1", None, True):
            lines.append(
                f"version {value!r}: {loaded(_signed(header, {**inside, 'version': value}, arrays))}"
            )
        lines.append(f"more: {loaded(_signed(header, {**inside, 'more': 1}, arrays))}")
        lines.append(f"no network: {loaded(_signed(header, {**inside, 'network': None}, arrays))}")
        lines.append(f"broken JSON: {loaded(_closed(header, '{', arrays))}")
        lines.append(f"a list: {loaded(_closed(header, '[]', arrays))}")
        lines.append(f"NaN: {loaded(_closed(header, not_a_number, arrays))}")
        for words, changed in _changes(inside["network"]):
            lines.append(f"{words}: {loaded(_signed(header, {**inside, 'network': changed}, arrays))}")
        for _ in range(60):
            place = rng.randrange(len(arrays))
            flipped = arrays[:place] + bytes([arrays[place] ^ (1 << rng.randrange(8))]) + arrays[place + 1 :]
            lines.append(f"array byte {place}: {loaded(_signed(header, inside, flipped))}")
    return "\n".join(lines) + "\n"


def _changes(value: Any, path: str = "network") -> list[tuple[str, Any]]:
    """The value with one thing changed, all of them, with words for each."""
    made: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        for key in value:
            made.append((f"{path} without {key}", {k: v for k, v in value.items() if k != key}))
            for words, changed in _changes(value[key], f"{path}.{key}"):
                made.append((words, {**value, key: changed}))
        made.append((f"{path} with more", {**value, "more": 1}))
    elif isinstance(value, list):
        for i in range(len(value)):
            for words, changed in _changes(value[i], f"{path}[{i}]"):
                made.append((words, [*value[:i], changed, *value[i + 1 :]]))
        if value:
            made.append((f"{path} cut", value[:-1]))
            made.append((f"{path} twice the last", [*value, value[-1]]))
    elif isinstance(value, bool):
        made.append((f"{path} = {not value}", not value))
        made.append((f"{path} = 1", 1))
    elif isinstance(value, int):
        made += [(f"{path} = {one!r}", one) for one in (-1, 0, value + 1, 2**40, 0.5, "1", None, True)]
    elif isinstance(value, float):
        made += [(f"{path} = {one!r}", one) for one in (-1.0, 0.0, 1e300, "1", 1, None)]
    elif isinstance(value, str):
        made += [(f"{path} = {one!r}", one) for one in ("", "another", 3, None)]
    else:
        made += [(f"{path} = {one!r}", one) for one in (1, "x", [])]
    return made


# --- the zoo and the command line --------------------------------------------------------------------------


def zoo_names() -> Attempts:
    def written(change: Callable[[Path], Any]) -> Callable[[], Any]:
        return lambda: change(Path("never"))

    return {
        "list": lambda: "\n".join(zoo.list()) + "\n",
        "load": lambda: zoo.load("no-such"),
        "card": lambda: zoo.card("no-such"),
        "attribute": lambda: getattr(zoo, "no_such"),  # noqa: B009
        **named("resnet order", calls(lambda v: zoo.mfp_qsnn_resnet19(1, 10, width=4, order=v), [[1, 2], 0])),
        **named(
            "resnet bits", calls(lambda v: zoo.mfp_qsnn_resnet19(1, 10, width=4, weight_bits=v), [9, "x"])
        ),
        "vggsnn": lambda: zoo.mfp_qsnn_vggsnn((2, 8, 8), width=4),
        **named(
            "vggsnn order", calls(lambda v: zoo.mfp_qsnn_vggsnn((2, 16, 16), width=4, order=v), [[1], "x"])
        ),
    }


COMMANDS = [
    [],
    ["--help"],
    ["--version"],
    ["no-such"],
    *([command, "--help"] for command in ("demo", "train", "evaluate", "report", "deploy", "zoo")),
    *(["zoo", verb, "--help"] for verb in ("list", "show", "evaluate", "train")),
    ["zoo"],
    ["zoo", "list"],
    ["zoo", "list", "--json"],
    ["zoo", "show", "digits-rows"],
    ["zoo", "show", "digits-rows", "--json"],
    ["zoo", "show", "no-such"],
    ["zoo", "evaluate", "no-such"],
    ["zoo", "train", "no-such"],
    ["zoo", "no-such"],
    ["train"],
    ["train", "no-such"],
    ["train", "no-such.toml"],
    ["train", "digits-mfp", "--set", "nothing"],
    ["train", "digits-mfp", "--set", "no.such=3"],
    ["train", "digits-mfp", "--set", "training.epochs=x"],
    ["train", "digits-mfp", "--set", "training.epochs=-1"],
    ["train", "digits-mfp", "--set", "network.neuron.kind=x"],
    ["train", "digits-mfp", "--set", "network.neuron.order=x"],
    ["train", "digits-mfp", "--set", "network.weight_bits=9"],
    ["train", "digits-mfp", "--set", "data.name=x"],
    ["train", "digits-mfp", "--set", "training.learning_rate=0"],
    ["train", "digits-mfp", "--set", "network.architecture=x"],
    ["evaluate"],
    ["evaluate", "no-such.pt"],
    ["report", "no-such.pt"],
    ["report", "no-such.pt", "--samples", "0"],
    ["deploy", "no-such.pt"],
    ["demo", "--seeds", "0"],
    ["demo", "--seeds", "x"],
]


def command_line() -> Attempts:
    return {" ".join(arguments) or "nothing": lambda a=arguments: _run(a) for arguments in COMMANDS}


def _run(arguments: list[str]) -> str:
    """The exit status and what was written, in a folder of its own."""
    out, err = io.StringIO(), io.StringIO()
    before, columns = Path.cwd(), os.environ.get("COLUMNS")
    with tempfile.TemporaryDirectory() as name:
        os.environ["COLUMNS"] = "100"
        os.chdir(name)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status: Any = cli.main(arguments)
        except SystemExit as error:
            status = error.code
        finally:
            os.chdir(before)
            if columns is None:
                del os.environ["COLUMNS"]
    written = re.sub(r"\d+(\.\d+)? s\b", "N s", out.getvalue())
    return f"status {status}\n{written}\n--- errors\n{err.getvalue()}\n"
