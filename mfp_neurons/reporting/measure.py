"""``report``: runs a model once under watch, and makes a report of what was counted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from .._checks import check_module
from .._undisturbed import undisturbed
from . import synapses
from .operations import OperationCount
from .prices import REAL
from .record import NeuronRow, Report, SynapseRow
from .state import StateCount
from .trace import Trace
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
    >>> costs = report(net, spikes)
    >>> costs.synaptic_operations, costs.macs               # 3 spikes through 4 synapses each
    (12.0, 0.0)
    >>> costs.state_bits                                    # one past spike of 3 inputs: T is below the order
    3
    """
    check_module("model", model)
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(f"{lazy[0]!r} is lazy and has seen no input; run the model once, then report")
    args = example if isinstance(example, tuple) else (example,)
    trace = Trace()
    watch = Watch(model, trace)
    for tensor in tree_iter(args):
        if isinstance(tensor, Tensor):
            # The input is a source like a layer, so that what is computed from it alone can be told.
            trace.mark(tensor, "input")
    with undisturbed(model):
        # a compiled part runs uncompiled: hooks do not fire in compiled code
        with watch.hooked(), torch.no_grad(), torch.compiler.set_stance("force_eager"), trace:
            if run is None:
                model(*args)
            else:
                run(model, example)
        return _total(model, watch, trace.peak_bytes, args)


def _total(model: nn.Module, watch: Watch, peak_bytes: int, args: tuple[Any, ...]) -> Report:
    """The rows of all layers, and what is of the whole model."""
    layers = list(watch.neurons.values())
    steps = max((neuron.steps for neuron in layers), default=1)
    first = next((t for t in tree_iter(args) if isinstance(t, Tensor) and t.dim()), None)
    batch = layers[0].batch if layers else 1 if first is None else len(first)
    state = StateCount(watch, steps, batch)
    counted = OperationCount(watch, state, batch)
    neurons = sum(neuron.features for neuron in layers)
    # Layers differ in size, so the mean is over neurons, not over layers.
    bits = sum(neuron.features * state.bits_a_neuron(neuron) for neuron in layers)
    normed = _normed(watch)
    packed, stored = synapses.weight_bytes(model, normed)
    return Report(
        steps=steps,
        batch=batch,
        weight_bytes=packed,
        weight_bytes_stored=stored,
        state_bits_per_neuron=bits / neurons if neurons else 0.0,
        peak_activation_bytes=peak_bytes,
        synapses=[_synapse_row(s, s.module in normed, counted) for s in watch.synapses.values()],
        neurons=[_neuron_row(neuron, state, counted) for neuron in layers],
        state=state.rows,
        not_counted=dict(watch.not_counted),
    )


def _normed(watch: Watch) -> set[nn.Module]:
    """The layers of synapses whose output is all that a batch norm of fixed averages gets."""
    alone = {
        name
        for norm, sources in watch.norms.items()
        for name in sources
        if len(sources) == 1 and norm.running_var is not None
    }
    return {synapse.module for name, synapse in watch.synapses.items() if name in alone}


def _synapse_row(synapse: Synapse, normed: bool, counted: OperationCount) -> SynapseRow:
    bits, packed, stored = synapses.packed_weight_bytes(synapse.module, normed)
    spikes_in = synapse.values.signed
    at_once, stream = counted.synapses[synapse.name], counted.streaming_synapses[synapse.name]
    return SynapseRow(
        name=synapse.name,
        kind=type(synapse.module).__name__,
        weights=synapse.module.weight.numel(),
        bits=bits,
        packed_bytes=packed,
        stored_bytes=stored,
        spikes_in=spikes_in,
        input_bits=synapse.values.bits if synapse.input_bits == REAL else int(synapse.input_bits),
        synaptic_operations=at_once.operations if spikes_in else 0.0,
        streaming_synaptic_operations=stream.operations if spikes_in else 0.0,
        macs=0.0 if spikes_in else at_once.operations,
        streaming_macs=0.0 if spikes_in else stream.operations,
        joules=at_once.joules,
        streaming_joules=stream.joules,
    )


def _neuron_row(neuron: Neuron, state: StateCount, counted: OperationCount) -> NeuronRow:
    spikes = None if neuron.spikes is None else neuron.spikes / max(neuron.steps * neuron.batch, 1)
    at_once, stream = counted.neurons[neuron.name], counted.streaming_neurons[neuron.name]
    return NeuronRow(
        name=neuron.name,
        kind=type(neuron.module).__name__,
        neurons=neuron.features,
        steps=neuron.steps,
        state_bits_per_neuron=state.bits_a_neuron(neuron),
        torch_state_bytes=state.torch_bytes(neuron),
        spikes_per_step=spikes,
        firing_rate=None if spikes is None else spikes / max(neuron.features, 1),
        never_fires=neuron.spec.never_fires,
        feedback_bits=state.own_spikes_beside(neuron),
        feedback_additions=state.feedback_additions(neuron),
        neuron_operations=at_once.operations,
        streaming_neuron_operations=stream.operations,
        joules=at_once.joules,
        streaming_joules=stream.joules,
    )
