r"""How far back each layer needs to look: orders learned under a budget of state bits.

While training, add a little of :func:`late_taps` to the loss: it makes late taps small where the task does
not need them. Then :func:`fit_orders` gives every layer of neurons the order K that fits the budget best and
cuts its taps there, and training goes on. Equations in docs/neuron.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ._checks import check_int, check_module, describe
from ._undisturbed import reset, undisturbed
from .adapters import describe_neuron, is_memory_free
from .history import FIR, Matrix
from .neuron import HistoryKernel
from .reporting import NeuronRow, report
from .spec import KernelParameters

Option = tuple[int, float]  # what an order costs, in bits of a layer, and what it loses


def late_taps(model: nn.Module) -> Tensor:
    r"""How far back the model's neurons look on average, in steps: a penalty that makes late taps small.

    .. math:: \text{mean over layers and channels of } \frac{\sum_j j\,|m_j|}{\sum_j |m_j|}

    It is a quotient because batch norm undoes any common factor of a channel's taps.

    Args:
        model: PyTorch, SpikingJelly or snnTorch model with memory-free neurons of finite order.

    Returns:
        A scalar, differentiable in the taps; times 1e-3 or so it is what to add to the loss.

    Raises:
        ValueError: the model has no memory-free neuron, or one of infinite order.

    >>> from mfp_neurons import MFP
    >>> late_taps(MFP(0.5, kernel="fir", order=3)).item()  # taps 1, 1/2, 1/4
    0.5714285969734192
    """
    means = []
    for module in _finite(model).values():
        kernel = _kernel(module)
        sizes = _powers_by_lag(kernel, 1)
        lags = torch.arange(len(sizes), device=sizes.device, dtype=sizes.dtype) * kernel.stride
        tiny = torch.finfo(sizes.dtype).tiny
        means.append(((lags[:, None] * sizes).sum(0) / sizes.sum(0).clamp_min(tiny)).mean())
    return torch.stack([mean.to(means[0]) for mean in means]).mean()


def fit_orders(
    model: nn.Module,
    example: Any,
    *,
    state_bits: float,
    loss: Callable[[nn.Module], Tensor | float] | None = None,
    optimizer: Optimizer | None = None,
    run: Callable[[nn.Module, Any], object] | None = None,
) -> dict[str, int]:
    """Gives every layer of memory-free neurons an order, so that together they keep ``state_bits`` a neuron.

    Of all orders within the budget it takes those that lose least, each layer's loss counted by itself, and
    cuts the kernels in place: a parameter ``taps`` becomes its first K rows, and stays the same Parameter.

    Args:
        model: PyTorch, SpikingJelly or snnTorch model with memory-free neurons of finite order.
        example: its input, as :func:`mfp_neurons.report` takes it: says how many neurons a layer has and how
            many steps there are. No order reaches further back than these steps.
        state_bits: the budget, in bits that a neuron keeps between two steps, mean over all neurons: what
            ``report(model, example).state_bits_per_neuron`` will be at most. Potentials, poolings over time
            and the own spikes of neurons with a reset count against it, the latter as if no other layer
            kept them too.
        loss: what the model loses, as a function of it: ``lambda model: cross_entropy(model(x), y)``. It is
            called once for every order of every layer, in eval mode, without gradients and from reset
            states. None judges by the taps themselves: an order loses the share of sum_j m_j^2 that lies
            behind it, mean over channels, which is the share of the potential's power if inputs are white.
        optimizer: an optimizer of the model, whose running averages of the taps are cut as the taps are.
        run: how to run the model on the example, as in :func:`mfp_neurons.report`.

    Returns:
        Module path to order, of every memory-free neuron; :func:`truncate` does the same to another copy.

    Raises:
        TypeError: ``model`` is not a module, or ``state_bits`` not a number.
        ValueError: there is no memory-free neuron, one has infinite order, ``state_bits`` is negative or less
            than what is kept beside histories, or ``loss`` gave NaN. The model has not changed then.

    >>> from mfp_neurons import MFP
    >>> early, late = MFP(0.25, kernel="fir", order=4), MFP(0.75, kernel="fir", order=4)
    >>> net = nn.Sequential(nn.Linear(3, 8), early, nn.Linear(8, 8), late)
    >>> fit_orders(net, torch.rand(5, 1, 3), state_bits=1.5)  # 3 bits to share among two equal layers
    {'1': 1, '3': 4}
    """
    _check_bits(state_bits)
    rows = report(model, example, run=run).neurons
    layers = _finite(model)
    total = sum(row.neurons for row in rows)
    fixed = sum(row.neurons * _bits_beside_history(row, layers.get(row.name)) for row in rows)
    # whole bits of the model; the small number is there for sums such as 0.1 + 0.2
    budget = math.floor(state_bits * total - fixed + 1e-6)
    if budget < 0:
        raise ValueError(
            f"state_bits must be at least {fixed / total:g}, what potentials, poolings over time and learned "
            f"feedback keep, got {state_bits}"
        )
    called = {row.name: row for row in rows if row.name in layers}
    options = []  # of each layer: what every order costs, in bits, and what it loses
    for name, row in called.items():
        module = layers[name]
        stride = _kernel(module).stride
        longest = min(_num_taps(name, module), (row.steps - 1) // stride + 1)  # the last tap lies within T
        losses = _losses(model, module, longest, loss)
        # as many own spikes are kept as past inputs where a reset reaches as far back as the kernel
        stride *= 2 if _feedback_follows(module) else 1
        options.append([(row.neurons * stride * k, lost) for k, lost in enumerate(losses)])
    orders = {name: 1 + chosen for name, chosen in zip(called, cheapest(options, budget), strict=True)}
    truncate(model, orders, optimizer)
    return orders


def truncate(model: nn.Module, orders: Mapping[str, int], optimizer: Optimizer | None = None) -> None:
    """Cuts the kernels of a model's neurons in place; what the neurons remember of past inputs is reset.

    Args:
        model: as in :func:`fit_orders`.
        orders: module path to order K, from 1 to what the neuron has; others stay as they are.
        optimizer: as in :func:`fit_orders`.

    Raises:
        TypeError, ValueError: a path is no memory-free neuron's, or an order does not fit. Nothing has
            changed then.

    >>> from mfp_neurons import MFP
    >>> net = nn.Sequential(MFP(0.5, kernel="fir", order=4))
    >>> truncate(net, {"0": 2})
    >>> net[0].kernel.taps.tolist()
    [1.0, 0.5]
    """
    layers = _memory_free(model)
    for path, order in orders.items():
        if path not in layers:
            raise ValueError(
                f"orders: {path!r} is no memory-free neuron of the model; there are {list(layers)}"
            )
        check_int(f"orders[{path!r}]", order, 1, _num_taps(path, layers[path]))
    for path, order in orders.items():
        _cut(layers[path], order)
        if optimizer is not None:
            _cut_averages(layers[path], optimizer)


def cheapest(layers: Sequence[Sequence[Option]], budget: int) -> list[int]:
    """One option of each layer, by index: the least total loss whose total cost is within the budget.

    Exact: dynamic programming over the layers, which keeps, of the costs that can be reached, those that
    lose less than every lower one. Of equal losses it takes the lowest cost. The first option of each layer
    must cost nothing.

    >>> cheapest([[(0, 1.0), (2, 0.0)], [(0, 3.0), (2, 1.0), (4, 0.5)]], budget=4)  # (cost, loss) each
    [1, 1]
    """
    reached: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for options in layers:
        further = sorted(
            (cost + more, lost + loss, (*chosen, index))
            for cost, lost, chosen in reached
            for index, (more, loss) in enumerate(options)
            if cost + more <= budget
        )
        # sorted by cost: whoever costs more and loses no less than one before can be in no best choice
        reached = []
        for state in further:
            if not reached or state[1] < reached[-1][1]:
                reached.append(state)
    return list(reached[-1][2])


def _check_bits(state_bits: float) -> None:
    if isinstance(state_bits, bool) or not isinstance(state_bits, (int, float)):
        raise TypeError(f"state_bits must be a number >= 0, got {describe(state_bits)}")
    if not 0 <= state_bits < math.inf:
        raise ValueError(f"state_bits must be a number >= 0, got {state_bits}")


def _memory_free(model: nn.Module) -> dict[str, nn.Module]:
    """The memory-free neurons by path, as the report names them."""
    check_module("model", model)
    named = ((path or type(module).__name__, module) for path, module in model.named_modules())
    return {path: module for path, module in named if is_memory_free(module)}


def _finite(model: nn.Module) -> dict[str, nn.Module]:
    """Them all, if there is one and all have an order."""
    layers = _memory_free(model)
    if not layers:
        raise ValueError(
            "model has no memory-free neuron; mfp_neurons.convert(model) makes its neurons memory-free"
        )
    for path, module in layers.items():
        _num_taps(path, module)
    return layers


def _num_taps(path: str, module: nn.Module) -> int:
    """K now; of a matrix without bands, T."""
    taps = _kernel(module).num_taps
    if taps is None:
        raise ValueError(
            f"{path!r} ({type(module).__name__}) is an exponential of infinite order: give it an order, "
            "such as the number of steps"
        )
    return taps


def _kernel(module: nn.Module) -> KernelParameters:
    spec = describe_neuron(module)
    assert spec is not None and spec.kernel is not None
    return spec.kernel


def _bits_beside_history(row: NeuronRow, module: nn.Module | None) -> float:
    """What a neuron keeps however short its history is: a potential, a pooling's window, learned feedback."""
    if module is None:
        return row.state_bits_per_neuron
    spec = describe_neuron(module)
    assert spec is not None
    own = 0 if _feedback_follows(module) else min(spec.carried.spikes, row.steps - 1)
    history = min(_kernel(module).state_steps or 0, row.steps - 1)
    return row.state_bits_per_neuron - history - row.feedback_bits + own


def _feedback_follows(module: nn.Module) -> bool:
    return bool(getattr(getattr(module, "feedback", None), "follows_kernel", False))


def _powers_by_lag(kernel: KernelParameters, power: int) -> Tensor:
    """|tap|**power of the taps as they run, [K, C] (C = 1 where shared); a matrix's summed over its steps."""
    value, order = kernel(), kernel.num_taps
    assert order is not None
    if isinstance(value, Matrix):
        sums = [value.matrix.diagonal(-lag).abs().pow(power).sum() for lag in range(order)]
        return torch.stack(sums).unsqueeze(1)
    if isinstance(value, FIR):
        return value.taps.reshape(len(value.taps), -1)[:: kernel.stride].abs().pow(power)
    return value.taps(order).abs().pow(power)


def _losses(
    model: nn.Module, module: nn.Module, longest: int, loss: Callable[[nn.Module], Tensor | float] | None
) -> list[float]:
    """What each order from 1 to ``longest`` loses."""
    if loss is not None:
        return [_loss_at(model, module, order, loss) for order in range(1, longest + 1)]
    power = _powers_by_lag(_kernel(module), 2).detach().double()[:longest]
    behind = power.flip(0).cumsum(0).flip(0)  # of each lag: the power there and later
    tiny = torch.finfo(power.dtype).tiny
    shares = (behind / behind[0].clamp_min(tiny)).mean(1)
    return [*shares[1:].tolist(), 0.0]


@torch.no_grad()
def _loss_at(
    model: nn.Module, module: nn.Module, order: int, loss: Callable[[nn.Module], Tensor | float]
) -> float:
    """The loss with one neuron's kernel cut; ``undisturbed`` puts back everything but the taps."""
    taps = getattr(_kernel(module), "taps", None)
    data, grad = (None, None) if taps is None else (taps.data, taps.grad)
    with undisturbed(model):
        try:
            _cut(module, order)
            lost = float(loss(model))
        finally:
            if taps is not None:
                taps.data, taps.grad = data, grad
    if math.isnan(lost):
        raise ValueError(f"loss must give a number, got NaN at order {order} of a {type(module).__name__}")
    return lost


def _cut(module: Any, order: int) -> None:
    if isinstance(module.kernel, HistoryKernel):
        module.kernel.truncate(order)
    if hasattr(module, "order"):  # snnTorch's arguments stay attributes of the neuron
        module.order = order
    reset(module)


def _cut_averages(module: Any, optimizer: Optimizer) -> None:
    taps = getattr(module.kernel, "taps", None)
    if taps is None:
        return
    averages = optimizer.state.get(taps, {})
    # Adam's averages have the shape of the taps; what has another, such as its step, is no average of them
    for name, value in averages.items():
        if isinstance(value, Tensor) and value.dim() == taps.dim():
            averages[name] = value[: len(taps)].clone()
