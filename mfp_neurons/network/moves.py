"""Rules of functions that give features other places: padding, parts, shuffles, repetition."""

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .axes import sizes
from .tracing import Tracer, Value, rule

Places = NDArray[np.int64]


def _numbered(tracer: Tracer, value: Value) -> tuple[int, Places]:
    """How many dimensions stand in front of the features, and the features' places in their shape."""
    lead = tracer.lead(value)
    shape = sizes(value.dims[lead:])
    return lead, np.arange(prod(shape)).reshape(shape)


def _axis(tracer: Tracer, value: Value, dim: int, lead: int) -> int:
    """Which dimension of the features ``dim`` is."""
    axis = dim % len(value.dims) - lead
    if axis < 0:
        tracer.refuse(
            f"takes parts of time or of the batch ({tracer.name}). x[-k:] reads the last steps, and a batch "
            "stays as it is"
        )
    return axis


def _moved(tracer: Tracer, value: Value, lead: int, places: Places, fill: Fraction = Fraction(0)) -> Value:
    """The features at other places; where all of them stay, the tensor itself, whoever has read it."""
    shape = sizes(value.dims[lead:])
    if places.shape == shape and np.array_equal(places.ravel(), np.arange(prod(shape))):
        return value
    return tracer.gathered(value, lead, places, fill)


# --- padding ------------------------------------------------------------------------------------------------

_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@rule("pad")
def padded(
    tracer: Tracer, result: Tensor, x: Any, pad: Sequence[int], mode: str = "constant", value: Any = None
) -> Value:
    source = tracer.value(x, "the input of a padding")
    lead, places = _numbered(tracer, source)
    margins = [(0, 0)] * (len(source.dims) - len(pad) // 2)
    # torch counts from the last dimension to the first
    margins += list(zip(pad[-2::-2], pad[::-2], strict=True))
    if any(one != (0, 0) for one in margins[:lead]):
        tracer.refuse(f"pads time or the batch (pad={tuple(pad)}). Pad rows, columns or channels alone")
    own = margins[lead:]
    cut = tuple(slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(places.shape, own, strict=True))
    grown = [(max(0, before), max(0, after)) for before, after in own]
    if mode != "constant":
        return _moved(tracer, source, lead, np.pad(places[cut], grown, mode=_MODES[mode]))
    if not isfinite(value or 0):
        tracer.refuse(f"pads with {value}. Pad with a finite number")
    padding = np.pad(places[cut], grown, constant_values=-1)
    return _moved(tracer, source, lead, padding, Fraction(value or 0))


# --- parts --------------------------------------------------------------------------------------------------


@rule("split", "chunk", "tensor_split", "split_with_sizes", "unsafe_chunk", "unsafe_split")
def parts(tracer: Tracer, result: Any, x: Any, *sections: Any, dim: int = 0, **named: Any) -> Any:
    value = tracer.value(x, "x")
    if len(sections) > 1:
        dim = sections[1]
    lead, places = _numbered(tracer, value)
    axis = _axis(tracer, value, dim, lead)
    # torch's own result says where the cuts are
    ends = np.cumsum([part.shape[dim] for part in result])[:-1]
    return tuple(
        tracer.stand_in(_moved(tracer, value, lead, part), x.dtype)
        for part in np.split(places, ends, axis=axis)
    )


@rule("narrow")
def narrow(tracer: Tracer, result: Tensor, x: Any, dim: int, start: int, length: int) -> Value:
    return take(tracer, tracer.value(x, "x"), dim, slice(start, start + length))


@rule("index_select")
def index_select(tracer: Tracer, result: Tensor, x: Any, dim: int, index: Tensor) -> Value:
    return take(tracer, tracer.value(x, "x"), dim, index.tolist())


@rule("flip")
def flip(tracer: Tracer, result: Tensor, x: Any, *dims: Any, **named: Any) -> Value:
    value = tracer.value(x, "x")
    chosen = named.get("dims", dims)
    for dim in chosen[0] if len(chosen) == 1 and not isinstance(chosen[0], int) else chosen:
        value = take(tracer, value, dim, slice(None, None, -1))
    return value


@rule("roll")
def roll(tracer: Tracer, result: Tensor, x: Any, shifts: Any, dims: Any = None) -> Value:
    value = tracer.value(x, "x")
    if dims is None:
        tracer.refuse("rolls all numbers of a tensor, with time and batch among them. Name the dimensions")
    lead, places = _numbered(tracer, value)
    dims = [dims] if isinstance(dims, int) else list(dims)
    axes = [_axis(tracer, value, dim, lead) for dim in dims]
    return _moved(tracer, value, lead, np.roll(places, shifts, axes))


def take(tracer: Tracer, value: Value, dim: int, entry: Any) -> Value:
    """The features at an index, a slice or a list of one dimension."""
    lead, places = _numbered(tracer, value)
    axis = _axis(tracer, value, dim, lead)
    return _moved(tracer, value, lead, places[(slice(None),) * axis + (entry,)])


# --- shuffles and repetition --------------------------------------------------------------------------------


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(tracer: Tracer, result: Tensor, x: Any, groups: int) -> Value:
    value = tracer.value(x, "the input of a shuffle")
    lead, places = _numbered(tracer, value)
    channels, *others = places.shape
    mixed = places.reshape(groups, channels // groups, *others).swapaxes(0, 1)
    return _moved(tracer, value, lead, mixed.reshape(places.shape))


@rule("pixel_shuffle")
def pixel_shuffle(tracer: Tracer, result: Tensor, x: Any, upscale_factor: int) -> Value:
    value, r = tracer.value(x, "the input of a shuffle"), upscale_factor
    lead, places = _numbered(tracer, value)
    channels, rows, columns = places.shape
    split = places.reshape(channels // r**2, r, r, rows, columns).transpose(0, 3, 1, 4, 2)
    return _moved(tracer, value, lead, split.reshape(channels // r**2, rows * r, columns * r))


@rule("pixel_unshuffle")
def pixel_unshuffle(tracer: Tracer, result: Tensor, x: Any, downscale_factor: int) -> Value:
    value, r = tracer.value(x, "the input of a shuffle"), downscale_factor
    lead, places = _numbered(tracer, value)
    channels, rows, columns = places.shape
    split = places.reshape(channels, rows // r, r, columns // r, r).transpose(0, 2, 4, 1, 3)
    return _moved(tracer, value, lead, split.reshape(channels * r**2, rows // r, columns // r))


@rule("repeat_interleave")
def repeat_interleave(
    tracer: Tracer, result: Tensor, x: Any, repeats: Any, dim: int | None = None, output_size: Any = None
) -> Value:
    value = tracer.value(x, "x")
    if dim is None or isinstance(repeats, Tensor):
        tracer.refuse("repeats numbers (repeat_interleave) without one number of times and a dimension")
    lead, places = _numbered(tracer, value)
    return _moved(tracer, value, lead, np.repeat(places, repeats, _axis(tracer, value, dim, lead)))


@rule("interpolate", "upsample", "upsample_nearest")
def interpolate(
    tracer: Tracer,
    result: Tensor,
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Value:
    if mode not in ("nearest", "nearest-exact"):
        tracer.refuse(
            f"interpolates with mode={mode!r}, which makes other numbers than there are. Use mode='nearest', "
            "or a layer with weights"
        )
    value = tracer.value(x, "the input of an upsampling")
    lead, places = _numbered(tracer, value)
    for axis, length in enumerate(result.shape[lead:]):
        if length == places.shape[axis]:
            continue
        # torch itself says which row is repeated where: its rounding is not for us to repeat
        rows = torch.arange(places.shape[axis], dtype=torch.float32).reshape(1, 1, -1)
        options: dict[str, Any] = {"size": length}
        if size is None:
            single = isinstance(scale_factor, float | int)
            factor = scale_factor if single else scale_factor[axis - places.ndim]
            options = {"scale_factor": factor, "recompute_scale_factor": recompute_scale_factor}
        chosen = torch.nn.functional.interpolate(rows, mode=mode, **options)
        places = np.take(places, chosen.ravel().long().numpy(), axis)
    return _moved(tracer, value, lead, places)
