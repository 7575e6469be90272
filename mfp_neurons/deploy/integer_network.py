"""The integer network as its user sees it."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import check_choice, check_int, log_once
from .._files import write_bytes
from . import events, file, interpret
from .check import check
from .device.codegen import write_c
from .device.layouts import Layout
from .events import Events
from .graph import Graph, Ints, Neurons, Scores
from .host.compiled import Compiled, unavailable
from .inputs import read, read_events, read_step, why_fixed
from .memory import Memory, describe, memory
from .verilog.generate import write_verilog

# a float64 array, or a tuple of them if the model returns several tensors, or a dict if it returns one
Outputs = Any
BACKENDS = ("auto", "compiled", "numpy")


@dataclass(frozen=True)
class EventRun:
    """What :meth:`IntegerNetwork.run_events` found.

    Attributes:
        scores: as :meth:`IntegerNetwork.run` returns them.
        spikes: the spikes of every layer of neurons, by the path of its module; their time counts the layer's
            own steps.
        synaptic_operations: additions: one for every spike and non-zero weight that it reached, and for every
            number that a spike let through in a product.
        multiply_accumulates: the same for numbers that are no spikes, nor counts of them: input levels above
            1, currents that synapses read, products.
    """

    scores: Outputs
    spikes: dict[str, Events]
    synaptic_operations: int
    multiply_accumulates: int


class IntegerNetwork:
    """A network of whole numbers: bits for spikes, integers for weights and thresholds, no potential stored.

    :func:`mfp_neurons.deploy.lower` makes it, :meth:`load` reads one. :meth:`run`, :meth:`stream` and
    :meth:`run_events` agree bit for bit. ``print`` shows the layers.

    Args:
        graph: the operations; see :mod:`mfp_neurons.deploy.graph`.

    Attributes:
        notes: sentences on what lowering changed in the model; none of a network that was loaded.

    Raises:
        InvalidNetworkError: the graph is none that could be run.

    >>> import torch
    >>> from mfp_neurons import MFP, deploy, quantize_weights
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 64), MFP(0.5, order=4), torch.nn.Linear(64, 10))
    >>> network = deploy.lower(quantize_weights(net, bits=1), torch.rand(5, 1, 8))
    >>> x = torch.rand(5, 3, 8)  # [T, N, *]
    >>> scores, stream = network.run(x), network.stream()
    >>> (np.stack([stream.step(step) for step in x]) == scores).all()
    np.True_
    >>> network.memory().state_stream  # 3 steps of 8 levels of 8 bits: bytes kept between steps
    24
    """

    def __init__(self, graph: Graph) -> None:
        # once and for all: no executor looks again
        check(graph)
        self.graph = graph
        self.notes: tuple[str, ...] = ()
        self._compiled: Compiled | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: not the compiled code, which is loaded again where it is needed."""
        return {**self.__dict__, "_compiled": None}

    def run(self, x: Any, *, backend: str = "auto", threads: int | None = None) -> Outputs:
        r"""Scores of whole sequences: all steps at once, layer by layer, nothing kept between steps.

        Args:
            x: NumPy or torch, [T, N, \*], or [N, \*] to show the same at every step. It is of
                the kind that the example of :func:`lower` was. Images: integers are levels, from 0 to the
                network's largest; floats lie in [0, 1], or in [-1, 1], and are rounded to levels; False and
                True are the smallest level and the largest. Events and counts are themselves, in any dtype.
            backend: "compiled" is portable C on several threads; "numpy" the readable definition, slow;
                "auto" takes the first and says once why if it can't.
            threads: how many share the work of the compiled code, the caller's among them, 256 at most. None
                is ``torch.get_num_threads()``, read at every call: 1 in the workers of a DataLoader. Little
                work is not shared out. Scores do not depend on it.

        Returns:
            Whole numbers times one unit, float64 [N, \*], or [T, N, \*] if the model returns every step.
            Behind a pooling over time T is the number of the scores' own steps; the first steps that the
            model leaves out are not among them. A tuple of such arrays if the model returns several
            tensors, in its order; a dict by the model's keys if it returns a dict.

        Raises:
            TypeError, ValueError: ``x`` has a wrong dtype or shape, NaN, or numbers out of range; T is no
                multiple of the steps that pooling over time makes one of, smaller than the number of steps
                that the model leaves out or averages, or another one than a network with a fixed number of
                steps (``graph.fixed_steps()``) takes; ``threads`` is no integer >= 1.
            RuntimeError: ``backend="compiled"`` can't run here.
        """
        threads = _check_threads(threads)
        levels, steps = read(self.graph, x)
        if self._use_compiled(backend):
            scores = self._runtime().run(levels, steps, threads=threads)
        else:
            scores, _ = interpret.run(self.graph, levels.astype(np.int64), steps)
        return self._outputs(map(_reduced, self.graph.heads, scores))

    def stream(self, *, backend: str = "auto", threads: int | None = None) -> "Stream":
        """A session that takes one step at a time: a :class:`Stream`; for the arguments see :meth:`run`."""
        threads = _check_threads(threads)
        if self._use_compiled(backend):
            return Stream(self, self._runtime().stream(threads=threads))
        return Stream(self, interpret.Stream(self.graph))

    def run_events(self, x: Any, *, backend: str = "auto") -> EventRun:
        r"""Asynchronous execution: each spike updates only what it reaches; the work goes with the spikes.

        Args:
            x: ``(times, addresses)``, two integer arrays of one length with the events of one sample in any
                order; an address is the place in a step's features, row-major. Or an array as for
                :meth:`run`, whose numbers above 0 are the events.
            backend: as for :meth:`run`; what is compiled is the adding up, on the caller's thread alone.

        Returns:
            :class:`EventRun`: the same scores and spikes, and the operations that the spikes caused.

        Raises:
            TypeError, ValueError, RuntimeError: as :meth:`run`; also addresses or times out of range, or an
                event twice.
        """
        if isinstance(x, tuple):
            if len(x) != 2:
                raise ValueError(f"x must be (times, addresses), got a tuple of {len(x)}")
            inputs, steps = read_events(self.graph, *x)
            samples = 1
        else:
            # an image at every step makes its events at every step
            levels, steps = read(self.graph, x)
            inputs, samples = events.of_levels(levels, steps), levels.shape[1]
        adder = self._runtime().scatter if self._use_compiled(backend) else None
        scores, maps, counts = events.run(self.graph, inputs, samples, steps, adder)
        layers = zip(self.graph.body, maps[1:], strict=True)
        spikes = {op.name: fired for op, fired in layers if isinstance(op, Neurons)}
        return EventRun(self._outputs(map(_reduced, self.graph.heads, scores)), spikes, *counts)

    def memory(self, *, batch: int = 1, steps: int | None = None) -> Memory:
        """Bytes of weights and parameters, state between steps, peak buffers; from the arrays themselves.

        Args:
            batch: N, at least 1.
            steps: T, at least 1; None is that of the example.

        Raises:
            ValueError: one is below 1, or ``steps`` no multiple of those that pooling over time makes one of.
        """
        steps = self.graph.steps if steps is None else check_int("steps", steps, 1)
        if steps % self.graph.period:
            raise ValueError(f"steps must be a multiple of {self.graph.period}, got {steps}")
        return memory(self.graph, check_int("batch", batch, 1), steps)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes a safetensors file with a JSON header; an older one stays whole until the new one is."""
        write_bytes(Path(path), file.to_bytes(self.graph))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "IntegerNetwork":
        """Reads what :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            InvalidNetworkError: the file is damaged, of another version, or describes no network.
        """
        return cls(file.from_bytes(Path(path).read_bytes()))

    def to_c(
        self, directory: str | PathLike[str], *, name: str = "mfp_net", layout: Layout = "plain"
    ) -> list[Path]:
        """Writes C99 for one sample at a time, without floating point, allocation or dependencies.

        Args:
            directory: made if need be.
            name: of the files and the prefix of every C name.
            layout: "plain" for four files in the directory; or a library, its sources in src/, with an
                example that compares its scores with those here: "arduino" (library.properties, a sketch),
                "platformio" (library.json), "cmake" (CMakeLists.txt) or "zephyr" (a module and a sample).

        Returns:
            The files written: NAME.h, NAME.c, mfp_int.h, mfp_int.c, then those of the layout.

        Raises:
            ValueError: ``name`` is no C identifier, or ``layout`` none of these.
        """
        return write_c(self.graph, directory, name=name, layout=layout)

    def to_verilog(
        self, directory: str | PathLike[str], *, name: str = "mfp_net", lanes: int = 64
    ) -> list[Path]:
        """Writes Verilog-2005, to be synthesized, that computes the same scores without a multiplier.

        All networks have a form in Verilog. Layers work at the same time, each on another step; a step comes
        in number by number. The head of NAME.v says how it is used, and how many clock cycles a step takes.

        Args:
            directory: made if need be.
            name: of the module and its file.
            lanes: bits of inputs that a synapse adds up in one cycle: more are faster and take more logic.

        Returns:
            The files written: NAME.v, mfp_primitives.v, mfp_streams.v, and memories for ``$readmemh``,
            NAME_*.hex.

        Raises:
            ValueError: ``name`` or ``lanes`` can't be used.
        """
        return write_verilog(self.graph, directory, name=name, lanes=lanes)

    def __str__(self) -> str:
        return describe(self.graph)

    def __repr__(self) -> str:
        layers = sum(isinstance(op, Neurons) for op in self.graph.ops)
        return f"IntegerNetwork({layers} layers of neurons, T={self.graph.steps})"

    def _runtime(self) -> Compiled:
        if self._compiled is None:
            self._compiled = Compiled(self.graph)
        return self._compiled

    def _use_compiled(self, backend: str) -> bool:
        check_choice("backend", backend, BACKENDS)
        reason = unavailable() if backend != "numpy" else None
        if reason and backend == "compiled":
            raise RuntimeError(f"backend='compiled' cannot run here: {reason}")
        if reason:
            log_once(
                "deploy.interpreted", f"integer networks run in NumPy, same results, far slower: {reason}"
            )
        return backend != "numpy" and reason is None

    def _outputs(self, arrays: Iterable[NDArray[Any]]) -> Outputs:
        """Arrays, one for each head, in the form in which the model returns them."""
        outputs = tuple(arrays)
        if self.graph.keys:
            return dict(zip(self.graph.keys, outputs, strict=True))
        return outputs if len(outputs) > 1 else outputs[0]


def _reduced(head: Scores, scores: Ints) -> NDArray[Any]:
    """Scores of every step, or what the model makes of them: exact sums, one rounding at the end."""
    counted = scores[head.skip :]
    if head.reduce == "none":
        return _in_units(head, counted)
    # summed as whole numbers: what the order of steps or floats would round is never rounded
    counted = counted[len(counted) - (head.last or len(counted)) :]
    if head.reduce == "max":
        return _in_units(head, counted.max(axis=0))
    total = _in_units(head, counted.sum(axis=0))
    return total / len(counted) if head.reduce == "mean" else total


def _in_units(head: Scores, scores: Ints) -> NDArray[Any]:
    """Whole numbers [.., C, H, W] times their unit, in the shape in which the model returns them."""
    return scores.reshape(*scores.shape[:-3], *head.features) * head.unit


def _check_threads(threads: int | None) -> int | None:
    return threads if threads is None else check_int("threads", threads, 1)


class Stream:
    """One step in, one step out, for as many steps as come; :meth:`IntegerNetwork.stream` makes it.

    Between steps it keeps the last K - 1 bits of each presynaptic neuron, or R of one with feedback, or K of
    one with synapses from its own layer, if these are more; one bit for each neuron that a window of a
    pooling over time is open for; the number of the step; and nothing else. Of a number above 1, such as a
    current that other synapses read, these are as many bits as the largest takes. A neuron lowered from an
    infinite exponential has forgotten what is more than K steps old.

    >>> import torch
    >>> from mfp_neurons import MFP, TimePool, deploy, quantize_weights
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 64), MFP(order=1), TimePool(2), torch.nn.Linear(64, 10))
    >>> stream = deploy.lower(quantize_weights(net), torch.rand(4, 1, 8)).stream()
    >>> [None if scores is None else scores.shape for scores in map(stream.step, torch.rand(4, 1, 8))]
    [None, (1, 10), None, (1, 10)]
    """

    def __init__(self, network: IntegerNetwork, session: Any) -> None:
        self._network, self._session = network, session
        self.t = 0
        self._samples: int | None = None

    def step(self, x: Any) -> Outputs | None:
        r"""Scores of this step, float64 [N, \*]; what a model averages over time is left to the caller.

        So are the first steps that a model leaves out: they have scores here. Of several tensors it is a
        tuple, or a dict, as of :meth:`IntegerNetwork.run`.

        None in a step at whose end the last layer has nothing to compute, since the window of a pooling over
        time before it is not full yet. A network without such a pooling has scores in every step.

        Args:
            x: one step [N, \*], as for :meth:`IntegerNetwork.run`; N stays that of the first step.

        Raises:
            TypeError, ValueError: as :meth:`IntegerNetwork.run`; also another N, or a step past the last one
                of a network with a fixed number of steps. Nothing has changed then.
        """
        graph = self._network.graph
        levels = read_step(graph, x)
        if self._samples not in (None, len(levels)):
            raise ValueError(f"x must have N = {self._samples}, as the steps before, got {len(levels)}")
        end = graph.fixed_steps()
        if end is not None and self.t >= end:
            raise ValueError(f"all T = {end} steps of the sequence have passed. {why_fixed(end)}")
        scores = self._session.step(levels)
        self.t, self._samples = self.t + 1, len(levels)
        return None if scores is None else self._network._outputs(map(_in_units, graph.heads, scores))

    @property
    def state_bits(self) -> int:
        """Bits kept between steps for all samples of this stream."""
        return self._network.graph.state_bits() * (self._samples or 0)
