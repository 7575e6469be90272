"""Checkpoints: safetensors with JSON in the header, one file, replaced as a whole or not at all."""

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfp_neurons._checks import require
from mfp_neurons._files import write_bytes

META = "mfp_neurons"  # the header key that holds the JSON


class CheckpointError(ValueError):
    """A file that is not the checkpoint it was taken for."""


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Tensors and JSON facts in one file.

    They cannot disagree: both are in the file that ``os.replace`` puts in place.
    """
    safetensors = require("safetensors.torch", "train")
    # safetensors refuses tensors that share memory or have gaps: tied weights and views become copies
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_bytes(path, safetensors.save(plain, metadata={META: json.dumps(facts)}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`save` wrote.

    Raises:
        CheckpointError: there is no such file, or it is no checkpoint of this package.
    """
    if path.is_dir():
        raise CheckpointError(f"checkpoint {str(path)!r} is a folder: give the best.safetensors in it")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r}: no such file")
    safetensors = require("safetensors", "train")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(META, "null"))
            if not isinstance(facts, dict):
                raise CheckpointError(f"{path} is no mfp-neurons checkpoint: its header has no {META!r}")
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no mfp-neurons checkpoint: {error}") from None


def flatten(state: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """A JSON twin of nested state; every tensor moves to ``tensors`` and leaves its name behind."""
    if isinstance(state, Tensor):
        tensors[prefix] = state
        return {"tensor": prefix}
    if isinstance(state, Mapping):  # as pairs: JSON would make strings of keys that are numbers
        return {"items": [[k, flatten(v, f"{prefix}/{k}", tensors)] for k, v in state.items()]}
    # a list of plain values stays one JSON list: the state of Python's generator has 625 numbers
    if isinstance(state, (list, tuple)) and not all(isinstance(v, (int, float, str)) for v in state):
        return {"list": [flatten(v, f"{prefix}/{i}", tensors) for i, v in enumerate(state)]}
    return {"value": state}


def unflatten(twin: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`flatten` (tuples come back as lists)."""
    if "tensor" in twin:
        return tensors[twin["tensor"]]
    if "items" in twin:
        return {k: unflatten(v, tensors) for k, v in twin["items"]}
    if "list" in twin:
        return [unflatten(v, tensors) for v in twin["list"]]
    return twin["value"]


def seed_everything(seed: int) -> None:
    """Seeds every generator that training may draw from."""
    torch.manual_seed(seed)  # all devices
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def random_state() -> dict[str, Any]:
    """Every generator that training may draw from: torch on all devices, Python and, once imported, NumPy."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy" in sys.modules:
        # NumPy is not imported for this: what nobody has imported nobody has drawn from
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [name, keys.tolist(), *rest]
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts back what :func:`random_state` took."""
    torch.set_rng_state(state["torch"])
    version, words, gauss = state["python"]  # Python wants tuples, and JSON has given lists
    random.setstate((version, tuple(words), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "numpy" in state:
        name, keys, *rest = state["numpy"]
        require("numpy", "train").random.set_state((name, keys, *rest))
