"""The exponential history as a recursion over time: u[t] = decay * u[t-1] + gain * x[t].

Blocks are [T, n, c, r]; decay and gain are numbers, or tensors that broadcast over [n, c, r].
"""

import torch
from torch import Tensor

Parameter = Tensor | float


def charge_(u: Tensor, x: Tensor, decay: Parameter, gain: Parameter) -> Tensor:
    """u = decay * u + gain * x in place; x may be narrower than u."""
    if isinstance(decay, float) and gain == 1.0:
        return torch.add(x, u, alpha=decay, out=u)  # one pass
    u.mul_(decay)
    if isinstance(gain, Tensor):
        return u.addcmul_(x.to(u.dtype), gain)
    return u.add_(x, alpha=gain)


def first_(u: Tensor, x: Tensor, gain: Parameter) -> Tensor:
    """u = gain * x: the first step, with nothing before it."""
    return torch.mul(x, gain, out=u)


def potential_(u: Tensor, x: Tensor, decay: Parameter, gain: Parameter, state: Tensor | None) -> Tensor:
    """Fills u [T, n, c, r] with the potential of x, starting from ``state``, the potential before."""
    for t in range(len(x)):
        before = state if t == 0 else u[t - 1]
        if before is None:
            first_(u[t], x[t], gain)
        elif isinstance(decay, float) and gain == 1.0:
            torch.add(x[t], before, alpha=decay, out=u[t])
        else:
            torch.mul(before, decay, out=u[t])
            if isinstance(gain, Tensor):
                u[t].addcmul_(x[t].to(u.dtype), gain)
            else:
                u[t].add_(x[t], alpha=gain)
    return u


def adjoint_(g: Tensor, decay: Parameter) -> Tensor:
    """g[t] = dL/du[t] through all later steps: g[t] += decay * g[t+1], last step first, in place."""
    for t in range(len(g) - 2, -1, -1):
        if isinstance(decay, float):
            g[t].add_(g[t + 1], alpha=decay)
        else:
            g[t].addcmul_(g[t + 1], decay)
    return g
