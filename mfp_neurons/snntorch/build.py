"""Building the neuron that replaces one of snnTorch's, with the values that one has now."""

from typing import Any

import torch
from torch import Tensor, nn

from ..neuron import MFP
from .leaky import MFPLeaky
from .parallel import MFPLeakyParallel
from .surrogates import known_surrogate

Options = dict[str, Any]


def tensor_of(value: Any) -> Tensor:
    """The present value of a number or tensor, a copy."""
    return torch.as_tensor(value).detach().clone()


def _common(neuron: Any) -> Options:
    """The arguments that every snnTorch neuron shares with ours, with their present values."""
    return {
        "threshold": tensor_of(neuron.threshold),
        "spike_grad": None if neuron.surrogate_disable else neuron.spike_grad,
        "surrogate_disable": neuron.surrogate_disable,
        "init_hidden": neuron.init_hidden,
        "inhibition": neuron.inhibition,
        "learn_threshold": isinstance(neuron.threshold, nn.Parameter),
        "state_quant": neuron.state_quant,
        "output": neuron.output,
        "graded_spikes_factor": tensor_of(neuron.graded_spikes_factor),
        "learn_graded_spikes_factor": isinstance(neuron.graded_spikes_factor, nn.Parameter),
    }


def build(neuron: Any, default: type, options: Options, **kept: Any) -> nn.Module:
    """The new neuron: what all neurons keep, what this rule keeps, and above both what the user asked for."""
    chosen = dict(options)
    to = chosen.pop("to", None) or default
    if "learnable" in chosen:
        chosen["learn_beta"] = chosen.pop("learnable")
    if chosen.get("kernel", "exp") != "exp":  # free taps; beta is where they start
        chosen.setdefault("learn_beta", False)
    arguments = {**_common(neuron), **kept, **chosen}
    if to is MFP:
        return _as_plain(arguments)
    if to not in (MFPLeaky, MFPLeakyParallel):
        raise ValueError(f"to must be MFPLeaky, MFPLeakyParallel or MFP here, got {to!r}")
    new: nn.Module = to(**arguments)
    for name in ("beta", "threshold", "graded_spikes_factor"):
        old = getattr(neuron, name, None)
        if isinstance(old, nn.Parameter) and f"learn_{name}" not in chosen:
            getattr(new, name).requires_grad_(old.requires_grad)  # a frozen one stays frozen
    return new


def _as_plain(arguments: Options) -> MFP:
    """:class:`mfp_neurons.MFP` where it can do the same: one number a layer, spikes alone."""
    for name in ("inhibition", "state_quant", "surrogate_disable", "learn_graded_spikes_factor"):
        if arguments[name]:
            raise ValueError(f"to=MFP: MFP has no {name}")
    for name in ("graded_spikes_factor", "gain"):
        if not bool((torch.as_tensor(arguments.get(name, 1.0)) == 1).all()):
            raise ValueError(f"to=MFP: MFP has no {name}, and it is {arguments[name]}")
    numbers = {name: torch.as_tensor(arguments[name]).reshape(-1) for name in ("beta", "threshold")}
    for name, value in numbers.items():
        if bool((value != value[0]).any()):
            raise ValueError(f"to=MFP: MFP starts from one {name} for the layer, not {value.numel()}")
    names = ("kernel", "order", "time_steps", "num_channels", "kernel_bits", "stride")
    return MFP(
        float(numbers["beta"][0].clamp(0, 1)),
        v_threshold=float(numbers["threshold"][0]),
        learnable=arguments["learn_beta"],
        learn_threshold=arguments["learn_threshold"],
        surrogate=known_surrogate(arguments["spike_grad"]) or arguments["spike_grad"],
        strict=True,
        **{name: arguments[name] for name in names if name in arguments},
    )
