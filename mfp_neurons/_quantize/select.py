"""Which layers of a model are to be quantized, with how many bits, and why one cannot be. Changes nothing."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from inspect import unwrap

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .._checks import describe
from .arithmetic import OFFERED, TERNARY
from .brevitas import is_brevitas
from .layers import FLOAT_LAYERS, QuantizedLayer, reason_against_zeros

Skip = str | type[nn.Module] | Iterable[str | type[nn.Module]]

# These hand the weights of the layers inside them to one fused operator, past the layers' own forward.
_READ_WEIGHTS_OF_CHILDREN = nn.MultiheadAttention, nn.TransformerEncoderLayer


def checked_bits(name: str, bits: object) -> float:
    """1, 1.58 or 2 to 8 from what the user gave."""
    if isinstance(bits, str) and bits == "ternary":
        return TERNARY
    if isinstance(bits, bool) or not isinstance(bits, int | float) or bits not in OFFERED:
        raise ValueError(
            f"{name} must be 1, 1.58 or 'ternary', or a whole number from 2 to 8, got {describe(bits)}"
        )
    return TERNARY if bits == TERNARY else int(bits)


def choose(
    model: nn.Module, bits: float, first: float | None, last: float | None, skip: Skip
) -> list[tuple[nn.Module, float]]:
    """(layer, bits) for every layer that is to change, in module order; shared layers once."""
    _refuse_wrapped(model)
    skipped = _inside(_named_by(model, skip))
    fused = _inside(m for m in model.modules() if isinstance(m, _READ_WEIGHTS_OF_CHILDREN))
    layers: list[tuple[str, nn.Module]] = []
    layers += ((path, module) for path, module in model.named_modules() if isinstance(module, FLOAT_LAYERS))
    if not layers:
        raise ValueError(f"model ({type(model).__name__}) has no Conv1d, Conv2d, Conv3d or Linear layer")
    chosen: list[tuple[nn.Module, float]] = []
    for (path, module), width in zip(layers, _widths(layers, bits, first, last), strict=True):
        if width is None or module in skipped or is_brevitas(module):
            continue
        reason = _reason_against(module, width, module in fused)
        if reason:
            raise ValueError(f"model: {path or type(module).__name__!r} cannot be quantized: {reason}")
        chosen.append((module, width))
    return chosen


def _widths(
    layers: list[tuple[str, nn.Module]], bits: float, first: float | None, last: float | None
) -> list[float | None]:
    """Bits of each layer; a model that is itself a layer has neither a first nor a last one."""
    widths: list[float | None] = [bits] * len(layers)
    if layers[0][0]:
        widths[-1] = last
        widths[0] = first
    return widths


def _refuse_wrapped(model: nn.Module) -> None:
    if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        raise ValueError(
            "model is inside DistributedDataParallel, which misses new parameters; quantize first"
        )


def _inside(roots: Iterable[nn.Module]) -> set[nn.Module]:
    return {module for root in roots for module in root.modules()}


def _named_by(model: nn.Module, skip: Skip) -> set[nn.Module]:
    entries = tuple(skip) if isinstance(skip, Iterable) and not isinstance(skip, str | type) else (skip,)
    return {module for entry in entries for module in _matches(model, entry)}


def _matches(model: nn.Module, entry: object) -> list[nn.Module]:
    if isinstance(entry, type) and issubclass(entry, nn.Module):
        return [module for module in model.modules() if isinstance(module, entry)]
    if not isinstance(entry, str):
        raise TypeError(
            f"skip must hold module paths, globs over paths or module classes, got {describe(entry)}"
        )
    paths = {path: module for path, module in model.named_modules(remove_duplicate=False) if path}
    found = [module for path, module in paths.items() if path == entry or fnmatchcase(path, entry)]
    if not found:
        closest = get_close_matches(entry, paths, n=1, cutoff=0.0)
        hint = f"; the closest is {closest[0]!r}" if closest else ""
        raise ValueError(f"skip: the model has no module called {entry!r}{hint}")
    return found


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
        return f"{type(module).__name__} uses its weight in a forward of its own; name it in skip"
    if bits == 1 and not weight.is_meta and getattr(module, "weight_bits", None) != 1:
        return reason_against_zeros(weight) or None
    return None


def _has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def _hands_on_to_torch(module: nn.Module) -> bool:
    """Whether every override of forward calls the one below it and leaves the weight alone."""
    if not {"forward", "_conv_forward"}.isdisjoint(vars(module)):
        return False  # patched on the object: what it calls is the old class's
    for owner in type(module).__mro__:
        if owner in FLOAT_LAYERS or issubclass(owner, QuantizedLayer):
            return True
        for name in {"forward", "_conv_forward"} & vars(owner).keys():
            code = getattr(unwrap(vars(owner)[name]), "__code__", None)
            if code is None or name not in code.co_names or "weight" in code.co_names:
                return False
    return False
