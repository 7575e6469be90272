"""Rules of functions that only give numbers another place, shape or dtype: deployment's, but for one."""

from typing import Any

import torch
from torch import Tensor

from ..deploy.lowering import reshape
from .registry import rule
from .trace import Tracing

for _function, _names in {
    reshape.view: "view reshape view_as reshape_as",
    reshape.flatten: "flatten",
    reshape.unflatten: "unflatten",
    reshape.squeeze: "squeeze",
    reshape.unsqueeze: "unsqueeze",
    reshape.permute: "permute",
    reshape.transpose: "transpose swapaxes swapdims",
    reshape.transposed: "T mT t",
    reshape.movedim: "movedim moveaxis",
    reshape.expand: "expand expand_as broadcast_to repeat tile",
    reshape.same: "contiguous detach alias positive requires_grad cpu cuda pin_memory data",
    reshape.dropout: "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout",
}.items():
    rule(*_names.split(), view=True)(_function)
rule("clone", moves=True)(reshape.copied)
rule("zeros_like", "new_zeros", "ones_like", "new_ones", moves=True)(reshape.filled)


@rule("to", "float", "double", "half", "bfloat16", "type", "type_as", view=True)
def to(low: Tracing, result: Any, x: Any, *others: Any, **named: Any) -> Any:
    """Another dtype changes no number, as long as it is a real one."""
    dtype = x.dtype
    for other in (*others, *named.values()):
        if isinstance(other, torch.dtype | Tensor):
            dtype = other if isinstance(other, torch.dtype) else other.dtype
    if not dtype.is_floating_point:
        low.refuse(f"makes {dtype} of its numbers. Leave them in floating point")
    return low.stand_in(low.value(x, "x"), dtype, x.family)
