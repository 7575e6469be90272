"""Quantized layers, made by giving a float layer a new class."""

from functools import cache
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from .arithmetic import fake_quantize, learns_step


class QuantizedLayer(nn.Module):
    """What every quantized layer can do; in the method resolution order right before torch's layer class.

    There it receives every ``super().forward`` of the classes above it: SpikingJelly's layers fold time into
    the batch first, and what is then computed uses the quantized weight.
    """

    weight: Tensor
    weight_step: Tensor
    weight_bits: Any  # 1, 1.58, or 2 to 8
    float_class: Any  # what the layer was, and is again after materialize

    def quantized_weight(self) -> Tensor:
        """``codes * scale``, what forward uses: the shape and dtype of ``weight``, differentiable."""
        return fake_quantize(self.weight, self.learned_step(), self.weight_bits)

    def learned_step(self) -> Tensor | None:
        """The parameter behind the scale at 2 to 8 bits, [out, 1, ...]; None where the scale is computed."""
        return self.weight_step if learns_step(self.weight_bits) else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_bits={self.weight_bits:g}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None and learns_step(self.weight_bits):
            # A float checkpoint has no step; a step of 1 is LSQ's initial one for whatever weight is loaded.
            state_dict.setdefault(prefix + "weight_step", weight.new_ones(self.weight_step.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class _QuantizedLinear(QuantizedLayer, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.quantized_weight(), self.bias)


class _QuantizedConv1d(QuantizedLayer, nn.Conv1d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.quantized_weight(), bias)


class _QuantizedConv2d(QuantizedLayer, nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.quantized_weight(), bias)


class _QuantizedConv3d(QuantizedLayer, nn.Conv3d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.quantized_weight(), bias)


FLOAT_LAYERS = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d
_MIXINS: dict[type[nn.Module], type[QuantizedLayer]] = {
    nn.Linear: _QuantizedLinear,
    nn.Conv1d: _QuantizedConv1d,
    nn.Conv2d: _QuantizedConv2d,
    nn.Conv3d: _QuantizedConv3d,
}


def become_quantized(module: nn.Module, bits: float, step: nn.Parameter | None) -> None:
    """Gives a float layer its quantized class, or a quantized one other bits, in place."""
    if not isinstance(module, QuantizedLayer):
        module.__class__ = _quantized_class(cast(Any, type(module)))
    module._parameters.pop("weight_step", None)
    if step is not None:
        module.register_parameter("weight_step", step)
    cast(QuantizedLayer, module).weight_bits = bits


def become_float(module: QuantizedLayer, weight: nn.Parameter) -> None:
    """Gives a quantized layer its float class back, with this weight, in place."""
    module._parameters.pop("weight_step", None)
    module.weight = weight
    del module.weight_bits
    module.__class__ = module.float_class


@cache
def _quantized_class(float_class: Any) -> type[nn.Module]:
    """The quantized subclass of a layer class: one for each, made on first use."""
    base, mixin = next((base, mixin) for base, mixin in _MIXINS.items() if issubclass(float_class, base))
    bases = (mixin,) if float_class is base else (float_class, mixin)
    members = {
        "__doc__": f"{float_class.__name__} with a quantized weight.",
        "__module__": __name__,
        "__reduce_ex__": _reduce,
        "float_class": float_class,
    }
    return type(f"Quantized{float_class.__name__}", bases, members)


def _reduce(self: QuantizedLayer, protocol: Any) -> Any:
    # The class has no name to import it by, so pickle and deepcopy make it again from the float class. One
    # that was subclassed once more (FSDP does it) is left to its maker.
    if type(self) is not _quantized_class(self.float_class):
        return object.__reduce_ex__(self, protocol)
    return _blank, (self.float_class,), self.__getstate__()


def _blank(float_class: Any) -> nn.Module:
    made = _quantized_class(float_class)
    return made.__new__(made)
