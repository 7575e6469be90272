"""The neurons of both frameworks: by step and in sequences, states, resets, conversion, fused norms."""

import copy
import io
import itertools
import logging
from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from snntorch import surrogate as snn_surrogate
from snntorch.functional.quant import state_quant
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, convert, deploy, quantize_weights, report, reset_samples
from mfp_neurons import surrogate as ours
from mfp_neurons.nir import to_nir
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

from .book import Book, digest
from .exports import nir_text
from .neurons import KERNEL_OPTIONS, module_lines

X = torch.randn(6, 2, 4, 3, generator=torch.Generator().manual_seed(2)) + 0.3
SURROGATES = {
    "Sigmoid": surrogate.Sigmoid(),
    "Sigmoid 2": surrogate.Sigmoid(2.0),
    "ATan": surrogate.ATan(),
    "PiecewiseQuadratic": surrogate.PiecewiseQuadratic(),
    "Erf": surrogate.Erf(),
    "SuperSpike": surrogate.SuperSpike() if hasattr(surrogate, "SuperSpike") else surrogate.ATan(3.0),
    "Rect": surrogate.Rect() if hasattr(surrogate, "Rect") else surrogate.ATan(4.0),
    "LeakyKReLU": surrogate.LeakyKReLU(),
    "not spiking": surrogate.Sigmoid(spiking=False),
    "ours": ours.Rect(0.8),
}
SPIKE_GRADS = {
    "None": None,
    "atan": snn_surrogate.atan(alpha=3.0),
    "fast_sigmoid": snn_surrogate.fast_sigmoid(slope=10),
    "sigmoid": snn_surrogate.sigmoid(slope=5),
    "triangular": snn_surrogate.triangular(),
    "spike_rate_escape": snn_surrogate.spike_rate_escape(),
    "straight_through": snn_surrogate.straight_through_estimator(),
    "ours": ours.Erf(1.5),
}


def record(book: Book) -> None:
    logging.getLogger("mfp_neurons").setLevel(logging.ERROR)
    torch.manual_seed(0)
    _record_nodes(book)
    _record_leakies(book)
    _record_conversions(book)


class InTwo(nn.Module):
    """A sequence in two chunks, so that states pass from one to the other."""

    def __init__(self, module: nn.Module, cut: int) -> None:
        super().__init__()
        self.module, self.cut = module, cut

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.module(x[: self.cut]), self.module(x[self.cut :])])


class ByStep(nn.Module):
    """One call for each step, from rest."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return tuple(self.module(step) for step in x)


def _state(module: nn.Module) -> str:
    names = ("v", "history", "mem", "v_seq")
    return "\n".join(f"{name}: {digest(getattr(module, name))}" for name in names if hasattr(module, name))


def _record_nodes(book: Book) -> None:
    for (name, options), mode, stored in itertools.product(KERNEL_OPTIONS.items(), "sm", [False, True]):
        pow2 = options.get("kernel_bits") == "pow2"
        arguments = {
            "tau": 2.0 if pow2 else 3.0,
            "v_threshold": 0.4,
            "step_mode": mode,
            "store_v_seq": stored,
        }

        def done(options: Any = options, arguments: Any = arguments, mode: str = mode) -> str:
            node = MFPNode(**arguments, **options)
            text = module_lines(ByStep(node) if mode == "s" else node, X)
            text += _state(node) + f"\nmemories {sorted(node._memories)}\n"
            node.reset()
            text += f"after reset {_state(node)}\n"
            if node.kernel.kind != "matrix" and mode == "m":
                text += module_lines(InTwo(node, 2), X)
                reset_samples(node, torch.tensor([True, False]))
                text += f"after reset_samples {_state(node)}\n"
                functional.detach_net(node)
                text += f"after detach {_state(copy.deepcopy(node))}\n"
            return text

        book.attempt(f"MFPNode, {name}, {mode}{', stored' * stored}", "result", done)
    for name, function in SURROGATES.items():
        for mode, decay_input in itertools.product("sm", [False, True]):

            def done(function: Any = function, mode: str = mode, decay_input: bool = decay_input) -> str:
                node = MFPNode(2.0, decay_input, 0.5, None, function, step_mode=mode)
                return module_lines(ByStep(node) if mode == "s" else node, X)

            book.attempt(f"MFPNode, {name}, {mode}, decay_input={decay_input}", "result", done)
    narrow = [torch.float16, torch.bfloat16, torch.float64]
    for dtype, backend, mode in itertools.product(narrow, ["cpu", "torch"], "sm"):
        for order in (None, 3):

            def done(dtype: Any = dtype, backend: str = backend, mode: str = mode, order: Any = order) -> str:
                node = MFPNode(2.0, order=order, v_threshold=0.3, step_mode=mode, backend=backend)
                return module_lines(ByStep(node) if mode == "s" else node, X.to(dtype)) + _state(node)

            book.attempt(f"MFPNode, {dtype}, {backend}, {mode}, order={order}", "result", done)
    thresholds = {
        "tensor": torch.tensor([0.3]),
        "channels": torch.linspace(0.1, 0.6, 4),
        "parameter": nn.Parameter(torch.full((4,), 0.3)),
        "step": torch.rand(4, 3, generator=torch.Generator().manual_seed(1)),
    }
    for name, threshold in thresholds.items():

        def done(threshold: Any = threshold) -> str:
            node = MFPNode(2.0, step_mode="m")
            node.v_threshold = threshold
            return module_lines(node, X) + _state(node)

        book.attempt(f"MFPNode, threshold {name}", "result", done)


def _record_leakies(book: Book) -> None:
    for (name, options), hidden, output in itertools.product(
        KERNEL_OPTIONS.items(), [False, True], [False, True]
    ):
        given = dict(options)
        learn = given.pop("learnable", False)
        beta: Any = 0.5 if given.get("kernel_bits") == "pow2" else 0.7
        more = {"threshold": 0.4, "init_hidden": hidden, "output": output, "learn_beta": learn, **given}

        def parallel(beta: Any = beta, more: Any = more) -> str:
            leaky = MFPLeakyParallel(beta, **more)
            return module_lines(leaky, X) + _state(leaky)

        def by_step(beta: Any = beta, more: Any = more) -> str:
            leaky = MFPLeaky(beta, **more)
            text = module_lines(Loop(leaky), X) + _state(leaky)
            leaky.detach_hidden()
            if leaky.kernel.kind != "matrix" and leaky.init_hidden:
                reset_samples(leaky, torch.tensor([True, False]))
            text += f"\nafter {_state(leaky)}"
            leaky.reset_mem()
            return text + f"\nafter reset {_state(leaky)}\n"

        words = f"{name}{', hidden' * hidden}{', output' * output}"
        book.attempt(f"MFPLeakyParallel, {words}", "result", parallel)
        book.attempt(f"MFPLeaky, {words}", "result", by_step)
    others: dict[str, dict[str, Any]] = {
        "learn threshold": {"learn_threshold": True},
        "channels": {"beta": torch.linspace(0.2, 0.9, 4), "num_channels": 4},
        "threshold of each": {"threshold": torch.rand(3, generator=torch.Generator().manual_seed(1))},
        "inhibition": {"inhibition": True},
        "graded": {"graded_spikes_factor": 0.5, "learn_graded_spikes_factor": True},
        "surrogate_disable": {"surrogate_disable": True},
        "gain": {"gain": 0.5, "order": 3},
        "state_quant": {"state_quant": state_quant(num_bits=4, threshold=1), "order": 3},
        **{f"spike_grad {name}": {"spike_grad": function} for name, function in SPIKE_GRADS.items()},
    }
    for name, options in others.items():
        torch.manual_seed(0)
        made = {"beta": 0.6, "threshold": 0.4, **options}
        x = X[:, :, 0] if name == "inhibition" else X
        book.attempt(f"MFPLeaky, {name}", "result", lambda o=made, x=x: module_lines(Loop(MFPLeaky(**o)), x))
        book.attempt(
            f"MFPLeakyParallel, {name}", "result", lambda o=made, x=x: module_lines(MFPLeakyParallel(**o), x)
        )
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        for order in (None, 3):
            made = {"beta": 0.6, "threshold": 0.4, "order": order}
            x = X.to(dtype)
            name = f"{dtype}, order={order}"
            book.attempt(
                f"MFPLeaky, {name}", "result", lambda o=made, x=x: module_lines(Loop(MFPLeaky(**o)), x)
            )
            book.attempt(
                f"MFPLeakyParallel, {name}",
                "result",
                lambda o=made, x=x: module_lines(MFPLeakyParallel(**o), x),
            )


class Loop(nn.Module):
    """snnTorch's habit: spikes and potentials of every step."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        mem, kept = self.module.reset_mem(), []
        for step in x:
            made = self.module(step) if self.module.init_hidden else self.module(step, mem)
            made = made if isinstance(made, tuple) else (made,)
            mem = made[-1]
            kept += made
        return tuple(kept)


def _blocks(*neurons: nn.Module) -> nn.Module:
    one, two, three = neurons
    net = nn.Sequential(
        *(layer.Conv2d(1, 4, 3, padding=1, bias=False), layer.BatchNorm2d(4), one),
        *(layer.MaxPool2d(2, 2), layer.Conv2d(4, 4, 3, padding=1), layer.BatchNorm2d(4), two),
        *(layer.Flatten(), layer.Linear(36, 6), three),
    )
    functional.set_step_mode(net, "m")
    return net


JELLY: dict[str, Callable[[], nn.Module]] = {
    "IFNode": lambda: neuron.IFNode(v_threshold=0.5, v_reset=None),
    "LIFNode": lambda: neuron.LIFNode(tau=3.0, surrogate_function=surrogate.ATan()),
    "LIFNode, no decay_input": lambda: neuron.LIFNode(decay_input=False, detach_reset=True),
    "ParametricLIFNode": lambda: neuron.ParametricLIFNode(init_tau=2.5),
    "PSN": lambda: neuron.PSN(4),
    "MaskedPSN": lambda: neuron.MaskedPSN(2, 4, step_mode="m"),
    "SlidingPSN": lambda: neuron.SlidingPSN(3, step_mode="m"),
    "QIFNode": lambda: neuron.QIFNode(),
    "EIFNode": lambda: neuron.EIFNode(),
    "IzhikevichNode": lambda: neuron.IzhikevichNode(),
}
TORCH: dict[str, Callable[[], nn.Module]] = {
    "Leaky": lambda: snn.Leaky(0.7, threshold=0.4, init_hidden=True),
    "Leaky, learned": lambda: snn.Leaky(0.7, learn_beta=True, learn_threshold=True, init_hidden=True),
    "Leaky, a beta of each": lambda: snn.Leaky(torch.linspace(0.1, 0.9, 4), init_hidden=True),
    "Lapicque": lambda: snn.Lapicque(0.8, init_hidden=True),
    "Synaptic": lambda: snn.Synaptic(0.5, 0.8, init_hidden=True),
    "Alpha": lambda: snn.Alpha(0.9, 0.8, init_hidden=True),
    "RLeaky": lambda: snn.RLeaky(0.8, linear_features=4, init_hidden=True),
}
CONVERT_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "order": {"order": 2},
    "pow2 fir": {"kernel": "fir", "order": 2, "kernel_bits": "pow2", "num_channels": "auto"},
    "1 bit": {"weight_bits": 1},
    "learnable": {"learnable": True},
    "stride": {"order": 2, "stride": 2},
}


def _record_conversions(book: Book) -> None:
    x = torch.rand(4, 2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    for (name, make), (words, options) in itertools.product(JELLY.items(), CONVERT_OPTIONS.items()):

        def done(make: Any = make, options: Any = options, fuse: bool = False) -> str:
            torch.manual_seed(0)
            net = convert(_blocks(make(), neuron.LIFNode(), make()), fuse=fuse, **options)
            text = f"{net}\n\n{net.mfp_conversion}\n"
            text += module_lines(net, x)
            buffers = "\n".join(f"{key}: {digest(value)}" for key, value in net.state_dict().items())
            functional.reset_net(net)
            return f"{text}{buffers}\nevaluated {digest(net.eval()(x))}\n"

        book.attempt(f"convert {name}, {words}", "result", done)
        if name in ("LIFNode", "IFNode", "ParametricLIFNode"):
            book.attempt(f"convert {name}, {words}, fused", "result", lambda done=done: done(fuse=True))
    for (name, make), (words, options) in itertools.product(TORCH.items(), CONVERT_OPTIONS.items()):

        def done(make: Any = make, options: Any = options) -> str:
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(3, 4), make(), nn.Linear(4, 4), snn.Leaky(0.5, init_hidden=True))
            net = convert(net, **options)
            text = f"{net}\n\n{net.mfp_conversion}\n"
            if any("snntorch" in type(one).__module__ and "mfp" not in type(one).__module__ for one in net):
                return text
            return text + module_lines(ByStep(net), X[:, :, 0])

        book.attempt(f"convert {name}, {words}", "result", done)
    for to in ("MFPNode", "MFPLeaky", "MFPLeakyParallel", "MFP"):
        kinds: dict[str, Any] = {
            "MFPNode": MFPNode,
            "MFPLeaky": MFPLeaky,
            "MFPLeakyParallel": MFPLeakyParallel,
        }
        for old in (neuron.LIFNode(), snn.Leaky(0.8), nn.ReLU()):
            kind = kinds.get(to, MFP)
            book.attempt(
                f"convert {type(old).__name__} to {to}", "result", lambda o=old, k=kind: str(convert(o, to=k))
            )

    def exported() -> nn.Module:
        torch.manual_seed(0)
        net = _blocks(*(neuron.LIFNode(v_threshold=0.2) for _ in range(3)))
        net = quantize_weights(convert(net, order=3, kernel_bits="pow2", fuse=True), 2)
        with torch.no_grad():
            net.train()(x)
        functional.reset_net(net)
        return net.eval()

    def saved() -> bytes:
        folder = io.BytesIO()
        network = deploy.lower(exported(), x)
        folder.write(str(network).encode())
        folder.write(network.run(x).tobytes())
        return folder.getvalue()

    book.attempt("exported", "integers", saved)
    book.attempt("exported", "network", lambda: str(deploy.lower(exported(), x)))
    book.attempt("exported", "nir", lambda: nir_text(to_nir(exported(), (x > 0.5).float())))
    book.attempt("exported", "report", lambda: str(report(exported(), x)))
