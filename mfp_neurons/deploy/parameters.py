"""The whole numbers beside the codes in the bits that they need: what files hold, and what memory counts.

Any array is stored as :mod:`.pack` has numbers, or as places in a table of those that occur in it. What
neurons have says more:

    taps        of several channels alike are stored once. Powers of two take 4 bits each: they are 0, or plus
                or minus one of eight powers that follow each other, which are 17 numbers, and a column of
                taps hardly has all of them, so that it says which of the 17 it does without.
    thresholds  mostly follow from two numbers a channel. Where the constant part of a current is b, and a
                what a unit of the potential is worth, :mod:`.fold` gives step t the threshold
                ceil((v - b M[t]) / a), with M[t] the sum of the taps that are reached. So there are whole
                numbers A and B with

                    threshold[t] = (A * 2**coarse - B M[t]) >> shift

                for all steps. They are searched for and tried out: what was cut off at the largest potential
                is on no line.

What is taken is what takes the fewest bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidNetworkError
from .graph import Gather, Graph, Ints, Neurons, Synapse, synapses
from .pack import number_bits, number_bytes

_POWERS = 8  # of two that follow each other
_MIDDLE = _POWERS  # where 0 stands among the 17 numbers
_LIMIT = 2**62
_FINER = 4  # bits of a slope beyond those that it cannot do without, which may save more bits of the start
_TRIED = 8  # slopes on either side of the middle one
# A small file must not become a large network: how many numbers may come of few, and of a code.
_FREE, _OF_NUMBER, _OF_CODE = 2**12, 16, 4


@dataclass(frozen=True)
class Palette:
    """numbers = values[places]: the numbers that occur, and which of them stands where."""

    values: Ints
    places: Ints


@dataclass(frozen=True)
class Powers:
    """Taps [.., C] that are 0 or plus or minus a power of two.

    Attributes:
        codes: [.., C] below 16, a place among the 17 numbers -2**(e + 7) .. -2**e, 0, 2**e .. 2**(e + 7),
            from which one that is absent is left out.
        exponents: e of each column, [C].
        absent: the place of the 17 that does not occur in the column, [C].
    """

    codes: Ints
    exponents: Ints
    absent: Ints


@dataclass(frozen=True)
class Shared:
    """Taps of which channels that follow each other have the same ones, stored once.

    Attributes:
        sets: [.., G], the taps of each set.
        channels: of all sets together.
    """

    sets: "Ints | Palette | Powers"
    channels: int


@dataclass(frozen=True)
class Rows:
    """Thresholds as they are, without the rows at the end that repeat the ones before.

    Attributes:
        values: [R, choices, C].
        steps: how many there are with those that are left out.
    """

    values: Ints
    steps: int


@dataclass(frozen=True)
class Line:
    """threshold[t, i] = (start[i] * 2**coarse - slope M[t]) >> shift, with M[t] the sum of the taps reached.

    Attributes:
        start: [choices, C].
        slope: [C].
        shift, coarse: from 0 to 62.
        steps: how many there are.
    """

    start: Ints
    slope: Ints
    shift: int
    coarse: int
    steps: int


Floats = NDArray[np.float64]
FORMS = (Palette, Powers, Shared, Rows, Line)
Taps = Ints | Palette | Powers | Shared


@dataclass(frozen=True)
class Parameters:
    """What neurons have beside their synapses, each in its smallest form.

    Attributes:
        taps: [1 or T, K, 1 or C].
        thresholds: their rows, or what these follow from.
        own: taps of own spikes, [R, 1 or C], if there are any.
    """

    taps: Taps
    thresholds: Rows | Line
    own: Taps | None


# --- any numbers


def stored(numbers: Ints) -> Ints | Palette:
    """The numbers, or a palette where that takes fewer bytes."""
    values, places = np.unique(numbers, return_inverse=True)
    palette = Palette(values, places.reshape(numbers.shape).astype(np.int64))
    return palette if _bytes(palette) < _bytes(numbers) else numbers


def stored_bytes(form: Any) -> int:
    """Bytes in a file of an array, or of one of the forms of this module; 0 of None."""
    return _bytes(stored(form)) if isinstance(form, np.ndarray) else _bytes(form)


def _bytes(form: Any) -> int:
    if isinstance(form, np.ndarray):
        return number_bytes(form.size, number_bits(form))
    if form is None or isinstance(form, int):
        return 0
    # the numbers of a palette are all different, so that none of them has a smaller form
    each = _bytes if isinstance(form, Palette) else stored_bytes
    return sum(each(getattr(form, field.name)) for field in fields(form))


def repeated_places(graph: Graph) -> dict[int, int]:
    """{operation: the earlier one whose places it has}: attention moves queries, keys and values alike."""
    first: dict[Any, int] = {}
    repeated = {}
    for number, op in enumerate(graph.ops):
        if isinstance(op, Gather):
            key = (op.places.tobytes(), op.shape, graph.map_shape(op.source))
            if key in first:
                repeated[number] = first[key]
            first.setdefault(key, number)
    return repeated


# --- neurons


def parameters(op: Neurons) -> Parameters:
    """Taps, thresholds and own taps of a layer, each in the form that takes the fewest bytes."""
    own = None if op.feedback is None else op.feedback.taps
    table = op.thresholds.reshape(-1, op.choices, op.shape[0])
    thresholds: Rows | Line = Rows(op.threshold_table, len(table))
    line = threshold_line(op)
    if line is not None and stored_bytes(line) < stored_bytes(thresholds):
        thresholds = line
    form = Parameters(_taps(op.taps), thresholds, None if own is None else _taps(own))
    if max(_numbers(op.taps), _numbers(op.thresholds), _numbers(own)) <= _most(synapses(op), form):
        return form
    # few numbers of many: as they are
    return Parameters(op.taps, Rows(table, len(table)), own)


def _most(synapses: Sequence[Synapse], form: Parameters) -> int:
    """How many numbers of each kind may come of what is stored of a layer."""
    codes = sum(synapse.codes.size for synapse in synapses)
    return _FREE + _OF_CODE * codes + _OF_NUMBER * _numbers(form.taps, form.thresholds, form.own)


def _numbers(*forms: Any) -> int:
    """How many numbers are stored of forms, or of arrays."""
    sizes = [form.size for form in forms if isinstance(form, np.ndarray)]
    for form in forms:
        match form:
            case Palette():
                sizes.append(form.places.size)
            case Powers():
                sizes.append(form.codes.size)
            case Shared():
                sizes.append(_numbers(form.sets))
            case Rows():
                sizes.append(form.values.size)
            case Line():
                sizes.append(form.start.size + form.slope.size)
    return sum(sizes)


def _reached(taps: Ints) -> Ints:
    """M, the sum of the taps that are reached at each step, [K or T, 1 or C]."""
    return taps.sum(axis=1) if len(taps) > 1 else taps[0].cumsum(axis=0)


# --- taps


def _taps(taps: Ints) -> Taps:
    """The smallest form of taps [.., 1 or C]."""
    sets = tap_sets(taps)
    powers = powers_of(sets)
    smallest: Ints | Powers = sets
    if powers is not None and stored_bytes(powers) < stored_bytes(sets):
        smallest = powers
    return smallest if sets.shape == taps.shape else Shared(smallest, taps.shape[-1])


def tap_sets(taps: Ints) -> Ints:
    """Taps [.., G] of the fewest groups of neighbouring channels, all as large, which have the same ones."""
    channels = taps.shape[-1]
    # channels at which taps change: each has to be the first one of a group
    changes = (taps[..., 1:] != taps[..., :-1]).any(axis=tuple(range(taps.ndim - 1)))
    group = int(np.gcd.reduce([channels, *(np.flatnonzero(changes) + 1).tolist()]))
    return np.ascontiguousarray(taps[..., ::group])


def powers_of(taps: Ints) -> Powers | None:
    """Taps as powers of two, if they are any and each column can do without one of the 17 numbers."""
    sizes = np.abs(taps).reshape(-1, taps.shape[-1])
    if (sizes & (sizes - 1)).any():
        return None
    exponents = np.where(sizes > 0, np.round(np.log2(np.maximum(sizes, 1))), 0).astype(np.int64)
    # one exponent for all columns, as far as their taps reach down to it
    top = exponents.max(axis=0) - (_POWERS - 1)
    bottom = np.where(sizes > 0, exponents, 63).min(axis=0)
    base = np.minimum(max(0, int(top.max())), bottom)
    if (base < top).any():
        return None
    places = _MIDDLE + np.sign(taps).reshape(sizes.shape) * np.where(sizes > 0, exponents - base + 1, 0)
    absent = _absent(places)
    if absent is None:
        return None
    codes = places - (places > absent)
    return Powers(codes.reshape(taps.shape), base, absent)


def _absent(places: Ints) -> Ints | None:
    """A place of the 17 that no number of the column has; mostly the same one in all columns."""
    occurs = np.stack([(places == place).any(axis=0) for place in range(2 * _POWERS + 1)])
    absent = np.full(places.shape[1], -1)
    for place in np.argsort(occurs.sum(axis=1), kind="stable").tolist():
        absent[(absent < 0) & ~occurs[place]] = place
    return None if (absent < 0).any() else absent


# --- thresholds


def threshold_line(op: Neurons, limit: int = _LIMIT >> 1) -> Line | None:
    """What the thresholds of all steps follow from, also behind their rows, in numbers below a limit."""
    table, reached = op.thresholds.reshape(-1, op.choices, op.shape[0]), _reached(op.taps)
    steps, _, channels = table.shape
    largest = int(np.abs(table).max())
    if steps == 1 or largest >= limit:
        return None
    # the last row holds for the steps that follow, in which more taps are reached
    every = table[np.minimum(np.arange(len(reached)), steps - 1)]
    sums = np.broadcast_to(reached, (len(reached), channels))
    low, high = _slopes(every, sums)
    if (low >= high).any():
        return None
    best: Line | None = None
    first = inf
    for shift in count():
        least, most = np.floor(low * 2.0**shift) + 1, np.ceil(high * 2.0**shift) - 1
        sizes = max(np.abs(least).max(), np.abs(most).max()) * (1 + int(np.abs(sums).max()))
        # also true of the infinite slopes of channels that have none
        if shift > first + _FINER or not (largest + 1 << shift) + sizes < limit:
            break
        if (least > most).any():
            continue
        first = min(first, shift)
        line = _line_of(every, sums, shift, least.astype(np.int64), most.astype(np.int64))
        if line is not None and (best is None or stored_bytes(line) < stored_bytes(best)):
            best = replace(line, steps=steps)
    if best is None or not np.array_equal(_thresholds(best, reached), op.thresholds):
        return None
    later = _thresholds(replace(best, steps=len(every)), reached)  # behind the rows as well
    return best if np.array_equal(later, every.reshape(-1, channels)) else None


def _slopes(table: Ints, sums: Ints) -> tuple[Floats, Floats]:
    """Between which two numbers [C] the slope of each channel lies: the first is not below where it has none.

    Thresholds are a line rounded down: with B the slope, all of ``table + B sums`` lie within less than 1.
    """
    rise = (table - table[:1]).astype(np.float64)
    run = (sums - sums[:1]).astype(np.float64)[:, None]
    low, high = -_largest_slope(rise, -run), _largest_slope(rise, run)
    free = np.isinf(low) & np.isinf(high) & (low < high)
    return np.where(free, -1.0, low), np.where(free, 1.0, high)


def _largest_slope(rise: Floats, run: Floats) -> Floats:
    """Below which number [C] the slopes B lie with which ``rise + B run`` spreads over less than 1.

    inf where there is no bound, and -inf where there is no such slope. Each pair of steps bounds B. The
    spread is a convex function of B: at a B that is too large, the two steps that are farthest apart have its
    tangent, and their bound is nearer, which is Newton's method.

    Args:
        rise: [K, choices, C].
        run: [K, 1, C].
    """

    def apart(values: Floats) -> tuple[Floats, Floats]:
        """How far apart the steps of the largest and of the smallest value are, [choices, C] each."""
        pair = values.argmax(axis=0, keepdims=True), values.argmin(axis=0, keepdims=True)
        return tuple(
            (np.take_along_axis(each, pair[0], 0) - np.take_along_axis(each, pair[1], 0))[0]
            for each in np.broadcast_arrays(rise, run)
        )

    with np.errstate(divide="ignore", invalid="ignore"):
        over, across = apart(np.broadcast_to(run, rise.shape))
        slope = np.where(across > 0, (1 - over) / across, inf).min(axis=0)
        while True:
            at = np.where(np.isinf(slope), 0, slope)
            over, across = apart(rise + at * run)
            too_far = over + at * across >= 1  # and, if it does not grow with B, at all smaller B
            bound = np.where(across > 0, (1 - over) / across, np.where(too_far, -inf, inf)).min(axis=0)
            if not (bound < slope).any():
                return slope
            slope = np.minimum(slope, bound)


def _line_of(table: Ints, sums: Ints, shift: int, least: Ints, most: Ints) -> Line | None:
    """The line of slopes from ``least`` to ``most`` [C] whose start needs the fewest bits."""
    channels = table.shape[2]
    middle = (least + most) // 2
    shifted, moved = table << shift, np.empty_like(table)
    tried, starts = [], []
    for step in sorted(range(-_TRIED, _TRIED + 1), key=abs):
        slope = np.clip(middle + step, least, most)
        np.multiply(slope, sums[:, None], out=moved)  # to all choices
        moved += shifted
        tried.append(slope)
        starts.append((moved.max(axis=0), moved.min(axis=0) + (1 << shift) - 1))
    slopes, lower, upper = np.stack(tried), *map(np.stack, zip(*starts, strict=True))
    for coarse in range(shift, -1, -1):
        start = -((-lower) >> coarse)
        fits = (start << coarse <= upper).all(axis=1)
        if fits.any(axis=0).all():
            first, columns = fits.argmax(axis=0), np.arange(channels)
            return Line(start[first, :, columns].T, slopes[first, columns], shift, coarse, len(table))
    return None


# --- and back


def numbers_of(form: Palette | Powers) -> Ints:
    """The numbers of a form.

    Raises:
        InvalidNetworkError: it says numbers that there are not.
    """
    if isinstance(form, Palette):
        values, places = _array(form.values, 1), _array(form.places)
        _require(places.min() >= 0 and places.max() < len(values), "a palette without one of its places")
        return values[places]
    codes = _array(form.codes)
    exponents, absent = (_array(one, 1) for one in (form.exponents, form.absent))
    columns = codes.shape[-1:]
    _require(columns == exponents.shape == absent.shape, "powers of two of other columns")
    inside = codes.min() >= 0 and codes.max() < 2 * _POWERS and exponents.min() >= 0 and exponents.max() < 55
    _require(inside and absent.min() >= 0 and absent.max() <= 2 * _POWERS, "powers of two that are none")
    signed = codes + (codes >= absent) - _MIDDLE
    return np.sign(signed).astype(np.int64) << np.maximum(exponents + np.abs(signed) - 1, 0)


def unpack(form: Parameters, synapses: Sequence[Synapse]) -> tuple[Ints, Ints, Ints | None]:
    """Taps, thresholds and own taps, from forms of which nothing is known yet.

    Args:
        form: with arrays for palettes and powers.
        synapses: of the layer.

    Raises:
        InvalidNetworkError: they say numbers that there are not, or many more than a file of that size has.
    """
    most = _most(synapses, form)
    taps = _array(_of_channels(form.taps, most), 3)
    own = None if form.own is None else _of_channels(form.own, most)
    rows = form.thresholds
    _require(type(rows.steps) is int and rows.steps >= 1, "thresholds of no steps")
    if isinstance(rows, Rows):
        values = _array(rows.values, 3)
        _require(rows.steps * values[0].size <= most, "more thresholds than belong to its size")
        last = np.minimum(np.arange(rows.steps), len(values) - 1)
        return taps, values[last].reshape(-1, values.shape[2]), own
    start, slope, reached = _array(rows.start, 2), _array(rows.slope, 1), _reached(taps)
    alike = start.shape[1:] == slope.shape and reached.shape[1] in (1, len(slope))
    _require(alike and rows.steps <= len(reached), "thresholds that follow from no taps")
    shifts = (rows.shift, rows.coarse)
    _require(all(type(n) is int and 0 <= n <= 62 for n in shifts), "thresholds of no shift")
    _require(rows.steps * start.size <= most, "more thresholds than belong to its size")
    return taps, _thresholds(rows, reached), own


def _thresholds(line: Line, reached: Ints) -> Ints:
    """The thresholds [steps * choices, C] that follow from a line."""
    moved = (line.slope * reached[: line.steps])[:, None]
    rows: Ints = ((line.start << line.coarse) - moved) >> line.shift
    return rows.reshape(-1, len(line.slope))


def _of_channels(taps: Any, most: int) -> Ints:
    """Taps of every channel."""
    if not isinstance(taps, Shared):
        return _array(taps)
    sets = _array(taps.sets)
    ok = type(taps.channels) is int and taps.channels >= 1 and taps.channels % sets.shape[-1] == 0
    _require(ok, "taps of groups of channels that are none")
    repeats = taps.channels // sets.shape[-1]
    _require(sets.size * repeats <= most, "more taps than belong to its size")
    return sets.repeat(repeats, axis=-1)


def _array(value: Any, axes: int | None = None) -> Ints:
    ok = isinstance(value, np.ndarray) and value.dtype == np.int64 and value.ndim == (axes or value.ndim)
    _require(ok, "something else where whole numbers belong")
    array: Ints = value
    return array


def _require(ok: Any, what: str) -> None:
    if not ok:
        raise InvalidNetworkError(f"the file has {what}")
