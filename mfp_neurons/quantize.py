"""Weights of 1 to 8 bits on any convolution or linear layer, trained with straight-through gradients.

A layer is quantized by giving the *object* a new class: a subclass of its own class that puts the quantized
weight where the float one was used. Nothing else changes, so ``isinstance``, the ``weight`` key of the state
dict, optimizers that already hold the parameter, hooks and step modes go on working.

The weight of one output channel is ``codes * scale``: integers times one positive number.

===========  =======================================  =========================================================
bits         codes                                    scale
===========  =======================================  =========================================================
1            sign(w), with sign(0) = +1               mean \\|w\\| (XNOR-Net, arXiv 1603.05279)
1.58         sign(w) where \\|w\\| > 0.7 mean \\|w\\|, else 0   mean of the surviving \\|w\\| (TWN, arXiv 1605.04711)
b = 2 to 8   w / scale, rounded, within               learned (LSQ, arXiv 1902.08153), starting at
             +-(2^(b-1) - 1)                          2 mean \\|w\\| / sqrt(2^(b-1) - 1)
===========  =======================================  =========================================================
"""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from inspect import unwrap
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Codes", "codes", "is_quantized", "materialize", "quantize_weights"]

TERNARY = 1.58
_CLIP = 1.0  # a latent weight further out than this gets no straight-through gradient for its sign


@dataclass(frozen=True)
class Codes:
    """What a quantized layer is made of: ``codes * scale`` is its weight, bit for bit.

    Attributes:
        codes: int8, the shape of the layer's weight.
        scale: positive, shape [out, 1, ...], in the dtype of the layer's weight.
        bits: 1, 1.58 (ternary), or 2 to 8.
    """

    codes: Tensor
    scale: Tensor
    bits: float


# --- arithmetic: one encoder for each kind of code, used by training and by codes() alike ----------------------------


def _channel_mean(values: Tensor) -> Tensor:
    return values.mean(dim=tuple(range(1, values.ndim)), keepdim=True)


def _storable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A positive scale that the layer's own dtype can hold, so that ``codes * scale`` has only one rounding."""
    return scale.clamp_min(torch.finfo(dtype).tiny).to(dtype).to(scale.dtype)


def _encode_sign(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    scale = _storable(_channel_mean(weight.abs()), dtype)
    return torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype), scale


def _encode_ternary(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    size = weight.abs()
    kept = size > 0.7 * _channel_mean(size)
    count = kept.sum(dim=tuple(range(1, weight.ndim)), keepdim=True).clamp_min(1)
    scale = (size * kept).sum(dim=tuple(range(1, weight.ndim)), keepdim=True) / count
    return weight.sign() * kept, _storable(scale, dtype)


def _first_step(weight: Tensor, levels: int) -> Tensor:
    """LSQ's initial step, 2 mean|w| / sqrt(levels); what ``weight_step`` = 1 stands for."""
    mean = _channel_mean(weight.abs())
    return (mean * (2 / sqrt(levels))).clamp_min(torch.finfo(weight.dtype).tiny)


def _encode_levels(weight: Tensor, step: Tensor, levels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    scale = _storable(step.abs() * _first_step(weight, levels), dtype)
    return (weight / scale).round_().clamp_(-levels, levels), scale


def _levels(bits: float) -> int:
    """The largest code of ``bits`` bits, 2 to 8."""
    return 2 ** (int(bits) - 1) - 1


def _encode(weight: Tensor, step: Tensor | None, bits: float) -> tuple[Tensor, Tensor]:
    """Codes and scale of a weight, both in float32 or wider."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if bits == 1:
        return _encode_sign(wide, weight.dtype)
    if bits == TERNARY:
        return _encode_ternary(wide, weight.dtype)
    assert step is not None
    return _encode_levels(wide, step.to(wide.dtype), _levels(bits), weight.dtype)


class _Quantize(torch.autograd.Function):
    """weight -> codes * scale, with the straight-through gradients of the sources named at the top of the module."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, step: Tensor | None, bits: float) -> Tensor:
        codes, scale = _encode(weight, step, bits)
        return (codes * scale).to(weight.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, float], output: Tensor) -> None:
        weight, step, ctx.bits = inputs
        ctx.save_for_backward(weight, step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        weight, step = ctx.saved_tensors
        codes, scale = _encode(weight, step, ctx.bits)
        wide, grad = weight.to(codes.dtype), grad.to(codes.dtype)
        if step is not None:
            levels = _levels(ctx.bits)
            grad_weight, grad_step = _level_gradients(grad, wide, codes, scale, levels)
            base = _first_step(wide, levels)
            return grad_weight.to(weight.dtype), (grad_step / base * step.sign()).to(step.dtype), None
        dims = tuple(range(1, grad.ndim))
        count = codes.abs().sum(dim=dims, keepdim=True).clamp_min(1)
        through_scale = codes * ((grad * codes).sum(dim=dims, keepdim=True) / count)
        through_codes = grad * scale * (wide.abs() <= _CLIP)
        return (through_codes + through_scale).to(weight.dtype), None, None


def _level_gradients(
    grad: Tensor, weight: Tensor, codes: Tensor, scale: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    """LSQ equations 3 and 5 with the gradient scale 1 / sqrt(n levels) of section 2.2."""
    position = weight / scale
    inside = position.abs() <= levels
    error = codes - position * inside
    step_gradient = (grad * error).sum(dim=tuple(range(1, grad.ndim)), keepdim=True)
    return grad * inside, step_gradient / sqrt(weight[0].numel() * levels)


# --- layers ----------------------------------------------------------------------------------------------------------


class _Quantized(nn.Module):
    """What every quantized layer can do. Stands just before torch's own class in the method resolution order."""

    weight: Tensor
    weight_step: Tensor | None
    _float_class: type[nn.Module]
    weight_bits: float

    def quantized_weight(self) -> Tensor:
        """The weight that forward uses: ``codes * scale``, in the shape and dtype of ``weight``, differentiable."""
        return _Quantize.apply(self.weight, self._parameters.get("weight_step"), self.weight_bits)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_bits={self.weight_bits:g}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        step = self._parameters.get("weight_step")
        if step is not None and prefix + "weight" in state_dict and prefix + "weight_step" not in state_dict:
            state_dict[prefix + "weight_step"] = torch.ones_like(step)  # a float checkpoint: start where LSQ does
        super()._load_from_state_dict(state_dict, prefix, *args)


class _QuantizedLinear(_Quantized, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.quantized_weight(), self.bias)


class _QuantizedConv1d(_Quantized, nn.Conv1d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.quantized_weight(), bias)


class _QuantizedConv2d(_Quantized, nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.quantized_weight(), bias)


class _QuantizedConv3d(_Quantized, nn.Conv3d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.quantized_weight(), bias)


_BASES: dict[type[nn.Module], type[_Quantized]] = {
    nn.Linear: _QuantizedLinear,
    nn.Conv1d: _QuantizedConv1d,
    nn.Conv2d: _QuantizedConv2d,
    nn.Conv3d: _QuantizedConv3d,
}


@cache
def _quantized_class(float_class: type[nn.Module]) -> type[_Quantized]:
    """The quantized subclass of a layer class; one for each, made on first use."""
    base = next(base for base in _BASES if issubclass(float_class, base))
    # (float_class, mixin) puts the mixin after every override that calls super() and right before torch's class.
    bases = (_BASES[base],) if float_class is base else (float_class, _BASES[base])
    members = {
        "_float_class": float_class,
        "__module__": __name__,
        "__doc__": f"{float_class.__name__} with a quantized weight.",
        "__reduce_ex__": _reduce,
    }
    return type(f"Quantized{float_class.__name__}", bases, members)


def _reduce(self: _Quantized, protocol: Any) -> Any:
    # The class has no importable name: pickle and deepcopy make it again from the float class.
    if type(self) is not _quantized_class(self._float_class):
        return object.__reduce_ex__(self, protocol)
    return _blank, (self._float_class,), self.__dict__


def _blank(float_class: type[nn.Module]) -> nn.Module:
    made = _quantized_class(float_class)
    return made.__new__(made)


# --- which layers ----------------------------------------------------------------------------------------------------


def _is_brevitas(module: nn.Module) -> bool:
    owner = any(cls.__module__.split(".")[0] == "brevitas" for cls in type(module).__mro__)
    return owner and hasattr(module, "quant_weight")


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every convolution and linear layer by path, in module order, Brevitas' included; shared ones once."""
    for path, module in model.named_modules():
        if isinstance(module, tuple(_BASES)):
            yield path, module


def _skipped(model: nn.Module, skip: Iterable[str | type[nn.Module]] | str | type[nn.Module]) -> set[str]:
    """Paths of all modules that ``skip`` names, and of everything inside them."""
    entries = (skip,) if isinstance(skip, str | type) else tuple(skip)
    modules = dict(model.named_modules())
    found: set[str] = set()
    for entry in entries:
        found |= _matches(entry, modules)
    return {path for path in modules if any(path == root or path.startswith(root + ".") for root in found)}


def _matches(entry: object, modules: dict[str, nn.Module]) -> set[str]:
    if isinstance(entry, type) and issubclass(entry, nn.Module):
        return {path for path, module in modules.items() if isinstance(module, entry)}
    if not isinstance(entry, str):
        raise TypeError(f"skip takes module paths, globs and module classes, got {entry!r}")
    found = {path for path in modules if path and fnmatchcase(path, entry)}
    if not found:
        close = get_close_matches(entry, [path for path in modules if path], n=1, cutoff=0.0)
        hint = f"; the closest path is {close[0]!r}" if close else ""
        raise ValueError(f"skip={entry!r} matches no module of this {type(model_of(modules)).__name__}{hint}")
    return found


def model_of(modules: dict[str, nn.Module]) -> nn.Module:
    return modules[""]


def _checked_bits(name: str, bits: object) -> float:
    if bits == "ternary":
        return TERNARY
    if isinstance(bits, bool) or not isinstance(bits, int | float) or bits not in (1, TERNARY, *range(2, 9)):
        raise ValueError(f"{name} must be 1, 1.58 (or 'ternary'), or 2 to 8, got {bits!r}")
    return TERNARY if bits == TERNARY else int(bits)


def _reason_against(module: nn.Module) -> str | None:
    """Why a layer cannot be quantized by changing its class, or None."""
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed from other tensors (a parametrization, weight norm or pruning); remove that first"
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__}; quantize lazy layers after a first forward, and before sharding"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}, not floating point"
    if weight.numel() == 0:
        return "its weight is empty"
    if not _uses_weight_through_torch(module):
        return f"{type(module).__name__} computes with its weight in a forward of its own"
    return None


def _uses_weight_through_torch(module: nn.Module) -> bool:
    """Whether every override of the layer's class hands the work on to torch's own forward."""
    if "forward" in module.__dict__ or "_conv_forward" in module.__dict__:
        return False
    cls = module._float_class if isinstance(module, _Quantized) else type(module)
    for owner in cls.__mro__:
        if owner in _BASES:
            return True
        for name in {"forward", "_conv_forward"} & vars(owner).keys():
            code = getattr(unwrap(vars(owner)[name]), "__code__", None)
            if code is None or name not in code.co_names or "weight" in code.co_names:
                return False
    return False


# --- public ----------------------------------------------------------------------------------------------------------


def quantize_weights(
    model: nn.Module,
    bits: float | str = 1,
    *,
    first: float | str | None = 8,
    last: float | str | None = 8,
    skip: Iterable[str | type[nn.Module]] | str | type[nn.Module] = (),
) -> nn.Module:
    """Quantizes the weight of every Conv1d, Conv2d, Conv3d and Linear layer of a model, in place.

    Args:
        model: Any module. A bare layer gets ``bits``; ``first`` and ``last`` concern the layers inside a model.
        bits: 1, 1.58 (or "ternary"), or 2 to 8.
        first: Bits of the first layer in module order; None leaves that layer as it is.
        last: Bits of the last layer; None leaves that layer as it is.
        skip: Module paths, globs over paths, or module classes to leave as they are, with everything inside them.

    Returns:
        The same model.

    Raises:
        ValueError: A number of bits that is not offered, a path in ``skip`` that the model does not have, a layer
            that cannot be quantized (it is named, with the reason), or a model without layers. Nothing has changed.

    >>> from torch import nn
    >>> net = quantize_weights(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)), bits=1)
    >>> [layer.weight_bits for layer in net]
    [8, 1, 8]
    """
    wanted = _plan(model, bits, first, last, _skipped(model, skip))
    steps = _steps(wanted)
    for module, width in wanted:
        _become(module, width, steps.get(id(module)))
    return model


def _plan(
    model: nn.Module, bits: float | str, first: float | str | None, last: float | str | None, skipped: set[str]
) -> list[tuple[nn.Module, float]]:
    """(layer, bits) for every layer to change; raises before anything is changed."""
    middle = _checked_bits("bits", bits)
    ends = {"first": first, "last": last}
    start, end = (None if value is None else _checked_bits(name, value) for name, value in ends.items())
    layers = list(_layers(model))
    if not layers:
        raise ValueError(f"{type(model).__name__} has no Conv1d, Conv2d, Conv3d or Linear layer to quantize")
    plan: list[tuple[nn.Module, float]] = []
    for index, (path, module) in enumerate(layers):
        width: float | None = middle
        if path and index == len(layers) - 1:
            width = end
        if path and index == 0:
            width = start
        if width is None or path in skipped or _is_brevitas(module):
            continue
        reason = _reason_against(module)
        if reason is not None:
            raise ValueError(f"{path or type(module).__name__!r} cannot be quantized: {reason}, or name it in skip")
        plan.append((module, width))
    return plan


def _steps(plan: list[tuple[nn.Module, float]]) -> dict[int, nn.Parameter]:
    """The learned step of every layer of 2 to 8 bits; layers that share a weight and its bits share the step."""
    made: dict[tuple[int, float], nn.Parameter] = {}
    steps = {}
    for module, bits in plan:
        if bits in (1, TERNARY):
            continue
        weight = module.weight
        assert isinstance(weight, nn.Parameter)
        key = id(weight), bits
        if key not in made:
            made[key] = _step_of(module, bits, weight)
        steps[id(module)] = made[key]
    return steps


def _step_of(module: nn.Module, bits: float, weight: nn.Parameter) -> nn.Parameter:
    known = module._parameters.get("weight_step")
    if known is not None and getattr(module, "weight_bits", None) == bits:
        return known  # already of these bits: keep what it has learned
    ones = torch.ones(weight.shape[0], *[1] * (weight.ndim - 1), dtype=weight.dtype, device=weight.device)
    return nn.Parameter(ones, requires_grad=weight.requires_grad)


def _become(module: nn.Module, bits: float, step: nn.Parameter | None) -> None:
    if not isinstance(module, _Quantized):
        module.__class__ = _quantized_class(type(module))
    module.weight_bits = bits  # type: ignore[assignment]
    module._parameters.pop("weight_step", None)
    if step is not None:
        module.register_parameter("weight_step", step)


def is_quantized(module: nn.Module) -> bool:
    """Whether ``codes(module)`` has an answer: a layer of ours, or a Brevitas layer."""
    return isinstance(module, _Quantized) or _is_brevitas(module)


@torch.no_grad()
def codes(module: nn.Module) -> Codes:
    """Integer codes and scale of a quantized layer, computed by the code that its forward uses.

    Args:
        module: A layer that ``quantize_weights`` changed, or a Brevitas layer with a symmetric weight quantizer of at
            most 8 bits.

    Returns:
        ``Codes``; ``codes * scale`` equals the weight that forward uses, bit for bit.

    Raises:
        TypeError: The layer is not quantized.
        ValueError: A Brevitas layer whose weight is not ``codes * scale`` with codes of at most 8 bits.

    >>> import torch
    >>> from torch import nn
    >>> layer = quantize_weights(nn.Linear(2, 1), bits=1)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.5, -0.25]]), "bias": torch.zeros(1)})
    >>> codes(layer)
    Codes(codes=tensor([[ 1, -1]], dtype=torch.int8), scale=tensor([[0.3750]]), bits=1)
    """
    if isinstance(module, _Quantized):
        bits = module.weight_bits
        integers, scale = _encode(module.weight, module._parameters.get("weight_step"), bits)
        return Codes(integers.to(torch.int8), scale.to(module.weight.dtype), bits)
    if _is_brevitas(module):
        return _brevitas_codes(module)
    raise TypeError(f"{type(module).__name__} is not quantized; call quantize_weights on its model first")


def _brevitas_codes(module: Any) -> Codes:
    latent = module.weight.detach().clone()
    try:
        quantized = module.quant_weight()
        integers, scale, value = quantized.int(), quantized.scale, quantized.value
        bits = int(quantized.bit_width)
    finally:
        module.weight.copy_(latent)  # constant-scale binary and ternary quantizers clip the weight they read
    channels = value.shape[0], *[1] * (value.ndim - 1)
    scale = (scale if scale.numel() > 1 else scale.reshape(1)).reshape(-1, *channels[1:]).expand(channels).clone()
    small = integers.to(torch.int8)
    if bits > 8 or not torch.equal(small * scale, value):
        raise ValueError(
            f"the weight of this {type(module).__name__} is not codes * scale with symmetric codes of at most 8 bits "
            f"(bit width {bits}, zero point {quantized.zero_point}); use a symmetric weight quantizer"
        )
    return Codes(small, scale, bits)


def materialize(model: nn.Module) -> nn.Module:
    """A copy of the model made of plain layers that hold the quantized values, for tools that read weights.

    Args:
        model: Any module; it is left untouched. Brevitas layers are copied as they are.

    Returns:
        A deep copy in which each quantized layer has its original class again, ``codes * scale`` as its weight, and
        no ``weight_step``. Layers that shared a weight and its bits still share it.

    >>> from torch import nn
    >>> layer = quantize_weights(nn.Linear(2, 1), bits=1)
    >>> plain = materialize(layer)
    >>> type(plain) is nn.Linear, bool((plain.weight == layer.quantized_weight()).all())
    (True, True)
    """
    copied = deepcopy(model)
    made: dict[tuple[int, float, int], nn.Parameter] = {}
    latent = []  # keeps the replaced parameters alive: their ids are keys
    for module in copied.modules():
        if not isinstance(module, _Quantized):
            continue
        weight, step = module.weight, module._parameters.pop("weight_step", None)
        latent += [weight, step]
        key = id(weight), module.weight_bits, id(step)
        if key not in made:
            with torch.no_grad():
                value = _Quantize.apply(weight, step, module.weight_bits)
            made[key] = nn.Parameter(value, requires_grad=weight.requires_grad)
        del module.weight_bits
        module.__class__ = module._float_class
        module.weight = made[key]
    return copied
