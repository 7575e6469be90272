"""Pooling over time: several steps become one, so that a short history reaches further back."""

from torch import Tensor, nn


class TimePool(nn.Module):
    r"""One step out of every ``window`` of them: a spike wherever there was one, a maximum for real values.

    .. math:: y[i] = \max_{0 \le j < w} x[i w + j]

    Layers behind it run ``window`` times less often, and K taps reach K ``window`` steps back. Step by step
    it keeps one bit a neuron: whether there was a spike in the window so far.

    :func:`mfp_neurons.deploy.lower` takes it where it pools spikes, counts of them, or the input. A stream
    then has scores in steps that end a window.

    Args:
        window: w, in steps; 1 or more.

    Raises:
        ValueError: ``window`` is no integer of 1 or more, or T is not a multiple of it.

    >>> import torch
    >>> from mfp_neurons import TimePool
    >>> spikes = torch.tensor([0., 1., 0., 0., 1., 1.]).reshape(6, 1, 1)
    >>> TimePool(2)(spikes).flatten()
    tensor([1., 0., 1.])
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        if not isinstance(window, int) or isinstance(window, bool) or window < 1:
            raise ValueError(f"window = {window!r} is not accepted: give an integer of 1 or more")
        self.window = window

    def forward(self, x_seq: Tensor) -> Tensor:
        """[T, N, *] to [T / window, N, *]."""
        if len(x_seq) % self.window:
            raise ValueError(f"x_seq has {len(x_seq)} steps: give a multiple of window = {self.window}")
        return x_seq.unflatten(0, (-1, self.window)).amax(1)

    def extra_repr(self) -> str:
        return f"window={self.window}"
