"""The sums over time that are a membrane potential, and their adjoints, in stock operators.

Blocks are [T, n, c, r]. An exponential is a recursion; its decay and gain are numbers, or tensors that
broadcast over [n, c, r]. Finite histories are K shared taps (FIR) or one row of weights a step (matrix);
``before`` [K-1, n, c, r] holds the inputs before the block's first, None at rest. Taps are shifted sums, a
pass over the block each; many taps of a whole layer are instead one product with their Toeplitz matrix, a
stretch of time at a time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .._checks import log_once

_FEW_TAPS = 16  # up to here shifted sums beat the matrix product
_STRETCH = 64  # steps one Toeplitz product covers

Parameter = Tensor | float


def step_(out: Tensor, before: Tensor | None, x: Tensor, decay: Parameter, gain: Parameter) -> Tensor:
    """out = decay * before + gain * x; ``before`` may be ``out``, or None at rest; x may be narrower."""
    if before is None:
        # widened first: a 16-bit x times a number would be rounded to 16 bits
        return torch.mul(x.to(out.dtype), gain, out=out)
    if isinstance(decay, float) and gain == 1.0:
        return torch.add(x, before, alpha=decay, out=out)  # one pass
    torch.mul(before, decay, out=out)
    if isinstance(gain, Tensor):
        return out.addcmul_(x.to(out.dtype), gain)
    return out.add_(x, alpha=gain)


def exponential_(u: Tensor, x: Tensor, decay: Parameter, gain: Parameter, state: Tensor | None) -> Tensor:
    """Fills u [T, n, c, r] with the potential of x, starting from ``state``, the potential before."""
    for t in range(len(x)):
        step_(u[t], u[t - 1] if t > 0 else state, x[t], decay, gain)
    return u


def exponential_adjoint_(g: Tensor, decay: Parameter) -> Tensor:
    """g[t] = dL/du[t] through all later steps: g[t] += decay * g[t+1], last step first, in place."""
    for t in range(len(g) - 2, -1, -1):
        if isinstance(decay, float):
            g[t].add_(g[t + 1], alpha=decay)
        else:
            g[t].addcmul_(g[t + 1], decay)
    return g


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b with float32 sums, also where the user allows TF32 or bfloat16 products in matmuls."""
    if a.dtype == torch.float64 or _float32_means_float32():
        return a @ b
    log_once(
        "matmul-precision",
        "float32 matmuls are set to a lower precision here; a neuron's sums keep float32, so finite history "
        "kernels run in float64 (slower). torch.set_float32_matmul_precision('highest') avoids it.",
    )
    return (a.double() @ b.double()).to(a.dtype)


def _float32_means_float32() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # the newer per-backend settings are in use, and may differ from each other
        return False


def fir(x: Tensor, taps: Tensor, before: Tensor | None) -> Tensor:
    """u[t] = sum over j of taps[j] * x[t-j].   [T, n, c, r], [K, G], [K-1, n, c, r] -> [T, n, c, r]"""
    if _by_matrix(taps):
        return _fir_by_matrix(x, taps, before)
    u = x * _tap(taps, 0)
    for j, now, then in _lags(len(x), len(taps)):
        u[now].addcmul_(x[then], _tap(taps, j))
    if before is not None:
        for j, now, then in _lags_before(len(x), len(taps)):
            u[now].addcmul_(before[then], _tap(taps, j))
    return u


def fir_adjoint(g: Tensor, taps: Tensor) -> Tensor:
    """dL/dx[t] = sum over j of taps[j] * g[t+j], from g = dL/du [T, n, c, r]."""
    if _by_matrix(taps):
        # The adjoint is the same filter with time reversed.
        return _fir_by_matrix(g.flip(0), taps, None).flip(0)
    gx = g * _tap(taps, 0)
    for j, now, then in _lags(len(g), len(taps)):
        gx[then].addcmul_(g[now], _tap(taps, j))
    return gx


def fir_state_adjoint(g: Tensor, taps: Tensor) -> Tensor:
    """dL/dbefore [K-1, n, c, r]."""
    out = g.new_zeros(len(taps) - 1, *g.shape[1:])
    for j, now, then in _lags_before(len(g), len(taps)):
        out[then].addcmul_(g[now], _tap(taps, j))
    return out


def fir_tap_gradient(g: Tensor, x: Tensor, taps: Tensor, before: Tensor | None) -> Tensor:
    """dL/dm[j] = sum over t of <g[t], x[t-j]>, per group: [K, G]."""
    order, groups = taps.shape
    out = taps.new_zeros(order, groups)
    out[0] = group_sum(g * x, groups)
    for j, now, then in _lags(len(g), order):
        out[j] = group_sum(g[now] * x[then], groups)
    if before is not None:
        for j, now, then in _lags_before(len(g), order):
            out[j] += group_sum(g[now] * before[then], groups)
    return out


def matrix(xs: Tensor, weight: Tensor) -> Tensor:
    """u [T, n, c, r] = weight [T, S] over all inputs so far, xs [S, n, c, r]."""
    return _matmul(weight, xs.flatten(1)).unflatten(1, xs.shape[1:])


def matrix_adjoint(g: Tensor, weight: Tensor) -> Tensor:
    """dL/dxs [S, n, c, r]."""
    return matrix(g, weight.mT)


def matrix_gradient(g: Tensor, xs: Tensor) -> Tensor:
    """dL/dweight [T, S]."""
    return _matmul(g.flatten(1), xs.flatten(1).mT)


def _lags(steps: int, order: int) -> Iterator[tuple[int, slice, slice]]:
    """(j, the steps that tap j reaches, the inputs it reaches them from), j >= 1, within the block."""
    for j in range(1, min(order, steps)):
        yield j, slice(j, None), slice(0, steps - j)


def _lags_before(steps: int, order: int) -> Iterator[tuple[int, slice, slice]]:
    """(j, the steps of the block that tap j reaches from before it, the rows of ``before`` it uses)."""
    for j in range(1, order):
        # The last row of ``before`` is one step before the block, so at step t tap j reads row K - 1 + t - j.
        reached = min(j, steps)
        yield j, slice(0, reached), slice(order - 1 - j, order - 1 - j + reached)


def _by_matrix(taps: Tensor) -> bool:
    return len(taps) > _FEW_TAPS and taps.shape[1] == 1


def _fir_by_matrix(x: Tensor, taps: Tensor, before: Tensor | None) -> Tensor:
    order, steps = len(taps), len(x)
    u = torch.empty_like(x, memory_format=torch.contiguous_format)
    xs = x if before is None else torch.cat([before, x])
    lead = len(xs) - steps
    # one product over all steps would be mostly zeros: a stretch sees the inputs that its taps reach alone
    for start in range(0, steps, _STRETCH):
        end = min(start + _STRETCH, steps)
        first = max(0, start + lead - (order - 1))  # the oldest input that reaches this stretch
        weight = _toeplitz(taps[:, 0], end - start, end + lead - first)
        u[start:end] = matrix(xs[first : end + lead], weight)
    return u


def _toeplitz(taps: Tensor, rows: int, columns: int) -> Tensor:
    """[rows, columns]: tap 0 on the diagonal that ends in the last corner, tap j j columns left of it."""
    lag = torch.arange(rows, device=taps.device)[:, None] - torch.arange(columns, device=taps.device)
    lag += columns - rows
    return torch.where((lag >= 0) & (lag < len(taps)), taps[lag.clamp(0, len(taps) - 1)], 0)


def _tap(taps: Tensor, j: int) -> Tensor:
    """Tap j, shaped to multiply [T, n, c, r]."""
    return taps[j].unsqueeze(-1)


def group_sum(product: Tensor, groups: int) -> Tensor:
    """The sum of [T, n, c, r] for each of the groups: [G]."""
    return product.sum((0, 1, 3)) if groups > 1 else product.sum().reshape(1)
