"""Finding the batch norms whose output goes to one neuron and nowhere else.

A module is traced with its children as black boxes, plain containers excepted; its own Python runs, on
stand-ins for tensors. What a batch norm's output reaches there is all that it reaches.
"""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .node import MFPNode
from .norms import NORMS, FusedNorm, become_fused

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fuse(model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Fuses every pair of batch norm and MFPNode, in place.

    Returns:
        Two dictionaries by the path of a batch norm. In the first, the path of the neuron that it is fused
        into now; in the second, for all others, why it stays as it is.
    """
    paths = {module: path for path, module in model.named_modules()}
    search = _Search(model)
    pairs, reasons = search.pairs, search.reasons
    for norm, neuron in pairs.items():
        become_fused(norm, paths[neuron])
    return (
        {paths[norm]: paths[neuron] for norm, neuron in pairs.items()},
        {paths[norm]: why for norm, why in reasons.items() if norm not in pairs},
    )


class _Search:
    """The pairs of a model, and why the other batch norms are in none."""

    def __init__(self, model: nn.Module) -> None:
        self.pairs: dict[Any, MFPNode] = {}
        self.reasons: dict[nn.Module, str] = {}
        self._paths = {module: path for path, module in model.named_modules()}
        # how many modules hold each one: a shared norm or neuron has other neighbors elsewhere
        self._homes = Counter(
            child for m in model.modules() for child in m._modules.values() if child is not None
        )
        norms = [module for module in self._paths if isinstance(module, _BatchNorm)]
        for norm in norms:
            self.reasons[norm] = self._unfit(norm) or "no MFPNode follows it in the same module"
        # norms whose use has not been found yet
        self._open = {norm for norm in norms if not self._unfit(norm)}
        for holder in self._paths:  # parents before their children, whose use they show
            self._look_into(holder)

    def _unfit(self, norm: nn.Module) -> str:
        """Why a batch norm can't be fused wherever it stands; empty if it can."""
        if isinstance(norm, FusedNorm):
            return "it is fused already"
        if type(norm) not in NORMS:
            return "only SpikingJelly's own BatchNorm1d, BatchNorm2d and BatchNorm3d can be fused"
        if _has_hooks(norm):
            return "it has hooks, which would make it run apart from its neuron"
        return "it stands in several places" if self._homes[norm] != 1 else ""

    def _look_into(self, holder: nn.Module) -> None:
        inside = list(_members(holder))
        norms = [module for module in inside if module in self._open]
        if not norms or not any(isinstance(module, MFPNode) for module in inside):
            return
        try:
            graphs = [_Uses(holder, training, fixed) for training, fixed in _ways_to_call(holder)]
        except Exception as error:  # whatever its Python does with a stand-in
            lines = str(error).strip().splitlines()
            words = ": ".join([type(error).__name__, *lines[:1]])
            self.reasons |= dict.fromkeys(norms, f"{self._name(holder)} could not be traced: {words}")
            return
        for norm in norms:
            if not any(graph.calls(norm) for graph in graphs):
                continue  # not used here; perhaps further in
            self._open.discard(norm)
            # the same neuron in training and evaluation, with optional arguments and without
            neurons = [self._neuron_behind(norm, graph) for graph in graphs]
            why = next((one for one in neurons if isinstance(one, str)), "")
            if why or len(set(neurons)) > 1:
                self.reasons[norm] = why or "its neuron is another one in evaluation"
            else:
                self.pairs[norm] = neurons[0]  # type: ignore[assignment]

    def _neuron_behind(self, norm: nn.Module, graph: "_Uses") -> MFPNode | str:
        """The neuron that alone gets the output of ``norm``, or why there is none."""
        calls = graph.calls(norm)
        if len(calls) != 1:
            return f"it is called {len(calls)} times"
        users = list(calls[0].users)
        if len(users) != 1:
            return f"its output goes to {len(users)} places"
        neuron = graph.module(users[0])
        if not isinstance(neuron, MFPNode):
            return f"its output goes to {self._user(users[0], neuron)}"
        where = self._name(neuron)
        if len(graph.calls(neuron)) != 1 or self._homes[neuron] != 1:
            return f"{where} behind it is used more than once"
        if users[0].args != (calls[0],) or users[0].kwargs:
            return f"{where} behind it gets more than its output"
        if _has_hooks(neuron):
            return f"{where} behind it has hooks, which would make the batch norm run apart from it"
        return neuron

    def _user(self, node: fx.Node, module: nn.Module | None) -> str:
        if module is not None:
            return self._name(module)
        if node.op == "output":
            return "the caller of the module that it is in"
        return str(getattr(node.target, "__name__", node.target))

    def _name(self, module: nn.Module) -> str:
        path = self._paths.get(module)
        return f"{path!r} ({type(module).__name__})" if path else f"the model ({type(module).__name__})"


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not _is_transparent(m)


class _Uses:
    """Which calls of children a module's forward makes, and where their results go."""

    def __init__(self, holder: nn.Module, training: bool, fixed: dict[str, Any]) -> None:
        # what a forward leaves on its module stays on this copy, which shares the children
        shadow = object.__new__(type(holder))
        own = {
            name: dict(value) if isinstance(value, dict) else value for name, value in vars(holder).items()
        }
        shadow.__dict__.update(own, training=training)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._graph = _Tracer().trace(shadow, concrete_args=fixed or None)
        self._modules = dict(shadow.named_modules())

    def module(self, node: fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def calls(self, module: nn.Module) -> list[fx.Node]:
        return [node for node in self._graph.nodes if self.module(node) is module]


def _ways_to_call(holder: nn.Module) -> Iterator[tuple[bool, dict[str, Any]]]:
    """(training, arguments with a fixed value): both modes, optional arguments left out and given."""
    optional = {
        name: parameter.default
        for name, parameter in inspect.signature(holder.forward).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    for training in (True, False):
        yield training, {}
        if optional:
            yield training, optional


def _members(holder: nn.Module) -> Iterator[nn.Module]:
    """The modules that show in a trace of ``holder``: its children, and in place of containers theirs."""
    for child in holder.children():
        if _is_transparent(child):
            yield from _members(child)
        else:
            yield child


def _is_transparent(module: nn.Module) -> bool:
    """Whether the calls of its children show in a trace of what holds it."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return True
    return type(module) is nn.Sequential and not _has_hooks(module)


def _has_hooks(module: nn.Module) -> bool:
    return any(getattr(module, hooks, None) for hooks in _HOOKS)
