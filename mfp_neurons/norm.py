"""Batch normalization in front of a neuron, as a value: a few tensors and no state."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import batch_norm

from ._checks import check_finite, describe


@dataclass(frozen=True)
class Norm:
    r"""What :func:`torch.nn.functional.batch_norm` takes besides its input, in its order.

    .. math::
        y = \frac{x - \operatorname{mean}}{\sqrt{\operatorname{var} + \epsilon}} \, w + b

    Args:
        running_mean, running_var: averages [C], or None for both. Where ``training``, they are updated in
            place (with the unbiased variance); elsewhere they are what normalizes.
        weight, bias: w and b, [C] or None for 1 and 0.
        training: normalize with the mean and the biased variance of this input, over T, N and what follows C.
        momentum: how much of a new average is the newest value; a number, or a tensor of one element.
        eps: added to the variance.

    Raises:
        TypeError: a tensor is not floating-point, or a number is none.
        ValueError: sizes differ, an average is missing where it is needed, or eps is out of range.

    >>> import torch
    >>> Norm(running_mean=torch.zeros(8), running_var=torch.ones(8)).training
    False
    """

    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: Tensor | float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = {name: len(tensor) for name, tensor in self.tensors.items() if _is_row(name, tensor)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the tensors of a Norm must have one value a channel, got {sizes}")
        if (self.running_mean is None) != (self.running_var is None):
            raise ValueError("running_mean and running_var must be given both, or be None both")
        if self.running_mean is None and not self.training:
            raise ValueError("running_mean and running_var must be given where training=False, got None")
        if isinstance(self.eps, bool) or not isinstance(self.eps, (int, float)):
            raise TypeError(f"eps must be a number, got {describe(self.eps)}")
        if self.eps < 0 or (self.training and self.eps == 0) or self.eps == float("inf"):
            raise ValueError(
                f"eps must be finite and positive (without training, at least 0), got {self.eps}"
            )
        if isinstance(self.momentum, Tensor):
            return
        if isinstance(self.momentum, bool) or not isinstance(self.momentum, (int, float)):
            raise TypeError(f"momentum must be a number or a tensor, got {describe(self.momentum)}")
        check_finite("momentum", self.momentum)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of one value a channel that are there, by name."""
        names = ("running_mean", "running_var", "weight", "bias")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def of(self, x_seq: Tensor) -> Tensor:
        """``x_seq`` [T, N, C, *], normalized by torch's own batch norm: the same shape, differentiable."""
        # All that follows C as one dimension: with more of them, torch's gradient on CPUs is wrong where one
        # has length 1 and the gradient comes in another memory format than the input.
        y = batch_norm(
            x_seq.flatten(0, 1).unsqueeze(-1).flatten(2), self.running_mean, self.running_var, self.weight,
            self.bias, self.training, float(self.momentum), self.eps,
        )  # fmt: skip
        return y.reshape(x_seq.shape)


def _is_row(name: str, value: object) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be a real floating-point tensor [C] or None, got {describe(value)}")
    if value.dim() != 1:
        raise ValueError(f"{name} must have one value a channel, [C], got shape {list(value.shape)}")
    return True
