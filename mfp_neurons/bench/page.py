"""The whole Markdown page of a result."""

from collections.abc import Mapping

from . import tables
from .tables import Result
from .text import bullets


def page(result: Result, figures: Mapping[str, str] | None = None) -> str:
    """The whole page. ``figures``: file name of each, with its alternative text."""
    parts = [f"# Benchmark: {result['facts']['device_name']}", _facts(result)]
    parts += [f"![{text}]({name})" for name, text in (figures or {}).items()]
    parts += [
        f"## {title}\n\n{text}"
        for title, text in (
            ("In short", tables.in_short(result)),
            ("Neuron alone", tables.neurons(result)),
            ("Bytes that must move, against a copy", tables.copies(result)),
            ("Memory of the neuron", tables.neuron_memory(result)),
            ("Batch normalization and neuron", tables.norms(result)),
            ("Training steps", tables.networks(result)),
            ("Bars", tables.verdicts([result])),
        )
        if text
    ]
    skipped = {name: row["skipped"] for name, row in result["rows"].items() if "skipped" in row}
    if skipped:
        parts.append("## Rows that did not run\n\n" + bullets(f"{n}: {why}" for n, why in skipped.items()))
    return "\n\n".join(parts)


_METHOD = """\
All neurons are measured in one run and take turns: every round calls each of them once, the order changes
from round to round, all are warmed up, and states are reset between calls. Input, upstream gradient, dtype
and threads are the same for all. Times are medians with quartiles in brackets. "x" is the time divided by
that of the neuron of this package for users of the same framework. Neurons of SpikingJelly return spikes and
keep the last potential, as MFPNode does; of snnTorch's neurons only the spikes are kept."""

_ON_A_GPU = """\
On the GPU the times are between CUDA events, and before every call the GPU spins for about a millisecond, so
that launches are queued and the time measured is that of the GPU's work (for loops over time, whose launches
take longer than that, also the launches). Inputs that fit the L2 cache take turns with others. SpikingJelly
0.0.0.0.14 cannot be imported beside 2.0.0: it runs in a worker process, which is asked for one call at a
time, in turn with all others; "MFPNode, worker process" is our neuron over there, and shows what the process
changes."""


def _facts(result: Result) -> str:
    facts, commit = result["facts"], result["facts"]["commit"]
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items() if v)
    place = "no checkout" if commit is None else commit["id"][:12] + (", changed" if commit["dirty"] else "")
    text = [
        f"{facts['date']}; {facts['processor']}, {facts['threads']} threads of {facts['cpus']} processors",
        f"{facts['system']}; {versions}; commit {place}; backend {facts['backend']}",
    ]
    if facts["load_average_before"] is not None:
        text.append(f"load average before the run: {facts['load_average_before']}")
    if result["options"]["quick"]:
        text.append("**A quick run on small sizes: its numbers mean nothing.**")
    method = [_METHOD, *([_ON_A_GPU] if facts["device"] == "cuda" else [])]
    memory = [f"{what}: {how}" for what, how in result["memory_methods"].items()]
    return "\n\n".join([bullets(text), *method, "Memory, in calls apart from the timing:", bullets(memory)])
