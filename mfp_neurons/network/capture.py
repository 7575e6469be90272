"""Runs a model once on stand-ins for tensors, so that its own Python says what is computed from what.

A stand-in has a shape, a dtype and a device, but no numbers. Every torch function that it meets, and every
call of a module, goes to a :class:`Listener` instead; nothing expensive runs. What the model holds is as
before afterwards: it runs in evaluation mode on copies of its states, and its hooks do not run.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from math import inf
from typing import Any, NoReturn, Protocol, cast
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map_only

from .._checks import log_once
from .._undisturbed import undisturbed
from ..adapters import is_neuron, kept_tensors
from ..quantize.reading import set_weights, sets_weight
from .description import NetworkError

_CAPTURING = threading.Lock()  # one at a time: a method of torch.nn.Module is replaced meanwhile

# what can be asked of a tensor without looking at its numbers
_ASKED = (
    "shape dtype device ndim layout names dim size numel nelement ndimension __len__ element_size itemsize "
    "nbytes stride storage_offset is_contiguous is_floating_point is_complex is_signed is_same_size "
    "get_device is_cuda is_cpu is_meta is_mps is_xpu is_mkldnn is_sparse is_quantized is_nested is_leaf "
    "is_inference is_conj is_neg requires_grad grad grad_fn _version has_names __hash__"
)
_QUESTIONS = frozenset(_ASKED.split())


_ONE_INPUT = (
    "An integer network has one input: put several side by side in front of the model (torch.cat), and take "
    "them apart inside of it (x.chunk(2, -1), slices)"
)


class Listener(Protocol):
    """What is told of everything that happens to stand-ins."""

    def function(self, name: str, args: Any, kwargs: Any, on_meta: Callable[[], Any]) -> Any:
        """A torch function; ``on_meta`` gives its result on the meta device. Returns what the model gets."""

    def module(self, module: nn.Module, path: str, args: Any, kwargs: Any) -> Any:
        """A call of a module; NotImplemented to run its forward, or what it gives: stand-ins."""


class MisfitError(NetworkError):
    """torch refuses a function of these shapes, or the model's own Python a number of dimensions."""


class StandIn(Tensor):
    """A tensor without numbers. ``value`` is the listener's: what it knows of it."""

    value: Any
    capture: "Capture"
    family: list[Any]  # weak references to the stand-ins of the same memory

    @staticmethod
    def __new__(
        cls,
        shape: tuple[int, ...],
        value: Any,
        capture: "Capture",
        dtype: torch.dtype | None = None,
        family: list[Any] | None = None,
    ) -> "StandIn":
        tensor: StandIn = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype or capture.dtype, device=capture.device
        )
        tensor.value, tensor.capture = value, capture
        tensor.family = [] if family is None else family
        tensor.family.append(ref(tensor))
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        with torch._C.DisableTorchFunctionSubclass():
            return f"{type(self).__name__}({list(self.shape)})"

    def __format__(self, specification: str) -> str:
        return repr(self)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # The question is answered by the wrapper itself. Without the guard it would come back to this method.
        if name_of(func) in _QUESTIONS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return stand_ins((args, kwargs))[0].capture.function(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # Only what goes around __torch_function__ arrives here: an operator without the name by which rules
        # are known.
        stand_ins((args, kwargs))[0].capture.refuse(
            f"runs {func} outside torch's Python functions (in a scripted, compiled or vmapped one), where "
            "it cannot be captured. Call plain torch functions and modules there"
        )


def _copied(one: StandIn) -> StandIn:
    return StandIn(tuple(one.shape), one.value, one.capture, one.dtype, one.family)


def stand_ins(tree: Any) -> list[StandIn]:
    """All stand-ins among arguments."""
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, StandIn)]


def name_of(func: Any) -> str:
    """The name of a torch function, or of the attribute that is read (of one that is set: .data=)."""
    name = str(getattr(func, "__name__", func))
    if name == "__get__":
        return str(func.__self__.__name__)
    return f".{func.__self__.__name__}=" if name in ("__set__", "__delete__") else name


class Capture:
    """One run of a model on stand-ins.

    Args:
        model: the model.
        listener: who is told.
    """

    def __init__(self, model: nn.Module, listener: Listener) -> None:
        self.model, self.listener = model, listener
        # Stand-ins have the dtype and the device of the model, so that its own checks and casts go as with a
        # real input.
        floating = [p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()]
        self.dtype = floating[0].dtype if floating else torch.get_default_dtype()
        self.device = floating[0].device if floating else torch.device("cpu")
        self.handled = 0  # functions and modules so far
        self._paths = {module: path for path, module in model.named_modules()}
        self._inside: list[tuple[str, nn.Module]] = []
        self._checked: set[nn.Module] = set()
        self._refused: NetworkError | None = None
        self._adopted: list[tuple[StandIn, Tensor, Tensor]] = []  # with their memory, and what was in it

    def run(self, shape: tuple[int, ...], values: Sequence[Any]) -> list[Any]:
        """What the model returns, called once after the other with inputs of this shape.

        ``values`` are what the listener knows the inputs as.
        """
        self._say_that_hooks_do_not_run()
        self._say_that_states_are_left_out()
        with _CAPTURING, undisturbed(self.model), torch.no_grad(), self._calls_intercepted():
            try:
                returned = [self.model(StandIn(shape, value, self)) for value in values]
                # what is returned has to outlive what the model's own tensors are during the run
                return [tree_map_only(StandIn, _copied, one) for one in returned]
            finally:
                self._give_back()

    def adopt(self, tensor: Tensor, value: Any) -> StandIn:
        """Makes an ordinary tensor of numbers, which the model writes into, a stand-in until the run ends."""
        memory = tensor.new_empty(0).set_(tensor.untyped_storage())  # type: ignore[call-overload]
        numbers = memory.clone()
        # Nobody takes NaN for what the model has written: not a function that looks at the memory itself, nor
        # another view of it.
        memory.fill_(torch.nan)
        adopted: Any = tensor
        adopted.__class__ = StandIn
        adopted.value, adopted.capture, adopted.family = value, self, [ref(adopted)]
        self._adopted.append((adopted, memory, numbers))
        return cast(StandIn, adopted)

    def _give_back(self) -> None:
        tensor: Any
        with torch._C.DisableTorchFunctionSubclass():
            # of two views of one memory the first has seen its numbers
            for tensor, memory, numbers in reversed(self._adopted):
                memory.copy_(numbers)
                del tensor.value, tensor.capture, tensor.family
                tensor.__class__ = Tensor
        self._adopted.clear()

    def where(self) -> str:
        """The module that is running, for messages: its path and type."""
        path, module = self._inside[-1] if self._inside else ("", self.model)
        return named(path, module)

    def path(self) -> str:
        """The path of the module that is running."""
        return self._inside[-1][0] if self._inside else ""

    def running(self) -> nn.Module:
        """The module that is running."""
        return self._inside[-1][1] if self._inside else self.model

    @contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """Within it this module is the one that is running."""
        self._inside.append((self._paths.get(module, self.path()), module))
        try:
            yield
        finally:
            self._inside.pop()

    def refuse(self, why: str) -> NoReturn:
        self._refused = self.refusal(why)
        raise self._refused

    def refusal(self, why: str) -> NetworkError:
        """What is raised to refuse what the running module does."""
        refusal = NetworkError(f"{self.where()} {why}.")
        refusal.handled = self.handled
        return refusal

    def function(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A torch function that met a stand-in."""
        name = name_of(func)

        def on_meta() -> Any:
            return self._on_meta(func, name, args, kwargs)

        result = self.listener.function(name, args, kwargs, on_meta)
        self.handled += 1
        return self._write(name, args[0], result) if _writes(name) else result

    def _on_meta(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """The result for meta tensors: its shape is what is wanted, and torch's own errors."""

        def meta(tensor: Tensor) -> Tensor:
            with torch._C.DisableTorchFunctionSubclass():
                return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device="meta")

        meta_args, meta_kwargs = tree_map_only(Tensor, meta, (args, kwargs))
        try:
            return func(*meta_args, **meta_kwargs)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            shapes = ", ".join(str(list(one.shape)) for one in stand_ins((args, kwargs)))
            first = str(error).strip().splitlines()[0]
            raise MisfitError(f"{self.where()} calls {name} on {shapes}: {first}") from error

    def _write(self, name: str, target: Any, value: Any) -> Any:
        """An in-place function: ``target`` has another value from now on."""
        if not isinstance(value, StandIn):
            self.refuse(f"writes into a tensor that is not computed from the input ({name})")
        if not isinstance(target, StandIn):
            # zeros that a forward has made to add up in; what a module holds goes on to the next call
            if self._is_held(target) or target.shape != value.shape or not target.is_floating_point():
                self.refuse(
                    f"writes into a tensor that is not computed from the input ({name}). Use "
                    f"{name.strip('_')}, which gives another tensor"
                )
            return self.adopt(target, value.value)
        # Writing into one view changes every other view of the memory, which the listener does not follow. A
        # change of the shape alone leaves the others as they are.
        others = [one for one in target.family if one() is not None and one() is not target]
        if others and name not in _IN_PLACE_SHAPES:
            self.refuse(
                f"writes into a tensor of which a view is still in use ({name}). Use {name.rstrip('_')}"
            )
        with torch._C.DisableTorchFunctionSubclass():
            # The model goes on with this very object, so it is the object that takes the new shape and value.
            target.data = _blank_like(value)
        target.value = value.value
        return target

    def _is_held(self, tensor: Tensor) -> bool:
        """Whether the model holds the memory of a tensor, as a parameter, a buffer or an attribute."""
        held = (
            one for module in self.model.modules() for one in (*vars(module).values(), *module.buffers(False))
        )
        own = (one for one in chain(held, self.model.parameters()) if isinstance(one, Tensor))
        place = tensor.untyped_storage().data_ptr()
        return type(tensor) is not Tensor or any(
            not isinstance(one, StandIn) and one.untyped_storage().data_ptr() == place for one in own
        )

    @contextmanager
    def _calls_intercepted(self) -> Iterator[None]:
        # Replacing the call of all modules reaches every module, also those made during the run, and changes
        # none of them. Other threads get the original.
        original = nn.Module.__call__
        thread = threading.get_ident()

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != thread:
                return original(module, *args, **kwargs)
            return self._call(module, args, kwargs)

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]

    def _call(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        module = getattr(module, "_orig_mod", module)  # torch.compile's wrapper
        # A module that is made during the run has no path; its messages name the module that made it.
        path = self._paths.get(module, self.path())
        self._inside.append((path, module))
        try:
            set_weights(module)
            self._check_numbers(module)
            returned = self.listener.module(module, path, args, kwargs)
            if returned is not NotImplemented:
                self.handled += 1
                return returned
            # The forward alone is called: hooks may need numbers, which a stand-in lacks.
            return module.forward(*args, **kwargs)
        except NetworkError:
            raise
        except Exception as error:  # whatever the model's own Python makes of a stand-in
            if self._refused:  # TorchScript makes an error of its own of it
                raise self._refused from error
            first = (str(error).strip().splitlines() or [""])[0]
            text = f"{self.where()} raised {type(error).__name__}: {first}"
            if isinstance(error, ValueError):
                raise MisfitError(text) from error
            if isinstance(error, TypeError) and module is self.model and "missing" in first:
                text = f"{text.rstrip('.')}. {_ONE_INPUT}"
            raise NetworkError(text) from error
        finally:
            self._inside.pop()

    def _check_numbers(self, module: nn.Module) -> None:
        """Refuses NaN and infinities before they make other numbers wrong; a threshold may be inf."""
        if module in self._checked:
            return
        self._checked.add(module)
        inside = is_neuron(module)  # a neuron is read as a whole
        named_ones = chain(module.named_parameters(recurse=inside), module.named_buffers(recurse=inside))
        for name, tensor in named_ones:
            if tensor.is_meta:
                self.refuse(
                    f"has no numbers in {name}, which is on the meta device. Load its checkpoint first"
                )
            wrong = ~(tensor > -inf) if "threshold" in name else ~tensor.isfinite()
            if bool(wrong.any()):
                places = f"{int(wrong.sum())} of {wrong.numel()} places"
                self.refuse(
                    f"has {tensor[wrong][0].item()} in {name}, in {places}. Numbers must be finite: take a "
                    "checkpoint from before training diverged"
                )

    def _say_that_hooks_do_not_run(self) -> None:
        hooked = [
            path or type(module).__name__
            for module, path in self._paths.items()
            if module._forward_hooks or not all(map(sets_weight, module._forward_pre_hooks.values()))
        ]
        if hooked:
            log_once(
                "deploy.hooks",
                "forward hooks are not run when a model is lowered: what they change is not in the network "
                "(%s)",
                ", ".join(hooked),
            )

    def _say_that_states_are_left_out(self) -> None:
        kept = [
            path or type(module).__name__
            for module, path in self._paths.items()
            if is_neuron(module) and any(bool(state.any()) for _, state in kept_tensors(module))
        ]
        if kept:
            log_once(
                "deploy.states",
                "neurons hold the state that a call left in them; it stays there, and what is read from the "
                "model starts every sequence from rest (%s)",
                ", ".join(kept),
            )


def named(path: str, module: nn.Module) -> str:
    """A module for messages."""
    return f"{path!r} ({type(module).__name__})" if path else f"the model ({type(module).__name__})"


def _blank_like(like: StandIn) -> Tensor:
    return torch.Tensor._make_wrapper_subclass(
        StandIn, tuple(like.shape), dtype=like.dtype, device=like.device
    )


def _writes(name: str) -> bool:
    return name in _IN_PLACE_DUNDERS or (name.endswith("_") and not name.endswith("__"))


_IN_PLACE_SHAPES = frozenset(
    ("unsqueeze_", "squeeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "requires_grad_", "detach_")
)
_IN_PLACE_DUNDERS = frozenset(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "and", "or", "pow"))
