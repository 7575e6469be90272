"""An integer network as C99 for small devices: tables, one call for each layer, static buffers.

``NAME.c`` and ``NAME.h`` are generated; the primitives that they call, ``mfp_int.c`` and ``mfp_int.h``, are
written by hand and the same for all networks.
"""

import os
import re
from pathlib import Path

from ..._checks import describe
from ..._files import write_bytes
from ..check import check
from ..graph import Graph
from .layers import write_layers
from .memory import run_bytes, state_bytes, step_bytes
from .text import header, source

_PRIMITIVES = Path(__file__).parent
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
        ValueError: ``name`` can't be used, or tables or buffers are too large for the C. Nothing has been
            written then.

    >>> import tempfile
    >>> import numpy as np
    >>> from mfp_neurons.deploy.graph import Graph, Input, Scores, Synapse, Window
    >>> codes = np.array([[1, -1], [-1, 1]], np.int8).reshape(2, 2, 1, 1)
    >>> shape, zeros = (2, 1, 1), np.zeros(2)
    >>> synapse = Synapse(0, codes, 1, Window(), shape)
    >>> scores = Scores("fc", (synapse,), zeros.astype(int), shape, (2,), 1.0, zeros)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in write_c(Graph(Input(shape, (2,), 1), (scores,), 4), folder, name="tiny")]
    ['tiny.h', 'tiny.c', 'mfp_int.h', 'mfp_int.c']
    """
    _check_name(name)
    check(graph)
    _check_bytes("the buffers of a run", run_bytes(graph))
    _check_bytes("the buffers of a step", step_bytes(graph) + state_bytes(graph))
    tables = write_layers(graph)
    _check_bytes("the tables", tables.weight_bytes + tables.parameter_bytes)
    texts = {f"{name}.h": header(graph, name, tables), f"{name}.c": source(graph, name, tables)}
    texts |= {file: (_PRIMITIVES / file).read_text() for file in ("mfp_int.h", "mfp_int.c")}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_bytes(folder / file, text.encode("ascii"))
    return [folder / file for file in texts]


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name):
        raise ValueError(
            "name must be a C identifier of at most 63 characters that begins with a letter, got "
            f"{describe(name)}"
        )
    if name.lower() in _TAKEN:
        raise ValueError(f"name must be other than {' and '.join(_TAKEN)}, whose headers the C includes")


def _check_bytes(what: str, count: int) -> None:
    if count > _MOST_BYTES:
        raise ValueError(f"{what} would take {count:,} bytes; the C counts up to {_MOST_BYTES:,}")
