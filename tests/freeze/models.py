"""Random models in the neurons of the package and of both frameworks."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode
from mfp_neurons.snntorch import MFPLeakyParallel

from . import exports, generate
from .book import Book

MODELS = 300


def record(book: Book, quick: bool = False) -> None:
    logging.getLogger("mfp_neurons").setLevel(logging.ERROR)
    for number in range(30 if quick else MODELS):
        torch.manual_seed(number)
        case = generate.model(number)
        kind = ("MFP", "MFPNode", "MFPLeakyParallel", "MFP")[number // 3 % 4]
        if kind != "MFP":
            swap(case.model, as_node if kind == "MFPNode" else as_leaky)
        name = f"{number:03} {kind}"
        book.put(name, "model", f"{case.model}\n")
        exports.record(book, name, case.model, case.example, levels=case.top, interpreted=number % 3 == 0)


def swap(model: nn.Module, make: Any) -> None:
    for path, module in list(model.named_modules()):
        if isinstance(module, MFP):
            model.set_submodule(path, make(module))


def _options(neuron: MFP) -> dict[str, Any]:
    kernel = neuron.kernel
    names = ("order", "time_steps", "num_channels", "kernel_bits", "stride")
    return {"kernel": kernel.kind, **{name: getattr(kernel, name) for name in names}}


def as_node(neuron: MFP) -> nn.Module:
    """The same in SpikingJelly's words."""
    learnable = neuron.kernel.learnable
    node = MFPNode(2.0, False, step_mode="m", learnable=learnable, **_options(neuron))
    node.kernel.load_state_dict(neuron.kernel.state_dict())
    node.v_threshold = neuron.v_threshold
    return node.eval()


def as_leaky(neuron: MFP) -> nn.Module:
    """The same in snnTorch's words."""
    threshold = neuron.v_threshold
    if isinstance(threshold, Tensor):
        threshold = threshold.detach().clone()
    options = _options(neuron)
    if options["num_channels"] is None and isinstance(threshold, Tensor) and threshold.numel() == 1:
        threshold = float(threshold)
    leaky = MFPLeakyParallel(0.5, threshold, init_hidden=True, **options)
    if options["kernel"] != "exp":
        leaky.kernel.load_state_dict(neuron.kernel.state_dict())
    return leaky.eval()
