"""A layer of neurons as NIR nodes: leaky integrator or delays, and a threshold; one node where it resets.

``LI`` is tau dv/dt = v_leak - v + r I, which every reader steps by forward Euler:

    v[t] = v[t-1] + dt / tau (I[t] - v[t-1]) = d v[t-1] + (1 - d) I[t]      tau = dt / (1 - d), r = 1

so our u[t] = d u[t-1] + g x[t] is that of I = g / (1 - d) x. The factor is a ``Scale`` in front, not ``r``:
sinabs refuses another r than 1, Norse's integrator has none. It is 1, and left out, with SpikingJelly's
``decay_input``.

``LIF`` and ``IF`` are the same integrators with a threshold and a reset to a number. Where that number is not
0 (v_reset), our potential is written as it counts from it: readers start at 0, and the neuron at v_reset.
"""

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mfp_neurons import __version__

from ..history import Exponential, as_row
from ..network.axes import Shape
from ..network.description import Neurons
from .draft import Draft, Floats, Node, Signal, Term, of
from .errors import NIRError

_NEAR_ONE = 2.0**-22  # of float32 decays and gains: their rounding


@dataclass(frozen=True, eq=False)
class Numbers:
    """What a layer of neurons computes with; arrays are broadcast over the shape of a step.

    Attributes:
        decay, gain: of an infinite exponential, in float64; None of a finite kernel.
        taps: [K, *]; None of an infinite exponential.
        threshold: fires on u > threshold, which is the float below v_threshold where it fires on equality.
        facts: metadata.
    """

    decay: Floats | None
    gain: Floats | None
    taps: NDArray[Any] | None
    threshold: NDArray[Any]
    facts: dict[str, Any]


def numbers_of(layer: Neurons, dtype: Any, steps: int | None = None) -> Numbers:
    """The numbers of a layer of neurons.

    Args:
        layer: of a description.
        dtype: that of potentials, and so of thresholds and taps.
        steps: T, which the order of a neuron with a reset has to cover; None takes it for covered.

    Raises:
        NIRError: it has a kernel of its own for every step, or a reset that is none of NIR's.
    """
    kernel = layer.kernel
    if layer.reset is not None:
        _check_reset(layer, steps)
    if layer.is_fixed:
        raise NIRError(
            f"{layer.where} has a kernel of its own for every step (kernel='matrix'), and NIR has no time to "
            "look it up by. Use kernel='fir' with an order, or 'exp'."
        )

    def over_step(value: Tensor, shape: Shape | None = layer.kernel_shape) -> Floats:
        # A node of NIR holds one number for each place of a step.
        array: Floats = layer.spread(value, shape).broadcast_to(1, *layer.features)[0].double().numpy()
        return array.copy()

    decay = gain = taps = None
    if isinstance(kernel, Exponential) and (kernel.order is None or layer.reset is not None):
        decay, gain = over_step(as_row(kernel.decay)), over_step(as_row(kernel.gain))
    else:
        rows = kernel.taps(kernel.order or 1) if isinstance(kernel, Exponential) else kernel.taps  # type: ignore[union-attr]
        taps = np.stack([over_step(row.reshape(-1)).astype(dtype) for row in rows])
    rest = 0.0 if layer.reset is None else layer.reset.rest
    value = (over_step(layer.threshold, layer.threshold_shape) - rest).astype(dtype)
    # inf stays: the largest number, just below, is one that a potential may exceed
    just_below = np.nextafter(value, np.array(-np.inf, dtype))
    threshold = value if layer.strict else np.where(np.isinf(value), value, just_below)
    # The nodes do not say how the neuron was made. The importer makes it again from this, if that gives these
    # nodes.
    facts: dict[str, Any] = {"neuron": layer.neuron, "kernel": layer.options["kind"]}
    for name, option in layer.options.items():
        if name != "kind":
            facts[name] = option.numpy() if isinstance(option, Tensor) else option
    facts |= {"comparison": ">" if layer.strict else ">=", "v_threshold": _compact(value)}
    facts |= {"path": layer.name, "mfp_version": __version__}
    if layer.reset is not None:
        facts["reset"] = layer.reset.kind
    return Numbers(decay, gain, taps, threshold, facts)


def _check_reset(layer: Neurons, steps: int | None) -> None:
    kernel, reset = layer.kernel, layer.reset
    assert reset is not None
    if reset.kind == "subtract":
        raise NIRError(
            f"{layer.where} subtracts its threshold when it fires, and NIR's neurons reset to a number. Use "
            "a reset to zero (v_reset=0.0, reset_mechanism='zero' or reset='zero'), and train with that."
        )
    if reset.kind == "feedback":
        raise NIRError(
            f"{layer.where} weighs its own spikes by taps (reset='feedback'), which no node of NIR does."
        )
    if not isinstance(kernel, Exponential) or (kernel.order or steps or 0) < (steps or 0):
        raise NIRError(
            f"{layer.where} resets a sum of taps, and NIR an exponential that forgets nothing. Give it no "
            "kernel_bits and no order, or one that covers all steps of the example."
        )


def _compact(array: NDArray[Any]) -> NDArray[Any]:
    """An array over a step as [1] where it is one number, [C] where it is one a channel, else [C, *].

    >>> _compact(np.full((2, 3), 0.5)), _compact(np.array([[1.0, 1.0], [2.0, 2.0]]))
    (array([0.5]), array([1., 2.]))
    """
    flat = array.reshape(-1)
    if (flat == flat[0]).all():
        return flat[:1].copy()
    rows = array.reshape(len(array), -1)
    return rows[:, 0].copy() if (rows == rows[:, :1]).all() else array.copy()


def add_neurons(
    draft: Draft, x: Signal, layer: Neurons, dt: float, steps: int
) -> tuple[Signal, Signal | None]:
    """Puts a layer of neurons behind ``x``: its spikes, and its potential, which a node that resets hides."""
    numbers = numbers_of(layer, draft.dtype, steps)
    path, potential = layer.name or layer.neuron.lower(), None
    if layer.reset is not None:
        node = _resetting(draft, x, numbers, layer, path, dt)
    else:
        if numbers.taps is None:
            potential = _integrated(draft, x, numbers, layer, path, dt)
        else:
            potential = _delayed(draft, x, numbers.taps, path, dt)
        threshold = nir.Threshold(numbers.threshold, metadata=numbers.facts)
        node = draft.add(threshold, path, x.shape, potential, binary=True)
    if layer.spike_factor is None:
        return of(node), potential
    factor = layer.spike_factor.double().broadcast_to(1, *node.shape)[0].numpy().copy()
    return Signal((Term(node, factor),), node.shape), potential


def _resetting(draft: Draft, x: Signal, numbers: Numbers, layer: Neurons, path: str, dt: float) -> Node:
    """LIF or IF behind ``x``, whose potential starts and ends at 0."""
    x, node = _integrator(draft, x, numbers, layer, path, dt)
    zeros, facts = np.zeros_like(numbers.threshold), numbers.facts
    if isinstance(node, nir.I):
        whole = nir.IF(r=node.r, v_threshold=numbers.threshold, v_reset=zeros, metadata=facts)
    else:
        leak = {"tau": node.tau, "r": node.r, "v_leak": node.v_leak}
        whole = nir.LIF(**leak, v_threshold=numbers.threshold, v_reset=zeros, metadata=facts)
    return draft.add(whole, path, x.shape, x, binary=True)


def _integrated(draft: Draft, x: Signal, numbers: Numbers, layer: Neurons, path: str, dt: float) -> Signal:
    x, node = _integrator(draft, x, numbers, layer, path, dt)
    name = f"{path}_integrator" if isinstance(node, nir.I) else f"{path}_leak"
    return of(draft.add(node, name, x.shape, x))


def _integrator(
    draft: Draft, x: Signal, numbers: Numbers, layer: Neurons, path: str, dt: float
) -> tuple[Signal, Any]:
    """What an LI or I reads, and the node."""
    decay, gain = numbers.decay, numbers.gain
    assert decay is not None and gain is not None
    # Without a leak an LI would need an infinite time constant. NIR's I has v += dt r I, so r is gain / dt.
    if (decay == 1).all():
        return x, nir.I(gain / dt)
    if (decay == 1).any():
        raise NIRError(
            f"{layer.where} has channels that never leak (decay 1) beside others that do, which is no one "
            "node of NIR. Give them a decay below 1, or all of them 1."
        )
    factor, tau = leak(decay, gain, dt, draft.dtype)
    if factor is not None:
        x = _scaled(draft, x, factor, f"{path}_gain")
    return x, nir.LI(tau=tau, r=np.ones_like(tau), v_leak=np.zeros_like(tau))


def leak(decay: Floats, gain: Floats, dt: float, dtype: Any) -> tuple[Any, Floats]:
    """The factor in front of an integrator, None for 1, and its tau; decay below 1.

    >>> leak(np.array([0.5]), np.array([1.0]), 1e-3, np.float32)
    (array([2.], dtype=float32), array([0.002]))
    """
    # A gain of 1 - decay differs from it by rounding alone, and then needs no factor.
    factor = gain / (1 - decay)
    near = np.allclose(factor, 1, rtol=_NEAR_ONE, atol=0)
    return None if near else factor.astype(dtype), dt / (1 - decay)


def _delayed(draft: Draft, x: Signal, taps: Any, path: str, dt: float) -> Signal:
    """The taps as a shift register of what comes in, with one factor at each place that is read."""
    # A neuron without any tap still needs a node that its threshold reads: the tap of lag 0.
    lags = [lag for lag, tap in enumerate(taps) if tap.any()] or [0]
    held, at = x, 0
    terms: list[Term] = []
    for lag in lags:
        # Every delay goes on from the one before it and lasts as long as the distance between the two taps.
        if lag > at:
            delay = nir.Delay(np.full(x.shape, (lag - at) * dt))
            held, at = of(draft.add(delay, f"{path}_delay_{lag}", x.shape, held)), lag
        one = held if (taps[lag] == 1).all() else _scaled(draft, held, taps[lag], f"{path}_tap_{lag}")
        terms += one.terms
    return Signal(tuple(terms), x.shape)


def _scaled(draft: Draft, x: Signal, factor: Any, name: str) -> Signal:
    shape: Shape = x.shape
    node: Node = draft.add(nir.Scale(np.broadcast_to(factor, shape).copy()), name, shape, x)
    return of(node)
