"""What the user gives, as levels [T, N, C, H, W], or [1, N, C, H, W] for one image at every step.

They are uint8, or uint16 where the largest is above 255.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .check import MAX_STEPS
from .events import Events
from .graph import Graph, Input

Levels = NDArray[np.uint8] | NDArray[np.uint16]


def read(graph: Graph, x: Any) -> tuple[Levels, int]:
    """Levels and the number of steps.

    Args:
        graph: whose input this is to be.
        x: NumPy or torch, [T, N, *] or [N, *] (shown at every step): whole numbers are levels, from 0 to
            ``graph.input.top``; floats lie from ``low`` to ``high``, 0 to 1 of images, and are rounded to
            levels. Of counts and of events of both signs whole numbers, in any dtype, are the numbers
            themselves. False and True are 0 and 1.

    Raises:
        TypeError: x is no array of real numbers.
        ValueError: the shape does not fit, T leaves a window of a pooling over time open, or a number is NaN,
            outside the range or, for events, not 0 or 1.
    """
    numbers = _as_numpy(x)
    levels = _levels(numbers, graph.input)
    shaped, steps = _shaped(levels, graph)
    _check_steps(graph, steps)
    return shaped, steps


def read_step(graph: Graph, x: Any) -> Levels:
    """Levels [N, C, H, W] of one step [N, *] of a stream; the rest as for :func:`read`."""
    levels = _levels(_as_numpy(x), graph.input)
    wanted = graph.input.features
    if levels.ndim != len(wanted) + 1 or levels.shape[1:] != wanted or 0 in levels.shape:
        raise ValueError(f"x must be one step {_text('N', wanted)}, got shape {list(levels.shape)}")
    return levels.reshape(-1, *graph.input.shape)


def read_events(graph: Graph, times: Any, addresses: Any) -> tuple[Events, int]:
    """Events of one sample, and the number of steps: that of the example, or as many as they need.

    Raises:
        TypeError, ValueError: not two integer arrays of one length, an address or a time outside the network,
            the same event twice, or a network whose input is not events.
    """
    if graph.input.top != 1 or graph.input.low:
        raise ValueError(
            f"events: the input of this network is levels from 0 to {graph.input.top}, not events; give x as "
            "an array, whose levels above 0 are then the events"
        )
    time, address = _integers("times", times), _integers("addresses", addresses)
    if time.shape != address.shape:
        raise ValueError(f"times and addresses must have one length, got {len(time)} and {len(address)}")
    size = int(np.prod(graph.input.shape))
    period = graph.period  # windows are filled up with steps without events
    _check_range("addresses", address, size - 1)
    # before anything is computed with them: a time near 2**63 would overflow below
    _check_range("times", time, MAX_STEPS // period * period - 1)
    needed = -(-(int(time.max(initial=-1)) + 1) // period) * period
    steps = graph.fixed_steps() or max(graph.steps, needed)
    if graph.input.static:
        raise ValueError("events: this network repeats one image itself and takes no events over time")
    if graph.fixed_steps() and needed > steps:
        raise ValueError(f"times must lie from 0 to {steps - 1}, got {time.max()}. {why_fixed(steps)}")
    _check_range("times", time, steps - 1)
    # a spike cannot be there twice, and adding two would make a level of 2
    keys = np.unique(time * size + address)
    if len(keys) != len(time):
        raise ValueError(f"events: {len(time) - len(keys)} of {len(time)} are there twice; a spike is 0 or 1")
    channel, row, column = np.unravel_index(address, graph.input.shape)
    return Events(time, np.zeros_like(time), channel, row, column, np.ones_like(time)), steps


def _as_numpy(x: Any) -> NDArray[Any]:
    if type(x).__module__.split(".")[0] == "torch" and hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() else x).numpy()  # NumPy has no bfloat16
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if x.dtype.kind not in "buif":
        raise TypeError(f"x must hold real numbers, got dtype {x.dtype}")
    return x


def _levels(numbers: NDArray[Any], inputs: Input) -> Levels:
    low, high, top = inputs.low, inputs.high, inputs.top
    if numbers.dtype.kind == "b":
        numbers = numbers.astype(np.float64)  # True is 1.0 to the model
    if numbers.dtype.kind == "f":
        _check_numbers(numbers, inputs)
        # in float64, where a level's number, rounded to float32 or not, is nearest to that level
        return np.rint((numbers.astype(np.float64) - low) * (top / (high - low))).astype(inputs.dtype)
    first, last = (int(low), int(high)) if inputs.is_whole else (0, top)
    if numbers.size and (numbers.min() < first or numbers.max() > last):
        raise ValueError(f"x must hold {_words(inputs)}, got {int(numbers.min())} to {int(numbers.max())}")
    return (numbers.astype(np.int64) - first).astype(inputs.dtype)


def _words(inputs: Input) -> str:
    if inputs.is_whole and inputs.top > 1:
        return f"whole numbers from {inputs.low:g} to {inputs.high:g}"
    return "events (0 or 1)" if inputs.top == 1 else f"levels from 0 to {inputs.top}"


def _check_numbers(numbers: NDArray[Any], inputs: Input) -> None:
    # first, as every comparison with NaN is false and would let it pass
    if np.isnan(numbers).any():
        raise ValueError(f"x must hold numbers, got NaN in {int(np.isnan(numbers).sum())} places")
    if inputs.is_whole and inputs.top == 1 and not np.isin(numbers, (0, 1)).all():
        odd = numbers[~np.isin(numbers, (0, 1))]
        raise ValueError(
            f"x must hold binary events, 0 or 1, got {odd[0]:g}. The example that was lowered held 0 and 1 "
            "alone; for images lower with one of uint8, or of other numbers between 0 and 1 too"
        )
    if numbers.size and (numbers.min() < inputs.low or numbers.max() > inputs.high):
        if inputs.is_whole:
            raise ValueError(f"x must hold {_words(inputs)}, got {numbers.min():g} to {numbers.max():g}")
        raise ValueError(
            f"x of floats must lie in [{inputs.low:g}, {inputs.high:g}], got {numbers.min():g} to "
            f"{numbers.max():g}; whole levels from 0 to {inputs.top} go in as integers, such as uint8"
        )
    if inputs.is_whole and (numbers != np.rint(numbers)).any():
        odd = numbers[numbers != np.rint(numbers)]
        raise ValueError(f"x must hold {_words(inputs)}, got {odd[0]:g}")


def _shaped(levels: Levels, graph: Graph) -> tuple[Levels, int]:
    static, features, shape = graph.input.static, graph.input.features, graph.input.shape
    lead = levels.ndim - len(features)  # N, or T and N
    fits = lead in ((1,) if static else (1, 2)) and levels.shape[lead:] == features
    if not fits or 0 in levels.shape:
        accepted = [_text("N", features)] if static else [_text("T, N", features), _text("N", features)]
        raise ValueError(f"x must be {' or '.join(accepted)}, got shape {list(levels.shape)}")
    if lead == 2:
        return levels.reshape(*levels.shape[:2], *shape), len(levels)
    return levels.reshape(1, len(levels), *shape), graph.steps


def _text(lead: str, features: tuple[int, ...]) -> str:
    return f"[{', '.join([lead, *map(str, features)])}]"


def _check_steps(graph: Graph, steps: int) -> None:
    if steps > MAX_STEPS:
        raise ValueError(f"x must have at most {MAX_STEPS} steps, got {steps}; stream() takes any number")
    fixed = graph.fixed_steps()
    if fixed and steps != fixed:
        raise ValueError(f"x must have T = {fixed} steps, got {steps}. {why_fixed(fixed)}")
    period = graph.period
    if steps % period:
        raise ValueError(
            f"x must have a multiple of {period} steps, of which pooling over time makes one, got {steps}"
        )
    needed, skipped = max((head.skip + (head.last or 1), head.skip) for head in graph.heads)
    if steps < needed * graph.periods[-1]:
        first = skipped * graph.periods[-1]
        what = f"the first {first} of which the scores leave out" if skipped else "which the scores average"
        raise ValueError(f"x must have at least {needed * graph.periods[-1]} steps, {what}, got {steps}")


def why_fixed(steps: int) -> str:
    """Why a network takes sequences of so many steps alone, and what to do."""
    return (
        f"The network is for {steps} steps alone: its model computes with their number (x.mean(0) and "
        "x[-k:] follow it, x.sum(0) / x.shape[0] does not), or has a matrix kernel. Lower the model with an "
        "example of the other T"
    )


def _integers(name: str, values: Any) -> NDArray[np.int64]:
    array = np.asarray(values) if not hasattr(values, "detach") else _as_numpy(values)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise TypeError(f"{name} must be a 1-d integer array, got {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)


def _check_range(name: str, values: NDArray[np.int64], top: int) -> None:
    if values.size and (values.min() < 0 or values.max() > top):
        raise ValueError(f"{name} must lie from 0 to {top}, got {values.min()} to {values.max()}")
