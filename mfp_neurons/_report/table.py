"""The report as text."""

from collections.abc import Sequence

from .record import HARDLY, Report


def table(report: Report) -> str:
    """Layers, then what is kept between steps, then totals."""
    parts = [_grid(*_synapses(report)), _grid(*_neurons(report))]
    if report.state:
        parts.append(_grid(*_state(report)))
    parts.append("\n".join(f"{name:<34}{value}" for name, value in _totals(report)))
    if report.hardly_fire:
        parts.append(
            f"hardly fire (less than {HARDLY:.0%} of their steps): {', '.join(report.hardly_fire)}\n"
            "  little gets through them: lower their threshold, or normalize in front of them"
        )
    if report.not_counted:
        parts.append(
            "\n".join(["not counted", *(f"  {name}: {why}" for name, why in report.not_counted.items())])
        )
    return "\n\n".join(part for part in parts if part)


def _synapses(report: Report) -> tuple[list[str], list[list[str]]]:
    head = ["synapses", "kind", "weights", "bits", "packed", "stored", "input", "syn. ops", "MACs"]
    rows = [
        [
            row.name,
            row.kind,
            f"{row.weights:,}",
            f"{row.bits:g}",
            _bytes(row.packed_bytes),
            _bytes(row.stored_bytes),
            "spikes" if row.spikes_in else "real",
            _count(row.synaptic_operations),
            _count(row.macs),
        ]
        for row in report.synapses
    ]
    return head, rows


def _neurons(report: Report) -> tuple[list[str], list[list[str]]]:
    head = ["neurons", "kind", "number", "state bits each", "spikes a step", "firing rate"]
    rows = [
        [
            row.name,
            row.kind,
            f"{row.neurons:,}",
            f"{row.state_bits_per_neuron:g}",
            "-" if row.spikes_per_step is None else _count(row.spikes_per_step),
            "-" if row.firing_rate is None else f"{row.firing_rate:.4f}",
        ]
        for row in report.neurons
    ]
    return head, rows


def _state(report: Report) -> tuple[list[str], list[list[str]]]:
    head = ["kept between steps", "what", "values", "bits", "steps", "total bits", "needed by"]
    rows = [
        [
            row.of,
            row.what,
            f"{row.values:,}",
            str(row.bits_per_value),
            str(row.steps),
            f"{row.bits:,}",
            ", ".join(row.needed_by),
        ]
        for row in report.state
    ]
    return head, rows


def _totals(report: Report) -> list[tuple[str, str]]:
    return [
        ("steps, batch", f"{report.steps}, {report.batch}"),
        ("weights, packed", _bytes(report.weight_bytes)),
        ("weights, as stored", _bytes(report.weight_bytes_stored)),
        ("state between steps", f"{report.state_bits:,} bits a sample"),
        ("state, mean over neurons", f"{report.state_bits_per_neuron:.3g} bits"),
        ("state in PyTorch, step by step", f"{_bytes(report.torch_state_bytes)} a sample"),
        ("peak activations, whole batch", _bytes(report.peak_activation_bytes)),
        ("spikes a step", _count(report.spikes_per_step)),
        ("synaptic operations", f"{_count(report.synaptic_operations)} a sample"),
        ("  when streaming", f"{_count(report.streaming_synaptic_operations)} a sample"),
        ("MACs", f"{_count(report.macs)} a sample"),
        ("energy, estimate (45 nm, float32)", f"{_joules(report.energy_joules)} a sample"),
    ]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    left = {0, 1, len(head) - 1} if head[-1] == "needed by" else {0, 1}
    lines = [
        "  ".join(
            f"{cell:<{w}}" if i in left else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in (head, ["-" * w for w in widths], *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _bytes(value: int) -> str:
    for size, unit in ((2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"


def _joules(value: float) -> str:
    for size, unit in ((1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-12:.3g} pJ"
