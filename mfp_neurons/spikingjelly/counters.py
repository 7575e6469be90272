"""What SpikingJelly's counters cannot see by themselves: what our operators compute, read and write."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .node import MFPNode

# which arguments of each operator are the state
_STATE_AT = {
    "mfp_neurons::fire": (3, 7),
    "mfp_neurons::norm_fire": (3, 7),
    "aten::addcmul": (1,),  # one step of an infinite exponential
}


def _count_state(
    node: nn.Module, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, state_keys: set[Any]
) -> dict[str, int]:
    """Bytes of state that a call of our operator reads and writes: once for all T steps, as it runs.

    What stands around it, such as the affine map of a batch norm, adds nothing to that.
    """
    at = _STATE_AT.get(func.name())
    if at is None or (func.name() == "aten::addcmul" and args[0].shape != args[1].shape):
        return {}
    states = [args[place] for place in at if args[place] is not None]
    size = sum(state.numel() * state.element_size() for state in states)
    return {"state_reads": size, "state_writes": size, "neuron_logical_steps": args[0].numel()}


#: For 2.0.0's ``NeuronStateCounter(extra_state_rules=STATE_RULES)``, which cannot look into an operator.
STATE_RULES = {MFPNode: _count_state}

_Rule = Callable[[tuple[Any, ...], dict[str, Any], Any], int]


def _bytes_touched(args: Any, kwargs: Any, out: Any) -> int:
    """Every tensor that goes in or comes out is read or written once."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _bytes_made(args: Any, kwargs: Any, out: Any) -> int:
    return _bytes_touched((), {}, out)


def _none(args: Any, kwargs: Any, out: Any) -> int:
    return 0


def _one_an_element(args: Any, kwargs: Any, out: Tensor) -> int:
    return max(leaf.numel() for leaf in tree_leaves((args, out)) if isinstance(leaf, Tensor))


def _three_an_element(args: Any, kwargs: Any, out: Tensor) -> int:
    return 3 * out.numel()


def _weighted_sums(kind: str, x: Tensor, kernel: Tensor, state: Tensor | None) -> int:
    """Multiplications and additions of u[t] for all t."""
    if kind == "exp":
        return 3 * x.numel()  # decay * u + gain * x
    steps = len(x)
    if kind == "matrix":
        taps = [kernel.shape[1] - steps + t + 1 for t in range(steps)]
    else:
        taps = [len(kernel) if state is not None else min(t + 1, len(kernel)) for t in range(steps)]
    return sum(2 * count - 1 for count in taps) * (x.numel() // steps)


def _fed_back(x: Tensor, feedback: Tensor | None) -> int:
    return 0 if feedback is None else 2 * len(feedback) * x.numel()


def _fire(args: Any, kwargs: Any, out: Any) -> int:
    x, kernel, threshold, state, scale, _, feedback, _, kind = args[:9]
    affine = 0 if scale is None else 2 * x.numel()
    comparisons = 0 if threshold is None else x.numel()
    return _weighted_sums(kind, x, kernel, state) + _fed_back(x, feedback) + affine + comparisons


def _norm_fire(args: Any, kwargs: Any, out: Any) -> int:
    x, kernel, _, state, _, _, feedback, _, kind = args[:9]
    # mean 1, variance 2 and the affine map 2 an element; what is done once a channel is left out
    return _weighted_sums(kind, x, kernel, state) + _fed_back(x, feedback) + 6 * x.numel()


_OURS = torch.ops.mfp_neurons
_NEURONS: dict[Any, _Rule] = {
    _OURS.fire.default: _fire,
    _OURS.norm_fire.default: _norm_fire,
}
_aten = torch.ops.aten
_VIEWS = (_aten.slice.Tensor, _aten.lift_fresh.default, _aten._local_scalar_dense.default)
_CREATIONS = (
    _aten.full.default,
    _aten.arange.default,
    _aten.zeros_like.default,
    _aten.new_zeros.default,
)
_COPIES = (_aten.cat.default, _aten.index.Tensor, _aten.tril.default)
_ELEMENTWISE = (  # of parameters before they reach the operator, and of a potential that is reset
    _aten.abs.default,
    _aten.all.default,
    _aten.amax.default,
    _aten.bitwise_and.Tensor,
    _aten.bitwise_not.default,
    _aten.ceil.default,
    _aten.clamp.default,
    _aten.clamp_min.default,
    _aten.exp2.default,
    _aten.isinf.default,
    _aten.log2.default,
    _aten.masked_fill.Scalar,
    _aten.pow.Scalar,
    _aten.pow.Tensor_Tensor,
    _aten.round.default,
    _aten.sign.default,
    _aten.where.self,
)

#: For 2.0.0's ``FlopCounter(extra_rules=FLOP_RULES)``: one operation for each multiplication, addition and
#: comparison of the forward pass, and what SpikingJelly lacks of PyTorch's operations on parameters.
FLOP_RULES: dict[Any, _Rule] = {
    **dict.fromkeys((*_VIEWS, *_CREATIONS, *_COPIES), _none),
    **dict.fromkeys(_ELEMENTWISE, _one_an_element),
    _aten.addcmul.default: _three_an_element,
    **_NEURONS,
}

#: For 2.0.0's ``MemoryAccessCounter(extra_rules=MEMORY_RULES)``: bytes read and written, each tensor once.
MEMORY_RULES: dict[Any, _Rule] = {
    **dict.fromkeys(_VIEWS, _none),
    **dict.fromkeys(_CREATIONS, _bytes_made),
    **dict.fromkeys((*_COPIES, *_ELEMENTWISE, _aten.addcmul.default, *_NEURONS), _bytes_touched),
}
