"""Which nodes of a graph are one layer of neurons: all that stands between its synapses and its Threshold.

What a Threshold fires on is linear in what comes in, so for every node that feeds it there is a response: an
exponential (one LI or I, with factors), or taps (delays and factors). Where the response is the same for all
that feed it, the layer is one of memory-free neurons over their sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from .errors import NIRError

Array = NDArray[Any]
RESETTING = (nir.LIF, nir.IF)
_FILTERS = (nir.LI, nir.I, nir.Scale, nir.Delay)
_SPIKES = (nir.Threshold, *RESETTING)


def threshold_of(node: Any) -> Array:
    """The threshold of a Threshold, LIF or IF."""
    array: Array = node.v_threshold if isinstance(node, RESETTING) else node.threshold
    return array


@dataclass(frozen=True, eq=False)
class Path:
    """One way from a node to a Threshold."""

    lag: int
    factor: Array
    leak: str | None


@dataclass(frozen=True, eq=False)
class Neurons:
    """A Threshold and the nodes in front of it, or a LIF or IF with a factor in front of it.

    Attributes:
        inside: the names of the nodes in front of it that belong to it.
        sources: what feeds the layer, in the order of the edges.
        leak: the name of its LI or I, or that of the LIF or IF; None with taps.
        gain: of an exponential: what stands in front of and behind the integrator.
        taps: by lag; None with an integrator.
    """

    inside: frozenset[str]
    sources: list[str]
    leak: str | None
    gain: Array | None
    taps: dict[int, Array] | None


def find_neurons(nodes: dict[str, Any], sources: dict[str, list[str]], dt: float) -> dict[str, Neurons]:
    """The layers of neurons, by the name of their Threshold, LIF or IF. Other Thresholds have no past."""
    targets: dict[str, list[str]] = {name: [] for name in nodes}
    for target, inputs in sources.items():
        for one in inputs:
            targets[one].append(target)
    layers = {}
    for name, node in nodes.items():
        if isinstance(node, nir.Threshold):
            layer = _layer(name, nodes, sources, targets, dt)
            if layer is not None:
                layers[name] = layer
        elif isinstance(node, RESETTING):
            layer = _layer(name, nodes, sources, targets, dt)
            # It integrates itself; what may stand before it and belong to it is a factor.
            if layer is not None and layer.taps is not None and set(layer.taps) == {0}:
                layers[name] = Neurons(layer.inside, layer.sources, name, layer.taps[0], None)
            else:
                ones = np.ones(node.v_threshold.shape)
                layers[name] = Neurons(frozenset(), sources[name], name, ones, None)
    return layers


def find_max_pools(nodes: dict[str, Any], sources: dict[str, list[str]]) -> dict[str, str]:
    """The SumPool2d in front of each Threshold that together are a max pool over spikes."""
    pools = {}
    for name, node in nodes.items():
        marked = isinstance(node, nir.Threshold) and node.metadata.get("operation") == "max"
        if not marked or len(sources[name]) != 1 or (node.threshold != 0.5).any():
            continue
        (pool,) = sources[name]
        # A sum that something else reads as well has to stay a node of its own.
        readers = [target for target, inputs in sources.items() if pool in inputs]
        spikes = [isinstance(nodes[one], _SPIKES) for one in sources[pool]]
        if isinstance(nodes[pool], nir.SumPool2d) and readers == [name] and spikes == [True]:
            pools[name] = pool
    return pools


def _layer(
    name: str, nodes: dict[str, Any], sources: dict[str, list[str]], targets: dict[str, list[str]], dt: float
) -> Neurons | None:
    filters = _in_front(name, nodes, sources)
    # A Scale in front may belong to the neuron, or be a factor of the network on one of several currents.
    for inside in (filters, _without_currents(filters, nodes, sources, targets)):
        layer = _layer_of(name, frozenset(inside), nodes, sources, targets, dt)
        if layer is not None:
            return layer
    return None


def _layer_of(
    name: str,
    inside: frozenset[str],
    nodes: dict[str, Any],
    sources: dict[str, list[str]],
    targets: dict[str, list[str]],
    dt: float,
) -> Neurons | None:
    if any(not set(targets[one]) <= inside | {name} for one in inside):
        return None  # something else reads the potential, or a delayed current
    ends = _feeding(name, sources, inside)
    responses = [list(_paths(end, name, nodes, targets, inside, dt)) for end in ends]
    if not responses:
        return None
    first, *others = (_response(paths, threshold_of(nodes[name]).shape) for paths in responses)
    # One layer of neurons weighs the sum of its inputs, so all of them must have the same response.
    if first is None or any(other is None or not _equal(first, other) for other in others):
        return None
    leak, gain, taps = first
    return Neurons(inside, ends, leak, gain, taps)


def _in_front(name: str, nodes: dict[str, Any], sources: dict[str, list[str]]) -> set[str]:
    inside: set[str] = set()
    left = list(sources[name])
    while left:
        one = left.pop()
        if isinstance(nodes[one], _FILTERS) and one not in inside:
            inside.add(one)
            left += sources[one]
    return inside


def _without_currents(
    inside: set[str], nodes: dict[str, Any], sources: dict[str, list[str]], targets: dict[str, list[str]]
) -> set[str]:
    """Without factors on one of several currents: they go where another current goes, too."""
    ends = {end for one in inside for end in sources[one] if end not in inside}
    ends |= {one for one in inside if isinstance(nodes[one], nir.Scale) and not set(sources[one]) & inside}
    # Currents that go to the same nodes are summands of one input, so a factor on one of them is the
    # network's.
    reached = {end: frozenset(targets[end]) for end in ends}
    places = list(reached.values())
    return {one for one in inside if places.count(reached.get(one, frozenset())) < 2}


def _feeding(name: str, sources: dict[str, list[str]], inside: frozenset[str]) -> list[str]:
    """What feeds the layer, each once, in the order of the edges of the node that reads the most of it."""
    readers = [[s for s in sources[one] if s not in inside] for one in (name, *sorted(inside))]
    return list(dict.fromkeys(s for names in sorted(readers, key=len, reverse=True) for s in names))


def _paths(
    start: str,
    end: str,
    nodes: dict[str, Any],
    targets: dict[str, list[str]],
    inside: frozenset[str],
    dt: float,
) -> Iterator[Path | None]:
    # Every tap is a way of its own from the input to the threshold.
    left: list[tuple[str, int, Array, str | None]] = [(start, 0, np.ones(1), None)]
    while left:
        at, lag, factor, leak = left.pop()
        for target in targets[at]:
            if target == end:
                yield Path(lag, factor, leak)
            elif target in inside:
                node = nodes[target]
                if isinstance(node, nir.Scale):
                    left.append((target, lag, factor * node.scale, leak))
                elif isinstance(node, nir.Delay):
                    steps = delay_steps(target, node, dt)
                    # The lag of a tap is one number for all neurons, and a delay behind an integrator is no
                    # tap.
                    if steps.min() != steps.max() or leak is not None:
                        yield None
                    else:
                        left.append((target, lag + int(steps.flat[0]), factor, leak))
                # A second integrator, or one behind a delay, makes a response that is neither an exponential
                # nor taps.
                elif leak is not None or lag:
                    yield None
                else:
                    left.append((target, lag, factor, target))


def _response(paths: list[Path | None], shape: tuple[int, ...]) -> Any:
    """(leak, gain, taps) of all ways together; None where it is neither an exponential nor taps."""
    if any(path is None for path in paths):
        return None
    known = [path for path in paths if path is not None]
    leaks = {path.leak for path in known}
    if leaks == {None}:
        taps: dict[int, Array] = {}
        for path in known:
            factor = np.broadcast_to(path.factor, shape)
            taps[path.lag] = taps[path.lag] + factor if path.lag in taps else factor
        return None, None, dict(sorted(taps.items()))
    # Several ways through an integrator would add up to more than one exponential.
    if len(known) > 1:
        return None
    return known[0].leak, np.broadcast_to(known[0].factor, shape), None


def _equal(a: Any, b: Any) -> bool:
    if a[0] != b[0] or (a[2] is None) != (b[2] is None):
        return False
    if a[2] is None:
        return bool(np.array_equal(a[1], b[1]))
    return a[2].keys() == b[2].keys() and all(np.array_equal(a[2][lag], b[2][lag]) for lag in a[2])


def delay_steps(name: str, node: Any, dt: float) -> NDArray[np.int64]:
    """A Delay in steps."""
    exact = np.asarray(node.delay, np.float64) / dt
    # Delays are in seconds, and rounding may have moved them a little from a whole number of steps.
    steps = np.rint(exact).astype(np.int64)
    if (np.abs(exact - steps) > 1e-3).any() or (steps < 0).any():
        raise NIRError(
            f"{name!r} (Delay) lasts {exact.max():g} steps of dt={dt:g} s, which is no whole number of them. "
            "Pass the dt that the graph was made for"
        )
    return steps
