"""Listens to one run of a model on stand-ins, and grows the graph."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mfp_neurons import __version__

from ..adapters import describe_neuron, is_neuron
from ..deploy.lowering import states
from ..deploy.lowering.axes import Dims, flat, kinds, of_features, sizes
from ..deploy.lowering.capture import Capture, StandIn, stand_ins
from ..pooling import TimePool
from ..quantize import codes
from ..quantize.reading import is_quantized_by_brevitas
from .draft import Draft
from .kernels import check, read
from .neurons import add_neurons
from .registry import MOVES, RULES, VIEWS
from .signals import Signal, Term, Value, of

GRAMMAR = (
    "NIR has convolutions, linear layers, sums, average and sum pools, flattening, and our neurons; batch "
    "norms and factors fold into a layer. Take the rest out of the model, or export the parts around it"
)
LOOPS = "A loop over time runs once for each step, first to last, and calls every neuron once a step"


class Tracing:
    """The listener of one capture.

    Args:
        draft: the graph.
        steps: T of the input; None for an input without time.
        dt: seconds a step.
    """

    def __init__(self, draft: Draft, steps: int | None, dt: float) -> None:
        self.draft, self.steps, self.dt = draft, steps, dt
        self.repeats = 0  # T of a model that repeats its input, once it does
        self.name = ""  # of the function whose rule is applied
        self.capture: Capture
        self._calls: dict[nn.Module, list[tuple[Any, Signal]]] = {}  # input and potential, step by step

    # --- what the capture calls -----------------------------------------------------------------------------

    def function(self, name: str, args: Any, kwargs: Any, on_meta: Callable[[], Any]) -> Any:
        """A torch function that met a tensor of the network."""
        plain = name if name in RULES else name.strip("_")
        given = [one.value for one in stand_ins((args, kwargs))]
        if plain not in RULES:
            self.refuse(f"calls {plain}, which NIR cannot say. {GRAMMAR}")
        if None in given:
            self.refuse(f"reads a neuron's history ({plain}), which is in no node. Use its spikes, or its v")
        rule = RULES[plain]
        if any(value.reduce or value.last for value in given) and plain not in MOVES:
            self.refuse(
                f"computes with what was reduced over time already ({plain}). NIR has no time axis: a mean, "
                "a sum or the last steps can only be read out at the end"
            )
        try:
            inspect.signature(rule).bind(self, None, *args, **kwargs)
        except TypeError as error:
            self.refuse(f"calls {plain} in a way that cannot be exported: {error}")
        self.name = plain
        result = on_meta() if plain not in _WITHOUT_META else None
        made = rule(self, result, *args, **kwargs)
        if not isinstance(made, Value):
            return made
        if isinstance(result, Tensor) and sizes(made.dims) != tuple(result.shape):
            self.refuse(
                f"makes {list(result.shape)} of {list(sizes(made.dims))} by {plain}, repeating numbers"
            )
        family = stand_ins((args, kwargs))[0].family if plain in VIEWS else None
        return self.stand_in(made, getattr(result, "dtype", None), family)

    def module(self, module: nn.Module, path: str, args: Any, kwargs: Any) -> Any:
        """A call of a module; NotImplemented for all that is looked into."""
        if not stand_ins((args, kwargs)):
            return NotImplemented
        if is_neuron(module):
            return self._fire(module, path, *args, **kwargs)
        if isinstance(module, TimePool):
            self.refuse(
                f"makes one step of every {module.window} (TimePool), and NIR has one clock for all. Export "
                "the layers in front of it and those behind it as two graphs"
            )
        if is_quantized_by_brevitas(module):
            return self._brevitas(module, *args, **kwargs)
        return NotImplemented

    # --- for the rules --------------------------------------------------------------------------------------

    def refuse(self, why: str) -> NoReturn:
        self.capture.refuse(why)

    def stand_in(self, value: Value, dtype: torch.dtype | None = None, family: Any = None) -> StandIn:
        """What the model gets for a value."""
        return StandIn(sizes(value.dims), value, self.capture, dtype, family)

    def value(self, tensor: Any, what: str) -> Value:
        """The value of a tensor of the network; anything else is refused."""
        if not isinstance(tensor, StandIn):
            self.refuse(f"wants {what} to be computed from the model's input, got {type(tensor).__name__}")
        value: Value = tensor.value
        return value

    def here(self) -> str:
        """The path of the module that is running; of the whole model, the function that it calls."""
        return self.capture.path() or self.name

    def features(self, value: Value, lead: int, what: str) -> Signal:
        """The numbers behind the first ``lead`` dimensions, as a signal of their shape."""
        trailing = value.dims[lead:]
        signal, wanted = value.content, sizes(trailing)
        if not all(kinds(dim) <= {"T", "N"} for dim in value.dims[:lead]):
            self._refuse_layout(value, what)
        if self.draft.is_input(signal) and wanted == self.draft.input_shape != signal.shape:
            return of(self.draft.input)  # in the shape that another layer read it in
        if signal.shape == wanted and trailing == of_features(wanted):
            return signal
        if self.draft.is_input(signal) and flat(trailing) == flat(of_features(signal.shape)):
            again = self.draft.reshape_input(wanted)
            if again is not None:
                return again
        if len(trailing) != 1 or trailing[0] != flat(of_features(signal.shape)):
            self._refuse_layout(value, what)
        return self.draft.flattened(signal)

    def _refuse_layout(self, value: Value, what: str) -> NoReturn:
        self.refuse(
            f"gives {what} features that were cut up, moved or made from others (its input is "
            f"{list(sizes(value.dims))}, a step of one sample is {list(value.content.shape)}). Features keep "
            "the shape that a layer gave them until all of them are flattened"
        )

    # --- modules --------------------------------------------------------------------------------------------

    def _brevitas(self, module: Any, x: Any) -> Any:
        """A layer of Brevitas, whose own forward is not for stand-ins."""
        for name in ("input_quant", "output_quant", "bias_quant"):
            if getattr(getattr(module, name, None), "is_quant_enabled", False):
                self.refuse(f"quantizes more than its weight ({name}). Give it a weight quantizer only")
        made = codes(module)
        weight = made.codes.to(made.scale.dtype) * made.scale
        if isinstance(module, nn.Linear):
            return nn.functional.linear(x, weight, module.bias)
        convolve: Any = nn.functional.conv1d if isinstance(module, nn.Conv1d) else nn.functional.conv2d
        return convolve(x, weight, module.bias, module.stride, module.padding, module.dilation, module.groups)

    def _fire(self, module: Any, path: str, x: Any, mem: Any = None) -> Any:
        """A layer of neurons."""
        check(module, self.refuse)
        value = self.value(x, "the input of a neuron")
        if value.reduce or value.last:
            self.refuse("reads what was already reduced over time. Reduce over time behind the last neuron")
        spec = describe_neuron(module)
        assert spec is not None
        timed, carries = spec.takes_sequences, states.carries_state(module)
        if timed:
            self._check_whole_sequence(value)
            states.check_start(module, self.refuse)
        else:
            value = self._next_step(module, value, carries)
        lead = 2 if timed else 1
        signal = self.features(value, lead, "a neuron")
        if carries and not timed:
            self._check_state(module, mem, signal)
        elif timed and not states.is_at_rest(mem):
            self._refuse_start()
        spikes, potential = self._nodes(module, path, signal)
        if carries and not timed:
            self._calls.setdefault(module, []).append((signal.key, potential))
        dims = (*value.dims[:lead], *of_features(signal.shape))
        fired = self.stand_in(replace(value, content=spikes, dims=dims), x.dtype)
        every = replace(value, content=potential, dims=dims)
        last = replace(every, dims=dims[1:], step=sizes(dims)[0] - 1) if timed else every
        returned = self.stand_in(every)
        history = StandIn(tuple(x.shape), None, self.capture)
        states.keep(module, self.stand_in(last), returned, history)
        if not hasattr(module, "init_hidden") or (module.init_hidden and not module.output):
            return fired
        return fired, returned

    def _nodes(self, module: Any, path: str, signal: Signal) -> tuple[Signal, Signal]:
        numbers = read(module, signal.shape, self.draft.dtype, self.refuse)
        numbers.facts.update(path=path, mfp_version=__version__)
        node, potential = add_neurons(
            self.draft, signal, numbers, path or type(module).__name__.lower(), self.dt, self.refuse
        )
        factor = getattr(module, "graded_spikes_factor", None)
        if factor is None or bool((factor == 1).all()):
            return of(node), potential
        graded = factor.detach().double().cpu().broadcast_to(1, *node.shape)[0].numpy().copy()
        return Signal((Term(node, graded),), node.shape), potential

    def calls(self) -> int:
        """How often the neurons that take single steps were called; 1 without any."""
        return max((len(calls) for calls in self._calls.values()), default=1)

    def _check_whole_sequence(self, value: Value) -> None:
        first = kinds(value.dims[0]) if value.dims else set()
        if value.step is not None or first != {"T"} or kinds(value.dims[1]) != {"N"}:
            self.refuse(
                f"takes whole sequences [T, N, *], time first, and gets {labels(value.dims)}. Give to_nir an "
                "example [T, N, *]; in a loop over time use a neuron that takes single steps"
            )

    def _next_step(self, module: nn.Module, value: Value, carries: bool) -> Value:
        """The value at the step that this call is of; a neuron that carries no state counts no steps."""
        if value.has_time():
            self.refuse(
                f"takes one step at a time, [N, *], and gets {labels(value.dims)}. Give to_nir an example of "
                "one step, [N, *], or set the neurons to whole sequences"
            )
        if not carries:
            return value
        number = len(self._calls.get(module, ()))
        if value.step is not None and value.step != number:
            self.refuse(f"is called for step {value.step} as its call number {number + 1}. {LOOPS}")
        return replace(value, step=number)

    def _check_state(self, module: nn.Module, mem: Any, signal: Signal) -> None:
        """A neuron for single steps starts from rest, and goes on from where its last call ended."""
        earlier = self._calls.get(module, ())
        if earlier and earlier[-1][0] != signal.key:
            self.refuse(
                "is called for two different inputs, and would carry the potential of one into the other. "
                "Use a neuron for each"
            )
        state = states.state_of(module) if mem is None else mem
        if not isinstance(state, StandIn):
            if earlier:
                self.refuse(
                    "is reset between two steps of one run, and NIR resets nothing. Reset it between "
                    "sequences"
                )
            if not states.is_at_rest(state):
                self._refuse_start()
        elif not earlier or state.value.content.key != earlier[-1][1].key:
            self._refuse_start()

    def _refuse_start(self) -> NoReturn:
        self.refuse(
            "starts from a potential. In NIR every sequence starts from rest: pass no mem, and set none"
        )


def labels(dims: Dims) -> str:
    """Dimensions for messages: [T, N, 16]."""
    shown = [
        "*".join(axis.kind if axis.kind != "F" else str(axis.size) for axis in dim) if dim else "1"
        for dim in dims
    ]
    return f"[{', '.join(shown)}]"


# functions whose shapes need no device, or that the meta device can't do
_WITHOUT_META = frozenset(("to", "cpu", "cuda", "type", "type_as", "data", "requires_grad", "pin_memory"))
