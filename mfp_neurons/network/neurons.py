"""Reads a layer of neurons, and notices what its module keeps between calls.

A neuron that would go on from its state in its next call gets stand-ins for it, in the place where the state
itself would be. So a second call notices the first, a reset in between undoes it, and a forward that reads
``node.v`` or ``mem`` reads a potential, not the number that a reset left there.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .._convert import advice
from ..adapters import describe_neuron, overridden_forward, put_state
from ..history import FIR, Exponential, Kernel, Matrix, as_row
from ..spec import KernelParameters, NeuronSpec, ResetSpec
from .advice import LOOPS
from .axes import Axis, Shape, has_time, kinds, labels, sizes
from .capture import StandIn
from .description import Layer, NeuronReset, Neurons, Potential, Recurrent, snapshot
from .recurrent import own_way_back
from .tracing import Tracer, Value


def fire(
    tracer: Tracer, module: nn.Module, *args: Any, recurrent: Recurrent | None = None, **kwargs: Any
) -> Any:
    """A call of a layer of neurons; ``recurrent`` is how a container around it feeds its spikes back."""
    spec = _spec_of(tracer, module)
    # snnTorch's recurrent neurons take their spikes in front of their potential, or each by its name
    spikes = kwargs.pop("spk", None)
    x, *states = (*args, *kwargs.values())
    if spec.recurrent is not None and len(args) > 1:
        spikes = states.pop(0)
    value, state = tracer.value(x, "the input of a neuron"), states[0] if states else None
    if value.is_reduced:
        tracer.refuse("reads what was already reduced over time. Reduce over time behind the last neuron")
    if spec.takes_sequences:
        value = _whole_sequence(tracer, module, spec, value, state)
    else:
        value = _next_step(tracer, module, spec, value)
    if spec.recurrent is not None:
        _check_spikes(tracer, module, spikes)
        value, recurrent = own_way_back(tracer, spec.recurrent, value)
    lead = 2 if spec.takes_sequences else 1  # [T, N, *] or [N, *]
    value, number, potential = _layers(tracer, module, spec, value, lead, recurrent)
    if spec.continues and not spec.takes_sequences:
        _check_state(tracer, module, spec, state, value)
        # The next call of this neuron has to read the same layer and go on from this potential.
        tracer.calls.setdefault(module, []).append((value.number, potential))
    # Spikes come in the dtype of the input, potentials in that of the model.
    fired = tracer.stand_in(replace(value, layer=number), x.dtype)
    every = replace(value, layer=potential)
    returned = tracer.stand_in(every)
    last = returned
    if spec.takes_sequences:
        last_step = sizes(every.dims)[0] - 1
        last = tracer.stand_in(tracer.at_step(every, every.dims[1:], last_step))
    _keep(tracer, module, spec, last, returned)
    return (fired, returned) if spec.returns_potential else fired


def fire_all_steps(tracer: Tracer, module: nn.Module, x: StandIn, recurrent: Recurrent | None) -> StandIn:
    """All calls of a layer of neurons that a container makes, one for each step of [T, N, *]."""
    spec = _spec_of(tracer, module)
    value = tracer.value(x, "the input of a neuron")
    if value.is_reduced or [kinds(dim) for dim in value.dims[:2]] != [{"T"}, {"N"}]:
        tracer.refuse(f"reads {labels(value.dims)}. In step mode 'm' it takes whole sequences [T, N, *]")
    if module in tracer.calls:
        tracer.refuse("is called twice in one forward. Use a recurrent layer of its own for each call")
    value, number, potential = _layers(tracer, module, spec, value, 2, recurrent)
    tracer.calls[module] = [(value.number, potential)]
    return tracer.stand_in(replace(value, layer=number), x.dtype)


def _spec_of(tracer: Tracer, module: nn.Module) -> NeuronSpec:
    """What the neurons are; those that no layer says are refused."""
    if changed := overridden_forward(module):
        tracer.refuse(
            f"computes in its own way ({changed}), which is not read. Use the neuron "
            "as it is, and put what it does besides into a module around it"
        )
    spec = describe_neuron(module)
    assert spec is not None
    if spec.kernel is None:
        why = "keeps a membrane potential that no sum over its inputs and its own spikes gives"
        tracer.give_up(type(module).__name__, why, advice(module), keeps_potential=True)
    return spec


def _layers(
    tracer: Tracer, module: nn.Module, spec: NeuronSpec, value: Value, lead: int, recurrent: Recurrent | None
) -> tuple[Value, int, int]:
    """What a layer of neurons reads, and the numbers of the layer and of its potential."""
    name = tracer.capture.path()
    layer = read_neurons(module, sizes(value.dims[lead:]), tracer.refuse)
    # what is told apart by channel needs channels that lie so in the map, as those of attention do not
    is_by_channel = any(row.numel() > 1 for _, row, _ in _parameters(layer))
    if is_by_channel and value.dims[lead : lead + 1] != (tracer.channel_dim(value),):
        rank = len(value.dims) - lead
        value, _, _ = tracer.features(value, rank, "a neuron", name=f"{name}, input by channel")
    shape = tracer.layer(value).shape
    layer = replace(layer, shape=shape, name=name, recurrent=recurrent)
    number = tracer.add(layer, [tracer.source(value, lead)])
    # written down whether or not the model reads it: what nobody reads is left out in the end
    potential = tracer.emit(
        Potential,
        [tracer.source(replace(value, layer=number), lead)],
        tracer.layers[number].shape,
        function=type(module).__name__,
        after_reset=spec.leaves_reset and spec.reset is not None and spec.reset.kind != "feedback",
    )
    return value, number, potential


# --- when it is called --------------------------------------------------------------------------------------


def _whole_sequence(tracer: Tracer, module: nn.Module, spec: NeuronSpec, value: Value, state: Any) -> Value:
    """The value [T, N, *], of a call that starts from rest."""
    first = kinds(value.dims[0]) if value.dims else set()
    # A model that takes single steps may give a neuron for sequences a dimension of size 1 in front. It is
    # time then, of one step.
    is_step = not first and tracer.steps is None and value.step is None and not has_time(value.dims)
    if is_step and len(value.dims) > 1:
        tracer.repeats = 1
        value = replace(value, dims=((Axis("T", 1),), *value.dims[1:]))
    elif first != {"T"} or len(value.dims) < 2 or kinds(value.dims[1]) != {"N"}:
        tracer.refuse(
            f"reads {labels(value.dims)}. Neurons take whole sequences [T, N, *]: time first, then the "
            "batch, then features"
            + ("; in a loop over time use one that takes single steps" if tracer.follow_loops else "")
        )
    if spec.continues:
        # A stand-in here was left by an earlier call in the same run, since a capture begins with the states
        # of the model itself.
        before = _state_of(module, spec)
        if isinstance(before, StandIn):
            tracer.refuse(
                "is called twice in one forward, and the second call goes on from where the first one ended. "
                "Use a neuron for each call, or MFP, which starts every call from rest"
            )
        if not _is_at_rest(before, spec):
            _refuse_start(tracer)
    if not _is_at_rest(state, spec):
        _refuse_start(tracer)
    return value


def _next_step(tracer: Tracer, module: nn.Module, spec: NeuronSpec, value: Value) -> Value:
    """The value [N, *] at the step that this call is of; a neuron that carries no state counts no steps."""
    if has_time(value.dims):
        tracer.refuse(
            f"takes one step at a time, [N, *], and gets {labels(value.dims)}. Put the loop over time into "
            "the model, set its neurons to whole sequences, or give an example of one step"
        )
    if not spec.continues:
        return value
    # A neuron has no clock: its k-th call is step k of its sequence.
    number = len(tracer.calls.get(module, ()))
    if value.step is not None and value.step != number:
        back = (
            "; of the step before, it reads a layer's own spikes alone (LinearRecurrentContainer, "
            "ElementWiseRecurrentContainer, RLeaky)"
        )
        tracer.refuse(
            f"is called for step {value.step} as its call number {number + 1}. {LOOPS}"
            + (back if value.step < number else "")
        )
    return replace(value, step=number)


def _check_state(tracer: Tracer, module: nn.Module, spec: NeuronSpec, passed: Any, value: Value) -> None:
    """A neuron for single steps starts from rest, and goes on from where its last call ended."""
    earlier = tracer.calls.get(module, ())
    if earlier and earlier[-1][0] != value.number:
        before, now = (tracer.layers[number] for number in (earlier[-1][0], value.number))
        tracer.refuse(
            "is called for two different inputs, and would carry the potential of one into the other: what "
            f"{before.where} gives in call {len(earlier)}, what {now.where} gives in call {len(earlier) + 1}"
            f"{_difference(before, now)}. Use a neuron for each; a loop over time does the same at every step"
        )
    state = _state_of(module, spec) if passed is None else passed
    if not isinstance(state, StandIn):
        if earlier:
            tracer.refuse(
                "is reset between two steps of one run, and no layer of a network resets. Reset it between "
                "sequences"
            )
        if not _is_at_rest(state, spec):
            _refuse_start(tracer)
    # The potential of other neurons, or of an earlier step, is not where this neuron stopped.
    elif not earlier or state.value.layer != earlier[-1][1]:
        tracer.refuse(
            "is given another potential than its last call returned. Pass that on as it is, and that of "
            "reset_mem() at first"
        )


def _check_spikes(tracer: Tracer, module: nn.Module, passed: Any) -> None:
    """What a neuron is given as its spikes of the step before has to be just that."""
    if passed is None:
        return
    earlier = tracer.calls.get(module, ())
    if not isinstance(passed, StandIn):
        if earlier or bool(passed.any()):
            _refuse_spikes(tracer)
    elif not earlier or (passed.value.layer, passed.value.step) != (
        tracer.layers[earlier[-1][1]].sources[0].layer,
        len(earlier) - 1,
    ):
        _refuse_spikes(tracer)


def _refuse_spikes(tracer: Tracer) -> None:
    tracer.refuse(
        "is given other spikes than its own of the step before. Pass on those that its last call returned, "
        "and those of init_rleaky() at first"
    )


def _difference(before: Layer, now: Layer) -> str:
    """What tells two layers apart that one module gave."""
    if before.where != now.where:
        return ""
    if before.kind != now.kind:
        return f" ({before.kind} and {now.kind})"
    same = [one.layer for one in before.sources] == [one.layer for one in now.sources]
    return ", with other numbers" if same else ", from another input"


def _refuse_start(tracer: Tracer) -> None:
    tracer.refuse("starts from a potential. Every sequence starts from rest: pass no mem, and set none")


def _state_of(module: nn.Module, spec: NeuronSpec) -> Any:
    """Where a neuron stands: its potential, a stand-in once it was called."""
    return getattr(module, spec.state.potential) if spec.state.potential else None


def _is_at_rest(state: Any, spec: NeuronSpec) -> bool:
    """Whether a state is nothing, or the potential at rest everywhere."""
    if isinstance(state, StandIn):
        return False
    rest = 0.0 if spec.reset is None else spec.reset.rest
    return state is None or bool((state == rest).all() if isinstance(state, Tensor) else state == rest)


def _keep(tracer: Tracer, module: nn.Module, spec: NeuronSpec, last: StandIn, every: StandIn) -> None:
    """Puts stand-ins where a call leaves the last potential, that of every step, and the past inputs."""
    # No layer gives a neuron's past inputs and spikes, so they have a shape and no layer: whoever reads them
    # is refused.
    past = StandIn(tuple(every.shape), replace(every.value, layer=None), tracer.capture)
    names = spec.state
    held = {names.potential: last, names.history: past, names.last_spikes: past, names.record: every}
    for name, value in held.items():
        if name is not None:
            put_state(module, name, value)


# --- what it computes with ----------------------------------------------------------------------------------


@torch.no_grad()
def read_neurons(module: nn.Module, features: Shape, refuse: Callable[[str], NoReturn]) -> Neurons:
    r"""What a layer of neurons computes with, as a layer that is no part of a network yet.

    Args:
        module: the neurons.
        features: the shape of one step of one sample as the module sees it.
        refuse: called with what no layer says; raises.
    """
    spec = describe_neuron(module)
    assert spec is not None and spec.kernel is not None and spec.threshold is not None
    if spec.rounds_potential:
        refuse("rounds its potential (state_quant). Make it with state_quant=False")
    if spec.inhibition:
        refuse("lets only one neuron fire (inhibition). Make it with inhibition=False")
    try:
        strict = spec.fires_above_only()
    except ValueError as error:
        refuse(f"{error}. Use a surrogate that does")
    # A Python number keeps all of its digits in float64; a tensor keeps the dtype that it is compared in.
    threshold = torch.as_tensor(
        spec.threshold, dtype=None if isinstance(spec.threshold, Tensor) else torch.float64
    )
    if not bool((threshold > -inf).all()):
        refuse("has a threshold that is NaN or -inf. Set a number, or math.inf, which never fires")
    reset = spec.reset
    if reset is not None and reset.kind != "zero" and reset.order is not None and reset.taps is None:
        refuse(
            "subtracts a threshold of its own for each neuron (order="
            f"{spec.kernel.order}). Give it one threshold, or one a channel"
        )
    factor = spec.spike_factor
    layer = Neurons(
        name="",
        where="",
        function=type(module).__name__,
        sources=(),
        shape=features,
        neuron=type(module).__name__,
        kernel=_kernel_value(spec.kernel()),
        options=_options(spec.kernel),
        kernel_shape=spec.kernel_shape,
        threshold_shape=spec.threshold_shape,
        threshold=snapshot(threshold),
        strict=strict,
        spike_factor=None if factor is None or bool((factor == 1).all()) else snapshot(factor),
        features=features,
        reset=_reset(reset),
    )
    # The neuron's own forward does not run on stand-ins, so torch does not notice a parameter that does not
    # fit.
    for name, row, shape in _parameters(layer):
        try:
            layer.spread(row, shape).broadcast_to(1, *features)
        except RuntimeError:
            refuse(
                f"has a {name} of shape {list(row.shape)}, which does not broadcast over a step "
                f"[N, {', '.join(map(str, features))}]. Give it one value, or one a channel"
            )
    return layer


def _parameters(layer: Neurons) -> list[tuple[str, Tensor, Any]]:
    """What has to broadcast over a step: names, values, and the shape in which they do."""
    kernel = layer.kernel
    rows: list[tuple[str, Tensor, Any]] = []
    if isinstance(kernel, Exponential):
        rows = [
            ("decay", as_row(kernel.decay), layer.kernel_shape),
            ("gain", as_row(kernel.gain), layer.kernel_shape),
        ]
    elif isinstance(kernel, FIR):
        rows = [("taps", kernel.taps[0].reshape(-1), layer.kernel_shape)]
    if layer.reset is not None and layer.reset.taps is not None:
        rows.append(("feedback", layer.reset.taps[0].reshape(-1), layer.kernel_shape))
    return [*rows, ("threshold", layer.threshold, layer.threshold_shape)]


def _kernel_value(kernel: Kernel) -> Kernel:
    """The kernel as a value that no training changes."""
    if isinstance(kernel, Exponential):
        return Exponential(snapshot(kernel.decay), snapshot(kernel.gain), kernel.order)
    return Matrix(snapshot(kernel.matrix)) if isinstance(kernel, Matrix) else FIR(snapshot(kernel.taps))


def _reset(spec: ResetSpec | None) -> NeuronReset | None:
    """What the neuron's own spikes do, as numbers that no training changes."""
    if spec is None or (
        spec.kind != "zero" and spec.order == 0
    ):  # of order 1 no threshold is left to subtract
        return None
    taps = None if spec.taps is None else snapshot(spec.taps).double()
    return NeuronReset(spec.kind, taps, spec.rest, spec.delay and taps is None)


def _options(kernel: KernelParameters) -> dict[str, Any]:
    """How the kernel was parametrized, as far as it applies."""
    named: dict[str, Any] = {
        "kind": kernel.kind,
        "order": kernel.order,
        "stride": kernel.stride,
        "kernel_bits": kernel.kernel_bits,
        "num_channels": kernel.num_channels,
    }
    if hasattr(kernel, "decay_logit"):
        named["decay_logit"] = kernel.over_channels(kernel.decay_logit)
    if kernel.kind == "exp":
        exponential = kernel.exponential()
        named["decay"], named["gain"] = as_row(exponential.decay), as_row(exponential.gain)
        named["follows_decay"] = kernel.gain_follows_decay or None
    return {name: snapshot(value) for name, value in named.items() if value is not None}
