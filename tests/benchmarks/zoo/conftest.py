"""A zoo of one small network, trained in a moment, in a folder of its own."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zoo import training
from mfp_neurons import train
from mfp_neurons.zoo import catalog
from tests.train.conftest import SMALL

CONFIGS = Path(train.__path__[0]) / "configs"


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a zoo with the config "tiny", its original, and no network yet."""
    for module, name, folder in ((training, "CONFIGS", "configs"), (catalog, "NETWORKS", "networks")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(module, name, tmp_path / folder)
    shutil.copy(CONFIGS / "digits-mfp.toml", tmp_path / "configs" / "tiny.toml")
    (tmp_path / training.ORIGINALS).write_text(
        '[tiny]\n"network.neuron" = { kind = "spikingjelly-lif", learnable = false }\n'
    )
    return tmp_path


def train_and_pack(
    out: Path, overrides: Mapping[str, Any], name: str = "tiny", *, by: str = "", **options: bool
) -> catalog.Trained:
    data = training.train(name, out, overrides, bars=False, **options)
    return training.pack(name, out, by=by, data=data, bars=False)


@pytest.fixture
def trained(zoo: Path) -> catalog.Trained:
    """The network of that config, at a smaller size, trained in ``zoo / "run"``."""
    return train_and_pack(zoo / "run", SMALL, by="somebody")
