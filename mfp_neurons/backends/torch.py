"""The neuron in stock PyTorch operators, a cache-sized block of neurons at a time.

A forward writes nothing of the input's size but its outputs; a backward recomputes the potential from the
input in the memory that will hold the input's gradient. Twin: :mod:`mfp_neurons.reference`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..surrogate import Rect, Surrogate
from . import _bits, _exponential, _finite
from ._blocks import Block, Layout, Output
from ._channels import add_channel_affine_ as add_channel_affine_
from ._channels import channel_moments as channel_moments

_ROW = 1 << 18  # neurons a block: a forward recursion touches one row of them and the output
_AREA = 1 << 18  # neurons times steps a block, where all steps of a block stay in cache
_READS_FREELY = "cpu"  # the device type on which reading a number stalls nothing


@dataclass(frozen=True)
class Call:
    """What one call computes. kernel: "exp" [2, G] (decay, gain), "fir" [K, G] or "matrix" [T, S]."""

    kind: str
    kernel: Tensor
    threshold: Tensor | None = None  # [1] or [C]; None: the potential alone
    state: Tensor | None = None  # "exp": the last potential [N, *]; else the inputs before, [S, N, *]
    surrogate: Surrogate | None = None
    strict: bool = False
    scale: Tensor | None = None  # [C], with shift: the neuron's input is scale[c] * x + shift[c]; so is the
    shift: Tensor | None = None  # state's of finite kernels, which holds what the neuron got

    @property
    def per_channel(self) -> bool:
        wide = self.kind != "matrix" and self.kernel.shape[1] > 1
        return wide or any(row is not None and row.numel() > 1 for row in (self.threshold, self.scale))


@dataclass(frozen=True)
class Gradients:
    """Gradients of a call's tensors; None where nobody asked."""

    x: Tensor | None
    kernel: Tensor | None = None
    threshold: Tensor | None = None
    state: Tensor | None = None
    scale: Tensor | None = None  # may be wider than the call's, as precise as it was summed; so may shift
    shift: Tensor | None = None


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of potentials and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def mask_shape(x: Tensor, per_channel: bool) -> list[int]:
    """The shape of the uint8 mask that :func:`forward_masked` makes of x; private to the backend."""
    return _bits.shape(x.shape)


def forward(x: Tensor, call: Call, record: bool) -> tuple[Tensor | None, Tensor]:
    """Spikes (None without a threshold) and the potential, of every step if ``record``, else of the last."""
    return _forward(x, call, record, None)


def forward_masked(x: Tensor, call: Call, record: bool) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`forward`, and one bit a neuron and step: where its Rect surrogate's derivative is not zero."""
    mask = torch.zeros(mask_shape(x, call.per_channel), dtype=torch.uint8, device=x.device)
    spikes, u = _forward(x, call, record, mask)
    assert spikes is not None
    return spikes, u, mask


def _forward(x: Tensor, call: Call, record: bool, mask: Tensor | None) -> tuple[Tensor | None, Tensor]:
    wide = accumulate_dtype(x.dtype)
    out = torch.empty_like(x, device="meta" if call.threshold is None else None)
    # bits are in the order of the spikes, whose gradient will be all that tells backward of an order
    layout = Layout(x if mask is None else out, call.per_channel)
    xs = layout.seen(x)
    spikes = None if call.threshold is None else Output(layout, out)
    recorded = Output(layout, torch.empty_like(x, dtype=wide)) if record else None
    last = None
    if not record:
        last = Output(layout, torch.empty(x.shape[1:], dtype=wide, device=x.device), is_step=True)
    state = _seen_state(call, layout)
    for block in layout.blocks(_limit(call, len(x), recorded is None)):
        part = _Part(call, state, block, wide)
        spikes_out = None if spikes is None else spikes.seen[block]
        u_out = None if recorded is None else recorded.seen[block]
        bits = None if mask is None else _bits.Run(mask, layout, block)
        u_last = part.run(xs[block], spikes_out, u_out, bits)
        if last is not None:
            last.seen[block[1:]] = u_last
    u = recorded or last
    assert u is not None
    return (None if spikes is None else spikes.done()), u.done()


def backward(
    grad_spikes: Tensor | None,
    grad_u: Tensor | None,
    x: Tensor,
    call: Call,
    record: bool,
    needs: tuple[bool, ...],
) -> Gradients:
    """Gradients for (x, kernel, threshold, state) or (.., scale, shift) where ``needs`` asks for them.

    With g[t] = dL/ds[t] * surrogate'(u[t] - v_threshold) + dL/du[t] and y = scale * x + shift (or y = x):
    dL/dy[t] = sum_j m[j] g[t+j], dL/dm[j] = sum_t <g[t], y[t-j]>, dL/dv_threshold = -sum g of the spikes'
    share, dL/dscale = sum <dL/dy, x>, dL/dshift = sum dL/dy.
    """
    need_x, need_kernel, need_threshold, need_state, need_scale, need_shift = (*needs, False, False)[:6]
    wide = accumulate_dtype(x.dtype)
    layout = Layout(x, call.per_channel)
    xs = layout.seen(x)
    ds = None if grad_spikes is None else layout.seen(grad_spikes)
    du = _seen_potential(grad_u, layout, record)
    gx = Output(layout, torch.empty_like(x)) if need_x else None
    g_state = _state_gradient(call, layout, need_state)
    totals = _Totals(
        _zeros(call.kernel, need_kernel),
        _zeros(call.threshold, need_threshold),
        _zeros(call.scale, need_scale),
        _zeros(call.shift, need_shift),
    )
    state = _seen_state(call, layout)
    for block in layout.blocks(_limit(call, len(x), False)):
        part = _Part(call, state, block, wide)
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
        None
        if call.threshold is None or totals.threshold is None
        else totals.threshold.to(call.threshold.dtype),
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
        part = _Part(call, None, block, wide)
        g = _bits.Run(mask, layout, block).read().to(wide).mul_(call.surrogate.alpha).mul_(ds[block])
        _add_potential_(g, _of_block(du, block, record))
        gx_part = None if gx is None else gx.seen[block]
        part.run_backward(g, None, g, g, gx_part, _Totals(), _of_state(g_state, block, call.kind))
    return Gradients(None if gx is None else gx.done(), state=None if g_state is None else g_state.done())


@dataclass(frozen=True)
class _Totals:
    """Gradients that are sums over neurons, in float64; None where nobody asked."""

    kernel: Tensor | None = None
    threshold: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None


class _Part:
    """One block of neurons of a call: its slices of the parameters and of the state, in the wide dtype."""

    def __init__(self, call: Call, state: Tensor | None, block: Block, wide: torch.dtype) -> None:
        self.call, self.wide, self.channels = call, wide, block[2]
        self.kernel = _columns(call.kernel.detach(), self.channels, call.kind != "matrix").to(wide)
        self.threshold = None if call.threshold is None else self._scalar_or_rows(call.threshold.detach())
        self.state: Tensor | None = None
        if state is not None:
            self.state = state[block[1:] if call.kind == "exp" else block].to(wide)
        if call.kind == "exp":
            self.decay = self._scalar_or_rows(call.kernel[0].detach())
            self.gain = self._scalar_or_rows(call.kernel[1].detach())
        self.scale = None if call.scale is None else self._rows(call.scale.detach())
        self.shift = None if call.shift is None else self._rows(call.shift.detach())

    def _scalar_or_rows(self, value: Tensor) -> Tensor | float:
        """A number where reading one is free, else a tensor that broadcasts over [n, c, r]."""
        if value.numel() == 1 and value.device.type == _READS_FREELY:
            return float(value)
        return self._rows(value)

    def _rows(self, value: Tensor) -> Tensor:
        return _columns(value, self.channels).to(self.wide).unsqueeze(-1)

    def affine(self, x: Tensor) -> Tensor:
        """What the neuron gets of x, a block or a step of it: x itself, or scale * x + shift."""
        if self.scale is None or self.shift is None:
            return x
        return torch.addcmul(self.shift, x.to(self.wide), self.scale)

    def _fire(self, u: Tensor, out: Tensor) -> None:
        compare = torch.gt if self.call.strict else torch.ge
        compare(u, self.threshold, out=out)  # type: ignore[call-overload, arg-type]

    def _mark(self, u: Tensor, bits: _bits.Run, first: int = 0) -> None:
        assert isinstance(self.call.surrogate, Rect) and self.threshold is not None
        bits.write(self.call.surrogate.within_(u - self.threshold), first)

    def run(self, x: Tensor, spikes: Tensor | None, u_out: Tensor | None, bits: _bits.Run | None) -> Tensor:
        """Writes the outputs of the block; returns its last potential [n, c, r]."""
        if self.call.kind == "exp" and u_out is None:
            return self._run_rows(x, spikes, bits)
        if self.call.kind == "exp":
            assert u_out is not None
            u = _exponential.potential_(u_out, self.affine(x), self.decay, self.gain, self.state)
        else:
            u = self._finite_potential(self.affine(x))
            if u_out is not None:
                u_out.copy_(u)
        if spikes is not None:
            self._fire(u, spikes)
        if bits is not None:
            self._mark(u, bits)
        return u[-1]

    def _run_rows(self, x: Tensor, spikes: Tensor | None, bits: _bits.Run | None) -> Tensor:
        """The recursion with one row of memory, where nobody asked for the potential of every step."""
        row = torch.empty(x.shape[1:], dtype=self.wide, device=x.device)
        for t in range(len(x)):
            _exponential.step_(row, row if t > 0 else self.state, self.affine(x[t]), self.decay, self.gain)
            if spikes is not None:
                self._fire(row, spikes[t])
            if bits is not None:
                self._mark(row.unsqueeze(0), bits, t)
        return row

    def _finite_potential(self, x: Tensor) -> Tensor:
        x = x.to(self.wide)
        if self.call.kind == "fir":
            return _finite.fir(x, self.kernel, self.state)
        return _finite.matrix(self._with_state(x), self.kernel)

    def _with_state(self, x: Tensor) -> Tensor:
        return x if self.state is None else torch.cat([self.state, x])

    def local_gradient(
        self,
        y: Tensor,
        ds: Tensor | None,
        du: Tensor | None,
        gx: Tensor | None,
        totals: _Totals,
    ) -> tuple[Tensor, Tensor | None]:
        """g[t] = dL/ds[t] sigma'(u[t] - v_threshold) + dL/du[t] from the neuron's input y.

        For the decay's gradient also u[t-1]. Adds to ``totals.threshold``; may use the memory of ``gx``.
        """
        keep = totals.kernel is not None and self.call.kind == "exp"
        before = None
        if ds is None:
            g = torch.zeros(y.shape, dtype=self.wide, device=y.device)
            before = self._before(self._potential(y, None)) if keep else None
        else:
            u = self._potential(y, gx)
            before = self._before(u) if keep else None
            assert self.call.surrogate is not None and self.threshold is not None
            g = self.call.surrogate.derivative_(u.sub_(self.threshold)).mul_(ds)
            if totals.threshold is not None:
                self._add(totals.threshold, g, -1)
        _add_potential_(g, du)
        return g, before

    def _potential(self, y: Tensor, gx: Tensor | None) -> Tensor:
        if self.call.kind != "exp":
            return self._finite_potential(y)
        # the memory of the input's gradient serves, where it is wide enough
        fits = gx is not None and gx.dtype == self.wide
        u = gx if gx is not None and fits else torch.empty(y.shape, dtype=self.wide, device=y.device)
        return _exponential.potential_(u, y, self.decay, self.gain, self.state)

    def _before(self, u: Tensor) -> Tensor:
        """u[t-1] for every t of the block."""
        first = torch.zeros_like(u[:1]) if self.state is None else self.state.unsqueeze(0)
        return torch.cat([first, u[:-1]])

    def run_backward(
        self,
        g: Tensor,
        before: Tensor | None,
        x: Tensor,
        y: Tensor,
        gx: Tensor | None,
        totals: _Totals,
        g_state: Tensor | None,
    ) -> None:
        """Writes gx and g_state and adds to the totals, from g of the block; overwrites g."""
        if self.call.kind == "exp":
            gy = self._exp_backward(g, before, y, totals.kernel, g_state)
        else:
            gy = self._finite_backward(g, y.to(self.wide), totals.kernel, g_state)
        if totals.scale is not None:
            self._add(totals.scale, gy * x)
        if totals.shift is not None:
            self._add(totals.shift, gy)
        if gx is None:
            return
        if self.scale is not None:
            torch.mul(gy, self.scale, out=gx)
        elif gx.data_ptr() != gy.data_ptr():
            gx.copy_(gy)

    def _add(self, total: Tensor, part: Tensor, sign: int = 1) -> None:
        _columns(total, self.channels).add_(_finite.group_sum(part, total.numel()), alpha=sign)

    def _exp_backward(
        self,
        g: Tensor,
        before: Tensor | None,
        y: Tensor,
        g_kernel: Tensor | None,
        g_state: Tensor | None,
    ) -> Tensor:
        """dL/dy [T, n, c, r], in the memory of g."""
        _exponential.adjoint_(g, self.decay)
        if g_kernel is not None:
            assert before is not None
            groups = g_kernel.shape[1]
            columns = _columns(g_kernel, self.channels, groups > 1)
            columns[0] += _finite.group_sum(g * before, groups)
            columns[1] += _finite.group_sum(g * y, groups)
        if g_state is not None:
            g_state.copy_(g[0] * self.decay)
        return g if isinstance(self.gain, float) and self.gain == 1.0 else g.mul_(self.gain)

    def _finite_backward(
        self, g: Tensor, y: Tensor, g_kernel: Tensor | None, g_state: Tensor | None
    ) -> Tensor:
        """dL/dy [T, n, c, r]."""
        if self.call.kind == "fir":
            if g_kernel is not None:
                columns = _columns(g_kernel, self.channels, g_kernel.shape[1] > 1)
                columns += _finite.fir_tap_gradient(g, y, self.kernel, self.state)
            if g_state is not None:
                g_state.copy_(_finite.fir_state_adjoint(g, self.kernel))
            return _finite.fir_adjoint(g, self.kernel)
        if g_kernel is not None:
            g_kernel += _finite.matrix_gradient(g, self._with_state(y))
        earlier = self.kernel.shape[1] - len(g)
        gys = _finite.matrix_adjoint(g, self.kernel)
        if g_state is not None:
            g_state.copy_(gys[:earlier])
        return gys[earlier:]


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


def _add_potential_(g: Tensor, du: Tensor | None) -> None:
    if du is not None:
        (g if du.dim() == g.dim() else g[-1]).add_(du)


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


def _columns(value: Tensor, channels: slice, sliced: bool = True) -> Tensor:
    """The block's columns of a per-channel parameter (a view); all of a per-layer one."""
    return value[..., channels] if sliced and value.shape[-1] > 1 else value
