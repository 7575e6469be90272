"""What a network is once it has been read: a list of layers in exact numbers, which exports start from.

A layer stands for one function that the model called, at every step of time: layers have no time axis. What
only gives numbers another place or shape (views, permutations) is no layer. It shows in the :class:`Source`
through which a layer reads another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..history import Exponential, Kernel, Matrix
from ..quantize import Codes
from .axes import Dims, Shape

Reduction = Literal["mean", "sum", "max"]
Exact = NDArray[np.object_]  # of fractions.Fraction


class NetworkError(ValueError):
    """A model that cannot be described: which module, its type, why, and what to use instead.

    Attributes:
        description: what had been read until then; the layer that could not be read may be its last one.
        layer: the number of the layer that an export refuses.
        handled: how many functions and modules had been read where it arose; it may be raised later.
    """

    description: "NetworkDescription | None" = None
    layer: int | None = None
    handled: int | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """How a layer reads another one.

    Attributes:
        layer: the number of the layer that is read.
        dims: how its features lie in the tensor that is read, without time and batch.
        reduce: how that tensor was reduced over time before; None while it has steps.
        last: over how many of the last steps; None for all.
        skip: how many of the first steps were left out.
    """

    layer: int
    dims: Dims
    reduce: Reduction | None = None
    last: int | None = None
    skip: int = 0

    @property
    def is_reduced(self) -> bool:
        """Whether steps were left out or put together before; it is done to what comes out at the end."""
        return bool(self.reduce or self.last or self.skip)


@dataclass(frozen=True, eq=False)
class Weights:
    """The weight of a layer, [out, in / groups, \\*].

    Attributes:
        codes: of a quantized layer: int8 codes, a scale for each output channel, and bits.
        real: of any other.
        altered: whether ``real`` belongs to a quantized layer that changes its weight before it uses it.
    """

    codes: Codes | None = None
    real: Tensor | None = None
    altered: bool = False

    def values(self) -> Tensor:
        """The numbers that the layer multiplies with, in the dtype of the model."""
        if self.codes is None:
            assert self.real is not None
            return self.real
        # The rule for weights has compared this product with the weight that the layer uses.
        return self.codes.codes.to(self.codes.scale.dtype) * self.codes.scale

    @property
    def shape(self) -> Shape:
        tensor = self.real if self.codes is None else self.codes.codes
        assert tensor is not None
        return tuple(tensor.shape)

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"{size} real weights" if self.codes is None else f"{size} codes of {self.codes.bits:g} bits"


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """What one function of the model does at each step.

    Attributes:
        name: the path of the module that called it; of the model itself, the function.
        where: that module for messages: its path and type.
        function: the torch function; of neurons and what else is read as a module, the module's type.
        sources: the layers that it reads.
        shape: of what it gives for one step of one sample, as torch has it: [F], [C, L], [C, H, W], ..
        period: steps of the input that one of its own steps takes; more than 1 behind a pooling over time.
    """

    name: str
    where: str
    function: str
    sources: tuple[Source, ...]
    shape: Shape
    period: int = 1

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        # The subclasses are the kinds of layers, and messages and the printed table call them so.
        cls.kind = cls.__name__

    def holds(self) -> str:
        """What it computes with, in a few words."""
        return ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Layer):
    """What the network is given; always layer 0.

    Attributes:
        features: the shape of one step of one sample as the user has it; ``shape`` is how it is read first.
        has_time: it is [T, N, \\*], not [N, \\*] of a model that takes single steps or repeats it itself.
        is_binary: all of the example is 0 or 1.
        time: which dimension of what the model is given is time, if it has any: 0, or 1 of [N, T, \\*].
    """

    features: Shape
    has_time: bool
    is_binary: bool
    time: int = 0

    def holds(self) -> str:
        order = ", the batch first" if self.time else "" if self.has_time else ", without time"
        return ("spikes" if self.is_binary else "numbers") + order


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Layer):
    """weights @ x + bias over all features in one row or, ``at_places``, over the channels at every place."""

    weights: Weights
    bias: Tensor | None
    at_places: bool = False

    def holds(self) -> str:
        return str(self.weights) + (" and a bias" if self.bias is not None else "")


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Layer):
    """A convolution over one or two dimensions; options as torch has them, one number a dimension.

    ``padding`` is "same" where it is another one before and behind.
    """

    weights: Weights
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...] | Literal["same"]
    dilation: tuple[int, ...]
    groups: int

    def holds(self) -> str:
        return str(self.weights) + (" and a bias" if self.bias is not None else "")


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Layer):
    """scale * x + offset, fractions that broadcast over the shape; a None changes nothing."""

    scale: Exact | None = None
    offset: Exact | None = None

    def holds(self) -> str:
        named = {"times": self.scale, "plus": self.offset}
        return ", ".join(f"{name} {_numbers(array)}" for name, array in named.items() if array is not None)


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNorm(Layer):
    """(x - mean) / sqrt(var + eps) * weight + bias with fixed statistics, one number a channel.

    ``of_places``: one number for every place of the features instead, of a norm behind a flattening.
    """

    mean: Tensor
    var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    of_places: bool

    def holds(self) -> str:
        return f"{len(self.mean)} means and variances"


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Layer):
    """The largest, or the average, of each window; options as torch has them, one number a dimension.

    Attributes:
        divisor: what the sum of an average is divided by; None for the size of the window.
        is_partial: the last windows reach over the border (``ceil_mode``).
    """

    largest: bool
    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    divisor: int | None = None
    is_partial: bool = False

    def holds(self) -> str:
        what = "largest" if self.largest else "sum" if self.divisor == 1 else "average"
        return f"{what} of {'x'.join(map(str, self.size))} every {'x'.join(map(str, self.stride))}"


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupSum(Layer):
    """scale times the sum of the features at ``places`` [out, n], row-major places of the source."""

    places: NDArray[np.int64]
    scale: Fraction

    def holds(self) -> str:
        return f"{self.scale} times the sum of {self.places.shape[1]}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Gather(Layer):
    """The numbers of a layer at other places: moved, chosen, repeated or padded.

    Attributes:
        places: int64, as many as ``shape`` has: row-major places of the source, -1 for ``fill``.
        fill: the number that stands where nothing of the source does.
    """

    places: NDArray[np.int64]
    fill: Fraction = Fraction(0)

    def holds(self) -> str:
        filled = int((self.places < 0).sum())
        return f"{self.places.size} places" + (f", {filled} of them {float(self.fill):g}" if filled else "")


@dataclass(frozen=True, eq=False, kw_only=True)
class TimePool(Layer):
    """The largest number of ``window`` steps: one step out of so many."""

    window: int

    def holds(self) -> str:
        return f"largest of {self.window} steps"


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Layer):
    """The sum of two layers of the same places."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Multiply(Layer):
    """The product of two layers."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MatMul(Layer):
    """Products of matrices of two layers, [B, H, K] and [B, K, W], whose features lie in this order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Layer):
    """Layers side by side, channel after channel."""


@dataclass(frozen=True, eq=False)
class NeuronReset:
    """What the last spikes of a neuron do to its own potential, which counts from ``rest``.

    Attributes:
        kind: "subtract" and "feedback" add r[j] for a spike j steps ago, j = 1 .. R; with "zero" the sum over
            the inputs stops at the last spike.
        taps: r as it is now, float64 [R] or [R, C], row j - 1 for the spike j steps ago, signs included. None
            of "zero", and of a "subtract" that never ends: r[j] = -threshold decay^j, with the decay of the
            kernel, an exponential.
        rest: where the potential starts, and what a reset to a number leaves.
        delay: of a "subtract" that never ends: r[j] = -threshold decay^(j-1), as in snnTorch.
    """

    kind: Literal["subtract", "zero", "feedback"]
    taps: Tensor | None = None
    rest: float = 0.0
    delay: bool = False

    def __str__(self) -> str:
        if self.kind == "zero":
            text = f"reset to {self.rest:g}" if self.rest else "reset to zero"
        else:
            name = "feedback" if self.kind == "feedback" else "threshold subtracted"
            text = name if self.taps is None else f"{name}, {len(self.taps)} own spikes"
        return text + (", a step later" if self.delay else "")


@dataclass(frozen=True, eq=False)
class Recurrent:
    """The way on which a layer's own spikes come back: those of the step before, zeros at the first one.

    Attributes:
        weights: of a linear layer [features, features], or of a convolution, over all of the spikes.
        padding: of the convolution, whose stride is 1; none of a linear layer.
        factor: without weights: what each neuron's own spike is worth, fractions that broadcast over the
            shape.
    """

    weights: Weights | None = None
    padding: tuple[int, ...] = ()
    factor: NDArray[Any] | None = None

    def __str__(self) -> str:
        return f"its spikes come back through {self.weights or 'one number each'}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Neurons(Layer):
    r"""Neurons: spikes where the potential, sum over j of m[j] x[t-j] and what ``reset`` says, reaches the
    threshold.

    Attributes:
        neuron: the class of the module.
        kernel: m as it is now: an Exponential, FIR taps, or a Matrix.
        options: of the kernel and of how it was parametrized: kind, order, stride, kernel_bits, num_channels,
            decay, gain, decay_logit, follows_decay; only what applies.
        kernel_shape, threshold_shape: the shape in which values of the kernel's parameters, and the threshold
            broadcast over a step [N, \*]; see :meth:`spread`.
        threshold: in the units of x; inf never fires.
        strict: it fires on u > threshold alone, not on equality.
        spike_factor: what spikes are multiplied by; None for 1.
        features: the shape of one step of one sample as the module sees it.
        reset: what its own last spikes do; None for nothing.
        recurrent: what adds its own spikes of the step before to its input x; None for nothing.
    """

    neuron: str
    kernel: Kernel
    options: dict[str, Any]
    kernel_shape: Shape | None
    threshold_shape: Shape | None
    threshold: Tensor
    strict: bool
    spike_factor: Tensor | None
    features: Shape
    reset: NeuronReset | None = None
    recurrent: Recurrent | None = None

    def spread(self, value: Tensor, shape: Shape | None) -> Tensor:
        """A parameter in a shape that broadcasts over the features: one value, one a channel, or others."""
        if shape is None or value.numel() != prod(shape):
            # One value for each channel belongs to the first dimension of the features; torch would put it at
            # the last.
            shape = (value.numel(), *[1] * (len(self.features) - 1))
        placed = value.reshape(shape)
        return placed.reshape(()) if placed.numel() == 1 else placed

    @property
    def fires(self) -> bool:
        """Whether any potential reaches a threshold."""
        return bool(self.threshold.isfinite().any())

    @property
    def is_fixed(self) -> bool:
        """Whether it has taps of its own for every step, and so takes no other number of steps."""
        return isinstance(self.kernel, Matrix)

    def holds(self) -> str:
        kernel = self.kernel
        if isinstance(kernel, Exponential):
            memory = "exponential" + ("" if kernel.order is None else f" of order {kernel.order}")
        elif isinstance(kernel, Matrix):
            memory = f"taps of their own for each of {len(kernel.matrix)} steps"
        else:
            memory = f"{len(kernel.taps)} taps"
        threshold = _numbers(self.threshold.double().numpy())
        reset = "" if self.reset is None else f", {self.reset}"
        recurrent = "" if self.recurrent is None else f", {self.recurrent}"
        return f"{memory}, u {'>' if self.strict else '>='} {threshold}{reset}{recurrent}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Potential(Layer):
    """The membrane potential of a layer of neurons, which the model reads.

    It is that which is compared with the threshold; of a neuron with a reset, what its module gives, which in
    SpikingJelly is the potential after the reset.

    Attributes:
        after_reset: it is the potential after the reset, not the one that is compared with the threshold.
    """

    after_reset: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Unreadable(Layer):
    """What a description ends with where it is given up: a function or a module that no rule reads.

    Attributes:
        reason: what to use instead.
        keeps_potential: it is a layer of neurons that keep a membrane potential.
    """

    reason: str
    keeps_potential: bool = False


@dataclass(frozen=True, eq=False)
class Output:
    """What the model returns.

    Attributes:
        source: the layer, as it is returned.
        form: "every step" [T, N, \\*]; the "mean", "sum" or "max" over steps, or the "last" one,
            [N, \\*]; or a "single step" [N, \\*] of a model that takes them one by one.
        steps: over how many of the last steps it is reduced; None for all.
        skip: how many of the first steps are left out, of every step too.
        time: which dimension is time, of every step; the batch is the first of the others.
    """

    source: Source
    form: Literal["every step", "mean", "sum", "max", "last", "single step"]
    steps: int | None = None
    skip: int = 0
    time: int = 0


@dataclass(frozen=True, eq=False)
class NetworkDescription:
    """A network in exact numbers: what :func:`mfp_neurons.network.describe` reads from a model.

    Attributes:
        layers: in the order in which the model called them; each reads layers in front of it.
        outputs: what the model returns, one or several tensors; none of a model that was read in part.
        steps: T of the example, or of the model's own repetition; 1 of a model that takes single steps.
        is_fixed: for sequences of so many steps alone, since the model computes with T or a neuron has taps
            of its own for each step.
        is_double: all parameters are float64.
        where: the model for messages: its type.
        keys: the names of the outputs of a model that returns a dict; else none.

    >>> import torch
    >>> from mfp_neurons import MFP
    >>> from mfp_neurons.network import describe
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), MFP(0.5, order=3))
    >>> print(describe(model, torch.zeros(5, 1, 8)))
    T = 5 steps
      #  layer  kind     shape  reads  holds
      0  input  Input    [8]           spikes
      1  0      Linear   [4]    0      4x8 real weights and a bias
      2  1      Neurons  [4]    1      exponential of order 3, u >= 1
    output: every step of 2
    """

    layers: tuple[Layer, ...]
    outputs: tuple[Output, ...]
    steps: int
    is_fixed: bool
    is_double: bool
    where: str
    keys: tuple[str, ...] = ()

    @property
    def input(self) -> Input:
        first = self.layers[0]
        assert isinstance(first, Input)
        return first

    def reads_spikes(self, number: int) -> bool:
        """Whether anything needs the spikes of a layer of neurons: another layer, its reset, or the user."""
        layer = self.layers[number]
        resets = isinstance(layer, Neurons) and layer.reset is not None and layer.fires
        readers = (one for one in self.layers if not isinstance(one, Potential))
        return (
            not self.outputs
            or resets
            or any(source.layer == number for one in readers for source in one.sources)
            or any(output.source.layer == number for output in self.outputs)
        )

    def __str__(self) -> str:
        rows = [("#", "layer", "kind", "shape", "reads", "holds")]
        for number, layer in enumerate(self.layers):
            reads = ", ".join(str(source.layer) for source in layer.sources)
            every = f"; every {layer.period} steps" if layer.period > 1 else ""
            rows.append(
                (str(number), layer.name, layer.kind, str(list(layer.shape)), reads, layer.holds() + every)
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [f"T = {self.steps} steps" + (" and no other number of them" if self.is_fixed else "")]
        for first, *others in rows:
            cells = [text.ljust(width) for text, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([f"  {first:>{widths[0]}}", *cells]).rstrip())
        for place, output in enumerate(self.outputs):
            over = "" if output.steps is None else f" over the last {output.steps} steps"
            over += f" without the first {output.skip}" if output.skip else ""
            name = f" {self.keys[place]!r}" if self.keys else ""
            lines.append(f"output{name}: {output.form}{over} of {output.source.layer}")
        return "\n".join(lines)


def snapshot(number: Any) -> Any:
    """A number as it is, a tensor as a copy on the CPU that no training changes."""
    return number.detach().cpu().clone() if isinstance(number, Tensor) else number


def read_layers(layers: Sequence[Layer], outputs: Sequence[Output]) -> list[int]:
    """The numbers of the layers that the outputs depend on; the input is always among them."""
    # Layers read only layers in front of them, so one walk from the end to the beginning meets all that is
    # needed.
    needed = {0, *(output.source.layer for output in outputs)}
    for number in range(len(layers) - 1, -1, -1):
        if number in needed:
            needed.update(source.layer for source in layers[number].sources)
    return sorted(needed)


def _numbers(array: NDArray[Any]) -> str:
    """One number, or between which numbers an array lies."""
    values = [float(value) for value in array.ravel()]
    smallest, largest = min(values), max(values)
    return f"{smallest:g}" if smallest == largest else f"{smallest:g} to {largest:g}"


def as_map(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) of features [C, H, W], [C, L] or [F]; more dimensions are channels."""
    if len(shape) < 2:
        return (prod(shape), 1, 1)
    if len(shape) == 2:
        # A sequence of features is a map of a single row.
        return (shape[0], 1, shape[1])
    return (prod(shape[:-2]), shape[-2], shape[-1])
