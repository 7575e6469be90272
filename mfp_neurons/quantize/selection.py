"""Quantizes the layers of a model: which ones, to how many bits, and why one cannot be quantized."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from inspect import unwrap

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .._checks import describe
from .arithmetic import OFFERED, TERNARY, learns_step
from .layers import FLOAT_LAYERS, Model, QuantizedLayer, become_quantized, by_output, reason_against_zeros
from .reading import is_brevitas

Skip = str | type[nn.Module] | Iterable[str | type[nn.Module]]

# These hand the weights of the layers inside them to one fused operator, past the layers' own forward.
_READ_WEIGHTS_OF_CHILDREN = nn.MultiheadAttention, nn.TransformerEncoderLayer


def quantize_weights(
    model: Model,
    bits: float | str = 1,
    *,
    first: float | str | None = 8,
    last: float | str | None = 8,
    skip: Skip = (),
) -> Model:
    """Quantizes the weight of every convolution, transposed or not, and Linear layer of a model, in place.

    SpikingJelly's ``layer.*`` and other subclasses are included. Embeddings, recurrent layers, biases and the
    layers of Brevitas are left alone. Layers that are quantized already
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
            layer cannot be quantized (the words name it and say why; one bit, for instance, has no zero, and
            refuses weights of which a hundredth or more is exactly 0); there is no layer, or a DDP wrapper.
        TypeError: ``model`` is no module, or an entry of ``skip`` is neither a path nor a class.
        In each case nothing has been changed.

    >>> net = quantize_weights(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)), bits=1)
    >>> [layer.weight_bits for layer in net]
    [8, 1, 8]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    # All that can be refused is refused here, before the first layer changes.
    chosen = _choose(model, bits, first, last, skip)
    for (layer, width), step in zip(chosen, _steps(chosen), strict=True):
        become_quantized(layer, width, step)
    return model


def _choose(
    model: nn.Module,
    bits: float | str,
    first: float | str | None,
    last: float | str | None,
    skip: Skip,
) -> list[tuple[nn.Module, float]]:
    """(layer, bits) for every layer that is to change, in module order; shared layers once."""
    usual = _checked_bits("bits", bits)
    of_first = None if first is None else _checked_bits("first", first)
    of_last = None if last is None else _checked_bits("last", last)
    if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        raise ValueError(
            "model is inside DistributedDataParallel, which misses new parameters; quantize first"
        )
    skipped = _inside(_named_by(model, skip))
    fused = _inside(m for m in model.modules() if isinstance(m, _READ_WEIGHTS_OF_CHILDREN))
    layers: list[tuple[str, nn.Module]] = [
        (path, module) for path, module in model.named_modules() if isinstance(module, FLOAT_LAYERS)
    ]
    if not layers:
        raise ValueError(f"model ({type(model).__name__}) has no convolution and no Linear layer")
    widths: list[float | None] = [usual] * len(layers)
    if layers[0][0]:  # a model that is itself a layer, at path "", has neither a first nor a last one
        widths[-1] = of_last
        widths[0] = of_first
    chosen: list[tuple[nn.Module, float]] = []
    for (path, module), width in zip(layers, widths, strict=True):
        # Layers that are skipped still count as first and last.
        if width is None or module in skipped or is_brevitas(module):
            continue
        # Leaving such a layer out silently would give a model that looks quantized and is not.
        reason = _reason_against(module, width, module in fused)
        if reason:
            raise ValueError(f"model: {path or type(module).__name__!r} cannot be quantized: {reason}")
        chosen.append((module, width))
    return chosen


def reasons_against(model: nn.Module, bits: float) -> dict[str, str]:
    """Why layers cannot get these bits, by path; of those that can nothing."""
    fused = _inside(m for m in model.modules() if isinstance(m, _READ_WEIGHTS_OF_CHILDREN))
    layers = ((path, one) for path, one in model.named_modules() if isinstance(one, FLOAT_LAYERS))
    reasons = (
        (path, _reason_against(one, bits, one in fused)) for path, one in layers if not is_brevitas(one)
    )
    return {path: reason for path, reason in reasons if reason}


def _checked_bits(name: str, bits: object) -> float:
    """1, 1.58 or 2 to 8 from what the user gave."""
    if isinstance(bits, str) and bits == "ternary":
        return TERNARY
    if isinstance(bits, bool) or not isinstance(bits, int | float) or bits not in OFFERED:
        raise ValueError(
            f"{name} must be 1, 1.58 or 'ternary', or a whole number from 2 to 8, got {describe(bits)}"
        )
    return TERNARY if bits == TERNARY else int(bits)


def _inside(roots: Iterable[nn.Module]) -> set[nn.Module]:
    """The modules themselves and all that they contain."""
    return {module for root in roots for module in root.modules()}


def _named_by(model: nn.Module, skip: Skip) -> set[nn.Module]:
    """The modules that ``skip`` names: by one path, glob or class, or by several."""
    entries = tuple(skip) if isinstance(skip, Iterable) and not isinstance(skip, str | type) else (skip,)
    return {module for entry in entries for module in _matches(model, entry)}


def _matches(model: nn.Module, entry: object) -> list[nn.Module]:
    """The modules of this path, of a path that fits this glob, or of this class."""
    if isinstance(entry, type) and issubclass(entry, nn.Module):
        return [module for module in model.modules() if isinstance(module, entry)]
    if not isinstance(entry, str):
        raise TypeError(
            f"skip must hold module paths, globs over paths or module classes, got {describe(entry)}"
        )
    # A module that is used in several places can be named by any of its paths.
    paths = {path: module for path, module in model.named_modules(remove_duplicate=False) if path}
    matches = [module for path, module in paths.items() if path == entry or fnmatchcase(path, entry)]
    if not matches:
        closest = get_close_matches(entry, paths, n=1, cutoff=0.0)
        hint = f"; the closest is {closest[0]!r}" if closest else ""
        raise ValueError(f"skip: the model has no module called {entry!r}{hint}")
    return matches


def _reason_against(module: nn.Module, bits: float, fused: bool) -> str | None:
    """Why giving this layer another class would not quantize it, or None."""
    weight = module._parameters.get("weight")
    if fused:
        return "a torch attention layer around it reads its weight past its forward; name that in skip"
    if "weight_mask" in module._buffers:
        return (
            "its weight is pruned by a mask. Quantize first and prune then, or write the zeros into the "
            "weight with torch.nn.utils.prune.remove(layer, 'weight'). One bit has no zero; all others have"
        )
    if weight is None:
        return "its weight is made of other tensors (parametrization, weight norm); remove that first"
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__}; run lazy layers once first, shard afterwards"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}, not floating point; name it in skip"
    if weight.numel() == 0:
        return f"its weight is empty, shape {tuple(weight.shape)}; name it in skip"
    if not isinstance(module, QuantizedLayer) and _has_extra_state(module):
        return (
            f"{type(module).__name__} has an extra state of its own in the state dict, where the number of "
            "bits goes; name it in skip"
        )
    if not _hands_on_to_torch(module):
        return (
            f"{type(module).__name__} uses its weight in a forward of its own, which may multiply with other "
            "numbers than the codes; use Conv1d, Conv2d or Linear itself, or name it in skip"
        )
    if bits == 1 and not weight.is_meta and getattr(module, "weight_bits", None) != 1:
        return reason_against_zeros(module, weight) or None
    return None


def _has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def _hands_on_to_torch(module: nn.Module) -> bool:
    """Whether every override of forward calls the one below it and leaves the weight alone.

    The names in the code of a method tell: one that calls ``super().forward`` has "forward" among them, and
    one that reads ``self.weight`` has "weight".
    """
    if not {"forward", "_conv_forward"}.isdisjoint(vars(module)):
        return False  # patched on the object: what it calls is the old class's
    # From the class itself to torch's own, where every override has to call the next one.
    for owner in type(module).__mro__:
        if owner in FLOAT_LAYERS or issubclass(owner, QuantizedLayer):
            return True
        for name in {"forward", "_conv_forward"} & vars(owner).keys():
            code = getattr(unwrap(vars(owner)[name]), "__code__", None)
            if code is None or name not in code.co_names or "weight" in code.co_names:
                return False
    return False


def _steps(chosen: list[tuple[nn.Module, float]]) -> list[nn.Parameter | None]:
    """The learned step of every layer; layers that share a weight and have the same bits share it too."""
    shared: dict[tuple[nn.Parameter, float], nn.Parameter] = {}
    steps: list[nn.Parameter | None] = []
    for layer, bits in chosen:
        weight = layer.get_parameter("weight")
        if learns_step(bits) and (weight, bits) not in shared:
            shared[weight, bits] = _step_of(layer, weight, bits)
        steps.append(shared.get((weight, bits)))
    return steps


def _step_of(layer: nn.Module, weight: nn.Parameter, bits: float) -> nn.Parameter:
    """The step that the layer has learned at these bits, or a new one where LSQ starts."""
    if isinstance(layer, QuantizedLayer) and layer.weight_bits == bits:
        return layer.get_parameter("weight_step")
    shape = by_output(layer, weight).shape[0], *[1] * (weight.ndim - 1)
    return nn.Parameter(weight.detach().new_ones(shape), requires_grad=weight.requires_grad)
