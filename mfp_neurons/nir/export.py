"""From a torch model to a NIR graph: its description, with one function for each kind of layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import nir
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mfp_neurons import __version__

from .._checks import describe, log_once
from ..network import NetworkDescription, description
from ..network.axes import flat, of_features, sizes
from ..network.describing import check_example, read_model
from ..network.description import Layer, Output, Source
from .convolution import can_be_square
from .draft import Draft, Floats, Norm, Signal, Synapse, of
from .errors import NIRError
from .neurons import add_neurons

GRAMMAR = (
    "NIR has convolutions, linear layers, sums, average and sum pools, flattening, and our neurons; batch "
    "norms and factors fold into a layer. Take the rest out of the model, or export the parts around it"
)
_APART = "export the parts in front of it and behind it as graphs of their own"
_SEQUENCE = "pools a sequence, and NIR has pools over rows and columns only. Use "


def to_nir(model: nn.Module, example: Tensor, *, dt: float = 1e-4, path: str | Path | None = None) -> Any:
    r"""A trained model as a graph of the Neuromorphic Intermediate Representation.

    Args:
        model: layers, batch norms, memory-free neurons, LIFs that reset to a number, pools and sums; plain
            torch, SpikingJelly or snnTorch. It is left exactly as it is, and read in evaluation mode.
        example: what it is given: [T, N, \*], or [N, \*] of a model that takes single steps or repeats its
            input over time itself. Its values do not matter, except whether all of them are 0 or 1: only
            then can NIR express a max pool before the first layer.
        dt: seconds that a step takes. NIR is in continuous time: decays become time constants, lags become
        delays. path: a file to write the graph to, with ``nir.write``.

    Returns:
        ``nir.NIRGraph``. Its output is that of every step; where the model returns a mean, a sum or the last
        steps over time, ``metadata["readout"]`` says so. Where the graph depends on T of the example, since
        the model computes with it, ``metadata["steps"]`` is that T, and :func:`from_nir` takes no other.

    Raises:
        TypeError: model is no module, or example no tensor.
        ValueError: the example is empty or has one dimension, or dt is not positive.
        NIRError: NIR cannot say it; the message says which module, why, and what to do. No file is written.

    >>> import torch
    >>> from mfp_neurons import MFP
    >>> graph = to_nir(nn.Sequential(nn.Linear(3, 2), MFP(0.9)), torch.zeros(5, 1, 3))
    >>> {name: type(node).__name__ for name, node in graph.nodes.items()}
    {'input': 'Input', '0': 'Affine', '1_gain': 'Scale', '1_leak': 'LI', '1': 'Threshold', 'output': 'Output'}
    """
    check_example(example)
    if isinstance(dt, bool) or not isinstance(dt, int | float) or not 0 < dt < float("inf"):
        raise ValueError(f"dt must be a positive number of seconds, got {describe(dt)}")
    graph = read_model(model, example, lambda network: _Writer(network, float(dt)).graph(), NIRError)
    if path is not None:
        nir.write(path, graph)
    return graph


class _Writer:
    """The graph so far, and what the layers of the description give.

    Args:
        network: the description, or the part of it that could be read.
        dt: seconds a step.
    """

    def __init__(self, network: NetworkDescription, dt: float) -> None:
        first = network.input
        self.network, self.dt = network, dt
        self.draft = Draft(first.shape, first.is_binary, np.float64 if network.is_double else np.float32)
        self.signals: list[Signal | None] = [of(self.draft.input)]
        # by the number of the layer of neurons; None of neurons that reset, which are one node with theirs
        self.potentials: dict[int, Signal | None] = {}
        # A layer reads layers in front of it alone, so one pass in their order is enough.
        for number, layer in enumerate(network.layers[1:], start=1):
            # the number of a layer that is refused says how far this reading of the example came
            try:
                self.signals.append(self._written(layer))
            except NIRError as error:
                error.layer = number
                raise

    def _written(self, layer: Layer) -> Signal | None:
        if any(source.is_reduced for source in layer.sources):
            self.refuse(
                layer,
                f"computes with what was reduced over time already ({layer.function}). NIR has no time "
                "axis: a mean, a sum or the last steps can only be read out at the end",
            )
        return WRITES[type(layer)](self, layer)

    def graph(self) -> Any:
        """The graph; None of a model that was read in part."""
        network, draft = self.network, self.draft
        if not network.outputs:
            return None
        output = self._output()
        signal = self._read(output.source, "the output", network.where)
        facts = {"written_by": "mfp-neurons", "mfp_version": __version__, "dt": self.dt}
        facts |= self._readout(output)
        if network.is_double:
            facts["dtype"] = "float64"
        if network.is_fixed:
            facts["steps"] = network.steps
        # The graph has the input in the shape of its first reader, which need not be the one that users give.
        if draft.input_shape != network.input.features:
            facts["input_shape"] = np.array(network.input.features)
        return draft.graph(signal, facts)

    def _output(self) -> Output:
        """The tensor that the graph gives; of spikes and their potentials, which loops record, the spikes."""
        first, *others = self.network.outputs
        read = [self.network.layers[output.source.layer] for output in others]
        if any(not isinstance(layer, description.Potential) for layer in read):
            raise NIRError(
                f"{self.network.where} returns {1 + len(others)} tensors, and a graph that from_nir reads "
                "back gives one. Export a model for each: one that returns that tensor alone."
            )
        if others:
            log_once(
                "nir.outputs",
                "the model returns potentials beside its spikes; the graph's output is the spikes alone",
            )
        return first

    def _readout(self, output: Output) -> dict[str, Any]:
        """What the model does around the graph."""
        facts: dict[str, Any] = {}
        if output.form in ("mean", "sum", "max", "last"):
            facts["readout"] = output.form
            if output.steps:
                facts["readout_steps"] = output.steps
            log_once(
                "nir.readout",
                "NIR has no time axis: the graph's output is that of every step, and the model's %s over "
                "them is in metadata['readout'] alone",
                output.form,
            )
        if output.skip:
            facts["readout_skip"] = output.skip
        # The model itself repeats an input without time, and a graph has no time axis on which to say so.
        if not self.network.input.has_time and output.form != "single step":
            facts["repeats"] = self.network.steps
        return facts

    def refuse(self, layer: Layer, why: str) -> NoReturn:
        raise NIRError(f"{layer.where} {why}.")

    def signal(self, layer: Layer, place: int = 0) -> Signal:
        """What a layer reads, in the shape in which it was made."""
        return self._signal(layer.sources[place].layer, layer.where)

    def _signal(self, number: int, where: str) -> Signal:
        signal = self.signals[number]
        if signal is None:
            of_neurons = self.network.layers[number].where
            raise NIRError(
                f"{where} reads the potential of {of_neurons}, which resets: a node of NIR's that resets "
                "gives its spikes alone. Use those."
            )
        return signal

    def read(self, layer: Layer, what: str) -> Signal:
        """What a layer reads, in the shape in which it reads it."""
        return self._read(layer.sources[0], what, layer.where)

    def _read(self, source: Source, what: str, where: str) -> Signal:
        signal, draft = self._signal(source.layer, where), self.draft
        wanted, row = sizes(source.dims), flat(of_features(signal.shape))
        if draft.is_input(signal) and wanted == draft.input_shape != signal.shape:
            return of(draft.input)  # in the shape that another layer read it in
        if signal.shape == wanted and source.dims == of_features(wanted):
            return signal
        # An input that nothing has read yet takes the shape that its first reader wants.
        if draft.is_input(signal) and flat(source.dims) == row:
            again = draft.reshape_input(wanted)
            if again is not None:
                return again
        if source.dims != (row,):
            raise NIRError(
                f"{where} gives {what} features that were cut up, moved or made from others (its input is "
                f"{list(wanted)} at each step, a step of one sample is {list(signal.shape)}). Features keep "
                "the shape that a layer gave them until all of them are flattened."
            )
        return draft.flattened(signal)

    def then(self, signal: Signal, scale: Floats, offset: Floats | None, norm: Norm | None = None) -> Signal:
        """scale * signal + offset, folded into layers where it is one number a channel."""
        # A number for each place is no factor of a weight. The layer is finished first, and a node behind it
        # takes the numbers.
        for array in (scale, offset):
            if array is not None and array.ndim and array.size > 1 and array.size > array.shape[0]:
                return self.draft.settled(signal).then(scale, offset)
        return signal.then(scale, offset, norm)


# --- layers with weights ------------------------------------------------------------------------------------


def _linear(writer: _Writer, layer: description.Linear) -> Signal:
    if layer.at_places:
        writer.refuse(
            layer,
            "is a linear layer over the channels of every place, which NIR has as a convolution alone. Use a "
            "Conv1d or Conv2d with a window of 1",
        )
    return _synapse(writer, layer, "Linear", writer.read(layer, "a linear layer"), {})


def _convolution(writer: _Writer, layer: description.Convolution) -> Signal:
    source, rank = writer.read(layer, "a convolution"), len(layer.stride)
    window = layer.weights.shape[2:]
    if rank == 2 and not can_be_square(window):
        writer.refuse(
            layer,
            f"has a window of {list(window)}, of whose size NIR's reader takes the height alone. "
            "Use a square one, or one that zeros make square: both sizes odd, or both even",
        )
    named: dict[str, Any] = {
        "input_shape": source.shape[1:],
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
    }
    if rank == 1:
        # NIR's Conv1d takes a plain number where its Conv2d takes a pair.
        named = {name: one if isinstance(one, str) else one[0] for name, one in named.items()}
    return _synapse(writer, layer, f"Conv{rank}d", source, named | {"groups": layer.groups})


def _synapse(
    writer: _Writer,
    layer: description.Linear | description.Convolution,
    kind: str,
    source: Signal,
    options: dict[str, Any],
) -> Signal:
    weights, codes = layer.weights, None
    if weights.codes is not None:
        scale = _array(weights.codes.scale).reshape(-1)
        codes = weights.codes.codes.numpy(), scale, weights.codes.bits
    synapse = Synapse(
        path=layer.name,
        kind=kind,
        sources=writer.draft.names(source),
        shape=layer.shape,
        weight=_array(weights.values()),
        bias=None if layer.bias is None else _array(layer.bias),
        options=options,
        codes=codes,
        # By its number every layer is a synapse of its own, also where two of them hold the same weight.
        key=("layer", len(writer.signals)),
    )
    return of(synapse)


def _array(tensor: Tensor) -> NDArray[Any]:
    # NumPy has no bfloat16, and float32 holds every number of the 16-bit types.
    array: NDArray[Any] = (tensor.float() if tensor.element_size() < 4 else tensor).numpy()
    return array


# --- sums, factors, and norms -------------------------------------------------------------------------------


def _batch_norm(writer: _Writer, layer: description.BatchNorm) -> Signal:
    mean, var = _array(layer.mean), _array(layer.var)
    weight, bias = (None if row is None else _array(row) for row in (layer.weight, layer.bias))
    norm, signal = Norm(mean, var, weight, bias, layer.eps), writer.signal(layer)
    # One number for each channel runs along the first dimension of the features.
    places = signal.shape if layer.of_places else (-1, *[1] * (len(signal.shape) - 1))
    scale, offset = (row.reshape(places) for row in norm.affine())
    return writer.then(signal, scale, offset, norm)


def _affine(writer: _Writer, layer: description.Affine) -> Signal:
    scale = np.ones(1) if layer.scale is None else layer.scale.astype(np.float64)
    offset = None if layer.offset is None else layer.offset.astype(np.float64)
    return writer.then(writer.signal(layer), scale, offset)


def _add(writer: _Writer, layer: description.Add) -> Signal:
    a, b = writer.signal(layer, 0), writer.signal(layer, 1)
    if a.shape != b.shape:
        writer.refuse(
            layer,
            f"adds tensors of different places or times, {list(a.shape)} and {list(b.shape)}. "
            "Both must have the same channels, rows, columns and steps",
        )
    return a.plus(b)


def _multiply(writer: _Writer, layer: description.Multiply) -> NoReturn:
    writer.refuse(
        layer,
        "multiplies two tensors of the network, and NIR multiplies with fixed numbers only. Add them, or "
        + _APART,
    )


def _matmul(writer: _Writer, layer: description.MatMul) -> NoReturn:
    writer.refuse(
        layer,
        f"multiplies two tensors of the network as matrices ({layer.function}), and NIR multiplies with "
        f"fixed numbers only. {_APART.capitalize()}",
    )


def _concat(writer: _Writer, layer: description.Concat) -> NoReturn:
    writer.refuse(
        layer,
        f"puts tensors side by side ({layer.function}), which NIR cannot say. Give each of them a linear "
        "layer or a convolution of its own, and add what these give: that is the layer over all of them",
    )


def _gather(writer: _Writer, layer: description.Gather) -> NoReturn:
    number = len(writer.signals)
    for reader in writer.network.layers:
        # a product of matrices lays them out anew, which is not what keeps it out of a graph
        if isinstance(reader, description.MatMul) and number in [one.layer for one in reader.sources]:
            _matmul(writer, reader)
    writer.refuse(
        layer, f"takes features from other places ({layer.function}), which NIR cannot say. {GRAMMAR}"
    )


# --- pools --------------------------------------------------------------------------------------------------


def _pool(writer: _Writer, layer: description.Pool) -> Signal:
    if layer.function in ("mean", "sum") and len(layer.size) != 2:
        _refuse_some_features(writer, layer)
    if len(layer.size) == 1:
        # a sequence of one channel is a row of features, too: SpikingJelly's VotingLayer
        is_vote = layer.function == "avg_pool1d" and layer.shape[0] == 1 and layer.size == layer.stride
        size, length = layer.size[0], layer.shape[-1]
        if is_vote and not any(layer.padding) and length * size == _row_length(writer, layer):
            return _vote(writer, layer, size)
        writer.refuse(
            layer,
            _SEQUENCE + ("Conv1d, or pool images" if _is_average(layer) else "a stride, or pool images"),
        )
    if layer.largest and set(layer.dilation) != {1}:
        writer.refuse(layer, "spreads its window (dilation), which NIR cannot say")
    source = writer.read(layer, "a pool")
    if layer.is_partial:  # NIR's pools round down
        writer.refuse(layer, "has windows that reach over the border (ceil_mode=True). Use ceil_mode=False")
    if layer.largest:
        return _any_spike(writer, layer, source)
    # NIR's pools divide by the size of the window or not at all; another divisor folds into what comes next.
    pooled = _pool_node(writer, layer, source, average=layer.divisor is None)
    return pooled.then(np.full(1, 1 / layer.divisor), None) if layer.divisor else pooled


def _is_average(layer: description.Pool) -> bool:
    return layer.function == "avg_pool1d"


def _row_length(writer: _Writer, layer: Layer) -> int:
    return int(np.prod(writer.signal(layer).shape))


def _group_sum(writer: _Writer, layer: description.GroupSum) -> Signal:
    if layer.function != "avg_pool1d":
        _refuse_some_features(writer, layer)
    return _vote(writer, layer, layer.places.shape[1])


def _refuse_some_features(writer: _Writer, layer: Layer) -> NoReturn:
    writer.refuse(
        layer,
        f"takes the {layer.function} over some features. Only over all rows and columns is that a pool of "
        "NIR's",
    )


def _vote(writer: _Writer, layer: Layer, size: int) -> Signal:
    """SpikingJelly's VotingLayer, an average over groups of features: a linear layer."""
    signal, draft = writer.signal(layer), writer.draft
    row = flat(of_features(signal.shape))
    assert row is not None
    source = writer._read(Source(layer.sources[0].layer, (row,)), "a vote", layer.where)
    groups = source.shape[0] // size
    # Each row of the weight averages one group of neighbors.
    weight = np.kron(np.eye(groups), np.full((1, size), 1 / size)).astype(draft.dtype)
    node = nir.Linear(weight, metadata={"path": layer.name, "operation": "vote"})
    return of(draft.add(node, layer.name, (groups,), source))


def _pool_node(writer: _Writer, layer: description.Pool, source: Signal, *, average: bool) -> Signal:
    """An AvgPool2d or a SumPool2d behind ``source``."""
    kind = nir.AvgPool2d if average else nir.SumPool2d
    options = (np.array(option) for option in (layer.size, layer.stride, layer.padding))
    node = kind(*options, metadata={"path": layer.name})
    node.input_type = {"input": np.array(source.shape)}
    node.output_type = {"output": np.array(layer.shape)}
    return of(writer.draft.add(node, layer.name, layer.shape, source))


def _any_spike(writer: _Writer, layer: description.Pool, source: Signal) -> Signal:
    """The largest of spikes is 1 where their sum is above 1/2; the padding of either adds no spike."""
    if not source.is_binary():
        behind = source.terms[0].of
        name = behind.path if isinstance(behind, Synapse) else behind.name
        writer.refuse(
            layer,
            f"takes the largest of numbers that are not spikes ({name!r} stands before it), which NIR cannot "
            "say. Put the pool behind the neuron, or take the average",
        )
    total = _pool_node(writer, layer, source, average=False)
    facts = {"path": layer.name, "operation": "max"}
    node = nir.Threshold(np.full(layer.shape, 0.5, writer.draft.dtype), metadata=facts)
    spikes = writer.draft.add(node, f"{layer.name}_any", layer.shape, total, binary=True)
    return of(spikes)


# --- neurons, and what cannot be said -----------------------------------------------------------------------


def _neurons(writer: _Writer, layer: description.Neurons) -> Signal:
    if layer.recurrent is not None:
        writer.refuse(
            layer,
            "reads its own spikes of the step before, which come back through weights. A loop in a NIR graph "
            "does not say how many steps it takes. Export the layers in front of it and those behind it as "
            "two graphs",
        )
    x, steps = writer.read(layer, "a neuron"), writer.network.steps
    spikes, potential = add_neurons(writer.draft, x, layer, writer.dt, steps)
    # This is the number that the layer gets as soon as its spikes are appended to the signals.
    writer.potentials[len(writer.signals)] = potential
    return spikes


def _potential(writer: _Writer, layer: description.Potential) -> Signal | None:
    return writer.potentials[layer.sources[0].layer]


def _time_pool(writer: _Writer, layer: description.TimePool) -> NoReturn:
    writer.refuse(
        layer,
        f"makes one step of every {layer.window} (TimePool), and NIR has one clock for all. Export "
        "the layers in front of it and those behind it as two graphs",
    )


def _unreadable(writer: _Writer, layer: description.Unreadable) -> NoReturn:
    if layer.keeps_potential:
        writer.refuse(
            layer,
            f"keeps a potential of its own. {layer.reason}. A network that is to keep its potentials goes "
            "out by its own framework's exporter",
        )
    writer.refuse(layer, f"calls {layer.function}, which NIR cannot say. {GRAMMAR}")


WRITES: dict[type[Layer], Callable[[_Writer, Any], Signal | None]] = {  # what becomes of each kind of layer
    description.Linear: _linear,
    description.Convolution: _convolution,
    description.BatchNorm: _batch_norm,
    description.Affine: _affine,
    description.Add: _add,
    description.Multiply: _multiply,
    description.Pool: _pool,
    description.GroupSum: _group_sum,
    description.Neurons: _neurons,
    description.Potential: _potential,
    description.TimePool: _time_pool,
    description.Concat: _concat,
    description.Gather: _gather,
    description.MatMul: _matmul,
    description.Unreadable: _unreadable,
}
