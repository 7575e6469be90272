"""One node, or one layer of neurons, as torch modules."""

from typing import Any, NoReturn

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._checks import log_once
from ..feedback import Feedback
from ..network.neurons import read_neurons
from ..neuron import MFP, HistoryKernel
from . import weights
from .errors import NIRError
from .network import Delay, Elementwise, FixedExponential, Integrator, Scale
from .neurons import Numbers, leak, numbers_of
from .patterns import RESETTING, Neurons, delay_steps, threshold_of
from .weights import Parts

Array = NDArray[Any]
_WEIGHTS = (nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d)


class Reader:
    """Makes modules of the nodes of one graph."""

    def __init__(self, nodes: dict[str, Any], dt: float) -> None:
        self.nodes, self.dt = nodes, dt

    def modules(self, name: str) -> Parts:
        """A node by itself; a Threshold is a layer of neurons without a past."""
        node = self.nodes[name]
        if isinstance(node, _WEIGHTS):
            return weights.modules(name, node)
        if isinstance(node, nir.Threshold):
            return self.neurons(
                name, Neurons(frozenset(), [], None, None, {0: np.ones(node.threshold.shape)})
            )
        if isinstance(node, nir.LI | nir.I):
            decay, gain = self._leak(name, np.ones(node.r.shape))
            spread = _Spread(node.r.shape, [decay, gain])
            return [("", spread.module(Integrator(_exponential(spread.row(decay), spread.row(gain)))))]
        return [("", self._plain(name, node))]

    def max_pool(self, name: str) -> Parts:
        """The largest of spikes, written as a SumPool2d with a Threshold behind it."""
        node = self.nodes[name]
        return [("", nn.MaxPool2d(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding)))]

    def neurons(self, name: str, known: Neurons) -> Parts:
        """A Threshold with what belongs to it: as its metadata says, if that gives the same arrays."""
        node = self.nodes[name]
        if "kernel" in node.metadata:
            neuron = self._from_metadata(name, node, known)
            if neuron is not None:
                return [("", neuron)]
            log_once(
                f"nir.neuron.{name}",
                "%r comes back as its nodes say: what its metadata says of the neuron gives other nodes",
                name,
            )
        return [("", self._from_arrays(name, node, known))]

    def _plain(self, name: str, node: Any) -> nn.Module:
        if isinstance(node, nir.Scale):
            return Scale(_tensor(node.scale))
        if isinstance(node, nir.Delay):
            return Delay(torch.from_numpy(delay_steps(name, node, self.dt)))
        if isinstance(node, nir.Flatten):
            start, end = (int(np.asarray(n)) for n in (node.start_dim, node.end_dim))
            return nn.Flatten(start + (start >= 0), end + (end >= 0))  # one dimension more, the batch
        if isinstance(node, nir.AvgPool2d):
            return nn.AvgPool2d(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding))
        if isinstance(node, nir.SumPool2d):
            size, stride, padding = (_pair(n) for n in (node.kernel_size, node.stride, node.padding))
            # torch has no pool of sums, but an average may be divided by 1.
            return nn.AvgPool2d(size, stride, padding, divisor_override=1)
        raise NIRError(
            f"{name!r} ({type(node).__name__}) has no place in a network of memory-free neurons. Linear, "
            "Affine, Conv1d, Conv2d, Scale, Delay, Flatten, AvgPool2d, SumPool2d, LI, I, Threshold, LIF and "
            "IF have"
        )

    # --- neurons ------------------------------------------------------------------------------------------

    def _from_arrays(self, name: str, node: Any, known: Neurons) -> nn.Module:
        threshold, resets = threshold_of(node), isinstance(node, RESETTING)
        shape = threshold.shape
        if resets:
            threshold = threshold - node.v_reset  # the potential counts from there
        if known.taps is None:
            decay, gain = self._leak(str(known.leak), np.asarray(known.gain))
            spread = _Spread(shape, [decay, gain, threshold])
            kernel = _exponential(spread.row(decay), spread.row(gain))
        else:
            spread = _Spread(shape, [*known.taps.values(), threshold])
            # The largest distance that divides all lags: a kernel of this stride has no tap between those of
            # the graph.
            stride = int(np.gcd.reduce(list(known.taps))) or 1
            kernel = _free_taps(known.taps, spread, stride, None)
        return spread.module(_neuron(kernel, spread.row(threshold), strict=True, resets=resets))

    def _leak(self, name: str, factor: Array) -> tuple[Array, Array]:
        """Decay and gain, over a step, of an integrator with a factor."""
        node = self.nodes[name]
        kind = type(node).__name__
        if isinstance(node, nir.I | nir.IF):
            # v += dt r I, without a leak.
            return np.ones(node.r.shape), factor * node.r * self.dt
        rest = node.v_reset if isinstance(node, nir.LIF) else np.zeros(node.r.shape)
        if not np.array_equal(node.v_leak, rest):
            towards = "the potential that they reset to" if isinstance(node, nir.LIF) else "0"
            raise NIRError(
                f"{name!r} ({kind}) leaks towards v_leak={node.v_leak.flat[0]:g}; our potentials leak to "
                f"{towards}"
            )
        # One step of forward Euler, v += rate (r I - v), decays by 1 - rate and takes in I with the gain r
        # rate. A time constant that was rounded may give a rate just above 1.
        rate = self.dt / np.asarray(node.tau, np.float64)
        if not ((rate >= 0) & (rate <= 1 + 1e-9)).all():
            raise NIRError(
                f"{name!r} ({kind}) has a time constant of {np.min(node.tau):g} s, and a step lasts "
                f"{self.dt:g}. Pass the dt that the graph was made for"
            )
        return 1 - np.minimum(rate, 1), factor * node.r * rate

    def _from_metadata(self, name: str, node: Any, known: Neurons) -> nn.Module | None:
        """The neuron that was exported; None where it would not be exported as these nodes."""
        facts, resets = node.metadata, isinstance(node, RESETTING)
        threshold = threshold_of(node)
        shape = threshold.shape
        try:
            rows = {key: np.asarray(facts[key]) for key in ("decay", "gain", "v_threshold") if key in facts}
            full = {key: _over(row, shape) for key, row in rows.items()}
            spread = _Spread(shape, [*full.values(), *(known.taps or {}).values()])
            kernel = _kernel(facts, rows, known, spread)
            strict = str(facts["comparison"]) == ">"
            neuron = _neuron(kernel, spread.row(full["v_threshold"]), strict, resets)
            # The restored neuron is read as for an export, and its numbers are compared with the nodes.
            layer = read_neurons(neuron, spread.inner_shape, _refuse)
            numbers = numbers_of(layer, threshold.dtype)
        # Metadata may hold anything. What makes no neuron is left aside, and the nodes count.
        except (KeyError, ValueError, TypeError, RuntimeError):
            return None
        return spread.module(neuron) if self._agrees(numbers, node, known) else None

    def _agrees(self, numbers: Numbers, node: Any, known: Neurons) -> bool:
        """Whether a neuron of these numbers is exported as the nodes that are there."""
        threshold, resets = threshold_of(node), isinstance(node, RESETTING)
        shape = threshold.shape
        if not np.array_equal(numbers.threshold.reshape(shape), threshold):
            return False
        if resets and (np.any(node.v_reset) or (isinstance(node, nir.LIF) and np.any(node.v_leak))):
            return False
        if known.taps is not None:
            if numbers.taps is None:
                return False
            # An export writes no node for a tap that is 0 everywhere.
            own = {lag: tap.reshape(shape) for lag, tap in enumerate(numbers.taps) if tap.any()}
            used = {lag: tap for lag, tap in known.taps.items() if tap.any()}
            return own.keys() == used.keys() and all(np.array_equal(own[lag], used[lag]) for lag in own)
        if numbers.decay is None or numbers.gain is None:
            return False
        decay, gain = numbers.decay.reshape(shape), numbers.gain.reshape(shape)
        integrator = self.nodes[str(known.leak)]
        if isinstance(integrator, nir.I | nir.IF):
            agrees = bool((decay == 1).all()) and np.array_equal(gain / self.dt, integrator.r)
            return agrees and (not resets or bool((np.asarray(known.gain) == 1).all()))
        if (decay == 1).any() or not np.array_equal(integrator.r, np.ones(shape)):
            return False
        factor, tau = leak(decay, gain, self.dt, threshold.dtype)
        return np.array_equal(tau, integrator.tau) and np.array_equal(
            np.ones(shape) if factor is None else factor, np.asarray(known.gain)
        )


class _Spread:
    """How finely parameters differ over a step: not at all, by channel, or by place."""

    def __init__(self, shape: tuple[int, ...], arrays: list[Array]) -> None:
        self.shape = shape
        full = [np.broadcast_to(array, shape) for array in arrays]
        # Where all places of a channel agree, one number for each channel will do; else every place is a
        # channel.
        rows = [array.reshape(shape[0], -1) for array in full]
        self.by_place = any((row != row[:, :1]).any() for row in rows)
        self.inner_shape = (int(np.prod(shape)),) if self.by_place else shape

    def row(self, array: Array) -> Array:
        """A parameter as [1], [C], or with every place a channel."""
        full = np.broadcast_to(array, self.shape).reshape(self.shape[0], -1)
        row = full.reshape(-1) if self.by_place else full[:, 0]
        return row[:1] if (row == row[0]).all() else row

    def module(self, inner: nn.Module) -> nn.Module:
        return Elementwise(inner) if self.by_place else inner


def _kernel(facts: Any, rows: dict[str, Array], known: Neurons, spread: _Spread) -> HistoryKernel:
    bits = facts.get("kernel_bits")
    bits = bits if bits is None or isinstance(bits, str) else int(bits)
    stride = int(facts.get("stride", 1))
    order = int(facts["order"]) if "order" in facts else None
    if str(facts["kernel"]) == "fir":
        assert known.taps is not None
        return _free_taps(known.taps, spread, stride, bits, order)
    decay, gain = rows["decay"].reshape(-1), rows["gain"].reshape(-1)
    options: dict[str, Any] = {"order": order, "kernel_bits": bits, "stride": stride}
    # A gain that followed the decay goes on to do so, which matters when the decay is trained.
    factor: Any = "decay_input" if bool(facts.get("follows_decay", False)) else float(gain[0])
    if "decay_logit" in facts:
        logit = torch.from_numpy(np.array(facts["decay_logit"]))
        channels = len(logit) if len(logit) > 1 else None
        kernel = HistoryKernel(decay=0.5, gain=factor, learnable=True, num_channels=channels, **options)
        kernel.decay_logit.data = logit
        return kernel
    # A single pair of float64 numbers was a pair of Python's: it comes back as one, not as buffers.
    if decay.dtype == np.float64 and len(decay) == len(gain) == 1:
        return HistoryKernel(decay=float(decay[0]), gain=factor, **options)
    return FixedExponential(torch.from_numpy(decay.copy()), torch.from_numpy(gain.copy()), **options)


def _exponential(decay: Array, gain: Array) -> HistoryKernel:
    if len(decay) == len(gain) == 1:
        return HistoryKernel(decay=float(decay[0]), gain=float(gain[0]))
    return FixedExponential(_tensor(decay), _tensor(gain))


def _free_taps(
    taps: dict[int, Array], spread: _Spread, stride: int, bits: Any, order: int | None = None
) -> HistoryKernel:
    # Where no metadata tells the order, the last tap does.
    count = max(taps) // stride + 1 if order is None else order
    if any(lag % stride or lag // stride >= count for lag in taps):
        raise ValueError(f"taps at {sorted(taps)} are not {count} taps {stride} steps apart")
    rows = {lag: spread.row(tap) for lag, tap in taps.items()}
    width = max(len(row) for row in rows.values())
    kernel = HistoryKernel(
        "fir",
        decay=0.5,
        order=count,
        stride=stride,
        num_channels=width if width > 1 else None,
        kernel_bits=bits,
    )
    values = np.zeros((count, width))
    for lag, row in rows.items():
        values[lag // stride] = row
    with torch.no_grad():
        kernel.taps.copy_(torch.from_numpy(values).reshape(kernel.taps.shape))
    return kernel


def _neuron(kernel: HistoryKernel, threshold: Array, strict: bool, resets: bool) -> MFP:
    neuron = MFP(strict=strict)
    neuron.kernel = kernel
    neuron.feedback = Feedback("zero" if resets else None, kernel)
    neuron.v_threshold = float(threshold[0]) if len(threshold) == 1 else nn.Parameter(_tensor(threshold))
    return neuron


def _over(row: Array, shape: tuple[int, ...]) -> Array:
    """[1], one value a channel, or one a place, over a step."""
    if row.size in (1, int(np.prod(shape))):
        return np.broadcast_to(row.reshape(() if row.size == 1 else shape), shape)
    return np.broadcast_to(row.reshape(-1, *[1] * (len(shape) - 1)), shape)


def _pair(option: Any) -> tuple[int, int]:
    row = [int(n) for n in np.asarray(option).reshape(-1)]
    return (row[0], row[-1])


def _tensor(array: Array) -> Tensor:
    tensor = torch.from_numpy(np.array(array))
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)
