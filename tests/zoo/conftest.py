"""A zoo of one small network, trained in a moment, in a folder of its own."""

import shutil
from pathlib import Path

import pytest

from mfp_neurons.zoo import catalog, training

SMALL = {
    "network.hidden": [12, 10, 8],
    "training.epochs": 2,
    "training.threads": 1,
    "training.device": "cpu",
    "data.limit": 150,
}
DIGITS = Path(catalog.__file__).parents[1] / "train" / "configs" / "digits-mfp.toml"


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a zoo with the config "tiny" and no network yet."""
    for name, folder in (("CONFIGS", "configs"), ("NETWORKS", "networks")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(catalog, name, tmp_path / folder)
    shutil.copy(DIGITS, tmp_path / "configs" / "tiny.toml")
    return tmp_path


@pytest.fixture
def trained(zoo: Path) -> catalog.Trained:
    """The network of that config, at a smaller size, trained in ``zoo / "run"``."""
    return training.train("tiny", zoo / "run", SMALL, by="somebody", bars=False)
