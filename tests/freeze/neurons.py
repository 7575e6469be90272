"""The neuron as a function and as torch modules: outputs, states and all gradients."""

import itertools
import logging
import random
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons import (
    MFP,
    QuantizedMembraneLIF,
    TimePool,
    fit_orders,
    functional,
    late_taps,
    quantize,
    quantize_weights,
)
from mfp_neurons.history import FIR, Exponential, Kernel, Matrix, quantize_taps
from mfp_neurons.norm import Norm
from mfp_neurons.surrogate import ATan, Erf, PiecewiseQuadratic, Rect, Sigmoid, SuperSpike

from .book import Book, digest

BACKENDS = ["cpu", "cpu", "torch", "torch", "auto"]
MODES = ["fire", "chunk", "chunk", "train", "eval", "norm chunk", "potential"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


class Hard(torch.autograd.Function):
    """A spike of a user's own making."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] / (1 + ctx.saved_tensors[0].square())


SURROGATES = [
    ATan(),
    ATan(3.0),
    Sigmoid(),
    Rect(0.7),
    Rect(),
    PiecewiseQuadratic(0.8),
    SuperSpike(25.0),
    SuperSpike(1.0, 2.0),
    Erf(),
    Hard.apply,
]
SHAPES = [
    (7, 2, 3),
    (5, 3, 4, 5),
    (1, 2, 4),
    (20, 2, 3, 4, 4),
    (33, 2, 8),
    (9, 130),
    (3, 1, 2, 3, 2, 2),
    (12, 70, 40),
]
LAYOUTS = ["contiguous", "batch first", "channels last", "sliced", "reversed axes", "expanded time"]
KERNELS = [
    "exp",
    "exp channel",
    "exp gain",
    "exp order",
    "exp order channel",
    "exp long order",
    "fir",
    "fir channel",
    "fir one",
    "matrix",
]


def laid_out(x: Tensor, how: str) -> Tensor:
    """The same numbers, in another order in memory."""
    if how == "batch first":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if how == "channels last" and x.dim() > 3:
        return x.movedim(2, -1).contiguous().movedim(-1, 2)
    if how == "sliced":
        return torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)[..., ::2]
    if how == "reversed axes":
        back = list(range(x.dim()))[::-1]
        return x.permute(back).contiguous().permute(back)
    if how == "expanded time":
        return x[:1].expand_as(x)
    return x


class Call:
    """One call: its tensors, which are leaves, and how they become a kernel."""

    def __init__(self, seed: int, kind: str, dtype: torch.dtype, shape: tuple[int, ...], layout: str) -> None:
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.kind, self.dtype = kind, dtype
        self.x = laid_out(self.randn(*shape), layout).detach()
        channels = shape[2] if len(shape) > 2 else 1
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        own = channels if "channel" in kind else 1
        decay = self.randn(own, dtype=wide).sigmoid()
        gain = self.randn(own, dtype=wide).sigmoid() + 0.5
        if kind == "matrix":
            self.parameters = {"matrix": self.randn(shape[0], shape[0], dtype=wide)}
        elif kind.startswith("fir"):
            taps = self.randn(1 if "one" in kind else 4, own, dtype=wide)
            self.parameters = {"taps": taps if own > 1 else taps[:, 0].clone()}
        else:
            self.parameters = {
                "decay": decay,
                **({"gain": gain} if "gain" in kind or "order" in kind else {}),
            }
        per_channel = len(shape) > 2 and self.rng.random() < 0.5
        threshold = self.randn(channels if per_channel else 1, dtype=wide)
        self.threshold = threshold.abs() * 0.5
        for tensor in (self.x, self.threshold, *self.parameters.values()):
            tensor.requires_grad_()

    def randn(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        made = torch.randn(*size, generator=self.generator, dtype=torch.float64)
        return made.to(dtype or self.dtype)

    def kernel(self) -> Kernel:
        if self.kind == "matrix":
            return Matrix(self.parameters["matrix"])
        if self.kind.startswith("fir"):
            return FIR(self.parameters["taps"])
        order = 40 if "long" in self.kind else 3 if "order" in self.kind else None
        return Exponential(self.parameters["decay"], self.parameters.get("gain", 1.0), order)

    def gradients(self, outputs: list[Tensor], more: dict[str, Tensor]) -> dict[str, Tensor | None]:
        """Of a weighted sum of all outputs."""
        total = torch.zeros((), dtype=torch.float64)
        for output in outputs:
            if output.requires_grad:
                weights = self.randn(*output.shape, dtype=torch.float32)
                total = total + (output.double() * weights).sum()
        leaves = {"x": self.x, "threshold": self.threshold, **self.parameters, **more}
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, grads, strict=True))


def record(book: Book, quick: bool = False) -> None:
    logging.getLogger("mfp_neurons").setLevel(logging.ERROR)
    rng = random.Random(0)
    rounds = 1 if quick else 6
    grid = list(itertools.product(range(rounds), KERNELS, DTYPES, SURROGATES[:: 3 if quick else 1]))
    for number, (_, kind, dtype, surrogate) in enumerate(grid):
        shape, layout = rng.choice(SHAPES), rng.choice(LAYOUTS)
        mode = rng.choice(MODES)
        if mode in ("train", "eval", "norm chunk") and len(shape) < 3:
            shape = SHAPES[0]
        strict, recorded, fixed = (rng.random() < 0.5 for _ in range(3))
        backend = rng.choice(BACKENDS)
        name = getattr(surrogate, "__qualname__", repr(surrogate))
        words = [
            backend,
            kind,
            str(dtype).removeprefix("torch."),
            name,
            mode,
            "x".join(map(str, shape)),
            layout,
        ]
        words += ["strict"] * strict + ["record"] * recorded + ["only x learns"] * fixed
        case = f"{number:04} {', '.join(words)}"
        call = Call(number, kind, dtype, shape, layout)
        if fixed:
            for tensor in (call.threshold, *call.parameters.values()):
                tensor.requires_grad_(False)
        options = {"surrogate": surrogate, "strict": strict, "backend": backend}
        book.attempt(case, "result", lambda c=call, m=mode, o=options, r=recorded: run(c, m, o, r))
    _record_numbers(book)
    _record_modules(book)
    _record_quantized(book)


def run(call: Call, mode: str, options: dict[str, Any], record: bool) -> str:
    """Outputs and gradients of one call, a line each."""
    kernel, v, more = call.kernel(), call.threshold, {}
    outputs: dict[str, Tensor] = {}
    if mode == "fire":
        outputs["spikes"] = functional.fire(call.x, kernel, v, **options)
    elif mode == "potential":
        outputs["u"] = functional.potential(call.x, kernel, backend=options["backend"])
    elif mode in ("train", "eval"):
        norm, more = _norm(call, mode == "train")
        outputs["spikes"] = functional.norm_fire(call.x, norm, kernel, v, **options)
        outputs |= {"mean": norm.running_mean, "var": norm.running_var}  # type: ignore[dict-item]
    else:
        state, before = None, len(call.x) // 3
        norm = None
        if mode == "norm chunk":
            norm, more = _norm(call, call.rng.random() < 0.5)
        rest = call.x[before:]
        if before and not isinstance(kernel, Matrix):
            first = _chunk(call.x[:before], norm, kernel, v, None, options, record)
            state = first.state
            outputs |= {f"first {name}": value for name, value in first._asdict().items()}
        elif not isinstance(kernel, Matrix):
            order = kernel.order if isinstance(kernel, Exponential) else len(kernel.taps)
            size = call.x.shape[1:] if order is None else (order - 1, *call.x.shape[1:])
            wide = torch.promote_types(call.dtype, torch.float32)
            state = call.randn(*size, dtype=wide if order is None else call.dtype).requires_grad_()
            more["state"] = state
        else:
            rest = call.x
        second = _chunk(rest, norm, kernel, v, state, options, record)
        outputs |= second._asdict()
    leaves = {key: value for key, value in more.items() if value.requires_grad}
    if not all(tensor.requires_grad for tensor in (call.threshold, *call.parameters.values())):
        made = [one for one in outputs.values() if one.requires_grad]
        total = sum((one.double() * call.randn(*one.shape, dtype=torch.float32)).sum() for one in made)
        grads = {"x": torch.autograd.grad(total, call.x, allow_unused=True)[0]} if made else {}
    else:
        grads = call.gradients(list(outputs.values()), leaves)
    lines = [f"{name}: {digest(value)}" for name, value in outputs.items()]
    lines += [f"d{name}: {digest(value)}" for name, value in grads.items()]
    return "\n".join(lines) + "\n"


def _chunk(
    x: Tensor, norm: Norm | None, kernel: Kernel, v: Tensor, state: Any, options: dict[str, Any], record: bool
) -> functional.Chunk:
    if norm is None:
        return functional.fire_chunk(x, kernel, v, state, record=record, **options)
    return functional.norm_fire_chunk(x, norm, kernel, v, state, record=record, **options)


def _norm(call: Call, training: bool) -> tuple[Norm, dict[str, Tensor]]:
    channels = call.x.shape[2]
    wide = torch.float64 if call.dtype == torch.float64 else torch.float32
    mean, var = call.randn(channels, dtype=wide), call.randn(channels, dtype=wide).square() + 0.1
    more: dict[str, Tensor] = {}
    if call.rng.random() < 0.7:
        more = {"weight": call.randn(channels, dtype=wide), "bias": call.randn(channels, dtype=wide)}
        for value in more.values():
            value.requires_grad_()
    return Norm(mean, var, more.get("weight"), more.get("bias"), training, 0.3, 1e-3), more


def _record_numbers(book: Book) -> None:
    """What is no plain float tensor: numbers, integers, NaN, infinities, empty batches."""
    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1))
    odd = x.clone()
    odd[1, 0, 0], odd[2, 1, 1], odd[3, 0, 2] = float("nan"), float("inf"), float("-inf")
    inputs = {
        "floats": x,
        "integers": (x * 3).long(),
        "booleans": x > 0,
        "with NaN": odd,
        "no batch": x[:, :0],
        "huge": x * 1e30,
        "subnormal": x * 1e-40,
    }
    kernels: dict[str, Kernel] = {
        "exp 0.5": Exponential(0.5),
        "exp 1": Exponential(1.0, 0.25),
        "exp 0": Exponential(0.0),
        "exp 0.9, 4": Exponential(0.9, 0.5, 4),
        "fir": FIR(torch.tensor([1.0, -0.5, 0.25])),
        "matrix": Matrix(torch.linspace(-1, 1, 36).reshape(6, 6)),
    }
    for (words, value), (name, kernel) in itertools.product(inputs.items(), kernels.items()):
        for backend, v in itertools.product(["cpu", "torch"], [1.0, 0.0, float("inf")]):
            case = f"numbers, {words}, {name}, {backend}, {v}"
            book.attempt(
                case, "fire", lambda x=value, k=kernel, b=backend, v=v: functional.fire(x, k, v, backend=b)
            )
            book.attempt(
                case,
                "chunk",
                lambda x=value, k=kernel, b=backend, v=v: functional.fire_chunk(x, k, v, backend=b),
            )


def module_lines(module: nn.Module, x: Tensor, times: int = 1) -> str:
    """Outputs, memories and gradients of a module that is called so many times, its words and its keys."""
    torch.manual_seed(0)
    lines, total = [f"{module}", f"keys {sorted(module.state_dict())}"], torch.zeros((), dtype=torch.float64)
    x = x.clone().requires_grad_()
    for _ in range(times):
        made = module(x)
        for output in made if isinstance(made, tuple) else (made,):
            lines.append(f"output: {digest(output)}")
            if output.requires_grad:
                total = total + (output.double() * torch.randn(output.shape)).sum()
    for name in ("v", "history", "mem", "v_seq"):
        if isinstance(getattr(module, name, None), Tensor):
            lines.append(f"{name}: {digest(getattr(module, name))}")
    leaves = {"x": x, **{name: one for name, one in module.named_parameters() if one.requires_grad}}
    if total.requires_grad:
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        lines += [f"d{name}: {digest(grad)}" for name, grad in zip(leaves, grads, strict=True)]
    return "\n".join(lines) + "\n"


KERNEL_OPTIONS: dict[str, dict[str, Any]] = {
    "exp": {},
    "exp, order": {"order": 3},
    "exp, pow2": {"order": 4, "kernel_bits": "pow2"},
    "exp, pow2, no order": {"kernel_bits": "pow2"},
    "exp, 4 bits, stride": {"order": 3, "kernel_bits": 4, "stride": 2},
    "exp, stride": {"order": 2, "stride": 3},
    "exp, learnable": {"learnable": True},
    "exp, learnable channel": {"learnable": True, "num_channels": 4},
    "exp, learnable order": {"learnable": True, "order": 3, "num_channels": 4, "kernel_bits": 5},
    "order 1": {"order": 1},
    "fir": {"kernel": "fir", "order": 3},
    "fir channel": {"kernel": "fir", "order": 4, "num_channels": 4, "kernel_bits": "pow2"},
    "fir stride": {"kernel": "fir", "order": 3, "stride": 2, "kernel_bits": 3},
    "matrix": {"kernel": "matrix", "time_steps": 6},
    "matrix, banded": {"kernel": "matrix", "time_steps": 6, "order": 2, "kernel_bits": "pow2"},
}


def _record_modules(book: Book) -> None:
    x = torch.randn(6, 2, 4, 3, generator=torch.Generator().manual_seed(2)) + 0.3
    for (name, options), learned, strict in itertools.product(
        KERNEL_OPTIONS.items(), [False, True], [False, True]
    ):
        case = f"MFP, {name}{', learned threshold' * learned}{', strict' * strict}"
        decay = 0.5 if "kernel_bits" in options else 0.7
        more = {"learn_threshold": learned, "strict": strict, "v_threshold": 0.5, **options}
        book.attempt(case, "result", lambda d=decay, m=more: module_lines(MFP(d, **m), x))
    lif: dict[str, dict[str, Any]] = {
        "float": {"bits": None},
        "2 bits": {"bits": 2},
        "1 bit": {"bits": 1},
        "hard reset": {"bits": 3, "v_reset": 0.0},
        "learnable, channel": {"bits": 4, "learnable": True, "num_channels": 4},
        "detached, strict": {"bits": 2, "detach_reset": True, "strict": True, "surrogate": Sigmoid()},
        "lowest code": {"bits": 2, "lowest_code": -1},
    }
    for name, options in lif.items():
        case = f"QuantizedMembraneLIF, {name}"
        book.attempt(case, "result", lambda o=options: module_lines(QuantizedMembraneLIF(0.8, **o), x))
    for window in (1, 2, 3):
        book.attempt(f"TimePool {window}", "result", lambda w=window: module_lines(TimePool(w), x))
    for bits in (None, "pow2", 2, 3, 8):
        taps = torch.randn(9, 5, generator=torch.Generator().manual_seed(3))
        book.put(f"quantize_taps {bits}", "result", quantize_taps(taps, bits))  # type: ignore[arg-type]

    def network() -> nn.Module:
        torch.manual_seed(0)
        fir: Any = {"kernel": "fir", "order": 6, "num_channels": 4}
        layers = nn.Linear(3, 4), MFP(**fir), nn.Linear(4, 4), MFP(**fir), nn.Linear(4, 2)
        net = nn.Sequential(*layers)
        for parameter in net.parameters():
            nn.init.normal_(parameter)
        return net

    rows = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(4))
    for bits in (0, 1, 2.5, 4):
        net = network()
        book.attempt(
            f"fit_orders {bits}", "orders", lambda n=net, b=bits: str(fit_orders(n, rows, state_bits=b))
        )
        book.attempt(f"fit_orders {bits}", "late_taps", lambda n=net: late_taps(n))
        book.attempt(f"fit_orders {bits}", "after", lambda n=net: n(rows))
        loss = network()
        book.attempt(
            f"fit_orders {bits}",
            "by loss",
            lambda n=loss, b=bits: str(
                fit_orders(n, rows, state_bits=b, loss=lambda m: m(rows).square().mean())
            ),
        )


def _record_quantized(book: Book) -> None:
    """Layers with quantized weights: codes, scales, outputs and gradients."""
    generator = torch.Generator().manual_seed(5)
    layers: dict[str, tuple[nn.Module, Tensor]] = {
        "Linear": (nn.Linear(6, 5), torch.randn(3, 6, generator=generator)),
        "Conv1d": (nn.Conv1d(4, 6, 3, groups=2), torch.randn(2, 4, 9, generator=generator)),
        "Conv2d": (nn.Conv2d(3, 4, 3, padding=1), torch.randn(2, 3, 6, 6, generator=generator)),
        "ConvTranspose2d": (nn.ConvTranspose2d(3, 4, 2), torch.randn(2, 3, 4, 4, generator=generator)),
    }
    for (name, (layer, x)), bits in itertools.product(layers.items(), [1, 1.58, 2, 3, 4, 5, 6, 7, 8]):
        case = f"{name}, {bits} bits"
        try:
            torch.manual_seed(6)
            made = quantize_weights(type(layer)(*_arguments(layer)), bits)
        except Exception as error:
            book.put(case, "refused", f"{type(error).__name__}: {error}\n")
            continue
        found = quantize.codes(made)
        book.put(case, "codes", found.codes)
        book.put(case, "scale", found.scale)
        book.attempt(case, "result", lambda m=made, x=x: module_lines(m, x))
        book.put(case, "plain", str(quantize.materialize(made)))


def _arguments(layer: Any) -> tuple[Any, ...]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    arguments = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    if layer.transposed:
        return arguments
    return (*arguments, layer.dilation, layer.groups)
