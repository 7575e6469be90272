"""What an integer network keeps in memory, counted from its packed arrays."""

from dataclasses import dataclass
from math import prod

from .graph import Graph, Neurons, Op, Scores, Synapse, planes, synapses
from .pack import code_planes, smallest, words


@dataclass(frozen=True)
class Memory:
    """Bytes, for ``batch`` samples of ``steps`` steps.

    Attributes:
        weights: codes, packed into bits.
        parameters: thresholds, taps, factors and offsets, each array in the smallest integer type for it.
        state_run: between the steps of ``run``, which keeps nothing.
        state_stream: between the steps of ``stream``: K - 1 bits a presynaptic neuron, and one for each
            that a window of a pooling over time is open for.
        peak_buffers: the most that the packed maps of ``run`` take at one time, the input included.
        batch, steps: what the last two were counted for.
    """

    weights: int
    parameters: int
    state_run: int
    state_stream: int
    peak_buffers: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return (
            f"weights {self.weights:,} bytes, parameters {self.parameters:,}; between steps {self.state_run} "
            f"(run), {self.state_stream:,} (stream); buffers {self.peak_buffers:,} for T = {self.steps}, "
            f"N = {self.batch}"
        )


def memory(graph: Graph, batch: int, steps: int) -> Memory:
    """Counts; see :class:`Memory`."""
    state = -(-graph.state_bits() // 8) * batch
    return Memory(
        weights=sum(weight_bytes(s) for op in graph.ops for s in synapses(op)),
        parameters=sum(parameter_bytes(op) for op in graph.ops),
        state_run=0,
        state_stream=state,
        peak_buffers=_peak(graph, batch, steps),
        batch=batch,
        steps=steps,
    )


def weight_bytes(synapse: Synapse) -> int:
    """Bytes of the packed codes."""
    flat = code_planes(synapse.codes, synapse.bits).reshape(-1)
    return words(flat, 8).nbytes


def parameter_bytes(op: Op) -> int:
    """Bytes of an operation's whole numbers besides its codes."""
    arrays = [s.factor for s in synapses(op) if s.factor is not None]
    if isinstance(op, Neurons):
        arrays += [op.taps, op.thresholds]
    if isinstance(op, Scores):
        arrays += [op.offset]
    return sum(smallest(array).nbytes for array in arrays)


def map_bytes(graph: Graph, index: int, steps: int) -> int:
    """Bytes of a packed map of one sample: words of 64 channels at every place; of an image, its bytes.

    ``steps`` are the map's own.
    """
    channels, *places = graph.map_shape(index)
    if index == 0 and graph.input.top > 1:
        return channels * prod(places) * (1 if graph.input.static else steps)
    return 8 * planes(graph.map_top(index)) * -(-channels // 64) * prod(places) * steps


def _peak(graph: Graph, batch: int, steps: int) -> int:
    """The largest sum of maps that are needed at the same time: a map lives until its last reader."""
    last_reader = graph.last_readers()
    sizes = [map_bytes(graph, i, steps // period) for i, period in enumerate(graph.periods[:-1])]
    peak = 0
    for number in range(len(graph.ops)):
        read = [i for i in range(number + 1) if last_reader.get(i, -1) >= number]
        made = [number + 1] if number < len(graph.ops) - 1 else []
        peak = max(peak, sum(sizes[i] for i in read + made))
    return peak * batch
