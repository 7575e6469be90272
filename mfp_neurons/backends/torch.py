"""The neuron in stock PyTorch operators, a cache-sized block of neurons at a time.

A forward writes nothing of the input's size but its outputs; a backward recomputes the potential from the
input in the memory that will hold the input's gradient. Twin: :mod:`mfp_neurons.reference`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..surrogate import Surrogate
from . import _exponential, _finite
from ._blocks import Block, Layout, Output

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

    @property
    def per_channel(self) -> bool:
        wide = self.kind != "matrix" and self.kernel.shape[1] > 1
        return wide or (self.threshold is not None and self.threshold.numel() > 1)


@dataclass(frozen=True)
class Gradients:
    """Gradients of a call's tensors; None where nobody asked."""

    x: Tensor | None
    kernel: Tensor | None
    threshold: Tensor | None
    state: Tensor | None


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of potentials and sums: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def forward(x: Tensor, call: Call, record: bool) -> tuple[Tensor | None, Tensor]:
    """Spikes (None without a threshold) and the potential, of every step if ``record``, else of the last."""
    wide = accumulate_dtype(x.dtype)
    layout = Layout(x, call.per_channel)
    xs = layout.seen(x)
    spikes = None if call.threshold is None else Output(layout, torch.empty_like(x))
    recorded = Output(layout, torch.empty_like(x, dtype=wide)) if record else None
    last = None
    if not record:
        last = Output(layout, torch.empty(x.shape[1:], dtype=wide, device=x.device), is_step=True)
    state = _seen_state(call, layout)
    for block in layout.blocks(_limit(call, len(x), recorded is None)):
        part = _Part(call, state, block, wide)
        spikes_out = None if spikes is None else spikes.seen[block]
        u_out = None if recorded is None else recorded.seen[block]
        u_last = part.run(xs[block], spikes_out, u_out)
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
    needs: tuple[bool, bool, bool, bool],
) -> Gradients:
    """Gradients for (x, kernel, threshold, state) where ``needs`` asks for them.

    With g[t] = dL/ds[t] * surrogate'(u[t] - v_threshold) + dL/du[t]: dL/dx[t] = sum_j m[j] g[t+j],
    dL/dm[j] = sum_t <g[t], x[t-j]>, dL/dv_threshold = -sum g of the spikes' share.
    """
    need_x, need_kernel, need_threshold, need_state = needs
    wide = accumulate_dtype(x.dtype)
    layout = Layout(x, call.per_channel)
    xs = layout.seen(x)
    ds = None if grad_spikes is None else layout.seen(grad_spikes)
    if grad_u is None:
        du = None
    else:
        du = layout.seen(grad_u) if record else layout.step(grad_u)
    gx = Output(layout, torch.empty_like(x)) if need_x else None
    g_kernel = torch.zeros_like(call.kernel, dtype=torch.float64) if need_kernel else None
    g_threshold = None
    if need_threshold and call.threshold is not None:
        g_threshold = torch.zeros_like(call.threshold, dtype=torch.float64)
    g_state = None
    if need_state and call.state is not None:
        g_state = Output(
            layout,
            torch.empty(call.state.shape, dtype=call.state.dtype, device=x.device),
            is_step=call.kind == "exp",
        )
    state = _seen_state(call, layout)
    for block in layout.blocks(_limit(call, len(x), False)):
        part = _Part(call, state, block, wide)
        du_part = None if du is None else (du[block] if record else du[block[1:]])
        part.run_backward(
            xs[block],
            None if ds is None else ds[block],
            du_part,
            None if gx is None else gx.seen[block],
            g_kernel,
            g_threshold,
            None if g_state is None else g_state.seen[block[1:] if call.kind == "exp" else block],
        )
    return Gradients(
        None if gx is None else gx.done(),
        None if g_kernel is None else g_kernel.to(call.kernel.dtype),
        None if g_threshold is None or call.threshold is None else g_threshold.to(call.threshold.dtype),
        None if g_state is None else g_state.done(),
    )


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

    def _scalar_or_rows(self, value: Tensor) -> Tensor | float:
        """A number where reading one is free, else a tensor that broadcasts over [n, c, r]."""
        if value.numel() == 1 and value.device.type == _READS_FREELY:
            return float(value)
        value = value[self.channels] if value.numel() > 1 else value
        return value.to(self.wide).unsqueeze(-1)

    def _fire(self, u: Tensor, out: Tensor) -> None:
        compare = torch.gt if self.call.strict else torch.ge
        compare(u, self.threshold, out=out)  # type: ignore[call-overload, arg-type]

    def run(self, x: Tensor, spikes: Tensor | None, u_out: Tensor | None) -> Tensor:
        """Writes the outputs of the block; returns its last potential [n, c, r]."""
        if self.call.kind != "exp":
            u = self._finite_potential(x)
            if u_out is not None:
                u_out.copy_(u)
            if spikes is not None:
                self._fire(u, spikes)
            return u[-1]
        if u_out is not None:
            _exponential.potential_(u_out, x, self.decay, self.gain, self.state)
            if spikes is not None:
                self._fire(u_out, spikes)
            return u_out[-1]
        row = torch.empty(x.shape[1:], dtype=self.wide, device=x.device)
        for t in range(len(x)):
            _exponential.step_(row, row if t > 0 else self.state, x[t], self.decay, self.gain)
            if spikes is not None:
                self._fire(row, spikes[t])
        return row

    def _finite_potential(self, x: Tensor) -> Tensor:
        x = x.to(self.wide)
        if self.call.kind == "fir":
            return _finite.fir(x, self.kernel, self.state)
        return _finite.matrix(self._with_state(x), self.kernel)

    def _with_state(self, x: Tensor) -> Tensor:
        return x if self.state is None else torch.cat([self.state, x])

    def run_backward(
        self,
        x: Tensor,
        ds: Tensor | None,
        du: Tensor | None,
        gx: Tensor | None,
        g_kernel: Tensor | None,
        g_threshold: Tensor | None,
        g_state: Tensor | None,
    ) -> None:
        """Writes gx and g_state and adds to g_kernel and g_threshold, for this block."""
        g, before = self._local_gradient(x, ds, du, gx, g_threshold, g_kernel is not None)
        if self.call.kind == "exp":
            self._exp_backward(g, before, x, gx, g_kernel, g_state)
        else:
            self._finite_backward(g, x, gx, g_kernel, g_state)

    def _local_gradient(
        self,
        x: Tensor,
        ds: Tensor | None,
        du: Tensor | None,
        gx: Tensor | None,
        g_threshold: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """g[t] = dL/ds[t] sigma'(u[t] - v_threshold) + dL/du[t]; with ``keep``, u[t-1] too (exponential)."""
        before = None
        if ds is None:
            g = torch.zeros(x.shape, dtype=self.wide, device=x.device)
            if keep and self.call.kind == "exp":
                u = torch.empty(x.shape, dtype=self.wide, device=x.device)
                before = self._before(_exponential.potential_(u, x, self.decay, self.gain, self.state))
        else:
            if self.call.kind == "exp":
                # the memory of the input's gradient serves, where it is wide enough
                fits = gx is not None and gx.dtype == self.wide
                u = gx if gx is not None and fits else torch.empty(x.shape, dtype=self.wide, device=x.device)
                _exponential.potential_(u, x, self.decay, self.gain, self.state)
                before = self._before(u) if keep else None
            else:
                u = self._finite_potential(x)
            assert self.call.surrogate is not None and self.threshold is not None
            g = self.call.surrogate.derivative_(u.sub_(self.threshold)).mul_(ds)
            if g_threshold is not None:
                _columns(g_threshold, self.channels).sub_(_finite.group_sum(g, g_threshold.numel()))
        if du is not None:
            (g if du.dim() == g.dim() else g[-1]).add_(du)
        return g, before

    def _before(self, u: Tensor) -> Tensor:
        """u[t-1] for every t of the block."""
        first = torch.zeros_like(u[:1]) if self.state is None else self.state.unsqueeze(0)
        return torch.cat([first, u[:-1]])

    def _exp_backward(
        self,
        g: Tensor,
        before: Tensor | None,
        x: Tensor,
        gx: Tensor | None,
        g_kernel: Tensor | None,
        g_state: Tensor | None,
    ) -> None:
        _exponential.adjoint_(g, self.decay)
        if g_kernel is not None:
            assert before is not None
            groups = g_kernel.shape[1]
            columns = _columns(g_kernel, self.channels, groups > 1)
            columns[0] += _finite.group_sum(g * before, groups)
            columns[1] += _finite.group_sum(g * x, groups)
        if g_state is not None:
            g_state.copy_(g[0] * self.decay)
        in_place = gx is not None and gx.data_ptr() == g.data_ptr()
        if gx is not None and not (in_place and isinstance(self.gain, float) and self.gain == 1.0):
            torch.mul(g, self.gain, out=gx)

    def _finite_backward(
        self, g: Tensor, x: Tensor, gx: Tensor | None, g_kernel: Tensor | None, g_state: Tensor | None
    ) -> None:
        x = x.to(self.wide)
        if self.call.kind == "fir":
            if g_kernel is not None:
                columns = _columns(g_kernel, self.channels, g_kernel.shape[1] > 1)
                columns += _finite.fir_tap_gradient(g, x, self.kernel, self.state)
            if g_state is not None:
                g_state.copy_(_finite.fir_state_adjoint(g, self.kernel))
            if gx is not None:
                gx.copy_(_finite.fir_adjoint(g, self.kernel))
            return
        if g_kernel is not None:
            g_kernel += _finite.matrix_gradient(g, self._with_state(x))
        earlier = self.kernel.shape[1] - len(x)
        gxs = _finite.matrix_adjoint(g, self.kernel)
        if gx is not None:
            gx.copy_(gxs[earlier:])
        if g_state is not None:
            g_state.copy_(gxs[:earlier])


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
