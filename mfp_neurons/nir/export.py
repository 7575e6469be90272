"""From a torch model to a NIR graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from .._checks import describe, log_once
from ..deploy.errors import LoweringError
from ..deploy.lowering.axes import Axis, Dims, kinds, of_features, sizes
from ..deploy.lowering.capture import Capture, StandIn
from . import arithmetic, layers, metadata, places, pools, steps
from .draft import Draft
from .errors import NIRError
from .signals import Signal, Value, of
from .trace import Tracing, labels

RULES = (arithmetic, layers, places, pools, steps)  # importing them registers what they know


def to_nir(model: nn.Module, example: Tensor, *, dt: float = 1e-4, path: str | Path | None = None) -> Any:
    r"""A trained model as a graph of the Neuromorphic Intermediate Representation.

    Args:
        model: layers, batch norms, memory-free neurons, pools and sums; plain torch, SpikingJelly or
            snnTorch. It is left exactly as it is, and read in evaluation mode.
        example: what it is given: [T, N, \*], or [N, \*] of a model that takes single steps or repeats its
            input over time itself. Its values do not matter, except whether all of them are 0 or 1: only
            then can NIR express a max pool before the first layer.
        dt: seconds that a step takes. NIR is in continuous time: decays become time constants, lags become
        delays. path: a file to write the graph to, with ``nir.write``.

    Returns:
        ``nir.NIRGraph``. Its output is that of every step; where the model returns a mean, a sum or the last
        steps over time, ``metadata["readout"]`` says so.

    Raises:
        TypeError: model is no module, or example no tensor.
        ValueError: the example is empty or has one dimension, or dt is not positive.
        NIRError: NIR cannot say it; the message says which module, why, and what to do. No file is written.

    >>> from mfp_neurons import MFP
    >>> graph = to_nir(nn.Sequential(nn.Linear(3, 2), MFP(0.9)), torch.zeros(5, 1, 3))
    >>> {name: type(node).__name__ for name, node in graph.nodes.items()}
    {'input': 'Input', '0': 'Affine', '1_gain': 'Scale', '1_leak': 'LI', '1': 'Threshold', 'output': 'Output'}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {describe(model)}")
    _check_example(example)
    if isinstance(dt, bool) or not isinstance(dt, int | float) or not 0 < dt < float("inf"):
        raise ValueError(f"dt must be a positive number of seconds, got {dt!r}")
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    graph = _read(model, example, float(dt))
    if path is not None:
        nir.write(path, graph)
    return graph


def _check_example(example: Any) -> None:
    if not isinstance(example, Tensor):
        raise TypeError(f"example must be a torch.Tensor, got {describe(example)}")
    if example.dim() < 2 or example.numel() == 0:
        raise ValueError(f"example must be [T, N, *] or [N, *], none of them empty, got {describe(example)}")


def _read(model: nn.Module, example: Tensor, dt: float) -> Any:
    readings = [_Reading(model, example, dt, timed) for timed in (True, False) if example.dim() > 1 + timed]
    for reading in readings:
        try:
            return reading.graph()
        except (LoweringError, NIRError) as error:
            reading.error = error
    furthest = max(readings, key=lambda reading: reading.handled)
    raise NIRError(str(furthest.error)) from furthest.error


@dataclass
class _Reading:
    """One way to read the example's dimensions: [T, N, *] if ``timed``, else [N, *]."""

    model: nn.Module
    example: Tensor
    dt: float
    timed: bool
    handled: int = 0
    error: Exception | None = None

    def graph(self) -> Any:
        shape = self.example.shape
        features = tuple(shape[1 + self.timed :])
        binary = bool(((self.example == 0) | (self.example == 1)).all())
        floats = {p.dtype for p in self.model.parameters() if p.is_floating_point()}
        draft = Draft(features, binary, np.float64 if floats == {torch.float64} else np.float32)
        tracing = Tracing(draft, shape[0] if self.timed else None, self.dt)
        tracing.capture = capture = Capture(self.model, tracing)
        # a batch of 2 at least: there is no size by which one sample and one channel could be told apart
        batch = (Axis("N", max(2, shape[self.timed])),)
        time: Dims = ((Axis("T", shape[0]),),) if self.timed else ()
        dims = (*time, batch, *of_features(features))
        given = Value(of(draft.input), dims)
        try:
            out = capture.run(sizes(dims), given)
        finally:
            self.handled = capture.handled
        value = _returned(tracing, out)
        signal, facts = _finished(tracing, value)
        if draft.input_shape != features:
            facts["input_shape"] = np.array(features)
        return draft.graph(signal, metadata.of_graph(self.dt, **facts))


def _returned(low: Tracing, out: Any) -> Value:
    """What the model returns; snnTorch's models return spikes and potentials."""
    if isinstance(out, tuple | list) and out and all(isinstance(one, StandIn) for one in out):
        if len(out) > 1:
            log_once(
                "nir.outputs",
                "the model returns %d tensors; the graph's output is the first of them, its spikes",
                len(out),
            )
        out = out[0]
    if not isinstance(out, StandIn):
        low.refuse(
            f"returns {describe(out)}, not a tensor that is computed from its input. Wrap it in a module "
            "that returns the output alone"
        )
    value: Value = out.value
    return value


def _finished(low: Tracing, value: Value) -> tuple[Signal, dict[str, Any]]:
    """The signal at every step, and what the model does around it."""
    facts: dict[str, Any] = {}
    calls = low.repeats or low.steps or low.calls()
    timed = value.reduce is None and value.step is None and value.has_time()
    readout: str | None = value.reduce
    if value.step is not None and calls > 1:
        if value.step != calls - 1:
            low.refuse(f"returns step {value.step} of {calls}. Return every step, or the last")
        readout = "last"
    wanted = [{"T"}, {"N"}] if timed else [{"N"}]
    if [kinds(dim) for dim in value.dims[: len(wanted)]] != wanted or (value.last and not readout):
        low.refuse(
            f"returns {labels(value.dims)}, which is not [T, N, *] of every step, [N, *] of one, or [N, *] "
            "reduced over time (x.mean(0), x.sum(0), x[-1], x[-k:].mean(0)). Return one of these"
        )
    signal = low.features(value, len(wanted), "the output")
    if readout:
        facts["readout"] = readout
        if value.last:
            facts["readout_steps"] = value.last
        log_once(
            "nir.readout",
            "NIR has no time axis: the graph's output is that of every step, and the model's %s over them is "
            "in metadata['readout'] alone",
            readout,
        )
    if low.steps is None and calls > 1:
        facts["repeats"] = calls
    return signal, facts
