"""A memory-free neuron module as numbers: taps or decay, threshold, rule.

Neurons are known by what they are made of, so that no framework is imported here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._convert import advice
from ..adapters import is_memory_free
from ..history import Exponential, Matrix, as_row
from ..neuron import MFP
from ..surrogate import Surrogate
from .signals import Floats, Shape

Refuse = Callable[[str], Any]


@dataclass(frozen=True, eq=False)
class Numbers:
    """What a layer of neurons computes with; arrays are broadcast over a step's ``shape``.

    Attributes:
        decay, gain: of an infinite exponential, in float64; None of a finite kernel.
        taps: [K, *]; None of an infinite exponential.
        threshold: fires on u > threshold, which is the float below v_threshold where it fires on equality.
        facts: metadata.
    """

    decay: Floats | None
    gain: Floats | None
    taps: NDArray[Any] | None
    threshold: NDArray[Any]
    facts: dict[str, Any]


@torch.no_grad()
def read(module: Any, shape: Shape, dtype: Any, refuse: Refuse) -> Numbers:
    """The numbers of a neuron module, or words why there are none.

    Args:
        module: one of ours.
        shape: of one step of one sample.
        dtype: of thresholds and taps: what potentials are computed in.
        refuse: called with what is wrong; raises.
    """
    check(module, refuse)
    kernel = module.kernel()
    if isinstance(kernel, Matrix):
        refuse(
            "has a kernel of its own for every step (kernel='matrix'), and NIR has no time to look it up by. "
            "Use kernel='fir' with an order, or 'exp'"
        )
    spread = _Spread(module, shape, refuse)
    decay = gain = taps = None
    if isinstance(kernel, Exponential) and kernel.order is None:
        decay, gain = (
            spread(name, as_row(value)).astype(np.float64)
            for name, value in (("decay", kernel.decay), ("gain", kernel.gain))
        )
    else:
        rows = kernel.taps(kernel.order or 1) if isinstance(kernel, Exponential) else kernel.taps
        taps = np.stack([spread("taps", row.reshape(-1)).astype(dtype) for row in rows])
    strict = fires_above_only(module, refuse)
    value = _threshold(module, spread).astype(dtype)
    # inf stays: the largest number, just below, is one that a potential may exceed
    just_below = np.nextafter(value, np.array(-np.inf, dtype))
    threshold = value if strict else np.where(np.isinf(value), value, just_below)
    facts = _facts(module, kernel) | {
        "comparison": ">" if strict else ">=",
        "v_threshold": compact(value),
    }
    return Numbers(decay, gain, taps, threshold, facts)


def _facts(module: Any, kernel: Any) -> dict[str, Any]:
    own = module.kernel
    facts: dict[str, Any] = {"neuron": type(module).__name__, "kernel": own.kind}
    named = {
        "order": own.order,
        "stride": getattr(own, "stride", 1),
        "kernel_bits": own.kernel_bits,
        "num_channels": own.num_channels,
        "decay_logit": getattr(own, "decay_logit", None),
    }
    if own.kind == "exp":
        exponential = own.exponential()
        named["decay"], named["gain"] = as_row(exponential.decay), as_row(exponential.gain)
        named["follows_decay"] = own.gain_follows_decay or None
    for name, value in named.items():
        if value is not None:
            facts[name] = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    return facts


def check(module: nn.Module, refuse: Refuse) -> None:
    if not is_memory_free(module):
        refuse(
            f"keeps a potential of its own. {advice(module)}. A network that is to keep its potentials goes "
            "out by its own framework's exporter"
        )
    for kind in type(module).__mro__:
        if kind.__module__.startswith("mfp_neurons."):
            break
        changed = [name for name in vars(kind) if name.endswith("forward") or name in ("fire", "_run")]
        if changed:
            refuse(
                f"computes in its own way ({kind.__name__}.{changed[0]}), which is not read. Use the neuron "
                "as it is, and put what it does besides into a module around it"
            )
    if getattr(module, "state_quant", False):
        refuse("rounds its potential (state_quant), which NIR cannot say. Make it with state_quant=False")
    if getattr(module, "inhibition", False):
        refuse("lets only one neuron fire (inhibition), which NIR cannot say. Make it with inhibition=False")


def fires_above_only(module: Any, refuse: Refuse) -> bool:
    """The rule at u = v_threshold, which is that of the function that fires."""
    if isinstance(module, MFP) and isinstance(module.surrogate, Surrogate):
        return module.strict
    names = ("surrogate", "surrogate_function", "spike_grad")
    name = next(name for name in names if hasattr(module, name))
    fire = getattr(module, name)
    below, on, above = fire(torch.tensor([-1.0, -1e-3, 0.0, 1e-3, 1.0])).split([2, 1, 2])
    if bool((below != 0).any() or (above != 1).any() or on.item() not in (0, 1)):
        refuse(f"does not fire spikes of 0 and 1 ({name}={fire!r}). Use a surrogate that does")
    return on.item() == 0


def _threshold(module: Any, spread: "_Spread") -> NDArray[Any]:
    snn = hasattr(module, "spike_grad")
    given = torch.as_tensor(getattr(module, "threshold" if snn else "v_threshold"))
    if not bool((given > -math.inf).all()):
        spread.refuse("has a threshold that is NaN or -inf. Set a number, or math.inf, which never fires")
    if given.dim() == 1 and not snn:
        return spread("threshold", given)
    return spread.over(given, given.shape, "threshold")


@dataclass(frozen=True)
class _Spread:
    """Puts a parameter in its places over a step."""

    module: Any
    shape: Shape
    refuse: Refuse

    def __call__(self, name: str, row: Tensor) -> NDArray[Any]:
        """Of one value, one a channel, or whatever snnTorch's beta holds."""
        beta = getattr(self.module, "beta", None)
        if isinstance(beta, Tensor) and self.module.num_channels is None and beta.numel() == row.numel():
            return self.over(row, tuple(beta.shape), name)
        return self.over(row, (row.numel(), *[1] * (len(self.shape) - 1)), name)

    def over(self, value: Tensor, shape: tuple[int, ...], name: str) -> NDArray[Any]:
        wide = value.detach().cpu().reshape(shape)
        if wide.numel() == 1:
            wide = wide.reshape(())
        try:
            return wide.broadcast_to(1, *self.shape)[0].double().numpy().copy()
        except RuntimeError:
            self.refuse(
                f"has a {name} of shape {list(value.shape)}, which does not broadcast over a step "
                f"[N, {', '.join(map(str, self.shape))}]. Give it one value, or one a channel"
            )
            raise


def compact(array: NDArray[Any]) -> NDArray[Any]:
    """An array over a step as [1] where it is one number, [C] where it is one a channel, else [C, *].

    >>> compact(np.full((2, 3), 0.5)), compact(np.array([[1.0, 1.0], [2.0, 2.0]]))
    (array([0.5]), array([1., 2.]))
    """
    flat = array.reshape(-1)
    if (flat == flat[0]).all():
        return flat[:1].copy()
    rows = array.reshape(len(array), -1)
    return rows[:, 0].copy() if (rows == rows[:, :1]).all() else array.copy()
