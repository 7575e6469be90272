"""The arrays of an integer network as constant tables in C."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Ints, Synapse
from ..pack import code_planes, smallest, words
from .memory import WORD, in_bytes

WIDTH = 112


@dataclass
class Tables:
    """What has been written so far: lines of C, and how many bytes of tables they hold."""

    lines: list[str] = field(default_factory=list)
    weight_bytes: int = 0
    parameter_bytes: int = 0

    def weights(self, name: str, numbers: NDArray[Any]) -> None:
        """A table of codes."""
        self.weight_bytes += numbers.nbytes
        self._write(name, numbers)

    def parameters(self, name: str, numbers: Ints) -> str:
        """A table of whole numbers in the smallest type that holds them; returns the mfp_table for it."""
        small = smallest(numbers)
        self.parameter_bytes += small.nbytes
        self._write(name, small)
        return f"{{{name}, {small.itemsize}}}"

    def _write(self, name: str, numbers: NDArray[Any]) -> None:
        self.lines += [
            f"static const {numbers.dtype.name}_t {name}[{numbers.size}] = {{",
            body(numbers),
            "};",
        ]


def body(numbers: NDArray[Any]) -> str:
    """The numbers of a table, as many to a line as fit."""
    flat = numbers.reshape(-1).tolist()
    each = [f"0x{number:08x}," if numbers.dtype == np.uint32 else f"{number}," for number in flat]
    row = WIDTH // (1 + max(map(len, each)))
    return "\n".join("    " + " ".join(each[i : i + row]) for i in range(0, len(each), row))


def packed_codes(graph: Graph, synapse: Synapse) -> NDArray[Any]:
    """Codes as they lie in memory: rows in the order (row, column, channel), bytes or planes of words."""
    rows = synapse.codes.transpose(0, 2, 3, 1).reshape(len(synapse.codes), -1)
    if in_bytes(graph, synapse):
        return rows
    return words(np.moveaxis(code_planes(rows, synapse.bits), 0, 1), WORD).astype(np.uint32)


def comment(text: str) -> str:
    """A name from outside, as it can stand in any comment: other characters become dots."""
    return re.sub(r"[^A-Za-z0-9_.,:()\[\] -]", ".", text) or "(no name)"
