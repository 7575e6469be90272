"""The neuron in stock PyTorch operators, a cache-sized block of neurons at a time.

A forward writes nothing of the input's size but its outputs; a backward recomputes the potential from the
input in the memory that will hold the input's gradient. Twin: :mod:`mfp_neurons.reference`.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from . import Call, Gradients, accumulate_dtype, torch_feedback, torch_sums

_ROW = 1 << 18  # neurons a block: a forward recursion touches one row of them and the output
_AREA = 1 << 18  # neurons times steps a block, where all steps of a block stay in cache
_HOST_DEVICE = "cpu"  # the device type on which reading a number stalls nothing

Block = tuple[slice, slice, slice, slice]


def forward(call: Call) -> tuple[Tensor | None, Tensor]:
    """Spikes (None without a threshold) and the potential: of every step, of the last, or empty."""
    x, wide = call.x, accumulate_dtype(call.x.dtype)
    layout = _Layout(x, call.per_channel)
    xs, state, own = layout.view(x), _view_state(call, layout), _view_spikes(call, layout)
    s, u = call.empty_outputs()
    spikes = None if s is None else _Output(layout, s)
    recorded = _Output(layout, u) if call.potential and call.record else None
    last = _Output(layout, u, is_step=True) if call.potential and not call.record else None
    # a recursion that records nothing keeps one row of memory, so that its blocks may be wider
    for block in layout.blocks(_block_size(call, one_row=recorded is None)):
        neurons = _Neurons(call, state, own, block, wide)
        last_u = neurons.run(xs[block], _of_block(spikes, block), _of_block(recorded, block))
        if last is not None:
            last.view[block[1:]] = last_u
    for output in (spikes, recorded, last):
        if output is not None:
            output.fill()
    return s, u


def backward(
    call: Call, grad_spikes: Tensor | None, grad_u: Tensor | None, needs: tuple[bool, ...]
) -> Gradients:
    """Gradients of the call's tensors where ``needs`` asks for them.

    With g[t] = dL/ds[t] * surrogate'(u[t] - v_threshold) + dL/du[t] and y = scale * x + shift (or y = x):
    dL/dy[t] = sum_j m[j] g[t+j], dL/dm[j] = sum_t <g[t], y[t-j]>, dL/dv_threshold = -sum g of the spikes'
    share, dL/dscale = sum <dL/dy, x>, dL/dshift = sum dL/dy.
    """
    x, wide = call.x, accumulate_dtype(call.x.dtype)
    layout = _Layout(x, call.per_channel)
    xs, state, own = layout.view(x), _view_state(call, layout), _view_spikes(call, layout)
    ds = None if grad_spikes is None else layout.view(grad_spikes)
    du = None
    if grad_u is not None:
        du = layout.view(grad_u) if call.record else layout.view_step(grad_u)
    gx = _Output(layout, torch.empty_like(x)) if needs[0] else None
    g_state = None
    if needs[3] and call.state is not None:
        like = torch.empty(call.state.shape, dtype=call.state.dtype, device=call.state.device)
        g_state = _Output(layout, like, is_step=call.kind == "exp")
    g_own = None
    if needs[7] and call.own_spikes is not None:
        g_own = _Output(layout, torch.empty_like(call.own_spikes, memory_format=torch.contiguous_format))
    sums = _Sums(call, needs)
    # A backward goes through time in reverse, and so needs the potential of all steps at once.
    for block in layout.blocks(_block_size(call, one_row=False)):
        neurons = _Neurons(call, state, own, block, wide)
        g_state_block = None
        if g_state is not None:
            g_state_block = g_state.view[block[1:] if call.kind == "exp" else block]
        neurons.run_backward(
            xs[block],
            None if ds is None else ds[block],
            None if du is None else du[block if call.record else block[1:]],
            _of_block(gx, block),
            g_state_block,
            _of_block(g_own, block),
            sums,
        )
    return Gradients(
        None if gx is None else gx.fill(),
        None if sums.kernel is None else sums.kernel.to(call.kernel.dtype),
        None if sums.threshold is None else sums.threshold.to(wide),
        None if g_state is None else g_state.fill(),
        sums.scale,
        sums.shift,
        None if sums.feedback is None else sums.feedback.to(wide),
        None if g_own is None else g_own.fill(),
    )


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel (dim 2) over all other dims: [C], float32 or wider.

    Two passes, the second over distances from the mean, so that a large mean costs no digits.
    """
    layout, size = _Layout(x, per_channel=True), max(1, _AREA // max(1, len(x)))
    xs = layout.view(x)
    channels, count = layout.shape[2], x.numel() // max(1, x.shape[2])
    wide = torch.promote_types(x.dtype, torch.float32)
    # A block is short enough for sums in the wide dtype; what the blocks give is added up in float64.
    total = torch.zeros(channels, dtype=torch.float64, device=x.device)
    for block in layout.blocks(size):
        total[block[2]] += xs[block].sum((0, 1, 3), dtype=wide)
    mean = total / count
    squares = torch.zeros_like(total)
    center = mean.to(wide).unsqueeze(-1)
    for block in layout.blocks(size):
        squares[block[2]] += (xs[block] - center[block[2]]).square_().sum((0, 1, 3))
    # the center is the rounded mean: the distances' own mean is what rounding left over
    variance = squares / count - (mean - center.squeeze(-1)).square()
    return mean.to(wide), variance.clamp_(min=0).to(wide)


def add_channel_affine_(gx: Tensor, x: Tensor, factor: Tensor, offset: Tensor) -> None:
    """gx += factor[c] * x + offset[c], in place; gx, x [T, N, C, *] of any strides, factor, offset [C]."""
    layout = _Layout(gx, per_channel=True)
    out, xs = _Output(layout, gx), layout.view(x)
    factor, offset = factor.unsqueeze(-1), offset.unsqueeze(-1)
    for block in layout.blocks(max(1, _AREA // max(1, len(x)))):
        part = torch.addcmul(offset[block[2]], xs[block].to(factor.dtype), factor[block[2]])
        out.view[block].add_(part)
    out.fill()


# --- blocks of neurons ----------------------------------------------------------------------------------


class _Layout:
    """How tensors shaped like ``x`` [T, N, *] are seen as [T, N, C, R] (batch, channel, the rest).

    Parameters of a whole layer need no channel axis: there the neurons are one flat axis (N = C = 1) in the
    order in which they lie in memory, so that few strides force a copy.
    """

    def __init__(self, x: Tensor, per_channel: bool) -> None:
        sizes, neurons = list(x.shape), list(range(1, x.dim()))
        if per_channel:
            self.order = neurons
            shapes = [[sizes[0], sizes[1], sizes[2], prod(sizes[3:])]]
        else:
            self.order = sorted(neurons, key=lambda d: x.stride()[d], reverse=True)
            outer = sizes[self.order[0]]
            rest = prod(sizes[d] for d in self.order[1:])
            shapes = [[sizes[0], 1, 1, outer * rest], [sizes[0], outer, 1, rest]]
        # one shape for every tensor of the call: the first that all the outputs can take as a view
        # (on the meta device an empty tensor has strides and costs no memory)
        out = torch.empty_like(x, device="meta")
        self.shape = next((shape for shape in shapes if self._is_viewable(out, shape)), shapes[-1])

    def permuted(self, tensor: Tensor) -> Tensor:
        """The neuron axes in this layout's order; leading axes (time, if any) stay in front."""
        lead = tensor.dim() - len(self.order)
        return tensor.permute(*range(lead), *(d - 1 + lead for d in self.order))

    def _is_viewable(self, tensor: Tensor, shape: list[int]) -> bool:
        try:
            self.permuted(tensor).view(shape)
        except RuntimeError:
            return False
        return True

    def view(self, tensor: Tensor) -> Tensor:
        """[S, N, *] as [S, N, C, R]; copied only if its strides allow no view."""
        return self.permuted(tensor).reshape(tensor.shape[0], *self.shape[1:])

    def view_step(self, tensor: Tensor) -> Tensor:
        """One step [N, *] as [N, C, R]; copied only if its strides allow no view."""
        return self.permuted(tensor).reshape(self.shape[1:])

    def blocks(self, size: int) -> Iterator[Block]:
        """Index blocks of at most about ``size`` neurons each that cover all neurons."""
        _, n_all, c_all, r_all = self.shape
        # The inner axes are filled first, so that a block is read in long runs.
        r = max(1, min(r_all, size))
        c = max(1, min(c_all, size // r))
        n = max(1, min(n_all, size // (r * c)))
        for i in range(0, n_all, n):
            for j in range(0, c_all, c):
                for k in range(0, r_all, r):
                    yield slice(None), slice(i, i + n), slice(j, j + c), slice(k, k + r)


class _Output:
    """A tensor that blocks are written into, through ``view``."""

    def __init__(self, layout: _Layout, tensor: Tensor, *, is_step: bool = False) -> None:
        self.tensor, self.layout = tensor, layout
        self.view = layout.view_step(tensor) if is_step else layout.view(tensor)

    def fill(self) -> Tensor:
        """Brings what was written home to the tensor, and returns it; it is never a view."""
        if self.tensor.numel() > 0 and self.view.data_ptr() != self.tensor.data_ptr():
            # its strides allow no [T, N, C, R] view, so the blocks went to a copy
            permuted = self.layout.permuted(self.tensor)
            permuted.copy_(self.view.reshape(permuted.shape))
        return self.tensor


def _view_state(call: Call, layout: _Layout) -> Tensor | None:
    """The state in the layout's shape: [n, c, r] for an exponential, else [S, n, c, r]."""
    if call.state is None:
        return None
    return layout.view_step(call.state) if call.kind == "exp" else layout.view(call.state)


def _view_spikes(call: Call, layout: _Layout) -> Tensor | None:
    return None if call.own_spikes is None else layout.view(call.own_spikes)


def _block_size(call: Call, one_row: bool) -> int:
    """Neurons a block; ``one_row``: a recursion would need memory for one step alone."""
    if call.kind == "exp" and one_row and not call.reset:
        return _ROW
    return max(1, _AREA // max(1, len(call.x)))


def _of_block(output: _Output | None, block: Block) -> Tensor | None:
    return None if output is None else output.view[block]


class _Sums:
    """Gradients that are sums over neurons; None where nobody asked."""

    def __init__(self, call: Call, needs: tuple[bool, ...]) -> None:
        def zeros(parameter: Tensor | None, need: bool) -> Tensor | None:
            # float64, because a float32 sum over millions of neurons loses what each of them adds
            return (
                torch.zeros_like(parameter, dtype=torch.float64) if need and parameter is not None else None
            )

        _, need_kernel, need_threshold, _, need_scale, need_shift, need_feedback, _ = needs
        self.feedback = zeros(call.feedback, need_feedback)
        self.kernel, self.threshold = zeros(call.kernel, need_kernel), zeros(call.threshold, need_threshold)
        self.scale, self.shift = zeros(call.scale, need_scale), zeros(call.shift, need_shift)


class _Neurons:
    """One block of neurons [T, n, c, r]: its slices of the parameters and of the state, in the wide dtype."""

    def __init__(
        self, call: Call, state: Tensor | None, own_spikes: Tensor | None, block: Block, wide: torch.dtype
    ) -> None:
        self.call, self.wide, self.channels = call, wide, block[2]
        # The columns of a matrix are inputs of different steps, not channels.
        self.kernel = _columns(call.kernel, self.channels, call.kind != "matrix").to(wide)
        self.threshold = None if call.threshold is None else self._scalar_or_rows(call.threshold)
        self.state: Tensor | None = None
        if state is not None:
            self.state = state[block[1:] if call.kind == "exp" else block].to(wide)
        if call.kind == "exp":
            self.decay = self._scalar_or_rows(call.kernel[0])
            self.gain = self._scalar_or_rows(call.kernel[1])
        self.own_spikes = None if own_spikes is None else own_spikes[block].to(wide)
        self.feedback = None if call.feedback is None else self._rows(call.feedback)
        self.scale = None if call.scale is None else self._rows(call.scale)
        self.shift = None if call.shift is None else self._rows(call.shift)

    def _scalar_or_rows(self, value: Tensor) -> Tensor | float:
        """A number where reading one is free, else a tensor that broadcasts over [n, c, r]."""
        if value.numel() == 1 and value.device.type == _HOST_DEVICE:
            return float(value)
        return self._rows(value)

    def _rows(self, value: Tensor) -> Tensor:
        return _columns(value, self.channels).to(self.wide).unsqueeze(-1)

    def run(self, x: Tensor, spikes: Tensor | None, recorded: Tensor | None) -> Tensor:
        """Writes spikes and the potential of every step, where given; returns the last potential."""
        if self.call.reset:
            u, own = torch_feedback.potential(self._feedback_of(x))
            if recorded is not None:
                recorded.copy_(u)
            if spikes is not None:
                spikes.copy_(own[self.call.spikes_held :])
            return u[-1]
        if self.call.kind == "exp" and recorded is None:
            return self._run_rows(x, spikes)
        if self.call.kind == "exp":
            assert recorded is not None
            u = torch_sums.exponential_(recorded, self._inputs(x), self.decay, self.gain, self.state)
        else:
            u = self._weighted_sums(self._inputs(x))
            if recorded is not None:
                recorded.copy_(u)
        if spikes is not None:
            self._fire(u, spikes)
        return u[-1]

    def _run_rows(self, x: Tensor, spikes: Tensor | None) -> Tensor:
        """The recursion with one row of memory, where nobody asked for the potential of every step."""
        row = torch.empty(x.shape[1:], dtype=self.wide, device=x.device)
        for t in range(len(x)):
            before = row if t > 0 else self.state
            torch_sums.step_(row, before, self._inputs(x[t]), self.decay, self.gain)
            if spikes is not None:
                self._fire(row, spikes[t])
        return row

    def run_backward(
        self,
        x: Tensor,
        ds: Tensor | None,
        du: Tensor | None,
        gx: Tensor | None,
        g_state: Tensor | None,
        g_own: Tensor | None,
        sums: _Sums,
    ) -> None:
        """Writes gx, g_state and g_own and adds to the sums; du is of every step or of the last alone."""
        y = self._inputs(x)
        if self.call.reset:
            gy = self._feedback_backward(x, ds, du, g_state, g_own, sums)
        else:
            g, before = self._local_gradient(y, ds, gx, sums)
            if du is not None:
                # The gradient of the last potential alone belongs to the last step.
                (g if du.dim() == g.dim() else g[-1]).add_(du)
            gy = self._sums_backward(g, before, y, g_state, sums)
        if sums.scale is not None:
            self._add(sums.scale, gy * x)
        if sums.shift is not None:
            self._add(sums.shift, gy)
        if gx is None:
            return
        if self.scale is not None:
            torch.mul(gy, self.scale, out=gx)  # rounds to 16 bits once, on the way out
        # Where the gradient was computed in the memory of gx, nothing is left to copy.
        elif gx.data_ptr() != gy.data_ptr():
            gx.copy_(gy)

    def _sums_backward(
        self, g: Tensor, before: Tensor | None, y: Tensor, g_state: Tensor | None, sums: _Sums
    ) -> Tensor:
        """dL/dy [T, n, c, r] of a potential without feedback, from its own gradient."""
        if self.call.kind == "exp":
            return self._exponential_backward(g, before, y, g_state, sums.kernel)
        return self._weighted_sums_backward(g, y.to(self.wide), g_state, sums.kernel)

    def _feedback_of(self, x: Tensor) -> torch_feedback.Block:
        y, rows = self._inputs(x).to(self.wide), self._rows
        assert self.threshold is not None
        kernel = [rows(row) for row in self.call.kernel]
        return torch_feedback.Block(
            self.call, y, kernel, self.threshold, self.state, self.feedback, self.own_spikes
        )

    def _feedback_backward(
        self,
        x: Tensor,
        ds: Tensor | None,
        du: Tensor | None,
        g_state: Tensor | None,
        g_own: Tensor | None,
        sums: _Sums,
    ) -> Tensor:
        """dL/dy [T, n, c, r]."""
        grads = torch_feedback.backward(self._feedback_of(x), ds, du)
        for out, of_state in ((g_state, grads.state), (g_own, grads.own_spikes)):
            if out is not None:
                out.copy_(of_state)
        for total, parts in ((sums.kernel, grads.kernel), (sums.feedback, grads.feedback)):
            if total is not None:
                columns = _columns(total, self.channels, total.shape[1] > 1)
                for row, part in zip(columns, parts, strict=True):
                    row += torch_sums.group_sum(part, total.shape[1])
        if sums.threshold is not None:
            self._add(sums.threshold, grads.through_spikes, -1)
        return grads.inputs

    def _inputs(self, x: Tensor) -> Tensor:
        """What the neuron gets of x, a block or a step of it: x itself, or scale * x + shift."""
        if self.scale is None or self.shift is None:
            return x
        return torch.addcmul(self.shift, x.to(self.wide), self.scale)

    def _fire(self, u: Tensor, out: Tensor) -> None:
        compare = torch.gt if self.call.strict else torch.ge
        compare(u, self.threshold, out=out)  # type: ignore[call-overload, arg-type]

    def _weighted_sums(self, y: Tensor) -> Tensor:
        y = y.to(self.wide)
        if self.call.kind == "fir":
            return torch_sums.fir(y, self.kernel, self.state)
        return torch_sums.matrix(self._with_state(y), self.kernel)

    def _with_state(self, y: Tensor) -> Tensor:
        return y if self.state is None else torch.cat([self.state, y])

    def _local_gradient(
        self, y: Tensor, ds: Tensor | None, gx: Tensor | None, sums: _Sums
    ) -> tuple[Tensor, Tensor | None]:
        """dL/ds[t] sigma'(u[t] - v_threshold), in the memory of gx where that is wide enough.

        For the decay's gradient also u[t-1]. Adds to ``sums.threshold``.
        """
        keeps_before = sums.kernel is not None and self.call.kind == "exp"
        if ds is None:
            g = torch.zeros(y.shape, dtype=self.wide, device=y.device)
            return g, self._one_step_back(self._potential(y, None)) if keeps_before else None
        assert self.threshold is not None
        u = self._potential(y, gx)
        # This is a copy, because the next line overwrites u.
        before = self._one_step_back(u) if keeps_before else None
        g = self.call.surrogate.derivative_(u.sub_(self.threshold)).mul_(ds)
        if sums.threshold is not None:
            # Spikes depend on u - v_threshold.
            self._add(sums.threshold, g, -1)
        return g, before

    def _potential(self, y: Tensor, gx: Tensor | None) -> Tensor:
        if self.call.kind != "exp":
            return self._weighted_sums(y)
        # gx is written last, once nobody reads the potential any more: its memory serves until then
        fits = gx is not None and gx.dtype == self.wide
        u = gx if gx is not None and fits else torch.empty(y.shape, dtype=self.wide, device=y.device)
        return torch_sums.exponential_(u, y, self.decay, self.gain, self.state)

    def _one_step_back(self, u: Tensor) -> Tensor:
        """u[t-1] for every t of the block."""
        first = torch.zeros_like(u[:1]) if self.state is None else self.state.unsqueeze(0)
        return torch.cat([first, u[:-1]])

    def _exponential_backward(
        self, g: Tensor, before: Tensor | None, y: Tensor, g_state: Tensor | None, g_kernel: Tensor | None
    ) -> Tensor:
        """dL/dy [T, n, c, r], in the memory of g."""
        torch_sums.exponential_adjoint_(g, self.decay)
        if g_kernel is not None:
            assert before is not None
            groups = g_kernel.shape[1]
            columns = _columns(g_kernel, self.channels, groups > 1)
            # u[t] = decay u[t-1] + gain y[t], and g is by now the derivative by u[t] through all later steps.
            columns[0] += torch_sums.group_sum(g * before, groups)
            columns[1] += torch_sums.group_sum(g * y, groups)
        if g_state is not None:
            # This has to come before the gain is multiplied into g in place.
            g_state.copy_(g[0] * self.decay)
        return g if isinstance(self.gain, float) and self.gain == 1.0 else g.mul_(self.gain)

    def _weighted_sums_backward(
        self, g: Tensor, y: Tensor, g_state: Tensor | None, g_kernel: Tensor | None
    ) -> Tensor:
        """dL/dy [T, n, c, r]."""
        if self.call.kind == "fir":
            if g_kernel is not None:
                columns = _columns(g_kernel, self.channels, g_kernel.shape[1] > 1)
                columns += torch_sums.fir_tap_gradient(g, y, self.kernel, self.state)
            if g_state is not None:
                g_state.copy_(torch_sums.fir_state_adjoint(g, self.kernel))
            return torch_sums.fir_adjoint(g, self.kernel)
        if g_kernel is not None:
            g_kernel += torch_sums.matrix_gradient(g, self._with_state(y))
        # The first columns of the matrix weigh the inputs before the block, which are the state.
        earlier = self.kernel.shape[1] - len(g)
        gys = torch_sums.matrix_adjoint(g, self.kernel)
        if g_state is not None:
            g_state.copy_(gys[:earlier])
        return gys[earlier:]

    def _add(self, total: Tensor, part: Tensor, sign: int = 1) -> None:
        _columns(total, self.channels).add_(torch_sums.group_sum(part, total.numel()), alpha=sign)


def _columns(value: Tensor, channels: slice, sliced: bool = True) -> Tensor:
    """The block's columns of a per-channel parameter (a view); all of a per-layer one."""
    return value[..., channels] if sliced and value.shape[-1] > 1 else value
