"""What a torch function does to the tensors of a network: one rule for each, by its name.

A rule takes what the function takes, after the :class:`Lowering` that it is part of and the function's result
on the meta device. It returns the new :class:`Value`, or what the model gets as it is.
"""

import inspect
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..graph import Input, Shape
from .axes import Dims, kinds, of_features, sizes
from .capture import Capture, StandIn, stand_ins
from .refusals import ADVICE, OTHERWISE, UNLIKE_STEPS
from .symbols import Branch, Current, Draft, Potential, Value

Rule = Callable[..., Any]
_RULES: dict[str, Rule] = {}
_SHARE_MEMORY: set[str] = set()  # functions that give a view of their input


def rule(*names: str, view: bool = False) -> Callable[[Rule], Rule]:
    """Makes a function the rule of these torch functions; ``view``: they give a view of their first input."""

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in _RULES, name
            _RULES[name] = function
        if view:
            _SHARE_MEMORY.update(names)
        return function

    return register


class Lowering:
    """The listener of one capture: applies the rules, and grows the network.

    Args:
        given: the input.
        steps: T of the input; None for a model that repeats it itself.
        whole: whether the model is given the levels themselves, in an integer dtype.
        kept: the part of the steps that a neuron without an order remembers.
        modules: what a call of a module gives, or NotImplemented to look inside.
    """

    def __init__(
        self, given: Input, steps: int | None, whole: bool, kept: Fraction, modules: Callable[..., Any]
    ) -> None:
        self.draft, self.steps, self.whole, self.kept = Draft(given), steps, whole, kept
        self.fixed = False  # whether a neuron fixes the number of steps
        self.forgetful: list[str] = []  # neurons that remember all steps in PyTorch
        self.repeats = 0  # T of a model that repeats its input, once it does
        self.name = ""  # of the function whose rule is applied
        self._modules = modules
        self.capture: Capture

    def module(self, module: nn.Module, path: str, args: Any, kwargs: Any) -> Any:
        """A call of a module."""
        return self._modules(self, module, path, args, kwargs)

    def function(self, name: str, args: Any, kwargs: Any, on_meta: Callable[[], Any]) -> Any:
        """A torch function that met a tensor of the network."""
        plain = _plain(name)
        if plain not in _RULES:
            self.refuse_function(plain)
        given = stand_ins((args, kwargs))
        for content in (one.value.content for one in given):
            if isinstance(content, Potential):
                self.refuse(
                    f"computes with the membrane potential of {content.behind} ({plain}), and an integer "
                    "network writes no potential down. Use the spikes; as scores, what the last synapse "
                    "gives without a neuron behind it"
                )
        try:
            inspect.signature(_RULES[plain]).bind(self, None, *args, **kwargs)
        except TypeError as error:
            self.refuse(f"calls {plain} in a way that cannot be lowered: {error}")
        self.name = plain
        self._check_equal_steps(plain, [one.value for one in given])
        result = on_meta() if plain not in _WITHOUT_META else None
        made = _RULES[plain](self, result, *args, **kwargs)
        if not isinstance(made, Value):
            return made
        if isinstance(result, Tensor) and sizes(made.dims) != tuple(result.shape):
            self.refuse(
                f"makes {list(result.shape)} of {list(sizes(made.dims))} by {plain}, which repeats numbers"
            )
        family = given[0].family if plain in _SHARE_MEMORY else None
        return self.stand_in(made, getattr(result, "dtype", None), family)

    def _check_equal_steps(self, name: str, values: Sequence[Value]) -> None:
        """Before torch says that shapes don't fit: what meets has as many steps, or none."""
        steps = [axis.size for value in values for dim in value.dims for axis in dim if axis.kind == "T"]
        if len(set(steps)) > 1:
            self.refuse(f"joins {' and '.join(map(str, steps))} steps by {name}. {UNLIKE_STEPS}")

    def check_equal_periods(self, *values: Value) -> None:
        """What meets has to be pooled over time alike, also where its steps are gone or the same."""
        contents = [value.content for value in values if not isinstance(value.content, Potential)]
        periods = [self.draft.period(content) for content in contents]
        if len(set(periods)) > 1:
            each = " and ".join(f"one for every {period}" for period in periods)
            self.refuse(f"joins maps of unlike steps by {self.name}, {each} of the input's. {UNLIKE_STEPS}")

    def stand_in(self, value: Value, dtype: torch.dtype | None = None, family: Any = None) -> StandIn:
        """What the model gets for a value."""
        return StandIn(sizes(value.dims), value, self.capture, dtype, family)

    def value(self, tensor: Any, what: str) -> Value:
        """The value of a tensor of the network; anything else is refused."""
        if not isinstance(tensor, StandIn):
            self.refuse(f"wants {what} to be computed from the model's input, got {type(tensor).__name__}")
        value: Value = tensor.value
        return value

    def refuse(self, why: str) -> NoReturn:
        self.capture.refuse(why)

    def refuse_function(self, name: str) -> NoReturn:
        self.refuse(f"calls {name}, which no integer network has. {ADVICE.get(name, OTHERWISE)}")

    def features(self, value: Value, rank: int, what: str) -> tuple[Dims, Shape]:
        """The leading dimensions of a tensor, and (C, H, W) of its last ``rank`` ones, which are its map."""
        leading, trailing = value.dims[: len(value.dims) - rank], value.dims[len(value.dims) - rank :]
        given = sizes(trailing)
        shape: Shape = (given[0], 1, given[1]) if rank == 2 else (given[0], given[1], given[2])
        batch = all(kinds(dim) <= {"T", "N"} for dim in leading)
        assert not isinstance(value.content, Potential)
        if not batch or trailing != of_features(given) or not self.draft.fits(value.content, shape):
            self.refuse(
                f"gives {what} channels, rows or columns that were cut up, moved or made from others (its "
                f"input is {list(sizes(value.dims))}, the map {list(self.draft.shape(value.content))}). "
                "Features keep the shape that a layer gave them until they are flattened for a linear layer"
            )
        return leading, shape

    def check_channels(self, value: Value, dim: int, what: str) -> int:
        """The number of channels; they have to lie along ``dim``."""
        assert not isinstance(value.content, Potential)
        channels = self.draft.channel_dim(value.content)
        if len(value.dims) <= dim or value.dims[dim] != channels:
            self.refuse(
                f"has {what} for each channel of dim {dim}, but there lie "
                f"{list(sizes(value.dims))[dim : dim + 1]} numbers, while the map has "
                f"{self.draft.shape(value.content)[0]} channels. Put it before the flattening"
            )
        return self.draft.shape(value.content)[0]

    def current(self, value: Value) -> Current:
        """A value as a current."""
        assert not isinstance(value.content, Potential)
        return self.draft.current(value.content, self.here(), self.capture.where())

    def made(self, *branches: Branch) -> Current:
        """What the module that is running makes."""
        return Current(branches, self.here(), self.capture.where())

    def here(self) -> str:
        """The path of the module that is running; of the whole model, the function that it calls."""
        return self.capture.path() or self.name


def constant(low: Lowering, number: Any, value: Value) -> Fraction | list[Fraction]:
    """A number, or one for each channel, that meets a value; read exactly."""
    if isinstance(number, bool | int | float):
        return _fraction(low, float(number) if isinstance(number, float) else int(number))
    if not isinstance(number, Tensor) or number.is_complex():
        low.refuse(f"computes with {type(number).__name__}, which is neither number nor tensor")
    exact = number.detach().cpu().double()
    if exact.numel() and bool((exact == exact.flatten()[0]).all()):
        return _fraction(low, exact.flatten()[0].item())
    assert not isinstance(value.content, Potential)
    channels = low.draft.channel_dim(value.content)
    place = [len(value.dims) - exact.dim() + i for i, size in enumerate(exact.shape) if size > 1]
    if len(place) != 1 or place[0] < 0 or value.dims[place[0]] != channels:
        low.refuse(
            f"computes with {list(number.shape)} numbers and {list(sizes(value.dims))}. Only one number, or "
            "one for each channel, folds into a threshold"
        )
    return [_fraction(low, one) for one in exact.flatten().tolist()]


def _fraction(low: Lowering, number: float) -> Fraction:
    if number != number or number in (float("inf"), float("-inf")):
        low.refuse(f"computes with {number}. Numbers must be finite")
    return Fraction(number)


# functions whose shapes need no device, or that the meta device can't do
_WITHOUT_META = frozenset(("to", "cpu", "cuda", "type", "type_as", "data", "requires_grad", "pin_memory"))


def _plain(name: str) -> str:
    """The name of a function without what says that it is an operator or works in place: add for add_."""
    return name if name in _RULES or name in ADVICE else name.strip("_")
