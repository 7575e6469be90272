"""Listens to one run of a model on stand-ins and writes down its layers, with one rule for each function.

The rules are in ``synapses``, ``products``, ``pools``, ``arithmetic``, ``places``, ``moves`` and ``steps``;
neurons and pools over time are read as modules, by ``neurons`` and ``steps``. A rule takes what the torch
function takes, after the :class:`Tracer` and the function's result on the meta device. It returns the new
:class:`Value`, or what the model gets as it is.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..adapters import describe_neuron, describe_recurrence
from .advice import ADVICE, INPUT, OTHERWISE, OWN_LOOP, TIME_LOOP, UNLIKE_STEPS
from .axes import Axis, Dim, Dims, Shape, features_of, kinds, labels, of_features, sizes
from .axes import places as places_of
from .capture import Capture, MisfitError, StandIn, stand_ins
from .description import Affine, Gather, Input, Layer, NetworkError, Reduction, Source, Unreadable, as_map

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
_SHARE_MEMORY: set[str] = set()  # functions that give a view of their input

# functions that give a tensor of numbers the dtype or the shape of another one
_LIKE_ANOTHER = frozenset(("to", "type_as", "expand_as", "view_as", "reshape_as"))

# functions whose shapes need no device, or that the meta device can't do
_WITHOUT_META = frozenset(("to", "cpu", "cuda", "type", "type_as", "data", "requires_grad", "pin_memory"))


def rule(*names: str, view: bool = False) -> Callable[[Rule], Rule]:
    """Makes a function the rule of these torch functions; ``view``: they give a view of their first input."""

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[name] = function
        if view:
            _SHARE_MEMORY.update(names)
        return function

    return register


@dataclass(frozen=True, eq=False)
class Value:
    """What is known of a tensor of the model.

    Attributes:
        layer: the number of the layer whose output it is; None for what no layer gives: a neuron's past
            inputs, where the largest of several numbers is, and what is taken over the batch.
        dims: where its features, steps and samples lie.
        reduce: how the steps were reduced; None while there are steps.
        last: over how many of the last steps; None for all.
        step: the one step that it is of, of a sequence or a loop over time; None elsewhere. Of steps that a
            loop adds up ("sum"), the last one so far.
        skip: how many of the first steps were left out.
        refusal: what is raised when the network needs what no layer gives. A model may keep such a tensor,
            as a rate of firing for its log.
    """

    layer: int | None
    dims: Dims
    reduce: Reduction | None = None
    last: int | None = None
    step: int | None = None
    skip: int = 0
    refusal: NetworkError | None = None

    @property
    def number(self) -> int:
        """The number of its layer, of what a layer gives."""
        assert self.layer is not None
        return self.layer

    @property
    def is_reduced(self) -> bool:
        """Whether steps were left out or put together."""
        return bool(self.reduce or self.last or self.skip)


@dataclass(eq=False)
class Record:
    """What is known of a tensor into which a loop over time writes its steps, until all of them are written.

    Attributes:
        place: which of its dimensions is time.
        steps: what was written, by step.
        count: how many steps there are to be.
    """

    place: int
    count: int
    steps: dict[int, Value] = field(default_factory=dict)
    layer: None = None


class Tracer:
    """The listener of one capture.

    Args:
        features: the shape of one step of one sample.
        steps: T of the input; None for an input without time.
        is_binary: whether the input is spikes.
        follow_loops: whether neurons may be called step by step, in a loop over time. Layers that compute the
            same from the same are then one: those of a step are those of every other step.
        modules: what a call of a module gives, or NotImplemented to look inside.
        time: which dimension of the input is time, if it has any.
    """

    def __init__(
        self,
        features: Shape,
        steps: int | None,
        is_binary: bool,
        follow_loops: bool,
        modules: Callable[..., Any],
        time: int = 0,
    ) -> None:
        self.layers: list[Layer] = [
            Input(
                name="input",
                where="the input",
                function="",
                sources=(),
                shape=features,
                features=features,
                has_time=steps is not None,
                time=time,
                is_binary=is_binary,
            )
        ]
        self.positions = [0]  # of each layer: how many functions and modules had been handled before
        self.steps, self.follow_loops = steps, follow_loops
        self.repeats = 0  # T of a model that repeats its input, once it does
        self.name = ""  # of the function whose rule is applied
        self.calls: dict[nn.Module, list[tuple[int, int]]] = {}  # of neurons that take single steps
        self.capture: Capture
        self.refusals: list[NetworkError] | None = None  # a list to go on after them, as far as that goes
        self._modules = modules
        self._numbers: dict[Any, int] = {}  # of layers, by all that they compute with
        self._input_is_read = False

    # --- what the capture calls -----------------------------------------------------------------------------

    def module(self, module: nn.Module, path: str, args: Any, kwargs: Any) -> Any:
        """A call of a module; NotImplemented for all that is looked into."""
        inputs = stand_ins((args, kwargs))
        if not inputs:
            return NotImplemented
        try:
            return self._modules(self, module, args, kwargs)
        except NetworkError as refusal:
            if self.refusals is None or isinstance(refusal, MisfitError):
                raise
            return self._spikes_in_place(module, inputs[0], refusal)

    def function(self, name: str, args: Any, kwargs: Any, on_meta: Callable[[], Any]) -> Any:
        """A torch function that met a tensor of the network."""
        try:
            return self._function(name, args, kwargs, on_meta)
        except NetworkError as refusal:
            inputs = stand_ins((args, kwargs))
            if self.refusals is None or isinstance(refusal, MisfitError) or inputs[0].value.layer is None:
                raise
            # what changes no shape is taken for nothing, so that what comes behind it is read as well; what
            # changes features alone, for spikes in their shape
            result, value = on_meta(), inputs[0].value
            if not isinstance(result, Tensor):
                raise
            if result.shape != inputs[0].shape:
                value = self._in_shape(value, result.shape, name, refusal)
            self.refusals.append(refusal)
            return self.stand_in(value, result.dtype)

    def _in_shape(self, value: Value, shape: Sequence[int], name: str, refusal: NetworkError) -> Value:
        """Spikes in a shape that differs from a value's in its features; any other shape is not read on."""
        lead = len(value.dims) - len(features_of(value.dims))
        features = tuple(shape[lead:])
        if not features or tuple(shape[:lead]) != sizes(value.dims[:lead]):
            raise refusal
        source = self.source(value, lead)
        number = self.emit(Unreadable, [source], features, function=name, reason=str(refusal))
        return replace(value, layer=number, dims=(*value.dims[:lead], *of_features(features)))

    def _spikes_in_place(self, module: nn.Module, x: StandIn, refusal: NetworkError) -> Any:
        """Spikes in the shape of the input of a neuron that was refused."""
        spec = describe_neuron(module)
        alone = not spec.returns_potential if spec is not None else describe_recurrence(module) is not None
        if not alone and (spec is None or spec.kernel is None):
            raise refusal  # who knows how many tensors it returns
        assert self.refusals is not None
        self.refusals.append(refusal)
        value: Value = x.value
        number = self.emit(
            Unreadable,
            [self.source(value)],
            self.layer(value).shape,
            function=type(module).__name__,
            reason=str(refusal),
        )
        spikes = self.stand_in(replace(value, layer=number), x.dtype)
        return spikes if alone else (spikes, spikes)

    def _function(self, name: str, args: Any, kwargs: Any, on_meta: Callable[[], Any]) -> Any:
        plain = name if name in RULES or name in ADVICE else name.strip("_")  # add for add_ and __add__
        self.name = plain
        inputs = stand_ins((args, kwargs))
        if plain == "__setitem__":
            on_meta()  # torch's own words for what does not fit
            return RULES[plain](self, None, *args)
        for one in inputs:
            self.check_written(one)
        if plain in _LIKE_ANOTHER and not isinstance(args[0], StandIn):
            return getattr(Tensor, plain)(*tree_map_only(StandIn, _blank, args), **kwargs)
        if plain not in RULES:
            instead = ADVICE.get(plain, OTHERWISE)
            of_input = all(one.value.layer is not None and self._to_input(one.value.layer) for one in inputs)
            # a layer of torch in front of all others encodes nothing
            classes = set(type(self.capture.running()).__mro__) - {nn.Module}
            if of_input and not any(one.__module__.startswith("torch.nn") for one in classes):
                instead += f". {INPUT}"
            self.give_up(plain, f"calls {plain}, which no layer of a network is", instead)
        kept = [one.value for one in inputs if one.value.layer is None]
        if kept:
            result = on_meta() if kept[0].refusal and len(kept) == len(inputs) else None
            if not isinstance(result, Tensor):
                self.refuse_to_read(kept[0])
            return self.stand_in(replace(kept[0], dims=of_features(tuple(result.shape))), result.dtype)
        # Arguments that the rule does not know are refused here, so that a TypeError within a rule is not
        # taken for the user's.
        try:
            inspect.signature(RULES[plain]).bind(self, None, *args, **kwargs)
        except TypeError as error:
            self.refuse(f"calls {plain} in a way that cannot be read: {error}")
        self._check_equal_steps(plain, [one.value for one in inputs])
        result = on_meta() if plain not in _WITHOUT_META else None
        value = RULES[plain](self, result, *args, **kwargs)
        if not isinstance(value, Value):
            return value
        # torch has broadcast its inputs to a larger shape than the rule's, and no layer repeats numbers.
        if isinstance(result, Tensor) and sizes(value.dims) != tuple(result.shape):
            self.refuse(
                f"makes {list(result.shape)} of {list(sizes(value.dims))} by {plain}, which repeats numbers"
            )
        # A view shares its memory with its input, which matters when the model writes into one of them.
        family = inputs[0].family if plain in _SHARE_MEMORY else None
        return self.stand_in(value, getattr(result, "dtype", None), family)

    def _check_equal_steps(self, name: str, values: Sequence[Value]) -> None:
        """Before torch says that shapes don't fit: what meets has as many steps, or none."""
        steps = [axis.size for value in values for dim in value.dims for axis in dim if axis.kind == "T"]
        if len(set(steps)) > 1:
            self.refuse(f"joins {' and '.join(map(str, steps))} steps by {name}. {UNLIKE_STEPS}")

    # --- for the rules --------------------------------------------------------------------------------------

    def refuse(self, why: str) -> NoReturn:
        self.capture.refuse(why)

    def give_up(self, function: str, why: str, reason: str, *, keeps_potential: bool = False) -> NoReturn:
        """Ends the description with what cannot be read, so that an export can say it in its own words."""
        self.layers.append(
            Unreadable(
                name=self.here(),
                where=self.capture.where(),
                function=function,
                sources=(),
                shape=(),
                reason=reason,
                keeps_potential=keeps_potential,
            )
        )
        self.positions.append(self.capture.handled)
        self.refuse(f"{why}. {reason}")

    def refuse_loop(self) -> NoReturn:
        """Refuses a function that takes a sequence apart."""
        self.give_up(self.name, f"calls {self.name}, which no layer of a network is", self.time_loop())

    def time_loop(self) -> str:
        """What to do instead of the loop over time in the module that is running."""
        package = type(self.capture.running()).__module__.partition(".")[0]
        return OWN_LOOP if package in ("spikingjelly", "snntorch") else TIME_LOOP

    def stand_in(self, value: Value, dtype: torch.dtype | None = None, family: Any = None) -> StandIn:
        """What the model gets for a value."""
        return StandIn(sizes(value.dims), value, self.capture, dtype, family)

    def value(self, tensor: Any, what: str) -> Value:
        """The value of a tensor of the network; anything else is refused."""
        if not isinstance(tensor, StandIn):
            self.refuse(f"wants {what} to be computed from the model's input, got {type(tensor).__name__}")
        self.check_written(tensor)
        value: Value = tensor.value
        if value.layer is None:
            self.refuse_to_read(value)
        return value

    def check_written(self, tensor: StandIn) -> None:
        """Refuses a tensor of which some steps are not written yet."""
        record = tensor.value
        if isinstance(record, Record):
            self.refuse(
                f"reads a tensor of {record.count} steps, {len(record.steps)} of which are written so far. A "
                "loop writes each step once, and what it has written is read behind it"
            )

    def refuse_to_read(self, value: Value) -> NoReturn:
        """Refuses what no layer gives, where the network needs it."""
        if value.refusal is not None:
            raise value.refusal
        self.refuse(
            "reads a neuron's history, or the places of largest numbers, or returns them, and no layer gives "
            "these. Use the spikes, or the largest numbers themselves (x.amax(0))"
        )

    def here(self) -> str:
        """The path of the module that is running; of the whole model, the function that it calls."""
        return self.capture.path() or self.name

    def layer(self, value: Value) -> Layer:
        """The layer whose output a value is."""
        return self.layers[value.number]

    def channel_dim(self, value: Value) -> Dim:
        """The dimension of the channels of a value's layer."""
        return of_features(self.layer(value).shape)[0]

    def features(
        self, value: Value, rank: int, what: str, name: str | None = None
    ) -> tuple[Value, Dims, Shape]:
        """A tensor whose last ``rank`` dimensions are its layer's own, the dimensions before, and the sizes.

        Features that were cut up or moved become a layer of their own, of the module that is running if it
        gets no other ``name``.
        """
        leading, trailing = value.dims[: len(value.dims) - rank], value.dims[len(value.dims) - rank :]
        shape = sizes(trailing)
        if not all(kinds(dim) <= {"T", "N"} for dim in leading) or any(
            kinds(dim) - {"F"} for dim in trailing
        ):
            self.refuse(
                f"gives {what} {labels(value.dims)}, and it reads [T, N, *] or [N, *] with {rank} dimensions "
                "of features. Put time and batch in front of them"
            )
        if trailing != of_features(shape) or not self.fits(value, shape):
            count = prod(shape)
            value = self.gathered(value, len(leading), np.arange(count).reshape(shape), name=name)
        return value, leading, shape

    def lead(self, value: Value) -> int:
        """How many dimensions of time and batch stand in front of the features."""
        features = [i for i, dim in enumerate(value.dims) if not kinds(dim) & {"T", "N"}]
        lead = features[0] if features else len(value.dims)
        if any(kinds(dim) & {"T", "N"} for dim in value.dims[lead:]):
            self.refuse(
                f"moves features of {labels(value.dims)}, whose time or batch stands behind them. Put "
                "both in front, as [T, N, *]"
            )
        return lead

    def gathered(
        self,
        value: Value,
        lead: int,
        places: NDArray[np.int64],
        fill: Fraction = Fraction(0),
        name: str | None = None,
    ) -> Value:
        """A tensor whose features are those of ``value`` at other places.

        Args:
            value: the tensor that is read.
            lead: how many dimensions it has in front of its features.
            places: of the shape that the features have then; each a row-major place in those of ``value``,
                or -1 for ``fill``.
            fill: a number.
            name: of the layer, where it is another than that of the module that is running.
        """
        own = places_of([axis for dim in value.dims[lead:] for axis in dim])
        chosen = np.where(places < 0, -1, own[places])
        layer, source, chosen = self.layer(value), self.source(value, lead), chosen.ravel()
        moved = replace(value, dims=(*value.dims[:lead], *of_features(places.shape)))
        # what is moved twice, as by a split into heads and a transposition, is moved once
        if isinstance(layer, Gather) and not value.reduce:
            outside = (chosen < 0).any() or (layer.places < 0).any()
            if not outside or fill == layer.fill:
                chosen = np.where(chosen < 0, -1, layer.places[chosen])
                (source,) = layer.sources
                layer, moved = self.layers[source.layer], replace(moved, layer=source.layer)
        shape = places.shape or (1,)
        stays = np.array_equal(chosen, np.arange(prod(layer.shape)))
        if stays and (as_map(shape) == as_map(layer.shape) or self.fits(value, shape)):
            return moved
        return replace(moved, layer=self.emit(Gather, [source], shape, places=chosen, fill=fill, name=name))

    def fits(self, value: Value, shape: Shape) -> bool:
        """Whether the layer of a value has this shape; that of the input is up to its first reader."""
        # users give images flat and networks view them, or the other way round: the input has no order of
        # its own until something reads it
        chain = self._to_input(value.number)
        if chain and not self._input_is_read:
            for number in chain:
                self._numbers.pop(_key(self.layers[number]), None)
                self.layers[number] = replace(self.layers[number], shape=shape)
                self._numbers[_key(self.layers[number])] = number
        return as_map(self.layer(value).shape) == as_map(shape)

    def settle(self, value: Value) -> None:
        """Lets an input that nothing has read have the shape of a tensor, whose features are its own view."""
        features = features_of(value.dims)
        if features == of_features(sizes(features)):
            self.fits(value, sizes(features))

    def _to_input(self, number: int) -> list[int]:
        """The layers from one to the input, if nothing but single factors lies between them."""
        chain = [number]
        while isinstance(layer := self.layers[number], Affine):
            # A single factor fits every shape, so it does not settle which one the input has.
            if layer.offset is not None or layer.scale is None or layer.scale.size > 1:
                return []
            number = layer.sources[0].layer
            chain.append(number)
        return chain if number == 0 else []

    def check_channels(self, value: Value, dim: int, what: str) -> int:
        """The number of channels; they have to lie along ``dim``."""
        shape = self.layer(value).shape
        if len(value.dims) <= dim or value.dims[dim] != self.channel_dim(value):
            self.refuse(
                f"has {what} for each channel of dim {dim}, but there lie "
                f"{list(sizes(value.dims))[dim : dim + 1]} numbers, while the map has "
                f"{shape[0]} channels. Put it before the flattening"
            )
        return shape[0]

    def check_equal_periods(self, *values: Value) -> None:
        """What meets has to be pooled over time alike, also where its steps are gone or the same."""
        periods = [self.layer(value).period for value in values]
        if len(set(periods)) > 1:
            rates = " and ".join(f"one for every {period}" for period in periods)
            self.refuse(f"joins maps of unlike steps by {self.name}, {rates} of the input's. {UNLIKE_STEPS}")

    def at_step(self, value: Value, dims: Dims, step: int) -> Value:
        """One step of a value. Where loops are not followed that is the last, the mean over a single one."""
        if self.follow_loops:
            return replace(value, dims=dims, step=value.skip + step, skip=0)
        return replace(value, dims=dims, reduce="mean", last=1, skip=0)

    def source(self, value: Value, lead: int | None = None) -> Source:
        """How a value is read: its features are all dimensions but the first ``lead``, or time and batch."""
        return Source(value.number, features_of(value.dims[lead:]), value.reduce, value.last, value.skip)

    def emit(
        self, kind: type[Layer], sources: Sequence[Source], shape: Shape, *, period: int = 1, **held: Any
    ) -> int:
        """The number of a new layer of the module that is running; ``period`` counts steps of its sources."""
        held.setdefault("function", self.name)
        name = held.pop("name", None) or self.here()
        layer = kind(name=name, where="", sources=(), shape=tuple(shape), period=period, **held)
        return self.add(layer, sources)

    def drop(self, count: int) -> None:
        """Forgets all layers behind the first ``count``, which nothing may read."""
        del self.layers[count:], self.positions[count:]
        self._numbers = {key: number for key, number in self._numbers.items() if number < count}

    def add(self, layer: Layer, sources: Sequence[Source]) -> int:
        """The number of a layer that reads these; where loops are followed, that of an equal one."""
        # what only moves numbers may as well do that before the largest are taken
        if any(source.reduce == "max" for source in sources) and not isinstance(layer, Gather):
            self.refuse(
                f"computes with the largest numbers over time ({layer.function}), which only what the model "
                "returns can be. Take the largest of what comes out at the end"
            )
        period = layer.period * self.layers[sources[0].layer].period
        layer = replace(layer, where=self.capture.where(), sources=tuple(sources), period=period)
        self.layers.append(layer)
        self.positions.append(self.capture.handled)
        number = len(self.layers) - 1
        # The first layer with a shape of its own settles in which shape the input is read.
        if not self._to_input(number):
            self._input_is_read |= any(self._to_input(source.layer) for source in sources)
        if not self.follow_loops:
            return number
        # the layers of every step of a loop compute the same from the same, and so are one
        first = self._numbers.setdefault(_key(layer), number)
        if first != number:
            self.layers.pop()
            self.positions.pop()
        return first


def _blank(one: StandIn) -> Tensor:
    """A tensor of the same shape, dtype and device that is no stand-in, and takes no memory."""
    return torch.zeros((), dtype=one.dtype, device=one.device).expand(tuple(one.shape))


def equal(a: Any, b: Any) -> bool:
    """Whether two layers, or what holds them, compute with the same numbers.

    >>> equal({"taps": (np.ones(2), 3)}, {"taps": (np.ones(2), 3)}), equal(np.ones(2), np.ones(3))
    (True, False)
    """
    return bool(_key(a) == _key(b))


def _key(held: Any) -> Any:
    """What tells apart layers, or what they hold: equal for equal numbers."""
    if isinstance(held, Tensor):
        # NumPy has no bfloat16, and float32 holds all of its numbers.
        held = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    if isinstance(held, np.ndarray):
        if held.dtype == object:
            # The bytes of an object array are addresses, so fractions are compared themselves.
            return held.shape, tuple(held.ravel())
        # A digest is compared instead of the numbers, so that the table of layers holds no second copy of the
        # weights.
        return held.shape, str(held.dtype), hashlib.blake2b(held.tobytes(), digest_size=16).digest()
    if is_dataclass(held):
        return type(held), *(_key(getattr(held, field.name)) for field in fields(held))
    if isinstance(held, dict):
        return tuple((name, _key(value)) for name, value in held.items())
    if isinstance(held, tuple) and not isinstance(held, Axis):
        return tuple(map(_key, held))
    return held
