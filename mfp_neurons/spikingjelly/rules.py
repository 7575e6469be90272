"""What SpikingJelly's own neurons are, and what :func:`mfp_neurons.convert` makes of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from .._checks import replaced_method
from ..history import Exponential
from ..neuron import MFP
from ..spec import Carried, KernelParameters, NeuronSpec, RecurrenceSpec, ResetSpec, StateNames
from .node import MFPNode
from .surrogates import fused_surrogate

_SEQUENCES = [getattr(neuron, name) for name in ("PSN",) if hasattr(neuron, name)]
_WINDOWS = [getattr(neuron, name) for name in ("MaskedPSN", "SlidingPSN") if hasattr(neuron, name)]
_BASES = [getattr(neuron, name) for name in ("BaseNode", "SimpleBaseNode") if hasattr(neuron, name)]
# Subclasses of LIFNode that fire its spikes in evaluation mode; what they add is for training alone. By name,
# since the module of the last one is a model's, which need not be imported.
_FIRE_AS_LIF = {
    "spikingjelly.activation_based.neuron.online_learning.OTTTLIFNode",
    "spikingjelly.activation_based.neuron.online_learning.SLTTLIFNode",
    "spikingjelly.activation_based.model.spike_dhs.save_v_LIFNode",
}
_NEURONS = (*_BASES, *_SEQUENCES, *_WINDOWS)


def recurrence_spec(module: nn.Module) -> RecurrenceSpec | None:
    """What a recurrent container of SpikingJelly does; None for any other module, subclasses included."""
    container: Any = module
    if type(module) not in (layer.LinearRecurrentContainer, layer.ElementWiseRecurrentContainer):
        return None
    return RecurrenceSpec(
        neuron=container.sub_module,
        linear=getattr(container, "rc", None),
        combine=getattr(container, "element_wise_function", None),
        step_mode=container.step_mode,
        last_spikes=container.y,
    )


_REAL_WEIGHTS = (
    "multiplies its input by weights that a sigmoid computes from it: real numbers times real numbers, which "
    "integers do not have. Leave it out, or use attention on spikes (SpikingSelfAttention, "
    "TokenQKAttention), whose products are counts"
)
_NO_LAYERS = {
    "SynapseFilter": (
        "keeps a real number for each of its inputs between steps, which decays at steps without a spike "
        "alone, so that no sum over earlier spikes gives it. Leave it out, and give the neurons behind the "
        "next layer a history: MFPNode(tau=2.0, order=K) weighs what the layer gave in the last K steps"
    ),
    "TemporalWiseAttention": _REAL_WEIGHTS,
    "MultiDimensionalAttention": _REAL_WEIGHTS,
}


def why_no_layer(module: nn.Module) -> str:
    """Why one of SpikingJelly's layers has no integers, and what to do; empty of one that may have."""
    names = (kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith(layer.__name__))
    return next((_NO_LAYERS[name] for name in names if name in _NO_LAYERS), "")


def neuron_spec(module: nn.Module) -> NeuronSpec | None:
    """What one of SpikingJelly's neurons computes and keeps; None for a module that is no neuron."""
    old: Any = module
    if not isinstance(module, _NEURONS):
        return None
    if isinstance(module, tuple(_SEQUENCES)):  # not causal: it needs all T inputs at once
        carried = Carried("all inputs")
    elif isinstance(module, tuple(_WINDOWS)):
        carried = Carried("inputs", int(old.k) - 1)
    else:
        carried = Carried("potential")
    step_mode = getattr(old, "step_mode", None)
    names = tuple(name for name in getattr(old, "_memories", ()) if name != "v_seq")
    threshold, leak = getattr(old, "v_threshold", None), _leak_of(old)
    return NeuronSpec(
        kernel=leak,
        reset=None if leak is None else _reset_of(old),
        carried=carried,
        threshold=threshold,
        threshold_shape=tuple(threshold.shape) if isinstance(threshold, Tensor) else None,
        surrogate=getattr(old, "surrogate_function", None),
        surrogate_argument="surrogate_function",
        takes_sequences=step_mode in (None, "m"),
        step_mode=step_mode,
        continues=bool(names),
        state=StateNames(
            names,
            potential="v" if "v" in names else None,
            record="v_seq" if getattr(old, "store_v_seq", False) else None,
        ),
        stores_potential=True,
        leaves_reset=True,
        decays=(old.w,) if isinstance(old, neuron.ParametricLIFNode) else (),
    )


@dataclass(frozen=True)
class _Leak(KernelParameters):
    """The exponential history of one of SpikingJelly's own neurons."""

    decay: Tensor | float
    gain: Tensor | float
    is_decay_input: bool
    learnable: bool = False
    kind: str = "exp"
    order: None = None
    time_steps: None = None
    num_channels: None = None
    kernel_bits: None = None
    stride: int = 1

    def exponential(self) -> Exponential:
        return Exponential(self.decay, self.gain)

    __call__ = exponential

    @property
    def gain_follows_decay(self) -> bool:
        return self.is_decay_input


def _leak_of(old: Any) -> _Leak | None:
    """The history kernel of an IFNode, LIFNode or ParametricLIFNode itself, or of one known to fire the same.

    Any other subclass may compute more.
    """
    if replaced_method(old):
        return None
    if type(old) is neuron.IFNode:
        return _Leak(1.0, 1.0, False)
    kind = type(old)
    if kind is neuron.LIFNode or f"{kind.__module__}.{kind.__qualname__}" in _FIRE_AS_LIF:
        # as MFPNode has them
        decay = 1 - 1 / float(old.tau)
        return _Leak(decay, 1 - decay if old.decay_input else 1.0, bool(old.decay_input))
    if type(old) is neuron.ParametricLIFNode:
        rate, decay = (old.w.sigmoid().reshape(1), (-old.w).sigmoid().reshape(1))
        return _Leak(decay, rate if old.decay_input else 1.0, bool(old.decay_input), learnable=True)
    return None


def _reset_of(old: Any) -> ResetSpec:
    """The reset of such a neuron: to a potential, or by the threshold."""
    if old.v_reset is None:
        return ResetSpec("subtract", detach=old.detach_reset)
    # it leaks towards v_reset, and starts there
    return ResetSpec("zero", detach=old.detach_reset, rest=float(old.v_reset))


def _common(old: Any) -> dict[str, Any]:
    """The arguments that every SpikingJelly neuron shares with MFPNode."""
    kept = {"step_mode": "m", "store_v_seq": False, "detach_reset": False, "v_threshold": 1.0}
    shared = {name: getattr(old, name) for name in kept if hasattr(old, name)}
    if isinstance(shared.get("v_threshold"), Tensor):
        del shared["v_threshold"]  # set_threshold_margin's; _build carries it over
    return {**kept, **shared, "surrogate_function": old.surrogate_function}


def _build(old: Any, options: dict[str, Any], **chosen: Any) -> MFPNode:
    """An MFPNode with what ``old`` shares, what the rule chose and, above both, what the user asked for."""
    node = MFPNode(**{**_common(old), "reset": None, **chosen, **options})
    threshold = getattr(old, "v_threshold", None)
    if isinstance(threshold, Tensor) and "v_threshold" not in options:
        node.v_threshold = threshold
    for parameter in old.parameters():  # a neuron without any goes where its surroundings are, see convert
        node.to(device=parameter.device)
    return node.train(old.training)


def _from_if(old: Any, options: dict[str, Any]) -> MFPNode:
    return _build(old, options, tau=math.inf, decay_input=False)


def _from_lif(old: Any, options: dict[str, Any]) -> MFPNode:
    return _build(old, options, tau=old.tau, decay_input=old.decay_input)


def _from_parametric_lif(old: Any, options: dict[str, Any]) -> MFPNode:
    """1/tau = sigmoid(w), so that the decay is sigmoid(-w)."""
    w = old.w.detach()
    chosen = {"tau": 1 / float(w.double().sigmoid()), "decay_input": old.decay_input}
    if options.get("kernel", "exp") == "exp":
        chosen["learnable"] = True
    node = _build(old, options, **chosen)
    if node.kernel.kind == "exp" and node.kernel.learnable and "tau" not in options:
        with torch.no_grad():
            node.kernel.decay_logit.copy_(-w)  # tau is a rounded number, w is what was learned
    return node


def _from_sliding_psn(old: Any, options: dict[str, Any]) -> MFPNode:
    """The same taps, newest first; a learned bias b is a learned threshold -b."""
    _refuse_other_kernel(old, options, "fir")
    taps = old.weight.detach().flip(0)
    node = _build(old, {"order": len(taps), **options, "kernel": "fir"}, decay_input=False)
    with torch.no_grad():
        values = torch.zeros(len(node.kernel.taps), device=taps.device)
        values[: len(taps)] = taps[: len(values)]  # a smaller order forgets the oldest taps
        node.kernel.taps.copy_(values if node.kernel.taps.dim() == 1 else values.unsqueeze(1))
    _learn_threshold(node, old, options, old.bias)
    return node


def _from_psn(old: Any, options: dict[str, Any]) -> MFPNode | str:
    """A causal matrix of PSN or MaskedPSN; a lossy one only if asked for, by ``kernel``."""
    # what lies above the diagonal weighs inputs that have not arrived yet
    weight = (old.masked_weight() if hasattr(old, "masked_weight") else old.weight).detach()
    lost = ["weighs future steps"] if bool(weight.triu(1).any()) else []
    lost += ["has a bias for each step"] if bool((old.bias != old.bias[0]).any()) else []
    if lost and "kernel" not in options:
        return (
            f"it {' and '.join(lost)}, as no neuron that runs in time can; kernel='matrix' would keep the "
            "causal part of its matrix and the mean of its biases, to train on"
        )
    _refuse_other_kernel(old, options, "matrix")
    # the causal part of a MaskedPSN reaches k - 1 steps back
    order = {"order": old.k} if hasattr(old, "k") else {}
    node = _build(old, {**order, **options, "kernel": "matrix", "time_steps": old.T}, decay_input=False)
    with torch.no_grad():
        node.kernel.matrix.copy_(weight.tril())
    _learn_threshold(node, old, options, old.bias.mean())
    return node


def _learn_threshold(node: MFPNode, old: Any, options: dict[str, Any], bias: Tensor) -> None:
    if "v_threshold" not in options:
        node.v_threshold = nn.Parameter(-bias.detach().reshape(1))


def _refuse_other_kernel(old: Any, options: dict[str, Any], kernel: str) -> None:
    if options.get("kernel", kernel) != kernel:
        raise ValueError(
            f"{type(old).__name__}'s weights can only become kernel={kernel!r}, got {options['kernel']!r}; "
            "leave the option out, or build an MFPNode of your own"
        )


Rule = Callable[[Any, dict[str, Any]], MFPNode | str]

_RULES: dict[str, Rule] = {
    "IFNode": _from_if,
    "LIFNode": _from_lif,
    "ParametricLIFNode": _from_parametric_lif,
    "PSN": _from_psn,
    "MaskedPSN": _from_psn,
    "SlidingPSN": _from_sliding_psn,
}

#: SpikingJelly's neuron class -> function(neuron, options) that returns the MFPNode in its place, or the
#: reason (a string) why this one stays. ``options`` are MFPNode's keyword arguments and win over what the
#: neuron says. 0.0.0.0.14 has no PSN family.
RULES: dict[type, Rule] = {
    getattr(neuron, name): rule for name, rule in _RULES.items() if hasattr(neuron, name)
}


def reset_of(old: nn.Module) -> str | None:
    """How a neuron that has a rule resets: "subtract", "zero" or None."""
    if not isinstance(old, tuple(_BASES)):  # the PSN family
        return None
    return "subtract" if old.v_reset is None else "zero"


def total_weight(old: nn.Module) -> Tensor:
    """The sum of all taps of a neuron that has a rule: the potential that a constant input of 1 ends at."""
    leak = _leak_of(old)
    if leak is None:
        weight: Tensor = old.weight  # type: ignore[assignment]
        return weight.abs().sum()
    return torch.as_tensor(leak.gain) / (1 - torch.as_tensor(leak.decay))


def replacement(
    old: nn.Module, to: type | None, reset: str | None, options: dict[str, Any]
) -> nn.Module | str:
    """The neuron in place of one that has a rule, or why there is none.

    Args:
        old: a neuron of one of the classes in :data:`RULES`.
        to: MFPNode, MFP, or None for the first.
        reset: None for no reset, "keep" for that of the neuron, or the ``reset`` of the new one.
        options: keyword arguments of MFPNode.
    """
    if to not in (None, MFPNode, MFP):
        raise ValueError(f"to must be MFPNode or MFP here, got {to.__name__ if to else to}")
    how = reset_of(old) if reset == "keep" else reset
    v_reset = (getattr(old, "v_reset", None) or 0.0) if how == "zero" else None
    node = RULES[type(old)](old, {"reset": how, "v_reset": v_reset, **options})
    if to is not MFP or isinstance(node, str):
        return node
    if node.step_mode != "m":
        raise ValueError("to=MFP: MFP takes whole sequences, and this neuron's step_mode is 's'")
    if node.store_v_seq:
        raise ValueError("to=MFP: MFP has no store_v_seq")
    if node.v_reset:
        raise ValueError(
            f"to=MFP: the potential of MFP counts from 0, that of this neuron from {node.v_reset}"
        )
    plain = MFP(surrogate=fused_surrogate(node.surrogate_function), backend=node.backend)
    plain.kernel, plain.feedback, plain.v_threshold = node.kernel, node.feedback, node.v_threshold
    return plain
