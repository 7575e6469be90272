"""What snnTorch's own neurons are, and what :func:`mfp_neurons.convert` makes of them."""

from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from ..spec import Carried, NeuronSpec, StateNames
from .build import Options, build, tensor_of
from .leaky import MFPLeaky
from .parallel import MFPLeakyParallel

_STATES = ("mem", "syn", "syn_exc", "syn_inh", "spk")  # where snnTorch's neurons keep what they carry on


def neuron_spec(module: nn.Module) -> NeuronSpec | None:
    """What one of snnTorch's neurons computes and keeps; None for a module that is no neuron."""
    if not isinstance(module, snn.SpikingNeuron):
        return None
    neuron: Any = module
    threshold = getattr(neuron, "threshold", None)
    takes_sequences = hasattr(snn, "StateLeaky") and isinstance(neuron, snn.StateLeaky)
    names = tuple(name for name in _STATES if hasattr(neuron, name))
    return NeuronSpec(
        kernel=None,
        carried=Carried("potential"),
        threshold=threshold,
        surrogate=getattr(neuron, "spike_grad", None),
        surrogate_argument="spike_grad",
        threshold_shape=tuple(threshold.shape) if isinstance(threshold, Tensor) else None,
        takes_sequences=takes_sequences,
        continues=not takes_sequences,
        state=StateNames(names, potential="mem" if "mem" in names else None),
        returns_potential=bool(getattr(neuron, "output", False) or not getattr(neuron, "init_hidden", False)),
        spike_factor=getattr(neuron, "graded_spikes_factor", None),
        rounds_potential=bool(getattr(neuron, "state_quant", False)),
        inhibition=bool(getattr(neuron, "inhibition", False)),
    )


def _from_leaky(neuron: Any, options: Options) -> nn.Module | str:
    learn = isinstance(neuron.beta, nn.Parameter)
    return build(neuron, MFPLeaky, options, beta=tensor_of(neuron.beta), learn_beta=learn)


def _from_lapicque(neuron: Any, options: Options) -> nn.Module | str:
    """mem = (1 - dt / RC) mem + (dt / C) input, as Lapicque computes it from R, C and dt."""
    leak = tensor_of(neuron.time_step / (neuron.R * neuron.C))
    if bool(((leak < 0) | (leak > 1)).any()):
        return f"its leak time_step / (R C) is {leak.tolist()}, and the decay 1 - leak has to lie from 0 to 1"
    gain = tensor_of(neuron.R * leak)
    learn = isinstance(neuron.beta, nn.Parameter)
    new = build(neuron, MFPLeaky, options, beta=1 - leak, gain=gain, learn_beta=learn)
    for name in ("R", "C", "time_step"):  # for code that reads them; not in the state dict, as beta is
        new.register_buffer(name, tensor_of(getattr(neuron, name)), persistent=False)
    return new


def _from_synaptic(neuron: Any, options: Options) -> nn.Module | str:
    """Two decays in a row: taps m[j] = sum over i of alpha**i beta**(j - i), which is no exponential."""
    why = _why_no_taps(neuron, options)
    if why:
        return why
    alpha, beta = torch.broadcast_tensors(
        tensor_of(neuron.alpha).clamp(0, 1), tensor_of(neuron.beta).clamp(0, 1)
    )
    channels = {"num_channels": beta.numel()} if beta.numel() > 1 else {}
    learned = isinstance(neuron.alpha, nn.Parameter) or isinstance(neuron.beta, nn.Parameter)
    wanted = options.get("learnable", learned or "kernel" in options)
    chosen = {name: value for name, value in options.items() if name != "learnable"} | {"kernel": "fir"}
    new = build(neuron, MFPLeaky, chosen, beta=beta.clone(), **channels)
    taps: nn.Parameter = new.kernel.taps  # type: ignore[operator, union-attr, assignment]
    with torch.no_grad():
        values = _two_decays(alpha.reshape(-1), beta.reshape(-1), options["order"])
        taps.copy_(values if taps.dim() == 2 else values[:, 0])
    taps.requires_grad_(bool(wanted))
    return new


def _why_no_taps(neuron: Any, options: Options) -> str:
    if neuron.output or not neuron.init_hidden:
        return "it returns (spk, syn, mem); only with init_hidden=True, output=False can it be swapped"
    if options.get("order") is None:
        return "its two decays become taps, whose number was not given: convert(model, order=K)"
    if options.get("kernel", "fir") != "fir":
        return f"its two decays are taps (kernel='fir'), not kernel={options['kernel']!r}"
    return ""


def _two_decays(alpha: Tensor, beta: Tensor, order: int) -> Tensor:
    """Taps [K, C] of syn = alpha syn + input, mem = beta mem + syn: the response to one input of 1."""
    syn, mem, taps = torch.ones_like(alpha), torch.ones_like(alpha), []
    for _ in range(order):
        taps.append(mem)
        syn = alpha * syn
        mem = beta * mem + syn
    return torch.stack(taps)


def _from_state_leaky(neuron: Any, options: Options) -> nn.Module | str:
    """StateLeaky decays by exp(-1 / tau) a step, and multiplies by its graded spikes factor twice."""
    if not neuron.output:
        return "it returns its potential alone and fires no spikes"
    if options.get("to") is MFPLeaky:
        return "it takes whole sequences, MFPLeaky single steps"
    decay = torch.exp(-1 / tensor_of(neuron.tau))
    return build(
        neuron,
        MFPLeakyParallel,
        {"order": neuron.kernel_truncation_steps, **{k: v for k, v in options.items() if v is not None}},
        beta=decay,
        learn_beta=isinstance(neuron.tau, nn.Parameter),
        graded_spikes_factor=tensor_of(neuron.graded_spikes_factor) ** 2,
    )


RULES: dict[type, Callable[[Any, Options], nn.Module | str]] = {
    snn.Leaky: _from_leaky,
    snn.Lapicque: _from_lapicque,
    snn.Synaptic: _from_synaptic,
}
"""snnTorch's neurons that :func:`mfp_neurons.convert` can swap: (neuron, options) to the new neuron, or to
the reason (a string) why this one stays."""

LEFT_ALONE: dict[type, str] = {
    MFPLeaky: "it is memory-free already",
    MFPLeakyParallel: "it is memory-free already",
}
"""Neurons that have no rule, and why; a base class speaks for its subclasses."""

_RECURRENT = "its spikes feed back into it, so no step can be computed before the one before it"
_FUSED_LINEAR = "it has its own linear layer inside; write nn.Linear and a neuron instead"
for _name, _rule in {"StateLeaky": _from_state_leaky}.items():
    if hasattr(snn, _name):
        RULES[getattr(snn, _name)] = _rule
for _name, _why in {
    "LinearLeaky": _FUSED_LINEAR,
    "LeakyParallel": _FUSED_LINEAR,
    "RLeaky": _RECURRENT,
    "RSynaptic": _RECURRENT,
    "SLSTM": "it is a gated recurrent cell",
    "SConv2dLSTM": "it is a gated recurrent cell",
    "Alpha": "it subtracts two filters and returns (spk, syn_exc, syn_inh, mem)",
    "AssociativeLeaky": "its state is a matrix that depends on the input",
    "SpikingNeuron": "no rule is known for it",
}.items():
    if hasattr(snn, _name):
        LEFT_ALONE[getattr(snn, _name)] = _why
