"""Runs a model once, watched, and puts the report together."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from .._checks import describe
from ..baseline import QuantizedMembraneLIF
from . import neurons, synapses
from .record import NeuronRow, Report, SynapseRow
from .state import StateCount
from .trace import Trace
from .undisturbed import undisturbed
from .watch import Neuron, Synapse, Watch


def report(
    model: nn.Module, example: Any, *, run: Callable[[nn.Module, Any], object] | None = None
) -> Report:
    """Memory, operations and estimated energy of ``model`` on ``example``, measured in one run.

    The run is without gradients, in eval mode and from reset states; the model, its states and torch's random
    generators are left exactly as they were. Neurons of this package, of SpikingJelly and of snnTorch are
    known; what is not, is listed.

    Args:
        model: PyTorch, SpikingJelly or snnTorch model.
        example: Its input: a tensor, or a tuple of the arguments that its forward takes.
        run: How to run it, where that is not ``model(*example)``: for a model that takes one step a call,
            ``run=lambda model, x_seq: [model(x) for x in x_seq]``.

    Returns:
        :class:`Report`.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: The model has lazy layers that have not seen an input yet.

    >>> from mfp_neurons import MFP
    >>> net = nn.Sequential(nn.Linear(3, 4, bias=False), MFP(decay=0.5, order=3))
    >>> spikes = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]).reshape(2, 1, 3)      # T = 2, N = 1
    >>> found = report(net, spikes)
    >>> found.synaptic_operations, found.macs               # 3 spikes through 4 synapses each
    (12.0, 0.0)
    >>> found.state_bits                                    # one past spike of 3 inputs: T is below the order
    3
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {describe(model)}")
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(f"{lazy[0]!r} is lazy and has seen no input; run the model once, then report")
    args = example if isinstance(example, tuple) else (example,)
    trace = Trace()
    watch = Watch(model, trace)
    for tensor in tree_iter(args):
        if isinstance(tensor, Tensor):
            trace.mark(tensor, "input")
    with undisturbed(model):
        # a compiled part runs uncompiled: hooks do not fire in compiled code
        with watch.hooked(), torch.no_grad(), torch.compiler.set_stance("force_eager"), trace:
            if run is None:
                model(*args)
            else:
                run(model, example)
        return _summed_up(model, watch, trace.peak_bytes, args)


def _summed_up(model: nn.Module, watch: Watch, peak_bytes: int, args: tuple[Any, ...]) -> Report:
    seen = list(watch.neurons.values())
    steps = max((neuron.steps for neuron in seen), default=1)
    first = next((t for t in tree_iter(args) if isinstance(t, Tensor) and t.dim()), None)
    batch = seen[0].batch if seen else 1 if first is None else len(first)
    state = StateCount(watch, steps, batch)
    total = sum(neuron.features for neuron in seen)
    charged = sum(neuron.features * state.bits_a_neuron(neuron) for neuron in seen)
    packed, stored = synapses.weight_bytes(model)
    return Report(
        steps=steps,
        batch=batch,
        weight_bytes=packed,
        weight_bytes_stored=stored,
        state_bits_per_neuron=charged / total if total else 0.0,
        peak_activation_bytes=peak_bytes,
        synapses=[_synapse_row(synapse, watch, state, batch) for synapse in watch.synapses.values()],
        neurons=[_neuron_row(neuron, state) for neuron in seen],
        state=state.rows,
        not_counted=dict(watch.not_counted),
    )


def _synapse_row(synapse: Synapse, watch: Watch, state: StateCount, batch: int) -> SynapseRow:
    bits, packed, stored = synapses.packed_weight_bytes(synapse.module)
    reached = torch.cat(synapse.reached)
    spikes_in = synapse.values.signed
    readers = [
        neuron
        for neuron in watch.neurons.values()
        if synapse.name in neuron.sources and neurons.is_memory_free(neuron.module)
    ]
    lags = set().union({0}, *(state.lags(neuron) for neuron in readers))
    samples = max(batch, 1)
    return SynapseRow(
        name=synapse.name,
        kind=type(synapse.module).__name__,
        weights=synapse.module.weight.numel(),  # type: ignore[union-attr, operator]
        bits=bits,
        packed_bytes=packed,
        stored_bytes=stored,
        spikes_in=spikes_in,
        synaptic_operations=float(reached.sum()) / samples if spikes_in else 0.0,
        streaming_synaptic_operations=_repeated(reached, state.steps_of(synapse) or 1, lags) / samples
        if spikes_in
        else 0.0,
        macs=0.0 if spikes_in else synapse.products / samples,
    )


def _repeated(reached: Tensor, steps: int, lags: set[int]) -> float:
    """Operations if a spike goes through its synapses again ``lags`` steps after it; time-major rows."""
    a_step = reached.reshape(steps, -1).sum(1)
    times = torch.tensor([sum(lag < steps - t for lag in lags) for t in range(steps)])
    return float((a_step * times.to(a_step)).sum())


def _neuron_row(neuron: Neuron, state: StateCount) -> NeuronRow:
    a_step = None if neuron.spikes is None else neuron.spikes / max(neuron.steps * neuron.batch, 1)
    return NeuronRow(
        name=neuron.name,
        kind=type(neuron.module).__name__,
        neurons=neuron.features,
        steps=neuron.steps,
        state_bits_per_neuron=state.bits_a_neuron(neuron),
        torch_state_bytes=_torch_state_bytes(neuron, state),
        spikes_per_step=a_step,
        firing_rate=None if a_step is None else a_step / max(neuron.features, 1),
        never_fires=neurons.never_fires(neuron.module),
    )


def _torch_state_bytes(neuron: Neuron, state: StateCount) -> int:
    """What the module holds after the run; for the stateless ones, what running them step by step would."""
    held = neurons.kept_tensors(neuron.module)
    if held:
        return sum(t.numel() * t.element_size() for _, t in held) // max(neuron.batch, 1)
    if isinstance(neuron.module, QuantizedMembraneLIF):
        return neuron.features * 4
    if not neurons.is_memory_free(neuron.module):
        return 0
    declared = neuron.module.kernel.state_steps  # type: ignore[union-attr]
    width = neuron.values.bits // 8
    return neuron.features * (max(width, 4) if declared is None else state.history(neuron) * width)
