"""A layer of memory-free neurons as NIR nodes: leaky integrator or delays, and a threshold.

``LI`` is tau dv/dt = v_leak - v + r I, which every reader steps by forward Euler:

    v[t] = v[t-1] + dt / tau (I[t] - v[t-1]) = d v[t-1] + (1 - d) I[t]      tau = dt / (1 - d), r = 1

so our u[t] = d u[t-1] + g x[t] is that of I = g / (1 - d) x. The factor is a ``Scale`` in front, not ``r``:
sinabs refuses another r than 1, Norse's integrator has none. It is 1, and left out, with SpikingJelly's
``decay_input``.
"""

from typing import Any

import nir
import numpy as np

from .draft import Draft
from .kernels import Numbers, Refuse
from .signals import Floats, Node, Shape, Signal, Term, of

_NEAR_ONE = 2.0**-22  # of float32 decays and gains: their rounding


def add_neurons(
    draft: Draft, x: Signal, numbers: Numbers, path: str, dt: float, refuse: Refuse
) -> tuple[Node, Signal]:
    """Puts a layer of neurons behind ``x``: its spikes, and its potential."""
    if numbers.taps is None:
        assert numbers.decay is not None and numbers.gain is not None
        potential = _integrated(draft, x, numbers.decay, numbers.gain, path, dt, refuse)
    else:
        potential = _delayed(draft, x, numbers.taps, path, dt)
    threshold = nir.Threshold(numbers.threshold, metadata=numbers.facts)
    return draft.add(threshold, path, x.shape, potential, binary=True), potential


def _integrated(
    draft: Draft, x: Signal, decay: Floats, gain: Floats, path: str, dt: float, refuse: Refuse
) -> Signal:
    if (decay == 1).all():
        return of(draft.add(nir.I(gain / dt), f"{path}_integrator", x.shape, x))
    if (decay == 1).any():
        refuse(
            "has channels that never leak (decay 1) beside others that do, which is no one node of NIR. Give "
            "them a decay below 1, or all of them 1"
        )
    factor, tau = leak(decay, gain, dt, draft.dtype)
    if factor is not None:
        x = _scaled(draft, x, factor, f"{path}_gain")
    node = nir.LI(tau=tau, r=np.ones_like(tau), v_leak=np.zeros_like(tau))
    return of(draft.add(node, f"{path}_leak", x.shape, x))


def leak(decay: Floats, gain: Floats, dt: float, dtype: Any) -> tuple[Any, Floats]:
    """The factor in front of an integrator, None for 1, and its tau; decay below 1.

    >>> leak(np.array([0.5]), np.array([1.0]), 1e-3, np.float32)
    (array([2.], dtype=float32), array([0.002]))
    """
    factor = gain / (1 - decay)
    near = np.allclose(factor, 1, rtol=_NEAR_ONE, atol=0)
    return None if near else factor.astype(dtype), dt / (1 - decay)


def _delayed(draft: Draft, x: Signal, taps: Any, path: str, dt: float) -> Signal:
    """The taps as a shift register of what comes in, with one factor at each place that is read."""
    lags = [lag for lag, tap in enumerate(taps) if tap.any()] or [0]
    held, at = x, 0
    read: Signal | None = None
    for lag in lags:
        if lag > at:
            delay = nir.Delay(np.full(x.shape, (lag - at) * dt))
            held, at = of(draft.add(delay, f"{path}_delay_{lag}", x.shape, held)), lag
        one = held if (taps[lag] == 1).all() else _scaled(draft, held, taps[lag], f"{path}_tap_{lag}")
        read = one if read is None else Signal((*read.terms, *one.terms), x.shape)
    assert read is not None
    return read


def _scaled(draft: Draft, x: Signal, factor: Any, name: str) -> Signal:
    shape: Shape = x.shape
    return Signal((Term(draft.add(nir.Scale(np.broadcast_to(factor, shape).copy()), name, shape, x)),), shape)
