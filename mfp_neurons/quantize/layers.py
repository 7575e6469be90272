"""Quantized layers: a float layer gets a new class, in place, and its old one again when it is made plain.

It is not replaced by another object, so that all who hold it or its parameter (optimizers,
hooks, parents, code that asks ``isinstance``) go on working.
"""

from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from .._undisturbed import deep_copy
from .arithmetic import (
    OFFERED,
    channels_without_opposite,
    encode,
    exchanged,
    fake_quantize,
    learns_step,
    share_of_zeros,
    turned_channels,
)

Model = TypeVar("Model", bound=nn.Module)

NO_ZERO = "one bit has no zero, so that a weight of 0 acts as +1 times the scale"
_PRUNED = 0.01  # share of exact zeros; random initializations stay below 1 in 250, even in bfloat16
_BITS = "_extra_state"  # the key under which torch keeps get_extra_state() in a state dict


class QuantizedLayer(nn.Module):
    """What every quantized layer can do; in the method resolution order right before torch's layer class.

    There it receives every ``super().forward`` of the classes above it: SpikingJelly's layers fold time into
    the batch first, and what is then computed uses the quantized weight.
    """

    weight: Tensor
    weight_step: Tensor
    weight_bits: Any  # 1, 1.58, or 2 to 8
    float_class: Any  # what the layer was, and is again after materialize
    computes_in_floats = False  # use_float_weights

    def quantized_weight(self) -> Tensor:
        """``codes * scale``, what forward uses: the shape and dtype of ``weight``, differentiable."""
        if self.computes_in_floats:
            return self.weight
        self._refuse_mask()
        rows = fake_quantize(by_output(self, self.weight), self.learned_step(), self.weight_bits)
        return by_output(self, rows)

    def encoded(self) -> tuple[Tensor, Tensor]:
        """Codes [out, in / groups, ...] and scale [out, 1, ...], in float32 or wider."""
        self._refuse_mask()
        return encode(by_output(self, self.weight), self.learned_step(), self.weight_bits)

    def learned_step(self) -> Tensor | None:
        """The parameter behind the scale at 2 to 8 bits, [out, 1, ...]; None where the scale is computed."""
        return self.weight_step if learns_step(self.weight_bits) else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_bits={self.weight_bits:g}"

    def _refuse_mask(self) -> None:
        if self.weight_bits == 1 and "weight_mask" in self._buffers:
            raise ValueError(
                f"weight of this {type(self).__name__} is pruned by a mask (torch.nn.utils.prune), but "
                f"{NO_ZERO}. Quantize the layer with 1.58 bits, which keep pruned weights at 0"
            )

    def __setattr__(self, name: str, value: Any) -> None:
        # At 1 and 2 bits alone a negative factor can change more than the sign of a channel.
        if name == "weight" and self.__dict__.get("weight_bits") in (1, 2):
            self._refuse_turned(self._parameters.get("weight"), value)
        super().__setattr__(name, value)

    def _refuse_turned(self, old: Tensor | None, new: Any) -> None:
        """Refuses a negative factor folded into channels that would not merely change their sign.

        torch's ``fuse_conv_bn_eval`` and its kin multiply ``weight`` by the factors of a batch norm, and set
        the product in its place.
        """
        if old is None or not (_is_plain(old) and _is_plain(new)) or old.shape != new.shape:
            return
        with torch.no_grad():
            rows = by_output(self, old)
            turned = turned_channels(by_output(self, new), rows)
            if bool(turned.any()):  # rare, and only then is it worth quantizing the weight twice
                turned &= channels_without_opposite(rows, self.learned_step(), self.weight_bits)
        if bool(turned.any()):
            no_opposite = "codes of 2 bits reach from -2 to 1, and -2 has no opposite"
            raise ValueError(
                f"weight: channels {turned.nonzero().flatten().tolist()} of this {type(self).__name__} are "
                "set to their old values times a negative number, as when a batch norm of negative weight is "
                f"folded into the layer, but {NO_ZERO if self.weight_bits == 1 else no_opposite}: the layer "
                "would compute something else. Fold into quantize.materialize(model), whose layers hold "
                "plain numbers, or use 1.58 or 3 to 8 bits"
            )

    def get_extra_state(self) -> Tensor:
        """The number of bits for the state dict: a tensor, because safetensors takes nothing else."""
        return torch.tensor(float(self.weight_bits), device="cpu")

    def set_extra_state(self, state: Any) -> None:
        """Nothing to set: a checkpoint does not change a layer's bits. Loading has compared them."""

    def _load_from_state_dict(  # type: ignore[no-untyped-def]
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ) -> None:
        weight = state_dict.get(prefix + "weight")
        reason = self._reason_against(weight, state_dict.get(prefix + _BITS))
        if reason:
            error_msgs.append(
                f"{prefix}weight: {reason.format(bits=prefix + _BITS, step=prefix + 'weight_step')}"
            )
            return
        # A float checkpoint has neither bits nor a step; a step of 1 is LSQ's initial one for whatever weight
        # is loaded.
        state_dict.setdefault(prefix + _BITS, self.get_extra_state())
        if weight is not None and learns_step(self.weight_bits):
            state_dict.setdefault(prefix + "weight_step", weight.new_ones(self.weight_step.shape))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _reason_against(self, weight: Any, bits: Any) -> str:
        """Why a checkpoint's weight of so many bits (None: float, or older) is not for this layer, or ""."""
        if bits is None:
            # a weight of another number of dimensions does not load, for which torch has the words
            reads = self.weight_bits == 1 and _is_plain(weight) and weight.ndim == self.weight.ndim
            return reason_against_zeros(self, weight) if reads else ""
        if isinstance(bits, Tensor) and bits.is_meta:
            return ""
        nearest = min(OFFERED, key=lambda offered: abs(offered - float(bits)))  # casts to 16 bits move 1.58
        if nearest == self.weight_bits:
            return ""
        return (
            f"it has {nearest:g} bits in the checkpoint and {self.weight_bits:g} in this model. Quantize "
            "the model as the checkpoint's was, load, and call quantize_weights with other bits afterwards; "
            "or take {bits!r} and {step!r} out of the checkpoint to load its float weight alone"
        )


def _is_plain(weight: Any) -> bool:
    """Whether it is an ordinary tensor, whose values can be read."""
    return type(weight) in (Tensor, nn.Parameter) and not weight.is_meta and not torch.compiler.is_compiling()


def by_output(layer: nn.Module, weight: Tensor) -> Tensor:
    """A weight with a row for each output channel, [out, in / groups, ...]; or such rows as it is stored.

    Transposed convolutions alone store another one, [in, out / groups, ...]; the way back is the same.
    """
    return exchanged(weight, layer.groups) if isinstance(layer, TRANSPOSED) else weight


@torch.no_grad()
def reason_against_zeros(layer: nn.Module, weight: Tensor) -> str:
    """Why a weight of a layer cannot be quantized to one bit, or ""."""
    share = share_of_zeros(by_output(layer, weight))
    if share < _PRUNED:
        return ""
    return f"{share:.0%} of it is exactly 0, as after pruning, but {NO_ZERO}. Use 1.58 bits, which keep zeros"


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


def convolve_transposed(
    layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None, output_padding: Any
) -> Tensor:
    """What a transposed convolution computes with a weight, bias and output padding of one's own."""
    convolve = getattr(F, f"conv_transpose{len(layer.kernel_size)}d")
    options = layer.stride, layer.padding, output_padding, layer.groups, layer.dilation
    return cast(Tensor, convolve(x, weight, bias, *options))


class _QuantizedTransposed(QuantizedLayer):
    """What transposed convolutions of 1 to 3 dimensions share."""

    def forward(self: Any, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        # torch's own forward takes no weight, so this is what it does with another one
        dims = len(self.kernel_size)
        behind = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, dims, self.dilation
        )
        return convolve_transposed(self, input, self.quantized_weight(), self.bias, behind)


class _QuantizedConvTranspose1d(_QuantizedTransposed, nn.ConvTranspose1d): ...


class _QuantizedConvTranspose2d(_QuantizedTransposed, nn.ConvTranspose2d): ...


class _QuantizedConvTranspose3d(_QuantizedTransposed, nn.ConvTranspose3d): ...


TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
_MIXINS: dict[type[nn.Module], type[QuantizedLayer]] = {
    nn.Linear: _QuantizedLinear,
    nn.Conv1d: _QuantizedConv1d,
    nn.Conv2d: _QuantizedConv2d,
    nn.Conv3d: _QuantizedConv3d,
    nn.ConvTranspose1d: _QuantizedConvTranspose1d,
    nn.ConvTranspose2d: _QuantizedConvTranspose2d,
    nn.ConvTranspose3d: _QuantizedConvTranspose3d,
}
FLOAT_LAYERS = tuple(_MIXINS)


def become_quantized(module: nn.Module, bits: float, step: nn.Parameter | None) -> None:
    """Gives a float layer its quantized class, or a quantized one other bits, in place."""
    if not isinstance(module, QuantizedLayer):
        module.__class__ = _quantized_class(cast(Any, type(module)))
    module._parameters.pop("weight_step", None)
    if step is not None:
        module.register_parameter("weight_step", step)
    cast(QuantizedLayer, module).weight_bits = bits


def use_float_weights(model: nn.Module, floats: bool) -> None:
    """Lets the quantized layers of a model compute with their float weight, or with the quantized one again.

    Parameters and state dict stay those of the quantized model.
    """
    for layer in model.modules():
        if isinstance(layer, QuantizedLayer):
            layer.computes_in_floats = floats


def materialize(model: Model) -> Model:
    """A copy of a model, made of plain layers that hold the quantized values: for tools that read weights.

    Args:
        model: Any module; left untouched. A model of SpikingJelly is reset first, as for any copy.

    Returns:
        A deep copy in which every layer of ours has its own class again, ``codes * scale`` as its weight and
        neither ``weight_step`` nor pruning mask. Layers that shared weight, step and bits share the new
        weight. Brevitas layers are copied as they are.

    >>> from mfp_neurons import quantize_weights
    >>> layer = quantize_weights(nn.Linear(2, 1), bits=1)
    >>> plain = materialize(layer)
    >>> type(plain) is nn.Linear, torch.equal(plain.weight, layer.quantized_weight())
    (True, True)
    """
    copied = cast(Model, deep_copy(model))
    weights: dict[tuple[Tensor, Tensor | None, float], nn.Parameter] = {}
    for layer in list(copied.modules()):
        if isinstance(layer, QuantizedLayer):
            if "weight_mask" in layer._buffers:  # its hook would set the weight anew
                prune.remove(layer, "weight")
            key = layer.weight, layer.learned_step(), layer.weight_bits
            if key not in weights:
                weights[key] = nn.Parameter(layer.quantized_weight().detach(), layer.weight.requires_grad)
            _become_float(layer, weights[key])
    return copied


def _become_float(layer: QuantizedLayer, weight: nn.Parameter) -> None:
    layer._parameters.pop("weight_step", None)
    del layer.weight_bits  # before the weight is set, which would be checked against these bits
    layer.__class__ = layer.float_class
    layer.weight = weight


@cache
def _quantized_class(float_class: Any) -> type[nn.Module]:
    """The quantized subclass of a layer class; there is one, made on first use.

    Its bases put QuantizedLayer behind the layer class and right before torch's own, which is ``base``.
    """
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
    return _empty_layer, (self.float_class,), self.__getstate__()


def _empty_layer(float_class: Any) -> nn.Module:
    quantized_class = _quantized_class(float_class)
    return quantized_class.__new__(quantized_class)
