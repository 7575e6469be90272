"""Networks of LIFs that are lowered as they are: they give the same answers as integers."""

from pathlib import Path

import pytest

pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")

from benchmarks.trained_lifs import NETWORKS, lowered
from tests.train.conftest import write_fashion_mnist


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_lifs_answers_as_before_when_it_is_lowered(name: str, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "FashionMNIST" / "raw", zipped=True)
    small = {"training.epochs": 1, "data.limit": 20, "data.validation": 20, "data.time_steps": 3}
    small |= {"readout.train": 3, "readout.candidates": [3]}
    result = lowered(name, tmp_path, str(tmp_path), small)
    assert result["same_answers"] == result["test_images"] == 30
    assert result["accuracy_in_integers"] == result["accuracy_in_the_framework"]
    assert result["bytes_of_weights_and_parameters"] < result["bytes_of_float_parameters"] / 2
