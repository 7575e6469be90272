"""Which framework a module is from, and what kind of neuron it is, without importing a framework."""

from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from .spec import NeuronSpec, RecurrenceSpec

__all__ = ["describe_neuron", "is_memory_free", "is_neuron"]


def framework_of(module: nn.Module) -> str | None:
    """ "spikingjelly" or "snntorch" where the module's class, or a base of it, is from there."""
    origins = {kind.__module__.partition(".")[0] for kind in type(module).__mro__}
    return next((name for name in ("spikingjelly", "snntorch") if name in origins), None)


def adapter_of(module: nn.Module) -> ModuleType | None:
    """This package's adapter of the framework that the module is from, so that it is imported already."""
    framework = framework_of(module)
    if framework == "spikingjelly":
        from . import spikingjelly

        return spikingjelly
    if framework == "snntorch":
        from . import snntorch

        return snntorch
    return None


def describe_neuron(module: nn.Module) -> NeuronSpec | None:
    """What a neuron computes and keeps; None for a module that is no spiking neuron.

    Args:
        module: any module. Neurons are those of this package, of SpikingJelly and of snnTorch, and classes
            derived from them; a neuron of your own has a method ``neuron_spec()`` that returns its
            :class:`mfp_neurons.spec.NeuronSpec`.

    Returns:
        The description of the neuron as it is now; it changes with the neuron's parameters, not with its
        options.

    >>> from mfp_neurons import MFP
    >>> spec = describe_neuron(MFP(decay=0.5, order=4))
    >>> spec.kernel.kind, spec.carried.what, spec.carried.steps, spec.threshold
    ('exp', 'inputs', 3, 1.0)
    """
    own = getattr(module, "neuron_spec", None)
    if callable(own):
        spec: NeuronSpec = own()
        return spec
    adapter = adapter_of(module)
    return None if adapter is None else adapter.neuron_spec(module)


def describe_recurrence(module: nn.Module) -> RecurrenceSpec | None:
    """How a framework's container feeds its neuron's last spikes back; None for any other module."""
    adapter = adapter_of(module)
    return None if adapter is None else getattr(adapter, "recurrence_spec", lambda _: None)(module)


def why_no_layer(module: nn.Module) -> str:
    """Why a framework's own layer is none of a network, and what to do; empty of any other module."""
    adapter = adapter_of(module)
    return "" if adapter is None else getattr(adapter, "why_no_layer", lambda _: "")(module)


def is_neuron(module: nn.Module) -> bool:
    """Whether a module is a spiking neuron that this package can describe."""
    return describe_neuron(module) is not None


def is_memory_free(module: nn.Module) -> bool:
    """Whether a module is a neuron whose last inputs and own last spikes give its potential."""
    spec = describe_neuron(module)
    return spec is not None and spec.is_memory_free


def kept_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The state tensors that a neuron holds now, by name."""
    spec = describe_neuron(module)
    names = () if spec is None else spec.state.all
    named = [(name, item) for name in names for item in tree_iter(getattr(module, name, None))]
    return [(name, item) for name, item in named if isinstance(item, Tensor) and item.numel()]


def put_state(module: nn.Module, name: str, value: Any) -> None:
    """Sets an attribute of ``StateNames`` past the checks that a neuron makes when its state is assigned."""
    # SpikingJelly keeps memories, snnTorch buffers, and MFPLeakyParallel a plain attribute
    holders: tuple[dict[str, Any], ...] = (
        getattr(module, "_memories", {}),
        module._buffers,
        vars(module),
    )
    next((holder for holder in holders if name in holder), vars(module))[name] = value


def overridden_forward(module: nn.Module) -> str | None:
    """The method ("Class.forward") by which a user's class changes what its base, a neuron, computes."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith(("mfp_neurons.", "spikingjelly.", "snntorch.")):
            return None
        # what the frameworks' and our own classes call to compute spikes
        changed = [name for name in vars(kind) if name.endswith("forward") or name in ("fire", "_run")]
        if changed:
            return f"{kind.__name__}.{changed[0]}"
    return None
