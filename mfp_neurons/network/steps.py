"""Rules of time: what is read out of all steps, a loop over them, an input that is repeated, and pooling."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..pooling import TimePool as TimePoolModule
from .advice import LOOPS, PART
from .axes import Axis, Dim, Dims, extended, has_time, kinds, labels, sizes
from .capture import StandIn
from .description import Reduction, TimePool
from .moves import take
from .pools import reduced_features
from .tracing import Record, Tracer, Value, rule


@rule("mean")
def mean(
    tracer: Tracer, result: Tensor, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return _reduced(tracer, tracer.value(x, "x"), dim, keepdim, "mean")


@rule("sum")
def total(
    tracer: Tracer, result: Tensor, x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    return _reduced(tracer, tracer.value(x, "x"), dim, keepdim, "sum")


@rule("amax")
def largest(tracer: Tracer, result: Tensor, x: Any, dim: Any = (), keepdim: bool = False) -> Value:
    value = tracer.value(x, "x")
    chosen = [dim] if isinstance(dim, int) else list(dim)
    if len(chosen) != 1 or kinds(value.dims[chosen[0]]) != {"T"}:
        tracer.refuse(
            "takes the largest of other numbers than those of all steps. Lower the model without it: the "
            "class of the largest score is the same. F.max_pool2d takes the largest of rows and columns"
        )
    return _reduced(tracer, value, dim, keepdim, "max")


@rule("max")
def largest_and_places(tracer: Tracer, result: Any, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest numbers over time, and what stands for their steps, which nobody may read."""
    value = largest(tracer, result, x, () if not isinstance(dim, int) else dim, keepdim)
    places = StandIn(sizes(value.dims), replace(value, layer=None), tracer.capture, torch.int64)
    return torch.return_types.max((tracer.stand_in(value, x.dtype), places))


@rule("cumsum")
def running_sums(tracer: Tracer, result: Tensor, x: Any, *anything: Any, **named: Any) -> NoReturn:
    tracer.refuse(
        "adds up the steps so far (cumsum), which no layer of a network does. Return every step, and add up "
        "what the network gives: numpy.cumsum(scores, axis=0); for the sum of all steps take x.sum(0)"
    )


def _reduced(tracer: Tracer, value: Value, dim: Any, keepdim: bool, how: Reduction) -> Value:
    rank = len(value.dims)
    chosen: Sequence[int] = range(rank) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    gone = sorted({d % rank for d in chosen})
    if any("N" in kinds(value.dims[d]) for d in gone):
        why = f"takes the {how} over the batch. Name the dimension: time is the first of [T, N, *]"
        return Value(None, _left(value.dims, gone, keepdim), refusal=tracer.capture.refusal(why))
    features = [d for d in gone if kinds(value.dims[d]) == {"F"}]
    # Features first: they are summed within each step, and what is reduced over time is what comes out of
    # that.
    if features:
        value = reduced_features(tracer, value, features, how == "mean")
    if any(kinds(value.dims[d]) == {"T"} for d in gone):
        value = replace(value, reduce=how)
    return replace(value, dims=_left(value.dims, gone, keepdim))


def _left(dims: Dims, gone: Sequence[int], keepdim: bool) -> Dims:
    """The dimensions that a reduction over ``gone`` leaves."""
    left = (() if i in gone else dim for i, dim in enumerate(dims))
    return tuple(dim for i, dim in enumerate(left) if keepdim or i not in gone)


@rule("__getitem__", view=True)
def item(tracer: Tracer, result: Tensor, x: Any, index: Any) -> Value:
    value = tracer.value(x, "x")
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(entry is Ellipsis for entry in entries):
        place = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
        # An ellipsis stands for all dimensions that no other entry takes; None takes none.
        missing = len(value.dims) - sum(entry is not None and entry is not Ellipsis for entry in entries)
        entries[place : place + 1] = [slice(None)] * missing
    place = 0
    for entry in entries:
        if entry is None:
            value = replace(value, dims=(*value.dims[:place], (), *value.dims[place:]))
            place += 1
            continue
        value, stays = _picked(tracer, value, place, entry)
        place += stays
    return value


@rule("select", view=True)
def select(tracer: Tracer, result: Tensor, x: Any, dim: int, index: int) -> Value:
    value = tracer.value(x, "x")
    return _picked(tracer, value, dim % len(value.dims), index)[0]


@rule("unbind", "__iter__", view=True)
def unbind(tracer: Tracer, result: Any, x: Any, dim: int = 0) -> Any:
    if not tracer.follow_loops:
        tracer.refuse_loop()
    value = tracer.value(x, "x")
    steps = range(sizes(value.dims)[dim])
    parts = tuple(tracer.stand_in(_picked(tracer, value, dim, t)[0], x.dtype, x.family) for t in steps)
    return iter(parts) if tracer.name == "__iter__" else parts


def _picked(tracer: Tracer, value: Value, place: int, entry: Any) -> tuple[Value, bool]:
    """A value at an index of one dimension, and whether the dimension stays."""
    dim, size = value.dims[place], sizes(value.dims)[place]
    # A slice over everything picks nothing out. With T = 4 this holds for x[-4:] as well, and only a second
    # capture with another T tells the two apart.
    if isinstance(entry, slice) and entry.indices(size) == (0, size, 1):
        return value, True
    without = (*value.dims[:place], *value.dims[place + 1 :])
    # An index into a dimension of size 1 only drops the dimension.
    if isinstance(entry, int) and not dim:
        return replace(value, dims=without), False
    if kinds(dim) <= {"F"}:
        entry = entry.tolist() if isinstance(entry, Tensor) and not isinstance(entry, StandIn) else entry
        if not isinstance(entry, int | slice | list):
            tracer.refuse(f"takes a part of a tensor {list(sizes(value.dims))} along dim {place}. {PART}")
        return take(tracer, value, place, entry), not isinstance(entry, int)
    if kinds(dim) == {"N"}:
        tracer.refuse(
            f"takes a part of the batch: of {labels(value.dims)} along dim {place}. Samples stay together, "
            "and an example is [T, N, *], or [N, *] of a model that makes T steps of it itself"
        )
    if kinds(dim) != {"T"}:
        tracer.refuse(f"takes a part of a tensor {list(sizes(value.dims))} along dim {place}. {PART}")
    # Where loops are not followed, a single step can only be read out, and that is the last one.
    if isinstance(entry, int) and value.last is None and (tracer.follow_loops or entry == -1):
        return tracer.at_step(value, without, entry % size), False
    # the last steps have a place in a read-out, and all but the first; any others would be another network
    start = _start(entry)
    if not start or value.last:
        if tracer.follow_loops:
            tracer.refuse(
                f"takes some of the steps. {LOOPS}; x[-1] and x[-k:] read out the last ones, x[k:] all but "
                "the first"
            )
        tracer.refuse(f"takes single steps. {tracer.time_loop()}")
    left = -start if start < 0 else size - start
    if left <= 0:
        tracer.refuse(f"leaves out the first {start} steps, and there are {size}. Use an example with more")
    (time,) = dim
    dims: Dims = (*value.dims[:place], (time._replace(size=left),), *value.dims[place + 1 :])
    if start < 0:
        return replace(value, dims=dims, last=left, skip=0), True
    return replace(value, dims=dims, skip=value.skip + start), True


def _start(entry: Any) -> int:
    """k of the index [k:], negative or positive; 0 of any other."""
    if not isinstance(entry, slice) or entry.stop is not None or entry.step not in (None, 1):
        return 0
    return entry.start if isinstance(entry.start, int) else 0


@rule("expand", "expand_as", "broadcast_to", "repeat", "tile", view=True)
def expand(tracer: Tracer, result: Tensor, x: Any, *shape: Any, **named: Any) -> Value:
    """Repeating: the one dimension that grows becomes time."""
    value = tracer.value(x, "x")
    dims = extended(value.dims, result.dim())
    grown = [i for i, size in enumerate(result.shape) if size != prod(axis.size for axis in dims[i])]
    for place in grown:
        time = _repeated(tracer, replace(value, dims=dims), dims[place], result.shape[place])
        dims = (*dims[:place], time, *dims[place + 1 :])
    return replace(value, dims=dims)


@rule("stack")
def stack(tracer: Tracer, result: Tensor, tensors: Any, dim: int = 0) -> Value:
    """The steps of a loop, put together again; or one input, repeated."""
    values = [tracer.value(one, "x") for one in tensors]
    return stacked(tracer, values, dim % (len(values[0].dims) + 1))


@rule("__setitem__")
def write_step(tracer: Tracer, result: None, target: Any, index: Any, x: Any) -> None:
    """A step of a loop, put at its place of a tensor that is made for all of them, as torch.stack does."""
    value = tracer.value(x, "what is written at an index")
    place, step = _written_step(index, target.dim())
    begins = type(target) is Tensor
    record = Record(place, target.shape[place]) if begins and place >= 0 else getattr(target, "value", None)
    if not isinstance(record, Record) or place != record.place or not target.is_floating_point():
        tracer.refuse(
            "writes into a part of a tensor (__setitem__). Only the steps of a loop are written so, each at "
            "one index of a floating-point tensor that is made for them: record = torch.zeros(T, N, C), and "
            "record[t] = spikes; or collect them in a list, and torch.stack it"
        )
    shape = [*target.shape[:place], *target.shape[place + 1 :]]
    step %= record.count
    if list(x.shape) != shape or step in record.steps:
        what = "for the second time" if step in record.steps else f"of {list(x.shape)}"
        tracer.refuse(f"writes step {step} {what} into a tensor with steps of {shape}. {LOOPS}")
    if begins:
        target = tracer.capture.adopt(target, record)
    record.steps[step] = value
    if len(record.steps) == record.count:
        target.value = stacked(tracer, [record.steps[t] for t in range(record.count)], place)


def _written_step(index: Any, rank: int) -> tuple[int, int]:
    """Which dimension an index takes one place of, and which place; -1 where it takes parts of others."""
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(entry is Ellipsis for entry in entries):
        first = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
        entries[first : first + 1] = [slice(None)] * (rank - len(entries) + 1)
    chosen = [place for place, entry in enumerate(entries) if entry != slice(None)]
    if len(chosen) != 1 or type(entries[chosen[0]]) is not int:
        return -1, 0
    return chosen[0], entries[chosen[0]]


def stacked(tracer: Tracer, values: Sequence[Value], place: int) -> Value:
    """What :func:`stack` makes of values, with the new dimension at ``place``."""
    first, count = values[0], len(values)
    if any(one.reduce for one in values):
        tracer.refuse(
            "stacks what is reduced over time, or added up over the steps so far. Return every step, and add "
            "up what the network gives: numpy.cumsum(scores, axis=0)"
        )
    alike = all(one.dims == first.dims and one.layer == first.layer for one in values)
    steps = [one.step for one in values]
    # The steps of one signal, all of them and in their order, are the sequence again. Tensors that belong to
    # no step are one input repeated.
    # A list without its first steps leaves these out.
    skip = steps[0] or 0
    total = tracer.steps or max(map(len, tracer.calls.values()), default=0) if skip else tracer.steps
    in_order = steps == list(range(skip, skip + count)) and total in (None, skip + count)
    repeated = set(steps) == {None} and tracer.steps is None and not has_time(first.dims)
    if tracer.follow_loops and not (alike and (in_order or repeated)):
        what = _difference(tracer, values)
        tracer.refuse(f"stacks {count} tensors that are not one signal step by step: {what}. {LOOPS}")
    if not alike:
        tracer.refuse(f"puts the steps of a loop together. {tracer.time_loop()}")
    if tracer.follow_loops and in_order:
        # Where the input has no time, the steps that are stacked are all the time there is.
        tracer.repeats = 0 if tracer.steps else skip + count
        time: Dim = (Axis("T", count),)
    else:
        time = _repeated(tracer, first, (), count)
    return replace(first, dims=(*first.dims[:place], time, *first.dims[place:]), step=None, skip=skip)


def _difference(tracer: Tracer, values: Sequence[Value]) -> str:
    """The first of several tensors that is not that of a next step, in words."""
    first = values[0]
    for place, one in enumerate(values):
        if one.layer != first.layer:
            here, there = tracer.layer(first), tracer.layer(one)
            return f"number 1 is what {here.where} gives, and number {place + 1} what {there.where} gives"
        if one.dims != first.dims:
            return f"number {place + 1} is {labels(one.dims)}, and number 1 {labels(first.dims)}"
        if one.step != place:
            what = "belongs to no step" if one.step is None else f"is of step {one.step}"
            return f"number {place + 1} {what}"
    return f"they are {len(values)} of {tracer.steps} steps"


def _repeated(tracer: Tracer, value: Value, dim: Dim, size: int) -> Dim:
    """A dimension of nothing, repeated: time, of a model that repeats its input."""
    one_step = value.reduce or value.step is not None
    if tracer.steps is not None or has_time(value.dims) or one_step or kinds(dim):
        tracer.refuse(
            f"repeats a tensor {list(sizes(value.dims))} along one of its dimensions, {size} times. Only an "
            "input without time is repeated, over time"
        )
    tracer.repeats = size
    return (Axis("T", size),)


def pool_time(tracer: Tracer, module: Any, x: Any) -> StandIn:
    """A :class:`mfp_neurons.TimePool`."""
    value, window = tracer.value(x, "the input of a pooling over time"), module.window
    if value.is_reduced:
        tracer.refuse("pools over time what was already reduced over time. Put it in front of that")
    if not value.dims or kinds(value.dims[0]) != {"T"} or len(value.dims[0]) > 1:
        tracer.refuse(f"reads {list(sizes(value.dims))}, which does not begin with time. Give it [T, N, *]")
    if window == 1:
        return tracer.stand_in(value, x.dtype)
    # written down before it is checked, so that an export without pooling over time says so first
    number = tracer.emit(
        TimePool,
        [tracer.source(value)],
        tracer.layer(value).shape,
        period=window,
        function=type(module).__name__,
        window=window,
    )
    steps = sizes(value.dims)[0]
    if steps % window:
        tracer.refuse(
            f"makes one step out of every {window} steps, and its input has {steps}. Use a T, and with it an "
            "example, that the windows divide, one behind the other"
        )
    dims = ((Axis("T", steps // window),), *value.dims[1:])
    return tracer.stand_in(replace(value, layer=number, dims=dims), x.dtype)


def is_time_pool(module: Any) -> bool:
    """Whether a module pools over time as ours does; a class that does more is looked into."""
    return isinstance(module, TimePoolModule) and type(module).forward is TimePoolModule.forward
