"""What a neuron's own spikes change, in stock operators: one step after the other, forward and back.

Blocks are [T, n, c, r], in the wide dtype. The equations are those of docs/neuron.md, and the names of
:class:`mfp_neurons.backends.Call`. Twin of kernels/host/feedback.h.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from . import Call, torch_sums


class Block(NamedTuple):
    """A block of neurons that feed spikes back; parameters broadcast over a step [n, c, r]."""

    call: Call
    inputs: Tensor  #: y [T, n, c, r], what the neuron gets
    kernel: list[Tensor]  #: decay and gain, or K taps
    threshold: Tensor | float
    state: Tensor | None  #: the last potential, or K - 1 inputs
    feedback: Tensor | None  #: R taps [R, ...]
    own_spikes: Tensor | None  #: [R, n, c, r]

    def spikes(self) -> Tensor:
        """Room for the own spikes [R + T, n, c, r]: those before the first step, and zeros."""
        held = self.call.spikes_held
        own = self.inputs.new_zeros((held + len(self.inputs), *self.inputs.shape[1:]))
        if self.own_spikes is not None:
            own[:held] = self.own_spikes
        return own

    def fires(self, u: Tensor) -> Tensor:
        return u > self.threshold if self.call.strict else u >= self.threshold

    def decayed_from(self, u: Tensor, t: int, own: Tensor) -> Tensor | None:
        """The potential that a recursion goes on from at step t; None at rest."""
        before = u[t - 1] if t > 0 else self.state
        if before is None or self.call.reset != "zero":
            return before
        return torch.where(own[t] > 0, 0, before)  # own[t] is of step t - 1; what is reset may be infinite

    def past_inputs(self) -> Tensor:
        """The inputs from K - 1 steps before the first on, [K - 1 + T, n, c, r]."""
        before = self.state
        if before is None:
            before = self.inputs.new_zeros((len(self.kernel) - 1, *self.inputs.shape[1:]))
        return torch.cat((before, self.inputs))


def potential(block: Block) -> tuple[Tensor, Tensor]:
    """The potential [T, n, c, r] that is compared with the threshold, and the own spikes [R + T, n, c, r]."""
    own, steps, held = block.spikes(), len(block.inputs), block.call.spikes_held
    if block.call.kind == "exp":
        u, (decay, gain) = torch.empty_like(block.inputs), block.kernel
        for t in range(steps):
            torch_sums.step_(u[t], block.decayed_from(u, t, own), block.inputs[t], decay, gain)
            if block.feedback is not None:
                u[t].addcmul_(own[t], block.feedback[0])
            own[t + 1] = block.fires(u[t])
        return u, own
    past, order = block.past_inputs(), len(block.kernel)
    u = torch.zeros_like(block.inputs)
    for t in range(steps):
        silent = torch.ones_like(u[t], dtype=torch.bool)  # since the input that is added
        for j, tap in enumerate(block.kernel):
            weighted = tap * past[order - 1 + t - j]
            if block.call.reset == "zero" and j > 0:
                silent &= own[held + t - j] == 0
                weighted = torch.where(silent, weighted, 0)
            u[t] += weighted
        if block.feedback is not None:
            for j, tap in enumerate(block.feedback, 1):
                u[t].addcmul_(own[held + t - j], tap)
        own[held + t] = block.fires(u[t])
    return u, own


class Gradients(NamedTuple):
    """Gradients of a block; of parameters a part for each neuron, still to be added up."""

    inputs: Tensor
    through_spikes: Tensor  #: [T, n, c, r], dL/du by way of the spikes alone
    kernel: list[Tensor]
    state: Tensor
    feedback: list[Tensor]
    own_spikes: Tensor


def backward(block: Block, ds: Tensor | None, du: Tensor | None) -> Gradients:
    """The adjoint, last step first.

    Args:
        block: what the forward computed with.
        ds: dL/ds [T, n, c, r] from outside; None for zeros.
        du: dL/du from outside, of every step or of the last alone; None for zeros.
    """
    call, steps, held = block.call, len(block.inputs), block.call.spikes_held
    u, own = potential(block)
    slope = call.surrogate.derivative_(u - block.threshold)
    g_own = torch.zeros_like(own)  # what later steps give back to the spikes
    if ds is not None:
        g_own[held:] = ds
    a = torch.zeros_like(u)  # dL/du through all later steps
    if du is not None:
        (a if du.dim() == a.dim() else a[-1]).copy_(du)
    through_spikes = torch.empty_like(u)
    back: _RecursionBack | _FiniteBack = (_RecursionBack if call.kind == "exp" else _FiniteBack)(
        block, u, own
    )
    for t in range(steps - 1, -1, -1):
        through_spikes[t] = slope[t] * g_own[held + t]
        a[t] += through_spikes[t]
        back.give_back(t, a, g_own)
    return Gradients(back.inputs, through_spikes, back.kernel, back.state, back.feedback, g_own[:held])


class _Back:
    """Gives the gradient of one step's potential back to what it was computed from."""

    def __init__(self, block: Block, u: Tensor, own: Tensor) -> None:
        self.block, self.u, self.own = block, u, own
        self.held, self.passes = block.call.spikes_held, not block.call.detach
        row = torch.zeros_like(u[:1])
        self.kernel = [row.clone() for _ in block.kernel]
        self.feedback = [row.clone() for _ in range(0 if block.feedback is None else len(block.feedback))]

    def give_back_feedback(self, t: int, a: Tensor, g_own: Tensor) -> None:
        if self.block.feedback is None:
            return
        for j, tap in enumerate(self.block.feedback, 1):
            self.feedback[j - 1] += a[t] * self.own[self.held + t - j]
            if self.passes:
                g_own[self.held + t - j] += tap * a[t]


class _RecursionBack(_Back):
    """Of a recursion, u[t] from u[t-1]: the potential before gets its share."""

    def __init__(self, block: Block, u: Tensor, own: Tensor) -> None:
        super().__init__(block, u, own)
        self.inputs, self.state = torch.empty_like(u), torch.zeros_like(u[0])

    def give_back(self, t: int, a: Tensor, g_own: Tensor) -> None:
        block, (decay, gain) = self.block, self.block.kernel
        self.inputs[t] = gain * a[t]
        self.kernel[1] += a[t] * block.inputs[t]
        self.give_back_feedback(t, a, g_own)
        before = self.u[t - 1] if t > 0 else block.state
        if before is None:
            return
        back, kept = decay * a[t], block.decayed_from(self.u, t, self.own)
        assert kept is not None
        self.kernel[0] += a[t] * kept
        if block.call.reset == "zero":
            if self.passes:
                g_own[t] -= back * before  # g_own[t] is of step t - 1
            back = torch.where(self.own[t] > 0, 0, back)
        (a[t - 1] if t > 0 else self.state).add_(back)


class _FiniteBack(_Back):
    """Of a weighted sum: the inputs that were in it get theirs."""

    def __init__(self, block: Block, u: Tensor, own: Tensor) -> None:
        super().__init__(block, u, own)
        self.past, self.order = block.past_inputs(), len(block.kernel)
        g_past = torch.zeros_like(self.past)
        self.g_past, self.state, self.inputs = g_past, g_past[: self.order - 1], g_past[self.order - 1 :]

    def give_back(self, t: int, a: Tensor, g_own: Tensor) -> None:
        self.give_back_feedback(t, a, g_own)
        is_reset = self.block.call.reset == "zero"
        count = torch.zeros_like(a[t])  # own spikes since the input
        # what the inputs up to lag j would add, where no own spike lies between and where one does
        by_count: list[tuple[Tensor, Tensor]] = []
        for j, tap in enumerate(self.block.kernel):
            s = self.order - 1 + t - j
            back, product = tap * a[t], a[t] * self.past[s]
            if is_reset and j > 0:
                count = count + self.own[self.held + t - j]
                if self.passes:
                    weighted = back * self.past[s]
                    by_count.append(
                        (torch.where(count == 0, weighted, 0), torch.where(count == 1, weighted, 0))
                    )
                back, product = torch.where(count == 0, back, 0), torch.where(count == 0, product, 0)
            self.g_past[s] += back
            self.kernel[j] += product
        # Without its spike i steps back a neuron would have had all inputs from there to the spike before.
        none, one = torch.zeros_like(a[t]), torch.zeros_like(a[t])
        for i in range(len(by_count), 0, -1):
            none, one = none + by_count[i - 1][0], one + by_count[i - 1][1]
            g_own[self.held + t - i] -= torch.where(self.own[self.held + t - i] > 0, one, none)
