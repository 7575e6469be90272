"""The neuron in stock PyTorch operators, a cache-sized block of neurons at a time.

A forward writes nothing of the input's size but its outputs; a backward recomputes the potential from the
input in the memory that will hold the input's gradient. Twin: :mod:`mfp_neurons.reference`.
"""

import torch
from torch import Tensor

from ..surrogate import Rect
from . import _bits
from ._blocks import Block, Layout, Output
from ._call import Call as Call
from ._call import Gradients as Gradients
from ._call import accumulate_dtype as accumulate_dtype
from ._channels import add_channel_affine_ as add_channel_affine_
from ._channels import channel_moments as channel_moments
from ._part import Part, Totals, add_potential_

_ROW = 1 << 18  # neurons a block: a forward recursion touches one row of them and the output
_AREA = 1 << 18  # neurons times steps a block, where all steps of a block stay in cache


def mask_shape(x: Tensor, per_channel: bool) -> list[int]:
    """The shape of the uint8 mask that :func:`forward_masked` makes of x; private to the backend."""
    return _bits.shape(x.shape)


def forward(x: Tensor, call: Call, record: bool, potential: bool = True) -> tuple[Tensor | None, Tensor]:
    """Spikes (None without a threshold) and the potential, of every step if ``record``, else of the last.

    Without ``potential`` nobody asks for it: then it is empty.
    """
    return _forward(x, call, record, potential, None)


def forward_masked(
    x: Tensor, call: Call, record: bool, potential: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`forward`, and one bit a neuron and step: where its Rect surrogate's derivative is not zero."""
    mask = torch.zeros(mask_shape(x, call.per_channel), dtype=torch.uint8, device=x.device)
    spikes, u = _forward(x, call, record, potential, mask)
    assert spikes is not None
    return spikes, u, mask


def _forward(
    x: Tensor, call: Call, record: bool, potential: bool, mask: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    wide = accumulate_dtype(x.dtype)
    out = torch.empty_like(x, device="meta" if call.threshold is None else None)
    # bits are in the order of the spikes, whose gradient will be all that tells backward of an order
    layout = Layout(x if mask is None else out, call.per_channel)
    xs = layout.seen(x)
    spikes = None if call.threshold is None else Output(layout, out)
    recorded = Output(layout, torch.empty_like(x, dtype=wide)) if potential and record else None
    last = None
    if potential and not record:
        last = Output(layout, torch.empty(x.shape[1:], dtype=wide, device=x.device), is_step=True)
    state = _seen_state(call, layout)
    for block in layout.blocks(_limit(call, len(x), recorded is None)):
        part = Part(call, state, block, wide)
        spikes_out = None if spikes is None else spikes.seen[block]
        u_out = None if recorded is None else recorded.seen[block]
        bits = None if mask is None else _bits.Run(mask, layout, block)
        u_last = part.run(xs[block], spikes_out, u_out, bits)
        if last is not None:
            last.seen[block[1:]] = u_last
    u = recorded or last
    return (
        None if spikes is None else spikes.done(),
        x.new_empty(0, dtype=wide) if u is None else u.done(),
    )


def backward(
    grad_spikes: Tensor | None,
    grad_u: Tensor | None,
    x: Tensor,
    call: Call,
    record: bool,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients for (x, kernel, threshold, state, scale, shift) where ``needs`` asks for them.

    With g[t] = dL/ds[t] * surrogate'(u[t] - v_threshold) + dL/du[t] and y = scale * x + shift (or y = x):
    dL/dy[t] = sum_j m[j] g[t+j], dL/dm[j] = sum_t <g[t], y[t-j]>, dL/dv_threshold = -sum g of the spikes'
    share, dL/dscale = sum <dL/dy, x>, dL/dshift = sum dL/dy.
    """
    need_x, need_kernel, need_threshold, need_state, need_scale, need_shift = needs
    wide = accumulate_dtype(x.dtype)
    layout = Layout(x, call.per_channel)
    xs = layout.seen(x)
    ds = None if grad_spikes is None else layout.seen(grad_spikes)
    du = _seen_potential(grad_u, layout, record)
    gx = Output(layout, torch.empty_like(x)) if need_x else None
    g_state = _state_gradient(call, layout, need_state)
    totals = Totals(
        _zeros(call.kernel, need_kernel),
        _zeros(call.threshold, need_threshold),
        _zeros(call.scale, need_scale),
        _zeros(call.shift, need_shift),
    )
    state = _seen_state(call, layout)
    for block in layout.blocks(_limit(call, len(x), False)):
        part = Part(call, state, block, wide)
        gx_part = None if gx is None else gx.seen[block]
        y = part.affine(xs[block])
        g, before = part.local_gradient(
            y,
            None if ds is None else ds[block],
            _of_block(du, block, record),
            gx_part,
            totals,
        )
        part.run_backward(g, before, xs[block], y, gx_part, totals, _of_state(g_state, block, call.kind))
    return Gradients(
        None if gx is None else gx.done(),
        None if totals.kernel is None else totals.kernel.to(call.kernel.dtype),
        None if totals.threshold is None else totals.threshold.to(wide),
        None if g_state is None else g_state.done(),
        totals.scale,
        totals.shift,
    )


def backward_masked(
    grad_spikes: Tensor,
    grad_u: Tensor | None,
    mask: Tensor,
    call: Call,
    record: bool,
    needs: tuple[bool, bool],
) -> Gradients:
    """The gradients for (x, state) that :func:`backward` gives, bit for bit, from the mask instead of x.

    ``grad_spikes`` must have the strides of the spikes; of ``call.state`` the shape and dtype are read alone.
    """
    assert isinstance(call.surrogate, Rect)
    wide = accumulate_dtype(grad_spikes.dtype)
    layout = Layout(grad_spikes, call.per_channel)
    ds = layout.seen(grad_spikes)
    du = _seen_potential(grad_u, layout, record)
    gx = Output(layout, torch.empty_like(grad_spikes)) if needs[0] else None
    g_state = _state_gradient(call, layout, needs[1])
    for block in layout.blocks(_limit(call, len(ds), False)):
        part = Part(call, None, block, wide)
        g = _bits.Run(mask, layout, block).read().to(wide).mul_(call.surrogate.alpha).mul_(ds[block])
        add_potential_(g, _of_block(du, block, record))
        gx_part = None if gx is None else gx.seen[block]
        part.run_backward(g, None, g, g, gx_part, Totals(), _of_state(g_state, block, call.kind))
    return Gradients(None if gx is None else gx.done(), state=None if g_state is None else g_state.done())


def _zeros(like: Tensor | None, wanted: bool) -> Tensor | None:
    return torch.zeros_like(like, dtype=torch.float64) if wanted and like is not None else None


def _seen_potential(grad_u: Tensor | None, layout: Layout, record: bool) -> Tensor | None:
    if grad_u is None:
        return None
    return layout.seen(grad_u) if record else layout.step(grad_u)


def _of_block(du: Tensor | None, block: Block, record: bool) -> Tensor | None:
    return None if du is None else du[block if record else block[1:]]


def _of_state(g_state: Output | None, block: Block, kind: str) -> Tensor | None:
    return None if g_state is None else g_state.seen[block[1:] if kind == "exp" else block]


def _state_gradient(call: Call, layout: Layout, wanted: bool) -> Output | None:
    if not wanted or call.state is None:
        return None
    like = call.state
    empty = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    return Output(layout, empty, is_step=call.kind == "exp")


def _seen_state(call: Call, layout: Layout) -> Tensor | None:
    """The state in the layout's shape: [n, c, r] for an exponential, else [S, n, c, r]."""
    if call.state is None:
        return None
    return layout.step(call.state) if call.kind == "exp" else layout.seen(call.state)


def _limit(call: Call, steps: int, one_row: bool) -> int:
    """Neurons a block."""
    if call.kind == "exp" and one_row:
        return _ROW
    return max(1, _AREA // max(1, steps))
