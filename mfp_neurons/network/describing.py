"""From a torch model to its description: the example is read in every way that its shape allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import lcm, prod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import check_int, check_module
from .._checks import describe as in_words
from ..adapters import describe_neuron, describe_recurrence, is_neuron, why_no_layer
from ..history import Matrix
from ..quantize.reading import is_quantized_by_brevitas
from . import arithmetic, containers, moves, places, pools, products, steps, synapses
from .axes import Axis, Dim, flat, has_time, kinds, labels, of_features, sizes
from .capture import Capture, MisfitError, StandIn, named
from .description import NetworkDescription, NetworkError, Neurons, Output, Source, read_layers
from .neurons import fire
from .tracing import Tracer, Value, equal

# importing them registers what they know
RULES = (arithmetic, moves, places, pools, products, steps, synapses)

Export = TypeVar("Export")

_AT_LEAST = 16  # so that windows and divisors of some steps show too, however short the example is


def describe(model: nn.Module, example: Tensor, *, steps: int | None = None) -> NetworkDescription:
    r"""A model as a list of layers in exact numbers, from which integers, NIR and other formats are made.

    Args:
        model: convolutions, linear layers, batch norms, memory-free neurons, pools, sums and what may stand
            between them, of plain torch, SpikingJelly or snnTorch. It is left exactly as it is, and read in
            evaluation mode, from rest.
        example: what it is given: [T, N, \*]; [N, T, \*] of a model that puts time first itself; or [N, \*]
            of one that takes single steps or repeats its input over time itself. Its values do not matter,
            except whether all of them are 0 or 1.
        steps: T, of a model that takes one step a call and whose loop over time stands outside of it;
            ``example`` is then one step [N, \*].

    Returns:
        :class:`NetworkDescription`. Layers that nobody reads are not in it, and layers that compute the same
        from the same are one.

    Raises:
        TypeError: model is no module, or example no tensor.
        ValueError: the example is empty or has one dimension, or steps is below 1.
        NetworkError: the model cannot be described; the message says which module, why, and what to do.

    >>> from mfp_neurons import MFP
    >>> network = describe(nn.Sequential(nn.Linear(3, 2), MFP(0.9)), torch.zeros(5, 1, 3))
    >>> [(layer.kind, layer.name, layer.shape) for layer in network.layers]
    [('Input', 'input', (3,)), ('Linear', '0', (2,)), ('Neurons', '1', (2,))]
    >>> network.layers[2].kernel.decay, network.layers[2].threshold.item()
    (0.9, 1.0)
    """
    return read_model(model, check_example(example), lambda network: network, steps=check_steps(steps))


def check_model(model: Any) -> nn.Module:
    """The model, if it is a module; out of torch.compile's wrapper, whose name would stand in every path."""
    check_module("model", model)
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def takes_single_steps(model: nn.Module) -> bool:
    """Whether a neuron of the model takes one step a call, so that a loop over time is around it."""
    specs = map(describe_neuron, model.modules())
    return any(spec is not None and not spec.takes_sequences for spec in specs)


def check_example(example: Any) -> Tensor:
    """The example, if it is one of any model."""
    if not isinstance(example, Tensor):
        several = "; an integer network has one input (torch.cat joins several)"
        several = several if isinstance(example, tuple | list | dict) else ""
        raise TypeError(f"example must be a torch.Tensor, got {in_words(example)}{several}")
    if example.layout != torch.strided or example.is_meta:
        raise TypeError(f"example must be a dense tensor that holds numbers, got {in_words(example)}")
    if example.dim() < 2 or example.numel() == 0:
        raise ValueError(f"example must be [T, N, *] or [N, *], none of them empty, got {in_words(example)}")
    return example


def check_steps(steps: Any) -> int | None:
    """T of a loop around the model, if it is one; None for a model that needs no loop."""
    return None if steps is None else check_int("steps", steps, 1)


def read_model(
    model: nn.Module,
    example: Tensor,
    export: Callable[[NetworkDescription], Export],
    error: type[NetworkError] = NetworkError,
    *,
    is_binary: bool | None = None,
    follow_loops: bool = True,
    steps: int | None = None,
) -> Export:
    r"""What an export makes of a model; its example is [T, N, \*] or, failing that, [N, \*] or [N, T, \*].

    Args:
        model, example: see :func:`describe`.
        export: is given the description. It raises a NetworkError for what it cannot say. It is also given
            the layers that were read before something else was refused: what it has to say comes first.
        error: the type of what is raised.
        is_binary: whether the input is spikes; None: whether the example is.
        follow_loops: whether a loop over time is followed.
        steps: how often the model is called, one step [N, \*] a call; None for once, with all steps.

    Raises:
        TypeError: model is no module.
        NetworkError: no reading of the example can be described and exported. The error is that of the
            reading that came furthest.
    """
    model = check_model(model)
    if is_binary is None:
        is_binary = bool(((example == 0) | (example == 1)).all())
    readings = _readings(model, example, is_binary, follow_loops, steps)
    for reading in readings:
        try:
            return export(reading.description(export))
        except NetworkError as refusal:
            reading.error = refusal
            # The capture may have come to the end of the model. An export that refuses a layer came as far as
            # that layer.
            if refusal.layer is not None:
                reading.handled = min(reading.handled, reading.positions[refusal.layer])
    # of two that came as far, one whose shapes did not fit is the wrong one
    furthest = max(readings, key=lambda one: (one.handled, not isinstance(one.error, MisfitError)))
    assert furthest.error is not None
    if isinstance(furthest.error, error):
        raise furthest.error
    raise error(str(furthest.error)) from furthest.error


@dataclass(frozen=True)
class Attempt:
    """One way to read an example, gone on with after refusals as far as that goes.

    Attributes:
        network: what was read; without outputs where it ended early.
        refusals: in the order in which they came.
        is_complete: whether the model was read to its end.
        fits: whether torch itself took the shapes.
        handled: how many functions and modules were read.
    """

    network: NetworkDescription
    refusals: tuple[NetworkError, ...]
    is_complete: bool
    fits: bool
    handled: int


def attempt(
    model: nn.Module,
    example: Tensor,
    *,
    is_binary: bool,
    follow_loops: bool,
    steps: int | None = None,
) -> list[Attempt]:
    """Every reading of an example, with all that each refuses; arguments as of :func:`read_model`."""
    return [reading.attempt() for reading in _readings(model, example, is_binary, follow_loops, steps)]


def _readings(
    model: nn.Module, example: Tensor, is_binary: bool, follow_loops: bool, steps: int | None
) -> list["_Reading"]:
    if steps is not None:
        return [_Reading(model, torch.Size((steps, *example.shape)), 0, is_binary, True, True)]
    places = (0, None, 1) if example.dim() > 2 else (None,)
    return [_Reading(model, example.shape, time, is_binary, follow_loops, False) for time in places]


class _Reading:
    """One way to read the example's dimensions: [T, N, *], [N, T, *] or [N, *].

    ``time`` is which of them is T, 0, 1 or None. ``by_step``: the model is called T times, with one step
    [N, *] each.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: torch.Size,
        time: int | None,
        is_binary: bool,
        follow_loops: bool,
        by_step: bool,
    ) -> None:
        self.model, self.is_binary, self.follow_loops = model, is_binary, follow_loops
        self.by_step, self.time = by_step, time
        self.features = tuple(shape[1 if time is None else 2 :])
        self.steps = None if time is None else shape[time]
        # a batch of 2 at least: there is no size by which one sample and one channel could be told apart
        self.batch = (Axis("N", max(2, shape[int(time == 0)])),)
        self.handled = 0  # functions and modules until it was refused
        self.positions: list[int] = []  # and until each layer of the description
        self.error: NetworkError | None = None

    def description(self, export: Callable[[NetworkDescription], Any]) -> NetworkDescription:
        """The description, which says whether another number of steps would give another one.

        A capture sees one T. What the model's own Python computes with it (``x.sum(0) / x.shape[0]``) is a
        number by then, and a window as long as the example (``x[-4:]`` with T = 4) looks like all steps. So a
        model is captured a second time, with more steps: what is equal in both follows T.
        """
        try:
            network = self._capture(self.steps)
        except NetworkError as error:
            # what stands before may be refused already, or what ends it has better words in the export's own
            if error.description is not None:
                export(error.description)
            raise
        kernels = [layer.kernel for layer in network.layers if isinstance(layer, Neurons)]
        matrices = [kernel.matrix for kernel in kernels if isinstance(kernel, Matrix)]
        if self.steps is None or any(len(matrix) > 1 for matrix in matrices):  # which have no taps for more
            return replace(network, is_fixed=bool(matrices))
        handled, positions = self.handled, self.positions
        try:
            other = self._capture(other_steps(network.steps, lcm(*(one.period for one in network.layers))))
        except NetworkError:  # the model does not take another T
            return replace(network, is_fixed=True)
        finally:
            # The second capture only answers a question. How far the reading came is what the first one says.
            self.handled, self.positions = handled, positions
        if len(network.outputs) != len(other.outputs):  # one for each step, say
            return replace(network, is_fixed=True)
        pairs = zip(network.outputs, other.outputs, strict=True)
        network = replace(network, outputs=tuple(_as_many_steps(network, a, b) for a, b in pairs))
        same = equal(_without_windows(network), _without_windows(replace(other, steps=network.steps)))
        return replace(network, is_fixed=bool(matrices) or not same)

    def attempt(self) -> Attempt:
        """What the example gives if refusals do not end it."""
        refusals: list[NetworkError] = []
        try:
            network = self._capture(self.steps, refusals)
        except NetworkError as refusal:
            last, partial = refusal, refusal.description
        else:
            return Attempt(network, tuple(refusals), True, True, self.handled)
        assert partial is not None
        return Attempt(partial, (*refusals, last), False, not isinstance(last, MisfitError), self.handled)

    def _capture(self, count: int | None, refusals: list[NetworkError] | None = None) -> NetworkDescription:
        """What ``count`` steps give; with a list for refusals, as far as the model can be read."""
        tracer = Tracer(self.features, count, self.is_binary, self.follow_loops, _call_module, self.time or 0)
        tracer.capture = capture = Capture(self.model, tracer)
        tracer.refusals = refusals
        lead: list[Dim] = [self.batch]
        if count is not None and not self.by_step:
            lead.insert(self.time or 0, (Axis("T", count),))
        dims = (*lead, *of_features(self.features))
        calls = [Value(0, dims, step=t) for t in range(count or 0)] if self.by_step else [Value(0, dims)]
        self.handled = 0
        arose = None
        try:
            returned = capture.run(sizes(dims), calls)
            keys, several = _returned(tracer, _joined(tracer, returned) if self.by_step else returned[0])
            outputs = tuple(_output(tracer, tracer.value(one, "what is returned")) for one in several)
        except NetworkError as refusal:
            error, arose = refusal, refusal.handled
            if isinstance(refusal, MisfitError):
                error = MisfitError(f"{str(refusal).rstrip('.!')}. {self._in_words(sizes(dims))}")
            error.description = self._description(tracer, (), (), range(len(tracer.layers)))
            raise error from refusal
        finally:
            # a reading without any step has not come far: its error is about a time axis that is not there
            came_far = count is not None or tracer.repeats or self.follow_loops
            if came_far:
                self.handled = capture.handled if arose is None else arose
        return self._description(tracer, outputs, keys, read_layers(tracer.layers, outputs))

    def _in_words(self, shape: tuple[int, ...]) -> str:
        """How the example was read, behind what did not fit."""
        front = "N" if self.steps is None or self.by_step else "N, T" if self.time else "T, N"
        text = (
            f"The example was read as [{front}, *], with a batch of at least 2, here {list(shape)}: no "
            "number in the model's code may stand for the batch (x.flatten(1), not x.view(1, -1))"
        )
        if self.by_step:
            text += ". With steps=, it is one step of a model that is called once a step"
        elif self.steps is not None and takes_single_steps(self.model):
            text += ". Where the loop over time is outside of the model, give one step [N, *], and steps=T"
        return text

    def _description(
        self, tracer: Tracer, outputs: tuple[Output, ...], keys: tuple[str, ...], kept: Sequence[int]
    ) -> NetworkDescription:
        """The layers that are kept, numbered anew."""
        new = {old: number for number, old in enumerate(kept)}
        self.positions = [tracer.positions[number] for number in kept]

        def moved(source: Source) -> Source:
            return replace(source, layer=new[source.layer])

        chosen = (tracer.layers[number] for number in kept)
        floats = {p.dtype for p in self.model.parameters() if p.is_floating_point()}
        return NetworkDescription(
            layers=tuple(replace(one, sources=tuple(map(moved, one.sources))) for one in chosen),
            outputs=tuple(replace(output, source=moved(output.source)) for output in outputs),
            steps=_steps(tracer),
            is_fixed=False,
            is_double=floats == {torch.float64},
            where=named("", self.model),
            keys=keys,
        )


def _as_many_steps(network: NetworkDescription, output: Output, other: Output) -> Output:
    """The output of T steps, of which a window over T steps (x[-T:]) is one of so many whatever T is."""
    all_steps = network.steps // network.layers[output.source.layer].period
    if output.steps is None and other.steps == all_steps and output.form == other.form:
        source = replace(output.source, last=all_steps)
        return replace(output, source=source, steps=all_steps)
    return output


def _without_windows(network: NetworkDescription) -> NetworkDescription:
    """Layers behind a window over the last steps read all steps: the window is that of the output, too."""
    layers = (
        replace(layer, sources=tuple(replace(source, last=None) for source in layer.sources))
        for layer in network.layers
    )
    return replace(network, layers=tuple(layers))


def other_steps(steps: int, period: int = 1) -> int:
    """Another T, with which nothing that was computed from ``steps`` agrees: odd in units of ``period``.

    >>> other_steps(4), other_steps(100), other_steps(8, period=4)
    (33, 201, 36)
    """
    windows = -(-max(steps, _AT_LEAST) // period)
    return (2 * windows + 1) * period


def _call_module(tracer: Tracer, module: nn.Module, args: Any, kwargs: Any) -> Any:
    """What a call of a module gives, or NotImplemented to look inside."""
    if isinstance(module, torch.jit.ScriptModule):
        tracer.refuse("is compiled by torch.jit, and has no Python to read. Lower the module it was made of")
    if is_neuron(module):
        return fire(tracer, module, *args, **kwargs)
    if why := why_no_layer(module):
        tracer.refuse(why)
    recurrence = describe_recurrence(module)
    if recurrence is not None:
        return containers.run_container(tracer, recurrence, *args, **kwargs)
    if steps.is_time_pool(module):
        return steps.pool_time(tracer, module, *args, **kwargs)
    if is_quantized_by_brevitas(module):
        return synapses.brevitas_layer(tracer, module, *args, **kwargs)
    return NotImplemented


def _steps(tracer: Tracer) -> int:
    """T of the input, of the model's own repetition, or how often neurons were called in a loop."""
    return tracer.steps or tracer.repeats or max(map(len, tracer.calls.values()), default=1)


def _returned(tracer: Tracer, returned: Any) -> tuple[tuple[str, ...], list[Any]]:
    """What the model returns, a tensor or several, without None; and their names if it is a dict."""
    if isinstance(returned, dict):
        returned = {name: one for name, one in returned.items() if one is not None}
    elif isinstance(returned, tuple | list):
        returned = [one for one in returned if one is not None]
    named = isinstance(returned, dict) and bool(returned)
    several = list(returned.values()) if named else returned
    several = several if isinstance(several, tuple | list) and several else [several]
    if not all(isinstance(one, StandIn) for one in several):
        what = f"a {type(returned).__name__}"
        what += f" of {len(returned)}" if isinstance(returned, tuple | list | dict) else ""
        tracer.refuse(
            f"returns {what}, not tensors of scores that are computed from its input: one, a tuple, or a "
            "dict of them. Wrap it in a module that returns the scores alone"
        )
    for one in several:
        tracer.check_written(one)
    return tuple(map(str, returned)) if named else (), list(several)


def _joined(tracer: Tracer, returned: list[Any]) -> Any:
    """What the calls of all steps returned, each tensor as its sequence of steps."""
    first = _returned(tracer, returned[0])
    columns = zip(*(_returned(tracer, one)[1] for one in returned), strict=True)
    tracer.name = "stack"
    joined = [tracer.stand_in(steps.stack(tracer, None, column), column[0].dtype) for column in columns]
    return dict(zip(first[0], joined, strict=True)) if first[0] else tuple(joined)


def _output(tracer: Tracer, value: Value) -> Output:
    steps = _steps(tracer) // tracer.layer(value).period
    every_step = value.reduce is None and value.step is None and has_time(value.dims)
    time = next(place for place, dim in enumerate(value.dims) if "T" in kinds(dim)) if every_step else 0
    in_front = (value.dims[time],) if every_step else ()
    dims = (*in_front, *value.dims[:time], *value.dims[time + every_step :])
    expected = [{"T"}, {"N"}] if every_step else [{"N"}]
    # A model that takes single steps, and was given one, returns what belongs to that step.
    is_single = tracer.follow_loops and not (tracer.steps or tracer.repeats) and steps == 1
    known = every_step or value.reduce or value.step is not None or is_single
    front, rest = dims[: len(expected)], dims[len(expected) :]
    own = flat(of_features(tracer.layer(value).shape))
    # The features may come as a map or flattened, in the order in which the layer has them.
    in_order = rest == of_features(sizes(rest)) and flat(rest) == own
    are_features = all(kinds(dim) <= {"F"} for dim in rest)
    # No form of output says that the last k steps are returned as they are, without a reduction.
    cut = value.last and not value.reduce
    if not known or [kinds(dim) for dim in front] != expected or not are_features or cut:
        tracer.refuse(
            f"returns {labels(value.dims)}, which is not [N, *] reduced over time (x.mean(0), x.sum(0), "
            "x.amax(0), x[-1], x[-k:].mean(0), x[k:].mean(0)) or [T, N, *] of every step. Return one of "
            "these"
        )
    value = replace(value, dims=dims)
    if not in_order:
        tracer.name = "return"
        value = tracer.gathered(value, len(expected), np.arange(prod(sizes(rest))).reshape(sizes(rest)))
    source = tracer.source(value, len(expected))
    if every_step:
        return Output(source, "every step", skip=value.skip, time=time)
    if value.reduce:
        if value.step not in (None, steps - 1):
            tracer.refuse(
                f"returns the sum of steps {value.skip} to {value.step} of {steps}. Add up all to the last"
            )
        return Output(source, value.reduce, value.last, value.skip)
    if value.step not in (None, steps - 1):
        tracer.refuse(
            f"returns step {value.step} of {steps}. Return every step (torch.stack of a list), or the last"
        )
    return Output(source, "single step" if is_single else "last")
