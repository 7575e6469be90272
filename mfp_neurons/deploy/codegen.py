"""An integer network as C99 for small devices: tables, one call for each layer, static buffers.

``NAME.c`` and ``NAME.h`` are generated; the primitives that they call, ``mfp_int.c`` and ``mfp_int.h``, are
written by hand and the same for all networks.
"""

import os
import re
from pathlib import Path

from ._c_layers import write_layers
from ._c_memory import run_bytes, scored_steps, state_bytes, step_bytes
from ._c_text import header, source
from .check import check
from .graph import Graph, current_bound

_PRIMITIVES = Path(__file__).parent / "device"
_TAKEN = ("mfp_int", "stdint")
_MOST_BYTES = 2**31 - 1  # the C counts in 32 bits


def write_c(graph: Graph, directory: str | os.PathLike[str], *, name: str = "mfp_net") -> list[Path]:
    """Writes a network as C99 that needs ``<stdint.h>`` alone; its header says how to use it.

    Args:
        graph: a valid network.
        directory: made if need be; files of the same names in it are replaced.
        name: of the two generated files, and the prefix of what they define: a C identifier.

    Returns:
        The files: NAME.h, NAME.c, mfp_int.h, mfp_int.c.

    Raises:
        InvalidNetworkError: the graph is none that could be run.
        ValueError: ``name`` can't be used, or tables, buffers or scores are too large for the C.
    """
    _check_name(name)
    check(graph)
    _check_scores(graph)
    _check_bytes("the buffers of a run", run_bytes(graph))
    _check_bytes("the buffers of a step", step_bytes(graph) + state_bytes(graph))
    tables = write_layers(graph)
    _check_bytes("the tables", tables.weight_bytes + tables.parameter_bytes)
    texts = {f"{name}.h": header(graph, name, tables), f"{name}.c": source(graph, name, tables)}
    texts |= {file: (_PRIMITIVES / file).read_text() for file in ("mfp_int.h", "mfp_int.c")}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        _replace(folder / file, text)
    return [folder / file for file in texts]


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"name must be a C identifier that begins with a letter, got {name!r}")
    if name.lower() in _TAKEN:
        raise ValueError(f"name must be other than {' and '.join(_TAKEN)}, whose headers the C includes")


def _check_scores(graph: Graph) -> None:
    scores = graph.scores
    bounds = current_bound(graph, scores.synapses)
    one = max(bound + abs(offset) for bound, offset in zip(bounds, scores.offset.tolist(), strict=True))
    largest = one if scores.reduce == "none" else one * scored_steps(graph)
    if largest >= 2**63:
        raise ValueError(
            f"the sum of {scored_steps(graph)} steps' scores can reach {largest:,}, more than 64 bits hold: "
            "read out fewer steps"
        )


def _check_bytes(what: str, count: int) -> None:
    if count > _MOST_BYTES:
        raise ValueError(f"{what} would take {count:,} bytes; the C counts up to {_MOST_BYTES:,}")


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="ascii", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
