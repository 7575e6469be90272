"""One row of the benchmark: all neurons on one input, timed in turn, and their memory measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .calls import FORWARD, Inputs, Neuron, Peer, Size, copy, probe, sample
from .peers import forget_compiled
from .timing import TOTAL, Effort, Outcome, Sample, Skip, alternate, clock_for, reason, summary
from .worker import Worker

Entry = dict[str, Any]
COPY, FRESH_COPY = "copy", "copy into new memory"
_MOST_PROBED = 64  # steps: recording every allocation of a longer loop over time takes minutes


@dataclass(frozen=True)
class Contest:
    """All ``peers`` on one input."""

    id: str
    size: Size
    work: str
    peers: Sequence[Peer]

    def run(self, effort: Effort, worker: Worker) -> dict[str, Any]:
        """What the row says in the result file."""
        forget_compiled()
        size = self.size
        inputs, clock = Inputs(size.shape, size.dtype, size.device), clock_for(size.device)
        neurons: dict[str, Neuron] = {}  # of this process
        notes: dict[str, str] = {}

        def build(peer: Peer) -> Sample:
            if not peer.worker:
                neuron = neurons[peer.name] = peer.build(size)
                notes[peer.name] = neuron.note
                return sample(neuron, inputs, self.work, clock)
            if size.device.type != "cuda":
                raise Skip("for a GPU: its kernels are CuPy's")
            timed, notes[peer.name] = worker.build(peer, size, self.work)
            return timed

        def memory(name: str) -> dict[str, float]:
            return probe(neurons[name], inputs) if name in neurons else worker.probe(name)

        contestants: dict[str, Callable[[], Sample]] = {
            COPY: lambda: copy(inputs, clock),
            FRESH_COPY: lambda: copy(inputs, clock, fresh=True),
            **{peer.name: partial(build, peer) for peer in self.peers},
        }
        outcome = alternate(contestants, effort)
        copies = {name: summary(outcome.calls[name])[TOTAL] for name in (COPY, FRESH_COPY)}
        moved = 2 * inputs.bytes  # read and written
        rate = moved / copies[COPY]["median"]
        entries = [self._entry(peer, outcome, notes.get(peer.name, ""), rate, memory) for peer in self.peers]
        worker.forget()
        facts = {"steps": size.steps, "neurons": size.neurons, "dtype": size.dtype_name, "work": self.work}
        return {**facts, "copy_bytes": moved, "copies": copies, "entries": entries}

    def _entry(
        self,
        peer: Peer,
        outcome: Outcome,
        note: str,
        copy_rate: float,
        memory: Callable[[str], dict[str, float]],
    ) -> Entry:
        """What is known of one peer; ``copy_rate`` in bytes a millisecond."""
        entry: Entry = {"name": peer.name, "against": peer.against, "ours": peer.ours}
        if peer.name in outcome.skipped:
            return entry | {"skipped": outcome.skipped[peer.name]}
        calls, training = outcome.calls[peer.name], self.work != FORWARD
        entry |= {"calls": len(calls), "ms": summary(calls)} | ({"note": note} if note else {})
        if training and self.size.steps <= _MOST_PROBED:
            try:
                entry["memory"] = memory(peer.name)
            except Exception as error:
                entry["memory_skipped"] = reason(error)
        if peer.traffic is not None:
            traffic = peer.traffic(self.size.dtype.itemsize, training)
            entry["bytes"] = moved = traffic.parts(self.size.elements, training=training)
            entry["copy_share"] = {p: moved[p] / entry["ms"][p]["median"] / copy_rate for p in moved}
        return entry
