"""One row of the benchmark: a work at a size, and every peer that meets there, timed in turn and probed."""

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
        table = _Table(self, worker)
        outcome = alternate(table.contestants(self.peers), effort)
        copies = {name: summary(outcome.calls[name])[TOTAL] for name in (COPY, FRESH_COPY)}
        moved = 2 * table.inputs.bytes  # read and written
        entries = [table.entry(peer, outcome, moved / copies[COPY]["median"]) for peer in self.peers]
        worker.forget()
        s = self.size
        facts = {"steps": s.steps, "neurons": s.neurons, "dtype": s.dtype_name, "work": self.work}
        return {**facts, "copy_bytes": moved, "copies": copies, "entries": entries}


class _Table:
    """Where the contestants of one row meet."""

    def __init__(self, row: Contest, worker: Worker) -> None:
        self.size, self.work, self.worker = row.size, row.work, worker
        self.inputs = Inputs(row.size.shape, row.size.dtype, row.size.device)
        self.clock = clock_for(row.size.device)
        self.built: dict[str, Neuron] = {}
        self.notes: dict[str, str] = {}

    def contestants(self, peers: Sequence[Peer]) -> dict[str, Callable[[], Sample]]:
        return {
            COPY: lambda: copy(self.inputs, self.clock),
            FRESH_COPY: lambda: copy(self.inputs, self.clock, fresh=True),
            **{peer.name: partial(self._build, peer) for peer in peers},
        }

    def _build(self, peer: Peer) -> Sample:
        if not peer.worker:
            self.built[peer.name] = peer.build(self.size)
            self.notes[peer.name] = self.built[peer.name].note
            return sample(self.built[peer.name], self.inputs, self.work, self.clock)
        if self.size.device.type != "cuda":
            raise Skip("for a GPU: its kernels are CuPy's")
        timed, self.notes[peer.name] = self.worker.build(peer, self.size, self.work)
        return timed

    def entry(self, peer: Peer, outcome: Outcome, copy_rate: float) -> Entry:
        """What is known of one peer; ``copy_rate`` in bytes a millisecond."""
        entry: Entry = {"name": peer.name, "against": peer.against, "ours": peer.ours}
        if peer.name in outcome.skipped:
            return entry | {"skipped": outcome.skipped[peer.name]}
        calls = outcome.calls[peer.name]
        entry |= {"calls": len(calls), "ms": summary(calls)} | self._probed(peer)
        if peer.traffic is not None:
            traffic = peer.traffic(self.size.dtype.itemsize, self.work != FORWARD)
            moved = traffic.parts(self.size.elements, training=self.work != FORWARD)
            entry["bytes"] = moved
            entry["copy_share"] = {p: moved[p] / entry["ms"][p]["median"] / copy_rate for p in moved}
        return entry

    def _probed(self, peer: Peer) -> Entry:
        neuron = self.built.get(peer.name)
        note = {"note": self.notes[peer.name]} if self.notes[peer.name] else {}
        if self.work == FORWARD or self.size.steps > _MOST_PROBED:
            return note
        try:
            found = self.worker.probe(peer.name) if neuron is None else probe(neuron, self.inputs)
        except Exception as error:
            return note | {"memory_skipped": reason(error)}
        return note | {"memory": found}
