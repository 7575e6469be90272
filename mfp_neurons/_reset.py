"""Starting some samples of a batch anew, while the others go on."""

from typing import NoReturn

import torch
from torch import Tensor, nn

from ._checks import describe, is_readable


def reset_samples(module: nn.Module, samples: Tensor) -> None:
    r"""Ends the sequences of some samples: their next step starts from rest, the others go on.

    What an episode that is over, or a stream that is cut, asks for. It works for every neuron of this package
    that keeps a state between calls (``MFPNode``, ``MFPLeaky``, ``MFPLeakyParallel`` with a hidden state),
    whatever its kernel. States are replaced and not written into, so a backward pass through the steps before
    still works; no gradient passes from the samples' next sequence to their last one.

    Args:
        module: a neuron, or a model that holds neurons.
        samples: which of the N samples of the batch: a bool mask [N], or their indices, an integer tensor
            [k]; on any device.

    Raises:
        TypeError: ``samples`` is neither.
        ValueError: it does not fit the N samples of a state; a neuron cannot start some samples anew (a
            matrix kernel has one position in time for all); or ``module`` holds neurons of SpikingJelly or
            snnTorch with a state of their own, which would go on.

    >>> from mfp_neurons import MFPNode, reset_samples
    >>> node = MFPNode(decay_input=False, v_threshold=9.0, order=4, reset=None)
    >>> _ = node(torch.ones(2, 1))
    >>> reset_samples(node, torch.tensor([True, False]))
    >>> _ = node(torch.zeros(2, 1))
    >>> node.v.flatten()
    tensor([0.0000, 0.5000])
    """
    check_samples(samples)
    others = [path for path, one in module.named_modules() if _keeps_a_state_of_its_own(one)]
    if others:
        raise ValueError(
            f"reset_samples does not know the states of {', '.join(map(repr, others))}, which are no neurons "
            "of mfp_neurons and would go on. Swap them with convert(), or call reset_samples on each module "
            "whose neurons it knows and reset the samples of the others yourself"
        )
    for one in module.modules():
        reset = getattr(one, "reset_samples", None)
        if callable(reset):
            reset(samples)  # twice where a wrapper shows its module's attributes, which changes nothing


def check_samples(samples: Tensor) -> None:
    """Raises TypeError unless ``samples`` is a bool mask [N] or an integer tensor [k]."""
    fits = isinstance(samples, Tensor) and samples.dim() == 1
    if not fits or samples.is_floating_point() or samples.is_complex():
        raise TypeError(
            "samples must be a bool mask [N] or the indices of samples, an integer tensor [k], "
            f"got {describe(samples)}"
        )


def refuse_matrix(restart: str) -> NoReturn:
    """Raises ValueError, since a matrix kernel cannot start some samples anew; ``restart`` starts all."""
    raise ValueError(
        "a matrix kernel has one position in time for all samples, so that some of them cannot start anew. "
        f"{restart} starts all of them; kernel='fir' weighs alike at every time"
    )


def sample_mask(samples: Tensor, state: Tensor) -> Tensor:
    r"""Which samples of a state [N, \*] to reset, as a bool mask [N, 1, ..] on its device.

    Raises:
        TypeError, ValueError: as :func:`reset_samples`.
    """
    check_samples(samples)
    if state.dim() == 0:
        raise ValueError("reset_samples needs a state [N, *] of N samples, got one of a single number")
    count = len(state)
    if samples.dtype == torch.bool:
        if len(samples) != count:
            raise ValueError(f"samples must be a mask of the {count} samples of a state, got {len(samples)}")
        mask = samples.to(state.device)
    else:
        if is_readable(samples) and bool(((samples < -count) | (samples >= count)).any()):
            raise ValueError(f"samples must be from {-count} to {count - 1}, got {samples.tolist()}")
        mask = torch.zeros(count, dtype=torch.bool, device=state.device)
        mask[samples.to(state.device, torch.long)] = True
    return mask.reshape(count, *[1] * (state.dim() - 1))


def _keeps_a_state_of_its_own(module: nn.Module) -> bool:
    """Whether a neuron of another package goes on from what it holds now."""
    if callable(getattr(module, "reset_samples", None)):
        return False
    memories = getattr(module, "_memories", None)  # SpikingJelly
    if isinstance(memories, dict) and any(isinstance(value, Tensor) for value in memories.values()):
        return True
    return bool(getattr(module, "init_hidden", False))  # snnTorch
