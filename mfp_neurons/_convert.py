"""convert(): swaps the neurons of an existing model, whichever framework they come from.

The adapters decide what each neuron becomes (``replacement`` there). This file finds the neurons, passes each
its options, and swaps all of them or none.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ._arguments import RESETS
from ._checks import check_choice, check_int, check_module, describe, log_once, replaced_method
from .adapters import adapter_of, describe_neuron, framework_of
from .baseline import QuantizedMembraneLIF
from .quantize import quantize_weights

Order = int | Sequence[int | None] | Mapping[str, int | None] | None


# --- the record -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Swap:
    """One neuron that was swapped: where it is, what it was and what it is now.

    ``cut_off``: of a neuron whose reset was kept, which part of the weight of all past inputs lies beyond its
    order, from 0 to 1; the outputs of the first ``order`` steps are the same. None where there is no order.
    """

    path: str
    was: str
    now: str
    cut_off: float | None = None


@dataclass(frozen=True)
class Left:
    """One neuron that was left alone, and why."""

    path: str
    was: str
    why: str


@dataclass(frozen=True)
class Fused:
    """One batch norm that was fused: where it is, what it is, and the path of the neuron it is fused into."""

    path: str
    was: str
    into: str


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did to a model; plain text, so that it travels with copies and pickles of it.

    Attributes:
        swapped, left: every neuron, in one or the other.
        weight_bits: as :func:`convert` got it.
        unnormalized: paths of the neurons that stand behind weights of at most 2 bits with no normalization
            between. They may hardly fire: ``report(model, example)`` measures it.
        fused, unfused: every batch norm, in one or the other, if fusing was asked for.
        pools: paths of the max pools that became compact ones, if fusing was asked for.
    """

    swapped: tuple[Swap, ...]
    left: tuple[Left, ...]
    weight_bits: str | None = None
    fused: tuple[Fused, ...] = ()
    unfused: tuple[Left, ...] = ()
    unnormalized: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [(one.path or "(model)", one.was, "->", one.now + _cut_words(one)) for one in self.swapped]
        rows += [(one.path or "(model)", one.was, "left alone:", one.why) for one in self.left]
        rows += [(one.path, one.was, "fused into", one.into) for one in self.fused]
        rows += [(one.path or "(model)", one.was, "not fused:", one.why) for one in self.unfused]
        rows += [(path, "MaxPool2d", "->", "CompactMaxPool2d") for path in self.pools]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
        if self.weight_bits is not None:
            lines.append(f"weights quantized: {self.weight_bits} bits (first and last layer 8)")
        if self.unnormalized:
            lines.append(_unnormalized_words(self.unnormalized))
        return "\n".join(lines)


# --- convert ----------------------------------------------------------------------------------------------


@dataclass
class _Neuron:
    """A neuron of the model, and what its surroundings say about it."""

    path: str
    module: nn.Module
    adapter: ModuleType | None  # which has a rule for it; None where it stays
    why: str  # it stays
    channels: int | None  # of the layer before it
    near: Tensor | None  # a tensor on its device
    weights: nn.Module | None  # the layer before it, where no normalization stands between

    @property
    def name(self) -> str:
        kind = type(self.module).__name__
        return f"{self.path!r} ({kind})" if self.path else f"the model ({kind})"


def convert(
    model: nn.Module,
    *,
    to: type[nn.Module] | None = None,
    weight_bits: int | float | str | None = None,
    order: Order = None,
    reset: str | None = None,
    fuse: bool = False,
    **neuron_options: Any,
) -> nn.Module:
    """Swaps a model's neurons for memory-free ones, in place, keeping decay, threshold and surrogate.

    SpikingJelly's IFNode, LIFNode, ParametricLIFNode and PSN family become ``MFPNode``; snnTorch's Leaky,
    Lapicque, Synaptic and Alpha become ``MFPLeaky``, StateLeaky ``MFPLeakyParallel``. Without ``reset`` the
    reset is dropped, so potentials grow larger than before: train, or at least tune the thresholds,
    afterwards. Make the optimizer and wrap in DistributedDataParallel afterwards too, for the new neurons
    have parameters of their own.

    Either everything asked for is done or, on an error, nothing has changed.

    Args:
        model: any module; one that is itself a neuron is not changed, and the new neuron is returned.
        to: the class to use: MFPNode, MFPLeaky, MFPLeakyParallel or MFP. None chooses by the old neuron.
        weight_bits: quantize the weights too, as :func:`mfp_neurons.quantize_weights` with these bits does
            (first and last layer 8 bits).
        order: K of every neuron's kernel; or a list, one for each neuron that can be swapped, in the order
            of ``model.named_modules()``; or {module path: K} for some of them. None remembers for ever.
        reset: "keep" gives each new neuron the reset of the old one. Over sequences of T <= order steps, or
            without an order, the model computes what it did; with a smaller order it forgets what is older,
            and ``mfp_conversion`` and the log say how much weight that is. None drops resets. "subtract",
            "zero" and "feedback" (learned taps, for fine-tuning) are the new neurons' own.
        fuse: run each SpikingJelly batch norm and the MFPNode behind it as one operator, which keeps for
            backward the input of the batch norm alone; spikes and gradients are the same to rounding. Done
            where the batch norm's output goes to that neuron and nowhere else, as far as the module that
            holds both can be traced. Both keep their places and the keys of their state; the batch norm
            itself returns its input unchanged from then on, as its repr says. Replace or shard layers
            before fusing. SpikingJelly's own MaxPool2d layers get a kernel on CPUs that computes the same,
            bit for bit, and keeps a byte a window for backward.
        neuron_options: keyword arguments of the new neurons, such as ``kernel``, ``kernel_bits``, ``groups``,
            ``learnable`` or ``time_steps``; they override the old neuron's. ``num_channels="auto"`` gives
            each channel a kernel of its own, as many as the convolution, linear or normalization layer has
            that comes before the neuron in module order. That order is a guess in models that branch; a
            wrong number of channels is an error when the model runs.

    Returns:
        The model (the new neuron, if ``model`` was one). Its attribute ``mfp_conversion`` is a
        :class:`Conversion`, which says what was swapped or fused, and what was left alone and why; ``str()``
        of it is a table. What else would keep the model from becoming an integer network,
        :func:`mfp_neurons.deploy.check` lists, before it is trained.

    Raises:
        ValueError: there is no neuron (and no ``weight_bits``), ``order`` does not fit the model, or a neuron
            cannot be made as asked; the message names the module.
        TypeError: ``model`` is no module, or an option is not one of the new neuron's.

    >>> import snntorch as snn
    >>> net = nn.Sequential(nn.Linear(4, 8), snn.Leaky(beta=0.5, init_hidden=True), nn.Linear(8, 2))
    >>> net = convert(net, order=4, kernel_bits="pow2", reset="keep")
    >>> print(net.mfp_conversion)
    1  Leaky(beta=0.5, threshold=1, reset_mechanism=subtract)  ->
    MFPLeaky(beta=0.5, threshold=1, exp, order=4, kernel_bits=pow2, reset=subtract), 6.2 % of its past cut off
    """
    check_module("model", model)
    _refuse_wrapped(model)
    if to is not None and not (isinstance(to, type) and issubclass(to, nn.Module)):
        raise TypeError(f"to must be a neuron class, got {describe(to)}")
    if reset is not None:
        check_choice("reset", reset, ("keep", *RESETS))
    neurons = list(_neurons(model))
    if not neurons and weight_bits is None:
        raise ValueError(f"model ({type(model).__name__}) has no neuron that convert knows")
    orders = _orders(order, model, neurons)
    replaced: dict[nn.Module, nn.Module] = {}
    left = [Left(one.path, _described(one.module), one.why) for one in neurons if one.why]
    try:
        for one in neurons:
            if one.why:
                continue
            _refuse_hidden_use(one, model)
            new = _replacement(one, to, reset, orders.get(one.path), _for_neuron(one, neuron_options))
            if not isinstance(new, str):
                replaced[one.module] = new
                continue
            if one.path in orders and not isinstance(order, int):
                raise ValueError(f"order is given for {one.name}, which stays as it is: {new}")
            left.append(Left(one.path, _described(one.module), new))
        if weight_bits is not None:  # the last thing that may fail, and it changes nothing when it does
            quantize_weights(model, weight_bits)
    except BaseException:
        _discard(replaced.values())
        raise
    swapped = tuple(
        Swap(
            one.path,
            _described(one.module),
            _described(replaced[one.module]),
            _cut_off(one, replaced[one.module]) if reset == "keep" else None,
        )
        for one in neurons
        if one.module in replaced
    )
    dropped = [one for one in neurons if reset is None and one.module in replaced and _resets(one)]
    _swap(model, replaced)
    result = replaced.get(model, model)
    bits = None if weight_bits is None else str(weight_bits)
    pairs = _fused(result) if fuse else ((), ())
    pools = _compact_pools(result) if fuse else ()
    _say_what_stays(left)
    _say_what_is_lost(swapped, dropped)
    unnormalized = tuple(one.path for one in neurons if bits is not None and _has_few_bits(one.weights))
    if unnormalized:
        log_once("convert.unnormalized", "convert: %s", _unnormalized_words(unnormalized))
    conversion = Conversion(swapped, tuple(left), bits, *pairs, unnormalized, pools)
    result.mfp_conversion = conversion  # type: ignore[assignment]
    return result


def advice(neuron: nn.Module) -> str:
    """What to do about a neuron whose potential no sum gives, in a sentence or two."""
    explain = getattr(adapter_of(neuron), "why_unreadable", None)
    unreadable = explain(neuron) if explain is not None else ""
    if unreadable:
        return f"{unreadable[0].upper()}{unreadable[1:]}"
    why, one = "it is none that convert knows", next(_neurons(neuron), None)
    if one is not None and one.module is neuron:
        new: nn.Module | str = one.why or _replacement(one, None, None, None, {})
        if not isinstance(new, str):
            _discard([new])
            return "mfp_neurons.convert(model) makes it memory-free; train the network again with that"
        why = new
    return f"mfp_neurons.convert leaves it as it is: {why}"


# --- finding ----------------------------------------------------------------------------------------------

_ALREADY = "it is memory-free already"
_RESET_FOR_EVER = "it keeps a potential, for its reset has no order; make it with an order"
_BASELINE = "it is the baseline with a stored potential; MFP is the neuron without one"
_NEURONS_OF = {"spikingjelly": "spikingjelly.activation_based.neuron", "snntorch": "snntorch._neurons"}
_WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def _neurons(model: nn.Module) -> Iterator[_Neuron]:
    """The model's neurons in the order of named_modules(), each once."""
    channels: int | None = None
    near: Tensor | None = next(model.parameters(), None)
    weights: nn.Module | None = None
    for path, module in model.named_modules():
        channels = _channels_after(module, channels)
        # what has no tensor of its own, such as a LIFNode, is where the last module that has one is
        own = next((tensor for tensor in [*module.parameters(), *module.buffers()]), None)
        near = near if own is None else own
        if isinstance(module, _WEIGHTS):
            weights = module
        elif isinstance(module, _NORMS):
            weights = None
        adapter = adapter_of(module)
        has_rule = adapter is not None and type(module) in adapter.RULES
        why = _patched(module) if has_rule else _why_not(module, adapter)
        if has_rule or why:
            yield _Neuron(path, module, adapter, why, channels, near, weights)


def _has_few_bits(layer: nn.Module | None) -> bool:
    bits = getattr(layer, "weight_bits", None)
    return bits is not None and bits <= 2


def _patched(module: nn.Module) -> str:
    """Why a neuron whose methods were replaced on the object stays; empty for any other."""
    name = replaced_method(module)
    return f"its {name} was replaced on this object, which a swap would lose" if name else ""


def _why_not(module: nn.Module, adapter: ModuleType | None) -> str:
    """Why a neuron without a rule stays; empty for a module that is no neuron."""
    if isinstance(module, QuantizedMembraneLIF):
        return _BASELINE
    kinds = type(module).__mro__
    if any(kind.__module__.partition(".")[0] == __package__ for kind in kinds):
        spec = describe_neuron(module)
        return "" if spec is None else _ALREADY if spec.is_memory_free else _RESET_FOR_EVER
    framework = framework_of(module)
    if adapter is None or framework is None:
        return ""
    known = next((kind for kind in kinds[1:] if kind in adapter.RULES), None)
    if known is not None:
        kind = known.__name__
        return (
            f"it is a subclass of {kind}, whose own code a swap would lose; make it a {kind} where that "
            "computes the same"
        )
    reasons: dict[type, str] = getattr(adapter, "LEFT_ALONE", {})
    reason = next((reasons[kind] for kind in kinds if kind in reasons), None)
    if reason is not None:
        return reason
    is_neuron = any(kind.__module__.startswith(_NEURONS_OF[framework]) for kind in kinds)
    return "no rule is known for it" if is_neuron else ""


def _channels_after(module: nn.Module, before: int | None) -> int | None:
    """Channels behind ``module``, given those in front of it; None where they are unknown."""
    # a layer that mixes channels with positions leaves another number of them, which only a run would tell
    if isinstance(module, (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle)):
        return None
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.out_channels
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return module.num_features
    return module.num_channels if isinstance(module, nn.GroupNorm) else before


# --- refusing, before anything changes --------------------------------------------------------------------


def _refuse_wrapped(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (DataParallel, DistributedDataParallel)):
            raise ValueError(
                f"model is inside {type(module).__name__}, which misses new parameters: convert first"
            )


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _refuse_hidden_use(one: _Neuron, model: nn.Module) -> None:
    """Uses of a neuron that a swap of registered modules would not reach."""
    if any(getattr(one.module, hooks, None) for hooks in _HOOKS):
        raise ValueError(f"{one.name} has hooks (a monitor's?), which a swap would lose: remove them first")
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            # torch and the frameworks keep their own books under names with an underscore
            if attribute.startswith("_") or not isinstance(value, (list, tuple, set, dict)):
                continue
            if any(item is one.module for item in (value.values() if isinstance(value, dict) else value)):
                where = f"{path}.{attribute}" if path else attribute
                raise ValueError(
                    f"{one.name} is also in {where}, a plain {type(value).__name__} that a swap would not "
                    "reach: use nn.ModuleList or nn.ModuleDict"
                )


def _orders(order: Order, model: nn.Module, neurons: list[_Neuron]) -> dict[str, int | None]:
    """The order of each neuron that was given one, by its path."""
    able = [one for one in neurons if not one.why]
    if order is None:
        return {}
    if isinstance(order, Mapping):
        return {_path_of(path, model, neurons): _checked(k, f"order[{path!r}]") for path, k in order.items()}
    if not isinstance(order, (list, tuple)):
        return {one.path: _checked(order, "order") for one in able}
    if len(order) != len(able):
        paths = ", ".join(repr(one.path) for one in able)
        raise ValueError(
            f"order must have one number for each neuron that can be swapped: {len(able)} ({paths}), "
            f"got {len(order)}"
        )
    numbered = zip(able, order, strict=True)
    return {one.path: _checked(k, f"order[{i}]") for i, (one, k) in enumerate(numbered)}


def _checked(order: Any, name: str) -> int | None:
    return None if order is None else check_int(name, order, 1)


def _path_of(path: str, model: nn.Module, neurons: list[_Neuron]) -> str:
    """The path under which the neuron at ``path`` was found (a shared neuron has several)."""
    # a module that stands in several places is found under its first path, and may be asked for by any
    module = dict(model.named_modules(remove_duplicate=False)).get(path)
    match = next((one for one in neurons if one.module is module), None)
    if match is None:
        paths = [one.path for one in neurons if not one.why]
        close = get_close_matches(path, paths, n=3, cutoff=0.0)
        hint = f"; the closest are {', '.join(map(repr, close))}" if close else "; the model has none"
        raise ValueError(f"order: {path!r} is the path of no neuron{hint}")
    if match.why:
        raise ValueError(f"order is given for {match.name}, which stays as it is: {match.why}")
    return match.path


# --- building and swapping --------------------------------------------------------------------------------


def _for_neuron(one: _Neuron, options: dict[str, Any]) -> dict[str, Any]:
    """The user's options with num_channels="auto" filled in."""
    if options.get("num_channels") != "auto":
        return dict(options)
    if one.channels is None:
        raise ValueError(
            f"num_channels='auto': the number of channels in front of {one.name} is not known, for no "
            "convolution, linear or normalisation layer comes directly before it in module order"
        )
    return {**options, "num_channels": one.channels}


def _replacement(
    one: _Neuron, to: type | None, reset: str | None, order: int | None, options: dict[str, Any]
) -> nn.Module | str:
    """The new neuron, on the old one's device and in its mode, or the reason why there is none."""
    assert one.adapter is not None
    if order is not None:
        options["order"] = order
    try:
        new: nn.Module | str = one.adapter.replacement(one.module, to, reset, options)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise type(error)(f"{one.name}: {error}") from error
    if isinstance(new, str):
        return new
    if one.near is not None:
        new.to(one.near.device)
    return new.train(one.module.training)


def _resets(one: _Neuron) -> bool:
    assert one.adapter is not None
    return one.adapter.reset_of(one.module) is not None


@torch.no_grad()
def _cut_off(one: _Neuron, new: nn.Module) -> float | None:
    """Which part of the weight of all past inputs lies beyond the order of the new neuron."""
    spec = describe_neuron(new)
    kernel = None if spec is None else spec.kernel
    if kernel is None or kernel.order is None or kernel.kind == "matrix":
        return None
    assert one.adapter is not None
    taps = getattr(kernel, "taps", None)  # free ones, of which those of another neuron are a copy
    if taps is None:
        taps = kernel.exponential().taps(kernel.state_steps + 1)[:: kernel.stride]  # type: ignore[operator]
    kept = taps.reshape(len(taps), -1).double().abs().sum(0)
    total = one.adapter.total_weight(one.module).double().reshape(-1).to(kept.device)
    return float((1 - kept / total).clamp(0, 1).max())


def _swap(model: nn.Module, replaced: dict[nn.Module, nn.Module]) -> None:
    """Puts the new neurons where the old ones are; cannot fail half-way."""
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child in replaced:
                parent._modules[name] = replaced[child]
    functional = sys.modules.get("spikingjelly.activation_based.functional")
    invalidate = getattr(functional, "invalidate_reset_cache", None)
    if invalidate is not None and replaced:
        invalidate(model)  # 2.0.0's reset_net remembers what it resets


def _fused(model: nn.Module) -> tuple[tuple[Fused, ...], tuple[Left, ...]]:
    """Fuses what can be; SpikingJelly's neurons are in the model only if their adapter is loaded."""
    norms = {path: module for path, module in model.named_modules() if isinstance(module, _BatchNorm)}
    was = {path: f"{type(norm).__name__}({norm.num_features})" for path, norm in norms.items()}
    # not imported here: without it there is no MFPNode, and SpikingJelly need not be installed
    adapter = sys.modules.get(f"{__package__}.spikingjelly")
    if adapter is None:
        return (), tuple(Left(path, was[path], "the model has no MFPNode") for path in norms)
    pairs, reasons = adapter.fuse(model)
    return (
        tuple(Fused(path, was[path], into) for path, into in pairs.items()),
        tuple(Left(path, was[path], why) for path, why in reasons.items()),
    )


def _compact_pools(model: nn.Module) -> tuple[str, ...]:
    """Paths of SpikingJelly's max pools, which keep a byte a window from now on."""
    adapter = sys.modules.get(f"{__package__}.spikingjelly")
    return () if adapter is None else adapter.compact_pools(model)  # type: ignore[no-any-return]


def _discard(neurons: Iterable[nn.Module]) -> None:
    """Forgets neurons that were built for nothing; snnTorch lists every one that is made."""
    for neuron in neurons:
        release = getattr(adapter_of(neuron), "release", None)
        if release is not None:
            release(neuron)


# --- words ------------------------------------------------------------------------------------------------

_SHOWN = ("tau", "alpha", "beta", "decay", "threshold", "v_threshold", "reset_mechanism", "v_reset", "k", "T")


def _described(neuron: nn.Module) -> str:
    """A neuron in a few words."""
    shown = {name: getattr(neuron, name) for name in _SHOWN if hasattr(neuron, name)}
    spec = describe_neuron(neuron)
    # a framework's own neuron is told by its own options
    kernel = spec.kernel if spec is not None and hasattr(neuron, "neuron_spec") else None
    if kernel is not None:
        shown = {name: value for name, value in shown.items() if name not in ("reset_mechanism", "v_reset")}
    words = [f"{name}={_brief(value)}" for name, value in shown.items()]
    if kernel is not None:
        words += [kernel.kind, *(f"{name}={value}" for name, value in kernel.options().items())]
        reset = spec.reset if spec is not None else None
        if reset is not None:
            words.append(f"reset={reset.kind}")
            words += [f"v_reset={_brief(reset.rest)}"] if reset.rest else []
    return f"{type(neuron).__name__}({', '.join(words)})"


def _say_what_stays(left: list[Left]) -> None:
    """Once for each reason; what is memory-free already, or meant to keep a potential, stays rightly."""
    for one in left:
        if one.why not in (_ALREADY, _BASELINE):
            key = f"convert.left.{one.was.partition('(')[0]}.{one.why}"
            log_once(key, "convert: %r, %s, is left alone: %s", one.path, one.was, one.why)


def _say_what_is_lost(swapped: Sequence[Swap], dropped: Sequence[_Neuron]) -> None:
    """Once each: that resets were dropped; that an order cuts off what is older."""
    if dropped:
        log_once(
            "convert.reset",
            "convert: the reset of %s was dropped, so that all steps run at once and the model wants "
            "training; convert(model, reset='keep') keeps it",
            ", ".join(one.name for one in dropped),
        )
    cut = [one for one in swapped if one.cut_off]
    if cut:
        words = ", ".join(f"{one.path or 'the model'!r}{_cut_words(one)}" for one in cut)
        log_once(
            f"convert.cut.{words}", "convert: the model computes what it did up to its orders: %s", words
        )


def _cut_words(one: Swap) -> str:
    return f", {100 * one.cut_off:.2g} % of its past cut off" if one.cut_off else ""


def _unnormalized_words(paths: Sequence[str]) -> str:
    return (
        f"no normalization between weights of few bits and {', '.join(map(repr, paths))}: such a neuron may "
        "hardly fire; report(model, example) measures it, and a lower threshold or a batch norm helps"
    )


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():.4g}" if value.numel() == 1 else f"{list(value.shape)}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
