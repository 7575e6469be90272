"""Layers that the networks share: synapses over whole sequences, and neurons layer by layer."""

from collections.abc import Callable

from torch import Tensor, nn

from mfp_neurons.adapters import describe_neuron
from mfp_neurons.neuron import MFP

Neurons = Callable[[int | None], nn.Module]  # the next layer's neuron for so many channels


class PerStep(nn.Sequential):
    """Layers that know nothing of time, applied to every step of a sequence: [T, N, *] in and out.

    Where all steps are one image in memory (``expand``), the layers compute it once. The numbers are the
    same, except that a batch norm corrects its running variance for N H W samples and not T N H W.
    """

    def forward(self, x_seq: Tensor) -> Tensor:  # type: ignore[override]
        steps, batch = x_seq.shape[:2]
        if _stands_still(x_seq):
            once: Tensor = super().forward(x_seq[0])
            return once.expand(steps, *once.shape)
        outputs = super().forward(x_seq.flatten(0, 1))
        return outputs.unflatten(0, (steps, batch))


class StillImageSequential(nn.Sequential):
    """Layers that take whole sequences, [T, N, *] in and out, and an image that is shown at every step.

    Where all steps are one image in memory (``expand``), training computes the layers in front of the first
    one that knows of time once (a memory-free neuron of order 1 does not). The numbers are the same, except
    that a batch norm corrects its running variance for N H W samples and not T N H W.
    """

    def forward(self, x_seq: Tensor) -> Tensor:  # type: ignore[override]
        steps, layers = x_seq.shape[0], list(self)
        if self.training and _stands_still(x_seq):
            # one step through all layers that know no time, and T copies, without memory, for the rest
            x_seq = x_seq[:1]
            while layers and _is_timeless(layers[0]):
                x_seq = layers.pop(0)(x_seq)
            x_seq = x_seq.expand(steps, *x_seq.shape[1:])
        for layer in layers:
            x_seq = layer(x_seq)
        return x_seq


def _stands_still(x_seq: Tensor) -> bool:
    """Whether all steps are one image in memory."""
    return len(x_seq) > 1 and x_seq.stride(0) == 0  # as ``expand`` makes it; equal copies are not looked for


def _is_timeless(layer: nn.Module) -> bool:
    """Whether every output step depends on its own input step alone, and alike at all steps."""
    spec = describe_neuron(layer)
    if spec is not None:
        return spec.carried.what == "nothing" and not spec.carried.spikes
    pools = nn.MaxPool2d | nn.AvgPool2d
    return isinstance(layer, nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm | pools)


def conv(inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1) -> PerStep:
    """A convolution without bias that keeps the size of maps / stride, and its batch norm over (T, N)."""
    return PerStep(
        nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def linear(inputs: int, outputs: int) -> PerStep:
    """A linear layer without bias and its batch norm over (T, N)."""
    return PerStep(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs))


def memory_free(orders: list[int]) -> Neurons:
    """Neurons with so many power-of-two taps for each channel, layer by layer."""
    left = iter(orders)

    def neuron(num_channels: int | None) -> nn.Module:
        return MFP(kernel="fir", order=next(left), num_channels=num_channels, kernel_bits="pow2")

    return neuron


def orders_of(name: str, order: int | list[int], layers: int) -> list[int]:
    """One order a layer from one for all, or from such a list.

    Raises:
        ValueError: the list has another number of orders.
    """
    orders = [order] * layers if isinstance(order, int) else list(order)
    if len(orders) != layers:
        raise ValueError(f"order must be one number, or one for each of the {layers} layers of neurons of "
                         f"{name}, got {len(orders)}")  # fmt: skip
    return orders


def check_maps(name: str, features: tuple[int, ...], smallest: int, what: str = "steps") -> None:
    """Raises ValueError unless ``features`` are [C, H, W], H and W at least ``smallest``."""
    if len(features) != 3 or min(features[1:]) < smallest:
        raise ValueError(
            f"{name} reads {what} [C, H, W] of {smallest} x {smallest} or more, got {list(features)}"
        )
