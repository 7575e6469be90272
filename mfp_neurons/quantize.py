"""Weights of 1 to 8 bits on any convolution or linear layer, trained with straight-through gradients.

The weight of one output channel is ``codes * scale``: whole numbers times one positive number. With mean(w)
the mean of the channel's absolute weights:

========  ===================================  ==============================================================
bits      codes                                scale
========  ===================================  ==============================================================
1         sign(w), with sign(0) = +1           mean(w); XNOR-Net, arXiv 1603.05279
1.58      0 where abs(w) <= 0.7 mean(w), else  mean of the abs(w) that are left; ternary weight networks,
          sign(w)                              arXiv 1605.04711
2         w / scale rounded, -2 to 1           learned, starts at 2 mean(w); LSQ, arXiv 1902.08153
b, 3..8   w / scale rounded, -p to p, with     learned, starts at 2 mean(w) / sqrt(p); likewise
          p = 2^(b-1) - 1
========  ===================================  ==============================================================

A layer is quantized by giving the object a new class, a subclass of its own that puts the quantized weight
where the float one was used. ``isinstance``, the ``weight`` key of the state dict, optimizers that already
hold the parameter, hooks, step modes, copies and pickles go on working.

The learned scale is one more parameter, ``weight_step``, in units of the scale that LSQ starts at for the
weight as it is now. So 1 is LSQ's start for any checkpoint and any initialization, and Adam, whose steps
ignore the size of a gradient, moves scales of all sizes alike.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ._quantize import brevitas
from ._quantize.arithmetic import encode, learns_step
from ._quantize.layers import QuantizedLayer, become_float, become_quantized
from ._quantize.select import Skip, checked_bits, choose

__all__ = ["Codes", "codes", "is_quantized", "materialize", "quantize_weights"]

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Codes:
    """What a quantized weight is made of: ``codes * scale`` is the weight, bit for bit.

    Attributes:
        codes: int8, the shape of the layer's weight.
        scale: Positive, shape [out, 1, ...], in the dtype of the layer's weight.
        bits: 1, 1.58 (ternary), or 2 to 8.
    """

    codes: Tensor
    scale: Tensor
    bits: float


def quantize_weights(
    model: Model,
    bits: float | str = 1,
    *,
    first: float | str | None = 8,
    last: float | str | None = 8,
    skip: Skip = (),
) -> Model:
    """Quantizes the weight of every Conv1d, Conv2d, Conv3d and Linear layer of a model, in place.

    SpikingJelly's ``layer.*`` and other subclasses are included. Transposed convolutions, embeddings,
    recurrent layers, biases and the layers of Brevitas are left alone. Layers that are quantized already
    get the new bits; one that has them already keeps its learned scale. Build the optimizer, wrap in DDP
    and shard afterwards: 2 to 8 bits add a parameter to the layer.

    Args:
        model: Any module. One that is itself a layer gets ``bits``.
        bits: 1, 1.58 or "ternary", or 2 to 8.
        first: Bits of the first layer in module order; None leaves that layer as it is.
        last: Bits of the last layer in module order; None leaves that layer as it is. A layer that is both
            takes ``first``. Which is first and last is decided before ``skip``, Brevitas layers included.
        skip: What to leave as it is, with everything inside it: module paths, globs over paths, classes.

    Returns:
        ``model`` itself.

    Raises:
        ValueError: The number of bits is not offered; ``skip`` names a path that the model does not have; a
            layer cannot be quantized (the words name it and say why); there is no layer, or a DDP wrapper.
        TypeError: ``model`` is no module, or an entry of ``skip`` is neither a path nor a class.
        In each case nothing has been changed.

    >>> net = quantize_weights(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)), bits=1)
    >>> [layer.weight_bits for layer in net]
    [8, 1, 8]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    middle = checked_bits("bits", bits)
    start = None if first is None else checked_bits("first", first)
    end = None if last is None else checked_bits("last", last)
    chosen = choose(model, middle, start, end, skip)
    for (layer, width), step in zip(chosen, _steps(chosen), strict=True):
        become_quantized(layer, width, step)
    return model


def _steps(chosen: list[tuple[nn.Module, float]]) -> list[nn.Parameter | None]:
    """The learned step of every layer; layers that share a weight and have the same bits share it too."""
    made: dict[tuple[nn.Parameter, float], nn.Parameter] = {}
    steps: list[nn.Parameter | None] = []
    for layer, bits in chosen:
        weight = layer.get_parameter("weight")
        if learns_step(bits) and (weight, bits) not in made:
            made[weight, bits] = _step_of(layer, weight, bits)
        steps.append(made.get((weight, bits)))
    return steps


def _step_of(layer: nn.Module, weight: nn.Parameter, bits: float) -> nn.Parameter:
    if isinstance(layer, QuantizedLayer) and layer.weight_bits == bits:
        return layer.get_parameter("weight_step")
    shape = weight.shape[0], *[1] * (weight.ndim - 1)
    return nn.Parameter(weight.detach().new_ones(shape), requires_grad=weight.requires_grad)


def is_quantized(module: nn.Module) -> bool:
    """Whether ``codes(module)`` can be asked: a layer of ours, or one of Brevitas with a weight quantizer."""
    return isinstance(module, QuantizedLayer) or brevitas.quantizes(module)


@torch.no_grad()
def codes(module: nn.Module) -> Codes:
    """Codes and scale of a quantized layer, from the code that its forward uses.

    Args:
        module: A layer that ``quantize_weights`` has changed, or a Brevitas layer.

    Returns:
        ``Codes``; they share no memory with the layer.

    Raises:
        TypeError: The layer is not quantized.
        ValueError: The weight of a Brevitas layer is not int8 codes times a scale per output channel.

    >>> layer = quantize_weights(nn.Linear(2, 1, bias=False), bits=1)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.5, -0.25]])})
    >>> codes(layer)
    Codes(codes=tensor([[ 1, -1]], dtype=torch.int8), scale=tensor([[0.3750]]), bits=1)
    """
    if isinstance(module, QuantizedLayer):
        dtype, bits = module.weight.dtype, module.weight_bits
        whole, scale = encode(module.weight, module.learned_step(), bits)
        return Codes(whole.to(torch.int8), scale.to(dtype), bits)
    if brevitas.quantizes(module):
        return Codes(*brevitas.read(module))
    raise TypeError(f"module ({type(module).__name__}) is not quantized; quantize it with quantize_weights")


def materialize(model: Model) -> Model:
    """A copy of a model, made of plain layers that hold the quantized values: for tools that read weights.

    Args:
        model: Any module; left untouched. A model of SpikingJelly is reset first, as for any copy.

    Returns:
        A deep copy in which every layer of ours has its own class again, ``codes * scale`` as its weight and
        no ``weight_step``. Layers that shared weight, step and bits share the new weight. Brevitas layers are
        copied as they are.

    >>> layer = quantize_weights(nn.Linear(2, 1), bits=1)
    >>> plain = materialize(layer)
    >>> type(plain) is nn.Linear, torch.equal(plain.weight, layer.quantized_weight())
    (True, True)
    """
    copied = deepcopy(model)
    made: dict[tuple[Tensor, Tensor | None, float], nn.Parameter] = {}
    for layer in list(copied.modules()):
        if isinstance(layer, QuantizedLayer):
            key = layer.weight, layer.learned_step(), layer.weight_bits
            if key not in made:
                made[key] = nn.Parameter(layer.quantized_weight().detach(), layer.weight.requires_grad)
            become_float(layer, made[key])
    return copied
