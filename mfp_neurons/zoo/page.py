"""The table of all cards, as docs/zoo.md shows it."""

from collections.abc import Iterable
from pathlib import Path

from mfp_neurons.train.tables import markdown

from .cards import Card, CardError, duration

MARK = "<!-- mfp-neurons zoo list -->"  # the table stands between two of these lines

_HEAD = (
    "network",
    "data",
    "test accuracy, PyTorch / integers, %",
    "bytes packed / float32",
    "state, bits a neuron",
    "synaptic operations",
    "energy, estimate",
    "trained",
)


def table(shipped: Iterable[Card]) -> str:
    """One row a network, in Markdown."""
    return markdown(_HEAD, [_row(card) for card in shipped])


def _row(card: Card) -> tuple[str, ...]:
    integer = card.accuracy.integer
    return (
        f"`{card.name}`",
        card.dataset,
        f"{card.accuracy.torch:.2f} / " + ("not lowered" if integer is None else f"{integer:.2f}"),
        f"{card.file_bytes:,} / {card.float32_bytes:,}",
        f"{card.state_bits_per_neuron:.3g}",
        f"{card.synaptic_operations:,.0f}",
        f"{1e6 * card.energy_joules:.3g} µJ",
        f"{duration(card.seconds)}, {card.trained_on}",
    )


def insert(page: str, shipped: Iterable[Card]) -> str:
    """A page with the table of these cards between its two marks.

    Raises:
        CardError: it has not exactly two marks.
    """
    parts = page.split(MARK)
    if len(parts) != 3:
        raise CardError(f"the page has {len(parts) - 1} lines {MARK}; the table goes between two")
    return MARK.join([parts[0], f"\n{table(shipped)}\n", parts[2]])


def write(path: Path, shipped: Iterable[Card]) -> None:
    """Renews the table in the page at ``path``."""
    path.write_text(insert(path.read_text(), shipped))
