"""One block of neurons [T, n, c, r]: its potential and spikes, and the way back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..surrogate import Rect
from . import _bits, _exponential, _finite
from ._blocks import Block
from ._call import Call

_READS_FREELY = "cpu"  # the device type on which reading a number stalls nothing


@dataclass(frozen=True)
class Totals:
    """Gradients that are sums over neurons, in float64; None where nobody asked."""

    kernel: Tensor | None = None
    threshold: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None


class Part:
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
        totals: Totals,
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
        add_potential_(g, du)
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
        totals: Totals,
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


def add_potential_(g: Tensor, du: Tensor | None) -> None:
    if du is not None:
        (g if du.dim() == g.dim() else g[-1]).add_(du)


def _columns(value: Tensor, channels: slice, sliced: bool = True) -> Tensor:
    """The block's columns of a per-channel parameter (a view); all of a per-layer one."""
    return value[..., channels] if sliced and value.shape[-1] > 1 else value
