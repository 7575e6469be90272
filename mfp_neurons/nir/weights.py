"""A layer with a weight as torch modules: quantized where its metadata says so and agrees with its weight."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .._checks import log_once
from ..quantize import Codes
from ..quantize.latent import latent
from ..quantize.layers import become_quantized
from .convolution import narrowed, widened
from .draft import Norm, folded

Array = NDArray[Any]
Parts = list[tuple[str, nn.Module]]

_LAYERS: dict[int, Any] = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d}
_NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def modules(name: str, node: Any) -> Parts:
    """A layer; behind a quantized one, the batch norm that was folded into it."""
    facts = node.metadata
    weight, options = _geometry(node)
    bias = getattr(node, "bias", None)
    if "codes" in facts:
        parts = _quantized(weight, bias, options, facts)
        if parts is not None:
            return parts
        log_once(
            f"nir.codes.{name}",
            "%r comes back as a float layer: its weight is not what its codes, scale and batch norm make, or "
            "no layer of quantize_weights has these",
            name,
        )
    # NIR's convolutions always have a bias; zeros were written where the layer had none.
    if not facts.get("bias", True) and bias is not None and not bias.any():
        bias = None
    return [("", _layer(weight, bias, options))]


def _geometry(node: Any) -> tuple[Array, dict[str, Any]]:
    """The weight and the options of a convolution, grouped and oblong as it was before export."""
    weight, facts = np.asarray(node.weight), node.metadata
    if weight.ndim == 2 or not hasattr(node, "stride"):
        return weight, {}
    rank = weight.ndim - 2
    options = {name: _numbers(getattr(node, name), rank) for name in ("stride", "padding", "dilation")}
    options["groups"] = int(np.asarray(node.groups).reshape(-1)[0])
    if "groups" not in facts or "kernel_size" not in facts:
        return weight, options
    size = tuple(int(n) for n in np.asarray(facts["kernel_size"]).reshape(-1))
    before = options | {"groups": int(facts["groups"]), "padding": _numbers(facts["padding"], rank)}
    narrow = narrowed(weight, before["groups"], size)
    # The node counts, not what its metadata says: the two differ where someone has changed the graph since.
    if narrow is None or widened(narrow, before)[1]["padding"] != options["padding"]:
        return weight, options
    return narrow, before


def _numbers(option: Any, rank: int) -> Any:
    if isinstance(option, str | bytes):
        # A file gives its strings back as bytes.
        return option if isinstance(option, str) else option.decode()
    row = [int(n) for n in np.asarray(option).reshape(-1)]
    return tuple(row * rank if len(row) == 1 else row)


def _layer(weight: Array, bias: Array | None, options: dict[str, Any]) -> nn.Module:
    """A layer that holds these arrays."""
    # The array is copied, so that training the layer does not change the graph.
    tensor = torch.from_numpy(np.array(weight))
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    out, channels = tensor.shape[0], tensor.shape[1] * options.get("groups", 1)
    size = (channels, out, *([tuple(tensor.shape[2:])] if tensor.dim() > 2 else []))
    layer: nn.Module = _LAYERS[tensor.dim()](*size, bias=bias is not None, dtype=tensor.dtype, **options)
    with torch.no_grad():
        layer.get_parameter("weight").copy_(tensor)
        if bias is not None:
            layer.get_parameter("bias").copy_(torch.from_numpy(np.array(bias)))
    return layer


def _quantized(weight: Array, bias: Array | None, options: dict[str, Any], facts: Any) -> Parts | None:
    """The layer of ``quantize_weights`` that metadata describes, if the node's arrays follow from it."""
    codes, scale = np.asarray(facts["codes"]), np.asarray(facts["scale"])
    # Only a batch norm comes back as a module; other factors stay in the weight, which is then a real one.
    if facts.get("folded") == "affine" or codes.shape != weight.shape or scale.dtype != np.float32:
        return None
    places = scale.reshape(-1, *[1] * (codes.ndim - 1))
    norm = _norm(facts)
    own = _own_bias(bias, norm, facts)
    scale_after, offset = (None, None) if norm is None else norm.affine()
    # The weight is folded once more as the export did it. Only a weight that is equal bit for bit was made of
    # these codes.
    expected, shift = folded(codes.astype(np.float32) * places, own, scale_after, offset, weight.dtype)
    own_bias = np.zeros(len(weight), weight.dtype) if bias is None else bias
    if not np.array_equal(expected, weight) or not np.array_equal(
        0 * own_bias if shift is None else shift, own_bias
    ):
        return None
    layer = _layer(codes.astype(np.float32) * places, own, options)
    bits = float(facts["bits"])
    wanted = Codes(torch.from_numpy(codes.astype(np.int8)), torch.from_numpy(places.copy()), bits)
    try:
        # A quantized layer computes its codes from real weights, so some are needed that give these codes.
        weights, step = latent(wanted)
    except ValueError:
        return None
    layer.get_parameter("weight").data = weights
    become_quantized(layer, bits if bits == 1.58 else int(bits), None if step is None else nn.Parameter(step))
    return [("", layer)] if norm is None else [("", layer), ("_norm", _batch_norm(norm, codes.ndim))]


def _own_bias(bias: Array | None, norm: Norm | None, facts: Any) -> Array | None:
    if not facts.get("bias", True):
        return None
    return bias if norm is None else np.asarray(facts["layer_bias"])


def _norm(facts: Any) -> Norm | None:
    if "norm_mean" not in facts:
        return None
    rows = [facts.get(f"norm_{name}") for name in ("mean", "var", "weight", "bias")]
    mean, var, weight, bias = (None if row is None else np.asarray(row) for row in rows)
    assert mean is not None and var is not None
    return Norm(mean, var, weight, bias, float(facts["norm_eps"]))


def _batch_norm(norm: Norm, rank: int) -> nn.Module:
    norm_module: nn.Module = _NORMS[rank](len(norm.mean), eps=norm.eps, affine=norm.weight is not None)
    state = {"running_mean": norm.mean, "running_var": norm.var, "weight": norm.weight, "bias": norm.bias}
    tensors = {name: torch.from_numpy(row.copy()) for name, row in state.items() if row is not None}
    # The number of batches seen in training is not in the file; evaluation does not use it.
    norm_module.load_state_dict(tensors, strict=False)
    return norm_module
