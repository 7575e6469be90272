"""The GRU in C beside PyTorch's, and what is counted of a program on a board."""

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import cortex_m, gru
from benchmarks.evidence import rivals
from benchmarks.evidence.rivals.gated import GRUClassifier
from mfp_neurons import zoo
from mfp_neurons.train.config import from_dict
from mfp_neurons.train.data import Data, Split
from tests.deploy.cortex import M4, score
from tests.deploy.toolchain import STRICT, run, tool

FRAMES = 7


def drawn(inputs: int, width: int, classes: int, seed: int) -> tuple[GRUClassifier, torch.Tensor]:
    """A network with large weights, so that gates saturate, and bytes [N, FRAMES, inputs]."""
    torch.manual_seed(seed)
    module = rivals.gru((inputs,), classes, FRAMES, None, width=width, norm=False).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 2)
    return module, torch.randint(0, 256, (5, FRAMES, inputs), dtype=torch.uint8)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_the_gru_in_c_is_pytorchs(inputs: int, width: int, classes: int, seed: int) -> None:
    module, samples = drawn(inputs, width, classes, seed)
    with torch.no_grad():
        # float64: what both round
        expected = module.double()(samples.transpose(0, 1).double() / 255)[-1].numpy()
    module.float()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gru.write_weights(module, 255.0, folder / "weights.h")
        source = str(gru.SOURCES / "gru.c")
        run([tool("gcc"), *STRICT, "-O2", "-shared", "-fPIC", f"-I{folder}", source, "-o", "gru.so"], folder)
        library = ctypes.CDLL(str(folder / "gru.so"))
        scores = np.zeros(classes, np.float32)
        for sample, right in zip(samples.numpy(), expected, strict=True):
            library.gru_reset()
            for frame in sample:
                library.gru_step(np.ascontiguousarray(frame).ctypes)
            library.gru_scores(scores.ctypes)
            np.testing.assert_allclose(scores, right, atol=2e-4)


@pytest.mark.parametrize("options", [{}, {"bits": 8}, {"layers": 2, "norm": False}], ids=str)
def test_a_gru_that_the_c_does_not_run_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    module = rivals.gru((3,), 2, FRAMES, None, width=4, **options)
    with pytest.raises(ValueError, match="give one layer of a GRU in floats, without a batch norm"):
        gru.write_weights(module, 255.0, tmp_path / "weights.h")


@pytest.mark.parametrize("flags", [cortex_m.FPU, ()], ids=["unit", "library"])
def test_the_gru_runs_on_the_board(flags: tuple[str, ...]) -> None:
    tool("arm-none-eabi-gcc"), tool("qemu-system-arm")
    module, samples = drawn(3, 4, 2, 0)
    split = Split(samples.unsqueeze(1), torch.zeros(5, dtype=torch.int64))
    data = Data(split, split, split, classes=2, reading="rows", time_steps=4, scale=255.0)
    found = cortex_m.build_gru(M4, flags, module, data)
    assert found["equal"] == 5
    assert found["run_instructions"] > 6 * found["step_instructions"]
    # every weight is in flash, and the state in memory
    assert found["step"]["flash"] > 4 * sum(p.numel() for p in module.parameters()) - 4 * 2 * 4
    assert 4 * 4 <= found["step"]["ram"] < 400
    multiplications = FRAMES * 3 * 4 * (3 + 4)
    assert found["run_instructions"] > multiplications * (2 if flags else 20)


def test_a_gru_is_trained_on_the_data_of_a_network_and_in_its_batches() -> None:
    beside = from_dict(
        {"data": {"name": "spoken-digits"}, "training": {"batch_size": 32, "weight_decay": 0.1}}
    )
    config = gru.config(beside, 5, 7, 1e-2)
    assert config.data == beside.data
    training = config.training
    assert (training.batch_size, training.epochs, training.learning_rate) == (32, 7, 1e-2)
    assert training.weight_decay == 0


def test_instructions_of_a_step_are_the_mean_over_a_stream_in_which_some_layers_rest(tmp_path: Path) -> None:
    tool("arm-none-eabi-gcc"), tool("qemu-system-arm")
    graph = zoo.load("spoken-digits").network.graph
    levels = np.random.default_rng(0).integers(0, 256, (2, graph.steps, *graph.input.shape), np.uint8)
    found = score(M4, graph, levels, tmp_path, count=True, optimize="-O2")
    assert found.step_instructions < 0.6 * found.last_step_instructions
    assert found.run_instructions < graph.steps * found.step_instructions


def test_samples_are_split_into_programs_that_a_board_holds() -> None:
    levels = np.zeros((11, 50_000), np.uint8)
    assert [len(part) for part in cortex_m.parts(levels)] == [3, 3, 3, 2]
