"""What snnTorch's own neurons are, and what :func:`mfp_neurons.convert` makes of them."""

from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from .._checks import replaced_method
from ..neuron import MFP
from ..spec import Carried, KernelOptions, NeuronSpec, ResetSpec, StateNames
from .kernel import BetaKernel
from .leaky import MFPLeaky
from .network import STATES
from .parallel import MFPLeakyParallel
from .surrogates import known_surrogate

Options = dict[str, Any]


def neuron_spec(module: nn.Module) -> NeuronSpec | None:
    """What one of snnTorch's neurons computes and keeps; None for a module that is no neuron."""
    if not isinstance(module, snn.SpikingNeuron):
        return None
    neuron: Any = module
    threshold = getattr(neuron, "threshold", None)
    takes_sequences = hasattr(snn, "StateLeaky") and isinstance(neuron, snn.StateLeaky)
    names = tuple(name for name in STATES if hasattr(neuron, name))
    decays = (getattr(neuron, name, None) for name in ("alpha", "beta"))
    kernel = _kernel_of(neuron)
    return NeuronSpec(
        kernel=kernel,
        reset=None if kernel is None else _reset_of(neuron),
        carried=Carried("potential"),
        threshold=threshold,
        surrogate=getattr(neuron, "spike_grad", None),
        surrogate_argument="spike_grad",
        kernel_shape=None if kernel is None else tuple(kernel.beta.shape),
        threshold_shape=tuple(threshold.shape) if isinstance(threshold, Tensor) else None,
        takes_sequences=takes_sequences,
        continues=not takes_sequences,
        state=StateNames(names, potential="mem" if "mem" in names else None),
        returns_potential=bool(getattr(neuron, "output", False) or not getattr(neuron, "init_hidden", False)),
        spike_factor=getattr(neuron, "graded_spikes_factor", None),
        rounds_potential=bool(getattr(neuron, "state_quant", False)),
        inhibition=bool(getattr(neuron, "inhibition", False)),
        stores_potential=True,
        recurrent=neuron.recurrent if type(neuron) is snn.RLeaky else None,
        decays=tuple(value for value in decays if isinstance(value, Tensor)),
    )


_TWICE = (
    "it may subtract its threshold twice for one spike (reset_delay=False): make it with reset_delay=True, "
    "or with reset_mechanism='zero', and train with that"
)
_EARLY = "it resets before its first spike, since its threshold is below 0: give it one of at least 0"


def why_unreadable(module: nn.Module) -> str:
    """Why a neuron is no sum over its inputs and its own spikes, and what to do; empty if it is.

    Of Leaky, Lapicque, MFPLeaky and MFPLeakyParallel; of others nothing is said.

    >>> why_unreadable(snn.Leaky(0.5, reset_delay=False)).partition(":")[0]
    'it may subtract its threshold twice for one spike (reset_delay=False)'
    """
    neuron: Any = module
    kind, how = type(neuron), _mechanism(neuron)
    if isinstance(module, MFPLeaky | MFPLeakyParallel):
        return _TWICE if module.neuron_spec().kernel is None else ""
    if kind not in (snn.Leaky, snn.RLeaky, snn.Lapicque) or replaced_method(neuron):
        return ""
    if how != "none" and bool((neuron.threshold < 0).any()):
        return _EARLY
    if kind is snn.Lapicque:
        decay, _ = _lapicque(neuron)
        if bool(((decay < 0) | (decay > 1)).any()):
            return _leak_out_of_range(1 - decay)
        if how == "zero":
            return (
                "its reset to zero also drops the input of the step after a spike: make it a Leaky with "
                "reset_mechanism='zero', or give it reset_mechanism='subtract', and train with that"
            )
    elif kind is snn.RLeaky and how == "zero":
        return (
            "its reset to zero also drops the input of the step after a spike: give it "
            "reset_mechanism='subtract', and train with that"
        )
    elif how == "subtract" and not getattr(neuron, "reset_delay", True):
        return _TWICE
    return ""


def _kernel_of(neuron: Any) -> BetaKernel | None:
    """The history kernel of a Leaky or Lapicque itself, a subclass of which may compute more."""
    known = type(neuron) in (snn.Leaky, snn.RLeaky, snn.Lapicque) and _mechanism(neuron) is not None
    if not known or replaced_method(neuron) or why_unreadable(neuron):
        return None
    beta, gain = _lapicque(neuron) if type(neuron) is snn.Lapicque else (neuron.beta, 1.0)
    return BetaKernel(beta, gain, None, None, None, isinstance(neuron.beta, nn.Parameter))


def _reset_of(neuron: Any) -> ResetSpec | None:
    how = _mechanism(neuron)
    if how == "none":
        return None
    # snnTorch cuts the gradient through every reset that comes a step later
    detach = bool(getattr(neuron, "reset_delay", True))
    return ResetSpec(how, delay=how == "subtract", detach=detach)  # type: ignore[arg-type]


def _mechanism(neuron: Any) -> str | None:
    """How it resets: bound when it was made, so that a reset_mechanism assigned later changes nothing."""
    bound = getattr(getattr(neuron, "state_function", None), "__name__", "")
    return {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}.get(bound)


def _lapicque(neuron: Any) -> tuple[Tensor, Tensor]:
    """Decay and gain of mem = (1 - dt / RC) mem + (dt / C) input, from Lapicque's R, C and dt."""
    # it has a beta too, which its forward does not use
    leak = _value_of(neuron.time_step / (neuron.R * neuron.C))
    return 1 - leak, neuron.R.detach() * leak


def _leak_out_of_range(leak: Tensor) -> str:
    return f"its leak time_step / (R C) is {leak.tolist()}, and the decay 1 - leak has to lie from 0 to 1"


# --- building --------------------------------------------------------------------------------------------


def _value_of(value: Any) -> Tensor:
    """The present value of a number or tensor, a copy."""
    return torch.as_tensor(value).detach().clone()


def _common(neuron: Any) -> Options:
    """The arguments that every snnTorch neuron shares with ours, with their present values."""
    return {
        "threshold": _value_of(neuron.threshold),
        "spike_grad": None if neuron.surrogate_disable else neuron.spike_grad,
        "surrogate_disable": neuron.surrogate_disable,
        "init_hidden": neuron.init_hidden,
        "inhibition": neuron.inhibition,
        "reset_mechanism": "none",
        "learn_threshold": isinstance(neuron.threshold, nn.Parameter),
        "state_quant": neuron.state_quant,
        "output": neuron.output,
        "graded_spikes_factor": _value_of(neuron.graded_spikes_factor),
        "learn_graded_spikes_factor": isinstance(neuron.graded_spikes_factor, nn.Parameter),
    }


def _build(neuron: Any, default: type, options: Options, **kept: Any) -> nn.Module:
    """The new neuron: what all neurons keep, what this rule keeps, and above both what the user asked for."""
    chosen = dict(options)
    to = chosen.pop("to", None) or default
    if "learnable" in chosen:
        chosen["learn_beta"] = chosen.pop("learnable")
    # free taps only start from beta, which is then nothing to train
    if chosen.get("kernel", "exp") != "exp":
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
    reset = arguments["reset_mechanism"]
    if reset == "subtract":
        raise ValueError(
            "to=MFP: the threshold that MFP subtracts has decayed by a step, snnTorch's has not; keep "
            "MFPLeakyParallel"
        )
    numbers = {name: torch.as_tensor(arguments[name]).reshape(-1) for name in ("beta", "threshold")}
    for name, value in numbers.items():
        if bool((value != value[0]).any()):
            raise ValueError(f"to=MFP: MFP starts from one {name} for the layer, not {value.numel()}")
    return MFP(
        float(numbers["beta"][0].clamp(0, 1)),
        v_threshold=float(numbers["threshold"][0]),
        learnable=arguments["learn_beta"],
        learn_threshold=arguments["learn_threshold"],
        surrogate=known_surrogate(arguments["spike_grad"]) or arguments["spike_grad"],
        strict=True,
        reset=None if reset == "none" else reset,
        reset_order=arguments.get("reset_order"),
        detach_reset=reset == "zero" and arguments.get("reset_delay", True),
        **{name: arguments[name] for name in KernelOptions.__annotations__ if name in arguments},
    )


# --- rules -----------------------------------------------------------------------------------------------


def _from_leaky(neuron: Any, options: Options) -> nn.Module | str:
    learn = isinstance(neuron.beta, nn.Parameter)
    return _build(neuron, MFPLeaky, options, beta=_value_of(neuron.beta), learn_beta=learn)


def _from_lapicque(neuron: Any, options: Options) -> nn.Module | str:
    decay, gain = _lapicque(neuron)
    if bool(((decay < 0) | (decay > 1)).any()):
        return _leak_out_of_range(1 - decay)
    learn = isinstance(neuron.beta, nn.Parameter)
    new = _build(neuron, MFPLeaky, options, beta=decay, gain=gain, learn_beta=learn)
    for name in ("R", "C", "time_step"):  # for code that reads them; not in the state dict, as beta is
        new.register_buffer(name, _value_of(getattr(neuron, name)), persistent=False)
    return new


def _from_synaptic(neuron: Any, options: Options) -> nn.Module | str:
    """Two decays in a row: taps m[j] = sum over i of alpha**i beta**(j - i), which is no exponential."""
    return _with_taps(neuron, options, "(spk, syn, mem)", _two_decays)


def _from_alpha(neuron: Any, options: Options) -> nn.Module | str:
    """The difference of two exponentials: taps m[j] = a (alpha**j - beta**j)."""
    return _with_taps(neuron, options, "(spk, syn_exc, syn_inh, mem)", _difference)


def _with_taps(
    neuron: Any, options: Options, returned: str, taps_of: Callable[..., Tensor]
) -> nn.Module | str:
    """A neuron of free taps [K] or [K, C], those of ``taps_of(alpha, beta, K)``."""
    if neuron.output or not neuron.init_hidden:
        return (
            f"it returns {returned}; make it with init_hidden=True and output=False, so that it returns spk, "
            "and convert(model, order=K) makes taps of its two decays"
        )
    if options.get("order") is None:
        return (
            "its two decays become taps, whose number was not given: convert(model, order=T, reset='keep') "
            "computes the same over T steps"
        )
    if options.get("kernel", "fir") != "fir":
        return f"its two decays are taps (kernel='fir'), not kernel={options['kernel']!r}"
    alpha, beta = _decays(neuron)
    channels = {"num_channels": beta.numel()} if beta.numel() > 1 else {}
    learned = isinstance(neuron.alpha, nn.Parameter) or isinstance(neuron.beta, nn.Parameter)
    is_learned = options.get("learnable", learned or "kernel" in options)
    chosen = {name: value for name, value in options.items() if name != "learnable"} | {"kernel": "fir"}
    new = _build(neuron, MFPLeaky, chosen, beta=beta.clone(), **channels)
    taps: nn.Parameter = new.kernel.taps  # type: ignore[operator, union-attr, assignment]
    with torch.no_grad():
        values = taps_of(alpha.reshape(-1), beta.reshape(-1), options["order"])
        taps.copy_(values if taps.dim() == 2 else values[:, 0])
    taps.requires_grad_(bool(is_learned))
    return new


def _decays(neuron: Any) -> tuple[Tensor, Tensor]:
    """alpha and beta as they are used, of one shape."""
    alpha, beta = (_value_of(value).clamp(0, 1) for value in (neuron.alpha, neuron.beta))
    return torch.broadcast_tensors(alpha, beta)  # type: ignore[return-value]


def _two_decays(alpha: Tensor, beta: Tensor, order: int) -> Tensor:
    """Taps [K, C] of syn = alpha syn + input, mem = beta mem + syn: the response to one input of 1."""
    syn, mem, taps = torch.ones_like(alpha), torch.ones_like(alpha), []
    for _ in range(order):
        taps.append(mem)
        syn = alpha * syn
        mem = beta * mem + syn
    return torch.stack(taps)


def _difference(alpha: Tensor, beta: Tensor, order: int) -> Tensor:
    """Taps [K, C] of mem = a (exc - inh), the two decaying by alpha and by beta, with Alpha's factor a."""
    lags = torch.arange(order, device=alpha.device, dtype=alpha.dtype).unsqueeze(1)
    return _alpha_factor(alpha, beta) * (alpha**lags - beta**lags)


def _alpha_factor(alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.log(alpha) / (torch.log(beta) - torch.log(alpha)) + 1


def _from_state_leaky(neuron: Any, options: Options) -> nn.Module | str:
    """StateLeaky decays by exp(-1 / tau) a step, and multiplies by its graded spikes factor twice."""
    if not neuron.output:
        return "it returns its potential alone and fires no spikes"
    if options.get("to") is MFPLeaky:
        return "it takes whole sequences, MFPLeaky single steps"
    decay = torch.exp(-1 / _value_of(neuron.tau))  # tau in steps, learned as it is
    return _build(
        neuron,
        MFPLeakyParallel,
        {"order": neuron.kernel_truncation_steps, **{k: v for k, v in options.items() if v is not None}},
        beta=decay,
        learn_beta=isinstance(neuron.tau, nn.Parameter),
        graded_spikes_factor=_value_of(neuron.graded_spikes_factor) ** 2,
    )


RULES: dict[type, Callable[[Any, Options], nn.Module | str]] = {
    snn.Leaky: _from_leaky,
    snn.Lapicque: _from_lapicque,
    snn.Synaptic: _from_synaptic,
    snn.Alpha: _from_alpha,
}
"""snnTorch's neurons that :func:`mfp_neurons.convert` can swap: (neuron, options) to the new neuron, or to
the reason (a string) why this one stays."""

LEFT_ALONE: dict[type, str] = {}
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
    "AssociativeLeaky": "its state is a matrix that depends on the input",
    "SpikingNeuron": "no rule is known for it",
}.items():
    if hasattr(snn, _name):
        LEFT_ALONE[getattr(snn, _name)] = _why


def reset_of(old: nn.Module) -> str | None:
    """How a neuron that has a rule resets: "subtract", "zero" or None."""
    how = _mechanism(old)
    return None if how == "none" else how


def total_weight(old: nn.Module) -> Tensor:
    """The sum of all taps of a neuron that has a rule: the potential that a constant input of 1 ends at."""
    neuron: Any = old
    if type(old) is snn.Lapicque:
        decay, gain = _lapicque(neuron)
        return gain / (1 - decay)
    if type(old) in (snn.Synaptic, snn.Alpha):
        alpha, beta = _decays(neuron)
        if type(old) is snn.Synaptic:
            return 1 / ((1 - alpha) * (1 - beta))
        return _alpha_factor(alpha, beta) * (1 / (1 - alpha) - 1 / (1 - beta))
    decay = (
        torch.exp(-1 / _value_of(neuron.tau))
        if hasattr(neuron, "tau")
        else _value_of(neuron.beta).clamp(0, 1)
    )
    return 1 / (1 - decay)


def _why_not_kept(neuron: Any, options: Options) -> str:
    """Why the reset of a neuron that has a rule cannot be kept; empty where it can."""
    how, kind = _mechanism(neuron), type(neuron)
    if how in (None, "none"):
        return ""
    if kind is snn.Synaptic and how == "zero":
        return "its reset to zero leaves its synaptic current, so that inputs before it go on to count"
    if kind is snn.Alpha:
        return (
            "its reset also changes the current that decays by alpha, by what is no sum over its own spikes"
        )
    if kind is snn.Lapicque:
        return why_unreadable(neuron)
    # without an order MFPLeaky computes what snn.Leaky does, whatever that is
    is_finite = (
        kind is snn.Synaptic or options.get("order") is not None or options.get("kernel", "exp") != "exp"
    )
    if is_finite and how == "subtract" and not neuron.reset_delay:
        return _TWICE
    return _EARLY if is_finite and bool((neuron.threshold < 0).any()) else ""


def replacement(old: nn.Module, to: type | None, reset: str | None, options: Options) -> nn.Module | str:
    """The neuron in place of one that has a rule, or why there is none.

    Args:
        old: a neuron of one of the classes in :data:`RULES`.
        to: MFPLeaky, MFPLeakyParallel or MFP; None for what the rule chooses.
        reset: None for no reset, "keep" for that of the neuron, or the ``reset_mechanism`` of the new one.
        options: keyword arguments of the new neuron.
    """
    kept: Options = {"reset_mechanism": reset or "none"}
    if reset == "keep":
        why = _why_not_kept(old, options)
        if why:
            return why
        # a threshold that is never reached is never subtracted either
        never = bool((torch.as_tensor(old.threshold) == torch.inf).all())
        kept = {
            "reset_mechanism": "none" if never else _mechanism(old) or "none",
            "reset_delay": getattr(old, "reset_delay", True),
        }
    return RULES[type(old)](old, kept | options | ({} if to is None else {"to": to}))
