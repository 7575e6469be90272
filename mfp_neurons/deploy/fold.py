r"""Folding: scales, biases and batch norms between a synapse and its neurons become integer thresholds.

A neuron sees the current x[t] = a A[t] + b for each channel: A is the whole number that the synapse adds up
from codes, and every affine map on the way (the scale of the codes, a bias, an evaluated batch norm, a
residual's factor) is in the two real numbers a and b. Its taps are whole numbers m[j] times 2**e. With

    P[t] = sum of m[j] A[t-j] over j = 0 .. min(t, K-1)            what integer hardware computes
    M[t] = sum of m[j]        over j = 0 .. min(t, K-1)            the taps that are reached

the potential is u[t] = 2**e (a P[t] + b M[t]), so that

    u[t] >= v   <=>   a P[t] >= z[t] = v / 2**e - b M[t]
    a > 0:            P[t] >= z / a              P is whole: P[t] >= ceil(z / a)
    a < 0:           -P[t] >= z / |a|            with -A in the place of A: codes, or a factor, of -1
    a = 0:            0    >= z                  always or never, whatever P is

and a neuron that fires on u > v only has floor(z / |a|) + 1 for the ceiling. z depends on t while M does, and
so does the threshold; from step K - 1 on it stays.

Several synapses with scales a_i that end in the same neurons are added as whole numbers too: with factors
f_i = round(a_i 2**F),

    P[t] = sum of m[j] f_i A_i[t-j],     P[t] >= ceil(2**F z[t]),

F is the largest for which P stays below 2**62 and f_i below 2**31. In the model's own unit the potential is
then off by at most 2**e * sum of |m| * sum of |f_i / 2**F - a_i| max |A_i|, which is 0 where the a_i are
fractions of a power of two. Where a synapse d reads currents that were rounded already, which have far more
bits than counts of spikes, the factors are round(a_i / |a_d| 2**F): its own is not rounded once more.

Own spikes that are fed back (r[j] for one j steps ago) change z alone, by -sum of r[j] / 2**e over those that
there were. Three ways to say so, the first that is exact or else the last:

    sum      P[t] + sum of q[j] s[t-j] >= ceil(z[t] / a) where all q[j] = r[j] / (2**e |a|) are whole numbers,
             or become so with P[t] times a power of two
    table    a threshold for each sum that the own spikes can have, if these are 16 or fewer
    sum      with q[j] = round(2**F r[j] / (2**e |a|)) and 2**F P[t]. F is the largest for which all of it
             stays below 2**31, or below 2**62 if that F is less than 12. The potential is then off by at
             most the sum of |q[j] |a| 2**(e - F) - r[j]|

and with several synapses the q[j] are rounded with their factors. Where a reset to zero makes inputs before
the last own spike not count, M is the sum over those that do, and so z goes by their number in place of t.

Floats are read as the exact numbers that they are, and computed on with 100 decimal digits, so that no
rounding comes before the last ceiling. A number within 1e-50 of a whole one is that one: digits beyond come
from divisions and square roots, and a potential that close to its threshold is on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import LoweringError
from .graph import Feedback, Ints, Synapse, without_repeats
from .neurons import NeuronValues, PotentialValues

Decimals = NDArray[np.object_]  # of decimal.Decimal
Number = int | float | Fraction | Decimal

_ARITHMETIC = Context(prec=100)
_SAME = Decimal("1e-50")
_POTENTIAL_LIMIT = 2**62
_SCORE_LIMIT = 2**46  # so that a sum over 2**16 steps stays below 2**62
_FACTOR_LIMIT = 2**31
_NARROW_LIMIT = 2**31 - 1
_NARROW_BITS = 12  # of a fraction that own taps have where 31 bits are enough
_CHOICES = 16  # thresholds that own spikes choose from
_NOTHING = Decimal(2) ** -40  # of what own spikes add: a synapse that adds less counts as rounding
_DENOMINATORS = 2**12  # of the ratios of scales that count as exact multiples of one unit
_PRECISION = 2**16  # a larger part of the largest potential than 1 in this is no rounding error


def decimals(values: Iterable[Number]) -> Decimals:
    """Numbers as Decimals [C]; floats and NumPy's as the exact numbers that they are.

    >>> decimals([0.1, Fraction(1, 4)])[1]
    Decimal('0.25')
    """
    return np.array([_decimal(value) for value in values], object)


def _decimal(value: Number) -> Decimal:
    if isinstance(value, Fraction):
        return _ARITHMETIC.divide(Decimal(value.numerator), Decimal(value.denominator))
    exact = Decimal(value.item() if isinstance(value, np.generic) else value)
    if not exact.is_finite():
        raise ValueError(f"a number that folds into a threshold must be finite, got {value}")
    return exact


@dataclass(frozen=True, eq=False)
class Affine:
    """value = scale * number + offset, for each channel, and how far that may be from the model's.

    Attributes:
        scale, offset: Decimals [C].
        error: the bound on that, Decimals [C], or 0.

    >>> conv, norm = affine([0.5, 0.5], [0, 1]), batch_norm([2.0, -1.0], [0, 0], [1.0, 0.0], [4.0, 0.25], 0)
    >>> both = conv.then(norm)                   # (0.5 A - 1) * 2 / 2 and (0.5 A + 1) * -1 / 0.5
    >>> both.scale.astype(float), both.offset.astype(float)
    (array([ 0.5, -1. ]), array([-1., -2.]))
    """

    scale: Decimals
    offset: Decimals
    error: Decimals | Decimal = Decimal()

    def then(self, after: Affine) -> Affine:
        """``after`` of this: after.scale * (scale * number + offset) + after.offset."""
        with localcontext(_ARITHMETIC):
            return Affine(
                after.scale * self.scale,
                after.scale * self.offset + after.offset,
                np.abs(after.scale) * self.error + after.error,
            )

    def times(self, factor: Number) -> Affine:
        """This times one number for all channels."""
        with localcontext(_ARITHMETIC):
            by = _decimal(factor)
            return Affine(self.scale * by, self.offset * by, self.error * abs(by))

    def counting_from(self, zeros: Iterable[Number]) -> Affine:
        """This of numbers of which ``zeros`` [C] stand for 0: scale * (number - zero) + offset."""
        with localcontext(_ARITHMETIC):
            return replace(self, offset=self.offset - self.scale * decimals(zeros))

    def off_by(self, error: Iterable[Number]) -> Affine:
        """This of numbers that are off by an error [C] at most."""
        with localcontext(_ARITHMETIC):
            return replace(self, error=self.error + np.abs(self.scale) * decimals(error))

    def of_units(self, unit: Number) -> Affine:
        """This of numbers that count in units, such as levels of 1/255: scale * (unit * number) + offset."""
        with localcontext(_ARITHMETIC):
            return Affine(self.scale * _decimal(unit), self.offset, self.error)


def affine(scale: Iterable[Number], offset: Iterable[Number]) -> Affine:
    """scale * number + offset, from numbers [C] of any kind."""
    return Affine(decimals(scale), decimals(offset))


def batch_norm(
    weight: Iterable[Number],
    bias: Iterable[Number],
    mean: Iterable[Number],
    variance: Iterable[Number],
    eps: Number,
) -> Affine:
    """An evaluated batch norm: (value - mean) / sqrt(variance + eps) * weight + bias, numbers [C] each.

    Raises:
        ValueError: variance + eps is not positive, or a number is not finite.
    """
    with localcontext(_ARITHMETIC):
        spread = decimals(variance) + _decimal(eps)
        if any(value <= 0 for value in spread):
            raise ValueError(f"variance + eps of a batch norm must be positive, got {min(spread):.6g}")
        scale = decimals(weight) / np.array([value.sqrt() for value in spread], object)
        return Affine(scale, decimals(bias) - decimals(mean) * scale)


@dataclass(frozen=True, eq=False)
class Folded:
    """What becomes of the affine maps in front of a layer of neurons.

    Attributes:
        factors: int64 [C] for every synapse; of a single one +1 and -1.
        thresholds, unit, error, feedback: as :class:`mfp_neurons.deploy.graph.Neurons` has them.
    """

    factors: tuple[Ints, ...]
    thresholds: Ints
    unit: NDArray[np.float64]
    error: NDArray[np.float64]
    feedback: Feedback | None


def thresholds(branches: Sequence[Affine], bounds: Sequence[Ints], neuron: NeuronValues) -> Folded:
    """Folds the affine maps of all synapses of one layer of neurons.

    Args:
        branches: what each synapse's accumulated number is worth, C channels each.
        bounds: its largest size, whole numbers [C] (:func:`mfp_neurons.deploy.graph.synapse_bound`).
        neuron: taps, threshold and rule.

    Returns:
        :class:`Folded`.

    Raises:
        LoweringError: the potential does not fit 62 bits.

    >>> half = NeuronValues("1", np.array([[[2], [1]]]), -1, np.ones(1), strict=False)     # m = 1, 1/2
    >>> folded = thresholds([affine([0.5, -0.5], [0.5, 0])], [np.array([9, 9])], half)
    >>> folded.thresholds                                        # (2 - 0.5 M) / 0.5 with M = 2 and then 3
    array([[2, 4],
           [1, 4]])
    >>> folded.factors[0]
    array([ 1, -1])
    """
    channels = len(bounds[0])
    reach = [int(total) for total in _tap_sums(np.abs(neuron.taps), channels).max(axis=0)]
    sizes = [[int(bound[c]) * reach[c] for bound in bounds] for c in range(channels)]
    with localcontext(_ARITHMETIC):
        scales = [[branch.scale[c] for branch in branches] for c in range(channels)]
        own = None if neuron.own_taps is None else _own_columns(neuron, channels)
        exact = _largest_inexact(branches, bounds)
        needed = _needed(neuron, sum(branch.offset for branch in branches))
        if own is None:
            form = _without_own_spikes(scales, sizes, exact)
        elif len(branches) == 1:
            form = _with_shift([a for (a,) in scales], [size for (size,) in sizes], own)
        else:
            form = _with_factors(scales, sizes, own, exact)
        feedback = Feedback("age") if neuron.forgets else None
        if own is not None:
            table = _choices(neuron.own_taps) if any(form.lost) or form.is_wide else None
            feedback = Feedback("sum", _columns(form.own), form.shift)
            if table is not None:
                feedback = Feedback("table", table)
                form = _without_own_spikes(scales, sizes, exact)
                needed = [z - added for z in needed for added in _sums(table[:, 0], own)]
        # Factors and own taps are rounded. A potential that is off by more than 2**-16 of its largest size
        # would make another network.
        rough = any(
            lost * _PRECISION > worth * limit
            for lost, worth, limit in zip(form.lost, form.worth, form.limits, strict=True)
        )
        if rough or max(form.limits) >= _POTENTIAL_LIMIT:
            raise LoweringError(_too_large(neuron, bounds))
        rows = np.array([_ceilings(row, form.worth, form.limits, neuron.strict) for row in needed], np.int64)
        steps = rows.reshape(len(_tap_sums(neuron.taps, channels)), -1, channels)  # [t, choice, C]
        step = Decimal(2) ** neuron.exponent
        return Folded(
            tuple(np.array(row, np.int64) for row in zip(*form.factors, strict=True)),
            # A matrix kernel has a threshold for every step. Other thresholds stay the same from step K - 1
            # on.
            (steps if len(neuron.taps) > 1 else without_repeats(steps)).reshape(-1, channels),
            np.array([float(value * step) for value in form.worth]),
            _upwards(
                value * step + more
                for value, more in zip(form.lost, _errors(branches, reach, step), strict=True)
            ),
            feedback,
        )


def _errors(branches: Sequence[Affine], reach: list[int], step: Decimal) -> list[Decimal]:
    """What the errors of the currents add to that of the potential, for each channel."""
    error = sum((branch.error for branch in branches), Decimal())
    errors = np.broadcast_to(np.asarray(error, object), (len(reach),)).tolist()
    return [one * taps * step for one, taps in zip(errors, reach, strict=True)]


@dataclass(frozen=True)
class _Form:
    """Whole numbers in which a layer computes its potential: for each channel what one of them is worth.

    Attributes:
        factors: of every synapse, for each channel; behind them, where they belong to a sum, ``own`` taps.
        worth: in units of 2**exponent.
        limits: the largest size of the potential.
        lost: a bound on what rounding changes in it, in units of 2**exponent.
        own: own taps, for each channel.
        shift: of what the inputs add up to.
    """

    factors: list[list[int]]
    worth: list[Decimal]
    limits: list[int]
    lost: list[Decimal]
    own: list[list[int]] = field(default_factory=list)
    shift: int = 0

    @property
    def is_wide(self) -> bool:
        return max(self.limits) >= _NARROW_LIMIT


def _largest_inexact(branches: Sequence[Affine], bounds: Sequence[Ints]) -> int | None:
    """Which synapse gets a factor without rounding: the largest of those that read rounded currents.

    Numbers of these have many more bits than counts of spikes, and each is worth so little that few bits
    would be left for a rounded factor.
    """
    inexact = [i for i, branch in enumerate(branches) if np.any(np.asarray(branch.error, object))]
    return max(inexact, key=lambda i: int(bounds[i].max()), default=None)


def _without_own_spikes(scales: list[list[Decimal]], sizes: list[list[int]], exact: int | None) -> _Form:
    """Signs for a single synapse, rounded factors for several."""
    wholes = [_whole_factors(a, size, exact) for a, size in zip(scales, sizes, strict=True)]
    return _Form(
        [one.factors for one in wholes],
        [one.worth for one in wholes],
        [_total(one.factors, size) for one, size in zip(wholes, sizes, strict=True)],
        [_lost(a, one, size) for a, one, size in zip(scales, wholes, sizes, strict=True)],
    )


def _with_factors(
    scales: list[list[Decimal]], sizes: list[list[int]], own: list[list[Decimal]], exact: int | None
) -> _Form:
    """Factors and own taps rounded to one fixed point."""
    count = len(scales[0])
    wholes, limits, lost = [], [], []
    for a, size, taps in zip(scales, sizes, own, strict=True):
        numbers, most = [*a, *taps], [*size, *[1] * len(taps)]
        effective = [number if n else Decimal() for number, n in zip(numbers, most, strict=True)]

        def fits(integers: list[int], most: list[int] = most) -> bool:
            return (
                max(map(abs, integers[:count])) < _FACTOR_LIMIT and _total(integers, most) < _POTENTIAL_LIMIT
            )

        whole = _fixed_point(effective, fits, exact)
        wholes.append(whole)
        limits.append(_total(whole.factors, most))
        lost.append(_lost(numbers, whole, most))
    return _Form(
        [one.factors[:count] for one in wholes],
        [one.worth for one in wholes],
        limits,
        lost,
        [one.factors[count:] for one in wholes],
    )


def _with_shift(scales: list[Decimal], sizes: list[int], own: list[list[Decimal]]) -> _Form:
    """Signs for the one synapse, whose sum counts 2**shift, so that own taps are rounded to that."""
    factors, worth, limits, dropped = [], [], [], []
    for a, size, added in zip(scales, sizes, own, strict=True):
        largest = max(map(abs, added))
        drops = abs(a) * size <= largest * _NOTHING
        factors.append([0 if drops else -1 if a < 0 else 1])
        worth.append((largest * Decimal(2) ** -16 or Decimal(1)) if drops else abs(a))
        limits.append(0 if drops else size)
        dropped.append(abs(a) * size if drops else Decimal())
    most = max(
        limit + sum(map(abs, added)) / one for limit, added, one in zip(limits, own, worth, strict=True)
    )

    def rounded(below: int) -> _Form | None:
        """With the largest shift for which all stays below a limit."""
        shift = 61
        while shift >= 0 and most * 2**shift + len(own[0]) >= below:
            shift -= 1
        if shift < 0:
            return None
        whole = [_rounded([r / one for r in added], shift) for added, one in zip(own, worth, strict=True)]
        # powers of two that all of them share are none that they need
        shared = math.gcd(2**shift, *(number for row in whole for number in row))
        fewer = shift - (shared.bit_length() - 1)
        whole = [[number // shared for number in row] for row in whole]
        units = [one / 2**fewer for one in worth]
        lost = [
            less + _lost(added, _Whole(row, unit), [1] * len(row))
            for less, added, row, unit in zip(dropped, own, whole, units, strict=True)
        ]
        totals = [limit * 2**fewer + sum(map(abs, row)) for limit, row in zip(limits, whole, strict=True)]
        return _Form(factors, units, totals, lost, whole, fewer)

    narrow, wide = rounded(_NARROW_LIMIT), rounded(_POTENTIAL_LIMIT)
    if wide is None:  # what does not fit is refused by its limit
        return _Form(factors, worth, [_POTENTIAL_LIMIT] * len(worth), dropped, [[0] * len(own[0])] * len(own))
    if narrow is None or (any(narrow.lost) and (narrow.shift < _NARROW_BITS or not any(wide.lost))):
        return wide
    return narrow


def _own_columns(neuron: NeuronValues, channels: int) -> list[list[Decimal]]:
    """Own taps in units of 2**exponent, for each channel."""
    assert neuron.own_taps is not None
    unit = Fraction(2) ** neuron.exponent
    rows = np.broadcast_to(neuron.own_taps, (len(neuron.own_taps), channels))
    return [[_decimal(tap / unit) for tap in column] for column in rows.T.tolist()]


def _columns(own: list[list[int]]) -> Ints:
    """Own taps [R, 1 or C] of those of each channel: one column where all are alike."""
    taps = np.array(own, np.int64).T
    return np.ascontiguousarray(taps[:, :1] if bool((taps == taps[:, :1]).all()) else taps)


def _choices(own: NDArray[np.object_] | None) -> Ints | None:
    """Small taps [R, 1] whose sums tell all sums of own taps apart; None if these are more than 16.

    Either all taps are small multiples of one number, in every channel the same ones; or those that are equal
    are counted, each kind in the place of a digit.
    """
    assert own is not None
    found = [multiples] if (multiples := _common_multiples(own)) is not None else []
    digits, base = np.zeros(len(own), np.int64), 1
    kinds: dict[tuple[Fraction, ...], list[int]] = {}
    for lag, row in enumerate(own.tolist()):
        if any(row):
            kinds.setdefault(tuple(row), []).append(lag)
    for lags in kinds.values():
        digits[lags] = base
        base = min(base * (len(lags) + 1), 2 * _CHOICES)
    best = min([*found, digits], key=lambda taps: int(np.abs(taps).sum()))
    return best[:, None] if np.abs(best).sum() < _CHOICES else None


def _common_multiples(own: NDArray[np.object_]) -> Ints | None:
    """Whole numbers [R], if the own taps of every channel are these times one number of that channel."""
    columns = set()
    for column in own.T.tolist():
        if any(column):
            common = math.lcm(*(tap.denominator for tap in column))
            whole = [int(tap * common) for tap in column]
            shared = math.gcd(*whole)
            columns.add(tuple(number // shared for number in whole))
    (numbers, *others) = columns
    return None if others or max(map(abs, numbers)) >= _CHOICES else np.array(numbers, np.int64)


def _sums(table: Ints, own: list[list[Decimal]]) -> list[Decimals]:
    """What own spikes add, Decimals [C], for each number that a "table" has for them."""
    steps = [np.array(row, object) for row in zip(*own, strict=True)]
    start = int(-np.minimum(table, 0).sum())
    sums = {start: steps[0] * 0}
    for number, added in zip(table.tolist(), steps, strict=True):
        for at, total in list(sums.items()):
            sums.setdefault(at + number, total + added)
    # a number that no own spikes have stands for none
    return [sums.get(at, sums[start]) for at in range(1 + int(np.abs(table).sum()))]


def with_factors(synapse: Synapse, factors: Ints) -> Synapse:
    """A synapse whose numbers are worth factors [C]: signs go into its codes where they can, for free.

    They cannot behind a max pool, whose largest is not that of the negated numbers, nor where the codes hold
    the lowest number of their bits, which has no positive twin.
    """
    # Codes of b bits may go down to -2**(b - 1), the one code that has no opposite. Those of 1 and 1.58 bits
    # are -1 to 1.
    lowest = {1: -1, 1.58: -1}.get(synapse.bits, 1 - 2 ** (int(synapse.bits) - 1))
    fits = synapse.codes.min(axis=(1, 2, 3)) >= lowest
    moved = fits & (factors < 0) & (synapse.pool is None or synapse.pool.kind == "sum")
    signs = np.where(moved, -1, 1)
    factors = factors * signs
    codes = synapse.codes * signs[:, None, None, None].astype(np.int8)
    return replace(synapse, codes=codes, factor=None if bool((factors == 1).all()) else factors)


@dataclass(frozen=True)
class _Whole:
    """Whole factors of the synapses of one channel: worth * factors are their scales, or nearly."""

    factors: list[int]
    worth: Decimal


def _whole_factors(scales: list[Decimal], sizes: list[int], exact: int | None) -> _Whole:
    """Of a single synapse the sign; of several round(a 2**F)."""
    if len(scales) == 1:
        return _Whole([-1 if scales[0] < 0 else 1], abs(scales[0]))
    # A synapse whose weights are all zero adds nothing, so its scale does not limit the shift F.
    effective = [a if size else Decimal() for a, size in zip(scales, sizes, strict=True)]
    return _fixed_point(
        effective, lambda f: max(map(abs, f)) < _FACTOR_LIMIT and _total(f, sizes) < _POTENTIAL_LIMIT, exact
    )


def _fixed_point(
    numbers: list[Decimal], fits: Callable[[list[int]], bool], exact: int | None = None
) -> _Whole:
    """round(number 2**F) with the largest F that fits; without the powers of two that all of them share.

    With ``exact`` the numbers count in that one of them, which is then not rounded.
    """
    if exact is not None and numbers[exact]:
        unit = abs(numbers[exact])
        whole = _fixed_point([number / unit for number in numbers], fits)
        return replace(whole, worth=whole.worth * unit)
    # The largest number begins with 64 bits, more than fits anywhere, and loses one at a time until all of
    # them fit.
    shift = 64 - math.frexp(max(map(abs, numbers)))[1]
    integers = _rounded(numbers, shift)
    while not fits(integers):
        shift -= 1
        integers = _rounded(numbers, shift)
    shared = math.gcd(*integers)
    even = (shared & -shared).bit_length() - 1 if shared else 0
    return _Whole([number >> even for number in integers], Decimal(2) ** (even - shift))


def _rounded(numbers: list[Decimal], shift: int) -> list[int]:
    scaled = [number * Decimal(2) ** shift for number in numbers]
    return [int(number.to_integral_value(ROUND_HALF_EVEN)) for number in scaled]


def _total(factors: Iterable[int], sizes: Iterable[int]) -> int:
    return sum(abs(factor) * size for factor, size in zip(factors, sizes, strict=True))


def _lost(scales: list[Decimal], whole: _Whole, sizes: list[int]) -> Decimal:
    """A bound on what rounding the factors changes in the potential, in units of 2**exponent."""
    changes = [abs(factor * whole.worth - a) for factor, a in zip(whole.factors, scales, strict=True)]
    # a difference in the last digits is not a rounding of ours
    return sum(
        (d * size for d, size in zip(changes, sizes, strict=True) if d > whole.worth * _SAME), Decimal()
    )


def _tap_sums(taps: Ints, channels: int) -> NDArray[np.object_]:
    """Sums of the taps reached at each step, Python integers [K, C]; of a matrix kernel [T, C]."""
    exact = taps.astype(object)
    sums = exact.sum(axis=1) if len(taps) > 1 else exact[0].cumsum(axis=0)
    return np.broadcast_to(sums, (len(sums), channels))


def _needed(neuron: NeuronValues, offset: Any) -> list[Decimals]:
    """z of the derivation, [C] for each step."""
    thresholds = np.array([Decimal(value) for value in neuron.v_threshold.tolist()], object)
    v = (thresholds - Decimal(neuron.rest)) / Decimal(2) ** neuron.exponent
    return [v - offset * reached for reached in _tap_sums(neuron.taps, len(offset))]


def _ceilings(needed: Decimals, worth: list[Decimal], limits: list[int], strict: bool) -> list[int]:
    """The least whole P with worth * P >= needed (> if strict); kept between -limit - 1 and limit + 1."""
    least = []
    for z, a, limit in zip(needed, worth, limits, strict=True):
        # The potential does not depend on P then: the neuron fires at every step or at none.
        if a == 0:
            always = z.is_finite() and _least_above(z, strict) <= 0
            least.append(-limit - 1 if always else limit + 1)
        else:
            # P is never beyond the limit, so all thresholds beyond it mean the same, and infinity is one of
            # them.
            within = max(min(z / a, Decimal(limit + 1)), Decimal(-limit - 1))
            least.append(min(_least_above(within, strict), limit + 1))
    return least


def _least_above(value: Decimal, strict: bool) -> int:
    """The least whole number >= value (> if strict)."""
    nearest = value.to_integral_value(ROUND_HALF_EVEN)
    if abs(value - nearest) < _SAME:
        return int(nearest) + strict
    return int(value.to_integral_value(ROUND_CEILING))


def _upwards(values: Iterable[Decimal]) -> NDArray[np.float64]:
    """Floats that are not below the values."""
    return np.array([math.nextafter(float(value), math.inf) if value else 0.0 for value in values])


def _too_large(neuron: NeuronValues, bounds: Sequence[Ints]) -> str:
    """What to say where the potential does not fit, with the largest order that would."""
    largest = max(sum(int(bound[c]) for bound in bounds) for c in range(len(bounds[0])))
    room = largest * (_PRECISION if len(bounds) > 1 else 1)
    fitting = 0
    for order in range(1, neuron.taps.shape[1]):
        shorter = neuron.taps[:, :order].astype(object)
        shared = math.gcd(*shorter.ravel().tolist()) or 1
        reach = int(np.abs(shorter).sum(axis=1).max()) // (shared & -shared)
        fitting = order if reach * room < _POTENTIAL_LIMIT else fitting
    advice = f"give it order={fitting} or less" if fitting else "use a smaller layer before it"
    return (
        f"{neuron.path!r}: its potential does not fit 62 bits. Its {neuron.taps.shape[1]} taps span "
        f"{int(np.abs(neuron.taps.astype(object)).max()).bit_length()} bits, its {len(bounds)} synapses add "
        f"up to {largest}; {advice}"
    )


@dataclass(frozen=True, eq=False)
class FoldedScores:
    """What becomes of the affine maps in front of the scores; fields as :class:`graph.Scores` has them.

    ``factors`` are int64 [C] for every synapse.
    """

    factors: tuple[Ints, ...]
    offset: Ints
    unit: float
    error: NDArray[np.float64]


def scores(branches: Sequence[Affine], bounds: Sequence[Ints]) -> FoldedScores:
    """Folds the affine maps of the last layer; one unit for all classes, so that they can be compared.

    The scores of one step stay below 2**46, which leaves room for a sum over 2**16 steps.

    Args:
        branches, bounds: as for :func:`thresholds`.

    >>> last = scores([affine([0.5, 0.25], [1, 0])], [np.array([9, 9])])
    >>> last.factors[0], last.offset, last.unit
    (array([2, 1]), array([4, 0]), 0.25)
    """
    channels = len(bounds[0])
    with localcontext(_ARITHMETIC):
        offset = sum(branch.offset for branch in branches)
        numbers = np.stack([*(branch.scale for branch in branches), offset])  # the last row is of size 1
        sizes = np.stack([*(bound.astype(object) for bound in bounds), np.ones(channels, object)])
        flat = numbers.ravel().tolist()

        def fits(integers: list[int]) -> bool:
            magnitudes = np.abs(np.array(integers, object).reshape(numbers.shape))
            return bool(
                (magnitudes[:-1] < _FACTOR_LIMIT).all()
                and (magnitudes * sizes).sum(axis=0).max() < _SCORE_LIMIT
            )

        # Counts of spikes are multiples of one number, so that their scores are exact. Others are rounded to
        # a fixed point.
        whole = _multiples(flat, fits) or _fixed_point(flat, fits)
        rows = np.array(whole.factors, object).reshape(numbers.shape)
        lost = [
            _lost(numbers[:, c].tolist(), _Whole(rows[:, c].tolist(), whole.worth), sizes[:, c].tolist())
            for c in range(channels)
        ]
        lost = [a + b for a, b in zip(lost, _errors(branches, [1] * channels, Decimal(1)), strict=True)]
        *factors, added = rows.astype(np.int64)
        return FoldedScores(tuple(factors), added, float(whole.worth), _upwards(lost))


@dataclass(frozen=True, eq=False)
class FoldedPotential:
    """What becomes of a potential that is read out; fields as :class:`graph.Scores` has them."""

    taps: Ints
    offset: Ints
    unit: float
    error: NDArray[np.float64]


def potential(branches: Sequence[Affine], bounds: Sequence[Ints], values: PotentialValues) -> FoldedPotential:
    """Folds the affine maps in front of a potential that is read out, and its taps, into taps of scores.

    Tap j of a synapse is m[j] times its scale. The constant part b of a current counts once for every tap
    that is reached, so that step t has the offset rest + b * sum of m[j] over j = 0 .. min(t, K - 1).

    Args:
        branches, bounds: as for :func:`thresholds`; where ``values`` has own taps, the last ones are of the
            neurons' own spikes.
        values: taps in real numbers.

    >>> taps = np.array([[Fraction(1)], [Fraction(1, 2)]])
    >>> one = potential([affine([0.5], [1])], [np.array([9])], PotentialValues(taps, None, Fraction(), False))
    >>> one.taps.ravel(), one.offset.ravel(), one.unit      # 0.5 A[t] + 0.25 A[t-1], and 1, then 1.5
    (array([2, 1]), array([4, 6]), 0.25)
    """
    channels = len(bounds[0])
    count = len(branches) - (values.own_taps is not None)
    with localcontext(_ARITHMETIC):
        taps = _spread(values.taps, channels)
        kernels = [taps] * count
        if values.own_taps is not None:
            kernels.append(_spread(values.own_taps, channels))
        order = max(map(len, kernels))
        rows = np.full((len(branches), order, channels), Decimal(), object)
        for row, kernel, branch in zip(rows, kernels, branches, strict=True):
            row[: len(kernel)] = kernel * branch.scale
        added: Any = sum(branch.offset for branch in branches[:count])
        offset = taps.cumsum(axis=0) * added + _decimal(values.rest)
        numbers = [*rows.reshape(-1).tolist(), *offset.reshape(-1).tolist()]
        sizes = np.stack([bound.astype(object) for bound in bounds])[:, None]

        def parts(integers: Sequence[Any]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
            flat = np.array(integers, object)
            return flat[: rows.size].reshape(rows.shape), flat[rows.size :].reshape(offset.shape)

        def fits(integers: list[int]) -> bool:
            weights, constant = map(np.abs, parts(integers))
            return bool(((weights * sizes).sum(axis=(0, 1)) + constant.max(axis=0)).max() < _SCORE_LIMIT)

        whole = _multiples(numbers, fits) or _fixed_point(numbers, fits)
        weights, constant = parts(whole.factors)
        changes, shifts = abs(weights * whole.worth - rows), abs(constant * whole.worth - offset)
        near = whole.worth * _SAME  # a difference in the last digits is not a rounding of ours
        lost = (changes * (changes > near) * sizes).sum(axis=(0, 1)) + (shifts * (shifts > near)).max(axis=0)
        # currents that are off already are so at every step that the potential looks back at
        lost = lost + sum(np.abs(k).sum(axis=0) * one.error for k, one in zip(kernels, branches, strict=True))
        return FoldedPotential(
            weights.astype(np.int64),
            without_repeats(constant.astype(np.int64)),
            float(whole.worth),
            _upwards(lost.tolist()),
        )


def _spread(taps: NDArray[np.object_], channels: int) -> Decimals:
    """Fractions [K, 1 or C] as Decimals [K, C]."""
    return np.broadcast_to(decimals(taps.ravel().tolist()).reshape(taps.shape), (len(taps), channels))


@dataclass(frozen=True, eq=False)
class FoldedCurrents:
    """Currents as whole numbers; ``factors``, ``offset``, ``top``, ``zero`` and ``shift`` are the graph's.

    Number n stands for unit * (n - zero), and is off by ``error`` [C] at most. ``far`` says of each synapse
    whether it would lose less written down alone, since its scale is so small beside another's that few bits
    are left for its factor.
    """

    factors: tuple[Ints, ...]
    offset: Ints
    top: int
    zero: int
    shift: int
    unit: Fraction
    error: NDArray[np.float64]
    far: tuple[bool, ...]


def currents(branches: Sequence[Affine], ranges: Sequence[tuple[Ints, Ints]], largest: int) -> FoldedCurrents:
    """Currents of one unit for all channels, so that synapses can read them.

    They are exact where all scales and offsets are multiples of one number and the numbers of these fit.
    Others are rounded to the finest power of two that fits, after they were added up with factors of 31 bits
    or nearly: the error is half a unit, and what these factors are off.

    Args:
        branches: as for :func:`thresholds`.
        ranges: the smallest and the largest that each synapse's number can be, whole numbers [C].
        largest: what no number may be larger than.

    >>> half = currents([affine([0.5, -1], [0, 0.5])], [(np.array([-2, 0]), np.array([2, 1]))], 255)
    >>> half.factors[0], half.offset, half.top, half.zero, half.unit, half.error
    (array([ 1, -2]), array([2, 3]), 4, 2, Fraction(1, 2), array([0., 0.]))
    """
    with localcontext(_ARITHMETIC):
        low, high = (np.stack([one[end] for one in ranges]).astype(object) for end in (0, 1))
        scales = np.stack([branch.scale for branch in branches])
        # what adds nothing has no factor that could be too large
        scales[(low == 0) & (high == 0)] = Decimal()
        offset: Any = sum(branch.offset for branch in branches)
        reach = np.maximum(np.abs(low), np.abs(high))

        def ends(factors: Any, added: Any) -> tuple[Any, Any]:
            """The least and the most of all channels."""
            both = factors * low, factors * high
            return min((np.minimum(*both).sum(0) + added).min(), 0), max(
                (np.maximum(*both).sum(0) + added).max(), 0
            )

        exact = _exact_unit([*scales.ravel().tolist(), *offset.tolist()])
        if exact is not None:
            factors, added = _integers(scales / exact), _integers(offset / exact)
            least, most = ends(factors, added)
            if most - least <= largest:
                far = [False] * len(branches)
                unit = Fraction(exact)
                return _folded_currents(branches, factors, added, least, most, 0, unit, Decimal(), far)
        least, most = ends(scales, offset)
        # the unit 2**-bits, and factors in units of 2**-fine, of which the lowest bits are shifted out
        bits = math.frexp(float(largest / (most - least or 1)))[1]
        size = max(
            np.abs(scales).max(), (np.abs(scales) * reach).sum(0).max() / 2**30, np.abs(offset).max() / 2**30
        )
        fine = 30 - math.frexp(float(size or 1))[1]
        while True:
            shift = max(fine - bits, 0)
            worth = Decimal(2) ** -(bits + shift)
            half = (1 << shift) // 2
            factors, added = _integers(scales / worth), _integers(offset / worth) + half
            least, most = ends(factors, added)
            if (most >> shift) - (least >> shift) <= largest:
                break
            bits -= 1
        each = np.abs(factors * worth - scales) * reach
        lost = each.sum(0) + np.abs((added - half) * worth - offset)
        unit = Fraction(2) ** -bits
        rounded = lost + (worth * half)
        # alone, half a unit of its own is what is lost
        far = (each.max(1) > (np.abs(scales) * reach).max(1) / largest) & (len(branches) > 1)
        return _folded_currents(branches, factors, added, least, most, shift, unit, rounded, far.tolist())


def _folded_currents(
    branches: Sequence[Affine],
    factors: Any,
    added: Any,
    least: int,
    most: int,
    shift: int,
    unit: Fraction,
    lost: Any,
    far: Sequence[bool],
) -> FoldedCurrents:
    zero = -(least >> shift)
    error = lost + sum((branch.error for branch in branches), Decimal())
    errors = np.broadcast_to(np.asarray(error, object), added.shape)
    return FoldedCurrents(
        tuple(factors.astype(np.int64)),
        (added + (zero << shift)).astype(np.int64),
        max(1, int(most >> shift) + zero),
        int(zero),
        shift,
        unit,
        _upwards(errors.tolist()),
        tuple(far),
    )


def _exact_unit(numbers: list[Decimal]) -> Decimal | None:
    """A number of which all are multiples, if their ratios are those of small whole numbers."""
    sizes = {abs(number) for number in numbers if number}
    unit = min(sizes, default=Decimal(1))
    common = 1
    for size in sizes:
        ratio = size / unit
        fraction = Fraction(ratio).limit_denominator(_DENOMINATORS)
        common = math.lcm(common, fraction.denominator)
        if abs(_decimal(fraction) - ratio) > _SAME or common > _DENOMINATORS:
            return None
    return unit / common


def _integers(numbers: Any) -> Any:
    """The nearest whole numbers, as Python's."""
    rounded = [int(number.to_integral_value(ROUND_HALF_EVEN)) for number in numbers.ravel().tolist()]
    return np.array(rounded, object).reshape(numbers.shape)


def _multiples(numbers: list[Decimal], fits: Callable[[list[int]], bool]) -> _Whole | None:
    """Numbers that are multiples of the smallest of them, such as counts of spikes over a number of steps."""
    worth = min((abs(number) for number in numbers if number), default=Decimal(1))
    ratios = [number / worth for number in numbers]
    integers = _rounded(ratios, 0)
    same = all(abs(ratio - n) < _SAME for ratio, n in zip(ratios, integers, strict=True))
    return _Whole(integers, worth) if same and fits(integers) else None
