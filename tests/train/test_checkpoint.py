"""Checkpoints: one file that is whole or not there."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons._files import write_bytes
from mfp_neurons.train import checkpoint
from mfp_neurons.train.checkpoint import CheckpointError

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TENSORS = st.integers(0, 5).map(lambda n: torch.arange(n, dtype=torch.float64))
STATES = st.recursive(
    LEAVES | TENSORS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(STATES)
def test_any_nested_state_comes_back_from_a_file(
    tmp_path_factory: pytest.TempPathFactory, state: Any
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    tensors: dict[str, torch.Tensor] = {}
    twin = checkpoint.flatten(state, "", tensors)
    checkpoint.save(path, tensors, {"twin": twin})
    read, facts = checkpoint.read(path)
    assert same(state, checkpoint.unflatten(facts["twin"], read))


def test_every_random_generator_goes_on_where_it_stood() -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), random.random(), float(np.random.rand())  # noqa: NPY002 (the global one)

    tensors: dict[str, torch.Tensor] = {}
    twin = checkpoint.flatten(checkpoint.random_state(), "", tensors)
    expected = [draw() for _ in range(3)]
    checkpoint.set_random_state(checkpoint.unflatten(twin, tensors))
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize("stage", ["write", "fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    if stage == "write":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(os, stage, fail)
    with pytest.raises(OSError, match="no space left"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    import safetensors.torch

    (tmp_path / "broken").write_bytes(b"nothing of the kind")
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "foreign")
    for name, words in (
        ("gone", "gone': no such file"),
        ("broken", "broken is no mfp-neurons checkpoint"),
        ("foreign", "foreign is no mfp-neurons checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=words):
            checkpoint.read(tmp_path / name)
