"""From a NIR graph to a torch module."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nir
import torch
from torch import nn

from .._checks import describe
from .errors import NIRError
from .network import NIRNetwork
from .nodes import Reader
from .patterns import Neurons, find_max_pools, find_neurons


def from_nir(graph: Any, *, dt: float | None = None) -> NIRNetwork:
    r"""A graph as a torch module whose neurons are ours.

    Args:
        graph: a ``nir.NIRGraph``, or a path to a file that ``nir.write`` made, of one input and one output.
            Linear, Affine, Conv1d, Conv2d, Scale, Delay, Flatten, AvgPool2d, SumPool2d, LI, I, Threshold, LIF
            and IF may be in it, and no cycle. LI, I, Delay and Scale in front of a Threshold become one layer
            of :class:`~mfp_neurons.MFP`; LIF and IF, which start at v_reset, one with ``reset="zero"``.
        dt: seconds a step. None: what the graph's metadata says, or 1e-4.

    Returns:
        A :class:`NIRNetwork` in evaluation mode, from [T, N, \*] to [T, N, \*]. It is in float32, whatever
        the arrays of the nodes are in; a float64 model that :func:`to_nir` wrote comes back in float64. Where
        the metadata of :func:`to_nir` agrees with the nodes, quantized layers, max pools, orders, learned
        decays and the rule at the threshold come back as they were; elsewhere the nodes alone count, and a
        Threshold fires on u > threshold.

    Raises:
        TypeError: graph is neither a graph nor a path.
        ValueError: dt is not positive.
        NIRError: a node is unknown, or has parameters that no layer here has; the message names it.

    >>> import torch
    >>> from mfp_neurons import MFP
    >>> from mfp_neurons.nir import to_nir
    >>> model = nn.Sequential(nn.Linear(3, 2), MFP(0.9))
    >>> back = from_nir(to_nir(model, torch.zeros(5, 1, 3)))
    >>> x = torch.rand(20, 4, 3)
    >>> torch.equal(back(x), model(x))
    True
    """
    if isinstance(graph, str | Path):
        graph = nir.read(graph)
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"graph must be a nir.NIRGraph or a path, got {describe(graph)}")
    facts = graph.metadata
    step = float(facts.get("dt", 1e-4)) if dt is None else dt
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < float("inf"):
        raise ValueError(f"dt must be a positive number of seconds, got {describe(step)}")
    return _Loading(graph, float(step)).network()


class _Loading:
    """One graph on its way."""

    def __init__(self, graph: Any, dt: float) -> None:
        self.graph, self.dt = graph, dt
        self.sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self.sources[target].append(source)
        for name, node in graph.nodes.items():
            _check(name, node)

    def network(self) -> NIRNetwork:
        first, out = self._end(nir.Input, "input"), self._end(nir.Output, "output")
        order = [name for name in self._order() if name not in (first, out)]
        neurons = find_neurons(self.graph.nodes, self.sources, self.dt)
        pools = find_max_pools(self.graph.nodes, self.sources)
        # These nodes have no module of their own: they are part of a layer of neurons or of a max pool.
        inside = {name for one in neurons.values() for name in one.inside} | set(pools.values())
        parts: dict[str, nn.Module] = {}
        sources: dict[str, list[str]] = {}
        stand_for = {first: ["input"]}  # the parts that stand for each node
        reader = Reader(self.graph.nodes, self.dt)
        for name in order:
            if name in inside:
                continue
            known, pool = neurons.get(name), pools.get(name)
            # A layer of neurons reads what feeds the first of its nodes, and a max pool what feeds its
            # SumPool2d.
            before = known.sources if known and not pool else self.sources[pool or name]
            inputs = [part for one in before for part in stand_for[one]]
            for suffix, module in self._modules(reader, name, known, pool):
                key = _key(f"{name}{suffix}", parts)
                parts[key], sources[key] = module, inputs
                # A quantized layer and the batch norm behind it are one node, and so one behind the other
                # here.
                inputs = [key]
            stand_for[name] = inputs
        facts = self.graph.metadata
        ends = [part for one in self.sources[out] for part in stand_for[one]]
        shape = tuple(int(n) for n in self.graph.nodes[first].input_type["input"])
        network = NIRNetwork(
            parts,
            sources,
            ends,
            shape,
            repeats=int(facts["repeats"]) if "repeats" in facts else None,
            readout=str(facts["readout"]) if "readout" in facts else None,
            readout_steps=int(facts["readout_steps"]) if "readout_steps" in facts else None,
            steps=int(facts["steps"]) if "steps" in facts else None,
        )
        return network.eval().to(torch.float64 if facts.get("dtype") == "float64" else torch.float32)

    def _modules(
        self, reader: Reader, name: str, known: Neurons | None, pool: str | None
    ) -> list[tuple[str, nn.Module]]:
        """The modules that a node becomes, one behind the other."""
        try:
            if pool:
                return reader.max_pool(pool)
            return reader.neurons(name, known) if known else reader.modules(name)
        except NIRError:
            raise
        # A file may hold arrays of any shape. Whatever torch says of them is passed on with the name of the
        # node.
        except (ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            kind = type(self.graph.nodes[name]).__name__
            raise NIRError(f"{name!r} ({kind}) does not hold what such a node has: {error}") from error

    def _end(self, kind: type, what: str) -> str:
        names = [name for name, node in self.graph.nodes.items() if isinstance(node, kind)]
        if len(names) != 1:
            raise NIRError(
                f"the graph has {len(names)} {what}s ({', '.join(names)}), but from_nir reads graphs with one"
            )
        return names[0]

    def _order(self) -> list[str]:
        try:
            return list(TopologicalSorter(self.sources).static_order())
        except CycleError as error:
            cycle = " -> ".join(error.args[1])
            raise NIRError(
                f"the graph has a cycle ({cycle}): spikes that feed back, which no neuron without memory of "
                "its own can take. snnTorch's import_from_nir reads recurrent graphs"
            ) from None


def _check(name: str, node: Any) -> None:
    kind = type(node).__name__
    if isinstance(node, nir.CubaLI | nir.CubaLIF):
        raise NIRError(
            f"{name!r} ({kind}) has two decays, one behind the other. MFP(kernel='fir') can hold their taps; "
            "write Delay and Scale nodes for them, and a Threshold"
        )
    if isinstance(node, nir.NIRGraph):
        raise NIRError(f"{name!r} is a graph within the graph. Put its nodes into the outer one")


def _key(name: str, taken: dict[str, nn.Module]) -> str:
    """A name that a module can have."""
    wanted = name.replace(".", "_") or "node"
    key, number = wanted, 2
    # A ModuleDict refuses the names of its own attributes, such as "items".
    while key in taken or key == "input" or hasattr(nn.ModuleDict, key):
        key, number = f"{wanted}_{number}", number + 1
    return key
