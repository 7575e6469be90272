"""NeuroBench for memory-free networks: a wrapper that corrects its numbers, and packed footprints."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_module, describe, require
from ._undisturbed import reset
from .adapters import is_neuron
from .quantize import materialize
from .reporting import report
from .reporting.synapses import weight_bytes

require("neurobench", extra="neurobench")
from neurobench import benchmarks, models  # noqa: E402
from neurobench.metrics.abstract import AccumulatedMetric, StaticMetric  # noqa: E402

__all__ = ["Benchmark", "MFPModel", "MetricError", "PackedFootprint", "StateFootprint"]


class MetricError(RuntimeError):
    """A metric failed, for which NeuroBench would have reported 0.0 or None."""


class MFPModel(models.NeuroBenchModel):  # type: ignore[misc]
    """A network over whole sequences as NeuroBench wants it: batch first, states reset before every batch.

    NeuroBench reads the ``weight`` of each layer, so it gets a copy with plain layers that hold the quantized
    values (:func:`~mfp_neurons.quantize.materialize`). Its own ``Footprint`` is therefore that of float
    weights; :class:`PackedFootprint` is that of the quantized ones.

    Args:
        net: Takes and gives time-first tensors, ``[T, N, *]``. Layers of PyTorch, SpikingJelly (multi-step)
            and snnTorch, and the neurons of all three and of this package.
        run: How to run it, where that is not ``net(x_seq)``, for instance step by step:
            ``lambda net, x_seq: torch.stack([net(x)[0] for x in x_seq])``.
        gives_time: Whether the output is ``[T, N, *]``; False for scores ``[N, *]`` of the whole sequence.

    Raises:
        TypeError: ``net`` is not a module; or, when called, its output is not a tensor.
        ValueError: When called: data without time, or an output without the batch where it has to be.

    Calling it takes ``[N, T, *]`` and gives ``[N, T, *]``, or the scores ``[N, *]``.
    """

    def __init__(
        self,
        net: nn.Module,
        run: Callable[[nn.Module, Tensor], Tensor] | None = None,
        *,
        gives_time: bool = True,
    ) -> None:
        check_module("net", net)
        super().__init__()
        self.source = net
        self.net = materialize(net).eval()
        self.run = run
        self.gives_time = gives_time
        self.example: Tensor | None = None  # one sample of the last batch, [T, 1, *]
        for kind in {type(module) for module in self.net.modules() if is_neuron(module)}:
            self.add_activation_module(kind)

    def __call__(self, batch: Tensor) -> Tensor:
        if batch.dim() < 2:
            raise ValueError(f"data must be [N, T, *], got {describe(batch)}")
        x_seq = batch.transpose(0, 1)
        self.example = x_seq[:, :1]
        for module in self.net.modules():
            reset(module)
        with torch.no_grad():
            out = self.net(x_seq) if self.run is None else self.run(self.net, x_seq)
        if not isinstance(out, Tensor):
            raise TypeError(f"the network must give a tensor, got {describe(out)}; pick one in run=")
        expected = "[T, N, *]" if self.gives_time else "[N, *]"
        if out.dim() < 1 + self.gives_time or out.shape[int(self.gives_time)] != x_seq.shape[1]:
            raise ValueError(
                f"with gives_time={self.gives_time} the network must give {expected}, N = {x_seq.shape[1]}, "
                f"got {describe(out)}"
            )
        return out.transpose(0, 1) if self.gives_time else out

    def __net__(self) -> nn.Module:
        return self.net


class PackedFootprint(StaticMetric):  # type: ignore[misc]
    """Bytes of the model with its quantized weights packed and its batch norms folded.

    Needs an :class:`MFPModel`. What ``weight_bytes`` of ``report`` counts; but NeuroBench asks before any
    run, which would tell what stands in front of a batch norm, so that its scales and bias count as well.
    """

    def __call__(self, model: Any) -> int:
        return weight_bytes(_ours(model, self).source)[0]


class StateFootprint(AccumulatedMetric):  # type: ignore[misc]
    """Bytes that a device which works step by step keeps between two steps, for one sample.

    Needs an :class:`MFPModel`. What ``state_bits`` of ``report`` counts, by 8: the past spikes that
    memory-free neurons look back at, the potentials of others.
    """

    def __init__(self) -> None:
        super().__init__(requires_hooks=False)
        self.reset()

    def reset(self) -> None:
        self._bytes: float | None = None

    def __call__(self, model: Any, preds: Tensor, data: Any) -> float:
        if self._bytes is None:  # the same for every sample
            ours = _ours(model, self)
            assert ours.example is not None, "a metric is called after the model"
            tensor = next(ours.source.parameters(), ours.example)
            # the original, not the copy: that one's hooks count
            costs = report(ours.source, ours.example.to(tensor.device), run=ours.run)
            self._bytes = costs.state_bits / 8
        return self._bytes

    def compute(self) -> float:
        return self._bytes or 0.0


class Benchmark(benchmarks.Benchmark):  # type: ignore[misc]
    """NeuroBench's ``Benchmark``, where a metric that fails is an error.

    NeuroBench prints the error and reports 0.0 (a workload metric) or None (a static one); under
    ``quiet=True`` it prints nothing. ``NeuronOperations`` is one that fails for every neuron whose
    class it does not know by name, all of this package's among them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failed: list[tuple[str, Exception]] = []
        for manager in (self.static_metric_manager, self.workload_metric_manager):
            for name, metric in manager.metrics.items():
                _watch(name, metric, self._failed)

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As NeuroBench's.

        Raises:
            MetricError: A metric failed; the first failure is the cause.
        """
        self._failed.clear()
        results: dict[str, Any] = super().run(*args, **kwargs)
        if self._failed:
            names = ", ".join(dict.fromkeys(name for name, _ in self._failed))
            first = self._failed[0][1]
            raise MetricError(f"failed: {names}. {type(first).__name__}: {first}") from first
        return results


def _watch(name: str, metric: Any, failed: list[tuple[str, Exception]]) -> None:
    """Remembers what ``metric`` raises; calls go to the class, so it gets a class of its own."""

    def call(self: Any, *args: Any) -> Any:
        try:
            return kind.__call__(self, *args)
        except Exception as error:
            failed.append((name, error))
            raise

    kind = type(metric)
    metric.__class__ = type(kind.__name__, (kind,), {"__call__": call})


def _ours(model: Any, metric: object) -> MFPModel:
    if not isinstance(model, MFPModel):
        raise TypeError(f"{type(metric).__name__} needs an MFPModel, got {describe(model)}")
    return model
