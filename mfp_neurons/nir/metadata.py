"""What the graph says beside its nodes: names, codes, kernels, and what was folded.

NIR keeps strings, numbers and arrays by name. Nothing here changes what the graph computes; :func:`from_nir`
uses it only where the nodes' own arrays follow from it, bit for bit.
"""

from typing import Any

import numpy as np

from mfp_neurons import __version__

from .signals import Synapse, Term

BY = "mfp-neurons"


def of_graph(dt: float, **facts: Any) -> dict[str, Any]:
    """Of the graph as a whole: who wrote it, the time of a step, and what the model does around the nodes."""
    return {"written_by": BY, "mfp_version": __version__, "dt": dt} | facts


def of_synapse(synapse: Synapse, term: Term) -> dict[str, Any]:
    """Of a layer: its path, and what its weight was made of."""
    facts: dict[str, Any] = {
        "path": synapse.path,
        "mfp_version": __version__,
        "bias": synapse.bias is not None,
    }
    if synapse.kind != "Linear":
        facts |= {
            "groups": synapse.options["groups"],
            "kernel_size": np.array(synapse.weight.shape[2:]),
            "padding": synapse.options["padding"],
        }
        if not isinstance(facts["padding"], str):
            facts["padding"] = np.array(facts["padding"])
    if synapse.codes is not None:
        codes, scale, bits = synapse.codes
        facts |= {"codes": codes, "scale": scale, "bits": bits}
    if term.norm is not None:
        facts |= {"folded": "batch norm", **of_norm(term)}
        if synapse.codes is not None and synapse.bias is not None:
            facts["layer_bias"] = synapse.bias
    elif term.scale is not None or term.offset is not None:
        parts = {"folded_scale": term.scale, "folded_offset": term.offset}
        facts |= {"folded": "affine"} | {k: v.reshape(-1) for k, v in parts.items() if v is not None}
    return facts


def of_norm(term: Term) -> dict[str, Any]:
    norm = term.norm
    assert norm is not None
    named = {"mean": norm.mean, "var": norm.var, "weight": norm.weight, "bias": norm.bias, "eps": norm.eps}
    return {f"norm_{name}": value for name, value in named.items() if value is not None}
