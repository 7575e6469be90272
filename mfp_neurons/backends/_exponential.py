"""The exponential history as a recursion over time: u[t] = decay * u[t-1] + gain * x[t].

Blocks are [T, n, c, r]; decay and gain are numbers, or tensors that broadcast over [n, c, r].
"""

import torch
from torch import Tensor

Parameter = Tensor | float


def step_(out: Tensor, before: Tensor | None, x: Tensor, decay: Parameter, gain: Parameter) -> Tensor:
    """out = decay * before + gain * x; ``before`` may be ``out``, or None at rest; x may be narrower."""
    if before is None:
        return torch.mul(
            x.to(out.dtype), gain, out=out
        )  # a 16-bit x times a number would be rounded to 16 bits
    if isinstance(decay, float) and gain == 1.0:
        return torch.add(x, before, alpha=decay, out=out)  # one pass
    torch.mul(before, decay, out=out)
    if isinstance(gain, Tensor):
        return out.addcmul_(x.to(out.dtype), gain)
    return out.add_(x, alpha=gain)


def potential_(u: Tensor, x: Tensor, decay: Parameter, gain: Parameter, state: Tensor | None) -> Tensor:
    """Fills u [T, n, c, r] with the potential of x, starting from ``state``, the potential before."""
    for t in range(len(x)):
        step_(u[t], u[t - 1] if t > 0 else state, x[t], decay, gain)
    return u


def adjoint_(g: Tensor, decay: Parameter) -> Tensor:
    """g[t] = dL/du[t] through all later steps: g[t] += decay * g[t+1], last step first, in place."""
    for t in range(len(g) - 2, -1, -1):
        if isinstance(decay, float):
            g[t].add_(g[t + 1], alpha=decay)
        else:
            g[t].addcmul_(g[t + 1], decay)
    return g
