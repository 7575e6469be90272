"""Everything that comes out of one model: integers in all their executions, C, NIR, the report."""

import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from mfp_neurons import deploy, report
from mfp_neurons.nir import from_nir, to_nir

from .book import Book, digest


def record(
    book: Book,
    case: str,
    model: nn.Module,
    example: Tensor,
    *,
    levels: int | None = None,
    interpreted: bool = True,
    largest_events: int = 20_000,
) -> None:
    """Records all exports of a model that reads ``example``, or why there is none.

    Args:
        levels: the largest level; the model reads example / levels where the example is uint8.
        interpreted: run the NumPy definition as well.
        largest_events: numbers of an input up to which it is run event by event.
    """
    seen = example.float() / (levels or 255) if example.dtype == torch.uint8 else example.float()
    # the neurons of both frameworks keep states, so that each export gets a model of its own
    book.attempt(case, "report", lambda: _report(deepcopy(model), seen))
    graph = book.attempt(case, "nir", lambda: nir_text(to_nir(deepcopy(model), seen)))
    if graph is not None and not graph.startswith(("NIRError", "ValueError", "TypeError")):
        _record_loaded(book, case, deepcopy(model), seen)
    try:
        network = deploy.lower(deepcopy(model), example, levels=levels)
    except Exception as error:
        book.put(case, "lower", f"{type(error).__name__}: {error}\n")
        return
    record_network(book, case, network, example, interpreted=interpreted, largest_events=largest_events)


def record_network(
    book: Book,
    case: str,
    network: deploy.IntegerNetwork,
    x: Tensor,
    *,
    interpreted: bool = True,
    largest_events: int = 20_000,
) -> None:
    book.put(case, "network", f"{network}\n\n{network!r}\n{network.memory()}\n")
    book.attempt(case, "memory", lambda: [network.memory(batch=3, steps=len(x) * 2), network.memory()])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network.save(folder / "network")  # the file has a version, but no date
        book.put(case, "saved", (folder / "network").read_bytes())
        loaded = deploy.IntegerNetwork.load(folder / "network")
        book.put(case, "loaded", str(loaded) == str(network))
        try:
            files = loaded.to_c(folder / "c")
        except Exception as error:
            book.put(case, "c", f"{type(error).__name__}: {error}\n")
            files = []
        for file in files:
            text = file.read_text()
            if file.name.startswith("mfp_net"):  # the others are the same for every network
                book.put(case, file.name, text)
            else:
                book.put(case, file.name, text.encode())
    book.attempt(case, "run", lambda: network.run(x, threads=1))
    book.attempt(case, "run one sample more", lambda: network.run(_more(network, x), threads=1))
    book.attempt(case, "stream", lambda: _stream(network, x))
    if x.numel() <= largest_events:
        book.attempt(case, "events", lambda: _events(network, x))
    if interpreted:
        book.attempt(case, "run in NumPy", lambda: network.run(x, backend="numpy"))
        book.attempt(case, "stream in NumPy", lambda: _stream(network, x, backend="numpy"))


def _more(network: deploy.IntegerNetwork, x: Tensor) -> Tensor:
    """The input, once as it is and once turned around."""
    samples = x.dim() - len(network.graph.input.features) - 1
    return torch.cat([x, x.flip(samples).flip(-1)], samples)


def _stream(network: deploy.IntegerNetwork, x: Tensor, **options: Any) -> Any:
    stream, scores = network.stream(threads=1, **options), []
    static = x.dim() == len(network.graph.input.features) + 1
    for step in [x] * network.graph.steps if static else x:
        scores.append(stream.step(step))
    return [len(scores), stream.state_bits, [None if one is None else digest(one) for one in scores]]


def _events(network: deploy.IntegerNetwork, x: Tensor) -> Any:
    done = network.run_events(x)
    spikes = {}
    for name, events in done.spikes.items():
        rows = [events.time, events.sample, events.channel, events.row, events.column, events.level]
        table = np.stack([np.asarray(row).ravel() for row in rows])
        spikes[name] = digest(table[:, np.lexsort(table[::-1])])
    return [done.scores, done.synaptic_operations, done.multiply_accumulates, spikes]


def _report(model: nn.Module, seen: Tensor) -> str:
    with torch.no_grad():
        made = report(model, seen)
    numbers = "\n".join(f"{name}: {value!r}" for name, value in made.as_dict().items())
    return f"{made}\n\n{numbers}\n"


def nir_text(graph: Any) -> str:
    """Nodes in their order with their parameters, edges, metadata."""
    lines = []
    for name, node in graph.nodes.items():
        values = {key: value for key, value in vars(node).items() if not key.startswith("_")}
        lines.append(f"{name}: {type(node).__name__}")
        lines += [f"    {key} = {digest(value)}" for key, value in sorted(values.items())]
    lines += [f"{source} -> {target}" for source, target in graph.edges]
    lines.append(f"metadata {dict(sorted(graph.metadata.items()))}")
    return "\n".join(lines) + "\n"


def _record_loaded(book: Book, case: str, model: nn.Module, seen: Tensor) -> None:
    """What the graph becomes again, from memory and from a file."""
    graph = to_nir(deepcopy(model), seen, dt=1e-3)

    def written() -> str:
        with tempfile.TemporaryDirectory() as name:
            to_nir(deepcopy(model), seen, dt=1e-3, path=Path(name) / "graph.nir")
            return nir_text(nir.read(Path(name) / "graph.nir"))

    if len(graph.nodes) <= 30:  # HDF5 takes its time
        book.attempt(case, "nir read again", written)
    try:
        network = from_nir(graph)
    except Exception as error:
        book.put(case, "from_nir", f"{type(error).__name__}: {error}\n")
        return
    book.put(case, "from_nir", f"{network}\n")

    @torch.no_grad()
    def scores() -> Tensor:
        return network.eval()(seen)

    book.attempt(case, "from_nir run", scores)
