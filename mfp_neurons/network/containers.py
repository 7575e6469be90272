"""Reads containers around a neuron that feed its last spikes back into its input."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..adapters import describe_neuron, kept_tensors
from ..spec import RecurrenceSpec
from .capture import StandIn
from .neurons import fire, fire_all_steps
from .recurrent import combined, side_by_side
from .tracing import Tracer

_INSIDE = "Put the neuron alone into the container, and other layers in front of it or behind it"


def run_container(tracer: Tracer, spec: RecurrenceSpec, x: Any) -> Any:
    """A container that adds its neuron's last spikes, or what a linear layer makes of them, to its input."""
    value = tracer.value(x, "the input of a recurrent layer")
    inner = describe_neuron(spec.neuron)
    if inner is None:
        tracer.refuse(
            f"feeds the output of {type(spec.neuron).__name__} back, a path longer than one neuron. {_INSIDE}"
        )
    if inner.takes_sequences:
        tracer.refuse(
            "holds a neuron for whole sequences, and feeds back step by step. Set the neuron in it to single "
            'steps (step_mode="s")'
        )
    kept = [spec.last_spikes, *(state for _, state in kept_tensors(spec.neuron))]
    # later calls go on from stand-ins, which the neuron's own reading looks at
    if any(isinstance(one, Tensor) and not isinstance(one, StandIn) and bool(one.any()) for one in kept):
        tracer.refuse(
            "starts from spikes of an earlier call. Every sequence starts from rest: reset the model"
        )
    if spec.linear is None:
        value, recurrent = combined(tracer, spec, value)
    else:
        value, recurrent = side_by_side(tracer, spec, value)
    current = tracer.stand_in(value, x.dtype)
    call: Callable[..., Any] = fire if spec.step_mode == "s" else fire_all_steps
    with tracer.capture.inside(spec.neuron):
        fired = call(tracer, spec.neuron, current, recurrent=recurrent)
    return fired[0] if isinstance(fired, tuple) else fired
