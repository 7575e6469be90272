"""Finite histories: K shared taps (FIR), or one row of weights a step (matrix).

Blocks are [S, n, c, r] with S = the inputs before the block of time plus those of it. Few taps are shifted
sums; many are a product with the (banded) Toeplitz matrix of the taps, a stretch of time at a time.
"""

import logging

import torch
from torch import Tensor

from .._checks import log_once

_FEW_TAPS = 6  # up to here shifted sums beat the matrix product (measured at T = 28, two threads)
_STRETCH = 64  # steps one Toeplitz product covers; its waste is (K - 1) / (_STRETCH + K - 1)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b with float32 sums, also where the user allows TF32 or bfloat16 products in matmuls."""
    if a.dtype == torch.float64 or _float32_means_float32():
        return a @ b
    log_once(
        "matmul-precision",
        "float32 matmuls are set to a lower precision here; a neuron's sums keep float32, so finite history "
        "kernels run in float64 (slower). torch.set_float32_matmul_precision('highest') avoids it.",
        logging.WARNING,
    )
    return (a.double() @ b.double()).to(a.dtype)


def _float32_means_float32() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # the newer per-backend settings are in use, and may differ from each other
        return False


def _to_rows(block: Tensor, per_channel: bool) -> Tensor:
    """[S, n, c, r] -> [S, n c r], or [c, S, n r] where each channel has taps of its own."""
    if not per_channel:
        return block.reshape(len(block), -1)
    s, n, c, r = block.shape
    return block.permute(2, 0, 1, 3).reshape(c, s, n * r)


def _from_rows(rows: Tensor, like: Tensor, per_channel: bool) -> Tensor:
    """The inverse of :func:`_to_rows`, for as many steps as ``rows`` has."""
    _, n, c, r = like.shape
    if not per_channel:
        return rows.reshape(-1, n, c, r)
    return rows.reshape(c, -1, n, r).permute(1, 2, 0, 3)


def _toeplitz(taps: Tensor, steps: int) -> Tensor:
    """[K, G] -> [steps, steps + K - 1], or [C, ...]: row t has tap j in column t + K - 1 - j."""
    order, groups = taps.shape
    padded = torch.nn.functional.pad(taps.flip(0).t(), (0, steps))  # [G, K + steps], read with a skew
    skewed = padded.repeat(1, steps)[:, : steps * (steps + order - 1)].reshape(groups, steps, -1)
    return skewed if groups > 1 else skewed[0]


def fir(xs: Tensor, taps: Tensor, steps: int) -> Tensor:
    """u [steps, n, c, r] from the inputs xs [K - 1 + steps, n, c, r], the oldest first. taps [K, G]."""
    order, groups = taps.shape
    if order <= _FEW_TAPS:
        u = xs[order - 1 :] * _tap(taps, 0)
        for j in range(1, order):
            u.addcmul_(xs[order - 1 - j : order - 1 - j + steps], _tap(taps, j))
        return u
    u = torch.empty(steps, *xs.shape[1:], dtype=xs.dtype, device=xs.device)
    for start in range(0, steps, _STRETCH):
        length = min(_STRETCH, steps - start)
        seen = xs[start : start + length + order - 1]
        rows = _matmul(_toeplitz(taps, length), _to_rows(seen, groups > 1))
        u[start : start + length] = _from_rows(rows, xs, groups > 1)
    return u


def fir_adjoint(g: Tensor, taps: Tensor) -> Tensor:
    """dL/dxs [K - 1 + T, n, c, r] from g = dL/du [T, n, c, r]: the same taps, run backward in time."""
    order = len(taps)
    after = g.new_zeros(order - 1, *g.shape[1:])
    padded = torch.cat([after, g, after]).flip(0)
    return fir(padded, taps, len(g) + order - 1).flip(0)


def fir_tap_gradient(g: Tensor, xs: Tensor, taps: Tensor) -> Tensor:
    """dL/dm[j] = sum over t of <g[t], x[t-j]>, per group: [K, G]."""
    order, groups = taps.shape
    steps = len(g)
    if order <= _FEW_TAPS:
        lagged = [g * xs[order - 1 - j : order - 1 - j + steps] for j in range(order)]
        return torch.stack([_group_sum(product, groups) for product in lagged])
    total = taps.new_zeros(groups, order)
    for start in range(0, steps, _STRETCH):
        length = min(_STRETCH, steps - start)
        g_rows = _to_rows(g[start : start + length], groups > 1)
        x_rows = _to_rows(xs[start : start + length + order - 1], groups > 1)
        products = _matmul(g_rows, x_rows.mT).reshape(groups, length, length + order - 1)
        # tap j stands on the diagonal at offset K - 1 - j
        total += torch.stack([products.diagonal(order - 1 - j, 1, 2).sum(-1) for j in range(order)], 1)
    return total.t()


def matrix(xs: Tensor, weight: Tensor) -> Tensor:
    """u [T, n, c, r] = weight [T, S] over xs [S, n, c, r]."""
    return _from_rows(_matmul(weight, _to_rows(xs, False)), xs, False)


def matrix_adjoint(g: Tensor, weight: Tensor) -> Tensor:
    """dL/dxs [S, n, c, r]."""
    return _from_rows(_matmul(weight.mT, _to_rows(g, False)), g, False)


def matrix_gradient(g: Tensor, xs: Tensor) -> Tensor:
    """dL/dweight [T, S]."""
    return _matmul(_to_rows(g, False), _to_rows(xs, False).mT)


def _tap(taps: Tensor, j: int) -> Tensor:
    """Tap j, shaped to multiply [S, n, c, r]."""
    return taps[j].unsqueeze(-1)


def _group_sum(product: Tensor, groups: int) -> Tensor:
    """The sum of [S, n, c, r] for each of the groups: [G]."""
    return product.sum((0, 1, 3)) if groups > 1 else product.sum().reshape(1)
